"""The commands: numbers on stdout for scripts, words on stderr for people."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

import truecount
from truecount import moment
from truecount.change import Receipt
from truecount.combine import SENT
from truecount.connect import VARIABLE, connect
from truecount.counter import Counter
from truecount.defaults import CONFIGURED, UNCHANGED, Configured, Unchanged
from truecount.domain import Domain
from truecount.errors import (
    CounterError,
    InvalidNameError,
    InvalidTypeError,
    OutcomeUnknownError,
    StoreError,
    StoreURLError,
)
from truecount.stores.base import Store

__all__ = ["cli", "run"]

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
UNKNOWN: Final = 4
CRASHED: Final = 70
INTERRUPTED: Final = 130

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings:
    """What the options say that every command has."""

    def __init__(self) -> None:
        self.store: str | None = None
        self.json = False
        self.timeout: float | Configured | None = CONFIGURED

    def connect(self) -> Store:
        """The store that the commands work on."""
        return connect(self.store, timeout=self.timeout)

    def answer(self, plain: str, **facts: Any) -> None:
        """Print the answer to stdout, as plain text or as JSON."""
        click.echo(json.dumps(facts, ensure_ascii=False) if self.json else plain)


class Command(click.Command):
    """A command that takes ``-5`` for a number and not for an option."""

    MINUS = "\N{MINUS SIGN}"  # stands for the sign while click looks for options

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        hidden = [self.MINUS + arg[1:] if re.fullmatch("-[0-9]+", arg) else arg for arg in args]
        return super().parse_args(ctx, hidden)


class NobodyReadsError(Exception):
    """Whoever read the output has had enough."""


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # which click would make status 1
            raise NobodyReadsError from error


def _whole_number(value: Any, param: Any, ctx: Any) -> int:
    text = str(value).replace(Command.MINUS, "-", 1)
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise click.BadParameter(f"{text!r} is not a whole number", ctx, param)
    if len(text) > 1500:
        raise click.BadParameter("longer than 1,500 digits; a counter has 500", ctx, param)
    return int(text)


class Integer(click.ParamType[int]):
    """A whole number of any length."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        return _whole_number(value, param, ctx)


class Bound(click.ParamType[int | None | Unchanged]):
    """A whole number, or ``none``."""

    name = "integer|none"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | Unchanged | None:
        if value == "none":
            return None
        return UNCHANGED if value is UNCHANGED else _whole_number(value, param, ctx)


class Seconds(click.ParamType[float | None]):
    """A number of seconds, or ``none``."""

    name = "seconds"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | None:
        if value == "none":
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of seconds nor 'none'", param, ctx)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option that may stand before the command and after it."""
    settings = ctx.ensure_object(Settings)
    source = ctx.get_parameter_source(param.name or "")
    if source is click.core.ParameterSource.COMMANDLINE:
        setattr(settings, param.name or "", value)


def _options(function: Function) -> Function:
    """Give a command the options that all have."""
    for option in (
        click.option(
            "--timeout",
            type=Seconds(),
            callback=_keep,
            expose_value=False,
            help="Seconds to wait for the store, or 'none' for no end. [default: 10]",
        ),
        click.option(
            "--json", is_flag=True, callback=_keep, expose_value=False, help="Answer in JSON."
        ),
        click.option(
            "--store",
            metavar="URL",
            callback=_keep,
            expose_value=False,
            help=f"The store, such as sqlite:///counters.db. [default: ${VARIABLE}, "
            "else a file in your data folder; see 'truecount where']",
        ),
    ):
        function = option(function)
    return function


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(truecount.__version__, prog_name="truecount")
@_options
def cli() -> None:
    """Count what must not be miscounted.

    Numbers go to stdout, words to stderr. Exit status: 0 done, 1 refused,
    2 wrong usage, 3 store unavailable, 4 outcome unknown, 70 a crash,
    130 interrupted before anything was sent.
    """


