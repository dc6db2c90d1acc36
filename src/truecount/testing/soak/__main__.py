"""``python -m truecount.testing.soak``: soak stores, and say what was found."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from truecount.testing.soak.series import described, interrupted, series
from truecount.testing.soak.sites import SITES

COMMAND = "python -m truecount.testing.soak"


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak what the command line names; 1 when one of them fails."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Soak stores.")
    parser.add_argument(
        "--store", action="append", choices=SITES, help="may be repeated; every one by default"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for each; 10 by default")
    parser.add_argument("--jobs", type=int, default=1, help="so many stores at once; 1 by default")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args(arguments)
    failed = []
    try:
        stores = options.store or SITES
        for found, wrong in series(stores, options.minutes * 60, options.seed, options.jobs):
            sys.stdout.write(described(found) if found else "")
            failed += wrong
    except KeyboardInterrupt:
        return interrupted()
    for what in failed:
        sys.stderr.write(f"FAILED: {what}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
