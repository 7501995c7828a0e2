-- compatible-with: 1
-- What a client may read of the revocation feed: none, revocations or edge.

ALTER TABLE clients ADD COLUMN IF NOT EXISTS feed TEXT NOT NULL DEFAULT 'none';
