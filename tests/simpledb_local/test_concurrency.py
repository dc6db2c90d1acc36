"""Conditions are atomic however many clients there are."""

from __future__ import annotations

import threading
from pathlib import Path

from simpledb_server import Client, Server, serving

CONNECTIONS = 32
PUTS = 5000


class Stepper(threading.Thread):
    """Tries to step the counter from where it believes it to be; notes what it gained."""

    def __init__(self, server: Server, puts: int) -> None:
        super().__init__()
        self.client = server.client()
        self.puts = puts
        self.gained: list[int] = []
        self.refused = 0

    def run(self) -> None:
        value = 0
        for _ in range(self.puts):
            condition = {"Expected.1.Name": "value", "Expected.1.Value": str(value)}
            reply = self.client.put("domain", "item", ("value", value + 1, True), **condition)
            if reply.status == 200:
                value += 1
                self.gained.append(value)
            else:
                assert reply.code == "ConditionalCheckFailed", reply.body
                assert reply.message is not None
                value = int(reply.message.split("value is (")[1].split(")")[0])
                self.refused += 1


def test_one_attribute_and_many_connections(tmp_path: Path) -> None:
    """32 connections, 5,000 conditional puts: each step is had by one, and all of them count."""
    with serving("--data", tmp_path) as server:
        client = server.client()
        client.create("domain")
        client.put("domain", "item", ("value", "0"))
        share, more = divmod(PUTS, CONNECTIONS)
        steppers = [Stepper(server, share + (n < more)) for n in range(CONNECTIONS)]
        for stepper in steppers:
            stepper.start()
        for stepper in steppers:
            stepper.join()
        gained = [value for stepper in steppers for value in stepper.gained]
        assert len(gained) + sum(stepper.refused for stepper in steppers) == PUTS
        assert len(gained) > 0
        assert sorted(gained) == list(range(1, len(gained) + 1))
        assert client.read("domain", "item") == {"value": [str(len(gained))]}


def test_one_creation(tmp_path: Path) -> None:
    """Of 32 that create the same item at once, one does."""
    with serving("--data", tmp_path) as server:
        server.client().create("domain")
        for number in range(10):
            barrier = threading.Barrier(CONNECTIONS)
            statuses: list[int] = []

            def create(
                client: Client,
                item: str = f"item{number}",
                barrier: threading.Barrier = barrier,
                statuses: list[int] = statuses,
            ) -> None:
                barrier.wait()
                condition = {"Expected.Name": "a", "Expected.Exists": "false"}
                statuses.append(client.put("domain", item, ("a", "1"), **condition).status)

            clients = [server.client() for _ in range(CONNECTIONS)]
            threads = [threading.Thread(target=create, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(statuses) == [200] + [409] * (CONNECTIONS - 1)
