//! The authority's own section of its configuration, and what it resolves to.

mod alerts;
mod database;
mod enrolment;
mod events;
mod management;
mod shipped;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use audit::RetentionConfig;
use model::{chain::MAX_AGENTS, duration::ConfigDuration};
use net::{Plaintext, UrlError, check_operator_url};
use policy::PolicySource;
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::alerts::{AlertsConfig, SuspendOn};
pub use self::database::{DatabaseConfig, PostgresConfig};
pub(crate) use self::enrolment::Enrolments;
pub use self::enrolment::{ClusterConfig, EnrolledConfig, EnrolmentConfig};
pub use self::events::{Address, EmailsConfig, PollConfig, TransmitterConfig};
pub(crate) use self::events::{Poll, Transmitter};
pub(crate) use self::management::Management;
pub use self::management::{AdministratorsConfig, ManagementConfig};
pub use self::shipped::ShippedConfig;

/// Longer tokens than this are not minutes any more.
const MAX_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Who the authority is, what it signs with and whom it issues for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// The `iss` of its tokens: the URL at which its agents and sidecars reach it. https, or http on loopback.
    pub issuer: String,
    /// What it signs with.
    pub keys: KeysConfig,
    /// How long a token lasts at most.
    #[serde(default = "five_minutes")]
    pub token_lifetime: ConfigDuration,
    /// The most agents in a chain that it issues (at most 8): no more than its sidecars accept of it.
    #[serde(default = "four")]
    pub max_agents: usize,
    /// The groups of sidecars that it issues tokens for.
    pub sidecars: Vec<SidecarGroup>,
    /// Audiences, besides the issuer itself, that a user's token may have to be exchanged here.
    #[serde(default)]
    pub subject_audiences: Vec<String>,
    /// Whose tokens open the management API (`/v1`). Without it there is none.
    #[serde(default)]
    pub management: Option<ManagementConfig>,
    /// Policy that is asked before a token is issued (`delegate`), and who manages (`manage`): the packages that sidecars
    /// ask about calls, or others. Without it, tokens are issued within grant, entitlement and registration alone.
    #[serde(default)]
    pub policy: Vec<PolicySource>,
    /// Which workloads may join as sidecars by what they are, beside those with a join token.
    #[serde(default)]
    pub enrolment: EnrolmentConfig,
    /// Who tells of revoked sessions and disabled accounts (Shared Signals Framework, CAEP, RISC).
    #[serde(default)]
    pub events: Vec<TransmitterConfig>,
    /// What is done by rule where a sidecar is alarmed.
    #[serde(default)]
    pub alerts: AlertsConfig,
    /// A file that declares agents, grants and tasks: what is new or changed in it becomes part of the state at start.
    #[serde(default)]
    pub store: Option<PathBuf>,
    /// Where the state is kept; in `authority.db` beside the folder of the keys, where absent.
    #[serde(default)]
    pub database: Option<DatabaseConfig>,
    /// What sidecars ship of their ledgers (`ledger.ship` there).
    #[serde(default)]
    pub shipped: ShippedConfig,
}

/// The authority's signing keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// The folder they lie in; it and the key are created on first start, for this user alone.
    pub dir: PathBuf,
    /// The algorithm of new keys. Another one than that of the key that signs makes a new key, which takes over.
    #[serde(default)]
    pub algorithm: SigningAlgorithm,
    /// How old a key gets before another one takes over by itself; `null` for never. Sidecars that read the keys from a
    /// file have to be told before.
    #[serde(default = "ninety_days")]
    pub rotate_every: Option<ConfigDuration>,
    /// How long a new key is published before it signs: longer than verifiers take to fetch keys anew (sidecars' `refresh`).
    #[serde(default = "ten_minutes")]
    pub publish_ahead: ConfigDuration,
}

impl KeysConfig {
    /// What holds where only the folder is said.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            algorithm: SigningAlgorithm::default(),
            rotate_every: ninety_days(),
            publish_ahead: ten_minutes(),
        }
    }
}

/// The algorithms that the authority signs with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256, which every verifier knows.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519: faster to sign and to verify.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Sidecars that accept the same tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SidecarGroup {
    /// The logical audience that they know themselves by: `urn:example:countersign:support`.
    pub audience: String,
}

