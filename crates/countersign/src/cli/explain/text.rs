//! An explanation for a person. Values that others chose are written as JSON, so that they cannot break a line or
//! pass for something else.

use std::fmt::Write;

use model::{Element, Id, Obligation, Principal, chain::Hop};
use serde_json::{Value, json};

pub(super) fn for_person(explanation: &Value) -> String {
    let mut page = Page { explanation, text: String::new() };
    page.head();
    page.people();
    page.call();
    page.why();
    page.candidates();
    page.basis();
    page.replay();
    page.text
}

struct Page<'a> {
    explanation: &'a Value,
    text: String,
}

impl Page<'_> {
    fn head(&mut self) {
        let verdict = self.string("decision").unwrap_or("?").to_uppercase();
        let code = self.string("code").map(|code| format!(" {code}")).unwrap_or_default();
        self.line("decision", &format!("{verdict}{code}"));
        self.member("id", "/decision_id");
        self.member("time", "/time");
        if let Some(meaning) = self.string("meaning").map(str::to_owned) {
            self.line("meaning", &meaning);
        }
        self.member("retry", "/retry");
    }

    fn people(&mut self) {
        self.title("Who");
        let hops: Vec<Hop> =
            self.at("/chain").cloned().and_then(|chain| serde_json::from_value(chain).ok()).unwrap_or_default();
        if hops.is_empty() {
            for (label, pointer) in [("user", "/user"), ("agent", "/agent")] {
                if let Some(principal) = self.principal(pointer) {
                    self.line(label, &principal);
                }
            }
        }
        self.asserted();
        let last = hops.len().saturating_sub(1);
        for (index, hop) in hops.iter().enumerate() {
            let label = match index {
                0 => "for",
                _ if index == last => "by",
                _ => "through",
            };
            self.line(label, &format!("{} ({})", plain(&hop.principal.to_string()), plain(&hop.principal.issuer)));
            self.held(hop);
        }
        for (label, pointer) in [
            ("owner", "/owner"),
            ("tenant", "/tenant"),
            ("grant", "/grant_id"),
            ("task", "/task_id"),
            ("use case", "/task/use_case"),
            ("stage", "/task/stage"),
            ("run", "/run_id"),
            ("token ends", "/token_facts/expires_at"),
            ("sender", "/sender"),
        ] {
            self.member(label, pointer);
        }
    }

    /// Whom nobody verified, of a call that was passed through.
    fn asserted(&mut self) {
        if self.at("/passthrough").is_none() {
            return;
        }
        self.line("verified", "nobody: the call was passed through with the agent's own credential");
        self.member("said to be for", "/asserted/user");
        self.member("said to be by", "/asserted/agent");
        self.member("sent by", "/connection");
        self.member("credential", "/passthrough/credential");
        self.member("answers for it", "/passthrough/owner");
        self.member("until", "/passthrough/until");
    }

    /// What a principal of the chain held that this call could be within.
    fn held(&mut self, hop: &Hop) {
        let Some(authority) = &hop.authority else {
            return self.line("  holding", "what the one before it held (named in nested `act` only)");
        };
        let action = self.string("action").map(str::to_owned);
        let about = |element: &&Element| {
            action.as_deref().is_none_or(|action| element.actions.iter().any(|named| named.as_str() == action))
        };
        let held: Vec<String> = authority.elements.iter().filter(about).map(element_text).collect();
        if held.is_empty() {
            self.line("  holding", "nothing for this action");
        }
        for line in held {
            self.line("  holding", &line);
        }
    }

    fn call(&mut self) {
        self.title("What");
        for (label, pointer) in [
            ("tool", "/tool"),
            ("action", "/action"),
            ("effect", "/effect"),
            ("resource", "/resource"),
            ("method", "/method"),
            ("path", "/path"),
        ] {
            self.member(label, pointer);
        }
        for (name, value) in members(self.at("/parameters")) {
            let value = value.pointer("/value/value").unwrap_or(&value).clone();
            self.line("parameter", &format!("{} = {value}", plain(&name)));
        }
    }

    fn why(&mut self) {
        self.title("Why");
        self.member("stage reached", "/stage_reached");
        self.member("told", "/explanation/detail");
        self.member("internally", "/explanation/internal");
        self.member("limiting hop", "/explanation/limiting_hop");
        self.member("allowed", "/explanation/allowed");
        self.member("missing scope", "/explanation/missing_scope");
        let reasons = self.at("/reasons").and_then(Value::as_array).cloned().unwrap_or_default();
        for reason in reasons {
            let part = |name: &str| reason.get(name).and_then(Value::as_str).map(plain);
            let mut line = format!("{} by {}", part("code").unwrap_or_default(), part("source").unwrap_or_default());
            for words in [part("message"), part("internal")].into_iter().flatten() {
                line.push_str(&format!(": {words}"));
            }
            self.line("reason", &line);
        }
        self.obligations();
    }

    /// What the decision obliges to, and whose word that is.
    fn obligations(&mut self) {
        let obligations = self.at("/obligations").and_then(Value::as_array).cloned().unwrap_or_default();
        for written in &obligations {
            let part = |name: &str| written.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
            // Without what lies beside the line, its kind is known.
            let duty = match serde_json::from_value::<Obligation>(written.clone()) {
                Ok(obligation) => plain(&obligation.duty.to_string()),
                Err(_) => part("duty"),
            };
            self.line("obliges to", &format!("{duty} ({} by {})", part("code"), part("source")));
        }
        if !obligations.is_empty() && self.string("mode") == Some("observe") {
            self.line("  carried out", "no: the action is only observed");
        }
    }

    /// What a policy candidate would have answered.
    fn candidates(&mut self) {
        let candidates = self.at("/candidates").and_then(Value::as_array).cloned().unwrap_or_default();
        for candidate in candidates {
            let part = |name: &str| candidate.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
            let mut line = format!("{} {}", part("decision").to_uppercase(), part("code"));
            let reasons = candidate.get("reasons").and_then(Value::as_array).cloned().unwrap_or_default();
            for (index, reason) in reasons.iter().enumerate() {
                let part = |name: &str| reason.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
                line.push_str(&format!(", {} by {}", part("code"), part("source")));
                let words = candidate.get("words").and_then(|words| words.get(index));
                let word = |name: &str| words?.get(name)?.as_str().map(plain);
                if let Some(said) = word("message").or_else(|| word("internal")) {
                    line.push_str(&format!(": {said}"));
                }
            }
            self.line("candidate", &format!("would have said {} (revision {})", line.trim(), part("revision")));
        }
    }

    fn basis(&mut self) {
        self.title("On what");
        for (name, leaves) in members(self.at("/facts")) {
            self.line("fact", &format!("{} = {leaves}", plain(&name)));
        }
        let limits = self.at("/limits").and_then(Value::as_array).cloned().unwrap_or_default();
        for limit in limits {
            self.line("limit", &limit.to_string());
        }
        let charged = self.at("/charge/limits").and_then(Value::as_array).cloned().unwrap_or_default();
        for limit in charged {
            let part = |pointer: &str| limit.pointer(pointer).and_then(Value::as_str).map(plain).unwrap_or_default();
            let amount = [part("/amount/text"), part("/amount/currency")].join(" ");
            self.line("charged", &format!("{} to {}, window from {}", amount.trim(), part("/name"), part("/starts")));
        }
        self.member("charged with", "/charge/repeats");
        for (name, value) in members(self.at("/revisions")) {
            self.line(&format!("{name} revision"), value.as_str().map(plain).unwrap_or_default().as_str());
        }
        self.member("trace", "/trace_id");
        self.member("span", "/span_id");
        if let Some(settled) = self.at("/settled").cloned() {
            let outcome = settled.get("outcome").and_then(Value::as_str).unwrap_or("?");
            let status = settled.get("status").map(|status| format!(" with status {status}")).unwrap_or_default();
            self.line("outcome", &format!("{outcome}{status}"));
            self.member("charge", "/settled/charge");
            for (place, count) in members(self.at("/settled/redacted")) {
                self.line("altered", &format!("{} made null, {count} times", plain(&place)));
            }
            self.member("withheld", "/settled/withheld");
        }
        self.member("erased", "/erased");
    }

    fn replay(&mut self) {
        self.title("Again");
        let Some(replay) = self.at("/replay").cloned() else { return };
        if let Some(stage) = replay.get("refused_before_policy_at").and_then(Value::as_str) {
            return self.line("input", &format!("none: refused at {stage}, before policy was asked"));
        }
        if replay.get("passed_through").and_then(Value::as_bool) == Some(true) {
            return self.line("input", "none: the call was passed through, and nothing was evaluated");
        }
        if let Some(paths) = replay.get("not_replayable") {
            let why = replay.get("why").and_then(Value::as_str).unwrap_or_default();
            return self.line("input", &format!("not replayable: {paths} ({why})"));
        }
        let input = match replay.get("same_input").and_then(Value::as_bool) {
            Some(true) => "rebuilt from the ledger, byte for byte",
            Some(false) => "rebuilt from the ledger, and NOT what was recorded of it",
            None => "rebuilt from the ledger; no digest of it was recorded",
        };
        self.line("input", input);
        let Some(again) = replay.get("again").filter(|again| !again.is_null()) else {
            let why = replay.get("no_policy").and_then(Value::as_str).unwrap_or_default();
            return self.line("decided", &format!("not again: {}", plain(why)));
        };
        let flag = |name: &str| again.get(name).and_then(Value::as_bool) == Some(true);
        let policy = if flag("same_policy") { "the same policy" } else { "another policy revision" };
        let same = if flag("same") { "the same" } else { "DIFFERENT" };
        let verdict = again.get("decision").and_then(Value::as_str).unwrap_or("?").to_uppercase();
        let code = again.get("code").and_then(Value::as_str).map(|code| format!(" {code}")).unwrap_or_default();
        self.line("decided", &format!("{verdict}{code} by {policy}: {same}"));
        let text = |name: &str| again.get(name).and_then(Value::as_str).map(plain);
        let from = text("policy_from").unwrap_or_default();
        self.line("policy from", &from);
        if from == "the ledger" && !flag("same_policy") {
            // It was found by the revision that decided.
            self.line("revision", "kept as the one that decided, and another now: of another build, or changed since");
        }
        if let Some(binary) = text("binary") {
            let now = env!("CARGO_PKG_VERSION");
            self.line("program", &format!("{binary} decided; the engine and the library are those of {now}"));
        }
        self.rules(again.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default());
    }

    /// What became of each rule, and of one that was not true what each of its bodies stopped at.
    fn rules(&mut self, rules: &[Value]) {
        if rules.is_empty() {
            return;
        }
        self.title("Rules");
        for rule in rules {
            let part = |pointer: &str| rule.pointer(pointer).map(shown).unwrap_or_default();
            let stops = rule.pointer("/outcome/stopped").and_then(Value::as_array);
            let word = match rule.get("outcome").and_then(Value::as_str) {
                Some("true") => "true",
                Some(_) => "not asked",
                None => "not true",
            };
            let code = rule.get("code").and_then(Value::as_str).map(|code| format!(" {}", plain(code)));
            let (code, place) = (code.unwrap_or_default(), format!("{}:{}", part("/place/file"), part("/place/line")));
            self.line(word, &format!("{}{code}  ({place})", part("/rule")));
            for stop in stops.into_iter().flatten() {
                let part = |pointer: &str| stop.pointer(pointer).map(shown).unwrap_or_default();
                self.line("  stopped at", &format!("line {}: {}", part("/place/line"), part("/text")));
                for (name, value) in members(stop.get("values")) {
                    self.line("    where", &format!("{} = {}", plain(&name), shown(&value)));
                }
            }
        }
    }

    fn title(&mut self, title: &str) {
        // Writing to a string does not fail.
        write!(self.text, "\n{title}\n").ok();
    }

    fn line(&mut self, label: &str, value: &str) {
        writeln!(self.text, "  {label:<18} {value}").ok();
    }

    fn member(&mut self, label: &str, pointer: &str) {
        let value = match self.at(pointer) {
            None | Some(Value::Null) => return,
            Some(Value::String(text)) => plain(text),
            Some(value) => value.to_string(),
        };
        self.line(label, &value);
    }

    fn principal(&self, pointer: &str) -> Option<String> {
        let principal: Principal = serde_json::from_value(self.at(pointer)?.clone()).ok()?;
        Some(format!("{} ({})", plain(&principal.to_string()), plain(&principal.issuer)))
    }

    fn string(&self, name: &str) -> Option<&str> {
        self.explanation.get(name)?.as_str()
    }

    fn at(&self, pointer: &str) -> Option<&Value> {
        self.explanation.pointer(pointer)
    }
}

