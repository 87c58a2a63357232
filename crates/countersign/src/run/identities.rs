//! The agents whose identities a sidecar holds (`entry: exchanged`): their keys, and everything that has to go with them,
//! looked at before anything is served.

use std::sync::Arc;

use proxy::{
    Identities, IdentitiesParts, Identity,
    config::{Connects, EntryConfig, ExchangedAgentConfig, TaskChoice},
};
use token::{KeptKey, SigningKey, config::Role};

use super::findings::Findings;
use crate::config::{
    files,
    sidecar::{FollowedAuthority, SidecarConfig},
};

/// Where the authority answers exchanges, below its own URL.
const TOKEN_PATH: &str = "/oauth2/token";

/// The identities that `config` has held, noting every problem on the way.
pub(super) fn prepare(config: &SidecarConfig, findings: &mut Findings) -> Option<Identities> {
    let entry = &config.listen.agent.entry;
    let EntryConfig::Exchanged(exchanged) = entry else { return None };
    findings.take(entry.check(&config.listen.agent).map_err(|error| format!("listen.agent.entry: {error}")));
    let Some(authority) = &config.authority else {
        findings.problem("listen.agent.entry: `exchanged` needs `authority`, which the tokens are obtained from");
        return None;
    };
    let issuer = authority.url.trim_end_matches('/');
    issuers(config, issuer, findings);
    let agents: Vec<_> = exchanged.agents.iter().map(|agent| identity(config, agent, issuer, findings)).collect();
    let endpoint = findings.take(endpoint(authority))?;
    Some(Identities::new(IdentitiesParts {
        authority: issuer.to_owned(),
        endpoint,
        audience: config.sidecar.audience.clone(),
        subject_audiences: exchanged.subject_audiences.clone(),
        agents: agents.into_iter().collect::<Option<_>>()?,
    }))
}

fn endpoint(authority: &FollowedAuthority) -> Result<http::Uri, String> {
    let url = format!("{}{TOKEN_PATH}", authority.url.trim_end_matches('/'));
    net::check_operator_url(&url, net::Plaintext::LoopbackOnly).map_err(|error| format!("authority.url: {error}"))
}

/// What is obtained has to be believed, and what it is obtained for too.
fn issuers(config: &SidecarConfig, authority: &str, findings: &mut Findings) {
    let has = |role| config.issuers.iter().filter(move |issuer| issuer.role == role);
    if !has(Role::Delegation).any(|issuer| issuer.issuer == authority) {
        findings.problem(format!(
            "listen.agent.entry: `exchanged` obtains tokens of {authority}, which is no issuer with `role: delegation` here"
        ));
    }
    let EntryConfig::Exchanged(exchanged) = &config.listen.agent.entry else { return };
    let users = !exchanged.subject_audiences.is_empty();
    if users && has(Role::Subject).next().is_none() {
        findings.problem(
            "listen.agent.entry: `subject_audiences` takes users' tokens, and no issuer has `role: subject`".to_owned(),
        );
    }
    if !users && exchanged.agents.iter().any(|agent| agent.task == TaskChoice::Present) {
        findings.problem(
            "listen.agent.entry: without `subject_audiences` no user's token is taken, so agents need `task: named`",
        );
    }
}

fn identity(
    config: &SidecarConfig,
    agent: &ExchangedAgentConfig,
    authority: &str,
    findings: &mut Findings,
) -> Option<Identity> {
    let ExchangedAgentConfig { agent: id, key, connects, task } = agent;
    if !config.agents.iter().any(|known| known.id == *id && known.issuer == authority) {
        findings.warning(format!(
            "listen.agent.entry: {id} of {authority} is not in `agents`, so its calls are refused `unknown_agent`"
        ));
    }
    if *connects == Connects::Anybody {
        findings.warning(format!("listen.agent.entry: whoever reaches the listener is taken for {id}"));
        if config.listen.agent.tls.as_ref().is_some_and(|tls| tls.self_signed) {
            findings.warning(format!("listen.agent.tls.self_signed: any certificate at all is enough to be {id}"));
        }
    }
    if key.exists() {
        findings.take(files::check_not_writable(key));
    }
    let loaded = SigningKey::load(key).map_err(|error| format!("listen.agent.entry: {id}: key: {error}"));
    let key = KeptKey::new(Arc::new(findings.take(loaded)?)).kept_in(key.clone());
    Some(Identity::new(id.clone(), authority, key, connects.clone(), *task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::{Folder, says};

    /// The configuration of the tests with an entry of its own.
    fn found(entry: &str, change: impl Fn(String) -> String) -> Findings {
        let folder = Folder::new(|config| {
            let listener = format!("agent: {{ tcp: 127.0.0.1:0, entry: {entry},");
            change(config.replacen("agent: { tcp: 127.0.0.1:0,", &listener, 1))
        });
        let mut findings = Findings::default();
        prepare(&folder.document().value, &mut findings);
        findings
    }

    const ONE: &str =
        "{ exchanged: { subject_audiences: [a], agents: [{ agent: one, key: one.pem, connects: anybody }] } }";

    #[test]
    fn an_identity_needs_its_key_and_an_authority_that_is_followed() {
        let alone = found(ONE, |config| config);
        assert!(says(&alone.problems, &["listen.agent.entry", "`authority`"]), "{alone:?}");
        let followed = |config: String| {
            let authority = "authority: { url: 'https://followed.example', credential: { key: k.pem, id: s-1 } }\n";
            format!("{authority}{config}")
        };
        let keyless = found(ONE, followed);
        assert!(says(&keyless.problems, &["one", "key", "one.pem"]), "{keyless:?}");
        assert!(says(&keyless.problems, &["https://followed.example", "role: delegation"]), "{keyless:?}");
        assert!(says(&keyless.warnings, &["whoever reaches the listener is taken for one"]), "{keyless:?}");
        let tokenless = "{ exchanged: { agents: [{ agent: one, key: one.pem, connects: anybody }] } }";
        assert!(says(&found(tokenless, followed).problems, &["task: named"]));
        assert!(found("delegated", |config| config).problems.is_empty());
    }
}
