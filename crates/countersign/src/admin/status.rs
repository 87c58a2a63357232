//! What `/status` says. No secret, no token, and nobody's calls are in it: it is about the sidecar, not its work.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::health::Readiness;

/// The state of a sidecar.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Status {
    /// The program's version.
    pub(crate) version: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// Its process.
    pub(crate) process_id: u32,
    /// When it began to serve.
    pub(crate) started: Timestamp,
    /// How long ago that was.
    pub(crate) uptime_seconds: u64,
    /// What `/readyz` says.
    #[serde(flatten)]
    pub(crate) readiness: Readiness,
    /// The configuration that decides.
    pub(crate) configuration: Configuration,
    /// The policies that decide.
    pub(crate) policy: Policies,
    /// The tools that agents can call.
    pub(crate) catalogue: Tools,
    /// Where decisions are recorded.
    pub(crate) ledger: LedgerStatus,
    /// What is known of the authority's withdrawals, where one is followed.
    pub(crate) authority: Option<AuthorityStatus>,
    /// Whose tokens are believed.
    pub(crate) issuers: Vec<IssuerStatus>,
    /// Where it listens.
    pub(crate) listeners: Listeners,
}

/// The configuration in force, and what became of the one on disk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Configuration {
    /// Its file.
    pub(crate) path: PathBuf,
    /// SHA-256 of the text that is in force.
    pub(crate) revision: String,
    /// Since when it is.
    pub(crate) since: Timestamp,
    /// The change that was refused last, where what is on disk is not what is in force.
    pub(crate) refused: Option<RefusedChange>,
}

/// A configuration or policy on disk that was not taken.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefusedChange {
    /// When it was refused first.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) why: String,
}

/// The policies in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Policies {
    /// The revision over all of them.
    pub(crate) revision: String,
    /// Each of them.
    pub(crate) bundles: Vec<Bundle>,
    /// What is asked beside them and decides nothing, where the configuration names a candidate.
    pub(crate) candidate: Option<CandidateStatus>,
}

/// A policy candidate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CandidateStatus {
    /// The revision that it would come to; nothing, before it could be loaded once.
    pub(crate) revision: Option<String>,
    /// The revision of what decides, beside which it is asked; nothing, while it is not.
    pub(crate) beside: Option<String>,
    /// Whether it is the very policy that decides, so that there is nothing to compare.
    pub(crate) same: bool,
    /// Since when it is asked.
    pub(crate) since: Option<Timestamp>,
    /// Of a hundred calls, how many it is asked about.
    pub(crate) percent: Option<u8>,
    /// The sources that are others than of what decides.
    pub(crate) bundles: Vec<Bundle>,
    /// Why what is configured is not asked, where it is not.
    pub(crate) refused: Option<RefusedChange>,
    /// Calls that it was asked about since then.
    pub(crate) compared: u64,
    /// Of those, how many it would have answered otherwise.
    pub(crate) differed: u64,
    /// Calls that it was not asked about: it is too slow for them, or something else decided.
    pub(crate) dropped: u64,
}

/// One source of policy, or of the catalogue.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bundle {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// The package it is confined to, where it is policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) package: Option<String>,
    /// Where it lies, where it is not fetched.
    pub(crate) path: Option<PathBuf>,
    /// What it calls itself (`revision` of its manifest).
    pub(crate) revision: Option<String>,
    /// Its place among its states (`metadata.serial` of its manifest).
    pub(crate) serial: Option<u64>,
    /// The digest of its archive, where it is one.
    pub(crate) sha256: Option<String>,
    /// The key that signed it, by its name in the configuration.
    pub(crate) signed_by: Option<String>,
    /// How its server is followed, where it is fetched.
    pub(crate) fetched: Option<FollowedBundle>,
    /// The pin that says at which revision it stays, where one does.
    pub(crate) pin: Option<PinStatus>,
    /// The tools it decides about, or whose actions it says; for the platform's own policy, all.
    #[serde(rename = "for")]
    pub(crate) tools: Option<Vec<String>>,
}

/// A pin, and how far it is obeyed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PinStatus {
    /// Its id.
    pub(crate) id: String,
    /// The revision that it names.
    pub(crate) revision: String,
    /// When it was made.
    pub(crate) since: Timestamp,
    /// When it is over by itself.
    pub(crate) until: Option<Timestamp>,
    /// Who made it.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// Why it is not obeyed, while it is not: what decided before it does.
    pub(crate) unmet: Option<String>,
    /// The newest that was taken from its server, and decides once the pin is over.
    pub(crate) waiting: Option<WaitingBundle>,
}

/// A bundle that may decide, and does not yet.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WaitingBundle {
    /// What it calls itself.
    pub(crate) revision: String,
    /// Its serial.
    pub(crate) serial: Option<u64>,
    /// The digest of its archive.
    pub(crate) sha256: Option<String>,
}

/// A bundle that is fetched.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FollowedBundle {
    /// From where.
    pub(crate) url: String,
    /// When its server last said that the one in force is the one.
    pub(crate) confirmed: Timestamp,
    /// Whether that is so long ago that its calls are refused.
    pub(crate) stale: bool,
    /// What its server has instead, where that was refused.
    pub(crate) refused: Option<RefusedBundle>,
    /// Why its server last gave nothing, while it does not.
    pub(crate) last_error: Option<String>,
}

/// A bundle that was not taken.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefusedBundle {
    /// When it was refused first.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) why: String,
    /// What it calls itself, where it could be opened.
    pub(crate) revision: Option<String>,
    /// Its serial.
    pub(crate) serial: Option<u64>,
    /// The digest of its archive.
    pub(crate) sha256: Option<String>,
}

