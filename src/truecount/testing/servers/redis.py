"""A Redis server, and a cluster of them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from truecount.testing.servers.process import PATIENCE, Server, free_port

__all__ = ["Redis", "RedisCluster"]

PROGRAM: Final = "redis-server"


class Redis(Server):
    """Redis, on a free port of 127.0.0.1, that keeps what it acknowledges (``appendfsync always``).

    ``options`` are settings of ``redis.conf``, with ``_`` for ``-``; None leaves one out.
    Raises `FileNotFoundError` when there is no ``redis-server``.
    """

    def __init__(self, **options: object) -> None:
        if shutil.which(PROGRAM) is None:
            raise FileNotFoundError(f"there is no {PROGRAM} on the PATH")
        defaults = {"save": "", "appendonly": "yes", "appendfsync": "always"}
        self._settings = {**defaults, **options}
        super().__init__()

    @property
    def store(self) -> str:
        password = self._settings.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        settings = {"bind": "127.0.0.1", "port": self.port, "dir": self.folder, **self._settings}
        command: list[str | Path] = [PROGRAM]
        for name, value in settings.items():
            if value is not None:
                # What has several words is several arguments.
                words = str(value).split(" ") if name == "replicaof" else [str(value)]
                command += [f"--{name.replace('_', '-')}", *words]
        return command

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            if self._settings.get("tls_port"):
                return True
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))


class RedisCluster:
    """Three Redis servers that are one cluster, with further settings for each.

    A context manager, as a server is. ``nodes`` are the servers.
    """

    def __init__(self, **options: object) -> None:
        with contextlib.ExitStack() as started:
            self.nodes = [started.enter_context(self._node(options)) for _ in range(3)]
            addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
            self.tell("--cluster", "create", *addresses, "--cluster-yes")
            deadline = time.monotonic() + PATIENCE
            while not all(b"cluster_state:ok" in self.ask(n, "CLUSTER INFO") for n in self.nodes):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the cluster did not start: {self.nodes[0].complaint()}")
                time.sleep(0.05)
            self._started = started.pop_all()

    @property
    def store(self) -> str:
        """The URL of the store there."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def tell(self, *arguments: str) -> str:
        """What ``redis-cli`` says to ``arguments``. Raises `CalledProcessError`."""
        command = ["redis-cli", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # its own program

    def ask(self, node: Redis, command: str) -> bytes:
        """What ``node`` answers first to ``command``."""
        with socket.create_connection(("127.0.0.1", node.port), 5) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(65536)

    def close(self) -> None:
        """Stop it, and remove its data."""
        self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _node(self, options: dict[str, Any]) -> Redis:
        bus = free_port()
        settings = {"cluster_enabled": "yes", "cluster_port": bus, "cluster_node_timeout": 2000}
        return Redis(**settings, **options)
