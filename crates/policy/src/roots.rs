//! Who may write where: the package root of each kind of source, and the names that belong to the decision.

use regorus::unstable::Span;

use crate::{Problem, Severity, error::End};

/// The package of the library, which the binary brings.
pub(crate) const LIBRARY: [&str; 2] = ["countersign", "lib"];
/// The name of the platform team's source.
pub(crate) const ORG: &str = "org";

/// The code of a problem before the check that found it has said its own.
pub(crate) const UNCODED: &str = "policy";

/// A path of names, without the leading `data`.
pub(crate) type Path = Vec<String>;

/// What packages are asked about. Each question has an input of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A call.
    Calls,
    /// A token that is about to be issued.
    Issuance,
    /// Something that somebody does by the management API.
    Management,
}

impl About {
    pub(crate) const ALL: [Self; 3] = [Self::Calls, Self::Issuance, Self::Management];
}

/// The sets a decision is made from. The names are reserved in every package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    Allow,
    Deny,
    Approval,
    Obligations,
    /// Judged where tokens are issued, never in a call's decision.
    Delegate,
    /// Judged where somebody manages.
    Manage,
}

impl Answer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Allow, Self::Deny, Self::Approval, Self::Obligations, Self::Delegate, Self::Manage];

    /// What it is an answer about.
    pub(crate) const fn about(self) -> About {
        match self {
            Self::Allow | Self::Deny | Self::Approval | Self::Obligations => About::Calls,
            Self::Delegate => About::Issuance,
            Self::Manage => About::Management,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Approval => "approval",
            Self::Obligations => "obligations",
            Self::Delegate => "delegate",
            Self::Manage => "manage",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|answer| answer.name() == name)
    }
}

/// Whose a package is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Library,
    Org,
    Team(String),
}

impl Owner {
    /// The owner that a source's name stands for; `None` where it is no name for one.
    pub(crate) fn of_source(name: &str) -> Option<Self> {
        match name {
            ORG => Some(Self::Org),
            name if is_plain(name) && Answer::named(name).is_none() => Some(Self::Team(name.to_owned())),
            _ => None,
        }
    }

    /// The name of the source that its packages come from; `None` for the library's.
    pub(crate) fn source(&self) -> Option<&str> {
        match self {
            Self::Library => None,
            Self::Org => Some(ORG),
            Self::Team(name) => Some(name),
        }
    }

    /// The root that all of its packages and data lie under.
    pub(crate) fn root(&self) -> Path {
        let parts: &[&str] = match self {
            Self::Library => &LIBRARY,
            Self::Org => &["countersign", ORG],
            Self::Team(name) => &["countersign", "teams", name],
        };
        parts.iter().map(|part| (*part).to_owned()).collect()
    }
}

/// A name that Rego reads without quotes, in lower case: `support_eu`.
pub(crate) fn is_plain(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The path as people write it.
pub(crate) fn dotted(path: &[String]) -> String {
    path.join(".")
}

/// The problem `message` at `span`.
pub(crate) fn problem(span: &Span, message: impl Into<String>, hint: impl Into<Option<String>>) -> Problem {
    let text = span.source.get_contents();
    let (line, column) = place(text, span.start);
    let end = place(text, span.end.max(span.start));
    Problem {
        file: span.source.get_path().clone(),
        line,
        column,
        end: End { line: end.0, column: end.1 },
        severity: Severity::Error,
        code: UNCODED,
        message: message.into(),
        hint: hint.into(),
    }
}

/// Line and column of the byte at `offset`. The engine's own columns count bytes.
fn place(text: &str, offset: u32) -> (u32, u32) {
    let before = usize::try_from(offset).ok().and_then(|offset| text.get(..offset)).unwrap_or(text);
    let (above, line) = before.rsplit_once('\n').unwrap_or(("", before));
    let lines = if before.contains('\n') { above.matches('\n').count() + 2 } else { 1 };
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (number(lines), number(line.chars().count() + 1))
}
