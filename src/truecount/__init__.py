"""An integer that lives in a database and is never wrong.

>>> from truecount import Counter
>>> c = Counter('mydomain', 'visitors')
>>> c += 1
>>> print(c)
1
"""

from typing import TYPE_CHECKING, Any

from truecount import counter
from truecount.change import Receipt
from truecount.connect import connect
from truecount.counter import Counter
from truecount.defaults import STORED, UNCHANGED
from truecount.domain import Domain
from truecount.errors import (
    BoundsError,
    BoundsMismatchError,
    CounterError,
    CounterNotFoundError,
    DamagedRecordError,
    InvalidNameError,
    InvalidTypeError,
    KeyReusedError,
    MissingDriverError,
    OutcomeUnknownError,
    OutOfSyncError,
    ReceiptNotFoundError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreURLError,
    StoreWarning,
)
from truecount.stores.base import Store

if TYPE_CHECKING:
    from truecount.aio import AsyncCounter, AsyncDomain

__all__ = [
    "STORED",
    "UNCHANGED",
    "AsyncCounter",
    "AsyncDomain",
    "BoundsError",
    "BoundsMismatchError",
    "Counter",
    "CounterError",
    "CounterNotFoundError",
    "DamagedRecordError",
    "Domain",
    "InvalidNameError",
    "InvalidTypeError",
    "KeyReusedError",
    "MissingDriverError",
    "OutOfSyncError",
    "OutcomeUnknownError",
    "Receipt",
    "ReceiptNotFoundError",
    "Store",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreTimeoutError",
    "StoreURLError",
    "StoreUnavailableError",
    "StoreWarning",
    "connect",
    "counter",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Bring in what awaits when somebody asks for it: most programs do not."""
    if name in ("AsyncCounter", "AsyncDomain"):
        from truecount import aio

        return getattr(aio, name)
    raise AttributeError(f"module 'truecount' has no attribute {name!r}")
