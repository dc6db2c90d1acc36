"""Counters in PostgreSQL, through psycopg: ``postgresql://user@host:5432/database``.

Everything about a counter is in its one row, and every request is one
statement in a transaction of its own. `layout` knows the tables and functions
of the schema, `service` the connections and their errors.

Nothing is kept in a session that a pooler might give to somebody else: no
setting, no lock, and no name that another client could have.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar

from psycopg import conninfo, pq

from truecount.change import Additions, Answer, Batch, Change, Decided
from truecount.errors import (
    CounterError,
    DamagedRecordError,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
    StoreWarning,
)
from truecount.moment import now
from truecount.process import Process, here
from truecount.record import EMPTY, MOST, Address, Record, make
from truecount.steps import Replace, Settle, StoreStep
from truecount.stores.base import Ambiguous, Deadline, Store, patiently, settling
from truecount.stores.postgresql.layout import (
    VERSION,
    Statements,
    ledger_change,
    read_keys,
    read_row,
)
from truecount.stores.postgresql.service import (
    Borrowed,
    Link,
    Links,
    Own,
    Pooled,
    Refused,
    Rows,
    refusal,
    rows,
)
from truecount.sums import added, added_one, beyond, is_sum, sums
from truecount.url import StoreURL

__all__ = ["PostgreSQLStore"]

Value: TypeAlias = str | int | float | None
"""What a parameter may be."""

READ_TIMEOUT: Final = 2.0
"""Seconds to wait for one answer unless told otherwise."""

SOON: Final = 0.1
"""Seconds that a request may take, however little time there is: silence would leave doubt."""

MARGIN: Final = 0.1
"""Seconds before the end of that, at least, at which a statement gives up waiting for a lock."""

ALONE: Final = 8
"""Additions in a row, after which a process expects the next one to be its own again."""

STREAKS: Final = 1000
"""Of how many counters that is kept in mind."""

KEYWORDS: Final = tuple(
    option.keyword.decode()
    for option in pq.Conninfo.get_defaults()
    if option.keyword not in (b"client_encoding", b"replication")
)
"""The options of libpq that a URL may have."""

LONGEST_NAME: Final = 63
"""Bytes of a schema's name; PostgreSQL cuts what is longer."""

LOSING: Final = {"synchronous_commit": "off", "fsync": "off", "full_page_writes": "off"}
"""The settings by which a server may lose what it has acknowledged."""

NOT_THERE: Final = ("42P01", "3F000")
THERE_ALREADY: Final = ("42P06", "42P07", "42710", "42723", "23505")
READ_ONLY: Final = "25006"
DENIED: Final = "42501"
NOT_UNIQUE: Final = "23505"
NOT_DATA: Final = "22"

NO_ANSWER: Final = (None,)
"""What an addition says that is beyond the database's arithmetic."""

REFUSED: Final = "no"
"""What a replacement says that found another record."""

T = TypeVar("T")

Fields: TypeAlias = Sequence[str | None]
"""The fields of a row, as text."""


TOO_LATE: Final = (
    "the request for all was refused, as where one of them is locked, and the time was over before "
    "this one was sent alone; nothing was applied. Allow more time, or add to fewer at once"
)


