"""Many processes on one SQLite file: exact, distinct, fair, and through every kind of death."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.load import race

import workers
from helpers import SPAWN, in_processes
from truecount import (
    Counter,
    CounterNotFoundError,
    Domain,
    InvalidTypeError,
    OutcomeUnknownError,
    StoreTimeoutError,
    connect,
)
from truecount.process import here
from truecount.testing.faulty import FaultyStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/counters.db"


def run_worker(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a worker as a program of its own."""
    return subprocess.Popen([sys.executable, workers.__file__, *arguments])


# Row 4: exact and distinct


def test_sixteen_processes_add(url: str) -> None:
    """16 processes, 500 ``add(1)``: 8,000 exactly, and 8,000 different numbers."""
    numbers = sum(in_processes([(workers.add_often, (url, 500))] * 16), [])
    assert sorted(numbers) == list(range(1, 8001))
    assert Counter("mydomain", "hot", store=url) == 8000


def test_sixteen_processes_add_and_step(url: str) -> None:
    """8 processes that add and 8 that retry ``+=``, 500 times each: exact and distinct too."""
    work = [(workers.add_often, (url, 500)), (workers.step_often, (url, 500))] * 8
    numbers = sum(in_processes(work), [])
    assert sorted(numbers) == list(range(1, 8001))
    assert Counter("mydomain", "hot", store=url) == 8000


# Row 6: creation


def test_thirty_two_processes_create(url: str) -> None:
    """32 processes construct the same counter at once: one creation, which everybody sees."""
    start = time.time() + 8
    seen = in_processes([(workers.construct, (url, n, start)) for n in range(32)])
    assert len(set(seen)) == 1
    (value, revision) = seen[0]
    assert value in range(32)
    c = Counter("mydomain", "created", 99, store=url)
    assert (c.value, c.revision) == (value, revision)


# Row 5: fair


@pytest.mark.parametrize("threads", [1, 8])
def test_nobody_starves(url: str, threads: int) -> None:
    """4 processes that add as fast as they can for 5 s: the slowest gets at least half the mean.

    How long a single add takes at most is measured by ``make bench``.
    """
    results = race(url, 5.0, 4, threads)
    sums = [sum(counts) for counts, _ in results]
    assert min(sums) >= sum(sums) / 4 / 2
    slowest = min(min(counts) for counts, _ in results)
    assert slowest >= sum(sums) / 4 / threads / 2
    assert Counter("mydomain", "hot", store=url) == sum(sums)


def holder(url: str, *, fork: bool) -> tuple[int, int]:
    """A process that has the turn to write, in the middle of a transaction; and its child."""
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        store = connect(url)
        store.read(("mydomain", "hot"), timeout=1)  # type: ignore[arg-type]
        connection = store._connection(None)  # type: ignore[attr-defined]
        connection.turn.insist(None)
        connection.sql.execute("BEGIN IMMEDIATE")
        child = 0
        if fork:
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
        os.write(writing, b"%d\n" % child)
        time.sleep(60)
        os._exit(0)
    with os.fdopen(reading, "rb") as pipe:
        child = int(pipe.readline())
    os.close(writing)
    return parent, child


