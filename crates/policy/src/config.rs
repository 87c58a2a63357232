//! The `policy` section of a sidecar's configuration: where the packages come from and which tools they are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use model::{Id, Tool, duration::ConfigDuration};
use net::{Plaintext, SecretSource, check_operator_url};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bundle::KeysConfig;

/// One source of policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// Whose policy it is. `org` is the platform team's: package `countersign.org`, for every call, may deny but
    /// never allow. Any other name is a team's: package `countersign.teams.<name>`, for the tools in `for`.
    pub name: String,
    /// The directory that holds the Rego files and data documents, or a bundle of them (`.tar.gz`); relative paths start
    /// at the configuration file. Either this or `bundle`.
    #[serde(default)]
    pub path: PathBuf,
    /// The server that the bundle is fetched from, and asked for changes of. Either this or `path`.
    #[serde(default)]
    pub bundle: Option<BundleConfig>,
    /// Whose signature the bundle has to carry: a key by each name. One that is fetched, or is signed, needs them; a
    /// directory with them has to be an unpacked bundle that is signed.
    #[serde(default)]
    pub keys: Option<KeysConfig>,
    /// The tools that the team decides about. Required for a team, not allowed for `org`.
    #[serde(default, rename = "for")]
    pub tools: Option<BTreeSet<Id<Tool>>>,
    /// Policy that is asked beside it, on the calls as they come, and decides nothing: where it would answer otherwise is
    /// recorded. What is wrong with its rules is said in the status and changes nothing else.
    #[serde(default)]
    pub candidate: Option<CandidateConfig>,
    /// What lies there, which the section of the configuration says that it stands in.
    #[serde(skip)]
    #[schemars(skip)]
    pub kind: SourceKind,
}

/// What a source holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// Rego that decides, and data for it.
    #[default]
    Policy,
    /// The actions of tools, as data.
    Catalogue,
}

impl SourceKind {
    /// The section of the configuration.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Catalogue => "catalogue",
        }
    }
}

/// Policy beside the one that decides, for the same tools.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CandidateConfig {
    /// As `path` of the one that decides. Either this or `bundle`.
    #[serde(default)]
    pub path: PathBuf,
    /// As `bundle` of the one that decides, but that it may be changed while the sidecar runs, has no `max_age`, and is not
    /// kept for a start without its server. Either this or `path`.
    #[serde(default)]
    pub bundle: Option<BundleConfig>,
    /// As `keys` of the one that decides.
    #[serde(default)]
    pub keys: Option<KeysConfig>,
    /// Of a hundred calls, how many it is asked about. With several candidates, the least of them.
    #[serde(default = "all")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: u8,
}

const fn all() -> u8 {
    100
}

/// A bundle on a server. A change of it needs a restart, but for `max_age` and `rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleConfig {
    /// Its URL: https, or http to this machine. No redirect is followed.
    pub url: String,
    /// What the server is shown.
    #[serde(default)]
    pub credential: Option<BundleCredential>,
    /// How often the server is asked whether it changed.
    #[serde(default = "a_minute")]
    pub poll: ConfigDuration,
    /// How long the server may hold an answer back until there is a change (`Prefer: wait`). One that cannot is asked
    /// every `poll`.
    #[serde(default)]
    pub long_poll: Option<ConfigDuration>,
    /// How long the bundle decides without the server having confirmed it. After that, calls that need it are refused
    /// `policy_stale`. Without it, for any time.
    #[serde(default)]
    pub max_age: Option<ConfigDuration>,
    /// The lowest serial that may take the place of a higher one. Without it, none: a server that offers an earlier
    /// bundle is not believed. What is taken so is on record.
    #[serde(default)]
    pub rollback: Option<u64>,
}

/// What a bundle server is shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BundleCredential {
    /// `Authorization: Bearer <secret>`
    Bearer(SecretSource),
}

