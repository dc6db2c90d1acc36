"""Connections to one endpoint, kept open to be used again. Never sends anything twice."""

from __future__ import annotations

import select
import ssl
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Final, NamedTuple

from truecount.errors import StoreClosedError

__all__ = ["Connections", "Reply", "UnreachedError"]

KEPT: Final = 64
"""Connections that are kept open while nobody uses them."""


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
        self._idle: list[_Whole] = []
        self._closed = False

    def post(self, path: str, body: bytes, headers: dict[str, str], span: float) -> Reply:
        """Post ``body``; every step of it may take ``span`` seconds.

        Raises `UnreachedError`, caused by the reason, or `ssl.SSLError` when
        there is no connection. After whatever else, the request may have been sent.
        """
        connection = self._take(span)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            reply = Reply(response.status, response.read())
        except BaseException:  # whatever it is: what comes here next answers this request
            connection.close()
            raise
        if self._closed or response.will_close or len(self._idle) >= KEPT:
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

    def _take(self, span: float) -> _Whole:
        """A connection that lives, as far as can be seen."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was first
                break
            if _is_quiet(connection):
                connection.sock.settimeout(span)
                return connection
            connection.close()
        if self._closed:
            raise StoreClosedError(f"etcd at {self.shown} was closed meanwhile")
        connection = self._new(span)
        try:
            connection.connect()
        except BaseException as error:  # whatever it is, nobody else would close it
            connection.close()
            if isinstance(error, ssl.SSLError) or not isinstance(error, OSError):
                raise
            raise UnreachedError(f"no connection to {self.shown}: {error}") from error
        return connection

    def _new(self, span: float) -> _Whole:
        connection: _Whole
        if self._context is None:
            connection = _Whole(self._host, self._port, timeout=span)
        else:
            connection = _Secure(self._host, self._port, timeout=span, context=self._context)
        connection.auto_open = 0  # what is closed under a request stays closed
        return connection


class _Whole(HTTPConnection):
    """Sends the head of a request and its body at once, which the server reads faster."""

    _unsent = b""

    def send(self, data: bytes) -> None:  # type: ignore[override]  # ours are bytes only
        self._unsent += data

    def getresponse(self) -> HTTPResponse:
        data, self._unsent = self._unsent, b""
        super().send(data)
        return super().getresponse()


class _Secure(_Whole, HTTPSConnection):
    """Over TLS."""


def _is_quiet(connection: _Whole) -> bool:
    """Whether nothing has come in, which between requests could only be the end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)
