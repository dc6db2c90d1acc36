"""A store that networks befall does what it was told to, or what its seed says, and counts it."""

from __future__ import annotations

import random
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from truecount import (
    Counter,
    CounterNotFoundError,
    Domain,
    OutcomeUnknownError,
    StoreFullError,
    StoreUnavailableError,
)
from truecount.record import Address
from truecount.steps import Read
from truecount.stores.base import Ambiguous
from truecount.testing.faulty import SUFFERED, FaultyStore
from truecount.testing.fixtures import Faulty
from truecount.testing.servers.process import free_port
from truecount.testing.weather import KINDS, Weather


def test_what_is_told_is_counted(faulty_store: Faulty) -> None:
    """Every fault that was ordered happens once, to writes, and is in the tally by its kind."""
    store = faulty_store()
    c = Counter("mydomain", "counter1", 5, store=store)
    writes = store.writes
    store.lose_replies(1)
    store.lose_requests(1)
    assert c.add(1) == 6
    store.refuse(StoreFullError("full"))
    with pytest.raises(StoreFullError):
        c.add(1)
    store.go_down()
    with pytest.raises(StoreUnavailableError):
        c.refresh(timeout=0)
    refused = store.tally.pop("refuse")
    assert refused >= 2
    store.mend()
    assert c.refresh() == 6
    assert store.writes == writes + 4
    assert store.tally == {"cut_after": 1, "cut_before": 1, "refuse": refused}


def test_a_programs_own_dice_are_left_alone(faulty_store: Faulty) -> None:
    """Neither pauses nor ports are drawn from ``random``, which many may have given one seed."""
    store = faulty_store("memory://dice")
    c = Counter("mydomain", "counter1", store=store)
    random.seed(1)
    state = random.getstate()
    store.lose_requests(3)
    assert c.add(1) == 1
    assert free_port() > 0
    assert store.tally == {"cut_before": 3}
    assert random.getstate() == state


