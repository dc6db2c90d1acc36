"""The truth about the simulated counter, kept by arithmetic of its own.

Whatever record the store holds, and whatever callers are told, is held
against this: how often each change was really applied, and in which order.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

from truecount.change import (
    ABSENT,
    CANCELLED,
    EXISTS,
    MOVED,
    OUTSIDE,
    REPEATED,
    REUSED,
    Add,
    Batch,
    Change,
    CompareAndSet,
    Create,
    Delete,
    Limit,
    Outcome,
    Receipt,
    Set,
)
from truecount.defaults import UNCHANGED
from truecount.record import KeyReceipt

__all__ = ["GONE", "Call", "State", "Truth", "Violation", "consequence"]

State: TypeAlias = tuple[int, int | None, int | None] | None
"""Value, minimum and maximum of the counter; or `GONE`."""

GONE: Final = None


class Violation(AssertionError):
    """The world contradicts what a caller was told, or what the changes add up to."""


class Call:
    """What a caller asked for, what it was told, and what really happened."""

    __slots__ = ("after", "applied", "before", "began", "change", "fate")

    def __init__(self, change: Change | None, began: int) -> None:
        self.change = change  # None: only to look
        self.began = began  # the latest state when it was asked for
        self.applied = 0
        self.before = self.after = 0
        self.fate = "open"  # then: done, denied or unknown

    def __repr__(self) -> str:
        return f"<{self.change}: {self.fate}, applied {self.applied}>"

    @property
    def key(self) -> str | None:
        """Its idempotency key."""
        return None if self.change is None else self.change.key


class Truth:
    """Every state that the counter was in, and every change that brought it there."""

    def __init__(self) -> None:
        self.states: list[State] = [GONE]
        self.calls: dict[int, Call] = {}  # by the identity of their changes
        self.keys: dict[str, list[tuple[str, int, int]]] = {}  # text, before, after
        self.used: dict[str, int] = {}  # when each key last was
        self.cancels: set[tuple[str, int]] = set()
        self.lost = False  # a backup was played back: nothing is judged any more

    def call(self, change: Change | None) -> Call:
        """Note that a caller asks for ``change``."""
        call = Call(change, len(self.states) - 1)
        if change is not None:
            self.calls[id(change)] = call
        return call

    def apply(self, batch: Batch, known: set[str]) -> State:
        """Apply ``batch``, but for the keys that are ``known``; the state after it."""
        state = self.states[-1]
        if batch.cancel:
            return state
        for change in batch.changes:
            key = change.key
            if key in known:
                continue
            after = consequence(state, change)
            if after is REFUSED:
                continue
            if id(change) not in self.calls:
                raise Violation(f"nobody has asked this store for it: {change}")
            call = self.calls[id(change)]
            call.applied += 1
            call.before = 0 if state is GONE else state[0]
            call.after = call.before if after is GONE else after[0]
            if call.applied > 1 and not self.lost:
                raise Violation(f"applied twice: {call}")
            if call.fate == "denied" and not self.lost:
                raise Violation(f"applied after it was denied: {call}")
            if key is not None:
                known.add(key)
                told = (_text(change), call.before, call.after)
                self.keys.setdefault(key, []).append(told)
            self.states.append(after)
            state = after
        return state

    def judge_keys(self, keys: tuple[KeyReceipt, ...], sent: int, tick: int) -> None:
        """Judge the keys of a request that was ``sent`` earlier: none was used since."""
        for receipt in keys:
            if self.used.get(receipt.key, -1) > sent and not self.lost:
                raise Violation(f"landed after its key had been used and had expired: {receipt}")
            self.used[receipt.key] = tick

    def judge(self, call: Call, outcome: Outcome) -> None:
        """Judge what a caller was told to have become of its change."""
        if self.lost:
            return
        assert call.change is not None
        if not isinstance(outcome, Receipt):
            if call.applied:
                raise Violation(f"denied ({outcome.code}), and applied: {call}")
            if call.fate != "denied" and not self.is_justified(call, call.change, outcome.code):
                raise Violation(f"denied ({outcome.code}) without a reason: {call}")
            call.fate = "denied"
            return
        told = (outcome.before, outcome.after)
        if not call.applied:
            if call.key is None:
                raise Violation(f"a receipt for what was not applied: {call}")
            if (_text(call.change), *told) not in self.keys.get(call.key, ()):
                raise Violation(f"a receipt {told} that is not the key's: {call}")
            call.fate = "denied"
        elif call.fate == "denied":
            raise Violation(f"applied, and had been denied: {call}")
        elif told != (call.before, call.after) and type(call.change) is not Create:
            raise Violation(f"a receipt {told} that is not the change's: {call}")
        else:
            call.fate = "done"

    def is_justified(self, call: Call, change: Change, code: str) -> bool:
        """Whether a refusal was right at some instant since the call began."""
        states = self.states[call.began :]
        if code == CANCELLED:
            return bool(self.cancels)
        if code == REPEATED:
            return change.key in self.keys
        if code == REUSED:
            uses = self.keys.get(change.key or "", ())
            return any(text != _text(change) for text, _, _ in uses)
        if code == ABSENT:
            return GONE in states
        if code == EXISTS:
            return any(state is not GONE for state in states)
        if code == MOVED:
            assert isinstance(change, CompareAndSet)
            return any(state is not GONE and state[0] != change.expected for state in states)
        assert code == OUTSIDE
        return any(state is not GONE and consequence(state, change) is REFUSED for state in states)

    def judge_refusal(self, call: Call, error: Exception) -> None:
        """Judge a definite error: nothing was applied."""
        if call.applied and not self.lost:
            raise Violation(f"not applied, says {error!r}, and was: {call}")
        call.fate = "denied"

    def judge_sight(self, call: Call, shown: State) -> None:
        """Judge what a caller was shown: the counter was so since the call began."""
        if shown not in self.states[call.began :] and not self.lost:
            raise Violation(f"shown {shown}, which was not there meanwhile: {call}")

    def judge_at_the_end(self) -> None:
        """Judge what was acknowledged: it was applied once."""
        if not self.lost:
            for call in self.calls.values():
                if call.fate == "done" and call.applied != 1:
                    raise Violation(f"acknowledged, and not applied once: {call}")


class _Verdict(Enum):
    REFUSED = "refused"


REFUSED: Final = _Verdict.REFUSED


def consequence(state: State, change: Change) -> State | Literal[_Verdict.REFUSED]:
    """What ``change`` makes of the counter, or `REFUSED`."""
    if state is GONE:
        if not isinstance(change, Create):
            return REFUSED
        value, low, high = change.initial, change.minimum, change.maximum
    else:
        value, low, high = state
        if isinstance(change, Add):
            value += change.amount
        elif isinstance(change, Set):
            value = change.value
        elif isinstance(change, CompareAndSet):
            if value != change.expected:
                return REFUSED
            value = change.value
        elif isinstance(change, Limit):
            low = low if change.minimum is UNCHANGED else change.minimum
            high = high if change.maximum is UNCHANGED else change.maximum
        elif isinstance(change, Delete):
            return GONE
        else:
            return REFUSED
    if (low is not None and value < low) or (high is not None and value > high):
        return REFUSED
    return value, low, high


def _text(change: Change) -> str:
    return "" if isinstance(change, Create | Delete | Limit) else change.text
