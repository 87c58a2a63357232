//! Signing keys over folders and databases: which one signs when, at whichever replica, and what is published.

use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;
use net::Tasks;
use store::{Database, Writer};

use super::*;

/// A database for one test.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::Sqlite(folder.path().join("authority.db"));
        let store = Store::open(&database, now(), &Tasks::new()).await.unwrap();
        Self { folder, store }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn joined(&self, name: &str, algorithm: SigningAlgorithm, second: i64) -> SigningKeys {
        let keys = open(&self.dir(name), algorithm).unwrap();
        keys.join(&self.store, at(second)).await.unwrap();
        keys
    }

    async fn published(&self, keys: &SigningKeys, second: i64) -> Vec<String> {
        keys.view(&self.store, (now(), u64::MAX), at(second)).await.unwrap().ids(at(second)).into_iter().collect()
    }
}

fn open(dir: &Path, algorithm: SigningAlgorithm) -> Result<SigningKeys, KeysError> {
    let mut config = KeysConfig { algorithm, ..KeysConfig::at(dir) };
    config.publish_ahead = model::duration::ConfigDuration::seconds(60);
    SigningKeys::open(&config, Duration::from_secs(300))
}

fn now() -> Timestamp {
    "2026-11-22T15:00:00Z".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    now() + SignedDuration::from_secs(second)
}

fn by_hand(second: i64) -> Writer {
    Writer { by: "dana".to_owned(), reason: None, now: at(second), idempotency: None }
}

fn signs(keys: &SigningKeys, second: i64) -> Option<(String, Algorithm)> {
    keys.signing(at(second)).map(|key| (key.id().to_owned(), key.algorithm()))
}

