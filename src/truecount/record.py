"""The truth about one counter, as every store keeps it. Pure: nothing here waits.

A `Record` is immutable; a write replaces it whole. Its `Ledger` remembers, for
the writers that wrote last, what became of their latest batch, so that a batch
that arrives again is answered and not applied again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from truecount.errors import DamagedRecordError
from truecount.moment import END

__all__ = [
    "DIGITS",
    "EMPTY",
    "LEAST",
    "MOST",
    "NOWHERE",
    "WRITERS",
    "Address",
    "Entry",
    "KeyReceipt",
    "Ledger",
    "Record",
    "Stamp",
    "View",
    "line_of",
    "make",
]

DIGITS: Final = 500
"""The longest value, in decimal digits, that every store holds."""

MOST: Final = 10**DIGITS - 1
"""The greatest value that every store holds."""

LEAST: Final = -MOST
"""The least value that every store holds."""

WRITERS: Final = 64
"""How many writers' receipts a record keeps unless its store says otherwise."""


# What truecount writes, and nothing else that `int` would take for the same.
_NATURAL: Final = r"(?:0|[1-9][0-9]{0,99})"
_INTEGER: Final = r"(?:0|-?[1-9][0-9]{0,500})"
_BOUND: Final = rf"(?:-|{_INTEGER})"
_COLUMNS: Final = ("[!-~]+", *[_NATURAL] * 3, *[_INTEGER] * 2, "[a-z+]+", *[_BOUND] * 2)
_LINE: Final = re.compile(f"{' '.join(f'({column})' for column in _COLUMNS)}\n?")
_LINES: Final = re.compile(f"(?:{' '.join(_COLUMNS)}\n)*")
_RECEIPT: Final = re.compile(
    f"({_NATURAL}) ({_NATURAL}) ({_INTEGER}) ({_INTEGER}) ((?:add|set) {_INTEGER}|update)"
)


class Address(NamedTuple):
    """Where a counter lives in its store."""

    domain: str
    name: str


class Stamp(NamedTuple):
    """Which write made a record. Compared whole, as one token; never repeats.

    ``revision`` grows by one with every write of the record's whole life;
    only the very first is taken from the clock. Alone it would not do: a
    failover or a restored backup repeats bare revisions.
    """

    revision: int
    writer: str
    number: int


NOWHERE: Final = Stamp(0, "", 0)
"""The stamp of a record that does not exist."""


class View(NamedTuple):
    """What a reader sees of a record."""

    value: int
    stamp: Stamp
    time: int  # microseconds since the epoch, by the writer's clock
    minimum: int | None
    maximum: int | None


class KeyReceipt(NamedTuple):
    """What the store remembers of a change that carried an idempotency key."""

    key: str
    text: str  # which change it was, as `Change.text` writes it
    before: int
    after: int
    revision: int
    time: int

    @property
    def line(self) -> str:
        """All but the key, as stores write it: ``revision time before after text``."""
        return f"{self.revision} {self.time} {self.before} {self.after} {self.text}"

    @classmethod
    def of(cls, key: str, line: str) -> Self:
        """What ``line`` says of ``key``. Raises `DamagedRecordError`."""
        found = _RECEIPT.fullmatch(line)
        if found is None:
            raise DamagedRecordError(f"a key's receipt cannot be read: {line[:200]!r}")
        revision, time, before, after, text = found.groups()
        if int(time) >= END:
            raise DamagedRecordError(f"a key's time {time} is no microsecond since 1970")
        return cls(key, text, int(before), int(after), int(revision), int(time))


class Entry(NamedTuple):
    """What a ledger remembers of a writer's latest batch.

    ``codes`` holds one outcome code a change, or a single one that goes for
    all. The bounds are those that decided, where there was something to
    decide: a replay under others would give other answers.
    """

    writer: str
    number: int
    revision: int
    time: int
    before: int
    after: int
    codes: str
    minimum: int | None
    maximum: int | None


make: Final = tuple.__new__
"""Makes a NamedTuple, for paths that are hot: calling its class takes twice as long."""


