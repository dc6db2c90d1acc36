"""The checker: whether what callers were told can have been, from their histories.

>>> import tempfile
>>> from truecount.testing.history import Recorder
>>> folder = tempfile.mkdtemp()
>>> c = Recorder(folder).open('mydomain', 'checked', store='memory://')
>>> c.add(5).after
5
>>> verdict = check([folder])
>>> verdict.contradictions
()
>>> print(verdict)
no contradiction in 2 calls of 1 counter by 1 process
1 add, 1 open
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter as Tally
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from truecount.testing.checker.judge import judge
from truecount.testing.checker.life import Contradiction, Life
from truecount.testing.checker.lines import OPERATIONS
from truecount.testing.checker.reading import History, NotAHistoryError, files_of, lines_of

__all__ = ["Contradiction", "NotAHistoryError", "Verdict", "check"]

NEIGHBOURS: Final = 2
"""How many changes before and after a contradiction are shown with it."""


class Verdict:
    """What a checker found.

    ``contradictions`` are in the order in which they happened; ``counts`` says
    how many calls there were of each kind, errors, unknown outcomes and so on.
    ``undecided`` is how many gaps in a counter's chain could not be judged,
    since too many changes of unknown outcome may have been in them.
    """

    def __init__(self, files: list[Path], parts: list[_Part]) -> None:
        found = [each for part in parts for each in part.contradictions]
        self.contradictions: tuple[Contradiction, ...] = tuple(
            sorted(found, key=lambda each: each.at)
        )
        tally: Tally[str] = sum((part.tally for part in parts), Tally())
        self.counts = dict(sorted(tally.items()))
        self.processes = len(files)
        self.counters = sum(part.counters for part in parts)
        self.calls = sum(tally[op] for op in OPERATIONS)
        self.undecided = sum(part.undecided for part in parts)
        self.lines: list[str] = []
        if found:
            first = self.contradictions[0]
            (near,) = (part.near for part in parts if first in part.contradictions[:1])
            lines = lines_of(files, near)
            self.lines = [line for call in sorted(lines) for line in lines[call]]

    def __str__(self) -> str:
        found = len(self.contradictions)
        head = "no contradiction" if not found else _count(found, "contradiction")
        of = f"{_count(self.calls, 'call')} of {_count(self.counters, 'counter')}"
        text = [
            f"{head} in {of} by {_count(self.processes, 'process')}",
            ", ".join(f"{count:,} {what}" for what, count in self.counts.items()),
        ]
        if self.undecided:
            text.append(f"{_count(self.undecided, 'gap')} with too much unknown to be judged")
        if found:
            first = self.contradictions[0]
            text.append(f"the first, of {first.name!r} in {first.domain!r}: {first.text}")
            text += [f"  {line}" for line in self.lines]
        return "\n".join(text)


def check(paths: Iterable[str | os.PathLike[str]], *, processes: int | None = None) -> Verdict:
    """Judge the history in ``paths``, files or folders of them, written by `Recorder`.

    All who wrote to the counters must have recorded it. ``processes`` is how
    many share the work, by counters; by default one, and for a history that
    is long one a processor. Raises `NotAHistoryError` when there is none, or
    not a whole one.
    """
    files = list(files_of(paths))
    if processes is None:
        long = sum(path.stat().st_size for path in files) > LONG
        processes = (os.cpu_count() or 1) if long else 1
    if processes == 1:
        parts = [_judge(files, 0, 1)]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            futures = [pool.submit(_judge, files, n, processes) for n in range(processes)]
            parts = [future.result() for future in futures]
    if not any(part.counters for part in parts):
        raise NotAHistoryError("there are no calls in it")
    return Verdict(files, parts)


LONG: Final = 64 << 20
"""Of so many bytes, a history is judged by several processes."""


class _Part(NamedTuple):
    """What was found of some counters; ``near`` are calls to be shown with the first."""

    contradictions: list[Contradiction]
    near: set[int]
    tally: Tally[str]
    counters: int
    undecided: int


def _judge(files: list[Path], share: int, of: int) -> _Part:
    # Nothing here is garbage before the end, and to look for it takes half the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        history = History(files, share, of)
        lives = history.lives
        for life in lives.values():
            judge(life)
        found = [each for life in lives.values() for each in life.contradictions]
        found.sort(key=lambda each: each.at)
        near = _near(lives[found[0].domain, found[0].name], found[0]) if found else set()
        undecided = sum(life.undecided for life in lives.values())
        return _Part(found, near, history.tally, len(lives), undecided)
    finally:
        if collects:
            gc.enable()


def _near(life: Life, first: Contradiction) -> set[int]:
    """The calls that contradict each other, and their neighbours."""
    near = set(first.calls)
    if first.revision is not None:
        rows = sorted(
            [row for row in life.rows if abs(row.revision - first.revision) <= 1000],
            key=lambda row: row.revision,
        )
        before = [row.call for row in rows if row.revision < first.revision]
        after = [row.call for row in rows if row.revision > first.revision]
        same = [row.call for row in rows if row.revision == first.revision]
        near |= {*before[-NEIGHBOURS:], *same[:8], *after[:NEIGHBOURS]}
    return near


def _count(number: int, what: str) -> str:
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number:,} {what if number == 1 else plural}"
