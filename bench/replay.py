"""The request that an add makes, sent again and again by itself.

So much an add would take if nothing of truecount's ran around it: with the same
records, the same statements and scripts, by the driver, or by what a store has
in its place. Not on SQLite, where another connection would have its own turns
at the disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
import redis

from bench.peers.model import Add, Contender, Place
from truecount import Counter, Store, connect
from truecount.change import Add as Addition
from truecount.change import Batch
from truecount.moment import now
from truecount.record import Address, Record
from truecount.settle import settle
from truecount.stores.dynamodb.layout import replacement
from truecount.stores.redis.latest import ENOUGH
from truecount.stores.redis.layout import key_of, state
from truecount.stores.redis.scripts import NEXT
from truecount.stores.simpledb.item import TIMESTAMP, layout, read_item

__all__ = ["ALONE", "replayed"]

ALONE: Final = "the request alone"

ADDRESS: Final = Address("bench", "replayed")


def replayed(engine: str) -> Contender | None:
    """What sends the request of an add on ``engine``, of `ENGINES`; None: nobody does."""
    make = REQUESTS.get(engine)
    if make is None:
        return None

    @contextmanager
    def opened(place: Place) -> Iterator[Callable[[], Callable[[str], Add]]]:
        with connect(place.url) as store, ExitStack() as stack:
            Counter(*ADDRESS, store=store).add()
            add = make(place, store, stack, *_two(store))
            yield lambda: lambda _: add

    return Contender(ALONE, opened, lambda place, name: 0)


def _two(store: Store) -> tuple[Record, Record]:
    """The record that is there, and the one after the next add by the same writer."""
    first = store.read(ADDRESS, timeout=None)
    assert first is not None
    batch = Batch(first.stamp.writer, first.stamp.number + 1, first.stamp.revision, (Addition(1),))
    second, _ = settle(first, batch, now())
    assert second is not None
    return first, second


def _postgresql(place: Place, store: Store, stack: ExitStack, first: Record, second: Record) -> Add:
    """Every add has a number of its own."""
    where = f"host=127.0.0.1 port={place.port} user=postgres dbname=postgres"
    connection = stack.enter_context(psycopg.connect(where, autocommit=True, prepare_threshold=0))
    statement = f"SELECT truecount.add_1({', '.join(['%s'] * 11)})"
    numbers = itertools.count(second.stamp.number)

    def add() -> None:
        who = first.stamp.writer, next(numbers), first.stamp.revision
        found = connection.execute(statement, (*ADDRESS, *who, 1, 0, 1, None, now(), "1600"))
        assert found.fetchone() != (None,)

    return add


def _redis(place: Place, store: Store, stack: ExitStack, first: Record, second: Record) -> Add:
    """The one of two records is made the other, in turn."""
    client = stack.enter_context(redis.Redis(port=place.port, single_connection_client=True))
    counter = Counter(*ADDRESS, store=store)
    for _ in range(ENOUGH + 1):
        counter.add()  # until the script is there
    first, second = _two(store)
    writer = first.stamp.writer
    there, after = [(each.value, each.ledger.lines[writer]) for each in (first, second)]
    fixed = NEXT.digest.decode(), 1, key_of("truecount", ADDRESS), f"w:{writer}", writer
    turns = itertools.cycle([(*there, *after), (*after, *there)])
    name = f"{writer} {second.stamp.number}"
    done = f"{name} +".encode()

    def add() -> None:
        answer: Any = client.evalsha(*fixed, state(first), *next(turns), name)
        assert answer == done, answer

    return add


def _dynamodb(place: Place, store: Store, stack: ExitStack, first: Record, second: Record) -> Add:
    """The one of two records is put where the other is, in turn."""
    service = _service_of(store)
    requests = [replacement(ADDRESS, old, new) for old, new in ((first, second), (second, first))]
    turns = itertools.cycle(requests)

    def add() -> None:
        assert service.update(next(turns), ALONE, None) == (True, None)

    return add


def _simpledb(place: Place, store: Store, stack: ExitStack, first: Record, second: Record) -> Add:
    """Likewise."""
    service = _service_of(store)
    there = service.get(ADDRESS, None)
    item = read_item(ADDRESS, there, interop=False)
    pairs, _ = layout(item, second, (), 0)
    times = [there[TIMESTAMP][0], pairs[TIMESTAMP]]
    turns = itertools.cycle([times, times[::-1]])

    def add() -> None:
        old, new = next(turns)
        assert service.put(ADDRESS, {**pairs, TIMESTAMP: new}, (TIMESTAMP, old), None)

    return add


def _service_of(store: Store) -> Any:
    """What sends the requests of ``store``, which boto3 would take longer for."""
    return store._service()  # type: ignore[attr-defined]  # Amazon's stores have it


REQUESTS: Final[dict[str, Callable[[Place, Store, ExitStack, Record, Record], Add]]] = {
    "postgresql": _postgresql,
    "redis": _redis,
    "redis-memory": _redis,
    "dynamodb": _dynamodb,
    "simpledb": _simpledb,
}
