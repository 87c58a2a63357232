//! What of a sidecar's ledger is at its authority: the heads that are anchored there, which whoever has root where the
//! ledger lies cannot take back, and a copy of it, which outlives the machine.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    support::{
        Sidecar, World,
        authority::{Authority, Client},
        eventually, free_port, http,
        process::{self, Ran},
        sidecar::audit,
        world,
    },
    withdrawal::planes::{enrolled, read},
};

/// An authority with a page of metrics, a sidecar of it, and the token of a task.
struct Kept {
    authority: Authority,
    sidecar: Sidecar,
    token: String,
    health: u16,
}

fn kept(world: &World) -> Kept {
    kept_with(world, |_| ())
}

fn kept_with(world: &World, change: impl FnOnce(&mut Value)) -> Kept {
    let agent = Client::new("support-v9");
    let health = free_port();
    let authority = Authority::start_with(&world.openid, &[&agent], |_, config| {
        config["listen"]["health"] = json!({"tcp": format!("127.0.0.1:{health}")});
    });
    let sidecar = enrolled(world, &authority, "one").with(change).start();
    let token = authority.first(&agent, &world.openid);
    Kept { authority, sidecar, token, health }
}

impl Kept {
    fn calls(&self, count: usize) {
        for _ in 0..count {
            read(&self.sidecar, &self.token).went(200);
        }
    }

    /// Runs `countersign ARGUMENTS` as somebody who administers.
    fn run(&self, world: &World, arguments: &[&str]) -> Ran {
        self.authority.run(&world.openid.administrator(), arguments)
    }

    /// `audit verify` of the sidecar's ledger with the anchored heads.
    fn verify(&self, world: &World) -> (Option<i32>, Value) {
        self.verified(world).unwrap_or_else(|| panic!("the authority does not know the ledger"))
    }

    /// The same; `None` where the authority does not know the ledger.
    fn verified(&self, world: &World) -> Option<(Option<i32>, Value)> {
        let ledger = self.sidecar.ledger();
        let ledger = ledger.to_str().unwrap();
        let ran = self.run(world, &["audit", "verify", "--json", "--heads-from", "authority", "--from", ledger]);
        let said = ran.stdout.lines().next()?;
        Some((ran.code, serde_json::from_str(said).unwrap()))
    }

    /// Waits until everything that the sidecar has signed by now is anchored.
    fn anchored(&self, world: &World) {
        let newest = || fs::read_to_string(self.sidecar.ledger().join("head")).ok();
        let size = |note: &str| note.lines().nth(1).unwrap().parse::<u64>().unwrap();
        let wanted = eventually("a head", || newest().map(|note| size(&note)));
        eventually("the heads to be anchored", || {
            let (_, said) = self.verified(world)?;
            let after = said["report"]["lines_after_outside_head"].as_u64()?;
            let lines = said["report"]["records"].as_u64().unwrap();
            (lines - after >= wanted).then_some(())
        });
    }

    fn alerts(&self) -> Vec<Value> {
        let records = audit(&self.authority.directory().join("ledger"), "query", &["--json"]).lines();
        records.into_iter().filter(|record| record["kind"] == "alert.raised").collect()
    }
}