class Hesitant(deque[Any]):
    """Whoever has looked at what comes next gives way to another thread."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        time.sleep(0.02)
        return found


def test_what_is_told_befalls_one_call(faulty_store: Faulty) -> None:
    """Of threads that write at once, one loses its reply, and all others find the store down."""
    store = faulty_store("memory://threads")
    store._fates = Hesitant()
    address = Address("mydomain", "counter1")
    Counter("mydomain", "counter1", store=store)
    record = store.read(address, timeout=None)
    assert record is not None
    store.lose_replies(1)
    store.go_down()
    with ThreadPoolExecutor(4) as pool:
        writes = [
            pool.submit(store.replace, address, record, record, timeout=None) for _ in range(4)
        ]
    assert Tally(type(write.exception()) for write in writes) == {
        Ambiguous: 1,
        StoreUnavailableError: 3,
    }
    assert store.tally == {"cut_after": 1, "refuse": 3}


def held(store: FaultyStore, change: Callable[..., Any], amount: int) -> OutcomeUnknownError:
    """What becomes of a change whose request is held back, and whose caller gives up."""
    store.hold()
    store.go_down()
    with pytest.raises(OutcomeUnknownError) as caught:
        change(amount, timeout=0)
    store.mend()
    return caught.value


def test_held_and_released(faulty_store: Faulty) -> None:
    """What is held arrives when it is released: after its retry, or its cancellation, in vain."""
    store = faulty_store("memory://held")
    c = Counter("mydomain", "counter1", 5, store=store)
    added, subtracted = held(store, c.add, 7), held(store, c.subtract, 1)
    assert (c.refresh(), store.held) == (5, 2)
    assert added.retry() == 12
    assert subtracted.cancel()
    assert store.release() == 2
    assert (c.refresh(), store.held, store.release()) == (12, 0, 0)
    assert store.tally["hold"] == 2


def test_held_and_never_settled(faulty_store: Faulty) -> None:
    """What is held, and not sent again by anybody, is applied once it arrives."""
    store = faulty_store("memory://held-too")
    c = Counter("mydomain", "counter1", 5, store=store)
    added = held(store, c.add, 7)
    assert store.release() == 1
    assert c.refresh() == 12
    assert not added.cancel()
    assert added.retry() == 12


def test_a_late_creation(faulty_store: Faulty) -> None:
    """On an embedded store too, a creation that comes late brings nothing back."""
    store = faulty_store("memory://created")
    store.hold()
    c = Counter("mydomain", "counter1", 5, store=store)
    c.delete()
    store.release()
    with pytest.raises(CounterNotFoundError):
        c.refresh()


@pytest.mark.parametrize("kind", SUFFERED)
def test_what_the_weather_does(faulty_store: Faulty, kind: str) -> None:
    """Each kind of fault happens to the requests that are meant, and all counts once."""
    store = faulty_store("memory://weather")
    c = Counter("mydomain", kind, store=store)
    chances: Any = {kind: 0.5}
    store.weather = Weather(
        7, **chances, delayed=(0, 0.001), when=lambda step: not isinstance(step, Read)
    )
    assert [c.add(1).after for _ in range(20)] == list(range(1, 21))
    drawn = store.weather.drawn[kind]
    assert drawn > 5
    store.mend()
    store.release()
    assert store.tally == {kind: drawn}
    assert c.refresh() == 20


def test_a_delay_when_time_is_over(faulty_store: Faulty) -> None:
    """Who has no time left is kept waiting by no delay, and its request is made all the same."""
    store = faulty_store("memory://delayed")
    c = Counter("mydomain", "counter1", store=store)
    store.weather = Weather(7, delay=1.0, delayed=(60, 60))
    assert c.add(1, key="k", timeout=0).after == 1


def test_late_by_itself(faulty_store: Faulty) -> None:
    """What the weather made late is carried out some requests later, without being asked for."""
    store = faulty_store("memory://late")
    c = Counter("mydomain", "counter1", store=store)
    store.weather = Weather(7, late=1.0)
    with pytest.raises(OutcomeUnknownError):
        c.add(7, timeout=0)
    store.weather = None
    late = store.held
    assert late > 0
    seen = [c.refresh() for _ in range(6)]
    assert (seen[-1], store.held, store.tally) == (7, 0, {"late": late})


def test_the_same_seed_is_the_same_weather(faulty_store: Faulty) -> None:
    """The same calls under the same seed meet the same faults."""

    def met(seed: int) -> tuple[dict[str, int], int]:
        chances: Any = dict.fromkeys(SUFFERED, 0.1)
        store = faulty_store("memory://seeds", Weather(seed, **chances, delayed=(0, 0)))
        c = Counter("mydomain", "counter1", store=store)
        for number in range(30):
            c.add(number)
        store.mend()
        c.delete()
        return store.tally, store.writes

    first = met(1)
    assert met(1) == first != met(2)
    assert set(first[0]) == set(SUFFERED)


@pytest.mark.parametrize("url", [None, "memory://storm"], ids=["sqlite", "memory"])
def test_a_storm(faulty_store: Faulty, url: str | None) -> None:
    """In a storm of all faults, additions to one counter and to many count once each."""
    chances: Any = dict.fromkeys(SUFFERED, 0.1)
    store = faulty_store(url, Weather(11, **chances, delayed=(0, 0.001)))
    c = Counter("mydomain", "one", store=store)
    d = Domain("mydomain", store=store)
    for number in range(40):
        c.add(1, key=str(number) if number % 4 == 0 else None)
        c += 1
        d.add({"a": 1, "b": 2})
    store.mend()
    store.release()
    assert d.snapshot() == {"one": 80, "a": 40, "b": 80}
    assert set(store.tally) == set(SUFFERED)


def test_what_cannot_be_told(faulty_store: Faulty) -> None:
    """What is no error, no weather, no store and no number is refused when it is told."""
    store = faulty_store()
    wrong: Any
    for wrong in (StoreUnavailableError, OSError("disk"), "down"):
        with pytest.raises(TypeError, match="with a CounterError"):
            store.refuse(wrong)
    for tell in (store.lose_replies, store.lose_requests, store.hold, store.serve):
        with pytest.raises(ValueError, match="less than none"):
            tell(-1)
    wrong = {"cut_after": 0.3}
    with pytest.raises(TypeError, match="made by Weather"):
        store.weather = wrong
    wrong = "memory://"
    with pytest.raises(TypeError, match="connect"):
        FaultyStore(wrong)
    assert Counter("mydomain", "told", store=store).add(1) == 1
    assert store.tally == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SUFFERED])
def test_weather_for_connections(faulty_store: Faulty, kind: str) -> None:
    """What takes a connection is refused, in words that name the proxy."""
    chances: Any = {kind: 0.1}
    with pytest.raises(ValueError, match="Proxy"):
        faulty_store(weather=Weather(7, **chances))
