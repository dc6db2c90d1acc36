"""What one process does to a counter, and what came of it."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections import Counter as Tally
from contextlib import ExitStack
from typing import NamedTuple

from bench.peers import dynamodb, etcd, postgresql, redis, simpledb, sqlite
from bench.peers.model import OURS, Contender, Engine, Place
from truecount import AsyncCounter

__all__ = ["ENGINES", "Load", "alternately", "in_tasks", "in_threads", "in_turn"]

ENGINES: dict[str, Engine] = {
    **sqlite.ENGINES,
    **postgresql.ENGINES,
    **redis.ENGINES,
    **dynamodb.ENGINES,
    **etcd.ENGINES,
    **simpledb.ENGINES,
}

PATIENCE = 120.0


class Load(NamedTuple):
    """What came of it: adds of each thread, the seconds each add took, errors by name.

    ``warm`` adds came before those, and count too; ``seconds`` is how long it took.
    """

    counts: list[int]
    waits: array[float]
    errors: Tally[str]
    warm: int
    seconds: float

    @property
    def total(self) -> int:
        """How many adds were answered."""
        return sum(self.counts) + self.warm


def contender(engine: str, name: str) -> Contender:
    """The contender of that name."""
    return next(each for each in ENGINES[engine].contenders if each.name == name)


def in_threads(
    engine: str, name: str, place: Place, threads: int, seconds: float, start: float
) -> Load:
    """Add as fast as so many threads can, for so long, beginning at ``start`` (of time.time)."""
    counts: list[int] = []
    waits: list[array[float]] = []
    errors: Tally[str] = Tally()
    ready = threading.Barrier(threads)
    lock = threading.Lock()

    def work() -> None:
        taken = array("d")
        warm = 0
        try:
            add = session()("hot")
            add()
            warm = 1
        except Exception as error:
            with lock:
                errors[type(error).__name__] += 1
            add = None
        ready.wait(PATIENCE)
        time.sleep(max(0.0, start - time.time()))
        now = time.perf_counter()
        end = now + seconds
        while add is not None and now < end:
            try:
                add()
            except Exception as error:
                with lock:
                    errors[type(error).__name__] += 1
                now = time.perf_counter()
                continue
            began, now = now, time.perf_counter()
            taken.append(now - began)
        with lock:
            counts.append(len(taken))
            waits.append(taken)
            warmed.append(warm)

    warmed: list[int] = []
    with contender(engine, name).open(place) as session:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    together = array("d")
    for taken in waits:
        together.extend(taken)
    return Load(counts, together, errors, sum(warmed), seconds)


def alternately(
    engine: str, place: Place, rounds: int, seconds: float
) -> dict[str, list[list[Load]]]:
    """All contenders in one thread, a moment each, round after round, so many seconds a moment.

    The machine's moods strike all alike then.
    """
    loads: dict[str, list[list[Load]]] = {each.name: [] for each in ENGINES[engine].contenders}
    with ExitStack() as stack:
        adds = {
            each.name: stack.enter_context(each.open(place))()("hot")
            for each in ENGINES[engine].contenders
        }
        for _ in range(rounds):
            for name, add in adds.items():
                waits = array("d")
                began = now = time.perf_counter()
                while now < began + seconds:
                    add()
                    before, now = now, time.perf_counter()
                    waits.append(now - before)
                loads[name].append([Load([len(waits)], waits, Tally(), 0, now - began)])
    return loads


def in_turn(engine: str, name: str, place: Place, counters: int, seconds: float) -> Load:
    """Add to so many counters in turn, in one thread, once each and then for so long."""
    waits = array("d")
    with contender(engine, name).open(place) as session:
        add_to = session()
        adds = [add_to(f"n{number}") for number in range(counters)]
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            for add in adds:
                add()
                began, now = now, time.perf_counter()
                waits.append(now - began)
                if now >= end:
                    break
    return Load([len(waits)], waits, Tally(), 0, seconds)


def in_tasks(engine: str, name: str, place: Place, tasks: int, seconds: float) -> Load:
    """Add as fast as so many tasks of one event loop can, for so long."""
    counts: list[int] = []
    waits = array("d")
    errors: Tally[str] = Tally()

    async def main() -> float:
        if name == OURS:
            counter = await AsyncCounter.open("bench", "hot", store=place.url)
            return await race(counter.add)
        asyncio_of = contender(engine, name).asyncio
        assert asyncio_of is not None
        with asyncio_of(place, "hot") as add:
            return await race(add)

    async def race(add: object) -> float:
        began = time.perf_counter()
        end = began + seconds

        async def task() -> None:
            count = 0
            now = time.perf_counter()
            while now < end:
                try:
                    await add()  # type: ignore[operator]
                except Exception as error:
                    errors[type(error).__name__] += 1
                    now = time.perf_counter()
                    continue
                before, now = now, time.perf_counter()
                waits.append(now - before)
                count += 1
            counts.append(count)

        await asyncio.gather(*[task() for _ in range(tasks)])
        return time.perf_counter() - began

    took = asyncio.run(main())
    return Load(counts, waits, errors, 0, took)
