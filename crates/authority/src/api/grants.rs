//! `/v1/grants`: what a user lets one agent do. Made by the user, or by an administrator on record; never more than
//! the user may do themselves; narrowed and withdrawn at any time.

use jiff::Timestamp;
use model::{
    Action, Authority as Held, Element, Grant, Id, Presence, Principal, PrincipalKind, Scope, Stage,
    duration::ConfigDuration,
};
use policy::input::management::{Named as Name, Object};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::{Committed, GrantChange, GrantFilter, GrantRecord, GrantStatus, NewGrant};

use super::{
    Answer, Call,
    body::text,
    caller::Caller,
    object,
    page::{answer, page},
    problem::{Code, Problem},
    sidecars::Reason,
};
use crate::{
    Authority,
    narrow::{Ceiling, Limiting, Most, narrow},
};

/// The longest that a grant may last.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 3600);
/// The most elements of a grant.
const MAX_ELEMENTS: usize = 64;

/// A principal, by its name alone or with whose name it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Named {
    Id(Id<Principal>),
    Whole { issuer: String, id: Id<Principal> },
}

/// A grant to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Giving {
    agent: Named,
    /// Somebody else, for whom an administrator makes it.
    #[serde(default)]
    user: Option<Named>,
    #[serde(default)]
    scope: Option<Scope>,
    authorization_details: Vec<Element>,
    #[serde(default)]
    stage: Stage,
    #[serde(default)]
    presence: Vec<Presence>,
    #[serde(default)]
    redelegate: usize,
    expires_in: ConfigDuration,
    #[serde(default)]
    reason: Option<String>,
}

/// What is to be different.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangingGrant {
    #[serde(default)]
    scope: Option<Scope>,
    #[serde(default)]
    authorization_details: Option<Vec<Element>>,
    #[serde(default)]
    stage: Option<Stage>,
    #[serde(default)]
    presence: Option<Vec<Presence>>,
    #[serde(default)]
    redelegate: Option<usize>,
    #[serde(default)]
    expires_in: Option<ConfigDuration>,
    reason: String,
}

/// What was left out of a grant because its user may not do it themselves.
struct Clipped {
    left_out: Vec<Id<Action>>,
    known: Known,
}

/// How it is known what a user may do themselves.
enum Known {
    /// Their own token says it now.
    ByToken,
    /// A token of theirs said it, the last of them then.
    AsOf(Timestamp),
    /// It is not known.
    Not,
}

impl Clipped {
    fn tell(&self, answer: &mut Map<String, Value>) {
        if !self.left_out.is_empty() {
            answer.insert("clipped".to_owned(), json!(self.left_out));
        }
        match self.known {
            Known::ByToken => None,
            Known::AsOf(last) => answer.insert("entitlement_as_of".to_owned(), json!(last)),
            Known::Not => answer.insert("clipped_at_exchange".to_owned(), json!(true)),
        };
    }
}

impl Authority {
    /// Makes a grant.
    pub(super) async fn give(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        call.caller.must_be_fresh(call.now)?;
        let giving: Giving = call.read()?;
        let agent = self.agent_named(giving.agent);
        let user = giver(&call.caller, giving.user, &agent)?;
        let asked = held(giving.scope, giving.authorization_details)?;
        let (authority, clipped) = self.clip(&call.caller, &user, &asked).await?;
        let new = NewGrant {
            id: None,
            agent,
            user,
            authority,
            stage: giving.stage,
            presence: giving.presence,
            expires_at: ends(call.now, giving.expires_in)?,
            redelegate: giving.redelegate,
        };
        let reason = giving.reason.map(|reason| text("reason", &reason)).transpose()?;
        let committed = self.store.create_grant(&call.writer(reason), new).await?;
        self.grant_answer(committed, Some(&clipped)).await.map(Answer::for_new)
    }

