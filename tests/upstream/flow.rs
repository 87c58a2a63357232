//! Streams: they flow as they come, nobody's slowness fills the sidecar's memory, and who leaves ends them on both sides.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    agent::{Caller, agent},
    odd,
    raw::{RawTool, ok},
};
use crate::support::{Curl, Sidecar, World, eventually, http::connect, mark, sidecar::Setup, tool::Tool, world};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// The memory that a sidecar may take on top of what it had, while far more than that waits on either side of it.
const MEMORY: u64 = 24 << 20;

/// More than all buffers on the way can hold.
const ENDLESS: u64 = 1 << 32;

fn tools() -> Option<[Tool; 2]> {
    Some([Tool::plain()?, Tool::secured(&["--http", "2"])?])
}

fn before(world: &World, tool: &Tool) -> Sidecar {
    Setup::new(&world.openid, tool).with(odd).start()
}

fn running(call: &Curl) -> Child {
    call.command().arg("--include").arg("--no-buffer").stdin(Stdio::null()).spawn().unwrap()
}

/// What the tool's log says of how its answer to `url` ended.
fn ended(tool: &Tool, url: &str) -> Value {
    eventually("the tool's answer to end", || {
        tool.logged().into_iter().find(|line| line["url"] == url && line["poured"].is_u64())
    })
}

#[track_caller]
fn settled_as(sidecar: &Sidecar, id: &str, outcome: &str) -> Value {
    let settled = sidecar.settled(id);
    assert_eq!(settled["outcome"], outcome, "{settled}");
    settled
}

/// Reads a head of HTTP/1.1 or what `curl --include` makes of one of HTTP/2; the decision's id in it.
fn decision(reader: &mut impl BufRead) -> String {
    let mut found = None;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no whole head");
        match line.trim_end().split_once(": ") {
            Some((name, id)) if name.eq_ignore_ascii_case("countersign-decision-id") => found = Some(id.to_owned()),
            None if line.trim_end().is_empty() => return found.expect("a decision id"),
            _ => {}
        }
    }
}

#[test]
fn an_agent_that_reads_slowly_slows_the_tool_and_fills_nothing() {
    let Some(world) = world() else { return };
    let Some(tools) = tools() else { return };
    for tool in &tools {
        let sidecar = before(world, tool);
        let token = world.probe();
        for version in VERSIONS {
            sidecar.get("/orders/v1/odd/plain", &token).argument(version).send().went(200);
            let memory = sidecar.daemon.peak_memory();
            let mark = mark();
            let url = format!("/v1/odd/pour?bytes={ENDLESS}&mark={mark}");
            // curl takes as much as its pace allows; with HTTP/2 it does not open the window further.
            let call = sidecar.get(&format!("/orders{url}"), &token).argument(version).argument("--limit-rate");
            let mut slow = running(&call.argument("1k"));
            let mut output = BufReader::new(slow.stdout.take().unwrap());
            let id = decision(&mut output);

            // The tool comes to a halt, having given no more than buffers hold.
            let poured = || {
                let path = format!(
                    "/orders/v1/odd/poured?of={}",
                    url.replace('?', "%3F").replace('&', "%26").replace('=', "%3D")
                );
                sidecar.get(&path, &token).send().json()["poured"].as_u64().unwrap()
            };
            let mut last = 0;
            let held = eventually("the tool to be held up", || {
                std::thread::sleep(Duration::from_millis(400));
                let now = poured();
                let halted = now == last && now > 0;
                last = now;
                halted.then_some(now)
            });
            assert!(held < 64 << 20, "{version}: {} MiB went into buffers", held >> 20);
            let grown = sidecar.daemon.peak_memory() - memory;
            assert!(grown < MEMORY, "{version}: {} MiB more", grown >> 20);

            slow.kill().unwrap();
            slow.wait().unwrap();
            let end = ended(tool, &url);
            assert_eq!(end["finished"], false, "{end}");
            settled_as(&sidecar, &id, "client_gone");
        }
    }
}

