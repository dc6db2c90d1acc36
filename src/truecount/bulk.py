"""One change of each of many counters, in as few requests as their store allows."""

from __future__ import annotations

import threading
from collections.abc import Container, Mapping, Sequence
from typing import Final, SupportsIndex, TypeAlias

from truecount.arguments import check_amount, check_name
from truecount.change import ABSENT, Add, Create, Outcome, Receipt, Refusal
from truecount.combine import (
    Line,
    Pending,
    Ticket,
    additions,
    attach,
    is_decided,
    lines_at,
    note,
    see_through,
    submit,
)
from truecount.conclude import conclude
from truecount.drive import entrances, orphans, refuse_nested, refuse_orphan, running
from truecount.errors import CounterError, InvalidTypeError, OutcomeUnknownError, StoreTimeoutError
from truecount.record import Address, Record
from truecount.steps import Plan, Read
from truecount.stores.base import PASSING, Deadline, Store
from truecount.together import Together
from truecount.unsettled import outcome_unknown

__all__ = ["add_all", "check_amounts"]

AT_ONCE: Final = 1000
"""How many counters are changed at once: while that lasts, others wait for their turn there."""

Came: TypeAlias = Outcome | Exception
"""What came of one change."""


def check_amounts(amounts: Mapping[str, SupportsIndex], known: Container[str]) -> dict[str, int]:
    """``amounts`` as ints; the names that are ``known`` have been checked before.

    Raises `InvalidTypeError` or `InvalidNameError`.
    """
    if not isinstance(amounts, Mapping):
        raise InvalidTypeError(
            f"add() takes a mapping of names to amounts, not {type(amounts).__name__}"
        )
    return {
        name if name in known else check_name(name): check_amount(amount)
        for name, amount in amounts.items()
    }


def add_all(
    store: Store,
    domain: str,
    amounts: Mapping[str, int],
    timeout: float | None,
    kept: dict[str, Line],
) -> dict[str, Receipt]:
    """Add to counters of ``domain`` by name, blocking, as `Domain.add` tells.

    ``kept`` holds lines of the latest calls by name, which need not look where their counters are.
    """
    deadline = Deadline(timeout)
    receipts: dict[str, Receipt] = {}
    failures: dict[str, CounterError] = {}
    # One for all that are alike: it is told from those of other calls, and that is all.
    alike = {amount: Add(amount) for amount in set(amounts.values())}
    engine = all(map(store.settles, alike.values()))
    names = list(amounts)
    for begin in range(0, len(names), AT_ONCE):
        part = names[begin : begin + AT_ONCE]
        lines = lines_at(store, domain, part, kept)
        if len(kept) > AT_ONCE:
            kept.clear()
            kept.update(zip(part, lines, strict=True))
        changes = [alike[amounts[name]] for name in part]
        many = _Many(lines, changes)
        try:
            many.settle(store, deadline, engine)
        except BaseException as interruption:
            if receipts:  # of other parts
                note(interruption)
            raise
        for at, each in enumerate(many.came):
            if type(each) is Receipt:
                receipts[part[at]] = each
                continue
            try:
                receipts[part[at]] = _conclude(store, lines[at].address, changes[at], each)
            except CounterError as error:
                failures[part[at]] = error
    if failures:
        unknown = (error for error in failures.values() if isinstance(error, OutcomeUnknownError))
        first = next(unknown, next(iter(failures.values())))
        first.receipts, first.failures = receipts, failures
        raise first
    return receipts


def _conclude(store: Store, address: Address, change: Add, came: Came | None) -> Receipt:
    if isinstance(came, Pending):
        raise outcome_unknown(store, address, came) from came.cause
    if isinstance(came, Exception):
        raise came
    assert came is not None
    return conclude(address, change, came)


