"""The DynamoDB store, on two independent servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.installed import dynalite

from helpers import there
from truecount import Counter, StoreError, connect
from truecount.testing.conformance import StoreConformance
from truecount.testing.servers import Dynalite, Moto


def is_write(request: bytes) -> bool:
    """Whether a request writes items."""
    return any(
        b"DynamoDB_20120810." + operation in request
        for operation in (b"UpdateItem", b"TransactWriteItems", b"DeleteItem")
    )


def table_of(folder: Path) -> str:
    """The name of a table that belongs to ``folder`` alone."""
    return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:20]


class OnDynamoDB(StoreConformance):
    """The suite on one server, with a table of each test's own."""

    @pytest.fixture(autouse=True)
    def own_table(self, server: Moto | Dynalite) -> None:
        self.port = server.port

    def url(self, folder: Path) -> str:
        return f"dynamodb+http://127.0.0.1:{self.port}/{table_of(folder)}?create=1"


class TestMoto(OnDynamoDB):
    """``dynamodb+http://`` on moto's server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Moto]:
        with Moto() as server:
            yield server


class TestDynalite(OnDynamoDB):
    """``dynamodb+http://`` on dynalite, which has no transactions, and so no keys."""

    keys = False

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Dynalite]:
        with there(dynalite) as server:
            yield server

    def test_keys_need_transactions(self, folder: Path) -> None:
        """A change with a key is refused by naming what is missing, and nothing is written."""
        with connect(self.url(folder)) as store:
            c = Counter("conformance", "counter", 5, store=store)
            with pytest.raises(StoreError, match="TransactWriteItems"):
                c.add(1, key="once")
            with pytest.raises(StoreError, match="TransactWriteItems"):
                c.receipt("once")
            assert c.refresh() == 5
