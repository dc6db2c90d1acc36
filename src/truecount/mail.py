"""What the processes of a machine leave for each other about one counter: a file.

Whoever waits for its turn posts its batch there. The one who has the turn
collects what was posted, sends it along with its own, and answers. It also
leaves the record that it has written, which the next one need not read.

Anybody may be killed at any moment, and the file be lost: who finds its batch
collected and not answered asks the store, where its receipt is or is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import stat
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from truecount.bell import Bell, ring
from truecount.change import DECIDED, Add, Answer, Batch
from truecount.errors import DamagedRecordError
from truecount.record import Ledger, Record, make
from truecount.settle import repeat
from truecount.spin import pause

__all__ = ["Letter", "Mail", "folder"]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

PLACES: Final = 64
"""How many batches may lie there at once; who finds no place waits for its turn without."""

SIZE: Final = 8192
"""Bytes that one of them has there: enough for an answer with values and bounds of 500 digits."""

BRIEFLY: Final = 0.001
"""Seconds to wait for who has the lock, by those who can do without."""

PATIENTLY: Final = 0.1
"""Seconds to wait for it by the others. It is not had for long, but by who is stopped meanwhile."""

LIFE: Final = 1.0
"""Seconds for which a batch can be collected at most."""

GRACE: Final = 10.0
"""Seconds after which nobody asks any more what became of a batch that was collected."""

# What has become of a batch at its place.
FREE: Final = 0
POSTED: Final = 1
COLLECTED: Final = 2
ANSWERED: Final = 3

# State, until when it may be collected (of the machine's monotonic clock), and which it is.
_HEAD: Final = struct.Struct("<Bd16s")
_HEADS: Final = _HEAD.size * PLACES
_LEFT: Final = SIZE * (PLACES + 1)  # where the record is left; the heads have what is before them
_ERRORS: Final = OSError, ValueError, DamagedRecordError


def folder() -> str:
    """The folder for it: of this user's alone, and for all processes of the machine.

    `OSError` where there can be none, or it is not safe.
    """
    path = os.path.join(tempfile.gettempdir(), f"truecount-{os.getuid()}")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise
    return path


class Letter(NamedTuple):
    """A batch that was posted, and the ``place`` and ``mark`` by which it is answered.

    It may be collected, and sent for the first time, ``until`` an instant of the monotonic clock.
    """

    place: int
    mark: bytes
    until: float
    batch: Batch


def _locked(
    seconds: float, otherwise: U
) -> Callable[[Callable[Concatenate[Mail, P], T]], Callable[Concatenate[Mail, P], T | U]]:
    """Has a method wait for the lock, for so long; ``otherwise`` is what it returns in vain.

    No context manager: struck on its way out, it would keep the lock as long as it is kept.
    """

    def decorate(
        method: Callable[Concatenate[Mail, P], T],
    ) -> Callable[Concatenate[Mail, P], T | U]:
        @functools.wraps(method)
        def locked(mail: Mail, /, *args: P.args, **options: P.kwargs) -> T | U:
            try:
                try:
                    mail.lock(seconds)
                    return method(mail, *args, **options)
                finally:  # even if it was not had: who is struck in between does not know
                    fcntl.flock(mail._file, fcntl.LOCK_UN)
            except _ERRORS:
                return otherwise

        return locked

    return decorate


class Mail:
    """The file at ``path``. Those of one number share it, so that all in it is sealed.

    Errors are swallowed: what could not be posted was not, and what cannot be
    told is in doubt. The lock is a process's: of its threads only the one who has
    the turn among them may use it.
    """

    def __init__(self, path: str) -> None:
        # Kept open, and never cut short: ext4 writes out at once what takes a cut file's place.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path
        self._place = 0  # of the latest letter from here
        self._bell: Bell | None = None  # the one there
        self._close = weakref.finalize(self, os.close, self._file)
        self._close.atexit = False  # daemon threads go on
        _all.add(self)

    def forget(self) -> None:
        """Close the file, which is the parent's: nothing comes of anything any more."""
        self._file = -1
        self._close()

    # The record

    def left(self, counter: bytes) -> Record | None:
        """What the last one left of ``counter``."""
        with contextlib.suppress(*_ERRORS):
            text = self._read(counter, _LEFT, os.fstat(self._file).st_size - _LEFT)
            return None if text is None else _record(text)
        return None  # nobody has left one, or was killed over it, or it is another version's

    def leave(self, counter: bytes, record: Record) -> None:
        """Leave ``record`` for the next one."""
        with contextlib.suppress(OSError):  # the next one reads it in the store
            self._write(counter, _LEFT, _text(record))

    # Batches

    @_locked(BRIEFLY, None)
    def post(self, counter: bytes, batch: Batch, seconds: float) -> Letter | None:
        """Have ``batch``, additions without keys, sent by another within so many ``seconds``.

        None: there is no place for it.
        """
        amounts = [change.amount for change in batch.changes if isinstance(change, Add)]
        text = " ".join(map(str, (*batch[:3], *amounts)))
        mark = hashlib.sha256(counter + repr(batch[:2]).encode()).digest()[:16]
        now = time.monotonic()  # under the lock, or what was posted meanwhile seems to be to come
        for place in (*range(self._place, PLACES), *range(self._place)):  # ours is likely free
            state, until, _ = self._head(place)
            if state == FREE or not now - GRACE < until <= now + LIFE:
                if place != self._place:
                    self._place, self._bell = place, None
                if not self._write(counter, SIZE * (place + 1), text, SIZE):
                    return None
                letter = Letter(place, mark, now + min(seconds, LIFE), batch)
                with contextlib.suppress(OSError):  # then it may be there or not
                    self._move(letter, POSTED)
                return letter
        return None

    def bell(self, letter: Letter) -> Bell | None:
        """What rings when ``letter``, the latest from here, is answered, or the turn is free."""
        try:
            if self._bell is None:
                self._bell = Bell(self._bell_at(letter.place))
        except OSError:
            return None
        return self._bell

    def is_answered(self, letter: Letter) -> bool:
        """Whether `take_back` has the answer."""
        try:
            return self._head(letter.place)[0] == ANSWERED
        except OSError:
            return False

    def take_back(self, counter: bytes, letter: Letter) -> Answer | bool:
        """What became of it: the answer, or whether nobody has sent it, nor will."""
        if self.is_answered(letter):  # then nobody else touches it any more
            with contextlib.suppress(*_ERRORS):
                return self._take_back(counter, letter)
        return self._take_back_alone(counter, letter)

    @_locked(PATIENTLY, False)
    def _take_back_alone(self, counter: bytes, letter: Letter) -> Answer | bool:
        return self._take_back(counter, letter)

    def _take_back(self, counter: bytes, letter: Letter) -> Answer | bool:
        state, _, mark = self._head(letter.place)
        if mark != letter.mark:
            return False
        text = None
        if state == ANSWERED:  # to be read before the place is somebody else's
            text = self._read(counter, SIZE * (letter.place + 1), SIZE)
        self._set(letter.place, FREE, 0.0, bytes(16))
        if state == POSTED:
            return True
        answer = text and repeat(_record(text), letter.batch)
        return answer if answer and answer.verdict == DECIDED else False

    def is_empty(self) -> bool:
        """Whether nothing is posted at all."""
        try:  # suppress() takes longer than all the rest
            return POSTED not in self._states()
        except OSError:
            return True

    def call(self) -> None:
        """Wake one whose batch nobody has collected: the turn is free."""
        try:
            place = self._states().find(POSTED)
        except OSError:
            return
        if place >= 0:
            ring(self._bell_at(place))

    def collect(self, counter: bytes, most: int) -> tuple[Letter, ...]:
        """What was posted about ``counter``, ``most`` of it: to be answered, or put back."""
        letters: list[Letter] = []
        try:
            now = time.monotonic()
            for place in [place for place, state in enumerate(self._states()) if state == POSTED]:
                _, until, mark = self._head(place)
                if not now < until <= now + LIFE or len(letters) >= most:
                    continue
                text = self._read(counter, SIZE * (place + 1), SIZE)
                if text is not None:  # else it is about another counter
                    letters.append(Letter(place, mark, until, _batch(text)))
        except _ERRORS:
            return ()
        return self._collect(letters)  # others wait for the lock: they are read before it

    @_locked(BRIEFLY, ())
    def _collect(self, letters: Iterable[Letter]) -> tuple[Letter, ...]:
        there = tuple(letter for letter in letters if self._is(letter, POSTED))
        for letter in there:
            self._move(letter, COLLECTED)
        return there

    @_locked(PATIENTLY, None)
    def answer(self, counter: bytes, letters: Iterable[Letter], record: Record) -> None:
        """Tell that ``record``, which has their receipts, was written."""
        for letter in self._awaited(letters):
            about = record.ledger.about(letter.batch.writer)
            text = _text(record._replace(ledger=about))
            if self._write(counter, SIZE * (letter.place + 1), text, SIZE):
                self._move(letter, ANSWERED)
                ring(self._bell_at(letter.place))  # at once: to hear it no lock is needed

    @_locked(PATIENTLY, None)
    def put_back(self, letters: Iterable[Letter]) -> None:
        """Tell that they were not sent, nor will be."""
        for letter in self._awaited(letters):
            self._move(letter, POSTED)

    def _awaited(self, letters: Iterable[Letter]) -> list[Letter]:
        """Those of which somebody still wants to know. Under the lock."""
        return [letter for letter in letters if self._is(letter, COLLECTED)]

    def _is(self, letter: Letter, state: int) -> bool:
        found, _, mark = self._head(letter.place)
        return found == state and mark == letter.mark

    # The file

    def _bell_at(self, place: int) -> str:
        return f"{self._path}-{place}"

    def lock(self, seconds: float) -> None:
        """Have the batches to oneself. `OSError` when somebody keeps them for so long."""
        end = time.monotonic() + seconds
        for looks in itertools.count(1):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                pause(looks)  # to sleep takes longer than it is had

    def _move(self, letter: Letter, state: int) -> None:
        self._set(letter.place, state, letter.until, letter.mark)

    def _states(self) -> bytes:
        """The states of all places, a byte each."""
        return os.pread(self._file, _HEADS, 0)[:: _HEAD.size]

    def _head(self, place: int) -> tuple[int, float, bytes]:
        head = os.pread(self._file, _HEAD.size, _HEAD.size * place)
        return _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))

    def _set(self, place: int, state: int, until: float, mark: bytes) -> None:
        os.pwrite(self._file, _HEAD.pack(state, until, mark), place * _HEAD.size)

    def _read(self, counter: bytes, start: int, size: int) -> str | None:
        """The text at ``start``, if it is whole, and about ``counter``."""
        whole = os.pread(self._file, size, start)
        text = whole[36 : 36 + int.from_bytes(whole[32:36])]
        return text.decode() if whole[:32] == _seal(counter, text) else None

    def _write(self, counter: bytes, start: int, text: str, size: int | None = None) -> bool:
        """Write ``text`` there; whether it fits into ``size`` bytes."""
        data = text.encode()
        if size is not None and len(data) + 36 > size:
            return False
        os.pwrite(self._file, _seal(counter, data) + len(data).to_bytes(4) + data, start)
        return True


_all: weakref.WeakSet[Mail] = weakref.WeakSet()


def _forked() -> None:
    for mail in _all:
        mail.forget()


os.register_at_fork(after_in_child=_forked)


def _batch(text: str) -> Batch:
    writer, *numbers = text.split(" ")
    number, since, *amounts = map(int, numbers)
    return Batch(writer, number, since, tuple([make(Add, (amount, None)) for amount in amounts]))


def _seal(counter: bytes, text: bytes) -> bytes:
    """What shows that ``text`` is whole, about that counter, and of this life of the machine."""
    return hashlib.sha256(b"truecount 3" + _BOOT + counter + text).digest()


def _boot() -> bytes:
    """What is another each time that the machine is started, where that can be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read()
    except OSError:
        return b""


_BOOT: Final = _boot()


def _text(record: Record) -> str:
    fields = record.value, int(record.deleted), record.horizon, record.ledger.text
    return "\n".join(map(str, fields))


def _record(text: str) -> Record:
    value, deleted, horizon, ledger = text.split("\n", 3)
    return Record.of(value, int(deleted), horizon, Ledger(ledger))
