"""Counters for programs that await: `AsyncCounter` and `AsyncDomain`.

The same engine, and the same lines: tasks and threads of a process that add
to one counter share their batches. The event loop is never blocked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final, Never, Self, SupportsIndex, TypeVar

from truecount.arguments import check_amount, check_count, check_key, check_value
from truecount.awaiting import Caller, carry_out, in_thread
from truecount.bulk import add_all, check_amounts
from truecount.change import Add, Change, Delete, Outcome, Receipt, Set
from truecount.combine import Pending, attach, line_at
from truecount.conclude import conclude
from truecount.defaults import CONFIGURED, STORED, UNCHANGED, Configured, Stored, Unchanged
from truecount.errors import CounterNotFoundError, InvalidTypeError
from truecount.handle import Asking, Handle, Look, Namespace, Place, limit_of, opening
from truecount.plans import look
from truecount.record import Record, View
from truecount.steps import Plan
from truecount.stores.base import Deadline, Store
from truecount.unsettled import outcome_unknown

__all__ = ["AsyncCounter", "AsyncDomain"]

A = TypeVar("A", bound="AsyncCounter")
T = TypeVar("T")

ONE: Final = Add(1)
"""What most add. Callers in a loop are told by their places, and may share it."""


def _refusing(sign: str) -> Callable[[A, Never], A]:
    """Make the method for an in-place operator, which cannot be awaited."""

    def method(self: A, operand: Never, /) -> A:
        raise InvalidTypeError(
            f"{sign} cannot be awaited: use await counter.add(n), or await counter.update(fn)"
        )

    return method


class AsyncCounter(Handle):
    """`Counter` for programs that await.

    ``await AsyncCounter.open(domain, name, ...)`` takes what `Counter` takes.
    It reads as an int, the value last seen, without a request; its methods are
    those of `Counter`, awaited, and raise the same:

    >>> import asyncio
    >>> from truecount import AsyncCounter
    >>> async def main():
    ...     c = await AsyncCounter.open('mydomain', 'visitors', 0)
    ...     await asyncio.gather(*[c.add() for _ in range(1000)])
    ...     return c.value
    >>> asyncio.run(main())
    1000

    A task that is cancelled before its change was sent has not made it; when
    it was sent already, it is seen through, and the exception carries a note.
    In-place operators raise TypeError, as they cannot be awaited.
    """

    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:
        raise InvalidTypeError("await AsyncCounter.open(...) instead of calling AsyncCounter")

    @classmethod
    async def open(
        cls,
        domain: str | Namespace,
        name: str,
        initial: SupportsIndex = 0,
        *,
        store: Store | str | None = None,
        minimum: SupportsIndex | Stored | None = STORED,
        maximum: SupportsIndex | Stored | None = STORED,
        create: bool = True,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Self:
        """Create the counter, or attach to it; arguments and errors are those of `Counter`."""
        asked = opening(domain, name, initial, store, minimum, maximum)
        self = cls.__new__(cls)
        self._address = asked.address
        self._store = asked.store
        self._line = line_at(self._store, self._address, 0)
        plan = attach(self._line, asked.creation if create else None)
        self._view = asked.check(await self._run(plan, self._timeout(timeout)))
        return self

    async def add(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Add ``n`` to the true value, as `Counter.add` does."""
        amount = check_amount(n)
        change = ONE if amount == 1 and key is None else Add(amount, check_key(key))
        began = self._view
        limit = self._timeout(timeout)
        caller = Caller(self._line_here(), change, self._store)
        try:  # as `_outcome` does, but a coroutine less
            caller.join(limit)
            await caller.future
        except BaseException as interruption:
            caller.leave(interruption)
            raise
        outcome = self._told(caller, began)
        return outcome if type(outcome) is Receipt else conclude(self._address, change, outcome)

    async def subtract(
        self,
        n: SupportsIndex = 1,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Subtract ``n`` from the true value, as `Counter.subtract` does."""
        change = Add(-check_amount(n), check_key(key))
        return conclude(self._address, change, await self._outcome(change, timeout))

    async def set(
        self,
        value: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Make the value ``value``, as `Counter.set` does."""
        change = Set(check_value(value, "the value"), check_key(key))
        return conclude(self._address, change, await self._outcome(change, timeout))

    async def update(
        self,
        fn: Callable[[int], SupportsIndex],
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Receipt:
        """Make the value what ``fn``, which is not awaited, makes of it; as `Counter.update`."""
        deadline = Deadline(self._timeout(timeout))
        return await self._follow(self._updating(fn, check_key(key), deadline))

    async def compare_and_set(
        self,
        expected: SupportsIndex,
        new: SupportsIndex,
        *,
        timeout: float | Configured | None = CONFIGURED,
    ) -> bool:
        """Make the value ``new`` if it is ``expected``, as `Counter.compare_and_set` does."""
        return await self._follow(self._comparing(expected, new, self._timeout(timeout)))

    async def reserve(
        self,
        n: SupportsIndex,
        *,
        key: str | None = None,
        timeout: float | Configured | None = CONFIGURED,
    ) -> range:
        """Add ``n`` and return the numbers gained, as `Counter.reserve` does."""
        return await self._follow(self._reserving(n, key, self._timeout(timeout)))

    async def ids(
        self, block: SupportsIndex = 1, *, timeout: float | Configured | None = CONFIGURED
    ) -> AsyncIterator[int]:
        """Yield numbers that nobody else gets, without end, as `Counter.ids` does."""
        size = check_count(block, "the block")
        while True:
            for number in await self.reserve(size, timeout=timeout):
                yield number

    async def refresh(self, *, timeout: float | Configured | None = CONFIGURED) -> int:
        """Look at the true value and return it, as `Counter.refresh` does."""
        return await self._follow(self._refreshing(Deadline(self._timeout(timeout))))

    async def receipt(
        self, key: str, *, timeout: float | Configured | None = CONFIGURED
    ) -> Receipt:
        """Return the receipt of the change made under ``key``, as `Counter.receipt` does."""
        return await self._follow(self._finding(key, self._timeout(timeout)))

    async def limit(
        self,
        *,
        minimum: SupportsIndex | Unchanged | None = UNCHANGED,
        maximum: SupportsIndex | Unchanged | None = UNCHANGED,
        timeout: float | Configured | None = CONFIGURED,
    ) -> None:
        """Change the bounds, as `Counter.limit` does."""
        change = limit_of(minimum, maximum)
        conclude(self._address, change, await self._outcome(change, timeout))

    async def delete(self, *, timeout: float | Configured | None = CONFIGURED) -> None:
        """Delete the counter, as `Counter.delete` does."""
        conclude(self._address, Delete(), await self._outcome(Delete(), timeout))

    __iadd__ = _refusing("+=")
    __isub__ = _refusing("-=")
    __imul__ = _refusing("*=")
    __ifloordiv__ = _refusing("//=")
    __imod__ = _refusing("%=")
    __ipow__ = _refusing("**=")
    __ilshift__ = _refusing("<<=")
    __irshift__ = _refusing(">>=")
    __iand__ = _refusing("&=")
    __ior__ = _refusing("|=")
    __ixor__ = _refusing("^=")
    __itruediv__ = _refusing("/=")
    __imatmul__ = _refusing("@=")

    # Requests

    async def _run(self, plan: Plan[T], timeout: float | None) -> T:
        try:
            return await carry_out(plan, self._store, timeout)
        except Pending as pending:
            raise outcome_unknown(self._store, self._address, pending) from pending.cause

    async def _follow(self, asking: Asking[T]) -> T:
        """Make the requests of ``asking``, and return what it returns."""
        answer: Record | Outcome | None = None
        try:
            while True:
                request = asking.send(answer)
                if type(request) is Look:
                    record = await self._run(look(self._address, request.keys), request.timeout)
                    answer = self._found(record)
                else:
                    answer = await self._outcome(*request)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # typed by the call

    async def _outcome(self, change: Change, timeout: float | Configured | None) -> Outcome:
        """Have ``change`` made, and show what the counter is now."""
        began = self._view
        limit = self._timeout(timeout)
        caller = Caller(self._line_here(), change, self._store)
        try:
            caller.join(limit)
            await caller.future
        except BaseException as interruption:
            caller.leave(interruption)
            raise
        return self._told(caller, began)

    def _told(self, caller: Caller, began: View) -> Outcome:
        """What became of a change, since which the counter may be another than it ``began``."""
        try:
            outcome, view = caller.told()
        except Pending as pending:
            raise outcome_unknown(self._store, self._address, pending) from pending.cause
        self._see(began, view, caller.line)
        return outcome


class AsyncDomain(Place):
    """`Domain` for programs that await.

    It has no subscripts, which cannot be awaited: ``await domain.counter(name)``
    creates as ``Domain[name]`` does, ``await domain.get(name)`` does not, and
    ``async for name in domain`` lists.

    Args:
        name: 3 to 255 of ``a-z A-Z 0-9 _ . -``.
        store: a `Store`, or its URL; `connect` tells the default.
    """

    __slots__ = ()

    async def counter(
        self,
        name: str,
        initial: SupportsIndex = 0,
        *,
        minimum: SupportsIndex | Stored | None = STORED,
        maximum: SupportsIndex | Stored | None = STORED,
        create: bool = True,
        timeout: float | Configured | None = CONFIGURED,
    ) -> AsyncCounter:
        """Return the counter ``name``, opened as `AsyncCounter.open` does."""
        return await AsyncCounter.open(
            self,
            name,
            initial,
            minimum=minimum,
            maximum=maximum,
            create=create,
            timeout=timeout,
        )

    async def get(self, name: str) -> AsyncCounter | None:
        """Return the counter ``name``, or None; it is not created."""
        try:
            return await AsyncCounter.open(self, name, create=False)
        except CounterNotFoundError:
            return None

    async def __aiter__(self) -> AsyncIterator[str]:
        for name in await in_thread(
            self._store, partial(_names, self._store, self._name), self._store.timeout
        ):
            yield name

    async def add(
        self,
        amounts: Mapping[str, SupportsIndex],
        *,
        timeout: float | Configured | None = CONFIGURED,
    ) -> dict[str, Receipt]:
        """Add to many counters, as `Domain.add` does; cancelled once it is sent, it goes on."""
        limit = self._timeout(timeout)
        checked = check_amounts(amounts, self._kept)
        adding = partial(add_all, self._store, self._name, checked, limit, self._kept)
        return await in_thread(self._store, adding, limit)

    async def snapshot(self) -> dict[str, int]:
        """Return every counter's value, by name."""
        snapshot = partial(self._store.snapshot, self._name)
        return await in_thread(self._store, snapshot, self._store.timeout)


def _names(store: Store, domain: str) -> list[str]:
    return list(store.names(domain))
