//! The engine: policies checked and prepared once, then asked on any thread, and not twice what was asked before.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use model::{Catalogue, Code, Decision, Id, Part, Question, Tool, part::WHOLE};
use regorus::{LimitError, Value, utils::limits::ExecutionTimerConfig};

use crate::{
    LoadError, Source,
    bundle::Data,
    check::Compiled,
    decide::{self, Answers, Failure},
    dispatch::{Package, READY},
    input::{self, InvalidInput},
    member, obligation,
    refresh::Freshness,
    roots::{About, Answer, Owner},
};

mod aging;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod differential;
mod known;
mod memory;
pub(crate) mod revision;

pub use known::Known;
use memory::Memory;

/// Policies in force. Immutable but for what it remembers: a change is a new engine, swapped in whole.
pub struct Engine {
    /// Cloned for each decision, which costs a third of a microsecond and shares everything that is prepared.
    prototype: regorus::Engine,
    /// For each tool that a team's policy is bound to, who is asked.
    tools: BTreeMap<Id<Tool>, Asked>,
    memory: Memory,
    bounds: Bounds,
    revision: String,
    /// What they were held against: the catalogue, and who decides about which tools.
    held_against: String,
    bundles: Vec<String>,
    /// The policies without their data, which the next engine shares where they are the same.
    compiled: Arc<Compiled>,
    /// The data, likewise.
    documents: Vec<Data>,
}

/// The packages that are asked about the calls of one tool.
struct Asked {
    /// The platform team's, then those of the teams that config binds to the tool.
    packages: Vec<Package>,
    /// What they read of the input, all together. They are asked with that alone.
    reads: Part,
    /// Whether the same may be asked again: nothing they read differs from call to call by itself.
    recurs: bool,
    /// How fresh the bundles are that they come from, where those can grow old.
    freshness: Vec<(String, Arc<Freshness>)>,
}

impl Asked {
    /// The first of its bundles that is too old at `now`.
    fn stale(&self, now: Timestamp) -> Option<&str> {
        self.freshness.iter().find(|(_, freshness)| freshness.is_stale(now)).map(|(name, _)| name.as_str())
    }
}

/// A question as it is recorded, and what its decision is found by.
#[derive(Debug)]
pub struct Written(Result<(Vec<u8>, Option<memory::Key>), InvalidInput>);

impl Written {
    /// The whole input, as [`input::canonical_json`] gives it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn input(&self) -> Result<&[u8], &InvalidInput> {
        self.0.as_ref().map(|(text, _)| text.as_slice())
    }

    fn key(&self) -> Option<&memory::Key> {
        self.0.as_ref().ok()?.1.as_ref()
    }
}

/// What a decision may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The longest one package may take. Wall clock, and looked at between steps: a single builtin runs to its end,
    /// and a thread that has to wait for a core spends it too. So it is a thousand times what a decision takes, and
    /// there to end what would not end by itself.
    pub budget: Duration,
    /// The largest input, counted as the bytes of its text and eight for anything else.
    pub input_bytes: usize,
    /// How many decisions are remembered, so that the same question is not asked twice. None with zero.
    pub remembered: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { budget: Duration::from_millis(500), input_bytes: 256 * 1024, remembered: 4096 }
    }
}

/// How many steps the engine takes between two looks at the clock.
const STEPS_BETWEEN_LOOKS: NonZeroU32 = NonZeroU32::new(64).unwrap();

impl Engine {
    /// Checks `sources` and prepares them with the default [`Bounds`].
    pub fn load(sources: &[Source], catalogue: &Catalogue) -> Result<Self, LoadError> {
        Self::load_within(sources, catalogue, Bounds::default())
    }

    /// Checks `sources` and prepares them.
    pub fn load_within(sources: &[Source], catalogue: &Catalogue, bounds: Bounds) -> Result<Self, LoadError> {
        Self::of(&Known::default(), sources, catalogue, bounds)
    }

    /// Checks `sources` and prepares them with the default [`Bounds`]. Where their policies are those that are `known`, none
    /// is parsed again: they are checked against the data, which takes the place of the data before.
    pub fn load_knowing(known: &Known, sources: &[Source], catalogue: &Catalogue) -> Result<Self, LoadError> {
        Self::of(known, sources, catalogue, Bounds::default())
    }

