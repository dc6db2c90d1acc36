"""The error tree is as its docstring draws it, readable, and pickles."""

from __future__ import annotations

import builtins
import copy
import pickle

import pytest

import truecount
from truecount import errors
from truecount.change import Add, Batch, Receipt
from truecount.plans import Sealed
from truecount.record import Address
from truecount.stores.base import Store
from truecount.unsettled import Unsettled

ALL = [getattr(errors, name) for name in errors.__all__ if name != "StoreWarning"]


def drawn() -> dict[str, tuple[str, str]]:
    """The tree in the module's docstring: name -> (parent, builtin base)."""
    tree = {}
    above = {0: "CounterError"}
    for line in (errors.__doc__ or "").splitlines():
        text = line.strip()
        if not text.startswith(("├", "└", "│")) and not (
            line.startswith("      ") and text.startswith(("├", "└"))
        ):
            continue
        depth = (len(line) - len(line.lstrip(" "))) // 2 - 1
        name, _, base = text.lstrip("├└ ").split()[0].partition("(")
        tree[name] = (above[depth - 1], base.rstrip(")"))
        above[depth] = name
    return tree


def test_the_tree_is_as_drawn() -> None:
    """Every error of the tree stands in the drawing, below its parent, with its builtin base."""
    tree = drawn()
    assert set(tree) | {"CounterError"} == {error.__name__ for error in ALL}
    for error in ALL:
        if error is errors.CounterError:
            continue
        parent, base = tree[error.__name__]
        assert error.__bases__[0].__name__ == parent
        builtin = [b.__name__ for b in error.__bases__[1:]]
        assert builtin == ([base] if base else [])
        assert all(hasattr(builtins, name) for name in builtin)


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_public(error: type[Exception]) -> None:
    """Each can be imported from truecount itself."""
    assert getattr(truecount, error.__name__) is error


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_readable_and_pickles(error: type[errors.CounterError]) -> None:
    """str() is the message; pickling, copying and copy() keep message and attributes."""
    original = error("what to do", **dict.fromkeys(error.extras, 7))
    original.receipts = {"a": Receipt(5, 4)}
    for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original)):
        assert type(twin) is error
        assert str(twin) == str(original) == "what to do"
        assert all(getattr(twin, name) == 7 for name in error.extras)
        assert twin.receipts["a"].before == 4
    assert str(original.copy()) == "what to do"
    assert original.copy() is not original


def test_unknown_keywords_are_refused() -> None:
    """A misspelt attribute is an error, not silence."""
    with pytest.raises(TypeError, match="no wrong"):
        errors.BoundsError("text", wrong=1)


def test_an_unknown_outcome_catches_no_handler_of_connections() -> None:
    """``except ConnectionError: retry`` or ``except OSError`` must not catch it."""
    assert errors.OutcomeUnknownError.__mro__[1:] == (
        errors.CounterError,
        *errors.CounterError.__mro__[1:],
    )


def test_an_unknown_outcome_pickles_with_what_settles_it(store: Store) -> None:
    """The error takes the sealed batch along, so that another process can settle it."""
    truecount.Counter("mydomain", "counter1", store=store)
    batch = Batch("somebody", 1, 10**18, (Add(5),))
    sealed = Sealed(batch)
    sealed.engine = True
    error = Unsettled(store, Address("mydomain", "counter1"), sealed, 0).error(None)
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert twin.retry().after == 5
    assert error.retry().after == 5
    assert not twin.cancel()
