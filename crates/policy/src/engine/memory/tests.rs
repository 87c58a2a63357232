//! A remembered decision, and one made of the part that policies read, is the one that the whole input would get.

use std::sync::Arc;

use model::{FactValue, Part, Question, Sensitivity, Stage, question::LimitState};

use super::super::tests::source;
use crate::{Bounds, Engine, Source, fixture, input};

/// A change of one thing that a policy can see.
type Change = fn(&mut Question);

/// One for each part of the input.
const CHANGES: [Change; 24] = [
    |question| question.id = fixture::id("L1.0198f3a2-7d1e-7000-8000-000000000002"),
    |question| question.now = "2026-11-22T10:00:01Z".parse().unwrap(),
    |question| question.request.method = "PUT".to_owned(),
    |question| question.request.path = model::CanonicalPath::parse("/orders/v1/orders/18").unwrap(),
    |question| drop(question.request.headers.insert("x-ticket".to_owned(), "1".to_owned())),
    |question| question.call.tool = fixture::id("mail"),
    |question| question.call.action = fixture::id("orders.read"),
    |question| question.call.effect = model::Effect::Read,
    |question| question.call.resource = "orders/18".to_owned(),
    |question| question.call.parameters = fixture::amount("20.01", "USD"),
    |question| question.call.parameters = fixture::amount("20.00", "EUR"),
    |question| agent(question).owner = String::new(),
    |question| agent(question).status = model::AgentStatus::Suspended,
    |question| drop(agent(question).actions.pop_first()),
    |question| question.facts = fixture::order(fixture::placed_by("bob"), fixture::open()),
    |question| question.facts = fixture::order(FactValue::Null, fixture::open()),
    |question| question.facts = fixture::order(fixture::placed_by("alice"), FactValue::Text("closed".to_owned())),
    |question| question.limits = vec![limit()],
    |question| delegation(question).tenant = fixture::id("other"),
    |question| delegation(question).task.stage = Stage::Observe,
    |question| delegation(question).task.sensitivity = Sensitivity::High,
    |question| drop(delegation(question).user.groups.pop_first()),
    |question| {
        delegation(question).authority.scope = ["orders.read"].into_iter().map(fixture::id::<model::Action>).collect();
    },
    |question| delegation(question).token.expires_at = "2026-11-22T10:04:00Z".parse().unwrap(),
];

fn agent(question: &mut Question) -> &mut model::Agent {
    Arc::make_mut(&mut question.agent)
}

fn delegation(question: &mut Question) -> &mut model::Delegation {
    Arc::make_mut(&mut question.delegation)
}

fn limit() -> LimitState {
    LimitState {
        name: "daily".to_owned(),
        max: model::Amount::Money(model::Money::from_major("200.00", "USD").unwrap()),
        used: None,
        window: "P1D".parse().unwrap(),
        hop: 0,
    }
}

fn questions() -> impl Iterator<Item = Question> {
    let changed = CHANGES.iter().map(|change| {
        let mut question = fixture::question();
        change(&mut question);
        question
    });
    std::iter::once(fixture::question()).chain(changed)
}

fn engine(body: &str, remembered: usize) -> Engine {
    let text = format!("package countersign.teams.support\n{body}\nallow contains {{\"code\": \"all\"}}\n");
    let bounds = Bounds { budget: std::time::Duration::from_secs(600), remembered, ..Bounds::default() };
    let sources: [Source; 1] = [source("support", &["orders", "mail"], &text)];
    Engine::load_within(&sources, &fixture::catalogue(&["orders", "mail"]), bounds)
        .unwrap_or_else(|error| panic!("{body}: {error:?}"))
}

/// Asks every question of an engine that remembers, twice, and of one that is given everything and remembers nothing.
fn decides_as_with_everything(body: &str) {
    let remembering = engine(body, 4096);
    let fresh = engine(&format!("{body}\nwhole := input"), 0);
    assert!(fresh.tools.values().all(|asked| asked.reads.touches(&["anything", "at", "all"])));
    for _ in 0..2 {
        for question in questions() {
            assert_eq!(remembering.decide(&question), fresh.decide(&question), "{body}\n{question:#?}");
        }
    }
}

