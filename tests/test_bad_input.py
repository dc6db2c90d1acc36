"""Bad input gets an error of the tree that says what to do, and changes nothing."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import make_counter
from truecount import (
    BoundsError,
    BoundsMismatchError,
    Counter,
    CounterError,
    Domain,
    InvalidNameError,
    InvalidTypeError,
    MissingDriverError,
    Store,
    StoreError,
    StoreURLError,
    connect,
)

BAD_CONSTRUCTIONS: dict[str, tuple[Callable[[Store], object], type[CounterError], str]] = {
    "float": (lambda s: Counter("dom", "c", 1.5, store=s), InvalidTypeError, "integer"),  # type: ignore[arg-type]
    "text": (lambda s: Counter("dom", "c", "1", store=s), InvalidTypeError, "integer"),  # type: ignore[arg-type]
    "none": (lambda s: Counter("dom", "c", None, store=s), InvalidTypeError, "integer"),  # type: ignore[arg-type]
    "before the name": (lambda s: Counter("d", "c", 1.5, store=s), InvalidTypeError, "float"),  # type: ignore[arg-type]
    "long": (lambda s: Counter("dom", "c", 10**500, store=s), BoundsError, "500 digits"),
    "long negative": (lambda s: Counter("dom", "c", -(10**500), store=s), BoundsError, "500"),
    "very long": (lambda s: Counter("dom", "c", 10**9999, store=s), BoundsError, "10000 digits"),
    "no name": (lambda s: Counter("dom", "", store=s), InvalidNameError, "1 to 1,024"),
    "long name": (lambda s: Counter("dom", "é" * 513, store=s), InvalidNameError, "1,026"),
    "control": (lambda s: Counter("dom", "a\nb", store=s), InvalidNameError, "control"),
    "nul": (lambda s: Counter("dom", "a\0b", store=s), InvalidNameError, "control"),
    "surrogate": (lambda s: Counter("dom", "a\ud800", store=s), InvalidNameError, "Unicode"),
    "bytes name": (lambda s: Counter("dom", b"c", store=s), InvalidTypeError, "string"),  # type: ignore[arg-type]
    "short domain": (lambda s: Counter("do", "c", store=s), InvalidNameError, "3 to 255"),
    "long domain": (lambda s: Counter("d" * 256, "c", store=s), InvalidNameError, "3 to 255"),
    "domain chars": (lambda s: Counter("my domain", "c", store=s), InvalidNameError, "a-z"),
    "domain newline": (lambda s: Counter("domain\n", "c", store=s), InvalidNameError, "a-z"),
    "domain type": (lambda s: Counter(7, "c", store=s), InvalidTypeError, "string"),  # type: ignore[arg-type]
    "domain's domain": (lambda s: Domain("x", store=s), InvalidNameError, "3 to 255"),
    "crossed": (
        lambda s: Counter("dom", "c", minimum=3, maximum=1, store=s),
        BoundsError,
        "above the maximum",
    ),
    "outside": (
        lambda s: Counter("dom", "c", 5, maximum=1, store=s),
        BoundsError,
        "outside the bounds",
    ),
    "bound type": (
        lambda s: Counter("dom", "c", minimum="0", store=s),
        InvalidTypeError,
        "minimum",
    ),  # type: ignore[arg-type]
    "bound long": (lambda s: Counter("dom", "c", maximum=10**500, store=s), BoundsError, "maximum"),
    "store type": (lambda s: Counter("dom", "c", store=7), InvalidTypeError, "URL"),  # type: ignore[arg-type]
    "two stores": (
        lambda s: Counter(Domain("dom", store=s), "c", store="memory://other"),
        InvalidTypeError,
        "one of them",
    ),
    "timeout": (lambda s: Counter("dom", "c", timeout=-1, store=s), InvalidTypeError, "timeout"),
}


@pytest.mark.parametrize("case", BAD_CONSTRUCTIONS)
def test_bad_constructions(store: Store, case: str) -> None:
    """A constructor refuses what cannot be meant, and creates nothing."""
    construct, error, text = BAD_CONSTRUCTIONS[case]
    with pytest.raises(error, match=text):
        construct(store)
    assert list(store.domains()) == []


BAD_CALLS: dict[str, tuple[Callable[[Counter], object], type[CounterError], str]] = {
    "add text": (lambda c: c.add("1"), InvalidTypeError, "amount must be an integer, not str"),  # type: ignore[arg-type]
    "add float": (lambda c: c.add(1.0), InvalidTypeError, "not float"),  # type: ignore[arg-type]
    "add too much": (lambda c: c.add(10**501), BoundsError, "500 digits"),
    "add beyond": (lambda c: c.add(10**500 - 1), BoundsError, "longer than 500 digits"),
    "subtract text": (lambda c: c.subtract("1"), InvalidTypeError, "amount"),  # type: ignore[arg-type]
    "set text": (lambda c: c.set("1"), InvalidTypeError, "value"),  # type: ignore[arg-type]
    "set long": (lambda c: c.set(10**500), BoundsError, "500 digits"),
    "update type": (lambda c: c.update(lambda v: v / 2), InvalidTypeError, "what fn returned"),  # type: ignore[arg-type,return-value]
    "update long": (lambda c: c.update(lambda v: 10**500), BoundsError, "what fn returned"),
    "compare type": (lambda c: c.compare_and_set("5", 6), InvalidTypeError, "expected"),  # type: ignore[arg-type]
    "new type": (lambda c: c.compare_and_set(5, None), InvalidTypeError, "new value"),  # type: ignore[arg-type]
    "reserve none": (lambda c: c.reserve(0), BoundsError, "the least is 1"),
    "reserve negative": (lambda c: c.reserve(-1), BoundsError, "the least is 1"),
    "ids none": (lambda c: c.ids(0), BoundsError, "the least is 1"),
    "ids type": (lambda c: c.ids(1.5), InvalidTypeError, "block"),  # type: ignore[arg-type]
    "empty key": (lambda c: c.add(1, key=""), InvalidNameError, "1 to 256"),
    "long key": (lambda c: c.add(1, key="k" * 257), InvalidNameError, "1 to 256"),
    "key type": (lambda c: c.add(1, key=7), InvalidTypeError, "idempotency key"),  # type: ignore[arg-type]
    "key control": (lambda c: c.add(1, key="a\tb"), InvalidNameError, "control"),
    "receipt none": (lambda c: c.receipt(None), InvalidTypeError, "string"),  # type: ignore[arg-type]
    "timeout text": (lambda c: c.add(1, timeout="5"), InvalidTypeError, "timeout"),  # type: ignore[arg-type]
    "timeout nan": (lambda c: c.add(1, timeout=math.nan), InvalidTypeError, "timeout"),
    "limit crossed": (lambda c: c.limit(minimum=2, maximum=1), BoundsError, "above the maximum"),
    "limit crossing": (lambda c: c.limit(minimum=6), BoundsError, "outside the bounds asked for"),
    "limit type": (lambda c: c.limit(minimum=True and "1"), InvalidTypeError, "minimum"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case: str) -> None:
    """A method refuses what cannot be meant; value and revision stay."""
    call, error, text = BAD_CALLS[case]
    c = make_counter(5)
    revision = c.revision
    with pytest.raises(error, match=text):
        call(c)
    c.refresh()
    assert (c.value, c.revision) == (5, revision)


def test_true_is_an_integer() -> None:
    """``True`` counts as 1, as it does everywhere in Python."""
    c = make_counter(True)
    assert type(c.value) is int
    assert c.add(True) == 2


def test_the_longest_names_work() -> None:
    """Names and keys at their limits are fine, and nothing but control characters is special."""
    c = Counter("d" * 255, "n" * 1024, store="memory://longest")
    c.add(1, key="é" * 128)
    for name in ("a b", "a/b?c#d", "ü", "日本", "\N{GRINNING FACE}", "'; DROP TABLE counters; --"):
        assert Counter("dom", name, 3, store="memory://longest") == 3


def test_an_error_shows_what_it_refused_but_not_all_of_it() -> None:
    """A message stays short when what it complains about is long, or cannot be shown."""

    class Rude:
        def __repr__(self) -> str:
            raise ValueError

    c = make_counter()
    for thing in ("x" * 10**6, Rude()):
        with pytest.raises(InvalidTypeError) as caught:
            c.add(thing)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 200


BAD_URLS = {
    "counters.db": "is not a store URL",
    "/var/lib/counters.db": "is not a store URL",
    "nosuch://here": "there is no store for nosuch://; there are: dynamodb, ",
    "sqlite://": "names no file",
    "sqlite:///": "names no file",
    "sqlite://host/file.db": "names no file",
    "sqlite:///a.db?synchronus=full": "has no option 'synchronus'; it knows key_ttl, synchronous",
    "sqlite:///a.db?synchronous=off": "one of full, normal",
    "sqlite:///a.db?timeout=soon": "number of seconds",
    "sqlite:///a.db?timeout=-1": "number of seconds",
    "sqlite:///a.db?key_ttl=0": "above 0",
    "sqlite:///a.db?timeout=1&timeout=2": "twice",
    "memory://a?synchronous=full": "has no option",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls(url: str) -> None:
    """A URL that cannot be understood says what would be one."""
    with pytest.raises(StoreURLError) as caught:
        connect(url)
    assert BAD_URLS[url] in str(caught.value)


def distribution(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """Install a distribution, as far as entry points go."""
    info = folder / "otherstores-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherstores\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[truecount.stores]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_other_packages_bring_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is found by its scheme among the entry points of all that is installed."""
    distribution(tmp_path, monkeypatch, "other = otherstore:OtherStore")
    (tmp_path / "otherstore.py").write_text(
        "from truecount.stores.memory import MemoryStore\n"
        "class OtherStore(MemoryStore):\n    pass\n"
    )
    store = connect("other://somewhere")
    assert type(store).__name__ == "OtherStore"
    assert Counter("dom", "c", 3, store="other://somewhere").add(1) == 4
    assert connect("other://somewhere") is store


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the driver is not installed, the error names it, and the extra that brings it."""
    distribution(tmp_path, monkeypatch, "redish = redishstore:RedishStore [redish]")
    (tmp_path / "redishstore.py").write_text("import no_such_driver\n")
    with pytest.raises(MissingDriverError) as caught:
        connect("redish://localhost")
    assert "'no_such_driver'" in str(caught.value)
    assert "pip install 'otherstores[redish]'" in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_an_entry_point_that_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point to something else is told, not called."""
    distribution(tmp_path, monkeypatch, "wrong = os:getcwd")
    with pytest.raises(StoreURLError, match="not a Store"):
        connect("wrong://")


