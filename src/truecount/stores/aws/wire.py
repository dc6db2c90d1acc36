"""Requests to a service of Amazon's, signed by botocore, and sent once each.

What boto3 does between a call and the network, for every service that there
is, takes as long as the server and the network together. So a wire takes from
a client what it knows. Through a proxy, or with a certificate of one's own,
the client's session sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from botocore.awsrequest import AWSRequest
from botocore.config import Config

from truecount.stores.aws.clients import is_direct, session_of, sign, trusting
from truecount.stores.connections import Connections, Reply

__all__ = ["Wire"]

PORTS: Final = {"http": 80, "https": 443}
"""Those that a ``Host`` does not name."""

SPANS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds that an answer is waited for through a client, which has them fixed."""


class Wire:
    """Where clients that ``make`` makes would send their requests.

    An answer is waited for ``span`` seconds unless less is asked for.
    """

    def __init__(self, make: Callable[[Config], Any], span: float) -> None:
        self._make = make
        self._client = client = make(_patience(span))
        self._clients = {span: client}
        place = urlsplit(client.meta.endpoint_url)
        if place.scheme not in PORTS or place.hostname is None:
            raise ValueError(f"{client.meta.endpoint_url!r} is no URL of a server")
        port = place.port or PORTS[place.scheme]
        host = f"[{place.hostname}]" if ":" in place.hostname else place.hostname
        if port != PORTS[place.scheme]:
            host += f":{port}"
        self._fields = {"Host": host, "User-Agent": client.meta.config.user_agent}
        self._path = place.path or "/"
        self._url = f"{place.scheme}://{host}{self._path}"
        self._connections = None
        if is_direct(client, self._url):
            context = trusting(client) if place.scheme == "https" else None
            self._connections = Connections(place.hostname, port, context)

    def signed(
        self, operation: str, fields: Mapping[str, str], body: bytes | dict[str, str]
    ) -> AWSRequest:
        """The request to post ``body``, or a form. Nothing is sent, but for credentials maybe.

        Raises what botocore does about them, and `ValueError`.
        """
        request = AWSRequest("POST", self._url, {**self._fields, **fields}, body)
        sign(self._client, operation, request)
        if any("\n" in text or "\r" in text for text in request.headers.values()):
            raise ValueError("the credentials, or the user agent, have more than one line")
        return request

    def post(self, request: AWSRequest, span: float) -> Reply:
        """Send what is `signed`, and wait ``span`` seconds for the answer, or about so.

        Raises what botocore's session does, and `Connections.post`.
        """
        if self._connections is None:
            return self._through_client(request, span)
        body = request.data
        if isinstance(body, dict):
            body = urlencode(body).encode()
        return self._connections.post(self._path, request.headers, body, span)

    def close(self) -> None:
        """Close the connections."""
        for client in list(self._clients.values()):
            client.close()
        if self._connections is not None:
            self._connections.close()

    def _through_client(self, request: AWSRequest, span: float) -> Reply:
        if span not in self._clients:
            span = max((s for s in SPANS if s <= span), default=SPANS[0])
        client = self._clients.get(span)
        if client is None:
            client = self._clients.setdefault(span, self._make(_patience(span)))
        answer = session_of(client).send(request.prepare())
        fields = {name.lower().encode(): text.encode() for name, text in answer.headers.items()}
        reply = Reply(answer.status_code, answer.content, fields)
        length = fields.get(b"content-length", b"" if b"transfer-encoding" in fields else b"no")
        if length and length != b"%d" % len(reply.data):  # which botocore does not look at
            raise ConnectionError("the answer was cut off")
        return reply


def _patience(span: float) -> Config:
    """How a client waits."""
    # Its retries are what counts double; the plan has its own.
    retries = {"total_max_attempts": 1, "mode": "standard"}
    return Config(retries=retries, connect_timeout=min(span, 5.0), read_timeout=span)
