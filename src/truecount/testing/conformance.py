"""What every store must do, as tests that a store's author runs under pytest.

    from truecount.testing.conformance import StoreConformance

    class TestMyStore(StoreConformance):
        def url(self, folder):
            return f"mystore://{folder}/data"

Each test begins with an empty store, so the URL must name another one for
every ``folder``, which is a fresh temporary folder.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truecount import Counter, Domain, Receipt, backoff, connect
from truecount.change import (
    BEYOND,
    Add,
    Additions,
    Batch,
    Change,
    CompareAndSet,
    Create,
    Delete,
    Limit,
    Set,
)
from truecount.errors import (
    BoundsError,
    BoundsMismatchError,
    CounterError,
    CounterNotFoundError,
    KeyReusedError,
    OutcomeUnknownError,
    OutOfSyncError,
    ReceiptNotFoundError,
    StoreClosedError,
    StoreFullError,
    StoreUnavailableError,
)
from truecount.record import MOST, Address, KeyReceipt, Ledger, Record, Stamp
from truecount.settle import carry, settle
from truecount.steps import Read, Replace, Settle, StoreStep
from truecount.stores.base import PASSING, Ambiguous, Store, patiently
from truecount.testing.faulty import ComparingStore, FaultyStore

__all__ = ["StoreConformance"]

ADDRESS = Address("conformance", "counter")
SECONDS = 20.0


def record(value: int = 0, revision: int = 7, **fields: Any) -> Record:
    """A record as `settle` makes them: its ledger ends with the write that made it."""
    writer, number, time = "somebody", 3, 1_000_000
    low, high = fields.get("minimum"), fields.get("maximum")
    before = fields.pop("before", Ledger())
    ledger, _ = before.enter(writer, number, revision, time, 0, value, "+", low, high, 64)
    return Record(value, Stamp(revision, writer, number), time, ledger=ledger, **fields)


class Persistent:
    """A store that is asked again until it is known what became of a request."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, address: Address, keys: tuple[str, ...] = ()) -> Record | None:
        return patiently(lambda: self.store.read(address, keys, timeout=SECONDS), SECONDS)

    def replace(self, address: Address, old: Record | None, new: Record) -> bool:
        def attempt() -> bool:
            try:
                return self.store.replace(address, old, new, timeout=SECONDS) is True
            except Ambiguous:
                if self.read(address) == new._replace(keys=()):
                    return True
                raise

        return patiently(attempt, SECONDS)


