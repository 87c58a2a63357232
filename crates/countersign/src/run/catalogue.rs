//! The tools as calls meet them: where each is, as the configuration says; what may be done there, as that says too or a
//! source of the catalogue does, never both. Policy is held against all of it together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use model::{Action, CanonicalPath, Catalogue, Id, Tool};
use opentelemetry::{KeyValue, global};
use policy::{
    Engine, Problem, Severity, Source,
    bundle::Origin,
    catalogue::{CatalogueSource, actions},
    config::SourceKind,
    refresh::Freshness,
};
use proxy::{
    Sidecar,
    config::{ActionConfig, ToolConfig},
};
use serde_json::Value;

use super::reload::Standing;
use crate::config::sidecar::SidecarConfig;

/// The tools, by name.
pub(crate) type Tools = BTreeMap<Id<Tool>, ToolConfig>;

/// The actions of one of them, by name.
pub(crate) type Actions = BTreeMap<Id<Action>, ActionConfig>;

/// The method of an action that is there no more: none that anybody can send.
const REMOVED: &str = "-";
/// The most that is said of policy that a catalogue breaks.
const MOST_SAID: usize = 5;
/// The longest that is repeated of what somebody else wrote, in characters.
const LONGEST: usize = 400;

/// Everything about the sources of the catalogue that does not go together with the rest of `config`.
pub(crate) fn problems(config: &SidecarConfig) -> Vec<String> {
    let mut problems: Vec<String> = config.catalogue.iter().flat_map(CatalogueSource::problems).collect();
    let mut names: BTreeSet<&str> = config.policy.iter().map(|source| source.name.as_str()).collect();
    let mut owned: BTreeMap<&Id<Tool>, &str> = BTreeMap::new();
    for CatalogueSource { name, tools, .. } in &config.catalogue {
        if !names.insert(name) {
            problems.push(format!(
                "catalogue.{name}: another source of policy or of the catalogue has the name; pins and what is kept go by it"
            ));
        }
        for tool in tools {
            match config.tools.get(tool) {
                None => {
                    problems.push(format!("catalogue.{name}: `for` names the tool `{tool}`, which is not configured"));
                }
                Some(known) if !known.actions.is_empty() => problems.push(format!(
                    "tools.{tool}.actions: the catalogue's source `{name}` says them; they stand in one place alone"
                )),
                Some(_) => {}
            }
            if let Some(other) = owned.insert(tool, name) {
                problems.push(format!("catalogue.{name}: the tool `{tool}` is in the `for` of `{other}` too"));
            }
        }
    }
    problems
}

/// The tools whose actions sources of the catalogue say.
pub(crate) fn owned(config: &SidecarConfig) -> BTreeSet<Id<Tool>> {
    config.catalogue.iter().flat_map(|source| source.tools.iter().cloned()).collect()
}

/// The tools of `config` with the actions that the catalogue among `sources` says.
///
/// # Errors
/// Where that is none. Says the action.
pub(crate) fn tools(config: &SidecarConfig, sources: &[(Source, Origin)]) -> Result<Tools, String> {
    let mut tools = config.tools.clone();
    for (source, _) in sources.iter().filter(|(_, origin)| origin.kind == SourceKind::Catalogue) {
        let said = typed(source).map_err(|why| format!("catalogue.{}: {why}", source.name))?;
        for (tool, actions) in said {
            // Whose tools they are was looked at when it was opened, and may be others now.
            let ours = source.tools.as_ref().is_some_and(|tools| tools.contains(&tool));
            let known = tools.get_mut(&tool).filter(|_| ours);
            known.ok_or_else(|| format!("catalogue.{}: `{tool}` is none of its tools", source.name))?.actions = actions;
        }
    }
    Ok(tools)
}

/// What `source` says, as configuration would have it.
///
/// # Errors
/// Says the action.
pub(crate) fn typed(source: &Source) -> Result<BTreeMap<Id<Tool>, Actions>, String> {
    let mut all = BTreeMap::new();
    for (tool, said) in actions(source).map_err(|error| plain(&error.to_string()))? {
        let mut actions = BTreeMap::new();
        for (name, action) in said {
            let wrong = |error: String| plain(&format!("data.catalogue.{tool}.actions.{name}: {error}"));
            let id = Id::new(&name).map_err(|error| wrong(error.to_string()))?;
            let action: Value = action;
            actions.insert(id, serde_json::from_value(action).map_err(|error| wrong(error.to_string()))?);
        }
        all.insert(tool, actions);
    }
    Ok(all)
}

/// Errors repeat what somebody else wrote.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// The policies among `sources`. Their data is shared and not copied.
pub(crate) fn policies(sources: &[(Source, Origin)]) -> Vec<Source> {
    let policies = sources.iter().filter(|(_, origin)| origin.kind == SourceKind::Policy);
    policies.map(|(source, _)| source.clone()).collect()
}

