"""On SQLite, who has the turn writes what the other processes wait to add."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeAlias

import pytest

import posting
import workers
from helpers import in_processes, wait_until
from posting import Posting, wait_until_posted
from truecount import (
    BoundsError,
    Counter,
    OutcomeUnknownError,
    Receipt,
    StoreTimeoutError,
    connect,
    post,
)
from truecount.change import Answer
from truecount.combine import SENT, Line
from truecount.post import Post
from truecount.stores import sqlite
from truecount.stores.sqlite import SQLiteStore
from truecount.turn import Place, Turn

CARRIER = """
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
"""A process that has the turn and collects what others post, and what befalls it then."""


class Carrier(posting.Carrier):
    """Such a process, which waits before it collects.

    It had to wait for its turn itself, for somebody at the counter in ``path``: who has met
    nobody looks for nothing.
    """

    def __init__(self, path: str, folder: Path, when: str, **environment: str) -> None:
        super().__init__(CARRIER, f"sqlite:///{path}", when, **environment)
        assert self.says() == "ready"
        turn, place = Turn(path), Place()
        try:
            turn.take(place, 5)
            turn.insist(5)
            assert self.process.stdin is not None
            print(file=self.process.stdin, flush=True)
            wait_until_posted(folder)
        finally:
            turn.give(place)
            turn.close()
        assert self.says() == "mine"

    def collect(self) -> int:
        """Have it collect, and go on; how many batches it found."""
        return int(self.goes_on())


Carry: TypeAlias = Callable[..., Carrier]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The file of the counters."""
    return f"{tmp_path}/counters.db"


@pytest.fixture
def c(path: str, folder: Path) -> Iterator[Counter]:
    """A counter, which knows this process."""
    with connect(f"sqlite:///{path}") as store:
        c = Counter("mydomain", "hot", store=store)
        c.add(0)
        yield c


@pytest.fixture
def carry(path: str, folder: Path, c: Counter) -> Iterator[Carry]:
    """Starts such a process, and ends it with the test."""
    carriers: list[Carrier] = []

    def start(when: str = "never", **environment: str) -> Carrier:
        carriers.append(Carrier(path, folder, when, **environment))
        return carriers[-1]

    yield start
    for carrier in carriers:
        with carrier.process as process:
            process.kill()


def no_write(*_: object) -> NoReturn:
    pytest.fail("it wrote by itself")


def test_who_waits_is_answered_by_another(
    folder: Path, c: Counter, carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process wrote along has its receipt, and its own process has not written."""
    carrier = carry()
    monkeypatch.setattr(SQLiteStore, "_transact", no_write)
    monkeypatch.setattr(SQLiteStore, "_overwrite", no_write)
    waiting = Posting(c, folder, 5)
    assert carrier.collect() == 1
    assert carrier.says() == "1"
    receipt = waiting.end()
    assert isinstance(receipt, Receipt)
    assert (receipt.before, receipt.after) == (1, 6)
    assert c.value == c.refresh() == 6


def test_one_transaction_for_many_processes(path: str, folder: Path) -> None:
    """Eight processes that add at once make fewer transactions than additions, and are exact."""
    times = 100
    url = f"sqlite:///{path}"
    counts = in_processes([(workers.count_transactions, (url, times))] * 8)
    assert Counter("mydomain", "hot", store=url) == 8 * times
    assert sum(counts) < 8 * times * 2 / 3


def test_a_refusal_is_answered_too(folder: Path, c: Counter, carry: Carry) -> None:
    """What does not fit any more after the other's own change is refused, for good."""
    c.limit(maximum=1)
    carrier = carry()
    waiting = Posting(c, folder)
    assert carrier.collect() == 1
    assert carrier.says() == "1"
    assert isinstance(waiting.end(), BoundsError)
    c.limit(maximum=None)
    assert c.refresh() == 1


@pytest.mark.parametrize(("when", "value"), [("before", 1), ("after", 2)])
def test_killed_before_it_answers(
    folder: Path, c: Counter, carry: Carry, when: str, value: int
) -> None:
    """Whose batch was collected by a process that is killed, finds out what it did."""
    carrier = carry(when)
    waiting = Posting(c, folder)
    assert carrier.collect() == 1
    assert waiting.end() == c.refresh() == value
    assert carrier.process.wait(30) == -signal.SIGKILL


