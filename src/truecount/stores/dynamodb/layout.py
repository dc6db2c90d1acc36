"""How counters and the receipts of keys lie in a DynamoDB table: as items, and back. Pure.

The format is described in ``docs/stores.md``. Values here are DynamoDB's, each
with its type: ``{"N": "5"}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, TypeAlias

from truecount.errors import DamagedRecordError
from truecount.record import Address, KeyReceipt, Ledger, Record, Stamp

__all__ = [
    "COUNTERS",
    "EXPIRES",
    "Item",
    "counter_key",
    "creation",
    "key_key",
    "key_prefix",
    "name_of",
    "read_counter",
    "read_receipt",
    "receipt_put",
    "replacement",
    "stamp_text",
]

Item: TypeAlias = Mapping[str, Mapping[str, Any]]
Request: TypeAlias = dict[str, Any]

COUNTERS: Final = "c"
"""What the sort keys of counters begin with."""

EXPIRES: Final = "expires"
"""The attribute that says, in microseconds, until when a receipt is remembered."""

LONGEST_KEY: Final = 1024  # bytes of a sort key

LONGEST_NUMBER: Final = 38  # digits that DynamoDB's numbers keep

LATER: Final = 3600
"""Seconds after its end at which DynamoDB may remove a receipt, by its own clock."""

_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, KeyError, TypeError, ValueError),
    DamagedRecordError,
)


# Keys


def counter_key(address: Address) -> Request:
    """The primary key of a counter's item: a name that is too long is hashed."""
    item = f"{COUNTERS}#{address.name}"
    if len(item.encode()) > LONGEST_KEY:
        item = f"{COUNTERS}h#{_hashed(address.name)}"
    return _key(address.domain, item)


def key_prefix(address: Address) -> str:
    """What the sort keys of the receipts of a counter's keys begin with."""
    return f"k#{_hashed(address.name)}#"


def key_key(address: Address, key: str) -> Request:
    """The primary key of the receipt of an idempotency key."""
    return _key(address.domain, key_prefix(address) + key)


def _key(domain: str, item: str) -> Request:
    return {"domain": {"S": domain}, "item": {"S": item}}


def _hashed(name: str) -> str:
    return sha256(name.encode()).hexdigest()


# Counters


def creation(address: Address, new: Record) -> Request:
    """What makes ``new`` the item of a counter, where there is no item at all."""
    values = {
        "format": {"N": "1"},
        "name": {"S": address.name},
        **_ends(new),
        **_states(new),
        "writers": _writers(new),
    }
    return {
        "Key": counter_key(address),
        "UpdateExpression": "SET " + ",".join(f"#{name}=:{name}" for name in values),
        "ConditionExpression": "attribute_not_exists(#item)",
        "ExpressionAttributeNames": {f"#{name}": name for name in (*values, "item")},
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
    }


