//! Which records share an fsync: those that wait, and where many come at once, those that come within a moment. An fsync
//! costs about what a call does, so that a busy sidecar without company for each would spend a third of its time on them.

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
const WINDOW: Duration = Duration::from_millis(16);
/// As many within a [`WINDOW`] are many: more than two in each [`MOMENT`], which a few agents that each wait for their
/// answers never send.
const MANY: u32 = 36;

/// Gathers what is written together.
pub(super) struct Gathering {
    since: Instant,
    decisions: u32,
    /// Whether two decisions waited at once since then.
    together: bool,
    many: bool,
}

/// Nobody is left to ask.
pub(super) struct Disconnected;

/// What is written together, and what is asked after it.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) waiting: Vec<Waiting>,
    pub(super) order: Option<Order>,
    decisions: u32,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, decisions: 0, together: false, many: false }
    }

    /// What is to be written next; nothing once it is `due` that the writer does something else.
    pub(super) fn next(
        &mut self,
        inbox: &mpsc::Receiver<Request>,
        due: Option<Instant>,
    ) -> Result<Gathered, Disconnected> {
        let gathered = if self.many { after_a_moment(inbox, due)? } else { at_once(inbox, due)? };
        self.count(gathered.decisions, net::clock::monotonic());
        Ok(gathered)
    }

    fn count(&mut self, decisions: u32, now: Instant) {
        self.decisions += decisions;
        self.together |= decisions > 1;
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            // Counted over what passed: few that come after a long rest are few.
            let windows = passed.div_duration_f64(WINDOW);
            self.many = self.together && f64::from(self.decisions) >= f64::from(MANY) * windows;
            (self.since, self.decisions, self.together) = (now, 0, false);
        }
    }
}

impl Gathered {
    /// Takes `request` in. Whether there is room for another.
    fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Append { append, reply, slot } => {
                self.decisions += u32::from(!matches!(append.mark, Mark::Settles(_)));
                self.waiting.push(Waiting { append: *append, reply, slot });
            }
            Request::Do(asked) => self.order = Some(asked),
        }
        self.order.is_none() && self.waiting.len() < MAX_BATCH
    }
}

/// Where many come: asleep for a moment, and not woken by each that comes.
fn after_a_moment(inbox: &mpsc::Receiver<Request>, due: Option<Instant>) -> Result<Gathered, Disconnected> {
    let until_due = due.map(|due| due.saturating_duration_since(net::clock::monotonic()));
    std::thread::sleep(until_due.map_or(MOMENT, |until| until.min(MOMENT)));
    let mut gathered = Gathered::default();
    loop {
        match inbox.try_recv() {
            Ok(request) => {
                if !gathered.take(request) {
                    return Ok(gathered);
                }
            }
            Err(mpsc::TryRecvError::Empty) => return Ok(gathered),
            Err(mpsc::TryRecvError::Disconnected) if gathered.waiting.is_empty() => return Err(Disconnected),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(gathered),
        }
    }
}

/// The next request and everything that waits behind it. Ends of calls wait for company, since their calls wait for
/// nothing.
fn at_once(inbox: &mpsc::Receiver<Request>, due: Option<Instant>) -> Result<Gathered, Disconnected> {
    let mut gathered = Gathered::default();
    let mut next = match due {
        None => inbox.recv().map_err(|_| Disconnected)?,
        Some(due) => match inbox.recv_timeout(due.saturating_duration_since(net::clock::monotonic())) {
            Ok(request) => request,
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(gathered),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Disconnected),
        },
    };
    let patience = net::clock::monotonic() + ENDS_WAIT;
    let latest = due.map_or(patience, |due| due.min(patience));
    while gathered.take(next) {
        let found = if gathered.decisions > 0 {
            inbox.try_recv().ok()
        } else {
            inbox.recv_timeout(latest.saturating_duration_since(net::clock::monotonic())).ok()
        };
        match found {
            Some(request) => next = request,
            None => break,
        }
    }
    Ok(gathered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One for each of `decisions` that come together, `at` so many milliseconds.
    fn counted(gathering: &mut Gathering, start: Instant, decisions: u32, at: u64) -> bool {
        gathering.count(decisions, start + Duration::from_millis(at));
        gathering.many
    }

    #[test]
    fn many_are_many_for_as_long_as_they_come() {
        let start = net::clock::monotonic();
        let mut gathering = Gathering::new(start);
        let mut many = |decisions, at| counted(&mut gathering, start, decisions, at);
        assert!(!many(40, 4), "nothing is told before a window has passed");
        assert!(many(40, 16));
        assert!(many(40, 32));
        assert!(!many(3, 48));
        // After a rest, a burst is told from the rest only once it goes on.
        assert!(!many(100, 4000));
        assert!(many(100, 4016));
        assert!(!many(1, 60_000), "the first call after a rest waits, and no other");
    }

    #[test]
    fn calls_that_come_one_after_the_other_never_wait_for_each_other() {
        let start = net::clock::monotonic();
        let mut gathering = Gathering::new(start);
        for call in 1..200 {
            gathering.count(1, start + Duration::from_micros(call * 200));
            assert!(!gathering.many, "as fast as the disk may be");
        }
    }

    #[test]
    fn what_is_due_and_what_is_asked_does_not_wait_for_what_may_come() {
        let (sender, inbox) = mpsc::channel();
        let soon = net::clock::monotonic() + Duration::from_millis(5);
        for many in [false, true] {
            let mut gathering = Gathering { many, ..Gathering::new(net::clock::monotonic()) };
            let gathered = gathering.next(&inbox, Some(soon)).unwrap_or_default();
            assert!(gathered.waiting.is_empty() && gathered.order.is_none());
            sender.send(Request::Do(Order::Close(tokio::sync::oneshot::channel().0))).unwrap();
            let gathered = gathering.next(&inbox, None).unwrap_or_default();
            assert!(gathered.waiting.is_empty() && matches!(gathered.order, Some(Order::Close(_))));
        }
        drop(sender);
        for many in [false, true] {
            let mut gathering = Gathering { many, ..Gathering::new(net::clock::monotonic()) };
            assert!(gathering.next(&inbox, None).is_err());
        }
    }
}
