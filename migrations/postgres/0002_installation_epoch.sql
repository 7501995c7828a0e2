-- compatible-with: 1
-- Tokens and sessions below the installation's epoch are inactive. Release 0.1.0 opens sessions of epoch 0.

ALTER TABLE installation ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 4294967295);
ALTER TABLE sessions ADD COLUMN installation_epoch BIGINT NOT NULL DEFAULT 0;

INSERT INTO installation (singleton, id, created_at)
VALUES (1, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), (extract(epoch FROM now()) * 1000)::bigint)
ON CONFLICT (singleton) DO NOTHING;
