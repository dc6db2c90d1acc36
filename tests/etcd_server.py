"""A real etcd, the plainest client there can be, and certificates."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import missing
from truecount.testing.servers import Certificates, Etcd

_prefixes = itertools.count(1)


@contextmanager
def serving(**options: Any) -> Iterator[Etcd]:
    """An etcd with those options, which stops afterwards."""
    try:
        server = Etcd(**options)
    except FileNotFoundError:
        missing("etcd")
    with server:
        yield server


class Space:
    """A prefix of a server's that nobody else uses, looked into past truecount."""

    def __init__(self, server: Etcd) -> None:
        self.server = server
        self.prefix = f"space{next(_prefixes)}"
        self.url = f"{server.store}/{self.prefix}"

    def all(self) -> dict[str, str]:
        """All keys, without the prefix, and their values."""
        return {key: value.decode() for key, value in self.raw().items()}

    def raw(self) -> dict[str, bytes]:
        """The same, where a value may be no text."""
        start = f"{self.prefix}/"
        answer = self.server.ask(
            "/v3/kv/range", key=coded(start), range_end=coded(start[:-1] + "0")
        )
        return {
            b64decode(pair["key"]).decode(errors="surrogateescape").removeprefix(start): b64decode(
                pair.get("value", "")
            )
            for pair in answer.get("kvs", ())
        }

    def put(self, key: str, value: str | bytes) -> None:
        """What another program writes."""
        self.server.ask("/v3/kv/put", key=coded(f"{self.prefix}/{key}"), value=coded(value))

    def lease(self, key: str) -> int:
        """The lease of a key."""
        answer = self.server.ask("/v3/kv/range", key=coded(f"{self.prefix}/{key}"))
        return int(answer["kvs"][0]["lease"])


def coded(text: str | bytes) -> str:
    """As etcd's JSON has it."""
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
    return b64encode(raw).decode()


def certificates(folder: Path) -> Certificates:
    """An authority of one's own, and a certificate of it, for servers and for clients."""
    if shutil.which("openssl") is None:
        missing("openssl")
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    extensions = [
        "subjectAltName=IP:127.0.0.1",
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature,keyEncipherment",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    ours = [part for extension in extensions for part in ("-addext", extension)]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    signing = ["-addext", "keyUsage=critical,keyCertSign"]
    for command in (
        [*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", *signing],
        [*new, "-subj", "/CN=etcd", "-keyout", "key.pem", "-out", "cert.pem", *ours, *signed],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return made
