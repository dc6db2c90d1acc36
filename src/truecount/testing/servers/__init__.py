"""Servers for tests and demonstrations, each a process of its own on a free port."""

from truecount.testing.servers.dynamodb import Dynalite, Moto
from truecount.testing.servers.etcd import Certificates, Etcd, EtcdCluster
from truecount.testing.servers.postgresql import PgBouncer, PostgreSQL
from truecount.testing.servers.process import Server
from truecount.testing.servers.redis import Redis, RedisCluster
from truecount.testing.servers.simpledb import SimpleDBLocal
from truecount.testing.servers.zookeeper import ZooKeeper

__all__ = [
    "Certificates",
    "Dynalite",
    "Etcd",
    "EtcdCluster",
    "Moto",
    "PgBouncer",
    "PostgreSQL",
    "Redis",
    "RedisCluster",
    "Server",
    "SimpleDBLocal",
    "ZooKeeper",
]
