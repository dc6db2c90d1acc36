"""``python -m truecount.testing.simulation``: run seeds, and show what goes wrong."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from truecount.testing.simulation import REMEDIES, World, explore

COMMAND = "python -m truecount.testing.simulation"


def main() -> int:
    """Run the seeds that the command line names; 1 when something went wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Run simulated worlds.")
    parser.add_argument(
        "seeds", nargs="?", type=_seeds, default="0:20000", help="a seed, or FROM:TO"
    )
    parser.add_argument("--without", metavar="REMEDY", choices=REMEDIES, help=_remedies())
    parser.add_argument("--processes", type=int, help="how many share the work")
    options = parser.parse_args()

    seeds: range = options.seeds
    world = REMEDIES[options.without].world if options.without else World
    show = _show_progress(len(seeds)) if sys.stderr.isatty() else None
    findings = explore(seeds, world, processes=options.processes, progress=show)

    for seed, violation in findings.violations[:10]:
        without = f" --without '{options.without}'" if options.without else ""
        sys.stdout.write(f"{violation}\n    replay: {COMMAND} {seed}{without}\n")
    counts = ", ".join(f"{count:,} {what}" for what, count in findings.tally.most_common())
    sys.stdout.write(
        f"{findings.worlds:,} worlds, {len(findings.violations):,} of them in contradiction, "
        f"in {findings.seconds:.1f} s ({findings.rate:,.0f} calls a second)\n{counts}\n"
    )
    return 1 if findings.violations else 0


def _seeds(text: str) -> range:
    if not re.fullmatch("[0-9]+(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"write 5 or 0:20000, not {text!r}")
    first, colon, end = text.partition(":")
    return range(int(first), int(end) if colon else int(first) + 1)


def _show_progress(total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        sys.stderr.write(f"\r{done:,} of {total:,} worlds" + "\n" * (done == total))

    return show


def _remedies() -> str:
    return "without one of: " + "; ".join(f"{r.name} ({r.hole})" for r in REMEDIES.values())


if __name__ == "__main__":
    sys.exit(main())
