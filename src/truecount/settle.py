"""The one place that decides what a batch does to a record. Pure.

It is the oracle for every store's native code. Each rule that closes a hole
in exactly-once stands in a function of its own, so that the simulation can
show what happens without it.
"""

from __future__ import annotations

from collections.abc import Iterable

from truecount.change import (
    ABSENT,
    ALONE,
    APPLIED,
    CANCELLED,
    DECIDED,
    EXISTS,
    FORGOTTEN,
    MOVED,
    OUTSIDE,
    REPEATED,
    REUSED,
    SUPERSEDED,
    Add,
    Answer,
    Batch,
    Change,
    CompareAndSet,
    Create,
    Limit,
    Outcome,
    Receipt,
    Refusal,
    Set,
    ValueChange,
    made,
    made_all,
    values,
)
from truecount.defaults import UNCHANGED
from truecount.record import (
    EMPTY,
    LEAST,
    MOST,
    WRITERS,
    KeyReceipt,
    Ledger,
    Record,
    Stamp,
    View,
    line_of,
    make,
)

__all__ = ["carry", "crosses", "follow", "receipt_of", "repeat", "settle", "successor"]


def settle(
    record: Record | None, batch: Batch, now: int, keep: int = WRITERS
) -> tuple[Record | None, Answer]:
    """What ``batch`` makes of ``record`` at ``now``: (the record to write, the answer).

    ``record`` is None where there is none; its ``keys`` hold the receipts of
    the batch's keys. The record to write is None when there is nothing to
    write. ``now`` is in microseconds, ``keep`` how many writers the ledger
    remembers. Changes are applied one after the other; one that is refused
    leaves the others alone.
    """
    writer, number, since, changes, fence, cancel = batch
    first = changes[0]
    if record is None:
        if is_unknowable(batch):
            return None, Answer(writer, number, since, FORGOTTEN, (), None, False)
        if type(first) is not Create:
            refused = (Refusal(ABSENT),) * len(changes)
            return None, Answer(writer, number, since, DECIDED, refused, None, False)
        record = before_the_first(now)
    else:
        latest_number = record.ledger.number(writer)
        if number <= latest_number:
            return None, repeat(record, batch)
        if latest_number < 0 and is_forgotten(record, batch) and not is_vain(record, batch):
            return None, Answer(writer, number, since, FORGOTTEN, (), record.view, False)

    before, (revision, _, _), time, minimum, maximum, horizon, deleted, ledger, _ = record
    revision += 1
    time = latest(now, time)
    value = before
    keys: tuple[KeyReceipt, ...] = ()
    if cancel:
        codes = CANCELLED
        refusal = Refusal(CANCELLED, value, minimum, maximum)
        outcomes: tuple[Outcome, ...] = (refusal,) * len(changes)
    elif type(first) is Add and len(changes) == 1 and first.key is None and not deleted:
        after = before + first.amount  # as most batches are
        if crosses(after, minimum, maximum):
            codes, outcomes = OUTSIDE, (Refusal(OUTSIDE, before, minimum, maximum),)
        else:
            codes, outcomes, value = APPLIED, (made(after, before, revision, time),), after
    elif type(first) in ALONE:
        codes, outcomes, draft = _decide(record, first, revision, time)
        value, _, _, minimum, maximum, horizon, deleted, ledger, _ = draft
    else:
        codes, outcomes, value, keys = _apply(record, batch, revision, time)
    if APPLIED not in codes and not (fence or cancel):
        return None, Answer(writer, number, since, DECIDED, outcomes, record.view, False)

    if len(codes) > 1 and not codes.strip(codes[0]):
        codes = codes[0]
    ledger, forgotten = ledger.enter(
        writer, number, revision, time, before, value, codes, minimum, maximum, keep
    )
    if forgotten > horizon:
        horizon = forgotten
    stamp = make(Stamp, (revision, writer, number))
    new = make(Record, (value, stamp, time, minimum, maximum, horizon, deleted, ledger, keys))
    view = None if deleted else make(View, (value, stamp, time, minimum, maximum))
    return new, make(Answer, (writer, number, since, DECIDED, outcomes, view, True))


def may_carry(batch: Batch) -> bool:
    """Whether others' batches may travel with it: what it makes is a value, and no keys."""
    return not batch.keys and type(batch.changes[0]) not in ALONE


