"""Histories: what callers asked for and what they were told, written as it happens.

A `Recorder` writes each call before it is sent, and what came of it after. A
call is on its way to the operating system, in one ``write``, before its request
is: whatever kills the process afterwards, the history knows what may have been
sent. ``truecount check FOLDER`` judges what was written; docs/histories.md has
the format.

>>> import tempfile
>>> folder = tempfile.mkdtemp()
>>> recorder = Recorder(folder)
>>> c = recorder.open('mydomain', 'recorded', store='memory://')
>>> c.add(5).after
5
>>> c += 1
>>> c.value
6
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Never, Self, SupportsIndex, TypeVar
from weakref import WeakKeyDictionary

from truecount import Counter, CounterError, Domain, OutcomeUnknownError, Receipt
from truecount.arguments import integer, string
from truecount.defaults import CONFIGURED, STORED, UNCHANGED, Configured, Default, Unchanged
from truecount.integer import Integer
from truecount.process import new_name

__all__ = ["FORMAT", "HEADER", "SUFFIX", "Call", "CallName", "RecordedCounter", "Recorder"]

FORMAT: Final = 1
"""The version of the format, which docs/histories.md describes."""

HEADER: Final = "truecount-history"
"""The first key of the first line, whose value is the version."""

SUFFIX: Final = ".jsonl"
"""How the names of a history's files end."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class CallName(NamedTuple):
    """Which call it was, for all processes: it pickles beside an `OutcomeUnknownError`."""

    process: str
    number: int
    domain: str
    name: str


