//! How long each stage took, in nanoseconds, for `benches/stages.rs`: what is measured is the line itself, with nothing
//! exposed of it. Only with the feature `bench`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::metrics::STAGES;

/// The stages that are measured: those before the call is sent, and what is written of its end. Sending it is the
/// tool's time as well.
pub const NAMES: [&str; STAGES.len()] = names();

static SPENT: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// What all calls spent in `stage` since this was last asked.
pub fn spent(stage: &str) -> Duration {
    counter(stage).map_or(Duration::ZERO, |counter| Duration::from_nanos(counter.swap(0, Ordering::Relaxed)))
}

pub(crate) fn took(stage: &str, time: Duration) {
    if let Some(counter) = counter(stage) {
        counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn counter(stage: &str) -> Option<&'static AtomicU64> {
    NAMES.iter().position(|name| *name == stage).and_then(|index| SPENT.get(index))
}

const fn names() -> [&'static str; STAGES.len()] {
    let [accept, admit, resolve, guard, facts, decide, approve, reserve, credential, record, _forward] = STAGES;
    [accept, admit, resolve, guard, facts, decide, approve, reserve, credential, record, "settle"]
}
