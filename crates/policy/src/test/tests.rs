//! The library's and the shipped policies' own tests, run on the engine that decides.

use std::path::{Path, PathBuf};

use super::*;
use crate::fixture;

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn all_pass(report: &Report, at_least: usize) {
    let failed: Vec<_> = report.tests.iter().filter(|outcome| outcome.result != Passed::Yes).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.tests.len() >= at_least, "only {} tests were found", report.tests.len());
}

#[test]
fn the_library_passes_its_tests() {
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(policies().join("lib")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with("_test.rego") {
            tests.push(File { path: path.display().to_string(), text: std::fs::read_to_string(&path).unwrap() });
        }
    }
    assert_eq!(tests.len(), library::files().len() + 1, "every module of the library has its tests");
    let report = library(&tests).unwrap();
    all_pass(&report, 20);
    for file in report.coverage {
        assert_eq!(file.covered, file.expressions, "{}\n{}", file.file, file.annotated());
    }
}

#[test]
fn the_library_is_the_directory_and_stands_its_own_checks() {
    let mut modules = 0;
    for entry in std::fs::read_dir(policies().join("lib")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        modules += usize::from(name.ends_with(".rego") && !name.ends_with("_test.rego"));
    }
    // `testing` is for tests alone.
    assert_eq!(modules, library::files().len() + 1);
    check::sources(&[], Some(&fixture::catalogue(&[]))).unwrap();
}

#[test]
fn the_shipped_policies_pass_their_tests() {
    let catalogue = fixture::catalogue(&["orders"]);
    for (name, directory, tools, at_least) in
        [("org", "org", None, 4), ("support", "orders", Some([fixture::id("orders")].into()), 7)]
    {
        let source = Source::read(name, &policies().join(directory), tools).unwrap();
        let report = run(&source, Some(&catalogue), &|_| true).unwrap();
        all_pass(&report, at_least);
        for file in report.coverage {
            assert_eq!(file.covered, file.expressions, "{}\n{}", file.file, file.annotated());
        }
    }
}

const RULES: &str = "package countersign.teams.support\n\nlimit := 4\n\nallow contains {\"code\": \"a\"} if input.action.name == \"refunds.create\"\n\n\
                     deny contains {\"code\": \"closed\"} if {\n\tinput.facts.order.status == \"closed\"\n}\n";

/// A team with `tests`, from the fourth line of their file on.
fn team(rules: &str, tests: &str) -> Source {
    let file = |path: &str, text: String| File { path: path.to_owned(), text };
    let head = "package countersign.teams.support_test\nimport data.countersign.lib.testing\nimport data.countersign.teams.support\n";
    Source {
        name: "support".to_owned(),
        tools: Some([fixture::id("orders")].into()),
        policies: vec![file("support.rego", rules.to_owned())],
        tests: vec![file("support_test.rego", format!("{head}{tests}"))],
        data: Vec::new(),
    }
}

fn ran(tests: &str) -> Report {
    run(&team(RULES, tests), None, &|_| true).unwrap()
}

fn failure(tests: &str) -> Failure {
    match &ran(tests).tests[0].result {
        Passed::No(failure) => failure.clone(),
        result => panic!("{result:?}"),
    }
}

#[test]
fn a_test_that_is_not_true_says_where_it_stopped_and_what_stood_there() {
    assert_eq!(ran("test_it if support.limit == 4").tests[0].result, Passed::Yes);
    let failed = failure("test_it if {\n\tsupport.limit < 9\n\tsupport.limit == 5\n\tsupport.limit < 9\n}");
    assert_eq!(failed.gave, "no body of the rule was true");
    let stopped = failed.stopped.unwrap();
    assert_eq!((stopped.place.line, stopped.text.as_str()), (6, "support.limit == 5"));
    assert_eq!(stopped.sides, [("support.limit".to_owned(), "4".to_owned())]);
    let given = "given := testing.call(\"orders.read\", {})\n";
    let failed = failure(&format!("test_it if {{\n{given}\tcount(support.allow) == 1 with input as given\n}}"));
    assert_eq!(failed.stopped.unwrap().sides, [("count(support.allow)".to_owned(), "0".to_owned())]);
    let failed = failure("test_it if {\n\tevery x in [1, 4, 5] {\n\t\tx < 9\n\t\tx <= support.limit\n\t}\n}");
    let stopped = failed.stopped.unwrap();
    assert_eq!(stopped.text, "x <= support.limit");
    assert_eq!(stopped.sides[0], ("x".to_owned(), "5".to_owned()));
    assert_eq!(failure("test_it := 7 if true").gave, "it gave 7");
    assert_ne!(failure("test_it if time.parse_rfc3339_ns(\"x\") > 0").gave, "no body of the rule was true");
}

