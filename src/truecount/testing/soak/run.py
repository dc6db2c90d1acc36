"""One soak: clients at work, one fault after the other, and at the end the verdict."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from truecount import CounterNotFoundError, connect
from truecount.testing.history import Recorder
from truecount.testing.soak.client import Orders, clock
from truecount.testing.soak.crew import Crew, faketime
from truecount.testing.soak.findings import Calls, Findings, counted, judged
from truecount.testing.soak.load import DOMAIN, LOADS
from truecount.testing.soak.naive import NAIVE, see
from truecount.testing.soak.sites import Site
from truecount.testing.soak.unsolved import Unsolved
from truecount.testing.weather import Weather

__all__ = ["NotInstalledError", "Pace", "Plan", "State", "soak"]

ROUGH: Final = 0.25
"""The chance of a fault whose turn it is."""

ENOUGH: Final = 4
"""How many of them there are in one turn, if there is time."""

SPELL: Final = (0.1, 0.8)
"""Seconds for which connections are refused, or a partition lasts, or a client stands still."""

PATIENCE: Final = 5.0
"""Seconds in which an outcome must be settled in the end."""


class NotInstalledError(FileNotFoundError):
    """There is no server here of the store that is to be soaked."""


class Pace(NamedTuple):
    """``pause`` seconds from one fault to the next, and how often some come in a round.

    A round has every kind of fault, in an order that dice decide.
    """

    pause: float = 0.7
    client_killed: int = 4
    client_stopped: int = 2
    server_killed: int = 1


class Plan(NamedTuple):
    """A soak of so many ``seconds``, and one round of faults at least.

    ``seed`` is that of all its dice.
    ``weather``: there are no faults but these, with the chance of each, a
    request. The rest is for controls: `truecount.testing.soak.client.Orders`
    has it.
    """

    seconds: float
    seed: int
    pace: Pace = Pace()
    clients: int = 4
    load: str = "mixed"
    weather: Mapping[str, float] | None = None
    naive: str = ""
    without: str = ""
    compares: bool = False
    forks: float = 0.1
    threads: int = 2


class State(NamedTuple):
    """How far a soak is."""

    seconds: float
    operations: int
    faults: int


def _unwatched(state: State) -> None:
    pass


def soak(
    make: Callable[[Path], Site],
    name: str,
    folder: Path,
    plan: Plan,
    watch: Callable[[State], object] = _unwatched,
) -> Findings:
    """Soak the store that ``make`` makes, called ``name``; what is recorded stays in ``folder``.

    ``watch`` is called after each fault. Raises `NotInstalledError` when ``make``
    misses its server, and `RuntimeError` when a client fails.
    """
    dice = Random(f"{name} {plan.seed}")
    try:
        made = make(folder)
    except FileNotFoundError as error:
        raise NotInstalledError(str(error)) from error
    with made as site:
        recorder = Recorder(folder / "history")
        director = Director(site, plan, dice)
        orders = Orders(
            *(site.url, str(folder), f"{name} {plan.seed}", clock(), plan.load, plan.threads),
            keys=site.keys,
            forks=plan.forks,
            patience=site.slowness,
            naive=plan.naive,
            without=plan.without,
            weather=None if site.proxies else director.mild,
            compares=plan.compares,
        )
        if plan.naive:
            NAIVE[plan.naive](site.url)  # makes what it needs
        else:
            _see_nothing(recorder, site, plan.load)
        calls = Calls(folder / "history")
        began = time.monotonic()
        with Crew(orders, plan.clients, site.skew, dice) as crew:
            crew.start()
            deadline = began + plan.seconds
            while time.monotonic() < deadline or not director.rounds:
                director.fault(crew)
                crew.check()
                suffered = director.tally + crew.tally
                watch(State(time.monotonic() - began, calls.so_far(), suffered.total()))
            site.mend()
            crew.end()
        site.mend()
        took = time.monotonic() - began
        if plan.naive:
            see(recorder, NAIVE[plan.naive](site.url)[1])
        else:
            _settle(recorder, Unsolved(folder / "unknown"), dice)
            _see(recorder, site, plan.load)
        suffered = director.tally + crew.tally
        kinds = LOADS[plan.load].kinds(keys=site.keys)
    found = counted(folder / "history", kinds)
    suffered.update(found.faults)
    faults = {kind: suffered[kind] for kind in director.kinds}
    verdict = judged(folder / "history")
    return Findings(name, plan.seed, took, folder, found, faults, director.spared, verdict)


class Director:
    """Makes one fault after the other at ``site``, as ``plan`` has it, in so many ``rounds``."""

    def __init__(self, site: Site, plan: Plan, dice: Random) -> None:
        self.site = site
        self.plan = plan
        self.spared = dict(site.spared)
        if faketime() is None:
            self.spared["clock wrong"] = "libfaketime is not installed"
        self._dice = dice
        self.rounds = 0
        self._killed = 0
        self._deck: list[str] = []
        self._seeds = itertools.count(plan.seed * 1_000_000)

    @property
    def kinds(self) -> list[str]:
        """The kinds of faults that there are here."""
        clients = ("client killed", "client stopped", "clock wrong")
        there = [*self.site.weathers, *clients, "server killed"]
        return [kind for kind in there if kind not in self.spared]

    @property
    def mild(self) -> dict[str, Any]:
        """The weather, when there is nothing special."""
        if self.plan.weather is not None:
            return dict(self.plan.weather)
        return dict(self.site.mild)

    @property
    def tally(self) -> Tally[str]:
        """How many faults there were at the site, by kind."""
        tally = self.site.tally
        if self._killed:
            tally["server killed"] += self._killed
        return tally

    def fault(self, crew: Crew) -> None:
        """Make the next fault, and go on until its time is over."""
        until = time.monotonic() + self.plan.pace.pause
        self.site.look_after()
        if self.plan.weather is None:
            self._make(self._next(), crew, until)
        else:
            self.rounds = 1
        self.site.make(Weather(next(self._seeds), **self.mild))
        time.sleep(max(until - time.monotonic(), 0.0))

    def _make(self, kind: str, crew: Crew, until: float) -> None:
        if kind == "client killed":
            crew.kill()
        elif kind == "client stopped":
            crew.stop(self._dice.uniform(*SPELL))
        elif kind == "server killed":
            self.site.kill_server(self._dice)
            self._killed += 1
        elif kind in ("refuse", "partition"):
            self.site.break_out(kind, self._dice.uniform(*SPELL), self._dice)
        else:
            self._storm(kind, until)

    def _storm(self, kind: str, until: float) -> None:
        """Have it happen often, until it has a few times, and once at least.

        What is late has happened once it has arrived; what waits to is on its way.
        """
        before = self.site.tally[kind]
        self.site.make(Weather(next(self._seeds), **{**self.mild, kind: ROUGH}))
        while (now := time.monotonic()) < until + PATIENCE:
            happened = self.site.tally[kind] - before
            waiting = sum(proxy.held for proxy in self.site.proxies) if kind == "late" else 0
            if happened and (now > until or happened + waiting >= ENOUGH):
                return
            time.sleep(0.02)

    def _next(self) -> str:
        """The kind of the next fault."""
        if not self._deck:
            pace = self.plan.pace
            often = {
                "client killed": pace.client_killed,
                "client stopped": pace.client_stopped,
                "server killed": pace.server_killed,
            }
            storms = self.site.weathers if self.site.proxies else ()
            kinds = [kind for kind in self.kinds if kind in often or kind in storms]
            self._deck = [kind for kind in kinds for _ in range(often.get(kind, 1))]
            self._dice.shuffle(self._deck)
        kind = self._deck.pop()
        self.rounds += not self._deck
        return kind


def _see_nothing(recorder: Recorder, site: Site, load: str) -> None:
    """Record that none of the counters is there yet."""
    with connect(site.url) as store:
        for name in LOADS[load].names:
            with contextlib.suppress(CounterNotFoundError):
                recorder.open(DOMAIN, name, store=store, create=False)
                raise RuntimeError(f"the store is not empty: {name} is there")


def _settle(recorder: Recorder, unsolved: Unsolved, dice: Random) -> None:
    """Settle all that is unknown and can be known."""
    for path in unsolved.all():
        unsolved.settle(path, recorder, dice, PATIENCE)


def _see(recorder: Recorder, site: Site, load: str) -> None:
    """Look at every counter once more."""
    with connect(site.url) as store:
        for name in LOADS[load].names:
            with contextlib.suppress(CounterNotFoundError):
                recorder.open(DOMAIN, name, store=store, create=False).refresh()
