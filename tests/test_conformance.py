"""The stores that come with truecount pass the suite that any store's author can run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from truecount.testing.conformance import StoreConformance


class TestMemory(StoreConformance):
    """``memory://``."""

    reopens = False

    def url(self, folder: Path) -> str:
        return f"memory://{folder.name}"


class TestSQLite(StoreConformance):
    """``sqlite:///``."""

    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/counters.db"


class TestSQLiteNormal(StoreConformance):
    """``sqlite:///`` with ``synchronous=normal``."""

    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/counters.db?synchronous=normal"


FORGETFUL = """
from truecount.testing.conformance import StoreConformance

class TestForgetful(StoreConformance):
    def url(self, folder):
        f"sqlite:///{folder}/counters.db"
"""


def test_a_url_that_is_not_returned(tmp_path: Path) -> None:
    """A suite that forgets to return its URL is told so, and writes to no store of the user's."""
    (tmp_path / "test_forgetful.py").write_text(FORGETFUL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "nothing_is", "test_forgetful.py"],
        cwd=tmp_path,
        env=os.environ | {"TRUECOUNT_STORE": f"sqlite:///{tmp_path}/mine.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "url() says where the store of a test is, and returned None" in done.stdout
    assert not (tmp_path / "mine.db").exists()
