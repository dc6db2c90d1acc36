"""When who counts: all contenders in turn, round after round."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import warnings
from array import array
from collections import Counter as Tally
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.load import ENGINES, Load, alternately, in_tasks, in_threads
from bench.peers.model import OURS, Contender, Engine, Place
from truecount import Domain, StoreWarning, connect
from truecount.testing.proxy import Proxy

__all__ = [
    "PROCESSES",
    "TASKS",
    "THREADS",
    "Case",
    "Figures",
    "Found",
    "measure",
    "quiet",
    "sync_rate",
]

ROUNDS: Final = 5
SECONDS: Final = 1.0
ALONE_ROUNDS: Final = 300
ALONE_SECONDS: Final = 0.015

THREADS: Final = (1, 8, 32, 128)
PROCESSES: Final = 4
IN_PROCESSES: Final = (1, 8)
IN_PROCESSES_SECONDS: Final = 2.0  # in less, it is chance who gets how much
TASKS: Final = 1000
COUNTERS: Final = 10_000
WIRED: Final = (1, 32)
"""Threads whose requests are counted."""


class Case(NamedTuple):
    """How many add: so many processes of so many threads; or tasks; or to how many counters."""

    processes: int = 1
    threads: int = 1
    tasks: int = 0
    counters: int = 1

    def __str__(self) -> str:
        if self.tasks:
            return f"{self.tasks:,} asyncio tasks"
        if self.counters > 1:
            return f"{self.counters:,} counters in turn"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return threads if self.processes == 1 else f"{self.processes} processes × {self.threads}"


class Figures(NamedTuple):
    """What one contender did in one case, all rounds together, times in microseconds."""

    rates: list[float]
    median: float
    high: float  # the 99th of a hundred
    share: float  # of the mean, that the slowest thread or process got
    errors: Tally[str]
    exact: bool

    @property
    def rate(self) -> float:
        """Adds a second, in the median round."""
        return statistics.median(self.rates)

    def over(self, other: Figures) -> float:
        """How many times as fast as ``other``: the median of the rounds."""
        pairs = zip(self.rates, other.rates, strict=True)
        return statistics.median(ours / max(theirs, 1e-9) for ours, theirs in pairs)


class Found(NamedTuple):
    """What was found on one engine.

    ``requests`` are those an add took, by contender and threads; ``syncs``
    what the disk does by itself, a second, round by round.
    """

    engine: Engine
    figures: dict[tuple[Case, str], Figures]
    requests: dict[tuple[int, str], float]
    syncs: list[float]


def measure(key: str, advance: Callable[[float], object]) -> Found:
    """Have all contenders on the engine count; ``advance`` is told the share done."""
    warnings.simplefilter("ignore", StoreWarning)
    engine = ENGINES[key]
    cases = [Case(threads=threads) for threads in THREADS]
    cases += [Case(PROCESSES, threads) for threads in IN_PROCESSES]
    cases += [Case(counters=COUNTERS)]
    if key in ("sqlite", "redis", "redis-memory"):
        cases += [Case(tasks=TASKS)]
    figures: dict[tuple[Case, str], Figures] = {}
    syncs: list[float] = []
    requests = {}
    spawn = multiprocessing.get_context("spawn")
    with engine.start(Path.cwd()) as place, spawn.Pool(PROCESSES, quiet) as pool:
        run = _Run(key, place, pool)
        for done, case in enumerate(cases):
            contenders = [each for each in engine.contenders if _counts(each, case)]
            loads: dict[str, list[list[Load]]] = {each.name: [] for each in contenders}
            before = {each.name: run.value(each) for each in contenders}
            run.prepare(case)
            if case == Case():
                loads = alternately(key, place, 1, ALONE_ROUNDS, ALONE_SECONDS)
            elif case.counters > 1:
                loads = alternately(key, place, case.counters, ROUNDS, SECONDS)
            else:
                for _ in range(ROUNDS):
                    if case.tasks:
                        syncs.append(sync_rate(Path(place.folder or ".")))
                    for each in contenders:
                        loads[each.name].append(run.round(each, case))
            for each in contenders:
                total = sum(load.total for rounds in loads[each.name] for load in rounds)
                moved = run.value(each) - before[each.name]
                exact = case.counters > 1 or moved == total
                figures[case, each.name] = _figures(loads[each.name], exact=exact)
            advance((done + 1) / (len(cases) + 1))
        if place.port:
            for each in engine.contenders:
                for threads in WIRED:
                    requests[threads, each.name] = run.requests(each, threads)
    advance(1)
    return Found(engine, figures, requests, syncs)


def quiet() -> None:
    """Have a process of a pool not warn of settings that are chosen for the comparison."""
    warnings.simplefilter("ignore", StoreWarning)


def _counts(contender: Contender, case: Case) -> bool:
    """Whether it takes part in the case."""
    return not case.tasks or contender.name == OURS or contender.asyncio is not None


class _Run:
    """Rounds on one engine."""

    def __init__(self, key: str, place: Place, pool: Pool) -> None:
        self.key = key
        self.place = place
        self.pool = pool

    def value(self, contender: Contender) -> int:
        """What the hot counter has come to, which may not be there yet."""
        try:
            return contender.read(self.place, "hot")
        except Exception:  # every client has its own error for what is not there
            return 0

    def prepare(self, case: Case) -> None:
        """Create our counters, many at once."""
        if case.counters > 1 and self.place.url:
            with connect(self.place.url) as store:
                Domain("bench", store=store).add(
                    {f"n{number}": 0 for number in range(case.counters)}, timeout=None
                )

    def round(self, contender: Contender, case: Case) -> list[Load]:
        """One round: what each process did."""
        if case.tasks:
            return [in_tasks(self.key, contender.name, self.place, case.tasks, SECONDS)]
        if case.processes == 1:
            return [in_threads(self.key, contender.name, self.place, case.threads, SECONDS, 0)]
        start = time.time() + 0.5
        seconds = IN_PROCESSES_SECONDS
        arguments = (self.key, contender.name, self.place, case.threads, seconds, start)
        return self.pool.starmap(in_threads, [arguments] * case.processes, chunksize=1)

    def requests(self, contender: Contender, threads: int) -> float:
        """How many requests an add takes, counted at the wire."""
        with Proxy(self.place.port) as proxy:
            start = time.time() + 1
            opening: list[int] = []
            timer = threading.Timer(1, lambda: opening.append(proxy.requests))
            timer.start()
            place = self.place.at(proxy.port)
            load = in_threads(self.key, contender.name, place, threads, SECONDS, start)
            timer.join()
            return (proxy.requests - opening[0]) / max(sum(load.counts), 1)


def _figures(rounds: list[list[Load]], *, exact: bool) -> Figures:
    """What came of all rounds, each of so many processes."""
    waits = array("d")
    errors: Tally[str] = Tally()
    rates, shares = [], []
    for loads in rounds:
        for load in loads:
            waits.extend(load.waits)
            errors.update(load.errors)
        # Of several processes each is one; of one, each of its threads.
        counts = loads[0].counts if len(loads) == 1 else [sum(load.counts) for load in loads]
        rates.append(sum(sum(load.counts) for load in loads) / loads[0].seconds)
        shares.append(min(counts) / max(statistics.mean(counts), 1e-9))
    ordered = sorted(waits) or [float("nan")]
    median, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return Figures(rates, median * 1e6, high * 1e6, statistics.median(shares), errors, exact)


def sync_rate(folder: Path) -> float:
    """How often a second the disk under ``folder`` takes a block of 4 KiB that must stay there."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        count = 0
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS / 2:
            os.pwrite(file.fileno(), os.urandom(4096), 0)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)