def test_stopped_before_it_commits(folder: Path, c: Counter, carry: Carry) -> None:
    """What is in the hands of a process that is stopped is unknown, and is settled later."""
    carrier = carry("stopped")
    waiting = Posting(c, folder, 5, timeout=0.5)
    assert carrier.collect() == 1
    error = waiting.end()
    assert isinstance(error, OutcomeUnknownError)
    carrier.process.send_signal(signal.SIGCONT)
    assert carrier.says() == "1"
    assert error.retry().after == c.refresh() == 6


def test_not_collected_in_time(folder: Path, c: Counter, carry: Carry) -> None:
    """Whose time is over before anybody has collected its batch knows that nothing was applied."""
    carrier = carry()
    assert isinstance(Posting(c, folder, 5, timeout=0.5).end(), StoreTimeoutError)
    assert carrier.collect() == 0
    assert carrier.says() == "1"
    assert c.refresh() == 1


@pytest.fixture
def doubts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether what was posted from here was in doubt, each time that it was taken back."""
    found: list[bool] = []
    take_back = Post.take_back

    def note(post: Post) -> tuple[Answer | None, bool]:
        answer, doubt = take_back(post)
        found.append(doubt)
        return answer, doubt

    monkeypatch.setattr(Post, "take_back", note)
    return found


def test_a_commit_that_fails(
    folder: Path, c: Counter, carry: Carry, failing_disk: Path, doubts: list[bool]
) -> None:
    """What was to be written in a transaction that failed and was undone, was never sent."""
    carrier = carry("failing", LD_PRELOAD=str(failing_disk))
    waiting = Posting(c, folder, 5)
    assert carrier.collect() == 1
    assert carrier.says() == "StoreError"
    assert waiting.end() == c.refresh() == 5
    assert doubts
    assert not any(doubts)


def test_a_transaction_that_writes_nothing(
    folder: Path, c: Counter, carry: Carry, doubts: list[bool]
) -> None:
    """What was collected by one whose own change is refused was never sent either."""
    c.limit(maximum=0)
    carrier = carry()
    waiting = Posting(c, folder, -5)
    assert carrier.collect() == 1
    assert carrier.says() == "BoundsError"
    assert waiting.end() == c.refresh() == -5
    assert doubts
    assert not any(doubts)


def test_what_is_cancelled_is_not_posted(path: str, folder: Path, c: Counter, carry: Carry) -> None:
    """Who cancels an addition while others have the turn does not have it done by them."""
    carrier = carry("stopped")
    waiting = Posting(c, folder, 5, timeout=0.5)
    assert carrier.collect() == 1
    error = waiting.end()
    assert isinstance(error, OutcomeUnknownError)
    carrier.process.kill()
    carrier = carry()
    with ThreadPoolExecutor() as pool:
        cancelled = pool.submit(error.cancel)
        wait_until(lambda: is_locked(f"{path}-next"), "that it queues")
        assert carrier.collect() == 0
        assert cancelled.result(30)
    assert c.refresh() == 1


def is_locked(path: str) -> bool:
    """Whether some process has that file locked."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has those who wait at the bell not queue after a while."""
    monkeypatch.setattr(sqlite, "LISTENING", 60)


