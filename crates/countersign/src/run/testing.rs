//! A sidecar's configuration in a folder of its own, of the published shape, for the tests of this module.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use token::{Algorithm, SigningKey};

use crate::{
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
};

/// The shape that the documentation promises (DESIGN §5.6), with ports that are free.
const CONFIG: &str = r#"
sidecar: { name: support, audience: "urn:example:countersign:support", tenants: [acme] }
listen:  { agent: { tcp: 127.0.0.1:0, bearer: all }, health: { tcp: 127.0.0.1:0 } }
issuers:
  - { issuer: https://countersign.example, role: delegation, tenants: [acme], keys: { file: keys.json } }
  - issuer: https://sso.example/realms/acme
    role: subject
    tenants: [acme]
    keys: { file: keys.json }
    claims: { id: sub, tenant: /acme/tenant, groups: /groups, session: sid }
    entitlements: { from: groups, map: { support: [orders.read, refunds.create] } }
agents:
  - { id: support-v2, issuer: https://countersign.example, owner: dana, actions: [orders.read, refunds.create], tenants: [acme] }
defaults: { stage: observe, sensitivity: high }
policy:
  - { name: org, path: policies/org }
  - { name: support, path: policies/support, for: [orders] }
ledger: { dir: ledger }
tools:
  orders:
    at: /orders
    upstream: https://${ORDERS_HOST}
    identity: service_account
    credential: { bearer: { file: secrets/orders } }
    facts: { order: { get: "/v1/orders/{order}", ttl: 10s, timeout: 200ms,
                      pick: { placed_by: { at: /customer/id, principal: https://sso.example/realms/acme } } } }
    actions:
      orders.read:    { match: "GET /v1/orders/{order}", effect: read, resource: "orders/{order}" }
      refunds.create:
        match: "POST /v1/orders/{order}/refunds"
        effect: write
        resource: "orders/{order}"
        facts: [order]
        parameters: { amount: { type: money, value: body:/amount, currency: body:/currency } }
        idempotency: header:Idempotency-Key
"#;

/// The authority that is followed, beside what makes it count.
const AUTHORITY: &str = r"
authority:
  url: https://countersign.example
  credential: { key: secrets/sidecar.pem, id: sidecar-1 }
  staleness: { read: 60s, write: 5s }
";

const ORG: &str = "package countersign.org\n\ndeny contains {\"code\": \"closed\"} if input.tenant == \"closed\"\n";
const TEAM: &str =
    "package countersign.teams.support\n\nallow contains {\"code\": \"reads\"} if input.action.effect == \"read\"\n";
/// The public key of RFC 7517 appendix A.1.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256",
  "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

pub(super) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    /// The configuration after `change`, with everything that it names.
    pub(super) fn new(change: impl FnOnce(String) -> String) -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap() };
        folder.write("countersign.yaml", &change(CONFIG.to_owned()), 0o600);
        folder.write("policies/org/org.rego", ORG, 0o644);
        folder.write("policies/support/support.rego", TEAM, 0o644);
        folder.write("keys.json", KEYS, 0o644);
        folder.write("secrets/orders", "secret\n", 0o600);
        folder
    }

    /// The same, of a sidecar that follows its authority.
    pub(super) fn following(change: impl FnOnce(String) -> String) -> Self {
        let folder = Self::new(|config| {
            let config = config.replacen("keys.json } }", "keys.json }, withdrawals: changes }", 1);
            change(format!("{}{config}", AUTHORITY.trim_start()))
        });
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        key.save(&folder.path("secrets/sidecar.pem")).unwrap();
        folder
    }

    pub(super) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("countersign.yaml")
    }

    pub(super) fn document(&self) -> Document<SidecarConfig> {
        Document::read(&self.config(), &environment()).unwrap()
    }
}

pub(super) fn environment() -> Environment {
    [("ORDERS_HOST", "orders.example")].into_iter().collect()
}

/// Whether any of `lines` has all of `words`.
pub(super) fn says(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

/// Every file below `directory`.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
