"""Negative controls: who counts wrong is convicted, by the same harness and the same checker.

Those that take longer than a test may are convicted by ``make soak``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import there
from truecount.testing.simulation import REMEDIES
from truecount.testing.soak.controls import CONTROLS, SIMULATED, convict
from truecount.testing.soak.run import soak
from truecount.testing.soak.sites import SITES

FAST = [
    "redis-py, INCRBY",
    "redis-py, GET then SET",
    "boto3, compare and set",
    "without new horizon",
    "without monotone time",
    "without fork",
    "without sealed batches",
    "without own receipt",
    "without running sums",
    "without retry goes on",
]


@pytest.mark.parametrize("name", FAST)
def test_a_control_is_convicted(name: str) -> None:
    """What these clients were told cannot have been, and the checker finds that within seconds."""
    assert there(lambda: convict(CONTROLS[name])).of


@pytest.mark.parametrize("load", ["adds", "mortal"])
def test_ours_is_not(tmp_path: Path, load: str) -> None:
    """With all remedies the same clients in the same weather are told no untruth."""
    control = next(c for c in CONTROLS.values() if c.load == load and "late" in c.weather)
    plan = control._replace(without="").plan(seconds=2, seed=4711)
    verdict = soak(SITES[control.site], control.site, tmp_path, plan).verdict
    assert not verdict.contradictions, verdict
    assert not verdict.undecided, verdict


def test_every_remedy_has_its_control() -> None:
    """No rule of the protocol is left out: the harness convicts without it, or the simulation."""
    controls = {control.without for control in CONTROLS.values() if control.without}
    assert controls | set(SIMULATED) == set(REMEDIES)
    assert not controls & set(SIMULATED)
