//! What a replay says of decisions that were made under one set of policies and are made again under another.

use std::{collections::BTreeSet, sync::Arc};

use model::{Reason, Stage};

use super::*;
use crate::{Engine, Source, engine, fixture};

const TEAM: &str = "package countersign.teams.support\nallow contains {\"code\": \"all\"}\n";

fn engine(team: &str) -> Engine {
    let source = engine::tests::source("support", &["orders"], team);
    let sources: [Source; 1] = [source];
    let bounds = engine::Bounds { budget: std::time::Duration::from_secs(600), ..engine::Bounds::default() };
    Engine::load_within(&sources, &fixture::catalogue(&["orders"]), bounds).unwrap()
}

fn asked(engine: &Engine, question: Question) -> Asked {
    let then = engine.decide(&question);
    Asked { question, then, revision: Some(engine.revision().to_owned()), observed: false }
}

fn of_user(name: &str) -> Question {
    let mut question = fixture::question();
    let mut delegation = fixture::delegation();
    let hops = vec![
        fixture::hop(model::PrincipalKind::User, name, fixture::REALM),
        fixture::hop(model::PrincipalKind::Agent, "support-v2", fixture::AUTHORITY),
    ];
    delegation.chain = model::Chain::new(hops, model::chain::MAX_AGENTS).unwrap();
    question.delegation = Arc::new(delegation);
    question
}

fn tally(engine: &Engine, recorded: Vec<Recorded>) -> Tally {
    let mut tally = Tally::new(Bounds::default());
    replay(|question| engine.decide_again(question), recorded, &mut tally);
    tally
}

#[test]
fn under_the_same_policy_nothing_changes() {
    let same = engine(TEAM);
    let recorded = ["alice", "bob"].map(|name| Recorded::Asked(Box::new(asked(&same, of_user(name)))));
    let tally = tally(&same, recorded.into());
    assert_eq!((tally.compared, tally.unchanged, tally.groups().len()), (2, 2, 0));
    assert_eq!(tally.revisions.values().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn what_changes_is_counted_by_rule_and_action_with_whom_it_meets() {
    let before = engine(TEAM);
    let after = engine(&format!(
        "{TEAM}deny contains {{\"code\": \"not_bob\", \"message\": \"Not for bob.\"}} if input.user.id == \"bob\"\n"
    ));
    let recorded = ["alice", "bob", "bob"].map(|name| Recorded::Asked(Box::new(asked(&before, of_user(name)))));
    let tally = tally(&after, recorded.into());
    assert_eq!((tally.compared, tally.unchanged), (3, 1));
    let groups = tally.groups();
    let [(group, found)] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!((group.change, found.calls), (Change::NewDenial, 2));
    assert_eq!(group.now.rules.first().unwrap().code, "not_bob");
    assert_eq!(group.then.rules.first().unwrap().code, "all");
    assert_eq!(found.people.counts.iter().next(), Some((&"user:bob@acme".to_owned(), &2)));
    assert_eq!(found.agents.counts.len(), 1);
    assert_eq!(found.examples[0].said.as_deref(), Some("Not for bob."));
    assert_eq!(tally.changed(&[Change::NewDenial], &BTreeSet::new()), 2);
    assert_eq!(tally.changed(&[Change::NewDenial], &[fixture::id("orders.read")].into()), 0);
    assert_eq!(tally.changed(&[Change::NewPermit], &BTreeSet::new()), 0);
}

#[test]
fn a_denial_for_another_reason_is_no_new_denial() {
    let deny = |code: &str| format!("{TEAM}deny contains {{\"code\": \"{code}\"}}\n");
    let before = engine(&deny("one"));
    let then = asked(&before, fixture::question());
    let found = tally(&engine(&deny("other")), vec![Recorded::Asked(Box::new(then))]);
    assert_eq!(found.groups()[0].0.change, Change::OtherReasons);
    let then = asked(&before, fixture::question());
    let found = tally(
        &engine("package countersign.teams.support\nallow contains {\"code\": \"none\"} if false\n"),
        vec![Recorded::Asked(Box::new(then))],
    );
    assert_eq!(found.groups()[0].0.change, Change::OtherCode);
}

#[test]
fn a_stage_that_asks_a_person_asks_under_every_policy() {
    let same = engine(TEAM);
    let mut question = fixture::question();
    let mut delegation = fixture::delegation();
    delegation.task.stage = Stage::Draft;
    question.delegation = Arc::new(delegation);
    let mut then = asked(&same, question.clone());
    assert_eq!(then.then.verdict, Verdict::Permit, "policy itself permits it");
    then.then.verdict = Verdict::ApprovalRequired;
    then.then.code = Some(Code::ApprovalRequired);
    let found = tally(&same, vec![Recorded::Asked(Box::new(then))]);
    assert_eq!(found.unchanged, 1, "{found:?}");

    let mut observed = asked(&same, question);
    observed.observed = true;
    let found = tally(&same, vec![Recorded::Asked(Box::new(observed))]);
    assert_eq!(found.unchanged, 1, "what the stage asks for was waived: {found:?}");
}

#[test]
fn what_cannot_be_asked_again_is_counted_and_never_guessed() {
    let found = tally(
        &engine(TEAM),
        vec![
            Recorded::Elsewhere { stage: "guard".to_owned() },
            Recorded::NotReplayable { paths: vec!["/resource".to_owned(), "/path".to_owned()] },
            Recorded::NotReplayable { paths: vec!["/path".to_owned(), "/resource".to_owned()] },
        ],
    );
    assert_eq!((found.compared, found.not_replayable.decisions), (0, 2));
    assert_eq!(found.not_replayable.by_paths.get("/path, /resource"), Some(&2));
    assert_eq!(found.elsewhere.get("guard"), Some(&1));
}

#[test]
fn tallies_add_up_and_stay_within_their_bounds() {
    let (before, after) =
        (engine(TEAM), engine("package countersign.teams.support\ndeny contains {\"code\": input.user.id}\n"));
    let bounds = Bounds { examples: 1, names: 2, groups: 2 };
    let part = |names: &[&str]| {
        let mut tally = Tally::new(bounds);
        let recorded = names.iter().map(|name| Recorded::Asked(Box::new(asked(&before, of_user(name)))));
        replay(|question| after.decide_again(question), recorded, &mut tally);
        tally
    };
    let mut whole = part(&["a", "b", "c"]);
    whole.merge(part(&["d", "a"]));
    assert_eq!(whole.compared, 5);
    assert_eq!(whole.groups().len(), 2);
    assert_eq!(whole.groups()[0].1.calls, 2, "a's, from both");
    assert_eq!(whole.groups()[0].1.examples.len(), 1);
    assert_eq!(whole.ungrouped.get(&Change::NewDenial), Some(&2), "{whole:?}");
    assert_eq!(whole.changed(&[Change::NewDenial], &BTreeSet::new()), 5);

    let mut named = Tally::new(bounds);
    let recorded = ["a", "b", "c"].map(|name| {
        let mut asked = asked(&before, of_user(name));
        asked.then.verdict = Verdict::Deny;
        asked.then.reasons =
            vec![Reason { code: "old".to_owned(), message: None, internal: None, retry: None, source: "s".to_owned() }];
        Recorded::Asked(Box::new(asked))
    });
    replay(|question| before.decide_again(question), recorded, &mut named);
    let groups = named.groups();
    assert_eq!((groups[0].1.people.counts.len(), groups[0].1.people.others), (2, 1));
}
