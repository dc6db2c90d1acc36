"""Records, ledgers and `settle`, against plain models of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truecount.change import (
    DECIDED,
    FORGOTTEN,
    REPEATED,
    SUPERSEDED,
    Add,
    Batch,
    Change,
    CompareAndSet,
    Create,
    Delete,
    Limit,
    Receipt,
    Refusal,
    Set,
)
from truecount.defaults import UNCHANGED
from truecount.errors import DamagedRecordError
from truecount.moment import to_datetime, to_iso
from truecount.record import MOST, KeyReceipt, Ledger, Record
from truecount.settle import follow, settle

WRITERS = st.sampled_from(["a", "ab", "abc", "b", "-", "_", "7"])
NOW = 1_279_099_800_000_000


def created(value: int = 0, minimum: int | None = None, maximum: int | None = None) -> Record:
    """A counter's first record."""
    record, _ = settle(None, Batch("first", 1, 0, (Create(value, minimum, maximum),)), NOW)
    assert record is not None
    return record


@given(
    entries=st.lists(st.tuples(WRITERS, st.integers(0, 99), st.integers(-9, 9)), max_size=30),
    keep=st.integers(1, 4),
)
def test_a_ledger_keeps_the_latest_of_the_last_writers(
    entries: list[tuple[str, int, int]], keep: int
) -> None:
    """It agrees with a dict that forgets the writer who wrote least recently."""
    ledger = Ledger()
    model: dict[str, tuple[int, int]] = {}
    revisions: dict[str, int] = {}
    for revision, (writer, number, value) in enumerate(entries, 1):
        forgotten = 0
        model.pop(writer, None)
        while len(model) >= keep:
            oldest = next(iter(model))
            del model[oldest]
            forgotten = revisions[oldest]
        model[writer] = number, value
        revisions[writer] = revision
        ledger, told = ledger.enter(writer, number, revision, 5, value, value, "+", None, 3, keep)
        assert told == forgotten
        reread = Ledger(ledger.text)
        for either in (ledger, reread):
            assert len(either) == len(model)
            assert either.latest().writer == writer
            for name, (latest, _) in model.items():
                assert either.number(name) == latest
                entry = either.entry(name)
                assert entry is not None
                assert (entry.number, entry.before) == model[name]
            for name in {"a", "ab", "abc", "b", "zz"} - set(model):
                assert either.number(name) == -1
                assert either.entry(name) is None


@pytest.mark.parametrize(
    "text", ["garbage", "a 1 2 3 4 5 + -", "a 1 2 3 4 5 + - -", "a x 2 3 4 5 + - -\n", ""]
)
def test_a_damaged_ledger_is_told(text: str) -> None:
    """A line that is no entry, or is cut off, raises DamagedRecordError."""
    with pytest.raises(DamagedRecordError):
        Ledger(text).latest()


def test_a_batch_is_applied_change_by_change() -> None:
    """Refused changes leave the others alone, and every change has its own before and after."""
    changes = (Add(5), Add(-9), CompareAndSet(5, 3), CompareAndSet(5, 4), Set(8), Add(MOST), Add(1))
    record, answer = settle(created(0, 0), Batch("w", 1, 2**60, changes), NOW)
    assert record is not None
    told = [(o.before, o.after) if isinstance(o, Receipt) else o.code for o in answer.outcomes]
    assert told == [(0, 5), "b", (5, 3), "m", (3, 8), "b", (8, 9)]
    assert record.value == 9
    assert answer.view == record.view
    again, replay = settle(record, Batch("w", 1, 2**60, changes), NOW + 9)
    assert again is None
    assert repr(replay.outcomes) == repr(answer.outcomes)


SMALL = st.integers(-9, 9)
CHANGES = st.one_of(
    st.builds(Add, SMALL, st.sampled_from([None, None, "k"])),
    st.builds(Set, SMALL),
    st.builds(CompareAndSet, SMALL, SMALL),
    st.builds(Limit, st.none() | SMALL, st.none() | SMALL),
    st.just(Delete()),
    st.just(Create(0)),
)


@given(
    batches=st.lists(
        st.builds(
            Batch,
            st.sampled_from("aaab"),
            st.integers(1, 20),
            st.just(2**60),
            st.lists(CHANGES, min_size=1, max_size=2).map(tuple),
            *(st.sampled_from([False, False, True]) for _ in range(2)),
        ),
        max_size=20,
    ),
    now=st.integers(NOW - 5, NOW + 5),
)
def test_what_follows_is_as_settled(batches: list[Batch], now: int) -> None:
    """`follow` says nothing, or what `settle` says: the same line, the same answer."""
    record = created()
    for batch in batches:
        new, answer = settle(record, batch, now)
        followed = record.view and follow(record.view, str(record.value), batch, now)
        if followed is not None:
            digits, line, told = followed
            assert new is not None
            assert digits == str(new.value)
            assert new.ledger.text == record.ledger.others + line
            assert repr(told) == repr(answer)
        record = new or record


@pytest.mark.parametrize("change", [Add(1), Set(7), CompareAndSet(0, 7)])
def test_what_follows(change: Change) -> None:
    """Changes within the bounds do, after one of their own writer's."""
    view = created(0, -1, 7).view
    assert view is not None
    assert follow(view, "0", Batch("first", 2, 2**60, (change,)), NOW) is not None
    assert follow(view, "0", Batch("other", 2, 2**60, (change,)), NOW) is None
    assert follow(view, "0", Batch("first", 1, 2**60, (change,)), NOW) is None
    assert follow(view._replace(maximum=0), "0", Batch("first", 2, 2**60, (change,)), NOW) is None


