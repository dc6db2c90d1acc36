"""Connections to Redis, through redis-py, and what their errors mean.

redis-py makes a connection: address, TLS, credentials. What is asked on it is
sent from here, since its clients repeat a command whose answer was lost.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar, cast

import redis.exceptions as errors
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from truecount.errors import (
    CounterError,
    DamagedRecordError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreWarning,
)
from truecount.stores.base import Ambiguous
from truecount.stores.redis.scripts import Request, command

try:
    import hiredis
except ImportError:  # redis-py does without it too
    hiredis = None  # type: ignore[assignment]

__all__ = ["Asked", "Client", "Node", "Place", "Target"]

T = TypeVar("T")

Place = tuple[str, int]
"""The host and port of a node."""

SHORTEST: Final = 0.05
"""Seconds that an answer is awaited at least, however little time is left."""

FRESH: Final = 0.05
"""Seconds since its last use in which a connection is not looked at before it is used again."""

CHUNK: Final = 65536
"""Bytes that are received at once."""

UNFINISHED: Final = object()
"""What hiredis tells when there is more of an answer to come."""

REDIRECTS: Final = 8
"""How often a request is sent elsewhere before that is called a failure."""

PASSING: Final = (errors.BusyLoadingError, errors.ClusterDownError, errors.TryAgainError)
PASSING_TEXTS: Final = ("BUSY ", "NOREPLICAS ", "CLUSTERDOWN ", "TRYAGAIN ", "MASTERDOWN ")
UNAUTHORISED: Final = (
    errors.AuthenticationError,
    errors.AuthenticationWrongNumberOfArgsError,
    errors.AuthorizationError,
    errors.NoPermissionError,
)
FORBIDDEN_IN_SCRIPT: Final = ("The user executing the script", "ACL failure in script")

OURS: Final[dict[str, Any]] = {
    "retry_on_timeout": False,
    "retry_on_error": [],
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "health_check_interval": 0,
    "protocol": 2,
}
"""How a connection must be, whatever a client's others are."""

SETTINGS: Final = b"".join(
    command(*words.split())
    for words in (
        b"INFO replication",
        b"CONFIG GET maxmemory-policy",
        b"CONFIG GET appendonly",
        b"CONFIG GET appendfsync",
    )
)
SLOTS: Final = command(b"CLUSTER", b"SLOTS")
ASKING: Final = command(b"ASKING")


class Target(NamedTuple):
    """Which server or cluster, and how connections to it are made.

    ``options`` are those of ``connection_class``. ``seeds`` are nodes of a
    cluster, of which one that answers knows the others; None stands for a
    single server, whose address is among the options.
    """

    connection_class: Callable[..., Any]
    options: Mapping[str, Any]
    seeds: tuple[Place, ...] | None
    shown: str

    def connection(self, place: Place | None, span: float) -> Any:
        """A connection, not made yet, whose every step takes ``span`` seconds at most."""
        options = {
            name: value
            for name, value in self.options.items()
            if not name.startswith(("maint_", "oss_cluster_maint_", "orig_"))
        }
        if place is not None:
            options["host"], options["port"] = place
        options |= {"socket_timeout": span, "socket_connect_timeout": span}
        options |= {"retry": Retry(NoBackoff(), 0)}
        connection = self.connection_class(**options | OURS)
        connect = connection._connect
        connection._connect = lambda: Timed(connect(), span)
        return connection


class Asked(NamedTuple):
    """A request, and what makes of its answer what it means."""

    request: Request
    understand: Callable[[Any], Any]


