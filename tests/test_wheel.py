"""What users install: the wheel, built and looked into."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_contents(wheel: zipfile.ZipFile) -> None:
    """Every module is in it, with the marker of typed packages and the licence, and no test."""
    names = set(wheel.namelist())
    source = ROOT / "src"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    assert modules <= names
    data = {"simpledb_local/py.typed", "simpledb_local/select.lark", "truecount/py.typed"}
    assert data <= names
    assert not {name for name in names - modules - data if ".dist-info/" not in name}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_requirements(wheel: zipfile.ZipFile) -> None:
    """It requires platformdirs and nothing else; the rest are extras."""
    (name,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
    lines = wheel.read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist: ")]
    always = [line for line in required if "extra ==" not in line]
    assert always == ["Requires-Dist: platformdirs>=4"]
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if "Provides-Extra" in line}
    stores = {"dynamodb", "etcd", "postgresql", "redis", "simpledb"}
    assert {"all", "cli", "simpledb-local", "testing", *stores} <= extras


def test_it_works(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked elsewhere it counts, without any third-party module."""
    wheel.extractall(tmp_path / "lib")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n"
        "from truecount import Counter\n"
        f"c = Counter('mydomain', 'counter1', store='sqlite:///{tmp_path}/c.db')\n"
        "c += 1\n"
        "print(c, 'site' in sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout == "1 False\n"
