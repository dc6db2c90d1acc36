"""What the processes of this machine are at: from /proc, or where there is none, from ``ps``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["await_stop", "children", "runs"]

PROC: Final = Path("/proc")

PATIENCE: Final = 5.0
"""Seconds that a process may take to stop."""


def children(parent: int) -> list[int]:
    """The processes that ``parent`` has started, and that were not buried yet."""
    return [pid for pid, (of, _) in _processes() if of == parent]


def runs(pid: int) -> bool:
    """Whether it does: it is neither gone, nor dead and not buried yet."""
    return any(not state.startswith("Z") for which, (_, state) in _processes() if which == pid)


def await_stop(pid: int) -> None:
    """Wait until a process that was sent SIGSTOP has stopped, with all its threads."""
    deadline = time.monotonic() + PATIENCE
    while not set(_threads(pid)) <= set("TXZ") and time.monotonic() < deadline:
        time.sleep(0.001)


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Every process's pid, parent and state."""
    if not PROC.joinpath("self", "stat").exists():
        for pid, parent, state in _ps("-A", "pid=,ppid=,stat="):
            yield int(pid), (int(parent), state)
        return
    for stat in PROC.glob("[0-9]*/stat"):
        for state, parent, *_ in _fields(stat):
            yield int(stat.parent.name), (int(parent), state)


def _threads(pid: int) -> Iterator[str]:
    """The states of its threads."""
    if not PROC.joinpath("self", "stat").exists():
        for (state,) in _ps(f"-p{pid}", "stat="):
            yield state[0]
        return
    for stat in PROC.glob(f"{pid}/task/*/stat"):
        for state, *_ in _fields(stat):
            yield state


def _fields(stat: Path) -> Iterator[list[str]]:
    """What stands in the file after the name, which may be anything; nothing if it is gone."""
    try:
        yield stat.read_text().rpartition(")")[2].split()
    except OSError:
        return


def _ps(*options: str) -> list[list[str]]:
    which, columns = options
    listed = subprocess.run(  # noqa: S603  # found as everywhere
        ["ps", which, "-o", columns],  # noqa: S607  # likewise
        capture_output=True,
        text=True,
        check=False,
    )
    return [line.split() for line in listed.stdout.splitlines()]
