"""SimpleDB Local as a real process, and the plainest client there can be."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from truecount.testing.servers import SimpleDBLocal

VERSION = "2009-04-15"
NAMESPACE = "http://sdb.amazonaws.com/doc/2009-04-15/"


class Server(SimpleDBLocal):
    """A server process on a free port of 127.0.0.1, and its clients."""

    def __init__(self, *options: object, port: int = 0) -> None:
        self.clients: list[Client] = []
        super().__init__(*options, port=port)

    def client(self) -> Client:
        """A client with a connection of its own."""
        client = Client(self.port)
        self.clients.append(client)
        return client

    def stop(self, sign: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Stop it as ``sign`` does: (exit status, the rest of stdout, stderr)."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Wait for its end."""
        for client in self.clients:
            client.connection.close()
        return super().wait()


@contextmanager
def serving(*options: object) -> Iterator[Server]:
    """A server that stops afterwards, cleanly and without a complaint."""
    server = Server(*options)
    try:
        yield server
    except BaseException:  # whatever it is, the server must not outlive it
        server.kill()
        raise
    assert server.stop() == (0, "", "")


class Reply:
    """An answer, taken apart."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        text = body.decode().replace(f' xmlns="{NAMESPACE}"', "", 1)
        self.xml = ElementTree.fromstring(text)  # noqa: S314  # our own server's
        self.code = self.xml.findtext("Errors/Error/Code")
        self.message = self.xml.findtext("Errors/Error/Message")
        usage = next(self.xml.iter("BoxUsage"), None)
        self.box_usage = None if usage is None else usage.text

    @property
    def plain(self) -> str:
        """The document with its request id, which is another one each time, replaced by ID."""
        found = next(iter(self.xml.iter("RequestId")), None)
        if found is None:
            found = next(iter(self.xml.iter("RequestID")))
        assert found.text == str(uuid.UUID(found.text or ""))
        return self.body.decode().replace(found.text, "ID")

    @property
    def attributes(self) -> dict[str, list[str]]:
        """What GetAttributes answered."""
        assert self.status == 200, self.message
        return _attributes(self.xml.find("GetAttributesResult"))

    @property
    def items(self) -> dict[str, dict[str, list[str]]]:
        """What Select answered, in its order."""
        assert self.status == 200, self.message
        return {i.findtext("Name", ""): _attributes(i) for i in self.xml.iter("Item")}

    @property
    def count(self) -> int:
        """What ``count(*)`` answered."""
        return int(self.items["Domain"]["Count"][0])

    @property
    def token(self) -> str | None:
        """The token for the next page."""
        return next((found.text for found in self.xml.iter("NextToken")), None)

    @property
    def domains(self) -> list[str]:
        """What ListDomains answered."""
        return [found.text or "" for found in self.xml.iter("DomainName")]


class Client:
    """One keep-alive connection; parameters go as they are."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self, action: str, parameters: dict[str, Any] | None = None, **more: Any) -> Reply:
        """POST an operation; its success is for the caller to look at."""
        return self.post({"Action": action, "Version": VERSION, **(parameters or {}), **more})

    def ok(self, action: str, parameters: dict[str, Any] | None = None, **more: Any) -> Reply:
        """POST an operation, which must succeed."""
        reply = self(action, parameters, **more)
        assert reply.status == 200, reply.body
        return reply

    def post(self, parameters: Any, **headers: str) -> Reply:
        """POST a form."""
        body = parameters if isinstance(parameters, bytes) else urlencode(parameters).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.request("POST", "/", body, headers)

    def get(self, parameters: Any, start: str = "/", **headers: str) -> Reply:
        """GET with a query, appended to ``start``."""
        return self.request("GET", f"{start}?{urlencode(parameters)}", None, headers)

    def request(
        self, verb: str, target: str, body: bytes | None = None, headers: Any = None
    ) -> Reply:
        """Any request."""
        self.connection.request(verb, target, body, headers or {})
        response = self.connection.getresponse()
        return Reply(response.status, response.headers, response.read())

    # What many tests do

    def create(self, domain: str) -> None:
        """Create a domain."""
        self.ok("CreateDomain", DomainName=domain)

    def put(self, domain: str, item: str, *pairs: tuple[Any, ...], **more: Any) -> Reply:
        """Put pairs: (name, value) or (name, value, True) to replace."""
        return self("PutAttributes", {**put_fields(item, *pairs), "DomainName": domain, **more})

    def read(self, domain: str, item: str, **more: Any) -> dict[str, list[str]]:
        """The attributes of an item, consistently."""
        more = {"ConsistentRead": "true", **more}
        return self.ok("GetAttributes", DomainName=domain, ItemName=item, **more).attributes

    def select(self, expression: str, **more: Any) -> Reply:
        """Select, consistently."""
        more = {"ConsistentRead": "true", **more}
        return self("Select", SelectExpression=expression, **more)


def put_fields(item: str, *pairs: tuple[Any, ...]) -> dict[str, str]:
    """The parameters that put an item."""
    fields = {"ItemName": item}
    for number, (name, value, *replace) in enumerate(pairs, 1):
        fields[f"Attribute.{number}.Name"] = name
        fields[f"Attribute.{number}.Value"] = str(value)
        if replace:
            fields[f"Attribute.{number}.Replace"] = str(replace[0]).lower()
    return fields


def batch_fields(*items: dict[str, str]) -> dict[str, str]:
    """The parameters of a batch of such items."""
    fields = {}
    for number, item in enumerate(items, 1):
        for name, value in item.items():
            fields[f"Item.{number}.{name}"] = value
    return fields


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*SimpleDBLocal.COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, **environment},
    )


def _attributes(element: ElementTree.Element | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute in () if element is None else element.findall("Attribute"):
        name = attribute.findtext("Name", "")
        found.setdefault(name, []).append(attribute.findtext("Value", ""))
    return found
