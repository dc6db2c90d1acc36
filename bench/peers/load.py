"""What one process does to a counter, and what came of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from array import array
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.pool import Pool
from typing import NamedTuple

from bench.peers import dynamodb, etcd, postgresql, redis, simpledb, sqlite
from bench.peers.model import OURS, Add, Contender, Engine, Place
from truecount import AsyncCounter

__all__ = ["ENGINES", "Load", "alternately", "in_tasks", "in_threads", "rate"]

ENGINES: dict[str, Engine] = {
    **sqlite.ENGINES,
    **postgresql.ENGINES,
    **redis.ENGINES,
    **dynamodb.ENGINES,
    **etcd.ENGINES,
    **simpledb.ENGINES,
}

PATIENCE = 30.0
"""Seconds after which a thread that is in an add still is left there."""


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
    waits = [array("d") for _ in range(threads)]
    warm: list[int] = []
    errors: Tally[str] = Tally()
    ready = threading.Barrier(threads)
    lock = threading.Lock()

    def failed(error: Exception) -> None:
        with lock:
            errors[type(error).__name__] += 1

    def work(taken: array[float]) -> None:
        add = None
        try:
            with lock:  # one by one: together, some contenders take minutes to begin
                add = session()("hot")
                add()
            warm.append(1)
        except Exception as error:  # whatever a client raises is counted
            failed(error)
        ready.wait(PATIENCE)
        time.sleep(max(0.0, start - time.time()))
        now = time.perf_counter()
        end = now + seconds
        while add is not None and now < end:
            try:
                add()
            except Exception as error:  # likewise
                failed(error)
                now = time.perf_counter()
                continue
            began, now = now, time.perf_counter()
            taken.append(now - began)

    with contender(engine, name).open(place) as session:
        workers = [threading.Thread(target=work, args=(taken,), daemon=True) for taken in waits]
        for worker in workers:
            worker.start()
        end = time.time() + PATIENCE
        for worker in workers:
            worker.join(max(0.0, end - time.time()))
        unfinished = sum(worker.is_alive() for worker in workers)
        if unfinished:
            errors["unfinished"] += unfinished
    together = array("d")
    for taken in waits:
        together.extend(taken)
    return Load([len(taken) for taken in waits], together, errors, len(warm), seconds)


def rate(
    pool: Pool, engine: str, name: str, places: Sequence[Place], threads: int, seconds: float
) -> float:
    """Adds a second of so many threads in a process of ``pool`` for each of ``places``."""
    start = time.time() + 0.5
    arguments = [(engine, name, place, threads, seconds, start) for place in places]
    loads = pool.starmap(in_threads, arguments, chunksize=1)
    return sum(sum(load.counts) for load in loads) / seconds


def alternately(
    engine: str, place: Place, counters: int, rounds: int, seconds: float
) -> dict[str, list[list[Load]]]:
    """All contenders in one thread, a moment each, round after round, so many seconds a moment.

    The machine's moods strike all alike then. Of several ``counters`` each is
    added to in its turn.
    """
    names = [f"n{number}" for number in range(counters)] if counters > 1 else ["hot"]
    loads: dict[str, list[list[Load]]] = {each.name: [] for each in ENGINES[engine].contenders}
    with ExitStack() as stack:
        turns: dict[str, Iterator[Add]] = {}
        for each in ENGINES[engine].contenders:
            add_to = stack.enter_context(each.open(place))()
            turns[each.name] = itertools.cycle([add_to(name) for name in names])
        for _ in range(rounds):
            for name, turn in turns.items():
                waits = array("d")
                began = now = time.perf_counter()
                while now < began + seconds:
                    next(turn)()
                    before, now = now, time.perf_counter()
                    waits.append(now - before)
                loads[name].append([Load([len(waits)], waits, Tally(), 0, now - began)])
    return loads


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