/// The section, checked.
#[derive(Debug, Clone)]
pub struct AuthoritySettings {
    /// The `iss` of the authority's tokens.
    pub(crate) issuer: String,
    /// The path of the issuer URL, without a last slash: every endpoint lies under it.
    pub(crate) prefix: String,
    /// The longest a token lasts.
    pub(crate) lifetime: Duration,
    /// The most agents in a chain.
    pub(crate) max_agents: usize,
    /// The audiences that may be asked for.
    pub(crate) sidecars: Vec<String>,
    /// Audiences of users' tokens besides the issuer.
    pub(crate) subject_audiences: Vec<String>,
    /// Whose tokens open `/v1`.
    pub(crate) management: Option<Management>,
    /// The alerts that an agent is suspended for.
    pub(crate) suspend: BTreeSet<SuspendOn>,
    /// Which certificates clients are asked for.
    pub(crate) client_certificates: CertificatesTaken,
    /// Who may join as a sidecar by what they are.
    pub(crate) enrolments: Enrolments,
    /// Who tells of security events.
    pub(crate) events: Vec<Transmitter>,
    /// Where copies of sidecars' ledgers are kept.
    pub(crate) shipped: PathBuf,
    /// And for how long.
    pub(crate) retention: RetentionConfig,
}

impl AuthoritySettings {
    /// The same, behind a listener that asks clients for such certificates.
    #[must_use]
    pub fn with_client_certificates(self, asked: CertificatesTaken) -> Self {
        Self { client_certificates: asked, ..self }
    }
}

/// The certificates that a listener takes of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificatesTaken {
    /// Those that somebody it believes has signed.
    pub signed: bool,
    /// Those that signed themselves.
    pub self_signed: bool,
}

impl CertificatesTaken {
    /// Whether it takes any.
    pub(crate) const fn any(self) -> bool {
        self.signed || self.self_signed
    }
}

/// Why the section is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The issuer is no URL to be reached at.
    #[error("authority.issuer: {0}")]
    Issuer(#[from] UrlError),
    /// The issuer has a query or ends in a slash: verifiers compare it byte by byte.
    #[error("authority.issuer: has to be a URL without query and without a last slash")]
    IssuerShape,
    /// The lifetime is out of bounds.
    #[error("authority.token_lifetime: has to be between 1s and 15m")]
    Lifetime,
    /// No agent could be in a chain, or more than any verifier accepts.
    #[error("authority.max_agents: has to be from 1 to {MAX_AGENTS}")]
    MaxAgents,
    /// A key would sign before anybody could have it, or have to be replaced before it signs.
    #[error("authority.keys: `publish_ahead` has to be between 1s and 24h, and `rotate_every` longer than twice that")]
    Rotation,
    /// Who may join is not said as it has to be.
    #[error("authority.enrolment: {0}")]
    Enrolment(String),
    /// Who tells of security events is not said as it has to be.
    #[error("authority.events: {0}")]
    Events(String),
    /// There is nobody to issue tokens for.
    #[error("authority.sidecars: at least one group of sidecars has to be named")]
    NoSidecars,
    /// An audience is empty, there twice, or the authority itself.
    #[error("authority.sidecars: the audience `{0}` is empty, there twice, or the authority's own issuer")]
    Audience(String),
    /// The audience of management tokens is one that other tokens have.
    #[error("authority.management.audience: `{0}` is empty, or an audience that other tokens have: it needs its own")]
    ManagementAudience(String),
    /// Nobody could manage.
    #[error("authority.management.clients: at least one client has to be named, none of them empty")]
    ManagementClients,
    /// Nobody would administer.
    #[error("authority.management.administrators.groups: at least one group has to be named")]
    Administrators,
    /// A login that is hours old is not fresh.
    #[error("authority.management.fresh: has to be between 1s and 1h")]
    Fresh,
    /// Nothing could be asked.
    #[error("authority.management.requests_per_second: has to be at least 1")]
    Requests,
}

const fn ninety_days() -> Option<ConfigDuration> {
    Some(ConfigDuration(Duration::from_secs(90 * 24 * 3600)))
}

const fn ten_minutes() -> ConfigDuration {
    ConfigDuration::seconds(600)
}

const fn five_minutes() -> ConfigDuration {
    ConfigDuration::seconds(300)
}

/// What a sidecar accepts of an issuer where its configuration says nothing else.
const fn four() -> usize {
    4
}

impl AuthorityConfig {
    /// Whether tokens of any other kind are made out to `name` here.
    fn is_audience(&self, name: &str) -> bool {
        *name == self.issuer
            || self.subject_audiences.iter().any(|known| known == name)
            || self.sidecars.iter().any(|group| group.audience == name)
            || self.management.as_ref().is_some_and(|management| management.audience == name)
    }

