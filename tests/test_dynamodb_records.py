"""What lies in DynamoDB, what is refused there, and what a request costs."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from tools.installed import dynalite

import workers
from helpers import in_processes, there
from simpledb_server import serving
from test_dynamodb import is_write
from truecount import (
    Counter,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    InvalidTypeError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
    connect,
)
from truecount.record import MOST
from truecount.testing.conformance import in_threads
from truecount.testing.faulty import FaultyStore
from truecount.testing.proxy import Proxy
from truecount.testing.servers import Dynalite, Moto

DOMAIN = "mydomain"
TABLE = "truecount"
KEYS: dict[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
}

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        Counter(DOMAIN, "first", store=server.store)
        yield server


@pytest.fixture(scope="module")
def lite() -> Iterator[Dynalite]:
    with there(dynalite) as server:
        Counter(DOMAIN, "first", store=server.store)
        yield server


@pytest.fixture(params=["moto", "lite"])
def server(request: pytest.FixtureRequest) -> Any:
    """Either of the two."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def name() -> str:
    """The name of a counter that nobody else has."""
    return f"counter{next(numbers)}"


@contextlib.contextmanager
def bare(port: int, **options: Any) -> Iterator[Any]:
    """A client of boto3's."""
    client = boto3.client("dynamodb", endpoint_url=f"http://127.0.0.1:{port}", **KEYS, **options)
    try:
        yield client
    finally:
        client.close()


def key(item: str) -> dict[str, Any]:
    """The primary key of an item."""
    return {"domain": {"S": DOMAIN}, "item": {"S": item}}


def look(port: int, item: str) -> dict[str, Any]:
    """What another program reads."""
    with bare(port) as client:
        answer = client.get_item(TableName=TABLE, Key=key(item), ConsistentRead=True)
        found: dict[str, Any] = answer.get("Item", {})
        return found


def put(port: int, item: str, attributes: dict[str, Any]) -> None:
    """What another program writes: the whole item."""
    with bare(port) as client:
        client.put_item(TableName=TABLE, Item={**attributes, **key(item)})


def through(proxy: Proxy, options: str = "timeout=20") -> str:
    """The store behind ``proxy``."""
    return f"dynamodb+http://127.0.0.1:{proxy.port}/{TABLE}?{options}"


# The format


def test_a_counter_in_the_table(server: Moto | Dynalite, name: str) -> None:
    """An item has the documented attributes, and no others."""
    c = Counter(DOMAIN, name, 5, minimum=0, store=server.store)
    created = c.revision
    c.add(2)
    item = look(server.port, f"c#{name}")
    ((writer, line),) = item.pop("writers")["M"].items()
    number, revision, at, *rest = line["S"].split(" ")
    assert rest == ["5", "7", "+", "0", "-"]
    assert int(revision) == c.revision == created + 1
    assert abs(int(at) / 1e6 - time.time()) < 60
    assert item == {
        **key(f"c#{name}"),
        "format": {"N": "1"},
        "name": {"S": name},
        "stamp": {"S": f"{revision} {writer} {number}"},
        "value": {"N": "7"},
        "horizon": {"N": str(created)},
        "deleted": {"BOOL": False},
    }
    c.delete()
    assert look(server.port, f"c#{name}")["deleted"] == {"BOOL": True}
    assert Counter(DOMAIN, name, 1, store=server.store).revision == c.revision + 2
    again = look(server.port, f"c#{name}")
    assert again["horizon"] == {"N": str(c.revision + 2)}
    assert len(again["writers"]["M"]) == 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0, "N"), (10**37, "N"), (-(10**38) + 1, "N"), (10**38, "S"), (-(10**38), "S"), (MOST, "S")],
)
def test_numbers(server: Moto | Dynalite, name: str, value: int, kind: str) -> None:
    """A value is a number while it has at most 38 digits, else text; it crosses over both ways."""
    c = Counter(DOMAIN, name, value, store=server.store)
    assert kind in look(server.port, f"c#{name}")["value"]
    for step in (1, -1, -1, 1):
        if abs(int(c) + step) <= MOST:
            c += step
    c.set(value)
    assert Counter(DOMAIN, name, store=server.store) == value


