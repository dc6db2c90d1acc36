"""etcd's requests, over its JSON gateway, and what their errors mean."""

from __future__ import annotations

import json
import ssl
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from truecount.errors import (
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.stores.base import Ambiguous, Deadline, beforehand
from truecount.stores.connections import Connections, Reply, UnreachedError

__all__ = [
    "Found",
    "LeaseGoneError",
    "Login",
    "Operation",
    "Outcome",
    "Service",
    "Tls",
    "count",
    "delete",
    "fetch",
    "holds",
    "put",
]

SHORTEST: Final = 0.05
"""Seconds that an answer is waited for at least: a request that is made shall have a chance."""

# gRPC's status codes
_INVALID, _NOT_FOUND, _DENIED, _EXHAUSTED, _PRECONDITION, _RANGE = 3, 5, 7, 8, 9, 11
_UNAUTHENTICATED: Final = 16

# Of OpenSSL's reasons, those for which one side does not accept the other.
_REFUSALS: Final = ("CERTIFICATE", "HANDSHAKE", "UNKNOWN_CA", "VERSION")

_WHO: Final = "name a user in the URL, as in etcd://USER:PASSWORD@host:2379"

_SPEAKS_TLS: Final = "speaks TLS, as etcds:// does"

T = TypeVar("T")

Operation: TypeAlias = dict[str, Any]
"""A step or a condition of a transaction, as etcd's JSON has it."""


class Login(NamedTuple):
    """A user of etcd's."""

    name: str
    password: str


class Tls(NamedTuple):
    """Files with certificates: who is trusted (None: whom the system trusts), and who we are."""

    cacert: str | None
    cert: str | None
    key: str | None


class Found(NamedTuple):
    """A key, in which others may have written more than text, and its value."""

    key: str
    value: bytes


class Outcome(NamedTuple):
    """What a transaction did: whether its conditions held, and what each step found."""

    succeeded: bool
    found: list[list[Found]]


class LeaseGoneError(StoreUnavailableError):
    """The lease of a key has expired, or was revoked; nothing was written."""


class _TokenGoneError(StoreUnavailableError):
    """The server does not know the token any more; nothing was done."""


# Parts of transactions


def fetch(start: str, end: str | None = None) -> Operation:
    """Find a key; with ``end``, all from ``start`` to before that one."""
    return {"request_range": _interval(start, end)}


def count(key: str) -> Operation:
    """Tell only whether a key is there: the least that shows whose answer it is."""
    return {"request_range": {"key": _coded(key), "count_only": True}}


def put(key: str, value: str, lease: int | None = None) -> Operation:
    """Put ``value``, for as long as ``lease`` lives."""
    fields = {"key": _coded(key), "value": _coded(value)}
    if lease is not None:
        fields["lease"] = str(lease)
    return {"request_put": fields}


def delete(start: str, end: str | None = None) -> Operation:
    """Delete a key; with ``end``, all from ``start`` to before that one."""
    return {"request_delete_range": _interval(start, end)}


def holds(key: str, value: str | bytes | None) -> Operation:
    """The condition that ``key`` has that value; None: that it is not there."""
    if value is None:
        return {"key": _coded(key), "target": "MOD", "mod_revision": "0"}
    return {"key": _coded(key), "target": "VALUE", "value": _coded(value)}


def _interval(start: str, end: str | None) -> dict[str, str]:
    if end is None:
        return {"key": _coded(start)}
    return {"key": _coded(start), "range_end": _coded(end)}


def _coded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
    return b2a_base64(raw, newline=False).decode()


class Service:
    """etcd at one or more endpoints, (host, port); one for each process.

    Whichever endpoint answered last is asked first. One that cannot be
    reached makes room for the next at once, since nothing was sent. After an
    ambiguous request the next one begins with another endpoint.
    """

    def __init__(
        self,
        endpoints: Sequence[tuple[str, int]],
        login: Login | None,
        tls: Tls | None,
        read_timeout: float,
    ) -> None:
        self.shown = f"etcd at {','.join(f'{host}:{port}' for host, port in endpoints)}"
        self._login = login
        self._has_tls = tls is not None
        self._token: str | None = None
        self._read_timeout = read_timeout
        self._at = 0
        self._ends = self._make(endpoints, tls)

    # Requests

    def transact(
        self,
        conditions: Sequence[Operation],
        then: Sequence[Operation],
        otherwise: Sequence[Operation],
        timeout: float | None,
    ) -> Outcome:
        """Do ``then`` in one atomic step where all ``conditions`` hold, else ``otherwise``.

        Reading is linearizable.
        """
        question = {"compare": conditions, "success": then, "failure": otherwise}

        def outcome(answer: dict[str, Any]) -> Outcome:
            succeeded = answer.get("succeeded", False)  # what is false, or empty, is left out
            if not isinstance(succeeded, bool):
                raise ValueError("it does not say whether it succeeded")
            responses = answer.get("responses", [])
            if len(responses) != len(then if succeeded else otherwise):
                raise ValueError("it answers another request")
            found = [_found(response.get("response_range", {})) for response in responses]
            return Outcome(succeeded, found)

        return self._ask("/v3/kv/txn", question, timeout, outcome)

    def page(self, start: str, end: str, limit: int, timeout: float | None) -> list[Found]:
        """The first ``limit`` keys from ``start`` to before ``end``, sorted; linearizable."""
        question = {**_interval(start, end), "limit": str(limit)}
        return self._ask("/v3/kv/range", question, timeout, _found)

    def grant(self, seconds: int, timeout: float | None) -> int:
        """A new lease, which lives for so long."""

        def lease(answer: dict[str, Any]) -> int:
            if int(answer["TTL"]) < seconds:
                raise ValueError("its lease is too short")
            return int(answer["ID"])

        return self._ask("/v3/lease/grant", {"TTL": str(seconds)}, timeout, lease)

    def close(self) -> None:
        """Close the connections."""
        for end in self._ends:
            end.close()

    # Parts of them

    def _make(self, endpoints: Sequence[tuple[str, int]], tls: Tls | None) -> list[Connections]:
        context = None
        if tls is not None:
            try:
                context = ssl.create_default_context(cafile=tls.cacert)
                if tls.cert is not None:
                    context.load_cert_chain(tls.cert, tls.key, password=_no_password)
            except (OSError, ValueError) as error:
                raise StoreError(
                    f"{self.shown} cannot be asked: the files of ?cacert=, ?cert= and ?key= cannot "
                    f"be used ({error})"
                ) from error
        return [Connections(host, port, context) for host, port in endpoints]

    def _ask(
        self,
        path: str,
        question: Operation,
        timeout: float | None,
        understand: Callable[[dict[str, Any]], T],
    ) -> T:
        """What ``understand`` makes of etcd's answer; a token that is forgotten is renewed once."""
        deadline = Deadline(timeout)
        body = json.dumps(question).encode()
        token = self._authenticated(deadline)
        try:
            return self._post(path, body, token, deadline, understand)
        except _TokenGoneError:
            if self._token == token:
                self._token = None
            deadline.check()
            token = self._authenticated(deadline)
            deadline.check()
            return self._post(path, body, token, deadline, understand)

    def _authenticated(self, deadline: Deadline) -> str | None:
        """The token with which to ask; None where nobody needs to log in."""
        if self._login is None or self._token is not None:
            return self._token
        body = json.dumps(self._login._asdict()).encode()
        with beforehand():
            token = self._post("/v3/auth/authenticate", body, None, deadline, _token)
        self._token = token
        return token

    def _post(
        self,
        path: str,
        body: bytes,
        token: str | None,
        deadline: Deadline,
        understand: Callable[[dict[str, Any]], T],
    ) -> T:
        """Send ``body`` to the first endpoint that can be reached."""
        first = self._at
        trouble: Exception | None = None
        fields = {"Content-Type": "application/json"}
        if token is not None:
            fields["Authorization"] = token
        for turn in range(len(self._ends)):
            if trouble is not None:
                deadline.check()
            at = (first + turn) % len(self._ends)
            try:
                reply = self._sent(self._ends[at], path, fields, body, deadline)
                if reply.status != 200:
                    raise self._refusal(reply)
                answer = self._understood(reply.data, understand)
            except UnreachedError as error:
                trouble = error
                continue
            except Ambiguous:
                self._at = (at + 1) % len(self._ends)
                raise
            self._at = at
            return answer
        what = f"{self.shown} cannot be reached: {trouble}"
        if self._has_tls and isinstance(trouble and trouble.__cause__, ConnectionResetError):
            what += f". If it goes on so, look whether it {_SPEAKS_TLS}"
        raise StoreUnavailableError(what) from trouble

    def _sent(
        self,
        end: Connections,
        path: str,
        fields: dict[str, str],
        body: bytes,
        deadline: Deadline,
    ) -> Reply:
        """The reply of one endpoint; what its connection raises is refused, or ambiguous."""
        try:
            return end.post(path, {"Host": end.shown, **fields}, body, self._span(deadline.left()))
        except (UnreachedError, StoreError):
            raise
        except ssl.SSLError as error:
            if not _is_handshake(error):
                raise self._broken(error) from error
            raise StoreError(
                f"{self.shown} and this machine cannot agree on TLS: {error}. Look at the "
                "certificates, and at ?cacert=, ?cert= and ?key= in the URL"
            ) from error
        except TimeoutError as error:
            raise Ambiguous(StoreTimeoutError(f"{self.shown} did not answer in time")) from error
        except Exception as error:
            # Whatever is wrong with the connection now, the request may have been sent.
            raise self._broken(error) from error

    def _span(self, left: float | None) -> float:
        return max(self._read_timeout if left is None else min(self._read_timeout, left), SHORTEST)

    # What answers mean

    def _understood(self, data: bytes, understand: Callable[[dict[str, Any]], T]) -> T:
        try:
            answer = json.loads(data)
            if not isinstance(answer, dict) or not int(answer["header"]["revision"]):
                raise ValueError("it has no header")
            return understand(answer)
        except Exception as error:  # whatever is wrong with it: it was etcd's maybe, or a proxy's
            trouble = StoreUnavailableError(f"{self.shown} gives an answer that is none: {error!r}")
            raise Ambiguous(trouble) from error

    def _broken(self, error: Exception) -> Ambiguous:
        remedy = _SPEAKS_TLS if self._has_tls else "wants TLS, as in etcds://"
        return Ambiguous(
            StoreUnavailableError(
                f"{self.shown} broke the connection ({error or type(error).__name__}): if it goes "
                f"on so, look whether it {remedy}"
            )
        )

    def _refusal(self, reply: Reply) -> Exception:
        """What an answer says that is no 200; what is not known for sure is ambiguous."""
        status, data, _ = reply
        try:
            body = json.loads(data)
            code = body["code"]
            text = str(body.get("message") or body["error"])
        except Exception:  # it is no answer of etcd's
            code = -1
            text = f"HTTP {status} {data[:200].decode(errors='replace').strip()}"
        what = f"{self.shown} refuses ({text})"
        if code == _EXHAUSTED and "space exceeded" in text:
            # The write that finds the quota used up is told so, and done all the same.
            full = StoreFullError(
                f"{what}: its alarm NOSPACE is raised, since its history has grown to "
                "--quota-backend-bytes. Compact it, `etcdctl defrag`, then `etcdctl alarm disarm`; "
                "and set --auto-compaction-retention"
            )
            return Ambiguous(full)
        if code == _EXHAUSTED and "too many requests" in text:
            return StoreUnavailableError(f"{what}: it is overloaded")
        if code == _INVALID and "too large" in text:
            return StoreFullError(f"{what}: raise its --max-request-bytes")
        if code == _NOT_FOUND and "lease not found" in text:
            return LeaseGoneError(f"{what}: the key's lease is gone")
        if status == 404:
            return StoreError(f"{what}: this is no etcd 3.4 or newer with its JSON gateway")
        if code == _UNAUTHENTICATED or "auth store is old" in text:
            if self._login is None:
                return StoreError(f"{what}: {_WHO}")
            return _TokenGoneError(f"{what}: the user's token is not valid")
        if code == _DENIED:
            return StoreError(
                f"{what}: `etcdctl role grant-permission ROLE readwrite --prefix PREFIX/` allows "
                "the user what is needed"
            )
        if code == _INVALID and "user name is empty" in text:
            return StoreError(f"{what}: {_WHO}")
        if code in (_INVALID, _PRECONDITION) and "auth" in text:
            return StoreError(f"{what}: look at the user and the password in the URL")
        if code in (_INVALID, _PRECONDITION, _RANGE):
            return StoreError(what)
        return Ambiguous(StoreUnavailableError(f"{self.shown} is unavailable: {text}"))


def _no_password() -> str:
    """For a private key that is encrypted: else OpenSSL would ask at the terminal."""
    raise ValueError("the private key is encrypted")


def _found(response: Any) -> list[Found]:
    return [
        Found(
            b64decode(pair["key"], validate=True).decode(errors="surrogateescape"),
            b64decode(pair.get("value", ""), validate=True),
        )
        for pair in response.get("kvs", ())
    ]


def _token(answer: dict[str, Any]) -> str:
    token = answer["token"]
    if not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise ValueError("its token is none")
    return token


def _is_handshake(error: ssl.SSLError) -> bool:
    """Whether one side has refused the other before any request was read."""
    return any(word in (error.reason or "") for word in _REFUSALS)
