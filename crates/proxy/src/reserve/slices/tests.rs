//! What several sidecars spend of one limit is never over, whatever is lost between them and the authority, and whoever
//! is killed; and what one of them does with what it holds.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
};

use audit::record::{ChargeFate, Outcome};
use model::limits::{Cumulative, Holder};
use proptest::prelude::*;

use super::*;
use crate::reserve::charge::{Charge, Held};

const NOW: &str = "2026-11-22T15:00:00Z";
const MAX: u64 = 1_000;

pub(in crate::reserve) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub(in crate::reserve) fn claim(units: u64, max: u64) -> Claim {
    let limit = serde_json::json!({ "it": { "sum": "n", "max": "1000", "currency": "JPY", "window": "P1D" } });
    let limits: model::Limits = serde_json::from_value(limit).unwrap();
    let limit: Cumulative = limits.cumulative().next().unwrap().1.clone();
    let key = LimitKey {
        holder: Holder::Grant { grant: Id::new("refunds").unwrap() },
        name: "it".to_owned(),
        sum: Some("n".to_owned()),
        currency: Some("JPY".to_owned()),
        window: limit.window,
    };
    Claim { key, limit, max, units, hop: 0 }
}

fn tenant() -> Id<Tenant> {
    Id::new("acme").unwrap()
}

/// An authority by the same rules as the store's, without one.
#[derive(Debug, Default)]
struct Counter {
    max: u64,
    leases: BTreeMap<String, (u64, u64)>,
    asked: usize,
}

impl Counter {
    fn new(max: u64) -> Self {
        Self { max, ..Self::default() }
    }

    fn lease(&mut self, asked: &LeaseRequest) -> Result<LeaseAnswer, NotLeased> {
        self.asked += 1;
        let lease = asked.lease.to_string();
        let (step, amount) = self.leases.get(&lease).copied().unwrap_or_default();
        assert!(asked.step > step && asked.hold <= amount && asked.spent <= asked.hold && asked.need <= asked.want);
        let others: u64 = self.leases.iter().filter(|(id, _)| **id != lease).map(|(_, (_, amount))| amount).sum();
        let max = self.max.min(asked.max);
        let room = max.saturating_sub(others).saturating_sub(asked.hold);
        let more = room.checked_sub(asked.need).map_or(0, |left| asked.need + (asked.want - asked.need).min(left / 2));
        self.leases.insert(lease, (asked.step, asked.hold + more));
        let amount = asked.hold + more;
        Ok(LeaseAnswer { amount, max, taken: others + amount, reserved: 0, seconds: asked.seconds.min(300) })
    }
}

fn limits(counter: &Arc<Mutex<Counter>>) -> Limits {
    let counter = Arc::clone(counter);
    let ask = Box::new(move |asked: LeaseRequest| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            tokio::task::yield_now().await;
            counter.lock().unwrap().lease(&asked)
        }) as Asking
    });
    Limits::new(leasing(ask))
}

fn leasing(ask: Box<dyn Fn(LeaseRequest) -> Asking + Send + Sync>) -> Leasing {
    let authority = "https://countersign.example".to_owned();
    let charge = Box::new(|_| Box::pin(async { Err(NotLeased::Unheard("nobody".to_owned())) }) as Charging);
    Leasing { authority, slice: 5, lease: Duration::from_secs(30), patience: Duration::from_secs(5), ask, charge }
}

/// What becomes of a question on its way.
#[derive(Debug, Clone, Copy)]
enum Way {
    There,
    NeverThere,
    NeverBack,
    /// It arrives, and is answered when nobody waits any more and other things have happened.
    Late,
}

