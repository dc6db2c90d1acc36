"""How several processes were started, and where they run.

What keeps them from being faster is mostly that none finds its own code and data
in the processors' caches when it is its turn. Those that are forked from one that
has loaded everything share them, at the same addresses, by which a processor also
foresees branches; those started anew have other ones each, unless the system is told
not to choose them at random. Those that are held on a processor each bring along less
from the other one.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.pool import Pool
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

from bench.page import Section, table
from bench.peers import etcd
from bench.peers.load import ENGINES, rate
from bench.peers.measure import PROCESSES, quiet
from bench.peers.model import OURS, Place

__all__ = ["measure"]

ROUNDS: Final = 5
SECONDS: Final = 1.5
THREADS: Final = 8
NOT_AT_RANDOM: Final = 0x0040000
"""``ADDR_NO_RANDOMIZE``, of personality(2)."""

RIVALS: Final = {
    **{key: ENGINES[key].bare for key in ("sqlite", "redis", "redis-memory")},
    "etcd": etcd.LOCKED,
}
"""The best peer, by engine."""


def measure(advance: Callable[[float], object]) -> Section:
    """Have them count, started and held in each way, in turn with the best peer."""
    anew = multiprocessing.get_context("spawn")
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["bench.peers.load"])
    started = anew.Value("i", 0)
    ways: dict[str, Callable[[], Pool]] = {
        "each started anew": lambda: anew.Pool(PROCESSES, quiet),
        "and all at the same addresses": lambda: _alike(lambda: anew.Pool(PROCESSES, quiet)),
        "each started anew, and held on a processor, in turn": lambda: anew.Pool(
            PROCESSES, _hold, (started,)
        ),
        "forked from one that has loaded all": lambda: forked.Pool(PROCESSES, quiet),
        "and held": lambda: forked.Pool(PROCESSES, _hold, (started,)),
    }
    rows = []
    for done, (key, rival) in enumerate(RIVALS.items()):
        with ENGINES[key].start(Path.cwd()) as place, ExitStack() as stack:
            pools = [stack.enter_context(start()) for start in ways.values()]
            rounds = [
                [figure for pool in pools for figure in _round(pool, key, place)]
                for _ in range(ROUNDS)
            ]
        medians = map(statistics.median, zip(*rounds, strict=True))
        shown = [f"{adds:,.0f}, {ratio:.2f}" for adds, ratio in zip(medians, medians, strict=True)]
        rows.append((ENGINES[key].title, rival, *shown))
        advance((done + 1) / len(RIVALS))
    text = (
        f"{PROCESSES} processes of {THREADS} threads add 1 to one counter as fast as they can, in "
        f"turn with the best peer, started and held in the same way; {ROUNDS} rounds of "
        f"{SECONDS} s: adds a second, and how many times those of the peer that is; medians. "
        "Everywhere else on this page each is started anew.\n\n"
        + table(("", "the best peer", *ways), rows)
    )
    return Section("How processes are started", text, [])


def _round(pool: Pool, key: str, place: Place) -> tuple[float, float]:
    """Ours, and how many times the peer's."""
    ours, theirs = (
        rate(pool, key, name, [place] * PROCESSES, THREADS, SECONDS) for name in (OURS, RIVALS[key])
    )
    return ours, ours / theirs


def _alike(start: Callable[[], Pool]) -> Pool:
    """A pool whose processes lie at the same addresses.

    `OSError` where the system does not allow it, rather than a figure of something else.
    """
    libc = ctypes.CDLL(None)
    before = libc.personality(0xFFFFFFFF)
    if libc.personality(before | NOT_AT_RANDOM) == -1:  # its children inherit it
        raise OSError(
            "addresses cannot be fixed here; in a container: --security-opt seccomp=unconfined"
        )
    try:
        return start()
    finally:
        libc.personality(before)


def _hold(started: Synchronized[int]) -> None:
    """Hold a process of a pool on one of the processors, each on the next one."""
    quiet()
    with started.get_lock():
        number = started.value
        started.value += 1
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[number % len(processors)]})
