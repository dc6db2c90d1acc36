"""What lies in SimpleDB: adopted, shared with older writers, kept within the limits, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from helpers import wait_until
from simpledb_server import serving
from truecount import (
    Counter,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    OutOfSyncError,
    StoreError,
    StoreUnavailableError,
    StoreURLError,
    connect,
)
from truecount.record import MOST
from truecount.testing.faulty import FaultyStore
from truecount.testing.proxy import Proxy

DOMAIN = "mydomain"

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def sdb(simpledb_local: str) -> Iterator[Any]:
    """A bare client on the same server."""
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    client = boto3.client("sdb", endpoint_url=simpledb_local, region_name="us-east-1", **keys)
    client.create_domain(DomainName=DOMAIN)
    yield client
    client.close()


@pytest.fixture
def url(simpledb_local: str) -> str:
    return f"simpledb+{simpledb_local}"


@pytest.fixture
def item() -> str:
    """The name of an item that nobody else has."""
    return f"item{next(numbers)}"


def put(sdb: Any, item: str, *, replace: bool = True, **attributes: str) -> None:
    """What another program writes."""
    pairs = [{"Name": n, "Value": v, "Replace": replace} for n, v in attributes.items()]
    sdb.put_attributes(DomainName=DOMAIN, ItemName=item, Attributes=pairs)


def look(sdb: Any, item: str) -> dict[str, str]:
    """What another program reads."""
    answer = sdb.get_attributes(DomainName=DOMAIN, ItemName=item, ConsistentRead=True)
    return {pair["Name"]: pair["Value"] for pair in answer.get("Attributes", ())}


def remove_stamp(sdb: Any, item: str) -> None:
    """What the error of an item that was made anew says."""
    stamp = [{"Name": "truecount", "Value": look(sdb, item)["truecount"]}]
    sdb.delete_attributes(DomainName=DOMAIN, ItemName=item, Attributes=stamp)


def port_of(url: str) -> int:
    """The port in a URL."""
    return int(url.rpartition(":")[2])


def through(proxy: Proxy) -> str:
    """The store behind ``proxy``."""
    return f"simpledb+http://127.0.0.1:{proxy.port}?timeout=20"


def is_put(request: bytes) -> bool:
    """Whether a request puts attributes."""
    return b"Action=PutAttributes" in request


# Older writers

OLDER = {
    "the class of 2010": {"current_value": "41", "timestamp": "2010-03-01T12:30:00.250000"},
    "boto's Sequence": {"current_value": "41", "timestamp": "1267446600.25", "last_value": "40"},
    "neither": {"current_value": "41"},
}


@pytest.mark.parametrize("writer", OLDER)
def test_an_older_item_is_adopted(sdb: Any, url: str, item: str, writer: str) -> None:
    """Its value is kept and counted on, and what older readers read goes on being there."""
    put(sdb, item, **OLDER[writer])
    c = Counter(DOMAIN, item, 7, store=url)
    assert c == 41
    if "timestamp" in OLDER[writer]:
        assert c.timestamp == "2010-03-01T12:30:00.250000Z"
    before = look(sdb, item)
    c += 1
    assert c.add(1, key="once").before == 42
    after = look(sdb, item)
    assert after["current_value"] == "43"
    assert after["timestamp"] > "2026" > before.get("timestamp", "")
    assert after.get("last_value") == OLDER[writer].get("last_value")


@pytest.mark.parametrize("change", ["+=", "add", "refresh", "delete"])
def test_a_foreign_write_is_reported(sdb: Any, url: str, item: str, change: str) -> None:
    """An older writer's write is told, with domain and item, and never overwritten."""
    c = Counter(DOMAIN, item, 5, store=url)
    c += 1
    put(sdb, item, current_value="100", timestamp="2030-01-01T00:00:00.000000")
    with pytest.raises(DamagedRecordError, match=f"(?s)'{item}'.*'{DOMAIN}'.*interop=boto"):
        if change == "+=":
            c += 1
        else:
            getattr(c, change)()
    assert look(sdb, item)["current_value"] == "100"
    put(sdb, item, current_value="6")
    assert c.add(1) == 7


