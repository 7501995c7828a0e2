-- compatible-with: 1
-- The user and the session that an event concerns, and one index for each filter of a search.
--
-- Writes wait while an index is built: about a second for a million events. Where that is too long, run the CREATE INDEX
-- statements for event, actor and client beforehand; this file then finds them there.

ALTER TABLE audit ADD COLUMN user_id TEXT;
ALTER TABLE audit ADD COLUMN session TEXT;

CREATE INDEX IF NOT EXISTS audit_by_event ON audit (event, seq);
CREATE INDEX IF NOT EXISTS audit_by_actor ON audit (actor, seq);
CREATE INDEX IF NOT EXISTS audit_by_client ON audit (client, seq) WHERE client IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_user ON audit (user_id, seq) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_session ON audit (session, seq) WHERE session IS NOT NULL;
