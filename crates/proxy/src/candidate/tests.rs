//! What a candidate is asked, what is counted of it and what goes on record; and that no call waits for it.

use std::{collections::BTreeSet, time::Duration};

use audit::Entry;
use model::Id;

use super::*;
use crate::testing::world::World;

/// The same as the world's policy, and `rules`.
const OPEN: &str = "package countersign.teams.support\n\nallow contains {\"code\": \"everything\"}\n";
const ORDER: &str = "/orders/v1/orders/17";

fn engine(world: &World, rules: &str, budget: Duration) -> Engine {
    let source = policy::Source {
        name: "support".to_owned(),
        tools: Some(BTreeSet::from([Id::new("orders").unwrap()])),
        policies: vec![policy::bundle::File { path: "support.rego".to_owned(), text: format!("{OPEN}{rules}\n") }],
        tests: Vec::new(),
        data: Vec::new(),
    };
    let bounds = policy::Bounds { budget, ..policy::Bounds::default() };
    Engine::load_within(&[source], world.sidecar.snapshot().catalogue(), bounds).unwrap()
}

fn candidate(world: &World, rules: &str, percent: u8) -> CandidateParts {
    let active = world.sidecar.snapshot().policy().revision().to_owned();
    // The machine that runs tests may be a busy one.
    CandidateParts { engine: engine(world, rules, Duration::from_secs(600)), active, percent }
}

