//! A file of cases as it is written. What is left out has a value of its own, so that a case says what it is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use jiff::Timestamp;
use model::{
    Action, AgentStatus, Code, Duty, Effect, Element, Id, Presence, Principal, Sensitivity, Stage, Tenant, Tool,
    Verdict, id::Run, limits::Window, registry,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A file of cases.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    /// What each case has that does not say otherwise. Parameters and facts are put together, everything else is
    /// replaced.
    #[serde(default)]
    pub(super) defaults: Case,
    /// The cases.
    #[schemars(with = "Vec<Case>")]
    pub(super) cases: Vec<Spanned<Case>>,
}

/// One call, and the decision it should get.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Case {
    /// What it shows: its name in reports. Required, and each only once.
    pub(super) name: Option<String>,
    /// Who calls what, in one line: `alice via support-v2 refunds.create orders/17`. Several `via` name the agents in
    /// between, the calling one last.
    pub(super) call: Option<String>,
    /// The user: their id, or more.
    pub(super) user: Option<NameOr<UserGiven>>,
    /// The calling agent: its id, or more.
    pub(super) agent: Option<NameOr<AgentGiven>>,
    /// The agents between the user and the calling one, in order.
    pub(super) through: Option<Vec<NameOr<AgentGiven>>>,
    /// The tool. Without it, the one in the catalogue that has the action.
    pub(super) tool: Option<Id<Tool>>,
    /// The action.
    pub(super) action: Option<Id<Action>>,
    /// What it does. Without it, what the catalogue says.
    pub(super) effect: Option<Effect>,
    /// The name of the resource: `orders/17`.
    pub(super) resource: Option<String>,
    /// Its parameters, by name: `amount: 20.00 USD`, `note: text`, `count: 3`, `tags: [a, b]`, or `{kind, value}`.
    pub(super) parameters: BTreeMap<String, Value>,
    /// What the sidecar would have read, by fact and leaf. `$user` and `$agent` stand for those principals.
    pub(super) facts: BTreeMap<String, BTreeMap<String, Value>>,
    /// The cumulative limits, as they stand before the call.
    pub(super) limits: Option<Vec<LimitGiven>>,
    /// The piece of work.
    pub(super) task: Option<TaskGiven>,
    /// The tenant whose data it touches.
    pub(super) tenant: Option<Id<Tenant>>,
    /// The moment of the decision. Without it, noon UTC on Monday 2026-01-05.
    #[schemars(with = "Option<String>")]
    pub(super) now: Option<Timestamp>,
    /// The request as it came in.
    pub(super) request: Option<RequestGiven>,
    /// What the token and every hop hold. Without it, the action on the tool and nothing that limits it.
    pub(super) delegation: Option<DelegationGiven>,
    /// What a ledger recorded, taken as it is in place of user, agent, through, task, tenant and delegation.
    pub(super) recorded: Option<RecordedGiven>,
    /// The decision it should get: `permit`, `deny`, `approval_required`, or more of it. Required.
    pub(super) expect: Option<NameOr<Expected>>,
    /// The parts without which a less careful decision is right, each with the reason why: `facts.order.status`.
    pub(super) more_permissive_without: BTreeMap<String, String>,
}

/// The user.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UserGiven {
    /// Their name at `issuer`.
    pub(super) id: String,
    /// Whose name that is. Without it, whose the principals in the tool's facts are.
    pub(super) issuer: Option<String>,
    /// The tenant they belong to. Without it, the call's.
    pub(super) tenant: Option<Id<Tenant>>,
    /// Their groups.
    pub(super) groups: BTreeSet<String>,
    /// Their roles.
    pub(super) roles: BTreeSet<String>,
    /// How strongly they were authenticated.
    pub(super) acr: Option<String>,
    /// Further attributes.
    pub(super) attributes: BTreeMap<String, String>,
}

/// An agent, with its registration.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AgentGiven {
    /// Its name at `issuer`.
    pub(super) id: String,
    /// Whose name that is.
    pub(super) issuer: Option<String>,
    /// The running copy.
    pub(super) instance: Option<String>,
    /// The accountable person.
    pub(super) owner: Option<String>,
    /// What it is registered to do. Without it, the action.
    pub(super) actions: Option<BTreeSet<Id<Action>>>,
    /// Whether it may act.
    pub(super) status: AgentStatus,
}

/// A cumulative limit, as it stands before the call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitGiven {
    /// Its name.
    pub(super) name: String,
    /// The most within a window: `200.00 USD`, or a number.
    pub(super) max: Value,
    /// What is used of it. Without it, nobody can say.
    #[serde(default)]
    pub(super) used: Option<Value>,
    /// The window, an ISO 8601 duration.
    pub(super) window: Window,
    /// The place in the chain of the hop whose limit it is.
    #[serde(default)]
    pub(super) hop: usize,
}

/// The piece of work.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TaskGiven {
    /// Its name.
    pub(super) id: Option<Id<registry::Task>>,
    /// The run it belongs to.
    pub(super) run: Option<Id<Run>>,
    /// What it is for.
    pub(super) use_case: Option<String>,
    /// Who started it.
    pub(super) initiated_by: Option<String>,
    /// How sensitive its data is. Without it, `high`, as in a sidecar.
    pub(super) sensitivity: Option<Sensitivity>,
    /// How far it may go. Without it, `supervised`: what falls short of the stage never comes to policy.
    pub(super) stage: Option<Stage>,
    /// Whether the user is there.
    pub(super) presence: Option<Presence>,
}

