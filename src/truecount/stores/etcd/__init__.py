"""Counters in etcd 3.4 or newer: ``etcd://127.0.0.1:2379``.

`layout` knows how a counter lies there, `service` the requests. A write is one
transaction, conditional on the record's own text, which ends with the stamp of
the write that made it. Where it is refused, the same transaction brings what
is there instead.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import unquote

from truecount import moment
from truecount.errors import (
    CounterError,
    DamagedRecordError,
    StoreClosedError,
    StoreFullError,
    StoreURLError,
)
from truecount.process import Process, here
from truecount.record import Address, KeyReceipt, Record, Stamp
from truecount.stores.base import Ambiguous, Deadline, Store, beforehand, patiently
from truecount.stores.etcd.layout import (
    RECENT,
    Kept,
    Layout,
    Text,
    end_of,
    is_last,
    read_receipt,
    read_record,
    receipt_text,
    text_of,
)
from truecount.stores.etcd.service import (
    Found,
    LeaseGoneError,
    Login,
    Operation,
    Service,
    Tls,
    count,
    delete,
    fetch,
    holds,
    put,
)
from truecount.url import StoreURL

__all__ = ["EtcdStore"]

PORT: Final = 2379
"""Where etcd listens unless told otherwise."""

PREFIX: Final = "truecount"
"""What all keys begin with unless told otherwise."""

READ_TIMEOUT: Final = 2.0
"""Seconds to wait for one answer unless told otherwise."""

PAGE: Final = 1000
"""Counters that are listed by one request."""

MEMORY: Final = 1024
"""Counters of which it is known that an older version of the format keeps them."""

LONGEST_LEASE: Final = 9_000_000_000
"""Seconds that a lease of etcd's can live."""

MARGIN: Final = 60
"""Seconds that a lease outlives its keys, whose own expiry is exact."""

_PLACE: Final = re.compile(
    r"(?:(?P<login>[^@/]*)@)?(?P<hosts>[^@/]+)(?:/(?P<prefix>[A-Za-z0-9._~/-]*))?"
)
_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")

# Goes on while the machine sleeps, as the life of a lease does.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease(NamedTuple):
    """A lease for the keys that are put before ``until``, an instant of `_CLOCK`."""

    id: int
    until: float


