"""A page of measured figures, one section a measurement, under ``docs/``."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

__all__ = ["DOCS", "Section", "machine", "table", "write"]

DOCS = Path(__file__).parent.parent / "docs"


class Section(NamedTuple):
    """What a measurement found.

    ``failures`` says in words where a limit was missed.
    """

    title: str
    text: str
    failures: list[str]


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine() -> str:
    """What was measured on, and when."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


def write(page: Path, preface: str, sections: Sequence[Section], command: str) -> None:
    """Put ``sections`` into the page, each in the place of the one it had there."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    there = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    for section in sections:
        there[section.title] = f"{section.text}\n\n`{command}`, {machine()}."
    body = "\n".join(f"## {title}\n\n{content.strip()}\n" for title, content in there.items())
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"{preface}\n{body}", encoding="utf-8")


def report(sections: Sequence[Section]) -> int:
    """Say on the terminal what was found; the exit status, 1 when a limit was missed."""
    for section in sections:
        sys.stdout.write(f"\n{section.title}\n\n{section.text}\n")
    failures = [failure for section in sections for failure in section.failures]
    for failure in failures:
        sys.stderr.write(f"MISSED: {failure}\n")
    return 1 if failures else 0
