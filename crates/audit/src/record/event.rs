//! Records that are not about one call: starts and stops, activations, summaries, issued tokens, alerts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{
    Action, Authority, Code, Id, Principal, Tenant, Tool,
    id::{DecisionMark, Run},
    registry::{Grant, Task},
};
use serde::Serialize;

use super::{
    AuthorityChange, Component, CopyChanged, CredentialOverdue, Issuing, Mode, Notice, OtherHistory, PinUnmet,
    PolicyCandidate, PolicyCompared, PolicyDiffered, PolicyRuling, ShownByAnother, SidecarUnrecorded, Started,
    Unshipped, UsedAfterEnd, UsedByAnother, WrittenIssuing, alert, amend, candidate, change, kind, obligation, ruling,
};
use crate::{canonical::Unrecordable, recovery::Previous, values::Draft};

/// A bundle of policy, or of the catalogue, that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActivatedBundle {
    /// Its name in the configuration.
    pub name: String,
    /// The digest of its archive.
    pub sha256: String,
    /// What it calls itself.
    pub revision: String,
    /// Its place among its states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    /// The key that signed it, by its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The serial that it went back from, where it did: the configuration let it, or a pin asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<u64>,
    /// The pin that it is kept by, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The tools whose actions it says; `None` where it is policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<BTreeSet<Id<Tool>>>,
}

/// Something that happened beside calls.
#[derive(Debug, Clone)]
pub enum Event {
    /// A policy revision came into force.
    PolicyActivated {
        /// The revision.
        revision: String,
        /// Its packages.
        packages: Vec<String>,
        /// Whether the policies themselves are kept with the ledger, to decide by again; `None` where nobody keeps them.
        kept: Option<bool>,
        /// The bundles among them.
        bundles: Vec<ActivatedBundle>,
        /// The revision of the catalogue that they decide about, where parts of that come from sources of its own.
        catalogue: Option<String>,
    },
    /// A candidate is asked beside what decides, or no longer.
    PolicyCandidate(Box<PolicyCandidate>),
    /// A candidate would have answered otherwise.
    PolicyDiffered(Box<PolicyDiffered>),
    /// Of how many calls a candidate was asked.
    PolicyCompared(Box<PolicyCompared>),
    /// A configuration came into force.
    ConfigActivated {
        /// Its digest.
        revision: String,
        /// The catalogue's revision.
        catalogue: Option<String>,
    },
    /// An action is only observed from now on, or is enforced again.
    ModeChanged(ModeChanged),
    /// Refusals without a verified principal, counted.
    RefusalsSummary {
        /// Since when.
        from: Timestamp,
        /// Until when.
        to: Timestamp,
        /// How many, by code.
        counts: BTreeMap<Code, u64>,
    },
    /// Refusals of somebody known that were too many of one kind for a record each.
    RefusalsFolded(Box<RefusalsFolded>),
    /// The authority issued a token.
    TokenIssued(Box<TokenIssued>),
    /// The authority refused a token to a client that had proved who it is.
    TokenRefused(Box<TokenRefused>),
    /// The authority changed what stands registered, granted, started or withdrawn.
    AuthorityChange(Box<AuthorityChange>),
    /// A token was used after it, or what it was issued for, had been taken back.
    UsedAfterEnd(Box<UsedAfterEnd>),
    /// A token was used by another instance than the one it is bound to.
    UsedByAnother(Box<UsedByAnother>),
    /// A token came to the authority by another instance than the one it was issued to.
    ShownByAnother(Box<ShownByAnother>),
    /// A credential of an agent is older than it may be.
    CredentialOverdue(Box<CredentialOverdue>),
    /// A sidecar's ledger is not the one whose head is anchored.
    OtherHistory(Box<OtherHistory>),
    /// Records have not been at the authority for longer than they may.
    Unshipped(Unshipped),
    /// A sidecar cannot write its ledger, or can again.
    SidecarUnrecorded(Box<SidecarUnrecorded>),
    /// A pin of policy is not obeyed at this sidecar.
    PinUnmet(Box<PinUnmet>),
    /// Policy obliged to tell somebody of a call.
    Notice(Box<Notice>),
    /// The authority took something away from its copy of a ledger.
    CopyChanged(Box<CopyChanged>),
    /// The file of a signing key is deleted at this replica: nothing good can be signed with it any more.
    KeyDeleted {
        /// Its id.
        key_id: String,
        /// `retired` or `withdrawn`.
        because: &'static str,
    },
}

/// An action whose mode is another than before.
#[derive(Debug, Clone)]
pub struct ModeChanged {
    /// Its tool.
    pub tool: Id<Tool>,
    /// The action; none where it is about the whole tool.
    pub action: Option<Id<Action>>,
    /// The mode it is in now.
    pub mode: Mode,
    /// Who answers for it, where it is only observed or passed through.
    pub owner: Option<String>,
    /// Until when it is.
    pub until: Option<Timestamp>,
    /// Where a tool's calls are passed through, its actions whose calls are not.
    pub except: BTreeSet<Id<Action>>,
}

