"""A thread waits at a gate until another one opens it, once: the cheapest way to wait.

A gate is a lock that is held from the start; an object around it would take longer than it does.
"""

from __future__ import annotations

import threading

__all__ = ["closed", "open_up", "wait_at"]


def closed() -> threading.Lock:
    """A new gate."""
    gate = threading.Lock()
    gate.acquire()
    return gate


def open_up(gate: threading.Lock) -> None:
    """Let the one who waits go on, now or when it comes. To open again does nothing."""
    try:  # noqa: SIM105  # suppress() takes longer than all the rest
        gate.release()
    except RuntimeError:
        pass  # it is open


def wait_at(gate: threading.Lock, timeout: float | None) -> bool:
    """Wait ``timeout`` seconds at most (None: no end); whether the gate was opened."""
    if timeout is None:
        return gate.acquire()
    if not 0.0 <= timeout <= threading.TIMEOUT_MAX:
        timeout = 0.0 if timeout < 0.0 else threading.TIMEOUT_MAX
    return gate.acquire(True, timeout)
