//! Bad snippets, each with what is said of it, and good ones of which nothing is said.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Action, Catalogue, Effect, ParameterKind, Tool,
    catalogue::{CurrencySource, FactDeclaration, Leaf, ParameterDeclaration, Source as From},
    template::Template,
};

use crate::{Problem, Severity, Source, check::check, engine::tests::source, fixture};

fn parameter(kind: ParameterKind, optional: bool) -> ParameterDeclaration {
    let currency = (kind == ParameterKind::Money).then(|| CurrencySource::Always("USD".to_owned()));
    ParameterDeclaration { kind, value: From::Body("/x".to_owned()), currency, minor: false, scale: 2, optional }
}

fn action(name: &str, method: &str, effect: Effect, parameters: &[(&str, ParameterKind, bool)]) -> Action {
    let parameters =
        parameters.iter().map(|(name, kind, optional)| ((*name).to_owned(), parameter(*kind, *optional))).collect();
    Action {
        id: fixture::id(name),
        method: method.to_owned(),
        template: Template::parse(&format!("/v1/{name}")).unwrap(),
        effect,
        resource: Template::parse("orders").unwrap(),
        facts: (name == "refunds.create").then(|| "order".to_owned()).into_iter().collect(),
        parameters,
        additional: false,
        idempotency: None,
    }
}

/// The tools `orders`, with facts and parameters of every type, and `mail`.
fn catalogue() -> Catalogue {
    let [mut orders, mut mail] =
        <[Tool; 2]>::try_from(fixture::catalogue(&["orders", "mail"]).tools().to_vec()).unwrap();
    if orders.id.as_str() != "orders" {
        std::mem::swap(&mut orders, &mut mail);
    }
    let leaf =
        |at: &str, principal: bool| Leaf { at: at.to_owned(), principal: principal.then(|| fixture::REALM.to_owned()) };
    let pick = [("placed_by", leaf("/by", true)), ("status", leaf("/status", false)), ("total", leaf("/total", false))];
    orders.facts = BTreeMap::from([(
        "order".to_owned(),
        FactDeclaration {
            template: Template::parse("/v1/orders").unwrap(),
            ttl: Duration::ZERO,
            timeout: Duration::ZERO,
            tenant: None,
            pick: pick.map(|(name, leaf)| (name.to_owned(), leaf)).into(),
        },
    )]);
    orders.actions = vec![
        action("orders.read", "GET", Effect::Read, &[]),
        action("notes.draft", "PUT", Effect::Draft, &[("text", ParameterKind::String, true)]),
        action(
            "refunds.create",
            "POST",
            Effect::Write,
            &[
                ("amount", ParameterKind::Money, false),
                ("fee", ParameterKind::Money, true),
                ("count", ParameterKind::Integer, false),
                ("rate", ParameterKind::Decimal, false),
                ("until", ParameterKind::Time, false),
                ("labels", ParameterKind::Set, false),
                ("reason", ParameterKind::String, true),
            ],
        ),
    ];
    mail.actions = vec![action("mail.send", "POST", Effect::Write, &[("to", ParameterKind::String, false)])];
    Catalogue::new(vec![orders, mail], "1".to_owned()).unwrap()
}

fn team(body: &str) -> Source {
    source("support", &["orders"], &format!("package countersign.teams.support\n{body}\n"))
}

fn org(body: &str) -> Source {
    source("org", &[], &format!("package countersign.org\n{body}\n"))
}

fn found(source: Source) -> Vec<Problem> {
    check(&[source], Some(&catalogue())).unwrap()
}

/// Each snippet is the body of a rule that allows; nothing else is wrong with it than what is expected.
#[track_caller]
fn says(body: &str, code: &str, words: &[&str]) {
    let found = found(team(&format!("allow contains {{\"code\": \"x\"}} if {{ {body} }}")));
    one(&found, body, code, words);
}

