//! A ledger that is shipped: its copy is the ledger, whatever breaks on the way, and nothing else is taken for it.

use std::fs;

use bytes::Bytes;

use super::*;
use crate::{
    RetentionConfig, VerifyingKey,
    erasure::{Erasure, Person},
    keeper,
    segment::{self, Paths, Seal},
    ship::{
        NotTaken, Shelf,
        chunk::{Chunk, Stand},
        chunks::{Chunks, kept},
    },
    verify::{Amended, Options, VerifyError},
};

/// A ledger of small segments, and the shelf of an authority.
struct Shipped {
    dir: tempfile::TempDir,
    kept: Kept,
    key: VerifyingKey,
}

async fn shipped(change: impl FnOnce(&mut LedgerSettings)) -> Shipped {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = LedgerSettings { segment_max_bytes: 6000, ..settings(dir.path()) };
    change(&mut settings);
    let kept = try_open(settings).await.unwrap();
    let key = kept.ledger.verifying_key().clone();
    Shipped { dir, kept, key }
}

impl Shipped {
    fn ledger(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger")
    }

    /// The shelf as it is after a restart of the authority.
    fn shelf(&self) -> Shelf {
        Shelf::new(self.dir.path().join("shelf"))
    }

    fn copy(&self) -> std::path::PathBuf {
        self.shelf().directory(self.kept.ledger.id()).unwrap()
    }

    async fn calls(&self, from: u128, count: u128, user: &str) {
        let delegation = Arc::new(testing::delegation_of(user, "https://sso.example/realms/acme"));
        for number in from..from + count {
            self.kept.call(number, &delegation).await;
        }
    }

    async fn sign(&self) -> u64 {
        let pen = self.kept.ledger.pen();
        blocking(move || pen.sign().unwrap()).await;
        self.kept.ledger.head().unwrap().size
    }

    /// The next chunk after what `shelf` has.
    fn next(&self, shelf: &Shelf, signed: u64) -> Option<Box<Chunk>> {
        let stand = shelf.stand(&self.key).unwrap();
        let mut chunks = Chunks::open(&self.ledger(), &stand).unwrap()?;
        let mut chunk = chunks.next(signed, &self.key, "proof").unwrap()?;
        chunk.head = (chunk.end() == signed).then(|| fs::read_to_string(self.ledger().join("head")).unwrap());
        // As it crosses the wire.
        Some(Box::new(Chunk::read(&chunk.written().unwrap()).unwrap()))
    }

    /// Ships all that is signed; how many chunks that took. Both sides begin anew for each.
    async fn ship(&self) -> usize {
        let signed = self.sign().await;
        let mut chunks = 0;
        while let Some(chunk) = self.next(&self.shelf(), signed) {
            self.shelf().take(&self.key, &chunk).unwrap();
            chunks += 1;
        }
        chunks
    }

    fn verify_copy(&self, amended: Amended) -> Result<verify::Report, VerifyError> {
        let note = fs::read_to_string(self.ledger().join("head")).unwrap();
        let options = Options { key: Some(self.key.clone()), heads: vec![note], amended };
        verify::verify(&self.copy(), &options, |_| {})
    }
}

fn entries(dir: &Path) -> Vec<Entry> {
    query::query(dir, Filter::default()).unwrap().collect::<Result<_, _>>().unwrap()
}

fn erasure(user: &str) -> Erasure {
    let person = Person { user: user.to_owned(), issuer: None, tenant: None };
    Erasure::new(person, "data protection", "request 17").unwrap()
}

#[tokio::test]
async fn a_copy_is_the_ledger_byte_for_byte_wherever_either_side_begins_anew() {
    let shipped = shipped(|_| ()).await;
    for round in 0..8 {
        shipped.calls(round * 10, 2, "alice@acme").await;
        assert!(shipped.ship().await > 0);
        assert_eq!(entries(&shipped.copy()), entries(&shipped.ledger()));
    }
    shipped.verify_copy(Amended::default()).unwrap();
    let Shipped { dir, kept, key } = shipped;
    let id = kept.ledger.id().to_owned();
    kept.close().await;
    let shelf = Shelf::new(dir.path().join("shelf"));
    let ledger = dir.path().join("ledger");
    let size = crate::Head::verify(&fs::read_to_string(ledger.join("head")).unwrap(), &key).unwrap().size;
    loop {
        let Some(mut chunks) = Chunks::open(&ledger, &shelf.stand(&key).unwrap()).unwrap() else { break };
        let Some(chunk) = chunks.next(size, &key, "").unwrap() else { break };
        shelf.take(&key, &chunk).unwrap();
    }
    let copy = shelf.directory(&id).unwrap();
    for entry in fs::read_dir(&ledger).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if ["journal", "lock", "reserve"].contains(&name.as_str()) {
            continue;
        }
        assert_eq!(fs::read(copy.join(&name)).unwrap(), fs::read(&path).unwrap(), "{name}");
    }
    let report = verify::verify(&copy, &Options::default(), |_| {}).unwrap();
    assert_eq!((report.lines_after_last_head, report.records), (0, size));
}

