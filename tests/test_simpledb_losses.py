"""SimpleDB does what it is asked for, and the reply is lost: applied once, reported as success."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import workers
from helpers import SPAWN
from networked import CHANGES, INSTEAD, Networked
from simpledb_server import serving
from truecount import Counter, CounterNotFoundError, OutcomeUnknownError, connect
from truecount.testing.faulty import FaultyStore
from truecount.testing.proxy import CUT, Proxy
from truecount.testing.servers import SimpleDBLocal

FAULT = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml\r\nContent-Length: 120\r\n\r\n"
    b"<Response><Errors><Error><Code>InternalError</Code><Message>no</Message></Error></Errors>"
    b"<RequestID>lost</RequestID></Response>"
)
FAULT = FAULT.replace(b"120", b"%d" % len(FAULT.partition(b"\r\n\r\n")[2]))


def page(status: str, text: bytes) -> bytes:
    """What something on the way answers instead of SimpleDB."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


def said(action: str, result: str) -> bytes:
    """An answer of SimpleDB's."""
    result = f"<{action}Result>{result}</{action}Result>"
    end = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
    space = "http://sdb.amazonaws.com/doc/2009-04-15/"
    text = f'<{action}Response xmlns="{space}">{result}{end}</{action}Response>'
    return page("200 OK", text.encode())


REFUSAL = (
    b"<Response><Errors><Error><Code>ConditionalCheckFailed</Code><Message>no</Message></Error>"
    b"</Errors><RequestID>1</RequestID></Response>"
)
STRANGE = {
    "cut in the middle": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<PutAttr",
    "a portal's page": page("200 OK", b"<html><body>Welcome</body></html>"),
    "nothing": page("200 OK", b""),
    "garbage": page("200 OK", b"\x00\xff<"),
    "a gateway's 413": page("413 Content Too Large", b"<html>413</html>"),
    "a gateway's 429": page("429 Too Many Requests", b"slow down"),
    "a gateway's 302": page("302 Found", b""),
    "a gateway's 502": page("502 Bad Gateway", b"bad gateway"),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "a refusal under 200": page("200 OK", REFUSAL),
    "a refusal under 302": page("302 Found", REFUSAL),
    "a portal's page in Chinese": page("200 OK", b"<?xml version='1.0' encoding='Shift_JIS'?><a/>"),
    "a code that nobody knows": page("200 OK", b"<?xml version='1.0' encoding='nobody'?><a/>"),
    "an item without a name": said("Select", "<Item><Attribute/></Item>"),
    "the answer to another question": said("DomainMetadata", ""),
    "an answer without a result": page(
        "200 OK",
        b"<GetAttributesResponse><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        b"</GetAttributesResponse>",
    ),
}


def is_write(request: bytes) -> bool:
    """Whether a request writes attributes."""
    return b"Action=PutAttributes" in request or b"Action=DeleteAttributes" in request


@pytest.fixture(scope="module")
def server() -> Iterator[SimpleDBLocal]:
    with serving() as server:
        yield server


@pytest.fixture
def proxy(server: SimpleDBLocal) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def lose(proxy: Proxy, count: int, instead: bytes | None) -> None:
    """Lose the reply to the next write, and to so many requests in a row, whatever they are."""
    proxy.lose(1, is_write, instead)
    proxy.lose(count - 1, instead=instead)


def url_through(proxy: Proxy) -> str:
    """The store behind ``proxy``, which does not wait long for an answer."""
    return f"simpledb+http://127.0.0.1:{proxy.port}?read_timeout=0.2&timeout=60"


class TestSimpleDBLocal(Networked):
    """Replies that are lost, requests that are late, on SimpleDB Local."""

    survives = False  # with --data it does: below

    @classmethod
    def start(cls) -> SimpleDBLocal:
        return SimpleDBLocal()

    def is_write(self, request: bytes) -> bool:
        return is_write(request)


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("lost", [1, 3, 10])
def test_faults_of_the_service(server: SimpleDBLocal, proxy: Proxy, lost: int, what: str) -> None:
    """However often the service says 500 after it acted, the change is applied once."""
    name = f"{what} {lost}"
    truth = Counter("losses", name, 5, store=server.store)
    with connect(url_through(proxy)) as store:
        c = Counter("losses", name, store=store)
        lose(proxy, lost, FAULT)
        change, expected = CHANGES[what]
        change(c)
        assert proxy.lost == lost
        if expected is None:
            with pytest.raises(CounterNotFoundError):
                truth.refresh()
        else:
            assert c == truth.refresh() == expected


