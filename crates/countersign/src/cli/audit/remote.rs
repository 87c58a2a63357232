//! The ledgers that sidecars shipped to an authority, asked for as one: page by page, put in the order of time.

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Peekable,
    sync::Arc,
};

use audit::{
    Entry,
    query::{Filter, Found},
};
use serde_json::Value;

use crate::{
    failure::{Exit, Failure},
    management::{Client, segment},
};

/// Records of a page.
const PAGE: usize = 200;

/// An authority's copies of ledgers.
pub(crate) struct Remote {
    client: Arc<Client>,
}

impl Remote {
    pub(crate) fn new(client: Client) -> Self {
        Self { client: Arc::new(client) }
    }

    /// Who asks.
    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The ids of the ledgers that may be read.
    pub(crate) fn ledgers(&self) -> Result<Vec<String>, Failure> {
        let listed = self.client.list("/v1/ledgers", "ledgers", &[])?;
        Ok(listed.iter().filter_map(|ledger| ledger.get("id")?.as_str().map(str::to_owned)).collect())
    }

    /// The records of one ledger that match, from the record `seq` on.
    pub(crate) fn of(&self, ledger: &str, filter: &Filter, seq: u64) -> Pages<'_> {
        let next = (seq > 0).then(|| format!("c-{}", base36(seq)));
        Pages { client: &self.client, path: path(ledger, filter), next, more: true, page: VecDeque::new() }
    }

    /// The records of all ledgers that match, in the order of time.
    pub(crate) fn query(&self, filter: &Filter) -> Result<Merged<'_>, Failure> {
        let pages = self.ledgers()?.iter().map(|ledger| self.of(ledger, filter, 0).peekable()).collect();
        Ok(Merged { pages })
    }

    /// The last `count` records of all ledgers, and by ledger the record that will be next.
    pub(crate) fn last(&self, count: usize) -> Result<(Vec<Entry>, BTreeMap<String, u64>), Failure> {
        let (mut all, mut next) = (Vec::new(), BTreeMap::new());
        for ledger in self.ledgers()? {
            let asked = format!("/v1/ledgers/{}/records?last={}", segment(&ledger), count.clamp(1, PAGE));
            let entries = entries(self.client.get(&asked)?)?;
            next.insert(ledger, entries.last().map_or(0, |entry| entry.seq + 1));
            all.extend(entries);
        }
        all.sort_by_key(|entry| entry.time);
        let from = all.len().saturating_sub(count);
        Ok((all.split_off(from), next))
    }

    /// Everything that there is of one decision. Its id begins with that of its ledger.
    pub(crate) fn find(&self, decision: &str) -> Result<Found, Failure> {
        let ledger = decision.split('.').next().unwrap_or_default();
        let found = self.client.get(&format!("/v1/ledgers/{}/decisions/{}", segment(ledger), segment(decision)))?;
        serde_json::from_value(found).map_err(|error| strange(&error))
    }
}

fn path(ledger: &str, filter: &Filter) -> String {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    let parameters = [
        ("run", filter.run.clone()),
        ("user", filter.user.clone()),
        ("agent", filter.agent.clone()),
        ("action", filter.action.clone()),
        ("tool", filter.tool.clone()),
        ("decision", filter.decision.clone()),
        ("verdict", filter.verdict.map(|verdict| verdict.as_str().to_owned())),
        ("kind", filter.kind.clone()),
        ("from", time(filter.from)),
        ("to", time(filter.to)),
    ];
    let given = parameters.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", segment(&value?))));
    format!("/v1/ledgers/{}/records?limit={PAGE}{}", segment(ledger), given.collect::<String>())
}

fn entries(mut answer: Value) -> Result<Vec<Entry>, Failure> {
    let records = answer.get_mut("records").map(Value::take).unwrap_or_default();
    serde_json::from_value(records).map_err(|error| strange(&error))
}

fn strange(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("the authority's answer cannot be read: {error}"))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from_digit(u32::try_from(number % 36).unwrap_or_default(), 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}

/// The records of one ledger, fetched as they are asked for.
pub(crate) struct Pages<'a> {
    client: &'a Client,
    path: String,
    next: Option<String>,
    more: bool,
    page: VecDeque<Entry>,
}

impl Pages<'_> {
    fn fetch(&mut self) -> Result<(), Failure> {
        let cursor = self.next.as_ref().map(|next| format!("&cursor={}", segment(next))).unwrap_or_default();
        let answer = self.client.get(&format!("{}{cursor}", self.path))?;
        self.next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        self.more = self.next.is_some();
        self.page = entries(answer)?.into();
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && self.more {
            if let Err(failure) = self.fetch() {
                self.more = false;
                return Some(Err(failure));
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// The records of several ledgers in the order of time.
pub(crate) struct Merged<'a> {
    pages: Vec<Peekable<Pages<'a>>>,
}

impl Iterator for Merged<'_> {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first: Option<(usize, Option<jiff::Timestamp>)> = None;
        for (index, pages) in self.pages.iter_mut().enumerate() {
            // What failed comes first: nobody shall take the rest for all there is.
            let time = match pages.peek() {
                None => continue,
                Some(Ok(entry)) => Some(entry.time),
                Some(Err(_)) => None,
            };
            if first.is_none_or(|(_, earliest)| time < earliest) {
                first = Some((index, time));
            }
        }
        self.pages.get_mut(first?.0)?.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_in_the_path_and_nothing_leads_out_of_it() {
        let filter = Filter { user: Some("a&b/../c".to_owned()), ..Filter::default() };
        assert_eq!(path("0123/x", &filter), "/v1/ledgers/0123%2Fx/records?limit=200&user=a%26b%2F..%2Fc");
        assert_eq!((base36(35), base36(36), base36(1_234_567)), ("z".into(), "10".into(), "qglj".into()));
    }
}
