"""A bell by which one process wakes another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from truecount.bell import Bell, ring

LONG = 20.0
"""Seconds that nobody waits in vain."""


def waited(bell: Bell, seconds: float, *, spin: bool = False) -> float:
    """For how many seconds it was waited for."""
    began = time.monotonic()
    bell.wait(seconds, spin=spin)
    return time.monotonic() - began


def test_another_process_rings(tmp_path: Path) -> None:
    """Who waits is woken by a process that knows nothing but the path."""
    path = f"{tmp_path}/bell"
    bell = Bell(path)
    code = "import sys; from truecount.bell import ring; ring(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, path]):
        assert waited(bell, LONG) < LONG


def test_what_rang_before_is_heard_once(tmp_path: Path) -> None:
    """Rung before anybody waits, however often, it wakes the next one to wait, and only that."""
    path = f"{tmp_path}/bell"
    bell = Bell(path)
    for _ in range(100_000):  # more than a pipe holds
        ring(path)
    assert waited(bell, LONG) < LONG
    while waited(bell, 0.05) < 0.05:
        pass  # it heard as much as it reads at once
    ring(path)
    assert waited(bell, LONG) < LONG


def test_who_spins_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rung while it spins it has been heard, and the next one to wait is not woken by that."""
    path = f"{tmp_path}/bell"
    bell = Bell(path)
    monkeypatch.setattr(os, "sched_yield", lambda: ring(path))
    for _ in range(100):
        assert waited(bell, LONG, spin=True) < LONG
    assert waited(bell, 0.05) >= 0.05


def test_spinning_is_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has often spun for nothing sleeps at once, tries again now and then, and spins again."""
    path = f"{tmp_path}/bell"
    bell = Bell(path)
    spun = 0

    def not_yet() -> None:
        nonlocal spun
        spun += 1

    def waits(times: int) -> int:
        """At how many of so many waits it spun."""
        nonlocal spun
        found = 0
        for _ in range(times):
            spun = 0
            bell.wait(0.003, spin=True)
            found += spun > 0
        return found

    monkeypatch.setattr(os, "sched_yield", not_yet)
    assert waited(bell, 0.05, spin=True) >= 0.05
    assert waits(7) == 7
    assert waits(32 * 4) == 4
    monkeypatch.setattr(os, "sched_yield", lambda: ring(path))
    for _ in range(32):
        bell.wait(0.003, spin=True)
    monkeypatch.setattr(os, "sched_yield", not_yet)
    assert waits(8) == 8


def test_nobody_waits(tmp_path: Path) -> None:
    """To ring where there is no bell, or nobody who could hear it, does nothing, and waits not."""
    ring(f"{tmp_path}/bell")
    bell = Bell(f"{tmp_path}/bell")
    bell.forget()
    ring(f"{tmp_path}/bell")


def test_something_else_is_there(tmp_path: Path) -> None:
    """A file at that place is no bell, which would ring for ever, and stays as it is."""
    (tmp_path / "bell").write_text("mine")
    with pytest.raises(OSError, match="no named pipe"):
        Bell(f"{tmp_path}/bell")
    assert (tmp_path / "bell").read_text() == "mine"


@pytest.mark.parametrize("spin", [False, True])
def test_a_forked_child_hears_nothing(tmp_path: Path, spin: bool) -> None:
    """The bell stays the parent's: the child cannot wait there, and takes no ring from it."""
    path = f"{tmp_path}/bell"
    bell = Bell(path)
    child = os.fork()
    if child == 0:
        try:
            bell.wait(LONG, spin=spin)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    threading.Timer(0.1, ring, [path]).start()
    assert waited(bell, LONG) < LONG
