"""Select expressions: what they mean, and what they refuse.

`parse` makes a `Query` of an expression; the query says whether an item
matches, and in what order items come. The grammar is in ``select.lark``.

Two or more comparisons of one attribute that ``and`` or ``or`` joins, through
parentheses too, are one *predicate*: it is tested value by value, and holds
for an item when one of the values passes as a whole (with ``every()``, when
all do). So ``k = 'a' and k = 'b'`` never holds, and ``k = 'a' intersection
k = 'b'`` holds where both values are there. All else works on sets of items:
``and``, ``or`` between predicates, ``intersection``, and ``not``, which is the
complement and never looks into a value.

Where Amazon's documents are silent, this is what we do:

- ``not`` binds tightest, then ``and``, ``intersection``, ``or``. That is SQL's
  order, in which INTERSECT goes before UNION too; and a range on either side
  of an ``intersection`` stays one predicate, as it was in the brackets of the
  Query language that Select replaced.
- The order in which a chain of ``and`` or ``or`` is written does not matter:
  ``k > 'a' and y = '1' and k < 'c'`` has two predicates. ``k`` and ``every(k)``
  never share one.
- An attribute that an item lacks has one value, null. Only ``is null`` holds
  for it: not ``!=``, not ``not like``, nothing of ``every()``.
- A ``%`` that neither stands at an end of a pattern nor has a backslash before
  it is an error of syntax; so is a negative or fractional limit. Function names
  are read in any case, as the reserved words are.
- Items without the attribute that sorts are left out. Of several values the
  least one sorts, both ways. Items that sort alike, or not at all, come by name.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.lark import PostLex

from simpledb_local.errors import ServiceError

__all__ = ["Attributes", "Order", "Output", "Query", "parse"]

Attributes: TypeAlias = Mapping[str, Collection[str]]
"""An item's values by attribute, each at most once."""

_ValueTest: TypeAlias = Callable[[str], bool]
_ItemTest: TypeAlias = Callable[[str, Attributes], bool]

_A = TypeVar("_A", bound=Attributes)

_MOST_REQUESTED: Final = 256
_MOST_COMPARISONS: Final = 20
_MOST_ITEMS: Final = 2500
_MOST_BYTES: Final = 1024

_MOST_TOKENS: Final = 2_000
"""More than any expression needs that keeps the limits above; it bounds the time to parse."""

_MOST_NESTED: Final = 64
"""Parentheses within each other, and ``not``; it bounds every recursion over conditions."""

_LONGEST_CACHED: Final = 2_000

_WORDS: Final = {
    word: "DESC" if word == "desc" else f"_{word.upper()}"
    for word in (
        *("or", "and", "not", "from", "where", "select", "like", "null", "is", "order", "by"),
        *("asc", "desc", "in", "between", "intersection", "limit", "every"),
    )
}
"""The reserved words, and what the grammar calls them."""


class Output(Enum):
    """What a query answers, when that is not a list of attributes."""

    ALL = "*"
    COUNT = "count(*)"
    ITEM_NAME = "itemName()"


class Order(NamedTuple):
    """The attribute that sorts, None for ``itemName()``, and in which direction."""

    attribute: str | None
    descending: bool = False


class _Operand(NamedTuple):
    """What is compared: an attribute's values, or for None the item's name."""

    attribute: str | None
    every: bool = False


@dataclass(frozen=True, slots=True)
class _Comparison:
    operand: _Operand
    operator: str
    constants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Join:
    """Conditions in a row; it has an operand when all of them together are one predicate."""

    word: Literal["and", "or", "intersection"]
    parts: tuple[_Condition, ...]
    operand: _Operand | None = None


@dataclass(frozen=True, slots=True)
class _Not:
    part: _Condition
    operand: None = None


_Condition: TypeAlias = _Comparison | _Join | _Not


