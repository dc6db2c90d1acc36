"""The checker: it convicts what cannot have been, and nothing that can."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.histories import CERTAIN, write_history

from helpers import SPAWN
from truecount import (
    CounterError,
    CounterNotFoundError,
    Domain,
    OutcomeUnknownError,
    StoreUnavailableError,
    connect,
)
from truecount.testing.checker import NotAHistoryError, Verdict, check
from truecount.testing.faulty import ComparingStore, FaultyStore
from truecount.testing.history import FORMAT, HEADER, RecordedCounter, Recorder

_folders = itertools.count()


class Story:
    """A history told line by line. Revisions are counted from 100."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.call("open", 1, 2, initial=0, create=False, error="CounterNotFoundError")
        self.call("open", 3, 4, initial=0, create=True, view=(100, 0))

    def call(self, op: str, begin: int, end: int | None, by: str = "a", **facts: Any) -> int:
        """A call from ``begin`` to ``end``, None for one that did not return; its number."""
        header = {HEADER: FORMAT, "process": by, "pid": 1, "key_ttl": None}
        lines = self.files.setdefault(by, [header])
        told = ["error", "unknown", "done"]
        if "error" in facts and op not in ("open", "limit"):
            told += ["actual", "value", "minimum", "maximum"]
        came = {name: facts.pop(name) for name in told if name in facts}
        if "receipt" in facts:
            before, after, revision, *replayed = facts.pop("receipt")
            time = None if revision is None else revision * 10
            came["receipt"] = [before, after, revision, time, bool(replayed)]
        if "view" in facts:
            revision, value, *bounds = facts.pop("view")
            came["view"] = [revision, value, revision * 10, *(bounds or (None, None))]
        number = len(lines)
        lines.append({"t": begin, "call": number, "op": op, "at": ["mydomain", "c"], **facts})
        if end is not None:
            lines.append({"t": end, "ret": number, **came})
        return number

    def open_refused(self, begin: int, end: int, told: dict[str, Any], **facts: Any) -> None:
        """An opening that was refused, and what its error tells."""
        self.call("open", begin, end, **facts)
        self.files["a"][-1].update(told)

    def check(self) -> Verdict:
        """The verdict."""
        folder = self.folder / f"story{next(_folders)}"
        folder.mkdir()
        for name, lines in self.files.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return check([folder])


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def convicts(story: Story, words: str) -> None:
    """The story cannot be, and the first contradiction says so in ``words``."""
    verdict = story.check()
    assert verdict.contradictions, verdict
    texts = [found.text for found in verdict.contradictions]
    assert any(words in text for text in texts), texts
    assert "the first, of 'c' in 'mydomain'" in str(verdict)
    assert '"call"' in str(verdict)


def clears(story: Story) -> None:
    """The story can be."""
    assert not story.check().contradictions, story.check()


# Planted errors


def test_double_count(story: Story) -> None:
    """A change that was applied twice, and acknowledged once."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("add", 7, 8, n=3, receipt=(10, 13, 103))
    convicts(story, "begin at 10, but revision 101 had left 5; 1 revision between")


def test_lost_update(story: Story) -> None:
    """Two writers who read 0, and both wrote."""
    story.call("add", 5, 8, n=5, receipt=(0, 5, 101))
    story.call("add", 6, 9, by="b", n=3, receipt=(0, 3, 102))
    convicts(story, "begin at 0, but revision 101 had left 5")


def test_stale_read(story: Story) -> None:
    """A look that does not see what was acknowledged before it began."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("refresh", 7, 8, by="b", view=(100, 0))
    convicts(story, "revision 101 was known before a call began that saw revision 100")


def test_read_of_the_future(story: Story) -> None:
    """A look that sees what nobody had asked for yet."""
    story.call("refresh", 5, 6, by="b", view=(101, 5))
    story.call("add", 7, 8, n=5, receipt=(0, 5, 101))
    convicts(story, "revision 101 was known before a call began that made revision 101")


def test_stale_absence(story: Story) -> None:
    """A counter that is told to be absent after it had been created again."""
    story.call("delete", 5, 6)
    story.call("open", 7, 8, initial=0, create=True, view=(102, 0))
    clears(story)
    story.call("refresh", 9, 10, by="b", error="CounterNotFoundError")
    convicts(story, "there was a counter all the time")


def test_resurrection(story: Story) -> None:
    """A deleted counter that is there again, and nobody has created it."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("delete", 7, 8)
    story.call("add", 9, 10, n=3, receipt=(5, 8, 103))
    convicts(story, "the deletion that was acknowledged is nowhere")


def test_reordered_pair(story: Story) -> None:
    """A change that was applied before one that had ended when it began."""
    story.call("add", 5, 6, n=5, receipt=(3, 8, 102))
    story.call("add", 7, 8, n=3, receipt=(0, 3, 101))
    convicts(story, "revision 102 was known before a call began that made revision 101")


def test_bound_crossed(story: Story) -> None:
    """A value outside the bounds that held."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("add", 7, 8, n=12, receipt=(0, 12, 102), view=(102, 12, None, 10))
    convicts(story, "revision 102 left 12, outside the bounds none to 10")


def test_bounds_that_nobody_set(story: Story) -> None:
    """A bound that appears by itself."""
    story.call("refresh", 5, 6, view=(101, 0, None, 10))
    convicts(story, "the maximum became 10 by revision 101, which nobody had asked for")


