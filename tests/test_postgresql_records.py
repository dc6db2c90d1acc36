"""What is special about PostgreSQL: the rows, the locks, the settings, and who may come in."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import psycopg_pool
import pytest

from test_postgresql import schema, started
from truecount import (
    BoundsError,
    Counter,
    CounterError,
    CounterNotFoundError,
    DamagedRecordError,
    Domain,
    OutcomeUnknownError,
    OutOfSyncError,
    Store,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
    StoreWarning,
    connect,
)
from truecount.change import BEYOND, DECIDED, Add, Additions, Answer, Batch
from truecount.record import WRITERS, Address, Stamp
from truecount.settle import settle
from truecount.steps import Settle
from truecount.stores.base import Ambiguous
from truecount.testing.proxy import Proxy
from truecount.testing.servers import PostgreSQL

ADDRESS = Address("mydomain", "counter1")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with started() as server:
        yield server


@pytest.fixture
def url(server: PostgreSQL, tmp_path: Path) -> str:
    return f"{server.store}?schema={schema(tmp_path)}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with connect(url) as store:
        yield store


@pytest.fixture
def sql(server: PostgreSQL, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection of an operator's, to whom the test's schema comes first."""
    with psycopg.connect(server.store, autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema(tmp_path)}, public")
        yield connection


def counter(store: Store, value: int = 0, **options: Any) -> Counter:
    return Counter(*ADDRESS, value, store=store, **options)


# Records


def test_a_row_is_as_documented(store: Store, sql: psycopg.Connection[Any]) -> None:
    """What the latest write left is in columns; earlier writers' receipts are lines."""
    c = counter(store, 5, minimum=0)
    c.add(2)
    with connect(f"{store.url}&application_name=other") as other:
        counter(other).add(10**60)
    row = sql.execute(
        "SELECT domain, name, value, deleted, horizon, before, after, codes, minimum, maximum, "
        "others, writer, number, revision, time FROM counters"
    ).fetchone()
    assert row is not None
    assert row[:2] == ADDRESS
    assert row[2:4] == (10**60 + 7, False)
    assert row[5:10] == (7, 10**60 + 7, "+", 0, None)
    created, added = row[10].splitlines()[-1], row[10].splitlines()[0]
    assert created == added  # one line: a writer's latest
    assert created.split()[2:] == [str(row[13] - 1), created.split()[3], "5", "7", "+", "0", "-"]
    record = store.read(ADDRESS, timeout=5)
    assert record is not None
    assert record.stamp == Stamp(row[13], row[11], row[12])
    assert sql.execute("SELECT version FROM format").fetchall() == [(1,)]


@pytest.mark.parametrize("earlier", [None, "first", "second"])
def test_adds_as_the_oracle_does_with_many_writers(
    store: Store, sql: psycopg.Connection[Any], tmp_path: Path, earlier: str | None
) -> None:
    """With more writers than a record keeps, record and answer are still those of `settle`.

    So they are in a schema that has an earlier form of the function.
    """
    counter(store)
    if earlier:
        data = Path(__file__).with_name("data")
        text = data.joinpath(f"postgresql_add_1_{earlier}.sql").read_text()
        sql.execute("DROP FUNCTION add_1")
        sql.execute(text.replace('"earlier"', schema(tmp_path)))
    for turn in range(300):
        writer = f"w{(turn // 2 * 7) % 90}"
        record = store.read(ADDRESS, timeout=5)
        assert record is not None
        since = record.stamp.revision
        batch = Batch(writer, turn, since, (Add(turn), Add(-3)) if turn % 3 else (Add(turn),))
        if turn % 4 < 2:
            answer = store.settle(ADDRESS, batch, timeout=5)
        elif turn % 3:
            (answer,) = store.together([Settle(ADDRESS, batch)], timeout=5)
        else:  # as `Domain.add` asks
            additions = Additions([ADDRESS], [writer], [turn], [since], [Add(turn)])
            ((outcome, view),) = store.add_each(additions, timeout=5)
            answer = Answer(writer, turn, since, DECIDED, (outcome,), view, True)
        after = store.read(ADDRESS, timeout=5)
        assert after is not None
        new, expected = settle(record, batch, after.time, store.writers)
        assert (answer, after) == (expected, new)
        again = store.settle(ADDRESS, batch, timeout=5)
        assert again.verdict == BEYOND
        late = Batch("late", 1, record.horizon - 1, (Add(1),))
        assert (store.settle(ADDRESS, late, timeout=5).verdict == BEYOND) is (record.horizon > 0)
        assert store.read(ADDRESS, timeout=5) == after
    assert len(after.ledger) == store.writers


