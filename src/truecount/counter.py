"""The counter: reads as an int, and keeps itself in step with its store."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, Never, Protocol, Self, SupportsIndex, TypeVar, runtime_checkable

from truecount.arguments import (
    check_amount,
    check_bounds,
    check_count,
    check_domain,
    check_key,
    check_name,
    check_timeout,
    check_value,
    integer,
)
from truecount.change import (
    MOVED,
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
from truecount.combine import Line, Pending, ask, attach, line_at
from truecount.conclude import conclude, not_found
from truecount.connect import connect
from truecount.defaults import (
    CONFIGURED,
    STORED,
    UNCHANGED,
    Configured,
    Default,
    Stored,
    Unchanged,
)
from truecount.drive import run
from truecount.errors import (
    BoundsError,
    BoundsMismatchError,
    InvalidTypeError,
    ReceiptNotFoundError,
    StoreTimeoutError,
)
from truecount.integer import Integer
from truecount.moment import to_datetime, to_iso
from truecount.plans import look
from truecount.process import here
from truecount.record import DIGITS, MOST, Address, Record, View, make
from truecount.settle import receipt_of
from truecount.steps import Plan
from truecount.stores.base import Store
from truecount.unsettled import outcome_unknown

__all__ = ["Counter"]

C = TypeVar("C", bound="Counter")
T = TypeVar("T")

BITS: Final = MOST.bit_length()
"""2 to this power is too long a value."""


@runtime_checkable
class Namespace(Protocol):
    """What `Counter` needs of a `Domain`."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> Store: ...


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[C, SupportsIndex], C]:
    """Make the method for an in-place operator."""

    def method(self: C, operand: SupportsIndex, /) -> C:
        self._assign(operate, integer(operand, "the operand"))
        return self

    return method


def _no_such_operator(sign: str, instead: str) -> Callable[[C, Never], C]:
    """Make the method for an operator that takes nothing, as type checkers see too."""

    def method(self: C, operand: Never, /) -> C:
        raise InvalidTypeError(f"a counter has no {sign}, which makes no integer{instead}")

    return method


