//! What goes to the tool of what the agent sent.

use std::collections::BTreeMap;

use model::CanonicalPath;

use super::*;
use crate::{
    admit::Admitted,
    config::{ClaimedTrace, CredentialConfig},
    credential::Credentials,
    testing::{arrival, base, delegation},
    trace::Spans,
};

fn sent(credential: &CredentialConfig, fields: &[(&str, &str)]) -> HeaderMap {
    let credentials = Credentials::load(Some(credential), &BTreeMap::new(), &|_| Some("tool-secret-1".into())).unwrap();
    let credential = credentials.choose(&Admitted::in_test(delegation())).unwrap();
    let spans = Spans::global();
    let call = spans.call(&arrival(), &Method::GET, Version::HTTP_11, None, ClaimedTrace::Link);
    let span = spans.tool(&call, &Method::GET, &base("http://127.0.0.1:1"), &CanonicalPath::parse("/").unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let traceparent = span.ids().traceparent();
    let fields = Fields {
        agents: &headers,
        version: Version::HTTP_2,
        traceparent,
        trailer: None,
        shown: &Shown::Held(credential),
        kept: None,
    };
    fields.for_tool()
}

#[test]
fn the_agents_credential_is_replaced_and_its_claims_are_dropped() {
    let bearer = CredentialConfig::Bearer(net::SecretSource::Env("X".into()));
    let fields = sent(
        &bearer,
        &[
            ("authorization", "Bearer agent"),
            ("x-forwarded-user", "root"),
            ("via", "1.1 evil"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "a=b"),
            ("accept", "text/plain"),
            ("accept", "application/json"),
        ],
    );
    let shown: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let names: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["accept", "accept", "via", "traceparent", "authorization"]);
    assert_eq!(
        (&fields["via"], &fields["authorization"]),
        (&"2 countersign".parse().unwrap(), &"Bearer tool-secret-1".parse().unwrap())
    );
    assert!(fields["authorization"].is_sensitive());
    assert!(!fields["traceparent"].to_str().unwrap().contains("4bf92f"));
}

#[test]
fn an_agent_cannot_send_the_field_of_the_tools_own_credential() {
    let key = CredentialConfig::Header { name: "X-Api-Key".into(), value: net::SecretSource::Env("X".into()) };
    let fields = sent(&key, &[("x-api-key", "agent"), ("x-api-key", "again")]);
    assert_eq!(fields.get_all("x-api-key").iter().collect::<Vec<_>>(), ["tool-secret-1"]);
    assert!(!sent(&CredentialConfig::None, &[("authorization", "Bearer agent")]).contains_key("authorization"));
}

#[test]
fn a_write_that_may_have_happened_is_not_to_be_repeated_blindly() {
    let advice = |error: &SendError, effect| {
        let mut settlement = Settlement::closed();
        let unanswered = unanswered(error, effect, false, &mut settlement);
        (unanswered.refusal.code, unanswered.sent, unanswered.refusal.retry)
    };
    let url = String::new();
    let not_sent = SendError::NotSent { url: url.clone(), reason: NotSentReason::Unreachable, cause: url.clone() };
    let interrupted = SendError::Interrupted { url: url.clone(), unheard: false, cause: url.clone() };
    let timeout = SendError::Timeout { url, after: Duration::from_secs(1) };
    assert_eq!(advice(&not_sent, Effect::Write), (Code::ToolUnreachable, false, Retry::After));
    assert_eq!(advice(&interrupted, Effect::Write), (Code::ToolUnreachable, true, Retry::AfterChange));
    assert_eq!(advice(&interrupted, Effect::Read), (Code::ToolUnreachable, true, Retry::After));
    assert_eq!(advice(&timeout, Effect::Draft), (Code::ToolTimeout, true, Retry::AfterChange));
}
