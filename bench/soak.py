"""``python -m bench.soak``: longer proof than tests have time for, to ``docs/evidence.md``."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from rich.console import Console
from rich.progress import Progress
from tools.installed import dynalite

from bench.page import DOCS, Section, report, table, write
from truecount.testing.simulation import explore
from truecount.testing.soak.controls import CONTROLS, SIMULATED, Conviction, convict, simulate
from truecount.testing.soak.findings import Findings
from truecount.testing.soak.run import NotInstalledError
from truecount.testing.soak.series import described, interrupted, series
from truecount.testing.soak.sites import SITES, DynaliteSite

CALLS: Final = 101_000_000  # more than ten million replies are lost in these
KILLS: Final = 300
PAUSE: Final = 10.0
MINUTES: Final = 10.0


class _Dynalite(DynaliteSite):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, dynalite)


SITES["dynalite"] = _Dynalite

PREFACE = """# Evidence

Every figure here was written by the command under it. The tests do the same on
a smaller scale at every change; [promises.md](promises.md) says what is proved.

In a **soak**, processes of two threads do all that a counter can do, to eight
counters of one store, while every kind of fault befalls requests, clients,
servers and clocks. Every call and every return is recorded, and at the end
the checker holds them against each other ([histories.md](histories.md)).
"""


def main() -> int:
    """Run what the command line asks for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help="simulated calls, about")
    parser.add_argument("--first", type=int, default=1_000_000, help="the first seed")
    parser.add_argument("--kills", type=int, default=KILLS, help="processes killed, a test")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds between two leaders")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of soak, a store")
    parser.add_argument("--jobs", type=int, default=1, help="stores soaked at once")
    parser.add_argument("--store", choices=SITES, help="soak this one, no more")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--no-controls", action="store_true", help="convict nobody")
    options = parser.parse_args()
    try:
        return _run(options)
    except KeyboardInterrupt:
        return interrupted()


def _run(options: argparse.Namespace) -> int:
    sections: list[Section] = []
    failed: list[str] = []

    def found(section: Section) -> None:
        """Write it down at once: what comes after it may take hours, and be interrupted."""
        sections.append(section)
        write(DOCS / "evidence.md", PREFACE, [section], "make soak")

    if options.minutes:
        names = [options.store] if options.store else list(SITES)
        for findings, wrong in series(names, options.minutes * 60, options.seed, options.jobs):
            if findings is None:
                failed += wrong
            else:
                sys.stderr.write(described(findings))
                found(_soaked(findings, wrong))
    if not options.store:
        if not options.no_controls:
            found(_controls(options.seed))
        if options.kills:
            found(_kill(options.kills))
        if options.pause:
            found(_leaders(options.pause))
        if options.calls:
            found(_simulate(options.first, options.calls))
    for what in failed:
        sys.stderr.write(f"MISSED: {what}\n")
    return report(sections) or bool(failed)


def _soaked(findings: Findings, wrong: list[str]) -> Section:
    """What befell a store, and what was found."""
    counted = findings.counted
    rows = [
        ("operations", f"{findings.operations:,}"),
        ("concluded: done, or refused for a reason", f"{findings.concluded:,}"),
        ("outcome unknown to the caller", f"{counted.unknown:,} ({findings.unknown:.2%})"),
        ("caller killed as it waited", f"{counted.cut:,}"),
        *((kind.replace("_", " "), f"{count:,}") for kind, count in findings.faults.items()),
        ("gaps that cannot be judged", f"{findings.verdict.undecided:,}"),
        ("contradictions", f"{len(findings.verdict.contradictions):,}"),
    ]
    text = f"{findings.seconds / 60:.0f} minutes, seed {findings.seed}.\n\n" + table(["", ""], rows)
    spared: dict[str, list[str]] = {}
    for kind, why in findings.spared.items():
        spared.setdefault(why, []).append(kind.replace("_", " "))
    if spared:
        kinds = "; ".join(f"{', '.join(kinds)} ({why})" for why, kinds in spared.items())
        text += f"\n\nDoes not befall it: {kinds}."
    return Section(f"Soak: {findings.site}", text + _not_passed(wrong), wrong)


def _not_passed(wrong: list[str]) -> str:
    """What a section says at its end, if anything is ``wrong``."""
    return f"\n\n**Not passed**: {'; '.join(wrong)}." if wrong else ""


