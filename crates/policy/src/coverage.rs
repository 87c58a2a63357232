//! What the engine evaluated: which rules were true, and where the others stopped. For people who ask why, and for
//! tests; never for a call. Policies are parsed a second time with every expression on a line of its own (`spread`),
//! and the engine that decides has nothing of it.

mod issuing;
mod order;
mod spread;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use model::{Catalogue, Code, Decision, Id, Question, Tool};
use regorus::{Value, utils::limits::PolicyLengthConfig};
use serde::Serialize;

pub use self::issuing::explained_issuing;
pub(crate) use self::spread::{Body, Definition, Probe, Spot, Spread, Tells};
use crate::{
    LoadError, Source,
    bundle::File,
    check::{self, Checked},
    decide::{self, Answers, Failure},
    dispatch::{self, Package},
    engine,
    input::{self, InvalidInput},
    roots::{About, Owner, dotted},
};

/// The most of a value that is shown, in characters.
const MAX_SHOWN: usize = 160;

/// How long one question may take. Nobody's call waits for it: a test may ask much at once, on a machine that is busy.
const BUDGET: Duration = Duration::from_secs(10);

/// What became of one definition of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleTrace {
    /// The rule: `countersign.teams.support.deny`.
    pub rule: String,
    /// The `code` that it adds to its set, where the policy has it written out.
    pub code: Option<String>,
    /// Whether the decision is made from it; otherwise others used it.
    pub decides: bool,
    /// Where it is defined.
    pub place: Place,
    /// What became of it.
    pub outcome: Outcome,
}

/// A place in a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as its source names it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// What became of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was true, or gave a value.
    True,
    /// It was not: where each of its bodies stopped.
    Stopped(Vec<Stop>),
    /// It was not evaluated.
    Unasked,
}

/// The first expression of a body that was not true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// Where it is.
    pub place: Place,
    /// What it says.
    pub text: String,
    /// What it was about: the values of what it names, as JSON.
    pub values: BTreeMap<String, String>,
}

/// Policies that can say how they came to a decision.
pub struct Explainer {
    covered: Covered,
    /// For each tool, who is asked.
    tools: BTreeMap<Id<Tool>, Vec<Package>>,
}

impl Explainer {
    /// Checks `sources`, as for enforcement, and prepares them.
    ///
    /// # Errors
    /// Where they would not load.
    pub fn load(sources: &[Source], catalogue: &Catalogue) -> Result<Self, LoadError> {
        let Checked { packages, modules, .. } = check::sources(sources, Some(catalogue))?;
        let documents = sources.iter().flat_map(|source| &source.data).map(|data| data.document().clone()).collect();
        let covered = Covered::load(&modules, documents)?;
        let mut tools: BTreeMap<Id<Tool>, Vec<Package>> = BTreeMap::new();
        for source in sources {
            let own = |package: &&Package| {
                let concerned = package.owner == Owner::Org || package.owner == Owner::Team(source.name.clone());
                package.about == About::Calls && concerned
            };
            for tool in source.tools.iter().flatten() {
                let asked = tools.entry(tool.clone()).or_default();
                for package in packages.iter().filter(own) {
                    if !asked.iter().any(|known| known.rule == package.rule) {
                        asked.push(package.clone());
                    }
                }
            }
        }
        Ok(Self { covered, tools })
    }

    /// What became of every rule of the packages that are asked about `question`, and of those that they used.
    ///
    /// # Errors
    /// Where there is no input to ask with.
    pub fn explain(&self, question: &Question) -> Result<Vec<RuleTrace>, InvalidInput> {
        Ok(self.ask(&question.call.tool, &input::value(question)?).1)
    }

    /// The decision on a policy input that is given as JSON, and what became of every rule. It is taken as it is: a sidecar
    /// would have every member there.
    ///
    /// # Errors
    /// Where it is no JSON object that names a `tool`.
    pub fn decide_json(&self, text: &str) -> Result<(Decision, Vec<RuleTrace>), String> {
        let input = Value::from_json_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let tool = input.as_object().ok().and_then(|members| members.get(&Value::from("tool"))?.as_string().ok());
        let tool = tool.ok_or("the policy input has no `tool`")?.to_string();
        let tool = Id::new(&tool).map_err(|error| format!("`tool`: {error}"))?;
        if !self.tools.contains_key(&tool) {
            let none = decide::refused(Code::NoPolicy, "no_policy", "no team's policy is bound to the tool".to_owned());
            return Ok((none, Vec::new()));
        }
        Ok(self.ask(&tool, &input))
    }

    fn ask(&self, tool: &Id<Tool>, input: &Value) -> (Decision, Vec<RuleTrace>) {
        let packages = self.tools.get(tool).map(Vec::as_slice).unwrap_or_default();
        let (outcomes, traces) = self.covered.ask(packages, About::Calls, input);
        let names = packages.iter().map(|package| package.name.as_str());
        (decide::combine(names.zip(outcomes).collect()), traces)
    }
}

