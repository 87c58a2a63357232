//! Names of actions, `noun.verb`, from what an operation is called and where it is. Which names there are does not hang on
//! the order of operations, and none is given twice.

use std::collections::{BTreeMap, BTreeSet};

use model::Effect;

use super::template::{Shape, shape};

/// The longest noun or verb.
const LONGEST: usize = 60;

/// What is named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) method: &'a str,
    /// Its path as a template.
    pub(crate) template: &'a str,
    /// What it is called already.
    pub(crate) id: Option<&'a str>,
    /// What it is grouped under.
    pub(crate) tag: Option<&'a str>,
    /// Whether it answers with an array.
    pub(crate) many: bool,
}

/// Words that begin the name of something that is done.
const VERBS: &[&str] = &[
    "accept",
    "activate",
    "add",
    "approve",
    "archive",
    "assign",
    "attach",
    "authorize",
    "ban",
    "block",
    "bulk",
    "cancel",
    "capture",
    "check",
    "clear",
    "clone",
    "close",
    "complete",
    "confirm",
    "connect",
    "consume",
    "convert",
    "copy",
    "count",
    "create",
    "crosspost",
    "deactivate",
    "decline",
    "delete",
    "deny",
    "destroy",
    "detach",
    "disable",
    "disconnect",
    "download",
    "edit",
    "enable",
    "end",
    "execute",
    "expire",
    "export",
    "fetch",
    "finalize",
    "find",
    "follow",
    "generate",
    "get",
    "import",
    "insert",
    "invite",
    "invoke",
    "join",
    "leave",
    "list",
    "lock",
    "login",
    "logout",
    "lookup",
    "mark",
    "merge",
    "modify",
    "move",
    "new",
    "open",
    "patch",
    "pause",
    "pay",
    "ping",
    "place",
    "post",
    "preview",
    "process",
    "publish",
    "purge",
    "put",
    "query",
    "read",
    "refresh",
    "refund",
    "register",
    "reject",
    "remove",
    "rename",
    "renew",
    "reopen",
    "replace",
    "request",
    "rerun",
    "reset",
    "resolve",
    "restart",
    "restore",
    "resume",
    "retrieve",
    "retry",
    "revoke",
    "rotate",
    "run",
    "save",
    "search",
    "send",
    "set",
    "show",
    "sign",
    "start",
    "stop",
    "submit",
    "subscribe",
    "suspend",
    "sync",
    "transfer",
    "trigger",
    "unlock",
    "unsubscribe",
    "update",
    "upload",
    "upsert",
    "validate",
    "verify",
    "view",
    "void",
    "watch",
    "withdraw",
];

/// Of those, what changes nothing.
const READING: &[&str] = &[
    "check", "count", "download", "fetch", "find", "get", "list", "lookup", "ping", "preview", "query", "read",
    "retrieve", "search", "show", "validate", "verify", "view",
];

/// Methods that are called like what is done.
const METHOD_WORDS: [&str; 5] = ["post", "put", "patch", "head", "options"];

