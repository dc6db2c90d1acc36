"""How a counter lies in a SimpleDB item: from attributes to a record, and back. Pure.

The format is described in ``docs/simpledb.md``. An item has at most 256 pairs
of name and value, of at most 1,024 bytes each, and a write should touch few of
them. So receipts lie in slots, each writer in one of its own; a line that is
too long for one attribute goes on in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from truecount.errors import DamagedRecordError
from truecount.moment import END, to_iso
from truecount.record import WRITERS, Address, KeyReceipt, Ledger, Record, Stamp

__all__ = [
    "EXPIRES",
    "KEY_SLOTS",
    "SPILL",
    "STAMP",
    "TIMESTAMP",
    "VALUE",
    "Item",
    "claim",
    "expired_pairs",
    "instant",
    "key_item",
    "key_pairs",
    "layout",
    "own_pairs",
    "read_item",
    "read_key_item",
]

VALUE: Final = "current_value"
TIMESTAMP: Final = "timestamp"
STAMP: Final = "truecount"
_OURS: Final = "truecount_"
_MINIMUM: Final = _OURS + "minimum"
_MAXIMUM: Final = _OURS + "maximum"
_WRITER: Final = _OURS + "writer"
_KEY: Final = _OURS + "key"
_RECEIPT: Final = _OURS + "receipt"
EXPIRES: Final = _OURS + "expires"

KEY_SLOTS: Final = 16
"""Receipts of keys that the item itself holds; older ones have items of their own."""

SPILL: Final = KEY_SLOTS // 2
"""Receipts that move out at once, so that the next ones find room."""

_CHUNK: Final = 1000  # bytes of a value: some less than the 1,024 allowed
_CHUNKS: Final = ("", "b", "c")

_LIVE, _DELETED, _CLAIMED = "live", "deleted", "claimed"

Attributes = Mapping[str, Sequence[str]]


class Kept(NamedTuple):
    """The receipt of a key, and when it may be forgotten."""

    receipt: KeyReceipt
    expires: int


class Item(NamedTuple):
    """An item, taken apart.

    ``record`` is None when there is no counter, though somebody may have
    claimed the item. ``stamp``, ``value`` and ``timestamp`` are the texts of
    these attributes, None where they are not there; ``written`` is the latest
    time that ever was in ``timestamp``. ``slots`` tells which writer's receipt
    is in which slot, ``keys`` which key's is. ``absent`` are keys that are
    known not to have been used.
    """

    record: Record | None
    stamp: str | None = None
    value: str | None = None
    timestamp: str | None = None
    written: int = 0
    slots: Mapping[str, int] = {}
    keys: Mapping[int, Kept] = {}
    absent: frozenset[str] = frozenset()

    def key(self, key: str) -> Kept | None:
        """The latest receipt of ``key`` that is in the item."""
        found = [kept for kept in self.keys.values() if kept.receipt.key == key]
        return max(found, key=lambda kept: kept.receipt.revision, default=None)

    def room(self, count: int, now: int) -> tuple[list[int], list[Kept]]:
        """The slots for new keys, at least ``count``, and what must move out before."""
        keys = self.keys
        free = [n for n in range(KEY_SLOTS) if n not in keys or keys[n].expires <= now]
        if len(free) >= count:
            return free[:count], []
        oldest = sorted(set(keys) - set(free), key=lambda n: keys[n].receipt.revision)[:SPILL]
        return free + oldest, [keys[n] for n in oldest]


def read_item(address: Address, attributes: Attributes, *, interop: bool) -> Item:
    """Take an item apart. Raises `DamagedRecordError`, naming it, for what is no counter.

    ``interop``: older writers may have moved the value.
    """
    if not attributes:
        return Item(None)
    try:
        return _read(attributes, interop=interop)
    except _DAMAGE as error:
        raise _damaged(address, error) from error


def _read(attributes: Attributes, *, interop: bool) -> Item:
    stamp = _one(attributes, STAMP)
    value = _one(attributes, VALUE)
    timestamp = _one(attributes, TIMESTAMP)
    written = 0 if timestamp is None else _seconds(timestamp)
    lines = _lines(attributes)
    item = Item(None, stamp, value, timestamp, written, keys=_keys(attributes))
    floor = max([revision for revision, _, _ in lines], default=0)
    if stamp is None:
        if value is None:
            raise DamagedRecordError("it holds no counter, but something else")
        return item._replace(record=_foreign(value, written, floor))

    version, _, fields = stamp.partition(" ")
    if version != "1":
        raise DamagedRecordError(f"its format is {version[:20]}, of a newer truecount: upgrade it")
    revision, writer, number, at, put, horizon, state, kept = fields.split(" ")
    token = Stamp(_whole(revision), writer, _whole(number))
    time = _microseconds(at)
    foreign = value is not None and written != _microseconds(put)
    item = item._replace(written=max(written, _whole(put)))
    if state == _CLAIMED:
        return item if value is None else item._replace(record=_foreign(value, written, floor))
    if state == _DELETED and value is not None and foreign:
        if not interop:
            raise DamagedRecordError(
                f"it was deleted, and somebody else has made it anew with {VALUE} {value[:60]}: "
                f"remove its attribute {STAMP!r} to have it counted on, or let all connect with "
                "?interop=boto"
            )
        return item._replace(record=_foreign(value, written, max(floor, token.revision)))
    true = _whole(kept)
    if state == _LIVE and timestamp is None and not interop:
        raise DamagedRecordError(f"its {TIMESTAMP} is gone")
    if state == _LIVE and value != kept:
        if value is None:
            raise DamagedRecordError(f"its {VALUE} is gone")
        if not interop:
            raise DamagedRecordError(
                f"its {VALUE} is {value[:60]}, where truecount had left {kept[:60]}. Somebody "
                f"else writes to it: put {kept[:60]} back, or let all connect with ?interop=boto"
            )
        true = _integer(value)
        token, time = token._replace(writer=f"{writer}~{written}~{value}"), max(time, written)
    elif state not in (_LIVE, _DELETED):
        raise DamagedRecordError(f"its state is {state[:60]!r}")
    # What is older than the horizon was there before the counter was made anew.
    since = _whole(horizon)
    living = sorted(line for line in lines if line[0] >= since)
    lines = sorted({line.partition(" ")[0]: (at, n, line) for at, n, line in living}.values())
    minimum, maximum = _bound(attributes, _MINIMUM), _bound(attributes, _MAXIMUM)
    ledger = Ledger("".join(f"{line}\n" for _, _, line in lines))
    if state == _DELETED or value == kept:
        _check(ledger, token, minimum, maximum)
    record = Record(true, token, time, minimum, maximum, since, state == _DELETED, ledger)
    slots = {line.partition(" ")[0]: slot for _, slot, line in lines}
    return item._replace(record=record, slots=slots)


def _foreign(value: str, written: int, floor: int) -> Record:
    """The record of an item that an older writer keeps; time and value tell its writes apart.

    A claim does not change it: what is under way to adopt it may still land.
    ``floor`` is the highest revision of a life before, whose receipts are past.
    """
    horizon = floor + 1 if floor else 0
    stamp = Stamp(max(written, horizon, 1), f"~{value}", 0)
    return Record(_integer(value), stamp, written, horizon=horizon)


def claim(stamp: Stamp) -> str:
    """The stamp of an item that somebody is about to create in, or to adopt."""
    return f"1 {stamp.revision} {stamp.writer} {stamp.number} 0 0 0 {_CLAIMED} 0"


def layout(
    item: Item, new: Record, key_slots: Sequence[int], ttl: int
) -> tuple[dict[str, str], Item]:
    """The attributes to put for ``new``, and the item after that.

    ``key_slots`` are those for the receipts of its keys, and others to be
    emptied; ``ttl`` the microseconds that they are remembered.
    """
    old = item.record
    lines = {line.partition(" ")[0]: line for line in new.ledger.text.splitlines()}
    there = set() if old is None else set(old.ledger.text.splitlines())
    slots = {writer: slot for writer, slot in item.slots.items() if writer in lines}
    free = iter(sorted(set(range(WRITERS)) - set(slots.values())))
    # It grows with every write, as it is the condition of the next.
    written = max(new.time, item.written + 1)
    value = item.value if new.deleted else str(new.value)
    stamp = (
        f"1 {new.stamp.revision} {new.stamp.writer} {new.stamp.number} {new.time} {written} "
        f"{new.horizon} {_DELETED if new.deleted else _LIVE} {new.value}"
    )
    pairs = {STAMP: stamp, TIMESTAMP: to_iso(written)}
    if value is not None and not new.deleted:
        pairs[VALUE] = value
    begins = not item.slots or old is None or old.deleted
    if begins or (old is not None and old.minimum != new.minimum):
        pairs[_MINIMUM] = "" if new.minimum is None else str(new.minimum)
    if begins or (old is not None and old.maximum != new.maximum):
        pairs[_MAXIMUM] = "" if new.maximum is None else str(new.maximum)
    for writer, line in lines.items():
        if writer not in slots:
            slots[writer] = next(free)
        if line not in there:  # one, unless others' batches travel along
            pairs |= _chunks(f"{_WRITER}{slots[writer]:02}", line)
    keys = dict(item.keys)
    for slot in key_slots:
        if keys.pop(slot, None) is not None:
            pairs[f"{_KEY}{slot:02}"] = ""
    for slot, receipt in zip(key_slots, new.keys, strict=False):
        keys[slot] = Kept(receipt, receipt.time + ttl)
        pairs |= _chunks(f"{_KEY}{slot:02}", _key_line(keys[slot]))
    after = Item(new._replace(keys=()), stamp, value, pairs[TIMESTAMP], written, slots, keys)
    return pairs, after


def own_pairs(attributes: Attributes) -> list[tuple[str, str]]:
    """What of a tombstone or a claim is truecount's."""
    ours = [name for name in attributes if name.startswith(_OURS) or name in (STAMP, TIMESTAMP)]
    return [(name, value) for name in ours for value in attributes[name]]


