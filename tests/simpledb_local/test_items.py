"""Putting, reading and deleting: values are sets, batches are whole."""

from __future__ import annotations

from typing import Any

import pytest

from simpledb_server import Client, batch_fields, put_fields


def batch(client: Client, domain: str, *items: dict[str, str], action: str = "Put") -> Any:
    """Put, or delete, a batch."""
    return client(f"Batch{action}Attributes", {"DomainName": domain, **batch_fields(*items)})


def test_values_are_a_set(client: Client, domain: str) -> None:
    """A pair put twice is stored once; another value of the name is added."""
    client.put(domain, "item", ("a", "1"), ("a", "1"), ("b", "x"))
    client.put(domain, "item", ("a", "1"), ("a", "2"))
    assert client.read(domain, "item") == {"a": ["1", "2"], "b": ["x"]}


def test_values_are_sorted(client: Client, domain: str) -> None:
    """Values come back as text sorts them."""
    names = [("name", name) for name in ("Franz", "Louis", "John", "Li")]
    client.put(domain, "item", *names, ("n", 9), ("n", 10), ("n", 11))
    found = client.read(domain, "item")
    assert found == {"name": ["Franz", "John", "Li", "Louis"], "n": ["10", "11", "9"]}


def test_replace(client: Client, domain: str) -> None:
    """Replace takes all old values of that attribute, and no others; absent ones are fine."""
    client.put(domain, "item", ("a", "1"), ("b", "2"), ("b", "3"))
    client.put(domain, "item", ("b", "4", True), ("c", "5", True), ("a", "6", False))
    assert client.read(domain, "item") == {"a": ["1", "6"], "b": ["4"], "c": ["5"]}


def test_replace_with_several_values(client: Client, domain: str) -> None:
    """All values that one call puts stay; one flag among them is enough."""
    client.put(domain, "item", ("a", "old"))
    client.put(domain, "item", ("a", "1", True), ("a", "2", True))
    assert client.read(domain, "item") == {"a": ["1", "2"]}
    client.put(domain, "item", ("a", "3"), ("a", "4", True))
    assert client.read(domain, "item") == {"a": ["3", "4"]}


def test_an_empty_value(client: Client, domain: str) -> None:
    """The empty string is a value."""
    client.put(domain, "item", ("a", ""))
    assert client.read(domain, "item") == {"a": [""]}


def test_names_are_case_sensitive(client: Client, domain: str) -> None:
    """Items and attributes that differ in case differ; so do composed and decomposed letters."""
    client.put(domain, "item", ("a", "1"), ("A", "2"), ("\u00e4", "3"), ("a\u0308", "4"))
    client.put(domain, "Item", ("a", "5"))
    found = client.read(domain, "item")
    assert found == {"a": ["1"], "A": ["2"], "\u00e4": ["3"], "a\u0308": ["4"]}
    assert client.read(domain, "Item") == {"a": ["5"]}


def test_reading_some_attributes(client: Client, domain: str) -> None:
    """AttributeName chooses; unknown ones are left out; a bare one, given twice, is two."""
    client.put(domain, "item", ("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"))
    assert client.read(domain, "item", **{"AttributeName.0": "a"}) == {"a": ["1", "2"]}
    some = {"AttributeName.1": "c", "AttributeName.2": "zzz"}
    assert client.read(domain, "item", **some) == {"c": ["4"]}
    fields = [("Action", "GetAttributes"), ("Version", "2009-04-15"), ("DomainName", domain)]
    fields += [("ItemName", "item"), ("AttributeName", "b"), ("AttributeName", "c")]
    assert client.post(fields).attributes == {"b": ["3"], "c": ["4"]}


def test_an_unknown_item(client: Client, domain: str) -> None:
    """An item that does not exist has no attributes, and that is no error."""
    assert client.read(domain, "nobody") == {}


def test_deleting(client: Client, domain: str) -> None:
    """A pair, all values of a name, the item: what is not there is no error."""
    fields = {"DomainName": domain, "ItemName": "item"}
    client.put(domain, "item", ("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"))
    pair = {"Attribute.1.Name": "a", "Attribute.1.Value": "1"}
    for _ in range(2):
        client.ok("DeleteAttributes", fields, **pair)
        assert client.read(domain, "item") == {"a": ["2"], "b": ["3"], "c": ["4"]}
    client.ok("DeleteAttributes", fields, **{"Attribute.0.Name": "a", "Attribute.1.Name": "b"})
    assert client.read(domain, "item") == {"c": ["4"]}
    for _ in range(2):
        client.ok("DeleteAttributes", fields)
        assert client.read(domain, "item") == {}


def test_deleting_the_last_pair(client: Client, domain: str) -> None:
    """An item without attributes does not exist."""
    client.put(domain, "item", ("a", "1"))
    pair = {"Attribute.1.Name": "a", "Attribute.1.Value": "1"}
    client.ok("DeleteAttributes", pair, DomainName=domain, ItemName="item")
    assert client.select(f"select count(*) from {domain}").count == 0
    assert client.ok("DomainMetadata", DomainName=domain).xml.findtext(".//ItemCount") == "0"


