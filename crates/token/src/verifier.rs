//! The verifier: the checks together with the keys they need and the tokens they passed before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use model::{Code, Delegation, Id, Refusal, Sensitivity, Stage, Tenant};
use net::Tasks;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigError, Issuer, KeyClients, KeySet, KeyStatus, Rejection, Seen, SubjectAudiences, VerifiedSubject,
    cache::{Before, Cache, Entry, Signed},
    check::sender::Binding,
    check::{
        shape::{self, Digest, Unverified},
        signature, time,
    },
    config::Role,
    keys::Key,
    read::Details,
    refresh::IssuerKeys,
    refusal::{Checked, unseen, unverified},
    verify::{self, Candidate, Rules},
};

/// What a verifier is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifierSettings {
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// Our names as an audience: the logical one and its loopback aliases.
    pub audiences: BTreeSet<String>,
    /// The tenants we serve.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// What holds where a token does not say.
    pub defaults: Defaults,
    /// How many verified tokens are remembered.
    pub cache_entries: usize,
}

/// What holds where a token does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// How far a task may go.
    pub stage: Stage,
    /// How sensitive its data is.
    pub sensitivity: Sensitivity,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { stage: Stage::Observe, sensitivity: Sensitivity::High }
    }
}

impl VerifierSettings {
    /// How many verified tokens are remembered unless configuration says otherwise.
    pub const CACHE_ENTRIES: usize = 10_000;
}

/// A token as it was presented.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The compact token.
    pub compact: &'a str,
    /// Whether the listener takes tokens that are not bound to their sender.
    pub bearer_allowed: bool,
    /// What the request proves of its sender.
    pub proof: Proof,
}

/// What a request proves of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    None,
    /// That it holds the key of the client certificate with this SHA-256, by the TLS handshake of its connection.
    Certificate([u8; 32]),
}

/// Evidence that a token is good for a call: only [`Verifier::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    delegation: Arc<Delegation>,
}

impl Verified {
    /// What it proves.
    pub const fn delegation(&self) -> &Arc<Delegation> {
        &self.delegation
    }
}

/// Verifies tokens. Clones are the same verifier; one for each snapshot of the configuration.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    settings: VerifierSettings,
    rules: Rules,
    keys: BTreeMap<String, Arc<IssuerKeys>>,
    cache: Arc<Cache>,
    /// Of tokens that were subjects of an exchange, which come again while they last. Made for the first of them.
    signed: OnceLock<Signed>,
    details: Arc<Details>,
}

impl Inner {
    /// Whether the keys are the very ones that remembered tokens were verified with.
    fn has(&self, keys: &BTreeMap<String, Arc<IssuerKeys>>) -> bool {
        keys.iter().all(|(name, keys)| self.keys.get(name).is_some_and(|held| Arc::ptr_eq(held, keys)))
    }
}

impl Verifier {
    /// A verifier that begins to fetch its issuers' keys. An issuer that cannot be reached is no error: its tokens
    /// are refused with `keys_unavailable` until it can.
    ///
    /// # Errors
    /// When an issuer is given twice.
    pub fn new(settings: VerifierSettings, clients: &KeyClients, tasks: &Tasks) -> Result<Self, ConfigError> {
        Self::build(settings, clients, tasks, None)
    }

    /// A verifier for new settings. Keys of issuers whose key settings are unchanged are taken over, unless they came
    /// by the word of somebody who is not believed any more; and remembered tokens if nothing changed at all.
    ///
    /// # Errors
    /// When an issuer is given twice.
    pub fn renewed(
        &self,
        settings: VerifierSettings,
        clients: &KeyClients,
        tasks: &Tasks,
    ) -> Result<Self, ConfigError> {
        Self::build(settings, clients, tasks, Some(&self.0))
    }

    fn build(
        settings: VerifierSettings,
        clients: &KeyClients,
        tasks: &Tasks,
        before: Option<&Inner>,
    ) -> Result<Self, ConfigError> {
        let mut issuers = BTreeMap::new();
        for issuer in &settings.issuers {
            if issuers.insert(issuer.name.clone(), issuer.clone()).is_some() {
                return Err(ConfigError { issuer: issuer.name.clone(), problem: "is configured twice".to_owned() });
            }
        }
        let keys: BTreeMap<String, Arc<IssuerKeys>> = issuers
            .values()
            .map(|issuer| {
                let kept =
                    before.and_then(|before| before.keys.get(&issuer.name)).filter(|keys| keys.serve(issuer, clients));
                let keys = kept.map_or_else(|| IssuerKeys::start(issuer, clients, tasks), Arc::clone);
                (issuer.name.clone(), keys)
            })
            .collect();
        let cache = match before {
            Some(before) if before.settings == settings && before.has(&keys) => Arc::clone(&before.cache),
            _ => Arc::new(Cache::new(settings.cache_entries)),
        };
        let rules = Rules {
            audiences: settings.audiences.clone(),
            tenants: settings.tenants.clone(),
            defaults: settings.defaults,
            issuers,
        };
        let details = before.map_or_else(|| Arc::new(Details::new()), |before| Arc::clone(&before.details));
        Ok(Self(Arc::new(Inner { settings, rules, keys, cache, signed: OnceLock::new(), details })))
    }

