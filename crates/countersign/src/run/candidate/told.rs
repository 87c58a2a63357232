//! What others are told of the candidate: the status, and the metrics that an alarm is set on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use audit::record::PolicyCandidate;
use jiff::Timestamp;
use opentelemetry::{KeyValue, global};
use policy::{Source, bundle::Origin};
use proxy::CandidateState;

use super::Basis;
use crate::{
    admin::status::{Bundle, CandidateStatus, RefusedChange},
    run::reload::{Bundles, described},
};

/// The candidate as others know it.
#[derive(Default)]
pub(crate) struct Told(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Whether the configuration in force names one.
    wanted: bool,
    stands: Option<Stands>,
    /// The revision of what decides, where the candidate is the very same.
    same: Option<String>,
    bundles: Vec<Bundle>,
    refused: Option<RefusedChange>,
    fetched: Option<Arc<Bundles>>,
}

struct Stands {
    about: PolicyCandidate,
    since: Timestamp,
}

impl Told {
    /// The configuration names none any more.
    pub(super) fn nothing_wanted(&self) {
        let stands = self.inner().stands.take();
        *self.inner() = Inner { stands, ..Inner::default() };
    }

    /// How those are followed that are fetched.
    pub(super) fn follows(&self, basis: &Basis, fetched: &Arc<Bundles>) {
        let mut inner = self.inner();
        inner.wanted = true;
        inner.fetched = Some(Arc::clone(fetched));
        if inner.stands.is_none() && inner.same.is_none() {
            inner.bundles = bundles(basis, &[]);
        }
    }

    /// What is asked, where something is.
    pub(super) fn stood(&self) -> Option<PolicyCandidate> {
        self.inner().stands.as_ref().map(|stands| stands.about.clone())
    }

    /// That `about` is asked from `now` on, or as it was.
    pub(super) fn stands(&self, about: PolicyCandidate, basis: &Basis, own: &[(Source, Origin)], now: Timestamp) {
        let mut inner = self.inner();
        let before = inner
            .stands
            .as_ref()
            .filter(|stands| (&stands.about.revision, &stands.about.active) == (&about.revision, &about.active));
        let since = before.map_or(now, |stands| stands.since);
        inner.stands = Some(Stands { about, since });
        inner.same = None;
        inner.bundles = bundles(basis, own);
    }

    /// That there is nothing to compare.
    pub(super) fn is_the_same(&self, revision: &str, basis: &Basis, own: &[(Source, Origin)]) {
        let mut inner = self.inner();
        inner.same = Some(revision.to_owned());
        inner.bundles = bundles(basis, own);
    }

    /// Nothing is asked any more; what was, where something was.
    pub(super) fn ended(&self) -> Option<PolicyCandidate> {
        self.inner().stands.take().map(|stands| stands.about)
    }

    /// What is wanted is asked.
    pub(super) fn holds(&self) {
        self.inner().refused = None;
    }

    /// What is wanted cannot be asked, and why; whether that is news.
    pub(super) fn refused(&self, why: &str, now: Timestamp) -> bool {
        let mut inner = self.inner();
        let known = inner.refused.as_ref().is_some_and(|refused| refused.why == why);
        if !known {
            inner.refused = Some(RefusedChange { since: now, why: why.to_owned() });
        }
        !known
    }

    /// What the status says of it at `now`, where one is wanted.
    pub(crate) fn status(&self, state: Option<CandidateState>, now: Timestamp) -> Option<CandidateStatus> {
        let inner = self.inner();
        if !inner.wanted {
            return None;
        }
        let mut bundles = inner.bundles.clone();
        for bundle in &mut bundles {
            bundle.fetched = inner.fetched.as_ref().and_then(|fetched| fetched.state(&bundle.name, now));
        }
        let about = inner.stands.as_ref();
        // The other may just be taking its place.
        let state = state.filter(|state| about.is_some_and(|stands| stands.about.revision == state.revision));
        let counted = |of: fn(&CandidateState) -> u64| state.as_ref().map_or(0, of);
        Some(CandidateStatus {
            revision: about.map(|stands| stands.about.revision.clone()).or_else(|| inner.same.clone()),
            beside: about.map(|stands| stands.about.active.clone()),
            same: inner.same.is_some(),
            since: about.map(|stands| stands.since),
            percent: about.map(|stands| stands.about.percent),
            bundles,
            refused: inner.refused.clone(),
            compared: counted(|state| state.compared),
            differed: counted(|state| state.differed),
            dropped: counted(|state| state.dropped),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bundles(basis: &Basis, own: &[(Source, Origin)]) -> Vec<Bundle> {
    let origin = |name: &str| own.iter().find(|(source, _)| source.name == name).map(|(_, origin)| origin);
    basis.wanted().iter().map(|source| described(source, origin(&source.name))).collect()
}

pub(super) fn gauges(told: &Arc<Told>) {
    let meter = global::meter("countersign");
    // Meters live as long as the process, and a sidecar may end before it.
    let seen: Weak<Told> = Arc::downgrade(told);
    let _info = meter
        .u64_observable_gauge("countersign_policy_candidate_info")
        .with_description("Always 1; the labels say which bundles are candidates, and the revision they would come to")
        .with_callback(move |observer| {
            let Some(told) = seen.upgrade() else { return };
            let inner = told.inner();
            let Some(stands) = &inner.stands else { return };
            for bundle in &inner.bundles {
                let labels = [("bundle", &bundle.name), ("revision", &stands.about.revision)];
                observer.observe(1, &labels.map(|(name, value)| KeyValue::new(name, value.clone())));
            }
        })
        .build();
    let seen = Arc::downgrade(told);
    let _refused = meter
        .u64_observable_gauge("countersign_policy_candidate_refused")
        .with_description("1 while the policy candidate that is configured is not asked")
        .with_callback(move |observer| {
            if let Some(told) = seen.upgrade() {
                let inner = told.inner();
                if inner.wanted {
                    observer.observe(u64::from(inner.refused.is_some()), &[]);
                }
            }
        })
        .build();
}
