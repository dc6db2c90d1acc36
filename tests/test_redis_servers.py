"""Redis as its users set it up: users, TLS, replicas, clusters, and servers in trouble."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from helpers import wait_until
from redis_server import is_write, replicating, serving, serving_cluster
from truecount import (
    Counter,
    InvalidTypeError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
    StoreWarning,
    connect,
)
from truecount.testing.proxy import Proxy
from truecount.testing.servers import Redis, RedisCluster

DOMAIN = "mydomain"
SECRET = "s3cret/&"  # noqa: S105  # of the test's servers; a URL has to quote it
QUOTED = "s3cret%2F%26"


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with serving() as server:
        yield server


@pytest.fixture
def fresh() -> Iterator[Redis]:
    """A server of this test's own."""
    with serving(repl_diskless_sync_delay=0) as server:
        yield server


@pytest.fixture
def proxy(server: Redis) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


# URLs

URLS = {
    "redis://": "names no Redis",
    "redis://:6379": "names no Redis",
    "redis://host:0": "names no Redis",
    "redis://host:port": "names no Redis",
    "redis://one:1,two:2/0": "names no Redis",
    "redis://host/one": "a number",
    "redis://host/0?db=one": "a number",
    "redis+cluster://host/1": "0 in a cluster",
    "rediss:///run/redis.sock": "socket file",
    "redis://host?prefix={x}": "prefix",
    "redis://host?prefix=": None,
    "redis://host?wait=some": "whole number",
    "redis://host?wait=-1": "whole number",
    "redis://host?fence=never": "doubt, always",
    "redis://host?read_timeout=0": "above 0",
    "redis://host?retries=3": "no option 'retries'",
    "redis://host?ssl_ca_certs=x": "no option 'ssl_ca_certs'",
    "rediss://host?ssl_cert_reqs=maybe": "required, optional, none",
    "rediss://host?ssl_check_hostname=maybe": "true, false",
}


@pytest.mark.parametrize("url", URLS)
def test_urls(url: str) -> None:
    """A URL that cannot be meant is refused at once, with a word about why."""
    if URLS[url] is None:
        connect(url).close()
        return
    with pytest.raises(StoreURLError, match=URLS[url]):
        connect(url)


def test_a_socket_file(tmp_path: Path) -> None:
    """``redis:///run/redis.sock?db=2`` is a socket of the file system."""
    path = Path("/tmp") / f"truecount-{os.getpid()}.sock"  # noqa: S108  # sockets have short names
    with serving(unixsocket=path) as server, connect(f"redis://{path}?db=2") as store:
        assert Counter(DOMAIN, "socket", store=store).add(1) == 1
        with redis.Redis(port=server.port, db=2) as bare:
            assert bare.dbsize() == 1


def test_fence_always(server: Redis) -> None:
    """``?fence=always`` writes every refusal down."""
    with connect(f"{server.store}?fence=always") as store:
        c = Counter(DOMAIN, "fenced", 5, minimum=5, store=store)
        revision = c.revision
        with pytest.raises(OverflowError):
            c.add(-1)
        c.refresh()
        assert c.revision == revision + 1


# Requests


def test_one_request(server: Redis) -> None:
    """An uncontended ``add`` and ``c += 1`` are one request each; with a key it takes two."""
    asked: list[bytes] = []
    with (
        Proxy(server.port, watch=asked.append) as proxy,
        connect(f"redis://127.0.0.1:{proxy.port}") as store,
    ):
        c = Counter(DOMAIN, "requests", store=store)
        c.add(1)
        c += 1
        asked.clear()
        for _ in range(5):
            c.add(1)
        assert len(asked) == 5
        assert all(is_write(request) for request in asked)
        assert max(map(len, asked)) < 260
        for _ in range(5):  # then they are sent by another script
            c += 1
        asked.clear()
        for _ in range(5):
            c.add(1)
            c += 1
        assert len(asked) == 10
        assert max(map(len, asked)) < 480
        asked.clear()
        c.add(1, key="once")
        assert len(asked) == 2
        asked.clear()
        c.refresh()
        assert len(asked) == 1
        assert not is_write(asked[0])


