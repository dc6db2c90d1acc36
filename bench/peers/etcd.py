"""etcd, one member; and ZooKeeper, for those who would use that."""

from __future__ import annotations

import http.client
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.model import Add, Contender, Engine, Place, Session, ours
from truecount.testing.servers import Etcd, ZooKeeper

__all__ = ["ENGINES", "LOCKED"]

BARE = "compare-and-set loop"
LOCKED = f"{BARE}, a lock in each process"


@contextmanager
def start(folder: Path) -> Iterator[Place]:
    """A server of one member."""
    with Etcd() as server:
        yield Place(f"{server.store}?timeout=60", server.port)


class _Gateway:
    """The JSON gateway through one connection of the standard library: one request a call."""

    def __init__(self, place: Place) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", place.port)
        self._connection.connect()

    def ask(self, path: str, question: Any) -> Any:
        self._connection.request("POST", path, json.dumps(question))
        return json.loads(self._connection.getresponse().read())

    def get(self, key: str) -> Any:
        return self.ask("/v3/kv/range", {"key": key}).get("kvs", [])

    def replace(self, key: str, revision: str, value: int) -> tuple[bool, list[Any]]:
        """Put where the key is at ``revision``; else what is there."""
        done = self.ask(
            "/v3/kv/txn",
            {
                "compare": [{"key": key, "target": "MOD", "mod_revision": revision}],
                "success": [{"request_put": {"key": key, "value": _base64(str(value))}}],
                "failure": [{"request_range": {"key": key}}],
            },
        )
        if done.get("succeeded"):
            return True, [
                {"mod_revision": done["header"]["revision"], "value": _base64(str(value))}
            ]
        return False, done["responses"][0]["response_range"].get("kvs", [])


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


@contextmanager
def open_loop(place: Place, *, locked: bool) -> Iterator[Callable[[], Session]]:
    """Replace what was seen last, and where another was first, what the refusal shows."""
    lock: AbstractContextManager[Any] = threading.Lock() if locked else nullcontext()
    seen: dict[str, list[Any]] = {}

    def session() -> Session:
        gateway = _Gateway(place)
        own = seen if locked else {}

        def add_to(name: str) -> Add:
            key = _base64(f"{'locked' if locked else 'bare'}/{name}")

            def add() -> int:
                with lock:
                    there = own.get(key) or gateway.get(key)
                    while True:
                        revision = there[0]["mod_revision"] if there else "0"
                        value = int(b64decode(there[0]["value"])) + 1 if there else 1
                        done, there = gateway.replace(key, revision, value)
                        if done:
                            own[key] = there
                            return value

            return add

        return add_to

    yield session


def read_loop(prefix: str, place: Place, name: str) -> int:
    """What the key holds."""
    (there,) = _Gateway(place).get(_base64(f"{prefix}/{name}"))
    return int(b64decode(there["value"]))


@contextmanager
def start_zookeeper(folder: Path) -> Iterator[Place]:
    """A server of its own."""
    with ZooKeeper() as server:
        yield Place("", server.port)


@contextmanager
def _zookeeper(place: Place) -> Iterator[Any]:
    from kazoo.client import KazooClient

    client = KazooClient(f"127.0.0.1:{place.port}")
    client.start()
    yield client
    client.stop()
    client.close()


@contextmanager
def open_kazoo(place: Place) -> Iterator[Callable[[], Session]]:
    """One client, which its threads share."""
    from kazoo.recipe.counter import Counter

    with _zookeeper(place) as client:

        def add_to(name: str) -> Add:
            counter = Counter(client, f"/{name}")
            return lambda: counter.__add__(1)

        yield lambda: add_to


def read_kazoo(place: Place, name: str) -> int:
    """What the node holds."""
    from kazoo.recipe.counter import Counter

    with _zookeeper(place) as client:
        return int(Counter(client, f"/{name}").value)


ENGINES = {
    "etcd": Engine(
        "etcd, one member",
        start,
        (
            ours(),
            Contender(BARE, partial(open_loop, locked=False), partial(read_loop, "bare")),
            Contender(
                LOCKED,
                partial(open_loop, locked=True),
                partial(read_loop, "locked"),
            ),
        ),
        BARE,
    ),
    "zookeeper": Engine(
        "ZooKeeper, one server",
        start_zookeeper,
        (Contender("kazoo `Counter`", open_kazoo, read_kazoo),),
        "kazoo `Counter`",
    ),
}
