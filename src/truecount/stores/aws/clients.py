"""Boto3's clients, which know the place, the credentials, whom to trust, and proxies."""

from __future__ import annotations

from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config

__all__ = ["client_at", "twin"]


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
    # Boto3 tells these two to nobody, so they are taken from where it keeps them.
    session.register_component("credential_provider", _Given(client._get_credentials()))
    verify = getattr(client._endpoint.http_session, "_verify", None)
    return session.create_client(
        client.meta.service_model.service_name,
        region_name=client.meta.region_name,
        endpoint_url=client.meta.endpoint_url,
        verify=verify,
        config=client.meta.config.merge(config),
    )


class _Given(NamedTuple):
    """Provides credentials that are known."""

    credentials: Any

    def load_credentials(self) -> Any:
        return self.credentials
