"""Every limit, every error of a parameter, with its status and text."""

from __future__ import annotations

from typing import Any

import pytest

from simpledb_server import Client, Reply, batch_fields, put_fields, serving

LONG = "x" * 1024
WIDE = "\u20ac" * 341  # 1,023 bytes
PUT = {"DomainName": "DOMAIN", "ItemName": "i", "Attribute.1.Name": "a", "Attribute.1.Value": "1"}
ONE = {"ItemName": "i", "Attribute.1.Name": "a", "Attribute.1.Value": "1"}


def missing(name: str) -> tuple[int, str, str]:
    """What is answered where a parameter is missing."""
    return 400, "MissingParameter", f"The request must contain the parameter {name}."


def invalid(value: str, parameter: str, reason: str) -> tuple[int, str, str]:
    """What is answered to a bad value."""
    text = f"Value ({value}) for parameter {parameter} is invalid.{reason}"
    return 400, "InvalidParameterValue", text


def lacking(fields: dict[str, str], name: str) -> dict[str, str]:
    """All ``fields`` but one."""
    return {other: value for other, value in fields.items() if other != name}


def outcome(reply: Reply) -> tuple[int, str | None, str | None]:
    """What a request led to."""
    return reply.status, reply.code, reply.message


BATCH_1 = {"DomainName": "DOMAIN", **batch_fields(ONE)}
TOO_LONG = " Value exceeds maximum length of 1024."
FLAG = " The {} flag should be either true or false."
MORE_PAIRS = {f"Attribute.{n}.{f}": str(n) for n in range(257) for f in ("Name", "Value")}

