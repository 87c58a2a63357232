-- Calls under idempotency keys that were charged to cumulative limits, so that a sidecar charges none that another one
-- did. Off the change log: it is what calls do all day.
CREATE TABLE charges (
    id text PRIMARY KEY,
    sidecar text NOT NULL,
    decision text NOT NULL,
    -- Whether another call goes on it: it is not given back then.
    repeated bigint NOT NULL,
    until text NOT NULL
);
CREATE INDEX charges_sidecar ON charges (sidecar);
CREATE INDEX charges_until ON charges (until);

-- Sidecars that cannot write their ledgers, each since when; and whether an alert of that is on record.
CREATE TABLE ledger_outages (
    sidecar text PRIMARY KEY,
    ledger text NOT NULL,
    since text NOT NULL,
    why text NOT NULL,
    recorded bigint NOT NULL
);
