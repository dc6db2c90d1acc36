"""What lies in Redis: as documented, exact beyond Lua's numbers, kept small, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import redis

from redis_server import serving
from truecount import (
    Counter,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    OutcomeUnknownError,
    Store,
    StoreFullError,
    connect,
)
from truecount.change import BEYOND, DECIDED, Add, Batch
from truecount.moment import now
from truecount.record import Address
from truecount.testing.servers import Redis

DOMAIN = "mydomain"
numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def bare(server: Redis) -> Iterator[Any]:
    """A bare client of the same database."""
    with redis.Redis(port=server.port, db=1, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def store(server: Redis) -> Iterator[Store]:
    with connect(f"{server.store}/1") as store:
        yield store


@pytest.fixture
def name() -> str:
    """The name of a counter that nobody else has."""
    return f"counter{next(numbers)}"


def key_of(name: str) -> str:
    """Where the counter is."""
    return f"truecount:{{{DOMAIN}/{name}}}"


def test_the_format(bare: Any, store: Store, name: str) -> None:
    """Fields and keys are those that docs/stores.md describes."""
    c = Counter(DOMAIN, name, 5, minimum=-3, store=store)
    c.add(2)
    receipt = c.add(4, key="order/17")
    there = bare.hgetall(key_of(name))
    horizon = c.revision - 2
    assert (there["truecount"], there["value"]) == (f"1 live {horizon}", "11")
    writer = there["last"]
    assert sorted(there) == ["last", "truecount", "value", f"w:{writer}"]
    number, *facts = there[f"w:{writer}"].split(" ")
    assert int(number) > 0
    time = int(receipt.updated_at.timestamp() * 1_000_000)
    assert facts[0] == str(receipt.revision)
    assert abs(int(facts[1]) - time) <= 1
    assert facts[2:] == ["7", "11", "+", "-3", "-"]
    kept = f"{key_of(name)}:key:order%2F17"
    assert bare.get(kept) == f"{receipt.revision} {facts[1]} 7 11 add 4"
    assert 604_790_000 < bare.pttl(kept) <= 604_800_000
    c.delete()
    assert bare.hget(key_of(name), "truecount") == f"1 deleted {horizon}"


def test_names_are_quoted(bare: Any, store: Store) -> None:
    """Whatever a name holds, its key has one pair of braces, with domain and name in it."""
    for odd in ("a/b", "a%2Fb", "{x}", "*", "ä", "a:key:b"):
        Counter("odd-names", odd, 7, store=store)
    assert sorted(bare.scan_iter("truecount:{odd-names/*")) == [
        "truecount:{odd-names/%2A}",
        "truecount:{odd-names/%7Bx%7D}",
        "truecount:{odd-names/%C3%A4}",
        "truecount:{odd-names/a%252Fb}",
        "truecount:{odd-names/a%2Fb}",
        "truecount:{odd-names/a%3Akey%3Ab}",
    ]
    assert set(Domain("odd-names", store=store)) == {"a/b", "a%2Fb", "{x}", "*", "ä", "a:key:b"}


def test_prefixes_are_apart(server: Redis, store: Store, name: str) -> None:
    """The same counter under another prefix, or in another database, is another one."""
    Counter(DOMAIN, name, 1, store=store)
    for other in (f"{server.store}/1?prefix=true", f"{server.store}/2"):
        with connect(other) as elsewhere:
            assert list(elsewhere.names(DOMAIN)) == []
            assert Counter(DOMAIN, name, 2, store=elsewhere) == 2
    assert Counter(DOMAIN, name, store=store) == 1


DAMAGES: dict[str, tuple[str, str | None]] = {
    "no format": ("truecount", None),
    "another format": ("truecount", "one live 0"),
    "a newer format": ("truecount", "2 live 0"),
    "a much newer format": ("truecount", "11 whatever"),
    "neither live nor deleted": ("truecount", "1 gone 0"),
    "a horizon that is none": ("truecount", "1 live x"),
    "no value": ("value", None),
    "an empty value": ("value", ""),
    "a word": ("value", "many"),
    "a float": ("value", "5.0"),
    "another value": ("value", "6"),
    "another spelling": ("value", "05"),
    "no last": ("last", None),
    "nobody last": ("last", "nobody"),
    "no line": ("w:", None),
    "an empty line": ("w:", ""),
    "a short line": ("w:", "1 2 3"),
    "a long line": ("w:", "1 2 3 0 5 + - - -"),
    "two lines": ("w:", "1 2 3 0 5 + - -\nx 1 2 3 0 5 + - -"),
    "a word for a number": ("w:", "one 2 3 0 5 + - -"),
    "a word for a revision": ("w:", "1 two 3 0 5 + - -"),
    "a word for a time": ("w:", "1 2 three 0 5 + - -"),
    "a time after the year 9999": ("w:", "1 2 999999999999999999 0 5 + - -"),
    "a word for the value after": ("w:", "1 2 3 0 five + - -"),
    "a word for a minimum": ("w:", "1 2 3 0 5 + low -"),
    "a hexadecimal maximum": ("w:", "1 2 3 0 5 + - 0x10"),
    "another writer's line": ("w:other", "line"),
    "another writer's number": ("w:other", "99999999999999999999999 x"),
    "a field of another program": ("note", "hello"),
    "bytes": ("value", "\udcff\udcfe"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record(server: Redis, store: Store, name: str, damage: str) -> None:
    """Whatever is wrong with it, the error names the counter, and nothing overwrites it."""
    c = Counter(DOMAIN, name, 5, store=store)
    field, text = DAMAGES[damage]
    with redis.Redis(port=server.port, db=1) as bare:
        if field == "w:":
            field += bare.hget(key_of(name), "last").decode()
        if text is None:
            bare.hdel(key_of(name), field)
        else:
            bare.hset(key_of(name), field, text.encode(errors="surrogateescape"))
        there = bare.hgetall(key_of(name))
        ways: list[Callable[[], object]] = [
            c.refresh,
            lambda: Counter(DOMAIN, name, store=store),
            lambda: c.add(1, key="once"),
        ]
        if field not in ("w:other", "note"):  # what a change does not touch, it does not look at
            ways += [lambda: c.add(1), lambda: c.set(3), lambda: c.__iadd__(1), c.delete]
        for way in ways:
            with pytest.raises(DamagedRecordError, match=f"'{name}'.*'{DOMAIN}'") as caught:
                way()
            assert ("upgrade" in str(caught.value)) is ("newer" in damage)
        assert bare.hgetall(key_of(name)) == there
        bare.delete(key_of(name))


@pytest.mark.parametrize("kind", ["string", "list", "hash"])
def test_another_programs_key(bare: Any, store: Store, name: str, kind: str) -> None:
    """Where another program's data is, there is no counter to be made, or read, or listed."""
    key = f"truecount:{{strangers/{name}}}"
    write = {
        "string": lambda: bare.set(key, "5"),
        "list": lambda: bare.rpush(key, "5"),
        "hash": lambda: bare.hset(key, "value", "5"),
    }
    write[kind]()
    with pytest.raises(DamagedRecordError, match="another program"):
        Counter("strangers", name, store=store)
    with pytest.raises(DamagedRecordError):
        store.snapshot("strangers")
    assert "strangers" not in set(store.domains())
    assert bare.type(key) == kind
    bare.delete(key)


