"""Several stores, with a line each that shows how far it is."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from truecount.testing.soak.findings import UNKNOWN, Findings
from truecount.testing.soak.run import NotInstalledError, Pace, Plan, State, soak
from truecount.testing.soak.sites import SITES

__all__ = ["described", "interrupted", "series", "soaked"]

LEAST_RATE: Final = 5
"""Operations a second that must be concluded at least, on the slowest of stores."""

LOOK: Final = 0.2
"""Seconds from one look at how far they are to the next."""


def series(
    names: Iterable[str], seconds: float, seed: int, jobs: int = 1
) -> Iterator[tuple[Findings | None, list[str]]]:
    """Soak each of the stores ``names`` for so many ``seconds``, ``jobs`` of them at once.

    Yields what was found (None: there is no such server here, or the soak broke
    off) and, in words, why that is not enough: nothing, when the soak is passed.
    The history of a soak that is not passed is kept, others are removed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    context = multiprocessing.get_context("spawn")
    states: SimpleQueue[tuple[str, State]] = context.SimpleQueue()
    pool = ProcessPoolExecutor(jobs, context, _watched, (states,))
    with pool, Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {
            name: progress.add_task(f"soaking {name}", total=seconds, shown="") for name in names
        }
        soaks: set[Future[Findings | str]] = {
            pool.submit(soaked, name, seconds, seed) for name in tasks
        }
        try:
            while soaks:
                done, soaks = wait(soaks, LOOK, FIRST_COMPLETED)
                while not states.empty():
                    name, state = states.get()
                    shown = f"{state.operations:,} operations, {state.faults:,} faults"
                    progress.update(tasks[name], completed=state.seconds, shown=shown)
                for each in done:
                    findings = each.result()
                    if isinstance(findings, str):
                        yield None, [findings]
                    else:
                        progress.update(tasks[findings.site], completed=seconds)
                        yield findings, _failures(findings)
        except BaseException:  # whatever it is, Ctrl-C too: those that wait do not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_states: SimpleQueue[tuple[str, State]] | None = None


def _watched(states: SimpleQueue[tuple[str, State]]) -> None:
    """Have the soaks of this process tell there how far they are."""
    global _states
    _states = states


def soaked(name: str, seconds: float, seed: int) -> Findings | str:
    """Soak the store ``name``: what was found, or in words why nothing was."""

    def watch(state: State) -> None:
        if _states is not None:
            _states.put((name, state))

    make = SITES[name]
    pace = Pace()
    pace = pace._replace(pause=pace.pause * getattr(make, "slowness", 1.0))
    plan = Plan(seconds, seed, pace)
    folder = Path(tempfile.mkdtemp(prefix=f"truecount-soak-{name}-"))
    kept = False
    try:
        findings = soak(make, name, folder, plan, watch)
        kept = bool(_failures(findings))
        return findings
    except NotInstalledError as error:
        return f"{name}: {error}"
    except Exception as error:  # whatever it is: what was recorded until then may tell why
        kept = True
        (folder / "failure").write_text(traceback.format_exc(), encoding="utf-8")
        return f"{name}: {error}; what was recorded is in {folder}"
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _failures(findings: Findings) -> list[str]:
    minutes = int(findings.seconds / 60)
    found = findings.shortfalls(
        int(findings.seconds * LEAST_RATE), max(1, minutes), calls=minutes, unknown=UNKNOWN
    )
    if findings.verdict.undecided:
        found.append(f"{findings.verdict.undecided} gaps that nobody can judge")
    if findings.verdict.contradictions:
        found.append(
            f"a contradiction, with seed {findings.seed}: truecount check {findings.history}"
        )
    return [f"{findings.site}: {what}" for what in found]


def described(findings: Findings) -> str:
    """What was found, for people to read."""
    counted = findings.counted
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in counted.concluded.most_common())
    faults = ", ".join(f"{count:,} {kind}" for kind, count in findings.faults.items())
    spared = "".join(f"\n  no {kind}: {why}" for kind, why in findings.spared.items())
    return (
        f"{findings.site}, {findings.seconds:.0f} s, seed {findings.seed}: {findings.verdict}\n"
        f"  {findings.operations:,} operations, {findings.concluded:,} concluded: {by_kind}\n"
        f"  {counted.unknown:,} unknown to who asked ({findings.unknown:.2%}), {counted.open:,} "
        f"of them for ever; {counted.cut:,} killed as they waited\n"
        f"  faults: {faults}{spared}\n"
    )


def interrupted() -> int:
    """What Ctrl-C ends in: the exit status."""
    sys.stderr.write("interrupted; all that was started has been ended\n")
    return 130