fn id(keys: &SigningKeys, second: i64) -> String {
    signs(keys, second).unwrap().0
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn keys_are_made_once_for_this_user_alone_and_sign_at_once_where_none_did() {
    let place = Place::new().await;
    let first = place.joined("keys", SigningAlgorithm::Es256, 0).await;
    let dir = place.dir("keys");
    assert_eq!((mode(&dir), mode(&dir.join("es256.pem"))), (0o700, 0o600));
    assert!(first.can_sign(at(0)));
    let again = place.joined("keys", SigningAlgorithm::Es256, 10).await;
    assert_eq!((first.jwks(), id(&first, 0)), (again.jwks(), id(&again, 10)));
    assert!(!first.jwks().to_string().contains("\"d\""));
    assert!(open(&dir, SigningAlgorithm::Es256).unwrap().signing(at(0)).is_none(), "nothing signs unpublished");
}

#[tokio::test]
async fn a_key_takes_over_at_one_moment_and_the_one_before_stays_until_its_last_token_ended() {
    let place = Place::new().await;
    // Two replicas of one folder.
    let (one, other) = (
        place.joined("keys", SigningAlgorithm::Es256, 0).await,
        place.joined("keys", SigningAlgorithm::Es256, 0).await,
    );
    let old = id(&one, 0);
    let new = one.rotate(&place.store, &by_hand(100)).await.unwrap().id;
    assert_eq!(mode(&file(&place.dir("keys"), &new)), 0o600);
    for keys in [&one, &other] {
        assert_eq!(place.published(keys, 100).await.len(), 2, "published before it signs");
        assert_eq!((id(keys, 159), id(keys, 160)), (old.clone(), new.clone()));
        // 300 s of a token's life, and a minute for clocks.
        assert_eq!((place.published(keys, 519).await.len(), place.published(keys, 520).await), (2, vec![new.clone()]));
    }
    assert!(matches!(
        Store::publish_signing_key(
            &place.store,
            &by_hand(101),
            &store::NewSigningKey {
                jwk: SigningKey::generate(Algorithm::Es256).unwrap().public_jwk().clone(),
                ahead: SignedDuration::ZERO,
                replaces: Some(old),
                lasts: SignedDuration::ZERO,
            }
        )
        .await,
        Err(StoreError::Conflict(_))
    ));
    // What a restart finds.
    assert_eq!(id(&place.joined("keys", SigningAlgorithm::Es256, 600).await, 600), new);
}

#[tokio::test]
async fn a_replica_with_a_folder_of_its_own_signs_when_everybody_can_know_its_key() {
    let place = Place::new().await;
    let one = place.joined("one", SigningAlgorithm::Es256, 0).await;
    let other = place.joined("other", SigningAlgorithm::Es256, 10).await;
    assert!(other.signing(at(69)).is_none() && other.can_sign(at(70)));
    assert_eq!(place.published(&one, 10).await.len(), 2);
    assert_ne!(id(&one, 70), id(&other, 70));
    // One rotates; the other goes on with its own.
    one.rotate(&place.store, &by_hand(100)).await.unwrap();
    other.lately(&place.store, at(200)).await.unwrap();
    assert!(other.can_sign(at(200)));
}

#[tokio::test]
async fn another_algorithm_takes_over_as_a_new_key_does() {
    let place = Place::new().await;
    let before = place.joined("keys", SigningAlgorithm::Es256, 0).await;
    let after = place.joined("keys", SigningAlgorithm::EdDsa, 100).await;
    assert_eq!(signs(&after, 159), signs(&before, 0));
    assert_eq!(signs(&after, 160).unwrap().1, Algorithm::EdDsa);
    assert_eq!(place.published(&after, 160).await.len(), 2);
    // And back again, with a key that is new too.
    let back = place.joined("keys", SigningAlgorithm::Es256, 1000).await;
    let (then, algorithm) = signs(&back, 1060).unwrap();
    assert!(algorithm == Algorithm::Es256 && then != id(&before, 0));
}

#[tokio::test]
async fn a_key_that_is_as_old_as_it_may_get_is_rotated_once() {
    let place = Place::new().await;
    let keys = place.joined("keys", SigningAlgorithm::EdDsa, 0).await;
    let day = Duration::from_secs(86_400);
    let old = id(&keys, 0);
    keys.rotate_when_due(&place.store, day, at(86_399)).await.unwrap();
    assert_eq!(place.published(&keys, 86_399).await.len(), 1);
    for second in [86_400, 86_401] {
        keys.rotate_when_due(&place.store, day, at(second)).await.unwrap();
    }
    assert_eq!(place.published(&keys, 86_402).await.len(), 2);
    assert!(id(&keys, 86_459) == old && id(&keys, 86_460) != old);
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_gone_at_once_and_a_restart_makes_another() {
    let place = Place::new().await;
    let keys = place.joined("keys", SigningAlgorithm::EdDsa, 0).await;
    let old = id(&keys, 0);
    let position = place.store.withdraw_signing_key(&by_hand(10), &old).await.unwrap().position;
    let view = keys.view(&place.store, (now(), position), at(10)).await.unwrap();
    assert!(view.ids(at(10)).is_empty() && !keys.can_sign(at(10)));
    assert_eq!(view.jwks()["keys"], json!([]));
    let again = place.joined("keys", SigningAlgorithm::EdDsa, 20).await;
    assert!(id(&again, 20) != old, "nothing signs, so the new one does at once");
}

#[tokio::test]
async fn what_was_read_before_a_restore_is_not_what_is_published_since_at_whichever_position() {
    let place = Place::new().await;
    let keys = place.joined("keys", SigningAlgorithm::EdDsa, 0).await;
    let old = id(&keys, 0);
    // As after a backup that was far behind: what is committed now has positions that were seen before.
    let far = {
        let last = keys.last();
        View::new((last.began, last.position + 1_000), last.keys.clone(), at(0)).unwrap()
    };
    *keys.view.write().unwrap() = Arc::new(far);
    let began = place.store.begin_generation(&by_hand(10)).await.unwrap().value.began;
    let position = place.store.withdraw_signing_key(&by_hand(20), &old).await.unwrap().position;
    let view = keys.view(&place.store, (began, position), at(20)).await.unwrap();
    assert!(view.ids(at(20)).is_empty() && !keys.can_sign(at(20)));
    // Whoever verifies is given what was read last, whatever somebody slower has read.
    keys.give(|set| {
        assert!(Arc::ptr_eq(set, view.set()) && keys.view.try_write().is_err(), "nothing comes in between");
    });
}

#[tokio::test]
async fn the_file_of_a_key_is_deleted_when_nothing_that_it_signed_can_be_good_and_not_before() {
    let place = Place::new().await;
    // One folder for two replicas, and another replica with its own.
    let keys = place.joined("keys", SigningAlgorithm::Es256, 0).await;
    let shares = place.joined("keys", SigningAlgorithm::Es256, 0).await;
    let other = place.joined("other", SigningAlgorithm::Es256, 0).await;
    let new = keys.rotate(&place.store, &by_hand(100)).await.unwrap().id;
    let started = audit::record::Started {
        component: audit::record::Component::Authority,
        name: "test".to_owned(),
        version: "0".to_owned(),
    };
    let settings = audit::LedgerSettings::new(place.dir("ledger"), started);
    let ledger = audit::Ledger::open(settings, &Tasks::new()).await.unwrap();
    let (old, mut said) = (id(&keys, 0), BTreeSet::new());
    let files = |name: &str| {
        let entries = fs::read_dir(place.dir(name)).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let (named, first) = (format!("{new}.pem"), "es256.pem".to_owned());
    // It is published until 520, and clocks differ by less than the 60 s that keys are published ahead.
    for (second, left) in [(519, &[&first, &named][..]), (579, &[&first, &named]), (580, &[&named]), (9_999, &[&named])]
    {
        for replica in [&keys, &shares, &other] {
            replica.delete_retired(&place.store, &ledger, &mut said, at(second)).await.unwrap();
        }
        assert_eq!(files("keys"), left.iter().map(|name| (*name).clone()).collect(), "{second}");
        assert_eq!(files("other"), [first.clone()].into(), "the one that signs is there");
    }
    for replica in [&keys, &shares] {
        assert!(!replica.held().contains_key(&old), "in memory it is gone too, whoever deleted the file");
    }
    assert_eq!(said, [old].into());
    for replica in [&keys, &other] {
        assert_eq!(place.published(replica, 9_999).await.len(), 2, "the keys that sign");
    }
    assert!(id(&keys, 9_999) == new && other.can_sign(at(9_999)));
    // Withdrawn, it goes at once, and a restart makes another.
    place.store.withdraw_signing_key(&by_hand(10_000), &new).await.unwrap();
    keys.delete_retired(&place.store, &ledger, &mut said, at(10_000)).await.unwrap();
    assert!(files("keys").is_empty() && files("other") == [first].into());
    // Which signs once everybody can know it: the other replica goes on meanwhile.
    let again = place.joined("keys", SigningAlgorithm::Es256, 10_001).await;
    assert!(again.signing(at(10_060)).is_none() && id(&again, 10_061) != new);
    let kinds = audit::query::query(&place.dir("ledger"), audit::query::Filter::default()).unwrap();
    let deleted: Vec<_> = kinds.map(Result::unwrap).filter(|entry| entry.kind == "key.deleted").collect();
    let because: Vec<_> = deleted.iter().map(|entry| entry.text("because").unwrap()).collect();
    assert_eq!(because, ["retired", "withdrawn"]);
}

#[tokio::test]
async fn keys_that_others_can_read_or_that_are_not_what_they_are_called_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("keys");
    drop(open(&dir, SigningAlgorithm::Es256).unwrap());
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let key = dir.join("es256.pem");
    chmod(&key, 0o640);
    assert!(open(&dir, SigningAlgorithm::Es256).unwrap_err().to_string().contains("0600"));
    chmod(&key, 0o600);
    chmod(&dir, 0o750);
    assert!(open(&dir, SigningAlgorithm::Es256).unwrap_err().to_string().contains("0700"));
    chmod(&dir, 0o700);
    let other = dir.join(format!("{}.pem", "a".repeat(43)));
    for misnamed in [dir.join("eddsa.pem"), other] {
        fs::rename(&key, &misnamed).unwrap();
        assert!(matches!(open(&dir, SigningAlgorithm::EdDsa), Err(KeysError::Misnamed { .. })));
        fs::rename(&misnamed, &key).unwrap();
    }
    fs::write(dir.join("eddsa.pem"), "not a key").unwrap();
    assert!(open(&dir, SigningAlgorithm::EdDsa).is_err());
}
