//! Cumulative limits, counted at the tool: whatever runs at once, is killed, retried, unreachable or hostile, no more is
//! spent within a window than a grant allows.

mod once;

use std::{fs, io::Write, path::Path, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    support::{
        Answer, Sidecar, World,
        authority::{self, Authority, Client},
        eventually, free_port,
        front::Fleet,
        http,
        joining::JoiningKey,
        mark,
        openid::usual_details,
        postgres::Postgres,
        sidecar::Setup,
        tool::values,
        world,
    },
    withdrawal::planes::enrolled,
};

const AGENT: &str = "support-v9";

/// 200 USD a day, in refunds.
fn daily(max: &str) -> Value {
    json!({"daily": {"sum": "amount", "max": max, "currency": "USD", "window": "P1D"}})
}

/// Puts `limits` into both elements of alice's grant: the first reads orders, the second refunds them.
fn limited(directory: &Path, [reads, refunds]: [&Value; 2]) {
    let path = directory.join("store.yaml");
    let mut store: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let details = &mut store["grants"][0]["authorization_details"];
    for (element, limits) in [reads, refunds].into_iter().enumerate() {
        for (name, limit) in limits.as_object().unwrap() {
            details[element]["limits"][name] = limit.clone();
        }
    }
    fs::write(&path, store.to_string()).unwrap();
}

fn authority_with(world: &World, agent: &Client, limits: [&Value; 2]) -> Authority {
    Authority::start_with(&world.openid, &[agent], |directory, _| limited(directory, limits))
}

/// Days end for everybody at once: what would run over midnight begins after it.
fn within_a_day() {
    let left = 86_400 - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() % 86_400;
    if left < 90 {
        thread::sleep(Duration::from_secs(left + 1));
    }
}

/// A sidecar that counts on `authority`, and goes on for a minute without hearing of it.
fn counting(world: &World, authority: &Authority, name: &str) -> Setup {
    within_a_day();
    enrolled(world, authority, name)
        .with(|config| config["authority"]["staleness"] = json!({"read": "60s", "write": "60s"}))
}

struct Refund<'a> {
    token: &'a str,
    mark: &'a str,
    amount: &'a str,
    key: Option<&'a str>,
}

impl Refund<'_> {
    fn at(&self, sidecar: &Sidecar) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers =
            vec![("authorization", bearer.as_str()), ("x-mark", self.mark), ("content-type", "application/json")];
        headers.extend(self.key.map(|key| ("idempotency-key", key)));
        let body = json!({"amount": self.amount, "currency": "USD"}).to_string();
        http::request(sidecar.port(), "POST", "/orders/v1/orders/17/refunds", &headers, body.as_bytes())
    }
}

fn refund<'a>(token: &'a str, mark: &'a str) -> Refund<'a> {
    Refund { token, mark, amount: "10.00", key: None }
}

fn read(sidecar: &Sidecar, token: &str, order: &str) -> Answer {
    sidecar.plain_get(&format!("/orders/v1/orders/{order}"), &[("authorization", &format!("Bearer {token}"))])
}

/// How many refunds the tool itself received.
fn received(world: &World, mark: &str) -> usize {
    world.tool.marked(mark).iter().filter(|request| !values(request, "x-mark").is_empty()).count()
}

/// Calls until there is no more to be had; how many went.
fn exhaust(sidecars: &[Sidecar], refund: &Refund<'_>) -> usize {
    let mut went = 0;
    eventually("nothing to be left", || {
        let answers: Vec<_> = sidecars.iter().map(|sidecar| refund.at(sidecar)).collect();
        went += answers.iter().filter(|answer| answer.status == 201).count();
        answers.iter().all(|answer| answer.status == 403 && answer.code() == "limit_exceeded").then_some(())
    });
    went
}

