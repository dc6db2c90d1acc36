"""Where a soak takes place: a store, its servers, and the proxies in front of them."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlencode

from truecount.testing.faulty import SUFFERED
from truecount.testing.proxy import Proxy
from truecount.testing.servers import (
    Etcd,
    EtcdCluster,
    Moto,
    PostgreSQL,
    Redis,
    Server,
    SimpleDBLocal,
)
from truecount.testing.weather import KINDS, Weather

__all__ = ["SITES", "DynaliteSite", "SQLiteSite", "ServedSite", "Site"]

DAY: Final = 86400.0

MILD: Final = {
    "cut_before": 0.004,
    "cut_within": 0.004,
    "cut_after": 0.006,
    "silence": 0.001,
    "delay": 0.01,
    "late": 0.006,
    "split": 0.02,
}
"""The weather when there is nothing special: the chance of each fault, a request."""


class Site:
    """A store to be soaked, its data in ``folder``. A context manager: its end stops the servers.

    ``url`` is what clients open. ``weathers`` are the kinds of faults that a
    `Weather` makes there, ``mild`` their chances when there is nothing special,
    ``spared`` the other kinds that a soak has and this site does not, each with
    the reason.
    """

    keys: ClassVar[bool] = True
    """Whether idempotency keys work there."""

    skew: ClassVar[float] = 3 * DAY
    """By how many seconds the clocks of clients may be wrong."""

    slowness: ClassVar[float] = 1.0
    """How much longer impatient calls wait, and the time between faults is.

    Else too little would happen in between, and too much would stay unknown.
    """

    weathers: ClassVar[tuple[str, ...]] = KINDS
    mild: ClassVar[Mapping[str, float]] = MILD
    spared: ClassVar[Mapping[str, str]] = {}

    url: str

    @property
    def proxies(self) -> list[Proxy]:
        """What stands between clients and servers."""
        return []

    def kill_server(self, dice: Random) -> None:
        """Kill a server with ``kill -9``, and start it again on the same data."""
        raise TypeError(f"{type(self).__name__} has no server to kill")

    def close(self) -> None:
        """Stop the servers."""

    # The weather

    def make(self, weather: Weather | None) -> None:
        """Let ``weather`` decide what befalls each request from now on."""
        for proxy in self.proxies:
            proxy.weather = weather

    def break_out(self, kind: str, seconds: float, dice: Random) -> None:
        """Have a spell of ``refuse`` or ``partition`` begin now."""
        proxy = dice.choice(self.proxies)
        (proxy.refuse_for if kind == "refuse" else proxy.partition_for)(seconds)

    def look_after(self) -> None:
        """Start what does not run and should."""

    def mend(self) -> None:
        """Good weather from now on, and all that is late arrives now."""
        for proxy in self.proxies:
            proxy.mend()
        self.look_after()
        for proxy in self.proxies:
            proxy.release()
        self.look_after()

    @property
    def tally(self) -> Tally[str]:
        """How many faults there were so far, by kind."""
        tally: Tally[str] = Tally()
        for proxy in self.proxies:
            tally.update(proxy.tally)
        return tally

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SQLiteSite(Site):
    """A file. Clients meet the weather in their own process; it has no connections to break."""

    weathers = SUFFERED
    mild: ClassVar = dict.fromkeys(SUFFERED, 0.003)
    spared: ClassVar = {
        "server killed": "an embedded store has no server",
        **{kind: "a file has no connections" for kind in KINDS if kind not in SUFFERED},
    }

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/counters.db"


class ServedSite(Site):
    """A store with servers, each with a proxy in front of it. A subclass starts them."""

    options: ClassVar[Mapping[str, object]] = {"read_timeout": 0.5}
    """Options of the URL: an answer is not waited for long."""

    def __init__(self, folder: Path) -> None:
        with ExitStack() as stack:
            self.servers: list[Any] = []
            store = self.start(folder, stack)
            self._proxies = [stack.enter_context(Proxy(server.port)) for server in self.servers]
            for proxy in self._proxies:
                store = proxy.behind(store)
            self.url = f"{store}{'&' if '?' in store else '?'}{urlencode(self.options)}"
            self._stack = stack.pop_all()

    def start(self, folder: Path, stack: ExitStack) -> str:
        """Put the servers into ``servers``, and return the URL of the store there."""
        raise TypeError("say which servers: override start()")

    @property
    def proxies(self) -> list[Proxy]:
        return self._proxies

    def kill_server(self, dice: Random) -> None:
        server = self.victim(dice)
        server.kill()
        time.sleep(dice.uniform(0.02, 0.3))
        server.start()

    def victim(self, dice: Random) -> Server:
        """The server to be killed."""
        found: Server = dice.choice(self.servers)
        return found

    def close(self) -> None:
        self._stack.close()


class _Alone(ServedSite):
    """A site of one server."""

    server: ClassVar[Callable[[], Any]]

    def start(self, folder: Path, stack: ExitStack) -> str:
        server = stack.enter_context(type(self).server())
        self.servers.append(server)
        store: str = server.store
        return store


class RedisSite(_Alone):
    """Redis, that keeps what it acknowledges."""

    server = Redis


class PostgreSQLSite(_Alone):
    """PostgreSQL."""

    server = PostgreSQL


class EtcdSite(_Alone):
    """A single member of etcd."""

    server = Etcd
    slowness = 1.5


class MotoSite(_Alone):
    """DynamoDB, as moto's server plays it."""

    server = Moto
    skew = 240.0  # a signature is good for five minutes
    slowness = 5.0
    spared: ClassVar = {"server killed": "moto keeps its data in memory only"}


