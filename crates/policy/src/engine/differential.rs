//! Another engine's word beside ours: generated questions, put to the policies of this repository here and in rego-cpp
//! (`tests/parts/rego`). What they share of Rego they have to read alike.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use model::{Effect, FactValue, Question, Sensitivity, Stage};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{Bounds, Engine, ask};
use crate::{Source, fixture, input, library};

/// How many questions are asked; with `COUNTERSIGN_TEST_LONG` very many.
const QUESTIONS: usize = 150;
const MANY_QUESTIONS: usize = 5_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fact() -> impl Strategy<Value = FactValue> {
    prop_oneof![
        Just(fixture::placed_by("alice")),
        Just(fixture::placed_by("bob")),
        Just(FactValue::Text("alice".to_owned())),
        Just(FactValue::Null),
    ]
}

fn status() -> impl Strategy<Value = FactValue> {
    prop::sample::select(&["open", "closed", "paid", ""][..]).prop_map(|status| match status {
        "" => FactValue::Null,
        status => FactValue::Text(status.to_owned()),
    })
}

fn question() -> impl Strategy<Value = Question> {
    let action = prop::sample::select(&["orders.read", "orders.list", "notes.draft", "refunds.create", "x.y"][..]);
    let effect = prop::sample::select(&[Effect::Read, Effect::Draft, Effect::Write][..]);
    let amount = (prop::sample::select(&["0", "20.00", "100.00", "100.01", "5000"][..]), any::<bool>());
    let of_task = (
        prop::sample::select(&[Sensitivity::Low, Sensitivity::Medium, Sensitivity::High][..]),
        prop::sample::select(&[Stage::Observe, Stage::Draft, Stage::Supervised][..]),
    );
    let of_principals = (
        prop::sample::select(&["acme", "globex", ""][..]),
        prop::sample::select(&["", " ", "dana@acme.example"][..]),
        prop::option::of(Just("urn:example:acr:mfa")),
        any::<bool>(),
        1..6_usize,
    );
    (action, effect, amount, fact(), status(), of_task, of_principals).prop_map(
        |(action, effect, (amount, dollars), placed_by, status, (sensitivity, stage), principals)| {
            let (tenant, owner, acr, bounded, agents) = principals;
            let mut question = fixture::question();
            question.call.action = fixture::id(action);
            question.call.effect = effect;
            question.call.parameters = fixture::amount(amount, if dollars { "USD" } else { "EUR" });
            question.facts = fixture::order(placed_by, status);
            let mut agent = question.agent.as_ref().clone();
            owner.clone_into(&mut agent.owner);
            question.agent = Arc::new(agent);
            let mut delegation = fixture::delegation();
            delegation.task.sensitivity = sensitivity;
            delegation.task.stage = stage;
            delegation.user.acr = acr.map(str::to_owned);
            if !bounded {
                delegation.authority.elements[0].limits = model::Limits::default();
            }
            delegation.chain = fixture::chain(agents, (!tenant.is_empty()).then_some(tenant));
            question.delegation = Arc::new(delegation);
            question
        },
    )
}

/// Questions, the same each time.
fn questions(count: usize) -> Vec<Question> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(|_| question().new_tree(&mut runner).unwrap().current()).collect()
}

/// What our engine says: for each package, for each set that it declares, the codes.
fn ours(engine: &Engine, question: &Question) -> Result<Value, String> {
    let mut asked = engine.prototype.clone();
    asked.set_input(input::value(question).map_err(|error| error.to_string())?);
    let mut said = BTreeMap::new();
    for package in &engine.tools[&question.call.tool].packages {
        let answers = ask(&mut asked, package).map_err(|error| format!("{error:?}"))?;
        let codes = |reasons: &[model::Reason]| -> Value { reasons.iter().map(|reason| &*reason.code).collect() };
        let sets =
            json!({"allow": codes(&answers.allow), "deny": codes(&answers.deny), "approval": codes(&answers.approval)});
        said.insert(package.name.clone(), sets);
    }
    Ok(json!(said))
}

/// The rule that the other engine is asked for, which says the same.
fn asked(engine: &Engine, tool: &str) -> String {
    let package = |package: &crate::dispatch::Package| {
        let declared: Vec<_> = package.answers.iter().map(|answer| answer.name()).collect();
        let set = |name: &str| match declared.contains(&name) {
            true => format!("\"{name}\": {{reason.code | some reason in data.{}.{name}}}", package.name),
            false => format!("\"{name}\": set()"),
        };
        format!("\"{}\": {{{}}}", package.name, ["allow", "deny", "approval"].map(set).join(", "))
    };
    let packages: Vec<_> = engine.tools[&fixture::id(tool)].packages.iter().map(package).collect();
    format!("package asked\n\nall := {{{}}}\n", packages.join(", "))
}

fn theirs(directory: &Path, modules: &[PathBuf], questions: &[Question]) -> Vec<Value> {
    let mut child = Command::new("python3")
        .arg(root().join("tests/parts/rego/evaluate.py"))
        .arg("data.asked.all")
        .args(modules)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answers = Vec::new();
    for question in questions {
        let text = input::canonical_json(question).unwrap();
        input.write_all(&text).and_then(|()| input.write_all(b"\n")).unwrap();
        answers.push(serde_json::from_str(&output.next().unwrap().unwrap()).unwrap());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    answers
}

#[test]
fn another_engine_of_rego_reads_the_policies_alike() {
    if !root().join("tests/parts/rego/packages/installed").exists() {
        let required = env::var_os("COUNTERSIGN_TEST_PARTS_REQUIRED").is_some();
        assert!(!required, "tests/parts/rego is not installed: run `.ci/run parts`");
        println!("SKIPPED another engine of Rego: tests/parts/rego is not installed: run `.ci/run parts`");
        return;
    }
    let count = if env::var_os("COUNTERSIGN_TEST_LONG").is_some() { MANY_QUESTIONS } else { QUESTIONS };
    let questions = questions(count);
    for (org, team) in [("org", "orders"), ("starters/org", "starters/support")] {
        let policies = root().join("policies");
        let orders = Some([fixture::id("orders")].into());
        let sources = [
            Source::read("org", &policies.join(org), None).unwrap(),
            Source::read("support", &policies.join(team), orders).unwrap(),
        ];
        let bounds = Bounds { budget: std::time::Duration::from_secs(600), ..Bounds::default() };
        let engine = Engine::load_within(&sources, &fixture::catalogue(&["orders"]), bounds).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut modules = Vec::new();
        let asked = crate::bundle::File { path: "asked.rego".to_owned(), text: asked(&engine, "orders") };
        let of_sources = sources.iter().flat_map(|source| source.policies.clone());
        for (index, file) in library::files().into_iter().chain(of_sources).chain([asked]).enumerate() {
            let path = directory.path().join(format!("{index}.rego"));
            std::fs::write(&path, file.text).unwrap();
            modules.push(path);
        }
        let mut verdicts = BTreeMap::new();
        for (question, theirs) in questions.iter().zip(theirs(directory.path(), &modules, &questions)) {
            let ours = ours(&engine, question).unwrap();
            let shown = String::from_utf8(input::canonical_json(question).unwrap()).unwrap();
            assert_eq!(ours, theirs, "{team}: {shown}");
            *verdicts.entry(ours.to_string()).or_insert(0_usize) += 1;
        }
        assert!(verdicts.len() > 10, "{team}: the questions are too much alike: {verdicts:?}");
    }
}