def test_scripts_are_sent_again(server: Redis) -> None:
    """When Redis has forgotten the scripts, they travel whole, once, and nothing counts twice."""
    with connect(server.store) as store, redis.Redis(port=server.port) as bare:
        c = Counter(DOMAIN, "flushed", store=store)
        for value in range(0, 9, 3):
            bare.script_flush()
            assert c.add(1) == value + 1
            bare.script_flush()
            c += 1
            bare.script_flush()
            assert c.refresh() == value + 2
            assert c.add(1, key=f"key{value}") == value + 3


@pytest.mark.parametrize("lost", [1, 3, 10])
def test_lost_replies(server: Redis, proxy: Proxy, lost: int) -> None:
    """However often the connection breaks before the reply, an addition counts once."""
    with connect(f"redis://127.0.0.1:{proxy.port}") as store:
        c = Counter(DOMAIN, f"lost{lost}", store=store)
        proxy.lose(1, is_write)
        proxy.lose(lost - 1)
        assert c.add(1) == 1
        assert proxy.lost == lost
        assert Counter(DOMAIN, f"lost{lost}", store=server.store) == 1


STRANGE = {
    "nothing we asked for": b"+OK\r\n",
    "a number": b":1\r\n",
    "nothing": b"$-1\r\n",
    "an empty list": b"*0\r\n",
    "no Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error of a proxy": b"-ERR upstream failed\r\n",
    "half": b"$100\r\nhalf",
    "another's": b"$63\r\nsomebody 7 1795254842943316 1795254842943316 1 2 + - - 1 live 0\r\n",
}


@pytest.mark.parametrize("how", STRANGE)
def test_strange_answers(server: Redis, proxy: Proxy, how: str) -> None:
    """What is no answer to the request proves nothing, whatever was asked."""
    with connect(f"redis://127.0.0.1:{proxy.port}?read_timeout=0.5") as store:
        c = Counter(DOMAIN, how, store=store)
        proxy.lose(2, is_write, STRANGE[how])
        c.add(1)
        proxy.lose(2, is_write, STRANGE[how])
        c += 1
        proxy.lose(1, instead=STRANGE[how])
        assert c.refresh() == 2
        proxy.lose(1, lambda request: b"SCAN" in request, STRANGE[how])
        assert how in list(store.names(DOMAIN))
    assert Counter(DOMAIN, how, store=server.store) == 2


