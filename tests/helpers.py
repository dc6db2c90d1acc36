"""What several test modules use."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from truecount import Counter

T = TypeVar("T")

SPAWN = multiprocessing.get_context("spawn")

_names = itertools.count(1)


def make_counter(value: int = 0, **options: Any) -> Counter:
    """A counter in memory that nobody else has."""
    name = f"counter{next(_names)}"
    return Counter("mydomain", name, value, store="memory://tests", **options)


def missing(what: str) -> None:
    """Skip a test that lacks something of the machine; in CI that is a failure."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI has no {what}")
    pytest.skip(f"NOT TESTED: this machine has no {what}")


def there(make: Callable[[], T]) -> T:
    """What ``make`` makes, if this machine has what that takes."""
    try:
        return make()
    except FileNotFoundError as error:
        missing(str(error))
        raise


def in_processes(work: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    """Do all of this at the same time, each in a process of its own."""
    with SPAWN.Pool(len(work)) as pool:
        results = [pool.apply_async(function, arguments) for function, arguments in work]
        return [result.get(timeout=240) for result in results]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that will be true soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)
