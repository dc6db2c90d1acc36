"""Records that others have damaged: in every part, in every way, under every call.

Each store says what a record's parts are and how somebody else writes them;
what is done to them, what is called then and what must come of it is here. A
call is refused, in words that name the counter, and nothing stored has changed;
or it did not look at what is damaged, and has left it just so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar, NamedTuple, TypeAlias

import pytest

from helpers import there
from truecount import (
    Counter,
    CounterError,
    DamagedRecordError,
    Domain,
    OutOfSyncError,
    Store,
    connect,
)

DOMAIN = "hostile"

Parts: TypeAlias = dict[str, Any]
"""A record as another program sees it: the parts by name."""

NUMBERS = {
    "nothing": "",
    "a word": "many",
    "a fraction": "5.5",
    "a whole fraction": "5.0",
    "an exponent": "1e3",
    "hexadecimal": "0x10",
    "a sign": "+5",
    "a zero before": "05",
    "minus zero": "-0",
    "an underscore": "1_0",
    "a blank": " 5",
    "another alphabet's": "\N{ARABIC-INDIC DIGIT FIVE}",
    "infinite": "inf",
    "very long": "9" * 5000,
    "not text": b"\xff\xfe",
}
"""What may stand where truecount writes an integer, and is none of its."""

NEGATIVE = {"negative": "-5"}
"""Where it writes a revision or a time; a value may be."""

CODES = {"no code": "?", "capital": "A", "a digit": "1", "two, and one is none": "+?"}
"""Where it writes the codes of outcomes."""


class Damage(NamedTuple):
    """What somebody did to a record: to which part, and what the parts are now."""

    label: str
    part: str
    parts: Parts


Call: TypeAlias = Callable[[Counter], Any]


BRIEFLY = ("refresh", "open", "receipt", "add", "set", "add with a key", "delete", "add to many")
"""Calls that take every way there is, for a server that takes its time."""

ENGINE = ("add", "reserve", "add to many")
"""The calls that an engine may settle by itself."""


def step(c: Counter) -> None:
    c += 1


def add_to_many(c: Counter) -> None:
    Domain(DOMAIN, store=c.store).add({c.name: 1})


READS: dict[str, Call] = {
    "refresh": lambda c: c.refresh(),
    "open": lambda c: Counter(DOMAIN, c.name, store=c.store),
    "in": lambda c: c.name in Domain(DOMAIN, store=c.store),
    "receipt": lambda c: c.receipt("once"),
}

WRITES: dict[str, Call] = {
    "add": lambda c: c.add(1),
    "+=": step,
    "set": lambda c: c.set(3),
    "update": lambda c: c.update(lambda value: value + 1),
    "compare_and_set": lambda c: c.compare_and_set(c.value, 3),
    "reserve": lambda c: c.reserve(2),
    "add with a key": lambda c: c.add(1, key="new"),
    "repeat": lambda c: c.add(2, key="once"),
    "limit": lambda c: c.limit(minimum=-100),
    "delete": lambda c: c.delete(),
    "add to many": add_to_many,
}


class Hostile:
    """What every store must make of records that are not as it left them."""

    names: ClassVar[str] = "counter '{name}' in domain"
    """What each error says of whose record it is."""

    blind = False
    """Whether a change may leave unseen what it has no need to look at."""

    known = True
    """Whether a process that knows the record notices any damage by its next write."""

    calls: ClassVar[tuple[str, ...]] = (*READS, *WRITES)
    """What is called then."""

    pace = 7
    """Of the words that may stand instead of one, every so manieth is tried in turn."""

    @classmethod
    def start(cls) -> AbstractContextManager[Any]:
        """Where the records are."""
        raise TypeError("say what holds the records: override start()")

    def urls(self, server: Any) -> tuple[str, str]:
        """Two stores there that share nothing in this process."""
        raise TypeError("say which stores: override urls()")

    def look(self, server: Any, name: str) -> Parts:
        """The record of the counter, past truecount."""
        raise TypeError("say how another program reads: override look()")

    def write(self, server: Any, name: str, parts: Parts) -> None:
        """Have the record be just these parts, past truecount."""
        raise TypeError("say how another program writes: override write()")

    def parts(self, there: Parts) -> Parts:
        """What is looked at, in the parts that are damaged one by one."""
        return there

    def keeps(self, there: Parts, damaged: Parts, damage: Damage) -> bool:
        """Whether what was damaged is still there, as it was."""
        return bool(there.get(damage.part) == damaged.get(damage.part))

    def mends(self, what: str, damage: Damage) -> bool:
        """Whether a call writes anew what it need not have read."""
        return False

    def damages(self, parts: Parts) -> Iterator[Damage]:
        """What can be done to a record: by default to one that is text in parts."""
        turn = itertools.count()
        for part, text in parts.items():
            yield from self.removals(part, parts)
            tokens = text.split(" ")
            for at, token in enumerate(tokens):
                for what, bad in self.instead(token).items():
                    if next(turn) % self.pace == 0:
                        damaged = {**parts, part: _with(tokens, at, bad)}
                        yield Damage(f"{part}[{at}]: {what}", part, damaged)
            for what, damaged in {
                "empty": "",
                "bytes": b"\xff\x00",
                "a word too few": text.rpartition(" ")[0],
                "a word too many": f"{text} 5",
                "a line too many": f"{text}\n",
                "another line": f"{text}\nother",
            }.items():
                if damaged != text:
                    yield Damage(f"{part}: {what}", part, {**parts, part: damaged})

    def removals(self, part: str, parts: Parts) -> Iterator[Damage]:
        """The record without one of its parts."""
        yield Damage(f"{part}: gone", part, {k: v for k, v in parts.items() if k != part})

    def instead(self, token: str) -> dict[str, Any]:
        """What may stand instead of a word that truecount wrote."""
        if token == "-":  # noqa: S105  # no bound, and no secret
            return {k: v for k, v in NUMBERS.items() if v != ""}
        if token.lstrip("-").isdigit():
            return NUMBERS | NEGATIVE if len(token) > 9 else NUMBERS
        return CODES if token == "+" else {}  # noqa: S105  # likewise

    # What is shown

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Any]:
        with there(cls.start) as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def stores(cls, server: Any) -> Iterator[tuple[Store, Store]]:
        one, other = cls().urls(server)
        with ExitStack() as stack:
            yield stack.enter_context(connect(one)), stack.enter_context(connect(other))

    @pytest.fixture
    def name(self) -> str:
        return f"counter{next(_numbers)}"

    def test_every_damage_under_every_call(
        self, server: Any, stores: tuple[Store, Store], name: str
    ) -> None:
        """Each is refused, by the counter's name, and nothing that is stored has changed."""
        writer, reader = (Counter(DOMAIN, name, 5, minimum=-1000, store=store) for store in stores)
        writer.add(2, key="once")
        reader.add(3)
        intact = self.look(server, name)
        faults: list[str] = []
        count = 0
        for damage in self.damages(self.parts(intact)):
            self.write(server, name, damage.parts)
            damaged = self.look(server, name)
            if damaged == intact:  # the engine has put it right
                continue
            for handle, calls in ((writer, READS | WRITES), (reader, WRITES)):
                for what, call in calls.items():
                    if what not in self.calls:
                        continue
                    count += 1
                    fault = self.fault(handle, call)
                    now = self.look(server, name)
                    if fault is None and now == damaged:
                        continue
                    unseen = self.keeps(now, damaged, damage) or self.mends(what, damage)
                    if fault == "" and self.blind and unseen:
                        pass  # it has not looked there
                    elif handle is writer or self.known:
                        faults.append(f"{damage.label}; {what}: {fault or 'done'}")
                    self.write(server, name, damage.parts)
            self.write(server, name, self.parts(intact))
        assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults)
        assert writer.add(1) == 11

    def fault(self, handle: Counter, call: Call) -> str | None:
        """What is wrong with what comes of a call; "": it did what was asked. None: nothing."""
        try:
            call(handle)
        except DamagedRecordError as error:
            named = self.names.format(name=handle.name) in str(error)
            return None if named else f"unnamed: {error}"
        except OutOfSyncError:
            return ""
        except CounterError as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"a crash: {type(error).__name__}: {error}"
        return ""

    def test_a_newer_format(self, server: Any, stores: tuple[Store, Store], name: str) -> None:
        """A record of a later truecount is left alone, and says that this one is too old."""
        writer, reader = (Counter(DOMAIN, name, 5, store=store) for store in stores)
        reader.add(3)
        intact = self.look(server, name)
        for newer in self.newer(self.parts(intact)):
            self.write(server, name, newer)
            damaged = self.look(server, name)
            for call in (READS | WRITES).values():
                with pytest.raises(DamagedRecordError, match=f"{name}.*newer truecount.*upgrade"):
                    call(writer)
                assert self.look(server, name) == damaged
        self.write(server, name, self.parts(intact))
        assert writer.add(1) == 9

    def newer(self, parts: Parts) -> list[Parts]:
        """The record, as later formats may be."""
        raise TypeError("say where the format is: override newer()")


def _with(tokens: list[str], at: int, bad: Any) -> Any:
    if isinstance(bad, bytes):
        before, after = " ".join(tokens[:at]), " ".join(tokens[at + 1 :])
        return b" ".join(part for part in (before.encode(), bad, after.encode()) if part)
    return " ".join([*tokens[:at], bad, *tokens[at + 1 :]])


_numbers = itertools.count(1)