#[derive(Debug, Clone)]
enum Step {
    Call { who: usize, units: u64, max: u64, way: Way },
    End { call: usize, sent: bool },
    Return { who: usize, way: Way },
    Killed { who: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let way = || prop_oneof![4 => Just(Way::There), 1 => Just(Way::NeverThere), 1 => Just(Way::NeverBack), 1 => Just(Way::Late)];
    prop_oneof![
        8 => (0..3_usize, 1..200_u64, prop_oneof![4 => Just(MAX), 1 => Just(MAX / 2)], way())
            .prop_map(|(who, units, max, way)| Step::Call { who, units, max, way }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(call, sent)| Step::End { call, sent }),
        2 => (0..3_usize, way()).prop_map(|(who, way)| Step::Return { who, way }),
        1 => (0..3_usize).prop_map(|who| Step::Killed { who }),
        2 => (1..40_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

struct World {
    counter: Counter,
    slices: Vec<Arc<Slice>>,
    late: VecDeque<LeaseRequest>,
    calls: Vec<(Arc<Slice>, u64)>,
    spent: u64,
    clock: Duration,
    leasing: Leasing,
}

impl World {
    fn new() -> Self {
        let slices = (0..3).map(|_| Arc::new(Slice::new(&claim(1, MAX), &tenant(), now()).unwrap())).collect();
        Self {
            counter: Counter::new(MAX),
            slices,
            late: VecDeque::new(),
            calls: Vec::new(),
            spent: 0,
            clock: Duration::from_secs(1_000),
            leasing: leasing(Box::new(|_| Box::pin(async { Err(NotLeased::Unheard("nobody".to_owned())) }))),
        }
    }

    fn ask(&mut self, who: usize, claim: Option<&Claim>, way: Way) {
        let slice = Arc::clone(&self.slices[who]);
        let asked = slice.question(claim, &self.leasing, self.clock);
        match way {
            Way::There => {
                let answer = self.counter.lease(&asked).unwrap();
                slice.answered(claim, &answer, self.clock);
            }
            Way::NeverThere => {}
            Way::NeverBack => drop(self.counter.lease(&asked)),
            Way::Late => self.late.push_back(asked),
        }
    }

    fn step(&mut self, step: &Step) {
        // What was late arrives now; one that was overtaken is refused.
        if let Some(asked) = self.late.pop_front() {
            let known = self.counter.leases.get(&asked.lease.to_string()).copied().unwrap_or_default();
            if asked.step > known.0 && asked.hold <= known.1 {
                drop(self.counter.lease(&asked));
            }
        }
        match *step {
            Step::Call { who, units, max, way } => {
                let claim = claim(units, max);
                let slice = Arc::clone(&self.slices[who]);
                let mut taken = slice.try_take(&claim, self.clock);
                if taken.is_none() {
                    self.ask(who, Some(&claim), way);
                    taken = slice.try_take(&claim, self.clock);
                }
                if taken == Some(Ok(())) {
                    self.calls.push((slice, units));
                }
            }
            Step::End { call, sent } => {
                if !self.calls.is_empty() {
                    let (slice, units) = self.calls.swap_remove(call % self.calls.len());
                    if sent { self.spent += units } else { slice.release(units) }
                }
            }
            Step::Return { who, way } => {
                self.slices[who].state().give_up();
                self.ask(who, None, way);
            }
            Step::Killed { who } => {
                let slice = Arc::clone(&self.slices[who]);
                self.slices[who] = Arc::new(Slice::new(&claim(1, MAX), &tenant(), now()).unwrap());
                // Whatever it had under way may have reached the tool.
                self.calls.retain(|(of, units)| {
                    let lost = Arc::ptr_eq(of, &slice);
                    self.spent += if lost { *units } else { 0 };
                    !lost
                });
            }
            Step::Wait { seconds } => self.clock += Duration::from_secs(seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_limit_is_ever_overspent(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(&step);
            let under_way: u64 = world.calls.iter().map(|(_, units)| units).sum();
            prop_assert!(world.spent + under_way <= MAX, "{} spent, {under_way} under way after {step:?}", world.spent);
            let held: u64 = world.counter.leases.values().map(|(_, amount)| amount).sum();
            prop_assert!(held <= MAX);
        }
    }
}

async fn take(limits: &Limits, units: u64, max: u64) -> Result<Part, Short> {
    limits.take(&claim(units, max), &tenant(), now()).await
}

fn charge(part: Part) -> Charge {
    Held::new(&Id::new("l.1").unwrap(), vec![part], None).charge(false).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_at_two_sidecars_share_what_there_is_and_no_more() {
    let counter = Arc::new(Mutex::new(Counter::new(MAX)));
    let sidecars = [Arc::new(limits(&counter)), Arc::new(limits(&counter))];
    let tasks = net::Tasks::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..128)
        .map(|number| {
            let (limits, sent) = (Arc::clone(&sidecars[number % 2]), Arc::clone(&sent));
            tasks.spawn("call", async move {
                if let Ok(part) = take(&limits, 30, MAX).await {
                    sent.fetch_add(30, Ordering::Relaxed);
                    charge(part).settle(true, Outcome::Completed);
                }
            })
        })
        .collect();
    for call in calls {
        call.join().await.unwrap();
    }
    let sent = sent.load(Ordering::Relaxed);
    assert!((900..=1_000).contains(&sent), "{sent}");
    let asked = counter.lock().unwrap().asked;
    assert!(asked < 70, "a slice is asked for, not each call: {asked}");
}

#[tokio::test]
async fn what_was_not_sent_is_there_for_the_next_call_and_what_may_have_been_is_not() {
    let counter = Arc::new(Mutex::new(Counter::new(MAX)));
    let limits = limits(&counter);
    assert_eq!(limits.used(&claim(1, MAX), now()), None);
    let sent = charge(take(&limits, 600, MAX).await.unwrap());
    assert_eq!(sent.settle(true, Outcome::ToolTimeout), Some(ChargeFate::Kept));
    let unsent = charge(take(&limits, 400, MAX).await.unwrap());
    assert_eq!(take(&limits, 1, MAX).await.unwrap_err(), Short::Exceeded { remaining: 0, max: MAX });
    assert_eq!(limits.used(&claim(1, MAX), now()), Some(MAX));
    assert_eq!(unsent.settle(false, Outcome::ToolUnreachable), Some(ChargeFate::Released));
    assert_eq!(limits.used(&claim(1, MAX), now()), Some(600));
    // Dropped without a word it was not sent.
    drop(charge(take(&limits, 400, MAX).await.unwrap()));
    let last = charge(take(&limits, 400, MAX).await.unwrap());
    assert_eq!(last.settle(true, Outcome::Completed), Some(ChargeFate::Confirmed));
    assert_eq!(Charge::default().settle(true, Outcome::Completed), None);
}

#[tokio::test]
async fn a_lower_maximum_holds_for_the_first_call_that_has_it() {
    let counter = Arc::new(Mutex::new(Counter::new(MAX)));
    let limits = limits(&counter);
    let _sent = take(&limits, 300, MAX).await.unwrap();
    counter.lock().unwrap().max = 320;
    // Some of the slice is left, leased when more was allowed.
    assert_eq!(take(&limits, 21, 320).await.unwrap_err(), Short::Exceeded { remaining: 20, max: 320 });
    let _last = take(&limits, 20, 320).await.unwrap();
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_asked_once_and_not_by_everybody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let limits = Limits::new(leasing(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(NotLeased::Unheard("gone".to_owned())) })
    })));
    let calls = (0..64).map(|_| take(&limits, 1, MAX));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Err(Short::Unavailable(_))));
    }
    assert!(asked.load(Ordering::Relaxed) < 5);
}

#[tokio::test]
async fn at_the_end_what_is_left_is_given_back() {
    let counter = Arc::new(Mutex::new(Counter::new(MAX)));
    let limits = limits(&counter);
    // By the clock, as whoever keeps it: what is left of a window that is over is nobody's.
    let taken = limits.take(&claim(10, MAX), &tenant(), net::clock::now()).await.unwrap();
    charge(taken).settle(true, Outcome::Completed);
    let held =
        |counter: &Mutex<Counter>| counter.lock().unwrap().leases.values().map(|(_, amount)| *amount).sum::<u64>();
    assert_eq!(held(&counter), 60);
    let limits = Arc::new(limits);
    Arc::clone(&limits).keep(async {}).await;
    assert_eq!(held(&counter), 10);
}
