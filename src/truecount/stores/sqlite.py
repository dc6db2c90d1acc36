"""Counters in one SQLite file, shared by any number of threads and processes.

``sqlite:///relative.db`` or ``sqlite:////absolute.db``; the format of the file
is described in ``docs/stores.md``. A batch is one transaction: `settle` runs
between ``BEGIN IMMEDIATE`` and ``COMMIT``, or, while nobody else writes to
the counter, before a single conditional ``UPDATE``. Who has the turn settles
in the same transaction what the other processes have posted (`truecount.post`).

There is no network here, so no request is delivered twice, and late are only
additions without keys, in the hands of a process that is stopped. What is
left of the protocol's dangers is a COMMIT that fails: it may leave frames in
the write-ahead log that every reader ignores and a recovery after a crash
takes for true. Such an error is ambiguous, until a later COMMIT or a
truncation of the log has overwritten those frames.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from truecount import backoff, moment
from truecount.change import ALONE, Additions, Answer, Batch, Change, Decided
from truecount.errors import (
    DamagedRecordError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.post import Office, Post
from truecount.process import Process, here
from truecount.record import Address, KeyReceipt, Ledger, Record, View, make
from truecount.settle import carry, follow, may_carry, settle, successor
from truecount.steps import Read, Replace, Settle, StoreStep
from truecount.stores import forks
from truecount.stores.base import Ambiguous, Store, settling
from truecount.stores.filesystem import network_filesystem
from truecount.turn import Place, Turn
from truecount.url import StoreURL

__all__ = ["SQLiteStore"]

T = TypeVar("T")

Found: TypeAlias = Sequence[Any]
"""A row: id, value, deleted, ledger."""

APPLICATION: Final = 0x54434E54  # "TCNT"
VERSION: Final = 1

PATIENCE: Final = 0.1
"""Seconds that a request waits for SQLite's lock, when it is its turn to write."""

LISTENING: Final = 0.25
"""Seconds to wait at the bell, before queueing for the turn: not all who write may ring it."""

MAILS: Final = 256
"""How many files have a mail of their own; those of one number share it."""

NAMES: Final = 500
"""How many rows are asked for at once: of variables, SQLite may take 999 only."""

UNDECODABLE: Final = "decode"
"""What is in SQLite's words when a text is none."""

LATEST: Final = 1024
"""Rows of which the latest writing is kept in mind: as many as are changed at once."""

EARLY: Final = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA),
    }
)
"""SQLite's errors that come before anything is written."""

