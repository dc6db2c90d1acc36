"""Answers as the service writes them: XML, on one line after its declaration."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from simpledb_local.errors import ServiceError

__all__ = ["attribute_elements", "element", "error_document", "success_document", "text"]

NAMESPACE: Final = "http://sdb.amazonaws.com/doc/2009-04-15/"

_SPECIAL = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML cannot hold, not even escaped."""


def text(value: str) -> str:
    """``value`` escaped; what XML cannot hold becomes the replacement character."""
    if not _SPECIAL.search(value):
        return value
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A parser makes a line feed of a bare carriage return.
    return _UNSPEAKABLE.sub("\ufffd", value.replace("\r", "&#13;"))


def element(tag: str, value: str) -> str:
    """An element that holds a name or a value of a client's, whatever its characters."""
    if _SPECIAL.search(value):
        if _UNSPEAKABLE.search(value):
            encoded = base64.b64encode(value.encode()).decode()
            return f'<{tag} encoding="base64">{encoded}</{tag}>'
        value = text(value)
    return f"<{tag}>{value}</{tag}>"


def attribute_elements(
    attributes: Mapping[str, Sequence[str]], names: Iterable[str] | None = None
) -> list[str]:
    """An element for each pair of ``attributes``; only of ``names``, where they are given."""
    return [
        f"<Attribute>{element('Name', name)}{element('Value', value)}</Attribute>"
        for name in (attributes if names is None else names)
        for value in attributes.get(name, ())
    ]


def success_document(action: str, result: str | None, box_usage: float) -> bytes:
    """The answer to ``action``: its result, None for those that have none."""
    if result is None:
        wrapped = ""
    elif result:
        wrapped = f"<{action}Result>{result}</{action}Result>"
    else:
        wrapped = f"<{action}Result/>"
    return (
        f'<?xml version="1.0"?>\n<{action}Response xmlns="{NAMESPACE}">{wrapped}'
        f"<ResponseMetadata><RequestId>{uuid4()}</RequestId>"
        f"<BoxUsage>{box_usage:.10f}</BoxUsage></ResponseMetadata></{action}Response>"
    ).encode()


def error_document(error: ServiceError) -> bytes:
    """The answer to a request that failed. It has no namespace."""
    usage = error.box_usage
    billed = "" if usage is None else f"<BoxUsage>{usage:.10f}</BoxUsage>"
    return (
        f'<?xml version="1.0"?>\n<Response><Errors><Error><Code>{error.code}</Code>'
        f"<Message>{text(error.message)}</Message>{billed}</Error></Errors>"
        f"<RequestID>{uuid4()}</RequestID></Response>"
    ).encode()
