"""The SimpleDB store, on SimpleDB Local."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simpledb_server import Server, serving
from truecount.testing.conformance import StoreConformance

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")


def empty(server: Server) -> None:
    """Delete all domains, also where the server fails now and then."""
    client = server.client()
    for _ in range(100):
        listed = client("ListDomains")
        if listed.status == 200 and not listed.domains:
            break
        for domain in listed.domains:
            client("DeleteDomain", DomainName=domain)
    else:
        pytest.fail("the server does not become empty")
    client.connection.close()
    server.clients.remove(client)


class OnSimpleDBLocal(StoreConformance):
    """The suite on one server, emptied for each test."""

    options: tuple[object, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        with serving(*cls.options) as server:
            yield server

    @pytest.fixture
    def folder(self, tmp_path: Path, server: Server) -> Path:
        empty(server)
        return tmp_path / f"port{server.port}"

    def url(self, folder: Path) -> str:
        return f"simpledb+http://127.0.0.1:{folder.name.removeprefix('port')}"


class TestSimpleDB(OnSimpleDBLocal):
    """``simpledb+http://``."""


class TestSimpleDBLagging(OnSimpleDBLocal):
    """``simpledb+http://`` whose inconsistent reads are two seconds old."""

    options = ("--lag", "2")


class TestSimpleDBFailing(OnSimpleDBLocal):
    """``simpledb+http://`` that answers 503 to every fifth request, before or after it acts."""

    options = ("--fail-rate", "0.2")
