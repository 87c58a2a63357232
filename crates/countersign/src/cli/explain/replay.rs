//! Deciding again: the question is put together from its records, compared with what was recorded of it, and, where
//! a policy is at hand, asked once more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use audit::{
    Entry,
    query::Found,
    rebuild::{self, NotReplayable},
    record::Digest,
};
use model::{
    Action, CanonicalPath, Catalogue, Decision, Id, Question, Tool, catalogue::IdentityMode, template::Template,
};
use policy::{Engine, RuleTrace, Source};
use serde_json::{Value, json};

use crate::{
    cli::policy::sources,
    environment::Environment,
    failure::{Exit, Failure},
    run::kept::Kept,
};

/// The policies to decide by again, where there are any.
#[derive(Clone, Copy)]
pub(super) struct Policies<'a> {
    /// A directory of sources; it wins.
    pub(super) directory: Option<&'a Path>,
    /// The ledger's, where those that decided are kept.
    pub(super) ledger: Option<&'a Path>,
    /// A configuration that names them.
    pub(super) config: Option<&'a Path>,
}

/// What became of putting a decision together again.
pub(super) enum Replay {
    /// The question is what it was, byte for byte, as far as a digest of it was recorded.
    Rebuilt {
        /// Whether the input has the recorded digest; `None` where none was recorded.
        same_input: Option<bool>,
        /// What policy says now.
        again: Result<Box<Again>, NoPolicy>,
    },
    /// Policy was never asked.
    Unasked {
        /// The stage that refused.
        stage: String,
    },
    /// The call was passed through: nothing was evaluated, and nobody verified.
    Passed,
    /// Something of it is gone.
    NotReplayable {
        /// Which members, as JSON pointers.
        paths: Vec<String>,
        /// The same for a person.
        why: String,
    },
}

/// Why nothing could decide again: no policy is at hand, or the one that decided cannot be read.
pub(super) struct NoPolicy(String);

/// A second decision on the same question.
pub(super) struct Again {
    decision: Decision,
    /// Whether verdict, code and the reasons' codes are what was recorded.
    same: bool,
    /// Whether it is the very policy that decided then.
    same_revision: bool,
    revision: String,
    /// Where the policies are from.
    from: &'static str,
    /// The version of the program that decided by them then, where it is another one.
    binary: Option<String>,
    /// What became of each rule.
    rules: Vec<RuleTrace>,
}

impl Again {
    fn to_json(&self) -> Value {
        json!({
            "decision": self.decision.verdict.as_str(),
            "code": self.decision.code,
            "reasons": self.decision.reasons,
            "obligations": self.decision.obligations,
            "same": self.same,
            "policy_revision": self.revision,
            "same_policy": self.same_revision,
            "policy_from": self.from,
            "binary": self.binary,
            "rules": self.rules,
        })
    }
}

/// Policies to decide by again.
struct Loaded {
    sources: Vec<Source>,
    catalogue: Catalogue,
    from: &'static str,
    binary: Option<String>,
}

impl Replay {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Rebuilt { same_input, again } => {
                let (again, why) = match again {
                    Ok(again) => (Some(again.to_json()), None),
                    Err(NoPolicy(why)) => (None, Some(why)),
                };
                json!({ "rebuilt": true, "same_input": same_input, "again": again, "no_policy": why })
            }
            Self::Unasked { stage } => json!({ "rebuilt": false, "refused_before_policy_at": stage }),
            Self::Passed => json!({ "rebuilt": false, "passed_through": true }),
            Self::NotReplayable { paths, why } => json!({ "rebuilt": false, "not_replayable": paths, "why": why }),
        }
    }
}

pub(super) fn replay(found: &Found, policies: Policies<'_>, environment: &Environment) -> Result<Replay, Failure> {
    let decided = &found.decided;
    if rebuild::is_passed_through(decided) {
        return Ok(Replay::Passed);
    }
    let question = match &found.token_seen {
        Some(token) => rebuild::question(decided, token),
        None => Err(NotReplayable::Unasked(decided.text("stage_reached").unwrap_or("admit").to_owned())),
    };
    let question = match question {
        Ok(question) => question,
        Err(NotReplayable::Unasked(stage)) => return Ok(Replay::Unasked { stage }),
        Err(NotReplayable::Erased { paths } | NotReplayable::Absent { paths }) => {
            return Ok(Replay::NotReplayable { paths, why: "values were erased".to_owned() });
        }
        Err(error @ (NotReplayable::OtherToken | NotReplayable::Unreadable(_))) => {
            return Ok(Replay::NotReplayable { paths: Vec::new(), why: error.to_string() });
        }
    };
    let input = policy::input::canonical_json(&question)
        .map_err(|error| Failure::because(Exit::Failed, "the input cannot be written", error))?;
    let same_input = rebuild::input_digest(decided).map(|recorded| Digest::of(&input).text() == recorded);
    let again = match loaded(decided, policies, &question, environment)? {
        Ok(loaded) => Ok(Box::new(decide_again(found, loaded, &question)?)),
        Err(none) => Err(none),
    };
    Ok(Replay::Rebuilt { same_input, again })
}

