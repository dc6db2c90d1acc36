"""boto3's clients of a server on this machine."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from bench.peers.model import Place

__all__ = ["client_of"]


def client_of(service: str, place: Place) -> Any:
    """One with a connection for each of 128 threads."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{place.port}",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # any will do
        config=Config(max_pool_connections=128),
    )