impl Subject<'_> {
    /// What it may be called, best first.
    fn candidates(&self) -> Vec<String> {
        let parts = self.parts();
        let mut names = Vec::new();
        if let Some((noun, verb)) = self.id.and_then(divided) {
            names.push(format!("{noun}.{verb}"));
        }
        names.push(format!("{}.{}", parts.noun, parts.verb));
        if let Some(parent) = &parts.parent {
            names.push(format!("{parent}_{}.{}", parts.noun, parts.verb));
        }
        if let Some(id) = self.id.map(snake).filter(|id| !id.is_empty()) {
            names.push(format!("{}.{id}", parts.noun));
        }
        let method = self.method.to_ascii_lowercase();
        names.push(format!("{}.{}_{method}", parts.noun, parts.verb));
        let whole: Vec<String> = shape(self.template).iter().flatten().map(|part| snake(part)).collect();
        names.push(format!("{}.{method}", short(&whole.join("_")).trim_matches('_')));
        names.retain(|name| !name.starts_with('.') && !name.ends_with('.'));
        names
    }

    fn parts(&self) -> Parts {
        let path = shape(self.template);
        let literals: Vec<&str> = nouns(&path);
        let last = path.last().cloned().flatten();
        let tag = || self.tag.map(snake).filter(|tag| !tag.is_empty());
        let (ending, above) = (literals.last().copied(), literals.iter().rev().nth(1).copied());
        // `/orders/{order}/cancel`
        if let (Some(_), Some(ending), Some(above)) = (&last, ending, above)
            && self.ends_with_verb(ending)
        {
            let parent = literals.iter().rev().nth(2).map(|up| snake(up));
            return Parts { noun: snake(above), verb: snake(ending), parent };
        }
        let noun = ending.map(snake).filter(|noun| !noun.is_empty()).or_else(tag).unwrap_or_else(|| "root".to_owned());
        let many = last.is_some() && (self.many || noun.ends_with('s'));
        let verb = self.said(many).unwrap_or_else(|| self.usual(last.is_some(), many).to_owned());
        Parts { noun, verb, parent: above.map(snake).filter(|above| !above.is_empty()) }
    }

    /// Whether the end of its path says what is done, and its own name nothing else.
    fn ends_with_verb(&self, ending: &str) -> bool {
        let first = words(ending).into_iter().next().unwrap_or_default();
        is_verb(&first) && self.first_verb().is_none_or(|said| said == first)
    }

    /// The verb that its own name begins with. What stands before a divider is what it is about.
    fn first_verb(&self) -> Option<String> {
        words(self.id?.rsplit(['/', '.']).next()?).into_iter().next().filter(|word| is_verb(word))
    }

    /// What its own name says is done.
    fn said(&self, many: bool) -> Option<String> {
        let last = || words(self.id?.rsplit(['/', '.']).next()?).pop().filter(|word| is_verb(word));
        let verb = self.first_verb().or_else(last)?;
        Some(match verb.as_str() {
            "get" | "fetch" | "retrieve" | "show" | "view" | "read" if many => "list".to_owned(),
            "get" | "fetch" | "retrieve" | "show" | "view" | "read" => "read".to_owned(),
            "add" | "insert" | "new" => "create".to_owned(),
            "remove" | "destroy" => "delete".to_owned(),
            "edit" | "modify" => "update".to_owned(),
            verb => verb.to_owned(),
        })
    }

    /// What a method usually does.
    fn usual(&self, collection: bool, many: bool) -> &'static str {
        match self.method {
            "GET" if many => "list",
            "GET" => "read",
            "HEAD" => "check",
            "OPTIONS" => "options",
            "POST" if collection => "create",
            "PUT" => "replace",
            "DELETE" => "delete",
            _ => "update",
        }
    }

    /// What it does at the tool as far as can be told, and what a person has to look at. Never less than its method says.
    pub(crate) fn effect(&self) -> (Effect, Option<String>) {
        let of_path = || words(&self.parts().verb).into_iter().next();
        let first = self.first_verb().or_else(of_path).unwrap_or_default();
        let reads = READING.contains(&first.as_str());
        let said = words(self.id.unwrap_or_default());
        let drafts = said.iter().chain(&words(self.template)).any(|word| word == "draft" || word == "drafts");
        match self.method {
            "GET" | "HEAD" | "OPTIONS" if is_verb(&first) && !reads => (
                Effect::Write,
                Some(format!(
                    "`{first}` on a {}: it is taken for a write; `effect: read` if it changes nothing",
                    self.method
                )),
            ),
            "GET" | "HEAD" | "OPTIONS" => (Effect::Read, None),
            _ if reads => (
                Effect::Write,
                Some(format!("a {} that reads by its name; `effect: read` if it changes nothing", self.method)),
            ),
            _ if drafts => (
                Effect::Write,
                Some("`effect: draft` if it only prepares something that a person still has to send".to_owned()),
            ),
            _ => (Effect::Write, None),
        }
    }
}

struct Parts {
    noun: String,
    verb: String,
    parent: Option<String>,
}

/// Whether a word says that something is done, beside those that only name a method.
fn is_verb(word: &str) -> bool {
    VERBS.contains(&word) && !METHOD_WORDS.contains(&word)
}

