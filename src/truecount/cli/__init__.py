"""The command line ``truecount``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its status."""
    try:
        import click  # noqa: F401  # only to see whether the extra is there
        import rich  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"truecount: the command line needs the module {error.name!r}, which comes with an "
            "extra: pip install 'truecount[cli]'\n"
        )
        sys.exit(2)
    from truecount.cli.commands import run
    from truecount.cli.output import show_store_warnings

    show_store_warnings()
    sys.exit(run())