/// The request as it came in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RequestGiven {
    /// The HTTP method. Without it, the action's.
    pub(super) method: Option<String>,
    /// The path, with the tool's prefix. Without it, the action's on the resource.
    pub(super) path: Option<String>,
    /// The header fields that configuration lists, by lower-case name.
    pub(super) headers: BTreeMap<String, String>,
}

/// What the token and every hop hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DelegationGiven {
    /// Whether it covers the call. Where not, it holds nothing.
    pub(super) covers: Option<bool>,
    /// The elements it holds, as `authorization_details`.
    pub(super) details: Option<Vec<Element>>,
    /// The grant.
    pub(super) grant: Option<Id<registry::Grant>>,
    /// When the token ends. Without it, five minutes later.
    #[schemars(with = "Option<String>")]
    pub(super) expires_at: Option<Timestamp>,
    /// Whether a proof bound it to its sender on this call.
    pub(super) sender_constrained: bool,
}

/// What a ledger recorded.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordedGiven {
    /// The decision's id.
    pub(super) id: String,
    /// What the token proved.
    pub(super) delegation: Value,
    /// The calling agent's registration.
    pub(super) agent: Value,
}

/// The decision that is expected.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// The decision.
    #[schemars(with = "VerdictGiven")]
    pub(super) decision: Verdict,
    /// The refusal's code: `policy_denied`, `policy_no_allow`. Without it, any.
    #[serde(default)]
    pub(super) code: Option<Code>,
    /// The codes of all its reasons. Without it, any.
    #[serde(default)]
    pub(super) reasons: Option<BTreeSet<String>>,
    /// What it obliges to, all of it, in any order: `redact: [/customer/email]`. Without it, anything.
    #[serde(default)]
    pub(super) obligations: Option<Vec<Duty>>,
}

/// The word for a decision.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum VerdictGiven {
    Permit,
    Deny,
    ApprovalRequired,
}

impl Case {
    /// This, with what it leaves out taken from `defaults`.
    pub(super) fn with(mut self, defaults: &Self) -> Self {
        fn or<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        or(&mut self.name, &defaults.name);
        or(&mut self.call, &defaults.call);
        or(&mut self.tool, &defaults.tool);
        or(&mut self.action, &defaults.action);
        or(&mut self.effect, &defaults.effect);
        or(&mut self.resource, &defaults.resource);
        or(&mut self.limits, &defaults.limits);
        or(&mut self.now, &defaults.now);
        or(&mut self.request, &defaults.request);
        or(&mut self.expect, &defaults.expect);
        if self.recorded.is_none() {
            or(&mut self.user, &defaults.user);
            or(&mut self.agent, &defaults.agent);
            or(&mut self.through, &defaults.through);
            or(&mut self.task, &defaults.task);
            or(&mut self.tenant, &defaults.tenant);
            or(&mut self.delegation, &defaults.delegation);
        }
        for (name, value) in &defaults.parameters {
            self.parameters.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for (name, leaves) in &defaults.facts {
            let own = self.facts.entry(name.clone()).or_default();
            for (leaf, value) in leaves {
                own.entry(leaf.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// Whether it says anything of its own that a record says too.
    pub(super) fn says_what_is_recorded(&self) -> bool {
        self.user.is_some()
            || self.agent.is_some()
            || self.through.is_some()
            || self.task.is_some()
            || self.tenant.is_some()
            || self.delegation.is_some()
    }
}

/// Something that is written as its name alone, or with all its members.
#[derive(Debug, Clone)]
pub(super) struct NameOr<T>(pub(super) T);

/// What a name alone stands for.
pub(super) trait Named: Sized {
    fn named(name: &str) -> Result<Self, String>;
}

impl Named for UserGiven {
    fn named(name: &str) -> Result<Self, String> {
        Ok(Self { id: name.to_owned(), ..Self::default() })
    }
}

impl Named for AgentGiven {
    fn named(name: &str) -> Result<Self, String> {
        Ok(Self { id: name.to_owned(), ..Self::default() })
    }
}

impl Named for Expected {
    fn named(name: &str) -> Result<Self, String> {
        let known = [Verdict::Permit, Verdict::Deny, Verdict::ApprovalRequired];
        let decision = known.into_iter().find(|verdict| verdict.as_str() == name);
        let decision = decision.ok_or("a decision is `permit`, `deny` or `approval_required`")?;
        Ok(Self { decision, code: None, reasons: None, obligations: None })
    }
}

impl<'de, T: Named + Deserialize<'de>> Deserialize<'de> for NameOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Named + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NameOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or an object")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameOr<T>, E> {
                T::named(text).map(NameOr).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<NameOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(NameOr)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for NameOr<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrName", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()] })
    }
}

/// The id of a principal.
pub(super) fn principal_id(text: &str) -> Result<Id<Principal>, String> {
    Id::new(text).map_err(|error| format!("`{text}`: {error}"))
}
