"""The commands: numbers on stdout for scripts, words on stderr for people."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import truecount
from truecount import moment
from truecount.arguments import check_amount, check_count, check_key, check_value
from truecount.change import Receipt
from truecount.cli.output import AnswerLostError, NobodyReadsError, forget, say, stdout
from truecount.cli.parameters import Bound, Command, Days, Integer, Seconds
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
from truecount.record import MOST
from truecount.stores.base import Store

__all__ = ["cli", "run"]

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
UNDECIDED: Final = 3  # of `check`, which uses no store
UNKNOWN: Final = 4
CRASHED: Final = 70
INTERRUPTED: Final = 130


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
        escape = sys.stdout.encoding != "utf-8"
        click.echo(json.dumps(facts, ensure_ascii=escape) if self.json else plain)


class Group(click.Group):
    """A group of commands that let ``-5`` be an argument."""

    command_class = Command


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option that may stand before the command and after it."""
    settings = ctx.ensure_object(Settings)
    source = ctx.get_parameter_source(param.name or "")
    if source is click.core.ParameterSource.COMMANDLINE:
        setattr(settings, param.name or "", value)


OPTIONS: Final[list[click.Parameter]] = [
    click.Option(
        ["--store"],
        metavar="URL",
        callback=_keep,
        expose_value=False,
        help=f"The store, such as sqlite:///counters.db. [default: ${VARIABLE}, "
        "else a file in your data folder; see 'truecount where']",
    ),
    click.Option(
        ["--json"], is_flag=True, callback=_keep, expose_value=False, help="Answer in JSON."
    ),
    click.Option(
        ["--timeout"],
        type=Seconds(),
        callback=_keep,
        expose_value=False,
        help="Seconds to wait for the store, or 'none' for no end. [default: 10]",
    ),
]
"""What may stand before every command that asks the store, and after it."""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(truecount.__version__, prog_name="truecount")
def cli() -> None:
    """Count what must not be miscounted.

    Numbers go to stdout, words to stderr. Exit status: 0 done, 1 refused,
    2 wrong usage, 3 store unavailable, 4 outcome unknown, or the answer could
    not be written, 70 a crash, 130 interrupted before anything was sent.
    """


cli.params[:0] = OPTIONS

pass_settings = click.make_pass_decorator(Settings, ensure=True)
domain_argument = click.argument("domain")
name_argument = click.argument("name")
key_option = click.option(
    "--key", help="An idempotency key: however often it is repeated, the change counts once."
)


def _command(function: Callable[..., None]) -> click.Command:
    """Make a command that knows the settings, with the options that set them."""
    command = cli.command(function.__name__.rstrip("_"))(pass_settings(function))
    command.params += OPTIONS
    return command


def _add(settings: Settings, domain: str, name: str, n: int, key: str | None) -> Receipt:
    """Add to a counter, which is created for it if it can hold the sum."""
    check_amount(n)
    check_key(key)
    counter = Counter(domain, name, store=settings.connect(), create=abs(n) <= MOST)
    return _heard(counter.add(n, key=key))


def _heard(receipt: Receipt) -> Receipt:
    if receipt.replayed:
        say(f"this had been done at {receipt.timestamp}; not again")
    return receipt


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

    For example: truecount add shop umbrellas -5 --key order-17
    """
    receipt = _add(settings, domain, name, n, key)
    settings.answer(str(receipt.after), domain=domain, name=name, **_facts(receipt))


@_command
@domain_argument
@name_argument
@click.argument("n", type=Integer(), default=1)
@key_option
def subtract(settings: Settings, domain: str, name: str, n: int, key: str | None) -> None:
    """Subtract N from the counter; otherwise as 'add'."""
    receipt = _add(settings, domain, name, -n, key)
    settings.answer(str(receipt.after), domain=domain, name=name, **_facts(receipt))


@_command
@domain_argument
@name_argument
def get(settings: Settings, domain: str, name: str) -> None:
    """Print the counter's value. Never creates one."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    settings.answer(
        str(counter.value),
        domain=domain,
        name=name,
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

    A counter that does not exist is created.
    """
    check_value(value, "the value")
    check_key(key)
    receipt = _heard(Counter(domain, name, store=settings.connect()).set(value, key=key))
    settings.answer(str(receipt.after), domain=domain, name=name, **_facts(receipt))


@_command
@domain_argument
@name_argument
@click.argument("n", type=Integer())
@key_option
def reserve(settings: Settings, domain: str, name: str, n: int, key: str | None) -> None:
    """Reserve N numbers, and print the first and the last.

    Nobody else gets them. A counter that does not exist is created at 0.
    """
    receipt = _add(settings, domain, name, check_count(n, "the number of ids"), key)
    first, last = receipt.before + 1, receipt.after
    facts = {"first": first, "last": last, **_facts(receipt)}
    settings.answer(f"{first} {last}", domain=domain, name=name, **facts)


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
    """Set the counter's bounds, and print them.

    They hold for all who write to it. Without options, only prints them.
    """
    counter = Counter(domain, name, store=settings.connect(), create=False)
    if minimum is not UNCHANGED or maximum is not UNCHANGED:
        counter.limit(minimum=minimum, maximum=maximum)
    bounds = counter.minimum, counter.maximum
    plain = " ".join("none" if bound is None else str(bound) for bound in bounds)
    settings.answer(plain, domain=domain, name=name, minimum=bounds[0], maximum=bounds[1])


@_command
@domain_argument
@name_argument
def delete(settings: Settings, domain: str, name: str) -> None:
    """Delete the counter."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    counter.delete()
    say(f"deleted {name!r} in {domain!r}, which was {counter.value}")
    if settings.json:
        settings.answer("", domain=domain, name=name, value=counter.value)


