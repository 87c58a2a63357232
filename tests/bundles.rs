//! Policy as bundles: made, signed and looked at by the commands, and fetched by a running sidecar from a real server.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use serde_json::{Value, json};

use crate::support::{
    Sidecar, World, eventually,
    process::{self, Part, Ran},
    root,
    sidecar::{POLICY, Setup},
    skipped, world,
};

const ORDER: &str = "/orders/v1/orders/17";
pub(crate) const SECRET: &str = "the-bundle-servers-secret";

/// A place to make bundles in, with keys.
pub(crate) struct Workshop {
    directory: tempfile::TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let workshop = Self { directory: tempfile::tempdir().unwrap() };
        workshop.key("platform", &PKCS_ED25519);
        workshop.key("stranger", &PKCS_ED25519);
        workshop
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn key(&self, name: &str, kind: &'static SignatureAlgorithm) {
        let pair = KeyPair::generate_for(kind).unwrap();
        let private = self.path(&format!("{name}.pem"));
        fs::write(&private, pair.serialize_pem()).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.path(&format!("{name}.pub.pem")), pair.public_key_pem()).unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn policy(&self, arguments: &[&str]) -> Ran {
        process::run(process::countersign().arg("policy").args(arguments))
    }

    /// The bundle of the team with `rules`, signed with the key `signer`, where there is one.
    pub(crate) fn bundle(&self, rules: &str, serial: u64, signer: Option<&str>) -> Vec<u8> {
        self.write("team/support.rego", &format!("{POLICY}\n{rules}\n"));
        let (output, serial) = (self.path("made.tar.gz"), serial.to_string());
        let revision = format!("r{serial}");
        let built =
            self.policy(&["build", "-o", &output, "--revision", &revision, "--serial", &serial, &self.path("team")]);
        assert_eq!(built.code, Some(0), "{}", built.stderr);
        if let Some(signer) = signer {
            let key = self.path(&format!("{signer}.pem"));
            let signed = self.policy(&["sign", "--key", &key, "--key-id", "k", "--scope", "prod", &output]);
            assert_eq!(signed.code, Some(0), "{}", signed.stderr);
        }
        fs::read(&output).unwrap()
    }
}

/// Denies everything, in the name of `code`.
pub(crate) fn closed(code: &str) -> String {
    format!("deny contains {{\"code\": \"{code}\"}}")
}

