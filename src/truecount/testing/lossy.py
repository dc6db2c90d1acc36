"""What `truecount.testing.faulty` was called when it could only lose."""

from truecount.testing.faulty import ComparingStore
from truecount.testing.faulty import FaultyStore as LossyStore

__all__ = ["ComparingStore", "LossyStore"]
