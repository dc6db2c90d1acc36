"""What callers were told, held against the chain: in real time, and refusal by refusal.

The instant of a revision is not known, but it lies after every call began that
made it or an earlier one, and before every call ended that made or saw it or a
later one. That is all there is to know, and it is enough: instants in order
exist if and only if no such beginning is later than such an end.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from truecount.record import LEAST, MOST
from truecount.testing.checker.bounds import BoundsCourt
from truecount.testing.checker.chain import ABSENT, Chain, Seam, chain_of
from truecount.testing.checker.facts import STORE_ERRORS, Facts, Loose, Refused, facts_of
from truecount.testing.checker.life import ALONE, NEVER, Bounds, Contradiction, Life, process_of

__all__ = ["judge"]

ENOUGH: Final = 100
"""As many contradictions of a kind are noted for a counter; the rest tells nothing new."""

ATTEMPTS: Final = 10
"""How often it is guessed, at most, what is in the seams."""

MANY: Final = 300_000
"""Of so many changes, an attempt takes long."""

UNJUDGED: Final = STORE_ERRORS | {"InvalidNameError", "InvalidTypeError"}
"""Errors that need no reason: what was asked for is not all that they are about."""

NEAR: Final = 1000
"""How many deletions are looked at to explain an absence, of those that may."""


def judge(life: Life) -> None:
    """Note in ``life`` all that cannot have been.

    Which of several unknown changes was in a seam is a guess, and a wrong one
    is missed elsewhere; so is of which revision a change of the bounds was, after
    which the handle may have shown a later one. So nobody is convicted before
    other guesses were made.
    """
    noted = life.contradictions
    best: tuple[tuple[int, int], list[Contradiction]] | None = None
    for attempt in range(ATTEMPTS if len(life.rows) < MANY else 2):
        life.contradictions = noted.copy()
        facts = facts_of(life)
        proven = len(life.contradictions)
        presumed = [row for row in facts.rows if row.kind == ALONE]
        if attempt % 2:
            facts.rows = [row for row in facts.rows if row.kind != ALONE]
            for row in presumed:
                facts.release(row)
        chain = chain_of(facts, random.Random(attempt) if attempt else None)
        court = _Court(facts, chain)
        court.judge_order()
        court.bounds.judge()
        for refused in facts.refused:
            court.judge_refusal(refused)
        court.judge_idle()
        found = (len(life.contradictions), len(chain.undecided))
        if best is None or found < best[0]:
            best = found, life.contradictions
        if best[0] == (proven, 0) or not (facts.due or facts.possible or presumed):
            break
    assert best is not None
    (_, life.undecided), life.contradictions = best


class _Court:
    """Judges one counter."""

    def __init__(self, facts: Facts, chain: Chain) -> None:
        self.facts = facts
        self.life = facts.life
        self.chain = chain
        self.places: dict[int | None, list[int]] | None = None
        seams = [seam for seam in chain.seams if seam.is_murky]
        self.murky = sorted(seams, key=_position)
        deletions = [x for x in (*facts.due, *facts.possible) if x.op == "delete"]
        self.deletions = sorted(deletions, key=_end)
        self._measure()
        self.bounds = BoundsCourt(facts, chain, self.earliest, self.latest, self.murky)

    def _measure(self) -> None:
        """Between which instants each revision was written."""
        chain = self.chain
        writes, begins, ends = chain.writes, chain.begins, chain.ends
        looks = chain.looks
        count = len(writes)
        earliest, latest = [0] * count, [NEVER] * count
        now = looked = 0
        first = 0
        while first < count:
            last = first
            now = max(now, looked)
            while last < count and writes[last] == writes[first]:
                now = max(now, begins[last])
                last += 1
            for position in range(first, last):
                earliest[position] = now
            if last - 1 in looks:
                looked = max(looked, looks[last - 1][0])
            first = last
        until = NEVER
        last = count - 1
        while last >= 0:
            first = last
            while first >= 0 and writes[first] == writes[last]:
                until = min(until, ends[first])
                first -= 1
            for position in range(first + 1, last + 1):
                latest[position] = until
            last = first
        self.earliest, self.latest = earliest, latest

    def judge_order(self) -> None:
        """No revision was known before a call began that made or did not see it."""
        chain = self.chain
        noted = 0
        began, beginner, at, look = 0, -1, -1, False
        for position, end in enumerate(chain.ends):
            begin = chain.begins[position]
            if begin > began:
                began, beginner, at, look = begin, chain.calls[position], position, False
            if end < began and noted < ENOUGH:
                # Of one revision all are at one instant, wherever they stand in it.
                noted += 1
                ender = chain.enders.get(position, chain.calls[position])
                now, then = chain.revisions[position], chain.revisions[at]
                did = f"saw revision {then}" if look else f"made revision {then}"
                text = f"revision {now} was known before a call began that {did}"
                self.life.contradict(text, end, (ender, beginner), then)
            if position in chain.looks and chain.looks[position][0] > began:
                began, beginner = chain.looks[position]
                at, look = position, True
        # Within a revision a later position may begin after an earlier one has ended.
        for position in range(len(chain.ends) - 1):
            same = chain.writes[position] == chain.writes[position + 1]
            if same and chain.begins[position + 1] > chain.ends[position]:
                here = chain.revisions[position]
                text = f"revision {here} was known before a call began that made a part of it"
                calls = (chain.calls[position], chain.calls[position + 1])
                self.life.contradict(text, chain.ends[position], calls, here)

    # Refusals

    def judge_refusal(self, refused: Refused) -> None:
        """There was an instant in the call at which it was right to refuse it."""
        match refused.error:
            case "CounterNotFoundError":
                wrong = self._was_repeated(refused) or not self._was_absent(refused)
                text = "there was a counter all the time, and it was told that there is none"
            case "OutOfSyncError":
                wrong = not self._was_other(refused)
                text = "the value was never another one than expected, or never the one told of"
            case "BoundsError":
                wrong = self._was_repeated(refused) or not self._was_outside(refused)
                text = "it was never outside the bounds that it was refused for"
            case "KeyReusedError":
                wrong = not self._was_reused(refused)
                text = "the key had not been used for another change"
            case "ReceiptNotFoundError":
                wrong = not self._was_unknown(refused)
                text = "the receipt was there all the time"
            case "BoundsMismatchError":
                wrong = not self._was_mismatched(refused)
                text = "the bounds asked for are those that it had"
            case "DamagedRecordError":
                wrong, text = True, "a record was found damaged, which only these calls wrote"
            case "CounterError" if refused.call.op == "open":
                wrong = not (self._was_cancelled(refused) or self._was_there(refused))
                text = "there was no counter, and it was told that there is one"
            case "CounterError":
                wrong = not self._was_cancelled(refused)
                text = "nobody has cancelled what is told to be cancelled"
            case error if error in UNJUDGED:
                return
            case _:
                wrong, text = True, "there is no such error"
        if wrong:
            calls = (
                (refused.at,)
                if refused.at == refused.call.call
                else (
                    refused.call.call,
                    refused.at,
                )
            )
            lo, hi = self._span(refused.begin, refused.end)
            near = (*calls, *self.chain.calls[max(0, lo) : hi + 1][:4])
            revision = self.chain.revisions[max(0, lo)] if self.chain.revisions else None
            self.life.contradict(f"{refused.error}: {text}", refused.end, near, revision)

    def _span(self, begin: int, end: int) -> tuple[int, int]:
        """The first and the last state that may have been there between ``begin`` and ``end``.

        -1 is what was before the first.
        """
        return bisect_left(self.latest, begin) - 1, bisect_right(self.earliest, end) - 1

    def _window(self, refused: Refused) -> Iterator[int]:
        lo, hi = self._span(refused.begin, refused.end)
        return iter(range(max(0, lo), hi + 1))

    def _is_open(self, refused: Refused, *, absence: bool = False) -> bool:
        """Whether there may have been a state in it of which nothing is known."""
        lo, hi = self._span(refused.begin, refused.end)
        chain = self.chain
        if lo < 0 and not chain.first_is_absent:
            return True
        guessed = chain.guessed
        if guessed:
            at = bisect_left(guessed, max(0, lo))
            if at < len(guessed) and guessed[at] <= hi:
                return True
        last = len(chain.values) - 1
        looked, _ = chain.looks.get(last, (0, -1))
        # What comes after the last state that is known came after the latest look at it.
        if (
            hi == last
            and looked <= refused.end
            and any(
                loose.begin <= refused.end and (not absence or loose.op == "delete")
                for loose in chain.unused
            )
        ):
            return True
        # There and back again, in revisions that are taken for idle; or overwritten.
        for seam in islice(self.murky, bisect_left(self.murky, lo + 1, key=_position), None):
            if seam.position > hi + 1:
                break
            if seam.hides and seam.earliest <= refused.end and seam.latest >= refused.begin:
                return True
            if absence:
                ended = bisect_left(self.deletions, seam.earliest, key=_end)
                near = islice(self.deletions, ended, ended + NEAR)
            else:
                near = islice(chain.unused, 1)  # sorted: it began first
            if any(each.begin <= seam.latest for each in near):
                return True
        return False

    def _places(self, value: int | None) -> list[int]:
        """The positions at which the value was ``value``."""
        if self.places is None:
            self.places = {}
            for refused in self.facts.refused:
                told = refused.came.get("actual", refused.came.get("value"))
                self.places[told] = []
            self.places[ABSENT] = []
            places = self.places
            for position, there in enumerate(self.chain.values):
                if there in places:
                    places[there].append(position)
        return self.places[value]

    def _was(self, value: int | None, refused: Refused) -> bool:
        """Whether the value may have been ``value``."""
        lo, hi = self._span(refused.begin, refused.end)
        places = self._places(value)
        at = bisect_left(places, max(0, lo))
        return at < len(places) and places[at] <= hi

    def _was_absent(self, refused: Refused) -> bool:
        lo, _ = self._span(refused.begin, refused.end)
        if lo < 0 and self.chain.first_is_absent:
            return True
        return self._was(ABSENT, refused) or self._is_open(refused, absence=True)

    def _was_other(self, refused: Refused) -> bool:
        call, came = refused.call, refused.came
        if call.op not in ("assign", "compare_and_set", "update"):
            return False  # it expects nothing
        expected = came.get("expected", call.tried[0] if call.tried else call.asked.get("expected"))
        actual = came.get("actual")
        if actual is not None:
            if actual == expected:
                return False
            return self._was(actual, refused) or self._is_open(refused)
        values = self.chain.values
        if any(values[at] not in (expected, ABSENT) for at in self._window(refused)):
            return True
        return self._is_open(refused)

    def _was_outside(self, refused: Refused) -> bool:
        asked, came = refused.call.asked, refused.came
        if _is_absurd(refused.call.op, asked):
            return True
        told = (came.get("minimum"), came.get("maximum"))
        value = came.get("value")
        if value is not None:
            if not _crosses(refused, value, told):
                return False
            if not (self._was(value, refused) or self._is_open(refused)):
                return False
            return self._may_have_had(told, refused)
        if refused.call.op == "open":
            return False  # not absurd: its own bounds hold its initial value
        bounds = self.bounds.seen_during(*self._span(refused.begin, refused.end))
        values = self.chain.values
        for position in self._window(refused):
            there = values[position]
            if there is not None and any(_crosses(refused, there, each) for each in bounds):
                return True
        return self._is_open(refused)

    def _may_have_had(self, told: Bounds, refused: Refused) -> bool:
        """Whether ``told`` may have been its bounds then."""
        return self.bounds.may_have_held(told, *self._span(refused.begin, refused.end), refused.end)

    def _was_reused(self, refused: Refused) -> bool:
        use = self.facts.keys.get(refused.call.asked.get("key", ""))
        if use is None:
            return False
        text = refused.call.text
        if any(row.begin <= refused.end and other != text for row, other in use.rows):
            return True
        told = [call for call, receipt, _, _ in use.told if receipt[2] is None]
        return any(
            call.begin <= refused.end and call.text != text for call in (*use.unknown, *told)
        )

    def _was_unknown(self, refused: Refused) -> bool:
        if "key" not in refused.call.asked:
            return False
        if refused.call.op != "receipt":
            return self.life.key_ttl is not None  # it was there, and has expired
        return not self._is_known(refused, None)

    def _was_repeated(self, refused: Refused) -> bool:
        """Whether it ought to have been told of the first with its key."""
        return "key" in refused.call.asked and self._is_known(refused, refused.call.text)

    def _is_known(self, refused: Refused, text: str | None) -> bool:
        """Whether its key was used before it, for the change ``text`` (None: for any)."""
        use = self.facts.keys.get(refused.call.asked["key"])
        ttl = self.life.key_ttl
        return use is not None and any(
            end < refused.begin
            and text in (None, other)
            and (ttl is None or refused.end - begin < ttl * 1_000_000_000)
            for begin, end, other in use.times()
        )

    def _was_there(self, refused: Refused) -> bool:
        values = self.chain.values
        return any(values[position] is not ABSENT for position in self._window(refused))

    def _was_cancelled(self, refused: Refused) -> bool:
        # Who cancels does so for all whose changes travelled in the same batch.
        process = process_of(refused.call.call)
        return any(
            process_of(of) == process and call.op == "cancel" and call.begin < refused.end
            for of, call in self.life.settlings
        )

    def _was_mismatched(self, refused: Refused) -> bool:
        asked, came = refused.call.asked, refused.came
        if refused.call.op != "open":
            return False
        differs = any(
            bound in asked and asked[bound] != came.get(bound) for bound in ("minimum", "maximum")
        )
        return differs and self._may_have_had((came.get("minimum"), came.get("maximum")), refused)

    # Revisions in which nothing changed

    def judge_idle(self) -> None:
        """Each was written by somebody: a change of the bounds, or a fence.

        And each change of the bounds has one. That both can be at once follows
        from that either can (Mendelsohn and Dulmage).
        """
        seams = [seam for seam in self.chain.seams if seam.room]
        limits = [loose for loose in self.facts.due if loose.op == "limit"]
        if limits:
            self._judge_limits(seams, limits)
        waiting = [(loose.begin, loose.end, False) for loose in (*limits, *self.facts.possible)]
        waiting += [(fence.begin, fence.end, fence.many) for fence in self.facts.fences]
        waiting += [(x.begin, x.end, True) for x in self.facts.creations if x.again]
        waiting.sort(reverse=True)
        there: list[int] = []  # until when each of them may have been
        always = 0  # until when there was one that may have been any number of times
        for seam in seams:
            while waiting and waiting[-1][0] <= seam.latest:
                _, end, many = waiting.pop()
                if many:
                    always = max(always, end)
                else:
                    heapq.heappush(there, end)
            while there and there[0] < seam.earliest:
                heapq.heappop(there)
            left = 0 if always >= seam.earliest else seam.idle
            while left and there:  # who has least time comes first
                heapq.heappop(there)
                left -= 1
            if left:
                words = f"{left} revisions up to {seam.revision} changed nothing, and are nobody's"
                self.life.contradict(words, seam.latest, (), seam.revision)

    def _judge_limits(self, seams: list[Seam], limits: list[Loose]) -> None:
        waiting = sorted(limits, key=lambda loose: loose.begin, reverse=True)
        there: list[tuple[int, int]] = []
        for seam in seams:
            while waiting and waiting[-1].begin <= seam.latest:
                loose = waiting.pop()
                heapq.heappush(there, (loose.end, loose.call))
            while there and there[0][0] < seam.earliest:
                self._lost(*heapq.heappop(there))
            for _ in range(min(seam.room, len(there))):
                heapq.heappop(there)
        last = self.earliest[-1] if self.earliest else 0
        looked, _ = self.chain.looks.get(len(self.earliest) - 1, (0, -1))
        last = max(last, looked)
        for end, call in [*there, *((loose.end, loose.call) for loose in waiting)]:
            if end < last:
                self._lost(end, call)

    def _lost(self, end: int, call: int) -> None:
        words = "a change of the bounds that was acknowledged is nowhere"
        self.life.contradict(words, end, (call,))


def _end(loose: Loose) -> int:
    return loose.end


def _position(seam: Seam) -> int:
    return seam.position


def _crosses(refused: Refused, value: int, bounds: Bounds) -> bool:
    """Whether what was asked for would have led from ``value`` out of ``bounds``."""
    asked = refused.call.asked
    minimum, maximum = bounds
    match refused.call.op:
        case "add" | "reserve":
            value += asked["n"]
        case "set":
            value = asked["value"]
        case "compare_and_set" | "assign":
            value = asked["new"]
        case "update":
            if refused.call.tried is None:
                return True
            value = refused.call.tried[1]
        case "limit":
            minimum = asked.get("minimum", minimum)
            maximum = asked.get("maximum", maximum)
    return (
        (minimum is not None and value < minimum)
        or (maximum is not None and value > maximum)
        or not LEAST <= value <= MOST
    )


def _is_absurd(op: str, asked: dict[str, Any]) -> bool:
    """Whether it could be refused without a look at the counter."""
    minimum, maximum = asked.get("minimum"), asked.get("maximum")
    if minimum is not None and maximum is not None and minimum > maximum:
        return True
    if op == "open":
        initial = asked["initial"]
        outside = (minimum is not None and initial < minimum) or (
            maximum is not None and initial > maximum
        )
        return outside or not LEAST <= initial <= MOST
    if op == "reserve" and asked["n"] < 1:
        return True
    if op in ("add", "reserve"):
        return bool(abs(asked["n"]) > 2 * MOST)
    numbers = [asked[name] for name in ("value", "expected", "new") if name in asked]
    numbers += [bound for bound in (minimum, maximum) if bound is not None]
    return any(not LEAST <= number <= MOST for number in numbers)