def test_a_replay_is_told_under_the_bounds_that_decided() -> None:
    """Bounds that were changed since do not change what a repeat is told."""
    batch = Batch("w", 1, 2**60, (Add(5), Add(5)), fence=True)
    record, answer = settle(created(0, None, 7), batch, NOW)
    record, _ = settle(record, Batch("v", 1, 2**60, (Limit(None, 100),)), NOW)
    _, replay = settle(record, batch, NOW)
    assert [getattr(o, "code", "+") for o in replay.outcomes] == ["+", "b"]
    assert replay.outcomes[1] == answer.outcomes[1]


def test_a_replay_after_its_key_was_used_anew() -> None:
    """A batch that met a known key is not told of the change that took the expired key later."""
    once = KeyReceipt("k", "add 1", 0, 1, 5, NOW)
    record = created(1)._replace(keys=(once,))
    batch = Batch("w", 1, 2**60, (Add(1, "k"),), fence=True)
    record, answer = settle(record, batch, NOW)
    assert answer.outcomes == (1,)
    anew = KeyReceipt("k", "set 9", 1, 9, 7, NOW)
    _, replay = settle(record._replace(keys=(anew,)), batch, NOW)
    assert replay.outcomes == (Refusal(REPEATED),)
    _, replay = settle(record._replace(keys=(once,)), batch, NOW)
    assert replay.outcomes == (1,)


def test_a_refusal_is_written_only_as_a_fence() -> None:
    """Without a doubt nothing is written; with one, the refusal is remembered."""
    record = created(0, 0)
    batch = Batch("w", 1, record.stamp.revision, (Add(-1),))
    assert settle(record, batch, NOW)[0] is None
    fenced, answer = settle(record, batch._replace(fence=True), NOW)
    assert fenced is not None
    assert answer.remembered
    assert (fenced.value, fenced.stamp.revision) == (0, record.stamp.revision + 1)
    lifted, _ = settle(fenced, Batch("v", 1, 2**60, (Limit(None, None),)), NOW)
    assert settle(lifted, batch, NOW)[0] is None  # the late attempt bounces off the fence


def test_what_is_forgotten_is_not_applied() -> None:
    """A batch whose receipt may have been forgotten is refused; a new one is not."""
    record = created()
    late = Batch("w", 1, record.stamp.revision, (Add(1),))
    for writer in "abc":
        record, _ = settle(record, Batch(writer, 1, 2**60, (Add(1),)), NOW, 2)
    new, answer = settle(record, late, NOW, 2)
    assert (new, answer.verdict) == (None, FORGOTTEN)
    new, answer = settle(record, late._replace(since=2**60), NOW, 2)
    assert answer.verdict == DECIDED
    assert settle(new, late._replace(number=0), NOW, 2)[1].verdict == SUPERSEDED


def test_a_tombstone_refuses_what_is_late() -> None:
    """Nothing but a creation wakes it, and after that nothing that was sent before."""
    record = created(5)
    late = Batch("w", 1, record.stamp.revision, (Add(1),))
    dead, _ = settle(record, Batch("v", 1, 2**60, (Delete(),)), NOW)
    assert dead is not None
    assert dead.deleted
    assert dead.view is None
    assert settle(dead, late, NOW)[0] is None
    born, _ = settle(dead, Batch("v", 2, 2**60, (Create(1),)), NOW)
    assert born is not None
    assert born.stamp.revision == dead.stamp.revision + 1 == born.horizon
    assert settle(born, late, NOW)[1].verdict == FORGOTTEN


def test_time_never_goes_back() -> None:
    """A writer whose clock lags keeps the stored time."""
    record = created()
    later, _ = settle(record, Batch("w", 1, 2**60, (Add(1),)), NOW - 10**9)
    assert later is not None
    assert later.time == record.time


@given(st.integers(0, 4 * 10**15))
def test_instants_are_written_exactly(instant: int) -> None:
    """ISO 8601 to the microsecond, always of the same length, sorted as time is."""
    text = to_iso(instant)
    assert len(text) == len("2010-07-14T09:30:00.000000Z")
    assert to_datetime(instant).isoformat(timespec="microseconds") == text[:-1] + "+00:00"
    assert to_iso(instant + 1) > text


def test_a_receipt_is_an_int_that_remembers() -> None:
    """It calculates and prints as an int, and keeps its facts through pickling."""
    receipt = Receipt(7, 5, 9, NOW, "k", True)
    twin = pickle.loads(pickle.dumps(receipt))
    for r in (receipt, twin):
        assert r == 7
        assert r + 1 == 8
        assert f"{r} {r:03d}" == "7 007"
        assert (r.before, r.after, r.revision, r.key, r.replayed) == (5, 7, 9, "k", True)
        assert r.timestamp == "2010-07-14T09:30:00.000000Z"
        assert type(r.after) is int
    assert repr(receipt) == (
        "Receipt(7, before=5, revision=9, timestamp='2010-07-14T09:30:00.000000Z', key='k', "
        "replayed=True)"
    )
    assert repr(UNCHANGED) == "UNCHANGED"