#[test]
fn the_last_10_usd_of_a_day_are_spent_once_whoever_races_for_them_at_whichever_replica() {
    let Some(world) = world() else { return };
    let Some(postgres) = Postgres::start() else { return };
    let agent = Client::new(AGENT);
    let limits = |directory: &Path, _: &mut Value| limited(directory, [&json!({}), &daily("200.00")]);
    let Some(fleet) = Fleet::start(world, &postgres, &agent, limits) else { return };
    let quick = |setup: Setup| setup.with(|config| config["authority"]["limits"] = json!({"lease": "1s"}));
    let sidecars = ["one", "two"].map(|name| quick(counting(world, &fleet.replicas[0], name)).start());
    let token = authority::token(&fleet.exchange(world, &agent));
    let mark = mark();
    let refund = refund(&token, &mark);
    for _ in 0..19 {
        refund.at(&sidecars[0]).went(201);
    }
    let race = || {
        thread::scope(|scope| {
            let calls: Vec<_> = (0..64)
                .map(|number| {
                    let (sidecar, refund) = (&sidecars[number % 2], &refund);
                    scope.spawn(move || refund.at(sidecar).status)
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<u16>>()
        })
    };
    let statuses = race();
    assert!(statuses.iter().all(|status| [201, 403, 503].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 201).count() <= 1);
    // What one of them held is given back, and there is no more than that.
    exhaust(&sidecars, &refund);
    assert_eq!(received(world, &mark), 20);
    race();
    assert_eq!(received(world, &mark), 20);
    let refused = refund.at(&sidecars[1]);
    refused.refused(403, "limit_exceeded");
    let body = refused.json();
    let left = &body["allowed"]["daily"];
    assert_eq!(
        (&left["max"], &left["remaining"], &left["currency"]),
        (&json!("200.00"), &json!("0.00"), &json!("USD"))
    );
    assert_eq!((&body["retry"], &body["sent"]), (&json!("after"), &json!(false)));
    assert!(body["limiting_hop"].as_str().unwrap().contains("alice"), "{body}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "until midnight: {wait}");
}

#[test]
fn what_a_killed_sidecar_held_is_spent() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("150.00")]);
    let mut sidecar = counting(world, &authority, "one")
        .with(|config| config["authority"]["limits"] = json!({"lease": "2s"}))
        .start();
    let token = authority.first(&agent, &world.openid);
    let mark = mark();
    for round in 0..2 {
        let before = received(world, &mark);
        thread::scope(|scope| {
            let (refund, port) = (refund(&token, &mark), sidecar.port());
            let calls: Vec<_> = (0..4)
                .map(|_| {
                    let refund = Refund { ..refund };
                    scope.spawn(move || {
                        for _ in 0..3 {
                            // Broken off where it is killed.
                            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| refund.sent(port))));
                        }
                    })
                })
                .collect();
            eventually("some to be sent", || (received(world, &mark) > before).then_some(()));
            sidecar.daemon.kill();
            sidecar.daemon.wait();
            calls.into_iter().for_each(|call| call.join().unwrap());
        });
        assert!(received(world, &mark) <= 15, "round {round}");
        sidecar.restart();
    }
    let sidecars = [sidecar];
    exhaust(&sidecars, &refund(&token, &mark));
    let received = received(world, &mark);
    assert!((2..=15).contains(&received), "{received}");
    // What was under way counts, whatever became of it.
    let decided = sidecars[0].query(&["--kind", "call.decided", "--decision", "permit"]);
    let charged = decided.iter().filter(|record| record["charge"]["limits"][0]["amount"]["text"] == "10.00").count();
    assert!(charged >= received && charged <= 15, "{charged} charged, {received} received");
}

impl Refund<'_> {
    /// Sends it and waits for whatever comes.
    fn sent(&self, port: u16) {
        let body = json!({"amount": self.amount, "currency": "USD"}).to_string();
        let request = format!(
            "POST /orders/v1/orders/17/refunds HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\nX-Mark: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            self.mark,
            body.len()
        );
        http::raw(port, request.as_bytes());
    }
}

#[test]
fn without_the_authority_a_slice_is_spent_and_then_nobody_knows() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let mut authority = authority_with(world, &agent, [&json!({}), &daily("200.00")]);
    let sidecar = counting(world, &authority, "one")
        .with(|config| config["authority"]["limits"] = json!({"slice": 20, "lease": "2m", "timeout": "500ms"}))
        .start();
    let token = authority.first(&agent, &world.openid);
    let mark = mark();
    let refund = refund(&token, &mark);
    refund.at(&sidecar).went(201);
    authority.daemon.kill();
    authority.daemon.wait();
    // A fifth of the limit was leased beside what that call needed.
    for _ in 0..4 {
        refund.at(&sidecar).went(201);
    }
    let refused = refund.at(&sidecar);
    refused.refused(503, "limit_unavailable");
    assert!(refused.header("retry-after").is_some());
    assert!(refused.json()["limiting_hop"].as_str().unwrap().contains("alice"));
    let metrics = sidecar.metrics();
    let failures = metrics.lines().find_map(|line| line.strip_prefix("countersign_limit_lease_failures_total "));
    assert!(failures.unwrap().parse::<f64>().unwrap() >= 1.0, "{metrics}");
    // Calls that are not charged do not wait for it.
    read(&sidecar, &token, "17").went(200);
    authority.restart();
    eventually("it to count again", || (refund.at(&sidecar).status == 201).then_some(()));
    assert_eq!(received(world, &mark), 6);
}

