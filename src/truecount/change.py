"""Changes, the batches they travel in, and the answers that come back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any, Final, NamedTuple, Self, TypeAlias

from truecount.defaults import UNCHANGED, Unchanged
from truecount.moment import to_datetime, to_iso
from truecount.record import Address, View

__all__ = [
    "ABSENT",
    "ALONE",
    "APPLIED",
    "BEYOND",
    "CANCELLED",
    "DECIDED",
    "EXISTS",
    "FORGOTTEN",
    "MOVED",
    "OUTSIDE",
    "REPEATED",
    "REUSED",
    "SUPERSEDED",
    "Add",
    "Additions",
    "Answer",
    "Batch",
    "Change",
    "CompareAndSet",
    "Create",
    "Decided",
    "Delete",
    "Limit",
    "Outcome",
    "Receipt",
    "Refusal",
    "Set",
    "ValueChange",
    "made",
    "made_all",
    "values",
]

# What became of one change. Ledgers keep these letters: they are a file format.
APPLIED: Final = "+"
REPEATED: Final = "r"  # its key was known: the first application is the answer
REUSED: Final = "k"  # its key belongs to another change
MOVED: Final = "m"  # the value was not the expected one
OUTSIDE: Final = "b"  # the result would leave the bounds, or 500 digits
ABSENT: Final = "a"  # no such counter
EXISTS: Final = "e"  # there was one already
CANCELLED: Final = "c"  # `.cancel()` came first

# What became of a batch.
DECIDED: Final = "decided"
FORGOTTEN: Final = "forgotten"  # whether it was applied earlier cannot be told any more
SUPERSEDED: Final = "superseded"  # its writer has gone on to a later number
BEYOND: Final = "beyond"  # the engine's own arithmetic does not reach: compare and set


class Add(NamedTuple):
    """Add ``amount`` to the true value."""

    amount: int
    key: str | None = None

    @property
    def text(self) -> str:
        return f"add {self.amount}"

    def result(self, value: int) -> int:
        return value + self.amount


class Set(NamedTuple):
    """Make the value ``value``, whatever it was."""

    value: int
    key: str | None = None

    @property
    def text(self) -> str:
        return f"set {self.value}"

    def result(self, value: int) -> int:
        return self.value


class CompareAndSet(NamedTuple):
    """Make the value ``value`` if it is ``expected``.

    With a key it is one attempt of `Counter.update`, whose function cannot be
    compared: any two updates under one key count as the same change.
    """

    expected: int
    value: int
    key: str | None = None

    @property
    def text(self) -> str:
        return "update"

    def result(self, value: int) -> int:
        return self.value


class Create(NamedTuple):
    """Create the counter where there is none."""

    initial: int
    minimum: int | None = None
    maximum: int | None = None

    @property
    def key(self) -> None:
        return None

    def result(self, value: int) -> int:
        return self.initial


class Limit(NamedTuple):
    """Change the bounds."""

    minimum: int | Unchanged | None = UNCHANGED
    maximum: int | Unchanged | None = UNCHANGED

    @property
    def key(self) -> None:
        return None

    def result(self, value: int) -> int:
        return value


class Delete(NamedTuple):
    """Leave a tombstone."""

    @property
    def key(self) -> None:
        return None

    def result(self, value: int) -> int:
        return value


ValueChange: TypeAlias = Add | Set | CompareAndSet
Change: TypeAlias = ValueChange | Create | Limit | Delete

ALONE: Final = (Create, Limit, Delete)
"""The changes that make a batch of their own."""


class Batch(NamedTuple):
    """The changes that travel in one request, named by (writer, number).

    ``since`` is a revision that the writer knew before it first sent the
    batch. ``fence``: an earlier attempt may still be travelling, so that a
    refusal must be written down too. ``cancel``: apply nothing, only fence.
    """

    writer: str
    number: int
    since: int
    changes: tuple[Change, ...]
    fence: bool = False
    cancel: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The idempotency keys in it."""
        changes = self.changes
        if len(changes) == 1:  # as most batches
            key = changes[0].key
            return () if key is None else (key,)
        return tuple([change.key for change in changes if change.key is not None])

    @property
    def plain(self) -> bool:
        """Whether it holds additions without keys only."""
        return set(map(type, self.changes)) == {Add} and not self.keys


