"""Who has the turn does what other processes have posted, in one request or transaction."""

from __future__ import annotations

import signal
from typing import NoReturn

import pytest

from posting import Companion, Posting, Way, add_and_fork, wait_until_posted
from truecount import BoundsError, Receipt, post
from truecount.combine import SENT, Line


def test_who_waits_is_answered_by_another(way: Way) -> None:
    """What another sent along has its receipt, and its own process has done nothing at all."""
    carrier = way.carry()
    waiting = Posting(way.c, way.folder, 5)
    way.shut(shut=True)
    assert carrier.collect() == 1
    assert carrier.says() == "1"
    receipt = waiting.end()
    assert isinstance(receipt, Receipt)
    assert (receipt.before, receipt.after) == (1, 6)
    assert way.c.value == 6
    way.shut(shut=False)
    assert way.c.refresh() == 6


def test_a_refusal_is_answered_too(way: Way) -> None:
    """What does not fit any more after the other's own change is refused, for good."""
    way.c.limit(maximum=1)
    carrier = way.carry()
    waiting = Posting(way.c, way.folder)
    way.shut(shut=True)
    assert carrier.collect() == 1
    assert carrier.says() == "1"
    assert isinstance(waiting.end(), BoundsError)
    way.shut(shut=False)
    way.c.limit(maximum=None)
    assert way.c.refresh() == 1


@pytest.mark.parametrize(("when", "collected"), [("never", 1), ("blind", 0)])
def test_the_bell_rings(
    way: Way, monkeypatch: pytest.MonkeyPatch, when: str, collected: int
) -> None:
    """Who is answered is woken; and who was not collected, when the turn is free."""
    way.wait_without_end(monkeypatch)
    monkeypatch.setattr(post, "UNHEARD", 60)
    carrier = way.carry(when)
    waiting = Posting(way.c, way.folder, 5, timeout=200)
    assert carrier.collect() == collected
    assert isinstance(waiting.end(), Receipt)


def test_nobody_rings(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits has the turn of one that is killed over it."""
    way.wait_without_end(monkeypatch)
    carrier = way.carry()
    waiting = Posting(way.c, way.folder, 5, timeout=200)
    carrier.process.kill()
    assert isinstance(waiting.end(), Receipt)


def test_forked_while_it_waits(way: Way) -> None:
    """Forked by a signal's handler while its batch is posted, the child has no part in it."""
    carrier = way.carry()
    assert add_and_fork(way.c, way.folder, carrier.collect) == "6"
    assert way.c.refresh() == 6


@pytest.mark.parametrize(("when", "value"), [("before", 1), ("after", 2)])
def test_killed_before_it_answers(way: Way, when: str, value: int) -> None:
    """Whose batch was collected by a process that is killed, learns from the store what it did."""
    carrier = way.carry(when)
    before = way.writes()
    waiting = Posting(way.c, way.folder)
    assert carrier.collect() == 1
    assert waiting.end() == way.c.refresh() == value
    assert way.writes() == before + (when == "before")
    assert carrier.process.wait(30) == -signal.SIGKILL


def test_killed_while_it_waits(way: Way) -> None:
    """What a process had posted that is killed is sent once, or not at all."""
    code = f"""
        import sys
        from truecount import Counter, connect
        from truecount.testing.faulty import ComparingStore
        c = Counter("mydomain", "hot", store={way.store})
        print(c.add(5), flush=True)
        sys.stdin.readline()
        c.add(5, timeout=20)
    """
    victim = Companion(code, way.url)
    assert victim.says() == "5"
    carrier = way.carry()
    victim.nudge()
    wait_until_posted(way.folder)
    with victim.process as process:
        process.kill()
    collected = carrier.collect()
    assert carrier.says() == "6"
    assert way.c.refresh() == 6 + 5 * collected
    assert way.c.add(1) == 7 + 5 * collected


def test_interrupted_while_it_waits(way: Way) -> None:
    """Whose thread is struck while its batch is posted has it once, or not at all."""
    carrier = way.carry()
    waiting = Posting(way.c, way.folder, 5)
    waiting.strike(KeyboardInterrupt)
    collected = carrier.collect()
    assert carrier.says() == "1"
    assert way.c.refresh() == 1 + 5 * collected
    assert way.c.add(1) == 2 + 5 * collected
    assert isinstance(waiting.end(), KeyboardInterrupt)


def test_struck_when_it_is_answered(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that strikes between the answer and its delivery says what was sent."""
    carrier = way.carry()

    def strike(*_: object) -> NoReturn:
        monkeypatch.undo()
        raise KeyboardInterrupt

    waiting = Posting(way.c, way.folder, 5)
    monkeypatch.setattr(Line, way.delivery, strike)
    way.shut(shut=True)
    assert carrier.collect() == 1
    struck = waiting.end()
    assert isinstance(struck, KeyboardInterrupt)
    assert SENT in struck.__notes__
    way.shut(shut=False)
    assert way.c.add(1) == 7