class Stray:
    """A relay to Redis that puts ``next`` in front of an answer, and leaves the rest as it is.

    With a ``pause``, answers come byte by byte.
    """

    def __init__(self, to_port: int) -> None:
        self.next = b""
        self.pause = 0.0
        self._to_port = to_port
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._open):
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to_port))
                self._open += [client, server]
                self._start(self._pass_on, client, server, False)
                self._start(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if back:
                    data, self.next = self.next + data, b""
                while back and self.pause and len(data) > 1:
                    sink.sendall(data[:1])
                    data = data[1:]
                    time.sleep(self.pause)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


STRAYS = {
    "text": b"$5\r\nstray\r\n",
    "error": b"-ERR stray\r\n",
    "record": b"*2\r\n*0\r\n*0\r\n",
    "named record": b"*3\r\n$16\r\n0123456789abcdef\r\n*0\r\n*0\r\n",
}


@pytest.mark.parametrize("how", STRAYS)
def test_a_stray_answer(server: Redis, how: str) -> None:
    """Where a connection brings an answer too many, it is closed, and no later one is taken."""
    with contextlib.closing(Stray(server.port)) as relay:
        with connect(f"redis://127.0.0.1:{relay.port}") as store:
            c = Counter(DOMAIN, f"stray {how}", 1, store=store)
            other = Counter(DOMAIN, f"other {how}", 50, store=store)
            for value in range(2, 5):
                for _ in range(2):
                    relay.next = STRAYS[how]
                    assert c.refresh() == value - 1
                    assert other.refresh() == 50
                relay.next = STRAYS[how]
                assert c.add(1) == value
                assert (other.refresh(), c.refresh()) == (50, value)
            relay.next = STRAYS[how]
            assert store.snapshot(DOMAIN)[c.name] == 4
            assert c.refresh() == 4
        assert Counter(DOMAIN, f"stray {how}", store=server.store) == 4


def test_an_answer_that_drips(server: Redis) -> None:
    """An answer that comes byte by byte is awaited for as long as any, and asked about."""
    with (
        contextlib.closing(Stray(server.port)) as relay,
        connect(f"redis://127.0.0.1:{relay.port}?read_timeout=0.4") as store,
    ):
        c = Counter(DOMAIN, "drips", 1, store=store)
        relay.pause = 0.1
        began = time.monotonic()
        with pytest.raises(OutcomeUnknownError) as caught:
            c.add(1, timeout=0.8)
        with pytest.raises((StoreTimeoutError, StoreUnavailableError)):
            c.refresh(timeout=0.8)
        assert time.monotonic() - began < 3
        relay.pause = 0.0
        assert caught.value.retry() == 2


# Clients


@pytest.mark.parametrize("decodes", [False, True])
def test_a_client_that_repeats(server: Redis, proxy: Proxy, decodes: bool) -> None:
    """Behind a client with retries on, replies that are lost count once; it stays its owner's."""
    client = redis.Redis(
        port=proxy.port, db=1, retry=Retry(NoBackoff(), 20), decode_responses=decodes
    )
    with client:
        proxy.lose(10, lambda request: b"INCR" in request)
        assert client.incr(f"bare{decodes}") == 11  # what its retries do
        store = connect(client, timeout=7)
        assert (store.client, store.timeout) == (client, 7)
        assert repr(store) == f"<truecount store redis://localhost:{proxy.port}/1?timeout=7>"
        c = Counter(DOMAIN, f"client{decodes}", store=store)
        proxy.lose(10)
        assert c.add(1) == 1
        c += 1
        with pytest.raises(InvalidTypeError):
            pickle.dumps(store)
        store.close()
        assert client.ping()
        assert client.get_retry().get_retries() == 20
        with pytest.raises(StoreClosedError):
            c.add(1)


def test_a_client_of_a_cluster() -> None:
    """A RedisCluster's nodes are asked without it."""
    with (
        serving_cluster() as cluster,
        redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[1].port) as client,
        connect(client) as store,
    ):
        c = Counter(DOMAIN, "cluster", store=store)
        c.add(1)
        c += 1
        assert c.refresh() == 2
        assert store.snapshot(DOMAIN) == {"cluster": 2}


# Users and passwords


RIGHTS = {
    "amy": "~* +@all",
    "bob": "~truecount:* -@all {}",
    "cal": "~* +@all -hset",
    "dan": "~* +@all -evalsha",
    "eve": "~* +@all -hdel",
    "fay": "~* +@all -set",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Redis]:
    with serving(requirepass=SECRET) as server:
        with redis.Redis(port=server.port, password=SECRET) as bare:
            for user, rights in RIGHTS.items():
                words = rights.format(" ".join(DOCUMENTED)).split()
                bare.execute_command("ACL", "SETUSER", user, "on", f">{SECRET}", *words)
        yield server


DOCUMENTED = (
    *("+eval", "+evalsha", "+hmget", "+hget", "+hgetall", "+hlen", "+hset", "+hdel", "+exists"),
    *("+get", "+set", "+del", "+scan", "+select"),
)
"""The rights that docs/stores.md says are enough."""


def as_user(server: Redis, user: str, password: str = QUOTED) -> str:
    """The store, as ``user``."""
    return f"redis://{user}:{password}@127.0.0.1:{server.port}"


@pytest.mark.parametrize("user", ["", "amy", "bob"])
def test_users(guarded: Redis, user: str) -> None:
    """A password alone, a user's, and a user who may do only what it takes."""
    with connect(as_user(guarded, user)) as store:
        c = Counter(DOMAIN, f"of {user}", store=store)
        c.add(1, key="once")
        c += 1
        assert list(store.names(DOMAIN)) >= [f"of {user}"]
        c.delete()
        assert store.purge(2**62) == 0  # its key is still remembered
    text = Path(__file__).parent.parent.joinpath("docs/stores.md").read_text(encoding="utf-8")
    assert " ".join(DOCUMENTED) in " ".join(text.split())


