"""A domain: the counters of one namespace, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import SupportsIndex

from truecount.bulk import add_all, check_amounts
from truecount.change import Receipt
from truecount.counter import Counter
from truecount.defaults import CONFIGURED, STORED, Configured, Stored
from truecount.errors import (
    CounterNotFoundError,
    InvalidNameError,
    InvalidTypeError,
)
from truecount.handle import Place

__all__ = ["Domain"]


class Domain(Place):
    """The counters of one namespace.

    >>> from truecount import Domain
    >>> votes = Domain('votes')
    >>> votes['yes'] += 1              # created at 0, as a defaultdict would
    >>> votes['no'].add(2).after
    2
    >>> sorted(votes), 'maybe' in votes
    (['no', 'yes'], False)
    >>> votes.snapshot()
    {'no': 2, 'yes': 1}

    Only ``domain[name]``, `counter` and `add` create; to look never does.
    There is no ``len``, which would have to read every name.

    Args:
        name: 3 to 255 of ``a-z A-Z 0-9 _ . -``.
        store: a `Store`, or its URL; `connect` tells the default.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> Counter:
        return Counter(self, name)

    def __setitem__(self, name: str, counter: Counter) -> None:
        """Accept what ``domain[name] += 1`` assigns back, and nothing else."""
        if not (
            isinstance(counter, Counter)
            and (counter.domain, counter.name) == (self._name, name)
            and counter.store is self._store
        ):
            raise InvalidTypeError(
                f"a counter is not replaced by assignment: use domain[{name!r}].set(value)"
            )

    def __delitem__(self, name: str) -> None:
        Counter(self, name, create=False).delete()

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.get(name) is not None
        except InvalidNameError:
            return False

    def __iter__(self) -> Iterator[str]:
        return self._store.names(self._name)

    def get(self, name: str) -> Counter | None:
        """Return the counter ``name``, or None; it is not created."""
        try:
            return Counter(self, name, create=False)
        except CounterNotFoundError:
            return None

    def counter(
        self,
        name: str,
        initial: SupportsIndex = 0,
        *,
        minimum: SupportsIndex | Stored | None = STORED,
        maximum: SupportsIndex | Stored | None = STORED,
        create: bool = True,
        timeout: float | Configured | None = CONFIGURED,
    ) -> Counter:
        """Return the counter ``name``, made as `Counter` makes it."""
        return Counter(
            self,
            name,
            initial,
            minimum=minimum,
            maximum=maximum,
            create=create,
            timeout=timeout,
        )

    def add(
        self,
        amounts: Mapping[str, SupportsIndex],
        *,
        timeout: float | Configured | None = CONFIGURED,
    ) -> dict[str, Receipt]:
        """Add to many counters in as few requests as the store allows: their receipts by name.

        A counter that does not exist is created at 0. Each change is applied
        exactly once by itself, and one that fails leaves the others alone.
        When some fail, the error of the first is raised, or that of the first
        whose outcome is unknown: its ``receipts`` are of those that were
        applied, and its ``failures`` the errors of the others, by name.
        ``timeout`` (seconds, None for no end) is for all of them.
        """
        checked = check_amounts(amounts, self._kept)
        return add_all(self._store, self._name, checked, self._timeout(timeout), self._kept)

    def snapshot(self) -> dict[str, int]:
        """Return every counter's value, by name."""
        return self._store.snapshot(self._name)
