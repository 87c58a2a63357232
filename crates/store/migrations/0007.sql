-- Bundles of policy that stay at one of their revisions: one row for each bundle, and for each tenant of whose sidecars
-- alone it is said. No tenant is the empty text, so that there is one row for all sidecars too.
CREATE TABLE pins (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    bundle text NOT NULL,
    tenant text NOT NULL,
    until text,
    body text NOT NULL,
    UNIQUE (bundle, tenant)
);
