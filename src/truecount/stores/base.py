"""What a store must do, and what its URL may say.

Two methods make a store, `Store.read` and `Store.replace`; a third,
`Store.settle`, makes it fast where the engine can decide in one atomic step.
`truecount.testing.StoreConformance` tells whether they keep the promises.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar

from truecount import backoff
from truecount.change import Additions, Answer, Batch, Change
from truecount.errors import (
    CounterError,
    InvalidTypeError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from truecount.record import WRITERS, Address, Record
from truecount.steps import Read, Replace, Settle, StoreStep
from truecount.url import StoreURL

__all__ = [
    *("KEY_TTL", "PASSING", "TIMEOUT"),
    *("Ambiguous", "Deadline", "Store", "beforehand", "patiently", "settling"),
    "time_left",
]

T = TypeVar("T")

TIMEOUT: Final = 10.0
"""Seconds that a call may take unless told otherwise."""

KEY_TTL: Final = 7 * 24 * 3600.0
"""Seconds that an idempotency key is remembered unless told otherwise."""


THREADS: Final = 16
"""How many of many requests are on their way at once, where each takes one of its own."""

PASSING: Final = (StoreUnavailableError, StoreTimeoutError)
"""Refusals that may be over at the next attempt."""


class Ambiguous(Exception):
    """A request was sent, and nobody can tell whether it took or will take effect."""

    def __init__(self, cause: StoreError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def time_left(timeout: float | None, began: float) -> float | None:
    """The seconds that are left of ``timeout``, which ``began`` then; None: no end."""
    return None if timeout is None else max(timeout - (time.monotonic() - began), 0.0)


class Deadline:
    """When the time of one call is over, which may take several requests."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = None if timeout is None else max(timeout, 0.0)  # it may be over already
        self._began = time.monotonic()

    def left(self) -> float | None:
        """The seconds that are left; None: no end."""
        return time_left(self._timeout, self._began)

    def check(self) -> None:
        """Raise `StoreTimeoutError` when time ran out; the first request is always made."""
        if self._timeout and self.left() == 0:
            raise StoreTimeoutError("the store took all the time allowed for what comes first")


