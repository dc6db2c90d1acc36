"""The Redis store, through redis-py, on redis-server and on a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_server import is_write, prefix, serving, serving_cluster
from truecount.testing.conformance import StoreConformance
from truecount.testing.servers import Redis, RedisCluster

__all__ = ["is_write"]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with serving_cluster() as cluster:
        yield cluster


class TestRedis(StoreConformance):
    """``redis://``: each test has keys of its own."""

    @pytest.fixture(autouse=True)
    def place(self, server: Redis) -> None:
        self.place_of_all = f"{server.store}/3"

    def url(self, folder: Path) -> str:
        return f"{self.place_of_all}?prefix={prefix(folder)}"


class TestRedisCluster(TestRedis):
    """``redis+cluster://``."""

    @pytest.fixture(autouse=True)
    def place(self, cluster: RedisCluster) -> None:
        self.place_of_all = cluster.store
