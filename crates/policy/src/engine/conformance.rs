//! The Open Policy Agent's own conformance cases, through the engine as it is set up to decide. They are not kept here:
//! `COUNTERSIGN_TEST_OPA_CASES=DIR cargo test -p countersign-policy conformance` reads them from a directory of JSON files
//! and compares with `docs/reference/rego-conformance.md`; with `COUNTERSIGN_WRITE_DOCS=1` it writes that page.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use regorus::Value;
use serde::Deserialize;

use super::prepared;
use crate::{Bounds, LoadError, Source, bundle::File, check, dispatch::READY};

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    note: String,
    query: String,
    #[serde(default)]
    modules: Option<Vec<String>>,
    #[serde(default)]
    data: Option<serde_json::Value>,
    input: Option<serde_json::Value>,
    input_term: Option<String>,
    want_result: Option<Vec<Bindings>>,
    want_defined: Option<bool>,
    want_error_code: Option<String>,
    want_error: Option<String>,
    #[serde(default)]
    sort_bindings: bool,
    plan: Option<Plan>,
}

#[derive(Deserialize)]
struct Plan {
    r#static: Static,
}

#[derive(Deserialize)]
struct Static {
    #[serde(default)]
    builtin_funcs: Vec<Builtin>,
}

#[derive(Deserialize)]
struct Builtin {
    name: String,
}

/// What came of a case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// What is wanted.
    Same,
    /// The engine lacks a builtin, or no policy may call it: it is refused when a policy is loaded.
    Refused,
    /// The engine cannot read the policy, which is refused when it is loaded.
    Unreadable,
    /// An error, which denies, where there would be an answer or none.
    Stricter,
    /// Something else.
    Different,
}

impl Case {
    fn outcome(&self, refused: &BTreeSet<String>) -> (Outcome, String) {
        if self.builtins().any(|name| refused.contains(name)) {
            return (Outcome::Refused, String::new());
        }
        let wants_error = self.want_error.is_some() || self.want_error_code.is_some();
        // As a decision catches it.
        let answers = catch_unwind(AssertUnwindSafe(|| self.answers()));
        match answers.unwrap_or_else(|_| Err(Failure::Evaluating("the engine panicked".to_owned()))) {
            Ok(found) if !wants_error && self.is_wanted(&found) => (Outcome::Same, String::new()),
            Ok(found) => (Outcome::Different, format!("{found:?}")),
            Err(_) if wants_error => (Outcome::Same, String::new()),
            Err(Failure::Loading(error)) => (Outcome::Unreadable, error),
            Err(Failure::Evaluating(error)) if error.contains("could not find function") => (Outcome::Refused, error),
            Err(Failure::Evaluating(error)) => (Outcome::Stricter, error),
        }
    }

