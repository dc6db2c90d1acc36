"""How a counter lies in SQLite: the tables, the statements, and what is read from a row.

The format is described in ``docs/stores.md``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from truecount.change import Answer
from truecount.errors import DamagedRecordError
from truecount.record import Address, KeyReceipt, Ledger, Record, View, make

__all__ = [
    *("APPLICATION", "EXPIRE", "INSERT", "OVERWRITE", "SCHEMA", "SELECT_ALL"),
    *("SELECT_PURGEABLE", "UPDATE", "VERSION", "Foreseen", "Found", "Latest", "Write"),
    *("damaged", "fetch", "fetch_all", "latest_of", "record_in", "record_of", "select"),
    "texts_of",
]

APPLICATION: Final = 0x54434E54  # "TCNT"
VERSION: Final = 1

NAMES: Final = 500
"""How many rows are asked for at once: of variables, SQLite may take 999 only."""

UNDECODABLE: Final = "decode"
"""What is in SQLite's words when a text is none."""

SCHEMA: Final = (
    """CREATE TABLE counters (
        id       INTEGER PRIMARY KEY,
        domain   TEXT NOT NULL,
        name     TEXT NOT NULL,
        value    TEXT NOT NULL,
        deleted  INTEGER NOT NULL,
        ledger   TEXT NOT NULL,
        UNIQUE (domain, name)
    )""",
    """CREATE TABLE keys (
        counter   INTEGER NOT NULL REFERENCES counters (id),
        key       TEXT NOT NULL,
        text      TEXT NOT NULL,
        before    TEXT NOT NULL,
        after     TEXT NOT NULL,
        revision  INTEGER NOT NULL,
        time      INTEGER NOT NULL,
        expires   INTEGER NOT NULL,
        PRIMARY KEY (counter, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX keys_by_expiry ON keys (expires)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

SELECT: Final = "SELECT id, value, deleted, ledger FROM counters WHERE domain = ? AND name = ?"

SELECT_NAMED: Final = """
SELECT name, id, value, deleted, ledger FROM counters WHERE domain = ? AND name IN """

SELECT_ALL: Final = """
SELECT name, value, deleted, ledger FROM counters WHERE domain = ? AND NOT deleted ORDER BY name"""

SELECT_PURGEABLE: Final = """
SELECT domain, name FROM counters WHERE deleted AND NOT EXISTS
    (SELECT 1 FROM keys WHERE counter = counters.id AND expires > ?)"""

INSERT: Final = "INSERT INTO counters (value, deleted, ledger, domain, name) VALUES (?, ?, ?, ?, ?)"

UPDATE: Final = "UPDATE counters SET value = ?, deleted = ?, ledger = ? WHERE id = ?"

OVERWRITE: Final = """
UPDATE counters SET value = ?, ledger = ?
WHERE id = ? AND ledger = ? AND value = ? AND deleted = 0"""

EXPIRE: Final = """
DELETE FROM keys WHERE (counter, key) IN
    (SELECT counter, key FROM keys WHERE expires <= ? ORDER BY expires LIMIT ?)"""


Found: TypeAlias = Sequence[Any]
"""A row: id, value, deleted, ledger."""


class Write(NamedTuple):
    """What is to be written in a row, None for a new one."""

    address: Address
    row: int | None
    record: Record


Latest: TypeAlias = tuple[int, str, str, str, View]
"""What this process last wrote to a row, which is likely to be there still.

Its id, its value, its ledger, that without the last line, and what is seen of it.
"""

Foreseen: TypeAlias = tuple[tuple[Any, ...], Latest, Answer]
"""What `OVERWRITE` is given, what it leaves in the row, and the answer."""


def latest_of(row: int, record: Record) -> Latest | None:
    """What is to be kept in mind of ``record`` in ``row``, if anything."""
    view = record.view
    if view is None or record.ledger.last != record.stamp.writer:
        return None
    return row, *texts_of(record), f"{record.horizon}\n{record.ledger.others}", view


def record_of(latest: Latest) -> Record:
    """The record of which that is kept in mind."""
    _, _, ledger, head, view = latest
    value, stamp, time, minimum, maximum = view
    horizon, _, others = head.partition("\n")
    text = ledger[len(horizon) + 1 :]
    known = make(Ledger, (text, stamp.writer, stamp.number, others))
    return Record(value, stamp, time, minimum, maximum, int(horizon), False, known)


def fetch(sql: sqlite3.Connection, address: Address) -> Found | None:
    """The row at ``address``."""
    try:
        found: Found | None = sql.execute(SELECT, address).fetchone()
    except sqlite3.OperationalError as error:
        if UNDECODABLE not in str(error):
            raise
        raise DamagedRecordError(f"the record of {address} is no text: {error}") from error
    return found


def fetch_all(
    sql: sqlite3.Connection, addresses: Sequence[Address]
) -> Callable[[Address], Found | None]:
    """The rows at ``addresses``, each to be asked for."""
    domains: dict[str, list[str]] = {}
    for domain, name in addresses:
        domains.setdefault(domain, []).append(name)
    rows: dict[tuple[str, str], Found] = {}
    try:
        for domain, names in domains.items():
            for start in range(0, len(names), NAMES):
                part = names[start : start + NAMES]
                marks = ", ".join("?" * len(part))
                found = sql.execute(f"{SELECT_NAMED} ({marks})", (domain, *part))
                rows.update(((domain, name), row) for name, *row in found)
    except sqlite3.OperationalError as error:
        if UNDECODABLE not in str(error):
            raise
        return partial(fetch, sql)  # which tells whose record that is
    return rows.get


def texts_of(record: Record) -> tuple[str, str]:
    """The columns ``value`` and ``ledger``."""
    return str(record.value), f"{record.horizon}\n{record.ledger.text}"


def select(
    sql: sqlite3.Connection, address: Address, keys: tuple[str, ...], now: int, found: Found | None
) -> tuple[int | None, Record | None]:
    """The row's id and its record, with the receipts of those ``keys`` that are known."""
    if found is None:
        return None, None
    row, *fields = found
    record = record_in(address, fields)
    if keys:
        try:
            record = record._replace(keys=_receipts(sql, row, keys, now))
        except DamagedRecordError as error:
            raise DamagedRecordError(
                f"the receipts of keys of counter {address.name!r} in domain {address.domain!r} "
                f"are damaged: {error}"
            ) from error
    return row, record


def record_in(address: Address, fields: list[Any]) -> Record:
    """The record in a row, or `DamagedRecordError`."""
    try:
        value, deleted, text = fields
        horizon, _, lines = text.partition("\n")
        return Record.of(value, deleted, horizon, Ledger(lines))
    except (AttributeError, TypeError, ValueError, DamagedRecordError) as error:
        raise damaged(address, error) from error


def damaged(address: Address, error: Exception) -> DamagedRecordError:
    return DamagedRecordError(
        f"the record of counter {address.name!r} in domain {address.domain!r} is damaged: {error}"
    )


def _receipts(
    sql: sqlite3.Connection, row: int, keys: tuple[str, ...], now: int
) -> tuple[KeyReceipt, ...]:
    marks = ", ".join("?" * len(keys))
    found = sql.execute(
        "SELECT key, text, before, after, revision, time FROM keys "  # noqa: S608  # only marks
        f"WHERE counter = ? AND expires > ? AND key IN ({marks})",
        (row, now, *keys),
    )
    return tuple(
        KeyReceipt.of(key, f"{revision} {at} {before} {after} {text}")
        for key, text, before, after, revision, at in found.fetchall()
    )
