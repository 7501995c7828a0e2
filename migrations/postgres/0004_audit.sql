-- compatible-with: 1
-- The user and the session that an event concerns, and one index for each filter of a search.
--
-- An index blocks writes to the trail while it is built: about two seconds for a million events. Where that is too long,
-- run the statements below beforehand, each index with CREATE INDEX CONCURRENTLY; this file then finds them there.

ALTER TABLE audit ADD COLUMN IF NOT EXISTS user_id TEXT;
ALTER TABLE audit ADD COLUMN IF NOT EXISTS session TEXT;

CREATE INDEX IF NOT EXISTS audit_by_event ON audit (event, seq);
CREATE INDEX IF NOT EXISTS audit_by_actor ON audit (actor, seq);
CREATE INDEX IF NOT EXISTS audit_by_client ON audit (client, seq) WHERE client IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_user ON audit (user_id, seq) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_session ON audit (session, seq) WHERE session IS NOT NULL;
