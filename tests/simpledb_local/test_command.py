"""The command ``simpledb-local``."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from simpledb_local.cli import cli
from simpledb_server import Server, command, serving


def test_the_ready_line() -> None:
    """One line on stdout says where the server is; nothing else is ever said."""
    with serving() as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert server.client().ok("ListDomains").status == 200


def test_another_host() -> None:
    """``--host`` says where to listen."""
    with serving("--host", "localhost") as server:
        assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):\d+", server.url)


def test_a_port_that_is_taken() -> None:
    """A port that somebody else has is status 1, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command("--port", str(port))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n")


def test_a_host_that_is_not_there() -> None:
    """So is an address that is not this machine's."""
    result = command("--host", "192.0.2.1", "--port", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot listen on 192.0.2.1:0" in result.stderr


MISTAKES = {
    "half a key": ["--access-key", "AKID"],
    "the other half": ["--secret-key", "secret"],
    "a port": ["--port", "65536"],
    "an empty folder": ["--data", ""],
    "a lag": ["--lag", "-1"],
    "a rate": ["--fail-rate", "1.5"],
    "an argument": ["now"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_wrong_usage(arguments: list[str]) -> None:
    """A mistake in the options is status 2, with words on stderr."""
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_help() -> None:
    """``--help`` says what every option does."""
    result = command("--help")
    assert result.returncode == 0
    for parameter in cli.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help
        assert parameter.opts[0] in result.stdout


@pytest.mark.parametrize("module", ["click", "lark", "starlette", "uvicorn", "httptools", "uvloop"])
def test_a_missing_extra(tmp_path: Path, module: str) -> None:
    """Without one of its modules, the command names the extra to install."""
    (tmp_path / f"{module}.py").write_text(f"raise ImportError(name={module!r})")
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    result = command("--port", "0", PYTHONPATH=path)
    assert (result.returncode, result.stdout) == (2, "")
    assert module in result.stderr
    assert "pip install 'truecount[simpledb-local]'" in result.stderr


def test_it_imports_nothing_of_truecount() -> None:
    """The server and the counter know nothing of each other."""
    code = (
        "import sys, simpledb_local.cli\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'truecount']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reader_that_is_gone() -> None:
    """The server lives on when nobody reads its line any more."""
    server = Server()
    assert server.process.stdout is not None
    server.process.stdout.close()
    assert server.client().ok("ListDomains").status == 200
    server.process.stdout = None
    assert server.stop()[0] == 0


BUG = """
from simpledb_local import operations
operations.Operations._list_domains = lambda self, parameters: 1 / 0
from simpledb_local.__main__ import main
main()
"""


def test_a_bug() -> None:
    """A fault of our own is status 500 in the API's form; its traceback is on stderr."""

    class Faulty(Server):
        COMMAND = (sys.executable, "-c", BUG)

    server = Faulty()
    reply = server.client()("ListDomains")
    assert (reply.status, reply.code) == (500, "InternalError")
    assert reply.message == "Request could not be executed due to an internal service error."
    assert server.client()("CreateDomain", DomainName="domain").status == 200
    status, _, complaints = server.stop()
    assert status == 0
    assert "ZeroDivisionError" in complaints
