"""Many processes on one counter in SimpleDB: exact, distinct, created once, never resurrected."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.installed import boto2

import workers
from helpers import SPAWN, in_processes, there
from simpledb_server import serving
from truecount import Counter, CounterNotFoundError
from truecount.testing.servers import SimpleDBLocal

HERE = Path(__file__).parent


@pytest.fixture
def server() -> Iterator[SimpleDBLocal]:
    with serving() as server:
        yield server


@pytest.fixture
def url(server: SimpleDBLocal) -> str:
    return f"{server.store}?timeout=60"


def test_thirty_two_creations(url: str) -> None:
    """32 creations at once in 8 processes, all with other values: one counts, all see it."""
    start = time.time() + 4
    work = [(workers.construct_often, (url, range(n, n + 4), start)) for n in range(0, 32, 4)]
    seen = sum(in_processes(work), [])
    assert len(seen) == 32
    assert len(set(seen)) == 1


def test_deletion_under_writers(url: str) -> None:
    """While 4 processes add, the counter is deleted and made anew: nothing old comes back."""
    c = Counter("mydomain", "hot", store=url)
    began = c.revision

    def live_and_die() -> int:
        nonlocal c
        for _ in range(6):
            time.sleep(0.3)
            c.delete()
            for _ in range(5):
                with pytest.raises(CounterNotFoundError):
                    c.refresh()
                time.sleep(0.01)
            c = Counter("mydomain", "hot", 1000, store=url)
        return c.revision

    with SPAWN.Pool(4) as pool:
        done = [pool.apply_async(workers.add_while_it_lives, (url, 150)) for _ in range(4)]
        created = live_and_die()
        receipts = sum([result.get(timeout=240) for result in done], [])
    assert len(receipts) == 600
    later = [after for revision, after in receipts if revision > created]
    assert c.refresh() == 1000 + len(later)
    assert sorted(later) == list(range(1001, 1001 + len(later)))
    assert all(revision > began for revision, _ in receipts)


def test_a_mixed_fleet(server: SimpleDBLocal) -> None:
    """Sequences of boto and counters with ``interop=boto``, 2 and 2 processes, 100 times: 400."""
    url = f"{server.store}?timeout=60&interop=boto"
    Counter("mydomain", "hot", 1000, store=url)  # at 0, a Sequence begins by a put of its own
    command = [there(boto2), HERE / "boto_sequence.py", server.port, "mydomain", "hot", 100]
    sequences = [subprocess.Popen([str(part) for part in command]) for _ in range(2)]
    numbers = sum(in_processes([(workers.step_often, (url, 100))] * 2), [])
    assert [sequence.wait(120) for sequence in sequences] == [0, 0]
    assert len(set(numbers)) == 200
    assert Counter("mydomain", "hot", store=url) == 1400
