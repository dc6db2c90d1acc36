"""Keeps forks away from threads that are inside a C library.

A fork copies the locks that other threads hold, and nobody in the child will
ever release them: SQLite has some for its memory and its files. So a fork
waits until nobody is inside, and those who come meanwhile wait for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

__all__ = ["enter", "inside", "leave"]

PATIENCE: Final = 5.0
"""Seconds that a fork waits for those inside, before it happens all the same."""

_inside: Final[set[int]] = set()  # idents of threads
_forking: Final[set[int]] = set()  # idents of threads: several may fork at once


def enter(thread: int) -> None:
    """Note that ``thread``, the one that calls, goes inside, when no fork is waiting."""
    _inside.add(thread)
    while _forking:
        _inside.discard(thread)
        time.sleep(0.0001)  # no Event: struck while it is set, it could stay locked for ever
        _inside.add(thread)


leave = _inside.discard


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """`enter` and `leave`, where the thread may be inside already."""
    thread = threading.get_ident()
    if thread in _inside:
        yield
        return
    try:
        enter(thread)
        yield
    finally:
        leave(thread)


def _before() -> None:
    _forking.add(threading.get_ident())
    deadline = time.monotonic() + PATIENCE
    while _inside - _forking and time.monotonic() < deadline:
        time.sleep(0.0001)


def _after_in_parent() -> None:
    _forking.discard(threading.get_ident())


def _after_in_child() -> None:
    _forking.clear()
    _inside.intersection_update({threading.get_ident()})


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
