"""From calls to facts: which changes were applied, which may have been, which were not.

A retry or a cancellation says what became of the call that it settles, and
all calls with one idempotency key are one change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from truecount import errors
from truecount.testing.checker.life import (
    ALONE,
    BOUNDS,
    FIXED,
    NEVER,
    Call,
    Life,
    Row,
    Sight,
    process_of,
)

__all__ = [
    "CHANGES",
    "STORE_ERRORS",
    "Facts",
    "Fence",
    "Loose",
    "Refused",
    "Setting",
    "facts_of",
    "loosened",
]

CHANGES: Final = {"add", "set", "update", "compare_and_set", "assign", "reserve", "limit", "delete"}

STORE_ERRORS: Final = {
    name for name in errors.__all__ if issubclass(getattr(errors, name), errors.StoreError)
}
"""The store's own reasons, which no history can judge."""


class Loose:
    """A change of which the revision is not known: it was applied, or may have been.

    ``again``: it may have been more than once, as a creation by `Domain.add`.
    """

    __slots__ = ("after", "again", "amount", "before", "begin", "call", "end", "op", "used")

    def __init__(
        self,
        op: str,
        call: int,
        begin: int,
        end: int,
        *,
        before: int | None = None,
        after: int | None = None,
        amount: int | None = None,
        again: bool = False,
    ) -> None:
        self.op = op
        self.call = call
        self.begin = begin
        self.end = end
        self.before = before
        self.after = after
        self.amount = amount
        self.again = again
        self.used = False

    @property
    def process(self) -> int:
        """The number of the process that asked for it."""
        return process_of(self.call)

    def is_like(self, other: Loose) -> bool:
        """Whether it does what ``other`` does."""
        mine = (self.op == "delete", self.before, self.after, self.amount)
        return mine == (other.op == "delete", other.before, other.after, other.amount)

    def applies(self, value: int | None) -> bool:
        """Whether it can be applied where the value is ``value``."""
        if self.op == "create":
            return value is None
        if value is None:
            return False
        return self.before is None or self.before == value

    def result(self, value: int | None) -> int | None:
        """What it makes of ``value``."""
        if self.amount is not None:
            assert value is not None
            return value + self.amount
        return value if self.op == "limit" else self.after


class Refused(NamedTuple):
    """A call that was told that it was not applied, or that nothing is there, and when."""

    call: Call
    error: str
    came: dict[str, Any]
    begin: int
    end: int
    at: int  # the call that was told


class Setting(NamedTuple):
    """A call that may have set those ``bounds`` between two instants; ``creates``: and all else."""

    call: int
    begin: int
    end: int
    bounds: dict[str, int | None]
    creates: bool


class Fence(NamedTuple):
    """A call that may have written a revision in which nothing changed; ``many``: some."""

    begin: int
    end: int
    many: bool


