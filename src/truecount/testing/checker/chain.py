"""The chain of a counter's states, from its first revision that is known to its last.

Every write of a counter makes its revision grow by one, so that receipts, put
in order by revision, are a chain: each begins where the one before it ended.
Where one does not, or a revision is missing, there is a seam, and changes
whose revision nobody was told have to fill it: as few as possible, each at
most once. The order within a batch, which has one revision, is not told
either: it is a path through its changes that uses each once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain as chained
from itertools import islice, permutations, takewhile
from random import Random
from typing import Final, NamedTuple, TypeAlias

from truecount.testing.checker.facts import Facts, Loose, loosened
from truecount.testing.checker.life import ALONE, FIXED, NEVER, Bounds, Row, Sight, process_of

__all__ = ["ABSENT", "Chain", "Seam", "Stretch", "chain_of"]

ABSENT: Final = None
"""The value where there is no counter."""

DEPTH: Final = 6
"""With how many changes of unknown revision a seam is filled at most."""

EFFORTS: Final = ((1, 64, 1000), (2, 64, 1000), (DEPTH, 64, 5000), (DEPTH, 1 << 30, 50_000))
"""How a seam is filled: with how many changes of unknown revision at most, among how many of
them they are looked for, the latest first, and how many combinations are tried. What is likely
is tried first."""

MOST_LEGS: Final = 4
"""Into how many pieces the changes of one revision may fall."""

AHEAD: Final = 64
"""How many rows are looked at to tell until when a revision was written."""

ANYBODY: Final = -1
"""The process of a change of which nobody knows whose it was."""

ANY: Final = "any"
"""A value that is not known."""


class Seam:
    """Where changes of unknown revision were, or may have been: ``fill`` is what it is filled with.

    It led from ``value`` to ``target`` in ``missing`` revisions, up to
    ``revision``, between the instants ``earliest`` and ``latest``. ``hides``:
    the chain does not have all the states in it. ``spare``: so many of the
    changes after it may as well have been in it.
    """

    __slots__ = (
        *("beside", "earliest", "fill", "hides", "latest", "missing", "position"),
        *("revision", "spare", "target", "value"),
    )

    def __init__(
        self,
        revision: int,
        value: int | None,
        target: int | None,
        missing: int,
        fill: list[Loose],
        beside: set[int],
        times: tuple[int, int],
        position: int,
    ) -> None:
        self.revision = revision
        self.value = value
        self.target = target
        self.missing = missing
        self.fill = fill
        self.beside = beside
        self.earliest, self.latest = times
        self.position = position
        self.hides = False
        self.spare = 0

    @property
    def idle(self) -> int:
        """In how many revisions the value stayed, at least."""
        return max(0, self.missing - len(self.fill) - self.spare)

    @property
    def is_murky(self) -> bool:
        """Whether there may have been states in it that the chain does not have."""
        more = self.idle + self.spare
        if self.hides or more > 1 or (more and self.fill):
            return True
        return any(loose.op == "set" and loose.before is None for loose in self.fill)

    @property
    def room(self) -> int:
        """In how many revisions it may have stayed, at most."""
        return max(0, self.missing - sum(_alone(loose) for loose in self.fill))


class Stretch(NamedTuple):
    """Positions from one at which the bounds were seen, to the next at which they were.

    ``first`` is -1, and ``before`` None, ahead of the first of all; ``last`` is
    the number of positions, and ``after`` None, behind the last. ``unseen`` are
    positions in it whose bounds nobody was told.
    """

    first: int
    last: int
    before: Bounds | None
    after: Bounds | None
    unseen: list[int]


class Chain:
    """The states in order, position by position, in parallel lists.

    ``values`` are those after each change (`ABSENT` where there is no
    counter), ``begins`` and ``ends`` the call within which it took effect.
    ``looks`` holds, for what was read after a position, when the latest look
    at it began.
    """

    def __init__(self) -> None:
        self.revisions: list[int] = []
        self.writes: list[int] = []  # counted on, where changes are known to be of one write
        self.values: list[int | None] = []
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.calls: list[int] = []
        self.bounds: dict[int, Bounds] = {}  # by position, where they change
        self.stretches: list[Stretch] = []  # where they change, or were not seen
        self.guessed: list[int] = []  # positions whose order is one of several
        self.looks: dict[int, tuple[int, int]] = {}  # when the latest began, and its call
        self.enders: dict[int, int] = {}  # the call that ends it, where that is another one
        self.first_is_absent = False
        self.seams: list[Seam] = []
        self.undecided: list[Seam] = []  # those of which nobody can tell what was in them
        self.unused: list[Loose] = []  # that may yet have been applied after the last

    def append(
        self,
        revision: int,
        value: int | None,
        begin: int,
        end: int,
        call: int,
        *,
        same: bool = False,
    ) -> None:
        """Add a state; ``same``: by the same write as the one before."""
        self.writes.append(self.writes[-1] + (not same) if self.writes else 0)
        self.revisions.append(revision)
        self.values.append(value)
        self.begins.append(begin)
        self.ends.append(end)
        self.calls.append(call)


def chain_of(facts: Facts, dice: Random | None = None) -> Chain:
    """Put the changes in order; note in the counter's life what does not fit.

    ``dice`` choose where there is a choice; without them it is what is likely.
    What a handle showed after a change may be of a later revision than the
    change: where it does not fit there, the change is one of unknown revision.
    """
    marked = len(facts.life.contradictions)
    facts.rows.sort(key=_revision)
    facts.sights.sort(key=_revision)
    while True:
        walk = _Walk(facts, dice)
        walk.run()
        if not walk.released:
            return walk.chain
        released = {id(row) for row in walk.released}
        for row in walk.released:
            facts.release(row)
        facts.rows = [row for row in facts.rows if id(row) not in released]
        del facts.life.contradictions[marked:]


def _revision(row: Row | Sight) -> int:
    return row[0]


class _Walk:
    """One attempt at walking the chain."""

    def __init__(self, facts: Facts, dice: Random | None) -> None:
        self.facts = facts
        self.dice = dice
        self.life = facts.life
        self.chain = Chain()
        self.released: list[Row] = []
        self.latest_begin = 0
        self.effort = EFFORTS[0]
        self.cut = False  # not all was tried
        for loose in (*facts.due, *facts.possible, *facts.creations):
            loose.used = False
        self.coming = sorted(facts.due, key=lambda loose: loose.begin, reverse=True)
        self.due: list[Loose] = []  # has begun by now
        self.late: list[Loose] = []  # should have found its place
        self.dropped: list[Loose] = []  # may be of another revision than it is presumed to be
        self.creations = sorted(facts.creations, key=lambda loose: loose.begin, reverse=True)
        self.created: list[Loose] = []
        self.possible = _Possible(facts.possible, dice)
        self.bounds: Bounds | None = None  # seen last
        self.seen_at = -1  # where that was
        self.unseen: list[int] = []  # positions since

    def run(self) -> None:
        """Walk from the first revision to the last."""
        facts, chain = self.facts, self.chain
        rows, sights = facts.rows, facts.sights
        row_at = sight_at = 0
        row_count, sight_count = len(rows), len(sights)
        value: int | str | None = ANY
        if _begins_absent(facts):
            value, chain.first_is_absent = ABSENT, True
        revision = time = 0
        group: Sequence[Row]
        while row_at < row_count or sight_at < sight_count:
            here = rows[row_at][0] if row_at < row_count else NEVER
            if sight_at < sight_count and sights[sight_at][0] < here:
                here = sights[sight_at][0]
            first = row_at
            start = len(chain.values)
            while row_at < row_count and rows[row_at][0] == here:
                row_at += 1
            seen = sight_at
            while sight_at < sight_count and sights[sight_at][0] == here:
                sight_at += 1
            if (
                row_at - first == 1
                and here == revision + 1
                and rows[first][1] == value
                and (sight_at == seen or sights[seen][1] == rows[first][2])
            ):
                _, _, value, begin, end, when, bounds, call, _ = rows[first]
                chain.append(here, value, begin, end, call)
                if begin > self.latest_begin:
                    self.latest_begin = begin
                if when is None:
                    when = time
            else:
                group = rows[first:row_at]
                facing = sights[seen].value if sight_at > seen else None
                value = self._join(group, value, revision, here, facing, row_at, sights, seen)
                bounds = None
                when = None
                for row in group:
                    bounds = row.bounds or bounds
                    when = when or row.time
                    if row.begin > self.latest_begin:
                        self.latest_begin = row.begin
                if row_at - first > 1:
                    self._agree_on_time(group)
                when = when or time
            if sight_at > seen:
                bounds, when, value = self._face(
                    sights[seen:sight_at], here, value, bounds, when if row_at > first else None
                )
                when = when or time
            if when < time:
                self._turned_back(here, rows[first] if row_at > first else None, sights, seen)
            else:
                time = when
            revision = here
            position = len(chain.values) - 1
            count = row_at - first or 1
            if position + 1 - count > start:
                self.unseen.extend(range(start, position + 1 - count))  # in the seam before it
            if bounds is not None:
                if self.unseen or (bounds is not self.bounds and bounds != self.bounds):
                    self._bind(bounds, position)
                self.seen_at = position
                if bounds != (None, None):
                    for at in range(position, max(-1, position - count), -1):
                        self._hold(at, bounds)
            else:
                self.unseen.extend(range(max(0, position + 1 - count), position + 1))
        if self.unseen:
            self._bind(None, len(chain.values))
        self._end(value, revision)

    # Groups: the changes of one revision

    def _join(
        self,
        group: Sequence[Row],
        value: int | str | None,
        revision: int,
        here: int,
        facing: int | None,
        row_at: int,
        sights: Sequence[Sight],
        seen: int,
    ) -> int | str | None:
        """Put the changes of revision ``here`` after the state ``value``; the state after them."""
        if here == revision + 1 and self.chain.values and len(group) > 1:
            path = _straight(group, value)
            if path is not None and facing in (None, path[-1].after):
                for at, row in enumerate(path):
                    self.chain.append(here, row.after, row.begin, row.end, row.call, same=at > 0)
                return path[-1].after
        ahead = (row_at, group, sights, seen)
        self._advance(self._latest(*ahead))
        # Where a revision is only presumed, that is likelier to be wrong than the rest is strange.
        presumed = any(row.kind != FIXED for row in group)
        self.cut = False
        for self.effort in EFFORTS[:2] if presumed else EFFORTS:
            for kept in _choices(group):
                if len(kept) > 1 and any(row.kind == ALONE for row in kept):
                    continue  # a change of the bounds stands alone
                if not kept and facing is None:
                    if group:
                        self.released.extend(group)  # nothing says what this revision was
                        return self._skip(value, here)
                    continue
                dropped = [row for row in group if row not in kept]
                self.dropped = [loosened(row) for row in dropped]
                for legs in _orders(_paths(kept, value)):
                    fills = self._link(legs, value, here - revision, facing, ahead)
                    if fills is not None:
                        self.released.extend(dropped)
                        return self._lay(legs, fills, value, here, facing, ahead)
        return self._broken(group, value, revision, here, facing, self._latest(*ahead))

    def _skip(self, value: int | str | None, here: int) -> int | str | None:
        """Nothing is known of a revision: it counts as one that is missing."""
        self.chain.append(here, value if isinstance(value, int) else None, 0, NEVER, -1)
        return value

    def _link(
        self,
        legs: Sequence[list[Row]],
        value: int | str | None,
        ahead_by: int,
        facing: int | None,
        ahead: _Ahead,
    ) -> list[list[Loose]] | None:
        """What fills the seams before, between and after ``legs``; None when nothing does."""
        beside = {process_of(row.call) for leg in legs for row in leg}
        missing = ahead_by - bool(legs) if self.chain.values else -1
        ends = [leg[0].before for leg in legs]
        if not legs or (facing is not None and facing != legs[-1][-1].after):
            ends.append(facing)
        fills: list[list[Loose]] = []
        for at, end in enumerate(ends):
            if value is ANY or (value == end and not missing):
                fill: list[Loose] | None = []
            else:
                fill = self._fill(value, end, missing, beside, ahead)
            if fill is None:
                for loose in (each for filled in fills for each in filled):
                    loose.used = False
                return None
            fills.append(fill)
            if at < len(legs):
                value, missing = legs[at][-1].after, 0
        return fills

    def _lay(
        self,
        legs: Sequence[list[Row]],
        fills: Sequence[list[Loose]],
        value: int | str | None,
        here: int,
        facing: int | None,
        ahead: _Ahead,
    ) -> int | str | None:
        """Append ``legs``, with ``fills`` before, between and after them; the state then."""
        chain = self.chain
        missing = here - chain.revisions[-1] - bool(legs) if chain.values else -1
        now = value if isinstance(value, int) else None
        beside = self._beside({process_of(row.call) for leg in legs for row in leg}, missing)
        spare = 0
        for at, fill in enumerate(fills):
            if value is not ANY and (fill or missing > 0):
                before, now = now, self._place(fill, now, here)
                times = self.latest_begin, self._latest(*ahead)
                place = len(chain.values) - len(fill)
                seam = Seam(here, before, now, missing, fill, beside, times, place)
                if at == 0 and legs:
                    seam.spare = spare = _presumed(legs, fills[1:])
                chain.seams.append(seam)
            missing = 0
            if at < len(legs):
                for number, row in enumerate(legs[at]):
                    same = number > (0 if at else spare)
                    chain.append(here, row.after, row.begin, row.end, row.call, same=same)
                    now = row.after
        if not legs and not fills[0]:
            chain.append(here, facing, 0, NEVER, -1)
            now = facing
        return now

    def _place(self, fill: Iterable[Loose], value: int | None, here: int) -> int | None:
        """Put ``fill`` into the chain after the state ``value``."""
        placed = list(fill)
        for loose in placed:
            value = loose.result(value)
            sure = len(placed) == 1
            if loose is not placed[-1]:
                self.chain.guessed.append(len(self.chain.values))  # others may come first
            end = loose.end if sure else NEVER
            self.chain.append(here, value, loose.begin if sure else 0, end, loose.call)
        return value

    def _broken(
        self,
        group: Sequence[Row],
        value: int | str | None,
        revision: int,
        here: int,
        facing: int | None,
        latest: int,
    ) -> int | str | None:
        """Nothing explains how the counter came from ``value`` to ``group``: go on behind it."""
        self.released.extend(row for row in group if row.kind != FIXED)  # and try again
        missing = here - revision - bool(group) if self.chain.values else 0
        if not self._is_decided(group, value, missing, latest):
            return self._pass_over(group, value, here, facing, missing, latest)
        calls = tuple(row.call for row in group)
        starts = sorted({row.before for row in group if row.before is not None})
        twice = _twice(group)
        if twice is not None:
            text = f"revision {here}: {_shown(twice.before)} became {_shown(twice.after)} twice"
            if twice.before is not None and twice.after == twice.before + 1:
                text += f": the number {twice.after} was handed out twice"
        elif not group:
            text = f"revision {here} left {_shown(facing)}, and nothing explains how"
            text += f" {_shown(value)} became that"
        elif starts:
            text = f"the changes of revision {here} begin at {', '.join(map(str, starts))}"
            text += f", but revision {revision} had left {_shown(value)}"
        else:
            text = f"revision {here} created a counter that was there"
        if missing > 0:
            between = "revision between them is" if missing == 1 else "revisions between them are"
            text += f"; {missing} {between} nobody's"
        before = self.chain.calls[-1] if self.chain.calls else -1
        self.life.contradict(text, latest, (before, *calls), here)
        return self._go_on(group, value, here, facing)

    def _pass_over(
        self,
        group: Sequence[Row],
        value: int | str | None,
        here: int,
        facing: int | None,
        missing: int,
        latest: int,
    ) -> int | None:
        """Too much is unknown to say whether it may have led to ``group``."""
        times = self.latest_begin, latest
        before = value if isinstance(value, int) else None
        place = len(self.chain.values)
        seam = Seam(here, before, before, missing, [], set(), times, place)
        seam.hides, seam.spare = True, missing
        self.chain.seams.append(seam)
        self.chain.undecided.append(seam)
        return self._go_on(group, value, here, facing)

    def _go_on(
        self, group: Sequence[Row], value: int | str | None, here: int, facing: int | None
    ) -> int | None:
        after: int | None = facing
        for path in _paths(group, value):
            for at, row in enumerate(path):
                self.chain.append(here, row.after, row.begin, row.end, row.call, same=at > 0)
                after = row.after
        if not group or (facing is not None and after != facing):
            self.chain.append(here, facing, 0, NEVER, -1)
            after = facing
        return after

    def _latest(self, row_at: int, group: Sequence[Row], sights: Sequence[Sight], seen: int) -> int:
        """An instant by which this revision was written."""
        ends = [row.end for row in group]
        ends += [row.end for row in self.facts.rows[row_at : row_at + AHEAD]]
        ends += [sight.end for sight in sights[seen : seen + AHEAD]]
        return min(ends)

    def _face(
        self,
        sights: Sequence[Sight],
        here: int,
        value: int | str | None,
        bounds: Bounds | None,
        time: int | None,
    ) -> tuple[Bounds | None, int | None, int | str | None]:
        """Hold what was seen of revision ``here`` against what was concluded."""
        position = len(self.chain.values) - 1
        for sight in sights:
            calls = (self.chain.calls[position], sight.call)
            if sight.value != value:
                text = f"revision {here} left {_shown(value)}, and was seen as {sight.value}"
                self.life.contradict(text, sight.end, calls, here)
            if sight.time is not None:
                if time is not None and sight.time != time:
                    text = f"revision {here} was seen with two timestamps"
                    self.life.contradict(text, sight.end, calls, here)
                if bounds is not None and sight.bounds != bounds:
                    text = f"revision {here} was seen with two pairs of bounds"
                    self.life.contradict(text, sight.end, calls, here)
                time, bounds = sight.time, sight.bounds
            if sight.end < self.chain.ends[position]:
                self.chain.ends[position] = sight.end
                self.chain.enders[position] = sight.call
            if sight.begin > self.chain.looks.get(position, (0, 0))[0]:
                self.chain.looks[position] = sight.begin, sight.call
                if sight.begin > self.latest_begin:
                    self.latest_begin = sight.begin  # what follows was written later
        return bounds, time, value

    def _agree_on_time(self, group: Sequence[Row]) -> None:
        times = {row.time for row in group if row.time is not None}
        if len(times) > 1:
            calls = tuple(row.call for row in group)
            text = f"revision {group[0].revision} has two timestamps"
            self.life.contradict(text, group[0].end, calls, group[0].revision)

    def _turned_back(self, here: int, row: Row | None, sights: Sequence[Sight], seen: int) -> None:
        shown = row or sights[seen]
        text = f"revision {here} has an earlier timestamp than the one before it"
        before = self.chain.calls[-2] if len(self.chain.calls) > 1 else -1
        self.life.contradict(text, shown.end, (before, shown.call), here)

    # Bounds

    def _bind(self, bounds: Bounds | None, position: int) -> None:
        """At ``position`` bounds are seen: other ones, or for the first time since a while."""
        chain = self.chain
        stretch = Stretch(self.seen_at, position, self.bounds, bounds, self.unseen)
        chain.stretches.append(stretch)
        self.unseen = []
        if bounds is not None and bounds != self.bounds:
            chain.bounds[position] = self.bounds = bounds

    def _hold(self, position: int, bounds: Bounds) -> None:
        """The value at ``position`` is within ``bounds``."""
        chain = self.chain
        value = chain.values[position]
        minimum, maximum = bounds
        if value is ABSENT or (
            (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
        ):
            return
        shown = f"{_bound(minimum)} to {_bound(maximum)}"
        text = f"revision {chain.revisions[position]} left {value}, outside the bounds {shown}"
        at = chain.ends[position]
        self.life.contradict(text, at, (chain.calls[position],), chain.revisions[position])

    # Seams

    def _fill(
        self,
        value: int | str | None,
        target: int | None,
        missing: int,
        beside: set[int],
        ahead: _Ahead,
    ) -> list[Loose] | None:
        """Changes that lead from ``value`` to ``target`` in ``missing`` revisions, or None.

        They may share the revision of ``beside``, the processes of the changes
        next to them. ``missing`` is -1 where nobody knows how many there are.
        """
        assert not isinstance(value, str)
        latest = self._latest(*ahead)
        beside = self._beside(beside, missing)
        group = ahead[1]
        now = max([self.latest_begin, *(row.begin for row in group)])
        search = _Search(
            [*self.due, *self.dropped],
            self.created,
            self.possible,
            latest,
            missing,
            beside,
            self.effort,
        )
        must = [x for x in self.due if x.end < now and not (x.used or _closes(x))]
        found = search.run(value, target, must)
        self.cut = self.cut or search.budget < 0
        for loose in found or ():
            loose.used = not loose.again
        return found

    def _beside(self, processes: set[int], missing: int) -> set[int]:
        """Whose changes are next to a seam: ``processes`` behind it, and the one before it."""
        if self.chain.calls and missing >= 0:
            return processes | {process_of(self.chain.calls[-1])}
        return processes

    def _is_decided(
        self, group: Sequence[Row], value: int | str | None, missing: int, latest: int
    ) -> bool:
        """Whether all was tried that might explain a seam behind ``value``."""
        if _twice(group) is not None:
            return True
        candidates = [*self.due, *self.possible.all]
        if candidates or not isinstance(value, int):  # what is there is not created
            candidates += self.created
        if all(loose.used or loose.begin > latest for loose in candidates):
            return True
        return missing <= DEPTH and not self.cut and len(_paths(group, ANY)) <= MOST_LEGS

    def _advance(self, latest: int) -> None:
        """Those come into question that had begun by ``latest``, and go that had ended before."""
        coming, now = self.coming, self.latest_begin
        if (coming and coming[-1].begin <= latest) or any(
            loose.end < now or loose.used for loose in self.due
        ):
            while coming and coming[-1].begin <= latest:
                self.due.append(coming.pop())
            self.late += [loose for loose in self.due if loose.end < now and not loose.used]
            self.due = [loose for loose in self.due if loose.end >= now and not loose.used]
            self.due.sort(key=lambda loose: loose.end)  # who has least time comes first
            if self.dice is not None:
                self.dice.shuffle(self.due)
        creations = self.creations
        if (creations and creations[-1].begin <= latest) or any(
            loose.end < now or loose.used for loose in self.created
        ):
            while creations and creations[-1].begin <= latest:
                self.created.append(creations.pop())
            self.created = [x for x in self.created if x.end >= now and not x.used]
            self.created.sort(key=lambda loose: (not loose.again, loose.end))
            if self.dice is not None:
                self.dice.shuffle(self.created)

    def _end(self, value: int | str | None, revision: int) -> None:
        """What has not found its place comes after the last revision that is known."""
        self._advance(NEVER)
        late = [loose for loose in self.late if loose.op != "limit"]
        rest = [loose for loose in self.due if loose.op != "limit"]
        if late:
            self._insert(late)
        if rest:
            self._come_after(rest, None if isinstance(value, str) else value, revision)
        unused = [loose for loose in self.facts.possible if not loose.used]
        self.chain.unused = sorted(unused, key=lambda loose: loose.begin)

    def _come_after(self, rest: list[Loose], value: int | None, revision: int) -> None:
        """Put ``rest`` after the last state, or where else there is a place for it."""
        seams = sorted(self.chain.seams, key=lambda seam: seam.latest)
        for loose in [None, *rest]:
            if loose is not None and (loose.used or not self._rehouse(loose, seams, rest, set())):
                continue
            left = [each for each in rest if not each.used]
            search = _Search(left, self.created, self.possible, NEVER, -1, set())
            path = search.exhaust(value, len(left))
            if path is not None:
                self._place(path, value, revision + 1)
                for each in path:
                    each.used = True
                return
        for each in rest:
            if not (each.used or _closes(each)):
                self._lost(each)

    def _insert(self, late: list[Loose]) -> None:
        """Find places for changes that are not where they were looked for."""
        seams = sorted(self.chain.seams, key=lambda seam: seam.latest)
        for loose in late:
            if loose.used or _closes(loose):
                continue
            if not (self._rehouse(loose, seams, late, set()) or self._returns(loose, late)):
                self._lost(loose)

    def _rehouse(self, loose: Loose, seams: list[Seam], late: list[Loose], asked: set[int]) -> bool:
        """Find a place for ``loose``, where others like it may have to move to another one."""
        if self._mend(loose, seams, late):
            return True
        freed = loose.op == "delete" and self._free_creations(loose, seams)
        if freed and self._mend(loose, seams, late):
            return True
        for seam in _overlapping(seams, loose):
            for at, other in enumerate(seam.fill):
                if id(other) in asked or not other.is_like(loose):
                    continue
                asked.add(id(other))
                seam.fill[at] = loose
                loose.used, other.used = True, False
                if other.end == NEVER or self._rehouse(other, seams, late, asked):
                    self._forget(seam.position + at, other)
                    return True
                seam.fill[at] = other
                loose.used, other.used = False, True
        return False

    def _free_creations(self, loose: Loose, seams: list[Seam]) -> bool:
        """Put other creations in the place of those that a deletion may need after it."""
        freed = False
        holders = {id(each): (seam, at) for seam in seams for at, each in enumerate(seam.fill)}
        for creation in self.facts.creations:
            if not creation.used or creation.end < loose.begin or id(creation) not in holders:
                continue
            seam, at = holders[id(creation)]
            other = next(
                (
                    each
                    for each in self.facts.creations
                    if not each.used
                    and each.after == creation.after
                    and each.begin <= seam.latest
                    and each.end >= seam.earliest
                ),
                None,
            )
            if other is not None:
                seam.fill[at] = other
                other.used, creation.used = not other.again, False
                self._forget(seam.position + at, creation)
                freed = True
        return freed

    def _mend(self, loose: Loose, seams: list[Seam], late: list[Loose]) -> bool:
        """Fill a seam anew, so that it has a place for ``loose``."""
        # First where there is something to explain.
        for seam in sorted(_overlapping(seams, loose), key=lambda seam: not seam.idle):
            must = [each for each in seam.fill if each.end < NEVER and not each.again]
            for each in seam.fill:
                each.used = False
            others = {id(each): each for each in (loose, *late, *must)}.values()
            near = [each for each in others if not each.used and each.begin <= seam.latest]
            created = [
                each
                for each in self.facts.creations
                if each.begin <= seam.latest and each.end >= seam.earliest
            ]
            search = _Search(near, created, self.possible, seam.latest, seam.missing, seam.beside)
            found = search.all_of(seam.value, seam.target, [*must, loose])
            for each in found or seam.fill:
                each.used = not each.again
            if found is not None:
                for at, each in enumerate(seam.fill):
                    self._forget(seam.position + at, each)
                seam.fill = found
                seam.hides = True
                return True
        return False

    def _forget(self, position: int, loose: Loose) -> None:
        """The change at ``position`` need not be ``loose``, and not of its call's time."""
        chain = self.chain
        if chain.begins[position] == loose.begin:
            chain.begins[position] = 0
        if chain.ends[position] == loose.end:
            chain.ends[position] = NEVER

    def _returns(self, loose: Loose, late: list[Loose]) -> bool:
        """Whether others of its process lead back, in the same batch, to where it began."""
        if loose.before is None or loose.after is None:
            return False
        value: int | None = loose.after
        others = [
            other
            for other in late
            if other is not loose
            and other.process == loose.process
            and other.begin <= loose.end
            and loose.begin <= other.end
        ]
        while others and value != loose.before:
            step = next((other for other in others if other.applies(value)), None)
            if step is None:
                return False
            value = step.result(value)
            others.remove(step)
        return value == loose.before

    def _changes_nothing(self, loose: Loose) -> bool:
        """Whether it leads from a value to itself, which there was when it was made."""
        if loose.op != "set":
            return loose.amount == 0
        chain = self.chain
        return any(
            value == loose.after
            and chain.begins[at] <= loose.end
            and (at + 1 == len(chain.ends) or chain.ends[at + 1] >= loose.begin)
            for at, value in enumerate(chain.values)
        )

    def _lost(self, loose: Loose) -> None:
        if self._changes_nothing(loose):
            return
        if any(
            loose.begin <= seam.latest and loose.end >= seam.earliest
            for seam in self.chain.undecided
        ):
            return
        if loose.op == "delete":
            text = "the deletion that was acknowledged is nowhere: the counter lived on"
        elif loose.before is not None:
            text = f"{loose.before} to {loose.after} that was acknowledged is nowhere in the chain"
        else:
            text = "a change that was acknowledged is nowhere in the chain"
        self.life.contradict(text, loose.end, (loose.call,))


