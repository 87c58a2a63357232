//! What keeps a sidecar or an authority apart from the agents on the same machine (DESIGN §1): its memory is nobody
//! else's, its configuration is not for them to read, and it runs as another user than they do.

use std::{collections::BTreeSet, path::Path};

use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit};

use super::findings::Findings;
use crate::{
    config::{files, sidecar::SidecarConfig},
    failure::{Exit, Failure},
};

/// Keeps this process's memory to itself: no core dump of it, and no other process of its user may trace it or look
/// into its `/proc` (root may). To be called before the first secret is read.
///
/// # Errors
/// When the system does not let it.
pub(crate) fn keep_memory_private() -> Result<(), Failure> {
    let failed = |error| Failure::because(Exit::Unavailable, "cannot keep this process's memory private", error);
    // A limit of no bytes does not stop a dump that is piped to a program; this does.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)
}

/// Notes where the agents could read the configuration at `path`, or are the very user that this process runs as.
pub(super) fn look(path: &Path, config: &SidecarConfig, findings: &mut Findings) {
    configuration(path, findings);
    users(config, geteuid().as_raw(), findings);
}

/// A configuration says where everything lies, and what is let through.
pub(super) fn configuration(path: &Path, findings: &mut Findings) {
    findings.take(files::check_config_private(path));
}

/// Whoever runs as `own` reads every file and socket of ours, and nothing here could tell the two apart.
fn users(config: &SidecarConfig, own: u32, findings: &mut Findings) {
    let listener = config.listen.agent.allow_uids.iter().flatten();
    for (setting, uids) in [
        ("sidecar.agent_uids", config.sidecar.agent_uids.clone()),
        ("listen.agent.allow_uids", listener.copied().collect::<BTreeSet<u32>>()),
    ] {
        if uids.contains(&own) {
            findings.problem(format!(
                "{setting}: lists the user {own}, and the sidecar runs as that user: an agent could read its keys, \
                 secrets and ledger; run the sidecar as a user of its own"
            ));
        } else if uids.contains(&0) {
            findings.problem(format!(
                "{setting}: lists the user 0, and nothing on this machine can be kept from root: run the agents as \
                 another user"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::{Folder, says};

    fn found(change: &str, own: u32) -> Findings {
        let folder = Folder::new(|config| config.replacen("tenants: [acme] }", change, 1));
        let mut findings = Findings::default();
        users(&folder.document().value, own, &mut findings);
        findings
    }

    #[test]
    fn an_agent_is_another_user_than_the_sidecar_and_not_root() {
        let listed = "tenants: [acme], agent_uids: [1001, 1002] }";
        assert!(found(listed, 990).problems.is_empty());
        assert!(says(&found(listed, 1002).problems, &["sidecar.agent_uids", "1002", "a user of its own"]));
        assert!(says(&found("tenants: [acme], agent_uids: [0] }", 990).problems, &["sidecar.agent_uids", "root"]));
        assert!(found("tenants: [acme] }", 990).problems.is_empty());
    }

    #[test]
    fn the_users_of_the_agents_socket_are_agents_too() {
        let folder = Folder::new(|config| {
            config.replacen("agent: { tcp: 127.0.0.1:0,", "agent: { unix: agent.sock, allow_uids: [1001],", 1)
        });
        let mut findings = Findings::default();
        users(&folder.document().value, 1001, &mut findings);
        assert!(says(&findings.problems, &["listen.agent.allow_uids", "1001"]), "{findings:?}");
    }
}
