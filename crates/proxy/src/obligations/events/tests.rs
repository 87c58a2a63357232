//! Streams of events in any pieces; everything by which one reader could see another event than the next, and everything
//! that never ends.

use std::sync::Arc;

use model::obligation::Pointer;
use proptest::prelude::*;

use super::*;
use crate::obligations::redact::Places;

fn events() -> Events {
    let pointers: Vec<Pointer> = ["/ssn", "/items/*/card", "/list/1"].map(|pointer| pointer.parse().unwrap()).into();
    Events::new(Redactor::new(Arc::new(Places::new(&pointers))))
}

/// What is shown of `stream` in these pieces, and whether it is refused.
fn shown_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Unreadable>) {
    let (mut events, mut shown) = (events(), BytesMut::new());
    for piece in pieces {
        if let Err(unreadable) = events.take(&Bytes::copy_from_slice(piece), &mut shown) {
            return (shown.to_vec(), Some(unreadable));
        }
    }
    (shown.to_vec(), events.finish().err())
}

/// What is whole of it.
fn whole(shown: &[u8]) -> &[u8] {
    shown.windows(2).rposition(|pair| pair == b"\n\n").map_or(&[], |at| &shown[..at + 2])
}

#[track_caller]
fn shown(stream: impl AsRef<[u8]>) -> String {
    let stream = stream.as_ref();
    let (all, refused) = shown_of([stream]);
    assert_eq!(refused, None, "{}", stream.escape_ascii());
    for at in 0..stream.len() {
        assert_eq!(shown_of([&stream[..at], &stream[at..]]), (all.clone(), None), "split at {at}");
    }
    assert_eq!(shown_of(stream.chunks(1)), (all.clone(), None), "byte by byte");
    String::from_utf8(all).unwrap()
}

#[test]
fn the_data_of_each_event_is_redacted_as_a_document_of_its_own() {
    for (stream, wanted) in [
        ("data: {\"ssn\":\"1\",\"x\":2}\n\n", "data: {\"ssn\":null,\"x\":2}\n\n"),
        (
            "event: a\nid: 1\ndata: {\"ssn\":1}\n\ndata: {\"items\":[{\"card\":{}},{\"card\":2}]}\n\n",
            "event: a\nid: 1\ndata: {\"ssn\":null}\n\ndata: {\"items\":[{\"card\":null},{\"card\":null}]}\n\n",
        ),
        // The order of fields, and fields between two lines of data.
        ("data: {\nevent: x\ndata: \"ssn\":1}\n\n", "data: {\nevent: x\ndata: \"ssn\":null}\n\n"),
        // A value over several lines, after which the document goes on.
        (
            "data: {\"ssn\":[1,\ndata: 2\ndata: ],\ndata:  \"x\":\ndata: 3}\n\n",
            "data: {\"ssn\":null\ndata: \ndata: ,\ndata:  \"x\":\ndata: 3}\n\n",
        ),
        ("data: {\"ssn\":1\ndata: 2\n\n", ""),
        ("data: 1\n\ndata: 2\n\n", "data: 1\n\ndata: 2\n\n"),
        ("data: {\"list\":[1,2,3]}\n\n", "data: {\"list\":[1,null,3]}\n\n"),
        ("data: {\"ssn\":1,\"ss\\u006e\":2}\n\n", "data: {\"ssn\":null,\"ss\\u006e\":null}\n\n"),
        ("retry: 3000\n\n: ping\n\n", "retry: 3000\n\n:\n\n"),
        ("", ""),
    ] {
        if wanted.is_empty() && !stream.is_empty() {
            assert_eq!(shown_of([stream.as_bytes()]).1, Some(Unreadable::NotJson), "{stream}");
        } else {
            assert_eq!(shown(stream), wanted, "{stream}");
        }
    }
}