def test_a_foreign_write_with_interop(sdb: Any, url: str, item: str) -> None:
    """With ``interop=boto`` an older writer is somebody who was first."""
    c = Counter(DOMAIN, item, 5, store=f"{url}?interop=boto")
    c += 1
    put(sdb, item, current_value="100", timestamp="2030-01-01T00:00:00.000000")
    with pytest.raises(OutOfSyncError, match=r"^Counter was out of sync$"):
        c += 1
    assert c == 100
    c += 1
    assert look(sdb, item)["current_value"] == "101"
    c.delete()
    put(sdb, item, current_value="8", timestamp="2030-01-01T00:00:00.000000")
    assert Counter(DOMAIN, item, store=f"{url}?interop=boto") == 8


def test_made_anew_by_an_older_writer(sdb: Any, url: str, item: str) -> None:
    """A counter that was deleted here and made anew there is told of, and adopted as it says."""
    c = Counter(DOMAIN, item, 5, store=url)
    c.delete()
    assert "current_value" not in look(sdb, item)
    put(sdb, item, current_value="8", timestamp="2030-01-01T00:00:00.000000")
    with pytest.raises(DamagedRecordError, match="remove its attribute 'truecount'"):
        Counter(DOMAIN, item, store=url)
    remove_stamp(sdb, item)
    assert Counter(DOMAIN, item, store=url).add(1).before == 8


def test_the_life_before_is_past(sdb: Any, simpledb_local: str, url: str, item: str) -> None:
    """Made anew by an older writer, an item keeps receipts of keys and nothing else."""
    with Proxy(port_of(simpledb_local)) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, item, 5, minimum=0, maximum=9, store=store)
        Counter(DOMAIN, item, store=url).add(1, key="K")
        c.add(1)
        c.delete()
        put(sdb, item, current_value="8", timestamp="2030-01-01T00:00:00.000000")
        remove_stamp(sdb, item)
        c = Counter(DOMAIN, item, store=store)
        assert (c.minimum, c.maximum) == (None, None)
        c.add(1)
        proxy.lose(1, is_put)
        assert c.add(1).before == 9
        assert c.add(1, key="K").replayed
        assert c.refresh() == 10


# What comes between a look and a put

MADE = {"current_value": "500", "timestamp": "2031-01-01T00:00:00.000000"}


@pytest.mark.parametrize("before", ["nothing", "a tombstone", "no timestamp", "a counter"])
def test_a_foreign_write_in_between(
    sdb: Any, simpledb_local: str, url: str, item: str, before: str
) -> None:
    """An older writer who comes between the look and the put is not overwritten."""
    if before == "no timestamp":
        put(sdb, item, current_value="41")
    elif before != "nothing":
        c = Counter(DOMAIN, item, 41, store=url)
        if before == "a tombstone":
            c.delete()
    writes = iter([MADE])

    def intrude(request: bytes) -> None:
        # After the last look before the put that decides: where there is a claim, after it.
        claims.append(is_put(request))
        ready = any(claims) or before in ("a tombstone", "a counter")
        if ready and not is_put(request) and (attributes := next(writes, None)):
            put(sdb, item, **attributes)

    claims: list[bool] = []
    with Proxy(port_of(simpledb_local), watch=intrude) as proxy, connect(through(proxy)) as store:
        try:
            Counter(DOMAIN, item, 7, store=store).add(1)
        except DamagedRecordError:
            assert look(sdb, item)["current_value"] == "500"
        else:
            assert look(sdb, item)["current_value"] == "501"
    assert next(writes, None) is None


