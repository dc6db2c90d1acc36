"""What counters take in memory, and what they leave there."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.page import Section, table
from truecount import Counter, Domain, connect

__all__ = ["measure"]

HELD: Final = 1000
TOUCHED: Final = 100_000
MOST_BYTES: Final = 1024
MOST_LEFT: Final = 10
"""Bytes that a counter may leave behind: what does not grow is shared by them all."""


def measure(advance: Callable[[float], object]) -> Section:
    """Hold some, and touch many once; ``advance`` is told the share done."""
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        connect(f"sqlite:///{folder}/c.db?synchronous=normal") as store,
    ):
        domain = Domain("bench", store=store)
        domain.add({f"counter{number}": 1 for number in range(HELD)})
        Domain("bench", store=store)["warm"].add(1)
        names = [f"counter{number}" for number in range(HELD)]
        tracemalloc.start()
        before = _used()
        held = [Counter(domain, name) for name in names]
        for counter in held:
            counter.add(1)
        one = (_used() - before) / HELD
        del held, counter
        advance(0.1)
        after_some = _used()
        for number in range(TOUCHED):
            domain[f"touched{number}"].add(1)
            if number % 10_000 == 0:
                advance(0.1 + 0.9 * number / TOUCHED)
        left = (_used() - after_some) / TOUCHED
        tracemalloc.stop()
    failures = []
    if one > MOST_BYTES:
        failures.append(f"a Counter takes {one:,.0f} bytes, {MOST_BYTES:,} are allowed")
    if left > MOST_LEFT:
        failures.append(f"a counter leaves {left:,.0f} bytes behind")
    rows = [
        ("a `Counter` object that has added, beyond its name", f"{one:,.0f}"),
        (f"left behind by each of {TOUCHED:,} that were touched once", f"{left:,.1f}"),
    ]
    text = (
        "Counters on SQLite, as `tracemalloc` sees Python's memory; what SQLite caches of its "
        "file is its own.\n\n" + table(("", "bytes"), rows)
    )
    return Section("Memory", text, failures)


def _used() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
