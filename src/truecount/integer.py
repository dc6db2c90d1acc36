"""Everything that reads like an int, in terms of ``__int__`` alone.

Operators give what ``int`` gives, type and exception included, and plain
results: never another object of the class. Left out are those that would let
an object pass for something it is not: it has no hash, since what it reads as
moves, and is no iterable, so that ``max(c)`` or ``a, b = c`` are errors.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, overload

__all__ = ["Integer"]


class _Arithmetic(Protocol):
    """An operator between an int and something, as type checkers are to see it."""

    @overload
    def __call__(self, other: int | Integer, /) -> int: ...
    @overload
    def __call__(self, other: float, /) -> float: ...
    @overload
    def __call__(self, other: Any, /) -> Any: ...


class _Division(Protocol):
    @overload
    def __call__(self, other: float | Integer, /) -> float: ...
    @overload
    def __call__(self, other: Any, /) -> Any: ...


class _Bitwise(Protocol):
    def __call__(self, other: int | Integer, /) -> int: ...


class _Pair(Protocol):
    @overload
    def __call__(self, other: int | Integer, /) -> tuple[int, int]: ...
    @overload
    def __call__(self, other: Any, /) -> Any: ...


class _Any(Protocol):
    def __call__(self, other: Any, /) -> Any: ...


class _Comparison(Protocol):
    def __call__(self, other: Any, /) -> bool: ...


def _plain(thing: Any) -> Any:
    return int(thing) if isinstance(thing, Integer) else thing


def _left(operate: Callable[[Any, Any], Any]) -> Any:
    """Make the method for ``self`` on the left of the operator."""

    def method(self: Integer, other: Any, /) -> Any:
        return operate(int(self), _plain(other))

    return method


def _right(operate: Callable[[Any, Any], Any]) -> Any:
    """Make the method for ``self`` on the right of the operator."""

    def method(self: Integer, other: Any, /) -> Any:
        return operate(other, int(self))

    return method


def _times(other: Any, number: int) -> Any:
    # A sequence repeats itself, by way of __index__.
    return NotImplemented if isinstance(other, Sequence) else other * number


class Integer:
    """Reads as the int that ``__int__`` gives."""

    __slots__ = ()

    # numpy: leave the operator to this class instead of making arrays of objects.
    __array_ufunc__ = None

    def __int__(self) -> int:
        raise TypeError("an Integer must say which int it reads as")

    def __index__(self) -> int:
        return int(self)

    def __float__(self) -> float:
        return float(int(self))

    def __bool__(self) -> bool:
        return bool(int(self))

    def __str__(self) -> str:
        return str(int(self))

    def __format__(self, spec: str, /) -> str:
        return format(int(self), spec)

    __hash__ = None  # type: ignore[assignment]
    __iter__ = None
    __contains__ = None

    __eq__: _Comparison = _left(operator.eq)
    __ne__: _Comparison = _left(operator.ne)
    __lt__: _Comparison = _left(operator.lt)
    __le__: _Comparison = _left(operator.le)
    __gt__: _Comparison = _left(operator.gt)
    __ge__: _Comparison = _left(operator.ge)

    __add__: _Arithmetic = _left(operator.add)
    __sub__: _Arithmetic = _left(operator.sub)
    __mul__: _Arithmetic = _left(operator.mul)
    __floordiv__: _Arithmetic = _left(operator.floordiv)
    __mod__: _Arithmetic = _left(operator.mod)
    __truediv__: _Division = _left(operator.truediv)
    __divmod__: _Pair = _left(divmod)
    __matmul__: _Any = _left(operator.matmul)
    __lshift__: _Bitwise = _left(operator.lshift)
    __rshift__: _Bitwise = _left(operator.rshift)
    __and__: _Bitwise = _left(operator.and_)
    __or__: _Bitwise = _left(operator.or_)
    __xor__: _Bitwise = _left(operator.xor)

    __radd__: _Arithmetic = _right(operator.add)
    __rsub__: _Arithmetic = _right(operator.sub)
    __rmul__: _Arithmetic = _right(_times)
    __rfloordiv__: _Arithmetic = _right(operator.floordiv)
    __rmod__: _Arithmetic = _right(operator.mod)
    __rtruediv__: _Division = _right(operator.truediv)
    __rdivmod__: _Pair = _right(divmod)
    __rmatmul__: _Any = _right(operator.matmul)
    __rlshift__: _Bitwise = _right(operator.lshift)
    __rrshift__: _Bitwise = _right(operator.rshift)
    __rand__: _Bitwise = _right(operator.and_)
    __ror__: _Bitwise = _right(operator.or_)
    __rxor__: _Bitwise = _right(operator.xor)

    def __pow__(self, exponent: Any, modulus: Any = None, /) -> Any:
        return pow(int(self), _plain(exponent), _plain(modulus))

    def __rpow__(self, base: Any, modulus: Any = None, /) -> Any:
        return pow(base, int(self), modulus)

    def __neg__(self) -> int:
        return -int(self)

    def __pos__(self) -> int:
        return +int(self)

    def __abs__(self) -> int:
        return abs(int(self))

    def __invert__(self) -> int:
        return ~int(self)

    def __round__(self, *digits: Any) -> int:
        return round(int(self), *digits)

    def __trunc__(self) -> int:
        return math.trunc(int(self))

    def __floor__(self) -> int:
        return math.floor(int(self))

    def __ceil__(self) -> int:
        return math.ceil(int(self))

    # int's own methods

    @property
    def real(self) -> int:
        """The int itself."""
        return int(self)

    @property
    def imag(self) -> int:
        """0."""
        return int(self).imag

    @property
    def numerator(self) -> int:
        """The int itself."""
        return int(self)

    @property
    def denominator(self) -> int:
        """1."""
        return int(self).denominator

    def conjugate(self) -> int:
        """Return the int itself."""
        return int(self)

    def bit_length(self) -> int:
        """Return the number of bits of the magnitude."""
        return int(self).bit_length()

    def bit_count(self) -> int:
        """Return the number of ones in the magnitude's binary form."""
        return int(self).bit_count()

    def as_integer_ratio(self) -> tuple[int, Literal[1]]:
        """Return the int itself, and 1."""
        return int(self).as_integer_ratio()

    def to_bytes(
        self,
        length: SupportsIndex = 1,
        byteorder: Literal["little", "big"] = "big",
        *,
        signed: bool = False,
    ) -> bytes:
        """Return the int as bytes."""
        return int(self).to_bytes(length, byteorder, signed=signed)

    if sys.version_info >= (3, 12):

        def is_integer(self) -> Literal[True]:
            """Return True."""
            return int(self).is_integer()
