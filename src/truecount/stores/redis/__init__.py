"""Counters in Redis or Valkey: ``redis://127.0.0.1:6379/0``, ``redis+cluster://…``.

Redis runs a script without a break, so one request sees the whole record and
changes it. `scripts` has the Lua, `layout` the format, `client` the
connections and the errors.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from secrets import token_hex
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from truecount.change import Answer, Batch, Change
from truecount.errors import (
    DamagedRecordError,
    StoreClosedError,
    StoreUnavailableError,
    StoreURLError,
)
from truecount.moment import now
from truecount.process import Process, here, known
from truecount.record import Address, Record, make
from truecount.steps import Replace, Settle, StoreStep
from truecount.stores.base import Ambiguous, Store, patiently
from truecount.stores.redis.client import Asked, Client, Node, Place, Target
from truecount.stores.redis.latest import Foreseen, Latest, foresee, written
from truecount.stores.redis.layout import (
    address_of,
    changed,
    is_receipt,
    key_of,
    newest,
    pattern,
    read_receipt,
    read_record,
    read_value,
    receipt_key,
    state,
)
from truecount.stores.redis.scripts import (
    ADD,
    LIMIT,
    READ,
    REMOVE,
    REPLACE,
    Request,
    command,
    text_of,
)
from truecount.sums import Sums, added, beyond, is_sum, sums
from truecount.url import StoreURL

__all__ = ["RedisStore"]

READ_TIMEOUT: Final = 2.0
"""Seconds to wait for one answer unless told otherwise."""

PORT: Final = 6379

PAGE: Final = 500
"""How many keys are looked through, or values asked for, in one request."""

LATEST: Final = 4096
"""Counters of which the latest write is kept in mind."""

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]+")

_CONNECTION: Final = ("client_name", "db", "password", "username")
_TLS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password")


class RedisStore(Store):
    """A database of a Redis or Valkey server, or a cluster of them.

    Options: ``timeout``, ``key_ttl``, ``prefix`` (of every key), ``read_timeout``
    (seconds to wait for one answer before asking what became of the request),
    ``wait`` (for so many replicas, after every write), ``fence=always``, and
    those of redis-py for TLS.
    """

    carries = True

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        tls, cluster = url.scheme.startswith("rediss"), url.scheme.endswith("+cluster")
        names = _CONNECTION + _TLS * tls
        options: dict[str, Any] = {name: url.option(name) for name in names}
        if tls:
            options["ssl_cert_reqs"] = url.choice("ssl_cert_reqs", ("required", "optional", "none"))
            checks = url.choice("ssl_check_hostname", ("true", "false"))
            options["ssl_check_hostname"] = checks == "true"
        self._set_up(url)
        options = {name: value for name, value in options.items() if value is not None}
        self.url = url.text
        self._target = _target(url, options, tls=tls, cluster=cluster)

    def _set_up(self, url: StoreURL) -> None:
        """Take the options that do not concern connections."""
        self._read_timeout = url.positive_seconds("read_timeout", READ_TIMEOUT)
        self._replicas = url.count("wait", 0)
        self.always_fence = url.choice("fence", ("doubt", "always")) == "always"
        self._prefix = url.option("prefix") or "truecount"
        url.finish()
        if _PREFIX.fullmatch(self._prefix) is None:
            raise StoreURLError(f"?prefix={self._prefix}: it is of letters, digits and _.:/-")
        self._key = lru_cache(4096)(partial(key_of, self._prefix))
        self._clients: dict[Process, Client] = {}
        self._latest: dict[Address, Latest] = {}

    @classmethod
    def from_client(cls, client: Any, url: StoreURL) -> Self:
        store = cls.__new__(cls)
        Store.__init__(store, url)
        store._set_up(url)
        store.client = client
        seeds = None
        if url.scheme.endswith("+cluster"):
            nodes = client.get_nodes()
            seeds = tuple((node.host, node.port) for node in nodes)
            client = client.get_redis_connection(nodes[0])
        pool = client.connection_pool
        options = pool.connection_kwargs
        host, port = options.get("host", "localhost"), options.get("port", PORT)
        where = options.get("path") or f"{host}:{port}"
        scheme, mark, query = url.text.partition("://")
        store.url = f"{scheme}{mark}{where}/{options.get('db') or 0}{query}"
        store._target = Target(pool.connection_class, options, seeds, store.shown)
        return store

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        record: Record | None = self._ask(self._reading(address, keys), timeout)
        return record

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        done: bool | Record = self._ask(self._replacing(address, old, new), timeout)
        return done

    def settles(self, change: Change) -> bool:
        return is_sum(change)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        adds = _sums(batch)
        if adds is None:
            return beyond(batch)
        latest = self._latest.get(address)
        # Where answered requests come again, one that was in vain could be done later.
        if latest is not None and not self.always_fence:
            foreseen = foresee(latest, self._key(address), batch, adds, now())
            if foreseen is not None:
                began, process = time.monotonic(), known()
                came = self._ask_next(address, foreseen, timeout)
                if came is not None:
                    return came
                if known() is not process:  # forked in a signal's handler: it is the parent's
                    raise Ambiguous(StoreUnavailableError("the process was forked meanwhile"))
                if timeout is not None:
                    timeout = max(timeout - (time.monotonic() - began), 0.0)
        answer: Answer = self._ask(self._adding(address, batch, adds, alone=True), timeout)
        return answer

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        came: dict[int, Any] = {}
        many: dict[int, Asked] = {}
        for at, step in enumerate(steps):
            if isinstance(step, Settle):
                adds = _sums(step.batch)
                if adds is None:
                    came[at] = beyond(step.batch)
                    continue
                many[at] = self._adding(*step, adds)
            elif isinstance(step, Replace):
                many[at] = self._replacing(*step)
            else:
                many[at] = self._reading(*step)
        found = self._client().ask_many(list(many.values()), timeout, proven=True)
        came.update(zip(many, found, strict=True))
        return [came[at] for at in range(len(steps))]

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        there = self._values(pattern(self._prefix), others=True)
        return iter(sorted({address.domain for address in there}))

    def snapshot(self, domain: str) -> dict[str, int]:
        there = self._values(pattern(self._prefix, domain))
        return {address.name: there[address] for address in sorted(there)}

    def purge(self, before: int) -> int:
        # One look over all: what has a receipt now may still be asked for it.
        found = self._scan(pattern(self._prefix, receipts=True))
        keyed = {address for key, address in found.items() if is_receipt(key)}
        gone = 0
        for address in set(found.values()) - keyed:
            look = partial(self.read, address, timeout=self.timeout)
            try:
                record = patiently(look, self.timeout)
            except DamagedRecordError:
                continue  # whose it is, is for those to find out who count with it
            if record is not None and record.deleted_before(before):
                line = record.ledger.lines[record.stamp.writer]
                arguments = map(text_of, (state(record), record.stamp.writer, line))
                request = REMOVE.call((self._key(address),), *arguments)
                ask = self._client().ask
                remove = partial(ask, request, self.timeout, self._how_many, proven=True)
                gone += patiently(remove, self.timeout)
        return gone

    def close(self) -> None:
        self.closed = True
        client = self._clients.pop(here(), None)
        if client is not None:
            client.close()

    # Parts of it

    def _ask(self, asked: Asked, timeout: float | None) -> Any:
        return self._client().ask(asked.request, timeout, asked.understand, proven=True)

    def _reading(self, address: Address, keys: tuple[str, ...]) -> Asked:
        key = self._key(address)
        nonce = token_hex(8).encode()
        touch = (b"touch",) if self._replicas else ()
        request = READ.call([key, *(receipt_key(key, name) for name in keys)], nonce, *touch)

        def there(answer: Any) -> Record | None:
            match answer:
                case [bytes(told), list(fields), list(receipts)] if (
                    told == nonce
                    and len(receipts) == len(keys)
                    and _are_texts(fields)
                    and _are_texts(receipts)
                ):
                    record = read_record(address, fields)
                    if record is None or not keys:
                        return record
                    found = zip(keys, receipts, strict=True)
                    lines = [(key, line) for key, line in found if line is not None]
                    return record._replace(
                        keys=tuple(read_receipt(address, key, line) for key, line in lines)
                    )
            raise self._strange(answer)

        return Asked(request, there)

    def _replacing(self, address: Address, old: Record | None, new: Record) -> Asked:
        key = self._key(address)
        self._latest.pop(address, None)
        pairs, gone = changed(old, new)
        name = f"{new.stamp.writer} {new.stamp.number}"
        there = ("", "", "", "")
        if old is not None:
            there = (old.stamp.writer, state(old), str(old.value), newest(old))
        request = REPLACE.call(
            [key, *(receipt_key(key, receipt.key) for receipt in new.keys)],
            *map(text_of, (name, *there, max(int(self.key_ttl * 1000), 1))),
            *map(text_of, (len(pairs), *pairs, len(gone), *gone)),
            *(receipt.line.encode() for receipt in new.keys),
        )
        whose = name.encode()

        def done(answer: Any) -> bool | Record:
            match answer:
                case [bytes(told), 1] if told == whose:
                    return True
                case [bytes(told), 0] if told == whose:
                    return False
                case [bytes(told), 0, list(fields)] if told == whose and _are_texts(fields):
                    return False if self._replicas else read_record(address, fields) or False
            raise self._strange(answer)

        return Asked(request, done)

    def _adding(self, address: Address, batch: Batch, adds: Sums, *, alone: bool = False) -> Asked:
        """How to have the script settle ``batch``, which comes to ``adds``.

        ``alone``: others are likely to follow it by themselves.
        """
        writer, number, since = batch[:3]
        total, lowest, highest, expected = adds
        base = b"-" if expected is None else b"%d" % expected
        name = b"%b %d" % (writer.encode(), number)
        key = self._key(address)
        request = ADD.call(
            (key,),
            b"%b %d %d %d %d %b %d %d"
            % (name, since, total, lowest, highest, base, now(), self.writers),
        )
        before = self._latest.pop(address, None)

        def done(answer: Any) -> Answer:
            try:
                if answer == name:
                    return beyond(batch)
                told = answer.split(b" ", 9)
                who, which, revision, time, value, _, _, low, high, _ = told
                if b"%b %b" % (who, which) != name:
                    raise self._strange(answer)
                minimum = None if low == b"-" else int(low)
                maximum = None if high == b"-" else int(high)
                came = added(batch, int(value), int(revision), int(time), minimum, maximum)
            except (AttributeError, ValueError):
                raise self._strange(answer) from None
            if alone:
                if len(self._latest) >= LATEST:
                    self._latest.clear()
                self._latest[address] = written(before, key, came, told)
            return came

        return make(Asked, (request, done))

    def _ask_next(
        self, address: Address, foreseen: Foreseen, timeout: float | None
    ) -> Answer | None:
        """What comes of it; None: the record is not the one any more that this process left."""
        request, name = foreseen[:2]

        def done(told: Any) -> Answer | None:
            if told == name + b" +":
                answer, self._latest[address] = foreseen.outcome()
                return answer
            if told == name + b" -":
                return None
            raise self._strange(told)

        self._latest.pop(address, None)
        return self._client().ask(request, timeout, done, proven=True)

    def _client(self) -> Client:
        client = self._clients.get(here())
        if client is None:
            if self.closed:
                raise StoreClosedError(f"{self!r} was closed; connect() opens it again")
            new = Client(self._target, self._read_timeout, self._replicas)
            client = self._clients.setdefault(here(), new)
        return client

    def _strange(self, answer: object) -> Ambiguous:
        text = f"{self.shown} answers something else than it was asked for: {answer!r:.200}"
        return Ambiguous(StoreUnavailableError(text))

    def _scan(self, match: bytes) -> dict[bytes, Address]:
        """The keys of ours that match, and whose they are."""
        client = self._client()
        found: dict[bytes, Address] = {}
        for node in patiently(partial(client.primaries, self.timeout), self.timeout):
            cursor = b"0"
            while True:
                page = partial(self._page, client, node, match, cursor)
                cursor, keys = patiently(page, self.timeout)
                for key in keys:
                    address = address_of(self._prefix, key)
                    if address is not None:
                        found[key] = address
                if cursor == b"0":
                    break
        return found

    def _fields(self, requests: list[Request]) -> list[Any]:
        """Two fields of every record, or the damage that is there instead."""

        def two(answer: Any) -> list[Any]:
            match answer:
                case [_, _] if _are_texts(answer):
                    return list(answer)
            raise self._strange(answer)

        asked = [Asked(request, two) for request in requests]
        answers = self._client().ask_many(asked, self.timeout)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, DamagedRecordError):
                raise answer
        return answers

    def _how_many(self, answer: Any) -> int:
        if type(answer) is not int:
            raise self._strange(answer)
        return answer

    def _page(
        self, client: Client, node: Node, match: bytes, cursor: bytes
    ) -> tuple[bytes, list[bytes]]:
        """One page of a listing: where the next begins, and keys."""
        packed = command(b"SCAN", cursor, b"MATCH", match, b"COUNT", b"%d" % PAGE)

        def page(answer: Any) -> tuple[bytes, list[bytes]]:
            match answer:
                case [bytes(following), list(keys)] if following.isdigit() and _are_texts(keys):
                    return following, keys
            raise self._strange(answer)

        return client.ask_node(node, packed, self.timeout, page)

    def _values(self, match: bytes, *, others: bool = False) -> dict[Address, int]:
        """The values of the counters whose keys match.

        ``others``: what other programs have put there is passed over.
        """
        keys = list(self._scan(match).items())
        values = {}
        for start in range(0, len(keys), PAGE):
            part = keys[start : start + PAGE]
            requests = [Request(k, command(b"HMGET", k, b"truecount", b"value")) for k, _ in part]
            answers = patiently(partial(self._fields, requests), self.timeout)
            for (_, address), there in zip(part, answers, strict=True):
                try:
                    if isinstance(there, DamagedRecordError):
                        raise there
                    value = read_value(address, there)
                except DamagedRecordError:
                    if others:
                        continue
                    raise
                if value is not None:
                    values[address] = value
        return values


def _sums(batch: Batch) -> Sums | None:
    """What ``batch`` adds; None: it is beyond the scripts' arithmetic."""
    adds = sums(batch)
    if adds is None or not (max(adds.highest, batch.since) < LIMIT and adds.lowest > -LIMIT):
        return None
    return adds


