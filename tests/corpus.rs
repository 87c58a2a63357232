//! The seeds of the fuzz targets, and whatever the fuzzer once found, said again to the same functions on stable.

use std::{fs, path::PathBuf};

use tempfile::tempdir;

use crate::support::{
    process::{countersign, run},
    root,
};

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

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

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }
}

/// `bytes` with a few changes of the kinds that fuzzers make, some of them from `other`.
fn changed(bytes: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(changed.len());
        let end = (at + 1 + chance.below(16)).min(changed.len());
        match chance.below(6) {
            0 if !changed.is_empty() => changed[at] ^= 1 << chance.below(8),
            1 => drop(changed.drain(at..end)),
            2 => changed.insert(at, b"\"\\{}[],:.%/\0\xff\n 09-"[chance.below(18)]),
            3 => {
                let again = changed[at..end].repeat(1 + chance.below(20));
                changed.splice(at..at, again);
            }
            4 => {
                let from = chance.below(other.len());
                let piece = other[from..(from + chance.below(64)).min(other.len())].to_vec();
                changed.splice(at..end, piece);
            }
            _ => changed.truncate(at),
        }
    }
    changed
}

/// Not the fuzzer, which learns; but on stable, and each time.
#[test]
fn no_parser_of_strange_bytes_breaks_its_laws_on_small_changes_of_what_the_fuzzer_knows() {
    let rounds = if std::env::var_os("COUNTERSIGN_TEST_LONG").is_some() { 2_000 } else { 20 };
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for (target, body) in targets::TARGETS {
        let seeds: Vec<_> = seeds(target).iter().filter_map(|seed| fs::read(seed).ok()).collect();
        for seed in &seeds {
            for _ in 0..rounds {
                let other = &seeds[chance.below(seeds.len())];
                let bytes = changed(seed, other, &mut chance);
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
    let mut targets: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).chain(["config"]).collect();
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
