//! TLS on the other listeners, health's and the authority's; that their certificates change without a connection being
//! dropped; and that a metric says when certificates end, before they do.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{Authority, Identity, listener, text};
use crate::support::{
    Curl, eventually, free_port,
    openid::AUDIENCE,
    process::{self, Daemon},
    sidecar::Setup,
    world,
};

fn tls(name: &str) -> Value {
    json!({"certificate": format!("{name}.pem"), "key": {"file": format!("{name}-key.pem")}})
}

/// `curl` of a listener that is believed by the authority in `trusted.pem`.
fn curl(directory: &Path, port: u64, path: &str) -> Curl {
    let url = format!("https://127.0.0.1:{port}{path}");
    Curl::get(url).argument("--cacert").argument(text(&directory.join("trusted.pem")))
}

/// Whose certificate it shows.
fn shown(directory: &Path, port: u64, path: &str) -> String {
    let call = curl(directory, port, path).argument("--output").argument("/dev/null");
    let output = call.argument("--write-out").argument("%{certs}").command().output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Puts `new` in the place of `old` while one connection is used again and again: it is never dropped, and new ones
/// see the new certificate.
fn changes_under_use(directory: &Path, port: u64, path: &str, old: &Identity, new: &Identity) {
    let url = format!("https://127.0.0.1:{port}{path}");
    let busy = (1..200).fold(curl(directory, port, path), |curl, _| curl.argument(&url));
    let busy = busy
        .argument("--rate")
        .argument("8/s")
        .argument("--write-out")
        .argument("%{stderr}%{http_code} %{num_connects}\\n");
    let mut busy = busy.command().spawn().unwrap();
    // Nobody reads what it answers.
    let mut stdout = busy.stdout.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let mut lines = BufReader::new(busy.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "200 1");
    assert!(shown(directory, port, path).contains("CN = first"));
    std::fs::rename(&new.key, &old.key).unwrap();
    std::fs::rename(&new.certificate, &old.certificate).unwrap();
    eventually("the new certificate", || shown(directory, port, path).contains("CN = second").then_some(()));
    for _ in 0..8 {
        assert_eq!(lines.next().unwrap(), "200 0", "the same connection");
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
}

/// The value of `countersign_credential_expiry_timestamp_seconds` for `kind`.
fn expiry(metrics: &str, kind: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| {
        line.starts_with("countersign_credential_expiry_timestamp_seconds{")
            && line.contains(&format!("kind=\"{kind}\""))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn health_speaks_tls_and_says_when_certificates_end() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    let directory = setup.directory().to_owned();
    let authority = Authority::new();
    setup.write_secret("trusted.pem", &authority.pem);
    setup.write_secret("authority.pem", &authority.pem);
    let (soon, later) =
        (SystemTime::now() + Duration::from_secs(3600), SystemTime::now() + Duration::from_secs(86_400));
    authority.sign(&directory, "listener", "listener");
    let first = authority.sign_until(&directory, "health", "first", Some(soon));
    let second = authority.sign_until(&directory, "second", "second", Some(later));
    setup.config["listen"]["agent"] = listener("accept");
    setup.config["listen"]["agent"]["bearer"] = json!("all");
    let port = free_port();
    setup.config["listen"]["health"] = json!({"tcp": format!("127.0.0.1:{port}"), "tls": tls("health")});
    let sidecar = setup.start_unready();
    let port = u64::from(port);
    eventually("the sidecar to be ready", || {
        curl(&directory, port, "/readyz").attempt().ok().filter(|answer| answer.status == 200)
    });
    assert!(Curl::get(format!("http://127.0.0.1:{port}/livez")).attempt().is_err(), "not in clear text");

    let metrics = || curl(&directory, port, "/metrics").send().text();
    let before = metrics();
    assert_eq!(expiry(&before, "health_listener"), Some(seconds(soon)), "{before}");
    for kind in ["agent_listener", "agent_listener_clients"] {
        assert!(expiry(&before, kind).is_some_and(|end| end > seconds(later)), "{kind}: {before}");
    }
    changes_under_use(&directory, port, "/livez", &first, &second);
    assert_eq!(expiry(&metrics(), "health_listener"), Some(seconds(later)));

    let probe = |more: &[&str]| {
        let address = format!("127.0.0.1:{port}");
        process::run(process::countersign().args(["health", "--address", &address]).args(more))
    };
    let trusted = directory.join("trusted.pem");
    assert_eq!(probe(&["--authorities", text(&trusted)]).code, Some(0));
    assert_eq!(probe(&[]).code, Some(69), "no clear text");
    let strange = Authority::new();
    std::fs::write(directory.join("strange.pem"), &strange.pem).unwrap();
    assert_eq!(probe(&["--authorities", text(&directory.join("strange.pem"))]).code, Some(69), "somebody else's");
    drop(sidecar);
}

#[test]
fn the_authority_speaks_tls_and_changes_its_certificate_without_dropping_a_connection() {
    let Some(world) = world() else { return };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let authority = Authority::new();
    std::fs::write(directory.join("trusted.pem"), &authority.pem).unwrap();
    let first = authority.sign(directory, "listener", "first");
    let second = authority.sign(directory, "second", "second");
    let (port, health) = (free_port(), free_port());
    let config = json!({
        "authority": {
            "issuer": format!("https://127.0.0.1:{port}"),
            "keys": {"dir": "keys"},
            "sidecars": [{"audience": AUDIENCE}],
            "subject_audiences": [AUDIENCE],
            "store": "store.yaml",
        },
        "listen": {
            "tcp": format!("127.0.0.1:{port}"),
            "tls": tls("listener"),
            "health": {"tcp": format!("127.0.0.1:{health}"), "tls": tls("listener")},
        },
        "issuers": [{
            "issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"},
        }],
        "ledger": {"dir": "ledger"},
    });
    super::private(directory.join("store.yaml"), r#"{"agents": [], "grants": [], "tasks": []}"#);
    let path = super::private(directory.join("authority.yaml"), &config.to_string());
    let mut command = process::countersign();
    let mut daemon =
        Daemon::start(command.arg("authority").arg("--config").arg(path), &directory.join("authority.log"));
    let (port, health) = (u64::from(port), u64::from(health));
    eventually("the authority to be ready", || {
        assert!(daemon.ended().is_none(), "{}", daemon.output());
        curl(directory, port, "/readyz").attempt().ok().filter(|answer| answer.status == 200)
    });
    let keys = curl(directory, port, "/jwks.json").send();
    keys.went(200);
    assert!(Curl::get(format!("http://127.0.0.1:{port}/jwks.json")).attempt().is_err(), "not in clear text");
    let metrics = curl(directory, health, "/metrics").send().text();
    assert!(expiry(&metrics, "authority_listener").is_some(), "{metrics}");
    changes_under_use(directory, port, "/jwks.json", &first, &second);
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", daemon.output());
}
