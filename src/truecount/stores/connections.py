"""HTTP/1.1 to one server, on connections that are kept open. Never sends anything twice."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Final, NamedTuple

from httptools import HttpResponseParser

__all__ = ["Connections", "Reply", "UnreachedError"]

LONGEST: Final = 5.0
"""Seconds that a connection may take to be made, where answers may take longer."""

KEPT: Final = 64
"""Connections that are kept open while nobody uses them."""

PIECE: Final = 65_536
"""Bytes that are read at once, at most."""

BEGIN: Final = b"begin"
HEAD: Final = b"head"
END: Final = b"end"
"""What an answer has come to."""

LENGTHS: Final = {b"content-length", b"transfer-encoding"}
"""The fields that tell where an answer ends."""

FINAL: Final = 200
"""The statuses below are for those who asked to be told more."""


class UnreachedError(Exception):
    """There is no connection: nothing was sent."""


class Reply(NamedTuple):
    """What the server says: the status of HTTP, the body, and the fields of the head.

    The names of these are in small letters.
    """

    status: int
    data: bytes
    fields: dict[bytes, bytes]


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

    def post(self, path: str, fields: Mapping[str, str], body: bytes, span: float) -> Reply:
        """Post ``body``; every step of it may take ``span`` seconds.

        ``fields`` of the head: all but the length, of one line each. Raises
        `UnreachedError`, caused by the reason, or `ssl.SSLError` when there is
        no connection. After whatever else, the request may have been sent.
        """
        lines = [f"POST {path} HTTP/1.1", *map("%s: %s".__mod__, fields.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        connection = self._take(span)
        try:
            reply = connection.ask(head.encode() + body)
        except BaseException:  # whatever it is: what comes here next answers this request
            connection.close()
            raise
        if self._closed or connection.is_last or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
            if self._closed:  # meanwhile
                self.close()
        return reply

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
            raise UnreachedError(f"the connections to {self.shown} were closed meanwhile")
        try:
            connection = _Connection(self._connected(min(span, LONGEST)))
            connection.socket.settimeout(span)
            return connection
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

    __slots__ = ("_poll", "is_last", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self.is_last = False  # nothing more is to be asked here

    def ask(self, request: bytes) -> Reply:
        """Send ``request``, and return what is said to it: one answer, and nothing else."""
        self.socket.sendall(request)
        marks: list[bytes] = []
        fields: dict[bytes, bytes] = {}
        body: list[bytes] = []
        # Nothing of Python's runs in the parser, which would lose what a signal's handler raises.
        parser = HttpResponseParser(
            SimpleNamespace(
                on_message_begin=partial(marks.append, BEGIN),
                on_header=fields.__setitem__,
                on_headers_complete=partial(marks.append, HEAD),
                on_body=body.append,
                on_message_complete=partial(marks.append, END),
            )
        )
        while END not in marks:
            data = self.socket.recv(PIECE)
            if data:
                parser.feed_data(data)
            elif HEAD in marks and not LENGTHS & _lowered(fields).keys():
                self.is_last = True  # the answer ends where the connection does
                break
            else:
                raise ConnectionError("the server hung up before it had answered")
        reply = Reply(parser.get_status_code(), b"".join(body), _lowered(fields))
        if marks.count(BEGIN) > 1 or reply.status < FINAL:
            raise ConnectionError("the server says something else than an answer")
        connection = reply.fields.get(b"connection", b"").lower()
        if parser.get_http_version() != "1.1" or b"close" in connection:
            self.is_last = True
        return reply

    def is_quiet(self) -> bool:
        """Whether nothing has come in, which between requests could only be the end."""
        return not self._poll.poll(0)

    def close(self) -> None:
        self.socket.close()


def _lowered(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in fields.items()}
