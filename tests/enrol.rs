//! Workloads with certificates of their own, over real TLS: a sidecar joins the authority by its SPIFFE ID, and an agent
//! is issued a token that is good with its certificate alone.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::{
    support::{
        Answer, Curl, World,
        authority::{Authority, Client, entitlements},
        eventually, free_port, mark,
        openid::{AUDIENCE, claims},
        process::{self, Daemon, Ran},
        sidecar::Setup,
        world,
    },
    tls::{Authority as Certificates, Identity},
};

const SIDECAR: &str = "spiffe://example.org/sidecar/edge";
const AGENT: &str = "spiffe://example.org/agent/support";

/// An authority behind TLS that asks clients for certificates.
struct Secured {
    _daemon: Daemon,
    issuer: String,
    folder: tempfile::TempDir,
    certificates: Certificates,
}

impl Secured {
    fn start(world: &World) -> Self {
        let agent = Client::new("support-v9");
        // What it is configured with, but for its name and its listener, is as everywhere.
        let usual = Authority::start(&world.openid, &[&agent]);
        let read = |name: &str| fs::read_to_string(usual.directory().join(name)).unwrap();
        let mut config: Value = serde_json::from_str(&read("authority.yaml")).unwrap();
        let mut store: Value = serde_json::from_str(&read("store.yaml")).unwrap();
        drop(usual);
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::new();
        certificates.sign(folder.path(), "listener", "listener");
        let port = free_port();
        let issuer = format!("https://127.0.0.1:{port}");
        config["authority"]["issuer"] = json!(issuer);
        config["authority"]["enrolment"] = json!({"spiffe": {SIDECAR: {"tenants": ["acme"], "tools": ["orders"]}}});
        config["listen"] = json!({
            "tcp": format!("127.0.0.1:{port}"),
            "tls": {
                "certificate": "listener.pem", "key": {"file": "listener-key.pem"}, "client": "accept",
                "trust_domains": {"example.org": "authority.pem"},
            },
        });
        store["agents"][0]["credentials"] = json!([{"spiffe": AGENT}]);
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("authority.pem", certificates.pem.clone());
        write("authority.yaml", config.to_string());
        write("store.yaml", store.to_string());
        let mut command = process::countersign();
        command.arg("authority").arg("--config").arg(folder.path().join("authority.yaml"));
        let mut daemon = Daemon::start(&mut command, &folder.path().join("authority.log"));
        let secured = |path: &str| trusted(Curl::get(format!("{issuer}{path}")), folder.path());
        eventually("the authority to be ready", || {
            assert!(daemon.ended().is_none(), "{}", daemon.output());
            secured("/readyz").attempt().ok().filter(|answer| answer.status == 200)
        });
        Self { _daemon: daemon, issuer, folder, certificates }
    }

    fn get(&self, path: &str) -> Answer {
        trusted(Curl::get(format!("{}{path}", self.issuer)), self.folder.path()).send()
    }

    fn enrol(&self, identity: &Identity, dir: &str) -> Ran {
        let mut command = process::countersign();
        command.args(["sidecar", "enrol", "--name", "edge", "--json", "--authority", &self.issuer]);
        command.arg("--authorities").arg(self.folder.path().join("authority.pem"));
        command.arg("--certificate").arg(&identity.certificate).arg("--certificate-key").arg(&identity.key);
        process::run(command.arg("--dir").arg(self.folder.path().join(dir)))
    }

    /// alice's token, exchanged over a connection with this certificate.
    fn exchange(&self, world: &World, identity: Option<&Identity>) -> Answer {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", &world.openid.user("alice")),
            ("client_id", "support-v9"),
            ("task_id", "ticket-1"),
            ("audience", AUDIENCE),
        ];
        let body = fields.map(|(name, value)| format!("{name}={value}")).join("&");
        let url = format!("{}/oauth2/token", self.issuer);
        let curl = Curl::post(url, "application/x-www-form-urlencoded", body);
        shown(trusted(curl, self.folder.path()), identity).send()
    }
}

