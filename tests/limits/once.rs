//! A call under an idempotency key that comes to several sidecars is charged once; and never for nothing.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use serde_json::json;

use super::{AGENT, Refund, authority_with, daily, exhaust, received, refund};
use crate::support::{
    Sidecar, World,
    authority::{Authority, Client},
    eventually, mark,
    sidecar::Setup,
    world,
};

/// A sidecar that gives back soon what it does not use.
fn counting(world: &World, authority: &Authority, name: &str) -> Setup {
    super::counting(world, authority, name).with(|config| config["authority"]["limits"] = json!({"lease": "1s"}))
}

#[test]
fn a_retry_at_another_sidecar_or_after_a_kill_is_charged_once() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("60.00")]);
    let start = |name: &str| counting(world, &authority, name).start();
    let mut sidecars = [start("one"), start("two")];
    let token = authority.first(&agent, &world.openid);
    let mark = mark();
    let keyed = Refund { key: Some("refund-1"), ..refund(&token, &mark) };
    let first = keyed.at(&sidecars[0]);
    first.went(201);
    let again = keyed.at(&sidecars[1]);
    again.went(201);
    assert_eq!(sidecars[1].decided(&again)["charge"], json!({"repeats": first.decision_id()}));
    assert_eq!(sidecars[1].settled(&again.decision_id())["charge"], "confirmed");
    // Another amount is another call; so is another key.
    let other = Refund { amount: "4.00", ..Refund { key: Some("refund-1"), ..refund(&token, &mark) } };
    let charged = other.at(&sidecars[1]);
    charged.went(201);
    assert_eq!(sidecars[1].decided(&charged)["charge"]["limits"][0]["amount"]["text"], "4.00");
    let other = Refund { amount: "6.00", ..Refund { key: Some("refund-2"), ..refund(&token, &mark) } };
    other.at(&sidecars[1]).went(201);
    // A sidecar that is killed knows nothing any more, and the authority does.
    sidecars[0].daemon.kill();
    sidecars[0].daemon.wait();
    sidecars[0].restart();
    let again = keyed.at(&sidecars[0]);
    again.went(201);
    assert_eq!(sidecars[0].decided(&again)["charge"], json!({"repeats": first.decision_id()}));
    // Where nothing is left, what was charged still goes, at a sidecar that never had a slice too.
    exhaust(&sidecars, &refund(&token, &mark));
    let three = start("three");
    let again = keyed.at(&three);
    again.went(201);
    assert_eq!(three.decided(&again)["charge"], json!({"repeats": first.decision_id()}));
    Refund { key: Some("refund-3"), ..refund(&token, &mark) }.at(&three).refused(403, "limit_exceeded");
}

#[test]
fn a_call_that_comes_to_both_sidecars_at_once_is_charged_once() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("100.00")]);
    let sidecars = ["one", "two"].map(|name| counting(world, &authority, name).start());
    let token = authority.first(&agent, &world.openid);
    let (keyed_mark, mark) = (mark(), mark());
    thread::scope(|scope| {
        for number in 0..24_usize {
            let (sidecar, token, mark) = (&sidecars[number % 2], &token, &keyed_mark);
            scope.spawn(move || {
                let key = format!("refund-{}", number / 8);
                Refund { key: Some(&key), ..refund(token, mark) }.at(sidecar).went(201);
            });
        }
    });
    // Three calls, however often they came.
    exhaust(&sidecars, &refund(&token, &mark));
    assert_eq!(received(world, &mark), 7);
}

/// A tool that says once whose the order is, and is gone then.
fn gone_after_one_answer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Before it answers: nothing else is ever received.
        drop(listener);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while reader.read_line(&mut head).unwrap() > 2 {}
        let body = json!({"id": "17", "customer": {"id": "alice"}, "status": "paid"}).to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
    });
    url
}

#[test]
fn what_one_sidecar_could_not_send_another_is_charged_for() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("50.00")]);
    let unreachable = counting(world, &authority, "one")
        .with(|config| {
            config["tools"]["orders"]["upstream"] = json!(gone_after_one_answer());
            config["tools"]["orders"]["facts"]["order"]["ttl"] = json!("1h");
        })
        .start();
    let sidecar = counting(world, &authority, "two").start();
    let token = authority.first(&agent, &world.openid);
    let (keyed_mark, mark) = (mark(), mark());
    let keyed = |key| Refund { key: Some(key), ..refund(&token, &keyed_mark) };
    for key in ["refund-1", "refund-2"] {
        let answer = keyed(key).at(&unreachable);
        answer.refused(502, "tool_unreachable");
        assert_eq!(unreachable.settled(&answer.decision_id())["charge"], "released");
        // At once: it is this call's charge, or has been given back already.
        keyed(key).at(&sidecar).went(201);
    }
    keyed("refund-3").at(&unreachable).refused(502, "tool_unreachable");
    // Two that were sent are charged, and one that was not is not.
    let unkeyed = refund(&token, &mark);
    eventually("what was not sent to be given back", || {
        unkeyed.at(&sidecar);
        (received(world, &mark) == 3).then_some(())
    });
    eventually("the rest to be gone", || {
        let answer = unkeyed.at(&sidecar);
        (answer.status == 403 && answer.code() == "limit_exceeded").then_some(())
    });
    assert_eq!(received(world, &mark), 3);
    keyed("refund-1").at(&sidecar).went(201);
}

#[test]
fn without_the_authority_a_retry_elsewhere_is_charged_again() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let mut authority = authority_with(world, &agent, [&json!({}), &daily("200.00")]);
    let start = |name: &str| {
        counting(world, &authority, name)
            .with(|config| config["authority"]["limits"] = json!({"slice": 30, "lease": "2m", "timeout": "500ms"}))
            .start()
    };
    let sidecars = [start("one"), start("two")];
    let token = authority.first(&agent, &world.openid);
    let mark = mark();
    for sidecar in &sidecars {
        refund(&token, &mark).at(sidecar).went(201);
    }
    authority.daemon.kill();
    authority.daemon.wait();
    let keyed = Refund { key: Some("refund-1"), ..refund(&token, &mark) };
    let charged = |sidecar: &Sidecar| {
        let answer = keyed.at(sidecar);
        answer.went(201);
        sidecar.decided(&answer)["charge"].clone()
    };
    for sidecar in &sidecars {
        assert_eq!(charged(sidecar)["limits"][0]["amount"]["text"], "10.00", "never too little");
        assert!(charged(sidecar)["repeats"].is_string(), "what it knows itself it knows");
        let metrics = sidecar.metrics();
        let untold = metrics.lines().find_map(|line| line.strip_prefix("countersign_charges_untold_total "));
        assert!(untold.unwrap().parse::<f64>().unwrap() >= 1.0, "{metrics}");
    }
    authority.restart();
}
