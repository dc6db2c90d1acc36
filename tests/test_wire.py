"""What goes to Amazon's services: what boto3 would send, and signed as it would sign."""

from __future__ import annotations

import contextlib
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore import auth, xform_name
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from simpledb_server import serving
from truecount import Counter, Domain, StoreError, connect
from truecount.testing.proxy import Proxy
from truecount.testing.servers import Moto

KEYS: dict[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
}
STRANGE = "a b+c&d=e%41/~*'\"é☃"
"""A name of characters that forms and signatures write each in its own way."""


def parts(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """A request's first line, the fields of its head, and its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return first, {name.lower(): value for name, _, value in fields}, body


def signed(fields: dict[str, str]) -> list[str]:
    """The names of the fields that the signature is about."""
    found = re.search("SignedHeaders=([^,]+)", fields["authorization"])
    assert found is not None
    return found[1].split(";")


def count(store: str, domain: str) -> None:
    """Have every kind of request made."""
    with connect(store) as opened:
        c = Counter(domain, STRANGE, 5, store=opened)
        c += 1
        assert c.add(2, key=STRANGE) == 8
        assert c.receipt(STRANGE) == 8
        assert c.refresh() == 8
        there = Domain(domain, store=opened)
        assert dict(there.snapshot()) == {STRANGE: 8}
        assert domain in list(opened.domains())
        c.delete()
        Counter(domain, "keyless", store=opened).delete()
        assert opened.purge(1_000_000 * int(time.time() + 60)) == 1


def test_what_boto3_would_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """To DynamoDB each kind of request goes as boto3 sends it, with a signature of the same."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "local")
    ours: list[bytes] = []
    theirs: list[bytes] = []
    seen = ours
    with Moto() as server, Proxy(server.port, watch=lambda each: seen.append(each)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        count(f"dynamodb+{url}/wired?create=1", "wired")
        seen = theirs
        client = boto3.client("dynamodb", endpoint_url=url, **KEYS)
        for request in ours:
            _, fields, body = parts(request)
            operation = fields["x-amz-target"].partition(".")[2]
            with contextlib.suppress(ClientError):  # its condition has moved
                getattr(client, xform_name(operation))(**json.loads(body))
        client.close()
    operations = set()
    for our, their in zip(ours, theirs, strict=True):
        first, fields, body = parts(our)
        other, others, text = parts(their)
        asked = json.loads(text)
        asked.pop("ClientRequestToken", None)
        assert (first, json.loads(body)) == (other, asked)
        assert signed(fields) == signed(others)
        operations.add(fields["x-amz-target"])
        for name in ("host", "content-type", "x-amz-target"):
            assert fields[name] == others[name]

        at = datetime.strptime(fields["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        monkeypatch.setattr(auth, "get_current_datetime", lambda at=at: at)
        head = {name: fields[name] for name in signed(fields)}
        again = AWSRequest("POST", f"{url}/", head, body)
        auth.SigV4Auth(Credentials("local", "local"), "dynamodb", "us-east-1").add_auth(again)
        assert again.headers["Authorization"] == fields["authorization"]
    assert len(operations) == 10


def test_what_simpledb_lets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SimpleDB that looks at signatures takes ours of all requests, and no stranger's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr+t/")
    with serving("--access-key", "AKID", "--secret-key", "s3cr+t/") as server:
        count(server.store, "wired")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(StoreError, match="SignatureDoesNotMatch"):
            count(server.store, "strangers")