def _are_texts(fields: list[Any]) -> bool:
    """Whether ``fields`` are what Redis answers for fields, some of which may not be there."""
    return all(field is None or type(field) is bytes for field in fields)


def _target(url: StoreURL, options: dict[str, Any], *, tls: bool, cluster: bool) -> Target:
    """What the URL says about connections."""
    seeds = None
    if url.rest.startswith("/"):
        if tls or cluster:
            raise StoreURLError(f"{url.shown!r}: a socket file is redis:///run/redis.sock?db=0")
        database = options.pop("db", "0")
        options["path"] = unquote(url.rest)
        kind: Any = UnixDomainSocketConnection
    else:
        user, at, place = url.rest.rpartition("@")
        hosts, _, database = place.partition("/")
        database = options.pop("db", database or "0")
        if at:
            name, colon, password = user.partition(":")
            if name:
                options["username"] = unquote(name)
            if colon:
                options["password"] = unquote(password)
        if cluster:
            seeds = tuple(_place(url, host) for host in hosts.split(","))
        else:
            options["host"], options["port"] = _place(url, hosts)
        kind = SSLConnection if tls else Connection
    if not (database.isascii() and database.isdigit()) or (cluster and database != "0"):
        raise StoreURLError(f"{url.shown!r}: the database is a number, and 0 in a cluster")
    options["db"] = int(database)
    return Target(kind, options, seeds, url.shown)


def _place(url: StoreURL, text: str) -> Place:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or not parts.hostname or parts.path:
        raise StoreURLError(
            f"{url.shown!r} names no Redis: write redis://127.0.0.1:6379/0, with rediss:// for "
            "TLS and redis+cluster:// for a cluster"
        )
    return parts.hostname, PORT if port is None else port
