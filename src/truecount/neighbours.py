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

import itertools
import os
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from truecount.change import Batch
from truecount.errors import StoreError, StoreTimeoutError
from truecount.process import Process, here
from truecount.record import Address, Record
from truecount.spin import pause
from truecount.steps import Queued
from truecount.stores.base import Store

if TYPE_CHECKING:
    from truecount.post import Post

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

FADE: Final = 0.25
"""What is taken off their number with each turn to which not all came; if none did, all is."""

QUIET: Final = 32
"""Turns without a sign of others, after which a process leaves its records to nobody."""


class MyTurn:
    """The turn at one counter, had by `take` and kept until `give`."""

    def __init__(self) -> None:
        self._queue: _Queue | None = None
        self._post: Post | None = None
        self._counter = b""

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
        from truecount.post import Post

        patience = PATIENCE if timeout is None else min(PATIENCE, timeout / 2)
        self._queue, self._counter = queue, counter
        post = self._post = Post(queue.turn, lambda: counter, batch, patience)
        mine = False
        try:
            queue.turn.take(post, patience)
            queue.turn.insist(patience)
            mine = not post.served
        except StoreTimeoutError:
            queue.shunned = time.monotonic() + GRUDGE
        except StoreError:
            pass
        answer, doubt = post.take_back()
        if answer is not None or not mine:
            self.give()
            return Queued(moved=True, answer=answer, doubt=doubt)
        moved = queue.turn.handed_over
        queue.quiet = 0 if moved else queue.quiet + 1
        left = queue.mail.left(counter) if queue.quiet < QUIET else None
        return Queued(moved, left, doubt=doubt)

    def collect(self) -> tuple[Batch, ...]:
        """The batches of those who wait for the turn, as far as this one has it."""
        queue, post = self._queue, self._post
        if queue is None or post is None:
            return ()
        waits = queue.quiet < QUIET and not post.letters
        end = time.monotonic() + (MOMENT if waits else 0.0)
        for looks in itertools.count(1):
            post.collect()
            found = len(post.letters)
            if found >= queue.crowd or time.monotonic() >= end:
                break
            pause(looks)
        if found:
            queue.quiet = 0
        queue.crowd = max(found, queue.crowd - FADE) if found else 0.0
        return post.batches()

    def sends(self, record: Record) -> None:
        """Take note that ``record`` is about to be sent."""
        if self._post is not None:
            self._post.sends(record)

    def refused(self) -> None:
        """Take note that the store has not taken it, nor will."""
        queue, post = self._queue, self._post
        if queue is not None and post is not None:
            queue.quiet = 0
            post.refused()

    def wrote(self, record: Record) -> None:
        """Take note that the store has taken ``record``; give the turn, and the answers."""
        queue, post = self._queue, self._post
        if queue is None or post is None:
            return
        if queue.quiet < QUIET:
            post.answer(record)
            queue.mail.leave(self._counter, record)
        self.give()  # before those are told who stand in line here

    def give(self) -> None:
        """Let the next one have it; may be repeated."""
        queue, post = self._queue, self._post
        if queue is not None and post is not None:
            try:
                post.leave()
            finally:
                queue.turn.give(post)
            self._queue = None


class _Queue:
    """Lock files, as this process uses them, and a file for what is left there.

    Nobody waits there before the instant ``shunned``, of the monotonic clock. ``quiet`` counts
    the turns since there was a sign of others, ``crowd`` how many of them posted a moment ago.
    """

    def __init__(self, number: int) -> None:
        from truecount.mail import folder  # for which Windows lacks the locks
        from truecount.post import Office

        self.shunned = 0.0
        self.quiet = QUIET
        self.crowd = 0.0
        self.turn = Office(os.path.join(folder(), str(number)), f"{number}-mail")
        self.turn.met = True  # as long as it is not quiet
        mail = self.turn.mail()
        if mail is None:
            raise OSError("there can be no mail")
        self.mail = mail


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
                queue = _Queue(place[1])
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
