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
from typing import Any, Final, TypeVar

from truecount import backoff, moment
from truecount.change import ALONE, Additions, Answer, Batch, Change, Decided
from truecount.errors import (
    DamagedRecordError,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.post import Office, Post
from truecount.process import Process, here
from truecount.record import Address, Record, make
from truecount.settle import carry, follow, may_carry, settle, successor
from truecount.spin import NAP
from truecount.steps import Read, Replace, Settle, StoreStep
from truecount.stores.base import Ambiguous, Store, settling, time_left
from truecount.stores.sqlite import forks
from truecount.stores.sqlite.connection import Connection, check_place, is_early, refusal_of
from truecount.stores.sqlite.layout import (
    EXPIRE,
    INSERT,
    OVERWRITE,
    SELECT_ALL,
    SELECT_PURGEABLE,
    UPDATE,
    Foreseen,
    Found,
    Latest,
    Write,
    damaged,
    fetch,
    fetch_all,
    latest_of,
    record_in,
    record_of,
    select,
    texts_of,
)
from truecount.turn import Place, Turn
from truecount.url import StoreURL

__all__ = ["SQLiteStore"]

T = TypeVar("T")

PATIENCE: Final = 0.1
"""Seconds that a request waits for SQLite's lock, when it is its turn to write."""

LISTENING: Final = 0.25
"""Seconds to wait at the bell, before queueing for the turn: not all who write may ring it."""

MAILS: Final = 256
"""How many files have a mail of their own; those of one number share it."""

LATEST: Final = 1024
"""Rows of which the latest writing is kept in mind: as many as are changed at once."""


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
        self._connections = weakref.WeakValueDictionary[int, Connection]()
        self._turns: dict[Process, Office] = {}
        self._latest: dict[Address, Latest] = {}

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        def work(sql: sqlite3.Connection) -> Record | None:
            # Receipts of a later write than the record would pass for those of another call. No
            # transaction: struck in it, the connection would see what is past from then on.
            now = moment.now()
            found = fetch(sql, address)
            while True:
                _, record = select(sql, address, keys, now, found)
                before, found = found, fetch(sql, address) if keys else found
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
                return self._carry(connection, step, post, time_left(timeout, began))
            if not turn.handed_over:
                answer = self._overwrite(connection, address, batch)
            if answer is None:
                work = partial(self._step, step=step)
                answer = self._patiently(connection, work, time_left(timeout, began))
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
        rows = self._query(lambda sql: sql.execute(SELECT_ALL, (domain,)).fetchall(), self.timeout)
        return {name: record_in(Address(domain, name), fields).value for name, *fields in rows}

    def purge(self, before: int) -> int:
        def work(sql: sqlite3.Connection) -> tuple[bool, int]:
            gone = 0
            for domain, name in sql.execute(SELECT_PURGEABLE, (moment.now(),)).fetchall():
                address = Address(domain, name)
                row, record = select(sql, address, (), 0, fetch(sql, address))
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
        write, answer = self._decide(sql, step, fetch(sql, step.address), now)
        if write is not None:
            self._write(sql, write, now)
        return write is not None, answer

    def _steps(self, sql: sqlite3.Connection, steps: Sequence[StoreStep]) -> tuple[bool, list[Any]]:
        """Carry out ``steps``: whether any wrote, and what came of each."""
        now = moment.now()
        found = fetch_all(sql, [step.address for step in steps])
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
        """What ``step`` has to write where `fetch` found that row, and its answer."""
        if isinstance(step, Settle):
            row, record = select(sql, step.address, step.batch.keys, now, found)
            try:
                new, answer = settle(record, step.batch, now, self.writers)
            except DamagedRecordError as error:  # an earlier writer's line
                raise damaged(step.address, error) from error
            return new and make(Write, (step.address, row, new)), answer
        if isinstance(step, Read):
            return None, select(sql, step.address, step.keys, now, found)[1]
        address, old, new = step
        keys = tuple(receipt.key for receipt in new.keys)
        row, there = select(sql, address, keys, now, found)
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
        write, answer = self._decide(sql, step, fetch(sql, step.address), now)
        if write is None:
            return False, (answer, None)
        record = carry(write.record, post.batches(), now, self.writers)
        post.sends(record)
        self._write(sql, write._replace(record=record), now)
        return True, (answer, record)

    def _write(self, sql: sqlite3.Connection, write: Write, now: int) -> None:
        address, row, new = write
        value, ledger = texts_of(new)
        if row is None:
            row = sql.execute(INSERT, (value, int(new.deleted), ledger, *address)).lastrowid
        else:
            sql.execute(UPDATE, (value, int(new.deleted), ledger, row))
        latest = row and latest_of(row, new)
        if latest:
            self._remember({address: latest})
        else:
            self._latest.pop(address, None)
        if not new.keys:
            return
        # Expired keys make room for new ones, a few at a time.
        sql.execute(EXPIRE, (now, 2 + 2 * len(new.keys)))
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
            latest = None if row is None or new.keys else latest_of(row, new)
            if latest is None:
                self._write(sql, write, now)
            else:
                _, value, ledger, _, _ = written[address] = latest
                updates.append((value, 0, ledger, row))
        sql.executemany(UPDATE, updates)
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
        if sql.executemany(OVERWRITE, updates).rowcount != len(updates):
            sql.execute("ROLLBACK")
            sql.execute("BEGIN IMMEDIATE")
            return None
        return zip(receipts, views, strict=True)

    def _remember(self, written: dict[Address, Latest]) -> None:
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
                left = time_left(timeout, began)
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
            lambda: self._patiently(connection, work, time_left(timeout, began)),
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
        connection: Connection,
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
            time.sleep(NAP)

    def _carry(
        self, connection: Connection, step: Settle, post: Post, timeout: float | None
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
        self, connection: Connection, work: Callable[[sqlite3.Connection], tuple[bool, T]]
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

    def _use(self, connection: Connection, work: Callable[[sqlite3.Connection], T]) -> T:
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
            raise refusal_of(error, self._path) from error
        finally:
            if self.closed:
                connection.close_if_idle()

    def _overwrite(self, connection: Connection, address: Address, batch: Batch) -> Answer | None:
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
                cursor = connection.cursor.execute(OVERWRITE, update)
            except sqlite3.Error as error:
                if is_early(error):
                    return None
                raise self._failure_of_commit(connection, error) from error
            finally:
                forks.leave(connection.thread)
        if not cursor.rowcount:
            return None
        self._latest[address] = written
        return answer

    def _foresee(self, latest: Latest, batch: Batch, now: int) -> Foreseen | None:
        """What ``batch`` does to the row that this process wrote as ``latest`` tells.

        None: that takes a fresh look.
        """
        row, value, ledger, head, view = latest
        followed = follow(view, value, batch, now)
        if followed is not None:
            digits, line, answer = followed
            text = head + line
            assert answer.view is not None
            new: Latest = row, digits, text, head, answer.view
            return (digits, text, row, ledger, value), new, answer
        if may_foresee(batch):
            record, answer = settle(record_of(latest), batch, now, self.writers)
            settled = record and latest_of(row, record)
            if settled is not None:
                _, digits, text, _, _ = settled
                return (digits, text, row, ledger, value), settled, answer
        return None

    def _failure_of_commit(self, connection: Connection, error: sqlite3.Error) -> Exception:
        """What to raise when a COMMIT failed: whether it is ambiguous is for it to find out."""
        connection.roll_back()
        refusal = refusal_of(error, self._path)
        return refusal if connection.is_undone(error) else Ambiguous(refusal)

    # What belongs to a process, and to a thread

    def _post(self, connection: Connection, address: Address, batch: Batch) -> Post:
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

    def _connection(self, timeout: float | None) -> Connection:
        if self.closed:
            raise self._closed_error()
        connection: Connection | None = getattr(self._local, "connection", None)
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

    def _open(self, timeout: float | None) -> Connection:
        check_place(self._path)
        thread = threading.get_ident()
        try:
            forks.enter(thread)
            connection = Connection(self._path, self._synchronous)
            ready = connection.is_ready()
            # Now that the file is known to be ours, or nobody's.
            connection.turn = self._turn()
            if not ready:
                # Of several processes that find it empty, the first makes it ours.
                _in_turn(connection.turn, timeout, connection.initialise)
        except sqlite3.Error as error:
            raise refusal_of(error, self._path) from error
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