    /// The grants: a user's own, or everybody's for an administrator.
    pub(super) async fn grants(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["user", "agent", "status", "limit", "cursor"])?;
        let status = match call.query.value("status") {
            None => None,
            Some("active") => Some(GrantStatus::Active),
            Some("withdrawn") => Some(GrantStatus::Withdrawn),
            Some(_) => return Err(Problem::invalid("`status` has to be `active` or `withdrawn`")),
        };
        let agent = call.query.value("agent").map(|text| named(text, &self.settings.issuer)).transpose()?;
        let filter = GrantFilter { user: self.whose("grant", call)?, agent, status };
        let listed = self.store.grants(&filter, page(&call.query)?).await?;
        Ok(Answer::ok(answer("grants", &listed, |record| shown(record, call.now))))
    }

    /// One grant.
    pub(super) async fn show_grant(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let record = self.own_grant(id, &call.caller).await?;
        Ok(Answer::ok(shown(&record, call.now)))
    }

    /// Changes a grant. What lessens it withdraws what was issued before; what widens it needs a fresh login.
    pub(super) async fn change_grant(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let before = self.own_grant(id, &call.caller).await?;
        let changing: ChangingGrant = call.read()?;
        let mut clipped = None;
        let authority = match (changing.scope, changing.authorization_details) {
            (None, None) => None,
            (scope, elements) => {
                let asked = held(scope, elements.unwrap_or_else(|| before.grant.authority.elements.to_vec()))?;
                let (authority, left_out) = self.clip(&call.caller, &before.grant.user, &asked).await?;
                clipped = Some(left_out);
                Some(authority)
            }
        };
        let change = GrantChange {
            authority,
            stage: changing.stage,
            presence: changing.presence,
            expires_at: changing.expires_in.map(|it| ends(call.now, it)).transpose()?,
            redelegate: changing.redelegate,
        };
        let after = change.clone().apply(&before);
        if before.is_less_than(&after) {
            call.caller.must_be_fresh(call.now)?;
        }
        let writer = call.writer(Some(text("reason", &changing.reason)?));
        let committed = self.store.change_grant(&writer, &before.grant.id, change).await?;
        self.grant_answer(committed, clipped.as_ref()).await
    }

    /// Withdraws a grant, and ends every task under it.
    pub(super) async fn withdraw_grant(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let before = self.own_grant(id, &call.caller).await?;
        let Reason { reason } = call.read()?;
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.withdraw_grant(&writer, &before.grant.id).await?;
        self.grant_answer(committed, None).await
    }

    async fn grant_answer(
        &self,
        committed: Committed<GrantRecord>,
        clipped: Option<&Clipped>,
    ) -> Result<Answer, Problem> {
        self.recorded(committed.position).await?;
        let mut body = shown(&committed.value, committed.value.given);
        if let (Some(clipped), Some(members)) = (clipped, body.as_object_mut()) {
            clipped.tell(members);
        }
        Ok(Answer::ok(body).replayed(committed.replayed))
    }

    /// The grant called `id`, if it is the caller's business.
    pub(super) async fn own_grant(&self, id: &str, caller: &Caller) -> Result<GrantRecord, Problem> {
        let id: Id<Grant> = Id::new(id).map_err(|_| Problem::not_found())?;
        let record = self.store.grant(&id).await?.ok_or_else(Problem::not_found)?;
        let Grant { id, user, agent, .. } = &record.grant;
        caller.must_own(user, &object::grant(Some(id), user, agent))?;
        Ok(record)
    }

    /// The user whose things a list shows: the caller, or whom an administrator names; nobody in particular, for one
    /// who names none.
    pub(super) fn whose(&self, kind: &'static str, call: &Call) -> Result<Option<(String, Id<Principal>)>, Problem> {
        let own = (call.caller.user.issuer.clone(), call.caller.user.id.clone());
        let asked = match call.query.value("user") {
            None => None,
            Some("me") => Some(own.clone()),
            Some(text) => Some(named(text, &call.caller.user.issuer)?),
        };
        let user = asked.as_ref().map(|(issuer, id)| Name { id: id.clone(), issuer: issuer.clone() });
        match (call.caller.administers(&Object { user, ..object::all(kind) }), asked) {
            (true, asked) => Ok(asked),
            (false, Some(other)) if other != own => Err(Problem::not_found()),
            (false, _) => Ok(Some(own)),
        }
    }

    /// What of it the user may do themselves: by their own token, or of another user by the last that was seen here. Of
    /// one who was never seen, only their next token says; it is clipped at each exchange, as every grant is.
    async fn clip(&self, caller: &Caller, user: &Principal, asked: &Held) -> Result<(Held, Clipped), Problem> {
        let own = user.is(&caller.user);
        let (entitlement, known) = if own {
            (caller.entitlement.clone(), Known::ByToken)
        } else {
            let seen = self.store.known_in_tenants(&user.issuer, &user.id).await?;
            match (self.issuers.get(&user.issuer), seen.iter().map(|seen| seen.as_of).max()) {
                (Some(issuer), Some(last)) => {
                    (seen.iter().flat_map(|seen| issuer.entitlement(&seen.claims)).collect(), Known::AsOf(last))
                }
                _ => return Ok((asked.clone(), Clipped { left_out: Vec::new(), known: Known::Not })),
            }
        };
        let ceiling = Ceiling { of: Limiting::User, is: Most::Actions(&entitlement) };
        let left = narrow(asked, [ceiling]).map_err(|limiting| {
            Problem::new(Code::Beyond, format!("There would be nothing in the grant: {limiting}."))
                .with("limiting_hop", if own { &caller.user } else { user }.to_string())
        })?;
        let left_out = asked.scope.iter().filter(|action| !left.scope.contains(action)).cloned().collect();
        Ok((left, Clipped { left_out, known }))
    }

    fn agent_named(&self, agent: Named) -> Principal {
        let (issuer, id) = match agent {
            Named::Id(id) => (self.settings.issuer.clone(), id),
            Named::Whole { issuer, id } => (issuer, id),
        };
        Principal { kind: PrincipalKind::Agent, id, issuer, tenant: None }
    }
}