class _Possible:
    """Changes that may have been applied, by what they would make."""

    def __init__(self, changes: Sequence[Loose], dice: Random | None) -> None:
        self.dice = dice
        if dice is not None:
            changes = dice.sample(changes, len(changes))
        # The latest first: what was sent long ago has mostly landed, or never will.
        self.all = sorted([loose for loose in changes if loose.op != "limit"], key=_since)
        self.by_amount: dict[int, list[Loose]] = {}
        self.by_edge: dict[tuple[int | None, int | None], list[Loose]] = {}
        self.by_process: dict[int, list[Loose]] = {}
        self.alone: list[Loose] = []
        for loose in changes:
            if loose.amount is not None:
                self.by_amount.setdefault(loose.amount, []).append(loose)
            elif loose.op != "limit":
                self.by_edge.setdefault((loose.before, loose.after), []).append(loose)
            if _alone(loose):
                self.alone.append(loose)
            elif loose.op != "limit":
                self.by_process.setdefault(loose.process, []).append(loose)

    def of(self, processes: set[int] | None, latest: int, reach: int) -> Iterable[Loose]:
        """Those of ``processes`` that had begun by ``latest``; None: ``reach`` of all."""
        if processes is None:
            first = bisect_left(self.all, -latest, key=_since)
            rest = islice(self.all, first, None)
            found = list(islice((loose for loose in rest if not loose.used), reach))
        else:
            mine = chained(*[self.by_process.get(each, ()) for each in processes], self.alone)
            found = [loose for loose in mine if loose.begin <= latest and not loose.used]
        if self.dice is not None:
            self.dice.shuffle(found)
        return found

    def leading(self, value: int | None, target: int | None, latest: int) -> Iterable[Loose]:
        """Those that lead from ``value`` to ``target`` in one step."""
        if value is ABSENT:
            return
        for edge in ((value, target), (ABSENT, target)):
            for loose in self.by_edge.get(edge, ()):
                if not loose.used and loose.begin <= latest:
                    yield loose
        if target is not None:
            for loose in self.by_amount.get(target - value, ()):
                if not loose.used and loose.begin <= latest:
                    yield loose