#[test]
fn a_call_that_is_sent_again_under_its_idempotency_key_is_charged_once() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("30.00")]);
    let sidecar = counting(world, &authority, "one").start();
    let token = authority.first(&agent, &world.openid);
    let mark = mark();
    let keyed = Refund { key: Some("refund-1"), ..refund(&token, &mark) };
    let first = keyed.at(&sidecar);
    first.went(201);
    for _ in 0..5 {
        keyed.at(&sidecar).went(201);
    }
    let again = keyed.at(&sidecar);
    again.went(201);
    let (charged, repeated) = (sidecar.decided(&first), sidecar.decided(&again));
    let limit = &charged["charge"]["limits"][0];
    assert_eq!(
        (&limit["name"], &limit["hop"], &limit["amount"]),
        (&json!("daily"), &json!(0), &json!({"text": "10.00", "currency": "USD"}))
    );
    assert_eq!(repeated["charge"], json!({"repeats": first.decision_id()}));
    assert_eq!(sidecar.settled(&first.decision_id())["charge"], "confirmed");
    // Another call under the same key is another call.
    let other = Refund { amount: "5.00", ..Refund { key: Some("refund-1"), ..refund(&token, &mark) } };
    other.at(&sidecar).went(201);
    let known = sidecar.decided(&refund(&token, &mark).at(&sidecar));
    assert_eq!(known["limits"][0]["used"], json!({"text": "15.00", "currency": "USD"}), "{known}");
    refund(&token, &mark).at(&sidecar).refused(403, "limit_exceeded");
    Refund { amount: "5.00", ..refund(&token, &mark) }.at(&sidecar).went(201);
    Refund { amount: "0.01", ..refund(&token, &mark) }.at(&sidecar).refused(403, "limit_exceeded");
    keyed.at(&sidecar).went(201);
}

#[test]
fn what_was_not_sent_is_given_back_and_what_may_have_been_is_not() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let counted = json!({"calls": {"max": "3", "window": "P1D"}});
    let authority = authority_with(world, &agent, [&counted, &json!({})]);
    let port = free_port();
    let mut unreachable = counting(world, &authority, "one")
        .with(|config| config["tools"]["orders"]["upstream"] = json!(format!("http://127.0.0.1:{port}")))
        .start();
    let token = authority.first(&agent, &world.openid);
    for _ in 0..5 {
        let answer = read(&unreachable, &token, "17");
        answer.refused(502, "tool_unreachable");
        assert_eq!(answer.json()["sent"], false);
        assert_eq!(unreachable.settled(&answer.decision_id())["charge"], "released");
    }
    unreachable.stop();
    let sidecar =
        counting(world, &authority, "two").with(|config| config["tools"]["orders"]["timeout"] = json!("1s")).start();
    for _ in 0..2 {
        let answer = read(&sidecar, &token, "slow");
        answer.refused(504, "tool_timeout");
        assert_eq!(sidecar.settled(&answer.decision_id())["charge"], "kept");
    }
    // The agent goes away while the tool is at it.
    let mark = mark();
    let mut agent = http::connect(sidecar.port());
    let request = format!(
        "GET /orders/v1/orders/slow HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nX-Mark: {mark}\r\n\r\n"
    );
    agent.write_all(request.as_bytes()).unwrap();
    eventually("it to reach the tool", || (received(world, &mark) == 1).then_some(()));
    drop(agent);
    let settled = eventually("three calls to be settled", || {
        let settled = sidecar.query(&["--kind", "call.settled"]);
        (settled.len() == 3).then_some(settled)
    });
    assert!(settled.iter().all(|settled| settled["charge"] == "kept"), "{settled:?}");
    let refused = read(&sidecar, &token, "17");
    refused.refused(429, "velocity");
    assert_eq!(refused.json()["allowed"]["calls"]["remaining"], "0");
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn the_next_window_is_a_new_one() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let counted = json!({"calls": {"max": "2", "window": "PT3S"}});
    let authority = authority_with(world, &agent, [&counted, &json!({})]);
    let sidecar = counting(world, &authority, "one").start();
    let token = authority.first(&agent, &world.openid);
    let mut refused = 0;
    eventually("three windows", || {
        let answer = read(&sidecar, &token, "17");
        if answer.status != 200 {
            answer.refused(429, "velocity");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!(wait <= 3, "{wait}");
            refused += 1;
            thread::sleep(Duration::from_millis(100));
        }
        let decided = sidecar.query(&["--kind", "call.decided", "--decision", "permit"]);
        let mut windows = std::collections::BTreeMap::new();
        for record in decided {
            *windows.entry(record["charge"]["limits"][0]["starts"].to_string()).or_insert(0) += 1;
        }
        assert!(windows.values().all(|calls| *calls <= 2), "{windows:?}");
        (windows.len() >= 3).then_some(())
    });
    assert!(refused > 0);
}

