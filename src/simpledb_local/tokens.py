"""Tokens: where the next page begins, opaque to clients."""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

from simpledb_local import errors

__all__ = ["START", "Place", "seal", "unseal"]


class Place(NamedTuple):
    """Where a page ended: at which name, and, when items are sorted, at what value."""

    name: str
    value: str = ""


START: Final = Place("")


def seal(fingerprint: str, place: Place) -> str:
    """The token that goes on behind ``place`` in what ``fingerprint`` identifies."""
    text = f"{_digest(fingerprint)}.{len(place.name)}.{place.name}{place.value}"
    return base64.b64encode(text.encode()).decode()


def unseal(fingerprint: str, token: str | None) -> Place:
    """The place that ``token`` says; raises `ServiceError` when it is not for ``fingerprint``."""
    if token is None:
        return START
    try:
        digest, length, text = base64.b64decode(token).decode().split(".", 2)
        border = int(length)
    except ValueError as error:
        raise errors.invalid_next_token() from error
    if digest != _digest(fingerprint):
        raise errors.invalid_next_token()
    return Place(text[:border], text[border:])


def _digest(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
