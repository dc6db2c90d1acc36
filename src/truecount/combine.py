"""Many callers, one batch in flight.

The callers of one process on one counter stand in one `Line`. The first one
leads: it seals a batch of what stands there and sees it through, while those
who come meanwhile form the next. Then the first of those leads. An
uncontended caller goes straight through, without a change of threads.

The line is one writer: its batches carry one name and growing numbers, at most
one of them in flight. That is why a record need only remember a writer's
latest batch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeGuard
from weakref import WeakKeyDictionary, WeakValueDictionary

from truecount.change import (
    ALONE,
    BEYOND,
    DECIDED,
    OUTSIDE,
    Add,
    Additions,
    Answer,
    Batch,
    Change,
    Create,
    Decided,
    Refusal,
)
from truecount.drive import (
    MOMENT,
    entrances,
    orphaned,
    orphans,
    refuse_nested,
    run_inside,
    running,
)
from truecount.errors import CounterError, StoreTimeoutError
from truecount.gate import closed, open_up, wait_at
from truecount.plans import Ground, Sealed, Unknown, answers, commit, look
from truecount.process import Writer, here, known
from truecount.record import Address, Record, View, make
from truecount.steps import Expired, Gather, Plan, Wait
from truecount.stores.base import PASSING, Ambiguous, Store, time_left

__all__ = [
    *("SENT", "Line", "Pending", "Terms", "additions", "ask", "attach", "line_at", "lines_at"),
    "submit",
]

SENT: Final = "truecount: the change had been sent; whether it was applied is not known"
"""The note on an exception that interrupted a caller whose change was on its way."""


class Pending(Exception):
    """What became of change ``index`` of ``sealed`` is unknown.

    ``cause`` is what kept it from being known in time; None when it cannot be
    told any more.
    """

    def __init__(self, sealed: Sealed, index: int, cause: CounterError | None) -> None:
        super().__init__(str(cause))
        self.sealed = sealed
        self.index = index
        self.cause = cause


class Ticket:
    """A caller's place in the line.

    ``gate``: where its thread waits, if it waits for nothing else. ``prompt``: once woken, it is
    sure to go on, and wakes the one ``after`` it.
    """

    __slots__ = ("after", "change", "decided", "error", "gate", "leads", "line", "prompt", "waker")

    def __init__(
        self,
        line: Line,
        change: Change,
        gate: threading.Lock | None = None,
        *,
        prompt: bool = False,
    ) -> None:
        self.line = line
        self.change = change
        self.gate = gate
        self.prompt = prompt
        self.leads = False
        self.decided: Decided | None = None
        self.error: Exception | None = None
        self.waker: Callable[[], object] | None = None
        self.after: Ticket | None = None

    def wake(self) -> None:
        """Have the one who waits look; whoever does not yet, will see it.

        Under the line's lock: it never blocks, and never raises.
        """
        if self.gate is not None:
            try:  # noqa: SIM105  # as `open_up` does, but faster
                self.gate.release()
            except RuntimeError:
                pass  # it is open
        elif self.waker is not None:
            self.waker()

    def pass_on(self) -> None:
        """Wake the next one, if that is left to this one; may be repeated."""
        if self.after is not None:
            self.after.wake()
            self.after = None

    def may_leave(self) -> bool:
        """Whether nobody leads in its name yet. Under the line's lock."""
        return True

    def watch(self, wake: Callable[[], object]) -> bool:
        """Have ``wake`` called when there is something to do; False when there is already."""
        with self.line.lock:
            if self.leads or self.decided is not None or self.error is not None:
                return False
            self.waker = wake
            return True


class Flight(NamedTuple):
    """The batch in flight, and who waits for which of its changes (None: has left)."""

    sealed: Sealed
    tickets: list[Ticket | None]
    engine: bool


class Terms(NamedTuple):
    """What the lines of one process at one store have in common.

    ``settles`` tells which changes the store settles by itself, ``limit`` how
    many changes a batch holds at most, ``key_limit`` how many of them have a key.
    """

    writer: Writer
    ground: Ground
    settles: Callable[[Change], bool]
    limit: int
    key_limit: int


