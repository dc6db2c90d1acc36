"""Negative controls: clients that must be convicted, by the same harness and the same checker.

Some are not ours, and count as many do. Others are ours, each without one of
the protocol's remedies. Where no real store makes the world that it takes, or
not within a minute, or where no history can tell, since the remedy keeps
outcomes from staying unknown, the simulation convicts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from truecount.testing.simulation import REMEDIES, explore
from truecount.testing.soak.run import Plan, soak
from truecount.testing.soak.sites import SITES

__all__ = ["CONTROLS", "SIMULATED", "Control", "Conviction", "convict", "simulate"]

NO_WEATHER: Final[Mapping[str, float]] = MappingProxyType({})

CUTS: Final = {"cut_before": 0.02, "cut_after": 0.05, "refuse": 0.02}
LATE: Final = {**CUTS, "late": 0.05}


class Control(NamedTuple):
    """Who is to be convicted, where, doing what in which weather."""

    site: str
    load: str = "adds"
    weather: Mapping[str, float] = NO_WEATHER
    naive: str = ""
    without: str = ""
    compares: bool = False
    forks: float = 0.0
    threads: int = 2

    @property
    def innocent(self) -> Control:
        """Ours, with all remedies, doing the same in the same weather: who must go free."""
        return self._replace(naive="", without="")

    def plan(self, seconds: float, seed: int) -> Plan:
        """A soak of so many ``seconds``."""
        return Plan(
            seconds,
            seed,
            clients=3,
            load=self.load,
            weather=self.weather,
            naive=self.naive,
            without=self.without,
            compares=self.compares,
            forks=self.forks,
            threads=self.threads,
        )


class Conviction(NamedTuple):
    """By what a control was convicted, after how many ``seconds``, and ``of`` what.

    That is None when it was not.
    """

    by: str
    seconds: float
    of: str | None


_LOST: Final = {"cut_after": 0.05}

CONTROLS: Final[dict[str, Control]] = {
    "redis-py, INCRBY": Control("redis", weather=_LOST, naive="incr"),
    "redis-py, GET then SET": Control("redis", naive="read, then write"),
    "boto3, compare and set": Control("dynamodb", weather=_LOST, naive="compare and set"),
    **{
        f"without {remedy}": control._replace(without=remedy)
        for remedy, control in {
            "receipts": Control("sqlite", "bounded", CUTS),
            "new horizon": Control("sqlite", "mortal", LATE),
            "monotone time": Control("sqlite"),
            "fork": Control("sqlite", forks=1.0),
            "sealed batches": Control("sqlite", "adds", CUTS, threads=4),
            "leaving": Control("redis", "adds", {"delay": 0.3}, threads=4),
            "definite": Control("sqlite", "adds", {"cut_after": 0.05, "refuse": 0.05}),
            "horizon": Control("sqlite", "mortal", LATE, compares=True),
            "since": Control("sqlite", "mortal", LATE),
            "same since": Control("sqlite", "mortal", LATE),
            "own receipt": Control("sqlite", "mortal", CUTS, compares=True),
            "running sums": Control("redis", "bounded", threads=6),
            "fences": Control("sqlite", "bounded", LATE),
            "fencing cancel": Control("sqlite", "adds", LATE),
            "retry goes on": Control("sqlite", "adds", LATE),
        }.items()
    },
}
"""Those that the harness convicts, by name."""

SIMULATED: Final = tuple(remedy for remedy in REMEDIES if f"without {remedy}" not in CONTROLS)
"""The remedies without which the simulation convicts."""


def convict(
    control: Control, *, seed: int = 1, rounds: Iterable[float] = (1, 2, 4, 8, 16)
) -> Conviction:
    """Soak ``control``, for longer from round to round, until it is convicted.

    Raises what `truecount.testing.soak.run.soak` does.
    """
    began = time.monotonic()
    for number, seconds in enumerate(rounds):
        with tempfile.TemporaryDirectory(prefix="truecount-control-") as folder:
            plan = control.plan(seconds, seed + number)
            found = soak(SITES[control.site], control.site, Path(folder), plan)
        if found.verdict.contradictions:
            return Conviction(
                "the checker", time.monotonic() - began, found.verdict.contradictions[0].text
            )
    return Conviction("the checker", time.monotonic() - began, None)


def simulate(remedy: str, *, first: int = 0, worlds: int = 60_000) -> Conviction:
    """Simulate worlds without ``remedy``, until one of them is in contradiction."""
    seeds = range(first, first + worlds)
    findings = explore(seeds, REMEDIES[remedy].world, until_violation=True)
    of = findings.violations[0][1] if findings.violations else None
    return Conviction("the simulation", findings.seconds, of)
