"""What the stores at Amazon's share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config

from truecount.errors import StoreClosedError
from truecount.process import Process, here
from truecount.stores.aws.clients import twin
from truecount.stores.aws.service import Service
from truecount.stores.base import Store
from truecount.url import StoreURL

__all__ = ["AmazonStore", "is_place"]

READ_TIMEOUT: Final = 2.0
"""Seconds to wait for one answer unless told otherwise."""

_HOST: Final = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")

S = TypeVar("S", bound=Service)


class AmazonStore(Store, Generic[S]):
    """A store behind a `Service`; or behind a client of boto3's, by a twin of it."""

    _make: Callable[[Config], Any]
    """Makes a client."""

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        self._read_timeout = url.positive_seconds("read_timeout", READ_TIMEOUT)
        self._services: dict[Process, S] = {}

    @classmethod
    def from_client(cls, client: Any, url: StoreURL) -> Self:
        _, _, options = url.text.partition("?")
        place = urlsplit(client.meta.endpoint_url)
        store = cls(StoreURL(f"{url.scheme}+{place.scheme}://{place.netloc}?{options}".rstrip("?")))
        store.client = client
        store._make = partial(twin, client)
        return store

    def close(self) -> None:
        self.closed = True
        service = self._services.pop(here(), None)
        if service is not None:
            service.close()

    @abstractmethod
    def _new_service(self) -> S:
        """The service, for this process."""

    def _service(self) -> S:
        if self.closed:
            raise StoreClosedError(f"{self!r} was closed; connect() opens it again")
        service = self._services.get(here())
        if service is None:
            service = self._services.setdefault(here(), self._new_service())
        return service


def is_place(place: str, *, endpoint: bool) -> bool:
    """Whether ``place`` is a region's name, or a host with a port maybe."""
    if not endpoint:
        return re.fullmatch(r"[a-z0-9-]+", place) is not None
    try:
        parts = urlsplit(f"//{place}")
        port = parts.port
    except ValueError:
        return False
    if parts.path:
        return False
    host = place if port is None else place.rpartition(":")[0]
    return _HOST.fullmatch(host) is not None and port != 0