REFUSED: dict[str, tuple[str, dict[str, str], tuple[int, str, str]]] = {
    "put: no domain": ("PutAttributes", lacking(PUT, "DomainName"), missing("DomainName")),
    "put: no item": ("PutAttributes", lacking(PUT, "ItemName"), missing("ItemName")),
    "put: no value": (
        "PutAttributes",
        lacking(PUT, "Attribute.1.Value"),
        (400, "MissingParameter", "Attribute.Value missing for Attribute.Name='a'."),
    ),
    "put: no name": (
        "PutAttributes",
        lacking(PUT, "Attribute.1.Name"),
        (400, "MissingParameter", "Attribute.Name missing for Attribute.Value='1'."),
    ),
    "put: neither": (
        "PutAttributes",
        {**PUT, "Attribute.2.Replace": "true"},
        (400, "MissingParameter", "The request must contain the parameter Name"),
    ),
    "put: no attributes": (
        "PutAttributes",
        {"DomainName": "DOMAIN", "ItemName": "i"},
        (400, "MissingParameter", "No attributes for item ='i'."),
    ),
    "put: replace per item": (
        "PutAttributes",
        {**PUT, "Replace": "true"},
        (
            400,
            "FeatureDeprecated",
            "The replace flag must be specified per attribute, not per item.",
        ),
    ),
    "put: bad domain": (
        "PutAttributes",
        {**PUT, "DomainName": "a/b"},
        invalid("a/b", "DomainName", " "),
    ),
    "put: unknown domain": (
        "PutAttributes",
        {**PUT, "DomainName": "nowhere"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "put: empty item": (
        "PutAttributes",
        {**PUT, "ItemName": ""},
        invalid("", "Item", " The empty string is an illegal item name"),
    ),
    "put: long item": (
        "PutAttributes",
        {**PUT, "ItemName": LONG + "x"},
        invalid(LONG + "x", "Item", " Value exceeds max length of 1024."),
    ),
    "put: empty name": (
        "PutAttributes",
        {**PUT, "Attribute.1.Name": ""},
        invalid("", "Name", "The empty string is an illegal attribute name"),
    ),
    "put: long name": (
        "PutAttributes",
        {**PUT, "Attribute.1.Name": LONG + "x"},
        invalid(LONG + "x", "Name", TOO_LONG),
    ),
    "put: long value": (
        "PutAttributes",
        {**PUT, "Attribute.1.Value": LONG + "x"},
        invalid(LONG + "x", "Value", TOO_LONG),
    ),
    "put: wide value": (
        "PutAttributes",
        {**PUT, "Attribute.1.Value": WIDE + "\u20ac"},
        invalid(WIDE + "\u20ac", "Value", TOO_LONG),
    ),
    "put: flag": (
        "PutAttributes",
        {**PUT, "Attribute.1.Replace": "TRUE"},
        invalid("TRUE", "Replace", FLAG.format("Replace")),
    ),
    "put: 257 attributes": (
        "PutAttributes",
        {**PUT, **MORE_PAIRS},
        (409, "NumberSubmittedAttributesExceeded", "Too many attributes in a single call."),
    ),
    "put: long expected value": (
        "PutAttributes",
        {**PUT, "Expected.Name": "a", "Expected.Value": LONG + "x"},
        invalid(LONG + "x", "Value", TOO_LONG),
    ),
    "get: no item": ("GetAttributes", {"DomainName": "DOMAIN"}, missing("ItemName")),
    "get: flag": (
        "GetAttributes",
        {"DomainName": "DOMAIN", "ItemName": "i", "ConsistentRead": "1"},
        invalid("1", "ConsistentRead", FLAG.format("ConsistentRead")),
    ),
    "get: unknown domain": (
        "GetAttributes",
        {"DomainName": "nowhere", "ItemName": "i"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "delete: no item": ("DeleteAttributes", {"DomainName": "DOMAIN"}, missing("ItemName")),
    "delete: value only": (
        "DeleteAttributes",
        {"DomainName": "DOMAIN", "ItemName": "i", "Attribute.1.Value": "1"},
        (
            400,
            "MissingParameter",
            "The request must contain the attribute Name, if an attribute Value is specified.",
        ),
    ),
    "delete: 257 attributes": (
        "DeleteAttributes",
        {"DomainName": "DOMAIN", "ItemName": "i", **MORE_PAIRS},
        (409, "NumberSubmittedAttributesExceeded", "Too many attributes in a single call."),
    ),
    "batch: no items": ("BatchPutAttributes", {"DomainName": "DOMAIN"}, missing("ItemName")),
    "batch: no attributes": (
        "BatchPutAttributes",
        {"DomainName": "DOMAIN", "Item.1.ItemName": "i"},
        (400, "MissingParameter", "No attributes for item ='i'."),
    ),
    "batch: twice": (
        "BatchPutAttributes",
        {"DomainName": "DOMAIN", **batch_fields(ONE, ONE)},
        (400, "DuplicateItemName", "Item i was specified more than once."),
    ),
    "batch: 26 items": (
        "BatchPutAttributes",
        {
            "DomainName": "DOMAIN",
            **batch_fields(*[{**ONE, "ItemName": str(n)} for n in range(26)]),
        },
        (
            409,
            "NumberSubmittedItemsExceeded",
            "Too many items in a single call. Up to 25 items per call allowed.",
        ),
    ),
    "batch: 257 attributes": (
        "BatchPutAttributes",
        {"DomainName": "DOMAIN", **batch_fields({"ItemName": "i", **MORE_PAIRS})},
        (
            409,
            "NumberSubmittedAttributesExceeded",
            (
                "Too many attributes for item i in a single call. "
                "Up to 256 attributes per call allowed."
            ),
        ),
    ),
    "batch: replace per item": (
        "BatchPutAttributes",
        {**BATCH_1, "Item.1.Replace": "true"},
        (
            400,
            "FeatureDeprecated",
            "The replace flag must be specified per attribute, not per item.",
        ),
    ),
    "batch: unknown domain": (
        "BatchPutAttributes",
        {**BATCH_1, "DomainName": "nowhere"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "batch deletion: twice": (
        "BatchDeleteAttributes",
        {"DomainName": "DOMAIN", "Item.1.ItemName": "i", "Item.2.ItemName": "i"},
        (400, "DuplicateItemName", "Item i was specified more than once."),
    ),
    "batch deletion: no items": (
        "BatchDeleteAttributes",
        {"DomainName": "DOMAIN"},
        missing("ItemName"),
    ),
    "batch deletion: 26 items": (
        "BatchDeleteAttributes",
        {
            "DomainName": "DOMAIN",
            **batch_fields(*[{"ItemName": str(n)} for n in range(26)]),
        },
        (
            409,
            "NumberSubmittedItemsExceeded",
            "Too many items in a single call. Up to 25 items per call allowed.",
        ),
    ),
    "batch deletion: unknown domain": (
        "BatchDeleteAttributes",
        {"DomainName": "nowhere", "Item.1.ItemName": "i"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "create: no name": ("CreateDomain", {}, missing("DomainName")),
    "create: empty name": ("CreateDomain", {"DomainName": ""}, invalid("", "DomainName", " ")),
    "create: short name": ("CreateDomain", {"DomainName": "ab"}, invalid("ab", "DomainName", " ")),
    "create: long name": (
        "CreateDomain",
        {"DomainName": "x" * 256},
        invalid("x" * 256, "DomainName", " "),
    ),
    "create: bad name": ("CreateDomain", {"DomainName": "a b"}, invalid("a b", "DomainName", " ")),
    "create: line feed": (
        "CreateDomain",
        {"DomainName": "abc\n"},
        invalid("abc\n", "DomainName", " "),
    ),
    "delete domain: bad name": (
        "DeleteDomain",
        {"DomainName": "a/b"},
        invalid("a/b", "DomainName", " "),
    ),
    "metadata: no name": ("DomainMetadata", {}, missing("DomainName")),
    "metadata: unknown": (
        "DomainMetadata",
        {"DomainName": "nowhere"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "list: none": (
        "ListDomains",
        {"MaxNumberOfDomains": "0"},
        invalid("0", "MaxNumberOfDomains", " MaxNumberOfDomains must be between 1 and 100."),
    ),
    "list: 101": (
        "ListDomains",
        {"MaxNumberOfDomains": "101"},
        invalid("101", "MaxNumberOfDomains", " MaxNumberOfDomains must be between 1 and 100."),
    ),
    "list: no number": (
        "ListDomains",
        {"MaxNumberOfDomains": "ten"},
        invalid("ten", "MaxNumberOfDomains", " MaxNumberOfDomains must be between 1 and 100."),
    ),
    "list: token": (
        "ListDomains",
        {"NextToken": "bogus"},
        (400, "InvalidNextToken", "The specified next token is not valid."),
    ),
    "select: no expression": ("Select", {}, missing("SelectExpression")),
    "select: syntax": (
        "Select",
        {"SelectExpression": "select from where"},
        (400, "InvalidQueryExpression", "The specified query expression syntax is not valid."),
    ),
    "select: unknown domain": (
        "Select",
        {"SelectExpression": "select * from nowhere"},
        (400, "NoSuchDomain", "The specified domain does not exist."),
    ),
    "select: bad domain": (
        "Select",
        {"SelectExpression": "select * from `a/b`"},
        invalid("a/b", "DomainName", " "),
    ),
    "select: flag": (
        "Select",
        {"SelectExpression": "select * from nowhere", "ConsistentRead": "yes"},
        invalid("yes", "ConsistentRead", FLAG.format("ConsistentRead")),
    ),
    "select: token": (
        "Select",
        {"SelectExpression": "select * from nowhere", "NextToken": "bm9uZQ=="},
        (400, "InvalidNextToken", "The specified next token is not valid."),
    ),
}


@pytest.mark.parametrize(("action", "fields", "wanted"), REFUSED.values(), ids=REFUSED)
def test_refusals(
    client: Client, domain: str, action: str, fields: dict[str, str], wanted: Any
) -> None:
    """What is missing, malformed or too much is refused in the service's words."""
    fields = {k: domain if value == "DOMAIN" else value for k, value in fields.items()}
    assert outcome(client(action, fields)) == wanted
    assert client.select(f"select count(*) from {domain}").count == 0


def test_the_longest_names_and_values(client: Client, domain: str) -> None:
    """1,024 bytes are allowed for an item's name, an attribute's name, and a value."""
    assert client.put(domain, LONG, (LONG, LONG), (WIDE, WIDE)).status == 200
    assert client.read(domain, LONG) == {LONG: [LONG], WIDE: [WIDE]}


def test_the_longest_domain_name(client: Client) -> None:
    """A domain's name has 3 to 255 characters, dots and hyphens among them."""
    for name in ("a-.", "_" * 255):
        client.create(name)
        client.ok("DeleteDomain", DomainName=name)


def test_the_largest_item(client: Client, domain: str) -> None:
    """An item has 256 pairs and no more; one that is full takes what replaces others."""
    pairs = [("a", n) for n in range(256)]
    assert client.put(domain, "item", *pairs).status == 200
    assert client.put(domain, "item", ("a", "7")).status == 200
    refused = client.put(domain, "item", ("b", "1"))
    text = "Too many attributes in this item."
    assert outcome(refused) == (409, "NumberItemAttributesExceeded", text)
    assert len(client.read(domain, "item")["a"]) == 256
    assert client.put(domain, "item", ("a", "1", True), ("b", "1")).status == 200
    assert client.read(domain, "item") == {"a": ["1"], "b": ["1"]}


def test_the_largest_put(client: Client, domain: str) -> None:
    """256 pairs of the longest names and values, every byte of them escaped, are one put."""
    pairs = [(f"{n:04}" + "\u20ac" * 340, f"{n:04}" + "\u20ac" * 340) for n in range(256)]
    assert client.put(domain, "item", *pairs).status == 200
    assert client.read(domain, "item") == {name: [value] for name, value in pairs}


def test_the_largest_batch(client: Client, domain: str) -> None:
    """25 items are allowed, a request of 1 MB too; what is larger is refused."""
    items = [put_fields(f"item{n}", ("a", "1")) for n in range(25)]
    client.ok("BatchPutAttributes", batch_fields(*items), DomainName=domain)
    pairs = [(f"{n:03}", "v" * 1000) for n in range(250)]
    items = [put_fields(f"item{n}", *pairs) for n in range(5)]
    client.ok("BatchPutAttributes", batch_fields(*items[:3]), DomainName=domain)
    reply = client("BatchPutAttributes", batch_fields(*items), DomainName=domain)
    assert (reply.status, reply.code) == (400, "InvalidHttpRequest")
    assert "1048576 bytes" in (reply.message or "")
    assert client.read(domain, "item4") == {"a": ["1"]}


def test_the_most_domains() -> None:
    """There are 250 domains; one that is there may be created again all the same."""
    with serving() as server:
        client = server.client()
        for number in range(250):
            client.create(f"domain{number}")
        client.create("domain7")
        reply = client("CreateDomain", DomainName="another")
        text = "The domain limit was exceeded."
        assert outcome(reply) == (409, "NumberDomainsExceeded", text)
        client.ok("DeleteDomain", DomainName="domain7")
        client.create("another")


FLOORS = {
    "CreateDomain": "0.0055590278",
    "DeleteDomain": "0.0055590278",
    "ListDomains": None,
    "DomainMetadata": "0.0000071759",
    "PutAttributes": "0.0000219907",
    "DeleteAttributes": "0.0000219907",
    "BatchPutAttributes": "0.0000219907",
    "BatchDeleteAttributes": "0.0000219907",
    "GetAttributes": "0.0000093202",
    "Select": "0.0000137200",
}


@pytest.mark.parametrize(("action", "usage"), FLOORS.items())
def test_what_a_refusal_costs(client: Client, action: str, usage: str | None) -> None:
    """An operation that is refused for what it lacks is billed as if it had had nothing to do."""
    reply = client(action)
    assert reply.box_usage == (usage or "0.0000071759")
    assert (reply.code is None) == (usage is None)
