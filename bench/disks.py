"""What the ratios become on disks that take longer to sync."""

from __future__ import annotations

import multiprocessing
import operator
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

from bench import many
from bench.page import Section, table
from bench.peers.load import ENGINES, alternately, in_tasks, rate
from bench.peers.measure import PROCESSES, TASKS, quiet, sync_rate
from bench.peers.model import OURS, Engine, Place
from bench.peers.page import ALONE, CROWDED, SEVERAL, SYNCS
from truecount import connect

__all__ = ["measure"]

KEYS: Final = ("sqlite", "postgresql", "redis")

SPANS: Final = (0, 250, 1000)
"""Microseconds that a sync takes at least."""

ROUNDS: Final = 5
SECONDS: Final = 1.0
MOMENTS: Final = 50
"""How often those of one thread take turns in a round."""

MANY_ROUNDS: Final = 3
THREADS: Final = 32
THREADS_EACH: Final = 8
"""Of several processes."""


class Ratios(NamedTuple):
    """Of one round."""

    alone: float
    crowded: float
    several: float
    tasks: float | None


def measure(advance: Callable[[float], object]) -> Section:
    """Have them count on this disk, and on slower ones."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        library = _compiled(Path(folder))
        for done, key in enumerate(KEYS):
            for span in SPANS:
                slow = {"LD_PRELOAD": str(library), "SLOW_DISK": str(span)}
                with patch.dict(os.environ, slow):  # for the processes that are started
                    rows.append((ENGINES[key].title, *_on_disk(key)))
            goals = [least.get(key) for least in (ALONE, CROWDED, SEVERAL, SYNCS)]
            goals.append(many.LEAST.get(ENGINES[key].title))
            rows.append((ENGINES[key].title, "at least", *(_shown(goal, "g") for goal in goals)))
            advance((done + 1) / len(KEYS))
    text = (
        "Where the peer mostly waits for the disk, and truecount spares it that, the ratio hangs "
        "on which of the two is slow: the disk, or Python. So the same is measured where the disk "
        "takes longer to sync: a preloaded library has every sync take so long at least, ours and "
        f"the bare statement's in turn. {ROUNDS} rounds of {SECONDS:.0f} s; medians of the ratios "
        "to the bare statement, round by round; the tasks are compared with the disk's own rate, "
        "`Domain.add` with a loop by name.\n\n"
        + table(
            (
                *("", "a sync, µs", "1 thread", f"{THREADS} threads"),
                f"{PROCESSES} processes of {THREADS_EACH}",
                *(f"{TASKS:,} tasks", f"`Domain.add` of {many.COUNTERS:,}"),
            ),
            rows,
        )
    )
    return Section("Slower disks", text, [])


def _compiled(folder: Path) -> Path:
    """The library that makes disks slow, where servers find it that run as another user."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("`bench disks` needs a C compiler: apt-get install gcc libc6-dev")
    folder.chmod(0o755)
    library = folder / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def _on_disk(key: str) -> list[str]:
    """What a sync takes, in microseconds, and the ratios."""
    engine = ENGINES[key]
    spawn = multiprocessing.get_context("spawn")
    with engine.start(Path.cwd()) as place, spawn.Pool(PROCESSES, quiet) as pool:
        rates, rounds = [], []
        for _ in range(ROUNDS):
            syncs = pool.apply(sync_rate, (Path(place.folder or "."),))
            rates.append(syncs)
            rounds.append(_round(key, engine, place, pool, syncs))
        at_once = pool.apply(_many, (place,)) if engine.title in many.LEAST else None
    columns = zip(*rounds, strict=True)
    medians = [None if None in column else statistics.median(column) for column in columns]
    return [
        f"{1e6 / statistics.median(rates):,.0f}",
        *(_shown(ratio, ".2f") for ratio in (*medians, at_once)),
    ]


def _round(key: str, engine: Engine, place: Place, pool: Pool, syncs: float) -> Ratios:
    """One round of ours and the bare statement in turn, on a disk that syncs so often a second."""
    loads = pool.apply(alternately, (key, place, 1, MOMENTS, SECONDS / MOMENTS))

    def adds(name: str) -> tuple[float, float, float]:
        return (
            sum(load.total / load.seconds for (load,) in loads[name]),
            rate(pool, key, name, [place], THREADS, SECONDS),
            rate(pool, key, name, [place] * PROCESSES, THREADS_EACH, SECONDS),
        )

    alone, crowded, several = map(operator.truediv, adds(OURS), adds(engine.bare))
    tasks = None
    if key in SYNCS:
        load = pool.apply(in_tasks, (key, OURS, place, TASKS, SECONDS))
        tasks = load.total / load.seconds / syncs
    return Ratios(alone, crowded, several, tasks)


def _shown(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def _many(place: Place) -> float:
    """How many times as fast as a loop by name `Domain.add` is."""
    with connect(place.url) as store:
        together, _, by_name = many.times(store, MANY_ROUNDS)
    ratio: float = statistics.median(map(operator.truediv, by_name, together))
    return ratio