class Additions(NamedTuple):
    """An addition to each of many counters, in columns: so many batches, with one `Add` in each.

    To make a batch and an answer for each takes longer than all the rest.
    """

    addresses: Sequence[Address]
    writers: Sequence[str]
    numbers: Sequence[int]
    since: Sequence[int]
    adds: Sequence[Add]

    def batch(self, at: int) -> Batch:
        """The batch at that place."""
        return Batch(self.writers[at], self.numbers[at], self.since[at], (self.adds[at],))


class Receipt(int):
    """Proof that a change was applied, once. As an int it is the value after.

    ``before`` and ``after`` are the values around the change, ``timestamp``
    is when it took effect, ``revision`` which write of the counter it was.
    ``key`` is its idempotency key, and ``replayed`` tells that an earlier call
    had made it under that key: this one changed nothing.
    """

    _facts: tuple[int, int, int, str | None, bool]

    def __new__(
        cls,
        after: int,
        before: int = 0,
        revision: int = 0,
        time: int = 0,
        key: str | None = None,
        replayed: bool = False,
    ) -> Self:
        self = int.__new__(cls, after)
        self._facts = (before, revision, time, key, replayed)
        return self

    @property
    def before(self) -> int:
        """The value before the change."""
        return self._facts[0]

    @property
    def after(self) -> int:
        """The value after the change, as a plain int."""
        return int(self)

    @property
    def timestamp(self) -> str:
        """When the change took effect, as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
        return to_iso(self._facts[2])

    @property
    def updated_at(self) -> datetime:
        """The same instant as an aware datetime in UTC."""
        return to_datetime(self._facts[2])

    @property
    def revision(self) -> int:
        """Which write of the counter it was; grows by one with each."""
        return self._facts[1]

    @property
    def key(self) -> str | None:
        """The idempotency key, or None."""
        return self._facts[3]

    @property
    def replayed(self) -> bool:
        """Whether an earlier call had made it, and this is the memory of it."""
        return self._facts[4]

    def __str__(self) -> str:
        return int.__repr__(self)

    def __repr__(self) -> str:
        return (
            f"Receipt({int(self)}, before={self.before}, revision={self.revision}, "
            f"timestamp={self.timestamp!r}, key={self.key!r}, replayed={self.replayed})"
        )

    def __getnewargs__(self) -> tuple[Any, ...]:
        return int(self), *self._facts


_new: Final = int.__new__


def made(after: int, before: int, revision: int, time: int, key: str | None = None) -> Receipt:
    """The receipt of a change that was just made. Calling the class takes longer."""
    receipt = _new(Receipt, after)
    receipt._facts = (before, revision, time, key, False)
    return receipt


def values(changes: Iterable[Change], value: int) -> list[int]:
    """``value``, and what each of ``changes`` makes of it, one after the other."""
    found = [value]
    for change in changes:
        value = value + change.amount if type(change) is Add else change.result(value)
        found.append(value)
    return found


def made_all(values: list[int], revision: int, time: int) -> tuple[Receipt, ...]:
    """The receipts of changes, without keys, that have led from each of ``values`` to the next."""
    if len(values) == 2:  # as most are
        return (made(values[1], values[0], revision, time),)
    return tuple(map(made, values[1:], values, repeat(revision), repeat(time)))


class Refusal(NamedTuple):
    """Why a change was not applied, and what the counter was then."""

    code: str
    value: int | None = None
    minimum: int | None = None
    maximum: int | None = None


Outcome: TypeAlias = Receipt | Refusal

Decided: TypeAlias = tuple[Outcome, View | None]
"""What became of one change, and the counter after its batch (None: there is none)."""


class Answer(NamedTuple):
    """What became of the batch (``writer``, ``number``), sent with ``since``.

    ``view`` is the counter after it, None when there is none. ``outcomes``
    has one outcome a change when the verdict is `DECIDED`, else none.
    ``remembered``: the record holds the outcomes, so that the batch, sent
    again, meets them.
    """

    writer: str
    number: int
    since: int
    verdict: str
    outcomes: tuple[Outcome, ...]
    view: View | None
    remembered: bool
