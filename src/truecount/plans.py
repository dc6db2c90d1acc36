"""The protocol, as generators of steps: the only retry loops there are.

A change reaches the store in a sealed batch: what is sent once is what is
sent again. `commit` goes on until it knows what became of it, or until the
caller's time is over; then it says which of the two it is, *not applied* or
*unknown*. Each rule that closes a hole stands in a function of its own, so
that the simulation can show what happens without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

from truecount import moment
from truecount.change import (
    BEYOND,
    DECIDED,
    FORGOTTEN,
    Answer,
    Batch,
    Create,
)
from truecount.errors import (
    CounterError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.record import NOWHERE, WRITERS, Address, Record, Stamp
from truecount.settle import carry, may_carry, settle
from truecount.steps import Collect, Expired, Pause, Plan, Queue, Queued, Read, Replace, Settle
from truecount.stores.base import PASSING, Ambiguous, Store

__all__ = ["Ground", "Sealed", "Unknown", "commit", "look"]


class Ground(NamedTuple):
    """What `commit` has to know of the store under it, and whose clock it goes by."""

    clock: Callable[[], int]
    keep: int = WRITERS
    always_fence: bool = False
    moving_proves: bool = True
    carries: bool = False

    @classmethod
    def of(cls, store: Store) -> Self:
        """The ground on which this process stands at ``store``."""
        facts = store.writers, store.always_fence, store.moving_proves, store.carries
        return cls(moment.now, *facts)


class Sealed:
    """A batch that is never changed again, and what is known of its attempts.

    ``engine``: an attempt that the engine settles by itself, or that another
    process of the machine makes, may still land; only a receipt or a fence
    ends that. ``tried``: one that is conditional on this stamp may still land;
    a receipt ends that, or a stamp that has moved. ``shared``: an `Unknown`
    gave it out, so that others may send it too. ``applied``: an answer said so,
    and may not have been told yet.
    """

    __slots__ = ("applied", "batch", "engine", "shared", "tried")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.engine = False
        self.tried: Stamp | None = None
        self.shared = False
        self.applied = False

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been, or may still be, applied by an earlier attempt."""
        return self.engine or self.tried is not None or self.shared

    def again(self, *, cancel: bool = False) -> Sealed:
        """The same batch for somebody else to send; ``cancel``: only its fence."""
        other = Sealed(self.batch._replace(cancel=cancel))
        other.engine, other.tried, other.shared = self.engine, self.tried, self.shared
        return other


class Unknown(Exception):
    """Nobody can tell what became or becomes of ``sealed``.

    ``cause`` is what kept it from being known in time; None when it cannot be
    told any more.
    """

    def __init__(self, sealed: Sealed, cause: CounterError | None) -> None:
        super().__init__(str(cause))
        sealed.shared = True
        self.sealed = sealed
        self.cause = cause


def look(address: Address, keys: tuple[str, ...] = ()) -> Plan[Record | None]:
    """Read the record at ``address``. Reading again does no harm."""
    attempt = 0
    while True:
        try:
            record: Record | None = yield Read(address, keys)
            return record
        except Ambiguous as error:
            trouble = error.cause
        except PASSING as error:
            trouble = error
        try:
            yield Pause(attempt)
        except Expired:
            raise trouble from None
        attempt += 1


