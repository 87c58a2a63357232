//! What was decided is what was sent (P10), or the call was refused: a corpus of smuggling, path, header, query and JSON
//! tricks, said by a raw socket, with a tool behind the sidecar that logs the bytes it receives. A record and a request
//! are compared by readers of this module alone, none of the product's.

mod case;
mod compare;
mod json;
mod tool;
mod wire;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::Shutdown,
};

use serde_json::{Value, json};

use self::{
    case::{Case, Expected, Filled},
    compare::{ACTIONS, Decided},
    tool::RawTool,
    wire::Received,
};
use crate::support::{
    Answer, Sidecar, World,
    http::{connect, parse},
    openid::TOOL,
    sidecar::Setup,
    world,
};

/// Cases that run at the same time: some wait for a deadline of the sidecar.
const AT_ONCE: usize = 16;

#[test]
fn what_reaches_the_tool_is_what_was_decided_whatever_the_agent_says() {
    let Some(world) = world() else { return };
    let tool = RawTool::start();
    let mut sidecar = sidecar(world, &tool);
    let token = token(world);
    let host = format!("127.0.0.1:{}", sidecar.port());
    let cases = case::read(&crate::support::root().join("tests/corpora/http"));
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let answers = say_all(&cases, sidecar.port(), &Filled { host: &host, token: &token });
    // Once it has stopped nothing is on its way any more: the log and the ledger are complete.
    sidecar.stop();
    let received = tool.received();
    let decided = permitted(&sidecar);

    let mut wrong = Vec::new();
    for request in &received {
        let known = request.case().is_some_and(|case| cases.iter().any(|other| other.id == case));
        if !known {
            wrong.push(format!("nobody's request reached the tool: {}", request.shown()));
        }
    }
    for case in &cases {
        let requests: Vec<&Received> = received.iter().filter(|request| request.case() == Some(case.id)).collect();
        let decisions: Vec<&Decided> = decided.iter().filter(|decision| decision.case == Some(case.id)).collect();
        let problems = judge(case, answers.get(&case.id).map_or(&[][..], Vec::as_slice), &requests, &decisions);
        let context = || {
            let shown: Vec<_> = requests.iter().map(|request| request.shown()).collect();
            format!("{}: the tool received {shown:?}", case.name)
        };
        wrong.extend(problems.into_iter().map(|problem| format!("{}\n  {problem}", context())));
    }
    let secrets = [token.as_str(), token.rsplit('.').next().unwrap()];
    wrong.extend(tool.anywhere(&secrets).into_iter().map(|line| format!("the agent's token reached the tool: {line}")));
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(decided.iter().all(|decision| decision.case.is_some()), "a permitted call of no case");
}

/// What is wrong with one case: its own expectation, then every pair of a decision and the bytes that followed it.
fn judge(case: &Case, answer: &[u8], requests: &[&Received], decisions: &[&Decided]) -> Vec<String> {
    let mut wrong = Vec::new();
    let whole = requests.iter().filter(|request| request.is_whole()).count();
    let status = parse(answer).map(|answer: Answer| answer.status);
    let as_expected = match case.expected {
        Expected::Refused => {
            requests.is_empty() && decisions.is_empty() && status.is_none_or(|status| (400..500).contains(&status))
        }
        Expected::Sent(count) => whole == count && requests.len() == count && decisions.len() == count,
        Expected::Either => whole == requests.len() && decisions.len() == whole,
        // Whether the agent left before or after the decision is for the scheduler to say.
        Expected::Broken => whole == 0 && decisions.len() <= 1,
    };
    if !as_expected {
        wrong.push(format!(
            "expected {:?}, {} requests and {} permits, answered {}",
            case.expected,
            requests.len(),
            decisions.len(),
            String::from_utf8_lossy(answer).lines().next().unwrap_or("nothing")
        ));
    }
    for (decision, request) in decisions.iter().zip(requests) {
        wrong.extend(compare::difference(decision, request));
    }
    wrong
}

