"""What writes make of an item's attributes, and when they are refused. Pure.

An item's attributes are names, each with its values: a set, kept sorted. An
item without attributes does not exist, which is None here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from simpledb_local import errors
from simpledb_local.parameters import Expected, Pair, Removal

__all__ = ["Attributes", "check", "merged", "without"]

Attributes = Mapping[str, Sequence[str]]

MOST_PAIRS: Final = 256


def check(attributes: Attributes | None, expected: Expected | None) -> None:
    """Raise `ServiceError` unless the item is as ``expected``."""
    if expected is None:
        return
    name, value = expected
    values = attributes.get(name) if attributes else None
    if value is None:
        if values:
            raise errors.value_exists(name)
    elif not values:
        raise errors.attribute_absent(name)
    elif len(values) > 1:
        raise errors.multi_valued(name)
    elif values[0] != value:
        raise errors.value_differs(name, values[0], value)


def merged(attributes: Attributes | None, pairs: Iterable[Pair]) -> Attributes:
    """The attributes after a put: a name that any of its pairs replaces loses its old values."""
    result = dict(attributes) if attributes else {}
    new: dict[str, set[str]] = {}
    for name, value, replace in pairs:
        if name not in new:
            new[name] = set()
        if replace:
            result.pop(name, None)
        new[name].add(value)
    for name, values in new.items():
        result[name] = sorted(values.union(result.get(name, ())))
    if sum(map(len, result.values())) > MOST_PAIRS:
        raise errors.item_full()
    return result


def without(attributes: Attributes | None, removals: Sequence[Removal]) -> Attributes | None:
    """What a deletion leaves; without ``removals``, nothing."""
    if not attributes or not removals:
        return None
    result = dict(attributes)
    for name, value in removals:
        values = result.pop(name, ())
        if value is not None and (left := [other for other in values if other != value]):
            result[name] = left
    return result or None
