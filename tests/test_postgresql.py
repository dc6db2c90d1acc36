"""The PostgreSQL store, through psycopg, on a PostgreSQL of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from helpers import missing
from truecount.testing.conformance import StoreConformance
from truecount.testing.servers import PgBouncer, PostgreSQL

_WRITES = re.compile(rb"\.(add|add_many|replace)_1\(|\x00truecount (add|replace) ")


def is_write(request: bytes) -> bool:
    """Whether a request changes a counter, by name or by a statement that was prepared."""
    return _WRITES.search(request) is not None and b"PREPARE " not in request


def schema(folder: Path) -> str:
    """The name of the schema that belongs to ``folder``."""
    return f"t{sha256(str(folder).encode()).hexdigest()[:16]}"


def started(**options: Any) -> PostgreSQL:
    """A PostgreSQL, if this machine has one."""
    try:
        return PostgreSQL(**options)
    except FileNotFoundError as error:
        missing(str(error))
        raise


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with started() as server:
        yield server


@pytest.fixture(scope="module")
def bouncer(server: PostgreSQL) -> Iterator[PgBouncer]:
    try:
        bouncer = PgBouncer(server)
    except FileNotFoundError as error:
        missing(str(error))
        raise
    with bouncer:
        yield bouncer


class TestPostgreSQL(StoreConformance):
    """``postgresql://``."""

    @pytest.fixture(autouse=True)
    def _at(self, server: PostgreSQL) -> None:
        self.address = server.store

    def url(self, folder: Path) -> str:
        return f"{self.address}?schema={schema(folder)}"


class TestPostgreSQLPooled(StoreConformance):
    """Behind a pooler that gives a session to another client after each request."""

    @pytest.fixture(autouse=True)
    def _at(self, bouncer: PgBouncer) -> None:
        self.address = bouncer.store

    def url(self, folder: Path) -> str:
        return f"{self.address}?schema={schema(folder)}"