def test_keys_that_only_look_like_ours(bare: Any, store: Store) -> None:
    """A key that truecount would have written otherwise is not listed."""
    strangers = ["truecount:{listed/a b}", "truecount:{listed}", "truecount:{listed/%zz}x}"]
    for key in strangers:
        bare.set(key, "5")
    Counter("listed", "ours", 1, store=store)
    assert store.snapshot("listed") == {"ours": 1}
    bare.delete(*strangers)


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "x 2 0 5 add 5", None])
def test_a_damaged_receipt(bare: Any, store: Store, name: str, text: str | None) -> None:
    """A key's receipt that cannot be read is told of; the change is not made."""
    c = Counter(DOMAIN, name, 5, store=store)
    key = f"{key_of(name)}:key:once"
    if text is None:
        bare.rpush(key, "x")
    else:
        bare.set(key, text)
    with pytest.raises(DamagedRecordError, match=r"once|another program"):
        c.add(5, key="once")
    assert c.refresh() == 5
    bare.delete(key)


def test_a_foreign_increment(bare: Any, store: Store, name: str) -> None:
    """HINCRBY on the value is told of, whatever is tried; put back, counting goes on."""
    c = Counter(DOMAIN, name, 5, store=store)
    bare.hincrby(key_of(name), "value", 10)
    for change in (c.refresh, lambda: c.add(1), lambda: c.set(1)):
        with pytest.raises(DamagedRecordError, match="its value is 15, where truecount had left 5"):
            change()
    bare.hincrby(key_of(name), "value", -10)
    assert c.add(1) == 6


EDGE = 2**52


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("start", [EDGE - 2, EDGE, 2**53 - 2, 2**53, 2**63 - 2, 10**17, 10**30])
def test_exact_where_lua_is_not(store: Store, name: str, start: int, sign: int) -> None:
    """Around every limit of doubles and 64 bits, each addition counts to the digit."""
    c = Counter(DOMAIN, name, sign * start, store=store)
    expected = sign * start
    for amount in (1, 1, 1, 1, -1, EDGE - 1, -EDGE, 2**53, 2**60, -(2**60), -(2**53)):
        receipt = c.add(sign * amount)
        assert receipt.before == expected
        expected += sign * amount
        assert receipt.after == expected
    assert c.refresh() == expected


