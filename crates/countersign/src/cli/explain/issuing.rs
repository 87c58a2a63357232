//! A token that an authority issued, or refused: for whom, to whom, under what, what policy said of it, and what it says now.

use std::{collections::BTreeSet, fmt::Write};

use audit::{
    Entry,
    rebuild::{self, NotReplayable},
    record::{Issuing, kind},
};
use model::{Id, Reason, Tool};
use policy::{Source, Steering};
use serde_json::{Map, Value, json};

use super::{replay::Policies, text::plain};
use crate::{
    cli::policy::{replay::issuing::issuance, sources},
    environment::Environment,
    failure::Failure,
};

/// Everything that is known of it, as one object.
pub(super) fn explanation(entry: &Entry, policies: Policies<'_>, environment: &Environment) -> Result<Value, Failure> {
    let mut members = Map::new();
    members.insert("kind".to_owned(), entry.kind.clone().into());
    members.insert("time".to_owned(), entry.time.to_string().into());
    members.insert("seq".to_owned(), entry.seq.into());
    for (name, value) in &entry.fields {
        // The record's own names, so that what is read here is found there.
        members.insert(name.clone(), value.clone());
    }
    if !entry.erased.is_empty() {
        members.insert("erased".to_owned(), json!(entry.erased));
    }
    if let Ok(Some(ruling)) = rebuild::issued(entry).map(|issued| issued.policy) {
        // With their words, which the line itself does not hold.
        for (name, reasons) in [("reasons", ruling.reasons), ("withheld", ruling.withheld)] {
            members.insert(name.to_owned(), json!(reasons));
        }
    }
    members.insert("replay".to_owned(), replay(entry, policies, environment)?);
    Ok(Value::Object(members))
}

fn replay(entry: &Entry, policies: Policies<'_>, environment: &Environment) -> Result<Value, Failure> {
    let asked = match rebuild::issuing(entry) {
        Ok(asked) => asked,
        Err(NotReplayable::Unasked(_)) => return Ok(json!({ "rebuilt": false, "refused_before_policy": true })),
        Err(error) => {
            let why = error.to_string();
            let paths = match error {
                NotReplayable::Erased { paths } | NotReplayable::Absent { paths } => paths,
                _ => Vec::new(),
            };
            return Ok(json!({ "rebuilt": false, "not_replayable": paths, "why": why }));
        }
    };
    let sources = match (policies.directory, policies.config) {
        (Some(directory), _) => super::replay::sources_in(directory, &tools(&asked))?,
        (None, Some(config)) => sources::configured(config, None, environment)?.sources,
        (None, None) => {
            let why = "an authority's policies are not kept with its ledger: say --policy or --config";
            return Ok(json!({ "rebuilt": true, "again": null, "no_policy": why }));
        }
    };
    Ok(json!({ "rebuilt": true, "again": again(entry, &asked, &sources)? }))
}

/// Every tool that was asked for.
fn tools(asked: &Issuing) -> BTreeSet<Id<Tool>> {
    asked.requested.elements.iter().flat_map(|element| &element.locations).cloned().collect()
}

fn again(entry: &Entry, asked: &Issuing, sources: &[Source]) -> Result<Value, Failure> {
    let steering = Steering::load(sources).map_err(Failure::configuration)?;
    let issuance = issuance(asked);
    let now = steering.delegate(&issuance);
    let then = rebuild::issued(entry).ok();
    let held = then.as_ref().map(|then| {
        let elements = then.authority.elements.iter();
        elements.flat_map(|element| &element.locations).cloned().collect::<BTreeSet<_>>()
    });
    let policy = then.as_ref().and_then(|then| then.policy.as_ref());
    let codes = |reasons: &[Reason]| -> Vec<(String, String)> {
        reasons.iter().map(|reason| (reason.code.clone(), reason.source.clone())).collect()
    };
    let same_words = policy.is_none_or(|policy| {
        codes(&policy.reasons) == codes(&now.reasons) && codes(&policy.withheld) == codes(&now.withheld)
    });
    let rules = policy::explained_issuing(sources, &issuance).map_err(Failure::configuration)?;
    Ok(json!({
        "tools": now.tools,
        "reasons": now.reasons,
        "withheld": now.withheld,
        "same": held.as_ref() == Some(&now.tools) && same_words,
        "policy_revision": steering.revision(),
        "same_policy": policy.map(|policy| policy.revision.as_str()) == Some(steering.revision()),
        "rules": rules,
    }))
}

