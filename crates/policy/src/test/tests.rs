//! The library's and the shipped policies' own tests, run on the engine that decides.

use std::path::{Path, PathBuf};

use super::*;
use crate::fixture;

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn all_pass(outcomes: &[Outcome], at_least: usize) {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(outcomes.len() >= at_least, "only {} tests were found", outcomes.len());
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
    assert_eq!(tests.len(), library::files().len(), "every module of the library has its tests");
    all_pass(&library(&tests).unwrap(), 20);
}

#[test]
fn the_library_is_the_directory_and_stands_its_own_checks() {
    let mut modules = 0;
    for entry in std::fs::read_dir(policies().join("lib")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        modules += usize::from(name.ends_with(".rego") && !name.ends_with("_test.rego"));
    }
    assert_eq!(modules, library::files().len());
    check::sources(&[], Some(&fixture::catalogue(&[]))).unwrap();
}

#[test]
fn the_shipped_policies_pass_their_tests() {
    let catalogue = fixture::catalogue(&["orders"]);
    for (name, directory, tools, at_least) in
        [("org", "org", None, 4), ("support", "orders", Some([fixture::id("orders")].into()), 7)]
    {
        let source = Source::read(name, &policies().join(directory), tools).unwrap();
        all_pass(&run(&source, &catalogue).unwrap(), at_least);
    }
}

#[test]
fn a_test_that_is_not_true_fails_and_says_so() {
    let source = |test: &str| Source {
        name: "org".to_owned(),
        tools: None,
        policies: vec![File { path: "org.rego".to_owned(), text: "package countersign.org\nlimit := 4".to_owned() }],
        tests: vec![File {
            path: "org_test.rego".to_owned(),
            text: format!("package countersign.org_test\nimport data.countersign.org\ntest_it if {test}"),
        }],
        data: Vec::new(),
    };
    let failure = |test: &str| run(&source(test), &fixture::catalogue(&[])).unwrap()[0].failure.clone();
    assert_eq!(failure("org.limit == 4"), None);
    assert!(failure("org.limit == 5").unwrap().contains("no body"));
    assert!(failure("time.parse_rfc3339_ns(\"x\") > 0").is_some());
}
