"""Conditional writes: every row of the table of what may be expected."""

from __future__ import annotations

from typing import Any

import pytest

from simpledb_server import Client, Reply, put_fields

HOLDS = (200, None, None)
EXISTS = (409, "ConditionalCheckFailed", "Conditional check failed. Attribute (a) value exists")
DIFFERS = (
    409,
    "ConditionalCheckFailed",
    "Conditional check failed. Attribute (a) value is (7) but was expected (6)",
)
MULTI = (
    409,
    "MultiValuedAttribute",
    (
        "Attribute (a) is multi-valued. "
        "Conditional check can only be performed on a single-valued attribute"
    ),
)
ABSENT = (404, "AttributeDoesNotExist", "Attribute (a) does not exist")
INCOMPLETE = (
    400,
    "IncompleteExpectedValues",
    "If Expected.Exists = True or unspecified, then Expected.Value has to be specified",
)
CONTRADICTION = (
    400,
    "ExistsAndExpectedValue",
    "Expected.Exists=false and Expected.Value cannot be specified together",
)

ONE = [("a", "7")]
TWO = [("a", "7"), ("a", "6")]
OTHER = [("b", "7")]
NONE: list[tuple[str, str]] = []

ROWS: dict[str, tuple[dict[str, str], list[tuple[str, str]], Any]] = {
    "equal": ({"Name": "a", "Value": "7"}, ONE, HOLDS),
    "equal, exists": ({"Name": "a", "Value": "7", "Exists": "true"}, ONE, HOLDS),
    "different": ({"Name": "a", "Value": "6"}, ONE, DIFFERS),
    "different, exists": ({"Name": "a", "Value": "6", "Exists": "true"}, ONE, DIFFERS),
    "two values": ({"Name": "a", "Value": "5"}, TWO, MULTI),
    "two values, one equal": ({"Name": "a", "Value": "7"}, TWO, MULTI),
    "attribute absent": ({"Name": "a", "Value": "7"}, OTHER, ABSENT),
    "item absent": ({"Name": "a", "Value": "7"}, NONE, ABSENT),
    "none, attribute absent": ({"Name": "a", "Exists": "false"}, OTHER, HOLDS),
    "none, item absent": ({"Name": "a", "Exists": "false"}, NONE, HOLDS),
    "none, one value": ({"Name": "a", "Exists": "false"}, ONE, EXISTS),
    "none, two values": ({"Name": "a", "Exists": "false"}, TWO, EXISTS),
    "none, and a value": ({"Name": "a", "Exists": "false", "Value": "7"}, ONE, CONTRADICTION),
    "name only": ({"Name": "a"}, ONE, INCOMPLETE),
    "exists, no value": ({"Name": "a", "Exists": "true"}, ONE, INCOMPLETE),
    "two names": (
        {"1.Name": "a", "1.Value": "7", "2.Name": "b"},
        ONE,
        (400, "MultipleExpectedNames", "Only one Expected.Name can be specified"),
    ),
    "two values expected": (
        {"1.Name": "a", "1.Value": "7", "2.Value": "7"},
        ONE,
        (400, "MultipleExpectedValues", "Only one Expected.Value can be specified"),
    ),
    "two existences": (
        {"1.Name": "a", "1.Exists": "true", "2.Exists": "true"},
        ONE,
        (400, "MultipleExistsConditions", "Only one Exists condition can be specified"),
    ),
    "neither true nor false": (
        {"Name": "a", "Exists": "maybe"},
        ONE,
        (
            400,
            "InvalidParameterValue",
            (
                "Value (maybe) for parameter Expected.Exists is invalid. "
                "Expected.Exists should be either true or false."
            ),
        ),
    ),
    "no name": (
        {"Value": "7"},
        ONE,
        (400, "MissingParameter", "The request must contain the parameter Expected.Name."),
    ),
    "the empty value": ({"Name": "a", "Value": ""}, [("a", "")], HOLDS),
    "text, not number": (
        {"Name": "a", "Value": "07"},
        ONE,
        (409, "ConditionalCheckFailed", DIFFERS[2].replace("(6)", "(07)")),
    ),
}


def outcome(reply: Reply) -> tuple[int, str | None, str | None]:
    """What a condition can lead to."""
    return reply.status, reply.code, reply.message


@pytest.mark.parametrize(("expected", "before", "wanted"), ROWS.values(), ids=ROWS)
def test_put(
    client: Client, domain: str, expected: dict[str, str], before: Any, wanted: Any
) -> None:
    """A put happens as a whole where the condition holds, and else not at all."""
    if before:
        client.put(domain, "item", *before)
    was = client.read(domain, "item")
    new = ("a", "8", True), ("c", "1")
    more = {f"Expected.{field}": value for field, value in expected.items()}
    assert outcome(client.put(domain, "item", *new, **more)) == wanted
    if wanted == HOLDS:
        assert client.read(domain, "item") == {**was, "a": ["8"], "c": ["1"]}
    else:
        assert client.read(domain, "item") == was


@pytest.mark.parametrize(("expected", "before", "wanted"), ROWS.values(), ids=ROWS)
def test_delete(
    client: Client, domain: str, expected: dict[str, str], before: Any, wanted: Any
) -> None:
    """The same holds for a deletion, of the whole item or of an attribute."""
    if before:
        client.put(domain, "item", *before)
    was = client.read(domain, "item")
    more = {f"Expected.{field}": value for field, value in expected.items()}
    some = {"DomainName": domain, "ItemName": "item", "Attribute.1.Name": "zzz", **more}
    assert outcome(client("DeleteAttributes", some)) == wanted
    assert client.read(domain, "item") == was
    del some["Attribute.1.Name"]
    assert outcome(client("DeleteAttributes", some)) == wanted
    assert client.read(domain, "item") == ({} if wanted == HOLDS else was)


@pytest.mark.parametrize("number", ["", "0.", "1.", "7."])
def test_numbers(client: Client, domain: str, number: str) -> None:
    """The condition is numbered from 0, from 1, or not at all."""
    client.put(domain, "item", ("a", "7"))
    condition = {f"Expected.{number}Name": "a", f"Expected.{number}Value": "6"}
    assert outcome(client.put(domain, "item", ("a", "8"), **condition)) == DIFFERS


def test_a_name_given_twice(client: Client, domain: str) -> None:
    """Two conditions without numbers are two conditions."""
    fields = {"Action": "PutAttributes", "Version": "2009-04-15", "DomainName": domain}
    pairs = [*fields.items(), *put_fields("item", ("a", "1")).items()]
    pairs += [("Expected.Name", "a"), ("Expected.Name", "b"), ("Expected.Exists", "false")]
    assert client.post(pairs).code == "MultipleExpectedNames"


def test_what_a_failure_costs(client: Client, domain: str) -> None:
    """A condition that fails is billed as an empty put."""
    client.put(domain, "item", ("a", "7"))
    more = {"Expected.Name": "a", "Expected.Exists": "false"}
    reply = client.put(domain, "item", ("a", "8"), ("b", "8"), **more)
    assert reply.box_usage == "0.0000219907"
    assert reply.plain == (
        '<?xml version="1.0"?>\n<Response><Errors><Error><Code>ConditionalCheckFailed</Code>'
        "<Message>Conditional check failed. Attribute (a) value exists</Message>"
        "<BoxUsage>0.0000219907</BoxUsage></Error></Errors><RequestID>ID</RequestID></Response>"
    )
