"""What is left of a change whose outcome is unknown: enough to settle it, anywhere."""

from __future__ import annotations

from typing import NamedTuple

from truecount.arguments import check_timeout
from truecount.change import Outcome, Receipt
from truecount.combine import Pending
from truecount.conclude import conclude, describe
from truecount.drive import run
from truecount.errors import OutcomeUnknownError
from truecount.plans import Ground, Sealed, Unknown, commit
from truecount.record import Address
from truecount.stores.base import Store

__all__ = ["Unsettled", "outcome_unknown"]


class Unsettled(NamedTuple):
    """Change ``position`` of a sealed batch, which may have been, or still be, applied."""

    store: Store
    address: Address
    sealed: Sealed
    position: int

    def retry(self, timeout: float | None) -> Receipt:
        """Go on with it until it is known; `OutcomeUnknownError.retry` tells the rest."""
        change = self.sealed.batch.changes[self.position]
        return conclude(self.address, change, self._commit(self.sealed.again(), timeout))

    def cancel(self, timeout: float | None) -> bool:
        """Fence it off; `OutcomeUnknownError.cancel` tells the rest."""
        outcome = self._commit(self.sealed.again(cancel=True), timeout)
        return not isinstance(outcome, Receipt)

    def _commit(self, sealed: Sealed, timeout: float | None) -> Outcome:
        store = self.store
        ground = Ground.of(store)
        engine = all(store.settles(change) for change in sealed.batch.changes)
        plan = commit(self.address, sealed, ground, engine=engine)
        try:
            answer, _ = run(plan, store, check_timeout(timeout))
        except Unknown as unknown:
            raise self.error(unknown.cause) from unknown.cause
        return answer.outcomes[self.position]

    def error(self, cause: Exception | None) -> OutcomeUnknownError:
        """The error that carries this to the caller."""
        change = self.sealed.batch.changes[self.position]
        return OutcomeUnknownError(
            f"nobody can tell whether the change ({describe(change)}) of counter "
            f"{self.address.name!r} in domain {self.address.domain!r} was applied"
            f"{f' ({cause})' if cause else ''}: retry() finishes it and cancel() rules it out. "
            "A change made with key= can simply be repeated",
            unsettled=self,
        )


def outcome_unknown(store: Store, address: Address, pending: Pending) -> OutcomeUnknownError:
    """The error for a caller whose time is over."""
    return Unsettled(store, address, pending.sealed, pending.index).error(pending.cause)