class PostgreSQLStore(Store):
    """A schema of a PostgreSQL database.

    Options: ``timeout``, ``key_ttl``, ``schema``, ``read_timeout`` (seconds to
    wait for one answer before asking what became of the request),
    ``fence=always``, and those that libpq knows.
    """

    carries = True

    def __init__(self, url: StoreURL) -> None:
        self._set_up(url)
        given = {name for name in KEYWORDS if url.option(name) is not None}
        url.finish()
        self.url = url.text
        self._options = {
            "fallback_application_name": "truecount",
            **_options(url, given),
            "client_encoding": "UTF8",
        }

    @classmethod
    def from_client(cls, client: Any, url: StoreURL) -> Self:
        store = cls.__new__(cls)
        store._set_up(url)
        url.finish()
        store.url = url.text
        store.client = client
        source = Pooled if hasattr(client, "getconn") else Borrowed
        store._sources[here()] = source(client)
        return store

    def _set_up(self, url: StoreURL) -> None:
        super().__init__(url)
        schema = url.option("schema") or "truecount"
        if len(schema.encode()) > LONGEST_NAME or schema.startswith("pg_"):
            raise StoreURLError(
                f"?schema={schema}: it is at most {LONGEST_NAME} bytes, and does not begin with pg_"
            )
        self._schema = schema
        self._sql = Statements.of(schema)
        self._read_timeout = url.positive_seconds("read_timeout", READ_TIMEOUT)
        self.always_fence = url.choice("fence", ("doubt", "always")) == "always"
        self._sources: dict[Process, Links] = {}
        self._checked: set[Process] = set()
        self._prepares = False  # whether the server keeps plans for us
        self._streaks: dict[Address, int] = {}  # additions without one of others in between

    @property
    def shown(self) -> str:
        if self.client is None:
            return super().shown
        return f"{super().shown} ({type(self.client).__name__})"

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        asked = _reading(address, keys)
        if not keys:
            (fields,) = self._look(self._sql.read, asked.parameters[:2], timeout)
            return read_row(address, fields)
        (fields,) = self._look(self._sql.read_keys, asked.parameters, timeout)
        return asked.understand(fields)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        asked = self._replacing(address, old, new)
        try:
            return self._ask(self._sql.replace, asked.parameters, timeout, asked.only, writes=True)
        except Refused as refused:
            if refused.state == NOT_UNIQUE:
                return False
            raise self._refusal(refused, address) from refused

    def settles(self, change: Change) -> bool:
        return is_sum(change)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        asked = _adding(address, batch)
        if asked is None:
            return beyond(batch)
        deadline = Deadline(timeout)
        streak = self._streaks.get(address, 0)
        answer: Answer | None = None
        try:
            if streak >= ALONE and self._prepares:
                answer = self._ask(
                    self._sql.add_again, asked.parameters, timeout, asked.if_any, writes=True
                )
            if answer is None:
                answer = self._ask(
                    self._sql.add, asked.parameters, deadline.left(), asked.only, writes=True
                )
        except Refused as refused:
            raise self._refusal(refused, address) from refused
        if answer.view is not None and answer.view.stamp.revision == batch.since + 1:
            if len(self._streaks) > STREAKS:
                self._streaks.clear()
            self._streaks[address] = streak + 1
        else:
            self._streaks.pop(address, None)
        return answer

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        deadline = Deadline(timeout)
        came: dict[int, Any] = {}
        statements: dict[bytes, dict[int, Asked[Any]]] = {}
        # Always in the same order, or two of these could wait for each other's rows.
        for at in sorted(range(len(steps)), key=lambda at: steps[at].address):
            step = steps[at]
            asked: Asked[Any] | None
            if isinstance(step, Settle):
                command, asked = self._sql.add_many, _adding(*step)
                if asked is None:
                    came[at] = beyond(step.batch)
                    continue
            elif isinstance(step, Replace):
                command, asked = self._sql.replace_many, self._replacing(*step)
            else:
                command, asked = self._sql.read_many, _reading(*step)
            statements.setdefault(command, {})[at] = asked
        for command, many in statements.items():
            found = self._ask_many(command, list(many.values()), deadline)
            if found is None:  # one of them is refused, and which one shows when each is alone
                found = self._one_by_one([steps[at] for at in many], deadline)
            came.update(zip(many, found, strict=True))
        return [came[at] for at in range(len(steps))]

    def add_each(self, additions: Additions, *, timeout: float | None) -> Iterable[Any]:
        deadline = Deadline(timeout)
        addresses = additions.addresses
        order = sorted(range(len(addresses)), key=addresses.__getitem__)  # as in `together`

        def each(found: Rows) -> list[Any]:
            ((text,),) = found
            came = dict(_decisions(additions, order, text or ""))
            return [came.get(at) or beyond(additions.batch(at)) for at in range(len(order))]

        came = self._ask_all(self._sql.add_each, _questions(additions, order), deadline, each)
        if came is None:  # as in `together`
            came = self._one_by_one(settling(additions), deadline)
        return came

    def names(self, domain: str) -> Iterator[str]:
        return (str(name) for (name,) in self._list(self._sql.names, domain))

    def domains(self) -> Iterator[str]:
        return (str(domain) for (domain,) in self._list(self._sql.domains))

    def snapshot(self, domain: str) -> dict[str, int]:
        values = {}
        for name, *fields in self._list(self._sql.snapshot, domain):
            record = read_row(Address(domain, str(name)), fields)
            assert record is not None
            values[str(name)] = record.value
        return values

    def purge(self, before: int) -> int:
        def how_many(result: pq.abc.PGresult) -> int:
            ((count,),) = rows(result)
            return int(count or 0)

        def attempt() -> int:
            try:
                return self._ask(self._sql.purge, [before], self.timeout, how_many, at_length=True)
            except Refused as refused:
                raise self._refusal(refused) from refused

        return patiently(attempt, self.timeout)

    def close(self) -> None:
        self.closed = True
        links = self._sources.pop(here(), None)
        if links is not None:
            links.close()

    # Requests

    def _look(
        self,
        command: bytes,
        parameters: Sequence[Value],
        timeout: float | None,
        *,
        at_length: bool = False,
    ) -> Rows:
        """What a query finds on a server that is no standby, whose answers may be old."""

        def current(result: pq.abc.PGresult) -> Rows:
            found = rows(result)
            if any(standby != "f" for standby, *_ in found):
                raise StoreUnavailableError(
                    f"{self.shown} is a hot standby, which lags behind: name the primary"
                )
            return [tuple(fields) for _, *fields in found]

        try:
            return self._ask(command, parameters, timeout, current, at_length=at_length)
        except Refused as refused:
            raise self._refusal(refused) from refused

    def _list(self, command: bytes, *parameters: str) -> Rows:
        """The rows of a listing, asked for patiently: without the one that says there is none."""
        found = patiently(
            lambda: self._look(command, parameters, self.timeout, at_length=True), self.timeout
        )
        return [fields for fields in found if fields[0] is not None]

    def _ask(
        self,
        command: bytes,
        parameters: Sequence[Value],
        timeout: float | None,
        understand: Callable[[pq.abc.PGresult], T],
        *,
        writes: bool = False,
        at_length: bool = False,
    ) -> T:
        """Send one statement, and return what ``understand`` makes of its result.

        ``writes``: its last parameter is how long it may wait for a lock.
        ``at_length``: the answer may take all of the time. Raises `Refused`.
        """
        deadline = Deadline(SOON if timeout is not None and timeout <= 0 else timeout)
        links = self._links()
        link = links.take(deadline)
        sound = False
        try:
            if self.client is not None and here() not in self._checked:
                self._check(link, deadline)
            span = deadline.left()
            if span is not None and span <= 0:
                sound = True
                raise StoreTimeoutError(f"{self.shown} was not free in the time allowed")
            span = None if span is None else max(span, SOON)
            if not (at_length or links.patient) and (span is None or span > self._read_timeout):
                span = self._read_timeout
            if writes:
                parameters = [*parameters, _patience(span)]
            try:
                (result,) = link.ask(command, _texts(parameters), span)
                answer = understand(result)
            except Refused as refused:
                # Another one may lead to the primary, where there is another one.
                sound = refused.state != READ_ONLY or links.patient
                raise
            except (ValueError, LookupError) as error:
                strange = f"{self.shown} gave an answer that cannot be understood: {error}"
                raise Ambiguous(StoreUnavailableError(strange)) from error
            sound = True
            return answer
        finally:
            links.give(link, sound=sound)

    def _ask_many(
        self, command: bytes, many: Sequence[Asked[Any]], deadline: Deadline
    ) -> list[Any] | None:
        """What comes of each, in one statement; None when that was refused, as a whole."""

        def each(found: Rows) -> list[Any]:
            answers = {int(at or 0): fields for at, *fields in found}
            if len(answers) < len(many) and command != self._sql.add_many:
                raise ValueError(f"{len(answers)} answers to {len(many)} questions")
            return [
                asked.understand(answers.get(at, NO_ANSWER)) for at, asked in enumerate(many, 1)
            ]

        return self._ask_all(command, [asked.parameters for asked in many], deadline, each)

    def _ask_all(
        self,
        command: bytes,
        many: Sequence[Sequence[Value]],
        deadline: Deadline,
        understand: Callable[[Rows], list[Any]],
    ) -> list[Any] | None:
        """What ``understand`` makes of the answer to all of them; None as in `_ask_many`."""

        def each(result: pq.abc.PGresult) -> list[Any]:
            return understand(rows(result))

        parameters = [_json(many)]
        try:
            if command == self._sql.read_many:
                return understand(self._look(command, parameters, deadline.left()))
            return self._ask(command, parameters, deadline.left(), each, writes=True)
        except Refused:
            return None
        except CounterError as error:
            return [error.copy() for _ in many]
        except Ambiguous as error:
            return [Ambiguous(error.cause.copy()) for _ in many]

    def _one_by_one(self, steps: Sequence[StoreStep], deadline: Deadline) -> list[Any]:
        """What comes of each of ``steps`` alone: of the rest nothing, once the time is over."""
        came: list[Any] = []
        for step in steps:
            if came and deadline.left() == 0:
                came.append(StoreTimeoutError(TOO_LATE))
            else:
                came.append(self.outcome(step, deadline.left()))
        return came

    def _replacing(self, address: Address, old: Record | None, new: Record) -> Asked[bool]:
        entry = new.ledger.latest()
        ledger = EMPTY if old is None else old.ledger
        parameters = [
            *address,
            *_condition(old),
            "t" if new.deleted else "f",
            *(new.horizon, new.value, entry.writer, entry.number, entry.revision, entry.time),
            *(entry.before, entry.after, entry.codes, entry.minimum, entry.maximum),
            *ledger_change(ledger, new.ledger),
            _json({receipt.key: receipt.line for receipt in new.keys}) if new.keys else None,
            self.key_ttl,
        ]
        named = f"{entry.writer} {entry.number}"

        def was_written(fields: Fields) -> bool:
            (answer,) = fields
            if answer not in (named, REFUSED):
                raise ValueError(f"the answer is {answer!r}")
            return answer == named

        return Asked(parameters, was_written)

    def _refusal(self, refused: Refused, address: Address | None = None) -> CounterError:
        if address is not None and refused.state.startswith(NOT_DATA):
            return DamagedRecordError(
                f"the record of counter {address.name!r} in domain {address.domain!r} is "
                f"damaged: {refused}"
            )
        return refusal(refused, self.shown, self._schema)

    # Connections

    def _links(self) -> Links:
        if self.closed:
            raise StoreClosedError(f"{self!r} was closed; connect() opens it again")
        links = self._sources.get(here())
        if links is None:
            if self.client is not None:
                raise StoreError(
                    f"{self!r} was made from a client of another process: make both anew in this"
                )
            new = Own(self._options, self.shown, self._read_timeout, self._make_ready)
            links = self._sources.setdefault(here(), new)
        return links

    def _make_ready(self, link: Link, deadline: Deadline) -> None:
        """Look at the schema through a new connection, and prepare what is sent most."""
        if self._check(link, deadline) == link.pgconn.backend_pid:
            sql = self._sql
            commands = {
                "add": sql.add,
                "add again": sql.add_again,
                "replace": sql.replace,
                "read": sql.read,
            }
            with self._beforehand():
                link.prepare(commands, self._span(deadline))
            self._prepares = True

    def _check(self, link: Link, deadline: Deadline) -> int:
        """Look at the schema, which is created when it is not there, and at the settings.

        Returns the pid of the server's process, which is not the one that a
        pooler tells its clients.
        """
        with self._beforehand():
            found = self._found(link, deadline)
            if found is None:
                self._create(link, deadline)
                found = self._found(link, deadline)
            if found is None or len(found) != 1:
                raise StoreError(
                    f"the schema {self._schema!r} at {self.shown} has tables of another program, "
                    "or not all of truecount's: name another by ?schema="
                )
            version, standby, pid, encoding, *settings = map(str, found[0])
            if int(version) > VERSION:
                raise StoreError(
                    f"the schema {self._schema!r} at {self.shown} was written by a newer "
                    f"truecount (format {version}; this one knows {VERSION}): upgrade truecount"
                )
            if encoding != "UTF8":
                raise StoreError(
                    f"the database at {self.shown} has the encoding {encoding}, in which not "
                    "every name can be written: use one with UTF8"
                )
            if standby != "f":
                raise StoreUnavailableError(
                    f"{self.shown} is a hot standby, which lags behind: name the primary"
                )
        if here() not in self._checked:
            self._checked.add(here())
            self._warn(settings)
        return int(pid)

    def _found(self, link: Link, deadline: Deadline) -> Rows | None:
        try:
            (result,) = link.ask(self._sql.check, (), self._span(deadline))
        except Refused as refused:
            if refused.state not in NOT_THERE:
                raise
            return None
        return rows(result)

    def _create(self, link: Link, deadline: Deadline) -> None:
        """Create the schema, unless somebody else does."""
        try:
            link.ask(self._sql.create, (), deadline.left())
        except Refused as refused:
            if refused.state == DENIED:
                raise StoreError(
                    f"{self.shown} has no schema {self._schema!r} for truecount yet, and this "
                    f"user may not create it ({refused}): have one who may run what `python -m "
                    f"truecount.stores.postgresql.layout {self._schema}` prints"
                ) from refused
            if refused.state not in THERE_ALREADY:
                raise

    def _warn(self, settings: Sequence[str]) -> None:
        for (name, losing), found in zip(LOSING.items(), settings, strict=True):
            if found == losing:
                warnings.warn(
                    f"{name} is {found} at {self.shown}: a crash of the server may lose changes "
                    "that it has acknowledged",
                    StoreWarning,
                    stacklevel=2,
                )

    def _span(self, deadline: Deadline) -> float:
        left = deadline.left()
        return self._read_timeout if left is None else min(left, self._read_timeout)

    @contextlib.contextmanager
    def _beforehand(self) -> Iterator[None]:
        """What comes before a request is no part of it: that was not sent."""
        try:
            yield
        except Ambiguous as error:
            raise error.cause from error
        except Refused as refused:
            raise self._refusal(refused) from refused


