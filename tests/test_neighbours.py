"""Processes of one machine take turns where an engine only compares and sets."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

import workers
from helpers import in_processes, wait_until
from posting import Posting, Requests
from truecount import (
    BoundsError,
    Counter,
    Receipt,
    StoreUnavailableError,
    connect,
    neighbours,
)
from truecount.change import Add, Batch
from truecount.mail import Letter, Mail
from truecount.neighbours import MyTurn
from truecount.record import Address
from truecount.settle import carry as carry_along
from truecount.stores.base import Store
from truecount.testing.faulty import ComparingStore

PROCESSES, TIMES = 4, 100


def race(tmp_path: Path, processes: int = 2, times: int = 20) -> list[workers.Effort]:
    """Have processes add at once, so many times each: what each did, and the count is exact."""
    url = f"sqlite:///{tmp_path}/counters.db"
    with connect(url) as store:
        hot = Counter("mydomain", "hot", store=ComparingStore(store))
        before = hot.value
        ready = Path(tempfile.mkdtemp(dir=tmp_path))
        work = (workers.compare_until, (url, before + processes * times, ready, processes))
        efforts = in_processes([work] * processes)
        assert hot.refresh() == before + sum(effort.adds for effort in efforts)
    return efforts


def test_everybody_has_a_turn(tmp_path: Path, folder: Path) -> None:
    """In turn, no process starves, and none reads what the one before it has just written."""
    efforts = race(tmp_path, PROCESSES, TIMES)
    assert list(folder.glob("*-turn"))
    assert min(effort.adds for effort in efforts) > TIMES / 2
    assert sum(effort.reads for effort in efforts) < PROCESSES * TIMES / 4


def test_one_request_brings_what_others_wait_for(tmp_path: Path, folder: Path) -> None:
    """Four processes that add at once make far fewer requests than additions."""
    efforts = race(tmp_path, PROCESSES, TIMES)
    assert sum(effort.writes for effort in efforts) < PROCESSES * TIMES * 2 / 3
    with connect(f"sqlite:///{tmp_path}/counters.db") as store:
        record = store.read(Address("mydomain", "hot"), timeout=5)
    assert record is not None
    assert len(record.ledger) == PROCESSES + 1  # nobody was in doubt, and took another name


@pytest.mark.parametrize("obstacle", ["a file", "another's", "no place"])
def test_no_place_for_turns(tmp_path: Path, folder: Path, obstacle: str) -> None:
    """Where there is no folder for the turns, or not a safe one, counting goes on without."""
    if obstacle == "a file":
        folder.touch()
    elif obstacle == "another's":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.parent.rmdir()
        folder.parent.touch()
    race(tmp_path)
    assert not list(folder.glob("*")) if folder.is_dir() else True


def test_what_was_left_is_not_believed(tmp_path: Path, folder: Path) -> None:
    """A record left by the one before that is cut off, changed or out of date does no harm."""
    race(tmp_path)
    (left,) = folder.glob("*-mail")
    whole = left.read_bytes()
    for text in (b"", whole[:-5], whole.replace(b"\n0\n", b"\n1\n"), b"x" * 9):
        left.write_bytes(text)
        race(tmp_path)
    left.write_bytes(whole)
    race(tmp_path)


def test_a_frozen_neighbour_is_not_waited_for(tmp_path: Path, folder: Path) -> None:
    """Who stops in the middle of its turn holds nobody up for long, and what it began stands."""
    url = f"sqlite:///{tmp_path}/counters.db"
    code = (
        "import sys, truecount.neighbours as n; from truecount import connect; "
        "from truecount.record import Address; "
        "t = n.MyTurn(); t.take(connect(sys.argv[1]), Address('mydomain', 'hot'), None, 5); "
        "print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as neighbour:
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "mine\n"
        neighbour.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: list(folder.glob("*-turn")), "its lock files")
            race(tmp_path)
        finally:
            neighbour.kill()


def test_a_forked_child_has_none_of_the_files(tmp_path: Path, folder: Path) -> None:
    """A child that was forked keeps no turn of its parent's: it has not even the files open."""
    code = """
        import os, sys, truecount.neighbours as n
        from truecount import connect
        from truecount.record import Address
        turns = [n.MyTurn() for _ in range(3)]
        store = connect(sys.argv[1])
        for number, turn in enumerate(turns):
            turn.take(store, Address("mydomain", f"c{number}"), None, 5)
        turns[0].give()
        def ours():
            places = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
            links = [os.readlink(place) for place in places if os.path.lexists(place)]
            return [link for link in links if link.startswith(sys.argv[2])]
        places = {n._name(store.url, Address("mydomain", f"c{number}")) for number in range(3)}
        places = {int.from_bytes(place[:4]) % n.FILES for place in places}  # may be shared
        print(len(ours()) == 3 * len(places))
        sys.stdout.flush()
        if os.fork() == 0:
            turns.clear(), globals().pop("turn")
            print(ours())
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), f"sqlite:///{tmp_path}/c.db", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["True", "[]"], result.stderr


# Batches that another process sends


@pytest.fixture
def requests(tmp_path: Path, folder: Path) -> Iterator[Requests]:
    """A counter of which the store only compares and sets."""
    requests = Requests(tmp_path, folder)
    yield requests
    requests.close()


def test_what_was_left_of_what_is_gone(requests: Requests) -> None:
    """What was left of a counter that was purged since keeps a new one from nothing."""
    url, c = requests.url, requests.c
    carrier = requests.carry()
    waiting = Posting(c, requests.folder, 5)
    assert carrier.collect() == 1
    assert isinstance(waiting.end(), Receipt)
    c.add(1)
    c.delete()
    store = ComparingStore(connect(url))  # with it nothing was seen of the counter
    assert store.purge(time.time_ns() // 1000 + 1) == 1
    store.lose_requests(1)
    assert Counter("mydomain", "hot", 3, store=store) == 3


def test_a_request_that_lands_when_all_is_over(requests: Requests) -> None:
    """What one refusal has denied is not done by the request of another who gave up."""
    c = requests.c
    c.limit(minimum=0)
    carrier = requests.carry("held")
    waiting = Posting(c, requests.folder, -1)
    assert carrier.collect() == 1
    assert carrier.says() == "OutcomeUnknownError"
    assert isinstance(waiting.end(), BoundsError)
    assert carrier.release() == 1
    assert c.refresh() == 0  # and not 4


def test_a_store_that_is_down_leaves_nobody_in_doubt(requests: Requests) -> None:
    """What was collected for a request that was refused before it acted, was never sent."""
    c, store = requests.c, requests.comparing
    carrier = requests.carry("down")
    waiting = Posting(c, requests.folder, timeout=3)
    store.go_down()
    assert carrier.collect() == 1
    assert carrier.says() == "StoreUnavailableError"
    assert isinstance(waiting.end(), StoreUnavailableError)


def test_another_store_by_the_same_name(tmp_path: Path, requests: Requests) -> None:
    """Where one URL leads to two stores, by the environment maybe, each gets its own changes."""
    c = requests.c
    with connect(f"sqlite:///{tmp_path}/other.db") as other:
        store = ComparingStore(other)
        store.url = "dynamodb://us-east-1/counters"
        counter = Counter("mydomain", "hot", store=store)
        carrier = requests.carry("never", store.url)
        waiting = Posting(counter, requests.folder, 5)
        assert carrier.collect() == 1
        assert carrier.says() == "1"
        assert waiting.end() == counter.refresh() == 5
        assert c.refresh() == 1


def test_stopped_before_it_sends(requests: Requests) -> None:
    """Who is stopped with others' batches in hand sends them in vain when it goes on."""
    c = requests.c
    carrier = requests.carry("stopped")
    waiting = Posting(c, requests.folder, timeout=2)
    assert carrier.collect() == 1
    assert waiting.end() == 1
    carrier.process.send_signal(signal.SIGCONT)
    assert carrier.says() == "2"
    assert c.refresh() == 2