class Facts:
    """What is known of one counter's changes. ``life`` is what it was concluded from."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.rows: list[Row] = life.rows.copy()
        self.sights: list[Sight] = life.sights
        self.due: list[Loose] = []  # was applied
        self.possible: list[Loose] = []  # may have been
        self.creations: list[Loose] = []  # opened: may have created it
        self.settings: list[Setting] = []  # may have set bounds
        self.refused: list[Refused] = []
        self.fences: list[Fence] = []
        self.keys: dict[str, _Key] = {}

    def sets(self, call: Call, end: int, *, creates: bool = False) -> None:
        """By ``end``, ``call`` may have set the bounds that it asks for."""
        asked = call.asked
        bounds = {name: asked.get(name) for name in BOUNDS if creates or name in asked}
        self.settings.append(Setting(call.call, call.begin, end, bounds, creates))

    def release(self, row: Row) -> None:
        """``row`` is not of the revision that was shown after it: it may be of an earlier one."""
        self.due.append(loosened(row))


def loosened(row: Row) -> Loose:
    """The change of ``row``, of whatever revision it may be."""
    if row.kind == ALONE:
        return Loose("limit", row.call, row.begin, row.end)
    return Loose("assign", row.call, row.begin, row.end, before=row.before, after=row.after)


def facts_of(life: Life) -> Facts:
    """Conclude what can be concluded without the order of the changes."""
    facts = Facts(life)
    settled = _settled(life)
    for call in life.calls:
        op = call.op
        if op == "open":
            _opened(facts, call, settled.get(call.call))
        elif op in ("refresh", "receipt"):
            _looked(facts, call)
        elif op in CHANGES:
            _changed(facts, call, settled.get(call.call))
        else:
            raise ValueError(f"there is no operation {op!r}")
    for _, settling in life.settlings:
        facts.fences.append(Fence(settling.begin, NEVER, many=False))
    facts.fences += [Fence(begin, end, many=True) for begin, end in life.updates]
    for key, use in facts.keys.items():
        use.conclude(facts, key)
    return facts


class _Fate:
    """What retries and cancellations have said of a call."""

    def __init__(self) -> None:
        self.receipt: list[Any] | None = None
        self.refusal: Call | None = None
        self.applied = False
        self.cancelled = False
        self.end = NEVER  # when it was known
        self.at = 0  # by which call

    def hear(self, life: Life, call: int, settling: Call) -> None:
        """Take what ``settling`` was told."""
        came = settling.came
        if "receipt" in came:
            receipt = came["receipt"]
            if self.receipt is not None and self.receipt != receipt:
                told = "two retries of one change were told of two"
                life.contradict(told, settling.end, (call, self.at, settling.call))
            self.receipt, self.applied = receipt, True
        elif came.get("done") is False:
            self.applied = True
        elif came.get("done") is True:
            self.cancelled = True
        elif settling.error is not None and settling.error not in STORE_ERRORS:
            self.refusal = self.refusal or settling
        else:
            return
        if settling.end < self.end:
            self.end, self.at = settling.end, settling.call
        if self.applied and (self.cancelled or self.refusal is not None):
            told = "what is told to be applied was refused or cancelled for good"
            life.contradict(told, settling.end, (call, self.at, settling.call))


def _settled(life: Life) -> dict[int, _Fate]:
    """What became of the unknown calls that were settled."""
    fates: dict[int, _Fate] = {}
    for of, settling in sorted(life.settlings, key=lambda pair: pair[1].end):
        fates.setdefault(of, _Fate()).hear(life, of, settling)
    return fates


def _opened(facts: Facts, call: Call, fate: _Fate | None) -> None:
    asked = call.asked
    created = asked.get("create", True)
    end = call.end
    if call.error is not None:
        facts.refused.append(Refused(call, call.error, call.came, call.begin, end, call.call))
        created = created and call.error in ("BoundsMismatchError", "CounterNotFoundError")
    elif call.is_unknown:
        end = NEVER
        facts.fences.append(Fence(call.begin, NEVER, many=False))
        if fate is not None:
            if fate.receipt is not None:
                _, after, revision, time, _ = fate.receipt
                bounds = asked.get("minimum"), asked.get("maximum")
                facts.sets(call, fate.end, creates=True)
                edge = (revision, None, after, call.begin, fate.end, time, bounds, call.call)
                facts.rows.append(Row(*edge, FIXED))
                return
            if fate.refusal is not None:
                _refuse(facts, call, fate.refusal)
            if fate.refusal is not None or fate.cancelled:
                return
    elif (view := call.came.get("view")) is not None:
        _, _, _, *bounds = view
        for name, bound in zip(BOUNDS, bounds, strict=True):
            if asked.get(name, bound) != bound:
                text = f"it was opened with the {name} {asked[name]}, and shows {bound}"
                facts.life.contradict(text, end, (call.call,), view[0])
    if created:
        loose = Loose("create", call.call, call.begin, end, after=asked["initial"])
        facts.creations.append(loose)
        facts.sets(call, end, creates=True)


def _looked(facts: Facts, call: Call) -> None:
    if call.error is not None:
        facts.refused.append(Refused(call, call.error, call.came, call.begin, call.end, call.call))
    elif call.op == "receipt" and not call.is_unknown:
        _key(facts, call.asked["key"]).hear(call, call.came["receipt"], call.end, None)


def _changed(facts: Facts, call: Call, fate: _Fate | None) -> None:
    asked, came = call.asked, call.came
    key = asked.get("key")
    if call.op == "update" or "create" in asked:
        # An update makes one attempt after another, and Domain.add creates what is not there.
        facts.fences.append(Fence(call.begin, call.end, many=True))
    if "create" in asked:
        end = call.end if "receipt" in came else NEVER
        loose = Loose("create", call.call, call.begin, end, after=0, again=True)
        facts.creations.append(loose)
        facts.sets(call, end, creates=True)
        if "receipt" in came:
            return
    receipt = came.get("receipt")
    end = call.end
    unknown = call.is_unknown
    if unknown:
        facts.fences.append(Fence(call.begin, NEVER, many=False))
    applied = not unknown and call.error is None and came.get("done") is not False
    if unknown and fate is not None:
        end = fate.end
        receipt = fate.receipt
        applied = fate.applied
        if fate.refusal is not None:
            _refuse(facts, call, fate.refusal)
        if fate.cancelled or fate.refusal is not None:
            return
    elif call.error is not None or came.get("done") is False:
        error = call.error or "OutOfSyncError"
        facts.refused.append(Refused(call, error, came, call.begin, end, call.call))
        facts.fences.append(Fence(call.begin, end, many=False))
        return
    elif unknown:
        end = NEVER
    if call.op == "limit":
        facts.sets(call, end)
    if key is not None:
        # That it is only repeated may have had to be written down.
        facts.fences.append(Fence(call.begin, end, many=False))
        use = _key(facts, key)
        if not applied:
            use.unknown.append(call)
        else:
            use.hear(call, receipt, end, call.text)
    elif applied and receipt is not None and receipt[2] is not None:
        before, after, revision, time, _ = receipt
        edge: tuple[int | None, int | None] = (before, after)
        kind = FIXED
        if call.op == "delete":
            edge = before, None
        elif not _is_right(call, before, after):
            facts.life.contradict("the receipt is of another change", end, (call.call,), revision)
        facts.rows.append(Row(revision, *edge, call.begin, end, time, None, call.call, kind))
    else:
        loose = _loose(call, end)
        if applied and receipt is not None:  # the values are known, the revision is not
            loose.before, loose.after, loose.amount = receipt[0], receipt[1], None
        view = came.get("view")
        if applied and call.op == "limit" and view is not None and view[2] is not None:
            bounds = asked.get("minimum", view[3]), asked.get("maximum", view[4])
            if bounds == (view[3], view[4]):
                return  # it is a row
        if loose.op != "nothing":
            (facts.due if applied else facts.possible).append(loose)


def _is_right(call: Call, before: int, after: int) -> bool:
    """Whether ``before`` to ``after`` is what the call has asked for."""
    asked = call.asked
    match call.op:
        case "add" | "reserve":
            right = after - before == asked["n"]
        case "set":
            right = after == asked["value"]
        case "compare_and_set" | "assign":
            right = (before, after) == (asked["expected"], asked["new"])
        case "update":
            right = call.tried in (None, (before, after))
        case _:
            right = before == after
    return bool(right)


def _loose(call: Call, end: int) -> Loose:
    """The change that ``call`` asks for."""
    asked = call.asked
    edge: dict[str, Any] = {}
    op = call.op
    match op:
        case "add" | "reserve":
            edge = {"amount": asked["n"]}
        case "set":
            edge = {"after": asked["value"]}
        case "compare_and_set" | "assign":
            edge = {"before": asked["expected"], "after": asked["new"]}
        case "update" if call.tried is not None:
            edge = {"before": call.tried[0], "after": call.tried[1]}
        case "update":
            op = "nothing"  # killed before it had sent anything
    return Loose(op, call.call, call.begin, end, **edge)


def _refuse(facts: Facts, call: Call, told: Call) -> None:
    """``call`` was refused, as the retry ``told`` says."""
    error = told.error or ""
    facts.refused.append(Refused(call, error, told.came, call.begin, told.end, told.call))


class _Key:
    """All that was asked for and told under one idempotency key."""

    def __init__(self) -> None:
        self.told: list[tuple[Call, list[Any], int, str | None]] = []
        self.unknown: list[Call] = []
        self.applied: list[tuple[Call, int]] = []  # of the unknown, and when that was known
        self.rows: list[tuple[Row, str | None]] = []  # its applications

    def hear(self, call: Call, receipt: list[Any] | None, end: int, text: str | None) -> None:
        """``call`` was told ``receipt`` at ``end``; None: only that it was applied."""
        if receipt is None:
            self.unknown.append(call)
            self.applied.append((call, end))
        else:
            self.told.append((call, receipt, end, text))

    def conclude(self, facts: Facts, key: str) -> None:
        """Find the applications: one, unless the key has expired in between."""
        life = facts.life
        for revision in sorted({told[1][2] for told in self.told if told[1][2] is not None}):
            self._apply(facts, key, revision)
        self._judge_times(life, key)
        edges = {(row.before, row.after) for row, _ in self.rows}
        loose: Loose | None = None
        for call, receipt, end, text in self.told:
            if receipt[2] is not None or (receipt[0], receipt[1]) in edges:
                continue
            if not _is_right(call, receipt[0], receipt[1]) or edges:
                told = f"what was applied under the key {key!r} is another change"
                life.contradict(told, end, (call.call, *(row.call for row, _ in self.rows)))
                continue
            if loose is None:
                begin = min(asked.begin for asked in self._askers(text))
                loose = Loose(call.op, call.call, begin, end, before=receipt[0], after=receipt[1])
                facts.due.append(loose)
            elif (loose.before, loose.after) == (receipt[0], receipt[1]):
                loose.end = min(loose.end, end)
                if process_of(loose.call) != process_of(call.call):
                    loose.call = -1  # one of them was the first, and is not told to be
            else:
                told = f"two changes were applied under the key {key!r}"
                life.contradict(told, end, (loose.call, call.call))
        known = {text for _, text in self.rows} | {text for *_, text in self.told}
        if self._find_applied(facts, known):
            return
        if loose is None and not self.rows and self.unknown:
            begin = min(call.begin for call in self.unknown)
            first = _loose(min(self.unknown, key=lambda call: call.begin), NEVER)
            first.begin = begin
            texts = {call.text for call in self.unknown}
            if len(texts) > 1 or "update" in texts:  # each would make something else of it
                others = [_loose(call, NEVER) for call in self.unknown]
                facts.possible += [other for other in others if other.op != "nothing"]
            else:
                facts.possible.append(first)

    def times(self) -> Iterator[tuple[int, int, str | None]]:
        """Between which instants it was applied, as far as somebody knows, and as which change."""
        yield from ((row.begin, row.end, text) for row, text in self.rows)
        yield from ((call.begin, end, call.text) for call, end in self.applied)
        for call, receipt, end, text in self.told:
            if receipt[2] is None:
                yield call.begin, end, text

    def _find_applied(self, facts: Facts, known: set[str | None]) -> bool:
        """Whether somebody was told that a change was applied, and nobody what became of it."""
        for call, _ in self.applied:
            askers = self._askers(call.text)
            if call.text in known or None in known or (call.op == "update" and len(askers) > 1):
                continue
            loose = _loose(call, min(told for each, told in self.applied if each.text == call.text))
            loose.begin = min(asked.begin for asked in askers)
            facts.due.append(loose)
            return True
        return False

    def _askers(self, text: str | None) -> list[Call]:
        """Who may have been the first to ask for the change ``text``."""
        told = [call for call, _, _, other in self.told if other == text or text is None]
        return told + [call for call in self.unknown if text in (None, call.text)]

    def _apply(self, facts: Facts, key: str, revision: int) -> None:
        life = facts.life
        told = [each for each in self.told if each[1][2] == revision]
        receipt = told[0][1]
        for call, other, end, _ in told:
            if other[:4] != receipt[:4]:
                words = f"two receipts of the key {key!r} are not the same"
                life.contradict(words, end, (told[0][0].call, call.call), revision)
        fresh = [each for each in told if not each[1][4]]
        texts = [each[3] for each in [*fresh, *told] if each[3] is not None]
        text: str | None = texts[0] if texts else None
        for call, _, end, other_text in told:
            if other_text not in (None, text):
                life.contradict(
                    f"the key {key!r} was used for another change, and it was not said",
                    end,
                    (told[0][0].call, call.call),
                    revision,
                )
        origins = {each[0].call for each in fresh}
        if len(origins) > 1:
            words = f"two calls are told to have been the first with the key {key!r}"
            life.contradict(words, fresh[1][2], tuple(sorted(origins)), revision)
        end = min(each[2] for each in told)
        if life.key_ttl is None:  # there is one application
            end = min([end, *(known for call, known in self.applied if call.text == text)])
        if fresh:
            first = fresh[0][0]
            begin, call_id = first.begin, first.call
            if not _is_right(first, receipt[0], receipt[1]):
                words = "the receipt is of another change"
                life.contradict(words, fresh[0][2], (first.call,), revision)
        else:
            # A reserve does not say whether it repeats; what is unknown may have been it.
            askers = [call for call in self.unknown if text in (None, call.text)]
            askers += [each[0] for each in self.told if each[1][2] is None]
            if not askers:
                words = f"a receipt of the key {key!r}, which nobody had used"
                life.contradict(words, told[0][2], (told[0][0].call,), revision)
                return
            begin = min(call.begin for call in askers)
            call_id = -1
            text = askers[0].text if text is None else text
            if not any(_is_right(call, receipt[0], receipt[1]) for call in askers):
                words = f"the receipt of the key {key!r} is of another change"
                life.contradict(words, told[0][2], (told[0][0].call,), revision)
        edge = (revision, receipt[0], receipt[1], begin, end, receipt[3], None, call_id)
        row = Row(*edge, FIXED)
        self.rows.append((row, text))
        facts.rows.append(row)

    def _judge_times(self, life: Life, key: str) -> None:
        ttl = life.key_ttl
        for (earlier, _), (later, _) in zip(self.rows, self.rows[1:], strict=False):
            expired = (
                ttl is not None
                and earlier.time is not None
                and later.time is not None
                and later.time - earlier.time >= ttl * 1_000_000
            )
            if not expired:
                words = f"the key {key!r} was applied twice"
                calls = (earlier.call, later.call)
                life.contradict(words, later.end, calls, later.revision)


def _key(facts: Facts, key: str) -> _Key:
    use = facts.keys.get(key)
    if use is None:
        use = facts.keys[key] = _Key()
    return use
