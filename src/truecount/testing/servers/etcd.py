"""etcd: a member alone, and a cluster of three."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from truecount.testing.servers.process import PATIENCE, Server, free_port

__all__ = ["Certificates", "Etcd", "EtcdCluster"]

ANSWER: Final = 5.0
"""Seconds to wait for one answer."""

ROOT: Final = "root"
"""The user that is there where etcd asks for one."""


class Certificates(NamedTuple):
    """Files in PEM: the authority, a certificate it has signed for 127.0.0.1, and its key."""

    cacert: Path
    cert: Path
    key: Path


class Etcd(Server):
    """etcd, as a cluster of one member unless told otherwise.

    ``quota``: `--quota-backend-bytes`. ``heartbeat``: `--heartbeat-interval` in
    milliseconds; five times that is the election time-out. ``password``: that
    of the user root, without which nobody is let in then. ``certificates``:
    it speaks TLS, and ``client_certificates`` demands such from clients too.
    ``peers``: the members of its cluster, of which it is ``name``, and the
    ports on which they meet.
    Raises `FileNotFoundError` when etcd is not installed.
    """

    def __init__(
        self,
        *,
        quota: int | None = None,
        heartbeat: int | None = None,
        password: str | None = None,
        certificates: Certificates | None = None,
        client_certificates: bool = False,
        name: str = "member",
        peers: dict[str, int] | None = None,
    ) -> None:
        self.quota = quota
        self.heartbeat = heartbeat
        self.password = password
        self.certificates = certificates
        self.client_certificates = client_certificates
        self.name = name
        self.peers = peers or {name: free_port()}
        self.program = program()
        super().__init__()
        if password is not None:
            self.ask("/v3/auth/user/add", name=ROOT, password=password)
            self.ask("/v3/auth/user/grant", user=ROOT, role=ROOT)
            self.ask("/v3/auth/enable")

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        login = "" if self.password is None else f"{ROOT}:{self.password}@"
        if self.certificates is None:
            return f"etcd://{login}{self.address}"
        cacert, cert, key = self.certificates
        ours = f"&cert={cert}&key={key}" if self.client_certificates else ""
        return f"etcds://{login}{self.address}?cacert={cacert}{ours}"

    def command(self) -> Sequence[str | Path]:
        scheme = "http" if self.certificates is None else "https"
        peer = f"http://127.0.0.1:{self.peers[self.name]}"
        command = [
            *(self.program, f"--name={self.name}", f"--data-dir={self.folder / 'data'}"),
            *(f"--listen-client-urls={scheme}://{self.address}",),
            *(f"--advertise-client-urls={scheme}://{self.address}",),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            "--initial-cluster="
            + ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in self.peers.items()),
        ]
        if self.quota is not None:
            command += [f"--quota-backend-bytes={self.quota}"]
        if self.heartbeat is not None:
            command += [f"--heartbeat-interval={self.heartbeat}"]
            command += [f"--election-timeout={5 * self.heartbeat}"]
        if self.certificates is not None:
            cacert, cert, key = self.certificates
            command += [f"--cert-file={cert}", f"--key-file={key}"]
            if self.client_certificates:
                command += ["--client-cert-auth", f"--trusted-ca-file={cacert}"]
        return command

    def is_ready(self) -> bool:
        status, _ = self._request("GET", "/health")
        return status == 200

    def ask(self, path: str, *, token: str | None = None, **question: Any) -> dict[str, Any]:
        """What it answers to a question of its JSON gateway, asked by whom ``token`` stands for."""
        status, answer = self._request("POST", path, json.dumps(question), token)
        if status != 200:
            raise RuntimeError(f"etcd refuses {path}: {answer!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def leads(self) -> bool:
        """Whether it is the leader of its cluster, as far as it knows."""
        status = self.ask("/v3/maintenance/status")
        return "leader" in status and status["leader"] == status["header"]["member_id"]

    def _request(
        self, method: str, path: str, body: str | None = None, token: str | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER)
        if self.certificates is not None:
            cacert, cert, key = self.certificates
            context = ssl.create_default_context(cafile=cacert)
            context.load_cert_chain(cert, key)
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=ANSWER, context=context
            )
        try:
            headers = {} if token is None else {"Authorization": token}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"etcd does not answer: {error!r}") from error
        finally:
            connection.close()


class EtcdCluster:
    """Three members of etcd, in ``members``, each to be killed, frozen and started alone.

    A context manager. ``store`` is the URL of the store there, which names all
    of them. ``heartbeat`` as `Etcd` has it.
    """

    def __init__(self, *, heartbeat: int | None = None) -> None:
        names = ("one", "two", "three")
        peers = {name: free_port() for name in names}
        # None of them is ready before another one runs.
        with ThreadPoolExecutor(len(names)) as pool:
            self.members = list(
                pool.map(lambda name: Etcd(heartbeat=heartbeat, name=name, peers=peers), names)
            )

    @property
    def store(self) -> str:
        """The URL of the store there."""
        return f"etcd://{','.join(member.address for member in self.members)}"

    def leader(self) -> Etcd:
        """The member that leads now; waits until one does."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for member in self.members:
                try:
                    if member.process.poll() is None and member.leads():
                        return member
                except (OSError, RuntimeError):
                    continue
            if time.monotonic() > deadline:
                raise RuntimeError("no member leads")
            time.sleep(0.02)

    def close(self) -> None:
        """Stop all of them, and remove their data."""
        with ExitStack() as stack:
            for member in self.members:
                stack.callback(member.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def program() -> str:
    """Where etcd is. Raises `FileNotFoundError`."""
    found = shutil.which("etcd")
    if found is None:
        raise FileNotFoundError("etcd is not installed: there is no program of that name")
    return found
