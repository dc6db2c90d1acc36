"""What lies in etcd, how it is reached, and what its errors say."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from etcd_server import Space, certificates, coded, serving
from helpers import missing
from truecount import (
    Counter,
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
    moment,
)
from truecount.cli.commands import cli
from truecount.record import Address, Ledger, Record
from truecount.stores.base import Ambiguous
from truecount.testing.proxy import Proxy
from truecount.testing.servers import Certificates, Etcd, EtcdCluster
from truecount.testing.servers.process import free_port

ADDRESS = Address("mydomain", "counter1")
RECORD = Record.of("5", 0, "0", Ledger.of({"somebody": "3 7 1000000 0 5 + - -"}))
NAME = "c/mydomain/counter1"

WORDS = ("hunter2", "hunter3")


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with serving() as server:
        yield server


@pytest.fixture
def space(etcd: Etcd) -> Iterator[Space]:
    space = Space(etcd)
    yield space
    connect(space.url).close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


# The format


def test_a_record_is_one_key(space: Space) -> None:
    """The value, the state, the horizon, and the line of the writer: as the page says."""
    c = Counter("mydomain", "counter1", 41, minimum=0, store=space.url)
    c.add(1)
    ((key, text),) = space.all().items()
    assert key == NAME
    head, line = text.split("\n")
    horizon = c.revision - 1
    assert head == f"1 42 live {horizon}"
    _, number, revision, _, *rest = line.split(" ")
    assert (int(number), int(revision)) == (2, c.revision)
    assert rest == ["41", "42", "+", "0", "-"]
    c.delete()
    assert space.all()[NAME].startswith(f"1 42 deleted {horizon}\n")


def test_lines_of_other_writers(space: Space) -> None:
    """Those of the last 4 revisions are in the record, in version 2; the others beside it."""
    c = Counter("mydomain", "counter1", store=space.url)
    # Another handle for the same place is another writer.
    with connect(f"{space.url}?read_timeout=3") as store:
        other = Counter("mydomain", "counter1", store=store)
        other.add(1)
        for value in range(2, 6):
            (text,) = space.all().values()
            head, line, latest = text.split("\n")
            assert head.startswith(f"2 {value - 1} live ")
            former, current = line.split(" ")[0], latest.split(" ")[0]
            assert c.add(1) == value
        assert former != current
        alone = space.all()
        mine = f"w/mydomain/counter1/{former}"
        assert set(alone) == {NAME, mine}
        assert alone[NAME].startswith("1 5 live ")
        assert alone[NAME].split("\n")[1].startswith(current)
        c.add(1)
        assert {**space.all(), NAME: ""} == {**alone, NAME: ""}
        other.add(1)
        (text,) = space.all().values()
        assert [line.split(" ")[0] for line in text.split("\n")[1:]] == [current, former]
        assert c.refresh() == 7


def test_a_record_of_the_older_version(space: Space) -> None:
    """Version 1, which keeps all lines but the last one elsewhere, is read, listed and replaced."""
    written = {
        NAME: "1 2 live 0\nfirst 7 12 1000000 1 2 + - -",
        "w/mydomain/counter1/second": "5 11 1000000 0 1 + - -",
        "w/mydomain/counter1/third": "3 10 1000000 0 0 + - -",
        "c/mydomain/counter2": "1 2 deleted 0\nfirst 7 12 1000000 1 2 + - -",
        "w/mydomain/counter2/second": "5 11 1000000 0 1 + - -",
    }
    for key, text in written.items():
        space.put(key, text)
    store = connect(space.url)
    assert store.snapshot("mydomain") == {"counter1": 2}
    c = Counter("mydomain", "counter1", store=store)
    assert c.add(1) == 3
    assert [key for key in space.all() if "counter1" in key] == [NAME]
    head, *lines = space.all()[NAME].split("\n")
    assert head == "2 3 live 0"
    assert [line.split(" ")[0] for line in lines[:-1]] == ["third", "second", "first"]
    assert c.add(1) == 4
    assert "w/mydomain/counter1/third" in space.all()
    assert store.purge(moment.now()) == 1
    assert all("counter1" in key for key in space.all())


def test_many_records_of_the_older_version(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which counters are kept so is forgotten when there are too many; then they are read again."""
    monkeypatch.setattr("truecount.stores.etcd.MEMORY", 2)
    names = [f"counter{number}" for number in range(5)]
    for name in names:
        space.put(f"c/mydomain/{name}", "1 2 live 0\nfirst 7 12 1000000 1 2 + - -")
        space.put(f"w/mydomain/{name}/second", "5 11 1000000 0 1 + - -")
    counters = [Counter("mydomain", name, store=space.url) for name in names]
    assert [c.add(1).after for c in counters] == [3] * 5


