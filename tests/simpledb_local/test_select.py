"""Select expressions: the documented samples, the rules, the limits, and a naive evaluator."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpledb_local.errors import ServiceError
from simpledb_local.select import Order, Output, Query, parse

Items = Mapping[str, Mapping[str, set[str]]]

SAMPLE: Items = {
    "0385333498": {
        "Title": {"The Sirens of Titan"},
        "Author": {"Kurt Vonnegut"},
        "Year": {"1959"},
        "Pages": {"00336"},
        "Keyword": {"Book", "Paperback"},
        "Rating": {"*****", "5 stars", "Excellent"},
    },
    "0802131786": {
        "Title": {"Tropic of Cancer"},
        "Author": {"Henry Miller"},
        "Year": {"1934"},
        "Pages": {"00318"},
        "Keyword": {"Book"},
        "Rating": {"****"},
    },
    "1579124585": {
        "Title": {"The Right Stuff"},
        "Author": {"Tom Wolfe"},
        "Year": {"1979"},
        "Pages": {"00304"},
        "Keyword": {"Book", "Hardcover", "American"},
        "Rating": {"****", "4 stars"},
    },
    "B000T9886K": {
        "Title": {"In Between"},
        "Author": {"Paul Van Dyk"},
        "Year": {"2007"},
        "Keyword": {"CD", "Trance"},
        "Rating": {"4 stars"},
    },
    "B00005JPLW": {
        "Title": {"300"},
        "Author": {"Zack Snyder"},
        "Year": {"2007"},
        "Keyword": {"DVD", "Action", "Frank Miller"},
        "Rating": {"***", "3 stars", "Not bad"},
    },
    "B000SF3NGK": {
        "Title": {"Heaven's Gonna Burn Your Eyes"},
        "Author": {"Thievery Corporation"},
        "Year": {"2002"},
        "Rating": {"*****"},
    },
}
"""The sample data of Amazon's documentation."""


def select(query: Query, items: Items) -> list[str]:
    """The names of all ``items`` that match, in the order of the query."""
    found = [(name, values) for name, values in items.items() if query.matches(name, values)]
    return [name for name, _ in query.arrange(found)]


def where(condition: str, items: Items = SAMPLE) -> list[str]:
    """The names of the items that meet ``condition``."""
    return select(parse(f"select * from mydomain where {condition}"), items)


def refused(expression: str) -> tuple[str, str]:
    """The code and the text with which ``expression`` is refused."""
    with pytest.raises(ServiceError) as caught:
        parse(expression)
    assert caught.value.status == 400
    return caught.value.code, caught.value.message


SYNTAX = ("InvalidQueryExpression", "The specified query expression syntax is not valid.")
SORT = (
    "InvalidSortExpression",
    (
        "Invalid sort expression. The sort attribute must be present in at least one of the "
        "predicates, and the predicate cannot contain the is null operator."
    ),
)
TESTS = (
    "InvalidNumberValueTests",
    "Too many value tests per predicate in the query expression.",
)
PREDICATES = ("InvalidNumberPredicates", "Too many predicates in the query expression.")
REQUESTED = ("TooManyRequestedAttributes", "Too many attributes requested.")


# The documented samples


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("Title = 'The Right Stuff'", "1579124585"),
        ("Year > '1985'", "B000T9886K B00005JPLW B000SF3NGK"),
        ("Rating like '****%'", "0385333498 1579124585 0802131786 B000SF3NGK"),
        ("Pages < '00320'", "1579124585 0802131786"),
        ("Year > '1975' and Year < '2008'", "1579124585 B000T9886K B00005JPLW B000SF3NGK"),
        ("Year between '1975' and '2008'", "1579124585 B000T9886K B00005JPLW B000SF3NGK"),
        ("Rating = '***' or Rating = '*****'", "0385333498 B00005JPLW B000SF3NGK"),
        (
            "(Year > '1950' and Year < '1960') or Year like '193%' or Year = '2007'",
            "0385333498 0802131786 B000T9886K B00005JPLW",
        ),
        ("Rating = '4 stars' or Rating = '****'", "1579124585 0802131786 B000T9886K"),
        ("Keyword = 'Book' and Keyword = 'Hardcover'", ""),
        ("every(Keyword) in ('Book', 'Paperback')", "0385333498 0802131786"),
        ("Rating = '****'", "0802131786 1579124585"),
        ("every(Rating) = '****'", "0802131786"),
        ("Keyword = 'Book' intersection Keyword = 'Hardcover'", "1579124585"),
    ],
)
def test_documented_samples(condition: str, expected: str) -> None:
    """The samples of the documentation select the items that it says."""
    assert where(condition) == sorted(expected.split())


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("Year < '1980' order by Year asc", "0802131786 0385333498 1579124585"),
        ("Year < '1980' order by Year", "0802131786 0385333498 1579124585"),
        (
            "Year = '2007' intersection Author is not null order by Author desc",
            "B00005JPLW B000T9886K",
        ),
        (
            "itemName() like 'B000%' order by itemName()",
            "B00005JPLW B000SF3NGK B000T9886K",
        ),
    ],
)
def test_documented_orders(rest: str, expected: str) -> None:
    """The sorted samples of the documentation come in the order that it says."""
    assert where(rest) == expected.split()