def test_without_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that was built without sqlite3 is told so."""
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    monkeypatch.delitem(sys.modules, "truecount.stores.sqlite", raising=False)
    with pytest.raises(MissingDriverError, match="sqlite3"):
        connect("sqlite:///a.db")


@pytest.mark.parametrize(
    ("driver", "store", "extra"),
    [
        ("boto3", "simpledb://us-east-1", "simpledb"),
        ("boto3", "dynamodb://us-east-1/table", "dynamodb"),
        ("httptools", "dynamodb://us-east-1/table", "dynamodb"),
        ("httptools", "etcd://127.0.0.1", "etcd"),
        ("httptools", "simpledb://us-east-1", "simpledb"),
        ("psycopg", "postgresql://127.0.0.1/shop", "postgresql"),
        ("redis", "redis://127.0.0.1", "redis"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: str, store: str, extra: str
) -> None:
    """A store whose driver is not installed says what installs it."""
    for module in list(sys.modules):
        if module.partition(".")[0] == driver:
            monkeypatch.setitem(sys.modules, module, None)
        elif module.startswith(tuple(f"truecount.stores.{n}" for n in ("aws", "conn", extra))):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(MissingDriverError, match=rf"{driver}.*pip install 'truecount\[{extra}\]'"):
        connect(store)


def test_passwords_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No password stands in a repr, in what is shown, or in an error."""
    distribution(tmp_path, monkeypatch, "guarded = guardedstore:GuardedStore")
    (tmp_path / "guardedstore.py").write_text(
        "from truecount.stores.memory import MemoryStore\n"
        "class GuardedStore(MemoryStore):\n"
        "    def __init__(self, url):\n"
        "        url.choice('password', ('s3cret',))\n"
        "        super().__init__(url)\n"
    )
    for url in ("guarded://me:s3cret@host:1/db", "guarded://host?password=s3cret"):
        store = connect(url)
        counter = Counter("dom", "c", store=store)
        for shown in (repr(store), store.shown, repr(Domain("dom", store=store)), repr(counter)):
            assert "s3cret" not in shown
    with pytest.raises(StoreURLError) as caught:
        connect("nosuch://me:s3cret@host")
    assert "s3cret" not in str(caught.value)


