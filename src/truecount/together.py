"""Runs many plans in step: what they ask of the store at the same time is asked together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from truecount import backoff
from truecount.drive import orphans, refuse_orphan
from truecount.gate import closed, open_up, wait_at
from truecount.steps import (
    Collect,
    Expired,
    Gather,
    Pause,
    Plan,
    Queue,
    Queued,
    StoreStep,
    Ticket,
    Wait,
)
from truecount.stores.base import Store

__all__ = ["Together"]

T = TypeVar("T")


class Together(Generic[T]):
    """Plans that one thread carries out on one store, and the ``results`` that they have come to.

    None of them waits for another, except in line for a counter, and there
    never while another could go on: so nobody waits for ever.
    """

    def __init__(self, plans: Iterable[Plan[T]]) -> None:
        self._plans = list(plans)
        self.results: list[Any] = [None] * len(self._plans)
        self._ready: deque[tuple[int, Any]] = deque((at, None) for at in range(len(self._plans)))
        self._asking: list[tuple[int, StoreStep]] = []
        self._resting: list[tuple[float, int]] = []  # until when
        self._waiting: dict[Ticket, int] = {}
        self._called: deque[Ticket] = deque()  # by other threads, once or more
        self._gate = closed()  # no Event: struck while it is set, it could stay locked for ever

    def run(self, store: Store, timeout: float | None) -> list[T | Exception]:
        """What each plan returns or raises, within ``timeout`` seconds (None: no end).

        An exception that is nobody's answer, such as a KeyboardInterrupt, is
        thrown into all of them, and raised.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while self._ready or self._asking or self._resting or self._waiting:
                while self._ready:
                    self._advance(*self._ready.popleft())
                if self._asking:
                    self._ask(store, deadline)
                else:
                    self._rest(deadline)
                self._rouse(deadline)
        except BaseException as interruption:
            if not orphans:  # else they are the parent's
                self._leave(interruption)
            raise
        return self.results

    def _advance(self, at: int, answer: Any) -> None:
        """Tell a plan what came of its step, and see what it asks for next."""
        plan = self._plans[at]
        try:
            step = plan.throw(answer) if isinstance(answer, Exception) else plan.send(answer)
        except StopIteration as stop:
            self.results[at] = stop.value
        except Exception as error:
            self.results[at] = error
        else:
            match step:
                case Gather():
                    self._ready.append((at, None))  # the others of these go on
                case Queue():  # many turns at once would wait in a circle
                    self._ready.append((at, Queued(moved=False)))
                case Collect():
                    self._ready.append((at, ()))
                case Pause(attempt, crowded):
                    rest = backoff.seconds(attempt, crowded=crowded)
                    self._resting.append((time.monotonic() + rest, at))
                case Wait(ticket):
                    self._waiting[ticket] = at
                    if not ticket.watch(partial(self._call, ticket)):
                        self._called.append(ticket)
                case _:
                    self._asking.append((at, step))

    def _ask(self, store: Store, deadline: float | None) -> None:
        asking, self._asking = self._asking, []
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        refuse_orphan()
        answers = store.together([step for _, step in asking], timeout=left)
        refuse_orphan()
        self._ready.extend((at, answer) for (at, _), answer in zip(asking, answers, strict=True))

    def _rest(self, deadline: float | None) -> None:
        """Let time pass until there is something to do."""
        ends = [until for until, _ in self._resting]
        if deadline is not None:
            ends.append(deadline)
        self._gate = gate = closed()  # before the look: who calls after that opens this one
        refuse_orphan()
        if not self._called and (self._resting or self._waiting):
            wait_at(gate, max(min(ends) - time.monotonic(), 0.0) if ends else None)

    def _rouse(self, deadline: float | None) -> None:
        """Go on with those who were called, who have rested, or whose time is over."""
        while self._called:
            ticket = self._called.popleft()
            if ticket in self._waiting:
                self._ready.append((self._waiting.pop(ticket), None))
        now = time.monotonic()
        over = deadline is not None and now >= deadline
        resting, self._resting = self._resting, []
        for until, at in resting:
            if over:
                self._ready.append((at, Expired()))
            elif now >= until:
                self._ready.append((at, None))
            else:
                self._resting.append((until, at))
        if over:
            self._ready.extend((at, Expired()) for at in self._waiting.values())
            self._waiting.clear()

    def _call(self, ticket: Ticket) -> None:
        """Somebody calls a plan that waits. From any thread; never blocks."""
        self._called.append(ticket)
        open_up(self._gate)

    def _leave(self, interruption: BaseException) -> None:
        """Have every plan that is not at its end leave its line, even if struck once more."""
        latest, where = interruption, interruption.__traceback__
        for plan in self._plans:
            if getattr(plan, "gi_frame", None) is not None:
                try:
                    plan.throw(interruption)
                except BaseException as error:  # the same again, which `run` raises
                    latest = error
                interruption.__traceback__ = where  # without those of the plans
        if latest is not interruption:
            raise latest
