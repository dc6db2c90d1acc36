"""From files to the lives of counters.

A line is parsed once and becomes a tuple, so that ten million of them fit.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from truecount.testing.checker.life import (
    ALONE,
    FIXED,
    TENTATIVE,
    Bounds,
    Call,
    Life,
    Row,
    Sight,
)
from truecount.testing.checker.lines import (
    check_call,
    check_header,
    check_note,
    check_number,
    check_return,
    check_try,
)
from truecount.testing.history import FORMAT, HEADER, SUFFIX

__all__ = ["History", "NotAHistoryError", "files_of", "lines_of"]

AT_ONCE: Final = 4000  # lines: parsed together they take half the time

_make: Final = tuple.__new__

RECEIPTS: Final = {"add", "set", "update"}


class NotAHistoryError(Exception):
    """A file that no recorder wrote, or not in a version that is known."""


class History:
    """What the files say of every ``of``-th counter, from ``share`` on, as they appear in them.

    ``lives`` are the counters', ``tally`` counts what was read.
    """

    def __init__(self, files: list[Path], share: int = 0, of: int = 1) -> None:
        self.files = files
        self.share = share
        self.of = of
        self.lives: dict[tuple[str, str], Life] = {}
        self.tally: Tally[str] = Tally()
        self._others: set[tuple[str, str]] = set()
        self._bounds: dict[Bounds, Bounds] = {}
        self._processes: dict[str, int] = {}
        settlings: list[Call] = []
        for number, path in enumerate(self.files):
            self._read(number, path, settlings)
        for settling in settlings:
            self._settle(settling)

    def _settle(self, settling: Call) -> None:
        """Give ``settling`` to the life of the call that it settles."""
        process, call = settling.asked["of"]
        if process not in self._processes:
            raise NotAHistoryError(f"the history of the process {process!r} is missing")
        domain, name = settling.asked["at"]
        life = self.lives[domain, name]
        of_call = self._processes[process] << 40 | call
        if of_call not in life.unknown:
            path, number = self.files[settling.call >> 40], settling.call & ((1 << 40) - 1)
            raise NotAHistoryError(
                f"{path}, call {number}: what it settles, call {call} of the process {process!r}, "
                f"is no call to {name!r} in {domain!r} whose outcome was unknown"
            )
        life.settlings.append((of_call, settling))

    def life(self, at: list[str], key_ttl: float | None) -> Life | None:
        """What is known of the counter ``at`` its address; None when it is another's to judge."""
        domain, name = at
        address = domain, name
        life = self.lives.get(address)
        if life is None and address not in self._others:
            if (len(self.lives) + len(self._others)) % self.of != self.share:
                self._others.add(address)
            else:
                life = self.lives[address] = Life(domain, name)
                life.key_ttl = key_ttl
        return life

    def _read(self, number: int, path: Path, settlings: list[Call]) -> None:
        lines = _parsed(path)
        header = next(lines, None)
        if header is None:
            return  # killed before it wrote anything
        if not isinstance(header, dict) or HEADER not in header:
            raise NotAHistoryError(f"{path} is no history: it does not begin with a header")
        if header[HEADER] != FORMAT:
            raise NotAHistoryError(
                f"{path} is of version {header[HEADER]!r}; this reads version {FORMAT}"
            )
        try:
            check_header(header)
        except ValueError as error:
            raise NotAHistoryError(f"{path}, line 1: {error}") from error
        if header["process"] in self._processes:
            raise NotAHistoryError(f"{path} is a second file of one process")
        self._processes[header["process"]] = number
        reader = _Reader(self, number, header.get("key_ttl"), settlings)
        try:
            for line in lines:
                reader.read(line)
        except ValueError as error:
            raise NotAHistoryError(f"{path}, line {reader.at}: {error}") from error
        reader.end()


