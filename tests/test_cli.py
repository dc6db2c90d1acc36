"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from truecount import Counter
from truecount.cli.commands import cli

COMMAND = [sys.executable, "-m", "truecount.cli"]


def truecount(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def said(*arguments: str) -> str:
    """What a command that succeeds prints to stdout."""
    result = truecount(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.removesuffix("\n")


def answered(*arguments: str) -> Any:
    """The JSON that a command that succeeds answers."""
    return json.loads(said(*arguments, "--json"))


def test_numbers_on_stdout() -> None:
    """What scripts need is on stdout, and nothing else is."""
    assert said("add", "mydomain", "counter1") == "1"
    assert said("add", "mydomain", "counter1", "41") == "42"
    assert said("subtract", "mydomain", "counter1", "2") == "40"
    assert said("subtract", "mydomain", "counter1") == "39"
    assert said("set", "mydomain", "counter1", "100") == "100"
    assert said("reserve", "mydomain", "counter1", "10") == "101 110"
    assert said("get", "mydomain", "counter1") == "110"
    assert said("list", "mydomain") == "counter1\t110"
    assert said("domains") == "mydomain"
    assert said("delete", "mydomain", "counter1") == ""
    assert said("list", "mydomain") == ""
    assert said("domains") == ""


def test_negative_amounts() -> None:
    """``-5`` is an amount and no option, wherever an amount may stand."""
    assert said("add", "mydomain", "counter1", "-5") == "-5"
    assert said("--json", "add", "mydomain", "counter1", "-5", "--key", "k").startswith("{")
    assert said("set", "mydomain", "counter1", "-7") == "-7"
    assert said("limit", "mydomain", "counter1", "--minimum", "-9") == "-9 none"
    assert truecount("add", "mydomain", "counter1", "-x").returncode == 2


def test_numbers_of_any_length() -> None:
    """500 digits are taken; 501 are refused and change nothing; far more are no number."""
    nines = "9" * 500
    assert said("set", "mydomain", "big", nines) == nines
    assert answered("get", "mydomain", "big")["value"] == int(nines)
    refused = truecount("add", "mydomain", "big", "1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "500" in refused.stderr
    assert truecount("add", "mydomain", "big", "9" * 5000).returncode == 2
    assert said("get", "mydomain", "big") == nines


def test_answers_in_json() -> None:
    """``--json`` answers with everything, before or after the command."""
    answer = answered("add", "mydomain", "counter1", "5", "--key", "order-17")
    assert (answer["domain"], answer["name"]) == ("mydomain", "counter1")
    assert (answer["before"], answer["after"], answer["key"]) == (0, 5, "order-17")
    assert answer["replayed"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer["timestamp"])
    got = json.loads(said("--json", "get", "mydomain", "counter1"))
    assert (got["value"], got["minimum"], got["maximum"]) == (5, None, None)
    assert answered("reserve", "mydomain", "counter1", "3")["last"] == 8
    assert answered("limit", "mydomain", "counter1", "--maximum", "9")["maximum"] == 9
    assert answered("receipt", "mydomain", "counter1", "order-17")["after"] == 5
    assert answered("list", "mydomain")["counters"] == {"counter1": 8}
    assert answered("domains")["domains"] == ["mydomain"]
    assert answered("where")["url"].startswith("sqlite:///")
    assert answered("delete", "mydomain", "counter1")["value"] == 8
    assert answered("purge")["purged"] == 0


def test_a_key_counts_once() -> None:
    """The same key again changes nothing, prints the same number, and says so on stderr."""
    arguments = "add", "mydomain", "counter1", "5", "--key", "order-17"
    assert said(*arguments) == "5"
    said("add", "mydomain", "counter1", "100")
    again = truecount(*arguments)
    assert (again.returncode, again.stdout) == (0, "5\n")
    assert "had been done at" in again.stderr
    assert said("get", "mydomain", "counter1") == "105"
    assert said("receipt", "mydomain", "counter1", "order-17") == "5"
    other = truecount("add", "mydomain", "counter1", "6", "--key", "order-17")
    assert other.returncode == 1
    assert "order-17" in other.stderr


@pytest.mark.parametrize("command", ["get", "delete", "receipt", "limit"])
def test_looking_never_creates(command: str) -> None:
    """Commands that read, limit or delete refuse an absent counter, and leave it absent."""
    key = ["order-17"] if command == "receipt" else []
    refused = truecount(command, "mydomain", "counter1", *key)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "counter1" in refused.stderr
    assert said("list", "mydomain") == ""


def test_bounds() -> None:
    """Bounds are printed, set, kept and removed."""
    said("set", "mydomain", "stock", "3")
    assert said("limit", "mydomain", "stock") == "none none"
    assert said("limit", "mydomain", "stock", "--minimum", "0", "--maximum", "10") == "0 10"
    refused = truecount("subtract", "mydomain", "stock", "4")
    assert refused.returncode == 1
    assert "minimum" in refused.stderr
    assert said("limit", "mydomain", "stock", "--minimum", "none") == "none 10"
    assert said("subtract", "mydomain", "stock", "4") == "-1"
    assert truecount("limit", "mydomain", "stock", "--minimum", "11").returncode == 1


MISTAKES = {
    "no command": [],
    "unknown command": ["increment", "mydomain", "counter1"],
    "no name": ["add", "mydomain"],
    "no number": ["add", "mydomain", "counter1", "one"],
    "a fraction": ["add", "mydomain", "counter1", "1.5"],
    "bad domain": ["add", "my/domain", "counter1"],
    "empty name": ["add", "mydomain", ""],
    "empty key": ["add", "mydomain", "counter1", "--key", ""],
    "unknown scheme": ["--store", "mysql://localhost", "get", "mydomain", "counter1"],
    "unknown option in the URL": ["--store", "memory://?color=red", "domains"],
    "bad time-out": ["--timeout", "soon", "domains"],
    "negative time-out": ["--timeout", "-1", "domains"],
    "purge of what is recent": ["purge", "--older-than", "3"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_wrong_usage(arguments: list[str]) -> None:
    """A mistake in the command is status 2, with words on stderr and no traceback."""
    result = truecount(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """A store that cannot be used is status 3, and says what to do."""
    (tmp_path / "file").write_text("not a folder")
    result = truecount("get", "mydomain", "counter1", "--store", f"sqlite:///{tmp_path}/file/c.db")
    assert result.returncode == 3
    assert "file/c.db" in result.stderr
    (tmp_path / "notes.db").write_text("not a database " * 100)
    result = truecount("get", "mydomain", "counter1", "--store", f"sqlite:///{tmp_path}/notes.db")
    assert result.returncode == 3
    assert (tmp_path / "notes.db").read_text() == "not a database " * 100


def test_time_out(tmp_path: Path) -> None:
    """``--timeout`` ends the wait for a store that somebody else has locked."""
    url = f"sqlite:///{tmp_path}/locked.db"
    said("set", "mydomain", "counter1", "5", "--store", url)
    with sqlite3.connect(tmp_path / "locked.db", isolation_level=None) as sql:
        sql.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        result = truecount("add", "mydomain", "counter1", "--store", url, "--timeout", "0.3")
        assert result.returncode == 3
        assert time.monotonic() - began < 5
        sql.execute("ROLLBACK")
    assert said("get", "mydomain", "counter1", "--store", url) == "5"


UNKNOWN = """
import sys
from truecount import connect
from truecount.cli import commands
from truecount.testing.lossy import LossyStore

store = LossyStore(connect(timeout=0.3))
commands.connect = lambda *a, **k: store
store.lose_replies(1000)
sys.exit(commands.run(["add", "mydomain", "counter1"]))
"""

INTERRUPTED = """
import sys
from truecount import connect
from truecount.cli import commands
from truecount.testing.lossy import LossyStore

class InterruptedStore(LossyStore):
    def settle(self, *arguments, **options):
        super().settle(*arguments, **options)
        raise KeyboardInterrupt

commands.connect = lambda *a, **k: InterruptedStore(connect())
sys.exit(commands.run(["add", "mydomain", "counter1"]))
"""


def test_unknown_outcome(default_store: str) -> None:
    """A change whose fate is not known is status 4, and prints no number."""
    Counter("mydomain", "counter1", 5)
    command = [sys.executable, "-c", UNKNOWN]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (4, "")
    assert "--key" in result.stderr


def test_interrupted_after_sending(default_store: str) -> None:
    """Ctrl-C when the change was under way is status 4: nobody was told its outcome."""
    Counter("mydomain", "counter1", 5)
    command = [sys.executable, "-c", INTERRUPTED]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (4, "")
    assert "was sent" in result.stderr


def test_interrupted_before_sending(tmp_path: Path) -> None:
    """Ctrl-C while the command waits for its turn is status 130, and nothing was applied."""
    url = f"sqlite:///{tmp_path}/locked.db"
    said("set", "mydomain", "counter1", "5", "--store", url)
    with sqlite3.connect(tmp_path / "locked.db", isolation_level=None) as sql:
        sql.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [*COMMAND, "add", "mydomain", "counter1", "--store", url, "--timeout", "none"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=30)
        sql.execute("ROLLBACK")
    assert (process.returncode, output) == (130, "")
    assert "interrupted" in complaint
    assert said("get", "mydomain", "counter1", "--store", url) == "5"


def test_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our own is status 70, with the traceback that a report needs."""
    code = (
        "import sys; from truecount.cli import commands\n"
        "commands.connect = lambda *a, **k: 1 / 0\n"
        "sys.exit(commands.run(['domains']))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 70
    assert "ZeroDivisionError" in result.stderr


def test_output_that_nobody_reads() -> None:
    """``truecount list … | head`` ends quietly."""
    Counter("mydomain", "counter1")
    process = subprocess.Popen(
        [*COMMAND, "list", "mydomain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as complaints:
        assert complaints.read() == b""
    assert process.wait() == 0


def test_a_missing_extra(tmp_path: Path) -> None:
    """Without click, the command names the extra to install."""
    (tmp_path / "click.py").write_text("raise ImportError(name='click')")
    result = truecount("domains", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert "pip install 'truecount[cli]'" in result.stderr


def test_where_the_counters_are(default_store: str, tmp_path: Path) -> None:
    """``where`` prints the store's URL, and says what chose it."""
    result = truecount("where")
    assert result.stdout.strip() == default_store
    assert "$TRUECOUNT_STORE" in result.stderr
    other = f"sqlite:///{tmp_path}/other.db"
    result = truecount("where", "--store", other)
    assert (result.stdout.strip(), result.stderr.strip()) == (other, "named by --store")
    result = truecount("where", TRUECOUNT_STORE="", XDG_DATA_HOME=str(tmp_path / "data"))
    assert result.stdout.strip() == f"sqlite:///{tmp_path}/data/truecount/counters.db"
    assert "the default" in result.stderr


def test_the_list_on_a_terminal() -> None:
    """On a terminal the list is a table with a heading."""
    said("set", "mydomain", "visitors", "1234")
    screen, terminal = pty.openpty()
    process = subprocess.Popen([*COMMAND, "list", "mydomain"], stdout=terminal)
    os.close(terminal)
    shown = b""
    while select.select([screen], [], [], 30)[0]:
        try:
            shown += os.read(screen, 4096)
        except OSError:  # the other end is closed
            break
    os.close(screen)
    assert process.wait() == 0
    assert re.search(rb"name.*value.*visitors.*1234", shown, re.DOTALL)


def test_every_command_and_option_has_help() -> None:
    """``--help`` of everything says what it does."""
    with click.Context(cli) as context:
        for name, command in cli.commands.items():
            assert command.help, name
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.help, f"{name} {parameter.name}"
            assert name in cli.get_help(context)