class _Journal:
    """One process's file."""

    def __init__(self, folder: Path, key_ttl: float | None) -> None:
        self.process = new_name()
        self.pid = os.getpid()
        self.numbers = itertools.count(1)
        path = folder / f"{self.pid}-{self.process}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o666)
        self.write({HEADER: FORMAT, "process": self.process, "pid": self.pid, "key_ttl": key_ttl})

    def write(self, *lines: dict[str, Any]) -> None:
        """Hand ``lines`` to the operating system, in one write."""
        text = "".join([f"{_encode(line)}\n" for line in lines]).encode()
        if os.write(self.descriptor, text) != len(text):
            raise OSError(errno.ENOSPC, "a line of the history was not written whole")


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class Recorder:
    """Writes the history of this process's calls to a file of its own in ``folder``.

    It may be used by many threads, and pickles: every process, a forked one
    too, begins a file of its own. What cannot be written is not sent: a full
    disk raises `OSError` before the call. ``key_ttl`` is how many seconds the
    store remembers an idempotency key, None for longer than the history lasts.
    """

    def __init__(self, folder: str | os.PathLike[str], *, key_ttl: float | None = None) -> None:
        self.folder = Path(folder)
        self.key_ttl = key_ttl
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journals: dict[int, _Journal] = {}  # by process: a child has its parent's too
        self._lock = threading.Lock()
        self._unknown: WeakKeyDictionary[CounterError, CallName] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return _recorder, (type(self), self.folder, self.key_ttl)

    # Counters

    def open(
        self, domain: str, name: str, initial: SupportsIndex = 0, **options: Any
    ) -> RecordedCounter:
        """Make a `Counter`, with all that it takes, and record that and all that follows.

        Where ``create=False`` finds none, the absence is recorded.
        """
        asked: dict[str, Any] = {
            "initial": integer(initial, "the initial value"),
            "create": bool(options.get("create", True)),
        }
        asked |= _bounds({bound: options.get(bound, STORED) for bound in _LIMITS})
        with self.call("open", domain, name, **asked) as call:
            counter = Counter(domain, name, initial, **options)
            call.returned(counter=counter)
        return RecordedCounter(self, counter)

    def counter(self, counter: Counter) -> RecordedCounter:
        """Record what is done with ``counter``, made elsewhere, from now on.

        Raises `TypeError` where it is none: it may be recorded already.
        """
        if not isinstance(counter, Counter):
            raise TypeError(f"a Counter can be recorded, and this is a {type(counter).__name__}")
        return RecordedCounter(self, counter)

    def add(self, domain: Domain, amounts: Mapping[str, int], **options: Any) -> dict[str, Receipt]:
        """`Domain.add`, as a call of each counter."""
        asked = {
            name: {"n": integer(n, "the amount"), "create": True} for name, n in amounts.items()
        }
        for name in amounts:
            _check_texts(domain.name, name)
        calls = {
            name: Call(self._journal(), "add", domain.name, name, add, self)
            for name, add in asked.items()
        }
        self._journal().write(*[call.line for call in calls.values()])
        try:
            receipts = domain.add(amounts, **options)
        except CounterError as error:
            ended = time.monotonic_ns()
            applied = error.receipts or {}
            failures = error.failures or {}
            for name, call in calls.items():
                if name in applied:
                    call.returned(applied[name], at=ended)
                else:
                    call.raised(failures.get(name, error), ended)
            raise
        except BaseException as interruption:
            ended = time.monotonic_ns()
            for call in calls.values():
                call.raised(interruption, ended)
            raise
        ended = time.monotonic_ns()
        for name, call in calls.items():
            call.returned(receipts[name], at=ended)
        return receipts

    # What is unknown, settled

    def name_of(self, error: CounterError) -> CallName:
        """Which call ``error``, an `OutcomeUnknownError` recorded here, was raised by.

        Raises `ValueError` when no call of this recorder, in this process, was.
        """
        try:
            return self._unknown[error]
        except (KeyError, TypeError):
            raise ValueError(
                "this recorder has no record of the call that raised this error: give its name, "
                "as in retry(error, name), which name_of(error) tells in the process that made it"
            ) from None

    def retry(
        self, error: OutcomeUnknownError, call: CallName | None = None, **options: Any
    ) -> Receipt:
        """``error.retry()``; ``call`` names what it settles when another process recorded it."""
        with self._settling("retry", error, call) as settling:
            receipt = error.retry(**options)
            settling.returned(receipt)
        return receipt

    def cancel(
        self, error: OutcomeUnknownError, call: CallName | None = None, **options: Any
    ) -> bool:
        """``error.cancel()``, likewise."""
        with self._settling("cancel", error, call) as settling:
            done = error.cancel(**options)
            settling.returned(done=done)
        return done

    def _settling(self, op: str, error: OutcomeUnknownError, call: CallName | None) -> Call:
        of = call or self.name_of(error)
        settling = self.call(op, of.domain, of.name, of=[of.process, of.number])
        settling.settles = of
        return settling

    # Calls of any client

    def call(
        self, op: str, domain: str, name: str, *, counter: Counter | None = None, **asked: Any
    ) -> Call:
        """Write that a call begins; make it in the ``with`` block of what this returns.

        Raises `InvalidTypeError`, and writes nothing, where a text is none.

        For clients that are no `Counter`. ``op`` and ``asked`` are those of the
        format; what is None is left out. Say in the block what came of it, with
        `Call.returned`; what is raised there is recorded and goes on. When
        ``counter`` is given, what it shows afterwards is recorded too.
        """
        _check_texts(domain, name, asked.get("key"))
        journal = self._journal()
        call = Call(journal, op, domain, name, asked, self, counter)
        journal.write(call.line)
        return call

    def note(self, **facts: Any) -> None:
        """Write a remark, of a fault that was made for example; the checker passes it over."""
        self._journal().write({"t": time.monotonic_ns(), "note": facts})

    def noted(self, error: CounterError, name: CallName) -> None:
        """Keep in mind which call ``error`` was raised by, for `name_of`."""
        self._unknown[error] = name

    def _journal(self) -> _Journal:
        process = os.getpid()
        journal = self._journals.get(process)
        if journal is None:
            with self._lock:
                journal = self._journals.get(process)  # another thread may have been first
                if journal is None:
                    journal = self._journals[process] = _Journal(self.folder, self.key_ttl)
        return journal


def _recorder(kind: type[Recorder], folder: Path, key_ttl: float | None) -> Recorder:
    return kind(folder, key_ttl=key_ttl)


