"""A thread's connection to an SQLite file, and what SQLite's errors mean."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import weakref
from typing import Final

from truecount.errors import (
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
)
from truecount.post import Office
from truecount.process import Process, here
from truecount.record import Address
from truecount.stores.sqlite import forks
from truecount.stores.sqlite.filesystem import network_filesystem
from truecount.stores.sqlite.layout import APPLICATION, SCHEMA, VERSION

__all__ = ["Connection", "check_place", "is_early", "refusal_of"]

EARLY: Final = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA),
    }
)
"""SQLite's errors that come before anything is written."""


class Connection:
    """One thread's connection in one process, and the file that it was opened on."""

    turn: Office

    def __init__(self, path: str, synchronous: str) -> None:
        self.process = here()
        self.thread = threading.get_ident()
        self.path = path
        self.lock = threading.Lock()  # held while it is used
        self.sql = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.cursor = self.sql.cursor()
        # When its thread ends; but not at the end of the program, while daemon threads go on.
        weakref.finalize(self, _close, self.sql, self.process).atexit = False
        self.sql.execute(f"PRAGMA synchronous = {synchronous}")
        self.sql.execute("PRAGMA fullfsync = 1")  # macOS: a plain fsync stops at the drive
        self.sql.execute("PRAGMA checkpoint_fullfsync = 1")
        self.sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self.file = _identity(path)
        self.looked = time.monotonic()

    def name_of(self, address: Address) -> bytes:
        """What stands for a counter in this very file."""
        return hashlib.sha256(repr((self.path, self.file, *address)).encode()).digest()

    def is_current(self) -> bool:
        """Whether the file is still the one at its path."""
        if self.file is None or _identity(self.path) != self.file:
            return False
        self.looked = time.monotonic()
        return True

    def is_ready(self) -> bool:
        """Whether the file is ours and in order; False when there is nothing in it yet.

        Raises `StoreError` when it belongs to somebody else.
        """
        # In one statement, or another process could make it ours in between.
        application, version, tables = self.sql.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application == APPLICATION:
            if version > VERSION:
                raise StoreError(
                    f"{self.path} was written by a newer truecount (format {version}; this one "
                    f"knows {VERSION}): upgrade truecount to use it"
                )
            (mode,) = self.sql.execute("PRAGMA journal_mode").fetchone()
            return bool(mode == "wal")
        if application or version or tables:
            raise StoreError(
                f"{self.path} is a database of another program: give truecount a file of its own"
            )
        return False

    def initialise(self) -> None:
        """Switch to the write-ahead log and create the tables, unless that has been done."""
        (mode,) = self.sql.execute("PRAGMA journal_mode = wal").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path} is on a file system without shared memory for SQLite")
        if self.is_ready():
            return
        try:
            self.sql.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                self.sql.execute(statement)
            self.sql.execute("COMMIT")
        except BaseException:  # whatever it is, the file must not stay locked
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Leave the transaction, if SQLite has not left it by itself."""
        try:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
        except sqlite3.Error:
            # The next call closes it, which rolls back too, and opens another.
            self.file = None
            self.looked = 0.0

    def is_undone(self, error: sqlite3.Error) -> bool:
        """Whether a COMMIT that failed with ``error`` has no effect, now and after a crash.

        It has none when SQLite could not take its lock, or found no room to
        write its last frame. After any other error the log is emptied and
        synced; if that works, nothing is left of it.
        """
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            return True
        try:
            busy, _, _ = self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy or os.path.getsize(f"{self.path}-wal"):
                return False
            with open(f"{self.path}-wal", "rb") as log:
                os.fsync(log.fileno())
        except (sqlite3.Error, OSError):
            return False
        return True

    def close_if_idle(self) -> None:
        """Close it, from any thread, unless it is in use."""
        if self.lock.acquire(blocking=False):
            try:
                _close(self.sql, self.process)
            finally:
                self.lock.release()


_inherited: list[sqlite3.Connection] = []  # kept for ever, since to forget is to close


def _close(sql: sqlite3.Connection, process: Process) -> None:
    """Close, but never what a fork inherited: SQLite forbids to use it in the child."""
    if process is here():
        with forks.inside():
            sql.close()
    else:
        _inherited.append(sql)


def check_place(path: str) -> None:
    """Refuse places where no database can be, in words that say more than SQLite's."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreError(f"cannot open {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise StoreError(f"cannot open {path}: it is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"cannot open {path}: it is a device; name a file")
    kind = network_filesystem(path)
    if kind is not None:
        raise StoreError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold: "
            "use a local disk, or a store that has a server"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_early(error: sqlite3.Error) -> bool:
    """Whether an error of a statement came before it wrote anything."""
    return isinstance(error, sqlite3.ProgrammingError) or _code(error) in EARLY


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, or -1."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code if code < 0 else code & 0xFF


def refusal_of(error: sqlite3.Error, path: str) -> StoreError:
    """What an error of the driver means, when the request did not take effect."""
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return StoreClosedError(f"{path} was closed; connect() opens it again")
    code = _code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreTimeoutError(f"another program has {path} locked")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"there is no room left for {path}: make some and repeat")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"{path} cannot be read or written ({name}): look at the disk, its free space and "
            "the limits on file sizes"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not a database: give truecount a file of its own")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"{path} is damaged ({error}): restore it from a backup")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(f"{path} cannot be opened for writing ({error}): look at its permissions")
    return StoreError(f"{path}: {error} ({name})")
