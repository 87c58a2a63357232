//! The fuzz targets: functions of bytes that panic where a law does not hold. The fuzzer calls them with what it makes
//! up, the stable tests with the committed seeds.

mod authority;
mod bundle;
mod certificate;
mod chain;
mod json;
mod ledger;
mod path;
mod token;

/// What a target does with bytes.
type Body = fn(&[u8]);

/// Every target, by the name of its seeds' directory.
pub(crate) const TARGETS: &[(&str, Body)] = &[
    ("json", json::json),
    ("path", path::path),
    ("pattern", path::pattern),
    ("authority", authority::authority),
    ("token", token::token),
    ("chain", chain::chain),
    ("certificate", certificate::certificate),
    ("keys", token::keys),
    ("bundle", bundle::bundle),
    ("head", ledger::head),
    ("ledger", ledger::ledger),
];