#[test]
fn every_reader_reads_the_same_of_it() {
    for (stream, wanted) in [
        // Ends of lines, and the mark at the start.
        ("\u{FEFF}data:{\"ssn\":1}\r\rdata: 2\r\n\r\n", "data: {\"ssn\":null}\n\ndata: 2\n\n"),
        ("data: 1\r\n\r\n\r\n\n\r", "data: 1\n\n\n\n\n"),
        ("\u{FEFF}\u{FEFF}data: {\"ssn\":1}\n\n", "\n"),
        // One space after the colon, and no other, is not of the value.
        ("data:  1\ndata:\t2\n\n", ""),
        ("data:  [1,\ndata:\t2]\n\n", "data:  [1,\ndata: \t2]\n\n"),
        ("id:1\nid:  2\n\n", "id: 1\nid:  2\n\n"),
        // What readers ignore may say what it likes.
        ("Data: {\"ssn\":1}\n data: {\"ssn\":1}\ndata : {\"ssn\":1}\ndatax: 1\n{\"ssn\":1}\n\n", "\n"),
        (": {\"ssn\":1}\n:\n", ":\n:\n"),
        ("id: a\0b\nid: c\n\n", "id: c\n\n"),
        ("retry: 1s\nretry: -1\nretry\nretry:\nretry: 20\n\n", "retry: 20\n\n"),
        // No data, empty data, no colon.
        ("event: x\n\nid\n\ndata\n\ndata:\n\n", "event: x\n\nid: \n\ndata: \n\ndata: \n\n"),
        ("data\ndata\ndata: 1\n\n", "data: \ndata: \ndata: 1\n\n"),
        // An event that nothing ends: readers drop it.
        ("data: {\"ssn\":1}\n", "data: {\"ssn\":null}\n"),
        ("data: {\"ssn\":1}", "data: {\"ssn\":null}"),
        ("event: half", ""),
        ("da", ""),
    ] {
        if wanted.is_empty() && stream.ends_with("\n\n") {
            assert!(shown_of([stream.as_bytes()]).1.is_some(), "{stream}");
        } else {
            assert_eq!(shown(stream), wanted, "{stream:?}");
        }
    }
    // What is no UTF-8 is read as readers do.
    assert_eq!(
        shown(b"event: \xFF\xE2\x82x\nid: \xF0\n\xEF\xBB: 1\nd\xC1\xA1ta: 1\n\n"),
        "event: \u{FFFD}\u{FFFD}x\nid: \u{FFFD}\n\n"
    );
}

#[test]
fn the_word_with_which_models_end_their_streams_passes_and_nothing_else_that_is_no_json() {
    assert_eq!(shown("data: {\"ssn\":1}\n\ndata: [DONE]\n\n"), "data: {\"ssn\":null}\n\ndata: [DONE]\n\n");
    assert_eq!(shown("data:[DONE]\r\n\r\ndata: []\n\n"), "data: [DONE]\n\ndata: []\n\n");
    assert_eq!(shown("data: [\ndata: 1]\n\ndata: [DONE]"), "data: [\ndata: 1]\n\ndata: [DONE]");
    for (data, unreadable) in [
        ("[DONE]x", Unreadable::NotJson),
        ("[DONE] ", Unreadable::NotJson),
        ("[DON", Unreadable::NotJson),
        ("[done]", Unreadable::NotJson),
        ("\ndata: [DONE]", Unreadable::NotJson),
        ("[DONE]\ndata: {\"ssn\":1}", Unreadable::NotJson),
        ("[DONE]\ndata", Unreadable::NotJson),
        ("hello", Unreadable::NotJson),
        ("/messages?session=1", Unreadable::NotJson),
        ("{\"ssn\":\ndata: \"1", Unreadable::Unfinished),
        ("{\"ssn\":\ndata: \"1\ndata: 2\"}", Unreadable::NotJson),
        ("{} {\"ssn\":1}", Unreadable::NotJson),
        ("{\"ssn\":1", Unreadable::Unfinished),
        ("{\"x\":\"\ndata: \"}", Unreadable::NotJson),
        ("{\"x\":\"a\0b\"}", Unreadable::NotJson),
    ] {
        let stream = format!("data: 1\n\ndata: {data}\n\ndata: 2\n\n");
        for size in 1..=stream.len() {
            let (shown, refused) = shown_of(stream.as_bytes().chunks(size));
            assert_eq!((whole(&shown), refused), (&b"data: 1\n\n"[..], Some(unreadable)), "{data} in pieces of {size}");
            // Not even from a reader that takes what nothing ends.
            let text = String::from_utf8(shown).unwrap();
            assert!(!text.contains("hello") && !text.contains("[DONE]x"), "{text}");
        }
    }
    assert_eq!(shown_of([&b"data: [DO"[..]]).1, Some(Unreadable::Unfinished));
    assert_eq!(shown_of([&b"data: {\"a\":"[..]]).1, Some(Unreadable::Unfinished));
    assert_eq!(shown_of([&b"data: \"\xC0\xAF\"\n\n"[..]]).1, Some(Unreadable::NotJson));
}