def test_the_oldest_writers_are_forgotten(space: Space) -> None:
    """64 writers are remembered, and the horizon is that of the latest forgotten one."""
    c = Counter("mydomain", "counter1", store=space.url)
    for number in range(70):
        with connect(f"{space.url}?read_timeout=3&timeout={number + 10}") as store:
            Counter("mydomain", "counter1", store=store).add(1)
    found = space.all()
    assert len(found) - 1 + found[NAME].count("\n") == 64
    assert int(found[NAME].split("\n")[0].split(" ")[3]) == c.revision + 6
    assert c.add(1) == 71


def test_names_are_quoted(space: Space) -> None:
    """Whatever is in a name: no two meet, and none leaves its domain."""
    names = ["a/b", "a%2Fb", "a b", "a", "a0", "{x}", "\N{SNOWMAN}"]
    for value, name in enumerate(names):
        Counter("mydomain", name, value, store=space.url).add(1, key="k/" + name)
    assert "c/mydomain/a%2Fb" in space.all()
    assert "k/mydomain/a%2Fb/k%2Fa%2Fb" in space.all()
    d = Domain("mydomain", store=space.url)
    assert d.snapshot() == {name: value + 1 for value, name in enumerate(names)}


def test_many_counters_are_listed_whole(space: Space) -> None:
    """More counters than one answer brings: all of them, and all domains."""
    Counter("mydomain", "counter1", store=space.url)
    record = space.all()[NAME]
    for start in range(0, 2500, 100):
        puts = [
            {
                "request_put": {
                    "key": coded(f"{space.prefix}/c/domain{number // 1250}/{number}"),
                    "value": coded(record),
                }
            }
            for number in range(start, start + 100)
        ]
        space.server.ask("/v3/kv/txn", success=puts)
    store = connect(space.url)
    assert list(store.domains()) == ["domain0", "domain1", "mydomain"]
    assert list(store.names("domain1")) == sorted(map(str, range(1250, 2500)))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "something else"),
        ("hello", "something else: 'hello'"),
        (b"\xff\xfe", "decode"),
        ("3 0 live 0\nwriter 1 5 6 0 0 + - -", "newer truecount: upgrade it"),
        ("2 0 live 0\nwriter 1 5 6 0 0 + - -", "not written as truecount writes it"),
        (
            "1 1 live 0\nfirst 1 5 6 0 0 + - -\nother 1 6 6 0 1 + - -",
            "not written as truecount writes it",
        ),
        (
            "2 1 live 0\nother 1 6 6 0 1 + - -\nfirst 1 5 6 0 0 + - -",
            "not written as truecount writes it",
        ),
        (
            "2 1 live 0\nfirst 1 5 6 0 0 + - -\nother 1 9 6 0 1 + - -",
            "not written as truecount writes it",
        ),
        ("2 1 live 0\nfirst 1 5 6 0 0 + - -\nfirst 1 6 6 0 1 + - -", "two lines of the writer"),
        ("2 1 live 0\nfirst 1 5 6 0 + - -\nother 1 6 6 0 1 + - -", "a line of the ledger cannot"),
        ("1 0 live\nwriter 1 5 6 0 0 + - -", "not enough values"),
        ("1 7 live 0\nwriter 1 5 6 0 0 + - -", "its value is 7, where truecount had left 0"),
        ("1 0 alive 0\nwriter 1 5 6 0 0 + - -", "its state is 'alive'"),
        ("1 0 live x\nwriter 1 5 6 0 0 + - -", "its horizon is 'x'"),
        ("1 0 live 00\nwriter 1 5 6 0 0 + - -", "its horizon is '00'"),
        ("1 0 live 0", "a line of the ledger cannot be read"),
        ("1 0 live 0\n", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter x 5 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 x 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 x 0 0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 -6 0 0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 x 0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 0.0 + - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 0 + x -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 0 + - x", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 0 + - - -", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 0 + - -\n", "a line of the ledger cannot be read"),
        ("1 0 live 0\nwriter 1 5 6 0 " + "9" * 5000 + " + - -", "a line of the ledger cannot"),
    ],
)
def test_what_is_damaged_is_left_alone(space: Space, text: str | bytes, fault: str) -> None:
    """A record that truecount has not written is refused, named, and not overwritten."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(1)
    space.put(NAME, text)
    for call in (c.refresh, lambda: c.add(1), c.delete):
        with pytest.raises(DamagedRecordError) as caught:
            call()
        assert "counter 'counter1' in domain 'mydomain'" in str(caught.value)
        assert fault in str(caught.value)
    if isinstance(text, str):
        assert space.all()[NAME] == text


@pytest.mark.parametrize(
    ("writer", "line", "fault"),
    [
        ("other", "1 5 6 0 0 + -", "a line of the ledger cannot be read"),
        ("other", "1 5 6 0 0 + - -\nmore 1 5 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("other", "x 5 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("other", b"\xff", "decode"),
        ("other", f"1 {10**18} 6 0 5 + - -", "its value is 1, where truecount had left 5"),
        ("other", f"1 {10**18} 6 0 1 + - -", "not written as truecount writes it"),
        ("other", f"1 {10**18} 6 0 1\t+ - -", "a line of the ledger cannot be read"),
        ("\udcff", "1 5 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("a/b", "1 5 6 0 0 + -", "a line of the ledger cannot be read"),
        ("", "1 5 6 0 0 + - -", "a line of the ledger cannot be read"),
        ("itself", "1 5 6 0 0 + - -", "two lines of the writer"),
    ],
)
def test_damaged_lines_are_left_alone(
    space: Space, writer: str, line: str | bytes, fault: str
) -> None:
    """So is a counter with a line that truecount has not written."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(1)
    if writer == "itself":
        writer = space.all()[NAME].split("\n")[1].split(" ")[0]
    space.put(f"w/mydomain/counter1/{writer}", line)
    with pytest.raises(DamagedRecordError, match="counter 'counter1' in domain") as caught:
        c.refresh()
    assert fault in str(caught.value)


