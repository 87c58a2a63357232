//! An issuer as the checks use it: the configuration with its defaults settled and its contradictions refused.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use jiff::SignedDuration;
use model::{Action, Id, Tenant, Tool, chain::MAX_AGENTS, delegation::UserClaims};

use crate::{
    Algorithm, KeySet,
    config::{
        Assertion, ChainForm, ClaimsConfig, ConfigError, EntitlementSource, EntitlementsConfig, IssuerConfig,
        KeysConfig, Role, TokenType, Withdrawals,
    },
};

/// The largest clock difference that can be configured.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// An issuer whose tokens are accepted, ready for use.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) tenants: BTreeSet<Id<Tenant>>,
    pub(crate) keys: KeySource,
    pub(crate) algorithms: BTreeSet<Algorithm>,
    pub(crate) types: BTreeSet<TokenType>,
    pub(crate) max_lifetime: SignedDuration,
    pub(crate) skew: SignedDuration,
    pub(crate) chain: ChainForm,
    pub(crate) asserts: BTreeSet<Assertion>,
    pub(crate) claims: ClaimsConfig,
    pub(crate) entitlements: Option<EntitlementsConfig>,
    pub(crate) assume: Option<BTreeSet<Id<Tool>>>,
    pub(crate) robots: Vec<String>,
    pub(crate) max_agents: usize,
    pub(crate) logout_clients: BTreeSet<String>,
    pub(crate) refresh: Duration,
    pub(crate) max_stale: Duration,
}

/// Where an issuer's public keys come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// The metadata of the issuer at this URL.
    Discovery(Uri),
    /// A JWK set at this URL.
    JwksUrl(Uri),
    /// A JWK set in this file.
    File(PathBuf),
    /// These, for good: the authority's own.
    Fixed(Arc<KeySet>),
}

impl IssuerConfig {
    /// Settles defaults and checks that the parts go together.
    ///
    /// # Errors
    /// Says which part does not.
    pub fn resolve(self) -> Result<Issuer, ConfigError> {
        self.check().map_err(|problem| ConfigError { issuer: self.issuer.clone(), problem })?;
        let keys = self.key_source().map_err(|problem| ConfigError { issuer: self.issuer.clone(), problem })?;
        let asserts = self.assertions();
        let mut claims = self.claims;
        if claims.tenant.is_none() && asserts.contains(&Assertion::Tenant) {
            claims.tenant = Some("tenant".to_owned());
        }
        Ok(Issuer {
            name: self.issuer,
            role: self.role,
            tenants: self.tenants,
            keys,
            algorithms: self.algorithms,
            types: self.types,
            max_lifetime: signed(self.max_lifetime.0),
            skew: signed(self.skew.0),
            chain: self.chain,
            asserts,
            claims,
            entitlements: self.entitlements,
            assume: self.assume.map(|assume| assume.locations),
            robots: self.robots,
            max_agents: self.max_agents,
            logout_clients: self.logout_clients,
            refresh: self.refresh.0.max(Duration::from_secs(1)),
            max_stale: self.max_stale.0,
        })
    }

    fn check(&self) -> Result<(), String> {
        let asserts = self.assertions();
        let logs_out = self.withdrawals == Withdrawals::BackchannelLogout;
        let wrong = |problem: &str| Err(problem.to_owned());
        match () {
            () if self.issuer.is_empty() => wrong("`issuer` may not be empty"),
            () if self.tenants.is_empty() => wrong("`tenants` must list at least one tenant"),
            () if self.algorithms.is_empty() => wrong("`algorithms` must list at least one algorithm"),
            () if self.types.is_empty() => wrong("`types` must list `at+jwt`, `JWT` or both"),
            () if self.skew.0 > MAX_SKEW => wrong("`skew` may be one minute at most"),
            () if self.max_lifetime.0.is_zero() => wrong("`max_lifetime` must be longer than nothing"),
            () if self.max_agents == 0 || self.max_agents > MAX_AGENTS => wrong("`max_agents` must be from 1 to 8"),
            () if self.role == Role::Subject && asserts.iter().any(|assertion| *assertion != Assertion::Tenant) => {
                wrong("a `subject` issuer may assert nothing but `tenant`")
            }
            () if self.role == Role::Subject && self.assume.is_some() => {
                wrong("`assume` is for issuers with role `delegation`")
            }
            () if self.role == Role::Delegation && !asserts.contains(&Assertion::Chain) => wrong(
                "an issuer with role `delegation` must be trusted for `chain`: without it no token names an agent",
            ),
            () if logs_out && self.role == Role::Delegation => {
                wrong("`withdrawals: backchannel_logout` is for issuers with role `subject`")
            }
            () if logs_out == self.logout_clients.is_empty() => wrong(
                "`withdrawals: backchannel_logout` and `logout_clients`, the `aud` of its logout tokens, go together",
            ),
            () if self.logout_clients.iter().any(String::is_empty) => {
                wrong("`logout_clients` may not have an empty name")
            }
            () if self.assume.is_some() && self.chain == ChainForm::Required => {
                wrong("`assume` needs `chain: act`: every hop of a `delegation_chain` carries its own details")
            }
            // An issuer that could leave its details out and gain the assumed ones would widen by omission.
            () if self.assume.is_some() && asserts.contains(&Assertion::Limits) => {
                wrong("with `assume` the issuer may not also assert `limits`")
            }
            () => Ok(()),
        }
    }

