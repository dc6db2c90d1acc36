"""Signature Version 2: who has the secret may, all others may not, and are told why."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from simpledb_local.parameters import parse
from simpledb_local.signature import Credentials, verify
from simpledb_server import VERSION, Client, Reply, Server, serving

KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105  # the documentation's own


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--access-key", KEY, "--secret-key", SECRET) as server:
        yield server


def stamp(minutes: float = 0) -> str:
    """The time, so many minutes from now, as clients write it."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def signed(
    client: Client,
    fields: dict[str, str] | None = None,
    *,
    secret: str = SECRET,
    verb: str = "POST",
    without: tuple[str, ...] = (),
    **changes: str,
) -> dict[str, str]:
    """The parameters of a request with its signature, written down as the documentation says."""
    pairs = {
        "Action": "ListDomains",
        "Version": VERSION,
        "AWSAccessKeyId": KEY,
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
        "Timestamp": stamp(),
        **(fields or {}),
        **changes,
    }
    pairs = {name: value for name, value in pairs.items() if name not in without}
    query = "&".join(
        f"{quote(name, safe='~')}={quote(pairs[name], safe='~')}" for name in sorted(pairs)
    )
    host = f"127.0.0.1:{client.connection.port}"
    text = f"{verb}\n{host}\n/\n{query}"
    kind = "sha1" if pairs.get("SignatureMethod") == "HmacSHA1" else "sha256"
    digest = hmac.digest(secret.encode(), text.encode(), kind)
    return {**pairs, "Signature": base64.b64encode(digest).decode()}


def outcome(reply: Reply) -> tuple[int, str | None, str | None, str | None]:
    """What a request led to."""
    return reply.status, reply.code, reply.message, reply.box_usage


MISMATCH = (
    403,
    "SignatureDoesNotMatch",
    (
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method. "
        "Consult the service documentation for details."
    ),
    None,
)
UNKNOWN = (
    403,
    "InvalidClientTokenId",
    "The AWS Access Key Id you provided does not exist in our records.",
    None,
)
MISSING = (
    403,
    "AuthMissingFailure",
    "AWS was not able to authenticate the request: access keys are missing.",
    None,
)
INCOMPLETE = (
    400,
    "IncompleteSignature",
    "The request signature does not conform to AWS standards.",
    None,
)

AWKWARD = {
    "Action": "Select",
    "SelectExpression": "select * from `a b` where c = 'x+y&z=~*/%\u20ac' -_.!()\r\n\t",
}


@pytest.mark.parametrize("method", ["HmacSHA256", "HmacSHA1"])
def test_signed_requests(client: Client, method: str) -> None:
    """GET and POST pass with either hash, whatever characters there are."""
    post = signed(client, SignatureMethod=method)
    assert client.post(post).status == 200
    assert client.get(signed(client, verb="GET", SignatureMethod=method)).status == 200
    assert client.post(signed(client, AWKWARD)).code == "InvalidQueryExpression"
    lower = {**post, "Timestamp": stamp()}
    del lower["Signature"]
    assert client.post(signed(client, lower)).status == 200


def test_the_host(client: Client) -> None:
    """The host that is signed is the header's, in lower case, with a port if it has one."""
    pairs = signed(client)
    assert client.post(pairs, Host=f"127.0.0.1:{client.connection.port}").status == 200
    assert outcome(client.post(pairs, Host="127.0.0.1")) == MISMATCH


def test_space_as_plus(client: Client) -> None:
    """A space is signed as %20 and may travel as a plus."""
    pairs = signed(client, {"Action": "Select", "SelectExpression": "select from where"})
    body = urlencode(pairs)
    assert "select+from+where" in body
    assert client.post(body.encode()).code == "InvalidQueryExpression"
    assert client.post(body.replace("+", "%20").encode()).code == "InvalidQueryExpression"


def test_another_secret(client: Client) -> None:
    """A signature made with another secret is refused."""
    assert outcome(client.post(signed(client, secret="guess"))) == MISMATCH  # noqa: S106
    assert outcome(client.post({**signed(client), "Signature": "\u20ac"})) == MISMATCH


def test_another_request(client: Client) -> None:
    """A signature is good for its own request: not one parameter more, less or different."""
    pairs = signed(client, DomainName="abc")
    assert outcome(client.post({**pairs, "DomainName": "abd"})) == MISMATCH
    assert outcome(client.post({**pairs, "NextToken": "x"})) == MISMATCH
    assert outcome(client.post([*pairs.items(), ("DomainName", "abc")])) == MISMATCH
    del pairs["DomainName"]
    assert outcome(client.post(pairs)) == MISMATCH
    assert outcome(client.get(signed(client))) == MISMATCH  # which was made for POST


