"""The SQLite store: its file, and what happens when that is not as it should be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

import workers
from helpers import missing
from truecount import (
    BoundsError,
    Counter,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    OutcomeUnknownError,
    Store,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    connect,
)
from truecount.record import Address
from truecount.stores.sqlite import SQLiteStore, forks
from truecount.stores.sqlite.connection import Connection
from truecount.stores.sqlite.filesystem import network_filesystem
from truecount.url import StoreURL

DATA = Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counters.db"


@pytest.fixture
def counter(path: Path) -> Iterator[Counter]:
    counter = Counter("mydomain", "counter1", 5, store=f"sqlite:///{path}")
    yield counter
    counter.store.close()


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Execute statements as another program would; the rows of the last."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


# The file


def test_the_file_says_what_it_is(path: Path, counter: Counter) -> None:
    """Application id, version and write-ahead log are in the file's header."""
    counter.add(1)
    assert sql(path, "PRAGMA application_id") == [(0x54434E54,)]
    assert sql(path, "PRAGMA user_version") == [(1,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("option", "level"), [("", 2), ("?synchronous=normal", 1)])
def test_synchronous_is_full_unless_told_otherwise(path: Path, option: str, level: int) -> None:
    """What was answered survives a power failure, unless the URL says that it need not."""
    with connect(f"sqlite:///{path}{option}") as store:
        store.read(Address("mydomain", "counter1"), timeout=1)
        connection = store._connection(None)  # type: ignore[attr-defined]
        assert connection.sql.execute("PRAGMA synchronous").fetchone() == (level,)


def test_a_file_of_format_1_keeps_working(tmp_path: Path) -> None:
    """A file that the first version wrote is read and written by every later one."""
    path = tmp_path / "old.db"
    sql(path, "PRAGMA journal_mode = wal")
    connection = sqlite3.connect(path)
    connection.executescript((DATA / "format1.sql").read_text())
    connection.close()
    c = Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    assert (c.value, c.minimum, c.maximum) == (42, 0, None)
    assert c.timestamp == "2026-11-20T12:00:00.000000Z"
    assert c.add(1).before == 42
    assert c.receipt("order-17").after == 42
    assert Counter("mydomain", "long", store=c.store).value == 10**499
    with pytest.raises(CounterNotFoundError):
        Counter("mydomain", "deleted", store=c.store, create=False)


def test_a_newer_file_is_left_alone(path: Path, counter: Counter) -> None:
    """A file of a later format is not touched; the error says to upgrade."""
    counter.store.close()
    sql(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer truecount .*upgrade"):
        Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A database with tables of its own stays as it is."""
    sql(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    """A file of another kind stays as it is."""
    path.write_text("Dear diary, " * 100)
    with pytest.raises(StoreError, match="is not a database"):
        Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    assert path.read_text() == "Dear diary, " * 100


def test_a_truncated_file_is_told(path: Path, counter: Counter) -> None:
    """A database that lost its end is an error, and no zero."""
    for number in range(200):
        Counter("mydomain", f"filler{number}", store=counter.store)
    counter.store.close()
    with path.open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(StoreError, match=r"damaged|not a database"):
        Counter("mydomain", "filler199", store=f"sqlite:///{path}")


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    """A missing folder, a folder, and a file in the way are told as such."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.db").mkdir()
    for where, text in (
        ("missing/counters.db", "no folder"),
        ("folder.db", "it is a folder"),
        ("file/counters.db", "no folder"),
    ):
        with pytest.raises(StoreError, match=text):
            Counter("mydomain", "counter1", store=f"sqlite:///{tmp_path}/{where}")


def test_a_place_that_cannot_be_written() -> None:
    """Without the right to write, the error names the file; nothing is created."""
    folder = Path(tempfile.mkdtemp(prefix="truecount-locked-"))
    try:
        folder.chmod(0o555)
        child = os.fork()
        if not child:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                Counter("mydomain", "counter1", store=f"sqlite:///{folder}/counters.db")
            except StoreError as error:
                status = 0 if "counters.db" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()


def test_a_removed_file_is_noticed(path: Path, counter: Counter) -> None:
    """Counting does not go on into a file that nobody can see any more."""
    counter.add(1)
    path.unlink()
    time.sleep(0.15)
    with pytest.raises(StoreError, match="removed or replaced"):
        counter.add(1)
    for leftover in path.parent.iterdir():
        leftover.unlink()
    with pytest.raises(CounterNotFoundError):
        counter.add(1)


def test_a_restored_backup_is_shown(path: Path, counter: Counter) -> None:
    """When the file was restored from a backup, an object shows what is there now."""
    counter.add(1)
    sql(path, f"VACUUM INTO '{path}.backup'")
    counter.add(100)
    counter.store.close()
    for leftover in path.parent.glob("counters.db*"):
        if leftover.suffix != ".backup":
            leftover.unlink()
    shutil.copy(f"{path}.backup", path)
    again = Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    again._view = counter._view
    assert again.refresh() == 6
    assert again.add(1) == 7
    assert again == 7


# Records that somebody changed


DAMAGES = {
    "value": "UPDATE counters SET value = '7'",
    "value type": "UPDATE counters SET value = 'seven'",
    "value float": "UPDATE counters SET value = '5.0'",
    "value blob": "UPDATE counters SET value = x'00ff'",
    "deleted": "UPDATE counters SET deleted = 2",
    "horizon": "UPDATE counters SET ledger = 'x' || ledger",
    "ledger": "UPDATE counters SET ledger = 'garbage'",
    "ledger empty": "UPDATE counters SET ledger = ''",
    "ledger cut": "UPDATE counters SET ledger = substr(ledger, 1, length(ledger) - 1)",
    "ledger blob": "UPDATE counters SET ledger = x'00'",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told_and_left_alone(path: Path, counter: Counter, damage: str) -> None:
    """A record changed by hand stops every call, by name, and stays as it is."""
    counter.add(1, key="once")
    sql(path, DAMAGES[damage])
    before = sql(path, "SELECT * FROM counters")
    for call in (
        lambda: counter.add(1),
        lambda: counter.set(1),
        counter.refresh,
        counter.delete,
        lambda: counter.limit(minimum=0),
        lambda: counter.add(1, key="once"),
        lambda: Counter("mydomain", "counter1", store=counter.store),
    ):
        with pytest.raises(DamagedRecordError, match="'counter1' in domain 'mydomain'"):
            call()
    assert sql(path, "SELECT * FROM counters") == before


def test_a_damaged_receipt_is_told(path: Path, counter: Counter) -> None:
    """A key whose receipt cannot be read is neither applied again nor answered."""
    counter.add(1, key="once")
    sql(path, "UPDATE keys SET after = 'x'")
    with pytest.raises(DamagedRecordError):
        counter.add(1, key="once")
    assert counter.add(1) == 7


def test_a_change_by_hand_can_be_taken_back(path: Path, counter: Counter) -> None:
    """The error says what truecount had left there; put back, the counter works again."""
    sql(path, "UPDATE counters SET value = '7'")
    with pytest.raises(DamagedRecordError, match="its value is 7, where truecount had left 5"):
        counter.add(1)
    sql(path, "UPDATE counters SET value = '5'")
    assert counter.add(1) == 6


# Disks


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """On a full disk a change is refused, and the counter goes on when there is room again."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("right to mount a small tmpfs")
    try:
        with connect(f"sqlite:///{folder}/counters.db") as store:
            c = Counter("mydomain", "counter1", store=store)
            ballast = folder / "ballast"
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                while True:
                    file.write(b"x" * 4096)
            applied = 0
            with pytest.raises(StoreFullError, match="no room left"):
                for _ in range(2000):
                    c.add(1)
                    applied += 1
            assert c.refresh() == applied
            ballast.unlink()
            assert c.add(1) == applied + 1
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_limited_file_size_is_told(path: Path, counter: Counter) -> None:
    """Under ``ulimit -f`` a change is refused for sure, and nothing of it appears later."""
    code = f"""
        import resource, signal, sys
        from truecount import Counter, CounterError, OutcomeUnknownError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        c = Counter("mydomain", "counter1", store="sqlite:///{path}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        applied = 0
        try:
            while applied < 5000:
                c.add(1, timeout=2)
                applied += 1
        except OutcomeUnknownError as error:
            sys.exit(f"unknown: {{error}}")
        except CounterError as error:
            print(applied, type(error).__name__, error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    applied, kind, *_ = result.stdout.split()
    assert kind == "StoreError"
    assert "limits on file sizes" in result.stdout
    assert counter.refresh() == 5 + int(applied)


def test_a_foreign_lock_is_waited_for(path: Path, counter: Counter) -> None:
    """While another program has the database locked, callers wait; after their time they hear."""
    foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreTimeoutError, match="another program"):
        counter.add(1, timeout=0.3)
    threading.Timer(0.3, lambda: foreign.execute("ROLLBACK")).start()
    assert counter.add(1) == 6
    foreign.close()


# File systems


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt/share rw,relatime - nfs4 server:/share rw
31 30 0:26 / /mnt/share/local rw - xfs /dev/sdb rw
32 22 0:27 / /mnt/with\\040space rw - cifs //server/share rw
33 22 0:28 / /mnt/cloud rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/counters.db", None),
        ("/mnt/share/counters.db", "nfs4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/shared/counters.db", None),
        ("/mnt/share/local/counters.db", None),
        ("/mnt/with space/counters.db", "cifs"),
        ("/mnt/cloud/counters.db", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_recognised(tmp_path: Path, path: str, kind: str | None) -> None:
    """The longest mount point above a path tells, in the format of Linux's mount table."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_filesystem(path, str(table)) == kind


def test_this_machines_disk_is_no_network(tmp_path: Path) -> None:
    """The real mount table is understood; without one nothing is refused."""
    assert network_filesystem(str(tmp_path)) is None
    assert network_filesystem(str(tmp_path), str(tmp_path / "no table")) is None


def test_network_file_systems_are_refused(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store on NFS is an error before anything is written there."""
    table = tmp_path / "mountinfo"
    table.write_text(f"30 22 0:25 / {tmp_path.resolve()} rw,relatime - nfs4 server:/share rw\n")
    original = network_filesystem
    monkeypatch.setattr(
        "truecount.stores.sqlite.connection.network_filesystem",
        lambda path: original(path, str(table)),
    )
    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    assert not path.exists()


def test_a_file_system_without_locks_is_told(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot be locked, a change is refused and says so."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No locks available"):
        patch.setattr(fcntl, "flock", refuse)
        counter.add(1)
    assert counter.add(1) == 6


def test_locks_that_are_lost_stop_nobody(
    path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for its turn where files cannot be locked any more goes on: it is for fairness."""
    flock = fcntl.flock

    def refuse(file: int, how: int) -> None:
        if how == fcntl.LOCK_EX:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(file, how)

    with open(f"{path}-turn") as file:
        flock(file, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            assert counter.add(1, timeout=5) == 6
        flock(file, fcntl.LOCK_UN)
    assert counter.add(1, timeout=5) == 7


def test_links_lead_to_the_same_queue(tmp_path: Path, counter: Counter, path: Path) -> None:
    """A symbolic link to the file is the same store."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert connect(f"sqlite:///{link}") is counter.store


# Housekeeping


def test_purging_removes_old_tombstones(path: Path, counter: Counter) -> None:
    """purge() removes what was deleted before an instant, but for what its keys remember."""
    store: Store = counter.store
    counter.add(1, key="once")
    Counter("mydomain", "other", store=store).delete()
    instant = time.time_ns() // 1000
    time.sleep(0.01)
    counter.delete()
    assert store.purge(instant) == 1
    assert sql(path, "SELECT name FROM counters") == [("counter1",)]
    assert store.purge(time.time_ns() // 1000) == 0
    assert counter.receipt("once") == 6
    sql(path, "UPDATE keys SET expires = 1")
    assert store.purge(time.time_ns() // 1000) == 1
    assert sql(path, "SELECT count(*) FROM counters") == [(0,)]
    assert sql(path, "SELECT count(*) FROM keys") == [(0,)]
    again = Counter("mydomain", "counter1", store=store)
    assert again.revision > counter.revision


def test_expired_keys_are_cleared_away(path: Path) -> None:
    """The table of keys does not grow for ever."""
    with connect(f"sqlite:///{path}?key_ttl=0.05") as store:
        c = Counter("mydomain", "counter1", store=store)
        for number in range(60):
            c.add(1, key=f"key{number}")
        time.sleep(0.1)
        for number in range(20):
            c.add(1, key=f"later{number}")
        (rows,) = sql(path, "SELECT count(*) FROM keys")[0]
        assert isinstance(rows, int)
        assert rows < 40


def test_a_refusal_before_writing_is_definite(counter: Counter) -> None:
    """A database that may not be written refuses at once, also what was the process's latest."""
    connection = counter.store._connection(None)  # type: ignore[attr-defined]
    counter.add(1)
    connection.sql.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreError, match="permissions"):
        counter.add(1)
    connection.sql.execute("PRAGMA query_only = 0")
    assert counter.add(1) == 7


def test_a_listing_shows_no_damage(path: Path, counter: Counter) -> None:
    """A value changed by hand is not listed, but refused as everywhere."""
    sql(path, "UPDATE counters SET value = '99'")
    with pytest.raises(DamagedRecordError, match="99"):
        counter.store.snapshot("mydomain")
    sql(path, "UPDATE counters SET value = '5', ledger = CAST(x'ff' AS TEXT)")
    with pytest.raises(DamagedRecordError):
        counter.refresh()


@pytest.mark.parametrize("target", ["notes.db", "foreign.db", "/dev/null"])
def test_what_is_refused_is_left_alone(target: str, tmp_path: Path) -> None:
    """Nothing is written to a file that is no database of ours, nor beside it."""
    (tmp_path / "notes.db").write_text("not a database " * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    file = tmp_path / target
    before = set(file.parent.iterdir())
    with pytest.raises(StoreError):
        Counter("mydomain", "counter1", store=f"sqlite:///{file}")
    assert set(file.parent.iterdir()) == before


def test_listing_waits_for_whoever_opens_and_closes(path: Path) -> None:
    """While processes open and close the file, a listing is never told that it is locked."""
    Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        openers = pool.map_async(workers.open_and_close, [(str(path), 2.0)] * 2)
        while not openers.ready():
            with connect(f"sqlite:///{path}") as store:
                assert list(store.domains()) == ["mydomain"]
                assert "counter1" in store.snapshot("mydomain")
        assert all(openers.get())


def test_many_writers_leave_a_bounded_record(path: Path) -> None:
    """A record remembers 64 writers and no more, however many there were."""
    store = connect(f"sqlite:///{path}")
    c = Counter("mydomain", "counter1", store=store)
    for _ in range(100):
        c._line.name = c._line.terms.writer.rename()
        c.add(1)
    kept = store.read(Address("mydomain", "counter1"), timeout=1)
    assert kept is not None
    assert len(kept.ledger) == 64
    assert kept.horizon == kept.ledger.entry(kept.ledger.text.split()[0]).revision - 1  # type: ignore[union-attr]
    assert kept.value == 100
    assert c.add(1) == 101


def test_limits_of_open_files_are_not_reached(path: Path) -> None:
    """Threads that end give their connections back."""
    c = Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(50):
        thread = threading.Thread(target=c.add)
        thread.start()
        thread.join()
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert c.refresh() == 50
    assert after <= before + 8 < soft


@pytest.mark.parametrize("meanwhile", ["changed", "limited", "deleted", "damaged"])
def test_many_at_once_see_what_others_wrote(path: Path, meanwhile: str) -> None:
    """Domain.add writes over what it left there only where that is still there."""
    with connect(f"sqlite:///{path}") as store, connect(f"sqlite:///{path}?timeout=9") as other:
        d = Domain("mydomain", store=store)
        names = [f"n{number}" for number in range(50)]
        d.add(dict.fromkeys(names, 1))
        theirs = Counter("mydomain", "n7", store=other)
        if meanwhile == "changed":
            theirs.add(100)
        elif meanwhile == "limited":
            theirs.limit(maximum=1)
        elif meanwhile == "deleted":
            theirs.delete()
        else:
            with sqlite3.connect(path) as sql:
                sql.execute("UPDATE counters SET value = '5' WHERE name = 'n7'")
            sql.close()
        expected = dict.fromkeys(names, 2)
        if meanwhile in ("limited", "damaged"):
            error = BoundsError if meanwhile == "limited" else DamagedRecordError
            with pytest.raises(error) as caught:
                d.add(dict.fromkeys(names, 1))
            assert set(caught.value.failures) == {"n7"}
            del expected["n7"]
            assert {
                name: int(receipt) for name, receipt in caught.value.receipts.items()
            } == expected
        else:
            expected["n7"] = 102 if meanwhile == "changed" else 1
            assert {n: int(r) for n, r in d.add(dict.fromkeys(names, 1)).items()} == expected
        again = d.add(dict.fromkeys([name for name in names if name != "n7"], 1))
        assert {int(receipt) for receipt in again.values()} == {3}


def test_closing_while_others_open(path: Path) -> None:
    """What other threads open while a store is closed is closed, too, and the locks' files."""
    store = SQLiteStore(StoreURL(f"sqlite:///{path}"))
    opened = [store._open(5), store._open(5)]

    def trace(frame: FrameType, event: str, _: object) -> None:
        if "weak" in frame.f_code.co_filename and len(opened) < 5:  # `close` looks for them
            opener = threading.Thread(target=lambda: opened.append(store._open(5)))
            opener.start()
            opener.join()

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        store.close()
    finally:
        sys.settrace(tracer)
    opened.append(store._open(5))  # who has not seen yet that it is closed
    assert len(opened) > 3
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.sql.execute("SELECT 1")
    assert not store._turns


def test_a_failed_commit_is_looked_into_alone(
    path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread finds out what became of its commit nobody closes the file, or forks."""
    counter.add(1)
    store = counter.store
    assert isinstance(store, SQLiteStore)
    connection = store._connection(5)
    alone: list[bool] = []

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    def is_undone(connection: Connection, _: sqlite3.Error) -> bool:
        alone.append(connection.lock.locked() and connection.thread in forks._inside)
        return True

    monkeypatch.setattr(connection, "cursor", SimpleNamespace(execute=fail))
    monkeypatch.setattr(Connection, "is_undone", is_undone)
    with pytest.raises(StoreError, match="cannot be read or written"):
        counter.add(1)
    assert alone == [True]


def test_threads_that_fork_at_once() -> None:
    """Nobody gets inside before the last of several forks is over."""
    ready, last, inside = (threading.Event() for _ in range(3))

    def fork_late() -> None:
        forks._before()
        ready.set()
        last.wait(10)
        forks._after_in_parent()

    def enter() -> None:
        forks.enter(threading.get_ident())
        inside.set()
        forks.leave(threading.get_ident())

    threads = [threading.Thread(target=work) for work in (fork_late, enter)]
    forks._before()
    threads[0].start()
    ready.wait(10)
    threads[1].start()
    forks._after_in_parent()
    assert not inside.wait(0.1)
    last.set()
    assert inside.wait(10)
    for thread in threads:
        thread.join()


def test_a_record_and_its_keys_are_of_one_moment(tmp_path: Path) -> None:
    """What is written while a record is read is seen with its keys' receipts, or not at all."""
    path = f"sqlite:///{tmp_path}/counters.db"
    with connect(path) as store, connect(f"{path}?synchronous=normal") as other:
        address = Address("mydomain", "counter1")
        theirs = Counter(*address, store=other)
        assert store.read(address, ("once",), timeout=5).keys == ()  # type: ignore[union-attr]
        (sql,) = (connection.sql for connection in store._connections.values())  # type: ignore[attr-defined]  # to be struck between two statements
        between: list[str] = []

        def write(statement: str) -> None:
            if "FROM keys" in statement and not between:
                between.append(statement)
                theirs.add(1, key="once")

        sql.set_trace_callback(write)
        record = store.read(address, ("once",), timeout=5)
        sql.set_trace_callback(None)
        assert between
        assert record is not None
        assert [known.after for known in record.keys] == [record.value] == [1]


def test_the_unknown_is_an_error_of_its_own() -> None:
    """Nobody who handles StoreError handles an unknown outcome with it."""
    assert not issubclass(OutcomeUnknownError, StoreError)
