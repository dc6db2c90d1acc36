"""What the clients of a soak do, to which counters, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["DOMAIN", "KEYED", "LOADS", "MANY", "Load", "Stage"]

DOMAIN: Final = "soak"

KEYED: Final = "keyed add"
MANY: Final = "add to many"

_RECORDED: Final = {
    "step": "assign",
    "swap": "compare_and_set",
    "keyed": KEYED,
    "look": "refresh",
    "several": MANY,
}
"""What a history calls an operation, where it has another name for it."""


class Stage(NamedTuple):
    """Counters that are used alike: ``many`` of them, named after ``name``.

    ``share`` says how often, beside other stages, and ``weights`` how often
    which operation of `truecount.testing.soak.client.Hand`. Amounts are up to
    ``span``, either way; ``initial``, ``minimum`` and ``maximum`` are those of
    a counter that is created.
    """

    name: str
    share: int
    weights: Mapping[str, int]
    many: int = 1
    span: int = 2**40
    initial: int = 0
    minimum: int | None = None
    maximum: int | None = None

    @property
    def names(self) -> list[str]:
        """The names of its counters."""
        return [f"{self.name}{number}" for number in range(1, self.many + 1)]


class Load(NamedTuple):
    """What clients do: on which stages, and ``impatience``: the share of calls with little time.

    ``keys`` is how many idempotency keys of a counter are in use in one second.
    """

    stages: tuple[Stage, ...]
    impatience: float = 0.15
    keys: int = 20

    @property
    def names(self) -> list[str]:
        """The names of all counters."""
        return [name for stage in self.stages for name in stage.names]

    def kinds(self, *, keys: bool) -> list[str]:
        """The kinds of calls that there are in its history, with idempotency keys or without."""
        whats = {what for stage in self.stages for what in stage.weights}
        return [
            _RECORDED.get(what, what)
            for what in sorted(whats)
            if keys or what not in ("keyed", "receipt")
        ]


_CHANGES: Final = {
    "add": 30,
    "step": 15,
    "swap": 8,
    "keyed": 8,
    "look": 6,
    "update": 5,
    "reserve": 5,
    "several": 4,
    "set": 2,
    "receipt": 2,
}

LOADS: Final[dict[str, Load]] = {
    "mixed": Load(
        (
            Stage("hot", 5, _CHANGES),
            Stage("cool", 3, _CHANGES, many=3),
            Stage("bounded", 3, {**_CHANGES, "limit": 8}, minimum=-(2**41), maximum=2**41),
            Stage("mortal", 3, {**_CHANGES, "delete": 5, "open": 4}, many=2),
            Stage("huge", 1, _CHANGES, initial=10**30),
        )
    ),
    "adds": Load((Stage("hot", 1, {"add": 1}),), impatience=0.3),
    "bounded": Load(
        (Stage("bounded", 1, {"add": 5, "limit": 1}, minimum=-(2**41), maximum=2**41),),
        impatience=0.3,
    ),
    "mortal": Load(
        (Stage("mortal", 1, {"add": 8, "set": 2, "step": 2, "delete": 1, "open": 2}),),
        impatience=0.3,
    ),
    "keyed": Load((Stage("keyed", 1, {"keyed": 3, "add": 1}),), impatience=0.3),
}
"""By name: what a soak does, and some of it alone, for what only that shows."""
