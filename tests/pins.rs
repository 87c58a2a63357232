//! A bundle of policy goes back everywhere by one word at the authority, stays there through restarts and newer bundles,
//! and goes on when that is taken back. Real parts: the authority, enrolled sidecars, a server of bundles.

use std::fs;

use serde_json::{Value, json};

use crate::{
    bundles::{SECRET, Server, Workshop, activated, bundle, closed, status},
    support::{
        Sidecar, World,
        authority::{Authority, Client},
        eventually,
        process::Ran,
        sidecar::Setup,
        world,
    },
    withdrawal::planes::{enrolled, read},
};

/// An authority, whoever manages it, and what makes bundles.
struct Fleet<'w> {
    world: &'w World,
    authority: Authority,
    agent: Client,
    workshop: Workshop,
}

impl<'w> Fleet<'w> {
    fn new(world: &'w World) -> Self {
        let agent = Client::new("support-v9");
        let authority = Authority::start(&world.openid, &[&agent]);
        Self { world, authority, agent, workshop: Workshop::new() }
    }

    /// A sidecar of the fleet, whose team's policy is what `source` says.
    fn sidecar(&self, name: &str, source: &Value) -> Setup {
        let setup = enrolled(self.world, &self.authority, name);
        setup.write_secret("bundle-secret", SECRET);
        fs::copy(self.workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
        setup.with(|config| {
            let mut team = json!({
                "name": "support", "for": ["orders"],
                "keys": {"k": {"algorithm": "EdDSA", "file": "platform.pub.pem", "scope": "prod"}},
            });
            team.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            config["policy"][1] = team;
        })
    }

    /// The same with a policy from `server`.
    fn fetching(&self, name: &str, server: &Server) -> Sidecar {
        let bundle = json!({"url": server.url(), "credential": {"bearer": {"file": "bundle-secret"}}, "poll": "1s"});
        self.sidecar(name, &json!({"bundle": bundle})).start()
    }

    /// Runs a command as somebody who administers and logged in just now.
    fn run(&self, arguments: &[&str]) -> Ran {
        self.authority.run(&self.world.openid.administrator(), &[&["policy"], arguments].concat())
    }

    /// Pins the team's bundle; the pin's name.
    fn pin(&self, revision: &str) -> String {
        let ran = self.run(&["pin", "support", revision, "--reason", "case 311", "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.lines()[0]["id"].as_str().unwrap().to_owned()
    }

    fn unpin(&self) {
        let ran = self.run(&["unpin", "support", "--reason", "fixed"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }

    /// Waits until calls go through `sidecar`.
    fn goes(&self, sidecar: &Sidecar) {
        let token = self.authority.first(&self.agent, &self.world.openid);
        eventually("calls to go", || (read(sidecar, &token).status == 200).then_some(()));
    }

    /// Waits until calls are refused in the name of `code`.
    fn refused_as(&self, sidecar: &Sidecar, code: &str) {
        let token = self.authority.first(&self.agent, &self.world.openid);
        eventually(code, || read(sidecar, &token).text().contains(code).then_some(()));
    }
}

/// Waits until the pin of `sidecar` is not obeyed, and says why.
fn unmet(sidecar: &Sidecar, place: usize) -> String {
    let pin = || status(sidecar)["policy"]["bundles"][place]["pin"]["unmet"].as_str().map(str::to_owned);
    eventually("the pin not to be obeyed", pin)
}

/// Waits for what waits in `sidecar` until its pin is over.
fn waits(sidecar: &Sidecar, revision: &str) {
    eventually(revision, || (bundle(sidecar)["pin"]["waiting"]["revision"] == revision).then_some(()));
}

#[test]
fn a_pin_takes_every_sidecar_back_and_holds_through_restarts_and_newer_bundles_until_it_is_over() {
    let Some(world) = world() else { return };
    let Some(server) = Server::start(&[]) else { return };
    let fleet = Fleet::new(world);
    let signed = |rules: &str, serial| fleet.workshop.bundle(rules, serial, Some("platform"));
    server.offer(&signed("", 1));
    let mut sidecars = ["one", "two", "three"].map(|name| fleet.fetching(name, &server));
    for sidecar in &sidecars {
        fleet.goes(sidecar);
    }
    server.offer(&signed(&closed("since_two"), 2));
    for sidecar in &sidecars {
        fleet.refused_as(sidecar, "since_two");
    }

    let pin = fleet.pin("r1");
    for sidecar in &sidecars {
        fleet.goes(sidecar);
        let decides = bundle(sidecar);
        assert_eq!((&decides["revision"], &decides["pin"]["id"]), (&json!("r1"), &json!(pin)), "{decides}");
        assert_eq!((&decides["pin"]["reason"], &decides["pin"]["unmet"]), (&json!("case 311"), &Value::Null));
        let records = activated(sidecar);
        let record = &records.last().unwrap()["bundles"][0];
        assert_eq!((&record["pin"], &record["rolled_back"]), (&json!(pin), &json!(2)), "{record}");
        assert!(sidecar.metrics().contains("countersign_policy_pinned{bundle=\"support\"} 1"));
    }
    let listed = fleet.run(&["pins"]).stdout;
    assert!(listed.contains("support") && listed.contains("r1") && listed.contains("case 311"), "{listed}");

    // What comes meanwhile is looked at and waits; what is bad is refused as ever.
    server.offer(&signed(&closed("since_three"), 3));
    sidecars.iter().for_each(|sidecar| waits(sidecar, "r3"));
    server.offer(&fleet.workshop.bundle(&closed("by_a_stranger"), 4, Some("stranger")));
    eventually("it to be refused", || bundle(&sidecars[0])["fetched"]["refused"]["why"].as_str().map(str::to_owned));
    // One starts again, and nobody tells it but what it remembers.
    server.put("mode", b"away");
    sidecars[1].stop();
    sidecars[1].restart();
    assert_eq!(bundle(&sidecars[1])["revision"], "r1");
    sidecars.iter().for_each(|sidecar| fleet.goes(sidecar));

    // Nobody has this one: what decides goes on, and that is said.
    fleet.pin("no-such-revision");
    for sidecar in &sidecars {
        let why = unmet(sidecar, 1);
        assert!(why.contains("no-such-revision"), "{why}");
        assert!(sidecar.metrics().contains("countersign_policy_pin_unmet{bundle=\"support\"} 1"));
        fleet.goes(sidecar);
    }
    server.put("mode", b"");
    server.offer(&signed(&closed("since_five"), 5));
    fleet.unpin();
    for sidecar in &sidecars {
        fleet.refused_as(sidecar, "since_five");
        eventually("that to be told of", || (bundle(sidecar)["pin"] == Value::Null).then_some(()));
        assert_eq!(activated(sidecar).last().unwrap()["bundles"][0]["pin"], Value::Null);
    }
    let again = fleet.run(&["unpin", "support", "--reason", "again"]);
    assert_eq!(again.code, Some(1), "{}", again.stdout);
    assert!(again.stderr.contains("not pinned"), "{}", again.stderr);
}

#[test]
fn a_sidecar_that_never_had_the_revision_takes_it_from_its_server_and_from_nobody_else() {
    let Some(world) = world() else { return };
    let Some(server) = Server::start(&[]) else { return };
    let fleet = Fleet::new(world);
    let signed = |rules: &str, serial| fleet.workshop.bundle(rules, serial, Some("platform"));
    let earlier = signed("", 1);
    server.offer(&signed(&closed("since_two"), 2));
    let sidecar = fleet.fetching("one", &server);
    fleet.refused_as(&sidecar, "since_two");
    let pin = fleet.pin("r1");
    unmet(&sidecar, 1);
    let alerts = || sidecar.query(&[]).into_iter().filter(|record| record["alert"] == "policy_pin_unmet");
    let alert = eventually("an alert", || alerts().next());
    assert_eq!((&alert["pin"], &alert["revision"], &alert["bundle"]), (&json!(pin), &json!("r1"), &json!("support")));
    // Nothing newer is taken meanwhile, nor what only calls itself so.
    server.offer(&signed(&closed("since_three"), 3));
    let refused = |part: &str| {
        eventually(part, || {
            let why = bundle(&sidecar)["fetched"]["refused"]["why"].clone();
            why.as_str().is_some_and(|why| why.contains(part)).then_some(())
        });
    };
    refused("pin names another");
    server.offer(&fleet.workshop.bundle("", 1, Some("stranger")));
    refused("not its key's");
    fleet.refused_as(&sidecar, "since_two");
    server.offer(&earlier);
    fleet.goes(&sidecar);
    let record = activated(&sidecar).last().unwrap()["bundles"][0].clone();
    assert_eq!((&record["pin"], &record["rolled_back"], &record["serial"]), (&json!(pin), &json!(2), &json!(1)));
    eventually("that to be told of", || (bundle(&sidecar)["pin"]["unmet"] == Value::Null).then_some(()));
    assert_eq!(alerts().count(), 1);
    // A lower serial is none any more once nobody asks for it: what is newest here decides.
    fleet.unpin();
    fleet.refused_as(&sidecar, "since_two");
}

#[test]
fn a_bundle_in_a_file_goes_back_too_and_a_directory_says_that_it_cannot() {
    let Some(world) = world() else { return };
    let fleet = Fleet::new(world);
    let signed = |rules: &str, serial| fleet.workshop.bundle(rules, serial, Some("platform"));
    let setup = fleet.sidecar("one", &json!({"path": "support.tar.gz"}));
    fs::write(setup.directory().join("support.tar.gz"), signed("", 1)).unwrap();
    let mut sidecar = setup.start();
    fleet.goes(&sidecar);
    fs::write(sidecar.directory().join("next"), signed(&closed("since_two"), 2)).unwrap();
    fs::rename(sidecar.directory().join("next"), sidecar.directory().join("support.tar.gz")).unwrap();
    fleet.refused_as(&sidecar, "since_two");
    fleet.pin("r1");
    fleet.goes(&sidecar);
    sidecar.stop();
    sidecar.restart();
    assert_eq!(bundle(&sidecar)["revision"], "r1");
    fleet.goes(&sidecar);
    let ran = fleet.run(&["pin", "org", "r9", "--reason", "no bundle of it", "--until", "2999-01-01T00:00:00Z"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(unmet(&sidecar, 0).contains("directory"));
    fleet.unpin();
    fleet.refused_as(&sidecar, "since_two");
}

#[test]
fn nothing_an_agent_holds_pins_anything_and_nobody_pins_for_a_tenant_that_is_not_here() {
    let Some(world) = world() else { return };
    let fleet = Fleet::new(world);
    let body = json!({"bundle": "support", "revision": "r1", "reason": "mine"});
    let agents = fleet.authority.first(&fleet.agent, &world.openid);
    for token in [agents, world.openid.user("alice")] {
        let refused = fleet.authority.post("/v1/pins", &[("authorization", &format!("Bearer {token}"))], &body);
        assert_eq!(refused.status, 401, "{}", refused.text());
    }
    let users = fleet.authority.manage(&world.openid, &["support"], "/v1/pins", &body);
    assert_eq!(users.status, 403, "{}", users.text());
    let ran = fleet.run(&["pin", "support", "r1", "--tenant", "globex", "--reason", "theirs"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("globex"), "{}", ran.stderr);
    assert_eq!(fleet.run(&["pins", "--json"]).lines().len(), 0);
}
