-- Everything the authority has to remember. One text for SQLite and PostgreSQL: text and bigint only.
-- Times are RFC 3339 in UTC with nine digits, so that their order is that of the text. Sets and structures are JSON.

-- The one row that every write takes its position from: whoever holds it writes, everybody else waits.
CREATE TABLE head (
    id bigint PRIMARY KEY,
    position bigint NOT NULL,
    generation text NOT NULL,
    began text NOT NULL
);

-- What was committed, in the order of commit and without gaps.
CREATE TABLE changes (
    position bigint PRIMARY KEY,
    at text NOT NULL,
    made_by text NOT NULL,
    reason text,
    kind text NOT NULL,
    tenant text,
    until text,
    body text NOT NULL
);
CREATE INDEX changes_followed ON changes (kind, position);

CREATE TABLE withdrawals (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    kind text NOT NULL,
    target text NOT NULL,
    tenant text,
    until text NOT NULL,
    body text NOT NULL
);
CREATE INDEX withdrawals_target ON withdrawals (target);

CREATE TABLE agents (
    issuer text NOT NULL,
    id text NOT NULL,
    created bigint NOT NULL UNIQUE,
    changed bigint NOT NULL,
    registered text NOT NULL,
    owner text NOT NULL,
    description text,
    actions text NOT NULL,
    tenants text NOT NULL,
    status text NOT NULL,
    credentials text NOT NULL,
    last_seen text,
    PRIMARY KEY (issuer, id)
);

CREATE TABLE grants (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    changed bigint NOT NULL,
    user_issuer text NOT NULL,
    user_id text NOT NULL,
    agent_issuer text NOT NULL,
    agent_id text NOT NULL,
    authority text NOT NULL,
    stage text NOT NULL,
    presence text NOT NULL,
    expires text NOT NULL,
    redelegate bigint NOT NULL,
    status text NOT NULL,
    given text NOT NULL,
    given_by text NOT NULL
);
CREATE INDEX grants_user ON grants (user_issuer, user_id, created);
CREATE INDEX grants_agent ON grants (agent_issuer, agent_id, created);

CREATE TABLE tasks (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    changed bigint NOT NULL,
    grant_id text NOT NULL,
    run text NOT NULL,
    tenant text NOT NULL,
    session text,
    use_case text,
    initiated_by text NOT NULL,
    justification text,
    sensitivity text NOT NULL,
    stage text NOT NULL,
    presence text NOT NULL,
    expires text NOT NULL,
    status text NOT NULL,
    started text NOT NULL,
    ended text
);
CREATE INDEX tasks_grant ON tasks (grant_id, created);
CREATE INDEX tasks_run ON tasks (run, created);
CREATE INDEX tasks_session ON tasks (session);

CREATE TABLE sidecars (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    changed bigint NOT NULL,
    name text NOT NULL,
    keys text NOT NULL,
    tenants text NOT NULL,
    tools text,
    agents text,
    enrolled text NOT NULL,
    enrolled_by text NOT NULL,
    status text NOT NULL,
    last_seen text
);

-- The secret itself is never here.
CREATE TABLE join_tokens (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    digest text NOT NULL UNIQUE,
    name text,
    tenants text NOT NULL,
    tools text,
    agents text,
    made_by text NOT NULL,
    expires text NOT NULL,
    used_by text,
    withdrawn text
);

-- What was last applied of the file with declarations: only what changed in the file since then changes anything here.
CREATE TABLE declared (
    kind text NOT NULL,
    name text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Answers to writes that carried an idempotency key.
CREATE TABLE answers (
    made_by text NOT NULL,
    idempotency text NOT NULL,
    request text NOT NULL,
    position bigint NOT NULL,
    value text NOT NULL,
    at text NOT NULL,
    PRIMARY KEY (made_by, idempotency)
);
CREATE INDEX answers_at ON answers (at);

-- Names that may be used once. Off the change log.
CREATE TABLE used (
    space text NOT NULL,
    id text NOT NULL,
    until text NOT NULL,
    PRIMARY KEY (space, id)
);
CREATE INDEX used_until ON used (until);

-- Whatever ended before this may have been forgotten.
CREATE TABLE forgotten (
    id bigint PRIMARY KEY,
    until text NOT NULL
);
