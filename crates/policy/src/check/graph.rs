//! Who evaluates whom. A rule that comes back to itself overflows the stack and takes the process with it, and so
//! does a long enough line of rules.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::Rules;
use crate::{
    Problem,
    roots::{Path, dotted, problem},
};

/// The longest line of rules, each evaluating the next.
pub(super) const MAX_DEPTH: usize = 24;

type Edges<'a> = BTreeMap<&'a Path, BTreeSet<&'a Path>>;

/// Reports recursion and lines that are too long.
pub(super) fn check(edges: &Edges<'_>, rules: &Rules<'_>, problems: &mut Vec<Problem>) {
    let mut report = |path: &Path, message: String, hint: &str| {
        if let Some(known) = rules.known(path) {
            problems.push(problem(known.span, message, hint.to_owned()));
        }
    };
    let (depths, left) = depths(edges);
    for (path, depth) in depths {
        if depth == MAX_DEPTH + 1 {
            let message = format!("`{}` is one of more than {MAX_DEPTH} rules that each evaluate the next", dotted(path));
            report(path, message, "put some of them together");
        }
    }
    if let Some(cycle) = cycle(edges, &left) {
        let line: Vec<String> = cycle.iter().chain(cycle.first()).map(|path| dotted(path)).collect();
        if let Some(first) = cycle.first() {
            let message = format!("recursion: {}", line.join(" -> "));
            report(first, message, "a rule may not need itself; a local name that a rule has too counts as the rule");
        }
    }
}

/// How many rules each rule's longest line has, and the rules that have no end of one.
fn depths<'a>(edges: &Edges<'a>) -> (BTreeMap<&'a Path, usize>, BTreeSet<&'a Path>) {
    let mut users: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    let mut open: BTreeMap<&Path, usize> = BTreeMap::new();
    for (&user, used) in edges {
        *open.entry(user).or_default() += used.len();
        for &rule in used {
            users.entry(rule).or_default().push(user);
            open.entry(rule).or_default();
        }
    }
    let mut ready: Vec<&Path> = open.iter().filter(|(_, left)| **left == 0).map(|(path, _)| *path).collect();
    let mut depths: BTreeMap<&Path, usize> = ready.iter().map(|path| (*path, 1)).collect();
    while let Some(rule) = ready.pop() {
        let depth = depths.get(rule).copied().unwrap_or(1);
        open.remove(rule);
        for &user in users.get(rule).into_iter().flatten() {
            let longest = depths.entry(user).or_insert(1);
            *longest = (*longest).max(depth + 1);
            if let Some(left) = open.get_mut(user) {
                *left -= 1;
                if *left == 0 {
                    ready.push(user);
                }
            }
        }
    }
    let left: BTreeSet<&Path> = open.into_keys().collect();
    depths.retain(|path, _| !left.contains(path));
    (depths, left)
}

/// A circle among `left`, the rules of which each lies on one or leads to one.
fn cycle<'a>(edges: &Edges<'a>, left: &BTreeSet<&'a Path>) -> Option<Vec<&'a Path>> {
    let mut line: Vec<&Path> = vec![left.first()?];
    loop {
        let next = edges.get(*line.last()?)?.iter().find(|path| left.contains(**path))?;
        if let Some(start) = line.iter().position(|path| path == next) {
            return Some(line.split_off(start));
        }
        line.push(next);
    }
}
