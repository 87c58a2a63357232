//! A call under an idempotency key at several sidecars: charged once where everything is heard, and never less than once
//! whatever is lost, overtaken or given up in between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use audit::record::{ChargeFate, Outcome};
use model::{Tenant, limits::Claim};
use proptest::prelude::*;
use store::remote::limits::{LeaseAnswer, LeaseRequest};

use super::*;
use crate::reserve::{
    Asking, Charging, Leasing,
    slices::tests::{claim, now},
};

const MAX: u64 = 1_000_000;
const UNITS: u64 = 10;

/// What the authority knows of calls, by the store's rules.
#[derive(Debug, Default)]
struct Book {
    rows: BTreeMap<String, (String, bool)>,
    asked: usize,
    way: Way,
    late: VecDeque<ChargeRequest>,
}

/// What becomes of what the authority is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    There,
    NeverThere,
    NeverBack,
    /// It arrives when nobody waits any more and other things have happened.
    Late,
    Refused,
}

impl Book {
    fn hear(&mut self, told: &ChargeRequest) -> ChargeAnswer {
        let (id, own) = (told.digest.clone(), told.decision.to_string());
        let charged = match (told.step, self.rows.get_mut(&id)) {
            (ChargeStep::Charge, None) => {
                self.rows.insert(id, (own.clone(), false));
                Some(own)
            }
            (ChargeStep::Repeat, None) => None,
            (ChargeStep::Charge | ChargeStep::Repeat, Some((decision, repeated))) => {
                *repeated |= *decision != own;
                Some(decision.clone())
            }
            (ChargeStep::Release, Some((decision, true))) if *decision == own => Some(own),
            (ChargeStep::Release, row) => {
                if row.is_some_and(|(decision, _)| *decision == own) {
                    self.rows.remove(&id);
                }
                None
            }
        };
        ChargeAnswer { charged: charged.map(|decision| Id::new(&decision).unwrap()), seconds: 3_600 }
    }

    fn told(&mut self, told: ChargeRequest) -> Result<ChargeAnswer, NotLeased> {
        self.asked += 1;
        let unheard = Err(NotLeased::Unheard("gone".to_owned()));
        match self.way {
            Way::There => Ok(self.hear(&told)),
            Way::NeverThere => unheard,
            Way::NeverBack => {
                self.hear(&told);
                unheard
            }
            Way::Late => {
                self.late.push_back(told);
                unheard
            }
            Way::Refused => Err(NotLeased::Refused { status: http::StatusCode::CONFLICT, said: "not so".to_owned() }),
        }
    }
}

/// A sidecar with as much of the limit as it asks for.
fn sidecar(book: &Arc<Mutex<Book>>) -> Limits {
    let book = Arc::clone(book);
    let ask = Box::new(|asked: LeaseRequest| {
        let amount = asked.hold + asked.want;
        let answer = LeaseAnswer { amount, max: asked.max, taken: amount, reserved: 0, seconds: asked.seconds };
        Box::pin(async move { Ok(answer) }) as Asking
    });
    let charge = Box::new(move |told: ChargeRequest| {
        let answer = book.lock().unwrap().told(told);
        Box::pin(async move { answer }) as Charging
    });
    Limits::new(Leasing {
        authority: "https://countersign.example".to_owned(),
        slice: 5,
        lease: Duration::from_secs(30),
        patience: Duration::from_secs(5),
        ask,
        charge,
    })
}

fn book() -> Arc<Mutex<Book>> {
    Arc::default()
}

fn whole() -> Claim {
    claim(UNITS, MAX)
}

fn told(decision: &str, key: u8, limits: Vec<store::remote::charges::ChargedTo>) -> ChargeRequest {
    ChargeRequest {
        step: ChargeStep::Charge,
        tenant: Id::<Tenant>::new("acme").unwrap(),
        digest: format!("{key:064x}"),
        decision: Id::new(decision).unwrap(),
        limits,
    }
}

/// A call with `key`, up to the question whether it was charged before.
async fn begun(limits: &Limits, decision: &str, key: u8) -> (Charge, Option<Asked>) {
    let repeat = [key; 32];
    if let Some(charge) = limits.repeats.join(&repeat, net::clock::boottime()) {
        return (charge, None);
    }
    let part = limits.take(&whole(), &Id::new("acme").unwrap(), now()).await.unwrap();
    let to = limits.once.told(told(decision, key, part.told().into_iter().collect()));
    limits.repeats.charge(&Id::new(decision).unwrap(), vec![part], Some((repeat, to)), now())
}

async fn called(limits: &Limits, decision: &str, key: u8) -> Charge {
    let (charge, asked) = begun(limits, decision, key).await;
    if let Some(asked) = asked {
        limits.tell(asked, &[key; 32]).await;
    }
    charge
}

fn spent(limits: &Limits) -> u64 {
    limits.used(&whole(), now()).unwrap_or_default()
}

