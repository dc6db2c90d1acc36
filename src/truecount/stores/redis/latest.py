"""What this process wrote last to a counter in Redis, and what it writes next there. Pure.

While nobody else writes, `NEXT` need only compare and set, which takes Redis half as
long as `ADD`. It applies only what ADD would have applied, and writes the same: the
line that is still there is one of ADD's, or follows one, and is the newest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from truecount.change import Answer, Batch
from truecount.record import View, make
from truecount.stores.redis.scripts import LIMIT, NEXT, Request, packed
from truecount.sums import Sums, added

__all__ = ["ENOUGH", "Foreseen", "Latest", "foresee", "written"]

ENOUGH: Final = 8
"""So many writes in a row by this process, and the next is likely to be its own too.

Where processes take turns, hardly any of them asks in vain.
"""


class Latest(NamedTuple):
    """A counter as this process left it, when so many writes ``in_a_row`` were its own.

    What `NEXT` is told, as it is sent: ``fixed`` is the same each time, ``there`` what
    it finds. ``bounds`` end each line. They are empty as long as it is not used.
    """

    view: View
    in_a_row: int
    fixed: bytes = b""
    there: bytes = b""
    bounds: bytes = b""


class Foreseen(NamedTuple):
    """A batch that is likely to come next: its request, and what is so once that is done."""

    request: Request
    name: bytes
    before: Latest
    batch: Batch
    time: int
    there: bytes

    def outcome(self) -> tuple[Answer, Latest]:
        """The answer to it, and how it leaves the counter."""
        _, _, before, batch, time, there = self
        (value, stamp, _, minimum, maximum), in_a_row, fixed, _, bounds = before
        answer = added(batch, value, stamp[0] + 1, time, minimum, maximum)
        return answer, make(Latest, (answer.view, in_a_row, fixed, there, bounds))


def written(before: Latest | None, key: bytes, answer: Answer, told: list[bytes]) -> Latest:
    """What `ADD` has left at ``key``, where this process left ``before``: it has ``told`` so."""
    view = answer.view
    assert view is not None
    in_a_row = 1
    if before is not None and before.view.stamp.revision + 1 == view.stamp.revision:
        in_a_row += before.in_a_row
    if in_a_row < ENOUGH:
        return make(Latest, (view, in_a_row, b"", b"", b""))
    writer, *line, state = told
    fixed = NEXT.head(9) + packed(b"1", key, b"w:" + writer, writer, state)
    there = packed(line[4], b" ".join(line))
    return make(Latest, (view, in_a_row, fixed, there, b" ".join(line[6:])))


def foresee(before: Latest, key: bytes, batch: Batch, adds: Sums, now: int) -> Foreseen | None:
    """How to write ``batch`` after ``before``; None: it is not likely to come next, or to be done.

    A refusal is justified by what is true now, not by what was known.
    """
    (value, (revision, writer, last), time, minimum, maximum), _, fixed, there, bounds = before
    name, number = batch[:2]
    total, lowest, highest, expected = adds
    if (
        not fixed
        or name != writer
        or number <= last
        or batch.fence
        or (expected is not None and expected != value)
        or not (-LIMIT < value < LIMIT and revision < LIMIT)
        or (minimum is not None and value + lowest < minimum)
        or (maximum is not None and value + highest > maximum)
    ):
        return None
    if now > time:
        time = now
    after = b"%d" % (value + total)
    line = b"%d %d %d %d %b + %b" % (number, revision + 1, time, value, after, bounds)
    left = b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(after), after, len(line), line)
    whose = b"%b %d" % (writer.encode(), number)
    sent = b"%b%b%b$%d\r\n%b\r\n" % (fixed, there, left, len(whose), whose)
    request = make(Request, (key, sent, NEXT))
    return make(Foreseen, (request, whose, before, batch, time, left))
