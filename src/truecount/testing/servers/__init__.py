"""Servers for tests and demonstrations, each a process of its own on a free port."""

from truecount.testing.servers.process import Server
from truecount.testing.servers.simpledb import SimpleDBLocal
from truecount.testing.servers.zookeeper import ZooKeeper

__all__ = ["Server", "SimpleDBLocal", "ZooKeeper"]
