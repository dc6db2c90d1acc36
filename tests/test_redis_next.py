"""Redis: what is sent while nobody else writes, and that it does what `ADD` would do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_server import is_write, replicating, serving
from truecount import (
    BoundsError,
    Counter,
    CounterError,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    OutcomeUnknownError,
    Store,
    StoreFullError,
    connect,
)
from truecount.change import BEYOND, Add, Batch, CompareAndSet
from truecount.record import Address
from truecount.settle import settle
from truecount.stores.redis import client
from truecount.stores.redis.latest import ENOUGH
from truecount.stores.redis.scripts import ADD, LIMIT, NEXT
from truecount.testing.proxy import SILENCE, Proxy
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
    with redis.Redis(port=server.port, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def other(server: Redis) -> Iterator[Store]:
    """Another writer."""
    with connect(server.store) as store:
        yield store


class Watched:
    """A store behind a proxy, and which scripts it has asked for."""

    def __init__(self, proxy: Proxy, store: Store) -> None:
        self.proxy = proxy
        self.store = store
        self._asked: list[bytes] = []

    @classmethod
    @contextmanager
    def before(cls, port: int, options: str = "") -> Iterator[Watched]:
        asked: list[bytes] = []
        with (
            Proxy(port, watch=asked.append) as proxy,
            connect(f"redis://127.0.0.1:{proxy.port}{options}") as store,
        ):
            watched = cls(proxy, store)
            watched._asked = asked
            yield watched

    def asked(self) -> list[str]:
        """What was asked since it was looked at last: ``add``, ``next``, or ``other``."""
        words = {ADD.digest: "add", NEXT.digest: "next"}
        found = []
        for request in self._asked:
            names = [name for word, name in words.items() if word in request]
            found.append(names[0] if names else "other")
        self._asked.clear()
        return found

    def counter(self, value: int = 0, **bounds: int | None) -> Counter:
        """A new counter, of which the next change is likely to be this process's own."""
        c = Counter(DOMAIN, f"next{next(numbers)}", value, store=self.store, **bounds)
        for _ in range(ENOUGH + 1):
            c.add(0)
        assert "next" in self.asked()
        return c


@pytest.fixture
def watched(server: Redis) -> Iterator[Watched]:
    with Watched.before(server.port, "?read_timeout=0.5") as watched:
        yield watched


def key_of(c: Counter) -> str:
    """Where the counter is."""
    return f"truecount:{{{DOMAIN}/{c.name}}}"


def test_it_is_used(watched: Watched) -> None:
    """After some changes in a row, additions and ``c += 1`` are compared and set."""
    watched.counter()  # from now on, the server knows the scripts
    c = Counter(DOMAIN, "used", store=watched.store)
    watched.asked()
    for _ in range(ENOUGH + 2):
        c.add(1)
    assert watched.asked() == ["add"] * ENOUGH + ["next"] * 2
    for _ in range(5):
        assert c.add(2).after == c.add(-1).after + 1
        c += 1
        assert c.compare_and_set(int(c), 5)
    assert watched.asked() == ["next"] * 20
    assert c.refresh() == 5


def test_what_lies_there_is_what_add_leaves(watched: Watched, bare: Any) -> None:
    """Every field is as before but the value and the line, which goes on."""
    c = watched.counter(5, minimum=-100, maximum=LIMIT - 1)
    before = bare.hgetall(key_of(c))
    receipt = c.add(3)
    assert watched.asked() == ["next"]
    after = bare.hgetall(key_of(c))
    line = "w:" + after["last"]
    changed = {name for name in after if before.get(name) != after[name]}
    assert (changed, len(after)) == ({"value", line}, len(before))
    number, *rest = after[line].split(" ")
    assert int(number) == int(before[line].split(" ")[0]) + 1
    assert rest[0] == str(receipt.revision)
    assert rest[2:] == ["5", "8", "+", "-100", str(LIMIT - 1)]