class _Search:
    """Looks for changes that fill a seam."""

    def __init__(
        self,
        due: Sequence[Loose],
        creations: Sequence[Loose],
        possible: _Possible,
        latest: int,
        missing: int,
        beside: set[int],
        effort: tuple[int, int, int] = EFFORTS[-1],
    ) -> None:
        self.effort = effort
        self.depth, self.reach, self.budget = effort
        self.due = [loose for loose in due if loose.op != "limit"]
        self.creations = creations
        self.possible = possible
        self.latest = latest
        self.missing = missing
        self.beside = beside

    def run(self, value: int | None, target: int | None, must: list[Loose]) -> list[Loose] | None:
        """As few changes as will do, in order; None when nothing does.

        Those that ``must`` be are among them, if that can be.
        """
        for wanted in (must, []) if must and self.effort is EFFORTS[-1] else (must,):
            if value == target and not wanted:
                return []
            found = self.all_of(value, target, wanted)
            if found is not None:
                return found
        return None

    def all_of(
        self, value: int | None, target: int | None, wanted: list[Loose]
    ) -> list[Loose] | None:
        """As few changes as will do, all that are ``wanted`` among them."""
        self.budget = self.effort[-1]
        for steps in range(max(1, len(wanted)), self.depth + 1):
            found = self._any([], value, target, steps, wanted)
            if found is not None or self.budget < 0:
                return found
        return None

    def _any(
        self,
        path: list[Loose],
        value: int | None,
        target: int | None,
        steps: int,
        wanted: list[Loose],
    ) -> list[Loose] | None:
        """Try all ways of ``steps`` steps that make use of what is ``wanted``."""
        self.budget -= 1
        if self.budget < 0:
            return None
        known = self.creations if value is ABSENT else self.due
        if steps == 1:
            ways = [
                each
                for each in self._applicable(known, value, path)
                if each.result(value) == target
            ]
            ways += self.possible.leading(value, target, self.latest)
            if self.possible.dice is not None:
                self.possible.dice.shuffle(ways)
            for loose in ways:
                longer = [*path, loose]
                if loose in path and not loose.again:
                    continue
                if self.is_possible(longer) and all(each in longer for each in wanted):
                    return longer
            return None
        processes = self._processes(path)
        others = self.possible.of(processes, self.latest, self.reach)
        for loose in self._applicable(chained(known, others), value, path):
            if not (processes is None or loose.process in {*processes, ANYBODY} or _alone(loose)):
                continue
            found = self._any([*path, loose], loose.result(value), target, steps - 1, wanted)
            if found is not None:
                return found
        return None

    def _processes(self, path: list[Loose]) -> set[int] | None:
        """Whose change may come next, where that takes no revision more; None: anybody's."""
        if self.missing < 0 or ANYBODY in self.beside or (path and path[-1].process == ANYBODY):
            return None
        taken = self._revisions(path) if path else 0
        if taken < self.missing:
            return None
        return self.beside | {path[-1].process} if path else self.beside

    def exhaust(self, value: int | None, count: int) -> list[Loose] | None:
        """All that are due, in an order in which each applies, as it may be at the end."""
        return self._exhaust([], value, count)

    def _exhaust(self, path: list[Loose], value: int | None, count: int) -> list[Loose] | None:
        self.budget -= 1
        if not count:
            return path
        if self.budget < 0:
            return None
        for loose in self._applicable(self.due, value, path):
            found = self._exhaust([*path, loose], loose.result(value), count - 1)
            if found is not None:
                return found
        others = self.creations if value is ABSENT else self.possible.all
        for loose in self._applicable(others, value, path):
            found = self._exhaust([*path, loose], loose.result(value), count)
            if found is not None:
                return found
        return None

    @staticmethod
    def _applicable(changes: Iterable[Loose], value: int | None, path: list[Loose]) -> list[Loose]:
        return [
            loose
            for loose in changes
            if not loose.used and loose.applies(value) and (loose.again or loose not in path)
        ]

    def is_possible(self, path: list[Loose]) -> bool:
        """Whether there are as many revisions as it takes."""
        return self.missing < 0 or self._revisions(path) <= self.missing

    def _revisions(self, path: list[Loose]) -> int:
        """How many revisions ``path`` takes at least: a process may have sent some as a batch."""
        batches: list[int | None] = []  # by process; None: what has a revision of its own
        for loose in path:
            process = None if _alone(loose) else loose.process
            if process is None or not batches or process != batches[-1]:
                batches.append(process)
        shared = [batches[0]] if len(batches) == 1 else [batches[0], batches[-1]]
        anybody = ANYBODY in self.beside
        return len(batches) - sum(
            each is not None and (anybody or each in {*self.beside, ANYBODY}) for each in shared
        )


