"""Exceptions, forks, signals and ends that strike anywhere: nothing is left locked or lost."""

from __future__ import annotations

import asyncio
import copy
import dis
import fcntl
import itertools
import json
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias

import pytest

import truecount
import workers
from truecount import (
    AsyncCounter,
    Counter,
    CounterError,
    Domain,
    OutcomeUnknownError,
    Receipt,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    combine,
    connect,
    drive,
    gate,
    turn,
)
from truecount.change import Add, Answer, Batch, Change
from truecount.combine import SENT, Line
from truecount.record import Address, Record
from truecount.testing.faulty import FaultyStore


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_struck_threads_leave_the_others_exact(scheme: str, tmp_path: Path) -> None:
    """Exceptions that strike threads anywhere in their calls, even in a transaction, do no harm.

    What a struck caller asked for was applied once or not at all.
    """
    url = "memory://struck" if scheme == "memory" else f"sqlite:///{tmp_path}/counters.db"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        acknowledged, struck, total, after = pool.apply(workers.strike, (url, 3.0))
    assert struck > 50
    assert acknowledged <= total <= acknowledged + struck
    assert after == total + 1


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_interruptions_leave_everything_in_order(scheme: str, many: bool, tmp_path: Path) -> None:
    """Wherever Ctrl-C strikes an add, the next one finds no lock held and no queue broken."""
    url = f"sqlite:///{tmp_path}/c.db?synchronous=normal" if scheme == "sqlite" else "memory://i"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        work = partial(workers.interrupt_often, url, 2000, many=many)
        known, interrupted, totals = pool.apply(work)
    assert all(known <= total <= known + interrupted for total in totals)


@pytest.mark.parametrize("place", ["Turn.take", "Turn.give", "Turn._wait_for_processes"])
def test_interrupted_at_its_turn(place: str, tmp_path: Path) -> None:
    """An interruption at the entry of each of these leaves the turn free, for all processes."""
    url = f"sqlite:///{tmp_path}/counters.db"
    c = Counter("mydomain", "counter1", store=url)
    code = operator.attrgetter(place)(turn).__code__

    def strike(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is code:
            sys.settrace(None)
            raise KeyboardInterrupt

    tracer = sys.gettrace()
    try:
        sys.settrace(strike)
        with pytest.raises(KeyboardInterrupt):
            c.add(1)
    finally:
        sys.settrace(tracer)
    value = c.refresh()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (after,) = pool.apply(workers.add_to, (url, 1))
    assert after == value + 1
    assert c.add(1, timeout=5) == value + 2


HOME: Final = os.path.join(os.path.dirname(truecount.__file__), "")


def interrupt() -> None:
    raise KeyboardInterrupt


class Strike:
    """Strikes the thread that enters it once, at the nth point where a Ctrl-C could.

    Such points are the entries of functions and the ends of calls, also in what the standard
    library's locks do in Python. ``missed``: there were fewer. ``leading``: it was leading, or
    about to. ``strikes``: what befalls it.
    """

    def __init__(self, nth: int, strikes: Callable[[], None] = interrupt) -> None:
        self.left = nth
        self.strikes = strikes
        self.where = ""
        self.leading = False

    @property
    def missed(self) -> bool:
        return self.left > 0

    def __enter__(self) -> None:
        sys.setprofile(self._pass)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _pass(self, frame: FrameType, event: str, _: object) -> None:
        ours: FrameType | None = frame
        while ours is not None and ours.f_code.co_filename == threading.__file__:
            ours = ours.f_back
        path = "" if ours is None else ours.f_code.co_filename
        if not path.startswith(HOME) or "testing" in path:
            return
        if event == "c_return" or (event == "call" and is_entered(frame)):
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                outer: FrameType | None = frame
                while outer is not None:
                    self.leading |= outer.f_code is combine.see_through.__code__
                    outer = outer.f_back
                self.strikes()


def is_entered(frame: FrameType) -> bool:
    """Whether its function begins; else a generator goes on, where its `send` ends with a call."""
    instructions = dis.get_instructions(frame.f_code)
    return frame.f_lasti <= next(each.offset for each in instructions if each.opname == "RESUME")


class Staged(FaultyStore):
    """Before the first write it does what is in ``stage``, after each what is in ``wrote``."""

    def __init__(self, compares: bool) -> None:
        super().__init__(connect(f"memory://staged{next(_numbers)}"))
        self.compares = compares
        self.stage: Callable[[], None] | None = None
        self.wrote: Callable[[], None] = lambda: None

    def settles(self, change: Change) -> bool:
        return not self.compares and super().settles(change)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        self._begin()
        try:
            return super().settle(address, batch, timeout=timeout)
        finally:
            self.wrote()

    def replace(self, *args: Any, **options: Any) -> bool:
        self._begin()
        try:
            return super().replace(*args, **options)
        finally:
            self.wrote()

    def _begin(self) -> None:
        stage, self.stage = self.stage, None
        if stage is not None:
            stage()

    def value(self) -> int:
        record = self.store.read(Address("mydomain", "counter1"), timeout=5)
        assert isinstance(record, Record)
        return record.value


_numbers = itertools.count(1)


def told_by(call: Callable[[], Any]) -> Future[Any]:
    """What ``call`` returns or raises, in a thread of its own."""
    told: Future[Any] = Future()

    def work() -> None:
        try:
            told.set_result(call())
        except BaseException as error:
            told.set_result(error)

    threading.Thread(target=work, daemon=True).start()
    return told


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.0001)