def test_another_key(client: Client) -> None:
    """A key that is not ours is unknown, whatever it signs with."""
    assert outcome(client.post(signed(client, AWSAccessKeyId="AKIDOTHER"))) == UNKNOWN
    assert outcome(client.post(signed(client, AWSAccessKeyId="\u20ac"))) == UNKNOWN


def test_no_key(client: Client) -> None:
    """Without a key, or without a signature, nothing is done."""
    assert outcome(client.post(signed(client, without=("AWSAccessKeyId",)))) == MISSING
    assert outcome(client.post({**signed(client), "Signature": ""})) == MISSING
    assert outcome(client("CreateDomain", DomainName="domain")) == MISSING
    assert client.post(signed(client)).domains == []


@pytest.mark.parametrize(
    "changes",
    [
        {"SignatureVersion": "1"},
        {"SignatureVersion": "4"},
        {"SignatureMethod": "HmacMD5"},
        {"without": ("SignatureMethod",)},
        {"without": ("SignatureVersion",)},
    ],
    ids=str,
)
def test_other_kinds_of_signature(client: Client, changes: dict[str, Any]) -> None:
    """Signatures of another kind are refused."""
    assert outcome(client.post(signed(client, **changes))) == INCOMPLETE


@pytest.mark.parametrize("minutes", [-16, 16])
def test_another_time(client: Client, minutes: int) -> None:
    """A timestamp is good for a quarter of an hour, before and after."""
    time = stamp(minutes)
    text = f"Request has expired. Timestamp date is {time}."
    reply = client.post(signed(client, Timestamp=time))
    assert outcome(reply) == (400, "RequestExpired", text, None)
    assert client.post(signed(client, Timestamp=stamp(minutes * 14 / 16))).status == 200


def test_expires(client: Client) -> None:
    """Instead of a timestamp there may be an end, but not both, and one there must be."""
    without = ("Timestamp",)
    assert client.post(signed(client, without=without, Expires=stamp(60))).status == 200
    past = stamp(-1)
    reply = client.post(signed(client, without=without, Expires=past))
    text = f"Request has expired. Expires date is {past}."
    assert outcome(reply) == (400, "RequestExpired", text, None)
    reply = client.post(signed(client, Expires=stamp(60)))
    assert reply.code == "InvalidParameterCombination"
    assert reply.message == "The parameter Timestamp cannot be used with the parameter Expires."
    reply = client.post(signed(client, without=without))
    assert reply.message == "The request must contain the parameter Timestamp."


TIMES = ["2026-11-21T03:48:00", "2026-11-21T03:48:00.123Z", "2026-11-21T04:48:00+01:00"]


@pytest.mark.parametrize("time", TIMES)
def test_forms_of_time(time: str) -> None:
    """A time may have fractions, an offset, or neither; then it is UTC."""
    now = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
    with pytest.raises(Exception, match="signature we calculated"):
        verify_at(time, now, "guess")
    verify_at(time, now, SECRET)
    with pytest.raises(Exception, match="expired"):
        verify_at(time, now + timedelta(minutes=5), SECRET)


def verify_at(time: str, now: datetime, secret: str) -> None:
    """Verify, at ``now``, a request signed at ``time``."""
    connection = Client(1)
    pairs = signed(connection, Timestamp=time, secret=secret)
    parameters = parse(urlencode(pairs).encode())
    verify(Credentials(KEY, SECRET), "POST", "127.0.0.1:1", "/", parameters, now)


@pytest.mark.parametrize("time", ["yesterday", "", "0", "2026-11-21T25:00:00Z", "9" * 1000])
def test_what_is_no_time(client: Client, time: str) -> None:
    """A text that is no time is refused as such."""
    reply = client.post(signed(client, Timestamp=time))
    assert (reply.status, reply.code) == (400, "InvalidParameterValue")
    assert "for parameter Timestamp is invalid" in (reply.message or "")


def test_any_credentials() -> None:
    """A server without a key takes any, or none."""
    with serving() as server:
        client = server.client()
        assert client.post(signed(client, secret="guess")).status == 200  # noqa: S106
        assert client.post(signed(client, Timestamp=stamp(-600))).status == 200
        assert client.ok("ListDomains").status == 200