_SCHEMA: Final = (
    """CREATE TABLE counters (
        id       INTEGER PRIMARY KEY,
        domain   TEXT NOT NULL,
        name     TEXT NOT NULL,
        value    TEXT NOT NULL,
        deleted  INTEGER NOT NULL,
        ledger   TEXT NOT NULL,
        UNIQUE (domain, name)
    )""",
    """CREATE TABLE keys (
        counter   INTEGER NOT NULL REFERENCES counters (id),
        key       TEXT NOT NULL,
        text      TEXT NOT NULL,
        before    TEXT NOT NULL,
        after     TEXT NOT NULL,
        revision  INTEGER NOT NULL,
        time      INTEGER NOT NULL,
        expires   INTEGER NOT NULL,
        PRIMARY KEY (counter, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX keys_by_expiry ON keys (expires)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

_SELECT: Final = "SELECT id, value, deleted, ledger FROM counters WHERE domain = ? AND name = ?"

_SELECT_NAMED: Final = """
SELECT name, id, value, deleted, ledger FROM counters WHERE domain = ? AND name IN """

_SELECT_ALL: Final = """
SELECT name, value, deleted, ledger FROM counters WHERE domain = ? AND NOT deleted ORDER BY name"""

_SELECT_PURGEABLE: Final = """
SELECT domain, name FROM counters WHERE deleted AND NOT EXISTS
    (SELECT 1 FROM keys WHERE counter = counters.id AND expires > ?)"""

_INSERT: Final = (
    "INSERT INTO counters (value, deleted, ledger, domain, name) VALUES (?, ?, ?, ?, ?)"
)

_UPDATE: Final = "UPDATE counters SET value = ?, deleted = ?, ledger = ? WHERE id = ?"

_OVERWRITE: Final = """
UPDATE counters SET value = ?, ledger = ?
WHERE id = ? AND ledger = ? AND value = ? AND deleted = 0"""

_EXPIRE: Final = """
DELETE FROM keys WHERE (counter, key) IN
    (SELECT counter, key FROM keys WHERE expires <= ? ORDER BY expires LIMIT ?)"""


class SQLiteStore(Store):
    """One file. Options: ``timeout``, ``key_ttl``, ``synchronous=full`` or ``normal``.

    With ``normal`` a power failure may lose the last changes (a crash of the
    processes loses none); with ``full`` nothing that was answered is lost.
    """

    carries = True
    batch_limit = 400  # who shares a transaction shares its sync of the disk

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        self._synchronous = url.choice("synchronous", ("full", "normal"))
        url.finish()
        if url.rest == "/:memory:":
            raise StoreURLError("counters in memory are at memory://, or memory://name")
        if not url.rest.startswith("/") or url.rest == "/":
            raise StoreURLError(
                f"{url.text!r} names no file: write sqlite:///counters.db (relative) or "
                "sqlite:////var/lib/counters.db (absolute)"
            )
        # Made absolute at once, or a later chdir would move the counters.
        self._path = os.path.realpath(url.rest[1:])
        if not (self._path.isprintable() and "?" not in self._path):
            raise StoreURLError(
                f"the path {self._path!r} cannot be written in a URL: choose one without '?'"
            )
        query = url.text.partition("?")[2]
        self.url = f"sqlite:///{self._path}" + (query and f"?{query}")
        self._local = threading.local()
        # No WeakSet, which `close` could not copy while other threads open some.
        self._connections = weakref.WeakValueDictionary[int, _Connection]()
        self._turns: dict[Process, Office] = {}
        self._latest: dict[Address, _Latest] = {}

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        def work(sql: sqlite3.Connection) -> Record | None:
            # Receipts of a later write than the record would pass for those of another call. No
            # transaction: struck in it, the connection would see what is past from then on.
            now = moment.now()
            found = _fetch(sql, address)
            while True:
                _, record = _select(sql, address, keys, now, found)
                before, found = found, _fetch(sql, address) if keys else found
                if found == before:
                    return record

        return self._query(work, timeout)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        step = Replace(address, old, new)
        replaced: bool = self._write_in_turn(lambda sql: self._step(sql, step), timeout)
        return replaced

    def settles(self, change: Change) -> bool:
        return True

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        began = time.monotonic()
        connection = self._connection(timeout)
        turn = connection.turn
        post = self._post(connection, address, batch)
        try:
            answer = _await_turn(turn, post, timeout)
            if answer is not None:
                return answer
            step = make(Settle, (address, batch))
            if turn.shared and may_carry(batch) and post.collect():
                return self._carry(connection, step, post, _left(timeout, began))
            if not turn.handed_over:
                answer = self._overwrite(connection, address, batch)
            if answer is None:
                work = partial(self._step, step=step)
                answer = self._patiently(connection, work, _left(timeout, began))
            return answer
        finally:  # as `_in_turn` does, but faster
            try:
                post.leave()
                turn.give(post)
            except BaseException:  # struck just here: once more, or nobody has the turn again
                turn.give(post)
                raise

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        return list(self._write_many(lambda sql: self._steps(sql, steps), len(steps), timeout))

    def add_each(self, additions: Additions, *, timeout: float | None) -> Iterable[Any]:
        def work(sql: sqlite3.Connection) -> tuple[bool, Iterable[Any]]:
            decided = self._overwrite_each(sql, additions)
            if decided is not None:
                return True, decided
            for address in additions.addresses:
                self._latest.pop(address, None)  # it is not there, or was only foreseen
            return self._steps(sql, settling(additions))

        return self._write_many(work, len(additions.addresses), timeout)

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        rows = self._query(
            lambda sql: sql.execute(
                "SELECT DISTINCT domain FROM counters WHERE NOT deleted ORDER BY domain"
            ).fetchall(),
            self.timeout,
        )
        return (domain for (domain,) in rows)

    def snapshot(self, domain: str) -> dict[str, int]:
        rows = self._query(lambda sql: sql.execute(_SELECT_ALL, (domain,)).fetchall(), self.timeout)
        return {name: _record(Address(domain, name), fields).value for name, *fields in rows}

    def purge(self, before: int) -> int:
        def work(sql: sqlite3.Connection) -> tuple[bool, int]:
            gone = 0
            for domain, name in sql.execute(_SELECT_PURGEABLE, (moment.now(),)).fetchall():
                address = Address(domain, name)
                row, record = _select(sql, address, (), 0, _fetch(sql, address))
                if record is not None and record.deleted_before(before):
                    sql.execute("DELETE FROM keys WHERE counter = ?", (row,))
                    sql.execute("DELETE FROM counters WHERE id = ?", (row,))
                    gone += 1
            return gone > 0, gone

        return self._write_in_turn(work, self.timeout)

    def close(self) -> None:
        self.closed = True
        for reference in self._connections.valuerefs():
            connection = reference()
            if connection is not None:
                connection.close_if_idle()  # else its thread does, when it has done
        turn = self._turns.pop(here(), None)
        if turn is not None:
            turn.close()

    # In a transaction

    def _step(self, sql: sqlite3.Connection, step: StoreStep) -> tuple[bool, Any]:
        """Carry out ``step``: whether it wrote, and its answer."""
        now = moment.now()
        write, answer = self._decide(sql, step, _fetch(sql, step.address), now)
        if write is not None:
            self._write(sql, write, now)
        return write is not None, answer

    def _steps(self, sql: sqlite3.Connection, steps: Sequence[StoreStep]) -> tuple[bool, list[Any]]:
        """Carry out ``steps``: whether any wrote, and what came of each."""
        now = moment.now()
        found = _fetch_all(sql, [step.address for step in steps])
        writes: list[Write] = []
        answers: list[Any] = []
        for step in steps:
            try:
                write, answer = self._decide(sql, step, found(step.address), now)
            except DamagedRecordError as error:
                answers.append(error)
            else:
                answers.append(answer)
                if write is not None:
                    writes.append(write)
        self._write_all(sql, writes, now)
        return bool(writes), answers

    def _decide(
        self, sql: sqlite3.Connection, step: StoreStep, found: Found | None, now: int
    ) -> tuple[Write | None, Any]:
        """What ``step`` has to write where `_fetch` found that row, and its answer."""
        if isinstance(step, Settle):
            row, record = _select(sql, step.address, step.batch.keys, now, found)
            try:
                new, answer = settle(record, step.batch, now, self.writers)
            except DamagedRecordError as error:  # an earlier writer's line
                raise _damaged(step.address, error) from error
            return new and make(Write, (step.address, row, new)), answer
        if isinstance(step, Read):
            return None, _select(sql, step.address, step.keys, now, found)[1]
        address, old, new = step
        keys = tuple(receipt.key for receipt in new.keys)
        row, there = _select(sql, address, keys, now, found)
        if there is None or old is None:
            holds = there is old
        else:
            holds = there.stamp == old.stamp and not there.keys
        return Write(address, row, new) if holds else None, holds

    def _step_and_more(
        self, sql: sqlite3.Connection, step: Settle, post: Post
    ) -> tuple[bool, tuple[Answer, Record | None]]:
        """Carry out ``step``, and what others have posted: as `_step`, and with the record."""
        now = moment.now()
        write, answer = self._decide(sql, step, _fetch(sql, step.address), now)
        if write is None:
            return False, (answer, None)
        record = carry(write.record, post.batches(), now, self.writers)
        post.sends(record)
        self._write(sql, write._replace(record=record), now)
        return True, (answer, record)

    def _write(self, sql: sqlite3.Connection, write: Write, now: int) -> None:
        address, row, new = write
        value, ledger = _texts(new)
        if row is None:
            row = sql.execute(_INSERT, (value, int(new.deleted), ledger, *address)).lastrowid
        else:
            sql.execute(_UPDATE, (value, int(new.deleted), ledger, row))
        latest = row and _latest_of(row, new)
        if latest:
            self._remember({address: latest})
        else:
            self._latest.pop(address, None)
        if not new.keys:
            return
        # Expired keys make room for new ones, a few at a time.
        sql.execute(_EXPIRE, (now, 2 + 2 * len(new.keys)))
        ttl = int(self.key_ttl * 1_000_000)
        for key, text, before, after, revision, at in new.keys:
            sql.execute(
                "DELETE FROM keys WHERE counter = ? AND key = ? AND expires <= ?", (row, key, now)
            )
            sql.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (row, key, text, str(before), str(after), revision, at, at + ttl),
            )

    def _write_all(self, sql: sqlite3.Connection, writes: Iterable[Write], now: int) -> None:
        """Write them, most in one statement."""
        updates = []
        written = {}
        for write in writes:
            address, row, new = write
            latest = None if row is None or new.keys else _latest_of(row, new)
            if latest is None:
                self._write(sql, write, now)
            else:
                _, value, ledger, _, _ = written[address] = latest
                updates.append((value, 0, ledger, row))
        sql.executemany(_UPDATE, updates)
        self._remember(written)

    def _overwrite_each(
        self, sql: sqlite3.Connection, additions: Additions
    ) -> Iterator[Decided] | None:
        """Settle them in one statement, if each follows what this process wrote in its row.

        None: one does not; nothing was written.
        """
        addresses, writers, numbers, _, adds = additions
        now = moment.now()
        known = self._latest
        updates = []
        receipts = []
        views = []
        for address, writer, number, add in zip(addresses, writers, numbers, adds, strict=True):
            latest = known.get(address)
            if latest is None:
                return None
            row, value, ledger, head, view = latest
            new = successor(view, value, writer, number, view.value + add.amount, now)
            if new is None:
                return None
            digits, line, receipt, seen = new
            text = head + line
            # At once, so that the place of the one before is free for what comes next.
            known[address] = row, digits, text, head, seen
            updates.append((digits, text, row, ledger, value))
            receipts.append(receipt)
            views.append(seen)
        if sql.executemany(_OVERWRITE, updates).rowcount != len(updates):
            sql.execute("ROLLBACK")
            sql.execute("BEGIN IMMEDIATE")
            return None
        return zip(receipts, views, strict=True)

    def _remember(self, written: dict[Address, _Latest]) -> None:
        """Keep in mind what is written. Where it is not, in the end, it is not found there."""
        self._latest.update(written)
        if len(self._latest) > LATEST:
            self._latest = written

    # Transactions

    def _query(self, work: Callable[[sqlite3.Connection], T], timeout: float | None) -> T:
        """Read outside of a transaction: every statement sees the last commit.

        Readers wait for nobody, but for whoever opens, recovers or closes the file.
        """
        began = time.monotonic()
        attempt = 0
        while True:
            try:
                return self._use(self._connection(timeout), work)
            except StoreTimeoutError:
                left = _left(timeout, began)
                if left == 0:
                    raise
                rest = backoff.seconds(attempt)
                time.sleep(rest if left is None else min(rest, left))
                attempt += 1

    def _write_in_turn(
        self, work: Callable[[sqlite3.Connection], tuple[bool, T]], timeout: float | None
    ) -> T:
        """Do ``work`` in a transaction, when it is this thread's turn to write."""
        began = time.monotonic()
        connection = self._connection(timeout)
        return _in_turn(
            connection.turn,
            timeout,
            lambda: self._patiently(connection, work, _left(timeout, began)),
        )

    def _write_many(
        self,
        work: Callable[[sqlite3.Connection], tuple[bool, Iterable[T]]],
        count: int,
        timeout: float | None,
    ) -> Iterable[T | StoreError | Ambiguous]:
        """Do ``work``, which has ``count`` results: an error of the whole is that of each."""
        try:
            return self._write_in_turn(work, timeout)
        except StoreError as error:
            return [error.copy() for _ in range(count)]
        except Ambiguous as error:
            return [Ambiguous(error.cause.copy()) for _ in range(count)]

    def _patiently(
        self,
        connection: _Connection,
        work: Callable[[sqlite3.Connection], tuple[bool, T]],
        timeout: float | None,
    ) -> T:
        """Transact, and again where that finds the file locked: now in the queue of processes.

        There the lock is soon free: of a process that does not queue yet, or
        of a foreign program, which gets some patience.
        """
        try:
            return self._transact(connection, work)
        except StoreTimeoutError:
            connection.turn.insist(timeout)
        patience = time.monotonic() + PATIENCE
        while True:
            try:
                return self._transact(connection, work)
            except StoreTimeoutError:
                if time.monotonic() > patience:
                    raise
            time.sleep(backoff.NAP)

    def _carry(
        self, connection: _Connection, step: Settle, post: Post, timeout: float | None
    ) -> Answer:
        """Carry out ``step``, and what others have posted, who are told."""
        try:
            work = partial(self._step_and_more, step=step, post=post)
            answer, record = self._patiently(connection, work, timeout)
        except StoreError:
            post.refused()
            raise
        if record is not None:
            post.answer(record)
        return answer

    def _transact(
        self, connection: _Connection, work: Callable[[sqlite3.Connection], tuple[bool, T]]
    ) -> T:
        """Do ``work``, which says whether it wrote, in one transaction."""

        def transact(sql: sqlite3.Connection) -> T:
            try:
                sql.execute("BEGIN IMMEDIATE")
                wrote, result = work(sql)
            except BaseException:  # whatever it is, the file must not stay locked
                connection.roll_back()
                raise
            try:
                sql.execute("COMMIT" if wrote else "ROLLBACK")
            except sqlite3.Error as error:
                raise self._failure_of_commit(connection, error) from error
            return result

        return self._use(connection, transact)

    def _use(self, connection: _Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``work`` use the connection; neither a fork nor `close` comes in between."""
        try:
            with connection.lock:
                if self.closed:
                    raise self._closed_error()
                try:
                    forks.enter(connection.thread)
                    return work(connection.sql)
                finally:
                    forks.leave(connection.thread)
        except sqlite3.Error as error:
            raise _refusal(error, self._path) from error
        finally:
            if self.closed:
                connection.close_if_idle()

    def _overwrite(self, connection: _Connection, address: Address, batch: Batch) -> Answer | None:
        """Settle ``batch`` in a single statement, if the row is still what this process wrote.

        None: it is not, or somebody has it locked, or there is nothing to
        write, which takes a fresh look.
        """
        latest = self._latest.get(address)
        foreseen = latest and self._foresee(latest, batch, moment.now())
        if foreseen is None:
            return None
        update, written, answer = foreseen
        with connection.lock:  # as `_use` does, but faster
            try:
                forks.enter(connection.thread)
                cursor = connection.cursor.execute(_OVERWRITE, update)
            except sqlite3.Error as error:
                if _is_early(error):
                    return None
                raise self._failure_of_commit(connection, error) from error
            finally:
                forks.leave(connection.thread)
        if not cursor.rowcount:
            return None
        self._latest[address] = written
        return answer

    def _foresee(self, latest: _Latest, batch: Batch, now: int) -> _Foreseen | None:
        """What ``batch`` does to the row that this process wrote as ``latest`` tells.

        None: that takes a fresh look.
        """
        row, value, ledger, head, view = latest
        followed = follow(view, value, batch, now)
        if followed is not None:
            digits, line, answer = followed
            text = head + line
            assert answer.view is not None
            new: _Latest = row, digits, text, head, answer.view
            return (digits, text, row, ledger, value), new, answer
        if may_foresee(batch):
            record, answer = settle(_record_of(latest), batch, now, self.writers)
            settled = record and _latest_of(row, record)
            if settled is not None:
                _, digits, text, _, _ = settled
                return (digits, text, row, ledger, value), settled, answer
        return None

    def _failure_of_commit(self, connection: _Connection, error: sqlite3.Error) -> Exception:
        """What to raise when a COMMIT failed: whether it is ambiguous is for it to find out."""
        connection.roll_back()
        refusal = _refusal(error, self._path)
        return refusal if connection.is_undone(error) else Ambiguous(refusal)

    # What belongs to a process, and to a thread

    def _post(self, connection: _Connection, address: Address, batch: Batch) -> Post:
        """Where ``batch`` waits for its turn, for others to write it if they may."""
        latest = self._latest.get(address)
        known = latest is not None and batch.writer in latest[2]  # else they take it for a stranger
        ours = batch if known and not batch.fence else None
        name = partial(connection.name_of, address)
        return Post(connection.turn, name, ours, LISTENING, sparing=True)

    def _turn(self) -> Office:
        turn = self._turns.get(here())
        if turn is None:
            number = int.from_bytes(hashlib.sha256(self._path.encode()).digest()[:4]) % MAILS
            new = Office(self._path, f"sqlite-{number}-mail")
            turn = self._turns.setdefault(here(), new)
            if turn is not new:
                new.close()
            if self.closed:  # meanwhile, and it may not have seen this one
                self.close()
        return turn

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"{self!r} was closed; connect() opens it again")

    def _connection(self, timeout: float | None) -> _Connection:
        if self.closed:
            raise self._closed_error()
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.process is not here():
            return self._open(timeout)
        if time.monotonic() - connection.looked > 0.1 and not connection.is_current():
            connection.close_if_idle()
            del self._local.connection
            raise StoreError(
                f"{self._path} was removed or replaced while it was in use; the next call "
                "opens what is there then"
            )
        return connection

    def _open(self, timeout: float | None) -> _Connection:
        _inspect(self._path)
        thread = threading.get_ident()
        try:
            forks.enter(thread)
            connection = _Connection(self._path, self._synchronous)
            ready = connection.is_ready()
            # Now that the file is known to be ours, or nobody's.
            connection.turn = self._turn()
            if not ready:
                # Of several processes that find it empty, the first makes it ours.
                _in_turn(connection.turn, timeout, connection.initialise)
        except sqlite3.Error as error:
            raise _refusal(error, self._path) from error
        finally:
            forks.leave(thread)
        self._local.connection = connection
        self._connections[id(connection)] = connection
        if self.closed:  # likewise
            self.close()
        return connection


def _await_turn(turn: Turn, post: Post, timeout: float | None) -> Answer | None:
    """Wait for the turn; the answer, if another process has sent what was posted instead.

    `Ambiguous` where that may be on its way, and nobody has answered.
    """
    trouble: StoreError | None = None
    try:
        turn.take(post, timeout)
    except StoreError as error:
        trouble = error
    answer, doubt = post.take_back()
    if answer is None and doubt:
        lost = StoreUnavailableError("another process took the change along, and did not answer")
        raise Ambiguous(trouble or lost)
    if answer is None and trouble is not None:
        raise trouble
    return answer


def may_foresee(batch: Batch) -> bool:
    """Whether what ``batch`` does can be told from the record alone, without receipts of keys."""
    first = batch.changes[0]
    if type(first) in ALONE or first.key is not None:
        return False
    return len(batch.changes) == 1 or not batch.keys


class Write(NamedTuple):
    """What is to be written in a row, None for a new one."""

    address: Address
    row: int | None
    record: Record


_Latest: TypeAlias = tuple[int, str, str, str, View]
"""What this process last wrote to a row, which is likely to be there still.

Its id, its value, its ledger, that without the last line, and what is seen of it.
"""

_Foreseen: TypeAlias = tuple[tuple[Any, ...], _Latest, Answer]
"""What `_OVERWRITE` is given, what it leaves in the row, and the answer."""


def _latest_of(row: int, record: Record) -> _Latest | None:
    """What is to be kept in mind of ``record`` in ``row``, if anything."""
    view = record.view
    if view is None or record.ledger.last != record.stamp.writer:
        return None
    return row, *_texts(record), f"{record.horizon}\n{record.ledger.others}", view


def _record_of(latest: _Latest) -> Record:
    """The record of which that is kept in mind."""
    _, _, ledger, head, view = latest
    value, stamp, time, minimum, maximum = view
    horizon, _, others = head.partition("\n")
    text = ledger[len(horizon) + 1 :]
    known = make(Ledger, (text, stamp.writer, stamp.number, others))
    return Record(value, stamp, time, minimum, maximum, int(horizon), False, known)


class _Connection:
    """One thread's connection in one process, and the file that it was opened on."""

    turn: Office

    def __init__(self, path: str, synchronous: str) -> None:
        self.process = here()
        self.thread = threading.get_ident()
        self.path = path
        self.lock = threading.Lock()  # held while it is used
        self.sql = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.cursor = self.sql.cursor()
        # When its thread ends; but not at the end of the program, while daemon threads go on.
        weakref.finalize(self, _close, self.sql, self.process).atexit = False
        self.sql.execute(f"PRAGMA synchronous = {synchronous}")
        self.sql.execute("PRAGMA fullfsync = 1")  # macOS: a plain fsync stops at the drive
        self.sql.execute("PRAGMA checkpoint_fullfsync = 1")
        self.sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self.file = _identity(path)
        self.looked = time.monotonic()

    def name_of(self, address: Address) -> bytes:
        """What stands for a counter in this very file."""
        return hashlib.sha256(repr((self.path, self.file, *address)).encode()).digest()

    def is_current(self) -> bool:
        """Whether the file is still the one at its path."""
        if self.file is None or _identity(self.path) != self.file:
            return False
        self.looked = time.monotonic()
        return True

    def is_ready(self) -> bool:
        """Whether the file is ours and in order; False when there is nothing in it yet.

        Raises `StoreError` when it belongs to somebody else.
        """
        # In one statement, or another process could make it ours in between.
        application, version, tables = self.sql.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application == APPLICATION:
            if version > VERSION:
                raise StoreError(
                    f"{self.path} was written by a newer truecount (format {version}; this one "
                    f"knows {VERSION}): upgrade truecount to use it"
                )
            (mode,) = self.sql.execute("PRAGMA journal_mode").fetchone()
            return bool(mode == "wal")
        if application or version or tables:
            raise StoreError(
                f"{self.path} is a database of another program: give truecount a file of its own"
            )
        return False

    def initialise(self) -> None:
        """Switch to the write-ahead log and create the tables, unless that has been done."""
        (mode,) = self.sql.execute("PRAGMA journal_mode = wal").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path} is on a file system without shared memory for SQLite")
        if self.is_ready():
            return
        try:
            self.sql.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self.sql.execute(statement)
            self.sql.execute("COMMIT")
        except BaseException:  # whatever it is, the file must not stay locked
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Leave the transaction, if SQLite has not left it by itself."""
        try:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
        except sqlite3.Error:
            # The next call closes it, which rolls back too, and opens another.
            self.file = None
            self.looked = 0.0

    def is_undone(self, error: sqlite3.Error) -> bool:
        """Whether a COMMIT that failed with ``error`` has no effect, now and after a crash.

        It has none when SQLite could not take its lock, or found no room to
        write its last frame. After any other error the log is emptied and
        synced; if that works, nothing is left of it.
        """
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            return True
        try:
            busy, _, _ = self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy or os.path.getsize(f"{self.path}-wal"):
                return False
            with open(f"{self.path}-wal", "rb") as log:
                os.fsync(log.fileno())
        except (sqlite3.Error, OSError):
            return False
        return True

    def close_if_idle(self) -> None:
        """Close it, from any thread, unless it is in use."""
        if self.lock.acquire(blocking=False):
            try:
                _close(self.sql, self.process)
            finally:
                self.lock.release()


_inherited: list[sqlite3.Connection] = []  # kept for ever, since to forget is to close


def _close(sql: sqlite3.Connection, process: Process) -> None:
    """Close, but never what a fork inherited: SQLite forbids to use it in the child."""
    if process is here():
        with forks.inside():
            sql.close()
    else:
        _inherited.append(sql)


def _fetch(sql: sqlite3.Connection, address: Address) -> Found | None:
    """The row at ``address``."""
    try:
        found: Found | None = sql.execute(_SELECT, address).fetchone()
    except sqlite3.OperationalError as error:
        if UNDECODABLE not in str(error):
            raise
        raise DamagedRecordError(f"the record of {address} is no text: {error}") from error
    return found


def _fetch_all(
    sql: sqlite3.Connection, addresses: Sequence[Address]
) -> Callable[[Address], Found | None]:
    """The rows at ``addresses``, each to be asked for."""
    domains: dict[str, list[str]] = {}
    for domain, name in addresses:
        domains.setdefault(domain, []).append(name)
    rows: dict[tuple[str, str], Found] = {}
    try:
        for domain, names in domains.items():
            for start in range(0, len(names), NAMES):
                part = names[start : start + NAMES]
                marks = ", ".join("?" * len(part))
                found = sql.execute(f"{_SELECT_NAMED} ({marks})", (domain, *part))
                rows.update(((domain, name), row) for name, *row in found)
    except sqlite3.OperationalError as error:
        if UNDECODABLE not in str(error):
            raise
        return partial(_fetch, sql)  # which tells whose record that is
    return rows.get


def _texts(record: Record) -> tuple[str, str]:
    """The columns ``value`` and ``ledger``."""
    return str(record.value), f"{record.horizon}\n{record.ledger.text}"


def _select(
    sql: sqlite3.Connection, address: Address, keys: tuple[str, ...], now: int, found: Found | None
) -> tuple[int | None, Record | None]:
    """The row's id and its record, with the receipts of those ``keys`` that are known."""
    if found is None:
        return None, None
    row, *fields = found
    record = _record(address, fields)
    if keys:
        try:
            record = record._replace(keys=_receipts(sql, row, keys, now))
        except DamagedRecordError as error:
            raise DamagedRecordError(
                f"the receipts of keys of counter {address.name!r} in domain {address.domain!r} "
                f"are damaged: {error}"
            ) from error
    return row, record


def _record(address: Address, fields: list[Any]) -> Record:
    """The record in a row, or `DamagedRecordError`."""
    try:
        value, deleted, text = fields
        horizon, _, lines = text.partition("\n")
        return Record.of(value, deleted, horizon, Ledger(lines))
    except (AttributeError, TypeError, ValueError, DamagedRecordError) as error:
        raise _damaged(address, error) from error


def _damaged(address: Address, error: Exception) -> DamagedRecordError:
    return DamagedRecordError(
        f"the record of counter {address.name!r} in domain {address.domain!r} is damaged: {error}"
    )


def _receipts(
    sql: sqlite3.Connection, row: int, keys: tuple[str, ...], now: int
) -> tuple[KeyReceipt, ...]:
    marks = ", ".join("?" * len(keys))
    found = sql.execute(
        "SELECT key, text, before, after, revision, time FROM keys "  # noqa: S608  # only marks
        f"WHERE counter = ? AND expires > ? AND key IN ({marks})",
        (row, now, *keys),
    )
    return tuple(
        KeyReceipt.of(key, f"{revision} {at} {before} {after} {text}")
        for key, text, before, after, revision, at in found.fetchall()
    )


def _inspect(path: str) -> None:
    """Refuse places where no database can be, in words that say more than SQLite's."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreError(f"cannot open {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise StoreError(f"cannot open {path}: it is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"cannot open {path}: it is a device; name a file")
    kind = network_filesystem(path)
    if kind is not None:
        raise StoreError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold: "
            "use a local disk, or a store that has a server"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _left(timeout: float | None, began: float) -> float | None:
    """What is left of the time allowed, in seconds."""
    return None if timeout is None else max(timeout - (time.monotonic() - began), 0.0)


def _in_turn(turn: Turn, timeout: float | None, work: Callable[[], T]) -> T:
    """Do ``work`` when it is this thread's turn to write."""
    place = Place()
    try:
        turn.take(place, timeout)
        return work()
    finally:
        try:
            turn.give(place)
        except BaseException:  # struck just here: once more, or nobody has a turn again
            turn.give(place)
            raise


def _is_early(error: sqlite3.Error) -> bool:
    """Whether an error of a statement came before it wrote anything."""
    return isinstance(error, sqlite3.ProgrammingError) or _code(error) in EARLY


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, or -1."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code if code < 0 else code & 0xFF


def _refusal(error: sqlite3.Error, path: str) -> StoreError:
    """What an error of the driver means, when the request did not take effect."""
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return StoreClosedError(f"{path} was closed; connect() opens it again")
    code = _code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreTimeoutError(f"another program has {path} locked")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"there is no room left for {path}: make some and repeat")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"{path} cannot be read or written ({name}): look at the disk, its free space and "
            "the limits on file sizes"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not a database: give truecount a file of its own")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"{path} is damaged ({error}): restore it from a backup")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(f"{path} cannot be opened for writing ({error}): look at its permissions")
    return StoreError(f"{path}: {error} ({name})")
