//! The only place where time is read.
//!
//! Everything else takes time as an argument, so that a decision can be replayed and a test can choose the hour.

use std::time::Instant;

/// The wall clock: for what is written down or compared with a token's claims. May step backwards.
#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
#[must_use]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The monotonic clock: for durations and deadlines. Never steps back; on Linux it stops during suspend.
#[expect(clippy::disallowed_methods, reason = "the one reader of the monotonic clock")]
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}