def test_documented_pages() -> None:
    """Page by page of one item, the documented order goes on."""
    query = parse("select * from mydomain where Year < '1980' order by Year asc limit 1")
    assert query.limit == 1
    assert select(query, SAMPLE) == ["0802131786", "0385333498", "1579124585"]
    assert parse("select * from d where Year < '1980' order by Year limit 2").limit == 2


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("where Title = 'The Right Stuff'", 1),
        ("where Year > '1985'", 3),
        ("limit 500", 6),
        ("limit 4", 4),
    ],
)
def test_documented_counts(rest: str, expected: int) -> None:
    """The counting samples of the documentation count what it says."""
    query = parse(f"select count(*) from mydomain {rest}")
    assert query.output is Output.COUNT
    assert min(len(select(query, SAMPLE)), query.limit) == expected


def test_documented_sort_error() -> None:
    """Sorting by what no predicate is about is the documented error."""
    assert refused("select * from mydomain order by Year asc") == SORT


# Writing


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("*", Output.ALL),
        ("count(*)", Output.COUNT),
        ("COUNT ( * )", Output.COUNT),
        ("itemName()", Output.ITEM_NAME),
        ("ItemNAME( )", Output.ITEM_NAME),
        ("a", ("a",)),
        ("$a , _b1,`c d`,`select`,`e``f`", ("$a", "_b1", "c d", "select", "e`f")),
        ("b, a, b", ("b", "a")),
        ("count, itemName", ("count", "itemName")),
    ],
)
def test_outputs(listed: str, expected: Output | tuple[str, ...]) -> None:
    """Each form of the output list is understood."""
    assert parse(f"select {listed} from d").output == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("mydomain", "mydomain"),
        ("$_9", "$_9"),
        ("`my-domain.x`", "my-domain.x"),
        ("`a``b`", "a`b"),
        ("````", "`"),
        ("`from`", "from"),
        ("`''`", "''"),
    ],
)
def test_names(written: str, expected: str) -> None:
    """Names stand as they are or in back-ticks, a back-tick doubled."""
    assert parse(f"select * from {written}").domain == expected
    item = {"x": {expected: {"1"}}}
    assert where(f"{written} = '1'", item) == ["x"]
    assert where(f"every({written}) = '1'", item) == ["x"]
    assert parse(f"select * from d where {written} = '1' order by {written}").order == Order(
        expected
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("'a'", "a"),
        ('"a"', "a"),
        ("''", ""),
        ('""', ""),
        ("'it''s'", "it's"),
        ('"it\'s"', "it's"),
        ('"say ""hi"""', 'say "hi"'),
        ("'say \"hi\"'", 'say "hi"'),
        ("''''", "'"),
        ("'a\\'", "a\\"),
        ("'`'", "`"),
        ("' and '", " and "),
        ("'line\r\nline'", "line\r\nline"),
        ("'\0\ud800\U0001f600'", "\0\ud800\U0001f600"),
    ],
)
def test_constants(written: str, expected: str) -> None:
    """Constants stand in either quote, which is doubled inside."""
    items = {"x": {"a": {expected}}, "y": {"a": {expected + "-"}}}
    assert where(f"a = {written}", items) == ["x"]


RESERVED = [
    *("or", "and", "not", "from", "where", "select", "like", "null", "is", "order", "by"),
    *("desc", "asc", "in", "between", "intersection", "limit", "every"),
]


@pytest.mark.parametrize("word", RESERVED)
def test_reserved_words(word: str) -> None:
    """A reserved word is a name in back-ticks only, in any case of letters."""
    for name in (word, word.upper(), word.title()):
        assert refused(f"select {name} from d") == SYNTAX
        assert refused(f"select * from {name}") == SYNTAX
        assert refused(f"select * from d where {name} = '1'") == SYNTAX
        assert parse(f"select `{name}` from `{name}` where `{name}` = '1' order by `{name}`")
        assert parse(f"select {name}_ from d where {name}1 = '1'").output == (f"{name}_",)


def test_case_and_space() -> None:
    """Words are read in any case and need space only where they would run together."""
    dense = "SELECT*FROM`d`WHERE(a='1'AND\nNOT\tb IN('2',\"3\"))ORDER\r\nBY`a`DESC LIMIT 7"
    spaced = "select * from d where ( a = '1' and not b in ( '2' , '3' ) ) order by a desc limit 7"
    assert parse(dense) == parse(spaced)
    assert parse(spaced).order == Order("a", descending=True)
    assert where("A = '1'", {"x": {"a": {"1"}}, "y": {"A": {"1"}}}) == ["y"]
    assert where("a = 'V'", {"x": {"a": {"v"}}, "y": {"a": {"V"}}}) == ["y"]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "select",
        "select * from",
        "select * d",
        "select from d",
        "select *, a from d",
        "select itemName(), a from d",
        "select count(a) from d",
        "select a b from d",
        "select a, from d",
        "select * from d;",
        "select * from d, e",
        "select * from 'd'",
        "select * from my-domain",
        "select * from 1d",
        "select * from ``",
        "select * from `d",
        "select * from d where",
        "select * from d where a",
        "select * from d where a = 1",
        "select * from d where a = b",
        "select * from d where 'a' = 'b'",
        "select * from d where a == '1'",
        "select * from d where a <> '1'",
        "select * from d where a = '1",
        "select * from d where a = '1''",
        "select * from d where a = '1' b = '2'",
        "select * from d where (a = '1'",
        "select * from d where a = '1')",
        "select * from d where ()",
        "select * from d where a in ()",
        "select * from d where a in '1'",
        "select * from d where a in ('1',)",
        "select * from d where a not in ('1')",
        "select * from d where a between '1'",
        "select * from d where a not between '1' and '2'",
        "select * from d where a is '1'",
        "select * from d where a not null",
        "select * from d where every(itemName()) = '1'",
        "select * from d where every a = '1'",
        "select * from d where a = '1' and",
        "select * from d where and a = '1'",
        "select * from d where a = '1' union b = '1'",
        "select * from d order by",
        "select * from d where a = '1' order by every(a)",
        "select * from d where a = '1' order by a, b",
        "select * from d where a = '1' limit 1 order by a",
        "select * from d limit",
        "select * from d limit -1",
        "select * from d limit 1.5",
        "select * from d limit '1'",
        "select * from d limit 1 2",
        "select * from d limit \u0661",
        "select\u00a0* from d",
        "select * from \u00e9",
        "\0",
        "\ud800",
        "select * from d where a = '1' \0",
    ],
)
def test_bad_syntax(expression: str) -> None:
    """What the grammar does not know is an invalid query expression."""
    assert refused(expression) == SYNTAX


