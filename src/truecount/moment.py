"""Instants: whole microseconds since the epoch, and how they are written.

Records keep an instant as an int, which compares and stores exactly. People
read ISO 8601 in UTC: ``2010-07-14T09:30:00.000000Z``.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["END", "now", "to_datetime", "to_iso"]

END: Final = 253_402_300_800_000_000
"""The first instant that is not written any more: it is in the year 10000."""

_EPOCH = datetime(1970, 1, 1)


def now() -> int:
    """This machine's clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def to_iso(instant: int) -> str:
    """``instant`` as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
    return (_EPOCH + timedelta(microseconds=instant)).isoformat(timespec="microseconds") + "Z"


def to_datetime(instant: int) -> datetime:
    """``instant`` as an aware datetime in UTC."""
    return (_EPOCH + timedelta(microseconds=instant)).replace(tzinfo=UTC)
