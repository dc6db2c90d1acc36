"""The first act: many processes and one that is killed, on the embedded store."""

from __future__ import annotations

import contextlib
import multiprocessing
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
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from truecount import Counter, connect
from truecount.cli.demo.stage import TRANSCRIPT, Deviation, Interpreter, deaf, default_store
from truecount.record import Address, Record
from truecount.testing.faulty import FaultyStore

__all__ = ["act"]

ELSEWHERE: Final = "from truecount import Counter; c = Counter('mydomain', 'counter1'); c += 38"

AFTERWARDS: Final = (
    ("c += 1", "ValueError: Counter was out of sync"),
    ("print(c)", "42"),
    ("c += 1", ""),
    ("print(c)", "43"),
)

PROCESSES: Final = 8
ADDS: Final = 500


def act(console: Console, *, fast: bool) -> None:
    """Play it; raise `Deviation` when it does not go as it says."""
    with tempfile.TemporaryDirectory(prefix="truecount-demo-") as folder:
        url = f"sqlite:///{Path(folder).resolve()}/counters.db"
        with default_store(url):
            _play(console, url, Interpreter(console, fast=fast))


def _play(console: Console, url: str, interpreter: Interpreter) -> None:
    console.print(f"[bold]A counter, on the store[/] {escape(url)}\n")
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


@contextlib.contextmanager
def _running(*processes: BaseProcess) -> Iterator[None]:
    """Processes that run until the block ends at most."""
    try:
        with deaf():
            for process in processes:
                process.start()
        yield
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _run_elsewhere() -> None:
    process = None
    try:
        with deaf():  # what came meanwhile strikes at its end
            process = subprocess.Popen([sys.executable, "-c", ELSEWHERE])  # noqa: S603  # our own line
        if process.wait():
            raise Deviation(f"the other process ended with status {process.returncode}")
    finally:
        if process is not None:
            process.kill()
            process.wait()


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


class _SilentStore(FaultyStore):
    """A store that does what it is asked to, and never answers."""

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        super().replace(address, old, new, timeout=timeout)
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()  # without it, there is nobody to kill this process
        sys.exit()


def _add_unheard(url: str, heard: Event) -> None:
    counter = Counter("demo", "killed", store=_SilentStore(connect(url)), create=False)
    counter.add(100, key="order-17")
    heard.set()
