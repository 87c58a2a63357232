//! Which part of the API a path leads to, and what may be done there.

use http::Method;
use percent_encoding::percent_decode_str;

use super::{
    Answer, Call,
    agents::Step,
    problem::{Code, Problem},
};
use crate::Authority;

/// A part of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v1/openapi.json`: for everybody.
    Description,
    /// `/v1/withdrawals`
    Withdrawals,
    /// `/v1/changes`: for enrolled sidecars.
    Changes,
    /// `/v1/ledger-heads`: for enrolled sidecars.
    LedgerHeads,
    /// `/v1/ledger-segments`: for enrolled sidecars.
    LedgerSegments,
    /// `/v1/ledger-erasures`: for enrolled sidecars.
    LedgerErasures,
    /// `/v1/ledgers`
    Ledgers,
    /// `/v1/ledgers/{id}`
    Ledger(String),
    /// `/v1/ledgers/{id}/records`
    Records(String),
    /// `/v1/ledgers/{id}/decisions/{decision}`
    Decision(String, String),
    /// `/v1/ledgers/{id}/segments`
    Segments(String),
    /// `/v1/ledgers/{id}/files/{name}`
    LedgerFile(String, String),
    /// `/v1/ledgers/{id}/erase`
    EraseFrom(String),
    /// `/v1/alerts`: for enrolled sidecars.
    Alerts,
    /// `/v1/limits`: for enrolled sidecars.
    Limits,
    /// `/v1/charges`: for enrolled sidecars.
    Charges,
    /// `/v1/pins`
    Pins,
    /// `/v1/pins/{id}/remove`
    RemovePin(String),
    /// `/v1/sidecars`
    Sidecars,
    /// `/v1/sidecars/enrol`: for whoever holds a join token.
    Enrol,
    /// `/v1/sidecars/{id}`
    Sidecar(String),
    /// `/v1/sidecars/{id}/remove`
    RemoveSidecar(String),
    /// `/v1/agents`
    Agents,
    /// `/v1/agents/{id}`
    Agent(String),
    /// `/v1/agents/{id}/suspend`, `…/reinstate`, `…/decommission`
    StepAgent(String, Step),
    /// `/v1/agents/{id}/change`
    ChangeAgent(String),
    /// `/v1/agents/{id}/credentials`
    AddCredential(String),
    /// `/v1/agents/{id}/credentials/{credential}/remove`
    RemoveCredential(String, String),
    /// `/v1/grants`
    Grants,
    /// `/v1/grants/{id}`
    Grant(String),
    /// `/v1/grants/{id}/change`
    ChangeGrant(String),
    /// `/v1/grants/{id}/withdraw`
    WithdrawGrant(String),
    /// `/v1/tasks`
    Tasks,
    /// `/v1/tasks/{id}`
    Task(String),
    /// `/v1/tasks/{id}/end`
    EndTask(String),
    /// `/v1/tasks/{id}/stage`
    StageTask(String),
}

impl Route {
    /// Where `path`, which is what follows `/v1`, leads to.
    pub(crate) fn at(path: &str) -> Result<Self, Problem> {
        let segments = path.strip_prefix('/').map(|path| path.split('/').map(decode).collect::<Result<Vec<_>, _>>());
        let segments = segments.ok_or_else(nothing)??;
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let owned = |id: &str| id.to_owned();
        Ok(match segments.as_slice() {
            ["openapi.json"] => Self::Description,
            ["withdrawals"] => Self::Withdrawals,
            ["changes"] => Self::Changes,
            ["alerts"] => Self::Alerts,
            ["limits"] => Self::Limits,
            ["charges"] => Self::Charges,
            ["ledger-heads"] => Self::LedgerHeads,
            ["ledger-segments"] => Self::LedgerSegments,
            ["ledger-erasures"] => Self::LedgerErasures,
            ["ledgers"] => Self::Ledgers,
            ["ledgers", id] => Self::Ledger(owned(id)),
            ["ledgers", id, "records"] => Self::Records(owned(id)),
            ["ledgers", id, "decisions", decision] => Self::Decision(owned(id), owned(decision)),
            ["ledgers", id, "segments"] => Self::Segments(owned(id)),
            ["ledgers", id, "files", name] => Self::LedgerFile(owned(id), owned(name)),
            ["ledgers", id, "erase"] => Self::EraseFrom(owned(id)),
            ["pins"] => Self::Pins,
            ["pins", id, "remove"] => Self::RemovePin(owned(id)),
            ["sidecars"] => Self::Sidecars,
            ["sidecars", "enrol"] => Self::Enrol,
            ["sidecars", id] => Self::Sidecar(owned(id)),
            ["sidecars", id, "remove"] => Self::RemoveSidecar(owned(id)),
            ["agents"] => Self::Agents,
            ["agents", id] => Self::Agent(owned(id)),
            ["agents", id, "suspend"] => Self::StepAgent(owned(id), Step::Suspend),
            ["agents", id, "reinstate"] => Self::StepAgent(owned(id), Step::Reinstate),
            ["agents", id, "decommission"] => Self::StepAgent(owned(id), Step::Decommission),
            ["agents", id, "change"] => Self::ChangeAgent(owned(id)),
            ["agents", id, "credentials"] => Self::AddCredential(owned(id)),
            ["agents", id, "credentials", credential, "remove"] => Self::RemoveCredential(owned(id), owned(credential)),
            ["grants"] => Self::Grants,
            ["grants", id] => Self::Grant(owned(id)),
            ["grants", id, "change"] => Self::ChangeGrant(owned(id)),
            ["grants", id, "withdraw"] => Self::WithdrawGrant(owned(id)),
            ["tasks"] => Self::Tasks,
            ["tasks", id] => Self::Task(owned(id)),
            ["tasks", id, "end"] => Self::EndTask(owned(id)),
            ["tasks", id, "stage"] => Self::StageTask(owned(id)),
            _ => return Err(nothing()),
        })
    }

