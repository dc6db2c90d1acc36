"""SQLite in a file, WAL, ``synchronous=FULL``."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.model import Add, Contender, Engine, Place, Session, ours

__all__ = ["ENGINES"]

STATEMENT = "UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value"


@contextmanager
def start(folder: Path) -> Iterator[Place]:
    """A folder of its own, on the same disk."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as own:
        yield Place(f"sqlite:///{own}/ours.db?timeout=60", folder=own)


def _connect(place: Place) -> sqlite3.Connection:
    sql = sqlite3.connect(f"{place.folder}/bare.db", timeout=60, isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = FULL")
    sql.execute("CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER)")
    return sql


@contextmanager
def open_bare(place: Place) -> Iterator[Callable[[], Session]]:
    """A connection a thread."""

    def session() -> Session:
        sql = _connect(place)

        def add_to(name: str) -> Add:
            sql.execute("INSERT OR IGNORE INTO counters VALUES (?, 0)", (name,))
            return lambda: sql.execute(STATEMENT, (name,)).fetchall()

        return add_to

    yield session


def read_bare(place: Place, name: str) -> int:
    """What the row holds."""
    sql = _connect(place)
    (value,) = sql.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    sql.close()
    return int(value)


def _cache(place: Place) -> Any:
    from diskcache import Cache

    return Cache(f"{place.folder}/diskcache", timeout=60, sqlite_synchronous=2)


@contextmanager
def open_diskcache(place: Place) -> Iterator[Callable[[], Session]]:
    """One cache, which has a connection for each thread."""
    with _cache(place) as cache:

        def add_to(name: str) -> Add:
            return lambda: cache.incr(name)

        yield lambda: add_to


def read_diskcache(place: Place, name: str) -> int:
    """What the cache holds."""
    with _cache(place) as cache:
        return int(cache[name])


ENGINES = {
    "sqlite": Engine(
        "SQLite, synchronous=FULL",
        start,
        (
            ours(),
            Contender("sqlite3 `UPDATE … RETURNING`", open_bare, read_bare),
            Contender("diskcache `incr`", open_diskcache, read_diskcache),
        ),
        "sqlite3 `UPDATE … RETURNING`",
    )
}
