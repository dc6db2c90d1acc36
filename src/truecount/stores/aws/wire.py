"""Requests to a service of Amazon's, signed by botocore, and sent once each.

What boto3 does between a call and the network, for every service that there
is, takes as long as the server and the network together. So of its client a
wire takes what it knows: the place, the credentials, and whom to trust.
Through a proxy, the client's own session sends.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.signers import RequestSigner

from truecount.stores.connections import Connections, Reply, lowered

__all__ = ["Wire"]

PORTS: Final = {"http": 80, "https": 443}
"""Those that a ``Host`` does not name."""


class Wire:
    """Where ``client`` would send its requests, each of which waits ``span`` seconds at most."""

    def __init__(self, client: Any, span: float) -> None:
        meta = client.meta
        model = meta.service_model
        place = urlsplit(meta.endpoint_url)
        port = place.port or PORTS[place.scheme]
        host = f"[{place.hostname}]" if ":" in place.hostname else place.hostname
        if port != PORTS[place.scheme]:
            host += f":{port}"
        self._fields = {"Host": host, "User-Agent": meta.config.user_agent}
        self._path = place.path or "/"
        self._url = f"{place.scheme}://{host}{self._path}"
        self._span = span
        self._client = client  # whose events the signer only refers to
        self._signer = RequestSigner(
            *(model.service_id, meta.region_name, model.signing_name),
            *(meta.config.signature_version, client._get_credentials(), meta.events),
        )
        self._connections = None
        if is_direct(client._endpoint.http_session, self._url):
            context = trusting(client) if place.scheme == "https" else None
            self._connections = Connections(place.hostname, port, context)

    def post(
        self, operation: str, fields: Mapping[str, str], body: bytes | dict[str, str]
    ) -> Reply:
        """Post ``body``, or a form; ``operation`` is for botocore to know.

        Raises what botocore does, and `Connections.post`.
        """
        head = {**self._fields, **fields}
        request = AWSRequest("POST", self._url, head, body)
        self._signer.sign(operation, request)
        if self._connections is None:
            reply = self._client._endpoint.http_session.send(request.prepare())
            names = {name.encode(): value.encode() for name, value in reply.headers.items()}
            return Reply(reply.status_code, reply.content, lowered(names))
        if isinstance(body, dict):  # which the signature is in now
            body = urlencode(request.data).encode()
        return self._connections.post(self._path, request.headers, body, self._span)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._connections is not None:
            self._connections.close()


def is_direct(session: Any, url: str) -> bool:
    """Whether ``session`` of botocore's would do nothing special on the way to ``url``."""
    try:
        proxy, certificate = session._proxy_config.proxy_url_for(url), session._cert_file
    except AttributeError:
        return False  # it is not as we know it
    return proxy is None and certificate is None


def trusting(client: Any) -> ssl.SSLContext:
    """Who may answer, as ``client`` is set up."""
    verify = client._endpoint.http_session._verify
    if verify:
        return ssl.create_default_context(cafile=get_cert_path(verify))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
