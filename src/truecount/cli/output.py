"""What is written: answers to stdout, words to stderr, and what becomes of neither.

A command that changed something must not look like a crash because its answer
could not be written: a script would run it again, and count twice.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any, TextIO

import click

from truecount.errors import StoreWarning

__all__ = ["AnswerLostError", "NobodyReadsError", "forget", "say", "show_store_warnings", "stdout"]


class NobodyReadsError(Exception):
    """Whoever read the output has had enough."""


class AnswerLostError(Exception):
    """The answer could not be written."""


class _Descriptor(io.FileIO):
    """A file whose errors can be told from those of every other file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise NobodyReadsError from error
        except OSError as error:
            raise AnswerLostError(error.strerror) from error


def stdout() -> TextIO:
    """Python's stdout, with errors of our own, and an escape for every character it lacks."""
    if sys.stdout is None:  # closed: what cannot be written to fails at the first answer
        descriptor, encoding = os.open(os.devnull, os.O_RDONLY), "utf-8"
    else:
        descriptor, encoding = sys.stdout.fileno(), sys.stdout.encoding
    file = io.BufferedWriter(_Descriptor(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(file, encoding=encoding, errors="backslashreplace")


def say(words: str) -> None:
    """Write to stderr; where that fails, what was done is no less done."""
    try:
        click.echo(words, err=True)
    except OSError:
        forget(sys.stderr)


def show_store_warnings() -> None:
    """Have warnings of a store shown as people read one: in a line, without the code's."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, StoreWarning):
            say(f"truecount: warning: {message}")
        else:
            others(message, category, *where, **more)

    warnings.showwarning = show


def forget(file: TextIO) -> None:
    """Drop what could not be written to ``file``; Python would try again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