def carry(record: Record, batches: Iterable[Batch], now: int, keep: int = WRITERS) -> Record:
    """What ``batches`` of others make of ``record``, which is about to be written.

    Their receipts are in it, of refusals too: who waits for them asks nothing else. One whose
    receipt it has already is left out, and so is a stranger's. A tombstone is written alone.
    """
    if record.deleted:
        return record
    for batch in batches:
        if is_at_home(record, batch):
            new, _ = settle(record, batch._replace(fence=True), now, keep)
            record = new or record
    return record


def follow(view: View, value: str, batch: Batch, now: int) -> tuple[str, str, Answer] | None:
    """What `settle` makes of a single change that follows one of its own writer's.

    That left this ``view``, and ``value`` in digits: the digits of the new one, the line that
    takes the place of the ledger's last one, and the answer. None: there is more to decide.
    """
    writer, number, since, changes, _, cancel = batch
    change = changes[0]
    if len(changes) > 1 or cancel or change.key is not None:
        return None
    if type(change) is Add:
        after = view.value + change.amount
    elif type(change) is CompareAndSet:
        if change.expected != view.value:
            return None
        after = change.value
    elif type(change) is Set:
        after = change.value
    else:
        return None
    new = successor(view, value, writer, number, after, now)
    if new is None:
        return None
    digits, line, receipt, seen = new
    return digits, line, make(Answer, (writer, number, since, DECIDED, (receipt,), seen, True))


def successor(
    view: View, value: str, writer: str, number: int, after: int, now: int
) -> tuple[str, str, Receipt, View] | None:
    """What follows when (``writer``, ``number``) has ``after`` take the place of ``value``.

    As `follow`: the digits, the line, the receipt and the view.
    """
    before, (revision, last, latest_number), time, minimum, maximum = view
    if last != writer or number <= latest_number or crosses(after, minimum, maximum):
        return None
    revision += 1
    time = latest(now, time)
    digits = str(after)
    line = line_of(writer, number, revision, time, value, digits, APPLIED, minimum, maximum)
    seen = make(View, (after, make(Stamp, (revision, writer, number)), time, minimum, maximum))
    return digits, line, made(after, before, revision, time), seen


def is_unknowable(batch: Batch) -> bool:
    """Whether absence leaves open what became of an earlier attempt of ``batch``."""
    return batch.cancel or batch.fence


def is_forgotten(record: Record, batch: Batch) -> bool:
    """Whether the receipt of an earlier attempt of ``batch`` may have been there and is gone."""
    return record.horizon > batch.since


def is_at_home(record: Record, batch: Batch) -> bool:
    """Whether ``batch`` is meant for this very ``record``: its writer has written there before.

    Two stores may go by one URL, as those of two accounts do, or what the environment names.
    """
    return record.ledger.knows(batch.writer)


def is_vain(record: Record, batch: Batch) -> bool:
    """Whether ``batch`` is a creation that was never in doubt, of what exists: simply refused."""
    creates = type(batch.changes[0]) is Create
    return creates and not (record.deleted or batch.fence or batch.cancel)


def repeat(record: Record, batch: Batch) -> Answer:
    """The answer to a batch that the ledger knows, from its entry alone."""
    entry = record.ledger.entry(batch.writer)
    if entry is None or batch.number < entry.number:
        return Answer(*batch[:3], SUPERSEDED, (), record.view, False)
    codes = entry.codes
    if len(codes) == 1:
        codes *= len(batch.changes)
    if len(codes) != len(batch.changes):  # somebody else's batch under the same name
        return Answer(*batch[:3], SUPERSEDED, (), record.view, False)
    if not (codes.strip(APPLIED) or batch.keys):  # as most are
        done = made_all(values(batch.changes, entry.before), entry.revision, entry.time)
        return Answer(*batch[:3], DECIDED, done, record.view, True)
    value = entry.before
    outcomes: list[Outcome] = []
    for code, change in zip(codes, batch.changes, strict=True):
        if code == APPLIED:
            after = change.result(value)
            outcomes.append(Receipt(after, value, entry.revision, entry.time, change.key))
            value = after
        elif code == REPEATED:
            known = _find(change.key, record.keys)
            if known is not None and is_same_use(known, change):
                outcomes.append(receipt_of(known))
            else:  # the key has expired since: what it was is lost
                outcomes.append(Refusal(REPEATED))
        else:
            outcomes.append(Refusal(code, value, entry.minimum, entry.maximum))
    return Answer(*batch[:3], DECIDED, tuple(outcomes), record.view, True)


def is_same_use(known: KeyReceipt, change: Change) -> bool:
    """Whether the key is still used for what it was when ``change`` met it."""
    return not isinstance(change, ALONE) and known.text == change.text