DAMAGE = {
    "value": "value = 17",
    "fraction": "value = value + 0.5, after = after + 0.5",
    "not a number": "value = 'NaN', after = 'NaN'",
    "infinite": "value = 'Infinity', after = 'Infinity'",
    "longer than any": "value = 1e5000, after = 1e5000",
    "horizon": "horizon = -1",
    "writer": "writer = ''",
    "writer of two words": "writer = 'a b'",
    "number": "number = -4",
    "revision": "revision = -4",
    "time": "time = -1",
    "late time": "time = 253402300800000000",
    "before": "before = 0.25",
    "after": "after = 1",
    "codes": "codes = '?!'",
    "minimum": "minimum = 0.5",
    "maximum": "maximum = 'NaN'",
    "others": "others = 'nonsense'",
    "others' numbers": "others = E'amy 1 x 3 4 5 + - -\\n'",
    "others' end": "others = 'amy 1 2 3 4 5 + - -'",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_left_alone(
    store: Store, sql: psycopg.Connection[Any], what: str
) -> None:
    """What truecount did not write is refused, and stays as it is."""
    c = counter(store, 5)
    sql.execute(f"UPDATE counters SET {DAMAGE[what]}")
    before = sql.execute("SELECT * FROM counters").fetchall()
    with pytest.raises(DamagedRecordError, match=r"'counter1' in domain 'mydomain' is damaged"):
        c.refresh()
    with pytest.raises(DamagedRecordError, match="counter1"):
        c.add(1, key="once")
    if "value" in DAMAGE[what] or "imum" in DAMAGE[what]:
        with pytest.raises(DamagedRecordError, match="counter1"):
            c.add(1)
    assert repr(sql.execute("SELECT * FROM counters").fetchall()) == repr(before)


def test_a_line_that_cannot_be_read_stops_an_addition(
    store: Store, sql: psycopg.Connection[Any]
) -> None:
    """Where the server itself meets a damaged line, the error names the counter."""
    c = counter(store)
    sql.execute("UPDATE counters SET others = repeat(E'x y z\\n', 63)")
    with connect(f"{store.url}&application_name=other") as other:
        batch = Batch("new", 1, 2**62, (Add(1),))
        with pytest.raises(DamagedRecordError, match="counter1"):
            other.settle(ADDRESS, batch, timeout=5)
    sql.execute("UPDATE counters SET others = 'new '")  # cut off behind the name
    with pytest.raises(DamagedRecordError, match="counter1"):
        store.settle(ADDRESS, batch, timeout=5)
    sql.execute("UPDATE counters SET others = ''")
    assert c.add(1) == 1


def test_a_damaged_receipt_of_a_key(store: Store, sql: psycopg.Connection[Any]) -> None:
    """A key's line that truecount did not write is refused."""
    c = counter(store)
    c.add(1, key="once")
    sql.execute("UPDATE keys SET line = 'nonsense'")
    with pytest.raises(DamagedRecordError, match="counter1"):
        c.add(1, key="once")
    with pytest.raises(DamagedRecordError, match="counter1"):
        c.receipt("once")
    assert c.refresh() == 1


def test_a_newer_format_is_refused(url: str, sql: psycopg.Connection[Any]) -> None:
    """A schema of a newer truecount says that this one has to be upgraded."""
    with connect(url) as store:
        counter(store)
    sql.execute("UPDATE format SET version = 2")
    with connect(url) as store, pytest.raises(StoreError, match=r"newer truecount \(format 2"):
        counter(store)


@pytest.mark.parametrize("made", ["keys (counter int)", "format (version int)"])
def test_another_programs_schema_is_refused(
    url: str, sql: psycopg.Connection[Any], tmp_path: Path, made: str
) -> None:
    """Tables that are not truecount's are left alone, and the error says to take another name."""
    sql.execute(f"CREATE SCHEMA {schema(tmp_path)}")
    sql.execute(f"CREATE TABLE {made}")
    with connect(url) as store, pytest.raises(StoreError, match=r"another program.*\?schema="):
        counter(store)


def test_a_schema_that_vanishes(store: Store, sql: psycopg.Connection[Any]) -> None:
    """Tables that are gone while they are in use are not made anew behind the operator's back."""
    c = counter(store)
    sql.execute("ALTER TABLE counters RENAME TO elsewhere")
    for call in (c.refresh, lambda: c.add(1), lambda: c.set(1)):
        with pytest.raises(StoreError, match="restore the schema"):
            call()
    sql.execute("ALTER TABLE elsewhere RENAME TO counters")
    assert c.add(1) == 1


def test_many_create_the_schema_at_once(url: str) -> None:
    """Of 8 stores that find nothing, one creates the schema, and all go on."""
    seen: list[int] = []

    def use(number: int) -> None:
        with connect(f"{url}&application_name=a{number}") as store:
            seen.append(counter(store).add(1).after)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 9))


