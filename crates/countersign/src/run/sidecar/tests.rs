//! The life of a sidecar: it serves once it is ready, and leaves a ledger that is whole.

use std::time::Duration;

use audit::query::{Filter, query};

use super::*;
use crate::{
    health::probe,
    reference::telemetry::METRICS,
    run::testing::{Folder, environment},
};

/// Longer than anything here takes: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(30);

async fn ask(address: SocketAddr, path: &'static str) -> probe::Answer {
    tokio::task::spawn_blocking(move || probe::ask(address, path)).await.unwrap().unwrap()
}

async fn until_ready(address: SocketAddr) -> probe::Answer {
    let waited = async {
        loop {
            let answer = ask(address, "/readyz").await;
            if answer.ok {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it never became ready")
}

fn kinds(folder: &Folder) -> Vec<String> {
    query(&folder.path("ledger"), Filter::default()).unwrap().map(|entry| entry.unwrap().kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_once_ready_and_leaves_a_whole_ledger() {
    net::install_crypto();
    let folder = Folder::new(|config| config);
    let running = start(folder.document(), &environment(), Metrics::installed()).await.unwrap();
    let ready = until_ready(running.health).await;
    assert!(ready.body.contains("\"ledger\":{\"ok\":true}") && ready.body.contains("https://countersign.example"));
    assert!(ask(running.health, "/livez").await.ok);
    let metrics = ask(running.health, "/metrics").await.body;
    assert!(metrics.contains("countersign_ledger_fsync_seconds_bucket{le=\"0.001\"}"), "{metrics}");
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(METRICS.iter().any(|(documented, _, _)| *documented == name), "{name} is not in the reference");
    }
    let LocalAddress::Tcp(agent) = running.agent else { panic!("{}", running.agent) };
    // Nothing but health is there, and the agents' listener is none.
    assert!(tokio::task::spawn_blocking(move || probe::ask(agent, "/readyz")).await.unwrap().is_err());
    running.stop_within(PATIENCE).await;
    let kinds = kinds(&folder);
    let expected = ["sidecar.started", "config.activated", "policy.activated", "refusals.summary", "sidecar.stopped"];
    assert_eq!(kinds, expected);
    audit::verify::verify(&folder.path("ledger"), &audit::verify::Options::default(), |_| ()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_twice_on_one_ledger() {
    net::install_crypto();
    let folder = Folder::new(|config| config);
    let first = start(folder.document(), &environment(), Metrics::installed()).await.unwrap();
    let failure = start(folder.document(), &environment(), Metrics::installed()).await.err().expect("it started twice");
    assert!(failure.to_string().contains("in use"), "{failure}");
    assert_eq!(failure.exit_code(), ExitCode::from(69));
    first.stop_within(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_with_a_secret_that_others_can_read_and_writes_no_ledger_then() {
    net::install_crypto();
    let folder = Folder::new(|config| config);
    folder.write("secrets/orders", "secret", 0o644);
    let failure = start(folder.document(), &environment(), Metrics::installed()).await.err().expect("it started");
    assert!(failure.to_string().contains("chmod 600") && !failure.to_string().contains("secret\""), "{failure}");
    assert_eq!(failure.exit_code(), ExitCode::from(78));
    assert!(!folder.path("ledger").exists());
}

#[test]
fn only_a_listener_on_loopback_has_its_url_as_audience() {
    let secured = audiences("urn:x", true, &LocalAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 8690))));
    assert!(secured.contains("https://localhost:8690") && !secured.contains("http://localhost:8690"));
    assert_eq!(audiences("urn:x", false, &LocalAddress::Unix("/agent.sock".into())).len(), 1);
    let audiences = |address: &str| audiences("urn:x", false, &LocalAddress::Tcp(address.parse().unwrap()));
    assert_eq!(audiences("127.0.0.1:8690").len(), 3);
    assert!(audiences("[::1]:8690").contains("http://[::1]:8690"));
    assert_eq!(audiences("10.0.0.1:8690"), ["urn:x".to_owned()].into());
}