# Comparing


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a = '2'", "2"),
        ("a != '2'", "1 11 3"),
        ("a > '11'", "2 3"),
        ("a >= '11'", "11 2 3"),
        ("a < '2'", "1 11"),
        ("a <= '2'", "1 11 2"),
        ("a between '11' and '2'", "11 2"),
        ("a between '2' and '11'", ""),
        ("a in ('3', '1', '4')", "1 3"),
        ("a like '1%'", "1 11"),
        ("a not like '1%'", "2 3"),
        ("a is null", "none"),
        ("a is not null", "1 11 2 3"),
        ("every(a) is null", "none"),
        ("every(a) is not null", "1 11 2 3"),
        ("every(a) != '2'", "1 11 3"),
        ("itemName() > '2'", "3 none"),
        ("itemName() in ('1', '5')", "1"),
        ("itemName() not like '%1'", "2 3 none"),
        ("itemName() is null", ""),
        ("itemName() is not null", "1 11 2 3 none"),
        ("not a = '2'", "1 11 3 none"),
        ("not a != '2'", "2 none"),
    ],
)
def test_operators(condition: str, expected: str) -> None:
    """Each operator compares texts; an item without the attribute only ``is null``."""
    items: Items = {name: {"a": {name}} for name in ("1", "11", "2", "3")}
    assert where(condition, {**items, "none": {"b": {"1"}}}) == expected.split()


def test_empty_is_not_null() -> None:
    """The empty text is a value, and less than any other."""
    items: Items = {"x": {"a": {""}}, "y": {"a": set()}, "z": {}}
    assert where("a is null", items) == ["y", "z"]
    assert where("a is not null", items) == ["x"]
    assert where("a < ' '", items) == ["x"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("3%", ["3%", "3%x", "30", "3\\%"]),
        ("%3", ["13"]),
        ("%3%", ["13", "13%", "3%", "3%x", "30", "3\\%"]),
        ("%", ["", "%", "13", "13%", "3%", "3%x", "30", "3\\%"]),
        ("%%", ["", "%", "13", "13%", "3%", "3%x", "30", "3\\%"]),
        ("", [""]),
        ("30", ["30"]),
        (r"%3\%", ["13%", "3%"]),
        (r"3\%%", ["3%", "3%x"]),
        (r"%\%%", ["%", "13%", "3%", "3%x", "3\\%"]),
        (r"3\%", ["3%"]),
        (r"3\\%", ["3\\%"]),
        (r"3\0", []),
        ("_0", []),
        ("[3]%", []),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    r"""``%`` at the ends stands for anything, ``\%`` for itself, and nothing else for more."""
    texts = ["", "%", "13", "13%", "3%", "3%x", "30", "3\\%"]
    items: Items = {f"i{text}": {"a": {text}} for text in texts}
    assert where(f"a like '{pattern}'", items) == [f"i{text}" for text in expected]
    others = sorted(set(texts) - set(expected))
    assert where(f"a not like '{pattern}'", items) == [f"i{text}" for text in others]


@pytest.mark.parametrize("pattern", ["a%b", "%a%b", "a%b%", "%%%", r"a\%%b", "%a%b%"])
def test_a_wildcard_inside_is_refused(pattern: str) -> None:
    """A ``%`` that is neither at an end nor escaped is an error, not a guess."""
    assert refused(f"select * from d where a like '{pattern}'") == SYNTAX
    assert refused(f"select * from d where a not like '{pattern}'") == SYNTAX


MANY: Items = {
    "1": {"k": {"a"}, "y": {"1"}},
    "12": {"k": {"a", "b"}, "y": {"1"}},
    "2": {"k": {"b"}, "y": {"2"}},
    "13": {"k": {"a", "c"}, "y": {"2"}},
    "0": {"y": {"1"}},
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # One predicate is tested value by value,
        ("k = 'a' and k = 'b'", ""),
        ("k > 'a' and k < 'c'", "12 2"),
        ("(k = 'a') and ((k = 'b'))", ""),
        ("(k = 'a' or k = 'c') and k != 'a'", "13"),
        ("k > 'a' and y = '1' and k < 'c'", "12"),
        ("(k > 'a' and y = '2') and k < 'c'", "2"),
        ("k = 'a' and k is not null", "1 12 13"),
        ("k is null or k = 'b'", "0 12 2"),
        ("k is null and k = 'b'", ""),
        ("(k is not null or k = 'x') and k = 'a'", "1 12 13"),
        # with every() by each of them,
        ("every(k) = 'a' or every(k) = 'b'", "1 12 2"),
        ("every(k) = 'a' or y = '1' or every(k) = 'b'", "0 1 12 2"),
        ("every(k) >= 'a' and every(k) < 'c'", "1 12 2"),
        # and each of these is two predicates.
        ("k = 'a' intersection k = 'b'", "12"),
        ("k = 'a' and every(k) < 'c'", "1 12"),
        ("k = 'b' and every(k) != 'a'", "2"),
        ("k = 'a' and not k = 'b'", "1 13"),
        ("not k = 'a' and not k = 'b'", "0"),
        ("not (k = 'a' and k = 'b')", "0 1 12 13 2"),
        ("not (k = 'a' intersection k = 'b')", "0 1 13 2"),
        ("k = 'a' and (k = 'b' intersection y = '1')", "12"),
        ("not not k = 'a' and k = 'b'", "12"),
        ("(k = 'a' or y = '2') and k = 'b'", "12 2"),
        # Different attributes are sets of items.
        ("k = 'a' and y = '1'", "1 12"),
        ("k = 'b' or y = '1'", "0 1 12 2"),
    ],
)
def test_predicates(condition: str, expected: str) -> None:
    """Comparisons of one attribute that and/or joins are one predicate; the rest are sets."""
    assert where(condition, MANY) == expected.split()


