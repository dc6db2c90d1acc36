"""What every store with a server must survive, as tests that each such store runs.

A real server acts on real requests, and a proxy between loses the answers,
holds requests back and delivers them late. A subclass says which server, and
which bytes are a request that writes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest

import workers
from helpers import SPAWN, in_processes, there, wait_until
from truecount import (
    BoundsError,
    Counter,
    CounterError,
    CounterNotFoundError,
    Domain,
    OutcomeUnknownError,
    OutOfSyncError,
    StoreError,
    connect,
)
from truecount.record import Address
from truecount.stores.base import Ambiguous
from truecount.testing.proxy import CUT, SILENCE, Proxy

DOMAIN = "networked"

LITTLE = 0.5
"""Seconds that a caller waits whose request is held back."""

_numbers = itertools.count(1)


def with_options(url: str, **options: object) -> str:
    """``url`` with more options."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options)}"


def step(c: Counter) -> None:
    """Add in place."""
    c += 7


CHANGES: dict[str, tuple[Callable[[Counter], Any], int | None]] = {
    "+=": (step, 12),
    "add": (lambda c: c.add(7), 12),
    "add with a key": (lambda c: c.add(7, key="once"), 12),
    "set": (lambda c: c.set(12), 12),
    "delete": (lambda c: c.delete(), None),
}

LOSSES = [(how, lost) for how in ("cut", "silence") for lost in (1, 3, 10)]

INSTEAD = {"cut": CUT, "silence": SILENCE}

LATE: dict[str, Callable[[Counter], Any]] = {
    "add": lambda c: c.add(7, timeout=LITTLE),
    "+=": lambda c: _step(c),
    "add with a key": lambda c: c.add(7, key="once", timeout=LITTLE),
    "set": lambda c: c.set(12, timeout=LITTLE),
}


def _step(c: Counter) -> None:
    # An in-place operator has no time-out of its own: this is what it asks for.
    c.compare_and_set(c.value, c.value + 7, timeout=LITTLE)