fn repeats(charge: &Charge) -> Option<String> {
    charge.record().unwrap().repeats.map(|decision| decision.to_string())
}

/// Takes back what waits to be.
async fn take_back(limits: &Limits, waiting: &mut mpsc::Receiver<Bound>) {
    while let Ok(bound) = waiting.try_recv() {
        limits.take_one_back(bound).await;
    }
}

#[tokio::test]
async fn the_same_call_at_two_sidecars_is_charged_at_one() {
    let book = book();
    let [one, two] = [sidecar(&book), sidecar(&book)];
    let first = called(&one, "d-1", 1).await;
    assert_eq!(repeats(&first), None);
    first.settle(true, Outcome::Completed);
    for number in 2..5 {
        let again = called(&two, &format!("d-{number}"), 1).await;
        assert_eq!(repeats(&again).as_deref(), Some("d-1"));
        assert_eq!(again.settle(true, Outcome::Completed), Some(ChargeFate::Confirmed));
    }
    assert_eq!((spent(&one), spent(&two)), (UNITS, 0));
    assert_eq!(book.lock().unwrap().asked, 2, "what it was told it remembers");
    // Over the limit, it asks before it refuses.
    let three = sidecar(&book);
    let request = told("d-9", 1, Vec::new());
    let charge = three.charged_elsewhere(&[1; 32], request).await.unwrap();
    assert_eq!(repeats(&charge).as_deref(), Some("d-1"));
    assert!(three.charged_elsewhere(&[2; 32], told("d-9", 2, Vec::new())).await.is_none());
    assert_eq!(repeats(&called(&three, "d-10", 1).await).as_deref(), Some("d-1"));
}

#[tokio::test]
async fn what_was_not_sent_is_given_back_unless_another_sidecar_goes_on_it() {
    let book = book();
    let [one, two] = [sidecar(&book), sidecar(&book)];
    let mut waiting = one.once.taken_back().unwrap();
    let unsent = called(&one, "d-1", 1).await;
    assert_eq!(unsent.settle(false, Outcome::ToolUnreachable), Some(ChargeFate::Released));
    assert_eq!(spent(&one), UNITS, "not before the authority knows");
    take_back(&one, &mut waiting).await;
    assert_eq!(spent(&one), 0);
    let first = called(&two, "d-2", 1).await;
    assert_eq!(repeats(&first), None);
    first.settle(true, Outcome::Completed);
    // The other way round, it stays for the one that goes on it.
    let unsent = called(&one, "d-3", 2).await;
    let other = called(&two, "d-4", 2).await;
    assert_eq!(repeats(&other).as_deref(), Some("d-3"));
    unsent.settle(false, Outcome::ToolUnreachable);
    take_back(&one, &mut waiting).await;
    other.settle(true, Outcome::Completed);
    assert_eq!((spent(&one), spent(&two)), (UNITS, UNITS));
}

#[tokio::test]
async fn a_repeat_that_was_faster_than_the_answer_is_not_charged_beside_it() {
    let book = book();
    let [one, two] = [sidecar(&book), sidecar(&book)];
    called(&one, "d-1", 1).await.settle(true, Outcome::Completed);
    let (first, asked) = begun(&two, "d-2", 1).await;
    let faster = called(&two, "d-3", 1).await;
    faster.settle(true, Outcome::Completed);
    assert_eq!(spent(&two), UNITS);
    two.tell(asked.unwrap(), &[1; 32]).await;
    assert_eq!((spent(&two), repeats(&first).as_deref()), (0, Some("d-1")));
}

#[tokio::test]
async fn while_it_is_not_known_what_the_authority_knows_it_is_spent() {
    let book = book();
    let one = sidecar(&book);
    let mut waiting = one.once.taken_back().unwrap();
    book.lock().unwrap().way = Way::NeverBack;
    let unsent = called(&one, "d-1", 1).await;
    assert_eq!(unsent.settle(false, Outcome::ToolUnreachable), Some(ChargeFate::Kept));
    assert_eq!(spent(&one), UNITS);
    // For a while nobody asks, and what was not told is given back at once.
    let asked = book.lock().unwrap().asked;
    let unsent = called(&one, "d-2", 2).await;
    assert_eq!(unsent.settle(false, Outcome::ToolUnreachable), Some(ChargeFate::Released));
    assert_eq!((spent(&one), book.lock().unwrap().asked), (UNITS, asked));
    *one.once.quiet.lock().unwrap() = Duration::ZERO;
    // The agent goes away while it is asked.
    let (charge, asked) = begun(&one, "d-3", 3).await;
    drop((charge, asked));
    assert_eq!(spent(&one), 2 * UNITS);
    // What it refuses it does not know.
    book.lock().unwrap().way = Way::Refused;
    drop(called(&one, "d-4", 4).await);
    assert_eq!(spent(&one), 2 * UNITS);
    // And with an answer that is lost on the way back, it stays.
    book.lock().unwrap().way = Way::There;
    drop(called(&one, "d-5", 5).await);
    book.lock().unwrap().way = Way::NeverBack;
    take_back(&one, &mut waiting).await;
    assert_eq!(spent(&one), 3 * UNITS);
}

