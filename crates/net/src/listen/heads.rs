//! What the heads of HTTP/1 requests said on the wire: the HTTP library hands requests on without a `Content-Length`
//! that stood beside `Transfer-Encoding`, and without the fragment of a target, so both are looked for before it.
//!
//! Nothing here decides what a request is: the library does. Each request that it hands on is compared with the next
//! head that was seen, and refused unless the two are the same, so that a difference of reading never goes unseen.

mod chunks;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;

use chunks::Chunks;

/// Why a request is refused that the library would serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    /// RFC 9112 §6.3 allows to close the connection after it; nobody sends it in good faith.
    #[error("The request has both `Transfer-Encoding` and `Content-Length`.")]
    TwoFramings,
    /// RFC 9112 §3.2: no form of a request target has one.
    #[error("The request's target has a fragment.")]
    Fragment,
    /// The library read another request than was seen, or one where none may follow.
    #[error("The request cannot be told from what was sent before it.")]
    Unseen,
}

/// The heads of one connection that were seen and not yet handed on, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(Arc<Mutex<VecDeque<Seen>>>);

/// One head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    fault: Option<HeadFault>,
    /// Of method and target.
    digest: u64,
}

impl Heads {
    /// Whether `request`, which the library hands on next, may be answered.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), HeadFault> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(Seen { fault, digest }) = seen else { return Err(HeadFault::Unseen) };
        let uri = request.uri();
        // Of other forms the library keeps the meaning only.
        let target = if uri.authority().is_none() { uri.path_and_query().map(|target| target.as_str()) } else { None };
        if digest != digest_of(request.method().as_str().as_bytes(), target.unwrap_or_default().as_bytes()) {
            return Err(HeadFault::Unseen);
        }
        fault.map_or(Ok(()), Err)
    }

    fn push(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(seen);
    }
}

/// Only a target that begins with a slash is compared.
fn digest_of(method: &[u8], target: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    method.hash(&mut hasher);
    if target.first() == Some(&b'/') {
        target.hash(&mut hasher);
    }
    hasher.finish()
}

/// Follows the bytes of one connection from head to head.
#[derive(Debug)]
pub(crate) struct Inspector {
    heads: Heads,
    at: At,
    /// A line that has only begun.
    begun: Vec<u8>,
    /// The longest line that the library takes, in bytes.
    longest: usize,
}

/// Where in a message the next byte is.
#[derive(Debug)]
enum At {
    /// Before its first line; empty lines are skipped.
    Start,
    Fields(Head),
    Body(u64),
    Chunks(Chunks),
    /// Nothing that comes can be a request: the library closes the connection, or must.
    End,
}

/// What the head so far said.
#[derive(Debug, Default)]
struct Head {
    digest: u64,
    fragment: bool,
    length: Option<u64>,
    /// Whether the last coding of the last `Transfer-Encoding` is `chunked`.
    chunked: Option<bool>,
}

impl Inspector {
    /// `longest` is what the library takes of a head, in bytes: nothing longer is kept.
    pub(crate) fn new(heads: Heads, longest: usize) -> Self {
        Self { heads, at: At::Start, begun: Vec::new(), longest }
    }

    /// Whether the next byte belongs to a body.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(self.at, At::Body(_) | At::Chunks(_))
    }

    /// Takes the bytes that the library is about to read.
    pub(crate) fn saw(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.at {
                At::Start | At::Fields(_) => self.line(bytes),
                At::Body(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left = left.saturating_sub(here as u64);
                    if *left == 0 {
                        self.at = At::Start;
                    }
                    bytes.get(here..).unwrap_or_default()
                }
                At::Chunks(chunks) => match chunks.skip(bytes) {
                    Ok(None) => return,
                    Ok(Some(rest)) => {
                        self.at = At::Start;
                        rest
                    }
                    Err(()) => return self.at = At::End,
                },
                At::End => return,
            };
        }
    }

    /// Takes a line of a head, or the beginning of one. Lines end with LF; a CR before it is part of the end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (here, rest) = match memchr::memchr(b'\n', bytes) {
            Some(end) => bytes.split_at(end + 1),
            None => (bytes, &[][..]),
        };
        if self.begun.len() + here.len() > self.longest {
            self.begun = Vec::new();
            self.at = At::End;
            return rest;
        }
        if here.last() != Some(&b'\n') {
            self.begun.extend_from_slice(here);
            return rest;
        }
        if self.begun.is_empty() {
            self.take(here);
        } else {
            let mut whole = std::mem::take(&mut self.begun);
            whole.extend_from_slice(here);
            self.take(&whole);
        }
        rest
    }

    fn take(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.at = match std::mem::replace(&mut self.at, At::End) {
            At::Start if line.is_empty() => At::Start,
            At::Start => Head::first(line).map_or(At::End, At::Fields),
            At::Fields(head) if line.is_empty() => self.whole(&head),
            At::Fields(head) => head.with(line).map_or(At::End, At::Fields),
            other => other,
        };
    }

    /// A head is whole: what follows it, by the library's rules (RFC 9112 §6.3).
    fn whole(&mut self, head: &Head) -> At {
        let fault = match head {
            Head { length: Some(_), chunked: Some(_), .. } => Some(HeadFault::TwoFramings),
            Head { fragment: true, .. } => Some(HeadFault::Fragment),
            _ => None,
        };
        self.heads.push(Seen { fault, digest: head.digest });
        match (fault, head.chunked, head.length) {
            (Some(_), _, _) | (None, Some(false), _) => At::End,
            (None, Some(true), _) => At::Chunks(Chunks::default()),
            (None, None, None | Some(0)) => At::Start,
            (None, None, Some(length)) => At::Body(length),
        }
    }
}

impl Head {
    /// `METHOD target HTTP/1.1`
    fn first(line: &[u8]) -> Option<Self> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target) = (parts.next()?, parts.next()?);
        let cut = memchr::memchr(b'#', target);
        let kept = cut.and_then(|at| target.get(..at)).unwrap_or(target);
        Some(Self { digest: digest_of(method, kept), fragment: cut.is_some(), ..Self::default() })
    }

    /// `None` for a field with which the library refuses the request.
    fn with(mut self, line: &[u8]) -> Option<Self> {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..)?.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            // Beside chunks it is a fault whatever it says.
            self.length = if self.chunked.is_some() { Some(0) } else { Some(number(value)?) };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next()?;
            self.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        }
        Some(self)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
