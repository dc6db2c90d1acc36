"""The simulated store: one counter, and what an engine can do with it."""

from __future__ import annotations

import random
from typing import Final

from truecount.change import Answer, Batch, Change
from truecount.record import Address, KeyReceipt, Record
from truecount.settle import settle
from truecount.steps import Read, Replace, Settle, Step
from truecount.sums import beyond, is_sum, sums
from truecount.testing.simulation.truth import GONE, Truth, Violation

__all__ = ["ADDRESS", "EMBEDDED", "NOTHING", "SUMS", "WINDOW", "SimulatedStore"]

ADDRESS: Final = Address("simulation", "counter")
WINDOW: Final = 3  # writers that a record remembers: few, so that it forgets soon
TICK: Final = 10  # microseconds that pass with every event
PURGE_AGE: Final = 250  # microseconds after which a tombstone may be purged
REACH: Final = 30  # magnitude beyond which the engine's own arithmetic does not go

EMBEDDED: Final = "embedded"  # settles everything, no network: as SQLite does
SUMS: Final = "sums"  # settles sums of plain adds, over a network: as Redis, PostgreSQL
NOTHING: Final = "nothing"  # compares and sets, over a network: as SimpleDB, etcd


class SimulatedStore:
    """Does what it is asked for, at once, and holds every write against the truth."""

    key_ttl = 400  # microseconds that a key is remembered

    def __init__(self, engine: str, truth: Truth, dice: random.Random) -> None:
        self.engine = engine
        self.truth = truth
        self.random = dice.random
        self.tick = 0
        self.record: Record | None = None
        self.keys: dict[str, tuple[KeyReceipt, int]] = {}
        self.backups: list[tuple[Record | None, dict[str, tuple[KeyReceipt, int]]]] | None = None
        self.purged = False
        self.sent = 0  # when the request that is served was

    def clock(self, skew: int = 0) -> int:
        """The time, in microseconds, by a clock that is wrong by ``skew``."""
        return 1_000_000 + self.tick * TICK + skew

    def settles(self, change: Change) -> bool:
        """Whether the engine settles ``change`` by itself."""
        if self.engine == SUMS:
            return is_sum(change)
        return self.engine == EMBEDDED

    def serve(
        self, step: Step, batch: Batch | None, others: tuple[Batch, ...], sent: int
    ) -> Record | bool | Answer | None:
        """Do what ``step`` asks for on behalf of ``batch``, and of ``others``.

        ``sent`` is the tick of its sending.
        """
        # An embedded engine is asked by the process itself: nothing travels.
        self.sent = self.tick if self.engine == EMBEDDED else sent
        if type(step) is Settle:
            return self.settle(step.batch)
        if type(step) is Replace:
            assert batch is not None
            return self.replace(step.old, step.new, (batch, *others))
        assert type(step) is Read
        return self.read(step.keys)

    def read(self, keys: tuple[str, ...]) -> Record | None:
        record = self.record
        if record is None or not keys:
            return record
        now = self.clock()
        found = [self.keys[key] for key in keys if key in self.keys]
        return record._replace(keys=tuple([receipt for receipt, end in found if now < end]))

    def replace(self, old: Record | None, new: Record, batches: tuple[Batch, ...]) -> bool | Record:
        now = self.clock()
        for receipt in new.keys:
            if receipt.key in self.keys and now < self.keys[receipt.key][1]:
                return False
        if not self.holds(old):
            # Some engines tell what they hold instead.
            return self.record if self.record is not None and self.random() < 0.5 else False
        if old is not None and self.record is not None and old.value != self.record.value:
            raise Violation(f"{new.stamp} replaced {self.record.stamp} for {old.stamp}")
        self.write(new, batches, () if old is None else old.keys)
        return True

    def holds(self, old: Record | None) -> bool:
        """Whether ``old`` is still there, by its whole stamp."""
        if self.record is None or old is None:
            return self.record is old
        return self.record.stamp == old.stamp

    def settle(self, batch: Batch) -> Answer:
        record = self.read(batch.keys)
        if self.engine == SUMS and self.is_beyond(record, batch):
            return beyond(batch)
        new, answer = settle(record, batch, self.clock(), WINDOW)
        if new is not None:
            self.write(new, (batch,), () if record is None else record.keys)
        return answer

    def is_beyond(self, record: Record | None, batch: Batch) -> bool:
        """Whether ``batch`` is too much for an engine that only knows sums."""
        if record is not None and self.random() < 0.1:
            return True  # some engines give up whenever there is more to it than a sum
        if record is None or record.deleted or batch.cancel:
            return False
        if batch.number <= record.ledger.number(batch.writer):
            return False
        # A world without one remedy lets additions with keys through to the engine.
        keyless = tuple([change._replace(key=None) for change in batch.changes])  # type: ignore[call-arg]  # all have one
        summed = sums(batch._replace(changes=keyless))
        if summed is None or summed.expected not in (None, record.value):
            return True
        total, lowest, highest, _ = summed
        value = record.value
        return not self.fits(record, value + total, value + lowest, value + highest)

    def fits(self, record: Record, total: int, lowest: int, highest: int) -> bool:
        """Whether every running sum stays within the bounds, and the engine's reach."""
        return (
            lowest >= -REACH
            and highest <= REACH
            and (record.minimum is None or record.minimum <= lowest)
            and (record.maximum is None or highest <= record.maximum)
        )

    def keep(self, new: Record) -> Record | None:
        """What stays of a write: a tombstone of what is deleted."""
        return new

    def write(self, new: Record, batches: tuple[Batch, ...], known: tuple[KeyReceipt, ...]) -> None:
        """Write ``new``, and hold it against what ``batches`` should have made, one by one.

        ``known`` are the keys that were known when that was decided.
        """
        old = self.record
        revision = new.stamp.revision
        if old is not None and revision != old.stamp.revision + len(batches):
            raise Violation(f"revision {revision} after {old.stamp.revision}")
        if old is not None and new.time < old.time:
            raise Violation(f"time goes back from {old.time} to {new.time}")
        self.truth.judge_keys(new.keys, self.sent, self.tick)
        keys = {receipt.key for receipt in known}
        for batch in batches:
            truth = self.truth.apply(batch, keys)
        made = GONE if new.deleted else (new.value, new.minimum, new.maximum)
        if made != truth:
            raise Violation(f"{batches} made {made}, and should have made {truth}")
        end = self.clock() + self.key_ttl
        for receipt in new.keys:
            self.keys[receipt.key] = receipt, end
        self.record = self.keep(new._replace(keys=()) if new.keys else new)
        if self.backups is not None and self.random() < 0.1:
            self.backups.append((self.record, dict(self.keys)))

    def restore(self) -> None:
        """Play back a backup: what was acknowledged since is lost."""
        if self.backups:
            record, keys = self.backups[int(self.random() * len(self.backups))]
            self.record, self.keys = record, dict(keys)
            self.truth.lost = True
            gone = record is None or record.deleted
            self.truth.states.append(
                GONE if gone or record is None else (record.value, record.minimum, record.maximum)
            )

    def purge(self) -> bool:
        """Remove the tombstone, if it is old enough."""
        record = self.record
        if record is None or not record.deleted_before(self.clock() - PURGE_AGE):
            return False
        self.record = None
        self.purged = True
        return True
