"""What docs/testing.md shows a user to write: executed as a user does it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "testing.md"


def files() -> dict[str, str]:
    """The files on the page, by what the first line calls them."""
    found = {}
    for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]:
        text = block.partition("```")[0]
        if text.startswith("# "):
            found[text.partition("\n")[0].removeprefix("# ")] = text
    return found


def run(folder: Path, shop: str) -> str:
    """What pytest has to say on the page's test of ``shop``."""
    for name in ("conftest.py", "test_shop.py"):
        (folder / name).write_text(files()[name], encoding="utf-8")
    (folder / "shop.py").write_text(files()[shop], encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder]
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ran.stdout + ran.stderr


def test_the_test_on_the_page(tmp_path: Path) -> None:
    """A user's function loses replies on SQLite and on SimpleDB Local, and passes."""
    report = run(tmp_path, "shop.py")
    assert "2 passed" in report, report


def test_a_function_that_is_wrong(tmp_path: Path) -> None:
    """One that tries again without a key is convicted by the same test, on both."""
    report = run(tmp_path, "shop.py, wrong")
    assert "2 failed" in report, report
    assert len(re.findall(r"AssertionError: assert \d+ == 20", report)) >= 2, report


def test_it_is_short() -> None:
    """The page says that the test takes 20 lines, and it does."""
    assert "in 20 lines" in PAGE.read_text(encoding="utf-8")
    assert len(files()["test_shop.py"].splitlines()) - 1 <= 20


@pytest.mark.parametrize("name", ["faulty_store", "fault_proxy", "simpledb_local"])
def test_the_fixtures_are_pytest_s(name: str, request: pytest.FixtureRequest) -> None:
    """Each fixture on the page is one that the plugin brings, with its docstring."""
    assert f"| `{name}" in PAGE.read_text(encoding="utf-8")
    assert request.getfixturevalue(name)


def imports(path: Path) -> Iterator[str]:
    """The packages that a module imports as soon as it is imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module.partition(".")[0]


def test_the_extra_is_whole() -> None:
    """Whatever the kit imports from the start comes with ``truecount[testing]``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["testing"]
    there = {re.split("[^a-z]", requirement)[0] for requirement in extra}
    kit = (ROOT / "src" / "truecount" / "testing").rglob("*.py")
    imported = {package for path in kit for package in imports(path)}
    assert imported - sys.stdlib_module_names - {"truecount"} == there
