"""A thread waits at a gate until another one opens it, once."""

from __future__ import annotations

import threading

__all__ = ["Gate"]


class Gate:
    """Closed when it is made; opened once, from any thread. The cheapest way to wait."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the one who waits go on, now or when it comes. To open again does nothing."""
        try:  # noqa: SIM105  # suppress() takes longer than all the rest
            self._lock.release()
        except RuntimeError:
            pass  # it is open

    def wait(self, timeout: float | None) -> bool:
        """Wait ``timeout`` seconds at most (None: no end); whether the gate was opened."""
        if timeout is None:
            return self._lock.acquire()
        if not 0.0 <= timeout <= threading.TIMEOUT_MAX:
            timeout = 0.0 if timeout < 0.0 else threading.TIMEOUT_MAX
        return self._lock.acquire(True, timeout)
