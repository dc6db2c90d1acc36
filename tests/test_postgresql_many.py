"""Many additions on PostgreSQL, which travel in one statement."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from helpers import missing
from networked import INSTEAD
from test_postgresql import is_write, schema, started
from truecount import BoundsError, Counter, Domain, Receipt, StoreTimeoutError, connect
from truecount.testing.proxy import Proxy
from truecount.testing.servers import PgBouncer, PostgreSQL

MANY = {f"counter{number:04}": 1 for number in range(700)}
LAST = list(MANY)[-1]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with started() as server:
        yield server


@pytest.fixture(params=["by URL", "behind a pooler", "one's own connection"])
def domain(request: pytest.FixtureRequest, server: PostgreSQL, tmp_path: Path) -> Iterator[Domain]:
    """A domain of its own, in which all of the counters are at 1."""
    with contextlib.ExitStack() as stack:
        if request.param == "one's own connection":
            there = stack.enter_context(psycopg.connect(server.store, autocommit=True))
        elif request.param == "behind a pooler":
            there = stack.enter_context(pooler(server)).store
        else:
            there = server.store
        domain = Domain(schema(tmp_path), store=stack.enter_context(connect(there)))
        domain.add(MANY)
        yield domain


def pooler(server: PostgreSQL) -> PgBouncer:
    """A pooler, if this machine has one."""
    try:
        return PgBouncer(server)
    except FileNotFoundError as error:
        missing(str(error))
        raise


@contextlib.contextmanager
def locked(server: PostgreSQL, domain: Domain) -> Iterator[None]:
    """The last of the counters is locked by somebody."""
    with psycopg.connect(server.store) as sql:
        sql.execute(
            "SELECT FROM truecount.counters WHERE (domain, name) = (%s, %s) FOR UPDATE",
            (domain.name, LAST),
        )
        yield


def values(value: int, but: Mapping[str, int]) -> dict[str, int]:
    """All at ``value``, ``but`` for some."""
    return {**dict.fromkeys(MANY, value), **but}


def test_what_one_refuses_is_its_own_matter(domain: Domain) -> None:
    """A counter at its bound is the only one that is not added to."""
    assert domain.add(MANY) == values(2, {})
    Counter(domain, LAST).limit(maximum=2)
    with pytest.raises(BoundsError) as caught:
        domain.add(MANY)
    assert caught.value.failures == {LAST: caught.value}
    assert domain.snapshot() == values(3, {LAST: 2})
    assert domain.add(MANY | {LAST: -1}) == values(4, {LAST: 1})


def test_a_locked_row_among_many(server: PostgreSQL, domain: Domain) -> None:
    """The others are added to, and who waited in vain is told that nothing was applied there."""
    with locked(server, domain), pytest.raises(StoreTimeoutError, match="locked") as caught:
        domain.add(MANY, timeout=10)
    assert caught.value.failures == {LAST: caught.value}
    assert domain.snapshot() == values(2, {LAST: 1})
    assert domain.add(MANY) == values(3, {LAST: 2})


def test_the_time_is_over_for_all(server: PostgreSQL, domain: Domain) -> None:
    """Where no row can be had, the call ends in time, and all are told that nothing was applied."""
    with psycopg.connect(server.store) as sql:
        sql.execute("LOCK TABLE truecount.counters IN ROW EXCLUSIVE MODE")
        sql.execute("SELECT FROM truecount.counters WHERE domain = %s FOR UPDATE", (domain.name,))
        began = time.monotonic()
        with pytest.raises(StoreTimeoutError) as caught:
            domain.add(MANY, timeout=0.5)
        assert time.monotonic() - began < 2.5
    assert set(caught.value.failures or ()) == set(MANY)
    failures = (caught.value.failures or {}).values()
    assert all(type(error) is StoreTimeoutError and "locked" in str(error) for error in failures)
    assert domain.add(MANY) == values(2, {})


def test_no_time_for_an_answer(server: PostgreSQL, tmp_path: Path) -> None:
    """However little time is left for the last request, silence leaves nobody in doubt."""

    def wait(_: bytes) -> None:
        time.sleep(0.03)

    few = dict(list(MANY.items())[:20])
    with (
        Proxy(server.port, watch=wait) as proxy,
        connect(proxy.behind(server.store)) as store,
        psycopg.connect(server.store) as sql,
    ):
        domain = Domain(schema(tmp_path), store=store)
        domain.add(few)
        sql.execute("SELECT FROM truecount.counters WHERE domain = %s FOR UPDATE", (domain.name,))
        for timeout in (0.3, 0.31, 0.32):
            with pytest.raises(StoreTimeoutError, match="locked") as caught:
                domain.add(few, timeout=timeout)
            failures = (caught.value.failures or {}).values()
            assert [type(error) for error in failures] == [StoreTimeoutError] * len(few)


def test_a_session_that_ends(server: PostgreSQL, tmp_path: Path) -> None:
    """Where the server ends the transaction, each change is made once, later."""
    domain = Domain(schema(tmp_path), store=server.store)
    domain.add(MANY)
    done: list[dict[str, Receipt]] = []
    thread = threading.Thread(target=lambda: done.append(domain.add(MANY, timeout=30)))
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with locked(server, domain), psycopg.connect(server.store, autocommit=True) as other:
        thread.start()
        deadline = time.monotonic() + 10
        while not other.execute(end).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    thread.join()
    assert done == [values(2, {})]
    assert domain.snapshot() == values(2, {})


@pytest.mark.parametrize("how", INSTEAD)
@pytest.mark.parametrize("lost", [1, 2, 5])
def test_replies_that_are_lost(server: PostgreSQL, tmp_path: Path, how: str, lost: int) -> None:
    """However often replies are lost, each change is applied once."""
    with Proxy(server.port) as proxy:
        there = server.store.replace(f":{server.port}", f":{proxy.port}")
        with connect(f"{there}?read_timeout=0.3") as store:
            domain = Domain(schema(tmp_path), store=store)
            domain.add(MANY)
            proxy.lose(1, is_write, INSTEAD[how])
            proxy.lose(lost - 1, instead=INSTEAD[how])
            assert domain.add(MANY, timeout=60) == values(2, {})
            assert proxy.lost == lost
        assert Domain(domain.name, store=server.store).snapshot() == values(2, {})