class Asked(NamedTuple, Generic[T]):
    """The parameters of a step's statement, and what its one row means."""

    parameters: Sequence[Value]
    understand: Callable[[Fields], T]

    def if_any(self, result: pq.abc.PGresult) -> T | None:
        """What ``result`` means, if it has a row at all."""
        return self.only(result) if result.ntuples else None

    def only(self, result: pq.abc.PGresult) -> T:
        """What ``result``, which has no other row, means."""
        (fields,) = rows(result)
        return self.understand(fields)


def _reading(address: Address, keys: tuple[str, ...]) -> Asked[Record | None]:
    def there(fields: Fields) -> Record | None:
        *columns, receipts = fields
        record = read_row(address, columns)
        return record and record._replace(keys=read_keys(address, keys, receipts))

    return Asked([*address, _json(keys)], there)


def _adding(address: Address, batch: Batch) -> Asked[Answer] | None:
    """How to settle ``batch``; None: it is beyond the database's arithmetic."""
    adds = sums(batch)
    if adds is None or not -2 * MOST <= adds.lowest <= adds.highest <= 2 * MOST:
        return None
    writer, number, since = batch[:3]
    parameters = (*address, writer, number, since, *adds, now())

    def answer(fields: Fields) -> Answer:
        (text,) = fields
        if text is None:
            return beyond(batch)
        return added(batch, *_addition(text, writer, number))

    return make(Asked, (parameters, answer))