@dataclass(frozen=True)
class Query:
    """A Select expression that keeps all rules and limits.

    ``output`` is a tuple of the attributes' names where they are listed.
    Whether there can be a domain of that name is for others to say.
    """

    domain: str
    output: Output | tuple[str, ...]
    where: _Condition | None = None
    order: Order | None = None
    limit: int = 100

    def matches(self, name: str, attributes: Attributes) -> bool:
        """Whether the item ``name`` with these ``attributes`` is selected."""
        return self._test(name, attributes)

    def arrange(self, items: Iterable[tuple[str, _A]]) -> list[tuple[str, _A]]:
        """The ``items``, all of which match, in the order of the query, the same every time."""
        arranged = sorted(items, key=operator.itemgetter(0))
        if self.order is None:
            return arranged
        attribute, descending = self.order
        if attribute is None:
            return arranged[::-1] if descending else arranged
        return sorted(arranged, key=lambda item: min(item[1][attribute]), reverse=descending)

    @cached_property
    def fingerprint(self) -> str:
        """The same for queries of one domain that select the same items in the same order.

        What they answer, and how many at once, may differ: a token of one is good for the other.
        """
        canonical = repr((self.domain, self.where, self.order))
        return sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def item_names(self) -> frozenset[str] | None:
        """The only items that can match, where the expression names them; None where not."""
        return None if self.where is None else _named(self.where)

    @cached_property
    def _test(self) -> _ItemTest:
        if self.where is None:
            return lambda name, attributes: True
        test = _item_test(self.where)
        if self.order is None or self.order.attribute is None:
            return test
        sorting = self.order.attribute
        return lambda name, attributes: bool(attributes.get(sorting)) and test(name, attributes)


def parse(expression: str) -> Query:
    """The query that ``expression`` asks for. Raises `ServiceError` when it is not a valid one."""
    if len(expression) > _LONGEST_CACHED:
        return _parse(expression)
    return _parse_cached(expression)


def _parse(expression: str) -> Query:
    try:
        query = _PARSER.parse(expression)
    except UnexpectedInput:
        raise _bad_syntax() from None
    assert isinstance(query, Query)
    return query


_parse_cached = lru_cache(maxsize=256)(_parse)


# Errors


def _refusal(code: str, message: str) -> ServiceError:
    return ServiceError(code, message, box_usage=0.0000137200)


def _bad_syntax() -> ServiceError:
    return _refusal("InvalidQueryExpression", "The specified query expression syntax is not valid.")


def _bad_parameter(value: str, parameter: str, reason: str) -> ServiceError:
    return _refusal(
        "InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid. {reason}"
    )


def _bad_order() -> ServiceError:
    return _refusal(
        "InvalidSortExpression",
        "Invalid sort expression. The sort attribute must be present in at least one of the "
        "predicates, and the predicate cannot contain the is null operator.",
    )


def _too_many_requested() -> ServiceError:
    return _refusal("TooManyRequestedAttributes", "Too many attributes requested.")


def _too_many_predicates() -> ServiceError:
    return _refusal("InvalidNumberPredicates", "Too many predicates in the query expression.")


def _too_many_tests() -> ServiceError:
    return _refusal(
        "InvalidNumberValueTests", "Too many value tests per predicate in the query expression."
    )


# From text to conditions


class _Words(PostLex):
    """Between lexer and parser: tells reserved words from names, and ends what is too long.

    The parser takes one token at a time, so whatever came before is valid, and
    the last word tells what there is too much of.
    """

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        nested = 0
        word = ""
        for count, token in enumerate(stream):
            if token.type == "NAME" and token.lower() in _WORDS:
                token.type = word = _WORDS[token.lower()]
            if count == _MOST_TOKENS:
                if word == "_SELECT":
                    raise _too_many_requested()
                raise _too_many_tests() if word == "_IN" else _too_many_predicates()
            # No `not` is ever closed: simple, and never too little.
            nested += (token.type in ("LPAR", "_NOT")) - (token.type == "RPAR")
            if nested > _MOST_NESTED:
                raise _bad_syntax()
            yield token


