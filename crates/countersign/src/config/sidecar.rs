//! The sidecar's configuration: who it is, where it listens, whom it believes, what it lets through and where that
//! is recorded (DESIGN §5.6).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use audit::LedgerConfig;
use model::{Agent, Id, Tenant, Tool, duration::ConfigDuration};
use net::ServerTlsConfig;
use policy::{PolicySource, catalogue::CatalogueSource};
use proxy::config::{AgentListenerConfig, PeerShare, ToolConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use token::{IssuerConfig, verifier::Defaults};

use super::{
    alerts::{AlertsSection, WebhookConfig},
    files,
};

/// The configuration of a sidecar. Text may name environment variables as `${NAME}`; `$$` is a dollar sign. Paths are
/// relative to the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Countersign sidecar")]
pub(crate) struct SidecarConfig {
    /// Who this sidecar is.
    pub(crate) sidecar: SidecarSection,
    /// Where it listens.
    pub(crate) listen: ListenSection,
    /// The authority that the sidecar follows: what is withdrawn there is refused here. Without it, what a token allows
    /// holds until the token ends.
    #[serde(default)]
    pub(crate) authority: Option<FollowedAuthority>,
    /// Whose tokens are accepted, and what each may say in them.
    pub(crate) issuers: Vec<IssuerConfig>,
    /// The registered agents. An agent that is not listed may not act.
    #[serde(default)]
    pub(crate) agents: Vec<Agent>,
    /// What is taken for granted where a token does not say.
    #[serde(default)]
    pub(crate) defaults: Defaults,
    /// Where policy comes from.
    pub(crate) policy: Vec<PolicySource>,
    /// Where the actions of tools come from that do not stand in `tools`.
    #[serde(default)]
    pub(crate) catalogue: Vec<CatalogueSource>,
    /// Where decisions are recorded.
    pub(crate) ledger: LedgerConfig,
    /// The tools, by name, with everything that agents may do there, or where `catalogue` says that.
    pub(crate) tools: BTreeMap<Id<Tool>, ToolConfig>,
    /// Who is told of alerts.
    #[serde(default)]
    pub(crate) alerts: AlertsSection,
    /// Who is told of calls where policy obliges to it (`notify`), by the name of the channel. `alerts` is always there, and
    /// is where alerts go. A change needs a restart.
    #[serde(default)]
    pub(crate) notices: BTreeMap<String, WebhookConfig>,
    /// Whom the sidecar believes at the other end of a TLS connection.
    #[serde(default)]
    pub(crate) tls: TlsSection,
    /// How the sidecar ends.
    #[serde(default)]
    pub(crate) shutdown: ShutdownSection,
}

/// Who a sidecar is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SidecarSection {
    /// Its name in records and logs.
    pub(crate) name: String,
    /// The logical audience of the tokens that are for it: `urn:example:countersign:support`. The URL of the agent
    /// listener, where that is on loopback, is another name for it.
    pub(crate) audience: String,
    /// The tenants it serves.
    pub(crate) tenants: BTreeSet<Id<Tenant>>,
    /// The users (by number) that agents on this machine run as. Started as one of them, the sidecar refuses: they could
    /// read everything it keeps.
    #[serde(default)]
    pub(crate) agent_uids: BTreeSet<u32>,
}

/// Where a sidecar listens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenSection {
    /// For agents.
    pub(crate) agent: AgentListenerConfig,
    /// For probes and metrics.
    #[serde(default = "HealthListener::sidecar")]
    pub(crate) health: HealthListener,
    /// For the operator: the state of everything, to the sidecar's own user and root. Without it, `admin.sock` beside
    /// the ledger's directory, where a socket can be made there.
    #[serde(default)]
    pub(crate) admin: Option<AdminListener>,
}

/// The operator's socket: `/status`. Its file has mode 0600.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminListener {
    /// The path of the Unix socket, for example `/run/countersign/admin.sock`. Removed at the end.
    pub(crate) unix: PathBuf,
}

/// The listener of `/livez`, `/readyz` and `/metrics`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthListener {
    /// The address to listen on.
    pub(crate) tcp: SocketAddr,
    /// How the address speaks TLS. Without it, HTTP in clear text.
    #[serde(default)]
    pub(crate) tls: Option<ServerTlsConfig>,
}

