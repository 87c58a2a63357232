//! Paths that were called, by their shape: what looks like the name of one thing is a variable, and so is what stands in
//! one place under too many names.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::path::encode_segment;

/// The most different paths that are kept apart.
const MOST_PATHS: usize = 5_000;
/// How many different names in one place of a collection are names of things.
const MANY: usize = 4;
/// From how many characters on a word with digits in it is a name.
const LONG: usize = 8;

/// Paths of one tool.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// By method and segments; `None` is a variable.
    kept: BTreeMap<(String, Vec<Option<String>>), Seen>,
    dropped: u64,
}

/// What is known of the calls of one shape.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    pub(super) agents: BTreeSet<String>,
    pub(super) last: Option<Timestamp>,
    /// A decision on one of them.
    pub(super) like: String,
}

impl Seen {
    fn join(&mut self, other: Self) {
        self.calls += other.calls;
        for agent in other.agents {
            if self.agents.len() < super::MOST_NAMED {
                self.agents.insert(agent);
            }
        }
        if other.last >= self.last {
            self.last = other.last;
            self.like = other.like;
        }
    }
}

impl Paths {
    /// Adds calls of `method` on the decoded `segments`.
    pub(super) fn add(&mut self, method: &str, segments: &[String], seen: Seen) {
        let shape = segments.iter().map(|segment| (!is_name(segment)).then(|| segment.clone())).collect();
        let key = (method.to_owned(), shape);
        if !self.kept.contains_key(&key) && self.kept.len() >= MOST_PATHS {
            self.dropped += seen.calls;
            return;
        }
        self.kept.entry(key).or_default().join(seen);
    }

    /// How many calls were too many to keep apart.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// By method and template.
    pub(super) fn shapes(&self) -> BTreeMap<(String, String), Seen> {
        let mut kept = self.kept.clone();
        let deepest = kept.keys().map(|(_, shape)| shape.len()).max().unwrap_or_default();
        for place in 1..deepest {
            kept = joined(kept, place);
        }
        let mut shapes: BTreeMap<(String, String), Seen> = BTreeMap::new();
        for ((method, shape), seen) in kept {
            shapes.entry((method, template(&shape))).or_default().join(seen);
        }
        shapes
    }
}

type Kept = BTreeMap<(String, Vec<Option<String>>), Seen>;

/// What stands at `place` under many names, below a collection, becomes a variable.
fn joined(kept: Kept, place: usize) -> Kept {
    let mut names: BTreeMap<Vec<Option<String>>, BTreeSet<String>> = BTreeMap::new();
    for (_, shape) in kept.keys() {
        let before: Vec<Option<String>> = shape.iter().take(place).cloned().collect();
        let collection = matches!(before.last(), Some(Some(literal)) if literal.ends_with('s'));
        if let (true, Some(Some(literal))) = (collection, shape.get(place)) {
            names.entry(before).or_default().insert(literal.clone());
        }
    }
    names.retain(|_, names| names.len() >= MANY);
    let mut after = Kept::new();
    for ((method, mut shape), seen) in kept {
        let before: Vec<Option<String>> = shape.iter().take(place).cloned().collect();
        if names.contains_key(&before)
            && let Some(segment) = shape.get_mut(place)
        {
            *segment = None;
        }
        after.entry((method, shape)).or_default().join(seen);
    }
    after
}

/// The shape as a template, its variables named by what stands before them.
fn template(shape: &[Option<String>]) -> String {
    let mut text = String::new();
    let mut named: BTreeSet<String> = BTreeSet::new();
    let mut before = "";
    for segment in shape {
        text.push('/');
        match segment {
            Some(literal) => {
                text.push_str(&encode_segment(literal).map_or_else(String::new, |_| literal.clone()));
                before = literal;
            }
            None => {
                let base = singular(before);
                let numbered = (2..).map(|number| format!("{base}_{number}"));
                let name = [base.clone()].into_iter().chain(numbered).find(|name| named.insert(name.clone()));
                text.push_str(&format!("{{{}}}", name.unwrap_or(base)));
                before = "";
            }
        }
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

/// `orders` is of orders; what cannot be said is an id.
fn singular(text: &str) -> String {
    let plain = text.to_ascii_lowercase().replace('-', "_");
    let word = match plain.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => plain.strip_suffix('s').unwrap_or("id").to_owned(),
    };
    let fits = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if fits && word.len() > 1 { word } else { "id".to_owned() }
}

/// Whether a segment looks like the name of one thing: a number, a UUID, a digest, an address, a long word with digits.
/// `v1` and `2010-04-01` are versions.
fn is_name(segment: &str) -> bool {
    let digits = segment.chars().filter(char::is_ascii_digit).count();
    let all = |fits: fn(char) -> bool| segment.chars().all(fits);
    let date = segment.len() == 10 && segment.split('-').map(str::len).eq([4, 2, 2]);
    if segment.is_empty() || (date && all(|c| c.is_ascii_digit() || c == '-')) {
        return false;
    }
    let opaque = segment.len() >= LONG && digits >= 2 && digits * 6 >= segment.len();
    all(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | ','))
        || segment.contains(['@', ' ', ':', '='])
        || !segment.is_ascii()
        || segment.len() > 64
        || opaque
        || (segment.len() >= 16 && all(|c| c.is_ascii_hexdigit() || c == '-'))
}
