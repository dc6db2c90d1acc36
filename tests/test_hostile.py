"""Damaged records on every store that keeps them: refused by name, and left as they are."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import boto3
import psycopg
import redis

import test_postgresql
from etcd_server import Space, coded
from hostile import BRIEFLY, DOMAIN, ENGINE, Damage, Hostile, Parts
from test_dynamodb_records import KEYS, TABLE, bare
from truecount.testing.servers import Etcd, Moto, PostgreSQL, Redis, SimpleDBLocal


class TestSQLite(Hostile):
    """A row of a file: the value, whether it is deleted, and the ledger."""

    blind = True  # the line of a writer who does not write
    pace = 1
    LINES = ("horizon", "earlier line", "latest line")

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "counters.db"

    def urls(self, server: Path) -> tuple[str, str]:
        return f"sqlite:///{server}?synchronous=normal", f"sqlite:///{server}"

    @contextmanager
    def sql(self, server: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(server, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
            yield connection

    def look(self, server: Path, name: str) -> Parts:
        with self.sql(server) as sql:
            (row,) = sql.execute(
                "SELECT value, deleted, ledger FROM counters WHERE name = ?", (name,)
            )
        value, deleted, ledger = row
        return {"value": value, "deleted": str(deleted), "ledger": ledger}

    def parts(self, there: Parts) -> Parts:
        lines = dict(zip(self.LINES, there["ledger"].split("\n", 2), strict=True))
        return {"value": there["value"], "deleted": there["deleted"], **lines}

    def keeps(self, there: Parts, damaged: Parts, damage: Damage) -> bool:
        text = damage.parts[damage.part]
        if "\n" in str(text):  # what is not the writer's own
            text = text.partition("\n")[2]
        return damage.part in ("earlier line", "horizon") and text in there["ledger"]

    def write(self, server: Path, name: str, parts: Parts) -> None:
        lines = [parts[line] for line in self.LINES]
        if any(isinstance(line, bytes) for line in lines):
            lines = [line if isinstance(line, bytes) else line.encode() for line in lines]
            ledger: Any = b"\n".join(lines)
        else:
            ledger = "\n".join(lines)
        with self.sql(server) as sql:
            sql.execute(
                "UPDATE counters SET value = ?, deleted = ?, ledger = ? WHERE name = ?",
                (parts["value"], parts["deleted"], ledger, name),
            )

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        return iter(())  # SQLite has no row without one of its columns

    def newer(self, parts: Parts) -> list[Parts]:
        return []  # the format is the file's: tests/test_sqlite.py


class TestRedis(Hostile):
    """A hash: the state, the value, who wrote last, and a line a writer."""

    blind = True  # another writer's line, and one's own but for its number

    CLIENTS: ClassVar[dict[int, Any]] = {}

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Redis]:
        with Redis() as server, redis.Redis(port=server.port) as cls.CLIENTS[server.port]:
            yield server

    def urls(self, server: Redis) -> tuple[str, str]:
        return f"{server.store}?timeout=20", server.store

    @contextmanager
    def hash(self, server: Redis, name: str) -> Iterator[tuple[Any, str]]:
        yield self.CLIENTS[server.port], f"truecount:{{{DOMAIN}/{name}}}"

    def look(self, server: Redis, name: str) -> Parts:
        with self.hash(server, name) as (client, key):
            found: dict[bytes, bytes] = client.hgetall(key)
        return {field.decode(): _text(text) for field, text in sorted(found.items())}

    def write(self, server: Redis, name: str, parts: Parts) -> None:
        with self.hash(server, name) as (client, key), client.pipeline() as pipeline:
            pipeline.delete(key)
            pipeline.hset(key, mapping=parts)
            pipeline.execute()

    def mends(self, what: str, damage: Damage) -> bool:
        zeros = damage.label.endswith("zero before")
        return what in ENGINE and (damage.part.startswith("w:") or zeros)

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        if part in ("truecount", "value", "last", f"w:{parts['last']}"):  # no other is missed
            yield from super().removals(part, parts)

    def newer(self, parts: Parts) -> list[Parts]:
        return [{**parts, "truecount": state} for state in ("2 live 0", "2", "10 {}", "2 alive")]


class TestPostgreSQL(Hostile):
    """A row: the latest write in columns, and the other writers' lines."""

    blind = True  # what an addition has no need to look at

    COLUMNS: ClassVar = {
        **dict.fromkeys(("value", "before", "after", "minimum", "maximum"), "numeric"),
        **dict.fromkeys(("horizon", "number", "revision", "time"), "bigint"),
        **dict.fromkeys(("writer", "codes", "others"), "text"),
        "deleted": "boolean",
    }
    OPEN: ClassVar[dict[int, psycopg.Connection[Any]]] = {}
    INSTEAD: ClassVar[dict[str, list[str]]] = {
        "numeric": ["NaN", "Infinity", "0.5", "1e600"],
        "bigint": ["-5"],
        "text": ["", "a b", "?", "\N{LATIN SMALL LETTER E WITH ACUTE}", "a\nb"],
        "boolean": [],
    }

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[PostgreSQL]:
        with test_postgresql.started() as server:
            yield server
            cls.OPEN.pop(server.port).close()

    def urls(self, server: PostgreSQL) -> tuple[str, str]:
        return f"{server.store}?timeout=20", server.store

    def look(self, server: PostgreSQL, name: str) -> Parts:
        columns = ", ".join(f"{column}::text" for column in self.COLUMNS)
        with self.sql(server) as sql:
            row = sql.execute(
                f"SELECT {columns} FROM truecount.counters WHERE name = %s", (name,)
            ).fetchone()
        assert row is not None
        return dict(zip(self.COLUMNS, row, strict=True))

    def write(self, server: PostgreSQL, name: str, parts: Parts) -> None:
        columns = ", ".join(f"{column} = %s::{kind}" for column, kind in self.COLUMNS.items())
        with self.sql(server) as sql:
            sql.execute(
                f"UPDATE truecount.counters SET {columns} WHERE name = %s",
                (*(parts[column] for column in self.COLUMNS), name),
            )

    @contextmanager
    def sql(self, server: PostgreSQL) -> Iterator[psycopg.Connection[Any]]:
        if server.port not in self.OPEN:
            self.OPEN[server.port] = psycopg.connect(server.store, autocommit=True)
        yield self.OPEN[server.port]

    def damages(self, parts: Parts) -> Iterator[Damage]:
        for column, kind in self.COLUMNS.items():
            for bad in self.INSTEAD[kind]:
                if (column, bad) in (("others", ""), ("writer", "?")):
                    continue  # no line is missed, and that could be a writer
                yield Damage(f"{column}: {bad!r}", column, {**parts, column: bad})
        line = {"others": parts["others"].removesuffix("\n")}
        for damage in super().damages(line):
            if not isinstance(damage.parts["others"], bytes):  # PostgreSQL has no such text
                others = damage.parts["others"] + "\n"
                yield damage._replace(parts={**parts, "others": others})

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        return iter(())  # a row has all its columns

    def mends(self, what: str, damage: Damage) -> bool:
        # The latest write's columns become a line, and one's own line goes.
        return what in ENGINE and damage.part not in ("value", "minimum", "maximum", "after")

    def newer(self, parts: Parts) -> list[Parts]:
        return []  # the format is the schema's: tests/test_postgresql_records.py


