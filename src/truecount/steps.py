"""What a plan can ask for. A driver carries it out and sends back the result.

=====================  =========================================  =====================
step                   what the driver does                       what it sends back
=====================  =========================================  =====================
``Read``               a consistent read                          ``Record | None``
``Replace``            write if the store still holds ``old``     ``bool | Record``
``Settle``             let the engine settle the batch itself     ``Answer``
``Gather``             wait a moment for the ticket to be called  None
``Pause``              wait a little, longer each time            None
``Queue``              wait for the turn to write, and keep it    ``Queued``
``Collect``            look what others would have written too    tuple of batches
``Wait``               wait until the ticket is called            None
=====================  =========================================  =====================

Into ``Read``, ``Replace`` and ``Settle`` a driver throws a `CounterError` when
the request was refused before it acted, and `Ambiguous` when nobody can tell.
Into ``Pause`` and ``Wait`` it throws `Expired` when the caller's time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from truecount.change import Answer, Batch
    from truecount.record import Address, Record

__all__ = [
    "Collect",
    "Expired",
    "Gather",
    "Pause",
    "Plan",
    "Queue",
    "Queued",
    "Read",
    "Replace",
    "Settle",
    "Step",
    "StoreStep",
    "Wait",
]


class Expired(Exception):
    """The caller's time is over."""


class Read(NamedTuple):
    """Have the record read, with what it remembers of ``keys``: a Record or None."""

    address: Address
    keys: tuple[str, ...] = ()


class Replace(NamedTuple):
    """Have ``old`` replaced by ``new`` if the store still holds it.

    True: it did. A record: it holds this one instead. False: it holds another, or none.
    """

    address: Address
    old: Record | None
    new: Record


class Settle(NamedTuple):
    """Have ``batch`` decided on where the record is: an Answer."""

    address: Address
    batch: Batch


class Pause(NamedTuple):
    """Let some time pass before the next attempt: None."""

    attempt: int  # how many attempts came before
    crowded: bool = False  # nothing is wrong but that others were first


class Queue(NamedTuple):
    """Wait until no other process of this machine writes there: a `Queued`.

    Meanwhile any of them may send ``batch`` along with its own, unless that is None. The turn
    ends with the plan. It spares attempts in vain, and no more: whoever does not have it may
    write all the same.
    """

    address: Address
    batch: Batch | None = None


class Queued(NamedTuple):
    """What became of waiting for the turn.

    ``moved``: whether others may have written meanwhile; ``left``: the record that they say
    they have left there. ``answer``: what became of the batch, where another process has sent
    it, and knows. ``doubt``: one may have sent it, or may still.
    """

    moved: bool
    left: Record | None = None
    answer: Answer | None = None
    doubt: bool = False


class Collect(NamedTuple):
    """See which batches other processes of this machine have for this counter: a tuple of them.

    They wait for this one, as far as it has the turn, and may have them sent in its `Replace`.
    """

    address: Address


class Ticket(Protocol):
    """Somebody who waits to be called."""

    def watch(self, wake: Callable[[], object]) -> bool:
        """Have ``wake`` called, once or more, from any thread; False: no need to wait."""
        ...


class Gather(NamedTuple):
    """Wait a moment at most until ``ticket`` calls, for threads that may be about to come: None."""

    ticket: Ticket


class Wait(NamedTuple):
    """Wait until ``ticket`` calls: None."""

    ticket: Ticket


StoreStep: TypeAlias = Read | Replace | Settle
"""What a store carries out."""

Step: TypeAlias = StoreStep | Collect | Gather | Pause | Queue | Wait

T = TypeVar("T")
Plan: TypeAlias = Generator[Step, Any, T]
"""A piece of the protocol: yields steps, is sent their results, returns a T."""
