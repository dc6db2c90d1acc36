"""Who is compared: engines, and the contenders on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from truecount import Counter, connect

__all__ = ["OURS", "Add", "Contender", "Engine", "Place", "Session", "ours"]

Add: TypeAlias = Callable[[], object]
"""Adds 1 to one counter, and returns what it has become."""

Session: TypeAlias = Callable[[str], Add]
"""Makes what adds to a counter, by name; of one thread."""

OURS = "truecount"


class Place(NamedTuple):
    """Where the counters are: what another process needs to find them."""

    url: str
    port: int = 0
    folder: str = ""

    def at(self, port: int) -> Place:
        """The same place behind another port, such as a proxy's."""
        return self._replace(url=self.url.replace(f":{self.port}", f":{port}"), port=port)


class Contender(NamedTuple):
    """One way to count.

    ``open`` holds what the threads of one process share, and makes their
    sessions. ``read`` looks what a counter has come to. ``asyncio``, where there
    is one, makes what one task awaits.
    """

    name: str
    open: Callable[[Place], AbstractContextManager[Callable[[], Session]]]
    read: Callable[[Place, str], int]
    asyncio: Callable[[Place, str], AbstractContextManager[Any]] | None = None


class Engine(NamedTuple):
    """One database at one durability. ``bare`` is the contender with one atomic statement."""

    title: str
    start: Callable[[Path], AbstractContextManager[Place]]
    contenders: tuple[Contender, ...]
    bare: str


@contextmanager
def open_ours(place: Place) -> Iterator[Callable[[], Session]]:
    """Ours: one store, which all threads share."""
    with connect(place.url) as store:

        def add_to(name: str) -> Add:
            return Counter("bench", name, store=store).add

        yield lambda: add_to


def read_ours(place: Place, name: str) -> int:
    """What a counter of ours has come to."""
    with connect(place.url) as store:
        return Counter("bench", name, store=store, create=False).value


def ours() -> Contender:
    """Truecount, on whatever engine."""
    return Contender(OURS, open_ours, read_ours)
