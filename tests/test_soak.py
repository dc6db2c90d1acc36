"""A short soak of every store: the long ones are ``make soak``'s, into docs/evidence.md."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import bench.soak
import pytest
from tools.installed import dynalite

from helpers import missing, there
from truecount import Domain, StoreFullError, connect
from truecount.testing.faulty import FaultyStore
from truecount.testing.history import RecordedCounter, Recorder
from truecount.testing.soak.client import Orders, clock
from truecount.testing.soak.controls import Control
from truecount.testing.soak.crew import Crew, faketime
from truecount.testing.soak.findings import Findings, counted, judged
from truecount.testing.soak.load import DOMAIN, LOADS
from truecount.testing.soak.run import Pace, Plan, soak
from truecount.testing.soak.series import described, soaked
from truecount.testing.soak.sites import SITES, DynaliteSite, Site, SQLiteSite


def on_dynalite(folder: Path) -> Site:
    """DynamoDB without transactions, which keeps its data."""
    return DynaliteSite(folder, dynalite)


STORES: dict[str, Callable[[Path], Site]] = {**SITES, "dynalite": on_dynalite}

ROUND = Plan(seconds=4, seed=4711, pace=Pace(0.33, 1, 1, 1), clients=2)
"""Every kind of fault, once at least."""


@pytest.mark.parametrize("name", STORES)
def test_a_short_soak(tmp_path: Path, name: str) -> None:
    """All that a counter can do, by processes that all faults befall: nobody is told an untruth."""
    if faketime() is None:
        missing("libfaketime")
    findings = there(lambda: soak(STORES[name], name, tmp_path, ROUND))
    assert not findings.verdict.contradictions, described(findings)
    assert not findings.verdict.undecided, described(findings)
    assert not findings.shortfalls(operations=50, each=1), described(findings)
    kinds = {*LOADS[ROUND.load].kinds(keys=True), "open", "retry", "cancel"}
    assert findings.counted.operations.keys() <= kinds


CALLS: dict[str, Callable[[RecordedCounter], object]] = {
    "add": lambda c: c.add(5),
    "keyed add": lambda c: c.add(7, key="k"),
    "add to many": lambda c: c.recorder.add(
        Domain(DOMAIN, store=c.counter.store), {c.counter.name: 9}
    ),
    "compare_and_set": lambda c: c.compare_and_set(-1, 0),
    "delete": lambda c: c.delete(),
}


def lacking(folder: Path, *, refused: str = "") -> list[str]:
    """What ten calls of each of these kinds, one of which is ``refused``, have too little of."""
    recorder = Recorder(folder / "history")
    with FaultyStore(connect(f"sqlite:///{folder}/counters.db")) as store:
        for number in range(10):
            c = recorder.open(DOMAIN, f"c{number}", store=store)
            for kind, call in CALLS.items():
                if kind == refused:
                    store.refuse(StoreFullError("full"))
                with contextlib.suppress(StoreFullError):
                    call(c)
    found = counted(recorder.folder, [*CALLS, "limit"])
    verdict = judged(recorder.folder)
    assert not verdict.contradictions, verdict
    assert not verdict.undecided, verdict
    findings = Findings("here", 1, 1.0, folder, found, {}, {}, verdict)
    return findings.shortfalls(operations=50, each=0, calls=1)


def test_what_is_done_is_counted(tmp_path: Path) -> None:
    """Calls that were done, or refused for a reason, are enough; what nobody asked for is not."""
    assert lacking(tmp_path) == ["only 0 of 1 calls concluded: limit"]


@pytest.mark.parametrize("kind", CALLS)
def test_what_is_always_refused_is_not_done(tmp_path: Path, kind: str) -> None:
    """A store that refuses one kind of call always, without a reason, does not pass."""
    assert lacking(tmp_path, refused=kind) == [
        f"only 0 of 10 calls concluded: {kind}",
        "only 0 of 1 calls concluded: limit",
    ]


def test_a_clock_that_is_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks count as wrong when clients see that they are, and not when they should be."""
    (tmp_path / "libfaketime.so").touch()  # no library, which the linker says and passes over
    monkeypatch.setattr("truecount.testing.soak.crew.LIBRARIES", [f"{tmp_path}/libfaketime.so"])
    findings = soak(SITES["sqlite"], "sqlite", tmp_path, ROUND._replace(seconds=1))
    assert findings.faults["client killed"] >= 1
    assert findings.faults["clock wrong"] == 0


def test_who_is_killed_has_begun(tmp_path: Path) -> None:
    """Clients are killed at their work, and not before it."""
    orders = Orders(f"sqlite:///{tmp_path}/c.db", str(tmp_path), "7", clock(), forks=0.0)
    with Crew(orders, 1, 0.0, Random(7)) as crew:
        crew.start()
        for _ in range(3):
            crew.kill()
    assert crew.tally["client killed"] == 3
    assert len(list((tmp_path / "history").iterdir())) >= 3


class Falling(SQLiteSite):
    """Once clients are at work, a file is not there that should be."""

    def look_after(self) -> None:
        raise FileNotFoundError("no such file: log")


def test_a_soak_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a soak too early is its failure, and what was recorded until then is kept."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(SITES, "falling", Falling)
    told = soaked("falling", 1, 7)
    (folder,) = tmp_path.glob("truecount-soak-falling-*")
    assert told == f"falling: no such file: log; what was recorded is in {folder}"
    assert list((folder / "history").glob("*.jsonl"))
    assert "in look_after" in (folder / "failure").read_text(encoding="utf-8")


def missing_server(folder: Path) -> Site:
    """What is made where a server is not installed."""
    raise FileNotFoundError("there is no rubberd")


def test_a_server_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server is not installed, that is said, and nothing is left behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(SITES, "missing", missing_server)
    assert soaked("missing", 1, 7) == "missing: there is no rubberd"
    assert not list(tmp_path.iterdir())


def evidence(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of ``make soak``, with no simulation, that writes into ``folder``."""
    monkeypatch.setattr("bench.soak.DOCS", folder)
    without = ["--calls", "0", "--kills", "0", "--pause", "0"]
    monkeypatch.setattr(sys, "argv", ["bench.soak", *without, *arguments])
    return bench.soak.main()


def test_evidence_is_written_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found of one store is on the page when the soak of the next is interrupted."""
    found = soak(SITES["sqlite"], "sqlite", tmp_path, ROUND._replace(seconds=1))

    def series(*_: object) -> Iterator[tuple[Findings, list[str]]]:
        yield found, []
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.soak.series", series)
    assert evidence(tmp_path, monkeypatch) == 130
    assert "## Soak: sqlite" in (tmp_path / "evidence.md").read_text(encoding="utf-8")


def test_a_control_whose_server_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where a server is not installed, its controls go free, which is said and is a failure."""
    monkeypatch.setitem(SITES, "missing", missing_server)
    monkeypatch.setattr("bench.soak.CONTROLS", {"rubber, INCR": Control("missing")})
    monkeypatch.setattr("bench.soak.SIMULATED", ())
    assert evidence(tmp_path, monkeypatch, "--minutes", "0") == 1
    assert "MISSED: rubber, INCR: there is no rubberd" in capfd.readouterr().err
