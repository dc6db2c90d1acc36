"""What goes over the wire: requests as clients write them, answers to the byte."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from simpledb_server import VERSION, Client, Server, batch_fields, put_fields

XMLNS = 'xmlns="http://sdb.amazonaws.com/doc/2009-04-15/"'


def document(action: str, result: str, box_usage: str) -> str:
    """A successful answer."""
    return (
        f'<?xml version="1.0"?>\n<{action}Response {XMLNS}>{result}<ResponseMetadata>'
        f"<RequestId>ID</RequestId><BoxUsage>{box_usage}</BoxUsage></ResponseMetadata>"
        f"</{action}Response>"
    )


def test_every_operation(client: Client, domain: str) -> None:
    """Each of the ten answers in its own shape, to the byte."""
    named = {"DomainName": domain}
    shapes = {
        "CreateDomain": (named, "", "0.0055590278"),
        "ListDomains": (
            {"MaxNumberOfDomains": "100"},
            f"<ListDomainsResult><DomainName>{domain}</DomainName></ListDomainsResult>",
            "0.0000071759",
        ),
        "PutAttributes": (
            {**named, **put_fields("i", ("a", "1"), ("a", "2"), ("b", "3"))},
            "",
            "0.0000219961",
        ),
        "BatchPutAttributes": (
            {**named, **batch_fields(put_fields("i", ("c", "1")), put_fields("j", ("a", "<&>")))},
            "",
            "0.0000307873",
        ),
        "GetAttributes": (
            {**named, "ItemName": "i", "ConsistentRead": "true"},
            (
                "<GetAttributesResult>"
                "<Attribute><Name>a</Name><Value>1</Value></Attribute>"
                "<Attribute><Name>a</Name><Value>2</Value></Attribute>"
                "<Attribute><Name>b</Name><Value>3</Value></Attribute>"
                "<Attribute><Name>c</Name><Value>1</Value></Attribute>"
                "</GetAttributesResult>"
            ),
            "0.0000093210",
        ),
        "Select": (
            {"SelectExpression": f"select a from {domain} where itemName() = 'j'"},
            (
                "<SelectResult><Item><Name>j</Name>"
                "<Attribute><Name>a</Name><Value>&lt;&amp;&gt;</Value></Attribute>"
                "</Item></SelectResult>"
            ),
            "0.0000140080",
        ),
        "DeleteAttributes": ({**named, "ItemName": "i"}, "", "0.0000219907"),
        "BatchDeleteAttributes": ({**named, "Item.1.ItemName": "j"}, "", "0.0000153935"),
        "DeleteDomain": (named, "", "0.0055590278"),
    }
    for action, (fields, result, usage) in shapes.items():
        assert client.ok(action, fields).plain == document(action, result, usage)
    client.create(domain)
    metadata = client.ok("DomainMetadata", named)
    time = metadata.xml.findtext(".//Timestamp")
    assert metadata.plain == document(
        "DomainMetadata",
        "<DomainMetadataResult><ItemCount>0</ItemCount>"
        "<ItemNamesSizeBytes>0</ItemNamesSizeBytes><AttributeNameCount>0</AttributeNameCount>"
        "<AttributeNamesSizeBytes>0</AttributeNamesSizeBytes>"
        "<AttributeValueCount>0</AttributeValueCount>"
        f"<AttributeValuesSizeBytes>0</AttributeValuesSizeBytes><Timestamp>{time}</Timestamp>"
        "</DomainMetadataResult>",
        "0.0000071759",
    )


def test_select_shapes(client: Client, domain: str) -> None:
    """Names only, a count, nothing: each to the byte."""
    client.put(domain, "i", ("a", "1"))
    shapes = {
        "itemName()": "<SelectResult><Item><Name>i</Name></Item></SelectResult>",
        "count(*)": "<SelectResult><Item><Name>Domain</Name><Attribute><Name>Count</Name>"
        "<Value>1</Value></Attribute></Item></SelectResult>",
        "b": "<SelectResult/>",
    }
    for output, result in shapes.items():
        reply = client.select(f"select {output} from {domain}")
        usage = {"b": "0.0000140000", "count(*)": "0.0000140112"}.get(output, "0.0000140080")
        assert reply.plain == document("Select", result, usage)


def test_empty_results(client: Client, domain: str) -> None:
    """A result without anything in it is still there."""
    reply = client.ok("GetAttributes", DomainName=domain, ItemName="nobody")
    assert reply.plain == document("GetAttributes", "<GetAttributesResult/>", "0.0000093202")


def test_an_error(client: Client) -> None:
    """An error has no namespace, and spells its RequestID with a capital D."""
    reply = client("CreateDomain", DomainName="<&")
    assert reply.plain == (
        '<?xml version="1.0"?>\n<Response><Errors><Error><Code>InvalidParameterValue</Code>'
        "<Message>Value (&lt;&amp;) for parameter DomainName is invalid. </Message>"
        "<BoxUsage>0.0055590278</BoxUsage></Error></Errors><RequestID>ID</RequestID></Response>"
    )


def test_headers(client: Client) -> None:
    """The type of an answer is text/xml, of an error too; the connection lives on."""
    for reply in (client.ok("ListDomains"), client("Nonsense")):
        assert reply.headers["Content-Type"] == "text/xml"
        assert reply.headers["Connection"] is None


def test_box_usage_of_puts(client: Client, domain: str) -> None:
    """A put costs by the cube of its pairs."""
    usages = {1: "0.0000219909", 3: "0.0000219961", 4: "0.0000220035", 9: "0.0000221365"}
    for count, usage in usages.items():
        pairs = [("a", n) for n in range(count)]
        assert client.put(domain, "item", *pairs).box_usage == usage


@pytest.mark.parametrize("number", ["", "0.", "1.", "17."])
def test_numbers(client: Client, domain: str, number: str) -> None:
    """Lists begin at 0, at 1, anywhere, and a single one needs no number."""
    fields = {f"Attribute.{number}Name": "a", f"Attribute.{number}Value": "1"}
    client.ok("PutAttributes", fields, DomainName=domain, ItemName="one")
    batch = {f"Item.{number}{name}": v for name, v in {"ItemName": "two", **fields}.items()}
    client.ok("BatchPutAttributes", batch, DomainName=domain)
    assert client.read(domain, "one") == client.read(domain, "two") == {"a": ["1"]}


def test_numbers_order_nothing(client: Client, domain: str) -> None:
    """Numbers bind names to values, wherever they stand, with gaps and leading zeros."""
    fields = {
        "Attribute.10.Value": "10",
        "Attribute.2.Name": "two",
        "Attribute.10.Name": "ten",
        "Attribute.002.Value": "2",
    }
    client.ok("PutAttributes", fields, DomainName=domain, ItemName="item")
    assert client.read(domain, "item") == {"two": ["2"], "ten": ["10"]}


def test_get_and_post(client: Client, domain: str) -> None:
    """Parameters come in the query, in the body, or in both."""
    put = {"Action": "PutAttributes", "Version": VERSION, "DomainName": domain}
    assert client.get({**put, **put_fields("one", ("a", "x y+z"))}).status == 200
    client.connection.request(
        "POST",
        f"/?Action=PutAttributes&Version={VERSION}",
        f"DomainName={domain}&ItemName=two&Attribute.Name=a&Attribute.Value=x+y%2Bz",
    )
    assert client.connection.getresponse().read().startswith(b"<?xml")
    assert client.read(domain, "one") == client.read(domain, "two") == {"a": ["x y+z"]}


@pytest.mark.parametrize(
    "start", ["http://sdb.amazonaws.com/", "http://sdb.amazonaws.com", "HTTP://[::1]:80/"]
)
def test_as_through_a_proxy(client: Client, start: str) -> None:
    """The request line may name the whole URL, as boto 2 writes it for a proxy."""
    reply = client.get({"Action": "ListDomains", "Version": VERSION}, start)
    assert reply.plain.startswith('<?xml version="1.0"?>\n<ListDomainsResponse')


WRONG: dict[str, tuple[str, str, Any, str, str]] = {
    "no action": ("POST", "/", {}, "MissingAction", "No action was supplied with this request."),
    "get nothing": ("GET", "/", None, "MissingAction", "No action was supplied with this request."),
    "unknown action": (
        "POST",
        "/",
        {"Action": "Query", "Version": VERSION},
        "InvalidAction",
        "The action Query is not valid for this web service.",
    ),
    "no version": (
        "POST",
        "/",
        {"Action": "ListDomains"},
        "MissingParameter",
        "The request must contain the parameter Version.",
    ),
    "other version": (
        "POST",
        "/",
        {"Action": "ListDomains", "Version": "2007-11-07"},
        "NoSuchVersion",
        "The requested version (2007-11-07) of service AmazonSimpleDB does not exist.",
    ),
    "put": ("PUT", "/", {}, "UnsupportedHttpVerb", "The requested HTTP verb is not supported: PUT"),
    "delete": (
        "DELETE",
        "/",
        None,
        "UnsupportedHttpVerb",
        "The requested HTTP verb is not supported: DELETE",
    ),
    "options": (
        "OPTIONS",
        "*",
        None,
        "UnsupportedHttpVerb",
        "The requested HTTP verb is not supported: OPTIONS",
    ),
    "a path": (
        "GET",
        "/a/b%20c?Action=ListDomains",
        None,
        "InvalidURI",
        "The URI /a/b%20c is not valid.",
    ),
}


@pytest.mark.parametrize(("verb", "target", "form", "code", "text"), WRONG.values(), ids=WRONG)
def test_wrong_requests(
    client: Client, verb: str, target: str, form: Any, code: str, text: str
) -> None:
    """What asks for nothing that there is gets an error in the API's form."""
    reply = client.post(form) if verb == "POST" else client.request(verb, target)
    assert (reply.status, reply.code, reply.message) == (400, code, text)
    assert client.ok("ListDomains").status == 200  # on the same connection


