"""How counters lie in etcd: from a record to keys and values, and back. Pure.

The format is described in ``docs/stores.md``. A counter's record is one key
with the ledger's latest lines in it; the older ones are keys of their own
elsewhere. So writes put one key each, those of one writer a small one, as etcd
keeps every version until it is compacted.

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
from truecount.record import WRITERS, Address, KeyReceipt, Ledger, Record, make

__all__ = [
    "RECENT",
    "Kept",
    "Layout",
    "Text",
    "end_of",
    "is_last",
    "read_receipt",
    "read_record",
    "receipt_text",
    "text_of",
]

RECENT: Final = 4
"""The lines of so many revisions are in the record, which is written again each time.

So a few processes that take turns, or whose batches travel in one request, put one key.
"""

FORMER: Final = 1
"""As many as there were in version 1 of the format, which still is that of a single line."""

_VERSION: Final = "1"
_LATEST_VERSION: Final = "2"
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


class Text(NamedTuple):
    """A record, as it is kept: the value of its key, and the lines of which each is another's."""

    record: str
    others: str

    def changes(self, former: Text | None) -> tuple[dict[str, str], list[str]]:
        """What differs from ``former`` beside the record: lines to be put, writers whose go."""
        if former is not None and former.others == self.others:
            return {}, []
        before = {} if former is None else Ledger(former.others).lines
        after = Ledger(self.others).lines
        put = {writer: line for writer, line in after.items() if before.get(writer) != line}
        return put, [writer for writer in before if writer not in after]


def text_of(record: Record, recent: int = RECENT) -> Text:
    """How ``record`` is kept, with the lines of so many ``recent`` revisions in it."""
    text = record.ledger.text
    oldest = record.stamp.revision - recent
    end = text.rfind("\n", 0, -1)
    while end >= 0:
        start = text.rfind("\n", 0, end)
        if int(text[start + 1 : end].split(" ", 3)[2]) <= oldest:
            break
        end = start
    lines = text[end + 1 : -1]
    version = _LATEST_VERSION if "\n" in lines else _VERSION
    state = _DELETED if record.deleted else _LIVE
    head = f"{version} {record.value} {state} {record.horizon}\n"
    return make(Text, (head + lines, text[: end + 1]))


def read_record(address: Address, text: bytes, lines: Mapping[str, bytes]) -> tuple[Record, int]:
    """The record with that ``text``, and with the ``lines`` beside it; and how many are recent.

    Raises `DamagedRecordError`, naming the counter, for what truecount has not written.
    """
    try:
        return _read(text.decode(), lines)
    except (ValueError, DamagedRecordError) as error:
        raise _damaged(f"the record of {_named(address)}", error) from error


def _read(text: str, lines: Mapping[str, bytes]) -> tuple[Record, int]:
    head, _, recent = text.partition("\n")
    value, state, horizon = _unversioned(head, _LATEST_VERSION).split(" ")
    if state not in (_LIVE, _DELETED):
        raise DamagedRecordError(f"its state is {state[:60]!r}")
    ledger = {writer: line.decode() for writer, line in lines.items()}
    for latest in recent.split("\n"):
        writer, _, line = latest.partition(" ")
        if writer in ledger:
            raise DamagedRecordError(f"it has two lines of the writer {writer[:60]!r}")
        ledger[writer] = line
    if len(ledger) > WRITERS:
        raise DamagedRecordError(f"it has more than {WRITERS} writers")
    record = Record.of(value, int(state == _DELETED), horizon, Ledger.of(ledger))
    for count in (RECENT, FORMER):
        if text_of(record, count).record == text:
            return record, count
    raise DamagedRecordError("it is not written as truecount writes it")


def is_last(record: Record) -> bool:
    """Whether the stamp of ``record`` is that of its ledger's last line."""
    revision, writer, number = record.stamp
    text = record.ledger.text
    return text.startswith(f"{writer} {number} {revision} ", text.rfind("\n", 0, -1) + 1)


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


def _unversioned(text: str, latest: str = _VERSION) -> str:
    """``text`` without the version of the format before it, of which there is a ``latest``."""
    version, _, rest = text.partition(" ")
    if version not in (_VERSION, latest):
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
