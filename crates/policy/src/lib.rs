//! What Rego says: input, engine, bundles, decisions.