    fn of(known: &Known, sources: &[Source], catalogue: &Catalogue, bounds: Bounds) -> Result<Self, LoadError> {
        let compiled = match known.compiled(sources, catalogue)? {
            Some(compiled) => compiled,
            None => Arc::new(Compiled::of(sources, Some(catalogue))?),
        };
        let prototype = prepared(compiled.with_data(sources)?, bounds.budget)?;
        let about = format!("{} {}", input::VERSION, catalogue.revision());
        let revision = revision::of(compiled.modules(), sources, &about);
        let packages = compiled.packages().iter().filter(|package| package.about == About::Calls).cloned().collect();
        Ok(Self {
            prototype,
            tools: bound(sources, packages, compiled.reads()),
            memory: Memory::of(bounds.remembered),
            bounds,
            revision,
            held_against: held_against(sources, catalogue),
            bundles: sources.iter().map(|source| source.name.clone()).collect(),
            compiled,
            documents: sources.iter().flat_map(|source| source.data.iter().cloned()).collect(),
        })
    }

    /// What the next engine need not read or parse again.
    #[must_use]
    pub fn known(&self) -> Known {
        Known::of(Arc::clone(&self.compiled), self.held_against.clone(), self.documents.clone())
    }

    /// Whether it has the policies that are `known`, parsed then and not again, for the same tools and actions.
    #[must_use]
    pub fn differs_in_data_alone(&self, known: &Known) -> bool {
        known.are(&self.compiled, &self.held_against)
    }

    /// The same policies, of which the bundles named in `freshness` grow old: what is asked of them then is refused.
    #[must_use]
    pub fn expiring(mut self, freshness: &BTreeMap<String, Arc<Freshness>>) -> Self {
        for asked in self.tools.values_mut() {
            let owners: BTreeSet<&str> = asked.packages.iter().filter_map(|package| package.owner.source()).collect();
            let of = |name: &str| Some((name.to_owned(), Arc::clone(freshness.get(name)?)));
            asked.freshness = owners.into_iter().filter_map(of).collect();
        }
        self
    }

    /// The decision on `question`. The same question always gets the same decision, but for the time budget.
    pub fn decide(&self, question: &Question) -> Decision {
        let written = self.write(question);
        self.recall(question, &written).unwrap_or_else(|| self.decide_written(question, &written))
    }

    /// The same, without writing down what nobody asks for: where nothing is found by it, on a question that is on record.
    pub fn decide_again(&self, question: &Question) -> Decision {
        if self.bounds.remembered > 0 && self.tools.get(&question.call.tool).is_some_and(|asked| asked.recurs) {
            return self.decide(question);
        }
        self.decide_written(question, &Written(Ok((Vec::new(), None))))
    }

    /// Writes `question` down as it is recorded, which is half of the way to its decision.
    pub fn write(&self, question: &Question) -> Written {
        // What is stale is refused, also where it was decided before.
        let recurring = self.tools.get(&question.call.tool);
        let recurring = recurring.filter(|asked| asked.recurs && asked.stale(question.now).is_none());
        Written(self.memory.write(question, recurring.map(|asked| &asked.reads)))
    }

    /// The decision that was made before on what is `written` of `question`, where there was one and it is still known.
    pub fn recall(&self, question: &Question, written: &Written) -> Option<Decision> {
        // What is remembered are the rules' words; what the call falls short of need not be what they read.
        self.memory.recall(written.key()?).map(|decision| obligation::held_to(decision, question))
    }

    /// Decides `question`, of which `written` was made.
    pub fn decide_written(&self, question: &Question, written: &Written) -> Decision {
        let Some(asked) = self.tools.get(&question.call.tool) else {
            return decide::refused(Code::NoPolicy, "no_policy", "no team's policy is bound to the tool".to_owned());
        };
        if let Some(bundle) = asked.stale(question.now) {
            let internal = format!("the bundle of `{bundle}` was not confirmed for longer than its `max_age`");
            return decide::refused(Code::PolicyStale, "policy_stale", internal);
        }
        if let Err(error) = &written.0 {
            return decide::refused(Code::PolicyError, "policy_input", error.to_string());
        }
        let decision = self.ask(question, asked);
        if let Some(key) = written.key() {
            self.memory.keep(*key, &decision);
        }
        obligation::held_to(decision, question)
    }

    fn ask(&self, question: &Question, asked: &Asked) -> Decision {
        let input = match input::part(question, &asked.reads) {
            Ok(input) => input,
            Err(error) => return decide::refused(Code::PolicyError, "policy_input", error.to_string()),
        };
        if !fits(&input, self.bounds.input_bytes) {
            let internal = format!("the policy input is larger than {} bytes", self.bounds.input_bytes);
            return decide::refused(Code::Malformed, "input_too_large", internal);
        }
        let mut engine = self.prototype.clone();
        engine.set_input(input);
        let ask = |package: &Package| ask(&mut engine, package);
        let outcomes: Vec<_> = asked.packages.iter().map(ask).collect();
        let names = asked.packages.iter().map(|package| package.name.as_str());
        decide::combine(names.zip(outcomes).collect())
    }

