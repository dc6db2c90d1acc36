"""What the processes of a machine leave for each other about a counter."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from truecount import mail
from truecount.change import Add, Batch, Create
from truecount.mail import _HEAD, COLLECTED, LIFE, PLACES, POSTED, Letter, Mail
from truecount.record import Record
from truecount.settle import settle

HERE, THERE = b"1" * 32, b"2" * 32
SINCE = 2_000_000


def batch(number: int = 1, *amounts: int) -> Batch:
    """A batch of additions."""
    return Batch("writer", number, SINCE, tuple(map(Add, amounts or (1, -20, 3))))


@pytest.fixture
def post(tmp_path: Path) -> Mail:
    """A file, as one process has it."""
    return Mail(f"{tmp_path}/0-mail")


@pytest.fixture
def other(post: Mail, tmp_path: Path) -> Mail:
    """The same file, as another process has it."""
    return Mail(f"{tmp_path}/0-mail")


def made(*batches: Batch) -> Record:
    """A counter to which these were added."""
    record, _ = settle(None, Batch("maker", 1, 0, (Create(5),)), 1_000_000)
    for each in batches:
        record, _ = settle(record, each, 1_000_001)
    assert record is not None
    return record


def test_a_batch_arrives_whole(post: Mail, other: Mail) -> None:
    """What is posted is what is collected, once, and its answer is the receipt in the record."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    (found,) = other.collect(HERE, PLACES)
    assert found.batch == batch()
    assert other.collect(HERE, PLACES) == ()
    other.answer(
        HERE,
        [found],
        made(Batch("another", 1, SINCE, (Add(7),)), batch(), batch(2)._replace(writer="third")),
    )
    answer = post.take_back(HERE, letter)
    assert not isinstance(answer, bool)
    assert [int(outcome) for outcome in answer.outcomes] == [13, -7, -4]
    assert answer.view is not None
    assert answer.view.value == -20
    assert post.take_back(HERE, letter) is False