    /// The builtins it calls by name, which operators are not.
    fn builtins(&self) -> impl Iterator<Item = &String> {
        let named = self.plan.iter().flat_map(|plan| plan.r#static.builtin_funcs.iter().map(|builtin| &builtin.name));
        named.filter(|name| !OPERATORS.contains(&name.as_str()))
    }

    fn is_wanted(&self, found: &[Bindings]) -> bool {
        match (&self.want_result, self.want_defined) {
            (Some(wanted), _) => {
                let sorted = |all: &[Bindings]| {
                    let mut all: Vec<_> =
                        all.iter().map(|one| serde_json::to_string(&plain(one, self.sort_bindings)).unwrap()).collect();
                    all.sort();
                    all
                };
                sorted(wanted) == sorted(found)
            }
            (None, Some(defined)) => defined != found.is_empty(),
            (None, None) => true,
        }
    }

    fn answers(&self) -> Result<Vec<Bindings>, Failure> {
        let mut engine = regorus::Engine::new();
        for (index, module) in self.modules.iter().flatten().enumerate() {
            engine.add_policy(format!("module_{index}.rego"), module.clone()).map_err(Failure::loading)?;
        }
        engine
            .add_policy("ready.rego".to_owned(), format!("package {PACKAGE}\nready := true"))
            .map_err(Failure::loading)?;
        if let Some(data) = self.data.clone().filter(|data| !data.is_null()) {
            engine.add_data(Value::from(data)).map_err(Failure::loading)?;
        }
        let mut engine = prepared(engine, Bounds::default().budget).map_err(Failure::loading)?;
        if let Some(input) = &self.input {
            engine.set_input(Value::from(input.clone()));
        }
        if let Some(term) = &self.input_term {
            let read = engine.eval_query(term.clone(), false).map_err(Failure::evaluating)?;
            let value = read.result.first().and_then(|result| result.expressions.first());
            engine.set_input(value.unwrap().value.clone());
        }
        let results = engine.eval_query(self.query.clone(), false).map_err(Failure::evaluating)?;
        Ok(results.result.iter().filter_map(bindings).collect())
    }
}

fn bindings(result: &regorus::QueryResult) -> Option<Bindings> {
    let holds = |value: &Value| !matches!(value, Value::Bool(false) | Value::Undefined);
    if !result.expressions.iter().all(|found| holds(&found.value)) {
        return None;
    }
    let named = result.bindings.as_object().ok()?.iter();
    let named = named.map(|(name, value)| (name.as_string().unwrap().to_string(), json(value)));
    Some(named.filter(|(name, _)| !name.starts_with('_')).collect())
}

/// A query's answer: values by the names of variables.
type Bindings = BTreeMap<String, serde_json::Value>;

/// Where a case ended that came to no answer.
enum Failure {
    Loading(String),
    Evaluating(String),
}

impl Failure {
    fn loading(error: impl std::fmt::Display) -> Self {
        Self::Loading(error.to_string())
    }

    fn evaluating(error: impl std::fmt::Display) -> Self {
        Self::Evaluating(error.to_string())
    }
}

/// What is called by a sign and not by these names.
const OPERATORS: [&str; 16] = [
    "and",
    "div",
    "eq",
    "equal",
    "gt",
    "gte",
    "internal.member_2",
    "internal.member_3",
    "lt",
    "lte",
    "minus",
    "mul",
    "neq",
    "or",
    "plus",
    "rem",
];

/// The package of what an engine has to answer before it is ready.
const PACKAGE: &str = "countersign.dispatch";

/// As the cases write values: a set is an array in order.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Set(members) => members.iter_sorted().map(json).collect(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Object(members) => members
            .iter_sorted()
            .filter(|(name, _)| **name != Value::from("countersign"))
            .map(|(name, value)| {
                (name.as_string().map_or_else(|_| name.to_string(), |name| name.to_string()), json(value))
            })
            .collect(),
        Value::Undefined => serde_json::Value::Null,
        other => serde_json::from_str(&other.to_string()).unwrap_or_default(),
    }
}

/// Numbers by what they are worth, `1.0` as `1`; where a case says so, with the items of arrays in one order.
fn plain(found: &Bindings, sorted: bool) -> serde_json::Value {
    fn same(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                    serde_json::from_str(&format!("{float:.0}")).unwrap()
                }
                _ => value.clone(),
            },
            serde_json::Value::Array(items) => items.iter().map(same).collect(),
            serde_json::Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), same(value))).collect()
            }
            other => other.clone(),
        }
    }
    let bound = |value: &serde_json::Value| match same(value) {
        serde_json::Value::Array(mut items) if sorted => {
            items.sort_by_key(ToString::to_string);
            serde_json::Value::Array(items)
        }
        value => value,
    };
    found.iter().map(|(name, value)| (name.clone(), bound(value))).collect()
}