def _controls(seed: int) -> Section:
    """Convict those who must be."""
    rows: list[tuple[str, str, str]] = []
    failed = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("negative controls", total=len(CONTROLS) + len(SIMULATED))

        def convicted(name: str, conviction: Conviction) -> None:
            progress.update(task, advance=1)
            rows.append((name, f"{conviction.seconds:.1f}", conviction.by))
            if conviction.of is None:
                failed.append(f"a control goes free: {name}")

        for name, control in CONTROLS.items():
            try:
                convicted(name, convict(control, seed=seed))
            except NotInstalledError as error:
                progress.update(task, advance=1)
                failed.append(f"{name}: {error}")
        for remedy in SIMULATED:
            convicted(f"without {remedy}", simulate(remedy))
    text = (
        "Clients that must be found out, by the same harness and the same checker: some that are "
        "not ours, and ours without one of the rules of [promises.md](promises.md). What takes a "
        "world that no real store makes within seconds (a backup played back, a purge, a request "
        "answered twice, a rare order of four requests), or is no untruth but an outcome that "
        "stays unknown, is left to the simulation.\n\n"
        + table(["client", "seconds until convicted", "by"], rows)
    )
    return Section("Negative controls", text + _not_passed(failed), failed)


def _simulate(first: int, calls: int) -> Section:
    """Simulate worlds that the tests have never seen."""
    seeds = range(first, first + calls // 40)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("simulation", total=len(seeds))
        findings = explore(seeds, progress=lambda done: progress.update(task, completed=done))
    rows = [
        ("worlds", f"{findings.worlds:,} (seeds {seeds.start:,} to {seeds.stop - 1:,})"),
        ("worlds in contradiction", f"{len(findings.violations):,}"),
        *((what, f"{count:,}") for what, count in findings.tally.most_common()),
        ("calls a second", f"{findings.rate:,.0f}"),
    ]
    text = (
        "Worlds of several processes on one counter, in which requests are lost, late, repeated "
        "and misdirected, processes killed and forked, clocks wrong, counters deleted and made "
        "anew; the very plans that run in production, against a truth kept beside them.\n\n"
        + table(["", ""], rows)
    )
    failures = [
        f"{what}; replay: python -m truecount.testing.simulation {seed}"
        for seed, what in findings.violations[:5]
    ]
    return Section("Simulation", text, failures)


def _kill(kills: int) -> Section:
    """Run the tests that kill processes, with more of them."""
    code, rows = _measured("tests/test_processes.py", "killed", TRUECOUNT_KILLS=kills)
    text = (
        "A process adds in a loop and is killed with `kill -9`, again and again, on one SQLite "
        "file. Without keys the value may be above the acknowledged adds by the one in flight "
        "at each kill. With keys, the next process repeats the last key, and the value is that "
        "of the keys asked for.\n\n" + table(["", "kills", "adds known", "value"], rows)
    )
    return Section("Killed processes", text, ["the kills left a wrong value"] if code else [])


def _leaders(pause: float) -> Section:
    """Run the test that kills the leaders of a cluster, with longer pauses."""
    code, rows = _measured("tests/test_networked.py", "leaders_killed", TRUECOUNT_PAUSE=pause)
    text = (
        f"Three members of etcd on one machine, 4 processes that add; every {pause:g} s the member "
        "that leads is killed with `kill -9`, and started again 2 s later, ten times. No call "
        "ended in an error, no number was handed out twice, and none is missing.\n\n"
        + table(["", "adds", "longest call"], rows)
    )
    return Section("Killed leaders", text, ["a cluster counted wrong"] if code else [])


def _measured(path: str, name: str, **environment: object) -> tuple[int, list[tuple[str, ...]]]:
    """Run tests: pytest's exit status, and a row of what each has recorded."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        arguments = [
            *("-q", "-k", name, "--timeout=3600"),
            *("-ojunit_family=xunit1", f"--junitxml={results}"),
        ]
        code = subprocess.run(
            [sys.executable, "-m", "pytest", path, *arguments],
            check=False,
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        ).returncode
        cases = ElementTree.parse(results).iter("testcase")  # noqa: S314  # written by pytest
        rows = [
            (
                case.get("name", "").removeprefix("test_").replace("_", " "),
                *(p.get("value") or "" for p in case.iter("property")),
            )
            for case in cases
        ]
    return code, rows


if __name__ == "__main__":
    sys.exit(main())
