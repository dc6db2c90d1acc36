"""The second act: the same counter in SimpleDB, and a reply that is lost."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from rich.console import Console
from rich.markup import escape

from truecount.cli.demo.stage import TRANSCRIPT, Deviation, Interpreter, deaf, default_store
from truecount.testing.proxy import Proxy
from truecount.testing.servers import SimpleDBLocal

__all__ = ["act"]

NEEDED: Final = ("boto3", "httptools", "lark", "starlette", "uvicorn", "uvloop")

LOST: Final = TRANSCRIPT.index(("c += 5", ""))
"""The line whose reply is lost."""

CLIENT: Final = (
    "import boto3; sdb = boto3.client('sdb', 'us-east-1', endpoint_url='{}', "
    "aws_access_key_id='any', aws_secret_access_key='any')"
)

ATTRIBUTES: Final = "attributes = [{'Name': 'current_value', 'Value': '5', 'Replace': True}]"

PUT: Final = (
    "sdb.put_attributes(DomainName='mydomain', ItemName='counter1', Attributes=attributes, "
    "Expected={'Name': 'current_value', 'Value': '4'})"
)

REFUSAL: Final = (
    "ClientError: ...(ConditionalCheckFailed)...: Conditional check failed. "
    "Attribute (current_value) value is (5) but was expected (4)"
)

GET: Final = (
    "sdb.get_attributes(DomainName='mydomain', ItemName='counter1', ConsistentRead=True, "
    "AttributeNames=['current_value'])['Attributes']"
)


def act(console: Console, *, fast: bool) -> None:
    """Play it, if what it needs is installed; raise `Deviation` when it goes otherwise."""
    if not all(map(find_spec, NEEDED)):
        console.print("\nThe second act, on SimpleDB, is left out. It needs:\n")
        console.print(escape("pip install 'truecount[simpledb,simpledb-local]'"), soft_wrap=True)
        return
    with (
        tempfile.TemporaryDirectory(prefix="truecount-demo-") as folder,
        _serving(folder) as server,
        Proxy(server.port) as proxy,
        default_store(f"simpledb+http://127.0.0.1:{proxy.port}"),
    ):
        _play(console, server, proxy, Interpreter(console, fast=fast))


def _play(console: Console, server: SimpleDBLocal, proxy: Proxy, interpreter: Interpreter) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    console.print("\n[bold]The same counter in Amazon SimpleDB, and a reply that is lost[/]\n")
    console.print(f"[dim]$[/] simpledb-local\n{server.url}")
    console.print("[dim]# In front of it is a proxy, which loses a reply when it is told to.[/]")
    console.print(f"[dim]$[/] export TRUECOUNT_STORE=simpledb+{url}")
    for number, (line, answer) in enumerate(TRANSCRIPT):
        if number == LOST:
            _lose(console, proxy)
        interpreter.type(line, answer)
    console.print("\n[bold]What bare boto3 makes of the same loss[/]\n")
    interpreter.type(CLIENT.format(url), "")
    interpreter.type(ATTRIBUTES, "")
    _lose(console, proxy)
    interpreter.type(PUT, REFUSAL)
    interpreter.type(GET, "[{'Name': 'current_value', 'Value': '5'}]")
    console.print(
        "\nThe put had been applied. boto3 sent it again, and took its own write for somebody "
        "else's; the counter looked for its receipt."
    )
    if proxy.lost != 2:
        raise Deviation(f"{proxy.lost} replies were lost, and should have been 2")


def _lose(console: Console, proxy: Proxy) -> None:
    console.print("[dim]# SimpleDB applies the next put, and its reply is lost.[/]")
    proxy.lose(1, lambda request: b"Action=PutAttributes" in request)


@contextlib.contextmanager
def _serving(folder: str) -> Iterator[SimpleDBLocal]:
    server = None
    try:
        with deaf():  # what came meanwhile strikes at its end
            server = SimpleDBLocal("--data", folder)
        yield server
    finally:
        if server is not None:
            server.kill()  # as it is deaf
