//! What something is done to, as policy sees it (`manage`): one description for each kind of thing that is managed.

use std::collections::BTreeSet;

use model::{Agent, Grant, Id, Principal, Target, Task, Tenant};
use policy::input::management::{Named, Object};
use store::{KnownLedger, Serves};

/// All things of a kind.
pub(super) fn all(kind: &'static str) -> Object {
    Object { kind, ..Object::default() }
}

/// An agent; `tenants` are those that are about to be added.
pub(super) fn agent(agent: &Agent, tenants: Option<&BTreeSet<Id<Tenant>>>) -> Object {
    Object {
        id: Some(agent.id.to_string()),
        agent: Some(Named { id: agent.id.clone(), issuer: agent.issuer.clone() }),
        tenants: agent.tenants.iter().chain(tenants.into_iter().flatten()).cloned().collect(),
        ..all("agent")
    }
}

/// A grant of `user` for `agent`; one to be made has no name yet.
pub(super) fn grant(id: Option<&Id<Grant>>, user: &Principal, agent: &Principal) -> Object {
    Object {
        id: id.map(ToString::to_string),
        user: Some(Named::from(user)),
        agent: Some(Named::from(agent)),
        ..all("grant")
    }
}

/// A task for `tenant` under `grant`.
pub(super) fn task(id: Option<&Id<Task>>, tenant: &Id<Tenant>, under: &Grant) -> Object {
    Object {
        kind: "task",
        id: id.map(ToString::to_string),
        tenants: [tenant.clone()].into(),
        ..grant(None, &under.user, &under.agent)
    }
}

/// A sidecar that serves so much, or a join token for one.
pub(super) fn sidecar(id: Option<&str>, serves: &Serves) -> Object {
    Object { id: id.map(str::to_owned), tenants: serves.tenants.clone(), ..all("sidecar") }
}

/// A pin of `bundle` at the sidecars of `tenant`, or at all of them: that concerns every one of `tenants`, lest a rule of
/// some tenant's own takes it for nobody's. Its id is the bundle's: roles are for one or another.
pub(super) fn pin(bundle: &str, tenant: Option<&Id<Tenant>>, tenants: &BTreeSet<Id<Tenant>>) -> Object {
    let tenants = tenant.map_or_else(|| tenants.clone(), |tenant| [tenant.clone()].into());
    Object { id: Some(bundle.to_owned()), tenants, ..all("pin") }
}

/// The pins of all `tenants`.
pub(super) fn pins(tenants: &BTreeSet<Id<Tenant>>) -> Object {
    Object { tenants: tenants.clone(), ..all("pin") }
}

/// What a ledger has of `tenant`.
pub(super) fn ledger(id: &Id<KnownLedger>, tenant: &Id<Tenant>) -> Object {
    Object { id: Some(id.to_string()), tenants: [tenant.clone()].into(), ..all("ledger") }
}

/// The withdrawal of `target`, as far as the target says whose it is.
pub(super) fn withdrawal(target: &Target) -> Object {
    let named = |issuer: &str, id: &Id<Principal>| Some(Named { id: id.clone(), issuer: issuer.to_owned() });
    let object = Object { id: Some(target.to_string()), ..all("withdrawal") };
    match target {
        Target::User { issuer, id } => Object { user: named(issuer, id), ..object },
        Target::Agent { issuer, id } | Target::Instance { issuer, agent: id, .. } => {
            Object { agent: named(issuer, id), ..object }
        }
        Target::Tenant { id } => Object { tenants: [id.clone()].into(), ..object },
        Target::Session { .. }
        | Target::Task { .. }
        | Target::Run { .. }
        | Target::Grant { .. }
        | Target::Token { .. } => object,
    }
}
