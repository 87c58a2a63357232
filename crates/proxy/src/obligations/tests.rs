//! Which answers may be shown, what is said of them, and what is asked of the tool so that they can be.

use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::testing;

fn decision(duties: &[(&str, Value)]) -> Decision {
    let obligation = |(name, value): &(&str, Value)| Obligation {
        code: (*name).to_owned(),
        message: None,
        internal: None,
        source: "countersign.org".to_owned(),
        duty: Duty::read(name, value.clone()).unwrap(),
    };
    let obligations = duties.iter().map(obligation).collect();
    Decision { verdict: Verdict::Permit, code: None, reasons: Vec::new(), obligations }
}

fn duties(of: &[(&str, Value)]) -> Box<Duties> {
    Duties::of(&decision(of)).unwrap()
}

fn redacting() -> Box<Duties> {
    duties(&[("redact", json!(["/email"]))])
}

fn head(status: u16, fields: &[(&str, &str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn most_permits_oblige_to_nothing_of_the_answer() {
    assert!(Duties::of(&decision(&[])).is_none());
    let beside = [
        ("require_header", json!({"name": "X-A"})),
        ("limit", json!({"amount": {"max": 5}})),
        ("notify", json!({"channel": "alerts", "message": "x"})),
    ];
    assert!(Duties::of(&decision(&beside)).is_none());
    let denied = Decision { verdict: Verdict::Deny, ..decision(&[("redact", json!(["/a"]))]) };
    assert!(Duties::of(&denied).is_none());
}

#[test]
fn of_several_obligations_the_strictest_holds() {
    let several = duties(&[
        ("redact", json!(["/a"])),
        ("max_response_bytes", json!(200)),
        ("redact", json!(["/a", "/b"])),
        ("max_response_bytes", json!(100)),
    ]);
    let mut altering = several.altering(&head(200, &[JSON]).headers);
    assert_eq!(
        altering.take(Bytes::from_static(b"{\"a\":1,\"b\":2,\"c\":3}")),
        (Bytes::from_static(b"{\"a\":null,\"b\":null,\"c\":3}"), None)
    );
    let altered = altering.altered().unwrap();
    assert_eq!((altered.values, altered.places.len()), (2, 2));
    assert_eq!(altering.take(Bytes::from(vec![b' '; 82])), (Bytes::new(), Some(Withheld::TooLarge(100))));
    let refusal = several.refusal(Withheld::Type, Effect::Write);
    assert_eq!((refusal.code, refusal.reasons.len()), (Code::ResponseWithheld, 4));
    assert!(refusal.detail.contains("may have taken effect"), "{}", refusal.detail);
}

#[test]
fn what_cannot_be_looked_into_is_not_shown() {
    let whole = |fields: &[(&str, &str)]| redacting().withholds(&head(200, fields), &Method::GET, false);
    for fields in [
        &[JSON][..],
        &[("content-type", "Application/JSON; charset=UTF-8")],
        &[("content-type", "application/problem+json")],
        &[("content-type", "application/vnd.acme.v2+json;charset=\"utf-8\"")],
        &[JSON, ("content-encoding", "identity")],
        &[("content-type", "text/event-stream")],
        &[("content-type", "application/x-ndjson")],
    ] {
        assert_eq!(whole(fields), None, "{fields:?}");
    }
    for fields in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "text/html; x=application/json")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "application/json, text/html")],
        &[("content-type", "multipart/mixed; boundary=json")],
        &[JSON, ("content-type", "text/html")],
        &[("content-type", "+json")],
        &[("content-type", "application/json; charset=utf-7")],
        &[("content-type", "application/json; charset=UTF-16LE")],
        &[("content-type", "application/json; charset = \"utf-7\"")],
        &[("content-type", "application/json; charset*=utf-7")],
    ] {
        assert_eq!(whole(fields), Some(Withheld::Type), "{fields:?}");
    }
    let part = &[("content-type", "text/event-stream"), ("content-range", "bytes 0-1/3")];
    assert_eq!(whole(part), Some(Withheld::Part));
    for coding in ["gzip", "br", "identity, gzip", "x", ""] {
        let events = &[("content-type", "text/event-stream"), ("content-encoding", coding)];
        assert_eq!(whole(events), Some(Withheld::Encoding), "{coding}");
        assert_eq!(whole(&[JSON, ("content-encoding", coding)]), Some(Withheld::Encoding), "{coding}");
    }
    assert_eq!(redacting().withholds(&head(206, &[JSON]), &Method::GET, false), Some(Withheld::Part));
    assert_eq!(whole(&[JSON, ("content-range", "bytes 0-1/3")]), Some(Withheld::Part));
    // Errors of the tool repeat what they are about.
    let failed = head(500, &[("content-type", "text/html")]);
    assert_eq!(redacting().withholds(&failed, &Method::POST, false), Some(Withheld::Type));
}

#[test]
fn what_has_no_body_has_nothing_to_hide() {
    let page = head(200, &[("content-type", "text/html"), ("content-length", "5000")]);
    assert_eq!(redacting().withholds(&page, &Method::GET, true), None);
    assert_eq!(redacting().withholds(&page, &Method::HEAD, false), None);
    assert_eq!(redacting().withholds(&head(304, &[]), &Method::GET, false), None);
    assert_eq!(duties(&[("max_response_bytes", json!(10))]).withholds(&page, &Method::HEAD, false), None);
}