def test_expired_keys_are_swept(url: str, sql: psycopg.Connection[Any]) -> None:
    """A write with a key removes some that have expired; purge removes a tombstone with its own."""
    with connect(f"{url}&key_ttl=0.1") as store:
        c = counter(store)
        for number in range(5):
            c.add(1, key=f"k{number}")
        time.sleep(0.15)
        c.add(1, key="last")
        assert sql.execute("SELECT key FROM keys").fetchall() == [("last",)]
        c.delete()
        before = time.time_ns() // 1000 + 1
        assert store.purge(0) == 0
        time.sleep(0.15)
        assert store.purge(before) == 1
        assert store.read(ADDRESS, timeout=5) is None
        assert sql.execute("SELECT count(*) FROM keys").fetchall() == [(0,)]


def test_purge_keeps_what_has_keys(store: Store) -> None:
    """A tombstone whose keys are remembered stays."""
    c = counter(store)
    c.add(1, key="once")
    c.delete()
    assert store.purge(2**62) == 0
    assert counter(store).add(1, key="once").replayed


# Locks, and what waits for them


@pytest.mark.parametrize("lines", [0, 64])
def test_a_late_duplicate_waits_for_the_lock(
    url: str, sql: psycopg.Connection[Any], lines: int
) -> None:
    """Copies of one request that wait for the row add once, also where a line must go for it."""
    with connect(url) as store:
        counter(store)
        for number in range(lines):
            since = store.read(ADDRESS, timeout=5).stamp.revision  # type: ignore[union-attr]  # it is there
            store.settle(ADDRESS, Batch(f"w{number}", 1, since, (Add(0),)), timeout=5)
        before = store.read(ADDRESS, timeout=5)
        assert before is not None
        batch = Batch("copied", 1, before.stamp.revision, (Add(7),))
        answers: list[str] = []

        def send() -> None:
            answers.append(store.settle(ADDRESS, batch, timeout=10).verdict)

        threads = [threading.Thread(target=send) for _ in range(6)]
        with sql.transaction():
            sql.execute("SELECT FROM counters FOR UPDATE")
            for thread in threads:
                thread.start()
            with psycopg.connect(sql.info.dsn, autocommit=True) as other:
                wait_for(other, "wait_event_type = 'Lock'", 6)
        for thread in threads:
            thread.join()
        assert sorted(answers) == [BEYOND] * 5 + [DECIDED]
        after = store.read(ADDRESS, timeout=5)
        assert after is not None
        assert (after.value, after.stamp.revision) == (7, before.stamp.revision + 1)
        assert len(after.ledger) == min(lines + 2, 64)


def wait_for(sql: psycopg.Connection[Any], condition: str, count: int) -> None:
    """Wait until so many sessions of truecount's are so."""
    deadline = time.monotonic() + 30
    query = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%add_1%' AND {condition}"
    while sql.execute(query).fetchone() != (count,):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["x{y}z", "{}", "a 'b' \"c\"", "d\\e"])
def test_a_schema_of_any_name(server: PostgreSQL, name: str) -> None:
    """Whatever PostgreSQL takes for a schema's name, truecount does."""
    with connect(f"{server.store}?schema={quote(name)}") as store:
        c = counter(store)
        assert (c.add(1), c.add(2, key="once")) == (1, 3)
        assert Domain(ADDRESS.domain, store=store).add({ADDRESS.name: 4}) == {ADDRESS.name: 7}


def test_a_refusal_waits_for_nobody(store: Store, sql: psycopg.Connection[Any]) -> None:
    """What would not be applied anyway is told at once, whoever has the row locked."""
    c = counter(store, 5, maximum=5)
    stale = counter(store)
    c.subtract(1)
    with sql.transaction():
        sql.execute("SELECT FROM counters FOR UPDATE")
        with pytest.raises(BoundsError):
            c.add(2, timeout=5)
        with pytest.raises(OutOfSyncError):
            stale -= 1
        assert not c.compare_and_set(1, 2, timeout=5)


