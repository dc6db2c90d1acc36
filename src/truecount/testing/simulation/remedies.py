"""The protocol's remedies, each with a world that lacks it.

What such a world breaks is the name of a function or method that is there for
this one reason; here it is replaced for as long as the world runs. A remedy
whose absence does no harm in thousands of worlds would be superstition.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Final, NamedTuple
from unittest import mock

from truecount import combine, plans, settle
from truecount.change import CANCELLED, DECIDED, Add, Answer, Batch, Change, CompareAndSet, Refusal
from truecount.combine import Flight, Line, Pending, Ticket
from truecount.errors import StoreTimeoutError
from truecount.plans import Sealed, Unknown, commit, look
from truecount.process import Writer
from truecount.record import EMPTY, Ledger, Record, Stamp
from truecount.steps import Plan, Replace
from truecount.testing.simulation.store import ADDRESS, EMBEDDED, NOTHING, SUMS, SimulatedStore
from truecount.testing.simulation.truth import Violation
from truecount.testing.simulation.world import Client, Letter, Somebody, Task, World

__all__ = ["REMEDIES", "Echoing", "Remedy", "Restoring"]


class Remedy(NamedTuple):
    """A remedy, the hole that it closes, and the world that goes without."""

    name: str
    hole: str
    world: type[World]


REMEDIES: Final[dict[str, Remedy]] = {}


def _without(name: str, hole: str) -> Any:
    def register(world: type[World]) -> type[World]:
        REMEDIES[name] = Remedy(name, hole, world)
        return world

    return register


class _Patched(World):
    """A world in which functions are replaced while it runs."""

    def replacements(self) -> list[tuple[Any, str, Any]]:
        return []

    def run(self) -> Any:
        with contextlib.ExitStack() as stack:
            for place, name, replacement in self.replacements():
                stack.enter_context(mock.patch.object(place, name, replacement))
            return super().run()


# Records


@_without("stamps", "a restored backup or a failover repeats bare revisions")
class _BareRevisions(World):
    restores = True

    class store_class(SimulatedStore):  # noqa: N801  # an attribute of the world
        def holds(self, old: Record | None) -> bool:
            if self.record is None or old is None:
                return self.record is old
            return self.record.stamp.revision == old.stamp.revision


@_without("receipts", "a replay under other bounds than those that decided")
class _ReplayUnderNewBounds(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        def repeat(record: Record, batch: Batch) -> Answer:
            entry = record.ledger.entry(batch.writer)
            assert entry is not None
            if batch.number == entry.number:
                without = record._replace(
                    value=entry.before, ledger=_less(record.ledger, batch.writer), horizon=0
                )
                return settle.settle(without, batch, record.time)[1]._replace(remembered=True)
            return original(record, batch)

        original = settle.repeat
        return [(settle, "repeat", repeat)]


@_without("same use", "a replay is told of the change that took its expired key later")
class _AnyUse(_Patched):
    odds_of_keys = 0.8

    class store_class(SimulatedStore):  # noqa: N801  # an attribute of the world
        key_ttl = 100

    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "is_same_use", lambda known, change: True)]


@_without("tombstones", "late requests bring deleted counters back")
class _PlainDeletion(World):
    class store_class(SimulatedStore):  # noqa: N801  # an attribute of the world
        def keep(self, new: Record) -> Record | None:
            return None if new.deleted else new


@_without("new horizon", "late requests land in a counter that was created again")
class _OldHorizon(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "begun_again", lambda revision: (0, EMPTY))]


@_without("first revision", "a counter whose tombstone was purged begins below what is late")
class _RevisionOne(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        def before_the_first(now: int) -> Record:
            return Record(0, Stamp(0, "", 0), now, deleted=True)

        return [(settle, "before_the_first", before_the_first)]


@_without("monotone time", "a process whose clock lags turns timestamps back")
class _WritersClock(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "latest", lambda now, time: now)]


# Who sends


@_without("one queue", "a write beside the queue overtakes a batch, which then looks done")
class _Overtaking(World):
    def submit(self, client: Client, change: Change) -> None:
        if not isinstance(change, CompareAndSet):
            super().submit(client, change)
            return
        line = client.line
        number = next(line.terms.writer.numbers)
        sealed = Sealed(Batch(line.name, number, line.revision, (change,)))

        def beside() -> Plan[Any]:
            engine = line.terms.settles(change)
            try:
                answer, _ = yield from commit(ADDRESS, sealed, line.terms.ground, engine=engine)
            except Unknown as unknown:
                raise Pending(sealed, 0, unknown.cause) from None
            return answer.outcomes[0], answer.view

        call = self.truth.call(change)
        self.begin(client, beside(), call, self.finish_change, sealed)


@_without("fresh writer", "the next batch takes the place of a receipt that is still wanted")
class _SameWriter(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(combine, "starts_afresh", lambda flight: False)]


@_without("fork", "a child goes on under its parent's name and numbers")
class _SharedName(World):
    def child_of(self, parent: Writer) -> Writer:
        child = Somebody(self)
        child.name = parent.name
        child.numbers = copy.copy(parent.numbers)
        return child


class _OpenLine(Line):
    def lead(self, ticket: Ticket) -> Plan[None]:
        plan = super().lead(ticket)
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = plan.send(result) if error is None else plan.throw(error)
            except StopIteration:
                return
            result = error = None
            try:
                result = yield step
            except BaseException as thrown:
                error = thrown
                self.take_in()

    def _deliver(self, flight: Flight, answer: Answer, record: Record | None) -> bool:
        if len(flight.tickets) != len(answer.outcomes):
            raise Violation(f"{len(answer.outcomes)} outcomes for {len(flight.tickets)} callers")
        return super()._deliver(flight, answer, record)

    def take_in(self) -> None:
        flight = self.flight
        while flight is not None and self.waiting:
            change = self.waiting[0].change
            first = flight.sealed.batch.changes[0]
            if type(change) is not Add or type(first) is not Add or change.key or first.key:
                return
            flight.tickets.append(self.waiting.pop(0))
            batch = flight.sealed.batch
            flight.sealed.batch = batch._replace(changes=(*batch.changes, change))


@_without("sealed batches", "a batch that is sent again with more in it is taken for the first")
class _OpenBatches(World):
    line_class = _OpenLine


class _LeavingLine(Line):
    def expire(self, ticket: Ticket) -> None:
        if ticket.decided is None and ticket.error is None:
            self._remove(ticket)
            ticket.error = StoreTimeoutError("left, sealed or not")
            self._step_down(ticket)


@_without("leaving", "who leaves after the batch was sealed is told that nothing was applied")
class _LeavingAtWill(World):
    line_class = _LeavingLine


class _DroppingLine(Line):
    def drop(self, ticket: Ticket, interruption: BaseException, *, leading: bool = True) -> bool:
        if ticket.leads and self.flight is not None:
            others = [other for other in self.flight.tickets if other not in (None, ticket)]
            self.flight = None
            self.waiting[:0] = others
        return super().drop(ticket, interruption, leading=leading)


@_without("dead leaders", "the batch of a leader that died is sent again under a new number")
class _DroppedBatches(World):
    line_class = _DroppingLine


@_without("told for good", "a refusal is told while somebody may still send the batch again")
class _ToldEarly(_Patched):
    odds_of_leaving = 0.3
    odds_of_settling = 0.5

    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(combine, "may_tell", lambda flight, answer: True)]


# What an answer proves


@_without("definite", "a refusal after an ambiguous attempt is taken for proof")
class _HastyRefusals(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "is_definite", lambda sealed: True)]


@_without("fresh look", "a new leader's attempt hides that another one's may still land")
class _StaleLook(_Patched):
    engines = (NOTHING, NOTHING, NOTHING)
    storms = (1.5,)
    odds_of_trouble = 0.03
    odds_of_keys = 0

    def make_trouble(self) -> None:
        for client in self.clients:
            flight = client.line.flight
            leader = next((task for task in client.tasks if task.message is not None), None)
            if flight and leader and flight.sealed.tried and len(client.tasks) > 1:
                self.interrupt(leader)

    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "may_save_reading", lambda sealed: not sealed.batch.keys)]


@_without("horizon", "silence of a record that has forgotten is taken for proof")
class _NoHorizon(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        def proves_undone(record: Record | None, sealed: Sealed) -> bool:
            if record is None or sealed.tried is None or record.stamp == sealed.tried:
                return False
            return record.ledger.number(sealed.batch.writer) < sealed.batch.number

        return [(plans, "proves_undone", proves_undone)]


@_without("since", "the engine applies a batch again whose receipt it has forgotten")
class _NoSince(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "is_forgotten", lambda record, batch: False)]


@_without("same since", "a batch that may have been applied is sent as if it were new")
class _MovingSince(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "may_look_again", lambda sealed: True)]


@_without("absence", "absence after a purge is taken for proof")
class _ProofByAbsence(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "is_unknowable", lambda batch: False)]


@_without("own receipt", "its own write is taken for somebody else's")
class _OutOfSyncAtOnce(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        def by_condition(
            record: Record | None, batch: Batch, now: int, keep: int
        ) -> tuple[Record | None, Answer]:
            if record is not None:
                record = record._replace(ledger=_less(record.ledger, batch.writer), horizon=0)
            return settle.settle(record, batch, now, keep)

        return [(plans, "settle", by_condition)]


@_without("collected batches", "what another process has collected is taken for unsent")
class _TakenForUnsent(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "may_be_sent", lambda turn: False)]


@_without("collected and sent", "what may be on its way is put back, as if it were not")
class _PutBack(World):
    def put_back(self, task: Task, refused: list[Letter]) -> None:
        super().put_back(task, [*refused, *task.letters])


@_without("strangers", "what another process sends along is meant for another store")
class _AnyWriter(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(settle, "is_at_home", lambda record, batch: True)]


@_without("answers by others", "what another process sends is answered before the store has it")
class _HastyAnswers(World):
    def advance(self, task: Task, result: Any, problem: BaseException | None = None) -> None:
        super().advance(task, result, problem)
        if task.message is not None and type(task.message.step) is Replace:
            self.answer(task.message.step.new, task.message.letters)


@_without("running sums", "only the total of a batch is held against the bounds")
class _OnlyTotals(World):
    class store_class(SimulatedStore):  # noqa: N801  # an attribute of the world
        def fits(self, record: Record, total: int, lowest: int, highest: int) -> bool:
            return super().fits(record, total, total, total)

        def settle(self, batch: Batch) -> Answer:
            if self.engine != SUMS:
                return super().settle(batch)
            with mock.patch.object(settle, "crosses", return_value=False):
                return super().settle(batch)


@_without("fences", "what was refused lands later, when it fits")
class _NoFences(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "must_fence", lambda sealed, ground: False)]


@_without("fences for all", "what one has been refused, another one's retry applies")
class _FencesForOne(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [(plans, "must_fence", lambda sealed, ground: sealed.engine)]


@_without("fencing cancel", "what was cancelled lands later")
class _CancelByLooking(World):
    def cancel(self, client: Client, sealed: Sealed) -> Plan[Any]:
        def cancelling() -> Plan[Any]:
            batch = sealed.batch
            record = yield from look(ADDRESS, batch.keys)
            if record is not None and record.ledger.number(batch.writer) >= batch.number:
                return settle.repeat(record, batch), record
            refusals = (Refusal(CANCELLED),) * len(batch.changes)
            return Answer(*batch[:3], DECIDED, refusals, None, False), record

        return cancelling()


@_without("retry goes on", "a retry that starts afresh applies again")
class _FreshRetry(World):
    def retry(self, client: Client, sealed: Sealed) -> Plan[Any]:
        if sealed.batch.cancel:
            return super().retry(client, sealed)
        writer = client.line.terms.writer
        number = next(writer.numbers)
        fresh = Sealed(sealed.batch._replace(writer=writer.rename(), number=number))
        sealed.batch = fresh.batch
        engine = all(client.line.terms.settles(change) for change in fresh.batch.changes)
        return commit(ADDRESS, fresh, client.line.terms.ground, engine=engine)


@_without("keys by condition", "a late keyed change lands after its key has expired")
class _KeysByEngine(World):
    odds_of_keys = 0.8

    class store_class(SimulatedStore):  # noqa: N801  # an attribute of the world
        def settles(self, change: Change) -> bool:
            return self.engine == EMBEDDED or (self.engine == SUMS and type(change) is Add)


@_without("named answers", "an answer to an earlier request is taken for this one's")
class _NamelessAnswers(_Patched):
    def replacements(self) -> list[tuple[Any, str, Any]]:
        return [
            (plans, "answers", lambda answer, batch: len(answer.outcomes) == len(batch.changes))
        ]


@_without("fence=always", "a request that was refused and is delivered again lands then")
class _Echoes(World):
    echoes = True


class Echoing(World):
    """A network that delivers answered requests again, which `always_fence` is for."""

    echoes = True
    always_fence = True


class Restoring(World):
    """A store whose operators play back backups."""

    restores = True


def _less(ledger: Ledger, writer: str) -> Ledger:
    lines = ledger.text.splitlines(keepends=True)
    return Ledger("".join(line for line in lines if not line.startswith(f"{writer} ")))
