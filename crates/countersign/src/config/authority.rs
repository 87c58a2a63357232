//! The authority's configuration: who it is, where it listens, whose users it believes and where it records.

use std::{net::SocketAddr, path::Path};

use audit::LedgerConfig;
use authority::config::{AuthorityConfig as AuthoritySection, DatabaseConfig};
use net::ServerTlsConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use token::IssuerConfig;

use super::{
    alerts::AlertsSection,
    files,
    sidecar::{HealthListener, ShutdownSection, TlsSection},
};

/// The configuration of the authority. Text may name environment variables as `${NAME}`; `$$` is a dollar sign. Paths
/// are relative to the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Countersign authority")]
pub(crate) struct AuthorityConfig {
    /// Who it is, what it signs with and whom it issues for.
    pub(crate) authority: AuthoritySection,
    /// Where it listens.
    #[serde(default)]
    pub(crate) listen: ListenSection,
    /// The identity providers whose users' tokens may be exchanged (`role: subject`).
    pub(crate) issuers: Vec<IssuerConfig>,
    /// Where issued tokens are recorded.
    pub(crate) ledger: LedgerConfig,
    /// Who is told of alerts.
    #[serde(default)]
    pub(crate) alerts: AlertsSection,
    /// Whom the authority believes at the other end of a TLS connection.
    #[serde(default)]
    pub(crate) tls: TlsSection,
    /// How the authority ends.
    #[serde(default)]
    pub(crate) shutdown: ShutdownSection,
}

/// Where the authority listens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListenSection {
    /// The address of everything it serves, `/livez` and `/readyz` included.
    pub(crate) tcp: SocketAddr,
    /// How that address speaks TLS. Without it, HTTP in clear text.
    pub(crate) tls: Option<ServerTlsConfig>,
    /// A second address for probes and metrics alone. Without it there is no `/metrics`.
    pub(crate) health: Option<HealthListener>,
}

impl Default for ListenSection {
    fn default() -> Self {
        Self { tcp: SocketAddr::from(([127, 0, 0, 1], 8693)), tls: None, health: None }
    }
}

impl AuthorityConfig {
    /// Takes every relative path from `base`, the directory of the file.
    pub(crate) fn place(&mut self, base: &Path) {
        for issuer in &mut self.issuers {
            files::place_keys(base, &mut issuer.keys);
        }
        let health = self.listen.health.as_mut().and_then(|health| health.tls.as_mut());
        for tls in self.listen.tls.iter_mut().chain(health) {
            tls.place(base);
        }
        if let Some(webhook) = &mut self.alerts.webhook {
            files::place_secret(base, &mut webhook.secret);
        }
        if let Some(path) = &mut self.tls.authorities {
            files::place(base, path);
        }
        files::place(base, &mut self.authority.keys.dir);
        if let Some(dir) = &mut self.authority.shipped.dir {
            files::place(base, dir);
        }
        for source in &mut self.authority.policy {
            source.place(base);
        }
        for cluster in &mut self.authority.enrolment.kubernetes {
            files::place_keys(base, &mut cluster.keys);
        }
        for transmitter in &mut self.authority.events {
            let (keys, secrets) = transmitter.files();
            files::place_keys(base, keys);
            secrets.for_each(|path| files::place(base, path));
        }
        if let Some(path) = &mut self.authority.store {
            files::place(base, path);
        }
        match &mut self.authority.database {
            Some(DatabaseConfig::Sqlite(path)) => files::place(base, path),
            Some(DatabaseConfig::Postgres(server)) => files::place_secret(base, &mut server.url),
            None => {}
        }
        files::place_ledger(base, &mut self.ledger);
    }
}
