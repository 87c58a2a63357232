//! Why a test did not pass: the expression at which it stopped, and what stood on its two sides. For those it is run
//! once more with a `print` before the expression; in an `every`, before each of its expressions, of which the last that
//! prints is the one.

use std::collections::BTreeMap;

use regorus::Value;

use crate::coverage::{Covered, Definition, Place, Probe, Reached, Spread, shown};

/// What the prints that are put in begin with.
const MARK: &str = "@countersign";

/// Why a test did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the rule gave.
    pub gave: String,
    /// The first expression that was not true, where there is one.
    pub stopped: Option<Stopped>,
}

/// An expression that was not true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Where it is.
    pub place: Place,
    /// What it says.
    pub text: String,
    /// What its sides were: as written, and what that gave.
    pub sides: Vec<(String, String)>,
}

/// Why the test `definition` of `file`, which `gave` that, did not pass.
pub(super) fn of(
    covered: &Covered,
    file: &Spread,
    definition: &Definition,
    reached: &Reached,
    given: Result<Value, impl std::fmt::Display>,
) -> Failure {
    let gave = match given {
        Ok(Value::Undefined) => "no body of the rule was true".to_owned(),
        Ok(value) => return Failure { gave: format!("it gave {}", shown(&value)), stopped: None },
        Err(error) => last_words(&error),
    };
    let stopped = definition.bodies.iter().find(|body| !reached.is_true(file, body));
    let stopped =
        stopped.and_then(|body| reached.last(file, body)).and_then(|spot| stopped_at(covered, file, definition, spot));
    Failure { gave, stopped }
}

/// Of the engine's words the last line, which says what is wrong.
pub(super) fn last_words(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("an error").trim().to_owned()
}

fn stopped_at(covered: &Covered, file: &Spread, definition: &Definition, spot: usize) -> Option<Stopped> {
    let printed = printed(covered, file, definition, &below(file, spot)).unwrap_or_default();
    let last = printed.last().map_or(spot, |(spot, ..)| *spot);
    let found = file.spots.get(last)?;
    let probe = file.probes.get(&last);
    let side = |name: &str| printed.iter().rev().find(|(spot, side, _)| *spot == last && side == name);
    let text = |name: &str| match (name, probe) {
        ("left", Some(probe)) => Some(probe.left.clone()),
        ("right", Some(probe)) => probe.right.clone(),
        _ => None,
    };
    let sides = ["left", "right"].iter().filter_map(|name| {
        let (_, _, value) = side(name)?;
        Some((text(name)?, value.clone()))
    });
    // What is written out says itself.
    let sides = sides.filter(|(text, value)| !is_literal(text) && text != value).collect();
    Some(Stopped { place: file.place(found.line, found.column), text: file.words(found), sides })
}

fn is_literal(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

/// The expressions that may be the one: `spot` itself, or those of the `every` that it is.
fn below(file: &Spread, spot: usize) -> Vec<usize> {
    match file.within.get(&spot) {
        Some(own) => own.iter().flat_map(|spot| below(file, *spot)).collect(),
        None => vec![spot],
    }
}

/// What the test prints with prints before `spots`: of which spot, of which of its sides, and what.
fn printed(
    covered: &Covered,
    file: &Spread,
    definition: &Definition,
    spots: &[usize],
) -> Option<Vec<(usize, String, String)>> {
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for spot in spots {
        let Some(Probe { left, right, with }) = file.probes.get(spot) else { continue };
        let mut text = format!("print(\"{MARK} {spot} left\", {left}) {with}\n");
        if let Some(right) = right {
            text.push_str(&format!("print(\"{MARK} {spot} right\", {right}) {with}\n"));
        }
        lines.insert(*spot, text);
    }
    let others = [(file.path.as_str(), file.with_lines(&lines))].into();
    let mut engine = covered.replaced(&others).ok()?;
    drop(engine.eval_rule(format!("data.{}.{}", file.package, definition.name)));
    let found = engine.take_prints().ok()?;
    let one = |line: &String| {
        let (_, rest) = line.split_once(MARK)?;
        let mut words = rest.trim_start().splitn(3, ' ');
        let (spot, side) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        Some((spot, side, cut(words.next().unwrap_or_default())))
    };
    Some(found.iter().filter_map(one).collect())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
