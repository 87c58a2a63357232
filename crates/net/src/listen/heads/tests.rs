//! What is seen on the wire, and that it is what the HTTP library reads, however the bytes arrive.

use http::{Method, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;
use crate::body::collect;
use crate::testing::{read_to_close, start};
use crate::{Body, ServeLimits};

/// What of `bytes` is a head, arriving in pieces of `size`.
fn seen(bytes: &[u8], size: usize) -> Vec<Seen> {
    let heads = Heads::default();
    let mut inspector = Inspector::new(heads.clone(), 1024);
    for piece in bytes.chunks(size) {
        inspector.saw(piece);
    }
    heads.0.lock().unwrap().iter().copied().collect()
}

fn faults(text: &str) -> Vec<Option<HeadFault>> {
    let of = |size| seen(text.as_bytes(), size).into_iter().map(|seen| seen.fault).collect::<Vec<_>>();
    let whole = of(usize::MAX);
    for size in 1..8 {
        assert_eq!(of(size), whole, "in pieces of {size}: {text:?}");
    }
    whole
}

#[test]
fn two_framings_and_a_fragment_are_faults_wherever_in_a_connection() {
    let two = Some(HeadFault::TwoFramings);
    let before = [
        "",
        "\r\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n\r\n\r",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n1 \r\nx\r\n0\r\nx: y\r\n\r\n",
    ];
    for before in before {
        let earlier = usize::from(before.contains("HTTP"));
        let last = |text: &str| {
            let faults = faults(&format!("{before}{text}"));
            assert_eq!(faults.len(), earlier + 1, "{before:?} {text:?}");
            *faults.last().unwrap()
        };
        for fields in [
            "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nx: y\r\nCONTENT-LENGTH: 2\r\n",
            "transfer-encoding: chunked\r\ncontent-length: nonsense\r\n",
            "transfer-encoding:gzip,Chunked\ncontent-length:\t2 \n",
        ] {
            assert_eq!(last(&format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")), two, "{fields:?}");
        }
        for target in ["/a#b", "/#", "/a?b#c", "#", "http://a/b#c", "/a#b#c"] {
            let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(last(&head), Some(HeadFault::Fragment), "{target}");
        }
        assert_eq!(last("GET /a%23 HTTP/1.1\r\nx: #\r\n\r\n"), None);
    }
}

#[test]
fn nothing_is_a_head_after_what_nobody_can_read() {
    let next = "GET /next HTTP/1.1\r\n\r\n";
    for first in [
        "POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
    ] {
        assert_eq!(faults(&format!("{first}{next}")).len(), 1, "{first}");
    }
    for first in [
        "POST / HTTP/1.1\r\ncontent-length: +2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 2, 2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
        "GET / HTTP/1.1\r\nno field\r\n\r\n",
        "GET\r\n\r\n",
        &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2000)),
    ] {
        assert_eq!(faults(&format!("{first}{next}")).len(), 0, "{first}");
    }
}

#[test]
fn memory_is_bounded_whatever_is_sent() {
    let mut inspector = Inspector::new(Heads::default(), 1024);
    for _ in 0..10_000 {
        inspector.saw(&[b'x'; 100]);
        assert!(inspector.begun.capacity() <= 4096);
    }
}

#[test]
fn another_request_than_was_seen_is_refused() {
    let heads = Heads::default();
    let mut inspector = Inspector::new(heads.clone(), 1024);
    let request = |method: Method, uri: &str| Request::builder().method(method).uri(uri).body(()).unwrap();
    let get = || request(Method::GET, "/a?b");
    assert_eq!(heads.check(&get()), Err(HeadFault::Unseen), "nothing was sent");
    let sent = b"GET /a?b HTTP/1.1\r\n\r\n";
    inspector.saw(sent);
    assert_eq!(heads.check(&get()), Ok(()));
    assert_eq!(heads.check(&get()), Err(HeadFault::Unseen), "once only");
    for other in [request(Method::POST, "/a?b"), request(Method::GET, "/a?c"), request(Method::GET, "http://a/a?b")] {
        inspector.saw(sent);
        assert_eq!(heads.check(&other), Err(HeadFault::Unseen), "{other:?}");
    }
    for (line, uri) in [("GET http://a/b HTTP/1.1", "http://a/b"), ("GET * HTTP/1.1", "*")] {
        inspector.saw(format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(heads.check(&request(Method::GET, uri)), Ok(()), "{line}");
    }
}

/// A request that anybody may send, and the number that it is answered with.
fn good(number: usize) -> String {
    let chunked = "transfer-encoding: chunked\r\nhost: a\r\n\r\n";
    match number % 8 {
        0 => format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"),
        1 => format!(
            "POST /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 27\r\n\r\nGET /no HTTP/1.1\r\nx: y\r\n\r\n\n"
        ),
        2 => format!("POST /{number} HTTP/1.1\r\n{chunked}1b\r\nGET /no HTTP/1.1\r\nx: y\r\n\r\n\n\r\n0\r\n\r\n"),
        3 => format!(
            "\r\n\r\nPUT /{number}?a=%23 HTTP/1.1\r\n{chunked}1;x=\"y\"\r\na\r\n0f \t;z\r\n0123456789abcde\r\n00\r\nx: y\r\nz: z\r\n\r\n"
        ),
        4 => format!("POST /{number} HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 3\n\nabc"),
        5 => format!("GET http://a/{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"),
        6 => format!(
            "POST /{number} HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: gzip , Chunked\r\n\r\n3\r\n#\r\n\r\n0\r\n\r\n"
        ),
        _ => format!("GET /{number} HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "long ".repeat(700)),
    }
}

#[tokio::test]
async fn the_library_and_we_read_the_same_requests_however_they_arrive() {
    let server = start(ServeLimits::default(), |_, request: Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        collect(request.into_body(), 1 << 20).await.unwrap();
        Response::new(Body::full(format!("<{path}>")))
    })
    .await;
    // Small primes, so that every kind of request is cut at every kind of place.
    for size in [1, 3, 7, 31, 127, 1021, 8191, usize::MAX] {
        let requests = if size == 1 { 8 } else { 40 };
        let mut sent: String = (0..requests).map(good).collect();
        sent.push_str(
            "POST /last HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        );
        sent.push_str("GET /never HTTP/1.1\r\nhost: a\r\n\r\n");
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let write = async {
            for piece in sent.as_bytes().chunks(size) {
                // It is hung up on behind the last one.
                writing.write_all(piece).await.ok();
                tokio::task::yield_now().await;
            }
        };
        let (answers, ()) = tokio::join!(read_to_close(&mut reading), write);
        for number in 0..requests {
            assert_eq!(answers.matches(&format!("</{number}>")).count(), 1, "{size}: {number} in {answers}");
        }
        assert_eq!(answers.matches(" 200 OK").count(), requests, "{size}: {answers}");
        assert_eq!(answers.matches(" 400 ").count(), 1, "{size}: {answers}");
        assert!(answers.contains("both `Transfer-Encoding` and `Content-Length`"), "{size}: {answers}");
    }
}

/// What to put into good requests to make other ones.
const SPOILS: [&str; 20] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    " ",
    "\t",
    ":",
    "#",
    "\0",
    "0",
    "f",
    ";",
    ",",
    "content-length: 5\r\n",
    "Content-Length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: identity\r\n",
    "0\r\n\r\n",
    "GET /in HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// Numbers without pattern, the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    /// Some good requests in a row, spoiled in a few places.
    fn spoiled(&mut self) -> Vec<u8> {
        // Without the long one: its middle is not interesting.
        let mut bytes: Vec<u8> = (0..=self.below(4)).flat_map(|_| good(self.below(7)).into_bytes()).collect();
        for _ in 0..=self.below(3) {
            let mut at = self.below(bytes.len());
            if self.below(2) == 0 {
                // Where a line begins, most of what is put there has a meaning.
                at += bytes[at..].iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                at = at.min(bytes.len() - 1);
            }
            match self.below(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                2 => drop(bytes.drain(at..(at + self.below(12)).min(bytes.len()))),
                _ => drop(bytes.splice(at..at, SPOILS[self.below(SPOILS.len())].bytes())),
            }
        }
        bytes
    }
}

/// How many spoiled connections are tried. A long run is for hand: `COUNTERSIGN_LONG=1`.
fn rounds() -> u64 {
    if std::env::var_os("COUNTERSIGN_LONG").is_some() { 200_000 } else { 4_000 }
}

#[tokio::test]
async fn the_library_never_reads_another_request_than_we_do_however_spoiled() {
    let server = start(ServeLimits::default(), |_, request: Request<hyper::body::Incoming>| async move {
        // Whatever breaks off is answered too.
        collect(request.into_body(), 1 << 20).await.ok();
        Response::new(Body::empty())
    })
    .await;
    let (mut answered, mut refused) = (0, 0);
    for round in 1..=rounds() {
        let bytes = Dice(round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).spoiled();
        assert_eq!(seen(&bytes, 1), seen(&bytes, usize::MAX), "{round}: {:?}", String::from_utf8_lossy(&bytes));
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // It may hang up before it has read everything.
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let answers = read_to_close(&mut stream).await;
        assert!(!answers.contains("cannot be told"), "{round}: {:?}: {answers}", String::from_utf8_lossy(&bytes));
        answered += answers.matches(" 200 OK").count();
        refused += answers.matches("The request").count();
    }
    assert!(answered > 1_000 && refused > 20, "{answered} {refused}: the test says something");
}
