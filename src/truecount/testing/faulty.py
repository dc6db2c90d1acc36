"""A store that networks befall, around any other store, in the same process."""

from __future__ import annotations

import collections
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from truecount.change import Answer, Batch, Change, Create
from truecount.errors import CounterError, StoreUnavailableError
from truecount.record import Address, Record
from truecount.steps import Read, Replace, Settle, StoreStep
from truecount.stores.base import Ambiguous, Deadline, Store
from truecount.testing.weather import FAIR, KINDS, Weather, check_told, check_weather

__all__ = ["SUFFERED", "ComparingStore", "FaultyStore"]

SUFFERED: Final = ("cut_before", "cut_after", "delay", "late", "refuse")
"""The kinds of faults that need no connection."""

_SOON: Final = 5
"""By how many requests one that the weather made late is overtaken at most."""

_DOWN: Final = "down"


class FaultyStore(Store):
    """Passes requests on to ``store``, and has happen to them what it is told to, or what is drawn.

    ``counter = Counter("shop", "stock", store=FaultyStore(connect(url)))``. What
    is told (`lose_replies` and its kin) is for the next writes, in order, and
    only for writes. ``weather`` decides about every other request; it is a
    `truecount.testing.weather.Weather` of the kinds ``cut_before``, ``cut_after``,
    ``delay``, ``late`` and ``refuse``, and may be set and changed at any time.
    Raises `ValueError` when it has others, which take a connection that can be
    torn: a `Proxy` does those, and `TypeError` when it is none, or ``store`` is none. What the
    weather made late is carried out by itself, up to 5 requests later.

    ``writes`` counts the requests to write that came so far, `held` those that
    wait to be carried out, and `tally` what befell them, by kind.
    """

    def __init__(self, store: Store, weather: Weather | None = None) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"a FaultyStore is around a store, as connect(url) gives it: {store!r}")
        self.store = store
        self.url = store.url
        self.timeout = store.timeout
        self.key_ttl = store.key_ttl
        self.home = store.home
        self.writers = store.writers
        self.batch_limit = store.batch_limit
        self.key_limit = store.key_limit
        self.always_fence = store.always_fence
        self.moving_proves = store.moving_proves
        self.carries = store.carries
        self.writes = 0
        self.down = False  # refuse everything
        self.weather = weather
        self._fates: deque[str | CounterError] = deque()
        self._late: list[_Late] = []
        self._tally: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    @property
    def weather(self) -> Weather | None:
        """What decides about the requests for which nothing was told; None: all goes well."""
        return self._weather

    @weather.setter
    def weather(self, weather: Weather | None) -> None:
        check_weather(weather)
        if weather is not None and not weather.chances.keys() <= set(SUFFERED):
            others = ", ".join(kind for kind in KINDS if kind not in SUFFERED)
            raise ValueError(f"a FaultyStore has no connections: {others} are for a Proxy")
        self._weather = weather

    @property
    def held(self) -> int:
        """How many requests wait to be carried out."""
        return len(self._late)

    @property
    def tally(self) -> dict[str, int]:
        """How many faults there were so far, by kind: those above, and ``hold``.

        What is told counts as what is drawn: a lost request as ``cut_before``, a
        lost reply as ``cut_after``, a refusal of any kind as ``refuse``. ``late``
        counts when it was carried out.
        """
        with self._lock:
            return dict(self._tally)

    # What is told beforehand

    def serve(self, count: int = 1) -> None:
        """Pass the next ``count`` writes on, before what is told after this."""
        self._fates.extend([FAIR] * check_told(count))

    def lose_replies(self, count: int) -> None:
        """Apply the next ``count`` writes, and lose the reply."""
        self._fates.extend(["cut_after"] * check_told(count))

    def lose_requests(self, count: int) -> None:
        """Lose the next ``count`` writes, which nobody can tell from a lost reply."""
        self._fates.extend(["cut_before"] * check_told(count))

    def hold(self, count: int = 1) -> None:
        """Lose the next ``count`` writes, until `release` carries them out after all."""
        self._fates.extend(["hold"] * check_told(count))

    def refuse(self, error: CounterError) -> None:
        """Refuse the next write with ``error``, before it acts.

        Raises `TypeError` where that is no `CounterError`, which is all that a store raises.
        """
        if not isinstance(error, CounterError):
            raise TypeError(f"a store refuses with a CounterError, and not with {error!r}")
        self._fates.append(error)

    def go_down(self) -> None:
        """Refuse every request after those for which something else was told; `mend` ends it."""
        self._fates.append(_DOWN)

    def mend(self) -> None:
        """Good weather, and nothing told: lose, hold and refuse nothing more.

        What is late stays so until `release`, or its turn.
        """
        self.weather = None
        with self._lock:
            self.down = False
            self._fates.clear()

    def release(self) -> int:
        """Carry out what is late, one after the other: how many the store has answered."""
        with self._lock:
            late, self._late = self._late, []
        return self._deliver(late)

    # The store

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        record: Record | None = self._request(Read(address, keys), timeout)
        return record

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool | Record:
        done: bool | Record = self._request(Replace(address, old, new), timeout)
        return done

    def settles(self, change: Change) -> bool:
        """As the store does; but what comes late is not for every engine to decide.

        An embedded store knows of no late requests, so that it settles what is
        safe without them only.
        """
        return change.key is None and type(change) is not Create and self.store.settles(change)

    def settle(self, address: Address, batch: Batch, *, timeout: float | None) -> Answer:
        answer: Answer = self._request(Settle(address, batch), timeout)
        return answer

    def together(self, steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        return [self.outcome(step, timeout) for step in steps]  # each has its fate, in order

    def names(self, domain: str) -> Iterator[str]:
        self._check()
        return self.store.names(domain)

    def domains(self) -> Iterator[str]:
        self._check()
        return self.store.domains()

    def purge(self, before: int) -> int:
        self._check()
        return self.store.purge(before)

    def close(self) -> None:
        self.store.close()

    def _request(self, step: StoreStep, timeout: float | None) -> Any:
        """What comes of ``step``, in the end."""
        deadline = Deadline(timeout)
        self._deliver(self._overtaken())
        kind, seconds, turns = self._befalls(step)
        if kind != "late":
            self._count(kind)
        if kind == "refuse":
            raise StoreUnavailableError("the store is not available just now")
        if kind == "delay":
            time.sleep(seconds if timeout is None else min(seconds, timeout))
        if kind in (FAIR, "delay"):
            return self.store.carry_out(step, deadline.left())
        if kind == "cut_after":
            self.store.carry_out(step, deadline.left())
        elif kind in ("late", "hold"):
            with self._lock:
                self._late.append(_Late(step, turns if kind == "late" else None))
        raise Ambiguous(StoreUnavailableError("the reply was lost"))

    def _befalls(self, step: StoreStep) -> tuple[str, float, int]:
        """What befalls ``step``: the kind, for how many seconds, or by how many turns."""
        told = self._check(write=not isinstance(step, Read))
        if told is not None:
            return told, 0.0, 0
        weather = self.weather
        if weather is None or (drawn := weather.draw(step)) is None:
            return FAIR, 0.0, 0
        return drawn.kind, drawn.seconds, drawn.dice.randint(1, _SOON)

    def _check(self, *, write: bool = False) -> str | None:
        """What was told for this request, which takes it, so that it befalls no other."""
        with self._lock:
            told: str | CounterError | None = None
            if self._fates and self._fates[0] == _DOWN:
                self.down = True
            if self.down:
                told = StoreUnavailableError("the store is down")
            elif write:
                self.writes += 1
                told = self._fates.popleft() if self._fates else None
            if isinstance(told, CounterError):
                self._tally["refuse"] += 1
                raise told
            return told

    def _overtaken(self) -> list[_Late]:
        """What the weather made late, and was overtaken often enough."""
        if not self._late:
            return []
        with self._lock:
            waiting = [late.overtaken() for late in self._late]
            self._late = [late for late in waiting if late.turns != 0]
        return [late for late in waiting if late.turns == 0]

    def _deliver(self, late: Sequence[_Late]) -> int:
        """Carry out what is ``late``; nobody waits for the answers."""
        answered = 0
        for step, turns in late:
            if isinstance(self.store.outcome(step, self.timeout), (CounterError, Ambiguous)):
                continue
            answered += 1
            if turns is not None:
                self._count("late")
        return answered

    def _count(self, kind: str) -> None:
        if kind != FAIR:
            with self._lock:
                self._tally[kind] += 1


class _Late(NamedTuple):
    """A step that is carried out after so many ``turns``; None: by `release` only."""

    step: StoreStep
    turns: int | None

    def overtaken(self) -> _Late:
        return self if self.turns is None else self._replace(turns=self.turns - 1)


class ComparingStore(FaultyStore):
    """The same, with a store that settles nothing by itself: it compares and sets."""

    def settles(self, change: Change) -> bool:
        return False