def test_a_locked_row_is_a_definite_refusal(store: Store, sql: psycopg.Connection[Any]) -> None:
    """Who waits for a lock in vain is told in time that nothing was applied; none stays behind."""
    c = counter(store)
    with sql.transaction():
        sql.execute("SELECT FROM counters FOR UPDATE")
        began = time.monotonic()
        for call in (lambda: c.add(1, timeout=0.5), lambda: c.set(9, timeout=0.5)):
            with pytest.raises(StoreTimeoutError, match="locked"):
                call()
        assert time.monotonic() - began < 1.5
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert sql.execute(query).fetchone() == (0,)
    assert c.add(1) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_stricter_isolation(server: PostgreSQL, url: str, level: str) -> None:
    """Where the server isolates more than it need, transactions fail more, and all is exact."""
    server.configure(default_transaction_isolation=level)
    try:
        numbers: list[int] = []

        def add(number: int) -> None:
            with connect(f"{url}&timeout=60&application_name=a{number}") as store:
                c = counter(store)
                numbers.extend([c.add(1).after for _ in range(30)])
                numbers.extend([c.add(1, key=f"{number}-{i}").after for i in range(5)])

        threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(1, 211))
    finally:
        server.configure(default_transaction_isolation="read committed")


# What the server's errors mean

FAILS = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('{name}.tries') <= {times} THEN
        RAISE 'made up' USING ERRCODE = '{state}';
    END IF;
    RETURN NEW;
END $$;
CREATE SEQUENCE tries;
CREATE {kind} TRIGGER fail {when} UPDATE ON counters {deferred} FOR EACH ROW
    EXECUTE FUNCTION fail();