/// Every path of the document that ends in a leaf or an array.
fn leaves(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) if !members.is_empty() => {
            for (name, below) in members {
                leaves(below, format!("{path}[\"{name}\"]"), found);
            }
        }
        _ => found.push(path),
    }
}

#[test]
fn whatever_single_part_a_policy_reads_decides_as_if_it_were_given_everything_and_asked_each_time() {
    let document = serde_json::from_slice(&input::canonical_json(&fixture::question()).unwrap()).unwrap();
    let mut paths = Vec::new();
    leaves(&document, "input".to_owned(), &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    for path in paths {
        decides_as_with_everything(&format!(
            "deny contains {{\"code\": \"seen\", \"message\": sprintf(\"%v\", [{path}])}}"
        ));
    }
}

#[test]
fn however_a_policy_reaches_a_part_of_the_input_a_change_of_it_is_seen() {
    for body in [
        "import input.action as act\ndeny contains {\"code\": \"x\", \"message\": act.resource}",
        "import input.facts\ndeny contains {\"code\": \"x\", \"message\": facts.order.status}",
        "of(a) := a.resource\ndeny contains {\"code\": \"x\", \"message\": of(input.action)}",
        "of(a) := within(a.parameters)\nwithin(p) := p.amount.text\ndeny contains {\"code\": \"x\", \"message\": of(input.action)}",
        "of(a) := b if { b := a }\ndeny contains {\"code\": \"x\", \"message\": sprintf(\"%v\", [of(input.action)])}",
        "of({\"id\": id, \"issuer\": _}) := id\ndeny contains {\"code\": \"x\", \"message\": of(input.facts.order.placed_by)}",
        "of(a, b) := sprintf(\"%v%v\", [a.name, b.owner])\ndeny contains {\"code\": \"x\", \"message\": of(input.action, input.agent)}",
        "of(input) := input.resource\ndeny contains {\"code\": \"x\", \"message\": of({\"resource\": input.action.effect})}",
        "deny contains {\"code\": \"x\", \"message\": scope} if some scope in input.delegation.scope",
        "deny contains {\"code\": \"x\", \"message\": sprintf(\"%v\", [[hop.covers | some hop in input.chain]])}",
        "deny contains {\"code\": \"x\"} if { every action in input.agent.actions { action != \"notes.draft\" } }",
        "table := {\"write\": \"w\", \"read\": \"r\"}\ndeny contains {\"code\": \"x\", \"message\": table[input.action.effect]}",
        "parts := [\"resource\"]\ndeny contains {\"code\": \"x\", \"message\": input.action[parts[0]]}",
        "deny contains {\"code\": \"x\", \"message\": m} if { some path, m; walk(input.task, [path, m]); is_string(m) }",
        "deny contains {\"code\": \"x\", \"message\": object.get(input, [\"action\", \"resource\"], \"none\")}",
        "everything := x if { x := input }\ndeny contains {\"code\": \"x\", \"message\": everything.agent.owner}",
        "import data.countersign.lib.money\nimport data.countersign.lib.delegation\ndeny contains {\"code\": \"x\"} if { money.at_most(input.action.parameters.amount, {\"minor\": 2000, \"currency\": \"USD\"}); delegation.covers(input.action) }",
        "import data.countersign.lib.delegation\ndeny contains {\"code\": \"x\"} if delegation.is_user(input.facts.order.placed_by)",
        "default of(_) := \"none\"\nof(a) := a.resource if a.effect == \"write\"\ndeny contains {\"code\": \"x\", \"message\": of(input.action)}",
        "inner.deep := input.user.groups\ndeny contains {\"code\": \"x\", \"message\": sprintf(\"%v\", [inner.deep])}",
        "deny contains {\"code\": \"x\", \"message\": input.now}",
    ] {
        decides_as_with_everything(body);
    }
}

fn reads(body: &str) -> Part {
    engine(body, 1).tools.remove(&fixture::id("orders")).unwrap().reads
}

#[test]
fn a_part_that_no_rule_looks_at_is_left_out_also_behind_a_function() {
    let reads = reads(
        "import data.countersign.lib.delegation\nimport data.countersign.lib.money\n\
         deny contains {\"code\": \"x\"} if { delegation.covers(input.action); not money.at_most(input.action.parameters.amount, input.facts.order.total) }",
    );
    for read in
        [&["action", "name"][..], &["delegation", "covers"], &["chain"], &["action", "parameters", "amount", "minor"]]
    {
        assert!(reads.touches(read), "{read:?}");
    }
    for unread in [
        &["action", "resource"][..],
        &["call"],
        &["now"],
        &["agent"],
        &["user"],
        &["action", "parameters", "amount", "text"],
    ] {
        assert!(!reads.touches(unread), "{unread:?}");
    }
}

#[test]
fn what_is_different_each_time_is_not_kept_and_what_two_tools_are_asked_is_kept_apart() {
    let kept = |body: &str| {
        let engine = engine(body, 16);
        engine.decide(&fixture::question());
        engine.memory.decisions.as_ref().unwrap().len()
    };
    assert_eq!(kept("deny contains {\"code\": \"x\"} if input.action.name == \"none\""), 1);
    for never in ["input.now", "input.now_ns", "input.call.id", "input.call", "input"] {
        assert_eq!(kept(&format!("deny contains {{\"code\": \"x\"}} if {never} == 1")), 0, "{never}");
    }
    // What obliges to much is much to keep, also where it is a list of what is allowed.
    let one_of = |most: usize| {
        kept(&format!(
            "obligations contains {{\"limit\": {{\"to\": {{\"one_of\": [v | some n in numbers.range(1, {most}); \
             v := sprintf(\"account-{}-%d\", [n])]}}}}}}",
            "0".repeat(40)
        ))
    };
    assert_eq!((one_of(3), one_of(100)), (1, 0));
    // A builtin's error, which another version of the engine or of the input may not have.
    assert_eq!(kept("deny contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.action.name) > 0"), 0);
    // Nor a denial beside one: what failed may work the next time, and the denial's reasons say that it failed.
    let denied = "deny contains {\"code\": \"always\"}";
    let failing =
        "package countersign.org\ndeny contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.action.name) > 0";
    let sources = [
        source("org", &[], failing),
        source("support", &["orders"], &format!("package countersign.teams.support\n{denied}")),
    ];
    let engine = Engine::load(&sources, &fixture::catalogue(&["orders", "mail"])).unwrap();
    assert_eq!(engine.decide(&fixture::question()).code, Some(model::Code::PolicyDenied));
    assert_eq!(engine.memory.decisions.as_ref().unwrap().len(), 0);

    let text = "package countersign.teams.one\nallow contains {\"code\": \"one\"}";
    let other = "package countersign.teams.two\ndeny contains {\"code\": \"two\"}";
    let sources = [source("one", &["orders"], text), source("two", &["mail"], other)];
    let engine = Engine::load(&sources, &fixture::catalogue(&["orders", "mail"])).unwrap();
    let mut mail = fixture::question();
    mail.call.tool = fixture::id("mail");
    let verdicts = [engine.decide(&fixture::question()).verdict, engine.decide(&mail).verdict];
    assert_eq!(verdicts, [model::Verdict::Permit, model::Verdict::Deny]);
}

#[test]
fn an_agent_that_asks_something_new_each_time_does_not_make_the_memory_grow() {
    let engine = engine("deny contains {\"code\": \"x\"} if input.action.resource == \"none\"", 64);
    let mut question = fixture::question();
    for number in 0..2000 {
        question.call.resource = format!("orders/{number}");
        engine.decide(&question);
    }
    assert!(engine.memory.decisions.as_ref().unwrap().len() <= 64);
}
