"""The etcd store, on a real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from etcd_server import serving
from truecount.testing.conformance import StoreConformance
from truecount.testing.servers import Etcd


def is_write(request: bytes) -> bool:
    """Whether a request that a proxy has seen is one that writes a counter."""
    return b"/v3/kv/txn" in request and b"request_put" in request


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    """A server that the tests of this module share."""
    with serving() as server:
        yield server


class TestEtcd(StoreConformance):
    """``etcd://``, each test with a prefix of its own."""

    server: Etcd

    @pytest.fixture(autouse=True)
    def serving(self, etcd: Etcd) -> None:
        self.server = etcd

    def url(self, folder: Path) -> str:
        return f"{self.server.store}/{sha256(str(folder).encode()).hexdigest()[:16]}"
