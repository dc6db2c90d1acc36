"""What was answered is there, whatever happened to the process; and starting and stopping."""

from __future__ import annotations

import http.client
import itertools
import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from simpledb_server import Client, Server, batch_fields, put_fields, serving

KILLS = 20


class Writer(threading.Thread):
    """Writes to an item of its own until the server is gone: a counter, and an item per step."""

    def __init__(self, server: Server, name: str, value: int) -> None:
        super().__init__()
        self.client = server.client()
        self.item = name
        self.value = value  # the last one that was answered

    def run(self) -> None:
        for value in itertools.count(self.value + 1):
            try:
                self.write(value)
            except (OSError, http.client.HTTPException):
                return
            self.value = value

    def write(self, value: int) -> None:
        """Step the counter, and put two items together, in turns."""
        condition = (
            {"Expected.Name": "value", "Expected.Value": str(value - 1)}
            if value > 1
            else {"Expected.Name": "value", "Expected.Exists": "false"}
        )
        reply = self.client.put("domain", self.item, ("value", value, True), **condition)
        assert reply.status == 200, reply.body
        pair = [put_fields(f"{self.item}-{half}-{value}", ("a", "1")) for half in "xy"]
        self.client.ok("BatchPutAttributes", batch_fields(*pair), DomainName="domain")


def surviving(client: Client, writer: Writer) -> int:
    """The counter after a restart: every answered step is in it, with at most one that was not."""
    found = int(client.read("domain", writer.item)["value"][0])
    assert writer.value <= found <= writer.value + 1
    for value in range(max(found - 20, 1), found + 1):
        halves = [bool(client.read("domain", f"{writer.item}-{half}-{value}")) for half in "xy"]
        assert halves[0] == halves[1], "half a batch"
        assert halves[0] or value > writer.value, "an answered batch is lost"
    # A batch that was under way is made good, so that the next round finds all of them.
    for half in "xy":
        client.put("domain", f"{writer.item}-{half}-{found}", ("a", "1"))
    return found


def test_kill_under_load(tmp_path: Path) -> None:
    """``kill -9`` under load, 20 times: no answered write is lost, no batch is torn."""
    with serving("--data", tmp_path) as server:
        server.client().create("domain")
    values = {f"item{number}": 0 for number in range(4)}
    for _ in range(KILLS):
        server = Server("--data", tmp_path)
        writers = [Writer(server, name, value) for name, value in values.items()]
        for writer in writers:
            writer.start()
        while any(writer.value < values[writer.item] + 5 for writer in writers):
            time.sleep(0.01)
        server.process.kill()
        for writer in writers:
            writer.join()
        server.wait()
        with serving("--data", tmp_path) as server:
            client = server.client()
            values = {writer.item: surviving(client, writer) for writer in writers}
    assert min(values.values()) >= KILLS * 5


def test_everything_is_kept(tmp_path: Path) -> None:
    """A server that is started again has all that the one before had, in any characters."""
    folder = tmp_path / "new" / "folder"
    with serving("--data", folder) as server:
        client = server.client()
        for domain in ("one", "two", "three"):
            client.create(domain)
        client.put("one", "\u20ac\x00", ("a\x01", "\ufffe"), ("b", "2"), ("b", "1"), ("c", ""))
        client.put("two", "item", ("a", "1"))
        client.ok("DeleteDomain", DomainName="three")
    with serving("--data", folder) as server:
        client = server.client()
        assert client.ok("ListDomains").domains == ["one", "two"]
        found = client.ok("GetAttributes", DomainName="one", ItemName="\u20ac\x00").plain
        assert found.count("<Attribute>") == 4
        assert client.read("two", "item") == {"a": ["1"]}
        client.create("three")
        assert client.select("select count(*) from three").count == 0
    assert [file.name for file in folder.iterdir()] == ["simpledb.db"]


def test_memory_forgets() -> None:
    """Without ``--data`` a server begins with nothing."""
    for _ in range(2):
        with serving() as server:
            assert server.client().ok("ListDomains").domains == []
            server.client().create("domain")


