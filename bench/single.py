"""One thread on SQLite, against the bare statement that does the same without the promises."""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.page import Section, table
from truecount import Counter

__all__ = ["measure"]

ROUNDS: Final = 400
CHUNK: Final = 25  # short enough that the machine's moods strike all alike

LEAST: Final = {"`add(1)`": 0.85, "`c += 1`": 0.80}
"""The ratios below which the benchmark fails, with ``synchronous=FULL``."""


def measure(advance: Callable[[float], object]) -> Section:
    """Compare, with and without waiting for the disk; ``advance`` is told the share done."""
    rows = []
    failures = []
    for done, synchronous in enumerate(("full", "normal")):
        medians, ratios = _compare(synchronous)
        advance((done + 1) / 2)
        for name, seconds in medians.items():
            ratio = f"{ratios[name]:.2f}" if name in ratios else ""
            rows.append((name, synchronous, f"{seconds * 1e6:.1f}", f"{1 / seconds:,.0f}", ratio))
            if synchronous == "full" and ratios.get(name, 1) < LEAST.get(name, 0):
                failures.append(
                    f"{name} reaches {ratio} of the bare statement, {LEAST[name]} wanted"
                )
    text = (
        "One thread adds 1 to one counter and gets the new value. The bare statement is "
        "`UPDATE … SET value = value + 1 … RETURNING value` through `sqlite3`, autocommit, with "
        f"the same pragmas. They take turns, {CHUNK} at a time, {ROUNDS} rounds; the time is the "
        "median of the rounds, the ratio that of the rates, round by round.\n\n"
        + table(["", "synchronous", "µs", "a second", "ratio"], rows)
    )
    return Section("One thread on SQLite", text, failures)


def _compare(synchronous: str) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        url = f"sqlite:///{folder}/counters.db?synchronous={synchronous}"
        counter = Counter("mydomain", "counter1", store=url)
        bare = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute(f"PRAGMA synchronous={synchronous}")
        bare.execute("CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER)")
        bare.execute("INSERT INTO counters VALUES ('counter1', 0)")
        statement = "UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value"

        def add_bare() -> None:
            bare.execute(statement, ("counter1",)).fetchall()

        def add() -> None:
            counter.add(1)

        def in_place() -> None:
            nonlocal counter
            counter += 1

        contenders = {"bare statement": add_bare, "`add(1)`": add, "`c += 1`": in_place}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        orders = itertools.cycle(itertools.permutations(contenders.items()))
        for order in itertools.islice(orders, ROUNDS):
            for name, contender in order:
                began = time.perf_counter()
                for _ in range(CHUNK):
                    contender()
                times[name].append((time.perf_counter() - began) / CHUNK)
        total = counter.refresh()
        assert total == 2 * ROUNDS * CHUNK, total
        counter.store.close()
        bare.close()
    first, *others = times.values()
    names = list(times)[1:]
    ratios = {
        name: statistics.median(a / b for a, b in zip(first, other, strict=True))
        for name, other in zip(names, others, strict=True)
    }
    return {name: statistics.median(rounds) for name, rounds in times.items()}, ratios