fn element_text(element: &Element) -> String {
    let names = |names: Vec<&str>| names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "{} at {} on {}",
        names(element.actions.iter().map(Id::as_str).collect()),
        names(element.locations.iter().map(Id::as_str).collect()),
        plain(&element.identifier.to_string())
    );
    let limits = json!(element.limits);
    if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
        text.push_str(&format!(", limits {limits}"));
    }
    if !element.relations.is_empty() {
        text.push_str(&format!(", where {}", json!(element.relations)));
    }
    text
}

fn members(value: Option<&Value>) -> Vec<(String, Value)> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A value as [`plain`] text.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), plain)
}

/// What became of each of `rules`.
pub(super) fn rules_for_person(rules: &[Value]) -> String {
    let mut page = Page { explanation: &Value::Null, text: String::new() };
    page.rules(rules);
    page.text
}

/// `text` as it is where it is harmless, else as a JSON string.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_graphic() || c == ' ' || (c.is_alphanumeric() && !c.is_ascii());
    if text.chars().all(harmless) {
        return text.to_owned();
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_line_of_the_explanation() {
        let text = for_person(&json!({
            "decision": "deny",
            "code": "policy_denied",
            "resource": "orders/1\n  decision         PERMIT",
            "explanation": { "detail": "a\u{202E}b" },
            "replay": { "rebuilt": false, "refused_before_policy_at": "guard" },
        }));
        assert!(
            !text.lines().any(|line| line.trim_start().starts_with("decision") && line.contains("PERMIT")),
            "{text}"
        );
        assert!(!text.contains('\u{202E}'), "{text}");
        assert!(text.contains("DENY policy_denied") && text.contains("refused at guard"), "{text}");
    }

    #[test]
    fn what_was_kept_as_the_policy_that_decided_and_has_another_revision_now_is_said_to() {
        let decided = |same_policy: bool, from: &str| {
            let again = json!({ "decision": "permit", "same": true, "same_policy": same_policy, "policy_from": from });
            let replay = json!({ "rebuilt": true, "same_input": true, "again": again });
            for_person(&json!({ "decision": "permit", "replay": replay }))
        };
        let why = "of another build, or changed since";
        let other = decided(false, "the ledger");
        assert!(other.contains("by another policy revision: the same") && other.contains(why), "{other}");
        for text in [decided(true, "the ledger"), decided(false, "the directory")] {
            assert!(!text.contains(why), "{text}");
        }
    }
}
