"""PostgreSQL's connections, and what their errors mean.

A request is one statement in a transaction of its own, sent and awaited with
a deadline: psycopg's cursors have none, so this is libpq's level, ``psycopg.pq``.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from psycopg import conninfo, pq

from truecount.errors import (
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.process import new_name
from truecount.stores.base import Ambiguous, Deadline

__all__ = ["Borrowed", "Link", "Links", "Own", "Pooled", "Refused", "Rows", "refusal", "rows"]

Rows: TypeAlias = "list[tuple[str | None, ...]]"

PATIENCE: Final = 30.0
"""Seconds to wait for a connection at most, where the caller has no end."""

UNSURE: Final = ("08", "40003", "57014", "57P", "58", "XX")
"""How the SQLSTATEs begin after which nobody knows whether the statement took effect."""

PASSING_STATES: Final = ("40", "53300", "55006", "25006")
"""Those of refusals that may be over at the next attempt, perhaps on another connection."""

FULL: Final = ("53100", "53200")

UNKNOWN_STATEMENT: Final = "26000"

INCURABLE: Final = {
    "password authentication failed": "look at the user and the password",
    "no password supplied": "give a password, in the URL, in $PGPASSWORD or by passfile",
    'role "': "look at the user",
    "pg_hba.conf": "have the server's pg_hba.conf let this user in, from this host",
    'database "': "create the database, or name another one",
    "certificate": "look at sslmode, sslrootcert and sslcert",
    "does not support SSL": "look at sslmode, and at the server's setting ssl",
    "definition of service": "look at service, and at pg_service.conf",
    "invalid ": "look at the URL's options",
}
"""What of the server's words tells that waiting will not help, and what will.

While connecting, libpq keeps the SQLSTATE to itself. In a server that speaks
another language these are taken for passing, and raised when time is over.
"""


class Refused(Exception):
    """The server refused a statement, and nothing of it took effect."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(f"{text} ({state})")
        self.state = state


