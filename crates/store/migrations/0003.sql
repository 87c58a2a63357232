-- What sidecars hold of cumulative limits. Off the change log: it is what calls do all day.

-- One row for each window of a limit of which anything was leased: whoever leases from it holds this row, everybody
-- else waits.
CREATE TABLE limit_windows (
    id text NOT NULL,
    starts text NOT NULL,
    ends text NOT NULL,
    described text NOT NULL,
    PRIMARY KEY (id, starts)
);
CREATE INDEX limit_windows_ends ON limit_windows (ends);

-- One row for each slice: `amount` counts against the limit until the window ends, whatever becomes of the sidecar.
CREATE TABLE limit_leases (
    sidecar text NOT NULL,
    id text NOT NULL,
    limit_id text NOT NULL,
    starts text NOT NULL,
    ends text NOT NULL,
    step bigint NOT NULL,
    amount bigint NOT NULL,
    spent bigint NOT NULL,
    expires text NOT NULL,
    PRIMARY KEY (sidecar, id)
);
CREATE INDEX limit_leases_window ON limit_leases (limit_id, starts);
CREATE INDEX limit_leases_ends ON limit_leases (ends);