/// Waits until all that was handed on is compared or dropped.
async fn compared(world: &World, calls: u64) -> CandidateState {
    loop {
        let state = world.sidecar.candidate_state().unwrap();
        if state.compared + state.dropped >= calls {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything on record once all is told of the candidate.
async fn records(world: World) -> Vec<Entry> {
    world.sidecar.compare_with(None);
    // Nothing is handed on any more, so the thread that asks ends, and then whoever tells.
    world.sidecar.beside.queue.store(None);
    while !world.sidecar.beside.ended.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.all_records().await
}

fn of<'a>(records: &'a [Entry], kind: &str) -> Vec<&'a Entry> {
    records.iter().filter(|entry| entry.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_candidate_would_answer_otherwise_is_on_record_and_the_call_goes_as_decided() {
    let world = World::new().await;
    let rules =
        "deny contains {\"code\": \"no_reads\", \"internal\": \"4711\"} if input.action.name == \"orders.read\"";
    world.sidecar.compare_with(Some(candidate(&world, rules, 100)));
    let (status, _, id) = world.told("GET", ORDER, &[], "").await;
    assert_eq!(status, 200);
    let (status, ..) = world.told("POST", "/orders/v1/orders/17/cancel", &[], "{}").await;
    assert_ne!(status, 200, "what the guard refused is not compared");
    let state = compared(&world, 1).await;
    assert_eq!((state.compared, state.differed, state.dropped), (1, 1, 0));
    assert_eq!(world.forwarded().len(), 1);

    let records = records(world).await;
    let [differed] = of(&records, "policy.differed")[..] else { panic!("{records:?}") };
    assert_eq!(differed.text("decision_id"), Some(id.as_str()));
    assert_eq!(differed.text("change"), Some("new_denial"));
    assert_eq!(differed.text_at("/active/decision"), Some("permit"));
    assert_eq!(differed.text_at("/candidate/code"), Some("policy_denied"));
    assert_eq!(differed.fields["candidate"]["reasons"][0]["code"], "no_reads");
    assert_eq!(differed.fields["explanation"][0]["internal"], "4711");
    assert_eq!(differed.text_at("/user/id"), Some("alice"));
    let [summed] = of(&records, "policy.compared")[..] else { panic!("{records:?}") };
    assert_eq!(summed.fields["actions"]["orders.read"], serde_json::json!({"compared": 1, "differed": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_answered_alike_nothing_is_written_but_how_many_they_were() {
    let world = World::new().await;
    world.sidecar.compare_with(Some(candidate(&world, "deny contains {\"code\": \"never\"} if false", 100)));
    for _ in 0..5 {
        assert_eq!(world.call("GET", ORDER, &[], "").await.status(), 200);
    }
    let state = compared(&world, 5).await;
    assert_eq!((state.compared, state.differed), (5, 0));
    let records = records(world).await;
    assert!(of(&records, "policy.differed").is_empty(), "{records:?}");
    let [summed] = of(&records, "policy.compared")[..] else { panic!("{records:?}") };
    assert_eq!((&summed.fields["compared"], &summed.fields["differed"]), (&5.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_differences_that_are_alike_have_one_record_together() {
    let world = World::new().await;
    world.sidecar.compare_with(Some(candidate(&world, "deny contains {\"code\": \"closed\"}", 100)));
    let calls = u64::from(fold::EACH) + 7;
    for _ in 0..calls {
        assert_eq!(world.call("GET", ORDER, &[], "").await.status(), 200);
    }
    compared(&world, calls).await;
    let records = records(world).await;
    let differed = of(&records, "policy.differed");
    let counted: u64 = differed.iter().map(|entry| entry.fields.get("count").map_or(1, |n| n.as_u64().unwrap())).sum();
    assert_eq!(counted, calls);
    // More than one only where the machine took longer than a minute for them.
    let together: Vec<_> = differed.iter().filter(|entry| entry.fields.contains_key("count")).collect();
    assert!(differed.len() < usize::try_from(calls).unwrap() && !together.is_empty(), "{differed:?}");
    assert!(together.iter().all(|entry| !entry.fields.contains_key("user")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_waits_for_a_candidate_that_does_not_keep_up() {
    let world = World::new().await;
    // It takes until its budget is spent, each time.
    let rules = "deny contains {\"code\": \"slow\"} if {\n    some a in numbers.range(1, 9000)\n    \
                 some b in numbers.range(1, 9000)\n    a + b < 0\n}";
    let slow =
        CandidateParts { engine: engine(&world, rules, Duration::from_millis(500)), ..candidate(&world, "", 100) };
    world.sidecar.compare_with(Some(slow));
    let mut dropped = 0;
    for call in 0..QUEUE as u64 + 200 {
        assert_eq!(world.call("GET", ORDER, &[], "").await.status(), 200);
        dropped = world.sidecar.candidate_state().unwrap().dropped;
        if dropped > 3 {
            assert!(call >= QUEUE as u64);
            break;
        }
    }
    assert!(dropped > 3, "there is no end to what waits");
    // Another one takes its place at once, and so does none.
    world.sidecar.compare_with(Some(candidate(&world, "", 100)));
    assert_eq!(world.sidecar.candidate_state().unwrap().dropped, 0);
    world.sidecar.compare_with(None);
    assert_eq!(world.sidecar.candidate_state(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_else_decided_than_it_stands_beside_is_not_compared() {
    let world = World::new().await;
    let mut parts = candidate(&world, "deny contains {\"code\": \"closed\"}", 100);
    parts.active = "another".to_owned();
    world.sidecar.compare_with(Some(parts));
    assert_eq!(world.call("GET", ORDER, &[], "").await.status(), 200);
    let state = compared(&world, 1).await;
    assert_eq!((state.compared, state.dropped), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_share_of_the_calls_so_many_are_compared() {
    let world = World::new().await;
    world.sidecar.compare_with(Some(candidate(&world, "", 20)));
    for _ in 0..20 {
        assert_eq!(world.call("GET", ORDER, &[], "").await.status(), 200);
    }
    let state = compared(&world, 4).await;
    assert_eq!((state.compared, state.dropped), (4, 0));
}

#[test]
fn a_share_is_spread_evenly_over_the_calls() {
    net::install_crypto();
    for percent in [1_u64, 7, 33, 50, 99, 100] {
        let takes = |seen: u64| (seen + 1) * percent / 100 > seen * percent / 100;
        assert_eq!((0..100).filter(|seen| takes(*seen)).count() as u64, percent);
    }
}
