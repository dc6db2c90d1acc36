"""What every act needs: lines typed at a prompt, a default store, processes that end with it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Final, Never

from rich.console import Console
from rich.markup import escape

from truecount.connect import VARIABLE

__all__ = ["TRANSCRIPT", "Deviation", "Interpreter", "deaf", "default_store", "terminable"]

TRANSCRIPT: Final = (
    ("from truecount import counter", ""),
    ("c = counter.Counter('mydomain', 'counter1', 0)", ""),
    ("print(c)", "0"),
    ("c += 1", ""),
    ("print(c)", "1"),
    ("c += 5", ""),
    ("c -= 2", ""),
    ("print(c)", "4"),
    ("c == 0", "False"),
    ("c < 5", "True"),
)


class Deviation(Exception):
    """The demonstration went otherwise than it says."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with all that is to be cleaned up."""

    def end(*_: object) -> Never:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Start processes that no Ctrl-C reaches: it is for this one, which ends them."""
    came: list[int] = []

    def keep(number: int, _: object) -> None:
        came.append(number)

    signals = signal.SIGINT, signal.SIGTERM
    handlers = [signal.signal(each, keep) for each in signals]
    # They inherit the mask. It is this thread's only: others hear, and the handler is called here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for each, handler in zip(signals, handlers, strict=True):
            signal.signal(each, handler)
        if came:  # here it comes later, and not into the middle of a start
            signal.raise_signal(came[0])


@contextlib.contextmanager
def default_store(url: str) -> Iterator[None]:
    """Make ``url`` the default store."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = url
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


class Interpreter:
    """Types lines as if at Python's prompt, and executes them."""

    def __init__(self, console: Console, *, fast: bool) -> None:
        self.console = console
        self.pause = 0.0 if fast or not console.is_terminal else 0.015
        self.names: dict[str, Any] = {}

    def type(self, line: str, expected: str) -> None:
        """Type ``line``, and print what it answers, which must be ``expected``.

        There ``...`` stands for anything.
        """
        self.console.print("[dim]>>>[/] ", end="")
        for character in line:
            self.console.print(escape(character), end="")
            time.sleep(self.pause)
        self.console.print()
        answer = self.execute(line)
        if answer:
            self.console.print(f"[cyan]{escape(answer)}[/]")
        if not re.fullmatch(re.escape(expected).replace(r"\.\.\.", ".*"), answer, re.DOTALL):
            raise Deviation(f"{line!r} answered {answer!r}, and should have {expected!r}")

    def execute(self, line: str) -> str:
        """What Python's prompt would print."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile(line, "<demo>", "single"), self.names)  # noqa: S102  # our own lines
            except ValueError as error:
                return f"ValueError: {error}"
            except Exception as error:  # whether it is the right one, its name will tell
                return f"{type(error).__name__}: {error}"
        return output.getvalue().rstrip("\n")