def test_purging_among_others(sdb: Any, simpledb_local: str, item: str) -> None:
    """A purge takes only what is its own, and nothing from an item that was made anew."""
    domain = f"purging-{item}"

    def intrude(request: bytes) -> None:
        if b"Action=Select" in request and domain.encode() in request:
            pairs = [{"Name": n, "Value": v, "Replace": True} for n, v in MADE.items()]
            sdb.put_attributes(DomainName=domain, ItemName="anew", Attributes=pairs)

    with Proxy(port_of(simpledb_local), watch=intrude) as proxy, connect(through(proxy)) as store:
        for name in ("anew", "shared", "alone"):
            Counter(domain, name, store=store).delete()
        colour = [{"Name": "colour", "Value": "red"}]
        sdb.put_attributes(DomainName=domain, ItemName="shared", Attributes=colour)
        assert store.purge(before=2**60) >= 2
    answer = sdb.select(SelectExpression=f"select * from `{domain}`", ConsistentRead=True)
    left = {found["Name"]: {a["Name"] for a in found["Attributes"]} for found in answer["Items"]}
    assert left.keys() == {"anew", "shared"}
    assert left["shared"] == {"colour"}
    assert left["anew"] > {"current_value", "timestamp", "truecount"}


# With older writers


def test_no_update_of_theirs_is_lost(sdb: Any, url: str, item: str) -> None:
    """However old what this process knows is, ``c += 1`` is conditional on the value it shows."""
    with connect(f"{url}?interop=boto") as store:
        c = Counter(DOMAIN, item, 5, store=store)
        put(sdb, item, current_value="100", timestamp="2030-01-01T00:00:00.000000")
        c.refresh()
        put(sdb, item, current_value="200", timestamp="2030-01-01T00:00:01.000000")
        Counter(DOMAIN, item, store=store)  # sees it
        with pytest.raises(OutOfSyncError):
            c += 1
        assert c == 200


def test_a_delete_that_an_older_writer_overtakes(sdb: Any, simpledb_local: str, item: str) -> None:
    """A deletion counts when the value is gone, so that it takes what was added meanwhile."""

    def intrude(request: bytes) -> None:
        if b"PutAttributes" in request and b"deleted" in request and not overtaken:
            overtaken.append(True)
            put(sdb, item, current_value="6", timestamp="2030-01-01T00:00:00.000000")

    overtaken: list[bool] = []
    with (
        Proxy(port_of(simpledb_local), watch=intrude) as proxy,
        connect(f"{through(proxy)}&interop=boto") as store,
    ):
        Counter(DOMAIN, item, 5, store=store).delete()
        assert overtaken
        assert "current_value" not in look(sdb, item)
        with pytest.raises(CounterNotFoundError):
            Counter(DOMAIN, item, create=False, store=store)


@pytest.mark.parametrize("text", ["041", "+41", " 41"])
def test_numbers_as_others_write_them(sdb: Any, url: str, item: str, text: str) -> None:
    """A value that Python takes for a number is one, and conditions and deletions match it."""
    put(sdb, item, current_value=text, timestamp="2030-01-01T00:00:00.000000")
    c = Counter(DOMAIN, item, store=f"{url}?interop=boto")
    c += 1
    assert c == 42
    put(sdb, item, current_value=text, timestamp="2030-01-01T00:00:01.000000")
    Counter(DOMAIN, item, store=f"{url}?interop=boto").delete()
    assert "current_value" not in look(sdb, item)


@pytest.mark.parametrize("interop", ["none", "boto"])
def test_a_tombstone_is_cleared_later(sdb: Any, url: str, item: str, interop: str) -> None:
    """When the last request of a deletion was lost, the next who reads makes up for it."""
    with connect(f"{url}?interop={interop}") as store:
        Counter(DOMAIN, item, 5, store=store).delete()
        put(sdb, item, current_value="5")  # as it was before that request
        with pytest.raises(CounterNotFoundError):
            Counter(DOMAIN, item, create=False, store=store)
        assert "current_value" not in look(sdb, item)
        put(sdb, item, current_value="5")
        assert Counter(DOMAIN, item, 1, store=store).add(1) == 2


# Limits


