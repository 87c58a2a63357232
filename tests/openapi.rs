//! The management API is as its OpenAPI document says: schemathesis makes up requests from the document, good ones and bad
//! ones, and looks at every answer.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::support::{
    authority::{Authority, Client},
    process, root, skipped, world,
};

/// Requests that are made up for each operation, beside those that its description leads to, unless
/// `COUNTERSIGN_TEST_OPENAPI_EXAMPLES` says another number.
const EXAMPLES: &str = "5";

#[test]
fn the_management_api_is_as_its_document_says() {
    let home = root().join("tests/parts/openapi");
    if !Path::exists(&home.join("packages/installed")) {
        return skipped("openapi", "its Python packages are not installed: run `.ci/run parts`");
    }
    let Some(world) = world() else { return };
    let authority = Authority::start_with(&world.openid, &[&Client::new("support-v9")], |_, config| {
        // It asks as fast as it can.
        config["authority"]["management"]["requests_per_second"] = json!(1_000_000);
    });
    let token = world.openid.administrator();
    let examples = std::env::var("COUNTERSIGN_TEST_OPENAPI_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let mut command = Command::new("python3");
    command.arg(home.join("check.py")).arg(authority.issuer()).arg(examples).env("COUNTERSIGN_TOKEN", token);
    let said = process::run(command.current_dir(authority.directory())).well();
    assert_eq!(said.matches("No issues found").count(), 2, "{said}");
}
