"""What all tests share: no test touches the user's own counters."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("truecount.testing.conformance")
pytest_plugins = ["truecount.testing.fixtures"]

import truecount  # noqa: E402  # after the rewriting is registered
from truecount import Store, connect  # noqa: E402

settings.register_profile("truecount", deadline=None, print_blob=True)
settings.load_profile("truecount")

# Where it runs in the background, a shell has it ignore Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default store of this test: a file of its own."""
    url = f"sqlite:///{tmp_path}/default.db"
    monkeypatch.setenv("TRUECOUNT_STORE", url)
    return url


@pytest.fixture
def doctest_namespace() -> dict[str, object]:
    return {"truecount": truecount}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An SQLite store of this test's own."""
    with connect(f"sqlite:///{tmp_path}/counters.db") as store:
        yield store
