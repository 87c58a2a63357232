//! Directories of policy: what is read, and what is refused.

use std::fs;

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn read(directory: &tempfile::TempDir) -> Result<Source, LoadError> {
    Source::read("org", directory.path(), None)
}

fn refusal(directory: &tempfile::TempDir) -> String {
    read(directory).unwrap_err().to_string()
}

const POLICY: (&str, &str) = ("a.rego", "package countersign.org");

#[test]
fn policies_tests_and_data_are_told_apart_and_the_rest_is_passed_over() {
    let found = directory(&[
        POLICY,
        ("deep/er/b.rego", "package countersign.org.deep"),
        ("a_test.rego", "package countersign.org_test"),
        ("data.json", r#"{"countersign": {"org": {"limit": 4}}}"#),
        ("countersign/org/more/data.yaml", "hosts: [a, b]\n"),
        ("README.md", "words"),
        ("other.json", "not even json"),
        (".hidden/c.rego", "package elsewhere"),
    ]);
    let source = read(&found).unwrap();
    assert_eq!((source.policies.len(), source.tests.len(), source.data.len()), (2, 1, 2));
    let at = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        source.data.iter().find_map(|data| data.at(&path).cloned())
    };
    assert_eq!(at(&["countersign", "org", "limit"]), Some(regorus::Value::from(4)));
    assert!(at(&["countersign", "org", "more", "hosts"]).unwrap().as_array().unwrap().len() == 2);
}

#[test]
fn a_link_may_lead_to_the_same_mount_and_nowhere_else() {
    let inside = directory(&[("..2026/a.rego", POLICY.1)]);
    std::os::unix::fs::symlink("..2026", inside.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.rego", inside.path().join("a.rego")).unwrap();
    assert_eq!(read(&inside).unwrap().policies.len(), 1);

    let elsewhere = directory(&[("secret.rego", POLICY.1)]);
    let outside = directory(&[POLICY]);
    std::os::unix::fs::symlink(elsewhere.path().join("secret.rego"), outside.path().join("b.rego")).unwrap();
    assert!(refusal(&outside).contains("leads out of"));
    let whole = directory(&[POLICY]);
    std::os::unix::fs::symlink(".", whole.path().join("again")).unwrap();
    assert!(refusal(&whole).contains("symbolic link"));
}

#[test]
fn what_is_too_large_unreadable_or_empty_is_refused_by_name() {
    let comment = format!("package countersign.org\n{}", "# a long comment\n".repeat(40_000));
    assert!(refusal(&directory(&[("big.rego", &comment)])).contains("big.rego: larger than"));
    assert!(refusal(&directory(&[("data.json", "{}")])).contains("no Rego policy"));
    let latin = directory(&[POLICY]);
    fs::write(latin.path().join("b.rego"), b"package countersign.org # \xff").unwrap();
    assert!(refusal(&latin).contains("b.rego"));
    let missing = Source::read("org", FilePath::new("/nonexistent/policies"), None);
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/policies"));
    let deep = format!("{}a.rego", "d/".repeat(MAX_DIRECTORY_DEPTH + 1));
    assert!(refusal(&directory(&[POLICY, (&deep, POLICY.1)])).contains("directories deep"));
}

#[test]
fn a_data_document_that_two_readers_could_read_differently_is_refused() {
    for text in ["{\"a\":1,\"a\":2}", "[1]", "3", "{\"a\":", "{\"$serde_json::private::Number\":\"1\"}"] {
        assert!(read(&directory(&[POLICY, ("data.json", text)])).is_err(), "{text}");
    }
    for text in ["- a", "a: [", "a: 1\na: 2\n"] {
        assert!(read(&directory(&[POLICY, ("data.yaml", text)])).is_err(), "{text}");
    }
}

#[test]
fn a_data_document_that_would_fill_the_memory_or_the_stack_is_refused_by_name() {
    let json = |text: String| {
        let found = directory(&[POLICY, ("data.json", &text)]);
        let said = refusal(&found);
        assert!(said.contains("data.json"), "{said}");
        said
    };
    let array = |inner: &str, count: usize| format!("{{\"a\":[{}1]}}", inner.repeat(count));
    assert!(json(array("[],", 600_000)).contains("names and values"));
    assert!(json(array("\"\\\"\",[],", 600_000)).contains("names and values"));
    json(format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)));
    assert!(json(format!("{{\"a\": 1, \"b\": \"{}\"}}", "x".repeat(33 << 20))).contains("larger than"));
    json("{\"a\": 1e1000000000}".to_owned());
    let wordy = array("\"a, b: [c], {d}\",", 100_000);
    read(&directory(&[POLICY, ("data.json", &wordy)])).unwrap();

    let yaml = |text: String| {
        let said = refusal(&directory(&[POLICY, ("data.yaml", &text)]));
        assert!(said.contains("data.yaml"), "{said}");
    };
    yaml(format!("a:\n{}", "- []\n".repeat(600_000)));
    yaml(format!("a: {}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    let each = |n: usize| format!("a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 10].join(", "));
    yaml(format!("a0: &a0 [x]\n{}", (0..12).map(each).collect::<String>()));
    yaml("a: 1e1000000000".to_owned());
}

