"""SimpleDB Local, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from typing import Self
from urllib.parse import urlsplit

from truecount.testing.servers.process import end

__all__ = ["SimpleDBLocal"]


class SimpleDBLocal:
    """SimpleDB Local, on a free port of 127.0.0.1, with the command line's ``options``.

    A context manager: its end stops the server, and so does the end of the
    process that started it. ``url`` is where it listens,
    ``store`` the URL of the store there. Needs the extra ``simpledb-local``;
    raises `RuntimeError`, with what the server says, when it does not start.
    """

    COMMAND: tuple[str, ...] = (sys.executable, "-m", "simpledb_local")

    def __init__(self, *options: object, port: int = 0) -> None:
        self.process = subprocess.Popen(  # noqa: S603  # our own program
            [*self.COMMAND, "--port", str(port), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        weakref.finalize(self, end, self.process, os.getpid())
        try:
            self.url = self.process.stdout.readline().strip()
        except BaseException:  # it may be interrupted here
            self.kill()
            raise
        if not self.url:
            _, complaint = self.process.communicate()
            raise RuntimeError(complaint.strip() or "simpledb-local ended before it began")
        self.port = urlsplit(self.url).port or port
        self.store = f"simpledb+{self.url}"

    def stop(self) -> tuple[int, str, str]:
        """Stop it as SIGTERM does: the exit status, the rest of stdout, and stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        self.process.kill()
        self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Wait for its end."""
        output, complaint = self.process.communicate(timeout=30)
        return self.process.returncode, output, complaint

    def close(self) -> None:
        """Stop it."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