class Link:
    """A connection, and one request on it at a time."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self.pgconn = pgconn
        self._names: dict[bytes, bytes] = {}
        self._input = select.poll()
        self._input.register(pgconn.socket, select.POLLIN)

    def is_sound(self) -> bool:
        """Whether it is idle, and the server has said nothing meanwhile, such as goodbye."""
        return not self._input.poll(0)

    def ask(
        self, command: bytes, parameters: Sequence[bytes | None], span: float | None
    ) -> tuple[pq.abc.PGresult, ...]:
        """Send one command, and wait ``span`` seconds for all of its results.

        Raises `Refused`, and `Ambiguous` when the connection must not be used again.
        """
        pgconn = self.pgconn
        try:
            name = self._names.get(command)
            if name is not None:
                pgconn.send_query_prepared(name, parameters)
            elif parameters:
                pgconn.send_query_params(command, parameters)
            else:
                pgconn.send_query(command)
            return self._results(span)
        except Refused as refused:
            if refused.state != UNKNOWN_STATEMENT or not self._names:
                raise
            self._names.clear()  # there is a pooler in between after all
        except Ambiguous:
            raise
        except Exception as error:
            text = f"the connection broke: {_text(error)}"
            raise Ambiguous(StoreUnavailableError(text)) from error
        return self.ask(command, parameters, span)

    def prepare(self, commands: Mapping[str, bytes], span: float | None) -> None:
        """Have the server keep the plans of ``commands``, each of which has a label.

        Under names that nobody else has: behind a pooler that passes for the
        server itself, a name would else stand for another client's statement.
        """
        own = new_name()
        names = {
            command: f"truecount {label} {own}".encode() for label, command in commands.items()
        }
        self.ask(b"; ".join(b'PREPARE "%s" AS %s' % (n, c) for c, n in names.items()), (), span)
        self._names = names

    def close(self) -> None:
        """Close it."""
        self.pgconn.finish()

    def _results(self, span: float | None) -> tuple[pq.abc.PGresult, ...]:
        """All the results there are: what follows the first may be the failure of its commit."""
        pgconn = self.pgconn
        end = None if span is None else time.monotonic() + span
        while pgconn.flush():
            both = select.poll()
            both.register(pgconn.socket, select.POLLIN | select.POLLOUT)
            _await(both, end)
            pgconn.consume_input()
        results: list[pq.abc.PGresult] = []
        while True:
            while pgconn.is_busy():
                _await(self._input, end)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            results.append(result)
        for result in results:
            if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                raise _failure(result)
        return tuple(results)


class Links(ABC):
    """Where connections come from."""

    patient = False
    """Whether there is only one, so that no other can be asked what became of a request."""

    @abstractmethod
    def take(self, deadline: Deadline) -> Link:
        """A connection for one caller, until `give`. Raises a `StoreError`."""

    @abstractmethod
    def give(self, link: Link, *, sound: bool) -> None:
        """Give it back; one that is not ``sound`` is closed."""

    def close(self) -> None:  # noqa: B027  # what is borrowed stays open
        """Close what is not in use."""


class Own(Links):
    """Connections that are made when none is idle, and stay open."""

    def __init__(
        self,
        options: Mapping[str, str],
        shown: str,
        patience: float,
        ready: Callable[[Link, Deadline], None],
    ) -> None:
        self._places = _places(options)
        self._shown = shown
        self._patience = patience  # seconds to wait for each answer
        self._ready = ready
        self._idle: list[Link] = []
        self._closed = False

    def take(self, deadline: Deadline) -> Link:
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return self._new(deadline)
            if link.is_sound():
                return link
            link.close()

    def give(self, link: Link, *, sound: bool) -> None:
        if sound:
            self._idle.append(link)
        else:
            link.close()
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _new(self, deadline: Deadline) -> Link:
        """A connection to the first of the places that lets us in, ready for use."""
        for number, place in enumerate(self._places):
            left = deadline.left()
            share = PATIENCE if left is None else left / (len(self._places) - number)
            try:
                link = Link(self._connect(place, share))
            except StoreError:
                if number + 1 == len(self._places):
                    raise
                continue
            try:
                self._ready(link, deadline)
            except BaseException:  # whatever it is, nobody else would close it
                link.close()
                raise
            return link
        raise StoreError(f"{self._shown} names no host")

    def _connect(self, place: Mapping[str, str], span: float) -> pq.abc.PGconn:
        asked = float(place.get("connect_timeout") or 0)
        end = time.monotonic() + (min(span, asked) if asked > 0 else span)
        try:
            pgconn = pq.PGconn.connect_start(conninfo.make_conninfo(**place).encode())
        except Exception as error:
            raise StoreError(f"{self._shown} cannot be asked: {_text(error)}") from error
        try:
            state = pq.PollingStatus.WRITING
            while state != pq.PollingStatus.OK:
                if pgconn.status == pq.ConnStatus.BAD or state == pq.PollingStatus.FAILED:
                    raise self._unreached(pgconn)
                reads = state == pq.PollingStatus.READING
                poll = select.poll()
                poll.register(pgconn.socket, select.POLLIN if reads else select.POLLOUT)
                _await(poll, min(end, time.monotonic() + self._patience))
                state = pq.PollingStatus(pgconn.connect_poll())
            pgconn.nonblocking = 1
        except BaseException as error:
            pgconn.finish()
            if isinstance(error, StoreError) or not isinstance(error, Exception):
                raise
            late = StoreTimeoutError if isinstance(error, Ambiguous) else StoreUnavailableError
            raise late(f"{self._shown} cannot be reached: {_text(error)}") from error
        return pgconn

    def _unreached(self, pgconn: pq.abc.PGconn) -> StoreError:
        text = " ".join(pgconn.get_error_message("utf-8").split())
        for words, remedy in INCURABLE.items():
            if words in text:
                return StoreError(f"{self._shown} does not let us in: {text}. So {remedy}")
        return StoreUnavailableError(f"{self._shown} cannot be reached: {text}")


class Borrowed(Links):
    """One connection of the driver's user."""

    patient = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def take(self, deadline: Deadline) -> Link:
        connection = self._connection
        left = deadline.left()
        span = -1 if left is None else min(left, threading.TIMEOUT_MAX)
        if not connection.lock.acquire(timeout=span):
            raise StoreTimeoutError("the connection was in use all the time allowed")
        try:
            if not connection.closed and not connection.autocommit:
                raise StoreError(
                    "the connection is not in autocommit mode, so that a change would wait for "
                    "your commit: give truecount one of its own, with autocommit=True"
                )
            return _link_of(connection)
        except BaseException:  # whatever it is, its owner must get at it again
            connection.lock.release()
            raise

    def give(self, link: Link, *, sound: bool) -> None:
        try:
            if not sound:
                self._connection.close()
        finally:
            self._connection.lock.release()