    /// The whole of `admit`: whether the token is good for a call here and now, and theirs to present.
    ///
    /// # Errors
    /// The refusal: `invalid_token` without particulars before the signature is verified, by its own code after.
    pub async fn verify(&self, presented: Presented<'_>, now: Timestamp) -> Result<Verified, Box<Rejection>> {
        shape::bounded(presented.compact).map_err(unseen)?;
        let digest = Digest::of(presented.compact);
        let before = self.0.cache.before();
        if let Some(entry) = self.0.cache.find(&digest)
            && let Some(verified) = self.remembered(&digest, entry, before, presented, now)?
        {
            return Ok(verified);
        }
        let token = shape::parse(presented.compact, Some(digest)).map_err(unseen)?;
        let (issuer, keys) = self.issuer(&token).map_err(unseen)?;
        let (key, generation) = key(&token, issuer, keys, now).await.map_err(unseen)?;
        let candidate = Candidate { token: &token, key: &key, issuer, details: &self.0.details, signed: false };
        let admitted = verify::for_call(&candidate, &self.0.rules, presented.proof, presented.bearer_allowed, now)?;
        let delegation = Arc::new(admitted.delegation);
        let (times, binding) = (admitted.times, admitted.binding);
        let entry = Entry { delegation: Arc::clone(&delegation), times, binding, key, generation };
        self.0.cache.keep(digest, entry, before);
        Ok(Verified { delegation })
    }

    /// Verifies a `subject_token` of an exchange: a user's own token, or a delegated one for the next hop. Of one that was
    /// verified before, the signature alone is remembered, for as long as its issuer has the key.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub async fn verify_subject(
        &self,
        compact: &str,
        audiences: &SubjectAudiences,
        now: Timestamp,
    ) -> Result<VerifiedSubject, Box<Rejection>> {
        self.verify_subject_of(compact, audiences, Proof::None, now).await
    }

    /// The same for whoever proves to hold what the token is bound to.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub async fn verify_subject_of(
        &self,
        compact: &str,
        audiences: &SubjectAudiences,
        proof: Proof,
        now: Timestamp,
    ) -> Result<VerifiedSubject, Box<Rejection>> {
        let token = shape::parse(compact, None).map_err(unseen)?;
        let (issuer, keys) = self.issuer(&token).map_err(unseen)?;
        let (key, _) = key(&token, issuer, keys, now).await.map_err(unseen)?;
        let remembered = self.0.signed.get_or_init(Signed::new);
        let signed = remembered.is_by(&token.digest, &key);
        let candidate = Candidate { token: &token, key: &key, issuer, details: &self.0.details, signed };
        let verified = verify::for_exchange(&candidate, &self.0.rules, audiences, proof, now)?;
        if !signed {
            remembered.keep(token.digest, key);
        }
        Ok(verified)
    }

    /// Whether `compact` says that it is a user's own, of an issuer that is good for an exchange and never for a call.
    /// Nothing of it is verified: it says what it would have to be verified as.
    pub fn claims_to_be_a_users(&self, compact: &str) -> bool {
        let Ok(token) = shape::parse(compact, None) else { return false };
        self.0.rules.issuers.get(&token.issuer).is_some_and(|issuer| issuer.role == Role::Subject)
    }

    /// Whether tokens of `issuer` are looked at here, for a call or an exchange, or it is one of theirs that signs what
    /// tools are told (`ISSUER/sidecars/…`).
    pub fn knows(&self, issuer: &str) -> bool {
        let issuers = &self.0.rules.issuers;
        let below = |known: &String| issuer.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('/'));
        issuers.contains_key(issuer) || issuers.keys().any(below)
    }

    /// Forgets remembered tokens, so that the next call with one is verified anew.
    pub fn evict(&self, predicate: impl Fn(&Delegation) -> bool) {
        self.0.cache.evict(predicate);
    }

    /// From now on the keys of `issuer`, which are ours and never fetched, are these.
    pub fn replace_keys(&self, issuer: &str, set: &Arc<KeySet>) {
        if let Some(keys) = self.0.keys.get(issuer) {
            keys.replace(set);
        }
    }

    /// How each issuer's keys stand.
    pub fn keys_status(&self) -> Vec<KeyStatus> {
        self.0.keys.values().map(|keys| keys.status()).collect()
    }

    /// Asks once for the keys of every issuer that has none yet, and returns when all answered or failed.
    pub async fn warm_up(&self) {
        let fetches: Vec<_> = self.0.keys.values().filter_map(IssuerKeys::begin_fetch).collect();
        for fetch in fetches {
            if fetch.join().await.is_err() {
                tracing::debug!("a key fetch was cut short");
            }
        }
    }

    /// A token that was verified before, if that still holds. `None`: it has to be verified anew.
    fn remembered(
        &self,
        digest: &Digest,
        mut entry: Entry,
        before: Before,
        presented: Presented<'_>,
        now: Timestamp,
    ) -> Result<Option<Verified>, Box<Rejection>> {
        let name = &entry.delegation.token.issuer;
        let (Some(issuer), Some(keys)) = (self.0.rules.issuers.get(name), self.0.keys.get(name)) else {
            return Ok(None);
        };
        let loaded = keys.current(now).map_err(|internal| unseen(unavailable(internal)))?;
        if loaded.generation != entry.generation {
            if !loaded.set.holds(&entry.key) {
                self.0.cache.drop_one(digest);
                return Ok(None);
            }
            entry.generation = loaded.generation;
            self.0.cache.keep(*digest, entry.clone(), before);
        }
        // A binding has one kind of sender, so what was remembered of it is what is proved again.
        let recheck = time::current(entry.times, issuer.skew, now)
            .and_then(|()| entry.binding.check(presented.proof, presented.bearer_allowed));
        match recheck {
            Ok(_) => Ok(Some(Verified { delegation: entry.delegation })),
            Err(refusal) => {
                if refusal.code == Code::Expired {
                    self.0.cache.drop_one(digest);
                }
                let seen = Some(Box::new(Seen::of(&entry.delegation, entry.binding)));
                Err(Box::new(Rejection { refusal: *refusal, seen }))
            }
        }
    }

    /// Who should have signed the token, and their keys.
    pub(crate) fn issuer(&self, token: &Unverified<'_>) -> Checked<(&Issuer, &Arc<IssuerKeys>)> {
        let known = self.0.rules.issuers.get(&token.issuer).zip(self.0.keys.get(&token.issuer));
        known.ok_or_else(|| {
            let named: String = token.issuer.chars().filter(|c| !c.is_control()).take(200).collect();
            unverified(format!("issuer `{named}` is not configured"))
        })
    }

    #[cfg(test)]
    pub(crate) fn remembered_tokens(&self) -> usize {
        self.0.cache.len()
    }
}