@pytest.mark.parametrize("fork", [False, True])
def test_the_turn_of_the_dead_is_free(url: str, fork: bool) -> None:
    """``kill -9`` of the process whose turn it is frees the queue, even if its child lives on."""
    c = Counter("mydomain", "hot", store=url)
    parent, child = holder(url, fork=fork)
    try:
        with pytest.raises(StoreTimeoutError):
            c.add(1, timeout=0.3)
        threading.Timer(0.3, os.kill, (parent, signal.SIGKILL)).start()
        began = time.monotonic()
        assert c.add(1, timeout=30) == 1
        assert time.monotonic() - began < 10
        assert c.add(1, timeout=30) == 2
    finally:
        os.waitpid(parent, 0)
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_caller_whose_time_is_over_leaves_the_queue(url: str) -> None:
    """Callers that gave up waiting do not write later, and do not disturb those after them."""
    c = Counter("mydomain", "hot", store=url)
    parent, _ = holder(url, fork=False)
    for _ in range(3):
        with pytest.raises(StoreTimeoutError):
            c.add(1, timeout=0.1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert c.add(1) == 1
    assert [c.add(1).after for _ in range(50)] == list(range(2, 52))


# Row 7: kill -9


def wait_for_lines(log: Path, count: int) -> None:
    """Wait until a worker has logged so much."""
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_while_adding(url: str, folder: Path, kills: int) -> tuple[int, int]:
    """Kill a process that adds, again and again: (adds acknowledged, value at the end)."""
    acknowledged: list[int] = []
    for number in range(kills):
        log = folder / f"log{number}"
        worker = run_worker("add_and_log", url, str(log))
        wait_for_lines(log, 3 + number % 20)
        worker.kill()
        worker.wait()
        lines = log.read_bytes().split(b"\n")
        acknowledged += [int(line) for line in lines[1:-1]]
    assert len(set(acknowledged)) == len(acknowledged)
    return len(acknowledged), Counter("mydomain", "hot", store=url).value


def kill_while_adding_with_keys(url: str, folder: Path, kills: int) -> tuple[int, int]:
    """The same with keys, repeated by the next process: (changes asked for, value at the end)."""
    first = 1
    for number in range(kills):
        log = folder / f"keys{number}"
        worker = run_worker("add_keys_and_log", url, str(log), str(first))
        wait_for_lines(log, 2 + number % 20)
        worker.kill()
        worker.wait()
        # The last change may have been applied, or not: the next process repeats it.
        first = int(log.read_bytes().split()[-1])
    c = Counter("mydomain", "hot", store=url)
    c.add(1, key=f"key{first}")
    return first, c.refresh()


KILLS = int(os.environ.get("TRUECOUNT_KILLS", "60"))  # `make soak` asks for more


def record(note: Callable[[str, object], None], known: int, value: int) -> None:
    """Note the figures that `make soak` reports."""
    note("kills", KILLS)
    note("known", f"{known:,}")
    note("value", f"{value:,}")


def test_killed_while_adding(
    url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every acknowledged add is in the counter; at most one a kill is there unacknowledged."""
    acknowledged, value = kill_while_adding(url, tmp_path, KILLS)
    record(record_property, acknowledged, value)
    assert acknowledged <= value <= acknowledged + KILLS


def test_killed_while_adding_with_keys(
    url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """With keys, repeated by the next process, the count is exact."""
    asked, value = kill_while_adding_with_keys(url, tmp_path, KILLS)
    record(record_property, asked, value)
    assert value == asked


# Row 11: forks, pickles, copies


def in_fork(work: Callable[[], object]) -> int:
    """Do ``work`` in a forked child; its exit status, 0 when it did not raise."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_is_another_writer(url: str) -> None:
    """Parent and child go on with the same object, and lose nothing."""
    c = Counter("mydomain", "hot", store=url)
    c.add(1)
    name = c._line.name

    def child() -> None:
        for _ in range(20):
            c.add(1)
        assert c._line.name != name

    children = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    for _ in range(20):
        c.add(1)
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert c.refresh() == 101
    assert c._line.name == name


def test_a_fork_adds_to_many_as_another_writer(url: str) -> None:
    """The child does not stand in the lines that its parent's domain has kept."""
    d = Domain("mydomain", store=url)
    amounts = {"a": 1, "b": 2}
    d.add(amounts)
    name = d._kept["a"].name

    def child() -> None:
        d.add(amounts)
        assert d._kept["a"].name != name

    assert in_fork(child) == 0
    d.add(amounts)
    assert d.snapshot() == {"a": 3, "b": 6}
    assert d._kept["a"].name == name


def test_a_fork_inside_update(url: str) -> None:
    """A function that forks has both processes make their update, one after the other."""
    c = Counter("mydomain", "hot", store=url)
    children: list[int] = []

    def fork_and_add(value: int) -> int:
        if not children:
            children.append(os.fork())
        return value + 1

    receipt = c.update(fork_and_add)
    if not children[0]:
        os._exit(0 if receipt else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert c.refresh() == 2


def test_a_change_inside_update(url: str) -> None:
    """A function that changes the very counter does not deadlock: the update runs again."""
    c = Counter("mydomain", "hot", store=url)
    calls = []

    def meddle(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            c.add(10)
        return value + 1

    assert c.update(meddle) == 11
    assert calls == [0, 10]


def test_a_fork_while_threads_add(url: str) -> None:
    """Children forked in the middle of other threads' changes work, whatever locks were held."""
    c = Counter("mydomain", "hot", store=url)
    done = threading.Event()
    counts: list[int] = []

    def work() -> None:
        count = 0
        while not done.is_set():
            c.add(1)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        children = 12
        for _ in range(children):
            assert in_fork(lambda: c.add(1)) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert c.refresh() == sum(counts) + children


def test_a_fork_while_threads_end(url: str) -> None:
    """Children forked while other threads end, and close their connections, work."""
    c = Counter("mydomain", "hot", store=url)
    children = 60
    for _ in range(children):
        threads = [threading.Thread(target=lambda: c.add(1)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert in_fork(lambda: c.add(1, timeout=5)) == 0
        for thread in threads:
            thread.join()
    assert c.refresh() == 5 * children


def test_a_fork_in_a_signal_handler(url: str) -> None:
    """A child forked in the middle of its parent's call is told; the parent's call counts once."""
    c = Counter("mydomain", "hot", store=url)
    lossy = FaultyStore(c.store)
    counter = Counter("mydomain", "hot", store=lossy)
    children: list[int] = []
    original = lossy.store.settle

    def settle_and_fork(*arguments: Any, **options: Any) -> Any:
        answer = original(*arguments, **options)
        if not children:
            children.append(os.fork())
        return answer

    lossy.store.settle = settle_and_fork  # type: ignore[method-assign]
    lossy.lose_replies(1)
    try:
        receipt = counter.add(5)
    except Exception as error:
        os._exit(7 if "forked in the middle" in str(error) else 8)
    if not children[0]:
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
    assert receipt.after == 5
    assert c.refresh() == 5


def test_spawned_processes_get_counters_as_arguments(url: str) -> None:
    """A counter pickles with its address and its view, and works on the other side."""
    c = Counter("mydomain", "hot", 5, store=url)
    assert in_processes([(workers.use_pickled, (c,))]) == [(5, 6, "hot")]
    assert c == 5
    assert c.refresh() == 6


def test_unpickling_asks_for_nothing(url: str, tmp_path: Path) -> None:
    """Unpickling makes no request and creates nothing; the first change finds out."""
    c = Counter("mydomain", "hot", 5, minimum=0, store=url)
    c.add(2)
    dump = pickle.dumps(c)
    c.store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    twin = pickle.loads(dump)
    assert (twin.value, twin.minimum, twin.revision) == (7, 0, c.revision)
    assert twin.timestamp == c.timestamp
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CounterNotFoundError):
        twin.add(1)


def test_memory_does_not_travel(url: str) -> None:
    """A counter in memory says in another process that it lives elsewhere, forked or spawned."""
    c = Counter("mydomain", "hot", store="memory://travel")
    (answer,) = in_processes([(workers.report, (c,))])
    assert answer.startswith("StoreError: memory://travel lives in the process that opened it")

    def child() -> None:
        assert workers.report(c) == answer

    assert in_fork(child) == 0
    assert pickle.loads(pickle.dumps(c)).add(1) == 1
    assert copy.copy(c).store is c.store


@pytest.mark.parametrize(
    "copies", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_is_another_handle(url: str, copies: Callable[[Counter], Counter]) -> None:
    """A copy shows the same view, asks for nothing, and moves by itself."""
    c = Counter("mydomain", "hot", 5, store=url)
    twin = copies(c)
    assert twin is not c
    assert (twin.value, twin.revision, twin.store) == (5, c.revision, c.store)
    c.add(1)
    assert (c, twin) == (6, 5)
    with pytest.raises(ValueError, match="out of sync"):
        twin += 1
    twin += 1
    assert (twin, c.refresh()) == (7, 7)


def test_domains_and_stores_pickle(url: str) -> None:
    """A domain and a store come back as the same ones."""
    domain = Domain("mydomain", store=url)
    assert pickle.loads(pickle.dumps(domain)) == domain
    assert pickle.loads(pickle.dumps(domain.store)) is domain.store
    assert copy.deepcopy(domain) == domain


def test_a_password_is_not_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose URL holds a password pickles only for a child that multiprocessing starts."""
    info = tmp_path / "guarded-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guarded\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[truecount.stores]\nguardeds = guardeds:Guarded\n")
    (tmp_path / "guardeds.py").write_text(
        "from truecount.stores.memory import MemoryStore\nclass Guarded(MemoryStore):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    c = Counter("mydomain", "hot", store="guardeds://me:s3cret@host/")
    with pytest.raises(InvalidTypeError, match="has a password in its URL") as caught:
        pickle.dumps(c)
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, TypeError)
    context = multiprocessing.context
    monkeypatch.setattr(context, "get_spawning_popen", lambda: object())
    assert pickle.loads(pickle.dumps(c)).store is c.store


def test_an_unknown_outcome_is_settled_by_another_process(url: str) -> None:
    """The error travels, and exactly one application comes of however many retries."""
    store = connect(url)
    lossy = FaultyStore(store)
    c = Counter("mydomain", "hot", store=lossy)
    for applied in (True, False):
        before = c.refresh()
        (lossy.lose_replies if applied else lossy.lose_requests)(1)
        lossy.go_down()
        with pytest.raises(OutcomeUnknownError) as caught:
            c.add(5, timeout=0.1)
        lossy.mend()
        error = caught.value
        error.unsettled = error.unsettled._replace(store=store)  # type: ignore[attr-defined]
        with SPAWN.Pool(4) as pool:
            receipts = pool.map(workers.settle, [pickle.dumps(error)] * 4)
        assert receipts == [(before, before + 5)] * 4
        assert c.refresh() == before + 5


def test_a_process_has_a_name_of_its_own() -> None:
    """Names are new in every process, and never those of a parent."""
    birth = here().birth

    def child() -> None:
        assert here().birth != birth

    assert in_fork(child) == 0
    assert here().birth == birth
