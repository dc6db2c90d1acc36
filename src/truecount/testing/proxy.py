"""A TCP proxy between a client and its server, which does to requests what networks do.

It knows nothing of the protocol but that one side asks and the other answers.
So the server really does what it is asked for, and the client really does not
hear of it, or the client gives up, and its request really arrives later.

What befalls which request is said beforehand (`Proxy.lose`, `Proxy.hold`), or
drawn from a `truecount.testing.weather.Weather`.
"""

from __future__ import annotations

import collections
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

from truecount.testing.connection import CUT, PATIENCE, SILENCE, Connection, Late, Loss, shut
from truecount.testing.weather import Fate, Weather, anything, check_told, check_weather

__all__ = ["CUT", "SILENCE", "Proxy"]

_COUNTED: Final = {CUT: "cut_after", SILENCE: "silence"}


_SERVER: Final = re.compile(r"(?<=[/@,])(?P<host>\[[^]]*\]|[^/@,:?]+):(?P<port>[0-9]+)(?![^/,?])")


def _nothing() -> None:
    pass


_BY_CHANCE: Final = {
    "cut_after": Loss(anything, CUT, _nothing),
    "silence": Loss(anything, SILENCE, _nothing),
}


class Proxy:
    """Listens on a free ``port`` of 127.0.0.1, and passes on to ``host`` and ``to_port``.

    A context manager: its end closes every connection. ``requests`` counts what
    clients have asked and had answered by the server, ``lost`` how many of
    these answers they did not get, `held` the requests that wait to be
    delivered, and `tally` what befell them, by kind. ``watch`` is called with
    the bytes of each request, from any thread. ``weather`` decides what befalls
    each request for which nothing was said; it may be set and changed at any time.
    Raises `TypeError` where that is none.
    """

    def __init__(
        self,
        to_port: int,
        host: str = "127.0.0.1",
        watch: Callable[[bytes], object] = lambda request: None,
        weather: Weather | None = None,
    ) -> None:
        self.requests = 0
        self.lost = 0
        self.weather = weather
        self.target = host, to_port
        self.asking = threading.Event()  # whether requests pass
        self.answering = threading.Event()  # whether replies do
        self._watch = watch
        self._tally: collections.Counter[str] = collections.Counter()
        self._losses: deque[Loss] = deque()
        self._holds: deque[Callable[[bytes], bool]] = deque()
        self._late: dict[Late, None] = {}  # in the order in which they came
        self._lock = threading.RLock()
        self._open: set[Connection] = set()
        self._threads: set[threading.Thread] = set()
        self._spells: dict[str, threading.Timer] = {}
        self._closed = False
        self._seat = _bound(0)  # nobody else gets the port while connections are refused
        self.port: int = self._seat.getsockname()[1]
        self._listener: socket.socket | None = None
        self.heal()
        self.listen()

    @classmethod
    def before(cls, url: str, weather: Weather | None = None) -> Self:
        """A proxy before the (first) server that a store's ``url`` names, for `behind`.

        Raises `ValueError` when it names none with a port.
        """
        server = _SERVER.search(url)
        if server is None:
            raise ValueError(f"{url!r} names no server with a port")
        return cls(int(server["port"]), server["host"].strip("[]"), weather=weather)

    @property
    def weather(self) -> Weather | None:
        """What decides about the requests for which nothing was said; None: all goes well."""
        return self._weather

    @weather.setter
    def weather(self, weather: Weather | None) -> None:
        self._weather = check_weather(weather)

    @property
    def held(self) -> int:
        """How many requests wait to be delivered."""
        with self._lock:
            return sum(late.waits for late in self._late)

    @property
    def tally(self) -> dict[str, int]:
        """How many faults there were so far, by kind: those of `KINDS`, ``hold``, ``instead``.

        What was held back counts as ``hold`` from the start, ``late`` when the
        server has answered it.
        """
        with self._lock:
            return dict(self._tally)

    def behind(self, url: str) -> str:
        """``url`` with this proxy in the place of the server.

        Raises `ValueError` when it does not name the server's port.
        """
        for server in _SERVER.finditer(url):
            if int(server["port"]) == self.target[1]:
                return f"{url[: server.start()]}127.0.0.1:{self.port}{url[server.end() :]}"
        raise ValueError(f"{url!r} names no server at port {self.target[1]}")

    # What is said beforehand

    def lose(
        self,
        count: int = 1,
        when: Callable[[bytes], bool] = anything,
        instead: bytes | None = CUT,
        then: Callable[[], object] = _nothing,
    ) -> None:
        """Lose the replies to the next ``count`` requests for which ``when`` is true.

        The server has acted on them by then. ``instead`` is what the client gets:
        `CUT`, `SILENCE`, or other bytes; before that, ``then`` is called.
        """
        check_told(count, when)
        with self._lock:
            self._losses.extend([Loss(when, instead, then)] * count)

    def hold(self, count: int = 1, when: Callable[[bytes], bool] = anything) -> None:
        """Hold the next ``count`` requests for which ``when`` is true back, until `release`."""
        check_told(count, when)
        with self._lock:
            self._holds.extend([when] * count)

    def release(self) -> int:
        """Deliver what is late, one after the other: how many the server has answered.

        Those that `weather` made late too, and those that are on their way. It
        waits 10 seconds at most; in a partition, in vain.
        """
        with self._lock:
            late = list(self._late)
        deadline = time.monotonic() + PATIENCE
        answered = 0
        for request in late:
            request.deliver()
            answered += request.answered(max(deadline - time.monotonic(), 0.0))
        return answered

    # What befalls all

    def refuse(self) -> None:
        """Cut every connection, and have new ones refused, until `listen`."""
        with self._lock:
            self._end_spell("refuse")
            self.count("refuse")
            self._stop_listening()
            self._cut()

    def listen(self) -> None:
        """Accept connections again, on the same port."""
        with self._lock:
            self._end_spell("refuse")
            if not self._closed and self._listener is None:
                self._listener = _bound(self.port)
                self._listener.listen(256)
                self._start(self._accept, self._listener)

    def partition(self, *, requests: bool = True, replies: bool = True) -> None:
        """Let nothing pass until `heal`; or no ``requests`` only, or no ``replies``.

        Connections stay open, and new ones are accepted. What is sent meanwhile
        arrives afterwards, even if the client is gone by then.
        """
        with self._lock:
            self._end_spell("partition")
            self.count("partition")
            for way, barred in ((self.asking, requests), (self.answering, replies)):
                if barred and not self._closed:
                    way.clear()

    def heal(self) -> None:
        """Let everything pass again."""
        with self._lock:
            self._end_spell("partition")
            self.asking.set()
            self.answering.set()

    def mend(self) -> None:
        """Good weather: lose and hold nothing more, let everything pass, accept connections.

        What is late stays so until it is due, or until `release`.
        """
        with self._lock:
            self._losses.clear()
            self._holds.clear()
            self.weather = None
            self.heal()
            self.listen()

    def close(self) -> None:
        """Close all connections, and listen no more; what is held is never delivered."""
        with self._lock:
            self._closed = True
            self._end_spell("refuse")
            self._stop_listening()
            self._seat.close()
            for late in self._late:
                late.drop()
            self._cut()
            self.heal()
        for thread in list(self._threads):
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # What connections ask, and tell

    def holds(self, request: bytes) -> Late | None:
        """When to deliver ``request``, if it was said to be held back."""
        with self._lock:
            if not self._holds or not self._holds[0](request):
                return None
            self._holds.popleft()
            self.count("hold")
            return self.later(None)

    def draw(self, request: bytes) -> Fate | None:
        """What befalls ``request`` by chance."""
        weather = self.weather
        return None if weather is None else weather.draw(request)

    def later(self, seconds: float | None) -> Late:
        """A request that is delivered after ``seconds``; None: by `release` only."""
        late = Late(seconds)
        with self._lock:
            if self._closed:
                late.drop()
            self._late[late] = None
        return late

    def forget(self, late: Late) -> None:
        """It is known what became of ``late``."""
        with self._lock:
            self._late.pop(late, None)

    def loses(self, request: bytes, fate: Fate | None) -> Loss | None:
        """What becomes of the answer to ``request``, of which this is the first to know."""
        self._watch(request)
        with self._lock:
            self.requests += 1
            if self._losses and self._losses[0].meant(request):
                loss = self._losses.popleft()
            elif fate is not None and fate.kind in _BY_CHANCE:
                loss = _BY_CHANCE[fate.kind]
            else:
                return None
            self.lost += 1
            self.count(_COUNTED.get(loss.instead, "instead"))
            return loss

    def count(self, kind: str) -> None:
        """A fault of this ``kind`` has happened."""
        with self._lock:
            self._tally[kind] += 1

    def refuse_for(self, seconds: float) -> None:
        """`refuse` for a while, unless it does already."""
        with self._lock:
            if self._listener is not None:
                self.refuse()
                self._begin_spell("refuse", seconds, self.listen)

    def partition_for(self, seconds: float) -> None:
        """`partition` for a while, unless there is one already."""
        with self._lock:
            if self.asking.is_set() and self.answering.is_set():
                self.partition()
                self._begin_spell("partition", seconds, self.heal)

    def _begin_spell(self, kind: str, seconds: float, end: Callable[[], None]) -> None:
        def over() -> None:
            with self._lock:
                if self._spells.get(kind) is spell:
                    end()

        spell = self._spells[kind] = threading.Timer(seconds, over)
        spell.daemon = True
        spell.start()

    def _end_spell(self, kind: str) -> None:
        if (spell := self._spells.pop(kind, None)) is not None:
            spell.cancel()

    # Threads: one listens, and each connection has one, which starts another

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                target(*arguments)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while self._listener is listener:
                try:
                    client, _ = listener.accept()
                except OSError:
                    time.sleep(0.01)  # shut down; or too many connections are open
                    continue
                with self._lock:
                    if self._listener is not listener:
                        client.close()
                        return
                    connection = Connection(self, client)
                    self._open.add(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:  # from now on nobody cuts it
                self._open.discard(connection)
                connection.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            shut(self._listener)
            self._listener = None

    def _cut(self) -> None:
        for connection in self._open:
            connection.cut()


def _bound(port: int) -> socket.socket:
    """A socket at ``port`` of 127.0.0.1, which others of ours may share."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    if hasattr(socket, "SO_REUSEPORT"):  # Windows shares by the other
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    bound.bind(("127.0.0.1", port))
    return bound