# Items of keys


def key_item(address: Address, key: str) -> Address:
    """The item that remembers ``key`` when the counter's own has no room."""
    digest = sha256(f"{address.name}\0{key}".encode()).hexdigest()
    return Address(address.domain, f"truecount-key-{digest}")


def key_pairs(kept: Kept) -> dict[str, str]:
    """What is added to such an item. Each receipt has names of its own.

    So a request that lands late puts back what was there, beside what is there now.
    """
    pairs = _chunks(f"{_RECEIPT}{kept.receipt.revision}", _key_line(kept))
    return pairs | {EXPIRES: instant(kept.expires)}


def read_key_item(address: Address, attributes: Attributes, key: str) -> Kept | None:
    """The latest receipt of ``key`` that such an item remembers."""
    try:
        found = [kept for _, kept in _receipts(attributes) if kept.receipt.key == key]
    except _DAMAGE as error:
        raise _damaged(address, error) from error
    return max(found, key=lambda kept: kept.receipt.revision, default=None)


def expired_pairs(address: Address, attributes: Attributes, now: int) -> list[tuple[str, str]]:
    """What such an item may forget, and nothing that is added to it meanwhile."""
    pairs = [(EXPIRES, text) for text in attributes.get(EXPIRES, ()) if text <= instant(now)]
    try:
        for name, kept in _receipts(attributes):
            if kept.expires <= now:
                parts = [name + suffix for suffix in _CHUNKS if name + suffix in attributes]
                pairs += [(part, attributes[part][0]) for part in parts]
    except _DAMAGE as error:
        raise _damaged(address, error) from error
    return pairs


