"""What the stores at Amazon's share: boto3's clients, and what their exceptions mean."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from truecount.errors import (
    CounterError,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.process import Process, here
from truecount.stores.base import Ambiguous, Store
from truecount.url import StoreURL

__all__ = ["AmazonStore", "Said", "Service", "client_at", "genuine", "is_place"]

READ_TIMEOUT: Final = 2.0
"""Seconds to wait for one answer unless told otherwise."""

UNREACHED: Final = (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError)
"""Nothing was sent: there was no connection."""

UNASKED: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)
"""Nothing was sent: the request could not be made, or not be signed."""

SPANS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds that a client waits for an answer. Boto3 fixes them when it makes one."""

_HOST: Final = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


# Clients


def client_at(service: str, region: str | None, endpoint: str | None, config: Config) -> Any:
    """A client of ``service`` in a region, or at an endpoint.

    For an endpoint the region is boto3's, where None is given.
    """
    session = boto3.session.Session()
    credentials: dict[str, str] = {}
    if endpoint is not None and session.get_credentials() is None:
        # Servers for development take any, unless they were told which.
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return session.client(
        service,
        region_name=region or session.region_name or "us-east-1",
        endpoint_url=endpoint,
        # Boto3 composes its own user agent anew for every request: a tenth of its time, too.
        config=config.merge(Config(max_pool_connections=64, user_agent="truecount")),
        **credentials,
    )


def twin(client: Any, config: Config) -> Any:
    """A client like somebody's ``client``, set up in the same way but for ``config``.

    Theirs has retries and time-outs that are fixed for good. Credentials are
    the same object, which renews itself. Event handlers are not taken over.
    """
    session = botocore.session.Session()
    # Boto3 tells these two to nobody, so they are taken from where it keeps them.
    session.register_component("credential_provider", _Given(client._get_credentials()))
    verify = getattr(client._endpoint.http_session, "_verify", None)
    return session.create_client(
        client.meta.service_model.service_name,
        region_name=client.meta.region_name,
        endpoint_url=client.meta.endpoint_url,
        verify=verify,
        config=client.meta.config.merge(config),
    )


class _Given(NamedTuple):
    """Provides credentials that are known."""

    credentials: Any

    def load_credentials(self) -> Any:
        return self.credentials


# Requests


class Said(NamedTuple):
    """An error that the service answered."""

    code: str
    text: str
    status: int
    operation: str
    response: Any


class Service(ABC):
    """A service of Amazon's, at one place, for one process.

    ``make`` makes a client with a configuration, ``shown`` is what errors call
    the place.
    """

    def __init__(self, shown: str, read_timeout: float, make: Callable[[Config], Any]) -> None:
        self.shown = shown
        self._make = make
        self._clients: dict[float, Any] = {}
        self._spans = (*(span for span in SPANS if span < read_timeout), read_timeout)

    @abstractmethod
    def refusal(self, said: Said, what: str) -> Exception:
        """What an error means that was answered to a request for ``what``.

        It is the service's own word: with a code and a request's id, and no 5xx.
        """

    def client(self, timeout: float | None) -> Any:
        """A client that waits for an answer until ``timeout`` is over at most, or about so."""
        span = self._spans[-1]
        if timeout is not None and timeout < span:
            span = max((s for s in self._spans if s <= timeout), default=self._spans[0])
        client = self._clients.get(span)
        if client is None:
            new = self._new_client(span)
            client = self._clients.setdefault(span, new)
            if client is not new:
                new.close()
        return client

    def close(self) -> None:
        """Close the connections."""
        for client in list(self._clients.values()):
            client.close()

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Sort what boto3 raises about ``what``: refused before acting, or ambiguous."""
        try:
            yield
        except (CounterError, Ambiguous):
            raise
        except ClientError as error:
            raise self._answered(error, what) from error
        except UNREACHED as error:
            raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
        except UNASKED as error:
            raise StoreError(f"{self.shown} cannot be asked: {error}") from error
        except exceptions.ReadTimeoutError as error:
            late = StoreTimeoutError(f"{self.shown} did not answer in time")
            raise Ambiguous(late) from error
        except Exception as error:
            if isinstance(error, exceptions.SSLError) and "VERIFY_FAILED" in str(error):
                # Said before anything is sent. Other errors of TLS may come later.
                raise StoreError(f"{self.shown} is not to be trusted: {error}") from error
            if _is_unreached_proxy(error):
                raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
            # What cannot be read, or not to its end, was an answer maybe.
            trouble = f"{self.shown}: {error or type(error).__name__}"
            raise Ambiguous(StoreUnavailableError(trouble)) from error

    def _answered(self, error: Any, what: str) -> Exception:
        known = error.response.get("Error", {})
        metadata = error.response.get("ResponseMetadata", {})
        code = known.get("Code", "")
        text = (known.get("Message", "") or str(error))[:500]
        status = metadata.get("HTTPStatusCode", 500)
        named = metadata.get("RequestId") or error.response.get("RequestID")
        if status >= 500 or not (code and named):
            # The service may have done it all the same, or this is a gateway's word.
            return Ambiguous(StoreUnavailableError(f"{self.shown} is unavailable: {text}"))
        return self.refusal(Said(code, text, status, error.operation_name, error.response), what)

    def _new_client(self, span: float) -> Any:
        config = Config(
            # Its retries are what counts double; the plan has its own.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(span, 5.0),
            read_timeout=span,
            # It takes a tenth of boto3's time, and the service checks parameters anyway.
            parameter_validation=False,
        )
        try:
            client = self._make(config)
            client.meta.events.register("before-parse", check_length)
            return client
        except CounterError:
            raise
        except (BotoCoreError, OSError, ValueError, AttributeError) as error:
            raise StoreError(f"{self.shown} cannot be used: {error}") from error


def _is_unreached_proxy(error: Exception) -> bool:
    """Whether there was no connection to the proxy; where one broke, boto3 says the same."""
    if not isinstance(error, exceptions.ProxyConnectionError):
        return False
    origin = getattr(error.kwargs.get("error"), "original_error", None)
    return isinstance(origin, (NewConnectionError, ConnectTimeoutError))


def check_length(response_dict: dict[str, Any], **_: Any) -> None:
    """Raise `ValueError` for an answer that was cut off.

    To botocore it is an empty one, or one without the items that were asked for.
    """
    headers = response_dict["headers"]
    length = headers.get("content-length", "" if "transfer-encoding" in headers else "missing")
    if length and length != str(len(response_dict["body"])):
        raise ValueError("the answer was cut off")


def genuine(answer: Any) -> Any:
    """``answer``, if it is Amazon's: some proxies answer 200 with a page of their own."""
    if not answer.get("ResponseMetadata", {}).get("RequestId"):
        raise ValueError("the answer is not Amazon's")
    return answer


# Stores

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
