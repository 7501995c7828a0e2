-- compatible-with: 1
-- When earlier refresh tokens of a session were superseded (RetryMarks in src/domain/session.rs). Release 0.1.0 does not write
-- these columns: its rotations leave marked_generation behind, which says that the marks are out of date.
ALTER TABLE sessions ADD COLUMN marked_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN floor_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN middle_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN middle_at INTEGER NOT NULL DEFAULT 0;
