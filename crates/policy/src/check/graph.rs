//! Who evaluates whom. A rule that comes back to itself overflows the stack and takes the process with it, and so
//! does a long enough line of rules.

use std::collections::{BTreeMap, BTreeSet};

use super::{NESTING, RECURSION, modules::Rules};
use crate::{
    Problem,
    roots::{Path, dotted, problem},
};

/// The deepest that a line of rules, each evaluating the next, may be nested in all. Measured: 450 levels take
/// between one and two MiB of stack in an unoptimised build, a thread of the runtime has two.
pub(super) const MAX_STACK: usize = 240;

/// A rule with the rules that it may evaluate.
#[derive(Default)]
pub(super) struct Node<'a> {
    pub(super) uses: BTreeSet<&'a Path>,
    /// How deep it is nested itself.
    pub(super) nesting: usize,
}

type Nodes<'a> = BTreeMap<&'a Path, Node<'a>>;

/// Reports recursion and lines that are too deep.
pub(super) fn check(nodes: &Nodes<'_>, rules: &Rules<'_>, problems: &mut Vec<Problem>) {
    let mut report = |path: &Path, code: &'static str, message: String, hint: &str| {
        if let Some(known) = rules.known(path) {
            problems.push(problem(known.span, message, hint.to_owned()).coded(code));
        }
    };
    let (depths, left) = depths(nodes);
    let deep = |path: &Path| depths.get(path).is_some_and(|depth| *depth > MAX_STACK);
    for (path, node) in nodes.iter().filter(|(path, _)| deep(path)) {
        // The first rules of a line that are too deep, not each that uses one of them.
        if !node.uses.iter().any(|used| deep(used)) {
            let message =
                format!("the rules that `{}` needs are nested more than {MAX_STACK} deep in all", dotted(path));
            report(path, NESTING, message, "a rule needs fewer others, or simpler ones");
        }
    }
    if let Some(cycle) = cycle(nodes, &left) {
        let line: Vec<String> = cycle.iter().chain(cycle.first()).map(|path| dotted(path)).collect();
        if let Some(first) = cycle.first() {
            let message = format!("recursion: {}", line.join(" -> "));
            report(
                first,
                RECURSION,
                message,
                "a rule may not need itself; a local name that a rule has too counts as the rule",
            );
        }
    }
}

/// How deep each rule's deepest line is nested, and the rules that have no end of one.
fn depths<'a>(nodes: &Nodes<'a>) -> (BTreeMap<&'a Path, usize>, BTreeSet<&'a Path>) {
    let mut users: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    let mut open: BTreeMap<&Path, usize> = BTreeMap::new();
    let own = |path: &Path| nodes.get(path).map_or(0, |node| node.nesting) + 1;
    for (&user, node) in nodes {
        *open.entry(user).or_default() += node.uses.len();
        for &rule in &node.uses {
            users.entry(rule).or_default().push(user);
            open.entry(rule).or_default();
        }
    }
    let mut depths: BTreeMap<&Path, usize> = open.keys().map(|path| (*path, own(path))).collect();
    let mut ready: Vec<&Path> = open.iter().filter(|(_, left)| **left == 0).map(|(path, _)| *path).collect();
    while let Some(rule) = ready.pop() {
        let depth = depths.get(rule).copied().unwrap_or(1);
        open.remove(rule);
        for &user in users.get(rule).into_iter().flatten() {
            let deepest = depths.entry(user).or_insert(1);
            *deepest = (*deepest).max(depth + own(user));
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
fn cycle<'a>(nodes: &Nodes<'a>, left: &BTreeSet<&'a Path>) -> Option<Vec<&'a Path>> {
    let mut line: Vec<&Path> = vec![left.first()?];
    loop {
        let next = nodes.get(*line.last()?)?.uses.iter().find(|path| left.contains(**path))?;
        if let Some(start) = line.iter().position(|path| path == next) {
            return Some(line.split_off(start));
        }
        line.push(next);
    }
}
