-- The authority's signing keys, public parts only: from when and until when each signs, and how long it stays published.
CREATE TABLE signing_keys (
    id text PRIMARY KEY,
    created bigint NOT NULL UNIQUE,
    jwk text NOT NULL,
    published text NOT NULL,
    signs_from text NOT NULL,
    signs_until text,
    published_until text,
    withdrawn text
);

-- Whoever joins by what it is may join again.
CREATE INDEX sidecars_enrolled_by ON sidecars (enrolled_by);