@pytest.mark.parametrize(
    ("condition", "same"),
    [
        ("not a = '1' and b = '1'", "(not a = '1') and b = '1'"),
        ("not a = '1' or b = '1'", "(not a = '1') or b = '1'"),
        ("not a = '1' intersection b = '1'", "(not a = '1') intersection b = '1'"),
        ("a = '1' or b = '1' and c = '1'", "a = '1' or (b = '1' and c = '1')"),
        ("a = '1' and b = '1' or c = '1'", "(a = '1' and b = '1') or c = '1'"),
        ("a = '1' or b = '1' intersection c = '1'", "a = '1' or (b = '1' intersection c = '1')"),
        (
            "a > '1' and a < '3' intersection a = '9'",
            "(a > '1' and a < '3') intersection a = '9'",
        ),
        (
            "a = '9' intersection a > '1' and a < '3'",
            "a = '9' intersection (a > '1' and a < '3')",
        ),
        ("a between '1' and '2' and b = '1'", "(a between '1' and '2') and b = '1'"),
        ("a = '1' and a = '2' and b = '1'", "b = '1' and a = '1' and a = '2'"),
    ],
)
def test_precedence(condition: str, same: str) -> None:
    """``not`` before ``and`` before ``intersection`` before ``or``."""
    attributes = [frozenset(v) for n in range(3) for v in itertools.combinations("129", n)]
    for a, b, c in itertools.product(attributes, repeat=3):
        items: Items = {"x": {"a": set(a), "b": set(b), "c": set(c)}}
        assert where(condition, items) == where(same, items)


# Sorting


@pytest.mark.parametrize(
    "condition",
    [
        "y is not null",
        "x is null and y is not null",
        "every(y) = '1'",
        "not y = '5'",
        "y is null intersection y is not null",
    ],
)
def test_sortable(condition: str) -> None:
    """What a predicate without ``is null`` is about can sort."""
    assert parse(f"select * from d where {condition} order by y").order == Order("y")


@pytest.mark.parametrize(
    "rest",
    [
        "where x = '1' order by y",
        "where y is null order by y",
        "where x is null order by y",
        "where not y is null order by y",
        "where y is null or y = '1' order by y",
        "where y is null and x = '1' order by y desc limit 5",
        "where Y = '1' order by y",
        "where `itemName()` = '1' order by itemName()",
        "where itemName() = '1' order by `itemName()`",
        "order by itemName()",
        "order by itemName() desc",
    ],
)
def test_not_sortable(rest: str) -> None:
    """What no predicate is about, or one with ``is null``, cannot sort."""
    assert refused(f"select * from d {rest}") == SORT


def test_order() -> None:
    """The least value sorts; those alike come by name, both ways; those without are left out."""
    items: Items = {
        "e": {"y": {"2"}},
        "d": {"y": {"1", "9"}},
        "c": {"y": {"2", "3"}},
        "b": {"z": {"1"}},
        "a": {"y": {"10"}},
    }
    condition = "y is not null or z = '1'"
    assert where(condition, items) == ["a", "b", "c", "d", "e"]
    assert where(f"{condition} order by y", items) == ["d", "a", "c", "e"]
    assert where(f"{condition} order by y desc", items) == ["c", "e", "a", "d"]
    assert where("itemName() != 'b' order by itemName() desc", items) == ["e", "d", "c", "a"]


# Limits


def joined(count: int, condition: str, word: str = " or ") -> str:
    """The ``condition`` that often, with its number for ``#``."""
    return word.join(condition.replace("#", str(number)) for number in range(count))


def listed(count: int) -> str:
    """That many constants."""
    return joined(count, "'#'", ", ")