/// The policies to decide by again: those that were named, else those that decided, else those in force.
fn loaded(
    decided: &Entry,
    policies: Policies<'_>,
    question: &Question,
    environment: &Environment,
) -> Result<Result<Loaded, NoPolicy>, Failure> {
    if let Some(directory) = policies.directory {
        return from_directory(directory, question).map(Ok);
    }
    let kept = policies.ledger.and_then(|ledger| Kept::of(ledger, recorded_revision(decided)?).transpose());
    let why = match kept {
        Some(Ok(kept)) => return from_ledger(kept).map(Ok),
        Some(Err(error)) => error.to_string(),
        None if policies.ledger.is_none() => {
            "the policies lie beside the sidecar's own ledger, and are not shipped: say --policy or --config".to_owned()
        }
        None => "the policies that decided are not kept with the ledger".to_owned(),
    };
    match policies.config {
        Some(config) => from_config(config, environment).map(Ok),
        None => Ok(Err(NoPolicy(why))),
    }
}

fn recorded_revision(decided: &Entry) -> Option<&str> {
    decided.fields.get("revisions")?.get("policy")?.as_str()
}

fn decide_again(found: &Found, loaded: Loaded, question: &Question) -> Result<Again, Failure> {
    let Loaded { sources, catalogue, from, binary } = loaded;
    let engine = Engine::load(&sources, &catalogue).map_err(Failure::configuration)?;
    let decision = engine.decide(question);
    let codes =
        |decision: &Decision| -> Vec<String> { decision.reasons.iter().map(|reason| reason.code.clone()).collect() };
    let same = rebuild::decision(&found.decided).is_ok_and(|then| {
        then.verdict == decision.verdict
            && then.code == decision.code
            && codes(&then) == codes(&decision)
            && then.obligations == decision.obligations
    });
    let revision = engine.revision().to_owned();
    let same_revision = recorded_revision(&found.decided) == Some(revision.as_str());
    let rules = policy::explained(&sources, &catalogue, question).map_err(Failure::configuration)?;
    Ok(Again { decision, same, same_revision, revision, from, binary, rules })
}

/// The policies that decided, as they are kept with the ledger.
fn from_ledger(kept: Kept) -> Result<Loaded, Failure> {
    let catalogue = kept.catalogue().map_err(Failure::configuration)?;
    let binary = Some(kept.binary).filter(|binary| binary != env!("CARGO_PKG_VERSION"));
    Ok(Loaded { sources: kept.sources, catalogue, from: "the ledger", binary })
}

/// The policies of a sidecar's configuration.
fn from_config(path: &Path, environment: &Environment) -> Result<Loaded, Failure> {
    let sources::Policies { sources, catalogue } = sources::configured(path, None, environment)?;
    let catalogue = catalogue
        .ok_or_else(|| Failure::new(Exit::Usage, format!("{}: an authority decides no calls", path.display())))?;
    Ok(Loaded { sources, catalogue, from: "the configuration", binary: None })
}

/// One source a subdirectory; every team's is bound to the tool that the question is about.
fn from_directory(directory: &Path, question: &Question) -> Result<Loaded, Failure> {
    let sources = sources_in(directory, &[question.call.tool.clone()].into())?;
    let catalogue = catalogue_of(question).map_err(Failure::configuration)?;
    Ok(Loaded { sources, catalogue, from: "the directory", binary: None })
}

/// One source a subdirectory, every team's bound to `tools`.
pub(super) fn sources_in(directory: &Path, tools: &BTreeSet<Id<Tool>>) -> Result<Vec<Source>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::because(Exit::Usage, format!("cannot read {}", directory.display()), error);
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(directory).map_err(unreadable)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        let tools = (name != "org").then(|| tools.clone());
        sources.push(Source::read(name, &folder, tools).map_err(Failure::configuration)?);
    }
    Ok(sources)
}

/// As much of a catalogue as the question names.
fn catalogue_of(question: &Question) -> Result<Catalogue, Box<dyn std::error::Error + Send + Sync>> {
    let call = &question.call;
    let action = Action {
        id: call.action.clone(),
        method: question.request.method.clone(),
        template: Template::parse("/")?,
        effect: call.effect,
        resource: Template::parse("resource")?,
        facts: Vec::new(),
        parameters: BTreeMap::new(),
        additional: false,
        idempotency: None,
    };
    let tool = Tool {
        id: call.tool.clone(),
        at: CanonicalPath::parse("/tool")?,
        upstream: String::new(),
        tenants: None,
        identity: IdentityMode::ServiceAccount,
        facts: BTreeMap::new(),
        actions: vec![action],
    };
    Ok(Catalogue::new(vec![tool], "explained".to_owned())?)
}
