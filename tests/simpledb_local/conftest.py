"""A server that most tests share, and a domain for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from simpledb_server import Client, Server, serving

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = server.client()
    yield client
    client.connection.close()
    server.clients.remove(client)


@pytest.fixture
def domain(client: Client) -> Iterator[str]:
    name = f"domain{next(_numbers)}"
    client.create(name)
    yield name
    client.ok("DeleteDomain", DomainName=name)