class TestEtcd(Hostile):
    """The record's own key, and a key a line of another writer."""

    blind = True  # another writer's line
    pace = 11

    @classmethod
    def start(cls) -> AbstractContextManager[Any]:
        return Etcd()

    def urls(self, server: Etcd) -> tuple[str, str]:
        return f"{server.store}/hostile?timeout=20", f"{server.store}/hostile"

    def space(self, server: Etcd) -> Space:
        space = Space(server)
        space.prefix = "hostile"
        return space

    def look(self, server: Etcd, name: str) -> Parts:
        ends = (f"c/{DOMAIN}/{name}", f"w/{DOMAIN}/{name}/")
        found = self.space(server).raw().items()
        return {key: _text(value) for key, value in found if key.startswith(ends)}

    def write(self, server: Etcd, name: str, parts: Parts) -> None:
        space = self.space(server)
        for gone in self.look(server, name).keys() - parts.keys():
            server.ask("/v3/kv/deleterange", key=coded(f"hostile/{gone}"))
        for key, value in parts.items():
            space.put(key, value)

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        return iter(())  # without its key there is no counter, and no other is missed

    def newer(self, parts: Parts) -> list[Parts]:
        (record,) = (key for key in parts if key.startswith("c/"))
        return [{**parts, record: text} for text in ("3 5 live 0\nw 1", "3", "10 {}")]