class Timed:
    """A socket that receives until ``span`` seconds after the latest sending, however little.

    So it does while redis-py connects; then `begin` says how many there are. A socket's
    own time-out begins again with every byte.
    """

    __slots__ = ("_span", "_until", "_usual", "bare")

    def __init__(self, connected: Any, span: float) -> None:
        self.bare = connected
        self._usual = span
        self._span: float | None = None  # what the socket was told
        self._until = time.monotonic() + span

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def settimeout(self, span: float | None) -> None:
        self._span = span
        self.bare.settimeout(span)

    def sendall(self, data: Any) -> None:
        self.begin(self._usual)
        self.bare.sendall(data)

    def recv(self, *arguments: Any) -> Any:
        self.hurry()
        return self.bare.recv(*arguments)

    def recv_into(self, *arguments: Any) -> Any:
        self.hurry()
        return self.bare.recv_into(*arguments)

    def begin(self, span: float) -> None:
        """From now on there are ``span`` seconds."""
        self._until = time.monotonic() + span
        if self._span is None or not span <= self._span <= 1.01 * span:
            self.settimeout(span)

    def hurry(self) -> None:
        """Let the socket wait for as long as there is, or a hundredth more."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if self._span is None or not left <= self._span <= 1.01 * left:
            self.settimeout(left)


class Link:
    """A connection that stands. One thread uses it at a time.

    A context manager around one exchange, which closes it where that is broken
    off, by whatever: the next answer could be this one's.
    """

    __slots__ = (
        *("_buffer", "_connection", "_poll", "_reader", "_receive", "_send", "_socket", "used"),
    )

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: Timed = connection._sock
        bare = self._socket.bare
        self._send: Callable[[bytes], None] = bare.sendall
        self._receive: Callable[[bytearray], int] = bare.recv_into
        self._buffer = bytearray(CHUNK)
        self._reader: Any = None
        if hiredis is not None:  # redis-py, which uses it too, takes as long again
            self._reader = hiredis.Reader(
                protocolError=errors.InvalidResponse,
                replyError=connection._parser.parse_error,
                notEnoughData=UNFINISHED,
            )
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.used = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, errors.ResponseError):
            self.close()

    def send(self, packed: bytes, span: float) -> None:
        """Send commands, whose answers are awaited for ``span`` seconds from now on."""
        self._socket.begin(span)
        self._send(packed)

    def read(self) -> Any:
        """The next answer: returned, or raised."""
        reader = self._reader
        if reader is None:
            return self._connection.read_response()
        answer = reader.gets()
        while answer is UNFINISHED:
            self._socket.hurry()
            count = self._receive(self._buffer)
            if not count:
                raise errors.ConnectionError("the server closed the connection")
            reader.feed(self._buffer, 0, count)
            answer = reader.gets()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_all(self, packed: bytes, count: int, span: float) -> list[Any]:
        """Send ``count`` commands: their answers, errors among them."""
        self.send(packed, span)
        answers = []
        for _ in range(count):
            try:
                answers.append(self.read())
            except errors.ResponseError as error:
                answers.append(error)
        return answers

    def is_stale(self) -> bool:
        """Whether the other side has closed it, or has said what nobody asked."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        self._connection.disconnect()


class Node:
    """One server, and the connections to it that nobody uses just now.

    ``checked``: somebody has looked at its settings, or is about to.
    ``replica``: its latest answer was that it is one.
    """

    __slots__ = ("checked", "idle", "place", "replica")

    def __init__(self, place: Place | None) -> None:
        self.place = place
        self.idle: list[Link] = []
        self.checked = False
        self.replica = False


