//! The authority's signing keys rotate while agents work: no call is refused for it, and a key that is withdrawn ends
//! what it signed at every sidecar that follows.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    support::{
        World,
        authority::{Authority, Client},
        eventually, process,
        sidecar::audit,
        world,
    },
    withdrawal::planes::{enrolled, read},
};

/// How long a new key is published before it signs.
const AHEAD: &str = "3s";

fn authority(world: &World, agent: &Client) -> Authority {
    Authority::start_with(&world.openid, &[agent], |_, config| {
        config["authority"]["keys"]["publish_ahead"] = json!(AHEAD);
    })
}

fn keys(authority: &Authority, arguments: &[&str]) -> Vec<Value> {
    let mut command = process::countersign();
    command.args(["authority", "keys"]).args(arguments).arg("--json").arg("--config");
    process::run(command.arg(authority.directory().join("authority.yaml"))).lines()
}

fn by_hand(authority: &Authority, arguments: &[&str]) -> Value {
    keys(authority, &[arguments, &["--by", "dana@acme.example", "--reason", "a drill"]].concat()).remove(0)
}

fn records(authority: &Authority) -> Vec<Value> {
    audit(&authority.directory().join("ledger"), "query", &["--json"]).lines()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

fn published(authority: &Authority) -> Vec<String> {
    let keys = authority.get("/jwks.json").json()["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_key_takes_over_under_load_and_no_call_is_refused() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = authority(world, &agent);
    let sidecar = enrolled(world, &authority, "edge").start();
    let before = kid(&authority.first(&agent, &world.openid));
    let (stop, calls, signed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A fresh token each time: whichever key signs now, the sidecar has it.
                    let token = authority.first(&agent, &world.openid);
                    read(&sidecar, &token).went(200);
                    calls.fetch_add(1, Ordering::Relaxed);
                    signed.lock().unwrap().push(kid(&token));
                }
            });
        }
        let made = by_hand(&authority, &["rotate"]);
        assert_eq!(made["state"], "published", "{made}");
        let new = made["kid"].as_str().unwrap();
        eventually("the new key to be published", || published(&authority).contains(&new.to_owned()).then_some(()));
        eventually("the new key to sign", || signed.lock().unwrap().iter().any(|kid| kid == new).then_some(()));
        let so_far = calls.load(Ordering::Relaxed);
        eventually("some more calls", || (calls.load(Ordering::Relaxed) > so_far + 10).then_some(()));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(published(&authority).len(), 2, "what the one before signed is still good");
    });
    let signed = signed.into_inner().unwrap();
    assert!(signed.contains(&before), "the one before signed until then");
    assert!(calls.into_inner() > 20);
    let listed = keys(&authority, &["list"]);
    let states: Vec<_> = listed.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["retiring", "signs"], "{listed:?}");
    let records = records(&authority);
    let rotated: Vec<_> = records.iter().filter(|record| record["kind"] == "key.rotated").collect();
    assert!(
        rotated.len() == 2 && rotated[1]["by"] == "dana@acme.example" && rotated[1]["reason"] == "a drill",
        "{rotated:?}"
    );
}

#[test]
fn a_key_that_is_withdrawn_ends_what_it_signed_at_every_sidecar_and_another_signs_at_once() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = authority(world, &agent);
    let sidecar = enrolled(world, &authority, "edge").start();
    let stolen = authority.first(&agent, &world.openid);
    read(&sidecar, &stolen).went(200);
    let withdrawn = by_hand(&authority, &["withdraw", &kid(&stolen)]);
    assert_eq!(withdrawn["state"], "withdrawn");
    // P5's bound for reads is a minute and commonly it is at once; the waiting here has an end below that.
    eventually("the key to be known as withdrawn", || (read(&sidecar, &stolen).status != 200).then_some(()));
    read(&sidecar, &stolen).refused(401, "withdrawn");
    let next = eventually("another key to sign", || {
        let asked = [("task_id", "ticket-1"), ("audience", crate::support::openid::AUDIENCE)];
        let answer = authority.exchange(&agent, &world.openid.user("alice"), &asked);
        (answer.status == 200).then(|| answer.json()["access_token"].as_str().unwrap().to_owned())
    });
    assert_ne!(kid(&next), kid(&stolen));
    eventually("the new key to be known", || {
        thread::sleep(Duration::from_millis(50));
        (read(&sidecar, &next).status == 200).then_some(())
    });
    // By now its keys are without that one, too.
    assert_eq!(read(&sidecar, &stolen).status, 401);
    assert!(!published(&authority).contains(&kid(&stolen)));
    // The key itself is nowhere: nobody can copy it again.
    eventually("the file of the key to be deleted", || {
        (!authority.directory().join("keys/es256.pem").exists()).then_some(())
    });
    let deleted = records(&authority).into_iter().find(|record| record["kind"] == "key.deleted").unwrap();
    assert_eq!((&deleted["key_id"], &deleted["because"]), (&json!(kid(&stolen)), &json!("withdrawn")));
}
