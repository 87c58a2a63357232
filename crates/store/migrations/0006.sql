-- The ledgers that changes are written to, each with how far it has come: what they still need is kept.
CREATE TABLE recorders (
    id text PRIMARY KEY,
    generation text NOT NULL,
    position bigint NOT NULL,
    seen text NOT NULL
);

-- When a replica last looked for what may be forgotten: one does at a time.
CREATE TABLE upkeep (
    id bigint PRIMARY KEY,
    at text NOT NULL
);

-- Whether this state was ever restored from a backup, which the log says only for as long as it is kept.
ALTER TABLE head ADD COLUMN restored bigint NOT NULL DEFAULT 0;
UPDATE head SET restored = 1 WHERE EXISTS (SELECT 1 FROM changes WHERE kind = 'generation.began');

-- The last position that somebody was told of and that is not there any more, where that happened; 0, where not.
ALTER TABLE head ADD COLUMN lost bigint NOT NULL DEFAULT 0;

-- Who follows reads the withdrawals themselves.
DROP INDEX changes_followed;

-- By what makes them old.
CREATE INDEX withdrawals_until ON withdrawals (kind, until);
CREATE INDEX tasks_expires ON tasks (expires);
CREATE INDEX grants_expires ON grants (expires);
