"""The protocol holds in simulated worlds, and fails in those that lack one of its remedies."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truecount.testing.simulation import (
    REMEDIES,
    Echoing,
    Findings,
    Restoring,
    explore,
)

COMMAND = "python -m truecount.testing.simulation"


def assert_clean(findings: Findings) -> None:
    """No world was in contradiction; else say how to replay the first ones."""
    replays = [f"{violation}\n  {COMMAND} {seed}" for seed, violation in findings.violations[:5]]
    assert not findings.violations, "\n".join(replays)


def test_no_seed_contradicts_the_protocol() -> None:
    """20,000 worlds of losses, delays, kills and clock jumps: nobody is told an untruth."""
    findings = explore(range(20_000))
    assert_clean(findings)
    assert findings.worlds == 20_000
    assert findings.tally["calls"] > 500_000


def test_everything_that_can_happen_does() -> None:
    """The worlds are as bad as they claim: each kind of event and outcome occurs often."""
    tally = explore(range(2_000)).tally
    network = {"replies lost", "requests lost", "requests late", "refused", "answers misdirected"}
    callers = {"interrupted", "unknown", "retries", "cancels", "kills", "forks", "purges"}
    assert all(tally[event] >= 20 for event in network | callers), tally


def test_requests_that_arrive_twice() -> None:
    """With ``fence=always``, requests that were answered and come again fool nobody either."""
    assert_clean(explore(range(4_000), Echoing))


def test_restored_backups() -> None:
    """A backup that is played back loses what came after it, which stamps seldom fail to notice."""
    with_stamps = explore(range(4_000), Restoring)
    without = explore(range(4_000), REMEDIES["stamps"].world)
    assert len(with_stamps.violations) <= 4  # where a history repeats itself stamp by stamp
    assert len(without.violations) > 20


RARE = {"fresh look": 36_000, "keys by condition": 10_500}
"""Where to begin with a remedy that few worlds miss: the first that does is a minute away."""


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_is_needed(name: str) -> None:
    """Without this remedy some world goes wrong, so it is no superstition, and would be missed."""
    first = RARE.get(name, 0)
    world = REMEDIES[name].world
    findings = explore(range(first, first + 60_000), world, until_violation=True)
    assert findings.violations, f"{findings.worlds:,} worlds do without {name!r}"


def test_a_seed_is_replayed_by_its_command() -> None:
    """A failing seed is printed with the command that replays it, and fails there again."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "truecount.testing.simulation", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = run("0:3000", "--without", "receipts")
    assert found.returncode == 1
    replay = next(line for line in found.stdout.splitlines() if "replay: " in line)
    seed, *without = replay.partition(f"{COMMAND} ")[2].replace("'", "").split()
    again = run(seed, *without)
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == found.stdout.splitlines()[0]
    assert "0 of them in contradiction" in run(seed).stdout