class Ledger(NamedTuple):
    """The latest batches of the writers that wrote last, the newest at the end.

    Kept as text, one line an entry, because it is copied on every write and
    read almost never: ``writer number revision time before after codes
    minimum maximum``, with ``-`` for a bound that is not there.
    """

    text: str = ""
    # Who wrote last, with which number, and the text before its line: it is
    # likely to be asked for next. `enter` and `read` know it for nothing.
    last: str = ""
    last_number: int = -1
    others: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __len__(self) -> int:
        return self.text.count("\n")

    def __repr__(self) -> str:
        return f"Ledger({self.text!r})"

    @property
    def lines(self) -> dict[str, str]:
        """What is kept for each writer: its line, without the writer; the oldest first."""
        pairs = (line.partition(" ") for line in self.text.splitlines())
        return {writer: rest for writer, _, rest in pairs}

    @classmethod
    def of(cls, lines: Mapping[str, str]) -> Ledger:
        """The ledger that has such ``lines``, in whatever order. Raises `DamagedRecordError`."""
        texts = [f"{writer} {rest}\n" for writer, rest in lines.items()]
        return cls("".join(sorted(texts, key=lambda text: _parse(text).revision)))

    def check(self) -> None:
        """Raise `DamagedRecordError` when any line of it is none of truecount's."""
        if _LINES.fullmatch(self.text) is None:
            for line in self.text.splitlines(keepends=True):
                _parse(line)
            raise DamagedRecordError("the ledger does not end with a whole line")

    def number(self, writer: str) -> int:
        """The number of the latest batch of ``writer``, or -1."""
        if writer == self.last:
            return self.last_number
        entry = self.entry(writer)
        return -1 if entry is None else entry.number

    def knows(self, writer: str, number: int | None = None) -> bool:
        """Whether anything of ``writer`` is there; with a number, whether that is its latest."""
        start = self._find(writer)
        return start >= 0 and (number is None or self.text.startswith(f"{writer} {number} ", start))

    def entry(self, writer: str) -> Entry | None:
        """The entry of ``writer``, or None."""
        start = self._find(writer)
        return None if start < 0 else _parse(self.text[start : self.text.index("\n", start)])

    def about(self, writer: str) -> Ledger:
        """What it says about ``writer``, and of the latest write."""
        text = self.text
        start = self._find(writer)
        line = "" if start < 0 else text[start : text.index("\n", start) + 1]
        latest = text[text.rfind("\n", 0, -1) + 1 :]
        return Ledger(latest if line == latest else line + latest)

    def latest(self) -> Entry:
        """The entry of the write that made the record."""
        return self.read()[0]

    def read(self) -> tuple[Entry, Ledger]:
        """The entry of the write that made the record, and the ledger that has read it."""
        text = self.text
        if text[-1:] != "\n":
            raise DamagedRecordError("the ledger does not end with a whole line")
        start = text.rfind("\n", 0, -1) + 1
        entry = _parse(text[start:])
        return entry, make(Ledger, (text, entry[0], entry[1], text[:start]))

    def enter(
        self,
        writer: str,
        number: int,
        revision: int,
        time: int,
        before: int,
        after: int,
        codes: str,
        minimum: int | None,
        maximum: int | None,
        keep: int,
    ) -> tuple[Ledger, int]:
        """The ledger with an entry added, and the highest revision that it forgot (or 0).

        The writer's earlier entry goes, and the oldest ones beyond ``keep``.
        """
        forgotten = 0
        if writer == self.last:
            others = self.others
        else:
            others = self.text
            start = self._find(writer)
            if start >= 0:
                others = others[:start] + others[others.index("\n", start) + 1 :]
            else:
                for _ in range(others.count("\n") - keep + 1):
                    oldest, _, others = others.partition("\n")
                    forgotten = _parse(oldest).revision
        line = line_of(writer, number, revision, time, before, after, codes, minimum, maximum)
        return make(Ledger, (others + line, writer, number, others)), forgotten

    def _find(self, writer: str) -> int:
        """Where the line of ``writer`` begins, or -1."""
        if self.text.startswith(f"{writer} "):
            return 0
        start = self.text.find(f"\n{writer} ")
        return start if start < 0 else start + 1


def line_of(
    writer: str,
    number: int,
    revision: int,
    time: int,
    before: int | str,
    after: int | str,
    codes: str,
    minimum: int | None,
    maximum: int | None,
) -> str:
    """The line of an `Entry`; its values may be in digits already."""
    low = "-" if minimum is None else minimum
    high = "-" if maximum is None else maximum
    return f"{writer} {number} {revision} {time} {before} {after} {codes} {low} {high}\n"


def _parse(line: str) -> Entry:
    found = _LINE.fullmatch(line)
    if found is None:
        raise DamagedRecordError(f"a line of the ledger cannot be read: {line[:200]!r}")
    writer, number, revision, time, before, after, codes, low, high = found.groups()
    numbers = int(number), int(revision), int(time), int(before), int(after)
    minimum = None if low == "-" else int(low)
    maximum = None if high == "-" else int(high)
    return make(Entry, (writer, *numbers, codes, minimum, maximum))


EMPTY: Final = Ledger()


class Record(NamedTuple):
    """The truth about one counter.

    ``horizon`` is the highest revision among the entries that the ledger has
    forgotten: about a batch sent at or after it, silence is proof. A deleted
    counter stays behind as a tombstone (``deleted``), so that nothing late
    can bring it back. ``keys`` are, on reading, the receipts of the keys that
    were asked for; on writing, those to be kept with the record.
    """

    value: int
    stamp: Stamp
    time: int
    minimum: int | None = None
    maximum: int | None = None
    horizon: int = 0
    deleted: bool = False
    ledger: Ledger = EMPTY
    keys: tuple[KeyReceipt, ...] = ()

    @property
    def view(self) -> View | None:
        """What a reader sees: None when the counter is deleted."""
        if self.deleted:
            return None
        return View(self.value, self.stamp, self.time, self.minimum, self.maximum)

    @classmethod
    def of(cls, value: str, deleted: object, horizon: str, ledger: Ledger) -> Record:
        """The record of which a store keeps ``value`` and the other three.

        The end of the ledger tells what the latest write left there. Anything
        else was written by somebody who did not write it down. Raises
        `DamagedRecordError`.
        """
        latest, ledger = ledger.read()
        if value != str(latest.after):
            raise DamagedRecordError(
                f"its value is {value[:600]}, where truecount had left {latest.after}. Put that "
                "back by hand, and make the change with truecount"
            )
        if not 0 <= latest.time < END:
            raise DamagedRecordError(f"its time {latest.time} is no microsecond since 1970")
        if deleted not in (0, 1):
            raise DamagedRecordError(f"'deleted' is 0 or 1, and not {deleted!r}")
        if not (horizon.isascii() and horizon.isdigit()) or horizon[0] == "0" != horizon:
            raise DamagedRecordError(f"its horizon is {horizon[:60]!r}, and no revision")
        writer, number, revision, time, _, after, _, low, high = latest
        stamp = make(Stamp, (revision, writer, number))
        fields = (after, stamp, time, low, high, int(horizon), bool(deleted), ledger, ())
        return make(cls, fields)

    def deleted_before(self, instant: int) -> bool:
        """Whether it is a tombstone written before ``instant``."""
        return self.deleted and self.time < instant
