"""How arguments are read: the numbers, and the command that lets them be negative."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from truecount.defaults import UNCHANGED, Unchanged

__all__ = ["Bound", "Command", "Days", "Integer", "Seconds"]

LONGEST: Final = 1500
"""Digits of a number that are read at all, far more than a counter has."""

MASK: Final = "\0"
"""Stands before what is no option; nobody can type it."""


class Command(click.Command):
    """A command that takes ``-5`` for an argument and not for an option."""

    def make_parser(self, ctx: click.Context) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[Any]]:
            options, rest, order = parse([_mask(arg) for arg in args])
            return {k: _unmask(v) for k, v in options.items()}, _unmask(rest), order

        parser.parse_args = parse_args
        return parser


def _mask(argument: str) -> str:
    return MASK + argument if re.fullmatch("-[0-9]+", argument) else argument


def _unmask(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_unmask(part) for part in value)
    return value.removeprefix(MASK) if isinstance(value, str) else value


if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # not generic in click 8.1


class Integer(_Type):
    """A whole number of any length."""

    name = "integer"

    def __init__(self, wanted: str = "not a whole number") -> None:
        self.wanted = wanted  # what the rest is not

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value)
        if not re.fullmatch("[+-]?[0-9]+", text):
            self.fail(f"{text!r} is {self.wanted}", param, ctx)
        if len(text) > LONGEST:
            self.fail(f"longer than {LONGEST:,} digits; a counter has 500", param, ctx)
        return int(text)


class Days(Integer):
    """How many days a tombstone is kept: long enough that no request can be older."""

    def __init__(self) -> None:
        super().__init__("not a whole number of days, 7 or more")

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        days = super().convert(value, param, ctx)
        if days < 7:
            self.fail(f"{str(value)!r} is {self.wanted}", param, ctx)
        return days


_NUMBER_OR_NONE: Final[Integer] = Integer("neither a whole number nor 'none'")


class Bound(_Type):
    """A whole number, or ``none``."""

    name = "integer|none"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | Unchanged | None:
        if not isinstance(value, str):  # the default
            return UNCHANGED
        return None if _is_none(value) else _NUMBER_OR_NONE.convert(value, param, ctx)


class Seconds(_Type):
    """A number of seconds, or ``none``."""

    name = "seconds"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | None:
        if _is_none(value):
            return None
        if not re.fullmatch(r"[+-]?([0-9]+\.?|[0-9]*\.[0-9]+)(e[+-]?[0-9]+)?", value.lower()):
            self.fail(f"{value!r} is neither a number of seconds nor 'none'", param, ctx)
        return float(value)


def _is_none(value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "none"