#[tokio::test]
async fn what_waits_to_be_given_back_is_spent_where_nobody_does_it() {
    let one = sidecar(&book());
    for number in 0..u8::MAX {
        drop(called(&one, &format!("d-{number}"), number).await);
    }
    let waiting = one.once.taken_back().unwrap();
    drop(waiting);
    assert_eq!(spent(&one), u64::from(u8::MAX) * UNITS);
}

#[derive(Debug, Clone)]
enum Step {
    Call { who: usize, key: u8, way: Way, cut: bool },
    End { call: usize, sent: bool },
    TakeBack { who: usize, way: Way },
}

fn step() -> impl Strategy<Value = Step> {
    let way = || {
        prop_oneof![
            5 => Just(Way::There), 1 => Just(Way::NeverThere), 1 => Just(Way::NeverBack), 1 => Just(Way::Late),
            1 => Just(Way::Refused),
        ]
    };
    prop_oneof![
        6 => (0..2_usize, 0..3_u8, way(), prop::bool::weighted(0.1))
            .prop_map(|(who, key, way, cut)| Step::Call { who, key, way, cut }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(call, sent)| Step::End { call, sent }),
        3 => (0..2_usize, way()).prop_map(|(who, way)| Step::TakeBack { who, way }),
    ]
}

struct World {
    book: Arc<Mutex<Book>>,
    sidecars: [Limits; 2],
    waiting: [mpsc::Receiver<Bound>; 2],
    calls: Vec<(u8, Charge)>,
    sent: BTreeSet<u8>,
    next: usize,
}

impl World {
    fn new() -> Self {
        let book = book();
        let sidecars = [sidecar(&book), sidecar(&book)];
        let waiting = [0, 1].map(|who: usize| sidecars[who].once.taken_back().unwrap());
        Self { book, sidecars, waiting, calls: Vec::new(), sent: BTreeSet::new(), next: 0 }
    }

    async fn step(&mut self, step: &Step) {
        {
            let mut book = self.book.lock().unwrap();
            if let Some(late) = book.late.pop_front() {
                book.hear(&late);
            }
        }
        for sidecar in &self.sidecars {
            *sidecar.once.quiet.lock().unwrap() = Duration::ZERO;
        }
        match *step {
            Step::Call { who, key, way, cut } => {
                self.next += 1;
                self.book.lock().unwrap().way = way;
                let decision = format!("d-{}", self.next);
                let (charge, asked) = begun(&self.sidecars[who], &decision, key).await;
                match asked {
                    // The agent goes away while it is asked, and what it was told comes late.
                    Some(asked) if cut => {
                        let request = asked.request().unwrap().clone();
                        self.book.lock().unwrap().late.push_back(request);
                        drop((asked, charge));
                    }
                    Some(asked) => {
                        self.sidecars[who].tell(asked, &[key; 32]).await;
                        self.calls.push((key, charge));
                    }
                    None => self.calls.push((key, charge)),
                }
            }
            Step::End { call, sent } => {
                if !self.calls.is_empty() {
                    let (key, charge) = self.calls.swap_remove(call % self.calls.len());
                    charge.settle(sent, Outcome::Completed);
                    if sent {
                        self.sent.insert(key);
                    }
                }
            }
            Step::TakeBack { who, way } => {
                self.book.lock().unwrap().way = way;
                take_back(&self.sidecars[who], &mut self.waiting[who]).await;
            }
        }
    }

    fn spent(&self) -> u64 {
        self.sidecars.iter().map(spent).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_lost_no_call_that_was_sent_is_free(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(&step).await;
                prop_assert!(world.spent() >= world.sent.len() as u64 * UNITS, "{} for {:?} after {step:?}", world.spent(), world.sent);
            }
            Ok(())
        })?;
    }

    #[test]
    fn where_everything_is_heard_each_call_is_charged_once(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                let step = match step {
                    Step::Call { who, key, .. } => Step::Call { who, key, way: Way::There, cut: false },
                    Step::TakeBack { who, .. } => Step::TakeBack { who, way: Way::There },
                    end @ Step::End { .. } => end,
                };
                world.step(&step).await;
                prop_assert!(world.spent() >= world.sent.len() as u64 * UNITS);
            }
            for call in 0..world.calls.len() {
                world.step(&Step::End { call, sent: true }).await;
            }
            while !world.calls.is_empty() {
                world.step(&Step::End { call: 0, sent: true }).await;
            }
            for who in [0, 1] {
                world.step(&Step::TakeBack { who, way: Way::There }).await;
            }
            let keys = world.book.lock().unwrap().rows.len() as u64;
            prop_assert_eq!(world.spent(), keys * UNITS, "a charge for each call that is known, and no other");
            Ok(())
        })?;
    }
}