"""


def make_fail(
    sql: psycopg.Connection[Any], state: str, times: int = 1, *, at_commit: bool = False
) -> None:
    """Have the next writes fail, at once or when they are committed."""
    parts = ("CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED") if at_commit else ("",) * 3
    kind, when, deferred = parts
    (name,) = sql.execute("SELECT current_schema").fetchone() or ("",)
    text = FAILS.format(
        name=name, state=state, times=times, kind=kind, when=when or "BEFORE", deferred=deferred
    )
    sql.execute(text)


@pytest.mark.parametrize("at_commit", [False, True])
@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "08006", "57014", "58030", "XX000"])
def test_errors_that_pass(
    store: Store, sql: psycopg.Connection[Any], state: str, *, at_commit: bool
) -> None:
    """After what may be over next time, or leaves open what happened, the change is made once."""
    c = counter(store)
    make_fail(sql, state, 2, at_commit=at_commit)
    assert c.add(7) == 7
    assert c.add(1, key="once") == 8
    assert c.refresh() == 8


@pytest.mark.parametrize("at_commit", [False, True])
@pytest.mark.parametrize(
    ("state", "kind"), [("53100", StoreFullError), ("53200", StoreFullError), ("P0001", StoreError)]
)
def test_errors_that_last(
    store: Store,
    sql: psycopg.Connection[Any],
    state: str,
    kind: type[Exception],
    *,
    at_commit: bool,
) -> None:
    """Other refusals are told at once, an error of the commit too, and nothing was applied."""
    c = counter(store)
    make_fail(sql, state, 3, at_commit=at_commit)
    for call in (lambda: c.add(7), lambda: c.set(7), lambda: c.add(1, key="once")):
        with pytest.raises(kind, match="made up"):
            call()
    assert c.refresh() == 0
    assert c.add(1, key="once") == 1


def test_statement_timeout(server: PostgreSQL, store: Store, sql: psycopg.Connection[Any]) -> None:
    """A limit that the administrator set ends statements; the change is made once."""
    c = counter(store)
    server.configure(statement_timeout="50ms")
    try:
        with sql.transaction():
            sql.execute("SELECT FROM counters FOR UPDATE")
            with pytest.raises((StoreTimeoutError, OutcomeUnknownError)) as caught:
                c.add(7, timeout=0.5)
    finally:
        server.configure(statement_timeout="0")
    if isinstance(caught.value, OutcomeUnknownError):
        assert caught.value.cancel()
    assert c.add(1) == 1


def test_sessions_that_end_while_idle(
    server: PostgreSQL, store: Store, sql: psycopg.Connection[Any]
) -> None:
    """A connection that the server closed meanwhile is noticed before anything is sent on it."""
    c = counter(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truecount.combine.Ticket", None)  # the first attempt has to do
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%add_1%'"
        for number in range(1, 4):
            assert c.add(1) == number
            assert sql.execute(f"{end} AND pid <> pg_backend_pid()").fetchall() == [(True,)]
            time.sleep(0.1)
    server.configure(idle_session_timeout="50ms")
    try:
        assert c.add(1) == 4
        time.sleep(0.2)
        assert c.add(1) == 5
    finally:
        server.configure(idle_session_timeout="0")


def test_sessions_that_end_while_they_wait(store: Store, sql: psycopg.Connection[Any]) -> None:
    """A session that is ended in the middle of a statement leaves nothing half done."""
    c = counter(store)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(c.add(7).after))
    with sql.transaction():
        sql.execute("SELECT FROM counters FOR UPDATE")
        thread.start()
        with psycopg.connect(sql.info.dsn, autocommit=True) as other:
            wait_for(other, "wait_event_type = 'Lock'", 1)
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock'"
            )
    thread.join()
    assert done == [7]
    assert c.refresh() == 7


def test_a_frozen_server(server: PostgreSQL, url: str) -> None:
    """While the server does nothing, calls end in time, and say what they know."""
    with connect(f"{url}&read_timeout=0.2") as store, connect(url) as fresh:
        c = counter(store)
        c.add(1)
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(OutcomeUnknownError) as caught:
                c.add(7, timeout=0.7)
            with pytest.raises(StoreTimeoutError):
                counter(fresh, timeout=0.4)
            with pytest.raises(StoreTimeoutError):
                c.refresh(timeout=0.4)
            assert time.monotonic() - began < 2.5
        finally:
            server.thaw()
        assert caught.value.retry() == 8
        assert c.refresh() == 8


IN_A_ROW = 20
"""Additions after which a process expects the next one to be its own again."""


def in_a_row(c: Counter) -> Counter:
    """``c``, to which this process alone has added for a while."""
    for _ in range(IN_A_ROW):
        c.add(1)
    return c


def test_one_request_in_a_row(server: PostgreSQL, url: str) -> None:
    """Each addition is one request, and one more where another came first; none is lost."""
    with Proxy.before(url) as proxy, connect(proxy.behind(url)) as store, connect(url) as other:
        c, theirs = counter(store), counter(other)
        value = int(in_a_row(c))
        for expected in (3, 2):  # the second time nothing in a row is expected any more
            asked = proxy.requests
            assert c.add(5).after == value + 5
            assert theirs.add(2).before == value + 5
            assert c.add(-1).before == value + 7
            assert proxy.requests == asked + expected
            value += 6
        assert in_a_row(c) == theirs.refresh() == value + IN_A_ROW
        asked = proxy.requests
        c.add(1)
        assert proxy.requests == asked + 1


def test_a_refusal_in_a_row(store: Store, sql: psycopg.Connection[Any]) -> None:
    """Bounds, a deletion, damage and a lock stop an addition, however many went before it."""
    c = in_a_row(counter(store, maximum=IN_A_ROW + 1))
    with pytest.raises(BoundsError):
        c.add(2)
    assert c.add(1) == IN_A_ROW + 1
    c.limit(maximum=None)
    in_a_row(c)
    with sql.transaction():
        sql.execute("SELECT FROM counters FOR UPDATE")
        with pytest.raises(StoreTimeoutError, match="locked"):
            c.add(1, timeout=0.5)
    assert in_a_row(c) == 3 * IN_A_ROW + 1
    sql.execute("UPDATE counters SET value = value + 1")
    with pytest.raises(DamagedRecordError, match="value"):
        c.add(1)
    sql.execute("UPDATE counters SET value = value - 1")
    in_a_row(c)
    counter(store).delete()
    with pytest.raises(CounterNotFoundError):
        c.add(1)


def test_another_writer_at_the_expected_revision(
    store: Store, sql: psycopg.Connection[Any]
) -> None:
    """Where a backup was restored, and others went on from it, the receipts of those are kept."""
    c = in_a_row(counter(store))
    sql.execute("UPDATE counters SET writer = 'somebody'")  # whose revision is the same
    assert c.add(1).before == IN_A_ROW
    record = store.read(ADDRESS, timeout=5)
    assert record is not None
    assert record.ledger.number("somebody") > 0


def test_a_prepared_statement_that_is_gone(store: Store, sql: psycopg.Connection[Any]) -> None:
    """Where a pooler passes for the server, its sessions lack what was prepared: so be it."""
    c = counter(store)
    (links,) = store._sources.values()  # type: ignore[attr-defined]  # nobody else can undo it
    for link in links._idle:
        assert link._names
        link.pgconn.exec_(b"DEALLOCATE ALL")
    assert c.add(1) == 1
    assert c.refresh() == 1
    assert not any(link._names for link in links._idle)


EVIL = {
    "strpos(text, text)": "int",
    "substr(text, int)": "text",
    "left(text, int)": "text",
    "length(text)": "int",
    "replace(text, text, text)": "text",
    "split_part(text, text, int)": "text",
    "scale(numeric)": "int",
    "set_config(text, text, boolean)": "text",
    "concat_ws(text, text, bigint, bigint, bigint, numeric, text, text)": "text",
    "concat_ws(text, text, bigint, bigint, bigint, numeric, numeric, text, text, text)": "text",
}
"""What somebody might put in the way of PostgreSQL's own, fitting better, and what it returns."""