@pytest.fixture
def deaf(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, and not look by themselves."""
    monkeypatch.setattr(post, "UNHEARD", 60)


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(("when", "collected"), [("never", 1), ("blind", 0)])
def test_the_bell_rings(folder: Path, c: Counter, carry: Carry, when: str, collected: int) -> None:
    """Who is answered is woken; and who was not collected, when the turn is free."""
    carrier = carry(when)
    waiting = Posting(c, folder, 5, timeout=200)
    assert carrier.collect() == collected
    assert isinstance(waiting.end(), Receipt)


@pytest.mark.usefixtures("patient")
def test_nobody_rings(folder: Path, c: Counter, carry: Carry) -> None:
    """Who waits has the turn of one that is killed over it."""
    carrier = carry()
    waiting = Posting(c, folder, 5, timeout=200)
    carrier.process.kill()
    assert waiting.end() == 5


def test_who_is_never_rung_queues(path: str, folder: Path, c: Counter) -> None:
    """Who waits at the bell has its turn among those who queue at the lock of the file."""
    url = f"sqlite:///{path}"
    end = folder.parent / "end"
    elsewhere = {"TMPDIR": str(folder.parent.parent)}  # they find no mail of ours
    adding = [
        posting.Carrier(
            "import sys, workers; print(len(workers.add_until(*sys.argv[1:])))",
            *(url, str(end)),
            PYTHONPATH=str(Path(__file__).parent),
            **elsewhere,
        )
        for _ in range(3)
    ]
    wait_until(lambda: c.refresh() > 100, "that they add")
    numbers = [int(c.add(1, timeout=20)) for _ in range(20)]
    end.touch()
    theirs = sum(int(each.says()) for each in adding)
    for each in adding:
        with each.process:
            pass
    assert len(set(numbers)) == 20
    assert c.refresh() == 20 + theirs


@pytest.mark.parametrize("obstacle", ["a file", "another's"])
def test_no_place_for_the_mail(path: str, folder: Path, obstacle: str) -> None:
    """Where there is no folder for the mail, or not a safe one, counting goes on without."""
    if obstacle == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    url = f"sqlite:///{path}"
    in_processes([(workers.add_often, (url, 50))] * 4)
    assert Counter("mydomain", "hot", store=url) == 200
    assert folder.is_file() or not list(folder.iterdir())


def test_forked_while_it_waits(folder: Path, c: Counter, carry: Carry) -> None:
    """Forked by a signal's handler while its batch is posted, the child has no part in it."""
    carrier = carry()
    assert posting.add_and_fork(c, folder, carrier.collect) == "6"
    assert c.refresh() == 6


def test_killed_while_it_waits(path: str, folder: Path, c: Counter, carry: Carry) -> None:
    """What a process had posted that is killed is written once, or not at all."""
    code = (
        "import sys; from truecount import Counter; "
        "c = Counter('mydomain', 'hot', store=sys.argv[1]); "
        "print(c.add(5), flush=True); sys.stdin.readline(); c.add(5, timeout=20)"
    )
    victim = posting.Carrier(code, f"sqlite:///{path}")
    assert victim.says() == "5"
    carrier = carry()
    assert victim.process.stdin is not None
    print(file=victim.process.stdin, flush=True)
    wait_until_posted(folder)
    with victim.process as process:
        process.kill()
    collected = carrier.collect()
    assert carrier.says() == "6"
    assert c.refresh() == 6 + 5 * collected
    assert c.add(1) == 7 + 5 * collected


def test_interrupted_while_it_waits(folder: Path, c: Counter, carry: Carry) -> None:
    """Whose thread is struck while its batch is posted has it once, or not at all."""
    carrier = carry()
    waiting = Posting(c, folder, 5)
    waiting.strike(KeyboardInterrupt)
    collected = carrier.collect()
    assert carrier.says() == "1"
    assert c.refresh() == 1 + 5 * collected
    assert c.add(1) == 2 + 5 * collected
    assert isinstance(waiting.end(), KeyboardInterrupt)


def test_struck_when_it_is_answered(
    folder: Path, c: Counter, carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that strikes between the answer and its delivery says what was sent."""
    carrier = carry()

    def strike(*_: object) -> NoReturn:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Line, "passed", strike)
    waiting = Posting(c, folder, 5)
    assert carrier.collect() == 1
    struck = waiting.end()
    assert isinstance(struck, KeyboardInterrupt)
    assert SENT in struck.__notes__
    assert c.add(1) == 7


def test_with_keys_and_bounds_between(path: str) -> None:
    """Processes that add with keys, and without, and set bounds, lose and repeat nothing."""
    url = f"sqlite:///{path}"
    counts = in_processes([(workers.add_in_all_ways, (url, 60))] * 6)
    assert Counter("mydomain", "hot", store=url) == sum(counts)