class StoreConformance:
    """The contract of a store, and the promises of the counters in it."""

    reopens = True
    """Whether another handle on the same URL, or another process, sees the same counters."""

    keys = True
    """Whether it keeps idempotency keys, which a server may be too simple for."""

    def url(self, folder: Path) -> str:
        """The URL of an empty store that belongs to ``folder``."""
        raise TypeError("a conformance suite says where its store is: override url()")

    def _url(self, folder: Path) -> str:
        """`url`, which has said it: without one, a store of the user's would be written to."""
        url = self.url(folder)
        if not isinstance(url, str):
            raise TypeError(f"url() says where the store of a test is, and returned {url!r}")
        return url

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def store(self, folder: Path) -> Iterator[Store]:
        with connect(self._url(folder)) as store:
            assert not list(store.domains()), "the store is not empty: url() gives each folder one"
            yield store

    @pytest.fixture
    def keyed(self) -> None:
        if not self.keys:
            pytest.skip("the store keeps no idempotency keys here")

    @pytest.fixture
    def contract(self, store: Store) -> Persistent:
        return Persistent(store)

    # The contract: reading and replacing

    def test_nothing_is_there_at_first(self, contract: Persistent) -> None:
        """An empty store has no record, no names and no domains."""
        assert contract.read(ADDRESS) is None
        assert list(contract.store.names("conformance")) == []
        assert list(contract.store.domains()) == []
        assert contract.store.snapshot("conformance") == {}

    @pytest.mark.parametrize(
        "kept",
        [
            record(),
            record(-1, minimum=-5, maximum=None, horizon=6),
            record(MOST, minimum=-MOST, maximum=MOST),
            record(-MOST, before=Ledger("other 1 2 3 4 5 +m - 9\n")),
            record(5, deleted=True),
        ],
        ids=["zero", "negative", "most", "least", "tombstone"],
    )
    def test_a_record_comes_back_whole(self, contract: Persistent, kept: Record) -> None:
        """What was written is read again, field by field."""
        assert contract.replace(ADDRESS, None, kept)
        assert contract.read(ADDRESS) == kept

    def test_creation_needs_absence(self, contract: Persistent) -> None:
        """A record is created only where there is none, not even a tombstone."""
        tombstone = record(deleted=True)
        assert contract.replace(ADDRESS, None, tombstone)
        assert not contract.replace(ADDRESS, None, record(1))
        assert contract.read(ADDRESS) == tombstone

    def test_nothing_replaces_what_is_absent(self, contract: Persistent) -> None:
        """A replacement of a record that is not there writes nothing."""
        assert not contract.replace(ADDRESS, record(), record(1, 8))
        assert contract.read(ADDRESS) is None

    @pytest.mark.parametrize(
        "stamp", [Stamp(6, "somebody", 3), Stamp(7, "another", 3), Stamp(7, "somebody", 4)]
    )
    def test_a_replacement_needs_the_whole_stamp(self, contract: Persistent, stamp: Stamp) -> None:
        """Another revision, writer or number is another record: it stays."""
        kept = record()
        contract.replace(ADDRESS, None, kept)
        assert not contract.replace(ADDRESS, kept._replace(stamp=stamp), record(1, 8))
        assert contract.read(ADDRESS) == kept

    @pytest.mark.parametrize(("value", "others"), [(0, 1), (0, 16), (-(10**499), 16)])
    def test_a_replacement_brings_what_others_did(
        self, contract: Persistent, store: Store, value: int, others: int
    ) -> None:
        """Where it says that it carries, one write changes the receipts of several writers."""
        if not store.carries:
            pytest.skip("the store writes one receipt at a time")
        changes = Add(1), Add(2)
        first = record(value)
        for number in range(others + 3):
            settled, _ = settle(first, Batch(f"other{number}", 1, 7, changes), 1_000_001)
            first = settled or first
        assert contract.replace(ADDRESS, None, record(value))
        assert contract.replace(ADDRESS, record(value), first)
        batches = [Batch(f"other{number}", 2, 8, changes) for number in range(others)]
        new = carry(first, batches, 1_000_002)
        assert new.value == first.value + 3 * others
        assert contract.replace(ADDRESS, first, new)
        found = contract.read(ADDRESS)
        assert found == new
        assert {settle(found, batch, 2_000_000)[1].remembered for batch in batches} == {True}

    def test_one_of_many_replacements_wins(self, contract: Persistent) -> None:
        """Of 16 threads that replace the same record, one succeeds, and its record stays."""
        first = record()
        contract.replace(ADDRESS, None, first)
        won: list[int] = []

        def replace(number: int) -> None:
            if contract.replace(ADDRESS, first, record(number, 8)):
                won.append(number)

        in_threads(16, replace)
        kept = contract.read(ADDRESS)
        assert kept is not None
        assert won == [kept.value]

    def test_counters_do_not_mix(self, contract: Persistent) -> None:
        """The same name in two domains, and names that differ in one byte, are counters apart."""
        names = ["a", "A", "a ", "ä", "a\N{COMBINING DIAERESIS}", "a/b", "a%b", "a:b", "x" * 1024]
        addresses = [Address(domain, name) for domain in ("one", "two") for name in names]
        for value, address in enumerate(addresses):
            assert contract.replace(address, None, record(value))
        for value, address in enumerate(addresses):
            kept = contract.read(address)
            assert kept is not None
            assert kept.value == value
        assert list(contract.store.names("one")) == sorted(names)
        assert list(contract.store.domains()) == ["one", "two"]
        assert contract.store.snapshot("two") == {
            a.name: v for v, a in enumerate(addresses) if v >= 9
        }

    def test_tombstones_are_hidden(self, contract: Persistent) -> None:
        """A deleted counter is in no list, and its record is there all the same."""
        contract.replace(ADDRESS, None, record(deleted=True))
        assert list(contract.store.names(ADDRESS.domain)) == []
        assert list(contract.store.domains()) == []
        assert contract.store.snapshot(ADDRESS.domain) == {}
        assert contract.read(ADDRESS) is not None

    # The contract: keys

    @pytest.mark.usefixtures("keyed")
    def test_keys_are_kept_with_the_record(self, contract: Persistent) -> None:
        """The receipts of keys come back to those who ask for them, and to nobody else."""
        now = time.time_ns() // 1000
        receipts = (
            KeyReceipt("one", "add 5", 0, 5, 7, now),
            KeyReceipt("two", "set 1", -MOST, MOST, 7, now),
        )
        kept = record(5)
        assert contract.replace(ADDRESS, None, kept._replace(keys=receipts))
        assert contract.read(ADDRESS) == kept
        found = contract.read(ADDRESS, ("two", "three"))
        assert found == kept._replace(keys=receipts[1:])
        other = Address(ADDRESS.domain, "other")
        contract.replace(other, None, kept)
        assert contract.read(other, ("one",)) == kept

    @pytest.mark.usefixtures("keyed")
    def test_a_key_is_inserted_once(self, contract: Persistent) -> None:
        """A key that is there already refuses the whole write, the record included."""
        now = time.time_ns() // 1000
        receipt = KeyReceipt("one", "add 5", 0, 5, 7, now)
        kept = record(5)
        contract.replace(ADDRESS, None, kept._replace(keys=(receipt,)))
        again = record(6, 8)._replace(keys=(receipt._replace(text="add 6"),))
        assert not contract.replace(ADDRESS, kept, again)
        assert contract.read(ADDRESS, ("one",)) == kept._replace(keys=(receipt,))

    # The contract: settling

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # every example has a counter of its own
            HealthCheck.differing_executors,  # every store has its class
            HealthCheck.too_slow,
        ],
    )
    @given(data=st.data())
    def test_settles_as_the_oracle_does(self, contract: Persistent, data: st.DataObject) -> None:
        """Whatever batches come, in whatever order: record and answer are those of `settle`."""
        self.examples = getattr(self, "examples", 0) + 1
        address = Address("conformance", f"oracle{self.examples}")
        for _ in range(data.draw(st.integers(1, 12), "batches")):
            batch = data.draw(batches(contract.read(address), keys=self.keys))
            before = contract.read(address, batch.keys)
            if not all(contract.store.settles(change) for change in batch.changes):
                self.compare_and_set(contract, address, before, batch)
                continue
            answer = contract.store.settle(address, batch, timeout=SECONDS)
            after = contract.read(address)
            if answer.verdict == BEYOND:
                assert after == (before and before._replace(keys=()))
                self.compare_and_set(contract, address, before, batch)
                continue
            new, expected = settle(
                before, batch, after.time if after else 1, contract.store.writers
            )
            if before is None and new is not None:
                # The first revision comes from the store's clock.
                assert after is not None
                new, expected = settle(None, batch, after.stamp.revision, contract.store.writers)
            assert repr(answer) == repr(expected)
            if new is None:
                assert after == (before and before._replace(keys=()))
            else:
                assert after == new._replace(keys=())
                assert contract.read(address, batch.keys) is not None

    def compare_and_set(
        self, contract: Persistent, address: Address, old: Record | None, batch: Batch
    ) -> None:
        """What the engine does not settle is decided here, and written."""
        new, _ = settle(old, batch, time.time_ns() // 1000, contract.store.writers)
        if new is not None:
            assert contract.replace(address, old, new)

    def test_together_is_each_by_itself(self, contract: Persistent) -> None:
        """What is carried out together comes to what each step comes to alone."""
        store = contract.store
        live, low, gone = record(5), record(0, minimum=0), record(5, deleted=True)
        bob = functools.partial(Batch, "bob", 4, 9)
        cases: list[tuple[Record | None, Callable[[Address], StoreStep]]] = [
            (live, lambda a: Settle(a, bob((Add(2),)))),
            (live, lambda a: Settle(a, bob((Add(2**60), Add(-(2**60)))))),
            (live, lambda a: Settle(a, bob((CompareAndSet(5, 8),)))),
            (live, lambda a: Settle(a, bob((CompareAndSet(6, 8),)))),
            (live, lambda a: Settle(a, Batch("somebody", 3, 9, (Add(2),)))),
            (live, lambda a: Settle(a, bob((Add(MOST),)))),
            (low, lambda a: Settle(a, bob((Add(-1),)))),
            (gone, lambda a: Settle(a, bob((Add(2),)))),
            (None, lambda a: Settle(a, bob((Add(2),)))),
            (live, lambda a: Replace(a, live, record(6, 8))),
            (live, lambda a: Replace(a, low, record(6, 8))),
            (None, lambda a: Replace(a, None, record(6, 8))),
            (None, lambda a: Replace(a, live, record(6, 8))),
            (live, lambda a: Read(a)),
            (live, lambda a: Read(a, ("k",) if self.keys else ())),
            (None, lambda a: Read(a)),
        ]
        steps: dict[str, list[StoreStep]] = {"together": [], "alone": []}
        for at, (there, make) in enumerate(cases):
            for domain in steps:
                address = Address(domain, f"counter{at}")
                if there is not None:
                    assert contract.replace(address, None, there)
                step = make(address)
                if not (isinstance(step, Settle) and not store.settles(step.batch.changes[0])):
                    steps[domain].append(step)
        alone = [store.outcome(step, SECONDS) for step in steps["alone"]]
        together = store.together(steps["together"], timeout=SECONDS)
        for one, other, step in zip(alone, together, steps["together"], strict=True):
            if {type(one), type(other)} & {Ambiguous, *PASSING}:
                continue  # a server that is not always well
            assert timeless(one) == timeless(other), step
            there = contract.read(step.address._replace(domain="alone"))
            here = contract.read(step.address)
            assert (there and there.value) == (here and here.value)

    def test_add_each_is_each_by_itself(self, contract: Persistent) -> None:
        """Additions to many counters come to what each of them comes to alone, time after time."""
        store = contract.store
        if not store.settles(Add(1)):
            pytest.skip("the store settles nothing by itself")
        live, low, gone = record(5), record(0, minimum=0), record(5, deleted=True)
        cases: list[tuple[Record | None, str, int, int]] = [
            *((live, "bob", 9, amount) for amount in (2, -7, 0, 2**70, MOST, 3 * MOST)),
            (live, "somebody", 9, 1),  # who wrote it
            (record(5, horizon=8), "bob", 7, 1),  # who may be forgotten
            *((low, "bob", 9, amount) for amount in (3, -1)),
            (gone, "bob", 9, 1),
            (None, "bob", 9, 1),
        ]
        domains = "many", "alone"
        addresses = [
            [Address(domain, f"counter{at}") for at in range(len(cases))] for domain in domains
        ]
        for many, alone, (there, *_) in zip(*addresses, cases, strict=True):
            for address in (many, alone):
                if there is not None:
                    assert contract.replace(address, None, there)
        _, writers, since, amounts = zip(*cases, strict=True)
        lost = set()  # what a server that is not always well has not told
        sound = [0, 1, 3, 6, 8]  # in which all goes well: alone they may take another way
        for number, places in enumerate(
            (range(len(cases)), sound, sound, reversed(sound), range(len(cases))), start=4
        ):
            chosen = list(places)
            additions = Additions(
                [addresses[0][at] for at in chosen],
                [writers[at] for at in chosen],
                [10 * number + at for at in chosen],
                [since[at] for at in chosen],
                [Add(amounts[at]) for at in chosen],
            )
            for place, (at, came) in enumerate(
                zip(chosen, store.add_each(additions, timeout=SECONDS), strict=True)
            ):
                batch = additions.batch(place)
                assert batch == Batch(writers[at], 10 * number + at, since[at], (Add(amounts[at]),))
                answer = store.outcome(Settle(addresses[1][at], batch), SECONDS)
                if {type(came), type(answer)} & {Ambiguous, *PASSING}:
                    lost.add(at)
                if type(came) is tuple:
                    answer = answer.outcomes[0], answer.view
                assert at in lost or timeless(came) == timeless(answer), (number, at)
        assert len(lost) < len(cases)
        for at, (many, alone) in enumerate(zip(*addresses, strict=True)):
            one, other = contract.read(many), contract.read(alone)
            assert at in lost or (one and one.value) == (other and other.value)

    @pytest.mark.parametrize("key", [False, True], ids=["plain", "keyed"])
    def test_no_time_at_all(self, store: Store, key: bool) -> None:
        """A caller who waits no time has its change sent, and answered if all is well."""
        if key and not self.keys:
            pytest.skip("the store keeps no idempotency keys here")
        c = Counter("conformance", "counter", store=store)
        applied = 0
        for number in range(20):
            try:
                c.add(1, key=str(number) if key else None, timeout=0)
            except PASSING:  # a server that is not always well
                continue
            except OutcomeUnknownError as unknown:
                applied += not unknown.cancel()
            else:
                applied += 1
        assert c.refresh() == applied > 0

    def test_a_closed_store_says_so(self, folder: Path) -> None:
        """After close(), every call raises StoreClosedError."""
        store = connect(self._url(folder))
        counter = Counter("conformance", "counter", store=store)
        store.close()
        with pytest.raises(StoreClosedError):
            counter.add(1)
        with pytest.raises(StoreClosedError):
            store.read(ADDRESS, timeout=SECONDS)
        with pytest.raises(StoreClosedError):
            list(store.domains())

    # The promises, one caller

    def test_reads_as_an_int_and_moves(self, store: Store) -> None:
        """The transcript of 2010."""
        c = Counter("mydomain", "counter1", 0, store=store)
        assert str(c) == "0"
        c += 1
        c += 1
        c -= 1
        assert str(c) == "1"
        assert c == 1
        assert not c == 0  # noqa: SIM201  # the transcript's own words
        assert not c < 1

    def test_out_of_sync_is_noticed(self, store: Store) -> None:
        """Who comes second is told, applies nothing, and sees the newest value."""
        c = Counter("mydomain", "counter1", 0, store=store)
        other = Counter("mydomain", "counter1", store=store)
        other += 5
        with pytest.raises(OutOfSyncError, match=r"^Counter was out of sync$") as caught:
            c += 1
        assert (caught.value.expected, caught.value.actual) == (0, 5)
        assert c == 5
        c += 1
        assert other.refresh() == 6

    def test_back_to_the_same_value_is_in_sync(self, store: Store) -> None:
        """What counts is the value: away and back again, the statement applies."""
        c = Counter("mydomain", "counter1", 3, store=store)
        other = Counter("mydomain", "counter1", store=store)
        other.add(1)
        other.add(-1)
        other.limit(maximum=100)
        c += 1
        assert c == 4

    def test_initial_counts_only_at_creation(self, store: Store) -> None:
        """Who attaches later gets what is there."""
        Counter("conformance", "counter", 5, store=store)
        assert Counter("conformance", "counter", 7, store=store) == 5
        assert Counter("conformance", "counter", create=False, store=store) == 5
        with pytest.raises(CounterNotFoundError):
            Counter("conformance", "other", create=False, store=store)

    @pytest.mark.parametrize("value", [0, -7, 2**53 + 1, 2**64, MOST, -MOST])
    def test_any_value_works(self, store: Store, value: int) -> None:
        """Zero, a negative one and one of 500 digits work like any other."""
        c = Counter("conformance", "counter", value, store=store)
        step = -1 if value > 0 else 1
        assert c.add(step).before == value
        c += step
        assert Counter("conformance", "counter", store=store) == value + 2 * step
        assert c.set(value) == value
        assert c.update(lambda v: v + step) == value + step
        assert c.compare_and_set(value + step, value)
        assert not c.compare_and_set(value + step, value)

    def test_five_hundred_digits_are_the_end(self, store: Store) -> None:
        """One digit more is refused, and nothing written."""
        c = Counter("conformance", "counter", MOST, store=store)
        with pytest.raises(BoundsError):
            c.add(1)
        with pytest.raises(BoundsError):
            c *= 2
        assert c.refresh() == MOST

    def test_bounds_hold(self, store: Store) -> None:
        """No method leaves the bounds, whichever handle it is called on."""
        c = Counter("conformance", "stock", 2, minimum=0, maximum=5, store=store)
        d = Counter("conformance", "stock", store=store)
        for move in (
            lambda: d.add(4),
            lambda: d.subtract(3),
            lambda: d.set(-1),
            lambda: d.update(lambda v: v + 9),
            lambda: d.compare_and_set(2, 6),
            lambda: d.reserve(4),
            lambda: d.limit(minimum=3),
        ):
            with pytest.raises(BoundsError):
                move()
        with pytest.raises(BoundsError):
            d += 4
        assert c.refresh() == 2
        with pytest.raises(BoundsMismatchError, match=r"limit\(\)"):
            Counter("conformance", "stock", minimum=1, store=store)
        c.limit(minimum=None, maximum=9)
        assert d.add(7) == 9
        assert (d.minimum, d.maximum) == (None, 9)

    def test_deletion_is_for_good(self, store: Store) -> None:
        """After a deletion changes are refused; only a constructor creates again."""
        c = Counter("conformance", "counter", 5, minimum=0, store=store)
        other = Counter("conformance", "counter", store=store)
        c.delete()
        for call in (c.delete, other.refresh, lambda: other.add(1), lambda: other.set(1)):
            with pytest.raises(CounterNotFoundError):
                call()
        with pytest.raises(CounterNotFoundError):
            other += 1
        revision = other.revision
        again = Counter("conformance", "counter", 1, store=store)
        assert (int(again), again.minimum) == (1, None)
        assert again.revision > revision
        assert other.add(1) == 2

    def test_a_receipt_tells_what_happened(self, store: Store) -> None:
        """Before, after, revision and timestamp belong to the change, not to what came later."""
        c = Counter("conformance", "counter", 10, store=store)
        receipt = c.add(5)
        c.add(100)
        assert (receipt.before, receipt.after, receipt) == (10, 15, 15)
        assert receipt.revision < c.revision
        assert receipt.timestamp <= c.timestamp
        assert (receipt.key, receipt.replayed) == (None, False)
        assert list(c.reserve(3)) == [116, 117, 118]
        assert next(c) == 119

    # The promises: keys

    @pytest.mark.usefixtures("keyed")
    def test_a_key_counts_once(self, store: Store) -> None:
        """The same change under the same key is applied once; the repeats get its receipt."""
        c = Counter("conformance", "counter", store=store)
        first = c.add(5, key="order-1")
        c.add(1)
        second = Counter("conformance", "counter", store=store).add(5, key="order-1")
        assert (second.before, second.after, second.revision) == (0, 5, first.revision)
        assert (first.replayed, second.replayed) == (False, True)
        assert c.receipt("order-1").timestamp == first.timestamp
        assert c.refresh() == 6
        with pytest.raises(ReceiptNotFoundError):
            c.receipt("order-2")

    @pytest.mark.usefixtures("keyed")
    def test_a_key_belongs_to_one_change(self, store: Store) -> None:
        """Another change under the same key is refused."""
        c = Counter("conformance", "counter", store=store)
        c.add(5, key="order-1")
        others: tuple[Callable[[], object], ...] = (
            lambda: c.add(6, key="order-1"),
            lambda: c.set(5, key="order-1"),
            lambda: c.update(lambda v: v, key="order-1"),
        )
        for change in others:
            with pytest.raises(KeyReusedError):
                change()
        assert c.subtract(-5, key="order-1").replayed
        assert c.refresh() == 5

    @pytest.mark.usefixtures("keyed")
    def test_a_key_outlives_its_counter(self, store: Store) -> None:
        """A change that was made before a deletion is not made again after it."""
        c = Counter("conformance", "counter", store=store)
        c.add(5, key="order-1")
        c.delete()
        assert c.receipt("order-1") == 5
        assert c.add(5, key="order-1").replayed
        again = Counter("conformance", "counter", store=store)
        assert again.add(5, key="order-1").replayed
        assert again.refresh() == 0

    @pytest.mark.usefixtures("keyed")
    def test_a_refused_key_stays_free(self, store: Store) -> None:
        """A keyed change that was refused can be made later under the same key."""
        c = Counter("conformance", "counter", maximum=3, store=store)
        with pytest.raises(BoundsError):
            c.add(5, key="order-1")
        c.limit(maximum=None)
        assert not c.add(5, key="order-1").replayed

    @pytest.mark.usefixtures("keyed")
    def test_keys_expire(self, folder: Path) -> None:
        """After key_ttl a key is free again, and not before."""
        url = self._url(folder)
        with connect(f"{url}{'&' if '?' in url else '?'}key_ttl=0.5") as store:
            c = Counter("conformance", "counter", store=store)
            began = time.monotonic()
            c.add(5, key="order-1")
            again = c.add(5, key="order-1")
            assert again.replayed or time.monotonic() - began > 0.4
            deadline = time.monotonic() + SECONDS
            while c.add(5, key="order-1").replayed:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert time.monotonic() - began > 0.4
            assert c.refresh() == 10

    # The promises: many callers

    def test_threads_lose_nothing(self, store: Store) -> None:
        """8 threads add 40 times each: the sum is exact, and no number comes twice."""
        numbers: list[int] = []
        c = Counter("conformance", "counter", store=store)

        def add(_: int) -> None:
            numbers.extend([c.add(1).after for _ in range(40)])

        in_threads(8, add)
        assert sorted(numbers) == list(range(1, 321))
        assert c.refresh() == 320

    def test_all_kinds_of_changes_at_once(self, store: Store) -> None:
        """Threads that add, reserve, update, use keys and retry += together stay exact."""

        def add(c: Counter, key: str) -> None:
            c.add(2)
            c.subtract(1)

        def reserve(c: Counter, key: str) -> None:
            assert len(c.reserve(3)) == 3

        def update(c: Counter, key: str) -> None:
            c.update(lambda value: value + 1)

        def add_with_key(c: Counter, key: str) -> None:
            if self.keys:
                assert [c.add(4, key=key).replayed for _ in range(2)] == [False, True]
            else:
                c.add(4)

        def add_in_sync(c: Counter, key: str) -> None:
            while True:
                with contextlib.suppress(OutOfSyncError):
                    c += 1
                    return

        kinds = ((add, 1), (reserve, 3), (update, 1), (add_with_key, 4), (add_in_sync, 1))

        def change(number: int) -> None:
            c = Counter("conformance", "counter", store=store)
            for turn in range(15):
                kinds[(number + turn) % 5][0](c, f"{number}-{turn}")

        in_threads(6, change)
        total = sum(kinds[(n + turn) % 5][1] for n in range(6) for turn in range(15))
        assert Counter("conformance", "counter", store=store) == total

    def test_two_store_objects_in_one_process(self, store: Store) -> None:
        """A change through one store object is not taken for a late one of another's."""
        sent, overtaken = threading.Event(), threading.Event()

        class Overtaken(FaultyStore):
            def _request(self, step: StoreStep, timeout: float | None) -> Any:
                if not isinstance(step, Read):
                    sent.set()
                    overtaken.wait(SECONDS)
                return super()._request(step, timeout)

        c = Counter("conformance", "counter", store=store)
        late = Counter("conformance", "counter", store=Overtaken(store))
        receipts: list[int] = []
        thread = threading.Thread(target=lambda: receipts.append(late.add(10).after))
        thread.start()
        assert sent.wait(SECONDS)
        assert c.add(1) == 1
        overtaken.set()
        thread.join()
        assert receipts == [11]

    def test_bounds_hold_among_threads(self, store: Store) -> None:
        """Of 60 subtractions from a stock of 25 by 6 threads, 25 succeed."""
        c = Counter("conformance", "stock", 25, minimum=0, store=store)
        sold: list[int] = []

        def sell(_: int) -> None:
            for _ in range(10):
                try:
                    sold.append(c.subtract(1).after)
                except BoundsError:
                    continue

        in_threads(6, sell)
        assert sorted(sold) == list(range(25))
        assert c.refresh() == 0

    def test_one_creation_among_many(self, store: Store) -> None:
        """16 threads construct the same counter with different values: all see the same."""
        seen: list[int] = []
        in_threads(
            16, lambda n: seen.append(int(Counter("conformance", "counter", n, store=store)))
        )
        assert len(seen) == 16
        assert len(set(seen)) == 1

    def test_processes_lose_nothing(self, folder: Path, store: Store) -> None:
        """4 processes add 50 times each: the sum is exact, and no number comes twice."""
        if not self.reopens:
            pytest.skip("the store lives in one process: others cannot see it")
        context = multiprocessing.get_context("spawn")
        with context.Pool(4) as pool:
            numbers = pool.map(add_often, [(self._url(folder), 50)] * 4)
        assert sorted(sum(numbers, [])) == list(range(1, 201))
        assert Counter("conformance", "counter", store=store) == 200

    def test_another_handle_sees_the_same(self, folder: Path, store: Store) -> None:
        """What was counted is there when the store is opened again."""
        if not self.reopens:
            pytest.skip("the store lives in one process, and is gone when it is closed")
        c = Counter("conformance", "counter", 5, minimum=0, store=store)
        key = "once" if self.keys else None
        c.add(1, key=key)
        store.close()
        again = Counter("conformance", "counter", store=self._url(folder))
        assert (int(again), again.minimum, again.timestamp) == (6, 0, c.timestamp)
        assert again.add(1, key=key).replayed is self.keys

    # The promises: lost replies

    @pytest.mark.parametrize("lost", [1, 3, 10])
    @pytest.mark.parametrize("kind", [FaultyStore, ComparingStore])
    @pytest.mark.parametrize("what", ["replies", "requests"])
    def test_what_is_lost_counts_once(
        self,
        store: Store,
        kind: type[FaultyStore],
        lost: int,
        what: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whatever is lost on the way, each change is applied once, and reported so."""
        monkeypatch.setattr(backoff, "LONGEST", 0.1)  # no more happens in a longer pause
        lossy = kind(store)

        def lose(count: int) -> None:
            lossy.mend()  # what a change before has not met is not for the next one
            (lossy.lose_replies if what == "replies" else lossy.lose_requests)(count)

        lose(lost)
        c = Counter("conformance", "counter", 5, store=lossy)
        assert c == 5
        lose(lost)
        receipt = c.add(2)
        assert (receipt.before, receipt.after) == (5, 7)
        lose(lost)
        c += 3
        lose(lost)
        receipt = c.add(4, key="once" if self.keys else None)
        assert (receipt, receipt.replayed) == (14, False)  # no other call had made it
        lose(lost)
        assert c.set(20) == 20
        lose(lost)
        assert c.update(lambda v: v + 1).before == 20
        lose(lost)
        assert c.compare_and_set(21, 22)
        lose(lost)
        c.limit(maximum=30)
        assert (c.maximum, c.refresh()) == (30, 22)
        lose(lost)
        c.delete()
        lose(lost)
        assert Counter("conformance", "counter", 1, store=lossy) == 1

    @pytest.mark.parametrize("kind", [FaultyStore, ComparingStore])
    def test_nothing_is_out_of_sync_by_its_own_doing(
        self, store: Store, kind: type[FaultyStore]
    ) -> None:
        """A lost reply never makes += believe that somebody else was first."""
        lossy = kind(store)
        c = Counter("conformance", "counter", store=lossy)
        for value in range(1, 8):
            lossy.lose_replies(value % 3)
            c += 1
            assert c == value

    @pytest.mark.parametrize("kind", [FaultyStore, ComparingStore])
    @pytest.mark.parametrize("applied", [True, False])
    @pytest.mark.parametrize("settled", ["retry", "cancel"])
    def test_the_unknown_can_be_settled(
        self, store: Store, kind: type[FaultyStore], applied: bool, settled: str
    ) -> None:
        """When time runs out after a loss, retry() and cancel() find or make the truth."""
        lossy = kind(store)
        c = Counter("conformance", "counter", store=lossy)
        (lossy.lose_replies if applied else lossy.lose_requests)(1)
        lossy.go_down()
        with pytest.raises(OutcomeUnknownError) as caught:
            add_where_it_is_lost(c, 5)
        lossy.mend()
        other = Counter("conformance", "counter", store=store)
        assert other <= 5 * applied
        applied = other == 5  # a store that fails by itself may not have
        other.add(100)
        if settled == "retry":
            receipt = caught.value.retry()
            assert (receipt.before, receipt.after) == ((0, 5) if applied else (100, 105))
            assert receipt == caught.value.retry()
            assert not caught.value.cancel()
            assert other.refresh() == 105
        else:
            assert caught.value.cancel() is not applied
            assert caught.value.cancel() is not applied
            assert other.refresh() == (105 if applied else 100)
            if not applied:
                with pytest.raises(CounterError, match="cancelled"):
                    caught.value.retry()
        assert c.add(1).before == other.refresh() - 1

    @pytest.mark.parametrize("kind", [FaultyStore, ComparingStore])
    def test_a_refusal_after_a_loss_is_no_proof(
        self, store: Store, kind: type[FaultyStore]
    ) -> None:
        """Once a reply was lost, a refusal proves nothing; before, it does."""
        lossy = kind(store)
        c = Counter("conformance", "counter", store=lossy)
        lossy.refuse(StoreFullError("full"))
        with pytest.raises(StoreFullError):
            c.add(1)
        lossy.go_down()
        with pytest.raises(StoreUnavailableError):
            c.add(1, timeout=0.1)
        lossy.mend()
        assert c.refresh() == 0
        lossy.lose_replies(1)
        lossy.refuse(StoreFullError("full"))
        lossy.go_down()
        try:
            receipt = add_where_it_is_lost(c, 1)
        except OutcomeUnknownError as unknown:
            lossy.mend()
            receipt = unknown.retry()
        lossy.mend()
        assert (receipt.before, c.refresh()) == (0, 1)

    # The promises: domains

    def test_a_domain_holds_its_counters(self, store: Store) -> None:
        """A domain lists, creates, adds to and deletes its counters, and looking creates none."""
        d = Domain("conformance", store=store)
        d["b"] += 2
        d["a"].add(1)
        assert list(d) == ["a", "b"]
        assert "c" not in d
        assert d.get("c") is None
        assert list(d) == ["a", "b"]
        receipts = d.add({"a": 5, "c": -1})
        assert {name: receipt.before for name, receipt in receipts.items()} == {"a": 1, "c": 0}
        assert d.snapshot() == {"a": 6, "b": 2, "c": -1}
        del d["a"]
        assert d.snapshot() == {"b": 2, "c": -1}
        with pytest.raises(CounterNotFoundError):
            del d["a"]

    def test_many_counters_are_added_to_at_once(self, store: Store) -> None:
        """Threads that add to the same counters in any order, some new, lose nothing."""
        names = [f"n{number}" for number in range(30)]

        def add(number: int) -> None:
            d = Domain("conformance", store=store)
            for _ in range(3):
                mixed = random.Random(number).sample(names, len(names))
                receipts = d.add(dict.fromkeys(mixed, number + 1))
                assert list(receipts) == mixed
                assert all(r.after - r.before == number + 1 for r in receipts.values())

        in_threads(4, add)
        assert Domain("conformance", store=store).snapshot() == dict.fromkeys(names, 30)

    def test_one_of_many_is_refused(self, store: Store) -> None:
        """What is refused of many additions leaves the others alone, and both are told."""
        d = Domain("conformance", store=store)
        d.counter("low", 5, maximum=5)
        d.counter("full", 5, maximum=5)
        with pytest.raises(BoundsError, match="'low'") as caught:
            d.add({"a": 1, "low": 1, "b": 2, "full": 1})
        assert caught.value.receipts == {"a": 1, "b": 2}
        assert caught.value.failures is not None
        assert list(caught.value.failures) == ["low", "full"]
        assert caught.value.failures["low"] is caught.value
        assert d.snapshot() == {"a": 1, "b": 2, "full": 5, "low": 5}

    @pytest.mark.parametrize("kind", [FaultyStore, ComparingStore])
    def test_what_is_lost_of_many_counts_once(self, store: Store, kind: type[FaultyStore]) -> None:
        """Whatever is lost of many additions, each is applied once; what is unknown is settled."""
        lossy = kind(store)
        d = Domain("conformance", store=lossy)
        expected = d.add(dict.fromkeys("abcde", 1))
        lossy.lose_replies(2)
        lossy.serve(1)
        lossy.lose_requests(1)
        assert d.add(dict.fromkeys("abcde", 7)) == {n: r + 7 for n, r in expected.items()}
        lossy.lose_replies(1)
        lossy.lose_requests(1)
        lossy.go_down()
        with pytest.raises(OutcomeUnknownError) as caught:
            d.add({"a": 10, "b": 10, "c": 10}, timeout=0.2)
        lossy.mend()
        failures = caught.value.failures
        assert failures is not None
        assert [type(failures[name]) for name in "abc"] == [
            OutcomeUnknownError,
            OutcomeUnknownError,
            StoreUnavailableError,
        ]
        for error in failures.values():
            if isinstance(error, OutcomeUnknownError):
                assert error.retry() == 18
        true = Domain("conformance", store=store).snapshot()
        assert true == {"a": 18, "b": 18, "c": 8, "d": 8, "e": 8}


def add_where_it_is_lost(c: Counter, n: int) -> Receipt:
    """``c.add(n)`` of little time, but for so much that a busy store comes to the loss in it.

    Where time was over before, nothing was applied, and nothing lost yet.
    """
    for seconds in (0.1, 1.0):
        with contextlib.suppress(StoreUnavailableError):
            return c.add(n, timeout=seconds)
    return c.add(n, timeout=10.0)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Do ``work`` in ``count`` threads, and raise what one of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def timeless(outcome: Any) -> Any:
    """``outcome``, whenever it came, and to whichever of two counters."""
    if isinstance(outcome, CounterError):
        return type(outcome)
    return re.sub(r"time=\d+|'\d{4}-[^']*'", "", repr(outcome))


def add_often(work: tuple[str, int]) -> list[int]:
    """Add to the counter, as a process of its own."""
    url, times = work
    c = Counter("conformance", "counter", store=url)
    return [c.add(1).after for _ in range(times)]


def batches(now: Record | None, *, keys: bool) -> st.SearchStrategy[Batch]:
    """Batches that a store with the record ``now`` may be sent, late and repeated ones too."""
    values = st.integers(-6, 6) | st.sampled_from([2**52, 2**53, 2**63, MOST, -MOST])
    bounds = st.none() | st.integers(-8, 8)
    some_keys = st.none() | st.sampled_from(["k", "l"] if keys else [None])
    together: st.SearchStrategy[Change] = st.one_of(
        st.builds(Add, values, some_keys),
        st.builds(Set, values, some_keys),
        st.builds(CompareAndSet, values, values, some_keys),
    )
    alone: st.SearchStrategy[Change] = st.one_of(
        st.builds(Create, st.integers(-6, 6), bounds, bounds),
        st.builds(Limit, bounds, bounds),
        st.just(Delete()),
    )
    known = [0, 2**62]
    if now is not None:
        known += [now.stamp.revision, now.horizon, now.stamp.revision - 1]
    return st.builds(
        Batch,
        st.sampled_from(["amy", "bob", "cal"]),
        st.integers(1, 6),
        st.sampled_from(known),
        st.lists(together, min_size=1, max_size=4).map(tuple) | alone.map(lambda c: (c,)),
        st.booleans(),
        st.integers(0, 9).map(lambda n: n == 0),
    )
