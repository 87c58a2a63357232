//! The only place where time is read.
//!
//! Everything else takes time as an argument, so that a decision can be replayed and a test can choose the hour.

use std::time::{Duration, Instant};

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

/// What the calling thread has spent of a core's time: for what work costs, however busy the machine is with others.
#[must_use]
pub fn thread_cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(spent.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(spent.tv_nsec).unwrap_or_default())
}