@pytest.mark.parametrize("path", ["evil,pg_catalog", "evil", "pg_catalog,evil"])
def test_a_strange_search_path(url: str, sql: psycopg.Connection[Any], path: str) -> None:
    """Functions that somebody put before PostgreSQL's own, or beside them, are not called."""
    sql.execute("CREATE SCHEMA IF NOT EXISTS evil")
    for function, returned in EVIL.items():
        sql.execute(
            f"CREATE OR REPLACE FUNCTION evil.{function} RETURNS {returned} LANGUAGE sql "
            f"AS 'SELECT (1/0)::{returned}'"
        )
    options = f"options=-c%20search_path%3D{path}"
    with connect(f"{url}&{options}") as store, connect(url) as other:
        c = counter(store)
        counter(other).add(1)
        assert c.add(1) == 2
        c += 1
        assert c.add(1, key="once") == 4
        for number in range(WRITERS + 2):
            record = store.read(ADDRESS, timeout=5)
            assert record is not None
            batch = Batch(f"w{number}", 1, record.stamp.revision, (Add(1),))
            assert store.settle(ADDRESS, batch, timeout=5).verdict == DECIDED
        assert c.add(1) == 4 + WRITERS + 3


# Settings


def test_settings_that_lose_are_warned_of(server: PostgreSQL, url: str) -> None:
    """A server that acknowledges what it may lose is told of, once, by the setting's name."""
    server.configure(synchronous_commit="off")
    try:
        with connect(url) as store:
            with pytest.warns(StoreWarning, match="synchronous_commit is off") as caught:
                counter(store).add(1)
            assert len(caught) == 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                counter(store).add(1)
    finally:
        server.configure(synchronous_commit="on")


def test_a_standby_is_refused(server: PostgreSQL, url: str, tmp_path: Path) -> None:
    """A hot standby lags: neither its reads nor its refusals pass for the primary's."""

    class Standby(PostgreSQL):
        def prepare(self) -> None:
            super().prepare()
            subprocess.run(["rm", "-rf", self.data], check=True)
            subprocess.run(
                [
                    *(
                        str(self.programs / "pg_basebackup"),
                        "-N",
                        "-R",
                        "-X",
                        "stream",
                        "-c",
                        "fast",
                    ),
                    *("-D", str(self.data), "-h", "127.0.0.1", "-p", str(server.port)),
                    *("-U", "postgres"),
                ],
                check=True,
                capture_output=True,
                **self.options(),
            )

    with connect(url) as store:
        counter(store).add(1)
    with Standby() as standby:
        there = url.replace(str(server.port), str(standby.port))
        with connect(there) as store, pytest.raises(StoreUnavailableError, match="hot standby"):
            store.read(ADDRESS, timeout=1)
        both = f"127.0.0.1:{standby.port},127.0.0.1:{server.port}"
        with connect(url.replace(f"127.0.0.1:{server.port}", both)) as store:
            assert counter(store).add(1) == 2


# Who may come in


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgreSQL]:
    with started(password="tr0ub4dor") as server:  # noqa: S106  # of this server alone
        yield server


