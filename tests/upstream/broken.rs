//! Tools that break the protocol, or off: a clean refusal with its decision on record, and nothing of it reaches the next
//! call.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::raw::{RawTool, ok};
use crate::support::{Answer, Curl, Sidecar, eventually, world};

const PLAIN: &str = "/orders/v1/odd/plain";

fn post(sidecar: &Sidecar, token: &str, query: &str) -> Curl {
    Curl::post(sidecar.url(&format!("/orders/v1/odd/echo{query}")), "application/json", "{}").bearer(token)
}

/// Answers a request for `?case=N` with those bytes, hangs up where `hang_up`, and answers every other as it should be.
fn saying(cases: Vec<Vec<u8>>, hang_up: bool) -> RawTool {
    RawTool::start(move |connection| {
        while let Some(head) = connection.request() {
            let Some(case) = asked(&head) else {
                connection.say(ok("fine"));
                continue;
            };
            connection.say(&cases[case]);
            if hang_up {
                return connection.close();
            }
        }
    })
}

/// The case that a request asks for.
fn asked(head: &str) -> Option<usize> {
    head.split_once("?case=")?.1.split(' ').next()?.parse().ok()
}

fn case(sidecar: &Sidecar, token: &str, number: usize) -> Curl {
    sidecar.get(&format!("{PLAIN}?case={number}"), token)
}

/// The next call, and no later one either, sees anything of what came before.
#[track_caller]
fn fine(sidecar: &Sidecar, token: &str, name: &str) {
    let next = sidecar.get(PLAIN, token).send();
    assert_eq!((next.status, next.text().as_str()), (200, "fine"), "{name} reached the next call");
}

/// The refusal is as promised, the call is settled as `outcome`, and the next one goes.
#[track_caller]
fn refused(sidecar: &Sidecar, token: &str, number: usize, name: &str, (status, code, outcome): (u16, &str, &str)) {
    let answer = case(sidecar, token, number).send();
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {}", answer.text());
    assert_eq!((&answer.json()["sent"], &answer.json()["decision_id"]), (&json!(true), &json!(answer.decision_id())));
    let settled = sidecar.settled(&answer.decision_id());
    assert_eq!((&settled["outcome"], &settled["code"]), (&json!(outcome), &json!(code)), "{name}: {settled}");
    fine(sidecar, token, name);
}

#[test]
fn an_answer_that_is_none_is_refused_cleanly() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let with = |field: &[u8]| [b"HTTP/1.1 200 OK\r\n", field, b"\r\ncontent-length: 2\r\n\r\nok"].concat();
    let flood: String = (0..10_000).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", b"garbage\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-len".to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a version of the future", b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("two lengths", with(b"content-length: 3")),
        ("a negative length", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nx".to_vec()),
        ("a length that is none", b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok".to_vec()),
        ("a length beyond all numbers", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n".to_vec()),
        ("no colon", with(b"no colon")),
        ("a space before the colon", with(b"x-a : b")),
        ("a folded line", with(b"x-a: b\r\n c")),
        ("NUL in a value", with(b"x-a: b\0c")),
        ("a bare CR in a value", with(b"x-a: b\rc")),
        ("a control character in a name", with(b"x-\x01: b")),
        ("too many fields", with(flood.trim_end().as_bytes())),
        ("a giant field", with(format!("x-a: {}", "a".repeat(300_000)).as_bytes())),
        ("a field without end", [b"HTTP/1.1 200 OK\r\nx-a: ", &[b'a'; 2_000_000][..]].concat()),
    ];
    let (names, bytes): (Vec<&str>, Vec<Vec<u8>>) = cases.into_iter().unzip();
    let tool = saying(bytes, true);
    let sidecar = tool.sidecar(world);
    for (number, name) in names.into_iter().enumerate() {
        refused(&sidecar, &token, number, name, (502, "tool_unreachable", "tool_unreachable"));
    }
}

#[test]
fn nobody_is_handed_another_protocol() {
    let Some(world) = world() else { return };
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello";
    let tool = saying(vec![switching.to_vec()], false);
    refused(&tool.sidecar(world), &world.probe(), 0, "101", (502, "tool_unreachable", "tool_broke"));
}

#[test]
fn a_head_that_does_not_come_in_time_is_a_timeout_however_it_is_spread() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let drips =
        ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"];
    let tool = RawTool::start(move |connection| {
        while let Some(head) = connection.request() {
            let Some(case) = asked(&head) else {
                connection.say(ok("fine"));
                continue;
            };
            connection.say(drips[case]);
            while !connection.hung_up_within(200) {
                connection.say(if case == 0 { "x-a: b\r\n" } else { drips[case] });
            }
            return;
        }
    });
    let sidecar = tool.sidecar(world);
    for (number, drip) in drips.into_iter().enumerate() {
        refused(&sidecar, &token, number, drip, (504, "tool_timeout", "tool_timeout"));
    }
}

