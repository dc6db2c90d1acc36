"""SimpleDB Local, with its data on the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.aws import client_of
from bench.peers.model import Add, Contender, Engine, Place, Session, ours
from truecount.testing.servers import SimpleDBLocal

__all__ = ["ENGINES"]

SEQUENCE = "boto 2.49 `Sequence`"
BARE = "boto3 conditional put"
DOMAIN = "peers"


@contextmanager
def start(folder: Path) -> Iterator[Place]:
    """A server of its own."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as own,
        SimpleDBLocal("--data", own) as server,
    ):
        yield Place(f"{server.store}?timeout=60", server.port)


def _domain(place: Place) -> Any:
    from boto.regioninfo import RegionInfo
    from boto.sdb.connection import SDBConnection

    region = RegionInfo(name="local", endpoint="127.0.0.1")
    sdb = SDBConnection("local", "local", is_secure=False, region=region, port=place.port)
    return sdb.create_domain(DOMAIN)


@contextmanager
def open_sequence(place: Place) -> Iterator[Callable[[], Session]]:
    """A connection a thread; where another was first, it says so, and is asked again."""
    from boto.sdb.db.sequence import Sequence

    def session() -> Session:
        domain = _domain(place)

        class Local(Sequence):  # type: ignore[misc]  # it has no types
            db = property(lambda self: domain)  # its own connection would go to AWS

        def add_to(name: str) -> Add:
            sequence = Local(name)

            def add() -> object:
                while True:
                    try:
                        return sequence.next()
                    except ValueError:  # "Sequence out of sync"
                        continue

            return add

        return add_to

    yield session


def read_sequence(place: Place, name: str) -> int:
    """What the item holds."""
    return int(_domain(place).get_item(name, consistent_read=True)["current_value"])


@contextmanager
def open_put(place: Place) -> Iterator[Callable[[], Session]]:
    """Put on condition of what was put last; where another was first, look."""
    client = client_of("sdb", place)
    client.create_domain(DomainName=DOMAIN)

    def session() -> Session:
        def add_to(name: str) -> Add:
            item = {"DomainName": DOMAIN, "ItemName": f"put-{name}"}
            value = None

            def add() -> int:
                nonlocal value
                while True:
                    new = 1 if value is None else value + 1
                    expected: dict[str, Any] = {"Name": "value", "Exists": False}
                    if value is not None:
                        expected = {"Name": "value", "Value": str(value), "Exists": True}
                    attribute = {"Name": "value", "Value": str(new), "Replace": True}
                    try:
                        client.put_attributes(**item, Attributes=[attribute], Expected=expected)
                    except client.exceptions.ClientError:  # a condition that failed, or no value
                        value = _value(client, item)
                        continue
                    value = new
                    return new

            return add

        return add_to

    yield session


def _value(client: Any, item: dict[str, str]) -> int | None:
    found = client.get_attributes(**item, ConsistentRead=True).get("Attributes")
    return int(found[0]["Value"]) if found else None


def read_put(place: Place, name: str) -> int:
    """What the item holds."""
    return _value(client_of("sdb", place), {"DomainName": DOMAIN, "ItemName": f"put-{name}"}) or 0


ENGINES = {
    "simpledb": Engine(
        "SimpleDB Local",
        start,
        (
            ours(),
            Contender(BARE, open_put, read_put),
            Contender(SEQUENCE, open_sequence, read_sequence),
        ),
        BARE,
    )
}
