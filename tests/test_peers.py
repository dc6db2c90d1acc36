"""What clients make of lost replies: the table in docs/promises.md, cell by cell."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import redis
from botocore.exceptions import BotoCoreError
from kazoo.client import KazooClient
from kazoo.recipe.counter import Counter as KazooCounter

import test_networked
import test_simpledb_losses
from helpers import missing
from networked import Networked
from truecount import Counter, connect
from truecount.testing.proxy import Proxy
from truecount.testing.servers import Server, ZooKeeper

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")

PAGE = Path(__file__).parent.parent / "docs" / "promises.md"

ERRORS = (redis.RedisError, psycopg.Error, BotoCoreError)

Call = tuple[Callable[[], object], Callable[[], int]]
"""One call that adds 1, through the proxy; and the value in truth."""


def row(name: str) -> list[str]:
    """The cells of the row that begins with ``name``."""
    found = re.search(rf"^\| {re.escape(name)} \|(.+)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert found, f"the page has no row {name!r}"
    return [cell.strip() for cell in found[1].split("|")]


def happens(
    server: Any, is_write: Callable[[bytes], bool], client: Callable[[Any, Proxy, ExitStack], Call]
) -> list[str]:
    """What a call does when 1, 3 and 10 replies are lost: how far the counter moves, and errors."""
    cells = []
    for lost in (1, 3, 10):
        with Proxy(server.port) as proxy, ExitStack() as stack:
            call, truth = client(server, proxy, stack)
            before = truth()
            proxy.lose(lost, is_write)
            try:
                call()
                error = ""
            except ERRORS:
                error = ", error"
            cells.append(f"{truth() - before}{error}")
    return cells


def ours(server: Any, proxy: Proxy, stack: ExitStack) -> Call:
    """``add(1)`` of truecount."""
    truth = Counter("peers", "counter", store=server.store)
    there = server.store.replace(f":{server.port}", f":{proxy.port}")
    c = Counter("peers", "counter", store=stack.enter_context(connect(there)))
    return lambda: c.add(1), truth.refresh


SUITES: dict[str, type[Networked]] = {
    "SimpleDB": test_simpledb_losses.TestSimpleDBLocal,
    "Redis": test_networked.TestRedis,
    "PostgreSQL": test_networked.TestPostgreSQL,
    "DynamoDB": test_networked.TestMoto,
    "etcd": test_networked.TestEtcd,
}


@contextmanager
def started(start: Callable[[], Any]) -> Iterator[Any]:
    """A server, if this machine has its program."""
    try:
        server = start()
    except (FileNotFoundError, RuntimeError) as error:
        missing(str(error))
        raise
    with server:
        yield server


@pytest.mark.parametrize("store", SUITES)
def test_truecount(store: str) -> None:
    """Ours moves by 1, however many replies are lost, and says so."""
    with started(SUITES[store].start) as server:
        is_write = SUITES[store]().is_write
        assert happens(server, is_write, ours) == row(f"truecount `add(1)`, {store}")


def test_redis_py() -> None:
    """redis-py repeats what was not answered, ten times, and says nothing."""

    def client(server: Server, proxy: Proxy, stack: ExitStack) -> Call:
        direct = stack.enter_context(redis.Redis(port=server.port))
        through = stack.enter_context(redis.Redis(port=proxy.port))
        return lambda: through.incr("peer"), lambda: int(direct.get("peer") or 0)  # type: ignore[arg-type]

    with started(test_networked.TestRedis.start) as server:
        assert happens(server, lambda request: b"INCR" in request, client) == row("redis-py `incr`")


def test_boto3() -> None:
    """So does boto3, three times."""

    def client(server: Server, proxy: Proxy, stack: ExitStack) -> Call:
        def dynamodb(port: int) -> Any:
            there = boto3.client(
                "dynamodb",
                endpoint_url=f"http://127.0.0.1:{port}",
                region_name="us-east-1",
                aws_access_key_id="local",
                aws_secret_access_key="local",  # noqa: S106  # any will do
            )
            return stack.enter_context(closing(there))

        direct, through = dynamodb(server.port), dynamodb(proxy.port)
        item: dict[str, Any] = {"TableName": "peers", "Key": {"name": {"S": "counter"}}}
        if "peers" not in direct.list_tables()["TableNames"]:
            direct.create_table(
                TableName="peers",
                KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

        def add() -> None:
            through.update_item(
                **item, UpdateExpression="ADD v :n", ExpressionAttributeValues={":n": {"N": "1"}}
            )

        def truth() -> int:
            found = direct.get_item(**item, ConsistentRead=True).get("Item", {"v": {"N": "0"}})
            return int(found["v"]["N"])

        return add, truth

    with started(test_networked.TestMoto.start) as server:
        wrote = happens(server, lambda request: b"UpdateItem" in request, client)
        assert wrote == row("boto3 DynamoDB `ADD`")


def test_kazoo() -> None:
    """Kazoo's counter goes on until it is answered; only its waits are shortened here."""
    soon = {"max_tries": -1, "delay": 0.02, "max_delay": 0.05}
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # it tells of every connection it loses

    def client(server: ZooKeeper, proxy: Proxy, stack: ExitStack) -> Call:
        def counter(hosts: str) -> Any:
            zookeeper = KazooClient(hosts, connection_retry=soon, command_retry=soon)
            zookeeper.start()
            stack.callback(zookeeper.close)
            stack.callback(zookeeper.stop)
            return KazooCounter(zookeeper, "/peer")

        direct, through = counter(server.hosts), counter(f"127.0.0.1:{proxy.port}")
        return lambda: through + 1, lambda: int(direct.value)

    def sets_data(request: bytes) -> bool:
        return len(request) >= 12 and struct.unpack(">i", request[8:12]) == (5,)

    with started(ZooKeeper) as server:
        assert happens(server, sets_data, client) == row("kazoo `Counter += 1`")


def test_psycopg() -> None:
    """Psycopg repeats nothing, and leaves it to its caller to find out."""

    def client(server: Any, proxy: Proxy, stack: ExitStack) -> Call:
        def connected(port: int) -> Any:
            there = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
            return stack.enter_context(closing(psycopg.connect(there, autocommit=True)))

        direct = connected(server.port)
        direct.execute("CREATE TABLE IF NOT EXISTS peers (v integer)")
        direct.execute("INSERT INTO peers SELECT 0 WHERE NOT EXISTS (SELECT FROM peers)")
        through = connected(proxy.port)
        add = "UPDATE peers SET v = v + 1 RETURNING v"
        return (
            lambda: through.execute(add).fetchone(),
            lambda: direct.execute("SELECT v FROM peers").fetchone()[0],
        )

    with started(test_networked.TestPostgreSQL.start) as server:
        moved = happens(server, lambda request: b"UPDATE peers" in request, client)
        assert moved == row("psycopg `UPDATE … RETURNING`")
