"""Pytest fixtures: ``pytest_plugins = ["truecount.testing.fixtures"]`` in your ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from truecount import connect
from truecount.testing.faulty import FaultyStore
from truecount.testing.proxy import Proxy
from truecount.testing.servers import SimpleDBLocal
from truecount.testing.weather import Weather

__all__ = ["FaultProxy", "Faulty", "fault_proxy", "faulty_store", "simpledb_local"]

Faulty: TypeAlias = Callable[..., FaultyStore]
"""The type of the fixture `faulty_store`."""

FaultProxy: TypeAlias = Callable[..., Proxy]
"""The type of the fixture `fault_proxy`."""


@pytest.fixture(scope="session")
def simpledb_local() -> Iterator[str]:
    """The URL of a SimpleDB Local that lives as long as the tests do.

    ``Counter("mydomain", "counter1", store=f"simpledb+{simpledb_local}")``. Or
    ``boto3.client("sdb", endpoint_url=simpledb_local, region_name="us-east-1",
    aws_access_key_id="any", aws_secret_access_key="any")``: boto3 asks for
    credentials, and SimpleDB Local takes any.
    """
    with SimpleDBLocal() as server:
        yield server.url


@pytest.fixture
def faulty_store(tmp_path: Path) -> Iterator[Faulty]:
    """Makes a `FaultyStore`: ``faulty_store(url, weather)``, each of them optional.

    Around the store at ``url``, or one in a file of this test's own; closed
    when the test is over.
    """
    with ExitStack() as stack:

        def make(url: str | None = None, weather: Weather | None = None) -> FaultyStore:
            store = connect(url or f"sqlite:///{tmp_path}/faulty.db")
            return stack.enter_context(FaultyStore(store, weather))

        yield make


@pytest.fixture
def fault_proxy() -> Iterator[FaultProxy]:
    """Makes a `Proxy`: ``fault_proxy(url, weather)``, the latter optional.

    Before the server at the store's ``url``; ``proxy.behind(url)`` is the store
    through it. Closed when the test is over.
    """
    with ExitStack() as stack:

        def make(url: str, weather: Weather | None = None) -> Proxy:
            return stack.enter_context(Proxy.before(url, weather))

        yield make