class Line:
    """The callers of one process on one counter, and the writer that they share.

    ``name`` is the name of the writer under which this line goes on,
    ``revision`` the latest one known, ``crowd`` how many stood here a moment ago.
    """

    __slots__ = (
        *("__weakref__", "address", "complete", "crowd", "flight", "known", "leader", "lock"),
        *("name", "revision", "terms", "waiting"),
    )

    def __init__(self, address: Address, terms: Terms, revision: int = 0) -> None:
        self.address = address
        self.terms = terms
        self.name = terms.writer.name
        self.revision = revision
        self.crowd = 1
        self.complete: Callable[[], object] | None = None  # to be called when the crowd is there
        self.known: Record | None = None
        self.lock = threading.Lock()
        self.waiting: list[Ticket] = []  # small, as long as nobody does
        self.flight: Flight | None = None
        self.leader: Ticket | Change | None = None  # a change: whose caller is not in line

    def learn(self, record: Record) -> None:
        """Take note of what somebody has read."""
        with self.lock:
            self.known = record
            self.revision = record.stamp.revision

    # Standing in line

    def join(self, ticket: Ticket) -> bool:
        """Stand in line; True: lead."""
        self.refuse_strangers()
        with self.lock:
            waiting = self.waiting
            waiting.append(ticket)
            if self.leader is None:
                self.leader = ticket
                ticket.leads = True
            elif self.complete is not None and len(waiting) >= self.crowd:
                self.complete()
                self.complete = None
            return ticket.leads

    def lead(self, ticket: Ticket) -> Plan[None]:
        """Seal a batch, or take over the one whose leader is gone, and see it through."""
        yield from self.gather()
        flight = self._seal()
        try:
            delivered = False
            while not delivered:
                answer, record = yield from commit(
                    self.address,
                    flight.sealed,
                    self.terms.ground,
                    engine=flight.engine,
                    known=self.known,
                )
                delivered = self._deliver(flight, answer, record)
        except Unknown as unknown:
            self._fail(flight, ticket, unknown.cause)
        except CounterError as error:
            self._fail(flight, ticket, error)

    def gather(self) -> Plan[None]:
        """Let those come who stood here a moment ago.

        Without that the first to return would go alone, and find the others in
        its place when it is back.
        """
        there = 0
        while self.expects(there):
            there = len(self.waiting)
            yield Gather(self)

    def expects(self, there: int) -> bool:
        """Whether some are still to come, of whom so many were ``there`` at the last look."""
        return self.flight is None and there < len(self.waiting) < self.crowd

    def watch(self, wake: Callable[[], object]) -> bool:
        """Have ``wake`` called when as many stand here as a moment ago; False when they do."""
        with self.lock:
            if len(self.waiting) >= self.crowd:
                return False
            self.complete = wake
            return True

    def expire(self, ticket: Ticket) -> None:
        """Leave because the time is over: unsent is definite, sent is unknown."""
        with self.lock:
            if ticket.decided is not None or ticket.error is not None or not ticket.may_leave():
                return  # called at the last moment
            flight, index = self._remove(ticket)
            if flight is None:
                ticket.error = StoreTimeoutError(
                    "the time was over while other callers of this process were served; "
                    "nothing was applied"
                )
            else:
                flight.sealed.shared = True
                cause = StoreTimeoutError("the time was over while the change was on its way")
                ticket.error = Pending(flight.sealed.again(), index, cause)
            self._step_down(ticket)

    def drop(self, ticket: Ticket, interruption: BaseException, *, leading: bool = True) -> bool:
        """Leave because the caller was interrupted; note it when its change was on its way.

        Not ``leading``: only if nobody leads in its name. Returns whether it has left.
        """
        with self.lock:
            if not leading and not ticket.may_leave():
                return False
            if ticket.leads and self.flight is not None and self.flight.sealed.applied:
                self.flight.sealed.shared = True  # no later refusal undoes it
            flight, _ = self._remove(ticket)
            self._step_down(ticket)
            goes_on = ticket.decided is not None or (
                flight is not None and (flight.sealed.in_doubt or self.flight is flight)
            )
        if goes_on:
            note(interruption)
        return True

    # Going straight through

    def attempt(
        self, ticket: Ticket, gate: threading.Lock, store: Store, timeout: float | None
    ) -> bool:
        """Seal a batch and make its first attempt; whether all in it are told.

        As `lead` begins, but faster: it is for `lead` to go on.
        """
        there = 0
        while self.expects(there):
            there = len(self.waiting)
            if self.watch(partial(open_up, gate)):
                wait_at(gate, MOMENT)
        if orphans:
            raise orphaned()
        if self.flight is not None:
            return False  # it is another's, who is gone
        flight = self._seal()
        sealed = flight.sealed
        if not flight.engine:
            return False
        sealed.engine = True  # whatever happens before the answer
        came = first_attempt(store, self.address, sealed.batch, timeout)
        if orphans:
            raise orphaned()
        if is_decided(came, sealed.batch):
            sealed.applied = True  # before the doubt ends
            sealed.engine = False
            return self._deliver(flight, came, None)
        engine, sealed.engine = self.left_by(came, sealed.batch)
        if isinstance(came, CounterError) and not (isinstance(came, PASSING) or sealed.in_doubt):
            self._fail(flight, ticket, came)
            return True
        if not engine:
            self.flight = flight._replace(engine=False)
        return False

    def left_by(self, came: Answer | CounterError | Ambiguous, batch: Batch) -> tuple[bool, bool]:
        """What a first attempt has left of which that came, and which decided nothing.

        Whether the engine may be asked again, and whether the attempt may still land.
        """
        if isinstance(came, CounterError):
            return True, False
        if isinstance(came, Answer) and answers(came, batch):
            engine = came.verdict != BEYOND
            # Where answered requests come again, it may be delivered once more.
            return engine, self.terms.ground.always_fence and not engine
        return True, True

    def pass_by(self, change: Change) -> Batch | None:
        """Lead with ``change`` alone, when nobody is in line and the store settles it."""
        self.refuse_strangers()
        if not (self.terms.settles(change) and self.enter(change)):
            return None
        number = next(self.terms.writer.numbers)
        return make(Batch, (self.name, number, self.revision, (change,), False, False))

    def enter(self, change: Change) -> bool:
        """Lead with ``change`` alone, when nobody is in line. `refuse_strangers` goes before."""
        with self.lock:
            if self.leader is not None or self.crowd > 1:
                return False
            self.leader = change
            return True

    def passed(self, view: View | None) -> None:
        """Let the next one lead, who takes note of what was seen."""
        with self.lock:
            if view is not None:
                self.revision = view.stamp.revision
                self.known = None  # it has moved on
            if not self.waiting:
                self.leader = None
                return
            self._hand_over()

    def go_on(
        self, change: Change, batch: Batch, came: Answer | CounterError | Ambiguous
    ) -> tuple[Ticket, bool]:
        """Go on leading from a place in the line, after a first attempt that decided nothing.

        ``came`` is what came of it. Returns the place, and whether the attempt may still land.
        Raises what refused it for good.
        """
        engine, in_doubt = self.left_by(came, batch)
        if isinstance(came, CounterError) and not isinstance(came, PASSING):
            self.passed(None)
            raise came
        ticket = Ticket(self, change)
        ticket.leads = True
        sealed = Sealed(batch)
        sealed.engine = in_doubt
        flight = Flight(sealed, [ticket], engine)
        with self.lock:
            self.flight = flight
            self.leader = ticket
        return ticket, in_doubt

    def abandon(self, change: Change, ticket: Ticket | None, interruption: BaseException) -> None:
        """Leave, interrupted, wherever the caller with ``change`` stands; may be repeated."""
        leader = self.leader
        if isinstance(leader, Ticket) and leader.change is change:
            ticket = leader  # struck in `go_on`, it may not know its place
        if ticket is not None:
            ticket.pass_on()
            self.drop(ticket, interruption)
        with self.lock:
            if self.leader is change:
                self.name = self.terms.writer.rename()
                self._hand_over()
            else:
                self._rouse()

    def refuse_strangers(self) -> None:
        """Raise `CounterError` in a child that was forked after its caller had found this line."""
        if self.terms.writer.process is not known():
            orphans.add(threading.get_ident())  # so that all leave the line to the parent
            raise orphaned()

    # Under the lock

    def _seal(self) -> Flight:
        with self.lock:
            if self.flight is None:
                waiting = self.waiting
                first = waiting[0].change
                changes = [first]
                engine = self.terms.settles(first)
                keys = int(first.key is not None)
                most = 1 if type(first) in ALONE else self.terms.limit
                for change in [ticket.change for ticket in waiting[1:most]]:
                    # Most are alike; as tuples, so are some of different types.
                    alike = change is first or (change == first and type(change) is type(first))
                    if not alike and (
                        type(change) in ALONE or self.terms.settles(change) is not engine
                    ):
                        break
                    keys += change.key is not None
                    if keys > self.terms.key_limit:
                        break
                    changes.append(change)
                count = len(changes)
                tickets: list[Ticket | None] = [*waiting[:count]]
                number = next(self.terms.writer.numbers)
                batch = Batch(self.name, number, self.revision, tuple(changes))
                flight = Flight(Sealed(batch), tickets, engine)
                self.flight = flight  # with what follows, in one go: nobody is lost to a strike
                del waiting[:count]
            return self.flight

    def _deliver(self, flight: Flight, answer: Answer, record: Record | None) -> bool:
        """Give everybody their outcome, or False when it must not be told yet."""
        with self.lock:
            if not may_tell(flight, answer):
                return False
            self.known = record  # None: the engine has moved it on
            if answer.view is not None:
                self.revision = answer.view.stamp.revision
            view = answer.view
            head = latest = None
            for ticket, outcome in zip(flight.tickets, answer.outcomes, strict=True):
                if ticket is None:
                    continue
                ticket.decided = (outcome, view)
                if not ticket.prompt:
                    ticket.wake()
                elif latest is None:
                    head = latest = ticket
                else:
                    latest.after = latest = ticket
            if head is not None:
                head.wake()  # not before it knows who is next
            self._land(flight)
            self._hand_over()
        return True

    def _fail(self, flight: Flight, ticket: Ticket, cause: CounterError | None) -> None:
        """The leader's attempts are at an end: unknown is its outcome, or refused the batch."""
        with self.lock:
            self.known = None  # it may be what kept the batch from being applied
            others = [other for other in flight.tickets if other not in (None, ticket)]
            if flight.sealed.shared or cause is None:
                # Others may know it yet: they have longer to wait.
                flight.sealed.shared = True
                _, index = self._remove(ticket)
                ticket.error = Pending(flight.sealed.again(), index, cause)
                self._step_down(ticket)
            else:
                ticket.error = cause
                if isinstance(cause, PASSING):
                    # Only the leader's time is over: the others go back to their places,
                    # all in one go: whoever is struck leaves nobody in two of them.
                    self.flight = None
                    self.waiting[:0] = others
                else:
                    for other in others:
                        other.error = cause.copy()
                        other.wake()
                self._land(flight)
                self._step_down(ticket)

    def _remove(self, ticket: Ticket) -> tuple[Flight | None, int]:
        """Take ``ticket`` out of the line: the flight that it was in, and where."""
        flight = self.flight
        if flight is not None and ticket in flight.tickets:
            index = flight.tickets.index(ticket)
            flight.tickets[index] = None
            return flight, index
        if ticket in self.waiting:
            self.waiting.remove(ticket)
        return None, 0

    def _land(self, flight: Flight) -> None:
        """Nothing is in flight any more."""
        self.flight = None
        self.crowd = min(len(flight.tickets) + len(self.waiting), self.terms.limit)
        if starts_afresh(flight):
            self.name = self.terms.writer.rename()

    def _step_down(self, ticket: Ticket) -> None:
        """Pass the lead on, if ``ticket`` has it."""
        ticket.leads = False
        if self.leader is ticket:
            self._hand_over()
        else:
            self._rouse()

    def _hand_over(self) -> None:
        """Call the next one to lead, first those who wait for the batch in flight."""
        if self.flight is not None:
            for ticket in self.flight.tickets:
                if ticket is None:
                    continue
                if ticket.decided is None and ticket.error is None:
                    self._call(ticket)
                    return
                ticket.wake()  # told already, by somebody who was struck before the call
            self._land(self.flight)  # nobody is left to see it through
        if self.waiting:
            self._call(self.waiting[0])
        else:
            self.leader = None

    def _call(self, ticket: Ticket) -> None:
        self.leader = ticket
        ticket.leads = True
        ticket.wake()

    def _rouse(self) -> None:
        """Call the leader again: whoever did may have been struck in the middle of it."""
        if isinstance(self.leader, Ticket):
            self.leader.wake()


