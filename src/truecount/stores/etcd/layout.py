"""How counters lie in etcd: from a record to keys and values, and back. Pure.

The format is described in ``docs/stores.md``. A counter's record is one key
with the line of the writer that wrote last in it; the other writers' lines are
keys of their own elsewhere. So the writes of one writer put one small key
each, of which etcd keeps every version until it is compacted.

The text of a record ends with the stamp of the write that made it, so it never
repeats, not even in a restored backup, where etcd's own revisions do: it is
the condition of the next write.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from truecount.errors import DamagedRecordError
from truecount.record import WRITERS, Address, KeyReceipt, Ledger, Record

__all__ = [
    "Kept",
    "Layout",
    "changed_lines",
    "end_of",
    "is_last",
    "read_receipt",
    "read_record",
    "receipt_text",
    "record_text",
]

_VERSION: Final = "1"
_LIVE, _DELETED = "live", "deleted"


class Kept(NamedTuple):
    """The receipt of a key, and when it expires (microseconds since the epoch)."""

    receipt: KeyReceipt
    expires: int


class Layout:
    """The names of etcd's keys, all of them under ``prefix``.

    Those that others begin with end in a slash, which no quoted part holds.
    """

    def __init__(self, prefix: str) -> None:
        self.counters = f"{prefix}/c/"
        self._writers = f"{prefix}/w/"
        self._keys = f"{prefix}/k/"

    def counter(self, address: Address) -> str:
        """Where a counter's record is."""
        return self.domain(address.domain) + _quoted(address.name)

    def domain(self, domain: str) -> str:
        """What the records of a domain begin with."""
        return f"{self.counters}{_quoted(domain)}/"

    def address(self, key: str) -> Address:
        """Of which counter ``key`` is the record. Raises `DamagedRecordError`."""
        domain, _, name = key.removeprefix(self.counters).partition("/")
        address = Address(unquote(domain), unquote(name))
        if not (key.isascii() and domain and name) or self.counter(address) != key:
            raise DamagedRecordError(f"etcd's key {key!r} is none of truecount's: remove it")
        return address

    def writers(self, address: Address) -> str:
        """What the keys of the other writers' lines begin with; then comes the writer's name."""
        return f"{self._writers}{_quoted(address.domain)}/{_quoted(address.name)}/"

    def keys(self, address: Address) -> str:
        """What the receipts of a counter's keys begin with."""
        return f"{self._keys}{_quoted(address.domain)}/{_quoted(address.name)}/"

    def key(self, address: Address, key: str) -> str:
        """Where the receipt of ``key`` is."""
        return self.keys(address) + _quoted(key)


def end_of(start: str) -> str:
    """The first key after all that begin with ``start``, which ends in a slash."""
    return f"{start[:-1]}0"


# Records


def record_text(record: Record) -> str:
    """The value of a record's key."""
    state = _DELETED if record.deleted else _LIVE
    line = record.ledger.text[_last(record.ledger) : -1]
    return f"{_VERSION} {record.value} {state} {record.horizon}\n{line}"


def read_record(address: Address, text: bytes, lines: Mapping[str, bytes]) -> Record:
    """The record with that ``text``, and with the other writers' ``lines``.

    Raises `DamagedRecordError`, naming the counter, for what truecount has not written.
    """
    try:
        return _read(text.decode(), lines)
    except (ValueError, DamagedRecordError) as error:
        raise _damaged(f"the record of {_named(address)}", error) from error


def _read(text: str, lines: Mapping[str, bytes]) -> Record:
    head, _, newest = text.partition("\n")
    rest = _unversioned(head)
    value, state, horizon = rest.split(" ")
    if state not in (_LIVE, _DELETED):
        raise DamagedRecordError(f"its state is {state[:60]!r}")
    others = {writer: line.decode() for writer, line in lines.items()}
    last, _, line = newest.partition(" ")
    if last in others:
        raise DamagedRecordError(f"it has two lines of the writer {last[:60]!r}")
    if len(others) >= WRITERS:
        raise DamagedRecordError(f"it has more than {WRITERS} writers")
    ledger = Ledger.of({**others, last: line})
    record = Record.of(value, int(state == _DELETED), horizon, ledger)
    if record_text(record) != text:
        raise DamagedRecordError("it is not written as truecount writes it")
    return record


def changed_lines(old: Record | None, new: Record) -> tuple[dict[str, str], list[str]]:
    """What changes beside the record: lines to be put, and writers whose lines go."""
    if old is not None and _others(old) == _others(new):
        return {}, []
    before = {} if old is None else Ledger(_others(old)).lines
    after = Ledger(_others(new)).lines
    put = {writer: line for writer, line in after.items() if before.get(writer) != line}
    return put, [writer for writer in before if writer not in after]


def is_last(record: Record) -> bool:
    """Whether the stamp of ``record`` is that of its ledger's last line."""
    revision, writer, number = record.stamp
    return record.ledger.text.startswith(f"{writer} {number} {revision} ", _last(record.ledger))


def _last(ledger: Ledger) -> int:
    """Where the last line of the ledger begins."""
    return ledger.text.rfind("\n", 0, -1) + 1


def _others(record: Record) -> str:
    return record.ledger.text[: _last(record.ledger)]


# Receipts of keys


def receipt_text(kept: Kept) -> str:
    """The value under which the receipt of a key is kept."""
    return f"{_VERSION} {kept.expires} {kept.receipt.line}"


def read_receipt(address: Address, key: str, text: bytes) -> Kept:
    """The receipt of ``key`` with that ``text``. Raises `DamagedRecordError`."""
    try:
        expires, _, line = _unversioned(text.decode()).partition(" ")
        return Kept(KeyReceipt.of(key, line), int(expires))
    except (ValueError, DamagedRecordError) as error:
        raise _damaged(f"the receipt of key {key!r} of {_named(address)}", error) from error


def _unversioned(text: str) -> str:
    """``text`` without the version of the format before it."""
    version, _, rest = text.partition(" ")
    if version != _VERSION:
        if version.isdecimal():
            raise DamagedRecordError(
                f"its format is {version[:20]}, of a newer truecount: upgrade it"
            )
        raise DamagedRecordError(f"it is something else: {text[:60]!r}")
    return rest


@lru_cache(4096)
def _quoted(part: str) -> str:
    return quote(part, safe="")


def _named(address: Address) -> str:
    return f"counter {address.name!r} in domain {address.domain!r}"


def _damaged(what: str, error: Exception) -> DamagedRecordError:
    return DamagedRecordError(f"{what} is not as truecount left it: {error}")