class EtcdStore(Store):
    """An etcd, of one or more members.

    Options: ``timeout``, ``key_ttl``, ``read_timeout`` (seconds to wait for one
    answer before asking what became of the request), and with ``etcds://``
    ``cacert``, ``cert`` and ``key``, paths of files.
    """

    carries = True
    key_limit = 32
    """Even with the longest names, so many receipts fit into a request."""

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        self._read_timeout = url.positive_seconds("read_timeout", READ_TIMEOUT)
        files = {name: url.option(name) for name in ("cacert", "cert", "key")}
        url.finish()
        self.url = url.text
        self._endpoints, self._login, prefix = _place(url)
        self._layout = Layout(prefix)
        self._tls = _tls(url, files)
        # One lease serves the keys of a while; it must outlive the last of them.
        self._window = max(self.key_ttl / 100, MARGIN)
        self._life = math.ceil(self.key_ttl + self._window) + MARGIN
        if self._life > LONGEST_LEASE:
            raise StoreURLError(f"?key_ttl={self.key_ttl:.15g}: no lease of etcd's lives so long")
        self._lease: Lease | None = None
        self._former: dict[Address, tuple[Stamp, int]] = {}  # kept as an older version does
        self._services: dict[Process, Service] = {}

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        places = [fetch(self._layout.key(address, key)) for key in keys]
        outcome = self._service().transact((), [*self._fetches(address), *places], (), timeout)
        record = self._record(address, outcome.found)
        if record is None or not keys:
            return record
        now = moment.now()
        receipts: tuple[KeyReceipt, ...] = ()
        for key, found in zip(keys, outcome.found[2:], strict=True):
            for pair in found:
                receipt, expires = read_receipt(address, key, pair.value)
                if now < expires:
                    receipts += (receipt,)
        return record._replace(keys=receipts)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        if old is not None and not is_last(old):
            return False
        deadline = Deadline(timeout)
        place = self._layout.counter(address)
        there = None if old is None else text_of(old, self._recent_in(address, old))
        text = text_of(new)
        condition = holds(place, None if there is None else there.record)
        steps = [put(place, text.record), *self._line_steps(address, there, text)]
        try:
            if new.keys:
                return self._replace_with_keys(address, condition, steps, new.keys, deadline)
            # A refusal that brought the record would cost more than a read, and where
            # several processes are at it, it is out of date before it is used.
            return self._service().transact([condition], steps, [count(place)], timeout).succeeded
        except Ambiguous as error:
            if not isinstance(error.cause, StoreFullError):
                raise
            return self._replaced_when_full(address, old, new, error, deadline)

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        found = set()
        start, end = self._layout.counters, end_of(self._layout.counters)
        while page := self._page(start, end):
            for pair in page:
                with suppress(DamagedRecordError):
                    address = self._layout.address(pair.key)
                    if not read_record(address, pair.value, {})[0].deleted:
                        found.add(address.domain)
            start = f"{page[-1].key}\0"
            with suppress(DamagedRecordError):
                last = self._layout.address(page[-1].key).domain
                if last in found:  # pass over the rest of it
                    start = end_of(self._layout.domain(last))
        return iter(sorted(found))

    def snapshot(self, domain: str) -> dict[str, int]:
        counters = self._counters(self._layout.domain(domain))
        return dict(sorted((a.name, r.value) for a, r in counters if not r.deleted))

    def purge(self, before: int) -> int:
        gone = 0
        # Whose a damaged record is now, is for those to find out who count with it.
        for address, record in self._counters(self._layout.counters, strict=False):
            if not record.deleted_before(before) or self._has_keys(address):
                continue
            writers, keys = self._layout.writers(address), self._layout.keys(address)
            place = self._layout.counter(address)
            transact = partial(
                self._service().transact,
                [holds(place, text_of(record).record)],
                [delete(place), delete(writers, end_of(writers)), delete(keys, end_of(keys))],
                (),
                self.timeout,
            )
            gone += patiently(transact, self.timeout).succeeded
        return gone

    def close(self) -> None:
        self.closed = True
        service = self._services.pop(here(), None)
        if service is not None:
            service.close()

    # Parts of it

    def _fetches(self, address: Address) -> list[Operation]:
        """The steps that find what `_record` reads."""
        writers = self._layout.writers(address)
        return [fetch(self._layout.counter(address)), fetch(writers, end_of(writers))]

    def _record(self, address: Address, found: list[list[Found]]) -> Record | None:
        records, lines = found[:2]
        if not records:
            return None
        start = len(self._layout.writers(address))
        record, recent = read_record(
            address, records[0].value, {pair.key[start:]: pair.value for pair in lines}
        )
        if recent != RECENT:
            if len(self._former) >= MEMORY:
                self._former.clear()  # who has read one of them is refused, and reads it again
            self._former[address] = record.stamp, recent
        return record

    def _recent_in(self, address: Address, record: Record) -> int:
        """How many lines are recent in ``record`` as it is kept."""
        stamp, recent = self._former.get(address, (None, RECENT))
        return recent if stamp == record.stamp else RECENT

    def _line_steps(self, address: Address, old: Text | None, new: Text) -> list[Operation]:
        lines, gone = new.changes(old)
        if not (lines or gone):
            return []
        writers = self._layout.writers(address)
        return [
            *(put(writers + writer, line) for writer, line in lines.items()),
            *(delete(writers + writer) for writer in gone),
        ]

    def _replace_with_keys(
        self,
        address: Address,
        condition: Operation,
        steps: list[Operation],
        receipts: tuple[KeyReceipt, ...],
        deadline: Deadline,
    ) -> bool:
        service = self._service()
        lease = self._current_lease(service, deadline)
        now = moment.now()
        expires = now + int(self.key_ttl * 1_000_000)
        places = {self._layout.key(address, receipt.key): receipt for receipt in receipts}
        steps = steps + [
            put(place, receipt_text(Kept(receipt, expires)), lease)
            for place, receipt in places.items()
        ]
        expired: dict[str, bytes] = {}
        while True:
            conditions = [condition, *(holds(place, expired.get(place)) for place in places)]
            deadline.check()
            try:
                outcome = service.transact(
                    conditions, steps, [fetch(place) for place in places], deadline.left()
                )
            except LeaseGoneError:
                self._lease = None  # the next attempt takes another one
                raise
            if outcome.succeeded or expired:
                return outcome.succeeded
            # An expired receipt whose lease lives on is in nobody's way.
            for pair in (pair for found in outcome.found for pair in found):
                if now < read_receipt(address, places[pair.key].key, pair.value).expires:
                    return False
                expired[pair.key] = pair.value
            if not expired:
                return False

    def _replaced_when_full(
        self,
        address: Address,
        old: Record | None,
        new: Record,
        full: Ambiguous,
        deadline: Deadline,
    ) -> bool:
        """What became of a write that was told NOSPACE: True, if it was done all the same.

        It was answered, so it travels no longer: the record shows what became of it.
        """
        try:
            record = self.read(address, timeout=deadline.left())
        except (Ambiguous, CounterError):
            raise full from full.cause
        revision, writer, number = new.stamp
        if record is None:
            if old is not None:
                raise full  # removed altogether: nothing remembers
            raise full.cause
        if record.ledger.entry(writer) == new.ledger.entry(writer):
            return True
        if record.ledger.number(writer) >= number or record.horizon >= revision:
            raise full  # another attempt's receipt, or it was forgotten
        raise full.cause

    def _current_lease(self, service: Service, deadline: Deadline) -> int:
        """A lease that lives for `key_ttl` and longer."""
        lease = self._lease
        now = time.clock_gettime(_CLOCK)
        if lease is None or now >= lease.until:
            with beforehand():
                lease = Lease(service.grant(self._life, deadline.left()), now + self._window)
            self._lease = lease
        return lease.id

    def _counters(self, start: str, *, strict: bool = True) -> Iterator[tuple[Address, Record]]:
        """The counters whose keys begin with ``start``, with what their records say alone.

        Not ``strict``: what is damaged is passed over.
        """
        for pair in self._pairs(start):
            try:
                address = self._layout.address(pair.key)
                record, _ = read_record(address, pair.value, {})
            except DamagedRecordError:
                if strict:
                    raise
            else:
                yield address, record

    def _has_keys(self, address: Address) -> bool:
        """Whether a key of the counter is still remembered, or one cannot be read."""
        start = self._layout.keys(address)
        now = moment.now()
        try:
            return any(
                now < read_receipt(address, unquote(pair.key[len(start) :]), pair.value).expires
                for pair in self._pairs(start)
            )
        except DamagedRecordError:
            return True

    def _pairs(self, start: str) -> Iterator[Found]:
        """What begins with ``start``, sorted."""
        end = end_of(start)
        while page := self._page(start, end):
            yield from page
            start = f"{page[-1].key}\0"

    def _page(self, start: str, end: str) -> list[Found]:
        page = partial(self._service().page, start, end, PAGE, self.timeout)
        return patiently(page, self.timeout)

    def _service(self) -> Service:
        if self.closed:
            raise StoreClosedError(f"{self!r} was closed; connect() opens it again")
        service = self._services.get(here())
        if service is None:
            new = Service(self._endpoints, self._login, self._tls, self._read_timeout)
            service = self._services.setdefault(here(), new)
        return service


