//! Actions that are only observed: what would be refused goes, and the record says so; what is never waived is not.

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World, eventually, mark,
    openid::usual_details,
    process,
    sidecar::{Setup, audit, explain},
    world,
};

const OWNER: &str = "dana@acme.example";

/// A sidecar that observes refunds until `until`.
fn observing(world: &World, until: &str) -> Sidecar {
    Setup::new(&world.openid, &world.tool)
        .with(|config| {
            config["tools"]["orders"]["actions"]["refunds.create"]["observe"] = json!({"owner": OWNER, "until": until});
        })
        .start()
}

/// `days` from now.
fn in_days(days: i64) -> String {
    let now = jiff::Timestamp::now();
    now.checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap().to_string()
}

fn refund(sidecar: &Sidecar, order: &str, token: &str, amount: &str) -> Answer {
    let body = json!({"amount": amount, "currency": "USD"}).to_string();
    sidecar.refund(order, token, &body).send()
}

#[test]
fn what_would_be_refused_goes_and_the_record_says_what_enforcing_would_have_done() {
    let Some(world) = world() else { return };
    let sidecar = observing(world, &in_days(30));
    let alice = world.openid.delegated("alice");
    let reading = json!([usual_details()[0]]).to_string();
    let reading = [("authorization_details", reading.as_str()), ("scope", "orders.read orders.list")];
    let reading = world.openid.delegated_with("alice", &reading);
    let watching = world.openid.delegated_with("alice", &[("stage", "observe")]);
    let drafting = world.openid.delegated_with("alice", &[("stage", "draft")]);
    let cases = [
        ("17", &alice, "80.00", "guard", "limit_exceeded"),
        ("21", &alice, "20.00", "decide", "relation_unproven"),
        ("18", &alice, "20.00", "decide", "policy_denied"),
        ("17", &alice, "45.00", "approve", "approval_required"),
        ("17", &watching, "20.00", "guard", "stage"),
        ("17", &drafting, "20.00", "approve", "approval_required"),
        ("17", &reading, "20.00", "guard", "insufficient_scope"),
    ];
    for (order, token, amount, stage, code) in cases {
        let answer = refund(&sidecar, order, token, amount);
        answer.went(201);
        let record = sidecar.decided(&answer);
        assert_eq!((&record["decision"], &record["mode"]), (&json!("permit"), &json!("observe")), "{code}: {record}");
        let first = &record["observed"]["waived"][0];
        assert_eq!((&first["stage"], &first["code"]), (&json!(stage), &json!(code)), "{record}");
        assert_eq!(record["observed"]["rung"], 4);
        assert_eq!(sidecar.settled(&answer.decision_id())["sent"], true);
    }
    let good = refund(&sidecar, "17", &alice, "20.00");
    good.went(201);
    let record = sidecar.decided(&good);
    assert_eq!((&record["mode"], &record["observed"]["waived"]), (&json!("observe"), &Value::Null), "{record}");

    let metrics = sidecar.metrics();
    let counted = metrics.lines().any(|line| {
        line.starts_with("countersign_decisions_total")
            && ["mode=\"observe\"", "code=\"policy_denied\"", "outcome=\"permit\""]
                .iter()
                .all(|label| line.contains(label))
    });
    assert!(counted, "{metrics}");
}

#[test]
fn an_observed_decision_is_explained_by_what_policy_said_of_it() {
    let Some(world) = world() else { return };
    let sidecar = observing(world, &in_days(30));
    let answer = refund(&sidecar, "18", &world.openid.delegated("alice"), "20.00");
    answer.went(201);
    let id = answer.decision_id();
    let policies = sidecar.directory().join("policies");
    let said = explain(&sidecar.ledger(), &id, &["--json", "--policy", policies.to_str().unwrap()]).well();
    let said: Value = serde_json::from_str(&said).unwrap();
    let text = said.to_string();
    assert!(text.contains("order_on_hold") && text.contains("\"observe\""), "{text}");
    let again = &said["replay"]["again"];
    assert_eq!((&again["decision"], &again["same"]), (&json!("deny"), &json!(true)), "{text}");
    let line = audit(&sidecar.ledger(), "query", &["--action", "refunds.create"]).well();
    assert!(line.contains("PERMIT (observed: policy_denied)"), "{line}");
}