def may_tell(flight: Flight, answer: Answer) -> bool:
    """Whether a refusal in ``answer`` is for good.

    Not when somebody has left with the batch, and may send it again, before
    the refusal was written down.
    """
    return answer.remembered or not flight.sealed.shared


def starts_afresh(flight: Flight) -> bool:
    """Whether the line goes on under a fresh name.

    The receipt of a batch whose outcome somebody does not know has to stay
    where `OutcomeUnknownError.retry` and ``cancel`` look for it.
    """
    return flight.sealed.in_doubt


def first_attempt(
    store: Store, address: Address, batch: Batch, timeout: float | None
) -> Answer | CounterError | Ambiguous:
    """What comes of having ``store`` settle ``batch``."""
    try:
        return store.settle(address, batch, timeout=timeout)
    except (CounterError, Ambiguous) as error:
        return error


def is_decided(came: object, batch: Batch) -> TypeGuard[Answer]:
    """Whether what came of a first attempt at ``batch`` is the end of it."""
    return type(came) is Answer and came.verdict == DECIDED and answers(came, batch)


def additions(lines: Sequence[Line], adds: Sequence[Add]) -> Additions:
    """What is sent for ``lines`` of one store, in which the caller leads, by `Line.enter`."""
    return Additions(
        [line.address for line in lines],
        [line.name for line in lines],
        [*islice(lines[0].terms.writer.numbers, len(lines))],  # above all that they have sent
        [line.revision for line in lines],
        adds,
    )


