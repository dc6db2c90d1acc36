"""A bell by which one process wakes another: a named pipe.

To wait there costs no thread, and ends in time, which waiting for a file's lock does
not. Who is rung looks by itself what for: it may be rung for nothing, and where
whoever should ring was killed it is not rung at all.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import weakref

__all__ = ["Bell", "ring"]


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
        _all.add(self)

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or has rung since it was last heard, for ``seconds`` at most.

        `OSError` in a child that a signal's handler forks meanwhile: it is the parent's.
        """
        rung = self._poll.poll(seconds * 1000)
        if self._pipe < 0:
            raise OSError("the bell is another process's")
        if rung:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, 4096)

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
