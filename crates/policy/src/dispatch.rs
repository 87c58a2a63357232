//! The questions put to the engine: one generated rule for each package and each thing that it answers about, with
//! constant names only, naming just the sets that the package declares, since an undeclared one would make the whole
//! object undefined.

use std::collections::BTreeSet;

use crate::roots::{About, Answer, Owner, Path, dotted};

/// The module that the generated rules are in.
pub(crate) const MODULE: &str = "countersign.dispatch";
/// A rule that is always true: evaluating it once prepares the engine.
pub(crate) const READY: &str = "data.countersign.dispatch.ready";

/// One package that answers, and the rule that asks it.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Its name: `countersign.teams.support`.
    pub(crate) name: String,
    /// The path of the generated rule.
    pub(crate) rule: String,
    /// What that asks about.
    pub(crate) about: About,
    /// The sets about it that the package declares.
    pub(crate) answers: BTreeSet<Answer>,
}

/// The packages that answer, and the text of the generated module.
pub(crate) fn generate(declared: Vec<(Owner, Path, BTreeSet<Answer>)>) -> (Vec<Package>, String) {
    let mut text = format!("package {MODULE}\n\nready := true\n");
    let mut packages = Vec::new();
    for (owner, path, declared) in declared {
        let name = dotted(&path);
        for about in About::ALL {
            let answers: BTreeSet<Answer> = declared.iter().copied().filter(|answer| answer.about() == about).collect();
            if answers.is_empty() {
                continue;
            }
            let rule = format!("package_{}", packages.len());
            let sets: Vec<String> =
                answers.iter().map(|answer| format!("\"{0}\": data.{name}.{0}", answer.name())).collect();
            text.push_str(&format!("{rule} := {{{}}}\n", sets.join(", ")));
            let rule = format!("data.{MODULE}.{rule}");
            packages.push(Package { owner: owner.clone(), name: name.clone(), rule, about, answers });
        }
    }
    (packages, text)
}