@pytest.mark.parametrize(
    "condition",
    [
        joined(20, "a = '#'"),
        joined(20, "a# = '1'"),
        joined(20, "a = '#'", " intersection "),
        joined(20, "a# = '1'", " and "),
        f"a in ({listed(20)})",
        joined(20, f"a# in ({listed(20)})"),
        joined(20, "a between '#' and '9'"),
        f"every(a) in ({listed(20)}) and a in ({listed(20)})",
        "(" * 40 + joined(20, "a = '#'") + ")" * 40,
        "not " * 40 + "a = '1'",
    ],
)
def test_within_the_limits(condition: str) -> None:
    """Twenty comparisons, twenty tests in a predicate, and sensible nesting are accepted."""
    assert parse(f"select {joined(256, 'a#', ',')} from d where {condition}")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (joined(21, "a = '#'"), TESTS),
        (joined(21, "a = '#'", " and "), TESTS),
        (f"a in ({listed(21)})", TESTS),
        (f"a in ({listed(23)})", TESTS),
        (f"itemName() in ({listed(21)})", TESTS),
        (f"not b = '1' intersection every(a) in ({listed(21)})", TESTS),
        (f"a in ({listed(20)}) or b = '1' or a = '1'", TESTS),
        (f"a in ({listed(5_000)})", TESTS),
        (joined(21, "a# = '1'"), PREDICATES),
        (joined(21, "a# is null", " and "), PREDICATES),
        (joined(21, "a = '#'", " intersection "), PREDICATES),
        (joined(21, "not a = '#'", " and "), PREDICATES),
        (joined(7, "a# = '1' or a# = '2' or a# = '3'"), PREDICATES),
    ],
)
def test_too_many_comparisons(condition: str, expected: tuple[str, str]) -> None:
    """A predicate tests at most 20 values, and all of them make 20 comparisons."""
    assert refused(f"select * from d where {condition}") == expected


def test_errors_of_select_are_billed() -> None:
    """Too many value tests cost what the real service was seen to bill."""
    with pytest.raises(ServiceError) as caught:
        parse(f"select * from d where a in ({listed(23)})")
    assert caught.value.box_usage == 0.0000137200


def test_requested_attributes() -> None:
    """At most 256 attributes are requested."""
    output = parse(f"select {joined(256, 'a#', ',')} from d").output
    assert isinstance(output, tuple)
    assert len(output) == 256
    assert refused(f"select {joined(257, 'a#', ',')} from d") == REQUESTED
    assert refused(f"select {joined(100_000, 'a', ',')} from d") == REQUESTED


@pytest.mark.parametrize("limit", ["0", "00", "2501", "99999999999999999999", "9" * 10_000])
def test_bad_limits(limit: str) -> None:
    """A limit outside 1 to 2500 is an invalid parameter."""
    reason = "MaxNumberOfItems must be between 1 and 2500."
    assert refused(f"select * from d limit {limit}") == (
        "InvalidParameterValue",
        f"Value ({limit}) for parameter MaxNumberOfItems is invalid. {reason}",
    )


def test_limits() -> None:
    """A limit is 1 to 2500, and 100 when none is given."""
    assert parse("select * from d").limit == 100
    assert parse("select * from d limit 1").limit == 1
    assert parse("select * from d where a = '1' limit 02500").limit == 2500


def test_long_texts() -> None:
    """A constant or an attribute's name has at most 1,024 bytes, once it is unquoted."""
    for text in ("x" * 1024, "\u00e9" * 512, "'" * 1024, "\ud800" * 341):
        quoted = text.replace("'", "''")
        assert where(f"a = '{quoted}'", {"x": {"a": {text}}}) == ["x"]
    for text in ("x" * 1025, "\u00e9" * 513, "x" * 1_000_000):
        expected = "Value ({}) for parameter {} is invalid. Value exceeds maximum length of 1024."
        for condition, parameter in (
            (f"a = '{text}'", "Value"),
            (f"a between '' and '{text}'", "Value"),
            (f"a like '{text}'", "Value"),
            (f"`{text}` = '1'", "Name"),
            (f"every(`{text}`) = '1'", "Name"),
            (f"a = '1' order by `{text}`", "Name"),
        ):
            assert refused(f"select * from d where {condition}") == (
                "InvalidParameterValue",
                expected.format(text, parameter),
            )


# What others need


def test_fingerprint() -> None:
    """A token is good for another output and limit, not for another question."""
    base = "from d where a = '1' and b in ('2', '3')"
    tokens = {
        parse(expression).fingerprint
        for expression in (
            f"select * {base}",
            f"select count(*) {base} limit 2500",
            f"select itemName() {base} limit 1",
            "SELECT x FROM `d` WHERE (`a` = \"1\") AND b IN ('2','3')",
        )
    }
    assert len(tokens) == 1
    others = [
        "from e where a = '1' and b in ('2', '3')",
        "from d where a = '1' and b in ('2', '4')",
        "from d where a = '1' or b in ('2', '3')",
        "from d where every(a) = '1' and b in ('2', '3')",
        "from d where a = '1' intersection b in ('2', '3')",
        "from d where not (a = '1' and b in ('2', '3'))",
        f"{base} order by a",
        f"{base} order by a desc",
        f"{base} order by b",
        "from d",
    ]
    tokens |= {parse(f"select * {other}").fingerprint for other in others}
    assert len(tokens) == 1 + len(others)
    assert (
        parse(f"select * {base} order by a").fingerprint
        == parse(f"select * {base} order by `a` ASC").fingerprint
    )


