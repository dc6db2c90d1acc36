"""Two handles on each counter, against a plain model of what the documents say.

The handles go through two stores on the same data, which share no line. After
every step each of them shows just what it must have seen last.
"""

from __future__ import annotations

import copy
import itertools
import operator
import pickle
import tempfile
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from truecount import (
    UNCHANGED,
    BoundsError,
    BoundsMismatchError,
    Counter,
    CounterError,
    CounterNotFoundError,
    Domain,
    KeyReusedError,
    OutOfSyncError,
    Receipt,
    ReceiptNotFoundError,
    Store,
    connect,
)
from truecount.record import MOST

NAMES = ("a", "b")

_domains = itertools.count(1)

whose = st.sampled_from([0, 1])
names = st.sampled_from(NAMES)
small = st.integers(-9, 9)
values = st.one_of(small, st.sampled_from([2**52, -(2**63), 2**64 + 1, MOST, -MOST]))
keys = st.sampled_from([None, None, "one", "two", "three"])
bound = st.sampled_from([UNCHANGED, None, 0, 3, 20])

OPERATORS: dict[str, tuple[Callable[[Any, int], Any], Callable[[int, int], Any]]] = {
    name: (getattr(operator, f"i{name}"), getattr(operator, f"__{name}__"))
    for name in ("add", "sub", "mul", "floordiv", "mod", "lshift", "rshift", "and", "or", "xor")
} | {"pow": (operator.ipow, operator.pow)}


class View(NamedTuple):
    """What a handle shows."""

    value: int
    revision: int
    minimum: int | None
    maximum: int | None


class Fact(NamedTuple):
    """What is known of a change that was applied."""

    before: int
    after: int
    revision: int
    text: str = ""


Expected = Fact | type[Exception] | None


class Model:
    """A counter as the documents describe it."""

    def __init__(self) -> None:
        self.exists = False
        self.value = 0
        self.minimum: int | None = None
        self.maximum: int | None = None
        self.revision: int | None = None  # until the clock has given the first one
        self.keys: dict[str, Fact] = {}

    @property
    def view(self) -> View:
        assert self.revision is not None
        return View(self.value, self.revision, self.minimum, self.maximum)

    def fits(self, value: int, minimum: int | None, maximum: int | None) -> bool:
        return (
            (minimum is None or minimum <= value)
            and (maximum is None or value <= maximum)
            and abs(value) <= MOST
        )

    def create(self, initial: int, minimum: int | None, maximum: int | None) -> Expected:
        if not self.fits(initial, minimum, maximum):
            return BoundsError
        self.exists = True
        self.value, self.minimum, self.maximum = initial, minimum, maximum
        if self.revision is not None:
            self.revision += 1
        return None

    def write(self, value: int, text: str = "") -> Fact:
        assert self.revision is not None
        self.revision += 1
        fact = Fact(self.value, value, self.revision, text)
        self.value = value
        return fact

    def change(
        self, text: str, result: Callable[[int], int], key: str | None, sees: int | None = None
    ) -> Expected:
        """What comes of a change of the value; ``sees``: if the value is this one."""
        if key in self.keys:
            assert key is not None
            return self.keys[key] if self.keys[key].text == text else KeyReusedError
        if not self.exists:
            return CounterNotFoundError
        if sees is not None and sees != self.value:
            return OutOfSyncError
        after = result(self.value)
        if not self.fits(after, self.minimum, self.maximum):
            return BoundsError
        fact = self.write(after, text)
        if key is not None:
            self.keys[key] = fact
        return fact

    def limit(self, minimum: Any, maximum: Any) -> Expected:
        low = self.minimum if minimum is UNCHANGED else minimum
        high = self.maximum if maximum is UNCHANGED else maximum
        if not self.exists:
            return CounterNotFoundError
        if not self.fits(self.value, low, high):
            return BoundsError
        self.minimum, self.maximum = low, high
        self.write(self.value)
        return None

    def delete(self) -> Expected:
        if not self.exists:
            return CounterNotFoundError
        self.write(self.value)
        self.exists = False
        return None


def came(call: Callable[[], Any]) -> Any:
    """What ``call`` returns, or the error that it raises."""
    try:
        return call()
    except (CounterError, ZeroDivisionError, ValueError) as error:
        return error