const fn a_minute() -> ConfigDuration {
    ConfigDuration::seconds(60)
}

/// The least time between two questions to a server, and the longest that one may be held back.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

impl PolicySource {
    /// Takes every relative path from `base`, the directory of the configuration.
    pub fn place(&mut self, base: &Path) {
        place(&mut self.path, self.bundle.as_mut(), self.keys.as_mut(), base);
        if let Some(candidate) = &mut self.candidate {
            place(&mut candidate.path, candidate.bundle.as_mut(), candidate.keys.as_mut(), base);
        }
    }

    /// Its candidate as a source of the same name, for the same tools.
    #[must_use]
    pub fn beside(&self) -> Option<Self> {
        let CandidateConfig { path, bundle, keys, percent: _ } = self.candidate.clone()?;
        Some(Self { path, bundle, keys, candidate: None, ..self.clone() })
    }

    /// Whether its settings go together. Says every one that does not.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.own_problems();
        let beside = self.beside().map(|beside| beside.own_problems()).unwrap_or_default();
        problems.extend(beside.into_iter().map(|problem| format!("candidate: {problem}")));
        if let Some(candidate) = &self.candidate {
            if !(1..=100).contains(&candidate.percent) {
                problems.push("candidate.percent: has to be from 1 to 100".to_owned());
            }
            if candidate.bundle.as_ref().is_some_and(|bundle| bundle.max_age.is_some()) {
                problems.push("candidate.bundle.max_age: what decides nothing refuses nothing for its age".to_owned());
            }
        }
        problems.into_iter().map(|problem| format!("{}.{}: {problem}", self.kind.section(), self.name)).collect()
    }

    fn own_problems(&self) -> Vec<String> {
        let has_path = !self.path.as_os_str().is_empty();
        let Some(bundle) = &self.bundle else {
            return if has_path { Vec::new() } else { vec!["needs `path` or `bundle`".to_owned()] };
        };
        let mut problems = Vec::new();
        if has_path {
            problems.push("has both `path` and `bundle`".to_owned());
        }
        if self.keys.as_ref().is_none_or(BTreeMap::is_empty) {
            problems.push("`bundle` needs `keys`: what is fetched has to be signed".to_owned());
        }
        if let Err(error) = check_operator_url(&bundle.url, Plaintext::LoopbackOnly) {
            problems.push(format!("bundle.url: {error}"));
        }
        if bundle.poll.0 < SHORTEST_POLL {
            problems.push(format!("bundle.poll: may not be shorter than `{}`", ConfigDuration(SHORTEST_POLL)));
        }
        if bundle.long_poll.is_some_and(|wait| !(SHORTEST_POLL..=LONGEST_WAIT).contains(&wait.0)) {
            let (least, most) = (ConfigDuration(SHORTEST_POLL), ConfigDuration(LONGEST_WAIT));
            problems.push(format!("bundle.long_poll: has to be from `{least}` to `{most}`"));
        }
        let between = bundle.poll.0.max(bundle.long_poll.map_or(Duration::ZERO, |wait| wait.0));
        if bundle.max_age.is_some_and(|most| most.0 <= between) {
            problems.push("bundle.max_age: has to be longer than `poll` and `long_poll`".to_owned());
        }
        problems
    }
}

pub(crate) fn place(path: &mut PathBuf, bundle: Option<&mut BundleConfig>, keys: Option<&mut KeysConfig>, base: &Path) {
    // `join` leaves an absolute path as it is. No path is none, and not the directory.
    if !path.as_os_str().is_empty() {
        *path = base.join(&*path);
    }
    for key in keys.into_iter().flat_map(|keys| keys.values_mut()) {
        key.file = base.join(&key.file);
    }
    let credential = bundle.and_then(|bundle| bundle.credential.as_mut());
    if let Some(BundleCredential::Bearer(SecretSource::File(path))) = credential {
        *path = base.join(&*path);
    }
}