mod hostile;
mod opa;
mod signed;

/// An archive of `files`, as this program writes one.
fn archive_of(files: &[(&str, &str)]) -> Vec<u8> {
    archive::write(files.iter().map(|(name, text)| (*name, text.as_bytes()))).unwrap()
}

fn opened(archive: &[u8]) -> Result<Source, String> {
    let bundle = Bundle::open(archive, None)?;
    bundle.source("org", None, std::path::Path::new("b.tar.gz")).map_err(|error| error.to_string())
}

#[test]
fn a_directory_and_the_bundle_of_it_are_the_same_policies() {
    let found = directory(&[
        POLICY,
        ("deep/er/b.rego", "package countersign.org.deep"),
        ("a_test.rego", "package countersign.org_test"),
        ("data.json", r#"{"countersign": {"org": {"limit": 4}}}"#),
        ("countersign/org/more/data.yaml", "hosts: [a, b]\n"),
        ("README.md", "words"),
        (".hidden/c.rego", "package elsewhere"),
        (".manifest", r#"{"revision": "from the directory", "metadata": {"serial": 3}}"#),
    ]);
    let making = Making { name: Some("org"), revision: None, serial: None, tests: false };
    let archive = build(found.path(), making).unwrap();
    assert_eq!(archive, build(found.path(), making).unwrap(), "the same input is the same bytes");
    let bundle = Bundle::open(&archive, None).unwrap();
    let manifest = bundle.manifest();
    assert_eq!((manifest.revision.as_str(), manifest.serial), ("from the directory", Some(3)));
    assert_eq!(manifest.roots, Some(vec!["countersign/org".to_owned()]));
    assert_eq!(bundle.signature(), &Signature::Absent);
    let paths: Vec<String> = bundle.listed().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, [".manifest", "a.rego", "countersign/org/more/data.yaml", "data.json", "deep/er/b.rego"]);
    let source = bundle.source("org", None, std::path::Path::new("b.tar.gz")).unwrap();
    let texts = |source: &Source| -> Vec<String> { source.policies.iter().map(|file| file.text.clone()).collect() };
    let read = read(&found).unwrap();
    assert_eq!(texts(&source), texts(&read));
    let data =
        |source: &Source| -> Vec<String> { source.data.iter().map(|data| data.document().to_string()).collect() };
    let (mut one, mut other) = (data(&source), data(&read));
    one.sort();
    other.sort();
    assert_eq!(one, other);
    assert!(source.policies.iter().any(|file| file.path == "b.tar.gz/deep/er/b.rego"));
    let with_tests = build(found.path(), Making { tests: true, ..making }).unwrap();
    assert_eq!(opened(&with_tests).unwrap().tests.len(), 1);
    let named = Making { revision: Some("v2"), serial: Some(9), ..making };
    let named = Bundle::open(&build(found.path(), named).unwrap(), None).unwrap().manifest().clone();
    assert_eq!((named.revision.as_str(), named.serial), ("v2", Some(9)));
}

#[test]
fn a_bundle_owns_its_sources_root_and_nothing_else() {
    for (roots, fits) in [
        (r#"["countersign/org"]"#, true),
        (r#"["/countersign/org/"]"#, true),
        (r#"[""]"#, false),
        ("[]", false),
        (r#"["countersign"]"#, false),
        (r#"["countersign/org", "countersign/teams/x"]"#, false),
        (r#"["countersign/teams/x"]"#, false),
        (r#""countersign/org""#, false),
    ] {
        let manifest = format!(r#"{{"revision": "r", "roots": {roots}}}"#);
        let outcome = opened(&archive_of(&[POLICY, (".manifest", &manifest)]));
        assert_eq!(outcome.is_ok(), fits, "{roots}: {outcome:?}");
        let outcome = read(&directory(&[POLICY, (".manifest", &manifest)]));
        assert_eq!(outcome.is_ok(), fits, "in a directory, {roots}: {outcome:?}");
    }
    assert!(opened(&archive_of(&[POLICY])).is_ok(), "one without a manifest says nothing of roots");
}

#[test]
fn a_manifest_that_cannot_be_meant_is_refused() {
    for manifest in [
        "",
        "[]",
        "{",
        r#"{"revision": 4}"#,
        r#"{"revision": "a", "revision": "b"}"#,
        r#"{"revision": "a\u0000b"}"#,
        r#"{"metadata": {"serial": -1}}"#,
        r#"{"metadata": {"serial": 1.0}}"#,
        r#"{"metadata": {"serial": "1"}}"#,
        r#"{"metadata": {"serial": 18446744073709551616}}"#,
        r#"{"rego_version": 0}"#,
        r#"{"file_rego_versions": {"/a.rego": 0}}"#,
        r#"{"wasm": [{"entrypoint": "x", "module": "/policy.wasm"}]}"#,
    ] {
        let error = opened(&archive_of(&[POLICY, (".manifest", manifest)])).unwrap_err();
        assert!(error.contains(".manifest"), "{manifest}: {error}");
    }
}
