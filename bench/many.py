"""``Domain.add`` of many counters, against a loop of single adds."""

from __future__ import annotations

import operator
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from bench.page import Section, table
from truecount import Counter, Domain, Store, StoreWarning, connect
from truecount.testing.servers import Etcd, PostgreSQL, Redis

__all__ = ["COUNTERS", "LEAST", "measure", "times"]

COUNTERS: Final = 1000
ROUNDS: Final = 9

LEAST: Final = {"SQLite, synchronous=FULL": 20.0, "PostgreSQL": 20.0}
"""How many times as fast as a loop by name it must be."""


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        yield f"sqlite:///{folder}/counters.db"


@contextmanager
def _server(start: Callable[[], PostgreSQL | Redis | Etcd]) -> Iterator[str]:
    with start() as server:
        yield server.store


STORES: Final[dict[str, Callable[[], AbstractContextManager[str]]]] = {
    "SQLite, synchronous=FULL": _sqlite,
    "PostgreSQL": lambda: _server(PostgreSQL),
    "Redis, appendfsync always": lambda: _server(Redis),
    "etcd, one member": lambda: _server(Etcd),
}


def measure(advance: Callable[[float], object]) -> Section:
    """Compare on each store; ``advance`` is told the share done."""
    warnings.simplefilter("ignore", StoreWarning)
    rows = []
    failures = []
    for done, (name, start) in enumerate(STORES.items()):
        with start() as url, connect(url) as store:
            together, alone, by_name = times(store, ROUNDS)
        ratio = statistics.median(map(operator.truediv, by_name, together))
        held = statistics.median(map(operator.truediv, alone, together))
        medians = [f"{statistics.median(t) * 1000:.1f}" for t in (together, alone, by_name)]
        rows.append((name, *medians, f"{held:.1f}", f"{ratio:.1f}"))
        if ratio < LEAST.get(name, 0):
            failures.append(f"{name}: Domain.add {ratio:.1f} × a loop, {LEAST[name]:.0f} wanted")
        advance((done + 1) / len(STORES))
    heads = ("", "`Domain.add`", "`c.add(1)` each", "`d[name].add(1)` each", "× `c`", "× `d[name]`")
    text = (
        f"One thread adds 1 to each of {COUNTERS:,} counters that exist: with one call of "
        "`Domain.add`, through counters that it holds, or by name, as `Domain.add` does. In turn, "
        f"{ROUNDS} rounds; medians, in milliseconds; and those of the ratios, round by round.\n\n"
        + table(heads, rows)
    )
    return Section("Many counters at once", text, failures)


def times(store: Store, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds that `Domain.add` takes, a loop of adds, and one by name; of so many rounds."""
    domain = Domain("many", store=store)
    amounts = {f"counter{number}": 1 for number in range(COUNTERS)}
    domain.add(amounts)
    held = [Counter(domain, name) for name in amounts]

    def by_name() -> None:
        for name in amounts:
            domain[name].add(1)

    def each() -> None:
        for counter in held:
            counter.add(1)

    def together() -> None:
        domain.add(amounts)

    contenders = (together, each, by_name)
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(rounds):
        for contender, taken in zip(contenders, times, strict=True):
            began = time.perf_counter()
            contender()
            taken.append(time.perf_counter() - began)
    assert set(domain.snapshot().values()) == {1 + 3 * rounds}
    return times