def test_an_item_stays_small(sdb: Any, url: str, item: str) -> None:
    """100 writers, 100 keys and 500 digits: under 256 pairs, none over 1,024 bytes."""
    with connect(url) as store:
        for number in range(100):
            writer = FaultyStore(store)
            c = Counter(DOMAIN, item, -MOST, minimum=-MOST, maximum=MOST, store=writer)
            c.set((-1) ** number * (MOST - number), key=f"{number}" * 80)
    answer = sdb.get_attributes(DomainName=DOMAIN, ItemName=item, ConsistentRead=True)
    pairs = [(pair["Name"], pair["Value"]) for pair in answer["Attributes"]]
    assert 150 < len(pairs) <= 256
    assert max(len(value.encode()) for _, value in pairs) <= 1024


def test_more_keys_than_slots(url: str, simpledb_local: str, item: str) -> None:
    """A key is known after hundreds of other writes, with keys and without, to everybody."""
    c = Counter(DOMAIN, item, store=url)
    first = c.add(5, key="first")
    for number in range(80):
        c.add(1, key=f"key{number}")
        c.add(1)
    again = Counter(DOMAIN, item, store=f"{url}?timeout=30").add(5, key="first")
    assert (again.before, again.after, again.replayed) == (0, 5, True)
    assert again.timestamp == first.timestamp
    assert all(c.add(1, key=f"key{number}").replayed for number in range(0, 80, 9))
    assert c.refresh() == 165


def test_purging(sdb: Any, url: str, item: str) -> None:
    """Old tombstones and expired receipts go, and nothing else does."""
    with connect(f"{url}?key_ttl=0.2") as store:
        lives = Counter("purging", "lives", store=store)
        for number in range(40):
            lives.add(1, key=f"key{number}")
        Counter("purging", "dead", 3, store=store).delete()
        keyed = Counter("purging", "keyed", store=url)
        keyed.add(1, key="lasting")
        keyed.delete()

        def items() -> set[str]:
            pages = sdb.get_paginator("select").paginate(
                SelectExpression="select itemName() from purging", ConsistentRead=True
            )
            return {found["Name"] for page in pages for found in page.get("Items", ())}

        assert len(items()) > 3
        assert store.purge(before=0) == 0
        assert {"dead", "keyed", "lives"} <= items()
        assert store.purge(before=2**60) >= 1
        wait_until(lambda: not store.purge(0) and len(items()) == 2, "the last key expires")
        assert items() == {"keyed", "lives"}
        assert lives.add(1, key="key0").before == 40
        assert keyed.receipt("lasting") == 1


@pytest.mark.parametrize("value", [0, -7, MOST, -MOST])
def test_any_value(sdb: Any, url: str, item: str, value: int) -> None:
    """0, a negative one and one of 500 digits are written as older readers expect them."""
    Counter(DOMAIN, item, value, store=url)
    assert look(sdb, item)["current_value"] == str(value)


# Requests


def test_requests(simpledb_local: str, item: str) -> None:
    """``c += 1`` and ``add`` are one request each; one that was second takes two more."""
    with (
        Proxy(port_of(simpledb_local)) as proxy,
        connect(f"simpledb+http://127.0.0.1:{proxy.port}") as store,
    ):
        c = Counter(DOMAIN, item, store=store)

        def requests(change: Any) -> int:
            before = proxy.requests
            change()
            return proxy.requests - before

        def step() -> None:
            nonlocal c
            c += 1

        new = {"store": store, "minimum": 0}
        assert requests(lambda: Counter(DOMAIN, f"{item}-new", **new)) == 5  # two looks, and three
        assert requests(Counter(DOMAIN, f"{item}-new", store=store).delete) == 2
        assert requests(step) == 1
        assert requests(lambda: c.add(5)) == 1
        assert requests(step) == 1
        other = Counter(DOMAIN, item, store=f"simpledb+{simpledb_local}")
        other.add(1)
        assert requests(lambda: c.add(1)) == 3
        assert requests(lambda: c.add(1, key="one")) == 3
        assert c.value == 10


# What is refused


