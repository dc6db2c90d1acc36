"""ZooKeeper, whose counter of the client kazoo is one to compare with."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from truecount.testing.servers.process import Server

__all__ = ["ZooKeeper"]

JAR: Final = Path("/usr/share/java/zookeeper.jar")
"""Where Debian's package ``zookeeper`` puts it."""


class ZooKeeper(Server):
    """A single node that syncs its log, as it does by default. Needs Debian's package.

    ``hosts`` is what a client is told.
    """

    def prepare(self) -> None:
        if not JAR.exists():
            raise RuntimeError("ZooKeeper is not installed (Debian's package is zookeeper)")
        (self.folder / "zoo.cfg").write_text(
            f"tickTime=2000\ndataDir={self.folder}/data\n"
            f"clientPort={self.port}\nclientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\nmaxClientCnxns=0\n"
        )

    def command(self) -> Sequence[str | Path]:
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", "-Xmx512m", "-cp", str(JAR), main, self.folder / "zoo.cfg"]

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"srvr")
            return b"Mode: standalone" in connection.recv(4096)

    @property
    def hosts(self) -> str:
        """``host:port``, as kazoo takes it."""
        return f"127.0.0.1:{self.port}"
