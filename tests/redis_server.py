"""Redis for the tests of its store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import redis

from helpers import missing, wait_until
from truecount.stores.redis.scripts import ADD, NEXT, REPLACE
from truecount.testing.servers import Redis, RedisCluster


def serving(**options: object) -> Redis:
    """A server with ``options``."""
    try:
        return Redis(**options)
    except FileNotFoundError:
        missing("redis-server")
        raise


def serving_cluster(**options: object) -> RedisCluster:
    """A cluster of servers with ``options``."""
    try:
        return RedisCluster(**options)
    except FileNotFoundError:
        missing("redis-server")
        raise


@contextmanager
def replicating(server: Redis) -> Iterator[tuple[Redis, Any]]:
    """A replica of ``server`` that has all it had, and a bare client of it."""
    # A replica that writes a log is not stopped before it has written the first.
    with (
        serving(replicaof=f"127.0.0.1 {server.port}", appendonly="no") as replica,
        redis.Redis(port=replica.port) as there,
    ):
        wait_until(
            lambda: there.info("replication")["master_link_status"] == "up", "it has what there is"
        )
        yield replica, there


def prefix(folder: Path) -> str:
    """The prefix of the keys that belong to ``folder``."""
    return sha256(str(folder).encode()).hexdigest()[:16]


def is_write(request: bytes) -> bool:
    """Whether a request may write a record."""
    return any(
        word in request for word in (ADD.digest, NEXT.digest, REPLACE.digest, b"'HSET', key")
    )
