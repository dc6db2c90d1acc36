"""Clients that count as many do, to be convicted: by commands of redis-py and of boto3.

Beside the value they keep a revision, which grows by one in the same write, so
that the checker can put their changes in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from truecount.testing.history import Recorder
from truecount.testing.soak.load import DOMAIN

__all__ = ["NAIVE", "NAME", "Told", "see"]

NAME: Final = "naive"
"""Their counter."""

Told = tuple[int, int, int]
"""The value before and after a change, and the revision that it made."""

Adding = tuple[Callable[[int], Told], Callable[[], tuple[int, int]]]
"""What adds, and what reads: (revision, value)."""


def incr(url: str) -> Adding:
    """``INCRBY``, by redis-py as it comes: it repeats what was not answered."""
    client, read = _redis(url)

    def add(n: int) -> Told:
        value, revision = (
            client.pipeline().incrby("naive:value", n).incr("naive:revision").execute()
        )
        return value - n, value, revision

    return add, read


def read_then_write(url: str) -> Adding:
    """``GET``, then ``SET``: whoever writes in between is lost."""
    client, read = _redis(url)

    def add(n: int) -> Told:
        _, value = read()
        _, revision = (
            client.pipeline().set("naive:value", value + n).incr("naive:revision").execute()
        )
        return value, value + n, revision

    return add, read


def compare_and_set(url: str) -> Adding:
    """A conditional ``UpdateItem``, again until it succeeds, by boto3 as it comes.

    Boto3 repeats what was not answered, finds the condition moved by the first attempt,
    and the loop goes round once more.
    """
    import boto3

    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{urlsplit(url).netloc}",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # any will do
    )
    item: dict[str, Any] = {
        "TableName": "naive",
        "Key": {"name": {"S": "counter"}},
    }
    if "naive" not in client.list_tables()["TableNames"]:
        client.create_table(
            TableName="naive",
            KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def read() -> tuple[int, int]:
        found = client.get_item(**item, ConsistentRead=True).get("Item")
        return (int(found["r"]["N"]), int(found["v"]["N"])) if found else (0, 0)

    def add(n: int) -> Told:
        while True:
            revision, value = read()
            condition = "v = :old" if revision else "attribute_not_exists(v)"
            values = {":new": {"N": str(value + n)}, ":r": {"N": str(revision + 1)}}
            if revision:
                values[":old"] = {"N": str(value)}
            try:
                client.update_item(
                    **item,
                    UpdateExpression="SET v = :new, r = :r",
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                )
            except client.exceptions.ConditionalCheckFailedException:
                continue
            return value, value + n, revision + 1

    return add, read


NAIVE: Final[dict[str, Callable[[str], Adding]]] = {
    "incr": incr,
    "read, then write": read_then_write,
    "compare and set": compare_and_set,
}


def see(recorder: Recorder, read: Callable[[], tuple[int, int]]) -> None:
    """Record what there is."""
    with recorder.call("refresh", DOMAIN, NAME) as call:
        call.returned(view=read())


def _redis(url: str) -> tuple[Any, Callable[[], tuple[int, int]]]:
    import redis

    place = urlsplit(url)
    client = redis.Redis(host=place.hostname or "", port=place.port or 6379)

    def read() -> tuple[int, int]:
        found: Any = client.mget("naive:revision", "naive:value")
        return int(found[0] or 0), int(found[1] or 0)

    return client, read
