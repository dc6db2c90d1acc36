"""What methods and domains do where it is not plain: update, keys, many counters at once."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from truecount import (
    STORED,
    UNCHANGED,
    BoundsError,
    Counter,
    Domain,
    InvalidNameError,
    InvalidTypeError,
    KeyReusedError,
    Store,
    StoreTimeoutError,
    StoreURLError,
    connect,
    moment,
)
from truecount.steps import StoreStep
from truecount.testing.faulty import FaultyStore


class SoldOutError(Exception):
    """Nothing is left."""


def take_one(value: int) -> int:
    """One less, if there is one."""
    if value == 0:
        raise SoldOutError
    return value - 1


def test_update_decides_on_the_true_value(store: Store) -> None:
    """What the function raises about an old value counts for nothing."""
    stale = Counter("mydomain", "stock", store=store)
    Counter("mydomain", "stock", store=store).set(5)
    assert stale.update(take_one).after == 4
    Counter("mydomain", "stock", store=store).set(0)
    with pytest.raises(SoldOutError):
        stale.update(take_one)
    assert stale == 0


def test_a_keyed_update_is_repeated_from_its_receipt(store: Store) -> None:
    """The repeat gets the first receipt, though the function would now refuse."""
    c = Counter("mydomain", "stock", 1, store=store)
    assert c.update(take_one, key="job-1").after == 0
    again = Counter("mydomain", "stock", store=store).update(take_one, key="job-1")
    assert (again.before, again.after, again.replayed) == (1, 0, True)
    c.add(1, key="job-2")
    with pytest.raises(KeyReusedError, match="update"):
        c.update(take_one, key="job-2")
    assert c == 1


def test_adding_to_many_checks_first(store: Store) -> None:
    """A wrong amount or argument is told before anything is added or created."""
    d = Domain("mydomain", store=store)
    for amounts in (5, [("a", 1)], None):
        with pytest.raises(InvalidTypeError, match="mapping"):
            d.add(amounts)  # type: ignore[arg-type]
    with pytest.raises(BoundsError):
        d.add({"fine": 1, "big": 10**600})
    with pytest.raises(InvalidNameError):
        d.add({"fine": 1, "": 2})
    assert list(d) == []


def test_a_creation_in_doubt_is_no_addition_in_doubt() -> None:
    """When it is unknown whether Domain.add created, it is known that it added nothing."""
    lossy = FaultyStore(connect("memory://doubt", timeout=0.2))
    lossy.lose_replies(1)
    lossy.go_down()
    with pytest.raises(StoreTimeoutError, match="nothing was added"):
        Domain("mydomain", store=lossy).add({"a": 7})
    lossy.mend()
    assert Domain("mydomain", store=lossy).add({"a": 7})["a"].before == 0


def test_names_that_no_counter_has_are_not_in_a_domain(store: Store) -> None:
    """``in`` answers for every object, and raises for none."""
    d = Domain("mydomain", store=store)
    assert "" not in d
    assert "x" * 2000 not in d
    assert 5 not in d


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_domains_pickle(store: Store, protocol: int) -> None:
    """A domain goes through every protocol of pickle."""
    d = Domain("mydomain", store=store)
    assert pickle.loads(pickle.dumps(d, protocol)) == d


def test_a_counter_is_no_domain(store: Store) -> None:
    """A counter in the place of a domain is refused, though it has a name and a store."""
    c = Counter("mydomain", "counter1", store=store)
    with pytest.raises(InvalidTypeError):
        Counter(c, "x", store=store)  # type: ignore[arg-type]


def test_the_other_stand_in(store: Store) -> None:
    """UNCHANGED means nothing to the constructor, nor STORED to limit()."""
    c = Counter("mydomain", "counter1", store=store)
    with pytest.raises(InvalidTypeError, match="minimum"):
        Counter("mydomain", "counter1", minimum=UNCHANGED, store=store)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="maximum"):
        c.limit(maximum=STORED)  # type: ignore[arg-type]


def test_handles_in_memory_share_their_counters() -> None:
    """Options make another handle, not another memory; closing twice is nothing."""
    first, second = connect("memory://shared"), connect("memory://shared", timeout=3)
    assert first is not second
    Counter("mydomain", "counter1", 9, store=first)
    assert Counter("mydomain", "counter1", store=second) == 9
    first.close()
    first.close()
    assert Counter("mydomain", "counter1", store=second) == 9
    second.close()
    assert Counter("mydomain", "counter1", store="memory://shared") == 0


@pytest.mark.parametrize(
    "url",
    [
        "memory://?key_ttl=1e305",
        "sqlite:///c.db?key_ttl=1e14",
        "sqlite:///:memory:",
        "sqlite:///a\0b.db",
        "sqlite:///\udcff.db",
        "sqlite:////tmp/\n.db",
    ],
)
def test_urls_that_cannot_be_meant(url: str) -> None:
    """They are refused at once, and say why."""
    with pytest.raises(StoreURLError):
        connect(url)


@pytest.mark.parametrize(
    "url",
    [
        *("Redis://me:hunter2@host/0", "redis:/me:hunter2@host", "redis://me:hun@/ter2@host"),
        *("nosuch://me:hunter2@host/0", "etcd://me:hunter2@host", "postgresql://me:hunter2@host"),
        *("postgresql://host?password=hunter2", "postgresql://host?pass%77ord=hunter2"),
        *("redis://me:hun?ter2@host", "postgresql://host?scram_client_key=hunter2"),
    ],
)
def test_passwords_are_not_shown(url: str) -> None:
    """However odd the URL, neither the store nor an error shows its password."""
    try:
        shown = repr(connect(url))
    except StoreURLError as error:
        shown = str(error)
    assert "ter2" not in shown


def test_a_path_is_no_password(tmp_path: object) -> None:
    """A folder named like a:b@c is shown as it is, and pickles."""
    store = connect(f"sqlite:///{tmp_path}/a:b@c.db")
    assert "a:b@c.db" in store.shown
    assert pickle.loads(pickle.dumps(store)) is store


def test_a_store_has_its_own_time_out(store: Store) -> None:
    """connect() does not pretend to change the time-out of a store that exists."""
    assert connect(store, timeout=store.timeout) is store
    with pytest.raises(InvalidTypeError, match="time-out"):
        connect(store, timeout=1)


def test_answers_to_the_wrong_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the answers to many additions come in another order, nobody is told another's."""
    monkeypatch.setattr(moment, "now", lambda: 1_700_000_000_000_000)  # so that all are as old
    store = connect("memory://shifted")
    d = Domain("mydomain", store=store)
    d.add({"a": 0, "b": 0, "c": 0})
    together = store.together

    def shifted(steps: Sequence[StoreStep], *, timeout: float | None) -> list[Any]:
        first, *others = together(steps, timeout=timeout)
        monkeypatch.setattr(store, "together", together)
        return [*others, first]

    monkeypatch.setattr(store, "together", shifted)
    receipts = d.add({"a": 1, "b": 100, "c": 10_000})
    assert {name: each.before for name, each in receipts.items()} == {"a": 0, "b": 0, "c": 0}
    assert receipts == d.snapshot() == {"a": 1, "b": 100, "c": 10_000}
