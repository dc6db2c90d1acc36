"""The server process: uvicorn, made safe against what is no HTTP and told when to stop."""

from __future__ import annotations

import logging
import socket
import sys
from types import FrameType
from typing import Final

import httptools
import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simpledb_local import errors
from simpledb_local.app import HEADERS, LARGEST_REQUEST
from simpledb_local.errors import ServiceError
from simpledb_local.xml import error_document

__all__ = ["listen", "serve"]

KEEP_ALIVE: Final = 75
"""Seconds that an idle connection lives: longer than clients keep theirs, or they meet its end."""


def listen(host: str, port: int) -> socket.socket:
    """A socket on ``host`` and ``port``, 0 for a free one; raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address, family=family, backlog=1024)


def url(listener: socket.socket) -> str:
    """What clients are told."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; print the URL to stdout when it begins."""
    # uvicorn's warnings are about requests that we answer ourselves.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
    )
    uvloop.run(_Server(config).serve([listener]))


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        sys.stdout.write(f"{url(sockets[0])}\n")
        sys.stdout.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. That is what was asked for, so the exit status will be 0."""
        self.force_exit = self.should_exit
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with bounds, and the API's errors for what is no HTTP."""

    _overhead = 0
    """Bytes of the present request that are not its body."""

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > LARGEST_REQUEST and not self.transport.is_closing():
            self._refuse(errors.uri_too_long(LARGEST_REQUEST))

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/"):  # as a client writes it that talks to a proxy
            parsed = httptools.parse_url(self.url)
            path = (parsed.path or b"").lstrip(b"/")
            self.url = b"/%s?%s" % (path, parsed.query or b"")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(errors.invalid_request("this is not HTTP/1.1"))

    def shutdown(self) -> None:
        if self.cycle is not None and self.cycle.more_body:  # which may never come
            self.transport.close()
        else:
            super().shutdown()

    def _refuse(self, error: ServiceError) -> None:
        document = error_document(error)
        lines = [f"HTTP/1.1 {error.status} Bad Request", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        lines += [f"Content-Length: {len(document)}", "", ""]
        self.transport.write("\r\n".join(lines).encode() + document)
        self.transport.close()
