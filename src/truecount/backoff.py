"""How long to wait before the next attempt. Pure but for the dice."""

from __future__ import annotations

from random import Random, SystemRandom
from typing import Final

__all__ = ["NAP", "seconds"]

NAP: Final = 0.00002
"""Seconds between two looks at what is about to change."""

FIRST: Final = 0.001
LONGEST: Final = 1.0

CROWDED: Final = 0.064
"""Seconds that somebody waits at most who only came second.

A longer wait lets one writer go on undisturbed for longer, which is faster,
and starves the others.
"""


_DICE: Final = SystemRandom()  # not the program's: those of many may have one seed


def seconds(attempt: int, *, crowded: bool = False, dice: Random = _DICE) -> float:
    """The wait after ``attempt`` earlier ones, in seconds.

    Exponential with full jitter (Marc Brooker, "Exponential Backoff and
    Jitter", AWS Architecture Blog, 2015): a random part of a span that doubles
    from 1 ms to 1 s, so that those who collided do not collide again.
    ``crowded``: nothing is wrong but that others were first.
    """
    span = min(CROWDED if crowded else LONGEST, FIRST * 2.0 ** min(attempt, 20))
    return span * dice.random()
