//! What policy says at the authority: whether a token may be issued (`delegate`), and who manages (`manage`), in the same
//! packages that decide calls. It only ever narrows: what it is asked about lies within everything else that limits it.

use std::{collections::BTreeSet, time::Duration};

use model::{Code, Id, Reason, Tool};

use crate::{
    LoadError, Source,
    check::{self, Checked},
    decide::{Answers, Failure},
    dispatch::Package,
    engine::{self, revision},
    input::{
        InvalidInput,
        exchange::{self, Issuance},
        management::{self, Management},
    },
    roots::{About, Owner},
};

/// The longest that one package may take, and the largest input: as for calls.
const BOUNDS: engine::Bounds =
    engine::Bounds { budget: Duration::from_millis(500), input_bytes: 256 * 1024, remembered: 0 };

/// Policies in force at an authority.
pub struct Steering {
    /// Cloned for each question.
    prototype: regorus::Engine,
    /// Who is asked before a token is issued.
    issuing: Vec<Voice>,
    /// Who says who manages; nobody, where no package does.
    managing: Vec<Package>,
    revision: String,
    bundles: Vec<String>,
}

/// The packages of one owner that say what may be delegated.
struct Voice {
    packages: Vec<Package>,
    /// What they speak for; everything, where absent.
    tools: Option<BTreeSet<Id<Tool>>>,
}

/// What policy says of a token that is about to be issued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruling {
    /// The tools that it may be good for.
    pub tools: BTreeSet<Id<Tool>>,
    /// What speaks for it.
    pub reasons: Vec<Reason>,
    /// Why it is not good for others.
    pub withheld: Vec<Reason>,
}

impl Steering {
    /// Checks `sources` and prepares them. There is no catalogue to check the names of tools against.
    pub fn load(sources: &[Source]) -> Result<Self, LoadError> {
        let Checked { engine, packages, modules, .. } = check::sources(sources, None)?;
        let prototype = engine::prepared(engine, BOUNDS.budget)?;
        let about = format!("exchange {} management {}", exchange::VERSION, management::VERSION);
        let revision = revision::of(&modules, sources, &about);
        let (managing, issuing): (Vec<_>, Vec<_>) = packages
            .into_iter()
            .filter(|package| package.about != About::Calls)
            .partition(|package| package.about == About::Management);
        let bundles = sources.iter().map(|source| source.name.clone()).collect();
        Ok(Self { prototype, issuing: voices(sources, &issuing), managing, revision, bundles })
    }

    /// Which tools `issuance` may be good for. The platform team's packages, where they say anything of it, have to
    /// permit it as a whole; a team's permit it for the team's tools; for each tool at least one has to.
    pub fn delegate(&self, issuance: &Issuance<'_>) -> Ruling {
        let asked: BTreeSet<&Id<Tool>> =
            issuance.requested.elements.iter().flat_map(|element| &element.locations).collect();
        let mut ruling = Ruling::default();
        let mut engine = match self.engine(exchange::value(issuance)) {
            Ok(engine) => engine,
            Err(reason) => {
                ruling.withheld.push(reason);
                return ruling;
            }
        };
        let mut refused: BTreeSet<&Id<Tool>> = BTreeSet::new();
        for voice in &self.issuing {
            let concerned: BTreeSet<&Id<Tool>> = asked
                .iter()
                .copied()
                .filter(|tool| voice.tools.as_ref().is_none_or(|own| own.contains(*tool)))
                .collect();
            if concerned.is_empty() {
                continue;
            }
            match answer(&mut engine, &voice.packages, |answers| answers.delegate) {
                Ok(reasons) => {
                    ruling.reasons.extend(reasons);
                    ruling.tools.extend(concerned.into_iter().cloned());
                }
                Err(reasons) => {
                    ruling.withheld.extend(reasons);
                    refused.extend(concerned);
                }
            }
        }
        if asked.iter().any(|tool| !refused.contains(*tool) && !ruling.tools.contains(*tool)) {
            ruling.withheld.push(own("no_policy", "no package with `delegate` is bound to the tool"));
        }
        ruling.tools.retain(|tool| !refused.contains(tool));
        ruling
    }

    /// Whether any package says who manages.
    pub fn says_who_manages(&self) -> bool {
        !self.managing.is_empty()
    }

    /// Whether the caller may do it to whatever it is, whoever it belongs to: what speaks for it, or why not. `None`
    /// where no package says who manages.
    pub fn manage(&self, management: &Management<'_>) -> Option<Result<Vec<Reason>, Vec<Reason>>> {
        if self.managing.is_empty() {
            return None;
        }
        let engine = self.engine(management::value(management)).map_err(|reason| vec![reason]);
        Some(engine.and_then(|mut engine| answer(&mut engine, &self.managing, |answers| answers.manage)))
    }

    /// What identifies these policies, as [`crate::Engine::revision`] does for calls.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The names of the bundles that these policies are from, in the order they were configured.
    pub fn bundles(&self) -> &[String] {
        &self.bundles
    }

    /// An engine that holds `input`.
    fn engine(&self, input: Result<regorus::Value, InvalidInput>) -> Result<regorus::Engine, Reason> {
        let input = input.map_err(|error| own("policy_input", &error.to_string()))?;
        if !engine::fits(&input, BOUNDS.input_bytes) {
            return Err(own(
                "input_too_large",
                &format!("the policy input is larger than {} bytes", BOUNDS.input_bytes),
            ));
        }
        let mut engine = self.prototype.clone();
        engine.set_input(input);
        Ok(engine)
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Who speaks for what: the platform team, then each team.
fn voices(sources: &[Source], packages: &[Package]) -> Vec<Voice> {
    let of = |owner: &Owner| packages.iter().filter(|package| package.owner == *owner).cloned().collect::<Vec<_>>();
    let org = Voice { packages: of(&Owner::Org), tools: None };
    let teams = sources.iter().filter_map(|source| {
        let tools = source.tools.clone()?;
        Some(Voice { packages: of(&Owner::Team(source.name.clone())), tools: Some(tools) })
    });
    [org].into_iter().chain(teams).filter(|voice| !voice.packages.is_empty()).collect()
}

/// What `packages` say together. One that fails, or none that says yes, is a no.
fn answer(
    engine: &mut regorus::Engine,
    packages: &[Package],
    members: impl Fn(Answers) -> Vec<Reason>,
) -> Result<Vec<Reason>, Vec<Reason>> {
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    for package in packages {
        match engine::ask(engine, package) {
            Ok(answers) => yes.extend(members(answers)),
            Err(failure) => no.push(Failure::reason(failure, &package.name)),
        }
    }
    if no.is_empty() && yes.is_empty() {
        let said = |package: &Package| Reason {
            code: Code::PolicyNoAllow.as_str().to_owned(),
            message: None,
            internal: None,
            retry: None,
            source: package.name.clone(),
        };
        no.extend(packages.iter().map(said));
    }
    if no.is_empty() { Ok(yes) } else { Err(no) }
}

/// A reason of this binary's own.
fn own(code: &str, internal: &str) -> Reason {
    Reason {
        code: code.to_owned(),
        message: None,
        internal: Some(internal.to_owned()),
        retry: None,
        source: "countersign".to_owned(),
    }
}

#[cfg(test)]
mod tests;
