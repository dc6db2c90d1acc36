"""Unknown outcomes, lying in a folder until somebody settles them: any process may."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from random import Random

from truecount import CounterError, OutcomeUnknownError
from truecount.process import new_name
from truecount.testing.history import CallName, Recorder

__all__ = ["Unsolved"]


class Unsolved:
    """The `OutcomeUnknownError` that were put into ``folder``, by any process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, error: OutcomeUnknownError, name: CallName) -> None:
        """Leave ``error`` there, raised by the call ``name``."""
        path = self.folder / new_name()
        path.write_bytes(pickle.dumps((error, name)))
        path.rename(path.with_suffix(".unknown"))  # whole, or not there

    def all(self) -> list[Path]:
        """What is there."""
        return sorted(self.folder.glob("*.unknown"))

    def settle(self, path: Path, recorder: Recorder, dice: Random, timeout: float) -> bool:
        """Retry or cancel what is at ``path``; whether that is the end of it. It stays there."""
        error, name = pickle.loads(path.read_bytes())  # noqa: S301  # a process of ours wrote it
        try:
            if dice.random() < 0.5:
                recorder.retry(error, name, timeout=timeout)
            else:
                recorder.cancel(error, name, timeout=timeout)
        except OutcomeUnknownError as unknown:
            return unknown.__cause__ is None  # it cannot be told any more
        except CounterError:
            return True  # refused, for good
        return True

    def settle_one(self, recorder: Recorder, dice: Random, timeout: float) -> None:
        """Settle one of them, maybe not for the last time."""
        if paths := self.all():
            path = dice.choice(paths)
            with contextlib.suppress(FileNotFoundError):  # somebody else was first
                if self.settle(path, recorder, dice, timeout) and dice.random() < 0.3:
                    path.unlink()
