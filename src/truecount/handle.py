"""What a handle on a counter is, whichever way it waits for its store.

`Counter` blocks and `AsyncCounter` awaits. What they show, and what a call of
theirs has to ask for, is here, once: a call that takes more than one request
is a generator, which yields requests and is sent what came of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from typing import (
    Any,
    NamedTuple,
    Protocol,
    Self,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

from truecount.arguments import (
    check_bounds,
    check_count,
    check_domain,
    check_key,
    check_name,
    check_timeout,
    check_value,
)
from truecount.change import (
    MOVED,
    REUSED,
    Add,
    Change,
    CompareAndSet,
    Create,
    Limit,
    Outcome,
    Receipt,
    Refusal,
)
from truecount.combine import Line, line_at
from truecount.conclude import conclude, not_found
from truecount.connect import connect
from truecount.defaults import CONFIGURED, STORED, UNCHANGED, Configured, Default, Stored, Unchanged
from truecount.errors import (
    BoundsMismatchError,
    InvalidTypeError,
    ReceiptNotFoundError,
    StoreTimeoutError,
)
from truecount.integer import Integer
from truecount.moment import to_datetime, to_iso
from truecount.process import here
from truecount.record import Address, Record, View
from truecount.settle import receipt_of
from truecount.stores.base import Deadline, Store

__all__ = [
    "Asking",
    "Handle",
    "Look",
    "Make",
    "Namespace",
    "Opening",
    "Place",
    "limit_of",
    "opening",
]

H = TypeVar("H", bound="Handle")
T = TypeVar("T")


class Make(NamedTuple):
    """Have ``change`` made within ``timeout`` seconds: its outcome."""

    change: Change
    timeout: float | None


class Look(NamedTuple):
    """Look at the counter within ``timeout`` seconds: its record, with the receipts of ``keys``."""

    keys: tuple[str, ...]
    timeout: float | None


Asking: TypeAlias = Generator[Make | Look, Any, T]
"""A call: yields requests, is sent what came of them, returns a T."""


@runtime_checkable
class Namespace(Protocol):
    """What `Counter` needs of a `Domain`."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> Store: ...


class InStore:
    """What is in a store."""

    __slots__ = ()

    _store: Store

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return self._store

    def _timeout(self, timeout: float | Configured | None) -> float | None:
        return self._store.timeout if timeout is CONFIGURED else check_timeout(timeout)


class Handle(InStore, Integer):
    """Shows what was last seen of a counter, and reads as that int."""

    __slots__ = ("__weakref__", "_address", "_line", "_store", "_view")

    _address: Address
    _line: Line
    _view: View

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
        return f"<{type(self).__name__} {self.name!r} in {self.domain!r}: {self._view.value}>"

    # Calls, as requests

    def _updating(
        self, fn: Callable[[int], SupportsIndex], key: str | None, deadline: Deadline
    ) -> Asking[Receipt]:
        value, fresh = self.value, False
        if key is not None:
            record: Record = yield Look((key,), deadline.left())
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
                if fresh:
                    raise
                past, value, fresh = value, (yield from self._refreshing(deadline)), True
                if value == past:
                    raise
                continue
            change = CompareAndSet(value, new, key)
            rest = deadline.left()
            outcome: Outcome = yield Make(change, rest)
            if isinstance(outcome, Receipt) or outcome.code != MOVED or outcome.value is None:
                return conclude(self._address, change, outcome)
            value, fresh = outcome.value, True
            if rest == 0:
                raise StoreTimeoutError(
                    f"other writers of {self._shown} were first, time after time; "
                    "nothing was applied"
                )

    def _comparing(
        self, expected: SupportsIndex, new: SupportsIndex, timeout: float | None
    ) -> Asking[bool]:
        change = CompareAndSet(
            check_value(expected, "the expected value"), check_value(new, "the new value")
        )
        outcome: Outcome = yield Make(change, timeout)
        if isinstance(outcome, Refusal) and outcome.code == MOVED:
            return False
        conclude(self._address, change, outcome)
        return True

    def _reserving(self, n: SupportsIndex, key: str | None, timeout: float | None) -> Asking[range]:
        change = Add(check_count(n, "the number of ids"), check_key(key))
        receipt = conclude(self._address, change, (yield Make(change, timeout)))
        return range(receipt.before + 1, receipt.after + 1)

    def _refreshing(self, deadline: Deadline) -> Asking[int]:
        began = self._view
        record: Record = yield Look((), deadline.left())
        self._see(began, record.view, self._line_here())
        return self._view.value

    def _finding(self, key: str, timeout: float | None) -> Asking[Receipt]:
        if check_key(key) is None:
            raise InvalidTypeError("an idempotency key must be a string, not None")
        record: Record = yield Look((key,), timeout)
        for known in record.keys:
            return receipt_of(known)
        raise ReceiptNotFoundError(f"no change of {self._shown} is known under the key {key!r}")

    # Copies and pickles: other handles on the same counter

    def __copy__(self) -> Self:
        return _handle(type(self), self._address, self._store, self._view)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (type(self), self._address, self._store, self._view)

    # What requests need

    @property
    def _shown(self) -> str:
        return f"counter {self.name!r} in domain {self.domain!r}"

    def _line_here(self) -> Line:
        """The line of this process: a fork is a writer of its own, and has locks of its own."""
        line = self._line
        if line.terms.writer.process is not here():
            line = self._line = line_at(self._store, self._address, self._view.stamp.revision)
        return line

    def _found(self, record: Record | None) -> Record:
        """``record``, if there is a counter, or what it remembers of keys."""
        if record is None or (record.deleted and not record.keys):
            raise not_found(self._address)
        return record

    def _see(self, began: View, seen: View | None, line: Line) -> None:
        """Show ``seen``, which was looked up after ``began`` was shown.

        Only forward: what another thread has shown meanwhile may be newer.
        When nobody has, ``seen`` is, whatever its revision: the store may
        have been restored from a backup.
        """
        if seen is None or seen is self._view:
            return
        with line.lock:
            if self._view is began or seen.stamp.revision > self._view.stamp.revision:
                self._view = seen