def test_more_lines_than_can_be(space: Space) -> None:
    """A record with more than 64 writers is not truecount's."""
    c = Counter("mydomain", "counter1", store=space.url)
    for number in range(64):
        space.put(f"w/mydomain/counter1/writer{number}", "1 5 6 0 0 + - -")
    with pytest.raises(DamagedRecordError, match="more than 64 writers"):
        c.refresh()


@pytest.mark.parametrize(
    "text", ["", "1", "1 x 5 6 0 5 add 5", "1 9 5 6 0 x add 5", "2 9", b"\xff"]
)
def test_damaged_receipts_of_keys(space: Space, text: str | bytes) -> None:
    """The receipt of a key that cannot be read is an error, not a key that is free."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(5, key="order-1")
    space.put("k/mydomain/counter1/order-1", text)
    with pytest.raises(DamagedRecordError, match=r"key 'order-1' of counter 'counter1'"):
        c.add(5, key="order-1")
    assert c.refresh() == 5


def test_a_write_of_others_is_noticed(space: Space) -> None:
    """Another program's value is not overwritten by an add that need not read before."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(1)
    space.put(NAME, space.all()[NAME].replace("1 1 live", "1 9 live"))
    with pytest.raises(DamagedRecordError, match="its value is 9, where truecount had left 1"):
        c.add(1)
    assert space.all()[NAME].startswith("1 9 live")