#[test]
fn what_is_still_to_be_written_is_skipped_and_what_is_not_asked_for_is_not_run() {
    let tests = "todo_test_later if false\ntest_now if true\ntest_other if false\n";
    let report = run(&team(RULES, tests), None, &|name| !name.ends_with("other")).unwrap();
    let results: Vec<_> = report.tests.iter().map(|outcome| outcome.result.clone()).collect();
    assert_eq!(results, [Passed::Skipped, Passed::Yes]);
}

#[test]
fn coverage_counts_expressions_and_marks_lines() {
    let tests = "test_it if {\n\tgiven := testing.call(\"x.y\", {\"facts\": {\"order\": {\"status\": \"open\"}}})\n\tcount(support.deny) == 0 with input as given\n}";
    let coverage = &ran(tests).coverage[0];
    assert_eq!((coverage.covered, coverage.expressions), (3, 5), "{}", coverage.annotated());
    assert_eq!(coverage.lines.get(&8), Some(&Mark::Covered));
    assert_eq!(coverage.lines.get(&7), Some(&Mark::Not));
    // The engine comes by every rule of a package that it is asked about.
    assert!(coverage.annotated().contains("-    7  deny contains"), "{}", coverage.annotated());
}

#[test]
fn a_whole_input_is_decided_on_again_without_its_optional_parts() {
    let closed = "\tgiven := testing.call(\"refunds.create\", {\"facts\": {\"order\": {\"status\": \"closed\"}}})\n\tcount(support.deny) == 1 with input as given\n}";
    let report = ran(&format!("test_it if {{\n{closed}"));
    let Passed::Careless(found) = &report.tests[0].result else { panic!("{:?}", report.tests[0]) };
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].part.as_str(), found[0].without), ("facts.order.status", "permitted"));
    let said = "# An unread order is a new one.\n# more permissive without facts.order.status: it is new\n";
    assert_eq!(ran(&format!("{said}test_it if {{\n{closed}")).tests[0].result, Passed::Yes);
    let other = "# more permissive without facts.order.status:\n";
    assert_ne!(ran(&format!("{other}test_it if {{\n{closed}")).tests[0].result, Passed::Yes);
}

#[test]
fn a_call_that_is_held_to_less_without_a_part_is_more_permissive_too() {
    let rules = "package countersign.teams.support\n\nallow contains {\"code\": \"all\"}\n\n\
                 obligations contains {\"max_response_bytes\": 1000} if input.facts.order.status == \"closed\"\n";
    let test = "test_it if {\n\tgiven := testing.call(\"refunds.create\", {\"facts\": {\"order\": {\"status\": \"closed\"}}})\n\
                \tcount(support.obligations) == 1 with input as given\n}\n";
    let found = |rules: &str| run(&team(rules, test), None, &|_| true).unwrap().tests[0].result.clone();
    let Passed::Careless(careless) = found(rules) else { panic!("{:?}", found(rules)) };
    assert_eq!((careless.len(), careless[0].part.as_str()), (1, "facts.order.status"));
    assert_eq!((careless[0].with, careless[0].without), ("permitted", "permitted, held to less"));
    let guarded = rules.replace("== \"closed\"", "!= \"open\"");
    assert_eq!(found(&guarded), Passed::Yes, "an order that was not read is held to as much");
}

#[test]
fn calls_are_those_of_the_catalogue() {
    let source = team(
        RULES,
        "test_known if testing.call(\"orders.read\", {}).tool == \"orders\"\ntest_unknown if testing.call(\"orders.raed\", {})\n",
    );
    let report = run(&source, Some(&fixture::catalogue(&["orders"])), &|_| true).unwrap();
    assert_eq!(report.tests[0].result, Passed::Yes, "{:?}", report.tests[0]);
    assert!(matches!(report.tests[1].result, Passed::No(_)));
}