#[tokio::test]
async fn what_is_not_the_ledgers_is_not_taken_and_leaves_the_copy_as_it_was() {
    let shipped = shipped(|_| ()).await;
    shipped.calls(1, 1, "alice@acme").await;
    shipped.ship().await;
    shipped.calls(10, 4, "alice@acme").await;
    let signed = shipped.sign().await;
    let shelf = shipped.shelf();
    let good = *shipped.next(&shelf, signed).unwrap();
    assert!(good.seal.is_some() && !good.heads.is_empty());
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (lines, values, heads) = (text(&good.lines), text(&good.values), text(&good.heads));
    let with = |change: &dyn Fn(&mut Chunk)| {
        let mut chunk = good.clone();
        change(&mut chunk);
        chunk
    };
    let before = shelf.stand(&shipped.key).unwrap();
    let hostile = [
        with(&|chunk| chunk.lines = lines.replacen("permit", "denied", 1).into()),
        with(&|chunk| chunk.lines = lines.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>().into()),
        with(&|chunk| chunk.lines = lines.trim_end().to_owned().into()),
        with(&|chunk| chunk.lines = format!("\n{lines}").into()),
        with(&|chunk| chunk.lines = "not json\n".into()),
        with(&|chunk| chunk.values = values.replacen("alice@acme", "mallory@acme", 1).into()),
        with(&|chunk| chunk.values = format!("{values}{{\"seq\":99,\"values\":{{}}}}\n").into()),
        with(&|chunk| chunk.values = "{\"seq\":0}\n".into()),
        with(&|chunk| chunk.segment += 1),
        with(&|chunk| chunk.first += 1),
        with(&|chunk| chunk.heads_at += 1),
        with(&|chunk| chunk.head = Some(fs::read_to_string(shipped.ledger().join("head")).unwrap() + "x")),
        with(&|chunk| chunk.head = Some("not a head".to_owned())),
    ];
    for chunk in &hostile {
        let refused = shelf.take(&shipped.key, chunk).unwrap_err();
        assert!(matches!(refused, NotTaken::Wrong(_) | NotTaken::Elsewhere(_) | NotTaken::Forked), "{refused}");
        assert_eq!(shelf.stand(&shipped.key).unwrap(), before);
    }
    // Of a segment's end, what could not be verified is asked for again.
    let seal = good.seal.clone().unwrap();
    for chunk in [
        with(&|chunk| chunk.seal = Some(seal.replace("\"records\":", "\"records\":1"))),
        with(&|chunk| chunk.heads = heads.replacen('\n', "x\n", 1).into()),
        with(&|chunk| chunk.heads = Bytes::new()),
    ] {
        assert!(matches!(shelf.take(&shipped.key, &chunk), Err(NotTaken::Wrong(_) | NotTaken::Elsewhere(_))));
        assert!(!shelf.stand(&shipped.key).unwrap().sealed);
    }
    shipped.ship().await;
    shipped.verify_copy(Amended::default()).unwrap();
    let another = crate::keys::load_or_create(&shipped.dir.path().join("another.key")).unwrap();
    let another = VerifyingKey::of("not a ledger", &another);
    assert!(matches!(shelf.stand(&another), Err(NotTaken::Wrong(_))), "no name leads out of the folder");
    assert_eq!(shelf.directory("../../../../etc"), None);
    shipped.kept.close().await;
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cut_off_and_comes_again() {
    let shipped = shipped(|settings| settings.segment_max_bytes = 1_000_000).await;
    shipped.calls(1, 3, "alice@acme").await;
    shipped.ship().await;
    let stand = shipped.shelf().stand(&shipped.key).unwrap();
    let paths = Paths::new(&shipped.copy(), stand.segment);
    shipped.calls(10, 3, "alice@acme").await;
    let signed = shipped.sign().await;
    let chunk = shipped.next(&shipped.shelf(), signed).unwrap();
    let grow = |path: &Path, bytes: &[u8]| {
        let mut whole = fs::read(path).unwrap();
        whole.extend_from_slice(bytes);
        fs::write(path, whole).unwrap();
    };
    // All rows, and the half of a line.
    grow(&paths.values, &chunk.values);
    grow(&paths.lines, &chunk.lines[..100]);
    assert_eq!(shipped.shelf().stand(&shipped.key).unwrap(), stand);
    shipped.ship().await;
    assert_eq!(entries(&shipped.copy()), entries(&shipped.ledger()));
    // A replica that shares the folder goes on where another one stopped, whatever it remembers.
    let (one, other) = (shipped.shelf(), shipped.shelf());
    for (round, shelf) in [&one, &other, &one, &other].into_iter().enumerate() {
        shipped.calls(100 + round as u128, 1, "alice@acme").await;
        let signed = shipped.sign().await;
        let chunk = shipped.next(shelf, signed).unwrap();
        shelf.take(&shipped.key, &chunk).unwrap();
        let again = shelf.take(&shipped.key, &chunk).unwrap_err();
        assert!(matches!(again, NotTaken::Elsewhere(Stand { next, .. }) if next == signed), "{again}");
    }
    shipped.verify_copy(Amended::default()).unwrap();
    shipped.kept.close().await;
}

#[tokio::test]
async fn a_copy_may_begin_after_what_was_retired() {
    let retention = RetentionConfig { max_age: None, max_bytes: Some(30_000) };
    let shipped = shipped(|settings| settings.retention = retention).await;
    shipped.calls(1, 20, "alice@acme").await;
    let first = || segment::list(&shipped.ledger()).unwrap()[0];
    eventually("some segments to be retired", || first() > 3).await;
    shipped.kept.ledger.needed_from("shipping", 0);
    // The keeper does one thing at a time: what it had begun to retire is retired when it answers.
    shipped.kept.ledger.erase(erasure("nobody@acme")).await.unwrap();
    shipped.ship().await;
    assert_eq!(segment::list(&shipped.copy()).unwrap()[0], first());
    let report = shipped.verify_copy(Amended::default()).unwrap();
    assert!(report.retired_records > 0, "{report:?}");
    shipped.kept.close().await;
}

#[tokio::test]
async fn a_ledger_that_was_rewritten_does_not_continue_its_copy() {
    let one = shipped(|_| ()).await;
    one.calls(1, 2, "alice@acme").await;
    one.ship().await;
    let stand = one.shelf().stand(&one.key).unwrap();
    // Another history under the same name and key.
    let other = shipped(|_| ()).await;
    other.calls(1, 4, "alice@acme").await;
    let signed = other.sign().await;
    let mut chunks = Chunks::open(&other.ledger(), &stand).unwrap().unwrap();
    let mut chunk = chunks.next(signed, &one.key, "").unwrap().unwrap();
    chunk.segment = stand.segment;
    let refused = one.shelf().take(&one.key, &chunk).unwrap_err();
    assert!(matches!(refused, NotTaken::Forked), "{refused}");
    one.kept.close().await;
    other.kept.close().await;
}

#[tokio::test]
async fn who_is_erased_in_the_ledger_is_erased_in_the_copy_at_the_ledgers_word_alone() {
    let shipped = shipped(|_| ()).await;
    for round in 0..5 {
        shipped.calls(round * 10, 1, "alice@acme").await;
        shipped.calls(round * 10 + 1, 1, "bob@acme").await;
    }
    shipped.ship().await;
    let shelf = shipped.shelf();
    let wanted = |shelf: &Shelf| shelf.stand(&shipped.key).unwrap().erase;
    let everything = |segment| kept(&shipped.ledger(), segment, &shipped.key, "").unwrap().unwrap();
    assert_eq!(shelf.erase_but(&shipped.key, &everything(1)).unwrap().1, None, "nothing is asked for");

    let erased = shipped.kept.ledger.erase(erasure("alice@acme")).await.unwrap();
    assert!(erased.records > 0);
    assert_eq!(wanted(&shelf), [] as [u64; 0], "not before the record has come");
    shipped.ship().await;
    assert_eq!(wanted(&shipped.shelf()), erased.segments);
    let mut none =
        erased.segments.iter().map(|segment| everything(*segment)).find(|kept| !kept.rows.is_empty()).unwrap();
    none.rows.clear();
    assert!(matches!(shelf.erase_but(&shipped.key, &none), Err(NotTaken::Wrong(_))), "no more than is on record");
    for segment in &erased.segments {
        let (_, taken) = shipped.shelf().erase_but(&shipped.key, &everything(*segment)).unwrap();
        assert!(taken.unwrap().records > 0);
    }
    assert_eq!(wanted(&shipped.shelf()), [] as [u64; 0]);
    assert_eq!(entries(&shipped.copy()), entries(&shipped.ledger()));
    assert!(entries(&shipped.copy()).iter().all(|entry| entry.text_at("/user/id") != Some("alice@acme")));
    let report = shipped.verify_copy(Amended::default()).unwrap();
    assert!(report.erased > 0 && report.unfinished_erasures == 0, "{report:?}");
    verify::verify(&shipped.copy(), &Options::default(), |_| {}).unwrap();
    shipped.kept.close().await;
}

#[tokio::test]
async fn the_authority_erases_in_a_copy_by_its_own_word_and_the_copy_verifies_by_that_word_only() {
    let shipped = shipped(|_| ()).await;
    shipped.calls(1, 5, "alice@acme").await;
    shipped.calls(10, 2, "bob@acme").await;
    shipped.ship().await;
    let shelf = shipped.shelf();
    assert!(!shelf.stand(&shipped.key).unwrap().sealed, "its last segment is not complete");
    let before = entries(&shipped.copy());
    let full = |_: &crate::ship::Taken| Err(LedgerError::Unavailable("the disk is full".to_owned()));
    assert!(shelf.erase(&shipped.key, &erasure("alice@acme"), full).is_err());
    assert_eq!(entries(&shipped.copy()), before, "nothing goes that is not on record");
    let mut recorded = Vec::new();
    let record = |taken: &crate::ship::Taken| {
        recorded.push(taken.clone());
        Ok(())
    };
    let taken = shelf.erase(&shipped.key, &erasure("alice@acme"), record).unwrap();
    assert_eq!(recorded, taken);
    let taken_bob = shelf.erase(&shipped.key, &erasure("bob@acme"), |_| Ok(())).unwrap();
    assert!(taken.len() > 1 && !taken_bob.is_empty(), "{taken:?}");
    let amended = || Amended::read(&shipped.copy()).unwrap();
    let found = entries(&shipped.copy());
    assert!(found.iter().filter(|entry| entry.kind == "call.decided").all(|entry| !entry.erased.is_empty()));
    let report = shipped.verify_copy(amended()).unwrap();
    assert!(report.erased > 0, "{report:?}");
    assert!(matches!(shipped.verify_copy(Amended::default()), Err(VerifyError::Broken(_))));
    // The ledger goes on, and so does the copy.
    shipped.calls(20, 4, "carol@acme").await;
    shipped.calls(30, 2, "dave@acme").await;
    shipped.ship().await;
    shipped.verify_copy(amended()).unwrap();
    assert!(entries(&shipped.copy()).iter().any(|entry| entry.text_at("/user/id") == Some("carol@acme")));
    // Then the ledger erases somebody too, of the same segments among others.
    let erased = shipped.kept.ledger.erase(erasure("carol@acme")).await.unwrap();
    shipped.ship().await;
    for segment in shipped.shelf().stand(&shipped.key).unwrap().erase {
        let left = kept(&shipped.ledger(), segment, &shipped.key, "").unwrap().unwrap();
        shipped.shelf().erase_but(&shipped.key, &left).unwrap();
    }
    assert!(erased.records > 0);
    shipped.verify_copy(amended()).unwrap();
    assert!(entries(&shipped.copy()).iter().all(|entry| entry.text_at("/user/id") != Some("carol@acme")));
    // More than the authority said it took is missed.
    let segments = segment::list(&shipped.copy()).unwrap();
    let values = segments.into_iter().map(|index| Paths::new(&shipped.copy(), index).values);
    let some = values.into_iter().find(|values| fs::metadata(values).unwrap().len() > 0).unwrap();
    fs::write(some, "").unwrap();
    assert!(matches!(shipped.verify_copy(amended()), Err(VerifyError::Broken(_))));
    shipped.kept.close().await;
}

#[tokio::test]
async fn a_copy_is_kept_as_long_as_the_authority_says_and_verifies_from_there() {
    let shipped = shipped(|_| ()).await;
    shipped.calls(1, 12, "alice@acme").await;
    shipped.ship().await;
    let shelf = shipped.shelf();
    let everything = RetentionConfig::default();
    assert!(shelf.retire(&everything, net::clock::now()).unwrap().is_empty());
    let some = RetentionConfig { max_age: None, max_bytes: Some(30_000) };
    let taken = shelf.retire(&some, net::clock::now()).unwrap();
    assert!(taken.len() > 1 && taken.iter().all(|taken| taken.left.is_none() && taken.records > 0), "{taken:?}");
    let amended = Amended::read(&shipped.copy()).unwrap();
    let report = shipped.verify_copy(amended.clone()).unwrap();
    assert_eq!(report.retired_segments, taken.len() as u64);
    assert!(matches!(shipped.verify_copy(Amended::default()), Err(VerifyError::Broken(_))));
    shipped.calls(50, 3, "alice@acme").await;
    shipped.ship().await;
    shipped.verify_copy(amended).unwrap();
    let nothing = RetentionConfig { max_age: None, max_bytes: Some(0) };
    shelf.retire(&nothing, net::clock::now()).unwrap();
    assert_eq!(segment::list(&shipped.copy()).unwrap().len(), 1, "the last one stays");
    shipped.calls(60, 3, "alice@acme").await;
    shipped.ship().await;
    shipped.verify_copy(Amended::read(&shipped.copy()).unwrap()).unwrap();
    shipped.kept.close().await;
}

#[tokio::test]
async fn a_segment_that_was_retired_after_an_erasure_leaves_no_erasure_unfinished() {
    let shipped = shipped(|_| ()).await;
    shipped.calls(1, 3, "alice@acme").await;
    let erased = shipped.kept.ledger.erase(erasure("alice@acme")).await.unwrap();
    let last = *erased.segments.last().unwrap();
    let (ledger, pen) = (shipped.ledger(), shipped.kept.ledger.pen());
    blocking(move || {
        for index in 1..=last {
            keeper::retire::mark(&ledger, index).unwrap();
            keeper::retire::put_on_record(&ledger, index, "max_age", &pen).unwrap();
            keeper::retire::remove(&ledger, index).unwrap();
        }
    })
    .await;
    assert!(Seal::read(&Paths::new(&shipped.ledger(), last).seal).unwrap().is_some());
    assert_eq!(verified(shipped.dir.path()).unfinished_erasures, 0);
    shipped.kept.close().await;
}

#[tokio::test]
async fn a_search_goes_on_at_any_record_as_if_it_had_never_stopped() {
    let shipped = shipped(|_| ()).await;
    let alice = Arc::new(testing::delegation_of("alice@acme", "https://sso.example/realms/acme"));
    let long = shipped.kept.ledger.decided(permitted(shipped.kept.question(1, &alice))).await.unwrap();
    for round in 1..6 {
        shipped.calls(round * 10, 1, "alice@acme").await;
        shipped.calls(round * 10 + 1, 1, "bob@acme").await;
    }
    shipped.kept.ledger.settled(completed(long.id())).await.unwrap();
    assert!(segment::list(&shipped.ledger()).unwrap().len() > 3, "the long call ends in another segment");
    let filter = || Filter { user: Some("alice@acme".to_owned()), ..Filter::default() };
    let whole: Vec<_> = query::query(&shipped.ledger(), filter()).unwrap().map(Result::unwrap).collect();
    assert!(whole.last().unwrap().text("decision_id") == Some(long.id().as_str()), "its end is the last");
    for seq in 0..=shipped.sign().await {
        let rest: Vec<_> = query::query_from(&shipped.ledger(), filter(), seq).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = whole.iter().filter(|entry| entry.seq >= seq).cloned().collect();
        assert_eq!(rest, expected, "from {seq}");
    }
    let theirs = |tenant: &str| Filter { tenants: Some([tenant.to_owned()].into()), ..Filter::default() };
    let of = |tenant| query::query(&shipped.ledger(), theirs(tenant)).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert!(of("another").is_empty());
    assert!(of("acme").iter().all(|entry| entry.kind.starts_with("call.") || entry.kind == "token.seen"));
    assert_eq!(of("acme").iter().filter(|entry| entry.kind == "call.settled").count(), 11, "with their ends");
    shipped.kept.close().await;
}