@pytest.mark.parametrize(
    ("user", "password"), [("", "wrong"), ("amy", "wrong"), ("nobody", QUOTED), (None, None)]
)
def test_wrong_passwords(guarded: Redis, user: str | None, password: str | None) -> None:
    """Whom Redis does not know is told at once to look at the URL."""
    url = f"redis://127.0.0.1:{guarded.port}"
    if user is not None:
        assert password is not None
        url = as_user(guarded, user, password)
    with connect(url) as store, pytest.raises(StoreError, match="password") as caught:
        assert seconds(lambda: Counter(DOMAIN, "refused", store=store)) < 5
    assert not isinstance(caught.value, StoreUnavailableError)


@pytest.mark.parametrize("user", ["cal", "dan"])
def test_missing_rights(guarded: Redis, user: str) -> None:
    """What a user may not do is refused for good, and says so; nothing is written."""
    with connect(as_user(guarded, "amy")) as store:
        truth = Counter(DOMAIN, f"no rights for {user}", 5, store=store)
        with connect(as_user(guarded, user)) as other:
            for change in (
                lambda: Counter(DOMAIN, f"no rights for {user}", store=other).add(1),
                lambda: Counter(DOMAIN, f"no rights for {user}", store=other).add(1, key="once"),
                lambda: Counter(DOMAIN, f"a new one for {user}", store=other),
            ):
                with pytest.raises(StoreError, match=r"may do|docs/stores\.md"):
                    assert seconds(change) < 5
        assert truth.refresh() == 5
        with pytest.raises(LookupError):
            truth.receipt("once")


def test_a_right_that_is_missing_half_way(guarded: Redis) -> None:
    """A script that may do its first write and not its second does neither, or both."""
    from truecount.change import DECIDED, Add, Batch
    from truecount.record import Address

    with connect(as_user(guarded, "fay")) as store:
        c = Counter(DOMAIN, "no SET", 5, store=store)
        with pytest.raises(StoreError, match="may do"):
            c.add(1, key="once")
        assert c.refresh() == 5
    with connect(as_user(guarded, "eve")) as store:
        c = Counter(DOMAIN, "no HDEL", store=store)
        for number in range(70):
            c.refresh()
            batch = Batch(f"writer{number}", 1, c.revision, (Add(1),))
            verdict = store.settle(Address(DOMAIN, "no HDEL"), batch, timeout=5).verdict
            assert verdict == DECIDED
        c.refresh()
        c += 1
        assert c.refresh() == 71
        c.delete()
        assert Counter(DOMAIN, "no HDEL", 3, store=store) == 3


