//! What is known of a bundle from before, whatever of it is still there. Servers are in the behaviour tests.

use super::{first::Last, *};
use crate::{
    config::document::Document,
    run::testing::{Folder, environment},
};

const HERE: &str = "https://bundles.example/here";

fn origin(sha256: &str) -> Origin {
    Origin { digest: Some(sha256.to_owned()), ..Origin::default() }
}

fn beside(folder: &Folder) -> LastGood {
    let mut config = Document::<SidecarConfig>::read(&folder.config(), &environment()).unwrap().value;
    config.ledger.dir = folder.path("ledger");
    LastGood::of(&config)
}

fn last(last_good: &LastGood, url: &str) -> Last {
    Last::of("org", url, last_good, |_| Err("nobody's".to_owned()))
}

#[test]
fn a_serial_counts_without_its_archive_and_from_another_server() {
    let folder = Folder::new(|config| config);
    let last_good = beside(&folder);
    assert_eq!(last(&last_good, HERE).taken, Taken::default());
    let taken = Taken { serial: Some(5), sha256: Some("five".to_owned()) };
    let Taken { serial, sha256 } = taken.clone();
    let note = Note { url: HERE.to_owned(), etag: None, serial, sha256, confirmed: net::clock::now() };
    last_good.keep("org", b"archive", &note).unwrap();

    let elsewhere = last(&last_good, "https://bundles.example/elsewhere");
    assert_eq!(elsewhere.taken, taken);
    assert!(elsewhere.kept.is_none() && !elsewhere.gone);
    assert!(elsewhere.may_be(&origin("five")) && !elsewhere.may_be(&origin("other")));
    // Nobody's signature counts on it any more: it may have been signed anew.
    let here = last(&last_good, HERE);
    assert!(here.gone && here.may_be(&origin("other")));
    assert_eq!(here.taken, taken);
    std::fs::remove_file(folder.path("ledger-bundles/org.tar.gz")).unwrap();
    let noted = last(&last_good, HERE);
    assert_eq!(noted.taken, taken);
    assert!(!noted.may_be(&origin("other")));
}

#[test]
fn a_note_of_before_digests_were_noted_still_counts() {
    let note =
        r#"{"url": "https://bundles.example/here", "etag": null, "serial": 5, "confirmed": "2026-01-01T00:00:00Z"}"#;
    let note: Note = serde_json::from_str(note).unwrap();
    assert_eq!(note.taken(), Taken { serial: Some(5), sha256: None });
}

#[test]
fn nothing_changed_is_never_said_of_what_was_refused_and_no_serial_counts_that_was_not_kept() {
    let folder = Folder::new(|config| config);
    let followed = Followed {
        url: HERE.to_owned(),
        freshness: Arc::new(Freshness::new(net::clock::now(), None)),
        again: Notify::new(),
        known: Mutex::default(),
    };
    let followed = BTreeMap::from([("org".to_owned(), Arc::new(followed))]);
    let bundles = Bundles { followed, last_good: Some(beside(&folder)) };
    let taken = |serial: u64| Taken { serial: Some(serial), sha256: Some(serial.to_string()) };
    let etag = || bundles.followed["org"].known().etag.clone();
    let now = net::clock::now();
    bundles.keep("org", b"five", Some("same"), taken(5), now).unwrap();
    assert_eq!((etag().as_deref(), bundles.taken("org")), (Some("same"), taken(5)));
    bundles.refused("org", None, "its server calls it the same", now);
    assert_eq!((etag(), bundles.taken("org")), (None, taken(5)));
    bundles.is_the_one("org", Some("same"));
    assert_eq!(etag().as_deref(), Some("same"));

    std::fs::remove_dir_all(folder.path("ledger-bundles")).unwrap();
    std::fs::write(folder.path("ledger-bundles"), "in the way").unwrap();
    bundles.keep("org", b"six", Some("six"), taken(6), now).unwrap_err();
    assert_eq!((etag().as_deref(), bundles.taken("org")), (Some("same"), taken(5)));
}
