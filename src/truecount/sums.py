"""Batches that come to a sum, which an engine's own arithmetic can apply. Pure.

An engine that applies such a batch in one atomic step carries (writer, number,
since) and the batch's `Sums`. It must see that the record is there and not
deleted, that ``number`` is above the writer's last, that the writer is known
or the horizon not above ``since``, that the value is the expected one where
there is one, and that no running sum crosses a bound; then it writes value,
stamp, timestamp and receipt together. Whenever there is more to it, it answers
`BEYOND`, having written nothing: what reads and replaces the record then can
tell why.
"""

from __future__ import annotations

from typing import NamedTuple

from truecount.change import (
    BEYOND,
    DECIDED,
    Add,
    Answer,
    Batch,
    Change,
    CompareAndSet,
    Decided,
    made,
    made_all,
    values,
)
from truecount.record import Stamp, View, make

__all__ = ["Sums", "added", "beyond", "is_sum", "sums"]


class Sums(NamedTuple):
    """What a batch adds: in all, and at least and at most on the way there.

    ``expected``: the value that it is to be added to; None: whatever it is.
    """

    total: int
    lowest: int
    highest: int
    expected: int | None = None


def is_sum(change: Change) -> bool:
    """Whether ``change`` comes to adding something, and has no idempotency key.

    With one it travels by compare-and-set alone: it could land after the key has expired.
    """
    return type(change) in (Add, CompareAndSet) and change.key is None


def sums(batch: Batch) -> Sums | None:
    """What ``batch`` adds; None when there is more to it, or it cannot be applied whole."""
    changes = batch.changes
    if batch.cancel:
        return None
    first = changes[0]
    if len(changes) == 1 and type(first) is Add and first.key is None:
        return make(Sums, (first.amount, first.amount, first.amount, None))
    running = []
    total = 0
    expected: int | None = None
    for change in changes:
        if type(change) is Add and change.key is None:
            total += change.amount
        elif type(change) is CompareAndSet and change.key is None:
            if expected not in (None, change.expected - total):
                return None
            expected = change.expected - total
            total = change.value - expected
        else:
            return None
        running.append(total)
    return Sums(total, min(running), max(running), expected)


def added(
    batch: Batch,
    before: int,
    revision: int,
    time: int,
    minimum: int | None,
    maximum: int | None,
) -> Answer:
    """The answer to ``batch``, which was applied whole to the value ``before``."""
    writer, number, since = batch[:3]
    along = values(batch.changes, before)
    stamp = make(Stamp, (revision, writer, number))
    view = make(View, (along[-1], stamp, time, minimum, maximum))
    outcomes = made_all(along, revision, time)
    return make(Answer, (writer, number, since, DECIDED, outcomes, view, True))


def added_one(
    writer: str,
    number: int,
    amount: int,
    before: int,
    revision: int,
    time: int,
    minimum: int | None,
    maximum: int | None,
) -> Decided:
    """What became of the one change of a batch (``writer``, ``number``), which added ``amount``."""
    after = before + amount
    view = make(View, (after, make(Stamp, (revision, writer, number)), time, minimum, maximum))
    return made(after, before, revision, time), view


def beyond(batch: Batch) -> Answer:
    """The answer to ``batch`` when it is more than the engine adds up by itself."""
    return make(Answer, (*batch[:3], BEYOND, (), None, False))
