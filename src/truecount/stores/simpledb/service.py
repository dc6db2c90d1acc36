"""SimpleDB's requests, and what their errors mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from xml.etree.ElementTree import Element, fromstring

import boto3
from botocore.config import Config

from truecount.errors import (
    DamagedRecordError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.record import Address
from truecount.stores.aws.clients import client_at
from truecount.stores.aws.service import Said, Service
from truecount.stores.base import Ambiguous, Deadline, beforehand, patiently

__all__ = ["Condition", "SimpleDB", "simpledb_at"]

T = TypeVar("T")

Condition: TypeAlias = "tuple[str, str | None] | None"
"""An attribute and its only value; None stands for an attribute that is not there."""

Form: TypeAlias = dict[str, str]
"""A request: parameters by name."""

_Found: TypeAlias = tuple[str, dict[str, list[str]]]

VERSION: Final = "2009-04-15"

FIELDS: Final = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}

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


class Failed(StoreError):
    """The condition of a write did not hold."""


class NoSuchDomain(StoreUnavailableError):
    """The domain is not there, or not there yet."""


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
        request = {**_place(address), "ConsistentRead": "true"}
        try:
            answer = self._ask("GetAttributes", request, _item(address), timeout)
        except NoSuchDomain:
            if domain_is_there:
                raise
            return {}
        with self.errors(_item(address)):
            return _attributes(_result(answer))

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
        request = _place(address) | _expected(condition)
        for number, (name, value) in enumerate(pairs.items(), 1):
            request |= _pair(f"Attribute.{number}", name, value)
            request[f"Attribute.{number}.Replace"] = "true"
        deadline = Deadline(timeout)
        try:
            return self._conditionally("PutAttributes", request, address, timeout)
        except NoSuchDomain:
            if not creates:
                raise
        with beforehand():
            domain = {"DomainName": address.domain}
            what = f"SimpleDB domain {address.domain!r}"
            self._ask("CreateDomain", domain, what, deadline.left())
        return self._conditionally("PutAttributes", request, address, deadline.left())

    def add_many(
        self, domain: str, items: Mapping[str, Mapping[str, str]], timeout: float | None
    ) -> None:
        """Add to up to 25 items, without a condition, all or none."""
        request = {"DomainName": domain}
        for place, (item, pairs) in enumerate(items.items(), 1):
            request[f"Item.{place}.ItemName"] = item
            for number, (name, value) in enumerate(pairs.items(), 1):
                request |= _pair(f"Item.{place}.Attribute.{number}", name, value)
        self._ask("BatchPutAttributes", request, f"SimpleDB domain {domain!r}", timeout)

    def delete(
        self,
        address: Address,
        pairs: Sequence[tuple[str, str]],
        condition: Condition,
        timeout: float | None,
    ) -> bool:
        """Delete those pairs, if ``condition`` holds: whether it did."""
        request = _place(address) | _expected(condition)
        for number, (name, value) in enumerate(pairs, 1):
            request |= _pair(f"Attribute.{number}", name, value)
        return self._conditionally("DeleteAttributes", request, address, timeout)

    def select(self, expression: str, timeout: float | None) -> Iterator[_Found]:
        """The items that ``expression`` finds, consistently: (name, attributes).

        Each page is asked for patiently, for ``timeout`` seconds.
        """
        request = {"SelectExpression": expression, "ConsistentRead": "true"}
        return self._list("Select", request, f"the query {expression!r}", _item_of, timeout)

    def domains(self, timeout: float | None) -> list[str]:
        """The names of all domains, asked for as patiently."""
        what = "the list of domains"
        return list(self._list("ListDomains", {}, what, _domain_of, timeout))

    # Parts of them

    def _list(
        self,
        action: str,
        request: Form,
        what: str,
        read: Callable[[Element], T | None],
        timeout: float | None,
    ) -> Iterator[T]:
        """What ``read`` makes of the elements of a list, page after page."""
        token: str | None = ""
        while token is not None:
            further = {"NextToken": token} if token else {}
            page = partial(self._page, action, request | further, what, read)
            found, token = patiently(page, timeout)
            yield from found

    def _page(
        self, action: str, request: Form, what: str, read: Callable[[Element], T | None]
    ) -> tuple[list[T], str | None]:
        """A page of a list, and what leads to the next."""
        try:
            answer = self._ask(action, request, what, None)
        except NoSuchDomain:
            return [], None
        with self.errors(what):
            result = _result(answer)
            found = [each for each in map(read, result) if each is not None]
        return found, result.findtext("{*}NextToken") or None

    def _conditionally(
        self, action: str, request: Form, address: Address, timeout: float | None
    ) -> bool:
        try:
            self._ask(action, request, _item(address), timeout)
        except Failed:
            return False
        return True

    def _ask(self, action: str, request: Form, what: str, timeout: float | None) -> Element:
        """The answer to a request."""
        form = {"Action": action, "Version": VERSION, **request}
        reply = self.post(action, FIELDS, form, what, timeout)
        with self.errors(what):
            answer = _parsed(reply.data)
            named = any(_is(each, "RequestId", "RequestID") for each in answer.iter())
            if reply.status == 200 and named and _is(answer, f"{action}Response"):
                return answer
            error = answer.find(".//{*}Error")
            code, text = "", answer.text or ""
            if error is not None:
                code, text = _text(error, "Code"), _text(error, "Message")
            raise self.answered(Said(code, text[:500], reply.status, action, None), named, what)

    # Errors

    def refusal(self, said: Said, what: str) -> Exception:
        code, text, status = said[:3]
        if code in BUSY:
            # It may have been done all the same.
            return Ambiguous(StoreUnavailableError(f"{self.shown} is unavailable: {text}"))
        if code in FAILED:
            return Failed(f"{what}: {text}")
        if code == "NoSuchDomain":
            return NoSuchDomain(f"{what}: the domain is not there, or not there yet")
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


def _place(address: Address) -> Form:
    return {"DomainName": address.domain, "ItemName": address.name}


def _pair(place: str, name: str, value: str) -> Form:
    return {f"{place}.Name": name, f"{place}.Value": value}


def _expected(condition: Condition) -> Form:
    if condition is None:
        return {}
    name, value = condition
    if value is None:
        return {"Expected.Name": name, "Expected.Exists": "false"}
    return _pair("Expected", name, value) | {"Expected.Exists": "true"}


def _parsed(data: bytes) -> Element:
    """An answer; where it is no XML, an element of no name holds it."""
    try:
        return fromstring(data)  # noqa: S314  # expat has its limits, and botocore does so too
    except Exception:  # of coding, too
        page = Element("")
        page.text = data.decode(errors="replace").strip()
        return page


def _is(element: Element, *names: str) -> bool:
    """Whether it has one of these names, in whatever namespace."""
    return element.tag.rpartition("}")[2] in names


def _result(answer: Element) -> Element:
    """What is in an answer to a question."""
    action = answer.tag.rpartition("}")[2].removesuffix("Response")
    result = answer.find(f"{{*}}{action}Result")
    if result is None:
        raise ValueError("it holds no result")
    return result


def _item_of(element: Element) -> _Found | None:
    return (_text(element, "Name"), _attributes(element)) if _is(element, "Item") else None


def _domain_of(element: Element) -> str | None:
    return element.text if _is(element, "DomainName") else None


def _attributes(item: Element) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute in item.iterfind("{*}Attribute"):
        found.setdefault(_text(attribute, "Name"), []).append(_text(attribute, "Value"))
    return found


def _text(element: Element, name: str) -> str:
    text = element.findtext(f"{{*}}{name}")
    if text is None:
        raise ValueError(f"it lacks a {name}")
    return text
