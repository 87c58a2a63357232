//! The one thread that asks a candidate, call after call. A candidate that takes long rests in between: it shares the
//! machine with calls that people wait for.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{Code, Decision, Question};
use net::Tasks;
use opentelemetry::KeyValue;
use policy::candidate::{Difference, compare};
use tokio::sync::mpsc;

use super::{Asked, Candidate, Counters};

/// A comparison that takes more of its thread's time is a slow one, and is followed by a rest of so many times as long: a
/// candidate that never ends takes a quarter of a core and no more, also where nobody else wants it.
const LONG: Duration = Duration::from_millis(20);
const REST: u32 = 3;
/// The longest rest, and how often the end is looked for in it.
const LONGEST_REST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// What asks. It knows no sidecar: it ends once nobody can hand anything on any more.
pub(super) struct Worker {
    pub(super) tasks: Tasks,
    pub(super) counters: Counters,
    pub(super) found: mpsc::Sender<Found>,
}

/// A call that a candidate would have answered otherwise.
pub(super) struct Found {
    pub(super) candidate: Arc<Candidate>,
    pub(super) question: Arc<Question>,
    pub(super) difference: Difference,
}

impl Worker {
    /// Asks until nobody hands anything on any more, or shutdown begins.
    pub(super) fn run(self, mut asked: mpsc::Receiver<Asked>) {
        net::tasks::give_way();
        let stop = self.tasks.shutdown_token();
        while let Some(next) = asked.blocking_recv() {
            if stop.is_cancelled() {
                return;
            }
            if next.candidate.over.load(Ordering::Relaxed) {
                self.counters.drop_one(&next.candidate, "replaced");
                continue;
            }
            let before = net::clock::thread_cpu();
            self.ask(next);
            let spent = net::clock::thread_cpu().saturating_sub(before);
            if spent > LONG {
                let mut rest = (spent * REST).min(LONGEST_REST);
                while !rest.is_zero() && !stop.is_cancelled() {
                    std::thread::sleep(rest.min(LOOK));
                    rest = rest.saturating_sub(LOOK);
                }
            }
        }
    }

    fn ask(&self, asked: Asked) {
        let Asked { candidate, question, then, by_stage, _room } = asked;
        let counters = &self.counters;
        let difference = compare(&candidate.parts.engine, &question, then, by_stage);
        let action = || KeyValue::new("action", question.call.action.to_string());
        counters.compared.add(1, &[action()]);
        candidate.count(&question.call.action, difference.is_some());
        let Some(difference) = difference else { return };
        let word = |decision: &Decision| decision.code.map_or(decision.verdict.as_str(), Code::as_str);
        let (from, to) = (word(&difference.then), word(&difference.now));
        counters.differed.add(1, &[action(), KeyValue::new("from", from), KeyValue::new("to", to)]);
        let found = Found { candidate, question: Arc::clone(&question), difference };
        if let Err(mpsc::error::TrySendError::Full(found) | mpsc::error::TrySendError::Closed(found)) =
            self.found.try_send(found)
        {
            found.candidate.untold().unrecorded += 1;
        }
    }
}
