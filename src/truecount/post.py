"""A place in the queue for the turn, from which whoever has the turn may send a batch.

It is posted while its process waits, and sent in the same request or transaction as
another's. Whoever posted it is answered then; or nobody has sent it, nor will; or it
is in doubt, as after a lost reply, and only the store can tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from truecount.backoff import Hope
from truecount.change import Answer, Batch
from truecount.record import Record
from truecount.turn import Place, Turn

if TYPE_CHECKING:
    from truecount.mail import Letter, Mail

__all__ = ["Office", "Post"]

UNHEARD: Final = 0.005
"""Seconds after which who waits looks by itself: whoever should ring may have been killed."""

LONGEST: Final = 1.0
"""Seconds to wait at a bell for who has no end."""

MOST: Final = 16
"""Batches of others that travel in one request, at most."""


class Office(Turn):
    """The turn to write ``path``, and the mail of those who wait for it, opened when needed.

    ``name`` is that of its file in the machine's folder for mail.
    """

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path)
        self._name = name
        self._mail: Mail | None = None
        self.hope = Hope()  # that others send what is posted

    def mail(self) -> Mail | None:
        """The mail; None where there can be none. For who has the turn in this process."""
        if self._mail is None:
            from truecount.mail import Mail, folder  # not before there are others

            try:
                self._mail = Mail(os.path.join(folder(), self._name))
            except OSError:
                return None
        return self._mail

    def freed(self) -> None:
        """Wake one whose batch was not collected."""
        mail = self.mail()
        if mail is not None:
            mail.call()


class Post(Place):
    """What is posted from this place, and the ``letters`` that were collected for it to send.

    ``counter`` makes what stands for the counter in the mail of ``office``. ``batch`` is what
    others may send, if it holds nothing but additions without keys. Who is neither answered
    nor has the turn in ``patience`` seconds, queues; and if ``sparing``, who waits queues at
    once where to post has been in vain.
    """

    def __init__(
        self,
        office: Office,
        counter: Callable[[], bytes],
        batch: Batch | None,
        patience: float,
        *,
        sparing: bool = False,
    ) -> None:
        self._office = office
        self._counter_of = counter
        self._counter: bytes | None = None
        self._batch = batch
        self._patience = patience
        self._sparing = sparing
        self._posted: Letter | None = None  # where the batch lies
        self.letters: dict[Letter, bool] = {}  # and whether each may be on its way
        self._brought: list[Letter] = []  # those for which that is new, with the latest request

    # What others send

    def wait(self, try_turn: Callable[[], bool], timeout: float | None) -> bool | None:
        """Wait for the turn, or until another process has sent the batch."""
        if self._batch is None or self._posted is not None or not self._batch.plain:
            return None
        office = self._office
        if self._sparing and not office.hope.is_left():
            return None  # as when two take turns: each has the turn when the other has posted
        mail = office.mail()
        if mail is None:
            return None
        seconds = LONGEST if timeout is None else timeout
        end = time.monotonic() + min(seconds, self._patience)
        letter = self._posted = mail.post(self._name(), self._batch, seconds)
        bell = None if letter is None else mail.bell(letter)
        if letter is None or bell is None:
            return None
        crowd = len(self._batch.changes) > 1  # one caller alone does not gain by it
        while True:
            if mail.is_answered(letter):
                self.served = True
                return True
            if try_turn():
                return True
            left = end - time.monotonic()
            if left <= 0:
                return None
            try:
                bell.wait(min(left, UNHEARD), spin=crowd)
            except OSError:
                return False  # forked meanwhile

    def take_back(self) -> tuple[Answer | None, bool]:
        """The answer to the batch, and whether it may be on its way without one.

        From now on it is not posted any more: nobody would look for the answer.
        """
        self._batch = None
        letter, self._posted = self._posted, None
        mail = None if letter is None else self._office.mail()
        if letter is None or mail is None:
            return None, False
        found = mail.take_back(self._name(), letter)
        if isinstance(found, bool):
            return None, not found
        self._office.hope.fulfilled()
        return found, False

    # What others have posted

    def collect(self) -> bool:
        """Collect what was posted, as far as there is room for it; whether there is anything."""
        mail = self._office.mail()
        if mail is not None and not mail.is_empty():
            new = mail.collect(self._name(), MOST - len(self.letters))
            self.letters.update(dict.fromkeys(new, False))
        return bool(self.letters)

    def batches(self) -> tuple[Batch, ...]:
        """Those that were collected, as far as they may still be sent."""
        now = time.monotonic()
        return tuple([letter.batch for letter in self.letters if now < letter.until])

    def sends(self, record: Record) -> None:
        """Take note that ``record`` is about to be sent."""
        self._brought = []
        if self.letters:
            sure = [letter for letter, doubt in self.letters.items() if not doubt]
            self._brought = [letter for letter in sure if _has(record, letter.batch)]
            self.letters.update(dict.fromkeys(self._brought, True))

    def refused(self) -> None:
        """Take note that the store has not taken it, nor will."""
        self.letters.update(dict.fromkeys(self._brought, False))
        self.put_back()

    def answer(self, record: Record) -> None:
        """Take note that the store has taken ``record``: tell those who wait for that."""
        answered = [letter for letter in self.letters if _has(record, letter.batch)]
        mail = self._office.mail() if answered else None
        if mail is not None:
            mail.answer(self._name(), answered, record)

    def put_back(self) -> None:
        """Leave to others what was not sent."""
        if not self.letters:
            return
        unsent = [letter for letter, doubt in self.letters.items() if not doubt]
        # First: struck after it, this would put back what the next one has on its way.
        self.letters = {letter: True for letter, doubt in self.letters.items() if doubt}
        mail = self._office.mail() if unsent else None
        if mail is not None:
            mail.put_back(unsent)

    def leave(self) -> None:
        """Have nothing more to do with what was posted; may be repeated."""
        self.take_back()
        self.put_back()

    def _name(self) -> bytes:
        """What stands for the counter in the mail."""
        if self._counter is None:
            self._counter = self._counter_of()
        return self._counter


def _has(record: Record, batch: Batch) -> bool:
    return record.ledger.knows(batch.writer, batch.number)
