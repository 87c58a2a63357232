//! From a case as it is written to the question that policy is asked, as a sidecar would put it: parameters, facts and
//! the resource are those that the catalogue declares, and every leaf that the case does not give is null.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use model::{
    Action, Agent, Authority, CanonicalPath, Catalogue, Chain, Decision, Delegation, Duty, Effect, Facts, Hop, Id,
    Obligation, Parameters, Principal, PrincipalKind, Question, Tool, Verdict,
    authority::ElementType,
    chain::{Evidence, MAX_AGENTS},
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
    question::{Call, LimitState, Protocol, RequestFacts},
};

use super::{
    CaseError,
    given::{AgentGiven, Case, DelegationGiven, Expected, LimitGiven, NameOr, RecordedGiven, UserGiven, principal_id},
    values::{self, People},
};

/// The moment of a case that names none: noon on a Monday.
pub const DEFAULT_NOW: &str = "2026-01-05T12:00:00Z";
/// Whose names agents have, and users where no fact names one.
const ISSUER: &str = "https://countersign.example";
/// The tenant, where neither case nor tool names one.
const TENANT: &str = "example";
/// How long a token lasts.
const LIFETIME: SignedDuration = SignedDuration::from_mins(5);

/// A case, ready to be decided.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line of the case.
    pub line: u64,
    /// What policy is asked.
    pub question: Question,
    /// What it should say.
    pub(super) expected: Expected,
    /// The parts that may make the decision more permissive by not being there, with the reason why.
    pub(super) acknowledged: BTreeMap<String, String>,
    /// The action as it is declared.
    pub(super) action: Option<Action>,
}

impl Built {
    /// Why `decision` is not what is expected.
    #[must_use]
    pub fn differs(&self, decision: &Decision) -> Option<String> {
        let Expected { decision: verdict, code, reasons, obligations } = &self.expected;
        let codes = || decision.reasons.iter().map(|reason| reason.code.clone()).collect();
        let wanted = || {
            let code = code.map(|code| format!(" {}", code.as_str())).unwrap_or_default();
            let because = |reasons: &std::collections::BTreeSet<String>| {
                format!(" because of {}", reasons.iter().cloned().collect::<Vec<_>>().join(", "))
            };
            let obliged = |duties: &Vec<Duty>| {
                let duties: Vec<_> = duties.iter().map(ToString::to_string).collect();
                if duties.is_empty() {
                    " without obligations".to_owned()
                } else {
                    format!(" with {}", duties.join("; "))
                }
            };
            let because = reasons.as_ref().map(because).unwrap_or_default();
            format!("{}{code}{because}{}", verdict.as_str(), obligations.as_ref().map(obliged).unwrap_or_default())
        };
        let same = decision.verdict == *verdict
            && code.is_none_or(|code| decision.code == Some(code))
            && reasons.as_ref().is_none_or(|reasons| *reasons == codes())
            && obligations.as_ref().is_none_or(|duties| obliges_to(decision, duties));
        (!same).then(|| format!("expected {}, it is {}", wanted(), said(decision)))
    }
}

/// Whether `decision` obliges to each of `duties` and to nothing else, in whatever order.
fn obliges_to(decision: &Decision, duties: &[Duty]) -> bool {
    let found = || decision.obligations.iter().map(|obligation| &obligation.duty);
    duties.iter().all(|duty| found().any(|found| found == duty)) && found().all(|found| duties.contains(found))
}

/// A decision in a line: `deny policy_denied: not_your_order (countersign.teams.support)`.
#[must_use]
pub fn said(decision: &Decision) -> String {
    let mut text = decision.verdict.as_str().to_owned();
    if let Some(code) = decision.code.filter(|_| decision.verdict == Verdict::Deny) {
        text.push_str(&format!(" {}", code.as_str()));
    }
    let reasons: Vec<String> =
        decision.reasons.iter().map(|reason| format!("{} ({})", reason.code, reason.source)).collect();
    if !reasons.is_empty() {
        text.push_str(&format!(": {}", reasons.join(", ")));
    }
    for Obligation { duty, source, .. } in &decision.obligations {
        text.push_str(&format!("; {duty} ({source})"));
    }
    text
}

