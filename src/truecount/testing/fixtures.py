"""Pytest fixtures: ``pytest_plugins = ["truecount.testing.fixtures"]`` in your ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from truecount.testing.servers import SimpleDBLocal

__all__ = ["simpledb_local"]


@pytest.fixture(scope="session")
def simpledb_local() -> Iterator[str]:
    """The URL of a SimpleDB Local that lives as long as the tests do.

    ``boto3.client("sdb", endpoint_url=simpledb_local, region_name="us-east-1")``,
    or ``Counter("mydomain", "counter1", store=f"simpledb+{simpledb_local}")``.
    """
    with SimpleDBLocal() as server:
        yield server.url
