"""Runs plans. The only place that waits."""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from types import CodeType
from typing import Any, Final, TypeVar

from truecount import backoff
from truecount.errors import CounterError
from truecount.gate import closed, open_up, wait_at
from truecount.neighbours import MyTurn
from truecount.steps import (
    Collect,
    Expired,
    Gather,
    Pause,
    Plan,
    Queue,
    Queued,
    Replace,
    Step,
    Wait,
)
from truecount.stores.base import Store

__all__ = [
    *("MOMENT", "entrances", "orphaned", "orphans", "refuse_nested", "refuse_orphan"),
    *("run", "run_inside", "running"),
]

T = TypeVar("T")

MOMENT: Final = 0.0003
"""Seconds for which a leader waits for the next one who is about to come."""

running: Final[set[int]] = set()
"""The threads that are inside a call."""

orphans: Final[set[int]] = set()
"""The thread that was forked in the middle of a call, which is its parent's to finish."""

_left_to_the_parent: list[object] = []  # finishing one in the child could meet its locks


def _forked() -> None:
    # The parent's other threads do not exist here, and their idents may come again.
    running.intersection_update({threading.get_ident()})
    orphans.update(running)


os.register_at_fork(after_in_child=_forked)


def orphaned() -> CounterError:
    """The error for an orphan."""
    return CounterError(
        "the process was forked in the middle of this call, which is the parent's; nothing was "
        "applied on behalf of the child"
    )


def refuse_orphan() -> None:
    """Raise `CounterError` if this thread is an orphan: before a request, and after it."""
    if orphans:
        raise orphaned()


entrances: Final[set[CodeType]] = set()
"""The code of the functions by which a thread gets inside."""


def refuse_nested() -> None:
    """Raise `CounterError` if this thread, which is in `running`, is inside another call.

    Only a signal handler can make a call from there, and would wait for what
    the interrupted one holds. An exception that struck a thread on its way
    out may have left it in `running`: so its stack is asked.
    """
    frame = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code in entrances:
            raise CounterError(
                "a signal handler called truecount while this very thread was inside another "
                "call; nothing was applied. Set a flag in the handler and make the call later"
            )
        frame = frame.f_back


def run(plan: Plan[T], store: Store, timeout: float | None) -> T:
    """Carry out ``plan`` on ``store``, blocking, within ``timeout`` seconds (None: no end).

    Returns what the plan returns and raises what it raises.
    """
    thread = threading.get_ident()
    if thread in running:
        refuse_nested()
    try:
        running.add(thread)
        return run_inside(plan, store, timeout)
    finally:
        running.discard(thread)
        orphans.discard(thread)


entrances.add(run.__code__)


def run_inside(plan: Plan[T], store: Store, timeout: float | None) -> T:
    """`run`, for a thread that is in `running` already."""
    deadline = None if timeout is None else time.monotonic() + timeout
    result: Any = None
    problem: BaseException | None = None
    turn = MyTurn()
    try:
        while True:
            step = plan.send(result) if problem is None else plan.throw(problem)
            result = problem = None
            try:
                if not orphans:
                    result = _carry_out(step, store, deadline, turn)
            except BaseException as error:
                problem = error  # the plan knows what it means: it may leave callers behind
            if orphans:
                _left_to_the_parent.append(plan)
                raise orphaned()
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typed by the plan
    except BaseException as error:
        if getattr(plan, "gi_frame", None) is not None and not orphans:
            plan.throw(error)  # struck between two steps; raises it again
        raise
    finally:
        if not orphans:  # else it is the parent's
            try:
                turn.give()
            except BaseException:  # struck just here: once more, or it is kept for good
                turn.give()
                raise


def _carry_out(step: Step, store: Store, deadline: float | None, turn: MyTurn) -> Any:
    left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
    match step:
        case Pause(attempt, crowded):
            if left == 0:
                raise Expired
            rest = backoff.seconds(attempt, crowded=crowded)
            time.sleep(rest if left is None else min(rest, left))
        case Queue(address, batch):
            # Who has no time to wait makes its first request all the same.
            return Queued(moved=False) if left == 0 else turn.take(store, address, batch, left)
        case Collect():
            return turn.collect()
        case Replace():
            turn.sends(step.new)
            try:
                answer = store.carry_out(step, left)
            except CounterError:
                turn.refused()
                raise
            if answer is True:
                turn.wrote(step.new)
            else:
                turn.refused()
            return answer
        case Gather(ticket):
            gate = closed()
            if ticket.watch(partial(open_up, gate)):
                wait_at(gate, MOMENT)
        case Wait(ticket):
            gate = closed()
            if ticket.watch(partial(open_up, gate)) and not wait_at(gate, left):
                raise Expired
        case _:
            return store.carry_out(step, left)
    return None
