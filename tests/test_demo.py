"""The demonstration shows what it promises, and fails when anything deviates."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "truecount.cli", "demo"]


def test_the_demo(default_store: str) -> None:
    """It plays to its end, with the seed's lines and answers; it leaves the user's store alone."""
    result = subprocess.run(COMMAND, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    shown = result.stdout
    transcript = [
        ">>> c = counter.Counter('mydomain', 'counter1', 0)",
        *(">>> print(c)", "0", ">>> c += 1", ">>> print(c)", "1"),
        *(">>> c == 0", "False"),
        *(">>> c += 1", "ValueError: Counter was out of sync", ">>> print(c)", "42"),
    ]
    lines = iter(shown.splitlines())
    assert all(line in lines for line in transcript), shown  # in this order
    assert "The counter is 4,000." in shown
    assert "4,000 different numbers were handed out." in shown
    assert re.search(r"The counter is 100: the change counted once\.", shown)
    assert "All as promised" in shown
    assert not os.path.exists(default_store.removeprefix("sqlite:///"))


DEVIATIONS = {
    "an answer": "demo.TRANSCRIPT = (('print(1)', '2'),)",
    "the other process": "demo.ELSEWHERE = 'pass'",
    "lost adds": "real = demo.Counter\n"
    "demo.Counter = lambda *a, **k: real(a[0], a[1] + str(len(k)) * (a[1] == 'race'), 7, **k)",
    "a key that counts twice": "real = demo.Counter\n"
    "demo.Counter = type('', (real,), {'add': lambda c, n, key=None: real.add(c, n)})",
}


@pytest.mark.parametrize("change", DEVIATIONS.values(), ids=DEVIATIONS)
def test_a_deviation_fails(change: str) -> None:
    """When something is not as shown, the demo ends with status 1 and says what."""
    code = (
        "import sys; from truecount.cli import commands, demo\n"
        f"{change}\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(commands.run(['demo', '--fast']))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1, result.stderr
    assert "the demo went wrong" in result.stderr