impl HealthListener {
    fn sidecar() -> Self {
        Self { tcp: SocketAddr::from(([127, 0, 0, 1], 8692)), tls: None }
    }
}

/// The authority that a sidecar follows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowedAuthority {
    /// Its URL, which is also its name as an issuer.
    pub(crate) url: String,
    /// What the sidecar proves with who it is. `countersign sidecar enrol` makes it.
    pub(crate) credential: SidecarCredential,
    /// How old the sidecar's view of it may be. With an older one, calls are refused `authority_stale`. Tokens of issuers
    /// with `withdrawals: none` may themselves be no older than this.
    #[serde(default)]
    pub(crate) staleness: StalenessSection,
    /// How cumulative limits are shared with other sidecars. A change needs a restart.
    #[serde(default)]
    pub(crate) limits: LimitsSection,
}

/// How an enrolled sidecar proves to the authority who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SidecarCredential {
    /// The file of its private key (PKCS#8, PEM), which nobody else may read.
    pub(crate) key: PathBuf,
    /// Its id at the authority.
    pub(crate) id: Id<SidecarSection>,
}

/// How old the view of the authority may be, by what a call does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StalenessSection {
    /// For reads.
    pub(crate) read: ConfigDuration,
    /// For drafts and writes.
    pub(crate) write: ConfigDuration,
}

/// How slices of cumulative limits are leased from the authority.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    /// How much is leased at a time beyond what a call needs, in percent of the limit. More means fewer questions, and
    /// more of the limit that other sidecars cannot use meanwhile, or nobody when this one is killed.
    pub(crate) slice: PeerShare,
    /// How long a slice is used without asking again; what is left of it then is given back. At most `5m`.
    pub(crate) lease: ConfigDuration,
    /// How long a call waits for the authority when its slice is spent, before it is refused `limit_unavailable`.
    pub(crate) timeout: ConfigDuration,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self { slice: PeerShare::SLICE, lease: ConfigDuration::seconds(30), timeout: ConfigDuration::seconds(1) }
    }
}

impl Default for StalenessSection {
    fn default() -> Self {
        Self { read: ConfigDuration::seconds(60), write: ConfigDuration::seconds(5) }
    }
}

/// Whom to believe at the other end of a TLS connection.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsSection {
    /// A PEM file of the certificate authorities to believe, for tools and issuers, instead of the system's.
    pub(crate) authorities: Option<PathBuf>,
}

/// How a process ends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownSection {
    /// How long running requests may take after the process was asked to stop.
    pub(crate) drain: ConfigDuration,
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { drain: ConfigDuration::seconds(20) }
    }
}

impl SidecarConfig {
    /// Takes every relative path from `base`, the directory of the file.
    pub(crate) fn place(&mut self, base: &Path) {
        for issuer in &mut self.issuers {
            files::place_keys(base, &mut issuer.keys);
        }
        for source in &mut self.policy {
            source.place(base);
        }
        for source in &mut self.catalogue {
            source.place(base);
        }
        for tool in self.tools.values_mut() {
            for credential in tool.credential.iter_mut().chain(tool.credentials.values_mut()) {
                files::place_credential(base, credential);
            }
            if let Some(tls) = &mut tool.tls {
                files::place_client_tls(base, tls);
            }
        }
        if let Some(authority) = &mut self.authority {
            files::place(base, &mut authority.credential.key);
        }
        for webhook in self.alerts.webhook.iter_mut().chain(self.notices.values_mut()) {
            files::place_secret(base, &mut webhook.secret);
        }
        if let Some(path) = &mut self.tls.authorities {
            files::place(base, path);
        }
        files::place_listener(base, &mut self.listen.agent);
        if let Some(tls) = &mut self.listen.health.tls {
            tls.place(base);
        }
        if let Some(admin) = &mut self.listen.admin {
            files::place(base, &mut admin.unix);
        }
        files::place_ledger(base, &mut self.ledger);
    }

    /// Everything that is read, fetched, kept and pinned by its name: policy, then the catalogue.
    pub(crate) fn sources(&self) -> Vec<PolicySource> {
        self.policy.iter().cloned().chain(self.catalogue.iter().map(CatalogueSource::source)).collect()
    }

    /// Where the operator's socket is.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        match &self.listen.admin {
            Some(admin) => admin.unix.clone(),
            None => self.ledger.dir.with_file_name("admin.sock"),
        }
    }
}
