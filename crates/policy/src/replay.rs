//! Past decisions under other policies: what each question that was asked comes to now, and what would change, counted
//! by rule and action with the people and agents it would meet. The records come as an iterator, whoever reads them.

mod issuing;
mod tally;

use model::{Code, Decision, Question, Verdict, effect::StageAnswer};

pub use issuing::{Issued, replay_issuing};
pub use tally::{Answer, Bounds, Change, Example, Found, Group, Names, Rule, Tally};

/// One decision as it is on record.
#[derive(Debug)]
pub enum Recorded {
    /// Policy was asked.
    Asked(Box<Asked>),
    /// A stage before policy, or after it, refused: no policy could have let the call go.
    Elsewhere {
        /// Which stage.
        stage: String,
    },
    /// The question cannot be put again.
    NotReplayable {
        /// Which of its values are gone, as JSON pointers; none where the record cannot be read.
        paths: Vec<String>,
    },
}

/// A question that policy was asked, and what became of the call.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// The decision, its reasons with or without their words.
    pub then: Decision,
    /// The revision of the policies that decided.
    pub revision: Option<String>,
    /// Whether the action was only observed, so that what is on record is policy's own word and not what it came to.
    pub observed: bool,
}

/// Weighs every one of `recorded` by what `decide` says now: an [`Engine`](crate::Engine), within what its sidecar can meet.
pub fn replay(decide: impl Fn(&Question) -> Decision, recorded: impl IntoIterator<Item = Recorded>, tally: &mut Tally) {
    for recorded in recorded {
        match recorded {
            Recorded::Asked(asked) => {
                let by_stage = !asked.observed && asks_a_person(&asked.question);
                let now = effective(decide(&asked.question), by_stage);
                tally.compared(&asked, &now);
            }
            Recorded::Elsewhere { stage } => tally.elsewhere(stage),
            Recorded::NotReplayable { paths } => tally.not_replayable(paths),
        }
    }
}

/// Whether the task's stage asks a person, whatever policy says.
fn asks_a_person(question: &Question) -> bool {
    question.delegation.task.stage.answer(question.call.effect) == StageAnswer::NeedsApproval
}

/// What `decision` comes to for a call about which the task's stage asks a person all the same, where it is `by_stage`.
pub(crate) fn effective(decision: Decision, by_stage: bool) -> Decision {
    let verdict = match decision.verdict {
        Verdict::Permit if by_stage => Verdict::ApprovalRequired,
        verdict => verdict,
    };
    if verdict == Verdict::Deny {
        return decision;
    }
    let code = (verdict == Verdict::ApprovalRequired).then_some(Code::ApprovalRequired);
    Decision { verdict, code, ..decision }
}

#[cfg(test)]
mod tests;
