"""Where the time of an add goes: what keeps the ratios to the peers from being higher."""

from __future__ import annotations

import os
import statistics
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.page import Section, table
from bench.peers.load import ENGINES
from bench.peers.model import OURS, Contender, Place
from bench.replay import ALONE, replayed
from truecount import Counter, Store, StoreWarning, connect

__all__ = ["measure"]

ROUNDS: Final = 60
CHUNK: Final = 20

THREADS: Final = 32
SECONDS: Final = 3.0
TURNS: Final = 1_000
"""Of each of them."""


class Cost(NamedTuple):
    """Of one add, in microseconds: on the clock, and of this thread on the processor."""

    wall: float
    processor: float


class Crowd(NamedTuple):
    """Of many threads: adds a second, adds a request, and the microseconds a request takes."""

    rate: float
    batch: float
    request: float


def measure(advance: Callable[[float], object]) -> Section:
    """Take adds apart, on every engine; ``advance`` is told the share done."""
    warnings.simplefilter("ignore", StoreWarning)
    alone: list[tuple[str, ...]] = []
    crowded = [_crowd_row("memory, in the process", "memory://breakdown")]
    keys = [key for key, engine in ENGINES.items() if len(engine.contenders) > 1]
    for done, key in enumerate(keys):
        engine = ENGINES[key]
        with engine.start(Path.cwd()) as place:
            contenders = [each for each in engine.contenders if each.name in (OURS, engine.bare)]
            replay = replayed(key)
            costs = _alone(contenders if replay is None else [*contenders, replay], place)
            crowded.append(_crowd_row(engine.title, place.url))
        alone.append(_alone_row(engine.title, costs[OURS], costs[engine.bare], costs.get(ALONE)))
        advance((done + 1) / len(keys))
    text = (
        "One thread, in microseconds an add. The processor's time is that of the calling thread: "
        "Python, the driver and the system calls. What is left of the clock's is the server's, the "
        "disk's and the network's. The request alone is that of an add, sent again and again by "
        "what sends it, with nothing of truecount's around it: the last column is the ratio to the "
        "bare statement that there would be then.\n\n"
        + table(
            (
                *("", "ours", "of it processor", "bare", "of it processor"),
                *("more", "of it processor", "the request alone", "at best"),
            ),
            alone,
        )
        + f"\n\n{THREADS} threads. While a request is on its way, threads of the same process wait "
        "for it; what an add takes besides is Python and the change from one thread to the next, "
        "one after the other under the interpreter's lock. A change alone is measured with threads "
        "that only wake the next and wait to be woken, the first after a pause as long as the "
        "request: if the others did no more than that, there would be as many adds a second as "
        "the column after it says. The last column is what the same threads make while all of "
        "them are held on one processor, as by `taskset`: nothing has to get from one processor to "
        "another then, neither the call to wake up nor what the last thread has touched.\n\n"
        + table(
            (
                *("", "adds a second", "adds a request", "a request, µs", "besides, µs an add"),
                *("a change alone, µs", "if there were only changes", "on one processor"),
            ),
            crowded,
        )
    )
    return Section("Where the time goes", text, [])


def _alone(contenders: list[Contender], place: Place) -> dict[str, Cost]:
    """What one thread's adds cost, in turn, round after round."""
    costs: dict[str, list[Cost]] = {each.name: [] for each in contenders}
    with ExitStack() as stack:
        adds = {each.name: stack.enter_context(each.open(place))()("hot") for each in contenders}
        for _ in range(1 + ROUNDS):
            for name, add in adds.items():
                processor, wall = time.thread_time(), time.perf_counter()
                for _ in range(CHUNK):
                    add()
                spans = time.perf_counter() - wall, time.thread_time() - processor
                costs[name].append(Cost(*(span / CHUNK * 1e6 for span in spans)))
    warm = {name: of[1:] for name, of in costs.items()}
    return {
        name: Cost(
            statistics.median(cost.wall for cost in of),
            statistics.median(cost.processor for cost in of),
        )
        for name, of in warm.items()
    }


def _in_crowd(url: str) -> Crowd:
    """What many threads do to one counter."""
    with connect(url) as store:
        counter = Counter("bench", "crowd", store=store)
        requests = array("d")
        _time(store, requests)
        counts = [0] * THREADS
        ready = threading.Barrier(THREADS + 1)

        def work(number: int) -> None:
            counter.add()
            ready.wait()
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                counter.add()
                counts[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        ready.wait()
        del requests[:]
        for worker in workers:
            worker.join()
        adds = sum(counts)
    return Crowd(adds / SECONDS, adds / len(requests), sum(requests) / len(requests) * 1e6)


@contextmanager
def _one_processor() -> Iterator[None]:
    """Hold this thread, and those that it starts, on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _time(store: Store, requests: array[float]) -> None:
    """Have the seconds that each request of ``store`` to write takes put into ``requests``."""

    def timed(request: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return request(*arguments, **options)
            finally:
                requests.append(time.perf_counter() - began)

        return call

    store.settle = timed(store.settle)  # type: ignore[method-assign]  # this very store's only
    store.replace = timed(store.replace)  # type: ignore[method-assign]  # likewise


def _turn(pause: float) -> float:
    """The microseconds in which one thread of many wakes the next, and waits to be woken.

    The first one pauses so many seconds before it does, which do not count.
    """
    gates = [threading.Lock() for _ in range(THREADS)]
    for gate in gates:
        gate.acquire()
    paused = 0.0

    def work(number: int) -> None:
        nonlocal paused
        for _ in range(TURNS):
            gates[number].acquire()
            if number == 0:
                began = time.perf_counter()
                time.sleep(pause)
                paused += time.perf_counter() - began
            gates[(number + 1) % THREADS].release()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    began = time.perf_counter()
    gates[0].release()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - began - paused) / (THREADS * TURNS) * 1e6


def _alone_row(title: str, ours: Cost, bare: Cost, request: Cost | None) -> tuple[str, ...]:
    more = Cost(ours.wall - bare.wall, ours.processor - bare.processor)
    figures = [f"{span:,.0f}" for cost in (ours, bare, more) for span in cost]
    if request is None:
        return title, *figures, "", ""
    return title, *figures, f"{request.wall:,.0f}", f"{bare.wall / request.wall:.2f}"


def _crowd_row(title: str, url: str) -> tuple[str, ...]:
    found = _in_crowd(url)
    with _one_processor():
        held = _in_crowd(url)
    besides = 1e6 / found.rate - found.request / found.batch
    turn = _turn(found.request / 1e6)
    at_best = 1e6 / (found.request / THREADS + turn)
    figures = f"{found.rate:,.0f}", f"{found.batch:.1f}", f"{found.request:,.0f}", f"{besides:.0f}"
    return title, *figures, f"{turn:.0f}", f"{at_best:,.0f}", f"{held.rate:,.0f}"
