"""Callers of one process on one counter: combined, exact, and free to leave."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from truecount import (
    BoundsError,
    Counter,
    CounterError,
    OutcomeUnknownError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    combine,
    connect,
)
from truecount.change import Add, Answer, Batch
from truecount.combine import SENT, Ticket, line_at, see_through
from truecount.drive import run
from truecount.record import Address
from truecount.stores.base import Ambiguous
from truecount.testing.conformance import in_threads
from truecount.testing.faulty import ComparingStore, FaultyStore


class SlowStore(FaultyStore):
    """A store whose writes wait at a gate, and say which batches came."""

    def __init__(self) -> None:
        super().__init__(connect("memory://threads"))
        self.batches: list[Batch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        self.batches.append(batch)
        if not self.gate.is_set():
            self.arrived.release()
            self.gate.wait(20)
        return super().settle(address, batch, timeout=timeout)


@pytest.fixture
def slow() -> Iterator[SlowStore]:
    with SlowStore() as store:
        yield store


class Caller(threading.Thread):
    """A thread that makes one call, and remembers what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        self.join(20)
        assert not self.is_alive()
        return self.result if self.error is None else self.error


def stand_in_line(counter: Counter, count: int) -> None:
    """Wait until so many callers stand in line behind the one that leads."""
    deadline = time.monotonic() + 10
    while len(counter._line.waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_those_who_wait_share_a_batch(slow: SlowStore) -> None:
    """While one batch is in flight the others gather, and travel together in the next."""
    c = Counter("mydomain", "counter1", store=slow)
    slow.batches.clear()
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    others = []
    for n in range(5):
        others.append(Caller(lambda n=n: c.add(10 ** (n + 1))))  # type: ignore[misc]
        stand_in_line(c, n + 1)
    slow.gate.set()
    assert first.outcome().after == 1
    receipts = [other.outcome() for other in others]
    assert [(r.before, r.after) for r in receipts] == [
        (1, 11),
        (11, 111),
        (111, 1111),
        (1111, 11111),
        (11111, 111111),
    ]
    assert len({r.revision for r in receipts}) == 1
    assert [len(batch.changes) for batch in slow.batches] == [1, 5]
    assert slow.batches[1].number > slow.batches[0].number
    assert slow.batches[1].writer == slow.batches[0].writer


def test_those_who_return_share_the_next_one_too(
    slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leads waits a moment for those of the batch before, instead of going alone."""
    monkeypatch.setattr(combine, "MOMENT", 1.0)
    c = Counter("mydomain", "counter1", store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    others = [Caller(lambda: [c.add(1) for _ in range(20)]) for _ in range(4)]
    stand_in_line(c, 4)
    slow.batches.clear()
    slow.gate.set()
    for caller in [first, *others]:
        caller.outcome()
    assert [len(batch.changes) for batch in slow.batches] == [4] * 20
    assert len({batch.writer for batch in slow.batches}) == 1


def test_each_has_its_own_refusal_and_its_own_key(slow: SlowStore) -> None:
    """One caller's refusal or key is nobody else's."""
    c = Counter("mydomain", "counter1", 5, minimum=0, store=slow)
    c.add(1, key="used")
    slow.gate.clear()
    first = Caller(lambda: c.add(0))
    slow.arrived.acquire()
    calls: list[Callable[[], Any]] = [
        lambda: c.subtract(100),
        lambda: c.add(1, key="used"),
        lambda: c.add(2, key="new"),
        lambda: c.compare_and_set(5, 6),
        lambda: c.compare_and_set(8, 7),
    ]
    others = []
    for n, call in enumerate(calls):
        others.append(Caller(call))
        stand_in_line(c, n + 1)
    slow.gate.set()
    first.outcome()
    refused, used, new, moved, set_ = [other.outcome() for other in others]
    assert isinstance(refused, BoundsError)
    assert (used.replayed, used.after) == (True, 6)
    assert (new.replayed, new.before, new.after) == (False, 6, 8)
    assert (moved, set_) == (False, True)
    assert c.refresh() == 7


def test_a_signal_handler_holds_up_nobody_else(slow: SlowStore) -> None:
    """Who shares a batch with the main thread has its outcome while a handler keeps that busy."""
    c = Counter("mydomain", "counter1", store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    others: list[Caller] = []
    kept: list[bool] = []

    def handle(number: int, frame: object) -> None:
        slow.gate.set()
        for caller in (first, *others):
            caller.join(5)
        kept.extend(caller.is_alive() for caller in (first, *others))

    def interrupt() -> None:
        stand_in_line(c, 2)  # the main thread is the second
        for n in range(2):
            others.append(Caller(lambda: c.add(1)))
            stand_in_line(c, n + 3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        others.append(Caller(lambda: c.add(1)))
        stand_in_line(c, 1)
        interrupter = Caller(interrupt)
        assert c.add(1).after == 3
        interrupter.outcome()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert kept == [False] * 4
    assert [other.outcome().after for other in others] == [2, 4, 5]


def test_batches_are_bounded(slow: SlowStore) -> None:
    """A batch takes in as many as the store allows, and the rest come after."""
    slow.batch_limit = 4
    c = Counter("mydomain", "counter1", store=slow)
    slow.batches.clear()
    slow.gate.clear()
    callers = [Caller(lambda: c.add(1))]
    slow.arrived.acquire()
    callers += [Caller(lambda: c.add(1)) for _ in range(9)]
    stand_in_line(c, 9)
    slow.gate.set()
    assert sorted(caller.outcome() for caller in callers) == list(range(1, 11))
    assert [len(batch.changes) for batch in slow.batches] == [1, 4, 4, 1]


def test_who_has_not_been_sent_can_leave(slow: SlowStore) -> None:
    """A caller whose time is over before its change was sent is told so, for sure."""
    c = Counter("mydomain", "counter1", store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    second = Caller(lambda: c.add(10, timeout=0.05))
    error = second.outcome()
    assert isinstance(error, StoreTimeoutError)
    slow.gate.set()
    assert first.outcome() == 1
    assert c.refresh() == 1


def test_who_has_been_sent_does_not_know(slow: SlowStore) -> None:
    """A caller whose time is over while its change travels gets an error that can settle it."""
    c = Counter("mydomain", "counter1", store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    second = Caller(lambda: c.add(10))
    stand_in_line(c, 1)
    third = Caller(lambda: c.add(100, timeout=0.5))
    stand_in_line(c, 2)
    slow.gate.set()
    first.outcome()
    slow.gate.clear()
    # The second leads now, with the third in its batch; the batch is held up.
    fourth = Caller(lambda: c.add(1000))
    error = third.outcome()
    slow.gate.set()
    assert second.outcome() in (11, 111)
    fourth.outcome()
    if isinstance(error, OutcomeUnknownError):
        assert error.retry().after - error.retry().before == 100
    assert c.refresh() == 1111


def test_a_refusal_is_told_only_when_it_is_for_good(slow: SlowStore) -> None:
    """When somebody left with a refused batch, the refusal is written before others hear it."""
    c = Counter("mydomain", "counter1", 0, maximum=0, store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(-1))
    slow.arrived.acquire()
    second = Caller(lambda: c.add(5))
    stand_in_line(c, 1)
    third = Caller(lambda: c.add(7, timeout=0.3))
    stand_in_line(c, 2)
    passed, slow.gate = slow.gate, threading.Event()
    passed.set()
    first.outcome()
    slow.arrived.acquire()
    left = third.outcome()
    slow.gate.set()
    assert isinstance(second.outcome(), BoundsError)
    assert isinstance(left, OutcomeUnknownError)
    Counter("mydomain", "counter1", store=slow).limit(maximum=None)
    with pytest.raises(BoundsError):
        left.retry()
    assert c.refresh() == -1


def test_a_full_store_is_told_to_all(slow: SlowStore) -> None:
    """When the store refuses a batch for good, everybody in it hears it, each its own error."""
    c = Counter("mydomain", "counter1", store=slow)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    others = [Caller(lambda: c.add(1)) for _ in range(4)]
    stand_in_line(c, 4)
    slow.serve()
    slow.refuse(StoreFullError("full"))
    slow.gate.set()
    assert first.outcome() == 1
    errors = [other.outcome() for other in others]
    assert {type(error) for error in errors} == {StoreFullError}
    assert len({id(error) for error in errors}) == 4
    assert c.refresh() == 1
    assert c.add(1) == 2


def test_the_others_go_on_when_the_leaders_time_is_over(slow: SlowStore) -> None:
    """A leader that gives up does not take those with it who have longer to wait."""
    c = Counter("mydomain", "counter1", store=slow)
    for applied in (False, True):
        before = c.refresh()
        slow.gate.clear()
        first = Caller(lambda: c.add(1))
        slow.arrived.acquire()
        second = Caller(lambda: c.add(10, timeout=0.4))
        stand_in_line(c, 1)
        third = Caller(lambda: c.add(100, timeout=20))
        stand_in_line(c, 2)
        if applied:
            slow.serve()
            slow.lose_replies(1)
        slow.gate.set()
        first.outcome()
        slow.down = not applied
        time.sleep(0.5)
        slow.mend()
        assert third.outcome().after in (before + 101, before + 111)
        second.outcome()
        slow.arrived = threading.Semaphore(0)


def test_counters_in_their_own_lines(slow: SlowStore) -> None:
    """A batch in flight on one counter holds up no other counter."""
    c = Counter("mydomain", "counter1", store=slow)
    d = Counter("mydomain", "counter2", store=slow.store)
    slow.gate.clear()
    first = Caller(lambda: c.add(1))
    slow.arrived.acquire()
    assert d.add(1) == 1
    slow.gate.set()
    first.outcome()


def test_an_interrupted_caller_is_told_that_it_was_sent(slow: SlowStore) -> None:
    """Ctrl-C in the middle of a change leaves a note on the exception; the counter goes on."""
    c = Counter("mydomain", "counter1", store=slow)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        slow.gate.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt) as caught:
            c.add(1)
        assert SENT in caught.value.__notes__
        slow.gate.set()
        writer = slow.batches[-1].writer
        assert c.add(10).after in (10, 11)
        assert slow.batches[-1].writer != writer
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_caller_in_line_was_not_sent(slow: SlowStore) -> None:
    """Ctrl-C while waiting in line leaves no note: nothing was sent, and nothing will be."""
    c = Counter("mydomain", "counter1", store=slow)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        slow.gate.clear()
        first = Caller(lambda: c.add(1))
        slow.arrived.acquire()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt) as caught:
            c.add(10)
        assert not getattr(caught.value, "__notes__", None)
        slow.gate.set()
        first.outcome()
        assert c.refresh() == 1
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_call_in_a_signal_handler_does_not_deadlock(slow: SlowStore) -> None:
    """A handler that strikes in the middle of a call is told; at any other time it works."""
    c = Counter("mydomain", "counter1", store=slow)
    told: list[Any] = []

    def handler(*_: object) -> None:
        try:
            told.append(c.add(100))
        except CounterError as error:
            told.append(error)
        slow.gate.set()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.raise_signal(signal.SIGALRM)
        assert told.pop() == 100
        slow.gate.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert c.add(1) == 101
        assert "signal handler" in str(told.pop())
        assert c.refresh() == 101
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_view_only_moves_forward() -> None:
    """Threads that share an object never see it go back."""
    c = Counter("mydomain", "counter1", store="memory://forward")
    done = threading.Event()

    def watch() -> list[int]:
        seen = [c.revision]
        while not done.is_set():
            seen.append(c.revision)
        return seen

    watcher = Caller(watch)
    in_threads(6, lambda n: [c.add(1) if n % 2 else c.refresh() for _ in range(300)])
    done.set()
    seen = watcher.outcome()
    assert seen == sorted(seen)
    assert c == 900


def test_nothing_is_left_of_counters_that_are_gone() -> None:
    """Lines live as long as somebody uses their counter."""
    store = connect("memory://gone")
    for number in range(100):
        Counter("mydomain", f"counter{number}", store=store).add(1)
    assert len(combine._lines[store].at) <= 1


def spoil(lossy: FaultyStore, dice: random.Random) -> None:
    """Have up to three of the next writes lost or refused."""
    for _ in range(dice.choice([0, 0, 1, 2, 3])):
        dice.choice(
            [
                lambda: lossy.lose_replies(1),
                lambda: lossy.lose_requests(1),
                lambda: lossy.refuse(StoreUnavailableError("gone")),
                lambda: lossy.refuse(StoreTimeoutError("late")),
                lambda: lossy.refuse(StoreFullError("full")),
            ]
        )()


@pytest.mark.parametrize("seed", range(30))
def test_the_short_way_is_as_exact_as_the_plan(seed: int) -> None:
    """Random losses and refusals on the first attempt and later ones: receipts tell the truth."""
    dice = random.Random(seed)
    lossy = FaultyStore(connect(f"memory://short{seed}"))
    c = Counter("mydomain", "counter1", maximum=200, store=lossy)
    value = 0
    for _ in range(60):
        spoil(lossy, dice)
        amount = dice.randrange(-3, 9)
        try:
            receipt = c.add(amount, timeout=dice.choice([0.0, 5.0]))
        except (StoreFullError, StoreUnavailableError, StoreTimeoutError, BoundsError):
            pass
        except OutcomeUnknownError as error:
            lossy.mend()
            if dice.random() < 0.5:
                with contextlib.suppress(BoundsError):
                    value = error.retry().after
            elif not error.cancel():
                value += amount
        else:
            assert (receipt.before, receipt.after) == (value, value + amount)
            value += amount
        lossy.mend()
        assert c.refresh() == value


@pytest.mark.parametrize("seed", range(40))
def test_so_is_that_of_many_at_once(slow: SlowStore, seed: int) -> None:
    """The same for threads that share a batch, some of which leave, and bounds that refuse some."""
    dice = random.Random(seed)
    c = Counter("mydomain", f"short{seed}", maximum=150, store=slow)
    told: list[int] = []

    def add(amount: int, timeout: float, cancels: bool) -> None:
        with contextlib.suppress(CounterError):  # it was not applied; as when another has cancelled
            try:
                receipt = c.add(amount, timeout=timeout)
            except OutcomeUnknownError as error:
                if cancels:
                    told.append(0 if error.cancel(timeout=20) else amount)
                    return
                receipt = error.retry(timeout=20)
            assert receipt.after - receipt.before == amount
            told.append(amount)

    for _ in range(12):
        slow.gate.clear()
        first = Caller(partial(add, 1, 20.0, False))
        assert slow.arrived.acquire(timeout=20)
        amounts = [dice.randrange(-3, 9) for _ in range(5)]
        leaves = [dice.choice([0.002, 20.0, 20.0]) for _ in amounts]
        callers = [
            Caller(partial(add, amount, timeout, dice.random() < 0.5))
            for amount, timeout in zip(amounts, leaves, strict=True)
        ]
        stand_in_line(c, leaves.count(20.0))
        spoil(slow, dice)
        slow.gate.set()
        for caller in [first, *callers]:
            assert caller.outcome() is None
        slow.mend()
        assert c.refresh() == sum(told)
    assert max(len(batch.changes) for batch in slow.batches) > 2


def test_ambiguous_is_internal() -> None:
    """Callers never see `Ambiguous`: it is no error of the tree."""
    assert not issubclass(Ambiguous, CounterError)


def test_a_process_keeps_its_name_where_it_compares_and_sets() -> None:
    """Changes that were answered leave one receipt of this process in the record, not many."""
    store = ComparingStore(connect("memory://comparing"))
    c = Counter("mydomain", "counter1", store=store)
    for _ in range(5):
        c.add(1)
        c += 1
    kept = store.read(Address("mydomain", "counter1"), timeout=1)
    assert kept is not None
    assert len(kept.ledger) == 1


def test_the_next_one_is_known_before_somebody_is_woken() -> None:
    """However fast the one who is woken goes on, it wakes the next, and nobody is forgotten."""
    with connect("memory://hasty") as store:
        counter = Counter("mydomain", "counter1", store=store)
        line = line_at(store, Address("mydomain", "counter1"), counter.revision)
        leader, *others = (Ticket(line, Add(1), prompt=number > 0) for number in range(4))
        woken = []

        def go_on(ticket: Ticket) -> None:
            woken.append(ticket)
            ticket.pass_on()

        for ticket in others:
            ticket.waker = partial(go_on, ticket)
        assert [line.join(ticket) for ticket in (leader, *others)] == [True, False, False, False]
        run(see_through(line, leader), store, 5)
        assert woken == others


@pytest.mark.parametrize("timeout", [math.inf, 1e12, None])
def test_a_store_of_endless_patience(timeout: float | None) -> None:
    """However long a store may wait, longer than Python can too, who stands in line is served."""
    with connect("memory://patient") as store:
        store.timeout = timeout
        counter = Counter("mydomain", "counter1", store=store)
        threads = [
            threading.Thread(target=lambda: [counter.add() for _ in range(300)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counter.refresh() == 1200


def test_no_time_and_somebody_else_was_first() -> None:
    """Who has no time to look again is refused once, and not for ever, by what it knew."""
    with ComparingStore(connect("memory://first")) as ours, connect("memory://first") as theirs:
        counter = Counter("mydomain", "counter1", store=ours)
        counter.add(1)
        Counter("mydomain", "counter1", store=theirs).add(2)
        with pytest.raises(StoreTimeoutError, match="other writers were first"):
            counter.add(4, timeout=0)
        assert counter.add(8, timeout=0).after == 11