def test_a_password(guarded: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    """With the right password all is well; a wrong one is named as such, and neither is shown."""
    place = f"127.0.0.1:{guarded.port}/postgres"
    right = [f"postgresql://postgres:tr0ub4dor@{place}", f"postgresql://{place}?user=postgres"]
    with connect(f"{right[1]}&password=tr0ub4dor") as store, connect(right[0]) as other:
        assert counter(store).add(1).before + 1 == counter(other)
        assert "tr0ub4dor" not in f"{store} {other} {counter(store)!r}"
    for wrong in (f"postgresql://postgres:hunter2@{place}", f"{right[1]}&password=hunter2"):
        began = time.monotonic()
        with connect(wrong) as store, pytest.raises(StoreError, match="look at the user") as caught:
            counter(store)
        assert time.monotonic() - began < 2
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {store}"
    with connect(right[1]) as store, pytest.raises(StoreError, match="give a password"):
        counter(store)
    assert "hunter2" not in caplog.text
    for arguments in (["add", "mydomain", "counter1", "1"], ["get", "mydomain", "counter1"]):
        ended = subprocess.run(
            [sys.executable, "-m", "truecount", *arguments],
            env={**os.environ, "TRUECOUNT_STORE": f"postgresql://postgres:hunter2@{place}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode
        assert "look at the user" in ended.stderr
        assert "hunter2" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("postgresql://postgres@127.0.0.1:{port}/nowhere", StoreError, "create the database"),
        ("postgresql://nobody@127.0.0.1:{port}/postgres", StoreError, "look at the user"),
        ("postgresql://postgres@127.0.0.1:1/postgres", StoreUnavailableError, "refused"),
        ("postgresql://postgres@nowhere.invalid/postgres", StoreUnavailableError, "nowhere"),
        (
            "postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=require",
            StoreError,
            "look at sslmode",
        ),
        ("postgresql://127.0.0.1:{port}/postgres?service=none", StoreError, "look at service"),
    ],
)
def test_what_keeps_it_from_the_server_is_named(
    server: PostgreSQL, url: str, kind: type[Exception], words: str
) -> None:
    """No such database, user, server, host or encryption: the error says which."""
    there = url.format(port=server.port)
    with connect(there, timeout=0.3) as store, pytest.raises(kind, match=words):
        counter(store)


def test_tls(tmp_path: Path) -> None:
    """With a certificate of its own the server is believed when that is given, and not else."""

    class Encrypted(PostgreSQL):
        def prepare(self) -> None:
            super().prepare()
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                    *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                    *("-keyout", self.data / "server.key", "-out", self.data / "server.crt"),
                ],
                check=True,
                capture_output=True,
                **self.options(),
            )

    with Encrypted(ssl="on") as server:
        place = f"postgresql://postgres@localhost:{server.port}/postgres?sslmode=verify-full"
        with connect(f"{place}&sslrootcert={server.data}/server.crt") as store:
            assert counter(store).add(1) == 1
        other = f"{place}&sslrootcert={tmp_path}/other.crt"
        with connect(other) as store, pytest.raises(StoreError, match="look at sslmode"):
            counter(store)