/// Refusals that are alike, beyond those that have records of their own.
#[derive(Debug, Clone)]
pub struct RefusalsFolded {
    /// When the first of them was decided.
    pub from: Timestamp,
    /// When the last was.
    pub to: Timestamp,
    /// How many.
    pub count: u64,
    /// Why.
    pub code: Code,
    /// The user they were for, as far as it is known.
    pub user: Option<Principal>,
    /// The agent that made the calls, as far as it is known.
    pub agent: Option<Principal>,
    /// The tool, where the call was recognised.
    pub tool: Option<Id<Tool>>,
    /// The action, where the call was recognised.
    pub action: Option<Id<Action>>,
    /// A refusal of the same kind that has a record of its own.
    pub like: Option<Id<DecisionMark>>,
    /// The decision id that the first of them was answered with.
    pub first: Id<DecisionMark>,
}

/// A token the authority issued: for whom, to whom, under what.
#[derive(Debug, Clone)]
pub struct TokenIssued {
    /// SHA-256 of the compact token, base64url: what a sidecar's records cite.
    pub digest: String,
    /// Its `jti`.
    pub jti: String,
    /// The OAuth client it was issued to.
    pub client_id: String,
    /// Its audience.
    pub audience: String,
    /// The user, first of the chain.
    pub user: Principal,
    /// The agents, in the chain's order; the last is the one the token is for.
    pub agents: Vec<Principal>,
    /// What it allows.
    pub authority: Authority,
    /// Whether less was given than was asked for.
    pub narrowed: bool,
    /// SHA-256 of the subject token it was exchanged for, base64url.
    pub subject_digest: Option<String>,
    /// The grant.
    pub grant: Option<Id<Grant>>,
    /// The task.
    pub task: Option<Id<Task>>,
    /// The run.
    pub run: Id<Run>,
    /// The tenant.
    pub tenant: Id<Tenant>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What policy said of it, where there is one.
    pub policy: Option<PolicyRuling>,
    /// What policy was asked, or would have been.
    pub asked: Option<Box<Issuing>>,
}

/// A token the authority did not issue. Who asked is verified; nothing else about the request need be.
#[derive(Debug, Clone)]
pub struct TokenRefused {
    /// The agent that asked.
    pub agent: Principal,
    /// The OAuth error code it was answered with.
    pub error: &'static str,
    /// What it was told is wrong.
    pub description: String,
    /// What policy said of it, where it was asked.
    pub policy: Option<PolicyRuling>,
    /// What it was asked.
    pub asked: Option<Box<Issuing>>,
}

impl Event {
    /// What is told to whoever is told of it, and is kept beside the line.
    pub(crate) fn words(&self) -> Option<&str> {
        if let Self::Notice(notice) = self { Some(&notice.message) } else { None }
    }
}

pub(crate) fn event(event: &Event) -> Result<Draft, Unrecordable> {
    match event {
        Event::PolicyActivated { revision, packages, kept, bundles, catalogue } => {
            let mut draft = Draft::new("policy.activated")?;
            draft.plain("revision", revision)?;
            draft.plain("packages", packages)?;
            draft.optional("kept", kept.as_ref())?;
            draft.optional("bundles", (!bundles.is_empty()).then_some(bundles))?;
            draft.optional("catalogue", catalogue.as_ref())?;
            Ok(draft)
        }
        Event::PolicyCandidate(about) => candidate::candidate(about),
        Event::PolicyDiffered(about) => candidate::differed(about),
        Event::PolicyCompared(about) => candidate::compared(about),
        Event::ConfigActivated { revision, catalogue } => {
            let mut draft = Draft::new("config.activated")?;
            draft.plain("revision", revision)?;
            draft.optional("catalogue", catalogue.as_ref())?;
            Ok(draft)
        }
        Event::ModeChanged(changed) => {
            let mut draft = Draft::new("mode.changed")?;
            draft.plain("tool", &changed.tool)?;
            draft.optional("action", changed.action.as_ref())?;
            draft.plain("mode", &changed.mode)?;
            draft.plain("rung", &changed.mode.rung())?;
            draft.optional("owner", changed.owner.as_ref())?;
            draft.optional("until", changed.until.as_ref())?;
            draft.optional("except", Some(&changed.except).filter(|except| !except.is_empty()))?;
            Ok(draft)
        }
        Event::RefusalsSummary { from, to, counts } => {
            let mut draft = Draft::new("refusals.summary")?;
            draft.plain("from", from)?;
            draft.plain("to", to)?;
            draft.plain("counts", counts)?;
            Ok(draft)
        }
        Event::RefusalsFolded(folded) => refusals_folded(folded),
        Event::TokenIssued(issued) => token_issued(issued),
        Event::TokenRefused(refused) => token_refused(refused),
        Event::AuthorityChange(changed) => change::change(changed),
        Event::UsedAfterEnd(used) => alert::used_after_end(used),
        Event::UsedByAnother(used) => alert::used_by_another(used),
        Event::ShownByAnother(shown) => alert::shown_by_another(shown),
        Event::CredentialOverdue(overdue) => alert::credential_overdue(overdue),
        Event::OtherHistory(other) => alert::other_history(other),
        Event::Unshipped(unshipped) => alert::unshipped(unshipped),
        Event::SidecarUnrecorded(unrecorded) => alert::sidecar_unrecorded(unrecorded),
        Event::PinUnmet(unmet) => alert::pin_unmet(unmet),
        Event::Notice(notice) => obligation::notice(notice),
        Event::CopyChanged(changed) => amend::copy_changed(changed),
        Event::KeyDeleted { key_id, because } => {
            let mut draft = Draft::new("key.deleted")?;
            draft.plain("key_id", key_id)?;
            draft.plain("because", because)?;
            Ok(draft)
        }
    }
}

