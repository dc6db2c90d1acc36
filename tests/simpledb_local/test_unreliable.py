"""``--lag`` and ``--fail-rate``: what the real service does to clients now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from helpers import wait_until
from simpledb_local.domains import Domains
from simpledb_local.history import LONGEST_READ, History
from simpledb_server import (
    Client,
    Server,
    batch_fields,
    put_fields,
    serving,
)

LONG = 3600
"""A lag that outlives every test: reads see what was before any of its writes."""


@pytest.fixture(scope="module")
def lagging() -> Iterator[Server]:
    with serving("--lag", LONG) as server:
        yield server


@pytest.fixture
def client(lagging: Server) -> Iterator[Client]:
    client = lagging.client()
    client.create("domain")
    yield client
    client.ok("DeleteDomain", DomainName="domain")


def old(client: Client, item: str) -> dict[str, list[str]]:
    """What a read without ConsistentRead sees."""
    return client.ok("GetAttributes", DomainName="domain", ItemName=item).attributes


def test_a_reader_that_forgot_the_flag(client: Client) -> None:
    """GetAttributes sees what was, unless it asks for consistency."""
    client.put("domain", "item", ("a", "1"))
    assert old(client, "item") == {}
    more = {"ConsistentRead": "false"}
    reply = client.ok("GetAttributes", DomainName="domain", ItemName="item", **more)
    assert reply.attributes == {}
    assert client.read("domain", "item") == {"a": ["1"]}


def test_select_too(client: Client) -> None:
    """Select sees what was: neither what is new, nor what changed, in any of its forms."""
    items = [put_fields(f"i{number:03}", ("a", number)) for number in range(20)]
    client.ok("BatchPutAttributes", batch_fields(*items), DomainName="domain")
    for where in ("", "where a > ''", "where itemName() = 'i003'", "where a > '' order by a"):
        expression = f"select * from domain {where}"
        assert client("Select", SelectExpression=expression).items == {}
        assert client.select(expression).items
        counted = expression.replace("*", "count(*)")
        assert client("Select", SelectExpression=counted).count == 0
        assert client.select(counted).count in (1, 20)


def test_conditions_are_never_old(client: Client) -> None:
    """A condition looks at what is, so a stale read makes a write fail, and loses nothing."""
    client.put("domain", "item", ("a", "1"))
    condition = {"Expected.Name": "a", "Expected.Exists": "false"}
    assert client.put("domain", "item", ("a", "2"), **condition).code == "ConditionalCheckFailed"
    condition = {"Expected.Name": "a", "Expected.Value": "1"}
    assert client.put("domain", "item", ("a", "2", True), **condition).status == 200


def test_the_lag_passes() -> None:
    """After the lag every reader sees what was written."""
    with serving("--lag", 0.3) as server:
        client = server.client()
        client.create("domain")
        client.put("domain", "item", ("a", "1"))
        wait_until(lambda: old(client, "item") == {"a": ["1"]}, "the write is seen")
        client.put("domain", "item", ("a", "2", True))
        client.ok("DeleteAttributes", DomainName="domain", ItemName="item")
        wait_until(lambda: old(client, "item") == {}, "the deletion is seen")


class Clock:
    """A clock that is set by hand."""

    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_what_an_item_was() -> None:
    """Every moment of the lag has its state, and what is older is forgotten."""
    clock = Clock()
    history = History(10, clock)
    states = [None, "written at 100.0", "written at 102.0"]
    for time, state in zip((100.0, 102.0, 104.0), states, strict=True):
        clock.time = time
        history.note(1, "item", lambda _domain, _item, state=state: state)
    assert history.moment() == 94
    seen = [history.at(moment, 1, "item", "now") for moment in (99.0, 100.0, 103.0, 104.0)]
    assert seen == [None, "written at 100.0", "written at 102.0", "now"]
    assert history.changed(103.0, 1) == {"item": "written at 102.0"}
    assert history.changed(104.0, 1) == {}
    clock.time = 104.0 + 10 + LONGEST_READ + 1
    history.note(2, "other", lambda _domain, _item: None)
    assert history.changed(0.0, 1) == {}


def test_an_old_scan() -> None:
    """A scan of the past misses nothing that was deleted, shows nothing new, and is in order."""

    async def look() -> list[tuple[str, object]]:
        domains = Domains(lag=LONG)
        domains.create("domain")
        number = domains.number("domain")
        for n in range(0, 1000, 2):
            domains.put(number, [(f"i{n:04}", {"a": ["old"]})])
        await domains.durable()
        now = (domains.moment() or 0) + LONG
        for n in range(0, 1000, 3):
            domains.put(number, [(f"i{n:04}", {"a": ["new"]} if n % 4 else None)])
        await domains.durable()
        found: list[tuple[str, object]] = []
        end: str | None = ""
        while end is not None:
            items, end = domains.scan(number, end, 7, now)
            found += items
        domains.close()
        return found

    assert asyncio.run(look()) == [(f"i{n:04}", {"a": ["old"]}) for n in range(0, 1000, 2)]


def test_failures(tmp_path: object) -> None:
    """``--fail-rate``: 503 with the service's text, before the write or after it, half and half."""
    with serving("--data", tmp_path) as server:
        server.client().create("domain")
    with serving("--data", tmp_path, "--fail-rate", 1) as server:
        client = server.client()
        for number in range(100):
            reply = client.put("domain", f"i{number}", ("a", "1"))
            assert (reply.status, reply.code) == (503, "ServiceUnavailable")
            assert reply.message == (
                "Service AmazonSimpleDB is currently unavailable. Please try again later"
            )
        assert client("ListDomains").status == client.select("select nonsense").status == 503
    with serving("--data", tmp_path) as server:
        applied = server.client().select("select count(*) from domain").count
        assert 10 < applied < 90  # missed once in 10 ** 17 runs


def test_some_failures() -> None:
    """A rate between 0 and 1 fails some requests and not others."""
    with serving("--fail-rate", 0.3) as server:
        client = server.client()
        statuses = [client("ListDomains").status for _ in range(300)]
        assert set(statuses) == {200, 503}
        assert 30 < statuses.count(503) < 160
