"""What the documents say is so: every example in them is run."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import truecount
from truecount.cli.commands import cli
from truecount.testing.simulation import REMEDIES

ROOT = Path(__file__).parent.parent

GENERATED = {"benchmarks.md", "evidence.md"}

PAGES = sorted(
    [path for path in (ROOT / "docs").glob("*.md") if path.name not in GENERATED]
    + [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
)

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: Path, language: str) -> str:
    """The fenced blocks in one language, at their lines, and nothing else."""
    lines = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == f"```{language}"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines)


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_python_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example at Python's prompt answers what the page says."""
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(
        blocks(page, "python"), {"__name__": "__main__"}, names(page), str(page), 0
    )
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    complaints: list[str] = []
    runner.run(examples, out=complaints.append)
    assert not runner.failures, "".join(complaints)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_console_examples(page: Path, tmp_path: Path) -> None:
    """Every command at the shell's prompt prints what the page says, stderr included."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRUECOUNT_STORE": f"sqlite:///{tmp_path}/counters.db",
    }
    for example in re.split(r"^\$ ", blocks(page, "console"), flags=re.MULTILINE)[1:]:
        command, _, wanted = example.partition("\n")
        got = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout
        checker = doctest.OutputChecker()
        assert checker.check_output(wanted.strip() + "\n", got.strip() + "\n", FLAGS), (
            f"$ {command}\n{got}"
        )


def modules() -> list[str]:
    """The names of all modules of truecount that can be imported without running."""
    found = pkgutil.walk_packages(truecount.__path__, "truecount.")
    return ["truecount", *(m.name for m in found if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("name", modules())
def test_docstrings(name: str) -> None:
    """The examples in docstrings are right; the 2010 class's transcript is Counter's."""
    module: ModuleType = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=FLAGS)
    assert not result.failed
    if name == "truecount.counter":
        assert result.attempted >= 15


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links(page: Path) -> None:
    """Links to other pages lead somewhere."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_command_is_documented() -> None:
    """Every command and every option of it stands in docs/cli.md, and no others do."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in cli.commands.items():
        assert f"truecount {name}" in text, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(option in text for option in parameter.opts), parameter.opts
    known = {"truecount --help", *(f"truecount {name}" for name in cli.commands)}
    assert {f"truecount {word}" for word in re.findall(r"\$ truecount ([a-z]+)", text)} <= known
    options = {o for c in [cli, *cli.commands.values()] for p in c.params for o in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= options | {"--help"}


def test_the_rules_are_those_of_the_simulation() -> None:
    """docs/promises.md lists the rules that the simulation can do without, and their holes."""
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = text.partition("| rule |")[2].partition("\n\n")[0]
    rules = re.findall(r"^\| (.+) \| (.+) \|$", rows, re.MULTILINE)[1:]
    simulated = {(remedy.name, remedy.hole) for remedy in REMEDIES.values()}
    assert simulated == set(rules)


def test_every_public_name_is_documented() -> None:
    """Whatever ``truecount`` exports is named on a page."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [name for name in truecount.__all__ if not re.search(rf"\b{name}\b", text)]


def test_the_exit_statuses_are_documented() -> None:
    """The page lists the statuses that the program exits with."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = {int(status) for status in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    from truecount.cli import commands

    constants = [value for name, value in vars(commands).items() if name.isupper()]
    assert documented == {s for s in constants if isinstance(s, int) and s < 256}


def test_the_changelog_names_this_version() -> None:
    """CHANGELOG.md has a section for the version in the code, which is the package's."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {truecount.__version__}" in text
    package = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{truecount.__version__}"' in package
