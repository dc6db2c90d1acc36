"""A thread waits at a gate until another one opens it, once: the cheapest way to wait.

A gate is a lock that is held from the start; an object around it would take longer than it does.
"""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType
from typing import Final

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
    """Wait ``timeout`` seconds at most (None: no end); whether the gate was opened.

    In a child that a signal's handler forks meanwhile, it was not: whoever
    would open it is a thread of the parent.
    """
    if timeout is None:
        opened = gate.acquire()
    elif 0.0 <= timeout <= threading.TIMEOUT_MAX:
        opened = gate.acquire(True, timeout)
    else:
        opened = gate.acquire(True, 0.0 if timeout < 0.0 else threading.TIMEOUT_MAX)
    return opened and gate not in _forsaken


_forsaken: Final[list[threading.Lock]] = []  # at which the thread waits that was forked


def _forked() -> None:
    _forsaken.clear()
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is wait_at.__code__:
            gate = frame.f_locals["gate"]
            _forsaken.append(gate)
            open_up(gate)
        frame = frame.f_back


os.register_at_fork(after_in_child=_forked)
