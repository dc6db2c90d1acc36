"""Turns among the processes of one machine that write to one counter elsewhere.

Where an engine only compares and sets, processes that write at once undo each
other's attempts: requests are wasted, and who has just won is likely to win
again. Those of one machine can do better: they queue up at a lock file, and
each leaves the record that it wrote for the next one, who need not read it.

This is for speed and fairness only. Whoever does not get its turn in time, or
finds no place for the files, goes on without; and a record that is not the
latest is found out by the store, which compares its stamp.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from truecount.errors import DamagedRecordError, StoreError, StoreTimeoutError
from truecount.process import Process, here
from truecount.record import Address, Ledger, Record
from truecount.stores.base import Store

if TYPE_CHECKING:
    from truecount.turn import Place

__all__ = ["MyTurn"]

FILES: Final = 1024
"""How many counters are told apart; those of one number wait for each other, now and then."""

OPEN: Final = 64
"""How many of them a process has open at once, three files each."""

PATIENCE: Final = 1.0
"""Seconds after which somebody who keeps the turn for so long is waited for no more."""

GRUDGE: Final = 5.0
"""Seconds for which there are no turns then."""


class MyTurn:
    """The turn at one counter, had by `take` and kept until `give`."""

    def __init__(self) -> None:
        self._queue: _Queue | None = None
        self._place: Place | None = None
        self._counter = b""
        self.wrote: Record | None = None
        """What the store holds since the turn began, as far as is known."""

    def take(self, store: Store, address: Address, timeout: float | None) -> bool | Record:
        """Wait for the turn, ``timeout`` seconds at most (None: a while).

        Returns whether others may have had it before: if so, the record that they left
        where that is known. Whatever happens, `give` has to follow.
        """
        counter = _name(store.url, address)
        queue = None if store.home is not None else _queue_of(counter)  # else nobody else can write
        if self._queue is not None or queue is None or time.monotonic() < queue.shunned:
            return False  # what is known may be tried: if it is past, the store finds out
        from truecount.turn import Place

        self._queue, self._place, self._counter = queue, Place(), counter
        patience = PATIENCE if timeout is None else min(PATIENCE, timeout / 2)
        try:
            queue.turn.take(self._place, patience)
            queue.turn.insist(patience)
        except StoreError as error:
            if isinstance(error, StoreTimeoutError):
                queue.shunned = time.monotonic() + GRUDGE
            self.give()
            return True
        return queue.turn.handed_over and (queue.left(counter) or True)

    def give(self) -> None:
        """Let the next one have it; may be repeated."""
        queue, place = self._queue, self._place
        if queue is not None and place is not None:
            try:
                if self.wrote is not None and queue.turn.handed_over:  # others are about
                    queue.leave(self._counter, self.wrote)
                self.wrote = None
            finally:
                queue.turn.give(place)
            self._queue = None


class _Queue:
    """Lock files, as this process uses them, and a file for the record that is left there.

    Nobody waits there before the instant ``shunned``, of the monotonic clock.
    """

    def __init__(self, path: str) -> None:
        from truecount.turn import Turn  # which Windows lacks the locks for

        self.shunned = 0.0
        # Kept open, and never cut short: ext4 writes out at once what takes a cut file's place.
        self._file = os.open(f"{path}-left", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file).atexit = False  # daemon threads go on
        self.turn = Turn(path)

    def left(self, counter: bytes) -> Record | None:
        """What the last one left of ``counter``."""
        with contextlib.suppress(OSError, ValueError, DamagedRecordError):
            whole = os.pread(self._file, os.fstat(self._file).st_size, 0)
            text = whole[36 : 36 + int.from_bytes(whole[32:36])]
            if whole[:32] == _seal(counter, text):
                value, deleted, horizon, ledger = text.decode().split("\n", 3)
                return Record.of(value, int(deleted), horizon, Ledger(ledger))
        return None  # nobody has left one, or was killed over it, or it is another version's

    def leave(self, counter: bytes, record: Record) -> None:
        """Leave ``record`` for the next one."""
        fields = record.value, int(record.deleted), record.horizon, record.ledger.text
        text = "\n".join(map(str, fields)).encode()
        with contextlib.suppress(OSError):  # the next one reads it in the store
            os.pwrite(self._file, _seal(counter, text) + len(text).to_bytes(4) + text, 0)


def _seal(counter: bytes, text: bytes) -> bytes:
    """What shows that ``text`` is whole, and about that counter."""
    return _digest(b"truecount 2" + counter + text)


@lru_cache(1024)
def _name(url: str, address: Address) -> bytes:
    """What stands for a counter, of which the URL may hold a password."""
    return _digest(repr((url, *address)).encode())


def _digest(data: bytes) -> bytes:
    import hashlib  # not before it is needed: importing truecount is light

    return hashlib.sha256(data).digest()


_queues: dict[tuple[Process, int], _Queue] = {}  # the latest at the end
_lock = threading.Lock()


def _queue_of(counter: bytes) -> _Queue | None:
    """Where the turns at a counter are had; None where there are none."""
    place = here(), int.from_bytes(counter[:4]) % FILES
    with _lock:
        queue = _queues.pop(place, None)
        if queue is None:
            try:
                queue = _Queue(os.path.join(_folder(), str(place[1])))
            except (ImportError, OSError, StoreError):
                return None
            if len(_queues) >= OPEN:  # whoever has the turn there, or waits for it, still gets it
                _queues.pop(next(iter(_queues))).turn.close()
        _queues[place] = queue
        return queue


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    _queues.clear()


os.register_at_fork(after_in_child=_forked)


def _folder() -> str:
    """A folder of this user's alone, for all processes of the machine."""
    import stat
    import tempfile  # likewise

    path = os.path.join(tempfile.gettempdir(), f"truecount-{os.getuid()}")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise
    return path
