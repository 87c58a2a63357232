//! The seeds of the fuzz targets, and whatever the fuzzer once found, said again to the same functions on stable.

use std::{fs, path::PathBuf};

use tempfile::tempdir;

use crate::support::{
    process::{countersign, run},
    root,
};

#[path = "../fuzz/src/chance.rs"]
mod chance;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

/// Targets whose bodies lie behind a door of their crate, which says their seeds again by itself, or in the binary.
const ELSEWHERE: [&str; 4] = ["config", "headers", "body", "redact"];

/// The files of a target's seeds.
fn seeds(target: &str) -> Vec<PathBuf> {
    let directory = root().join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{target} has {} seeds", files.len());
    files
}

#[test]
fn no_parser_of_strange_bytes_breaks_its_laws_on_what_the_fuzzer_knows() {
    for (target, body) in targets::TARGETS {
        for seed in seeds(target) {
            let bytes = fs::read(&seed).unwrap();
            let outcome = std::panic::catch_unwind(|| body(&bytes));
            assert!(outcome.is_ok(), "{} breaks the laws of `{target}`", seed.display());
        }
    }
}

/// Not the fuzzer, which learns; but on stable, and each time.
#[test]
fn no_parser_of_strange_bytes_breaks_its_laws_on_small_changes_of_what_the_fuzzer_knows() {
    let rounds = if std::env::var_os("COUNTERSIGN_TEST_LONG").is_some() { 2_000 } else { 20 };
    let mut chance = chance::Chance::new();
    for (target, body) in targets::TARGETS {
        let seeds: Vec<_> = seeds(target).iter().filter_map(|seed| fs::read(seed).ok()).collect();
        for seed in &seeds {
            for _ in 0..rounds {
                let other = &seeds[chance.below(seeds.len())];
                let bytes = chance.changed(seed, other);
                let outcome = std::panic::catch_unwind(|| body(&bytes));
                assert!(outcome.is_ok(), "`{target}`: {}", bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn every_target_has_its_binary() {
    let binaries = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
    let mut binaries: Vec<String> =
        binaries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    binaries.sort();
    let mut targets: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).chain(ELSEWHERE).collect();
    targets.sort_unstable();
    assert_eq!(binaries, targets);
}

#[test]
fn no_configuration_makes_its_check_panic() {
    let directory = tempdir().unwrap();
    for seed in seeds("config") {
        let file = directory.path().join("countersign.yaml");
        fs::copy(&seed, &file).unwrap();
        let checked = run(countersign().args(["config", "check"]).arg(&file));
        // Every seed is strange in some way: each is refused, with words and without a panic.
        let told = format!("{}{}", checked.stdout, checked.stderr);
        let ended = checked.code.is_some_and(|code| code != 0 && code != 101);
        assert!(ended && !told.contains("panicked") && told.len() > 10, "{}: {told}", seed.display());
    }
}