def test_passwords_are_not_shown(guarded: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Neither names, nor errors, nor logs, nor the command line show a password."""
    caplog.set_level(logging.DEBUG)
    url = as_user(guarded, "amy", "wrongs3cret")
    seen = [repr(connect(url))]
    with connect(url) as store, pytest.raises(StoreError) as caught:
        Counter(DOMAIN, "hidden", store=store)
    error: BaseException | None = caught.value
    while error is not None:
        seen += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    command = [sys.executable, "-m", "truecount", "--store", url, "add", DOMAIN, "hidden"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    seen += [done.stdout, done.stderr, caplog.text]
    with pytest.raises(StoreURLError) as refused:
        connect(f"{url}/x?ssl_password=wrongs3cret")
    seen.append(str(refused.value))
    assert not [text for text in seen if "s3cret" in text]
    assert "amy:***@" in done.stderr


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``; ``server`` and ``client``, signed by it; and ``stranger``, who is not."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "2")
    for ca in ("ca", "stranger"):
        openssl(*new, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}")
    for name in ("server", "client"):
        openssl(
            *new,
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out"),
            *(f"{name}.pem", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
    return folder


@pytest.fixture(scope="module")
def secured(certificates: Path) -> Iterator[int]:
    """The port of a server that wants TLS, and a client's certificate."""
    from truecount.testing.servers.process import free_port

    port = free_port()
    with serving(
        tls_port=port,
        tls_cert_file=certificates / "server.pem",
        tls_key_file=certificates / "server.key",
        tls_ca_cert_file=certificates / "ca.pem",
    ):
        yield port


def over_tls(port: int, folder: Path, ca: str = "ca", who: str = "client") -> str:
    """The store over TLS, trusting ``ca``, as ``who``."""
    return (
        f"rediss://127.0.0.1:{port}?ssl_ca_certs={folder}/{ca}.pem&ssl_certfile={folder}/{who}.pem"
        f"&ssl_keyfile={folder}/{who}.key"
    )


def test_tls(secured: int, certificates: Path) -> None:
    """``rediss://`` with redis-py's options; an idle connection is used again."""
    with connect(over_tls(secured, certificates)) as store:
        c = Counter(DOMAIN, "tls", store=store)
        c.add(1)
        time.sleep(0.2)
        c += 1
        assert c.add(1, key="once") == 3
        with redis.Redis(
            port=secured,
            ssl=True,
            ssl_ca_certs=str(certificates / "ca.pem"),
            ssl_certfile=str(certificates / "client.pem"),
            ssl_keyfile=str(certificates / "client.key"),
            ssl_check_hostname=False,
        ) as bare:
            wait_until(lambda: len(bare.client_list()) == 2, "ours is the only other one")
            with connect(bare) as behind:
                assert Counter(DOMAIN, "tls", store=behind).add(1) == 4


@pytest.mark.parametrize(
    ("ca", "who"), [("stranger", "client"), ("missing", "client"), ("ca", "missing")]
)
def test_tls_that_is_set_up_wrongly(secured: int, certificates: Path, ca: str, who: str) -> None:
    """A certificate that is not trusted, or not there, is told of at once."""
    with connect(over_tls(secured, certificates, ca, who)) as store:
        with pytest.raises(StoreError, match="TLS") as caught:
            assert seconds(lambda: Counter(DOMAIN, "tls", store=store)) < 5
        assert not isinstance(caught.value, StoreUnavailableError)


def test_tls_without_certificate(server: Redis) -> None:
    """A server that speaks no TLS is no place for ``rediss://``."""
    url = f"rediss://127.0.0.1:{server.port}?ssl_cert_reqs=none&ssl_check_hostname=false&timeout=1"
    with connect(url) as store, pytest.raises(StoreError):
        Counter(DOMAIN, "tls", store=store)


# Servers that cannot


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        ("redis://127.0.0.1:1?timeout=0.3", StoreUnavailableError, "cannot be reached"),
        ("redis://nowhere.invalid?timeout=0.3", StoreUnavailableError, "cannot be reached"),
        ("redis:///nowhere.sock?timeout=0.3", StoreUnavailableError, "cannot be reached"),
        ("redis+cluster://127.0.0.1:1?timeout=0.3", StoreUnavailableError, "cannot be reached"),
        ("redis://{}/99999", StoreError, "DB index is out of range"),
        ("redis+cluster://{}", StoreError, "no cluster"),
    ],
)
def test_nobody_there(server: Redis, url: str, kind: type[StoreError], text: str) -> None:
    """A server that is not there, or not that kind, is named, and nothing was applied."""
    there = url.format(f"127.0.0.1:{server.port}")
    with connect(there) as store, pytest.raises(kind, match=text):
        Counter(DOMAIN, "nowhere", store=store)


def test_a_frozen_server(fresh: Redis) -> None:
    """When the server freezes, each call ends in time: what was sent is unknown, else refused."""
    with connect(f"{fresh.store}?read_timeout=0.4") as store:
        c = Counter(DOMAIN, "frozen", 5, store=store)
        fresh.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(OutcomeUnknownError) as caught:
                c.add(1, timeout=1)
            with pytest.raises((StoreTimeoutError, StoreUnavailableError)):
                c.refresh(timeout=0.5)
            with pytest.raises(StoreUnavailableError):
                list(connect(f"{fresh.store}?timeout=0.5").domains())
            assert time.monotonic() - began < 3
        finally:
            fresh.thaw()
        assert caught.value.retry() == 6
        assert c.refresh() == 6
        connect(f"{fresh.store}?timeout=0.5").close()


