//! What a running sidecar says of itself: to probes whether it is ready, and to its operator everything.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use audit::Ledger;
use jiff::Timestamp;
use net::LocalAddress;
use proxy::{ExchangeState, Sidecar, ViewState, config::Bearer};
use token::{KeyStatus, Verifier};

use super::{modes, reload::Standing, uplink::Told};
use crate::{
    admin::status::{
        AgentListener, AuthorityStatus, Configuration, ExchangedAgent, ExchangedStatus, HeadStatus, IssuerStatus,
        LedgerStatus, Listeners, Policies, Status, Tools,
    },
    config::sidecar::SidecarConfig,
    health::{Check, Readiness},
};

/// The parts that are looked at, each time anew.
#[derive(Clone)]
pub(super) struct Seen {
    sidecar: Arc<Sidecar>,
    ledger: Ledger,
    standing: Arc<Standing>,
    stopping: Arc<AtomicBool>,
    /// Whether the keys that calls are verified with were there once. Keys that grow old later refuse calls by their
    /// own code, and do not take every sidecar out of service at the same moment.
    synchronised: Arc<AtomicBool>,
}

impl Seen {
    pub(super) fn new(
        sidecar: &Arc<Sidecar>,
        ledger: &Ledger,
        standing: &Arc<Standing>,
        stopping: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            sidecar: Arc::clone(sidecar),
            ledger: ledger.clone(),
            standing: Arc::clone(standing),
            stopping: Arc::clone(stopping),
            synchronised: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Ready: the ledger can be written; the keys that calls are verified with, and what is withdrawn, were there once.
    pub(super) fn readiness(&self) -> Readiness {
        let snapshot = self.sidecar.snapshot();
        let checks = [
            ("ledger", Check::of(self.ledger.healthy())),
            ("configuration", self.standing.check()),
            ("keys", self.keys(snapshot.verifier())),
            ("policy", Check::of(true).with("revision", snapshot.policy().revision())),
            ("running", Check::of(!self.stopping.load(Ordering::Acquire))),
        ];
        // What is withdrawn was known once. A view that grows old later refuses calls by its own code.
        let authority = self.sidecar.withdrawals().map(|view| ("authority", Check::of(view.caught_up())));
        Readiness::of(checks.into_iter().chain(authority))
    }

    /// Issuers that only name users are no condition: no call is verified with their keys.
    fn keys(&self, verifier: &Verifier) -> Check {
        let statuses = verifier.keys_status();
        if statuses.iter().all(|status| status.keys > 0 || !self.standing.needs(&status.issuer)) {
            self.synchronised.store(true, Ordering::Release);
        }
        let issuers: Vec<serde_json::Value> = statuses
            .into_iter()
            .map(|status| {
                let age = status.age.map(|age| age.as_secs());
                serde_json::json!({ "issuer": status.issuer, "keys": status.keys, "age_seconds": age })
            })
            .collect();
        Check::of(self.synchronised.load(Ordering::Acquire)).with("issuers", issuers)
    }
}

/// What does not change while the process lives.
pub(super) struct About {
    name: String,
    path: PathBuf,
    started: Timestamp,
    ledger: PathBuf,
    authority: Option<String>,
    agent: LocalAddress,
    tls: bool,
    health: SocketAddr,
    admin: PathBuf,
    told: Told,
}

impl About {
    pub(super) fn new(
        path: &Path,
        config: &SidecarConfig,
        agent: &LocalAddress,
        health: SocketAddr,
        admin: &Path,
        told: Told,
    ) -> Self {
        Self {
            name: config.sidecar.name.clone(),
            path: path.to_owned(),
            started: net::clock::now(),
            ledger: config.ledger.dir.clone(),
            authority: config.authority.as_ref().map(|authority| authority.url.clone()),
            agent: agent.clone(),
            tls: config.listen.agent.tls.is_some(),
            health,
            admin: admin.to_owned(),
            told,
        }
    }

    /// Everything, as it is now.
    pub(super) fn status(&self, seen: &Seen) -> Status {
        let now = net::clock::now();
        let snapshot = seen.sidecar.snapshot();
        let (in_force, refused) = seen.standing.state(now);
        let catalogue = snapshot.catalogue();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            name: self.name.clone(),
            process_id: std::process::id(),
            started: self.started,
            uptime_seconds: now.duration_since(self.started).as_secs().try_into().unwrap_or_default(),
            readiness: seen.readiness(),
            configuration: Configuration {
                path: self.path.clone(),
                revision: in_force.revision,
                since: in_force.since,
                refused,
            },
            policy: Policies {
                revision: snapshot.policy().revision().to_owned(),
                bundles: in_force.bundles,
                candidate: seen.standing.candidate().status(seen.sidecar.candidate_state(), now),
            },
            catalogue: Tools {
                revision: catalogue.revision().to_owned(),
                tools: catalogue.tools().iter().map(|tool| tool.id.to_string()).collect(),
                bundles: in_force.catalogue,
                observed: modes::status(snapshot.observed(), now),
                passthrough: modes::passing(snapshot.observed(), now),
            },
            ledger: self.ledger(&seen.ledger),
            authority: seen.sidecar.withdrawals().map(|view| self.authority(&view.state())),
            issuers: snapshot.verifier().keys_status().into_iter().map(issuer).collect(),
            listeners: Listeners {
                agent: AgentListener {
                    address: self.agent.to_string(),
                    tls: self.tls,
                    plain_bearer: effects(in_force.bearer),
                    exchanged: seen.sidecar.exchange_state().map(exchanged),
                },
                health: self.health.to_string(),
                admin: self.admin.clone(),
            },
        }
    }

    fn authority(&self, view: &ViewState) -> AuthorityStatus {
        AuthorityStatus {
            url: self.authority.clone().unwrap_or_default(),
            generation: view.generation.clone(),
            position: view.position,
            staleness_seconds: view.staleness.map(|age| age.as_secs_f64()),
            withdrawals: view.held,
            last_error: view.failing.clone(),
        }
    }

    fn ledger(&self, ledger: &Ledger) -> LedgerStatus {
        let stats = ledger.stats();
        LedgerStatus {
            id: ledger.id().to_owned(),
            dir: self.ledger.clone(),
            writable: ledger.healthy(),
            verifying_key: ledger.verifying_key().to_string(),
            head: ledger.head().map(|head| HeadStatus { size: head.size, root: head.root_text() }),
            records: stats.records,
            queue: stats.queue,
            failures: stats.failures,
            disk_free_bytes: stats.disk_free_bytes,
            anchored: self.told.anchored(),
            shipped: self.told.shipped(),
        }
    }
}

fn issuer(status: KeyStatus) -> IssuerStatus {
    let KeyStatus { issuer, age, keys, ignored, last_error } = status;
    IssuerStatus { issuer, keys, age_seconds: age.map(|age| age.as_secs()), ignored, last_error }
}

fn exchanged(state: ExchangeState) -> ExchangedStatus {
    let ExchangeState { agents, kept, failing } = state;
    let agents = agents.into_iter().map(|(agent, key)| ExchangedAgent { agent: agent.to_string(), key }).collect();
    ExchangedStatus { agents, kept, last_error: failing }
}

/// What plain bearer may do.
const fn effects(bearer: Bearer) -> &'static [&'static str] {
    match bearer {
        Bearer::Refuse => &[],
        Bearer::Reads => &["read"],
        Bearer::All => &["read", "draft", "write"],
    }
}
