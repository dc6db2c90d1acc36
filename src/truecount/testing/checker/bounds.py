"""Bounds, which are a state of their own: each that was seen has been set by somebody in time.

Not every call says which bounds held. Where they were not seen, they are those
that were seen before or after, or of a call that may have set them in between.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TypeAlias

from truecount.testing.checker.chain import ABSENT, Chain, Seam, Stretch
from truecount.testing.checker.facts import Facts, Setting
from truecount.testing.checker.life import BOUNDS, NEVER, Bounds

__all__ = ["BoundsCourt"]

_Bound: TypeAlias = tuple[int, int | None]
"""Which side, and which bound."""


class BoundsCourt:
    """What may be said of one counter's bounds.

    ``earliest`` and ``latest`` are between which instants each position of the
    chain was written, and ``murky`` the seams that may hide a deletion.
    """

    def __init__(
        self,
        facts: Facts,
        chain: Chain,
        earliest: list[int],
        latest: list[int],
        murky: list[Seam],
    ) -> None:
        self.facts = facts
        self.life = facts.life
        self.chain = chain
        self.earliest = earliest
        self.latest = latest
        self.limits = _by_bound([each for each in facts.settings if not each.creates])
        self.creations = _by_bound([each for each in facts.settings if each.creates])
        self.changed = sorted(chain.bounds)
        self.firsts = [stretch.first for stretch in chain.stretches]
        self.guessed = set(chain.guessed)
        absent = (at for at, value in enumerate(chain.values) if value is ABSENT)
        self.breaks = sorted([*absent, *(seam.position for seam in murky)])
        # From which positions on it must have been later than `earliest` says, and when.
        self.turns: list[int] = []
        self.instants: list[int] = []

    def judge(self) -> None:
        """Hold the bounds that were seen, and values where they were not, against who set any."""
        for stretch in self.chain.stretches:
            for position in stretch.unseen:
                self._judge_value(stretch, position)
            if stretch.after is not None:
                self._judge_change(stretch, stretch.after)
        for setting in self.facts.settings:
            if not setting.creates and setting.end < NEVER:
                self._judge_effect(setting)

    def _judge_value(self, stretch: Stretch, position: int) -> None:
        chain = self.chain
        value = chain.values[position]
        if value is ABSENT or position in self.guessed:
            return
        if stretch.before is None and not chain.first_is_absent:
            return  # nobody knows how it began
        seen = [bounds for bounds in (stretch.before, stretch.after) if bounds is not None]
        by = self.latest[stretch.last] if stretch.last < len(self.latest) else NEVER
        places = stretch.first, stretch.last
        for side, name in enumerate(BOUNDS):
            if any(_holds(side, bounds[side], value) for bounds in seen):
                continue
            others = {bound for at, bound in (*self.limits, *self.creations) if at == side}
            since = self._since(stretch.first)
            if not any(
                _holds(side, bound, value)
                and self._was_set(side, bound, since, by, places) is not None
                for bound in others
            ):
                revision = chain.revisions[position]
                text = f"revision {revision} left {value}, outside of every {name} that it may"
                text += " have had"
                self.life.contradict(text, chain.ends[position], (chain.calls[position],), revision)

    def _judge_change(self, stretch: Stretch, after: Bounds) -> None:
        chain = self.chain
        first, last, before, _, unseen = stretch
        if before is None and not chain.first_is_absent:
            return  # nobody knows how it began
        places = first, last
        for position in unseen:
            if chain.values[position] is ABSENT:  # what there was before does not count
                first, before, places = position, None, (position - 1, last)
        set_at = 0
        for side, name in enumerate(BOUNDS):
            if before is not None and after[side] == before[side]:
                continue
            began = self._was_set(side, after[side], self._since(first), self.latest[last], places)
            if began is None:
                revision = chain.revisions[last]
                text = f"the {name} became {_shown(after[side])} by revision {revision}"
                text += ", which nobody had asked for"
                calls = (chain.enders.get(last, chain.calls[last]),)
                self.life.contradict(text, chain.ends[last], calls, revision)
            else:
                set_at = max(set_at, began)
        if set_at > self._since(last):
            self.turns.append(last)
            self.instants.append(set_at)

    def _judge_effect(self, limit: Setting) -> None:
        """The bounds seen next are those that it has set, or somebody else's."""
        chain = self.chain
        at = bisect_right(self.earliest, limit.end)  # written after it had returned
        looked, _ = chain.looks.get(at - 1, (0, -1))
        if looked > limit.end:
            at -= 1  # was still there then
        stretch = self._stretch(at)
        if stretch is not None:
            at = stretch.last
        if at >= len(chain.values) or not self.changed or at < self.changed[0]:
            return
        bounds = chain.bounds[self.changed[bisect_right(self.changed, at) - 1]]
        places = bisect_left(self.latest, limit.begin) - 1, at
        for side, name in enumerate(BOUNDS):
            bound = bounds[side]
            if limit.bounds.get(name, bound) == bound:
                continue
            if self._was_set(side, bound, limit.begin, self.latest[at], places) is None:
                text = f"the {name} was set to {_shown(limit.bounds[name])}, and is {_shown(bound)}"
                calls = (limit.call, chain.enders.get(at, chain.calls[at]))
                self.life.contradict(text, limit.end, calls, chain.revisions[at])

    def _since(self, position: int) -> int:
        """An instant after which ``position`` was written."""
        if position < 0:
            return 0
        at = bisect_right(self.turns, position) - 1
        return max(self.earliest[position], self.instants[at] if at >= 0 else 0)

    def _was_set(
        self, side: int, bound: int | None, after: int, by: int, places: tuple[int, int]
    ) -> int | None:
        """When the first call began that may have set ``bound`` between two instants.

        Who creates the counter sets bounds, too, if it may not have been there in ``places``.
        """
        asked = side, bound
        began = [self.limits[asked].first(after, by)] if asked in self.limits else []
        first, last = places
        at = bisect_right(self.breaks, first)
        if asked in self.creations and (
            first < 0 or (at < len(self.breaks) and self.breaks[at] <= last + 1)
        ):
            began.append(self.creations[asked].first(after, by))
        return min((each for each in began if each is not None), default=None)

    # What callers were told

    def seen_during(self, lo: int, hi: int) -> set[Bounds]:
        """The bounds that were seen to hold at one of the positions ``lo`` to ``hi``, or after."""
        at = self.changed
        first = max(0, bisect_right(at, max(0, lo)) - 1)
        return {self.chain.bounds[position] for position in at[first : bisect_right(at, hi + 1)]}

    def may_have_held(self, told: Bounds, lo: int, hi: int, end: int) -> bool:
        """Whether ``told`` may have been the bounds at one of ``lo`` to ``hi``, before ``end``."""
        seen = self.seen_during(lo, hi)
        if told in seen:
            return True
        stretch = self._stretch(lo)
        first = lo if stretch is None else stretch.first
        before = None if stretch is None else stretch.before
        if first < 0 and not self.chain.first_is_absent:
            return True  # nobody knows how it began
        if before is not None:
            seen.add(before)
        since = self._since(first)
        return all(
            any(bounds[side] == bound for bounds in seen)
            or self._was_set(side, bound, since, end, (first, hi)) is not None
            for side, bound in enumerate(told)
        )

    def _stretch(self, position: int) -> Stretch | None:
        """The stretch in which ``position`` is, where the bounds at it were not seen."""
        at = bisect_left(self.firsts, position) - 1
        if at >= 0 and position < self.chain.stretches[at].last:
            return self.chain.stretches[at]
        return Stretch(-1, position, None, None, []) if at < 0 else None


class _Spans:
    """Calls from begin to end, of which the first is asked for that overlaps some span."""

    def __init__(self, settings: list[Setting]) -> None:
        settings.sort(key=lambda each: each.begin)
        self.begins = [each.begin for each in settings]
        self.ends = list(accumulate((each.end for each in settings), max))  # of those so far

    def first(self, begin: int, end: int) -> int | None:
        """When the first one began that had not ended before ``begin``, if that was by ``end``."""
        at = bisect_left(self.ends, begin)
        return self.begins[at] if at < len(self.begins) and self.begins[at] <= end else None


def _by_bound(settings: list[Setting]) -> dict[_Bound, _Spans]:
    found: dict[_Bound, list[Setting]] = {}
    for setting in settings:
        for side, name in enumerate(BOUNDS):
            if name in setting.bounds:
                found.setdefault((side, setting.bounds[name]), []).append(setting)
    return {bound: _Spans(each) for bound, each in found.items()}


def _holds(side: int, bound: int | None, value: int) -> bool:
    return bound is None or (value <= bound if side else value >= bound)


def _shown(bound: int | None) -> str:
    return "none" if bound is None else str(bound)
