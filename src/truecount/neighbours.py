"""Turns among the processes of one machine that write to one counter elsewhere.

Where an engine only compares and sets, processes that write at once undo each
other's attempts: requests are wasted, and who has just won is likely to win
again. Those of one machine can do better: they queue up at a lock file. Who has
the turn sends what those have posted who wait, and leaves them the record that
it wrote.

The turns are for speed and fairness only. Whoever does not get one in time, or
finds no place for the files, goes on without; and a record that is not the
latest is found out by the store, which compares its stamp. What must be right is
who says of another's batch that nobody has sent it: whoever collected it, as
long as no request that brings it may be on its way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from truecount.backoff import NAP
from truecount.change import Answer, Batch
from truecount.errors import StoreError, StoreTimeoutError
from truecount.process import Process, here
from truecount.record import Address, Record
from truecount.steps import Queued
from truecount.stores.base import Store

if TYPE_CHECKING:
    from truecount.mail import Letter
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

MOMENT: Final = 0.0005
"""Seconds for which who has the turn waits for those who posted a batch a moment ago."""

UNHEARD: Final = 0.005
"""Seconds after which who waits looks by itself: whoever should ring may have been killed."""

MOST: Final = 16
"""Batches of others that travel in one request, at most."""

FADE: Final = 0.25
"""What is taken off their number with each turn to which not all came; if none did, all is."""

QUIET: Final = 32
"""Turns without a sign of others, after which a process leaves its records to nobody."""


class MyTurn:
    """The turn at one counter, had by `take` and kept until `give`."""

    def __init__(self) -> None:
        self._queue: _Queue | None = None
        self._place: Place | None = None
        self._counter = b""
        self._mine = False  # the turn
        self._posted: Letter | None = None  # where our own batch lies
        self._letters: dict[Letter, bool] = {}  # collected; and whether it may be on its way
        self._brought: list[Letter] = []  # those for which that is new, with the latest request

    def take(
        self, store: Store, address: Address, batch: Batch | None, timeout: float | None
    ) -> Queued:
        """Wait for the turn, ``timeout`` seconds at most (None: a while).

        Meanwhile others may send ``batch``. Whatever happens, `give` has to follow.
        """
        counter = _name(store.url, address)
        queue = None if store.home is not None else _queue_of(counter)  # else nobody else can write
        if self._queue is not None or queue is None or time.monotonic() < queue.shunned:
            return Queued(moved=False)  # if what is known is past, the store finds out
        from truecount.turn import Place

        self._queue, self._place, self._counter = queue, Place(), counter
        self._letters = {}
        patience = PATIENCE if timeout is None else min(PATIENCE, timeout / 2)
        if batch is not None:
            self._place.wait = partial(self._wait, batch)
        try:
            queue.turn.take(self._place, patience)
            queue.turn.insist(patience)
            self._mine = True
        except StoreTimeoutError:
            queue.shunned = time.monotonic() + GRUDGE
        except StoreError:
            pass
        answer, doubt = self._take_back()
        if answer is not None or not self._mine:
            queue.answered = answer is not None
            self._mine = False  # whoever has answered has it
            self.give()
            return Queued(moved=True, answer=answer, doubt=doubt)
        moved = queue.turn.handed_over or queue.answered
        queue.answered = False
        queue.quiet = 0 if moved else queue.quiet + 1
        left = queue.mail.left(counter) if queue.quiet < QUIET else None
        return Queued(moved, left, doubt=doubt)

    def collect(self) -> tuple[Batch, ...]:
        """The batches of those who wait for the turn, as far as this one has it."""
        queue = self._queue
        if queue is None:
            return ()
        waits = queue.quiet < QUIET and not self._letters
        end = time.monotonic() + (MOMENT if waits else 0.0)
        while True:
            if not queue.mail.is_empty():
                new = queue.mail.collect(self._counter, MOST - len(self._letters))
                self._letters.update(dict.fromkeys(new, False))
            if len(self._letters) >= queue.crowd or time.monotonic() >= end:
                break
            time.sleep(NAP)
        found = len(self._letters)
        if found:
            queue.quiet = 0
        queue.crowd = max(found, queue.crowd - FADE) if found else 0.0
        now = time.monotonic()
        return tuple([letter.batch for letter in self._letters if now < letter.until])

    def sends(self, record: Record) -> None:
        """Take note that ``record`` is about to be sent."""
        self._brought = []
        if self._letters:
            sure = [letter for letter, doubt in self._letters.items() if not doubt]
            self._brought = [letter for letter in sure if _has(record, letter.batch)]
            self._letters.update(dict.fromkeys(self._brought, True))

    def refused(self) -> None:
        """Take note that the store has not taken it, nor will."""
        queue = self._queue
        if queue is not None:
            queue.quiet = 0
            self._letters.update(dict.fromkeys(self._brought, False))
            self._put_back(queue)

    def wrote(self, record: Record) -> None:
        """Take note that the store has taken ``record``; give the turn, and the answers."""
        queue = self._queue
        if queue is None:
            return
        if queue.quiet < QUIET:
            answered = [letter for letter in self._letters if _has(record, letter.batch)]
            if answered:
                queue.mail.answer(self._counter, answered, record)
            queue.mail.leave(self._counter, record)
        self.give()  # before those are told who stand in line here

    def give(self) -> None:
        """Let the next one have it; may be repeated."""
        queue, place = self._queue, self._place
        if queue is not None and place is not None:
            try:
                place.wait = None  # it keeps this one, which keeps it
                self._take_back()
                self._put_back(queue)
            finally:
                queue.turn.give(place)
            if self._mine:
                queue.mail.call()
                self._mine = False
            self._queue = None

    def _wait(
        self, batch: Batch, try_turn: Callable[[], bool], timeout: float | None
    ) -> bool | None:
        """Wait for the turn, or until another process has sent ``batch``; a `Place.wait`."""
        queue = self._queue
        if queue is None or self._posted is not None:
            return None
        seconds = PATIENCE if timeout is None else timeout
        end = time.monotonic() + seconds
        letter = self._posted = queue.mail.post(self._counter, batch, seconds)
        bell = None if letter is None else queue.mail.bell(letter)
        if letter is None or bell is None:
            return None
        while not (queue.mail.is_answered(letter) or try_turn()):
            left = end - time.monotonic()
            if left <= 0:
                return False
            try:
                bell.wait(min(left, UNHEARD))
            except OSError:
                return False  # forked meanwhile
        return True

    def _take_back(self) -> tuple[Answer | None, bool]:
        """The answer to our own batch, and whether it may be on its way without one."""
        letter, self._posted = self._posted, None
        if letter is None or self._queue is None:
            return None, False
        found = self._queue.mail.take_back(self._counter, letter)
        return (None, not found) if isinstance(found, bool) else (found, False)

    def _put_back(self, queue: _Queue) -> None:
        """Leave to others what was not sent."""
        if not self._letters:
            return
        unsent = [letter for letter, doubt in self._letters.items() if not doubt]
        # First: struck after it, this would put back what the next one has on its way.
        self._letters = {letter: True for letter, doubt in self._letters.items() if doubt}
        if unsent:
            queue.mail.put_back(unsent)


def _has(record: Record, batch: Batch) -> bool:
    return record.ledger.knows(batch.writer, batch.number)


class _Queue:
    """Lock files, as this process uses them, and a file for what is left there.

    Nobody waits there before the instant ``shunned``, of the monotonic clock. ``quiet`` counts
    the turns since there was a sign of others, ``crowd`` how many of them posted a moment ago,
    and ``answered`` is whether one of them had the turn last.
    """

    def __init__(self, path: str) -> None:
        from truecount.mail import Mail  # for both of which Windows lacks the locks
        from truecount.turn import Turn

        self.shunned = 0.0
        self.quiet = QUIET
        self.crowd = 0.0
        self.answered = False
        self.mail = Mail(f"{path}-mail")
        self.turn = Turn(path)


@lru_cache(1024)
def _name(url: str, address: Address) -> bytes:
    """What stands for a counter, of which the URL may hold a password."""
    import hashlib  # not before it is needed: importing truecount is light

    return hashlib.sha256(repr((url, *address)).encode()).digest()


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
