//! What is counted every now and then, until the end, and shows as a metric: the last count, until there is another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A count that shows as the metric `name` for as long as somebody has it.
pub(crate) fn counted(name: &'static str, description: &'static str) -> Arc<AtomicU64> {
    let found = Arc::new(AtomicU64::new(0));
    let seen = Arc::downgrade(&found);
    let _gauge = opentelemetry::global::meter("countersign")
        .u64_observable_gauge(name)
        .with_description(description)
        .with_callback(move |observer| {
            // Meters live as long as the process, and an authority may end before it.
            if let Some(found) = seen.upgrade() {
                observer.observe(found.load(Ordering::Relaxed), &[]);
            }
        })
        .build();
    found
}