#[test]
fn a_limit_that_is_lowered_holds_at_once_and_a_sidecar_that_stops_keeps_nothing() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("200.00")]);
    let mut sidecar = counting(world, &authority, "one").start();
    let mark = mark();
    let token = authority.first(&agent, &world.openid);
    for _ in 0..3 {
        refund(&token, &mark).at(&sidecar).went(201);
    }
    // Some of the slice is left; alice allows less.
    let mut details = usual_details();
    details[0]["actions"] = json!(["orders.read", "orders.list"]);
    details[1]["limits"]["daily"] = daily("40.00")["daily"].clone();
    let narrower = json!({"authorization_details": details, "reason": "less is enough"});
    authority.manage(&world.openid, &["support", "refunds"], "/v1/grants/grant-alice/change", &narrower).went(200);
    eventually("the old token to be taken back", || (refund(&token, &mark).at(&sidecar).status == 401).then_some(()));
    let before = received(world, &mark);
    assert!(before >= 3);
    let token = authority.first(&agent, &world.openid);
    if before < 4 {
        refund(&token, &mark).at(&sidecar).went(201);
    }
    refund(&token, &mark).at(&sidecar).refused(403, "limit_exceeded");
    // Raised again; and a sidecar that stops in order leaves everything to others.
    details[1]["limits"]["daily"] = daily("100.00")["daily"].clone();
    let wider = json!({"authorization_details": details, "reason": "it is not"});
    authority.manage(&world.openid, &["support", "refunds"], "/v1/grants/grant-alice/change", &wider).went(200);
    let token = authority.first(&agent, &world.openid);
    eventually("a call to go again", || (refund(&token, &mark).at(&sidecar).status == 201).then_some(()));
    let before = received(world, &mark);
    sidecar.stop();
    let other = counting(world, &authority, "two").start();
    for _ in before..10 {
        refund(&token, &mark).at(&other).went(201);
    }
    refund(&token, &mark).at(&other).refused(403, "limit_exceeded");
    assert_eq!(received(world, &mark), 10);
}

#[test]
fn nobody_counts_for_a_sidecar_that_follows_no_authority() {
    let Some(world) = world() else { return };
    let mut details = usual_details();
    details[1]["limits"]["daily"] = daily("200.00")["daily"].clone();
    let details = details.to_string();
    let token = world.openid.delegated_with("alice", &[("authorization_details", &details)]);
    let mark = mark();
    refund(&token, &mark).at(&world.sidecar).refused(503, "limit_unavailable");
    assert_eq!(received(world, &mark), 0);
}