def _handle(cls: type[H], address: Address, store: Store, view: View) -> H:
    """Make a handle that shows ``view``. No request is made, and nothing created."""
    handle = cls.__new__(cls)
    handle._address = address
    handle._store = store
    handle._line = line_at(store, address, view.stamp.revision)
    handle._view = view
    return handle


class Place(InStore):
    """A domain in a store, whichever way it waits."""

    __slots__ = ("_kept", "_name", "_store")

    def __init__(self, name: str, *, store: Store | str | None = None) -> None:
        self._name = check_domain(name)
        self._store = connect(store)
        self._kept: dict[str, Line] = {}  # of counters that were added to at once, by name

    @property
    def name(self) -> str:
        """The domain's name."""
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} in {self._store!r}>"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self._name, self._store) == (other._name, other._store)

    def __hash__(self) -> int:
        return hash((self._name, self._store))

    def __reduce__(self) -> tuple[Any, ...]:
        return _place, (type(self), self._name, self._store)


def _place(cls: type[Place], name: str, store: Store) -> Place:
    return cls(name, store=store)


class Opening(NamedTuple):
    """What the one who opens a counter has asked for, checked."""

    address: Address
    store: Store
    creation: Create
    minimum: int | Stored | None
    maximum: int | Stored | None

    def check(self, found: View | Refusal | None) -> View:
        """What was found, or made, if it is what was asked for."""
        if isinstance(found, Refusal):
            conclude(self.address, self.creation, found)
        if not isinstance(found, View):
            raise not_found(self.address)
        if (self.minimum is not STORED and self.minimum != found.minimum) or (
            self.maximum is not STORED and self.maximum != found.maximum
        ):
            raise BoundsMismatchError(
                f"counter {self.address.name!r} in domain {self.address.domain!r} has the bounds "
                f"{found.minimum} to {found.maximum}: leave them out, or change them with limit()",
                minimum=found.minimum,
                maximum=found.maximum,
            )
        return found


def opening(
    domain: str | Namespace,
    name: str,
    initial: SupportsIndex,
    store: Store | str | None,
    minimum: SupportsIndex | Stored | None,
    maximum: SupportsIndex | Stored | None,
) -> Opening:
    """Check what a constructor was given. Makes no request."""
    first = check_value(initial, "the initial value")
    least = _bound(minimum, "the minimum", STORED)
    most = _bound(maximum, "the maximum", STORED)
    creation = Create(
        first,
        None if least is STORED else least,
        None if most is STORED else most,
    )
    check_bounds(creation.minimum, creation.maximum)
    if isinstance(domain, Namespace) and not isinstance(domain, Handle):
        if store is not None and connect(store) is not domain.store:
            raise InvalidTypeError(
                "the domain brings its own store: give the store to one of them only"
            )
        address = Address(check_domain(domain.name), check_name(name))
        return Opening(address, domain.store, creation, least, most)
    address = Address(check_domain(domain), check_name(name))
    return Opening(address, connect(store), creation, least, most)


def limit_of(
    minimum: SupportsIndex | Unchanged | None, maximum: SupportsIndex | Unchanged | None
) -> Limit:
    """The change of the bounds to what was given."""
    least = _bound(minimum, "the minimum", UNCHANGED)
    most = _bound(maximum, "the maximum", UNCHANGED)
    if isinstance(least, int) and isinstance(most, int):
        check_bounds(least, most)
    return Limit(least, most)


def _bound(bound: Any, what: str, left_out: Default) -> Any:
    """A bound as an int, if one was given; ``left_out`` stands for none."""
    if bound is None or bound is left_out:
        return bound
    if isinstance(bound, Default):
        raise InvalidTypeError(f"{what} is an integer, None, or left out; not {bound!r}")
    return check_value(bound, what)
