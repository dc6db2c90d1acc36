"""Many seeds, over several processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from truecount.testing.simulation.truth import Violation
from truecount.testing.simulation.world import World

__all__ = ["Findings", "explore"]

CHUNK: Final = 250


class Findings(NamedTuple):
    """What was found in how many worlds, in how many seconds."""

    worlds: int
    tally: Tally[str]
    violations: list[tuple[int, str]]  # the seed, and what went wrong
    seconds: float

    @property
    def rate(self) -> float:
        """Simulated calls per second."""
        return self.tally["calls"] / self.seconds


def explore(
    seeds: range,
    world: type[World] = World,
    *,
    processes: int | None = None,
    until_violation: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Findings:
    """Run the worlds that ``seeds`` make, and count what happens in them.

    ``processes``: how many share the work, by default one a processor.
    ``until_violation``: stop soon after the first. ``progress`` is called
    with the number of worlds done so far.
    """
    began = time.perf_counter()
    tally: Tally[str] = Tally()
    violations: list[tuple[int, str]] = []
    worlds = 0
    processes = processes or os.cpu_count() or 1
    for done, counted, found in _results(partial(_explore, world), _chunks(seeds), processes):
        worlds += done
        tally.update(counted)
        violations += found
        if progress is not None:
            progress(worlds)
        if violations and until_violation:
            break
    return Findings(worlds, tally, sorted(violations), time.perf_counter() - began)


_Result = tuple[int, Tally[str], list[tuple[int, str]]]


def _results(
    work: Callable[[range], _Result], chunks: Iterable[range], processes: int
) -> Iterator[_Result]:
    if processes == 1:
        yield from map(work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = iter(chunks)
        futures = [pool.submit(work, chunk) for chunk in islice(waiting, 2 * processes)]
        try:
            while futures:
                yield futures.pop(0).result()
                futures += [pool.submit(work, chunk) for chunk in islice(waiting, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _explore(world: type[World], seeds: range) -> _Result:
    tally: Tally[str] = Tally()
    violations = []
    for seed in seeds:
        try:
            tally.update(world(seed).run())
        except Violation as violation:
            violations.append((seed, str(violation)))
    return len(seeds), tally, violations


def _chunks(seeds: range) -> Iterator[range]:
    for start in range(0, len(seeds), CHUNK):
        yield seeds[start : start + CHUNK]
