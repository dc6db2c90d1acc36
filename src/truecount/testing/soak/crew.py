"""The clients of a soak: started, killed, stopped and continued, some with a wrong clock."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from pathlib import Path
from random import Random
from typing import Final, Self

from truecount.testing.soak.client import Orders

__all__ = ["Crew", "faketime"]

PATIENCE: Final = 30.0
"""Seconds that a client may take to begin, and to end when it is told to."""

LIBRARIES: Final = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)


def faketime() -> str | None:
    """Where libfaketime is, which sets the clocks of clients wrong; None where it is not."""
    return next((path for pattern in LIBRARIES for path in glob.glob(pattern)), None)


class Crew:
    """``size`` clients with ``orders``; who is killed is replaced. A context manager.

    Every third client's clock, the first one's too, is wrong by up to ``skew``
    seconds; whether it is, the client notes. ``tally`` counts the other faults, by kind.
    """

    def __init__(self, orders: Orders, size: int, skew: float, dice: Random) -> None:
        self.orders = orders
        self.size = size
        self.skew = skew
        self.tally: Tally[str] = Tally()
        self._dice = dice
        self._library = faketime() if skew else None
        self._clients: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self) -> None:
        """Start those that are missing."""
        while len(self._clients) < self.size:
            self._clients.append(self._start())

    def kill(self) -> None:
        """Kill one of them as ``kill -9`` does, and start another."""
        victim = self._dice.choice(self._at_work())
        self._clients.remove(victim)
        _signal(victim, signal.SIGKILL)
        victim.wait()
        self.tally["client killed"] += 1
        self.start()

    def stop(self, seconds: float) -> None:
        """Have one of them stand still for a while."""
        victim = self._dice.choice(self._at_work())
        _signal(victim, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            _signal(victim, signal.SIGCONT)
        self.tally["client stopped"] += 1

    def check(self) -> None:
        """Raise `RuntimeError` if one has ended by itself."""
        for client in self._clients:
            if client.poll() is not None:
                raise RuntimeError(f"a client ended by itself, with status {client.returncode}")

    def end(self) -> None:
        """Tell all of them to end, and wait until they have. Raises `RuntimeError`."""
        self.check()
        for client in self._clients:
            _signal(client, signal.SIGKILL if self.orders.naive else signal.SIGTERM)
        for client in self._clients:
            # The signal may come before the client has begun.
            if client.wait(PATIENCE) not in (0, -signal.SIGTERM) and not self.orders.naive:
                raise RuntimeError(f"a client ended with status {client.returncode}")
        self._clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients:
            _signal(client, signal.SIGKILL)
            client.wait()

    def _at_work(self) -> list[subprocess.Popen[bytes]]:
        """Those that have begun their history: it is no fault to kill one that has not."""
        history = Path(self.orders.folder, "history")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if begun := [each for each in self._clients if any(history.glob(f"{each.pid}-*"))]:
                return begun
            self.check()
            time.sleep(0.02)
        raise RuntimeError("no client has begun")

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        environment = dict(os.environ)
        if self._library is not None and self._started % 3 == 1:
            environment |= self._wrong_clock(self._library)
        orders = self.orders._replace(seed=f"{self.orders.seed} {self._started}")
        return subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-m", "truecount.testing.soak.client", orders.written()],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # it and its children are signalled together
        )

    def _wrong_clock(self, library: str) -> dict[str, str]:
        off = self._dice.uniform(0.1, 1.0) * self.skew * self._dice.choice((1, -1))
        return {
            "LD_PRELOAD": library,
            "FAKETIME": f"{off:+.3f}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # as older releases have it
        }


def _signal(client: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(client.pid, number)
