"""Counters in the memory of one process: ``memory://`` or ``memory://name``.

The reference among the stores, and a store for tests: exact among threads,
gone with the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from truecount import moment
from truecount.change import Answer, Batch, Change
from truecount.errors import StoreClosedError, StoreError
from truecount.process import here
from truecount.record import Address, KeyReceipt, Record
from truecount.settle import settle
from truecount.stores.base import Store
from truecount.url import StoreURL

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """A dict and a lock."""

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        url.finish()
        self.url = url.text
        self.home = here().birth
        self._lock = threading.Lock()
        self._records: dict[Address, Record] = {}
        self._keys: dict[tuple[Address, str], tuple[KeyReceipt, int]] = {}
        self._expiring: deque[tuple[int, tuple[Address, str]]] = deque()

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        with self._open():
            return self._read(address, keys, moment.now())

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        with self._open():
            now = moment.now()
            there = self._read(address, tuple(receipt.key for receipt in new.keys), now)
            if there is None or old is None:
                holds = there is old
            else:
                holds = there.stamp == old.stamp and not there.keys
            if holds:
                self._write(address, new, now)
            return holds

    def settles(self, change: Change) -> bool:
        return True

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        with self._open():
            now = moment.now()
            new, answer = settle(self._read(address, batch.keys, now), batch, now, self.writers)
            if new is not None:
                self._write(address, new, now)
            return answer

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        with self._open():
            live = {a.domain for a, record in self._records.items() if not record.deleted}
        return iter(sorted(live))

    def snapshot(self, domain: str) -> dict[str, int]:
        with self._open():
            there = [
                (address.name, record.value)
                for address, record in self._records.items()
                if address.domain == domain and not record.deleted
            ]
        return dict(sorted(there))

    def purge(self, before: int) -> int:
        with self._open():
            old = [a for a, record in self._records.items() if record.deleted_before(before)]
            for address in old:
                del self._records[address]
        return len(old)

    def close(self) -> None:
        with self._open():
            self.closed = True
            self._records.clear()
            self._keys.clear()
            self._expiring.clear()

    @contextmanager
    def _open(self) -> Iterator[None]:
        if self.home != here().birth:  # told before the lock, which a fork may have caught held
            raise StoreError(
                f"{self.url} lives in the process that opened it; to share counters among "
                "processes use a file, such as sqlite:///counters.db"
            )
        with self._lock:
            if self.closed:
                raise StoreClosedError(f"{self.url} was closed, and what it held is gone")
            yield

    def _read(self, address: Address, keys: tuple[str, ...], now: int) -> Record | None:
        record = self._records.get(address)
        if record is None or not keys:
            return record
        found = [self._keys[address, key] for key in keys if (address, key) in self._keys]
        return record._replace(keys=tuple(receipt for receipt, end in found if now < end))

    def _write(self, address: Address, new: Record, now: int) -> None:
        for receipt in new.keys:
            end = receipt.time + int(self.key_ttl * 1_000_000)
            self._keys[address, receipt.key] = receipt, end
            self._expiring.append((end, (address, receipt.key)))
        self._records[address] = new._replace(keys=()) if new.keys else new
        while self._expiring and self._expiring[0][0] <= now:
            end, key = self._expiring.popleft()
            if key in self._keys and self._keys[key][1] == end:
                del self._keys[key]
