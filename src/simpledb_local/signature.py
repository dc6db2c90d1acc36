"""Signature Version 2: whether a request was made by one who has the secret key."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote

from simpledb_local import errors
from simpledb_local.parameters import Parameters

__all__ = ["Credentials", "string_to_sign", "verify"]

WINDOW: Final = timedelta(minutes=15)
"""How far the client's clock may be from ours."""

_HASHES: Final = {"HmacSHA256": "sha256", "HmacSHA1": "sha1"}


class Credentials(NamedTuple):
    """The one account that may use the server."""

    access_key: str
    secret_key: str


def verify(
    credentials: Credentials,
    verb: str,
    host: str,
    path: str,
    parameters: Parameters,
    now: datetime | None = None,
) -> None:
    """Raise `ServiceError` unless the request was signed, lately, with the secret key."""
    key, signature = parameters.get("AWSAccessKeyId"), parameters.get("Signature")
    if not key or not signature:
        raise errors.auth_missing()
    hash_ = _HASHES.get(parameters.get("SignatureMethod") or "")
    if parameters.get("SignatureVersion") != "2" or hash_ is None:
        raise errors.incomplete_signature()
    if not hmac.compare_digest(key.encode(), credentials.access_key.encode()):
        raise errors.unknown_key()
    text = string_to_sign(verb, host, path, parameters)
    digest = hmac.digest(credentials.secret_key.encode(), text.encode(), hash_)
    if not hmac.compare_digest(signature.encode(), base64.b64encode(digest)):
        raise errors.wrong_signature()
    _check_time(parameters, now or datetime.now(UTC))


def string_to_sign(verb: str, host: str, path: str, parameters: Parameters) -> str:
    """What the signature is made of. The host is the header's, its port too if it has one."""
    pairs = sorted(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parameters.pairs)
        if name != "Signature"
    )
    return "\n".join((verb, host.lower(), path or "/", "&".join(pairs)))


def _check_time(parameters: Parameters, now: datetime) -> None:
    """A request is good for some time around its ``Timestamp``, or until it ``Expires``."""
    signed, ends = parameters.get("Timestamp"), parameters.get("Expires")
    if signed is not None and ends is not None:
        raise errors.invalid_combination("Timestamp", "Expires")
    if ends is not None:
        if now > _time("Expires", ends):
            raise errors.expired("Expires", ends)
    elif signed is None:
        raise errors.missing_parameter("Timestamp")
    elif abs(now - _time("Timestamp", signed)) > WINDOW:
        raise errors.expired("Timestamp", signed)


def _time(parameter: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except ValueError as error:
        reason = " Reason: Must be in ISO8601 format."
        raise errors.invalid_value(text, parameter, reason) from error
