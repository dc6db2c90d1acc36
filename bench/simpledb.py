"""SimpleDB Local by itself, and counters in it, whose requests are counted at the wire."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections import Counter as Tally
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from bench.load import race
from bench.page import Section, table
from truecount import Counter
from truecount.testing.proxy import Proxy
from truecount.testing.servers import SimpleDBLocal

__all__ = ["measure"]

SECONDS: Final = 5.0
LEAST_PUTS: Final = 1500  # a second, from one client
MOST_REQUESTS: Final = 2  # a round: a put, and a look where somebody else was first
LOADS: Final = {
    "1 thread": (1, 1),
    "32 threads": (1, 32),
    "4 processes of 1": (4, 1),
    "4 processes of 8": (4, 8),
}
HEADERS: Final = {"Content-Type": "application/x-www-form-urlencoded"}


def measure(advance: Callable[[float], object]) -> Section:
    """Put as fast as one client can, then count; ``advance`` is told the share done."""
    steps = len(LOADS) + 2
    failures: list[str] = []
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        SimpleDBLocal("--data", folder) as server,
    ):
        puts = _puts(server.port)
        advance(1 / steps)
        rows = [_in_place(server, failures)]
        advance(2 / steps)
        for done, name in enumerate(LOADS):
            rows.append(_adds(server, name, failures))
            advance((done + 3) / steps)
    if puts < LEAST_PUTS:
        failures.append(f"{puts:,.0f} puts a second, {LEAST_PUTS:,} wanted")
    text = (
        f"SimpleDB Local with `--data` answers **{puts:,.0f} conditional PutAttributes a second** "
        "to one keep-alive client without an SDK; each is on the disk before it is answered.\n\n"
        f"Counters through boto3, as fast as they can for {SECONDS:.0f} s; their requests are "
        "counted at the wire. A round is a put, with a look before it where somebody else was "
        "first.\n\n"
        + table(
            ["", "changes a second", "requests a change", "changes a round", "requests a round"],
            rows,
        )
    )
    return Section("SimpleDB Local, and counters in it", text, failures)


def _puts(port: int) -> float:
    """Conditional puts a second of a client that waits for each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(**fields: str) -> None:
        body = urlencode({"Version": "2009-04-15", "DomainName": "bench", **fields})
        connection.request("POST", "/", body, HEADERS)
        answer = connection.getresponse()
        words = answer.read()
        assert answer.status == 200, words

    post(Action="CreateDomain")
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < SECONDS:
        expected = {"Expected.Exists": "false"}
        if count:
            expected = {"Expected.Value": str(count - 1)}
        post(
            Action="PutAttributes",
            ItemName="item",
            **{
                "Attribute.1.Name": "current_value",
                "Attribute.1.Value": str(count),
                "Attribute.1.Replace": "true",
                "Expected.Name": "current_value",
                **expected,
            },
        )
        count += 1
    return count / (time.monotonic() - began)


class _Wire:
    """A proxy that counts requests by what they ask for."""

    def __init__(self, server: SimpleDBLocal) -> None:
        self.asked: Tally[str] = Tally()
        self.proxy = Proxy(server.port, watch=self.watch)
        self.store = f"simpledb+http://127.0.0.1:{self.proxy.port}?timeout=60"

    def watch(self, request: bytes) -> None:
        action = request.partition(b"Action=")[2].partition(b"&")[0]
        self.asked[action.decode()] += 1

    def row(self, name: str, changes: int, failures: list[str]) -> tuple[str, ...]:
        """What ``changes`` took. Nothing else is asked for after a counter was created."""
        rounds = self.asked["PutAttributes"]
        requests = self.asked.total()
        if requests > MOST_REQUESTS * rounds:
            failures.append(f"{name}: {requests / rounds:.2f} requests a round")
        return (
            name,
            f"{changes / SECONDS:,.0f}",
            f"{requests / changes:.2f}",
            f"{changes / rounds:.2f}",
            f"{requests / rounds:.2f}",
        )


def _in_place(server: SimpleDBLocal, failures: list[str]) -> tuple[str, ...]:
    """``c += 1`` of one thread: a single request each."""
    wire = _Wire(server)
    with wire.proxy:
        counter = Counter("mydomain", "stepped", store=wire.store)
        wire.asked.clear()
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            counter += 1
        if wire.asked.total() != counter.value:
            failures.append(f"{wire.asked.total()} requests for {counter.value} times c += 1")
        row = wire.row("`c += 1`, 1 thread", counter.value, failures)
        counter.store.close()
    return row


def _adds(server: SimpleDBLocal, name: str, failures: list[str]) -> tuple[str, ...]:
    """``add(1)`` of several at once; those of one process share rounds."""
    processes, threads = LOADS[name]
    wire = _Wire(server)
    with wire.proxy:
        counter = Counter("mydomain", "hot", store=wire.store)
        before = counter.value
        wire.asked.clear()
        loads = race(wire.store, SECONDS, processes, threads)
        total = sum(sum(load.counts) for load in loads)
        # Each process has looked once to find the counter, and so has `race`.
        wire.asked["GetAttributes"] -= processes + 1
        row = wire.row(f"`add(1)`, {name}", total, failures)
        if counter.refresh() != before + total:
            failures.append(f"{name}: {total} adds made {counter.value - before}")
        counter.store.close()
    return row