    /// What may be done there.
    pub(crate) const fn methods(&self) -> &'static [Method] {
        match self {
            Self::LedgerSegments
            | Self::Withdrawals
            | Self::Pins
            | Self::Sidecars
            | Self::Agents
            | Self::Grants
            | Self::Tasks => &[Method::GET, Method::POST],
            Self::Ledgers
            | Self::Ledger(_)
            | Self::Records(_)
            | Self::Decision(..)
            | Self::Segments(_)
            | Self::LedgerFile(..)
            | Self::Description
            | Self::Changes
            | Self::Sidecar(_)
            | Self::Agent(_)
            | Self::Grant(_)
            | Self::Task(_) => &[Method::GET],
            Self::Enrol
            | Self::Alerts
            | Self::Limits
            | Self::Charges
            | Self::LedgerHeads
            | Self::LedgerErasures
            | Self::EraseFrom(_)
            | Self::RemovePin(_)
            | Self::RemoveSidecar(_)
            | Self::StepAgent(..)
            | Self::ChangeAgent(_)
            | Self::AddCredential(_)
            | Self::RemoveCredential(..)
            | Self::ChangeGrant(_)
            | Self::WithdrawGrant(_)
            | Self::EndTask(_)
            | Self::StageTask(_) => &[Method::POST],
        }
    }

    /// What is done there by `method`, as policy knows it (`manage`).
    pub(crate) fn operation(&self, method: &Method) -> &'static str {
        match (self, method == Method::POST) {
            (Self::Withdrawals, true) => "withdrawals.create",
            (Self::Withdrawals, false) => "withdrawals.list",
            (Self::Ledgers, _) => "ledgers.list",
            (Self::EraseFrom(_), _) => "ledgers.erase",
            (Self::Ledger(_) | Self::Records(_) | Self::Decision(..) | Self::Segments(_) | Self::LedgerFile(..), _) => {
                "ledgers.show"
            }
            (Self::Pins, true) => "pins.create",
            (Self::Pins, false) => "pins.list",
            (Self::RemovePin(_), _) => "pins.remove",
            (Self::Sidecars, true) => "sidecars.invite",
            (Self::Sidecars, false) => "sidecars.list",
            (Self::Sidecar(_), _) => "sidecars.show",
            (Self::RemoveSidecar(_), _) => "sidecars.remove",
            (Self::Agents, true) => "agents.register",
            (Self::Agents, false) => "agents.list",
            (Self::Agent(_), _) => "agents.show",
            (Self::StepAgent(_, Step::Suspend), _) => "agents.suspend",
            (Self::StepAgent(_, Step::Reinstate), _) => "agents.reinstate",
            (Self::StepAgent(_, Step::Decommission), _) => "agents.decommission",
            (Self::ChangeAgent(_), _) => "agents.change",
            (Self::AddCredential(_), _) => "agents.credentials.add",
            (Self::RemoveCredential(..), _) => "agents.credentials.remove",
            (Self::Grants, true) => "grants.create",
            (Self::Grants, false) => "grants.list",
            (Self::Grant(_), _) => "grants.show",
            (Self::ChangeGrant(_), _) => "grants.change",
            (Self::WithdrawGrant(_), _) => "grants.withdraw",
            (Self::Tasks, true) => "tasks.start",
            (Self::Tasks, false) => "tasks.list",
            (Self::Task(_), _) => "tasks.show",
            (Self::EndTask(_), _) => "tasks.end",
            (Self::StageTask(_), _) => "tasks.stage",
            // What nobody's management token is for.
            _ => self.name(),
        }
    }

    /// Its name in logs and metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Description => "openapi.json",
            Self::Withdrawals => "withdrawals",
            Self::Changes => "changes",
            Self::Alerts => "alerts",
            Self::Limits => "limits",
            Self::Charges => "charges",
            Self::LedgerHeads => "ledger-heads",
            Self::LedgerSegments => "ledger-segments",
            Self::LedgerErasures => "ledger-erasures",
            Self::Ledgers => "ledgers",
            Self::Ledger(_) => "ledgers/{id}",
            Self::Records(_) => "ledgers/{id}/records",
            Self::Decision(..) => "ledgers/{id}/decisions/{decision}",
            Self::Segments(_) => "ledgers/{id}/segments",
            Self::LedgerFile(..) => "ledgers/{id}/files/{name}",
            Self::EraseFrom(_) => "ledgers/{id}/erase",
            Self::Pins => "pins",
            Self::RemovePin(_) => "pins/{id}/remove",
            Self::Sidecars => "sidecars",
            Self::Enrol => "sidecars/enrol",
            Self::Sidecar(_) => "sidecars/{id}",
            Self::RemoveSidecar(_) => "sidecars/{id}/remove",
            Self::Agents => "agents",
            Self::Agent(_) => "agents/{id}",
            Self::StepAgent(_, Step::Suspend) => "agents/{id}/suspend",
            Self::StepAgent(_, Step::Reinstate) => "agents/{id}/reinstate",
            Self::StepAgent(_, Step::Decommission) => "agents/{id}/decommission",
            Self::ChangeAgent(_) => "agents/{id}/change",
            Self::AddCredential(_) => "agents/{id}/credentials",
            Self::RemoveCredential(..) => "agents/{id}/credentials/{credential}/remove",
            Self::Grants => "grants",
            Self::Grant(_) => "grants/{id}",
            Self::ChangeGrant(_) => "grants/{id}/change",
            Self::WithdrawGrant(_) => "grants/{id}/withdraw",
            Self::Tasks => "tasks",
            Self::Task(_) => "tasks/{id}",
            Self::EndTask(_) => "tasks/{id}/end",
            Self::StageTask(_) => "tasks/{id}/stage",
        }
    }
}

