"""Lets an event loop wait for what threads do: the loop itself never blocks.

The callers of a counter stand in the same line as those who block. Whoever is
called to lead has a thread of the store's pool see the batch through; that is
nobody's task, so that neither a caller who is cancelled nor a loop that ends
leaves anything behind that is sent and not settled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, ref

from truecount.change import Change, Decided
from truecount.combine import Line, Ticket, note, told
from truecount.drive import entrances, orphans, refuse_nested, run, running
from truecount.errors import StoreTimeoutError
from truecount.process import Process, here
from truecount.steps import Plan
from truecount.stores.base import Store

__all__ = ["Caller", "carry_out", "in_thread"]

T = TypeVar("T")

ALARMS: Final = 64
"""How many different time-outs one loop keeps an alarm for while nobody waits."""

THREADS: Final = 32
"""How many requests to one store may be on their way at once, from loops of this process."""


async def carry_out(plan: Plan[T], store: Store, timeout: float | None) -> T:
    """Carry out ``plan`` on ``store`` within ``timeout`` seconds (None: no end).

    Returns what the plan returns and raises what it raises. Cancelled, it is
    carried out all the same, and nobody is told.
    """
    end = None if timeout is None else time.monotonic() + timeout
    return await in_thread(store, lambda: run(plan, store, _left(end)), timeout)


async def in_thread(store: Store, call: Callable[[], T], timeout: float | None) -> T:
    """What ``call``, which may block, returns.

    Raises `StoreTimeoutError` when no thread was free for it in ``timeout`` seconds.
    """
    job = _pools(store).others.submit(call)
    waiting = asyncio.wrap_future(job)
    timer = None
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, job.cancel)
    try:
        return await waiting
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if job.cancelled() and not (task is not None and task.cancelling()):
            raise StoreTimeoutError(
                "the time was over while other calls were served; nothing was sent"
            ) from None
        raise
    finally:
        if timer is not None:
            timer.cancel()


class Caller(Ticket):
    """One who waits in an event loop for what becomes of a change.

    It has to `join` the line, to await its ``future``, and to ask what it was `told`; or to
    `leave`, when it is interrupted before that.
    """

    __slots__ = ("alarm", "begun", "box", "end", "failure", "future", "job", "store")

    def __init__(self, line: Line, change: Change, store: Store) -> None:
        super().__init__(line, change)
        loop = asyncio.get_running_loop()
        box = _latest.box and _latest.box()
        self.box = box if box and box.loop is loop else _box(loop)
        self.future: asyncio.Future[None] = loop.create_future()
        self.store = store
        self.failure: BaseException | None = None
        self.job: Future[None] | None = None
        self.begun = False
        self.end: float | None = None
        self.alarm: _Alarm | None = None

    def join(self, timeout: float | None) -> None:
        """Stand in line, for ``timeout`` seconds at most. Whatever happens, `leave` may follow."""
        if timeout is not None:
            self.end = time.monotonic() + timeout
            self.alarm = self.box.alarms.get(timeout) or self.box.alarm(timeout)
            self.alarm.callers[self] = None
        thread = threading.get_ident()  # as `_inside` does, but faster
        if thread in running:
            refuse_nested()
        try:
            running.add(thread)
            if self.line.join(self):
                with self.line.lock:
                    self.lead()
        finally:
            running.discard(thread)
            orphans.discard(thread)

    entrances.add(join.__code__)

    def told(self) -> Decided:
        """What it was told: returned, or raised.

        That is a `CounterError` when the change was not applied and never will
        be, and `Pending` when that is unknown.
        """
        self.unset()
        if self.failure is not None:
            raise self.failure
        return told(self)

    def wake(self) -> None:
        """Have a thread lead, or the loop look."""
        if self.leads and self.decided is None and self.error is None:
            self.lead()
        else:
            self.box.post(self)

    def lead(self) -> None:
        """Have a thread send a batch, unless one does. Under the line's lock."""
        if self.job is None:
            with suppress(RuntimeError):  # the interpreter ends
                self.job = _pools(self.store).leaders.submit(self.see_through)

    def see_through(self) -> None:
        """Lead until the outcome of this caller's change is known, or its time is over."""
        with self.line.lock:
            if self.begun or not self.leads:
                return  # another thread does, or this caller has left
            self.begun = True
        try:
            run(self.line.lead(self), self.store, _left(self.end))
        except BaseException as error:
            self.line.drop(self, error)
            self.failure = error
        self.box.post(self)

    def look(self) -> None:
        """Tell the one who waits, in its loop, if there is something to tell."""
        told = self.decided is not None or self.error is not None or self.failure is not None
        if told and not self.future.done():
            self.future.set_result(None)

    def expire(self) -> None:
        """The time is over. Who leads is told by the plan, unless it waits for a thread yet."""
        _inside(self.line.expire, self)
        self.look()

    def may_leave(self) -> bool:
        return not self.begun and (self.job is None or self.job.cancel())

    def leave(self, interruption: BaseException) -> None:
        """Go, interrupted: what was sent is seen through, and noted on the exception."""
        self.unset()
        if isinstance(interruption, GeneratorExit):
            # A collector of garbage may come at any moment, even while this thread has a lock:
            # the loop's way to be called takes none. Closed, it leaves the change to the line.
            with suppress(RuntimeError):
                self.box.loop.call_soon_threadsafe(self.quit, interruption)
        elif not self.quit(interruption):
            note(interruption)

    def unset(self) -> None:
        """Have no alarm any more."""
        if self.alarm is not None:
            self.alarm.callers.pop(self, None)

    def quit(self, interruption: BaseException) -> bool:
        """Leave the line, unless somebody leads for this one; whether it is over."""
        left = _inside(partial(self.line.drop, leading=False), self, interruption)
        return left or self.decided is not None or self.error is not None


