//! Lists in pages: `limit` and `cursor`, which is opaque to whoever sends it back.

use serde::Serialize;
use serde_json::{Value, json};
use store::{Listed, Page};

use super::{problem::Problem, query::Query};

/// Entries on a page, unless asked for fewer or more.
const USUAL: usize = 50;
/// The most entries on a page.
pub(super) const MOST: usize = 200;
/// What a cursor begins with, so that nobody takes it for a number to count with.
const MARK: &str = "c-";

/// Reads `limit` and `cursor`.
pub(crate) fn page(query: &Query) -> Result<Page, Problem> {
    let limit = match query.value("limit") {
        None => USUAL,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=MOST).contains(&limit) => limit,
            _ => return Err(Problem::invalid(format!("`limit` has to be a number from 1 to {MOST}"))),
        },
    };
    let after = match query.value("cursor") {
        None => 0,
        Some(cursor) => cursor
            .strip_prefix(MARK)
            .and_then(|text| u64::from_str_radix(text, 36).ok())
            .ok_or_else(|| Problem::invalid("`cursor` is not one that a page of this list ended with"))?,
    };
    Ok(Page { after, limit })
}

/// The answer: what is on the page, under `name`, and where the next one begins.
pub(crate) fn answer<T, S: Serialize>(name: &str, listed: &Listed<T>, shown: impl Fn(&T) -> S) -> Value {
    let entries: Vec<_> = listed.items.iter().map(shown).collect();
    let mut body = json!({ name: entries });
    if let (Some(members), Some(next)) = (body.as_object_mut(), listed.next) {
        members.insert("next".to_owned(), format!("{MARK}{}", base36(next)).into());
    }
    body
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lead_to_each_other_and_the_last_to_none() {
        let first = answer("names", &Listed { items: vec!["a", "b"], next: Some(1_234_567) }, |name| *name);
        assert_eq!(first["names"], json!(["a", "b"]));
        let next = format!("limit=2&cursor={}", first["next"].as_str().unwrap());
        assert_eq!(page(&Query::parse(&next).unwrap()).unwrap(), Page { after: 1_234_567, limit: 2 });
        assert_eq!(answer("names", &Listed { items: vec!["c"], next: None }, |name| *name), json!({ "names": ["c"] }));
        for query in ["limit=0", "limit=201", "limit=x", "cursor=7", "cursor=c-", "cursor=c-!", "limit=1&limit=2"] {
            let read = Query::parse(query).and_then(|query| page(&query));
            assert!(read.is_err(), "{query}");
        }
    }
}
