//! What may take the place of what, and for how long a bundle is fresh. Servers are in the behaviour tests.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use jiff::SignedDuration;

use super::*;
use crate::{PolicySource, bundle::KeysConfig};

fn offered(serial: Option<u64>) -> Manifest {
    Manifest { revision: "r".to_owned(), roots: Some(vec!["countersign/org".to_owned()]), serial }
}

#[test]
fn a_serial_rises_or_goes_back_where_that_was_said() {
    assert_eq!(rising(&offered(Some(1)), None, false, None), Ok(None));
    assert_eq!(rising(&offered(Some(5)), Some(4), false, None), Ok(None));
    assert_eq!(rising(&offered(Some(4)), Some(4), true, None), Ok(None));
    assert_eq!(rising(&offered(Some(3)), Some(4), false, Some(3)), Ok(Some(4)));
    assert_eq!(rising(&offered(Some(3)), Some(4), false, Some(2)), Ok(Some(4)));
    assert!(rising(&offered(Some(4)), Some(4), false, None).unwrap_err().contains("another bundle"));
    assert!(rising(&offered(Some(4)), Some(4), false, Some(4)).is_err());
    assert!(rising(&offered(Some(3)), Some(4), false, None).unwrap_err().contains("rollback: 3"));
    assert!(rising(&offered(Some(3)), Some(5), false, Some(4)).is_err());
    assert!(rising(&offered(None), None, false, Some(0)).unwrap_err().contains("no serial"));
    let rootless = Manifest { roots: None, ..offered(Some(4)) };
    assert!(rising(&rootless, None, false, None).unwrap_err().contains("roots"));
}

#[test]
fn a_bundle_is_fresh_until_its_age_is_over_and_never_by_another_clock() {
    let confirmed = Timestamp::from_second(1_000_000).unwrap();
    let after = |seconds: i64| confirmed + SignedDuration::from_secs(seconds);
    let freshness = Freshness::new(confirmed, Some(Duration::from_secs(60)));
    for (seconds, stale) in [(0, false), (60, false), (61, true), (-60, false), (-61, true), (100_000, true)] {
        assert_eq!(freshness.is_stale(after(seconds)), stale, "{seconds}");
    }
    freshness.confirm(after(50));
    assert!(!freshness.is_stale(after(110)) && freshness.is_stale(after(111)));
    freshness.confirm(after(20));
    assert_eq!(freshness.confirmed(), after(50), "a late word does not take an earlier one back");
    let ahead = Freshness::new(after(100_000), Some(Duration::from_secs(60)));
    assert!(ahead.is_stale(after(0)));
    ahead.confirm(after(0));
    assert_eq!((ahead.confirmed(), ahead.is_stale(after(1))), (after(0), false), "a clock that was ahead is set right");
    freshness.hold_to(None);
    assert!(!freshness.is_stale(after(1_000_000)));
    freshness.hold_to(Some(Duration::from_secs(1)));
    assert!(freshness.is_stale(after(52)));
}

fn configured(bundle: &str) -> PolicySource {
    let source = format!("{{ name: org, bundle: {bundle}, keys: {{ k: {{ algorithm: ES256, file: k.pem }} }} }}");
    serde_saphyr::from_str(&source).unwrap()
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let fine = configured("{ url: https://bundles.example/org.tar.gz, long_poll: 5m, max_age: 1h }");
    assert_eq!(fine.problems(), Vec::<String>::new());
    assert!(configured("{ url: http://127.0.0.1:1/b }").problems().is_empty());
    for (bundle, what) in [
        ("{ url: http://bundles.example/org.tar.gz }", "https"),
        ("{ url: https://a:b@bundles.example/ }", "user name"),
        ("{ url: bundles }", "absolute"),
        ("{ url: https://bundles.example/, poll: 10ms }", "poll"),
        ("{ url: https://bundles.example/, long_poll: 1h }", "long_poll"),
        ("{ url: https://bundles.example/, poll: 1h, max_age: 1m }", "max_age"),
    ] {
        let problems = configured(bundle).problems().join("; ");
        assert!(problems.contains("policy.org") && problems.contains(what), "{bundle}: {problems}");
    }
    let unsigned = PolicySource { keys: Some(KeysConfig::new()), ..fine.clone() };
    assert!(unsigned.problems()[0].contains("signed"));
    let both = PolicySource { path: "policies".into(), ..fine.clone() };
    assert!(both.problems()[0].contains("both"));
    let neither = PolicySource { bundle: None, ..fine };
    assert!(neither.problems()[0].contains("`path` or `bundle`"));
}

/// Gives `answers` one after the other, and says of each question whether the answer might have been held back.
fn serve(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<bool>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/b", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let answered = answers.iter().map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                question.extend(byte);
            }
            write!(stream, "HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8(question).unwrap().contains("wait=")
        });
        answered.collect()
    });
    (url, serving)
}

#[test]
fn one_odd_answer_does_not_end_long_polling() {
    net::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, serving) = serve(&[
        "200 OK\r\ncontent-type: application/vnd.openpolicyagent.bundles\r\netag: \"1\"",
        "200 OK\r\ncontent-type: text/html\r\netag: \"odd\"",
        "200 OK\r\ncontent-type: application/vnd.openpolicyagent.bundles\r\netag: \"2\"",
        "304 Not Modified",
        "200 OK\r\ncontent-type: application/vnd.openpolicyagent.bundles",
        "304 Not Modified",
    ]);
    let pauses: Vec<bool> = runtime.block_on(async {
        let tls = net::client_config(net::Roots::Platform).unwrap();
        let client = HttpClient::new(net::ClientOptions::new(tls, net::UrlTrust::Operator));
        let source = configured(&format!("{{ url: '{url}', poll: 1h, long_poll: 30s }}"));
        let mut asker = Asker::new(client, source.bundle.as_ref().unwrap()).unwrap();
        let mut soon = Vec::new();
        for _ in 0..6 {
            asker.ask(Some("\"0\""), &|_: &str| None).await.unwrap();
            soon.push(asker.pause(0, false) <= BREATH);
        }
        soon
    });
    // Asked again at once after what may be held back, but not where a server says at once that nothing changed.
    assert_eq!(pauses, [true, false, true, false, false, false]);
    // What has no name cannot be held back either.
    assert_eq!(serving.join().unwrap(), [true, true, false, true, true, false]);
}

#[test]
fn what_fails_is_asked_for_ever_more_seldom_and_never_at_one_moment() {
    net::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let tls = net::client_config(net::Roots::Platform).unwrap();
    let client = HttpClient::new(net::ClientOptions::new(tls, net::UrlTrust::Operator));
    let source = configured("{ url: http://127.0.0.1:1/b, poll: 10s }");
    let mut asker = Asker::new(client, source.bundle.as_ref().unwrap()).unwrap();
    let within = |pause: Duration, most: Duration| pause >= most / 2 && pause <= most;
    assert!(within(asker.pause(0, false), Duration::from_secs(10)));
    assert!(within(asker.pause(1, false), Duration::from_secs(1)));
    assert!(within(asker.pause(3, false), Duration::from_secs(4)));
    assert!(within(asker.pause(1_000_000, false), LONGEST_PAUSE));
    assert!(within(asker.pause(1, true), Duration::from_secs(10)), "what was refused is not asked for sooner");
    asker.wait = Some(Duration::from_secs(60));
    assert!(within(asker.pause(0, false), BREATH));
    assert!(within(asker.pause(4, true), Duration::from_secs(8)));
    asker.at_once = true;
    assert!(within(asker.pause(0, false), Duration::from_secs(10)));
}