def test_a_receipt_in_the_table(moto: Moto, name: str) -> None:
    """The receipt of a key has the documented attributes; its TTL is never early."""
    c = Counter(DOMAIN, name, 5, store=moto.store)
    receipt = c.add(2, key="ä/b")
    with bare(moto.port) as client:
        found = client.scan(TableName=TABLE, ConsistentRead=True)["Items"]
    (item,) = [i for i in found if i["item"]["S"].startswith("k#") and i["name"]["S"] == name]
    at = int(item["receipt"]["S"].split(" ")[1])
    expires = at + 7 * 24 * 3600 * 1_000_000
    assert item == {
        **key(item["item"]["S"]),
        "format": {"N": "1"},
        "name": {"S": name},
        "key": {"S": "ä/b"},
        "receipt": {"S": f"{receipt.revision} {at} 5 7 add 2"},
        "expires": {"N": str(expires)},
        "ttl": {"N": str(expires // 1_000_000 + 3600)},
    }
    assert item["item"]["S"].endswith("#ä/b")


def test_long_names(server: Moto | Dynalite) -> None:
    """Names at DynamoDB's limit and beyond are kept apart, and listed by their true names."""
    names = ["x" * 1021, "x" * 1022, "x" * 1023, "x" * 1024, "ü" * 512]
    for value, name in enumerate(names):
        Counter("longnames", name, value, store=server.store).add(10)
    assert Domain("longnames", store=server.store).snapshot() == {
        name: value + 10 for value, name in enumerate(names)
    }


def test_a_list_of_many_pages(lite: Dynalite, name: str) -> None:
    """A list goes on where DynamoDB, after a megabyte, stops."""
    for part in "cab":
        Counter(DOMAIN, f"{name}{part}", 1, store=lite.store)
        item = look(lite.port, f"c#{name}{part}")
        put(lite.port, f"c#{name}{part}", {**item, "pad": {"S": "x" * 390_000}})
    listed = [n for n in Domain(DOMAIN, store=lite.store) if n.startswith(name)]
    assert listed == [f"{name}{part}" for part in "abc"]


# What is damaged, or of others

LINE = {"S": "1 5 5 0 9 + - -"}
DAMAGE: list[tuple[str, Any, str]] = [
    ("format", None, "another program"),
    ("format", {"N": "2"}, "newer truecount: upgrade"),
    ("format", {"S": "1"}, "type N"),
    ("name", None, "name is gone"),
    ("name", {"S": "other"}, "name is 'other'"),
    ("stamp", None, "stamp is gone"),
    ("stamp", {"S": "1 2 3"}, "stamp is '1 2 3'"),
    ("stamp", {"N": "1"}, "type S"),
    ("value", None, "value is gone"),
    ("value", {"N": "100"}, "value is 100, where truecount had left 6"),
    ("value", {"S": "6"}, "text, where a number"),
    ("value", {"S": "many"}, "value is many"),
    ("value", {"N": "6.5"}, "no integer"),
    ("value", {"N": "1E+125"}, "no integer"),
    ("value", {"BOOL": True}, "type S"),
    ("horizon", None, "horizon is gone"),
    ("horizon", {"N": "-1"}, "horizon is '-1'"),
    ("horizon", {"S": "0"}, "type N"),
    ("deleted", None, "deleted is gone"),
    ("deleted", {"S": "no"}, "type BOOL"),
    ("writers", None, "writers is gone"),
    ("writers", {"S": "none"}, "type M"),
    ("writers", {"M": {}}, "no writer's line"),
    ("writers", {"M": {"w": {"N": "1"}}}, "type S"),
    ("writers", {"M": {"w": {"S": "1 5 5 0"}}}, "cannot be read"),
    ("writers", {"M": {"w": {"S": "1 5 5 0 x + - -"}}}, "cannot be read"),
    ("writers", {"M": {"w": {"S": "1 5 5 0 9 + - -\n"}}}, "cannot be read"),
    ("writers", {"M": {"w x": LINE}}, "cannot be read"),
    ("writers", {"M": {"w": {"S": f"1 5 {9**40} 0 6 + - -"}}}, "no microsecond"),
    ("writers", {"M": {"w": {"S": f"1 5 5 0 {'9' * 5000} + - -"}}}, "cannot be read"),
    ("writers", {"M": {"w": {"S": f"1 {'9' * 5000} 5 0 9 + - -"}}}, "cannot be read"),
]


@pytest.mark.parametrize(("attribute", "text", "words"), DAMAGE)
def test_damage(moto: Moto, name: str, attribute: str, text: Any, words: str) -> None:
    """Whatever is damaged, the error names the counter and the fault, and nothing is changed."""
    known = Counter(DOMAIN, name, 5, store=moto.store)
    known.add(1)
    item = look(moto.port, f"c#{name}")
    item.pop(attribute)
    put(moto.port, f"c#{name}", item if text is None else {**item, attribute: text})
    before = look(moto.port, f"c#{name}")
    with connect(f"{moto.store}&timeout=20") as store:
        for change in (
            lambda: Counter(DOMAIN, name, store=store),
            known.refresh,
            lambda: known.add(1, key="K"),
        ):
            with pytest.raises(DamagedRecordError, match=f"(?s)'{name}' in domain.*{words}"):
                change()
        list(store.domains())
        store.purge(before=0)
        with pytest.raises(DamagedRecordError):
            store.snapshot(DOMAIN)
    assert look(moto.port, f"c#{name}") == before


@pytest.mark.parametrize("attribute", ["value", "stamp", "writers"])
def test_a_foreign_write_in_between(server: Moto | Dynalite, name: str, attribute: str) -> None:
    """What somebody else wrote since is noticed by the write itself, and not overwritten."""
    c = Counter(DOMAIN, name, 5, store=server.store)
    c += 1
    item = look(server.port, f"c#{name}")
    if attribute == "writers":
        del item["writers"]
    else:
        item[attribute] = {"value": {"N": "100"}, "stamp": {"S": "1 2 3"}}[attribute]
    put(server.port, f"c#{name}", item)
    for change in (lambda: c.add(1), lambda: c.set(3), c.delete):
        with pytest.raises(DamagedRecordError, match=f"'{name}'"):
            change()
    assert look(server.port, f"c#{name}") == item


def test_items_of_others(moto: Moto, name: str) -> None:
    """Another program's items are told of where they are in the way, and else left alone."""
    put(moto.port, f"c#{name}", {"colour": {"S": "red"}})
    put(moto.port, "something", {"deleted": {"BOOL": False}})
    with pytest.raises(DamagedRecordError, match=f"'{name}'.* another program"):
        Counter(DOMAIN, name, store=moto.store)
    with connect(moto.store) as store:
        store.purge(before=2**60)
    assert look(moto.port, f"c#{name}")["colour"] == {"S": "red"}
    with bare(moto.port) as client:
        client.delete_item(TableName=TABLE, Key=key(f"c#{name}"))


@pytest.mark.parametrize(
    ("attribute", "text", "words"),
    [
        ("format", None, "format is gone"),
        ("format", {"N": "2"}, "newer truecount"),
        ("name", {"S": "other"}, "another key"),
        ("key", {"S": "other"}, "another key"),
        ("receipt", {"S": "garbage"}, "garbage"),
        ("receipt", {"S": f"1 {9**40} 0 1 add 1"}, "no microsecond"),
        ("receipt", {"N": "1"}, "type S"),
        ("expires", None, "expires is gone"),
        ("expires", {"N": "1E+100"}, "no integer"),
        ("expires", {"S": "soon"}, "type N"),
    ],
)
def test_damaged_receipts(moto: Moto, name: str, attribute: str, text: Any, words: str) -> None:
    """A damaged receipt is told of, with its key, and not overwritten."""
    c = Counter(DOMAIN, name, store=moto.store)
    c.add(1, key="K")
    with bare(moto.port) as client:
        found = client.scan(TableName=TABLE, ConsistentRead=True)["Items"]
    (item,) = [i for i in found if i["item"]["S"].startswith("k#") and i["name"]["S"] == name]
    del item[attribute]
    put(moto.port, item["item"]["S"], item if text is None else {**item, attribute: text})
    for change in (lambda: c.add(1, key="K"), lambda: c.receipt("K")):
        with pytest.raises(DamagedRecordError, match=f"(?s)'K' of counter '{name}'.*{words}"):
            change()
    assert c.refresh() == 1


# Keys


def test_hundreds_of_keys_at_once(moto: Moto, name: str) -> None:
    """More keyed changes than a transaction holds are applied in several, once each."""
    c = Counter(DOMAIN, name, store=f"{moto.store}&timeout=60")
    receipts: list[Any] = []

    def add(number: int) -> None:
        receipts.append(c.add(1, key=f"key{number % 130}"))

    in_threads(260, add)
    assert sum(receipt.replayed for receipt in receipts) == 130
    assert c.refresh() == 130


def test_purging(moto: Moto, name: str) -> None:
    """Old tombstones go once their keys have expired, and nothing else does."""
    with connect(f"{moto.store}&key_ttl=1") as store:
        lives = Counter(DOMAIN, f"{name}-lives", store=store)
        keyed = Counter(DOMAIN, f"{name}-keyed", store=store)
        lasting = Counter(DOMAIN, f"{name}-lasting", store=moto.store)
        for c in (keyed, lasting):
            c.add(1, key="K")
            c.delete()
        assert store.purge(before=0) == 0
        deadline = time.monotonic() + 30
        while look(moto.port, f"c#{name}-keyed"):
            assert time.monotonic() < deadline
            store.purge(before=2**60)
            time.sleep(0.2)
        assert look(moto.port, f"c#{name}-lasting")
        assert lasting.receipt("K") == 1
        assert lives.refresh() == 0
        with pytest.raises(CounterNotFoundError):
            keyed.refresh()


# The table


def test_a_missing_table(server: Moto | Dynalite, name: str) -> None:
    """Without ``create=1`` a missing table is told of, with the commands that create it."""
    url = f"dynamodb+http://127.0.0.1:{server.port}/{name}-missing"
    with pytest.raises(StoreError, match=rf"(?s)create=1.*create-table --table-name {name}-m.*ttl"):
        Counter(DOMAIN, "counter", store=url)
    with bare(server.port) as client:
        assert f"{name}-missing" not in client.list_tables()["TableNames"]


def test_the_table_as_it_is_created(moto: Moto, name: str) -> None:
    """It is billed on demand, and lets receipts of keys expire."""
    assert list(connect(f"{moto.store.replace(TABLE, name)}").domains()) == []
    with bare(moto.port) as client:
        table = client.describe_table(TableName=name)["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        expiry = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}


class SlowDynalite(Dynalite):
    """Its tables take a second to be there."""

    def command(self) -> list[Any]:
        command = list(super().command())
        command[command.index("--createTableMs") + 1] = "1000"
        return command


def test_many_create_the_table_at_once(lite: Dynalite) -> None:
    """4 processes create table and counter at once, wait for it, and all count."""
    with SlowDynalite(lite.program, lite.node) as server:
        with (
            connect(f"{server.store}&timeout=0.5") as store,
            pytest.raises(StoreTimeoutError, match="not there yet"),
        ):
            Counter(DOMAIN, "hot", store=store)
        url = f"{server.store.replace(TABLE, 'another')}&timeout=60"
        counted = sum(in_processes([(workers.add_often, (url, 25))] * 4), [])
        assert sorted(counted) == list(range(1, 101))


def test_a_table_of_others(server: Moto | Dynalite, name: str) -> None:
    """A table with other keys is told of."""
    with bare(server.port) as client:
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with pytest.raises(StoreError, match=f"'{name}'.* keys are others"):
            Counter(DOMAIN, "counter", store=server.store.replace(TABLE, name))


def test_a_full_item(server: Moto | Dynalite, name: str) -> None:
    """A counter that would not fit into an item is told of as full, and stays as it was."""
    c = Counter(DOMAIN, name, 5, store=server.store)
    item = look(server.port, f"c#{name}")
    put(server.port, f"c#{name}", {**item, "pad": {"S": "x" * 403_500}})
    with pytest.raises(StoreFullError, match=f"'{name}'"):
        for _ in range(20):
            Counter(DOMAIN, name, store=FaultyStore(connect(server.store))).set(10**400)
    value = c.refresh()
    assert value in (5, 10**400)
    assert Counter(DOMAIN, name, store=server.store) == value


# What DynamoDB, or something on the way, answers


def answer(code: str, status: str = "400 Bad Request", text: str = "no", **more: Any) -> bytes:
    """An error of DynamoDB's."""
    document = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": text, **more}
    return page(status, json.dumps(document).encode(), b"x-amzn-RequestId: 1\r\n")


def page(status: str, text: bytes, head: bytes = b"") -> bytes:
    """An answer over HTTP."""
    start = b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\n" % status.encode()
    return start + head + b"Content-Length: %d\r\n\r\n%s" % (len(text), text)


CANCELLED: dict[str, Any] = {
    "code": "TransactionCanceledException",
    "CancellationReasons": [{"Code": "None"}, {"Code": "TransactionConflict", "Message": "other"}],
}
PASSING = {
    "throttled": answer("ThrottlingException"),
    "provisioned": answer("ProvisionedThroughputExceededException"),
    "request limit": answer("RequestLimitExceeded"),
    "limit": answer("LimitExceededException"),
    "conflict": answer("TransactionConflictException"),
    "cancelled": answer(**CANCELLED),
    "cancelled for no reason": answer("TransactionCanceledException"),
}
UNCLEAR = {
    "in progress": answer("TransactionInProgressException"),
    "500": answer("InternalServerError", "500 Internal Server Error"),
    "503": answer("ServiceUnavailable", "503 Service Unavailable"),
    "another answer": page("200 OK", b"{}", b"x-amzn-RequestId: 1\r\n"),
    "no id": page("400 Bad Request", b'{"__type": "x#ValidationException"}'),
    "a portal's page": page("200 OK", b"<html><body>Welcome</body></html>"),
    "an empty page": page("200 OK", b""),
    "garbage": page("200 OK", b"\x00\xff<"),
    "a list": page("200 OK", b"[1]", b"x-amzn-RequestId: 1\r\n"),
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    "a gateway's 413": page("413 Content Too Large", b"<html>413</html>"),
    "a gateway's 502": page("502 Bad Gateway", b"bad gateway"),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "a refusal under 200": answer("ConditionalCheckFailedException", "200 OK"),
    "a refusal under 302": answer("ConditionalCheckFailedException", "302 Found"),
    "no code": page("400 Bad Request", b'{"__type": null}', b"x-amzn-RequestId: 1\r\n"),
    "no reasons": answer("TransactionCanceledException", CancellationReasons=None),
    "strange reasons": answer("TransactionCanceledException", CancellationReasons=[5]),
}
STRANGERS = {
    "no attributes": page("200 OK", b'{"Attributes": null}', b"x-amzn-RequestId: 1\r\n"),
    "no map": page("200 OK", b'{"Attributes": [5]}', b"x-amzn-RequestId: 1\r\n"),
}
"""Other requests may be answered so."""
DEFINITE = {
    "denied": (answer("AccessDeniedException"), "(?s)'{}'.*credentials"),
    "unknown client": (answer("UnrecognizedClientException"), "(?s)'{}'.*credentials"),
    "expired": (answer("ExpiredTokenException"), "(?s)'{}'.*credentials"),
    "signature": (answer("InvalidSignatureException"), "(?s)'{}'.*clock"),
    "403": (answer("Whatever", "403 Forbidden"), "(?s)'{}'.*credentials"),
    "invalid": (answer("ValidationException", text="bad thing"), "(?s)'{}'.*bad thing"),
    "unheard of": (answer("NewException", text="new thing"), "(?s)'{}'.*new thing"),
}


def is_read(request: bytes) -> bool:
    """Whether a request reads."""
    return b"GetItem" in request


@pytest.mark.parametrize("what", [*PASSING, *UNCLEAR])
def test_a_read_is_repeated(moto: Moto, name: str, what: str) -> None:
    """What may be over soon, or is unclear, is asked again."""
    Counter(DOMAIN, name, 5, store=moto.store)
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        proxy.lose(2, is_read, (PASSING | UNCLEAR)[what])
        assert Counter(DOMAIN, name, store=store) == 5
        assert (proxy.lost, proxy.requests) == (2, 3)


HEAD = b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 1\r\nContent-Le"
CUTS = {
    "head": HEAD,
    "length": HEAD + b"ngth: 50",
    "body": HEAD + b'ngth: 500\r\n\r\n{"Item": {',
    "end of the body": HEAD + b"ngth: 500\r\n\r\n{}",
}


@pytest.mark.parametrize("where", CUTS)
def test_an_answer_that_is_cut_off(moto: Moto, name: str, where: str) -> None:
    """An answer of which only the beginning arrives does not say that there is no counter."""
    Counter(DOMAIN, name, 5, store=moto.store)
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, store=store)
        proxy.lose(1, is_read, CUTS[where])
        assert c.refresh() == 5
        assert proxy.lost == 1


NOT_THESE = {
    "nothing": page("200 OK", b"{}", b"x-amzn-RequestId: 1\r\n"),
    "nulls": page("200 OK", b'{"Responses": [null, null]}', b"x-amzn-RequestId: 1\r\n"),
    "too few": page("200 OK", b'{"Responses": [{}]}', b"x-amzn-RequestId: 1\r\n"),
    "no items": page("200 OK", b'{"Responses": [5], "Items": [5]}', b"x-amzn-RequestId: 1\r\n"),
    "no lists": page("200 OK", b'{"Responses": 5, "Items": 5}', b"x-amzn-RequestId: 1\r\n"),
}


@pytest.mark.parametrize("what", NOT_THESE)
def test_an_answer_without_items(moto: Moto, name: str, what: str) -> None:
    """What does not hold the items that were asked for is no answer, to key or list."""
    Counter(DOMAIN, name, 5, store=moto.store).add(1, key="K")
    Counter(name, "counter", 5, store=moto.store)
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, store=store)
        for ask in (lambda: c.receipt("K"), lambda: store.snapshot(name), store.domains):
            proxy.lose(1, instead=NOT_THESE[what])
            requests = proxy.requests
            assert ask()
            assert proxy.requests - requests == 2


@pytest.mark.parametrize("what", DEFINITE)
def test_a_refusal(moto: Moto, name: str, what: str) -> None:
    """A refusal is told at once, with the counter and what to look at."""
    Counter(DOMAIN, name, 5, store=moto.store)
    reply, words = DEFINITE[what]
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        proxy.lose(2, is_read, reply)
        with pytest.raises(StoreError, match=words.format(name)) as caught:
            Counter(DOMAIN, name, store=store)
        assert type(caught.value) is StoreError
        assert proxy.requests == 1


@pytest.mark.parametrize(
    ("what", "keyed"),
    # The answer to a transaction says no more than that it was done.
    [
        *((w, False) for w in (*UNCLEAR, *STRANGERS)),
        *((w, True) for w in UNCLEAR if w != "another answer"),
    ],
)
def test_an_unclear_answer_to_a_write(moto: Moto, name: str, what: str, keyed: bool) -> None:
    """What is not DynamoDB's clear word proves nothing: the change is applied once."""
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, 5, store=store)
        proxy.lose(1, is_write, (UNCLEAR | STRANGERS)[what])
        receipt = c.add(2, key="K" if keyed else None)
        assert (receipt.before, receipt.after, receipt.replayed) == (5, 7, False)
        assert proxy.lost == 1
        assert c.refresh() == 7


