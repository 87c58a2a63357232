//! What policy said of a token that was asked for: its codes on the line, its words beside it.

use model::Reason;

use super::{Words, WrittenReason};
use crate::{canonical::Unrecordable, values::Draft};

/// What policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRuling {
    /// The revision of the policies that were asked.
    pub revision: String,
    /// What speaks for what was issued.
    pub reasons: Vec<Reason>,
    /// Why other things were not, or nothing was.
    pub withheld: Vec<Reason>,
}

pub(crate) fn members(draft: &mut Draft, ruling: Option<&PolicyRuling>) -> Result<(), Unrecordable> {
    let Some(PolicyRuling { revision, reasons, withheld }) = ruling else { return Ok(()) };
    draft.plain("policy", revision)?;
    for (name, words_name, reasons) in
        [("reasons", "explanation", reasons), ("withheld", "withheld_explanation", withheld)]
    {
        if reasons.is_empty() {
            continue;
        }
        draft.plain(name, &reasons.iter().map(WrittenReason::from).collect::<Vec<_>>())?;
        if reasons.iter().any(|reason| reason.message.is_some() || reason.internal.is_some()) {
            draft.personal(words_name, &reasons.iter().map(Words::from).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}
