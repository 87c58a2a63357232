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

/// Every byte of a word one.
const EACH: u64 = u64::MAX / 0xff;
/// The high bit of every byte of a word.
const HIGH: u64 = EACH * 0x80;

/// Whether no byte of `text` is written as anything but itself, and none stands for more than itself: ASCII without
/// quotes, backslashes and control characters. Eight bytes at a time, since every text of a document is looked at.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    let is_plain_word = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        (word | marks(word)) & HIGH == 0
    };
    words.iter().all(is_plain_word) && rest.iter().all(|byte| byte.is_ascii() && !is_mark(*byte))
}

/// How many bytes `text` begins with that stand for themselves in a string: up to a quote, a backslash or a control
/// character.
pub(crate) fn plain_length(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks();
    for (place, word) in words.iter().enumerate() {
        let found = marks(u64::from_le_bytes(*word)) & HIGH;
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().position(|byte| is_mark(*byte)).unwrap_or(rest.len())
}

/// The lowest high bit that is set is that of the first byte that is a mark; those above it say nothing.
const fn marks(word: u64) -> u64 {
    const fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(EACH * limit) & !word
    }
    let (quotes, backslashes) = (word ^ (EACH * b'"' as u64), word ^ (EACH * b'\\' as u64));
    below(word, 0x20) | below(quotes, 1) | below(backslashes, 1)
}

const fn is_mark(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The name that was written as `raw`, which has no quotes any more.
pub(super) fn read(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Owned)
}
