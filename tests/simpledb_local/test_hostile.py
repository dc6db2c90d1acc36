"""Hostile input: an error in the API's form, soon, and the server goes on."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import wait_until
from simpledb_server import VERSION, Client, Reply, Server, serving

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that stops without having complained of anything."""
    with serving() as server:
        server.client().create("domain")
        yield server


def is_well(reply: Reply) -> bool:
    """Whether an answer is one of the API's, and no failure of the server."""
    assert reply.status < 500, reply.body
    assert (reply.code is None) == (reply.status == 200), reply.body
    return True


ENCODINGS = {
    "not UTF-8": b"DomainName=%ff%fe",
    "half a character": b"DomainName=%e2%82",
    "a surrogate": b"DomainName=%ed%a0%80",
    "too long a form": b"DomainName=%c0%80",
    "raw bytes": b"DomainName=\xff\xfe",
    "a name": b"%ff=1",
}


@pytest.mark.parametrize("form", ENCODINGS.values(), ids=ENCODINGS)
def test_bad_encodings(client: Client, form: bytes) -> None:
    """Bytes that are no UTF-8 are refused."""
    reply = client.post(b"Action=CreateDomain&Version=2009-04-15&" + form)
    assert (reply.status, reply.code) == (400, "InvalidHttpRequest")
    assert reply.message == "The HTTP request is invalid. Reason: the parameters are not UTF-8"


def test_thousands_of_parameters(client: Client) -> None:
    """More parameters than any request can need are refused, and not looked at."""
    for form in (b"&" * MEGABYTE, b"a=&" * 50_000, b"%61" * 500_000):
        assert is_well(client.post(form))
    many = "&".join(f"Attribute.{n}.Name=a" for n in range(19_000))
    reply = client.post(
        f"Action=PutAttributes&Version={VERSION}&DomainName=domain&ItemName=i&{many}".encode()
    )
    assert reply.code == "NumberSubmittedAttributesExceeded"


NUMBERS = ["9" * 5000, "-1", "1e3", "\u0663", "1.1", "", "Name", "0x1"]


@pytest.mark.parametrize("number", NUMBERS, ids=ascii)
def test_numbers_that_are_none(client: Client, number: str) -> None:
    """A list's number that is none makes a parameter that nobody asks for."""
    name = f"Attribute.{number}.Name"
    fields = {name: "a", f"Attribute.{number}.Value": "1", f"Expected.{number}.Name": "a"}
    assert is_well(client("PutAttributes", fields, DomainName="domain", ItemName="i"))
    assert is_well(client("ListDomains", MaxNumberOfDomains=number))


def test_deep_parentheses(client: Client) -> None:
    """However deep an expression goes, it is an error of syntax."""
    for opening, closing in (("(", ")"), ("not ", ""), ("(not (", "))")):
        deep = opening * 100_000 + "a = '1'" + closing * 100_000
        reply = client("Select", SelectExpression=f"select * from domain where {deep}")
        assert (reply.status, reply.code) == (400, "InvalidQueryExpression")


def test_bad_tokens(client: Client) -> None:
    """A token that is not ours, or is damaged, is refused."""
    for number in range(3):
        client.put("domain", f"item{number}", ("a", "1"))
    expression = "select * from domain limit 1"
    token = client.select(expression).token or ""
    for bad in ("", "=", "\u20ac", "A" * 100_000, token[:-8], "A" + token[1:], "WzEsMl0="):
        reply = client.select(expression, NextToken=bad)
        assert (reply.status, reply.code) == (400, "InvalidNextToken"), bad
        if bad:
            assert client("ListDomains", NextToken=bad).code == "InvalidNextToken"


def send(server: Server, *parts: bytes) -> bytes:
    """Send as much of ``parts`` as is taken, and what comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass
    return received


def memory(server: Server) -> int:
    """The most memory that the server has had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


