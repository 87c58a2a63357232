//! What the metrics show of fetched bundles.

use std::sync::{Arc, Weak};

use opentelemetry::{KeyValue, global};

use super::Bundles;

/// Shows `bundles` for as long as they are there.
pub(super) fn register(bundles: &Arc<Bundles>) {
    if bundles.followed.is_empty() {
        return;
    }
    let meter = global::meter("countersign");
    let label = |name: &str| [KeyValue::new("bundle", name.to_owned())];
    let seen: Weak<Bundles> = Arc::downgrade(bundles);
    let _refused = meter
        .u64_observable_gauge("countersign_policy_bundle_refused")
        .with_description("1 while what a bundle's server has was refused and an earlier one decides")
        .with_callback(move |observer| {
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                observer.observe(u64::from(followed.known().refused.is_some()), &label(name));
            }
        })
        .build();
    let seen = Arc::downgrade(bundles);
    let _serial = meter
        .u64_observable_gauge("countersign_policy_bundle_serial")
        .with_description("The serial of the bundle that decides")
        .with_callback(move |observer| {
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                if let Some(serial) = followed.known().taken.serial {
                    observer.observe(serial, &label(name));
                }
            }
        })
        .build();
    let seen = Arc::downgrade(bundles);
    let _age = meter
        .f64_observable_gauge("countersign_policy_bundle_age")
        .with_unit("s")
        .with_description("How long ago its server last confirmed the bundle that decides")
        .with_callback(move |observer| {
            let now = net::clock::now();
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                let age = now.duration_since(followed.freshness.confirmed()).as_secs_f64();
                observer.observe(age.max(0.0), &label(name));
            }
        })
        .build();
}