@_command
@domain_argument
@name_argument
@click.argument("key")
def receipt(settings: Settings, domain: str, name: str, key: str) -> None:
    """Print the value that the change made under KEY left."""
    counter = Counter(domain, name, store=settings.connect(), create=False)
    found = counter.receipt(key)
    say(f"{found.before} became {found.after} at {found.timestamp}")
    settings.answer(str(found.after), domain=domain, name=name, **_facts(found))


@_command
@domain_argument
def list_(settings: Settings, domain: str) -> None:
    """List the counters in DOMAIN with their values."""
    values = Domain(domain, store=settings.connect()).snapshot()
    if settings.json:
        settings.answer("", domain=domain, counters=values)
    elif sys.stdout.isatty():
        table = Table(box=None, header_style="bold")
        table.add_column("name", overflow="fold")
        table.add_column("value", overflow="fold", justify="right")
        for name, value in values.items():
            table.add_row(Text(name), str(value))  # a name in brackets is no markup
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
    type=Days(),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Only what was deleted before that many days, 7 at least.",
)
def purge(settings: Settings, older_than: int) -> None:
    """Remove what deleted counters left; print how many.

    A deleted counter leaves a small record, so that no request that was under
    way can bring it back. After some days there is none.
    """
    before = moment.now() - older_than * 24 * 3600 * 1_000_000
    gone = settings.connect().purge(before)
    settings.answer(str(gone), purged=gone)


@_command
def where(settings: Settings) -> None:
    """Print the store that is used, and say what chose it."""
    if settings.store is not None:
        reason = "named by --store"
    elif os.environ.get(VARIABLE):
        reason = f"named by ${VARIABLE}"
    else:
        reason = f"the default; set ${VARIABLE} or give --store for another"
    store = settings.connect()
    say(reason)
    settings.answer(store.shown, url=store.shown, reason=reason)


@cli.command()
@click.argument("history", nargs=-1, required=True, type=click.Path())
def check(history: tuple[str, ...]) -> None:
    """Judge what recorded callers were told.

    HISTORY: files that truecount.testing.history has written, or folders of
    them. Prints the verdict, and the first contradiction with the calls around
    it. Exit status: 0 no contradiction, 1 one or more, 2 not a history, 3 no
    contradiction, but gaps in which too much is unknown to be judged.
    """
    from truecount.testing.checker import NotAHistoryError
    from truecount.testing.checker import check as judge

    try:
        verdict = judge(history)
    except NotAHistoryError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(_complain("interrupted", INTERRUPTED)) from None
    click.echo(str(verdict))
    if verdict.contradictions:
        raise click.exceptions.Exit(REFUSED)
    if verdict.undecided:
        click.echo("undecided: this is no proof that all of it can have been")
        raise click.exceptions.Exit(UNDECIDED)


@cli.command()
@click.option("--fast", is_flag=True, help="Do not pause for the reader.")
def demo(fast: bool) -> None:
    """Show what a counter does, on a store of its own.

    The store is thrown away afterwards.
    """
    from truecount.cli.demo import Deviation, play

    try:
        play(fast=fast)
    except (Deviation, AnswerLostError) as error:
        raise CounterError(f"the demo went wrong: {error}") from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(_complain("the demo was interrupted", INTERRUPTED)) from None


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments``; the exit status."""
    sys.stdout = stdout()
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    try:
        status: int | None = cli.main(arguments, prog_name="truecount", standalone_mode=False)
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
    except NobodyReadsError:  # what was to be done is done
        forget(sys.stdout)
    except AnswerLostError as error:
        forget(sys.stdout)
        what = "the command was carried out, but its answer could not be written"
        return _complain(f"{what}: {error}", UNKNOWN)
    except Exception:  # shown whole, and status 70: no script takes it for a refusal
        traceback.print_exc()
        return _complain("crashed; please report the lines above", CRASHED)
    else:
        return status or DONE
    return DONE


def _complain(text: str, status: int) -> int:
    say(f"truecount: {text}")
    return status