class _Box:
    """What a loop is to look at, posted by threads: they wake it once for all of it."""

    __slots__ = ("__weakref__", "alarms", "called", "loop", "posted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.alarms: dict[float, _Alarm] = {}
        self.posted: deque[Caller] = deque()
        self.called = False  # to open the box; twice does no harm

    def post(self, caller: Caller) -> None:
        """Have the loop look at ``caller``. Never blocks, and never raises."""
        self.posted.append(caller)
        if not self.called:
            self.called = True
            try:
                self.loop.call_soon_threadsafe(self.open)
            except BaseException as error:
                self.called = False  # struck: whoever posts next has to call
                if not isinstance(error, RuntimeError):  # closed: nobody waits in it any more
                    raise

    def open(self) -> None:
        """Look at everything that was posted."""
        self.called = False
        with suppress(IndexError):
            while True:
                self.posted.popleft().look()

    def alarm(self, timeout: float) -> _Alarm:
        """A new alarm for those who wait ``timeout`` seconds at most."""
        if len(self.alarms) >= ALARMS:
            for idle in [each for each in self.alarms.values() if not each.callers]:
                idle.stop()
        self.alarms[timeout] = alarm = _Alarm(self, timeout)
        return alarm


class _Alarm:
    """Tells callers whose time is over, all of whom wait equally long: first come, first over.

    One timer of the loop serves them all, as a timer for each takes longer
    than all the rest.
    """

    __slots__ = ("box", "callers", "timeout", "timer")

    def __init__(self, box: _Box, timeout: float) -> None:
        self.box = box
        self.timeout = timeout
        self.callers: dict[Caller, None] = {}  # in the order of their coming
        self.timer = box.loop.call_later(timeout, self.ring)

    def ring(self) -> None:
        """Tell those whose time is over, and wait for the next; stop when there is none."""
        loop = self.box.loop
        now = time.monotonic()
        try:
            while self.callers:
                caller = next(iter(self.callers))
                assert caller.end is not None
                if caller.end > now:
                    self.timer = loop.call_later(caller.end - now, self.ring)
                    return
                loop.call_soon(caller.expire)  # twice does no harm
                self.callers.pop(caller, None)  # a collector may have closed it meanwhile
            self.stop()
        except BaseException:  # a signal handler's: others may wait yet
            self.timer = loop.call_later(0, self.ring)
            raise

    def stop(self) -> None:
        """Make room for others."""
        self.box.alarms.pop(self.timeout, None)
        self.timer.cancel()


class _Latest(threading.local):
    """The box of the loop that ran in this thread last: it is found faster than the others."""

    box: ref[_Box] | None = None


_latest = _Latest()
_boxes: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[_Box]] = WeakKeyDictionary()


def _box(loop: asyncio.AbstractEventLoop) -> _Box:
    """The box of the loop, which those who wait in it keep, and its alarms."""
    known = _boxes.get(loop)
    box = None if known is None else known()
    if box is None:
        box = _Box(loop)
        _boxes[loop] = ref(box)
    _latest.box = _boxes[loop]
    return box


class _Pools:
    """The threads of one process for one store.

    Those who lead have their own: others may wait in line for them.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.leaders = ThreadPoolExecutor(THREADS, "truecount-leader")
        self.others = ThreadPoolExecutor(THREADS, "truecount")


_pools_of: WeakKeyDictionary[Store, _Pools] = WeakKeyDictionary()
_lock = threading.RLock()  # a signal handler may come in between


def _pools(store: Store) -> _Pools:
    pools = _pools_of.get(store)
    if pools is None or pools.process is not here():
        with _lock:
            pools = _pools_of.get(store)
            if pools is None or pools.process is not here():
                pools = _pools_of[store] = _Pools(here())
    return pools


def _forked() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forked)


def _left(end: float | None) -> float | None:
    return None if end is None else max(end - time.monotonic(), 0.0)


def _inside(call: Callable[..., T], *arguments: Any) -> T:
    """``call(*arguments)``, during which a signal handler is told that it comes at a bad moment."""
    thread = threading.get_ident()
    if thread in running:
        refuse_nested()
    try:
        running.add(thread)
        return call(*arguments)
    finally:
        running.discard(thread)
        orphans.discard(thread)


entrances.add(_inside.__code__)
