"""A fair turn among the processes that write one file.

SQLite's own busy handler polls with growing sleeps, so that whoever just
wrote is likely to write again, and the others starve for seconds. Here they
queue: two ``flock`` locks beside the file, *next* and *turn*. Whoever wants to
write holds *next* while it waits for *turn*, so that at most one process waits
for the turn and the one that had it cannot slip in again before; the kernel
keeps those behind in the order of their coming, and frees the locks of a
process that dies. A process may have a few turns in a row, which spares most
of the hand-overs.

Safety does not rest on this, only fairness: the store still begins every
transaction with ``BEGIN IMMEDIATE``.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue
from typing import Final

from truecount.errors import StoreError, StoreTimeoutError
from truecount.gate import Gate

__all__ = ["Turn"]

STREAK: Final = 8
"""Turns that a process may have in a row while others wait."""

ALONE: Final = 32
"""Turns without a sign of others, after which a process no longer asks for the locks."""


class Turn:
    """The turn to write ``path``, for one process; its threads have it one by one.

    While nobody else has been seen writing, `take` does not touch the locks,
    whose system calls cost more than all the rest. Whoever then finds the file
    locked has to `insist`; so does the other one, soon, and both queue.
    Raises `StoreError` when the lock files cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._files = _Files(path)
        self._queue = _Queue(self._files)
        self._lock = threading.Lock()
        self._taken = False  # by a thread of this process
        self._threads: deque[Gate] = deque()  # which it is handed on to, in the order of asking
        self._locked = False  # against other processes
        self._streak = 0
        self._alone = 0

    def take(self, timeout: float | None) -> None:
        """Wait for the turn; `StoreTimeoutError` after ``timeout`` seconds (None: never)."""
        with self._lock:
            gate = Gate() if self._taken else None
            if gate is None:
                self._taken = True
            else:
                self._threads.append(gate)
        if gate is not None:
            began = time.monotonic()
            self._wait_for_threads(gate, timeout)
            timeout = timeout and max(timeout - (time.monotonic() - began), 0)
        if self._alone < ALONE:
            try:
                self._wait_for_processes(timeout)
            except BaseException:
                self._hand_on()
                raise

    def insist(self, timeout: float | None) -> None:
        """Queue up after all: somebody else turned out to be writing. As `take`."""
        self._alone = 0
        if not self._locked:
            self._wait_for_processes(timeout)

    def give(self) -> None:
        """Give the turn to the next."""
        try:
            if self._locked:
                self._locked = False
                fcntl.flock(self._files.turn, fcntl.LOCK_UN)
        finally:
            self._hand_on()

    def close(self) -> None:
        """Give back the files; nobody takes the turn any more."""
        self._queue.close()

    def _wait_for_processes(self, timeout: float | None) -> None:
        busy = self._queue.busy  # still waiting, for somebody who has left
        if not busy and self._streak < STREAK and _try(self._files.turn):
            self._streak += 1
            self._alone += 1
        elif not busy and self._files.try_both():
            self._streak = 1
            self._alone += 1
        elif self._queue.wait(timeout):
            self._streak = 1
            self._alone = 0
        else:
            raise StoreTimeoutError(
                "other processes had the turn to write for all the time allowed"
            )
        self._locked = True

    def _wait_for_threads(self, gate: Gate, timeout: float | None) -> None:
        try:
            had = gate.wait(timeout)
        except BaseException:
            if not self._leave(gate):
                self._hand_on()
            raise
        if not had and self._leave(gate):
            raise StoreTimeoutError("other threads had the turn to write for all the time allowed")

    def _leave(self, gate: Gate) -> bool:
        """Leave the queue of threads; False when the turn was handed on at the last moment."""
        with self._lock:
            if gate in self._threads:
                self._threads.remove(gate)
                return True
            return False

    def _hand_on(self) -> None:
        with self._lock:
            if self._threads:
                self._threads.popleft().open()
            else:
                self._taken = False


class _Files:
    """The two lock files. A forked child closes them, or it would keep its parent's locks."""

    def __init__(self, path: str) -> None:
        self.closed = False
        self.next = _open(path + "-next")
        try:
            self.turn = _open(path + "-turn")
        except BaseException:
            os.close(self.next)
            raise
        _all_files.add(self)

    def try_both(self) -> bool:
        """Take the turn only if nobody waits for it."""
        if not _try(self.next):
            return False
        try:
            return _try(self.turn)
        finally:
            fcntl.flock(self.next, fcntl.LOCK_UN)

    def wait(self) -> None:
        """Wait for the turn, for as long as it takes."""
        fcntl.flock(self.next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self.turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self.next, fcntl.LOCK_UN)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.next)
            os.close(self.turn)


class _Queue:
    """Waits in ``flock`` on behalf of a thread that has a deadline, which ``flock`` has not.

    The thread that waits is started by the first hand-over, and serves them all.
    """

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False: end
        self._waiter: threading.Thread | None = None
        self._wanted: Gate | None = None
        self.busy = False  # in flock, maybe for somebody who has left

    def wait(self, timeout: float | None) -> bool:
        """Wait for the turn at most ``timeout`` seconds; whether it was had."""
        gate = Gate()
        with self._lock:
            self._wanted = gate
            if not self.busy:
                self.busy = True
                if self._waiter is None:
                    self._waiter = threading.Thread(target=self._serve, daemon=True)
                    self._waiter.start()
                self._calls.put(True)
        try:
            if gate.wait(timeout):
                return True
        except BaseException:
            if not self._withdraw():
                fcntl.flock(self._files.turn, fcntl.LOCK_UN)
            raise
        return not self._withdraw()

    def close(self) -> None:
        """End the waiting thread; the files are closed as soon as it has left them."""
        with self._lock:
            self._wanted = None
            if self._waiter is None:
                self._files.close()
            else:
                self._calls.put(False)

    def _withdraw(self) -> bool:
        """Leave; False when the turn was had at the last moment."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
        return wanted is not None

    def _serve(self) -> None:
        while self._calls.get():
            self._files.wait()
            with self._lock:
                self.busy = False
                if self._wanted is None:
                    fcntl.flock(self._files.turn, fcntl.LOCK_UN)
                else:
                    self._wanted.open()
                    self._wanted = None
        self._files.close()


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, _WITHOUT_WAITING)
    except BlockingIOError:
        return False
    return True


_WITHOUT_WAITING: Final = fcntl.LOCK_EX | fcntl.LOCK_NB

_all_files: weakref.WeakSet[_Files] = weakref.WeakSet()


def _forked() -> None:
    for files in _all_files:
        files.close()


os.register_at_fork(after_in_child=_forked)
