"""One seed's world: a store, a network, processes and their callers."""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from truecount.change import Add, Answer, Batch, Change, CompareAndSet, Create, Delete, Limit, Set
from truecount.combine import Line, Pending, Terms, attach, submit
from truecount.defaults import UNCHANGED
from truecount.errors import CounterError, StoreFullError, StoreUnavailableError
from truecount.plans import Ground, Sealed, Unknown, commit, look
from truecount.process import Writer, here
from truecount.record import Record
from truecount.settle import repeat
from truecount.steps import (
    Collect,
    Expired,
    Gather,
    Pause,
    Plan,
    Queue,
    Queued,
    Replace,
    Settle,
    Step,
    Wait,
)
from truecount.stores.base import Ambiguous
from truecount.testing.simulation.store import (
    ADDRESS,
    EMBEDDED,
    NOTHING,
    SUMS,
    WINDOW,
    SimulatedStore,
)
from truecount.testing.simulation.truth import GONE, Call, Truth, Violation

__all__ = ["Client", "Somebody", "Task", "World"]

SKEW: Final = 100  # microseconds that a process's clock may be wrong by, either way
BATCH: Final = 3  # changes in a batch


class Somebody(Writer):
    """A writer with names that a seed repeats."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        self.world = world
        super().__init__(here())
        self.rename()

    def rename(self) -> str:
        self.world.names += 1
        self.name = f"writer{self.world.names}"
        return self.name


class Client:
    """A process: its line, and what it last saw."""

    __slots__ = ("line", "tasks", "value")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.value: int | None = None
        self.tasks: dict[Task, None] = {}  # in the order of asking


class Letter:
    """A batch that another process may send, and what became of it."""

    __slots__ = ("answer", "awaited", "batch", "sent")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.awaited = True
        self.sent = False
        self.answer: Answer | None = None


class Task:
    """A caller in the middle of a call."""

    __slots__ = ("call", "client", "finish", "letters", "message", "plan", "posted", "sealed")

    def __init__(
        self, client: Client, plan: Plan[Any], call: Call, finish: Finish, sealed: Sealed | None
    ) -> None:
        self.client = client
        self.plan = plan
        self.call = call
        self.finish = finish
        self.sealed = sealed  # where that is not the one in the line's flight
        self.message: Message | None = None
        self.posted: Letter | None = None
        self.letters: list[Letter] = []  # that it has collected


Finish: TypeAlias = Callable[[Task, Any, BaseException | None], None]
"""What to do with a task's result, or with the error that ended it."""


class Message:
    """A step on its way to the store, and who waits for its result (None: nobody).

    It brings what the ``letters`` of others make of the record along with its own ``batch``;
    the ``first`` of these were not brought before.
    """

    __slots__ = ("batch", "first", "letters", "sent", "step", "task")

    def __init__(
        self,
        task: Task | None,
        step: Step | None,
        batch: Batch | None = None,
        letters: tuple[Letter, ...] = (),
        sent: int = 0,
    ) -> None:
        self.task = task
        self.step = step  # None: only to wake the task
        self.batch = batch
        self.letters = letters
        self.first = [letter for letter in letters if not letter.sent]
        self.sent = sent

    def again(self) -> Message:
        """The same, of which nobody waits for the result."""
        return Message(None, self.step, self.batch, self.letters, self.sent)


