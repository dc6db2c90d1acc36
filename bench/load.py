"""What a process does that adds as fast as it can."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import NamedTuple

from truecount import Counter

__all__ = ["Load", "add_for", "race"]


class Load(NamedTuple):
    """What one process did: how often each of its threads added, and the longest wait."""

    counts: list[int]
    longest: float


def add_for(url: str, seconds: float, threads: int) -> Load:
    """Add to one counter for so long, from so many threads."""
    counter = Counter("mydomain", "hot", store=url)
    end = time.monotonic() + seconds
    counts: list[int] = []
    waits: list[float] = []

    def add() -> None:
        count, longest = 0, 0.0
        while (began := time.monotonic()) < end:
            counter.add(1)
            longest = max(longest, time.monotonic() - began)
            count += 1
        counts.append(count)
        waits.append(longest)

    workers = [threading.Thread(target=add) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Load(counts, max(waits))


def race(url: str, seconds: float, processes: int, threads: int) -> list[Load]:
    """Have so many processes add at once, none of which begins before all are there."""
    Counter("mydomain", "hot", store=url)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, initializer=_start, initargs=(barrier,)) as pool:
        return pool.starmap(add_for, [(url, seconds, threads)] * processes, chunksize=1)


def _start(barrier: threading.Barrier) -> None:
    barrier.wait(60)
