"""A service of Amazon's at one place, and what its errors and boto3's mean."""

from __future__ import annotations

import contextlib
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from truecount.errors import (
    CounterError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.stores.aws.wire import Wire
from truecount.stores.base import Ambiguous
from truecount.stores.connections import Reply, UnreachedError

__all__ = ["Said", "Service"]

UNREACHED: Final = (
    UnreachedError,
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
)
"""Nothing was sent: there was no connection."""

UNASKED: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)
"""The request could not be signed, and will not be at the next attempt."""

SHORTEST: Final = 0.1
"""Seconds that an answer is waited for at least: a request that is made shall have a chance."""


class Said(NamedTuple):
    """An error that the service answered: ``body`` is all of it."""

    code: str
    text: str
    status: int
    operation: str
    body: Any


class Service(ABC):
    """A service of Amazon's, at one place, for one process.

    ``make`` makes a client with a configuration, ``shown`` is what errors call
    the place.
    """

    def __init__(self, shown: str, read_timeout: float, make: Callable[[Config], Any]) -> None:
        self.shown = shown
        self._read_timeout = read_timeout
        self._make = make
        self._wire: Wire | None = None
        self._lock = threading.Lock()  # to make one

    @abstractmethod
    def refusal(self, said: Said, what: str) -> Exception:
        """What an error means that was answered to a request for ``what``.

        It is the service's own word: with a code and a request's id, and no 5xx.
        """

    def post(
        self,
        operation: str,
        fields: Mapping[str, str],
        body: bytes | dict[str, str],
        what: str,
        timeout: float | None,
    ) -> Reply:
        """What is answered to a request for ``what``, until ``timeout`` is over, or about so."""
        wire = self._wire or self._new_wire()
        span = self._read_timeout
        if timeout is not None and timeout < span:
            span = max(timeout, SHORTEST)
        try:
            request = wire.signed(operation, fields, body)
        except Exception as error:  # whatever is wrong: nothing was sent
            trouble = f"{self.shown} cannot be asked: {error or type(error).__name__}"
            kind = StoreUnavailableError if is_passing(error) else StoreError
            raise kind(trouble) from error
        with self.errors(what):
            return wire.post(request, span)

    def close(self) -> None:
        """Close the connections; there are new ones for what comes later."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Sort what is raised about ``what``: refused before acting, or ambiguous."""
        try:
            yield
        except (CounterError, Ambiguous):
            raise
        except UNREACHED as error:
            raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
        except (exceptions.ReadTimeoutError, TimeoutError) as error:
            late = StoreTimeoutError(f"{self.shown} did not answer in time")
            raise Ambiguous(late) from error
        except Exception as error:
            is_tls = isinstance(error, exceptions.SSLError | ssl.SSLError)
            if is_tls and "VERIFY_FAILED" in str(error):
                # Said before anything is sent. Other errors of TLS may come later.
                raise StoreError(f"{self.shown} is not to be trusted: {error}") from error
            if _is_unreached_proxy(error):
                raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
            # What cannot be read, or not to its end, was an answer maybe.
            trouble = f"{self.shown}: {error or type(error).__name__}"
            raise Ambiguous(StoreUnavailableError(trouble)) from error

    def answered(self, said: Said, named: bool, what: str) -> Exception:
        """What an answer means that is an error; ``named``: it has a request's id."""
        if not (400 <= said.status < 500 and said.code and named):
            # The service may have done it all the same, or this is a gateway's word.
            trouble = f"{self.shown} is unavailable: {said.text or f'HTTP {said.status}'}"
            return Ambiguous(StoreUnavailableError(trouble))
        return self.refusal(said, what)

    def _new_wire(self) -> Wire:
        try:
            with self._lock:
                if self._wire is None:
                    self._wire = Wire(self._make, self._read_timeout)
                return self._wire
        except CounterError:
            raise
        except (BotoCoreError, OSError, ValueError, AttributeError) as error:
            raise StoreError(f"{self.shown} cannot be used: {error}") from error


def is_passing(error: Exception) -> bool:
    """Whether a failure to get credentials may be over at the next attempt."""
    if isinstance(error, ClientError):
        return bool(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500)
    return isinstance(error, BotoCoreError | OSError) and not isinstance(error, UNASKED)


def _is_unreached_proxy(error: Exception) -> bool:
    """Whether there was no connection to the proxy; where one broke, boto3 says the same."""
    if not isinstance(error, exceptions.ProxyConnectionError):
        return False
    origin = getattr(error.kwargs.get("error"), "original_error", None)
    return isinstance(origin, (NewConnectionError, ConnectTimeoutError))
