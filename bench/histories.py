"""Histories of a modelled counter, as long as wanted: what real runs write, but in no time.

The model keeps each counter's true state, and lets processes of several
clients call, be served in batches, lose replies, be killed, settle what is
unknown, and repeat keys. A seed makes a history, and the same seed makes it
again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from truecount.testing.history import FORMAT, HEADER, SUFFIX

__all__ = ["ALL", "CERTAIN", "Mix", "write_history"]

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

EPOCH: Final = 1_700_000_000_000_000
FLUSH: Final = 20_000


class Mix:
    """How often what is asked for, and goes wrong."""

    def __init__(self, **weights: float) -> None:
        self.lost = weights.pop("lost", 0.02)  # calls of unknown outcome
        self.killed = weights.pop("killed", 0.001)
        self.late = weights.pop("late", 0.02)  # replies that show a later state
        self.ops = list(weights)
        self.weights = list(weights.values())


ALL: Final = Mix(
    add=40,
    keyed=8,
    assign=10,
    compare_and_set=5,
    set=3,
    update=5,
    reserve=5,
    many=3,
    limit=2,
    delete=1,
    refresh=8,
    receipt=2,
    settle=6,
)

CERTAIN: Final = Mix(
    add=50,
    keyed=5,
    assign=10,
    compare_and_set=10,
    set=5,
    update=5,
    reserve=5,
    refresh=10,
    lost=0,
    killed=0,
    late=0,
)
"""Nothing is unknown, and nothing hidden: whatever is not so can be told."""


class State:
    """A counter, as it truly is."""

    __slots__ = ("bounds", "domain", "keys", "name", "revision", "time", "value")

    def __init__(self, domain: str, name: str) -> None:
        self.domain = domain
        self.name = name
        self.value: int | None = None
        self.revision = EPOCH
        self.time = EPOCH
        self.bounds: tuple[int | None, int | None] = (None, None)
        self.keys: dict[str, tuple[str, list[Any]]] = {}

    @property
    def view(self) -> list[Any] | None:
        """What a handle shows of it."""
        if self.value is None:
            return None
        return [self.revision, self.value, self.time, *self.bounds]

    def holds(self, value: int) -> bool:
        """Whether the bounds allow ``value``."""
        low, high = self.bounds
        return (low is None or value >= low) and (high is None or value <= high)


class Asked:
    """A call on its way. ``came`` is what the store has answered, None as long as it has not."""

    __slots__ = ("came", "fate", "line", "number", "op", "process", "state", "unknown", "view")

    def __init__(self, process: Process, op: str, state: State, line: dict[str, Any]) -> None:
        self.process = process
        self.op = op
        self.state = state
        self.line = line
        self.number: int = line["call"]
        self.came: dict[str, Any] | None = None
        self.view: list[Any] | None = None
        self.unknown = False
        self.fate: Asked | None = None  # which call it settles


class Process:
    """A process, its file, and its clients: what each waits for."""

    def __init__(self, path: Path, number: int, clients: int) -> None:
        self.name = f"process{number}"
        self.path = path / f"{number}{SUFFIX}"
        self.calls = 0
        self.clients: list[Asked | None] = [None] * clients
        self.shown: dict[State, list[Any]] = {}
        self.lines = [_encode({HEADER: FORMAT, "process": self.name, "pid": number})]
        self.path.touch()

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to its file."""
        self.lines.append(_encode(line))
        if len(self.lines) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join([f"{line}\n" for line in self.lines]))
        self.lines.clear()


