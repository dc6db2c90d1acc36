"""The parameters of a request, taken apart and checked.

Lists are flattened: ``Attribute.N.Name``, ``Item.N.Attribute.M.Value``. Clients
count from 0 or from 1, and leave the number out where there is one only; the
documentation itself writes the last word in lower case now and then.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from simpledb_local import errors

__all__ = ["Expected", "ItemPut", "ItemRemoval", "Pair", "Parameters", "Removal", "parse"]

MOST_PARAMETERS: Final = 20_000
"""More than the largest batch has: 25 items of 256 names, values and flags."""

MOST_ITEMS: Final = 25
MOST_PAIRS: Final = 256
LONGEST: Final = 1024
LARGEST_BATCH: Final = 1024 * 1024

_DOMAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}\Z")


class Pair(NamedTuple):
    """An attribute to put."""

    name: str
    value: str
    replace: bool


class Removal(NamedTuple):
    """An attribute to delete: one pair, or all values of a name (``value`` is None)."""

    name: str
    value: str | None


class Expected(NamedTuple):
    """The condition of a write: the attribute has that one value, or none (``value`` is None)."""

    name: str
    value: str | None


class ItemPut(NamedTuple):
    """What a request puts into an item."""

    item: str
    pairs: list[Pair]


class ItemRemoval(NamedTuple):
    """What a request deletes of an item: all of it when ``removals`` is empty."""

    item: str
    removals: list[Removal]


_Fields = list[tuple[str, str]]


def parse(query: bytes, body: bytes = b"") -> Parameters:
    """The parameters in a URL's query and in a form."""
    data = query + b"&" + body if query and body else query or body
    if data.count(b"&") >= MOST_PARAMETERS:
        raise errors.invalid_request("there are too many parameters")
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise errors.invalid_request("the parameters are not UTF-8") from error
    return Parameters(pairs, len(data))


class Parameters:
    """The parameters as the operations ask for them; each question may raise `ServiceError`.

    ``pairs`` are all names and values in the order in which they came,
    ``size`` the bytes that they took.
    """

    def __init__(self, pairs: _Fields, size: int) -> None:
        self.pairs = pairs
        self.size = size
        self._first = dict(reversed(pairs))

    def get(self, name: str) -> str | None:
        """The parameter ``name``, or None."""
        return self._first.get(name)

    def require(self, name: str) -> str:
        """The parameter ``name``, which must be there."""
        value = self._first.get(name)
        if value is None:
            raise errors.missing_parameter(name)
        return value

    def consistent(self) -> bool:
        """Whether a read must see everything that was answered before."""
        value = self._first.get("ConsistentRead")
        return value is not None and _flag("ConsistentRead", value)

    def domain(self) -> str:
        """The name of the domain, well-formed."""
        return checked_domain(self.require("DomainName"))

    def item(self) -> str:
        """The name of the item."""
        return _checked_item(self.require("ItemName"))

    def most_domains(self) -> int:
        """How many domains are to be listed."""
        text = self._first.get("MaxNumberOfDomains", "100")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= 100):
            raise errors.invalid_value(
                text, "MaxNumberOfDomains", " MaxNumberOfDomains must be between 1 and 100."
            )
        return int(text)

    def attribute_names(self) -> list[str]:
        """The attributes asked for; empty when all are."""
        found = []
        for name, value in self.pairs:
            word, dot, number = name.partition(".")
            if word == "AttributeName" and (not dot or _is_number(number)):
                found.append(_checked_name(value))
        return found

    def put(self) -> ItemPut:
        """What PutAttributes puts."""
        item = self.item()
        if "Replace" in self._first:
            raise errors.replace_per_item()
        groups = _numbered(self.pairs, "Attribute")
        if not groups:
            raise errors.no_attributes(item)
        if len(groups) > MOST_PAIRS:
            raise errors.too_many_attributes()
        return ItemPut(item, [_pair(group) for group in groups])

    def removal(self) -> ItemRemoval:
        """What DeleteAttributes deletes."""
        item = self.item()
        groups = _numbered(self.pairs, "Attribute")
        if len(groups) > MOST_PAIRS:
            raise errors.too_many_attributes()
        return ItemRemoval(item, [_removal(group) for group in groups])

    def batch_put(self) -> list[ItemPut]:
        """What BatchPutAttributes puts."""
        puts = []
        for item, fields in self._items():
            if any(field == "Replace" for field, _ in fields):
                raise errors.replace_per_item()
            groups = _numbered(fields, "Attribute")
            if not groups:
                raise errors.no_attributes(item)
            if len(groups) > MOST_PAIRS:
                raise errors.too_many_attributes_for(item)
            puts.append(ItemPut(item, [_pair(group) for group in groups]))
        return puts

    def batch_removal(self) -> list[ItemRemoval]:
        """What BatchDeleteAttributes deletes."""
        removals = []
        for item, fields in self._items():
            groups = _numbered(fields, "Attribute")
            if len(groups) > MOST_PAIRS:
                raise errors.too_many_attributes_for(item)
            removals.append(ItemRemoval(item, [_removal(group) for group in groups]))
        return removals

    def expected(self) -> Expected | None:
        """The condition, if there is one."""
        names: list[str] = []
        values: list[str] = []
        existences: list[str] = []
        lists = {"name": names, "value": values, "exists": existences}
        for group in _numbered(self.pairs, "Expected"):
            for field, value in group:
                if (found := lists.get(field.lower())) is not None:
                    found.append(value)
        if not (names or values or existences):
            return None
        if len(names) > 1:
            raise errors.several_expected_names()
        if len(values) > 1:
            raise errors.several_expected_values()
        if len(existences) > 1:
            raise errors.several_expected_existences()
        if not names:
            raise errors.missing_parameter("Expected.Name")
        name = _checked_name(names[0])
        if existences and not _flag("Expected.Exists", existences[0]):
            if values:
                raise errors.expected_absent_with_value()
            return Expected(name, None)
        if not values:
            raise errors.expected_without_value()
        return Expected(name, _checked_value(values[0]))

    def _items(self) -> list[tuple[str, _Fields]]:
        """The items of a batch: their names, and what else is said of each."""
        if self.size > LARGEST_BATCH:
            raise errors.invalid_request(f"a batch has at most {LARGEST_BATCH} bytes")
        groups = _numbered(self.pairs, "Item")
        if not groups:
            raise errors.missing_parameter("ItemName")
        if len(groups) > MOST_ITEMS:
            raise errors.too_many_items()
        items: dict[str, _Fields] = {}
        for group in groups:
            name = next((value for field, value in group if field == "ItemName"), None)
            if name is None:
                raise errors.missing_parameter("ItemName")
            if _checked_item(name) in items:
                raise errors.duplicate_item(name)
            items[name] = group
        return list(items.items())


