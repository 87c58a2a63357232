//! The law of `redact` for streams, by readers that have the whole of them before them and share nothing with those that
//! redact.

use std::sync::Arc;

use bytes::Bytes;
use model::obligation::{Pointer, Segment};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::obligations::{
    form::{Form, Reader},
    redact::Places,
};

/// What the first word of the line says that the rest is; `None` for one document.
pub(super) fn form(line: &str) -> Option<Form> {
    match line.split(' ').next() {
        Some("events") => Some(Form::Events),
        Some("lines") => Some(Form::Lines),
        Some("sequence") => Some(Form::Sequence),
        _ => None,
    }
}

/// What a reader makes of one event, or of one text.
#[derive(Debug, PartialEq)]
struct Unit {
    /// The name and the last id of an event, and how often to try again.
    about: String,
    data: String,
}

/// In whatever pieces a stream comes, the same events and texts are shown, and it is refused or not; each is as it was but for
/// the values at the places. Whether all of it is shown.
pub(super) fn law(form: Form, pointers: &[Pointer], stream: &[u8]) -> bool {
    let places = Arc::new(Places::new(pointers));
    let shown = |size: usize| -> (Vec<u8>, bool) {
        let (mut reader, mut shown) = (Reader::new(form, &places), Vec::new());
        for piece in stream.chunks(size) {
            let (piece, unreadable) = reader.take(Bytes::copy_from_slice(piece));
            shown.extend_from_slice(&piece);
            if unreadable.is_some() {
                return (shown, false);
            }
        }
        (shown, reader.finish().is_ok())
    };
    let (whole, accepted) = shown(stream.len().max(1));
    let after = units(form, &whole, accepted);
    for size in [1, 3] {
        let (pieces, also) = shown(size);
        assert_eq!(also, accepted, "in pieces it is refused, or not");
        assert!(!accepted || pieces == whole, "in pieces it is another");
        assert_eq!(units(form, &pieces, accepted), after, "in pieces other units are whole");
        hides(form, &pieces, pointers);
    }
    let before = units(form, stream, accepted);
    assert!(after.len() <= before.len() && (!accepted || after.len() == before.len()), "{} are lost", before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.about, after.about);
        is_but_for(&before.data, &after.data, pointers);
    }
    accepted
}

/// Asserts that a reader who takes for an event also what no empty line ends finds nothing at the places.
fn hides(form: Form, shown: &[u8], pointers: &[Pointer]) {
    let with_the_last = [shown, b"\n\n"].concat();
    for unit in units(form, &with_the_last, true) {
        if let Ok(seen) = serde_json::from_str::<Value>(&unit.data) {
            pointers.iter().for_each(|pointer| super::nothing_at(&seen, pointer.segments()));
        }
    }
}

/// Asserts that `after` says what `before` does, but for the values at the places.
fn is_but_for(before: &str, after: &str, pointers: &[Pointer]) {
    if before == after && (before.bytes().all(|byte| byte.is_ascii_whitespace()) || before == "[DONE]") {
        return;
    }
    serde_json::from_str::<IgnoredAny>(before).expect("what is JSON here is JSON to others");
    // The other reader takes no document that is very deep, and no half of a character.
    let Ok(mut wanted) = serde_json::from_str::<Value>(before) else { return };
    pointers.iter().for_each(|pointer| make_null(&mut wanted, pointer.segments()));
    let seen: Value = serde_json::from_str(after).expect("what is shown is JSON");
    assert_eq!(seen, wanted);
}

fn make_null(value: &mut Value, steps: &[Segment]) {
    let Some((step, rest)) = steps.split_first() else {
        *value = Value::Null;
        return;
    };
    match (value, step) {
        (Value::Object(members), Segment::Every) => members.values_mut().for_each(|value| make_null(value, rest)),
        (Value::Array(items), Segment::Every) => items.iter_mut().for_each(|value| make_null(value, rest)),
        (Value::Object(members), Segment::Name(name)) => {
            members.get_mut(name).into_iter().for_each(|value| make_null(value, rest));
        }
        (Value::Array(items), Segment::Name(name)) => {
            let item = items.iter_mut().enumerate().find(|(at, _)| at.to_string() == *name);
            item.into_iter().for_each(|(_, value)| make_null(value, rest));
        }
        _ => {}
    }
}

/// What is whole of a stream; of one that was `accepted` also the last text.
fn units(form: Form, bytes: &[u8], accepted: bool) -> Vec<Unit> {
    let mark = match form {
        Form::Events | Form::Document => return events(bytes),
        Form::Lines => b'\n',
        Form::Sequence => 0x1E,
    };
    let text = |text: &[u8]| Unit { about: String::new(), data: String::from_utf8_lossy(text).into_owned() };
    let mut texts: Vec<Unit> = bytes.split(|byte| *byte == mark).map(text).collect();
    if !accepted {
        texts.pop();
    }
    texts
}

/// The events that a reader dispatches (WHATWG HTML, 9.2.6).
fn events(bytes: &[u8]) -> Vec<Unit> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let (mut events, mut kind, mut id, mut retry) = (Vec::new(), String::new(), String::new(), String::new());
    let mut data: Vec<&str> = Vec::new();
    for line in lines.split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" if line.is_empty() => {
                // Without data there is no event, and none with one line of none.
                if !data.is_empty() {
                    events.push(Unit { about: format!("{kind}\n{id}\n{retry}"), data: data.join("\n") });
                }
                data.clear();
                kind.clear();
            }
            "data" => data.push(value),
            "event" => value.clone_into(&mut kind),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                value.clone_into(&mut retry);
            }
            _ => {}
        }
    }
    events
}
