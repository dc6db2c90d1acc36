"""A service of Amazon's at one place, and what its errors and boto3's mean."""

from __future__ import annotations

import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError
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
"""Nothing was sent: the request could not be made, or not be signed."""

SPANS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds that an answer is waited for. Boto3 fixes them when it makes a client."""


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
        self._make = make
        self._wires: dict[float, Wire] = {}
        self._spans = (*(span for span in SPANS if span < read_timeout), read_timeout)

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
        span = self._spans[-1]
        if timeout is not None and timeout < span:
            span = max((s for s in self._spans if s <= timeout), default=self._spans[0])
        wire = self._wires.get(span) or self._new_wire(span)
        with self.errors(what):
            return wire.post(operation, fields, body)

    def close(self) -> None:
        """Close the connections; there are new ones for what comes later."""
        wires, self._wires = self._wires, {}
        for wire in wires.values():
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
        except UNASKED as error:
            raise StoreError(f"{self.shown} cannot be asked: {error}") from error
        except (exceptions.ReadTimeoutError, TimeoutError) as error:
            late = StoreTimeoutError(f"{self.shown} did not answer in time")
            raise Ambiguous(late) from error
        except Exception as error:
            if isinstance(error, (exceptions.SSLError, ssl.SSLError)) and "VERIFY_FAILED" in str(
                error
            ):
                # Said before anything is sent. Other errors of TLS may come later.
                raise StoreError(f"{self.shown} is not to be trusted: {error}") from error
            if _is_unreached_proxy(error):
                raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
            # What cannot be read, or not to its end, was an answer maybe.
            trouble = f"{self.shown}: {error or type(error).__name__}"
            raise Ambiguous(StoreUnavailableError(trouble)) from error

    def answered(self, said: Said, named: bool, what: str) -> Exception:
        """What an answer means that is an error; ``named``: it has a request's id."""
        if said.status >= 500 or not (said.code and named):
            # The service may have done it all the same, or this is a gateway's word.
            trouble = f"{self.shown} is unavailable: {said.text or f'HTTP {said.status}'}"
            return Ambiguous(StoreUnavailableError(trouble))
        return self.refusal(said, what)

    def _new_wire(self, span: float) -> Wire:
        config = Config(
            # Its retries are what counts double; the plan has its own.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(span, 5.0),
            read_timeout=span,
        )
        try:
            new = Wire(self._make(config), span)
        except CounterError:
            raise
        except (BotoCoreError, OSError, ValueError, AttributeError) as error:
            raise StoreError(f"{self.shown} cannot be used: {error}") from error
        wire = self._wires.setdefault(span, new)
        if wire is not new:
            new.close()
        return wire


def _is_unreached_proxy(error: Exception) -> bool:
    """Whether there was no connection to the proxy; where one broke, boto3 says the same."""
    if not isinstance(error, exceptions.ProxyConnectionError):
        return False
    origin = getattr(error.kwargs.get("error"), "original_error", None)
    return isinstance(origin, (NewConnectionError, ConnectTimeoutError))
