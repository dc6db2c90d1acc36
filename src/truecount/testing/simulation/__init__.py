"""A simulated world in which everything goes wrong, and the truth kept beside it.

One seed makes one world: a store, a network that delays, loses, repeats and
reorders requests, and a few processes with several callers each, all on one
counter. The processes run the very plans and lines that run in production;
only the driver is another. After every write the record is held against what
the changes add up to, and after every call what the caller was told against
what really happened.

    python -m truecount.testing.simulation 0:20000
    python -m truecount.testing.simulation 4711 --without fences

`REMEDIES` takes the protocol's remedies away one by one, and shows that worlds
without them go wrong.
"""

from truecount.testing.simulation.explore import Findings, explore
from truecount.testing.simulation.remedies import REMEDIES, Echoing, Remedy, Restoring
from truecount.testing.simulation.truth import Violation
from truecount.testing.simulation.world import World

__all__ = [
    "REMEDIES",
    "Echoing",
    "Findings",
    "Remedy",
    "Restoring",
    "Violation",
    "World",
    "explore",
]
