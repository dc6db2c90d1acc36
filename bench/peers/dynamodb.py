"""DynamoDB's API, as dynalite speaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.installed import dynalite

from bench.peers.aws import client_of
from bench.peers.model import Add, Contender, Engine, Place, Session, ours

__all__ = ["ENGINES"]

BARE = "boto3 `ADD`"
TABLE = "peers"


@contextmanager
def start(folder: Path) -> Iterator[Place]:
    """A server with both tables."""
    with dynalite() as server:
        place = Place(f"{server.store}&timeout=60", server.port)
        client = client_of("dynamodb", place)
        client.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        client.get_waiter("table_exists").wait(TableName=TABLE, WaiterConfig={"Delay": 1})
        yield place


@contextmanager
def open_bare(place: Place) -> Iterator[Callable[[], Session]]:
    """One client, with a connection for each thread."""
    client = client_of("dynamodb", place)

    def add_to(name: str) -> Add:
        request = {
            "TableName": TABLE,
            "Key": {"name": {"S": name}},
            "UpdateExpression": "ADD v :n",
            "ExpressionAttributeValues": {":n": {"N": "1"}},
            "ReturnValues": "UPDATED_NEW",
        }
        return lambda: client.update_item(**request)

    yield lambda: add_to


def read_bare(place: Place, name: str) -> int:
    """What the item holds."""
    found = client_of("dynamodb", place).get_item(
        TableName=TABLE, Key={"name": {"S": name}}, ConsistentRead=True
    )
    return int(found["Item"]["v"]["N"])


ENGINES = {
    "dynamodb": Engine(
        "DynamoDB (dynalite)", start, (ours(), Contender(BARE, open_bare, read_bare)), BARE
    )
}
