//! What the metrics show of a sidecar's snapshot.

use std::sync::{Arc, Weak};

use opentelemetry::{KeyValue, global};
use proxy::Sidecar;

/// Shows what `sidecar` decides by, for as long as it is there.
pub(super) fn gauges(sidecar: &Arc<Sidecar>) {
    let meter = global::meter("countersign");
    // Meters live as long as the process, and a sidecar may end before it.
    let seen: Weak<Sidecar> = Arc::downgrade(sidecar);
    let _age = meter
        .f64_observable_gauge("countersign_jwks_age")
        .with_unit("s")
        .with_description("How long ago an issuer's keys were last fetched")
        .with_callback(move |observer| {
            let Some(sidecar) = seen.upgrade() else { return };
            for status in sidecar.snapshot().verifier().keys_status() {
                if let Some(age) = status.age {
                    observer.observe(age.as_secs_f64(), &[KeyValue::new("issuer", status.issuer)]);
                }
            }
        })
        .build();
    let seen = Arc::downgrade(sidecar);
    let _policy = meter
        .u64_observable_gauge("countersign_policy_info")
        .with_description("Always 1; the labels say which bundles decide, and the revision of them all")
        .with_callback(move |observer| {
            let Some(sidecar) = seen.upgrade() else { return };
            let policy = Arc::clone(sidecar.snapshot().policy());
            for bundle in policy.bundles() {
                let labels = [("bundle", bundle.as_str()), ("revision", policy.revision())];
                observer.observe(1, &labels.map(|(name, value)| KeyValue::new(name, value.to_owned())));
            }
        })
        .build();
}
