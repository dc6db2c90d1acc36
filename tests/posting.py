"""Changes that wait for their turn, and a process that has it and sends them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import wait_until
from truecount import Counter, CounterError
from truecount.mail import _HEAD, _HEADS, POSTED


def states(folder: Path) -> set[int]:
    """What the machine's files in ``folder`` say of all batches."""
    heads = b"".join(path.read_bytes()[:_HEADS] for path in folder.glob("*-mail"))
    return set(heads[:: _HEAD.size])


def wait_until_posted(folder: Path) -> None:
    """Wait until a batch is there that nobody has collected."""
    wait_until(lambda: POSTED in states(folder), "that it is posted")


class Posting:
    """An addition that waits for its turn, in a thread, and what came of it."""

    def __init__(self, c: Counter, folder: Path, amount: int = 1, timeout: float = 20) -> None:
        self.came: list[int | BaseException] = []

        def add() -> None:
            try:
                self.came.append(c.add(amount, timeout=timeout))
            except BaseException as error:
                self.came.append(error)

        self.thread = threading.Thread(target=add, daemon=True)
        self.thread.start()
        wait_until_posted(folder)

    def strike(self, error: type[BaseException]) -> None:
        """Have ``error`` strike it, wherever it is."""
        ident = ctypes.c_ulong(self.thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error))

    def end(self) -> int | BaseException:
        """What came of it."""
        self.thread.join(30)
        return self.came[0]


class Carrier:
    """A process that runs ``code``, stops in it to have a line, and says one."""

    def __init__(self, code: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def says(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def goes_on(self) -> str:
        """Have it go on; what it says then."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self.says()


def add_and_fork(c: Counter, folder: Path, collect: Callable[[], int]) -> str:
    """Add 5, and fork in a signal's handler as soon as that is posted; what it came to.

    The child must find out that it is one, and ends; then ``collect`` is called.
    """
    children: list[int] = []

    def fork(*_: object) -> None:
        if not children:
            children.append(os.fork())
            if children == [0]:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(5)  # ends a child that waits for ever

    def strike() -> int:
        wait_until_posted(folder)
        signal.pthread_kill(main, signal.SIGUSR1)
        wait_until(lambda: children, "the child")
        _, status = os.waitpid(children[0], 0)
        assert collect() == 1
        return status

    main = threading.get_ident()
    handler = signal.signal(signal.SIGUSR1, fork)
    with ThreadPoolExecutor() as pool:
        struck = pool.submit(strike)
        try:
            told = str(c.add(5, timeout=20))
        except CounterError as error:
            told = str(error)
        if children == [0]:
            os._exit(0 if "forked in the middle" in told else 1)
        signal.signal(signal.SIGUSR1, handler)
        assert struck.result(30) == 0
    return told
