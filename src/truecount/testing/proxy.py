"""A TCP proxy between a client and its server, which does to requests what networks do.

It knows nothing of the protocol but that one side asks and the other answers.
So the server really does what it is asked for, and the client really does not
hear of it, or the client gives up, and its request really arrives later.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Self

__all__ = ["CUT", "SILENCE", "Proxy"]

CUT: Final = b""
"""Close the connection instead of answering."""

SILENCE: Final = None
"""Let the client wait until it gives up."""

CHUNK: Final = 65536

PATIENCE: Final = 10.0
"""Seconds that a late request may take to be answered."""


def _any(request: bytes) -> bool:
    return True


def _nothing() -> None:
    pass


class _Loss(NamedTuple):
    """What becomes of the next reply to a request that is ``meant``."""

    meant: Callable[[bytes], bool]
    instead: bytes | None
    then: Callable[[], object]


class Proxy:
    """Listens on a free ``port`` of 127.0.0.1, and passes on to ``host`` and ``to_port``.

    A context manager: its end closes every connection. ``requests`` counts what
    clients have asked and had answered by the server, ``lost`` how many of
    these answers they did not get, ``held`` the requests that wait to be
    delivered. ``watch`` is called with the bytes of each request, from any thread.
    """

    def __init__(
        self,
        to_port: int,
        host: str = "127.0.0.1",
        watch: Callable[[bytes], object] = lambda request: None,
    ) -> None:
        self.requests = 0
        self.lost = 0
        self._target = host, to_port
        self._watch = watch
        self._losses: deque[_Loss] = deque()
        self._holds: deque[Callable[[bytes], bool]] = deque()
        self._late: list[_Late] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    @property
    def held(self) -> int:
        """How many requests wait to be delivered."""
        return len(self._late)

    def lose(
        self,
        count: int = 1,
        when: Callable[[bytes], bool] = _any,
        instead: bytes | None = CUT,
        then: Callable[[], object] = _nothing,
    ) -> None:
        """Lose the replies to the next ``count`` requests for which ``when`` is true.

        The server has acted on them by then. ``instead`` is what the client gets:
        `CUT`, `SILENCE`, or other bytes; before that, ``then`` is called.
        """
        with self._lock:
            self._losses.extend([_Loss(when, instead, then)] * count)

    def hold(self, count: int = 1, when: Callable[[bytes], bool] = _any) -> None:
        """Hold the next ``count`` requests for which ``when`` is true back, until `release`."""
        with self._lock:
            self._holds.extend([when] * count)

    def release(self) -> int:
        """Deliver what is held back, one after the other: how many the server has answered."""
        with self._lock:
            late, self._late = self._late, []
        return sum(request.deliver() for request in late)

    def refuse(self) -> None:
        """Cut every connection, and have new ones refused, until `listen`."""
        _shut(self._listener)
        self._cut()

    def listen(self) -> None:
        """Accept connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._start(self._accept, self._listener)

    def mend(self) -> None:
        """Lose and hold nothing more."""
        with self._lock:
            self._losses.clear()
            self._holds.clear()

    def close(self) -> None:
        """Close all connections, and listen no more; what is held is never delivered."""
        _shut(self._listener)
        with self._lock:
            late, self._late = self._late, []
        self._cut()
        for request in late:
            request.drop()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Threads: one listens, and two serve each connection

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _cut(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection, close=False)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            with self._lock:
                self._open |= {client, server}
            connection = _Connection(self, client, server)
            self._start(connection.ask)
            self._start(connection.answer)

    def delay(self, request: bytes) -> _Late | None:
        """When to deliver ``request``, or what has come of it so far; None: now."""
        with self._lock:
            if not self._holds or not self._holds[0](request):
                return None
            self._holds.popleft()
            late = _Late()
            self._late.append(late)
            return late

    def fate(self, request: bytes) -> _Loss | None:
        """What becomes of the answer to ``request``, of which this is the first to know."""
        self._watch(request)
        with self._lock:
            self.requests += 1
            if not self._losses or not self._losses[0].meant(request):
                return None
            self.lost += 1
            return self._losses.popleft()

    def forget(self, *connections: socket.socket) -> None:
        """Close ``connections``."""
        for connection in connections:
            _shut(connection)
        with self._lock:
            self._open.difference_update(connections)


class _Late:
    """A request that is delivered when somebody says so."""

    def __init__(self) -> None:
        self._due = threading.Event()
        self._answered = threading.Event()
        self._dropped = False

    def deliver(self) -> bool:
        self._due.set()
        return self._answered.wait(PATIENCE)

    def drop(self) -> None:
        self._dropped = True
        self._due.set()
        self._answered.set()

    def wait(self) -> bool:
        """Wait until it is due; False: it never will be."""
        self._due.wait()
        return not self._dropped

    def answered(self) -> None:
        self._answered.set()

    def wait_for_answer(self) -> None:
        self._answered.wait(PATIENCE)


class _Connection:
    """A client and the server, who speak in turn."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.request = bytearray()  # since the last answer began
        self.loss: _Loss | None = None
        self.late: _Late | None = None

    def ask(self) -> None:
        """Pass on what the client asks, now or later."""
        try:
            while data := self.client.recv(CHUNK):
                self.request += data
                late = self.proxy.delay(bytes(self.request))
                if late is not None:
                    self.late = late
                    if not late.wait():
                        return
                self.server.sendall(data)
        except OSError:
            pass
        finally:
            if self.late is not None:  # a client that is gone would have the server stop
                self.late.wait_for_answer()
            _shut(self.server, close=False)

    def answer(self) -> None:
        """Pass on what the server answers, or not."""
        try:
            while data := self.server.recv(CHUNK):
                if self.request:
                    request = bytes(self.request)
                    self.request.clear()
                    self.loss = self.proxy.fate(request)
                    if self.late is not None:
                        self.late.answered()
                    if self.loss is not None:
                        self.loss.then()
                if self.loss is None:
                    self.client.sendall(data)
                elif self.loss.instead is not SILENCE:
                    self.client.sendall(self.loss.instead)
                    return
        except OSError:
            pass
        finally:
            self.proxy.forget(self.client, self.server)


def _shut(connection: socket.socket, *, close: bool = True) -> None:
    with contextlib.suppress(OSError):  # it was shut from the other side
        connection.shutdown(socket.SHUT_RDWR)
    if close:
        connection.close()
