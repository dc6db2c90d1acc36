"""PostgreSQL, as it is installed: every commit waits for the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.peers.model import Add, Contender, Engine, Place, Session, ours
from truecount.testing.servers import PostgreSQL

__all__ = ["ENGINES"]

STATEMENT = "UPDATE peers SET value = value + 1 WHERE name = %s RETURNING value"
BARE = "psycopg `UPDATE … RETURNING`"


@contextmanager
def start(folder: Path) -> Iterator[Place]:
    """A server that lets everybody in who comes."""
    with PostgreSQL(max_connections=700) as server:
        yield Place(f"{server.store}?timeout=60", server.port)


def _connect(place: Place) -> Any:
    where = f"host=127.0.0.1 port={place.port} user=postgres dbname=postgres"
    return psycopg.connect(where, autocommit=True, prepare_threshold=0)


@contextmanager
def open_bare(place: Place) -> Iterator[Callable[[], Session]]:
    """A connection a thread, with the statement prepared."""
    with _connect(place) as first:
        first.execute("SELECT pg_advisory_lock(1)")  # CREATE … IF NOT EXISTS fails in a race
        first.execute("CREATE TABLE IF NOT EXISTS peers (name text PRIMARY KEY, value bigint)")

    def session() -> Session:
        connection = _connect(place)
        connection.prepare_threshold = 0

        def add_to(name: str) -> Add:
            insert = "INSERT INTO peers VALUES (%s, 0) ON CONFLICT DO NOTHING"
            connection.execute(insert, (name,))
            return lambda: connection.execute(STATEMENT, (name,)).fetchone()

        return add_to

    yield session


def read_bare(place: Place, name: str) -> int:
    """What the row holds."""
    with _connect(place) as connection:
        found = connection.execute("SELECT value FROM peers WHERE name = %s", (name,)).fetchone()
    return int(found[0])


ENGINES = {
    "postgresql": Engine("PostgreSQL", start, (ours(), Contender(BARE, open_bare, read_bare)), BARE)
}