def test_ten_lost_replies_to_a_keyed_change(moto: Moto, name: str) -> None:
    """However often the reply to a transaction is lost, it counts once."""
    with Proxy(moto.port) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, 5, store=store)
        proxy.lose(10, lambda request: is_write(request) or is_read(request))
        assert c.add(2, key="K") == 7
        assert proxy.lost == 10
        assert c.add(2, key="K").replayed
        assert c.refresh() == 7


# A forward proxy on the way ($HTTP_PROXY)


@pytest.fixture
def forward(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """One that everything goes through which is meant for Moto."""
    with Proxy(moto.port) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):  # not asked for on the way, then
            monkeypatch.setenv(f"AWS_{variable}", "local")
        yield proxy


@pytest.mark.parametrize("keyed", [False, True])
def test_a_reply_that_a_forward_proxy_loses(
    moto: Moto, name: str, forward: Proxy, keyed: bool
) -> None:
    """The write may have been done, and was: it is applied once, and told so."""
    with connect(f"{moto.store}&timeout=22") as store:
        c = Counter(DOMAIN, name, 1, store=store)
        forward.lose(1, is_write)
        receipt = c.add(10, key="K" if keyed else None)
        assert (receipt.before, receipt.after, receipt.replayed) == (1, 11, False)
        assert forward.lost == 1
        assert c.refresh() == 11