def _questions(additions: Additions, order: Sequence[int]) -> list[Sequence[Value]]:
    """What the database is told of ``additions``: their places, in that order."""
    addresses, writers, numbers, since, adds = additions
    time = now()
    questions: list[Sequence[Value]] = []
    for at in order:
        amount = adds[at].amount
        adding = amount, amount, amount, None  # as `Sums` has them
        questions.append((*addresses[at], writers[at], numbers[at], since[at], *adding, time))
    return questions


def _decisions(
    additions: Additions, order: Sequence[int], text: str
) -> Iterator[tuple[int, Decided]]:
    """What became of those that were applied, by place, in the words of the database."""
    _, writers, numbers, _, adds = additions
    for line in text.splitlines():
        place, _, told = line.partition(" ")
        at = order[int(place) - 1]
        answer = _addition(told, writers[at], numbers[at])
        yield at, added_one(writers[at], numbers[at], adds[at].amount, *answer)


def _addition(text: str, writer: str, number: int) -> tuple[int, int, int, int | None, int | None]:
    """What an addition says that was applied: value before, revision, time and the bounds."""
    name, count, revision, time, before, low, high = text.split(" ")
    if name != writer or int(count) != number:
        raise ValueError(f"the answer is about {name} {count}")
    minimum = None if low == "-" else int(low)
    maximum = None if high == "-" else int(high)
    return int(before), int(revision), int(time), minimum, maximum


