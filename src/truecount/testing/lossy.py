"""A store whose replies get lost, around any other store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from truecount.change import Answer, Batch, Change
from truecount.errors import CounterError, StoreUnavailableError
from truecount.record import Address, Record
from truecount.steps import StoreStep
from truecount.stores.base import Ambiguous, Store

__all__ = ["ComparingStore", "LossyStore"]


class LossyStore(Store):
    """Passes requests on to ``store``, and loses as many of them as it is told to.

    ``counter = Counter("shop", "stock", store=LossyStore(connect(url)))``. What
    is lost is told for the next writes, in order, and only for writes.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.url = store.url
        self.timeout = store.timeout
        self.key_ttl = store.key_ttl
        self.home = store.home
        self.writers = store.writers
        self.batch_limit = store.batch_limit
        self.key_limit = store.key_limit
        self.always_fence = store.always_fence
        self.moving_proves = store.moving_proves
        self.writes = 0  # requests to write that came so far
        self.down = False  # refuse everything
        self._fates: deque[str | CounterError | None] = deque()

    def serve(self, count: int = 1) -> None:
        """Pass the next ``count`` writes on, before what is said after this."""
        self._fates.extend([None] * count)

    def lose_replies(self, count: int) -> None:
        """Apply the next ``count`` writes, and lose the reply."""
        self._fates.extend(["reply"] * count)

    def lose_requests(self, count: int) -> None:
        """Lose the next ``count`` writes, which nobody can tell from a lost reply."""
        self._fates.extend(["request"] * count)

    def refuse(self, error: CounterError) -> None:
        """Refuse the next write with ``error``, before it acts."""
        self._fates.append(error)

    def go_down(self) -> None:
        """Refuse every request after those for which something else was said; `mend` ends it."""
        self._fates.append("down")

    def mend(self) -> None:
        """Lose and refuse nothing more."""
        self.down = False
        self._fates.clear()

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        self._check()
        return self.store.read(address, keys, timeout=timeout)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        done: bool | Record = self._write(self.store.replace, address, old, new, timeout=timeout)
        return done

    def settles(self, change: Change) -> bool:
        return self.store.settles(change)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        answer: Answer = self._write(self.store.settle, address, batch, timeout=timeout)
        return answer

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        return [self.outcome(step, timeout) for step in steps]  # each has its fate, in order

    def names(self, domain: str) -> Iterator[str]:
        self._check()
        return self.store.names(domain)

    def domains(self) -> Iterator[str]:
        self._check()
        return self.store.domains()

    def close(self) -> None:
        self.store.close()

    def _write(self, request: Any, *arguments: Any, timeout: float | None) -> Any:
        self._check()
        self.writes += 1
        fate = self._fates.popleft() if self._fates else None
        if isinstance(fate, CounterError):
            raise fate
        if fate != "request":
            result = request(*arguments, timeout=timeout)
        if fate is not None:
            raise Ambiguous(StoreUnavailableError("the reply was lost"))
        return result

    def _check(self) -> None:
        if self._fates and self._fates[0] == "down":
            self.down = True
        if self.down:
            raise StoreUnavailableError("the store is down")


class ComparingStore(LossyStore):
    """The same, with a store that settles nothing by itself: it compares and sets."""

    def settles(self, change: Change) -> bool:
        return False
