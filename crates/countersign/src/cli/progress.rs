//! How far something is that a person waits for, on a terminal that somebody watches and nowhere else.

use std::io::{IsTerminal, Write};

/// One line on standard error, written over and over.
pub(crate) struct Bar {
    doing: &'static str,
    shown: bool,
    percent: Option<u64>,
}

impl Bar {
    /// `doing` is what is said of it: `replaying`. Nothing is shown where `quiet`.
    pub(crate) fn new(doing: &'static str, quiet: bool) -> Self {
        Self { doing, shown: !quiet && std::io::stderr().is_terminal(), percent: None }
    }

    /// So much of it is done.
    pub(crate) fn show(&mut self, done: u64, of: u64, detail: impl std::fmt::Display) {
        let percent = done.saturating_mul(100).checked_div(of).unwrap_or(100).min(100);
        if self.shown && self.percent != Some(percent) {
            self.percent = Some(percent);
            // A terminal that went away takes nothing from the work.
            write!(std::io::stderr(), "\r{} {percent:>3} %  {detail}", self.doing).ok();
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if self.shown && self.percent.is_some() {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}
