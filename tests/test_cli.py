"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
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
from truecount.testing.history import Recorder

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


def test_arguments_that_look_like_negative_numbers(tmp_path: Path) -> None:
    """Whatever begins with ``-`` and goes on in digits arrives as it was typed."""
    assert answered("add", "-123", "-456", "-5", "--key", "-7")["key"] == "-7"
    counter = Counter("-123", "-456", create=False)
    assert counter.receipt("-7") == counter == -5
    assert said("receipt", "-123", "-456", "-7") == "-5"
    refused = truecount("get", "mydomain", "counter1", "--store", "-8")
    assert (refused.returncode, "'-8'" in refused.stderr) == (2, True)
    refused = truecount("get", "mydomain", "counter1", "--timeout", "-9")
    assert (refused.returncode, "-9" in refused.stderr) == (2, True)


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


def test_a_repeated_reservation() -> None:
    """The same key gets the same numbers again, is told so, and JSON tells it too."""
    arguments = "reserve", "mydomain", "invoices", "3", "--key", "batch-9"
    assert answered(*arguments)["replayed"] is False
    said("add", "mydomain", "invoices", "100")
    again = truecount(*arguments)
    assert (again.returncode, again.stdout) == (0, "1 3\n")
    assert "had been done at" in again.stderr
    answer = answered(*arguments)
    assert (answer["first"], answer["last"], answer["replayed"]) == (1, 3, True)


