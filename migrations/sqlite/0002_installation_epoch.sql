-- compatible-with: 1
-- Tokens and sessions below the installation's epoch are inactive. Release 0.1.0 opens sessions of epoch 0.

ALTER TABLE installation ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295);
ALTER TABLE sessions ADD COLUMN installation_epoch INTEGER NOT NULL DEFAULT 0;

INSERT INTO installation (singleton, id, created_at)
VALUES (1, randomblob(16), CAST(unixepoch('subsec') * 1000 AS INTEGER))
ON CONFLICT (singleton) DO NOTHING;
