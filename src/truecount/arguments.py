"""Checks what callers pass in, and says what would have been right. Pure."""

from __future__ import annotations

import math
import operator
import re
from typing import Any, Final

from truecount.errors import BoundsError, InvalidNameError, InvalidTypeError
from truecount.record import DIGITS, LEAST, MOST

__all__ = [
    "check_amount",
    "check_bounds",
    "check_count",
    "check_domain",
    "check_key",
    "check_name",
    "check_timeout",
    "check_value",
    "integer",
    "show",
    "string",
]

NAME_BYTES: Final = 1024
KEY_BYTES: Final = 256

FARTHEST: Final = 2 * MOST
"""From the least value to the greatest."""

_DOMAIN = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def integer(number: Any, what: str) -> int:
    """``number`` as a plain int, if Python takes it for one (``operator.index``)."""
    try:
        return int(operator.index(number))
    except TypeError:
        raise _wrong_type(what, "an integer", number) from None


def string(text: Any, what: str) -> str:
    """``text``, if it is a str."""
    if not isinstance(text, str):
        raise _wrong_type(what, "a string", text)
    return text


def check_value(number: Any, what: str) -> int:
    """``number`` as a plain int of at most 500 digits."""
    value = integer(number, what)
    if not LEAST <= value <= MOST:
        raise BoundsError(f"{what} is {show(value)}; the most is {DIGITS} digits")
    return value


def check_amount(number: Any) -> int:
    """``number`` as a plain int that leads from one value to another."""
    amount = number if type(number) is int else integer(number, "the amount")
    if abs(amount) > FARTHEST:
        raise BoundsError(f"the amount is {show(amount)}; a value has at most {DIGITS} digits")
    return amount


def check_count(number: Any, what: str) -> int:
    """``number`` as a plain int above 0."""
    count = integer(number, what)
    if count < 1:
        raise BoundsError(f"{what} is {show(count)}; the least is 1")
    return count


def check_bounds(minimum: int | None, maximum: int | None) -> None:
    """Refuse a minimum above the maximum."""
    if minimum is not None and maximum is not None and minimum > maximum:
        raise BoundsError(
            f"the minimum {show(minimum)} is above the maximum {show(maximum)}",
            minimum=minimum,
            maximum=maximum,
        )


def check_domain(domain: Any) -> str:
    """``domain`` if it is 3 to 255 of the characters that SimpleDB allows."""
    text = string(domain, "a domain")
    if not _DOMAIN.fullmatch(text):
        raise InvalidNameError(
            f"the domain {_short(text)} is not 3 to 255 characters of a-z, A-Z, 0-9, '_', '.', '-'"
        )
    return text


def check_name(name: Any) -> str:
    """``name`` if it is 1 to 1,024 bytes of UTF-8 without control characters."""
    return _check_text(name, "a counter's name", NAME_BYTES)


def check_key(key: Any) -> str | None:
    """``key`` if it is None, or 1 to 256 bytes of UTF-8 without control characters."""
    return None if key is None else _check_text(key, "an idempotency key", KEY_BYTES)


def check_timeout(timeout: Any) -> float | None:
    """``timeout`` if it is None or a number of seconds."""
    if timeout is None:
        return None
    if isinstance(timeout, str | bytes):
        raise _wrong_type("a timeout", "a number of seconds or None", timeout)
    try:
        seconds = float(timeout)
    except (TypeError, ValueError, OverflowError):
        raise _wrong_type("a timeout", "a number of seconds or None", timeout) from None
    if math.isnan(seconds) or seconds < 0:
        raise InvalidTypeError(f"a timeout is 0 seconds or more, or None; not {timeout!r}")
    return None if math.isinf(seconds) else seconds


def show(number: int) -> str:
    """``number`` for a message: whole if it is short, else how long it is."""
    bits = number.bit_length()
    if bits <= 200:
        return str(number)
    return f"an integer of about {int(bits * math.log10(2)) + 1} digits"


def _check_text(given: Any, what: str, longest: int) -> str:
    if type(given) is str and given.isascii() and given.isprintable() and 0 < len(given) <= longest:
        return given  # as most are
    text = string(given, what)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(f"{what} must be Unicode text; {_short(text)} is not") from None
    if not 1 <= size <= longest:
        raise InvalidNameError(
            f"{what} has 1 to {longest:,} bytes of UTF-8; {_short(text)} has {size:,}"
        )
    if _CONTROL.search(text):
        raise InvalidNameError(f"{what} cannot hold control characters: {_short(text)}")
    return text


def _wrong_type(what: str, expected: str, given: object) -> InvalidTypeError:
    return InvalidTypeError(
        f"{what} must be {expected}, not {type(given).__name__}: {_short(given)}"
    )


def _short(thing: object) -> str:
    try:
        text = repr(thing)
    except Exception as error:  # whatever a caller's repr may raise
        return f"<{type(error).__name__} in its repr>"
    return text if len(text) <= 60 else text[:57] + "..."
