//! What a candidate would have answered otherwise, and of how many calls it was asked, put on record. The ledger takes what
//! it can: no call waits for it, and what it does not take is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use audit::{
    Event,
    record::{Differed, DifferedCall, PolicyCompared, PolicyDiffered},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    Candidate, Untold,
    fold::{Fate, Folds, WINDOW},
    work::Found,
};
use crate::sidecar::Sidecar;

/// Between two looks at whether there is something to sum up.
const LOOK: Duration = Duration::from_secs(10);

/// Puts on record what is found, sums up each minute and when another candidate stands there, and a last time when
/// shutdown begins.
pub(super) async fn tell(sidecar: Arc<Sidecar>, mut found: mpsc::Receiver<Found>) {
    let stopping = sidecar.tasks.shutdown_token();
    let mut folds = Folds::default();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = false;
    loop {
        tokio::select! {
            next = found.recv() => match next {
                Some(found) => one(&sidecar, &mut folds, found).await,
                None => break,
            },
            () = sidecar.beside.replaced.notified() => sum_up(&sidecar, &mut folds, true).await,
            _ = looks.tick() => sum_up(&sidecar, &mut folds, false).await,
            () = stopping.cancelled(), if !ended => {
                ended = true;
                // Nothing is compared any more, and the thread that did ends.
                sidecar.beside.set(None);
                sidecar.beside.queue.store(None);
            }
        }
    }
    sum_up(&sidecar, &mut folds, true).await;
    sidecar.beside.ended.store(true, Ordering::Release);
}

async fn one(sidecar: &Sidecar, folds: &mut Folds, found: Found) {
    let now = net::clock::monotonic();
    if folds.are_due(now) {
        differences(sidecar, folds).await;
    }
    match folds.fate(&found, now) {
        Fate::Recorded => {
            let candidate = Arc::clone(&found.candidate);
            if !recorded(sidecar, Event::PolicyDiffered(Box::new(record(found)))).await {
                candidate.untold().unrecorded += 1;
            }
        }
        Fate::Folded => {}
        Fate::Counted => found.candidate.untold().unrecorded += 1,
    }
}

fn record(found: Found) -> PolicyDiffered {
    let Found { candidate, question, difference } = found;
    let delegation = &question.delegation;
    let call = DifferedCall {
        id: question.id.clone(),
        user: delegation.chain.user().principal.clone(),
        agent: delegation.chain.agent().principal.clone(),
        tenant: delegation.tenant.clone(),
        run: delegation.run.clone(),
        task: delegation.task.id.clone(),
    };
    PolicyDiffered {
        change: difference.group.change.as_str(),
        tool: difference.group.tool,
        action: difference.group.action,
        active: (candidate.parts.active.clone(), difference.then),
        candidate: (candidate.revision().to_owned(), difference.now),
        of: Differed::Call(Box::new(call)),
    }
}

/// Sums up what is due; everything, where it is to be done `now`.
async fn sum_up(sidecar: &Arc<Sidecar>, folds: &mut Folds, now: bool) {
    if now || folds.are_due(net::clock::monotonic()) {
        differences(sidecar, folds).await;
    }
    let past = std::mem::take(&mut *sidecar.beside.past());
    let mut gone = Vec::new();
    for candidate in past {
        compared(sidecar, &candidate).await;
        // Somebody may still be about to ask it.
        if Arc::strong_count(&candidate) > 1 { sidecar.beside.past().push(candidate) } else { gone.push(candidate) }
    }
    if !gone.is_empty() {
        // A large data document takes a while.
        drop(sidecar.tasks.spawn_blocking("policy let go", move || drop(gone)));
    }
    let current = sidecar.beside.current.load_full();
    let is_due = |candidate: &Candidate| {
        let since = net::clock::now().duration_since(candidate.untold().from);
        since.unsigned_abs() >= WINDOW
    };
    if let Some(candidate) = current.filter(|candidate| now || is_due(candidate)) {
        compared(sidecar, &candidate).await;
    }
}

async fn differences(sidecar: &Sidecar, folds: &mut Folds) {
    for alike in folds.take() {
        // It is summed up all the same: of how many calls there was another answer.
        recorded(sidecar, Event::PolicyDiffered(Box::new(alike))).await;
    }
}

/// Puts on record of how many calls `candidate` was asked since the last time.
async fn compared(sidecar: &Sidecar, candidate: &Candidate) {
    let now = net::clock::now();
    let dropped = candidate.dropped.load(Ordering::Relaxed);
    let taken = {
        let mut untold = candidate.untold();
        let taken = untold.clone();
        *untold = Untold { from: now, dropped, actions: BTreeMap::new(), unrecorded: 0 };
        taken
    };
    let dropped = dropped.saturating_sub(taken.dropped);
    if taken.actions.is_empty() && dropped == 0 && taken.unrecorded == 0 {
        return;
    }
    let event = PolicyCompared {
        candidate: candidate.revision().to_owned(),
        active: candidate.parts.active.clone(),
        from: taken.from,
        to: now,
        dropped,
        unrecorded: taken.unrecorded,
        actions: taken.actions.clone(),
    };
    if !recorded(sidecar, Event::PolicyCompared(Box::new(event))).await {
        put_back(candidate, taken);
    }
}

/// What could not be recorded is in the next summary.
fn put_back(candidate: &Candidate, taken: Untold) {
    let mut untold = candidate.untold();
    untold.from = untold.from.min(taken.from);
    untold.dropped = taken.dropped;
    untold.unrecorded += taken.unrecorded;
    for (action, counted) in taken.actions {
        let now = untold.actions.entry(action).or_default();
        now.compared += counted.compared;
        now.differed += counted.differed;
    }
}

async fn recorded(sidecar: &Sidecar, event: Event) -> bool {
    let written = tokio::time::timeout(audit::PATIENCE, sidecar.ledger.event(event)).await;
    // What the ledger was given it still writes.
    let Ok(Err(error)) = written else { return true };
    if let Some(lines) = sidecar.quiet.due("candidate unrecorded") {
        tracing::warn!(%error, suppressed = lines - 1, "what a policy candidate says otherwise could not be recorded");
    }
    false
}
