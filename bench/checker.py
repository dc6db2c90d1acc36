"""How long the checker takes over a long history."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.histories import Mix, write_history
from bench.page import Section, table

__all__ = ["measure"]

LINES: Final = 10_000_000
PROCESSES: Final = 8
CLIENTS: Final = 4
LONGEST: Final = 180.0
GIBIBYTES: Final = 6.0

USUAL: Final = Mix(
    add=50,
    keyed=10,
    assign=8,
    compare_and_set=3,
    set=2,
    update=4,
    reserve=5,
    many=3,
    limit=1,
    delete=0.2,
    refresh=10,
    receipt=2,
    settle=2,
    lost=0.003,
    killed=0.00002,
    late=0.003,
)
"""As a run under faults is: less than one call in a hundred is unknown."""


def measure(advance: Callable[[float], object]) -> Section:
    """Write a history and judge it; ``advance`` is told the share done."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        write_history(
            Path(folder),
            LINES,
            processes=PROCESSES,
            clients=CLIENTS,
            mix=USUAL,
            progress=lambda share: advance(share / 2),
        )
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "truecount", "check", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
    gibibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    verdict = done.stdout.partition("\n")[0]
    rows = [
        ("lines", f"{LINES:,}"),
        ("bytes", f"{size:,}"),
        ("seconds", f"{seconds:.0f}"),
        ("lines a second", f"{LINES / seconds:,.0f}"),
        ("memory of a process, GiB", f"{gibibytes:.1f}"),
    ]
    text = (
        f"`truecount check`, which takes a process a processor: {verdict}. The history is a "
        f"model's, of {PROCESSES} processes of {CLIENTS} clients at a time, with what is lost, "
        "killed, repeated and settled in it.\n\n" + table(["", ""], rows)
    )
    failures = []
    if done.returncode:
        failures.append(f"the checker says: {done.stdout or done.stderr}")
    if seconds > LONGEST:
        failures.append(f"the checker took {seconds:.0f} s")
    if gibibytes > GIBIBYTES:
        failures.append(f"the checker took {gibibytes:.1f} GiB")
    return Section("The checker", text, failures)
