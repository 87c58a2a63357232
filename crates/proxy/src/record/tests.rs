//! What is too large for a record: the call does not go, and a refusal is on record without what made it so.

use std::net::SocketAddr;

use model::{CanonicalPath, Effect, Facts, ParameterKind, ParameterValue, Parameters, Question, Retry, question};
use net::Peer;

use super::*;
use crate::{
    accept::Arrival,
    decide::Asked,
    testing::{NOW, agent, delegation, world::World},
};

/// A refund whose one parameter is 5 MB of text.
fn large(arrival: &Arrival) -> Question {
    let mut parameters = Parameters::default();
    let text = ParameterValue::String("x".repeat(5_000_000));
    parameters.set("note", ParameterKind::String, Some(text));
    Question {
        id: arrival.id.clone(),
        now: NOW.parse().unwrap(),
        request: question::RequestFacts {
            protocol: question::Protocol::Http,
            method: "POST".into(),
            path: CanonicalPath::parse("/orders/v1/orders/17/refunds").unwrap(),
            headers: [("x-ticket".to_owned(), "12847".to_owned())].into(),
        },
        call: question::Call {
            tool: model::Id::new("orders").unwrap(),
            action: model::Id::new("refunds.create").unwrap(),
            effect: Effect::Write,
            resource: "orders/17".into(),
            parameters,
        },
        delegation: Arc::new(delegation()),
        agent: agent("helper").into(),
        limits: Vec::new(),
        facts: Facts::default(),
    }
}

#[tokio::test]
async fn a_refusal_too_large_for_the_ledger_is_recorded_without_its_values() {
    let world = World::new().await;
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    let now = NOW.parse().unwrap();
    let arrival = Arrival::new(world.ledger.id(), peer, now, net::clock::monotonic()).unwrap();
    let mut trail = Trail::new(arrival.clone());
    trail.enter("decide");
    trail.asked(&Asked::in_test(large(&arrival), &world.sidecar.snapshot().policy));
    let refused = Refusal::new(Code::PolicyDenied, "€".repeat(3_000_000)).internally("the list says 5000000 times x");
    refusal(&world.sidecar, &refused, None, &world.sidecar.snapshot(), &trail).await;
    assert!(world.ledger.healthy());

    let records = world.records("call.decided").await;
    let [decided] = records.as_slice() else { panic!("{records:?}") };
    let text = |name| decided.text(name);
    assert_eq!((text("decision_id"), text("code")), (Some(arrival.id.as_str()), Some("policy_denied")));
    assert_eq!((text("stage_reached"), text("action")), (Some("decide"), Some("refunds.create")));
    assert_eq!((decided.text_at("/user/id"), decided.text_at("/agent/id")), (Some("alice"), Some("helper")));
    assert!(decided.fields["digests"]["input"].is_string(), "{decided:?}");
    for left_out in ["parameters", "headers"] {
        assert!(!decided.fields.contains_key(left_out), "{left_out}");
    }
    let explanation = &decided.fields["explanation"];
    assert_eq!(explanation["detail"].as_str().unwrap(), "€".repeat(MAX_WORDS / 3));
    assert!(explanation["internal"].as_str().unwrap().contains("too large for a record"));
}

#[test]
fn a_permit_too_large_for_the_ledger_is_not_worth_repeating_and_an_outage_is() {
    let large = unwritten(&LedgerError::TooLarge("5000000 bytes".to_owned()));
    assert_eq!((large.code, large.code.entry().retry), (Code::BodyTooLarge, Retry::AfterChange));
    for error in [LedgerError::Unavailable("disk".to_owned()), LedgerError::Closed] {
        assert_eq!(unwritten(&error).code, Code::LedgerUnavailable);
    }
}