class Client:
    """A server or a cluster, as one process reaches it.

    Every method ends within ``timeout`` seconds (None: no end). It raises an
    error of the tree when nothing was done and nothing will be, else
    `Ambiguous`. ``understand`` makes of an answer what it means; where it
    raises an error, the connection is closed, whose next answers may be others' too.
    """

    def __init__(self, target: Target, read_timeout: float, replicas: int) -> None:
        self._target = target
        self._read_timeout = read_timeout
        self._replicas = replicas
        self._only = Node(None) if target.seeds is None else None
        self._nodes: dict[Place, Node] = {}
        self._slots: dict[int, Place] = {}
        self._warned: set[str] = set()
        self._closed = False

    # Requests

    def ask(
        self,
        request: Request,
        timeout: float | None,
        understand: Callable[[Any], T],
        *,
        proven: bool = False,
    ) -> T:
        """What Redis answers. ``proven``: only when as many replicas as it takes have it too."""
        deadline = None if timeout is None else time.monotonic() + timeout
        packed = request.packed
        node, asking = self._only, b""
        try:
            for _ in range(REDIRECTS):
                if node is None:
                    node = self._node_of(request.key, deadline)
                try:
                    if asking or (proven and self._replicas):
                        return self._ask_more(
                            node, asking, packed, deadline, understand, proven=proven
                        )
                    return self._ask(node, packed, deadline, understand)
                except errors.NoScriptError:
                    if packed is not request.packed or request.script is None:
                        raise
                    packed = request.script.in_full(packed)
                except errors.ResponseError as error:
                    redirected = _redirection(error)
                    if redirected is None or node.place is None:
                        raise
                    moved, slot, (host, port) = redirected
                    place = (host or node.place[0], port)
                    if moved:
                        self._slots[slot] = place
                    node, asking = self._node_at(place), b"" if moved else ASKING
            raise StoreUnavailableError(f"{self._target.shown} sends requests round in circles")
        except (CounterError, Ambiguous, StoreWarning):
            self._doubt_slots()
            raise
        except Exception as error:
            self._doubt_slots()
            raise self._sorted(error, request.key) from error

    def ask_many(
        self, many: Sequence[Asked], timeout: float | None, *, proven: bool = False
    ) -> list[Any]:
        """What comes of each of ``many``, which go to every node together.

        What `ask` would raise is among the answers.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        came: dict[int, Any] = {}
        left = list(range(len(many)))
        while left:
            parts: dict[Node, list[int]] = {}
            for at in left:
                try:
                    node = self._only or self._node_of(many[at].request.key, deadline)
                    parts.setdefault(node, []).append(at)
                except CounterError as error:
                    came[at] = error
            for node, part in parts.items():
                asked = [many[at] for at in part]
                found = self._ask_part(node, asked, deadline, proven=proven)
                came.update(zip(part, found, strict=True))
            # Whoever sends the whole script first spares the others to.
            left = [at for at in left if isinstance(came[at], errors.NoScriptError)]
            moved = [at for at, answer in came.items() if _redirection(answer) is not None]
            for at in left[:1] + moved:
                request, understand = many[at]
                try:
                    came[at] = self.ask(request, _left(deadline), understand, proven=proven)
                except (CounterError, Ambiguous) as error:
                    came[at] = error
            left = left[1:]
        return [came[at] for at in range(len(many))]

    def ask_node(
        self, node: Node, packed: bytes, timeout: float | None, understand: Callable[[Any], T]
    ) -> T:
        """What ``node`` itself answers."""
        deadline = None if timeout is None else time.monotonic() + timeout
        (answer,) = self._ask_node(node, packed, [understand], deadline)
        if isinstance(answer, errors.RedisError):
            raise self._sorted(answer, b"")
        return cast(T, answer)

    def primaries(self, timeout: float | None) -> list[Node]:
        """The servers that hold all there is."""
        if self._only is not None:
            return [self._only]
        slots = self._learn_slots(None if timeout is None else time.monotonic() + timeout)
        if len(slots) < REDIS_CLUSTER_HASH_SLOTS:
            raise StoreUnavailableError(f"{self._target.shown}: some slots are served by no node")
        return [self._node_at(place) for place in sorted(set(slots.values()))]

    def close(self) -> None:
        """Close the connections that nobody uses; the others are when they are given back."""
        self._closed = True
        for node in [*self._nodes.values(), *([self._only] if self._only else [])]:
            _drain(node)

    # Exchanges

    def _ask_part(
        self, node: Node, part: Sequence[Asked], deadline: float | None, *, proven: bool
    ) -> list[Any]:
        """What comes of each; a script that is lost and a redirection are among the answers."""
        packed = b"".join(asked.request.packed for asked in part)
        understand = [asked.understand for asked in part]
        try:
            found = self._ask_node(node, packed, understand, deadline, proven=proven)
        except CounterError as error:
            return [error.copy() for _ in part]
        except Ambiguous as error:
            return [Ambiguous(error.cause.copy()) for _ in part]
        for at, answer in enumerate(found):
            goes_on = isinstance(answer, errors.NoScriptError) or (
                self._only is None and _redirection(answer) is not None
            )
            if isinstance(answer, errors.RedisError) and not goes_on:
                found[at] = self._sorted(answer, part[at].request.key)
        return found

    def _ask_node(
        self,
        node: Node,
        packed: bytes,
        understand: Sequence[Callable[[Any], Any]],
        deadline: float | None,
        *,
        proven: bool = False,
    ) -> list[Any]:
        """What it answers to as many commands as there are to ``understand``, refusals among it."""
        try:
            link, span = self._take(node, deadline)
            waits = proven and self._replicas > 0
            if waits:
                packed += self._wait(span)
            with link:
                answers = link.ask_all(packed, len(understand) + waits, span)
                if waits:
                    self._prove(answers.pop())
                understood = list(map(_understood, understand, answers))
            self._give(node, link, *answers)
        except (CounterError, Ambiguous, StoreWarning):
            self._doubt_slots()
            raise
        except Exception as error:
            self._doubt_slots()
            raise self._sorted(error, b"") from error
        return understood

    def _ask(
        self, node: Node, packed: bytes, deadline: float | None, understand: Callable[[Any], T]
    ) -> T:
        link, span = self._take(node, deadline)
        try:
            link.send(packed, span)
            answer = understand(link.read())
        except errors.ResponseError as error:
            self._give(node, link, error)  # an answer too
            raise
        except BaseException:  # as `with link` does, but faster
            link.close()
            raise
        self._give(node, link)
        return answer

    def _ask_more(
        self,
        node: Node,
        asking: bytes,
        packed: bytes,
        deadline: float | None,
        understand: Callable[[Any], T],
        *,
        proven: bool,
    ) -> T:
        """The same with ASKING before it, or WAIT after it, on the same connection."""
        link, span = self._take(node, deadline)
        waits = proven and self._replicas > 0
        if waits:
            packed += self._wait(span)
        with link:
            answers = link.ask_all(asking + packed, 1 + bool(asking) + waits, span)
            answer = answers[bool(asking)]
            understood = None if isinstance(answer, Exception) else understand(answer)
        self._give(node, link, *answers)
        if isinstance(answer, Exception):
            raise answer
        if waits:
            self._prove(answers[-1])
        return cast(T, understood)

    def _wait(self, span: float) -> bytes:
        """The command that waits for the replicas, if the answer may take ``span`` seconds."""
        patience = max(int(span * 800), 1)  # milliseconds: the answer must come in time too
        return command(b"WAIT", b"%d" % self._replicas, b"%d" % patience)

    def _prove(self, answer: object) -> None:
        """Raise `Ambiguous` if it does not say that enough replicas have it."""
        if not (isinstance(answer, int) and answer >= self._replicas):
            short = f"{answer} of the {self._replicas} replicas of ?wait= have it in time"
            raise Ambiguous(StoreUnavailableError(f"{self._target.shown}: {short}"))

    # Connections

    def _take(self, node: Node, deadline: float | None) -> tuple[Link, float]:
        """A connection to ``node``, and the seconds that an answer may take."""
        span = self._read_timeout
        now = time.monotonic()
        if deadline is not None and deadline - now < span:
            span = max(deadline - now, SHORTEST)
        while node.idle:
            try:
                link = node.idle.pop()
            except IndexError:  # another thread was faster
                break
            if now - link.used < FRESH or not link.is_stale():
                return link, span
            link.close()
        link = self._connect(node, span)
        if not node.checked:
            node.checked = True
            try:
                self._check(link, span)
            except BaseException as error:
                link.close()
                if isinstance(error, errors.RedisError | OSError):
                    trouble = f"{self._target.shown} fell silent: {error}"
                    raise StoreUnavailableError(trouble) from error
                raise
        left = _left(deadline)
        if left is not None:
            if left == 0:
                node.idle.append(link)
                if node.replica:
                    raise self._is_replica()
                raise StoreTimeoutError(f"{self._target.shown}: connecting took all the time")
            span = min(span, max(left, SHORTEST))
        return link, span

    def _give(self, node: Node, link: Link, *answers: object) -> None:
        """Keep a connection for the next one, unless its ``answers`` speak against that."""
        if answers and not self._is_kept(node, answers):
            link.close()
            return
        node.replica = False
        link.used = time.monotonic()
        node.idle.append(link)
        if self._closed:
            _drain(node)

    def _is_kept(self, node: Node, answers: Sequence[object]) -> bool:
        """Whether a connection that gave these ``answers`` may give others."""
        refusals = [answer for answer in answers if isinstance(answer, Exception)]
        if any(isinstance(error, errors.ReadOnlyError) for error in refusals):
            # The primary may be another by now, behind the same address.
            node.replica = True
            _drain(node)
            return False
        node.replica = False
        return not any(self._is_strange(error) for error in refusals)

    def _connect(self, node: Node, span: float) -> Link:
        """A new connection, in ``span`` seconds or about so: to the server, then its greeting."""
        shown = self._target.shown
        try:
            connection = self._target.connection(node.place, span / 2)
            connection.connect()
            return Link(connection)
        except UNAUTHORISED as error:
            raise StoreError(
                f"{shown} refuses us ({error}): look at the user and password in the URL"
            ) from error
        except PASSING as error:
            raise StoreUnavailableError(f"{shown} is not ready: {error}") from error
        except errors.ResponseError as error:
            raise StoreError(f"{shown} refuses the connection: {error}") from error
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            cause = error.__context__
            if isinstance(cause, ssl.SSLError) and not isinstance(
                cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
            ):
                raise StoreError(
                    f"{shown}: no TLS connection ({cause}); look at the scheme and the options "
                    "ssl_ca_certs, ssl_cert_reqs, ssl_certfile and ssl_keyfile"
                ) from error
            if isinstance(cause, FileNotFoundError) and "path" not in self._target.options:
                raise StoreError(f"{shown}: a file of the TLS options is missing") from error
            raise StoreUnavailableError(f"{shown} cannot be reached: {error}") from error
        except Exception as error:  # a credential provider's, or of options that do not fit
            raise StoreError(f"{shown} cannot be used: {error}") from error

    def _check(self, link: Link, span: float) -> None:
        """Look at the settings by which Redis may lose what it has acknowledged, and say so."""
        replication, *settings = link.ask_all(SETTINGS, 4, span)
        # Where CONFIG is forbidden, somebody else answers for the settings.
        known = [s[1].decode() if isinstance(s, list) and len(s) == 2 else "" for s in settings]
        policy, log, sync = known
        if policy not in ("", "noeviction"):
            self._warn(
                f"maxmemory-policy is {policy}: counters may be evicted, and begin again; set "
                "it to noeviction"
            )
        if log == "no":
            self._warn("appendonly is no: what was counted is lost when Redis ends; set it to yes")
        elif log == "yes" and sync not in ("", "always"):
            self._warn(
                f"appendfsync is {sync}: a power failure loses the last changes; set it to always"
            )
        if not self._replicas and isinstance(replication, bytes):
            replicas = dict(line.split(b":", 1) for line in replication.split() if b":" in line)
            if replicas.get(b"connected_slaves", b"0") != b"0":
                self._warn(
                    "it has replicas, and a failover loses what they did not get in time; add "
                    "?wait=N to the URL to wait for N of them"
                )

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(f"{self._target.shown}: {what}", StoreWarning, stacklevel=2)

    # Clusters

    def _node_of(self, key: bytes, deadline: float | None) -> Node:
        slot = key_slot(key)
        if slot not in self._slots:
            self._learn_slots(deadline)
        place = self._slots.get(slot)
        if place is None:
            raise StoreUnavailableError(f"{self._target.shown}: no node serves slot {slot}")
        return self._node_at(place)

    def _node_at(self, place: Place) -> Node:
        return self._nodes.setdefault(place, Node(place))

    def _doubt_slots(self) -> None:
        """After any failure, ask again which node has which slots."""
        if self._only is None:
            self._slots = {}

    def _learn_slots(self, deadline: float | None) -> dict[int, Place]:
        """Ask the nodes that are known, one after the other, which has which slots."""
        trouble: Exception | None = None
        for place in dict.fromkeys([*self._nodes, *(self._target.seeds or ())]):
            node = self._node_at(place)
            try:
                slots = self._ask(node, SLOTS, deadline, partial(_slots, place))
            except StoreWarning:
                raise
            except Exception as error:
                trouble = error if isinstance(error, CounterError) else self._sorted(error, b"")
                if deadline is not None and time.monotonic() >= deadline:
                    break
                continue
            self._slots = slots
            return slots
        # Nothing but a question was sent.
        if isinstance(trouble, Ambiguous):
            trouble = trouble.cause
        raise trouble or StoreUnavailableError(f"{self._target.shown} has no nodes")

    # Errors

    def _is_replica(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._target.shown} is a replica, which lags behind and takes no writes: name the "
            "primary in the URL"
        )

    def _is_strange(self, error: Exception) -> bool:
        """Whether a refusal is none that Redis has for what was asked."""
        if isinstance(error, errors.NoScriptError) or _redirection(error) is not None:
            return False
        return isinstance(self._sorted(error, b""), Ambiguous)

    def _sorted(self, error: Exception, key: bytes) -> Exception:
        """What ``error`` means, of a request that was sent: refused before acting, or ambiguous."""
        shown, text = self._target.shown, str(error)
        if isinstance(error, errors.OutOfMemoryError):
            return StoreFullError(f"{shown} is full: {text} Give it more memory (maxmemory)")
        if isinstance(error, errors.ReadOnlyError):
            return self._is_replica()
        if isinstance(error, PASSING) or text.startswith(PASSING_TEXTS):
            return StoreUnavailableError(f"{shown} is not ready: {text}")
        if isinstance(error, UNAUTHORISED) or text.startswith(FORBIDDEN_IN_SCRIPT):
            return StoreError(
                f"{shown} refuses access ({text}): look at the user and password in the URL, and "
                "at what the user may do (docs/stores.md lists the commands)"
            )
        if _redirection(error) is not None:
            return StoreError(
                f"{shown} is a node of a cluster: write redis+cluster:// in the URL (or "
                "rediss+cluster://)"
            )
        if text.startswith("This instance has cluster support disabled"):
            return StoreError(f"{shown} is no cluster: write redis:// or rediss:// in the URL")
        if text.startswith("MISCONF "):
            kind = StoreFullError if "No space left" in text else StoreError
            return kind(f"{shown} cannot write to its disk: {text}")
        if text.startswith("WRONGTYPE "):
            return DamagedRecordError(
                f"the key {key.decode(errors='replace')!r} in {shown}, or one of its receipts, "
                "holds another program's data"
            )
        if text.startswith("unknown command"):
            return StoreError(f"{shown} lacks a command, it must be Redis 7 or later: {text}")
        if isinstance(error, errors.TimeoutError | socket.timeout):
            return Ambiguous(StoreTimeoutError(f"{shown} did not answer in time"))
        return Ambiguous(StoreUnavailableError(f"{shown}: {text or type(error).__name__}"))


def _understood(understand: Callable[[Any], Any], answer: Any) -> Any:
    """What ``answer`` means, or the error of the tree that it does, or the refusal that it is."""
    if isinstance(answer, Exception):
        return answer
    try:
        return understand(answer)
    except CounterError as error:
        return error


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _drain(node: Node) -> None:
    while node.idle:
        try:
            link = node.idle.pop()
        except IndexError:  # another thread was faster
            return
        link.close()


def _slots(place: Place, ranges: Any) -> dict[int, Place]:
    """Which node has which slots, of what the node at ``place`` answers to CLUSTER SLOTS."""
    slots: dict[int, Place] = {}
    for first, last, primary, *_ in ranges:
        host = primary[0].decode() if primary[0] else place[0]
        slots |= dict.fromkeys(range(first, last + 1), (host, primary[1]))
    return slots


def _redirection(error: object) -> tuple[bool, int, Place] | None:
    """Where MOVED (True) or ASK points: the slot and its node; None when it is neither.

    redis-py has classes for them, in its earlier versions for its own cluster client only.
    """
    if not isinstance(error, errors.ResponseError):
        return None
    words = str(error).split(" ")
    if isinstance(error, errors.AskError):
        words.insert(0, "MOVED" if isinstance(error, errors.MovedError) else "ASK")
    if words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    return words[0] == "MOVED", int(words[1]), (host, int(port))
