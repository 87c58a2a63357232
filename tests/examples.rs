//! The examples, run as their readme says, with the real provider and tool in the place of the reader's own.

use std::process::Command;

use serde_json::json;

use crate::{
    revoke::administrator,
    support::{
        World,
        authority::MANAGEMENT,
        free_port,
        openid::{AUDIENCE, claims},
        process, root,
        tool::Tool,
        world,
    },
};

/// What the example says that is run as its readme tells.
fn said(example: &str, world: &World, tool: &Tool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let alice = world.openid.user("alice");
    // The same person in the same session, at two applications: a task is bound to it.
    let session = json!({"sid": claims(&alice)["sid"]});
    let console = world.openid.sign(&json!({"like": world.openid.manager("alice"), "claims": session}));
    let tokens = [("alice.jwt", alice), ("alice-console.jwt", console), ("dana-console.jwt", administrator(world))];
    for (name, token) in &tokens {
        std::fs::write(folder.path().join(name), token).unwrap();
    }
    let ports: Vec<String> = (0..3).map(|_| free_port().to_string()).collect();
    let mut run = Command::new(root().join("examples").join(example).join("run.sh"));
    run.arg(folder.path()).arg(folder.path().join("state"));
    run.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    run.env("COUNTERSIGN", env!("CARGO_BIN_EXE_countersign")).env("SSO", world.openid.issuer());
    run.env("USER_AUDIENCE", AUDIENCE).env("MANAGEMENT_AUDIENCE", MANAGEMENT);
    run.env("ORDERS", tool.url()).env("ORDERS_TOKEN", "the-tools-own-credential");
    run.env("AUTHORITY_PORT", &ports[0]).env("SIDECAR_PORT", &ports[1]).env("HEALTH_PORT", &ports[2]);
    process::run(&mut run).well()
}

/// Asserts the answers of the readme's table, in its order, and the codes of those that are refusals.
#[track_caller]
fn came(said: &str, answers: &[&str], codes: &[&str]) {
    let came: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("HTTP ")).collect();
    assert_eq!(came, answers, "{said}");
    let refusals: Vec<&str> = said.lines().filter(|line| line.contains("urn:countersign:denial:")).collect();
    assert_eq!(refusals.len(), codes.len(), "{said}");
    for (refusal, code) in refusals.iter().zip(codes) {
        assert!(refusal.contains(&format!("urn:countersign:denial:{code}\"")), "{code}: {refusal}");
    }
}

#[test]
fn two_agents_work_for_alice_until_she_takes_the_task_back() {
    let (Some(world), Some(tool)) = (world(), Tool::plain()) else { return };
    let said = said("multi-agent", world, &tool);
    let codes = ["policy_denied", "limit_exceeded", "insufficient_scope", "withdrawn", "withdrawn"];
    came(&said, &["200", "403", "201", "403", "403", "401", "401"], &codes);
    assert!(said.contains("user:alice@acme via agent:planner via agent:refunder task:ticket-1"), "{said}");
}

#[test]
fn an_agent_that_changes_nothing_works_for_alice_with_the_token_it_has_today() {
    let (Some(world), Some(tool)) = (world(), Tool::plain()) else { return };
    let said = said("exchanged", world, &tool);
    let codes = ["impersonation", "stage", "limit_exceeded", "task_ended"];
    came(&said, &["403", "200", "403", "201", "403", "403"], &codes);
    assert!(said.contains("user:alice@acme via agent:support-v1 task:ticket-1"), "{said}");
}
