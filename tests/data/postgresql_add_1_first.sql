CREATE FUNCTION "earlier".add_1(a_domain text, a_name text, a_writer text, a_number bigint, a_since bigint, a_total numeric, a_lowest numeric, a_highest numeric, a_expected numeric, a_now bigint, a_patience text)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    answer text;
BEGIN
    PERFORM set_config('lock_timeout', a_patience, true);
    -- Only the row itself is looked at: what waits here for another writer of
    -- it sees all of the row anew, and nothing else.
    UPDATE "earlier".counters AS c SET
        value = c.value + a_total,
        horizon = CASE
            WHEN c.writer = a_writer OR strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0 OR length(c.others) - length(replace(c.others, E'\n', '')) < 63 THEN c.horizon
            ELSE greatest(c.horizon, split_part(c.others, ' ', 3)::bigint)
        END,
        writer = a_writer,
        number = a_number,
        revision = c.revision + 1,
        time = greatest(c.time, a_now),
        before = c.value,
        after = c.value + a_total,
        codes = '+',
        others = CASE
            WHEN c.writer = a_writer THEN c.others
            WHEN strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0 THEN left(c.others, strpos(E'\n' || c.others, E'\n' || a_writer || ' ') - 1)
                || substr(c.others, strpos(E'\n' || c.others, E'\n' || a_writer || ' ') + strpos(substr(c.others, strpos(E'\n' || c.others, E'\n' || a_writer || ' ')), E'\n'))
                || concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before, c.after,
            c.codes, coalesce(c.minimum::text, '-'), coalesce(c.maximum::text, '-')) || E'\n'
            WHEN length(c.others) - length(replace(c.others, E'\n', '')) < 63 THEN c.others || concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before, c.after,
            c.codes, coalesce(c.minimum::text, '-'), coalesce(c.maximum::text, '-')) || E'\n'
            ELSE substr(c.others, strpos(c.others, E'\n') + 1) || concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before, c.after,
            c.codes, coalesce(c.minimum::text, '-'), coalesce(c.maximum::text, '-')) || E'\n'
        END
    WHERE c.domain = a_domain AND c.name = a_name AND NOT c.deleted
        AND c.value = c.after AND scale(c.value) = 0
        AND (a_expected IS NULL OR c.value = a_expected)
        AND c.value + a_lowest > -1e500 AND c.value + a_highest < 1e500
        AND (c.minimum IS NULL OR c.value + a_lowest >= c.minimum AND scale(c.minimum) = 0)
        AND (c.maximum IS NULL OR c.value + a_highest <= c.maximum AND scale(c.maximum) = 0)
        AND CASE
            WHEN c.writer = a_writer THEN c.number < a_number
            WHEN strpos(E'\n' || c.others, E'\n' || a_writer || ' ') > 0
                THEN split_part(substr(c.others, strpos(E'\n' || c.others, E'\n' || a_writer || ' ')), ' ', 2)::bigint < a_number
            ELSE c.horizon <= a_since
        END
    RETURNING concat_ws(' ', c.writer, c.number, c.revision, c.time, c.before,
        coalesce(c.minimum::text, '-'), coalesce(c.maximum::text, '-')) INTO answer;
    RETURN answer;
END
$function$;
