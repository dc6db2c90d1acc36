"""Several processes on one counter: how much, how evenly, and the longest wait."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.load import race
from bench.page import Section, table
from truecount import Counter

__all__ = ["measure"]

SECONDS: Final = 5.0
PROCESSES: Final = 4
THREADS: Final = (1, 8)

LEAST_SHARE: Final = 0.5  # of the mean, for the slowest process
LONGEST_WAIT: Final = 0.5


def measure(advance: Callable[[float], object]) -> Section:
    """Let them race; ``advance`` is told the share done."""
    rows = []
    failures = []
    for done, threads in enumerate(THREADS):
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            url = f"sqlite:///{folder}/counters.db"
            loads = race(url, SECONDS, PROCESSES, threads)
            sums = [sum(load.counts) for load in loads]
            total = sum(sums)
            counter = Counter("mydomain", "hot", store=url)
            value = counter.value
            counter.store.close()
        share = min(sums) / (total / PROCESSES)
        longest = max(load.longest for load in loads)
        rows.append(
            (
                f"{PROCESSES} processes of {threads}",
                f"{total / SECONDS:,.0f}",
                f"{share:.2f}",
                f"{longest * 1000:.0f}",
            )
        )
        if value != total:
            failures.append(f"{total} adds made {value}")
        if share < LEAST_SHARE:
            failures.append(f"the slowest process got {share:.2f} of the mean")
        if longest > LONGEST_WAIT:
            failures.append(f"an add took {longest:.2f} s")
        advance((done + 1) / len(THREADS))
    text = (
        f"Processes, each of so many threads, add 1 to one counter as fast as they can for "
        f"{SECONDS:.0f} s, `synchronous=FULL`. The value at the end is the number of adds.\n\n"
        + table(["", "adds a second", "slowest process / mean", "longest add, ms"], rows)
    )
    return Section("Several processes on SQLite", text, failures)
