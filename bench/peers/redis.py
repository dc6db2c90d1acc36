"""Redis without an append-only file, and with ``appendfsync always``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from bench.peers.model import Add, Contender, Engine, Place, Session, ours
from truecount.testing.servers import Redis

__all__ = ["ENGINES", "INCR"]

INCR = "redis-py `INCR`"

REPLACE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2])
    return 1
end
return 0
"""


@contextmanager
def start(folder: Path, **options: object) -> Iterator[Place]:
    """A server with its data where ours would be."""
    with Redis(**options) as server:
        yield Place(f"{server.store}?timeout=60", server.port)


def _client(place: Place) -> Any:
    return redis.Redis(port=place.port)


@contextmanager
def open_incr(place: Place) -> Iterator[Callable[[], Session]]:
    """A client with a connection of its own for each thread."""

    def session() -> Session:
        client = redis.Redis(port=place.port, single_connection_client=True)
        return lambda name: partial(client.incr, f"incr:{name}")

    yield session


@contextmanager
def open_compare_and_set(place: Place) -> Iterator[Callable[[], Session]]:
    """Read, and have a script replace what was read, until that is still there."""

    def session() -> Session:
        client = redis.Redis(port=place.port, single_connection_client=True)
        script = client.register_script(REPLACE)

        def add_to(name: str) -> Add:
            key = f"set:{name}"
            client.set(key, 0, nx=True)

            def add() -> int:
                while True:
                    value = int(client.get(key) or 0)
                    if script([key], [value, value + 1]):
                        return value + 1

            return add

        return add_to

    yield session


@contextmanager
def open_pottery(place: Place) -> Iterator[Callable[[], Session]]:
    """A generator of numbers for each thread and counter."""
    from pottery import NextID

    client = _client(place)

    def session() -> Session:
        return lambda name: partial(next, NextID(key=name, masters={client}))

    yield session


def read(prefix: str, place: Place, name: str) -> int:
    """What the key holds."""
    return int(_client(place).get(f"{prefix}{name}") or 0)


@contextmanager
def asyncio_incr(place: Place, name: str) -> Iterator[Any]:
    """A pool of 32 connections, for which tasks wait: by itself, redis-py refuses the 101st."""
    import redis.asyncio

    pool = redis.asyncio.BlockingConnectionPool(port=place.port, max_connections=32, timeout=60)
    client = redis.asyncio.Redis(connection_pool=pool)
    yield lambda: client.incr(f"incr:{name}")


CONTENDERS = (
    ours(),
    Contender(INCR, open_incr, partial(read, "incr:"), asyncio_incr),
    Contender("redis-py Lua compare-and-set", open_compare_and_set, partial(read, "set:")),
    Contender("pottery `NextID`", open_pottery, partial(read, "nextid:")),
)

ENGINES = {
    "redis": Engine("Redis, appendfsync always", start, CONTENDERS, INCR),
    "redis-memory": Engine(
        "Redis, no append-only file", partial(start, appendonly="no"), CONTENDERS, INCR
    ),
}
