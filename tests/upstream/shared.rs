//! Connections that many calls share: whose credential they carry, and what becomes of calls when the tool takes them away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::json;

use super::{
    odd,
    raw::{RawTool, ok},
};
use crate::support::{Answer, eventually, mark, sidecar::Setup, tool::Tool, world};

const PLAIN: &str = "/orders/v1/odd/plain";

#[test]
fn no_connection_carries_two_credentials() {
    let Some(world) = world() else { return };
    let tool = RawTool::start(|connection| {
        while connection.request().is_some() {
            connection.say(ok("fine"));
        }
    });
    let sidecar = tool.sidecar_with(world, |config| {
        config["sidecar"]["tenants"] = json!(["acme", "globex"]);
        config["issuers"][0]["tenants"] = json!(["acme", "globex"]);
        config["issuers"][0]["claims"] = json!({"tenant": "tenant"});
        for agent in config["agents"].as_array_mut().unwrap() {
            agent["tenants"] = json!(["acme", "globex"]);
        }
        config["tools"]["orders"]["credentials"] = json!({"globex": {"bearer": {"env": "OTHERS_SECRET"}}});
    });
    let acme = world.probe();
    let globex = world.openid.sign(&json!({"like": acme, "claims": {"tenant": "globex"}}));
    let call = |token: &str| assert_eq!(sidecar.get(PLAIN, token).send().status, 200);
    for _ in 0..3 {
        call(&acme);
        call(&globex);
    }
    let secret = sidecar.directory().join("tool-credential");
    fs::write(&secret, "the-credential-after-it").unwrap();
    eventually("the new credential to be presented", || {
        call(&acme);
        tool.heads().iter().any(|(_, head)| head.contains("the-credential-after-it")).then_some(())
    });
    call(&acme);

    let mut carried: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (connection, head) in tool.heads() {
        let field = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap().to_owned();
        carried.entry(connection).or_default().insert(field);
    }
    assert!(carried.values().all(|credentials| credentials.len() == 1), "{carried:?}");
    let all: BTreeSet<&String> = carried.values().flatten().collect();
    assert_eq!(all.len(), 3, "{carried:?}");
    // Connections are used again, within a credential.
    assert!(carried.len() < tool.heads().len(), "{carried:?}");
}

#[test]
fn a_tool_that_says_goodbye_after_each_answer_is_called_on_a_new_connection() {
    let Some(world) = world() else { return };
    for tool in [Tool::plain(), Tool::secured(&["--http", "2"])] {
        let Some(tool) = tool else { return };
        let sidecar = Setup::new(&world.openid, &tool).with(odd).start();
        let token = world.probe();
        let answers: Vec<Answer> = (0..20).map(|_| sidecar.get("/orders/v1/odd/goodbye", &token).send()).collect();
        // One that was on its way when the tool left may be lost, and then says so.
        let went = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(answers.iter().all(|answer| answer.status == 200 || answer.code() == "tool_unreachable"));
        let lost = answers.iter().find(|answer| answer.status != 200).map(Answer::text);
        assert!(went > 10, "{went} of 20 by {}: {lost:?} {}", tool.url(), sidecar.daemon.output());
        sidecar.get(PLAIN, &token).send().went(200);
    }
}

#[test]
fn a_read_that_the_tool_refuses_unprocessed_is_sent_again_and_a_write_is_not() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::secured(&["--http", "2"]) else { return };
    let sidecar = Setup::new(&world.openid, &tool).with(odd).start();
    let token = world.probe();
    let read = |of: u32| {
        let path = format!("/orders/v1/odd/refuse?of={of}&mark={}", mark());
        (sidecar.get(&path, &token).send(), path)
    };
    let reached = |path: &str| {
        let url = path.strip_prefix("/orders").unwrap();
        tool.requests().iter().filter(|request| request["url"] == url).count()
    };
    let (answer, path) = read(1);
    answer.went(200);
    assert_eq!((&answer.json()["refused"], reached(&path)), (&json!(1), 2));
    // Not for ever.
    let (answer, path) = read(100);
    answer.refused(502, "tool_unreachable");
    assert_eq!((&answer.json()["sent"], reached(&path)), (&json!(false), 3), "{}", answer.text());
    let settled = sidecar.settled(&answer.decision_id());
    assert_eq!((&settled["outcome"], &settled["sent"]), (&json!("tool_unreachable"), &json!(false)), "{settled}");

    let path = format!("/orders/v1/odd/refuse?of=1&mark={}", mark());
    let write = crate::support::Curl::post(sidecar.url(&path), "application/json", "{}").bearer(&token).send();
    write.refused(502, "tool_unreachable");
    assert_eq!((&write.json()["sent"], &write.json()["retry"]), (&json!(false), &json!("after")), "{}", write.text());
    assert_eq!(reached(&path), 1, "a write was sent twice");
}

#[test]
fn too_much_of_a_head_over_http_2_is_refused_and_others_on_the_connection_go_on() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::secured(&["--http", "2"]) else { return };
    let sidecar = Setup::new(&world.openid, &tool).with(odd).start();
    let token = world.probe();
    for path in ["crowded?bytes=200000", "crowded?bytes=60000"] {
        let answer = sidecar.get(&format!("/orders/v1/odd/{path}"), &token).send();
        assert!([200, 502].contains(&answer.status), "{path}: {}", answer.status);
        sidecar.get(PLAIN, &token).send().went(200);
    }
}