def test_a_strange_key_in_a_listing(space: Space) -> None:
    """What is no counter's key is named where counters are listed, and hides no domain."""
    Counter("mydomain", "counter1", store=space.url)
    space.put("c/mydomain/one/two", "what")
    space.put("c/what", "what")
    space.put("c/mydomain/\udcff", "what")
    store = connect(space.url)
    assert list(store.domains()) == ["mydomain"]
    with pytest.raises(DamagedRecordError, match="c/mydomain/one/two"):
        list(store.names("mydomain"))


# Keys


def test_keys_share_a_lease(space: Space) -> None:
    """The receipts of a while hang on one lease, which lives for longer than key_ttl."""
    with connect(f"{space.url}?key_ttl=1000") as store:
        c = Counter("mydomain", "counter1", store=store)
        c.add(1, key="one")
        c.add(1, key="two")
    leases = {space.lease(f"k/mydomain/counter1/{key}") for key in ("one", "two")}
    assert len(leases) == 1
    answer = space.server.ask("/v3/lease/timetolive", ID=str(leases.pop()))
    assert 1060 < int(answer["TTL"]) <= 1120
    expires = int(space.all()["k/mydomain/counter1/one"].split(" ")[1])
    assert 990e6 < expires - time.time() * 1e6 <= 1000e6


def test_a_lease_that_is_gone(space: Space) -> None:
    """A lease that was revoked is replaced by another one; the key counts once."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(1, key="one")
    space.server.ask("/v3/lease/revoke", ID=str(space.lease("k/mydomain/counter1/one")))
    assert c.add(1, key="two") == 2
    assert c.add(1, key="two").replayed
    assert "k/mydomain/counter1/two" in space.all()


def test_expired_keys_are_in_nobodys_way(space: Space) -> None:
    """A receipt that has expired, and that etcd still keeps, is overwritten."""
    with connect(f"{space.url}?key_ttl=0.3") as store:
        c = Counter("mydomain", "counter1", store=store)
        assert c.add(5, key="one") == 5
        time.sleep(0.31)
        assert "k/mydomain/counter1/one" in space.all()
        again = c.add(6, key="one")
        assert (again, again.replayed) == (11, False)


def test_keys_live_no_longer_than_leases(etcd: Etcd) -> None:
    """A key_ttl that is beyond etcd's leases is refused at once."""
    with pytest.raises(StoreURLError, match="lease"):
        connect(f"{etcd.store}?key_ttl=9e9")


# Purging


def test_purge(space: Space) -> None:
    """Old tombstones go, with all that belongs to them; those with keys stay until these expire."""
    with connect(f"{space.url}?key_ttl=1") as store:
        for name in ("living", "dead", "with key"):
            c = Counter("mydomain", name, store=store)
            if name == "with key":
                c.add(1, key="one")
            if name != "living":
                with connect(space.url) as other:
                    Counter("mydomain", name, store=other).delete()
        space.put("c/mydomain/damaged", "what")
        assert store.purge(0) == 0
        now = time.time_ns() // 1000
        assert store.purge(now) == 1
        assert not [key for key in space.all() if "dead" in key]
        time.sleep(max(now / 1e6 + 1.05 - time.time(), 0))
        assert store.purge(now) == 1
        left = [key for key in space.all() if not key.startswith("w/")]
        assert left == ["c/mydomain/damaged", "c/mydomain/living"]


# Requests


@pytest.mark.parametrize("keyed", [False, True])
def test_requests(space: Space, keyed: bool) -> None:
    """``add`` and ``c += 1`` take one request each; with a key two, and the lease's once."""
    with Proxy(space.server.port) as proxy:
        url = f"etcd://127.0.0.1:{proxy.port}/{space.prefix}"
        with connect(url) as store:
            c = Counter("mydomain", "counter1", store=store)
            c.add(1, key="first" if keyed else None)
            for number in range(5):
                before = proxy.requests
                c.add(1, key=str(number) if keyed else None)
                assert proxy.requests == before + 1 + keyed
                before = proxy.requests
                c += 1
                assert proxy.requests == before + 1


# Reaching it


def test_a_dead_endpoint_is_passed_over(space: Space) -> None:
    """Of two endpoints on one of which nobody listens, the other one is asked, and remembered."""
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{space.server.port}"
    with connect(f"etcd://{hosts}/{space.prefix}?timeout=2") as store:
        c = Counter("mydomain", "counter1", store=store)
        began = time.monotonic()
        for value in range(1, 11):
            assert c.add(1) == value
        assert time.monotonic() - began < 1.5