class World:
    """Counters, and the processes that share them."""

    def __init__(
        self, folder: Path, seed: int, counters: int, processes: int, clients: int, mix: Mix
    ) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.mix = mix
        self.now = 1_000_000_000
        self.lines = 0
        self.states = [State("mydomain", f"counter{n}") for n in range(counters)]
        self.processes = [Process(folder, n, clients) for n in range(processes)]
        self.born = processes
        self.unknown: list[Asked] = []  # that somebody may settle
        self.adrift: list[Asked] = []  # that may yet be applied
        self.amount = 0
        self.keys = 0

    def tick(self) -> int:
        """The next instant."""
        self.now += self.rng.randint(100, 20_000)
        return self.now

    def distinct(self) -> int:
        """An amount that nobody else adds."""
        self.amount += 1
        return (self.amount * 2_654_435_761 % (1 << 32) << 8) + 1

    # Calls

    def ask(self, process: Process, client: int, state: State, op: str, **more: object) -> Asked:
        """Begin a call; ``more`` goes into its line."""
        rng = self.rng
        line: dict[str, Any] = {"t": self.tick(), "call": process.calls + 1, "op": op}
        line["at"] = [state.domain, state.name]
        shown = process.shown.get(state)
        asked = Asked(process, op, state, line)
        sign = 1 if rng.random() < 0.6 else -1
        match op:
            case "open":
                line |= {"initial": rng.choice([0, 0, 7]), "create": True}
            case "add":
                line["n"] = self.distinct() * sign
            case "keyed":
                line["op"] = asked.op = "add"
                if self.keys and rng.random() < 0.4:
                    number = rng.randint(max(1, self.keys - 50), self.keys)
                else:
                    number = self.keys = self.keys + 1
                line["n"] = number * 1_000_003 if rng.random() < 0.97 else number
                line["key"] = f"key{number}"
            case "many":
                line["op"] = asked.op = "add"
                line |= {"n": self.distinct() * sign, "create": True}
            case "assign" | "compare_and_set":
                expected = state.value or 0
                if shown is not None and rng.random() < 0.6:
                    expected = shown[1]
                line |= {"expected": expected, "new": expected + self.distinct() * sign}
            case "set":
                line["value"] = self.distinct() * sign
            case "reserve":
                line["n"] = self.distinct() >> 20 or 1
            case "limit":
                side = rng.choice(["minimum", "maximum"])
                bound = (1 << 44) + self.distinct()
                line[side] = None if rng.random() < 0.5 else -bound if side == "minimum" else bound
            case "receipt":
                line["key"] = f"key{rng.randint(max(1, self.keys - 50), self.keys + 1)}"
        line |= more
        process.calls += 1
        process.clients[client] = asked
        process.write(line)
        self.lines += 1
        if op == "update":
            self.attempt(asked)
        return asked

    def attempt(self, asked: Asked) -> None:
        """An update is about to try."""
        expected = asked.state.value or 0
        tried = {"try": asked.number, "expected": expected, "new": expected + self.distinct()}
        asked.line["tried"] = tried
        asked.process.write({"t": self.tick(), **tried})
        self.lines += 1

    def serve(self, state: State, batch: list[Asked]) -> None:
        """Apply what is asked for, in one write if there is something to write."""
        revision = state.revision + 1
        time = max(state.time, EPOCH + self.now // 1000)
        outcomes = []
        written = False
        for asked in batch:
            came, applied = self.outcome(asked, state, revision, time)
            outcomes.append(came)
            written = written or applied
        doubtful = any(asked.unknown for asked in batch) or self.rng.random() < 0.02
        if written or (doubtful and batch[0].op not in ("open", *_LOOKS)):
            state.revision, state.time = revision, time
        view = state.view
        for asked, came in zip(batch, outcomes, strict=True):
            asked.came = came
            asked.view = view
            if came is None:
                self.attempt(asked)

    def outcome(
        self, asked: Asked, state: State, revision: int, time: int
    ) -> tuple[dict[str, Any] | None, bool]:
        """What becomes of a call now, and whether it changes the counter; None: it tries again."""
        line = asked.line
        value = state.value
        op = asked.op
        key = line.get("key")
        if op == "receipt":
            if key in state.keys:
                return {"receipt": [*state.keys[key][1], True]}, False
            error = "ReceiptNotFoundError" if value is not None else "CounterNotFoundError"
            return {"error": error}, False
        if op == "open" and value is None:
            state.value, state.bounds = line["initial"], (None, None)
            return {}, True
        if key is not None and key in state.keys:
            text, known = state.keys[key]
            if text == f"add {line['n']}":
                return {"receipt": [*known, True]}, False
            return {"error": "KeyReusedError", "key": key}, False
        if value is None:
            return {"error": "CounterNotFoundError"}, False
        if op in ("open", "refresh"):
            return {}, False
        if op == "delete":
            state.value = None
            return {}, True
        if op == "limit":
            bounds = (line.get("minimum", state.bounds[0]), line.get("maximum", state.bounds[1]))
            kept, state.bounds = state.bounds, bounds
            if state.holds(value):
                return {}, True
            state.bounds = kept
            return _outside(value, kept), False
        if op in ("add", "reserve"):
            after = value + line["n"]
        elif op == "set":
            after = line["value"]
        else:
            wanted = line["tried"] if op == "update" else line
            if wanted["expected"] != value:
                if op == "update" and not asked.unknown:
                    return None, False
                if op == "compare_and_set":
                    return {"done": False}, False
                moved = {"error": "OutOfSyncError", "expected": wanted["expected"]}
                return {**moved, "actual": value}, False
            after = wanted["new"]
        if not state.holds(after):
            return _outside(value, state.bounds), False
        state.value = after
        receipt = [value, after, revision, time]
        if key is not None:
            state.keys[key] = f"add {line['n']}", receipt
        if op == "assign":
            return {"edge": receipt}, True
        if op == "compare_and_set":
            return {"done": True, "edge": receipt}, True
        if op == "reserve":
            return {"receipt": [value, after, None, None, False], "edge": receipt}, True
        return {"receipt": [*receipt, False]}, True

    def settle(self, asked: Asked) -> None:
        """Answer a retry or a cancellation."""
        of = asked.fate
        assert of is not None
        state = of.state
        if asked.op == "retry":
            while of.came is None:
                self.serve(state, [of])
            came = {k: v for k, v in of.came.items() if k in ("receipt", "error", "key", *_FACTS)}
            edge = of.came.get("edge")
            if edge is not None:
                came = {"receipt": [*edge, False]}
            if of.came.get("done") is False:
                came = {"error": "OutOfSyncError", "expected": of.line["expected"]}
            asked.came = came
            return
        if of.came is None:
            of.came = {"error": "CounterError"}
            state.revision += 1
            asked.came = {"done": True}
        else:
            applied = "error" not in of.came and of.came.get("done") is not False
            asked.came = {"done": not applied}

    def finish(self, asked: Asked) -> None:
        """End a call: it is told what came, or that nobody knows."""
        process = asked.process
        came = asked.came
        line: dict[str, Any] = {"t": self.tick(), "ret": asked.number}
        if came is None or (asked.op not in _LOOKS and self.rng.random() < self.mix.lost):
            asked.unknown = True
            line["unknown"] = "OutcomeUnknownError"
            if asked.fate is None:
                self.unknown.append(asked)
                if came is None:
                    self.adrift.append(asked)
        else:
            line |= {name: fact for name, fact in came.items() if name != "edge"}
            view = asked.view
            if asked.op not in _LOOKS and self.rng.random() < self.mix.late:
                view = asked.state.view or view
            if view is not None and asked.fate is None:
                line["view"] = view
                process.shown[asked.state] = view
        process.clients[process.clients.index(asked)] = None
        process.write(line)
        self.lines += 1

    # The course of things

    def run(self, lines: int, progress: Callable[[float], object]) -> None:
        """Let things happen until so many lines are written, then settle all and look once more."""
        for state in self.states:
            asked = self.ask(self.processes[0], 0, state, "open", create=False)
            asked.came = {"error": "CounterNotFoundError"}
            asked.view = None
            asked.op = "refresh"
            self.finish(asked)
        rng = self.rng
        step = max(1, lines // 100)
        following = 0
        while self.lines < lines:
            self.happen(rng.choice(self.processes))
            if self.lines >= following:
                progress(self.lines / lines)
                following += step
        self.end()

    def happen(self, process: Process) -> None:
        """One thing happens in ``process``."""
        rng = self.rng
        client = rng.randrange(len(process.clients))
        asked = process.clients[client]
        if asked is None:
            self.begin(process, client)
        elif asked.came is not None:
            self.finish(asked)
        elif asked.fate is not None:
            self.settle(asked)
        elif rng.random() < self.mix.lost and asked.op not in _LOOKS:
            self.finish(asked)  # it is out of time
        else:
            self.take_off(asked)
        if self.adrift and rng.random() < 0.05:
            late = self.adrift.pop(rng.randrange(len(self.adrift)))
            if late.came is None and rng.random() < 0.5:
                self.serve(late.state, [late])
        if rng.random() < self.mix.killed:
            self.kill(process)

    def begin(self, process: Process, client: int) -> None:
        """A client calls."""
        rng = self.rng
        state = rng.choice(self.states)
        op = rng.choices(self.mix.ops, self.mix.weights)[0]
        if op == "settle":
            if not self.unknown:
                return
            of = self.unknown[rng.randrange(len(self.unknown))]
            if of.op == "open" or of.op in ("limit", "delete"):
                return
            op = rng.choice(["retry", "cancel"])
            name = [of.process.name, of.number]
            self.ask(process, client, of.state, op, of=name).fate = of
            return
        if state.value is None and rng.random() < 0.5:
            op = "open"
        self.ask(process, client, state, op)

    def take_off(self, asked: Asked) -> None:
        """Have a call served, with others of its process."""
        process, state = asked.process, asked.state
        if asked.op in _ALONE:
            self.serve(state, [asked])
            return
        if "create" in asked.line and state.value is None:
            state.value, state.bounds = 0, (None, None)
            state.revision += 1
        batch = [
            other
            for other in process.clients
            if other is not None
            and other.state is state
            and other.came is None
            and other.fate is None
            and other.op not in _ALONE
        ]
        self.serve(state, batch)

    def kill(self, process: Process) -> None:
        """End ``process`` as it stands, and start another one."""
        self.adrift += [
            asked
            for asked in process.clients
            if asked is not None and asked.came is None and asked.fate is None
        ]
        process.flush()
        at = self.processes.index(process)
        self.processes[at] = Process(self.folder, self.born, len(process.clients))
        self.born += 1

    def end(self) -> None:
        """Everybody is answered; what is unknown is settled; all counters are looked at."""
        for process in self.processes:
            for asked in [each for each in process.clients if each is not None]:
                while asked.came is None:
                    if asked.fate is not None:
                        self.settle(asked)
                    else:
                        self.take_off(asked)
                self.finish(asked)
        process = self.processes[0]
        for state in self.states:
            asked = self.ask(process, 0, state, "refresh")
            self.serve(state, [asked])
            self.finish(asked)
        for process in self.processes:
            process.flush()


_LOOKS: Final = ("refresh", "receipt")
_ALONE: Final = ("open", "limit", "delete", "refresh", "receipt")
_FACTS: Final = ("value", "minimum", "maximum", "expected", "actual")


def _outside(value: int, bounds: tuple[int | None, int | None]) -> dict[str, Any]:
    told: dict[str, Any] = {"error": "BoundsError", "value": value}
    told |= {
        name: bound
        for name, bound in zip(("minimum", "maximum"), bounds, strict=True)
        if bound is not None
    }
    return told


def write_history(
    folder: Path,
    lines: int,
    *,
    seed: int = 0,
    counters: int = 4,
    processes: int = 4,
    clients: int = 2,
    mix: Mix = ALL,
    progress: Callable[[float], object] = lambda share: None,
) -> None:
    """Write a history of about so many lines into ``folder``."""
    World(folder, seed, counters, processes, clients, mix).run(lines, progress)
