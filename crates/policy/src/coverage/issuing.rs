//! The same of a token that is about to be issued: what became of each `delegate`.

use std::collections::BTreeSet;

use model::{Id, Tool};

use super::{Covered, RuleTrace};
use crate::{
    LoadError, Source,
    check::{self, Checked},
    dispatch::Package,
    input::exchange::{self, Issuance},
    roots::{About, Owner},
};

/// What `sources` made of `issuance`, in one step: the rules of the platform team, and of the teams whose tools it asks for.
///
/// # Errors
/// Where the sources would not load, or there is no input to ask with.
pub fn explained_issuing(sources: &[Source], issuance: &Issuance<'_>) -> Result<Vec<RuleTrace>, LoadError> {
    let Checked { packages, modules, .. } = check::sources(sources, None)?;
    let documents = sources.iter().flat_map(|source| &source.data).map(|data| data.document().clone()).collect();
    let covered = Covered::load(&modules, documents)?;
    let asked: BTreeSet<&Id<Tool>> =
        issuance.requested.elements.iter().flat_map(|element| &element.locations).collect();
    let speaks = |source: &Source| source.tools.iter().flatten().any(|tool| asked.contains(tool));
    let concerned = |package: &Package| match &package.owner {
        Owner::Team(name) => sources.iter().any(|source| source.name == *name && speaks(source)),
        _ => package.owner == Owner::Org,
    };
    let packages: Vec<Package> =
        packages.into_iter().filter(|package| package.about == About::Issuance && concerned(package)).collect();
    let input = exchange::value(issuance).map_err(|error| LoadError::Engine(error.to_string()))?;
    Ok(covered.ask(&packages, About::Issuance, &input).1)
}
