//! Peers that lean on the protocol itself: frames by hand, windows that stay shut, bytes that nobody takes. Whatever
//! they do ends with them, and somebody else is served meanwhile.

use std::convert::Infallible;

use futures_util::stream;
use http_body::Frame as BodyFrame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `GET http://a/` in HPACK.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'];
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Another one than the library's, so that a farewell is not needed.
const QUICK: Duration = Duration::from_millis(100);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST)
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The reason of a GOAWAY or RST_STREAM.
    fn reason(&self) -> u32 {
        let code = if self.kind == GOAWAY { &self.payload[4..8] } else { &self.payload[..4] };
        u32::from_be_bytes(code.try_into().unwrap())
    }
}

/// A connection whose frames are written by hand.
struct Raw(TcpStream);

impl Raw {
    async fn open(server: &Running, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
        Self(stream)
    }

    /// The server may hang up in the middle.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await.expect("the server takes it or hangs up").is_ok()
    }

    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut head)).await;
        read.expect("a frame or the end").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of `kind`, or `None` where the connection ends before.
    async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// How the server ended the connection. A reset may swallow its reason.
    async fn ended(mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = Some(frame.reason());
            }
        }
        reason
    }
}

async fn somebody_else_is_served(server: &Running) {
    assert_eq!(h1(server).await.send_request(get("/")).await.unwrap().status(), 200);
    assert_eq!(h2(server).await.send_request(get("http://a/")).await.unwrap().status(), 200);
}

/// Tells when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A body without end, or with only a first frame of it.
fn endless(dropped: &Arc<Notify>) -> Response<Body> {
    let guard = Dropped(Arc::clone(dropped));
    let frames = stream::repeat_with(move || {
        let _held = &guard;
        Ok::<_, Infallible>(BodyFrame::data(Bytes::from_static(&[0; 16 * 1024])))
    });
    Response::new(Body::new(StreamBody::new(frames)))
}

async fn happens(what: &Notify) {
    tokio::time::timeout(PATIENCE, what.notified()).await.expect("it happens");
}

#[tokio::test]
async fn streams_opened_only_to_be_reset_end_their_connection() {
    let server = start(ServeLimits::default(), describe).await;
    let mut raw = Raw::open(&server, &[]).await;
    let flood: Vec<u8> = (0..10_000)
        .flat_map(|n| [request(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &number(CANCEL))].concat())
        .collect();
    raw.send(&flood).await;
    let reason = raw.ended().await;
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    somebody_else_is_served(&server).await;
}

#[tokio::test]
async fn a_header_block_without_end_ends_its_connection() {
    let server = start(ServeLimits::default(), describe).await;
    // Of literal fields, and of nothing at all.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_382]].concat();
    for more in [&field[..16_384], &[]] {
        let mut raw = Raw::open(&server, &[]).await;
        raw.send(&frame(HEADERS, END_STREAM, 1, REQUEST)).await;
        let one = frame(CONTINUATION, 0, 1, more);
        let mut sent = 0;
        while sent < 1_000_000 && raw.send(&one).await {
            sent += 1;
        }
        assert!(sent < 1_000_000, "{} bytes of a head were taken", sent * one.len());
        raw.ended().await;
    }
    somebody_else_is_served(&server).await;
}

#[tokio::test]
async fn pings_and_settings_are_answered_one_by_one_while_others_are_served() {
    let server = start(ServeLimits::default(), describe).await;
    for one in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let Raw(stream) = Raw::open(&server, &[]).await;
        let (read, mut write) = stream.into_split();
        let flood = one.repeat(20_000);
        let sending = Tasks::new().spawn("flood", async move {
            write.write_all(&flood).await.unwrap();
            write
        });
        let mut answers = 0;
        let mut read = Raw(read.reunite(sending.join().await.unwrap()).unwrap());
        somebody_else_is_served(&server).await;
        while answers < 20_000 {
            let answer = read.next().await.expect("it is still open");
            answers += usize::from(answer.kind == one[3] && answer.flags == ACK);
        }
    }
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_hung_up_on() {
    let server = start(ServeLimits { stall_timeout: QUICK, ..ServeLimits::default() }, describe).await;
    for one in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut raw = Raw::open(&server, &[]).await;
        let flood = one.repeat(10_000);
        // What the system's buffers take, and no more.
        let mut sent = 0_u64;
        while raw.send(&flood).await {
            sent += 1;
            assert!(sent < 10_000, "it is read on although nothing can be answered");
        }
    }
    somebody_else_is_served(&server).await;
}

#[tokio::test]
async fn a_response_that_is_given_no_window_is_given_up_and_its_connection_goes_on() {
    let dropped = Arc::new(Notify::new());
    let census = Census::default();
    let limits = ServeLimits { stall_timeout: QUICK, census: census.clone(), ..ServeLimits::default() };
    let seen = Arc::clone(&dropped);
    let server = start(limits, move |_, _| std::future::ready(endless(&seen))).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0 shuts every window; of 1 it opens them by a slit.
    for window in [0, 1] {
        let mut raw = Raw::open(&server, &[&[0, 4][..], &number(window)].concat()).await;
        raw.send(&request(1)).await;
        let reset = raw.next_of(RST_STREAM).await.expect("the stream is reset");
        assert_eq!((reset.stream, reset.reason()), (1, CANCEL));
        happens(&dropped).await;
        // Its neighbour gets what its window holds.
        raw.send(&request(3)).await;
        raw.send(&frame(WINDOW_UPDATE, 0, 3, &number(100))).await;
        while raw.next_of(DATA).await.expect("data").stream != 3 {}
        drop(raw);
        happens(&dropped).await;
    }
    assert!(census.streams_stalled() >= 2);
}

