//! What rules say, as obligations; which calls fall short of them; and what `check` says of what is written out.

use std::sync::Arc;

use model::{Code, Decision, Duty, Verdict};

use crate::{
    Engine, Source,
    engine::{Bounds, tests::source},
    fixture,
};

const ALLOW: &str = "allow contains {\"code\": \"all\"}\n";

fn team(rules: &str) -> Source {
    source("support", &["orders"], &format!("package countersign.teams.support\n{ALLOW}{rules}\n"))
}

fn org(rules: &str) -> Source {
    source("org", &[], &format!("package countersign.org\n{rules}\n"))
}

fn load(sources: &[Source], remembered: usize) -> Engine {
    let bounds = Bounds { budget: std::time::Duration::from_secs(600), remembered, ..Bounds::default() };
    Engine::load_within(sources, &fixture::catalogue(&["orders"]), bounds).unwrap()
}

fn decide(sources: &[Source]) -> Decision {
    load(sources, 0).decide(&fixture::question())
}

fn duties(decision: &Decision) -> Vec<String> {
    decision.obligations.iter().map(|one| format!("{} {} {}", one.source, one.code, one.duty)).collect()
}

#[test]
fn a_permit_carries_what_every_package_asks_for() {
    let decision = decide(&[
        org("obligations contains {\"code\": \"small\", \"max_response_bytes\": 65536}\n\
             obligations contains {\"notify\": {\"channel\": \"alerts\", \"message\": sprintf(\"%v\", [input.action.name])}}"),
        team("obligations contains {\"redact\": {\"/customer/email\", \"/items/*/card\"}}"),
    ]);
    assert_eq!((decision.verdict, decision.code), (Verdict::Permit, None));
    assert_eq!(
        duties(&decision),
        [
            "countersign.org small max_response_bytes 65536",
            "countersign.org notify notify alerts: refunds.create",
            "countersign.teams.support redact redact /customer/email, /items/*/card",
        ]
    );
}