@st.composite
def batches(draw: st.DrawFn, value: int) -> tuple[Any, ...]:
    """Changes that come to a sum, some of which are refused."""
    amounts = st.integers(-20, 20) | st.sampled_from([LIMIT - 1, -LIMIT, 2**60])
    changes: list[Add | CompareAndSet] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)):
            changes.append(Add(draw(amounts)))
        else:
            near = value if draw(st.booleans()) else draw(amounts)
            changes.append(CompareAndSet(near, near + draw(amounts)))
        value = changes[-1].result(value)
    return tuple(changes)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_decides_as_the_oracle_does(watched: Watched, other: Store, data: st.DataObject) -> None:
    """Whatever comes, also from others in between: record and answer are those of `settle`."""
    low = data.draw(st.sampled_from([None, 0, -5, -LIMIT]), "minimum")
    high = data.draw(st.sampled_from([None, 30, LIMIT]), "maximum")
    c = Counter(DOMAIN, f"oracle{next(numbers)}", 0, minimum=low, maximum=high, store=watched.store)
    where = Address(DOMAIN, c.name)
    taken = count(1)
    for _ in range(data.draw(st.integers(ENOUGH, 30), "changes")):
        before = other.read(where, timeout=5)
        assert before is not None
        kind = data.draw(st.sampled_from(["add"] * 12 + ["batch", "batch", "old", "other"]), "kind")
        changes: tuple[Any, ...] = (Add(data.draw(st.integers(-3, 9), "amount")),)
        if kind == "batch":
            changes = data.draw(batches(before.value), "batch")
        store, writer = (other, "bob") if kind == "other" else (watched.store, "amy")
        number = 1 if kind == "old" else next(taken)
        batch = Batch(writer, number, before.stamp.revision, changes)
        answer = store.settle(where, batch, timeout=5)
        after = other.read(where, timeout=5)
        assert after is not None
        if answer.verdict == BEYOND:
            assert after == before
            continue
        new, expected = settle(before, batch, after.time, store.writers)
        assert repr(answer) == repr(expected)
        assert after == new


def test_another_writer_in_between(watched: Watched, other: Store) -> None:
    """It asks once in vain, and not again before it has the counter to itself for a while."""
    c = watched.counter()
    theirs = Counter(DOMAIN, c.name, store=other)
    theirs.add(10)
    assert c.add(1) == 11
    assert watched.asked() == ["next", "add"]
    for value in range(12, 30, 2):
        assert c.add(1) == value
        assert theirs.add(1) == value + 1
    assert set(watched.asked()) == {"add"}
    for _ in range(ENOUGH):
        c.add(1)
    watched.asked()
    c.add(1)
    assert watched.asked() == ["next"]
    assert theirs.refresh() == 30 + ENOUGH


def test_another_batch_of_the_same_writer_in_between(watched: Watched, other: Store) -> None:
    """What the process itself has written meanwhile, by other ways, it knows of or is told."""
    c = watched.counter()
    c.set(40)
    watched.asked()
    assert c.add(1) == 41
    assert watched.asked() == ["add"]
    c = watched.counter()
    Domain(DOMAIN, store=watched.store).add({c.name: 5})
    assert c.add(1) == 6
    assert Counter(DOMAIN, c.name, store=other) == 6


def foreign(bare: Any, c: Counter, field: str, text: str | None) -> None:
    """Another program's edit; ``w:`` stands for the newest line."""
    if field == "w:":
        field += bare.hget(key_of(c), "last")
    if text is None:
        bare.hdel(key_of(c), field)
    else:
        bare.hset(key_of(c), field, text)


@pytest.mark.parametrize("text", [None, "", "7", "1 live 0"])
@pytest.mark.parametrize("field", ["truecount", "value", "last", "w:"])
def test_a_foreign_edit(watched: Watched, bare: Any, field: str, text: str | None) -> None:
    """Whichever of the fields was edited, it is noticed as it is by `ADD`."""
    c = watched.counter(5)
    foreign(bare, c, field, text)
    there = bare.hgetall(key_of(c))
    if (field, text) == ("truecount", "1 live 0"):  # a horizon that may be
        assert c.add(1) == 6
    else:
        with pytest.raises(DamagedRecordError):
            c.add(1)
        assert bare.hgetall(key_of(c)) == there
    assert watched.asked()[:2] == ["next", "add"]


def test_a_key_that_is_gone_or_anothers(watched: Watched, bare: Any) -> None:
    """The whole record removed, or replaced by another program's key."""
    c = watched.counter()
    bare.delete(key_of(c))
    with pytest.raises(CounterNotFoundError):
        c.add(1)
    d = watched.counter()
    bare.delete(key_of(d))
    bare.set(key_of(d), "5")
    with pytest.raises(DamagedRecordError, match="another program"):
        d.add(1)
    assert bare.get(key_of(d)) == "5"


def test_deleted_by_another(watched: Watched, other: Store) -> None:
    """A counter that is deleted, and created again, does not take what was for the first."""
    c = watched.counter(5)
    Counter(DOMAIN, c.name, store=other).delete()
    with pytest.raises(CounterNotFoundError):
        c.add(1)
    Counter(DOMAIN, c.name, 100, store=other)
    assert c.add(1) == 101


