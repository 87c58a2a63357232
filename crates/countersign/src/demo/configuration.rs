//! What the demo writes for Countersign to start from: the same files that a platform team would write.

use std::net::SocketAddr;

use serde_json::json;

use super::agent::Agent;
use super::files::{Files, filled};
use super::tokens::Agents;
use crate::failure::Failure;
use crate::reference::schema;

/// The sidecar's configuration.
pub(super) const SIDECAR: &str = "countersign.yaml";
/// The authority's configuration.
pub(super) const AUTHORITY: &str = "authority.yaml";

/// The key that the sidecar enrols with.
pub(super) const SIDECAR_KEY: &str = "enrolled/sidecar.pem";

const TEMPLATES: [(&str, &str); 2] =
    [(AUTHORITY, include_str!("template/authority.yaml")), ("store.yaml", include_str!("template/store.yaml"))];

/// The default policies, as they come with the product.
const POLICIES: [(&str, &str); 2] = [
    ("policies/org/org.rego", include_str!("../../../../policies/org/org.rego")),
    ("policies/support/orders.rego", include_str!("../../../../policies/orders/orders.rego")),
];

/// Where everything listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// The identity provider.
    pub(super) people: SocketAddr,
    /// The tool.
    pub(super) orders: SocketAddr,
    /// The authority.
    pub(super) authority: SocketAddr,
    /// The sidecar, for agents.
    pub(super) sidecar: SocketAddr,
    /// The sidecar's health.
    pub(super) health: SocketAddr,
}

impl Places {
    /// The base URL of one of them.
    pub(super) fn url(&self, address: SocketAddr) -> String {
        format!("http://{address}")
    }
}

/// Writes every file but the sidecar's, over those of an earlier run, but policies that are there.
pub(super) fn write(files: &Files, places: &Places, agents: &Agents, credential: &str) -> Result<(), Failure> {
    for (name, template) in TEMPLATES {
        fill(files, name, template, places, &[])?;
    }
    for (name, text) in POLICIES {
        // Kept over runs: to change a rule and see another step refused is what one does with a demo.
        if !files.path(name).exists() {
            files.write(name, text)?;
        }
    }
    for agent in [&agents.support, &agents.helper] {
        files.write(&format!("agents/{}.json", agent.id()), &public_keys(agent))?;
    }
    for (name, schema) in
        [("sidecar", schema::sidecar()), ("authority", schema::authority()), ("store", schema::store())]
    {
        files.write(&format!("schema/{name}.json"), &schema)?;
    }
    files.write("secrets/orders", credential)?;
    Ok(())
}

/// Writes the sidecar's file, which names it as the authority does: `id`.
pub(super) fn write_sidecar(files: &Files, places: &Places, id: &str) -> Result<(), Failure> {
    fill(files, SIDECAR, include_str!("template/countersign.yaml"), places, &[("sidecar", id)])
}

fn fill(files: &Files, name: &str, template: &str, places: &Places, more: &[(&str, &str)]) -> Result<(), Failure> {
    let values = [
        ("people", places.url(places.people)),
        ("orders", places.url(places.orders)),
        ("authority", places.url(places.authority)),
        ("authority_listen", places.authority.to_string()),
        ("sidecar_listen", places.sidecar.to_string()),
        ("health_listen", places.health.to_string()),
    ];
    let values: Vec<(&str, &str)> =
        values.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
    files.write(name, &filled(template, &values)?)?;
    Ok(())
}

fn public_keys(agent: &Agent) -> String {
    format!("{:#}\n", json!({"keys": [agent.public_key()]}))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::environment::Environment;
    use crate::run::{authority, findings::Findings, sidecar};

    fn holds(check: impl Fn(&Path, &Environment) -> Findings, path: &Path) {
        let environment = [("ORDERS_TOKEN", "secret")].into_iter().collect();
        let findings = check(path, &environment);
        assert!(findings.problems.is_empty(), "{}: {:?}", path.display(), findings.problems);
    }

    fn quickstart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart")
    }

    #[test]
    fn what_the_demo_writes_is_what_the_commands_accept() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::prepare(Some(folder.path()), Path::new("/nowhere")).unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let places = Places { people: at(1), orders: at(2), authority: at(3), sidecar: at(4), health: at(5) };
        write(&files, &places, &Agents::new().unwrap(), "secret").unwrap();
        write_sidecar(&files, &places, "sidecar-1").unwrap();
        std::fs::create_dir(files.path("enrolled")).unwrap();
        token::SigningKey::load_or_create(&files.path(SIDECAR_KEY), token::Algorithm::EdDsa).unwrap();
        holds(sidecar::check, &files.path(SIDECAR));
        holds(authority::check, &files.path(AUTHORITY));
    }

    #[test]
    fn a_policy_that_somebody_changed_is_kept_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::prepare(Some(folder.path()), Path::new("/nowhere")).unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let places = Places { people: at(1), orders: at(2), authority: at(3), sidecar: at(4), health: at(5) };
        let (rule, _) = POLICIES[0];
        files.write(rule, "package countersign.org\n").unwrap();
        write(&files, &places, &Agents::new().unwrap(), "secret").unwrap();
        assert_eq!(std::fs::read_to_string(files.path(rule)).unwrap(), "package countersign.org\n");
    }

    #[test]
    fn the_quickstart_is_what_the_commands_accept() {
        holds(sidecar::check, &quickstart().join("countersign.yaml"));
        holds(sidecar::check, &quickstart().join("with-authority/countersign.yaml"));
    }

    #[test]
    fn the_quickstarts_authority_holds_once_its_agent_has_a_key() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["authority.yaml", "store.yaml"] {
            std::fs::copy(quickstart().join("with-authority").join(name), folder.path().join(name)).unwrap();
        }
        let agent = Agent::new("support-v2").unwrap();
        std::fs::write(folder.path().join("support-v2.json"), public_keys(&agent)).unwrap();
        holds(authority::check, &folder.path().join("authority.yaml"));
    }
}
