"""From a URL to its store, by the scheme."""

from __future__ import annotations

import copyreg
import importlib
import os
import sys
import threading
from typing import Any, Final

from truecount.arguments import check_timeout
from truecount.defaults import CONFIGURED, Configured
from truecount.errors import InvalidTypeError, MissingDriverError, StoreError, StoreURLError
from truecount.process import here
from truecount.stores.base import Store
from truecount.url import StoreURL

__all__ = ["connect", "default_url"]

BUILT_IN: Final = {
    "dynamodb": ("truecount.stores.dynamodb:DynamoDBStore", "dynamodb"),
    "dynamodb+http": ("truecount.stores.dynamodb:DynamoDBStore", "dynamodb"),
    "dynamodb+https": ("truecount.stores.dynamodb:DynamoDBStore", "dynamodb"),
    "etcd": ("truecount.stores.etcd:EtcdStore", "etcd"),
    "etcds": ("truecount.stores.etcd:EtcdStore", "etcd"),
    "memory": ("truecount.stores.memory:MemoryStore", ""),
    "postgresql": ("truecount.stores.postgresql:PostgreSQLStore", "postgresql"),
    "redis": ("truecount.stores.redis:RedisStore", "redis"),
    "redis+cluster": ("truecount.stores.redis:RedisStore", "redis"),
    "rediss": ("truecount.stores.redis:RedisStore", "redis"),
    "rediss+cluster": ("truecount.stores.redis:RedisStore", "redis"),
    "simpledb": ("truecount.stores.simpledb:SimpleDBStore", "simpledb"),
    "simpledb+http": ("truecount.stores.simpledb:SimpleDBStore", "simpledb"),
    "simpledb+https": ("truecount.stores.simpledb:SimpleDBStore", "simpledb"),
    "sqlite": ("truecount.stores.sqlite:SQLiteStore", ""),
}
"""Where the stores are that come with truecount, and the extras they need, by scheme."""

CLIENTS: Final = {
    "botocore.client.DynamoDB": "dynamodb",
    "botocore.client.SimpleDB": "simpledb",
    "psycopg.Connection": "postgresql",
    "psycopg_pool.pool.ConnectionPool": "postgresql",
    "redis.client.Redis": "redis",
    "redis.cluster.RedisCluster": "redis+cluster",
}
"""The schemes of the stores that take a client of their driver's, by its class."""

GROUP: Final = "truecount.stores"
"""The entry point group in which other packages name theirs: ``scheme = module:Store``."""

VARIABLE: Final = "TRUECOUNT_STORE"
"""The environment variable that names the default store."""

_stores: dict[str, Store] = {}
_lock = threading.RLock()  # a signal handler may come in between


def connect(
    url: str | Store | Any = None, *, timeout: float | Configured | None = CONFIGURED
) -> Store:
    """Return the store at ``url``: ``$TRUECOUNT_STORE``, or a file of the user's, by default.

    Instead of a URL it may be a client of a store's driver that is set up
    already: ``redis.Redis``, ``psycopg.Connection``, ``psycopg_pool.ConnectionPool``,
    or boto3's for DynamoDB or SimpleDB. It stays yours, to close too.

    ``timeout`` is what its calls may take in seconds when they do not say,
    None for no end; by default what the URL says (``?timeout=``), else 10.
    All who name the same URL share one store, which the last of them may
    close. Nothing is reached for yet: the first call does.

    Raises `StoreURLError` for a URL that cannot be understood,
    `MissingDriverError` when the store's driver is not installed, and
    `StoreError` when there is no place for the default store.
    """
    if url is None:
        url = default_url()
    if isinstance(url, Store):
        if timeout is not CONFIGURED and check_timeout(timeout) != url.timeout:
            raise InvalidTypeError(
                f"{url!r} has a time-out of its own: give timeout= with the URL, or to the call"
            )
        return url
    client = None if isinstance(url, str) else url
    parsed = StoreURL(f"{_scheme_of(client)}://" if client is not None else url)
    if timeout is not CONFIGURED:
        parsed = parsed.having("timeout", check_timeout(timeout))
    if client is not None:
        behind = _store_class(parsed).from_client(client, parsed)
        copyreg.pickle(type(behind), _reduce)
        return behind
    opened = _store_class(parsed)(parsed)
    with _lock:
        store = _stores.get(opened.url)
        if store is None or store.closed:
            store = _stores[opened.url] = opened
            copyreg.pickle(type(store), _reduce)
    return store


def default_url() -> str:
    """The URL of the store that is used when none is named.

    ``$TRUECOUNT_STORE``, else ``counters.db`` in the user's data folder,
    which is created. Never a temporary folder: what is counted there would be
    lost. Raises `StoreError` when there is no such folder to write to.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named
    import platformdirs

    folder = platformdirs.user_data_dir("truecount", appauthor=False)
    if not os.path.isabs(folder):
        raise StoreError(
            "there is no home folder to keep counters in: set $TRUECOUNT_STORE to a store's "
            "URL, such as sqlite:////var/lib/counters.db"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise StoreError(
            f"the folder {folder} cannot be written: set $TRUECOUNT_STORE to a store's URL, "
            "such as sqlite:////var/lib/counters.db"
        )
    return f"sqlite:///{folder}/counters.db"


def _store_class(url: StoreURL) -> type[Store]:
    where, extras = BUILT_IN.get(url.scheme, ("", ""))
    package = "truecount"
    if not where:
        from importlib.metadata import entry_points

        found = list(entry_points(group=GROUP, name=url.scheme))
        if not found:
            known = ", ".join(sorted({*BUILT_IN, *(e.name for e in entry_points(group=GROUP))}))
            raise StoreURLError(f"there is no store for {url.scheme}://; there are: {known}")
        where = found[0].value.partition("[")[0].strip()
        extras = ",".join(found[0].extras)
        package = "" if found[0].dist is None else found[0].dist.name
    module, _, name = where.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except ImportError as error:
        remedy = f": pip install '{package}[{extras}]'" if package and extras else ""
        raise MissingDriverError(
            f"{url.scheme}:// needs the module {error.name!r}, which is not installed{remedy}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Store)):
        raise StoreURLError(f"the entry point of {url.scheme}://, {where}, is not a Store")
    return cls


def _scheme_of(client: Any) -> str:
    for cls in type(client).__mro__:
        scheme = CLIENTS.get(f"{cls.__module__}.{cls.__qualname__}")
        if scheme is not None:
            return scheme
    raise InvalidTypeError(
        "connect() takes a store's URL such as 'sqlite:///counters.db', or a client that a store "
        f"knows, and not {type(client).__name__}"
    )


def _reduce(store: Store) -> tuple[Any, ...]:
    """How a store pickles: as its URL, which the other side connects to."""
    if store.client is not None:
        raise InvalidTypeError(
            f"{store!r} was made from a client, which another process cannot have: connect() by "
            "URL to pickle what is in it"
        )
    if StoreURL(store.url).secret and not _spawning():
        raise InvalidTypeError(
            f"{store!r} has a password in its URL, which would be written into the pickle: pass "
            "the URL where it is safe, in the environment for example, and connect() there"
        )
    return _reconnect, (store.url, store.home)


def _reconnect(url: str, home: str | None) -> Store:
    if home in (None, here().birth):
        return connect(url)
    stranger = _store_class(StoreURL(url))(StoreURL(url))
    stranger.home = home  # every call of it says that it is of another process
    return stranger


def _spawning() -> bool:
    """Whether multiprocessing is handing this over to a child that it starts."""
    context = sys.modules.get("multiprocessing.context")
    return context is not None and context.get_spawning_popen() is not None


def _forked() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forked)
