"""``python -m bench [NAME ...]``: measure, and write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.progress import Progress, TaskID

from bench import (
    apart,
    breakdown,
    checker,
    disks,
    fairness,
    many,
    memory,
    simpledb,
    simulated,
    single,
    started,
    startup,
)
from bench.page import DOCS, Section, report, write
from bench.peers import page as peers

MEASUREMENTS: dict[str, Callable[[Callable[[float], object]], Section]] = {
    **{f"on-{key}": partial(peers.section, key) for key in peers.ENGINES},
    "breakdown": breakdown.measure,
    "apart": apart.measure,
    "disks": disks.measure,
    "single": single.measure,
    "fairness": fairness.measure,
    "simpledb": simpledb.measure,
    "many": many.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "simulated": simulated.measure,
    "checker": checker.measure,
    "started": started.measure,  # the last: not every container allows it
}

PREFACE = """# Benchmarks

Every figure here was written by the command under it. Only the ratios carry
over to other machines: both sides were measured in the same run. `make bench`
measures all anew, and fails where a limit is missed.
"""


def main() -> int:
    """Measure what the command line names, or all; 1 when a limit was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    names = parser.parse_args().names or list(MEASUREMENTS)
    unknown = set(names) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    sections = []
    with Progress(console=Console(stderr=True)) as progress:
        for name in names:
            task = progress.add_task(name, total=1.0)
            advance = partial(_advance, progress, task)
            sections.append(MEASUREMENTS[name](advance))
            write(DOCS / "benchmarks.md", PREFACE, sections[-1:], "make bench")  # a later may fail
    return report(sections)


def _advance(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


if __name__ == "__main__":
    sys.exit(main())
