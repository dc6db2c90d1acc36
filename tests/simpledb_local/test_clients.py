"""The real clients, each through every operation, with its signatures verified."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tools.installed import NODE, boto2, npm_package, python_with

from helpers import there
from simpledb_server import Server, serving

HERE = Path(__file__).parent
KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105  # the documentation's own
ENVIRONMENT = {
    **os.environ,
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE": "1",
}
TEXT = "x y+z&\u20ac"
DIFFERS = "Conditional check failed. Attribute (a) value is (4) but was expected (2)"
GONE = "The specified domain does not exist."


@pytest.fixture
def server() -> Iterator[Server]:
    with serving("--access-key", KEY, "--secret-key", SECRET) as server:
        yield server


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a client."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**ENVIRONMENT, **environment},
    )


def seen_by(*command: object) -> Any:
    """What a client that reports in JSON has seen."""
    result = run(*command)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# boto3


@pytest.fixture
def sdb(server: Server) -> Any:
    """boto3's client, which does not repeat what failed."""
    return boto3_client(server.url, SECRET)


def boto3_client(url: str, secret: str) -> Any:
    """boto3's client."""
    with warnings.catch_warnings():
        # Old releases of botocore use what new Pythons are about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        return boto3.client(
            "sdb",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id=KEY,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )


def pair(name: str, value: str, *, replace: bool = False) -> dict[str, Any]:
    """An attribute as boto3 wants it."""
    return {"Name": name, "Value": value, "Replace": replace}


def test_boto3(sdb: Any) -> None:
    """All ten operations through boto3, its paginators, its typed exceptions."""
    named = {"DomainName": "boto3-domain"}
    sdb.create_domain(**named)
    assert sdb.list_domains()["DomainNames"] == ["boto3-domain"]
    attributes = [pair("a", "1"), pair("a", TEXT), pair("b", "\r\n")]
    sdb.put_attributes(**named, ItemName="one", Attributes=attributes)
    items = [{"Name": n, "Attributes": [pair("a", n)]} for n in ("2", "3")]
    sdb.batch_put_attributes(**named, Items=items)
    expected = {"Name": "a", "Value": "2", "Exists": True}
    put = {**named, "ItemName": "2", "Attributes": [pair("a", "4", replace=True)]}
    reply = sdb.put_attributes(**put, Expected=expected)
    assert reply["ResponseMetadata"]["BoxUsage"] == "0.0000219909"
    with pytest.raises(ClientError) as caught:
        sdb.put_attributes(**put, Expected=expected)
    error = caught.value.response
    assert error["Error"]["Code"] == "ConditionalCheckFailed"
    assert error["Error"]["Message"] == DIFFERS
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 409
    with pytest.raises(ClientError, match="value exists"):
        sdb.put_attributes(**put, Expected={"Name": "a", "Exists": False})
    with pytest.raises(sdb.exceptions.AttributeDoesNotExist) as absent:
        sdb.delete_attributes(**named, ItemName="2", Expected={"Name": "z", "Value": "1"})
    assert absent.value.response["Error"]["BoxUsage"] == "0.0000219907"

    get = {**named, "ItemName": "one", "ConsistentRead": True}
    found = [(a["Name"], a["Value"]) for a in sdb.get_attributes(**get)["Attributes"]]
    assert found == [("a", "1"), ("a", TEXT), ("b", "\r\n")]
    some = sdb.get_attributes(**get, AttributeNames=["b"])["Attributes"]
    assert some == [{"Name": "b", "Value": "\r\n"}]
    assert "Attributes" not in sdb.get_attributes(**{**get, "ItemName": "nobody"})
    query = {
        "SelectExpression": "select a from `boto3-domain` where a > '0' order by a limit 2",
        "ConsistentRead": True,
    }
    pages = sdb.get_paginator("select").paginate(**query)
    assert [[i["Name"] for i in page["Items"]] for page in pages] == [["one", "3"], ["2"]]
    listed = sdb.get_paginator("list_domains").paginate(MaxNumberOfDomains=1)
    assert [page["DomainNames"] for page in listed] == [["boto3-domain"]]

    removal = [{"Name": "a", "Value": "1"}]
    sdb.delete_attributes(**named, ItemName="one", Attributes=removal)
    sdb.batch_delete_attributes(**named, Items=[{"Name": "2"}, {"Name": "3"}])
    metadata = sdb.domain_metadata(**named)
    assert (metadata["ItemCount"], metadata["AttributeValueCount"]) == (1, 2)
    sdb.delete_domain(**named)
    with pytest.raises(sdb.exceptions.NoSuchDomain, match=GONE):
        sdb.domain_metadata(**named)
    assert "DomainNames" not in sdb.list_domains()