    /// Checks the section.
    ///
    /// # Errors
    /// Names the key that is wrong and what would be right.
    pub fn resolve(&self) -> Result<AuthoritySettings, ConfigError> {
        let url = check_operator_url(&self.issuer, Plaintext::LoopbackOnly)?;
        if url.query().is_some() || self.issuer.ends_with('/') {
            return Err(ConfigError::IssuerShape);
        }
        let lifetime = self.token_lifetime.0;
        if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
            return Err(ConfigError::Lifetime);
        }
        if !(1..=MAX_AGENTS).contains(&self.max_agents) {
            return Err(ConfigError::MaxAgents);
        }
        let ahead = self.keys.publish_ahead.0;
        let early = self.keys.rotate_every.is_some_and(|every| every.0 <= ahead * 2);
        if ahead < Duration::from_secs(1) || ahead > Duration::from_secs(24 * 3600) || early {
            return Err(ConfigError::Rotation);
        }
        let mut seen = BTreeSet::new();
        for SidecarGroup { audience } in &self.sidecars {
            if audience.is_empty() || *audience == self.issuer || !seen.insert(audience) {
                return Err(ConfigError::Audience(audience.clone()));
            }
        }
        if seen.is_empty() {
            return Err(ConfigError::NoSidecars);
        }
        Ok(AuthoritySettings {
            issuer: self.issuer.clone(),
            shipped: self.shipped_dir(),
            retention: self.shipped.retention,
            prefix: url.path().trim_end_matches('/').to_owned(),
            lifetime,
            max_agents: self.max_agents,
            sidecars: self.sidecars.iter().map(|group| group.audience.clone()).collect(),
            subject_audiences: self.subject_audiences.clone(),
            suspend: self.alerts.suspend.clone(),
            management: self.management.as_ref().map(|management| management.resolve(self)).transpose()?,
            client_certificates: CertificatesTaken::default(),
            enrolments: self.enrolment.resolve()?,
            events: self.events.iter().map(|transmitter| transmitter.resolve(self)).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(change: impl FnOnce(&mut AuthorityConfig)) -> Result<AuthoritySettings, ConfigError> {
        let mut config = AuthorityConfig {
            issuer: "https://countersign.example/acme".to_owned(),
            keys: KeysConfig::at("keys"),
            token_lifetime: five_minutes(),
            max_agents: four(),
            sidecars: vec![SidecarGroup { audience: "urn:example:support".to_owned() }],
            subject_audiences: Vec::new(),
            management: None,
            policy: Vec::new(),
            alerts: AlertsConfig::default(),
            enrolment: EnrolmentConfig::default(),
            events: Vec::new(),
            shipped: ShippedConfig::default(),
            store: Some("store.yaml".into()),
            database: None,
        };
        change(&mut config);
        config.resolve()
    }

    #[test]
    fn a_configuration_that_could_not_be_meant_is_refused_by_the_name_of_its_key() {
        assert_eq!(resolve(|_| ()).unwrap().prefix, "/acme");
        type Change = fn(&mut AuthorityConfig);
        let cases: [(&str, Change); 12] = [
            ("issuer", |config| config.issuer = "http://countersign.example".to_owned()),
            ("issuer", |config| config.issuer.push('/')),
            ("issuer", |config| config.issuer.push_str("?a=b")),
            ("token_lifetime", |config| config.token_lifetime = ConfigDuration::seconds(3600)),
            ("token_lifetime", |config| config.token_lifetime = ConfigDuration::seconds(0)),
            ("max_agents", |config| config.max_agents = 0),
            ("max_agents", |config| config.max_agents = MAX_AGENTS + 1),
            ("keys", |config| config.keys.publish_ahead = ConfigDuration::seconds(0)),
            ("keys", |config| config.keys.rotate_every = Some(ConfigDuration::seconds(1200))),
            ("sidecars", |config| config.sidecars.clear()),
            ("sidecars", |config| config.sidecars.push(config.sidecars[0].clone())),
            ("sidecars", |config| config.sidecars[0].audience = config.issuer.clone()),
        ];
        for (key, change) in cases {
            let error = resolve(change).unwrap_err().to_string();
            assert!(error.starts_with(&format!("authority.{key}:")), "{error}");
        }
    }

    #[test]
    fn where_nothing_is_said_a_sidecar_accepts_every_chain_that_is_issued() {
        let written =
            serde_json::json!({ "issuer": "https://countersign.example", "role": "delegation", "tenants": [] });
        let sidecar: token::IssuerConfig = serde_json::from_value(written).unwrap();
        assert_eq!(resolve(|_| ()).unwrap().max_agents, sidecar.max_agents);
    }
}
