"""Every operation through boto 2.49: ``python client_boto2.py PORT``, in boto's own environment.

Prints what it saw as JSON. The keys are in the environment.
"""

import json
import os
import sys

from boto.exception import SDBResponseError
from boto.regioninfo import RegionInfo
from boto.sdb.connection import SDBConnection
from boto.sdb.db.sequence import Sequence


def connect(**more):
    """A connection to SimpleDB Local."""
    return SDBConnection(
        os.environ["AWS_ACCESS_KEY_ID"],
        os.environ["AWS_SECRET_ACCESS_KEY"],
        is_secure=False,
        **more,
    )


def refusal(call, *arguments, **options):
    """What a call is refused with."""
    try:
        call(*arguments, **options)
    except SDBResponseError as error:
        return f"{error.status} {error.error_code}: {error.error_message}"
    return "nothing"


def main():
    """Do everything once."""
    port = int(sys.argv[1])
    region = RegionInfo(name="local", endpoint="127.0.0.1")
    sdb = connect(region=region, port=port)
    seen = {}
    domain = sdb.create_domain("boto2-domain")
    seen["domains"] = [found.name for found in sdb.get_all_domains()]
    sdb.put_attributes(domain, "one", {"a": ["1", "x y+z&\u20ac"], "b": "\t"})
    sdb.batch_put_attributes(domain, {"two": {"a": "2"}, "three": {"a": "3", "b": "3"}})
    sdb.put_attributes(domain, "two", {"a": "4"}, True, ["a", "2"])
    seen["refusal"] = refusal(sdb.put_attributes, domain, "two", {"a": "5"}, True, ["a", "2"])
    seen["exists"] = refusal(sdb.put_attributes, domain, "two", {"a": "5"}, True, ["a", False])
    seen["absent"] = refusal(sdb.delete_attributes, domain, "two", None, ["z", "2"])
    seen["one"] = dict(sdb.get_attributes(domain, "one", consistent_read=True))
    seen["some"] = dict(sdb.get_attributes(domain, "one", ["b"], consistent_read=True))
    seen["nobody"] = dict(sdb.get_attributes(domain, "nobody"))
    query = "select * from `boto2-domain` where a > '0' order by a limit 2"
    seen["pages"] = []
    token = None
    while True:
        page = sdb.select(domain, query, token, consistent_read=True)
        seen["pages"].append([item.name for item in page])
        token = page.next_token
        if not token:
            break
    sdb.delete_attributes(domain, "one", ["a"])
    seen["left"] = dict(sdb.get_attributes(domain, "one", consistent_read=True))
    sdb.batch_delete_attributes(domain, {"two": None, "three": {"b": "3"}})
    metadata = sdb.domain_metadata(domain)
    seen["metadata"] = [metadata.item_count, metadata.attr_value_count]

    class LocalSequence(Sequence):
        db = property(lambda self: domain)  # its own connection would go to AWS

    sequence = LocalSequence("counter")
    seen["sequence"] = [sequence.next() for _ in range(3)]

    through_proxy = connect(proxy="127.0.0.1", proxy_port=port)
    seen["proxy"] = [found.name for found in through_proxy.get_all_domains()]
    sdb.delete_domain(domain)
    seen["gone"] = refusal(sdb.domain_metadata, "boto2-domain")
    json.dump(seen, sys.stdout)


main()
