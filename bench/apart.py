"""Processes that do not meet: what keeps several on one counter from being faster.

Where those that have a counter each, and on SQLite a file each, are no faster
than so many times the peer, those that share one cannot be.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.page import Section, table
from bench.peers.load import ENGINES, rate
from bench.peers.measure import PROCESSES, quiet
from bench.peers.model import OURS, Place

__all__ = ["measure"]

ROUNDS: Final = 5
SECONDS: Final = 2.0
THREADS: Final = 8
KEYS: Final = ("sqlite", "redis", "redis-memory")


def measure(advance: Callable[[float], object]) -> Section:
    """Have them count apart, together, and as the peer does, in turn."""
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for done, key in enumerate(KEYS):
        engine = ENGINES[key]
        with engine.start(Path.cwd()) as place, spawn.Pool(PROCESSES, quiet) as pool:
            places = [place] * PROCESSES
            own = [_apart(place, number) for number in range(PROCESSES)]
            rates: list[tuple[float, ...]] = []
            for _ in range(ROUNDS):
                apart = rate(pool, key, OURS, own, THREADS, SECONDS)
                shared = rate(pool, key, OURS, places, THREADS, SECONDS)
                bare = rate(pool, key, engine.bare, places, THREADS, SECONDS)
                rates.append((apart, shared, bare, apart / bare, shared / bare))
        *each, most, now = map(statistics.median, zip(*rates, strict=True))
        rows.append((engine.title, *(f"{n:,.0f}" for n in each), f"{most:.2f}", f"{now:.2f}"))
        advance((done + 1) / len(KEYS))
    text = (
        f"{PROCESSES} processes of {THREADS} threads add 1 as fast as they can: truecount's to a "
        "counter of their own each, which on SQLite is in a file of its own, so that no process "
        "waits for another; then to one counter; and the bare statement's to one, in turn, "
        f"{ROUNDS} rounds of {SECONDS:.0f} s; medians, and those of the ratios, round by round.\n\n"
        + table(
            (
                *("", "a counter each, adds a second", "one counter", "one, bare statement"),
                *("each / bare", "one / bare"),
            ),
            rows,
        )
    )
    return Section("Processes that do not meet", text, [])


def _apart(place: Place, number: int) -> Place:
    """A place of which nobody else knows."""
    path, _, query = place.url.partition("?")
    if place.port:
        return place._replace(url=f"{path}?{query}&prefix=apart{number}")
    return place._replace(url=f"{path}{number}?{query}")
