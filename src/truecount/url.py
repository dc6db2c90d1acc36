"""Store URLs: ``scheme://rest?option=value``."""

from __future__ import annotations

import math
import re
from typing import Final

from truecount.errors import StoreURLError

__all__ = ["StoreURL"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
_PASSWORD = re.compile(r"(?<=:).*(?=@)")
_SECRETS = ("password", "passwd", "secret", "token", "scram_")


LONGEST: Final = 1e10
"""The longest span, in seconds, that can be remembered: three centuries."""


def _hide(rest: str) -> str:
    """``rest`` of a URL without the password; a path of the file system has none."""
    return rest if rest.startswith("/") else _PASSWORD.sub("***", rest, count=1)


def _is_secret(option: str) -> bool:
    from urllib.parse import unquote

    return any(word in unquote(option).lower() for word in _SECRETS)


class StoreURL:
    """A store's URL, taken apart.

    ``scheme`` and ``rest`` (what stands between ``://`` and ``?``) are
    strings. Options are taken out by name, and `finish` complains of those
    that nobody took. Raises `StoreURLError` when the text is not such a URL.
    """

    def __init__(self, text: str) -> None:
        from urllib.parse import parse_qsl

        scheme, colon, tail = text.partition("://")
        self.scheme = scheme.lower()
        self.text = text = self.scheme + colon + tail
        if not colon or not _SCHEME.match(self.scheme):
            raise StoreURLError(
                f"{_hide(text)!r} is not a store URL; one looks like sqlite:///counters.db "
                "(relative), sqlite:////var/lib/counters.db (absolute), redis://127.0.0.1:6379, "
                "postgresql://user@host/database, etcd://127.0.0.1:2379, dynamodb://us-east-1, "
                "simpledb://us-east-1 or memory://"
            )
        if not text.isprintable():
            raise StoreURLError(f"{self.shown!r} holds characters that no URL can")
        self.rest, _, query = tail.partition("?")
        self._options: dict[str, str] = {}
        self._taken: list[str] = []
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name in self._options:
                raise StoreURLError(f"{self.shown!r} gives the option {name!r} twice")
            self._options[name] = value

    @property
    def shown(self) -> str:
        """The URL without its passwords, for people to read."""
        head, mark, query = self.text.partition("?")
        scheme, colon, rest = head.partition("://")
        options = [
            f"{name}=***" if _is_secret(name) else f"{name}={value}"
            for name, _, value in (option.partition("=") for option in query.split("&"))
        ]
        if "@" in query:  # a password with a question mark, which is not quoted
            return f"{scheme}{colon}***"
        return scheme + colon + _hide(rest) + mark + ("&".join(options) * bool(mark))

    @property
    def secret(self) -> bool:
        """Whether there is a password in it."""
        return self.shown != self.text

    def having(self, name: str, seconds: float | None) -> StoreURL:
        """The same URL with the option ``name`` being ``seconds``, or ``none``."""
        head, _, query = self.text.partition("?")
        options = [o for o in query.split("&") if o and o.partition("=")[0] != name]
        options.append(f"{name}={'none' if seconds is None else format(seconds, '.15g')}")
        return StoreURL(f"{head}?{'&'.join(options)}")

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """The option ``name``, one of ``allowed``; the first of them unless given."""
        value = self._take(name)
        if value is None:
            return allowed[0]
        if value not in allowed:
            raise StoreURLError(f"?{name}={value}: it is one of {', '.join(allowed)}")
        return value

    def option(self, name: str) -> str | None:
        """The option ``name`` as it stands there; None unless given."""
        return self._take(name)

    def count(self, name: str, default: int) -> int:
        """The option ``name`` as a whole number, 0 or more."""
        value = self._take(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise StoreURLError(f"?{name}={value}: it is a whole number, 0 or more")
        return int(value)

    def seconds(self, name: str, default: float | None) -> float | None:
        """The option ``name`` as a number of seconds, or None for ``none``."""
        value = self._take(name)
        if value is None:
            return default
        return (
            None if value == "none" else self._number(name, value, "a number of seconds, or none")
        )

    def positive_seconds(self, name: str, default: float) -> float:
        """The option ``name`` as a number of seconds above 0."""
        value = self._take(name)
        if value is None:
            return default
        what = f"a number of seconds above 0, and at most {LONGEST:.0e}"
        seconds = self._number(name, value, what)
        if not 0 < seconds <= LONGEST:
            raise StoreURLError(f"?{name}={value}: it is {what}")
        return seconds

    def finish(self) -> None:
        """Raise `StoreURLError` when an option is left that nobody took."""
        for name in self._options:
            if name not in self._taken:
                if "@" in self.text.partition("?")[2]:
                    raise StoreURLError(
                        f"{self.shown!r} has an '@' after a '?': in a password, '?' is written %3F"
                    )
                known = ", ".join(sorted(self._taken)) or "none"
                raise StoreURLError(f"{self.scheme}: has no option {name!r}; it knows {known}")

    def _take(self, name: str) -> str | None:
        self._taken.append(name)
        return self._options.get(name)

    def _number(self, name: str, value: str, what: str) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise StoreURLError(f"?{name}={value}: it is {what}")
        return seconds
