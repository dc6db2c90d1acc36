"""A client of a soak, as a process of its own: ``python -m truecount.testing.soak.client ORDERS``.

It works until SIGTERM, or until it is killed. Sometimes it forks, and its
child goes on beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, Self

from truecount import (
    CounterError,
    CounterNotFoundError,
    Domain,
    OutcomeUnknownError,
    Store,
    connect,
)
from truecount.testing.faulty import ComparingStore, FaultyStore
from truecount.testing.history import RecordedCounter, Recorder
from truecount.testing.soak.load import DOMAIN, LOADS, Load, Stage
from truecount.testing.soak.naive import NAIVE, NAME
from truecount.testing.soak.unsolved import Unsolved
from truecount.testing.weather import Weather
from truecount.unsettled import Unsettled

__all__ = ["Client", "Hand", "Orders", "clock"]

LITTLE: Final = (0.02, 0.5)
"""How many seconds an impatient call has, where a request takes next to nothing."""

WATCH: Final = 0.1
"""Every so many seconds the weather in a process changes."""

STORMS: Final = 0.1
"""How often it is a storm then, whose faults are `WORSE` times as frequent."""

WORSE: Final = 60.0

SETTLING: Final = 0.03
"""How often, between two calls, an earlier one is settled whose outcome is unknown."""


class Orders(NamedTuple):
    """What a client is told. ``folder`` is the soak's, ``forks`` the chance that it forks.

    ``clock`` is what a right clock shows when ``CLOCK_MONOTONIC`` shows 0.
    ``patience``: so many times longer than `LITTLE` an impatient call waits.
    ``naive`` names a client that is not ours, ``without`` a remedy that ours
    goes without. ``weather`` is what it meets in its own process; ``compares``:
    its store settles nothing there, but compares and sets.
    """

    url: str
    folder: str
    seed: str
    clock: float
    load: str = "mixed"
    threads: int = 2
    keys: bool = True
    forks: float = 0.1
    patience: float = 1.0
    naive: str = ""
    without: str = ""
    weather: dict[str, Any] | None = None
    compares: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Orders that came as JSON."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """As JSON."""
        return json.dumps(self._asdict())


class Client:
    """What the threads of a client share."""

    def __init__(self, orders: Orders) -> None:
        folder = Path(orders.folder)
        self.orders = orders
        self.load: Load = LOADS[orders.load]
        self.recorder = Recorder(folder / "history")
        self.unsolved = Unsolved(folder / "unknown")
        self.over = threading.Event()
        self.failed = False
        self.parent = os.getppid()
        self.store: Store = connect(orders.url)
        self.faulty: FaultyStore | None = None
        if orders.weather is not None:
            kind = ComparingStore if orders.compares else FaultyStore
            self.store = self.faulty = kind(self.store)
            self._blow(Random(orders.seed))

    def run(self) -> int:
        """Work with all hands until told to end; the exit status."""
        self.recorder.note(clock=clock() - self.orders.clock)
        signal.signal(signal.SIGTERM, lambda *_: self.over.set())
        dice = Random(self.orders.seed)
        children = []
        if dice.random() < self.orders.forks:
            Hand(self, "parent").turn()  # the child is to find a line that was used
            if (child := os.fork()) == 0:
                self.parent = os.getppid()
                self._work("child")
                os._exit(self.failed)
            children.append(child)
        self._work("self")
        for child in children:
            if os.getppid() != self.parent:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            self.failed |= status != 0
        return int(self.failed)

    def _work(self, who: str) -> None:
        threads = [
            threading.Thread(target=Hand(self, f"{who}{number}").work)
            for number in range(self.orders.threads)
        ]
        dice = Random(f"{self.orders.seed} {who}")
        told = self.faulty.tally if self.faulty else {}
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(WATCH)
                told = self._tell(told)
                self._blow(dice)
        if self.faulty is not None:
            self.faulty.mend()
            self.faulty.release()
        self._tell(told)

    def _blow(self, dice: Random) -> None:
        """Change the weather in this process, if there is any: sometimes there is a storm."""
        chances = self.orders.weather
        if self.faulty is None or not chances:
            return
        if self.over.is_set():
            self.faulty.mend()  # or the last calls would end in it
            return
        if dice.random() < STORMS:
            worse = min(0.95 / sum(chances.values()), WORSE)
            chances = {kind: chance * worse for kind, chance in chances.items()}
        self.faulty.weather = Weather(dice.getrandbits(64), **chances)

    def _tell(self, told: dict[str, int]) -> dict[str, int]:
        """Write down what befell the requests of this process since it was ``told`` last."""
        if self.faulty is None:
            return {}
        tally = self.faulty.tally
        if new := {kind: n - told.get(kind, 0) for kind, n in tally.items() if n != told.get(kind)}:
            self.recorder.note(faults=new)
        return tally

    def little(self, dice: Random) -> float:
        """How many seconds an impatient call has."""
        return dice.uniform(*LITTLE) * self.orders.patience

    def doubt(self, error: CounterError, dice: Random) -> None:
        """Settle what is unknown now, or leave it to others."""
        if not isinstance(error, OutcomeUnknownError):
            return
        name = self.recorder.name_of(error)
        if dice.random() < 0.4:
            settle = self.recorder.retry if dice.random() < 0.5 else self.recorder.cancel
            try:
                settle(error, timeout=self.little(dice))
                return
            except OutcomeUnknownError:
                pass
            except CounterError:
                return
        if isinstance(error.unsettled, Unsettled) and self.faulty is not None:
            plain = error.unsettled._replace(store=self.faulty.store)  # for other processes
            error = OutcomeUnknownError(str(error), unsettled=plain)
        self.unsolved.put(error, name)


class Hand:
    """A thread of a client. Its methods are the operations that `Stage.weights` names."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.recorder = client.recorder
        self.dice = Random(f"{client.orders.seed} {name}")
        self.counters: dict[str, RecordedCounter] = {}

    def work(self) -> None:
        """Do one thing after the other."""
        client = self.client
        try:
            while not client.over.is_set() and os.getppid() == client.parent:  # else it was killed
                if self.dice.random() < SETTLING:
                    time = client.little(self.dice)
                    client.unsolved.settle_one(self.recorder, self.dice, time)
                self.turn()
        except BaseException:  # whatever it is: the thread ends with it, and the client has failed
            client.failed = True
            client.over.set()
            raise

    def turn(self) -> None:
        """Do one thing."""
        stages = self.client.load.stages
        (stage,) = self.dice.choices(stages, [stage.share for stage in stages])
        (what,) = self.dice.choices([*stage.weights], [*stage.weights.values()])
        name = self.dice.choice(stage.names)
        try:
            if name not in self.counters:
                self._open(stage, name)
            getattr(self, what)(stage, self.counters[name])
        except CounterNotFoundError:
            if self.dice.random() < 0.3:
                self.counters.pop(name, None)  # and so it is created, the next time
        except CounterError as error:
            for each in (error.failures or {"": error}).values():
                self.client.doubt(each, self.dice)

    def _open(self, stage: Stage, name: str) -> None:
        bounds: dict[str, Any] = {}
        if stage.minimum is not None or stage.maximum is not None:
            bounds = {"minimum": stage.minimum, "maximum": stage.maximum}
        with contextlib.suppress(CounterNotFoundError):
            # Most know nothing of the bounds, which `limit` may have moved.
            self.counters[name] = self.recorder.open(
                DOMAIN, name, store=self.client.store, create=False
            )
            return
        self.counters[name] = self.recorder.open(
            DOMAIN, name, stage.initial + self._amount(stage), store=self.client.store, **bounds
        )

    # Operations

    def add(self, stage: Stage, c: RecordedCounter) -> None:
        c.add(self._amount(stage), **self._time())

    def step(self, stage: Stage, c: RecordedCounter) -> None:
        c += self._amount(stage)

    def update(self, stage: Stage, c: RecordedCounter) -> None:
        amount = self._amount(stage)
        c.update(lambda value: value + amount, **self._time())

    def swap(self, stage: Stage, c: RecordedCounter) -> None:
        expected = c.value
        c.compare_and_set(expected, expected + self._amount(stage), **self._time())

    def reserve(self, stage: Stage, c: RecordedCounter) -> None:
        c.reserve(self.dice.randint(1, stage.span), **self._time())

    def set(self, stage: Stage, c: RecordedCounter) -> None:
        c.set(stage.initial + self._amount(stage), **self._time())

    def keyed(self, stage: Stage, c: RecordedCounter) -> None:
        """Add under a key that other clients use too; seldom another amount."""
        if not self.client.orders.keys:
            self.add(stage, c)
            return
        key, amount = self._key(stage)
        if self.dice.random() < 0.03:
            amount += 1
        c.add(amount, key=key, **self._time())

    def receipt(self, stage: Stage, c: RecordedCounter) -> None:
        if self.client.orders.keys:
            c.receipt(self._key(stage)[0], **self._time())

    def look(self, stage: Stage, c: RecordedCounter) -> None:
        c.refresh(**self._time())

    def limit(self, stage: Stage, c: RecordedCounter) -> None:
        low, high = stage.minimum or 0, stage.maximum or 0
        room = high - low
        bounds: dict[str, Any] = {}
        if self.dice.random() < 0.7:
            bounds["minimum"] = low - self.dice.randint(0, room // 2)
        if self.dice.random() < 0.7 or not bounds:
            bounds["maximum"] = high + self.dice.randint(-(room // 4), room // 2)
        c.limit(**bounds, **self._time())

    def delete(self, stage: Stage, c: RecordedCounter) -> None:
        c.delete(**self._time())

    def open(self, stage: Stage, c: RecordedCounter) -> None:
        self._open(stage, c.counter.name)

    def several(self, stage: Stage, c: RecordedCounter) -> None:
        """Add to many counters at once."""
        names = {name for each in self.client.load.stages[:2] for name in each.names}
        some = self.dice.sample(sorted(names), min(len(names), 3))
        domain = Domain(DOMAIN, store=self.client.store)
        self.recorder.add(domain, {name: self._amount(stage) for name in some}, **self._time())

    # Dice

    def _amount(self, stage: Stage) -> int:
        return self.dice.randint(1, stage.span) * self.dice.choice((1, -1))

    def _time(self) -> dict[str, Any]:
        if self.dice.random() < self.client.load.impatience:
            return {"timeout": self.client.little(self.dice)}
        return {}

    def _key(self, stage: Stage) -> tuple[str, int]:
        """A key that is in use just now, and the amount that belongs to it."""
        number = (time.monotonic_ns() // 10**9, self.dice.randrange(self.client.load.keys))
        amount = Random(f"{stage.name} {number}").randint(1, stage.span)
        return f"key-{number[0]}-{number[1]}", amount


def clock() -> float:
    """What this process's clock shows when ``CLOCK_MONOTONIC``, which all share, shows 0."""
    return time.time() - time.monotonic()


class NaiveHand:
    """The only thread of a client that is not ours."""

    def __init__(self, orders: Orders) -> None:
        self.add, _ = NAIVE[orders.naive](orders.url)
        self.recorder = Recorder(Path(orders.folder) / "history")
        self.dice = Random(orders.seed)

    def work(self) -> None:
        """Add until killed, or whoever started it is, whatever happens."""
        parent = os.getppid()
        while os.getppid() == parent:
            n = self.dice.randint(1, 2**40)
            with contextlib.suppress(Exception), self.recorder.call("add", DOMAIN, NAME, n=n) as it:
                it.returned(self.add(n))


def _doze(seconds: float) -> None:
    """`time.sleep`, where libfaketime makes nonsense of the instant that it waits for."""
    select.select([], [], [], seconds)


def main() -> int:
    """Do what the command line says; the exit status."""
    if "FAKETIME" in os.environ:
        time.sleep = _doze  # type: ignore[assignment]  # ours sleep for floats only
    orders = Orders.read(sys.argv[1])
    if orders.naive:
        NaiveHand(orders).work()
        return 0
    if not orders.without:
        return Client(orders).run()
    from truecount.testing.soak.switches import without  # which imports the simulation

    with without(orders.without):
        return Client(orders).run()


if __name__ == "__main__":
    sys.exit(main())
