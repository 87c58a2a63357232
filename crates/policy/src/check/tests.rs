//! Policies that must not be loaded, each with what the error has to say and where.

use super::*;
use crate::{Engine, bundle::Data, engine::tests::source, fixture};

fn team(body: &str) -> Source {
    source("support", &["orders"], &format!("package countersign.teams.support\n{body}\n"))
}

fn load(sources: &[Source]) -> Result<Engine, LoadError> {
    Engine::load(sources, &fixture::catalogue(&["orders", "mail"]))
}

#[track_caller]
fn refused(source: Source, expected: &str) {
    match load(&[source]) {
        Ok(_) => panic!("loaded; expected: {expected}"),
        Err(error) => assert!(error.to_string().contains(expected), "{error}\nexpected: {expected}"),
    }
}

#[test]
fn recursion_is_refused_whatever_way_it_takes() {
    for body in [
        "f(x) := y if y := f(x)",
        "f(x) := g(x)\ng(x) := f(x)",
        "a if b\nb if a",
        "a if not a",
        "a := {x | some x in b}\nb := {x | some x in a}",
        "a contains x if some x in a",
        "f(x) if x == 1\nf(x) if f(x - 1)",
        "a := data.countersign.teams.support.b\nb := a",
        "import data.countersign.teams.support as me\na := me.b\nb := a",
        "a := 1 if every x in [1] { b == x }\nb := 1 if a",
        "a := 1 if { input.x } else := b\nb := a",
        "a[x] := y if { some x in [1]; y := a[x] }",
        "a.b := c\nc := a",
        "default f(_) := false\nf(x) if f(x)",
        "deny contains {\"code\": \"x\"} if count(deny) == 0",
        "a := [1 | f(1)]\nf(x) if x == a[0]",
    ] {
        refused(team(body), "recursion");
    }
}

#[test]
fn recursion_through_a_package_below_is_refused_even_when_the_name_is_made_at_run_time() {
    let mut two = team("a := data.countersign.teams.support.below[input.tool]");
    two.policies.push(File {
        path: "below.rego".to_owned(),
        text: "package countersign.teams.support.below\nb := data.countersign.teams.support.a".to_owned(),
    });
    refused(two, "recursion");
}

#[test]
fn a_long_line_of_rules_is_refused() {
    let line = |rules: usize| (0..rules).map(|n| format!("r{n} if r{}\n", n + 1)).collect::<String>();
    load(&[team(&format!("{}r50 := 1", line(50)))]).unwrap();
    refused(team(&format!("{}r400 := 1", line(400))), "deep in all");
}

#[test]
fn nesting_that_the_engine_would_choke_on_is_refused_before_it_is_parsed() {
    let nested =
        |open: &str, depth: usize, close: &str| team(&format!("a := {}1{}", open.repeat(depth), close.repeat(depth)));
    load(&[nested("[", 12, "]")]).unwrap();
    refused(nested("[", 28, "]"), "support.rego:2:18: brackets nested");
    refused(nested("{1: [", 28, "]}"), "brackets nested");
    refused(nested("abs(", 40, ")"), "nested");
    let sum = format!("a := 1{}", " +\n1".repeat(5_000));
    refused(team(&sum), "operators in one expression");
    refused(team(&format!("a := 1{}", " + 1".repeat(90))), "nested");
    refused(team(&format!("a := input{}", ".b".repeat(400))), "nested");
}

