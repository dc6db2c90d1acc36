"""How counters lie in a PostgreSQL schema: its tables, functions and statements. Pure.

The format is described in ``docs/stores.md``. What the latest write left is in
columns; the receipts of the other writers are lines of text beside it, which a
writer that writes twice in a row does not touch.

The functions hold one plan each in the server's session, and their settings
are their own: behind a pooler nothing else of a session is one's own.

``python -m truecount.stores.postgresql.layout SCHEMA`` prints the statements
that create the schema.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from truecount.errors import DamagedRecordError
from truecount.record import WRITERS, Address, KeyReceipt, Ledger, Record

__all__ = ["VERSION", "Statements", "creation", "ledger_change", "read_keys", "read_row"]

VERSION: Final = 1

SWEEP: Final = 16
"""Expired keys, of any counter, that a write with keys removes."""

_LATEST: Final = """pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
            c.after, c.codes, coalesce(c.minimum::pg_catalog.text, '-'),
            coalesce(c.maximum::pg_catalog.text, '-')) || E'\\n'"""


def _rest(others: str) -> str:
    """What follows the name of ``a_writer`` in ``others``; empty when it is not there.

    Whatever counts characters instead of bytes, as `strpos` does, takes far longer.
    """
    lines = f"E'\\n' || {others} || E'\\n'"  # so that something follows even where it is cut off
    return f"pg_catalog.split_part({lines}, E'\\n' || a_writer || ' ', 2)"


_ADD: Final = {
    **dict.fromkeys(("a_domain", "a_name", "a_writer"), "text"),
    **dict.fromkeys(("a_number", "a_since"), "bigint"),
    **dict.fromkeys(("a_total", "a_lowest", "a_highest", "a_expected"), "numeric"),
    "a_now": "bigint",
}
_REPLACE: Final = {
    "a_domain": "text",
    "a_name": "text",
    "old_revision": "bigint",
    "old_writer": "text",
    "old_number": "bigint",
    **dict.fromkeys(("old_value", "old_minimum", "old_maximum"), "numeric"),
    "a_deleted": "boolean",
    "a_horizon": "bigint",
    "a_value": "numeric",
    "a_writer": "text",
    **dict.fromkeys(("a_number", "a_revision", "a_time"), "bigint"),
    "a_before": "numeric",
    "a_after": "numeric",
    "a_codes": "text",
    "a_minimum": "numeric",
    "a_maximum": "numeric",
    "a_gone": "text",
    "a_others": "text",
    "a_keys": "jsonb",
    "a_ttl": "double precision",
}
"""What the functions take, but for their patience, and of which types."""


def _numbered(text: str, parameters: Mapping[str, str]) -> str:
    """``text`` with ``$1``, ``$2``, ... in the place of the parameters' names."""
    for number, (name, kind) in enumerate(parameters.items(), 1):
        text = re.sub(rf"\b{name}\b", f"${number}::{kind}", text)
    return text


def _declared(parameters: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in parameters.items())


def _listed(parameters: Mapping[str, str], *, named: bool) -> str:
    """The parameters, from the texts in the JSON list ``m.e``."""
    texts = enumerate(parameters.items())
    return ", ".join(
        f"(m.e->>{at})::{kind}{f' AS {name}' if named else ''}" for at, (name, kind) in texts
    )


_COUNTED: Final = """
        value = c.value + a_total,
        writer = a_writer,
        number = a_number,
        revision = c.revision + 1,
        time = greatest(c.time, a_now),
        before = c.value,
        after = c.value + a_total,
        codes = '+'"""
"""What an addition sets in a row ``c``, but for what is known of other writers."""


