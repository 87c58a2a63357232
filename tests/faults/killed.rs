//! Killed at random moments under load, again and again (`COUNTERSIGN_KILL_ROUNDS`, 10 by default).

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::bench::{Bench, closed, of_kind};
use crate::support::{World, eventually, mark, tool::values, world};

/// Agents that call as fast as they are answered.
const AGENTS: usize = 8;

#[test]
fn killed_at_any_moment_it_leaves_a_whole_ledger_and_closes_every_open_call() {
    let Some(world) = world() else { return };
    let bench = Bench::start(world, |setup| {
        // Small segments, so that it is also killed while it seals one and begins the next.
        setup.config["ledger"]["segment_max_bytes"] = json!(48 << 10);
    });
    let Some(mut bench) = bench else { return };
    let rounds: usize = std::env::var("COUNTERSIGN_KILL_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    let mut random = Random::seeded();
    println!("{rounds} rounds with seed {}", random.0);
    let mut seen = Seen::default();
    for round in 0..rounds {
        let hanging = kill_under_load(world, &mut bench, &mut random);
        if round % 3 == 2 {
            // And once more, while it mends what it finds.
            bench.sidecar.restart_unready();
            std::thread::sleep(Duration::from_millis(random.below(300)));
            bench.sidecar.daemon.kill();
        }
        bench.sidecar.restart();
        bench.verify();
        seen.look(&bench, &hanging);
    }
    println!("{} calls reached the tool, {} were closed as unknown", seen.requests, seen.unknown);
    assert!(seen.unknown >= rounds);
    let records = bench.end();
    assert!(of_kind(&records, "sidecar.started").count() > rounds);
}

/// Kills it with calls in every stage of their way. One of them waits for the tool; its mark is returned.
fn kill_under_load(world: &World, bench: &mut Bench, random: &mut Random) -> String {
    let port = bench.sidecar.port();
    let (alice, probe) = (world.openid.delegated("alice"), world.probe());
    let hanging = mark();
    let before = bench.tool.requests().len();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| call(port, "/orders/v1/hang", &probe, &hanging));
        for _ in 0..AGENTS {
            scope.spawn(|| {
                let mut answered = true;
                while answered && !stopped.load(Ordering::Relaxed) {
                    answered = call(port, "/orders/v1/orders/17", &alice, &mark());
                }
            });
        }
        eventually("a call that waits", || (!bench.tool.marked(&hanging).is_empty()).then_some(()));
        eventually("the load to be on", || (bench.tool.requests().len() > before + AGENTS).then_some(()));
        std::thread::sleep(Duration::from_millis(random.below(400)));
        bench.sidecar.daemon.kill();
        stopped.store(true, Ordering::Relaxed);
    });
    hanging
}

/// Whether anybody was there to be asked. Killed, it answers nothing any more; that is what the test is about.
fn call(port: u16, path: &str, token: &str, mark: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n");
    stream.write_all(format!("{head}x-mark: {mark}\r\nconnection: close\r\n\r\n").as_bytes()).ok();
    stream.read_to_end(&mut Vec::new()).ok();
    true
}

/// What was looked at in earlier rounds.
#[derive(Default)]
struct Seen {
    requests: usize,
    unknown: usize,
    last: Option<(u64, String)>,
}

impl Seen {
    /// Whether what happened since is on record, and closed.
    fn look(&mut self, bench: &Bench, hanging: &str) {
        let since = self.last.as_ref().map(|(_, time)| time.as_str());
        let mut records = bench.sidecar.query(&since.map_or(vec![], |time| vec!["--since", time]));
        let after = self.last.as_ref().map(|(seq, _)| *seq);
        records.retain(|record| record["seq"].as_u64() > after);
        let last = records.last().expect("it started again");
        let last = (last["seq"].as_u64().unwrap(), last["time"].as_str().unwrap().to_owned());

        let marks: BTreeSet<&str> =
            of_kind(&records, "call.decided").filter_map(|record| record["headers"]["x-mark"].as_str()).collect();
        let requests = bench.tool.requests();
        for request in &requests[self.requests..] {
            let mark = values(request, "x-mark").remove(0);
            assert!(marks.contains(mark.as_str()), "{mark} reached the tool unrecorded");
        }
        closed(&records);
        let waiting = of_kind(&records, "call.decided").find(|record| record["headers"]["x-mark"] == hanging).unwrap();
        let unknown: Vec<&Value> =
            of_kind(&records, "call.settled").filter(|record| record["outcome"] == "unknown").collect();
        let closed = unknown.iter().any(|record| record["decision_id"] == waiting["decision_id"]);
        assert!(closed, "the call that waited was closed otherwise than as unknown");
        self.requests = requests.len();
        self.unknown += unknown.len();
        self.last = Some(last);
    }
}

/// Good enough to choose moments (xorshift), and repeatable from its seed.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap() | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
