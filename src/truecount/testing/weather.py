"""Faults by chance: a seed makes a weather, and the same seed makes it again.

A `Weather` decides what befalls each request, and does nothing itself. What
stands in the way of requests asks it: a `Proxy` in front of a server, or a
`FaultyStore` around a store.
"""

from __future__ import annotations

import math
import operator
import random
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

__all__ = ["FAIR", "KINDS", "Fate", "Weather", "anything", "check_told", "check_weather"]

FAIR: Final = "fair"
"""Nothing befalls the request."""

KINDS: Final = (
    *("cut_before", "cut_within", "cut_after", "silence"),
    *("delay", "late", "split", "refuse", "partition"),
)
"""The kinds of faults: arguments of `Weather`, and the keys of what is counted."""

Span = tuple[float, float]


def anything(request: Any) -> bool:
    """Whatever is asked."""
    return True


class Fate(NamedTuple):
    """What befalls one request: a fault of this ``kind``, or `FAIR`.

    ``seconds`` is how long it lasts, where it lasts, and ``dice`` decide on
    the rest: where to break the request off, in which pieces to send it.
    """

    kind: str
    seconds: float
    dice: random.Random


class Weather:
    """Decides by ``seed`` what befalls each request for which ``when`` is true.

    Each kind of fault comes with the chance that it befalls a request, from 0
    to 1, and together at most 1:

    ==============  ==========================================================
    ``cut_before``  the connection ends, and the server has seen nothing
    ``cut_within``  it ends in the middle of the request, or of the answer
    ``cut_after``   it ends when the server has answered: the reply is lost
    ``silence``     the server has answered, and the client waits in vain
    ``delay``       it travels for ``delayed`` seconds, whoever still waits
    ``late``        the connection ends, and the request arrives all the same,
                    ``lateness`` seconds later
    ``split``       it travels in pieces, some of a single byte, and so does
                    the answer
    ``refuse``      every connection ends, and new ones are refused for a
                    ``spell``
    ``partition``   nothing passes either way for a ``spell``, on connections
                    that stay open
    ==============  ==========================================================

    ``delayed``, ``lateness`` and ``spell`` are the shortest and the longest
    time, in seconds. ``when`` is given the request as the one sees it who is
    in its way: a `Proxy` its bytes so far, a `FaultyStore` the step.

    The first request meets the first fate of the seed, the second one the
    second: as the requests come in order, so do the faults. It may be asked
    from any thread, and by several at once. ``drawn`` counts the fates, by kind.
    Raises `ValueError` when the chances or the times are none, `TypeError` when ``when`` is not
    to be called.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        cut_before: float = 0.0,
        cut_within: float = 0.0,
        cut_after: float = 0.0,
        silence: float = 0.0,
        delay: float = 0.0,
        late: float = 0.0,
        split: float = 0.0,
        refuse: float = 0.0,
        partition: float = 0.0,
        delayed: Span = (0.0, 0.1),
        lateness: Span = (0.1, 2.0),
        spell: Span = (0.1, 1.0),
        when: Callable[[Any], bool] = anything,
    ) -> None:
        chances = (
            *(cut_before, cut_within, cut_after, silence),
            *(delay, late, split, refuse, partition),
        )
        for kind, chance in zip(KINDS, chances, strict=True):
            if not (isinstance(chance, int | float) and 0 <= chance <= 1):
                raise ValueError(f"{kind}={chance!r}: a chance is a number from 0 to 1")
        if sum(chances) > 1 + 1e-9:
            raise ValueError("the chances of faults are together at most 1")
        for name, span in (("delayed", delayed), ("lateness", lateness), ("spell", spell)):
            match span:
                case [int() | float() as shortest, int() | float() as longest] if (
                    0 <= shortest <= longest < math.inf
                ):
                    pass
                case _:
                    raise ValueError(
                        f"{name}={span!r}: it is the shortest and the longest time, in seconds, as "
                        f"{name}=(0.1, 1)"
                    )
        check_told(1, when)
        self.seed = seed
        self.chances = {kind: chance for kind, chance in zip(KINDS, chances, strict=True) if chance}
        self.when = when
        self.drawn = dict.fromkeys((FAIR, *self.chances), 0)
        self._spans = {"delay": delayed, "late": lateness, "refuse": spell, "partition": spell}
        self._dice = random.Random(seed)
        self._lock = threading.Lock()

    def draw(self, request: Any) -> Fate | None:
        """What befalls ``request``; None when ``when`` does not mean it."""
        if not self.when(request):
            return None
        with self._lock:
            chance, length = self._dice.random(), self._dice.random()
            dice = random.Random(self._dice.getrandbits(64))
            kind = self._kind(chance)
            self.drawn[kind] += 1
        shortest, longest = self._spans.get(kind, (0.0, 0.0))
        return Fate(kind, shortest + (longest - shortest) * length, dice)

    def _kind(self, chance: float) -> str:
        for kind, share in self.chances.items():
            if chance < share:
                return kind
            chance -= share
        return FAIR

    def __repr__(self) -> str:
        chances = "".join(f", {kind}={chance:g}" for kind, chance in self.chances.items())
        return f"Weather({self.seed}{chances})"


def check_weather(weather: Weather | None) -> Weather | None:
    """``weather``, if it is one or None; else raise `TypeError`."""
    if weather is not None and not isinstance(weather, Weather):
        raise TypeError(f"a weather is made by Weather(seed=7, cut_after=0.2), not {weather!r:.80}")
    return weather


def check_told(count: int, when: object = anything) -> int:
    """``count``, if so many requests, for which ``when`` is true, may be told their fate.

    Raises `TypeError` or `ValueError`.
    """
    if not callable(when):
        raise TypeError(f"when is called with a request, and says whether it is meant: {when!r}")
    if operator.index(count) < 0:
        raise ValueError(f"{count} requests are less than none")
    return count