#[test]
fn interim_answers_are_not_the_answer() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nset-cookie: a=b\r\n\r\n";
    let tool = saying(vec![format!("{interim}{}", ok("final")).into_bytes()], false);
    let sidecar = tool.sidecar(world);
    let answer = case(&sidecar, &token, 0).send();
    assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "final", None));
    fine(&sidecar, &token, "an interim answer");
}

#[test]
fn a_body_that_breaks_off_does_not_look_whole() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n{rest}");
    let cases = [
        ("short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_owned()),
        ("no last chunk", chunked("")),
        ("half a chunk", chunked("a\r\nhell")),
        ("a size that is none", chunked("zz\r\nhello\r\n0\r\n\r\n")),
        ("a size beyond all numbers", chunked("FFFFFFFFFFFFFFFFF\r\nhello\r\n")),
        ("a chunk longer than its size", chunked("1\r\nhello\r\n0\r\n\r\n")),
        ("an endless chunk extension", chunked(&format!("5;{}", "x".repeat(2_000_000)))),
        ("endless trailers", chunked(&format!("0\r\n{}", "x-a: b\r\n".repeat(100_000)))),
    ];
    let (names, bytes): (Vec<&str>, Vec<Vec<u8>>) =
        cases.map(|(name, text)| (name, text.into_bytes())).into_iter().unzip();
    let tool = saying(bytes, true);
    let sidecar = tool.sidecar(world);
    let mut calls = 0;
    for (number, name) in names.into_iter().enumerate() {
        for (version, complaints) in [("--http1.1", ["18", "56"]), ("--http2-prior-knowledge", ["92", "INTERNAL"])] {
            let complaint = case(&sidecar, &token, number).argument(version).attempt();
            let complaint = complaint.map(|answer| answer.text()).expect_err(name);
            assert!(complaints.iter().any(|sign| complaint.contains(sign)), "{name} {version}: {complaint}");
            fine(&sidecar, &token, name);
            calls += 1;
        }
    }
    eventually("every call to be settled", || {
        let records = sidecar.query(&[]);
        let settled = |outcome: &str| {
            let of = |record: &&Value| {
                record["kind"] == "call.settled" && record["outcome"] == outcome && record["status"] == 200
            };
            records.iter().filter(of).count()
        };
        (settled("tool_broke") == calls && settled("completed") == calls).then_some(())
    });
}

#[test]
fn a_body_that_pauses_for_too_long_is_cut_and_events_are_waited_for() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let tool = RawTool::start(|connection| {
        while let Some(head) = connection.request() {
            let kind = if asked(&head) == Some(0) { "text/plain" } else { "Text/Event-Stream; charset=utf-8" };
            connection.say(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 10\r\n\r\nhello"));
            if !connection.hung_up_within(2_000) {
                connection.say("there");
            }
        }
    });
    let sidecar = tool.sidecar_with(world, |config| config["tools"]["orders"]["pause"] = json!("500ms"));
    let complaint = case(&sidecar, &token, 0).attempt().map(|answer| answer.text()).unwrap_err();
    assert!(complaint.contains("18"), "{complaint}");
    let settled = eventually("the call to be settled", || {
        sidecar.query(&[]).into_iter().find(|record| record["kind"] == "call.settled")
    });
    assert_eq!((&settled["outcome"], &settled["status"]), (&json!("tool_timeout"), &json!(200)), "{settled}");
    assert_eq!(settled["response_bytes"], 5);
    assert_eq!(case(&sidecar, &token, 1).send().text(), "hellothere");
}