class _Reader:
    """Reads the lines of one process."""

    def __init__(
        self, history: History, number: int, key_ttl: float | None, settlings: list[Call]
    ) -> None:
        self.history = history
        self.base = number << 40
        self.key_ttl = key_ttl
        self.settlings = settlings
        self.tries: dict[int, tuple[int, int]] = {}
        self.begun: dict[int, dict[str, Any]] = {}
        self.at = 1  # the header is read
        self.others: set[int] = set()  # calls of counters that somebody else judges

    def read(self, line: Any) -> None:
        """Take note of ``line``; raises `ValueError` where it cannot be one."""
        self.at += 1
        if type(line) is not dict:
            raise ValueError(f"this is no line of a history: {line!r:.60}")
        if "ret" in line:
            check_number(line, "ret")
            number = line["ret"]
            if number in self.others:
                self.others.remove(number)
                return
            if number not in self.begun:
                raise ValueError(f"call {number} returns, and did not begin")
            asked = self.begun.pop(number)
            check_return(line, asked)
            at = asked["at"]
            self._ended(self.history.lives[at[0], at[1]], asked, line)
        elif "call" in line:
            check_call(line)
            number = line["call"]
            if number in self.begun or number in self.others:
                raise ValueError(f"call {number} begins again, and has not returned")
            if self.history.life(line["at"], self.key_ttl) is None:
                self.others.add(number)
                return
            self.begun[number] = line
            self.history.tally[line["op"]] += 1
        elif "try" in line:
            check_try(line)
            number = line["try"]
            if number in self.begun:
                self.tries[number] = line["expected"], line["new"]
            elif number not in self.others:
                raise ValueError(f"call {number} tries something, and did not begin")
        else:
            check_note(line)
            if self.history.share == 0:
                self.history.tally["notes"] += 1

    def end(self) -> None:
        """Nothing more is to be read: the calls that are left did not return."""
        for asked in self.begun.values():
            self.history.tally["without a return"] += 1
            domain, name = asked["at"]
            self._note(self.history.lives[domain, name], asked, None)

    def _ended(self, life: Life, asked: dict[str, Any], came: dict[str, Any]) -> None:
        op = asked["op"]
        begin, end = asked["t"], came["t"]
        if end < begin:
            raise ValueError(f"call {asked['call']} ends before it begins")
        call = self.base | asked["call"]
        receipt = came.get("receipt")
        view = came.get("view")
        bounds: Bounds | None = None
        if view is not None:
            revision, value, time, minimum, maximum = view
            if time is not None:
                bounds = self.history._bounds.setdefault((minimum, maximum), (minimum, maximum))
            if op in ("refresh", "open") and "error" not in came and "unknown" not in came:
                sight = (revision, value, begin, end, time, bounds, call)
                life.sights.append(_make(Sight, sight))
                if op == "refresh":
                    return
            elif (
                receipt is None
                or asked.get("key") is not None  # of which call it is, is not told here
                or receipt[2] != revision
                or (receipt[1], receipt[3])
                != (
                    value,
                    time,
                )
            ):
                life.sights.append(_make(Sight, (revision, value, 0, end, time, bounds, call)))
        if "error" in came or "unknown" in came or asked.get("key") is not None:
            self._note(life, asked, came)
            return
        if receipt is not None and op in RECEIPTS and receipt[2] is not None:
            before, after, revision, time, _ = receipt
            known = None
            if view is not None and view[0] == revision and view[2] is not None:
                known = bounds
            life.rows.append(
                _make(Row, (revision, before, after, begin, end, time, known, call, FIXED))
            )
            if op == "add":
                right = after - before == asked["n"]
                if "create" in asked:
                    self._note(life, asked, came)
            elif op == "set":
                right = after == asked["value"]
            else:
                right = self.tries.pop(asked["call"], None) in ((before, after), None)
                life.updates.append((begin, end))
            if not right:
                life.contradict("the receipt is of another change", end, (call,), revision)
            return
        edge: tuple[int | None, int | None] | None = None
        if op == "assign" or (op == "compare_and_set" and came["done"]):
            edge = asked["expected"], asked["new"]
        elif op == "reserve" and receipt is not None:
            edge = receipt[0], receipt[1]
            if receipt[1] - receipt[0] != asked["n"]:
                life.contradict("as many numbers as were not asked for", end, (call,))
        if edge is not None and view is not None:
            row = (view[0], *edge, begin, end, view[2], None, call, TENTATIVE)
            life.rows.append(_make(Row, row))
            return
        if op == "limit" and view is not None and bounds is not None:
            asks = asked.get("minimum", bounds[0]), asked.get("maximum", bounds[1])
            if asks == bounds:
                revision, value = view[0], view[1]
                row = (revision, value, value, begin, end, view[2], None, call, ALONE)
                life.rows.append(_make(Row, row))
                # What it asked for is one of the ways in which bounds may have changed.
        self._note(life, asked, came)

    def _note(self, life: Life, asked: dict[str, Any], came: dict[str, Any] | None) -> None:
        number = asked["call"]
        call = Call(self.base | number, asked["op"], asked["t"], asked)
        call.tried = self.tries.pop(number, None)
        if came is not None:
            call.came = came
            call.end = came["t"]
            tally = self.history.tally
            if "error" in came:
                tally[came["error"]] += 1
            elif "unknown" in came:
                tally["unknown"] += 1
        if "of" in asked:
            self.settlings.append(call)
        else:
            life.calls.append(call)
            if call.is_unknown:
                life.unknown.add(call.call)


