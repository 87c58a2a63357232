//! How often a failure is said that others can cause, such as connections that cannot be accepted: often enough to be seen, not so often that the log is
//! nothing else, because they decide how many there are.

use std::time::{Duration, Instant};

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The failures of one kind.
#[derive(Debug, Default)]
pub struct Complaints {
    said: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Counts a failure at `now`; how many there were since the last line, where it is time for one.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < INTERVAL) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_once_and_the_next_ones_together_ten_seconds_later() {
        let mut complaints = Complaints::default();
        let start = crate::clock::monotonic();
        assert_eq!(complaints.due(start), Some(1));
        for tenth in 1..100 {
            assert_eq!(complaints.due(start + Duration::from_millis(100 * tenth)), None);
        }
        assert_eq!(complaints.due(start + INTERVAL), Some(100));
        assert_eq!(complaints.due(start + INTERVAL * 5), Some(1));
    }
}
