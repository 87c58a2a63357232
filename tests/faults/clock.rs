//! The clock steps back: records keep their order, which is not the clock's, and the ledger stays whole.

use std::time::Duration;

use super::{
    bench::{Bench, of_kind},
    machine::Steered,
};
use crate::support::world;

/// Within what issuers' tokens allow: the calls themselves must go on.
const AHEAD: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_clock_that_steps_back_leaves_the_ledger_whole_and_calls_going() {
    let Some(world) = world() else { return };
    let mut steered = None;
    let bench = Bench::start(world, |setup| {
        let clock = Steered::of(setup);
        clock.clock(milliseconds(AHEAD));
        // So that seals are written on both sides of the step.
        setup.config["ledger"]["segment_max_bytes"] = serde_json::json!(16 << 10);
        steered = Some(clock);
    });
    let (Some(mut bench), Some(clock)) = (bench, steered) else { return };
    for _ in 0..5 {
        bench.call().went(200);
    }
    clock.clock(0);
    for _ in 0..5 {
        bench.call().went(200);
    }
    assert!(bench.sidecar.is_ready());
    bench.verify();

    // Another machine's clock, a day behind: tokens are not valid yet there, and the ledger goes on all the same.
    bench.sidecar.stop();
    clock.clock(-milliseconds(DAY));
    bench.sidecar.restart();
    bench.call().refused(401, "invalid_token");
    bench.sidecar.stop();
    clock.clock(0);
    bench.sidecar.restart();
    bench.call().went(200);
    let records = bench.end();

    let times: Vec<&str> = records.iter().map(|record| record["time"].as_str().unwrap()).collect();
    assert!(!times.is_sorted(), "the clock did step back");
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one + 1 == *next), "records are in the order of writing: {numbers:?}");
    assert_eq!(of_kind(&records, "sidecar.started").count(), 3);
}

#[test]
fn a_time_range_finds_records_from_both_sides_of_a_step() {
    let Some(world) = world() else { return };
    let mut steered = None;
    let bench = Bench::start(world, |setup| {
        let clock = Steered::of(setup);
        clock.clock(milliseconds(AHEAD));
        steered = Some(clock);
    });
    let (Some(bench), Some(clock)) = (bench, steered) else { return };
    let before = bench.call().went(200).decision_id();
    clock.clock(0);
    let after = bench.call().went(200).decision_id();
    let time = |id: &str| bench.sidecar.records(id)[0]["time"].as_str().unwrap().to_owned();
    assert!(time(&before) > time(&after));
    let found = |range: [&str; 2]| -> Vec<String> {
        let records = bench.sidecar.query(&range);
        of_kind(&records, "call.decided").map(|record| record["decision_id"].as_str().unwrap().to_owned()).collect()
    };
    // The earlier of the two is the later record.
    assert_eq!(found(["--since", &time(&after)]), vec![before.clone(), after.clone()]);
    assert_eq!(found(["--since", &time(&before)]), vec![before.clone()]);
    assert_eq!(found(["--until", &time(&before)]), vec![after]);
    bench.end();
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}