def test_a_user_without_rights(url: str, sql: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Who may not create the schema is told what to have run, and then what to have granted."""
    name = schema(tmp_path)
    sql.execute(f"CREATE ROLE u_{name} LOGIN")
    sql.execute(f"CREATE ROLE o_{name} LOGIN")
    theirs = url.replace("//postgres@", f"//u_{name}@")
    with connect(theirs) as store, pytest.raises(StoreError, match=r"python -m \S+ ") as caught:
        counter(store)
    assert f"truecount.stores.postgresql.layout {name}`" in str(caught.value)
    printed = subprocess.run(
        [sys.executable, "-m", "truecount.stores.postgresql.layout", name],
        check=True,
        capture_output=True,
        text=True,
    )
    sql.execute(printed.stdout)
    with connect(theirs) as store:
        with pytest.raises(StoreError, match="grant USAGE"):
            counter(store)
        sql.execute(f"GRANT USAGE ON SCHEMA {name} TO u_{name}")
        sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO u_{name}")
        with pytest.raises(StoreError, match="INSERT, UPDATE and DELETE"):
            counter(store)
        sql.execute(f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO u_{name}")
        c = counter(store)
        c += 1
        assert c.add(1, key="once") == 2
        assert dict(Domain(ADDRESS.domain, store=store).snapshot()) == {ADDRESS.name: 2}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://h/db?sslmod=require", "no option 'sslmod'.*sslmode.*timeout"),
        ("postgresql://h/db?client_encoding=latin1", "no option 'client_encoding'"),
        ("postgresql://h/db?schema=pg_mine", "does not begin with pg_"),
        (f"postgresql://h/db?schema={'x' * 64}", "at most 63 bytes"),
        ("postgresql://h/db?fence=never", "fence=never"),
        ("postgresql://h/db?read_timeout=0", "read_timeout=0"),
        ("postgresql://u:s3cret@[::1/db", "not the URL of a database"),
        ("postgresql://u:s3cret%zz@h/db", "not the URL of a database"),
        ("postgresql://u@[::1/db", "IPv6"),
    ],
)
def test_urls_that_make_no_sense(url: str, words: str) -> None:
    """What is wrong with a URL is said before anything is reached for, without the password."""
    with pytest.raises(StoreURLError, match=words) as caught:
        connect(url)
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"


def test_options_go_to_libpq(server: PostgreSQL, url: str, sql: psycopg.Connection[Any]) -> None:
    """What libpq's users write in a URL means the same here, a socket's folder too."""
    there = url.replace(f"127.0.0.1:{server.port}", "")
    options = f"&host={server.folder}&port={server.port}&application_name=a%20b+c"
    with connect(f"{there}{options}&connect_timeout=3") as store:
        assert counter(store).add(1) == 1
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a b+c'"
        assert sql.execute(query).fetchone() == (1,)


# Clients of the driver's user


def test_a_refusal_leaves_ones_own_connection_open(server: PostgreSQL) -> None:
    """A connection that is read-only says so, stays open, and counts when it is not any more."""
    with psycopg.connect(server.store, autocommit=True) as connection:
        c = Counter("mydomain", "refused", store=connect(connection))
        connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailableError, match="read-only"):
            c.add(1, timeout=0.3)
        assert not connection.closed
        connection.execute("SET default_transaction_read_only = off")
        assert c.add(1) == 1


def test_a_connection_of_ones_own(server: PostgreSQL) -> None:
    """A connection in autocommit mode counts, for several threads too, and stays open."""
    with psycopg.connect(server.store, autocommit=True) as connection:
        store = connect(connection)
        assert "Connection" in repr(store)
        c = Counter("mydomain", "connection", store=store)
        threads = [threading.Thread(target=lambda: c.add(1)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert c.refresh() == 8
        in_between = pytest.raises(StoreError, match="middle of a transaction")
        with connection.transaction(), in_between:
            c.add(1)
        connection.autocommit = False
        with pytest.raises(StoreError, match="autocommit=True"):
            c.add(1)
        connection.autocommit = True
        assert c.add(1) == 9
        store.close()
        with pytest.raises(StoreClosedError):
            c.add(1)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(StoreError, match="closed"):
        Counter("mydomain", "connection", store=connect(connection))


def test_a_pool_of_ones_own(server: PostgreSQL) -> None:
    """A pool as psycopg_pool makes it counts; a connection that ended in doubt is not reused."""
    pool = psycopg_pool.ConnectionPool(server.store, min_size=1, max_size=3, open=True)
    with pool, psycopg.connect(server.store) as other:
        store = connect(pool)
        c = Counter("mydomain", "pool", store=store)
        threads = [threading.Thread(target=lambda: c.add(1)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert c.refresh() == 8
        batch = Batch("amy", 1, c.revision, (Add(1),))
        other.execute("LOCK TABLE truecount.counters")
        with pytest.raises((Ambiguous, StoreTimeoutError)):
            store.read(Address("mydomain", "pool"), timeout=0.2)
        other.rollback()
        assert store.settle(Address("mydomain", "pool"), batch, timeout=5).verdict == DECIDED
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        store.close()
    with pytest.raises(StoreError, match="pool"):
        Counter("mydomain", "pool", store=connect(pool))


def test_a_client_stays_in_its_process(server: PostgreSQL) -> None:
    """A forked child does not speak on its parent's connection; by URL it has its own."""
    with psycopg.connect(server.store, autocommit=True) as connection:
        store, own = connect(connection), connect(server.store)
        c = Counter("mydomain", "forked", store=store)
        d = Counter("mydomain", "forked", store=own)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                d.add(1)
                c.add(1)
            except CounterError as error:
                status = 0 if "another process" in str(error) else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (c.refresh(), d.add(1)) == (1, 2)
        own.close()