#[test]
fn what_is_known_to_be_too_large_is_not_begun() {
    let capped = duties(&[("max_response_bytes", json!(10))]);
    let of = |length: &str| capped.withholds(&head(200, &[("content-length", length)]), &Method::GET, false);
    assert_eq!((of("10"), of("11")), (None, Some(Withheld::TooLarge(10))));
    assert_eq!(capped.withholds(&head(206, &[("content-type", "text/plain")]), &Method::GET, false), None);
    let encoded = head(200, &[("content-encoding", "gzip")]);
    assert_eq!(capped.withholds(&encoded, &Method::GET, false), Some(Withheld::Encoding));
}

#[test]
fn a_stream_is_read_by_its_type_and_counted_as_the_tool_sent_it() {
    let both = duties(&[("redact", json!(["/ssn"])), ("max_response_bytes", json!(60))]);
    let mut altering = both.altering(&head(200, &[("content-type", "Text/Event-Stream; charset=utf-8")]).headers);
    let (event, shown) = (Bytes::from_static(b"data: {\"ssn\":\"12345\"}\r\n\r\n"), "data: {\"ssn\":null}\n\n");
    for _ in 0..2 {
        assert_eq!(altering.take(event.clone()), (Bytes::from_static(shown.as_bytes()), None));
    }
    // More came than may, though less was shown.
    assert_eq!(altering.take(event), (Bytes::new(), Some(Withheld::TooLarge(60))));
    assert_eq!(altering.altered().unwrap().places["/ssn"], 2);
    // Whoever lies about the type shows nothing by it.
    let mut lines = both.altering(&head(200, &[("content-type", "application/x-ndjson")]).headers);
    let (shown, withheld) = lines.take(Bytes::from_static(b"data: {\"ssn\":1}\n\n"));
    assert_eq!((shown.len(), withheld), (0, Some(Withheld::Unreadable(Unreadable::NotJson))));
    let mut document = both.altering(&head(200, &[JSON]).headers);
    assert_eq!(document.take(Bytes::from_static(b"{\"x\":1}\n{\"ssn\":1}")).0.len(), 0);
    let mut events = both.altering(&head(200, &[("content-type", "text/event-stream")]).headers);
    assert_eq!(events.take(Bytes::from_static(b"{\"ssn\":1}\n[\"data: 1\"]\n")), (Bytes::new(), None));
}

#[test]
fn nothing_is_said_of_bytes_that_the_agent_does_not_see() {
    let fields = [
        JSON,
        ("content-length", "17"),
        ("etag", "\"5d41402a\""),
        ("digest", "SHA-256=x"),
        ("content-digest", "sha-256=:x:"),
        ("repr-digest", "sha-256=:x:"),
        ("content-md5", "x"),
        ("x-amz-checksum-crc32c", "x"),
        ("x-goog-hash", "crc32c=x"),
        ("x-ms-content-crc64", "x"),
        ("signature", "sig=:x:"),
        ("signature-input", "sig=(\"content-digest\")"),
        ("accept-ranges", "bytes"),
        ("x-ok", "1"),
    ];
    let mut seen = head(200, &fields).headers;
    redacting().mark(&mut seen);
    let names: Vec<&str> = seen.keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((&seen["countersign-obligations"], &seen["x-ok"]), (&"redact".parse().unwrap(), &"1".parse().unwrap()));
    let mut seen = head(200, &fields).headers;
    duties(&[("max_response_bytes", json!(100))]).mark(&mut seen);
    assert_eq!(seen.len(), fields.len() + 1);
}

#[test]
fn the_tool_is_asked_for_the_whole_as_it_is_and_a_write_keeps_its_conditions() {
    let kept = |duties: &Duties, name: &str, method: Method| {
        duties.is_kept_from_tool(&HeaderName::try_from(name).unwrap(), &method)
    };
    let redacting = redacting();
    for name in ["accept-encoding", "range", "if-range", "if-none-match", "if-match"] {
        assert!(kept(&redacting, name, Method::GET), "{name}");
    }
    // `If-None-Match: *` is how a write says that it must not replace anything.
    for name in ["if-none-match", "if-match", "if-unmodified-since", "accept"] {
        assert!(!kept(&redacting, name, Method::PUT), "{name}");
    }
    let capped = duties(&[("max_response_bytes", json!(10))]);
    assert!(kept(&capped, "accept-encoding", Method::GET) && !kept(&capped, "range", Method::GET));
}

#[test]
fn what_this_sidecar_cannot_meet_is_a_denial_whatever_the_call() {
    let reach = |duties: &[(&str, Value)]| {
        within_reach(decision(duties), &testing::listener(), &Notices::new(["security".to_owned()].into()))
    };
    let notify = |channel: &str| [("notify", json!({"channel": channel, "message": "x"}))];
    for known in [&notify("alerts"), &notify("security"), &[("require_header", json!({"name": "X-TICKET"}))]] {
        assert_eq!(reach(known).verdict, Verdict::Permit, "{known:?}");
    }
    for unknown in [&notify("securty"), &[("require_header", json!({"name": "X-Other"}))]] {
        let decision = reach(unknown);
        assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::ObligationUnknown)), "{unknown:?}");
        let reason = &decision.reasons[0];
        assert_eq!((reason.source.as_str(), reason.message.is_none()), ("countersign.org", true));
        assert!(reason.internal.is_some() && decision.obligations.is_empty());
    }
}
