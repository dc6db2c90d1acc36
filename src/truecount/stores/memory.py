"""Counters in the memory of one process: ``memory://`` or ``memory://name``.

The reference among the stores, and a store for tests: exact among threads,
gone with the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from truecount import moment
from truecount.change import Answer, Batch, Change
from truecount.errors import StoreClosedError, StoreError
from truecount.process import here
from truecount.record import Address, KeyReceipt, Record
from truecount.settle import settle
from truecount.steps import StoreStep
from truecount.stores.base import Store
from truecount.url import StoreURL

__all__ = ["MemoryStore"]


class _Memory:
    """What the handles on one name share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.records: dict[Address, Record] = {}
        self.keys: dict[tuple[Address, str], tuple[KeyReceipt, int]] = {}
        self.expiring: deque[tuple[int, tuple[Address, str]]] = deque()


_memories: Final[WeakValueDictionary[tuple[str, str], _Memory]] = WeakValueDictionary()


class MemoryStore(Store):
    """A dict and a lock, shared by all handles on one name, whatever their options.

    They are gone when the last of those handles is closed.
    """

    carries = True

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        url.finish()
        self.url = url.text
        self.home = here().birth
        self._memory = _memories.setdefault((self.home, url.rest), _Memory())

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        memory = self._open()
        with memory.lock:
            return _read(memory, address, keys, moment.now())

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        memory = self._open()
        with memory.lock:
            now = moment.now()
            there = _read(memory, address, tuple(receipt.key for receipt in new.keys), now)
            if there is None or old is None:
                holds = there is old
            else:
                holds = there.stamp == old.stamp and not there.keys
            if holds:
                self._write(memory, address, new, now)
            return holds

    def settles(self, change: Change) -> bool:
        return True

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        memory = self._open()
        with memory.lock:
            now = moment.now()
            record = _read(memory, address, batch.keys, now)
            new, answer = settle(record, batch, now, self.writers)
            if new is not None:
                self._write(memory, address, new, now)
            return answer

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        return [self.outcome(step, timeout) for step in steps]

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        memory = self._open()
        with memory.lock:
            live = {a.domain for a, record in memory.records.items() if not record.deleted}
        return iter(sorted(live))

    def snapshot(self, domain: str) -> dict[str, int]:
        memory = self._open()
        with memory.lock:
            there = [
                (address.name, record.value)
                for address, record in memory.records.items()
                if address.domain == domain and not record.deleted
            ]
        return dict(sorted(there))

    def purge(self, before: int) -> int:
        memory = self._open()
        with memory.lock:
            _expire(memory, moment.now())
            keyed = {address for address, _ in memory.keys}
            old = {a for a, record in memory.records.items() if record.deleted_before(before)}
            for address in old - keyed:
                del memory.records[address]
        return len(old - keyed)

    def close(self) -> None:
        self.closed = True
        self._memory = _Memory()

    def _open(self) -> _Memory:
        if self.home != here().birth:  # told before the lock, which a fork may have caught held
            raise StoreError(
                f"{self.url} lives in the process that opened it; to share counters among "
                "processes use a file, such as sqlite:///counters.db"
            )
        if self.closed:
            raise StoreClosedError(f"{self.url} was closed, and what it held is gone")
        return self._memory

    def _write(self, memory: _Memory, address: Address, new: Record, now: int) -> None:
        for receipt in new.keys:
            end = receipt.time + int(self.key_ttl * 1_000_000)
            memory.keys[address, receipt.key] = receipt, end
            memory.expiring.append((end, (address, receipt.key)))
        memory.records[address] = new._replace(keys=()) if new.keys else new
        _expire(memory, now)


def _read(memory: _Memory, address: Address, keys: tuple[str, ...], now: int) -> Record | None:
    record = memory.records.get(address)
    if record is None or not keys:
        return record
    found = [memory.keys[address, key] for key in keys if (address, key) in memory.keys]
    return record._replace(keys=tuple(receipt for receipt, end in found if now < end))


def _expire(memory: _Memory, now: int) -> None:
    """Forget the keys whose time is over."""
    while memory.expiring and memory.expiring[0][0] <= now:
        end, key = memory.expiring.popleft()
        if key in memory.keys and memory.keys[key][1] == end:
            del memory.keys[key]
