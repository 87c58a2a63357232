//! Tokens that an authority issued or refused, from its ledger, for whoever asks again what may be delegated.

use std::{collections::BTreeSet, path::Path};

use audit::{
    Entry, LedgerError,
    query::{Filter, query},
    rebuild::{self, NotReplayable},
    record::{Issuing, PolicyRuling},
};
use model::{Action, Id};
use policy::{
    Steering,
    input::exchange::Issuance,
    replay::{Bounds, Issued, Tally, replay_issuing},
};

use super::read::Span;
use crate::{cli::ledger::unreadable, failure::Failure};

/// Whether the ledger in `directory` is an authority's, by the first of its records that only one of the two writes.
pub(super) fn is_authoritys(directory: &Path) -> Result<bool, Failure> {
    for entry in query(directory, Filter::default()).map_err(unreadable)? {
        let entry = match entry {
            Ok(entry) => entry,
            // Whoever reads it all says so.
            Err(LedgerError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(unreadable(error)),
        };
        match entry.kind.split('.').next() {
            Some("authority") => return Ok(true),
            Some("sidecar" | "call") => return Ok(false),
            _ if rebuild::is_about_issuing(&entry) || entry.fields.contains_key("generation") => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// Asks `steering` about the tokens that the ledger in `directory` has. Which of `named` were asked for is added to `seen`.
pub(super) fn directory<'a>(
    directory: &Path,
    steering: &Steering,
    span: &Span,
    bounds: Bounds,
    named: &[&'a Id<Action>],
    seen: &mut BTreeSet<&'a Id<Action>>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::new(bounds);
    let filter = Filter { from: span.from, to: span.to, ..Filter::default() };
    for entry in query(directory, filter).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !rebuild::is_about_issuing(&entry) {
            continue;
        }
        let asked = match rebuild::issuing(&entry) {
            Ok(asked) => asked,
            Err(error) => {
                missing(error, &mut tally);
                continue;
            }
        };
        let scope = &asked.requested.scope;
        seen.extend(named.iter().filter(|action| scope.iter().any(|asked| asked == **action)));
        if span.actions.is_empty() || scope.iter().any(|action| span.actions.contains(action)) {
            again(&entry, &asked, steering, span, &mut tally);
        }
    }
    Ok(tally)
}

/// Counts a question that cannot be put again.
fn missing(error: NotReplayable, tally: &mut Tally) {
    match error {
        NotReplayable::Unasked(stage) => tally.elsewhere(stage),
        NotReplayable::Erased { paths } | NotReplayable::Absent { paths } => tally.not_replayable(paths),
        NotReplayable::OtherToken | NotReplayable::Unreadable(_) => tally.not_replayable(Vec::new()),
    }
}

fn again(entry: &Entry, asked: &Issuing, steering: &Steering, span: &Span, tally: &mut Tally) {
    let issued = match rebuild::issued(entry) {
        Ok(issued) => issued,
        Err(error) => return missing(error, tally),
    };
    let id = entry.text("jti").map_or_else(|| format!("seq:{}", entry.seq), str::to_owned);
    let Ok(id) = Id::new(&id) else { return tally.not_replayable(Vec::new()) };
    let (reasons, withheld, revision) = match issued.policy {
        Some(PolicyRuling { revision, reasons, withheld }) => (reasons, withheld, Some(revision)),
        None => (Vec::new(), Vec::new(), None),
    };
    let issued = Issued { asked: issuance(asked), authority: &issued.authority, reasons, withheld, revision, id };
    replay_issuing(steering, &issued, &span.actions, tally);
}

/// What is on record, as policy is asked it.
pub(crate) fn issuance(asked: &Issuing) -> Issuance<'_> {
    Issuance {
        chain: asked.chain.iter().collect(),
        to: &asked.to,
        requested: &asked.requested,
        task: &asked.task,
        run: &asked.run,
        grant: &asked.grant,
        user: &asked.user,
        tenant: &asked.tenant,
        expires_at: asked.expires_at,
        now: asked.now,
    }
}
