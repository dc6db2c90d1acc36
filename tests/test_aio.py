"""The awaiting face: the same counter, whose loop is never blocked."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import truecount
from truecount import (
    AsyncCounter,
    AsyncDomain,
    BoundsError,
    BoundsMismatchError,
    Counter,
    CounterError,
    CounterNotFoundError,
    Domain,
    InvalidTypeError,
    KeyReusedError,
    OutcomeUnknownError,
    ReceiptNotFoundError,
    StoreTimeoutError,
    awaiting,
    connect,
)
from truecount.change import Add, Answer, Batch
from truecount.combine import SENT, Line, Ticket
from truecount.record import Address
from truecount.testing.faulty import FaultyStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/counters.db"


class SlowStore(FaultyStore):
    """A store whose additions wait until they may go on."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url))
        self.go_on = threading.Event()
        self.began = threading.Event()

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        if type(batch.changes[0]) is Add:
            self.began.set()
            self.go_on.wait(10)
        return super().settle(address, batch, timeout=timeout)


async def soon(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` is true."""
    while not condition():
        await asyncio.sleep(0.001)


def test_every_method(url: str) -> None:
    """Each method does what its blocking counterpart does."""

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", 5, minimum=0, maximum=1000, store=url)
        assert (c, c + 1, c.minimum, c.maximum) == (5, 6, 0, 1000)
        assert await c.add(2) == 7
        assert (await c.subtract(3)).before == 7
        assert await c.set(10) == 10
        assert await c.update(lambda v: v * 2) == 20
        assert await c.compare_and_set(20, 21)
        assert not await c.compare_and_set(20, 22)
        assert await c.reserve(3) == range(22, 25)
        assert await c.add(1, key="one") == await c.add(1, key="one") == 25
        assert (await c.receipt("one")).replayed
        numbers = []
        async for number in c.ids(2):
            numbers.append(number)
            if len(numbers) == 3:
                break
        assert numbers == [26, 27, 28]
        await c.limit(maximum=30)
        with pytest.raises(BoundsError):
            await c.add(100)
        with pytest.raises(KeyReusedError):
            await c.add(2, key="one")
        with pytest.raises(ReceiptNotFoundError):
            await c.receipt("two")
        assert await c.refresh() == 29
        await c.delete()
        with pytest.raises(CounterNotFoundError):
            await c.add(1)

    asyncio.run(main())


def test_bad_input(url: str) -> None:
    """Mistakes are told as in the blocking face, and by TypeErrors that say what to do."""

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=url)
        with pytest.raises(InvalidTypeError, match=r"await counter.add\(n\)"):
            c += 1  # type: ignore[misc]
        with pytest.raises(InvalidTypeError, match=r"await AsyncCounter.open"):
            AsyncCounter("mydomain", "counter1")
        with pytest.raises(InvalidTypeError, match="integer"):
            await c.add(1.5)  # type: ignore[arg-type]
        with pytest.raises(BoundsMismatchError):
            await AsyncCounter.open("mydomain", "counter1", minimum=3, store=url)
        with pytest.raises(CounterNotFoundError):
            await AsyncCounter.open("mydomain", "counter2", create=False, store=url)

    asyncio.run(main())


def test_both_faces_have_the_same_methods() -> None:
    """What can be done with one can be done with the other."""
    only_blocking = {"__next__"}  # a coroutine for next() would never be awaited
    for name, method in vars(Counter).items():
        if callable(method) and not name.startswith("_"):
            assert hasattr(AsyncCounter, name), name
        if name.startswith("__i") and name != "__init__":
            assert name in vars(AsyncCounter), name
    assert only_blocking.isdisjoint(vars(AsyncCounter))


def test_a_thousand_tasks(url: str) -> None:
    """1,000 tasks add 10 times: 10,000 different numbers, in far fewer transactions."""
    store = FaultyStore(connect(url))

    async def main() -> list[int]:
        c = await AsyncCounter.open("mydomain", "hot", store=store)

        async def add() -> list[int]:
            return [(await c.add()).after for _ in range(10)]

        return sum(await asyncio.gather(*[add() for _ in range(1000)]), [])

    assert sorted(asyncio.run(main())) == list(range(1, 10_001))
    assert store.writes < 1000


def test_the_loop_is_never_blocked(url: str) -> None:
    """While a store takes its time, everything else goes on."""
    store = SlowStore(url)

    async def main() -> float:
        c = Counter("mydomain", "counter1", store=url)
        slow = await AsyncCounter.open("mydomain", "counter1", store=store)
        adds = [asyncio.create_task(slow.add()) for _ in range(20)]
        longest, last = 0.0, time.monotonic()
        for _ in range(50):
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        store.go_on.set()
        await asyncio.gather(*adds)
        assert c.refresh() == 20
        return longest

    assert asyncio.run(main()) < 0.25


def test_cancelled_before_it_was_sent(url: str) -> None:
    """A task that is cancelled in line has not changed anything, and holds nobody up."""
    store = SlowStore(url)

    async def main() -> int:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        first = asyncio.create_task(c.add(1))
        await soon(store.began.is_set)
        second = asyncio.create_task(c.add(10))
        third = asyncio.create_task(c.add(100))
        await soon(lambda: len(c._line.waiting) == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await second
        assert not hasattr(caught.value, "__notes__")
        store.go_on.set()
        assert (await first, await third) == (1, 101)
        return await c.refresh()

    assert asyncio.run(main()) == 101


def test_cancelled_before_it_began(url: str) -> None:
    """So has one that was called to lead, and cancelled before it could."""

    async def main() -> int:
        c = await AsyncCounter.open("mydomain", "counter1", store=url)
        adds = [asyncio.create_task(c.add(1)) for _ in range(2)]
        await asyncio.sleep(0)  # they stand in line, and the first is called to lead
        adds[0].cancel()
        await asyncio.gather(*adds, return_exceptions=True)
        assert await adds[1] == await c.refresh()
        return await c.refresh()

    assert asyncio.run(main()) in (1, 2)


def test_cancelled_after_it_was_sent(url: str) -> None:
    """A change that was sent is seen through, though its task is cancelled: nobody waits for it."""
    store = SlowStore(url)

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        first = asyncio.create_task(c.add(1))
        await soon(store.began.is_set)
        first.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await first
        assert caught.value.__notes__ == [SENT]
        second = asyncio.create_task(c.add(10))
        await asyncio.sleep(0.01)
        store.go_on.set()
        assert await second == 11
        assert c._line.name == c._line.terms.writer.name

    asyncio.run(main())


def test_a_lost_reply(url: str) -> None:
    """Replies that are lost are asked after, in the loop too."""
    store = FaultyStore(connect(url))

    async def main() -> int:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        store.lose_replies(3)
        await asyncio.gather(*[c.add(1) for _ in range(10)])
        return await c.refresh()

    assert asyncio.run(main()) == 10


def test_unknown(url: str) -> None:
    """What cannot be known in time is unknown, and can be settled later."""
    store = FaultyStore(connect(url))

    async def main() -> OutcomeUnknownError:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        store.lose_replies(1)
        store.go_down()
        with pytest.raises(OutcomeUnknownError) as caught:
            await c.add(1, timeout=0.1)
        return caught.value

    unknown = asyncio.run(main())
    store.mend()
    assert unknown.retry() == 1
    assert Counter("mydomain", "counter1", store=url) == 1


def test_a_timeout_in_line(url: str) -> None:
    """Who waits too long behind others has not changed anything; what was sent is unknown."""
    store = SlowStore(url)

    async def main() -> int:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        first = asyncio.create_task(c.add(1))
        await soon(store.began.is_set)
        with pytest.raises(StoreTimeoutError):
            await c.add(10, timeout=0.05)
        store.go_on.set()
        await first
        return await c.refresh()

    assert asyncio.run(main()) == 1


def test_a_timeout_while_called_to_lead(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose time is over just as it is called to lead leads on, and it alone."""
    permits = threading.Semaphore(0)
    inside: list[int] = []  # how many requests there were at once, as each came

    class Gated(FaultyStore):
        requests = 0

        def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
            self.requests += 1
            inside.append(self.requests)
            permits.acquire(timeout=20)
            try:
                return super().settle(address, batch, timeout=timeout)
            finally:
                self.requests -= 1

    expire = Line.expire

    def called_meanwhile(line: Line, ticket: Ticket) -> None:
        permits.release()  # who leads has done, and calls this one
        end = time.monotonic() + 5
        while len(inside) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        expire(line, ticket)

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        first = asyncio.create_task(c.add(1))
        await soon(lambda: bool(inside))
        monkeypatch.setattr(Line, "expire", called_meanwhile)
        others = [asyncio.create_task(c.add(n, timeout=t)) for n, t in ((2, 0.05), (4, 20))]
        await soon(lambda: len(inside) > 1)
        await asyncio.sleep(0.1)  # another leader would come
        for _ in range(10):
            permits.release()
        assert [(await task).after for task in (first, *others)] == [1, 3, 7]
        assert set(inside) == {1}
        assert await c.refresh() == 7

    with Gated(connect(url)) as store:
        asyncio.run(main())


def test_tasks_and_threads_share_a_line(url: str) -> None:
    """Tasks of two loops and threads that block add to one counter: all exact."""
    store = connect(url)
    Counter("mydomain", "hot", store=store)
    numbers: list[int] = []

    def in_a_loop() -> None:
        async def main() -> list[int]:
            c = await AsyncCounter.open("mydomain", "hot", store=store)

            async def add() -> list[int]:
                return [(await c.add()).after for _ in range(20)]

            return sum(await asyncio.gather(*[add() for _ in range(50)]), [])

        numbers.extend(asyncio.run(main()))

    def blocking() -> None:
        c = Counter("mydomain", "hot", store=store)
        numbers.extend([c.add().after for _ in range(500)])

    threads = [threading.Thread(target=work) for work in (in_a_loop, blocking) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 3001))


def test_a_loop_that_ends(url: str) -> None:
    """When a loop ends in the middle, what it had sent is taken over by whoever comes next."""
    store = SlowStore(url)
    opened = []

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        opened.append(c)
        asyncio.create_task(c.add(1))  # noqa: RUF006  # nobody is to wait for it
        asyncio.create_task(c.add(1))  # noqa: RUF006
        await soon(store.began.is_set)
        store.go_on.set()

    asyncio.run(main())
    c = Counter("mydomain", "counter1", store=store)
    assert c.add(10, timeout=5).after in (10, 11, 12)
    assert c.refresh() == c.value


def test_a_loop_that_is_closed_without_notice(url: str) -> None:
    """Callers of a loop that was just closed hold nobody up."""
    store = SlowStore(url)
    loop = asyncio.new_event_loop()

    async def main() -> list[asyncio.Task[Any]]:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        adds = [asyncio.create_task(c.add(1)) for _ in range(2)]
        await soon(store.began.is_set)
        return adds

    adds = loop.run_until_complete(main())
    loop.close()
    store.go_on.set()
    c = Counter("mydomain", "counter1", store=store)
    assert c.add(10, timeout=5) in (10, 11, 12)
    for add in adds:
        add._log_destroy_pending = False  # type: ignore[attr-defined]  # we know
    del add, adds
    gc.collect()


def test_a_loop_that_is_not_run_any_more(url: str) -> None:
    """Nor do those of a loop that has stopped in the middle."""
    store = SlowStore(url)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(c.add(1), 0.1)

    loop.run_until_complete(main())
    store.go_on.set()
    c = Counter("mydomain", "counter1", store=store)
    assert c.add(10, timeout=5) == 11
    loop.close()


def test_a_loop_that_is_over_is_forgotten(url: str) -> None:
    """Nothing of a loop is left once it has ended, however many have added."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        c = await AsyncCounter.open("mydomain", "counter1", store=url)
        await asyncio.gather(*[c.add() for _ in range(10)], c.add(timeout=None))

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_loops_that_take_turns(url: str) -> None:
    """Loops that run in turn, in one thread, keep one alarm each."""
    loops = [asyncio.new_event_loop() for _ in range(2)]
    store = connect(url)
    counters = [
        loop.run_until_complete(AsyncCounter.open("mydomain", "counter1", store=store))
        for loop in loops
    ]
    for _ in range(20):
        for loop, counter in zip(loops, counters, strict=True):
            loop.run_until_complete(counter.add(timeout=3600))
    assert [len(loop._scheduled) for loop in loops] == [1, 1]  # type: ignore[attr-defined]
    for loop in loops:
        loop.close()
    assert Counter("mydomain", "counter1", store=store) == 40


async def closed_in_line(store: SlowStore, closing: AbstractContextManager[Any]) -> int:
    """The value after a call that was closed as it stood in line, in the midst of ``closing``."""
    c = await AsyncCounter.open("mydomain", "counter1", store=store)
    first = asyncio.create_task(c.add(1))
    await soon(store.began.is_set)
    second = c.add(10)
    second.send(None)  # it stands in line
    with closing:
        second.close()
    await soon(lambda: not c._line.waiting)
    store.go_on.set()
    await first
    return await c.refresh()


def test_a_coroutine_that_is_closed(url: str) -> None:
    """A call that is closed before its change was sent has not made it."""
    assert asyncio.run(closed_in_line(SlowStore(url), nullcontext())) == 1


def test_a_collector_that_closes_a_coroutine_waits_for_nobody(url: str) -> None:
    """One may be closed in the midst of what starts threads, whose locks this thread has."""
    lock = concurrent.futures.thread._global_shutdown_lock  # type: ignore[attr-defined]
    main = partial(closed_in_line, SlowStore(url), lock)
    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(main())), daemon=True)
    thread.start()
    thread.join(10)
    assert result == [1]


def test_struck_while_it_calls_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is struck while it has a loop look leaves it to look when somebody else calls."""
    looked: list[int] = []
    callers: list[Any] = [SimpleNamespace(look=partial(looked.append, n)) for n in range(2)]

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        loop = asyncio.get_running_loop()
        box = awaiting._Box(loop)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", strike)
            with pytest.raises(KeyboardInterrupt):
                box.post(callers[0])
        box.post(callers[1])
        await asyncio.wait_for(soon(lambda: looked == [0, 1]), 5)

    asyncio.run(main())


def test_struck_as_it_gets_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is struck on its way into a call is not taken for somebody inside, as at a fork."""

    class Striking(set[int]):
        def add(self, thread: int) -> None:
            super().add(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(awaiting, "running", Striking())
    with pytest.raises(KeyboardInterrupt):
        awaiting._inside(int)
    assert not awaiting.running


def test_a_store_that_hangs_holds_up_no_other(url: str, tmp_path: Path) -> None:
    """However many calls wait for one store, those on another end in their time."""
    slow = SlowStore(url)
    other = f"sqlite:///{tmp_path}/other.db"

    async def main() -> float:
        hang = [await AsyncCounter.open("mydomain", f"c{n}", store=slow) for n in range(40)]
        quick = await AsyncCounter.open("mydomain", "counter1", store=other)
        adds = [asyncio.create_task(c.add()) for c in hang]
        await soon(slow.began.is_set)
        began = time.monotonic()
        with pytest.raises(StoreTimeoutError):  # no thread is free for it
            await (await AsyncCounter.open("mydomain", "c0", store=slow)).add(timeout=0.2)
        await quick.add(timeout=5)
        took = time.monotonic() - began
        slow.go_on.set()
        await asyncio.gather(*adds)
        return took

    assert asyncio.run(main()) < 4


def test_domain(url: str) -> None:
    """A domain lists, finds and makes counters, and looking never creates."""

    async def main() -> None:
        votes = AsyncDomain("votes", store=url)
        assert (votes.name, votes.store) == ("votes", connect(url))
        assert await votes.get("yes") is None
        yes = await votes.counter("yes")
        await yes.add(2)
        assert [name async for name in votes] == ["yes"]
        assert await votes.snapshot() == {"yes": 2}
        found = await votes.get("yes")
        assert found == 2
        assert Domain("votes", store=url)["yes"] == 2
        with pytest.raises(TypeError):
            votes["yes"]  # type: ignore[index]

    asyncio.run(main())


def test_many_counters_at_once(url: str) -> None:
    """Tasks that add to many counters at once lose nothing, and one that fails is told."""

    async def main() -> None:
        d = AsyncDomain("mydomain", store=url)
        names = [f"n{number}" for number in range(20)]
        c = await d.counter("n3")
        adding = [d.add(dict.fromkeys(names[at % 7 :], 1)) for at in range(40)]
        await asyncio.gather(*adding, *[c.add(1) for _ in range(40)])
        values = await d.snapshot()
        assert values["n19"] == 40
        assert values["n3"] == 40 + sum(at % 7 <= 3 for at in range(40))
        await (await d.counter("full", 5, maximum=5)).refresh()
        with pytest.raises(BoundsError) as caught:
            await d.add({"n19": 1, "full": 1})
        assert caught.value.receipts == {"n19": 41}
        with pytest.raises(InvalidTypeError, match="mapping"):
            await d.add(["n19"])  # type: ignore[arg-type]

    asyncio.run(main())


def test_it_is_brought_in_when_asked_for() -> None:
    """The names are there, and any other is an AttributeError."""
    assert truecount.AsyncCounter is AsyncCounter
    with pytest.raises(AttributeError, match="nothing"):
        _ = truecount.nothing


def test_a_refusal(url: str) -> None:
    """A definite error of the store is told to all whom it concerns, and to nobody else."""
    store = FaultyStore(connect(url))

    async def main() -> None:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        store.refuse(CounterError("no"))
        outcomes = await asyncio.gather(*[c.add(1) for _ in range(3)], return_exceptions=True)
        refused = [isinstance(outcome, CounterError) for outcome in outcomes]
        assert refused[0]
        assert await c.refresh() == refused.count(False)

    asyncio.run(main())


def test_struck_as_an_alarm_rings(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a signal's handler strikes the alarm, those who wait are told all the same, in time."""
    store = SlowStore(url)

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        leads = asyncio.create_task(c.add(timeout=5))
        await soon(store.began.is_set)
        waiting = [asyncio.create_task(c.add(timeout=0.5)) for _ in range(2)]
        await asyncio.sleep(0.1)
        waiting.append(asyncio.create_task(c.add(timeout=0.5)))
        await asyncio.sleep(0)
        call_later = loop.call_later

        def strike(delay: float, call: Any, *arguments: Any) -> asyncio.TimerHandle:
            if getattr(call, "__func__", None) is not awaiting._Alarm.ring:
                return call_later(delay, call, *arguments)
            monkeypatch.setattr(loop, "call_later", call_later)
            raise RuntimeError("a handler's")

        monkeypatch.setattr(loop, "call_later", strike)
        await asyncio.wait(waiting, timeout=3)
        store.go_on.set()
        await leads
        return [task.exception() if task.done() else "waits" for task in waiting]

    told = asyncio.run(main())
    assert [type(each) for each in told] == [StoreTimeoutError] * 3
