"""The proxy does to requests what it was told to, or what its seed says, and counts it."""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from helpers import wait_until
from truecount.testing.proxy import SILENCE, Proxy
from truecount.testing.weather import FAIR, KINDS, Weather

ALWAYS = 1.0


class LineServer:
    """A server that is asked in lines, and answers each with its length and the line."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    while (line := self.rfile.readline()).endswith(b"\n"):
                        outer.seen.append(line.strip())
                        self.wfile.write(b"%d %s" % (len(line), line))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[LineServer]:
    server = LineServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: LineServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


class Client:
    """One connection; what it asks is answered, or it says how it was not."""

    def __init__(self, proxy: Proxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), 5)

    def ask(self, line: bytes, patience: float = 10.0) -> str:
        """The answer; "cut", "torn" or "nothing"."""
        with contextlib.suppress(ConnectionError):  # what it hears is in the answer
            self.socket.sendall(line + b"\n")
        return self.hear(patience)

    def hear(self, patience: float = 10.0) -> str:
        """The next answer, likewise."""
        self.socket.settimeout(patience)
        answer = b""
        try:
            while not answer.endswith(b"\n"):
                data = self.socket.recv(1000)
                if not data:
                    break
                answer += data
        except TimeoutError:
            return "nothing"
        except ConnectionError:
            pass
        if not answer:
            return "cut"
        return answer.decode().strip() if answer.endswith(b"\n") else "torn"

    def close(self) -> None:
        self.socket.close()


def ask(proxy: Proxy, line: bytes, patience: float = 10.0) -> str:
    """What comes of a request on a connection of its own."""
    with contextlib.closing(Client(proxy)) as client:
        return client.ask(line, patience)


OUTCOMES: dict[str, tuple[str, bool]] = {
    # What the client hears, and whether the server has seen the request.
    "cut_before": ("cut", False),
    "cut_after": ("cut", True),
    "silence": ("nothing", True),
    "delay": ("6 hello", True),
    "split": ("6 hello", True),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_what_the_weather_does(server: LineServer, proxy: Proxy, kind: str) -> None:
    """Each kind of fault is what it says, at the client and at the server, and is counted."""
    chances: Any = {kind: ALWAYS}
    proxy.weather = Weather(7, **chances)
    heard, seen = OUTCOMES[kind]
    times, patience = (3, 1.0) if kind == "silence" else (8, 10.0)
    for _ in range(times):
        assert ask(proxy, b"hello", patience) == heard
    wait_until(lambda: proxy.tally == {kind: times}, "what was done is counted")
    assert server.seen == [b"hello"] * times * seen
    proxy.mend()
    assert ask(proxy, b"hello") == "6 hello"


def test_a_request_or_an_answer_breaks_off(server: LineServer, proxy: Proxy) -> None:
    """Cut in the middle: of some requests the server gets a part, of others the client."""
    proxy.weather = Weather(7, cut_within=ALWAYS)
    heard = [ask(proxy, b"hello") for _ in range(30)]
    assert set(heard) <= {"cut", "torn"}
    assert "torn" in heard
    assert 0 < len(server.seen) < 30
    assert proxy.tally == {"cut_within": 30}


def test_late_by_the_weather(server: LineServer, proxy: Proxy) -> None:
    """The connection ends at once, and the request is answered after its time, to nobody."""
    proxy.weather = Weather(7, late=ALWAYS, lateness=(0.2, 0.3))
    assert ask(proxy, b"hello") == "cut"
    wait_until(lambda: proxy.tally == {"late": 1}, "the late request is answered")
    assert server.seen == [b"hello"]
    assert proxy.held == 0


def test_late_and_released(server: LineServer, proxy: Proxy) -> None:
    """What would be late for long is delivered when it is released, whole, in its order."""
    proxy.weather = Weather(7, late=ALWAYS, lateness=(3600, 3600))
    with contextlib.closing(Client(proxy)) as client:
        client.socket.sendall(b"in two ")
        client.socket.sendall(b"pieces\n")
        wait_until(lambda: proxy.held == 1, "it is held")
    assert ask(proxy, b"second") == "cut"
    proxy.mend()
    assert ask(proxy, b"third") == "6 third"
    assert proxy.held == proxy.release() == 2
    assert server.seen == [b"third", b"in two pieces", b"second"]
    assert proxy.held == proxy.release() == 0


@pytest.mark.parametrize("who", ["the client", "the server"])
def test_held_when_one_of_them_is_gone(server: LineServer, proxy: Proxy, who: str) -> None:
    """A client that has given up keeps nothing from arriving; a server that is gone does."""
    proxy.hold()
    client = Client(proxy)
    assert client.ask(b"hello", 0.1) == "nothing"
    assert proxy.held == 1
    if who == "the client":
        client.close()
        assert proxy.release() == 1
        assert server.seen == [b"hello"]
    else:
        proxy.refuse()
        assert client.ask(b"more") == "cut"
        assert proxy.release() == 0
        assert server.seen == []
        client.close()


def test_refused_for_a_spell(server: LineServer, proxy: Proxy) -> None:
    """Every connection ends, new ones are refused, and the port is there again afterwards."""
    other = Client(proxy)
    assert other.ask(b"one") == "4 one"
    proxy.weather = Weather(7, refuse=ALWAYS, spell=(3600, 3600))
    assert ask(proxy, b"two") == "cut"
    assert other.ask(b"three") == "cut"
    other.close()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy)
    proxy.mend()
    assert ask(proxy, b"four") == "5 four"
    proxy.weather = Weather(7, refuse=ALWAYS, spell=(0.05, 0.1))
    assert ask(proxy, b"five") == "cut"
    proxy.weather = None

    def connected() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return ask(proxy, b"six") == "4 six"
        return False

    wait_until(connected, "the spell is over")
    assert proxy.tally == {"refuse": 2}
    assert server.seen == [b"one", b"four", b"six"]


def test_the_port_is_kept(proxy: Proxy) -> None:
    """While connections are refused, nobody else can take the port."""
    proxy.refuse()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", proxy.port))


@pytest.mark.parametrize(
    ("requests", "replies"), [(True, True), (True, False), (False, True)], ids=["all", "in", "out"]
)
def test_a_partition(server: LineServer, proxy: Proxy, requests: bool, replies: bool) -> None:
    """Nothing passes, and no connection ends; what was sent arrives when it is healed."""
    patient, hasty = Client(proxy), Client(proxy)
    assert patient.ask(b"one") == hasty.ask(b"one") == "4 one"
    proxy.partition(requests=requests, replies=replies)
    new = Client(proxy)
    assert hasty.ask(b"three", 0.1) == "nothing"
    hasty.close()
    assert patient.ask(b"four", 0.1) == "nothing"
    assert new.ask(b"five", 0.1) == "nothing"
    assert len(server.seen) == (2 if requests else 5)
    proxy.heal()
    proxy.release()
    wait_until(lambda: len(server.seen) == 5, "all has arrived")
    assert patient.hear() == "5 four"
    assert new.hear() == "5 five"
    assert proxy.tally == {"partition": 1}
    patient.close()
    new.close()


def test_a_partition_by_the_weather(server: LineServer, proxy: Proxy) -> None:
    """It heals by itself, and the request that met it arrives."""
    proxy.weather = Weather(7, partition=ALWAYS, spell=(0.2, 0.2))
    assert ask(proxy, b"hello") == "6 hello"
    assert proxy.tally == {"partition": 1}


def test_what_is_said_is_counted(server: LineServer, proxy: Proxy) -> None:
    """Faults that were ordered are in the tally beside those that were drawn."""
    proxy.lose(1)
    assert ask(proxy, b"one") == "cut"
    proxy.lose(1, instead=SILENCE)
    assert ask(proxy, b"two", 0.1) == "nothing"
    proxy.lose(1, instead=b"nonsense\n")
    assert ask(proxy, b"three") == "nonsense"
    proxy.hold()
    assert ask(proxy, b"four", 0.1) == "nothing"
    assert proxy.release() == 1
    assert proxy.tally == {"cut_after": 1, "silence": 1, "instead": 1, "hold": 1}
    assert proxy.lost == 3
    assert len(server.seen) == 4


def test_the_same_seed_is_the_same_weather(server: LineServer, proxy: Proxy) -> None:
    """Requests in the same order meet the same faults, and only those that are meant."""

    def heard(seed: int) -> list[str]:
        proxy.weather = Weather(
            seed, cut_before=0.2, cut_after=0.2, split=0.2, when=lambda line: b"add" in line
        )
        return [ask(proxy, line) for _ in range(10) for line in (b"add", b"get", b"get")]

    first = heard(1)
    assert first == heard(1)
    assert first != heard(2)
    assert "cut" in first[::3]
    assert set(first[1::3]) == set(first[2::3]) == {"4 get"}


def test_the_chances_come_true() -> None:
    """Every kind is drawn about as often as was said, for as long as was said."""
    chances: Any = dict.fromkeys(KINDS, 0.1)
    weather = Weather(3, **chances, delayed=(1, 2), lateness=(3, 4), spell=(5, 6))
    drawn = [weather.draw(b"") for _ in range(10_000)]
    spans = {"delay": (1, 2), "late": (3, 4), "refuse": (5, 6), "partition": (5, 6)}
    for kind in (*KINDS, FAIR):
        fates = [fate for fate in drawn if fate is not None and fate.kind == kind]
        assert 850 < len(fates) < 1150
        low, high = spans.get(kind, (0, 0))
        assert all(low <= fate.seconds <= high for fate in fates)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"late": 0.6, "split": 0.6}, "together at most 1"),
        *(({"late": chance}, "a number from 0 to 1") for chance in (-0.1, math.nan, "0.3")),
        *(
            ({"spell": span}, "the shortest and the longest")
            for span in (3, (2, 1), (-2, -1), (1,))
        ),
        ({"delayed": (0, math.inf)}, "delayed"),
    ],
)
def test_weather_that_is_none(told: Any, words: str) -> None:
    """Chances and times that cannot be are refused when the weather is made."""
    with pytest.raises(ValueError, match=words):
        Weather(**told)


def test_what_cannot_be_told(proxy: Proxy) -> None:
    """What is no weather, or says of no request whether it is meant, is refused when it is told."""
    wrong: Any = {"cut_after": 0.3}
    with pytest.raises(TypeError, match="made by Weather"):
        proxy.weather = wrong
    wrong = "add"
    for tell in (proxy.lose, proxy.hold):
        with pytest.raises(TypeError, match="when is called"):
            tell(when=wrong)
        with pytest.raises(ValueError, match="less than none"):
            tell(-1)
    with pytest.raises(TypeError, match="when is called"):
        Weather(when=wrong)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{}",
        "redis://:secret@localhost:{}/3?timeout=1",
        "etcd://127.0.0.1:{},127.0.0.1:2,x:3/prefix",
        "simpledb+http://127.0.0.1:{}?read_timeout=0.2",
    ],
)
def test_in_the_place_of_the_server(server: LineServer, url: str) -> None:
    """A proxy takes the place of the server that a URL names, and nothing else changes in it."""
    there = url.format(server.port)
    with Proxy.before(there) as proxy:
        assert proxy.behind(there) == url.replace("localhost", "127.0.0.1").format(proxy.port)
        assert ask(proxy, b"hello") == "6 hello"
        assert proxy.behind(f"etcd://[::1]:1,[::1]:{server.port}") == (
            f"etcd://[::1]:1,127.0.0.1:{proxy.port}"
        )
        with pytest.raises(ValueError, match="no server at port"):
            proxy.behind("redis://127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["memory://", "sqlite:////tmp/counters.db", "dynamodb://us-east-1/t"]
)
def test_no_server_to_stand_before(url: str) -> None:
    """A URL that names no server with a port is refused."""
    with pytest.raises(ValueError, match="no server"):
        Proxy.before(url)


def test_storms(server: LineServer) -> None:
    """16 clients in a storm of all faults at once: it ends, with no thread left, and delivers."""
    before = threading.active_count()
    with Proxy(server.port) as proxy:
        chances: Any = dict.fromkeys(KINDS, 0.05) | {"refuse": 0.01, "partition": 0.01}
        proxy.weather = Weather(11, **chances, lateness=(0.0, 0.5), spell=(0.0, 0.05))
        heard: list[str] = []

        def work(number: int) -> None:
            for turn in range(60):
                line = b"%d-%d" % (number, turn)
                while (answer := ask_or_not(proxy, line)) == "refused":
                    time.sleep(0.01)
                heard.append(answer.rpartition(" ")[2])
                assert heard[-1] in ("cut", "torn", "nothing", line.decode())

        in_threads(16, work)
        proxy.mend()
        proxy.release()
        assert proxy.held == 0
        assert ask(proxy, b"calm") == "5 calm"
        assert set(proxy.tally) == set(KINDS)
        assert len(heard) == 16 * 60
        answered = {line.encode() for line in heard if line[:1].isdigit()}
        assert answered <= set(server.seen)
        assert len(server.seen) == len(set(server.seen))
        wait_until(lambda: len(proxy._threads) == 1, "connections that are over leave no thread")
    wait_until(lambda: threading.active_count() <= before, "nor does the proxy")


def ask_or_not(proxy: Proxy, line: bytes) -> str:
    """What comes of a request, if it can be made."""
    try:
        return ask(proxy, line, 0.2)
    except ConnectionError:
        return "refused"


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do ``work(number)`` for each of so many numbers, at the same time."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
