-- Sessions, turns, the log of their events, and what the model is given.
--
-- `n` columns are ours alone: small numbers that rise, so that the rows of turns that run now lie on few pages, next
-- to each other, and a commit of many turns writes few pages. The ids that callers see are the text columns.
-- Text that people write may hold lone surrogates, which SQLite's text can't: it stands in JSON (BLOB columns), or
-- escaped by rows.py. Times are epoch seconds.

-- 'twir': this file is turnwire's.
PRAGMA application_id = 0x74776972;

CREATE TABLE sessions (
    n          INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    created_at REAL    NOT NULL,
    persistent INTEGER NOT NULL CHECK (persistent IN (0, 1)),
    ttl        INTEGER NOT NULL,
    -- Not found from this moment on; its rows go when its last turn has ended (purge).
    deleted_at REAL,
    -- JSON of what no query asks for: metadata, file_access, model, instructions, workspace, tools, approvals.
    data       BLOB    NOT NULL
) STRICT;

-- The list, newest first, a page at a time.
CREATE INDEX sessions_by_age ON sessions (tenant, created_at, id) WHERE deleted_at IS NULL;
-- What may be past its time.
CREATE INDEX sessions_by_expiry ON sessions (persistent, created_at) WHERE deleted_at IS NULL;
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;

-- Where purged sessions stood in the list: a caller may hold one as its cursor.
CREATE TABLE gone_sessions (
    id         TEXT NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    created_at REAL NOT NULL,
    removed_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX gone_sessions_by_age ON gone_sessions (removed_at);

-- The part of a turn that its appends change: kept small, for SQLite writes a row anew when a column of it changes.
CREATE TABLE turns (
    n                INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    session          INTEGER NOT NULL REFERENCES sessions (n),
    status           TEXT    NOT NULL DEFAULT 'in_progress'
                             CHECK (status IN ('in_progress', 'completed', 'error', 'cancelled')),
    created_at       REAL    NOT NULL,
    ended_at         REAL    CHECK ((ended_at IS NULL) = (status = 'in_progress')),
    last_seq         INTEGER NOT NULL DEFAULT 0,
    -- Whoever holds the turn writes under this number; a take-over makes it one more.
    epoch            INTEGER NOT NULL DEFAULT 1,
    owner            TEXT    NOT NULL,
    lease_until      REAL    NOT NULL,
    recoveries       INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    pending_calls    INTEGER NOT NULL DEFAULT 0,
    -- 0: the events are there. 1: they are being removed, and count as gone. 2: they are gone.
    events           INTEGER NOT NULL DEFAULT 0 CHECK (events IN (0, 1, 2)),
    -- JSON; null: nothing was used.
    usage            BLOB,
    error            TEXT
) STRICT;

-- One running turn to a session. This index is the only busy check that there is.
CREATE UNIQUE INDEX one_running_turn ON turns (session) WHERE ended_at IS NULL;
CREATE INDEX turns_by_session ON turns (session);
CREATE INDEX turns_with_events ON turns (ended_at) WHERE ended_at IS NOT NULL AND events < 2;

-- The part of a turn that is written once: at its begin, and its content at its end.
CREATE TABLE turn_bodies (
    turn       INTEGER PRIMARY KEY REFERENCES turns (n),
    message_id TEXT    NOT NULL,
    message    BLOB    NOT NULL,
    model      TEXT,
    settings   BLOB    NOT NULL,
    content    BLOB
) STRICT;

-- The log: what one commit added to one turn, as the bytes that callers get. Rows stand in the order of the commits:
-- those of one commit share their pages. By key (WITHOUT ROWID) each turn would have a page of its own to be written
-- in each commit: measured, that costs 2.5 times the bytes and twice the CPU at 200 turns.
CREATE TABLE segments (
    turn      INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    -- Over the place and the frames, see log.py.
    checksum  INTEGER NOT NULL,
    frames    BLOB    NOT NULL,
    PRIMARY KEY (turn, first_seq)
) STRICT;

-- What the model is given, in the format of the agent library. Oldest first is by `n`. A summary stands for the first
-- `upto` entries of its session, summaries not counted; the latest one counts.
CREATE TABLE history (
    n       INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions (n),
    turn    INTEGER NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('prompt', 'response', 'return', 'summary')),
    upto    INTEGER CHECK ((kind = 'summary') = (upto IS NOT NULL)),
    format  INTEGER NOT NULL,
    data    BLOB    NOT NULL
) STRICT;

CREATE INDEX history_by_session ON history (session);
CREATE INDEX summaries_by_session ON history (session) WHERE kind = 'summary';

CREATE TABLE idempotency_keys (
    tenant      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    session_id  TEXT NOT NULL,
    turn_id     TEXT NOT NULL,
    created_at  REAL NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Access keys, by their hash; never their text.
CREATE TABLE access_keys (
    digest     BLOB NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Random bytes that the server signs with.
CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Calls that wait, or waited, for their caller: its answer is a row before the turn acts on it.
CREATE TABLE calls (
    turn     INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('tool', 'approval')),
    given_up INTEGER NOT NULL DEFAULT 0 CHECK (given_up IN (0, 1)),
    answer   BLOB,
    PRIMARY KEY (turn, id),
    CHECK (NOT given_up OR answer IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX calls_by_id ON calls (id);