#[test]
fn what_the_policy_cannot_bound_or_repeat_is_refused_with_what_to_use_instead() {
    for (call, hint) in [
        ("net.cidr_expand(input.call.headers.cidr)", "net.cidr_contains"),
        ("net.cidr_expand(\"10.0.0.0/8\")", "net.cidr_contains"),
        ("http.send({\"method\": \"get\", \"url\": \"http://x\"})", "fact"),
        ("time.now_ns()", "input.now_ns"),
        ("rand.intn(\"x\", 3)", "come out the same"),
        ("uuid.rfc4122(\"x\")", "come out the same"),
        ("opa.runtime()", "come out the same"),
        ("print(input)", "internal"),
        ("trace(\"x\")", "internal"),
        ("json.unmarshal(input.call.path)", "parameter"),
        ("to_number(input.call.path)", "parameter"),
        ("numbers.range(1, input.now_ns)", "argument 2"),
        ("numbers.range(1, 1000000000)", "too large"),
        ("numbers.range_step(1, 5, input.now_ns)", "argument 3"),
        ("bits.lsh(1, input.now_ns)", "argument 2"),
        ("bits.lsh(1, 100000)", "too large"),
        ("regex.match(input.call.path, \"x\")", "argument 1"),
        ("regex.replace(\"x\", input.call.path, \"y\")", "argument 2"),
        ("glob.match(input.call.path, [], \"x\")", "argument 1"),
        ("replace(input.call.path, \"a\", input.tool)", "argument 3"),
        ("concat(input.tool, [\"a\"])", "argument 1"),
        ("sprintf(input.tool, [1])", "argument 1"),
        ("sprintf(\"%1000000000d\", [1])", "pads"),
        ("json.patch({}, input.chain)", "argument 2"),
        ("graph.reachable_paths({}, {\"a\"})", "graph.reachable"),
        ("io.jwt.decode(input.tool)", "there is no function"),
        ("crypto.sha256(input.tool)", "there is no function"),
        ("no_such(1)", "there is no function"),
        ("startswith(\"a\")", "takes 2 arguments"),
        ("__builtin_sets.union({1}, {2})", ""),
    ] {
        refused(team(&format!("x := {call}")), hint);
        refused(team(&format!("deny contains {{\"code\": \"x\"}} if not {call}")), hint);
    }
    load(&[team("x := numbers.range(1, 10)\ny := sprintf(\"%5d of %s%%\", [1, input.tool])\nz := bits.lsh(1, 8)")])
        .unwrap();
}

#[test]
fn a_policy_reads_its_own_package_and_the_library_and_nothing_else() {
    for (body, expected) in [
        ("x := data", "reaches into packages of others"),
        ("x := data.countersign", "reaches into packages of others"),
        ("x := data.countersign.teams", "reaches into packages of others"),
        ("x := data.countersign.lib", "reaches into packages of others"),
        ("x := data[input.tool]", "reaches into packages of others"),
        ("x := data.countersign[input.tool]", "reaches into packages of others"),
        ("x := data.countersign.teams[input.tool].allow", "reaches into packages of others"),
        ("x := data[\"countersign\"][input.tool]", "reaches into packages of others"),
        ("x := walk(data)", "reaches into packages of others"),
        ("import data as d\nx := d.countersign", "reaches into packages of others"),
        ("x := data.countersign.teams.support[input.tool]", "made at run time"),
        ("import data.countersign.teams.support as me\nx := me[input.tool]", "made at run time"),
        ("x := data.countersign.org.deny", "belongs to somebody else"),
        ("import data.countersign.teams.mail\nx := mail.allow", "belongs to somebody else"),
        ("x := data.countersign.teams.mail.f(1)", "there is no function"),
        ("x := data.countersign.dispatch.ready", "belongs to somebody else"),
        ("x := data.other", "belongs to somebody else"),
        ("import data.countersign.lib.mony\nx := mony.at_most(1, 2)", "there is no"),
        ("import data.countersign.lib.money\nx := money.atmost(1, 2)", "there is no function"),
        ("x := data.countersign.teams.support.absent", "there is no"),
        ("import data.countersign.lib.money\nx := money.at_most(1)", "takes 2 arguments"),
        ("x if y with input as {}\ny := input.tool", "`with`"),
        ("x if count([]) == 0 with count as data.countersign.lib.money.at_most", "`with`"),
        ("x := 1 if startswith(\"a\", \"a\") with data.countersign.org.deny as set()", "`with`"),
    ] {
        refused(team(body), expected);
    }
}