#[test]
fn agents_that_read_slowly_do_not_hold_up_others_calls_of_the_same_tool() {
    let Some(world) = world() else { return };
    let Some([_, tool]) = tools() else { return };
    let sidecar = before(world, &tool);
    let token = world.probe();
    // They share one connection to the tool; together they could fill its window.
    let mut slow: Vec<Child> = (0..12)
        .map(|number| {
            let url = format!("/orders/v1/odd/pour?bytes={ENDLESS}&mark={number}-{}", mark());
            let mut child = running(&sidecar.get(&url, &token).argument("--limit-rate").argument("1k"));
            decision(&mut BufReader::new(child.stdout.as_mut().unwrap()));
            child
        })
        .collect();
    let poured = || {
        let logged = sidecar.get("/orders/v1/odd/poured", &token).argument("--max-time").argument("10").send().json();
        logged["all"].as_u64().unwrap()
    };
    let mut last = 0;
    eventually("all of them to be held up", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = poured();
        let halted = now == last;
        last = now;
        halted.then_some(())
    });
    for _ in 0..5 {
        let call = sidecar.get("/orders/v1/odd/plain?bytes=100000", &token).argument("--max-time").argument("10");
        assert_eq!(call.send().body.len(), 100_000);
    }
    for child in &mut slow {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn events_flow_one_by_one_and_the_stream_ends_when_the_agent_leaves() {
    let Some(world) = world() else { return };
    let Some(tools) = tools() else { return };
    for tool in &tools {
        let sidecar = Setup::new(&world.openid, tool).start();
        for version in VERSIONS {
            let url = format!("/v1/stream?count=1000&every=250&mark={}", mark());
            let mut reading = running(&sidecar.get(&format!("/orders{url}"), &world.probe()).argument(version));
            let mut output = BufReader::new(reading.stdout.take().unwrap());
            let id = decision(&mut output);
            let mut events = Vec::new();
            while events.len() < 3 {
                let mut line = String::new();
                assert!(output.read_line(&mut line).unwrap() > 0, "the stream ended");
                if let Some(data) = line.strip_prefix("data: ") {
                    events.push(serde_json::from_str::<Value>(data).unwrap()["n"].clone());
                }
            }
            assert_eq!(events, [1, 2, 3], "{version}");
            reading.kill().unwrap();
            reading.wait().unwrap();
            let end = ended(tool, &url);
            assert_eq!(end["finished"], false, "{end}");
            let settled = settled_as(&sidecar, &id, "client_gone");
            assert!(settled["response_bytes"].as_u64().unwrap() > 0, "{settled}");
        }
    }
}

#[test]
fn an_agent_that_leaves_in_the_middle_of_its_request_breaks_it_off_at_the_tool_too() {
    let Some(world) = world() else { return };
    let Some(tools) = tools() else { return };
    for tool in &tools {
        let sidecar = before(world, tool);
        let mark = mark();
        let token = world.probe();
        let head = format!(
            "POST /orders/v1/odd/echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nx-mark: {mark}\r\n\
             content-type: text/plain\r\ncontent-length: 1000000\r\n\r\n"
        );
        let mut stream = connect(sidecar.port());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b'a'; 100_000]).unwrap();
        // It is on its way once it is decided.
        let id = eventually("the call to be decided", || {
            let records = sidecar.query(&["--action", "probe.upload"]);
            let decided = records.into_iter().find(|record| record["kind"] == "call.decided")?;
            Some(decided["decision_id"].as_str().unwrap().to_owned())
        });
        drop(stream);
        settled_as(&sidecar, &id, "client_gone");
        let broken = eventually("the tool to miss the rest", || tool.marked(&mark).into_iter().next());
        assert_eq!(broken["complete"], false, "{broken}");
        assert!(broken["body_bytes"].as_u64().unwrap() <= 100_000, "{broken}");
    }
}

#[test]
fn a_tool_that_takes_nothing_of_a_large_request_is_given_up_and_fills_nothing() {
    let Some(world) = world() else { return };
    let tool = RawTool::start(|connection| {
        // The head, and not one byte of the body.
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && connection.stream.read(&mut byte).unwrap_or(0) > 0 {
            head.push(byte[0]);
        }
        std::thread::sleep(Duration::from_secs(20));
    });
    let sidecar = tool.sidecar(world);
    let memory = sidecar.daemon.peak_memory();
    let upload = Curl::post(sidecar.url("/orders/v1/odd/echo"), "application/octet-stream", vec![0; 64 << 20]);
    let answer = upload.bearer(&world.probe()).header("Expect", "").attempt();
    let grown = sidecar.daemon.peak_memory() - memory;
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    let settled = eventually("the call to be settled", || {
        sidecar.query(&[]).into_iter().find(|record| record["kind"] == "call.settled")
    });
    assert_eq!((&settled["outcome"], &settled["sent"]), (&json!("tool_timeout"), &json!(true)), "{settled}");
    // The agent may still be writing when it is answered and hung up on.
    if let Ok(answer) = answer {
        answer.refused(504, "tool_timeout");
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_reaches_the_agent() {
    let Some(world) = world() else { return };
    // As a server does that has read enough: it answers, stops writing, and takes what still comes.
    let tool = RawTool::start(|connection| {
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && connection.stream.read(&mut byte).unwrap_or(0) > 0 {
            head.push(byte[0]);
        }
        connection.say(
            ok("enough")
                .replace("200 OK", "413 Content Too Large")
                .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
        );
        connection.stream.shutdown(std::net::Shutdown::Write).ok();
        std::io::copy(&mut connection.stream, &mut std::io::sink()).ok();
    });
    let sidecar = tool.sidecar(world);
    let origin = format!("http://127.0.0.1:{}", sidecar.port());
    let token = world.probe();
    for http in ["1", "2"] {
        let caller = Caller { origin: &origin, http, authority: None, token: &token };
        let [answer] = &agent(&[caller.odd("POST", "echo", &json!({"body": {"bytes": 8 << 20, "pieces": 9}}))])[..]
        else {
            panic!("one answer")
        };
        assert_eq!((&answer["status"], &answer["text"]), (&json!(413), &json!("enough")), "{http}: {answer}");
        assert_eq!(answer["complete"], true, "{http}: {answer}");
        settled_as(&sidecar, answer["headers"]["countersign-decision-id"].as_str().unwrap(), "completed");
    }
}
