"""SimpleDB's requests, through boto3, and what their errors mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import boto3
import botocore.config
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from truecount.errors import (
    CounterError,
    DamagedRecordError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.record import Address
from truecount.stores.base import Ambiguous, patiently

__all__ = ["Condition", "Service", "beforehand"]

Condition: TypeAlias = "tuple[str, str | None] | None"
"""An attribute and its only value; None stands for an attribute that is not there."""

_Found: TypeAlias = tuple[str, dict[str, list[str]]]

FAILED: Final = frozenset({"ConditionalCheckFailed", "AttributeDoesNotExist"})

FULL: Final = frozenset(
    {
        *("NumberDomainsExceeded", "NumberDomainBytesExceeded"),
        *("NumberDomainAttributesExceeded", "NumberItemAttributesExceeded"),
    }
)

BUSY: Final = frozenset(
    {"RequestTimeout", "QueryTimeout", "RequestThrottled", "Throttling", "ThrottlingException"}
)

UNREACHED: Final = (
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ProxyConnectionError,
)
"""Nothing was sent: there was no connection."""

UNASKED: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    exceptions.ParamValidationError,
)
"""Nothing was sent: the request could not be made, or not be signed."""

SPANS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds that a client waits for an answer. Boto3 fixes them when it makes one."""