@pytest.mark.parametrize("bound", [10, EDGE - 1, EDGE, 2**53 + 1, 2**64, None])
def test_bounds_of_every_size(store: Store, name: str, bound: int | None) -> None:
    """A bound beyond Lua's numbers holds as one within them."""
    low = None if bound is None else -bound
    c = Counter(DOMAIN, name, 0, minimum=low, maximum=bound, store=store)
    assert c.add(7) == 7
    assert c.add(-9) == -2
    if bound is not None:
        c.set(bound - 1)
        assert c.add(1) == bound
        with pytest.raises(OverflowError):
            c.add(1)
        assert c.refresh() == bound


def test_redis_adds_by_itself(store: Store, name: str) -> None:
    """Additions within Lua's numbers are Redis's own work; the others are not tried there."""
    c = Counter(DOMAIN, name, 5, minimum=0, maximum=EDGE - 1, store=store)
    where = Address(DOMAIN, name)

    def settle(number: int, *amounts: int) -> str:
        changes = tuple(Add(amount) for amount in amounts)
        return store.settle(where, Batch("me", number, c.revision, changes), timeout=5).verdict

    assert settle(1, 1) == DECIDED
    assert settle(1, 1) == BEYOND  # made already
    assert settle(2, 4, -10, 7) == DECIDED
    assert settle(3, -5, -3, 90) == BEYOND  # it would be -1 on the way
    assert settle(4, EDGE) == BEYOND
    assert settle(5, EDGE - 1) == BEYOND
    assert settle(6, 2**70) == BEYOND
    assert c.refresh() == 7


def test_the_record_stays_small(bare: Any, store: Store, name: str) -> None:
    """Of 80 writers the 64 latest are remembered, and the horizon is the latest forgotten."""
    c = Counter(DOMAIN, name, store=store)
    where = Address(DOMAIN, name)
    revisions = []
    for number in range(80):
        batch = Batch(f"writer{number}", 1, c.revision, (Add(1),))
        answer = store.settle(where, batch, timeout=5)
        assert answer.verdict == DECIDED
        assert answer.view is not None
        revisions.append(answer.view.stamp.revision)
        c.refresh()
    there = bare.hgetall(key_of(name))
    assert sum(field.startswith("w:") for field in there) == 64
    assert there["truecount"] == f"1 live {revisions[15]}"
    late = Batch("writer15", 1, revisions[15] - 1, (Add(1),))
    assert store.settle(where, late, timeout=5).verdict == BEYOND
    assert c.refresh() == 80


def test_settled_within_64_writers(server: Redis, store: Store, name: str) -> None:
    """A change that is settled after 70 other writers' is unknown for ever, and not applied."""
    from truecount.testing.faulty import FaultyStore

    lossy = FaultyStore(store)
    c = Counter(DOMAIN, name, store=lossy)
    lossy.lose_requests(1)
    lossy.go_down()
    with pytest.raises(OutcomeUnknownError) as caught:
        c.add(5, timeout=0.1)
    lossy.mend()
    for number in range(70):
        c.refresh()
        batch = Batch(f"writer{number}", 1, c.revision, (Add(1),))
        assert store.settle(Address(DOMAIN, name), batch, timeout=5).verdict == DECIDED
    with pytest.raises(OutcomeUnknownError):
        caught.value.retry()
    assert c.refresh() == 70


def test_purge(bare: Any, server: Redis) -> None:
    """Old tombstones go when all their keys have expired; damaged ones and young ones stay."""
    with connect(f"{server.store}/4?key_ttl=0.3") as store:
        for name in ("plain", "keyed", "damaged", "alive"):
            Counter("purged", name, 5, store=store)
        Counter("purged", "keyed", store=store).add(1, key="once")
        for name in ("plain", "keyed", "damaged"):
            Counter("purged", name, store=store).delete()
        with redis.Redis(port=server.port, db=4) as client:
            client.hset("truecount:{purged/damaged}", "value", "7")
            assert store.purge(0) == 0
            assert store.purge(now() + 1) == 1
            client.delete("truecount:{purged/keyed}:key:once")
            assert store.purge(now() + 1) == 1
            assert sorted(client.keys()) == [
                b"truecount:{purged/alive}",
                b"truecount:{purged/damaged}",
            ]
        again = Counter("purged", "plain", store=store)
        assert again == 0
    with pytest.raises(CounterNotFoundError):
        Counter("purged", "keyed", create=False, store=f"{server.store}/4")


def test_a_full_server(name: str) -> None:
    """No memory left: the error names the setting, nothing is written, and reading goes on."""
    with (
        serving(maxmemory="64mb", maxmemory_policy="noeviction") as server,
        connect(server.store) as store,
        redis.Redis(port=server.port) as client,
    ):
        c = Counter(DOMAIN, name, 5, store=store)
        client.config_set("maxmemory", "100kb")
        for change in (lambda: c.add(1), lambda: c.add(1, key="once"), lambda: c.set(9)):
            with pytest.raises(StoreFullError, match="maxmemory"):
                change()
        with pytest.raises(StoreFullError):
            c += 1
        assert c.refresh() == 5
        assert client.dbsize() == 1
        client.config_set("maxmemory", "64mb")
        assert c.add(1, key="once") == 6