def _addition(others: str, rest: str) -> str:
    """All that it sets, where ``others`` are the lines and ``rest`` is `_rest` of them."""
    ends = f"pg_catalog.octet_length(pg_catalog.replace({others}, E'\\n', ''))"
    room = f"pg_catalog.octet_length({others}) - {ends} < {WRITERS - 1}"
    # Of whoever has a longer name, no line ends with this one: they differ in the revision.
    line = f"a_writer || ' ' || pg_catalog.split_part({rest}, E'\\n', 1) || E'\\n'"
    return f"""{_COUNTED},
        horizon = CASE
            WHEN c.writer = a_writer OR {rest} <> '' OR {room} THEN c.horizon
            ELSE greatest(c.horizon, pg_catalog.split_part({others}, ' ', 3)::bigint)
        END,
        others = CASE
            WHEN c.writer = a_writer THEN c.others
            WHEN {rest} <> '' THEN pg_catalog.replace({others}, {line}, '') || {_LATEST}
            WHEN {room} THEN {others} || {_LATEST}
            ELSE pg_catalog.substr({others}, pg_catalog.strpos({others}, E'\\n') + 1) || {_LATEST}
        END"""


_SOUND: Final = """c.domain = a_domain AND c.name = a_name AND NOT c.deleted
        AND c.value = c.after AND pg_catalog.scale(c.value) = 0
        AND (a_expected IS NULL OR c.value = a_expected)
        AND c.value + a_lowest > -1e500 AND c.value + a_highest < 1e500
        AND (c.minimum IS NULL
            OR c.value + a_lowest >= c.minimum AND pg_catalog.scale(c.minimum) = 0)
        AND (c.maximum IS NULL
            OR c.value + a_highest <= c.maximum AND pg_catalog.scale(c.maximum) = 0)"""
"""In which row it may, whoever adds."""


def _addable(rest: str) -> str:
    """In which row it does."""
    return f"""{_SOUND}
        AND CASE
            WHEN c.writer = a_writer THEN c.number < a_number
            WHEN {rest} <> '' THEN pg_catalog.split_part({rest}, ' ', 1)::bigint < a_number
            ELSE c.horizon <= a_since
        END"""


_ADDED: Final = """pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
        coalesce(c.minimum::pg_catalog.text, '-'), coalesce(c.maximum::pg_catalog.text, '-'))"""
"""What it says then."""

