"""How fast the simulation goes, on which the proof at length depends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.page import Section, table
from truecount.testing.simulation import explore

__all__ = ["measure"]

SEEDS: Final = 20_000
LEAST_RATE: Final = 50_000


def measure(advance: Callable[[float], object]) -> Section:
    """Simulate; ``advance`` is told the share done."""
    findings = explore(range(SEEDS), progress=lambda done: advance(done / SEEDS))
    rows = [
        ("worlds", f"{findings.worlds:,}"),
        ("calls", f"{findings.tally['calls']:,}"),
        ("requests", f"{findings.tally['requests']:,}"),
        ("worlds in contradiction", len(findings.violations)),
        ("calls a second", f"{findings.rate:,.0f}"),
    ]
    text = (
        "Simulated worlds of several processes on one counter, in which requests are lost, late "
        "and repeated, all processors sharing the seeds.\n\n" + table(["", ""], rows)
    )
    failures = []
    if findings.rate < LEAST_RATE:
        failures.append(f"{findings.rate:,.0f} simulated calls a second")
    if findings.violations:
        failures.append(f"seed {findings.violations[0][0]}: {findings.violations[0][1]}")
    return Section("The simulation", text, failures)
