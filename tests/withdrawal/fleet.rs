//! A fleet: sidecars follow replicas of one authority behind one address, through a rolling restart and whatever the
//! clocks of their machines do.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{Behaviour, Changes, follower, planes, read, task, token, until_refused, write};
use crate::{
    faults::Steered,
    support::{
        Answer, Sidecar, World,
        authority::{self, Client},
        eventually,
        front::{Fleet, exchange},
        postgres::Postgres,
        process, world,
    },
};

#[test]
fn three_sidecars_follow_two_replicas_that_restart_one_after_the_other_under_load() {
    let Some(world) = world() else { return };
    let Some(postgres) = Postgres::start() else { return };
    let client = Client::new("support-v9");
    let Some(mut fleet) = Fleet::start(world, &postgres, &client, |_, _| ()) else { return };
    let sidecars: Vec<Sidecar> =
        ["one", "two", "three"].map(|name| planes::enrolled(world, &fleet.replicas[0], name).start()).into();
    let stop = AtomicBool::new(false);
    let [issued, called, missed] = [const { AtomicUsize::new(0) }; 3];
    let (port, issuer) = fleet.door();
    let issue = || {
        let exchange = || exchange(world, port, &issuer, &client);
        let mut answer = exchange();
        if answer.status == 502 {
            // In the instant in which one replica's queue is closed, nobody can help but the one who asks again.
            missed.fetch_add(1, Ordering::Relaxed);
            answer = exchange();
        }
        issued.fetch_add(1, Ordering::Relaxed);
        authority::token(&answer)
    };
    let going = || !stop.load(Ordering::Relaxed);
    thread::scope(|scope| {
        for sidecar in &sidecars {
            let (going, issue, called) = (&going, &issue, &called);
            scope.spawn(move || {
                while going() {
                    planes::read(sidecar, &issue()).went(200);
                    called.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..4 {
                let before = called.load(Ordering::Relaxed);
                eventually("calls meanwhile", || (called.load(Ordering::Relaxed) > before + 10).then_some(()));
                let replica = &mut fleet.replicas[number % 2];
                replica.daemon.signal("TERM");
                assert!(replica.daemon.wait().success());
                replica.restart();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    let (issued_so_far, missed) = (issued.load(Ordering::Relaxed), missed.load(Ordering::Relaxed));
    println!("{issued_so_far} issued, {missed} of them when asked again");
    assert!(issued_so_far > 40 && missed <= 4, "each restart may cost one question at most: {missed}");

    // What either takes back holds at each, and a replica that comes later says so too.
    let last = issue();
    for sidecar in &sidecars {
        planes::read(sidecar, &last).went(200);
    }
    planes::withdraw(world, &fleet.replicas[1], &["platform"], "task:ticket-1");
    fleet.replicas[1].killed();
    for sidecar in &sidecars {
        eventually("the task's end to be known", || (planes::read(sidecar, &last).status != 200).then_some(()));
        planes::read(sidecar, &last).refused(401, "withdrawn");
    }
}

#[test]
fn replicas_that_cannot_read_their_database_look_fresh_to_nobody_and_go_on_when_they_can() {
    let Some(world) = world() else { return };
    let Some(mut postgres) = Postgres::start() else { return };
    let client = Client::new("support-v9");
    let Some(fleet) = Fleet::start(world, &postgres, &client, |_, _| ()) else { return };
    let sidecar = planes::enrolled(world, &fleet.replicas[0], "one").start();
    let issue = || fleet.exchange(world, &client);
    let goes = || {
        let answer = issue();
        (answer.status == 200 && planes::refund(&sidecar, &authority::token(&answer)).status == 201).then_some(())
    };
    for (word, back) in [("pause", "resume"), ("stop", "start")] {
        eventually("refunds to go", goes);
        let token = authority::token(&issue());
        postgres.tell(word);
        eventually("writes to be refused", || (planes::refund(&sidecar, &token).status == 503).then_some(()));
        planes::refund(&sidecar, &token).refused(503, "authority_stale");
        // Reads may rest on what was known for longer, and the sidecar is not taken out of service.
        planes::read(&sidecar, &token).went(200);
        assert!(sidecar.is_ready());
        assert_eq!(issue().status, 503, "a replica says that it cannot say");
        postgres.tell(back);
    }
    eventually("refunds to go again", goes);
}

#[test]
fn a_sidecar_that_was_suspended_for_longer_than_its_bound_serves_nothing_on_an_old_word() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "60s", "2s").start();
    let token = token(world, &changes, "t");
    write(&sidecar, &token).went(200);
    sidecar.daemon.signal("STOP");
    changes.withdraw(&task("t"), "withdrawn");
    changes.behave(Behaviour::Gone);
    // Not the condition of anything: how long it sleeps.
    thread::sleep(Duration::from_millis(2500));
    sidecar.daemon.signal("CONT");
    write(&sidecar, &token).refused(503, "authority_stale");
    changes.behave(Behaviour::Well);
    eventually("the withdrawal to be known", || (read(&sidecar, &token).status != 200).then_some(()));
    write(&sidecar, &token).refused(401, "withdrawn");
}

#[test]
fn a_wall_clock_that_steps_makes_no_view_fresh_and_none_old() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let mut setup = follower(world, &changes, "60s", "3s");
    let clock = Steered::of(&mut setup);
    let sidecar = setup.start();
    let token = token(world, &changes, "t");
    let goes = || -> Answer {
        let answer = write(&sidecar, &token);
        answer.went(200);
        answer
    };
    for step in [20_000, -3_000, 0] {
        clock.clock(step);
        goes();
    }
    for step in [-3_000, 20_000] {
        changes.behave(Behaviour::Gone);
        clock.clock(step);
        until_refused(&sidecar, 3.0, || write(&sidecar, &token));
        changes.behave(Behaviour::Well);
        eventually("it to be heard again", || (write(&sidecar, &token).status == 200).then_some(()));
        changes.withdraw(&task(&format!("at-{step}")), "withdrawn");
        let other = self::token(world, &changes, "other");
        eventually("what is withdrawn on another day's clock to hold", || {
            let of_it = world.openid.sign(&json!({"like": token, "claims": {"task_id": format!("at-{step}")}}));
            (read(&sidecar, &of_it).status == 401).then_some(())
        });
        read(&sidecar, &other).went(200);
    }
}

/// A fleet whose database has a standby, and a sidecar that follows it.
struct Standby {
    postgres: Postgres,
    client: Client,
    fleet: Fleet,
    sidecar: Sidecar,
}

fn with_a_standby(world: &World) -> Option<Standby> {
    let mut postgres = Postgres::start()?;
    postgres.tell("standby");
    let client = Client::new("support-v9");
    let fleet = Fleet::start(world, &postgres, &client, |_, _| ())?;
    let sidecar = planes::enrolled(world, &fleet.replicas[0], "one").start();
    Some(Standby { postgres, client, fleet, sidecar })
}

#[test]
fn a_standby_takes_over_the_database_and_nobody_is_restarted_and_nothing_is_lost() {
    let Some(world) = world() else { return };
    let Some(Standby { mut postgres, client, fleet, sidecar }) = with_a_standby(world) else { return };
    let issue = || fleet.exchange(world, &client);
    let goes = || {
        let answer = issue();
        (answer.status == 200 && planes::refund(&sidecar, &authority::token(&answer)).status == 201).then_some(())
    };
    eventually("refunds to go", goes);
    let before = planes::withdraw(world, &fleet.replicas[0], &["platform"], "user:https://sso.example#somebody");
    postgres.tell("failover");
    eventually("refunds to go again", goes);
    let token = authority::token(&issue());
    planes::read(&sidecar, &token).went(200);
    let after = planes::withdraw(world, &fleet.replicas[1], &["platform"], "task:ticket-1");
    assert!(after["position"].as_u64() > before["position"].as_u64(), "{before}, then {after}");
    eventually("the task's end to be known", || (planes::read(&sidecar, &token).status != 200).then_some(()));
    planes::read(&sidecar, &token).refused(401, "withdrawn");
}

#[test]
fn a_standby_that_lost_the_last_withdrawal_makes_nothing_good_again_until_a_person_begins_a_generation() {
    let Some(world) = world() else { return };
    let Some(Standby { mut postgres, client, fleet, sidecar }) = with_a_standby(world) else { return };
    let token = authority::token(&fleet.exchange(world, &client));
    planes::read(&sidecar, &token).went(200);
    postgres.tell("late");
    planes::withdraw(world, &fleet.replicas[0], &["platform"], "task:ticket-1");
    eventually("the task's end to be known", || (planes::read(&sidecar, &token).status != 200).then_some(()));
    postgres.tell("failover");
    // The database says that the task goes on. Nobody believes it.
    eventually("the loss to be noticed", || {
        let answer = fleet.exchange(world, &client);
        assert_ne!(answer.status, 200, "{}", answer.text());
        fleet.replicas.iter().any(|replica| replica.daemon.output().contains("and was at")).then_some(())
    });
    for _ in 0..4 {
        assert_eq!(fleet.exchange(world, &client).status, 503);
    }
    planes::read(&sidecar, &token).refused(401, "withdrawn");
    let config = fleet.replicas[0].directory().join("authority.yaml");
    let restored = ["authority", "restored", "--by", "dana@acme.example", "--reason", "failover", "--config"];
    let said = process::countersign().args(restored).arg(&config).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let mut anew = None;
    eventually("tokens to be issued", || {
        let answer = fleet.exchange(world, &client);
        anew = (answer.status == 200).then(|| authority::token(&answer));
        anew.is_some().then_some(())
    });
    // What the sidecar knew holds for new tokens too, once it has heard that positions begin anew.
    eventually("the sidecar to follow", || {
        (planes::read(&sidecar, anew.as_ref().unwrap()).status == 401).then_some(())
    });
    planes::read(&sidecar, anew.as_ref().unwrap()).refused(401, "withdrawn");
}
