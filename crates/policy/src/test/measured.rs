//! How much of a policy its tests evaluated, counted by expressions and shown by lines.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::coverage::{Reached, Spot, Spread};

/// What tests evaluated of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCoverage {
    /// The file, as its source names it.
    pub file: String,
    /// How many of its expressions were evaluated.
    pub covered: usize,
    /// How many it has.
    pub expressions: usize,
    /// The lines at which expressions begin, from 1, and whether those were evaluated.
    pub lines: BTreeMap<u32, Mark>,
    /// Its text.
    #[serde(skip)]
    text: String,
}

/// Whether what begins at a line was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// All of it.
    Covered,
    /// A part of it.
    Partly,
    /// None of it.
    Not,
}

impl FileCoverage {
    pub(super) fn of(file: &Spread, reached: &Reached) -> Self {
        let mut lines: BTreeMap<u32, Mark> = BTreeMap::new();
        let (mut covered, mut expressions) = (0, 0);
        // What is put in has no length as written.
        let counts = |(place, spot): &(usize, &Spot)| spot.end > spot.start && !file.is_silent(*place);
        for (place, spot) in file.spots.iter().enumerate().filter(counts) {
            let met = reached.spot(file, place);
            expressions += 1;
            covered += usize::from(met);
            let own = if met { Mark::Covered } else { Mark::Not };
            lines
                .entry(spot.line)
                .and_modify(|mark| *mark = if *mark == own { own } else { Mark::Partly })
                .or_insert(own);
        }
        Self { file: file.path.clone(), covered, expressions, lines, text: file.written.clone() }
    }

    /// The text with a mark before each line at which something begins: `+` evaluated, `-` not, `~` in part.
    #[must_use]
    pub fn annotated(&self) -> String {
        let mut out = String::new();
        for (number, line) in (1_u32..).zip(self.text.lines()) {
            let mark = match self.lines.get(&number) {
                Some(Mark::Covered) => '+',
                Some(Mark::Partly) => '~',
                Some(Mark::Not) => '-',
                None => ' ',
            };
            // Writing to a string does not fail.
            writeln!(out, "{mark} {number:>4}  {line}").ok();
        }
        out
    }
}
