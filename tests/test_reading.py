"""A counter reads as an int: the same results, of the same types, and the same exceptions."""

from __future__ import annotations

import copy
import decimal
import fractions
import json
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import make_counter
from truecount import Counter, connect
from truecount.testing.faulty import FaultyStore

INTS = st.integers(-(2**70), 2**70) | st.integers(-5, 5)

FOREIGN = st.one_of(
    INTS,
    st.booleans(),
    st.floats(),
    st.complex_numbers(),
    st.fractions(),
    st.decimals(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=3),
    st.tuples(st.integers()),
    st.none(),
    st.integers(-100, 100).map(np.int64),
    st.integers(0, 100).map(np.uint8),
    st.floats(-9, 9).map(np.float64),
    st.lists(st.integers(-9, 9), max_size=3).map(np.array),
    st.just({1, 2}),
    st.just(object),
)

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "@": operator.matmul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "divmod": divmod,
}

SHIFTS: dict[str, Callable[[Any, Any], Any]] = {
    "<<": operator.lshift,
    ">>": operator.rshift,
    "**": operator.pow,
    "pow": pow,
}

UNARY: dict[str, Callable[[Any], Any]] = {
    "-": operator.neg,
    "+": operator.pos,
    "~": operator.invert,
    "abs": abs,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "round": round,
    "round(-1)": lambda c: round(c, -1),
    "round(2)": lambda c: round(c, 2),
    "round(x)": lambda c: round(c, "x"),
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "gcd": lambda c: math.gcd(c, 12),
    "isfinite": math.isfinite,
    "str": str,
    "format": lambda c: f"{c:05d}",
    "format ,": lambda c: f"{c:,}",
    "format x": lambda c: f"{c:#x}",
    "format e": lambda c: f"{c:.3e}",
    "format bad": lambda c: f"{c:q}",
    "% d": lambda c: "%d" % c,  # noqa: UP031  # the operator itself is meant
    "% s": lambda c: "%s" % c,  # noqa: UP031  # the same
    "% x": lambda c: "%x" % c,  # noqa: UP031  # the same
    "% 05d": lambda c: "%05d" % c,  # noqa: UP031  # the same
    "hex": hex,
    "oct": oct,
    "bin": bin,
    "chr": chr,
    "bytes": lambda c: bytes(c) if abs(int(c)) < 9 else 0,
    "range": lambda c: range(c),
    "range(c, 3)": lambda c: range(c, 3, 2),
    "index of a list": lambda c: ["a", "b", "c"][c],
    "slice": lambda c: "abcdef"[c:],
    "repeated": lambda c: "ab" * min(c, 3) if c < 3 else "",
    "bit_length": lambda c: c.bit_length(),
    "bit_count": lambda c: c.bit_count(),
    "as_integer_ratio": lambda c: c.as_integer_ratio(),
    "conjugate": lambda c: c.conjugate(),
    "real": lambda c: c.real,
    "imag": lambda c: c.imag,
    "numerator": lambda c: c.numerator,
    "denominator": lambda c: c.denominator,
    "to_bytes": lambda c: c.to_bytes(12, "big", signed=True),
    "to_bytes too short": lambda c: c.to_bytes(0),
    "Fraction": lambda c: fractions.Fraction(int(c)),
    "Decimal": lambda c: decimal.Decimal(int(c)),
    "iter": iter,
    "list": list,
    "unpacked": lambda c: (lambda a, b: a)(*c),
    "min": lambda c: min(c),
    "in": lambda c: 3 in c,
    "len": len,
    "call": lambda c: c(),
    "subscript": lambda c: c[0],
    "hash of its value": lambda c: hash(int(c)),
    "await": lambda c: c.__await__,
}


def outcome(function: Callable[..., Any], *operands: Any) -> tuple[Any, ...]:
    """What a call gives: type and value, or the type of what it raises."""
    try:
        result = function(*operands)
    except Exception as error:
        return ("raises", type(error))
    if isinstance(result, np.ndarray):
        return (type(result), result.dtype, result.shape, repr(result))
    return (type(result), repr(result))