def test_a_silent_endpoint_is_left(space: Space) -> None:
    """After a request that was not answered in time, the next endpoint is asked."""
    with Proxy(space.server.port) as proxy:
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{space.server.port}"
        with connect(f"etcd://{hosts}/{space.prefix}?read_timeout=0.3") as store:
            c = Counter("mydomain", "counter1", store=store)
            proxy.lose(10, instead=None)
            began = time.monotonic()
            assert [c.add(1).after for _ in range(5)] == [1, 2, 3, 4, 5]
            assert 0.25 < time.monotonic() - began < 1.5
            assert proxy.lost == 1


def test_the_leader_is_killed() -> None:
    """When the leader of three is killed the others go on; it comes back to the same counts."""
    try:
        cluster = EtcdCluster(heartbeat=50)
    except FileNotFoundError:
        missing("etcd")
    with cluster, connect(cluster.store) as store:
        c = Counter("mydomain", "counter1", store=store)
        for _ in range(3):
            for _ in range(50):
                c.add(1)
            leader = cluster.leader()
            leader.kill()
            c.add(1)
            leader.start()
        assert c.refresh() == 153


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
def test_nobody_is_there(host: str) -> None:
    """Where nobody listens the error says so when the time is over; nothing was applied."""
    with (
        connect(f"etcd://{host}?timeout=0.3") as store,
        pytest.raises(StoreUnavailableError, match="cannot be reached"),
    ):
        Counter("mydomain", "counter1", store=store)


def test_a_frozen_server(etcd: Etcd) -> None:
    """A server that does nothing: the call ends in time, and is settled when it goes on."""
    space = Space(etcd)
    with connect(f"{space.url}?read_timeout=0.3") as store:
        c = Counter("mydomain", "counter1", store=store)
        etcd.freeze()
        try:
            began = time.monotonic()
            with pytest.raises((OutcomeUnknownError, StoreTimeoutError)) as caught:
                c.add(1, timeout=1)
            assert time.monotonic() - began < 1.6
            with pytest.raises((StoreTimeoutError, StoreUnavailableError)):
                c.refresh(timeout=0.5)
        finally:
            etcd.thaw()
        if isinstance(caught.value, OutcomeUnknownError):
            assert caught.value.retry() == 1
        assert c.refresh() == 1


def test_a_fork_has_connections_of_its_own(space: Space) -> None:
    """Parent and child go on with the same counter at the same time, exactly."""
    c = Counter("mydomain", "counter1", store=space.url)
    c.add(1, key="one")
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            status = 1
            try:
                for number in range(20):
                    c.add(1, key=f"{os.getpid()} {number}")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    for _ in range(20):
        c.add(1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert c.refresh() == 81


@pytest.mark.parametrize(
    "url",
    [
        "etcd://",
        "etcd:///prefix",
        "etcd://host:0",
        "etcd://host:99999",
        "etcd://host:x",
        "etcd://one,,two",
        "etcd://host/pre fix",
        "etcd://me@host",
        "etcd://:hunter2@host",
        "etcd://me:hun@/ter2@host",
        "etcd://me:hun/ter2@host",
        "etcd://host?cacert=ca.pem",
        "etcds://host?key=key.pem",
        "etcd://host?read_timeout=0",
        "etcd://host?nosuch=1",
    ],
)
def test_bad_urls(url: str) -> None:
    """A URL that cannot be meant is refused at once, and no password shown."""
    with pytest.raises(StoreURLError) as caught:
        connect(url)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["etcd://host", "etcd://[::1]:2379,a_b.c/x/y/", "etcds://h:1?cert=c"]
)
def test_urls_are_not_reached_for(url: str) -> None:
    """To open a store asks nobody, and reads no file."""
    connect(url).close()


def test_there_is_no_client_to_give() -> None:
    """The store is opened by URL: a connection to etcd stands for nothing."""
    with pytest.raises(InvalidTypeError, match="takes a store's URL"):
        connect(HTTPConnection("127.0.0.1"))