/// The catalogue in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tools {
    /// Its revision.
    pub(crate) revision: String,
    /// The tools by name.
    pub(crate) tools: Vec<String>,
    /// The sources of actions that do not stand in the configuration.
    pub(crate) bundles: Vec<Bundle>,
    /// The actions that are only observed.
    pub(crate) observed: Vec<ObservedStatus>,
    /// The tools whose calls are passed through.
    pub(crate) passthrough: Vec<PassthroughStatus>,
}

/// An action whose refusals are written down and not enforced.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ObservedStatus {
    /// Its tool.
    pub(crate) tool: String,
    /// Its name.
    pub(crate) action: String,
    /// Who answers for it.
    pub(crate) owner: String,
    /// Until when it is observed.
    pub(crate) until: Timestamp,
    /// Whether that is over, so that it is enforced.
    pub(crate) ended: bool,
    /// The rung of the ladder that it stands on until then.
    pub(crate) rung: u8,
}

/// A tool whose calls go with the agents' own credential, where they show no token of ours.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PassthroughStatus {
    /// Its name.
    pub(crate) tool: String,
    /// Who answers for it.
    pub(crate) owner: String,
    /// Until when they go.
    pub(crate) until: Timestamp,
    /// Whether that is over, so that they are refused.
    pub(crate) ended: bool,
    /// The rung of the ladder that it stands on until then.
    pub(crate) rung: u8,
    /// The agent whose calls they are said to be.
    pub(crate) agent: Option<String>,
    /// The actions that need a delegated token all the same.
    pub(crate) except: Vec<String>,
    /// Whether those go too that no action is found for.
    pub(crate) unmapped: bool,
}

/// The ledger as it is now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LedgerStatus {
    /// Its id.
    pub(crate) id: String,
    /// Where it lies.
    pub(crate) dir: PathBuf,
    /// Whether it can be written.
    pub(crate) writable: bool,
    /// The key that its heads verify under.
    pub(crate) verifying_key: String,
    /// The newest signed head.
    pub(crate) head: Option<HeadStatus>,
    /// Records since the start.
    pub(crate) records: u64,
    /// Records that wait to be durable.
    pub(crate) queue: usize,
    /// Failed writes since the start.
    pub(crate) failures: u64,
    /// Bytes free on its disk.
    pub(crate) disk_free_bytes: Option<u64>,
    /// How its heads are anchored at the authority, where there is one.
    pub(crate) anchored: Option<AnchoredStatus>,
    /// How it is shipped there, where it is.
    pub(crate) shipped: Option<ShippedStatus>,
}

/// Whether the authority has the ledger's heads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AnchoredStatus {
    /// How many lines the newest head there covers; nothing, before it was heard of.
    pub(crate) size: Option<u64>,
    /// For how long a newer one has waited; zero where none does.
    pub(crate) lag_seconds: f64,
    /// Why the last attempt failed, while it does.
    pub(crate) last_error: Option<String>,
}

/// Whether the authority has the ledger's records.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShippedStatus {
    /// The age of the oldest record that is not there; zero where all are.
    pub(crate) lag_seconds: f64,
    /// Whether drafts and writes are refused for it.
    pub(crate) refuses_writes: bool,
    /// Why the last attempt failed, while it does.
    pub(crate) last_error: Option<String>,
}

/// A signed head.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HeadStatus {
    /// How many lines it covers.
    pub(crate) size: u64,
    /// The root over them.
    pub(crate) root: String,
}

/// The view of the authority that is followed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AuthorityStatus {
    /// Its URL.
    pub(crate) url: String,
    /// The generation of its database.
    pub(crate) generation: Option<String>,
    /// The position in its change log up to which everything is known.
    pub(crate) position: u64,
    /// How old the view is; nothing, before it was whole once.
    pub(crate) staleness_seconds: Option<f64>,
    /// How many withdrawals are held.
    pub(crate) withdrawals: usize,
    /// Why the last question brought nothing.
    pub(crate) last_error: Option<String>,
}

/// The keys of one issuer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct IssuerStatus {
    /// The issuer.
    pub(crate) issuer: String,
    /// How many keys can be used.
    pub(crate) keys: usize,
    /// How old they are.
    pub(crate) age_seconds: Option<u64>,
    /// The keys that are not used, each with the reason.
    pub(crate) ignored: Vec<String>,
    /// Why the last fetch failed.
    pub(crate) last_error: Option<String>,
}

/// Every listener.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Listeners {
    /// The agents'.
    pub(crate) agent: AgentListener,
    /// Of health and metrics.
    pub(crate) health: String,
    /// This one.
    pub(crate) admin: PathBuf,
}

/// Where agents connect.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AgentListener {
    /// Its address.
    pub(crate) address: String,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// The effects of calls that are let through with a token that nothing binds to its sender.
    pub(crate) plain_bearer: &'static [&'static str],
    /// The agents whose identities are held, where its entry is `exchanged`.
    pub(crate) exchanged: Option<ExchangedStatus>,
}

/// How tokens are obtained for agents whose identities are held.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExchangedStatus {
    /// The agents.
    pub(crate) agents: Vec<ExchangedAgent>,
    /// How many answers of the authority are kept.
    pub(crate) kept: usize,
    /// Why it could not be asked the last time, if so.
    pub(crate) last_error: Option<String>,
}

/// An agent whose identity is held.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExchangedAgent {
    /// Its id.
    pub(crate) agent: String,
    /// The `kid` of the key that is signed with for it.
    pub(crate) key: String,
}
