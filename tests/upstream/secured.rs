//! TLS towards the tool: whom the sidecar believes, whom it shows itself as, and what it says where that fails.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::support::{Answer, Sidecar, World, eventually, mark, process, sidecar::Setup, tool::Tool, world};

const PATH: &str = "/orders/v1/echo/x";

/// Signs client certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key, both in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params(name).signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Puts a private file in place at once, as a deployment does.
fn put(directory: &Path, name: &str, text: &str) {
    let (next, path) = (directory.join("next"), directory.join(name));
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

/// Whom the tool saw at the other end of the call's connection.
fn peer(sidecar: &Sidecar, tool: &Tool, token: &str) -> Value {
    let mark = mark();
    sidecar.get(PATH, token).header("X-Mark", &mark).send().went(200);
    tool.marked(&mark)[0]["peer"].clone()
}

#[test]
fn a_tool_whose_certificate_is_not_right_gets_nothing_and_only_the_operator_learns_why() {
    let Some(world) = world() else { return };
    for (kind, why) in [
        ("expired", "expired"),
        ("other-name", "not valid for name"),
        ("self-signed", "issuer"),
        ("unknown", "certificate"),
    ] {
        let Some(tool) = Tool::secured(&["--certificate", kind]) else { return };
        let sidecar = Setup::new(&world.openid, &tool).start();
        let refused = sidecar.get(PATH, &world.probe()).send();
        refused.refused(502, "tool_unreachable");
        assert_eq!(refused.json()["sent"], false, "{kind}");
        for hidden in ["certificate", "expired", "issuer", "localhost", "Issuer"] {
            assert!(!refused.text().contains(hidden), "{kind}: the agent learns {hidden}: {}", refused.text());
        }
        let said = sidecar.daemon.output();
        let line = said.lines().find(|line| line.contains(&refused.decision_id()));
        let line = line.unwrap_or_else(|| panic!("{kind}: nothing said of it: {said}"));
        let line = line.to_lowercase();
        assert!(line.contains("invalid peer certificate") && line.contains(why), "{kind}: {line}");
        let settled = sidecar.settled(&refused.decision_id());
        assert_eq!((&settled["outcome"], &settled["sent"]), (&json!("tool_unreachable"), &json!(false)), "{settled}");
        // Facts are read over the same connections, and are refused for the same reason.
        let body = r#"{"amount":"20.00","currency":"USD"}"#;
        let refund = sidecar.refund("17", &world.openid.delegated("alice"), body).send();
        refund.refused(503, "facts_unavailable");
        assert_eq!(tool.requests(), Vec::<Value>::new(), "{kind}");
    }
}

#[test]
fn a_tool_may_have_authorities_of_its_own() {
    let Some(world) = world() else { return };
    // Nobody else's are believed for it.
    let wrong = Authority::new("wrong");
    let setup = |general: &str, own: &str| {
        let setup = Setup::new(&world.openid, &world.tool).with(|config| {
            config["tls"] = json!({"authorities": general});
            config["tools"]["orders"]["tls"] = json!({"authorities": own});
        });
        put(setup.directory(), "wrong.pem", &wrong.pem);
        setup.start()
    };
    let right = world.tool.certificate_authority().unwrap();
    setup("wrong.pem", right).get(PATH, &world.probe()).send().went(200);
    setup(right, "wrong.pem").get(PATH, &world.probe()).send().refused(502, "tool_unreachable");
}

#[test]
fn facts_are_not_read_by_the_word_of_an_authority_that_is_no_longer_believed() {
    let Some(world) = world() else { return };
    let setup = Setup::new(&world.openid, &world.tool);
    let right = fs::read_to_string(world.tool.certificate_authority().unwrap()).unwrap();
    put(setup.directory(), "authorities.pem", &right);
    let sidecar = setup.with(|config| config["tls"]["authorities"] = json!("authorities.pem")).start();
    let refund = || {
        let body = r#"{"amount":"20.00","currency":"USD"}"#;
        sidecar.refund("17", &world.openid.delegated("alice"), body).send()
    };
    refund().went(201);
    put(sidecar.directory(), "authorities.pem", &Authority::new("another").pem);
    // Not by a connection that is open, nor by an answer that was kept.
    let gone = |answer: &Answer| answer.status == 503;
    let refused = eventually("the authority to be gone", || Some(refund()).filter(gone));
    refused.refused(503, "facts_unavailable");
    put(sidecar.directory(), "authorities.pem", &right);
    eventually("the authority to be back", || (refund().status == 201).then_some(()));
}

/// A tool that serves nobody without a client certificate of `clients`, and a sidecar that has one.
fn mutual(world: &World, clients: &Authority, name: &str) -> Option<(Tool, Sidecar)> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clients.pem");
    fs::write(&file, &clients.pem).unwrap();
    let tool = Tool::secured(&["--client-ca", file.to_str().unwrap()])?;
    let setup = Setup::new(&world.openid, &tool).with(|config| {
        config["tools"]["orders"]["tls"] = json!({"certificate": "client.pem", "key": {"file": "client-key.pem"}});
    });
    let (certificate, key) = clients.sign(name);
    put(setup.directory(), "client.pem", &certificate);
    put(setup.directory(), "client-key.pem", &key);
    let sidecar = setup.start();
    Some((tool, sidecar))
}

