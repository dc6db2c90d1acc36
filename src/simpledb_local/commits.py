"""Many writes, one commit.

All requests that arrive together write into one transaction, which is
committed, and so brought to the disk, once they have had their turn. No answer
leaves before that: neither a write's, nor that of a read that saw the write.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

__all__ = ["Commits"]


class Commits:
    """The transaction that is open on a connection, if one is.

    ``forget`` is called when it had to be rolled back.
    """

    def __init__(self, sql: sqlite3.Connection, forget: Callable[[], None]) -> None:
        self._sql = sql
        self._forget = forget
        self._open = False
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self) -> None:
        """Open a transaction, unless one is; it ends before the event loop comes round again."""
        if not self._open:
            self._sql.execute("BEGIN IMMEDIATE")
            self._open = True
            asyncio.get_running_loop().call_soon(self.commit)

    async def done(self) -> None:
        """Wait for the end of the transaction; raise `sqlite3.Error` if it failed."""
        if self._open:
            # One for each who waits: cancelling one must not cancel the others.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def commit(self) -> None:
        """End the transaction, for those who wait for it."""
        if not self._open:
            return
        try:
            self._sql.execute("COMMIT")
        except sqlite3.Error as error:
            self.abandon(error)
        else:
            self._end(None)

    def abandon(self, error: sqlite3.Error) -> None:
        """Undo the transaction, of which a part failed with ``error``."""
        try:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
        finally:
            self._end(error)
            self._forget()

    def _end(self, error: sqlite3.Error | None) -> None:
        self._open = False
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
