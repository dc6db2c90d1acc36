"""What type checkers say of truecount: `make lint` has mypy and pyright read this file.

Nothing here runs. ``assert_type`` is what both must agree on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from truecount import (
    STORED,
    Counter,
    Domain,
    OutcomeUnknownError,
    OutOfSyncError,
    Receipt,
    Store,
    connect,
    counter,
)


def reads_as_an_int(c: Counter) -> None:
    """Every read gives plain ints, and whatever int gives."""
    assert_type(int(c), int)
    assert_type(c.value, int)
    assert_type(c + 1, int)
    assert_type(1 + c, int)
    assert_type(c - c, int)
    assert_type(c // 2, int)
    assert_type(c % 10, int)
    assert_type(-c, int)
    assert_type(abs(c), int)
    assert_type(c << 1, int)
    assert_type(c & 0xFF, int)
    assert_type(divmod(c, 7), tuple[int, int])
    assert_type(c / 2, float)
    assert_type(c < 1, bool)
    assert_type(c == 0, bool)
    assert_type(range(c), range)
    assert_type(["a", "b"][c], str)
    assert_type(c.timestamp, str)
    assert_type(c.minimum, int | None)
    assert_type(c.bit_length(), int)


def stays_a_counter() -> None:
    """After an in-place operator the name is still the counter."""
    c = Counter("mydomain", "counter1", 0)
    c += 1
    assert_type(c, Counter)
    c -= 1
    c *= 2
    c //= 3
    c %= 10
    c **= 2
    c <<= 1
    c >>= 1
    c &= 7
    c |= 1
    c ^= 1
    assert_type(c, Counter)
    d = counter.Counter("mydomain", "counter1", minimum=0, maximum=STORED, timeout=None)
    d += c
    assert_type(d, Counter)


def changes_with_receipts(c: Counter) -> None:
    """The methods that change give receipts, ranges, and iterators of ints."""
    assert_type(c.add(), Receipt)
    assert_type(c.add(5, key="order-17").before, int)
    assert_type(c.subtract(True), Receipt)
    assert_type(c.set(3, timeout=1.5).replayed, bool)
    assert_type(c.update(lambda value: value * 2), Receipt)
    assert_type(c.compare_and_set(1, 2), bool)
    assert_type(c.reserve(10), range)
    assert_type(c.ids(block=100), Iterator[int])
    assert_type(next(c), int)
    assert_type(c.refresh(), int)
    assert_type(c.receipt("order-17"), Receipt)
    c.limit(minimum=0, maximum=None)
    c.delete()


def domains(store: Store) -> None:
    """A domain's subscripts are counters, also in an augmented assignment."""
    d = Domain("mydomain", store=store)
    d["x"] += 1
    assert_type(d["x"], Counter)
    assert_type(d.get("x"), Counter | None)
    assert_type(d.add({"x": 1, "y": -1}), dict[str, Receipt])
    assert_type(d.snapshot(), dict[str, int])
    assert_type("x" in d, bool)
    assert_type(list(d), list[str])
    del d["x"]


def errors(c: Counter) -> None:
    """What errors carry is typed too."""
    try:
        c += 1
    except OutOfSyncError as error:
        assert_type(error.actual, int)
    except OutcomeUnknownError as error:
        assert_type(error.retry(), Receipt)
        assert_type(error.cancel(), bool)
    with connect("sqlite:///counters.db", timeout=3.0) as store:
        assert_type(store, Store)


def refused(c: Counter) -> None:
    """What is a mistake at run time is one here: an ignore that is not needed is an error."""
    c.add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    c += 0.5  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


def no_such_operator(c: Counter) -> None:
    """A division makes no integer."""
    c /= 2  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


def loses_the_counter(c: Counter) -> None:
    """``c = c + 1`` makes the name an int, and nothing is written."""
    c = c + 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
