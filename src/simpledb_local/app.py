"""The HTTP face: from a request to an answer, which is always one of the API's."""

from __future__ import annotations

import logging
import random
import sqlite3
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from simpledb_local import errors
from simpledb_local.domains import Domains
from simpledb_local.errors import ServiceError
from simpledb_local.operations import VERSION, Operations
from simpledb_local.parameters import Parameters, parse
from simpledb_local.signature import Credentials, verify
from simpledb_local.xml import error_document, success_document

__all__ = ["HEADERS", "LARGEST_REQUEST", "make_app"]

LARGEST_REQUEST: Final = 2 * 1024 * 1024
"""Bytes of a body. PutAttributes can need 1.6 million, when every byte is escaped."""

HEADERS: Final = {"Content-Type": "text/xml", "Server": "SimpleDB Local"}

logger = logging.getLogger("simpledb_local")


def make_app(
    domains: Domains, credentials: Credentials | None = None, fail_rate: float = 0.0
) -> Starlette:
    """The application that serves ``domains``.

    With ``credentials`` every request must be signed with them. ``fail_rate``
    is the probability of an answer 503; half of those requests are performed.
    """
    return Starlette(routes=[Route("/{path:path}", _Face(domains, credentials, fail_rate))])


class _Face:
    def __init__(self, domains: Domains, credentials: Credentials | None, fail_rate: float) -> None:
        self._operations = Operations(domains)
        self._credentials = credentials
        self._fail_rate = fail_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        """The answer to ``request``, whatever happens."""
        try:
            document = await self._answer(request)
        except ServiceError as error:
            failure = error
        except sqlite3.Error as error:
            # Most likely no room on the disk. Whether the write is there after
            # all, a client cannot know; that is what 503 means.
            logger.error("the data cannot be read or written: %s", error)
            failure = errors.unavailable()
        except ClientDisconnect:
            raise
        except Exception:  # told to the operator, and to the client in the API's form
            logger.exception("a bug: please report the lines below")
            failure = errors.internal()
        else:
            return Response(document, headers=HEADERS)
        return Response(error_document(failure), failure.status, headers=HEADERS)

    async def _answer(self, request: Request) -> bytes:
        if request.method not in ("GET", "POST"):
            raise errors.unsupported_verb(request.method)
        path = request.scope["raw_path"].decode("latin-1")
        if path not in ("", "/"):
            raise errors.invalid_uri(path)
        parameters = parse(request.scope["query_string"], await _body(request))
        if self._credentials is not None:
            host = request.headers.get("host", "")
            verify(self._credentials, request.method, host, path, parameters)
        return await self._perform(parameters)

    async def _perform(self, parameters: Parameters) -> bytes:
        action = parameters.get("Action")
        if not action:
            raise errors.missing_action()
        version = parameters.require("Version")
        if version != VERSION:
            raise errors.no_such_version(version)
        fate = random.random() if self._fail_rate else 1.0
        if fate < self._fail_rate / 2:
            raise errors.unavailable()
        try:
            result, box_usage = await self._operations.perform(action, parameters)
        except ServiceError as error:
            if fate < self._fail_rate:
                raise errors.unavailable() from error
            raise
        if fate < self._fail_rate:
            raise errors.unavailable()
        return success_document(action, result, box_usage)


async def _body(request: Request) -> bytes:
    if request.method == "GET":
        return b""
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_REQUEST:
            raise errors.invalid_request(f"the body has more than {LARGEST_REQUEST} bytes")
        parts.append(part)
    return b"".join(parts)
