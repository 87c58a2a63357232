//! The only place that turns a refusal into HTTP (DESIGN §5.3): problem details (RFC 9457), the challenge that the
//! code calls for (RFC 6750), and whether and when to try again.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use model::{Code, Id, Refusal, Retry, id::DecisionMark, id::Run};
use net::Body;
use serde::Serialize;

/// The field that names the decision in every response.
pub(crate) const DECISION_ID: HeaderName = HeaderName::from_static("countersign-decision-id");

/// Seconds to wait where a condition passes by itself.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// Seconds to wait for room: calls end quickly.
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// What a response says of the call beside the refusal itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) id: &'a Id<DecisionMark>,
    /// The run, once a token proved it.
    pub(crate) run: Option<&'a Id<Run>>,
    /// Whether the tool may have received the call.
    pub(crate) sent: bool,
}

/// The body of a refusal.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    status: u16,
    title: &'static str,
    detail: &'a str,
    code: Code,
    decision_id: &'a Id<DecisionMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a Id<Run>>,
    sent: bool,
    retry: Retry,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limiting_hop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_scope: Vec<&'a str>,
}

/// A reason as the agent may see it: never its `internal`.
#[derive(Serialize)]
struct Told<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    source: &'a str,
}

/// The response to a refused call.
pub(crate) fn response(refusal: &Refusal, about: About<'_>) -> Response<Body> {
    let entry = refusal.code.entry();

    let problem = Problem {
        r#type: format!("urn:countersign:denial:{}", refusal.code),
        status: entry.status,
        title: entry.title,
        detail: &refusal.detail,
        code: refusal.code,
        decision_id: about.id,
        run_id: about.run,
        sent: about.sent,
        retry: refusal.retry,
        reasons: refusal
            .reasons
            .iter()
            .map(|reason| Told { code: &reason.code, message: reason.message.as_deref(), source: &reason.source })
            .collect(),
        limiting_hop: refusal.limiting_hop.as_deref(),
        allowed: refusal.allowed.as_ref(),
        approval: (refusal.code == Code::ApprovalRequired).then_some(serde_json::Value::Null),
        missing_scope: refusal.missing_scope.iter().map(Id::as_str).collect(),
    };
    let mut response = Response::new(Body::full(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = StatusCode::from_u16(entry.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(about.id.as_str()) {
        fields.insert(DECISION_ID, id);
    }
    if refusal.retry == Retry::After {
        let wait = match refusal.retry_after {
            Some(seconds) => HeaderValue::from(seconds),
            None if refusal.code == Code::Overloaded => RETRY_SOON,
            None => RETRY_AFTER,
        };
        fields.insert(header::RETRY_AFTER, wait);
    }
    if let Some(challenge) = challenge(refusal).and_then(|text| HeaderValue::from_str(&text).ok()) {
        fields.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The response where the sidecar itself failed. What became of the call is in its records, if it got that far.
pub(crate) fn failed(id: &Id<DecisionMark>) -> Response<Body> {
    let problem = serde_json::json!({
        "type": "about:blank",
        "status": 500,
        "title": "Internal Server Error",
        "detail": "The sidecar failed on this call. Whether it was sent is on record under its decision id.",
        "decision_id": id,
        "retry": Retry::AfterChange,
    });
    let mut response = Response::new(Body::full(problem.to_string()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        fields.insert(DECISION_ID, id);
    }
    response
}

/// RFC 6750 §3: no error code where the request had no credential at all; `scope` where another token would help.
fn challenge(refusal: &Refusal) -> Option<String> {
    const REALM: &str = r#"Bearer realm="countersign""#;
    let entry = refusal.code.entry();
    match (refusal.code, entry.status) {
        (Code::NoCredential, _) => Some(REALM.to_owned()),
        (_, 401) => Some(format!(r#"{REALM}, error="invalid_token", error_description="{}""#, entry.title)),
        (Code::InsufficientScope, _) if !refusal.missing_scope.is_empty() => {
            let scope: Vec<&str> = refusal.missing_scope.iter().map(Id::as_str).collect();
            let scope = scope.join(" ");
            let quotable = scope.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5B | 0x5D..=0x7E));
            quotable.then(|| format!(r#"{REALM}, error="insufficient_scope", scope="{scope}""#))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use model::Reason;

    use super::*;

    async fn shown(refusal: &Refusal) -> (Response<()>, serde_json::Value) {
        let id = Id::new("l.1").unwrap();
        let run = Id::new("run-1").unwrap();
        let response = response(refusal, About { id: &id, run: Some(&run), sent: false });
        let (head, body) = response.into_parts();
        let bytes = net::body::collect(body, 65_536).await.unwrap();
        (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_code_becomes_its_status_with_the_members_an_agent_acts_on() {
        for code in Code::ALL {
            let (head, body) = shown(&Refusal::new(code, "why")).await;
            assert_eq!(head.status().as_u16(), code.entry().status);
            assert_eq!(body["type"], format!("urn:countersign:denial:{code}"));
            assert_eq!((&body["code"], &body["decision_id"]), (&code.as_str().into(), &"l.1".into()));
            assert_eq!((&body["sent"], &body["run_id"]), (&false.into(), &"run-1".into()));
            assert_eq!(head.headers()["content-type"], "application/problem+json");
            assert_eq!(head.headers()["countersign-decision-id"], "l.1");
            assert_eq!(head.headers().contains_key("www-authenticate"), code.entry().status == 401, "{code}");
            assert_eq!(head.headers().contains_key("retry-after"), code.entry().retry == Retry::After, "{code}");
        }
    }

    #[tokio::test]
    async fn what_is_only_for_the_record_never_reaches_the_agent() {
        let mut refusal = Refusal::new(Code::PolicyDenied, "Not your order.").internally("secret detail");
        refusal.reasons.push(Reason {
            code: "not_your_order".into(),
            message: Some("Not your order.".into()),
            internal: Some("secret reason".into()),
            retry: None,
            source: "countersign.teams.support".into(),
        });
        let (_, body) = shown(&refusal).await;
        assert!(!body.to_string().contains("secret"), "{body}");
        assert_eq!(body["reasons"][0]["code"], "not_your_order");
    }

    #[tokio::test]
    async fn the_challenge_says_what_another_token_would_need() {
        let mut refusal = Refusal::new(Code::InsufficientScope, "x");
        refusal.missing_scope.insert(Id::new("refunds.create").unwrap());
        let (head, body) = shown(&refusal).await;
        assert_eq!(
            head.headers()["www-authenticate"],
            r#"Bearer realm="countersign", error="insufficient_scope", scope="refunds.create""#
        );
        assert_eq!(body["missing_scope"][0], "refunds.create");
        let (head, _) = shown(&Refusal::new(Code::NoCredential, "x")).await;
        assert_eq!(head.headers()["www-authenticate"], r#"Bearer realm="countersign""#);
        let (_, body) = shown(&Refusal::new(Code::ApprovalRequired, "x")).await;
        assert_eq!(body.get("approval"), Some(&serde_json::Value::Null));
    }
}
