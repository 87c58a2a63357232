//! The `management` part of the section: whose tokens open `/v1`, and who of them administers.
//!
//! Nothing an agent can hold may be among them, so the audience is its own and the clients are listed.

use std::{collections::BTreeSet, time::Duration};

use model::duration::ConfigDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{AuthorityConfig, ConfigError};

/// The longest a login counts as fresh.
const MAX_FRESH: Duration = Duration::from_secs(3600);

/// Whose tokens open the management API (`/v1`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagementConfig {
    /// The audience of management tokens. No other token has it: such a token is refused as a subject token, and
    /// a token that is good as one is refused here.
    pub audience: String,
    /// The OAuth clients (`azp` or `client_id`) that users may manage with: the console and the command line. Never
    /// one that an agent runs.
    pub clients: BTreeSet<String>,
    /// Who administers, where no policy says it. Other users see and touch what is their own.
    #[serde(default)]
    pub administrators: Option<AdministratorsConfig>,
    /// How recent the user's login (`auth_time`) has to be for what widens authority: registering an agent, making a
    /// grant, starting a task beyond `observe`.
    #[serde(default = "five_minutes")]
    pub fresh: ConfigDuration,
    /// How old an agent's credential may get before it shows as overdue.
    #[serde(default = "ninety_days")]
    pub credential_max_age: ConfigDuration,
    /// How many requests one principal may make in a second over a while; four times as many at once.
    #[serde(default = "twenty_five")]
    pub requests_per_second: u32,
}

/// Administrators, by what one issuer says of its users: they administer everything this authority has, all tenants of
/// it. Where `authority.policy` says who manages (`manage`), that counts instead.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdministratorsConfig {
    /// The issuer whose word it is. Has to be named where there are several: another's users may be in a group of
    /// the same name.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The groups whose members administer.
    pub groups: BTreeSet<String>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub(crate) struct Management {
    /// Of management tokens.
    pub(crate) audience: String,
    /// The clients.
    pub(crate) clients: BTreeSet<String>,
    /// Who administers.
    pub(crate) administrators: Option<AdministratorsConfig>,
    /// How recent a fresh login is.
    pub(crate) fresh: Duration,
    /// How old a credential may get.
    pub(crate) credential_max_age: Duration,
    /// Requests of one principal in a second.
    pub(crate) requests_per_second: u32,
}

const fn five_minutes() -> ConfigDuration {
    ConfigDuration::seconds(300)
}

const fn ninety_days() -> ConfigDuration {
    ConfigDuration(Duration::from_secs(90 * 24 * 3600))
}

const fn twenty_five() -> u32 {
    25
}

impl ManagementConfig {
    pub(super) fn resolve(&self, authority: &AuthorityConfig) -> Result<Management, ConfigError> {
        let AuthorityConfig { issuer, sidecars, subject_audiences, .. } = authority;
        let taken = self.audience == *issuer
            || subject_audiences.contains(&self.audience)
            || sidecars.iter().any(|group| group.audience == self.audience);
        if self.audience.is_empty() || taken {
            return Err(ConfigError::ManagementAudience(self.audience.clone()));
        }
        if self.clients.is_empty() || self.clients.iter().any(String::is_empty) {
            return Err(ConfigError::ManagementClients);
        }
        if self.administrators.as_ref().is_some_and(|administrators| administrators.groups.is_empty()) {
            return Err(ConfigError::Administrators);
        }
        if self.fresh.0 < Duration::from_secs(1) || self.fresh.0 > MAX_FRESH {
            return Err(ConfigError::Fresh);
        }
        if self.requests_per_second == 0 {
            return Err(ConfigError::Requests);
        }
        Ok(Management {
            audience: self.audience.clone(),
            clients: self.clients.clone(),
            administrators: self.administrators.clone(),
            fresh: self.fresh.0,
            credential_max_age: self.credential_max_age.0,
            requests_per_second: self.requests_per_second,
        })
    }
}