#[test]
fn a_package_outside_its_source_is_refused_with_file_and_line() {
    for package in [
        "countersign.lib.money",
        "countersign.org",
        "countersign.teams.mail",
        "countersign.teams",
        "countersign.teams.supporters",
        "countersign.dispatch",
        "countersign",
        "other",
    ] {
        let stray = source("support", &["orders"], &format!("# words\n\npackage {package}\n\nx := 1\n"));
        let error = load(&[stray]).unwrap_err().to_string();
        assert!(error.starts_with("support.rego:3:"), "{error}");
        assert!(error.contains("its packages begin with `countersign.teams.support`"), "{error}");
    }
    let team_in_org = source("org", &[], "package countersign.teams.support\nallow contains {\"code\": \"x\"}");
    refused(team_in_org, "its packages begin with `countersign.org`");
    let dynamic = source("support", &["orders"], "package countersign.teams[\"sup port\"]\nx := 1");
    refused(dynamic, "not a plain one");
    refused(source("support", &["orders"], "package countersign.teams.support.deny\nx := 1"), "name of an answer");
}

#[test]
fn an_answer_is_a_set_of_objects_with_known_members() {
    for (body, expected) in [
        ("default allow := false", "is a set of objects"),
        ("allow := true", "is a set of objects"),
        ("allow if input.tool", "is a set of objects"),
        ("deny := {\"code\": \"x\"}", "is a set of objects"),
        ("deny(x) := x", "is a set of objects"),
        ("deny[x] := 1 if some x in [1]", "kept for the package's set"),
        ("deny.x := 1", "kept for the package's set"),
        ("x.deny contains {\"code\": \"x\"}", "kept for the package's set"),
        ("allow contains \"text\"", "is an object with a `code`"),
        ("allow contains {\"mesage\": \"x\", \"code\": \"x\"}", "has no `mesage`"),
        ("allow contains {\"message\": \"x\"}", "has a `code`"),
        ("deny contains {\"code\": \"x\", \"approvers\": []}", "has no `approvers`"),
    ] {
        refused(team(body), expected);
    }
    load(&[team("delegate contains {\"code\": \"x\"}")]).unwrap();
}

#[test]
fn the_platform_teams_policy_never_allows() {
    let org = |body: &str| source("org", &[], &format!("package countersign.org\n{body}"));
    refused(org("allow contains {\"code\": \"x\"}"), "never allows");
    refused(source("org", &[], "package countersign.org.below\nallow contains {\"code\": \"x\"}"), "never allows");
    load(&[org("deny contains {\"code\": \"x\"}\napproval contains {\"code\": \"y\"}")]).unwrap();
}

#[test]
fn a_problem_names_file_line_and_column_and_all_problems_come_at_once() {
    let error = load(&[team("x := time.now_ns()\n\ny := 1 if { rand.intn(\"a\", 2) == 1 }")]).unwrap_err();
    let LoadError::Policy(problems) = error else { panic!("{error}") };
    let places: Vec<_> = problems.iter().map(|found| (found.file.as_str(), found.line, found.column > 1)).collect();
    assert_eq!(places, [("support.rego", 2, true), ("support.rego", 4, true)]);
    let unparsed = load(&[team("x := [1,\ny if {")]).unwrap_err().to_string();
    assert!(unparsed.starts_with("support.rego:3:"), "{unparsed}");
    for text in ["", "x := 1", "package", "package countersign.teams.support\nx := $\"{input}\""] {
        assert!(load(&[source("support", &["orders"], text)]).is_err(), "{text}");
    }
}