@pytest.mark.parametrize("where", CUTS)
def test_an_answer_that_a_forward_proxy_cuts_off(
    moto: Moto, name: str, forward: Proxy, where: str
) -> None:
    """What arrives of it does not say that there is no counter."""
    with connect(f"{moto.store}&timeout=22") as store:
        c = Counter(DOMAIN, name, 5, store=store)
        forward.lose(1, is_read, CUTS[where])
        assert c.refresh() == 5
        assert forward.lost == 1


@pytest.mark.parametrize("keyed", [False, True])
def test_a_forward_proxy_that_loses_all_replies(
    moto: Moto, name: str, forward: Proxy, keyed: bool
) -> None:
    """Nobody can tell then, and nobody says that nothing was applied."""
    with connect(f"{moto.store}&timeout=22") as store:
        c = Counter(DOMAIN, name, 1, store=store)
        forward.lose(1, is_write)
        forward.lose(1000)
        with pytest.raises(OutcomeUnknownError) as caught:
            c.add(10, key="K" if keyed else None, timeout=3)
        forward.mend()
        assert caught.value.retry() == 11
        assert c.refresh() == 11


def test_a_forward_proxy_that_is_away(moto: Moto, name: str, forward: Proxy) -> None:
    """Where nobody listens nothing was sent."""
    with connect(f"{moto.store}&timeout=22") as store:
        c = Counter(DOMAIN, name, 1, store=store)
        forward.refuse()
        with pytest.raises(StoreUnavailableError, match=r"cannot be reached.*proxy"):
            c.add(10, timeout=0.5)
        forward.listen()
        assert c.refresh() == 1