@v_args(inline=True)
class _Builder(Transformer[Token, Query]):
    """Makes the query while the parser reduces: bottom up, without a tree, without recursion."""

    def start(
        self,
        output: Output | tuple[str, ...],
        domain: str,
        where: _Condition | None,
        order: Order | None,
        limit: Token | None,
    ) -> Query:
        if where is not None:
            _check_limits(where)
        if order is not None:
            _check_order(order, where)
        # Without a limit a page has 100 items, and a count as many as there are.
        otherwise = sys.maxsize if output is Output.COUNT else 100
        return Query(domain, output, where, order, otherwise if limit is None else _limit(limit))

    def everything(self) -> Output:
        return Output.ALL

    def count(self, token: Token) -> Output:
        return Output.COUNT

    def item_names(self, token: Token) -> Output:
        return Output.ITEM_NAME

    def attributes(self, *names: str) -> tuple[str, ...]:
        if len(names) > _MOST_REQUESTED:
            raise _too_many_requested()
        return tuple(dict.fromkeys(names))

    def ascending(self, operand: _Operand) -> Order:
        return Order(operand.attribute)

    def descending(self, operand: _Operand, word: Token) -> Order:
        return Order(operand.attribute, descending=True)

    def attribute(self, name: str) -> _Operand:
        return _Operand(name)

    def item_name(self, token: Token) -> _Operand:
        return _Operand(None)

    def every(self, name: str) -> _Operand:
        return _Operand(name, every=True)

    def either(self, *parts: _Condition) -> _Condition:
        return _join("or", parts)

    def common(self, *parts: _Condition) -> _Condition:
        return _Join("intersection", tuple(_chain("intersection", parts)))

    def both(self, *parts: _Condition) -> _Condition:
        return _join("and", parts)

    def complement(self, part: _Condition) -> _Condition:
        return _Not(part)

    def compare(self, operand: _Operand, sign: Token, constant: str) -> _Comparison:
        return _Comparison(operand, str(sign), (constant,))

    def like(self, operand: _Operand, pattern: str) -> _Comparison:
        _like(pattern)  # a bad one is refused now
        return _Comparison(operand, "like", (pattern,))

    def not_like(self, operand: _Operand, pattern: str) -> _Comparison:
        _like(pattern)
        return _Comparison(operand, "not like", (pattern,))

    def between(self, operand: _Operand, low: str, high: str) -> _Comparison:
        return _Comparison(operand, "between", (low, high))

    def in_list(self, operand: _Operand, *constants: str) -> _Comparison:
        return _Comparison(operand, "in", constants)

    def is_null(self, operand: _Operand) -> _Comparison:
        return _Comparison(operand, "is null")

    def is_not_null(self, operand: _Operand) -> _Comparison:
        return _Comparison(operand, "is not null")

    def plain(self, token: Token) -> str:
        return str(token)

    def quoted(self, token: Token) -> str:
        quote = token[0]
        return token[1:-1].replace(quote * 2, quote)

    def name(self, text: str) -> str:
        return _bounded(text, "Name")

    def constant(self, text: str) -> str:
        return _bounded(text, "Value")


_PARSER: Final = Lark.open(
    "select.lark",
    rel_to=__file__,
    parser="lalr",
    # A contextual lexer would take a reserved word for a name wherever only a name can stand.
    lexer="basic",
    postlex=_Words(),
    transformer=_Builder(),
)


