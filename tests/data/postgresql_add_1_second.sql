CREATE FUNCTION "earlier".add_1(a_domain text, a_name text, a_writer text, a_number bigint, a_since bigint, a_total numeric, a_lowest numeric, a_highest numeric, a_expected numeric, a_now bigint, a_patience text)
RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    answer pg_catalog.text;
BEGIN
    -- All functions are named in full: a search_path of its own takes 10 µs a call.
    a_patience := pg_catalog.set_config('lock_timeout', a_patience, true);
    -- Only the row itself is looked at: what waits here for another writer of
    -- it sees all of the row anew, and nothing else.
    UPDATE "earlier".counters AS c SET 
        value = c.value + a_total,
        writer = a_writer,
        number = a_number,
        revision = c.revision + 1,
        time = greatest(c.time, a_now),
        before = c.value,
        after = c.value + a_total,
        codes = '+'
    WHERE c.domain = a_domain AND c.name = a_name AND NOT c.deleted
        AND c.value = c.after AND pg_catalog.scale(c.value) = 0
        AND (a_expected IS NULL OR c.value = a_expected)
        AND c.value + a_lowest > -1e500 AND c.value + a_highest < 1e500
        AND (c.minimum IS NULL
            OR c.value + a_lowest >= c.minimum AND pg_catalog.scale(c.minimum) = 0)
        AND (c.maximum IS NULL
            OR c.value + a_highest <= c.maximum AND pg_catalog.scale(c.maximum) = 0)
        AND c.writer = a_writer AND c.number < a_number
    RETURNING pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
        coalesce(c.minimum::pg_catalog.text, '-'), coalesce(c.maximum::pg_catalog.text, '-')) INTO answer;
    -- After another writer there is more to it, and the more takes time even when unused.
    IF answer IS NULL THEN
        UPDATE "earlier".counters AS c SET 
        value = c.value + a_total,
        writer = a_writer,
        number = a_number,
        revision = c.revision + 1,
        time = greatest(c.time, a_now),
        before = c.value,
        after = c.value + a_total,
        codes = '+',
        horizon = CASE
            WHEN c.writer = a_writer OR pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0 OR pg_catalog.length(c.others)
                - pg_catalog.length(pg_catalog.replace(c.others, E'\n', '')) < 63 THEN c.horizon
            ELSE greatest(c.horizon, pg_catalog.split_part(c.others, ' ', 3)::bigint)
        END,
        others = CASE
            WHEN c.writer = a_writer THEN c.others
            WHEN pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0 THEN pg_catalog.left(c.others, pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ') - 1)
                || pg_catalog.substr(c.others, pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ')
                    + pg_catalog.strpos(pg_catalog.substr(c.others, pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ')), E'\n'))
                || pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
            c.after, c.codes, coalesce(c.minimum::pg_catalog.text, '-'),
            coalesce(c.maximum::pg_catalog.text, '-')) || E'\n'
            WHEN pg_catalog.length(c.others)
                - pg_catalog.length(pg_catalog.replace(c.others, E'\n', '')) < 63 THEN c.others || pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
            c.after, c.codes, coalesce(c.minimum::pg_catalog.text, '-'),
            coalesce(c.maximum::pg_catalog.text, '-')) || E'\n'
            ELSE pg_catalog.substr(c.others, pg_catalog.strpos(c.others, E'\n') + 1) || pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
            c.after, c.codes, coalesce(c.minimum::pg_catalog.text, '-'),
            coalesce(c.maximum::pg_catalog.text, '-')) || E'\n'
        END
        WHERE c.domain = a_domain AND c.name = a_name AND NOT c.deleted
        AND c.value = c.after AND pg_catalog.scale(c.value) = 0
        AND (a_expected IS NULL OR c.value = a_expected)
        AND c.value + a_lowest > -1e500 AND c.value + a_highest < 1e500
        AND (c.minimum IS NULL
            OR c.value + a_lowest >= c.minimum AND pg_catalog.scale(c.minimum) = 0)
        AND (c.maximum IS NULL
            OR c.value + a_highest <= c.maximum AND pg_catalog.scale(c.maximum) = 0)
        AND CASE
            WHEN c.writer = a_writer THEN c.number < a_number
            WHEN pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0 THEN pg_catalog.split_part(
                pg_catalog.substr(c.others, pg_catalog.strpos(E'\n' || c.others, E'\n' || a_writer || ' ')), ' ', 2)::bigint < a_number
            ELSE c.horizon <= a_since
        END
        RETURNING pg_catalog.concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
        coalesce(c.minimum::pg_catalog.text, '-'), coalesce(c.maximum::pg_catalog.text, '-')) INTO answer;
    END IF;
    RETURN answer;
END
$function$;