def test_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place for the default store the error names $TRUECOUNT_STORE."""
    import platformdirs

    monkeypatch.delenv("TRUECOUNT_STORE")
    for folder in ("relative/folder", f"{tmp_path}/file/below", "/proc/truecount"):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setattr(platformdirs, "user_data_dir", lambda *a, f=folder, **k: f)
        with pytest.raises(StoreError, match=r"\$TRUECOUNT_STORE"):
            Counter("dom", "c")


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a file in the user's data folder, which is created."""
    monkeypatch.delenv("TRUECOUNT_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    c = Counter("dom", "c", 3)
    assert c.store.url.startswith(f"sqlite:///{tmp_path.resolve()}")
    assert c.store.url.endswith("/truecount/counters.db")
    assert Counter("dom", "c") == 3


def test_relative_paths_are_made_absolute_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later chdir does not move the counters."""
    monkeypatch.chdir(tmp_path)
    store = connect("sqlite:///here.db")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    Counter("dom", "c", 3, store=store)
    assert (tmp_path / "here.db").exists()
    assert connect(f"sqlite:////{tmp_path}/here.db") is store


def test_a_store_is_shared_by_its_url(tmp_path: Path) -> None:
    """The same URL is the same store; another timeout is another; a closed one is opened anew."""
    url = f"sqlite:///{tmp_path}/a.db"
    store = connect(url)
    assert connect(url) is store
    assert (store.timeout, connect(url, timeout=3).timeout) == (10.0, 3.0)
    assert connect(url, timeout=None).timeout is None
    assert connect(f"{url}?timeout=3") is connect(url, timeout=3)
    assert connect(f"{url}?timeout=none").timeout is None
    store.close()
    assert connect(url) is not store
    assert connect(store) is store


def test_bounds_must_be_the_stored_ones() -> None:
    """Other bounds than the stored ones are refused, and the error tells both ways out."""
    c = make_counter(5, minimum=0)
    for bounds in ({"minimum": 1}, {"minimum": None}, {"maximum": 9}):
        with pytest.raises(BoundsMismatchError, match=r"leave them out, or change them with limit"):
            Counter(c.domain, c.name, store=c.store, **bounds)  # type: ignore[arg-type]
    assert Counter(c.domain, c.name, minimum=0, maximum=None, store=c.store) == 5
