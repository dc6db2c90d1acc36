"""Every error that truecount raises, as one tree.

::

    CounterError
    ├ OutOfSyncError(ValueError)           another writer was first; nothing was applied
    ├ OutcomeUnknownError                  sent, and nobody could say in time what became of it
    ├ BoundsError(OverflowError)           outside minimum, maximum or 500 digits
    ├ BoundsMismatchError                  bounds given that are not the stored ones
    ├ KeyReusedError                       an idempotency key repeated with another change
    ├ DamagedRecordError                   a stored record that truecount did not write
    ├ CounterNotFoundError(KeyError)       no such counter, or deleted
    ├ ReceiptNotFoundError(KeyError)       no receipt under that key
    ├ InvalidNameError(ValueError)         a name or key that no store can hold
    ├ InvalidTypeError(TypeError)          an argument of a type that cannot be meant
    └ StoreError
      ├ StoreUnavailableError(ConnectionError)
      ├ StoreTimeoutError(TimeoutError)
      ├ StoreFullError(OSError)
      ├ StoreClosedError
      ├ StoreURLError(ValueError)
      └ MissingDriverError(ImportError)

Every error but `OutcomeUnknownError`, raised by a change, means: it was not
applied, never will be, and is safe to repeat.

`StoreWarning`, a UserWarning, is no error: it says, once, that a server is set
up so that it may lose what it has acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from truecount.change import Receipt

__all__ = [
    "BoundsError",
    "BoundsMismatchError",
    "CounterError",
    "CounterNotFoundError",
    "DamagedRecordError",
    "InvalidNameError",
    "InvalidTypeError",
    "KeyReusedError",
    "MissingDriverError",
    "OutOfSyncError",
    "OutcomeUnknownError",
    "ReceiptNotFoundError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreTimeoutError",
    "StoreURLError",
    "StoreUnavailableError",
    "StoreWarning",
]


class CounterError(Exception):
    """The root of the tree: catch it to catch all that truecount raises.

    One positional message; what else an error knows is in attributes, which
    are keywords of the constructor and survive pickling.
    """

    extras: ClassVar[tuple[str, ...]] = ()

    receipts: dict[str, Receipt] | None = None
    """What `Domain.add` had applied when this was raised, by name; else None."""

    failures: dict[str, CounterError] | None = None
    """The errors of what `Domain.add` did not get applied, this one too, by name; else None."""

    def __init__(self, message: str = "", /, **known: Any) -> None:
        super().__init__(message)
        for name in self.extras:
            setattr(self, name, known.pop(name, None))
        if known:
            raise TypeError(f"{type(self).__name__} has no {', '.join(known)}")

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0]) if self.args else ""

    def copy(self) -> Self:
        """The same error, to be raised in another thread."""
        return type(self)(*self.args, **{name: getattr(self, name) for name in self.extras})

    def __reduce__(self) -> tuple[Any, ...]:
        known = {name: getattr(self, name) for name in self.extras}
        state = {"receipts": self.receipts, "failures": self.failures}
        return _rebuild, (type(self), self.args, known), None if self.receipts is None else state


def _rebuild(kind: type[CounterError], args: tuple[str], known: dict[str, Any]) -> CounterError:
    return kind(*args, **known)


class OutOfSyncError(CounterError, ValueError):
    """Another writer moved the counter after this object last saw it.

    Nothing was applied. The object shows the newest value now, so the same
    statement can be tried again. ``expected`` is the value that the object
    had shown (int), ``actual`` the true one (int).
    """

    extras = ("expected", "actual")
    expected: int
    actual: int


class Unsettled(Protocol):
    """What an `OutcomeUnknownError` needs to find out the truth later."""

    def retry(self, timeout: float | None) -> Receipt: ...
    def cancel(self, timeout: float | None) -> bool: ...


class OutcomeUnknownError(CounterError):
    """The change was sent, and its outcome could not be learnt in time.

    It may have been applied, may still be, or may never be. `retry` and
    `cancel` settle it, here or, as the error pickles, in another process.
    Deliberately no `ConnectionError`: a blind repeat would count twice.
    """

    extras = ("unsettled",)
    unsettled: Unsettled

    def retry(self, timeout: float | None = 10.0) -> Receipt:
        """Go on with the very same change until it is known, in seconds ``timeout``.

        Returns its `Receipt`: it has been applied exactly once, however often
        and by however many processes this is called. Raises what the change
        itself would have raised when it was refused, `CounterError` when it
        was cancelled meanwhile, and `OutcomeUnknownError` when the truth
        still cannot be had (for ever, once the store has forgotten the
        writer).
        """
        return self.unsettled.retry(timeout)

    def cancel(self, timeout: float | None = 10.0) -> bool:
        """Make sure that the change is not applied from now on.

        Returns True when it never was applied and now never will be, False
        when it already is. Raises `OutcomeUnknownError` as `retry` does.

        Changes of one process that travelled together have one fate: who
        cancels one of them before it is applied cancels them all, and the
        others' callers are told by a `CounterError` that theirs was not applied.
        """
        return self.unsettled.cancel(timeout)


class BoundsError(CounterError, OverflowError):
    """The result would leave the counter's bounds, or 500 decimal digits.

    ``value`` is the counter's value (int or None when it was not looked up),
    ``minimum`` and ``maximum`` the bounds that refused (int or None).
    """

    extras = ("value", "minimum", "maximum")
    value: int | None
    minimum: int | None
    maximum: int | None


class BoundsMismatchError(CounterError):
    """``minimum=`` or ``maximum=`` differ from those that the counter has.

    Change them with `Counter.limit`, or leave them out to take the stored
    ones, which are in ``minimum`` and ``maximum``.
    """

    extras = ("minimum", "maximum")
    minimum: int | None
    maximum: int | None


class KeyReusedError(CounterError):
    """The idempotency key ``key`` belongs to another change of this counter."""

    extras = ("key",)
    key: str


class DamagedRecordError(CounterError):
    """The stored record is not one that truecount wrote; it was left alone."""


class CounterNotFoundError(CounterError, KeyError):
    """The counter does not exist, or was deleted."""


class ReceiptNotFoundError(CounterError, KeyError):
    """No change with this idempotency key was applied, or it is forgotten."""


class InvalidNameError(CounterError, ValueError):
    """A domain, name or key that not every store can hold."""


class InvalidTypeError(CounterError, TypeError):
    """An argument has a type that cannot be meant."""


class StoreError(CounterError):
    """The store could not do what was asked, for a reason of its own."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store cannot be reached or opened."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The time allowed was over before the request was sent, or proved undone."""


class StoreFullError(StoreError, OSError):
    """The store has no room left for the write."""


class StoreClosedError(StoreError):
    """The store was closed; ``connect`` opens it again."""


class StoreURLError(StoreError, ValueError):
    """The store's URL cannot be understood."""


class MissingDriverError(StoreError, ImportError):
    """The store's driver is not installed; the message names the extra that brings it."""


class StoreWarning(UserWarning):
    """A server's setting, named in the message, by which acknowledged changes may be lost."""


for _name in __all__:  # where users import them from, and what tracebacks say
    globals()[_name].__module__ = "truecount"
