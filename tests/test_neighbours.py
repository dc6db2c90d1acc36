"""Processes of one machine take turns where an engine only compares and sets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import workers
from helpers import in_processes, wait_until
from truecount import Counter, connect
from truecount.testing.faulty import ComparingStore

PROCESSES, TIMES = 4, 100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's processes have their lock files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "tmp" / f"truecount-{os.getuid()}"


def race(tmp_path: Path, processes: int = 2, times: int = 20) -> list[workers.Effort]:
    """Have processes add at once, so many times each: what each did, and the count is exact."""
    url = f"sqlite:///{tmp_path}/counters.db"
    with connect(url) as store:
        hot = Counter("mydomain", "hot", store=ComparingStore(store))
        before = hot.value
        ready = Path(tempfile.mkdtemp(dir=tmp_path))
        work = (workers.compare_until, (url, before + processes * times, ready, processes))
        efforts = in_processes([work] * processes)
        assert hot.refresh() == before + sum(effort.adds for effort in efforts)
    return efforts


def test_everybody_has_a_turn(tmp_path: Path, folder: Path) -> None:
    """In turn, no process starves, and none reads what the one before it has just written."""
    efforts = race(tmp_path, PROCESSES, TIMES)
    assert list(folder.glob("*-turn"))
    assert min(effort.adds for effort in efforts) > TIMES / 2
    assert sum(effort.reads for effort in efforts) < PROCESSES * TIMES / 4


@pytest.mark.parametrize("obstacle", ["a file", "another's", "no place"])
def test_no_place_for_turns(tmp_path: Path, folder: Path, obstacle: str) -> None:
    """Where there is no folder for the turns, or not a safe one, counting goes on without."""
    if obstacle == "a file":
        folder.touch()
    elif obstacle == "another's":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.parent.rmdir()
        folder.parent.touch()
    race(tmp_path)
    assert not list(folder.glob("*")) if folder.is_dir() else True


def test_what_was_left_is_not_believed(tmp_path: Path, folder: Path) -> None:
    """A record left by the one before that is cut off, changed or out of date does no harm."""
    race(tmp_path)
    (left,) = folder.glob("*-left")
    whole = left.read_bytes()
    for text in (b"", whole[:-5], whole.replace(b"\n0\n", b"\n1\n"), b"x" * 9):
        left.write_bytes(text)
        race(tmp_path)
    left.write_bytes(whole)
    race(tmp_path)


def test_a_frozen_neighbour_is_not_waited_for(tmp_path: Path, folder: Path) -> None:
    """Who stops in the middle of its turn holds nobody up for long, and what it began stands."""
    url = f"sqlite:///{tmp_path}/counters.db"
    code = (
        "import sys, truecount.neighbours as n; from truecount import connect; "
        "from truecount.record import Address; "
        "t = n.MyTurn(); t.take(connect(sys.argv[1]), Address('mydomain', 'hot'), 5); "
        "print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as neighbour:
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "mine\n"
        neighbour.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: list(folder.glob("*-turn")), "its lock files")
            race(tmp_path)
        finally:
            neighbour.kill()


def test_a_forked_child_has_none_of_the_files(tmp_path: Path, folder: Path) -> None:
    """A child that was forked keeps no turn of its parent's: it has not even the files open."""
    code = """
        import os, sys, truecount.neighbours as n
        from truecount import connect
        from truecount.record import Address
        turns = [n.MyTurn() for _ in range(3)]
        store = connect(sys.argv[1])
        for number, turn in enumerate(turns):
            turn.take(store, Address("mydomain", f"c{number}"), 5)
        turns[0].give()
        def ours():
            places = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
            links = [os.readlink(place) for place in places if os.path.lexists(place)]
            return [link for link in links if link.startswith(sys.argv[2])]
        places = {n._name(store.url, Address("mydomain", f"c{number}")) for number in range(3)}
        places = {int.from_bytes(place[:4]) % n.FILES for place in places}  # may be shared
        print(len(ours()) == 3 * len(places))
        sys.stdout.flush()
        if os.fork() == 0:
            turns.clear(), globals().pop("turn")
            print(ours())
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), f"sqlite:///{tmp_path}/c.db", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["True", "[]"], result.stderr