def small_for(other: Any, value: int) -> int:
    """``value``, but small where a sequence repeated that often would not fit into memory."""
    return value % 99 if isinstance(other, str | bytes | list | tuple) else value


@pytest.mark.parametrize("sign", BINARY)
@given(value=INTS, other=FOREIGN)
def test_operators_on_the_left(sign: str, value: int, other: Any) -> None:
    """``c + other`` gives what ``int + other`` gives, for any other."""
    value = small_for(other, value)
    assert outcome(BINARY[sign], make_counter(value), other) == outcome(BINARY[sign], value, other)


@pytest.mark.parametrize("sign", BINARY)
@given(value=INTS, other=FOREIGN)
def test_operators_on_the_right(sign: str, value: int, other: Any) -> None:
    """``other + c`` gives what ``other + int`` gives, for any other."""
    value = small_for(other, value)
    assert outcome(BINARY[sign], other, make_counter(value)) == outcome(BINARY[sign], other, value)


@pytest.mark.parametrize("sign", SHIFTS)
@given(value=st.integers(-50, 50), other=st.integers(-50, 50) | st.floats(-3, 3) | st.text())
def test_powers_and_shifts(sign: str, value: int, other: Any) -> None:
    """Powers and shifts, on either side, give what ``int`` gives."""
    c = make_counter(value)
    assert outcome(SHIFTS[sign], c, other) == outcome(SHIFTS[sign], value, other)
    assert outcome(SHIFTS[sign], other, c) == outcome(SHIFTS[sign], other, value)


@given(
    value=st.integers(-50, 50),
    exponent=st.integers(-5, 50) | st.floats(0, 3),
    modulus=st.integers(-5, 5) | st.none(),
)
def test_pow_with_three_arguments(value: int, exponent: Any, modulus: Any) -> None:
    """Three-argument pow with the counter first gives what ``int`` gives."""
    assert outcome(pow, make_counter(value), exponent, modulus) == outcome(
        pow, value, exponent, modulus
    )


@given(value=INTS, other=INTS)
def test_two_counters(value: int, other: int) -> None:
    """Two counters calculate and compare as their values do."""
    c, d = make_counter(value), make_counter(other)
    for sign, operate in BINARY.items():
        assert outcome(operate, c, d) == outcome(operate, value, other), sign
    assert outcome(pow, c, make_counter(3), make_counter(7)) == outcome(pow, value, 3, 7)


@pytest.mark.parametrize("name", UNARY)
@given(value=INTS)
def test_everything_else_that_reads(name: str, value: int) -> None:
    """Conversions, formats, int's own methods and what int is not (iterable, callable)."""
    assert outcome(UNARY[name], make_counter(value)) == outcome(UNARY[name], value)


def test_it_has_no_hash_and_no_json() -> None:
    """What moves is no key, and is not written into JSON by accident."""
    c = make_counter(3)
    with pytest.raises(TypeError):
        hash(c)
    with pytest.raises(TypeError):
        json.dumps(c)
    assert json.dumps(c.value) == "3"
    assert not isinstance(c, int)


def test_it_has_all_of_ints_names() -> None:
    """Every public method of int, and every operator, is there."""
    own_ways = {"__class__", "__getnewargs__", "__hash__", "__new__", "from_bytes", "__getstate__"}
    assert {n for n in dir(int) if n not in own_ways} <= set(dir(Counter))


def test_reading_never_writes() -> None:
    """None of all this sends a single write to the store."""
    store = FaultyStore(connect("memory://reading"))
    c = Counter("mydomain", "counter1", 5, store=store)
    writes = store.writes
    others = (1, 2.5, "x", [1], None, np.int64(3), fractions.Fraction(1, 3), decimal.Decimal(2))
    for operate in (*BINARY.values(), *SHIFTS.values()):
        for other in others:
            outcome(operate, c, other)
            outcome(operate, other, c)
    for read in UNARY.values():
        outcome(read, c)
    _ = (
        repr(c),
        c.value,
        c.timestamp,
        c.updated_at,
        c.revision,
        c.minimum,
        c.maximum,
        copy.copy(c),
    )
    assert c.refresh() == 5
    assert store.writes == writes
