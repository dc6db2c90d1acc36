"""A fair turn among the processes that write one file.

SQLite's own busy handler polls with growing sleeps, so that whoever just
wrote is likely to write again, and the others starve for seconds. Here they
queue: two ``flock`` locks beside the file, *next* and *turn*. Whoever wants to
write holds *next* while it waits for *turn*, so that at most one process waits
for the turn and the one that had it cannot slip in again before; the kernel
keeps those behind in the order of their coming, and frees the locks of a
process that dies. A process that comes back before the next one is awake may
have a few turns in a row, which spares hand-overs.

Safety does not rest on this, only fairness: the store still begins every
transaction with ``BEGIN IMMEDIATE``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from truecount.errors import StoreClosedError, StoreError, StoreTimeoutError
from truecount.gate import closed, open_up, wait_at

__all__ = ["Place", "Turn"]

STREAK: Final = 8
"""Turns that a process may have in a row while others wait."""

ALONE: Final = 32
"""Turns without a sign of others, after which a process no longer asks for the locks."""


class Place:
    """A place in the queue of a process's threads, which `Turn.take` and `Turn.give` are told."""

    gate: threading.Lock | None = None  # where its thread waits
    next: Place | None = None
    served = False
    """Whether it needs the turn no more: another process has done what it was for."""

    def wait(self, try_turn: Callable[[], bool], timeout: float | None) -> bool | None:
        """Wait for other processes elsewhere than in their queue, ``timeout`` seconds at most.

        ``try_turn`` takes the turn if it is free. Returns whether it was, or is not needed any
        more, which `served` tells then; None: it has to queue after all.
        """
        return None