def test_a_batch(client: Client, domain: str) -> None:
    """Each item of a batch is put by the rules of a put."""
    client.put(domain, "one", ("a", "1"), ("b", "2"))
    one = put_fields("one", ("a", "3", True), ("b", "4"))
    assert batch(client, domain, one, put_fields("two", ("c", "5"))).status == 200
    assert client.read(domain, "one") == {"a": ["3"], "b": ["2", "4"]}
    assert client.read(domain, "two") == {"c": ["5"]}


def test_a_batch_of_deletions(client: Client, domain: str) -> None:
    """Pairs, names and whole items; lower case and numbers from 0, as the documentation has it."""
    for item in ("one", "two", "three"):
        client.put(domain, item, ("a", "1"), ("a", "2"), ("b", "3"))
    fields = {
        "Item.0.ItemName": "one",
        "Item.1.ItemName": "two",
        "Item.1.Attribute.0.name": "a",
        "Item.1.Attribute.0.value": "1",
        "Item.2.ItemName": "three",
        "Item.2.Attribute.0.name": "a",
        "Item.2.Attribute.1.name": "b",
        "Item.2.Attribute.1.value": "4",
        "Item.3.ItemName": "four",
    }
    client.ok("BatchDeleteAttributes", fields, DomainName=domain)
    assert client.read(domain, "one") == {}
    assert client.read(domain, "two") == {"a": ["2"], "b": ["3"]}
    assert client.read(domain, "three") == {"b": ["3"]}


FULL = put_fields("full", *[("a", n) for n in range(256)])

REFUSED = {
    "no attributes": ({"ItemName": "bad"}, "MissingParameter", 400),
    "no value": ({"ItemName": "bad", "Attribute.1.Name": "a"}, "MissingParameter", 400),
    "no item": ({"Attribute.1.Name": "a", "Attribute.1.Value": "1"}, "MissingParameter", 400),
    "a flag": (put_fields("bad", ("a", "1", "maybe")), "InvalidParameterValue", 400),
    "twice": (put_fields("good", ("a", "2")), "DuplicateItemName", 400),
    "full": (put_fields("full", ("a", "256")), "NumberItemAttributesExceeded", 409),
    "per item": ({**put_fields("bad", ("a", "1")), "Replace": "true"}, "FeatureDeprecated", 400),
}


@pytest.mark.parametrize(("item", "code", "status"), REFUSED.values(), ids=REFUSED)
def test_a_batch_is_all_or_nothing(
    client: Client, domain: str, item: dict[str, str], code: str, status: int
) -> None:
    """One bad item, and nothing of the batch is put."""
    assert client("PutAttributes", FULL, DomainName=domain).status == 200
    for items in ([put_fields("good", ("a", "1")), item], [item, put_fields("good", ("a", "1"))]):
        reply = batch(client, domain, *items)
        assert (reply.code, reply.status) == (code, status)
        assert client.read(domain, "good") == {}
        assert len(client.read(domain, "full")["a"]) == 256


def test_batches_have_no_condition(client: Client, domain: str) -> None:
    """Expected means nothing in a batch."""
    fields = {**put_fields("item", ("a", "1"))}
    more = {"Expected.Name": "a", "Expected.Value": "7"}
    client.ok("BatchPutAttributes", batch_fields(fields), DomainName=domain, **more)
    assert client.read(domain, "item") == {"a": ["1"]}


def test_domains_come_and_go(client: Client, domain: str) -> None:
    """Creating and deleting are idempotent; a domain created anew is empty."""
    client.put(domain, "item", ("a", "1"))
    client.create(domain)
    assert client.read(domain, "item") == {"a": ["1"]}
    for _ in range(2):
        client.ok("DeleteDomain", DomainName=domain)
        reply = client("GetAttributes", DomainName=domain, ItemName="item")
        assert reply.code == "NoSuchDomain"
    client.create(domain)
    assert client.read(domain, "item") == {}


def test_metadata(client: Client, domain: str) -> None:
    """The figures count items, different names, all pairs, and their bytes in UTF-8."""
    client.put(domain, "\u00e4", ("name", "1"), ("name", "22"), ("b", ""))
    client.put(domain, "item2", ("name", "\u20ac"), ("c", "333"))
    for number in range(300):  # more than are looked at in one go
        client.put(domain, f"more{number:03}", ("d", "1"))
    found = client.ok("DomainMetadata", DomainName=domain).xml.find("DomainMetadataResult")
    assert found is not None
    figures = {figure.tag: int(figure.text or "") for figure in found}
    assert figures.pop("Timestamp") > 1_700_000_000
    assert figures == {
        "ItemCount": 302,
        "ItemNamesSizeBytes": 2 + 5 + 300 * 7,
        "AttributeNameCount": 4,
        "AttributeNamesSizeBytes": 7,
        "AttributeValueCount": 305,
        "AttributeValuesSizeBytes": 1 + 2 + 3 + 3 + 300,
    }