def test_no_counter(sdb: Any, url: str, item: str) -> None:
    """An item of something else is told of, and left alone."""
    put(sdb, item, colour="red")
    with pytest.raises(DamagedRecordError, match=f"'{item}' in SimpleDB domain '{DOMAIN}'.* else"):
        Counter(DOMAIN, item, store=url)
    assert look(sdb, item) == {"colour": "red"}
    put(sdb, item, current_value="many")
    with pytest.raises(DamagedRecordError, match="'many', and no integer"):
        Counter(DOMAIN, item, store=url)


@pytest.mark.parametrize("name", ["current_value", "timestamp", "truecount"])
def test_many_values(sdb: Any, url: str, item: str, name: str) -> None:
    """An attribute that somebody gave a second value is told of, by name."""
    c = Counter(DOMAIN, item, 5, store=url)
    put(sdb, item, replace=False, **{name: "9"})
    with pytest.raises(DamagedRecordError, match=f"(?s)'{item}'.*'{name}' has 2 values"):
        c.refresh()
    with pytest.raises(DamagedRecordError, match=f"(?s)'{item}'.*{name}"):
        Counter(DOMAIN, item, store=f"{url}?timeout=20").add(1)


LONG = "9" * 23
DAMAGE = [
    ("truecount", "2 anything at all", "newer truecount"),
    ("truecount", "1 2 3", "unpack"),
    ("truecount", "", "newer truecount"),
    ("truecount", f"1 9 w 1 {LONG} 5 0 live 5", "no time"),
    ("truecount", f"1 9 w 1 5 {LONG} 0 live 5", "no time"),
    ("truecount", "1 9 w 1 5 5 0 weird 5", "'weird'"),
    ("truecount", "1 9 w 1 5 5 x live 6", "'x'"),
    ("current_value", "many", "current_value is many"),
    ("timestamp", "yesterday", "neither ISO 8601"),
    ("timestamp", "inf", "neither ISO 8601"),
    ("timestamp", "1e400", "neither ISO 8601"),
    ("timestamp", "1267446600250", "neither ISO 8601"),
    ("timestamp", "9999-12-31T23:59:59.999999", "neither ISO 8601"),
    ("truecount_writer00", "1 a", "ledger"),
    ("truecount_writer00", "1 w 1 9999999999999999 x", "ledger"),
    ("truecount_writer00", "1 ", "ledger"),
    ("truecount_writer00", "x a b", "'x'"),
    ("truecount_writer00", "3 a b", "truecount_writer00b"),
    ("truecount_key00", "1 a b", "unpack"),
    ("truecount_minimum", "low", "'low'"),
]


@pytest.mark.parametrize(("name", "text", "words"), DAMAGE)
def test_damaged_attributes(
    sdb: Any, url: str, item: str, name: str, text: str, words: str
) -> None:
    """Whatever is damaged, the error names the item, and nothing is changed."""
    Counter(DOMAIN, item, 5, minimum=0, store=url).add(1, key="K")
    put(sdb, item, **{name: text})
    before = look(sdb, item)
    with connect(f"{url}?timeout=20") as store:
        for change in (
            lambda: Counter(DOMAIN, item, store=store),
            lambda: Counter(DOMAIN, item, 5, store=store).add(1),
        ):
            with pytest.raises(DamagedRecordError, match=f"(?s)'{item}' in SimpleDB.*{words}"):
                change()
        list(store.domains())
        store.purge(before=0)
    assert look(sdb, item) == before


@pytest.mark.parametrize("text", ["garbage", "", "1 a b c"])
def test_damaged_receipts(sdb: Any, url: str, text: str) -> None:
    """A damaged item of a key is named too."""
    domain = f"damaged{next(numbers)}"
    c = Counter(domain, "counter", store=url)
    for number in range(17):
        c.add(1, key=f"key{number}")
    found = sdb.select(
        SelectExpression=f"select * from {domain} where truecount_expires is not null",
        ConsistentRead=True,
    )["Items"]
    assert len(found) == 8
    for kept in found:
        names = [a["Name"] for a in kept["Attributes"] if "receipt" in a["Name"]]
        pairs = [{"Name": name, "Value": text, "Replace": True} for name in names]
        sdb.put_attributes(DomainName=domain, ItemName=kept["Name"], Attributes=pairs)
    with pytest.raises(DamagedRecordError, match=r"'truecount-key-[0-9a-f]+' in SimpleDB"):
        c.add(1, key="key0")
    assert c.refresh() == 17