#[test]
fn nothing_of_an_event_is_held_however_large_and_it_goes_on_before_its_end() {
    let (mut events, mut shown) = (events(), BytesMut::new());
    let mut take = |piece: &[u8]| {
        shown.clear();
        events.take(&Bytes::copy_from_slice(piece), &mut shown).map(|()| String::from_utf8(shown.to_vec()).unwrap())
    };
    assert_eq!(take(b"data: {\"x\":\"ab").unwrap(), "data: {\"x\":\"ab");
    for _ in 0..1_000 {
        assert_eq!(take(&[b'c'; 1_000]).unwrap().len(), 1_000);
    }
    assert_eq!(take(b"\",\"ssn\":\"").unwrap(), "\",\"ssn\":null");
    for _ in 0..1_000 {
        assert_eq!(take(&[b'9'; 1_000]).unwrap(), "");
    }
    assert_eq!(take(b"\"}\r").unwrap(), "}\n");
    // The event is whole with this byte, whatever follows.
    assert_eq!(take(b"\r").unwrap(), "\n");
    // Names and comments without end are nobody's; nothing grows.
    for piece in [&b"\ndatadata"[..], b":"] {
        take(piece).unwrap();
        for _ in 0..1_000 {
            assert_eq!(take(&[b'n'; 1_000]).unwrap(), "");
        }
        take(b"\n").unwrap();
    }
    let longest = "i".repeat(MAX_FIELD);
    assert_eq!(take(format!("id: {longest}\n").as_bytes()).unwrap(), format!("id: {longest}\n"));
    take(b"event: ").unwrap();
    take(longest.as_bytes()).unwrap();
    assert_eq!(take(b"i"), Err(Unreadable::LongField));
}

#[test]
fn a_document_may_be_deep_in_each_event_and_no_deeper() {
    let nested = |depth: usize| format!("data: {}{}\n\n", "[".repeat(depth), "]".repeat(depth));
    let stream = nested(256).repeat(3);
    let (seen, refused) = shown_of(stream.as_bytes().chunks(7));
    assert_eq!((seen, refused), (stream.into_bytes(), None));
    assert_eq!(shown_of([nested(257).as_bytes()]).1, Some(Unreadable::TooDeep));
}

#[test]
fn what_was_hidden_is_counted_over_all_events() {
    let (mut events, mut shown) = (events(), BytesMut::new());
    events.take(&Bytes::from_static(b"data: {\"ssn\":1}\n\ndata: {\"ssn\":2,\"list\":[1,2]}\n\n"), &mut shown).unwrap();
    let found: Vec<(String, u64)> =
        events.redactor().found().map(|(pointer, count)| (pointer.to_string(), count)).collect();
    assert_eq!((events.redactor().hidden(), found), (3, vec![("/ssn".to_owned(), 2), ("/list/1".to_owned(), 1)]));
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just("data".to_owned()),
        4 => Just("data: ".to_owned()),
        4 => Just(": ".to_owned()),
        4 => Just("\n".to_owned()),
        4 => Just("\n\n".to_owned()),
        3 => Just("\r".to_owned()),
        3 => Just("\r\n".to_owned()),
        4 => Just("{\"ssn\":1}".to_owned()),
        2 => Just("{\"ssn\":".to_owned()),
        2 => Just("[1,".to_owned()),
        2 => Just("2]".to_owned()),
        1 => Just("}".to_owned()),
        1 => Just("[DONE]".to_owned()),
        1 => Just("event".to_owned()),
        1 => Just("id: \0".to_owned()),
        1 => Just("\u{FEFF}".to_owned()),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn in_whatever_pieces_a_stream_comes_the_same_of_it_is_shown(
        stream in lines(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (all, refused) = shown_of([stream.as_slice()]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        for pieces in [cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect(), stream.chunks(1).collect::<Vec<_>>()] {
            let (pieces, also) = shown_of(pieces);
            prop_assert_eq!(also, refused);
            prop_assert!(refused.is_some() || pieces == all, "{:?}", String::from_utf8_lossy(&pieces));
            prop_assert_eq!(whole(&pieces), whole(&all));
        }
    }
}