def _begins_absent(facts: Facts) -> bool:
    """Whether it was seen not to be there before anybody may have created it."""
    absent = [refused.end for refused in facts.refused if refused.error == "CounterNotFoundError"]
    if not absent:
        return False
    first = min(absent)
    begins = [creation.begin for creation in facts.creations]
    begins += [row.begin for row in facts.rows if row.begin]
    begins += [sight.begin for sight in facts.sights if sight.begin]
    return all(begin > first for begin in begins)


def _since(loose: Loose) -> int:
    return -loose.begin


def _alone(loose: Loose) -> bool:
    """Whether it has a revision of its own."""
    return loose.op in ("create", "delete")


def _presumed(legs: Sequence[list[Row]], fills: Sequence[list[Loose]]) -> int:
    """How many of the first changes are only presumed to be of this revision, if one is left."""
    changes: list[Row | Loose] = []
    for at, leg in enumerate(legs):
        changes += [*leg, *(fills[at] if at < len(fills) else ())]
    presumed = takewhile(lambda each: isinstance(each, Loose) or each.kind != FIXED, changes)
    return min(sum(1 for _ in presumed), len(changes) - 1)


def _closes(loose: Loose) -> bool:
    """Whether it leads from a value to itself, which needs no seam."""
    return loose.op == "limit" or (loose.before is not None and loose.before == loose.after)


