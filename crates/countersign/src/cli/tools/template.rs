//! Paths as templates: what of a document's a catalogue can say, and which requests two of them share.

use std::collections::BTreeMap;

use model::template::Template;

/// The longest path, in bytes.
const LONGEST: usize = 2048;
/// The most segments of a path.
const DEEPEST: usize = 64;

/// A segment: `None` where it is a variable.
pub(crate) type Shape = Vec<Option<String>>;

/// Why a path is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inexpressible {
    /// `/files/{name}.json`
    #[error("a segment of its path is a variable only in part, and a template has whole ones")]
    Partial,
    /// `/orders/`
    #[error("its path ends with a slash, which no template has")]
    Slash,
    /// More than anybody calls.
    #[error("its path is longer than {LONGEST} bytes or {DEEPEST} segments")]
    Long,
    /// Anything else.
    #[error("its path has what no template has")]
    Other,
}

/// A path as configuration writes it, with the name that each of its variables had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// The document's names of variables, and those here.
    pub(crate) variables: BTreeMap<String, String>,
}

/// The path `path` of a document, as a template with names that configuration can have.
pub(crate) fn written(path: &str) -> Result<Written, Inexpressible> {
    let mut variables = BTreeMap::new();
    let mut text = String::new();
    if path == "/" {
        return Ok(Written { text: "/".to_owned(), variables });
    }
    if path.len() > LONGEST || path.matches('/').count() > DEEPEST {
        return Err(Inexpressible::Long);
    }
    for segment in path.split('/').skip(1) {
        text.push('/');
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !name.contains(['{', '}']) => {
                let plain = variable(name, &variables);
                text.push_str(&format!("{{{plain}}}"));
                variables.insert(name.to_owned(), plain);
            }
            _ if segment.contains('{') => return Err(Inexpressible::Partial),
            _ if segment.is_empty() => return Err(Inexpressible::Slash),
            // No path that a sidecar takes has these.
            _ if matches!(segment, "." | "..") => return Err(Inexpressible::Other),
            _ => text.push_str(segment),
        }
    }
    Template::parse(&text).map_err(|_| Inexpressible::Other)?;
    Ok(Written { text, variables })
}

/// A name of letters, digits and `_` that is not taken.
fn variable(name: &str, taken: &BTreeMap<String, String>) -> String {
    let mut plain: String = name.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
        plain.insert_str(0, "id");
    }
    let free = |plain: &String| !taken.values().any(|other| other == plain);
    let numbered = (2..).map(|number| format!("{plain}_{number}"));
    [plain.clone()].into_iter().chain(numbered).find(free).unwrap_or_default()
}

/// What requests a template matches, its variables' names aside.
pub(crate) fn shape(template: &str) -> Shape {
    let segments = template.trim_start_matches('/').split('/').filter(|segment| !segment.is_empty());
    segments
        .map(|segment| (!(segment.starts_with('{') && segment.ends_with('}'))).then(|| segment.to_owned()))
        .collect()
}

/// Whether a request could be either, and neither says more of it than the other: a tool may take it for one where the
/// sidecar takes it for the other.
pub(crate) fn cross(a: &Shape, b: &Shape) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (mut more, mut less) = (false, false);
    for pair in a.iter().zip(b) {
        match pair {
            (Some(one), Some(other)) if one != other => return false,
            (Some(_), None) => more = true,
            (None, Some(_)) => less = true,
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    more && less
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documents_path_is_a_template_or_says_why_not() {
        let good = |path: &str| written(path).unwrap().text;
        assert_eq!(good("/v1/orders/{order-id}/items/{order_id}"), "/v1/orders/{order_id}/items/{order_id_2}");
        assert_eq!((good("/"), good("/{2fa}")), ("/".to_owned(), "/{id2fa}".to_owned()));
        for (path, why) in [
            ("/files/{name}.json", Inexpressible::Partial),
            ("/{a}{b}", Inexpressible::Partial),
            ("/x{a", Inexpressible::Partial),
            ("/orders/", Inexpressible::Slash),
            ("/a//b", Inexpressible::Slash),
            ("/a?b=c", Inexpressible::Other),
            ("/a#b", Inexpressible::Other),
            ("/a/*", Inexpressible::Other),
            ("/a/../b", Inexpressible::Other),
            ("/./b", Inexpressible::Other),
            (format!("/{}", "a".repeat(LONGEST)).as_str(), Inexpressible::Long),
            ("/{a}".repeat(DEEPEST + 1).as_str(), Inexpressible::Long),
        ] {
            assert_eq!(written(path), Err(why), "{path}");
        }
    }

    #[test]
    fn templates_cross_where_neither_says_more() {
        let both = |a: &str, b: &str| cross(&shape(a), &shape(b));
        assert!(both("/users/{id}/me", "/users/all/{x}"));
        for (a, b) in [("/users/{id}", "/users/me"), ("/a/{x}", "/b/{x}"), ("/a", "/a/b"), ("/{a}", "/{b}")] {
            assert!(!both(a, b) && !both(b, a), "{a} {b}");
        }
    }
}
