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
import os
from collections.abc import Iterable
from typing import Final

from truecount.testing.checker.judge import judge
from truecount.testing.checker.life import Contradiction, Life
from truecount.testing.checker.reading import History, NotAHistoryError, lines_of

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

    def __init__(self, history: History) -> None:
        found = [each for life in history.lives.values() for each in life.contradictions]
        self.contradictions: tuple[Contradiction, ...] = tuple(
            sorted(found, key=lambda each: each.at)
        )
        self.counts = dict(sorted(history.tally.items()))
        self.processes = len(history.files)
        self.counters = len(history.lives)
        self.calls = sum(history.tally[op] for op in OPERATIONS)
        self.undecided = sum(life.undecided for life in history.lives.values())
        self.lines: list[str] = []
        if self.contradictions:
            self.lines = _lines(history, self.contradictions[0])

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


OPERATIONS: Final = (
    *("open", "add", "set", "update", "compare_and_set", "assign", "reserve", "refresh"),
    *("receipt", "limit", "delete", "retry", "cancel"),
)


def check(paths: Iterable[str | os.PathLike[str]]) -> Verdict:
    """Judge the history in ``paths``, files or folders of them, written by `Recorder`.

    All who wrote to the counters must have recorded it. Raises
    `NotAHistoryError` when there is none, or not a whole one.
    """
    # Nothing here is garbage before the end, and to look for it takes half the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        history = History(paths)
        for life in history.lives.values():
            judge(life)
        return Verdict(history)
    finally:
        if collects:
            gc.enable()


def _lines(history: History, first: Contradiction) -> list[str]:
    """The lines of the calls that contradict each other, and of their neighbours."""
    life: Life = history.lives[first.domain, first.name]
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
    found = lines_of(history.files, near)
    return [line for call in sorted(found) for line in found[call]]


def _count(number: int, what: str) -> str:
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number:,} {what if number == 1 else plural}"
