//! `countersign explain ID`: everything that one decision rested on, from the ledger alone.

mod issuing;
mod replay;
mod summary;
mod text;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use audit::{
    Entry,
    query::{Filter, Found, find, find_issued},
    rebuild,
    record::kind,
};
use jiff::{SignedDuration, Timestamp};
use model::Code;
use serde_json::{Map, Value, json};

use self::replay::{Policies, Replay};
pub(crate) use self::text::plain;
use super::{
    audit::matching,
    ledger::{LedgerPlace, Whence, unreadable},
};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// How far from a decision the record may be of what a candidate says of it: it may have waited its turn.
const NEAR: SignedDuration = SignedDuration::from_hours(2);

/// Explain one decision: who, for whom, through whom, what, why, and on what it rested.
///
/// Reads the ledger alone; nothing has to run. The policy input is put together again and compared with the digest
/// that was recorded, and it is decided again: by the policies that decided then, which are kept with the ledger, or by
/// those of --policy. Of each rule it is said whether it was true, and where it was not, what it stopped at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign explain 3f9c….0198… --from ./demo/ledger\n  \
                        countersign explain 3f9c….0198… --config countersign.yaml\n  \
                        countersign explain 3f9c….0198… --from ./demo/ledger --policy policies --json\n  \
                        countersign explain seq:17 --config authority.yaml")]
pub(crate) struct Args {
    /// The decision's id: the response header `Countersign-Decision-Id`. In an authority's ledger, of a token that was
    /// issued: its `jti` or the digest that records cite; of any that was asked for, `seq:` and the record's number.
    #[arg(value_name = "ID")]
    id: String,
    /// Decide again by the policies in this directory: one subdirectory a source, named `org` or as the team.
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let mut policies =
        Policies { directory: args.policy.as_deref(), ledger: None, config: args.place.config.as_deref() };
    let whence = args.place.whence(environment)?;
    let found = match &whence {
        Whence::Directory(directory) => {
            policies.ledger = Some(directory);
            match find(directory, &args.id).map_err(unreadable)? {
                Some(found) => found,
                None => return token(args, directory, policies, environment),
            }
        }
        Whence::Authority(remote) => remote.find(&args.id)?,
    };
    let replay = replay::replay(&found, policies, environment)?;
    let mut explanation = explanation(&found, &replay);
    candidates(&whence, &args.id, found.decided.time, &mut explanation)?;
    let mut output = Output::new();
    let _reader = if args.json { output.json(&explanation)? } else { output.write(&text::for_person(&explanation))? };
    Ok(ExitCode::SUCCESS)
}

/// No call has that id: a token may, in an authority's ledger.
fn token(
    args: &Args,
    directory: &Path,
    policies: Policies<'_>,
    environment: &Environment,
) -> Result<ExitCode, Failure> {
    let Some(entry) = find_issued(directory, &args.id).map_err(unreadable)? else {
        return Err(Failure::new(Exit::Failed, summary::absent(&args.id, directory)?));
    };
    let explanation = issuing::explanation(&entry, policies, environment)?;
    let mut output = Output::new();
    let _reader =
        if args.json { output.json(&explanation)? } else { output.write(&issuing::for_person(&explanation))? };
    Ok(ExitCode::SUCCESS)
}

/// What a person reads of a decision in the ledger at `directory`, decided again by the policies of `config`.
pub(crate) fn page(id: &str, directory: &Path, config: &Path, environment: &Environment) -> Result<String, Failure> {
    let found = found(id, directory)?;
    let policies = Policies { directory: None, ledger: Some(directory), config: Some(config) };
    let replay = replay::replay(&found, policies, environment)?;
    Ok(text::for_person(&explanation(&found, &replay)))
}

fn found(id: &str, directory: &Path) -> Result<Found, Failure> {
    match find(directory, id).map_err(unreadable)? {
        Some(found) => Ok(found),
        None => Err(Failure::new(Exit::Failed, summary::absent(id, directory)?)),
    }
}

/// Adds what policy candidates would have answered instead, where that is on record. What is not another answer never is.
fn candidates(whence: &Whence, id: &str, decided: Timestamp, explanation: &mut Value) -> Result<(), Failure> {
    let filter = Filter {
        kind: Some(kind::POLICY_DIFFERED.to_owned()),
        decision: Some(id.to_owned()),
        from: decided.checked_sub(NEAR).ok(),
        to: decided.checked_add(NEAR).ok(),
        ..Filter::default()
    };
    let mut found = Vec::new();
    for entry in matching(whence, filter)? {
        let Entry { mut fields, .. } = entry?;
        let words = fields.remove("explanation");
        let mut answer = fields.remove("candidate").unwrap_or_default();
        for (name, value) in [("change", fields.remove("change")), ("words", words)] {
            if let (Some(value), Some(members)) = (value, answer.as_object_mut()) {
                members.insert(name.to_owned(), value);
            }
        }
        found.push(answer);
    }
    if let (false, Some(members)) = (found.is_empty(), explanation.as_object_mut()) {
        members.insert("candidates".to_owned(), found.into());
    }
    Ok(())
}

/// Everything that is known of a decision, as one object.
fn explanation(found: &Found, replay: &Replay) -> Value {
    let decided = &found.decided;
    let mut members = Map::new();
    members.insert("time".to_owned(), decided.time.to_string().into());
    members.insert("seq".to_owned(), decided.seq.into());
    for (name, value) in &decided.fields {
        // The record's own names, so that what is read here is found there.
        members.insert(name.clone(), value.clone());
    }
    let code = decided.text("code").and_then(|text| Code::ALL.into_iter().find(|code| code.as_str() == text));
    if let Some(entry) = code.map(Code::entry) {
        members.insert("meaning".to_owned(), entry.meaning.into());
        members.insert("retry".to_owned(), json!(entry.retry));
    }
    if let Some(token) = &found.token_seen {
        for name in ["chain", "authority", "user", "task", "sender"] {
            if let Some(value) = token.fields.get(name) {
                let name = if name == "user" { "user_claims" } else { name };
                members.insert(name.to_owned(), value.clone());
            }
        }
        members.insert("token_facts".to_owned(), token.fields.get("token").cloned().unwrap_or_default());
    }
    if let Some(settled) = &found.settled {
        let mut outcome = settled.fields.clone();
        outcome.remove("decision_id");
        outcome.insert("time".to_owned(), settled.time.to_string().into());
        members.insert("settled".to_owned(), outcome.into());
    }
    let mut erased: Vec<&String> = decided.erased.iter().collect();
    erased.extend(found.token_seen.iter().flat_map(|token| &token.erased));
    if !erased.is_empty() {
        members.insert("erased".to_owned(), json!(erased));
    }
    if let Ok(decision) = rebuild::decision(decided)
        && !decision.reasons.is_empty()
    {
        // With their words, which the line itself does not hold.
        members.insert("reasons".to_owned(), json!(decision.reasons));
    }
    if let Ok(decision) = rebuild::decision(decided)
        && !decision.obligations.is_empty()
    {
        members.insert("obligations".to_owned(), json!(decision.obligations));
    }
    members.insert("replay".to_owned(), replay.to_json());
    Value::Object(members)
}