/// Who gives: the caller, or whom an administrator gives for.
fn giver(caller: &Caller, user: Option<Named>, agent: &Principal) -> Result<Principal, Problem> {
    let (issuer, id) = match user {
        None => return Ok(Principal { tenant: None, ..caller.user.clone() }),
        Some(Named::Id(id)) => (caller.user.issuer.clone(), id),
        Some(Named::Whole { issuer, id }) => (issuer, id),
    };
    let user = Principal { kind: PrincipalKind::User, id, issuer, tenant: None };
    if user.is(&caller.user) || caller.administers(&object::grant(None, &user, agent)) {
        Ok(user)
    } else {
        Err(Problem::forbidden("Only an administrator makes a grant for somebody else."))
    }
}

/// `ISSUER#ID`, or `ID` of the usual issuer.
fn named(text: &str, usual: &str) -> Result<(String, Id<Principal>), Problem> {
    let (issuer, id) = text.rsplit_once('#').unwrap_or((usual, text));
    let id = Id::new(id).map_err(|error| Problem::invalid(format!("`{text}`: {error}")))?;
    Ok((issuer.to_owned(), id))
}

fn held(scope: Option<Scope>, elements: Vec<Element>) -> Result<Held, Problem> {
    if elements.is_empty() || elements.len() > MAX_ELEMENTS {
        return Err(Problem::invalid(format!("`authorization_details` has to have 1 to {MAX_ELEMENTS} elements")));
    }
    let named = || elements.iter().flat_map(|element| element.actions.iter().cloned()).collect();
    Ok(Held { scope: scope.unwrap_or_else(named), elements: elements.into() })
}

pub(super) fn ends(now: Timestamp, within: ConfigDuration) -> Result<Timestamp, Problem> {
    if within.0.is_zero() || within.0 > LONGEST {
        return Err(Problem::invalid("`expires_in` has to be between 1s and 366d"));
    }
    now.checked_add(within.0).map_err(|error| Problem::invalid(error.to_string()))
}

fn shown(record: &GrantRecord, now: Timestamp) -> Value {
    let GrantRecord { grant, presence, status, given, given_by } = record;
    let expired = *status == GrantStatus::Active && grant.expires_at <= now;
    json!({
        "id": grant.id,
        "user": { "issuer": grant.user.issuer, "id": grant.user.id },
        "agent": { "issuer": grant.agent.issuer, "id": grant.agent.id },
        "scope": grant.authority.scope,
        "authorization_details": grant.authority.elements,
        "stage": grant.stage,
        "presence": presence,
        "redelegate": grant.redelegate,
        "status": if expired { json!("expired") } else { json!(status) },
        "expires_at": grant.expires_at,
        "given_at": given,
        "given_by": given_by,
    })
}

/// What the body may be.
pub(super) fn giving_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Giving>()
}

/// What the body may be.
pub(super) fn changing_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ChangingGrant>()
}