def test_boto3_is_refused(server: Server) -> None:
    """With another secret boto3 learns what is wrong."""
    with pytest.raises(ClientError, match="signature we calculated") as caught:
        boto3_client(server.url, "guess").list_domains()
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


# boto 2.49


def test_boto2(server: Server) -> None:
    """All ten operations through boto 2.49; its Sequence; a connection as through a proxy."""
    assert seen_by(there(boto2), HERE / "client_boto2.py", server.port) == {
        "domains": ["boto2-domain"],
        "refusal": f"409 ConditionalCheckFailed: {DIFFERS}",
        "exists": "409 ConditionalCheckFailed: "
        "Conditional check failed. Attribute (a) value exists",
        "absent": "404 AttributeDoesNotExist: Attribute (z) does not exist",
        "one": {"a": ["1", TEXT], "b": "\t"},
        "some": {"b": "\t"},
        "nobody": {},
        "pages": [["one", "three"], ["two"]],
        "left": {"b": "\t"},
        "metadata": [2, 2],
        "sequence": [1, 2, 3],
        "proxy": ["boto2-domain"],
        "gone": f"400 NoSuchDomain: {GONE}",
    }


# aws-sdk


def test_javascript(server: Server, tmp_path: Path) -> None:
    """All ten operations through the AWS SDK for JavaScript 2, which decodes base64 values."""
    shutil.copy(HERE / "client.js", tmp_path)
    (tmp_path / "node_modules").symlink_to(there(partial(npm_package, "aws-sdk@2", "aws-sdk")))
    assert seen_by(NODE, tmp_path / "client.js", server.url) == {
        "domains": ["js-domain"],
        "refusal": f"409 ConditionalCheckFailed: {DIFFERS}",
        "absent": "404 AttributeDoesNotExist: Attribute (z) does not exist",
        "one": ["a=1", f"a={TEXT}", "b=c\rd"],
        "some": ["b=c\rd"],
        "nobody": [],
        "pages": [["one", "three"], ["two"]],
        "bytes": [0],
        "left": ["b=c\rd"],
        "metadata": [3, 3],
        "gone": f"400 NoSuchDomain: {GONE}",
    }


# awscli


def test_command_line(server: Server, tmp_path: Path) -> None:
    """All ten operations through the AWS command line."""
    program = there(partial(python_with, "awscli==1.*", "bin/aws"))
    config = tmp_path / "config"
    config.write_text("[preview]\nsdb = true\n[default]\noutput = json\n")

    def call(operation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "sdb", operation, "--endpoint-url", server.url, *arguments]
        return run(*command, AWS_CONFIG_FILE=str(config))

    def aws(operation: str, *arguments: str) -> Any:
        result = call(operation, *arguments)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout or "null")

    domain = "--domain-name", "cli-domain"
    item = *domain, "--item-name", "one"
    consistent = "--consistent-read"
    aws("create-domain", *domain)
    assert aws("list-domains") == {"DomainNames": ["cli-domain"]}
    aws("put-attributes", *item, "--attributes", "Name=a,Value=2", f"Name=b,Value={TEXT}")
    new = "--attributes", "Name=a,Value=4,Replace=true"
    aws("put-attributes", *item, *new, "--expected", "Name=a,Value=2,Exists=true")
    refused = call("put-attributes", *item, *new, "--expected", "Name=a,Value=2")
    assert refused.returncode != 0
    assert f"(ConditionalCheckFailed) when calling the PutAttributes operation: {DIFFERS}" in (
        refused.stderr
    )
    batch = [{"Name": name, "Attributes": [{"Name": "a", "Value": "5"}]} for name in "xyz"]
    aws("batch-put-attributes", *domain, "--items", json.dumps(batch))
    found = aws("get-attributes", *item, consistent, "--attribute-names", "b")
    assert found == {"Attributes": [{"Name": "b", "Value": TEXT}]}
    query = "select itemName() from `cli-domain` where a > '0' order by a desc limit 3"
    selected = aws("select", "--select-expression", query, consistent)
    assert [item["Name"] for item in selected["Items"]] == ["x", "y", "z", "one"]
    aws("delete-attributes", *item, "--attributes", "Name=a,Value=4")
    aws("batch-delete-attributes", *domain, "--items", "Name=x", "Name=y")
    assert aws("domain-metadata", *domain)["ItemCount"] == 2
    aws("delete-domain", *domain)
    assert "NoSuchDomain" in call("domain-metadata", *domain).stderr
