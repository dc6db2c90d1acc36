"""The demonstration: the counter's main job, done before the reader's eyes.

Everything it shows is really done, on a store that is thrown away afterwards,
and everything it claims is checked: a deviation ends it with an error.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Empty
from typing import Any, Final, Never

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from truecount import Counter, connect
from truecount.change import Answer, Batch
from truecount.connect import VARIABLE
from truecount.record import Address
from truecount.testing.lossy import LossyStore

__all__ = ["play"]

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

ELSEWHERE: Final = "from truecount import Counter; c = Counter('mydomain', 'counter1'); c += 38"

AFTERWARDS: Final = (
    ("c += 1", "ValueError: Counter was out of sync"),
    ("print(c)", "42"),
    ("c += 1", ""),
    ("print(c)", "43"),
)

PROCESSES: Final = 8
ADDS: Final = 500


class Deviation(Exception):
    """The demonstration went otherwise than it says."""


def play(*, fast: bool = False) -> None:
    """Play the demonstration; raise `Deviation` when it does not go as it says."""
    console = Console(highlight=False)
    began = time.monotonic()
    with _terminable(), _store_for_now() as url:
        console.print(f"[bold]A counter, on the store[/] {escape(url)}\n")
        interpreter = _Interpreter(console, fast=fast)
        for line, answer in TRANSCRIPT:
            interpreter.type(line, answer)
        console.print("\n[bold]Another process moves it, and this one notices[/]\n")
        console.print(f'[dim]$[/] python -c "{ELSEWHERE}"')
        _run_elsewhere()
        for line, answer in AFTERWARDS:
            interpreter.type(line, answer)
        console.print(f"\n[bold]{PROCESSES} processes add {ADDS} times each, all at once[/]\n")
        _race(console, url)
        console.print("\n[bold]A process is killed, and its change is made again[/]\n")
        _kill(console, url)
    console.print(f"\nAll as promised, in {time.monotonic() - began:.1f} s.")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with all that is to be cleaned up."""

    def end(*_: object) -> Never:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Start processes that no Ctrl-C reaches: it is for this one, which ends them."""
    # They inherit this. Here it comes later, and not into the middle of a start.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _running(*processes: BaseProcess) -> Iterator[None]:
    """Processes that run until the block ends at most."""
    try:
        with _deaf():
            for process in processes:
                process.start()
        yield
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


@contextlib.contextmanager
def _store_for_now() -> Iterator[str]:
    """A store in a temporary folder, which is the default one meanwhile."""
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory(prefix="truecount-demo-") as folder:
        url = f"sqlite:///{Path(folder).resolve()}/counters.db"
        os.environ[VARIABLE] = url
        try:
            yield url
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


class _Interpreter:
    """Types lines as if at Python's prompt, and executes them."""

    def __init__(self, console: Console, *, fast: bool) -> None:
        self.console = console
        self.pause = 0.0 if fast or not console.is_terminal else 0.015
        self.names: dict[str, Any] = {}

    def type(self, line: str, expected: str) -> None:
        """Type ``line``, and print what it answers, which must be ``expected``."""
        self.console.print("[dim]>>>[/] ", end="")
        for character in line:
            self.console.print(escape(character), end="")
            time.sleep(self.pause)
        self.console.print()
        answer = self.execute(line)
        if answer:
            self.console.print(f"[cyan]{escape(answer)}[/]")
        if answer != expected:
            raise Deviation(f"{line!r} answered {answer!r}, and should have {expected!r}")

    def execute(self, line: str) -> str:
        """What Python's prompt would print."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile(line, "<demo>", "single"), self.names)  # noqa: S102  # our own lines
            except ValueError as error:
                return f"ValueError: {error}"
        return output.getvalue().rstrip("\n")


def _run_elsewhere() -> None:
    with _deaf():
        process = subprocess.Popen([sys.executable, "-c", ELSEWHERE])  # noqa: S603  # our own line
    with process:
        try:
            if process.wait():
                raise Deviation(f"the other process ended with status {process.returncode}")
        except BaseException:
            process.kill()
            raise


def _race(console: Console, url: str) -> None:
    """Several processes add to one counter: nothing is lost, nothing handed out twice."""
    context = multiprocessing.get_context("spawn")
    queue: Queue[list[int]] = context.Queue()
    racers = [context.Process(target=_add_often, args=(url, queue)) for _ in range(PROCESSES)]
    numbers: list[int] = []
    columns = TextColumn("adds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with _running(*racers), Progress(*columns, console=console) as progress:
        task = progress.add_task("adds", total=PROCESSES * ADDS)
        while len(numbers) < PROCESSES * ADDS:
            try:
                got = queue.get(timeout=60)
            except Empty:
                raise Deviation("no process has added for a minute") from None
            numbers += got
            progress.advance(task, len(got))
        for racer in racers:
            racer.join()
    total = Counter("demo", "race", store=url).value
    console.print(f"The counter is [bold]{total:,}[/].")
    console.print(f"[bold]{len(set(numbers)):,}[/] different numbers were handed out.")
    if total != PROCESSES * ADDS or len(set(numbers)) != PROCESSES * ADDS:
        raise Deviation(f"{PROCESSES * ADDS} adds made {total}, {len(set(numbers))} numbers")


def _add_often(url: str, queue: Queue[list[int]]) -> None:
    counter = Counter("demo", "race", store=url)
    for _ in range(ADDS // 25):
        queue.put([counter.add(1).after for _ in range(25)])


def _kill(console: Console, url: str) -> None:
    """A process is killed after its change was stored, before it heard: its key tells."""
    add = 'c.add(100, key="order-17")'
    counter = Counter("demo", "killed", store=url)
    context = multiprocessing.get_context("spawn")
    heard = context.Event()
    process = context.Process(target=_add_unheard, args=(url, heard))
    with _running(process):
        deadline = time.monotonic() + 60
        while counter.refresh() == 0:
            if time.monotonic() > deadline:
                raise Deviation("the other process never added")
            time.sleep(0.01)
        process.kill()
        process.join()
    if heard.is_set():
        raise Deviation("the other process heard before it was killed")
    console.print(f"process {process.pid}: {escape(add)} ... [red]killed[/] before it heard")
    receipt = counter.add(100, key="order-17")
    console.print(f"this process: {escape(add)}")
    console.print(f"[cyan]{escape(repr(receipt))}[/]")
    console.print(f"The counter is [bold]{counter}[/]: the change counted once.")
    if counter != 100 or receipt != 100 or not receipt.replayed:
        raise Deviation(f"100 added once made {counter}: {receipt!r}")


class _SilentStore(LossyStore):
    """A store that does what it is asked to, and never answers."""

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        super().settle(address, batch, timeout=timeout)
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()  # without it, there is nobody to kill this process
        sys.exit()


def _add_unheard(url: str, heard: Event) -> None:
    counter = Counter("demo", "killed", store=_SilentStore(connect(url)), create=False)
    counter.add(100, key="order-17")
    heard.set()