def replacement(address: Address, old: Record, new: Record) -> Request:
    """What makes ``new`` of ``old``, touching only what differs, where that is still there.

    The value is a part of the condition too, so that a foreign write is not overwritten.
    """
    names = {"#stamp": "stamp", "#value": "value", "#w": "writers"}
    known, values = _ends(old), {f":{name}": value for name, value in _ends(new).items()}
    values |= {":was": known["stamp"], ":had": known["value"]}
    expression = "SET #stamp=:stamp,#value=:value"
    there = _states(old)
    for name, value in _states(new).items():
        if there[name] != value:
            names[f"#{name}"] = name
            values[f":{name}"] = value
            expression += f",#{name}=:{name}"
    before, after = old.ledger.lines, new.ledger.lines
    gone = [writer for writer in before if writer not in after]
    if old.deleted:  # its receipts go, all of them
        values[":w"] = _writers(new)
        expression += ",#w=:w"
        gone = []
    else:
        for number, (writer, line) in enumerate(after.items()):
            if before.get(writer) != line:
                names[f"#w{number}"] = writer
                values[f":w{number}"] = {"S": line}
                expression += f",#w.#w{number}=:w{number}"
    if gone:
        expression += " REMOVE " + ",".join(f"#w.#g{number}" for number in range(len(gone)))
        names.update((f"#g{number}", writer) for number, writer in enumerate(gone))
    return {
        "Key": counter_key(address),
        "UpdateExpression": expression,
        "ConditionExpression": "#stamp=:was AND #value=:had",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def read_counter(address: Address, item: Item) -> Record:
    """Take an item apart. Raises `DamagedRecordError`, naming the counter."""
    try:
        return _read(address, item)
    except _DAMAGE as error:
        raise _damaged(address, "the record", error) from error


def name_of(item: Item) -> str:
    """The name of the counter in an item, as far as it can be told."""
    return str(item.get("name", {}).get("S") or item["item"]["S"])


def stamp_text(stamp: Stamp) -> str:
    """A stamp as it is written."""
    return f"{stamp.revision} {stamp.writer} {stamp.number}"


def _read(address: Address, item: Item) -> Record:
    if "format" not in item:
        raise DamagedRecordError("it is something else, of another program")
    if _number(item, "format") != "1":
        newer = _number(item, "format")
        raise DamagedRecordError(f"its format is {newer[:20]}, of a newer truecount: upgrade it")
    # In a list the name is the item's own: it must be the one that leads there.
    name = _typed(item, "name", "S")
    if name != address.name or item["item"] != counter_key(address)["item"]:
        raise DamagedRecordError(f"its name is {name[:60]!r}, at {item['item']['S'][:60]!r}")
    lines = {
        writer: _typed({"a writer's line": line}, "a writer's line", "S")
        for writer, line in _typed(item, "writers", "M").items()
    }
    if not lines:
        raise DamagedRecordError("it has no writer's line")
    is_number = "N" in item.get("value", ())
    value = _number(item, "value") if is_number else _typed(item, "value", "S")
    deleted = _typed(item, "deleted", "BOOL")
    record = Record.of(value, deleted, _number(item, "horizon"), Ledger.of(lines))
    if is_number is not ("N" in _value(record.value)):
        raise DamagedRecordError("its value is text, where a number was left, or the reverse")
    if _typed(item, "stamp", "S") != stamp_text(record.stamp):
        raise DamagedRecordError(
            f"its stamp is {item['stamp']['S'][:60]!r}, where {stamp_text(record.stamp)!r} was left"
        )
    return record


def _ends(record: Record) -> dict[str, dict[str, str]]:
    """What every write changes, and is conditional on."""
    return {"stamp": {"S": stamp_text(record.stamp)}, "value": _value(record.value)}


def _states(record: Record) -> dict[str, dict[str, Any]]:
    """What few writes change."""
    return {"horizon": {"N": str(record.horizon)}, "deleted": {"BOOL": record.deleted}}


def _writers(record: Record) -> dict[str, Any]:
    return {"M": {writer: {"S": line} for writer, line in record.ledger.lines.items()}}


def _value(value: int) -> dict[str, str]:
    text = str(value)
    return {"N" if len(text.lstrip("-")) <= LONGEST_NUMBER else "S": text}


# Receipts of keys


def receipt_put(address: Address, receipt: KeyReceipt, ttl: int, now: int) -> Request:
    """What inserts the receipt of a key, where there is none, or one that has expired.

    ``ttl`` is how long it is remembered, ``now`` what time it is: in microseconds.
    """
    expires = receipt.time + ttl
    return {
        "Item": {
            **key_key(address, receipt.key),
            "format": {"N": "1"},
            "name": {"S": address.name},
            "key": {"S": receipt.key},
            "receipt": {"S": receipt.line},
            EXPIRES: {"N": str(expires)},
            "ttl": {"N": str(expires // 1_000_000 + LATER)},
        },
        "ConditionExpression": "attribute_not_exists(#i) OR #e<=:now",
        "ExpressionAttributeNames": {"#i": "item", "#e": EXPIRES},
        "ExpressionAttributeValues": {":now": {"N": str(now)}},
    }


def read_receipt(address: Address, key: str, item: Item, now: int) -> KeyReceipt | None:
    """The receipt of ``key``, or None when it has expired. Raises `DamagedRecordError`."""
    try:
        if _number(item, "format") != "1":
            newer = _number(item, "format")
            raise DamagedRecordError(f"its format is {newer[:20]}, of a newer truecount")
        if (_typed(item, "name", "S"), _typed(item, "key", "S")) != (address.name, key):
            raise DamagedRecordError("it is the receipt of another key")
        receipt = KeyReceipt.of(key, _typed(item, "receipt", "S"))
        return receipt if now < int(_number(item, EXPIRES)) else None
    except _DAMAGE as error:
        raise _damaged(address, f"the receipt of key {key!r}", error) from error


# Parts of items


def _number(item: Item, name: str) -> str:
    """An attribute that is an integer, in plain digits, however DynamoDB writes it."""
    text: str = _typed(item, name, "N")
    if re.fullmatch(r"-?[0-9]{1,40}", text):
        return str(int(text))
    number = Decimal(text)
    if not number.is_finite() or number.adjusted() > LONGEST_NUMBER or number != int(number):
        raise DamagedRecordError(f"its {name} is {text[:60]}, and no integer")
    return str(int(number))


def _typed(item: Item, name: str, kind: str) -> Any:
    """An attribute of a type."""
    if name not in item:
        raise DamagedRecordError(f"its {name} is gone")
    if kind not in item[name]:
        raise DamagedRecordError(f"its {name} is not of type {kind}: {str(item[name])[:60]}")
    return item[name][kind]


def _damaged(address: Address, what: str, error: Exception) -> DamagedRecordError:
    return DamagedRecordError(
        f"{what} of counter {address.name!r} in domain {address.domain!r} is not as truecount "
        f"left it: {error}"
    )