def crosses(value: int, minimum: int | None, maximum: int | None) -> bool:
    """Whether ``value`` is outside the bounds, or longer than 500 digits."""
    return (
        (minimum is not None and value < minimum)
        or (maximum is not None and value > maximum)
        or not LEAST <= value <= MOST
    )


def latest(now: int, time: int) -> int:
    """The time of a write: a clock that lags does not turn a timestamp back."""
    return now if now > time else time


def before_the_first(now: int) -> Record:
    """What the first creation replaces.

    Its revision comes from the clock, so that a counter whose tombstone was
    purged does not begin again below the revisions that late requests know.
    """
    return Record(0, Stamp(max(now, 1) - 1, "", 0), now, deleted=True)


def begun_again(revision: int) -> tuple[int, Ledger]:
    """The horizon and the ledger of a counter that is created at ``revision``.

    Whatever was sent to the one before it is forgotten, and so refused.
    """
    return revision, EMPTY


def receipt_of(known: KeyReceipt) -> Receipt:
    """What the store remembers of a key, as the receipt of a repeated change."""
    return Receipt(known.after, known.before, known.revision, known.time, known.key, True)


def _apply(
    record: Record, batch: Batch, revision: int, time: int
) -> tuple[str, tuple[Outcome, ...], int, tuple[KeyReceipt, ...]]:
    """Apply changes of the value, one after the other.

    Returns the outcomes' codes, the outcomes, the value after, and the
    receipts of keys to be kept. A key that is known is answered even when the
    counter is deleted.
    """
    value, _, _, minimum, maximum, _, deleted, _, known = record
    codes = ""
    outcomes: list[Outcome] = []
    kept: tuple[KeyReceipt, ...] = ()
    changes: tuple[ValueChange, ...] = batch.changes  # type: ignore[assignment]  # none is ALONE
    if not (deleted or batch.keys) and set(map(type, changes)) == {Add}:  # as most are
        along = values(changes, value)
        if not (crosses(min(along), minimum, maximum) or crosses(max(along), minimum, maximum)):
            return APPLIED, made_all(along, revision, time), along[-1], kept
    for change in changes:
        key = change.key
        if key is not None and (receipt := _find(key, known + kept)) is not None:
            if receipt.text == change.text:
                codes += REPEATED
                outcomes.append(receipt_of(receipt))
            else:
                codes += REUSED
                outcomes.append(Refusal(REUSED, value, minimum, maximum))
            continue
        if deleted:
            codes += ABSENT
            outcomes.append(Refusal(ABSENT))
            continue
        if type(change) is CompareAndSet and change.expected != value:
            codes += MOVED
            outcomes.append(Refusal(MOVED, value, minimum, maximum))
            continue
        after = value + change.amount if type(change) is Add else change.result(value)
        if crosses(after, minimum, maximum):
            codes += OUTSIDE
            outcomes.append(Refusal(OUTSIDE, value, minimum, maximum))
            continue
        codes += APPLIED
        outcomes.append(made(after, value, revision, time, key))
        if key is not None:
            kept += (KeyReceipt(key, change.text, value, after, revision, time),)
        value = after
    return codes, tuple(outcomes), value, kept


def _decide(
    record: Record, change: Change, revision: int, time: int
) -> tuple[str, tuple[Outcome], Record]:
    """Decide on a creation, a deletion or a change of the bounds.

    Returns the outcome's code, the outcome, and the record with what it changes.
    """
    draft = record
    code = APPLIED
    if isinstance(change, Create):
        if not record.deleted:
            code = EXISTS
        elif crosses(change.initial, change.minimum, change.maximum):
            code = OUTSIDE
        else:
            horizon, ledger = begun_again(revision)
            draft = draft._replace(
                value=change.initial,
                minimum=change.minimum,
                maximum=change.maximum,
                horizon=horizon,
                deleted=False,
                ledger=ledger,
            )
    elif record.deleted:
        code = ABSENT
    elif isinstance(change, Limit):
        low = record.minimum if change.minimum is UNCHANGED else change.minimum
        high = record.maximum if change.maximum is UNCHANGED else change.maximum
        if crosses(record.value, low, high):
            code = OUTSIDE
        else:
            draft = draft._replace(minimum=low, maximum=high)
    else:
        draft = draft._replace(deleted=True)
    if code == APPLIED:
        return code, (Receipt(draft.value, record.value, revision, time),), draft
    return code, (Refusal(code, record.value, record.minimum, record.maximum),), draft


def _find(key: str | None, receipts: tuple[KeyReceipt, ...]) -> KeyReceipt | None:
    for receipt in receipts:
        if receipt.key == key:
            return receipt
    return None