def _bounded(text: str, parameter: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
        raise _bad_parameter(text, parameter, f"Value exceeds maximum length of {_MOST_BYTES}.")
    return text


def _limit(digits: str) -> int:
    # The length first: Python refuses to convert numbers of many thousand digits.
    limit = int(digits) if len(digits) < 10 else 0
    if not 1 <= limit <= _MOST_ITEMS:
        reason = f"MaxNumberOfItems must be between 1 and {_MOST_ITEMS}."
        raise _bad_parameter(digits, "MaxNumberOfItems", reason)
    return limit


def _join(word: Literal["and", "or"], parts: tuple[_Condition, ...]) -> _Condition:
    """Join ``parts``, those of the same operand first: they are one predicate."""
    predicates: dict[_Operand, list[_Condition]] = {}
    others: list[_Condition] = []
    for part in _chain(word, parts):
        if part.operand is None:
            others.append(part)
        else:
            predicates.setdefault(part.operand, []).append(part)
    joined: list[_Condition] = [
        same[0] if len(same) == 1 else _Join(word, tuple(same), operand)
        for operand, same in predicates.items()
    ]
    joined += others
    return joined[0] if len(joined) == 1 else _Join(word, tuple(joined))


def _chain(word: str, parts: tuple[_Condition, ...]) -> Iterator[_Condition]:
    """The ``parts`` without the parentheses that make no difference."""
    for part in parts:
        if isinstance(part, _Join) and part.word == word:
            yield from _chain(word, part.parts)
        else:
            yield part


def _predicates(condition: _Condition) -> Iterator[_Comparison | _Join]:
    if isinstance(condition, _Not):
        yield from _predicates(condition.part)
    elif condition.operand is not None:
        yield condition
    elif isinstance(condition, _Join):
        for part in condition.parts:
            yield from _predicates(part)


def _comparisons(predicate: _Condition) -> Iterator[_Comparison]:
    if isinstance(predicate, _Comparison):
        yield predicate
    elif isinstance(predicate, _Join):
        for part in predicate.parts:
            yield from _comparisons(part)


def _check_limits(where: _Condition) -> None:
    """At most 20 values tested in a predicate, and 20 comparisons, so 20 attributes, in all."""
    count = 0
    for predicate in _predicates(where):
        comparisons = list(_comparisons(predicate))
        tests = sum(len(c.constants) if c.operator == "in" else 1 for c in comparisons)
        if tests > _MOST_COMPARISONS:
            raise _too_many_tests()
        count += len(comparisons)
    if count > _MOST_COMPARISONS:
        raise _too_many_predicates()


def _check_order(order: Order, where: _Condition | None) -> None:
    """A predicate without ``is null`` must be about what sorts."""
    for predicate in () if where is None else _predicates(where):
        about = list(_comparisons(predicate))
        if about[0].operand.attribute == order.attribute and not any(
            comparison.operator == "is null" for comparison in about
        ):
            return
    raise _bad_order()


# From conditions to functions


def _item_test(condition: _Condition) -> _ItemTest:
    """The function that tells whether an item meets ``condition``."""
    if condition.operand is not None:
        return _predicate_test(condition, condition.operand)
    if isinstance(condition, _Not):
        test = _item_test(condition.part)
        return lambda name, attributes: not test(name, attributes)
    assert isinstance(condition, _Join)
    tests = [_item_test(part) for part in condition.parts]
    if condition.word == "or":
        return lambda name, attributes: any(test(name, attributes) for test in tests)
    return lambda name, attributes: all(test(name, attributes) for test in tests)


def _predicate_test(predicate: _Condition, operand: _Operand) -> _ItemTest:
    passes = _value_test(predicate)
    attribute, every = operand
    if attribute is None:
        return lambda name, attributes: passes(name)
    quantifier = all if every else any
    without = _allows_null(predicate)

    def test(name: str, attributes: Attributes) -> bool:
        values = attributes.get(attribute)
        return quantifier(map(passes, values)) if values else without

    return test


def _value_test(predicate: _Condition) -> _ValueTest:
    """The function that tells whether one value passes ``predicate`` as a whole."""
    if isinstance(predicate, _Comparison):
        return _COMPARISONS[predicate.operator](*predicate.constants)
    assert isinstance(predicate, _Join)
    tests = [_value_test(part) for part in predicate.parts]
    if predicate.word == "or":
        return lambda value: any(test(value) for test in tests)
    return lambda value: all(test(value) for test in tests)


def _allows_null(predicate: _Condition) -> bool:
    """Whether null passes ``predicate``, so that it holds for items without the attribute."""
    if isinstance(predicate, _Comparison):
        return predicate.operator == "is null"
    assert isinstance(predicate, _Join)
    quantifier = any if predicate.word == "or" else all
    return quantifier(map(_allows_null, predicate.parts))


def _named(condition: _Condition) -> frozenset[str] | None:
    if isinstance(condition, _Comparison):
        names = condition.operand.attribute is None and condition.operator in ("=", "in")
        return frozenset(condition.constants) if names else None
    if isinstance(condition, _Not):
        return None
    parts = [_named(part) for part in condition.parts]
    known = [names for names in parts if names is not None]
    if condition.word == "or":
        return frozenset().union(*known) if len(known) == len(parts) else None
    return frozenset.intersection(*known) if known else None


def _like(pattern: str) -> _ValueTest:
    texts = [text.replace(r"\%", "%") for text in re.split(r"(?<!\\)%", pattern)]
    match texts:
        case [text]:
            return partial(operator.eq, text)
        case [start, ""]:
            return lambda value: value.startswith(start)
        case ["", end]:
            return lambda value: value.endswith(end)
        case ["", text, ""]:
            return lambda value: text in value
        case _:
            raise _bad_syntax()


def _not_like(pattern: str) -> _ValueTest:
    like = _like(pattern)
    return lambda value: not like(value)


def _between(low: str, high: str) -> _ValueTest:
    return lambda value: low <= value <= high


def _in(*constants: str) -> _ValueTest:
    return frozenset(constants).__contains__


_COMPARISONS: Final[dict[str, Callable[..., _ValueTest]]] = {
    # The constant is on the left, so the signs are turned round.
    "=": partial(partial, operator.eq),
    "!=": partial(partial, operator.ne),
    ">": partial(partial, operator.lt),
    ">=": partial(partial, operator.le),
    "<": partial(partial, operator.gt),
    "<=": partial(partial, operator.ge),
    "like": _like,
    "not like": _not_like,
    "between": _between,
    "in": _in,
    "is null": lambda: lambda value: False,
    "is not null": lambda: lambda value: True,
}