/// A sidecar with the raw tool behind it, and actions that read parameters from everywhere.
fn sidecar(world: &World, tool: &RawTool) -> Sidecar {
    Setup::new(&world.openid, &world.tool)
        .with(|config| {
            let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
            let actions: BTreeMap<&str, Value> =
                ACTIONS.iter().map(|action| (action.name, action.configuration())).collect();
            config["tools"][TOOL] = json!({
                "at": "/orders",
                "upstream": tool.url(),
                "credential": {"bearer": {"file": "tool-credential"}},
                "actions": actions,
            });
            config["issuers"][0]["entitlements"]["map"] = json!({"support": names});
            for agent in config["agents"].as_array_mut().unwrap() {
                agent["actions"] = json!(names);
            }
            config["listen"]["agent"]["body_timeout"] = json!("1s");
            config["listen"]["agent"]["input_headers"] = json!(["x-case"]);
        })
        .start()
}

/// A token of alice's agent for all of them.
fn token(world: &World) -> String {
    let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
    let claims = json!({
        "scope": names.join(" "),
        "authorization_details": [{"type": "urn:countersign:action", "actions": names, "locations": [TOOL]}],
    });
    world.openid.sign(&json!({"like": world.openid.delegated("alice"), "claims": claims}))
}

fn say_all(cases: &[Case], port: u16, filled: &Filled<'_>) -> BTreeMap<usize, Vec<u8>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|worker| {
                let share = cases.iter().skip(worker).step_by(AT_ONCE);
                scope.spawn(move || share.map(|case| (case.id, say(case, port, filled))).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// Says one case on a connection of its own, and hears the answer to its end.
fn say(case: &Case, port: u16, filled: &Filled<'_>) -> Vec<u8> {
    let mut stream = connect(port);
    // The sidecar may refuse, and close, before it has read everything.
    stream.write_all(&case.bytes(filled)).ok();
    if case.leaves {
        stream.shutdown(Shutdown::Write).ok();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

/// The permitted calls of the ledger, in its order, each with what its end says of a body that streamed.
fn permitted(sidecar: &Sidecar) -> Vec<Decided> {
    let records = sidecar.query(&[]);
    let settled: BTreeMap<&str, &Value> = records
        .iter()
        .filter(|record| record["kind"] == "call.settled")
        .map(|record| (record["decision_id"].as_str().unwrap(), record))
        .collect();
    let permits = records.iter().filter(|record| record["kind"] == "call.decided" && record["decision"] == "permit");
    permits.map(|record| Decided::new(record, settled.get(record["decision_id"].as_str().unwrap()).copied())).collect()
}

#[test]
fn the_readers_that_judge_take_nothing_on_trust() {
    let faulty = [
        "GET /a HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\n\r\n\r\n",
        "GET /a HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
        "GET  /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET http://a/a HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "POST /a HTTP/1.1\r\ncontent-length: +1\r\n\r\na",
        "POST /a HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: a\r\n\r\n",
    ];
    for bytes in faulty {
        assert!(wire::request(bytes.as_bytes()).is_err(), "{bytes}");
    }
    let good = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET";
    let (request, length) = wire::request(good).unwrap().unwrap();
    assert_eq!((request.body.as_slice(), length), (b"ab".as_slice(), good.len() - 3));
    for text in
        ["{\"a\":1,\"a\":2}", "{\"a\":1,}", "01", "+1", "1.", "\"\\ud800\"", "\"\n\"", "{} {}", "NaN", "\u{feff}{}"]
    {
        json::Json::read(text.as_bytes()).expect_err(text);
    }
    let read = json::Json::read(b" {\"a\": [1.50e1, \"\\ud83d\\ude00\", null, {}]} ").unwrap();
    let json::Json::List(items) = read.at(&["a"]).unwrap() else { panic!("{read:?}") };
    assert_eq!(items[..2], [json::Json::Number("1.50e1".to_owned()), json::Json::Text("\u{1f600}".to_owned())]);
}
