//! Log lines whose number callers decide: the first of a kind at once, then one each few seconds that says how many
//! there were. The ledger and the metrics have them all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use net::Complaints;

/// The kinds of lines, and when each was last written.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<BTreeMap<&'static str, Complaints>>);

impl Quiet {
    /// Counts a line of `kind`; how many there were since the last one, this one included, where it is time for it.
    pub(crate) fn due(&self, kind: &'static str) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.entry(kind).or_default().due(net::clock::monotonic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_does_not_silence_another() {
        let quiet = Quiet::default();
        assert_eq!(quiet.due("tool_timeout"), Some(1));
        assert_eq!(quiet.due("tool_unreachable"), Some(1));
        for _ in 0..1000 {
            assert_eq!(quiet.due("tool_timeout"), None);
        }
    }
}
