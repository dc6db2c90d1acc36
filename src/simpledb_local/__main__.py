"""The command ``simpledb-local``, and ``python -m simpledb_local``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the server as ``sys.argv`` says, and exit with its status."""
    try:
        from simpledb_local.cli import cli
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "simpledb_local":
            raise
        sys.stderr.write(
            f"simpledb-local: it needs the module {error.name!r}, which comes with an extra: "
            "pip install 'truecount[simpledb-local]'\n"
        )
        sys.exit(2)
    cli(prog_name="simpledb-local")


if __name__ == "__main__":
    main()
