//! What metrics say of changes on disk and what became of them, by the same names for a sidecar and an authority.

use opentelemetry::{KeyValue, global, metrics::Counter};

/// Whether what is on disk was refused, which `refused` says while there is somebody to ask.
pub(super) fn gauge(refused: impl Fn() -> Option<bool> + Send + Sync + 'static) {
    let _refused = global::meter("countersign")
        .u64_observable_gauge("countersign_reload_refused")
        .with_description("1 while what is on disk was refused and something older decides")
        .with_callback(move |observer| {
            if let Some(refused) = refused() {
                observer.observe(u64::from(refused), &[]);
            }
        })
        .build();
}

/// Counts reloads by what became of them; every outcome is there from the start.
pub(super) fn counter() -> Counter<u64> {
    let counter = global::meter("countersign")
        .u64_counter("countersign_reload")
        .with_description("Changes of configuration and policy, by outcome")
        .build();
    for outcome in ["taken", "unchanged", "refused"] {
        counter.add(0, &[KeyValue::new("outcome", outcome)]);
    }
    counter
}
