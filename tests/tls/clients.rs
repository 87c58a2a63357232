//! Client certificates on connections that stay open: they are good for as long as they and their authorities are,
//! and for the names of their own trust domain only.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout},
    time::{Duration, SystemTime},
};

use serde_json::json;

use super::{Authority, Identity, listener, text};
use crate::support::{Curl, PATIENCE, Sidecar, World, eventually, sidecar::Setup, world};

/// A sidecar that requires client certificates, and the authority that signed its own.
struct Required {
    sidecar: Sidecar,
    listener: Authority,
}

impl Required {
    /// `prepare` may change the listener's `tls` and write what it names.
    fn start(world: &World, prepare: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new(&world.openid, &world.tool);
        setup.config["listen"]["agent"] = listener("require");
        setup.config["listen"]["agent"]["bearer"] = json!("all");
        let listener = Authority::new();
        setup.write_secret("trusted.pem", &listener.pem);
        setup.write_secret("authority.pem", &listener.pem);
        listener.sign(setup.directory(), "listener", "listener");
        prepare(&mut setup);
        Self { sidecar: setup.start(), listener }
    }

    /// `curl` with this certificate, asking for `paths` one after the other.
    fn curl(&self, identity: &Identity, token: &str, paths: &[&str]) -> Curl {
        let url = |path: &str| format!("https://127.0.0.1:{}{path}", self.sidecar.port());
        let (first, others) = paths.split_first().unwrap();
        let trusted = self.sidecar.directory().join("trusted.pem");
        let curl = Curl::get(url(first)).bearer(token).argument("--cacert").argument(text(&trusted));
        let curl = curl.argument("--cert").argument(text(&identity.certificate));
        let curl = curl.argument("--key").argument(text(&identity.key));
        others.iter().fold(curl, |curl, path| curl.argument(&url(path)))
    }

    /// A connection on which a call is made every quarter of a second; a line for each.
    fn busy(&self, identity: &Identity, token: &str) -> Running {
        let curl = self.curl(identity, token, &["/orders/v1/orders/17"; 400]).argument("--rate").argument("4/s");
        let curl = curl.argument("--write-out").argument("%{stderr}%{http_code} %{num_connects}\\n");
        let mut child = curl.command().spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Running { lines: Box::new(lines.lines().map(Result::unwrap)), child }
    }

    /// A connection on which a tool streams; a line for each event.
    fn stream(&self, identity: &Identity, token: &str) -> Running {
        let curl = self.curl(identity, token, &["/orders/v1/stream?count=100000&every=50"]).argument("--no-buffer");
        let mut child = curl.command().spawn().unwrap();
        let lines = BufReader::<ChildStdout>::new(child.stdout.take().unwrap());
        Running { lines: Box::new(lines.lines().map(Result::unwrap)), child }
    }
}