# Requests


def test_requests(server: Moto | Dynalite, name: str) -> None:
    """``c += 1`` and ``add`` are one request each; a key takes two."""
    with Proxy(server.port) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, store=store)

        def requests(change: Callable[[], Any]) -> int:
            before = proxy.requests
            change()
            return proxy.requests - before

        def step() -> None:
            nonlocal c
            c += 1

        assert requests(lambda: Counter(DOMAIN, f"{name}-new", minimum=0, store=store)) == 3
        assert requests(Counter(DOMAIN, f"{name}-new", store=store).delete) == 1
        assert requests(step) == 1
        assert requests(lambda: c.add(5)) == 1
        assert requests(step) == 1
        assert requests(c.refresh) == 1
        Counter(DOMAIN, name, store=server.store).add(1)
        if isinstance(server, Moto):
            # The refusal brings the record that is there.
            assert requests(lambda: c.add(1)) == 2
            assert requests(lambda: c.add(1, key="one")) == 2
        else:
            assert requests(lambda: c.add(1)) == 3


def test_a_write_touches_little(moto: Moto, name: str) -> None:
    """Among 64 writers' lines, a write sends its own, and the one that makes room."""
    for _ in range(70):
        Counter(DOMAIN, name, store=FaultyStore(connect(moto.store))).add(1)
    sent: list[bytes] = []
    with Proxy(moto.port, watch=sent.append) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, name, store=store)
        c.add(1)
        c.add(1)
    first, second = [request for request in sent if is_write(request)]
    assert b" REMOVE #w.#g0" in first
    assert b"REMOVE" not in second
    assert max(len(request.partition(b"\r\n\r\n")[2]) for request in (first, second)) < 900
    item = look(moto.port, f"c#{name}")
    assert len(item["writers"]["M"]) == 64
    assert item["value"] == {"N": "72"}