_CREATION: Final = f"""
SELECT pg_catalog.set_config('lock_timeout', '5s', true);
SELECT pg_catalog.pg_advisory_xact_lock({0x54434E54});
DO $do$ BEGIN
    IF pg_catalog.to_regnamespace({{literal}}) IS NULL THEN
        CREATE SCHEMA {{schema}};
    END IF;
END $do$;
CREATE TABLE {{schema}}.counters (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain    text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    value     numeric NOT NULL,
    deleted   boolean NOT NULL,
    horizon   bigint NOT NULL,
    writer    text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    revision  bigint NOT NULL,
    time      bigint NOT NULL,
    before    numeric NOT NULL,
    after     numeric NOT NULL,
    codes     text COLLATE "C" NOT NULL,
    minimum   numeric,
    maximum   numeric,
    others    text COLLATE "C" NOT NULL,
    UNIQUE (domain, name)
) WITH (fillfactor = 50, toast_tuple_target = 2800);
DO $do$ BEGIN
    EXECUTE 'ALTER TABLE ' || {{literal}} || '.counters ALTER others SET COMPRESSION lz4';
EXCEPTION WHEN syntax_error OR feature_not_supported THEN
    NULL;  -- PostgreSQL 13, or without lz4: what it has takes longer, and that is all
END $do$;
CREATE TABLE {{schema}}.keys (
    counter   bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    line      text COLLATE "C" NOT NULL,
    expires   timestamptz NOT NULL,
    PRIMARY KEY (counter, key)
);
CREATE INDEX keys_by_expiry ON {{schema}}.keys (expires);
CREATE FUNCTION {{schema}}.add_1({_declared(_ADD)}, a_patience text)
RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    answer pg_catalog.text;
    a_others pg_catalog.text;
    a_rest pg_catalog.text;
BEGIN
    -- All functions are named in full: a search_path of its own takes 10 µs a call.
    a_patience := pg_catalog.set_config('lock_timeout', a_patience, true);
    -- Only the row itself is looked at: what waits here for another writer of
    -- it sees all of the row anew, and nothing else. So does the SELECT, whose
    -- lock keeps what it finds true.
    UPDATE {{schema}}.counters AS c SET {_COUNTED}
    WHERE {_SOUND}
        AND c.writer = a_writer AND c.number < a_number
    RETURNING {_ADDED} INTO answer;
    -- After another writer there is more to it, and the more takes time even when unused:
    -- above all to decompress the others, which each expression would do anew.
    IF answer IS NULL THEN
        SELECT c.others || '' INTO a_others FROM {{schema}}.counters AS c
        WHERE {_SOUND} FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;  -- a refusal waits for nobody
        END IF;
        a_rest := {_rest("a_others")};
        UPDATE {{schema}}.counters AS c SET {_addition("a_others", "a_rest")}
        WHERE {_addable("a_rest")}
        RETURNING {_ADDED} INTO answer;
    END IF;
    RETURN answer;
END
$function$;
CREATE FUNCTION {{schema}}.add_many_1(a_many jsonb, a_patience text)
RETURNS TABLE (a_at bigint, a_answer text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('lock_timeout', a_patience, true);
    -- Always in the same order, or two of these could wait for each other.
    PERFORM 1 FROM {{schema}}.counters AS c, jsonb_array_elements(a_many) AS a (e)
        WHERE c.domain = a.e->>0 AND c.name = a.e->>1
        ORDER BY c.domain, c.name FOR NO KEY UPDATE OF c;
    RETURN QUERY UPDATE {{schema}}.counters AS c SET {_addition("c.others", _rest("c.others"))}
    FROM (SELECT m.at, {_listed(_ADD, named=True)}
        FROM jsonb_array_elements(a_many) WITH ORDINALITY AS m (e, at)
        OFFSET 0) AS a  -- or each use of a parameter would look for it in the list
    WHERE {_addable(_rest("c.others"))}
    RETURNING a.at, {_ADDED};
END
$function$;
CREATE FUNCTION {{schema}}.replace_1({_declared(_REPLACE)}, a_patience text)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    row_id bigint;
BEGIN
    PERFORM set_config('lock_timeout', a_patience, true);
    IF old_revision IS NULL THEN
        INSERT INTO {{schema}}.counters AS c (domain, name, value, deleted, horizon, writer, number,
            revision, time, before, after, codes, minimum, maximum, others)
        VALUES (a_domain, a_name, a_value, a_deleted, a_horizon, a_writer, a_number,
            a_revision, a_time, a_before, a_after, a_codes, a_minimum, a_maximum, a_others)
        ON CONFLICT DO NOTHING
        RETURNING c.id INTO row_id;
    ELSE
        UPDATE {{schema}}.counters AS c SET
            value = a_value,
            deleted = a_deleted,
            horizon = a_horizon,
            writer = a_writer,
            number = a_number,
            revision = a_revision,
            time = a_time,
            before = a_before,
            after = a_after,
            codes = a_codes,
            minimum = a_minimum,
            maximum = a_maximum,
            others = CASE
                WHEN a_others IS NOT NULL THEN a_others
                WHEN a_gone IS NULL THEN c.others
                ELSE replace(c.others, a_gone, '') || {_LATEST}
            END
        WHERE c.domain = a_domain AND c.name = a_name AND c.revision = old_revision
            AND c.writer = old_writer AND c.number = old_number
            -- What somebody else wrote since is read before it is overwritten.
            AND c.value = old_value AND c.after = old_value
            AND c.minimum IS NOT DISTINCT FROM old_minimum
            AND c.maximum IS NOT DISTINCT FROM old_maximum
        RETURNING c.id INTO row_id;
    END IF;
    IF row_id IS NOT NULL AND a_keys IS NOT NULL THEN
        DELETE FROM {{schema}}.keys AS k WHERE k.counter = row_id
            AND k.key IN (SELECT jsonb_object_keys(a_keys)) AND k.expires <= clock_timestamp();
        INSERT INTO {{schema}}.keys (counter, key, line, expires)
            SELECT row_id, e.key, e.value, clock_timestamp() + make_interval(secs => a_ttl)
            FROM jsonb_each_text(a_keys) AS e;
        DELETE FROM {{schema}}.keys AS k WHERE (k.counter, k.key) IN (
            SELECT o.counter, o.key FROM {{schema}}.keys AS o WHERE o.expires <= clock_timestamp()
            ORDER BY o.expires LIMIT {SWEEP} FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN CASE WHEN row_id IS NOT NULL THEN a_writer || ' ' || a_number ELSE 'no' END;
END
$function$;
CREATE TABLE {{schema}}.format (version integer NOT NULL);
INSERT INTO {{schema}}.format (version) VALUES ({VERSION});
"""  # noqa: S608  # made of the constants above