def test_a_server_that_was_restarted(fresh: Redis) -> None:
    """An idle connection that the server has closed is not used: nothing becomes unknown."""
    with connect(f"{fresh.store}?timeout=5") as store:
        c = Counter(DOMAIN, "restarted", 5, store=store)
        c.add(1)
        for _ in range(3):
            fresh.kill()
            fresh.start()
            time.sleep(0.1)
            c += 1
        assert c.add(1) == 10


def test_a_busy_server(fresh: Redis) -> None:
    """While somebody's script keeps Redis busy, an addition waits for its turn."""
    with connect(f"{fresh.store}?read_timeout=5") as store, redis.Redis(port=fresh.port) as bare:
        c = Counter(DOMAIN, "busy", store=store)
        bare.config_set("busy-reply-threshold", 20)

        def keep_busy() -> None:
            with redis.Redis(port=fresh.port) as other, pytest.raises(redis.ResponseError):
                other.eval("while true do end", 0)

        def end() -> None:
            with redis.Redis(port=fresh.port) as other:
                other.script_kill()

        endless = threading.Thread(target=keep_busy)
        endless.start()
        time.sleep(0.3)
        with pytest.raises(StoreUnavailableError, match="BUSY"):
            c.add(1, timeout=0.3)
        killer = threading.Timer(0.3, end)
        killer.start()
        assert c.add(1) == 1
        killer.join()
        endless.join()


def test_a_disk_that_fails() -> None:
    """A server that cannot save takes no writes, and says so: nothing is applied."""
    with serving(save="3600 1", appendonly="no", enable_protected_configs="yes") as server:
        url = f"{server.store}?timeout=1"
        with warnings.catch_warnings(), connect(url) as store:
            warnings.simplefilter("ignore", StoreWarning)
            c = Counter(DOMAIN, "disk", 5, store=store)
            with redis.Redis(port=server.port) as bare:
                bare.config_set("dir", "/proc")
                bare.bgsave()
                while bare.info("persistence")["rdb_last_bgsave_status"] == "ok":
                    time.sleep(0.02)
                with pytest.raises(StoreError, match="disk"):
                    c.add(1)
                with pytest.raises(StoreError, match="disk"):
                    c.set(1)
                assert c.refresh() == 5
                bare.config_set("dir", str(server.folder))


# Replicas and settings


def test_replicas(fresh: Redis) -> None:
    """With ``?wait=1`` what is answered is on a replica; what is not in time is unknown."""
    with replicating(fresh) as (replica, there):
        with connect(f"{fresh.store}?wait=1&read_timeout=0.4") as store:
            c = Counter(DOMAIN, "replicated", 5, store=store)
            c.add(1)
            key = f"truecount:{{{DOMAIN}/replicated}}"
            assert there.hget(key, "value") == b"6"
            c += 1
            assert there.hget(key, "value") == b"7"
            c.add(1, key="once")
            assert there.exists(f"{key}:key:once")
            replica.freeze()
            try:
                with pytest.raises(OutcomeUnknownError, match=r"replicas|in time"):
                    c.add(1, timeout=1)
            finally:
                replica.thaw()
            assert c.refresh() == 9
            c.delete()
        with connect(f"{replica.store}?timeout=0.3") as store:
            refused = pytest.raises(StoreUnavailableError, match="replica")
            with refused, pytest.warns(StoreWarning, match="appendonly"):
                Counter(DOMAIN, "new", store=store)