def commit(
    address: Address,
    sealed: Sealed,
    ground: Ground,
    *,
    engine: bool,
    known: Record | None = None,
) -> Plan[tuple[Answer, Record | None]]:
    """Have ``sealed`` applied exactly once: (the answer, the record where it was seen).

    ``engine``: whether the store settles such a batch by itself. ``known``
    saves a read where the record is still that one. Raises a `CounterError`
    when nothing was applied and never will be, `Unknown` when that could not
    be told in time, or cannot be told any more.
    """
    trouble: CounterError | None = None
    attempt = 0
    rest: Pause | None = None
    queued = engine  # who leaves it to the engine, waits for nobody
    while True:
        if rest is not None:
            try:
                yield rest
            except Expired:
                trouble = trouble or StoreTimeoutError("other writers were first, time after time")
                if not is_definite(sealed):
                    raise Unknown(sealed, trouble) from trouble
                raise trouble from None
            rest = None
        if not queued:
            queued = True
            turn = yield from _queue(address, sealed, ground)
            if turn.answer is not None:
                return turn.answer, turn.left
            known = newer(turn, known)
        crowded = False
        try:
            if engine:
                answer = yield from _by_engine(address, sealed, ground)
                if answer.verdict == DECIDED:
                    return answer, None
                if answer.verdict == BEYOND:
                    engine = queued = False
                    continue
            else:
                decided = yield from _by_condition(address, sealed, ground, known)
                if decided is not None:
                    return decided
                crowded = True
        except Ambiguous as error:
            trouble = error.cause
        except CounterError as error:
            if is_definite(sealed) and not isinstance(error, PASSING):
                raise
            trouble = error
        known = None
        rest = Pause(attempt, crowded)
        attempt += 1


def _queue(address: Address, sealed: Sealed, ground: Ground) -> Plan[Queued]:
    """Wait for the turn, while others may send the batch along with theirs."""
    turn: Queued
    if not (ground.carries and may_post(sealed)):
        turn = yield Queue(address)
        return turn
    sealed.engine = True  # whatever happens meanwhile
    turn = yield Queue(address, sealed.batch)
    sealed.applied = turn.answer is not None  # before the doubt ends
    sealed.engine = may_be_sent(turn)
    return turn


def newer(turn: Queued, known: Record | None) -> Record | None:
    """What is known of a record after others had their turn, who may have left theirs."""
    left = turn.left
    if not turn.moved:  # nobody came in between: what was left may be of long ago
        return left if left and known and left.stamp.revision > known.stamp.revision else known
    if known is None or (left and left.stamp.revision >= known.stamp.revision):
        return left
    return None


def may_post(sealed: Sealed) -> bool:
    """Whether other processes may send it: plain additions that were never tried."""
    return sealed.batch.plain and not sealed.in_doubt


def may_be_sent(turn: Queued) -> bool:
    """Whether the batch that was posted may be on its way, or may be sent still."""
    return turn.doubt


def is_definite(sealed: Sealed) -> bool:
    """Whether a refusal proves that nothing was applied: not once an attempt was ambiguous."""
    return not sealed.in_doubt


def _by_engine(address: Address, sealed: Sealed, ground: Ground) -> Plan[Answer]:
    """One attempt at having the engine settle the batch."""
    while True:
        batch = sealed.batch
        doubt = sealed.engine
        if must_fence(sealed, ground):
            batch = batch._replace(fence=True)
        sealed.engine = True  # whatever happens before the answer
        try:
            answer: Answer = yield Settle(address, batch)
        except CounterError:
            sealed.engine = doubt  # refused before acting: as doubtful as before
            raise
        if not answers(answer, batch):
            raise Ambiguous(StoreUnavailableError("the store answered another request"))
        sealed.applied = answer.verdict == DECIDED  # before the doubt ends
        # Where answered requests come again, one that was beyond the engine may not be later.
        sealed.engine = doubt or (ground.always_fence and answer.verdict == BEYOND)
        if answer.verdict in (DECIDED, BEYOND):
            return answer
        if answer.verdict != FORGOTTEN or not may_look_again(sealed):
            raise Unknown(sealed, None)
        # Never in doubt: the writer only paused for so long that the record
        # has forgotten it. It reads where the counter is, and sends anew.
        record: Record | None = yield Read(address)
        sealed.batch = _looked(sealed.batch, record)