/// What `sources` made of `question`, in one step. Whoever asks more than once keeps an [`Explainer`].
///
/// # Errors
/// Where the sources would not load.
pub fn explained(sources: &[Source], catalogue: &Catalogue, question: &Question) -> Result<Vec<RuleTrace>, LoadError> {
    let explainer = Explainer::load(sources, catalogue)?;
    explainer.explain(question).map_err(|error| LoadError::Engine(error.to_string()))
}

/// An engine that was asked, to look up what things were.
struct Asked<'a> {
    engine: regorus::Engine,
    input: &'a Value,
}

fn outcome(file: &Spread, definition: &Definition, reached: &Reached, asked: &mut Asked<'_>) -> Outcome {
    if !reached.any(file, definition) {
        return Outcome::Unasked;
    }
    if definition.bodies.is_empty() || definition.bodies.iter().any(|body| reached.is_true(file, body)) {
        return Outcome::True;
    }
    let stop = |body: &Body| {
        let last = reached.last(file, body)?;
        let spot = file.spots.get(last)?;
        let names = body.names.iter().find(|(place, _)| *place == last).map(|(_, names)| names.as_slice());
        Some(Stop {
            place: file.place(spot.line, spot.column),
            text: file.words(spot),
            values: values(file, names.unwrap_or_default(), asked),
        })
    };
    Outcome::Stopped(definition.bodies.iter().filter_map(stop).collect())
}

/// What `names` stand for in `file`, as far as it can be looked up.
fn values(file: &Spread, names: &[String], asked: &mut Asked<'_>) -> BTreeMap<String, String> {
    let value = |name: &String| {
        let path = file.meaning(name)?;
        let (root, below) = path.split_first()?;
        let value = match root.as_str() {
            "input" => at(asked.input, below)?,
            _ => (1..path.len()).rev().find_map(|length| {
                let rule = dotted(path.get(..=length)?);
                at(&asked.engine.eval_rule(rule).ok()?, path.get(length + 1..)?)
            })?,
        };
        (value != Value::Undefined).then(|| (name.clone(), shown(&value)))
    };
    names.iter().filter_map(value).collect()
}

fn at(value: &Value, path: &[String]) -> Option<Value> {
    let member = |value: Value, name: &String| value.as_object().ok()?.get(&Value::from(name.as_str())).cloned();
    path.iter().try_fold(value.clone(), member)
}

/// `value` as JSON, cut where it is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Modules in an engine that keeps which lines it evaluated.
pub(crate) struct Covered {
    /// Cloned for each question. It has answered once, and is prepared.
    pub(crate) engine: regorus::Engine,
    pub(crate) files: Vec<Spread>,
    documents: Vec<Value>,
}

impl Covered {
    /// Parses `modules`, which were checked before, with the data `documents`.
    pub(crate) fn load(modules: &[File], documents: Vec<Value>) -> Result<Self, LoadError> {
        let mut parser = regorus::Engine::new();
        for file in modules {
            parser.add_policy(file.path.clone(), file.text.clone()).map_err(|error| refused(&error))?;
        }
        let files: Vec<Spread> =
            modules.iter().zip(parser.get_modules()).map(|(file, module)| Spread::of(file, module)).collect();
        let texts = files.iter().map(|file| (file.path.as_str(), file.text.as_str()));
        let mut engine = loaded(texts, &documents)?;
        engine.set_enable_coverage(true);
        Ok(Self { engine, files, documents })
    }

    /// What `packages` answer to `input`, which is `about` what they are asked about, and what became of each of their rules
    /// and of those that they used.
    pub(crate) fn ask(
        &self,
        packages: &[Package],
        about: About,
        input: &Value,
    ) -> (Vec<Result<Answers, Failure>>, Vec<RuleTrace>) {
        let mut engine = self.engine.clone();
        engine.set_input(input.clone());
        // A package that fails has said so in its decision; here it shows how far it came.
        let outcomes: Vec<_> = packages.iter().map(|package| engine::ask(&mut engine, package)).collect();
        let reached = Reached::of(&engine);
        let mut asked = Asked { engine, input };
        let mut traces = Vec::new();
        for file in &self.files {
            if file.package == dispatch::MODULE {
                continue;
            }
            let is_asked = packages.iter().any(|package| package.name == file.package);
            for definition in &file.definitions {
                let decides = is_asked && definition.answer.is_some_and(|answer| answer.about() == about);
                if !decides && (definition.bodies.is_empty() || !reached.any(file, definition)) {
                    continue;
                }
                traces.push(RuleTrace {
                    rule: format!("{}.{}", file.package, definition.name),
                    code: definition.code.clone(),
                    decides,
                    place: file.place(definition.line, definition.column),
                    outcome: outcome(file, definition, &reached, &mut asked),
                });
            }
        }
        traces.sort_by_key(|trace| !trace.decides);
        (outcomes, traces)
    }

