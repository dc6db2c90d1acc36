"""How a counter lies in Redis: from its key and fields to a record, and back. Pure.

The format is described in ``docs/stores.md``. A counter is one hash:
``truecount`` (the format, ``live`` or ``deleted``, the horizon), ``value``,
``last`` (the writer of the newest line) and ``w:WRITER``, a line a writer.
The receipt of a key is a string beside it, in the same slot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from truecount.errors import DamagedRecordError
from truecount.record import Address, KeyReceipt, Ledger, Record

__all__ = [
    "address_of",
    "changed",
    "is_receipt",
    "key_of",
    "newest",
    "pattern",
    "read_receipt",
    "read_record",
    "read_value",
    "receipt_key",
    "state",
]

FORMAT: Final = "1"

_STATE: Final = re.compile(r"(\d+) (live|deleted) (\d{1,100})", re.ASCII)
_DECIMAL: Final = re.compile(r"-?[0-9]{1,500}")
_WRITER: Final = "w:"


def key_of(prefix: str, address: Address) -> bytes:
    """Where the record at ``address`` is. What stands in braces decides on the slot."""
    domain, name = (quote(part, safe="") for part in address)
    return f"{prefix}:{{{domain}/{name}}}".encode()


def receipt_key(record_key: bytes, key: str) -> bytes:
    """Where the receipt of ``key`` is."""
    return b"%b:key:%b" % (record_key, quote(key, safe="").encode())


def pattern(prefix: str, domain: str | None = None, *, receipts: bool = False) -> bytes:
    """What SCAN finds the records by: of ``domain``, or all; with the ``receipts`` of keys too?"""
    inside = "*" if domain is None else f"{quote(domain, safe='')}/*"
    return f"{prefix}:{{{inside}}}{'*' if receipts else ''}".encode()


def address_of(prefix: str, key: bytes) -> Address | None:
    """Whose record, or receipt, is at ``key``; None when it is not one of ours."""
    try:
        inside = key.decode().removeprefix(f"{prefix}:{{").partition("}")[0]
        domain, _, name = inside.partition("/")
        address = Address(unquote(domain, errors="strict"), unquote(name, errors="strict"))
    except UnicodeDecodeError:
        return None
    ours = key_of(prefix, address)
    return address if key == ours or key.startswith(ours + b":key:") else None


def is_receipt(key: bytes) -> bool:
    """Whether the receipt of a key is at ``key``, one of ours."""
    return not key.endswith(b"}")


def state(record: Record) -> str:
    """The field ``truecount``."""
    return f"{FORMAT} {'deleted' if record.deleted else 'live'} {record.horizon}"


def newest(record: Record) -> str:
    """How the line of the latest write begins: with its number and revision."""
    return f"{record.stamp.number} {record.stamp.revision} "


def changed(old: Record | None, new: Record) -> tuple[list[str], list[str]]:
    """What is to be written, field and text in turn, and the fields to be removed."""
    before = {} if old is None else old.ledger.lines
    after = new.ledger.lines
    pairs = ["truecount", state(new), "value", str(new.value), "last", new.stamp.writer]
    for writer, line in after.items():
        if before.get(writer) != line:
            pairs += [_WRITER + writer, line]
    return pairs, [_WRITER + writer for writer in before if writer not in after]


def read_record(address: Address, fields: Sequence[bytes]) -> Record | None:
    """The record of which HGETALL answers ``fields``. Raises `DamagedRecordError`."""
    if not fields:
        return None
    try:
        there = _texts(fields)
        live, horizon = _read_state(there.pop("truecount", None))
        value, last = there.pop("value", None), there.pop("last", None)
        if value is None or last is None:
            raise DamagedRecordError("it has no 'value', or no 'last'")
        for name in there:
            if not name.startswith(_WRITER):
                raise DamagedRecordError(f"it has a field {name[:60]!r} that is none of ours")
        ledger = Ledger.of({name.removeprefix(_WRITER): line for name, line in there.items()})
        if not there or ledger.latest().writer != last:
            raise DamagedRecordError(f"its newest line is not that of 'last', {last[:60]!r}")
        return Record.of(value, not live, horizon, ledger)
    except DamagedRecordError as error:
        raise _damaged(address, error) from None


def read_value(address: Address, there: Sequence[bytes | None]) -> int | None:
    """The value, of ``truecount`` and ``value``; None when it is deleted, or not there any more.

    Raises `DamagedRecordError`.
    """
    texts = [None if field is None else field.decode(errors="replace") for field in there]
    if texts == [None, None]:
        return None
    try:
        live, _ = _read_state(texts[0])
        if texts[1] is None or _DECIMAL.fullmatch(texts[1]) is None:
            raise DamagedRecordError(f"its 'value' is {texts[1] and texts[1][:60]!r}, no number")
    except DamagedRecordError as error:
        raise _damaged(address, error) from None
    return int(texts[1]) if live else None


def read_receipt(address: Address, key: str, line: Any) -> KeyReceipt:
    """The receipt of ``key``. Raises `DamagedRecordError`."""
    try:
        return KeyReceipt.of(key, line.decode())
    except (DamagedRecordError, UnicodeDecodeError) as error:
        raise _damaged(address, DamagedRecordError(f"key {key!r}: {error}")) from None


def _texts(fields: Sequence[bytes]) -> dict[str, str]:
    try:
        texts = [field.decode("ascii") for field in fields]
    except UnicodeDecodeError:
        raise DamagedRecordError("it holds bytes that truecount never writes") from None
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _read_state(text: str | None) -> tuple[bool, str]:
    """Whether it is live, and its horizon."""
    if text is None:
        raise DamagedRecordError("it is a hash of another program: it has no field 'truecount'")
    found = _STATE.fullmatch(text)
    number = text.partition(" ")[0]
    if number.isascii() and number.isdigit() and int(number[:9]) > int(FORMAT):
        raise DamagedRecordError(f"it is of a newer truecount (format {number[:9]}): upgrade it")
    if found is None or found[1] != FORMAT:
        raise DamagedRecordError(f"its field 'truecount' cannot be read: {text[:60]!r}")
    return found[2] == "live", found[3]


def _damaged(address: Address, error: DamagedRecordError) -> DamagedRecordError:
    return DamagedRecordError(f"counter {address.name!r} in domain {address.domain!r}: {error}")