# Users


@pytest.fixture(scope="module")
def guarded() -> Iterator[Etcd]:
    with serving(password=WORDS[0]) as server:
        yield server


def test_users(guarded: Etcd) -> None:
    """With the right password it counts, also after the server has forgotten who was there."""
    with connect(guarded.store) as store:
        c = Counter("mydomain", "counter1", store=store)
        c.add(1, key="one")
        guarded.kill()
        guarded.start()
        assert c.add(1) == 2
        assert c.add(1, key="one").replayed


def test_quoted_passwords(guarded: Etcd) -> None:
    """A password is quoted in the URL, and not where it is used."""
    with connect(guarded.store.replace("hunter2", "%68unter2")) as store:
        Counter("mydomain", "quoted", store=store).add(1)


@pytest.mark.parametrize(
    ("login", "fault"),
    [
        ("root:hunter3@", "look at the user and the password"),
        ("nobody:hunter3@", "look at the user and the password"),
        ("", "name a user in the URL"),
    ],
)
def test_who_is_not_let_in(guarded: Etcd, login: str, fault: str) -> None:
    """A wrong password, or none, is an error that says so at once."""
    with connect(f"etcd://{login}{guarded.address}") as store:
        began = time.monotonic()
        with pytest.raises(StoreError, match=fault) as caught:
            Counter("mydomain", "counter1", store=store)
        assert time.monotonic() - began < 2
        assert not isinstance(caught.value, StoreUnavailableError)
        assert "hunter" not in str(caught.value)


def test_who_may_not_write(guarded: Etcd) -> None:
    """Without the permission the error says how it is given, and then it works."""
    token = guarded.ask("/v3/auth/authenticate", name="root", password=WORDS[0])["token"]

    def ask(path: str, **question: object) -> None:
        guarded.ask(path, token=token, **question)

    ask("/v3/auth/user/add", name="clerk", password=WORDS[1])
    ask("/v3/auth/role/add", name="counting")
    ask("/v3/auth/user/grant", user="clerk", role="counting")
    with connect(f"etcd://clerk:hunter3@{guarded.address}/desk") as store:
        with pytest.raises(StoreError, match="grant-permission"):
            Counter("mydomain", "counter1", store=store)
        permission = {"permType": "READWRITE", "key": coded("desk/"), "range_end": coded("desk0")}
        ask("/v3/auth/role/grant", name="counting", perm=permission)
        c = Counter("mydomain", "counter1", store=store)
        assert c.add(1, key="one") == 1
        assert store.snapshot("mydomain") == {"counter1": 1}