#[test]
fn only_an_enrolled_sidecar_leases_and_only_what_it_serves_and_can_hold() {
    let Some(world) = world() else { return };
    let agent = Client::new(AGENT);
    let authority = authority_with(world, &agent, [&json!({}), &daily("200.00")]);
    let [one, two] = ["one", "two"].map(|name| Key::joined(world, &authority, name));
    let ask = |key: &Key, change: &Value| key.ask(&authority, change);
    let leased = ask(&one, &json!({}));
    leased.went(200);
    let leased = leased.json();
    assert_eq!((&leased["amount"], &leased["max"], &leased["taken"]), (&json!(1000), &json!(20_000), &json!(1000)));
    // It comes again, and too late.
    assert_eq!(ask(&one, &json!({})).json()["amount"], 1000);
    ask(&one, &json!({"step": 3, "hold": 400, "spent": 400, "need": 0, "want": 0})).went(200);
    assert_eq!(ask(&one, &json!({"step": 2, "hold": 0, "need": 0, "want": 0})).status, 409);
    assert_eq!(ask(&one, &json!({"step": 4, "hold": 1000, "spent": 400})).status, 409, "what was given back is gone");
    // Another's lease is another's.
    assert_eq!(ask(&two, &json!({"step": 9, "hold": 400, "spent": 0, "need": 0, "want": 0})).status, 409);
    assert_eq!(ask(&two, &json!({})).json()["taken"], 1400);
    for (change, status) in [
        (json!({"tenant": "globex"}), 404),
        (json!({"limit": {"holder": {"kind": "grant", "grant": "grant-of-nobody"}}}), 404),
        (json!({"limit": {"name": "weekly"}}), 409),
        (json!({"need": -5}), 400),
        (json!({"hold": -1}), 400),
        (json!({"want": u64::MAX}), 400),
        (json!({"hold": u64::MAX, "spent": u64::MAX}), 400),
        (json!({"spent": 5}), 400),
        (json!({"need": 1.5}), 400),
        (json!({"step": 0}), 400),
        (json!({"starts": "2020-01-01T00:00:00Z"}), 409),
        (json!({"starts": "yesterday"}), 400),
        (json!({"more": true}), 400),
        (json!({"limit": {"window": "P1M"}}), 400),
        (json!({"limit": {"window": "-P1D"}}), 400),
    ] {
        let lease = json!({"lease": mark()});
        let answer = ask(&one, &merged(&lease, &change));
        assert_eq!(answer.status, status, "{change}: {}", answer.text());
    }
    // Whoever is no sidecar.
    let body = question(&json!({}));
    let alice = world.openid.user("alice");
    let first = authority.first(&agent, &world.openid);
    for token in [&alice, &first, &world.openid.manager("alice")] {
        let bearer = format!("Bearer {token}");
        assert_eq!(authority.post("/v1/limits", &[("authorization", &bearer)], &body).status, 401);
    }
    assert_eq!(authority.post("/v1/limits", &[], &body).status, 401);
    assert_eq!(authority.get("/v1/limits").status, 405);
    assert_eq!(ask(&one, &json!({"step": 10, "hold": 400, "spent": 400, "need": 0, "want": 0})).json()["taken"], 1400);
}

/// A sidecar's own key.
struct Key {
    key: JoiningKey,
    id: String,
}

impl Key {
    fn joined(world: &World, authority: &Authority, name: &str) -> Self {
        within_a_day();
        let asked = json!({"name": name, "tenants": ["acme"]});
        let invited = authority.manage(&world.openid, &["platform"], "/v1/sidecars", &asked);
        invited.went(201);
        let key = JoiningKey::new();
        let joining = key.joining(&authority.issuer(), invited.json()["token"].as_str().unwrap(), name);
        let joined = authority.post("/v1/sidecars/enrol", &[], &joining);
        joined.went(201);
        Self { key, id: joined.json()["id"].as_str().unwrap().to_owned() }
    }

    fn ask(&self, authority: &Authority, change: &Value) -> Answer {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let name = format!("{}/sidecars/{}", authority.issuer(), self.id);
        let claims = json!({"iss": name, "sub": name, "aud": authority.issuer(), "iat": now, "exp": now + 30});
        let token = self.key.sign(&self.key.kid, "countersign-sidecar+jwt", &claims);
        authority.post("/v1/limits", &[("authorization", &format!("Bearer {token}"))], &question(change))
    }
}

/// A question for 10 USD of today, with `change`.
fn question(change: &Value) -> Value {
    let seconds = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let starts = jiff::Timestamp::from_second(i64::try_from(seconds - seconds % 86_400).unwrap()).unwrap();
    let usual = json!({
        "tenant": "acme",
        "limit": {
            "holder": {"kind": "grant", "grant": "grant-alice"},
            "name": "daily", "sum": "amount", "currency": "USD", "window": "P1D",
        },
        "max": 9_999_999, "starts": starts.to_string(), "lease": "lease-1", "step": 1,
        "spent": 0, "hold": 0, "need": 1000, "want": 1000, "seconds": 30,
    });
    merged(&usual, change)
}

fn merged(one: &Value, other: &Value) -> Value {
    let mut both = one.clone();
    for (name, value) in other.as_object().unwrap() {
        let nested = name == "limit" && both[name].is_object();
        both[name] = if nested { merged(&both[name], value) } else { value.clone() };
    }
    both
}