def test_bounds(watched: Watched, other: Store) -> None:
    """A refusal is justified by what is true now: bounds, on the way too, and moved ones."""
    c = watched.counter(5, minimum=0, maximum=20)
    assert (c.add(15), c.add(-20)) == (20, 0)
    assert watched.asked() == ["next", "next"]
    with pytest.raises(BoundsError):
        c.add(-1)
    assert "next" not in watched.asked()
    c = watched.counter(5, maximum=20)
    Counter(DOMAIN, c.name, store=other).limit(maximum=30)
    assert c.add(20) == 25
    c = watched.counter(5)
    Counter(DOMAIN, c.name, store=other).limit(maximum=5)
    with pytest.raises(BoundsError):
        c.add(1)
    assert c.refresh() == 5


def test_a_crowd(watched: Watched) -> None:
    """Threads' changes travel in batches, in whichever request, and each counts once."""
    c = watched.counter()

    def work() -> None:
        for _ in range(200):
            c.add(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert c.refresh() == 1600
    assert watched.asked().count("next") > 10


# Trouble


@pytest.mark.parametrize("lost", [1, 3])
@pytest.mark.parametrize("instead", ["cut", "silence", "another's", "vain", "nothing", "half"])
def test_a_lost_reply(watched: Watched, other: Store, instead: str, lost: int) -> None:
    """A reply that does not come, or is another's, proves nothing; the change counts once."""
    c = watched.counter()
    told = {
        "cut": None,
        "silence": SILENCE,
        "another's": b"$10\r\nsomebody 7\r\n",
        "vain": b"$12\r\nsomebody 7 -\r\n",
        "nothing": b"$-1\r\n",
        "half": b"$10\r\nsome",
    }[instead]
    watched.proxy.lose(lost, is_write, **({} if told is None else {"instead": told}))
    assert c.add(1) == 1
    assert watched.proxy.lost == lost
    assert c.add(1) == 2
    assert Counter(DOMAIN, c.name, store=other) == 2


def test_an_unknown_outcome(watched: Watched, other: Store) -> None:
    """What is unknown is settled once: applied it was, or cancelled, whatever comes late."""
    c = watched.counter()
    watched.proxy.lose(50, instead=SILENCE)
    with pytest.raises(OutcomeUnknownError) as caught:
        c.add(1, timeout=0.6)
    watched.proxy.mend()
    assert caught.value.cancel() is False
    assert c.add(1) == 2

    c = watched.counter()
    watched.proxy.hold(1, lambda request: NEXT.digest in request)
    watched.proxy.lose(50, lambda request: NEXT.digest not in request, SILENCE)
    with pytest.raises(OutcomeUnknownError):
        c.add(1, timeout=0.6)
    watched.proxy.mend()
    c.refresh()
    there = c.add(0)
    watched.proxy.release()
    assert Counter(DOMAIN, c.name, store=other) == there


def test_late_is_never_twice(watched: Watched, other: Store) -> None:
    """A request that arrives when its change was made by another, or cancelled, does nothing."""
    for settled in ("made", "cancelled"):
        c = watched.counter()
        watched.proxy.hold(1, lambda request: NEXT.digest in request)
        if settled == "made":
            assert c.add(1, timeout=5) == 1
        else:
            with watched_refused(watched), pytest.raises(OutcomeUnknownError) as caught:
                c.add(1, timeout=0.6)
            assert caught.value.cancel() is True
        value = Counter(DOMAIN, c.name, store=other)
        assert value == (1 if settled == "made" else 0)
        watched.proxy.release()
        assert value.refresh() == int(c.refresh()) == (1 if settled == "made" else 0)


@contextmanager
def watched_refused(watched: Watched) -> Iterator[None]:
    """Nobody is reached once the held request has been sent."""

    def refuse() -> None:
        while not watched.proxy.held:
            time.sleep(0.005)
        watched.proxy.refuse()

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        watched.proxy.listen()


def test_the_script_is_sent_again(watched: Watched, bare: Any) -> None:
    """A server that has lost its scripts is sent the whole one, once."""
    c = watched.counter()
    bare.script_flush()
    assert c.add(1) == 1
    assert watched.asked() == ["next", "other"]
    assert c.add(1) == 2
    assert watched.asked() == ["next"]


def test_a_restored_backup(watched: Watched, bare: Any) -> None:
    """A failover or a backup that has lost the last changes is noticed, and counted on from."""
    c = watched.counter()
    backup = bare.hgetall(key_of(c))
    assert (c.add(1), c.add(1)) == (1, 2)
    bare.hset(key_of(c), mapping=backup)
    watched.asked()
    assert c.add(1) == 1
    assert watched.asked() == ["next", "add"]


def test_a_fork(watched: Watched, server: Redis) -> None:
    """A child is another writer, whatever its parent had in mind."""
    with connect(server.store) as store:
        c = Counter(DOMAIN, "forked", store=store)
        for _ in range(ENOUGH + 2):
            c.add(1)
        child = os.fork()
        if child == 0:
            try:
                for _ in range(20):
                    c.add(1)
                os._exit(0)
            finally:
                os._exit(1)
        for _ in range(20):
            c.add(1)
        assert os.waitpid(child, 0)[1] == 0
        assert c.refresh() == ENOUGH + 42


def test_a_fork_after_it_was_in_vain(
    watched: Watched, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that forks just then: the child sends nothing of its parent's, and is told so."""
    c = watched.counter()
    with connect(f"{server.store}?timeout=9") as other:
        Counter(DOMAIN, c.name, store=other).add(10)
    children: list[int] = []
    ask = client.Client.ask

    def forking(*arguments: Any, **options: Any) -> Any:
        answer = ask(*arguments, **options)
        if not children:
            children.append(os.fork())
        return answer

    monkeypatch.setattr(client.Client, "ask", forking)
    watched.asked()
    try:
        told = c.add(1) == 11
    except CounterError as error:
        told = "forked" in str(error) and not children[0]
    if not children[0]:
        os._exit(0 if told else 1)
    assert os.waitpid(children[0], 0)[1] == 0
    assert watched.asked() == ["next", "add"]
    assert c.refresh() == 11


def test_where_answered_requests_come_again(server: Redis) -> None:
    """With ``?fence=always`` it is not used: one in vain could be done later."""
    with Watched.before(server.port, "?fence=always") as watched:
        c = Counter(DOMAIN, "again", store=watched.store)
        for _ in range(ENOUGH + 2):
            c.add(1)
        assert "next" not in watched.asked()


def test_a_full_server() -> None:
    """No memory left: refused before anything is written, and told."""
    with (
        serving(maxmemory="64mb", maxmemory_policy="noeviction") as server,
        Watched.before(server.port) as watched,
        redis.Redis(port=server.port) as bare,
    ):
        c = watched.counter()
        bare.config_set("maxmemory", "100kb")
        with pytest.raises(StoreFullError):
            c.add(1)
        assert watched.asked() == ["next"]
        bare.config_set("maxmemory", "64mb")
        assert c.add(1) == 1


def test_replicas() -> None:
    """With ``?wait=`` it waits for them as ever."""
    with (
        serving(repl_diskless_sync_delay=0) as primary,
        replicating(primary) as (replica, there),
        Watched.before(primary.port, "?wait=1&read_timeout=0.4") as watched,
    ):
        c = watched.counter()
        c.add(1)
        assert watched.asked() == ["next"]
        assert there.hget(key_of(c), "value") == b"1"
        replica.freeze()
        try:
            with pytest.raises(OutcomeUnknownError, match=r"replicas|in time"):
                c.add(1, timeout=1)
        finally:
            replica.thaw()
        assert c.refresh() == 2


# Reading


def test_without_hiredis(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is only redis-py, it reads."""
    monkeypatch.setattr(client, "hiredis", None)
    with Watched.before(server.port, "?read_timeout=0.5") as watched:
        c = watched.counter()
        watched.proxy.lose(1, is_write)
        assert c.add(1) == 1
        watched.proxy.lose(1, is_write, b"$100\r\nhalf")
        assert c.add(1) == 2
        assert list(watched.store.domains()) == [DOMAIN]
        assert c.refresh() == 2


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # garbage, but no harm
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_struck_at_any_moment(server: Redis) -> None:
    """Whoever is interrupted leaves no answer behind for the next one."""

    class Struck(BaseException):
        pass

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with connect(server.store) as store:
            c = Counter(DOMAIN, "struck", store=store)
            d = Counter(DOMAIN, "beside", 1000, store=store)
            done = struck = 0
            until = time.monotonic() + 2
            while time.monotonic() < until:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0003 + done % 50 * 1e-5)
                    for _ in range(50):  # a strike is lost where nothing can be raised
                        receipt = c.add(1)
                        assert receipt.after == receipt.before + 1
                        done += 1
                        assert d.add(0) == 1000
                except Struck:
                    struck += 1
            assert struck > 50
            assert done <= c.refresh() <= done + struck
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