pass_settings = click.make_pass_decorator(Settings, ensure=True)
domain_argument = click.argument("domain")
name_argument = click.argument("name")
key_option = click.option(
    "--key", help="An idempotency key: however often it is repeated, the change counts once."
)


def _command(function: Function) -> click.Command:
    """Make a command that knows the settings and has the options that all have."""
    name = function.__name__.rstrip("_")
    return cli.command(name, short_help=None)(_options(pass_settings(function)))


def _answer_receipt(settings: Settings, counter: Counter, receipt: Receipt) -> None:
    if receipt.replayed:
        click.echo(f"this had been done at {receipt.timestamp}; not again", err=True)
    settings.answer(str(receipt.after), **_address(counter), **_facts(receipt))


def _address(counter: Counter) -> dict[str, str]:
    return {"domain": counter.domain, "name": counter.name}


def _facts(receipt: Receipt) -> dict[str, Any]:
    return {
        "before": receipt.before,
        "after": receipt.after,
        "timestamp": receipt.timestamp,
        "revision": receipt.revision,
        "key": receipt.key,
        "replayed": receipt.replayed,
    }


@_command
@domain_argument
@name_argument
@click.argument("n", type=Integer(), default=1)
@key_option
def add(settings: Settings, domain: str, name: str, n: int, key: str | None) -> None:
    """Add N to the counter, and print the new value.

    N is 1 unless given; '-5' is an amount too. A counter that does not exist
    is created at 0.
    """
    counter = Counter(domain, name, store=settings.connect())
    _answer_receipt(settings, counter, counter.add(n, key=key))


@_command
@domain_argument
@name_argument
@click.argument("n", type=Integer(), default=1)
@key_option
def subtract(settings: Settings, domain: str, name: str, n: int, key: str | None) -> None:
    """Subtract N from the counter, and print the new value; otherwise as 'add'."""
    counter = Counter(domain, name, store=settings.connect())
    _answer_receipt(settings, counter, counter.subtract(n, key=key))


@_command
@domain_argument
@name_argument
def get(settings: Settings, domain: str, name: str) -> None:
    """Print the counter's value. Never creates one."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    settings.answer(
        str(counter.value),
        **_address(counter),
        value=counter.value,
        minimum=counter.minimum,
        maximum=counter.maximum,
        timestamp=counter.timestamp,
        revision=counter.revision,
    )


@_command
@domain_argument
@name_argument
@click.argument("value", type=Integer())
@key_option
def set_(settings: Settings, domain: str, name: str, value: int, key: str | None) -> None:
    """Make the counter VALUE, whatever it was, and print it.

    A counter that does not exist is created first.
    """
    counter = Counter(domain, name, store=settings.connect())
    _answer_receipt(settings, counter, counter.set(value, key=key))


@_command
@domain_argument
@name_argument
@click.argument("n", type=Integer())
@key_option
def reserve(settings: Settings, domain: str, name: str, n: int, key: str | None) -> None:
    """Reserve N numbers for yourself, and print the first and the last."""
    counter = Counter(domain, name, store=settings.connect())
    numbers = counter.reserve(n, key=key)
    first, last = numbers[0], numbers[-1]
    settings.answer(f"{first} {last}", **_address(counter), first=first, last=last, key=key)


@_command
@domain_argument
@name_argument
@click.option("--minimum", type=Bound(), default=UNCHANGED, help="The least value, or 'none'.")
@click.option("--maximum", type=Bound(), default=UNCHANGED, help="The greatest value, or 'none'.")
def limit(
    settings: Settings,
    domain: str,
    name: str,
    minimum: int | Unchanged | None,
    maximum: int | Unchanged | None,
) -> None:
    """Set the counter's bounds, for all who write to it, and print them."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    if minimum is not UNCHANGED or maximum is not UNCHANGED:
        counter.limit(minimum=minimum, maximum=maximum)
    bounds = counter.minimum, counter.maximum
    plain = " ".join("none" if bound is None else str(bound) for bound in bounds)
    settings.answer(plain, **_address(counter), minimum=bounds[0], maximum=bounds[1])


