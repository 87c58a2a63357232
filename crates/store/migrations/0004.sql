-- The ledgers of enrolled sidecars, each with the newest head that was anchored here. Off the change log, but for which
-- ledgers there are.
CREATE TABLE ledgers (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    changed bigint NOT NULL,
    sidecar text NOT NULL,
    tenants text NOT NULL,
    verifying_key text NOT NULL,
    enrolled text NOT NULL,
    size bigint NOT NULL,
    tree text NOT NULL,
    note text,
    anchored text
);

-- Some of the heads before it: they say from where on a ledger is another one.
CREATE TABLE ledger_heads (
    ledger text NOT NULL,
    size bigint NOT NULL,
    note text NOT NULL,
    anchored text NOT NULL,
    PRIMARY KEY (ledger, size)
);