def _place(url: StoreURL) -> tuple[list[tuple[str, int]], Login | None, str]:
    """The endpoints, the user and the prefix that ``url`` names."""
    place = _PLACE.fullmatch(url.rest)
    hosts = [] if place is None else [_HOST.fullmatch(host) for host in place["hosts"].split(",")]
    endpoints = [(host["host"], int(host["port"] or PORT)) for host in hosts if host is not None]
    login = None
    if place is not None and place["login"] is not None:
        name, _, password = place["login"].partition(":")
        login = Login(unquote(name), unquote(password))
    if (
        place is None
        or len(endpoints) != len(hosts)
        or not all(0 < port < 65536 for _, port in endpoints)
        or (login is not None and not (login.name and login.password))
    ):
        raise StoreURLError(
            f"{url.shown!r} names no etcd: write etcd://127.0.0.1:2379, or "
            "etcd://user:password@host1:2379,host2:2379/prefix with what is special quoted (%2F)"
        )
    return endpoints, login, (place["prefix"] or "").strip("/") or PREFIX


def _tls(url: StoreURL, files: dict[str, str | None]) -> Tls | None:
    """The files that prove who is who; None without TLS."""
    given = [name for name, path in files.items() if path is not None]
    if url.scheme == "etcd":
        if given:
            raise StoreURLError(f"?{given[0]}= is for TLS: write etcds:// instead of etcd://")
        return None
    if files["key"] is not None and files["cert"] is None:
        raise StoreURLError("?key= is the private key of a certificate: give ?cert= too")
    paths = {name: os.path.abspath(path) if path else None for name, path in files.items()}
    return Tls(**paths)