class Machine(RuleBasedStateMachine):
    """The calls, each held against the model."""

    stores: ClassVar[tuple[Store, Store]]

    def __init__(self) -> None:
        super().__init__()
        self.domain = f"machine{next(_domains)}"
        self.models = {name: Model() for name in NAMES}
        self.handles: dict[tuple[int, str], Counter] = {}
        self.views: dict[tuple[int, str], View] = {}
        self.times: dict[tuple[int, str], str] = {}

    # The handles

    def open(self, who: int, name: str, *, create: bool = True, **options: Any) -> None:
        """Have ``who`` open the counter anew, with what the model says comes of it."""
        model = self.models[name]
        initial = options.pop("initial", 0)
        opened = came(
            lambda: Counter(
                self.domain, name, initial, store=self.stores[who], create=create, **options
            )
        )
        if model.exists:
            stored = {"minimum": model.minimum, "maximum": model.maximum}
            wrong = any(stored[option] != value for option, value in options.items())
            expected: Expected = BoundsMismatchError if wrong else None
        elif create:
            expected = model.create(initial, options.get("minimum"), options.get("maximum"))
        else:
            expected = CounterNotFoundError
        if expected is not None:
            assert type(opened) is expected, opened
            return
        assert isinstance(opened, Counter), opened
        if model.revision is None:
            model.revision = opened.revision
        self.hold(who, name, opened)

    def hold(self, who: int, name: str, handle: Counter) -> None:
        """From now on this is the handle of ``who``; it shows what is there."""
        self.handles[who, name] = handle
        self.times.pop((who, name), None)
        self.views[who, name] = self.models[name].view

    def handle(self, who: int, name: str) -> Counter:
        """The handle of ``who``, which is opened if there is none yet."""
        if (who, name) not in self.handles:
            self.open(who, name)
        return self.handles[who, name]

    def see(self, who: int, name: str) -> None:
        """The handle has looked: it shows what is there, if anything is."""
        if self.models[name].exists:
            self.views[who, name] = self.models[name].view

    def check(self, who: int, name: str, got: Any, expected: Expected, key: str | None) -> None:
        """Hold a receipt or an error against what was expected."""
        if isinstance(expected, Fact):
            assert isinstance(got, Receipt), got
            assert (got.before, got.after, got.revision) == expected[:3]
            assert got.key == key
        elif expected is not None:
            assert type(got) is expected, got
            if isinstance(got, OutOfSyncError):
                model = self.models[name]
                assert (got.expected, got.actual) == (self.views[who, name].value, model.value)
        else:
            assert not isinstance(got, Exception), got
        self.see(who, name)

    # The rules

    @rule(who=whose, name=names, initial=values, minimum=bound, maximum=bound, create=st.booleans())
    def opens(
        self, who: int, name: str, initial: int, minimum: Any, maximum: Any, create: bool
    ) -> None:
        bounds = {"minimum": minimum, "maximum": maximum}
        options = {which: value for which, value in bounds.items() if value is not UNCHANGED}
        if are_bounds(minimum, maximum):
            self.open(who, name, create=create, initial=initial, **options)

    @rule(who=whose, name=names, amount=values, key=keys)
    def adds(self, who: int, name: str, amount: int, key: str | None) -> None:
        handle = self.handle(who, name)
        known = key in self.models[name].keys
        expected = self.models[name].change(f"add {amount}", lambda value: value + amount, key)
        got = came(lambda: handle.add(amount, key=key))
        self.check(who, name, got, expected, key)
        assert not isinstance(got, Receipt) or got.replayed is known

    @rule(who=whose, name=names, amount=small, key=keys)
    def subtracts(self, who: int, name: str, amount: int, key: str | None) -> None:
        handle = self.handle(who, name)
        expected = self.models[name].change(f"add {-amount}", lambda value: value - amount, key)
        self.check(who, name, came(lambda: handle.subtract(amount, key=key)), expected, key)

    @rule(who=whose, name=names, value=values, key=keys)
    def sets(self, who: int, name: str, value: int, key: str | None) -> None:
        handle = self.handle(who, name)
        expected = self.models[name].change(f"set {value}", lambda _: value, key)
        self.check(who, name, came(lambda: handle.set(value, key=key)), expected, key)

    @rule(who=whose, name=names, factor=small, key=keys)
    def updates(self, who: int, name: str, factor: int, key: str | None) -> None:
        handle = self.handle(who, name)
        view = self.views[who, name]
        model = self.models[name]
        long = abs(scaled(model.value, factor)) > MOST
        asked = key is None or not (key in model.keys or long)
        expected = model.change("update", lambda value: scaled(value, factor), key)
        got = came(lambda: handle.update(lambda value: scaled(value, factor), key=key))
        self.check(who, name, got, expected, key)
        if not asked:  # its key was looked up, and nothing was asked of the counter
            self.views[who, name] = view

    @rule(who=whose, name=names, right=st.booleans(), value=values)
    def compares_and_sets(self, who: int, name: str, right: bool, value: int) -> None:
        handle = self.handle(who, name)
        model = self.models[name]
        sees = model.value if right else self.views[who, name].value
        expected = model.change("", lambda _: value, None, sees)
        got = came(lambda: handle.compare_and_set(sees, value))
        if expected is OutOfSyncError or isinstance(expected, Fact):
            assert got is isinstance(expected, Fact)
        else:
            assert type(got) is expected
        self.see(who, name)

    @rule(who=whose, name=names, count=st.integers(1, 9), key=keys)
    def reserves(self, who: int, name: str, count: int, key: str | None) -> None:
        handle = self.handle(who, name)
        expected = self.models[name].change(f"add {count}", lambda value: value + count, key)
        got = came(lambda: handle.reserve(count, key=key))
        if isinstance(expected, Fact):
            assert got == range(expected.before + 1, expected.after + 1)
        else:
            assert type(got) is expected
        self.see(who, name)

    @rule(who=whose, name=names)
    def takes_the_next(self, who: int, name: str) -> None:
        handle = self.handle(who, name)
        expected = self.models[name].change("add 1", lambda value: value + 1, None)
        got = came(lambda: next(handle))
        assert got == expected.after if isinstance(expected, Fact) else type(got) is expected
        self.see(who, name)

    @rule(who=whose, name=names, block=st.integers(1, 5), count=st.integers(1, 7))
    def takes_ids(self, who: int, name: str, block: int, count: int) -> None:
        handle = self.handle(who, name)
        expected: list[Any] = []
        while len(expected) < count:
            fact = self.models[name].change("", lambda value: value + block, None)
            if not isinstance(fact, Fact):
                expected = [fact]
                break
            expected += range(fact.before + 1, fact.after + 1)
        got = came(lambda: list(itertools.islice(handle.ids(block), count)))
        if isinstance(got, list):
            assert got == expected[:count]
        else:
            assert [type(got)] == expected
        self.see(who, name)

    @rule(who=whose, name=names, which=st.sampled_from(sorted(OPERATORS)), operand=small)
    def moves_in_place(self, who: int, name: str, which: str, operand: int) -> None:
        handle = self.handle(who, name)
        in_place, plain = OPERATORS[which]
        operand = abs(operand) % 4 if which == "pow" else operand
        value = self.views[who, name].value
        new = came(lambda: plain(value, operand))
        got = came(lambda: in_place(handle, operand))
        if isinstance(new, Exception):  # int's own complaint; nothing was asked of the counter
            assert type(got) is type(new)
            return
        if abs(new) > MOST:
            assert type(got) is BoundsError
            return
        expected = self.models[name].change("", lambda _: new, None, value)
        if isinstance(expected, Fact):
            assert got is handle
            self.see(who, name)
        else:
            self.check(who, name, got, expected, None)

    @rule(who=whose, name=names, minimum=bound, maximum=bound)
    def limits(self, who: int, name: str, minimum: Any, maximum: Any) -> None:
        handle = self.handle(who, name)
        if are_bounds(minimum, maximum):
            expected = self.models[name].limit(minimum, maximum)
            got = came(lambda: handle.limit(minimum=minimum, maximum=maximum))
            self.check(who, name, got, expected, None)

    @rule(who=whose, name=names)
    def deletes(self, who: int, name: str) -> None:
        handle = self.handle(who, name)
        expected = self.models[name].delete()
        self.check(who, name, came(handle.delete), expected, None)

    @rule(who=whose, name=names)
    def refreshes(self, who: int, name: str) -> None:
        handle = self.handle(who, name)
        got = came(handle.refresh)
        model = self.models[name]
        assert got == model.value if model.exists else type(got) is CounterNotFoundError
        self.see(who, name)

    @rule(who=whose, name=names, key=keys.filter(bool))
    def looks_for_a_receipt(self, who: int, name: str, key: str) -> None:
        handle = self.handle(who, name)
        model = self.models[name]
        got = came(lambda: handle.receipt(key))
        if key in model.keys:
            assert (got.before, got.after, got.revision) == model.keys[key][:3]
            assert (got.key, got.replayed) == (key, True)
        else:
            missing = ReceiptNotFoundError if model.exists else CounterNotFoundError
            assert type(got) is missing

    @rule(who=whose, to=whose, name=names, how=st.sampled_from(["copy", "deepcopy", "pickle"]))
    def copies(self, who: int, to: int, name: str, how: str) -> None:
        handle = self.handle(who, name)
        ways: dict[str, Callable[[Counter], Counter]] = {
            "copy": copy.copy,
            "deepcopy": copy.deepcopy,
            "pickle": lambda counter: pickle.loads(pickle.dumps(counter)),
        }
        other = ways[how](handle)
        assert other is not handle
        assert other.store is handle.store
        view = self.views[who, name]
        self.hold(to, name, other)
        self.views[to, name] = view

    # The domain

    @rule(who=whose, name=names)
    def gets(self, who: int, name: str) -> None:
        d = Domain(self.domain, store=self.stores[who])
        model = self.models[name]
        assert (name in d) is model.exists
        found = d.get(name)
        assert (found is not None) is model.exists
        if found is not None:
            self.hold(who, name, found)

    @rule(who=whose, name=names, amount=small)
    def steps_in_the_domain(self, who: int, name: str, amount: int) -> None:
        d = Domain(self.domain, store=self.stores[who])
        self.open(who, name)
        model = self.models[name]
        expected = model.change("", lambda value: value + amount, None)

        def step() -> None:
            d[name] += amount

        got = came(step)
        assert got is None if isinstance(expected, Fact) else type(got) is expected

    @rule(who=whose, name=names)
    def deletes_from_the_domain(self, who: int, name: str) -> None:
        d = Domain(self.domain, store=self.stores[who])
        expected = self.models[name].delete()
        got = came(lambda: operator.delitem(d, name))
        assert got is None if expected is None else type(got) is expected

    @rule(who=whose, amounts=st.dictionaries(names, small, min_size=1))
    def adds_to_many(self, who: int, amounts: dict[str, int]) -> None:
        got = came(lambda: Domain(self.domain, store=self.stores[who]).add(amounts))
        receipts = got.receipts if isinstance(got, CounterError) else got
        failures = got.failures if isinstance(got, CounterError) else {}
        assert receipts is not None
        assert failures is not None
        for name, amount in amounts.items():
            model = self.models[name]
            if not model.exists:
                model.create(0, None, None)
                if model.revision is None:
                    model.revision = receipts[name].revision - 1
            expected = model.change("", lambda value, amount=amount: value + amount, None)
            if isinstance(expected, Fact):
                receipt = receipts[name]
                assert (receipt.before, receipt.after, receipt.revision) == expected[:3]
            else:
                assert type(failures[name]) is expected
        assert len(receipts) + len(failures) == len(amounts)

    @rule(who=whose)
    def lists(self, who: int) -> None:
        d = Domain(self.domain, store=self.stores[who])
        there = {name: model.value for name, model in self.models.items() if model.exists}
        assert list(d) == sorted(there)
        assert d.snapshot() == there

    # What holds after every step

    @precondition(lambda self: self.handles)
    @invariant()
    def shows_what_was_seen(self) -> None:
        for where, handle in self.handles.items():
            shown = View(handle.value, handle.revision, handle.minimum, handle.maximum)
            assert shown == self.views[where], where
            assert handle == shown.value
            assert self.times.get(where, "") <= handle.timestamp
            self.times[where] = handle.timestamp


def are_bounds(minimum: Any, maximum: Any) -> bool:
    """Whether these bounds may be asked for together."""
    return not (isinstance(minimum, int) and isinstance(maximum, int) and minimum > maximum)


def scaled(value: int, factor: int) -> int:
    """What an update makes of a value."""
    return value // 2 * factor + 1


@pytest.mark.parametrize("url", ["memory://machine", "sqlite:///{}/machine.db"])
def test_any_calls_in_any_order(url: str) -> None:
    """Whatever two handles do in turn comes to what the model says, and they show it."""
    with tempfile.TemporaryDirectory() as folder:
        one = connect(url.format(folder))
        other = connect(f"{url.format(folder)}?timeout=20")
        assert one is not other

        class Here(Machine):
            stores = one, other

        Here.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
        try:
            Here.TestCase("runTest").runTest()
        finally:
            one.close()
            other.close()
