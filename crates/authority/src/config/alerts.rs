//! The `alerts` part of the section: what is done by rule.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

/// What is done by rule where a sidecar is alarmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertsConfig {
    /// Suspend the agent on these alerts of an enrolled sidecar that serves it: only where the use proved whose it was, a
    /// token bound to a certificate over a connection with that certificate.
    #[serde(default)]
    pub suspend: BTreeSet<SuspendOn>,
}

/// An alert that an agent may be suspended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuspendOn {
    /// A token was used after it, or what it was issued for, had been taken back.
    UsedAfterEnd,
}

impl SuspendOn {
    /// The word for it, as records have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::UsedAfterEnd => "used_after_end",
        }
    }
}