#[test]
fn a_client_certificate_is_shown_to_the_tool_and_the_new_one_once_it_changes() {
    let Some(world) = world() else { return };
    let clients = Authority::new("clients");
    let Some((tool, sidecar)) = mutual(world, &clients, "countersign-1") else { return };
    let token = world.probe();
    assert_eq!(peer(&sidecar, &tool, &token), "countersign-1");
    // Facts are read under the same name.
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    sidecar.refund("17", &world.openid.delegated("alice"), body).send().went(201);
    assert!(tool.requests().iter().all(|request| request["peer"] == "countersign-1"));

    let metrics = sidecar.metrics();
    let ends = "countersign_credential_expiry_timestamp_seconds{kind=\"tool_orders\"}";
    assert!(metrics.contains(ends), "{metrics}");

    // What cannot be used changes nothing but the log.
    put(sidecar.directory(), "client.pem", "not a certificate");
    eventually("the broken file to be noticed", || {
        assert_eq!(peer(&sidecar, &tool, &token), "countersign-1");
        sidecar.daemon.output().contains("the last ones stay").then_some(())
    });
    // Certificate first: for a moment the two do not go together, and no call fails for that.
    let (certificate, key) = clients.sign("countersign-2");
    put(sidecar.directory(), "client.pem", &certificate);
    assert_eq!(peer(&sidecar, &tool, &token), "countersign-1");
    put(sidecar.directory(), "client-key.pem", &key);
    eventually("the new certificate to be shown", || (peer(&sidecar, &tool, &token) == "countersign-2").then_some(()));
    // Not one more call goes over what the old one opened.
    for _ in 0..5 {
        assert_eq!(peer(&sidecar, &tool, &token), "countersign-2");
    }
    assert!(!sidecar.daemon.output().contains("PRIVATE KEY"));
}

#[test]
fn a_tool_that_does_not_believe_our_certificate_gets_nothing() {
    let Some(world) = world() else { return };
    let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
    let Some((tool, sidecar)) = mutual(world, &clients, "countersign") else { return };
    let (certificate, key) = strangers.sign("countersign");
    assert_eq!(peer(&sidecar, &tool, &world.probe()), "countersign");
    put(sidecar.directory(), "client.pem", &certificate);
    put(sidecar.directory(), "client-key.pem", &key);
    let refused = eventually("the stranger to be refused", || {
        Some(sidecar.get(PATH, &world.probe()).send()).filter(|answer| answer.status != 200)
    });
    refused.refused(502, "tool_unreachable");
}

#[test]
fn a_tools_tls_settings_that_cannot_work_are_refused_with_what_to_change() {
    let Some(world) = world() else { return };
    let refused = |tls: Value, change: &dyn Fn(&mut Setup)| {
        let mut setup = Setup::new(&world.openid, &world.tool);
        setup.config["tools"]["orders"]["tls"] = tls;
        let (certificate, key) = Authority::new("clients").sign("countersign");
        put(setup.directory(), "client.pem", &certificate);
        put(setup.directory(), "client-key.pem", &key);
        change(&mut setup);
        let path = setup.write();
        let ran = process::run(process::countersign().args(["config", "check"]).arg(path));
        assert_eq!(ran.code, Some(78), "{}{}", ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let usual = json!({"certificate": "client.pem", "key": {"file": "client-key.pem"}});
    let nothing = |_: &mut Setup| {};
    let open = refused(usual.clone(), &|setup| {
        let key = setup.directory().join("client-key.pem");
        fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    });
    assert!(open.contains("client-key.pem") && open.contains("chmod 600"), "{open}");
    let half = refused(json!({"certificate": "client.pem"}), &nothing);
    assert!(half.contains("tools.orders.tls") && half.contains("go together"), "{half}");
    let missing = refused(json!({"authorities": "none.pem"}), &nothing);
    assert!(missing.contains("tools.orders.tls") && missing.contains("none.pem"), "{missing}");
    let clear = refused(usual.clone(), &|setup| {
        setup.config["tools"]["orders"]["upstream"] = json!("http://127.0.0.1:1");
    });
    assert!(clear.contains("tools.orders.tls: the upstream is not https"), "{clear}");
    let known = refused(Value::Null, &|setup| setup.config["tools"]["orders"]["http2"] = json!("prior_knowledge"));
    assert!(known.contains("tools.orders.http2: `prior_knowledge` is for an upstream over plain http"), "{known}");
    let writable = refused(usual, &|setup| {
        let certificate = setup.directory().join("client.pem");
        fs::set_permissions(certificate, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    });
    assert!(writable.contains("client.pem"), "{writable}");
}
