"""What a line of a history has to hold, so that nobody who judges it need ask. Pure.

The format is described in ``docs/histories.md``. What is wrong raises
`ValueError`, which says what.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "OPERATIONS",
    "check_call",
    "check_header",
    "check_note",
    "check_number",
    "check_return",
    "check_try",
]

_NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "open": ("initial",),
    "add": ("n",),
    "set": ("value",),
    "update": (),
    "compare_and_set": ("expected", "new"),
    "assign": ("expected", "new"),
    "reserve": ("n",),
    "refresh": (),
    "receipt": (),
    "limit": (),
    "delete": (),
    "retry": (),
    "cancel": (),
}
"""The numbers that each operation is asked with."""

OPERATIONS: Final = tuple(_NUMBERS)
"""What a call may ask for."""

_BARE: Final = 4
"""How many fields of a call all operations have."""

_FACTS: Final = ("value", "minimum", "maximum", "expected", "actual")
"""The numbers that go with an error."""


def check_header(line: dict[str, Any]) -> None:
    """The first line of a file, of a version that is known."""
    if not isinstance(line.get("process"), str):
        raise ValueError("it does not say of which process it is")
    ttl = line.get("key_ttl")
    if ttl is not None and type(ttl) not in (int, float):
        raise ValueError(f"'key_ttl' is a number of seconds or null, not {ttl!r}")


def check_call(line: dict[str, Any]) -> None:
    """A call that begins."""
    op = line.get("op")
    numbers = _NUMBERS.get(op) if type(op) is str else None
    if numbers is None:
        raise ValueError(f"there is no operation {op!r}")
    check_number(line, "t")
    check_number(line, "call")
    at = line.get("at")
    if type(at) is not list or len(at) != 2 or type(at[0]) is not str or type(at[1]) is not str:
        raise ValueError(f"'at' is a domain and a name, not {at!r}")
    for name in numbers:
        check_number(line, name)
    if len(line) > _BARE + len(numbers):
        _check_options(line)
    if op == "receipt" and line.get("key") is None:
        raise ValueError("a receipt is asked for by 'key'")
    if op in ("retry", "cancel") and "of" not in line:
        raise ValueError(f"'of' says which call it is that is settled by {op!r}")


def check_return(line: dict[str, Any], asked: dict[str, Any]) -> None:
    """What came of the call that ``asked`` for it."""
    check_number(line, "t")
    receipt = line.get("receipt")
    if receipt is not None and not (_are_five(receipt) and type(receipt[4]) is bool):
        raise ValueError(f"a receipt is [before, after, revision, time, replayed], not {receipt!r}")
    view = line.get("view")
    if view is not None and not (_are_five(view) and _is_optional(view[4])):
        raise ValueError(f"a view is [revision, value, time, minimum, maximum], not {view!r}")
    if "error" in line:
        if type(line["error"]) is not str:
            raise ValueError(f"'error' is the name of one, not {line['error']!r}")
        for name in _FACTS:
            if not _is_optional(line.get(name)):
                raise ValueError(f"{name!r} is a whole number, not {line[name]!r}")
    elif "unknown" not in line:
        _check_answer(line, asked)


def check_try(line: dict[str, Any]) -> None:
    """What an update is about to send."""
    for name in ("t", "try", "expected", "new"):
        check_number(line, name)


def check_note(line: dict[str, Any]) -> None:
    """A remark; there is no other line."""
    if "note" not in line:
        raise ValueError("this is no line of a history: no call, no return, no note")
    check_number(line, "t")


def _check_answer(line: dict[str, Any], asked: dict[str, Any]) -> None:
    """What is told of a call that was neither refused nor left unknown."""
    op = asked["op"]
    if op in ("compare_and_set", "cancel"):
        if type(line.get("done")) is not bool:
            raise ValueError(f"'done' is true or false after {op!r}, not {line.get('done')!r}")
    elif (op in ("receipt", "retry") or asked.get("key") is not None) and line.get(
        "receipt"
    ) is None:
        raise ValueError(f"'receipt' is missing after {op!r}")


def _check_options(line: dict[str, Any]) -> None:
    for name in ("minimum", "maximum"):
        if not _is_optional(line.get(name)):
            raise ValueError(f"{name!r} is a whole number or null, not {line[name]!r}")
    if line.get("key") is not None and type(line["key"]) is not str:
        raise ValueError(f"'key' is a text, not {line['key']!r}")
    if "create" in line and type(line["create"]) is not bool:
        raise ValueError(f"'create' is true or false, not {line['create']!r}")
    if "of" in line:
        match line["of"]:
            case [str(), int()]:
                pass
            case other:
                raise ValueError(f"'of' is a process and the number of a call, not {other!r}")


def check_number(line: dict[str, Any], name: str) -> None:
    """A field that has to be a whole number."""
    if type(line.get(name)) is not int:
        what = f"not {line[name]!r}" if name in line else "and is missing"
        raise ValueError(f"{name!r} is a whole number, {what}")


def _are_five(given: Any) -> bool:
    """Whether ``given`` is a list of five: two numbers, two that may be null, and another thing."""
    return (
        type(given) is list
        and len(given) == 5
        and type(given[0]) is type(given[1]) is int
        and _is_optional(given[2])
        and _is_optional(given[3])
    )


def _is_optional(number: Any) -> bool:
    return number is None or type(number) is int
