"""The demonstration: the counter's main job, done before the reader's eyes.

Everything it shows is really done, on stores that are thrown away afterwards,
and everything it claims is checked: a deviation ends it with an error.
"""

from __future__ import annotations

import time

from rich.console import Console

from truecount.cli.demo import embedded, simpledb
from truecount.cli.demo.stage import Deviation, terminable

__all__ = ["Deviation", "play"]


def play(*, fast: bool = False) -> None:
    """Play the demonstration; raise `Deviation` when it does not go as it says."""
    console = Console(highlight=False)
    began = time.monotonic()
    with terminable():
        embedded.act(console, fast=fast)
        simpledb.act(console, fast=fast)
    console.print(f"\nAll as promised, in {time.monotonic() - began:.1f} s.")
