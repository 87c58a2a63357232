//! The authority's state: shared by replicas over a real PostgreSQL, and restored from a backup.

use serde_json::{Value, json};

use crate::support::{
    authority::{Authority, Client, token},
    eventually,
    openid::AUDIENCE,
    postgres::Postgres,
    process, world,
};

const TASK: [(&str, &str); 2] = [("task_id", "ticket-1"), ("audience", AUDIENCE)];

#[test]
fn replicas_over_one_database_are_one_authority_also_when_it_comes_and_goes() {
    let Some(world) = world() else { return };
    let Some(mut postgres) = Postgres::start() else { return };
    let client = Client::new("support-v9");
    let one = Authority::start_with(&world.openid, &[&client], |directory, config| {
        std::fs::write(directory.join("url"), postgres.url()).unwrap();
        std::fs::set_permissions(directory.join("url"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        config["authority"]["database"] = json!({"postgres": {"url": {"file": "url"}}});
    });
    let other = one.replica();
    let user = world.openid.user("alice");

    let assertion = client.assertion(&one.issuer(), &Value::Null);
    token(&one.exchange_with(&assertion, &user, &TASK));
    let again = other.exchange_with(&assertion, &user, &TASK);
    assert_eq!((again.status, again.json()["error"].as_str()), (401, Some("invalid_client")));
    token(&other.exchange(&client, &user, &TASK));

    // While the database is away nothing is issued and nothing is believed; then everything goes on.
    postgres.tell("stop");
    let refused = other.exchange(&client, &user, &TASK);
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    postgres.tell("start");
    eventually("both replicas to issue again", || {
        [&one, &other].iter().all(|it| it.exchange(&client, &user, &TASK).status == 200).then_some(())
    });
    postgres.tell("crash");
    eventually("both replicas to issue again", || {
        [&one, &other].iter().all(|it| it.exchange(&client, &user, &TASK).status == 200).then_some(())
    });

    // What one takes back, the other issues no more.
    let made = one.manage(
        &world.openid,
        &["platform"],
        "/v1/withdrawals",
        &json!({"target": "task:ticket-1", "reason": "done with"}),
    );
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let refused = other.exchange(&client, &user, &TASK);
    assert_eq!(refused.json()["error"], "invalid_request", "{}", refused.json());
}

#[test]
fn a_state_that_was_restored_says_so_and_honours_nothing_from_before() {
    let Some(world) = world() else { return };
    let (parent, helper) = (Client::new("support-v9"), Client::new("refund-v9"));
    let mut authority = Authority::start(&world.openid, &[&parent, &helper]);
    let before = authority.first(&parent, &world.openid);
    authority.daemon.kill();

    let config = authority.directory().join("authority.yaml");
    let mut restored = process::countersign();
    restored.args([
        "authority",
        "restored",
        "--by",
        "dana@acme.example",
        "--reason",
        "back to the backup",
        "--json",
        "--config",
    ]);
    let said = restored.arg(&config).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert!(said["generation"].is_string() && said["position"].as_u64() > Some(0), "{said}");

    authority.restart();
    let refused = authority.exchange(&parent, &before, &[("requested_actor", "refund-v9")]);
    assert_eq!(refused.status, 400, "{}", refused.json());
    // What stands registered is still there.
    authority.first(&parent, &world.openid);
}
