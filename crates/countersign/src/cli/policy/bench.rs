//! `countersign policy bench`: what a decision costs on this machine, on real questions, through the engine as a sidecar
//! has it.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use model::Question;
use policy::{Engine, cases, engine::Bounds, input};
use serde::Serialize;

use super::{
    eval::question::AskArgs,
    sources::{Policies, SourceArgs},
    test::suite::{engine, files},
};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// The longest that one row may take.
const MOST: Duration = Duration::from_secs(10);
/// The most questions that are kept.
const MAX_QUESTIONS: usize = 10_000;

/// Measure what decisions cost: the time of each, with and without the memory of decisions made before, by one thread and
/// by two.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy bench\n  \
                        countersign policy bench --case 'policies/orders/orders_cases.yaml#alice refunds her order'\n  \
                        countersign policy bench --action orders.read --resource orders/17 --rounds 100000 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Without a question, every case beside the policies is asked in turn.
    #[command(flatten)]
    ask: AskArgs,
    /// A file of cases to ask in turn. May be given again.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["action", "case"])]
    cases: Vec<PathBuf>,
    /// How many decisions each row makes, at most ten seconds long.
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    /// How many different questions were asked in turn.
    questions: usize,
    /// How long checking and preparing the policies took.
    load_ns: u128,
    /// How long the first decision took.
    first_ns: u128,
    rows: Vec<Row>,
}

/// One way of asking.
#[derive(Debug, Serialize)]
struct Row {
    /// What was done.
    what: &'static str,
    threads: usize,
    /// How often.
    rounds: usize,
    p50_ns: u64,
    p99_ns: u64,
    /// All threads together.
    per_second: u64,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let policies = args.sources.read(environment)?;
    let questions = questions(args, &policies)?;
    let bounds = |remembered| Bounds { remembered, ..Bounds::default() };
    let started = net::clock::monotonic();
    let plain = engine(&policies, bounds(0))?;
    let load_ns = started.elapsed().as_nanos();
    let started = net::clock::monotonic();
    if let Some(first) = questions.first() {
        std::hint::black_box(plain.decide(first));
    }
    let first_ns = started.elapsed().as_nanos();
    let remembering = engine(&policies, Bounds::default())?;
    let rounds = usize::try_from(args.rounds).unwrap_or(usize::MAX);
    let mut rows = vec![row("the input, written", 1, rounds, &questions, &|question| {
        drop(std::hint::black_box(input::canonical_json(question)));
    })];
    for threads in [1, 2] {
        for (what, engine) in [("a decision", &plain), ("a decision, remembered", &remembering)] {
            rows.push(row(what, threads, rounds, &questions, &|question| decide(engine, question)));
        }
    }
    let measured = Measured { questions: questions.len(), load_ns, first_ns, rows };
    let mut output = Output::new();
    let _reader = if args.json { output.json(&measured)? } else { output.write(&measured.for_person())? };
    Ok(ExitCode::SUCCESS)
}

/// As the decide stage of a sidecar does it.
fn decide(engine: &Engine, question: &Question) {
    std::hint::black_box(engine.decide(question));
}

fn questions(args: &Args, policies: &Policies) -> Result<Vec<Question>, Failure> {
    if args.ask.case.is_some() || args.ask.action.is_some() {
        return Ok(vec![args.ask.question(policies.catalogue.as_ref())?]);
    }
    let named = if args.cases.is_empty() { files(&policies.sources).into_iter().collect() } else { args.cases.clone() };
    let mut found = Vec::new();
    for file in named {
        let cases = cases::read(&file, policies.catalogue.as_ref()).map_err(Failure::configuration)?;
        found.extend(cases.into_iter().map(|case| case.question));
    }
    found.truncate(MAX_QUESTIONS);
    if found.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no case beside the policies: say --case, --cases or --action"));
    }
    Ok(found)
}

/// Does `work` on the questions in turn, by so many threads at once.
fn row(
    what: &'static str,
    threads: usize,
    rounds: usize,
    questions: &[Question],
    work: &(dyn Fn(&Question) + Sync),
) -> Row {
    let barrier = Arc::new(Barrier::new(threads));
    let share = rounds.div_ceil(threads);
    let one = || {
        // Caches of the machine and of the engine are warm.
        questions.iter().cycle().take(questions.len().max(64)).for_each(work);
        barrier.wait();
        let began = net::clock::monotonic();
        let mut times: Vec<u64> = Vec::with_capacity(share);
        for question in questions.iter().cycle().take(share) {
            let started = net::clock::monotonic();
            work(question);
            times.push(nanoseconds(started.elapsed()));
            if began.elapsed() > MOST {
                break;
            }
        }
        (began, net::clock::monotonic(), times)
    };
    let done: Vec<(Instant, Instant, Vec<u64>)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut times: Vec<u64> = done.iter().flat_map(|(_, _, times)| times.iter().copied()).collect();
    times.sort_unstable();
    let began = done.iter().map(|(began, ..)| *began).min();
    let ended = done.iter().map(|(_, ended, _)| *ended).max();
    let took = began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended.duration_since(began));
    let count = times.len();
    let at =
        |percent: usize| times.get((count * percent / 100).min(count.saturating_sub(1))).copied().unwrap_or_default();
    let per_second = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(1_000_000_000) / nanoseconds(took).max(1);
    Row { what, threads, rounds: count, p50_ns: at(50), p99_ns: at(99), per_second }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Measured {
    fn for_person(&self) -> String {
        let mut text = format!(
            "{} questions; loading the policies took {} µs, the first decision {} µs\n\n{:<24} {:>7} {:>8} {:>10} {:>10} {:>10}\n",
            self.questions,
            self.load_ns / 1_000,
            self.first_ns / 1_000,
            "",
            "threads",
            "rounds",
            "p50 ns",
            "p99 ns",
            "a second"
        );
        for Row { what, threads, rounds, p50_ns, p99_ns, per_second } in &self.rows {
            text.push_str(&format!("{what:<24} {threads:>7} {rounds:>8} {p50_ns:>10} {p99_ns:>10} {per_second:>10}\n"));
        }
        text
    }
}