def test_two_servers_on_one_folder(tmp_path: Path) -> None:
    """A folder has one server; a second is refused in clear words, and then may follow."""
    with serving("--data", tmp_path) as server:
        server.client().create("domain")
        with pytest.raises(RuntimeError, match="is in use by another SimpleDB Local"):
            Server("--data", tmp_path)
        assert server.client().ok("ListDomains").domains == ["domain"]
    with serving("--data", tmp_path) as server:
        assert server.client().ok("ListDomains").domains == ["domain"]
    server = Server("--data", tmp_path)
    server.kill()
    with serving("--data", tmp_path) as server:
        assert server.client().ok("ListDomains").domains == ["domain"]


def test_what_is_not_ours(tmp_path: Path) -> None:
    """A file of a newer version, of another program, or that is no database is left as it is."""
    file = tmp_path / "simpledb.db"
    with serving("--data", tmp_path):
        pass
    with sqlite3.connect(file) as sql:
        sql.execute("PRAGMA user_version = 2")
    sql.close()
    with pytest.raises(RuntimeError, match="newer SimpleDB Local"):
        Server("--data", tmp_path)
    file.unlink()
    with sqlite3.connect(file) as sql:
        sql.execute("CREATE TABLE notes (note TEXT)")
    sql.close()
    before = file.read_bytes()
    with pytest.raises(RuntimeError, match="a database of another program"):
        Server("--data", tmp_path)
    assert file.read_bytes() == before
    file.write_text("not a database " * 100)
    with pytest.raises(RuntimeError, match="file is not a database"):
        Server("--data", tmp_path)
    assert file.read_text() == "not a database " * 100


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A folder that is a file, or under one, is refused in clear words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="is a file"):
        Server("--data", tmp_path / "file")
    with pytest.raises(RuntimeError, match="cannot use"):
        Server("--data", tmp_path / "file" / "folder")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stopping(tmp_path: Path, sign: int) -> None:
    """A signal stops the server with status 0, with connections open, idle or half-way."""
    server = Server("--data", tmp_path)
    client = server.client()
    client.create("domain")
    idle = socket.create_connection(("127.0.0.1", server.port))
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nAction=")
    client.put("domain", "item", ("a", "1"))
    assert server.stop(sign) == (0, "", "")
    assert (idle.recv(1), half.recv(1)) == (b"", b"")
    idle.close()
    half.close()
    with serving("--data", tmp_path) as server:
        assert server.client().read("domain", "item") == {"a": ["1"]}


def test_stopping_under_load(tmp_path: Path) -> None:
    """A server that is stopped under load answers what it has begun, and keeps it."""
    server = Server("--data", tmp_path)
    server.client().create("domain")
    writers = [Writer(server, f"item{number}", 0) for number in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.value < 5 for writer in writers):
        time.sleep(0.01)
    server.process.terminate()
    for writer in writers:
        writer.join()
    assert server.wait() == (0, "", "")
    with serving("--data", tmp_path) as server:
        for writer in writers:
            surviving(server.client(), writer)


def test_a_full_disk(tmp_path: Path) -> None:
    """A write that finds no room is answered 503, leaves nothing, and the server goes on."""
    with serving("--data", tmp_path) as server:
        server.client().create("domain")
        server.client().put("domain", "item", ("a", "1"))
    server = Server("--data", tmp_path)
    resource_limit(server, 256 * 1024)
    client = server.client()
    pairs = [(f"{number:03}", "v" * 1000) for number in range(250)]
    try:
        for number in range(3):
            reply = client.put("domain", f"large{number}", *pairs)
            assert (reply.status, reply.code) == (503, "ServiceUnavailable")
        assert client.select("select itemName() from domain").items == {"item": {}}
        assert client.put("domain", "item", ("a", "2", True)).status == 200
    finally:
        _, _, complaints = server.stop()
    assert "Traceback" not in complaints
    assert "the data cannot be read or written" in complaints
    with serving("--data", tmp_path) as server:
        assert server.client().read("domain", "item") == {"a": ["2"]}
        assert server.client().select("select count(*) from domain").count == 1


def resource_limit(server: Server, size: int) -> None:
    """Let no file of the server grow beyond ``size``: the nearest thing to a full disk."""
    import resource

    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, size))
