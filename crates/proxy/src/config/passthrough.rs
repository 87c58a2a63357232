//! Passing calls through (DESIGN §4, rung 0): agents go on with the credential they have today, until a date.

use std::collections::BTreeSet;

use http::{HeaderName, header};
use jiff::{SignedDuration, Timestamp};
use model::{Action, Id, Principal, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ToolConfig;
use crate::{headers, passthrough::Passthrough};

/// The most days ahead that the end may lie: whoever needs longer says so again.
const MOST_DAYS: i64 = 90;

/// That calls which show no token of ours go as they are, with the agent's own credential. Everything of them is on
/// record; nothing is decided about them, and nobody is verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassthroughConfig {
    /// Who answers for it.
    pub owner: String,
    /// When it ends, RFC 3339: `2026-12-31T00:00:00Z`. At most 90 days ahead. From then on such calls are refused
    /// `no_credential`, without a restart.
    #[schemars(with = "String")]
    pub until: Timestamp,
    /// The agent whose calls they are said to be. It is on record as asserted; where that agent is registered here and
    /// is suspended or withdrawn, they are refused.
    pub agent: Option<Id<Principal>>,
    /// The header field in which a call says who its user is: `X-Acting-User`. It is on record as asserted.
    pub user_header: Option<String>,
    /// The tenant that they are of. Needed where the tool serves several.
    pub tenant: Option<Id<Tenant>>,
    /// The actions that need a delegated token all the same.
    #[serde(default)]
    pub except: BTreeSet<Id<Action>>,
    /// What becomes of such calls that no action is found for.
    #[serde(default)]
    pub unmapped: UnmappedConfig,
}

/// What becomes of calls that no action is found for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnmappedConfig {
    /// They are refused `unmapped_action`.
    #[default]
    Refuse,
    /// They go too, and are on record as unmapped.
    Pass,
}

/// Why calls cannot be passed through as they are meant to be.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// Nobody answers for it.
    #[error("`owner` has to name who answers for it")]
    Unowned,
    /// It would go on for too long.
    #[error("`until` is more than {MOST_DAYS} days ahead; it is an exception, so say it again when it nears its end")]
    TooLong,
    /// The tenant is not known.
    #[error("`tenant` has to name one of the tenants that the tool serves")]
    Tenant,
    /// An exception that is no action of the tool.
    #[error("`except`: the tool has no action `{0}`")]
    Except(Id<Action>),
    /// An exception that another name of it goes around.
    #[error("`except` needs `unmapped: refuse`: what no action is found for may be one of these by another name")]
    Around,
    /// A field that is none, or that holds a credential.
    #[error("`user_header`: `{0}` is no header field that names a user")]
    Header(String),
}

impl PassthroughConfig {
    /// What it comes to for the tool of `config`, which serves `tenants` where it does not say, at the moment `now`.
    pub(super) fn resolve<'a>(
        &'a self,
        config: &'a ToolConfig,
        mut tenants: impl Iterator<Item = &'a Id<Tenant>>,
        now: Timestamp,
    ) -> Result<Passthrough, PassthroughError> {
        if self.owner.trim().is_empty() {
            return Err(PassthroughError::Unowned);
        }
        if self.until.duration_since(now) > SignedDuration::from_hours(24 * MOST_DAYS) {
            return Err(PassthroughError::TooLong);
        }
        if let Some(unknown) = self.except.iter().find(|action| !config.actions.contains_key(*action)) {
            return Err(PassthroughError::Except(unknown.clone()));
        }
        if !self.except.is_empty() && self.unmapped == UnmappedConfig::Pass {
            return Err(PassthroughError::Around);
        }
        let tenant = match &self.tenant {
            Some(named) => tenants.find(|tenant| *tenant == named),
            None => tenants.next().filter(|_| tenants.next().is_none()),
        };
        Ok(Passthrough {
            owner: self.owner.clone(),
            until: self.until,
            agent: self.agent.clone(),
            user: self.user_header.as_deref().map(user_header).transpose()?,
            tenant: tenant.ok_or(PassthroughError::Tenant)?.clone(),
            except: self.except.clone(),
            unmapped: self.unmapped,
        })
    }
}

/// A field with a name in it, and not with what proves one.
fn user_header(name: &str) -> Result<HeaderName, PassthroughError> {
    let unusable = || PassthroughError::Header(name.to_owned());
    let known = HeaderName::try_from(name).map_err(|_| unusable())?;
    let words = ["authorization", "cookie", "token", "secret", "password", "dpop", "key"];
    let secret = words.iter().any(|word| known.as_str().contains(word));
    let framing = headers::is_hop_by_hop(&known) || known == header::HOST || known.as_str().contains('_');
    if secret || framing { Err(unusable()) } else { Ok(known) }
}

#[cfg(test)]
mod tests;
