"""What test processes do. Spawned children import this module by its name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import random
import signal
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from truecount import (
    BoundsError,
    Counter,
    CounterNotFoundError,
    Domain,
    OutOfSyncError,
    connect,
)
from truecount.record import Address, Record
from truecount.testing.faulty import ComparingStore


def add_often(url: str, times: int) -> list[int]:
    """Add 1 so many times; the numbers gained."""
    c = Counter("mydomain", "hot", store=url)
    return [c.add(1).after for _ in range(times)]


def add_until(url: str, end: str, domain: str = "mydomain") -> list[int]:
    """Add 1 until there is a file ``end``; the numbers gained."""
    c = Counter(domain, "hot", store=url)
    numbers = []
    while not os.path.exists(end):
        numbers.append(c.add(1).after)
    return numbers


def add_and_time(url: str, end: str) -> tuple[list[int], float]:
    """Add 1 until there is a file ``end``; the numbers gained, and the longest wait in seconds."""
    c = Counter("mydomain", "hot", store=url)
    numbers = []
    longest = 0.0
    while not os.path.exists(end):
        began = time.monotonic()
        numbers.append(c.add(1).after)
        longest = max(longest, time.monotonic() - began)
    return numbers, longest


def count_transactions(url: str, times: int) -> int:
    """Add 1 so many times; how many transactions of SQLite that took."""
    statements: list[str] = []
    connect_to = sqlite3.connect

    def connecting(*args: Any, **options: Any) -> sqlite3.Connection:
        sql: sqlite3.Connection = connect_to(*args, **options)

        def note(statement: str) -> None:
            if statement == "COMMIT" or (statement[:6] == "UPDATE" and not sql.in_transaction):
                statements.append(statement)

        sql.set_trace_callback(note)
        return sql

    sqlite3.connect = connecting  # type: ignore[assignment]
    try:
        add_often(url, times)
    finally:
        sqlite3.connect = connect_to
    return len(statements)


def add_in_all_ways(url: str, times: int) -> int:
    """Add 1 so many times, in threads, with keys now and then, and bounds; how many fitted."""
    c = Counter("mydomain", "hot", store=url)

    def add(number: int) -> int:
        key = None if number % 7 else f"{os.getpid()}-{number}"
        if number % 11 == 0:
            with contextlib.suppress(BoundsError):  # the others may be past it
                c.limit(maximum=c.refresh() + 50)
        try:
            receipt = c.add(1, key=key)
            assert key is None or c.add(1, key=key) == receipt.after
            return 1
        except BoundsError:
            c.limit(maximum=None)
            return 0

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(add, range(times)))


def step_often(url: str, times: int) -> list[int]:
    """``c += 1`` so many times, again whenever somebody else was first; the numbers gained."""
    c = Counter("mydomain", "hot", store=url)
    numbers = []
    while len(numbers) < times:
        try:
            c += 1
        except OutOfSyncError:
            continue
        numbers.append(c.value)
    return numbers


def add_and_step(url: str, domain: str, name: str, adds: int, steps: int) -> list[int]:
    """Add 1 so many times, and so many times by ``c += 1``, in turn; the numbers gained."""
    c = Counter(domain, name, store=url)
    numbers = []
    while adds or steps:
        if adds and (not steps or adds % 9):
            numbers.append(c.add(1).after)
            adds -= 1
            continue
        try:
            c += 1
        except OutOfSyncError:
            continue
        numbers.append(c.value)
        steps -= 1
    return numbers


def sell_out(url: str, domain: str, name: str) -> list[int]:
    """Reserve one and two numbers in turn, in 4 threads, until the bounds refuse one more."""
    c = Counter(domain, name, store=url)

    def sell(_: int) -> list[int]:
        sold: list[int] = []
        count = 2
        while True:
            try:
                sold += c.reserve(count)
            except BoundsError:
                if count == 1:
                    return sold
            count = 3 - count

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(sell, range(4)), [])


def construct(url: str, initial: int, start: float) -> tuple[int, int]:
    """Construct the counter at a given instant; the value and revision seen."""
    time.sleep(max(0.0, start - time.time()))
    c = Counter("mydomain", "created", initial, store=url)
    return c.value, c.revision


def construct_often(url: str, initials: range, start: float) -> list[tuple[int, int]]:
    """Construct the counter in threads at a given instant; the values and revisions seen."""
    connect(url).read(Address("mydomain", "created"), timeout=60)  # imports and connects
    with ThreadPoolExecutor(len(initials)) as threads:
        return list(threads.map(lambda initial: construct(url, initial, start), initials))


def add_while_it_lives(url: str, times: int) -> list[tuple[int, int]]:
    """Add 1 so many times, again whenever the counter was gone; revisions and numbers gained."""
    gained: list[tuple[int, int]] = []
    while len(gained) < times:
        try:
            receipt = Counter("mydomain", "hot", create=False, store=url).add(1)
        except CounterNotFoundError:
            time.sleep(0.01)
        else:
            gained.append((receipt.revision, receipt.after))
    return gained


def use_pickled(counter: Counter) -> tuple[int, int, str]:
    """Use a counter that came through a pickle."""
    seen = counter.value
    return seen, counter.add(1).after, counter.name


def report(error_of: Any) -> str:
    """What a call raises in this process."""
    try:
        error_of.add(1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def add_and_log(url: str, log: str) -> None:
    """Add until killed; log every receipt that was got, before the next add begins."""
    c = Counter("mydomain", "hot", store=url)
    with open(log, "ab", buffering=0) as file:
        file.write(b"ready\n")
        while True:
            file.write(b"%d\n" % c.add(1).after)


def add_keys_and_log(url: str, log: str, first: int) -> None:
    """Add with keys until killed; log every key before its change is asked for."""
    c = Counter("mydomain", "hot", store=url)
    with open(log, "ab", buffering=0) as file:
        number = first
        while True:
            c.add(1, key=f"key{number}")
            number += 1
            file.write(b"%d\n" % number)


def settle(dump: bytes) -> tuple[int, int]:
    """Settle what another process does not know."""
    receipt = pickle.loads(dump).retry()
    return receipt.before, receipt.after


def add_to(url: str, times: int) -> list[int]:
    """Add 1 so many times to counter1; the numbers gained."""
    c = Counter("mydomain", "counter1", store=url)
    return [c.add(1, timeout=5).after for _ in range(times)]


def open_and_close(task: tuple[str, float]) -> int:
    """Open the store, add, and close it, again and again; how often."""
    path, seconds = task
    end = time.monotonic() + seconds
    times = 0
    while time.monotonic() < end:
        with connect(f"sqlite:///{path}") as store:
            Counter("mydomain", "counter1", store=store).add(1)
        times += 1
    return times


def interrupt_often(url: str, times: int, *, many: bool) -> tuple[int, int, list[int]]:
    """Interrupt adds anywhere, as Ctrl-C does: (known, interrupted, the values at the end).

    After each interruption an add has to succeed, here and in another thread.
    ``many``: to three counters at once.
    """
    dice = random.Random(4711)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    c = Counter("mydomain", "hot", store=url)
    domain = Domain("mydomain", store=url)
    three = dict.fromkeys(("cold", "hot", "warm"), 1)
    # Their lines stay: what strikes a callback of the collector is lost, and nobody interrupted.
    kept = [domain[name] for name in three]

    def add(timeout: float = 10) -> None:
        if many:
            domain.add(three, timeout=timeout)
        else:
            c.add(1, timeout=timeout)

    known = 0
    for _ in range(times):
        with contextlib.suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(20e-6, 900e-6))
            while True:
                add()
                known += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        add(timeout=5)
        other = threading.Thread(target=add, kwargs={"timeout": 5})
        other.start()
        other.join()
        known += 2
    return known, times, [each.refresh() for each in kept if many or each.name == "hot"]


class Strike(BaseException):
    """What strikes a thread."""


def strike(url: str, seconds: float) -> tuple[int, int, int, int]:
    """Strike threads that add: (adds acknowledged, calls struck, the value, after one more)."""
    sys.unraisablehook = lambda _: None  # some strikes hit where nothing can be raised
    threading.excepthook = lambda _: None
    c = Counter("mydomain", "hot", store=url)
    end = time.monotonic() + seconds
    acknowledged: list[int] = []
    asked: list[int] = []

    def add() -> None:
        while time.monotonic() < end:
            asked.append(1)
            c.add(1, timeout=20)
            acknowledged.append(1)

    def add_on() -> None:
        while time.monotonic() < end:
            try:
                add()
            except Strike:
                continue

    victims = [threading.Thread(target=add_on) for _ in range(4)]
    for victim in victims:
        victim.start()
    while time.monotonic() < end:
        # Not more often: who is struck while it handles a strike may leave others to wait.
        ident = ctypes.c_ulong(random.choice(victims).ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Strike))
        time.sleep(random.uniform(0.005, 0.015))
    for victim in victims:
        victim.join()
    total = c.refresh()
    return len(acknowledged), len(asked) - len(acknowledged), total, c.add(1, timeout=5).after


class Effort(NamedTuple):
    """What a process did on a store that compares and sets."""

    adds: int
    reads: int
    writes: int


def compare_until(url: str, end: int, ready: Path, crowd: int) -> Effort:
    """Add 1 until the counter is at ``end``, where the store only compares and sets, far away.

    It begins when as many as the ``crowd`` have put a file into ``ready``.
    """

    class FarAway(ComparingStore):
        reads = 0

        def read(self, *args: Any, **options: Any) -> Record | None:
            self.reads += 1
            return super().read(*args, **options)

        def replace(self, *args: Any, **options: Any) -> bool | Record:
            time.sleep(0.002)
            return super().replace(*args, **options)

    store = FarAway(connect(url))
    c = Counter("mydomain", "hot", store=store)
    Path(ready, str(os.getpid())).touch()
    while len(list(ready.iterdir())) < crowd:
        time.sleep(0.001)
    adds = 0
    while c.add(1) < end:
        adds += 1
    return Effort(adds + 1, store.reads, store.writes)


if __name__ == "__main__":
    # As a program of its own, to be killed: python workers.py FUNCTION ARGUMENTS
    name, *arguments = sys.argv[1:]
    globals()[name](*(int(a) if a.isdigit() else a for a in arguments))