def _by_condition(
    address: Address, sealed: Sealed, ground: Ground, known: Record | None
) -> Plan[tuple[Answer, Record | None] | None]:
    """One attempt at compare-and-set; None when it is to be made again."""
    record = known if may_save_reading(sealed) else None
    fresh = record is None
    found = False
    while True:
        if fresh:
            if not found:
                record = yield Read(address, sealed.batch.keys)
            if ground.moving_proves and proves_undone(record, sealed):
                sealed.tried = None
            if record is None and sealed.tried not in (None, NOWHERE):
                raise Unknown(sealed, None)  # removed altogether: nothing remembers
            if sealed.in_doubt and not (ground.moving_proves or has_receipt(record, sealed)):
                raise Unknown(sealed, None)  # it may land whenever the value comes back
        if may_look_again(sealed):
            sealed.batch = _looked(sealed.batch, record)
        batch = sealed.batch
        if must_fence(sealed, ground):
            batch = batch._replace(fence=True)
        new, answer = settle(record, batch, ground.clock(), ground.keep)
        if answer.verdict != DECIDED:
            raise Unknown(sealed, None)
        if new is None:
            if fresh:
                return answer, record
            fresh = True  # a refusal is justified by what is true now, not by what was known
            continue
        if ground.carries and may_carry(batch):
            others: tuple[Batch, ...] = yield Collect(address)
            if others:
                new = carry(new, others, ground.clock(), ground.keep)

        doubt = sealed.tried
        sealed.tried = NOWHERE if record is None else record.stamp  # whatever happens meanwhile
        try:
            done: bool | Record = yield Replace(address, record, new)
        except CounterError:
            sealed.tried = doubt  # refused before acting: as doubtful as before
            raise
        if done is True:
            # What may still land is conditional on a stamp that has moved now.
            sealed.applied = True  # before the doubt ends
            sealed.tried = None
            return answer, new
        sealed.tried = doubt
        if found or done is False or batch.keys:
            return None
        record, fresh, found = done, True, True  # as good as read; but once, then it pauses


def _looked(batch: Batch, record: Record | None) -> Batch:
    """The batch, since ``record`` was seen."""
    since = 0 if record is None else record.stamp.revision
    return batch if since == batch.since else batch._replace(since=since)


def answers(answer: Answer, batch: Batch) -> bool:
    """Whether ``answer`` is about ``batch``, and not about what travelled before it.

    Not about an earlier attempt either: that may have been sent with another
    ``since``, or without the fence.
    """
    # Writer, number, since: slices of them would take longer than all the rest.
    if answer[0] != batch[0] or answer[1] != batch[1] or answer[2] != batch[2]:
        return False
    return answer.remembered or not batch.fence or answer.verdict != DECIDED


def may_look_again(sealed: Sealed) -> bool:
    """Whether the batch's ``since`` may move on: not past an attempt that may have been applied."""
    return not sealed.in_doubt


def may_save_reading(sealed: Sealed) -> bool:
    """Whether what is known of the record will do for the first attempt.

    Not after another leader's attempt that may still land, conditional on
    another stamp: only one stamp can be kept in mind. Nor with keys, which
    are not known.
    """
    return not sealed.in_doubt and not sealed.batch.keys


def must_fence(sealed: Sealed, ground: Ground) -> bool:
    """Whether a refusal must be written down, as another attempt may land after it.

    An attempt at a creation cannot: what exists refuses it, and what existed
    is forgotten. Only where others may send it again is there one to fence off.
    """
    if type(sealed.batch.changes[0]) is Create:
        return sealed.shared
    return sealed.engine or sealed.shared or ground.always_fence


def proves_undone(record: Record | None, sealed: Sealed) -> bool:
    """Whether ``record`` shows that the conditional attempt neither was applied nor can be.

    Its condition has moved on, its receipt is not there, and no receipt that
    could be its own was forgotten. A record that is older than the condition
    is a backup's, or a replica's that lags: it shows nothing.
    """
    if record is None or sealed.tried is None or record.stamp == sealed.tried:
        return False
    if record.stamp.revision < sealed.tried.revision:
        return False
    if has_receipt(record, sealed):
        return False
    return record.horizon <= sealed.tried.revision


def has_receipt(record: Record | None, sealed: Sealed) -> bool:
    """Whether ``record`` remembers the batch, or one that came after it."""
    if record is None:
        return False
    return record.ledger.number(sealed.batch.writer) >= sealed.batch.number
