"""A connection through the proxy: a client and its server, who speak in turn.

Two threads serve it, one a direction. What ends it shuts its sockets down,
which wakes whoever waits at them; they are closed when both threads are done.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from truecount.testing.weather import Fate

if TYPE_CHECKING:
    from truecount.testing.proxy import Proxy

__all__ = ["CUT", "SILENCE", "Connection", "Late", "Loss", "pieces", "shut"]

CUT: Final = b""
"""Close the connection instead of answering."""

SILENCE: Final = None
"""Let the client wait until it gives up."""

PATIENCE: Final = 10.0
"""Seconds that a late request may take to be answered, and a server to be connected to."""

CHUNK: Final = 65536

REST: Final = 0.05
"""Seconds without a byte after which a request is taken to be whole."""

BREATH: Final = 0.004
"""The longest time in seconds between two pieces of one request or answer."""

_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time at all


class Loss(NamedTuple):
    """What becomes of the reply to a request that is ``meant``."""

    meant: Callable[[bytes], bool]
    instead: bytes | None
    then: Callable[[], object]


class Late:
    """A request that is delivered after ``seconds``, or when somebody says so."""

    def __init__(self, seconds: float | None = None) -> None:
        self.waits = True
        self._seconds = seconds
        self._due = threading.Event()
        self._over = threading.Event()
        self._dropped = False
        self._answered = False

    def deliver(self) -> None:
        """Have it delivered now."""
        self._due.set()

    def drop(self) -> None:
        """Have it never delivered."""
        self._dropped = True
        self._due.set()
        self._over.set()

    def wait_until_due(self) -> bool:
        """Wait until it is due; False: it never will be."""
        self._due.wait(self._seconds)
        self.waits = False
        return not self._dropped

    def answer(self) -> None:
        """The server has answered it."""
        self._answered = True
        self._over.set()

    def answered(self, patience: float = PATIENCE) -> bool:
        """Wait for what becomes of it: whether the server has answered it."""
        self._over.wait(patience)
        return self._answered


class Connection:
    """Passes on what ``client`` asks and the server answers, as ``proxy`` lets it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server: socket.socket | None = None
        self.request = bytearray()  # since the last answer began
        self.fate: Fate | None = None  # what befalls it
        self.late: Late | None = None  # when it is delivered, if not at once
        self.ended = False  # whether the server answers no more

    def serve(self) -> None:
        """Pass on, in both directions, until one side ends it."""
        try:
            server = self.server = socket.create_connection(self.proxy.target, PATIENCE)
        except OSError:
            return
        server.settimeout(None)
        for side in (self.client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        answering = threading.Thread(target=self._answer, args=[server], daemon=True)
        answering.start()
        try:
            self._ask(server)
        finally:
            answering.join()

    def cut(self) -> None:
        """End it on both sides, from any thread."""
        for side in (self.client, self.server):
            if side is not None:
                shut(side)

    def close(self) -> None:
        """Give its sockets back, when it is served."""
        self.cut()
        for side in (self.client, self.server):
            if side is not None:
                side.close()

    # What the client asks

    def _ask(self, server: socket.socket) -> None:
        """Pass on what the client asks, now or later."""
        try:
            while data := self.client.recv(CHUNK):
                self.request += data
                if not self._pass(data, server):
                    return
        except OSError:
            pass
        finally:
            if (late := self.late) is not None:  # a client that is gone would have the server stop
                late.answered()
                self.proxy.forget(late)
            self.proxy.asking.wait()  # no end is seen through a partition
            shut(server)

    def _pass(self, data: bytes, server: socket.socket) -> bool:
        """Pass ``data`` on as is said, or drawn; False: nothing more is passed on."""
        if self.late is not None:  # the rest of what was late
            return self._send(data, server)
        if not self.proxy.asking.is_set():
            return self._send(data, server, self.proxy.later(0.0))
        request = bytes(self.request)
        late = self.proxy.holds(request)
        if late is not None:
            return self._send(data, server, late)
        if self.fate is not None:
            return self._send(data, server)
        self.fate = self.proxy.draw(request)
        if self.fate is None:
            return self._send(data, server)
        return self._suffer(data, server, *self.fate)

    def _suffer(
        self, data: bytes, server: socket.socket, kind: str, seconds: float, dice: random.Random
    ) -> bool:
        """Pass ``data`` on in this weather."""
        if kind == "cut_before":
            self.proxy.count(kind)
            self._break_off(dice)
            return False
        if kind == "cut_within" and len(data) > 1 and dice.random() < 0.5:
            self.proxy.count(kind)
            server.sendall(data[: dice.randrange(1, len(data))])
            self._break_off(dice)
            return False
        if kind == "refuse":
            self.proxy.refuse_for(seconds)
            return False
        if kind == "partition":
            self.proxy.partition_for(seconds)
            return self._send(data, server, self.proxy.later(0.0))
        if kind == "late":
            data += b"".join(self._rest())
            late = self.proxy.later(seconds)
            self._break_off(dice)
            self._send(data, server, late)
            if late.answered():
                self.proxy.count(kind)
            return False
        if kind == "delay":
            self.proxy.count(kind)
            return self._send(data, server, self.proxy.later(seconds))
        if kind == "split":
            self.proxy.count(kind)
            for piece in pieces(data, dice):
                server.sendall(piece)
            return True
        return self._send(data, server)  # what befalls it befalls the answer

    def _send(self, data: bytes, server: socket.socket, late: Late | None = None) -> bool:
        """Send ``data`` on, when ``late`` is due; False: it never is."""
        if late is not None:
            self.late = late
            if self.ended:
                late.drop()
            if not late.wait_until_due():
                return False
        self.proxy.asking.wait()
        server.sendall(data)
        return True

    def _rest(self) -> Iterator[bytes]:
        """The rest of the request, which a client may send in pieces."""
        self.client.settimeout(REST)
        with contextlib.suppress(TimeoutError):
            while data := self.client.recv(CHUNK):
                yield data

    # What the server answers

    def _answer(self, server: socket.socket) -> None:
        """Pass on what the server answers, or not."""
        fate: Fate | None = None
        loss: Loss | None = None
        try:
            while data := server.recv(CHUNK):
                if self.request:
                    request, fate, late = bytes(self.request), self.fate, self.late
                    self.request.clear()
                    self.fate = self.late = None
                    loss = self.proxy.loses(request, fate)
                    if late is not None:
                        late.answer()
                        self.proxy.forget(late)
                    if loss is not None:
                        loss.then()
                self.proxy.answering.wait()
                if loss is not None and loss.instead is SILENCE:
                    continue
                if not self._reply(data, loss, fate):
                    return
        except OSError:
            pass
        finally:
            self.ended = True
            if (late := self.late) is not None:  # it cannot be delivered any more
                late.drop()
            self.proxy.answering.wait()
            shut(self.client)

    def _reply(self, data: bytes, loss: Loss | None, fate: Fate | None) -> bool:
        """Pass an answer on, or what it has become; False: nothing more is passed on."""
        if loss is not None and loss.instead is not SILENCE:
            self.client.sendall(loss.instead)
            if fate is not None:
                self._break_off(fate.dice)
            return False
        if fate is not None and fate.kind == "cut_within" and len(data) > 1:
            self.proxy.count(fate.kind)
            self.client.sendall(data[: fate.dice.randrange(1, len(data))])
            self._break_off(fate.dice)
            return False
        if fate is not None and fate.kind == "split":
            for piece in pieces(data, fate.dice):
                self.client.sendall(piece)
        else:
            self.client.sendall(data)
        return True

    def _break_off(self, dice: random.Random) -> None:
        """End the client's side, as a server that closes does, or as one that is gone."""
        if dice.random() < 0.5:
            with contextlib.suppress(OSError):  # the client was first
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        shut(self.client)


def pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """``data`` in pieces, with pauses: half of the time one byte at a time, at first."""
    if dice.random() < 0.5:
        trickled = min(len(data), dice.randint(1, 64))
        ends = [*range(1, trickled + 1), len(data)]
    else:
        ends = [*sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 7))), len(data)]
    begin = 0
    for number, end in enumerate(ends):
        if number < 8:
            time.sleep(dice.random() * BREATH)
        if end > begin:
            yield data[begin:end]
        begin = end


def shut(connection: socket.socket) -> None:
    """Shut ``connection`` down, both ways, and wake whoever waits at it."""
    with contextlib.suppress(OSError):  # it was shut from the other side
        connection.shutdown(socket.SHUT_RDWR)