/// The same for a person.
pub(super) fn for_person(explanation: &Value) -> String {
    let mut text = String::new();
    let at = |pointer: &str| explanation.pointer(pointer).filter(|value| !value.is_null());
    let issued = at("/kind").and_then(Value::as_str) == Some(kind::TOKEN_ISSUED);
    line(&mut text, "token", if issued { "ISSUED" } else { "REFUSED" });
    for (label, pointer) in [
        ("jti", "/jti"),
        ("time", "/time"),
        ("error", "/error"),
        ("told", "/description"),
        ("ends", "/expires_at"),
        ("narrowed", "/narrowed"),
        ("client", "/client_id"),
        ("audience", "/audience"),
        ("user", "/user/id"),
        ("agent", "/agent/id"),
        ("tenant", "/tenant"),
        ("grant", "/grant_id"),
        ("task", "/task_id"),
        ("run", "/run_id"),
        ("holds", "/authority"),
        ("asked for", "/asked/requested"),
        ("policy revision", "/policy"),
        ("erased", "/erased"),
    ] {
        if let Some(value) = at(pointer) {
            line(&mut text, label, &value.as_str().map_or_else(|| value.to_string(), plain));
        }
    }
    let both = |text: &mut String, of: &Value| {
        reasons(text, "for it", of.get("reasons"));
        reasons(text, "against", of.get("withheld"));
    };
    both(&mut text, explanation);
    text.push_str("\nAgain\n");
    if let Some(why) = at("/replay/why").or_else(|| at("/replay/no_policy")).and_then(Value::as_str) {
        line(&mut text, "asked", &format!("not again: {}", plain(why)));
    }
    if at("/replay/refused_before_policy").is_some() {
        line(&mut text, "asked", "not again: it was refused before policy was asked");
    }
    if let Some(again) = at("/replay/again") {
        let flag = |name: &str| again.get(name).and_then(Value::as_bool) == Some(true);
        let policy = if flag("same_policy") { "the same policy" } else { "another policy revision" };
        let same = if flag("same") { "the same" } else { "DIFFERENT" };
        let tools = again.get("tools").map(Value::to_string).unwrap_or_default();
        line(&mut text, "asked", &format!("good at {tools} by {policy}: {same}"));
        both(&mut text, again);
        let rules = again.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        text.push_str(&super::text::rules_for_person(rules));
    }
    text
}

fn reasons(text: &mut String, label: &str, reasons: Option<&Value>) {
    for reason in reasons.and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| reason.get(name).and_then(Value::as_str).map(plain);
        let mut said = format!("{} by {}", part("code").unwrap_or_default(), part("source").unwrap_or_default());
        for words in [part("message"), part("internal")].into_iter().flatten() {
            said.push_str(&format!(": {words}"));
        }
        line(text, label, &said);
    }
}

fn line(text: &mut String, label: &str, value: &str) {
    // Writing to a string does not fail.
    writeln!(text, "  {label:<18} {value}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_named_cannot_forge_a_line() {
        let text = for_person(&json!({
            "kind": "token.refused",
            "error": "access_denied",
            "description": "no\n  token              ISSUED",
            "replay": { "rebuilt": false, "refused_before_policy": true },
        }));
        assert!(text.contains("REFUSED") && !text.lines().any(|line| line.ends_with("ISSUED")), "{text}");
        assert!(text.contains("it was refused before policy was asked"), "{text}");
    }
}