def checked_domain(name: str) -> str:
    """A domain's name, if it can be one."""
    if not _DOMAIN_NAME.match(name):
        raise errors.invalid_value(name, "DomainName", " ")  # the blank is the real service's
    return name


def _numbered(pairs: _Fields, word: str) -> list[_Fields]:
    """The parameters ``word.N.rest`` as lists of (rest, value), one list for each N."""
    groups: dict[int, _Fields] = {}
    start = len(word) + 1
    head = word + "."
    for name, value in pairs:
        if name.startswith(head):
            number, _, rest = name[start:].partition(".")
            if _is_number(number):
                groups.setdefault(int(number), []).append((rest, value))
            else:
                groups.setdefault(-1, []).append((name[start:], value))
    return [groups[number] for number in sorted(groups)]


def _is_number(text: str) -> bool:
    return text.isdigit() and text.isascii() and len(text) < 10


def _pair(group: _Fields) -> Pair:
    fields = {field.lower(): value for field, value in reversed(group)}
    name, value, replace = fields.get("name"), fields.get("value"), fields.get("replace")
    if name is None:
        raise errors.missing_both() if value is None else errors.missing_name(value)
    if value is None:
        raise errors.missing_value(name)
    flag = replace is not None and _flag("Replace", replace)
    return Pair(_checked_name(name), _checked_value(value), flag)


def _removal(group: _Fields) -> Removal:
    fields = {field.lower(): value for field, value in reversed(group)}
    name, value = fields.get("name"), fields.get("value")
    if name is None:
        raise errors.missing_name_to_delete()
    return Removal(_checked_name(name), value if value is None else _checked_value(value))


def _flag(name: str, value: str) -> bool:
    if value == "true":
        return True
    if value != "false":
        flag = name if name == "Expected.Exists" else f"The {name} flag"
        raise errors.invalid_value(value, name, f" {flag} should be either true or false.")
    return False


def _checked_item(name: str) -> str:
    if not name:
        raise errors.invalid_value(name, "Item", " The empty string is an illegal item name")
    if _is_too_long(name):
        raise errors.invalid_value(name, "Item", " Value exceeds max length of 1024.")
    return name


def _checked_name(name: str) -> str:
    if not name:
        # No blank after the period: so the documentation has it.
        raise errors.invalid_value(name, "Name", "The empty string is an illegal attribute name")
    if _is_too_long(name):
        raise errors.invalid_value(name, "Name", " Value exceeds maximum length of 1024.")
    return name


def _checked_value(value: str) -> str:
    if _is_too_long(value):
        raise errors.invalid_value(value, "Value", " Value exceeds maximum length of 1024.")
    return value


def _is_too_long(text: str) -> bool:
    length = len(text)
    return length > LONGEST or (length > LONGEST // 4 and len(text.encode()) > LONGEST)
