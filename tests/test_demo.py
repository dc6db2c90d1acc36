"""The demonstration shows what it promises, and fails when anything deviates."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from truecount.cli.demo.stage import deaf, terminable

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
    loss = [
        "The same counter in Amazon SimpleDB, and a reply that is lost",
        *("# SimpleDB applies the next put, and its reply is lost.", ">>> c += 5", ">>> c -= 2"),
        *(">>> print(c)", "4", ">>> c == 0", "False"),
        *("# SimpleDB applies the next put, and its reply is lost.",),
        "[{'Name': 'current_value', 'Value': '5'}]",
    ]
    lines = iter(shown.splitlines())
    assert all(line in lines for line in transcript + loss), shown  # in this order
    assert "The counter is 4,000." in shown
    assert "4,000 different numbers were handed out." in shown
    assert re.search(r"The counter is 100: the change counted once\.", shown)
    assert re.search(r"^ClientError: .*ConditionalCheckFailed", shown, re.MULTILINE)
    assert "All as promised" in shown
    assert not os.path.exists(default_store.removeprefix("sqlite:///"))


DEVIATIONS = {
    "an answer": "demo.embedded.TRANSCRIPT = (('print(1)', '2'),)",
    "the other process": "demo.embedded.ELSEWHERE = 'pass'",
    "lost adds": "real = demo.embedded.Counter\n"
    "demo.embedded.Counter = lambda *a, **k:"
    " real(a[0], a[1] + str(len(k)) * (a[1] == 'race'), 7, **k)",
    "a bare client that copes": "demo.simpledb._lose = lambda console, proxy: None",
    "a loss that does not come": "demo.simpledb.PUT, demo.simpledb.REFUSAL = '1 / 0', '...'",
    "a key that counts twice": "real = demo.embedded.Counter\n"
    "demo.embedded.Counter = type('', (real,), {'add': lambda c, n, key=None: real.add(c, n)})",
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


MOMENTS = {
    # A heading that it shows, and the seconds until what it announces is under way.
    "another process": ("Another process moves it", 0.02),
    "the race starts": ("processes add 500 times", 0.02),
    "the race": ("processes add 500 times", 0.4),
    "the kill": ("A process is killed", 0.02),
    "SimpleDB Local": ("The counter is 100", 0.05),
    "SimpleDB": ("The same counter in Amazon SimpleDB", 0.02),
}


def interrupted(
    folder: Path, moment: tuple[str, float], number: int, *, all_of_them: bool
) -> tuple[int, str]:
    """Send a signal to the demo at a moment: its status and its words."""
    heading, pause = moment
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if heading in line:
            break
    assert list(folder.iterdir())
    time.sleep(pause)
    (os.killpg if all_of_them else os.kill)(process.pid, number)
    _, words = process.communicate(timeout=60)
    return process.returncode, wait_for_the_group(process.pid) or words


def wait_for_the_group(group: int) -> str | None:
    """Wait until no process is left of a group; what is wrong if one stays."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return None
        time.sleep(0.1)
    return "processes are left"


def left(folder: Path) -> list[Path]:
    """What is left in the temporary folder but for the lock files, which serve all processes."""
    return [path for path in folder.iterdir() if path.name != f"truecount-{os.getuid()}"]


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_interrupted(moment: tuple[str, float], tmp_path: Path) -> None:
    """Ctrl-C, which reaches all its processes, ends it with one line; nothing of it stays."""
    status, words = interrupted(tmp_path, moment, signal.SIGINT, all_of_them=True)
    assert (status, words.strip()) == (130, "truecount: the demo was interrupted")
    assert not left(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_terminated(moment: tuple[str, float], tmp_path: Path) -> None:
    """SIGTERM, which reaches the first process only, ends all; nothing of it stays."""
    status, words = interrupted(tmp_path, moment, signal.SIGTERM, all_of_them=False)
    assert (status, words) == (143, "")
    assert not left(tmp_path)


def test_deaf_in_all_threads() -> None:
    """A signal that another thread is given comes after the start of a process, and not into it."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    started = []
    with terminable(), pytest.raises(SystemExit, match="143"), deaf():
        assert other.ident is not None
        signal.pthread_kill(other.ident, signal.SIGTERM)
        time.sleep(0.1)
        started.append("a process")
    assert started
    end.set()
    other.join()