class Turn:
    """The turn to write ``path``, for one process; its threads have it one by one.

    While nobody else has been seen writing, `take` does not touch the locks,
    whose system calls cost more than all the rest. Whoever then finds the file
    locked has to `insist`; so does the other one, soon, and both queue.
    Raises `StoreError` when the lock files cannot be opened.

    An exception may strike a thread anywhere, as Ctrl-C does. So whatever
    became of `take`, `give` leaves the queue in order, and may be repeated;
    and what must change together changes without a call in between, as
    exceptions strike at calls.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._files = _Files(path)
        self._queue = _Queue(self._files)
        self._lock = threading.Lock()
        self._first: Place | None = None  # who has the turn among this process's threads
        self._last: Place | None = None
        self._locked = False  # against other processes; or about to be
        self._streak = 0
        self._alone = 0
        self.met = False  # any other process, ever
        self._passed = False  # by others, who have done what it was for since this process had it
        self._closed = False
        self.handed_over = False  # to this process, by another, which has written just now

    @property
    def shared(self) -> bool:
        """Whether it is had before others who may be waiting, as far as is known."""
        return self._locked and self.met

    def take(self, place: Place, timeout: float | None) -> None:
        """Wait for the turn; `StoreTimeoutError` after ``timeout`` seconds (None: never).

        Whatever happens, `give` has to follow.
        """
        with self._lock:
            if self._closed:
                raise StoreClosedError(f"{self.path} was closed; connect() opens it again")
            if self._first is None:
                self._first = self._last = place
            else:
                assert self._last is not None
                place.gate = closed()
                self._last.next = self._last = place
        if place.gate is not None:
            began = time.monotonic()
            if not wait_at(place.gate, timeout):
                raise StoreTimeoutError(
                    "other threads had the turn to write for all the time allowed"
                )
            timeout = timeout and max(timeout - (time.monotonic() - began), 0)
        if self._alone < ALONE:
            self._wait_for_processes(timeout)

    def insist(self, timeout: float | None) -> None:
        """Queue up after all: somebody else turned out to be writing. As `take`, after it."""
        self._alone = 0
        if not self._locked:
            self._wait_for_processes(timeout)

    def give(self, place: Place) -> None:
        """Give the turn to the next, or leave the queue."""
        freed = False
        with self._lock:
            if self._first is place:
                freed = self.shared and not place.served
                if self._locked:
                    self._queue.leave()
                    self._files.free()
                    self._locked = False
                self._first = place.next
            else:
                self._unlink(place)
            if self._first is None:
                self._last = None
                if self._closed:
                    self._queue.close()
            elif self._first.gate is not None:
                open_up(self._first.gate)
        if freed:
            self.freed()

    def freed(self) -> None:
        """Tell other processes, which may be waiting elsewhere, that they may have it."""

    def close(self) -> None:
        """Give back the files, as soon as nobody has the turn or waits for it."""
        with self._lock:
            self._closed = True
            if self._first is None:
                self._queue.close()

    def _unlink(self, place: Place) -> None:
        """Take ``place`` out from behind the first, if it is there."""
        before = self._first
        while before is not None and before.next is not place:
            before = before.next
        if before is not None:
            if self._last is place:
                self._last = before
            before.next = place.next

    def _wait_for_processes(self, timeout: float | None) -> None:
        self._locked = True  # as soon as it may be, or an exception could leave it so
        self.handed_over = self._passed
        place = None
        busy = self._queue.busy  # still waiting, for somebody who has left
        if not busy and self._streak < STREAK and self._files.try_turn():
            self._streak += 1
            self._alone += 1
        elif not busy and self._streak >= STREAK and self._files.try_both():
            self._streak = 1
            self._alone += 1
        else:
            self.met = True
            place = self._first
            had = None
            if not busy and place is not None:
                began = time.monotonic()
                had = place.wait(self._files.try_turn, timeout)
                timeout = timeout and max(timeout - (time.monotonic() - began), 0)
            if had is None:
                had = timeout != 0 and self._queue.wait(timeout)
            if not had:
                raise StoreTimeoutError(
                    "other processes had the turn to write for all the time allowed"
                )
            self._streak = 1
            self._alone = 0
            self.handed_over = True
        self._passed = place is not None and place.served


class _Files:
    """The two lock files. A forked child closes them, or it would keep its parent's locks."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.next = _open(path + "-next")
        try:
            self.turn = _open(path + "-turn")
        except BaseException:  # whatever it is, nobody else would close it
            os.close(self.next)
            raise
        # Also when nobody has them any more: in a forked child their owner may have forgotten
        # them before the hook below comes to it.
        self.close = weakref.finalize(self, _close, self.next, self.turn)
        self.close.atexit = False  # daemon threads go on
        _all_files.add(self)

    def try_turn(self) -> bool:
        """Take the turn if it is free, even if somebody waits for it."""
        return self._lock(self.turn, waits=False)

    def try_both(self) -> bool:
        """Take the turn only if nobody waits for it."""
        try:
            return self._lock(self.next, waits=False) and self.try_turn()
        finally:
            self._unlock(self.next)

    def wait(self) -> None:
        """Wait for the turn, for as long as it takes."""
        self._lock(self.next, waits=True)
        try:
            self._lock(self.turn, waits=True)
        finally:
            self._unlock(self.next)

    def free(self) -> None:
        """Give the turn back."""
        self._unlock(self.turn)

    def _lock(self, file: int, *, waits: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # as on a network's file system without locks
            raise StoreError(
                f"cannot lock {self.path}-turn: {error.strerror}; nothing was applied. "
                "Keep counters where files can be locked, as on a disk of this machine"
            ) from error
        return True

    def _unlock(self, file: int) -> None:
        if self.close.alive:  # else they are the parent's, and the number may be another file's
            try:  # noqa: SIM105  # suppress() takes longer than the call
                fcntl.flock(file, fcntl.LOCK_UN)
            except OSError:
                pass  # it could not be locked either


class _Queue:
    """Waits in ``flock`` on behalf of a thread that has a deadline, which ``flock`` has not.

    The thread that waits is started by the first hand-over, and serves them all.
    """

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False: end
        self._waiter: threading.Thread | None = None
        self._wanted: threading.Lock | None = None
        self.busy = False  # in flock, maybe for somebody who has left

    def wait(self, timeout: float | None) -> bool:
        """Wait for the turn at most ``timeout`` seconds; whether it was had.

        Whatever happens, `leave` has to follow, and then the lock is to be freed.
        """
        gate = closed()
        with self._lock:
            self._wanted = gate
            if not self.busy:
                if self._waiter is None:
                    waiter = threading.Thread(target=self._serve, daemon=True)
                    try:
                        waiter.start()
                    except RuntimeError as error:
                        raise StoreError(
                            f"no thread can be started to wait for other processes ({error}); "
                            "nothing was applied"
                        ) from error
                    self._waiter = waiter
                self.busy = True
                self._calls.put(True)
        return wait_at(gate, timeout)

    def leave(self) -> None:
        """Want the turn no more."""
        if self._wanted is not None:
            with self._lock:
                self._wanted = None

    def close(self) -> None:
        """End the waiting thread; the files are closed as soon as it has left them."""
        with self._lock:
            self._wanted = None
            if self._waiter is None:
                self._files.close()
            else:
                self._calls.put(False)

    def _serve(self) -> None:
        while self._calls.get():
            with contextlib.suppress(StoreError):  # whoever tries next is told
                self._files.wait()
            with self._lock:
                self.busy = False
                if self._wanted is None:
                    self._files.free()
                else:
                    open_up(self._wanted)
                    self._wanted = None
        self._files.close()


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


_all_files: weakref.WeakSet[_Files] = weakref.WeakSet()


def _forked() -> None:
    for files in _all_files:
        files.close()


os.register_at_fork(after_in_child=_forked)
