"""SimpleDB's requests, through boto3, and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from truecount.errors import (
    DamagedRecordError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.record import Address
from truecount.stores.aws import Said, Service, client_at, genuine
from truecount.stores.base import Ambiguous, beforehand, patiently

__all__ = ["Condition", "SimpleDB", "simpledb_at"]

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


def simpledb_at(region: str, endpoint: str | None, config: Config) -> Any:
    """A client in a region, or at an endpoint."""
    regions = boto3.session.Session().get_available_regions("sdb")
    if endpoint is None and region not in regions:
        raise StoreURLError(f"there is no SimpleDB in {region!r}; there is in {', '.join(regions)}")
    return client_at("sdb", region, endpoint, config)


class SimpleDB(Service):
    """SimpleDB in a region, or at an endpoint; one for each process."""

    # Requests

    def get(
        self, address: Address, timeout: float | None, *, domain_is_there: bool = False
    ) -> dict[str, list[str]]:
        """All attributes of an item; none when it, or its domain, is not there.

        ``domain_is_there``: it is known to be, whatever SimpleDB says.
        """
        client = self.client(timeout)
        with self.errors(_item(address)):
            try:
                answer = client.get_attributes(
                    DomainName=address.domain, ItemName=address.name, ConsistentRead=True
                )
            except client.exceptions.NoSuchDomain:
                if domain_is_there:
                    raise
                return {}
            return _attributes(genuine(answer))

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
        client = self.client(timeout)
        request = {
            "DomainName": address.domain,
            "ItemName": address.name,
            "Attributes": [{"Name": n, "Value": v, "Replace": True} for n, v in pairs.items()],
            **_expected(condition),
        }
        with self.errors(_item(address)):
            try:
                return _conditionally(client.put_attributes, request)
            except client.exceptions.NoSuchDomain:
                if not creates:
                    raise
        with beforehand(), self.errors(f"SimpleDB domain {address.domain!r}"):
            genuine(client.create_domain(DomainName=address.domain))
        with self.errors(_item(address)):
            return _conditionally(client.put_attributes, request)

    def add_many(
        self, domain: str, items: Mapping[str, Mapping[str, str]], timeout: float | None
    ) -> None:
        """Add to up to 25 items, without a condition, all or none."""
        client = self.client(timeout)
        with self.errors(f"SimpleDB domain {domain!r}"):
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
            genuine(answer)

    def delete(
        self,
        address: Address,
        pairs: Sequence[tuple[str, str]],
        condition: Condition,
        timeout: float | None,
    ) -> bool:
        """Delete those pairs, if ``condition`` holds: whether it did."""
        client = self.client(timeout)
        request = {
            "DomainName": address.domain,
            "ItemName": address.name,
            "Attributes": [{"Name": n, "Value": v} for n, v in pairs],
            **_expected(condition),
        }
        with self.errors(_item(address)):
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

    # Parts of them

    def _page(self, expression: str, token: str) -> tuple[list[_Found], str]:
        client = self.client(None)
        further = {"NextToken": token} if token else {}
        with self.errors(f"the query {expression!r}"):
            try:
                answer = client.select(SelectExpression=expression, ConsistentRead=True, **further)
            except client.exceptions.NoSuchDomain:
                return [], ""
            items = genuine(answer).get("Items", ())
            found = [(item["Name"], _attributes(item)) for item in items]
            return found, answer.get("NextToken", "")

    def _domains(self) -> list[str]:
        client = self.client(None)
        with self.errors("the list of domains"):
            pages = client.get_paginator("list_domains").paginate()
            return [name for page in pages for name in genuine(page).get("DomainNames", ())]

    # Errors

    def refusal(self, said: Said, what: str) -> Exception:
        code, text, status = said[:3]
        if code in BUSY:
            # It may have been done all the same.
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


def _item(address: Address) -> str:
    return f"item {address.name!r} in SimpleDB domain {address.domain!r}"


def _conditionally(operation: Any, request: dict[str, Any]) -> bool:
    try:
        genuine(operation(**request))
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
