"""The ten operations of the API, version 2009-04-15."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from simpledb_local import errors
from simpledb_local.domains import Domains
from simpledb_local.errors import ServiceError
from simpledb_local.items import Attributes, check, merged, without
from simpledb_local.pages import select
from simpledb_local.parameters import Expected, Parameters, checked_domain
from simpledb_local.select import Output, parse
from simpledb_local.tokens import Place, seal, unseal
from simpledb_local.xml import attribute_elements, element

__all__ = ["Answer", "Operations"]

T = TypeVar("T")

VERSION: Final = "2009-04-15"

# What operations cost, in hours of machine time: the constants are in the real
# service's answers, the formulas were found by those who compared many.
DOMAIN: Final = 0.0055590278
LOOK: Final = 0.0000071759
WRITE: Final = 0.0000219907
READ: Final = 0.0000093202
SELECT: Final = 0.0000140000
REFUSED_SELECT: Final = 0.0000137200
PER_ITEM: Final = 8e-9
PER_COUNTED: Final = 0.0000294338 / 2625


class Answer(NamedTuple):
    """The result as XML, None for operations that have none; and what the request costs."""

    result: str | None
    box_usage: float


class Operations:
    """What clients can ask for, on ``domains``."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._operations: dict[str, tuple[Callable[[Parameters], Awaitable[Answer]], float]] = {
            "CreateDomain": (self._create_domain, DOMAIN),
            "DeleteDomain": (self._delete_domain, DOMAIN),
            "ListDomains": (self._list_domains, LOOK),
            "DomainMetadata": (self._domain_metadata, LOOK),
            "PutAttributes": (self._put_attributes, WRITE),
            "DeleteAttributes": (self._delete_attributes, WRITE),
            "BatchPutAttributes": (self._batch_put_attributes, WRITE),
            "BatchDeleteAttributes": (self._batch_delete_attributes, WRITE),
            "GetAttributes": (self._get_attributes, READ),
            "Select": (self._select, REFUSED_SELECT),
        }

    async def perform(self, action: str, parameters: Parameters) -> Answer:
        """The answer to ``action``; raises `ServiceError`.

        Whatever it says is on the disk: refusals too tell what was seen.
        """
        found = self._operations.get(action)
        if found is None:
            raise errors.invalid_action(action)
        operation, cost = found
        try:
            return await operation(parameters)
        except ServiceError as error:
            error.box_usage = cost
            raise
        finally:
            await self._domains.durable()

    # Domains

    async def _create_domain(self, parameters: Parameters) -> Answer:
        self._domains.create(parameters.domain())
        return Answer(None, DOMAIN)

    async def _delete_domain(self, parameters: Parameters) -> Answer:
        self._domains.delete(parameters.domain())
        return Answer(None, DOMAIN)

    async def _list_domains(self, parameters: Parameters) -> Answer:
        most = parameters.most_domains()
        after = unseal("ListDomains", parameters.get("NextToken")).name
        names = [name for name in self._domains.names() if name > after]
        result = "".join(f"<DomainName>{name}</DomainName>" for name in names[:most])
        if len(names) > most:
            token = seal("ListDomains", Place(names[most - 1]))
            result += f"<NextToken>{token}</NextToken>"
        return Answer(result, LOOK)

    async def _domain_metadata(self, parameters: Parameters) -> Answer:
        domain = self._domains.number(parameters.domain())
        items = item_bytes = values = value_bytes = 0
        names: set[str] = set()
        async for name, attributes in self._domains.every(domain):
            items += 1
            item_bytes += len(name.encode())
            names.update(attributes)
            for these in attributes.values():
                values += len(these)
                value_bytes += sum(len(value.encode()) for value in these)
        figures = {
            "ItemCount": items,
            "ItemNamesSizeBytes": item_bytes,
            "AttributeNameCount": len(names),
            "AttributeNamesSizeBytes": sum(len(name.encode()) for name in names),
            "AttributeValueCount": values,
            "AttributeValuesSizeBytes": value_bytes,
            "Timestamp": int(time.time()),
        }
        return Answer("".join(f"<{tag}>{n}</{tag}>" for tag, n in figures.items()), LOOK)

    # Items

    async def _put_attributes(self, parameters: Parameters) -> Answer:
        name = parameters.domain()
        item, pairs = parameters.put()
        self._change(name, [(item, pairs)], merged, parameters.expected())
        return Answer(None, _cost(len(pairs)))

    async def _delete_attributes(self, parameters: Parameters) -> Answer:
        name = parameters.domain()
        item, removals = parameters.removal()
        self._change(name, [(item, removals)], without, parameters.expected())
        return Answer(None, _cost(len(removals)))

    async def _batch_put_attributes(self, parameters: Parameters) -> Answer:
        name = parameters.domain()
        puts = parameters.batch_put()
        self._change(name, puts, merged)
        return Answer(None, sum(0.7 * _cost(len(pairs)) for _, pairs in puts))

    async def _batch_delete_attributes(self, parameters: Parameters) -> Answer:
        name = parameters.domain()
        deletions = parameters.batch_removal()
        self._change(name, deletions, without)
        return Answer(None, sum(0.7 * _cost(len(removals)) for _, removals in deletions))

    def _change(
        self,
        name: str,
        changes: Iterable[tuple[str, T]],
        change: Callable[[Attributes | None, T], Attributes | None],
        expected: Expected | None = None,
    ) -> None:
        """Change items of a domain, all or none, where each of them is as ``expected``."""
        domain = self._domains.number(name)
        after = []
        for item, how in changes:
            before = self._domains.get(domain, item)
            check(before, expected)
            after.append((item, change(before, how)))
        self._domains.put(domain, after)

    async def _get_attributes(self, parameters: Parameters) -> Answer:
        name = parameters.domain()
        item = parameters.item()
        wanted = parameters.attribute_names()
        moment = None if parameters.consistent() else self._domains.moment()
        domain = self._domains.number(name)
        attributes = self._domains.get(domain, item, moment) or {}
        pairs = attribute_elements(attributes, dict.fromkeys(wanted) if wanted else None)
        return Answer("".join(pairs), READ + 3.2e-12 * len(pairs) ** 4)

    async def _select(self, parameters: Parameters) -> Answer:
        expression = parameters.require("SelectExpression")
        moment = None if parameters.consistent() else self._domains.moment()
        query = parse(expression)
        checked_domain(query.domain)
        start = unseal(query.fingerprint, parameters.get("NextToken"))
        try:
            page = await select(self._domains, query, start, moment)
        except TimeoutError as error:
            raise errors.query_timeout(query.domain, expression, REFUSED_SELECT) from error
        result = page.items
        if page.rest is not None:
            result += element("NextToken", seal(query.fingerprint, page.rest))
        each = PER_COUNTED if query.output is Output.COUNT else PER_ITEM
        return Answer(result, SELECT + each * page.found)


def _cost(pairs: int) -> float:
    return WRITE + 2e-10 * pairs**3
