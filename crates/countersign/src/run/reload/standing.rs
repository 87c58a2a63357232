//! What others are told of reloads: readiness, and the metrics that an alarm is set on.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use policy::{PolicySource, Source, bundle::Origin, config::SourceKind};
use proxy::config::Bearer;

use super::{bundles::Bundles, pins::Pins};
use crate::{
    admin::status::{Bundle, RefusedChange},
    config::sidecar::SidecarConfig,
    health::Check,
    run::{
        candidate::Told,
        reloads,
        sidecar::{needed, package},
    },
};

/// What is in force, and whether what is on disk is something else.
pub(crate) struct Standing {
    inner: Mutex<Inner>,
    /// The bundles that are fetched, which are looked at each time anew.
    fetched: Arc<Bundles>,
    /// Those that stay at a revision, likewise.
    pins: Arc<Pins>,
    /// The candidate beside it.
    candidate: Arc<Told>,
}

struct Inner {
    in_force: InForce,
    refused: Option<RefusedChange>,
}

/// What others are told of a configuration in force.
#[derive(Clone)]
pub(crate) struct InForce {
    /// Its revision.
    pub(crate) revision: String,
    /// Since when it is.
    pub(crate) since: Timestamp,
    /// The issuers without whose keys no call can be verified.
    needed: BTreeSet<String>,
    /// Where its policies come from.
    pub(crate) bundles: Vec<Bundle>,
    /// Where the actions of tools come from that do not stand in it.
    pub(crate) catalogue: Vec<Bundle>,
    /// What a token may do that nothing binds to its sender.
    pub(crate) bearer: Bearer,
}

impl InForce {
    /// Of `config` from `now` on, with the policies of `sources`.
    pub(crate) fn new(revision: &str, config: &SidecarConfig, sources: &[(Source, Origin)], now: Timestamp) -> Self {
        Self {
            revision: revision.to_owned(),
            since: now,
            needed: needed(config),
            bundles: bundles(&config.sources(), SourceKind::Policy, sources),
            catalogue: bundles(&config.sources(), SourceKind::Catalogue, sources),
            bearer: config.listen.agent.bearer,
        }
    }
}

fn bundles(configured: &[PolicySource], kind: SourceKind, sources: &[(Source, Origin)]) -> Vec<Bundle> {
    let origin = |name: &str| sources.iter().find(|(source, _)| source.name == name).map(|(_, origin)| origin);
    let of_kind = configured.iter().filter(|source| source.kind == kind);
    of_kind.map(|source| bundle(source, origin(&source.name))).collect()
}

/// What is told of one source of policy, and where it came from.
pub(crate) fn bundle(source: &PolicySource, origin: Option<&Origin>) -> Bundle {
    let manifest = origin.map(|origin| &origin.manifest);
    let revision = manifest.map(|manifest| manifest.revision.clone()).filter(|revision| !revision.is_empty());
    Bundle {
        revision,
        serial: manifest.and_then(|manifest| manifest.serial),
        sha256: origin.and_then(|origin| origin.digest.clone()),
        signed_by: origin.and_then(|origin| origin.signer.as_ref()).map(|signer| signer.key.clone()),
        fetched: None,
        pin: None,
        name: source.name.clone(),
        package: (source.kind == SourceKind::Policy).then(|| package(source)),
        path: (!source.path.as_os_str().is_empty()).then(|| source.path.clone()),
        tools: source.tools.as_ref().map(|tools| tools.iter().map(ToString::to_string).collect()),
    }
}

impl Standing {
    /// Of the configuration at start.
    pub(crate) fn new(in_force: InForce, fetched: Arc<Bundles>, pins: Arc<Pins>) -> Arc<Self> {
        let standing = Arc::new(Self {
            inner: Mutex::new(Inner { in_force, refused: None }),
            fetched,
            pins,
            candidate: Arc::default(),
        });
        let looked_at = Arc::downgrade(&standing);
        reloads::gauge(move || looked_at.upgrade().map(|standing| standing.inner().refused.is_some()));
        standing
    }

    /// Another configuration is in force.
    pub(super) fn activated(&self, in_force: InForce) {
        self.inner().in_force = in_force;
    }

    /// What `config` names came as `sources` now.
    pub(super) fn comes_from(&self, config: &SidecarConfig, sources: &[(Source, Origin)]) {
        let configured = config.sources();
        let mut inner = self.inner();
        inner.in_force.bundles = bundles(&configured, SourceKind::Policy, sources);
        inner.in_force.catalogue = bundles(&configured, SourceKind::Catalogue, sources);
    }

    /// What is on disk is in force.
    pub(super) fn holds(&self) {
        self.inner().refused = None;
    }

    /// What is on disk was refused at `now`, and why.
    pub(super) fn refused(&self, why: &str, now: Timestamp) {
        let mut inner = self.inner();
        let since = inner.refused.as_ref().filter(|refused| refused.why == why).map_or(now, |refused| refused.since);
        inner.refused = Some(RefusedChange { since, why: why.to_owned() });
    }

    /// The names of the sources that say actions of tools.
    pub(crate) fn catalogue(&self) -> Vec<String> {
        self.inner().in_force.catalogue.iter().map(|bundle| bundle.name.clone()).collect()
    }

    /// What others are told of the candidate.
    pub(crate) fn candidate(&self) -> &Arc<Told> {
        &self.candidate
    }

    /// Whether calls need the keys of `issuer`.
    pub(crate) fn needs(&self, issuer: &str) -> bool {
        self.inner().in_force.needed.contains(issuer)
    }

    /// What is in force, and the last change that is not.
    pub(crate) fn state(&self, now: Timestamp) -> (InForce, Option<RefusedChange>) {
        let (mut in_force, refused) = {
            let inner = self.inner();
            (inner.in_force.clone(), inner.refused.clone())
        };
        for bundle in in_force.bundles.iter_mut().chain(&mut in_force.catalogue) {
            bundle.fetched = self.fetched.state(&bundle.name, now);
            bundle.pin = self.pins.state(&bundle.name);
        }
        (in_force, refused)
    }

    /// For `/readyz`. A refused change is no reason to take calls away: what was in force still decides them.
    pub(crate) fn check(&self) -> Check {
        let inner = self.inner();
        let word = if inner.refused.is_some() { "refused" } else { "in_force" };
        Check::of(true).with("revision", inner.in_force.revision.as_str()).with("on_disk", word)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