def test_an_answer_is_read_before_its_place_is_taken(
    post: Mail, other: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever posts as soon as a place is free spoils no answer that was there."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    other.answer(HERE, other.collect(HERE, PLACES), made(batch()))
    free = Mail._set

    def free_and_taken(mail: Mail, *args: Any) -> None:
        monkeypatch.undo()
        free(mail, *args)
        taken = other.post(HERE, batch(2), 1)
        assert taken is not None
        assert taken.place == letter.place

    monkeypatch.setattr(Mail, "_set", free_and_taken)
    answer = post.take_back(HERE, letter)
    assert not isinstance(answer, bool)
    assert [int(outcome) for outcome in answer.outcomes] == [6, -14, -11]
    assert [found.batch.number for found in other.collect(HERE, PLACES)] == [2]


@pytest.mark.parametrize("again", [False, True], ids=["taken back", "and another posted"])
def test_taken_back_while_it_is_collected(
    again: bool, post: Mail, other: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its owner has taken back since it was read is not sent, nor told to be collected."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    read = Mail._read

    def read_and_taken_back(mail: Mail, *args: Any) -> str | None:
        monkeypatch.undo()
        text = read(mail, *args)
        assert post.take_back(HERE, letter) is True
        assert not again or post.post(HERE, batch(2), 1)
        return text

    monkeypatch.setattr(Mail, "_read", read_and_taken_back)
    assert other.collect(HERE, PLACES) == ()
    assert [found.batch.number for found in other.collect(HERE, PLACES)] == [2] * again


def test_only_about_this_counter(post: Mail, other: Mail) -> None:
    """Counters that share a file do not get each other's batches, nor records."""
    post.post(THERE, batch(), 1)
    post.leave(THERE, made())
    assert other.collect(HERE, PLACES) == ()
    assert other.left(HERE) is None
    assert len(other.collect(THERE, PLACES)) == 1
    assert other.left(THERE) == made()


def test_what_finds_no_place_is_not_posted(post: Mail, other: Mail) -> None:
    """There are so many places, of so many bytes; what is taken back leaves its own to others."""
    letters = [post.post(HERE, batch(number), 1) for number in range(1, PLACES + 2)]
    assert letters[0] is not None
    assert letters[-1] is None
    assert post.take_back(HERE, letters[0]) is True
    assert post.post(HERE, batch(99, *[10**499] * 17), 1) is None
    assert post.post(HERE, batch(100), 1) is not None
    assert {letter.batch.number for letter in other.collect(HERE, PLACES)} == {
        *range(2, PLACES + 1),
        100,
    }


def test_no_more_than_can_be_sent(post: Mail, other: Mail) -> None:
    """Who can send so many leaves the others where they are."""
    for number in range(1, 4):
        assert post.post(HERE, batch(number), 1)
    assert [letter.batch.number for letter in other.collect(HERE, 2)] == [1, 2]
    assert [letter.batch.number for letter in other.collect(HERE, 2)] == [3]
    assert post.post(HERE, batch(4), 1)
    assert other.collect(HERE, 0) == ()


def test_what_is_put_back_is_posted_again(post: Mail, other: Mail) -> None:
    """Who has collected a batch and not sent it leaves it to the next one, or to its owner."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    for _ in range(2):
        (found,) = other.collect(HERE, PLACES)
        other.put_back([found])
    assert post.take_back(HERE, letter) is True
    assert other.collect(HERE, PLACES) == ()


def test_a_late_answer_is_nobody_elses(post: Mail, other: Mail) -> None:
    """What was taken back in doubt is neither answered nor put back: the place is another's."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    (found,) = other.collect(HERE, PLACES)
    assert post.take_back(HERE, letter) is False
    next_one = post.post(HERE, batch(2), 1)
    assert next_one is not None
    assert next_one.place == found.place
    other.answer(HERE, [found], made(batch()))
    other.put_back([found])
    assert len(other.collect(HERE, PLACES)) == 1
    other.answer(HERE, [found], made(batch()))
    other.put_back([found])
    assert other.collect(HERE, PLACES) == ()
    assert post.take_back(HERE, next_one) is False


def test_nothing_of_an_earlier_life(
    post: Mail, other: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay there when the machine was stopped is not sent when it runs again."""
    post.post(HERE, batch(), 1)
    post.leave(HERE, made())
    with monkeypatch.context() as patch:
        patch.setattr(mail, "_BOOT", b"another")
        assert other.collect(HERE, PLACES) == ()
        assert other.left(HERE) is None
    assert len(other.collect(HERE, PLACES)) == 1


def test_a_fork_has_nothing_to_do_with_it(post: Mail, other: Mail) -> None:
    """A forked child can neither take back nor post anything in the name of its parent."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    child = os.fork()
    if child == 0:
        done = (post.take_back(HERE, letter), post.post(HERE, batch(2), 1), post._file)
        os._exit(done != (False, None, -1))
    assert os.waitpid(child, 0)[1] == 0
    assert [found.batch for found in other.collect(HERE, PLACES)] == [batch()]


def test_whoever_is_struck_leaves_no_lock(post: Mail, other: Mail) -> None:
    """An exception that strikes anywhere leaves the batches to others."""

    class Strike(BaseException):
        pass

    def strike(*_: object) -> None:
        raise Strike

    strikes: list[Strike] = []
    before = signal.signal(signal.SIGVTALRM, strike)
    try:
        while len(strikes) < 100:
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, random.uniform(0.00001, 0.0002))
                while True:
                    post.put_back([])
            except Strike as struck:
                strikes.append(struck)  # with all that was on the stack
            other.lock(0)  # which raises when it is not free
            other.put_back([])  # which unlocks it
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("until", [-0.001, -3600.0, LIFE + 1, 1e9])
@pytest.mark.parametrize("state", [POSTED, COLLECTED])
def test_what_is_past_is_not_sent(post: Mail, other: Mail, until: float, state: int) -> None:
    """A batch whose time is over, or of a machine that was started again since, is not sent."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    post._set(letter.place, state, time.monotonic() + until, letter.mark)
    assert other.collect(HERE, PLACES) == ()
    if abs(until) > 1:  # else its owner may still ask
        next_one = other.post(HERE, batch(2), 1)
        assert next_one is not None
        assert next_one.place == letter.place
        assert post.take_back(HERE, letter) is False
    assert len(other.collect(HERE, PLACES)) == (abs(until) > 1)


def test_a_place_is_taken_once(
    post: Mail, other: Mail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who had to wait for the lock takes no place that was taken meanwhile."""
    lock = Mail.lock
    monkeypatch.setattr(Mail, "lock", lambda mail, _: lock(mail, 5))
    letters: list[Letter | None] = []
    waiting = threading.Thread(target=lambda: letters.append(other.post(HERE, batch(2), 1)))
    with open(tmp_path / "0-mail") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting.start()
        time.sleep(0.1)
        post._set(0, POSTED, time.monotonic() + LIFE, b"somebody else's ")
    waiting.join()
    (letter,) = letters
    assert letter is not None
    assert letter.place == 1


def test_somebody_keeps_the_lock(post: Mail, other: Mail, tmp_path: Path) -> None:
    """Who is stopped in the middle holds nobody up: nothing is posted, and all is in doubt."""
    letter = post.post(HERE, batch(), 1)
    assert letter is not None
    with open(tmp_path / "0-mail") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert other.post(HERE, batch(2), 1) is None
        assert other.collect(HERE, PLACES) == ()
        assert post.take_back(HERE, letter) is False


def test_what_is_damaged_is_not_sent(post: Mail, other: Mail, tmp_path: Path) -> None:
    """A batch of which a byte has changed, or that is cut off, is not collected."""
    post.post(HERE, batch(), 1)
    whole = (tmp_path / "0-mail").read_bytes()
    assert b" -20 " in whole
    for text in (whole.replace(b" -20 ", b" -21 "), whole[:-1], whole[: _HEAD.size]):
        (tmp_path / "0-mail").write_bytes(text)
        assert other.collect(HERE, PLACES) == ()
    (tmp_path / "0-mail").write_bytes(whole)
    assert len(other.collect(HERE, PLACES)) == 1
