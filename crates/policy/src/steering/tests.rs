//! What packages say of tokens and of management: narrowing alone, each team for its own tools, and an error is a no.

use model::{Authority, Grant, PrincipalKind, Reason, Stage};

use super::*;
use crate::{
    engine::tests::source,
    fixture::{self, AUTHORITY, REALM, id},
    input::management::{Named, Object},
};

fn load(sources: &[Source]) -> Steering {
    Steering::load(sources).unwrap()
}

fn org(body: &str) -> Source {
    source("org", &[], &format!("package countersign.org\n{body}\n"))
}

fn team(name: &str, tools: &[&str], body: &str) -> Source {
    source(name, tools, &format!("package countersign.teams.{name}\n{body}\n"))
}

/// What `sources` say of alice's task for support-v2, with `requested`.
fn ruling(sources: &[Source], requested: &Authority) -> Ruling {
    let delegation = fixture::delegation();
    let grant = Grant {
        id: id("grant-support"),
        user: fixture::principal(PrincipalKind::User, "alice", REALM),
        agent: fixture::principal(PrincipalKind::Agent, "support-v2", AUTHORITY),
        authority: fixture::authority(),
        stage: Stage::Supervised,
        expires_at: delegation.token.expires_at,
        redelegate: 1,
    };
    load(sources).delegate(&Issuance {
        chain: vec![delegation.chain.user()],
        to: &fixture::question().agent,
        requested,
        task: &delegation.task,
        run: &delegation.run,
        grant: &grant,
        user: &delegation.user,
        tenant: &delegation.tenant,
        expires_at: delegation.token.expires_at,
        now: delegation.token.issued_at,
    })
}

/// Authority on each of `tools`.
fn on(tools: &[&str]) -> Authority {
    let mut authority = fixture::authority();
    for element in &mut authority.elements {
        element.locations = tools.iter().map(|tool| id(tool)).collect();
    }
    authority
}

fn tools(ruling: &Ruling) -> Vec<&str> {
    ruling.tools.iter().map(Id::as_str).collect()
}

fn codes(reasons: &[Reason]) -> Vec<&str> {
    reasons.iter().map(|reason| reason.code.as_str()).collect()
}

const YES: &str = r#"delegate contains {"code": "fine"}"#;

#[test]
fn every_leaf_of_the_input_can_be_asked_about() {
    let body = r#"delegate contains {"code": "known"} if {
        input.version == 1
        input.exchange.from == {"id": "alice", "issuer": "https://sso.example/realms/acme", "kind": "user"}
        input.exchange.to.id == "support-v2"
        input.exchange.to.owner == "dana@acme.example"
        "refunds.create" in input.exchange.requested.scope
        input.exchange.requested.details[0].limits.amount.max.text == "50.00"
        input.exchange.task.stage == "supervised"
        input.exchange.task.run_id == "0198f3a2-run"
        input.grant.redelegate == 1
        input.grant.authority.scope == input.exchange.requested.scope
        [hop.kind | some hop in input.chain] == ["user"]
        "emea" in input.user.groups
        input.tenant == "acme"
        input.exchange.expires_at_ns > input.now_ns
    }"#;
    let ruling = ruling(&[org(body)], &fixture::authority());
    assert_eq!((tools(&ruling), codes(&ruling.reasons)), (vec!["orders"], vec!["known"]), "{ruling:?}");
}

