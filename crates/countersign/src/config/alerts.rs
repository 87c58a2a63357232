//! Who is told of alerts, beside the ledger.

use net::SecretSource;
use schemars::JsonSchema;
use serde::Deserialize;

/// Who is told of alerts (`alert.raised`), beside the ledger. A change needs a restart.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertsSection {
    /// Where each alert is posted as JSON, without anything personal but what a policy's notice says.
    #[serde(default)]
    pub(crate) webhook: Option<WebhookConfig>,
}

/// A webhook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookConfig {
    /// Its URL: https, or http on loopback.
    pub(crate) url: String,
    /// What its requests are signed with (`Countersign-Signature`, HMAC-SHA256 over the time and the body).
    pub(crate) secret: SecretSource,
}
