"""How answers of etcd's come in: in pieces, in chunks, cut off, or too many of them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from truecount import Store, StoreUnavailableError, connect
from truecount.record import Address, Ledger, Record
from truecount.stores.base import Ambiguous

ADDRESS = Address("mydomain", "counter1")
RECORD = Record.of("5", 0, "0", Ledger.of({"somebody": "3 7 1000000 0 5 + - -"}))

LENGTH = re.compile(rb"\r\nContent-Length: (\d+).*?\r\n\r\n(.*)", re.DOTALL)
YES = b'{"header":{"revision":"7"},"succeeded":true,"responses":[{"response_put":{}}]}'
NO = b'{"header":{"revision":"7"},"responses":[{"response_range":{}}]}'


INTERRUPTIONS = 300


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Talker:
    """Answers every request with the same bytes, in pieces of ``size``, and counts connections.

    It hangs up after ``answers`` of them.
    """

    def __init__(self, said: bytes, size: int, answers: int) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._said, self._size, self._answers = said, size, answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(ConnectionError):  # it may not want to hear more
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(self._answers):
                    if not self._listen(connection):
                        break
                    for at in range(0, len(self._said), self._size):
                        connection.sendall(self._said[at : at + self._size])

    def _listen(self, connection: socket.socket) -> bool:
        request = b""
        while (found := LENGTH.search(request)) is None or len(found[2]) < int(found[1]):
            piece = connection.recv(65_536)
            if not piece:
                return False
            request += piece
        self.requests.append(request)
        return True


@contextlib.contextmanager
def talking(said: bytes, *, size: int = 65_536, answers: int = 1_000_000) -> Iterator[Talker]:
    talker = Talker(said, size, answers)
    try:
        yield talker
    finally:
        talker.close()


def connected(port: int) -> Store:
    """A store that waits longer than any test takes, however busy the machine."""
    return connect(f"etcd://127.0.0.1:{port}?read_timeout=60")


def replaced(port: int, times: int = 1) -> list[bool]:
    with connected(port) as store:
        return [bool(store.replace(ADDRESS, None, RECORD, timeout=60)) for _ in range(times)]


def whole(body: bytes, *fields: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"HTTP/1.1 200 OK", *fields, length, b"", body))


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 9] for at in range(0, len(body), 9)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks


WHOLE = {
    "with its length": whole(YES),
    "in chunks": chunked(YES),
    "in small letters": whole(YES).lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 OK"),
    "with much before it": whole(YES, *(b"X-%d: %b" % (n, b"y" * 900) for n in range(99))),
}


@pytest.mark.parametrize("size", [1, 7, 65_536])
@pytest.mark.parametrize("said", WHOLE.values(), ids=WHOLE)
def test_an_answer_in_pieces(said: bytes, size: int) -> None:
    """However an answer comes in, it is read to its end, and its connection used again."""
    with talking(said, size=size) as talker:
        assert replaced(talker.port, 3) == [True] * 3
        assert talker.connections == 1


OLD = whole(YES).replace(b"HTTP/1.1", b"HTTP/1.0")

LAST = {
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n" + YES, 1),
    "of HTTP 1.0, until the end": (b"HTTP/1.0 200 OK\r\n\r\n" + YES, 1),
    "of HTTP 1.0": (OLD, 9),
    "that says so": (whole(YES, b"Connection: close"), 9),
    "that says so in capitals": (whole(YES, b"CONNECTION: CLOSE"), 9),
}


@pytest.mark.parametrize(("said", "answers"), LAST.values(), ids=LAST)
def test_the_last_answer_of_a_connection(said: bytes, answers: int) -> None:
    """After an answer that is its connection's last, the next request goes over another."""
    with talking(said, answers=answers) as talker:
        assert replaced(talker.port, 3) == [True] * 3
        assert talker.connections == 3


MORE = {
    "another answer": whole(YES) + whole(NO),
    "the beginning of one": whole(YES) + whole(NO)[:5],
    "something else": whole(YES) + b"\0\0",
    "something before it": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(YES),
    "something only": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
}


@pytest.mark.parametrize("said", MORE.values(), ids=MORE)
def test_more_than_an_answer(said: bytes) -> None:
    """What was not asked for leaves the outcome open, and never passes for another's answer."""
    with talking(said) as talker, connected(talker.port) as store:
        for _ in range(3):
            with pytest.raises(Ambiguous, match="broke the connection"):
                store.replace(ADDRESS, None, RECORD, timeout=60)
        assert talker.connections == len(talker.requests) == 3


@pytest.mark.parametrize("body", [200_000, 5_000_000])
def test_a_long_answer(body: int) -> None:
    """A long answer in many small pieces is whole."""
    padded = b'{"header":{"revision":"7"},"succeeded":true,"responses":[{}],"x":"%b"}' % (
        b"x" * body
    )
    with talking(whole(padded), size=10_000) as talker:
        assert replaced(talker.port) == [True]


@pytest.mark.filterwarnings("ignore:.*socket")  # the library's own, while it connects
def test_an_interruption_comes_through() -> None:
    """Whatever a signal's handler raises while an answer comes in, ends the call."""
    kept = 0
    with talking(chunked(YES)) as talker, connected(talker.port) as store:
        store.replace(ADDRESS, None, RECORD, timeout=60)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            for turn in range(INTERRUPTIONS):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.001 + turn % 50 / 1e5)
                    for _ in range(100_000):  # more than there is time for
                        store.replace(ADDRESS, None, RECORD, timeout=60)
                except KeyboardInterrupt:
                    kept += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert kept == INTERRUPTIONS


CUT = {
    "nothing": b"",
    "a part of the head": whole(YES)[:30],
    "the head": whole(YES)[: -len(YES)],
    "a part of the body": whole(YES)[:-1],
    "all but the last chunk": chunked(YES)[:-5],
    "something else": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("said", CUT.values(), ids=CUT)
def test_an_answer_that_is_cut_off(said: bytes) -> None:
    """What is not whole leaves the outcome open, and is asked for once only."""
    with talking(said, answers=1) as talker:
        with pytest.raises(Ambiguous, match="broke the connection"):
            replaced(talker.port)
        assert len(talker.requests) == 1


def test_a_token_that_would_be_more() -> None:
    """A token with the end of a line in it is refused: what follows would be a header."""
    token = whole(b'{"header": {"revision": "7"}, "token": "a\\r\\nX: y"}')
    with (
        talking(token) as talker,
        connect(f"etcd://user:password@127.0.0.1:{talker.port}") as store,
    ):
        with pytest.raises(StoreUnavailableError, match="token"):
            store.replace(ADDRESS, None, RECORD, timeout=1)
        assert len(talker.requests) == 1