# Clients of boto3's


def test_a_client_of_boto3(moto: Moto, name: str) -> None:
    """A client with ten attempts is not repeated by itself, stays as it was, and is theirs."""
    config = Config(retries={"max_attempts": 10}, read_timeout=7, user_agent_extra="mine")
    seen: list[bytes] = []
    with Proxy(moto.port, watch=seen.append) as proxy, bare(proxy.port, config=config) as client:
        before = dict(client.meta.config.retries)
        store = connect(client, timeout=20)
        assert f"127.0.0.1:{proxy.port}" in repr(store)
        c = Counter(DOMAIN, name, 5, store=store)
        requests = proxy.requests
        proxy.lose(3)
        assert c.add(2) == 7
        assert proxy.lost == 3
        # Lost: the write and two looks at what became of it; then the third look.
        assert proxy.requests - requests == 4
        assert any(b"mine" in request for request in seen)
        store.close()
        assert client.meta.config.retries == before
        assert client.meta.config.read_timeout == 7
        assert client.list_tables()["TableNames"]
        assert look(moto.port, f"c#{name}")["value"] == {"N": "7"}


def test_a_client_for_simpledb() -> None:
    """The same with SimpleDB's."""
    options: Any = {**KEYS, "config": Config(retries={"max_attempts": 10})}
    with serving() as server, Proxy(server.port) as proxy:
        client = boto3.client("sdb", endpoint_url=f"http://127.0.0.1:{proxy.port}", **options)
        store = connect(client, timeout=20)
        c = Counter(DOMAIN, "counter", 5, store=store)
        requests = proxy.requests
        proxy.lose(3)
        assert c.add(2) == 7
        assert (proxy.lost, proxy.requests - requests) == (3, 4)
        store.close()
        assert client.list_domains()["DomainNames"] == [DOMAIN]
        client.close()
        assert Counter(DOMAIN, "counter", store=server.store) == 7