    /// The same without coverage, the texts of some files replaced by those of `others`.
    pub(crate) fn replaced(&self, others: &BTreeMap<&str, String>) -> Result<regorus::Engine, LoadError> {
        let text = |file: &'_ Spread| others.get(file.path.as_str()).unwrap_or(&file.text).clone();
        let texts: Vec<(&str, String)> = self.files.iter().map(|file| (file.path.as_str(), text(file))).collect();
        loaded(texts.iter().map(|(path, text)| (*path, text.as_str())), &self.documents)
    }
}

fn loaded<'a>(
    texts: impl Iterator<Item = (&'a str, &'a str)>,
    documents: &[Value],
) -> Result<regorus::Engine, LoadError> {
    let mut engine = regorus::Engine::new();
    engine.set_policy_length_config(LENGTHS);
    for (path, text) in texts {
        engine.add_policy(path.to_owned(), text.to_owned()).map_err(|error| refused(&error))?;
    }
    for document in documents {
        engine.add_data(document.clone()).map_err(|error| refused(&error))?;
    }
    engine.set_gather_prints(true);
    engine::prepared(engine, BUDGET)
}

fn refused(error: &dyn fmt::Display) -> LoadError {
    LoadError::Engine(error.to_string())
}

/// Spread texts have more lines, and what tests put in makes some of them longer.
const LENGTHS: PolicyLengthConfig = PolicyLengthConfig {
    max_col: NonZeroU32::new(64 * 1024).unwrap(),
    max_file_bytes: NonZeroUsize::new(16 * 1024 * 1024).unwrap(),
    max_lines: NonZeroUsize::new(400_000).unwrap(),
};

/// Which lines of the spread texts were evaluated.
#[derive(Debug, Default)]
pub(crate) struct Reached(BTreeMap<String, BTreeSet<u32>>);

impl Reached {
    /// What `engine` evaluated since it began to keep it.
    pub(crate) fn of(engine: &regorus::Engine) -> Self {
        let files = engine.get_coverage_report().map(|report| report.files).unwrap_or_default();
        Self(files.into_iter().map(|file| (file.path, file.covered)).collect())
    }

    /// What either evaluated.
    pub(crate) fn add(&mut self, other: Self) {
        for (path, lines) in other.0 {
            self.0.entry(path).or_default().extend(lines);
        }
    }

    /// Whether the expression was evaluated.
    pub(crate) fn spot(&self, file: &Spread, place: usize) -> bool {
        let Some(spot) = file.spots.get(place) else { return false };
        self.0.get(&file.path).is_some_and(|lines| lines.range(spot.lines.clone()).next().is_some())
    }

    /// Whether anything of it was evaluated.
    pub(crate) fn any(&self, file: &Spread, definition: &Definition) -> bool {
        let body = |body: &Body| body.statements.iter().any(|spot| self.spot(file, *spot));
        self.spot(file, definition.value) || definition.bodies.iter().any(body)
    }

    /// Whether `body` was true; of an `else` in a function that was called more than once, whether it was each time.
    pub(crate) fn is_true(&self, file: &Spread, body: &Body) -> bool {
        match body.tells {
            Tells::Value(value) => self.spot(file, value),
            Tells::Otherwise(next) => {
                let came = |spot: &usize| self.spot(file, *spot) || file.is_silent(*spot);
                body.statements.iter().all(came) && !self.spot(file, next)
            }
            Tells::Nothing => false,
        }
    }

    /// The expression at which `body`, which is not true, stopped. Where the engine took another order than is known
    /// here, the last in the text that it came to.
    pub(crate) fn last(&self, file: &Spread, body: &Body) -> Option<usize> {
        let met: Vec<usize> = body.statements.iter().copied().filter(|spot| self.spot(file, *spot)).collect();
        let heard = body.statements.iter().copied().filter(|spot| !file.is_silent(*spot));
        let expected: Vec<usize> = heard.take(met.len()).collect();
        if expected == met { met.last().copied() } else { met.iter().max().copied() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for RuleTrace {
    /// One line, and one for each place where it stopped, with the values it was about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::True => "true",
            Outcome::Stopped(_) => "not",
            Outcome::Unasked => "unasked",
        };
        let code = self.code.as_ref().map(|code| format!(" \"{code}\"")).unwrap_or_default();
        write!(f, "{word:<8}{}{code}  {}:{}", self.rule, self.place.file, self.place.line)?;
        if let Outcome::Stopped(stops) = &self.outcome {
            for Stop { place, text, values } in stops {
                write!(f, "\n        stopped at line {}: {text}", place.line)?;
                for (name, value) in values {
                    write!(f, "\n            {name} = {value}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