impl Authority {
    /// What a user's `call` of `route` comes to.
    pub(super) async fn answer(&self, route: &Route, method: &Method, call: &Call) -> Result<Answer, Problem> {
        if method == Method::POST { self.write(route, call).await } else { self.read(route, call).await }
    }

    async fn read(&self, route: &Route, call: &Call) -> Result<Answer, Problem> {
        match route {
            Route::Withdrawals => self.withdrawals(call).await,
            Route::Ledgers => self.ledgers(call).await,
            Route::Ledger(id) => self.show_ledger(id, call).await,
            Route::Records(id) => self.records(id, call).await,
            Route::Decision(id, decision) => self.decision(id, decision, call).await,
            Route::Segments(id) => self.segments_of(id, call).await,
            Route::LedgerFile(id, name) => self.file_of(id, name, call).await,
            Route::Pins => self.pins(call).await,
            Route::Sidecars => self.sidecars(call).await,
            Route::Sidecar(id) => self.show_sidecar(id, call).await,
            Route::Agents => self.agents(call).await,
            Route::Agent(id) => self.show_agent(id, call).await,
            Route::Grants => self.grants(call).await,
            Route::Grant(id) => self.show_grant(id, call).await,
            Route::Tasks => self.tasks(call).await,
            Route::Task(id) => self.show_task(id, call).await,
            // Asked without a user and answered before, or nothing to read.
            _ => Err(nothing()),
        }
    }

    async fn write(&self, route: &Route, call: &Call) -> Result<Answer, Problem> {
        match route {
            Route::Withdrawals => self.withdraw(call).await,
            Route::Pins => self.pin(call).await,
            Route::RemovePin(id) => self.unpin(id, call).await,
            Route::Sidecars => self.invite(call).await,
            Route::RemoveSidecar(id) => self.remove_sidecar(id, call).await,
            Route::EraseFrom(id) => self.erase_from(id, call).await,
            Route::Agents => self.register(call).await,
            Route::StepAgent(id, step) => self.step_agent(id, *step, call).await,
            Route::ChangeAgent(id) => self.change_agent(id, call).await,
            Route::AddCredential(id) => self.add_credential(id, call).await,
            Route::RemoveCredential(id, credential) => self.remove_credential(id, credential, call).await,
            Route::Grants => self.give(call).await,
            Route::ChangeGrant(id) => self.change_grant(id, call).await,
            Route::WithdrawGrant(id) => self.withdraw_grant(id, call).await,
            Route::Tasks => self.start(call).await,
            Route::EndTask(id) => self.end(id, call).await,
            Route::StageTask(id) => self.stage(id, call).await,
            // Asked without a user and answered before, or nothing to write.
            _ => Err(nothing()),
        }
    }
}

fn decode(segment: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| nothing())?;
    if decoded.is_empty() { Err(nothing()) } else { Ok(decoded.into_owned()) }
}

fn nothing() -> Problem {
    Problem::new(Code::NotFound, "There is nothing here.")
}
