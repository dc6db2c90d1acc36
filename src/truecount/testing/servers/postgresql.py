"""PostgreSQL and PgBouncer, as Debian and others package them, each a process of its own."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from truecount.testing.servers.process import PATIENCE, Server
from truecount.testing.servers.states import await_stop, children, runs

__all__ = ["PgBouncer", "PostgreSQL"]

USER: Final = "postgres"
"""The superuser of the database, and the owner of all there is in it."""


class PostgreSQL(Server):
    """A PostgreSQL with ``settings`` of postgresql.conf, on TCP and on a socket in ``folder``.

    ``password``: what the superuser ``postgres`` is asked for (by SCRAM);
    nobody is asked unless it is given. Raises `FileNotFoundError` where
    PostgreSQL is not installed.
    """

    def __init__(self, *, password: str | None = None, **settings: object) -> None:
        self.password = password
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "shared_buffers": "32MB",
            **settings,
        }
        self.programs = _programs()
        super().__init__()

    @property
    def store(self) -> str:
        secret = "" if self.password is None else f":{self.password}"
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        """Where the data are."""
        return self.folder / "data"

    def prepare(self) -> None:
        _give(self.folder)
        options: list[str | Path] = ["-D", self.data, "-U", USER, "-E", "UTF8", "--locale=C"]
        if self.password is None:
            options = [*options, "-A", "trust"]
        else:
            file = self.folder / "password"
            file.write_text(self.password)
            _give(file)
            options = [*options, "-A", "scram-sha-256", "--pwfile", file]
        made = subprocess.run(  # noqa: S603  # PostgreSQL's own program
            [str(self.programs / "initdb"), "--no-sync", *map(str, options)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **self.options(),
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")

    def command(self) -> Sequence[str | Path]:
        places = {"unix_socket_directories": self.folder, **self.settings}
        settings = [f"--{name}={value}" for name, value in places.items()]
        return [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *settings]

    def options(self) -> dict[str, Any]:
        return _as_another_user()

    def is_ready(self) -> bool:
        asked: list[str | Path] = [
            self.programs / "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        return subprocess.run(asked, check=False).returncode == 0  # noqa: S603  # likewise

    def configure(self, **settings: object) -> None:
        """Have it go by other ``settings`` from now on, in sessions that are open too."""
        before = (self.data / "postgresql.auto.conf").read_text()
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        (self.data / "postgresql.auto.conf").write_text("\n".join([before, *lines, ""]))
        self.signal(signal.SIGHUP)
        time.sleep(0.1)  # until its processes have heard of it

    def stop(self) -> None:
        # SIGTERM would wait for the clients to leave.
        self.signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it, as the end of the machine would: every one of its processes."""
        self.signal(signal.SIGSTOP)  # or it could start others meanwhile
        backends = children(self.process.pid)
        super().kill()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(map(runs, backends)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def freeze(self) -> None:
        super().freeze()
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGSTOP)
            await_stop(pid)

    def thaw(self) -> None:
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGCONT)
        super().thaw()


class PgBouncer(Server):
    """A PgBouncer that pools transactions, in front of ``postgresql``; ``settings`` of its own."""

    def __init__(self, postgresql: PostgreSQL, **settings: object) -> None:
        self.postgresql = postgresql
        self.settings = {"pool_mode": "transaction", "default_pool_size": 4, **settings}
        self.program = _find("pgbouncer", ["/usr/sbin"])
        super().__init__()

    @property
    def store(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        users = self.folder / "users"
        users.write_text(f'"{USER}" "{self.postgresql.password or ""}"\n')
        behind = f"host=127.0.0.1 port={self.postgresql.port}"
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            **self.settings,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        text = "\n".join(["[databases]", f"* = {behind}", "[pgbouncer]", *lines, ""])
        (self.folder / "pgbouncer.ini").write_text(text)
        for path in (self.folder, *self.folder.iterdir()):
            _give(path)

    def command(self) -> Sequence[str | Path]:
        return [self.program, self.folder / "pgbouncer.ini"]

    def options(self) -> dict[str, Any]:
        return _as_another_user()

    def is_ready(self) -> bool:
        import socket

        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True


def _programs() -> Path:
    """The folder of the newest PostgreSQL's programs."""
    found = glob.glob("/usr/lib/postgresql/*/bin")
    newest = sorted(found, key=lambda folder: float(Path(folder).parent.name))
    return _find("postgres", [*newest[-1:], *os.environ["PATH"].split(os.pathsep)]).parent


def _find(program: str, folders: Sequence[str]) -> Path:
    found = shutil.which(program, path=os.pathsep.join(folders)) or shutil.which(program)
    if found is None:
        raise FileNotFoundError(f"{program} is not installed")
    return Path(found)


def _as_another_user() -> dict[str, Any]:
    """Whom to run as: these programs refuse to be root."""
    if os.geteuid() != 0:
        return {}
    user = _user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    """Make ``path`` the server's."""
    if os.geteuid() == 0:
        os.chown(path, _user().pw_uid, _user().pw_gid)


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return pwd.getpwnam("nobody")
