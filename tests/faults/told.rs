//! A sidecar that cannot write its ledger says so to its authority, which puts it on record.

use std::fs;

use serde_json::{Value, json};

use crate::{
    support::{
        Sidecar, World,
        authority::{Authority, Client},
        eventually, free_port, http,
        process::Ran,
        sidecar::audit,
        webhook::webhook,
        world,
    },
    withdrawal::planes::{enrolled, read},
};

struct Told {
    authority: Authority,
    health: u16,
    sidecar: Sidecar,
    token: String,
}

impl Told {
    fn start(world: &World, url: &str) -> Self {
        let (agent, health) = (Client::new("support-v9"), free_port());
        let authority = Authority::start_with(&world.openid, &[&agent], |directory, config| {
            let secret = directory.join("webhook.secret");
            fs::write(&secret, "whsec").unwrap();
            fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            config["alerts"] = json!({"webhook": {"url": url, "secret": {"file": "webhook.secret"}}});
            config["listen"]["health"] = json!({"tcp": format!("127.0.0.1:{health}")});
        });
        let sidecar = enrolled(world, &authority, "edge-7").start();
        let token = authority.first(&agent, &world.openid);
        Self { authority, health, sidecar, token }
    }

    /// The sidecar's ledger is not where it was, and it has noticed.
    fn loses_its_ledger(&self) {
        let (ledger, away) = (self.sidecar.ledger(), self.sidecar.directory().join("away"));
        fs::rename(ledger, away).unwrap();
        let refused = eventually("a call to be refused", || {
            Some(read(&self.sidecar, &self.token)).filter(|answer| answer.status != 200)
        });
        refused.refused(503, "ledger_unavailable");
    }

    fn has_it_back(&self) {
        fs::rename(self.sidecar.directory().join("away"), self.sidecar.ledger()).unwrap();
    }

    fn run(&self, world: &World, arguments: &[&str]) -> Ran {
        self.authority.run(&world.openid.administrator(), arguments)
    }

    /// What `sidecars list` says of it.
    fn listed(&self, world: &World) -> Value {
        let listed = self.run(world, &["sidecars", "list", "--json"]).lines();
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed[0].clone()
    }

    /// The alerts of it on the authority's record: whether each is of the end of an outage.
    fn alerts(&self) -> Vec<bool> {
        let ledger = self.authority.directory().join("ledger");
        let records = audit(&ledger, "query", &["--kind", "alert.raised", "--json"]).lines();
        let of_it = records.iter().filter(|record| record["alert"] == "sidecar_ledger_unavailable");
        of_it.map(|record| record["over"].as_bool().unwrap()).collect()
    }

    fn gauge(&self, value: &str) {
        eventually("the metric to say so", || {
            let metrics = http::get(self.health, "/metrics").text();
            let line = format!("countersign_sidecar_ledgers_unavailable {value}");
            metrics.lines().any(|it| it == line).then_some(())
        });
    }
}

#[test]
fn the_authority_knows_which_sidecar_cannot_write_its_ledger_and_when_it_can_again() {
    let Some(world) = world() else { return };
    let (url, told_of) = webhook();
    let mut told = Told::start(world, &url);
    read(&told.sidecar, &told.token).went(200);
    assert!(told.listed(world)["ledger_unavailable_since"].is_null());
    told.loses_its_ledger();
    eventually("it to be on record", || (told.alerts() == [false]).then_some(()));
    let alert = told_of.recv().unwrap().body;
    assert_eq!((&alert["alert"], &alert["name"]), (&json!("sidecar_ledger_unavailable"), &json!("edge-7")), "{alert}");
    assert!(alert["why"].as_str().is_some_and(|why| !why.is_empty()) && alert["since"].is_string(), "{alert}");
    let listed = told.listed(world);
    assert_eq!((&listed["id"], &listed["ledger_unavailable_since"]), (&alert["sidecar"], &alert["since"]));
    let shown = told.run(world, &["sidecars", "show", listed["id"].as_str().unwrap()]).well();
    assert!(shown.contains("no ledger since") && shown.contains("because"), "{shown}");
    told.gauge("1");
    // Nobody forgets it, and nobody says it again.
    told.authority.killed();
    told.gauge("1");
    told.has_it_back();
    eventually("it to be over", || (told.alerts() == [false, true]).then_some(()));
    let over = told_of.recv().unwrap().body;
    assert_eq!((&over["over"], &over["since"]), (&json!(true), &alert["since"]), "{over}");
    // It is on record before it is off the list.
    eventually("the list to say so", || told.listed(world)["ledger_unavailable_since"].is_null().then_some(()));
    told.gauge("0");
    // Killed while it lasts, it says that it is over once it has begun again.
    told.loses_its_ledger();
    eventually("another one", || (told.alerts() == [false, true, false]).then_some(()));
    told.sidecar.daemon.kill();
    told.sidecar.daemon.wait();
    told.has_it_back();
    told.sidecar.restart();
    eventually("that to be over", || (told.alerts() == [false, true, false, true]).then_some(()));
}

#[test]
fn the_authority_knows_which_sidecar_cannot_open_its_ledger_however_often_it_tries() {
    let Some(world) = world() else { return };
    let (url, told_of) = webhook();
    let mut told = Told::start(world, &url);
    read(&told.sidecar, &told.token).went(200);
    told.sidecar.stop();
    let about = told.sidecar.ledger().join("ledger.json");
    let was = fs::read(&about).unwrap();
    fs::write(&about, "{}").unwrap();
    for _ in 0..3 {
        told.sidecar.restart_unready();
        assert_eq!(told.sidecar.daemon.wait().code(), Some(69), "{}", told.sidecar.daemon.output());
    }
    let alert = told_of.recv().unwrap().body;
    assert!(alert["why"].as_str().unwrap().contains("ledger.json"), "{alert}");
    assert_eq!(told.listed(world)["ledger_unavailable_since"], alert["since"]);
    assert_eq!(told.alerts(), [false], "three starts are one outage");
    fs::write(&about, was).unwrap();
    told.sidecar.restart();
    eventually("it to be over", || (told.alerts() == [false, true]).then_some(()));
    assert_eq!(told_of.recv().unwrap().body["over"], true);
}