/// A `curl` that has begun.
struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Running {
    #[track_caller]
    fn next(&mut self) -> String {
        self.lines.next().expect("it goes on")
    }

    /// Waits until it ends by itself.
    fn ends(&mut self, what: &str) {
        eventually(what, || self.child.try_wait().unwrap());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn calls_and_streams_of_an_open_connection_end_with_the_clients_certificate() {
    let Some(world) = world() else { return };
    let required = Required::start(world, |_| {});
    let directory = required.sidecar.directory();
    let end = SystemTime::now() + Duration::from_secs(5);
    let short = required.listener.sign_until(directory, "short", "short", Some(end));
    let long = required.listener.sign(directory, "long", "long");
    let (token, probe) = (world.openid.delegated("alice"), world.probe());
    let mut kept = required.stream(&long, &probe);
    kept.next();
    let mut stream = required.stream(&short, &probe);
    let mut busy = required.busy(&short, &token);
    stream.next();
    assert_eq!(busy.next(), "200 1");
    assert_eq!(busy.next(), "200 0", "the connection is used again");

    // The certificate is good in all of the second that it names.
    let closed = eventually("a call that does not go", || {
        let line = busy.next();
        (!line.starts_with("200")).then_some(line)
    });
    assert!(SystemTime::now() + Duration::from_secs(1) >= end, "{closed}");
    for _ in 0..4 {
        let line = busy.next();
        assert!(!line.starts_with("200"), "{line}");
    }
    stream.ends("the stream to be cut");
    assert!(required.curl(&short, &token, &["/orders/v1/orders/17"]).attempt().is_err());
    // Somebody else's connection of the same time moves on.
    for _ in 0..5 {
        kept.next();
    }
    required.curl(&long, &token, &["/orders/v1/orders/17"]).send().went(200);
    assert!(PATIENCE > Duration::from_secs(15), "what is on its way gets ten seconds");
}

#[test]
fn an_authority_that_is_taken_away_takes_its_connections_with_it_and_no_others() {
    let Some(world) = world() else { return };
    let (leaving, staying) = (Authority::new(), Authority::new());
    let required = Required::start(world, |setup| {
        setup.write_secret("authority.pem", &format!("{}{}", leaving.pem, staying.pem));
    });
    let directory = required.sidecar.directory();
    let (gone, kept) = (leaving.sign(directory, "gone", "gone"), staying.sign(directory, "kept", "kept"));
    let (token, probe) = (world.openid.delegated("alice"), world.probe());
    let (mut gone_busy, mut kept_busy) = (required.busy(&gone, &token), required.busy(&kept, &token));
    let (mut gone_stream, mut kept_stream) = (required.stream(&gone, &probe), required.stream(&kept, &probe));
    assert_eq!((gone_busy.next().as_str(), kept_busy.next().as_str()), ("200 1", "200 1"));
    gone_stream.next();
    kept_stream.next();

    let authorities = required.sidecar.directory().join("authority.pem");
    // A file that is broken for a moment changes nothing.
    fs::write(&authorities, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    eventually("the broken file to be noticed", || {
        required.sidecar.daemon.output().contains("cannot be used").then_some(())
    });
    assert_eq!(gone_busy.next(), "200 0");
    fs::write(&authorities, &staying.pem).unwrap();
    eventually("a call that does not go", || (!gone_busy.next().starts_with("200")).then_some(()));
    assert!(required.curl(&gone, &token, &["/orders/v1/orders/17"]).attempt().is_err());
    gone_stream.ends("the stream to be cut");
    // The others never noticed: the same connections, no call lost.
    for _ in 0..8 {
        assert_eq!(kept_busy.next(), "200 0");
    }
    for _ in 0..20 {
        kept_stream.next();
    }
}

#[test]
fn nobody_signs_for_the_names_of_another_trust_domain() {
    let Some(world) = world() else { return };
    let (one, two, plain) = (Authority::new(), Authority::new(), Authority::new());
    let required = Required::start(world, |setup| {
        setup.write_secret("authority.pem", &plain.pem);
        setup.write_secret("one.pem", &one.pem);
        setup.write_secret("two.pem", &two.pem);
        setup.config["listen"]["agent"]["tls"]["trust_domains"] =
            json!({"one.example": "one.pem", "two.example": "two.pem"});
    });
    let token = world.openid.delegated("alice");
    let cases = [
        (&one, "spiffe://one.example/agent", true),
        (&two, "spiffe://two.example/agent", true),
        (&plain, "agent", true),
        (&two, "spiffe://one.example/agent", false),
        (&one, "spiffe://two.example/agent", false),
        (&plain, "spiffe://one.example/agent", false),
        (&one, "spiffe://three.example/agent", false),
        (&one, "agent", false),
    ];
    for (number, (authority, name, believed)) in cases.into_iter().enumerate() {
        let identity = authority.sign(required.sidecar.directory(), &format!("agent-{number}"), name);
        let call = required.curl(&identity, &token, &["/orders/v1/orders/17"]).attempt();
        assert_eq!(call.is_ok_and(|answer| answer.status == 200), believed, "{number}: {name}");
    }
}