def files_of(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """The files in ``paths``, which are files and folders, each once."""
    seen: set[Path] = set()
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(path.glob(f"*{SUFFIX}"))
            if not found:
                raise NotAHistoryError(f"there is no history in {path}")
        elif path.exists():
            found = [path]
        else:
            raise NotAHistoryError(f"there is no {path}")
        for file in found:
            if file.is_dir() or not file.exists():
                raise NotAHistoryError(f"{file} is no file")
            if (place := file.resolve()) not in seen:
                seen.add(place)
                yield file


def _parsed(path: Path) -> Iterator[Any]:
    """What stands in each line. A last one that was not written whole was never sent."""
    read = 0
    try:
        with path.open("rb") as file:
            while lines := list(islice(file, AT_ONCE)):
                if not lines[-1].endswith(b"\n"):
                    lines.pop()
                try:
                    found = json.loads(b"[" + b",".join(lines) + b"]")
                except ValueError:
                    found = ()
                if len(found) != len(lines):
                    found = _one_by_one(path, lines, read)
                yield from found
                read += len(lines)
    except OSError as error:
        raise NotAHistoryError(f"{path} cannot be read: {error.strerror}") from error


def _one_by_one(path: Path, lines: list[bytes], read: int) -> Iterator[Any]:
    """Likewise, up to the line that cannot be read; ``read`` are before them."""
    for at, line in enumerate(lines, read + 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if at == 1:
                text = f"{path} is no history: it does not begin with a header"
            else:
                text = f"{path}, line {at}: this is no JSON: {line.decode(errors='replace')!r:.80}"
            raise NotAHistoryError(text) from error


def lines_of(files: list[Path], calls: Iterable[int]) -> dict[int, list[str]]:
    """The lines of ``calls`` as they stand in the files."""
    wanted: dict[int, set[int]] = {}
    for call in calls:
        if call >= 0:
            wanted.setdefault(call >> 40, set()).add(call & ((1 << 40) - 1))
    found: dict[int, list[str]] = {}
    for file, numbers in wanted.items():
        with files[file].open("rb") as lines:
            for line in lines:
                match = _NUMBER.search(line)
                if match is not None and int(match[1]) in numbers:
                    found.setdefault(file << 40 | int(match[1]), []).append(line.decode().strip())
    return found


_NUMBER: Final = re.compile(rb'"(?:call|ret|try)": *(\d+)')
