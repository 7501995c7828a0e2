-- compatible-with: 1
-- Ids and digests are BYTEA, times Unix milliseconds, yes and no 1 and 0. Texts that are compared or ordered are
-- COLLATE "C": byte by byte, as in SQLite, whatever the locale of the server.

CREATE TABLE installation (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    id BYTEA NOT NULL CHECK (length(id) = 16),
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id BYTEA PRIMARY KEY CHECK (length(id) = 16),
    username TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    -- The part of the hash before its salt.
    password_scheme TEXT COLLATE "C" NOT NULL,
    roles TEXT NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295),
    disabled_at BIGINT,
    created_at BIGINT NOT NULL,
    last_login_at BIGINT,
    password_changed_at BIGINT NOT NULL
) WITH (fillfactor = 85);
CREATE INDEX users_by_scheme ON users (password_scheme);

CREATE TABLE clients (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT NOT NULL,
    display_name TEXT NOT NULL,
    grants TEXT NOT NULL,
    audiences TEXT NOT NULL,
    scopes TEXT NOT NULL,
    introspect TEXT NOT NULL,
    access_ttl_ms BIGINT,
    algorithm TEXT,
    token_type TEXT,
    jwks TEXT,
    epoch BIGINT NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295),
    disabled_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE client_secrets (
    client_id TEXT COLLATE "C" NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    digest BYTEA NOT NULL CHECK (length(digest) = 32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    PRIMARY KEY (client_id, digest)
);

-- One row per session, rewritten by every refresh. No index holds a column that a refresh changes, and a fifth of each
-- page is left free, so that PostgreSQL can do that in place (heap-only tuples).
CREATE TABLE sessions (
    id BYTEA PRIMARY KEY CHECK (length(id) = 16),
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id TEXT COLLATE "C" NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    family_digest BYTEA NOT NULL CHECK (length(family_digest) = 32),
    generation BIGINT NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    authenticated_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    rotated_at BIGINT NOT NULL,
    idle_expires_at BIGINT NOT NULL,
    absolute_expires_at BIGINT NOT NULL,
    scope TEXT NOT NULL,
    audience TEXT NOT NULL,
    methods TEXT NOT NULL,
    user_epoch BIGINT NOT NULL,
    client_epoch BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX sessions_of_user ON sessions (user_id, id);
CREATE INDEX sessions_of_client ON sessions (client_id, id);
CREATE INDEX sessions_by_end ON sessions (ended_at) WHERE ended_at IS NOT NULL;

-- The change feed. Sequence numbers are taken before a commit and so can appear out of order; followers go by the
-- transaction that wrote a row and by what their last snapshot could see of it.
CREATE TABLE changes (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    kind TEXT NOT NULL,
    subject BYTEA NOT NULL,
    epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX changes_by_transaction ON changes (xid);
CREATE INDEX changes_by_expiry ON changes (expires_at);

CREATE TABLE signing_keys (
    kid TEXT COLLATE "C" PRIMARY KEY,
    algorithm TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    public_jwk TEXT NOT NULL,
    announced_at BIGINT NOT NULL,
    signs_from BIGINT NOT NULL,
    retires_at BIGINT,
    gone_at BIGINT,
    withdrawn_at BIGINT,
    created_at BIGINT NOT NULL,
    CHECK ((retires_at IS NULL) = (gone_at IS NULL))
);
-- At most one key per algorithm has no successor: of many replicas that make or rotate a key at once, one wins.
CREATE UNIQUE INDEX signing_keys_newest ON signing_keys (algorithm) WHERE retires_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE admin_keys (
    id BYTEA PRIMARY KEY CHECK (length(id) = 16),
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    digest BYTEA NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);

CREATE TABLE audit (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    event TEXT NOT NULL,
    actor TEXT,
    subject TEXT,
    client TEXT,
    request_id TEXT,
    detail TEXT
);
CREATE INDEX audit_by_subject ON audit (subject, seq);
CREATE INDEX audit_by_time ON audit (at);

-- Assertions of private_key_jwt that were used once (RFC 7523 section 3, point 7).
CREATE TABLE client_assertions (
    digest BYTEA PRIMARY KEY CHECK (length(digest) = 32),
    expires_at BIGINT NOT NULL
);
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);

CREATE TABLE login_attempts (
    key BYTEA PRIMARY KEY CHECK (length(key) = 32),
    failures BIGINT NOT NULL,
    window_started_at BIGINT NOT NULL,
    last_failure_at BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) WITH (fillfactor = 80);

-- Addresses from which an account logged in, as digests of both: no lock of the account holds for them.
CREATE TABLE known_addresses (
    key BYTEA PRIMARY KEY CHECK (length(key) = 32),
    expires_at BIGINT NOT NULL
);
CREATE INDEX known_addresses_by_expiry ON known_addresses (expires_at);