/// The one part without which each of `tests` is more permissive.
fn careless(tests: &str) -> Vec<String> {
    let parts = |outcome: &Outcome| match &outcome.result {
        Passed::Careless(found) => found.iter().map(|one| one.part.clone()).collect(),
        result => vec![format!("{}: {result:?}", outcome.name)],
    };
    ran(tests).tests.iter().flat_map(parts).collect()
}

#[test]
fn inputs_are_looked_at_however_the_test_that_puts_them_in_is_written() {
    let call = "testing.call(\"refunds.create\", {\"facts\": {\"order\": {\"status\": \"closed\"}}})";
    let wide = format!("{{\"facts\": {{\"order\": {{\"status\": \"closed\", \"note\": \"{}\"}}}}}}", "x".repeat(880));
    for test in [
        format!("test_it if count(support.deny) > 0 with input as {call}"),
        format!("test_it if count(support.deny) > 0 with input as {call} # only if it is closed"),
        format!("test_it if not count(support.deny) == 0 with input as {call}\n\ntest_it if false"),
        format!("test_it := 7 if {{\n\tfalse\n}} else := true if count(support.deny) > 0 with input as {call}"),
        format!("test_it if {{\n\tfound := support.deny with input as {call}\n\tcount(found) > 0\n}}"),
        format!("test_it if {{\n\tsome reason in support.deny with input as {call}\n\treason.code == \"closed\"\n}}"),
        format!("test_it if count([x | some x in [1]; count(support.deny) > 0 with input as {call}]) > 0"),
        format!("test_it if denied({call})\n\ndenied(given) if count(support.deny) > 0 with input as given"),
        format!(
            "test_it if count(support.deny) > 0 with input as testing.call(\n\t\"refunds.create\", # of it\n\t{wide})"
        ),
        "test_it if {\n\tcount(support.deny) > 0 with input as testing.call( # closed\n\t\t\"refunds.create\",\n\t\t\
             {\"facts\": {\"order\": {\n\t\t\t# It is closed.\n\t\t\t\"status\": \"closed\",\n\t\t}}},\n\t)\n}"
            .to_owned(),
    ] {
        let other = format!("{test}\n\ntest_other if {{\n\tcount(support.deny) > 0 with input as {call}\n}}");
        let found = careless(&other);
        assert!(found.len() >= 2 && found.iter().all(|part| part.starts_with("facts.order.")), "{test}\n{found:?}");
    }
}

#[test]
fn an_input_that_cannot_be_looked_at_fails_its_test_alone_unless_that_is_said_to_be_right() {
    let call = "testing.call(\"refunds.create\", {\"facts\": {\"order\": {\"status\": \"closed\"}}})";
    let seen = |name: &str| format!("test_{name} if count(support.deny) > 0 with input as {call}\n");
    let broken = |tests: &str| -> Vec<Passed> {
        let source = team(RULES, tests);
        let Checked { packages, modules, .. } = check::sources(std::slice::from_ref(&source), None).unwrap();
        let packages = packages.into_iter().filter(|package| package.about == About::Calls).collect();
        let owner = Owner::Team("support".to_owned());
        let mut stand = Stand::of(modules, Vec::new(), &owner, &source.tests, None).unwrap();
        let file = stand.covered.files.iter_mut().find(|file| file.path == "support_test.rego").unwrap();
        *file.inputs.values_mut().next().unwrap() = ")(".to_owned();
        let report = stand.run(packages, None, &|_| true).unwrap();
        report.tests.into_iter().map(|test| test.result).collect()
    };
    let tests = format!("{}{}{}test_none if true\n", seen("hidden"), seen("b"), seen("c"));
    let found = broken(&tests);
    let [Passed::Untried(untried), Passed::Careless(_), Passed::Careless(parts), Passed::Yes] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(untried.place.line == 4 && !untried.why.is_empty(), "{untried:?}");
    assert_eq!(parts[0].part, "facts.order.status");
    assert_eq!(broken(&format!("# not tried again: it is tried elsewhere\n{tests}"))[0], Passed::Yes);
    assert!(matches!(broken(&format!("# not tried again: \n{tests}"))[0], Passed::Untried(_)), "a reason is given");
    // What loads and is not true any more is not tried either.
    let own = format!("print(_, _) := false\n{}test_none if true\n", seen("hidden"));
    let found = ran(&own).tests;
    assert!(matches!(&found[0].result, Passed::Untried(_)), "{found:?}");
    assert_eq!(found[1].result, Passed::Yes);
}