def test_a_replica_is_not_read(fresh: Redis) -> None:
    """A replica lags behind: what it holds is no answer, neither to a new counter nor an old."""
    with connect(fresh.store) as store:
        Counter(DOMAIN, "lagging", 5, store=store)
        with replicating(fresh) as (replica, there), Proxy(replica.port) as proxy:
            while there.hget(f"truecount:{{{DOMAIN}/lagging}}", "value") != b"5":
                time.sleep(0.02)
            url = f"redis://127.0.0.1:{proxy.port}?timeout=0.5"
            with warnings.catch_warnings(), connect(url) as other:
                warnings.simplefilter("ignore", StoreWarning)
                with pytest.raises(StoreUnavailableError, match="is a replica"):
                    Counter(DOMAIN, "lagging", store=other)
                there.execute_command("REPLICAOF NO ONE")
                c = Counter(DOMAIN, "lagging", store=other)
                assert c.add(1) == 6
                there.execute_command(f"REPLICAOF 127.0.0.1 {fresh.port}")
                with pytest.raises(StoreUnavailableError, match="is a replica"):
                    c.refresh()
                with pytest.raises(StoreUnavailableError, match="is a replica"):
                    c.add(1)


def test_a_failover_behind_one_address(fresh: Redis) -> None:
    """After READONLY no connection is used again: the next reaches who is primary by then."""
    with replicating(fresh) as (replica, there), Proxy(fresh.port) as proxy:
        with warnings.catch_warnings(), connect(f"redis://127.0.0.1:{proxy.port}") as store:
            warnings.simplefilter("ignore", StoreWarning)
            c = Counter(DOMAIN, "moved", 5, store=store)
            threads = [threading.Thread(target=c.refresh) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            while there.hget(f"truecount:{{{DOMAIN}/moved}}", "value") != b"5":
                time.sleep(0.02)
            there.execute_command("REPLICAOF NO ONE")
            with redis.Redis(port=fresh.port) as old:
                old.execute_command(f"REPLICAOF 127.0.0.1 {replica.port}")
            # Old connections stay with the old server.
            proxy.target = ("127.0.0.1", replica.port)
            assert c.add(1) == 6
            assert c.refresh() == 6
        assert there.hget(f"truecount:{{{DOMAIN}/moved}}", "value") == b"6"


def test_reading_where_nothing_is_written(fresh: Redis) -> None:
    """A server that is full, or lacks replicas, is read."""
    with connect(f"{fresh.store}?timeout=0.5") as store, redis.Redis(port=fresh.port) as bare:
        c = Counter(DOMAIN, "read only", 5, store=store)
        bare.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            c.add(1)
        assert c.refresh() == 5
        bare.config_set("maxmemory", 0)
        bare.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailableError, match="NOREPLICAS"):
            c.add(1)
        assert c.refresh() == 5


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"appendonly": "no"}, "appendonly is no"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec"),
    ],
)
def test_settings_that_lose(setting: dict[str, str], text: str) -> None:
    """A setting by which Redis may lose what it acknowledged is told of by name, once."""
    with serving(**setting) as server, connect(server.store) as store:
        with pytest.warns(StoreWarning, match=text) as caught:
            c = Counter(DOMAIN, "warned", store=store)
        assert len(caught) == 1
        c.add(1)
        threads = [threading.Thread(target=c.add, args=(1,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert c.refresh() == 5
        command = [sys.executable, "-m", "truecount", "--store", server.store, "add", DOMAIN, "x"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"
        assert done.stderr.startswith(f"truecount: warning: {server.store}: {text}")
        assert done.stderr.count("\n") == 1


def test_replicas_that_nobody_waits_for(fresh: Redis) -> None:
    """A server with replicas asks for ``?wait=``."""
    warned = pytest.warns(StoreWarning, match=r"\?wait=N")
    with replicating(fresh), connect(fresh.store) as store, warned:
        Counter(DOMAIN, "warned", store=store)


def test_settings_that_are_kept_secret() -> None:
    """Where CONFIG and INFO are forbidden, nothing is said."""
    with serving(appendonly="no") as server, redis.Redis(port=server.port) as bare:
        bare.execute_command("ACL", "SETUSER", "default", "-config", "-info")
        with connect(server.store) as store:
            assert Counter(DOMAIN, "quiet", store=store).add(1) == 1


# Clusters


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with serving_cluster() as cluster:
        yield cluster


def test_a_node_of_a_cluster(cluster: RedisCluster) -> None:
    """``redis://`` to a node of a cluster says which scheme to use, and applies nothing."""
    for node in cluster.nodes:
        with connect(node.store) as store:
            with contextlib.suppress(StoreError):
                Counter(DOMAIN, "one node", store=store)
                continue
            with pytest.raises(StoreError, match=r"redis\+cluster://"):
                Counter(DOMAIN, "one node", store=store)


def slot_of(name: str) -> int:
    """The slot of a counter."""
    return redis.crc.key_slot(f"truecount:{{{DOMAIN}/{name}}}".encode())


def node_of(cluster: RedisCluster, slot: int) -> tuple[int, dict[int, str]]:
    """The port of the node that has ``slot``; the ids of all, by port."""
    with redis.Redis(port=cluster.nodes[0].port) as bare:
        rows = bare.execute_command("CLUSTER SLOTS")
    ids = {row[2][1]: row[2][2].decode() for row in rows}
    return next(row[2][1] for row in rows if row[0] <= slot <= row[1]), ids


def test_a_slot_that_moves(cluster: RedisCluster) -> None:
    """While a slot moves to another node, and after that, additions go on and count once."""
    with connect(f"{cluster.store}?timeout=20") as store:
        c = Counter(DOMAIN, "wanderer", store=store)
        c.add(1, key="once")
        source, ids = node_of(cluster, slot_of("wanderer"))
        target = next(port for port in ids if port != source)
        slot, key = slot_of("wanderer"), f"truecount:{{{DOMAIN}/wanderer}}"
        with redis.Redis(port=source) as old, redis.Redis(port=target) as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
            c += 1
            assert c.add(1) == 3
            old.migrate("127.0.0.1", target, [key, f"{key}:key:once"], 0, 1000)
            assert c.add(1) == 4  # by ASK
            c += 1
            assert c.add(1, key="once").replayed
            for node in (new, old):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
            assert c.add(1) == 6  # by MOVED
            assert store.snapshot(DOMAIN)["wanderer"] == 6
            asked = old.info("commandstats")["cmdstat_evalsha"]["calls"]
            for _ in range(5):
                c.add(1)
            assert old.info("commandstats")["cmdstat_evalsha"]["calls"] == asked


def test_a_node_that_comes_back(cluster: RedisCluster) -> None:
    """A node that is killed and started again: what was under way is settled, once."""
    with connect(f"{cluster.store}?timeout=30&read_timeout=0.5") as store:
        counters = [Counter(DOMAIN, f"node{number}", store=store) for number in range(6)]
        victim = cluster.nodes[1]
        victim.kill()
        back = threading.Timer(0.5, victim.start)
        back.start()
        for c in counters:
            assert c.add(1) == 1
        back.join()
        assert sum(store.snapshot(DOMAIN)[f"node{number}"] for number in range(6)) == 6


# Processes


def test_a_fork(server: Redis) -> None:
    """A forked child has connections of its own, and its parent's go on."""
    with connect(server.store) as store:
        c = Counter(DOMAIN, "forked", store=store)
        c.add(1)
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                try:
                    for _ in range(20):
                        c.add(1)
                    c.refresh()
                    c._store.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
            for _ in range(20):
                c.add(1)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert c.refresh() == 121


def test_close(fresh: Redis) -> None:
    """What was closed has no connections; a thread's that is under way is closed after it."""
    with redis.Redis(port=fresh.port) as bare:
        store = connect(fresh.store)
        c = Counter(DOMAIN, "closed", store=store)
        threads = [threading.Thread(target=c.refresh) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bare.client_list()) > 1
        store.close()
        wait_until(lambda: len(bare.client_list()) == 1, "the server sees that they are closed")
        with pytest.raises(StoreClosedError):
            store.snapshot(DOMAIN)


def test_many_threads(server: Redis) -> None:
    """64 threads with a counter each have what connections they need."""
    with connect(server.store) as store:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                c = Counter(DOMAIN, f"thread{number}", store=store)
                for _ in range(5):
                    c.add(1)
                assert c.refresh() == 5
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
