"""On SQLite, who has the turn writes what the other processes wait to add."""

from __future__ import annotations

import fcntl
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import workers
from helpers import in_processes, wait_until
from posting import Companion, Posting, Transactions, states
from truecount import (
    Counter,
    OutcomeUnknownError,
    StoreTimeoutError,
)
from truecount.change import Answer
from truecount.mail import POSTED
from truecount.post import Post
from truecount.turn import ALONE, Place, Turn


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of this test's own."""
    return f"sqlite:///{tmp_path}/counters.db"


@pytest.fixture
def way(tmp_path: Path, folder: Path) -> Iterator[Transactions]:
    """A counter on SQLite, which knows this process."""
    way = Transactions(tmp_path, folder)
    yield way
    way.close()


def test_one_transaction_for_many_processes(url: str, folder: Path) -> None:
    """Eight processes that add at once make fewer transactions than additions, and are exact."""
    times = 100
    counts = in_processes([(workers.count_transactions, (url, times))] * 8)
    assert Counter("mydomain", "hot", store=url) == 8 * times
    assert sum(counts) < 8 * times * 2 / 3


def test_stopped_before_it_commits(way: Transactions) -> None:
    """What is in the hands of a process that is stopped is unknown, and is settled later."""
    carrier = way.carry("stopped")
    waiting = Posting(way.c, way.folder, 5, timeout=0.5)
    assert carrier.collect() == 1
    error = waiting.end()
    assert isinstance(error, OutcomeUnknownError)
    carrier.process.send_signal(signal.SIGCONT)
    assert carrier.says() == "1"
    assert error.retry().after == way.c.refresh() == 6


def test_not_collected_in_time(way: Transactions) -> None:
    """Whose time is over before anybody has collected its batch knows that nothing was applied."""
    carrier = way.carry()
    assert isinstance(Posting(way.c, way.folder, 5, timeout=0.5).end(), StoreTimeoutError)
    assert carrier.collect() == 0
    assert carrier.says() == "1"
    assert way.c.refresh() == 1


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


def test_a_commit_that_fails(way: Transactions, failing_disk: Path, doubts: list[bool]) -> None:
    """What was to be written in a transaction that failed and was undone, was never sent."""
    carrier = way.carry("failing", LD_PRELOAD=str(failing_disk))
    waiting = Posting(way.c, way.folder, 5)
    assert carrier.collect() == 1
    assert carrier.says() == "StoreError"
    assert waiting.end() == way.c.refresh() == 5
    assert doubts
    assert not any(doubts)


def test_a_transaction_that_writes_nothing(way: Transactions, doubts: list[bool]) -> None:
    """What was collected by one whose own change is refused was never sent either."""
    way.c.limit(maximum=0)
    carrier = way.carry()
    waiting = Posting(way.c, way.folder, -5)
    assert carrier.collect() == 1
    assert carrier.says() == "BoundsError"
    assert waiting.end() == way.c.refresh() == -5
    assert doubts
    assert not any(doubts)


def test_what_is_cancelled_is_not_posted(way: Transactions) -> None:
    """Who cancels an addition while others have the turn does not have it done by them."""
    carrier = way.carry("stopped")
    waiting = Posting(way.c, way.folder, 5, timeout=0.5)
    assert carrier.collect() == 1
    error = waiting.end()
    assert isinstance(error, OutcomeUnknownError)
    carrier.process.kill()
    carrier = way.carry()
    with ThreadPoolExecutor() as pool:
        cancelled = pool.submit(error.cancel)
        wait_until(lambda: is_locked(f"{way.path}-next"), "that it queues")
        assert carrier.collect() == 0
        assert cancelled.result(30)
    assert way.c.refresh() == 1


def test_who_is_alone_and_then_is_not(way: Transactions) -> None:
    """Who finds the file locked after it had its turn without asking does not post any more."""
    for _ in range(ALONE):
        way.c.add(1)
    turn, place = Turn(way.path), Place()
    turn.take(place, 5)
    turn.insist(5)
    try:
        with closing(sqlite3.connect(way.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor() as pool:
                adding = pool.submit(way.c.add, 5)
                wait_until(lambda: is_locked(f"{way.path}-next"), "that it queues")
                assert POSTED not in states(way.folder)
                other.execute("ROLLBACK")
                turn.give(place)
                assert adding.result(30) == ALONE + 5
    finally:
        turn.close()


def is_locked(path: str) -> bool:
    """Whether some process has that file locked."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_is_never_rung_queues(way: Transactions) -> None:
    """Who waits at the bell has its turn among those who queue at the lock of the file."""
    end = way.folder.parent / "end"
    elsewhere = {"TMPDIR": str(way.folder.parent.parent)}  # they find no mail of ours
    adding = [
        Companion(
            "import sys, workers; print(len(workers.add_until(*sys.argv[1:])))",
            *(way.url, str(end)),
            PYTHONPATH=str(Path(__file__).parent),
            **elsewhere,
        )
        for _ in range(3)
    ]
    wait_until(lambda: way.c.refresh() > 100, "that they add")
    numbers = [int(way.c.add(1, timeout=20)) for _ in range(20)]
    end.touch()
    theirs = sum(int(each.says()) for each in adding)
    for each in adding:
        with each.process:
            pass
    assert len(set(numbers)) == 20
    assert way.c.refresh() == 20 + theirs


@pytest.mark.parametrize("obstacle", ["a file", "another's"])
def test_no_place_for_the_mail(url: str, folder: Path, obstacle: str) -> None:
    """Where there is no folder for the mail, or not a safe one, counting goes on without."""
    if obstacle == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    in_processes([(workers.add_often, (url, 50))] * 4)
    assert Counter("mydomain", "hot", store=url) == 200
    assert folder.is_file() or not list(folder.iterdir())


def test_with_keys_and_bounds_between(url: str) -> None:
    """Processes that add with keys, and without, and set bounds, lose and repeat nothing."""
    counts = in_processes([(workers.add_in_all_ways, (url, 60))] * 6)
    assert Counter("mydomain", "hot", store=url) == sum(counts)
