"""Pages and tokens of ListDomains and Select, and when a page ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from simpledb_local.domains import Domains
from simpledb_local.pages import Page, select
from simpledb_local.select import parse
from simpledb_local.tokens import START
from simpledb_server import Client, Reply, batch_fields, put_fields, serving


def fill(client: Client, domain: str, count: int) -> list[str]:
    """Put items i000, i001, ..., each with n, the same backwards, and parity; their names."""
    names = [f"i{number:03}" for number in range(count)]
    for start in range(0, count, 25):
        batch = [
            put_fields(name, ("n", f"{count - int(name[1:]):03}"), ("parity", int(name[1:]) % 2))
            for name in names[start : start + 25]
        ]
        client.ok("BatchPutAttributes", batch_fields(*batch), DomainName=domain)
    return names


def pages(client: Client, expression: str) -> Iterator[Reply]:
    """All pages of a query."""
    reply = client.select(expression)
    yield reply
    while reply.token:
        reply = client.select(expression, NextToken=reply.token)
        yield reply


def test_domains() -> None:
    """Domains are listed by name, a hundred at a time unless said otherwise."""
    with serving() as server:
        client = server.client()
        names = [f"domain{number:03}" for number in range(120)]
        for name in reversed(names):
            client.create(name)
        first = client.ok("ListDomains")
        assert first.domains == names[:100]
        second = client.ok("ListDomains", NextToken=first.token)
        assert (second.domains, second.token) == (names[100:], None)
        assert client.ok("ListDomains", MaxNumberOfDomains="100").domains == names[:100]
        one = client.ok("ListDomains", MaxNumberOfDomains="1")
        assert one.domains == names[:1]
        client.ok("DeleteDomain", DomainName=names[0])  # where the token points to
        rest = client.ok("ListDomains", NextToken=one.token, MaxNumberOfDomains="2")
        assert rest.domains == names[1:3]


ORDERS = {
    "": lambda names: names,
    "where parity = '1'": lambda names: names[1::2],
    "where itemName() > 'i01'": lambda names: [name for name in names if name > "i01"],
    "where n > '0' order by n": lambda names: names[::-1],
    "where n > '0' order by n desc": lambda names: names,
    "where parity is not null order by parity": lambda names: names[::2] + names[1::2],
    "where parity > '' order by parity desc": lambda names: names[1::2] + names[::2],
    "where itemName() like 'i%' order by itemName()": lambda names: names,
    "where itemName() like 'i%' order by itemName() desc": lambda names: names[::-1],
    "where itemName() in ('i003', 'i001', 'i299', 'nobody')": lambda names: (
        ["i001", "i003", "i299"]
    ),
}


@pytest.mark.parametrize(("where", "wanted"), ORDERS.items(), ids=ORDERS)
def test_pages_are_the_whole(client: Client, domain: str, where: str, wanted: object) -> None:
    """All pages together are all items, once and in order; the last one has no token."""
    names = wanted(fill(client, domain, 300))  # type: ignore[operator]
    for limit in (1, 7, 100, 300):
        if limit == 1 and len(names) > 150:
            continue
        found = list(pages(client, f"select itemName() from {domain} {where} limit {limit}"))
        assert [name for page in found for name in page.items] == names
        assert all(len(page.items) == limit for page in found[:-1])
    found = list(pages(client, f"select * from {domain} {where}"))
    assert [name for page in found for name in page.items] == names
    assert [len(page.items) for page in found[:-1]] == [100] * ((len(names) - 1) // 100)


@pytest.mark.parametrize("where", ORDERS, ids=ORDERS)
def test_counting_goes_on_where_reading_stopped(client: Client, domain: str, where: str) -> None:
    """A token of count(*) is good for the same query that reads, and the other way round."""
    fill(client, domain, 30)
    client.put(domain, "i299", ("n", "000"), ("parity", "1"))
    everything = list(client.select(f"select * from {domain} {where}").items)
    counted = client.select(f"select count(*) from {domain} {where} limit 2")
    assert counted.count == 2
    read = client.select(f"select * from {domain} {where} limit 1", NextToken=counted.token)
    assert list(read.items) == everything[2:3]
    if read.token:
        rest = client.select(
            f"select count(*) from {domain} {where} limit 2500", NextToken=read.token
        )
        assert rest.count == len(everything) - 3


def test_counting_without_a_limit_counts_everything(client: Client, domain: str) -> None:
    """``count(*)`` knows no page of 100 items: it counts them all, and gives no token."""
    fill(client, domain, 250)
    counted = client.select(f"select count(*) from {domain}")
    assert (counted.count, counted.token) == (250, None)


def test_a_token_belongs_to_its_query(client: Client, domain: str) -> None:
    """Output and limit may change under way; the rest may not."""
    fill(client, domain, 10)
    token = client.select(f"select * from {domain} where n > '0' limit 2500").token
    assert token is None
    token = client.select(f"select * from {domain} where n > '0' limit 2").token
    same = client.select(f"select n from {domain} where n > '0' limit 3", NextToken=token)
    assert list(same.items) == ["i002", "i003", "i004"]
    for other in (
        f"select * from {domain}",
        f"select * from {domain} where n > '1'",
        f"select * from {domain} where n > '0' order by n",
    ):
        assert client.select(other, NextToken=token).code == "InvalidNextToken"


@pytest.mark.parametrize("order", ["", "order by n", "order by n desc", "order by itemName()"])
def test_deleting_what_was_read(client: Client, domain: str, order: str) -> None:
    """Who deletes each page before asking for the next one misses nothing."""
    fill(client, domain, 20)
    where = "where n > '0' intersection itemName() > ''"
    expression = f"select itemName() from {domain} {where} {order} limit 3"
    seen = []
    for page in pages(client, expression):
        for name in page.items:
            seen.append(name)
            client.ok("DeleteAttributes", DomainName=domain, ItemName=name)
    assert sorted(seen) == [f"i{number:03}" for number in range(20)]


def test_items_without_what_is_asked_for(client: Client, domain: str) -> None:
    """Items that have none of the attributes asked for are not answered, and not counted."""
    fill(client, domain, 4)
    for name in ("i001", "i003"):
        client.put(domain, name, ("x", "1"))
    found = list(pages(client, f"select x, y from {domain} limit 1"))
    assert [page.items for page in found] == [{"i001": {"x": ["1"]}}, {"i003": {"x": ["1"]}}]


@pytest.mark.parametrize("order", ["", "order by itemName()"])
def test_the_largest_page(client: Client, domain: str, order: str) -> None:
    """A page has at most 1 MB, whatever the limit, but always an item."""
    pairs = [(f"{number:03}", "v" * 1000) for number in range(200)]
    for number in range(8):
        client.put(domain, f"i{number}", *pairs)
    heavy = [(f"{number:03}" + "&" * 1000, "&" * 1020) for number in range(256)]
    client.put(domain, "i8", *heavy)
    client.put(domain, "i9", ("a", "1"))
    expression = f"select * from {domain} where itemName() > '' {order} limit 2500"
    found = list(pages(client, expression))
    assert [name for page in found for name in page.items] == [f"i{n}" for n in range(10)]
    assert [len(page.items) for page in found] == [4, 4, 1, 1]
    assert all(len(page.body) < 1_050_000 for page in (found[0], found[1], found[3]))


class Clock:
    """A clock on which every look takes its time."""

    def __init__(self, step: float) -> None:
        self.time = 0.0
        self.step = step

    def __call__(self) -> float:
        self.time += self.step
        return self.time


def slow_pages(expression: str, count: int) -> list[Page]:
    """The pages of a query among ``count`` items on a slow machine."""

    async def collect() -> list[Page]:
        domains = Domains()
        domains.create("domain")
        number = domains.number("domain")
        domains.put(number, [(f"i{n:04}", {"a": [str(n % 10)]}) for n in range(count)])
        query = parse(expression)
        found = [await select(domains, query, START, None, Clock(1.7))]
        while found[-1].rest is not None:
            found.append(await select(domains, query, found[-1].rest, None, Clock(1.7)))
        domains.close()
        return found

    return asyncio.run(collect())


def test_a_page_ends_in_time() -> None:
    """After 5 seconds a page ends with a token, even when there is nothing in it."""
    found = slow_pages("select * from domain where a = '7' limit 2500", 2000)
    assert [page.found for page in found] == [77, 76, 47]
    found = slow_pages("select * from domain where itemName() > 'i1' limit 2500", 2000)
    assert [page.found for page in found] == [0, 536, 464]
    found = slow_pages("select count(*) from domain where a = '7' limit 2500", 2000)
    assert sum(page.found for page in found) == 200


def test_sorting_ends_in_time() -> None:
    """What cannot be sorted in 5 seconds times out, since no page of it is known."""
    with pytest.raises(TimeoutError):
        slow_pages("select * from domain where a > '0' order by a", 2000)