fn refusals_folded(folded: &RefusalsFolded) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new("refusals.summary")?;
    draft.plain("from", &folded.from)?;
    draft.plain("to", &folded.to)?;
    draft.plain("counts", &BTreeMap::from([(folded.code, folded.count)]))?;
    if let Some(user) = &folded.user {
        draft.personal("user", user)?;
    }
    draft.optional("agent", folded.agent.as_ref())?;
    draft.optional("tool", folded.tool.as_ref())?;
    draft.optional("action", folded.action.as_ref())?;
    draft.optional("like", folded.like.as_ref())?;
    draft.plain("first", &folded.first)?;
    Ok(draft)
}

fn token_issued(issued: &TokenIssued) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::TOKEN_ISSUED)?;
    draft.plain("token", &issued.digest)?;
    draft.plain("jti", &issued.jti)?;
    draft.plain("client_id", &issued.client_id)?;
    draft.plain("audience", &issued.audience)?;
    draft.personal("user", &issued.user)?;
    draft.optional("agent", issued.agents.last())?;
    let agents: Vec<_> = issued.agents.iter().map(|agent| &agent.id).collect();
    draft.plain("agents", &agents)?;
    draft.personal("authority", &issued.authority)?;
    draft.plain("narrowed", &issued.narrowed)?;
    draft.optional("subject_token", issued.subject_digest.as_ref())?;
    draft.optional("grant_id", issued.grant.as_ref())?;
    draft.optional("task_id", issued.task.as_ref())?;
    draft.plain("run_id", &issued.run)?;
    draft.plain("tenant", &issued.tenant)?;
    draft.plain("expires_at", &issued.expires_at)?;
    if let Some(asked) = &issued.asked {
        draft.personal("asked", &WrittenIssuing::from(&**asked))?;
    }
    ruling::members(&mut draft, issued.policy.as_ref())?;
    Ok(draft)
}

fn token_refused(refused: &TokenRefused) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::TOKEN_REFUSED)?;
    draft.plain("client_id", &refused.agent.id)?;
    draft.plain("agent", &refused.agent)?;
    draft.plain("error", &refused.error)?;
    draft.personal("description", &refused.description)?;
    if let Some(asked) = &refused.asked {
        if let Some(user) = asked.chain.first() {
            draft.personal("user", &user.principal)?;
        }
        draft.plain("tenant", &asked.tenant)?;
        draft.plain("run_id", &asked.run)?;
        draft.optional("task_id", asked.task.id.as_ref())?;
        draft.plain("grant_id", &asked.grant.id)?;
        draft.personal("asked", &WrittenIssuing::from(&**asked))?;
    }
    ruling::members(&mut draft, refused.policy.as_ref())?;
    Ok(draft)
}

pub(crate) fn started(started: &Started, ledger: &str, previous: &Previous) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(started.component.started())?;
    draft.plain("name", &started.name)?;
    draft.plain("version", &started.version)?;
    draft.plain("ledger", &ledger)?;
    draft.plain("previous", previous)?;
    Ok(draft)
}

pub(crate) fn stopped(component: Component) -> Result<Draft, Unrecordable> {
    Draft::new(component.stopped())
}

/// The ledger could not be written for a while, and `refused` appends were not taken.
pub(crate) fn unavailable(since: Timestamp, refused: u64, why: &str) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"ledger_unavailable")?;
    draft.plain("since", &since)?;
    draft.plain("refused", &refused)?;
    draft.plain("why", &why)?;
    Ok(draft)
}
