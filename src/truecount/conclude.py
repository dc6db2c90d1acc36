"""From an outcome to the receipt that a caller gets, or the error that it means."""

from __future__ import annotations

from truecount.arguments import show
from truecount.change import (
    ABSENT,
    CANCELLED,
    EXISTS,
    MOVED,
    OUTSIDE,
    REPEATED,
    REUSED,
    Add,
    Change,
    CompareAndSet,
    Create,
    Delete,
    Limit,
    Outcome,
    Receipt,
    Refusal,
    Set,
)
from truecount.errors import (
    BoundsError,
    CounterError,
    CounterNotFoundError,
    KeyReusedError,
    OutOfSyncError,
    ReceiptNotFoundError,
)
from truecount.record import DIGITS, MOST, Address

__all__ = ["conclude", "describe", "not_found"]


def conclude(address: Address, change: Change, outcome: Outcome) -> Receipt:
    """Return the receipt, or raise the error that the refusal means."""
    if isinstance(outcome, Receipt):
        return outcome
    raise _error(address, change, outcome)


def not_found(address: Address) -> CounterNotFoundError:
    """The error for a counter that does not exist."""
    return CounterNotFoundError(f"there is no {_counter(address)}")


def describe(change: Change) -> str:
    """What ``change`` asks for, in words."""
    match change:
        case Add(amount) if amount < 0:
            return f"subtract {show(-amount)}"
        case Add(amount):
            return f"add {show(amount)}"
        case Set(value):
            return f"set to {show(value)}"
        case CompareAndSet(key=str()):
            return "update"
        case CompareAndSet(expected, value):
            return f"{show(expected)} to {show(value)}"
        case Create(initial):
            return f"create at {show(initial)}"
        case Limit():
            return "change of the bounds"
        case Delete():
            return "delete"


def _error(address: Address, change: Change, refusal: Refusal) -> CounterError:
    code, value, minimum, maximum = refusal
    if code == MOVED:
        assert isinstance(change, CompareAndSet)
        return OutOfSyncError("Counter was out of sync", expected=change.expected, actual=value)
    if code == OUTSIDE and isinstance(change, Create):
        return BoundsError(
            f"{_counter(address)} cannot be created at {show(change.initial)}, outside the bounds "
            "given with it",
            minimum=change.minimum,
            maximum=change.maximum,
        )
    if code == OUTSIDE:
        assert value is not None
        return BoundsError(
            f"{_counter(address)} is {show(value)}; {_crossed(change, refusal)}",
            value=value,
            minimum=minimum,
            maximum=maximum,
        )
    if code == ABSENT:
        return not_found(address)
    if code == REUSED:
        key = change.key
        return KeyReusedError(
            f"the key {key!r} was used for another change of {_counter(address)} than this "
            f"({describe(change)}): a new change takes a new key",
            key=key,
        )
    if code == REPEATED:
        return ReceiptNotFoundError(
            f"a change of {_counter(address)} was made under the key {change.key!r} long ago, and "
            "its receipt has expired meanwhile"
        )
    if code == CANCELLED:
        return CounterError(
            f"the change ({describe(change)}) of {_counter(address)} was cancelled and is not "
            "applied; ask for it anew"
        )
    assert code == EXISTS, code
    return CounterError(f"there is {_counter(address)} already")


def _crossed(change: Change, refusal: Refusal) -> str:
    _, value, minimum, maximum = refusal
    if isinstance(change, Limit):
        return "that is outside the bounds asked for"
    after = change.result(value or 0)
    if minimum is not None and after < minimum:
        return f"{describe(change)} would go below its minimum {show(minimum)}"
    if maximum is not None and after > maximum:
        return f"{describe(change)} would go above its maximum {show(maximum)}"
    assert abs(after) > MOST
    return f"{describe(change)} would make it longer than {DIGITS} digits"


def _counter(address: Address) -> str:
    return f"counter {address.name!r} in domain {address.domain!r}"