_AGAIN: Final = _numbered(
    f"""SET {_COUNTED}
    WHERE {_SOUND}
        AND c.writer = a_writer AND c.number < a_number AND c.revision = a_since
        AND pg_catalog.set_config('lock_timeout', a_patience, true) IS NOT NULL
    RETURNING {_ADDED}""",
    {**_ADD, "a_patience": "text"},
)
"""What the function does where nobody else has written since, which takes longer when called."""

_MANY: Final = "pg_catalog.jsonb_array_elements($1::jsonb) WITH ORDINALITY AS m (e, at)"

_FIELDS: Final = (
    *("value", "deleted", "horizon", "writer", "number", "revision", "time", "before", "after"),
    *("codes", "minimum", "maximum", "others"),
)

_COLUMNS: Final = ", ".join(f"c.{name}" for name in _FIELDS)
_OF_ITSELF: Final = _COLUMNS.removesuffix(", c.others")


class Statements(NamedTuple):
    """The statements for one schema, as they travel."""

    check: bytes
    create: bytes
    add: bytes
    add_again: bytes
    replace: bytes
    read: bytes
    read_keys: bytes
    add_many: bytes
    add_each: bytes
    replace_many: bytes
    read_many: bytes
    names: bytes
    snapshot: bytes
    domains: bytes
    purge: bytes

    @classmethod
    def of(cls, schema: str) -> Statements:
        """The statements for the schema of that name."""
        s = _quoted(schema, '"')

        def known(keys: str) -> str:
            return f"""(SELECT pg_catalog.jsonb_object_agg(k.key, k.line) FROM {s}.keys AS k
                WHERE k.counter = c.id AND k.expires > pg_catalog.clock_timestamp()
                AND k.key IN (SELECT pg_catalog.jsonb_array_elements_text({keys})))"""  # noqa: S608  # quoted

        one = f"""FROM (SELECT) AS one
            LEFT JOIN {s}.counters AS c ON c.domain = $1 AND c.name = $2"""
        live = f"""FROM (SELECT) AS one LEFT JOIN {s}.counters AS c
            ON c.domain = $1 AND NOT c.deleted ORDER BY c.name"""
        alone = "pg_catalog.pg_is_in_recovery()"
        texts = (
            f"""SELECT version, {alone}, pg_catalog.pg_backend_pid(),
                pg_catalog.current_setting('server_encoding'),
                pg_catalog.current_setting('synchronous_commit'),
                pg_catalog.current_setting('fsync'),
                pg_catalog.current_setting('full_page_writes') FROM {s}.format""",  # noqa: S608  # quoted
            creation(schema),
            f"SELECT {s}.add_1({_parameters(11)})",
            f"UPDATE {s}.counters AS c {_AGAIN}",
            f"SELECT {s}.replace_1({_parameters(25)})",
            f"SELECT {alone}, {_COLUMNS} {one}",
            f"SELECT {alone}, {_COLUMNS}, {known('$3::jsonb')} {one}",
            f"SELECT a_at, a_answer FROM {s}.add_many_1($1, $2)",  # noqa: S608  # quoted
            # In one text, of which a client sooner has the lines than a thousand rows.
            f"""SELECT pg_catalog.string_agg(a_at || ' ' || a_answer, E'\n')
                FROM {s}.add_many_1($1, $2)""",  # noqa: S608  # quoted
            f"""SELECT m.at, {s}.replace_1({_listed(_REPLACE, named=False)}, $2)
                FROM {_MANY}""",  # noqa: S608  # quoted
            f"""SELECT {alone}, m.at, {_COLUMNS}, {known("(m.e->>2)::jsonb")}
                FROM {_MANY} LEFT JOIN {s}.counters AS c
                ON c.domain = m.e->>0 AND c.name = m.e->>1""",  # noqa: S608  # quoted
            f"SELECT {alone}, c.name {live}",
            f"SELECT {alone}, c.name, {_OF_ITSELF}, '' {live}",
            f"""SELECT {alone}, d.domain FROM (SELECT) AS one LEFT JOIN (
                SELECT DISTINCT domain FROM {s}.counters WHERE NOT deleted
                ) AS d ON true ORDER BY d.domain""",  # noqa: S608  # quoted
            f"""WITH gone AS (
                    DELETE FROM {s}.counters AS c WHERE c.deleted AND c.time < $1
                    AND NOT EXISTS (SELECT FROM {s}.keys AS k WHERE k.counter = c.id
                        AND k.expires > pg_catalog.clock_timestamp())
                    RETURNING c.id
                ), forgotten AS (
                    DELETE FROM {s}.keys AS k USING gone WHERE k.counter = gone.id
                )
                SELECT pg_catalog.count(*) FROM gone""",  # noqa: S608  # quoted
        )
        return cls(*(text.encode() for text in texts))