def note(interruption: BaseException) -> None:
    """Say on ``interruption`` that the change it interrupted had been sent."""
    if SENT not in getattr(interruption, "__notes__", ()):
        interruption.add_note(SENT)


def submit(line: Line, change: Change) -> Plan[Decided]:
    """Have ``change`` applied, in line with the other callers of this process.

    Raises a `CounterError` when it was not and never will be applied, and
    `Pending` when that is unknown.
    """
    ticket = Ticket(line, change)
    try:
        if not line.join(ticket):
            try:
                yield Wait(ticket)
            except Expired:
                line.expire(ticket)
        return (yield from see_through(line, ticket))
    except BaseException as interruption:
        line.drop(ticket, interruption)
        raise


def see_through(line: Line, ticket: Ticket) -> Plan[Decided]:
    """Lead, if ``ticket`` is called to, and return or raise what it is told."""
    try:
        if ticket.leads:
            yield from line.lead(ticket)
    except BaseException as interruption:
        line.drop(ticket, interruption)
        raise
    return told(ticket)


def told(ticket: Ticket) -> Decided:
    """What ``ticket`` was told: returned, or raised."""
    if ticket.after is not None:  # as `pass_on` does, but faster
        ticket.after.wake()
        ticket.after = None
    if ticket.error is not None:
        raise ticket.error
    assert ticket.decided is not None
    return ticket.decided


