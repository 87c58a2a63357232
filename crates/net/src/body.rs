//! The one body type, for requests and responses in both directions.
//!
//! A message that is empty, already in memory or passed straight through costs no allocation; anything
//! else is boxed. Reading a body whole is only possible with a limit.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::{BoxError, with_causes};

/// A message body.
pub struct Body(Kind);

enum Kind {
    Memory(Option<Bytes>),
    Incoming(Incoming),
    /// Behind a mutex that nobody ever waits for: it makes the body `Sync`, so that a request can be looked at
    /// across an await.
    Boxed(Mutex<UnsyncBoxBody<Bytes, BoxError>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Memory(None))
    }

    /// A body that is already in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Kind::Memory((!bytes.is_empty()).then_some(bytes)))
    }

    /// Any other body, boxed.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(Mutex::new(body.map_err(Into::into).boxed_unsync())))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self(Kind::Incoming(incoming))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Memory(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Incoming(incoming) => Pin::new(incoming).poll_frame(context).map_err(Into::into),
            Kind::Boxed(body) => Pin::new(body.get_mut().unwrap_or_else(PoisonError::into_inner)).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Memory(bytes) => bytes.is_none(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Boxed(body) => body.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Memory(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Boxed(body) => body.lock().unwrap_or_else(PoisonError::into_inner).size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    /// Never the content: bodies carry what is nobody's business but the tool's.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = self.size_hint();
        write!(formatter, "Body({}..{:?})", hint.lower(), hint.upper())
    }
}

/// Why a body could not be read whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// It is longer than allowed. Nothing beyond the limit was kept.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It broke off or was malformed.
    #[error("the body ended early: {cause}")]
    Broken {
        /// What the connection said.
        cause: String,
    },
}

/// Reads a body whole, up to `limit` bytes. Trailers are dropped.
///
/// # Errors
/// When it is too large, also when only its declared length says so, or breaks off.
pub async fn collect<B>(body: B, limit: usize) -> Result<Bytes, CollectError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    collect_within(body, limit, |_| true).await.map(Option::unwrap_or_default)
}

/// The same, asking `room` for each further number of bytes before they are kept. `None` where it had none.
///
/// # Errors
/// When it is too large, also when only its declared length says so, or breaks off.
pub async fn collect_within<B>(
    body: B,
    limit: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Option<Bytes>, CollectError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(CollectError::TooLarge { limit });
    }
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.as_mut().frame().await {
        let frame = frame.map_err(|error| CollectError::Broken { cause: with_causes(&*error.into()) })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limit.saturating_sub(first.len() + rest.len()) {
            return Err(CollectError::TooLarge { limit });
        }
        if !room(data.len()) {
            return Ok(None);
        }
        // Most bodies are one frame: those are handed on without a copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(Some(if rest.is_empty() { first } else { rest.freeze() }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn pieces(parts: &'static [&'static str]) -> Body {
        Body::new(StreamBody::new(stream::iter(
            parts.iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes())))),
        )))
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        assert_eq!(collect(pieces(&["a", "", "bc", "d"]), 4).await.unwrap(), "abcd");
        assert_eq!(collect(Body::full("whole"), 5).await.unwrap(), "whole");
        assert_eq!(collect(Body::empty(), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn one_byte_over_the_limit_is_refused() {
        let refused = Err(CollectError::TooLarge { limit: 3 });
        assert_eq!(collect(pieces(&["ab", "cd"]), 3).await, refused);
        assert_eq!(collect(Body::full("abcd"), 3).await, refused);
    }

    #[tokio::test]
    async fn a_body_is_kept_only_as_far_as_there_is_room_for_it() {
        let mut left: usize = 3;
        let mut room = |bytes: usize| {
            left = left.saturating_sub(bytes);
            left > 0
        };
        assert_eq!(collect_within(pieces(&["a", "b"]), 9, &mut room).await, Ok(Some("ab".into())));
        assert_eq!(collect_within(pieces(&["c", "d"]), 9, &mut room).await, Ok(None));
    }

    #[tokio::test]
    async fn a_broken_body_says_why() {
        let body =
            Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(std::io::Error::other("wire cut"))])));
        let error = collect(body, 10).await.unwrap_err();
        assert!(error.to_string().contains("wire cut"), "{error}");
    }

    #[test]
    fn a_body_does_not_print_its_content() {
        assert_eq!(format!("{:?}", Body::full("secret")), "Body(6..Some(6))");
    }
}
