//! Templates of paths and resource names: how a request is matched, and how a name or a path is made again from what
//! matched, each value staying the one segment it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::{CanonicalPath, catalogue::InvalidCatalogue};

/// A path or a resource name with variables: `/v1/orders/{order}`. A variable stands for one whole segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<TemplateSegment>,
    absolute: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TemplateSegment {
    Literal(String),
    Variable(String),
}

/// The values of a template's variables.
pub type Variables = BTreeMap<String, String>;

impl Template {
    /// Parses `/v1/orders/{order}` (a path) or `orders/{order}` (a resource name).
    pub fn parse(text: &str) -> Result<Self, InvalidCatalogue> {
        let invalid = || InvalidCatalogue::Template(text.chars().take(120).collect());
        let absolute = text.starts_with('/');
        let body = text.strip_prefix('/').unwrap_or(text);
        if body.is_empty() {
            return if absolute { Ok(Self { segments: Vec::new(), absolute }) } else { Err(invalid()) };
        }
        let mut seen = BTreeSet::new();
        let mut segments = Vec::new();
        for part in body.split('/') {
            segments.push(match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) if is_name(name) && seen.insert(name.to_owned()) => {
                    TemplateSegment::Variable(name.to_owned())
                }
                None if !part.is_empty() && !part.contains(['{', '}', '%', '?', '#', ';', '\\', '*']) => {
                    TemplateSegment::Literal(part.to_owned())
                }
                _ => return Err(invalid()),
            });
        }
        Ok(Self { segments, absolute })
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            TemplateSegment::Variable(name) => Some(name.as_str()),
            TemplateSegment::Literal(_) => None,
        })
    }

    /// The values of its variables, where `path` matches.
    pub fn matches(&self, path: &CanonicalPath) -> Option<Variables> {
        if path.segments().len() != self.segments.len() {
            return None;
        }
        let mut variables = Variables::new();
        for (segment, found) in self.segments.iter().zip(path.segments()) {
            match segment {
                TemplateSegment::Literal(literal) if literal == found => {}
                TemplateSegment::Variable(name) if !found.is_empty() => {
                    variables.insert(name.clone(), found.clone());
                }
                _ => return None,
            }
        }
        Some(variables)
    }

    /// The template with its variables' plain values: a resource name. `None` where a value is missing, or would
    /// not stay one segment.
    pub fn fill(&self, variables: &Variables) -> Option<String> {
        self.fill_with(variables, |value| (!value.is_empty() && !value.contains('/')).then(|| value.to_owned()))
    }

    /// The template with its variables percent-encoded: a path to request.
    pub fn fill_path(&self, variables: &Variables) -> Option<String> {
        self.fill_with(variables, crate::path::encode_segment)
    }

    fn fill_with(&self, variables: &Variables, write: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut text = String::new();
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 || self.absolute {
                text.push('/');
            }
            match segment {
                TemplateSegment::Literal(literal) => text.push_str(literal),
                TemplateSegment::Variable(name) => text.push_str(&write(variables.get(name)?)?),
            }
        }
        Some(text)
    }

    /// Which of two templates a request that matches both belongs to: a literal goes before a variable.
    pub(crate) fn precedence(&self, other: &Self) -> std::cmp::Ordering {
        self.segments.cmp(&other.segments)
    }

    /// Whether both match the same requests, variables' names aside.
    pub(crate) fn same_requests(&self, other: &Self) -> bool {
        let alike = |pair: (&TemplateSegment, &TemplateSegment)| match pair {
            (TemplateSegment::Literal(one), TemplateSegment::Literal(other)) => one == other,
            (TemplateSegment::Variable(_), TemplateSegment::Variable(_)) => true,
            (TemplateSegment::Literal(_), TemplateSegment::Variable(_))
            | (TemplateSegment::Variable(_), TemplateSegment::Literal(_)) => false,
        };
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(alike)
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 || self.absolute {
                f.write_str("/")?;
            }
            match segment {
                TemplateSegment::Literal(literal) => f.write_str(literal)?,
                TemplateSegment::Variable(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn a_template_matches_whole_segments_and_gives_decoded_values() {
        let path = |raw| CanonicalPath::parse(raw).unwrap();
        assert_eq!(template("/v1/orders/{order}").matches(&path("/v1/orders/a%20b")).unwrap()["order"], "a b");
        assert!(template("/v1/orders/{order}").matches(&path("/v1/orders/")).is_none());
        assert!(template("/v1/orders/{order}").matches(&path("/v1/orders/1/")).is_none());
        assert!(template("/v1/orders").matches(&path("/v1/Orders")).is_none());
        for text in ["", "//", "/{a}/{a}", "/a{b}", "/{}", "/{a b}", "/a//b", "/a?x"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_filled_path_keeps_each_value_one_segment() {
        let fill =
            |value: &str| template("/v1/orders/{order}").fill_path(&[("order".to_owned(), value.to_owned())].into());
        assert_eq!(fill("a b?x=1&y"), Some("/v1/orders/a%20b%3Fx%3D1%26y".to_owned()));
        for value in ["", "..", "a/b", "a%2fb", "a\\b"] {
            assert_eq!(fill(value), None, "{value}");
        }
    }
}
