"""Redis for the tests of its store."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from helpers import missing
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


def prefix(folder: Path) -> str:
    """The prefix of the keys that belong to ``folder``."""
    return sha256(str(folder).encode()).hexdigest()[:16]


def is_write(request: bytes) -> bool:
    """Whether a request may write a record."""
    return any(
        word in request for word in (ADD.digest, NEXT.digest, REPLACE.digest, b"'HSET', key")
    )
