//! What a reload takes, what it leaves, and what it says; the clock that asks for it aside.

use audit::query::{Filter, query};

use super::*;
use crate::{
    run::{
        sidecar::{Running, start},
        testing::{Folder, environment},
    },
    telemetry::Metrics,
};

const PATIENCE: Duration = Duration::from_secs(30);
const TEAM: &str = "policies/support/support.rego";

struct World {
    folder: Folder,
    running: Running,
    reloader: Reloader,
}

impl World {
    async fn start() -> Self {
        net::install_crypto();
        let folder = Folder::new(|config| config);
        let mut running = start(folder.document(), &environment(), Metrics::installed()).await.unwrap();
        let reloader = running.reloader.take().unwrap();
        Self { folder, running, reloader }
    }

    fn team(&self, rules: &str) {
        self.folder.write(TEAM, &format!("package countersign.teams.support\n\n{rules}\n"), 0o644);
    }

    fn change_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.folder.config()).unwrap();
        assert!(text.contains(from), "{from}");
        self.folder.write("countersign.yaml", &text.replacen(from, to, 1), 0o600);
    }

    fn policy(&self) -> String {
        self.reloader.parts.sidecar.snapshot().policy().revision().to_owned()
    }

    fn on_disk(&self) -> String {
        self.reloader.parts.standing.check().detail["on_disk"].as_str().unwrap().to_owned()
    }

    /// The activations on record, after the end.
    async fn activations(self) -> Vec<String> {
        let Self { running, folder, .. } = self;
        running.stop_within(PATIENCE).await;
        let kinds = query(&folder.path("ledger"), Filter::default()).unwrap().map(|entry| entry.unwrap().kind);
        kinds.filter(|kind| kind.ends_with(".activated")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_is_taken_and_recorded_once() {
    let mut world = World::start().await;
    let before = world.policy();
    world.reloader.look_again().await;
    assert_eq!(world.policy(), before, "nothing changed");
    world.team("allow contains {\"code\": \"all\"}");
    world.reloader.look_again().await;
    let after = world.policy();
    assert_ne!(after, before);
    world.reloader.look_again().await;
    assert_eq!((world.policy(), world.on_disk()), (after, "in_force".to_owned()));
    assert_eq!(Box::pin(world.activations()).await, ["config.activated", "policy.activated", "policy.activated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_leaves_everything_as_it_was_until_it_is_right() {
    let mut world = World::start().await;
    let before = world.reloader.parts.sidecar.snapshot();
    world.team("allow contains {");
    world.reloader.look_again().await;
    assert!(Arc::ptr_eq(&before, &world.reloader.parts.sidecar.snapshot()));
    assert_eq!(world.on_disk(), "refused");
    assert!(world.reloader.said.as_ref().unwrap().contains("support.rego:"), "{:?}", world.reloader.said);
    // A good configuration beside a bad policy is not taken by half.
    world.change_config("name: org, path", "name: org,  path");
    world.reloader.look_again().await;
    assert!(Arc::ptr_eq(&before, &world.reloader.parts.sidecar.snapshot()));
    world.team("allow contains {\"code\": \"all\"}");
    world.reloader.look_again().await;
    assert!(!Arc::ptr_eq(&before, &world.reloader.parts.sidecar.snapshot()));
    assert_eq!((world.on_disk().as_str(), &world.reloader.said), ("in_force", &None));
    let expected = ["config.activated", "policy.activated", "config.activated", "policy.activated"];
    assert_eq!(Box::pin(world.activations()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_wrong_and_is_again_as_it_was_is_nothing_new() {
    let mut world = World::start().await;
    let before = world.reloader.parts.sidecar.snapshot();
    let text = std::fs::read_to_string(world.folder.path(TEAM)).unwrap();
    world.team("allow contains {");
    world.reloader.look_again().await;
    assert_eq!(world.on_disk(), "refused");
    world.folder.write(TEAM, &text, 0o644);
    world.reloader.look_again().await;
    assert_eq!(world.on_disk(), "in_force");
    assert!(Arc::ptr_eq(&before, &world.reloader.parts.sidecar.snapshot()));
    assert_eq!(Box::pin(world.activations()).await, ["config.activated", "policy.activated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_moved_is_followed_even_from_a_configuration_that_was_refused() {
    let mut world = World::start().await;
    let before = world.policy();
    world.change_config("path: policies/support", "path: policies/next");
    world.reloader.look_again().await;
    assert_eq!(world.on_disk(), "refused");
    world.folder.write(
        "policies/next/a.rego",
        "package countersign.teams.support\n\nallow contains {\"code\": \"next\"}\n",
        0o644,
    );
    world.reloader.look_again().await;
    assert_eq!(world.on_disk(), "in_force");
    assert_ne!(world.policy(), before);
    world.running.stop_within(PATIENCE).await;
}

#[test]
fn what_is_part_of_the_open_process_is_named() {
    let config = |from: &str, to: &str| {
        let folder = Folder::new(|config| {
            assert!(config.contains(from), "{from}");
            config.replacen(from, to, 1)
        });
        folder.document().value
    };
    let before = config("sidecar", "sidecar");
    for (from, to, name) in [
        ("agent: { tcp: 127.0.0.1:0,", "agent: { tcp: 127.0.0.1:1,", "`listen.agent.tcp`"),
        ("bearer: all }", "bearer: all, max_headers: 7 }", "`listen.agent.max_headers`"),
        ("health: { tcp: 127.0.0.1:0", "health: { tcp: 127.0.0.1:1", "`listen.health`"),
        ("dir: ledger", "dir: elsewhere", "`ledger`"),
        ("name: support, audience", "name: other, audience", "`sidecar.name`"),
    ] {
        let said = needs_no_restart(&before, &config(from, to)).unwrap_err();
        assert!(said.contains(name) && said.contains("restart") && said.matches('`').count() == 2, "{said}");
    }
    for (from, to) in [
        ("bearer: all", "bearer: reads"),
        ("urn:example:countersign:support", "urn:example:other"),
        ("owner: dana", "owner: erin"),
        ("ledger: {", "tls: { authorities: a.pem }\nledger: {"),
        ("tenants: [acme] }\nlisten", "tenants: [acme, globex] }\nlisten"),
    ] {
        needs_no_restart(&before, &config(from, to)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_a_file_that_nobody_watches_is_taken_once_that_is_right() {
    let mut world = World::start().await;
    let before = world.reloader.parts.revision.clone();
    world.folder.write("secrets/orders", "secret\n", 0o644);
    world.change_config("owner: dana,", "owner: dana, status: suspended,");
    world.reloader.look_again().await;
    assert_eq!((world.on_disk(), &world.reloader.parts.revision), ("refused".to_owned(), &before));
    // Each time it is refused again, it is put off for longer, up to a bound, and something else is tried at once.
    for wait in [20, 40, 80, 160, 300, 300] {
        world.reloader.again = Some(net::clock::monotonic());
        world.reloader.look_again().await;
        assert_eq!(world.reloader.put_off, Duration::from_secs(wait));
    }
    world.change_config("owner: dana, status", "owner: erin, status");
    world.reloader.look_again().await;
    assert_eq!((world.on_disk(), world.reloader.put_off), ("refused".to_owned(), RETRY));
    world.folder.write("secrets/orders", "secret\n", 0o600);
    world.reloader.look_again().await;
    assert_eq!(world.reloader.parts.revision, before, "not before its time");
    world.reloader.again = Some(net::clock::monotonic());
    world.reloader.look_again().await;
    assert_eq!(world.on_disk(), "in_force");
    assert_ne!(world.reloader.parts.revision, before);
    assert_eq!(Box::pin(world.activations()).await, ["config.activated", "policy.activated", "config.activated"]);
}
