"""Changes that wait for their turn, and processes that have it and send them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers import wait_until
from truecount import Counter, CounterError, connect, neighbours
from truecount.change import Answer
from truecount.mail import _HEAD, _HEADS, POSTED
from truecount.stores import sqlite
from truecount.stores.sqlite import SQLiteStore
from truecount.testing.faulty import ComparingStore
from truecount.turn import Place, Turn
from truecount.url import StoreURL


def states(folder: Path) -> set[int]:
    """What the machine's files in ``folder`` say of all batches."""
    heads = b"".join(path.read_bytes()[:_HEADS] for path in folder.glob("*-mail"))
    return set(heads[:: _HEAD.size])


def wait_until_posted(folder: Path) -> None:
    """Wait until a batch is there that nobody has collected."""
    wait_until(lambda: POSTED in states(folder), "that it is posted")


class Posting:
    """An addition that waits for its turn, in a thread, and what came of it."""

    def __init__(self, c: Counter, folder: Path, amount: int = 1, timeout: float = 20) -> None:
        self.came: list[int | BaseException] = []

        def add() -> None:
            try:
                self.came.append(c.add(amount, timeout=timeout))
            except BaseException as error:
                self.came.append(error)

        self.thread = threading.Thread(target=add, daemon=True)
        self.thread.start()
        wait_until_posted(folder)

    def strike(self, error: type[BaseException]) -> None:
        """Have ``error`` strike it, wherever it is."""
        ident = ctypes.c_ulong(self.thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error))

    def end(self) -> int | BaseException:
        """What came of it."""
        self.thread.join(30)
        return self.came[0]