class TestDynamoDB(Hostile):
    """An item, whose attributes have types."""

    blind = True  # what a write that knows the record has no need to look at
    pace = 31
    calls = BRIEFLY

    INSTEAD: ClassVar = ({"N": "7"}, {"S": "7"}, {"BOOL": True}, {"M": {}}, {"N": "1E+100"})
    CLIENTS: ClassVar[dict[int, Any]] = {}

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Moto]:
        with Moto() as server, bare(server.port) as cls.CLIENTS[server.port]:
            yield server

    def urls(self, server: Moto) -> tuple[str, str]:
        return f"{server.store}&timeout=20", server.store

    def where(self, name: str) -> dict[str, Any]:
        return {"domain": {"S": DOMAIN}, "item": {"S": f"c#{name}"}}

    def look(self, server: Moto, name: str) -> Parts:
        answer = self.CLIENTS[server.port].get_item(
            TableName=TABLE, Key=self.where(name), ConsistentRead=True
        )
        return {k: v for k, v in answer["Item"].items() if k not in self.where(name)}

    def write(self, server: Moto, name: str, parts: Parts) -> None:
        item = {**parts, **self.where(name)}
        self.CLIENTS[server.port].put_item(TableName=TABLE, Item=item)

    def damages(self, parts: Parts) -> Iterator[Damage]:
        return itertools.islice(self.all(parts), 0, None, 3)  # it is slow; and see test_damage

    def all(self, parts: Parts) -> Iterator[Damage]:
        for part, typed in parts.items():
            yield from self.removals(part, parts)
            for bad in self.INSTEAD:
                if bad.keys() != typed.keys() or bad == {"N": "1E+100"}:
                    yield Damage(f"{part}: {bad}", part, {**parts, part: bad})
        lines = parts["writers"]["M"]
        for damage in super().damages({writer: line["S"] for writer, line in lines.items()}):
            texts = damage.parts.items()
            if damage.label.endswith("gone") or bytes in map(type, damage.parts.values()):
                continue  # no line is missed, and what is no text has another type
            writers = {"M": {writer: {"S": text} for writer, text in texts}}
            yield Damage(damage.label, "writers", {**parts, "writers": writers})
        for damage in super().damages({"stamp": parts["stamp"]["S"]}):
            if isinstance(text := damage.parts.get("stamp"), str):
                yield Damage(damage.label, "stamp", {**parts, "stamp": {"S": text}})

    def newer(self, parts: Parts) -> list[Parts]:
        return [{**parts, "format": {"N": "2"}}, {"format": {"N": "17"}}]


class TestSimpleDB(Hostile):
    """An item, whose attributes are text; some of them are older writers'."""

    names = "item '{name}' in SimpleDB domain"
    known = False  # all that a write is conditional on is the timestamp
    calls = BRIEFLY
    pace = 11

    CLIENTS: ClassVar[dict[int, Any]] = {}

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[SimpleDBLocal]:
        with SimpleDBLocal() as server:
            client = boto3.client("sdb", endpoint_url=server.url, **KEYS)
            client.create_domain(DomainName=DOMAIN)
            cls.CLIENTS[server.port] = client
            yield server
            client.close()

    def urls(self, server: SimpleDBLocal) -> tuple[str, str]:
        return f"{server.store}?timeout=20", server.store

    def look(self, server: SimpleDBLocal, name: str) -> Parts:
        answer = self.CLIENTS[server.port].get_attributes(
            DomainName=DOMAIN, ItemName=name, ConsistentRead=True
        )
        found: dict[str, Any] = {}
        for pair in answer.get("Attributes", ()):
            found.setdefault(pair["Name"], []).append(pair["Value"])
        return {k: v[0] if len(v) == 1 else tuple(sorted(v)) for k, v in sorted(found.items())}

    def write(self, server: SimpleDBLocal, name: str, parts: Parts) -> None:
        client, where = self.CLIENTS[server.port], {"DomainName": DOMAIN, "ItemName": name}
        gone = {k: v for k, v in self.look(server, name).items() if k not in parts}
        if gone:
            client.delete_attributes(**where, Attributes=_pairs(gone))
        pairs = [{**pair, "Replace": True} for pair in _pairs(parts)]
        client.put_attributes(**where, Attributes=pairs)

    def damages(self, parts: Parts) -> Iterator[Damage]:
        for damage in super().damages(parts):
            text = damage.parts.get(damage.part)
            emptied = text == "" and not self.is_missed(damage.part, parts)
            if not (isinstance(text, bytes) or emptied or len((text or "").encode()) > 1024):
                yield damage
        for part, text in parts.items():
            yield Damage(f"{part}: two values", part, {**parts, part: (text, "other")})

    def is_missed(self, part: str, parts: Parts) -> bool:
        """Whether a part is missed: neither a key's nor an earlier writer's receipt is."""
        if part.startswith("truecount_writer"):
            return bool(parts[part].split(" ")[3] == parts["truecount"].split(" ")[1])
        return not part.startswith("truecount_key")

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        if part in ("current_value", "timestamp"):
            yield from super().removals(part, parts)

    def newer(self, parts: Parts) -> list[Parts]:
        return [{**parts, "truecount": text} for text in ("2 whatever", "2", "10 {}")]


def _pairs(attributes: Parts) -> list[dict[str, str]]:
    """Attributes as SimpleDB takes them; a tuple is of several values."""
    return [
        {"Name": name, "Value": value}
        for name, text in attributes.items()
        for value in ([text] if isinstance(text, str) else text)
    ]


def _text(raw: bytes) -> Any:
    """What is text, as such."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
