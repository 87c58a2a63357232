//! References in a tool's answer (`Location`, `Content-Location`, `Link`) as the agent can follow them: what lies at a
//! tool that it reaches through this sidecar becomes the path under which it does. Bodies are never touched.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use model::{Catalogue, Id, Tenant, Tool};

use crate::config::tools::{Base, Upstream};

/// What an agent can reach, seen from one answer.
pub(super) struct View<'a> {
    /// The URL that was answered: relative references are relative to it.
    pub(super) url: &'a Uri,
    /// The tool that answers.
    pub(super) tool: &'a Id<Tool>,
    pub(super) tenant: &'a Id<Tenant>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) upstreams: &'a BTreeMap<Id<Tool>, Upstream>,
}

impl View<'_> {
    /// Rewrites the fields that hold references.
    pub(super) fn rewrite(&self, fields: &mut HeaderMap) {
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            each(fields, &name, |text| self.reference(text));
        }
        each(fields, &header::LINK, |text| self.links(text));
    }

    /// The reference as the agent has to write it; `None` where it is right as it stands.
    fn reference(&self, text: &str) -> Option<String> {
        let target = Target::resolve(text, self.url)?;
        if let Some((tool, rest)) = self.found(&target) {
            let at = tool.at.as_str().trim_end_matches('/');
            let root = if at.is_empty() && rest.is_empty() { "/" } else { "" };
            return Some(format!("{at}{root}{rest}{}", target.tail));
        }
        // What is relative would lead from the agent's own URL to somewhere else than the tool meant.
        (!target.absolute).then(|| format!("{}://{}{}{}", target.scheme, target.authority, target.path, target.tail))
    }

    /// The tool that `target` lies at, and what is below its base; the nearest base, and among equal ones this tool's.
    fn found<'t>(&self, target: &'t Target<'_>) -> Option<(&Tool, &'t str)> {
        let mut best: Option<(&Tool, &'t str)> = None;
        for tool in self.catalogue.tools().iter().filter(|tool| tool.serves(self.tenant)) {
            let Some(rest) = self.upstreams.get(&tool.id).and_then(|upstream| target.below(&upstream.base)) else {
                continue;
            };
            let nearer = best.is_none_or(|(_, before)| {
                rest.len() < before.len() || (rest.len() == before.len() && tool.id == *self.tool)
            });
            if nearer {
                best = Some((tool, rest));
            }
        }
        best
    }

    /// The targets of a `Link` field (RFC 8288 §3), which stand between angle brackets outside of quoted strings. What
    /// is not such a list stays as it is from there on.
    fn links(&self, text: &str) -> Option<String> {
        let mut rewritten = String::with_capacity(text.len());
        let mut rest = text;
        let mut changed = false;
        while let Some(opening) = next_opening(rest) {
            let (before, from) = rest.split_at_checked(opening + 1)?;
            let Some((target, after)) = from.split_once('>') else { break };
            rewritten.push_str(before);
            match self.reference(target) {
                Some(other) => {
                    changed = true;
                    rewritten.push_str(&other);
                }
                None => rewritten.push_str(target),
            }
            rewritten.push('>');
            rest = after;
        }
        rewritten.push_str(rest);
        changed.then_some(rewritten)
    }
}

/// Where the next angle bracket opens outside of quoted strings.
fn next_opening(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn each(fields: &mut HeaderMap, name: &HeaderName, rewritten: impl Fn(&str) -> Option<String>) {
    if let header::Entry::Occupied(mut entry) = fields.entry(name) {
        for value in entry.iter_mut() {
            let other = value.to_str().ok().and_then(&rewritten);
            if let Some(other) = other.and_then(|text| HeaderValue::from_str(&text).ok()) {
                *value = other;
            }
        }
    }
}

/// A reference, resolved (RFC 3986 §5.2).
struct Target<'a> {
    scheme: Cow<'a, str>,
    authority: Cow<'a, str>,
    path: String,
    /// Query and fragment, as written.
    tail: Cow<'a, str>,
    /// Whether it was written with its scheme.
    absolute: bool,
}

impl<'a> Target<'a> {
    /// `None` for what is no reference to http or https.
    fn resolve(text: &'a str, base: &'a Uri) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'<' | b'>' | b'"')) {
            return None;
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, text),
        };
        let known = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        if scheme.is_some_and(|scheme| !known(scheme) || !rest.starts_with("//")) {
            return None;
        }
        let (hierarchical, tail) = rest.split_at_checked(rest.find(['?', '#']).unwrap_or(rest.len()))?;
        let resolved_scheme = Cow::Borrowed(scheme.or(base.scheme_str())?);
        if let Some(after) = hierarchical.strip_prefix("//") {
            let (authority, path) = after.split_at_checked(after.find('/').unwrap_or(after.len()))?;
            if authority.contains('@') || authority.parse::<http::uri::Authority>().is_err() {
                return None;
            }
            return Some(Self {
                scheme: resolved_scheme,
                authority: authority.into(),
                path: without_dots(path),
                tail: tail.into(),
                absolute: scheme.is_some(),
            });
        }
        let (path, tail) = match hierarchical {
            "" if tail.starts_with('?') => (base.path().to_owned(), tail.into()),
            "" => (base.path().to_owned(), with_query(base.query(), tail)),
            path if path.starts_with('/') => (without_dots(path), tail.into()),
            path => {
                let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
                (without_dots(&format!("{directory}/{path}")), tail.into())
            }
        };
        let authority = base.authority()?.as_str().into();
        Some(Self { scheme: resolved_scheme, authority, path, tail, absolute: false })
    }

    /// What of the path is below `base`, if it is there at all.
    fn below(&self, base: &Base) -> Option<&str> {
        let authority: http::uri::Authority = self.authority.parse().ok()?;
        let default = if self.scheme.eq_ignore_ascii_case("http") { 80 } else { 443 };
        let same = self.scheme.eq_ignore_ascii_case(base.scheme())
            && authority.host().eq_ignore_ascii_case(base.host())
            && authority.port_u16().unwrap_or(default) == base.port();
        let rest = self.path.strip_prefix(base.path()).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        same.then_some(rest)
    }
}

fn with_query<'a>(query: Option<&str>, fragment: &'a str) -> Cow<'a, str> {
    query.map_or(Cow::Borrowed(fragment), |query| format!("?{query}{fragment}").into())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Without `.` and `..` segments (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/').skip(1) {
        ends_in_directory = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let slash = if ends_in_directory && !kept.is_empty() { "/" } else { "" };
    if kept.is_empty() && path.is_empty() { String::new() } else { format!("/{}{slash}", kept.join("/")) }
}

#[cfg(test)]
mod tests;