/// `engine`, of which refuses what needs a bundle that grew too old: one that decides, or one that says what the call is.
pub(super) fn expiring(
    engine: Engine,
    sources: &[(Source, Origin)],
    freshness: &BTreeMap<String, Arc<Freshness>>,
) -> Engine {
    let catalogues = sources.iter().filter(|(_, origin)| origin.kind == SourceKind::Catalogue);
    catalogues.fold(engine.expiring(freshness), |engine, (source, _)| {
        match (freshness.get(&source.name), &source.tools) {
            (Some(freshness), Some(tools)) => engine.expiring_with(&source.name, tools, freshness),
            _ => engine,
        }
    })
}

/// Why `after` may not take the place of `before`, of which the tools `owned` come from sources of their own: what it makes
/// of `policies` says something else than what they say. An action that is there no more is no reason, as a rule about it
/// only never comes true; but where rules name one whose requests are now another's, that was there before, they would be
/// let through as that.
///
/// # Errors
/// Says the rules.
pub(super) fn held_against(
    policies: &[Source],
    before: &Catalogue,
    after: &Catalogue,
    owned: &BTreeSet<Id<Tool>>,
) -> Result<(), String> {
    let errors = |catalogue: &Catalogue| -> Vec<Problem> {
        let found = policy::check(policies, Some(catalogue)).unwrap_or_default();
        found.into_iter().filter(|problem| problem.severity == Severity::Error).collect()
    };
    let known =
        errors(&Catalogue::new(earlier(before, after, owned), String::new()).unwrap_or_else(|_| before.clone()));
    let kept = Catalogue::new(with_removed(before, after, owned), String::new());
    let found = errors(kept.as_ref().unwrap_or(after));
    // Its words and hints may name what else there is, and so change with that.
    let place = |problem: &Problem| (problem.file.clone(), problem.line, problem.column, problem.code);
    let known: BTreeSet<_> = known.iter().map(place).collect();
    let news: Vec<String> =
        found.iter().filter(|problem| !known.contains(&place(problem))).map(ToString::to_string).collect();
    if news.is_empty() {
        return Ok(());
    }
    let more = news.len().saturating_sub(MOST_SAID);
    let said = news.into_iter().take(MOST_SAID).collect::<Vec<_>>().join("; ");
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Err(format!("policy that decides would no longer mean what it says: {said}{more}"))
}

/// The tools of `after`, those `owned` as they were `before`.
fn earlier(before: &Catalogue, after: &Catalogue, owned: &BTreeSet<Id<Tool>>) -> Vec<Tool> {
    let of = |tool: &Tool| before.tool(&tool.id).filter(|_| owned.contains(&tool.id)).cloned();
    after.tools().iter().map(|tool| of(tool).unwrap_or_else(|| tool.clone())).collect()
}

/// The tools of `after`, with the actions that those `owned` had `before` and have no more. Those whose requests became
/// another's are not kept.
fn with_removed(before: &Catalogue, after: &Catalogue, owned: &BTreeSet<Id<Tool>>) -> Vec<Tool> {
    let there: BTreeSet<&Id<Action>> =
        after.tools().iter().flat_map(|tool| tool.actions.iter().map(|action| &action.id)).collect();
    let with = |tool: &Tool| {
        let mut tool = tool.clone();
        let known = before.tool(&tool.id).filter(|_| owned.contains(&tool.id));
        let Some(known) = known else { return tool };
        let gone = known.actions.iter().filter(|action| !there.contains(&action.id));
        let gone: Vec<Action> = gone
            .filter(|action| !is_taken_over(action, known, &tool))
            .map(|action| Action { method: REMOVED.to_owned(), ..action.clone() })
            .collect();
        tool.actions.extend(gone);
        tool
    };
    after.tools().iter().map(with).collect()
}

/// A segment that no action names.
const ANY: &str = "-any-";

/// Whether a request that was the action `gone` of the tool `before` is now another action that was there before: whoever
/// may do that has a grant for it, and needs no new one. What is new is in nobody's grant.
fn is_taken_over(gone: &Action, before: &Tool, after: &Tool) -> bool {
    let any = gone.template.variables().map(|name| (name.to_owned(), ANY.to_owned())).collect();
    let path = gone.template.fill_path(&any).and_then(|path| CanonicalPath::parse(&path).ok());
    let taker = path.and_then(|path| after.action_for(&gone.method, &path).map(|(action, _)| &action.id));
    taker.is_some_and(|taker| before.actions.iter().any(|action| action.id == *taker))
}

/// What the metrics show of the catalogue in force.
pub(super) fn gauge(sidecar: &Arc<Sidecar>, standing: &Arc<Standing>) {
    // Meters live as long as the process, and a sidecar may end before it.
    let seen: (Weak<Sidecar>, Weak<Standing>) = (Arc::downgrade(sidecar), Arc::downgrade(standing));
    let _info = global::meter("countersign")
        .u64_observable_gauge("countersign_catalogue_info")
        .with_description("Always 1; the labels say which bundles say actions of tools, and the catalogue's revision")
        .with_callback(move |observer| {
            let Some((sidecar, standing)) = seen.0.upgrade().zip(seen.1.upgrade()) else { return };
            let revision = sidecar.snapshot().catalogue().revision().to_owned();
            for name in standing.catalogue() {
                observer.observe(1, &[KeyValue::new("bundle", name), KeyValue::new("revision", revision.clone())]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests;