#[track_caller]
fn one(found: &[Problem], body: &str, code: &str, words: &[&str]) {
    let [problem] = found else { panic!("{body}: {found:#?}") };
    assert_eq!(problem.code, code, "{problem}");
    for word in words {
        assert!(problem.to_string().contains(word), "{body}: {problem} has no {word}");
    }
}

#[track_caller]
fn fine(source: Source) {
    let found = found(source);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_misspelt_name_is_an_error_with_the_nearest_one_however_it_is_reached() {
    for body in [
        "input.action.nam == \"orders.read\"",
        "input[\"action\"].nam == \"orders.read\"",
        "input.action[\"nam\"] == \"orders.read\"",
        "a := input.action; a.nam == \"orders.read\"",
        "a := input; b := a.action; b.nam == \"orders.read\"",
        "input.action = a; a.nam == \"orders.read\"",
        "some a in [input.action]; a.nam == \"orders.read\"",
        "count([a | a := input.action.nam]) == 1",
        "every x in [1] { input.action.nam == x }",
        "not input.action.nam == \"orders.read\"",
        "input.tool in {input.action.nam}",
        "startswith(input.action.nam, \"orders\")",
    ] {
        says(body, "input", &["`input.action` has no `nam`", "did you mean `name`?"]);
    }
    for (body, words) in [
        ("input.aktion.name == \"x\"", ["`input` has no `aktion`", "`action`"]),
        ("input.user.group == \"x\"", ["`input.user` has no `group`", "`groups`"]),
        ("some hop in input.chain; hop.issuers == \"x\"", ["`input.chain[_]` has no `issuers`", "`issuer`"]),
        ("input.chain[_].kin == \"user\"", ["`input.chain[_]` has no `kin`", "`kind`"]),
        ("input.chain[0].kin == \"user\"", ["`input.chain[_]` has no `kin`", "`kind`"]),
        ("input.task.stagee == \"draft\"", ["`input.task` has no `stagee`", "`stage`"]),
        ("input.exchange.to.owner == \"x\"", ["`input` has no `exchange`", "the input of `delegate`"]),
        ("input.delegation.limits.amount.mx.minor == 1", ["`input.delegation.limits.amount` has no `mx`", "`max`"]),
        ("input.tool.name == \"orders\"", ["`input.tool` is a string", "no members"]),
        ("input.chain.kind == \"user\"", ["`input.chain` is an array", "some one in input.chain"]),
        ("input.zebra == 1", ["`input` has no `zebra`", "it has action, agent"]),
    ] {
        says(body, "input", &words);
    }
}

#[test]
fn names_are_followed_through_imports_rules_and_functions() {
    let snippets = [
        "import input.action\nallow contains {\"code\": \"x\"} if action.nam == \"orders.read\"",
        "import input.action as a\nallow contains {\"code\": \"x\"} if a.nam == \"orders.read\"",
        "action := input.action\nallow contains {\"code\": \"x\"} if action.nam == \"orders.read\"",
        "is_read(a) if a.nam == \"orders.read\"\nallow contains {\"code\": \"x\"} if is_read(input.action)",
        "is_read(a) if { b := a; inner(b) }\ninner(c) if c.nam == \"orders.read\"\nallow contains {\"code\": \"x\"} if is_read(input.action)",
        "the(x) := input.action if x\nallow contains {\"code\": \"x\"} if the(true).nam == \"orders.read\"",
        "read if input.action.nam == \"orders.read\"\nallow contains {\"code\": \"x\"} if read",
        "names := {n | n := input.action.nam}\nallow contains {\"code\": \"x\"} if count(names) == 1",
        "allow contains {\"code\": \"x\"} if { 1 == 2 } else := {\"code\": \"y\"} if { input.action.nam == 1 }",
    ];
    for body in snippets.iter().take(8) {
        let found = found(team(body));
        assert!(found.iter().any(|problem| problem.message == "`input.action` has no `nam`"), "{body}: {found:#?}");
    }
    let import = found(team("import input.aktion as a\nallow contains {\"code\": \"x\"} if a.name == \"orders.read\""));
    one(&import, "import", "input", &["`input` has no `aktion`", "`action`"]);
    fine(team(
        "import data.countersign.lib.delegation\nallow contains {\"code\": \"x\"} if { some a in delegation.agents; a.id == \"x\" }",
    ));
    let library = found(team(
        "import data.countersign.lib.delegation\nallow contains {\"code\": \"x\"} if { some a in delegation.agents; a.ids == \"x\" }",
    ));
    one(&library, "library", "input", &["has no `ids`"]);
}

#[test]
fn a_place_is_line_column_and_end() {
    let found = found(team("allow contains {\"code\": \"ö\"} if {\n\tinput.action.nam == \"orders.read\"\n}"));
    let [problem] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((problem.file.as_str(), problem.line, problem.column), ("support.rego", 3, 15));
    assert_eq!((problem.end.line, problem.end.column), (3, 18));
    let found = check(&[team("allow contains {\"code\": \"größe\"} if input.action.nam == \"x\"")], None).unwrap();
    assert_eq!((found[0].line, found[0].column, found[0].end.column), (2, 50, 53));
}

#[test]
fn each_question_has_its_own_input() {
    fine(org(
        "delegate contains {\"code\": \"x\"} if { input.exchange.from.kind == \"agent\"; input.grant.redelegate > 0 }\n\
              manage contains {\"code\": \"x\"} if { input.operation == \"agents.suspend\"; input.caller.id == \"dana\" }",
    ));
    for (body, words) in [
        (
            "delegate contains {\"code\": \"x\"} if input.action.name == \"x\"",
            ["the input of `delegate` has no `action`", "calls"],
        ),
        (
            "manage contains {\"code\": \"x\"} if input.exchange.to.id == \"x\"",
            ["the input of `manage` has no `exchange`", "`delegate`"],
        ),
        ("deny contains {\"code\": \"x\"} if input.caller.id == \"x\"", ["`input` has no `caller`", "`manage`"]),
        (
            "delegate contains {\"code\": \"x\"} if h\nh if input.exchange.too.id == \"x\"",
            ["`input.exchange` has no `too`", "`to`"],
        ),
    ] {
        one(&found(org(body)), body, "input", &words);
    }
    // A rule that both ask for has to be right for both.
    let both = "deny contains {\"code\": \"x\"} if h\ndelegate contains {\"code\": \"x\"} if not h\nh if input.task.stage == \"draft\"";
    one(&found(org(both)), both, "input", &["the input of `delegate` has no `task`", "calls"]);
}

#[test]
fn actions_parameters_and_facts_are_those_of_the_catalogue() {
    for (body, code, words) in [
        ("input.action.name == \"refunds.creat\"", "action", ["`refunds.creat`", "`refunds.create`"]),
        ("\"refunds.creat\" == input.action.name", "action", ["`refunds.creat`", "`refunds.create`"]),
        ("input.action.name != \"refunds.creat\"", "action", ["`refunds.creat`", "`refunds.create`"]),
        (
            "input.action.name in {\"orders.read\", \"refunds.creat\"}",
            "action",
            ["`refunds.creat`", "`refunds.create`"],
        ),
        ("a := input.action.name; a == \"refunds.creat\"", "action", ["`refunds.creat`", "`refunds.create`"]),
        ("input.action.name == \"mail.send\"", "action", ["not asked about `mail.send`", "`mail`"]),
        ("input.tool == \"order\"", "tool", ["never \"order\"", "`orders`"]),
        ("input.action.effect == \"wirte\"", "value", ["never \"wirte\"", "`write`"]),
        ("input.task.stage in {\"supervized\"}", "value", ["never \"supervized\"", "`supervised`"]),
        ("some hop in input.chain; hop.kind == \"usr\"", "value", ["never \"usr\"", "`user`"]),
        ("input.action.parameters.amont.minor == 1", "parameter", ["no action has a parameter `amont`", "`amount`"]),
        (
            "input.action.name == \"orders.read\"; input.action.parameters.amount.minor == 1",
            "parameter",
            ["`orders.read` has no parameter `amount`", "refunds.create"],
        ),
        (
            "input.action.name == \"refunds.create\"; input.action.parameters.amount.minr == 1",
            "input",
            ["amount` has no `minr`", "`minor`"],
        ),
        (
            "input.action.name == \"refunds.create\"; input.action.parameters.amount.currency == \"EUR\"",
            "value",
            ["never \"EUR\"", "USD"],
        ),
        ("input.facts.ordr.status == \"open\"", "fact", ["no tool declares a fact `ordr`", "`order`"]),
        ("input.facts.order.statuss == \"open\"", "fact", ["`input.facts.order` has no `statuss`", "`status`"]),
        ("input.facts.order.placed_by.name == \"x\"", "fact", ["placed_by` has no `name`", "id, issuer"]),
        (
            "input.action.name == \"orders.read\"; input.facts.order.status == \"open\"",
            "fact",
            ["not read for orders.read", "facts: [order]"],
        ),
    ] {
        says(body, code, &words);
    }
    let listed =
        "reads := {\"orders.read\", \"orders.lst\"}\nallow contains {\"code\": \"x\"} if input.action.name in reads";
    one(&found(team(listed)), listed, "action", &["`orders.lst`"]);
}

#[test]
fn without_a_catalogue_nothing_is_said_of_names_that_it_would_have() {
    let body = "allow contains {\"code\": \"x\"} if { input.action.name == \"any.thing\"; input.action.parameters.any.minor > 1; input.facts.any.leaf == 1 }";
    assert_eq!(check(&[team(body)], None).unwrap(), []);
    let wrong = team("allow contains {\"code\": \"x\"} if input.action.nam == \"any.thing\"");
    one(&check(&[wrong], None).unwrap(), "", "input", &["`nam`"]);
}

#[test]
fn values_of_two_kinds_are_not_compared() {
    for (body, words) in [
        ("input.action.parameters.count == \"3\"", ["a number with a string", "without quotes"]),
        ("input.action.parameters.count > \"3\"", ["a number with a string", "without quotes"]),
        ("count(input.chain) == \"2\"", ["a number with a string", "without quotes"]),
        ("input.tool == 1", ["a string with a number", ""]),
        ("input.tool == true", ["a string with true or false", ""]),
        ("input.delegation.covers == \"true\"", ["true or false with a string", ""]),
        ("input.action.parameters.amount > 100", ["an object with a number", "`input.action.parameters.amount.minor`"]),
        ("100 < input.action.parameters.amount", ["a number with an object", "`money.at_most`"]),
        ("input.action.parameters.rate == 1", ["an object with a number", ".unscaled`"]),
        ("input.user.groups == \"admin\"", ["an array with a string", "ask `\"admin\" in input.user.groups`"]),
        ("input.user.groups == {\"admin\"}", ["an array with a set", "make it a set"]),
        ("\"a\" in input.tool", ["nothing is in a string", "`==`"]),
        ("1 in input.user.groups", ["a number among what is a string", ""]),
        ("count(input.user.groups & {\"a\"}) > 0", ["take sets", "make it a set"]),
        ("input.action.parameters.amount + 1 > 3", ["take numbers", ".minor`"]),
        ("startswith(input.chain, \"a\")", ["takes a string", "an array"]),
        ("some x in input.tool; x == 1", ["nothing is in a string", ""]),
    ] {
        says(body, "type", &words);
    }
    says("input.tool == null", "null", &["`input.tool` is never null"]);
    let library = "import data.countersign.lib.money\nallow contains {\"code\": \"x\"} if money.at_most(input.action.parameters.amount.minor, {\"minor\": 1, \"currency\": \"USD\"})";
    one(&found(team(library)), library, "type", &["`money.at_most`", "a number", "input.action.parameters.amount"]);
}

#[test]
fn an_order_is_the_one_that_is_meant() {
    for (body, code, words) in [
        ("input.action.parameters.amount.text > \"100\"", "order", ["written as text", "amount.minor`"]),
        ("input.action.parameters.until.text > \"2026\"", "order", ["not in the order of time", "until.ns`"]),
        ("input.now < \"2027-01-01T00:00:00Z\"", "order", ["not in the order of time", "`input.now_ns`"]),
        ("input.delegation.covers > false", "order", ["no order that means anything", ""]),
        ("input.action.parameters.amount < input.action.parameters.fee", "order", ["no order", "amount.minor`"]),
        // Null comes before every number: what is left out would be little enough.
        ("input.action.parameters.fee.minor <= 100", "null", ["fee.minor` may be null", "is_number("]),
        ("f := input.action.parameters.fee; f.minor < 100", "null", ["fee.minor` may be null", "is_number("]),
    ] {
        let found = found(team(&format!("allow contains {{\"code\": \"x\"}} if {{ {body} }}")));
        assert!(found.iter().all(|problem| problem.code == code) && !found.is_empty(), "{body}: {found:#?}");
        assert!(words.iter().all(|word| found[0].to_string().contains(word)), "{body}: {found:#?}");
    }
    for guard in [
        "is_number(input.action.parameters.fee.minor)",
        "input.action.parameters.fee.minor != null",
        "input.action.parameters.fee.currency == \"USD\"",
    ] {
        fine(team(&format!(
            "allow contains {{\"code\": \"x\"}} if {{ {guard}; input.action.parameters.fee.minor <= 100 }}"
        )));
    }
    fine(team(
        "allow contains {\"code\": \"x\"} if { f := input.action.parameters.fee; is_number(f.minor); f.minor <= 100 }",
    ));
}

#[test]
fn what_may_be_missing_does_not_make_a_deny_say_nothing() {
    for (body, words) in [
        (
            "deny contains {\"code\": \"x\"} if input.facts.order.status == \"closed\"",
            ["order.status` may be null", "this `deny` says nothing"],
        ),
        (
            "approval contains {\"code\": \"x\"} if input.facts.order.total == 1",
            ["order.total` may be null", "this `approval` says nothing"],
        ),
        (
            "deny contains {\"code\": \"x\"} if input.call.headers[\"x-test\"] == \"1\"",
            ["headers[\"x-test\"]` may be missing", "this `deny` says nothing"],
        ),
        (
            "deny contains {\"code\": \"x\"} if { h := input.call.headers.test; h == \"1\" }",
            ["headers.test` may be missing", "this `deny`"],
        ),
        (
            "deny contains {\"code\": \"x\", \"internal\": input.user.attributes.unit} if input.tool == \"orders\"",
            ["attributes.unit` may be missing", "this `deny`"],
        ),
        (
            "deny contains {\"code\": \"x\"} if input.action.parameters.reason in {\"fraud\"}",
            ["reason` may be null", "this `deny`"],
        ),
        (
            "deny contains {\"code\": \"x\"} if input.facts.order.placed_by.id == \"bob\"",
            ["placed_by` may be missing", "this `deny`"],
        ),
        (
            "deny contains {\"code\": \"x\"} if input.chain[2].kind == \"agent\"",
            ["input.chain[2]` may be missing", "this `deny`"],
        ),
        (
            "closed if input.facts.order.status == \"closed\"\ndeny contains {\"code\": \"x\"} if closed",
            ["order.status` may be null", "because of `closed`"],
        ),
        (
            "closed(s) if s == \"closed\"\ndeny contains {\"code\": \"x\"} if closed(input.facts.order.status)",
            ["order.status` may be null", "because of `closed`"],
        ),
        (
            "default closed := false\nclosed if input.facts.order.status == \"closed\"\ndeny contains {\"code\": \"x\"} if closed",
            ["order.status` may be null", "because of `closed`"],
        ),
        // Denied twice over: what is not closed is open, and what is not known is not closed.
        (
            "open if input.facts.order.status != \"closed\"\ndeny contains {\"code\": \"x\"} if not open",
            ["order.status` may be null", "because of `open`"],
        ),
        (
            "open if not input.facts.order.status == \"closed\"\ndeny contains {\"code\": \"x\"} if not open",
            ["order.status` may be null", "because of `open`"],
        ),
        (
            "import data.countersign.lib.delegation\ndeny contains {\"code\": \"x\"} if delegation.is_agent(input.facts.order.placed_by)",
            ["placed_by` may be null", "this `deny`"],
        ),
    ] {
        let found = found(team(body));
        assert!(!found.is_empty(), "{body}");
        for problem in &found {
            assert_eq!((problem.code, problem.severity), ("optional", Severity::Error), "{body}: {problem}");
        }
        assert!(words.iter().all(|word| found[0].to_string().contains(word)), "{body}: {found:#?}");
    }
    let message =
        "deny contains {\"code\": \"x\", \"message\": input.action.parameters.reason} if input.tool == \"orders\"";
    one(&found(team(message)), message, "type", &["`message` has to be text", "null"]);
}

#[test]
fn a_rule_that_says_what_is_missing_is_left_in_peace() {
    for body in [
        "deny contains {\"code\": \"x\"} if not input.facts.order.status == \"open\"",
        "deny contains {\"code\": \"x\"} if input.facts.order.status != \"open\"",
        "deny contains {\"code\": \"x\"} if { is_string(input.facts.order.status); input.facts.order.status == \"closed\" }",
        "deny contains {\"code\": \"x\"} if input.facts.order.status == \"closed\"\ndeny contains {\"code\": \"y\"} if input.facts.order.status == null",
        "deny contains {\"code\": \"x\"} if input.facts.order.status == \"closed\"\nallow contains {\"code\": \"y\"} if is_string(input.facts.order.status)",
        "deny contains {\"code\": \"x\"} if input.call.headers.test == \"1\"\ndeny contains {\"code\": \"y\"} if not input.call.headers.test",
        "deny contains {\"code\": \"x\"} if object.get(input.call.headers, \"test\", \"\") == \"1\"",
        "deny contains {\"code\": \"x\"} if { s := input.facts.order.status; s != null; s == \"closed\" }",
        "default open := false\nopen if input.facts.order.status == \"open\"\ndeny contains {\"code\": \"x\"} if not open",
        "default closed := true\nclosed := false if input.facts.order.status == \"open\"\ndeny contains {\"code\": \"x\"} if closed",
        "import data.countersign.lib.money\ndeny contains {\"code\": \"x\"} if not money.at_most(input.action.parameters.fee, {\"minor\": 1, \"currency\": \"USD\"})",
        "import data.countersign.lib.delegation\nallow contains {\"code\": \"x\"} if delegation.is_user(input.facts.order.placed_by)",
        "allow contains {\"code\": \"x\"} if input.facts.order.status == \"open\"",
        "deny contains {\"code\": \"x\"} if { input.action.name == \"refunds.create\"; input.action.parameters.amount.minor > 5 }",
        "deny contains {\"code\": \"x\"} if { some header in input.call.headers; header == \"1\" }",
        "deny contains {\"code\": \"x\"} if { some hop in input.chain; hop.kind == \"agent\"; hop.covers != true }",
        "deny contains {\"code\": \"x\"} if input.chain[1].id == \"x\"",
        "deny contains {\"code\": \"x\", \"message\": sprintf(\"%v\", [input.action.parameters.reason])} if input.tool == \"orders\"",
    ] {
        fine(team(body));
    }
    let allow = "allow contains {\"code\": \"x\"} if not input.facts.order.status == \"closed\"";
    let found = found(team(allow));
    one(&found, allow, "optional", &["order.status` may be null", "says yes all the same"]);
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn what_is_there_for_nothing_is_a_warning() {
    let good = "deny contains {\"code\": \"x\"} if input.tool == \"orders\"";
    for (body, code, words) in [
        (format!("import data.countersign.lib.money\n{good}"), "unused", ["nothing uses the import `money`", ""]),
        (format!("import input.user\n{good}"), "unused", ["nothing uses the import `user`", ""]),
        (format!("limit := 4\n{good}"), "unused", ["no answer needs the rule `limit`", ""]),
        (format!("limit := 4\ntwice := limit * 2\n{good}"), "unused", ["no answer needs the rule `twice`", ""]),
        (format!("f(x) := x\n{good}"), "unused", ["no answer needs the function `f`", ""]),
        (format!("{good}\n{}", good.replace(" if ", "  if\t")), "duplicate", ["line 2 says the same", ""]),
        (
            "import input.user\ndeny contains {\"code\": \"x\"} if { user.id == \"a\"; f(1) }\nf(user) if user == 1"
                .to_owned(),
            "shadowed",
            ["`user` hides an import", ""],
        ),
        (
            "low := 1\ndeny contains {\"code\": \"x\"} if { f(low) }\nf(low) if low == 1".to_owned(),
            "shadowed",
            ["`low` hides a rule", ""],
        ),
    ] {
        let found = found(team(&body));
        one(&found, &body, code, &words);
        assert_eq!(found[0].severity, Severity::Warning);
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_their_places() {
    let body = "x := time.now_ns()\ndeny contains {\"code\": \"x\"} if input.action.nam == x\nlimit := 4\ndeny contains {\"cod\": \"y\"} if input.tool == 1";
    let found = found(team(body));
    let lines: Vec<_> = found.iter().map(|problem| (problem.line, problem.code)).collect();
    assert_eq!(lines, [(2, "builtin"), (3, "input"), (4, "unused"), (5, "answer"), (5, "answer"), (5, "type")]);
}

#[test]
fn a_policy_that_doubles_with_each_rule_is_read_in_one_go() {
    let mut body = "a0 := input.action\n".to_owned();
    for n in 1..40 {
        body.push_str(&format!("a{n} if {{ b{n} := a{}; c{n} := a{}; b{n} == c{n} }}\n", n - 1, n - 1));
    }
    body.push_str("deny contains {\"code\": \"x\"} if a39");
    fine(team(&body));
    // Objects that hold the one before twice, in two lines that meet.
    let line = |name: &str| -> String {
        let each = |n: u32| format!("{name}{n} := {{\"l\": {name}{0}, \"r\": {name}{0}}}\n", n - 1);
        format!("{name}0 := 1\n{}", (1..18).map(each).collect::<String>())
    };
    let meeting =
        format!("{}{}both := [a17, b17]\ndeny contains {{\"code\": \"x\"}} if both[0].l == 1", line("a"), line("b"));
    found(team(&meeting));
}

#[test]
fn a_line_of_rules_as_long_as_any_is_read_on_a_small_stack() {
    let mut body: String = (0..70).map(|n| format!("r{n} if r{}\n", n + 1)).collect();
    body.push_str("r70 if input.action.nam == \"x\"\ndeny contains {\"code\": \"x\"} if r0");
    let read = || found(team(&body)).into_iter().map(|problem| problem.code).collect::<Vec<_>>();
    let codes = std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, read).unwrap().join().unwrap()
    });
    assert_eq!(codes, ["input"]);
}

/// Rego that parses, most of it nonsense.
mod nonsense;
