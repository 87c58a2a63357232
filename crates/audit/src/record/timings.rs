//! How long each stage of a call took. Made, copied and written for every call, so it is one short list and no tree.

use serde::{Serialize, Serializer};

/// Room for the stages of one call.
const STAGES: usize = 12;

/// Microseconds by stage, in the order of the stages' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timings(Vec<(&'static str, u64)>);

impl Timings {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// `stage` took so much, or so much more.
    pub fn add(&mut self, stage: &'static str, microseconds: u64) {
        match self.0.binary_search_by_key(&stage, |(known, _)| known) {
            Ok(at) => {
                if let Some((_, took)) = self.0.get_mut(at) {
                    *took = took.saturating_add(microseconds);
                }
            }
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve(STAGES);
                }
                self.0.insert(at, (stage, microseconds));
            }
        }
    }

    /// How long `stage` took, if the call came there.
    pub fn of(&self, stage: &str) -> Option<u64> {
        let at = self.0.binary_search_by_key(&stage, |(known, _)| known).ok()?;
        self.0.get(at).map(|(_, took)| *took)
    }

    /// Each stage with how long it took.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }

    /// Whether the call came to no stage.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> From<[(&'static str, u64); N]> for Timings {
    fn from(stages: [(&'static str, u64); N]) -> Self {
        stages.into_iter().collect()
    }
}

impl FromIterator<(&'static str, u64)> for Timings {
    fn from_iter<I: IntoIterator<Item = (&'static str, u64)>>(stages: I) -> Self {
        let mut timings = Self::new();
        for (stage, took) in stages {
            timings.add(stage, took);
        }
        timings
    }
}

impl Serialize for Timings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stage_took_adds_up_and_is_written_by_name() {
        let mut timings = Timings::from([("resolve", 2), ("accept", 1)]);
        timings.add("resolve", 3);
        assert_eq!((timings.of("resolve"), timings.of("decide")), (Some(5), None));
        assert_eq!(serde_json::to_string(&timings).unwrap(), r#"{"accept":1,"resolve":5}"#);
        assert!(Timings::new().is_empty() && !timings.is_empty());
    }
}
