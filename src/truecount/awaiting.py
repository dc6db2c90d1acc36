"""Runs plans in an event loop, which never blocks: the store is asked in threads.

The callers of a counter stand in the same line as those who block. Whoever is
called to lead has a task made that sees the batch through. It belongs to
nobody, so that a caller who is cancelled leaves nothing behind that is sent
and not settled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from truecount import backoff
from truecount.change import Change
from truecount.combine import Decided, Line, Ticket, note
from truecount.drive import entrances, refuse_nested, running
from truecount.process import Process, here
from truecount.steps import Expired, Pause, Plan, Read, Replace, Settle, Step, Wait
from truecount.steps import Ticket as Called
from truecount.stores.base import Store

__all__ = ["ask", "in_thread", "run"]

T = TypeVar("T")

THREADS: Final = 32
"""How many requests of one process may be waiting for their stores at once."""

_pools: dict[Process, ThreadPoolExecutor] = {}

_tasks: set[asyncio.Task[None]] = set()  # or nobody would keep those that lead


async def run(plan: Plan[T], store: Store, timeout: float | None) -> T:
    """Carry out ``plan`` on ``store`` within ``timeout`` seconds (None: no end).

    Returns what the plan returns and raises what it raises.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    result: Any = None
    problem: BaseException | None = None
    try:
        while True:
            step = _advance(plan, result, problem)
            result = problem = None
            try:
                result = await _carry_out(step, store, deadline)
            except BaseException as error:
                problem = error  # the plan knows what it means: it may leave callers behind
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typed by the plan


async def ask(line: Line, change: Change, store: Store, timeout: float | None) -> Decided:
    """Have ``change`` applied, in line with the other callers of this process.

    Raises a `CounterError` when it was not and never will be applied, and
    `Pending` when that is unknown. Cancelled, it leaves the line if the change
    was not sent; else the change is seen through, and the exception carries a note.
    """
    caller = _Caller(line, change, store, timeout)
    try:
        await caller.future
    except asyncio.CancelledError as interruption:
        caller.leave(interruption)
        raise
    finally:
        if caller.timer is not None:
            caller.timer.cancel()
    ticket = caller.ticket
    if ticket.error is not None:
        raise ticket.error
    assert ticket.decided is not None
    return ticket.decided


class _Caller:
    """One who waits in an event loop for what becomes of a change."""

    __slots__ = (
        "deadline",
        "future",
        "leading",
        "line",
        "loop",
        "store",
        "thread",
        "ticket",
        "timer",
    )

    def __init__(self, line: Line, change: Change, store: Store, timeout: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.line = line
        self.store = store
        self.ticket = Ticket(line, change)
        self.leading: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.deadline = None if timeout is None else self.loop.time() + timeout
        self.ticket.wake = self.wake
        if _inside(partial(line.join, self.ticket)):
            self.lead()
        elif self.deadline is not None:
            self.timer = self.loop.call_at(self.deadline, self.expire)

    def wake(self) -> None:
        """There is something to do. Called under the line's lock, from any thread."""
        if threading.get_ident() == self.thread:
            self.look()
            return
        try:
            self.loop.call_soon_threadsafe(self.look)
        except RuntimeError as closed:  # its loop is no more: somebody else has to lead
            leave = partial(self.line.drop, self.ticket, closed)
            threading.Thread(target=leave, daemon=True).start()

    def look(self) -> None:
        """See what there is to do."""
        ticket = self.ticket
        if self.future.done():
            return
        if ticket.decided is not None or ticket.error is not None:
            self.future.set_result(None)
        elif ticket.leads:
            self.lead()

    def lead(self) -> None:
        """Have a batch sent, unless that is being done."""
        if self.leading is None:
            self.leading = self.loop.create_task(self.see_through())
            _tasks.add(self.leading)
            self.leading.add_done_callback(_tasks.discard)

    async def see_through(self) -> None:
        """Lead until the outcome of this caller's change is known, or its time is over."""
        left = None if self.deadline is None else self.deadline - self.loop.time()
        try:
            await run(self.line.lead(self.ticket), self.store, left)
        except BaseException as error:
            _inside(partial(self.line.drop, self.ticket, error))
            if not self.future.done():
                self.future.set_exception(error)
            raise
        self.look()

    def expire(self) -> None:
        """The time is over: of one who leads, the plan knows that."""
        if not self.ticket.leads:
            _inside(partial(self.line.expire, self.ticket))
            self.look()

    def leave(self, interruption: BaseException) -> None:
        """Go, cancelled. What was sent stays to be seen through."""
        if self.leading is None:
            _inside(partial(self.line.drop, self.ticket, interruption))
        elif self.ticket in self.line.waiting:  # called to lead, and not begun
            self.leading.cancel()
            _inside(partial(self.line.drop, self.ticket, interruption))
        elif self.ticket.decided is None and self.ticket.error is None:
            note(interruption)


async def in_thread(call: Callable[[], T]) -> T:
    """What ``call``, which may block, returns."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), call)


def _pool() -> ThreadPoolExecutor:
    pool = _pools.get(here())
    if pool is None:
        pool = _pools[here()] = ThreadPoolExecutor(THREADS, "truecount")
    return pool


def _inside(call: Callable[[], T]) -> T:
    """``call``, during which a signal handler is told that it comes at a bad moment."""
    thread = threading.get_ident()
    if thread in running:
        refuse_nested()
    running.add(thread)
    try:
        return call()
    finally:
        running.discard(thread)


entrances.add(_inside.__code__)


def _advance(plan: Plan[Any], result: Any, problem: BaseException | None) -> Step:
    if problem is None:
        return _inside(partial(plan.send, result))
    return _inside(partial(plan.throw, problem))


async def _carry_out(step: Step, store: Store, deadline: float | None) -> Any:
    left = None if deadline is None else deadline - time.monotonic()
    match step:
        case Settle(address, batch):
            return await in_thread(partial(store.settle, address, batch, timeout=left))
        case Replace(address, old, new):
            return await in_thread(partial(store.replace, address, old, new, timeout=left))
        case Read(address, keys):
            return await in_thread(partial(store.read, address, keys, timeout=left))
        case Pause(attempt, crowded):
            if left is not None and left <= 0:
                raise Expired
            rest = backoff.seconds(attempt, crowded=crowded)
            await asyncio.sleep(rest if left is None else min(rest, left))
        case Wait(ticket):
            await _wait(ticket, left)
    return None


async def _wait(ticket: Called, timeout: float | None) -> None:
    """Wait until ``ticket`` is called, for ``timeout`` seconds at most."""
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    if _inside(partial(ticket.watch, partial(loop.call_soon_threadsafe, called.set))):
        try:
            await asyncio.wait_for(called.wait(), timeout)
        except TimeoutError:
            raise Expired from None