@pytest.mark.parametrize("how", STRANGE)
def test_strange_answers(server: SimpleDBLocal, proxy: Proxy, how: str) -> None:
    """What is not SimpleDB's word, or not to its end, proves nothing, whatever was asked."""
    with connect(url_through(proxy)) as store:
        proxy.lose(2, instead=STRANGE[how])
        c = Counter("losses", how, 5, store=store)
        lose(proxy, 2, STRANGE[how])
        c += 1
        assert c == 6
        proxy.lose(2, instead=STRANGE[how])
        assert how in list(store.names("losses"))
        assert Counter("losses", how, store=server.store) == 6


@pytest.mark.parametrize("how", INSTEAD)
def test_what_boto3_makes_of_it(server: SimpleDBLocal, proxy: Proxy, how: str) -> None:
    """Bare boto3 repeats the put, and reports its success as a failed condition."""
    options: Any = {
        "endpoint_url": f"http://127.0.0.1:{proxy.port}",
        "region_name": "us-east-1",
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
        "config": boto3.session.Config(read_timeout=0.2),
    }
    sdb = boto3.client("sdb", **options)
    sdb.create_domain(DomainName="bare")

    def put(value: str, expected: dict[str, Any]) -> None:
        pairs = [{"Name": "current_value", "Value": value, "Replace": True}]
        sdb.put_attributes(DomainName="bare", ItemName=how, Attributes=pairs, Expected=expected)

    put("0", {"Name": "current_value", "Exists": False})
    proxy.lose(1, is_write, INSTEAD[how])
    with pytest.raises(ClientError, match="Conditional check failed") as caught:
        put("1", {"Name": "current_value", "Value": "0"})
    assert caught.value.response["Error"]["Code"] == "ConditionalCheckFailed"
    answer = sdb.get_attributes(DomainName="bare", ItemName=how, ConsistentRead=True)
    assert answer["Attributes"][0]["Value"] == "1"
    sdb.close()


def test_losses_with_interop(server: SimpleDBLocal, proxy: Proxy) -> None:
    """Beside older writers a receipt proves success, and without one nobody can ever tell."""
    with connect(f"{url_through(proxy)}&interop=boto") as store:
        c = Counter("losses", "interop", 5, store=store)
        lose(proxy, 3, CUT)
        c += 1
        assert c == 6
        lossy = FaultyStore(store)
        late = Counter("losses", "interop", store=lossy)
        lossy.lose_requests(1)
        with pytest.raises(OutcomeUnknownError) as caught:
            late += 1
        for settle in (caught.value.retry, caught.value.cancel):
            with pytest.raises(OutcomeUnknownError):
                settle()
        assert c.add(1).before == 6


def test_kill_the_server_again_and_again(tmp_path: Path) -> None:
    """``kill -9`` of the server, 20 times, under 4 processes: no number lost or given twice."""
    server = SimpleDBLocal("--data", tmp_path)
    url = f"{server.store}?timeout=60"
    Counter("mydomain", "hot", store=url)
    with SPAWN.Pool(4) as pool:
        work = [pool.apply_async(workers.add_until, (url, str(tmp_path / "end"))) for _ in range(4)]
        pause = threading.Event()
        for _ in range(20):
            pause.wait(0.3)
            server.kill()
            server = SimpleDBLocal("--data", tmp_path, port=server.port)
        pause.wait(0.3)
        (tmp_path / "end").touch()
        numbers = sum([done.get(timeout=120) for done in work], [])
    assert len(numbers) > 200
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert Counter("mydomain", "hot", store=url) == len(numbers)
    server.stop()
