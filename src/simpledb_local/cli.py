"""The command line of the server."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import click

from simpledb_local.app import make_app
from simpledb_local.domains import Domains, UnusableError
from simpledb_local.serve import listen, serve
from simpledb_local.signature import Credentials

__all__ = ["cli"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="truecount")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="The port to listen on; 0 picks a free one.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="The folder to keep the domains in. Without it they are in memory only.",
)
@click.option("--access-key", metavar="ID", help="Take only requests signed with this key.")
@click.option("--secret-key", metavar="SECRET", help="The secret that belongs to it.")
@click.option(
    "--lag",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="Let reads without ConsistentRead see what was so long ago.",
)
@click.option(
    "--fail-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Answer 503 with this probability; half of those requests are performed all the same.",
)
def cli(
    host: str,
    port: int,
    data: str | None,
    access_key: str | None,
    secret_key: str | None,
    lag: float,
    fail_rate: float,
) -> None:
    """A server that speaks Amazon SimpleDB's API, for development and tests.

    It prints its URL when it is ready, and stops on SIGTERM or Ctrl-C. Clients
    may use any credentials, unless a key is given here.
    """
    logging.basicConfig(format="simpledb-local: %(message)s", level=logging.WARNING)
    if data == "":
        raise click.UsageError("--data names no folder.")
    if bool(access_key) != bool(secret_key):
        raise click.UsageError("--access-key and --secret-key belong together.")
    credentials = Credentials(access_key, secret_key) if access_key and secret_key else None
    try:
        domains = Domains(Path(data) if data else None, lag)
    except UnusableError as error:
        raise click.ClickException(str(error)) from error
    try:
        listener = listen(host, port)
    except OSError as error:
        domains.close()
        # `create_server` puts a note of its own behind the system's words; a resolver has others.
        number = error.errno or 0
        reason = os.strerror(number) if number in errno.errorcode else error.strerror
        raise click.ClickException(f"cannot listen on {host}:{port}: {reason}") from error
    try:
        serve(make_app(domains, credentials, fail_rate), listener)
    finally:
        domains.close()