/// The builtins among `names` that no policy may call, found by asking.
fn refused(names: &BTreeSet<String>) -> BTreeSet<String> {
    let asked = |name: &&String| {
        let text = format!("package countersign.org\n\nasked := {name}(1)\n");
        let source = Source {
            name: "org".to_owned(),
            tools: None,
            policies: vec![File { path: "org.rego".to_owned(), text }],
            tests: Vec::new(),
            data: Vec::new(),
        };
        match check::sources(&[source], None) {
            Err(LoadError::Policy(problems)) => problems
                .iter()
                .any(|problem| ["may call", "may not call"].iter().any(|said| problem.message.contains(said))),
            _ => false,
        }
    };
    names.iter().filter(asked).cloned().collect()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

#[test]
fn the_conformance_cases_come_out_as_the_page_says() {
    let Some(directory) = env::var_os("COUNTERSIGN_TEST_OPA_CASES") else { return };
    assert_eq!(READY, format!("data.{PACKAGE}.ready"));
    let mut paths = Vec::new();
    files(Path::new(&directory), &mut paths);
    paths.sort();
    let mut all: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for path in paths {
        // What is no file of cases is something else that lies there.
        let Ok(cases) = serde_json::from_slice::<Cases>(&fs::read(&path).unwrap()) else { continue };
        let folder = path.parent().and_then(Path::file_name).unwrap().to_str().unwrap().to_owned();
        all.entry(folder).or_default().extend(cases.cases);
    }
    let names = all.values().flatten().flat_map(Case::builtins).cloned().collect();
    let text = page(&all, &refused(&names));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/rego-conformance.md");
    if env::var_os("COUNTERSIGN_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), text);
}

fn page(all: &BTreeMap<String, Vec<Case>>, refused: &BTreeSet<String>) -> String {
    let mut rows = String::new();
    let mut listed: BTreeMap<Outcome, String> = BTreeMap::new();
    let mut total: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (folder, cases) in all {
        let mut count: BTreeMap<Outcome, usize> = BTreeMap::new();
        for case in cases {
            let (outcome, what) = case.outcome(refused);
            *count.entry(outcome).or_default() += 1;
            *total.entry(outcome).or_default() += 1;
            if outcome > Outcome::Refused {
                println!(
                    "{}\n  {}\n  wanted {:?}\n  got {what}\n  {:?}",
                    case.note, case.query, case.want_result, case.modules
                );
                writeln!(listed.entry(outcome).or_default(), "- `{}`", case.note).unwrap();
            }
        }
        let cells = ALL.map(|outcome| count.get(&outcome).map_or(String::new(), ToString::to_string));
        writeln!(rows, "| {folder} | {} | {} |", cases.len(), cells.join(" | ")).unwrap();
    }
    let [same, refusals, unreadable, stricter, different] =
        ALL.map(|outcome| total.get(&outcome).copied().unwrap_or_default());
    let listed = |outcome| listed.get(&outcome).map_or("None.\n", String::as_str);
    let names = refused.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    format!(
        "# Rego conformance\n\nThe Open Policy Agent's own conformance cases for Rego v1, evaluated by the engine as it is set \
         up to decide: interpreted, with strict\nbuiltin errors and a time budget. The cases are public \
         ([open-policy-agent/opa](https://github.com/open-policy-agent/opa), `test/cases/testdata/v1`),\nread in the form in \
         which [open-policy-agent/swift-opa](https://github.com/open-policy-agent/swift-opa) keeps them, and not part of this \
         repository.\n`crates/policy/src/engine/conformance.rs` says how to run them.\n\n\
         | | cases |\n|---|--:|\n| come out as they should | {same} |\n| use a builtin that no policy may call: refused when \
         a policy is loaded | {refusals} |\n| cannot be read by the engine: refused when a policy is loaded | {unreadable} \
         |\n| are an error, which denies, where there should be an answer or none | {stricter} |\n| come out otherwise | \
         {different} |\n| together | {} |\n\n\
         ## Builtins that no policy may call\n\nThe engine lacks them, or they look at the clock, chance or the network, or \
         their output is not bounded by their input. A policy that calls\none is refused when it is loaded, with the place and \
         what to write instead:\n\n{names}.\n\n\
         ## Cases that come out otherwise\n\n{}\n## Cases that are an error\n\n{}\n\
         ## Cases that cannot be read\n\n{}\n\
         ## By folder\n\n| folder | cases | as they should | refused builtin | cannot be read | error | otherwise \
         |\n|---|--:|--:|--:|--:|--:|--:|\n{rows}",
        total.values().sum::<usize>(),
        listed(Outcome::Different),
        listed(Outcome::Stricter),
        listed(Outcome::Unreadable),
    )
}

const ALL: [Outcome; 5] = [Outcome::Same, Outcome::Refused, Outcome::Unreadable, Outcome::Stricter, Outcome::Different];
