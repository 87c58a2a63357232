//! `/v1/ledgers/{id}/records` and `/v1/ledgers/{id}/decisions/{decision}`: what sidecars shipped, for whoever audits:
//! page by page, of the tenants that are theirs to read, also where the sidecar is long gone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use audit::{
    Entry, LedgerError,
    query::{self, Filter, Found, Matches},
    tail::Tail,
};
use jiff::Timestamp;
use model::Verdict;
use serde_json::Value;
use store::{Listed, Page};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Answer, Call,
    page::{answer, page},
    problem::{Code, Problem},
    query::Query,
    shipped::within,
};
use crate::Authority;

/// A page ends after so many bytes of records.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// Or after so long a search: the next one goes on.
const MOST_TIME: Duration = Duration::from_secs(5);
/// Searches that can go on where they stopped; others begin at the segment that they stopped in.
const REMEMBERED: usize = 64;
/// How long one is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// The most that is given of the newest records.
const MOST_NEWEST: usize = 200;
/// Searches at once: each reads files.
pub(super) const AT_ONCE: usize = 8;

pub(super) const PARAMETERS: &[&str] =
    &["run", "user", "agent", "action", "tool", "decision", "verdict", "kind", "from", "to", "last", "limit", "cursor"];

/// Searches that are not at their end.
#[derive(Default)]
pub(crate) struct Searches(Mutex<HashMap<String, Search>>);

struct Search {
    next: u64,
    matches: Matches,
    since: Instant,
}

impl Searches {
    fn take(&self, name: &str, next: u64) -> Option<Matches> {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        searches.remove(name).filter(|search| search.next == next).map(|search| search.matches)
    }

    fn keep(&self, name: String, next: u64, matches: Matches) {
        let since = net::clock::monotonic();
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        searches.retain(|_, search| since.saturating_duration_since(search.since) < KEPT);
        if searches.len() < REMEMBERED {
            searches.insert(name, Search { next, matches, since });
        }
    }
}

impl Authority {
    /// Records of one ledger that match, oldest first.
    pub(super) async fn records(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(PARAMETERS)?;
        let Page { after, limit } = page(&call.query)?;
        let (ledger, tenants) = self.readable_ledger(id, call).await?;
        let filter = filter(&call.query, tenants)?;
        let Some(dir) = self.shelf.directory(ledger.id.as_str()) else {
            // It is anchored here, and nothing of it was shipped.
            return Ok(Answer::ok(answer("records", &Listed { items: Vec::new(), next: None }, Value::clone)));
        };
        let room = self.searching()?;
        if let Some(last) = call.query.value("last") {
            let count = last.parse().ok().filter(|count| (1..=MOST_NEWEST).contains(count));
            let count = count.ok_or_else(|| Problem::invalid("`last` has to be a number from 1 to 200"))?;
            let found = within(room, move || newest(&dir, count, &filter)).await?;
            let items = found.map_err(|error| unreadable(&error))?;
            return Ok(Answer::ok(answer("records", &Listed { items, next: None }, Clone::clone)));
        }
        let name = format!("{} {} {:?}", call.caller.key(), ledger.id, filter);
        let known = self.api.searches.take(&name, after);
        let found = within(room, move || search(known, &dir, filter, after, limit)).await?;
        let (items, rest) = found.map_err(|error| unreadable(&error))?;
        let next = rest.as_ref().map(|(next, _)| *next);
        if let Some((next, matches)) = rest {
            self.api.searches.keep(name, next, matches);
        }
        Ok(Answer::ok(answer("records", &Listed { items, next }, Clone::clone)))
    }

    /// Everything that one ledger has of a decision.
    pub(super) async fn decision(&self, id: &str, decision: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let (ledger, tenants) = self.readable_ledger(id, call).await?;
        let dir = self.shelf.directory(ledger.id.as_str()).ok_or_else(Problem::not_found)?;
        let room = self.searching()?;
        let decision = decision.to_owned();
        let found: Option<Found> =
            within(room, move || query::find(&dir, &decision)).await?.map_err(|error| unreadable(&error))?;
        let mine = |found: &Found| {
            tenants.as_ref().is_none_or(|tenants| found.decided.text("tenant").is_some_and(|of| tenants.contains(of)))
        };
        let found = found.filter(mine).ok_or_else(Problem::not_found)?;
        Ok(Answer::ok(serde_json::to_value(&found).unwrap_or_default()))
    }

    /// Room to search in, for as long as that takes.
    pub(super) fn searching(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| Problem::new(Code::Overloaded, "Too many people search the ledgers at once.");
        Arc::clone(&self.api.searching).try_acquire_owned().map_err(full)
    }
}

type SearchedPage = (Vec<Value>, Option<(u64, Matches)>);

/// The next page, and where it goes on if it does.
fn search(
    known: Option<Matches>,
    dir: &std::path::Path,
    filter: Filter,
    from: u64,
    limit: usize,
) -> Result<SearchedPage, LedgerError> {
    let until = net::clock::monotonic() + MOST_TIME;
    let mut matches = match known {
        Some(matches) => matches,
        None => query::query_from(dir, filter, from)?,
    };
    let (mut items, mut bytes) = (Vec::new(), 0);
    loop {
        if items.len() >= limit || bytes >= MOST_BYTES {
            return Ok((items, Some((matches.next_seq(), matches))));
        }
        match matches.next_until(until)? {
            query::Step::Found(entry) => {
                let item = serde_json::to_value(&*entry).unwrap_or_default();
                bytes += item.to_string().len();
                items.push(item);
            }
            query::Step::NotYet => return Ok((items, Some((matches.next_seq(), matches)))),
            query::Step::End => return Ok((items, None)),
        }
    }
}

fn newest(dir: &std::path::Path, count: usize, filter: &Filter) -> Result<Vec<Value>, LedgerError> {
    let mut tail = Tail::open(dir, count)?;
    let mut items = Vec::new();
    while let Some(entry) = tail.next()? {
        let mine = |tenants: &BTreeSet<String>| entry.text("tenant").is_some_and(|of| tenants.contains(of));
        if filter.tenants.as_ref().is_none_or(mine) {
            items.push(serde_json::to_value::<&Entry>(&entry).unwrap_or_default());
        }
        if items.len() >= count {
            break;
        }
    }
    Ok(items)
}

fn filter(query: &Query, tenants: Option<BTreeSet<String>>) -> Result<Filter, Problem> {
    let text = |name: &str| query.value(name).map(str::to_owned);
    let time = |name: &str| -> Result<Option<Timestamp>, Problem> {
        let read =
            |text: &str| text.parse().map_err(|_| Problem::invalid(format!("`{name}` has to be a time (RFC 3339)")));
        query.value(name).map(read).transpose()
    };
    let verdict = |text: &str| {
        let all = [Verdict::Permit, Verdict::Deny, Verdict::ApprovalRequired];
        let found = all.into_iter().find(|verdict| verdict.as_str() == text);
        found.ok_or_else(|| Problem::invalid("`verdict` has to be permit, deny or approval_required"))
    };
    Ok(Filter {
        run: text("run"),
        user: text("user"),
        agent: text("agent"),
        action: text("action"),
        tool: text("tool"),
        decision: text("decision"),
        verdict: query.value("verdict").map(verdict).transpose()?,
        kind: text("kind"),
        tenants,
        from: time("from")?,
        to: time("to")?,
    })
}

pub(super) fn unreadable(error: &LedgerError) -> Problem {
    Problem::unavailable("the copy of the ledger", error)
}
