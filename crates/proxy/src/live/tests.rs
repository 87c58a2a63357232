//! Who is told of which calls, and that nobody who listens can hold one up.

use std::task::Waker;

use model::{Code, PrincipalKind, Verdict};
use serde_json::Value;

use super::*;
use crate::testing;

fn call(live: &Arc<Live>, number: u32) -> Option<Box<Told>> {
    live.begin(&Id::new(&format!("L1.call-{number}")).unwrap())
}

fn left(stage: &'static str) -> Left<'static> {
    Left { stage, microseconds: 7, request: None, delegation: None, recognised: None, question: None }
}

/// A call of alice's by support-v2 that came as far as its decision.
fn denied(live: &Arc<Live>, number: u32, code: Code) {
    let delegation = testing::delegation();
    let mut told = call(live, number).unwrap();
    told.left(left("accept"));
    told.left(Left { delegation: Some(&delegation), ..left("admit") });
    told.left(left("resolve"));
    told.decided(Verdict::Deny, Some(code), &[], Some("no"));
}

/// What there is to read, and whether more may come.
fn read(listening: &mut Listening) -> (Vec<Value>, bool) {
    let mut context = Context::from_waker(Waker::noop());
    let mut lines = Vec::new();
    loop {
        match listening.poll_next(&mut context) {
            Poll::Ready(Some(line)) => lines.push(serde_json::from_slice(&line).unwrap()),
            Poll::Ready(None) => return (lines, false),
            Poll::Pending => return (lines, true),
        }
    }
}

fn wanted(change: impl FnOnce(&mut Wanted)) -> Wanted {
    let mut wanted = Wanted::default();
    change(&mut wanted);
    wanted
}

#[test]
fn where_nobody_listens_nothing_is_kept_of_a_call() {
    let live = Arc::new(Live::default());
    assert!(call(&live, 1).is_none());
    let listening = live.listen(Wanted::default(), 1).unwrap();
    assert!(call(&live, 1).is_some());
    drop(listening);
    assert!(call(&live, 1).is_none());
}

#[test]
fn a_call_is_told_from_its_beginning_though_it_shows_late_that_it_is_wanted() {
    let live = Arc::new(Live::default());
    let user = testing::delegation().chain.user().principal.id.to_string();
    let mut of_user = live.listen(wanted(|wanted| wanted.user = Some(user)), 1).unwrap();
    let mut of_code = live.listen(wanted(|wanted| wanted.code = Some("policy_denied".to_owned())), 1).unwrap();
    let mut of_another = live.listen(wanted(|wanted| wanted.user = Some("nobody".to_owned())), 1).unwrap();
    denied(&live, 1, Code::LimitExceeded);
    denied(&live, 2, Code::PolicyDenied);
    let (lines, more) = read(&mut of_user);
    assert_eq!(lines.iter().filter(|line| line["decision_id"] == "L1.call-1").count(), 4, "{lines:?}");
    assert!(lines.len() == 4 && !more, "one call was asked for: {lines:?}");
    assert_eq!(lines[0]["stage"], "accept");
    let (lines, more) = read(&mut of_code);
    assert!(lines.iter().all(|line| line["decision_id"] == "L1.call-2") && lines.len() == 4 && !more, "{lines:?}");
    assert_eq!(lines[3]["code"], "policy_denied");
    assert_eq!(read(&mut of_another), (Vec::new(), true));
}

#[test]
fn a_refusal_of_nobody_known_is_nobodys_call() {
    let live = Arc::new(Live::default());
    let mut listening = live.listen(wanted(|wanted| wanted.agent = Some("support-v2".to_owned())), 5).unwrap();
    let mut told = call(&live, 1).unwrap();
    told.left(left("accept"));
    told.decided(Verdict::Deny, Some(Code::InvalidToken), &[], None);
    assert_eq!(read(&mut listening), (Vec::new(), true));
}

#[test]
fn who_reads_too_slowly_is_dropped_and_told_so_and_the_call_goes_on() {
    let live = Arc::new(Live::default());
    let mut slow = live.listen(Wanted::default(), MAX_CALLS).unwrap();
    for number in 0..200 {
        let Some(mut told) = call(&live, number) else { break };
        told.left(left("accept"));
        told.left(left("admit"));
    }
    assert!(call(&live, 1000).is_none(), "it is not told of further calls");
    let (lines, more) = read(&mut slow);
    assert_eq!(lines.len(), QUEUE + 1);
    assert_eq!(lines.last().unwrap()["event"], "dropped");
    assert!(!more);
}

#[test]
fn so_many_may_listen_and_what_they_are_told_is_bounded() {
    let live = Arc::new(Live::default());
    let mut listening: Vec<_> = (0..MAX_LISTENERS).map(|_| live.listen(Wanted::default(), 1).unwrap()).collect();
    assert_eq!(live.listen(Wanted::default(), 1).unwrap_err(), TooMany);
    let mut told = call(&live, 1).unwrap();
    told.decided(Verdict::Deny, Some(Code::Malformed), &[], Some(&"é".repeat(100_000)));
    let (lines, _) = read(&mut listening[0]);
    assert!(lines[0]["detail"].as_str().unwrap().len() <= 512, "{lines:?}");
}

#[test]
fn names_match_as_records_show_them() {
    let principal = testing::principal(PrincipalKind::User, "alice");
    let shown = principal.to_string();
    assert!(goes_by(&principal, "alice") && goes_by(&principal, &shown));
    assert!(goes_by(&principal, shown.split_once(':').unwrap().1));
    assert!(!goes_by(&principal, "alic") && !goes_by(&principal, ""));
}