class Service:
    """SimpleDB in a region, or at an endpoint; one for each process."""

    def __init__(self, region: str, endpoint: str | None, read_timeout: float) -> None:
        self.shown = endpoint or f"SimpleDB in {region}"
        self._region = region
        self._endpoint = endpoint
        self._clients: dict[float, Any] = {}
        self._spans = (*(span for span in SPANS if span < read_timeout), read_timeout)

    # Requests

    def get(
        self, address: Address, timeout: float | None, *, domain_is_there: bool = False
    ) -> dict[str, list[str]]:
        """All attributes of an item; none when it, or its domain, is not there.

        ``domain_is_there``: it is known to be, whatever SimpleDB says.
        """
        client = self._client(timeout)
        with self._errors(_item(address)):
            try:
                answer = client.get_attributes(
                    DomainName=address.domain, ItemName=address.name, ConsistentRead=True
                )
            except client.exceptions.NoSuchDomain:
                if domain_is_there:
                    raise
                return {}
            return _attributes(_true(answer))

    def put(
        self,
        address: Address,
        pairs: Mapping[str, str],
        condition: Condition,
        timeout: float | None,
        *,
        creates: bool = False,
    ) -> bool:
        """Replace those attributes, if ``condition`` holds: whether it did.

        ``creates``: the domain too, when it is missing.
        """
        client = self._client(timeout)
        request = {
            "DomainName": address.domain,
            "ItemName": address.name,
            "Attributes": [{"Name": n, "Value": v, "Replace": True} for n, v in pairs.items()],
            **_expected(condition),
        }
        with self._errors(_item(address)):
            try:
                return _conditionally(client.put_attributes, request)
            except client.exceptions.NoSuchDomain:
                if not creates:
                    raise
        with beforehand(), self._errors(f"SimpleDB domain {address.domain!r}"):
            _true(client.create_domain(DomainName=address.domain))
        with self._errors(_item(address)):
            return _conditionally(client.put_attributes, request)

    def add_many(
        self, domain: str, items: Mapping[str, Mapping[str, str]], timeout: float | None
    ) -> None:
        """Add to up to 25 items, without a condition, all or none."""
        client = self._client(timeout)
        with self._errors(f"SimpleDB domain {domain!r}"):
            answer = client.batch_put_attributes(
                DomainName=domain,
                Items=[
                    {
                        "Name": item,
                        "Attributes": [{"Name": n, "Value": v} for n, v in pairs.items()],
                    }
                    for item, pairs in items.items()
                ],
            )
            _true(answer)

    def delete(
        self,
        address: Address,
        pairs: Sequence[tuple[str, str]],
        condition: Condition,
        timeout: float | None,
    ) -> bool:
        """Delete those pairs, if ``condition`` holds: whether it did."""
        client = self._client(timeout)
        request = {
            "DomainName": address.domain,
            "ItemName": address.name,
            "Attributes": [{"Name": n, "Value": v} for n, v in pairs],
            **_expected(condition),
        }
        with self._errors(_item(address)):
            return _conditionally(client.delete_attributes, request)

    def select(self, expression: str, timeout: float | None) -> Iterator[_Found]:
        """The items that ``expression`` finds, consistently: (name, attributes).

        Each page is asked for patiently, for ``timeout`` seconds.
        """
        token = ""
        while True:
            items, token = patiently(partial(self._page, expression, token), timeout)
            yield from items
            if not token:
                return

    def domains(self, timeout: float | None) -> list[str]:
        """The names of all domains, asked for as patiently."""
        return patiently(self._domains, timeout)

    def close(self) -> None:
        """Close the connections."""
        for client in list(self._clients.values()):
            client.close()

    # Parts of them

    def _page(self, expression: str, token: str) -> tuple[list[_Found], str]:
        client = self._client(None)
        further = {"NextToken": token} if token else {}
        with self._errors(f"the query {expression!r}"):
            try:
                answer = client.select(SelectExpression=expression, ConsistentRead=True, **further)
            except client.exceptions.NoSuchDomain:
                return [], ""
            items = _true(answer).get("Items", ())
            found = [(item["Name"], _attributes(item)) for item in items]
            return found, answer.get("NextToken", "")

    def _domains(self) -> list[str]:
        client = self._client(None)
        with self._errors("the list of domains"):
            pages = client.get_paginator("list_domains").paginate()
            return [name for page in pages for name in _true(page).get("DomainNames", ())]

    # Clients and errors

    def _client(self, timeout: float | None) -> Any:
        """A client that waits for an answer until ``timeout`` is over at most, or about so."""
        span = self._spans[-1]
        if timeout is not None and timeout < span:
            span = max((s for s in self._spans if s <= timeout), default=self._spans[0])
        client = self._clients.get(span)
        if client is None:
            new = self._make(span)
            client = self._clients.setdefault(span, new)
            if client is not new:
                new.close()
        return client

    def _make(self, span: float) -> Any:
        try:
            session = boto3.session.Session()
            regions = session.get_available_regions("sdb")
            if self._endpoint is None and self._region not in regions:
                raise StoreURLError(
                    f"there is no SimpleDB in {self._region!r}; there is in {', '.join(regions)}"
                )
            credentials: dict[str, str] = {}
            if self._endpoint is not None and session.get_credentials() is None:
                # SimpleDB Local takes any, unless it was told which.
                credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
            return session.client(
                "sdb",
                region_name=self._region,
                endpoint_url=self._endpoint,
                config=botocore.config.Config(
                    # Its retries are what counts double; the plan has its own.
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    connect_timeout=min(span, 5.0),
                    read_timeout=span,
                    max_pool_connections=64,
                ),
                **credentials,
            )
        except (BotoCoreError, ValueError) as error:
            if isinstance(error, CounterError):
                raise
            raise StoreError(f"{self.shown} cannot be used: {error}") from error

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Sort what boto3 raises about ``what``: refused before acting, or ambiguous."""
        try:
            yield
        except (CounterError, Ambiguous):
            raise
        except ClientError as error:
            raise self._refusal(error, what) from error
        except UNREACHED as error:
            raise StoreUnavailableError(f"{self.shown} cannot be reached: {error}") from error
        except UNASKED as error:
            raise StoreError(f"{self.shown} cannot be asked: {error}") from error
        except exceptions.ReadTimeoutError as error:
            late = StoreTimeoutError(f"{self.shown} did not answer in time")
            raise Ambiguous(late) from error
        except Exception as error:
            # What cannot be read, or not to its end, was an answer maybe.
            trouble = f"{self.shown}: {error or type(error).__name__}"
            raise Ambiguous(StoreUnavailableError(trouble)) from error

    def _refusal(self, error: Any, what: str) -> Exception:
        code = error.response.get("Error", {}).get("Code", "")
        text = error.response.get("Error", {}).get("Message", "") or str(error)
        metadata = error.response.get("ResponseMetadata", {})
        status = metadata.get("HTTPStatusCode", 500)
        if status >= 500 or code in BUSY or not (code and error.response.get("RequestID")):
            # The service may have done it all the same, or this is a gateway's word.
            return Ambiguous(StoreUnavailableError(f"{self.shown} is unavailable: {text}"))
        if code == "NoSuchDomain":
            return StoreUnavailableError(f"{what}: the domain is not there, or not there yet")
        if code == "MultiValuedAttribute":
            return DamagedRecordError(f"{what}: {text}. Remove the other values")
        if code in FULL:
            return StoreFullError(f"{what}: {text}")
        if status == 403 or code in ("AuthFailure", "OptInRequired", "RequestExpired"):
            return StoreError(
                f"{self.shown} refuses access to {what} ({code}: {text}): look at the "
                "credentials, the region and the clock"
            )
        return StoreError(f"{self.shown} refuses a request for {what} ({code}: {text})")


@contextlib.contextmanager
def beforehand() -> Iterator[None]:
    """What is prepared before a change is no part of it: the change itself was not sent."""
    try:
        yield
    except Ambiguous as error:
        raise error.cause from error


def _item(address: Address) -> str:
    return f"item {address.name!r} in SimpleDB domain {address.domain!r}"


def _true(answer: Any) -> Any:
    """``answer``, if it is SimpleDB's: some proxies answer 200 with a page of their own."""
    if not answer.get("ResponseMetadata", {}).get("RequestId"):
        raise ValueError("the answer is not SimpleDB's")
    return answer


def _conditionally(operation: Any, request: dict[str, Any]) -> bool:
    try:
        _true(operation(**request))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in FAILED:
            return False
        raise
    return True


def _expected(condition: Condition) -> dict[str, Any]:
    if condition is None:
        return {}
    name, value = condition
    if value is None:
        return {"Expected": {"Name": name, "Exists": False}}
    return {"Expected": {"Name": name, "Value": value, "Exists": True}}


def _attributes(answer: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute in answer.get("Attributes", ()):
        found.setdefault(attribute["Name"], []).append(attribute["Value"])
    return found
