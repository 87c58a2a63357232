//! The law of issuance, over generated grants, registrations, requests and chains: what is issued lies within
//! every single thing that limits it, and ends no later than any of them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    Action, Agent, AgentStatus, Amount, Authority, Delegation, Element, Grant, Id, Limit, Limits, Money, Presence,
    Principal, PrincipalKind, Sensitivity, Stage, Task,
    authority::ElementType,
    delegation::{Sender, TokenFacts, UserClaims},
    registry::TaskStatus,
};
use proptest::prelude::*;

use super::{
    first::{Subject, first},
    issuance::{Asked, Issuance, Registered, principal},
    next::{hand_over, take_over},
};
use crate::{client::Client, narrow::Requested, refused::Refused};

const ACTIONS: &[&str] = &["orders.read", "orders.list", "refunds.create"];

/// Mostly all of them: what several hops narrow has to leave something, or no chain grows.
fn actions() -> impl Strategy<Value = BTreeSet<Id<Action>>> {
    let some = prop::collection::btree_set(prop::sample::select(ACTIONS), 1..=ACTIONS.len());
    prop_oneof![2 => Just(ACTIONS.iter().copied().collect::<BTreeSet<_>>()), 1 => some]
        .prop_map(|names| names.into_iter().map(|name| Id::new(name).unwrap()).collect())
}

fn element() -> impl Strategy<Value = Element> {
    let limits = prop::option::of(1_i64..4).prop_map(|max| {
        let mut limits = Limits::default();
        if let Some(max) = max {
            limits.set("amount", Limit::Max(Amount::Money(Money::from_minor(max, "USD").unwrap())));
        }
        limits
    });
    let relation = prop::option::of(Just(("order.placed_by".to_owned(), "$user".to_owned())));
    let pattern =
        prop::sample::select(&["orders/1", "orders/*", "**", "**"][..]).prop_map(|text| text.parse().unwrap());
    (actions(), pattern, limits, relation).prop_map(|(actions, identifier, limits, relation)| Element {
        kind: ElementType::Action,
        actions,
        locations: [Id::new("orders").unwrap()].into(),
        identifier,
        limits,
        relations: relation.into_iter().collect(),
    })
}

fn authority() -> impl Strategy<Value = Authority> {
    (actions(), prop::collection::vec(element(), 1..3))
        .prop_map(|(scope, elements)| Authority { scope: scope.into_iter().collect(), elements: elements.into() })
}

fn stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(&[Stage::Observe, Stage::Draft, Stage::Supervised][..])
}

