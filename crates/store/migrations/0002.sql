-- What identity providers last said of users, so that work which goes on without them stays within what they may do.
CREATE TABLE users (
    issuer text NOT NULL,
    id text NOT NULL,
    tenant text NOT NULL,
    claims text NOT NULL,
    as_of text NOT NULL,
    PRIMARY KEY (issuer, id, tenant)
);