@pytest.mark.parametrize("word", ["and", "or", "intersection"])
def test_fingerprint_without_needless_parentheses(word: str) -> None:
    """Parentheses that change nothing keep a token good."""
    written = [
        "a = '1' # a = '2' # b = '3' # not b = '4'",
        "((a = '1' # a = '2') # b = '3') # not (b = '4')",
        "(a = '1') # (a = '2' # (b = '3' # (not b = '4')))",
        "(a = '1' # a = '2') # (b = '3' # not b = '4')",
    ]
    conditions = [text.replace("#", word) for text in written]
    assert len({parse(f"select * from d where {c}").fingerprint for c in conditions}) == 1


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("itemName() = 'x'", {"x"}),
        ("itemName() in ('x', 'y')", {"x", "y"}),
        ("itemName() = 'x' or itemName() = 'y'", {"x", "y"}),
        ("itemName() = 'x' and itemName() = 'y'", set()),
        ("itemName() in ('x', 'y') and a = '1'", {"x", "y"}),
        ("a = '1' intersection itemName() in ('x', 'y') intersection itemName() = 'y'", {"y"}),
        ("(itemName() = 'x' and a = '1') or itemName() = 'y'", {"x", "y"}),
        ("itemName() = 'x' or a = '1'", None),
        ("not itemName() = 'x'", None),
        ("itemName() != 'x'", None),
        ("itemName() like 'x%'", None),
        ("`itemName()` = 'x'", None),
        ("a = 'x'", None),
    ],
)
def test_item_names(condition: str, expected: set[str] | None) -> None:
    """The names that a condition leaves are known where it says them."""
    assert parse(f"select * from d where {condition}").item_names == expected
    assert parse("select * from d").item_names is None


# Against a naive evaluator, which knows the reference only


@dataclass(frozen=True)
class Leaf:
    """A comparison as it is written, without its quotes."""

    operand: str
    operator: str
    constants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Conditions with one word between them."""

    word: str
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """The complement."""

    part: Node


Node = Leaf | Group | Not
Item = Mapping[str, set[str]]


def passes(node: Node, value: str | None) -> bool:
    """Whether one value, or null, passes a predicate."""
    if isinstance(node, Group):
        verdicts = [passes(part, value) for part in node.parts]
        return any(verdicts) if node.word == "or" else all(verdicts)
    assert isinstance(node, Leaf)
    if value is None or node.operator.startswith("is"):
        return node.operator == ("is null" if value is None else "is not null")
    encoded = value.encode()
    constants = [constant.encode() for constant in node.constants]
    if node.operator == "in":
        return encoded in constants
    if node.operator == "between":
        return constants[0] <= encoded <= constants[1]
    if node.operator.endswith("like"):
        parts = re.findall(r"\\%|%|.", node.constants[0], re.DOTALL)
        meanings = {"%": ".*", r"\%": "%"}
        pattern = "".join(meanings.get(part) or re.escape(part) for part in parts)
        found = re.fullmatch(pattern, value, re.DOTALL) is not None
        return found is (node.operator == "like")
    return {
        "=": encoded == constants[0],
        "!=": encoded != constants[0],
        "<": encoded < constants[0],
        "<=": encoded <= constants[0],
        ">": encoded > constants[0],
        ">=": encoded >= constants[0],
    }[node.operator]


def operand_of(node: Node) -> str | None:
    """What a predicate is about; None when it is not a single one."""
    if isinstance(node, Leaf):
        return node.operand
    if isinstance(node, Not) or node.word == "intersection":
        return None
    operands = {operand_of(part) for part in node.parts}
    return operands.pop() if len(operands) == 1 else None


def merged(node: Group) -> list[Node]:
    """The parts of a chain, through its parentheses, those about one operand put together."""
    chain: list[Node] = []
    waiting: list[Node] = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Group) and part.word == node.word:
            waiting.extend(part.parts)
        else:
            chain.append(part)
    if node.word == "intersection":
        return chain
    operands = {operand for part in chain if (operand := operand_of(part)) is not None}
    groups: list[Node] = [
        Group(node.word, tuple(part for part in chain if operand_of(part) == operand))
        for operand in operands
    ]
    return groups + [part for part in chain if operand_of(part) is None]


def holds(node: Node, name: str, item: Item) -> bool:
    """Whether an item meets the condition."""
    operand = operand_of(node)
    if operand == "itemName()":
        return passes(node, name)
    if operand is not None:
        attribute = operand.removeprefix("every(").removesuffix(")")
        found: list[str | None] = [*item.get(attribute, ())]
        verdicts = [passes(node, value) for value in found or [None]]
        return all(verdicts) if operand.startswith("every(") else any(verdicts)
    if isinstance(node, Not):
        return not holds(node.part, name, item)
    assert isinstance(node, Group)
    verdicts = [holds(part, name, item) for part in merged(node)]
    return any(verdicts) if node.word == "or" else all(verdicts)


def predicates(node: Node) -> list[Node]:
    """All predicates of a condition."""
    if operand_of(node) is not None:
        return [node]
    if isinstance(node, Not):
        return predicates(node.part)
    assert isinstance(node, Group)
    return [predicate for part in merged(node) for predicate in predicates(part)]


def operators(node: Node) -> set[str]:
    """All operators in a condition."""
    if isinstance(node, Leaf):
        return {node.operator}
    parts = (node.part,) if isinstance(node, Not) else node.parts
    return set().union(*map(operators, parts))


def may_sort(node: Node, attribute: str) -> bool:
    """Whether the condition has a predicate about ``attribute`` without ``is null``."""
    about = {attribute, f"every({attribute})"}
    return any(
        operand_of(predicate) in about and "is null" not in operators(predicate)
        for predicate in predicates(node)
    )


TIGHTNESS = {"or": 0, "intersection": 1, "and": 2}


class Writer:
    """Writes conditions as no two people would."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def word(self, text: str) -> str:
        """A word in some case."""
        return self.dice.choice([text, text.upper(), text.title(), text.swapcase()])

    def name(self, text: str) -> str:
        """A name, quoted or not."""
        return self.dice.choice([text, f"`{text}`"])

    def operand(self, text: str) -> list[str]:
        """An operand, in tokens."""
        if text == "itemName()":
            return [self.word(text)]
        if text.startswith("every("):
            return [self.word("every"), "(", self.name(text[6:-1]), ")"]
        return [self.name(text)]

    def constant(self, text: str) -> str:
        """A constant in one of the quotes."""
        quote = self.dice.choice("'\"")
        return quote + text.replace(quote, quote * 2) + quote

    def condition(self, node: Node, outer: int = 0) -> list[str]:
        """A condition, in tokens; ``outer`` is how tight the words around it bind."""
        if isinstance(node, Leaf):
            constants = [self.constant(text) for text in node.constants]
            words = [self.word(part) for part in node.operator.split()]
            tokens = self.operand(node.operand) + words
            if node.operator == "in":
                tokens += ["(", constants[0]]
                for constant in constants[1:]:
                    tokens += [",", constant]
                tokens += [")"]
            elif node.operator == "between":
                tokens += [constants[0], self.word("and"), constants[1]]
            else:
                tokens += constants
            tightness = 4
        elif isinstance(node, Not):
            tokens = [self.word("not"), *self.condition(node.part, 3)]
            tightness = 3
        else:
            tightness = TIGHTNESS[node.word]
            tokens = self.condition(node.parts[0], tightness)
            for part in node.parts[1:]:
                tokens += [self.word(node.word), *self.condition(part, tightness)]
        if tightness < outer or self.dice.random() < 0.2:
            tokens = ["(", *tokens, ")"]
        return tokens

    def text(self, tokens: list[str]) -> str:
        """The tokens with space between them, at least where they would run together."""
        text = ""
        for token in tokens:
            words = re.search(r"[\w$]\Z", text) and re.match(r"[\w$]", token)
            space = self.dice.choice([" ", "\n", " \t\r\n "])
            text += (space if words or self.dice.random() < 0.5 else "") + token
        return text