class Call:
    """A call whose beginning was recorded. A context manager: its block makes the call."""

    def __init__(
        self,
        journal: _Journal,
        op: str,
        domain: str,
        name: str,
        asked: dict[str, Any],
        recorder: Recorder,
        counter: Counter | None = None,
    ) -> None:
        number = next(journal.numbers)
        self.name = CallName(journal.process, number, domain, name)
        self.settles = self.name
        self.line = {"t": time.monotonic_ns(), "call": number, "op": op, "at": [domain, name]}
        self.line |= {what: it for what, it in asked.items() if it is not None or what in _LIMITS}
        self._counter = counter
        self._journal = journal
        self._recorder = recorder
        self._told = False

    def trying(self, expected: int, new: int) -> None:
        """Write what is about to be sent: `Counter.update` tries with one value after another."""
        tried = {"try": self.name.number, "expected": expected, "new": new}
        self._journal.write({"t": time.monotonic_ns(), **tried})

    def returned(
        self,
        receipt: Receipt | tuple[int, int, int | None] | None = None,
        *,
        counter: Counter | None = None,
        done: bool | None = None,
        view: tuple[int, int] | None = None,
        at: int | None = None,
    ) -> None:
        """Write what the call returned, as soon as it has.

        ``receipt`` of the change, or (before, after, revision) from a client that is
        no `Counter`: there a revision grows by one with every write, and is None
        where the call does not say. ``view`` (revision, value) is what such a
        client has read. ``done``: what `compare_and_set` or ``cancel`` answered.
        ``counter`` shows what was read. ``at``: when it was, by
        ``time.monotonic_ns``; now.
        """
        line: dict[str, Any] = {"t": at or time.monotonic_ns(), "ret": self.name.number}
        if isinstance(receipt, Receipt):
            line["receipt"] = [
                *(receipt.before, receipt.after, receipt.revision),
                *((receipt.updated_at - _EPOCH) // _MICROSECOND, receipt.replayed),
            ]
        elif receipt is not None:
            line["receipt"] = [*receipt, None, False]
        if done is not None:
            line["done"] = done
        if view is not None:
            line["view"] = [*view, None, None, None]
        self._end(line, self._counter if counter is None else counter)  # one that is 0 is false

    def raised(self, error: BaseException, at: int | None = None) -> None:
        """Write what the call raised. Only a `CounterError` says what became of it."""
        line: dict[str, Any] = {"t": at or time.monotonic_ns(), "ret": self.name.number}
        if isinstance(error, OutcomeUnknownError):
            line["unknown"] = type(error).__name__
            self._recorder.noted(error, self.settles)
        elif isinstance(error, CounterError):
            facts = {name: getattr(error, name) for name in error.extras}
            line["error"] = _kind(error).__name__
            line |= {name: fact for name, fact in facts.items() if fact is not None}
        else:
            line["unknown"] = type(error).__name__
        self._end(line, self._counter)

    def _end(self, line: dict[str, Any], counter: Counter | None) -> None:
        if counter is not None:
            seen = copy(counter)  # what it shows is one view; another thread may move it on
            time_ = (seen.updated_at - _EPOCH) // _MICROSECOND
            line["view"] = [seen.revision, seen.value, time_, seen.minimum, seen.maximum]
        self._journal.write(line)
        self._told = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._told:
            return
        if error is None:
            self.returned()
        else:
            self.raised(error)


def _check_texts(domain: object, name: object, key: object = None) -> None:
    """Refuse what could not be read as a line of a history: nothing is written then."""
    string(domain, "a domain")
    string(name, "a counter's name")
    if key is not None:
        string(key, "an idempotency key")


def _kind(error: CounterError) -> type:
    """What ``error`` is to a checker, which knows truecount's own kinds and no store's."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == CounterError.__module__)


R = TypeVar("R", bound="RecordedCounter")


def _in_place(sign: int) -> Callable[[R, SupportsIndex], R]:
    """Make the method for an in-place operator."""

    def method(self: R, n: SupportsIndex, /) -> R:
        self._assign(sign * integer(n, "the amount"))
        return self

    return method


def _unrecorded(symbol: str) -> Callable[[R, Never], R]:
    """Make the method for an operator that there is not, as type checkers see too."""

    def method(self: R, n: Never, /) -> R:
        raise TypeError(f"{symbol} is not recorded; use update()")

    return method


class RecordedCounter(Integer):
    """A `Counter`, each of whose calls is recorded. ``counter`` is the handle itself.

    It reads as an int, as the handle does. The methods and ``+=``, ``-=`` are
    those of `Counter`, but for ``ids`` and ``next``; another in-place operator
    raises `TypeError`. A handle that threads share is fine for all but in-place
    operators, which apply to what it shows: for those a thread has a handle of
    its own.
    """

    def __init__(self, recorder: Recorder, counter: Counter) -> None:
        self.recorder = recorder
        self.counter = counter

    @property
    def value(self) -> int:
        """The value last seen, as a plain int. Nothing is recorded."""
        return self.counter.value

    def __int__(self) -> int:
        return self.counter.value

    def __repr__(self) -> str:
        return f"<recorded {self.counter!r}>"

    def add(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """`Counter.add`."""
        with self._call("add", n=integer(n, "the amount"), key=key) as call:
            receipt = self.counter.add(n, key=key, timeout=timeout)
            call.returned(receipt)
        return receipt

    def subtract(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """`Counter.subtract`, recorded as the addition that it is."""
        with self._call("add", n=-integer(n, "the amount"), key=key) as call:
            receipt = self.counter.subtract(n, key=key, timeout=timeout)
            call.returned(receipt)
        return receipt

    def set(
        self,
        value: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """`Counter.set`."""
        with self._call("set", value=integer(value, "the value"), key=key) as call:
            receipt = self.counter.set(value, key=key, timeout=timeout)
            call.returned(receipt)
        return receipt

    def update(
        self,
        fn: Callable[[int], SupportsIndex],
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """`Counter.update`; each value that ``fn`` returns is recorded before it is sent."""
        with self._call("update", key=key) as call:

            def recorded(value: int) -> int:
                new = integer(fn(value), "what fn returned")
                call.trying(value, new)
                return new

            receipt = self.counter.update(recorded, key=key, timeout=timeout)
            call.returned(receipt)
        return receipt

    def compare_and_set(
        self,
        expected: SupportsIndex,
        new: SupportsIndex,
        *,
        timeout: float | Configured | None = CONFIGURED,
    ) -> bool:
        """`Counter.compare_and_set`."""
        asked = {
            "expected": integer(expected, "the expected value"),
            "new": integer(new, "the new value"),
        }
        with self._call("compare_and_set", **asked) as call:
            done = self.counter.compare_and_set(expected, new, timeout=timeout)
            call.returned(done=done)
        return done

    def reserve(
        self,
        n: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> range:
        """`Counter.reserve`."""
        with self._call("reserve", n=integer(n, "the number of ids"), key=key) as call:
            numbers = self.counter.reserve(n, key=key, timeout=timeout)
            call.returned((numbers.start - 1, numbers.stop - 1, None))
        return numbers

    def refresh(self, *, timeout: float | Configured | None = CONFIGURED) -> int:
        """`Counter.refresh`."""
        with self._call("refresh") as call:
            value = self.counter.refresh(timeout=timeout)
            call.returned()
        return value

    def receipt(self, key: str, *, timeout: float | Configured | None = CONFIGURED) -> Receipt:
        """`Counter.receipt`."""
        if key is None:
            return self.counter.receipt(key, timeout=timeout)  # which refuses it
        with self._call("receipt", key=key) as call:
            receipt = self.counter.receipt(key, timeout=timeout)
            call.returned(receipt)
        return receipt

    def limit(
        self,
        *,
        minimum: SupportsIndex | Unchanged | None = UNCHANGED,
        maximum: SupportsIndex | Unchanged | None = UNCHANGED,
        timeout: float | Configured | None = CONFIGURED,
    ) -> None:
        """`Counter.limit`."""
        with self._call("limit", **_bounds({"minimum": minimum, "maximum": maximum})):
            self.counter.limit(minimum=minimum, maximum=maximum, timeout=timeout)

    def delete(self, *, timeout: float | Configured | None = CONFIGURED) -> None:
        """`Counter.delete`."""
        with self._call("delete"):
            self.counter.delete(timeout=timeout)

    __iadd__ = _in_place(1)
    __isub__ = _in_place(-1)
    __imul__ = _unrecorded("*=")
    __ifloordiv__ = _unrecorded("//=")
    __itruediv__ = _unrecorded("/=")
    __imod__ = _unrecorded("%=")
    __ipow__ = _unrecorded("**=")
    __ilshift__ = _unrecorded("<<=")
    __irshift__ = _unrecorded(">>=")
    __iand__ = _unrecorded("&=")
    __ior__ = _unrecorded("|=")
    __ixor__ = _unrecorded("^=")
    __imatmul__ = _unrecorded("@=")

    def _assign(self, amount: int) -> None:
        expected = self.counter.value
        with self._call("assign", expected=expected, new=expected + amount):
            self.counter += amount

    def _call(self, op: str, **asked: Any) -> Call:
        counter = self.counter
        return self.recorder.call(op, counter.domain, counter.name, counter=counter, **asked)


_LIMITS: Final = ("minimum", "maximum")
"""Where None is something to ask for, and what was not asked for is left out."""


def _bounds(asked: dict[str, Any]) -> dict[str, int | None]:
    """Those of the bounds that were given, as JSON has them."""
    given = {name: bound for name, bound in asked.items() if not isinstance(bound, Default)}
    return {
        name: None if bound is None else integer(bound, f"the {name}")
        for name, bound in given.items()
    }
