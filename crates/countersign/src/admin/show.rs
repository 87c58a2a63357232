//! A sidecar's state for a person: what decides, what was refused, and whether anything is wrong.

use serde_json::Value;

/// The state in lines.
pub(crate) fn text(status: &Value) -> String {
    let at = |pointer: &str| word(status.pointer(pointer));
    let ready = if status.get("ready") == Some(&Value::Bool(true)) { "ready" } else { "NOT READY" };
    let mut text = format!(
        "{} {}: {ready}, up {} s (process {})\n",
        at("/name"),
        at("/version"),
        at("/uptime_seconds"),
        at("/process_id")
    );
    for (name, check) in status.get("checks").and_then(Value::as_object).into_iter().flatten() {
        if check.get("ok") != Some(&Value::Bool(true)) {
            text.push_str(&format!("  not ready: {name}\n"));
        }
    }
    text.push_str(&format!("configuration  {} since {}\n", at("/configuration/revision"), at("/configuration/since")));
    if let Some(refused) = status.pointer("/configuration/refused").filter(|refused| !refused.is_null()) {
        let (since, why) = (word(refused.get("since")), word(refused.get("why")));
        text.push_str(&format!("  REFUSED since {since}, what is on disk is not in force: {why}\n"));
    }
    text.push_str(&format!("policy         {}\n", at("/policy/revision")));
    for bundle in list(status, "/policy/bundles") {
        text.push_str(&self::bundle(bundle));
    }
    if let Some(candidate) = status.pointer("/policy/candidate").filter(|candidate| !candidate.is_null()) {
        text.push_str(&self::candidate(candidate));
    }
    text.push_str(&format!("catalogue      {} ({})\n", at("/catalogue/revision"), words(status, "/catalogue/tools")));
    for observed in list(status, "/catalogue/observed") {
        let [action, owner, until] = ["action", "owner", "until"].map(|name| word(observed.get(name)));
        let ended = observed.get("ended") == Some(&Value::Bool(true));
        let word = if ended { "enforced since" } else { "OBSERVED ONLY until" };
        text.push_str(&format!("  {action} is {word} {until}, by {owner}\n"));
    }
    for passed in list(status, "/catalogue/passthrough") {
        let [tool, owner, until] = ["tool", "owner", "until"].map(|name| word(passed.get(name)));
        let is = |name: &str| passed.get(name) == Some(&Value::Bool(true));
        let word =
            if is("ended") { "has passed no call through since" } else { "PASSES CALLS WITHOUT A TOKEN THROUGH until" };
        let unmapped = if is("unmapped") && !is("ended") { ", those of no action too" } else { "" };
        text.push_str(&format!("  {tool} {word} {until}, by {owner}{unmapped}\n"));
    }
    let writable = if status.pointer("/ledger/writable") == Some(&Value::Bool(true)) { "" } else { ", NOT WRITABLE" };
    text.push_str(&format!(
        "ledger         {}: {} lines under the last signed head{writable}\n",
        at("/ledger/dir"),
        status.pointer("/ledger/head/size").map_or_else(|| "no".to_owned(), |size| word(Some(size)))
    ));
    text.push_str(&elsewhere(status));
    if status.pointer("/authority").is_some_and(|authority| !authority.is_null()) {
        text.push_str(&followed(status));
    }
    for issuer in list(status, "/issuers") {
        text.push_str(&format!("issuer         {}: {} keys", word(issuer.get("issuer")), word(issuer.get("keys"))));
        match issuer.get("last_error").and_then(Value::as_str) {
            Some(error) => text.push_str(&format!(", the last fetch failed: {error}\n")),
            None => text.push('\n'),
        }
    }
    let bearer = match words(status, "/listeners/agent/plain_bearer") {
        none if none.is_empty() => "not accepted".to_owned(),
        effects => format!("good for: {effects}"),
    };
    text.push_str(&format!("agents         {}; plain bearer {bearer}\n", at("/listeners/agent/address")));
    for agent in list(status, "/listeners/agent/exchanged/agents") {
        text.push_str(&format!("  {} with the key {}\n", word(agent.get("agent")), word(agent.get("key"))));
    }
    if let Some(error) = status.pointer("/listeners/agent/exchanged/last_error").filter(|error| !error.is_null()) {
        text.push_str(&format!("  NO TOKEN could be obtained for them the last time: {}\n", word(Some(error))));
    }
    text
}

/// What is asked beside what decides.
fn candidate(candidate: &Value) -> String {
    let at = |name: &str| word(candidate.get(name));
    let mut text = match candidate.get("since").filter(|since| !since.is_null()) {
        Some(_) => format!(
            "candidate      {} since {}: {} calls compared, {} differ, {} dropped\n",
            at("revision"),
            at("since"),
            at("compared"),
            at("differed"),
            at("dropped")
        ),
        None if candidate.get("same") == Some(&Value::Bool(true)) => {
            "candidate      the same as what decides\n".to_owned()
        }
        None => "candidate      none is asked\n".to_owned(),
    };
    for bundle in list(candidate, "/bundles") {
        text.push_str(&self::bundle(bundle));
    }
    if let Some(refused) = candidate.get("refused").filter(|refused| !refused.is_null()) {
        let (since, why) = (word(refused.get("since")), word(refused.get("why")));
        text.push_str(&format!("  NOT ASKED since {since}, what decides is as it was: {why}\n"));
    }
    text
}

