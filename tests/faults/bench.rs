//! A sidecar, its tool, and the question that every fault is asked with.

use std::{cell::Cell, collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World, eventually, http, mark,
    sidecar::{Setup, audit},
    tool::{Tool, values},
};

/// A sidecar with a tool of its own.
pub(super) struct Bench {
    world: &'static World,
    /// What reached the tool is in its log.
    pub(super) tool: Tool,
    /// The sidecar.
    pub(super) sidecar: Sidecar,
    /// How many calls were let through.
    permitted: Cell<usize>,
}

impl Bench {
    /// After `change` of the usual set-up; `None` (said aloud) where a part is missing.
    pub(super) fn start(world: &'static World, change: impl FnOnce(&mut Setup)) -> Option<Self> {
        let tool = Tool::plain()?;
        let mut setup = Setup::new(&world.openid, &tool);
        setup.config["listen"]["agent"]["input_headers"] = json!(["x-mark"]);
        change(&mut setup);
        Some(Self { world, tool, sidecar: setup.start(), permitted: Cell::new(0) })
    }

    /// One call, with a token of this moment.
    #[track_caller]
    pub(super) fn call(&self) -> Answer {
        let authorization = format!("Bearer {}", self.world.openid.delegated("alice"));
        let headers = [("authorization", authorization.as_str()), ("x-mark", &mark())];
        let answer = self.sidecar.plain_get("/orders/v1/orders/17", &headers);
        if answer.status == 200 {
            self.permitted.set(self.permitted.get() + 1);
        }
        answer
    }

    /// Under `fault` calls are refused, `/readyz` says so and `/livez` does not; after `heal` all goes on.
    #[track_caller]
    pub(super) fn withstands(&self, fault: impl FnOnce(&Sidecar), heal: impl FnOnce(&Sidecar)) {
        self.call().went(200);
        fault(&self.sidecar);
        self.refuses();
        heal(&self.sidecar);
        self.recovers();
    }

    /// Calls are refused because of the ledger, and the health listener says what is true.
    #[track_caller]
    pub(super) fn refuses(&self) {
        let refused = eventually("a call to be refused", || Some(self.call()).filter(|answer| answer.status != 200));
        refused.refused(503, "ledger_unavailable");
        eventually("readiness to drop", || (!self.sidecar.is_ready()).then_some(()));
        self.call().refused(503, "ledger_unavailable");
        http::get(self.sidecar.health_port(), "/livez").went(200);
        assert_eq!(self.tool.requests().len(), self.permitted.get(), "what was refused did not reach the tool");
    }

    /// It becomes ready again without anybody's help, and calls go.
    #[track_caller]
    pub(super) fn recovers(&self) {
        eventually("readiness to come back", || self.sidecar.is_ready().then_some(()));
        for _ in 0..3 {
            self.call().went(200);
        }
    }

    /// Stops it. What it leaves is whole: every call at the tool was decided before, and every call is closed.
    #[track_caller]
    pub(super) fn end(mut self) -> Vec<Value> {
        self.sidecar.stop();
        self.verify();
        let records = self.sidecar.query(&[]);
        self.on_record(&records);
        records
    }

    #[track_caller]
    pub(super) fn verify(&self) {
        let ledger = self.sidecar.ledger();
        let ran = audit(&ledger, "verify", &[]);
        assert_eq!(ran.code, Some(0), "{}{}\n{}", ran.stdout, ran.stderr, self.sidecar.daemon.output());
        for entry in fs::read_dir(&ledger).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "the last record of {} is torn", path.display());
            }
        }
    }

    /// Every request at the tool is in `records` as decided, and every permitted call is closed exactly once.
    #[track_caller]
    pub(super) fn on_record(&self, records: &[Value]) {
        let decided: BTreeSet<&str> =
            of_kind(records, "call.decided").filter_map(|record| record["headers"]["x-mark"].as_str()).collect();
        for request in self.tool.requests() {
            let mark = values(&request, "x-mark").remove(0);
            assert!(decided.contains(mark.as_str()), "{mark} reached the tool unrecorded");
        }
        closed(records);
    }
}

/// The records of one kind.
pub(super) fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == kind)
}

/// Every call that was permitted is closed once, and nothing else is.
#[track_caller]
pub(super) fn closed(records: &[Value]) {
    let ids = |kind: &'static str| {
        let of_kind = of_kind(records, kind).filter(|record| kind != "call.decided" || record["decision"] == "permit");
        let mut ids: Vec<&str> = of_kind.map(|record| record["decision_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids("call.decided"), ids("call.settled"), "every permitted call is closed, once");
}