def test_out_of_time_before_it_is_collected(requests: Requests) -> None:
    """Who waits for its turn in vain takes its batch back, and sends it by itself."""
    c = requests.c
    carrier = requests.carry()
    assert Posting(c, requests.folder, timeout=2).end() == 1
    assert carrier.collect() == 0
    assert carrier.says() == "2"


class Holder:
    """Somebody who has the turn, and what another has posted meanwhile."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.address = Address("mydomain", "hot")
        self.turn = MyTurn()
        self.turn.take(store, self.address, None, 5)
        self.counter = neighbours._name(store.url, self.address)
        (path,) = folder.glob("*-mail")
        self.mail = Mail(str(path))
        record = store.read(self.address, timeout=5)
        assert record is not None
        batch = Batch(record.stamp.writer, record.stamp.number + 1, 0, (Add(1),))
        letter = self.mail.post(self.counter, batch, 1)
        assert letter is not None
        self.letter = letter
        self.carried = carry_along(record, [batch], 0)

    def is_unsent(self) -> bool:
        """What its owner hears."""
        return self.mail.take_back(self.counter, self.letter) is True


@pytest.fixture
def holder(requests: Requests) -> Iterator[Holder]:
    """The one who has the turn at that counter."""
    holder = Holder(requests.folder, requests.comparing)
    yield holder
    holder.turn.give()


def test_lost_and_then_refused(holder: Holder) -> None:
    """What a request has brought of which nobody knows is not put back for a later refusal."""
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)  # and nothing is heard of it
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)
    holder.turn.refused()
    holder.turn.refused()
    holder.turn.give()
    assert not holder.is_unsent()


def test_refused_and_then_lost(holder: Holder) -> None:
    """What was put back, and collected again, is in doubt when nobody knows of the request."""
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)
    holder.turn.refused()
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)
    holder.turn.give()
    assert not holder.is_unsent()


def test_what_was_put_back_is_no_longer_ones_own(holder: Holder) -> None:
    """Who has put a batch back does not do so again, when the next one has it on its way."""
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)
    holder.turn.refused()
    assert len(holder.mail.collect(holder.counter, 1)) == 1
    holder.turn.sends(holder.carried)
    holder.turn.refused()
    holder.turn.give()
    assert not holder.is_unsent()


def test_put_back_while_it_is_struck(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, when it was struck just after it had put it back."""
    assert len(holder.turn.collect()) == 1
    put_back = Mail.put_back

    def strike(mail: Mail, letters: list[Letter]) -> NoReturn:
        monkeypatch.undo()
        put_back(mail, letters)
        raise KeyboardInterrupt

    monkeypatch.setattr(Mail, "put_back", strike)
    with pytest.raises(KeyboardInterrupt):
        holder.turn.give()
    assert len(holder.mail.collect(holder.counter, 1)) == 1
    holder.turn.give()
    assert not holder.is_unsent()


def test_what_is_past_is_not_sent_again(holder: Holder) -> None:
    """Somebody who goes on and on does not take others' batches along for ever."""
    assert len(holder.turn.collect()) == 1
    holder.turn.sends(holder.carried)
    time.sleep(1.01)
    assert holder.turn.collect() == ()
