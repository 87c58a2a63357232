//! The reading of a configuration: expansion and unknown keys, between the YAML parser and typed sections.

#[path = "../../crates/countersign/src/config/expansion.rs"]
mod expansion;
#[path = "../../crates/countersign/src/config/reading.rs"]
mod reading;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::reading::Reading;
use crate::environment::Environment;

/// One of everything that sections are made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by a parser that is under test, or used by the binary only")]
struct Sections {
    issuers: Option<Vec<token::IssuerConfig>>,
    ledger: Option<audit::LedgerConfig>,
    defaults: Option<token::Defaults>,
    text: Option<BTreeMap<String, String>>,
    number: Option<i64>,
    yes: Option<bool>,
}

/// No document makes the reader panic; an unknown key has a place; text without a dollar sign reads as it stands.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let environment: Environment =
        [("HOST", "orders.example"), ("EVIL", "a: {b: ]}\n\"'${HOST}")].into_iter().collect();
    let reading = Reading::new(&environment);
    let read = serde_saphyr::with_deserializer_from_str(text, |inner| Sections::deserialize(reading.of(inner)));
    let unknown = reading.into_unknown();
    for key in &unknown {
        assert!(key.line >= 1 && key.column >= 1 && !key.known.contains(&key.key.as_str()), "{key:?}");
    }
    if let Ok(sections) = read {
        if !text.contains('$') && unknown.is_empty() {
            let plain = serde_saphyr::from_str::<Sections>(text).expect("it reads without expansion too");
            assert_eq!(format!("{sections:?}"), format!("{plain:?}"));
        }
        for issuer in sections.issuers.into_iter().flatten() {
            issuer.resolve().ok();
        }
    }
}