/// A name for each of `subjects`, none of them among `taken`.
pub(crate) fn assign(subjects: &[Subject<'_>], taken: &BTreeSet<String>) -> Vec<String> {
    let candidates: Vec<Vec<String>> = subjects.iter().map(Subject::candidates).collect();
    let mut taken = taken.clone();
    let mut given: BTreeMap<usize, String> = BTreeMap::new();
    let most = candidates.iter().map(Vec::len).max().unwrap_or_default();
    for level in 0..most {
        let mut wanted: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, names) in candidates.iter().enumerate().filter(|(place, _)| !given.contains_key(place)) {
            if let Some(name) = names.get(level) {
                wanted.entry(name).or_default().push(place);
            }
        }
        for (name, places) in wanted {
            // What two want is the one's with the shorter path or else neither's: it never hangs on which comes first.
            let length =
                |place: &usize| subjects.get(*place).map_or(0, |subject| subject.template.matches('/').count());
            let least = places.iter().map(length).min().unwrap_or_default();
            let mut shortest = places.iter().filter(|place| length(place) == least);
            if let (Some(place), None) = (shortest.next(), shortest.next())
                && taken.insert(name.to_owned())
            {
                given.insert(*place, name.to_owned());
            }
        }
    }
    // From which number on one is looked for: many may want one name.
    let mut next: BTreeMap<&str, u32> = BTreeMap::new();
    for (place, names) in candidates.iter().enumerate() {
        let base = names.last().map_or("action", String::as_str);
        given.entry(place).or_insert_with(|| {
            let number = next.entry(base).or_insert(2);
            loop {
                let name = format!("{base}_{number}");
                *number += 1;
                if taken.insert(name.clone()) {
                    return name;
                }
            }
        });
    }
    given.into_values().collect()
}

/// The resource that a path is about: everything up to its last variable, or all of it.
pub(crate) fn resource(template: &str) -> String {
    let segments: Vec<&str> = template.split('/').filter(|segment| !segment.is_empty()).collect();
    let kept = segments.iter().skip_while(|segment| is_version(segment)).copied().collect::<Vec<_>>();
    let variable = |segment: &&str| segment.starts_with('{');
    let to = kept.iter().rposition(variable).map_or(kept.len(), |last| last + 1);
    let resource: Vec<&str> = kept.into_iter().take(to).collect();
    if resource.is_empty() { "root".to_owned() } else { resource.join("/") }
}

/// The literal segments that say what something is.
fn nouns(path: &Shape) -> Vec<&str> {
    path.iter()
        .flatten()
        .map(|segment| segment.strip_suffix(".json").unwrap_or(segment))
        .filter(|segment| !is_version(segment) && !snake(segment).is_empty())
        .collect()
}

/// `v1`, `2010-04-01`, `api`: how an API is kept apart, and nothing that it is about.
fn is_version(segment: &str) -> bool {
    let numbered = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-')
    };
    matches!(segment, "api" | "rest") || numbered(segment) || segment.strip_prefix('v').is_some_and(numbered)
}

/// `issues/list-for-repo`, `orders.cancel`: a name that has two parts.
fn divided(id: &str) -> Option<(String, String)> {
    let separator = ['/', '.'].into_iter().find(|separator| id.contains(*separator))?;
    let (noun, verb) = id.split_once(separator)?;
    let (noun, verb) = (snake(noun), snake(verb));
    (!noun.is_empty() && !verb.is_empty()).then_some((noun, verb))
}

/// The words of `text`: `showPetById` has four.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in text.chars().take(4 * LONGEST) {
        let begins = !before.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && !before.is_ascii_uppercase());
        if c.is_ascii_alphanumeric() {
            match words.last_mut().filter(|_| !begins) {
                Some(word) => word.push(c.to_ascii_lowercase()),
                None => words.push(c.to_ascii_lowercase().to_string()),
            }
        }
        before = c;
    }
    words
}

fn snake(text: &str) -> String {
    short(&words(text).join("_"))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect::<String>().trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests;
