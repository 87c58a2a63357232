//! Texts one after the other, in any pieces, and what only some readers would take for two.

use std::sync::Arc;

use model::obligation::Pointer;

use super::*;
use crate::obligations::redact::Places;

fn texts(mark: Mark) -> Texts {
    let pointers: Vec<Pointer> = ["/a", "/0"].map(|pointer| pointer.parse().unwrap()).into();
    Texts::new(Redactor::new(Arc::new(Places::new(&pointers))), mark)
}

fn shown_in(mark: Mark, text: &[u8], size: usize) -> Result<(String, u64), Unreadable> {
    let (mut texts, mut shown) = (texts(mark), BytesMut::new());
    for piece in text.chunks(size) {
        texts.take(&Bytes::copy_from_slice(piece), &mut shown)?;
    }
    texts.finish()?;
    Ok((String::from_utf8(shown.to_vec()).unwrap(), texts.redactor().hidden()))
}

#[test]
fn each_text_is_redacted_and_what_is_between_them_stays() {
    for (mark, text, shown) in [
        (Mark::LineEnd, "{\"a\":1}\n{\"a\":[2]}\n", "{\"a\":null}\n{\"a\":null}\n"),
        (Mark::LineEnd, "{\"a\":1}\r\n\r\n\n 7 \n[1]", "{\"a\":null}\r\n\r\n\n 7 \n[null]"),
        (Mark::LineEnd, "{\"b\":1}\n{\"a\":1}", "{\"b\":1}\n{\"a\":null}"),
        (Mark::LineEnd, "", ""),
        (Mark::Separator, "\x1E{\"a\":1}\n\x1E[1,\n2]\n", "\x1E{\"a\":null}\n\x1E[null,\n2]\n"),
        (Mark::Separator, "\x1E\x1E17\n\x1E\r\n\"a\"", "\x1E\x1E17\n\x1E\r\n\"a\""),
        (Mark::Separator, "", ""),
    ] {
        for size in 1..=text.len().max(1) {
            assert_eq!(shown_in(mark, text.as_bytes(), size).unwrap().0, shown, "{text:?} in pieces of {size}");
        }
    }
    assert_eq!(shown_in(Mark::LineEnd, b"{\"a\":1,\"a\":2}\n{\"a\":3}", 4).unwrap().1, 3);
}

#[test]
fn what_is_not_one_text_after_the_other_is_cut() {
    for (mark, text) in [
        (Mark::LineEnd, &b"{\"a\":\n1}\n"[..]),
        (Mark::LineEnd, b"{} {}\n"),
        (Mark::LineEnd, b"[1,\r2]\n"),
        (Mark::LineEnd, b"1\r1\n"),
        (Mark::LineEnd, b"1\r\r\n"),
        (Mark::LineEnd, b"{\"b\":\"x\xE2\n"),
        (Mark::LineEnd, b"hello\n"),
        (Mark::LineEnd, b"\xEF\xBB\xBF{}\n"),
        (Mark::LineEnd, b"\x1E{}\n"),
        (Mark::LineEnd, b"{\"b\":\"\0\"}\n"),
        (Mark::LineEnd, b"{}\n{\"a\":[1"),
        (Mark::LineEnd, b"data: {}\n\n"),
        (Mark::Separator, b"{}\n"),
        (Mark::Separator, b" \x1E{}\n"),
        (Mark::Separator, b"\x1E{} {}\n"),
        (Mark::Separator, b"\x1E{\"a\":1\x1E{}"),
        (Mark::Separator, b"\x1E\"x\x1Ey\""),
        (Mark::Separator, b"\x1E{\"a\":"),
    ] {
        for size in 1..=text.len() {
            assert!(shown_in(mark, text, size).is_err(), "{:?} in pieces of {size}", text.escape_ascii().to_string());
        }
    }
}

#[test]
fn texts_before_the_one_that_is_cut_are_shown() {
    let mut shown = BytesMut::new();
    let read = texts(Mark::LineEnd).take(&Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n{\"b\":3,x"), &mut shown);
    assert_eq!((read, &shown[..]), (Err(Unreadable::NotJson), &b"{\"a\":null}\n{\"b\":2}\n"[..]));
}