fn requested() -> impl Strategy<Value = Requested> {
    (prop::option::weighted(0.3, actions()), prop::option::weighted(0.3, prop::collection::vec(element(), 1..3)))
        .prop_map(|(scope, elements)| {
            let details = elements.map(|elements| Authority {
                scope: elements.iter().flat_map(|element| element.actions.iter().cloned()).collect(),
                elements: elements.into(),
            });
            Requested { scope, details }
        })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 1_000;

fn asked() -> impl Strategy<Value = Asked> {
    (requested(), prop::option::weighted(0.3, stage()), 1_u64..400, 2_usize..7).prop_map(
        |(requested, stage, lifetime, max_agents)| Asked {
            requested,
            stage,
            lifetime: std::time::Duration::from_secs(lifetime),
            max_agents,
            jti: "jti".to_owned(),
            now: at(NOW),
            position: 7,
        },
    )
}

fn agent(id: &str, actions: BTreeSet<Id<Action>>) -> Agent {
    Agent {
        id: Id::new(id).unwrap(),
        issuer: "https://countersign.example".to_owned(),
        owner: "dana".to_owned(),
        actions,
        tenants: [Id::new("acme").unwrap()].into(),
        status: AgentStatus::Active,
    }
}

/// A user, a grant and a task that bind each other, and as many agents as the chain is to have.
#[derive(Debug, Clone)]
struct World {
    subject: Subject,
    task: Task,
    grant: Grant,
    agents: Vec<Agent>,
}

fn world() -> impl Strategy<Value = World> {
    let ends = (1_i64..600, 1_i64..600, 1_i64..600);
    let agents = prop::collection::vec(actions(), 1..6);
    (authority(), actions(), agents, stage(), stage(), ends, 0_usize..6).prop_map(
        |(authority, entitlement, agents, grant_stage, task_stage, (subject_end, grant_end, task_end), redelegate)| {
            let user = Principal {
                kind: PrincipalKind::User,
                id: Id::new("alice").unwrap(),
                issuer: "https://sso.example".to_owned(),
                tenant: None,
            };
            let agents: Vec<_> =
                agents.into_iter().enumerate().map(|(index, actions)| agent(&format!("a{index}"), actions)).collect();
            let grant = Grant {
                id: Id::new("grant").unwrap(),
                user: user.clone(),
                agent: principal(&agents[0]),
                authority,
                stage: grant_stage,
                expires_at: at(NOW + grant_end),
                redelegate,
            };
            let task = Task {
                id: Id::new("task").unwrap(),
                grant: grant.id.clone(),
                run: Id::new("run").unwrap(),
                tenant: Id::new("acme").unwrap(),
                session: Some("session".to_owned()),
                use_case: None,
                initiated_by: "alice".to_owned(),
                sensitivity: Sensitivity::Medium,
                stage: task_stage,
                presence: Presence::Present,
                expires_at: at(NOW + task_end),
                status: TaskStatus::Active,
            };
            let subject = Subject {
                user,
                claims: UserClaims::default(),
                entitlement,
                tenant: task.tenant.clone(),
                session: task.session.clone(),
                jti: None,
                expires_at: at(NOW + subject_end),
            };
            World { subject, task, grant, agents }
        },
    )
}

impl World {
    fn registered(&self, agents: usize) -> Registered {
        Registered { task: self.task.clone(), grant: self.grant.clone(), agents: self.agents[..agents].to_vec() }
    }

    fn client(&self, index: usize) -> Client {
        Client::known(self.agents[index].clone())
    }

    fn first(&self, asked: &Asked) -> Result<Issuance, Refused> {
        first(&self.subject, &self.client(0), &self.registered(1), asked)
    }

    /// The next agent takes over from the last of `parent`, by both requests.
    fn next(&self, parent: &Delegation, index: usize, gives: &Asked, takes: &Asked) -> Result<Issuance, Refused> {
        let actor = &self.agents[index];
        let handed = hand_over(parent, &self.client(index - 1), actor, &self.registered(index), gives)?;
        let handed = self.signed(&handed);
        let (may_act, ends) = (principal(actor), parent.token.expires_at);
        take_over(&handed, &may_act, &self.client(index), &self.registered(index + 1), takes, ends)
    }

    /// What a verifier would read from the issued token.
    fn signed(&self, issuance: &Issuance) -> Delegation {
        Delegation {
            token: TokenFacts {
                digest: String::new(),
                issuer: "https://countersign.example".to_owned(),
                jti: Some(issuance.jti.clone()),
                client_id: None,
                key_id: None,
                algorithm: "ES256".to_owned(),
                issued_at: issuance.issued_at,
                expires_at: issuance.expires_at,
            },
            chain: issuance.chain.clone(),
            authority: issuance.authority.clone(),
            authority_assumed: false,
            user: issuance.user.clone(),
            entitlement: self.subject.entitlement.clone(),
            tenant: issuance.tenant.clone(),
            grant: Some(issuance.grant.clone()),
            run: issuance.run.clone(),
            run_derived: false,
            task: issuance.task.clone(),
            session: issuance.session.clone(),
            position: Some(issuance.position),
            sender: Sender::Bearer,
        }
    }
}

fn names(authority: &Authority) -> BTreeSet<Id<Action>> {
    authority.scope.iter().cloned().collect()
}

/// Whether what was issued lies within all that limits it, the first agents `0..agents` among them.
fn is_within(issued: &Issuance, world: &World, agents: usize, asked: &[&Asked]) -> Result<(), TestCaseError> {
    let authority = &issued.authority;
    prop_assert!(!authority.is_empty());
    prop_assert!(authority.within(&world.grant.authority));
    prop_assert!(names(authority).is_subset(&world.subject.entitlement));
    for agent in &world.agents[..agents] {
        prop_assert!(names(authority).is_subset(&agent.actions));
    }
    for Asked { requested, stage, lifetime, now, .. } in asked {
        prop_assert!(requested.scope.as_ref().is_none_or(|scope| names(authority).is_subset(scope)));
        prop_assert!(requested.details.as_ref().is_none_or(|details| authority.within(details)));
        prop_assert!(stage.is_none_or(|stage| issued.task.stage <= stage));
        prop_assert!(issued.expires_at <= *now + SignedDuration::try_from(*lifetime).unwrap());
    }
    prop_assert!(authority.elements.iter().all(|element| element.actions.is_subset(&names(authority))));
    prop_assert!(issued.task.stage <= world.task.stage && issued.task.stage <= world.grant.stage);
    prop_assert!(issued.expires_at <= world.subject.expires_at);
    prop_assert!(issued.expires_at <= world.task.expires_at && issued.expires_at <= world.grant.expires_at);
    prop_assert_eq!(issued.chain.widening(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_issued_lies_within_everything_that_limits_it(world in world(), asks in prop::collection::vec((asked(), asked()), 6)) {
        let Ok(issued) = world.first(&asks[0].0) else { return Ok(()) };
        let mut used = vec![&asks[0].0];
        is_within(&issued, &world, 1, &used)?;
        let mut parent = issued;
        for (index, (gives, takes)) in asks.iter().enumerate().take(world.agents.len()).skip(1) {
            let Ok(issued) = world.next(&world.signed(&parent), index, gives, takes) else { break };
            prop_assert!(index <= world.grant.redelegate);
            // Said when it is handed over: what is handed over can be taken.
            prop_assert!(index < gives.max_agents && issued.chain.agents().count() <= takes.max_agents);
            prop_assert!(issued.authority.within(&parent.authority));
            prop_assert!(issued.expires_at <= parent.expires_at);
            // The lifetime asked of a hand-over is the hand-over's own; scope, elements and stage carry on.
            let carried = Asked { lifetime: takes.lifetime, ..gives.clone() };
            is_within(&issued, &world, index + 1, &[&carried, takes])?;
            is_within(&issued, &world, index + 1, &used.iter().map(|asked| &**asked).collect::<Vec<_>>())?;
            used.push(takes);
            parent = issued;
        }
    }

    #[test]
    fn asking_for_everything_gets_all_that_is_held_and_never_an_error(world in world()) {
        let all = Asked { requested: Requested::default(), stage: None, lifetime: std::time::Duration::from_secs(300), max_agents: 4, jti: "jti".to_owned(), now: at(NOW), position: 7 };
        let issued = world.first(&all);
        let held: BTreeSet<_> = world.grant.authority.elements.iter().flat_map(|element| element.actions.iter().cloned())
            .filter(|action| world.grant.authority.scope.contains(action))
            .filter(|action| world.subject.entitlement.contains(action) && world.agents[0].actions.contains(action))
            .collect();
        prop_assert_eq!(issued.map(|issued| names(&issued.authority)).unwrap_or_default(), held);
    }

    #[test]
    fn a_grant_that_was_narrowed_since_narrows_the_next_hop(world in world(), narrower in authority(), first in asked(), gives in asked(), takes in asked()) {
        let Ok(parent) = world.first(&first) else { return Ok(()) };
        let now = World { grant: Grant { authority: narrower.clone(), ..world.grant.clone() }, ..world.clone() };
        if now.agents.len() > 1 && let Ok(issued) = now.next(&world.signed(&parent), 1, &gives, &takes) {
            prop_assert!(issued.authority.within(&narrower) && issued.authority.within(&parent.authority));
        }
    }

    #[test]
    fn what_ended_or_changed_since_stops_the_next_hop(world in world(), first in asked(), gives in asked(), takes in asked()) {
        let Ok(parent) = world.first(&first) else { return Ok(()) };
        let parent = world.signed(&parent);
        let goes = |world: &World| world.next(&parent, 1, &gives, &takes).is_ok();
        if world.agents.len() < 2 || !goes(&world) {
            return Ok(());
        }
        let changes: [fn(&mut World); 8] = [
            |world| world.task.status = TaskStatus::Withdrawn,
            |world| world.task.expires_at = at(NOW),
            |world| world.task.session = Some("another".to_owned()),
            |world| world.task.run = Id::new("another").unwrap(),
            |world| world.grant.expires_at = at(NOW),
            |world| world.grant.redelegate = 0,
            |world| world.grant.user.issuer = "https://other.example".to_owned(),
            // The parent, which does nothing here but stand in the chain.
            |world| world.agents[0].status = AgentStatus::Suspended,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut since = world.clone();
            change(&mut since);
            prop_assert!(!goes(&since), "change {index}");
        }
    }
}
