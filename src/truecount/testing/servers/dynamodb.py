"""DynamoDB, as two independent programs play it: moto's server, and dynalite."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from truecount.testing.servers.process import Server

__all__ = ["Dynalite", "Moto"]

PROGRAM: Final = """
import io, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
application = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
def one_at_a_time(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return list(application(environ, start_response))
run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
"""
"""Moto's server, many connections and one request at a time.

Its own command serves requests at once without a lock: of two conditional
writes both may find that their condition holds.
"""


class _DynamoDB(Server):
    """A server that speaks DynamoDB's API."""

    @property
    def store(self) -> str:
        return f"dynamodb+http://127.0.0.1:{self.port}/truecount?create=1"

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except http.client.HTTPException:
            return False
        finally:
            connection.close()


class Moto(_DynamoDB):
    """Moto's server: all of the API that truecount uses, in memory, gone when it ends.

    Needs the packages ``moto[dynamodb,server]``.
    """

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-c", PROGRAM, str(self.port)]


class Dynalite(_DynamoDB):
    """Dynalite, the npm package, whose ``cli.js`` is at ``program``; run by ``node``.

    It keeps its data on disk. It knows no transactions, which idempotency keys
    need. Raises `FileNotFoundError` when one of the two is missing.
    """

    def __init__(self, program: Path, node: str | Path = "node") -> None:
        if not program.exists():
            raise FileNotFoundError(f"there is no {program}: npm install dynalite")
        self.program = program
        self.node = node
        super().__init__()

    def command(self) -> Sequence[str | Path]:
        return [
            *(self.node, self.program, "--host", "127.0.0.1", "--port", str(self.port)),
            *("--path", self.folder / "data", "--createTableMs", "0", "--deleteTableMs", "0"),
        ]