class Renewed(Credentials):  # type: ignore[misc]  # botocore has no types
    """Credentials that are other ones each time."""

    count = itertools.count(1)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What a request is signed with."""
        return ReadOnlyCredentials(f"AKID{next(self.count)}", "secret", "token")


def test_credentials_that_are_renewed(moto: Moto, name: str) -> None:
    """The credentials of a client are taken as they are at each request, not as they were."""
    seen: list[bytes] = []
    with Proxy(moto.port, watch=seen.append) as proxy, bare(proxy.port) as client:
        client._request_signer._credentials = Renewed("AKID", "secret")
        store = connect(client)
        Counter(DOMAIN, name, store=store).add(1)
        store.close()
    used = {r.partition(b"Credential=AKID")[2].partition(b"/")[0] for r in seen}
    assert len(used) == len(seen) == 4


class Unrenewed(Credentials):  # type: ignore[misc]  # likewise
    """Credentials of which somebody says that nobody may have them."""

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        metadata = {"HTTPStatusCode": 403, "RequestId": "1"}
        denied = {"Code": "AccessDenied", "Message": "not for you"}
        raise ClientError({"Error": denied, "ResponseMetadata": metadata}, "AssumeRole")


def test_credentials_that_are_not_given(moto: Moto) -> None:
    """Nothing was sent, and nothing will be: it is told at once."""
    with Proxy(moto.port) as proxy, bare(proxy.port) as client:
        client._request_signer._credentials = Unrenewed("AKID", "secret")
        with connect(client) as store, pytest.raises(StoreError, match="not for you") as caught:
            Counter(DOMAIN, "counter", store=store)
        assert type(caught.value) is StoreError
        assert proxy.requests == 0


def test_a_token_of_two_lines(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials do not bring fields of their own into a request."""
    for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{variable}", "local")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token\r\nX-Field: 1")
    url = f"{moto.store}&timeout=0.1"
    with connect(url) as store, pytest.raises(StoreError, match="more than one line"):
        Counter(DOMAIN, "counter", store=store)


class TLSMoto(Moto):
    """Moto's server behind TLS, with a certificate that nobody knows."""

    def command(self) -> list[Any]:
        python, option, program, port = super().command()
        return [
            *(python, option),
            str(program).replace("threaded=True)", 'threaded=True, ssl_context="adhoc")'),
            port,
        ]

    def is_ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port)).close()
        return True

    @property
    def store(self) -> str:
        return super().store.replace("http://", "https://")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls() -> None:
    """An unknown certificate is refused at once; a client that does not verify goes on so."""
    with TLSMoto() as server:
        with pytest.raises(StoreError, match="certificate verify failed") as caught:
            Counter(DOMAIN, "counter", store=server.store)
        assert type(caught.value) is StoreError
        options: Any = {**KEYS, "endpoint_url": f"https://127.0.0.1:{server.port}"}
        for verify, words in ((False, "create=1"), (None, "certificate verify failed")):
            client = boto3.client("dynamodb", verify=verify, **options)
            store = connect(client)
            with pytest.raises(StoreError, match=words):
                Counter(DOMAIN, "counter", store=store)
            store.close()
            client.close()


