"""Counters in Amazon SimpleDB: ``simpledb://us-east-1``, ``simpledb+http://127.0.0.1:8765``.

A counter is an item, named like it, in the SimpleDB domain of its own domain's
name. ``current_value`` and ``timestamp`` are the attributes of the class of
2010, so that whoever reads them goes on reading; `item` knows the others,
`service` the requests.

SimpleDB checks one condition on one attribute. Here that is ``timestamp``: it
grows with every write, so it never repeats, and older writers change it
together with the value, so that a write of theirs is noticed and not
overwritten. Where an item has none, a claim puts it there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Final

from truecount import moment
from truecount.errors import (
    CounterError,
    DamagedRecordError,
    StoreURLError,
)
from truecount.record import Address, KeyReceipt, Record
from truecount.stores.aws import AmazonStore, is_place
from truecount.stores.base import Ambiguous, Deadline, beforehand, patiently
from truecount.stores.simpledb.item import (
    EXPIRES,
    SPILL,
    STAMP,
    TIMESTAMP,
    VALUE,
    Item,
    claim,
    expired_pairs,
    instant,
    key_item,
    key_pairs,
    layout,
    own_pairs,
    read_item,
    read_key_item,
)
from truecount.stores.simpledb.service import Condition, SimpleDB, simpledb_at
from truecount.url import StoreURL

__all__ = ["SimpleDBStore"]

SEEN: Final = 1024
"""Items that are kept in mind, so that they need not be read before they are written."""


class SimpleDBStore(AmazonStore[SimpleDB]):
    """A region's SimpleDB, or another endpoint's.

    Options: ``timeout``, ``key_ttl``, ``read_timeout`` (seconds to wait for one
    answer before asking what became of the request) and ``interop``.
    ``interop=boto`` conditions on ``current_value``, as the class of 2010 and
    boto's ``Sequence`` do, for counters that they write too. The promise is
    theirs then: no lost update, but no exactly-once.
    """

    batch_limit = 64
    key_limit = SPILL

    def __init__(self, url: StoreURL) -> None:
        super().__init__(url)
        self._interop = url.choice("interop", ("none", "boto")) == "boto"
        self.moving_proves = self.carries = not self._interop
        url.finish()
        self.url = url.text
        _, plus, protocol = url.scheme.partition("+")
        place = url.rest.rstrip("/")
        if not is_place(place, endpoint=bool(plus)):
            raise StoreURLError(
                f"{url.shown!r} names no SimpleDB: write simpledb://us-east-1 (a region) or "
                "simpledb+http://127.0.0.1:8765 (an endpoint)"
            )
        self._endpoint = f"{protocol}://{place}" if plus else None
        self._region = "us-east-1" if plus else place
        self._make = partial(simpledb_at, self._region, self._endpoint)
        self._items: dict[Address, Item] = {}

    # The contract

    def read(
        self, address: Address, keys: tuple[str, ...] = (), *, timeout: float | None
    ) -> Record | None:
        item, receipts = self._look(address, keys, Deadline(timeout))
        if item.record is not None and item.record.deleted and item.value is not None:
            self._clear(address, item, Deadline(timeout))  # its writer could not
        self._keep(address, item)
        return item.record if item.record is None else item.record._replace(keys=receipts)

    def replace(
        self, address: Address, old: Record | None, new: Record, *, timeout: float | None
    ) -> bool:
        deadline = Deadline(timeout)
        item = self._items.pop(address, None)
        keys = tuple(receipt.key for receipt in new.keys)
        if item is None or not (_holds(item, old) and item.absent.issuperset(keys)):
            with beforehand():
                item, _ = self._look(address, keys, deadline)
            if not (_holds(item, old) and item.absent.issuperset(keys)):
                return False
        if item.stamp is None and not self._interop:
            claimed = self._claim(address, item, new, deadline)
            if claimed is None:
                return False
            item = claimed
        slots, oldest = item.room(len(keys), moment.now())
        if oldest:
            moved = {key_item(address, k.receipt.key).name: key_pairs(k) for k in oldest}
            with beforehand():
                self._service().add_many(address.domain, moved, deadline.left())
        pairs, after = layout(item, new, slots if keys else (), int(self.key_ttl * 1_000_000))
        creates = self._interop and item.record is None
        deadline.check()
        if not self._service().put(
            address, pairs, self._condition(item), deadline.left(), creates=creates
        ):
            return False
        if not new.deleted or after.value is None:
            self._keep(address, after)
            return True
        # In the eyes of older writers it is deleted only now.
        return self._clear(address, after, deadline) or not self._interop

    def names(self, domain: str) -> Iterator[str]:
        return iter(self.snapshot(domain))

    def domains(self) -> Iterator[str]:
        names = sorted(self._service().domains(self.timeout))
        return (name for name in names if any(True for _ in self._counters(name, others=True)))

    def snapshot(self, domain: str) -> dict[str, int]:
        return dict(sorted(self._counters(domain)))

    def purge(self, before: int) -> int:
        service = self._service()
        now = moment.now()
        gone = 0
        for domain in service.domains(self.timeout):
            # Whose a damaged item is now, is for those to find out who count with it.
            where = f"`{STAMP}` like '1 %' and `{VALUE}` is null"
            expression = f"select * from `{domain}` where {where}"  # noqa: S608  # checked
            for name, attributes in list(service.select(expression, self.timeout)):
                address = Address(domain, name)
                with contextlib.suppress(DamagedRecordError):
                    item = read_item(address, attributes, interop=self._interop)
                    if item.record is not None and not item.record.deleted_before(before):
                        continue
                    if any(now < kept.expires for kept in item.keys.values()):
                        continue
                    pairs, condition = own_pairs(attributes), self._condition(item)
                    delete = partial(service.delete, address, pairs, condition, self.timeout)
                    gone += patiently(delete, self.timeout) and item.record is not None
            expression = f"select * from `{domain}` where `{EXPIRES}` <= '{instant(now)}'"  # noqa: S608  # checked
            for name, attributes in list(service.select(expression, self.timeout)):
                address = Address(domain, name)
                with contextlib.suppress(DamagedRecordError):
                    pairs = expired_pairs(address, attributes, now)
                    delete = partial(service.delete, address, pairs, None, self.timeout)
                    patiently(delete, self.timeout)
        return gone

    # Parts of it

    def _counters(self, domain: str, *, others: bool = False) -> Iterator[tuple[str, int]]:
        """The names and values of the counters in ``domain``.

        ``others``: there may be items of other programs in it, which are passed over.
        """
        expression = f"select * from `{domain}` where `{VALUE}` is not null"  # noqa: S608  # checked
        for name, attributes in self._service().select(expression, self.timeout):
            try:
                item = read_item(Address(domain, name), attributes, interop=self._interop)
            except DamagedRecordError:
                if others:
                    continue
                raise
            if item.record is not None and not item.record.deleted:
                yield name, item.record.value

    def _look(
        self, address: Address, keys: tuple[str, ...], deadline: Deadline
    ) -> tuple[Item, tuple[KeyReceipt, ...]]:
        """Read the item, and the receipts of ``keys`` from it or from items of their own."""
        service = self._service()
        attributes = service.get(address, deadline.left())
        item = read_item(address, attributes, interop=self._interop)
        now = moment.now()
        receipts = []
        absent = set()
        for key in keys:
            kept = item.key(key)
            if (kept is None or kept.expires <= now) and attributes:
                deadline.check()
                place = key_item(address, key)
                found = service.get(place, deadline.left(), domain_is_there=True)
                kept = read_key_item(place, found, key)
            if kept is not None and now < kept.expires:
                receipts.append(kept.receipt)
            else:
                absent.add(key)
        return item._replace(absent=frozenset(absent)), tuple(receipts)

    def _claim(self, address: Address, item: Item, new: Record, deadline: Deadline) -> Item | None:
        """Put only a stamp where there is none, and see what is there then.

        An older writer's value is not touched before it is known. None: somebody was first.
        """
        pairs = {STAMP: claim(new.stamp)}
        if item.timestamp is None:
            pairs[TIMESTAMP] = moment.to_iso(moment.now())
        service = self._service()
        with beforehand():
            deadline.check()
            if not service.put(address, pairs, (STAMP, None), deadline.left(), creates=True):
                return None
            there = read_item(address, service.get(address, deadline.left()), interop=False)
        if there.stamp != pairs[STAMP] or not _holds(there, item.record):
            return None
        return there._replace(absent=item.absent)

    def _condition(self, item: Item) -> Condition:
        if self._interop:
            return VALUE, item.value
        if item.timestamp is not None:
            return TIMESTAMP, item.timestamp
        return STAMP, item.stamp

    def _clear(self, address: Address, item: Item, deadline: Deadline) -> bool:
        """Take from a tombstone what older readers take for a counter; False: somebody wrote.

        Where it cannot be had in time the tombstone is one all the same, and
        whoever reads it next does this.
        """
        assert item.value is not None
        try:
            deadline.check()
            cleared = self._service().delete(
                address, [(VALUE, item.value)], self._condition(item), deadline.left()
            )
        except (Ambiguous, CounterError):
            return True
        if cleared:
            self._keep(address, item._replace(value=None))
        return cleared

    def _keep(self, address: Address, item: Item) -> None:
        if len(self._items) >= SEEN:
            self._items.clear()
        self._items[address] = item

    def _new_service(self) -> SimpleDB:
        shown = self._endpoint or f"SimpleDB in {self._region}"
        return SimpleDB(shown, self._read_timeout, self._make)


def _holds(item: Item, old: Record | None) -> bool:
    """Whether ``item`` is the one in which ``old`` was seen."""
    if item.record is None or old is None:
        return item.record is old
    return item.record.stamp == old.stamp
