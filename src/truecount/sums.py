"""Batches of nothing but additions, which an engine's own arithmetic can apply. Pure.

An engine that applies such a batch in one atomic step carries (writer, number,
since) and the batch's `Sums`. It must see that the record is there and not
deleted, that ``number`` is above the writer's last, that the writer is known
or the horizon not above ``since``, and that no running sum crosses a bound;
then it writes value, stamp, timestamp and receipt together. Whenever there is
more to it, it answers `BEYOND`, having written nothing: what reads and
replaces the record then can tell why.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from truecount.change import BEYOND, DECIDED, Add, Answer, Batch, Change, Receipt
from truecount.record import Stamp, View, make

__all__ = ["Sums", "added", "beyond", "is_sum", "sums"]


class Sums(NamedTuple):
    """What a batch adds: in all, and at least and at most on the way there."""

    total: int
    lowest: int
    highest: int


def is_sum(change: Change) -> bool:
    """Whether ``change`` is an addition without an idempotency key.

    With one it travels by compare-and-set alone: it could land after the key has expired.
    """
    return type(change) is Add and change.key is None


def sums(batch: Batch) -> Sums | None:
    """What ``batch`` adds; None when there is more to it than additions."""
    changes = batch.changes
    if batch.cancel:
        return None
    if len(changes) == 1:
        change = changes[0]
        if type(change) is not Add or change.key is not None:
            return None
        return make(Sums, (change.amount,) * 3)
    amounts = [change.amount for change in changes if type(change) is Add and change.key is None]
    if len(amounts) != len(changes):
        return None
    running = list(accumulate(amounts))
    return Sums(running[-1], min(running), max(running))


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
    outcomes = []
    value = before
    for change in batch.changes:
        assert type(change) is Add
        after = value + change.amount
        outcomes.append(Receipt(after, value, revision, time))
        value = after
    view = make(View, (value, make(Stamp, (revision, writer, number)), time, minimum, maximum))
    return make(Answer, (writer, number, since, DECIDED, tuple(outcomes), view, True))


def beyond(batch: Batch) -> Answer:
    """The answer to ``batch`` when it is more than the engine adds up by itself."""
    return make(Answer, (*batch[:3], BEYOND, (), None, False))