def creation(schema: str) -> str:
    """The statements that create the schema and all that is in it: one transaction."""
    return _CREATION.format(schema=_quoted(schema, '"'), literal=_quoted(_quoted(schema, '"'), "'"))


def read_row(address: Address, fields: Sequence[str | None]) -> Record | None:
    """The record in a row of ``Statements.read``; None when there is none.

    Raises `DamagedRecordError`.
    """
    if fields[0] is None:
        return None
    row = dict(zip(_FIELDS, fields, strict=True))
    bounds = (row["minimum"] or "-", row["maximum"] or "-")
    columns = ("writer", "number", "revision", "time", "before", "after", "codes")
    latest = " ".join((*(row[name] or "" for name in columns), *bounds))
    others = row["others"] or ""
    try:
        if others and not others.endswith("\n"):
            raise DamagedRecordError(f"'others' does not end with a whole line: {others[-200:]!r}")
        ledger = Ledger(f"{others}{latest}\n")
        ledger.check()
        deleted = {"t": 1, "f": 0}.get(row["deleted"] or "")
        return Record.of(row["value"] or "", deleted, row["horizon"] or "", ledger)
    except DamagedRecordError as error:
        raise DamagedRecordError(
            f"the record of counter {address.name!r} in domain {address.domain!r} is damaged: "
            f"{error}"
        ) from error


def read_keys(address: Address, keys: Iterable[str], text: str | None) -> tuple[KeyReceipt, ...]:
    """The receipts of those ``keys`` that are in ``text``, as the database gathers them."""
    try:
        found = json.loads(text or "{}")
        return tuple(KeyReceipt.of(key, found[key]) for key in keys if key in found)
    except DamagedRecordError as error:
        raise DamagedRecordError(
            f"a receipt of counter {address.name!r} in domain {address.domain!r} is damaged: "
            f"{error}"
        ) from error


def ledger_change(old: Ledger, new: Ledger) -> tuple[str | None, str | None]:
    """What turns the other writers' lines of ``old`` into those of ``new``: (gone, others).

    ``gone`` is the line that goes when the latest one of ``old`` joins them,
    maybe empty; None when the same writer wrote again. ``others``, where that
    does not describe it, is all of the lines.
    """
    text = _without_latest(new.text)
    if not old.text:
        return None, text
    before = _without_latest(old.text)
    if text == before:
        return None, None
    gone = "".join(line for line in old.text.splitlines(keepends=True) if line not in text)
    latest = old.text[len(before) :]
    if before.replace(gone, "") + latest == text:
        return gone, None
    return None, text


def _without_latest(text: str) -> str:
    return text[: text.rfind("\n", 0, -1) + 1]


def _parameters(count: int) -> str:
    return ", ".join(f"${number}" for number in range(1, count + 1))


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark


if __name__ == "__main__":
    sys.stdout.write(creation(*sys.argv[1:] or ["truecount"]))
