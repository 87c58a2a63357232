//! Alice takes the task back while an answer streams: the stream is cut, and the calls after it are refused.

use std::time::Duration;

use jiff::Timestamp;
use model::Code;

use super::agent::ExchangeError;
use super::console::Work;
use super::ledger::Decided;
use super::parts::Parts;
use super::show::Show;
use super::steps::{Caller, Expected, STEPS, Step, Surprise, deny, get, post};
use super::tokens::Tokens;
use super::tour::told;
use super::world::Answer;
use crate::failure::Failure;

/// How long the sidecar may take to know: the bound for writes in the demo's configuration.
const BOUND: Duration = Duration::from_secs(5);

/// A call whose answer goes on.
pub(super) const WATCHED: Step = Step {
    name: "watch_order",
    title: "The agent follows alice's order: the answer streams",
    caller: Caller::Support,
    call: get("/orders/v1/orders/17/events"),
    expected: Expected::Permit(200),
};

/// The call after it.
const WITHDRAWN: Step = Step {
    name: "withdrawn",
    title: "Its next call, with the token it has",
    caller: Caller::Support,
    call: get("/orders/v1/orders/17"),
    expected: deny(Code::Withdrawn),
};

/// What goes through the same task.
const HELPER_WITHDRAWN: Step = Step {
    name: "helper_withdrawn",
    title: "The helper, whose token came from the same task, refunds 8",
    caller: Caller::Helper,
    call: post("/orders/v1/orders/17/refunds", r#"{"amount": "8.00", "currency": "USD"}"#),
    expected: deny(Code::Withdrawn),
};

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    /// The decisions of its steps.
    pub(super) decided: Vec<Decided>,
    /// What was otherwise than expected.
    pub(super) surprises: Vec<Surprise>,
}

/// Tries it, and shows it.
pub(super) async fn try_withdrawal(
    parts: &Parts,
    tokens: &Tokens,
    work: &Work,
    show: Show,
) -> Result<Outcome, Failure> {
    show.heading("Taken back in the middle of it")?;
    let mut outcome = Outcome::default();
    let world = &parts.world;
    let (answer, stream) = world.watch(WATCHED.call, tokens.of(WATCHED.caller), net::clock::monotonic()).await?;
    outcome.take(&WATCHED, answer, tokens, show)?;

    let (withdrawn, cut) = tokio::join!(parts.withdraw(&work.task), async {
        match stream {
            Some(stream) => tokio::time::timeout(BOUND, stream.until_broken()).await.ok().flatten(),
            None => None,
        }
    });
    let withdrawn = withdrawn?;
    show.say(&format!(
        "\n    Alice takes the task back, with one call to the authority:\n    \
         POST /v1/withdrawals {{\"target\": \"task:{}\"}}\n    done, as change {}",
        work.task, withdrawn.position,
    ))?;
    match cut.map(|at| since(withdrawn.at, at)) {
        Some(after) => show.say(&format!("    The stream was cut {:.1} ms after it.", after.as_secs_f64() * 1000.0))?,
        None => outcome.surprises.push(WATCHED.surprise("the stream was not cut")),
    }

    let refused = until_refused(parts, tokens, withdrawn.at).await?;
    outcome.take(&WITHDRAWN, refused, tokens, show)?;
    show.say("    (ms from when the authority took the withdrawal until the agent had read the refusal)")?;
    let call = HELPER_WITHDRAWN.call;
    let answer = world.call(call, tokens.of(HELPER_WITHDRAWN.caller), net::clock::monotonic()).await?;
    outcome.take(&HELPER_WITHDRAWN, answer, tokens, show)?;

    let more = parts.agents.once_more(&work.task, &parts.people, world).await?;
    show.say(&format!("\n    The agent asks the authority for another token of that task:\n      {}", told(&more)))?;
    if !matches!(more, Err(ExchangeError::Refused { .. })) {
        outcome.surprises.push(WITHDRAWN.surprise(&format!("expected no further token, got {}", told(&more))));
    }
    Ok(outcome)
}

/// Calls until the sidecar knows. The time that its answer says is counted from `at`.
async fn until_refused(parts: &Parts, tokens: &Tokens, at: Timestamp) -> Result<Answer, Failure> {
    loop {
        let token = tokens.of(WITHDRAWN.caller);
        let mut answer = parts.world.call(WITHDRAWN.call, token, net::clock::monotonic()).await?;
        answer.took = since(at, net::clock::now());
        if answer.denial.is_some() || answer.took > BOUND {
            return Ok(answer);
        }
    }
}

fn since(at: Timestamp, now: Timestamp) -> Duration {
    // A wall clock may be set back meanwhile.
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

impl Outcome {
    fn take(&mut self, step: &'static Step, answer: Answer, tokens: &Tokens, show: Show) -> Result<(), Failure> {
        let checked = step.check(&answer);
        let number = STEPS.len() + self.decided.len() + 1;
        show.step(number, step, tokens.of(step.caller), &answer, &checked)?;
        self.surprises.extend(checked.err());
        let refused = answer.denial.map(|denial| denial.code);
        self.decided.extend(answer.decision_id.map(|id| Decided { step, id, refused }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_steps_have_names_of_their_own() {
        let names = [WATCHED.name, WITHDRAWN.name, HELPER_WITHDRAWN.name];
        for name in names {
            assert_eq!(names.iter().filter(|it| **it == name).count(), 1, "{name}");
            assert!(STEPS.iter().all(|step| step.name != name), "{name}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_negative_time() {
        let now = net::clock::now();
        assert_eq!(since(now + jiff::SignedDuration::from_millis(5), now), Duration::ZERO);
        assert_eq!(since(now, now + jiff::SignedDuration::from_millis(5)), Duration::from_millis(5));
    }
}