def _overlapping(seams: list[Seam], loose: Loose) -> Iterator[Seam]:
    """The seams in which ``loose`` may have been."""
    first = bisect_left(seams, loose.begin, key=lambda seam: seam.latest)
    for seam in islice(seams, first, None):
        if seam.earliest > loose.end:
            break
        yield seam


_Ahead: TypeAlias = tuple[int, Sequence[Row], Sequence[Sight], int]
"""Where the walk is: at which row, in which changes of one revision, and at which sights."""


def _orders(paths: list[list[Row]]) -> Iterator[Sequence[list[Row]]]:
    """The orders in which paths may be: a circle begins anywhere, and one path may be two."""
    if len(paths) > MOST_LEGS:
        return
    yield from permutations(paths)
    for which, path in enumerate(paths if len(paths) < MOST_LEGS else ()):
        others = [*paths[:which], *paths[which + 1 :]]
        for at in range(1, len(path)):
            if path[0].before == path[-1].after:
                yield from permutations([*others, path[at:] + path[:at]])
            elif not others:
                yield [path[at:], path[:at]]


def _choices(group: Sequence[Row]) -> Iterable[Sequence[Row]]:
    """The changes of a revision, and then without some whose revision is only presumed."""
    yield group
    # Who began first is likeliest to be of an earlier revision than the handle showed.
    presumed = sorted((row for row in group if row.kind != FIXED), key=lambda row: row.begin)
    if len(presumed) == len(group) > 1:
        yield from ([row] for row in presumed if row.kind == ALONE)
    if presumed and len(presumed) <= 8:
        for row in presumed:
            rest = [other for other in group if other is not row]
            yield rest
        if len(presumed) > 1:
            for row in reversed(presumed):
                yield [other for other in group if other.kind == FIXED or other is row]
            yield [row for row in group if row.kind == FIXED]
    elif presumed:
        yield [row for row in group if row.kind == FIXED]