/// Begins a ledger anew under the name and with the key of the one that was there.
fn forge(ledger: &Path) {
    for entry in fs::read_dir(ledger).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "ledger.json" {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn who_has_root_and_the_ledgers_key_cannot_take_back_what_was_anchored() {
    let Some(world) = world() else { return };
    let mut kept = kept(world);
    kept.calls(5);
    kept.anchored(world);
    let (code, said) = kept.verify(world);
    assert_eq!(
        (code, &said["report"]["tail_checked"], &said["report"]["key_pinned"]),
        (Some(0), &json!(true), &json!(true))
    );
    assert!(kept.alerts().is_empty());

    kept.sidecar.stop();
    forge(&kept.sidecar.ledger());
    kept.sidecar.restart();
    kept.calls(30);
    kept.sidecar.stop();
    let alone = audit(&kept.sidecar.ledger(), "verify", &["--json"]).lines();
    assert_eq!(alone[0]["ok"], true, "by itself it looks like any other");
    let (code, said) = kept.verify(world);
    assert_eq!((code, &said["ok"]), (Some(1), &json!(false)));
    let (why, seq) = (said["broken"]["why"].as_str().unwrap(), &said["broken"]["seq"]);
    assert!(why.contains("a head from outside") && seq.is_u64(), "{said}");
    let alerts = eventually("an alert", || Some(kept.alerts()).filter(|alerts| !alerts.is_empty()));
    assert_eq!(alerts.len(), 1, "once, however often it is tried: {alerts:?}");
    let id = serde_json::from_slice::<Value>(&fs::read(kept.sidecar.ledger().join("ledger.json")).unwrap()).unwrap();
    assert_eq!(alerts[0]["ledger"], id["id"]);
    assert!(alerts[0]["alert"] == "ledger_cut" || alerts[0]["alert"] == "ledger_rewritten", "{alerts:?}");
    assert_ne!(alerts[0]["anchored"], alerts[0]["found"], "both heads are kept, as they were signed");
    let metrics = http::get(kept.health, "/metrics").text();
    let forks = metrics.lines().find_map(|line| line.strip_prefix("countersign_ledger_forks_total "));
    assert!(forks.is_some_and(|forks| forks.parse::<u64>().unwrap() > 0), "{metrics}");
}

#[test]
fn heads_are_anchored_again_once_the_authority_is_back_and_the_last_one_when_the_sidecar_ends() {
    let Some(world) = world() else { return };
    // Calls go on for as long as reads may.
    let mut kept = kept(world);
    kept.anchored(world);
    kept.authority.daemon.kill();
    kept.authority.daemon.wait();
    kept.calls(5);
    let status = |kept: &Kept| {
        let socket = kept.sidecar.directory().join("admin.sock");
        process::run(process::countersign().args(["health", "--admin"]).arg(socket)).stdout
    };
    eventually("the status to show it", || {
        let text = status(&kept);
        (text.contains("not anchored for") && text.contains("THE LAST ATTEMPT FAILED")).then_some(())
    });
    eventually("the gauge to show it", || {
        let metrics = kept.sidecar.metrics();
        let lag = metrics.lines().find_map(|line| line.strip_prefix("countersign_ledger_unanchored_seconds "));
        lag.and_then(|lag| lag.parse::<f64>().ok()).filter(|lag| *lag > 1.0)
    });
    kept.authority.restart();
    kept.anchored(world);
    eventually("the status to say so", || status(&kept).contains("the newest head is anchored").then_some(()));
    kept.calls(1);
    kept.sidecar.stop();
    let (code, said) = kept.verify(world);
    assert_eq!((code, &said["report"]["lines_after_outside_head"]), (Some(0), &json!(0)), "nothing is left unanchored");
    kept.sidecar.restart();
    kept.calls(1);
    kept.anchored(world);
    assert!(kept.alerts().is_empty(), "{:?}", kept.alerts());
}

/// The copy of the sidecar's ledger at its authority.
fn copy(kept: &Kept) -> std::path::PathBuf {
    let id: Value = serde_json::from_slice(&fs::read(kept.sidecar.ledger().join("ledger.json")).unwrap()).unwrap();
    kept.authority.directory().join("shipped").join(id["id"].as_str().unwrap())
}

/// The records of calls in a ledger or its copy.
fn calls(ledger: &Path) -> Vec<Value> {
    let ran = audit(ledger, "query", &["--json"]);
    let records = if ran.code == Some(0) { ran.lines() } else { Vec::new() };
    records.into_iter().filter(|record| record["kind"].as_str().unwrap().starts_with("call.")).collect()
}

fn lag(sidecar: &Sidecar) -> f64 {
    let metrics = sidecar.metrics();
    let lag = metrics.lines().find_map(|line| line.strip_prefix("countersign_ledger_oldest_unshipped_seconds "));
    lag.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[test]
fn what_is_recorded_is_at_the_authority_in_a_moment_and_outlives_the_sidecars_disk() {
    let Some(world) = world() else { return };
    let mut kept = kept_with(world, |config| {
        config["ledger"]["ship"] = json!({});
        config["ledger"]["segment_max_bytes"] = json!(20_000);
    });
    kept.calls(10);
    eventually("the copy to have it", || (copy(&kept).is_dir() && calls(&copy(&kept)).len() == 20).then_some(()));
    assert!(lag(&kept.sidecar) < 30.0);
    // Both are killed in the middle of it, and go on.
    for round in 0..3 {
        kept.calls(5);
        if round == 1 {
            kept.authority.killed();
        } else {
            kept.sidecar.daemon.kill();
            kept.sidecar.daemon.wait();
            kept.sidecar.restart();
        }
    }
    kept.calls(3);
    kept.sidecar.stop();
    let whole = audit(&kept.sidecar.ledger(), "query", &["--json"]).lines();
    assert_eq!(
        audit(&copy(&kept), "query", &["--json"]).lines(),
        whole,
        "nothing is missing, the record of the stop neither"
    );
    let copied = copy(&kept);
    fs::remove_dir_all(kept.sidecar.ledger()).unwrap();
    let verified = audit(&copied, "verify", &["--json"]).lines();
    assert_eq!((&verified[0]["ok"], &verified[0]["report"]["lines_after_last_head"]), (&json!(true), &json!(0)));
    assert!(verified[0]["report"]["segments"].as_u64().unwrap() > 3, "{verified:?}");
}

#[test]
fn where_records_have_to_be_elsewhere_too_no_write_goes_while_they_are_not() {
    let Some(world) = world() else { return };
    let mut kept = kept_with(world, |config| {
        config["ledger"]["ship"] = json!({"max_lag": "3s", "on_lag": "refuse_writes"});
        config["authority"]["staleness"] = json!({"read": "10m", "write": "10m"});
    });
    let refund =
        |kept: &Kept| kept.sidecar.refund("17", &kept.token, r#"{"amount": "10.00", "currency": "USD"}"#).send();
    eventually("a refund", || (refund(&kept).status == 201).then_some(()));
    kept.authority.daemon.kill();
    kept.authority.daemon.wait();
    let refused = eventually("writes to be refused", || Some(refund(&kept)).filter(|answer| answer.status != 201));
    refused.refused(503, "ledger_unavailable");
    kept.calls(1);
    assert!(kept.sidecar.is_ready());
    let alerts =
        eventually("the alert", || Some(kept.sidecar.query(&["--kind", "alert.raised"])).filter(|all| !all.is_empty()));
    assert_eq!((&alerts[0]["alert"], &alerts[0]["refuses_writes"]), (&json!("ledger_unshipped"), &json!(true)));
    assert!(lag(&kept.sidecar) > 3.0);
    kept.authority.restart();
    eventually("a refund again", || (refund(&kept).status == 201).then_some(()));
    eventually("the copy to have it", || {
        (calls(&copy(&kept)).len() == calls(&kept.sidecar.ledger()).len()).then_some(())
    });
}

#[test]
fn who_is_erased_at_the_sidecar_is_erased_at_the_authority_too() {
    let Some(world) = world() else { return };
    let kept = kept_with(world, |config| config["ledger"]["ship"] = json!({}));
    kept.calls(3);
    let users = |ledger: &Path| calls(ledger).iter().filter(|record| record["user"]["id"].is_string()).count();
    eventually("the copy to have it", || (copy(&kept).is_dir() && users(&copy(&kept)) == 3).then_some(()));
    let user = calls(&kept.sidecar.ledger())[0]["user"]["id"].as_str().unwrap().to_owned();
    let because = ["--by", "data protection", "--reason", "request 17", "--json"];
    audit(&kept.sidecar.ledger(), "erase", &[&["--user", user.as_str()], &because[..]].concat()).well();
    eventually("it to be gone from the copy", || (users(&copy(&kept)) == 0).then_some(()));
    for entry in fs::read_dir(copy(&kept)).unwrap() {
        let path = entry.unwrap().path();
        // The lines have it nowhere by itself, and a short word may be a part of any other.
        if path.extension().is_some_and(|extension| extension == "values") {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(&format!("\"{user}\"")), "{}", path.display());
        }
    }
    let verified = audit(&copy(&kept), "verify", &["--json"]).lines();
    assert_eq!((&verified[0]["ok"], &verified[0]["report"]["unfinished_erasures"]), (&json!(true), &json!(0)));
    let own = audit(&kept.authority.directory().join("ledger"), "query", &["--json", "--kind", "copy.erased"]).lines();
    assert!(!own.is_empty(), "the authority has it on record");
}

#[test]
fn who_audits_asks_the_authority_also_where_the_sidecar_is_gone() {
    let Some(world) = world() else { return };
    let mut kept = kept_with(world, |config| {
        config["ledger"]["ship"] = json!({});
        config["ledger"]["segment_max_bytes"] = json!(20_000);
    });
    kept.calls(110);
    let decided = kept.sidecar.query(&["--kind", "call.decided"]).remove(0);
    kept.sidecar.stop();
    let here = kept.sidecar.query(&[]);
    assert!(here.len() > 200, "more than a page");
    let remote = |arguments: &[&str]| kept.run(world, &[arguments, &["--from", "authority"]].concat());
    assert_eq!(remote(&["audit", "query", "--json"]).lines(), here);
    fs::remove_dir_all(kept.sidecar.ledger()).unwrap();
    let user = decided["user"]["id"].as_str().unwrap();
    let of_user = remote(&["audit", "query", "--user", user, "--json"]).lines();
    assert_eq!(of_user.iter().filter(|record| record["kind"] == "call.settled").count(), 110, "each with its end");
    assert!(remote(&["audit", "query", "--user", "nobody-at-all", "--json"]).lines().is_empty());
    let last = remote(&["audit", "tail", "-n", "3", "--json"]).lines();
    assert_eq!(last, here[here.len() - 3..]);
    let explained = remote(&["explain", decided["decision_id"].as_str().unwrap()]).well();
    assert!(explained.contains(user) && explained.contains("orders.read"), "{explained}");
    let events = remote(&["audit", "export", "--format", "ocsf"]).lines();
    assert_eq!(events.len(), here.iter().filter(|record| record["kind"] == "call.decided").count());

    // Whoever does not administer sees no ledger, and is told of none.
    let alice = world.openid.manager("alice");
    assert!(kept.authority.run(&alice, &["audit", "query", "--json", "--from", "authority"]).lines().is_empty());
    let id = decided["decision_id"].as_str().unwrap().split('.').next().unwrap();
    let authorization = format!("Bearer {alice}");
    for path in [format!("/v1/ledgers/{id}"), format!("/v1/ledgers/{id}/records")] {
        let answer = http::request(kept.authority.port(), "GET", &path, &[("authorization", &authorization)], b"");
        assert_eq!(answer.status, 404, "{path}");
    }
}

/// What a copy on the authority's disk is changed to, and whether the pinned key and a head from outside show it.
type Forgery = (&'static str, fn(&Path));

fn rewrite(path: std::path::PathBuf, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "{}", path.display());
    fs::write(path, changed).unwrap();
}

const FORGERIES: [Forgery; 8] = [
    ("a line that says otherwise", |copy| {
        rewrite(copy.join("00000002.jsonl"), |text| text.replacen("permit", "denied", 1));
    }),
    ("a line that is gone", |copy| {
        rewrite(copy.join("00000002.jsonl"), |text| text.split_inclusive('\n').skip(1).collect());
    }),
    ("a value that is another", |copy| {
        rewrite(copy.join("00000002.values"), |text| text.replacen("alice", "malice", 1));
    }),
    ("a value that is gone", |copy| {
        rewrite(copy.join("00000002.values"), |text| text.split_inclusive('\n').skip(1).collect());
    }),
    ("a segment that is gone", |copy| fs::remove_file(copy.join("00000002.jsonl")).unwrap()),
    ("a beginning that is gone", |copy| fs::remove_file(copy.join("00000001.jsonl")).unwrap()),
    ("a whole end that is gone, with its heads", |copy| {
        for entry in fs::read_dir(copy).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.split('.').next().and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|index| index > 1) {
                fs::remove_file(&path).unwrap();
            }
        }
        let seal: Value = serde_json::from_slice(&fs::read(copy.join("00000001.seal")).unwrap()).unwrap();
        fs::write(copy.join("head"), seal["head"].as_str().unwrap()).unwrap();
    }),
    ("another ledger's key", |copy| {
        let other = "countersign/ledger/0123456789abcdef+4a4ba3c0+AZ0l8v7c2b0GQ0Yv1uG2b3rL0r0G6m2m2m2m2m2m2m2m";
        rewrite(copy.join("ledger.json"), |text| {
            let mut about: Value = serde_json::from_str(&text).unwrap();
            about["verifying_key"] = json!(other);
            about.to_string()
        });
    }),
];

#[test]
fn a_copy_is_verified_from_anywhere_and_the_authority_cannot_make_a_false_one_pass() {
    let Some(world) = world() else { return };
    let mut kept = kept_with(world, |config| {
        config["ledger"]["ship"] = json!({});
        config["ledger"]["segment_max_bytes"] = json!(20_000);
    });
    kept.calls(40);
    kept.sidecar.stop();
    let ledger = kept.sidecar.ledger();
    let about: Value = serde_json::from_slice(&fs::read(ledger.join("ledger.json")).unwrap()).unwrap();
    let (id, key) = (about["id"].as_str().unwrap(), about["verifying_key"].as_str().unwrap());
    let head = ledger.join("head");
    let remote = |arguments: &[&str]| {
        let ran = kept.run(world, &[&["audit", "verify", "--json", "--from", "authority"], arguments].concat());
        let said = ran.stdout.lines().next().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
        (ran.code, said, ran.stderr)
    };
    let pinned = ["--key", key, "--head", head.to_str().unwrap(), "--only", id];
    let (code, said, _) = remote(&pinned);
    let here = audit(&ledger, "verify", &["--json", "--key", key, "--head", head.to_str().unwrap()]).lines().remove(0);
    assert_eq!((code, &said["ok"], &said["ledger"]), (Some(0), &json!(true), &json!(id)));
    assert_eq!(said["report"], here["report"], "what is found there is what is found here");
    assert!(said["report"]["segments"].as_u64().unwrap() > 3 && said["report"]["lines_after_outside_head"] == 0);
    let (code, said, _) = remote(&[]);
    assert_eq!(
        (code, &said["report"]["key_pinned"], &said["report"]["tail_checked"]),
        (Some(0), &json!(false), &json!(false))
    );

    let copied = copy(&kept);
    let whole = kept.authority.directory().join("whole");
    let copy_all = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    copy_all(&copied, &whole);
    for (what, forge) in FORGERIES {
        forge(&copied);
        let (code, said, stderr) = remote(&pinned);
        assert_eq!((code, &said["ok"]), (Some(1), &json!(false)), "{what}: {said} {stderr}");
        assert!(said["broken"]["why"].is_string(), "{what}");
        fs::remove_dir_all(&copied).unwrap();
        copy_all(&whole, &copied);
    }
    let (code, _, _) = remote(&pinned);
    assert_eq!(code, Some(0), "as it was before");

    // What the authority says that it took away is believed, and said to be its word.
    for file in ["jsonl", "values", "heads"] {
        fs::remove_file(copied.join(format!("00000001.{file}"))).unwrap();
    }
    assert_eq!(remote(&pinned).0, Some(1));
    fs::write(copied.join("amended.json"), r#"{"retired":1}"#).unwrap();
    let (code, said, _) = remote(&pinned);
    assert_eq!((code, &said["report"]["retired_by_keeper"]), (Some(0), &json!(true)), "{said}");
    let of_directory = |arguments: &[&str]| audit(&copied, "verify", &[&["--json"], arguments].concat());
    assert_eq!(of_directory(&[]).code, Some(1), "a file that anybody may write accounts for nothing by itself");
    let said = of_directory(&["--copy"]);
    assert_eq!((said.code, &said.lines()[0]["report"]["retired_by_keeper"]), (Some(0), &json!(true)));

    // What is hidden is missed where somebody knows of it, and who may not read it is shown nothing.
    let (code, _, stderr) = remote(&["--only", "0123456789abcdef"]);
    assert!(code != Some(0), "{stderr}");
    let elsewhere = key.replace(id, "0123456789abcdef");
    assert!(remote(&["--key", &elsewhere]).0 != Some(0));
    let authorization = format!("Bearer {}", world.openid.manager("alice"));
    for path in [format!("/v1/ledgers/{id}/segments"), format!("/v1/ledgers/{id}/files/00000002.values")] {
        let answer = http::request(kept.authority.port(), "GET", &path, &[("authorization", &authorization)], b"");
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[test]
fn who_is_erased_at_the_authoritys_word_is_gone_from_the_copy_of_a_sidecar_that_is_gone() {
    let Some(world) = world() else { return };
    let mut kept = kept_with(world, |config| config["ledger"]["ship"] = json!({}));
    kept.calls(3);
    kept.sidecar.stop();
    let about: Value = serde_json::from_slice(&fs::read(kept.sidecar.ledger().join("ledger.json")).unwrap()).unwrap();
    let (id, key) = (about["id"].as_str().unwrap(), about["verifying_key"].as_str().unwrap());
    let copied = copy(&kept);
    fs::remove_dir_all(kept.sidecar.ledger()).unwrap();
    let users = || calls(&copied).iter().filter(|record| record["user"]["id"].is_string()).count();
    let user = calls(&copied)[0]["user"]["id"].as_str().unwrap().to_owned();
    assert!(users() > 0);
    let erase = ["audit", "erase", "--user", user.as_str(), "--from", "authority", "--json"];
    let dry = kept.run(world, &[&erase[..], &["--dry-run"]].concat()).lines();
    assert!(dry[0]["ledger"] == id && dry[0]["records"].as_u64().unwrap() > 0, "{dry:?}");

    // Neither whoever does not administer, nor whoever logged in long ago.
    let path = format!("/v1/ledgers/{id}/erase");
    let body = json!({"user": user, "reason": "request 17"}).to_string();
    let stale = json!({"groups": ["platform"], "auth_time": 1_000_000_000});
    let stale = world.openid.sign(&json!({"like": world.openid.manager("dave"), "claims": stale}));
    for (token, status) in [(world.openid.manager("alice"), 404), (stale, 401)] {
        let headers = [("authorization", format!("Bearer {token}")), ("content-type", "application/json".to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = http::request(kept.authority.port(), "POST", &path, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let named = kept.run(world, &[&erase[..], &["--reason", &format!("{user} asked")]].concat());
    assert_ne!(named.code, Some(0), "the reason would put on record what is to be forgotten");
    assert_eq!(users(), 3);

    let erased = kept.run(world, &[&erase[..], &["--reason", "request 17"]].concat()).lines();
    assert_eq!(erased[0]["records"], dry[0]["records"]);
    assert_eq!(users(), 0);
    let own = audit(&kept.authority.directory().join("ledger"), "query", &["--json", "--kind", "copy.erased"]).lines();
    assert!(!own.is_empty() && own.iter().all(|record| record["reason"] == "request 17"), "{own:?}");
    assert!(own.iter().all(|record| record["by"].as_str().unwrap().contains("dave")), "{own:?}");
    let said = kept.run(world, &["audit", "verify", "--json", "--from", "authority", "--key", key]);
    let said = (said.code, said.lines().remove(0));
    assert!(said.0 == Some(0) && said.1["report"]["erased_by_keeper"].as_u64().unwrap() > 0, "{said:?}");
    let again = kept.run(world, &[&erase[..], &["--reason", "request 17"]].concat()).lines();
    assert_eq!(again[0]["records"], 0);
}