Victim: TypeAlias = Callable[[Staged, Strike], Any]


def struck_adding(store: Staged, strike: Strike) -> Any:
    c = Counter("mydomain", "counter1", store=store)
    with strike:
        return c.add(10)


def struck_adding_to_many(store: Staged, strike: Strike) -> Any:
    domain = Domain("mydomain", store=store)
    with strike:
        return domain.add({"counter1": 10})["counter1"]


def struck_adding_in_a_loop(store: Staged, strike: Strike) -> Any:
    async def main() -> Any:
        c = await AsyncCounter.open("mydomain", "counter1", store=store)
        with strike:
            return await c.add(10)

    return asyncio.run(main())


VICTIMS: Final[dict[str, Victim]] = {
    "add": struck_adding,
    "many": struck_adding_to_many,
    "task": struck_adding_in_a_loop,
}


@pytest.mark.parametrize("compares", [False, True], ids=["settles", "compares"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("victim", VICTIMS.values(), ids=VICTIMS)
def test_a_strike_at_every_point(victim: Victim, first: bool, compares: bool) -> None:
    """Wherever a caller in the midst of others is struck, they go on, and all are told the truth.

    It is the first in line, and the first reply is lost; or the second, called to lead
    those behind it, and the store is full once the batch was applied.
    """
    for nth in itertools.count(1):
        strike = Strike(nth)
        told, value = one_strike(victim, strike, first, compares)
        for position, (name, came) in enumerate(told.items()):
            applied = value // 10**position % 10
            if isinstance(came, Receipt):
                possible = {1}
            elif isinstance(came, KeyboardInterrupt):
                noted = SENT in getattr(came, "__notes__", ())
                # Who is struck when its call is as good as over may not be told any more.
                possible = {0, 1} if noted or not strike.leading else {0}
            else:
                assert isinstance(came, CounterError), (strike.where, name, came)
                possible = {0, 1} if isinstance(came, OutcomeUnknownError) else {0}
            assert applied in possible, (strike.where, name, came)
        if strike.missed:
            break
    assert nth > 30


def one_strike(
    victim: Victim, strike: Strike, first: bool, compares: bool
) -> tuple[dict[str, Any], int]:
    """Have ``victim`` struck: what it and the others were told, and the value at the end.

    The one before it adds 1, it adds 10, the one behind it 100, and one who comes later 1000.
    """
    store = Staged(compares)
    c = Counter("mydomain", "counter1", store=store)
    line = c._line
    over = threading.Event()
    began = threading.Event()
    behind: list[Future[Any]] = []

    def stage() -> None:
        began.set()
        if not first:
            until(lambda: line.waiting or over.is_set())
        behind.append(told_by(lambda: c.add(100)))
        # The victim may leave just now, so that their number tells nothing.
        until(lambda: Add(100) in [each.change for each in line.waiting] or behind[0].done())

    def fill() -> None:
        if store.value() // 10 % 10:
            store.wrote = lambda: None
            store.refuse(StoreFullError("full"))

    told: dict[str, Any] = {}
    store.stage = stage
    if first:
        store.lose_replies(1)
    else:
        store.wrote = fill
        before = told_by(lambda: c.add(1))
        began.wait(10)
    try:
        came = victim(store, strike)
    except (KeyboardInterrupt, CounterError) as error:
        came = error
    over.set()
    unset, store.stage = store.stage, None
    if unset is None:  # maybe by a thread that is at it yet
        until(lambda: behind)
    assert threading.get_ident() not in drive.running, strike.where
    try:
        told["before"] = StoreError("nobody") if first else before.result(5)
        told["victim"] = came
        told["behind"] = behind[0].result(5) if behind else StoreError("nobody")
        store.mend()
        told["later"] = told_by(lambda: c.add(1000, timeout=4)).result(5)
    except TimeoutError:
        pytest.fail(f"others wait for ever after a strike in {strike.where}")
    assert isinstance(told["later"], Receipt), strike.where
    return told, store.value()


Steps: TypeAlias = "list[tuple[str, int, int]]"
"""Of which counter, from which value, to which."""


def steps(receipts: dict[str, Receipt]) -> Steps:
    return [(name, each.before, each.after) for name, each in receipts.items()]


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_fork_at_every_point(many: bool, tmp_path: Path) -> None:
    """Wherever a signal's handler forks in an addition, the child makes none in its parent's name.

    Another thread adds to the same counters meanwhile. Each change is one step of its counter.
    """
    names = ["counter1", "counter2"] if many else ["counter1"]
    with connect(f"sqlite:///{tmp_path}/counters.db?synchronous=normal") as store:
        domain = Domain("mydomain", store=store)
        known = {name: domain[name] for name in names}
        domain.add(dict.fromkeys(names, 0))
        domain.add(dict.fromkeys(names, 0))

        def add() -> Steps:
            if many:
                return steps(domain.add(dict.fromkeys(names, 10)))
            return steps({"counter1": known["counter1"].add(10)})

        def add_too() -> Steps:
            return steps({name: c.add(7) for name, c in known.items()})

        for nth in itertools.count(1):
            forked = Fork(tmp_path / "told", add_too)
            strike = Strike(nth, forked)
            before = domain.snapshot()
            try:
                with strike:
                    told = add()
            except BaseException as error:
                if forked.child != 0 or "forked in the middle" not in str(error):
                    forked.end_child()
                    raise
                told = []
            if forked.child == 0:
                forked.tell(told)
            if strike.missed:
                break
            assert forked.others is not None
            taken = {*told, *forked.told(), *forked.others.result(5)}
            for name, value in before.items():
                chain = sorted((was, now) for which, was, now in taken if which == name)
                for was, now in chain:
                    assert was == value, (strike.where, before, taken)
                    value = now
                assert value == domain.snapshot()[name], (strike.where, before, taken)
    assert nth > 30


class Fork:
    """Forks, waits for the child, and has others add before the parent goes on."""

    def __init__(self, path: Path, add: Callable[[], Steps]) -> None:
        self.path = path
        self.add = add
        self.child: int | None = None
        self.others: Future[Steps] | None = None

    def __call__(self) -> None:
        self.child = os.fork()
        if self.child:
            _, status = os.waitpid(self.child, 0)
            assert status == 0
            self.others = others = told_by(self.add)
            end = time.monotonic() + 0.02  # they may have to wait for this thread
            while not others.done() and time.monotonic() < end:
                time.sleep(0.0001)
        else:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # ends a child that waits for ever

    def tell(self, told: Steps) -> None:
        """What the child was told, which ends with that."""
        self.path.write_text(json.dumps(told))
        os._exit(0)

    def end_child(self) -> None:
        """What raises in the child is no test's there."""
        if self.child == 0:
            os._exit(1)

    def told(self) -> Steps:
        return [(name, was, now) for name, was, now in json.loads(self.path.read_text())]


@pytest.mark.parametrize("place", ["line", "lines", "thread's turn", "process's turn"])
def test_a_fork_of_one_who_waits(place: str, tmp_path: Path) -> None:
    """Forked by a signal's handler while it waits for others, the child waits for nobody."""
    path = tmp_path / "counters.db"
    with connect(f"sqlite:///{path}", timeout=None) as store, open(f"{path}-turn", "w") as file:
        domain = Domain("mydomain", store=store)
        c, other = domain["counter1"], domain["counter2"]
        led = {"line": c, "lines": c, "thread's turn": other}.get(place)
        forks: list[int] = []
        children: list[int] = []  # 0: this is it

        def fork(*_: object) -> None:
            if not forks:  # the handler may be interrupted by itself
                forks.append(1)
                children.append(os.fork())
                if children == [0]:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(5)  # ends a child that waits for ever

        def strike() -> None:
            until(lambda: waiting() > ahead)
            while not forks:  # again, if it came before the thread could notice
                signal.pthread_kill(main, signal.SIGUSR1)
                time.sleep(0.01)
            until(lambda: children)
            ends.append(os.waitpid(children[0], 0)[1])
            fcntl.flock(file, fcntl.LOCK_UN)

        fcntl.flock(file, fcntl.LOCK_EX)
        first = None if led is None else told_by(partial(led.add, 1))
        until(lambda: first is None or waiting() > 0)
        ahead, main, ends = waiting(), threading.get_ident(), list[int]()
        handler = signal.signal(signal.SIGUSR1, fork)
        struck = told_by(strike)
        told: Any = None
        try:
            told = domain.add({"counter1": 1})["counter1"] if place == "lines" else c.add(1)
        except CounterError as error:
            told = error
        if children == [0]:
            os._exit(0 if "forked in the middle" in str(told) else 1)
        signal.signal(signal.SIGUSR1, handler)
        assert struck.result(5) is None
        assert ends == [0]
        assert first is None or first.result(5) == 1
        assert (told, other) == (1 + (led is c), int(led is other))


def waiting() -> int:
    """How many threads wait at a gate."""
    codes = [frame.f_code for frame in sys._current_frames().values()]
    return codes.count(gate.wait_at.__code__)


@pytest.mark.parametrize("struck", [1, 1001], ids=["first part", "second part"])
def test_strikes_again_and_again(struck: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Struck once more while it leaves many lines, it leaves them all, and notes what was sent."""
    store = Staged(compares=False)
    domain = Domain("mydomain", store=store)
    amounts = dict.fromkeys([f"counter{number}" for number in range(1300)], 1)
    domain.add(amounts)
    domain.add(amounts)
    abandon = Line.abandon
    left, sent = itertools.count(1), itertools.count(1)

    def abandon_or_strike(*arguments: Any) -> None:
        if next(left) % 50 == 0:
            raise KeyboardInterrupt
        abandon(*arguments)

    store.wrote = lambda: interrupt() if next(sent) == struck else None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(Line, "abandon", abandon_or_strike)
        domain.add(amounts)
    assert SENT in caught.value.__notes__
    store.wrote = lambda: None
    assert set(domain.add(amounts, timeout=5).values()) <= {3, 4}


def test_struck_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is struck as it gives up leaves those behind it one place in line, not two."""
    store = Staged(compares=False)
    c = Counter("mydomain", "counter1", store=store)
    land = Line._land

    def struck(line: Line, flight: combine.Flight) -> None:
        if threading.current_thread() is threading.main_thread():
            monkeypatch.undo()
            store.mend()
            raise KeyboardInterrupt
        land(line, flight)

    def stage() -> None:
        until(lambda: len(c._line.waiting) == 1)
        behind.append(told_by(lambda: c.add(100)))
        until(lambda: len(c._line.waiting) == 2)
        store.go_down()

    behind: list[Future[Any]] = []
    store.stage = stage
    store.serve()
    before = told_by(lambda: c.add(1))
    until(lambda: store.stage is None)
    monkeypatch.setattr(Line, "_land", struck)
    with pytest.raises(KeyboardInterrupt):
        c.add(10, timeout=0.2)
    assert (before.result(5), behind[0].result(5)) == (1, 101)
    assert told_by(lambda: c.add(1000, timeout=4)).result(5) == 1101


CLOSING = """
import threading, time
from truecount import *
store = connect({url!r})
counters = [Counter("mydomain", f"c{{n % 2}}", store=store) for n in range(6)]
told = []
def count(c):
    try:
        while True:
            c.add(1)
    except StoreClosedError:
        told.append("closed")
    except BaseException as error:
        told.append(repr(error))
threads = [threading.Thread(target=count, args=(c,)) for c in counters]
for thread in threads: thread.start()
time.sleep(0.05)
store.close()
for thread in threads: thread.join()
assert told == ["closed"] * 6, told
"""

LEAVING = """
import threading, time
from truecount import *
def count():
    c = Counter("mydomain", "counter1", store={url!r})
    while True:
        c.add(1)
for _ in range(3):
    threading.Thread(target=count, daemon=True).start()
time.sleep(0.05)
"""


@pytest.mark.parametrize("code", [CLOSING, LEAVING], ids=["close", "exit"])
def test_closing_while_others_write(code: str, tmp_path: Path) -> None:
    """A store closed, or a program ended, under writing threads: they are told, nothing crashes."""
    for number in range(12):
        url = f"sqlite:///{tmp_path}/{number}.db"
        program = [sys.executable, "-c", code.format(url=url)]
        result = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr


def test_a_lock_held_at_a_fork_is_not_waited_for(tmp_path: Path) -> None:
    """A child forked while a thread of its parent shows a new value can refresh and add."""
    c = Counter("mydomain", "counter1", store=f"sqlite:///{tmp_path}/counters.db")
    with c._line.lock:
        pid = os.fork()
        if not pid:
            signal.alarm(10)  # ends a child that waits for the lock
            status = 1
            try:
                c.refresh()
                status = 0 if c.add(1) == 1 else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_handler_may_make_counters(tmp_path: Path) -> None:
    """A signal handler that makes or copies counters while their own locks are held does."""
    url = f"sqlite:///{tmp_path}/counters.db"
    c = Counter("mydomain", "counter1", store=url)
    with truecount.connect.__globals__["_lock"], combine._lock:
        assert Counter("mydomain", "counter2", store=url) == 0
        assert copy.copy(c) == 0


def test_no_thread_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can wait for the turn, an add is refused; later ones are not."""
    path = tmp_path / "counters.db"
    c = Counter("mydomain", "counter1", store=f"sqlite:///{path}")
    with open(f"{path}-turn") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _cannot_start)
            with pytest.raises(StoreError, match="no thread can be started"):
                c.add(1)
        with pytest.raises(StoreTimeoutError):
            c.add(1, timeout=0.1)
    assert c.add(1) == 1


def _cannot_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
