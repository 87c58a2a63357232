//! What can be said of a decision that has no record of its own: refusals of nobody known are only counted, and loops of
//! the same refusal are folded into summaries. The id tells when it was decided, and the summaries what was refused then.

use std::path::Path;

use audit::{
    Entry,
    query::{Filter, query},
};
use jiff::{SignedDuration, Timestamp};

use crate::{cli::ledger::unreadable, failure::Failure};

/// How much the id's time and a summary's may differ: the id counts in milliseconds.
const ROUNDING: SignedDuration = SignedDuration::from_millis(2);
/// Summaries that are shown.
const MOST: usize = 5;

/// What a person is told instead.
pub(super) fn absent(id: &str, directory: &Path) -> Result<String, Failure> {
    let mut text = format!("the ledger at {} has no decision `{id}`", directory.display());
    let Some(decided) = time(id) else { return Ok(text) };
    let filter = Filter { kind: Some("refusals.summary".to_owned()), ..Filter::default() };
    let mut shown = 0;
    for entry in query(directory, filter).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !covers(&entry, decided) || shown == MOST {
            continue;
        }
        if shown == 0 {
            text.push_str("; it may be one of these refusals, which were counted together:");
        }
        shown += 1;
        text.push_str(&line(&entry));
    }
    Ok(text)
}

/// When the decision of this id was made (UUIDv7).
fn time(id: &str) -> Option<Timestamp> {
    let (_, uuid) = id.rsplit_once('.')?;
    let (seconds, nanoseconds) = uuid::Uuid::parse_str(uuid).ok()?.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

fn covers(entry: &Entry, decided: Timestamp) -> bool {
    let at = |name| entry.text(name).and_then(|text| text.parse::<Timestamp>().ok());
    match (at("from"), at("to")) {
        (Some(from), Some(to)) => from - ROUNDING <= decided && decided <= to + ROUNDING,
        _ => false,
    }
}

fn line(entry: &Entry) -> String {
    let text = |name| entry.text(name).unwrap_or("?");
    let empty = serde_json::Map::new();
    let counts = entry.fields.get("counts").and_then(serde_json::Value::as_object).unwrap_or(&empty);
    let counts: Vec<String> = counts.iter().map(|(code, count)| format!("{count} x {code}")).collect();
    let mut line = format!("\n  {} to {}: {}", text("from"), text("to"), counts.join(", "));
    match (entry.text_at("/user/id"), entry.text_at("/agent/id")) {
        (None, None) => line.push_str(", of nobody known"),
        (user, agent) => {
            let (user, agent) = (user.unwrap_or("?"), agent.unwrap_or("?"));
            line.push_str(&format!(", user:{user} via agent:{agent}"));
        }
    }
    if let Some(action) = entry.text("action") {
        line.push_str(&format!(", {action}"));
    }
    if let Some(like) = entry.text("like") {
        line.push_str(&format!("; one like them is `{like}`"));
    }
    line
}
