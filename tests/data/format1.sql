-- A file as truecount 0.1.0 wrote it: format 1. Never changed; later versions must read it.
PRAGMA application_id = 1413697108;
PRAGMA user_version = 1;
CREATE TABLE counters (
    id       INTEGER PRIMARY KEY,
    domain   TEXT NOT NULL,
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    deleted  INTEGER NOT NULL,
    ledger   TEXT NOT NULL,
    UNIQUE (domain, name)
);
CREATE TABLE keys (
    counter   INTEGER NOT NULL REFERENCES counters (id),
    key       TEXT NOT NULL,
    text      TEXT NOT NULL,
    before    TEXT NOT NULL,
    after     TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    PRIMARY KEY (counter, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_expiry ON keys (expires);
INSERT INTO counters VALUES (1, 'mydomain', 'counter1', '42', 0, '1795000000000000
Zm9vYmFyYmF6 1 1795000000000000 1795000000000000 0 2 + 0 -
cXV4cXV4cXV4 7 1795000000000009 1795176000000000 2 42 +m 0 -
');
INSERT INTO counters VALUES (2, 'mydomain', 'long',
    '1' || hex(zeroblob(249)) || '0', 0, '1795000000000000
cXV4cXV4cXV4 8 1795000000000000 1795176000000000 0 1' || hex(zeroblob(249)) || '0 + - -
');
INSERT INTO counters VALUES (3, 'mydomain', 'deleted', '5', 1, '1795000000000000
cXV4cXV4cXV4 9 1795000000000001 1795176000000000 5 5 + - -
');
INSERT INTO keys VALUES (1, 'order-17', 'add 40', '2', '42', 1795000000000009, 1795176000000000,
    9999999999999999);