/// The question that `case` is.
pub(super) fn question(mut case: Case, catalogue: Option<&Catalogue>, place: &CaseError) -> Result<Built, String> {
    let name = case.name.clone().ok_or("a case has a `name`")?;
    let expected = case.expect.clone().ok_or("a case says what to `expect`")?.0;
    if let Some(line) = case.call.take() {
        spoken(&line, &mut case)?;
    }
    let action_id = case.action.clone().ok_or("a case names an `action`, in `call` or by itself")?;
    let known = known(catalogue, case.tool.as_ref(), &action_id)?;
    let now = case.now.map_or_else(|| DEFAULT_NOW.parse::<Timestamp>(), Ok).map_err(|error| error.to_string())?;
    let tool = match (&case.tool, known) {
        (Some(tool), _) => tool.clone(),
        (None, Some((tool, _))) => tool.id.clone(),
        (None, None) => return Err("without a catalogue a case names its `tool`".to_owned()),
    };
    let scene = Scene { case: &case, action: &action_id, tool: &tool, known, now };
    let (delegation, agent) = match &case.recorded {
        Some(recorded) => scene.recorded(recorded)?,
        None => scene.delegation()?,
    };
    let call = Call {
        tool: tool.clone(),
        action: action_id.clone(),
        effect: case.effect.or(known.map(|(_, action)| action.effect)).unwrap_or(Effect::Write),
        resource: scene.resource()?,
        parameters: scene.parameters()?,
    };
    let people = People { user: &delegation.chain.user().principal, agent: &delegation.chain.agent().principal };
    let question = Question {
        id: case_id(case.recorded.as_ref())?,
        now,
        request: scene.request(&call.resource)?,
        facts: scene.facts(people)?,
        limits: case.limits.iter().flatten().map(limit).collect::<Result<_, _>>()?,
        call,
        agent: Arc::new(agent),
        delegation: Arc::new(delegation),
    };
    Ok(Built {
        name,
        file: place.file.clone(),
        line: place.line,
        question,
        expected,
        acknowledged: case.more_permissive_without,
        action: known.map(|(_, action)| action.clone()),
    })
}

fn case_id(recorded: Option<&RecordedGiven>) -> Result<Id<model::id::DecisionMark>, String> {
    let id = recorded.map_or("case", |recorded| recorded.id.as_str());
    Id::new(id).map_err(|error| format!("`{id}`: {error}"))
}

/// What `alice via support-v2 refunds.create orders/17` says.
fn spoken(line: &str, case: &mut Case) -> Result<(), String> {
    let wrong = || "`call` is written `USER via AGENT ACTION RESOURCE`".to_owned();
    let mut words = line.split_whitespace().peekable();
    let user = words.next().ok_or_else(wrong)?;
    let mut agents = Vec::new();
    while words.next_if_eq(&"via").is_some() {
        agents.push(AgentGiven { id: words.next().ok_or_else(wrong)?.to_owned(), ..AgentGiven::default() });
    }
    let agent = agents.pop().ok_or_else(wrong)?;
    let action = words.next().ok_or_else(wrong)?;
    let resource = words.next();
    if words.next().is_some() {
        return Err(wrong());
    }
    // What is written out says more than a name.
    let user = UserGiven { id: user.to_owned(), ..case.user.take().map(|given| given.0).unwrap_or_default() };
    case.user = Some(NameOr(user));
    let agent = AgentGiven { id: agent.id, ..case.agent.take().map(|given| given.0).unwrap_or_default() };
    case.agent = Some(NameOr(agent));
    if case.through.is_none() {
        case.through = Some(agents.into_iter().map(NameOr).collect());
    }
    case.action = Some(Id::new(action).map_err(|error| format!("`{action}`: {error}"))?);
    case.resource = case.resource.take().or(resource.map(str::to_owned));
    Ok(())
}

/// The tool and the action, where there is a catalogue to look in.
fn known<'a>(
    catalogue: Option<&'a Catalogue>,
    tool: Option<&Id<Tool>>,
    action: &Id<Action>,
) -> Result<Option<(&'a Tool, &'a Action)>, String> {
    let Some(catalogue) = catalogue else { return Ok(None) };
    let named = |known: &&Tool| tool.is_none_or(|tool| known.id == *tool);
    let found = catalogue
        .tools()
        .iter()
        .filter(named)
        .find_map(|tool| tool.actions.iter().find(|known| known.id == *action).map(|known| (tool, known)));
    found.map(Some).ok_or_else(|| match tool {
        Some(tool) => format!("the tool `{tool}` has no action `{action}`"),
        None => format!("no tool has an action `{action}`"),
    })
}

/// A case on its way to a question.
struct Scene<'a> {
    case: &'a Case,
    action: &'a Id<Action>,
    tool: &'a Id<Tool>,
    known: Option<(&'a Tool, &'a Action)>,
    now: Timestamp,
}