def test_passwords_are_not_shown(guarded: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a repr, nor in a log, an error, or what the command prints."""
    caplog.set_level(logging.DEBUG)
    shown = []
    for url in (guarded.store, f"etcd://root:hunter2@127.0.0.1:{free_port()}?timeout=0.1"):
        with connect(url) as store:
            shown += [repr(store), store.shown, repr(Domain("mydomain", store=store))]
            try:
                shown.append(repr(Counter("mydomain", "shown", store=store)))
            except StoreError as error:
                shown += [repr(error), str(error), repr(error.__cause__)]
            for command in (["add", "mydomain", "shown"], ["get", "mydomain", "nosuch"]):
                result = CliRunner().invoke(cli, ["--store", url, *command])
                shown += [result.output, result.stderr]
    text = "\n".join([*shown, caplog.text])
    assert "etcd" in text
    assert "hunter2" not in text


# TLS


def test_tls(files: Certificates) -> None:
    """Over TLS with an authority of one's own it counts; each mistake says what to look at."""
    with serving(certificates=files) as server:
        with connect(server.store) as store:
            assert Counter("mydomain", "counter1", store=store).add(1) == 1
        mistakes = {
            f"etcds://{server.address}": "cannot agree on TLS",
            f"etcds://localhost:{server.port}?cacert={files.cacert}": "TLS.*'localhost'",
            f"etcds://{server.address}?cacert=/nosuch.pem": "cannot be used",
            f"etcds://{server.address}?cert={files.cert}": "cannot be used",
            f"etcds://{server.address}?cacert={files.key}": "cannot be used",
        }
        for url, fault in mistakes.items():
            with connect(url) as store:
                began = time.monotonic()
                with pytest.raises(StoreError, match=fault):
                    Counter("mydomain", "counter1", store=store)
                assert time.monotonic() - began < 2
        with (
            connect(f"etcd://{server.address}?timeout=0.5") as store,
            pytest.raises(StoreError, match="etcds"),
        ):
            Counter("mydomain", "counter1", store=store)


def test_certificates_of_clients(files: Certificates, tmp_path: Path) -> None:
    """Where the server asks for a certificate, ?cert= and ?key= are shown; without, it says so."""
    both = tmp_path / "both.pem"
    both.write_bytes(files.cert.read_bytes() + files.key.read_bytes())
    with serving(certificates=files, client_certificates=True) as server:
        url = f"etcds://{server.address}?cacert={files.cacert}&timeout=2"
        for good in (server.store, f"{url}&cert={both}"):
            with connect(good) as store:
                Counter("mydomain", "counter1", store=store).add(1)
        with connect(url) as store, pytest.raises(StoreError, match="TLS"):
            Counter("mydomain", "counter1", store=store)


def test_a_private_key_that_is_encrypted(files: Certificates, tmp_path: Path) -> None:
    """It is an error, and no question at the terminal."""
    key = tmp_path / "encrypted.pem"
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:x", "-in", files.key, "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    url = f"etcds://127.0.0.1:1?cert={files.cert}&key={key}"
    with connect(url) as store, pytest.raises(StoreError, match="the private key is encrypted"):
        Counter("mydomain", "counter1", store=store)


def test_tls_where_there_is_none(etcd: Etcd) -> None:
    """A server without TLS is told of as such."""
    with (
        connect(f"etcds://{etcd.address}?timeout=0.5") as store,
        pytest.raises(StoreError, match="whether it speaks TLS"),
    ):
        Counter("mydomain", "counter1", store=store)


# What a server refuses


def test_a_full_store() -> None:
    """When its history has filled the quota, the error says what to do; and after that it works."""
    with serving(quota=4 << 20) as server:
        space = Space(server)
        with connect(space.url) as store:
            c = Counter("mydomain", "counter1", store=store)
            with pytest.raises(RuntimeError):
                for number in range(10):
                    space.put(f"ballast{number}", "x" * 1_000_000)
            for call in (lambda: c.add(1), lambda: c.add(1, key="one")):
                with pytest.raises(StoreFullError, match=r"NOSPACE.*disarm"):
                    call()
            assert c.refresh() == 0
            start = f"{space.prefix}/ballast"
            answer = server.ask(
                "/v3/kv/deleterange", key=coded(start), range_end=coded(start + "~")
            )
            revision = answer["header"]["revision"]
            server.ask("/v3/kv/compaction", revision=revision, physical=True)
            server.ask("/v3/maintenance/defragment")
            alarm = server.ask("/v3/maintenance/alarm")["alarms"][0]
            server.ask("/v3/maintenance/alarm", action="DEACTIVATE", **alarm)
            assert c.add(1) == 1


@pytest.mark.parametrize("keyed", [False, True])
def test_who_fills_the_store(keyed: bool) -> None:
    """Writes that pass the quota are done, though refused: who is told so finds nothing."""
    with serving(quota=8 << 20) as server, connect(f"{server.store}?timeout=20") as store:
        counters = [Counter("mydomain", f"counter{n}", store=store) for n in range(40)]
        begun = threading.Barrier(len(counters) + 8)

        def fill(number: int) -> None:
            begun.wait()
            ballast = os.urandom(20_000)
            with contextlib.suppress(RuntimeError):
                for turn in itertools.count():
                    key = coded(f"ballast/{number}/{turn}")
                    server.ask("/v3/kv/put", key=key, value=coded(ballast))

        def count(c: Counter) -> int:
            """Add until it is full: how often it was told to be applied."""
            begun.wait()
            for turn in itertools.count():
                try:
                    c.add(1, key=str(turn) if keyed else None)
                except StoreFullError:
                    return turn
            raise AssertionError

        with ThreadPoolExecutor(len(counters) + 8) as threads:
            filling = [threads.submit(fill, number) for number in range(8)]
            told = list(threads.map(count, counters))
            for one in filling:
                one.result()
        assert sum(told) > 0
        assert [c.refresh() for c in counters] == told


SPACE = b'{"error": "etcdserver: mvcc: database space exceeded", "code": 8}'
NOSPACE = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: %d\r\n\r\n%s" % (len(SPACE), SPACE)


def is_write(request: bytes) -> bool:
    """Whether a request writes."""
    return b"request_put" in request


@pytest.mark.parametrize("keyed", [False, True])
def test_a_refusal_of_what_was_done(space: Space, keyed: bool) -> None:
    """A write that is there is told as one; with others after it, too, once each."""
    with (
        Proxy(space.server.port) as proxy,
        connect(f"etcd://127.0.0.1:{proxy.port}/{space.prefix}") as store,
    ):
        c = Counter("mydomain", "counter1", store=store)
        other = Counter("mydomain", "counter1", store=space.url)
        proxy.lose(1, is_write, NOSPACE)
        assert c.add(1, key="one" if keyed else None) == 1
        proxy.lose(1, is_write, NOSPACE, then=lambda: other.add(10))
        assert c.add(2, key="two" if keyed else None) == 3
        assert proxy.lost == 2
        assert c.refresh() == 13


def test_a_refusal_of_which_nothing_is_known(space: Space) -> None:
    """Where the record cannot be read then, the write is not said to have failed."""
    with (
        Proxy(space.server.port) as proxy,
        connect(f"etcd://127.0.0.1:{proxy.port}/{space.prefix}?timeout=0.5") as store,
    ):
        c = Counter("mydomain", "counter1", store=store)
        proxy.lose(1, is_write, NOSPACE)
        proxy.lose(1000)
        with pytest.raises(OutcomeUnknownError) as caught:
            c.add(1)
        proxy.mend()
        assert caught.value.retry() == 1
        assert c.refresh() == 1


class Imposter(BaseHTTPRequestHandler):
    """Answers what its server is told to, whatever it is asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "body", "kind", "fault"),
    [
        (404, b"not here", StoreError, "no etcd 3.4"),
        (501, b"<html>", Ambiguous, "HTTP 501 <html>"),
        (200, b"<html>", Ambiguous, "an answer that is none"),
        (200, b"[]", Ambiguous, "an answer that is none"),
        (200, b"{}", Ambiguous, "an answer that is none"),
        (200, b'{"header": {"revision": "x"}}', Ambiguous, "an answer that is none"),
        (200, b'{"header": {"revision": "7"}}', Ambiguous, "another request"),
        (
            200,
            b'{"header": {"revision": "7"}, "responses": [{"response_range": {"kvs": [{}]}}, {}]}',
            Ambiguous,
            "an answer that is none",
        ),
        (503, b'{"error": "etcdserver: request timed out", "code": 14}', Ambiguous, "timed"),
        (500, b'{"error": "etcdserver: what", "code": 2}', Ambiguous, "what"),
        (
            429,
            b'{"error": "etcdserver: too many requests", "code": 8}',
            StoreUnavailableError,
            "over",
        ),
        (429, b'{"error": "something else", "code": 8}', Ambiguous, "something else"),
        (400, b'{"error": "etcdserver: request is too large", "code": 3}', StoreFullError, "max"),
        (
            400,
            b'{"message": "etcdserver: what", "code": 3}',
            StoreError,
            "refuses .etcdserver: what",
        ),
        (
            401,
            b'{"error": "etcdserver: invalid auth token", "code": 16}',
            StoreError,
            "name a user",
        ),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, kind: type[Exception], fault: str) -> None:
    """What is known to be a refusal is one; everything else leaves the outcome open."""
    with HTTPServer(("127.0.0.1", 0), Imposter) as server:
        server.status, server.body = status, body
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with (
                connect(f"etcd://127.0.0.1:{server.server_port}") as store,
                pytest.raises(kind, match=fault),
            ):
                store.replace(ADDRESS, None, RECORD, timeout=1)
        finally:
            server.shutdown()
            thread.join()
