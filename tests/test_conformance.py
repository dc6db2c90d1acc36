"""The stores that come with truecount pass the suite that any store's author can run."""

from __future__ import annotations

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
