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

/// Time since the machine was started, suspend included: for how old something is that others go on without us.
/// Never steps back.
#[must_use]
pub fn boottime() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the nearest there is.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    since(rustix::time::clock_gettime(clock))
}

/// What the calling thread has spent of a core's time: for what work costs, however busy the machine is with others.
#[must_use]
pub fn thread_cpu() -> Duration {
    since(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime))
}

fn since(time: rustix::time::Timespec) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}