REFUSED = {
    "an empty key": ["add", "--key", ""],
    "a long key": ["add", "--key", "k" * 300],
    "an empty key to set": ["set", "5", "--key", ""],
    "501 digits to add": ["add", "1" * 501],
    "501 digits to subtract": ["subtract", "1" * 501],
    "600 digits to add": ["add", "1" * 600],
    "501 digits to set": ["set", "1" * 501],
    "501 digits to reserve": ["reserve", "1" * 501],
    "nothing to reserve": ["reserve", "0"],
    "less than nothing to reserve": ["reserve", "-1"],
    "no number": ["add", "one"],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_creates_nothing(arguments: list[str]) -> None:
    """A command that is refused for its arguments leaves no counter at 0 behind."""
    command, *rest = arguments
    result = truecount(command, "mydomain", "counter1", *rest)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert said("list", "mydomain") == ""


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
    assert said("limit", "mydomain", "stock", "--maximum", "NONE") == "none none"
    assert truecount("limit", "mydomain", "stock", "--minimum", "1").returncode == 1


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
    "underscores in a time-out": ["--timeout", "1_0", "domains"],
    "spaces in a time-out": ["domains", "--timeout", " 5"],
    "other digits in a time-out": ["domains", "--timeout", "٣"],
    "purge of what is recent": ["purge", "--older-than", "3"],
    "an option of others": ["demo", "--json"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_wrong_usage(arguments: list[str]) -> None:
    """A mistake in the command is status 2, with words on stderr and no traceback."""
    result = truecount(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_what_would_have_been_right() -> None:
    """The words name what was typed, and what can be typed instead."""
    bound = truecount("limit", "mydomain", "counter1", "--minimum", "low")
    assert "'low' is neither a whole number nor 'none'" in bound.stderr
    for days in ("-5", "3", "many"):
        purge = truecount("purge", "--older-than", days)
        assert f"'{days}' is not a whole number of days, 7 or more" in purge.stderr


def test_time_outs_that_are_taken() -> None:
    """Whole numbers, fractions, and ``none`` in any case."""
    for timeout in ("5", "0.5", ".5", "5.", "1e2", "none", "None"):
        assert said("domains", "--timeout", timeout) == ""


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
from truecount.testing.faulty import FaultyStore

store = FaultyStore(connect(timeout=0.3))
commands.connect = lambda *a, **k: store
store.lose_replies(1000)
sys.exit(commands.run(["add", "mydomain", "counter1"]))
"""

INTERRUPTED = """
import sys
from truecount import connect
from truecount.cli import commands
from truecount.testing.faulty import FaultyStore

class InterruptedStore(FaultyStore):
    def settle(self, *arguments, **options):
        super().settle(*arguments, **options)
        raise KeyboardInterrupt

commands.connect = lambda *a, **k: InterruptedStore(connect())
sys.exit(commands.run(["add", "mydomain", "counter1"]))
"""


REFUSED_AND_INTERRUPTED = """
import sys, time
from truecount import StoreUnavailableError, connect
from truecount.cli import commands
from truecount.testing.faulty import FaultyStore

def interrupt(seconds):
    raise KeyboardInterrupt

time.sleep = interrupt
store = FaultyStore(connect())
for _ in range(9):
    store.refuse(StoreUnavailableError("not now"))
commands.connect = lambda *a, **k: store
sys.exit(commands.run(["add", "mydomain", "counter1"]))
"""


def test_unknown_outcome(default_store: str) -> None:
    """A change whose fate is not known is status 4, and prints no number."""
    Counter("mydomain", "counter1", 5)
    command = [sys.executable, "-c", UNKNOWN]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (4, "")
    assert "--key" in result.stderr


def test_the_verdicts_on_histories(tmp_path: Path) -> None:
    """A contradiction is status 1, and a gap that nobody can judge no clearance either, but 3."""

    def add(n: int, before: int, revision: int, name: str = "c") -> None:
        recorder.call("add", "mydomain", name, n=n).returned((before, before + n, revision))

    recorder = Recorder(tmp_path)
    recorder.call("refresh", "mydomain", "c").returned(view=(100, 0))
    add(5, 0, 101)
    assert truecount("check", str(tmp_path)).returncode == 0
    for number in range(12):
        recorder.call("add", "mydomain", "c", n=3**number)  # never to return
    add(1, 5 + sum(3**number for number in range(9)), 111)
    undecided = truecount("check", str(tmp_path))
    assert undecided.returncode == 3
    assert "1 gap with too much unknown to be judged" in undecided.stdout
    assert "undecided" in undecided.stdout
    add(1, 0, 101, "d")
    add(1, 0, 102, "d")
    convicted = truecount("check", str(tmp_path))
    assert (convicted.returncode, "undecided" in convicted.stdout) == (1, False)


def test_interrupted_after_sending(default_store: str) -> None:
    """Ctrl-C when the change was under way is status 4: nobody was told its outcome."""
    Counter("mydomain", "counter1", 5)
    command = [sys.executable, "-c", INTERRUPTED]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (4, "")
    assert "was sent" in result.stderr


def test_interrupted_before_sending(default_store: str) -> None:
    """Ctrl-C between attempts that were refused is status 130."""
    Counter("mydomain", "counter1", 5)
    command = [sys.executable, "-c", REFUSED_AND_INTERRUPTED]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (130, "")
    assert "nothing was sent" in result.stderr
    assert said("get", "mydomain", "counter1") == "5"


def test_interrupted_while_waiting(tmp_path: Path) -> None:
    """Ctrl-C ends the wait for a file that somebody has locked, and says how it ended."""
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
    words = {130: "nothing was sent", 4: "its outcome is unknown"}  # between attempts, or in one
    assert output == ""
    assert words[process.returncode] in complaint
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


@pytest.mark.parametrize("arguments", [["list", "mydomain"], ["--help"], ["demo", "--fast"]])
def test_output_that_nobody_reads(arguments: list[str]) -> None:
    """``truecount list … | head`` ends quietly."""
    Counter("mydomain", "counter1")
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as complaints:
        assert complaints.read() == b""
    assert process.wait() == 0


CANNOT_WRITE = {
    "a full disk": (">/dev/full", "No space left on device"),
    "a full disk, also for words": (">/dev/full 2>&1", ""),
    "closed": (">&-", "Bad file descriptor"),
    "closed, all of them": ("<&- >&- 2>&-", ""),
}


@pytest.mark.parametrize(("redirection", "reason"), CANNOT_WRITE.values(), ids=CANNOT_WRITE)
def test_an_answer_that_cannot_be_written(redirection: str, reason: str) -> None:
    """The change is made, so that it is no crash; status 4, as the caller knows no outcome."""
    command = f"{shlex.join([*COMMAND, 'add', 'mydomain', 'counter1'])} {redirection}"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 4
    assert "Traceback" not in result.stderr
    if reason:
        assert result.stderr == (
            "truecount: the command was carried out, but its answer could not be written: "
            f"{reason}\n"
        )
    assert Counter("mydomain", "counter1", create=False) == 1


def test_words_that_cannot_be_written() -> None:
    """What cannot be said on stderr does not change the answer, nor the status."""
    said("add", "mydomain", "counter1", "--key", "order-17")
    command = shlex.join([*COMMAND, "add", "mydomain", "counter1", "--key", "order-17"])
    for redirection in ("2>/dev/full", "2>&-"):
        result = subprocess.run(
            ["/bin/sh", "-c", f"{command} {redirection}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (result.returncode, result.stdout) == (0, "1\n")


def test_characters_that_the_terminal_lacks() -> None:
    """A name that the output's encoding lacks is escaped, and JSON remains JSON."""
    Counter("mydomain", "Жя😀", 5)
    latin = truecount("list", "mydomain", PYTHONIOENCODING="latin-1")
    assert (latin.returncode, latin.stdout) == (0, "\\u0416\\u044f\\U0001f600\t5\n")
    answer = truecount("list", "mydomain", "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(answer.stdout)["counters"] == {"Жя😀": 5}


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


def test_every_way_to_start() -> None:
    """``python -m truecount`` is the command, as ``truecount`` and ``-m truecount.cli`` are."""
    command = [sys.executable, "-m", "truecount", "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert version == said("--version") + "\n"
    command = [str(Path(sys.executable).parent / "truecount"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == version


def test_seeds_that_are_none() -> None:
    """The simulation's command tells what seeds look like."""
    command = [sys.executable, "-m", "truecount.testing.simulation"]
    for seeds in ("abc", "1:", "1:b", "1_0"):
        result = subprocess.run([*command, seeds], capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert f"argument seeds: write 5 or 0:20000, not '{seeds}'" in result.stderr


def shown_on_a_terminal(columns: int, *arguments: str) -> str:
    """What a command that succeeds writes to a terminal of so many columns."""
    screen, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen([*COMMAND, *arguments], stdout=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while select.select([screen], [], [], 30)[0]:
        try:
            shown += os.read(screen, 4096)
        except OSError:  # the other end is closed
            break
    os.close(screen)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


def test_the_list_on_a_terminal() -> None:
    """On a terminal the list is a table with a heading."""
    said("set", "mydomain", "visitors", "1234")
    shown = shown_on_a_terminal(80, "list", "mydomain")
    assert re.search(r"name.*value.*visitors.*1234", shown, re.DOTALL)


def test_any_name_on_a_terminal() -> None:
    """Brackets and colons in a name are no markup."""
    for name in ("[/]", "[bold]loud", ":smile:"):
        said("set", "mydomain", name, "5")
    shown = shown_on_a_terminal(80, "list", "mydomain")
    assert {line.split()[0] for line in shown.splitlines()[1:]} == {"[/]", "[bold]loud", ":smile:"}


def test_a_narrow_terminal() -> None:
    """What does not fit is folded, and nothing is cut off."""
    number = "9" * 100
    said("set", "mydomain", "n" * 60, number)
    shown = shown_on_a_terminal(40, "list", "mydomain")
    assert max(map(len, shown.splitlines())) <= 40
    assert (shown.count("9"), shown.count("n")) == (100, 60 + len("n"))


def test_every_command_and_option_has_help() -> None:
    """``--help`` of everything says what it does."""
    with click.Context(cli) as context:
        for name, command in cli.commands.items():
            assert command.help, name
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.help, f"{name} {parameter.name}"
            assert name in cli.get_help(context)


def test_the_help_is_whole() -> None:
    """At 80 columns no line of the list of commands is cut; a command's own options come first."""
    commands = truecount("--help", COLUMNS="80").stdout.partition("Commands:")[2]
    assert "..." not in commands
    add = truecount("add", "--help").stdout
    assert add.index("--key TEXT") < add.index("--store URL")
    assert "for example: truecount add" in " ".join(add.split()).lower()