def _straight(group: Sequence[Row], value: int | str | None) -> list[Row] | None:
    """The path through ``group`` from ``value``, where no value comes twice: as mostly."""
    out = {row.before: row for row in group if row.kind != ALONE}
    if len(out) < len(group):
        return None
    path = []
    while out:
        row = out.pop(value, None)  # type: ignore[arg-type]  # what is not known is no key
        if row is None:
            return None
        path.append(row)
        value = row.after
    return path


def _paths(group: Sequence[Row], value: int | str | None) -> list[list[Row]]:
    """The changes as paths, each used once: a single one if there is one, from ``value`` if it can.

    A path that uses each edge once (Hierholzer): where more than one vertex
    has more ways out than in, it takes several.
    """
    if len(group) == 1:
        return [list(group)]
    out: dict[int | None, list[Row]] = {}
    surplus: dict[int | None, int] = {}
    for row in group:
        out.setdefault(row.before, []).append(row)
        surplus[row.before] = surplus.get(row.before, 0) + 1
        surplus[row.after] = surplus.get(row.after, 0) - 1
    starts = [vertex for vertex, more in surplus.items() if more > 0]
    if not starts and group:
        starts = [value if not isinstance(value, str) and value in out else group[0].before]
    paths = [_trail(start, out) for start in starts]
    rest = [row for rows in out.values() for row in rows]
    while rest:
        paths.append(_trail(rest[0].before, out))
        rest = [row for rows in out.values() for row in rows]
    return [leg for path in paths for leg in _continuous(path)]


def _trail(start: int | None, out: dict[int | None, list[Row]]) -> list[Row]:
    """A path from ``start`` through all that hangs together with it."""
    stack: list[tuple[int | None, Row | None]] = [(start, None)]
    path: list[Row] = []
    while stack:
        vertex, by = stack[-1]
        if out.get(vertex):
            row = out[vertex].pop()
            stack.append((row.after, row))
        else:
            stack.pop()
            if by is not None:
                path.append(by)
    path.reverse()
    return path


def _continuous(path: list[Row]) -> list[list[Row]]:
    """``path``, cut where it is none."""
    cuts = [at for at in range(1, len(path)) if path[at - 1].after != path[at].before]
    return [path[a:b] for a, b in zip([0, *cuts], [*cuts, len(path)], strict=True) if a < b]


def _twice(group: Sequence[Row]) -> Row | None:
    """A change that stands there twice."""
    there: set[tuple[int | None, int | None]] = set()
    for row in group:
        if row.before != row.after and (row.before, row.after) in there:
            return row
        there.add((row.before, row.after))
    return None


def _shown(value: int | str | None) -> str:
    return "no counter" if value is None else str(value)


def _bound(bound: int | None) -> str:
    return "none" if bound is None else str(bound)
