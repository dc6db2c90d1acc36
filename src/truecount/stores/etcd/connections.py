"""Connections to one endpoint, kept open to be used again. Never sends anything twice."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Final, NamedTuple

from httptools import HttpResponseParser

from truecount.errors import StoreClosedError

__all__ = ["Connections", "Reply", "UnreachedError"]

KEPT: Final = 64
"""Connections that are kept open while nobody uses them."""

PIECE: Final = 65_536
"""Bytes that are read at once, at most."""

FINAL: Final = 200
"""Statuses below are of what comes before the answer."""


class UnreachedError(Exception):
    """There is no connection: nothing was sent."""


class Reply(NamedTuple):
    """What the server says: the status of HTTP, and the body."""

    status: int
    data: bytes


class Connections:
    """Connections to ``host`` at ``port``; with ``context``, over TLS.

    Any number of threads may use them, each one for itself.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.shown = f"{host}:{port}"
        self._host = host.strip("[]")
        self._port = port
        self._context = context
        self._idle: list[_Connection] = []
        self._closed = False

    def post(self, path: str, body: bytes, token: str | None, span: float) -> Reply:
        """Post ``body``, JSON; every step of it may take ``span`` seconds.

        ``token``: that of a user, printable ASCII. Raises `UnreachedError`,
        caused by the reason, or `ssl.SSLError` when there is no connection.
        After whatever else, the request may have been sent.
        """
        authorization = "" if token is None else f"Authorization: {token}\r\n"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.shown}\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = self._take(span)
        try:
            answer = connection.ask(head.encode() + body)
        except BaseException:  # whatever it is: what comes here next answers this request
            connection.close()
            raise
        if self._closed or answer.is_last or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
            if self._closed:  # meanwhile
                self.close()
        return Reply(answer.status, answer.body)

    def close(self) -> None:
        """Close those that nobody uses, and the others after their use."""
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # somebody else closes them too
                return

    def _take(self, span: float) -> _Connection:
        """A connection that lives, as far as can be seen."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was first
                break
            if connection.is_quiet():
                connection.socket.settimeout(span)
                return connection
            connection.close()
        if self._closed:
            raise StoreClosedError(f"etcd at {self.shown} was closed meanwhile")
        try:
            return _Connection(self._connected(span))
        except ssl.SSLError:
            raise
        except OSError as error:
            raise UnreachedError(f"no connection to {self.shown}: {error}") from error

    def _connected(self, span: float) -> socket.socket:
        """A new socket, over TLS if that is spoken here."""
        plain = socket.create_connection((self._host, self._port), span)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is None:
                return plain
            return self._context.wrap_socket(plain, server_hostname=self._host)
        except BaseException:  # whatever it is, nobody else would close it
            plain.close()
            raise


class _Connection:
    """A socket on which one asks and the other answers, in turn."""

    __slots__ = ("_poll", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    def ask(self, request: bytes) -> _Answer:
        """Send ``request``, and return what is said to it."""
        self.socket.sendall(request)
        answer = _Answer()
        while not answer.is_whole:
            answer.feed(self.socket.recv(PIECE))
        return answer

    def is_quiet(self) -> bool:
        """Whether nothing has come in, which between requests could only be the end."""
        return not self._poll.poll(0)

    def close(self) -> None:
        self.socket.close()


class _Answer:
    """An answer of HTTP while it comes in. What begins with ``on_`` is what the parser calls."""

    __slots__ = ("_has_length", "_parser", "body", "is_last", "is_whole", "status")

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._has_length = False
        self.status = 0
        self.body = b""
        self.is_whole = False
        self.is_last = False  # nothing more is to be asked on its connection

    def feed(self, data: bytes) -> None:
        """Take in what was received; nothing: the other side has closed the connection."""
        if data:
            self._parser.feed_data(data)
        elif self.status and not self._has_length:  # it ends where the connection does
            self.is_whole = self.is_last = True
        else:
            raise ConnectionError("the server closed the connection before it had answered")
        if self.is_whole:
            del self._parser  # each of the two holds the other

    def on_message_begin(self) -> None:
        if self.is_whole:  # and this would pass for the next request's
            self.is_last = True

    def on_header(self, name: bytes, _: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        if not self.is_whole:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.is_whole:
            self.body += body

    def on_message_complete(self) -> None:
        if self.status < FINAL:
            self.status = 0
            self._has_length = False
            self.body = b""
        elif not self.is_whole:
            self.is_whole = True
            self.is_last = not self._parser.should_keep_alive()