class Networked:
    """Lost replies, late requests, troubled servers, many processes."""

    keys = True
    """Whether idempotency keys work there."""

    together = False
    """Whether additions to many counters travel in one request."""

    survives = True
    """Whether the server keeps its data when it is killed."""

    many = 500
    """How many changes each of eight processes makes."""

    options: ClassVar[dict[str, object]] = {}
    """Options of the URL, for every test."""

    @classmethod
    def start(cls) -> AbstractContextManager[Any]:
        """A server with a ``port`` and the URL of the ``store`` there."""
        raise TypeError("say which server: override start()")

    def is_write(self, request: bytes) -> bool:
        """Whether ``request`` writes."""
        raise TypeError("say what a write looks like: override is_write()")

    troubles: ClassVar[dict[str, Callable[[Any], AbstractContextManager[str]]]] = {}
    """What can befall the server: while it lasts writes are refused, with a word on why."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Any]:
        with there(cls.start) as server:
            yield server

    @pytest.fixture
    def proxy(self, server: Any) -> Iterator[Proxy]:
        with Proxy(server.port) as proxy:
            yield proxy

    @pytest.fixture
    def name(self) -> str:
        """A counter of this test's own."""
        return f"counter{next(_numbers)}"

    @pytest.fixture
    def url(self, server: Any) -> str:
        """The store, directly."""
        return with_options(server.store, timeout=60, **self.options)

    @pytest.fixture
    def behind(self, server: Any, proxy: Proxy) -> str:
        """The store behind the proxy, where an answer is waited for as long as there is time."""
        return self.url_behind(proxy, server, 60)

    @pytest.fixture
    def through(self, server: Any, proxy: Proxy) -> str:
        """The store behind the proxy, where an answer is not waited for long."""
        return self.url_behind(proxy, server, 0.2)

    def url_behind(self, proxy: Proxy, server: Any, read_timeout: float) -> str:
        there = server.store.replace(f":{server.port}", f":{proxy.port}")
        return with_options(there, timeout=60, read_timeout=read_timeout, **self.options)

    def skip_without_keys(self, what: str) -> None:
        if "key" in what and not self.keys:
            pytest.skip("idempotency keys need what this server lacks")

    # Lost replies

    @pytest.mark.parametrize("what", CHANGES)
    @pytest.mark.parametrize(("how", "lost"), LOSSES)
    def test_a_change_whose_replies_are_lost(
        self, url: str, through: str, proxy: Proxy, name: str, how: str, lost: int, what: str
    ) -> None:
        """However often the reply is lost, the change is applied once, and reported so."""
        self.skip_without_keys(what)
        truth = Counter(DOMAIN, name, 5, store=url)
        with connect(through) as store:
            c = Counter(DOMAIN, name, store=store)
            self.lose(proxy, lost, how)
            change, expected = CHANGES[what]
            change(c)
            assert proxy.lost == lost
            if expected is None:
                with pytest.raises(CounterNotFoundError):
                    truth.refresh()
            else:
                assert c == truth.refresh() == expected

    @pytest.mark.parametrize(("how", "lost"), LOSSES)
    def test_a_creation_whose_replies_are_lost(
        self, url: str, through: str, proxy: Proxy, name: str, how: str, lost: int
    ) -> None:
        """However often the reply is lost, the counter is created once, with its value."""
        with connect(through) as store:
            list(store.domains())  # what a first use sets up is not what is tested
            self.lose(proxy, lost, how)
            c = Counter(DOMAIN, name, 5, minimum=0, store=store)
            assert proxy.lost == lost
            assert c.add(1).before == 5
            assert Counter(DOMAIN, name, create=False, store=url) == 6

    @pytest.mark.parametrize("how", INSTEAD)
    def test_many_changes_whose_replies_are_lost(
        self, url: str, through: str, proxy: Proxy, name: str, how: str
    ) -> None:
        """However often the replies to many additions are lost, each is applied once."""
        truth = Domain(f"{DOMAIN}-{name}", store=url)
        truth.add({"a": 1, "b": 1})
        with connect(through) as store:
            d = Domain(f"{DOMAIN}-{name}", store=store)
            self.lose(proxy, 3, how)
            assert d.add({"a": 7, "b": 8, "new": 9}) == {"a": 8, "b": 9, "new": 9}
            assert proxy.lost == 3
        assert truth.snapshot() == {"a": 8, "b": 9, "new": 9}

    def test_many_changes_that_come_late(
        self, url: str, behind: str, proxy: Proxy, name: str
    ) -> None:
        """Additions that arrive after they were settled one by one are not applied again."""
        truth = Domain(f"{DOMAIN}-{name}", store=url)
        truth.add({"a": 1, "b": 1, "c": 1})
        with connect(behind) as store:
            d = Domain(f"{DOMAIN}-{name}", store=store)
            d.add({"a": 1, "b": 1, "c": 1})
            proxy.hold(50, self.is_write)
            with pytest.raises(OutcomeUnknownError) as caught:
                d.add({"a": 7, "b": 7, "c": 7}, timeout=LITTLE)
            wait_until(lambda: proxy.held, "what was sent is held")
            proxy.mend()
            failures = caught.value.failures
            assert failures is not None
            assert set(failures) == {"a", "b", "c"}
            for error in failures.values():
                assert isinstance(error, OutcomeUnknownError)
                assert error.retry() == 9
            self.deliver(proxy)
            assert truth.snapshot() == {"a": 9, "b": 9, "c": 9}

    def lose(self, proxy: Proxy, count: int, how: str) -> None:
        """Lose the reply to the next write, and to so many requests in a row, whatever they are."""
        proxy.lose(1, self.is_write, INSTEAD[how])
        proxy.lose(count - 1, instead=INSTEAD[how])

    # Late requests

    @contextmanager
    def held(
        self, behind: str, proxy: Proxy, name: str, what: str, **options: object
    ) -> Iterator[OutcomeUnknownError]:
        """A change that the proxy holds back until its caller has given up."""
        self.skip_without_keys(what)
        with connect(with_options(behind, **options)) as store:
            c = Counter(DOMAIN, name, store=store)
            for _ in range(2):  # some clients take their time at first
                with suppress(CounterError, Ambiguous):
                    store.read(Address(DOMAIN, name), ("warm",), timeout=LITTLE)
            proxy.hold(50, self.is_write)  # and what it is sent again as
            with pytest.raises(OutcomeUnknownError) as caught:
                LATE[what](c)
            wait_until(lambda: proxy.held, "what was sent is held")  # the proxy may be slow
            proxy.mend()
            yield caught.value

    def deliver(self, proxy: Proxy) -> None:
        """Have the server act on what was held back."""
        assert 0 < proxy.held == proxy.release()

    @pytest.mark.parametrize("what", LATE)
    def test_late_after_a_retry(
        self, url: str, behind: str, proxy: Proxy, name: str, what: str
    ) -> None:
        """A request that arrives after ``.retry()`` had it applied is not applied again."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with self.held(behind, proxy, name, what) as unknown:
            assert unknown.retry() == 12
            self.deliver(proxy)
            assert truth.refresh() == 12
            assert unknown.retry() == 12

    @pytest.mark.parametrize("what", LATE)
    def test_late_after_a_cancellation(
        self, url: str, behind: str, proxy: Proxy, name: str, what: str
    ) -> None:
        """A request that arrives after ``.cancel()`` said True is never applied."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with self.held(behind, proxy, name, what) as unknown:
            assert unknown.cancel()
            self.deliver(proxy)
            assert truth.refresh() == 5
            assert truth.add(1).before == 5

    @pytest.mark.parametrize("what", CHANGES)
    def test_late_after_the_same_call_sent_it_again(
        self, url: str, through: str, proxy: Proxy, name: str, what: str
    ) -> None:
        """A request that is overtaken by its own repetition is not applied again."""
        self.skip_without_keys(what)
        truth = Counter(DOMAIN, name, 5, store=url)
        with connect(through) as store:
            c = Counter(DOMAIN, name, store=store)
            proxy.hold(1, self.is_write)
            change, expected = CHANGES[what]
            change(c)
            self.deliver(proxy)
            if expected is None:
                with pytest.raises(CounterNotFoundError):
                    truth.refresh()
            else:
                assert truth.refresh() == expected

    def test_late_after_its_key_has_expired(
        self, url: str, behind: str, proxy: Proxy, name: str
    ) -> None:
        """A keyed request that arrives when its key is forgotten is not applied again."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with self.held(behind, proxy, name, "add with a key", key_ttl=1) as unknown:
            assert unknown.retry() == 12
            time.sleep(1.5)
            self.deliver(proxy)
            assert truth.refresh() == 12

    @pytest.mark.parametrize("what", LATE)
    def test_late_after_deletion_and_creation(
        self, url: str, behind: str, proxy: Proxy, name: str, what: str
    ) -> None:
        """A request to the counter that was is not applied to the one that is, of the same name."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with self.held(behind, proxy, name, what) as unknown:
            truth.delete()
            truth = Counter(DOMAIN, name, 5, store=url)
            self.deliver(proxy)
            assert truth.refresh() == 5
            with pytest.raises(OutcomeUnknownError):
                unknown.retry()  # the record of what became of it went with the counter
            assert truth.refresh() == 5

    @pytest.mark.parametrize("what", LATE)
    def test_late_after_a_deletion(
        self, url: str, behind: str, proxy: Proxy, name: str, what: str
    ) -> None:
        """A request that comes late does not bring a deleted counter back."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with self.held(behind, proxy, name, what):
            truth.delete()
            self.deliver(proxy)
            with pytest.raises(CounterNotFoundError):
                truth.refresh()
            assert name not in list(connect(url).names(DOMAIN))

    def test_a_late_creation(self, url: str, through: str, proxy: Proxy, name: str) -> None:
        """Nor does a creation that was overtaken by its repetition, when all was deleted since."""
        with connect(through) as store:
            list(store.domains())
            proxy.hold(1, self.is_write)
            Counter(DOMAIN, name, 5, store=store)
            Counter(DOMAIN, name, store=url).delete()
            self.deliver(proxy)
            with pytest.raises(CounterNotFoundError):
                Counter(DOMAIN, name, create=False, store=url)

    def test_late_after_a_refusal_by_bounds(
        self, url: str, behind: str, proxy: Proxy, name: str
    ) -> None:
        """What was refused by the bounds when it was sent again does not land once it fits."""
        truth = Counter(DOMAIN, name, 5, maximum=12, store=url)
        with self.held(behind, proxy, name, "add") as unknown:
            truth.add(1)
            with pytest.raises(BoundsError):
                unknown.retry()
            truth.subtract(3)
            self.deliver(proxy)
            assert truth.refresh() == 3

    # A server in trouble

    def test_refused_after_doubt(self, url: str, through: str, proxy: Proxy, name: str) -> None:
        """A lost reply, then connections refused: unknown, never "not applied"; settled later."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with connect(through) as store:
            c = Counter(DOMAIN, name, store=store)
            proxy.lose(1, self.is_write, then=proxy.refuse)
            with pytest.raises(OutcomeUnknownError) as caught:
                c.add(7, timeout=0.5)
            proxy.listen()
            assert truth.refresh() == 12
            assert not caught.value.cancel()
            assert caught.value.retry() == 12
            assert truth.refresh() == 12

    def test_refused_without_doubt(self, url: str, through: str, proxy: Proxy, name: str) -> None:
        """Connections refused from the start: not applied, in words that name the server."""
        truth = Counter(DOMAIN, name, 5, store=url)
        with connect(through) as store:
            c = Counter(DOMAIN, name, store=store)
            proxy.refuse()
            try:
                with pytest.raises(StoreError, match=f":{proxy.port}"):
                    c.add(7, timeout=0.3)
            except OutcomeUnknownError as unknown:  # it was sent into a broken connection
                settle = unknown.cancel
                with pytest.raises(StoreError, match=f":{proxy.port}"):
                    c.add(7, timeout=0.3)
                proxy.listen()
                assert settle()
            else:
                proxy.listen()
            assert truth.refresh() == 5
            assert c.add(1) == 6

    def test_trouble_after_doubt(self, server: Any, url: str, through: str, name: str) -> None:
        """A lost reply, then a server that refuses every write: unknown, and settled later."""
        for trouble in self.troubles.values():
            with Proxy(server.port) as proxy, connect(self.url_behind(proxy, server, 0.5)) as store:
                truth = Counter(DOMAIN, f"{name} {trouble}", 5, store=url)
                c = Counter(DOMAIN, f"{name} {trouble}", store=store)
                befalls = trouble(server)
                proxy.lose(1, self.is_write, then=befalls.__enter__)
                try:
                    done = c.add(7, timeout=1.5).after  # where reading shows what became of it
                except OutcomeUnknownError as unknown:
                    befalls.__exit__(None, None, None)
                    done = unknown.retry().after
                else:
                    befalls.__exit__(None, None, None)
                assert done == truth.refresh() == 12

    def test_trouble_is_named(self, server: Any, url: str, name: str) -> None:
        """What keeps the server from writing stands in the error, and nothing was applied."""
        c = Counter(DOMAIN, name, 5, store=url)
        for trouble in self.troubles.values():
            with trouble(server) as word, pytest.raises(CounterError, match=word):
                c.add(7, timeout=1)
            assert Counter(DOMAIN, name, store=url) == 5
            assert c.add(1).after == 6
            assert c.subtract(1).after == 5

    # At the wire

    def test_requests(self, url: str, behind: str, proxy: Proxy, name: str) -> None:
        """An uncontended ``add`` is one request, and so is ``c += 1``, also after a refusal."""
        with connect(behind) as store:
            c = Counter(DOMAIN, name, store=store)
            for _ in range(10):  # until a server that runs scripts knows them
                c.add(1)
            before = proxy.requests
            for _ in range(10):
                c.add(1)
            assert proxy.requests == before + 10
            for _ in range(10):
                c += 1
            assert proxy.requests == before + 20
            Counter(DOMAIN, name, store=url).add(1)
            with pytest.raises(OutOfSyncError):
                c += 1
            assert proxy.requests <= before + 23  # the refusal, and what is there instead
            before = proxy.requests
            c += 1
            assert proxy.requests == before + 1

    def test_requests_of_many(self, behind: str, proxy: Proxy, name: str) -> None:
        """Additions to many counters are one request, or one each; more only for what is new."""
        amounts = {f"{name}-{number}": 1 for number in range(20)}
        many = 1 if self.together else len(amounts)
        with connect(behind) as store:
            d = Domain(DOMAIN, store=store)
            d.add(amounts)
            before = proxy.requests
            d.add(amounts)
            assert proxy.requests == before + many
            Domain(DOMAIN, store=store).add(amounts)
            assert proxy.requests <= before + 3 * many

    # Many processes

    def test_eight_processes(self, url: str, name: str) -> None:
        """8 processes make 500 changes each, some by ``c += 1``: exact, and all different."""
        work = [(workers.add_and_step, (url, DOMAIN, name, self.many * 9 // 10, self.many // 10))]
        numbers = sum(in_processes(work * 8), [])
        assert sorted(numbers) == list(range(1, 8 * self.many + 1))
        assert Counter(DOMAIN, name, store=url) == 8 * self.many

    def test_eight_processes_with_bounds(self, url: str, name: str) -> None:
        """8 processes of 4 threads sell 500 seats, one and two at a time: each once, none more."""
        seats = Counter(DOMAIN, name, maximum=500, store=url)
        sold = sum(in_processes([(workers.sell_out, (url, DOMAIN, name))] * 8), [])
        assert sorted(sold) == list(range(1, 501))
        assert seats.refresh() == 500

    def test_kill_the_server_again_and_again(self, tmp_path: Path, server: Any) -> None:
        """``kill -9`` of the server, 20 times, under 4 processes: they wait, and all is exact."""
        if not self.survives:
            pytest.skip("this server keeps nothing when it is killed")
        with self.start() as server:  # another one, or the others would meet its pauses
            url = with_options(server.store, timeout=60, **self.options)
            Counter(DOMAIN, "hot", store=url)
            end = tmp_path / "end"
            with SPAWN.Pool(4) as pool:
                work = [
                    pool.apply_async(workers.add_until, (url, str(end), DOMAIN)) for _ in range(4)
                ]
                pause = threading.Event()
                for _ in range(20):
                    pause.wait(0.3)
                    server.kill()
                    server.start()
                pause.wait(0.3)
                end.touch()
                numbers = sum([done.get(timeout=120) for done in work], [])
            assert len(numbers) > 200
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
            assert Counter(DOMAIN, "hot", store=url) == len(numbers)