    /// What identifies these policies: a digest over every policy and data document, the library, the bindings to
    /// tools, the catalogue, the engine and the input's version.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The names of the bundles that these policies are from, in the order they were configured.
    pub fn bundles(&self) -> &[String] {
        &self.bundles
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// `engine` under what bounds it, ready to be cloned and asked.
pub(crate) fn prepared(mut engine: regorus::Engine, budget: Duration) -> Result<regorus::Engine, LoadError> {
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: budget, check_interval: STEPS_BETWEEN_LOOKS });
    engine.set_strict_builtin_errors(true);
    // An engine that has answered once is prepared, and so are its clones.
    engine.eval_rule(READY.to_owned()).map_err(|error| LoadError::Engine(error.to_string()))?;
    Ok(engine)
}

fn held_against(sources: &[Source], catalogue: &Catalogue) -> String {
    let bound: Vec<_> = sources.iter().map(|source| (&source.name, &source.tools)).collect();
    format!("{} {bound:?}", catalogue.revision())
}

/// For each tool that a team is bound to, the packages to ask, and what they read together.
fn bound(sources: &[Source], packages: Vec<Package>, reads: &BTreeMap<String, Part>) -> BTreeMap<Id<Tool>, Asked> {
    let (org, of_teams): (Vec<_>, Vec<_>) = packages.into_iter().partition(|package| package.owner == Owner::Org);
    let mut tools: BTreeMap<Id<Tool>, Asked> = BTreeMap::new();
    for source in sources {
        let of_team = || of_teams.iter().filter(|package| package.owner == Owner::Team(source.name.clone())).cloned();
        for tool in source.tools.iter().flatten() {
            let asked = tools.entry(tool.clone());
            let asked = asked.or_insert_with(|| Asked {
                packages: org.clone(),
                reads: Part::default(),
                recurs: false,
                freshness: Vec::new(),
            });
            asked.packages.extend(of_team());
        }
    }
    for asked in tools.values_mut() {
        for package in &asked.packages {
            // What is not known of a package is everything.
            asked.reads.add_all(&[], reads.get(&package.name).unwrap_or(&WHOLE));
        }
        asked.recurs = memory::recurs(&asked.reads);
    }
    tools
}

/// What `package` answers to the input that `engine` holds.
pub(crate) fn ask(engine: &mut regorus::Engine, package: &Package) -> Result<Answers, Failure> {
    // The engine is code of others that runs on text of agents: its panic is one denied call and nothing more.
    let evaluated = catch_unwind(AssertUnwindSafe(|| engine.eval_rule(package.rule.clone())))
        .map_err(|_| Failure::Error("the policy engine panicked".to_owned()))?;
    let value = evaluated.map_err(|error| match error.downcast_ref::<LimitError>() {
        Some(LimitError::TimeLimitExceeded { .. }) => Failure::Budget(error.to_string()),
        _ => Failure::Error(error.to_string()),
    })?;
    answers(&value, package).map_err(Failure::Error)
}

fn answers(value: &Value, package: &Package) -> Result<Answers, String> {
    let sets = value.as_object().map_err(|_| "the package's answer is undefined".to_owned())?;
    let mut answers = Answers::default();
    for answer in &package.answers {
        let members = sets.get(&Value::from(answer.name())).and_then(|set| set.as_set().ok());
        let members = members.ok_or_else(|| format!("`{}` is not a set", answer.name()))?;
        let reasons = match answer {
            Answer::Allow => &mut answers.allow,
            Answer::Deny => &mut answers.deny,
            Answer::Approval => &mut answers.approval,
            Answer::Obligations => {
                members.iter_sorted().for_each(|found| answers.obligations.take(found, &package.name));
                continue;
            }
            Answer::Delegate => &mut answers.delegate,
            Answer::Manage => &mut answers.manage,
        };
        for found in members.iter_sorted() {
            reasons.push(member::reason(found, *answer, &package.name)?);
        }
        reasons.sort();
    }
    Ok(answers)
}

/// Whether `value` has no more than `bytes` of text, anything else counted as eight.
pub(crate) fn fits(value: &Value, bytes: usize) -> bool {
    fn spend(value: &Value, left: usize) -> Option<usize> {
        match value {
            Value::String(text) => left.checked_sub(text.len() + 8),
            Value::Array(items) => items.iter().try_fold(left.checked_sub(8)?, |left, item| spend(item, left)),
            Value::Object(members) => {
                members.iter().try_fold(left.checked_sub(8)?, |left, (name, value)| spend(value, spend(name, left)?))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Set(_) | Value::Undefined => left.checked_sub(8),
        }
    }
    spend(value, bytes).is_some()
}

#[cfg(test)]
pub(crate) mod tests;
