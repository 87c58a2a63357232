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
/// How long decisions wait for each other where many come, and twice as long where twice a [`CROWD`] is under way. A call
/// that comes alone waits for its fsync alone.
const MOMENT: Duration = Duration::from_millis(1);
/// How long decisions are counted to tell how many come.
const WINDOW: Duration = Duration::from_millis(16);
/// As many within a [`WINDOW`] are many: more than two in each [`MOMENT`], which a few agents that each wait for their
/// answers never send.
const MANY: u32 = 36;
/// So many calls under way are a crowd: they wait for the processor and for each other already. With fewer there is time
/// for an fsync of each, however many come in a second, and nobody has to wait for company.
const CROWD: u64 = 24;

/// Gathers what is written together.
pub(super) struct Gathering {
    since: Instant,
    decisions: u32,
    /// Whether two decisions waited at once since then.
    together: bool,
    /// How many calls were under way, summed over how often was looked.
    under_way: u64,
    looks: u64,
    /// How long to wait for company.
    moment: Option<Duration>,
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
        Self { since: now, decisions: 0, together: false, under_way: 0, looks: 0, moment: None }
    }

    /// What is to be written next; nothing once it is `due` that the writer does something else. `under_way` says how
    /// many calls are.
    pub(super) fn next(
        &mut self,
        inbox: &mpsc::Receiver<Request>,
        due: Option<Instant>,
        under_way: impl Fn() -> usize,
    ) -> Result<Gathered, Disconnected> {
        let gathered = match self.moment {
            Some(moment) => after_a_moment(moment, inbox, due)?,
            None => at_once(inbox, due)?,
        };
        self.count(gathered.decisions, under_way(), net::clock::monotonic());
        Ok(gathered)
    }

    fn count(&mut self, decisions: u32, under_way: usize, now: Instant) {
        self.decisions += decisions;
        self.together |= decisions > 1;
        self.under_way = self.under_way.saturating_add(under_way as u64);
        self.looks += 1;
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            // Counted over what passed: few that come after a long rest are few.
            let windows = passed.div_duration_f64(WINDOW);
            let many = self.together && f64::from(self.decisions) >= f64::from(MANY) * windows;
            let moment = match self.under_way / self.looks / CROWD {
                0 => None,
                1 => Some(MOMENT),
                _ => Some(2 * MOMENT),
            };
            *self = Self { moment: moment.filter(|_| many), ..Self::new(now) };
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
fn after_a_moment(
    moment: Duration,
    inbox: &mpsc::Receiver<Request>,
    due: Option<Instant>,
) -> Result<Gathered, Disconnected> {
    let until_due = due.map(|due| due.saturating_duration_since(net::clock::monotonic()));
    std::thread::sleep(until_due.map_or(moment, |until| until.min(moment)));
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
        gathering.count(decisions, 64, start + Duration::from_millis(at));
        gathering.moment.is_some()
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
            gathering.count(1, 64, start + Duration::from_micros(call * 200));
            assert_eq!(gathering.moment, None, "as fast as the disk may be");
        }
    }

    #[test]
    fn where_few_are_under_way_none_waits_for_another_however_many_come() {
        let start = net::clock::monotonic();
        let mut gathering = Gathering::new(start);
        for at in (16..=400).step_by(16) {
            gathering.count(40, 8, start + Duration::from_millis(at));
            assert_eq!(gathering.moment, None);
        }
        for (under_way, at, moment) in [(24, 416, Some(MOMENT)), (64, 432, Some(2 * MOMENT)), (8, 448, None)] {
            gathering.count(40, under_way, start + Duration::from_millis(at));
            assert_eq!(gathering.moment, moment);
        }
        // Nobody says how many: any number may be.
        gathering.count(40, usize::MAX, start + Duration::from_millis(464));
        assert_eq!(gathering.moment, Some(2 * MOMENT));
    }

    #[test]
    fn what_is_due_and_what_is_asked_does_not_wait_for_what_may_come() {
        let (sender, inbox) = mpsc::channel();
        let soon = net::clock::monotonic() + Duration::from_millis(5);
        for moment in [None, Some(MOMENT)] {
            let mut gathering = Gathering { moment, ..Gathering::new(net::clock::monotonic()) };
            let gathered = gathering.next(&inbox, Some(soon), || 64).unwrap_or_default();
            assert!(gathered.waiting.is_empty() && gathered.order.is_none());
            sender.send(Request::Do(Order::Close(tokio::sync::oneshot::channel().0))).unwrap();
            let gathered = gathering.next(&inbox, None, || 64).unwrap_or_default();
            assert!(gathered.waiting.is_empty() && matches!(gathered.order, Some(Order::Close(_))));
        }
        drop(sender);
        for moment in [None, Some(MOMENT)] {
            let mut gathering = Gathering { moment, ..Gathering::new(net::clock::monotonic()) };
            assert!(gathering.next(&inbox, None, || 64).is_err());
        }
    }
}