class Pooled(Links):
    """A pool of connections of the driver's user."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connections: dict[Link, Any] = {}

    def take(self, deadline: Deadline) -> Link:
        try:
            connection = self._pool.getconn(timeout=deadline.left())
        except Exception as error:
            text = f"the pool gives no connection: {_text(error)}"
            if type(error).__name__ == "PoolClosed":
                raise StoreError(text) from error
            raise StoreUnavailableError(text) from error
        try:
            link = _link_of(connection)
        except BaseException:  # whatever it is, the pool must get it back
            self._pool.putconn(connection)
            raise
        self._connections[link] = connection
        return link

    def give(self, link: Link, *, sound: bool) -> None:
        connection = self._connections.pop(link)
        try:
            if not sound:
                connection.close()
        finally:
            self._pool.putconn(connection)


def refusal(refused: Refused, shown: str, schema: str) -> StoreError:
    """What a refusal means to the caller."""
    state, text = refused.state, f"{shown} refuses: {refused}"
    if state in FULL:
        return StoreFullError(f"{shown} has no room left: {refused}")
    if state == "55P03":
        return StoreTimeoutError(f"another transaction has the counter locked at {shown}")
    if state == "25006":
        return StoreUnavailableError(
            f"{text}: it is a hot standby, or default_transaction_read_only is on there"
        )
    if state.startswith(PASSING_STATES):
        return StoreUnavailableError(text)
    if state == "42501":
        return StoreError(
            f"{text}: grant USAGE on the schema {schema!r}, SELECT, INSERT, UPDATE and DELETE on "
            "its tables and EXECUTE on its functions to this user"
        )
    if state in ("42P01", "42883", "3F000", "42703"):
        return StoreError(
            f"{text}: truecount's tables were there, and are gone or changed: restore the schema "
            f"{schema!r}, or name another by ?schema="
        )
    return StoreError(text)


def rows(result: pq.abc.PGresult) -> Rows:
    """The rows of a result, as text."""
    columns = range(result.nfields)
    return [
        tuple([_decoded(result.get_value(row, column)) for column in columns])
        for row in range(result.ntuples)
    ]


def _failure(result: pq.abc.PGresult) -> Exception:
    """What a result that is an error means: `Refused`, or `Ambiguous`."""
    state = _decoded(result.error_field(pq.DiagnosticField.SQLSTATE)) or ""
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    text = " ".join((_decoded(primary) or result.get_error_message("utf-8")).split())
    if not state or state.startswith(UNSURE):
        return Ambiguous(StoreUnavailableError(f"the server ended the request: {text} ({state})"))
    return Refused(state, text)


def _link_of(connection: Any) -> Link:
    """A link on a connection of the driver's user, if it is free for a request."""
    pgconn = connection.pgconn
    if connection.closed or pgconn.status != pq.ConnStatus.OK:
        raise StoreError("the connection is closed: connect anew, and connect() with that")
    idle = pgconn.transaction_status == pq.TransactionStatus.IDLE
    if not idle or pgconn.pipeline_status != pq.PipelineStatus.OFF:
        raise StoreError(
            "the connection is in the middle of a transaction, which a change is no part of: end "
            "it first, or give truecount a connection of its own"
        )
    if pgconn.parameter_status(b"client_encoding") not in (b"UTF8", b"UTF-8"):
        raise StoreError("the connection's client_encoding is not UTF8: make it so")
    return Link(pgconn)


def _places(options: Mapping[str, str]) -> list[dict[str, str]]:
    """The options for each of several hosts, to be tried in turn.

    libpq tries them by itself, but without an end where one of them is silent.
    """
    split = {
        name: options[name].split(",")
        for name in ("host", "hostaddr", "port")
        if "," in options.get(name, "")
    }
    if not split.keys() & {"host", "hostaddr"}:
        return [dict(options)]
    several = {"target_session_attrs": "read-write", **options}  # or a standby would do
    count = max(map(len, split.values()))
    return [
        {**several, **{name: (given * count)[at] for name, given in split.items()}}
        for at in range(count)
    ]


def _await(poll: select.poll, end: float | None) -> None:
    """Wait until a connection is ready, or raise `Ambiguous` at ``end``."""
    span = None
    if end is not None:
        # Rounded up, or the last millisecond would be spent asking.
        span = min(max(end - time.monotonic(), 0.0) * 1000 + 1, 2**31 - 1)
    if not poll.poll(span):
        raise Ambiguous(StoreTimeoutError("the server did not answer in time"))


def _decoded(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "replace")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