def test_repeated_number(story: Story) -> None:
    """One number for two callers."""
    story.call("add", 5, 8, n=1, receipt=(0, 1, 101))
    story.call("add", 6, 9, by="b", n=1, receipt=(0, 1, 101))
    convicts(story, "the number 1 was handed out twice")


def test_repeated_block(story: Story) -> None:
    """One block of numbers for two callers."""
    story.call("reserve", 5, 8, n=3, receipt=(0, 3, None), view=(101, 3))
    story.call("reserve", 6, 9, by="b", n=3, receipt=(0, 3, None), view=(101, 3))
    convicts(story, "0 to 3 that was acknowledged is nowhere")


REFUSALS: dict[str, Callable[[Story], object]] = {
    "outside": lambda s: s.call("add", 7, 8, n=1, error="BoundsError", value=5),
    "outside of others": lambda s: s.call(
        "add", 7, 8, n=1, error="BoundsError", value=5, maximum=5
    ),
    "moved": lambda s: s.call(
        *("assign", 7, 8), expected=5, new=9, error="OutOfSyncError", actual=0
    ),
    "not moved": lambda s: s.call(
        *("assign", 7, 8), expected=5, new=9, error="OutOfSyncError", actual=5
    ),
    "false": lambda s: s.call("compare_and_set", 7, 8, expected=5, new=9, done=False),
    "absent": lambda s: s.call("add", 7, 8, n=1, error="CounterNotFoundError"),
    "reused": lambda s: s.call("add", 7, 8, n=1, key="k", error="KeyReusedError"),
    "mismatch": lambda s: s.call("open", 7, 8, initial=0, create=True, error="BoundsMismatchError"),
    "damaged": lambda s: s.call("refresh", 7, 8, error="DamagedRecordError"),
    "cancelled": lambda s: s.call("add", 7, 8, n=1, error="CounterError"),
    "of what expects nothing": lambda s: s.call("add", 7, 8, n=1, error="OutOfSyncError", actual=5),
    "of what has no key": lambda s: s.call("add", 7, 8, n=1, error="KeyReusedError"),
    "of what asks for no bounds": lambda s: s.call("add", 7, 8, n=1, error="BoundsMismatchError"),
    "unheard of": lambda s: s.call("add", 7, 8, n=1, error="NoSuchError"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_wrong_refusal(story: Story, refusal: str) -> None:
    """A refusal that was right at no instant of its call."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    clears(story)
    REFUSALS[refusal](story)
    convicts(story, "Error: ")


def test_wrong_refusal_beside_what_is_unknown(story: Story) -> None:
    """What is unknown may excuse a refusal only until somebody sees that nothing has happened."""
    story.call("add", 5, None, by="killed", n=5)
    story.call("assign", 7, 8, expected=0, new=9, error="OutOfSyncError")
    clears(story)
    story.call("refresh", 9, 10, view=(100, 0))
    convicts(story, "OutOfSyncError: ")


def test_opened_with_other_bounds(story: Story) -> None:
    """Who asks for bounds and is shown others ought to have been told of the mismatch."""
    story.call("limit", 5, 6, minimum=0, view=(101, 0, 0, None))
    story.call("open", 7, 8, initial=0, create=True, minimum=0, view=(101, 0, 0, None))
    clears(story)
    story.call("open", 9, 10, initial=0, create=True, minimum=7, view=(101, 0, 0, None))
    convicts(story, "it was opened with the minimum 7, and shows 0")


def test_bounds_that_nobody_asked_for(story: Story) -> None:
    """A refusal for bounds that were made up, where others were set and another asked for."""
    story.call("limit", 5, 6, maximum=1000, view=(101, 0, None, 1000))
    story.call("add", 7, 8, n=5, receipt=(0, 5, 102))
    clears(story)
    story.call("add", 9, 10, n=1, error="BoundsError", value=5, maximum=5)
    convicts(story, "BoundsError: ")


def test_a_mismatch_with_bounds_that_never_were(story: Story) -> None:
    """Who attaches is told of other bounds than were asked for, which nobody had set."""
    story.call("limit", 5, 6, maximum=7, view=(101, 0, None, 7))
    asked = {"initial": 0, "create": True, "maximum": 9, "error": "BoundsMismatchError"}
    story.open_refused(7, 8, told={"minimum": None, "maximum": 7}, **asked)
    clears(story)
    story.open_refused(9, 10, told={"minimum": None, "maximum": 8}, **asked)
    convicts(story, "BoundsMismatchError: ")


def test_bounds_that_vanish(story: Story) -> None:
    """An acknowledged change of the bounds, and later looks that show the old ones."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("refresh", 7, 8, view=(101, 0, None, 10))
    clears(story)
    story.call("add", 9, 10, n=20, receipt=(0, 20, 102), view=(102, 20))
    convicts(story, "the maximum became none by revision 102, which nobody had asked for")


def test_bounds_of_a_refused_change(story: Story) -> None:
    """A change of the bounds that was refused, and whose bounds are there all the same."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("limit", 7, 8, maximum=3, error="BoundsError", value=5)
    clears(story)
    story.call("refresh", 9, 10, view=(102, 5, None, 3))
    convicts(story, "the maximum became 3 by revision 102, which nobody had asked for")


def test_bounds_set_too_late(story: Story) -> None:
    """Bounds that are seen before anybody has asked for them."""
    story.call("refresh", 5, 6, view=(101, 0, None, 10))
    story.call("limit", 7, 8, maximum=10, view=(102, 0, None, 10))
    convicts(story, "the maximum became 10 by revision 101, which nobody had asked for")


def test_bounds_between_two_looks(story: Story) -> None:
    """Bounds that were not seen are those before, those after, or of a change between them."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("limit", 7, None, by="b", maximum=50)
    story.call("add", 8, 9, n=12, create=True, receipt=(0, 12, 103))
    story.call("limit", 10, 11, maximum=15, view=(104, 12, None, 15))
    clears(story)


@pytest.mark.parametrize("told", [{"key": "k", "view": (102, 12, None, 10)}, {"create": True}])
def test_bound_crossed_under_a_key(story: Story, told: dict[str, Any]) -> None:
    """A change with a key, and one of `Domain.add`, is held to the bounds as any other."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("add", 7, 8, n=12, receipt=(0, 12, 102), **told)
    story.call("refresh", 9, 10, view=(102, 12, None, 10))
    convicts(story, "revision 102 left 12, outside")


def test_bound_crossed_and_not_seen(story: Story) -> None:
    """No bounds were seen of a revision; but none that may have held then allow its value."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("add", 7, 8, n=12, create=True, receipt=(0, 12, 102))
    story.call("add", 9, 10, n=-9, receipt=(12, 3, 103), view=(103, 3, None, 10))
    convicts(story, "revision 102 left 12, outside of every maximum that it may have had")


def test_bounds_that_were_never_there(story: Story) -> None:
    """An acknowledged change of the bounds of which nothing is seen, or no trace is left at all."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0))
    clears(story)
    story.call("add", 7, 8, n=3, receipt=(0, 3, 102), view=(102, 3))
    convicts(story, "the maximum was set to 10, and is none")


def test_bounds_that_left_no_trace(story: Story) -> None:
    """The counter is seen as it was before an acknowledged change of its bounds."""
    story.call("limit", 5, 6, maximum=10, view=(100, 0))
    story.call("refresh", 7, 8, view=(100, 0))
    convicts(story, "the maximum was set to 10, and is none")


def test_bounds_of_the_one_before(story: Story) -> None:
    """A counter that was created anew has the bounds that this was asked for with."""
    story.call("limit", 5, 6, minimum=0, view=(101, 0, 0, None))
    story.call("delete", 7, 8)
    story.call("open", 9, 10, initial=0, create=True, view=(103, 0))
    clears(story)
    story.call("delete", 11, 12)
    story.call("open", 13, 14, initial=0, create=True, view=(105, 0, 0, None))
    convicts(story, "the minimum became 0 by revision 105, which nobody had asked for")


def test_bound_crossed_by_what_is_unknown(story: Story) -> None:
    """What fills a gap is held to the bounds, too."""
    story.call("limit", 5, 6, maximum=100, view=(101, 0, None, 100))
    unknown = story.call("add", 7, 8, n=150, unknown="OutcomeUnknownError")
    story.call("cancel", 9, 10, of=["a", unknown], done=False)
    story.call("set", 11, 12, value=3, receipt=(150, 3, 103), view=(103, 3, None, 100))
    convicts(story, "revision 103 left 150, outside of every maximum")


@pytest.mark.parametrize("told", ["seen", "refused"])
def test_bounds_that_come_back(story: Story, told: str) -> None:
    """Bounds were set one after the other, and earlier ones are told of again."""
    story.call("limit", 5, 6, maximum=10, view=(101, 0, None, 10))
    story.call("limit", 7, 8, maximum=20, view=(102, 0, None, 20))
    if told == "seen":
        story.call("limit", 9, 10, minimum=-5, view=(103, 0, -5, 10))
        convicts(story, "the maximum became 10 by revision 103, which nobody had asked for")
    else:
        story.call("add", 9, 10, n=15, error="BoundsError", value=0, maximum=10)
        story.call("refresh", 11, 12, view=(102, 0, None, 20))
        convicts(story, "BoundsError: ")


REPEATS: dict[str, dict[str, Any]] = {
    "outside": {"error": "BoundsError", "value": 5, "maximum": 7},
    "absent": {"error": "CounterNotFoundError"},
}


@pytest.mark.parametrize("told", REPEATS)
def test_a_repeat_that_is_refused(story: Story, told: str) -> None:
    """Who repeats a key is told of the first, also where a new change would be refused."""
    story.call("limit", 3, 4, maximum=7, view=(101, 0, None, 7))
    story.call("add", 5, 6, n=5, key="k", receipt=(0, 5, 102))
    if told == "absent":
        story.call("delete", 7, 8)
    clears(story)
    story.call("add", 9, 10, n=5, key="k", **REPEATS[told])
    convicts(story, f"{REPEATS[told]['error']}: ")


def test_a_receipt_that_is_gone(story: Story) -> None:
    """What was reserved under a key has a receipt."""
    story.call("reserve", 5, 6, n=5, key="k", receipt=(0, 5, None), view=(101, 5))
    clears(story)
    story.call("receipt", 7, 8, key="k", error="ReceiptNotFoundError")
    convicts(story, "the receipt was there all the time")


def test_a_first_that_comes_second(story: Story) -> None:
    """A call is told to be the first with a key that was known to be applied before it began."""
    unknown = story.call("add", 5, 6, n=5, key="k", unknown="OutcomeUnknownError")
    story.call("cancel", 7, 8, of=["a", unknown], done=False)
    story.call("add", 9, 10, n=5, key="k", receipt=(0, 5, 101, True))
    clears(story)
    story.files["a"][-1]["receipt"][-1] = False
    convicts(story, "was known before a call began")


def test_refusals_that_were_right_for_a_moment(story: Story) -> None:
    """The same refusals are right where the state was such while their calls went on."""
    story.call("limit", 5, 6, maximum=5, view=(101, 0, None, 5))
    story.call("add", 7, 20, n=5, receipt=(0, 5, 102))
    story.call("add", 8, 9, by="b", n=1, error="BoundsError", value=5, maximum=5)
    story.call("compare_and_set", 8, 9, by="c", expected=5, new=9, done=False)
    story.call("assign", 8, 9, by="d", expected=0, new=9, error="OutOfSyncError", actual=5)
    clears(story)


def test_a_refused_change_that_was_applied(story: Story) -> None:
    """What was refused is nowhere in the chain."""
    story.call("add", 5, 6, n=5, error="StoreUnavailableError")
    story.call("add", 7, 8, n=3, receipt=(5, 8, 102))
    convicts(story, "begin at 5, but revision 100 had left 0")


def test_replayed_batch_with_wrong_outcomes(story: Story) -> None:
    """A batch of two; who asks again is told that the second was refused, and it was not."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    unknown = story.call("add", 5, 7, n=7, unknown="OutcomeUnknownError")
    story.call("add", 8, 9, n=1, receipt=(12, 13, 102))
    clears(story)
    retry = {"of": ["a", unknown], "error": "BoundsError", "value": 5, "maximum": 5}
    story.call("retry", 10, 11, by="b", **retry)
    convicts(story, "begin at 12, but revision 101 had left 5")


def test_a_retry_and_a_cancellation_that_disagree(story: Story) -> None:
    """What was cancelled for good was not applied."""
    unknown = story.call("add", 5, 7, n=7, unknown="OutcomeUnknownError")
    story.call("retry", 8, 9, of=["a", unknown], receipt=(0, 7, 101))
    clears(story)
    story.call("cancel", 10, 11, of=["a", unknown], done=True)
    convicts(story, "what is told to be applied was refused or cancelled for good")


def test_a_cancellation_for_all_of_a_batch(story: Story) -> None:
    """Who cancels does so for those who shared the batch; but for nobody in another process."""
    mine = story.call("add", 5, 6, n=5, unknown="OutcomeUnknownError")
    other = story.call("add", 5, 6, n=7, unknown="OutcomeUnknownError")
    story.call("cancel", 7, 8, of=["a", mine], done=True)
    story.call("retry", 9, 10, of=["a", other], error="CounterError")
    clears(story)
    elsewhere = story.call("add", 5, 6, by="b", n=9, unknown="OutcomeUnknownError")
    story.call("retry", 9, 10, by="b", of=["b", elsewhere], error="CounterError")
    convicts(story, "nobody has cancelled what is told to be cancelled")


def test_a_keyed_change_told_to_be_applied(story: Story) -> None:
    """A cancellation that came too late says that a change was applied, also under a key."""
    unknown = story.call("add", 5, 7, n=7, key="k", unknown="OutcomeUnknownError")
    story.call("cancel", 8, 9, of=["a", unknown], done=False)
    story.call("add", 12, 13, n=3, receipt=(7, 10, 102))
    clears(story)
    unknown = story.call("add", 14, 15, n=9, key="l", unknown="OutcomeUnknownError")
    story.call("cancel", 16, 17, of=["a", unknown], done=False)
    story.call("add", 18, 19, n=3, receipt=(10, 13, 103))
    story.call("refresh", 20, 21, view=(103, 13))
    convicts(story, "a change that was acknowledged is nowhere in the chain")


def test_a_key_applied_twice(story: Story) -> None:
    """Two applications under one idempotency key."""
    story.call("add", 5, 6, n=5, key="k", receipt=(0, 5, 101))
    story.call("add", 7, 8, n=5, key="k", receipt=(0, 5, 101, "replayed"))
    clears(story)
    story.call("add", 9, 10, n=5, key="k", receipt=(5, 10, 102))
    convicts(story, "the key 'k' was applied twice")


def test_a_change_nobody_asked_for_under_a_key(story: Story) -> None:
    """A repeat that is told of a first application which nobody had begun."""
    story.call("add", 5, 6, n=5, key="k", receipt=(0, 5, 101, "replayed"))
    convicts(story, "a receipt of the key 'k', which nobody had used")


def test_a_repeat_of_what_its_caller_never_knew(story: Story) -> None:
    """The first with a key was killed; who repeats it is told of its change."""
    story.call("add", 5, None, n=5, key="k")
    story.call("add", 7, 8, by="b", n=3, receipt=(5, 8, 102))
    story.call("add", 9, 10, by="b", n=5, key="k", receipt=(0, 5, 101, "replayed"))
    clears(story)


def test_time_turned_back(story: Story) -> None:
    """A revision with an earlier timestamp than the one before it."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("add", 7, 8, n=5, receipt=(5, 10, 102))
    clears(story)
    story.files["a"][-1]["receipt"][3] = 1
    convicts(story, "revision 102 has an earlier timestamp than the one before it")


def test_a_revision_that_is_nobodys(story: Story) -> None:
    """A write in which nothing changed, and which nobody can have made."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 102))
    story.call("add", 7, 8, n=5, receipt=(5, 10, 103))
    convicts(story, "1 revisions up to 102 changed nothing, and are nobody's")


def test_fences_and_bounds_are_somebodys(story: Story) -> None:
    """Refusals that were written down, cancellations, changes of the bounds: links of the chain."""
    story.call("limit", 5, 6, maximum=7, view=(101, 0, None, 7))
    story.call("add", 7, 8, n=9, error="BoundsError", value=0, maximum=7)
    story.call("add", 9, 10, n=5, receipt=(0, 5, 103))
    unknown = story.call("add", 11, 12, n=1, unknown="OutcomeUnknownError")
    story.call("cancel", 13, 14, of=["a", unknown], done=True)
    story.call("limit", 15, 16, maximum=None, view=(105, 5))
    clears(story)


def test_bounds_whose_change_was_told_late(story: Story) -> None:
    """Who heard late of its change of the bounds shows a later revision, of another's change."""
    story.call("limit", 5, 30, by="z", minimum=-50, view=(103, 5, -50, 90))  # revision 101
    story.call("add", 10, 11, by="b", n=5, receipt=(0, 5, 102))
    story.call("limit", 12, 13, by="b", maximum=90, view=(103, 5, -50, 90))
    clears(story)


def test_numbers_told_after_the_bounds_had_changed(story: Story) -> None:
    """Who reserved in a batch shows the revision after it, which was a change of the bounds."""
    told = (102, 8, None, 90)
    story.call("add", 5, 20, by="b", n=5, receipt=(0, 5, 101), view=told)
    story.call("reserve", 6, 21, by="b", n=3, receipt=(5, 8, None), view=told)
    story.call("limit", 10, 19, maximum=90, view=told)
    story.call("add", 30, 31, n=7, receipt=(8, 15, 103))
    clears(story)


def test_a_batch_before_a_deletion(story: Story) -> None:
    """A change told to be applied was in the batch of another one, and a deletion came after."""
    story.call("add", 5, 10, n=5, receipt=(0, 5, 101))
    unknown = story.call("add", 6, 7, n=-2, unknown="OutcomeUnknownError")
    story.call("delete", 8, 20)
    story.call("cancel", 21, 22, of=["a", unknown], done=False)
    story.call("open", 23, 24, initial=0, create=True, view=(103, 0))
    story.call("add", 25, 26, n=7, receipt=(0, 7, 104))
    clears(story)


def test_a_refusal_between_two_changes_shown_at_once(story: Story) -> None:
    """A change that shows a later revision had one of its own, at which another was refused."""
    story.call("add", 5, 6, n=12, receipt=(0, 12, 101))
    story.call("compare_and_set", 7, 20, expected=12, new=15, done=True, view=(103, 17))
    story.call("compare_and_set", 10, 11, by="b", expected=12, new=9, done=False)
    story.call("add", 13, 20, n=2, receipt=(15, 17, 103))
    clears(story)


def test_a_batch_in_another_order(story: Story) -> None:
    """What was tried in a wrong order of a batch is there for the right one."""
    story.call("add", 5, 6, n=10, receipt=(0, 10, 101))
    unknown = story.call("set", 7, 9, value=500, unknown="OutcomeUnknownError")
    story.call("add", 7, 9, n=20, receipt=(500, 520, 102))
    story.call("add", 7, 9, n=-3, receipt=(10, 7, 102))
    story.call("cancel", 20, 21, of=["a", unknown], done=False)
    clears(story)


def test_updates_of_unknown_outcome_under_one_key(story: Story) -> None:
    """Any of them may have been the one that was applied."""
    for begin, by, expected in ((5, "k1", 0), (9, "k2", 100)):
        number = story.call("update", begin, None, by=by, key="k")
        tried = {"t": begin, "try": number, "expected": expected, "new": expected + 4}
        story.files[by].append(tried)
    story.call("add", 7, 8, n=100, receipt=(0, 100, 101))
    story.call("refresh", 10, 11, view=(102, 104))
    clears(story)


def test_a_repeated_reserve_of_another_process(story: Story) -> None:
    """It does not say that it repeats, and was in the batch of who asked first."""
    story.call("add", 5, 6, by="b", n=1, receipt=(0, 1, 101))
    story.call("reserve", 7, 9, by="b", n=4, key="k", receipt=(1, 5, None), view=(102, 6))
    story.call("add", 7, 9, by="b", n=1, receipt=(5, 6, 102))
    story.call("reserve", 10, 11, n=4, key="k", receipt=(1, 5, None), view=(102, 6))
    clears(story)


def test_a_batch_told_after_the_bounds_had_changed(story: Story) -> None:
    """All of a batch show the revision after it, whose change of the bounds began first."""
    story.call("add", 5, 6, n=10, receipt=(0, 10, 101))
    story.call("limit", 7, 19, by="b", maximum=50, view=(103, 46, None, 50))
    story.call("set", 8, 20, value=40, receipt=(10, 40, 102), view=(103, 46, None, 50))
    story.call("reserve", 9, 20, n=6, receipt=(40, 46, None), view=(103, 46, None, 50))
    story.call("add", 21, 22, n=1, receipt=(46, 47, 104), view=(104, 47, None, 50))
    clears(story)


def test_a_batch_that_comes_back(story: Story) -> None:
    """Ten, seven, thirteen, ten: where values come twice there is more than one way."""
    story.call("add", 5, 6, n=10, receipt=(0, 10, 101))
    story.call("add", 7, 9, n=-3, receipt=(10, 7, 102))
    story.call("reserve", 7, 9, n=6, key="r", receipt=(7, 13, None), view=(102, 10))
    story.call("add", 7, 9, n=-3, receipt=(13, 10, 102))
    clears(story)


@pytest.mark.parametrize("op", [{"op": "set", "value": 7}, {"op": "add", "n": 0}])
def test_a_change_that_changes_nothing(story: Story, op: dict[str, Any]) -> None:
    """It leaves no trace in the values, and is not missed."""
    story.call("add", 5, 6, n=7, receipt=(0, 7, 101))
    unknown = story.call(begin=7, end=9, unknown="OutcomeUnknownError", **op)
    story.call("add", 7, 9, n=20, receipt=(7, 27, 102))
    story.call("cancel", 20, 21, of=["a", unknown], done=False)
    story.call("add", 22, 23, n=1, receipt=(27, 28, 103))
    clears(story)


def test_unknown_changes_explain_once(story: Story) -> None:
    """A change of unknown outcome explains a gap, but only one."""
    story.call("add", 5, None, n=7)
    story.call("add", 6, 8, by="b", n=3, receipt=(7, 10, 102))
    clears(story)
    story.call("add", 9, 10, by="b", n=3, receipt=(17, 20, 104))
    convicts(story, "begin at 17, but revision 102 had left 10")


def test_a_store_that_lost_everything(story: Story) -> None:
    """A counter begins anew, and nobody may have deleted it: however much is unseen."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.call("open", 7, 8, initial=0, create=True, view=(110, 0))
    convicts(story, "nothing explains how 5 became that")
    assert not story.check().undecided


def test_what_cannot_be_judged(story: Story) -> None:
    """A gap in which too much may have been convicts nobody, and is counted."""
    for number in range(12):
        story.call("add", 5, None, by=f"killed{number}", n=3**number)
    story.call("add", 6, 8, n=1, receipt=(sum(3**n for n in range(9)), 9842, 110))
    verdict = story.check()
    assert (verdict.contradictions, verdict.undecided) == ((), 1)
    assert "1 gap with too much unknown to be judged" in str(verdict)


def test_a_batch_whose_callers_were_told_little(story: Story) -> None:
    """Changes of one revision are put in order, those without a receipt among them."""
    story.call("add", 5, 20, n=1, receipt=(10, 11, 101))
    story.call("assign", 5, 20, expected=0, new=10, view=(101, 27))
    story.call("add", 5, 9, n=7, unknown="OutcomeUnknownError")
    story.call("add", 5, 20, n=9, receipt=(18, 27, 101))
    clears(story)
    story.call("add", 21, 22, n=1, receipt=(26, 27, 102))
    convicts(story, "begin at 26")


def test_a_store_that_refuses_everything(tmp_path: Path) -> None:
    """Refusals need a reason, each of them."""
    recorder = Recorder(tmp_path)
    for error in ("CounterNotFoundError", "BoundsError", "OutOfSyncError"):
        import truecount

        recorder.open("mydomain", error, store="memory://refused")
        with (
            pytest.raises(CounterError),
            recorder.call("assign", "mydomain", error, expected=0, new=1),
        ):
            raise getattr(truecount, error)
    assert len({found.name for found in check([tmp_path]).contradictions}) == 3


# Clean runs


def _make_trouble(store: FaultyStore, seed: int) -> None:
    """Say what becomes of some thousand writes."""
    rng = random.Random(seed)
    for _ in range(1000):
        match rng.randrange(4):
            case 0:
                store.lose_replies(rng.randint(1, 3))
            case 1:
                store.lose_requests(rng.randint(1, 2))
            case 2:
                store.refuse(StoreUnavailableError("refused"))
        store.serve(rng.randrange(8))


def _act(recorder: Recorder, c: RecordedCounter, rng: random.Random, number: int) -> None:
    """One thing that a client does."""
    amount = rng.randint(-(10**12), 10**12)
    quick = rng.choice([0.003, 0.05, 1])
    match rng.randrange(14):
        case 0 | 1 | 2:
            c.add(amount, timeout=quick)
        case 3:
            c.add(amount, key=f"own{amount}", timeout=quick)
        case 4:
            shared = rng.randrange(5)
            c.add(shared * 17 + 1, key=f"shared{shared}", timeout=quick)
        case 5:
            c += amount
        case 6:
            c.update(lambda value: value + amount, timeout=quick)
        case 7:
            c.compare_and_set(c.value, amount, timeout=quick)
        case 8:
            c.reserve(abs(amount) + 1, timeout=quick)
        case 9:
            bound = rng.choice([None, 10**13, 10**14])
            c.limit(maximum=bound, timeout=quick)
        case 10:
            c.refresh(timeout=quick)
        case 11:
            domain = Domain(c.counter.domain, store=c.counter.store)
            recorder.add(domain, {c.counter.name: abs(amount)}, timeout=quick)
        case 12 if number % 3 == 0:
            c.delete(timeout=quick)
        case _:
            c.receipt(f"shared{rng.randrange(5)}", timeout=quick)


def _client(recorder: Recorder, store: FaultyStore, seed: int, calls: int) -> None:
    """A client with a handle of its own, which settles what it does not know."""
    rng = random.Random(seed)
    unknown: list[OutcomeUnknownError] = []
    c: RecordedCounter | None = None
    for number in range(calls):
        try:
            if c is None:
                c = recorder.open("mydomain", "c", store=store, timeout=1)
            if unknown and rng.random() < 0.2:
                settle = rng.choice([recorder.retry, recorder.cancel])
                settle(unknown.pop(), timeout=1)
            else:
                _act(recorder, c, rng, number)
        except OutcomeUnknownError as error:
            unknown.append(error)
        except CounterNotFoundError:
            c = None
        except CounterError:
            pass


def _process(recorder: Recorder, url: str, seed: int, threads: int, calls: int) -> None:
    """A process of several clients, whose store loses what it is sent."""
    kind = ComparingStore if seed % 2 else FaultyStore
    store = kind(connect(url))
    _make_trouble(store, seed)
    clients = [
        threading.Thread(target=_client, args=(recorder, store, seed * 100 + n, calls))
        for n in range(threads)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def _absent(recorder: Recorder, url: str) -> None:
    with pytest.raises(CounterNotFoundError):
        recorder.open("mydomain", "c", store=url, create=False)


def _look_once_more(recorder: Recorder, url: str) -> None:
    with contextlib.suppress(CounterNotFoundError):
        recorder.open("mydomain", "c", store=url, create=False).refresh()


def test_threads_in_memory(tmp_path: Path) -> None:
    """Threads that share a line, replies lost: no contradiction."""
    recorder = Recorder(tmp_path)
    url = "memory://checked"
    with connect(url):
        _absent(recorder, url)
        for seed in (2, 4):
            _process(recorder, url, seed, threads=4, calls=250)
        _look_once_more(recorder, url)
    verdict = check([tmp_path])
    assert not verdict.contradictions, verdict
    assert verdict.counts["unknown"] > 10, verdict


def test_processes_on_sqlite(tmp_path: Path) -> None:
    """Processes of threads, replies lost, and one killed in the middle: no contradiction."""
    recorder = Recorder(tmp_path / "history")
    url = f"sqlite:///{tmp_path}/counters.db"
    _absent(recorder, url)
    workers = [
        SPAWN.Process(target=_process, args=(recorder, url, seed, 2, 100)) for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    (tmp_path / "history").mkdir(exist_ok=True)
    while sum(1 for _ in (tmp_path / "history").iterdir()) < 4:
        workers[0].join(0.01)
    workers[0].join(0.2)
    if workers[0].pid is not None and workers[0].is_alive():
        os.kill(workers[0].pid, signal.SIGKILL)
    for worker in workers:
        worker.join()
    _look_once_more(recorder, url)
    verdict = check([tmp_path / "history"])
    assert not verdict.contradictions, verdict
    assert verdict.processes > 3


# Generated histories


def test_legal_histories_pass(tmp_path: Path) -> None:
    """Whatever the model of a counter does, and its clients are told, is no contradiction."""
    for seed in range(200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_history(folder, 400, seed=seed)
        verdict = check([folder])
        assert not verdict.contradictions, (seed, str(verdict))


def _mutate(lines: list[dict[str, Any]], rng: random.Random) -> str:
    """Change one fact of a history; which it was."""
    returns = [line for line in lines if "ret" in line]
    rng.shuffle(returns)
    kind = rng.choice(["receipt", "revision", "view", "refused", "false", "time"])
    calls = {line["call"]: line for line in lines if "call" in line}
    for line in returns:
        asked = calls[line["ret"]]
        plain = "key" not in asked and asked["op"] in ("add", "set")
        match kind:
            case "receipt" if plain and "receipt" in line:
                line["receipt"][0] += 3
                line["receipt"][1] += 0 if asked["op"] == "set" else 3
            case "revision" if plain and "receipt" in line:
                line["receipt"][2] += rng.choice([-1000, 1000])
                line.pop("view", None)
            case "view" if asked["op"] == "refresh" and "view" in line:
                line["view"][1] += 3
            case "refused" if plain and "receipt" in line:
                line.pop("receipt")
                line["error"] = "StoreTimeoutError"
                line.pop("view", None)
            case "false" if line.get("done") is True and asked["op"] == "compare_and_set":
                line["done"] = False
            case "time" if plain and "receipt" in line:
                line["receipt"][3] -= 10**12
            case _:
                continue
        return kind
    return ""


def test_a_changed_fact_convicts(tmp_path: Path) -> None:
    """A legal history in which one fact is another one is a contradiction."""
    changed = set()
    for seed in range(200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rng = random.Random(seed)
        write_history(folder, 300, seed=seed, counters=1, mix=CERTAIN)
        path = rng.choice(sorted(folder.iterdir()))
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if kind := _mutate(lines, rng):
            changed.add(kind)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            path.write_text(text, encoding="utf-8")
            assert check([folder]).contradictions, (seed, kind)
    assert len(changed) == 6


# Files


def test_processes_share_the_work(tmp_path: Path) -> None:
    """By counters; together they find what one finds."""
    write_history(tmp_path, 3000, seed=3)
    path = sorted(tmp_path.iterdir())[1]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert _mutate(lines, random.Random(3))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    one, three = check([tmp_path], processes=1), check([tmp_path], processes=3)
    assert one.contradictions
    assert str(one) == str(three)


def test_what_is_no_history(tmp_path: Path) -> None:
    """Files that no recorder wrote are refused, and say why."""
    head = f'{{"{HEADER}": {FORMAT}, "process": "a"}}\n'
    at = '"at": ["mydomain", "counter1"]'
    double = f'{{"t": 1, "call": 1, "op": "double", {at}}}\n'
    add = f'{{"t": 1, "call": 1, "op": "add", {at}, "n": 5}}\n'
    compare = add.replace("add", "compare_and_set").replace('"n": 5', '"expected": 0, "new": 5')
    end = '{"t": 2, "ret": 1}\n'
    for text, words in (
        ("hello\n", "is no history"),
        (head + add + "hello\n", "line 3: this is no JSON: .hello"),
        (head + "\n" + add, "line 2: this is no JSON"),
        (head + add * 2, "line 3: call 1 begins again"),
        (head + add + "[1, 2]\n", "line 3: this is no line of a history"),
        (head + add + '{"t": 2, "rex": 1}\n', "line 3: this is no line of a history"),
        (head + add + '{"t": 2, "ret": 1, "receipt": [0, "5", 2, 2, false]}\n', "a receipt is"),
        (head + add + '{"t": 2, "ret": 1, "view": [1, 2, 3]}\n', "line 3: a view is"),
        (head + add + '{"t": "2", "ret": 1}\n', "'t' is a whole number, not '2'"),
        (head + add.replace(', "n": 5', ""), "'n' is a whole number, and is missing"),
        (head + add.replace('["mydomain", "counter1"]', '"ab"'), "'at' is a domain and a name"),
        (head + add.replace("add", "retry"), "'of' says which call it is"),
        (head + add.replace("add", "receipt"), "asked for by 'key'"),
        (head + add.replace("add", "open"), "'initial' is a whole number, and is missing"),
        (head + add.replace('"n": 5', '"n": 5, "key": "k"') + end, "'receipt' is missing"),
        (head + add + end.replace("1}", "[1]}"), "line 3: 'ret' is a whole number, not .1."),
        (
            head
            + add.replace('"n": 5', '"n": 5, "key": "k"')
            + end.replace("1}", '1, "receipt": null}'),
            "'receipt' is missing",
        ),
        (head + compare + end, "'done' is true or false after 'compare_and_set', not None"),
        (head + compare + end.replace("1}", '1, "done": "false"}'), "'done' is true or false"),
        (head + '{"t": 1, "try": 1, "expected": 0, "new": 5}\n', "did not begin"),
        (head + '{"note": {}}\n', "'t' is a whole number, and is missing"),
        (head + add.strip() + "," + add, "line 2: this is no JSON"),
        (head + add.replace('"n": 5', '"n": 5, "of": 17'), "'of' is a process and the number"),
        (
            head + add.replace("add", "retry").replace('"n": 5', '"of": ["a", 77]'),
            "call 1: what it settles, call 77 of the process 'a', is no call",
        ),
        (head.replace("}", ', "key_ttl": "60"}'), "line 1: 'key_ttl'"),
        ("[1]\n", "does not begin with a header"),
        (f'{{"{HEADER}": 99, "process": "a"}}\n', "version 99"),
        (f'{{"{HEADER}": {FORMAT}}}\n', "of which process"),
        (head, "no calls"),
        (head + '{"t": 1, "ret": 5}\n', "call 5 returns, and did not begin"),
        (head + double, "no operation 'double'"),
    ):
        path = tmp_path / "a.jsonl"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NotAHistoryError, match=words):
            check([path])
    with pytest.raises(NotAHistoryError, match="there is no"):
        check([tmp_path / "nothing"])
    path.unlink()
    with pytest.raises(NotAHistoryError, match="no history in"):
        check([tmp_path])
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(NotAHistoryError, match="is no file"):
        check([tmp_path])
    path.unlink()
    path.mkdir()
    with pytest.raises(NotAHistoryError, match="is no file"):
        check([tmp_path])


def test_a_folder_that_is_given_twice(story: Story) -> None:
    """A file counts once, however often it is named."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.check()
    (folder,) = story.folder.glob("story*")
    assert check([folder, *folder.glob("*")]).calls == 3


def test_a_line_that_was_not_written_whole(story: Story) -> None:
    """What was torn at the end was never sent: the rest is judged."""
    story.call("add", 5, 6, n=5, receipt=(0, 5, 101))
    story.check()
    (path,) = sorted(story.folder.glob("story*/*.jsonl"))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"t":9,"call":7,"op":"a')
    assert not check([path]).contradictions


@pytest.mark.parametrize(("receipt", "status"), [((0, 5, 101), 0), ((1, 6, 101), 1)])
def test_the_command(story: Story, receipt: tuple[int, int, int], status: int) -> None:
    """``truecount check`` prints the verdict, and its status says which it is."""
    story.call("add", 5, 6, n=5, receipt=receipt)
    story.check()
    (folder,) = story.folder.glob("story*")
    done = subprocess.run(
        [sys.executable, "-m", "truecount", "check", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done
    assert done.stdout.startswith("no contradiction" if status == 0 else "1 contradiction")


def test_the_command_without_a_history(tmp_path: Path) -> None:
    """What is no history is a wrong usage."""
    done = subprocess.run(
        [sys.executable, "-m", "truecount", "check", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no history in" in done.stderr
