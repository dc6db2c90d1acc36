"""Every store with a server: lost replies, late requests, trouble, many processes, kills."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import psycopg
import pytest
import redis
from tools.installed import dynalite

import redis_server
import test_dynamodb
import test_etcd
import test_postgresql
import workers
from helpers import SPAWN
from networked import DOMAIN, Networked
from truecount import Counter, connect
from truecount.testing.servers import Dynalite, Etcd, EtcdCluster, Moto, PostgreSQL, Redis

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")


@contextmanager
def out_of_memory(server: Redis) -> Iterator[str]:
    """No memory is left for writes."""
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        yield "maxmemory"
        client.config_set("maxmemory", 0)


@contextmanager
def read_only(server: Redis) -> Iterator[str]:
    """The server has become the replica of another one."""
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)
        yield "replica"
        client.replicaof("NO", "ONE")


class TestRedis(Networked):
    """Redis that syncs its log before it answers."""

    together = True
    troubles: ClassVar[Any] = {"out of memory": out_of_memory, "read-only": read_only}

    @classmethod
    def start(cls) -> Redis:
        return Redis()

    def is_write(self, request: bytes) -> bool:
        return redis_server.is_write(request)


@contextmanager
def read_only_transactions(server: PostgreSQL) -> Iterator[str]:
    """Every transaction is read-only unless it says otherwise."""
    server.configure(default_transaction_read_only="on")
    yield "read-only"
    server.configure(default_transaction_read_only="off")


class TestPostgreSQL(Networked):
    """PostgreSQL that syncs its log before it answers."""

    together = True
    troubles: ClassVar[Any] = {"read-only": read_only_transactions}

    @classmethod
    def start(cls) -> PostgreSQL:
        return test_postgresql.started()

    def is_write(self, request: bytes) -> bool:
        return test_postgresql.is_write(request)

    def test_late_while_all_wait_for_the_row(
        self, server: PostgreSQL, url: str, through: str, name: str
    ) -> None:
        """Copies of one change that wait for the same row lock add once when it is free."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with (
            psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres") as locker,
            connect(through) as store,
        ):
            c = Counter(DOMAIN, name, store=store)
            locker.execute("SELECT 1 FROM truecount.counters WHERE name = %s FOR UPDATE", (name,))
            with ThreadPoolExecutor(1) as thread:
                adding = thread.submit(c.add, 7)
                time.sleep(0.7)  # it has been given up and sent again by now
                locker.commit()
                assert adding.result().after == 12
        time.sleep(0.3)
        assert truth.refresh() == 12


@contextmanager
def no_space(server: Etcd) -> Iterator[str]:
    """The alarm that etcd raises when its quota is used up."""
    alarm(server, "ACTIVATE")
    yield "NOSPACE"
    alarm(server, "DEACTIVATE")


def alarm(server: Etcd, action: str) -> None:
    """Raise or end the alarm, as the server itself and its operator do."""
    url = f"http://127.0.0.1:{server.port}/v3/maintenance/alarm"
    body = json.dumps({"action": action, "memberID": 0, "alarm": "NOSPACE"}).encode()
    with urlopen(Request(url, body), timeout=10) as answer:  # our own server
        answer.read()


class TestEtcd(Networked):
    """A single member of etcd."""

    troubles: ClassVar[Any] = {"no space": no_space}

    @classmethod
    def start(cls) -> Etcd:
        return Etcd()

    def is_write(self, request: bytes) -> bool:
        return test_etcd.is_write(request)


def test_leaders_killed(tmp_path: Path, record_property: Any) -> None:
    """The leader of three is killed with ``kill -9``, ten times, under 4 processes: all exact."""
    pause = float(os.environ.get("TRUECOUNT_PAUSE", "1.5"))
    with EtcdCluster() as cluster:
        Counter("mydomain", "hot", store=cluster.store)
        end = tmp_path / "end"
        with SPAWN.Pool(4) as pool:
            work = [(cluster.store, str(end))] * 4
            adding = pool.starmap_async(workers.add_and_time, work, chunksize=1)
            for _ in range(10):
                time.sleep(pause)
                leader = cluster.leader()
                leader.kill()
                time.sleep(min(pause, 2))  # it is missing for a while
                leader.start()
            time.sleep(pause)
            end.touch()
            done = adding.get(timeout=60)
        numbers = sum([numbers for numbers, _ in done], [])
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
        assert Counter("mydomain", "hot", store=cluster.store) == len(numbers) > 100
        record_property("adds", f"{len(numbers):,}")
        record_property("longest", f"{max(longest for _, longest in done):.1f} s")


class TestMoto(Networked):
    """DynamoDB, as moto's server speaks it."""

    survives = False
    many = 100  # it is slow, and conditions are what dynalite checks too

    @classmethod
    def start(cls) -> Moto:
        return Moto()

    def is_write(self, request: bytes) -> bool:
        return test_dynamodb.is_write(request)


class TestDynalite(Networked):
    """DynamoDB without transactions, as dynalite speaks it."""

    keys = False
    survives = False

    @classmethod
    def start(cls) -> Dynalite:
        return dynalite()

    def is_write(self, request: bytes) -> bool:
        return test_dynamodb.is_write(request)
