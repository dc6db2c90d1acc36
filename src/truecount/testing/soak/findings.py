"""What a soak found: how much was done, what was suffered, and the checker's verdict."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from truecount.testing.checker import Verdict, check
from truecount.testing.checker.facts import STORE_ERRORS
from truecount.testing.soak.load import KEYED, MANY

__all__ = ["UNKNOWN", "Calls", "Counted", "Findings", "counted", "judged"]

UNKNOWN: Final = 0.01
"""The share of operations whose outcome may be unknown to their callers."""

CONCLUDED: Final = 0.5
"""The share of the calls of one kind that must be concluded, if there are not too `FEW`."""

FEW: Final = 10
"""Of fewer calls of a kind than so many, no share is taken."""

SETTLING: Final = ("retry", "cancel")
"""Calls that may be few, and come to nothing: a counter deleted meanwhile cannot tell."""

WRONG: Final = 1.0
"""A clock that is off by more seconds is wrong."""


class Counted(NamedTuple):
    """What a history holds, by kind of call and by kind of fault.

    ``operations`` are those that were asked for, ``concluded`` those of them that
    were done, or refused for a reason that the checker judges: an error of the
    store is none. ``unknown`` is how many callers were told that nobody knows,
    ``open`` how many of these outcomes nobody could tell in the end either;
    ``cut`` how many callers were told nothing, since they were killed.
    """

    operations: Tally[str]
    concluded: Tally[str]
    faults: Tally[str]
    unknown: int
    open: int
    cut: int


class Findings(NamedTuple):
    """What a soak of the store ``site`` found.

    ``spared`` are the kinds of faults that do not befall it, with reasons.
    """

    site: str
    seed: int
    seconds: float
    folder: Path
    counted: Counted
    faults: Mapping[str, int]
    spared: Mapping[str, str]
    verdict: Verdict

    @property
    def history(self) -> Path:
        """Where the history is."""
        return self.folder / "history"

    @property
    def operations(self) -> int:
        """How many calls there were."""
        return self.counted.operations.total()

    @property
    def concluded(self) -> int:
        """How many of them were done, or refused for a reason."""
        return self.counted.concluded.total()

    @property
    def unknown(self) -> float:
        """The share of calls whose callers were told that nobody knows.

        Not of those who were killed as they waited: it is the soak that says how many these are.
        """
        return self.counted.unknown / max(self.operations, 1)

    def shortfalls(
        self, operations: int, each: int, *, calls: int = 0, unknown: float = 1.0
    ) -> list[str]:
        """In words, what there is too little of for the verdict to mean anything.

        ``operations``: how many calls must be concluded, ``calls``: how many of
        each kind, ``each``: how many faults of each kind, ``unknown``: the share
        of unknown outcomes that is too much.
        """
        found = []
        if self.concluded < operations:
            found.append(f"only {self.concluded} of {operations} operations concluded")
        for kind, asked in self.counted.operations.items():
            concluded = self.counted.concluded[kind]
            least = max(calls, asked * CONCLUDED if asked >= FEW else 0)
            if concluded < least and kind not in SETTLING:
                found.append(f"only {concluded} of {max(asked, calls)} calls concluded: {kind}")
        found += [
            f"only {count} of {each} faults: {kind}"
            for kind, count in self.faults.items()
            if count < each
        ]
        if self.unknown >= unknown:
            found.append(f"{self.unknown:.2%} of the outcomes are unknown")
        return found


class Calls:
    """Counts the calls in the folder ``history`` while it is written."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._read: dict[Path, int] = {}
        self._calls = 0

    def so_far(self) -> int:
        """How many there are by now."""
        for path in self._history.glob("*.jsonl"):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                new = file.read()
            whole = new.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            self._calls += new.count(b',"call":', 0, whole)
        return self._calls


def counted(history: Path, kinds: Iterable[str] = ()) -> Counted:
    """What stands in the files of the folder ``history``, in which these ``kinds`` of calls are."""
    operations: Tally[str] = Tally(dict.fromkeys(kinds, 0))
    concluded: Tally[str] = Tally()
    faults: Tally[str] = Tally()
    unknown: set[tuple[str, int]] = set()
    settled: set[tuple[str, int]] = set()
    cut = 0
    for lines in map(_lines, history.glob("*.jsonl")):
        process = ""
        calls: dict[int, tuple[str, int]] = {}  # not returned yet: which, or which they settle
        asked: dict[int, str] = {}
        for line in lines:
            if "call" in line:
                asked[line["call"]] = kind = _kind(line)
                operations[kind] += 1
                calls[line["call"]] = tuple(line.get("of", (process, line["call"])))
            elif "ret" in line:
                which = calls.pop(line["ret"])
                if "unknown" not in line and line.get("error") not in STORE_ERRORS:
                    concluded[asked[line["ret"]]] += 1
                if "unknown" not in line:
                    settled.add(which)
                elif which == (process, line["ret"]):
                    unknown.add(which)
            elif "note" in line:
                faults.update(line["note"].get("faults", {}))
                if abs(line["note"].get("clock", 0.0)) > WRONG:
                    faults["clock wrong"] += 1
            else:
                process = line.get("process", process)
        cut += sum(which == (process, call) for call, which in calls.items())
    return Counted(operations, concluded, faults, len(unknown), len(unknown - settled), cut)


def _kind(line: Mapping[str, Any]) -> str:
    """Of which kind a call is; additions of three kinds are as many ways through the store."""
    if line["op"] != "add":
        return str(line["op"])
    return KEYED if "key" in line else MANY if "create" in line else "add"


def judged(history: Path) -> Verdict:
    """The checker's verdict on the folder ``history``."""
    return check([history])


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for text in file:
            if text.endswith("\n"):  # else its process was killed as it wrote
                yield json.loads(text)
