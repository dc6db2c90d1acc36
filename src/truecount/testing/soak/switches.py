"""The protocol's remedies, switched off in a real process.

What the simulation replaces for a world (`truecount.testing.simulation.remedies`)
is replaced here for as long as a client runs. Where a remedy stands in what
only the simulation has, it is done again here, or left to the simulation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from truecount import combine
from truecount.arguments import check_timeout
from truecount.change import Batch, Receipt
from truecount.conclude import conclude
from truecount.drive import run
from truecount.plans import Ground, Sealed, Unknown, commit, look
from truecount.process import here, new_name
from truecount.sums import Sums, sums
from truecount.testing.simulation import REMEDIES, World
from truecount.unsettled import Unsettled

__all__ = ["switches", "without"]

Switch = tuple[Any, str, Any]
"""Where something is, its name there, and what takes its place."""


@contextmanager
def without(remedy: str) -> Iterator[None]:
    """Go without ``remedy``, one of `truecount.testing.simulation.REMEDIES`; "": with all."""
    with ExitStack() as stack:
        for place, name, replacement in switches(remedy) if remedy else ():
            stack.enter_context(mock.patch.object(place, name, replacement))
        yield


def switches(remedy: str) -> list[Switch]:
    """What stands for ``remedy`` in a real process, with what it is without.

    Empty where only the simulation can go without it.
    """
    if remedy in _OWN:
        return _OWN[remedy]()
    world = REMEDIES[remedy].world
    found: list[Switch] = []
    if hasattr(world, "replacements"):
        found += world.replacements(world.__new__(world))
    if world.line_class is not World.line_class:
        found.append((combine, "Line", world.line_class))
    return found


def _shared_name() -> list[Switch]:
    parent = here()
    return [(combine, "here", lambda: parent)]


def _only_totals() -> list[Switch]:
    def totals(batch: Batch) -> Sums | None:
        adds = sums(batch)
        return adds and adds._replace(lowest=adds.total, highest=adds.total)

    stores = ("truecount.stores.redis", "truecount.stores.postgresql")
    return [(importlib.import_module(store), "sums", totals) for store in stores]


def _cancel_by_looking() -> list[Switch]:
    def cancel(self: Unsettled, timeout: float | None) -> bool:
        batch = self.sealed.batch
        record = run(look(self.address, batch.keys), self.store, check_timeout(timeout))
        if record is not None and record.ledger.number(batch.writer) >= batch.number:
            return cancelling(self, timeout)
        return True

    cancelling = Unsettled.cancel
    return [(Unsettled, "cancel", cancel)]


def _fresh_retry() -> list[Switch]:
    def retry(self: Unsettled, timeout: float | None) -> Receipt:
        batch = self.sealed.batch._replace(writer=new_name())
        engine = all(map(self.store.settles, batch.changes))
        plan = commit(self.address, Sealed(batch), Ground.of(self.store), engine=engine)
        try:
            answer, _ = run(plan, self.store, check_timeout(timeout))
        except Unknown as unknown:
            raise self.error(unknown.cause) from unknown.cause
        outcome = answer.outcomes[self.position]
        return conclude(self.address, batch.changes[self.position], outcome)

    return [(Unsettled, "retry", retry)]


_OWN: Final[dict[str, Callable[[], list[Switch]]]] = {
    "fork": _shared_name,
    "running sums": _only_totals,
    "fencing cancel": _cancel_by_looking,
    "retry goes on": _fresh_retry,
}
