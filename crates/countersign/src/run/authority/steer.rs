//! The policies of an authority as their files change: tried and compiled beside those in force, and taken whole or not at
//! all. What cannot be taken leaves the last good ones deciding, and is said in the log, in metrics and at `/readyz`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use audit::Ledger;
use authority::Authority;
use aws_lc_rs::digest::{SHA256, digest};
use net::{Desk, Tasks};
use opentelemetry::{KeyValue, metrics::Counter};
use policy::{PolicySource, Steering};
use tokio::signal::unix::Signal;

use super::{activated, steering};
use crate::{
    health::Check,
    run::{findings::Findings, prepare, reloads},
};

/// Between two looks at the files. What two of them find is taken for finished.
const INTERVAL: Duration = Duration::from_secs(2);

/// What the files of policy say, by digest, or why that cannot be known.
pub(super) type Found = Result<Vec<u8>, String>;

/// What takes changes of policy.
pub(super) struct Reloader {
    /// Where they decide.
    pub(super) authority: Arc<Authority>,
    /// Where they lie.
    pub(super) configured: Vec<PolicySource>,
    /// Where activations are recorded.
    pub(super) ledger: Ledger,
    /// What others are told.
    pub(super) standing: Arc<Standing>,
    /// What was last tried, whatever came of it. `None`: it has to be tried again.
    pub(super) tried: Option<Found>,
    /// What runs beside requests.
    pub(super) tasks: Tasks,
    /// Where changes are read and compiled.
    pub(super) desk: Desk,
}

/// Which policies decide, and whether those on disk are others that were refused.
#[derive(Debug)]
pub(super) struct Standing(Mutex<(String, Option<String>)>);

/// Why nothing was taken.
enum Refused {
    /// What is on disk has to change first.
    Content(String),
    /// It is good, and could not be taken just now.
    Passing(String),
}

/// What the policies that are `configured` say now.
pub(super) fn find(configured: &[PolicySource]) -> Found {
    let mut findings = Findings::default();
    let sources = prepare::sources(configured, &mut findings);
    match sources {
        Some(sources) if findings.problems.is_empty() => {
            let text = serde_json::to_vec(&sources).map_err(|error| error.to_string())?;
            Ok(digest(&SHA256, &text).as_ref().to_vec())
        }
        _ => Err(findings.problems.join("\n  and: ")),
    }
}

impl Reloader {
    /// Takes changes as they come, and whenever `hangups` asks, until shutdown.
    pub(super) async fn keep_current(mut self, mut hangups: Signal) {
        let (stop, reloads) = (self.tasks.shutdown_token(), reloads::counter());
        let mut last = self.tried.clone();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = hangups.recv() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let configured = self.configured.clone();
            let finding = self.desk.run("policy watch", move || find(&configured));
            let Ok(found) = finding.join().await else { continue };
            let found = Some(found);
            // Somebody who writes several files is not done while each look finds something else.
            let settled = found == last;
            last.clone_from(&found);
            if !asked && (!settled || found == self.tried) {
                continue;
            }
            if asked {
                tracing::info!("SIGHUP: reading the policies again; other changes of the configuration need a restart");
            }
            self.tried = found;
            let outcome = self.attempt().await;
            self.tell(outcome, &reloads);
        }
    }

    fn tell(&mut self, outcome: Result<Option<String>, Refused>, reloads: &Counter<u64>) {
        let name = match outcome {
            Ok(None) => "unchanged",
            Ok(Some(revision)) => {
                tracing::info!(policy = revision, "reloaded");
                self.standing.inner().0 = revision;
                "taken"
            }
            Err(refused) => {
                let problem = match refused {
                    Refused::Content(problem) => problem,
                    Refused::Passing(problem) => {
                        self.tried = None;
                        problem
                    }
                };
                if self.standing.inner().1.replace(problem.clone()).as_ref() != Some(&problem) {
                    reloads.add(1, &[KeyValue::new("outcome", "refused")]);
                    tracing::error!("the policies on disk do not decide, those before them do: {problem}");
                }
                return;
            }
        };
        self.standing.inner().1 = None;
        reloads.add(1, &[KeyValue::new("outcome", name)]);
    }

    /// The new revision, where it is another one. It is on record before it decides anything.
    async fn attempt(&self) -> Result<Option<String>, Refused> {
        let configured = self.configured.clone();
        let trying = self.desk.run("policy reload", move || prepared(&configured));
        let policy = trying.join().await.map_err(|error| Refused::Passing(error.to_string()))?;
        let policy = policy.map_err(Refused::Content)?;
        let revision = policy.revision().to_owned();
        if revision == self.standing.inner().0 {
            return Ok(None);
        }
        let recorded = self.ledger.event(activated(&policy, &self.configured)).await;
        recorded.map_err(|error| Refused::Passing(format!("the ledger cannot record them: {error}")))?;
        self.authority.steer(policy);
        Ok(Some(revision))
    }
}

/// What lies on disk, as it would decide.
fn prepared(configured: &[PolicySource]) -> Result<Steering, String> {
    let mut findings = Findings::default();
    let steering = steering(configured, &mut findings);
    match steering {
        Some(steering) if findings.problems.is_empty() => Ok(steering),
        _ => Err(findings.problems.join("\n  and: ")),
    }
}

impl Standing {
    /// The policies of `revision` decide.
    pub(super) fn new(revision: &str) -> Arc<Self> {
        let standing = Arc::new(Self(Mutex::new((revision.to_owned(), None))));
        let looked_at = Arc::downgrade(&standing);
        reloads::gauge(move || looked_at.upgrade().map(|standing| standing.inner().1.is_some()));
        standing
    }

    /// For `/readyz`. A refused change is no reason to take requests away: what decided before still does.
    pub(super) fn check(&self) -> Check {
        let (revision, refused) = &*self.inner();
        let word = if refused.is_some() { "refused" } else { "in_force" };
        Check::of(true).with("revision", revision.as_str()).with("on_disk", word)
    }

    fn inner(&self) -> MutexGuard<'_, (String, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
