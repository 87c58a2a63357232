//! The house rules that no compiler checks: which crate may use which, and how a file opens.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Row by row, as ARCHITECTURE.md has them.
const ROWS: &[(&str, u8)] = &[
    ("model", 1),
    ("net", 2),
    ("token", 3),
    ("policy", 3),
    ("store", 3),
    ("audit", 3),
    ("proxy", 4),
    ("authority", 4),
    ("countersign", 5),
];

/// The most lines a file of the product may have, tests beside it left out.
const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn a_crate_uses_only_rows_below_its_own_and_never_a_sibling() {
    let rows: BTreeMap<_, _> = ROWS.iter().copied().collect();
    let crates = root().join("crates");
    let mut seen = 0;
    for entry in fs::read_dir(&crates).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let row = *rows.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} stands in no row"));
        let manifest = fs::read_to_string(crates.join(&name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split_once("[dependencies]").unwrap().1;
        for line in dependencies.lines() {
            let used = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if let Some(lower) = rows.get(used) {
                assert!(*lower < row, "{name} (row {row}) may not use {used} (row {lower})");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, ROWS.len());
}

#[test]
fn every_file_opens_with_what_lives_there_and_has_one_subject() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    sources(&root().join("tests"), &mut files);
    files.retain(|file| {
        !file.components().any(|part| part.as_os_str() == "node_modules" || part.as_os_str() == "packages")
    });
    assert!(files.len() > 50);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what lives there", file.display());
        let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_test = file.file_name().is_some_and(|name| name == "tests.rs")
            || file.components().any(|part| part.as_os_str() == "tests");
        assert!(is_test || product.lines().count() <= MOST_LINES, "{} has two subjects", file.display());
    }
}

#[test]
fn nothing_is_left_undone_in_the_product() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "#[ignore"] {
            assert!(!text.contains(word), "{} has {word}", file.display());
        }
    }
}
