"""To spin: to look again and again for what comes in less time than it takes to be woken.

A processor that nobody wants is halted, and who is woken goes on late, often on another
one, which has none of its memory in the caches. Who spins gives the processor to whoever
else wants it at every look, and soon sleeps after all (Karlin, Li, Manasse and Owicki,
"Empirical Studies of Competitive Spinning for a Shared-Memory Multiprocessor", 1991).
"""

from __future__ import annotations

import os
import time
from typing import Final

__all__ = ["NAP", "pause"]

NAP: Final = 0.00002
"""Seconds between two looks at what is about to change, for who does not spin."""

LOOKS: Final = 256
"""Looks in a row, after which this process's other threads may go on too.

Python's lock is had again before a thread that waits for it is awake.
"""


def pause(looks: int) -> None:
    """Pause before the next look, after so many."""
    if looks % LOOKS:
        os.sched_yield()
    else:
        time.sleep(NAP)