    fn assertions(&self) -> BTreeSet<Assertion> {
        use Assertion::{Chain, Grant, Limits, Stage, Task, Tenant};
        match (&self.asserts, self.role) {
            (Some(asserts), _) => asserts.clone(),
            (None, Role::Delegation) if self.assume.is_some() => [Tenant, Grant, Task, Stage, Chain].into(),
            (None, Role::Delegation) => [Tenant, Grant, Task, Stage, Limits, Chain].into(),
            (None, Role::Subject) => BTreeSet::new(),
        }
    }

    fn key_source(&self) -> Result<KeySource, String> {
        let url = |text: &str| {
            net::check_operator_url(text, net::Plaintext::LoopbackOnly).map_err(|error| format!("`{text}`: {error}"))
        };
        Ok(match &self.keys {
            KeysConfig::Discovery => KeySource::Discovery(url(&self.issuer)?),
            KeysConfig::JwksUrl(jwks_url) => KeySource::JwksUrl(url(jwks_url)?),
            KeysConfig::File(path) => KeySource::File(path.clone()),
        })
    }
}

impl Issuer {
    /// The longest that a token of it is accepted after it was issued, by clocks that differ as much as they may.
    pub fn longest_life(&self) -> SignedDuration {
        self.max_lifetime.saturating_add(self.skew).saturating_add(self.skew)
    }

    /// The issuer, as tokens have it in `iss`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its tokens are good for.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The tenants it may speak for.
    pub const fn tenants(&self) -> &BTreeSet<Id<Tenant>> {
        &self.tenants
    }

    /// The same issuer with keys that are at hand.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<KeySet>) -> Self {
        self.keys = KeySource::Fixed(keys);
        self
    }

    /// What a user of this issuer may do without any agent.
    pub fn entitlement(&self, user: &UserClaims) -> BTreeSet<Id<Action>> {
        let Some(entitlements) = &self.entitlements else { return BTreeSet::new() };
        let held = match entitlements.from {
            EntitlementSource::Groups => &user.groups,
            EntitlementSource::Roles => &user.roles,
        };
        held.iter().filter_map(|name| entitlements.map.get(name)).flatten().cloned().collect()
    }

    /// Whether `id` is one of this issuer's service accounts.
    pub(crate) fn is_robot(&self, id: &str) -> bool {
        self.robots.iter().any(|pattern| matches(pattern, id))
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Result<Issuer, ConfigError> {
        serde_saphyr::from_str::<IssuerConfig>(yaml).unwrap().resolve()
    }

    #[test]
    fn an_issuer_is_written_in_a_few_lines_and_strict_by_default() {
        let issuer = config("{issuer: https://a.example, role: delegation, tenants: [acme]}").unwrap();
        assert_eq!(issuer.algorithms, [Algorithm::Es256, Algorithm::EdDsa].into());
        assert_eq!((issuer.max_lifetime, issuer.skew), (SignedDuration::from_mins(5), SignedDuration::from_secs(5)));
        assert_eq!(issuer.claims.tenant.as_deref(), Some("tenant"));
        let subject = config("{issuer: https://a.example, role: subject, tenants: [acme]}").unwrap();
        assert!(subject.asserts.is_empty() && subject.claims.tenant.is_none());
    }

    #[test]
    fn parts_that_contradict_each_other_are_refused() {
        for (yaml, hint) in [
            ("{issuer: https://a.example, role: subject, tenants: []}", "tenants"),
            ("{issuer: http://a.example, role: subject, tenants: [a]}", "https"),
            ("{issuer: https://a.example, role: subject, tenants: [a], asserts: [chain]}", "subject"),
            ("{issuer: https://a.example, role: delegation, tenants: [a], asserts: [tenant]}", "chain"),
            ("{issuer: https://a.example, role: delegation, tenants: [a], assume: {locations: [b]}}", "chain: act"),
            (
                "{issuer: https://a.example, role: delegation, tenants: [a], chain: act, assume: {locations: [b]}, asserts: [chain, limits]}",
                "limits",
            ),
            ("{issuer: https://a.example, role: delegation, tenants: [a], skew: 2m}", "skew"),
            ("{issuer: https://a.example, role: delegation, tenants: [a], max_agents: 9}", "max_agents"),
            (
                "{issuer: https://a.example, role: delegation, tenants: [a], keys: {jwks_url: 'http://b.example/jwks'}}",
                "https",
            ),
        ] {
            let error = config(yaml).unwrap_err().to_string();
            assert!(error.contains(hint), "{yaml}: {error}");
        }
        for yaml in [
            "{issuer: https://a.example, role: delegation, tenants: [a], algorithms: [HS256]}",
            "{issuer: https://a.example, role: delegation, tenants: [a], algorithms: [none]}",
            "{issuer: https://a.example, role: delegation, tenants: [a], trust: everything}",
        ] {
            assert!(serde_saphyr::from_str::<IssuerConfig>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_robot_pattern_covers_the_whole_id() {
        for (pattern, id, expected) in [
            ("service-account-*", "service-account-ci", true),
            ("service-account-*", "my-service-account-ci", false),
            ("*@clients", "abc@clients", true),
            ("*@clients", "abc@clients.example", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*b", "ab", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, id), expected, "{pattern} {id}");
        }
    }
}
