"""The domains and their items, in one SQLite file or in memory.

Everything happens on one connection, in the thread of the event loop: between
two ``await`` nobody else is there, which makes a condition and the write that
depends on it one step. An item is one row, its attributes JSON; so the request
that matters most, a conditional put to one item, reads a row and writes a row.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from json import JSONDecoder, JSONEncoder
from pathlib import Path
from typing import Final

from simpledb_local import errors
from simpledb_local.commits import Commits
from simpledb_local.history import History
from simpledb_local.items import Attributes

__all__ = ["CHUNK", "Domains", "UnusableError"]

APPLICATION: Final = 0x53444231  # "SDB1"
VERSION: Final = 1

FILE: Final = "simpledb.db"

MOST_DOMAINS: Final = 250

CHUNK: Final = 256
"""Items looked at before others have their turn."""

_SCHEMA: Final = (
    "CREATE TABLE domains (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE items (
        domain      INTEGER NOT NULL REFERENCES domains (id),
        name        TEXT NOT NULL,
        attributes  TEXT NOT NULL,  -- JSON: {"name": ["value", ...], ...}
        PRIMARY KEY (domain, name)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

_GET: Final = "SELECT attributes FROM items WHERE domain = ? AND name = ?"
_PUT: Final = "INSERT OR REPLACE INTO items (domain, name, attributes) VALUES (?, ?, ?)"
_DELETE: Final = "DELETE FROM items WHERE domain = ? AND name = ?"
_SCAN: Final = (
    "SELECT name, attributes FROM items WHERE domain = ? AND name > ? ORDER BY name LIMIT ?"
)

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_decode = JSONDecoder().decode


class UnusableError(Exception):
    """The folder cannot be used, for the reason that the text gives."""


class Domains:
    """The domains of one account, each known by a number that is never used again.

    ``folder`` is where they are kept, None for memory only. ``lag`` is how old
    is what reads see that do not ask for consistency.
    """

    def __init__(self, folder: Path | None = None, lag: float = 0.0) -> None:
        self._sql = _open(folder)
        self._numbers: dict[str, int] = {}
        self._commits = Commits(self._sql, self._learn_names)
        self._history = History(lag)
        self._learn_names()

    # Domains

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._numbers)

    def number(self, name: str) -> int:
        """The number of the domain ``name``; raises `ServiceError` when there is none."""
        number = self._numbers.get(name)
        if number is None:
            raise errors.no_such_domain()
        return number

    def create(self, name: str) -> None:
        """Create the domain ``name``, if it is not there."""
        if name in self._numbers:
            return
        if len(self._numbers) >= MOST_DOMAINS:
            raise errors.too_many_domains()
        self._write([("INSERT INTO domains (name) VALUES (?)", (name,))])
        self._learn_names()

    def delete(self, name: str) -> None:
        """Delete the domain ``name`` with all its items, if it is there."""
        number = self._numbers.get(name)
        if number is not None:
            self._write(
                [
                    ("DELETE FROM items WHERE domain = ?", (number,)),
                    ("DELETE FROM domains WHERE id = ?", (number,)),
                ]
            )
            self._learn_names()

    # Items

    def moment(self) -> float | None:
        """The moment whose state a read without ``ConsistentRead`` sees; None: the present."""
        return self._history.moment()

    def get(self, domain: int, item: str, moment: float | None = None) -> Attributes | None:
        """The attributes of ``item``; None when it does not exist."""
        text = self._text(domain, item)
        if moment is not None:
            text = self._history.at(moment, domain, item, text)
        return None if text is None else _decode(text)

    def put(self, domain: int, items: Iterable[tuple[str, Attributes | None]]) -> None:
        """Write what ``items`` have become, all of them or none."""
        statements: list[tuple[str, tuple[object, ...]]] = []
        for item, attributes in items:
            self._history.note(domain, item, self._text)
            if attributes:
                statements.append((_PUT, (domain, item, _encode(attributes))))
            else:
                statements.append((_DELETE, (domain, item)))
        self._write(statements)

    def scan(
        self, domain: int, after: str, most: int, moment: float | None = None
    ) -> tuple[list[tuple[str, Attributes]], str | None]:
        """Items in the order of their names, from behind ``after`` on, and where to go on.

        That is None at the end. There can be fewer than ``most`` long before.
        """
        rows = self._sql.execute(_SCAN, (domain, after, most)).fetchall()
        end = rows[-1][0] if len(rows) == most else None
        if moment is not None:
            past = self._history.changed(moment, domain)
            if past:
                texts = dict(rows)
                texts.update(
                    (name, text)
                    for name, text in past.items()
                    if name > after and (end is None or name <= end)
                )
                rows = sorted((name, text) for name, text in texts.items() if text is not None)
        return [(name, _decode(text)) for name, text in rows], end

    async def every(self, domain: int) -> AsyncIterator[tuple[str, Attributes]]:
        """All items, in the order of their names. Others have their turn in between."""
        end: str | None = ""
        while end is not None:
            items, end = self.scan(domain, end, CHUNK)
            for item in items:
                yield item
            await self.pause()

    # The file

    async def pause(self) -> None:
        """Let others have their turn. What was seen before is on the disk afterwards."""
        await self._commits.done()
        await asyncio.sleep(0)

    async def durable(self) -> None:
        """Wait until everything written, or seen, so far is on the disk."""
        await self._commits.done()

    def close(self) -> None:
        """Commit what is left, and close the file."""
        self._commits.commit()
        self._sql.close()

    def _text(self, domain: int, item: str) -> str | None:
        row = self._sql.execute(_GET, (domain, item)).fetchone()
        return None if row is None else row[0]

    def _write(self, statements: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        try:
            self._commits.begin()
            for statement, values in statements:
                self._sql.execute(statement, values)
        except sqlite3.Error as error:
            self._commits.abandon(error)
            raise

    def _learn_names(self) -> None:
        self._numbers = dict(self._sql.execute("SELECT name, id FROM domains").fetchall())


def _open(folder: Path | None) -> sqlite3.Connection:
    """Open the file in ``folder``, for nobody but us; raises `UnusableError`."""
    if folder is None:
        sql = sqlite3.connect(":memory:", isolation_level=None)
        _initialise(sql)
        return sql
    try:
        _make(folder)
        sql = sqlite3.connect(folder / FILE, isolation_level=None, timeout=0)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableError(f"cannot use {folder}: {reason}") from error
    try:
        # The lock is SQLite's own: it ends with the process, however that ends.
        sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("PRAGMA fullfsync = 1")  # macOS: a plain fsync stops at the drive
        sql.execute("PRAGMA checkpoint_fullfsync = 1")
        sql.execute("BEGIN EXCLUSIVE")
        is_new = _is_new(sql, folder / FILE)
        sql.execute("COMMIT")
        sql.execute("PRAGMA journal_mode = WAL")
        if is_new:
            _initialise(sql)
    except sqlite3.Error as error:
        sql.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise UnusableError(f"{folder} is in use by another SimpleDB Local") from error
        raise UnusableError(f"cannot use {folder / FILE}: {error}") from error
    except UnusableError:
        sql.close()
        raise
    return sql


def _is_new(sql: sqlite3.Connection, file: Path) -> bool:
    """Whether there is nothing in the file yet; raises `UnusableError` when it is not ours."""
    (application,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    (tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION:
        if version > VERSION:
            raise UnusableError(
                f"{file} was written by a newer SimpleDB Local (format {version}; this one knows "
                f"{VERSION}): upgrade to use it"
            )
        return False
    if application or version or tables:
        raise UnusableError(f"{file} is a database of another program")
    return True


def _initialise(sql: sqlite3.Connection) -> None:
    sql.execute("BEGIN")
    for statement in _SCHEMA:
        sql.execute(statement)
    sql.execute("COMMIT")


def _make(folder: Path) -> None:
    """Make ``folder`` and those above it, so that a power failure does not take them away."""
    if folder.is_dir():
        return
    _make(folder.absolute().parent)
    folder.mkdir(exist_ok=True)
    parent = os.open(folder.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