def ask(line: Line, change: Change, store: Store, timeout: float | None) -> Decided:
    """`submit`, blocking, within ``timeout`` seconds (None: no end).

    A caller who finds nobody in line makes its first attempt on the spot, and so does
    who leads others; what that does not settle is a matter for the plan.
    """
    thread = threading.get_ident()
    if thread in running:
        refuse_nested()
    ticket: Ticket | None = None
    in_doubt = False
    try:
        running.add(thread)
        began = time.monotonic()
        batch: Batch | None = None
        if line.leader is None and line.crowd == 1:
            batch = line.pass_by(change)
        if batch is None:  # as `submit`, but faster
            # A signal handler may hold up the main thread: nobody is left to wait for it.
            ticket = Ticket(line, change, gate := closed(), prompt=thread != _main_thread)
            called = line.join(ticket)
            if not (called or orphans):
                called = wait_at(gate, timeout)
            if orphans:
                raise orphaned()
            if not called:
                line.expire(ticket)
            if not ticket.leads or line.attempt(ticket, gate, store, time_left(timeout, began)):
                return told(ticket)
            return run_inside(see_through(line, ticket), store, time_left(timeout, began))
        if orphans:  # forked before it was sealed: what the parent sends is another batch
            raise orphaned()
        in_doubt = True
        came = first_attempt(store, line.address, batch, timeout)
        if orphans:
            raise orphaned()
        if is_decided(came, batch):
            line.passed(came.view)
            return came.outcomes[0], came.view
        ticket, in_doubt = line.go_on(change, batch, came)
        return run_inside(see_through(line, ticket), store, time_left(timeout, began))
    except BaseException as interruption:
        if not orphans:  # else the line is the parent's
            try:
                line.abandon(change, ticket, interruption)
            except BaseException:  # struck just here: once more, or nobody leads again
                line.abandon(change, ticket, interruption)
                raise
            if in_doubt and not isinstance(interruption, CounterError | Pending):
                note(interruption)
        raise
    finally:
        running.discard(thread)
        orphans.discard(thread)


