"""A TCP proxy between a client and its server, which loses replies when it is told to.

It knows nothing of the protocol but that one side asks and the other answers.
So the server really does what it is asked for, and the client really does not
hear of it.
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


class _Loss(NamedTuple):
    """What becomes of the next reply to a request that is ``meant``."""

    meant: Callable[[bytes], bool]
    instead: bytes | None


class Proxy:
    """Listens on a free ``port`` of 127.0.0.1, and passes on to ``host`` and ``to_port``.

    A context manager: its end closes every connection. ``requests`` counts what
    clients have asked, ``lost`` how many of these were not answered. ``watch``
    is called with the bytes of each request, from any thread.
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
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def lose(
        self,
        count: int = 1,
        when: Callable[[bytes], bool] = lambda request: True,
        instead: bytes | None = CUT,
    ) -> None:
        """Lose the replies to the next ``count`` requests for which ``when`` is true.

        The server has acted on them by then. ``instead`` is what the client gets:
        `CUT`, `SILENCE`, or other bytes.
        """
        with self._lock:
            self._losses.extend([_Loss(when, instead)] * count)

    def mend(self) -> None:
        """Lose nothing more."""
        with self._lock:
            self._losses.clear()

    def close(self) -> None:
        """Close all connections, and listen no more."""
        _shut(self._listener)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)
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

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
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

    def fate(self, request: bytes) -> _Loss | None:
        """What becomes of ``request``, of which this is the first to know."""
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


class _Connection:
    """A client and the server, who speak in turn."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.request = bytearray()  # since the last answer began
        self.loss: _Loss | None = None

    def ask(self) -> None:
        """Pass on what the client asks."""
        try:
            while data := self.client.recv(CHUNK):
                self.request += data
                self.server.sendall(data)
        except OSError:
            pass
        finally:
            _shut(self.server, close=False)

    def answer(self) -> None:
        """Pass on what the server answers, or not."""
        try:
            while data := self.server.recv(CHUNK):
                if self.request:
                    request = bytes(self.request)
                    self.request.clear()
                    self.loss = self.proxy.fate(request)
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