class Store(ABC):
    """A database that holds counters.

    Every method may be called from any thread, and in a forked child. A
    method that is given ``timeout`` (seconds, or None for no end) ends by
    then. It raises an error of the tree when the request was refused *before
    acting*, and `Ambiguous` when it may have taken effect or still may; a
    driver's own retries are off, since they are what counts double.
    """

    url: str
    """What `truecount.connect` opens again, passwords included."""
    timeout: float | None
    """Seconds a call may take when it does not say; the option ``?timeout=``."""
    key_ttl: float
    """Seconds an idempotency key is remembered; the option ``?key_ttl=``."""
    home: str | None = None
    """The `Process.birth` of the only process that can use the store; None: any can."""
    closed: bool = False
    """Whether `close` was called."""
    writers: int = WRITERS
    """How many writers' receipts a record keeps."""
    batch_limit: int = 256
    """How many changes travel in one batch at most."""
    key_limit: int = 256
    """How many changes with an idempotency key travel in one batch at most."""
    always_fence: bool = False
    """Write every refusal down, for networks that deliver answered requests again."""

    moving_proves: bool = True
    """Whether a `replace` cannot land any more once the record has moved on.

    Not where its condition is less than the stamp: then only a receipt proves anything.
    """

    carries: bool = False
    """Whether one `replace` can bring what several writers have done, one after the other.

    Then who writes on a machine sends what the other processes there wait to send.
    """

    client: Any = None
    """The driver's client that `from_client` was given, which its owner closes; else None."""

    def __init__(self, url: StoreURL) -> None:
        """Take the options that every store has out of ``url``.

        Reaches for nothing yet. A subclass takes its own, sets `url` to what
        stands for the same store wherever it is opened, and calls
        `StoreURL.finish`.
        """
        self.timeout = url.seconds("timeout", TIMEOUT)
        self.key_ttl = url.positive_seconds("key_ttl", KEY_TTL)

    @classmethod
    def from_client(cls, client: Any, url: StoreURL) -> Self:
        """The store behind a driver's ``client``; ``url`` has the scheme, and options only.

        The client stays its owner's, to set up and to close; but what it would
        repeat by itself, it does not repeat for this store.
        """
        raise InvalidTypeError(f"{cls.__name__} is opened by URL, and takes no client")

    @abstractmethod
    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        """The record at ``address``, as it is now: None when there never was one.

        Consistent: it shows every write that was answered before. Its
        ``keys`` are the receipts of those ``keys`` that are still known.
        """

    @abstractmethod
    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        """Write ``new`` in one atomic step, if the store still holds ``old``.

        Told by its whole stamp; None stands for no record. ``new.keys`` are
        inserted in the same step, plainly: one that is there already makes
        the answer False, as a moved stamp does. Where a refusal brings the
        record that is there for nothing, that is the answer instead of False.
        """

    def settles(self, change: Change) -> bool:
        """Whether `settle` can be asked to decide on ``change``.

        Over a network never on a `Create`: a refused one is not written down,
        so that a late copy of it could bring a deleted counter back.
        """
        return False

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        """Decide on ``batch`` where the record is, in one atomic step.

        Answers what `truecount.settle.settle` answers, or `BEYOND` when this
        batch is beyond the engine's arithmetic.
        """
        raise TypeError(f"{type(self).__name__} settles nothing by itself")

    def carry_out(self, step: StoreStep, timeout: float | None) -> Any:
        """What `read`, `replace` or `settle` makes of ``step``."""
        if isinstance(step, Read):
            return self.read(*step, timeout=timeout)
        if isinstance(step, Replace):
            return self.replace(*step, timeout=timeout)
        return self.settle(*step, timeout=timeout)

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        """Carry out ``steps``, each of another counter, in as few requests as the engine allows.

        Each stands by itself, and has what came of it in the list: the answer, or the
        `CounterError` or `Ambiguous` that `carry_out` would have raised.
        """
        from concurrent.futures import ThreadPoolExecutor  # so late, or every import pays for it

        deadline = Deadline(timeout)
        pool = ThreadPoolExecutor(min(len(steps), THREADS), "truecount-together")
        try:
            return list(pool.map(lambda step: self.outcome(step, deadline.left()), steps))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def add_each(self, additions: Additions, *, timeout: float | None) -> Iterable[Any]:
        """Settle ``additions`` as `together` does the steps that `settling` makes of them.

        Where one is decided, a plain pair may say so in the place of the answer: `Decided`.
        """
        return self.together(settling(additions), timeout=timeout)

    def outcome(self, step: StoreStep, timeout: float | None) -> Any:
        """What comes of ``step``: what `carry_out` returns or raises."""
        try:
            return self.carry_out(step, timeout)
        except (CounterError, Ambiguous) as error:
            return error

    @abstractmethod
    def names(self, domain: str) -> Iterator[str]:
        """The names of the counters in ``domain``, sorted; deleted ones hidden."""

    @abstractmethod
    def domains(self) -> Iterator[str]:
        """The domains that hold a counter, sorted."""

    def snapshot(self, domain: str) -> dict[str, int]:
        """Every counter's value in ``domain``, by name."""
        values = {}
        for name in self.names(domain):
            look = partial(self.read, Address(domain, name), timeout=self.timeout)
            record = patiently(look, self.timeout)
            if record is not None and not record.deleted:
                values[name] = record.value
        return values

    def purge(self, before: int) -> int:
        """Remove the tombstones of counters deleted before an instant; how many.

        Microseconds since the epoch. Only an operator asks for this: a
        request older than that, still travelling, could then create again.
        """
        raise StoreError(f"{self!r} cannot purge")

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; every later call raises `StoreClosedError`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<truecount store {self.shown}>"

    @property
    def shown(self) -> str:
        """The URL without its passwords, for people to read."""
        return StoreURL(self.url).shown


def settling(additions: Additions) -> list[Settle]:
    """A step for each of ``additions``."""
    return [Settle(each, additions.batch(at)) for at, each in enumerate(additions.addresses)]


@contextlib.contextmanager
def beforehand() -> Iterator[None]:
    """What is prepared before a change is no part of it: the change itself was not sent."""
    try:
        yield
    except Ambiguous as error:
        raise error.cause from error


def patiently(question: Callable[[], T], timeout: float | None) -> T:
    """What ``question`` answers, asked again while that may help, for ``timeout`` seconds.

    For listings and the like, which no plan is behind, and which change
    nothing that could count double.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    attempt = 0
    while True:
        try:
            return question()
        except Ambiguous as error:
            trouble: StoreError = error.cause
        except PASSING as error:
            trouble = error
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise trouble
        rest = backoff.seconds(attempt)
        time.sleep(rest if left is None else min(rest, left))
        attempt += 1
