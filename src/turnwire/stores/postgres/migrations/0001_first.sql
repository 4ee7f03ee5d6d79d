-- Sessions, turns, the log of their events, and what the model is given.
--
-- `n` columns are ours alone: numbers that rise. The ids that callers see are the text columns. Text that people write
-- may hold lone surrogates and NUL, which PostgreSQL's text can't: it stands in JSON (bytea), or escaped by rows.py.
-- Text is compared by its bytes (COLLATE "C"), whatever the database's language. Times are epoch seconds.

-- The time: the database's own, but where a test turns a clock.
CREATE FUNCTION moment(given float8) RETURNS float8 LANGUAGE sql VOLATILE
RETURN coalesce(given, extract(epoch FROM clock_timestamp())::float8);

CREATE TABLE sessions (
    n          bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         text    COLLATE "C" NOT NULL UNIQUE,
    tenant     text    COLLATE "C" NOT NULL,
    created_at float8  NOT NULL,
    persistent boolean NOT NULL,
    ttl        bigint  NOT NULL,
    -- Not found from this moment on; its rows go when its last turn has ended (purge).
    deleted_at float8,
    -- JSON of what no query asks for: metadata, file_access, model, instructions, workspace, tools, approvals.
    data       bytea   NOT NULL
);

-- The list, newest first, a page at a time.
CREATE INDEX sessions_by_age ON sessions (tenant, created_at, id) WHERE deleted_at IS NULL;
-- What may be past its time.
CREATE INDEX sessions_by_expiry ON sessions (persistent, created_at) WHERE deleted_at IS NULL;
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;

-- Where purged sessions stood in the list: a caller may hold one as its cursor.
CREATE TABLE gone_sessions (
    id         text   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     text   COLLATE "C" NOT NULL,
    created_at float8 NOT NULL,
    removed_at float8 NOT NULL
);

CREATE INDEX gone_sessions_by_age ON gone_sessions (removed_at);

-- The part of a turn that its appends change. Half of each page is left free: an append then writes the row's new version
-- next to the old one and touches no index (a HOT update), for none of what it changes is in an index.
CREATE TABLE turns (
    n                bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               text     COLLATE "C" NOT NULL UNIQUE,
    session          bigint   NOT NULL REFERENCES sessions (n),
    status           text     NOT NULL DEFAULT 'in_progress'
                              CHECK (status IN ('in_progress', 'completed', 'error', 'cancelled')),
    created_at       float8   NOT NULL,
    ended_at         float8   CHECK ((ended_at IS NULL) = (status = 'in_progress')),
    last_seq         bigint   NOT NULL DEFAULT 0,
    -- Whoever holds the turn writes under this number; a take-over makes it one more.
    epoch            bigint   NOT NULL DEFAULT 1,
    owner            text     COLLATE "C" NOT NULL,
    lease_until      float8   NOT NULL,
    recoveries       integer  NOT NULL DEFAULT 0,
    cancel_requested boolean  NOT NULL DEFAULT false,
    pending_calls    integer  NOT NULL DEFAULT 0,
    -- 0: the events are there. 1: they are being removed, and count as gone. 2: they are gone.
    events           smallint NOT NULL DEFAULT 0 CHECK (events IN (0, 1, 2)),
    -- JSON; null: nothing was used.
    usage            bytea,
    error            text
) WITH (fillfactor = 50);

-- One running turn to a session. This index is the only busy check that there is.
CREATE UNIQUE INDEX one_running_turn ON turns (session) WHERE ended_at IS NULL;
CREATE INDEX turns_by_session ON turns (session, n);
CREATE INDEX turns_with_events ON turns (ended_at) WHERE ended_at IS NOT NULL AND events < 2;

-- The part of a turn that is written once: at its begin, and its content at its end.
CREATE TABLE turn_bodies (
    turn       bigint PRIMARY KEY REFERENCES turns (n),
    message_id text   NOT NULL,
    message    bytea  NOT NULL,
    model      text,
    settings   bytea  NOT NULL,
    content    bytea
);

-- The log: what one commit added to one turn, as the bytes that callers get. No foreign key here nor in history and
-- calls: whoever writes them has found the turn by its fence, in the same transaction.
CREATE TABLE segments (
    turn      bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    -- Over the place and the frames, see stores/segments.py.
    checksum  bigint NOT NULL,
    frames    bytea  NOT NULL,
    PRIMARY KEY (turn, first_seq)
);

-- What the model is given, in the format of the agent library. Oldest first is by `n`. A summary stands for the first
-- `upto` entries of its session, summaries not counted; the latest one counts.
CREATE TABLE history (
    n       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session bigint  NOT NULL,
    turn    bigint  NOT NULL,
    kind    text    NOT NULL CHECK (kind IN ('prompt', 'response', 'return', 'summary')),
    upto    bigint  CHECK ((kind = 'summary') = (upto IS NOT NULL)),
    format  integer NOT NULL,
    data    bytea   NOT NULL
);

CREATE INDEX history_by_session ON history (session, n);

CREATE TABLE idempotency_keys (
    tenant      text   COLLATE "C" NOT NULL,
    key         text   COLLATE "C" NOT NULL,
    fingerprint bytea  NOT NULL,
    session_id  text   NOT NULL,
    turn_id     text   NOT NULL,
    created_at  float8 NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Access keys, by their hash; never their text.
CREATE TABLE access_keys (
    digest     bytea  NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    created_at float8 NOT NULL
);

-- Random bytes that the server signs with.
CREATE TABLE secrets (
    name  text  NOT NULL PRIMARY KEY,
    value bytea NOT NULL
);

-- Calls that wait, or waited, for their caller: its answer is a row before the turn acts on it.
CREATE TABLE calls (
    turn     bigint  NOT NULL,
    id       text    COLLATE "C" NOT NULL,
    kind     text    NOT NULL CHECK (kind IN ('tool', 'approval')),
    given_up boolean NOT NULL DEFAULT false,
    answer   bytea,
    PRIMARY KEY (turn, id),
    CHECK (NOT given_up OR answer IS NULL)
);

CREATE INDEX calls_by_id ON calls (id);