#[test]
fn sources_fit_the_catalogue_and_each_other() {
    let fails = |sources: &[Source], expected: &str| {
        let error = load(sources).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    fails(&[team("x := 1"), team("y := 1")], "used twice");
    let mut unbound = team("x := 1");
    unbound.tools = None;
    fails(&[unbound], "`for`");
    let mut bound_org = source("org", &[], "package countersign.org");
    bound_org.tools = Some([fixture::id("orders")].into());
    fails(&[bound_org], "no `for`");
    fails(&[source("support", &["ordres"], "package countersign.teams.support")], "`ordres`");
    for name in ["", "Support", "a.b", "a-b", "allow", "lib/x"] {
        fails(&[source(name, &["orders"], "package x")], "a source is called");
    }
}

#[test]
fn data_documents_stay_under_their_owners_root_and_off_its_rules() {
    let with_data = |json: &str, body: &str| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("data.json"), json).unwrap();
        std::fs::write(directory.path().join("a.rego"), format!("package countersign.teams.support\n{body}")).unwrap();
        Source::read("support", directory.path(), Some([fixture::id("orders")].into())).unwrap()
    };
    for json in [
        r#"{"countersign": {"org": {"deny": []}}}"#,
        r#"{"countersign": {"teams": {"support": {}, "mail": {}}}}"#,
        r#"{"countersign": {"lib": {"money": {}}}}"#,
        r#"{"other": 1}"#,
        r#"{"countersign": 1}"#,
        r#"{"countersign": {"teams": {"support": 1}}}"#,
    ] {
        refused(with_data(json, "x := 1"), "lies under `data.countersign.teams.support`");
    }
    refused(with_data(r#"{"countersign": {"teams": {"support": {"x": 1}}}}"#, "x := 2"), "has the rule's name too");
    let deny = r#"{"countersign": {"teams": {"support": {"deny": {}}}}}"#;
    refused(with_data(deny, "deny contains {\"code\": \"x\"}"), "has the rule's name too");
    let known: fn(&Data) -> Option<String> = |data| data.outside(&["countersign".to_owned()]);
    assert_eq!(known(&with_data(r#"{"countersign": {}}"#, "x := 1").data[0]), None);
}

#[test]
fn a_team_cannot_redefine_the_library() {
    refused(team("import data.countersign.lib.money\nmoney.at_most(a, b) := true"), "is an import");
    let shadow = source("support", &["orders"], "package countersign.lib.delegation\ncovers(_) := true");
    refused(shadow, "does not belong to this source");
}

#[test]
fn a_name_stands_for_one_thing() {
    for (body, expected) in [
        ("import data.countersign.teams.support as input\na := input.b\nb := a", "stands for something else"),
        ("import input.user as data\na := data.id", "stands for something else"),
        ("import data.countersign.lib.money\nimport data.countersign.lib.stage as money", "stands for something else"),
        ("input := {\"tool\": \"x\"}", "cannot be shadowed"),
        ("data := 1", ""),
        ("import input.user\nuser := 1", "an import or a document"),
        ("import http.send", "import path must begin with"),
        ("import rego.v0", "cannot be imported"),
        ("import rego", "cannot be imported"),
        ("import future.builtins", "invalid import"),
    ] {
        refused(team(body), expected);
    }
    load(&[team("import input.user\nimport data.countersign.lib.money as m\nx := user.id\ny if m.at_most({}, {})")])
        .unwrap();
}

#[test]
fn what_the_engine_would_silently_find_nothing_for_is_refused() {
    let deny = "deny contains {\"code\": \"x\"} if";
    refused(team(&format!("{deny} {{\n[_, value] := walk(input.action)\nvalue == 1\n}}")), "second argument");
    refused(team(&format!("{deny} {{\nsome value in walk(input.action)\nvalue == 1\n}}")), "second argument");
    refused(team(&format!("{deny} strings.count(input.call.path, \"a\") > 1")), "may not call `strings.count`");
    refused(team("p[q].r contains s if {\nsome q in [\"a\"]\ns := q\n}"), "only as its last part");
    let parts = "p[q] contains s if {\nsome q in [\"b\"]\ns := q\n}";
    refused(team(&format!("{parts}\np.b contains \"s\"")), "also named by a variable");
    refused(team(&format!("p.b contains \"s\"\n{parts}")), "also named by a variable");
    refused(team("p[q][r] := s if {\nsome q in [\"a\"]\nsome r in [\"b\"]\ns := r\n}"), "only as its last part");
    for good in [
        "d if {\nwalk(input.action, [_, value])\nvalue == 1\n}",
        "p.b.r contains \"s\"",
        "p[q] contains s if {\nsome q in [\"a\"]\ns := q\n}",
        "p[q] := 1 if some q in [\"a\"]",
        "p.b[q] := 1 if some q in [\"a\"]",
    ] {
        load(&[team(good)]).unwrap();
    }
}
