"""What an argument stands for that was not given, where None already means something."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

__all__ = ["CONFIGURED", "STORED", "UNCHANGED", "Configured", "Default", "Stored", "Unchanged"]


class Default(Enum):
    """A stand-in for an argument that was not given."""

    STORED = "the bounds that the counter has"
    UNCHANGED = "the bound stays as it is"
    CONFIGURED = "what the store's URL says"

    def __repr__(self) -> str:
        return self.name


STORED: Final = Default.STORED
UNCHANGED: Final = Default.UNCHANGED
CONFIGURED: Final = Default.CONFIGURED

Stored: TypeAlias = Literal[Default.STORED]
Unchanged: TypeAlias = Literal[Default.UNCHANGED]
Configured: TypeAlias = Literal[Default.CONFIGURED]
