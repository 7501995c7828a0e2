-- compatible-with: 1
-- The replica that sweeps: one at a time for each kind of sweep. Release 0.1.0 sweeps on every replica, which is harmless.
CREATE TABLE sweeps (
    name TEXT COLLATE "C" PRIMARY KEY,
    -- The key after which the next batch of a round begins.
    place BYTEA NOT NULL,
    -- From this time on another replica may take the sweep.
    next_at BIGINT NOT NULL
);

-- A client that is created again starts above the revoked epoch of its predecessor, which the feed holds.
CREATE INDEX IF NOT EXISTS changes_of_client ON changes (subject, epoch) WHERE kind = 'client';
