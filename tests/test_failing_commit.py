"""A COMMIT that fails with an I/O error, then a crash: counted once, or reported as unknown.

SQLite leaves the frames of such a COMMIT in the write-ahead log, where every
reader ignores them; but a recovery after a crash finds them, and takes them
for true. A preloaded library makes the disk fail on demand.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from truecount import Counter, OutcomeUnknownError

HERE = Path(__file__).parent


def run(library: Path, code: str) -> str:
    """Run ``code`` on the failing disk, in a process that then crashes; what it printed."""
    prelude = """
        import ctypes, os, pickle, sqlite3, sys
        from truecount import *
        disk = ctypes.CDLL(None)
    """
    crash = "\nsys.stdout.flush(); os.kill(os.getpid(), 9)\n"
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code) + crash],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == -9, result.stderr
    return result.stdout


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store whose counter is at 10."""
    url = f"sqlite:///{tmp_path}/counters.db"
    c = Counter("mydomain", "counter1", 10, store=url)
    c.store.close()
    return url


CHANGES = {
    "add": "c.add(1, timeout=0.5)",
    "add with a key": "c.add(1, key='once', timeout=0.5)",
    "set": "c.set(11, timeout=0.5)",
    "update": "c.update(lambda v: v + 1, timeout=0.5)",
}

TRY = """
    c = Counter("mydomain", "counter1", store={url!r})
    c.add(0)  # what follows is not this process's first change
    {fail}
    try:
        print("receipt", {change}.after)
    except OutcomeUnknownError as error:
        print("unknown")
        open({dump!r}, "wb").write(pickle.dumps(error))
    except CounterError as error:
        print("refused", type(error).__name__)
    print(c.refresh())
"""


def test_the_danger_is_real(failing_disk: Path, tmp_path: Path) -> None:
    """With sqlite3 alone a failed change is invisible, and is there after the crash."""
    path = tmp_path / "bare.db"
    seen = run(
        failing_disk,
        f"""
        c = sqlite3.connect({str(path)!r}, isolation_level=None)
        c.execute("PRAGMA journal_mode = wal")
        c.execute("PRAGMA synchronous = full")
        c.execute("CREATE TABLE t (value)")
        c.execute("INSERT INTO t VALUES (0)")
        disk.fail_syncs(1000)
        try:
            c.execute("UPDATE t SET value = 1")
        except sqlite3.OperationalError as error:
            print(error.sqlite_errorname)
        print(c.execute("SELECT value FROM t").fetchone()[0])
        """,
    )
    assert seen.split() == ["SQLITE_IOERR_FSYNC", "0"]
    import sqlite3

    connection = sqlite3.connect(path)
    assert connection.execute("SELECT value FROM t").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "fail", ["disk.fail_syncs(1)", *(f"disk.fail_writes({n}, 1)" for n in range(4))]
)
def test_what_was_refused_never_appears(
    failing_disk: Path, url: str, tmp_path: Path, change: str, fail: str
) -> None:
    """The disk fails once: the change is refused, and not there after the crash."""
    code = TRY.format(url=url, fail=fail, change=CHANGES[change], dump=f"{tmp_path}/dump")
    what, value, shown = run(failing_disk, code).split()
    after = Counter("mydomain", "counter1", store=url).value
    if what == "receipt" and "writes" in fail:  # the writes to fail lay beyond those of this change
        assert (value, shown, after) == ("11", "11", 11)
    else:
        assert (what, value) == ("refused", "StoreError")
        assert (shown, after) == ("10", 10)


@pytest.mark.parametrize("change", CHANGES)
def test_a_disk_that_recovers_counts_once(
    failing_disk: Path, url: str, tmp_path: Path, change: str
) -> None:
    """The sync fails, and the one that would empty the log too: then the change is made, once."""
    code = TRY.format(
        url=url, fail="disk.fail_syncs(2)", change=CHANGES[change], dump=f"{tmp_path}/dump"
    )
    assert run(failing_disk, code).split() == ["receipt", "11", "11"]
    assert Counter("mydomain", "counter1", store=url) == 11


@pytest.mark.parametrize("settled", ["retry", "cancel"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_unknown_is_said_to_be(
    failing_disk: Path, url: str, tmp_path: Path, change: str, settled: str
) -> None:
    """The disk goes on failing: unknown. After the crash another process settles it."""
    dump = tmp_path / "dump"
    code = TRY.format(
        url=url, fail="disk.fail_syncs(10**9)", change=CHANGES[change], dump=str(dump)
    )
    assert run(failing_disk, code).split() == ["unknown", "10"]
    c = Counter("mydomain", "counter1", store=url)
    assert c.value in (10, 11)
    applied = c.value == 11
    error = pickle.loads(dump.read_bytes())
    assert isinstance(error, OutcomeUnknownError)
    if settled == "retry":
        assert (error.retry().before, error.retry().after) == (10, 11)
        assert c.refresh() == 11
    else:
        assert error.cancel() is not applied
        assert error.cancel() is not applied
        assert c.refresh() == (11 if applied else 10)


def test_others_go_on_after_a_failed_commit(failing_disk: Path, url: str, tmp_path: Path) -> None:
    """A process that writes after the failure overwrites what it left, and the retry sees that."""
    dump = tmp_path / "dump"
    code = TRY.format(url=url, fail="disk.fail_syncs(10**9)", change=CHANGES["add"], dump=str(dump))
    code += f"""
    import subprocess
    subprocess.run([sys.executable, "-c", "from truecount import Counter; "
                    "Counter('mydomain', 'counter1', store={url!r}).add(100)"],
                   env={{**os.environ, "LD_PRELOAD": ""}}, check=True)
    print(c.refresh())
    """
    assert run(failing_disk, code).split() == ["unknown", "10", "110"]
    error = pickle.loads(dump.read_bytes())
    assert (error.retry().before, error.retry().after) == (110, 111)
    assert Counter("mydomain", "counter1", store=url) == 111
