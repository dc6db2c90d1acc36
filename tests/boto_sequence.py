"""boto 2.49's Sequence: ``python boto_sequence.py PORT DOMAIN ITEM TIMES``, in boto's environment.

What its ``next()`` returns is read once more, so that it may be a later number.
"""

import sys

from boto.regioninfo import RegionInfo
from boto.sdb.connection import SDBConnection
from boto.sdb.db.sequence import Sequence


def main():
    """Count."""
    port, domain, item, times = sys.argv[1:]
    region = RegionInfo(name="local", endpoint="127.0.0.1")
    sdb = SDBConnection("local", "local", is_secure=False, region=region, port=int(port))
    place = sdb.get_domain(domain)

    class LocalSequence(Sequence):
        db = property(lambda self: place)  # its own connection would go to AWS

    sequence = LocalSequence(item)
    done = 0
    while done < int(times):
        try:
            sequence.next()
        except ValueError:  # "Sequence out of sync"
            continue
        done += 1


main()