/// The issuer's key for the token, and the generation of the set it is from. A key that is not known is asked for
/// once.
pub(crate) async fn key(
    token: &Unverified<'_>,
    issuer: &Issuer,
    keys: &Arc<IssuerKeys>,
    now: Timestamp,
) -> Checked<(Arc<Key>, u64)> {
    let algorithm = signature::algorithm(&token.header, issuer)?;
    if let Ok(loaded) = keys.current(now)
        && let Some(key) = signature::key(&token.header, algorithm, &loaded.set)?
    {
        return Ok((key, loaded.generation));
    }
    keys.refetch().await;
    let loaded = keys.current(now).map_err(unavailable)?;
    match signature::key(&token.header, algorithm, &loaded.set)? {
        Some(key) => Ok((key, loaded.generation)),
        // It may be a new key that cannot be seen yet; the caller shall come again.
        None if keys.failing() => {
            Err(unavailable(format!("unknown key {:?}, and the keys cannot be fetched", token.header.kid)))
        }
        None => Err(unverified(format!("{} has no key {:?} for {algorithm}", issuer.name, token.header.kid))),
    }
}

fn unavailable(internal: String) -> Box<Refusal> {
    let detail = "The keys that the token would be verified with are not available.";
    Box::new(Refusal::new(Code::KeysUnavailable, detail).internally(internal))
}

impl Seen {
    fn of(delegation: &Delegation, binding: Binding) -> Self {
        Self {
            issuer: delegation.token.issuer.clone(),
            digest: delegation.token.digest.clone(),
            jti: delegation.token.jti.clone(),
            user: Some(delegation.chain.user().principal.clone()),
            agent: Some(delegation.chain.agent().principal.clone()),
            tenant: Some(delegation.tenant.clone()),
            run: Some(delegation.run.clone()),
            task: delegation.task.id.clone(),
            position: delegation.position,
            bound_to: binding.certificate(),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.0.keys.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a credential.
        f.debug_struct("Presented").field("bearer_allowed", &self.bearer_allowed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
