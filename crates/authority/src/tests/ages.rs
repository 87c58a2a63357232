//! Credentials that are overdue raise alerts, and do not go on about it.

use std::time::Duration;

use jiff::SignedDuration;

use super::world::World;
use crate::ages::look;

#[tokio::test]
async fn each_overdue_credential_raises_an_alert_once_a_period_at_whichever_replica() {
    let world = World::new().await;
    let (store, ledger) = (&world.authority.store, &world.ledger);
    let age = Duration::from_secs(3600);
    let later = |hours: i64| net::clock::now() + SignedDuration::from_hours(hours);
    assert_eq!(look(store, ledger, age, later(0)).await.unwrap(), 0);
    let count = look(store, ledger, age, later(2)).await.unwrap();
    assert_eq!(count, 4);
    for hours in [2, 3, 24 * 6] {
        assert_eq!(look(store, ledger, age, later(hours)).await.unwrap(), count);
    }
    let alerts = || world.records("alert.raised");
    assert_eq!(alerts().len(), 4);
    let alert = &alerts()[0].fields;
    assert_eq!((&alert["alert"], &alert["credential"]), (&"credential_overdue".into(), &alert["credential"]));
    assert!(alert["agent"]["id"].is_string() && alert["overdue_since"].is_string(), "{alert:?}");
    look(store, ledger, age, later(24 * 7 + 3)).await.unwrap();
    assert_eq!(alerts().len(), 8);
}
