"""A server as a child process: started, stopped, killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, Self

from truecount.testing.servers.states import await_stop

__all__ = ["Server", "end", "free_port"]

PATIENCE: Final = 60.0
"""Seconds that a server may take to start, or to stop."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens.

    Below those that the system gives away, or a connection of somebody else's
    could have it before the server does; at random, since others look too,
    maybe with dice of the same seed.
    """
    while True:
        port = SystemRandom().randrange(12000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def end(process: subprocess.Popen[Any], owner: int) -> None:
    """What nobody has stopped does not outlive its owner; a forked child is none."""
    if owner == os.getpid() and process.poll() is None:
        process.kill()
        process.wait()


class Server(ABC):
    """A server that listens on a free ``port`` of 127.0.0.1, its data in a temporary ``folder``.

    A context manager: its end stops the server and removes the folder, and so
    does the end of the process that started it. Raises `RuntimeError`, with
    what the server says, when it does not start.
    """

    port: int
    process: subprocess.Popen[bytes]

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="truecount-server-"))
        weakref.finalize(self, _remove, self.folder, os.getpid())
        self.prepare()
        self.start()

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves requests by now; it may raise an OSError instead of saying no."""

    def prepare(self) -> None:  # noqa: B027  # most have nothing to lay out
        """Lay out the folder, before the first start."""

    def options(self) -> dict[str, Any]:
        """What `subprocess.Popen` is to be told besides: a user, an environment."""
        return {}

    def start(self) -> None:
        """Start it, on the same port and data as before, and wait until it serves."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # the subclass's own program
                list(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self.options(),
            )
        weakref.finalize(self, end, self.process, os.getpid())
        deadline = time.monotonic() + PATIENCE
        try:
            while not self._serves():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{type(self).__name__} did not start: {self.complaint()}")
                time.sleep(0.02)
        except BaseException:  # whatever it is, the server must not outlive it
            self.kill()
            raise

    def complaint(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text(errors="replace")[-2000:].strip()

    def stop(self) -> None:
        """Stop it as SIGTERM does."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def freeze(self) -> None:
        """Have it do nothing until `thaw`."""
        self.signal(signal.SIGSTOP)
        await_stop(self.process.pid)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        """Stop it, and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serves(self) -> bool:
        try:
            return self.is_ready()
        except OSError:
            return False


def _remove(folder: Path, owner: int) -> None:
    if owner == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