entrances.add(ask.__code__)


def attach(line: Line, create: Create | None) -> Plan[View | Refusal | None]:
    """Find the counter, or create it: what there is now, None when there is none.

    A `Refusal` when it cannot be created so.
    """
    view = yield from _find(line)
    if view is not None or create is None:
        return view
    try:
        outcome, view = yield from submit(line, create)
        if isinstance(outcome, Refusal) and outcome.code == OUTSIDE:
            return outcome
    except Pending as pending:
        # Somebody may have been first. What exists refuses a creation, now
        # and later, so that it does not matter any more what became of ours.
        try:
            view = yield from _find(line)
        except CounterError:
            raise pending from None
        if view is None:
            raise
    return view


def _find(line: Line) -> Plan[View | None]:
    record = yield from look(line.address)
    if record is None or record.deleted:
        return None
    line.learn(record)
    return record.view


class _Lines(NamedTuple):
    """What a process has at one store."""

    terms: Terms
    at: WeakValueDictionary[Address, Line]


_lines: WeakKeyDictionary[Store, _Lines] = WeakKeyDictionary()
_lock = threading.RLock()  # a signal handler may come in between


def line_at(store: Store, address: Address, revision: int) -> Line:
    """The line of this process for the counter at ``address``; gone when nobody needs it.

    ``revision`` is one that the caller has seen, for a line that is new. Two
    `Store` objects on one database are two writers: they share no queue.
    """
    with _lock:
        return _line(_lines_of(store), address, revision)


def lines_at(store: Store, domain: str, names: Iterable[str], kept: dict[str, Line]) -> list[Line]:
    """The lines for the counters ``names`` in ``domain``, as `line_at` has them.

    ``kept`` has some by name, and gets the others. After a fork it holds those of the parent,
    which are replaced.
    """
    with _lock:
        lines = _lines_of(store)
        terms = lines.terms
        found = []
        for name in names:
            line = kept.get(name)
            if line is None or line.terms is not terms:
                line = kept[name] = _line(lines, make(Address, (domain, name)), 0)
            found.append(line)
        return found


def _lines_of(store: Store) -> _Lines:
    """What this process has at ``store``. Under the lock."""
    lines = _lines.get(store)
    if lines is None or lines.terms.writer.process is not here():
        limits = store.batch_limit, store.key_limit
        terms = Terms(Writer(here()), Ground.of(store), store.settles, *limits)
        lines = _lines[store] = _Lines(terms, WeakValueDictionary())
    return lines


def _line(lines: _Lines, address: Address, revision: int) -> Line:
    line = lines.at.get(address)
    if line is None:
        line = lines.at[address] = Line(address, lines.terms, revision)
    return line


_main_thread = threading.main_thread().ident  # kept, as each call asks for it


def _forked() -> None:
    global _lock, _main_thread
    _lock = threading.RLock()
    _main_thread = threading.main_thread().ident


os.register_at_fork(after_in_child=_forked)