#[test]
fn whose_call_it_is_what_was_never_mapped_and_other_actions_are_not_waived() {
    let Some(world) = world() else { return };
    let sidecar = observing(world, &in_days(30));
    let alice = world.openid.delegated("alice");
    refund(&sidecar, "17", &world.openid.delegated("bob"), "20.00").refused(403, "entitlement");
    refund(&sidecar, "17", &world.openid.user("alice"), "20.00").refused(403, "impersonation");
    refund(&sidecar, "17", "nonsense", "20.00").refused(401, "invalid_token");
    sidecar.get("/orders/v1/secrets", &alice).send().refused(403, "unmapped_action");
    let reading = json!([usual_details()[0]]).to_string();
    let other = [("authorization_details", reading.as_str()), ("scope", "orders.list")];
    let other = world.openid.delegated_with("alice", &other);
    sidecar.get("/orders/v1/orders/17", &other).send().refused(403, "insufficient_scope");
}

#[test]
fn the_end_of_observing_needs_nobody() {
    let Some(world) = world() else { return };
    let soon = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(8)).unwrap().to_string();
    let sidecar = observing(world, &soon);
    let alice = world.openid.delegated("alice");
    let marked = mark();
    refund(&sidecar, "17", &alice, "80.00").went(201);
    let refused = eventually("refunds are enforced", || {
        let body = json!({"amount": "80.00", "currency": "USD"}).to_string();
        let answer = sidecar.refund("17", &alice, &body).header("X-Mark", &marked).send();
        (answer.status == 403).then_some(answer)
    });
    refused.refused(403, "limit_exceeded");
    assert_eq!(sidecar.decided(&refused)["mode"], "enforce");
}

#[test]
fn a_change_of_mode_is_on_record_and_in_the_status_and_the_report_says_what_enforcing_would_refuse() {
    let Some(world) = world() else { return };
    let until = in_days(30);
    let sidecar = observing(world, &until);
    let [changed] = &sidecar.query(&["--kind", "mode.changed"])[..] else { panic!("one change") };
    assert_eq!((&changed["action"], &changed["mode"]), (&json!("refunds.create"), &json!("observe")), "{changed}");
    assert_eq!((&changed["owner"], &changed["until"]), (&json!(OWNER), &json!(until)), "{changed}");

    let alice = world.openid.delegated("alice");
    refund(&sidecar, "18", &alice, "20.00").went(201);
    refund(&sidecar, "17", &alice, "20.00").went(201);
    sidecar.get("/orders/v1/orders/17", &alice).send().went(200);
    let mut report = process::countersign();
    report.args(["report", "rollout", "--json", "--from"]).arg(sidecar.ledger());
    let said = process::run(&mut report).well();
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [read, refunds] = &rows[..] else { panic!("two actions: {said}") };
    assert_eq!((&read["rung"], &read["enforced"]), (&json!(5), &json!(1)), "{said}");
    assert_eq!((&refunds["rung"], &refunds["observed"], &refunds["would_refuse"]), (&json!(4), &json!(2), &json!(1)));
    assert_eq!(refunds["refused"][0]["code"], "policy_denied");
    assert_eq!(refunds["refused"][0]["agents"], json!(["support-v1"]));
}

#[test]
fn an_obligation_that_is_out_of_reach_takes_no_other_one_off_the_record() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["tools"]["orders"]["observe"] = json!({"owner": OWNER, "until": in_days(30)});
    });
    setup.policy.push_str(
        r#"
obligations contains {"code": "hidden", "redact": ["/customer/id"]}
obligations contains {"code": "told", "notify": {"channel": "nobodys", "message": "An order was read."}}
"#,
    );
    let sidecar = setup.start();
    let answer = sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send();
    answer.went(200);
    let record = sidecar.decided(&answer);
    assert_eq!(record["observed"]["waived"][0]["code"], "obligation_unknown", "{record}");
    let codes: Vec<&Value> = record["obligations"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert_eq!(codes, ["hidden", "told"], "{record}");
}
