"""One change of each of many counters, in as few requests as their store allows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import islice, repeat
from typing import Any, Final, SupportsIndex, TypeAlias

from truecount.arguments import check_amount, check_name
from truecount.change import ABSENT, Add, Batch, Create, Outcome, Receipt, Refusal
from truecount.combine import (
    Line,
    Pending,
    Ticket,
    attach,
    is_decided,
    lines_at,
    note,
    see_through,
    submit,
)
from truecount.conclude import conclude
from truecount.drive import entrances, orphaned, orphans, refuse_nested, running
from truecount.errors import CounterError, InvalidTypeError, OutcomeUnknownError, StoreTimeoutError
from truecount.record import Address, Record, make
from truecount.steps import Plan, Read, Settle, StoreStep
from truecount.stores.base import PASSING, Deadline, Store
from truecount.together import Together
from truecount.unsettled import outcome_unknown

__all__ = ["add_all", "check_amounts"]

AT_ONCE: Final = 1000
"""How many counters are changed at once: while that lasts, others wait for their turn there."""

Came: TypeAlias = Outcome | Exception
"""What came of one change."""


def check_amounts(amounts: Mapping[str, SupportsIndex]) -> dict[str, int]:
    """``amounts`` as ints. Raises `InvalidTypeError` or `InvalidNameError`."""
    if not isinstance(amounts, Mapping):
        raise InvalidTypeError(
            f"add() takes a mapping of names to amounts, not {type(amounts).__name__}"
        )
    return {check_name(name): check_amount(amount) for name, amount in amounts.items()}


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
    rest = iter(amounts.items())
    while part := dict(islice(rest, AT_ONCE)):
        lines = lines_at(store, domain, part, kept)
        if len(kept) > AT_ONCE:
            kept.clear()
            kept.update(zip(part, lines, strict=True))
        # One for all that are alike: it is told from those of other calls, and that is all.
        alike = {amount: Add(amount) for amount in set(part.values())}
        changes = [alike[amount] for amount in part.values()]
        came = _settle(lines, changes, store, deadline)
        for name, line, change, each in zip(part, lines, changes, came, strict=True):
            if type(each) is Receipt:
                receipts[name] = each
                continue
            try:
                receipts[name] = _conclude(store, line.address, change, each)
            except CounterError as error:
                failures[name] = error
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


def _settle(
    lines: Sequence[Line], changes: Sequence[Add], store: Store, deadline: Deadline
) -> list[Came | None]:
    """What comes of each change. All that find nobody in line make their first attempt together.

    What that does not settle, and those who have to wait, are a matter for plans.
    """
    thread = threading.get_ident()
    if thread in running:
        refuse_nested()
    sent: dict[int, Batch] = {}
    tickets: dict[int, Ticket] = {}
    try:
        running.add(thread)
        came: list[Came | None] = [None] * len(lines)
        _look(lines, came, store, deadline)
        for at, line in enumerate(lines):
            # What was never seen is not sent to: a lost reply could not be found out.
            if line.revision and came[at] is None:
                batch = line.pass_by(changes[at])
                if batch is not None:
                    sent[at] = batch
        if sent:
            addresses = [lines[at].address for at in sent]
            steps = list(map(make, repeat(Settle), zip(addresses, sent.values(), strict=True)))
            answers = _ask(store, steps, deadline)
            for (at, batch), answer in zip(sent.items(), answers, strict=True):
                if is_decided(answer, batch):
                    lines[at].passed(answer.view)
                    came[at] = answer.outcomes[0]
                else:
                    try:
                        tickets[at], _ = lines[at].go_on(changes[at], batch, answer)
                    except CounterError as error:
                        came[at] = error
        unsettled = [
            at for at, each in enumerate(came) if type(each) is not Receipt and is_unsettled(each)
        ]
        if unsettled:
            plans = [_adding(lines[at], changes[at], tickets.get(at), came[at]) for at in unsettled]
            for at, outcome in zip(
                unsettled, Together(plans).run(store, deadline.left()), strict=True
            ):
                came[at] = outcome
        return came
    except BaseException as interruption:
        if not orphans:  # else the lines are the parent's
            for at, line in enumerate(lines):
                line.abandon(changes[at], tickets.get(at), interruption)
            if sent:
                note(interruption)
        raise
    finally:
        running.discard(thread)
        orphans.discard(thread)


entrances.add(_settle.__code__)


def _look(lines: Sequence[Line], came: list[Came | None], store: Store, deadline: Deadline) -> None:
    """Look at the counters that this process does not know; note those that cannot be added to."""
    unseen = [at for at, line in enumerate(lines) if not line.revision]
    if unseen:
        steps = [Read(lines[at].address) for at in unseen]
        found = _ask(store, steps, deadline)
        for at, record in zip(unseen, found, strict=True):
            if record is None or (isinstance(record, Record) and record.deleted):
                came[at] = Refusal(ABSENT)
            elif isinstance(record, Record):
                lines[at].learn(record)
            elif isinstance(record, CounterError) and not isinstance(record, PASSING):
                came[at] = record


def _ask(store: Store, steps: Sequence[StoreStep], deadline: Deadline) -> list[Any]:
    """What comes of ``steps``, unless that is for the parent of this process to know."""
    answers = store.together(steps, timeout=deadline.left())
    if orphans:
        raise orphaned()
    return answers


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