def instant(time: int) -> str:
    """Microseconds, written so that their order is that of strings."""
    return f"{time:020}"


def _receipts(attributes: Attributes) -> Iterator[tuple[str, Kept]]:
    for name in attributes:
        if name.startswith(_RECEIPT) and name.removeprefix(_RECEIPT).isdigit():
            yield name, _kept(_joined(attributes, name) or "")


# Parts of attributes


_DAMAGE: Final = (ValueError, IndexError, OverflowError, DamagedRecordError)


def _damaged(address: Address, error: Exception) -> DamagedRecordError:
    return DamagedRecordError(
        f"item {address.name!r} in SimpleDB domain {address.domain!r} is not as truecount left "
        f"it: {error}"
    )


def _lines(attributes: Attributes) -> list[tuple[int, int, str]]:
    """The receipts of writers: (revision, slot, line)."""
    found = []
    for slot in range(WRITERS):
        line = _joined(attributes, f"{_WRITER}{slot:02}")
        if line is not None:
            found.append((Ledger(f"{line}\n").latest().revision, slot, line))
    return found


def _keys(attributes: Attributes) -> dict[int, Kept]:
    found = {}
    for slot in range(KEY_SLOTS):
        line = _joined(attributes, f"{_KEY}{slot:02}")
        if line is not None:
            found[slot] = _kept(line)
    return found