fn trusted(curl: Curl, folder: &Path) -> Curl {
    curl.argument("--cacert").argument(folder.join("authority.pem").to_str().unwrap())
}

fn shown(curl: Curl, identity: Option<&Identity>) -> Curl {
    let Some(Identity { certificate, key, .. }) = identity else { return curl };
    curl.argument("--cert").argument(certificate.to_str().unwrap()).argument("--key").argument(key.to_str().unwrap())
}

#[test]
fn a_workload_joins_by_its_svid_and_an_agents_token_is_good_with_its_certificate_alone() {
    let Some(world) = world() else { return };
    let secured = Secured::start(world);
    let folder = secured.folder.path();
    let sign = |file: &str, name: &str| secured.certificates.sign(folder, file, name);
    let metadata = secured.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["private_key_jwt", "tls_client_auth"]));
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);

    // Who may join is who is listed, by a certificate of their own trust domain.
    let edge = sign("edge", SIDECAR);
    let enrolled = secured.enrol(&edge, "enrolled").lines().remove(0);
    assert_eq!(enrolled["serves"]["tools"], json!(["orders"]), "{enrolled}");
    assert_eq!(secured.enrol(&edge, "enrolled").lines().remove(0)["id"], enrolled["id"]);
    let strangers = [
        ("not listed", sign("other", "spiffe://example.org/sidecar/other")),
        ("another's name", sign("agent-as-sidecar", AGENT)),
        ("no workload", sign("subject", "edge")),
        ("signed by others", Certificates::new().sign(folder, "forged", SIDECAR)),
        ("of another trust domain", sign("foreign", "spiffe://elsewhere.org/sidecar/edge")),
    ];
    for (why, identity) in &strangers {
        assert_ne!(secured.enrol(identity, &mark()).code, Some(0), "{why}");
    }

    let support = sign("support", AGENT);
    let issued = secured.exchange(world, Some(&support));
    issued.went(200);
    let token = issued.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(claims(&token)["cnf"], json!({"x5t#S256": support.thumbprint}));
    for (why, identity) in [("another workload", Some(&edge)), ("nobody", None)] {
        assert_eq!(secured.exchange(world, identity).status, 401, "{why}");
    }

    // At a sidecar that follows with the key it joined with.
    let setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["authority"] =
            json!({"url": secured.issuer, "credential": {"key": enrolled["key"], "id": enrolled["id"]}});
        // The tool's, and the authority's.
        let usual = fs::read_to_string(config["tls"]["authorities"].as_str().unwrap()).unwrap();
        fs::write(folder.join("both.pem"), usual + &secured.certificates.pem).unwrap();
        config["tls"]["authorities"] = json!(folder.join("both.pem"));
        config["issuers"] = json!([
            {"issuer": secured.issuer, "role": "delegation", "tenants": ["acme"], "withdrawals": "changes"},
            {"issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"}, "entitlements": entitlements()},
        ]);
        let actions = ["orders.read", "orders.list", "refunds.create"];
        config["agents"] = json!([{"id": "support-v9", "issuer": secured.issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}]);
        config["listen"]["agent"] = json!({
            "tcp": format!("127.0.0.1:{}", free_port()),
            "tls": {
                "certificate": "listener.pem", "key": {"file": "listener-key.pem"}, "client": "accept",
                "trust_domains": {"example.org": "authority.pem"},
            },
            "bearer": "refuse",
        });
    });
    for name in ["authority.pem", "listener.pem", "listener-key.pem"] {
        setup.write_secret(name, &fs::read_to_string(folder.join(name)).unwrap());
    }
    let sidecar = setup.start();
    let read = |identity: Option<&Identity>| {
        let curl = Curl::get(format!("https://127.0.0.1:{}/orders/v1/orders/17", sidecar.port())).bearer(&token);
        shown(trusted(curl, folder), identity).send()
    };
    eventually("the sidecar to have heard of the authority", || (read(Some(&support)).status == 200).then_some(()));
    for stolen in [Some(&edge), None] {
        read(stolen).refused(401, "wrong_sender");
    }
}