/// A server of bundles.
pub(crate) struct Server {
    part: Part,
    directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        if Command::new("node").arg("--version").output().is_err() {
            skipped("bundle server", "Node.js is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("node");
        command.arg(root().join("tests/parts/bundles/server.mjs")).arg("--dir").arg(directory.path());
        command.args(["--token", SECRET]).args(arguments);
        let part = Part::start(&mut command, &directory.path().join("stderr"));
        Some(Self { part, directory })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/support.tar.gz", self.part.port("port"))
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let next = self.directory.path().join("next");
        fs::write(&next, bytes).unwrap();
        fs::rename(next, self.directory.path().join(name)).unwrap();
    }

    pub(crate) fn offer(&self, bundle: &[u8]) {
        self.put("support.tar.gz", bundle);
    }

    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("requests.jsonl")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A sidecar whose team's policy comes from `server`.
fn setup(world: &World, workshop: &Workshop, server: &Server, settings: &Value) -> Setup {
    let setup = Setup::new(&world.openid, &world.tool);
    setup.write_secret("bundle-secret", SECRET);
    fs::copy(workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
    let mut bundle = json!({"url": server.url(), "credential": {"bearer": {"file": "bundle-secret"}}, "poll": "1s"});
    bundle.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    setup.with(|config| {
        config["policy"][1] = json!({
            "name": "support", "for": ["orders"], "bundle": bundle,
            "keys": {"k": {"algorithm": "EdDSA", "file": "platform.pub.pem", "scope": "prod"}},
        });
    })
}

pub(crate) fn status(sidecar: &Sidecar) -> Value {
    let socket = sidecar.directory().join("admin.sock");
    let ran = process::run(Command::new("curl").args(["-s", "--unix-socket"]).arg(socket).arg("http://admin/status"));
    serde_json::from_str(&ran.stdout).unwrap()
}

pub(crate) fn bundle(sidecar: &Sidecar) -> Value {
    status(sidecar)["policy"]["bundles"][1].clone()
}

pub(crate) fn activated(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.query(&[]).into_iter().filter(|record| record["kind"] == "policy.activated").collect()
}

/// Waits until calls are refused in the name of `code`.
fn refused_as(sidecar: &Sidecar, token: &str, code: &str) {
    eventually(code, || sidecar.get(ORDER, token).send().text().contains(code).then_some(()));
}

/// Waits until what is on disk is refused, and says why.
fn not_reloaded(sidecar: &Sidecar) -> String {
    eventually("it to be refused", || status(sidecar)["configuration"]["refused"]["why"].as_str().map(str::to_owned))
}

pub(crate) fn put_config(sidecar: &Sidecar, change: impl FnOnce(&mut Value)) {
    let path = sidecar.directory().join("countersign.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    let next = sidecar.directory().join("next");
    fs::write(&next, config.to_string()).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

#[test]
fn a_bundle_is_built_signed_and_looked_at() {
    let workshop = Workshop::new();
    let signed = workshop.bundle("", 7, Some("platform"));
    let (made, public) = (workshop.path("made.tar.gz"), workshop.path("platform.pub.pem"));
    // Built again elsewhere, at another time, it is the same; and a signature of Ed25519 is, too.
    assert_eq!(signed, workshop.bundle("", 7, Some("platform")));
    let seen = workshop.policy(&["inspect", "--json", "--key", &public, "--scope", "prod", &made]);
    assert_eq!(seen.code, Some(0), "{}", seen.stderr);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!((&seen["revision"], &seen["serial"]), (&json!("r7"), &json!(7)));
    assert_eq!(seen["roots"], json!(["countersign/teams/support"]));
    assert_eq!(seen["signature"]["verified"]["algorithm"], "EdDSA");
    let paths: Vec<&str> =
        seen["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [".manifest", ".signatures.json", "support.rego"]);
    let text = workshop.policy(&["inspect", &made]).stdout;
    assert!(text.contains("serial     7") && text.contains("not verified"), "{text}");

    for arguments in
        [["--key", &workshop.path("stranger.pub.pem"), "--scope", "prod"], ["--key", &public, "--scope", "test"]]
    {
        let refused = workshop.policy(&[&["inspect"], &arguments[..], &[made.as_str()]].concat());
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    }
    // A key that others may read signs nothing, and neither is what would not load built.
    workshop.key("ecdsa", &PKCS_ECDSA_P256_SHA256);
    let key = workshop.path("ecdsa.pem");
    assert_eq!(workshop.policy(&["sign", "--key", &key, &made]).code, Some(0));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(workshop.policy(&["sign", "--key", &key, &made]).code, Some(78));
    workshop.write("team/support.rego", "package countersign.teams.support\n\nallow contains {");
    let broken = workshop.policy(&["build", "-o", &made, "--revision", "r", &workshop.path("team")]);
    assert_eq!(broken.code, Some(78));
    assert!(broken.stderr.contains("support.rego:3"), "{}", broken.stderr);
}

#[test]
fn a_sidecar_decides_by_a_bundle_in_a_file_and_by_the_next_one_in_its_place() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let setup = Setup::new(&world.openid, &world.tool);
    fs::copy(workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
    fs::write(setup.directory().join("support.tar.gz"), workshop.bundle("", 1, Some("platform"))).unwrap();
    let sidecar = setup
        .with(|config| {
            config["policy"][1] = json!({
                "name": "support", "for": ["orders"], "path": "support.tar.gz",
                "keys": {"k": {"algorithm": "EdDSA", "file": "platform.pub.pem", "scope": "prod"}},
            });
        })
        .start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    let put = |bundle: &[u8]| {
        fs::write(sidecar.directory().join("next"), bundle).unwrap();
        fs::rename(sidecar.directory().join("next"), sidecar.directory().join("support.tar.gz")).unwrap();
    };
    put(&workshop.bundle(&closed("by_a_stranger"), 2, Some("stranger")));
    let why = not_reloaded(&sidecar);
    assert!(why.contains("not its key's"), "{why}");
    sidecar.get(ORDER, &token).send().went(200);
    put(&workshop.bundle(&closed("by_the_platform"), 3, Some("platform")));
    refused_as(&sidecar, &token, "by_the_platform");
    let records = activated(&sidecar);
    let bundles = &records.last().unwrap()["bundles"];
    assert_eq!((&bundles[0]["revision"], &bundles[0]["signed_by"]), (&json!("r3"), &json!("k")), "{bundles}");
    // The same rules in another bundle are nothing to reload, and what is told of them is of that bundle.
    put(&workshop.bundle(&closed("by_the_platform"), 4, Some("platform")));
    eventually("it to be told of", || (bundle(&sidecar)["serial"] == 4).then_some(()));
}

#[test]
fn a_sidecar_decides_by_a_bundle_that_was_unpacked_and_by_no_file_in_it_that_was_not_signed() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let setup = Setup::new(&world.openid, &world.tool);
    fs::copy(workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
    let unpack = |bundle: &[u8], directory: &Path| {
        let (archive, place) = (workshop.path("next.tar.gz"), directory.join("unpacked"));
        fs::write(&archive, bundle).unwrap();
        fs::create_dir_all(&place).unwrap();
        let unpacked = Command::new("tar").args(["-xzf", &archive, "-C"]).arg(&place).status().unwrap();
        assert!(unpacked.success());
    };
    unpack(&workshop.bundle("", 1, Some("platform")), setup.directory());
    let sidecar = setup
        .with(|config| {
            config["policy"][1] = json!({
                "name": "support", "for": ["orders"], "path": "unpacked",
                "keys": {"k": {"algorithm": "EdDSA", "file": "platform.pub.pem", "scope": "prod"}},
            });
        })
        .start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    let added = sidecar.directory().join("unpacked/extra.rego");
    fs::write(&added, format!("package countersign.teams.support\n\n{}\n", closed("by_a_stranger"))).unwrap();
    let why = not_reloaded(&sidecar);
    assert!(why.contains("is not signed"), "{why}");
    sidecar.get(ORDER, &token).send().went(200);
    fs::remove_file(added).unwrap();
    unpack(&workshop.bundle(&closed("since_two"), 2, Some("platform")), sidecar.directory());
    refused_as(&sidecar, &token, "since_two");
    let bundles = activated(&sidecar).last().unwrap()["bundles"].clone();
    assert_eq!((&bundles[0]["revision"], &bundles[0]["signed_by"]), (&json!("r2"), &json!("k")), "{bundles}");
}

#[test]
fn a_bundle_that_changes_on_its_server_decides_at_once_and_a_bad_one_never() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&["--holds-back"]) else { return };
    server.offer(&workshop.bundle("", 4, Some("platform")));
    // Only what is held back comes in time.
    let sidecar = setup(world, &workshop, &server, &json!({"poll": "1h", "long_poll": "30s"})).start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    server.offer(&workshop.bundle(&closed("since_five"), 5, Some("platform")));
    refused_as(&sidecar, &token, "since_five");
    let records = activated(&sidecar);
    let of = |record: &Value| record["bundles"][0].clone();
    let serials: Vec<Value> = records.iter().map(|record| of(record)["serial"].clone()).collect();
    assert_eq!(serials, [4, 5], "{records:?}");
    assert_eq!(of(&records[1])["sha256"], bundle(&sidecar)["sha256"]);
    let asked = server.requests();
    assert!(asked.iter().all(|request| request["authorization"] == format!("Bearer {SECRET}")));
    assert!(asked.iter().any(|request| request["prefer"] == "modes=snapshot;wait=30"), "{asked:?}");

    for (code, serial, signer, why) in [
        ("by_a_stranger", 6, Some("stranger"), "not its key's"),
        ("by_nobody", 6, None, "not signed"),
        ("from_before", 3, Some("platform"), "rollback: 3"),
    ] {
        server.offer(&workshop.bundle(&closed(code), serial, signer));
        eventually(why, || {
            let refused = bundle(&sidecar)["fetched"]["refused"]["why"].clone();
            refused.as_str().is_some_and(|said| said.contains(why)).then_some(())
        });
        refused_as(&sidecar, &token, "since_five");
    }
    server.offer(b"no archive at all");
    eventually("it to be refused", || {
        bundle(&sidecar)["fetched"]["refused"]["why"].as_str().is_some_and(|why| why.contains("gzip")).then_some(())
    });
    refused_as(&sidecar, &token, "since_five");
    assert!(sidecar.metrics().contains("countersign_policy_bundle_refused{bundle=\"support\"} 1"));
    assert!(sidecar.metrics().contains("countersign_policy_bundle_serial{bundle=\"support\"} 5"));
    assert_eq!(activated(&sidecar).len(), 2);
    // The next good one is taken, and what was refused is forgotten.
    server.offer(&workshop.bundle(&closed("since_eight"), 8, Some("platform")));
    refused_as(&sidecar, &token, "since_eight");
    assert_eq!(bundle(&sidecar)["fetched"]["refused"], Value::Null);
}

#[test]
fn a_lower_serial_is_taken_where_the_configuration_says_so_and_that_is_on_record() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    server.offer(&workshop.bundle(&closed("too_much"), 5, Some("platform")));
    let sidecar = setup(world, &workshop, &server, &json!({})).start();
    let token = world.openid.delegated("alice");
    refused_as(&sidecar, &token, "too_much");
    server.offer(&workshop.bundle("", 4, Some("platform")));
    let why =
        eventually("it to be refused", || bundle(&sidecar)["fetched"]["refused"]["why"].as_str().map(str::to_owned));
    assert!(why.contains("rollback: 4"), "{why}");
    put_config(&sidecar, |config| config["policy"][1]["bundle"]["rollback"] = json!(4));
    eventually("the way back", || (sidecar.get(ORDER, &token).send().status == 200).then_some(()));
    let records = activated(&sidecar);
    assert_eq!(records.last().unwrap()["bundles"][0]["rolled_back"], 5, "{records:?}");
}

#[test]
fn without_its_server_a_sidecar_starts_with_the_last_good_bundle_until_that_is_too_old() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    server.put("mode", b"away");
    let setup = setup(world, &workshop, &server, &json!({"max_age": "4s"}));
    let refused = setup.run();
    assert_eq!(refused.code, Some(69), "without any bundle nobody knows what it would deny: {}", refused.stderr);
    server.put("mode", b"redirect");
    let refused = setup.run();
    assert!(refused.stderr.contains("302"), "{}", refused.stderr);

    server.put("mode", b"");
    server.offer(&workshop.bundle(&closed("kept"), 5, Some("platform")));
    let mut sidecar = setup.start();
    let token = world.openid.delegated("alice");
    refused_as(&sidecar, &token, "kept");
    for name in ["support.tar.gz", "support.json"] {
        let kept = sidecar.directory().join("ledger-bundles").join(name);
        assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    sidecar.stop();
    server.put("mode", b"away");
    sidecar.restart();
    // The last one decides, and then nobody knows any more whether it should.
    eventually("it to be too old", || {
        let answer = sidecar.get(ORDER, &token).send();
        assert!(answer.text().contains("kept") || answer.text().contains("policy_stale"), "{}", answer.text());
        if answer.status != 503 {
            return None;
        }
        answer.refused(503, "policy_stale");
        Some(())
    });
    assert_eq!(bundle(&sidecar)["fetched"]["stale"], true);
    assert!(bundle(&sidecar)["fetched"]["last_error"].is_string());
    server.put("mode", b"");
    // It is asked ever more seldom, but at once by whoever knows that it is there again.
    sidecar.daemon.signal("HUP");
    refused_as(&sidecar, &token, "kept");
    // A lower serial is none after a restart either, and confirms nothing: on a busy machine the last one is too old by now.
    sidecar.stop();
    server.offer(&workshop.bundle("", 4, Some("platform")));
    sidecar.restart();
    eventually("it to be refused", || {
        let refused = bundle(&sidecar)["fetched"].clone();
        let said = [&refused["refused"]["why"], &refused["last_error"]].map(|why| why.as_str().unwrap_or_default());
        said.iter().any(|why| why.contains("rollback: 4")).then_some(())
    });
    let answer = sidecar.get(ORDER, &token).send();
    assert!(answer.text().contains("kept") || answer.text().contains("policy_stale"), "{}", answer.text());
    assert_eq!(bundle(&sidecar)["serial"], 5);
}

#[test]
fn a_bundle_whose_serial_was_noted_before_it_was_kept_is_taken_after_a_crash() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let earlier = workshop.bundle(&closed("since_four"), 4, Some("platform"));
    server.offer(&earlier);
    let mut sidecar = setup(world, &workshop, &server, &json!({})).start();
    let token = world.openid.delegated("alice");
    refused_as(&sidecar, &token, "since_four");
    server.offer(&workshop.bundle(&closed("since_five"), 5, Some("platform")));
    refused_as(&sidecar, &token, "since_five");
    sidecar.stop();
    // As it lies there where the end came between the two.
    let kept = sidecar.directory().join("ledger-bundles");
    fs::write(kept.join("support.tar.gz"), &earlier).unwrap();
    let mut note: Value = serde_json::from_slice(&fs::read(kept.join("support.json")).unwrap()).unwrap();
    assert_eq!(note["serial"], 5);
    note["etag"] = Value::Null;
    fs::write(kept.join("support.json"), note.to_string()).unwrap();
    server.put("mode", b"away");
    sidecar.restart();
    refused_as(&sidecar, &token, "since_four");
    // Neither the one that it is nor a running sidecar's own word makes another one of it.
    server.put("mode", b"");
    refused_as(&sidecar, &token, "since_five");
    assert_eq!(bundle(&sidecar)["fetched"]["refused"], Value::Null);
}

#[test]
fn a_key_that_signed_what_decides_is_not_taken_away_under_it() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    server.offer(&workshop.bundle(&closed("since_one"), 1, Some("platform")));
    let sidecar = setup(world, &workshop, &server, &json!({})).start();
    let token = world.openid.delegated("alice");
    refused_as(&sidecar, &token, "since_one");
    put_config(&sidecar, |config| {
        let keys = config["policy"][1]["keys"].as_object_mut().unwrap();
        let key = keys.remove("k").unwrap();
        keys.insert("other".to_owned(), key);
    });
    let why = not_reloaded(&sidecar);
    assert!(why.contains("no longer in `keys`"), "{why}");
    refused_as(&sidecar, &token, "since_one");
}

#[test]
fn settings_of_bundles_that_do_not_go_together_are_refused_by_name() {
    let workshop = Workshop::new();
    let check = |source: Value| {
        let path = workshop.path("countersign.yaml");
        let config = json!({
            "sidecar": {"name": "s", "audience": "urn:x", "tenants": ["acme"]},
            "listen": {"agent": {"tcp": "127.0.0.1:0", "bearer": "all"}},
            "issuers": [], "policy": [source], "ledger": {"dir": "ledger"}, "tools": {},
        });
        fs::write(&path, config.to_string()).unwrap();
        let ran = process::run(process::countersign().args(["config", "check", &path]));
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let keys = json!({"k": {"algorithm": "EdDSA", "file": "platform.pub.pem"}});
    let said = check(json!({"name": "org", "bundle": {"url": "https://bundles.example/x"}}));
    assert!(said.contains("has to be signed"), "{said}");
    let said = check(json!({"name": "org", "keys": keys, "bundle": {"url": "http://bundles.example/x"}}));
    assert!(said.contains("https"), "{said}");
    let fetched = || json!({"name": "org", "keys": keys, "bundle": {"url": "https://bundles.example/x"}});
    let public = workshop.path("platform.pub.pem");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o666)).unwrap();
    let said = check(fetched());
    assert!(said.contains("platform.pub.pem") && said.contains("changed by others"), "{said}");
    fs::remove_file(&public).unwrap();
    let said = check(fetched());
    assert!(said.contains("policy: ") && said.contains("platform.pub.pem"), "{said}");
    let said = check(json!({"name": "org"}));
    assert!(said.contains("`path` or `bundle`"), "{said}");
}