ENDLESS = {
    "a body": (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"a" * MEGABYTE),
    "chunks": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"%x\r\n%s\r\n" % (MEGABYTE, b"a" * MEGABYTE),
    ),
    "little chunks": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n" * (MEGABYTE // 6),
    ),
    "a URI": (b"GET /?", b"a" * MEGABYTE),
    "a header": (b"GET / HTTP/1.1\r\nX-Header: ", b"a" * MEGABYTE),
    "headers": (b"GET / HTTP/1.1\r\n", b"X-Header: a\r\n" * (MEGABYTE // 13)),
    "a trailer": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
        b"a" * MEGABYTE,
    ),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
def test_endless_requests(server: Server, start: bytes, more: bytes) -> None:
    """A request that never ends takes bounded memory, and others are served meanwhile."""
    before = memory(server)
    answer = send(server, start, *[more] * 64)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert memory(server) - before < 32 * MEGABYTE
    assert server.client().ok("ListDomains").domains == ["domain"]


NONSENSE = {
    "words": b"HELLO WORLD\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n",
    "a bad URI": b"GET /\xff HTTP/1.1\r\n\r\n",
    "no URI": b"GET  HTTP/1.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a bad chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "zeros": b"\x00" * 1000,
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_http(server: Server, data: bytes) -> None:
    """What is no HTTP/1.1 gets an error in the API's form, and the connection ends."""
    answer = send(server, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<Code>InvalidHttpRequest</Code>" in answer


def test_those_who_hang_up(server: Server) -> None:
    """Connections that end in the middle of anything leave nothing behind."""
    form = b"Action=CreateDomain&Version=2009-04-15&DomainName=other"
    whole = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(form) + form
    for end in range(0, len(whole), 7):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(whole[:end])
    assert server.client().ok("ListDomains").domains == ["domain"]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(whole)  # nobody waits for this answer
    client = server.client()
    wait_until(lambda: "other" in client.ok("ListDomains").domains, "the domain is created")
    client.ok("DeleteDomain", DomainName="other")


def test_many_connections(server: Server) -> None:
    """Hundreds of connections that say nothing keep nobody else waiting."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    idle = [
        socket.create_connection(("127.0.0.1", server.port)) for _ in range(min(400, hard // 4))
    ]
    for connection in idle:
        connection.sendall(b"POST / HTTP/1.1\r\n")
    assert server.client().ok("ListDomains").status == 200
    for connection in idle:
        connection.close()


ACTIONS = [
    *("CreateDomain", "ListDomains", "DomainMetadata", "PutAttributes", "DeleteAttributes"),
    *("BatchPutAttributes", "BatchDeleteAttributes", "GetAttributes", "Select", "Query"),
]
WORDS = [
    *("DomainName", "ItemName", "Attribute", "AttributeName", "Item", "Expected", "NextToken"),
    *("Name", "Value", "Replace", "Exists", "1", "0", "2", "ConsistentRead", "SelectExpression"),
    *("MaxNumberOfDomains", "Version", "name", "value", "Signature", "Timestamp"),
]
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(".".join)
values = st.one_of(
    st.sampled_from(
        ["domain", "i", "a", "true", "false", "", "1", VERSION, "select * from domain"]
    ),
    st.text(max_size=20),
)


@settings(max_examples=300)
@given(
    action=st.one_of(st.sampled_from(ACTIONS), st.text(max_size=5)),
    pairs=st.lists(st.tuples(st.one_of(names, st.text(max_size=5)), values), max_size=12),
)
def test_random_parameters(server: Server, action: str, pairs: list[tuple[str, str]]) -> None:
    """No parameters make the server fail."""
    client = server.clients[0]
    assert is_well(client.post([("Action", action), ("Version", VERSION), *pairs]))


@settings(max_examples=200)
@given(query=st.binary(max_size=200), body=st.binary(max_size=200))
def test_random_bytes(server: Server, query: bytes, body: bytes) -> None:
    """No bytes do, in the query or in the body."""
    client = server.clients[0]
    escaped = "".join(f"%{byte:02x}" if byte % 3 else chr(byte % 26 + 97) for byte in query)
    assert is_well(client.request("POST", f"/?{escaped}", body))


@settings(max_examples=100)
@given(data=st.binary(min_size=1, max_size=300))
def test_random_connections(server: Server, data: bytes) -> None:
    """Nor do bytes that are no HTTP."""
    answer = send(server, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
