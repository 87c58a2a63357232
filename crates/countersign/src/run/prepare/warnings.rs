//! What loads and is worth a second look: names that nothing answers to, and what is open to whoever comes.

use std::collections::BTreeSet;

use model::{Action, Agent, Catalogue, Id, Tool};
use proxy::config::{Bearer, CredentialConfig, ToolConfig, UnmappedConfig};

use super::{Described, catalogue};
use crate::{config::sidecar::SidecarConfig, run::findings::Findings};

/// Names that nothing answers to are typing mistakes, and take effect as refusals.
pub(super) fn names(config: &SidecarConfig, catalogue: &Catalogue, findings: &mut Findings) {
    let actions: BTreeSet<&Id<Action>> =
        catalogue.tools().iter().flat_map(|tool| tool.actions.iter().map(|action| &action.id)).collect();
    let unknown = |findings: &mut Findings, place: String, named: &BTreeSet<Id<Action>>| {
        for action in named.iter().filter(|action| !actions.contains(action)) {
            findings.warning(format!("{place}: no tool has the action `{action}`"));
        }
    };
    for issuer in &config.issuers {
        for (group, named) in issuer.entitlements.iter().flat_map(|entitlements| &entitlements.map) {
            unknown(findings, format!("issuer {}: entitlements.map.{group}", issuer.issuer), named);
        }
    }
    for agent in &config.agents {
        unknown(findings, format!("agents: {}", agent.id), &agent.actions);
    }
    let bound: BTreeSet<&Id<Tool>> =
        config.policy.iter().filter_map(|source| source.tools.as_ref()).flatten().collect();
    for tool in catalogue.tools() {
        if !bound.contains(&tool.id) {
            findings.warning(format!(
                "tools.{}: no team's policy is `for` it, so every call is refused `no_policy`",
                tool.id
            ));
        }
    }
}

/// What is open, or only observed.
pub(super) fn warnings(config: &SidecarConfig, described: &Described, findings: &mut Findings) {
    let listener = &config.listen.agent;
    match listener.bearer {
        Bearer::All => findings.warning("listen.agent.bearer: all; whoever obtains a token can write with it"),
        Bearer::Reads => findings.warning("listen.agent.bearer: reads; whoever obtains a token can read with it"),
        Bearer::Refuse if listener.tls.as_ref().is_none_or(|tls| !tls.asks_clients()) => findings.warning(
            "listen.agent.bearer: refuse; without `tls.client_authorities`, `tls.trust_domains` or `tls.self_signed` no token can be bound to a certificate, so every call is refused `wrong_sender`",
        ),
        Bearer::Refuse => {}
    }
    if let Some(address) = listener.tcp.filter(|address| !address.ip().is_loopback() && listener.tls.is_none()) {
        findings.warning(format!("listen.agent.tcp: {address} is not loopback, and tokens travel there in clear text"));
    }
    if config.agents.is_empty() {
        findings.warning("agents: there is none, so every call is refused `unknown_agent`");
    }
    let unseen = if described.whole { BTreeSet::new() } else { catalogue::owned(config) };
    for (id, tool) in &described.tools {
        tool_warnings(id, tool, unseen.contains(id), findings);
        passthrough_warnings(id, tool, &config.agents, findings);
    }
}

/// What passing calls through gives up, and whom nobody can stop by name.
fn passthrough_warnings(id: &Id<Tool>, tool: &ToolConfig, agents: &[Agent], findings: &mut Findings) {
    let Some(passthrough) = tool.passthrough.as_ref().filter(|passthrough| net::clock::now() < passthrough.until)
    else {
        return;
    };
    findings.warning(format!(
        "tools.{id}: passes calls without a delegated token through until {}, by {}: nobody is verified and nothing \
         is decided about them",
        passthrough.until, passthrough.owner
    ));
    if let Some(agent) = passthrough.agent.as_ref().filter(|named| !agents.iter().any(|agent| agent.id == **named)) {
        findings.warning(format!(
            "tools.{id}.passthrough.agent: `{agent}` is not in `agents`, so suspending or withdrawing it stops none of \
             these calls"
        ));
    }
}

/// `unseen`: nobody looked at what says its actions.
fn tool_warnings(id: &Id<Tool>, tool: &ToolConfig, unseen: bool, findings: &mut Findings) {
    let mut credentials = tool.credential.iter().chain(tool.credentials.values());
    if credentials.any(|credential| matches!(credential, CredentialConfig::None)) {
        findings
            .warning(format!("tools.{id}: is called without a credential, so anybody who reaches it can do the same"));
    }
    let passes = tool.passthrough.as_ref().is_some_and(|passthrough| passthrough.unmapped == UnmappedConfig::Pass);
    if tool.actions.is_empty() && !unseen && !passes {
        findings.warning(format!("tools.{id}: has no actions, so every call is refused `unmapped_action`"));
    }
    for (name, action) in &tool.actions {
        let observe = action.observe.as_ref().or(tool.observe.as_ref());
        if let Some(observe) = observe.filter(|observe| net::clock::now() < observe.until) {
            findings.warning(format!(
                "tools.{id}.actions.{name}: is only observed until {}, by {}: what policy, scope, limits or stage \
                 would refuse goes",
                observe.until, observe.owner
            ));
        }
    }
}
