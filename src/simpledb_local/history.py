"""What items were a while ago, for reads that may be that old.

The real service answers a read without ``ConsistentRead`` from any of its
copies. Here such a read sees the state of exactly ``lag`` seconds ago, so that
a client which forgot the flag finds out every time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["History"]

LONGEST_READ: Final = 10.0
"""Seconds that a read may take: so much longer than ``lag`` is everything kept."""


class History:
    """The writes of the last ``lag`` seconds, each with the item as it was before.

    An item's state is whatever the caller keeps, None where there is none.
    """

    def __init__(self, lag: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lag = lag
        self._clock = clock
        self._writes: deque[tuple[float, int, str]] = deque()
        self._before: dict[int, dict[str, deque[tuple[float, str | None]]]] = {}

    def moment(self) -> float | None:
        """The moment whose state a read without ``ConsistentRead`` sees; None: the present."""
        return self._clock() - self.lag if self.lag else None

    def note(self, domain: int, item: str, state: Callable[[int, str], str | None]) -> None:
        """An item is about to be written; ``state`` tells what it is before."""
        if not self.lag:
            return
        now = self._clock()
        before = state(domain, item)
        self._writes.append((now, domain, item))
        self._before.setdefault(domain, {}).setdefault(item, deque()).append((now, before))
        self._forget(now - self.lag - LONGEST_READ)

    def at(self, moment: float, domain: int, item: str, present: str | None) -> str | None:
        """The item at ``moment``, if it is ``present`` now."""
        for written, before in self._before.get(domain, {}).get(item, ()):
            if written > moment:
                return before
        return present

    def changed(self, moment: float, domain: int) -> dict[str, str | None]:
        """All items that were written since ``moment``, as they were then."""
        found: dict[str, str | None] = {}
        for item, writes in self._before.get(domain, {}).items():
            if writes[-1][0] > moment:
                found[item] = next(before for written, before in writes if written > moment)
        return found

    def _forget(self, moment: float) -> None:
        while self._writes and self._writes[0][0] < moment:
            _, domain, item = self._writes.popleft()
            items = self._before[domain]
            items[item].popleft()
            if not items[item]:
                del items[item]