def test_a_domain_out_of_sight(simpledb_local: str, item: str) -> None:
    """When a domain is overlooked for a moment, the receipt of a key is not taken for missing."""
    with Proxy(port_of(simpledb_local)) as proxy, connect(through(proxy)) as store:
        c = Counter(DOMAIN, item, store=store)
        for number in range(20):
            c.add(1, key=f"key{number}")
        document = (
            b"<Response><Errors><Error><Code>NoSuchDomain</Code><Message>no</Message>"
            b"<BoxUsage>0.1</BoxUsage></Error></Errors><RequestID>1</RequestID></Response>"
        )
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(document)}\r\n\r\n"
        proxy.lose(1, lambda request: b"truecount-key-" in request, head.encode() + document)
        assert c.add(1, key="key0").replayed
        assert proxy.lost == 1
        assert c.refresh() == 20


def test_a_domain_that_is_missing(url: str) -> None:
    """Looking creates no domain, and a counter creates its own."""
    assert "counter" not in Domain("missing-domain", store=url)
    assert "missing-domain" not in list(connect(url).domains())
    with pytest.raises(CounterNotFoundError):
        Counter("missing-domain", "counter", create=False, store=url)
    assert Counter("missing-domain", "counter", 3, store=url).add(1) == 4
    assert "missing-domain" in list(connect(url).domains())


# Places that cannot be used


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_credentials")
def test_no_credentials() -> None:
    """Without credentials the error says so, and where boto3 looks for them."""
    with pytest.raises(StoreError, match=r"(?s)us-east-1.*credentials"):
        Counter(DOMAIN, "counter", store="simpledb://us-east-1")


def test_no_such_region() -> None:
    """A region without SimpleDB is refused with those that have it."""
    with pytest.raises(StoreURLError, match=r"(?s)nowhere-1.*us-east-1"):
        Counter(DOMAIN, "counter", store="simpledb://nowhere-1")


def test_no_such_endpoint() -> None:
    """Where nobody listens, the error says where."""
    with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        Counter(DOMAIN, "counter", store="simpledb+http://127.0.0.1:1?timeout=0.2")


def test_access_denied() -> None:
    """With the wrong secret the error names the item, and what to look at."""
    with (
        serving("--access-key", "AKID", "--secret-key", "another") as server,
        pytest.raises(StoreError, match=r"(?s)'counter' in SimpleDB domain.*credentials"),
    ):
        Counter(DOMAIN, "counter", store=server.store)


@pytest.mark.parametrize("place", ["", "us-east-1/mydomain", "key:secret@us-east-1", "us east"])
def test_bad_regions(place: str) -> None:
    """A URL that names no region is refused, with examples of what would do."""
    with pytest.raises(StoreURLError, match="simpledb://us-east-1"):
        connect(f"simpledb://{place}")


@pytest.mark.parametrize(
    "place", ["127.0.0.1:99999", "127.0.0.1:notaport", "h:0", "bad host", "[::1", "ü", "a/b", "u@h"]
)
def test_bad_endpoints(place: str) -> None:
    """An endpoint that is none is refused at once, or boto3 would go to Amazon's."""
    with pytest.raises(StoreURLError, match=r"simpledb\+http://127"):
        connect(f"simpledb+http://{place}")


@pytest.mark.parametrize("place", ["under_score", "-x", "a..b"])
def test_hosts_that_boto3_refuses(place: str) -> None:
    """What boto3 takes for no host is an error of ours, with its words."""
    with pytest.raises(StoreError, match=f"simpledb|http://{place}"):
        Counter(DOMAIN, "counter", store=f"simpledb+http://{place}?timeout=0.2")


def test_a_missing_profile(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What boto3 says of its configuration is an error of ours too."""
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(StoreError, match="nope"):
        Counter(DOMAIN, "counter", store=f"{url}?timeout=21")