UNSPEAKABLE = {
    "a\x00b": "YQBi",
    "\x08": "CA==",
    "\x0b\x0c": "Cww=",
    "\x1f\u20ac": "H+KCrA==",
    "\ufffe": "77++",
    "\uffff": "77+/",
}


@pytest.mark.parametrize(("text", "encoded"), UNSPEAKABLE.items(), ids=map(ascii, UNSPEAKABLE))
def test_what_xml_cannot_hold(client: Client, domain: str, text: str, encoded: str) -> None:
    """Names and values that XML cannot hold are stored as they are, and answered in base64."""
    client.put(domain, text, (text, text), ("plain", "1"))
    pair = (
        f'<Attribute><Name encoding="base64">{encoded}</Name>'
        f'<Value encoding="base64">{encoded}</Value></Attribute>'
    )
    reply = client.ok("GetAttributes", DomainName=domain, ItemName=text)
    assert pair in reply.plain
    assert "<Name>plain</Name><Value>1</Value>" in reply.plain
    reply = client.select(f"select * from {domain}")
    assert f'<Item><Name encoding="base64">{encoded}</Name>{pair}' in reply.plain
    condition = {"Expected.Name": text, "Expected.Value": text}
    assert client.put(domain, text, (text, "2", True), **condition).status == 200


