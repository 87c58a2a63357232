//! Text as it is written, and read again: how most of it needs no more than a look, and which names sort as their bytes.

use std::borrow::Cow;

use super::{Unwritable, Written};

/// Writes `text` with its quotes.
pub(super) fn write(out: &mut Vec<u8>, text: &str) -> Written {
    // Most texts are names and ids, and need no escaping.
    if is_plain(text.as_bytes()) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return Ok(());
    }
    serde_json::to_writer(out, text).map_err(|error| Unwritable::Shape(error.to_string()))
}

/// Whether no byte of `text` is written as anything but itself, and none stands for more than itself: ASCII without
/// quotes, backslashes and control characters. Eight bytes at a time, since every text of a document is looked at.
pub(super) fn is_plain(text: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    const HIGH: u64 = EACH * 0x80;
    // The high bit of some byte is set where one is below `limit`; those that are no ASCII are found by themselves.
    let below = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word;
    let is_plain_word = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        let (quotes, backslashes) = (word ^ (EACH * u64::from(b'"')), word ^ (EACH * u64::from(b'\\')));
        (word | below(word, 0x20) | below(quotes, 1) | below(backslashes, 1)) & HIGH == 0
    };
    let (words, rest) = text.as_chunks();
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x80) && !matches!(byte, b'"' | b'\\');
    words.iter().all(is_plain_word) && rest.iter().all(is_plain)
}

/// The name that was written as `raw`, which has no quotes any more.
pub(super) fn read(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Owned)
}
