"""Counters in Amazon DynamoDB: ``dynamodb://us-east-1/table``, ``dynamodb+http://127.0.0.1:8000``.

A counter is one item, so is the receipt of an idempotency key; `layout` knows
their format, `service` the requests. Every write is conditional on the stamp:
DynamoDB's own ``ADD`` sees neither receipts nor bounds, and counts again
whatever comes again.

What is read together with keys is read in one transaction. Of a write that is
just being carried out, two reads could see the record and not yet the key;
then a change would be refused for the value that it has made itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from truecount import moment
from truecount.errors import DamagedRecordError, StoreURLError
from truecount.record import Address, Record
from truecount.stores.aws import AmazonStore, is_place
from truecount.stores.aws.clients import client_at
from truecount.stores.base import patiently
from truecount.stores.dynamodb.layout import (
    COUNTERS,
    EXPIRES,
    counter_key,
    creation,
    key_key,
    key_prefix,
    name_of,
    read_counter,
    read_receipt,
    receipt_put,
    replacement,
    stamp_text,
)
from truecount.stores.dynamodb.service import DynamoDB
from truecount.url import StoreURL

__all__ = ["DynamoDBStore"]

TABLE: Final = "truecount"
"""The table unless the URL names another."""

_TABLE: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")


class DynamoDBStore(AmazonStore[DynamoDB]):
    """A table in a region's DynamoDB, or at another endpoint.

    Options: ``timeout``, ``key_ttl``, ``read_timeout`` (seconds to wait for one
    answer before asking what became of the request) and ``create``:
    with ``create=1`` the table is created when it is missing.
    """

    carries = True
    key_limit = 24
    """A transaction had 25 items at most once, the counter among them, and has with some still."""

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        self._creates = url.choice("create", ("0", "1")) == "1"
        url.finish()
        self.url = url.text
        _, plus, protocol = url.scheme.partition("+")
        place, _, table = url.rest.partition("/")
        self._table = table.rstrip("/") or TABLE
        if not (is_place(place, endpoint=bool(plus)) and _TABLE.fullmatch(self._table)):
            raise StoreURLError(
                f"{url.shown!r} names no table in DynamoDB: write dynamodb://us-east-1/counters "
                "(region and table) or dynamodb+http://127.0.0.1:8000/counters (endpoint and table)"
            )
        endpoint = f"{protocol}://{place}" if plus else None
        self._where = endpoint or f"DynamoDB in {place}"
        self._make = partial(client_at, "dynamodb", None if plus else place, endpoint)

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        service, key, what = self._service(), counter_key(address), _shown(address)
        if not keys:
            item = service.get(key, what, timeout)
            return None if item is None else read_counter(address, item)
        now = moment.now()
        places = [key, *(key_key(address, key) for key in keys)]
        item, *found = service.get_together(places, what, timeout)
        if item is None:
            return None
        known = [
            read_receipt(address, key, there, now)
            for key, there in zip(keys, found, strict=True)
            if there is not None
        ]
        receipts = tuple(receipt for receipt in known if receipt is not None)
        return read_counter(address, item)._replace(keys=receipts)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        service, what = self._service(), _shown(address)
        request = creation(address, new) if old is None else replacement(address, old, new)
        if new.keys:
            ttl, now = int(self.key_ttl * 1_000_000), moment.now()
            puts = [receipt_put(address, receipt, ttl, now) for receipt in new.keys]
            return service.write_together(request, puts, what, timeout)
        done, item = service.update(request, what, timeout)
        return done if item is None else read_counter(address, item)

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        request = {
            "FilterExpression": "begins_with(#item,:counters) AND #deleted=:no",
            "ProjectionExpression": "#domain",
            "ExpressionAttributeNames": {f"#{n}": n for n in ("item", "deleted", "domain")},
            "ExpressionAttributeValues": {":counters": {"S": COUNTERS}, ":no": {"BOOL": False}},
        }
        found = self._service().find("Scan", request, self.timeout)
        return iter(sorted({item["domain"]["S"] for item in found}))

    def snapshot(self, domain: str) -> dict[str, int]:
        values = {}
        request = _begins(domain, COUNTERS)
        for item in self._service().find("Query", request, self.timeout):
            name = name_of(item)
            record = read_counter(Address(domain, name), item)
            if not record.deleted:
                values[name] = record.value
        return dict(sorted(values.items()))

    def purge(self, before: int) -> int:
        service = self._service()
        request = {
            "FilterExpression": "begins_with(#item,:counters) AND #deleted=:yes",
            "ExpressionAttributeNames": {f"#{n}": n for n in ("item", "deleted")},
            "ExpressionAttributeValues": {":counters": {"S": COUNTERS}, ":yes": {"BOOL": True}},
        }
        gone = 0
        for item in list(service.find("Scan", request, self.timeout)):
            address = Address(item["domain"]["S"], name_of(item))
            # Whose a damaged one is now, is for those to find out who count with it.
            with contextlib.suppress(DamagedRecordError):
                record = read_counter(address, item)
                if record.deleted_before(before) and not self._keeps_keys(address):
                    condition = {
                        "ConditionExpression": "#stamp=:was",
                        "ExpressionAttributeNames": {"#stamp": "stamp"},
                        "ExpressionAttributeValues": {":was": {"S": stamp_text(record.stamp)}},
                    }
                    key, what = counter_key(address), _shown(address)
                    delete = partial(service.delete, key, condition, what, self.timeout)
                    gone += patiently(delete, self.timeout)
        return gone

    # Parts of it

    def _keeps_keys(self, address: Address) -> bool:
        """Whether a key of a counter's is remembered still."""
        request = _begins(address.domain, key_prefix(address))
        request["FilterExpression"] = "#expires>:now"
        request["ExpressionAttributeNames"] |= {"#expires": EXPIRES}
        request["ExpressionAttributeValues"] |= {":now": {"N": str(moment.now())}}
        return any(True for _ in self._service().find("Query", request, self.timeout))

    def _new_service(self) -> DynamoDB:
        return DynamoDB(self._where, self._read_timeout, self._make, self._table, self._creates)


def _begins(domain: str, start: str) -> dict[str, Any]:
    """The query for what is in ``domain`` under sort keys that begin so."""
    return {
        "KeyConditionExpression": "#domain=:domain AND begins_with(#item,:start)",
        "ExpressionAttributeNames": {"#domain": "domain", "#item": "item"},
        "ExpressionAttributeValues": {":domain": {"S": domain}, ":start": {"S": start}},
    }


def _shown(address: Address) -> str:
    return f"counter {address.name!r} in domain {address.domain!r}"
