"""Exceptions, forks, signals and ends that strike anywhere: nothing is left locked or lost."""

from __future__ import annotations

import copy
import fcntl
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import truecount
import workers
from truecount import Counter, StoreError, StoreTimeoutError, combine, turn


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
