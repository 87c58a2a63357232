//! Policy in the running sidecar: default deny, whose word counts, and what happens when a rule fails or never ends.

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World, mark,
    sidecar::{POLICY, Setup},
    world,
};

const HEAD: &str = "package countersign.teams.support\n\n";

const REFUND: &str = r#"{"amount":"20.00","currency":"USD"}"#;

/// A sidecar with another policy of the team.
fn with(world: &World, rules: &str) -> Sidecar {
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = format!("{HEAD}{rules}");
    setup.start()
}

/// A refund that the delegation covers; refused, it must not reach the tool.
fn refund(world: &World, sidecar: &Sidecar) -> Answer {
    let mark = mark();
    let token = world.openid.delegated("alice");
    let answer = sidecar.refund("17", &token, REFUND).header("X-Mark", &mark).send();
    assert_eq!(world.tool.marked(&mark).len(), usize::from(answer.status == 201));
    answer
}

#[test]
fn what_no_rule_allows_is_refused() {
    let Some(world) = world() else { return };
    let sidecar = with(world, "allow contains {\"code\": \"reads\"} if input.action.effect == \"read\"\n");
    refund(world, &sidecar).refused(403, "policy_no_allow");
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
    // Undefined is not true, and a value that is there is not true either.
    let sidecar = with(world, "allow contains {\"code\": \"x\"} if input.facts.order.status == input.nothing.there\n");
    refund(world, &sidecar).refused(403, "policy_no_allow");
}

#[test]
fn a_tool_that_no_team_decides_about_is_closed() {
    let Some(world) = world() else { return };
    let only_the_platform = |config: &mut Value| drop(config["policy"].as_array_mut().unwrap().pop());
    let sidecar = Setup::new(&world.openid, &world.tool).with(only_the_platform).start();
    let answer = refund(world, &sidecar);
    answer.refused(503, "no_policy");
    assert_eq!(sidecar.decided(&answer)["code"], "no_policy");
}

#[test]
fn the_platform_may_deny_what_a_team_allows_and_both_are_named() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.platform =
        "package countersign.org\n\ndeny contains {\"code\": \"freeze\", \"message\": \"No refunds today.\"} if \
                      input.action.name == \"refunds.create\"\n\nallow contains {\"code\": \"mine\"} if false\n"
            .to_owned();
    let refused = setup.run();
    assert_eq!(refused.code, Some(78), "the platform's package never allows: {}", refused.stderr);
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.platform =
        "package countersign.org\n\ndeny contains {\"code\": \"freeze\", \"message\": \"No refunds today.\"} if \
                      input.action.name == \"refunds.create\"\n"
            .to_owned();
    let sidecar = setup.start();
    let answer = refund(world, &sidecar);
    answer.refused(403, "policy_denied");
    assert_eq!(answer.json()["reasons"][0]["source"], "countersign.org", "{}", answer.text());
    assert_eq!(answer.json()["reasons"][0]["message"], "No refunds today.");
}

#[test]
fn a_rule_that_fails_denies_and_names_its_package() {
    let Some(world) = world() else { return };
    // The facts hold `paid`, which is no time. A policy engine that swallowed the error would let the call through.
    let rules = "allow contains {\"code\": \"x\"}\n\ndeny contains {\"code\": \"old\"} if \
                 time.parse_rfc3339_ns(input.facts.order.status) < input.now_ns\n";
    let sidecar = with(world, rules);
    let answer = refund(world, &sidecar);
    answer.refused(503, "policy_error");
    let record = sidecar.decided(&answer);
    assert!(record.to_string().contains("countersign.teams.support"), "{record}");
    assert!(!answer.text().contains("rfc3339"), "the agent learns how the rule is written: {}", answer.text());
}

#[test]
fn a_rule_that_does_not_end_is_stopped_and_the_next_call_is_served() {
    let Some(world) = world() else { return };
    let rules = "allow contains {\"code\": \"x\"} if input.action.effect == \"read\"\n\n\
                 allow contains {\"code\": \"slow\"} if {\n    input.action.effect == \"write\"\n    \
                 some a in numbers.range(1, 9000)\n    some b in numbers.range(1, 9000)\n    a + b < 0\n}\n";
    let sidecar = with(world, rules);
    let answer = refund(world, &sidecar);
    answer.refused(503, "policy_budget");
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
}

#[test]
fn an_obligation_that_nobody_can_meet_is_a_refusal() {
    let Some(world) = world() else { return };
    let rules = "allow contains {\"code\": \"x\"}\n\nobligations contains {\"code\": \"mask_card\"}\n";
    let answer = refund(world, &with(world, rules));
    answer.refused(403, "obligation_unknown");
}

#[test]
fn a_limit_over_a_window_that_nobody_can_count_is_a_refusal() {
    let Some(world) = world() else { return };
    let details = json!([{
        "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
        "limits": {"daily": {"sum": "amount", "max": "200.00", "currency": "USD", "window": "P1D"}},
    }]);
    let token = world.openid.delegated_with("alice", &[("authorization_details", &details.to_string())]);
    let mark = mark();
    let answer = world.sidecar.refund("17", &token, REFUND).header("X-Mark", &mark).send();
    answer.refused(503, "limit_unavailable");
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new());
    assert!(POLICY.contains("covered"), "policy would have allowed it");
}
