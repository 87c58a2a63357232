//! How hyper and h2 are set: every bound that a peer could lean on is written here, also where it is their default.
//!
//! What h2 bounds without a setting: a header block may take at most so many CONTINUATION frames as the largest head
//! needs (and ends the connection beyond four times its size); one PING or SETTINGS is answered before the next is
//! read, so that a flood of them costs its sender as much and no memory; a hundred empty DATA frames, or a run of tiny
//! ones that nobody has read yet, end the connection; windows that overflow end it too.

use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;

use super::ServeLimits;
use super::activity::Progress;
use crate::Tasks;

/// How often a quiet HTTP/2 peer is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PONG: Duration = Duration::from_secs(20);
/// Streams that a peer opened and reset before they were looked at ("rapid reset", CVE-2023-44487). One more ends the
/// connection.
const RESET_BEFORE_ACCEPTED: usize = 20;
/// Streams that were reset here because the peer broke a rule on them. One more ends the connection. A client may open
/// more streams than it is allowed until it has read how many that is.
const RESET_HERE: usize = 256;
/// Bytes of request bodies that a peer may send on one stream before they are read.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same on all streams of a connection together.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one response that may wait here for the peer's window.
const SEND_BUFFER: usize = 64 * 1024;
/// The largest frame; the standard's smallest allowed value.
const FRAME: u32 = 16 * 1024;
/// The smallest buffer that hyper takes for a head.
const LEAST_HEAD: usize = 8 * 1024;

/// What hyper takes of a head.
pub(super) fn head_bytes(limits: &ServeLimits) -> usize {
    limits.max_header_bytes.max(LEAST_HEAD)
}

pub(super) fn builder(limits: &ServeLimits, tasks: &Tasks) -> auto::Builder<Spawn> {
    let head = head_bytes(limits);
    let mut builder = auto::Builder::new(Spawn { tasks: tasks.clone(), limits: limits.clone() });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(head)
        .max_headers(limits.max_headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(RESET_BEFORE_ACCEPTED)
        .max_local_error_reset_streams(RESET_HERE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    builder
}

/// Lets hyper run HTTP/2 streams as our tasks, and gives up those whose peer takes nothing.
#[derive(Clone)]
pub(super) struct Spawn {
    tasks: Tasks,
    limits: ServeLimits,
}

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let (stall, census) = (self.limits.stall_timeout, self.limits.census.clone());
        self.tasks.spawn("http2 stream", async move {
            if !Progress::watch(stall, future).await {
                census.stalled();
            }
        });
    }
}
