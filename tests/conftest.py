"""What all tests share: no test touches the user's own counters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("truecount.testing.conformance")
pytest_plugins = ["truecount.testing.fixtures"]

import truecount  # noqa: E402  # after the rewriting is registered
from helpers import missing  # noqa: E402
from posting import Requests, Transactions, Way  # noqa: E402
from truecount import Store, connect, neighbours  # noqa: E402

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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's processes have their lock files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    # One of 1,024 numbers may be that of an earlier test's counter, whose files are elsewhere.
    monkeypatch.setattr(neighbours, "_queues", {})
    return tmp_path / "tmp" / f"truecount-{os.getuid()}"


@pytest.fixture(params=[Requests, Transactions], ids=["in one request", "in one transaction"])
def way(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Iterator[Way]:
    """A way for a process to do what others have posted."""
    way: Way = request.param(tmp_path, folder)
    yield way
    way.close()


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes the disk fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        missing("C compiler on Linux (apt-get install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = Path(__file__).parent / "failing_disk.c"
    command = [str(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An SQLite store of this test's own."""
    with connect(f"sqlite:///{tmp_path}/counters.db") as store:
        yield store