/// One source of policy.
fn bundle(bundle: &Value) -> String {
    let at = |pointer: &str| bundle.pointer(pointer).filter(|value| !value.is_null());
    let from = at("/path").or_else(|| at("/fetched/url"));
    let mut text = format!("  {} from {}", word(at("/package")), word(from));
    for (name, pointer) in [("revision", "/revision"), ("serial", "/serial"), ("signed by", "/signed_by")] {
        if let Some(value) = at(pointer) {
            text.push_str(&format!(", {name} {}", word(Some(value))));
        }
    }
    text.push('\n');
    if at("/fetched/stale") == Some(&Value::Bool(true)) {
        text.push_str(&format!("    STALE, its calls are refused: confirmed {}\n", word(at("/fetched/confirmed"))));
    }
    if let Some(refused) = at("/fetched/refused") {
        let (since, why) = (word(refused.get("since")), word(refused.get("why")));
        text.push_str(&format!("    REFUSED since {since}, what its server has is not in force: {why}\n"));
    }
    if let Some(error) = at("/fetched/last_error") {
        text.push_str(&format!("    THE LAST FETCH FAILED: {}\n", word(Some(error))));
    }
    text
}

/// How much of the ledger the authority has.
fn elsewhere(status: &Value) -> String {
    let mut text = String::new();
    for (name, done) in [("anchored", "the newest head is anchored"), ("shipped", "all of it is shipped")] {
        let Some(known) = status.pointer(&format!("/ledger/{name}")).filter(|known| !known.is_null()) else { continue };
        text.push_str(&match known.get("lag_seconds").and_then(Value::as_f64) {
            Some(lag) if lag > 0.0 => format!("  not {name} for {lag:.1} s"),
            _ => format!("  {done}"),
        });
        if let Some(size) = known.get("size").and_then(Value::as_u64) {
            text.push_str(&format!(", {size} lines"));
        }
        if known.get("refuses_writes") == Some(&Value::Bool(true)) {
            text.push_str(", DRAFTS AND WRITES ARE REFUSED");
        }
        if let Some(error) = known.get("last_error").filter(|error| !error.is_null()) {
            text.push_str(&format!(", THE LAST ATTEMPT FAILED: {}", word(Some(error))));
        }
        text.push('\n');
    }
    text
}

/// How well the authority is followed.
fn followed(status: &Value) -> String {
    let at = |pointer: &str| word(status.pointer(pointer));
    let age = match status.pointer("/authority/staleness_seconds").and_then(Value::as_f64) {
        Some(age) => format!("{age:.1} s old"),
        None => "NOT HEARD YET".to_owned(),
    };
    let (url, held, position) = (at("/authority/url"), at("/authority/withdrawals"), at("/authority/position"));
    let mut text = format!("authority      {url}: {held} withdrawals, {age}, at position {position}");
    if let Some(error) = status.pointer("/authority/last_error").and_then(Value::as_str) {
        text.push_str(&format!(", the last question failed: {}", error.replace(char::is_control, " ")));
    }
    text.push('\n');
    text
}

fn list<'a>(status: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    status.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn words(status: &Value, pointer: &str) -> String {
    list(status, pointer).map(|value| word(Some(value))).collect::<Vec<_>>().join(", ")
}

/// Nothing of what comes over the socket moves the terminal's cursor.
fn word(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_stands_out() {
        let status = json!({
            "name": "support", "version": "0.1.0", "uptime_seconds": 7, "process_id": 1, "ready": false,
            "checks": {"ledger": {"ok": false}, "keys": {"ok": true}},
            "configuration": {"revision": "abc", "since": "2026-03-14T14:32:01Z",
                              "refused": {"since": "2026-03-14T15:00:00Z", "why": "policy: \u{1b}[2Jsupport.rego:3: no"}},
            "policy": {"revision": "def", "bundles": [{"package": "countersign.org", "path": "/etc/org"}]},
            "catalogue": {"revision": "ghi", "tools": ["orders", "customers"], "passthrough": [
                {"tool": "orders", "owner": "dana", "until": "2026-12-31T00:00:00Z", "ended": false, "unmapped": true},
            ]},
            "ledger": {"dir": "/var/ledger", "writable": false, "head": null,
                       "anchored": {"size": 17, "lag_seconds": 0.0, "last_error": null},
                       "shipped": {"lag_seconds": 71.25, "refuses_writes": true, "last_error": "no\u{1b}route"}},
            "issuers": [{"issuer": "https://a.example", "keys": 0, "last_error": "connection refused"}],
            "listeners": {"agent": {"address": "127.0.0.1:8690", "plain_bearer": ["read"], "exchanged": {
                "agents": [{"agent": "support-v2", "key": "k-1"}], "last_error": "no route",
            }}},
        });
        let text = text(&status);
        for part in [
            "NOT READY",
            "not ready: ledger",
            "REFUSED since 2026-03-14T15:00:00Z",
            "support.rego:3",
            "countersign.org from /etc/org",
            "orders, customers",
            "orders PASSES CALLS WITHOUT A TOKEN THROUGH until 2026-12-31T00:00:00Z, by dana, those of no action too\n",
            "NOT WRITABLE",
            "the newest head is anchored, 17 lines\n",
            "not shipped for 71.2 s, DRAFTS AND WRITES ARE REFUSED, THE LAST ATTEMPT FAILED: no route\n",
            "connection refused",
            "plain bearer good for: read",
            "support-v2 with the key k-1",
            "NO TOKEN could be obtained for them the last time: no route",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("not ready: keys"), "{text}");
        assert!(!super::text(&json!({})).is_empty());
    }
}
