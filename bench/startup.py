"""What importing truecount costs over a bare Python."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.page import Section, table

__all__ = ["measure"]

ROUNDS: Final = 40
MOST: Final = 0.040


def measure(advance: Callable[[float], object]) -> Section:
    """Start Python with and without the import, in turn; ``advance`` is told the share done."""
    programs = {"bare `python`": "pass", "`import truecount`": "import truecount"}
    times: dict[str, list[float]] = {name: [] for name in programs}
    _start("import truecount")  # compiles and caches the modules, as an installation does
    for number in range(ROUNDS):
        for name, program in programs.items():
            times[name].append(_start(program))
        advance((number + 1) / ROUNDS)
    bare, ours = times.values()
    extra = statistics.median(b - a for a, b in zip(bare, ours, strict=True))
    rows: list[tuple[str, str]] = [
        (name, f"{statistics.median(rounds) * 1000:.1f}") for name, rounds in times.items()
    ]
    rows.append(("more", f"{extra * 1000:.1f}"))
    text = f"A new interpreter, {ROUNDS} of each in turn, medians.\n\n" + table(["", "ms"], rows)
    failures = [f"the import costs {extra * 1000:.0f} ms"] if extra > MOST else []
    return Section("Importing", text, failures)


def _start(program: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return time.perf_counter() - began
