"""Which process this is: what names its writers, and what a fork must not inherit."""

from __future__ import annotations

import binascii
import itertools
import os
from collections.abc import Iterator

__all__ = ["Process", "Writer", "here", "known", "new_name"]


def new_name() -> str:
    """A name that no other writer has: 72 random bits in 12 characters."""
    return binascii.b2a_base64(os.urandom(9), newline=False).decode().translate(_URLSAFE)


_URLSAFE = str.maketrans("+/", "-_")


class Process:
    """A running process. ``birth`` is a name that no other one ever has."""

    __slots__ = ("birth", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.birth = new_name()


class Writer:
    """A process as a writer to one store: a name, and numbers that only grow.

    All its counters there share the name. A counter knows its batches by
    (name, number), so that a handle that is dropped and made anew goes on
    where the old one was, and takes no further place in the record.
    """

    __slots__ = ("name", "numbers", "process")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.name = new_name()
        self.numbers: Iterator[int] = itertools.count(1)

    def rename(self) -> str:
        """Go on under a fresh name; what was sent under the old one keeps its receipt."""
        self.name = new_name()
        return self.name


_here = Process(os.getpid())


def here() -> Process:
    """The process that is running. A fork is another one, whichever way it was made."""
    global _here
    if _here.pid != os.getpid():
        _here = Process(os.getpid())
    return _here


def known() -> Process:
    """The one that `here` has found, or the child of it that Python forked since.

    For who has asked `here` in the same call: that asks the kernel, which takes longer.
    """
    return _here


def _forked() -> None:
    # Not left to the comparison of pids, which come round again.
    global _here
    _here = Process(os.getpid())


os.register_at_fork(after_in_child=_forked)
