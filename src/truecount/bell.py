"""A bell by which one process wakes another: a named pipe.

To wait there costs no thread, and ends in time, which waiting for a file's lock does
not. Who is rung looks by itself what for: it may be rung for nothing, and where
whoever should ring was killed it is not rung at all.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import stat
import time
import weakref
from typing import Final

from truecount.backoff import Hope
from truecount.spin import pause

__all__ = ["Bell", "ring"]

SPIN: Final = 0.002
"""Seconds for which who waits may spin: a turn at a store that is near."""


class Bell:
    """The one at ``path``, for who waits there. `OSError` where there can be none."""

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # To write too: else it would be at its end whenever nobody is about to ring.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._pipe)
        self._close.atexit = False  # daemon threads go on
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            raise OSError(f"{path} is no named pipe")
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._hope = Hope()  # that it rings while somebody spins
        _all.add(self)

    def wait(self, seconds: float, *, spin: bool = False) -> None:
        """Wait until it rings, or has rung since it was last heard, for ``seconds`` at most.

        ``spin``: do so for the first of them, unless that has been in vain of late.
        `OSError` in a child that a signal's handler forks meanwhile: it is the parent's.
        """
        if spin and self._hope.is_left():
            end = time.monotonic() + min(seconds, SPIN)
            for looks in itertools.count(1):
                if self._has_rung():
                    self._hope.fulfilled()
                    return
                if time.monotonic() >= end:
                    break
                pause(looks)
            seconds = max(seconds - SPIN, 0.0)
        self._poll.poll(seconds * 1000)
        self._has_rung()

    def _has_rung(self) -> bool:
        """Whether it has since it was last heard, and now is heard."""
        try:
            return bool(os.read(self._pipe, 4096))
        except BlockingIOError:
            return False

    def forget(self) -> None:
        """Close it, which is the parent's."""
        self._pipe = -1
        self._close()


def ring(path: str) -> None:
    """Wake who waits at the bell there, if anybody does."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # there is no such bell, or nobody waits there
    try:
        os.write(pipe, b"!")
    except OSError:
        pass  # it has been rung so often that it is full
    finally:
        os.close(pipe)


_all: weakref.WeakSet[Bell] = weakref.WeakSet()


def _forked() -> None:
    for bell in _all:
        bell.forget()


os.register_at_fork(after_in_child=_forked)
