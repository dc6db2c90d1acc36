"""Histories: what is written, and when."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import in_processes
from truecount import (
    BoundsError,
    CounterNotFoundError,
    Domain,
    InvalidTypeError,
    OutcomeUnknownError,
    OutOfSyncError,
    StoreUnavailableError,
    connect,
)
from truecount.testing.checker import check
from truecount.testing.conformance import in_threads
from truecount.testing.faulty import FaultyStore
from truecount.testing.history import FORMAT, HEADER, Recorder


def lines(folder: Path) -> list[dict[str, Any]]:
    """All that was written, file by file, without the times."""
    found = []
    for path in sorted(folder.iterdir()):
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            line.pop("t", None)
            line.pop("view", None)
            found.append(line)
    return found


def test_every_call_is_written(tmp_path: Path) -> None:
    """What was asked for, and what was answered, is in the file, in the words of the format."""
    recorder = Recorder(tmp_path, key_ttl=60)
    c = recorder.open("mydomain", "a", 3, store="memory://history", minimum=0)
    c.add(5, key="k")
    c.subtract(1)
    c += 2
    c -= 1
    c.set(4)
    c.update(lambda value: value * 2)
    assert (c.compare_and_set(1, 2), c.compare_and_set(8, 2)) == (False, True)
    assert c.reserve(3) == range(3, 6)
    c.limit(maximum=None)
    assert (c.refresh(), c.receipt("k").after) == (5, 8)
    with pytest.raises(BoundsError):
        c.subtract(100)
    c.delete()
    with pytest.raises(CounterNotFoundError):
        recorder.open("mydomain", "a", store="memory://history", create=False)
    recorder.note(fault="none")
    written = lines(tmp_path)
    assert (written[0][HEADER], written[0]["key_ttl"]) == (FORMAT, 60)
    asked = [
        {k: v for k, v in line.items() if k not in ("call", "at")}
        for line in written
        if "call" in line
    ]
    assert asked == [
        {"op": "open", "initial": 3, "create": True, "minimum": 0},
        {"op": "add", "n": 5, "key": "k"},
        {"op": "add", "n": -1},
        {"op": "assign", "expected": 7, "new": 9},
        {"op": "assign", "expected": 9, "new": 8},
        {"op": "set", "value": 4},
        {"op": "update"},
        {"op": "compare_and_set", "expected": 1, "new": 2},
        {"op": "compare_and_set", "expected": 8, "new": 2},
        {"op": "reserve", "n": 3},
        {"op": "limit", "maximum": None},
        {"op": "refresh"},
        {"op": "receipt", "key": "k"},
        {"op": "add", "n": -100},
        {"op": "delete"},
        {"op": "open", "initial": 0, "create": False},
    ]
    assert {"try": 7, "expected": 4, "new": 8} in written
    assert {"ret": 8, "done": False} in written
    assert {"ret": 14, "error": "BoundsError", "value": 5, "minimum": 0} in written
    assert {"ret": 16, "error": "CounterNotFoundError"} in written
    assert {"note": {"fault": "none"}} in written


def test_a_view_goes_with_what_was_answered(tmp_path: Path) -> None:
    """A return says what the handle shows then, with its revision, its time and its bounds."""
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "viewed", store="memory://history", maximum=9)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["view"][1] == 0
    c.add(3)
    receipt = c.add(1)
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    revision, value, time, minimum, maximum = last["view"]
    assert (revision, value, minimum, maximum) == (receipt.revision, 4, None, 9)
    assert last["receipt"] == [3, 4, receipt.revision, time, False]


def test_what_is_unknown_is_settled_by_name(tmp_path: Path) -> None:
    """A retry and a cancellation name the call that they settle, from another process too."""
    store = FaultyStore(connect("memory://history-unknown"))
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "a", store=store)
    store.lose_replies(1)
    store.go_down()
    with pytest.raises(OutcomeUnknownError) as caught:
        c.add(7, timeout=0.05)
    store.mend()
    name = recorder.name_of(caught.value)
    elsewhere = Recorder(tmp_path)  # which has not seen the error being raised
    assert elsewhere.cancel(caught.value, pickle.loads(pickle.dumps(name))) is False
    assert recorder.retry(caught.value).after == 7
    written = lines(tmp_path)
    assert {"ret": name.number, "unknown": "OutcomeUnknownError"} in written
    settling = [(line["op"], line["of"]) for line in written if "of" in line]
    of = [name.process, name.number]
    assert sorted(settling) == [("cancel", of), ("retry", of)]


def test_an_error_of_a_stores_own(tmp_path: Path) -> None:
    """An error that truecount does not know is written as the kind that it is of."""

    class Overheated(StoreUnavailableError):
        pass

    with pytest.raises(Overheated), Recorder(tmp_path).call("add", "mydomain", "c", n=1):
        raise Overheated("42 degrees")
    assert lines(tmp_path)[-1]["error"] == "StoreUnavailableError"


def test_many_counters_at_once(tmp_path: Path) -> None:
    """`Domain.add` is a call of each counter, and each has what became of its own."""
    store = FaultyStore(connect("memory://history-many"))
    recorder = Recorder(tmp_path)
    recorder.open("mydomain", "bounded", store=store, maximum=1)
    domain = Domain("mydomain", store=store)
    with pytest.raises(BoundsError):
        recorder.add(domain, {"bounded": 2, "free": 2})
    assert recorder.add(domain, {"free": 3})["free"].before == 2
    returns = {line["ret"]: line for line in lines(tmp_path) if "ret" in line}
    assert returns[2]["error"] == "BoundsError"
    assert (returns[3]["receipt"][:2], returns[4]["receipt"][:2]) == ([0, 2], [2, 5])


def test_an_interruption_is_unknown(tmp_path: Path) -> None:
    """Whatever else is raised says nothing about the change; a definite error does."""
    store = FaultyStore(connect("memory://history-interrupted"))
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "a", store=store)

    def interrupted(value: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        c.update(interrupted)
    store.go_down()
    with pytest.raises(StoreUnavailableError):
        c.add(1, timeout=0)
    returns = [line for line in lines(tmp_path) if "ret" in line]
    assert returns[-2:] == [
        {"ret": 2, "unknown": "KeyboardInterrupt"},
        {"ret": 3, "error": "StoreUnavailableError"},
    ]


def _work(recorder: Recorder, url: str) -> None:
    c = recorder.open("mydomain", "shared", store=url)
    for _ in range(20):
        c.add(1)
        try:
            c += 1
        except OutOfSyncError:
            c.refresh()


def test_every_process_has_a_file(tmp_path: Path) -> None:
    """A recorder pickles: each process writes its own file, and numbers its own calls."""
    recorder = Recorder(tmp_path / "history")
    url = f"sqlite:///{tmp_path}/counters.db"
    in_processes([(_work, (recorder, url))] * 2)
    written = lines(tmp_path / "history")
    headers = [line for line in written if HEADER in line]
    assert len({line["process"] for line in headers}) == len(headers) == 2
    assert sum("call" in line for line in written) == sum("ret" in line for line in written) > 80


def test_it_reads_as_the_counter_does(tmp_path: Path) -> None:
    """A recorded counter reads as an int, also as 0; it has no operators but recorded ones."""
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "read", store="memory://")
    assert (c == 0, bool(c), int(c), f"{c}") == (True, False, 0, "0")
    c += 7
    assert (c > 6, c + 1, c.counter.name) == (True, 8, "read")
    with pytest.raises(TypeError, match=r"\*= is not recorded"):
        c *= 2
    with pytest.raises(TypeError, match="a Counter can be recorded"):
        recorder.counter(c)  # type: ignore[arg-type]


def test_what_is_no_integer_is_refused(tmp_path: Path) -> None:
    """What `Counter` refuses is refused, and not made an integer before; nothing is recorded."""
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "whole", store="memory://")
    written = len(lines(tmp_path))
    with pytest.raises(InvalidTypeError):
        c += 1.5  # type: ignore[operator]
    calls: list[Callable[[Any], Any]] = [c.add, c.subtract, c.set, c.reserve]
    calls += [lambda n: c.compare_and_set(0, n), lambda n: c.limit(maximum=n)]
    for call in calls:
        for wrong in ("5", 1.5):
            with pytest.raises(InvalidTypeError):
                call(wrong)
    assert len(lines(tmp_path)) == written
    with pytest.raises(InvalidTypeError):
        c.update(lambda value: "7")  # type: ignore[arg-type,return-value]
    assert c.refresh() == 0
    assert not check([tmp_path]).contradictions


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """Names and keys that are no text are refused, and the history can be judged afterwards."""
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "text", store="memory://", create=1)
    wrong: Any
    for wrong in (5, None):
        with pytest.raises(InvalidTypeError):
            recorder.open("mydomain", wrong, store="memory://")
        with pytest.raises(InvalidTypeError):
            recorder.open(wrong, "text", store="memory://")
        with pytest.raises(InvalidTypeError):
            c.receipt(wrong)
        with pytest.raises(InvalidTypeError):
            recorder.add(Domain("mydomain", store="memory://"), {wrong: 1})
    wrong = 5
    with pytest.raises(InvalidTypeError):
        c.add(1, key=wrong)
    with pytest.raises(CounterNotFoundError):
        recorder.open("mydomain", "none", store="memory://", create=None)
    assert not check([tmp_path]).contradictions


def test_an_error_that_it_does_not_know(tmp_path: Path) -> None:
    """What another recorder has seen is settled by name only, and it says so."""
    for error in (OutcomeUnknownError("unknown"), ValueError("no error of a counter")):
        with pytest.raises(ValueError, match="give its name"):
            Recorder(tmp_path).retry(error)  # type: ignore[arg-type]


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Threads that record their first calls at once write to one file."""
    for round_ in range(20):
        folder = tmp_path / str(round_)
        recorder = Recorder(folder)
        in_threads(8, lambda number, recorder=recorder: recorder.note(thread=number))
        assert len(list(folder.iterdir())) == 1


def test_what_cannot_be_written_is_not_sent(tmp_path: Path) -> None:
    """Where the history cannot be written, the call raises OSError, and nothing was applied."""
    recorder = Recorder(tmp_path)
    c = recorder.open("mydomain", "unwritten", store="memory://history")
    (path,) = tmp_path.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            c.add(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert c.refresh() == 0