VALUES = ["", "1", "10", "2", "%", "1%", "a'b", 'a"b', "\\", "\u00e9", "\U0001f600", "\ufffd"]
PATTERNS = [
    *("", "%", "%%", "1%", "%0", "%1%", r"%\%", r"\%%", r"1\%", r"%\%%"),
    *("%'%", 'a"%', "10", "\\", "\u00e9%"),
]

constants = st.sampled_from(VALUES)
operands = st.sampled_from(["a", "b", "every(a)", "every(b)", "itemName()"])
leaves = st.one_of(
    st.builds(
        Leaf,
        operands,
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.tuples(constants),
    ),
    st.builds(
        Leaf,
        operands,
        st.sampled_from(["like", "not like"]),
        st.tuples(st.sampled_from(PATTERNS)),
    ),
    st.builds(Leaf, operands, st.just("between"), st.tuples(constants, constants)),
    st.builds(
        Leaf, operands, st.just("in"), st.lists(constants, min_size=1, max_size=3).map(tuple)
    ),
    st.builds(Leaf, operands, st.sampled_from(["is null", "is not null"])),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(
            Group,
            st.sampled_from(["and", "or", "intersection"]),
            st.lists(inner, min_size=2, max_size=3).map(tuple),
        ),
    ),
    max_leaves=6,
)
values = st.sets(constants, max_size=3)
items = st.dictionaries(
    constants.filter(bool), st.fixed_dictionaries({}, optional={"a": values, "b": values})
)
writers = st.randoms(use_true_random=False).map(Writer)


@settings(max_examples=300)
@given(conditions, items, writers)
def test_naive_evaluator_agrees(node: Node, data: Items, writer: Writer) -> None:
    """Any condition, however written, selects what a naive reading of the reference selects."""
    query = parse("select * from d where " + writer.text(writer.condition(node)))
    expected = sorted(name for name, item in data.items() if holds(node, name, item))
    assert select(query, data) == expected
    assert query.item_names is None or set(expected) <= query.item_names


@settings(max_examples=100)
@given(
    conditions,
    items,
    writers,
    st.sampled_from(["a", "b", "itemName()"]),
    st.sampled_from(["", "asc", "desc"]),
)
def test_naive_order_agrees(
    node: Node, data: Items, writer: Writer, attribute: str, direction: str
) -> None:
    """Any order is refused or kept as a naive reading of the reference does."""
    tokens = ["select", "*", "from", "d", "where", *writer.condition(node), "order", "by"]
    expression = writer.text([*tokens, attribute, *direction.split()])
    if not may_sort(node, attribute):
        assert refused(expression) == SORT
        return
    keys = {
        name: name if attribute == "itemName()" else min(item[attribute])
        for name, item in data.items()
        if holds(node, name, item) and (attribute == "itemName()" or item.get(attribute))
    }
    expected = sorted(sorted(keys), key=keys.__getitem__, reverse=direction == "desc")
    assert select(parse(expression), data) == expected


