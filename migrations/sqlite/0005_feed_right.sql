-- compatible-with: 1
-- What a client may read of the revocation feed: none, revocations or edge.

ALTER TABLE clients ADD COLUMN feed TEXT NOT NULL DEFAULT 'none';
