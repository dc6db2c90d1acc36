"""DynamoDB's requests, and what their errors mean."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from botocore.config import Config

from truecount import backoff
from truecount.errors import (
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.stores.aws.service import Said, Service
from truecount.stores.base import Ambiguous, Deadline, beforehand, patiently
from truecount.stores.connections import Reply
from truecount.stores.dynamodb.layout import Item, Request

__all__ = ["DynamoDB"]

BUSY: Final = frozenset(
    {
        *("LimitExceededException", "ProvisionedThroughputExceededException"),
        *("ReplicatedWriteConflictException", "RequestLimitExceeded", "RequestThrottled"),
        *("RequestThrottledException", "Throttling", "ThrottlingException"),
        *("TransactionConflictException", "TransactionConflict", "ThrottlingError"),
        "ProvisionedThroughputExceeded",
    }
)
"""Refused before acting, as others were first or too many; also as reasons of a transaction."""

FAILED: Final = frozenset({"ConditionalCheckFailed", "ConditionalCheckFailedException"})

FULL: Final = frozenset(
    {"ItemCollectionSizeLimitExceeded", "ItemCollectionSizeLimitExceededException"}
)

STRANGERS: Final = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException"),
        *("IncompleteSignature", "IncompleteSignatureException", "InvalidClientTokenId"),
        *("InvalidSignatureException", "MissingAuthenticationToken", "NotAuthorized"),
        *("MissingAuthenticationTokenException", "OptInRequired", "RequestExpired"),
        *("SignatureDoesNotMatch", "UnrecognizedClientException"),
    }
)

SCHEMA: Final[Request] = {
    "KeySchema": [
        {"AttributeName": "domain", "KeyType": "HASH"},
        {"AttributeName": "item", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "domain", "AttributeType": "S"},
        {"AttributeName": "item", "AttributeType": "S"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


class Failed(StoreError):
    """The condition of a write did not hold; ``item`` is what is there, where that was told."""

    item: Item | None = None


class Missing(StoreUnavailableError):
    """The table is not there, or not there yet."""


class Already(StoreUnavailableError):
    """The table, or a setting of it, is as asked for, or about to be."""


class Unable(StoreError):
    """This DynamoDB does not know such a request."""


class DynamoDB(Service):
    """A table in DynamoDB; one for each process.

    ``creates``: the table is created when it is missing.
    """

    def __init__(
        self,
        shown: str,
        read_timeout: float,
        make: Callable[[Config], Any],
        table: str,
        creates: bool,
    ) -> None:
        super().__init__(shown, read_timeout, make)
        self._table = table
        self._creates = creates

    # Requests

    def get(self, key: Request, what: str, timeout: float | None) -> Item | None:
        """An item, as it is now."""
        answer = self._ask("GetItem", {"Key": key, "ConsistentRead": True}, what, timeout)
        item: Item | None = answer.get("Item")
        return item

    def get_together(
        self, keys: Sequence[Request], what: str, timeout: float | None
    ) -> list[Item | None]:
        """Several items, as they are at one instant."""
        gets = [{"Get": self._named(Key=key)} for key in keys]
        answer = self._ask("TransactGetItems", {"TransactItems": gets}, what, timeout)
        with self.errors(what):
            items = [found.get("Item") for found in answer["Responses"]]
            if len(items) != len(keys):
                raise ValueError("the answer is another request's")
            return items

    def update(
        self, request: Request, what: str, timeout: float | None
    ) -> tuple[bool, Item | None]:
        """Update an item: (whether the condition held, what is there if not and if told)."""
        stamp = request["ExpressionAttributeValues"][":stamp"]
        request = {
            **request,
            "ReturnValues": "UPDATED_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        try:
            answer = self._ask("UpdateItem", request, what, timeout)
        except Failed as failed:
            return False, failed.item
        with self.errors(what):
            if answer["Attributes"]["stamp"] != stamp:
                self.close()
                raise ValueError("the answer is another request's")
        return True, None

    def write_together(
        self, update: Request, puts: Sequence[Request], what: str, timeout: float | None
    ) -> bool:
        """Update an item and put others, all or none: whether all conditions held."""
        writes = [{"Update": self._named(**update)}]
        writes += [{"Put": self._named(**put)} for put in puts]
        try:
            # No ClientRequestToken: what keeps a repetition from counting is the condition,
            # also when ten minutes have passed.
            self._ask("TransactWriteItems", {"TransactItems": writes}, what, timeout)
        except Failed:
            return False
        return True

    def delete(self, key: Request, condition: Request, what: str, timeout: float | None) -> bool:
        """Delete an item: whether the condition held."""
        try:
            self._ask("DeleteItem", {"Key": key, **condition}, what, timeout)
        except Failed:
            return False
        return True

    def find(self, operation: str, request: Request, timeout: float | None) -> Iterator[Item]:
        """The items that a query or a scan finds, as they are now.

        Each page is asked for patiently, for ``timeout`` seconds.
        """
        further: Request = {}
        while True:
            page = partial(self._page, operation, {**request, **further}, timeout)
            items, last = patiently(page, timeout)
            yield from items
            if not last:
                return
            further = {"ExclusiveStartKey": last}

    def _page(
        self, operation: str, request: Request, timeout: float | None
    ) -> tuple[list[Item], Request | None]:
        what = f"a list of items in {self._shown}"
        answer = self._ask(operation, {**request, "ConsistentRead": True}, what, timeout)
        with self.errors(what):
            items = answer["Items"]
            if not all(isinstance(item, dict) for item in items):
                raise ValueError("the answer is none")
            return items, answer.get("LastEvaluatedKey")

    # The table

    def _ask(self, operation: str, request: Request, what: str, timeout: float | None) -> Any:
        """The answer to a request, repeated once the table is there."""
        if not operation.startswith("Transact"):
            request = self._named(**request)
        deadline = Deadline(timeout)
        with contextlib.suppress(Missing):
            return self._answer(operation, request, what, timeout)
        with beforehand():
            self._prepare(deadline)
        return self._answer(operation, request, what, deadline.left())

    def _answer(self, operation: str, request: Request, what: str, timeout: float | None) -> Any:
        fields = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        }
        reply = self.post(operation, fields, json.dumps(request).encode(), what, timeout)
        named = b"x-amzn-requestid" in reply.fields  # else it is a proxy's, also with a 200
        if reply.status == 200 and named:
            with self.errors(what):
                answer = json.loads(reply.data)
                if not isinstance(answer, dict) or "__type" in answer:  # which an error has
                    raise ValueError("the answer is none")
                return answer
        with self.errors(what):  # what is odd in it is no clear word
            raise self.answered(_said(operation, reply), named, what)

    def _prepare(self, deadline: Deadline) -> None:
        """Wait until the table is active, and create it when it is missing, if that is wanted."""
        attempt = 0
        while (status := self._status(deadline)) not in ("ACTIVE", "UPDATING"):
            if status is None and not self._creates:
                raise StoreError(self._how_to_create())
            if deadline.left() == 0:
                known = status or "missing"
                raise StoreTimeoutError(f"{self._shown} is not there yet: it is {known}")
            if status is None:
                self._create(deadline)
                continue
            rest, left = backoff.seconds(attempt + 6), deadline.left()
            time.sleep(rest if left is None else min(rest, left))
            attempt += 1
        if self._creates:
            self._let_receipts_expire(deadline)

    def _status(self, deadline: Deadline) -> str | None:
        try:
            answer = self._answer("DescribeTable", self._named(), self._shown, deadline.left())
        except Missing:
            return None
        with self.errors(self._shown):
            return str(answer["Table"]["TableStatus"])

    def _create(self, deadline: Deadline) -> None:
        """Create the table, unless another process is about to."""
        with contextlib.suppress(Already):
            self._answer("CreateTable", self._named(**SCHEMA), self._shown, deadline.left())

    def _let_receipts_expire(self, deadline: Deadline) -> None:
        """Have DynamoDB remove receipts of keys some time after their end."""
        specification = {"Enabled": True, "AttributeName": "ttl"}
        request = self._named(TimeToLiveSpecification=specification)
        with contextlib.suppress(Already, Unable):
            self._answer("UpdateTimeToLive", request, self._shown, deadline.left())

    def _named(self, **request: Any) -> Request:
        return {"TableName": self._table, **request}

    @property
    def _shown(self) -> str:
        return f"the table {self._table!r}"

    def _how_to_create(self) -> str:
        return (
            f"there is no table {self._table!r} in {self.shown}: add create=1 to the URL's "
            "options, or create it so:\n"
            f"aws dynamodb create-table --table-name {self._table} --attribute-definitions "
            "AttributeName=domain,AttributeType=S AttributeName=item,AttributeType=S --key-schema "
            "AttributeName=domain,KeyType=HASH AttributeName=item,KeyType=RANGE "
            "--billing-mode PAY_PER_REQUEST\n"
            f"aws dynamodb update-time-to-live --table-name {self._table} "
            "--time-to-live-specification Enabled=true,AttributeName=ttl"
        )

    # Errors

    def refusal(self, said: Said, what: str) -> Exception:
        code, text, status = said[:3]
        invalid = code in ("ValidationException", "ValidationError")
        if code in FAILED or (invalid and "document path" in text):
            # The path leads to a writer's line: somebody else has removed them all.
            failed = Failed(f"{what}: {text}")
            failed.item = said.body.get("Item")
            return failed
        if code == "TransactionCanceledException":
            return self._cancelled(said, what)
        if code == "TransactionInProgressException":
            return Ambiguous(StoreUnavailableError(f"{self.shown} is still at it: {text}"))
        if code == "ResourceNotFoundException":
            return Missing(f"{self.shown} has no {self._shown}, or not yet")
        if code == "ResourceInUseException" or (invalid and "TimeToLive" in text):
            return Already(f"{self._shown} in {self.shown}: {text}")
        if code in BUSY:
            return StoreUnavailableError(f"{self.shown} is busy ({code}: {text})")
        if code in FULL or (invalid and "maximum allowed size" in text):
            return StoreFullError(f"{what}: {text}")
        if code == "UnknownOperationException":
            return Unable(self._what_is_missing(said.operation))
        if code in STRANGERS or status == 403:
            return StoreError(
                f"{self.shown} refuses access to {what} ({code}: {text}): look at the "
                "credentials and what they allow, the region and the clock"
            )
        if invalid and "schema" in text:
            return StoreError(
                f"{self._shown} in {self.shown} is not truecount's: its keys are others ({text}). "
                "Name another one"
            )
        return StoreError(f"{self.shown} refuses a request for {what} ({code}: {text})")

    def _cancelled(self, said: Said, what: str) -> Exception:
        """What it means that nothing of a transaction was done."""
        reasons = [
            said._replace(code=reason.get("Code", ""), text=reason.get("Message", ""))
            for reason in said.body.get("CancellationReasons", ())
            if reason.get("Code") not in (None, "None")
        ]
        if not reasons:
            return StoreUnavailableError(f"{self.shown}: {said.text}")
        # Other reasons may have passed next time; a condition that did not hold has not.
        return self.refusal(min(reasons, key=lambda reason: reason.code not in FAILED), what)

    def _what_is_missing(self, operation: str) -> str:
        if not operation.startswith("Transact"):
            return f"{self.shown} knows no {operation}"
        return (
            f"{self.shown} knows no TransactWriteItems and TransactGetItems, without which an "
            "idempotency key cannot be kept together with the change: nothing was written"
        )


def _said(operation: str, reply: Reply) -> Said:
    """What an answer says that is an error, or nobody's."""
    try:
        body = json.loads(reply.data)
        code = body["__type"].rpartition("#")[2]
        text = str(body.get("message") or body.get("Message") or code)
    except Exception:  # it is no answer of DynamoDB's
        body, code, text = {}, "", reply.data.decode(errors="replace").strip()
    return Said(code, text[:500], reply.status, operation, body)