def _key_line(kept: Kept) -> str:
    key, text, before, after, revision, time = kept.receipt
    return f"{revision} {time} {kept.expires} {before} {after} {quote(key, safe='')} {text}"


def _kept(line: str) -> Kept:
    revision, time, expires, before, after, key, text = line.split(" ", 6)
    receipt = KeyReceipt.of(unquote(key), f"{revision} {time} {before} {after} {text}")
    return Kept(receipt, _whole(expires))


def _chunks(name: str, text: str) -> dict[str, str]:
    """``text`` in as many attributes as it needs; the first one says how many."""
    parts = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    parts[0] = f"{len(parts)} {parts[0]}"
    return {name + suffix: part for suffix, part in zip(_CHUNKS, parts, strict=False)}


def _joined(attributes: Attributes, name: str) -> str | None:
    """What `_chunks` took apart; None where nothing is, or was emptied."""
    first = _one(attributes, name)
    if not first:
        return None
    count, _, text = first.partition(" ")
    for suffix in _CHUNKS[1 : _whole(count)]:
        part = _one(attributes, name + suffix)
        if part is None:
            raise DamagedRecordError(f"its attribute {name + suffix!r} is gone")
        text += part
    return text


def _one(attributes: Attributes, name: str) -> str | None:
    values = attributes.get(name, ())
    if len(values) > 1:
        raise DamagedRecordError(
            f"its attribute {name!r} has {len(values)} values, and may have one: remove the others"
        )
    return values[0] if values else None


def _bound(attributes: Attributes, name: str) -> int | None:
    text = _one(attributes, name)
    return _whole(text) if text else None


def _check(ledger: Ledger, stamp: Stamp, minimum: int | None, maximum: int | None) -> None:
    """Hold the rest against the line of the latest write."""
    entry = ledger.entry(stamp.writer)
    if entry is None or (entry.revision, entry.number) != (stamp.revision, stamp.number):
        raise DamagedRecordError(f"the line of its latest write, by {stamp.writer[:60]!r}, is gone")
    if (entry.minimum, entry.maximum) != (minimum, maximum):
        raise DamagedRecordError(
            f"its bounds are {minimum} to {maximum}, where truecount had left {entry.minimum} to "
            f"{entry.maximum}"
        )


def _whole(text: str) -> int:
    """An integer, if it is written as truecount writes it."""
    number = int(text)
    if str(number) != text:
        raise DamagedRecordError(f"{text[:60]!r} is no integer as truecount writes it")
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DamagedRecordError(f"its {VALUE} is {text[:60]!r}, and no integer") from None


def _microseconds(text: str) -> int:
    time = _whole(text)
    if not 0 <= time < END:
        raise DamagedRecordError(f"{text[:60]!r} is no time")
    return time


def _seconds(text: str) -> int:
    """Microseconds since the epoch, of ISO 8601 (naive: UTC) or of seconds since then."""
    try:
        try:
            time = round(float(text) * 1_000_000)
        except ValueError:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            time = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
        # So many writes may come until it ends that nobody will see the end.
        if 0 <= time < END - 1_000_000_000_000:
            return time
    except (ValueError, OverflowError):
        pass
    raise DamagedRecordError(
        f"its {TIMESTAMP} is {text[:60]!r}, neither ISO 8601 nor seconds since 1970"
    )