@_command
@domain_argument
@name_argument
def delete(settings: Settings, domain: str, name: str) -> None:
    """Delete the counter."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    counter.delete()
    click.echo(f"deleted {name!r} in {domain!r}, which was {counter.value}", err=True)
    if settings.json:
        settings.answer("", **_address(counter), value=counter.value)


@_command
@domain_argument
@name_argument
@click.argument("key")
def receipt(settings: Settings, domain: str, name: str, key: str) -> None:
    """Print the value that the change made under KEY left."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    found = counter.receipt(key)
    click.echo(f"{found.before} became {found.after} at {found.timestamp}", err=True)
    settings.answer(str(found.after), **_address(counter), **_facts(found))


@_command
@domain_argument
def list_(settings: Settings, domain: str) -> None:
    """List the counters in DOMAIN with their values."""
    values = Domain(domain, store=settings.connect()).snapshot()
    if settings.json:
        settings.answer("", domain=domain, counters=values)
    elif sys.stdout.isatty():
        table = Table("name", box=None, header_style="bold")
        table.add_column("value", justify="right")
        for name, value in values.items():
            table.add_row(name, str(value))
        Console().print(table)
    else:
        for name, value in values.items():
            click.echo(f"{name}\t{value}")


@_command
def domains(settings: Settings) -> None:
    """List the domains that hold a counter."""
    names = list(settings.connect().domains())
    if settings.json:
        settings.answer("", domains=names)
    else:
        for name in names:
            click.echo(name)


@_command
@click.option(
    "--older-than",
    type=click.IntRange(min=7),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Only what was deleted before that many days, 7 at least.",
)
def purge(settings: Settings, older_than: int) -> None:
    """Remove what deleted counters left behind, and print how many there were.

    A deleted counter leaves a small record, so that no request that was under
    way can bring it back. After days none is.
    """
    before = moment.now() - older_than * 24 * 3600 * 1_000_000
    gone = settings.connect().purge(before)
    settings.answer(str(gone), purged=gone)


@_command
def where(settings: Settings) -> None:
    """Print the URL of the store that is used, and say what chose it."""
    if settings.store is not None:
        reason = "named by --store"
    elif os.environ.get(VARIABLE):
        reason = f"named by ${VARIABLE}"
    else:
        reason = f"the default; set ${VARIABLE} or give --store for another"
    store = settings.connect()
    click.echo(reason, err=True)
    settings.answer(store.shown, url=store.shown, reason=reason)


@_command
@click.option("--fast", is_flag=True, help="Do not pause for the reader.")
def demo(settings: Settings, fast: bool) -> None:
    """Show what a counter does, on a store that is thrown away afterwards."""
    from truecount.cli.demo import Deviation, play

    del settings  # the demo brings its own store
    try:
        play(fast=fast)
    except Deviation as deviation:
        raise CounterError(f"the demo went wrong: {deviation}") from deviation


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments``; the exit status."""
    try:
        cli.main(arguments, prog_name="truecount", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort as abort:
        if SENT in getattr(abort.__cause__, "__notes__", ()):
            return _complain("interrupted; the change was sent, its outcome is unknown", UNKNOWN)
        return _complain("interrupted; nothing was sent", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return USAGE
    except OutcomeUnknownError as error:
        return _complain(f"{error}. Repeat with the same --key, if it had one", UNKNOWN)
    except (InvalidNameError, InvalidTypeError, StoreURLError) as error:
        return _complain(str(error), USAGE)
    except StoreError as error:
        return _complain(str(error), UNAVAILABLE)
    except CounterError as error:
        return _complain(str(error), REFUSED)
    except (NobodyReadsError, BrokenPipeError):
        # What was to be done is done. Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        traceback.print_exc()
        return _complain("crashed; please report the lines above", CRASHED)
    return DONE


def _complain(text: str, status: int) -> int:
    click.echo(f"truecount: {text}", err=True)
    return status
