"""Pages of Select: as many items as may be answered at once, and a token for the rest."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple, TypeAlias

from simpledb_local.domains import CHUNK, Domains
from simpledb_local.items import Attributes
from simpledb_local.select import Order, Output, Query
from simpledb_local.tokens import START, Place
from simpledb_local.xml import attribute_elements, element

__all__ = ["Page", "select"]

LARGEST_PAGE: Final = 1024 * 1024
"""Bytes of a page."""

PATIENCE: Final = 5.0
"""Seconds after which a page ends, however little is in it."""

Item: TypeAlias = tuple[str, Attributes]


class Page(NamedTuple):
    """The items as XML, how many were found, and where to go on, None at the end."""

    items: str
    found: int
    rest: Place | None


async def select(
    domains: Domains,
    query: Query,
    start: Place = START,
    moment: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Page:
    """The page of ``query`` that begins at ``start``, of the domain as it was at ``moment``.

    Raises `ServiceError` when there is no such domain, and `TimeoutError` when the
    items to be sorted are too many.
    """
    domain = domains.number(query.domain)
    deadline = clock() + PATIENCE
    draft = _Draft(query)
    if query.order is None:
        async for items, end in _chunks(domains, domain, query, start.name, moment):
            for item in items:
                if not draft.add(*item):
                    return draft.page()
            if end is not None and clock() > deadline:
                draft.place = Place(end)
                return draft.page()
        return draft.page(is_last=True)

    found: list[Item] = []
    async for items, end in _chunks(domains, domain, query, "", moment):
        found += [item for item in items if _is_behind(start, item, query.order)]
        if end is not None and clock() > deadline:
            raise TimeoutError
    for item in query.arrange(found):
        if not draft.add(*item):
            return draft.page()
    return draft.page(is_last=True)


class _Draft:
    """A page that is being filled."""

    def __init__(self, query: Query) -> None:
        self.place = START
        self._order = query.order
        self._output = query.output
        self._limit = query.limit
        self._items: list[str] = []
        self._size = 0
        self._count = 0

    def add(self, name: str, attributes: Attributes) -> bool:
        """Add an item, if there is room for it."""
        text = ""
        if self._output is not Output.COUNT:
            text = _item(self._output, name, attributes)
            if not text:
                return True
        size = self._size + len(text.encode())
        if self._count == self._limit or (self._count and size > LARGEST_PAGE):
            return False
        self._count += 1
        self._size = size
        self._items.append(text)
        self.place = _place(name, attributes, self._order)
        return True

    def page(self, *, is_last: bool = False) -> Page:
        """The page as it is now."""
        items = _count(self._count) if self._output is Output.COUNT else "".join(self._items)
        return Page(items, self._count, None if is_last else self.place)


async def _chunks(
    domains: Domains, domain: int, query: Query, after: str, moment: float | None
) -> AsyncIterator[tuple[list[Item], str | None]]:
    """Matching items by name, from behind ``after`` on, and each time up to where that was.

    That is None at the end. Others have their turn in between: an item is as
    it was at some time since the request came, as on the real service.
    """
    if query.item_names is not None:
        names = sorted(name for name in query.item_names if name > after)
        known = [(name, domains.get(domain, name, moment)) for name in names]
        yield [(n, a) for n, a in known if a is not None and query.matches(n, a)], None
        return
    end: str | None = after
    while end is not None:
        items, end = domains.scan(domain, end, CHUNK, moment)
        yield [item for item in items if query.matches(*item)], end
        await domains.pause()


def _place(name: str, attributes: Attributes, order: Order | None) -> Place:
    """The place of an item. Of several values the least one sorts."""
    if order is None or order.attribute is None:
        return Place(name)
    return Place(name, min(attributes[order.attribute]))


def _is_behind(start: Place, item: Item, order: Order) -> bool:
    """Whether an item comes after ``start``. Items that sort alike come by name."""
    if start == START:
        return True
    place = _place(*item, order)
    if order.attribute is None:
        return place.name < start.name if order.descending else place.name > start.name
    if place.value == start.value:
        return place.name > start.name
    return (place.value < start.value) == order.descending


def _item(output: Output | tuple[str, ...], name: str, attributes: Attributes) -> str:
    """An item as XML; empty when it has none of the attributes that are listed."""
    if output is Output.ITEM_NAME:
        return f"<Item>{element('Name', name)}</Item>"
    wanted = output if isinstance(output, tuple) else None
    values = attribute_elements(attributes, wanted)
    if wanted is not None and not values:
        return ""
    return f"<Item>{element('Name', name)}{''.join(values)}</Item>"


def _count(count: int) -> str:
    return (
        "<Item><Name>Domain</Name><Attribute><Name>Count</Name>"
        f"<Value>{count}</Value></Attribute></Item>"
    )