impl Scene<'_> {
    fn resource(&self) -> Result<String, String> {
        let given = self.case.resource.clone();
        let Some((_, action)) = self.known else {
            return given.ok_or_else(|| "a case names its `resource`".to_owned());
        };
        match given {
            Some(resource) if self.variables(&resource).is_some() => Ok(resource),
            Some(resource) => Err(format!("`{resource}` is not the name of a resource of `{}`", action.id)),
            None => action.resource.fill(&BTreeMap::new()).ok_or_else(|| "a case names its `resource`".to_owned()),
        }
    }

    fn variables(&self, resource: &str) -> Option<model::template::Variables> {
        let (_, action) = self.known?;
        action.resource.matches(&CanonicalPath::parse(&format!("/{resource}")).ok()?)
    }

    fn parameters(&self) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        let given = &self.case.parameters;
        let of = |name: &str, error: String| format!("parameter `{name}`: {error}");
        let declared = self.known.map(|(_, action)| &action.parameters);
        for (name, value) in given {
            let declaration = declared.and_then(|declared| declared.get(name));
            if declared.is_some() && declaration.is_none() {
                return Err(format!("`{}` has no parameter `{name}`", self.action));
            }
            let (kind, value) = values::parameter(value, declaration).map_err(|error| of(name, error))?;
            if declaration.is_some_and(|declared| declared.kind != kind) {
                return Err(of(name, "it is of another type".to_owned()));
            }
            parameters.set(name, kind, value);
        }
        for (name, declaration) in declared.into_iter().flatten().filter(|(name, _)| !given.contains_key(*name)) {
            if !declaration.optional {
                return Err(of(name, "it is required, and the case has none".to_owned()));
            }
            parameters.set(name, declaration.kind, None);
        }
        Ok(parameters)
    }

    fn facts(&self, people: People<'_>) -> Result<Facts, String> {
        let mut facts = Facts::default();
        let declared = self.known.map(|(tool, _)| &tool.facts);
        for (name, leaves) in &self.case.facts {
            let declaration = declared.and_then(|declared| declared.get(name));
            if declared.is_some() && declaration.is_none() {
                return Err(format!("the tool `{}` has no fact `{name}`", self.tool));
            }
            for (leaf, value) in leaves {
                let declared = declaration.and_then(|declared| declared.pick.get(leaf));
                if declaration.is_some() && declared.is_none() {
                    return Err(format!("the fact `{name}` has no `{leaf}`"));
                }
                let value =
                    values::leaf(value, declared, people).map_err(|error| format!("fact `{name}.{leaf}`: {error}"))?;
                facts.0.entry(name.clone()).or_default().insert(leaf.clone(), value);
            }
        }
        for (name, declaration) in declared.into_iter().flatten() {
            let leaves = facts.0.entry(name.clone()).or_default();
            for leaf in declaration.pick.keys() {
                leaves.entry(leaf.clone()).or_insert(model::FactValue::Null);
            }
        }
        Ok(facts)
    }

    fn request(&self, resource: &str) -> Result<RequestFacts, String> {
        let given = self.case.request.clone().unwrap_or_default();
        let path = match (&given.path, self.known) {
            (Some(path), _) => path.clone(),
            (None, Some((tool, action))) => {
                let below = self.variables(resource).and_then(|found| action.template.fill_path(&found));
                format!("{}{}", tool.at.as_str().trim_end_matches('/'), below.unwrap_or_default())
            }
            (None, None) => format!("/{resource}"),
        };
        Ok(RequestFacts {
            protocol: Protocol::Http,
            method: given
                .method
                .or(self.known.map(|(_, action)| action.method.clone()))
                .unwrap_or_else(|| "POST".to_owned()),
            path: CanonicalPath::parse(&path).map_err(|error| format!("`{path}`: {error}"))?,
            headers: given.headers,
        })
    }

    fn recorded(&self, recorded: &RecordedGiven) -> Result<(Delegation, Agent), String> {
        if self.case.says_what_is_recorded() {
            return Err(
                "what is `recorded` says who calls, under which task and delegation; the case says it too".to_owned()
            );
        }
        let delegation = serde_json::from_value(recorded.delegation.clone());
        let agent = serde_json::from_value(recorded.agent.clone());
        Ok((
            delegation.map_err(|error| format!("recorded.delegation: {error}"))?,
            agent.map_err(|error| format!("recorded.agent: {error}"))?,
        ))
    }

    fn delegation(&self) -> Result<(Delegation, Agent), String> {
        let case = self.case;
        let user = &case.user.as_ref().ok_or("a case names its `user`, in `call` or by itself")?.0;
        let caller = &case.agent.as_ref().ok_or("a case names its `agent`, in `call` or by itself")?.0;
        let tenant = self.tenant()?;
        let given = case.delegation.clone().unwrap_or_default();
        let authority = self.authority(&given)?;
        let hop = |principal: Principal, instance: Option<String>| Hop {
            principal,
            instance,
            jti: None,
            grant: given.grant.clone(),
            authority: Some(authority.clone()),
            evidence: Evidence::DelegationChain,
        };
        let agent = |given: &AgentGiven| {
            let issuer = given.issuer.clone().unwrap_or_else(|| ISSUER.to_owned());
            let id = principal_id(&given.id)?;
            let principal = Principal { kind: PrincipalKind::Agent, id, issuer, tenant: Some(tenant.clone()) };
            Ok::<_, String>(hop(principal, given.instance.clone()))
        };
        let principal = Principal {
            kind: PrincipalKind::User,
            id: principal_id(&user.id)?,
            issuer: user.issuer.clone().unwrap_or_else(|| self.realm()),
            tenant: Some(user.tenant.clone().unwrap_or_else(|| tenant.clone())),
        };
        let mut hops = vec![hop(principal, None)];
        for given in case.through.iter().flatten().map(|given| &given.0).chain([caller]) {
            hops.push(agent(given)?);
        }
        let chain = Chain::new(hops, MAX_AGENTS).map_err(|error| error.to_string())?;
        let registered = Agent {
            id: chain.agent().principal.id.clone(),
            issuer: chain.agent().principal.issuer.clone(),
            owner: caller.owner.clone().unwrap_or_else(|| "owner@example.com".to_owned()),
            actions: caller.actions.clone().unwrap_or_else(|| [self.action.clone()].into()),
            tenants: [tenant.clone()].into(),
            status: caller.status,
        };
        let delegation = Delegation {
            token: self.token(&given),
            chain,
            authority: authority.clone(),
            authority_assumed: false,
            user: UserClaims {
                groups: user.groups.clone(),
                roles: user.roles.clone(),
                acr: user.acr.clone(),
                auth_time: None,
                attributes: user.attributes.clone(),
            },
            entitlement: [self.action.clone()].into(),
            tenant,
            grant: given.grant.clone(),
            run: case
                .task
                .as_ref()
                .and_then(|task| task.run.clone())
                .map_or_else(|| Id::new("case"), Ok)
                .map_err(|error| error.to_string())?,
            run_derived: false,
            task: self.task(),
            session: None,
            position: None,
            sender: if given.sender_constrained { Sender::Certificate } else { Sender::Bearer },
        };
        Ok((delegation, registered))
    }

    fn token(&self, given: &DelegationGiven) -> TokenFacts {
        TokenFacts {
            digest: "case".to_owned(),
            issuer: ISSUER.to_owned(),
            jti: None,
            client_id: None,
            key_id: None,
            algorithm: "ES256".to_owned(),
            issued_at: self.now,
            expires_at: given.expires_at.unwrap_or_else(|| self.now.saturating_add(LIFETIME).unwrap_or(Timestamp::MAX)),
        }
    }

    fn task(&self) -> TaskClaims {
        let given = self.case.task.clone().unwrap_or_default();
        TaskClaims {
            id: given.id,
            use_case: given.use_case,
            initiated_by: given.initiated_by,
            sensitivity: given.sensitivity.unwrap_or_default(),
            stage: given.stage.unwrap_or(model::Stage::Supervised),
            presence: given.presence,
        }
    }

    fn tenant(&self) -> Result<Id<model::Tenant>, String> {
        let of_tool = || self.known.and_then(|(tool, _)| tool.tenants.as_ref()?.first().cloned());
        let given = self.case.tenant.clone().or_else(of_tool);
        given.map_or_else(|| Id::new(TENANT), Ok).map_err(|error| error.to_string())
    }

    /// Whose the names of users are: those that the tool's facts name.
    fn realm(&self) -> String {
        let leaves =
            self.known.into_iter().flat_map(|(tool, _)| tool.facts.values()).flat_map(|fact| fact.pick.values());
        leaves.filter_map(|leaf| leaf.principal.clone()).next().unwrap_or_else(|| ISSUER.to_owned())
    }

    fn authority(&self, given: &DelegationGiven) -> Result<Authority, String> {
        if given.covers == Some(false) {
            return Ok(Authority::default());
        }
        let elements = match &given.details {
            Some(details) => details.clone(),
            None => vec![model::Element {
                kind: ElementType::Action,
                actions: [self.action.clone()].into(),
                locations: [self.tool.clone()].into(),
                identifier: model::Pattern::any(),
                limits: model::Limits::default(),
                relations: BTreeMap::new(),
            }],
        };
        let scope = elements.iter().flat_map(|element| element.actions.iter().cloned()).collect();
        Ok(Authority { scope, elements: elements.into() })
    }
}

fn limit(given: &LimitGiven) -> Result<LimitState, String> {
    let of = |error: String| format!("limit `{}`: {error}", given.name);
    Ok(LimitState {
        name: given.name.clone(),
        max: values::amount(&given.max).map_err(of)?,
        used: given.used.as_ref().map(values::amount).transpose().map_err(of)?,
        window: given.window,
        hop: given.hop,
    })
}
