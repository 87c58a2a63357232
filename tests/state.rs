//! The authority's state: shared by replicas over a real PostgreSQL, and restored from a backup.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    World,
    authority::{Authority, Client, MANAGEMENT, token},
    eventually, http, mark,
    openid::AUDIENCE,
    postgres::Postgres,
    process, world,
};

const TASK: [(&str, &str); 2] = [("task_id", "ticket-1"), ("audience", AUDIENCE)];

/// An authority whose state is in `postgres`.
fn over(world: &World, postgres: &Postgres, client: &Client) -> Authority {
    Authority::start_with(&world.openid, &[client], |directory, config| postgres.keep(directory, config))
}

#[test]
fn replicas_over_one_database_are_one_authority_also_when_it_comes_and_goes() {
    let Some(world) = world() else { return };
    let Some(mut postgres) = Postgres::start() else { return };
    let client = Client::new("support-v9");
    let one = over(world, &postgres, &client);
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

#[test]
fn an_authority_that_is_killed_in_the_middle_of_its_writes_has_lost_none_that_it_acknowledged() {
    let Some(world) = world() else { return };
    let client = Client::new("support-v9");
    is_killed_and_loses_nothing(world, Authority::start(&world.openid, &[&client]));
    let Some(postgres) = Postgres::start() else { return };
    is_killed_and_loses_nothing(world, over(world, &postgres, &client));
}

fn is_killed_and_loses_nothing(world: &World, mut authority: Authority) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({"aud": MANAGEMENT, "azp": "portal", "client_id": "portal", "groups": ["platform"], "auth_time": now, "jti": mark()});
    let token = world.openid.sign(&json!({"like": world.openid.user("alice"), "claims": claims}));
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let port = authority.port();
    let made = Mutex::new(Vec::new());
    for round in 1..=3 {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for lane in 0..3 {
                let (made, stop) = (&made, &stop);
                scope.spawn(move || {
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let body =
                            json!({"target": format!("task:{round}-{lane}-{number}"), "reason": "a test"}).to_string();
                        let ask = || http::request(port, "POST", "/v1/withdrawals", &headers, body.as_bytes());
                        // Killed while it was asked: not acknowledged.
                        let Ok(answer) = catch_unwind(AssertUnwindSafe(ask)) else { return };
                        if answer.status == 201 {
                            made.lock().unwrap().push(answer.json()["id"].as_str().unwrap().to_owned());
                        }
                    }
                });
            }
            eventually("some writes", || (made.lock().unwrap().len() >= 12 * round).then_some(()));
            authority.daemon.kill();
            stop.store(true, Ordering::Relaxed);
        });
        authority.restart();
    }
    let (mut listed, mut path) = (String::new(), "/v1/withdrawals?limit=200".to_owned());
    loop {
        let page = http::request(port, "GET", &path, &headers, b"");
        page.went(200);
        listed.push_str(&String::from_utf8_lossy(&page.body));
        let Some(next) = page.json()["next"].as_str().map(str::to_owned) else { break };
        path = format!("/v1/withdrawals?limit=200&cursor={next}");
    }
    for id in made.into_inner().unwrap() {
        assert!(listed.contains(&id), "{id} was acknowledged");
    }
}
