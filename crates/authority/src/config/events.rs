//! The `events` part of the section: who may tell of revoked sessions and disabled accounts (Shared Signals Framework), of
//! whose users, and how what they tell gets here.

use std::{collections::BTreeSet, path::PathBuf};

use model::{Id, duration::ConfigDuration};
use net::{Plaintext, SecretSource, check_operator_url};
use schemars::JsonSchema;
use serde::Deserialize;
use token::{
    Algorithm, Issuer, IssuerConfig,
    config::{ChainForm, ClaimsConfig, KeysConfig, Role, TokenType, Withdrawals},
};

use super::{AuthorityConfig, ConfigError};

/// A transmitter of security events.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransmitterConfig {
    /// The `iss` of its tokens, exactly.
    pub transmitter: String,
    /// The `aud` that its stream is made out to: a name of its own, that no other token here has.
    pub audience: String,
    /// The issuers of whose users, sessions and tokens it may speak; itself, where nothing is said.
    #[serde(default)]
    pub subjects: BTreeSet<String>,
    /// How users are found whom it names by their e-mail addresses. Without it such an event is refused.
    #[serde(default)]
    pub emails: Option<EmailsConfig>,
    /// Where its public keys come from. Its metadata (`/.well-known/ssf-configuration`) has the URL as `jwks_uri`.
    pub keys: KeysConfig,
    /// The algorithms it signs with.
    #[serde(default = "common")]
    pub algorithms: BTreeSet<Algorithm>,
    /// The secret that it pushes with (`Authorization: Bearer …`); without it nothing can be pushed in its name.
    #[serde(default)]
    pub push: Option<SecretSource>,
    /// Where it is asked for events, if it is.
    #[serde(default)]
    pub poll: Option<PollConfig>,
}

/// Whose addresses a transmitter means, and where they are. Only for addresses that the issuer has verified: whoever could
/// change their own would be somebody else for the transmitter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailsConfig {
    /// The issuer of the users, one of `subjects`.
    pub of: String,
    /// Where a user's address is.
    pub by: Address,
}

/// Where a user's address is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// It is what they are named by (`claims.id` of the issuer), exactly.
    Id,
    /// In this attribute (`claims.attributes` of the issuer), as their last token here had it; case is not looked at.
    Attribute(String),
}

/// How a transmitter is asked (RFC 8936).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// The `endpoint_url` of its stream.
    pub url: String,
    /// The token that it is asked with (`Authorization: Bearer …`); read again for each question.
    pub credential: SecretSource,
    /// How long it may wait with an answer, where it has nothing to say.
    #[serde(default = "thirty_seconds")]
    pub wait: ConfigDuration,
}

/// A transmitter, checked.
#[derive(Debug, Clone)]
pub(crate) struct Transmitter {
    pub(crate) name: String,
    pub(crate) audience: BTreeSet<String>,
    pub(crate) subjects: BTreeSet<String>,
    pub(crate) emails: Option<EmailsConfig>,
    pub(crate) issuer: Issuer,
    pub(crate) push: Option<SecretSource>,
    pub(crate) poll: Option<Poll>,
}

/// How it is asked, checked.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    pub(crate) url: http::Uri,
    pub(crate) credential: SecretSource,
    pub(crate) wait: std::time::Duration,
}

fn common() -> BTreeSet<Algorithm> {
    [Algorithm::Rs256, Algorithm::Es256].into()
}

const fn thirty_seconds() -> ConfigDuration {
    ConfigDuration::seconds(30)
}

impl TransmitterConfig {
    /// Its files that hold a secret or keys, for placing.
    pub fn files(&mut self) -> (&mut KeysConfig, impl Iterator<Item = &mut PathBuf>) {
        let poll = self.poll.as_mut().map(|poll| &mut poll.credential);
        let secrets = self.push.iter_mut().chain(poll).filter_map(|secret| match secret {
            SecretSource::File(path) => Some(path),
            SecretSource::Env(_) => None,
        });
        (&mut self.keys, secrets)
    }

    pub(super) fn resolve(&self, authority: &AuthorityConfig) -> Result<Transmitter, ConfigError> {
        let wrong = |what: String| ConfigError::Events(format!("{}: {what}", self.transmitter));
        if self.audience.is_empty() || authority.is_audience(&self.audience) {
            return Err(wrong("`audience` has to be one that no other token here has".to_owned()));
        }
        let secrets = self.push.iter().chain(self.poll.as_ref().map(|poll| &poll.credential));
        if secrets.into_iter().any(|secret| matches!(secret, SecretSource::Env(_))) {
            return Err(wrong("a secret has to be in a file, from which it is read again when it changes".to_owned()));
        }
        if self.push.is_none() && self.poll.is_none() {
            return Err(wrong("needs `push`, `poll` or both".to_owned()));
        }
        let poll = match &self.poll {
            None => None,
            Some(poll) => {
                let url = check_operator_url(&poll.url, Plaintext::LoopbackOnly);
                let url = url.map_err(|error| wrong(format!("poll.url: {error}")))?;
                if poll.wait.0.is_zero() || poll.wait.0 > std::time::Duration::from_secs(300) {
                    return Err(wrong("poll.wait: has to be between 1s and 5m".to_owned()));
                }
                Some(Poll { url, credential: poll.credential.clone(), wait: poll.wait.0 })
            }
        };
        let own = || [self.transmitter.clone()].into();
        let subjects: BTreeSet<_> = if self.subjects.is_empty() { own() } else { self.subjects.clone() };
        if let Some(emails) = self.emails.as_ref().filter(|emails| !subjects.contains(&emails.of)) {
            return Err(wrong(format!(
                "emails.of: it may not speak of users of {}: name that in `subjects`",
                emails.of
            )));
        }
        Ok(Transmitter {
            name: self.transmitter.clone(),
            audience: [self.audience.clone()].into(),
            subjects,
            emails: self.emails.clone(),
            issuer: bare(&self.transmitter, &self.keys, &self.algorithms)
                .resolve()
                .map_err(|error| wrong(error.problem))?,
            push: self.push.clone(),
            poll,
        })
    }
}

/// An issuer whose tokens are no users': only who signs them, and with which keys, is of meaning. What they say is read
/// where they are taken.
pub(super) fn bare(name: &str, keys: &KeysConfig, algorithms: &BTreeSet<Algorithm>) -> IssuerConfig {
    IssuerConfig {
        issuer: name.to_owned(),
        role: Role::Subject,
        // One it has to have.
        tenants: Id::new("none").into_iter().collect(),
        keys: keys.clone(),
        algorithms: algorithms.clone(),
        // They say nothing of their type, or it is looked at where they are taken.
        types: [TokenType::Any].into(),
        max_lifetime: ConfigDuration::seconds(24 * 3600),
        skew: ConfigDuration::seconds(5),
        chain: ChainForm::Required,
        asserts: None,
        claims: ClaimsConfig::default(),
        entitlements: None,
        assume: None,
        robots: Vec::new(),
        max_agents: 1,
        withdrawals: Withdrawals::None,
        logout_clients: BTreeSet::new(),
        refresh: ConfigDuration::seconds(300),
        max_stale: ConfigDuration::seconds(24 * 3600),
    }
}