def _options(url: StoreURL, given: set[str]) -> dict[str, str]:
    """What libpq makes of ``url``, of whose options it gets those that are ``given``."""
    query = url.text.partition("?")[2].split("&")
    options = [option for option in query if option.partition("=")[0] in given]
    try:
        parsed = conninfo.conninfo_to_dict(f"postgresql://{url.rest}?{'&'.join(options)}")
    except Exception as error:
        # Its words may repeat a part of the password.
        reason = "its parts cannot be told from each other" if url.secret else str(error).strip()
        raise StoreURLError(
            f"{url.shown!r} is not the URL of a database, such as "
            f"postgresql://user@127.0.0.1:5432/database: {reason}"
        ) from (None if url.secret else error)
    return {name: str(value) for name, value in parsed.items()}


def _patience(span: float | None) -> int:
    """How long a statement may wait for a lock, in milliseconds; 0: without end.

    So long that its refusal comes in time: that is definite, and silence is not.
    """
    if span is None:
        return 0
    return max(int((span - max(span / 5, MARGIN)) * 1000), 1)


def _condition(old: Record | None) -> tuple[Value, ...]:
    """By what a replacement knows ``old``: its stamp, and what others might write."""
    if old is None:
        return (None,) * 6
    return (*old.stamp, old.value, old.minimum, old.maximum)


def _texts(parameters: Sequence[Value]) -> list[bytes | None]:
    """``parameters``, as libpq takes them."""
    return [
        None if value is None else b"%d" % value if type(value) is int else str(value).encode()
        for value in parameters
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
