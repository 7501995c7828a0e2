-- compatible-with: 1
-- Ids and digests are BLOB, times Unix milliseconds, yes and no 1 and 0. Texts compare byte by byte.

CREATE TABLE installation (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    id BLOB NOT NULL CHECK (length(id) = 16),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    -- The part of the hash before its salt.
    password_scheme TEXT NOT NULL,
    roles TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295),
    disabled_at INTEGER,
    created_at INTEGER NOT NULL,
    last_login_at INTEGER,
    password_changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX users_by_scheme ON users (password_scheme);

CREATE TABLE clients (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    display_name TEXT NOT NULL,
    grants TEXT NOT NULL,
    audiences TEXT NOT NULL,
    scopes TEXT NOT NULL,
    introspect TEXT NOT NULL,
    access_ttl_ms INTEGER,
    algorithm TEXT,
    token_type TEXT,
    jwks TEXT,
    epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295),
    disabled_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE client_secrets (
    client_id TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (client_id, digest)
) STRICT, WITHOUT ROWID;

-- One row per session, rewritten by every refresh. No index holds a column that a refresh changes.
CREATE TABLE sessions (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    family_digest BLOB NOT NULL CHECK (length(family_digest) = 32),
    generation INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    authenticated_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL,
    idle_expires_at INTEGER NOT NULL,
    absolute_expires_at INTEGER NOT NULL,
    scope TEXT NOT NULL,
    audience TEXT NOT NULL,
    methods TEXT NOT NULL,
    user_epoch INTEGER NOT NULL,
    client_epoch INTEGER NOT NULL,
    ended_at INTEGER,
    end_reason TEXT,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_user ON sessions (user_id, id);
CREATE INDEX sessions_of_client ON sessions (client_id, id);
CREATE INDEX sessions_by_end ON sessions (ended_at) WHERE ended_at IS NOT NULL;

-- The change feed. One writer: the order of sequence numbers is the order of commits, and AUTOINCREMENT never gives one
-- twice.
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    subject BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX changes_by_expiry ON changes (expires_at);

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    sealed BLOB NOT NULL,
    public_jwk TEXT NOT NULL,
    announced_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    retires_at INTEGER,
    gone_at INTEGER,
    withdrawn_at INTEGER,
    created_at INTEGER NOT NULL,
    CHECK ((retires_at IS NULL) = (gone_at IS NULL))
) STRICT, WITHOUT ROWID;
-- At most one key per algorithm has no successor: of many replicas that make or rotate a key at once, one wins.
CREATE UNIQUE INDEX signing_keys_newest ON signing_keys (algorithm) WHERE retires_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE admin_keys (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    name TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    actor TEXT,
    subject TEXT,
    client TEXT,
    request_id TEXT,
    detail TEXT
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, seq);
CREATE INDEX audit_by_time ON audit (at);

-- Assertions of private_key_jwt that were used once (RFC 7523 section 3, point 7).
CREATE TABLE client_assertions (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);

CREATE TABLE login_attempts (
    key BLOB PRIMARY KEY CHECK (length(key) = 32),
    failures INTEGER NOT NULL,
    window_started_at INTEGER NOT NULL,
    last_failure_at INTEGER NOT NULL,
    blocked_until INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Addresses from which an account logged in, as digests of both: no lock of the account holds for them.
CREATE TABLE known_addresses (
    key BLOB PRIMARY KEY CHECK (length(key) = 32),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX known_addresses_by_expiry ON known_addresses (expires_at);