class DynaliteSite(ServedSite):
    """DynamoDB, as ``start`` starts dynalite to play it: without keys, with its data on disk.

    A request that breaks off ends the program, which is then started again.
    """

    keys = False
    skew = 240.0
    slowness = 3.0

    def __init__(self, folder: Path, start: Callable[[], Server]) -> None:
        self._start = start
        super().__init__(folder)

    def start(self, folder: Path, stack: ExitStack) -> str:
        server: Any = stack.enter_context(self._start())
        self.servers.append(server)
        store: str = server.store
        return store

    def look_after(self) -> None:
        (server,) = self.servers
        if server.process.poll() is not None:
            server.start()


class SimpleDBSite(ServedSite):
    """SimpleDB Local, with its data on disk."""

    skew = 240.0  # likewise
    slowness = 2.0

    def start(self, folder: Path, stack: ExitStack) -> str:
        self._folder = folder / "simpledb"
        self.servers.append(SimpleDBLocal("--data", self._folder))
        stack.callback(lambda: self.servers[0].close())
        store: str = self.servers[0].store
        return store

    def kill_server(self, dice: Random) -> None:
        (server,) = self.servers
        server.kill()
        time.sleep(dice.uniform(0.02, 0.3))
        self.servers[0] = SimpleDBLocal("--data", self._folder, port=server.port)


class ClusterSite(ServedSite):
    """Three members of etcd; mostly it is the leader that is killed."""

    slowness = 2.0

    def start(self, folder: Path, stack: ExitStack) -> str:
        self.cluster = stack.enter_context(EtcdCluster())
        self.servers += self.cluster.members
        return self.cluster.store

    def victim(self, dice: Random) -> Server:
        return self.cluster.leader() if dice.random() < 0.7 else super().victim(dice)


SITES: dict[str, Callable[[Path], Site]] = {
    "sqlite": SQLiteSite,
    "simpledb": SimpleDBSite,
    "redis": RedisSite,
    "postgresql": PostgreSQLSite,
    "dynamodb": MotoSite,
    "etcd": EtcdSite,
    "etcd3": ClusterSite,
}
"""The stores to be soaked, by name. Another one may be put here."""
