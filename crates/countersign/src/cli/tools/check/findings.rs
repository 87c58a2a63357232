//! What a check finds, and what of it can be seen in the catalogue alone.

use std::{collections::BTreeMap, fmt, str::FromStr};

use model::{Action, Effect, Tool, nearest::nearest};
use serde::Serialize;

use crate::cli::tools::template::{Shape, cross, shape};

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) tool: String,
    pub(super) kind: Kind,
    /// The action, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<String>,
    /// The operation, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<String>,
    pub(super) message: String,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// An operation that no action maps.
    Unmapped,
    /// An action that no operation has.
    Dead,
    /// An action that is taken for less than its method says.
    Effect,
    /// Actions that one request could be both of.
    Overlap,
    /// What a document has served elsewhere.
    Server,
    /// URLs in answers.
    Link,
    /// What the tool calls.
    Callback,
    /// A parameter that the tool requires and the action does not let through.
    Parameter,
    /// What could not be read of a document.
    Unread,
}

const KINDS: [(&str, Kind); 9] = [
    ("unmapped", Kind::Unmapped),
    ("dead", Kind::Dead),
    ("effect", Kind::Effect),
    ("overlap", Kind::Overlap),
    ("server", Kind::Server),
    ("link", Kind::Link),
    ("callback", Kind::Callback),
    ("parameter", Kind::Parameter),
    ("unread", Kind::Unread),
];

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Dead => "dead",
            Self::Effect => "effect",
            Self::Overlap => "overlap",
            Self::Server => "server",
            Self::Link => "link",
            Self::Callback => "callback",
            Self::Parameter => "parameter",
            Self::Unread => "unread",
        }
    }
}

/// What somebody knows of and accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    kind: Kind,
    /// The action or the tool that it is accepted for.
    name: Option<String>,
}

impl Accepted {
    pub(super) fn covers(&self, finding: &Finding) -> bool {
        let named = |name: &String| finding.action.as_ref() == Some(name) || finding.tool == *name;
        self.kind == finding.kind && self.name.as_ref().is_none_or(named)
    }
}

impl FromStr for Accepted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (text, None),
        };
        let names = KINDS.map(|(name, _)| name);
        let found = KINDS.iter().find(|(name, _)| *name == kind);
        let (_, kind) = found.ok_or_else(|| match nearest(kind, names) {
            Some(near) => format!("there is no kind `{kind}`; did you mean `{near}`?"),
            None => format!("there is no kind `{kind}`; there are {}", names.join(", ")),
        })?;
        Ok(Self { kind: *kind, name })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.action.as_ref().or(self.operation.as_ref());
        let about = about.map(|about| format!(" {about}")).unwrap_or_default();
        write!(f, "warning[{}] {}{about}: {}", self.kind.as_str(), self.tool, self.message)
    }
}

impl Finding {
    pub(super) fn of(tool: &Tool, kind: Kind, message: impl Into<String>) -> Self {
        Self { tool: tool.id.to_string(), kind, action: None, operation: None, message: message.into() }
    }

    pub(super) fn action(self, action: &Action) -> Self {
        Self { action: Some(action.id.to_string()), ..self }
    }

    pub(super) fn operation(self, operation: String) -> Self {
        Self { operation: Some(operation), ..self }
    }
}

/// What can be seen in the catalogue alone.
pub(super) fn of_tool(tool: &Tool) -> Vec<Finding> {
    let mut found = Vec::new();
    for action in &tool.actions {
        let changes = matches!(action.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
        if changes && action.effect == Effect::Read {
            let message = format!(
                "`effect: read` of a {}: tasks that may only read can call it, and what it does not declare goes unseen",
                action.method
            );
            found.push(Finding::of(tool, Kind::Effect, message).action(action));
        }
        if action.method == "DELETE" && action.effect == Effect::Draft {
            found.push(
                Finding::of(tool, Kind::Effect, "`effect: draft` of a DELETE: drafts need no approval").action(action),
            );
        }
    }
    overlaps(tool, &mut found);
    found
}

/// The most actions that are named as overlapping with one.
const MOST_NAMED: usize = 3;

fn overlaps(tool: &Tool, found: &mut Vec<Finding>) {
    // Two overlap only where each has a variable, and both as many segments.
    let mut alike: BTreeMap<(&str, usize), Vec<(&Action, Shape)>> = BTreeMap::new();
    for action in &tool.actions {
        let shape = shape(&action.template.to_string());
        if shape.iter().any(Option::is_none) {
            alike.entry((action.method.as_str(), shape.len())).or_default().push((action, shape));
        }
    }
    for all in alike.values() {
        for (place, (action, own)) in all.iter().enumerate() {
            let mut others = all.iter().skip(place + 1).filter(|(_, other)| cross(own, other));
            let named = others.by_ref().take(MOST_NAMED).map(|(other, _)| {
                format!(
                    "`{}` and `{}` of `{}` match some of the same requests, and neither says more: the tool may take \
                     one for the other",
                    action.template, other.template, other.id
                )
            });
            let mut messages: Vec<String> = named.collect();
            if others.next().is_some() {
                messages.push(format!("`{}` and more actions match some of the same requests", action.template));
            }
            found.extend(messages.into_iter().map(|message| Finding::of(tool, Kind::Overlap, message).action(action)));
        }
    }
}