#[test]
fn what_is_no_obligation_denies_and_names_its_package() {
    for (member, said) in [
        (r#"{"code": "mask"}"#, "obliges to nothing"),
        (r#"{"code": "mask", "redcat": ["/a"]}"#, "did you mean `redact`"),
        (r#"{"code": "mask", "redact": ["a"]}"#, "not a JSON pointer"),
        (r#"{"code": "mask", "redact": [input.action.name]}"#, "not a JSON pointer"),
        (r#"{"code": "mask", "redact": ["/a"], "max_response_bytes": 1}"#, "one obligation with"),
        (r#"{"code": "mask", "limit": {"amount": {"max": 5, "window": "P1D"}}}"#, "over a window"),
        (r#"{"code": "mask", "retry": "never"}"#, "no obligation `retry`"),
    ] {
        let decision = decide(&[org(&format!("obligations contains {member}")), team("")]);
        assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::ObligationUnknown)), "{member}");
        let reason = &decision.reasons[0];
        assert_eq!((reason.code.as_str(), reason.source.as_str()), ("mask", "countersign.org"));
        assert!(reason.message.is_none() && reason.internal.as_ref().unwrap().contains(said), "{reason:?}");
        assert!(decision.obligations.is_empty());
    }
    let many = "obligations contains {\"redact\": [sprintf(\"/%d\", [n])]} if some n in numbers.range(1, 65)";
    assert_eq!(decide(&[team(many)]).code, Some(Code::ObligationUnknown), "more than can be met");
    let large = r#"obligations contains {"limit": {"to": {"one_of": [v | some n in numbers.range(1, 10000); v := sprintf("%d", [n])]}}}"#;
    assert_eq!(decide(&[team(large)]).code, Some(Code::ObligationUnknown), "more than goes on record");
    let unknown = r#"obligations contains {"code": "mask", "x": n} if some n in numbers.range(1, 1000)"#;
    assert_eq!(decide(&[team(unknown)]).reasons.len(), 64);
}

#[test]
fn a_field_that_is_not_there_denies_and_says_what_is_missing() {
    let required =
        team(r#"obligations contains {"code": "ticket", "require_header": {"name": "X-Ticket", "pattern": "CHG-*"}}"#);
    let engine = load(&[required], 0);
    let with = |value: Option<&str>| {
        let mut question = fixture::question();
        question.request.headers.clear();
        question.request.headers.extend(value.map(|value| ("x-ticket".to_owned(), value.to_owned())));
        engine.decide(&question)
    };
    assert_eq!(with(Some("CHG-17")).verdict, Verdict::Permit);
    for value in [None, Some(""), Some(" "), Some("17"), Some("x CHG-17")] {
        let decision = with(value);
        assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::PolicyDenied)), "{value:?}");
        let reason = &decision.reasons[0];
        assert_eq!((reason.code.as_str(), reason.source.as_str()), ("ticket", "countersign.teams.support"));
        assert!(reason.message.as_ref().unwrap().contains("`X-Ticket`"), "{reason:?}");
    }
}

#[test]
fn a_call_over_a_limit_of_policy_is_over_a_limit() {
    let limited = |max: &str| {
        let rule = format!(r#"obligations contains {{"limit": {{"amount": {{"max": "{max}", "currency": "USD"}}}}}}"#);
        decide(&[team(&rule)])
    };
    assert_eq!(limited("20.00").verdict, Verdict::Permit, "the call is for 20.00");
    let decision = limited("19.99");
    assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::LimitExceeded)));
    let allowed = model::obligation::allowed(&decision.obligations, &fixture::question()).unwrap();
    assert_eq!(allowed["amount"]["max"], "19.99");
    // Of several that it is over, what is allowed is what is within all of them.
    let several = ["15", "10", "18", "30"]
        .map(|max| format!(r#"obligations contains {{"limit": {{"amount": {{"max": "{max}", "currency": "USD"}}}}}}"#));
    let decision = decide(&[org(&several[..2].join("\n")), team(&several[2..].join("\n"))]);
    let allowed = model::obligation::allowed(&decision.obligations, &fixture::question()).unwrap();
    assert_eq!((decision.obligations.len(), &allowed["amount"]["max"]), (4, &"10.00".into()));
    // A value that the call does not carry counts as exceeded.
    let absent = decide(&[team(r#"obligations contains {"limit": {"weight": {"max": 3}}}"#)]);
    assert_eq!(absent.code, Some(Code::LimitExceeded));
}

#[test]
fn a_team_obliges_to_nothing_with_the_tools_of_another() {
    let mail = r#"package countersign.teams.mail
        allow contains {"code": "mail"}
        obligations contains {"redact": ["/to"]}
        obligations contains {"code": "none", "redcat": 1} if input.action.name == "refunds.create""#;
    let sources = [team(""), source("mail", &["mail"], mail)];
    let bounds = Bounds { budget: std::time::Duration::from_secs(600), ..Bounds::default() };
    let engine = Engine::load_within(&sources, &fixture::catalogue(&["orders", "mail"]), bounds).unwrap();
    let decision = engine.decide(&fixture::question());
    assert_eq!((decision.verdict, decision.obligations.len()), (Verdict::Permit, 0));
}

/// The rules read nothing of the amount: both calls are one question to them.
#[test]
fn what_is_remembered_of_one_call_holds_another_to_its_own_parameters() {
    let engine = load(&[team(r#"obligations contains {"limit": {"amount": {"max": "25", "currency": "USD"}}}"#)], 16);
    let mut large = fixture::question();
    large.call.parameters = fixture::amount("30", "USD");
    for _ in 0..3 {
        assert_eq!(engine.decide(&fixture::question()).verdict, Verdict::Permit);
        assert_eq!(engine.decide(&large).code, Some(Code::LimitExceeded));
    }
    let redacting = load(&[team(r#"obligations contains {"redact": ["/a"]}"#)], 16);
    let first = redacting.decide(&fixture::question());
    assert!(matches!(first.obligations[0].duty, Duty::Redact(_)));
    assert_eq!(redacting.decide(&fixture::question()), first);
}

#[test]
fn a_denial_and_a_person_to_ask_come_before_and_after_obligations() {
    let obligation = r#"obligations contains {"require_header": {"name": "X-Other"}}"#;
    let deny = decide(&[team(&format!("{obligation}\ndeny contains {{\"code\": \"no\"}}"))]);
    assert_eq!(deny.reasons[0].code, "no");
    assert!(deny.obligations.is_empty());
    let approval = r#"approval contains {"code": "ask"}"#;
    assert_eq!(decide(&[team(&format!("{obligation}\n{approval}"))]).code, Some(Code::PolicyDenied));
    let asked = decide(&[team(&format!("{approval}\nobligations contains {{\"redact\": [\"/a\"]}}"))]);
    assert_eq!((asked.verdict, asked.obligations.len()), (Verdict::ApprovalRequired, 1));
    let mut other = fixture::question();
    other.delegation = Arc::new(fixture::delegation());
    assert_eq!(load(&[team(obligation)], 0).decide(&other).code, Some(Code::PolicyDenied));
}

#[test]
fn check_says_which_obligations_are_none_and_what_was_meant() {
    let said = |rule: &str| {
        let problems = crate::check(&[team(rule)], None).unwrap();
        problems
            .iter()
            .map(|one| format!("{} {} {}", one.code, one.message, one.hint.as_deref().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    for (member, wanted) in [
        (r#"{"redcat": ["/a"]}"#, "did you mean `redact`"),
        (r#"{"code": "x"}"#, "obliges to nothing"),
        (r#"{"redact": ["/a"], "max_response_bytes": 3}"#, "write one obligation for each"),
        (r#"{"redact": ["a"]}"#, "not a JSON pointer"),
        (r#"{"max_response_bytes": "64k"}"#, "max_response_bytes"),
        (r#"{"limit": {"amount": {"max": "5", "window": "P1D"}}}"#, "over a window"),
        (r#"{"notify": {"chanel": "alerts", "message": input.action.name}}"#, "did you mean `channel`"),
        (r#"{"require_header": {"name": "X-A", "patern": "x"}}"#, "unknown field `patern`"),
    ] {
        let found = said(&format!("obligations contains {member}"));
        assert!(found.iter().any(|one| one.starts_with("obligation ") && one.contains(wanted)), "{member}: {found:?}");
    }
    for member in [
        r#"{"redact": ["/customer/email", "/items/*/card"]}"#,
        r#"{"redact": {"/a"}}"#,
        r#"{"code": "x", "message": "Say why.", "require_header": {"name": "X-A"}}"#,
        r#"{"notify": {"channel": "alerts", "message": input.action.name}}"#,
        r#"{"limit": {"amount": {"max": "5", "currency": "USD"}}}"#,
    ] {
        let found = said(&format!("obligations contains {member}"));
        assert!(!found.iter().any(|one| one.starts_with("obligation ")), "{member}: {found:?}");
    }
}