class _Many:
    """Changes, each of another counter, that one thread has made, and what ``came`` of them."""

    def __init__(self, lines: Sequence[Line], changes: Sequence[Add]) -> None:
        self.lines = lines
        self.changes = changes
        self.came: list[Came | None] = [None] * len(lines)
        self._tickets: dict[int, Ticket] = {}  # the places from which they lead
        self._together: Together[Outcome] = Together(())
        self._sent = False

    def settle(self, store: Store, deadline: Deadline, engine: bool) -> None:
        """Have them made. ``engine``: whether the store settles them by itself.

        Then all that find nobody in line make their first attempt together. What that does not
        settle, and those who have to wait, are a matter for plans.
        """
        thread = threading.get_ident()
        if thread in running:
            refuse_nested()
        try:
            running.add(thread)
            self._look(store, deadline)
            if engine:
                self._attempt(store, deadline)
            self._see_through(store, deadline)
        except BaseException as interruption:
            if not orphans:  # else the lines are the parent's
                self._leave(interruption)
            raise
        finally:
            running.discard(thread)
            orphans.discard(thread)

    def _look(self, store: Store, deadline: Deadline) -> None:
        """Look at the counters that this process does not know; note what cannot be added to."""
        unseen = [at for at, line in enumerate(self.lines) if not line.revision]
        if unseen:
            steps = [Read(self.lines[at].address) for at in unseen]
            refuse_orphan()
            found = store.together(steps, timeout=deadline.left())
            refuse_orphan()
            for at, record in zip(unseen, found, strict=True):
                if record is None or (isinstance(record, Record) and record.deleted):
                    self.came[at] = Refusal(ABSENT)
                elif isinstance(record, Record):
                    self.lines[at].learn(record)
                elif isinstance(record, CounterError) and not isinstance(record, PASSING):
                    self.came[at] = record

    def _attempt(self, store: Store, deadline: Deadline) -> None:
        """Make the first attempt, for all that find nobody in line."""
        came, lines, changes = self.came, self.lines, self.changes
        lines[0].refuse_strangers()  # all of them are of one process
        # What was never seen is not sent to: a lost reply could not be found out.
        led = [
            at
            for at, line in enumerate(lines)
            if line.revision and came[at] is None and line.enter(changes[at])
        ]
        if not led:
            return
        sent = additions([lines[at] for at in led], [changes[at] for at in led])
        refuse_orphan()  # forked before they were sealed: what the parent sends are other batches
        self._sent = True
        answers = store.add_each(sent, timeout=deadline.left())
        refuse_orphan()
        for place, (at, answer) in enumerate(zip(led, answers, strict=True)):
            if type(answer) is tuple:
                came[at], view = answer
                lines[at].passed(view)
                continue
            batch = sent.batch(place)
            if is_decided(answer, batch):
                came[at] = answer.outcomes[0]
                lines[at].passed(answer.view)
                continue
            try:
                self._tickets[at], _ = lines[at].go_on(changes[at], batch, answer)
            except CounterError as error:
                came[at] = error

    def _see_through(self, store: Store, deadline: Deadline) -> None:
        """Make further attempts, for all that are not settled."""
        unsettled = [
            at
            for at, each in enumerate(self.came)
            if type(each) is not Receipt and is_unsettled(each)
        ]
        if not unsettled:
            return
        plans = [
            _adding(self.lines[at], self.changes[at], self._tickets.get(at), self.came[at])
            for at in unsettled
        ]
        self._together = Together(plans)
        outcomes = self._together.run(store, deadline.left())
        for at, outcome in zip(unsettled, outcomes, strict=True):
            self.came[at] = outcome

    def _leave(self, interruption: BaseException) -> None:
        """Leave all lines, even if struck once more, and note on it what had been sent."""
        latest = interruption
        at, again = 0, -1
        while at < len(self.lines):
            try:
                while at < len(self.lines):
                    self.lines[at].abandon(self.changes[at], self._tickets.get(at), latest)
                    at += 1
            except BaseException as error:  # a strike: that line once more
                latest = error
                at, again = (at + 1, -1) if again == at else (at, at)
        if self._sent or Receipt in map(type, self._together.results):
            note(latest)
        if latest is not interruption:
            raise latest


entrances.add(_Many.settle.__code__)


def is_unsettled(came: Came | None) -> bool:
    """Whether there is more to do: nothing is known yet, or there is no such counter."""
    return came is None or (isinstance(came, Refusal) and came.code == ABSENT)


def _adding(line: Line, change: Add, ticket: Ticket | None, came: Came | None) -> Plan[Outcome]:
    """Have ``change`` made, where there is no counter after creating it at 0.

    ``ticket`` is the place from which it leads already, ``came`` what is known so far.
    """
    outcome: Outcome = Refusal(ABSENT)
    if ticket is not None:
        outcome, _ = yield from see_through(line, ticket)
    elif came is None and line.revision:
        outcome, _ = yield from submit(line, change)
    while is_unsettled(outcome):
        try:
            yield from attach(line, Create(0))
        except Pending as pending:
            raise StoreTimeoutError(
                f"it could not be told in time whether {line.address.name!r} was created, at 0; "
                "nothing was added to it"
            ) from pending
        outcome, _ = yield from submit(line, change)
    return outcome
