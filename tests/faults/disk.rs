//! The disk is full, read-only, slow, broken or gone.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::json;

use super::{
    bench::{Bench, of_kind},
    machine::{EIO, EROFS, SmallDisk, Steered},
};
use crate::support::{eventually, http, process, sidecar::Setup, world};

/// The user of a sidecar that must not be root. Nobody on the machine has this number.
const SIDECAR: u32 = 64_101;

#[test]
fn a_full_disk_refuses_calls_until_there_is_room_again() {
    let Some(world) = world() else { return };
    let mut disk = None;
    let bench = Bench::start(world, |setup| disk = SmallDisk::at(&setup.directory().join("ledger"), "4m"));
    let (Some(bench), Some(_disk)) = (bench, disk) else { return };
    let filler = bench.sidecar.ledger().join("filler");
    for _ in 0..2 {
        bench.withstands(
            |_| {
                let mut file = fs::File::create(&filler).unwrap();
                let filled = std::io::copy(&mut std::io::repeat(b'x'), &mut file).unwrap_err();
                assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
            },
            |_| fs::remove_file(&filler).unwrap(),
        );
    }
    let records = bench.end();
    let outages = of_kind(&records, "alert.raised").filter(|record| record.to_string().contains("space"));
    assert_eq!(outages.count(), 2, "each outage is on record");
}

#[test]
fn a_disk_that_is_full_at_the_end_still_lets_the_ledger_be_closed() {
    let Some(world) = world() else { return };
    let mut disk = None;
    let bench = Bench::start(world, |setup| disk = SmallDisk::at(&setup.directory().join("ledger"), "4m"));
    let (Some(bench), Some(_disk)) = (bench, disk) else { return };
    bench.call().went(200);
    let mut file = fs::File::create(bench.sidecar.ledger().join("filler")).unwrap();
    std::io::copy(&mut std::io::repeat(b'x'), &mut file).unwrap_err();
    bench.refuses();
    let records = bench.end();
    assert_eq!(records.last().unwrap()["kind"], "sidecar.stopped", "{records:?}");
}

#[test]
fn a_directory_that_became_read_only_refuses_calls_until_it_is_not() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return crate::support::skipped("another user", "only root can run the sidecar as somebody else");
    }
    let Some(bench) = Bench::start(world, |setup| setup.user = Some(SIDECAR)) else { return };
    let ledger = bench.sidecar.ledger();
    let mode = |mode| fs::set_permissions(&ledger, fs::Permissions::from_mode(mode)).unwrap();
    bench.withstands(|_| mode(0o500), |_| mode(0o700));
    bench.end();
}

#[test]
fn a_disk_that_takes_no_writes_or_keeps_no_promise_refuses_calls_until_it_does() {
    let Some(world) = world() else { return };
    let mut steered = None;
    let bench = Bench::start(world, |setup| steered = Some(Steered::of(setup)));
    let (Some(bench), Some(disk)) = (bench, steered) else { return };
    bench.withstands(|_| disk.write_fails(EROFS), |_| disk.write_fails(0));
    bench.withstands(|_| disk.sync_fails(EIO), |_| disk.sync_fails(0));
    // Again and again, because the first failure is not always the hardest.
    for _ in 0..3 {
        disk.sync_fails(EIO);
        bench.refuses();
        disk.sync_fails(0);
        bench.recovers();
    }
    bench.end();
}

#[test]
fn a_disk_that_hangs_refuses_calls_within_a_bound_until_it_answers() {
    let Some(world) = world() else { return };
    let mut steered = None;
    let bench = Bench::start(world, |setup| steered = Some(Steered::of(setup)));
    let (Some(bench), Some(disk)) = (bench, steered) else { return };
    bench.withstands(|_| disk.sync_takes(i32::MAX), |_| disk.sync_takes(0));
    let records = bench.end();
    // What the disk took after the call was refused is on record as a call that was never sent.
    for record in of_kind(&records, "call.settled") {
        assert!(["completed", "not_sent"].contains(&record["outcome"].as_str().unwrap()), "{record}");
    }
}

#[test]
fn a_slow_disk_makes_calls_wait_for_their_record_and_nothing_else() {
    let Some(world) = world() else { return };
    let mut steered = None;
    let bench = Bench::start(world, |setup| steered = Some(Steered::of(setup)));
    let (Some(bench), Some(disk)) = (bench, steered) else { return };
    disk.sync_takes(150);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..16).map(|_| scope.spawn(|| http::get(bench.sidecar.health_port(), "/livez"))).collect();
        for call in calls {
            call.join().unwrap().went(200);
        }
    });
    bench.call().went(200);
    assert!(bench.sidecar.is_ready(), "slow is not broken");
    disk.sync_takes(0);
    bench.end();
}

#[test]
fn a_ledger_that_was_moved_away_refuses_calls_until_it_is_back() {
    let Some(world) = world() else { return };
    let Some(bench) = Bench::start(world, |_| ()) else { return };
    let (here, away) = (bench.sidecar.ledger(), bench.sidecar.directory().join("away"));
    bench.withstands(|_| fs::rename(&here, &away).unwrap(), |_| fs::rename(&away, &here).unwrap());
    bench.end();
}

#[test]
fn a_ledger_that_was_removed_is_missed_and_never_begun_anew_behind_the_operators_back() {
    let Some(world) = world() else { return };
    let Some(mut bench) = Bench::start(world, |_| ()) else { return };
    bench.call().went(200);
    let ledger = bench.sidecar.ledger();
    fs::remove_dir_all(&ledger).unwrap();
    bench.refuses();
    assert!(!ledger.exists(), "it is for the operator to say what becomes of it");
    bench.sidecar.daemon.signal("TERM");
    bench.sidecar.daemon.wait();
    // A new process begins a new ledger, which says so by its first record.
    bench.sidecar.restart();
    let records = bench.sidecar.query(&[]);
    assert_eq!((records[0]["kind"].as_str(), records[0]["seq"].as_u64()), (Some("sidecar.started"), Some(0)));
    bench.sidecar.stop();
    bench.verify();
}

#[test]
fn a_file_that_may_not_grow_is_no_reason_to_die() {
    let Some(world) = world() else { return };
    let limit = |setup: &mut Setup| {
        setup.file_size_limit = Some(48 << 10);
        // More than the limit: the segment cannot be rolled before it is met.
        setup.config["ledger"]["segment_max_bytes"] = json!(1 << 20);
    };
    let Some(bench) = Bench::start(world, limit) else { return };
    // Whoever watches sees the ledger fail and come back with a new segment, and the process live through it.
    let refused = eventually("a write beyond the limit", || Some(bench.call()).filter(|answer| answer.status != 200));
    refused.refused(503, "ledger_unavailable");
    http::get(bench.sidecar.health_port(), "/livez").went(200);
    let id = bench.sidecar.daemon.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited:"]).status();
    if !lifted.is_ok_and(|status| status.success()) {
        return crate::support::skipped("prlimit", "it comes with util-linux");
    }
    bench.recovers();
    bench.end();
}
