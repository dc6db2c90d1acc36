"""Negative controls: who counts wrong is convicted, by the same harness and the same checker.

Those that take longer than a test may are convicted by ``make soak``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import there
from truecount.testing.simulation import REMEDIES
from truecount.testing.soak.controls import CONTROLS, SIMULATED, Control, convict
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


def innocents() -> dict[str, Control]:
    """An innocent twin of every control, under the name of the first that it is of."""
    found: dict[str, Control] = {}
    for name, control in CONTROLS.items():
        if control.innocent not in found.values():
            found[name] = control.innocent
    return found


@pytest.mark.parametrize("name", innocents())
def test_ours_is_not(tmp_path: Path, name: str) -> None:
    """With all remedies the same clients in the same weather are told no untruth."""
    control = innocents()[name]
    plan = control.plan(seconds=2, seed=4711)
    verdict = there(lambda: soak(SITES[control.site], control.site, tmp_path, plan)).verdict
    assert not verdict.contradictions, verdict
    assert not verdict.undecided, verdict
    assert verdict.calls > 20  # on the slowest of stores


def test_every_remedy_has_its_control() -> None:
    """No rule of the protocol is left out: the harness convicts without it, or the simulation."""
    controls = {control.without for control in CONTROLS.values() if control.without}
    assert controls | set(SIMULATED) == set(REMEDIES)
    assert not controls & set(SIMULATED)