#[tokio::test]
async fn a_peer_that_is_slow_and_takes_something_is_not_given_up() {
    const STEP: usize = 8 * 1024;
    let whole: Vec<u8> = (0..=u8::MAX).cycle().take(32 * STEP).collect();
    let (census, body) = (Census::default(), Bytes::from(whole.clone()));
    let limits = ServeLimits { stall_timeout: 10 * QUICK, census: census.clone(), ..ServeLimits::default() };
    let server = start(limits, move |_, _| std::future::ready(Response::new(Body::full(body.clone())))).await;
    let mut raw = Raw::open(&server, &[&[0, 4][..], &number(0)].concat()).await;
    raw.send(&request(1)).await;
    let mut taken = Vec::new();
    while taken.len() < whole.len() {
        // One step in a while that is shorter than the bound; all of them take several times as long.
        tokio::time::sleep(QUICK).await;
        raw.send(&frame(WINDOW_UPDATE, 0, 1, &number(u32::try_from(STEP).unwrap()))).await;
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &number(u32::try_from(STEP).unwrap()))).await;
        let before = taken.len();
        while taken.len() < before + STEP {
            taken.extend(raw.next_of(DATA).await.expect("data").payload);
        }
    }
    assert!(taken == whole, "every byte once, in its place");
    assert_eq!(census.streams_stalled(), 0);
}

#[tokio::test]
async fn a_stream_that_waits_for_its_tool_is_not_given_up() {
    let limits = ServeLimits { stall_timeout: QUICK, idle_timeout: QUICK, ..ServeLimits::default() };
    let server = start(limits, |_, _| async {
        let late = stream::once(async {
            tokio::time::sleep(8 * QUICK).await;
            Ok::<_, Infallible>(BodyFrame::data(Bytes::from_static(b"late")))
        });
        Response::new(Body::new(StreamBody::new(late)))
    })
    .await;
    let response = h2(&server).await.send_request(get("http://a/")).await.unwrap();
    assert_eq!(text(response).await, "late");
    let response = h1(&server).await.send_request(get("/")).await.unwrap();
    assert_eq!(text(response).await, "late");
}

#[tokio::test]
async fn a_response_whose_bytes_nobody_takes_ends_its_connection() {
    let dropped = Arc::new(Notify::new());
    let seen = Arc::clone(&dropped);
    let limits = ServeLimits { stall_timeout: QUICK, ..ServeLimits::default() };
    let server = start(limits, move |_, _| std::future::ready(endless(&seen))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    happens(&dropped).await;
    // Over HTTP/2 with all the window there is.
    let mut raw = Raw::open(&server, &[&[0, 4][..], &number(0x7fff_ffff)].concat()).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_0000))).await;
    raw.send(&request(1)).await;
    happens(&dropped).await;
}

#[tokio::test]
async fn windows_that_overflow_end_their_connection() {
    let server = start(ServeLimits::default(), describe).await;
    let mut raw = Raw::open(&server, &[]).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff)).repeat(2)).await;
    assert_eq!(raw.ended().await, Some(FLOW_CONTROL_ERROR));
    somebody_else_is_served(&server).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_a_flood_of_them_ends_the_connection() {
    let limits = ServeLimits { max_streams: 4, ..ServeLimits::default() };
    let inside = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&inside);
    let server = start(limits, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    })
    .await;
    let mut raw = Raw::open(&server, &[]).await;
    let first = raw.next_of(SETTINGS).await.unwrap();
    assert!(first.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 4]), "{:?}", first.payload);
    raw.send(&(0..6).flat_map(|n| request(2 * n + 1)).collect::<Vec<u8>>()).await;
    let refused = raw.next_of(RST_STREAM).await.unwrap();
    assert_eq!(refused.reason(), REFUSED_STREAM);
    let flood: Vec<u8> = (6..2_000).flat_map(|n| request(2 * n + 1)).collect();
    raw.send(&flood).await;
    let reason = raw.ended().await;
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    assert_eq!(inside.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_connection_nobody_uses_is_closed_whatever_the_peer_answers() {
    let census = Census::default();
    let limits = ServeLimits { idle_timeout: QUICK, census: census.clone(), ..ServeLimits::default() };
    let server = start(limits, describe).await;
    let mut idle = h1(&server).await;
    text(idle.send_request(get("/")).await.unwrap()).await;
    let mut idle_two = h2(&server).await;
    text(idle_two.send_request(get("http://a/")).await.unwrap()).await;
    // One that answers nothing, one that never finishes its preface's settings, one in the middle of a head.
    let silent = Raw::open(&server, &[]).await;
    let mut halved = TcpStream::connect(server.address).await.unwrap();
    halved.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0").await.unwrap();
    let mut unfinished = Raw::open(&server, &[]).await;
    unfinished.send(&frame(HEADERS, END_STREAM, 1, REQUEST)).await;
    assert!(census.connections() > 0);
    silent.ended().await;
    unfinished.ended().await;
    read_to_close(&mut halved).await;
    let gone = async {
        while census.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("all are closed");
}

#[tokio::test]
async fn one_peer_has_its_share_of_the_connections_and_what_is_beyond_is_closed_at_once() {
    let census = Census::default();
    let limits = ServeLimits { max_connections: 4, peer_share: 50, census: census.clone(), ..ServeLimits::default() };
    let server = start(limits, describe).await;
    let held = [h1(&server).await, h1(&server).await];
    for _ in 0..3 {
        assert_eq!(raw_exchange(server.address, b"").await, "");
    }
    assert_eq!((census.connections(), census.connections_refused()), (2, 3));
    drop(held);
    while census.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    somebody_else_is_served(&server).await;
}
