//! The authority with the sidecar it issues for: a user's token becomes a delegated one, is handed on to a second agent,
//! and never grows on the way.

use serde_json::{Value, json};

use crate::support::{
    Sidecar, World,
    authority::{Authority, Client, entitlements, token},
    mark,
    openid::{AUDIENCE, claims},
    sidecar::{Setup, audit},
    world,
};

/// The authority of the tests, its two agents, and a sidecar that believes it alone.
struct Planes {
    authority: Authority,
    parent: Client,
    helper: Client,
    sidecar: Sidecar,
}

fn planes(world: &World) -> Planes {
    let (parent, helper) = (Client::new("support-v9"), Client::new("refund-v9"));
    let authority = Authority::start(&world.openid, &[&parent, &helper]);
    let issuer = authority.issuer();
    let sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| {
            let subject = world.openid.issuer();
            config["issuers"] = json!([
                {"issuer": issuer, "role": "delegation", "tenants": ["acme"]},
                {"issuer": subject, "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"}, "entitlements": entitlements()},
            ]);
            let actions = ["orders.read", "orders.list", "refunds.create"];
            config["agents"] = ["support-v9", "refund-v9"]
                .map(|id| json!({"id": id, "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}))
                .into_iter()
                .collect();
        })
        .start();
    Planes { authority, parent, helper, sidecar }
}

#[test]
fn a_users_token_becomes_a_delegated_one_that_the_sidecar_lets_through() {
    let Some(world) = world() else { return };
    let Planes { authority, parent, helper, sidecar } = planes(world);

    let keys = authority.get("/jwks.json").json();
    assert!(
        keys["keys"].as_array().is_some_and(|keys| !keys.is_empty() && keys.iter().all(|key| key["d"].is_null())),
        "{keys}"
    );
    let metadata = authority.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["issuer"], authority.issuer());
    for file in std::fs::read_dir(authority.directory().join("keys")).unwrap() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.unwrap().metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "a signing key is readable by others");
    }

    let delegated = authority.first(&parent, &world.openid);
    let said = claims(&delegated);
    assert_eq!((&said["sub"], &said["act"]["sub"]), (&json!("alice"), &json!("support-v9")));
    assert_eq!((&said["run_id"], &said["task_id"]), (&json!("run-1"), &json!("ticket-1")));
    let answer = sidecar.get("/orders/v1/orders/17", &delegated).send();
    answer.went(200);
    let record = sidecar.decided(&answer);
    assert_eq!(
        (&record["user"]["issuer"], &record["agent"]["issuer"]),
        (&json!(world.openid.issuer()), &json!(authority.issuer()))
    );
    sidecar.refund("17", &delegated, r#"{"amount":"20.00","currency":"USD"}"#).send().went(201);
    sidecar.refund("17", &delegated, r#"{"amount":"80.00","currency":"USD"}"#).send().refused(403, "limit_exceeded");
    sidecar.refund("21", &delegated, r#"{"amount":"20.00","currency":"USD"}"#).send().refused(403, "relation_unproven");
    sidecar.get("/orders/v1/orders/17", &world.openid.user("alice")).send().refused(403, "impersonation");

    // The second hop: the parent names the helper, the helper takes over with its own key, for less.
    let named = authority.exchange(&parent, &delegated, &[("requested_actor", "refund-v9")]);
    let handed = token(&named);
    sidecar.get("/orders/v1/orders/17", &handed).send().refused(401, "wrong_audience");
    let less = json!([{"type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"], "identifier": "orders/*", "limits": {"amount": {"max": "10.00", "currency": "USD"}}, "where": {"order.placed_by": "$user"}}]);
    let less = less.to_string();
    let taken =
        token(&authority.exchange(&helper, &handed, &[("audience", AUDIENCE), ("authorization_details", &less)]));
    let said = claims(&taken);
    assert_eq!(
        (&said["act"]["sub"], &said["act"]["act"]["sub"]),
        (&json!("refund-v9"), &json!("support-v9")),
        "{said}"
    );
    assert_eq!(said["delegation_chain"].as_array().map(Vec::len), Some(3));
    assert!(said["exp"].as_i64() <= claims(&delegated)["exp"].as_i64(), "it outlives its parent");
    sidecar.refund("17", &taken, r#"{"amount":"10.00","currency":"USD"}"#).send().went(201);
    let refused = sidecar.refund("17", &taken, r#"{"amount":"20.00","currency":"USD"}"#).send();
    refused.refused(403, "limit_exceeded");
    assert!(refused.json()["limiting_hop"].as_str().unwrap().contains("refund-v9"), "{}", refused.text());
    sidecar.get("/orders/v1/orders/17", &taken).send().refused(403, "insufficient_scope");

    // Issuing is on record too.
    let records = audit(&authority.directory().join("ledger"), "query", &["--json"]).lines();
    assert!(records.iter().filter(|record| record["kind"] == "token.issued").count() >= 3, "{records:?}");
    audit(&authority.directory().join("ledger"), "verify", &[]).well();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a case a row")]
fn nobody_gets_a_token_by_holding_somebody_elses() {
    let Some(world) = world() else { return };
    let Planes { authority, parent, helper, .. } = planes(world);
    let alice = world.openid.user("alice");
    let task = [("task_id", "ticket-1"), ("audience", AUDIENCE)];
    let delegated = authority.first(&parent, &world.openid);
    let handed = token(&authority.exchange(&parent, &delegated, &[("requested_actor", "refund-v9")]));
    let stranger = Client::new("support-v9");
    let forged = world.openid.sign(&json!({"like": alice, "key": "unpublished"}));
    let refused = [
        ("another agent takes the task", authority.exchange(&helper, &alice, &task)),
        (
            "another user's task",
            authority.exchange(&parent, &alice, &[("task_id", "ticket-bob"), ("audience", AUDIENCE)]),
        ),
        ("another user", authority.exchange(&parent, &world.openid.user("bob"), &task)),
        (
            "a task that ended",
            authority.exchange(&parent, &alice, &[("task_id", "ticket-done"), ("audience", AUDIENCE)]),
        ),
        (
            "a task that is not",
            authority.exchange(&parent, &alice, &[("task_id", "ticket-404"), ("audience", AUDIENCE)]),
        ),
        ("no task", authority.exchange(&parent, &alice, &[("audience", AUDIENCE)])),
        ("a forged user", authority.exchange(&parent, &forged, &task)),
        ("an unknown key", authority.exchange(&stranger, &alice, &task)),
        ("the helper splices itself in", authority.exchange(&helper, &delegated, &[("audience", AUDIENCE)])),
        ("the helper names itself", authority.exchange(&helper, &delegated, &[("requested_actor", "refund-v9")])),
        ("the parent takes over itself", authority.exchange(&parent, &handed, &[("audience", AUDIENCE)])),
        (
            "an actor token",
            authority.exchange(
                &parent,
                &alice,
                &[
                    task[0],
                    task[1],
                    ("actor_token", &delegated),
                    ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ],
            ),
        ),
        (
            "an audience that is no sidecar",
            authority.exchange(&parent, &alice, &[("task_id", "ticket-1"), ("audience", "https://orders.example")]),
        ),
        ("more than there is", authority.exchange(&parent, &alice, &[task[0], task[1], ("scope", "payroll.read")])),
        ("a parameter twice", authority.exchange(&parent, &alice, &[task[0], task[0], task[1]])),
    ];
    let wrong: Vec<_> = refused
        .iter()
        .filter(|(_, answer)| {
            !(400..=403).contains(&answer.status)
                || answer.json()["error"].as_str().is_none()
                || answer.text().contains("access_token\"")
        })
        .map(|(name, answer)| format!("{name}: {} {}", answer.status, answer.text()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let assertion = parent.assertion(&authority.issuer(), &Value::Null);
    token(&authority.exchange_with(&assertion, &alice, &task));
    let again = authority.exchange_with(&assertion, &alice, &task);
    assert_eq!(
        (again.status, again.json()["error"].as_str()),
        (401, Some("invalid_client")),
        "an assertion is good once: {}",
        again.text()
    );
    for changes in [
        json!({"aud": "https://elsewhere.example"}),
        json!({"sub": "refund-v9"}),
        json!({"iss": "refund-v9", "sub": "refund-v9"}),
        json!({"exp": 1}),
        json!({"jti": null}),
        json!({"exp": 4_102_444_800_u64}),
    ] {
        let answer = authority.exchange_with(&parent.assertion(&authority.issuer(), &changes), &alice, &task);
        assert_eq!(answer.status, 401, "{changes}: {}", answer.text());
    }
    let unsigned = assertion.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(authority.exchange_with(&unsigned, &alice, &task).status, 401);
}

#[test]
fn a_hop_never_gets_more_than_its_parent_holds() {
    let Some(world) = world() else { return };
    let Planes { authority, parent, helper, sidecar } = planes(world);
    let wide = json!([{"type": "urn:countersign:action", "actions": ["refunds.create", "payroll.read"], "locations": ["orders"], "limits": {"amount": {"max": "500.00", "currency": "USD"}}}]).to_string();
    let alice = world.openid.user("alice");
    let asked = authority.exchange(
        &parent,
        &alice,
        &[("task_id", "ticket-1"), ("audience", AUDIENCE), ("authorization_details", &wide)],
    );
    let delegated = token(&asked);
    let details = claims(&delegated)["authorization_details"].clone();
    assert_eq!(details[0]["limits"]["amount"]["max"], "50.00", "{details}");
    assert_eq!(details[0]["where"]["order.placed_by"], "$user", "{details}");
    assert!(!details.to_string().contains("payroll"), "{details}");
    assert_eq!(asked.json()["authorization_details"], details, "the client is told what it got");

    let handed = token(&authority.exchange(
        &parent,
        &delegated,
        &[("requested_actor", "refund-v9"), ("scope", "refunds.create")],
    ));
    let taken = authority.exchange(&helper, &handed, &[("audience", AUDIENCE), ("authorization_details", &wide)]);
    let taken = token(&taken);
    assert_eq!(claims(&taken)["authorization_details"][0]["limits"]["amount"]["max"], "50.00");
    let mark = mark();
    let answer = sidecar.refund("17", &taken, r#"{"amount":"50.01","currency":"USD"}"#).header("X-Mark", &mark).send();
    answer.refused(403, "limit_exceeded");
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new());
    let third = authority.exchange(&helper, &taken, &[("requested_actor", "support-v9")]);
    assert!((400..=403).contains(&third.status), "an agent in the chain extends it: {}", third.text());
}
