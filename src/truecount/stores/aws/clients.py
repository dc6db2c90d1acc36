"""Boto3's clients: they know the place, the credentials, whom to trust, and proxies.

Boto3 tells much of that to nobody, so that it is taken from where it keeps it. All
of that is here.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config
from botocore.httpsession import create_urllib3_context, get_cert_path

__all__ = ["client_at", "is_direct", "session_of", "sign", "trusting", "twin"]


def client_at(service: str, region: str | None, endpoint: str | None, config: Config) -> Any:
    """A client of ``service`` in a region, or at an endpoint.

    For an endpoint the region is boto3's, where None is given.
    """
    session = boto3.session.Session()
    credentials: dict[str, str] = {}
    if endpoint is not None and session.get_credentials() is None:
        # Servers for development take any, unless they were told which.
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return session.client(
        service,
        region_name=region or session.region_name or "us-east-1",
        endpoint_url=endpoint,
        config=config.merge(Config(max_pool_connections=64, user_agent="truecount")),
        **credentials,
    )


def twin(client: Any, config: Config) -> Any:
    """A client like somebody's ``client``, set up in the same way but for ``config``.

    Theirs has retries and time-outs that are fixed for good. Credentials are
    the same object, which renews itself. Event handlers are not taken over.
    """
    session = botocore.session.Session()
    session.register_component("credential_provider", _Given(client._get_credentials()))
    return session.create_client(
        client.meta.service_model.service_name,
        region_name=client.meta.region_name,
        endpoint_url=client.meta.endpoint_url,
        verify=getattr(session_of(client), "_verify", None),
        config=client.meta.config.merge(config),
    )


class _Given(NamedTuple):
    """Provides credentials that are known."""

    credentials: Any

    def load_credentials(self) -> Any:
        return self.credentials


def sign(client: Any, operation: str, request: Any) -> None:
    """Sign ``request`` for ``operation``, as ``client`` does, and with its credentials of now."""
    client._request_signer.sign(operation, request)


def session_of(client: Any) -> Any:
    """What sends the requests of ``client``."""
    return client._endpoint.http_session


def is_direct(client: Any, url: str) -> bool:
    """Whether ``client`` does nothing special on the way to ``url``.

    Else there is a proxy, a certificate of one's own, or it is not as we know it.
    """
    try:
        session = session_of(client)
        proxy, certificate = session._proxy_config.proxy_url_for(url), session._cert_file
    except AttributeError:
        return False
    return proxy is None and certificate is None


def trusting(client: Any) -> ssl.SSLContext:
    """Who may answer, as ``client`` is set up."""
    context: ssl.SSLContext = create_urllib3_context()
    verify = session_of(client)._verify
    context.check_hostname = bool(verify)
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if verify:
        context.load_verify_locations(get_cert_path(verify))
    return context
