"""A short soak of every store: the long ones are ``make soak``'s, into docs/evidence.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tools.installed import dynalite

from helpers import missing, there
from truecount.testing.soak.crew import faketime
from truecount.testing.soak.run import Pace, Plan, soak
from truecount.testing.soak.series import described
from truecount.testing.soak.sites import SITES, DynaliteSite, Site


def on_dynalite(folder: Path) -> Site:
    """DynamoDB without transactions, which keeps its data."""
    return DynaliteSite(folder, dynalite)


STORES: dict[str, Callable[[Path], Site]] = {**SITES, "dynalite": on_dynalite}

ROUND = Plan(seconds=4, seed=4711, pace=Pace(0.33, 1, 1, 1), clients=2)
"""Every kind of fault, once at least."""


@pytest.mark.parametrize("name", STORES)
def test_a_short_soak(tmp_path: Path, name: str) -> None:
    """All that a counter can do, by processes that all faults befall: nobody is told an untruth."""
    if faketime() is None:
        missing("libfaketime")
    findings = there(lambda: soak(STORES[name], name, tmp_path, ROUND))
    assert not findings.verdict.contradictions, described(findings)
    assert not findings.shortfalls(operations=50, each=1), described(findings)
