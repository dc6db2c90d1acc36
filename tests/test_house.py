"""The house stays as drawn: arrows point one way, importing is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import truecount

SOURCE = Path(truecount.__file__).parent
PACKAGES = (SOURCE, SOURCE.parent / "simpledb_local")

FLOORS = [
    # Each module may import those on lower floors, and its own package; never up.
    {
        *("truecount.defaults", "truecount.moment", "truecount.gate", "truecount.backoff"),
        "truecount.spin",
    },
    {"truecount.process", "truecount.integer", "truecount.bell"},
    {"truecount.errors"},
    {"truecount.record", "truecount.url", "truecount.turn"},
    {"truecount.change", "truecount.arguments"},
    {"truecount.settle", "truecount.conclude", "truecount.sums"},
    {"truecount.steps", "truecount.mail"},
    {"truecount.stores.base", "truecount.post"},
    {"truecount.neighbours"},
    {"truecount.plans", "truecount.drive", "truecount.connect"},
    {"truecount.combine"},
    {"truecount.unsettled", "truecount.together"},
    {"truecount.bulk"},
    {"truecount.handle", "truecount.awaiting"},
    {"truecount.counter", "truecount.aio"},
    {"truecount.domain"},
    {"truecount"},
    {"truecount.testing"},
    {"truecount.cli"},
    {"truecount.__main__"},
    # SimpleDB Local, which meets truecount over HTTP only.
    {"simpledb_local.errors"},
    {"simpledb_local.parameters", "simpledb_local.select", "simpledb_local.tokens"},
    {"simpledb_local.signature", "simpledb_local.xml"},
    {"simpledb_local.history", "simpledb_local.commits", "simpledb_local.items"},
    {"simpledb_local.domains"},
    {"simpledb_local.pages"},
    {"simpledb_local.operations"},
    {"simpledb_local.app"},
    {"simpledb_local.serve"},
    {"simpledb_local.cli"},
    {"simpledb_local.__main__"},
    {"simpledb_local"},
]

STORES_MAY_IMPORT = {
    *(
        "truecount.backoff",
        "truecount.change",
        "truecount.errors",
        "truecount.gate",
        "truecount.moment",
    ),
    *("truecount.mail", "truecount.post", "truecount.process", "truecount.record"),
    *("truecount.settle", "truecount.sums", "truecount.steps", "truecount.turn", "truecount.url"),
    *("truecount.spin", "truecount.stores.base"),
}


def modules() -> dict[str, Path]:
    """Every module of ours, by name."""
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """What a module imports, at its top or inside a function, but not for type checkers only."""
    known = modules()
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else str(node.module))
    return found


def floor(module: str) -> int:
    """The floor that a module is on."""
    for number, names in enumerate(FLOORS):
        if module in names:
            return number
    package = module.rpartition(".")[0]
    assert package, f"{module} has no place in the house: give it one in FLOORS"
    return floor(package)


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_point_down(module: str) -> None:
    """A module imports only what is below it; stores only their contract; nothing a store."""
    for imported in imports(modules()[module]):
        package = imported.split(".")[0]
        if package not in ("truecount", "simpledb_local"):
            continue
        assert package == module.split(".")[0], f"{module} imports the other package"
        is_store = imported.startswith("truecount.stores.") and imported != "truecount.stores.base"
        if module.startswith("truecount.stores.") and module != "truecount.stores.base":
            assert imported in STORES_MAY_IMPORT or is_store, imported
            continue
        assert not is_store, f"{module} imports the store {imported}"
        if imported == "truecount" and floor(module) < floor("truecount"):
            pytest.fail(f"{module} imports the top")
        same_package = (
            floor(imported) == floor(module) and imported.split(".")[:2] == (module.split(".")[:2])
        )
        assert floor(imported) < floor(module) or same_package, f"{module} imports {imported}"


def test_nothing_imports_in_a_circle() -> None:
    """The imports have an order in which every module comes after those it needs."""
    known = modules()
    waiting = {name: imports(path) & set(known) - {name} for name, path in known.items()}
    while waiting:
        ready = {name for name, needs in waiting.items() if not needs & set(waiting)}
        assert ready, f"a circle among {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}


def python(*arguments: str) -> str:
    """Run a fresh Python, with compiled modules cached as usual."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment
    ).stderr


def test_importing_brings_no_third_party_module() -> None:
    """``import truecount`` needs the standard library only."""
    lines = python("-X", "importtime", "-c", "import truecount").splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines[1:]}
    assert "truecount" in imported
    # What the interpreter imports of itself at its start is none of ours.
    bare = {
        line.rpartition("|")[2].strip().split(".")[0]
        for line in python("-X", "importtime", "-c", "").splitlines()[1:]
    }
    assert imported - bare - {"truecount"} <= sys.stdlib_module_names


def test_importing_opens_no_store() -> None:
    """Neither platformdirs nor sqlite3 is imported before a store is opened."""
    code = "import sys, truecount; sys.exit(bool({'platformdirs', 'sqlite3'} & set(sys.modules)))"
    python("-c", code)


def test_everything_public_is_documented() -> None:
    """Every public name has a docstring."""
    for name in truecount.__all__:
        thing = getattr(truecount, name)
        assert thing.__doc__, name
        if isinstance(thing, type):
            for attribute, value in vars(thing).items():
                if not attribute.startswith("_") and callable(value):
                    assert value.__doc__ or any(
                        getattr(base, attribute, None) for base in thing.__bases__
                    ), f"{name}.{attribute}"