#[test]
fn what_a_tool_says_unasked_is_nobodys_answer() {
    let Some(world) = world() else { return };
    let token = world.probe();
    // With the answer, or once it is out; in both cases before the next request is.
    for late in [false, true] {
        let said = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&said);
        let tool = RawTool::start(move |connection| {
            while let Some(head) = connection.request() {
                let mark = head.split(['=', ' ']).nth(2).unwrap().to_owned();
                if late {
                    connection.say(ok(&mark));
                    connection.pause(30);
                    connection.say(ok("poison"));
                } else {
                    connection.say(format!("{}{}", ok(&mark), ok("poison")));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let sidecar = tool.sidecar(world);
        for number in 0..6 {
            let before = said.load(Ordering::Relaxed);
            let answer = sidecar.get(&format!("{PLAIN}?mark={number}"), &token).send();
            assert!(answer.status == 502 || answer.text() == number.to_string(), "{number}: {}", answer.text());
            if answer.status == 200 {
                eventually("the tool to have said too much", || (said.load(Ordering::Relaxed) > before).then_some(()));
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        }
    }
}

#[test]
fn a_body_where_none_belongs_is_nobodys_answer() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let heads = [
        "HTTP/1.1 200 OK\r\ncontent-length: 80\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 80\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 80\r\n\r\n",
    ];
    let tool = saying(heads.map(|head| format!("{head}{}", ok("poison")).into_bytes()).to_vec(), false);
    let sidecar = tool.sidecar(world);
    for (number, head) in heads.iter().enumerate() {
        let call = case(&sidecar, &token, number);
        let answer = if number == 0 { call.argument("--head") } else { call }.send();
        assert!(answer.body.is_empty(), "{head}: {}", answer.text());
        fine(&sidecar, &token, head);
    }
}

/// Whether the tool's word for it and the sidecar's agree: how often a call with this mark reached it.
#[track_caller]
fn honest(tool: &RawTool, answer: &Answer, mark: &str) {
    let reached = tool.requests().iter().filter(|line| line.contains(mark)).count();
    let told = if answer.status == 502 { answer.json()["sent"].clone() } else { Value::Null };
    match (answer.status, &told) {
        (200, _) => assert_eq!(reached, 1, "{mark}"),
        (502, Value::Bool(false)) => assert_eq!(reached, 0, "{mark} was sent"),
        (502, Value::Bool(true)) => assert!(reached <= 1, "{mark} was sent twice"),
        other => panic!("{mark}: {other:?}"),
    }
}

#[test]
fn a_connection_that_a_tool_closes_without_a_word_sends_nothing_twice() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let tool = RawTool::start(|connection| {
        connection.request();
        connection.say(ok("{}"));
        connection.close();
    });
    let sidecar = tool.sidecar(world);
    let mut went = 0;
    for number in 0..40 {
        let (read, write) = (format!("read-{number}-"), format!("write-{number}-"));
        let answer = sidecar.get(&format!("{PLAIN}?mark={read}"), &token).send();
        honest(&tool, &answer, &read);
        let answer = post(&sidecar, &token, &format!("?mark={write}")).send();
        honest(&tool, &answer, &write);
        went += u32::from(answer.status == 200);
    }
    assert!(went > 0, "not one write went");
}

#[test]
fn a_write_whose_connection_breaks_is_not_sent_again_and_may_have_happened() {
    let Some(world) = world() else { return };
    let tool = RawTool::start(|connection| {
        connection.request();
        connection.close();
    });
    let sidecar = tool.sidecar(world);
    let answer = post(&sidecar, &world.probe(), "?mark=once").send();
    answer.refused(502, "tool_unreachable");
    assert_eq!((&answer.json()["sent"], &answer.json()["retry"]), (&json!(true), &json!("after_change")));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(tool.requests().len(), 1);
    // A read may be repeated by whoever asked for it.
    let answer = sidecar.get(PLAIN, &world.probe()).send();
    assert_eq!((&answer.json()["sent"], &answer.json()["retry"]), (&json!(true), &json!("after")));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(tool.requests().len(), 2);
}

#[test]
fn a_read_that_the_tool_hung_up_on_without_a_word_is_sent_once_more_and_a_write_is_not() {
    let Some(world) = world() else { return };
    let token = world.probe();
    let tool = RawTool::start(|connection| {
        connection.request();
        connection.say(ok("fine"));
        connection.request();
        connection.close();
    });
    let sidecar = tool.sidecar(world);
    fine(&sidecar, &token, "nothing");
    let answer = sidecar.get(&format!("{PLAIN}?again"), &token).send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    let of_it: Vec<usize> =
        tool.heads().iter().filter(|(_, head)| head.contains("?again")).map(|(number, _)| *number).collect();
    assert_eq!(of_it, [0, 1], "on the kept connection, and then on another");
    assert_eq!(sidecar.settled(&answer.decision_id())["outcome"], "completed");
    // The connection of the second try was kept too.
    let answer = post(&sidecar, &token, "?once").send();
    answer.refused(502, "tool_unreachable");
    assert_eq!(answer.json()["sent"], true);
    assert_eq!(tool.requests().iter().filter(|line| line.contains("?once")).count(), 1, "a write was sent twice");
}

#[test]
fn a_read_that_the_tool_never_answers_is_sent_twice_at_most_and_begun_answers_are_not_asked_for_again() {
    let Some(world) = world() else { return };
    let token = world.probe();
    for (said, times) in [("", 2), ("HTTP/1.1 200 OK\r\nx-half: ", 1)] {
        let tool = RawTool::start(move |connection| {
            while let Some(head) = connection.request() {
                if head.contains("?never") {
                    connection.say(said);
                    return connection.close();
                }
                connection.say(ok("fine"));
            }
        });
        let sidecar = tool.sidecar(world);
        fine(&sidecar, &token, "nothing");
        let answer = sidecar.get(&format!("{PLAIN}?never"), &token).send();
        answer.refused(502, "tool_unreachable");
        assert_eq!((&answer.json()["sent"], &answer.json()["retry"]), (&json!(true), &json!("after")));
        assert_eq!(tool.requests().iter().filter(|line| line.contains("?never")).count(), times);
        let settled = sidecar.settled(&answer.decision_id());
        assert_eq!((&settled["outcome"], &settled["sent"]), (&json!("tool_unreachable"), &json!(true)), "{settled}");
    }
}
