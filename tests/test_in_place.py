"""In-place operators leave in the store what ``int`` computes, or raise and leave it alone."""

from __future__ import annotations

import decimal
import fractions
import operator
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import make_counter
from truecount import (
    BoundsError,
    Counter,
    CounterNotFoundError,
    InvalidTypeError,
    OutOfSyncError,
    connect,
)
from truecount.record import MOST

OPERATORS = {
    "+=": (operator.iadd, operator.add),
    "-=": (operator.isub, operator.sub),
    "*=": (operator.imul, operator.mul),
    "//=": (operator.ifloordiv, operator.floordiv),
    "%=": (operator.imod, operator.mod),
    "**=": (operator.ipow, operator.pow),
    "<<=": (operator.ilshift, operator.lshift),
    ">>=": (operator.irshift, operator.rshift),
    "&=": (operator.iand, operator.and_),
    "|=": (operator.ior, operator.or_),
    "^=": (operator.ixor, operator.xor),
}

VALUES = st.integers(-(2**80), 2**80) | st.integers(-9, 9) | st.sampled_from([MOST, -MOST, 0])
OPERANDS = st.integers(-9, 9) | st.integers(-(2**80), 2**80) | st.integers(0, 3000)


def expected(compute: Any, value: int, operand: int) -> tuple[str, Any]:
    """What ``int`` makes of it, within what a counter can hold."""
    bits = abs(value).bit_length()
    huge = {operator.pow: max(0, bits - 1) * operand, operator.lshift: bits and bits + operand}
    if huge.get(compute, 0) > 5000:
        return "raises", BoundsError
    try:
        result = compute(value, operand)
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        return "raises", type(error)
    if type(result) is not int:
        return "raises", InvalidTypeError
    return ("raises", BoundsError) if abs(result) > MOST else ("leaves", result)


@pytest.mark.parametrize("sign", OPERATORS)
@given(value=VALUES, operand=OPERANDS)
def test_the_store_holds_what_int_computes(sign: str, value: int, operand: int) -> None:
    """The result is int's own, in the object and in the store; an exception changes nothing."""
    in_place, compute = OPERATORS[sign]
    c = name = make_counter(value)
    what, result = expected(compute, value, operand)
    revision = c.revision
    if what == "raises":
        with pytest.raises(result):
            name = in_place(name, operand)
        result = value
        assert c.revision == revision
    else:
        name = in_place(name, operand)
        assert c.revision == revision + 1
    assert name is c
    assert (c.value, c.refresh()) == (result, result)


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize(
    "operand",
    [
        *(0.5, 2.0, 1 + 0j, "1", b"1", [1], (1,), {1}, None, object()),
        *(decimal.Decimal(1), fractions.Fraction(1), np.float64(1), np.array([1, 2])),
    ],
    ids=lambda operand: type(operand).__name__,
)
def test_other_operands_are_refused(sign: str, operand: Any) -> None:
    """What is no integer raises TypeError, and the name is still the counter."""
    in_place, _ = OPERATORS[sign]
    c = make_counter(5)
    with pytest.raises(TypeError) as caught:
        in_place(c, operand)
    assert isinstance(caught.value, InvalidTypeError)
    assert c.refresh() == 5


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize("operand", [True, np.int8(3), np.uint64(3), make_counter(3)], ids=repr)
def test_whatever_is_an_index_is_an_operand(sign: str, operand: Any) -> None:
    """Booleans, numpy's integers and counters are integers."""
    in_place, compute = OPERATORS[sign]
    c = make_counter(5)
    in_place(c, operand)
    assert c == compute(5, operator.index(operand))
    assert type(c.value) is int


@pytest.mark.parametrize("operate", [operator.itruediv, operator.imatmul])
def test_operators_that_make_no_integer_are_refused(operate: Any) -> None:
    """``/=`` and ``@=`` raise TypeError instead of turning the name into something else."""
    c = make_counter(6)
    with pytest.raises(InvalidTypeError):
        operate(c, 2)
    assert c.refresh() == 6


@pytest.mark.parametrize(
    ("value", "in_place", "operand"),
    [
        (10, operator.ipow, 10**9),
        (-2, operator.ipow, 10**400),
        (1, operator.ilshift, 10**400),
        (7, operator.ilshift, 10**12),
        (3, operator.iadd, 10**5000),
        (3, operator.imul, 10**5000),
    ],
    ids=range(6),
)
def test_what_is_too_long_is_told_at_once(value: int, in_place: Any, operand: int) -> None:
    """A result of more than 500 digits is refused without computing it."""
    c = make_counter(value)
    began = time.process_time()
    with pytest.raises(BoundsError) as caught:
        in_place(c, operand)
    assert isinstance(caught.value, OverflowError)
    assert time.process_time() - began < 0.5  # the power itself would take hours
    assert c.refresh() == value


@pytest.mark.parametrize(
    ("value", "in_place", "operand", "result"),
    [
        (0, operator.ilshift, 10**400, 0),
        (0, operator.ipow, 10**400, 0),
        (1, operator.ipow, 10**400, 1),
        (-1, operator.ipow, 10**400, 1),
        (10, operator.ipow, 499, 10**499),
        (5, operator.irshift, 10**400, 0),
    ],
    ids=range(6),
)
def test_what_fits_is_computed(value: int, in_place: Any, operand: int, result: int) -> None:
    """A huge operand is fine where the result is not huge."""
    c = make_counter(value)
    in_place(c, operand)
    assert c.refresh() == result


def test_out_of_sync_changes_nothing_but_the_view() -> None:
    """After OutOfSyncError the name is the counter, with the newest value, and the next applies."""
    c = make_counter(0)
    other = Counter(c.domain, c.name, store=c.store)
    other += 10
    with pytest.raises(ValueError, match=r"^Counter was out of sync$") as caught:
        c *= 2
    assert isinstance(caught.value, OutOfSyncError)
    assert isinstance(c, Counter)
    assert c == 10
    c *= 2
    assert other.refresh() == 20


def test_bounds_never_look_like_a_value_error() -> None:
    """``except ValueError: again``, as the seed's users wrote it, does not spin at a bound."""
    c = make_counter(5, maximum=5)
    with pytest.raises(OverflowError) as caught:
        c += 1
    assert not isinstance(caught.value, ValueError)


def test_a_deleted_counter_is_not_written() -> None:
    """An in-place operator never brings a deleted counter back."""
    c = make_counter(5)
    Counter(c.domain, c.name, store=c.store).delete()
    with pytest.raises(CounterNotFoundError):
        c += 1
    assert c == 5
    assert connect("memory://tests").read(c._address, timeout=1).deleted  # type: ignore[union-attr]
