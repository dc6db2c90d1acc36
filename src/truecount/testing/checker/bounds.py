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
        self.life = facts.life
        self.chain = chain
        self.earliest = earliest
        self.latest = latest
        self.limits = _by_bound([each for each in facts.settings if not each.creates])
        self.creations = _by_bound([each for each in facts.settings if each.creates])
        self.changed = sorted(chain.bounds)
        self.firsts = [stretch.first for stretch in chain.stretches]
        absent = (at for at, value in enumerate(chain.values) if value is ABSENT)
        self.breaks = sorted([*absent, *(seam.position for seam in murky)])

    def judge(self) -> None:
        """Hold the bounds that were seen, and values where they were not, against who set any."""
        for stretch in self.chain.stretches:
            if stretch.after is not None:
                self._judge_change(stretch, stretch.after)
            for position in stretch.unseen:
                self._judge_value(stretch, position)

    def _judge_change(self, stretch: Stretch, after: Bounds) -> None:
        chain = self.chain
        if stretch.before is None and not chain.first_is_absent:
            return  # nobody knows how it began
        for side, name in enumerate(BOUNDS):
            if stretch.before is not None and after[side] == stretch.before[side]:
                continue
            if not self._may_be_set(stretch, side, after[side]):
                revision = chain.revisions[stretch.last]
                text = f"the {name} became {_shown(after[side])} by revision {revision}"
                text += ", which nobody had asked for"
                calls = (chain.enders.get(stretch.last, chain.calls[stretch.last]),)
                self.life.contradict(text, chain.ends[stretch.last], calls, revision)

    def _judge_value(self, stretch: Stretch, position: int) -> None:
        chain = self.chain
        value = chain.values[position]
        if value is ABSENT or (stretch.before is None and not chain.first_is_absent):
            return
        seen = [bounds for bounds in (stretch.before, stretch.after) if bounds is not None]
        for side, name in enumerate(BOUNDS):
            if any(_holds(side, bounds[side], value) for bounds in seen):
                continue
            others = {bound for at, bound in (*self.limits, *self.creations) if at == side}
            if not any(
                _holds(side, bound, value) and self._may_be_set(stretch, side, bound)
                for bound in others
            ):
                revision = chain.revisions[position]
                text = f"revision {revision} left {value}, outside of every {name} that it may"
                text += " have had"
                self.life.contradict(text, chain.ends[position], (chain.calls[position],), revision)

    def _may_be_set(self, stretch: Stretch, side: int, bound: int | None) -> bool:
        """Whether somebody may have set ``bound`` in ``stretch``."""
        after = self.earliest[stretch.first] if stretch.first >= 0 else 0
        by = self.latest[stretch.last] if stretch.last < len(self.latest) else NEVER
        return self._was_set(side, bound, after, by, (stretch.first, stretch.last))

    def _was_set(
        self, side: int, bound: int | None, after: int, by: int, places: tuple[int, int]
    ) -> bool:
        """Whether somebody may have set ``bound`` between two instants.

        Who creates the counter sets bounds, too, if it may not have been there in ``places``.
        """
        asked = side, bound
        if asked in self.limits and self.limits[asked].overlaps(after, by):
            return True
        if asked not in self.creations or not self.creations[asked].overlaps(after, by):
            return False
        first, last = places
        at = bisect_right(self.breaks, first)
        return first < 0 or (at < len(self.breaks) and self.breaks[at] <= last + 1)

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
        after = self.earliest[first] if first >= 0 else 0
        return all(
            any(bounds[side] == bound for bounds in seen)
            or self._was_set(side, bound, after, end, (first, hi))
            for side, bound in enumerate(told)
        )

    def _stretch(self, position: int) -> Stretch | None:
        """The stretch in which ``position`` is, where the bounds at it were not seen."""
        at = bisect_left(self.firsts, position) - 1
        if at >= 0 and position < self.chain.stretches[at].last:
            return self.chain.stretches[at]
        return Stretch(-1, position, None, None, []) if at < 0 else None


class _Spans:
    """Calls from begin to end, of which one is asked for that overlaps some span."""

    def __init__(self, settings: list[Setting]) -> None:
        settings.sort(key=lambda each: each.begin)
        self.begins = [each.begin for each in settings]
        self.ends = list(accumulate((each.end for each in settings), max))

    def overlaps(self, begin: int, end: int) -> bool:
        """Whether one of them began by ``end``, and had not ended before ``begin``."""
        at = bisect_right(self.begins, end) - 1
        return at >= 0 and self.ends[at] >= begin


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
