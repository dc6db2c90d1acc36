"""The counter: reads as an int, and keeps itself in step with its store."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, Final, Never, SupportsIndex, TypeVar

from truecount.arguments import check_amount, check_count, check_key, check_value, integer
from truecount.change import Add, Change, CompareAndSet, Delete, Outcome, Receipt, Set
from truecount.combine import Pending, ask, attach, line_at
from truecount.conclude import conclude
from truecount.defaults import CONFIGURED, STORED, UNCHANGED, Configured, Stored, Unchanged
from truecount.drive import run
from truecount.errors import BoundsError, InvalidTypeError
from truecount.handle import Asking, Handle, Look, Namespace, limit_of, opening
from truecount.plans import look
from truecount.record import DIGITS, MOST, Record, make
from truecount.steps import Plan
from truecount.stores.base import Deadline, Store
from truecount.unsettled import outcome_unknown

__all__ = ["Counter"]

C = TypeVar("C", bound="Counter")
T = TypeVar("T")

BITS: Final = MOST.bit_length()
"""2 to this power is too long a value."""

GROWING: Final = (operator.pow, operator.lshift)
"""What can make a value that is too long even to be computed."""


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[C, SupportsIndex], C]:
    """Make the method for an in-place operator."""

    def method(self: C, operand: SupportsIndex, /) -> C:
        number = operand if type(operand) is int else integer(operand, "the operand")
        value = self._view.value
        if operate in GROWING and _is_too_long(operate, value, number):
            raise BoundsError(f"the result would be longer than {DIGITS} digits", value=value)
        new = operate(value, number)
        if type(new) is not int:
            raise InvalidTypeError(
                f"the result would be the {type(new).__name__} {new}, and a counter holds integers"
            )
        self._change(CompareAndSet(value, check_value(new, "the result")), CONFIGURED)
        return self

    return method


def _no_such_operator(sign: str, instead: str) -> Callable[[C, Never], C]:
    """Make the method for an operator that takes nothing, as type checkers see too."""

    def method(self: C, operand: Never, /) -> C:
        raise InvalidTypeError(f"a counter has no {sign}, which makes no integer{instead}")

    return method


class Counter(Handle):
    """An integer that lives in a database, shared by any number of processes.

    It reads as an int and keeps itself in step with the true value:

    >>> from truecount import counter
    >>> c = counter.Counter('mydomain', 'counter1', 0)
    >>> print(c)
    0
    >>> c += 1
    >>> print(c)
    1
    >>> c == 0
    False
    >>> c < 2
    True
    >>> c -= 1
    >>> print(c)
    0

    In-place operators are conditional: they apply to the value that this
    object shows. When another process was first, nothing is applied, and the
    object then shows the newest value:

    >>> another_process = counter.Counter('mydomain', 'counter1')
    >>> another_process += 5
    >>> try:
    ...     c += 1
    ... except ValueError as error:
    ...     print(error)
    Counter was out of sync
    >>> print(c)
    5
    >>> c += 1
    >>> print(c)
    6

    Methods apply to the true value, whatever it is, and return a `Receipt`:

    >>> another_process.add(10).before
    6
    >>> c.add(10)                                       # doctest: +ELLIPSIS
    Receipt(26, before=16, revision=..., timestamp='...', key=None, replayed=False)

    Args:
        domain: the namespace, 3 to 255 of ``a-z A-Z 0-9 _ . -``; or a `Domain`.
        name: 1 to 1,024 bytes of UTF-8 without control characters.
        initial: the value (int) at creation. A counter that exists keeps its own.
        store: a `Store`, or its URL; `connect` tells the default.
        minimum: the least value (int, or None for no end). At creation it is
            the bound; later it must be the stored one, or be left out.
        maximum: the greatest value, likewise.
        create: False raises `CounterNotFoundError` when there is no such counter.
        timeout: seconds to wait for the store, None for no end; by default the
            store's own. Every method has it.

    Raises:
        InvalidTypeError, InvalidNameError, BoundsError: an argument is wrong.
        BoundsMismatchError: the counter has other bounds; `limit` changes them.
        DamagedRecordError: what is stored there is not a counter's record.
        StoreError: the store cannot be opened or reached in time.
        OutcomeUnknownError: it could not be told in time whether it was created.
    """

    __slots__ = ()

    def __init__(
        self,
        domain: str | Namespace,
        name: str,
        initial: SupportsIndex = 0,
        *,
        store: Store | str | None = None,
        minimum: SupportsIndex | Stored | None = STORED,
        maximum: SupportsIndex | Stored | None = STORED,
        create: bool = True,
        timeout: float | Configured | None = CONFIGURED,
    ) -> None:
        asked = opening(domain, name, initial, store, minimum, maximum)
        self._address = asked.address
        self._store = asked.store
        self._line = line_at(self._store, self._address, 0)
        plan = attach(self._line, asked.creation if create else None)
        self._view = asked.check(self._run(plan, timeout))

    # Changes of the true value

    def add(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Add ``n`` (int) to the true value, whatever it is.

        ``key``: an idempotency key, 1 to 256 bytes. However often a change is
        asked for under one key, it is applied once, and the repeats get the
        first receipt; the store remembers it for its ``key_ttl``, 7 days
        unless told otherwise. ``timeout``: seconds, None for no end.

        Raises `BoundsError` when the result would leave the bounds,
        `KeyReusedError` when the key belongs to another change,
        `CounterNotFoundError` after a deletion, `StoreError` when it was not
        applied for a reason of the store, and `OutcomeUnknownError` when it
        was sent and its outcome could not be learnt in time.
        """
        key = None if key is None else check_key(key)
        change = make(Add, (check_amount(n), key))
        outcome = self._outcome(change, timeout)
        return outcome if type(outcome) is Receipt else conclude(self._address, change, outcome)

    def subtract(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Subtract ``n`` (int) from the true value; otherwise as `add`."""
        return self._change(Add(-check_amount(n), check_key(key)), timeout)

    def set(
        self,
        value: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Make the value ``value`` (int), whatever it was; otherwise as `add`."""
        return self._change(Set(check_value(value, "the value"), check_key(key)), timeout)

    def update(
        self,
        fn: Callable[[int], SupportsIndex],
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Make the value what ``fn`` makes of the true one.

        ``fn`` takes and returns an int. It must be pure: it may first be shown
        an older value, and runs again when another writer was first. What it
        raises about the true value ends the update. With a ``key``, any two
        updates count as the same change. Raises as `add`.
        """
        deadline = Deadline(self._timeout(timeout))
        return self._follow(self._updating(fn, check_key(key), deadline))

    def compare_and_set(
        self,
        expected: SupportsIndex,
        new: SupportsIndex,
        *,
        timeout: float | Configured | None = CONFIGURED,
    ) -> bool:
        """Make the value ``new`` if it is ``expected`` (ints); whether it was.

        Raises as `add`.
        """
        return self._follow(self._comparing(expected, new, self._timeout(timeout)))

    def reserve(
        self,
        n: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> range:
        """Add ``n`` (int, 1 or more) and return the numbers gained, for the caller alone.

        They are ``before + 1`` to ``after``. Raises as `add`.
        """
        return self._follow(self._reserving(n, key, self._timeout(timeout)))

    def ids(
        self, block: SupportsIndex = 1, *, timeout: float | Configured | None = CONFIGURED
    ) -> Iterator[int]:
        """Yield numbers that nobody else gets, without end.

        They are reserved ``block`` at a time: a greater block is faster, and
        leaves a greater gap when the rest of it is never used. Raises as `add`.
        """
        size = check_count(block, "the block")

        def numbers() -> Iterator[int]:
            while True:
                yield from self.reserve(size, timeout=timeout)

        return numbers()

    def __next__(self) -> int:
        return self.add(1).after

    # The rest of a counter's life

    def refresh(self, *, timeout: float | Configured | None = CONFIGURED) -> int:
        """Look at the true value and return it, as a plain int.

        Raises `CounterNotFoundError` after a deletion.
        """
        return self._follow(self._refreshing(Deadline(self._timeout(timeout))))

    def receipt(self, key: str, *, timeout: float | Configured | None = CONFIGURED) -> Receipt:
        """Return the receipt of the change that was made under ``key``.

        Raises `ReceiptNotFoundError` when there is none, or none any more.
        """
        return self._follow(self._finding(key, self._timeout(timeout)))

    def limit(
        self,
        *,
        minimum: SupportsIndex | Unchanged | None = UNCHANGED,
        maximum: SupportsIndex | Unchanged | None = UNCHANGED,
        timeout: float | Configured | None = CONFIGURED,
    ) -> None:
        """Change the bounds (int; None removes one), for every writer from now on.

        Raises `BoundsError` when the value is outside of the new ones.
        """
        self._change(limit_of(minimum, maximum), timeout)

    def delete(self, *, timeout: float | Configured | None = CONFIGURED) -> None:
        """Delete the counter. This object goes on showing what it last saw.

        Only `Counter` and `Domain` create it again. Raises
        `CounterNotFoundError` when it is deleted already.
        """
        self._change(Delete(), timeout)

    # In-place operators: conditional on the value that the object shows

    __iadd__ = _in_place(operator.add)
    __isub__ = _in_place(operator.sub)
    __imul__ = _in_place(operator.mul)
    __ifloordiv__ = _in_place(operator.floordiv)
    __imod__ = _in_place(operator.mod)
    __ipow__ = _in_place(operator.pow)
    __ilshift__ = _in_place(operator.lshift)
    __irshift__ = _in_place(operator.rshift)
    __iand__ = _in_place(operator.and_)
    __ior__ = _in_place(operator.or_)
    __ixor__ = _in_place(operator.xor)
    __itruediv__ = _no_such_operator("/=", "; use //=")
    __imatmul__ = _no_such_operator("@=", "")

    # Requests

    def _run(self, plan: Plan[T], timeout: float | Configured | None) -> T:
        try:
            return run(plan, self._store, self._timeout(timeout))
        except Pending as pending:
            raise outcome_unknown(self._store, self._address, pending) from pending.cause

    def _follow(self, asking: Asking[T]) -> T:
        """Make the requests of ``asking``, and return what it returns."""
        answer: Record | Outcome | None = None
        try:
            while True:
                request = asking.send(answer)
                if type(request) is Look:
                    record = self._run(look(self._address, request.keys), request.timeout)
                    answer = self._found(record)
                else:
                    answer = self._outcome(*request)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # typed by the call

    def _outcome(self, change: Change, timeout: float | Configured | None) -> Outcome:
        """Have ``change`` made, and show what the counter is now."""
        began = self._view
        line = self._line_here()
        store = self._store
        limit = store.timeout if timeout is CONFIGURED else self._timeout(timeout)
        try:
            outcome, view = ask(line, change, store, limit)
        except Pending as pending:
            raise outcome_unknown(store, self._address, pending) from pending.cause
        self._see(began, view, line)
        return outcome

    def _change(self, change: Change, timeout: float | Configured | None) -> Receipt:
        return conclude(self._address, change, self._outcome(change, timeout))


def _is_too_long(operate: Callable[[Any, Any], Any], value: int, operand: int) -> bool:
    """Whether the result is longer than 500 digits by far; told without computing it."""
    if operate is operator.pow:
        return operand > 0 and (abs(value).bit_length() - 1) * operand >= BITS
    return operate is operator.lshift and value != 0 and operand >= BITS