@settings(max_examples=100)
@given(conditions, writers)
def test_writing_does_not_matter(node: Node, writer: Writer) -> None:
    """However a condition is written, a token goes on being good for it."""
    texts = [writer.text(writer.condition(node)) for _ in range(2)]
    queries = [parse(f"select * from d where {text}") for text in texts]
    plain = parse("select * from d where " + " ".join(writer.condition(node)))
    assert len({query.fingerprint for query in [*queries, plain]}) == 1


# Hostile input


def survive(expression: str) -> None:
    """Parse and use an ``expression``, or be refused as the API refuses."""
    try:
        query = parse(expression)
    except ServiceError:
        return
    assert isinstance(query.limit, int)
    assert query.fingerprint
    assert query.item_names is None or isinstance(query.item_names, frozenset)
    select(query, SAMPLE)


SOUP = [
    *RESERVED,
    *("*", "(", ")", ",", "=", "!=", "<", ">=", "a", "`b`", "d", "count(*)", "itemName()"),
    *("'1'", '"2"', "''", "'%'", "'", '"', "`", "1", "0", "-", "\\", "\0", "\ud800", "\n", ";"),
]
VALID = (
    "select a, `b` from `my-d` where not (a in ('1', \"2\") and every(b) like '%x\\%') "
    "or itemName() between '1' and '2' intersection a is not null order by a desc limit 10"
)


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(st.characters(exclude_categories=())),
        st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
        st.binary().map(lambda data: data.decode("latin-1")),
        st.lists(st.sampled_from(SOUP), max_size=30).map(" ".join),
        st.lists(st.sampled_from(SOUP), max_size=20).map(
            lambda soup: "select * from d where a = '1' " + " ".join(soup)
        ),
    )
)
def test_any_text(text: str) -> None:
    """Any text at all is a query or an error of the API."""
    survive(text)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(VALID)),
            st.integers(0, 3),
            st.one_of(st.sampled_from(["", *SOUP]), st.characters(exclude_categories=())),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_expressions(damages: list[tuple[int, int, str]]) -> None:
    """A valid expression with some places cut out or written over is one, too."""
    text = VALID
    for place, length, instead in damages:
        text = text[:place] + instead + text[place + length :]
    survive(text)


WHERE = "select * from d where "


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: WHERE + "(" * 100_000, SYNTAX),
        (lambda: WHERE + "(" * 100_000 + "a = '1'" + ")" * 100_000, SYNTAX),
        (lambda: WHERE + "not " * 100_000 + "a = '1'", SYNTAX),
        (lambda: WHERE + "not(" * 100_000 + "a = '1'" + ")" * 100_000, SYNTAX),
        (lambda: WHERE + "(a = '1' or b = '1' and c = '1' intersection " * 60, SYNTAX),
        (
            lambda: (
                WHERE + "(a = '1' or b = '1' and c = '1' intersection " * 60 + "a = '1'" + ")" * 60
            ),
            PREDICATES,
        ),
        (lambda: WHERE + joined(100, "a = '#'"), TESTS),
        (lambda: WHERE + joined(50_000, "a = '1'"), PREDICATES),
        (lambda: WHERE + joined(50_000, "a# = '1'", " and "), PREDICATES),
        (lambda: WHERE + joined(50_000, "a# = '1'", " intersection "), PREDICATES),
        (lambda: WHERE + f"a in ({listed(100_000)})", TESTS),
        (lambda: f"select {joined(500_000, 'a', ',')} from d", REQUESTED),
        (lambda: WHERE + "a = '" + "x" * 1_000_000, SYNTAX),
        (lambda: WHERE + "a = '" + "''" * 500_000, SYNTAX),
        (lambda: "`" * 1_000_001, SYNTAX),
        (lambda: "count " * 200_000, SYNTAX),
        (lambda: "select count(" + " " * 1_000_000, SYNTAX),
        (lambda: "select itemName(" + "\n" * 1_000_000 + ")", SYNTAX),
        (lambda: "select * from d" + "\n" * 1_000_000 + ";", SYNTAX),
        (lambda: "\ud800" * 1_000_000, SYNTAX),
    ],
)
def test_hostile_expressions(make: Callable[[], str], expected: tuple[str, str]) -> None:
    """What is huge or deep is refused before it costs time or a stack."""
    assert refused(make()) == expected


def test_nesting_within_bounds_works() -> None:
    """The deepest condition that is accepted is also evaluated, named and told apart."""
    nested = "a = '1'"
    for number in range(18):
        nested = f"not (b{number} = '1' {('or', 'and', 'intersection')[number % 3]} ({nested}))"
    survive(WHERE + nested)
    assert where("not " * 64 + "a = '1'", {"x": {"a": {"1"}}}) == ["x"]
    assert where("(" * 64 + "a = '1'" + ")" * 64, {"x": {"a": {"1"}}}) == ["x"]
    assert refused(WHERE + "(" * 65 + "a = '1'" + ")" * 65) == SYNTAX


def test_long_expressions_work() -> None:
    """An expression at all limits at once is accepted, and its items found."""
    attributes = joined(256, "`" + "x" * 1020 + "#`", ", ")
    names = joined(20, "'" + "y" * 1000 + "#'", ", ")
    query = parse(
        f"select {attributes} from d where itemName() in ({names}) and "
        + joined(19, f"not a# in ({names})", " and ")
        + " order by itemName() desc limit 2500"
    )
    assert query.item_names is not None
    assert len(query.item_names) == 20
    found = select(query, {name: {} for name in [*query.item_names, "z"]})
    assert found == sorted(query.item_names, reverse=True)
