//! The library that the binary brings: `countersign.lib.*`, the same for every policy of a release.

use crate::bundle::File;

const MODULES: [(&str, &str); 7] = [
    ("lib/clock.rego", include_str!("../../../policies/lib/clock.rego")),
    ("lib/delegation.rego", include_str!("../../../policies/lib/delegation.rego")),
    ("lib/history.rego", include_str!("../../../policies/lib/history.rego")),
    ("lib/money.rego", include_str!("../../../policies/lib/money.rego")),
    ("lib/resource.rego", include_str!("../../../policies/lib/resource.rego")),
    ("lib/stage.rego", include_str!("../../../policies/lib/stage.rego")),
    ("lib/tenant.rego", include_str!("../../../policies/lib/tenant.rego")),
];

/// The modules of the library.
#[must_use]
pub fn files() -> Vec<File> {
    MODULES.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}
