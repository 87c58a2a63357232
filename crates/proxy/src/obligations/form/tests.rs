//! What is taken for which form by its type.

use http::HeaderValue;

use super::*;

#[test]
fn a_type_is_known_however_it_is_written_and_only_in_utf_8() {
    let of = |kinds: &[&'static str]| {
        let mut fields = HeaderMap::new();
        for kind in kinds {
            fields.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Form::of(&fields)
    };
    for (kind, form) in [
        ("application/json", Form::Document),
        ("application/vnd.acme+json; charset=us-ascii", Form::Document),
        ("text/event-stream", Form::Events),
        ("Text/Event-Stream;Charset=\"UTF-8\"", Form::Events),
        ("text/event-stream ; x=y", Form::Events),
        ("application/x-ndjson", Form::Lines),
        ("application/NDJSON; charset=utf-8", Form::Lines),
        ("application/jsonl", Form::Lines),
        ("application/jsonlines", Form::Lines),
        ("application/json-seq", Form::Sequence),
        ("application/geo+json-seq", Form::Sequence),
    ] {
        assert_eq!(of(&[kind]), Some(form), "{kind}");
    }
    for kind in [
        "text/event-stream; charset=utf-16",
        "text/event-streams",
        "text/x-event-stream",
        "application/event-stream",
        "event-stream",
        "text/ndjson",
        "application/x-ndjson; charset=utf-7",
        "application/json-sequence",
        "multipart/mixed; boundary=x",
        "multipart/x-mixed-replace",
        "application/vnd.amazon.eventstream",
        "text/plain",
        "",
    ] {
        assert_eq!(of(&[kind]), None, "{kind}");
    }
    assert_eq!((of(&[]), of(&["text/event-stream", "text/event-stream"])), (None, None));
}
