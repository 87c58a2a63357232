//! The policies to start from: they stand the strictest check against the tools they are written for, and their tests reach
//! every expression of them.

use crate::support::{process, root};

/// `countersign policy COMMAND` where the starters are.
fn policy(command: &[&str]) -> String {
    let mut run = process::countersign();
    run.current_dir(root().join("policies/starters")).arg("policy").args(command);
    process::run(&mut run).well()
}

#[test]
fn policies_to_start_from_pass_the_strictest_check() {
    assert!(policy(&["check", "--strict"]).contains("ok"));
}

#[test]
fn policies_to_start_from_are_tested_to_their_last_expression() {
    let said = policy(&["test", "--coverage", "--threshold", "100"]);
    assert!(said.contains("0 failed"), "{said}");
    for name in ["org", "research", "support", "planner", "finance", "analytics"] {
        assert!(said.contains(&format!("{name}/{name}.rego")), "{name}: {said}");
    }
}