SPEAKABLE = ["\t\n", "\r", "\r\n", "\x7f\x85", "<&>\"'", "]]>", "\u20ac", "\U0001f600", " ", "%+"]


@pytest.mark.parametrize("text", SPEAKABLE, ids=map(ascii, SPEAKABLE))
def test_what_xml_can_hold(client: Client, domain: str, text: str) -> None:
    """All else comes back through any XML parser as it was sent, carriage returns too."""
    client.put(domain, text, (text, text))
    assert client.read(domain, text) == {text: [text]}
    assert client.select(f"select * from {domain}").items == {text: {text: [text]}}
    assert b"base64" not in client.select(f"select * from {domain}").body


def test_errors_quote_anything(client: Client, domain: str) -> None:
    """A text that XML cannot hold does not make an error unreadable."""
    client.put(domain, "item", ("a\x00", "\x01"))
    condition = {"Expected.Name": "a\x00", "Expected.Value": "\r"}
    reply = client.put(domain, "item", ("a", "1"), **condition)
    assert reply.message == (
        "Conditional check failed. Attribute (a\ufffd) value is (\ufffd) but was expected (\r)"
    )


def exchange(server: Server, data: bytes) -> bytes:
    """Send bytes, and all that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_what_else_http_allows(server: Server, domain: str) -> None:
    """Chunks, HTTP/1.0, several requests at once, an upgrade that is not taken."""
    form = f"Action=DomainMetadata&Version={VERSION}&DomainName={domain}".encode()
    chunks = b"%x\r\n%s\r\n%x;e=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (
        *(9, form[:9]),
        *(len(form) - 9, form[9:]),
    )
    close = b"Connection: close\r\n\r\n"
    answers = {
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + close + chunks: 1,
        b"GET /?%s HTTP/1.0\r\n\r\n" % form: 1,
        b"GET /?%s HTTP/1.1\r\nHost: x\r\n\r\n" % form * 3 + b"GET / HTTP/1.1\r\n" + close: 3,
        b"GET /?%s HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" % form: 1,
    }
    for request, count in answers.items():
        assert exchange(server, request).count(b"<ItemCount>0</ItemCount>") == count


def test_a_head(server: Server) -> None:
    """HEAD is refused, without a body."""
    answer = exchange(server, b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
