"""How long to wait before the next attempt, and whether to make one. Pure but for the dice."""

from __future__ import annotations

from random import Random, SystemRandom
from typing import Final

__all__ = ["Hope", "seconds"]

FIRST: Final = 0.001
LONGEST: Final = 1.0

CROWDED: Final = 0.064
"""Seconds that somebody waits at most who only came second.

A longer wait lets one writer go on undisturbed for longer, which is faster,
and starves the others.
"""


VAIN: Final = 8
"""Attempts in a row that came to nothing, after which there is little hope."""

AGAIN: Final = 32
"""Of so many occasions, one is taken then all the same."""

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


class Hope:
    """Whether to attempt what costs something, and may be in vain."""

    def __init__(self) -> None:
        self._vain = 0  # occasions in a row

    def is_left(self) -> bool:
        """Whether to take this occasion, which is in vain unless it is `fulfilled`."""
        self._vain += 1
        return self._vain <= VAIN or self._vain % AGAIN == 0

    def fulfilled(self) -> None:
        """Take note that it was worth it."""
        self._vain = 0
