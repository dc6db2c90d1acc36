"""What a history says of one counter, sorted by what can be concluded from it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

__all__ = [
    "ALONE",
    "BOUNDS",
    "FIXED",
    "NEVER",
    "TENTATIVE",
    "Bounds",
    "Call",
    "Contradiction",
    "Life",
    "Row",
    "Sight",
    "process_of",
]

NEVER: Final = 1 << 62
"""An instant that does not come: the end of a call that did not return."""

BOUNDS: Final = ("minimum", "maximum")

FIXED: Final = 0  # the receipt says which revision it was
TENTATIVE: Final = 1  # only what the handle showed then does: it may be a later one
ALONE: Final = 2  # likewise, of a change that has a revision of its own

Bounds: TypeAlias = tuple[int | None, int | None]


class Row(NamedTuple):
    """A change that was applied, and at which revision.

    ``before`` and ``after`` are None where there is no counter. ``time`` (µs)
    and ``bounds`` are those of the revision, None when they were not told.
    ``call`` is negative when nobody knows whose change it was.
    """

    revision: int
    before: int | None
    after: int | None
    begin: int
    end: int
    time: int | None
    bounds: Bounds | None
    call: int
    kind: int


class Sight(NamedTuple):
    """What a handle showed: the state that a revision left.

    ``begin`` is when the look at it began, 0 for what was only shown again.
    """

    revision: int
    value: int
    begin: int
    end: int
    time: int | None
    bounds: Bounds | None
    call: int


class Call:
    """A call of which more is to be said than a row or a sight."""

    __slots__ = ("asked", "begin", "call", "came", "end", "op", "tried")

    def __init__(self, call: int, op: str, begin: int, asked: dict[str, Any]) -> None:
        self.call = call
        self.op = op
        self.begin = begin
        self.end = NEVER
        self.asked = asked
        self.tried: tuple[int, int] | None = None  # what an update was about to send last
        self.came: dict[str, Any] = UNKNOWN

    @property
    def error(self) -> str | None:
        """The error that refused it, if one did."""
        return self.came.get("error")

    @property
    def is_unknown(self) -> bool:
        """Whether nobody was told what became of it."""
        return "unknown" in self.came

    @property
    def text(self) -> str:
        """Which change it is, for the key that it carries."""
        asked = self.asked
        if self.op == "set":
            return f"set {asked['value']}"
        return f"add {asked['n']}" if self.op in ("add", "reserve") else self.op


UNKNOWN: Final[dict[str, Any]] = {"unknown": None}


class Contradiction(NamedTuple):
    """What cannot have been: in words, when (``time.monotonic_ns``), and by which calls.

    ``revision`` is the one that it is about, where it is about one.
    """

    domain: str
    name: str
    text: str
    at: int
    calls: tuple[int, ...]
    revision: int | None = None


class Life:
    """The calls of one counter."""

    def __init__(self, domain: str, name: str) -> None:
        self.domain = domain
        self.name = name
        self.rows: list[Row] = []
        self.sights: list[Sight] = []
        self.calls: list[Call] = []  # refused, unknown, with a key, or of another kind
        self.unknown: set[int] = set()  # those of them that may be settled
        self.settlings: list[tuple[int, Call]] = []  # of which call, and the retry or cancellation
        self.updates: list[tuple[int, int]] = []  # each may have written a fence, and more
        self.key_ttl: float | None = None
        self.contradictions: list[Contradiction] = []
        self.undecided = 0  # gaps of which nobody can tell whether they are explained

    def contradict(
        self, text: str, at: int, calls: tuple[int, ...], revision: int | None = None
    ) -> None:
        """Note what cannot have been."""
        self.contradictions.append(Contradiction(self.domain, self.name, text, at, calls, revision))


def process_of(call: int) -> int:
    """The number of the process that made ``call``; -1 when it is not known."""
    return call >> 40
