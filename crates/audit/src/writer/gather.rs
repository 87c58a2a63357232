//! Which records share an fsync: those that wait, and where many come, those that come within a moment. A fsync costs
//! about what a call does, so that a busy sidecar without company for each would spend a third of its time on them.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{Mark, Order, Request, Waiting};

/// The most records that share one fsync.
const MAX_BATCH: usize = 1024;
/// How long the record of a call's end may wait for company. Until then a crash makes the end unknown.
const ENDS_WAIT: Duration = Duration::from_millis(50);
/// How long decisions wait for each other where many come. A call that comes alone waits for its fsync alone.
const MOMENT: Duration = Duration::from_millis(1);
/// How long decisions are counted to tell how many come.
const WINDOW: Duration = Duration::from_millis(8);
/// As many within a [`WINDOW`] are many: three thousand a second.
const MANY: u32 = 24;

/// Gathers what is written together.
pub(super) struct Gathering {
    since: Instant,
    decisions: u32,
    many: bool,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, decisions: 0, many: false }
    }

    /// Everything that waits behind `first`, up to a batch, and what is asked after it. Nothing waits for company past
    /// `due`, when the writer has something else to do.
    pub(super) fn collect(
        &mut self,
        first: Request,
        inbox: &mpsc::Receiver<Request>,
        due: Option<Instant>,
    ) -> (Vec<Waiting>, Option<Order>) {
        let patience = net::clock::monotonic() + ENDS_WAIT;
        let latest = due.map_or(patience, |due| due.min(patience));
        let mut waiting: Vec<Waiting> = Vec::new();
        let (mut decisions, mut order) = (0, None);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append { append, reply, slot } => {
                    let decision = !matches!(append.mark, Mark::Settles(_));
                    if decision && decisions == 0 && self.many {
                        // Asleep, and not woken by each that comes.
                        std::thread::sleep(MOMENT);
                    }
                    decisions += u32::from(decision);
                    waiting.push(Waiting { append: *append, reply, slot });
                }
                Request::Do(asked) => {
                    order = Some(asked);
                    break;
                }
            }
            next = if waiting.len() >= MAX_BATCH {
                None
            } else if decisions > 0 {
                inbox.try_recv().ok()
            } else {
                // Only ends of calls, whose calls wait for nothing.
                inbox.recv_timeout(latest.saturating_duration_since(net::clock::monotonic())).ok()
            };
        }
        self.count(decisions, net::clock::monotonic());
        (waiting, order)
    }

    fn count(&mut self, decisions: u32, now: Instant) {
        self.decisions += decisions;
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            // Counted over what passed: few that come after a long rest are few.
            let windows = passed.div_duration_f64(WINDOW);
            self.many = f64::from(self.decisions) >= f64::from(MANY) * windows;
            (self.since, self.decisions) = (now, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_many_for_as_long_as_they_come() {
        let start = net::clock::monotonic();
        let mut gathering = Gathering::new(start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        gathering.count(20, at(4));
        assert!(!gathering.many, "nothing is told before a window has passed");
        gathering.count(20, at(8));
        assert!(gathering.many);
        gathering.count(30, at(16));
        assert!(gathering.many);
        gathering.count(3, at(24));
        assert!(!gathering.many);
        // After a rest, a burst is told from the rest only once it goes on.
        gathering.count(100, at(2000));
        assert!(!gathering.many);
        gathering.count(100, at(2008));
        assert!(gathering.many);
        gathering.count(1, at(60_000));
        assert!(!gathering.many, "the first call after a rest waits, and no other");
    }
}