class World:
    """Everything that one seed makes. `run` lets it happen, and raises `Violation`."""

    # What a world may have or lack; remedies.py makes others.
    store_class: type[SimulatedStore] = SimulatedStore
    line_class: type[Line] = Line
    engines = (EMBEDDED, SUMS, NOTHING)
    restores = False  # backups are played back: only stamps are promised to help
    echoes = False  # requests that were answered may be delivered again
    always_fence = False
    odds_of_keys = 0.25
    odds_of_leaving = 0.02  # the line, in every tick
    odds_of_settling = 0.12  # what is unknown, instead of asking for more
    odds_of_trouble = 0.02  # in every tick, times the storm
    storms: tuple[float, ...] = (0.2, 0.6, 1.0)  # how bad the network may be

    def __init__(self, seed: int, calls: int = 40) -> None:
        dice = random.Random(seed)
        self.random = dice.random
        self.calls_left = calls
        self.truth = Truth()
        self.store = self.store_class(self.engines[seed % 3], self.truth, dice)
        self.store.backups = [] if self.restores else None
        storm = self.storms[int(dice.random() * len(self.storms))]
        network = 0.0 if self.store.engine == EMBEDDED else storm
        # Cumulative odds of what becomes of a request.
        self.odds_refused = 0.06 * storm
        self.odds_full = self.odds_refused + 0.02 * storm
        self.odds_lost = self.odds_full + 0.06 * storm
        self.odds_reply_lost = self.odds_lost + 0.12 * storm
        self.odds_late = self.odds_reply_lost + 0.12 * network
        self.odds_misdirected = self.odds_late + 0.02 * network
        self.odds_of_trouble *= storm
        self.names = 0
        self.unsettled: list[tuple[Call, Sealed, int]] = []
        self.pool: list[Message] = []  # on their way
        self.held: list[Message] = []  # held up for long
        self.waiting: list[Task] = []  # in line
        self.letters: list[Letter] = []  # that lie there to be collected
        self.left: Record | None = None  # by who wrote last
        self.latest_answer: Answer | None = None
        self.tally: Tally[str] = Tally()
        self.clients = [self.new_client() for _ in range(2 + int(dice.random() * 3))]

    def run(self) -> Tally[str]:
        """Let it happen, and return how often what happened. Raises `Violation`."""
        pool = self.pool
        store = self.store
        chance = self.random
        while True:
            store.tick += 1
            if chance() < self.odds_of_trouble:
                self.make_trouble()
            if self.waiting and chance() < self.odds_of_leaving:
                self.expire(self.waiting[int(chance() * len(self.waiting))])
            if store.record is not None and store.record.deleted and chance() < 0.05:
                self.purge()
            if self.calls_left and (not pool or chance() < 0.35):
                self.calls_left -= 1
                self.start(self.clients[int(chance() * len(self.clients))])
            elif pool:
                index = int(chance() * len(pool))
                message = pool[index]
                pool[index] = pool[-1]
                pool.pop()
                self.arrive(message)
            elif self.waiting:
                self.expire(self.waiting[0])
            elif self.held:
                pool.append(self.held.pop())
            else:
                break
        self.truth.judge_at_the_end()
        return self.tally

    def new_client(self, writer: Writer | None = None) -> Client:
        """A process, with a clock of its own."""
        store = self.store
        skew = int((self.random() * 2 - 1) * SKEW)
        carries = store.engine != EMBEDDED
        ground = Ground(lambda: store.clock(skew), WINDOW, self.always_fence, carries=carries)
        # Where the engine settles, some processes still only compare and set.
        settles = store.settles if self.random() < 0.8 else _never
        writer = writer or Somebody(self)
        return Client(self.line_class(ADDRESS, Terms(writer, ground, settles, BATCH, BATCH)))

    # The network

    def arrive(self, message: Message) -> None:
        """Let a message meet its fate."""
        task, step = message.task, message.step
        if task is None:
            self.arrive_late(message)
            return
        task.message = None
        if step is None:
            self.advance(task, None)
            return
        chance = self.random()
        if type(step) is Pause:
            self.advance(task, None, Expired() if chance < 0.25 else None)
            return
        if type(step) is Queue:
            if task.posted in self.letters and chance < 0.7:
                self.pool.append(message)  # it is nobody's turn yet
                task.message = message
            else:
                self.advance(task, self.end_of_turn(task))
            return
        if type(step) is Collect:
            self.advance(task, self.collect(task))
            return
        self.tally["requests"] += 1
        if chance >= self.odds_misdirected:
            result = self.deliver(message)
            if self.echoes and self.store.engine != EMBEDDED and self.random() < 0.2:
                self.pool.append(message.again())
            if type(step) is Replace and result is True:
                self.answer(step.new, message.letters)
            elif type(step) is Replace:
                self.put_back(task, message.first)
            self.advance(task, result)
        elif chance < self.odds_full:
            self.tally["refused"] += 1
            self.put_back(task, message.first)
            error = StoreUnavailableError if chance < self.odds_refused else StoreFullError
            self.advance(task, None, error("refused"))
        elif chance < self.odds_lost:
            self.tally["requests lost"] += 1
            self.advance(task, None, _ambiguous())
        elif chance < self.odds_reply_lost:
            self.tally["replies lost"] += 1
            self.deliver(message)
            self.advance(task, None, _ambiguous())
        elif chance < self.odds_late:
            self.tally["requests late"] += 1
            self.pool.append(message.again())
            self.advance(task, None, _ambiguous())
        else:
            earlier = self.latest_answer
            result = self.deliver(message)
            if type(step) is Settle and earlier is not None:
                self.tally["answers misdirected"] += 1
                result = earlier
            self.advance(task, result)

    def arrive_late(self, message: Message) -> None:
        """Deliver what nobody waits for any more: now or later, once or more often."""
        if type(message.step) not in (Settle, Replace):
            return
        chance = self.random()
        if chance < 0.5:
            self.pool.append(message)
        elif chance < 0.6:
            self.held.append(message)
        else:
            self.tally["late deliveries"] += 1
            self.deliver(message)
            if chance < 0.7 and self.store.engine != EMBEDDED:
                self.pool.append(message)

    def deliver(self, message: Message) -> Any:
        """Have the store do what is asked for."""
        assert message.step is not None
        others = tuple([letter.batch for letter in message.letters])
        result = self.store.serve(message.step, message.batch, others, message.sent)
        if isinstance(result, Answer):
            self.latest_answer = result
        return result

    # The driver

    def begin(
        self,
        client: Client,
        plan: Plan[Any],
        call: Call,
        finish: Finish,
        sealed: Sealed | None = None,
    ) -> None:
        """Have a caller of ``client`` follow a plan."""
        task = Task(client, plan, call, finish, sealed)
        client.tasks[task] = None
        self.advance(task, None)

    def advance(self, task: Task, result: Any, problem: BaseException | None = None) -> None:
        """Go on with a task, up to its next step or its end."""
        plan = task.plan
        try:
            step = plan.send(result) if problem is None else plan.throw(problem)
        except StopIteration as stop:
            self.leave(task)
            task.finish(task, stop.value, None)
        except (CounterError, Pending, Unknown, KeyboardInterrupt) as error:
            self.leave(task)
            task.finish(task, None, error)
        else:
            if type(step) is Wait:
                if step.ticket.watch(lambda: self.wake(task)):
                    self.waiting.append(task)
                    return
                message = Message(task, None)
            elif type(step) is Gather:
                message = Message(task, None)
            else:
                if type(step) is Queue and step.batch is not None:
                    task.posted = Letter(step.batch)
                    self.letters.append(task.posted)
                sealed = task.sealed
                if sealed is None and task.client.line.flight is not None:
                    sealed = task.client.line.flight.sealed
                batch = None if sealed is None else sealed.batch
                letters: tuple[Letter, ...] = ()
                if type(step) is Replace and batch is not None:
                    letters = self.brought(task, step, batch)
                message = Message(task, step, batch, letters, self.store.tick)
                for letter in letters:
                    letter.sent = True
            task.message = message
            self.pool.append(message)

    # The machine's mail

    def end_of_turn(self, task: Task) -> Queued:
        """What a caller hears who has waited for the turn, in vain maybe."""
        moved = self.random() < 0.5
        left = self.left if self.random() < 0.5 else None
        letter = task.posted
        if letter is None or self.take_back(task):
            return Queued(moved, left)
        self.tally["in doubt" if letter.answer is None else "answered"] += 1
        return Queued(moved, left, letter.answer, doubt=letter.answer is None)

    def take_back(self, task: Task) -> bool:
        """Take back what a caller has posted; whether nobody had come for it."""
        letter, task.posted = task.posted, None
        if letter is None:
            return False
        letter.awaited = False
        there = letter in self.letters
        if there:
            self.letters.remove(letter)
        return there

    def collect(self, task: Task) -> tuple[Batch, ...]:
        """What lies there, or a part of it, and what this caller has collected before."""
        for letter in [each for each in self.letters if self.random() < 0.7]:
            self.letters.remove(letter)
            task.letters.append(letter)
        if self.random() < 0.05:
            task.letters.append(self.stranger())
        return tuple([letter.batch for letter in task.letters])

    def stranger(self) -> Letter:
        """A batch that is meant for another store, which goes by the same URL."""
        self.names += 1
        since = 0 if self.store.record is None else self.store.record.stamp.revision
        letter = Letter(Batch(f"writer{self.names}", 1, since, (Add(1),)))
        letter.awaited = False
        return letter

    def brought(self, task: Task, step: Replace, own: Batch) -> tuple[Letter, ...]:
        """The letters whose batches ``step`` brings along; they are not put back any more."""
        letters = []
        for letter in task.letters:
            writer, number = letter.batch[:2]
            assert step.old is not None  # nothing is sent along with a creation
            known = step.old.ledger.number(writer)
            # A retry may find itself there.
            if (writer, number) != own[:2] and known < number == step.new.ledger.number(writer):
                letters.append(letter)
        return tuple(letters)

    def answer(self, record: Record, letters: tuple[Letter, ...]) -> None:
        """Tell those whose batches were sent along what became of them."""
        self.left = record
        for letter in letters:
            about = record.ledger.about(letter.batch.writer)
            letter.answer = repeat(record._replace(ledger=about), letter.batch)

    def leave(self, task: Task) -> None:
        """A call is at its end: what it has collected and not sent is put back."""
        del task.client.tasks[task]
        self.take_back(task)
        self.put_back(task, [])

    def put_back(self, task: Task, refused: list[Letter]) -> None:
        """Put back what was not sent, or only with the request that was ``refused`` now."""
        for letter in refused:
            letter.sent = False
        unsent = [letter for letter in task.letters if not letter.sent]
        task.letters = [letter for letter in task.letters if letter.sent]
        self.letters += [letter for letter in unsent if letter.awaited]

    def wake(self, task: Task) -> None:
        """Call a caller who waits in line."""
        if task in self.waiting:
            self.waiting.remove(task)
            task.message = Message(task, None)
            self.pool.append(task.message)

    def expire(self, task: Task) -> None:
        """End a caller's time in line."""
        self.waiting.remove(task)
        self.advance(task, None, Expired())

    # Callers

    def start(self, client: Client) -> None:
        """Have a caller ask for something."""
        chance = self.random
        self.tally["calls"] += 1
        value = client.value
        if value is None:
            self.attach(client)
            return
        if self.unsettled and chance() < self.odds_of_settling:
            self.settle_earlier(client, int(chance() * len(self.unsettled)))
            return
        dice = chance()
        if dice < 0.5:
            self.submit(client, Add(int(chance() * 9) - 3 or 1, self.some_key()))
        elif dice < 0.68:
            self.submit(client, CompareAndSet(value, value + int(chance() * 7) - 3))
        elif dice < 0.76:
            self.submit(client, Set(int(chance() * 10), self.some_key()))
        elif dice < 0.86:
            low = None if chance() < 0.4 else int(chance() * 8) - 4
            high = None if chance() < 0.4 else int(chance() * 10) + 5
            self.submit(client, Limit(low, high if chance() < 0.7 else UNCHANGED))
        elif dice < 0.9:
            self.submit(client, Delete())
        elif dice < 0.95:
            self.begin(client, look(ADDRESS), self.truth.call(None), self.finish_look)
        else:
            self.attach(client)

    def some_key(self) -> str | None:
        """An idempotency key, often one that was used before."""
        return f"key{int(self.random() * 4)}" if self.random() < self.odds_of_keys else None

    def attach(self, client: Client) -> None:
        create = Create(int(self.random() * 5))
        call = self.truth.call(create)
        self.begin(client, attach(client.line, create), call, self.finish_attach)

    def submit(self, client: Client, change: Change) -> None:
        call = self.truth.call(change)
        self.begin(client, submit(client.line, change), call, self.finish_change)

    def settle_earlier(self, client: Client, index: int) -> None:
        """Settle a change that is unknown, from any process, maybe not for the last time."""
        call, sealed, position = self.unsettled[index]
        if self.random() < 0.3:
            del self.unsettled[index]
        cancel = self.random() < 0.5
        again = sealed.again(cancel=cancel)
        if cancel:
            self.tally["cancels"] += 1
            self.truth.cancels.add((sealed.batch.writer, sealed.batch.number))
            plan = self.cancel(client, again)
        else:
            self.tally["retries"] += 1
            plan = self.retry(client, again)

        def finish(task: Task, result: Any, error: BaseException | None) -> None:
            if error is None:
                self.truth.judge(call, result[0].outcomes[position])
            elif isinstance(error, CounterError):
                raise Violation(f"a definite error from settling what is shared: {error!r}")
            elif isinstance(error, Unknown):
                self.judge_unknown(call, error.sealed, error.cause)

        self.begin(client, plan, call, finish, again)

    def retry(self, client: Client, sealed: Sealed) -> Plan[Any]:
        engine = all(client.line.terms.settles(change) for change in sealed.batch.changes)
        return commit(ADDRESS, sealed, client.line.terms.ground, engine=engine)

    def cancel(self, client: Client, sealed: Sealed) -> Plan[Any]:
        return self.retry(client, sealed)

    # What becomes of the callers

    def finish_change(self, task: Task, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self.finish_badly(task.call, error)
            return
        outcome, view = result
        if view is not None:
            task.client.value = view.value
        self.truth.judge(task.call, outcome)

    def finish_attach(self, task: Task, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self.finish_badly(task.call, error)
            return
        if result is not None:
            task.client.value = result.value
            self.truth.judge_sight(task.call, (result.value, result.minimum, result.maximum))
        task.call.fate = "done" if task.call.applied else "denied"

    def finish_look(self, task: Task, result: Any, error: BaseException | None) -> None:
        if error is None:
            gone = result is None or result.deleted
            shown = GONE if gone else (result.value, result.minimum, result.maximum)
            self.truth.judge_sight(task.call, shown)

    def finish_badly(self, call: Call, error: BaseException) -> None:
        if isinstance(error, Pending):
            self.tally["unknown"] += 1
            call.fate = "unknown"
            self.judge_unknown(call, error.sealed, error.cause)
            self.unsettled.append((call, error.sealed, error.index))
        elif isinstance(error, CounterError):
            self.truth.judge_refusal(call, error)
        else:
            self.tally["interrupted"] += 1
            call.fate = "unknown"

    def judge_unknown(self, call: Call, sealed: Sealed, cause: CounterError | None) -> None:
        """Judge "it cannot be told any more": the record must have forgotten something."""
        record = self.store.record
        if cause is not None or record is None or self.store.purged or self.truth.lost:
            return
        if record.horizon <= sealed.batch.since:
            raise Violation(f"unknown, although nothing was forgotten: {call}")

    # Trouble

    def make_trouble(self) -> None:
        """Interrupt a caller, kill or fork a process, let go what was held, restore."""
        chance = self.random()
        client = self.clients[int(self.random() * len(self.clients))]
        if chance < 0.3:
            if client.tasks:
                self.interrupt(next(iter(client.tasks)))
        elif chance < 0.4:
            self.kill(client)
        elif chance < 0.5:
            self.fork(client)
        elif chance < 0.65:
            if self.held:
                self.pool.append(self.held.pop(int(self.random() * len(self.held))))
        elif self.restores:
            self.store.restore()

    def interrupt(self, task: Task) -> None:
        """Strike a caller with KeyboardInterrupt; its request goes on without it."""
        self.let_go(task)
        self.advance(task, None, KeyboardInterrupt())

    def kill(self, client: Client) -> None:
        """Kill a process, as with kill -9; its requests go on without it."""
        self.tally["kills"] += 1
        for task in client.tasks:
            self.let_go(task)
            if task.call.fate == "open":
                task.call.fate = "unknown"
        self.clients[self.clients.index(client)] = self.new_client()

    def let_go(self, task: Task) -> None:
        if task in self.waiting:
            self.waiting.remove(task)
        if task.message is not None:
            task.message.task = None
            task.message = None

    def fork(self, client: Client) -> None:
        """Make a process that goes on from where another one is."""
        self.tally["forks"] += 1
        child = self.new_client(self.child_of(client.line.terms.writer))
        child.value = client.value
        self.clients.append(child)

    def child_of(self, parent: Writer) -> Writer:
        return Somebody(self)

    def purge(self) -> None:
        """Purge, while no creation is under way that could come late."""
        for message in (*self.pool, *self.held):
            if message.batch is not None and type(message.batch.changes[0]) is Create:
                return
        if self.store.purge():
            self.tally["purges"] += 1


def _never(change: Change) -> bool:
    return False


def _ambiguous() -> Ambiguous:
    return Ambiguous(StoreUnavailableError("nobody knows"))