#[test]
fn a_team_speaks_for_its_own_tools_and_the_platform_team_for_all() {
    let both = on(&["orders", "mail"]);
    let no = r#"delegate contains {"code": "never"} if input.tenant == "other""#;
    let cases: [(&[Source], &[&str]); 8] = [
        (&[org(YES)], &["mail", "orders"]),
        (&[team("support", &["orders"], YES)], &["orders"]),
        (&[team("support", &["orders"], YES), team("post", &["mail"], YES)], &["mail", "orders"]),
        (&[team("support", &["orders"], YES), team("post", &["mail"], no)], &["orders"]),
        (&[org(YES), team("post", &["mail"], no)], &["orders"]),
        (&[org(no), team("support", &["orders"], YES)], &[]),
        // Who says nothing of tokens is not asked about them.
        (
            &[org(r#"deny contains {"code": "x"} if input.tenant == "other""#), team("support", &["orders"], YES)],
            &["orders"],
        ),
        (&[org(r#"deny contains {"code": "x"} if input.tenant == "other""#)], &[]),
    ];
    for (sources, expected) in cases {
        let ruling = ruling(sources, &both);
        assert_eq!(tools(&ruling), expected, "{ruling:?}");
        assert_eq!(ruling.withheld.is_empty(), expected.len() == 2, "{ruling:?}");
    }
}

#[test]
fn an_error_an_undefined_answer_and_what_is_no_reason_are_each_a_no_that_names_its_package() {
    for body in [
        r#"delegate contains {"code": "x"} if time.parse_rfc3339_ns(input.tenant) > 0"#,
        r#"delegate contains {"code": "x"} if input.exchange.nothing == 1"#,
        r#"delegate contains {"code": 7}"#,
        r#"delegate contains {"code": "Not A Code"}"#,
        "delegate contains x if some x in [1]",
    ] {
        let ruling = ruling(&[team("support", &["orders"], body)], &fixture::authority());
        assert!(ruling.tools.is_empty() && ruling.reasons.is_empty(), "{body}: {ruling:?}");
        assert_eq!(ruling.withheld[0].source, "countersign.teams.support", "{body}");
    }
}

#[test]
fn one_teams_error_takes_nothing_from_another() {
    let broken =
        team("post", &["mail"], r#"delegate contains {"code": "x"} if time.parse_rfc3339_ns(input.tenant) > 0"#);
    let ruling = ruling(&[team("support", &["orders"], YES), broken], &on(&["orders", "mail"]));
    assert_eq!(tools(&ruling), ["orders"]);
    assert_eq!(codes(&ruling.withheld), ["policy_error"]);
}

#[test]
fn what_decides_calls_is_not_asked_about_tokens_nor_the_other_way_round() {
    let body = format!(
        "{YES}\nallow contains {{\"code\": \"call\"}}\ndeny contains {{\"code\": \"broken\"}} if time.parse_rfc3339_ns(input.tenant) > 0"
    );
    let ruled = ruling(&[team("support", &["orders"], &body)], &fixture::authority());
    assert_eq!(codes(&ruled.reasons), ["fine"]);
    let body = r#"allow contains {"code": "call"}
        delegate contains {"code": "broken"} if time.parse_rfc3339_ns(input.tenant) > 0"#;
    let engine = crate::Engine::load(&[team("support", &["orders"], body)], &fixture::catalogue(&["orders"])).unwrap();
    assert_eq!(codes(&engine.decide(&fixture::question()).reasons), ["call"]);
}

#[test]
fn who_manages_is_said_by_the_platform_team_alone() {
    let claims = fixture::delegation().user;
    let caller = fixture::principal(PrincipalKind::User, "alice", REALM);
    let grant = Object { kind: "grant", user: Some(Named::from(&caller)), ..Object::default() };
    let now = fixture::question().now;
    let asked = |operation| Management { caller: &caller, claims: &claims, operation, object: &grant, now };
    assert_eq!(load(&[org(YES)]).manage(&asked("grants.show")), None);
    let steering = load(&[org(r#"manage contains {"code": "emea_helpdesk"} if {
            startswith(input.operation, "grants.")
            "emea" in input.caller.groups
            input.caller.auth_time > 0
            input.object.kind == "grant"
            input.object.user.id == input.caller.id
        }"#)]);
    assert_eq!(codes(&steering.manage(&asked("grants.show")).unwrap().unwrap()), ["emea_helpdesk"]);
    assert!(steering.manage(&asked("agents.register")).unwrap().is_err());
    let broken = load(&[org(r#"manage contains {"code": "x"} if time.parse_rfc3339_ns(input.operation) > 0"#)]);
    assert_eq!(codes(&broken.manage(&asked("grants.show")).unwrap().unwrap_err()), ["policy_error"]);
    let error = Steering::load(&[team("support", &["orders"], r#"manage contains {"code": "x"}"#)]).unwrap_err();
    assert!(error.to_string().contains("a team does not say who manages"), "{error}");
}

#[test]
fn another_policy_is_another_revision() {
    let one = load(&[org(YES)]);
    assert_eq!(one.revision(), load(&[org(YES)]).revision());
    assert_ne!(one.revision(), load(&[org(r#"delegate contains {"code": "other"}"#)]).revision());
    assert_eq!(one.bundles(), ["org"]);
}