class Companion:
    """A process that runs ``code``, stops in it to have a line, and says one."""

    def __init__(self, code: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def says(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def nudge(self) -> None:
        """Have it go on."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)


class Carrier(Companion):
    """A process that has the turn, which waits before it collects what others have posted."""

    def collect(self) -> int:
        """Have it collect, and go on; how many batches it found."""
        return self.release()

    def release(self) -> int:
        """Have it send what it held back; how many requests that were."""
        self.nudge()
        return int(self.says())


def add_and_fork(c: Counter, folder: Path, collect: Callable[[], int]) -> str:
    """Add 5, and fork in a signal's handler as soon as that is posted; what it came to.

    The child must find out that it is one, and ends; then ``collect`` is called.
    """
    children: list[int] = []

    def fork(*_: object) -> None:
        if not children:
            children.append(os.fork())
            if children == [0]:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(5)  # ends a child that waits for ever

    def strike() -> int:
        wait_until_posted(folder)
        signal.pthread_kill(main, signal.SIGUSR1)
        wait_until(lambda: children, "the child")
        _, status = os.waitpid(children[0], 0)
        assert collect() == 1
        return status

    main = threading.get_ident()
    handler = signal.signal(signal.SIGUSR1, fork)
    with ThreadPoolExecutor() as pool:
        struck = pool.submit(strike)
        try:
            told = str(c.add(5, timeout=20))
        except CounterError as error:
            told = str(error)
        if children == [0]:
            os._exit(0 if "forked in the middle" in told else 1)
        signal.signal(signal.SIGUSR1, handler)
        assert struck.result(30) == 0
    return told


COMPARING = """
    import os, signal, sys
    from truecount import Counter, CounterError, connect
    from truecount.neighbours import MyTurn
    from truecount.testing.faulty import ComparingStore

    url, when, *name = sys.argv[1:]

    class Store(ComparingStore):
        def replace(self, *args, **options):
            if when == "before": os.kill(os.getpid(), signal.SIGKILL)
            if when == "stopped" and not self.writes: os.kill(os.getpid(), signal.SIGSTOP)
            done = super().replace(*args, **options)
            if when == "after": os.kill(os.getpid(), signal.SIGKILL)
            return done

    store = Store(connect(url))
    store.url = name[0] if name else store.url
    collect = MyTurn.collect

    def wait(turn):
        MyTurn.collect = collect
        print("mine", flush=True)
        sys.stdin.readline()
        batches = () if when == "blind" else collect(turn)
        print(len(batches), flush=True)
        if when == "held": store.hold(1)
        if when in ("held", "down"): store.go_down()
        return batches

    MyTurn.collect = wait
    amount = 5 if when == "held" else 1
    seconds = 1 if when in ("held", "down") else 20
    try:
        print(int(Counter("mydomain", "hot", store=store).add(amount, timeout=seconds)), flush=True)
    except CounterError as error:
        print(type(error).__name__, flush=True)
    sys.stdin.readline()
    store.mend()
    print(store.release(), flush=True)
"""
"""Has the turn where the engine only compares and sets; and what befalls it there."""

WRITING = """
    import ctypes, os, signal, sys
    from truecount import Counter, CounterError, connect
    from truecount.post import Post
    from truecount.stores.sqlite import SQLiteStore

    url, when = sys.argv[1:]
    c = Counter("mydomain", "hot", store=connect(url))
    c.add(0)  # from here on the counter knows it
    print("ready", flush=True)
    sys.stdin.readline()
    collect, write = Post.collect, SQLiteStore._write

    def wait(post):
        Post.collect, SQLiteStore._write = collect, befall
        print("mine", flush=True)
        sys.stdin.readline()
        found = when != "blind" and collect(post)
        print(len(post.letters), flush=True)
        return found

    def befall(*args):
        SQLiteStore._write = write
        if when == "before": os.kill(os.getpid(), signal.SIGKILL)
        if when == "stopped": os.kill(os.getpid(), signal.SIGSTOP)
        if when == "failing": ctypes.CDLL(None).fail_writes(0, 1)
        write(*args)

    def answer(*args): os.kill(os.getpid(), signal.SIGKILL)

    Post.collect = wait
    if when == "after": Post.answer = answer
    try:
        print(int(c.add(1, timeout=20)), flush=True)
    except CounterError as error:
        print(type(error).__name__, flush=True)
    sys.stdin.readline()
"""
"""Has the turn on SQLite; and what befalls it there."""


class Way(ABC):
    """A way for a process to do what others have posted: a counter, and who carries for it."""

    c: Counter
    delivery: str
    """The method of `Line` that tells what came of a single addition."""
    store: str
    """What opens the store in another process, of its URL in ``sys.argv[1]``."""

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        self.path = f"{tmp_path}/counters.db"
        self.url = f"sqlite:///{self.path}"
        self.folder = folder
        self.carriers: list[Carrier] = []

    def carry(self, when: str = "never", *arguments: str, **environment: str) -> Carrier:
        """Start a process that has the turn; ``when`` says what befalls it then."""
        carrier = self.start(when, *arguments, **environment)
        assert carrier.says() == "mine"
        return carrier

    @abstractmethod
    def start(self, when: str, *arguments: str, **environment: str) -> Carrier:
        """Start it."""

    def keep(self, carrier: Carrier) -> Carrier:
        """End it with the test."""
        self.carriers.append(carrier)
        return carrier

    @abstractmethod
    def wait_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have those who wait at the bell not go on without it."""

    @abstractmethod
    def writes(self) -> int:
        """How often this process has written to the counter."""

    @abstractmethod
    def shut(self, *, shut: bool) -> None:
        """Have this process not write, or write again."""

    def close(self) -> None:
        """End all."""
        for carrier in self.carriers:
            with carrier.process as process:
                process.kill()
        self.c.store.close()


class Requests(Way):
    """In one request, where the engine only compares and sets."""

    delivery = "_deliver"
    store = "ComparingStore(connect(sys.argv[1]))"

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        super().__init__(tmp_path, folder)
        self.comparing = ComparingStore(connect(self.url))
        self.c = Counter("mydomain", "hot", store=self.comparing)

    def start(self, when: str, *arguments: str, **environment: str) -> Carrier:
        return self.keep(Carrier(COMPARING, self.url, when, *arguments, **environment))

    def wait_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "PATIENCE", 60)

    def writes(self) -> int:
        return self.comparing.writes

    def shut(self, *, shut: bool) -> None:
        (self.comparing.go_down if shut else self.comparing.mend)()


class CountingStore(SQLiteStore):
    """Counts what it writes, and may be shut."""

    count = 0
    shut = False

    def _write(self, *args: Any) -> None:
        self._note()
        super()._write(*args)

    def _overwrite(self, *args: Any) -> Answer | None:
        answer = super()._overwrite(*args)
        if answer is not None:
            self._note()
        return answer

    def _note(self) -> None:
        if self.shut:
            pytest.fail("it writes by itself")
        self.count += 1


class Transactions(Way):
    """In one transaction, on SQLite."""

    delivery = "passed"
    store = "connect(sys.argv[1])"

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        super().__init__(tmp_path, folder)
        self.counting = CountingStore(StoreURL(self.url))
        self.c = Counter("mydomain", "hot", store=self.counting)
        self.c.add(0)  # from here on the counter knows this process

    def start(self, when: str, *arguments: str, **environment: str) -> Carrier:
        """Start it: while somebody has the turn, since who has met nobody looks for nothing."""
        carrier = self.keep(Carrier(WRITING, self.url, when, *arguments, **environment))
        assert carrier.says() == "ready"
        turn, place = Turn(self.path), Place()
        try:
            turn.take(place, 5)
            turn.insist(5)
            carrier.nudge()
            wait_until_posted(self.folder)
        finally:
            turn.give(place)
            turn.close()
        return carrier

    def wait_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "LISTENING", 60)

    def writes(self) -> int:
        return self.counting.count

    def shut(self, *, shut: bool) -> None:
        self.counting.shut = shut