def test_another_service_is_no_store() -> None:
    """A client for anything else is refused."""
    client = boto3.client("sqs", **KEYS)
    with pytest.raises(InvalidTypeError, match="SQS"):
        connect(client)
    client.close()


# Processes, and servers that hang


def count_on(c: Counter, times: int) -> None:
    """Add, in a forked child."""
    for _ in range(times):
        c.add(1)


@pytest.mark.parametrize("by", ["url", "client"])
def test_a_fork_has_connections_of_its_own(server: Moto | Dynalite, name: str, by: str) -> None:
    """Parent and forked children count on, on connections of their own."""
    with bare(server.port) as client:
        store = connect(client if by == "client" else f"{server.store}&timeout=30")
        c = Counter(DOMAIN, name, store=store)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=count_on, args=(c, 20)) for _ in range(2)]
        for child in children:
            child.start()
        count_on(c, 20)
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0]
        assert c.refresh() == 60
        store.close()


def test_a_frozen_server() -> None:
    """When the server hangs, calls end in time; what is not known then is settled later."""
    with there(dynalite) as server, connect(f"{server.store}&timeout=1&read_timeout=0.3") as store:
        Counter(DOMAIN, "counter", 5, store=server.store)
        c = Counter(DOMAIN, "counter", store=store)
        server.freeze()
        began = time.monotonic()
        with pytest.raises(OutcomeUnknownError) as caught:
            c.add(2)
        with pytest.raises(StoreTimeoutError):
            c.refresh(timeout=0.5)
        assert time.monotonic() - began < 4
        server.thaw()
        assert caught.value.retry() == 7
        assert c.refresh() == 7
        assert server.process.poll() is None


# Places that cannot be used, and secrets


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{variable}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_credentials")
def test_no_credentials(moto: Moto, name: str) -> None:
    """Without credentials the error says so; an endpoint gets some that mean nothing."""
    with pytest.raises(StoreError, match=r"(?s)us-east-1.*credentials"):
        Counter(DOMAIN, "counter", store="dynamodb://us-east-1")
    assert Counter(DOMAIN, name, store=f"{moto.store}&timeout=21").add(1) == 1


def test_nobody_listens() -> None:
    """Where nobody listens, or no such host is, the error says where."""
    with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        Counter(DOMAIN, "counter", store="dynamodb+http://127.0.0.1:1?timeout=0.2")
    with pytest.raises(StoreError, match=r"nowhere\.invalid"):
        Counter(DOMAIN, "counter", store="dynamodb+http://nowhere.invalid?timeout=0.2")


@pytest.mark.parametrize(
    "url",
    [
        *("dynamodb://", "dynamodb://us east/table", "dynamodb://us-east-1/ab"),
        *("dynamodb://us-east-1/a/b/c", "dynamodb://us-east-1/täble", "dynamodb+http:///table"),
        *("dynamodb+http://h:0/table", "dynamodb+http://bad host/table", "dynamodb+http://[::1"),
    ],
)
def test_bad_places(url: str) -> None:
    """A URL that names no table is refused, with examples of what would do."""
    with pytest.raises(StoreURLError, match=r"dynamodb://us-east-1/counters"):
        connect(url)


@pytest.mark.parametrize("option", ["create=yes", "read_timeout=0", "read_timeout=x", "table=x"])
def test_bad_options(option: str) -> None:
    """An option that is not known, or not so, is refused by name."""
    with pytest.raises(StoreURLError, match=option.partition("=")[0]):
        connect(f"dynamodb://us-east-1/counters?{option}")


def test_no_secret_is_shown(
    moto: Moto, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys and passwords are in no error, log or output; a URL does not take them anyway."""
    secret = "Th3S3cr3t"  # noqa: S105  # to be looked for
    with pytest.raises(StoreURLError) as refused:
        connect(f"dynamodb+http://key:{secret}@127.0.0.1/table")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{secret}-token")
    with (
        caplog.at_level(logging.INFO),
        Proxy(moto.port) as proxy,
        connect(through(proxy)) as store,
    ):
        Counter(DOMAIN, name, store=store)
        proxy.lose(1, is_read, DEFINITE["denied"][0])
        command = [
            sys.executable,
            "-m",
            "truecount",
            "--store",
            through(proxy),
            "get",
            DOMAIN,
            name,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert "credentials" in result.stderr
        shown = [repr(store), result.stdout + result.stderr, caplog.text, str(refused.value)]
        proxy.lose(1, is_read, DEFINITE["denied"][0])
        with pytest.raises(StoreError) as caught:
            Counter(DOMAIN, name, store=store)
        shown.append("".join(map(str, (caught.value, caught.value.__cause__))))
    assert secret not in "".join(shown)
    assert "***" in shown[3]