class Counter(Integer):
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

    __slots__ = ("__weakref__", "_address", "_line", "_store", "_view")

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
        first = check_value(initial, "the initial value")
        least = _bound(minimum, "the minimum", STORED)
        most = _bound(maximum, "the maximum", STORED)
        creation = Create(
            first,
            None if least is STORED else least,
            None if most is STORED else most,
        )
        check_bounds(creation.minimum, creation.maximum)
        if isinstance(domain, Namespace) and not isinstance(domain, Counter):
            if store is not None and connect(store) is not domain.store:
                raise InvalidTypeError(
                    "the domain brings its own store: give the store to one of them only"
                )
            self._address = Address(check_domain(domain.name), check_name(name))
            self._store = domain.store
        else:
            self._address = Address(check_domain(domain), check_name(name))
            self._store = connect(store)
        self._line = line_at(self._store, self._address, 0)
        view = self._run(attach(self._line, creation if create else None), timeout)
        if isinstance(view, Refusal):
            conclude(self._address, creation, view)
        if not isinstance(view, View):
            raise not_found(self._address)
        if (least is not STORED and least != view.minimum) or (
            most is not STORED and most != view.maximum
        ):
            raise BoundsMismatchError(
                f"{self._shown} has the bounds {view.minimum} to {view.maximum}: leave them out, "
                "or change them with limit()",
                minimum=view.minimum,
                maximum=view.maximum,
            )
        self._view = view

    # What the object shows, without a request

    @property
    def domain(self) -> str:
        """The namespace that the counter is in."""
        return self._address.domain

    @property
    def name(self) -> str:
        """The counter's name in its domain."""
        return self._address.name

    @property
    def store(self) -> Store:
        """The store that holds the counter."""
        return self._store

    @property
    def value(self) -> int:
        """The value last seen, as a plain int."""
        return self._view.value

    @property
    def revision(self) -> int:
        """How many writes the record has seen; grows by one with each. Not from 0."""
        return self._view.stamp.revision

    @property
    def timestamp(self) -> str:
        """When the value was last written, as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
        return to_iso(self._view.time)

    @property
    def updated_at(self) -> datetime:
        """When the value was last written, as an aware datetime in UTC."""
        return to_datetime(self._view.time)

    @property
    def minimum(self) -> int | None:
        """The least value allowed, or None."""
        return self._view.minimum

    @property
    def maximum(self) -> int | None:
        """The greatest value allowed, or None."""
        return self._view.maximum

    def __int__(self) -> int:
        return self._view.value

    def __repr__(self) -> str:
        return f"<Counter {self.name!r} in {self.domain!r}: {self._view.value}>"

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
        return self._change(make(Add, (check_amount(n), key)), timeout)

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
        key = check_key(key)
        limit = self._timeout(timeout)
        began = time.monotonic()

        def left() -> float | None:
            return None if limit is None else max(limit - (time.monotonic() - began), 0.0)

        value, fresh = self.value, False
        if key is not None:
            record = self._look((key,), left())
            repeat = CompareAndSet(record.value, record.value, key)
            for known in record.keys:
                same = known.text == repeat.text
                return conclude(
                    self._address, repeat, receipt_of(known) if same else Refusal(REUSED)
                )
            value, fresh = record.value, True
        while True:
            try:
                new = check_value(fn(value), "what fn returned")
            except Exception:  # fn's own business, unless it was shown a value that is past
                if fresh or self.refresh(timeout=left()) == value:
                    raise
                value, fresh = self.value, True
                continue
            change = CompareAndSet(value, new, key)
            rest = left()
            outcome = self._outcome(change, rest)
            if isinstance(outcome, Receipt) or outcome.code != MOVED or outcome.value is None:
                return conclude(self._address, change, outcome)
            value, fresh = outcome.value, True
            if rest == 0:
                raise StoreTimeoutError(
                    f"other writers of {self._shown} were first, time after time; "
                    "nothing was applied"
                )

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
        change = CompareAndSet(
            check_value(expected, "the expected value"), check_value(new, "the new value")
        )
        outcome = self._outcome(change, timeout)
        if isinstance(outcome, Refusal) and outcome.code == MOVED:
            return False
        conclude(self._address, change, outcome)
        return True

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
        receipt = self.add(check_count(n, "the number of ids"), key=key, timeout=timeout)
        return range(receipt.before + 1, receipt.after + 1)

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
        began = self._view
        self._see(began, self._look((), timeout).view, self._line_here())
        return self._view.value

    def receipt(self, key: str, *, timeout: float | Configured | None = CONFIGURED) -> Receipt:
        """Return the receipt of the change that was made under ``key``.

        Raises `ReceiptNotFoundError` when there is none, or none any more.
        """
        if check_key(key) is None:
            raise InvalidTypeError("an idempotency key must be a string, not None")
        for known in self._look((key,), timeout).keys:
            return receipt_of(known)
        raise ReceiptNotFoundError(f"no change of {self._shown} is known under the key {key!r}")

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
        least = _bound(minimum, "the minimum", UNCHANGED)
        most = _bound(maximum, "the maximum", UNCHANGED)
        if isinstance(least, int) and isinstance(most, int):
            check_bounds(least, most)
        self._change(Limit(least, most), timeout)

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

    def _assign(self, operate: Callable[[Any, Any], Any], operand: int) -> None:
        value = self._view.value
        if _is_too_long(operate, value, operand):
            raise BoundsError(f"the result would be longer than {DIGITS} digits", value=value)
        new = operate(value, operand)
        if type(new) is not int:
            raise InvalidTypeError(
                f"the result would be the {type(new).__name__} {new}, and a counter holds integers"
            )
        self._change(CompareAndSet(value, check_value(new, "the result")), CONFIGURED)

    # Copies and pickles: other handles on the same counter

    def __copy__(self) -> Self:
        return _handle(type(self), self._address, self._store, self._view)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (type(self), self._address, self._store, self._view)

    # Requests

    @property
    def _shown(self) -> str:
        return f"counter {self.name!r} in domain {self.domain!r}"

    def _timeout(self, timeout: float | Configured | None) -> float | None:
        return self._store.timeout if timeout is CONFIGURED else check_timeout(timeout)

    def _run(self, plan: Plan[T], timeout: float | Configured | None) -> T:
        try:
            return run(plan, self._store, self._timeout(timeout))
        except Pending as pending:
            raise outcome_unknown(self._store, self._address, pending) from pending.cause

    def _look(self, keys: tuple[str, ...], timeout: float | Configured | None) -> Record:
        record = self._run(look(self._address, keys), timeout)
        if record is None or (record.deleted and not record.keys):
            raise not_found(self._address)
        return record

    def _outcome(self, change: Change, timeout: float | Configured | None) -> Outcome:
        """Have ``change`` made, and show what the counter is now."""
        began = self._view
        line = self._line_here()
        store = self._store
        limit = store.timeout if timeout is CONFIGURED else check_timeout(timeout)
        try:
            outcome, view = ask(line, change, store, limit)
        except Pending as pending:
            raise outcome_unknown(store, self._address, pending) from pending.cause
        self._see(began, view, line)
        return outcome

    def _line_here(self) -> Line:
        """The line of this process: a fork is a writer of its own, and has locks of its own."""
        line = self._line
        if line.writer.process is not here():
            line = self._line = line_at(self._store, self._address, self._view.stamp.revision)
        return line

    def _change(self, change: Change, timeout: float | Configured | None) -> Receipt:
        outcome = self._outcome(change, timeout)
        if type(outcome) is Receipt:
            return outcome
        return conclude(self._address, change, outcome)

    def _see(self, began: View, seen: View | None, line: Line) -> None:
        """Show ``seen``, which was looked up after ``began`` was shown.

        Only forward: what another thread has shown meanwhile may be newer.
        When nobody has, ``seen`` is, whatever its revision: the store may
        have been restored from a backup.
        """
        if seen is None:
            return
        with line.lock:
            if self._view is began or seen.stamp.revision > self._view.stamp.revision:
                self._view = seen


def _handle(cls: type[C], address: Address, store: Store, view: View) -> C:
    """Make a handle that shows ``view``. No request is made, and nothing created."""
    counter = cls.__new__(cls)
    counter._address = address
    counter._store = store
    counter._line = line_at(store, address, view.stamp.revision)
    counter._view = view
    return counter


def _bound(bound: Any, what: str, left_out: Default) -> Any:
    """A bound as an int, if one was given; ``left_out`` stands for none."""
    if bound is None or bound is left_out:
        return bound
    if isinstance(bound, Default):
        raise InvalidTypeError(f"{what} is an integer, None, or left out; not {bound!r}")
    return check_value(bound, what)


def _is_too_long(operate: Callable[[Any, Any], Any], value: int, operand: int) -> bool:
    """Whether the result is longer than 500 digits by far; told without computing it."""
    if operate is operator.pow:
        return operand > 0 and (abs(value).bit_length() - 1) * operand >= BITS
    return operate is operator.lshift and value != 0 and operand >= BITS
