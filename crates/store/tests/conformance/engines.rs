//! What only one engine can do, or have done to it.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use countersign_store::{Database, OpenError, Store, StoreError};
use net::Tasks;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    crash::is_whole,
    place::{Place, eventually, keyed, now, target, writer},
    postgres::Server,
};

/// Everything that the database holds, as text.
pub(crate) fn raw(place: &Place) -> String {
    match &place.database {
        Database::Sqlite(path) => {
            let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
            let log = path.with_extension("db-wal");
            read(path) + &read(&log)
        }
        Database::Postgres(url) => {
            let url = url.expose_secret();
            let (socket, name) = url.trim_start_matches("postgres://countersign@").split_once('/').unwrap();
            let dump =
                Command::new("pg_dump").args(["-U", "countersign", "-h", &socket.replace("%2F", "/"), name]).output();
            String::from_utf8_lossy(&dump.unwrap().stdout).into_owned()
        }
    }
}

/// Runs a statement past the store.
pub(crate) async fn statement(place: &Place, sql: &'static str) {
    use sqlx::{Connection, Executor};
    match &place.database {
        Database::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            sqlx::SqliteConnection::connect(&url).await.unwrap().execute(sql).await.unwrap();
        }
        Database::Postgres(url) => {
            sqlx::PgConnection::connect(url.expose_secret()).await.unwrap().execute(sql).await.unwrap();
        }
    }
}

/// The one number that a question past the store is answered with.
pub(crate) async fn count(place: &Place, sql: &'static str) -> i64 {
    use sqlx::{Connection, Row};
    match &place.database {
        Database::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query(sql).fetch_one(&mut connection).await.unwrap().get(0)
        }
        Database::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
            sqlx::query(sql).fetch_one(&mut connection).await.unwrap().get(0)
        }
    }
}

fn file(place: &Place) -> &Path {
    match &place.database {
        Database::Sqlite(path) => path,
        Database::Postgres(_) => panic!("a file"),
    }
}

#[tokio::test]
async fn a_database_file_is_for_its_owner_alone_and_refused_where_it_is_not() {
    let place = Place::sqlite();
    let store = place.open().await;
    store.withdraw(&writer(), target("task:a")).await.unwrap();
    for name in ["authority.db", "authority.db-wal", "authority.db-shm"] {
        let mode = std::fs::metadata(place.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    std::fs::set_permissions(file(&place), std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Store::open(&place.database, now(), &place.tasks).await.unwrap_err();
    assert!(matches!(error, OpenError::NotPrivate { mode: 0o640, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_may_be_there_later_and_a_wrong_url_stays_wrong() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let open =
        async |url: String| Store::open(&Database::Postgres(url.into()), now(), &Tasks::new()).await.unwrap_err();
    let gone = open(format!("postgres://nobody@127.0.0.1:{port}/none")).await;
    assert!(matches!(gone, OpenError::Unreachable { .. }), "{gone}");
    assert!(matches!(open("postgres//".to_owned()).await, OpenError::Url));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_says_so_and_goes_on_when_it_is_free() {
    use sqlx::{Connection, Executor};
    let place = Place::sqlite();
    let store = place.open().await;
    store.withdraw(&writer(), target("task:a")).await.unwrap();
    let url = format!("sqlite://{}", file(&place).display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let error = store.withdraw(&keyed("key"), target("task:b")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { .. }) && error.to_string().contains("locked"), "{error}");
    assert_eq!(store.head().await.unwrap().position, 1, "what was committed can be read all the while");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.withdraw(&keyed("key"), target("task:b")).await.unwrap().position, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_says_so_and_loses_nothing() {
    let place = Place::sqlite();
    place.open().await.close().await;
    // As a disk that is full: no file of the process grows beyond this.
    let limited = "trap '' XFSZ; exec prlimit --fsize=600000 \"$@\"";
    let child = Command::new("sh")
        .args(["-c", limited, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", crate::CHILD, "--nocapture", "--test-threads=1"])
        .env("COUNTERSIGN_TEST_STORE", place.named())
        .env("COUNTERSIGN_TEST_STORE_NAME", "full")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("failed")).collect();
    assert_eq!(failed.len(), 4, "each writer was told: {said}");
    assert!(failed.iter().all(|line| line.contains("not available")), "{failed:?}");
    let made: BTreeMap<String, u64> = said
        .lines()
        .filter_map(|line| line.strip_prefix("made ")?.split_once(' '))
        .map(|(position, name)| (name.to_owned(), position.parse().unwrap()))
        .collect();
    assert!(made.len() > 10, "{}", made.len());
    is_whole(&place.open().await, &made).await;
}

#[tokio::test]
async fn a_backup_of_a_running_database_holds_what_was_committed() {
    use sqlx::{Connection, Executor};
    let place = Place::sqlite();
    let store = place.open().await;
    store.withdraw(&keyed("a"), target("task:a")).await.unwrap();
    let copy = place.folder.path().join("copy.db");
    let url = format!("sqlite://{}", file(&place).display());
    let into = format!("VACUUM INTO '{}'", copy.display());
    sqlx::SqliteConnection::connect(&url).await.unwrap().execute(sqlx::AssertSqlSafe(into)).await.unwrap();
    store.withdraw(&writer(), target("task:after-the-backup")).await.unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    let restored = Store::open(&Database::Sqlite(copy), now(), &place.tasks).await.unwrap();
    is_whole(&restored, &BTreeMap::from([("a".to_owned(), 1)])).await;
    let (was, is) = (store.head().await.unwrap(), restored.begin_generation(&writer()).await.unwrap().value);
    assert_ne!(was.generation, is.generation);
}

#[tokio::test]
async fn a_url_that_is_none_is_not_quoted() {
    for url in ["postgres://dana:very-secret@[::1", "very-secret"] {
        let error = Store::open(&Database::Postgres(SecretString::from(url)), now(), &Tasks::new()).await.unwrap_err();
        assert!(!error.to_string().contains("very-secret"), "{error}");
    }
    let gone = "postgres://dana:very-secret@127.0.0.1:1/state";
    let error = Store::open(&Database::Postgres(SecretString::from(gone)), now(), &Tasks::new()).await.unwrap_err();
    assert!(!error.to_string().contains("very-secret") && error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_server_elsewhere_is_spoken_to_over_verified_tls_alone() {
    for url in ["postgres://dana@db.example/state", "postgres://dana@db.example/state?sslmode=require"] {
        let error = Store::open(&Database::Postgres(SecretString::from(url)), now(), &Tasks::new()).await.unwrap_err();
        assert!(matches!(error, OpenError::Plaintext { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_has_lost_nothing_that_was_acknowledged() {
    // Its own: the others would miss theirs.
    let Some(server) = Server::start() else { return };
    server.create_database("state");
    let database = Database::Postgres(SecretString::from(server.url("state")));
    let tasks = Tasks::new();
    let (store, other) =
        (Store::open(&database, now(), &tasks).await.unwrap(), Store::open(&database, now(), &tasks).await.unwrap());
    let writing = tasks.spawn("writer", {
        let store = store.clone();
        async move {
            let (mut made, mut failures) = (BTreeMap::new(), 0_u32);
            for number in 0..400 {
                let name = format!("crash-{number}");
                // As a client does: again with the same key, until it is answered.
                let position = loop {
                    match store.withdraw(&keyed(&name), target(&format!("task:{name}"))).await {
                        Ok(done) => break done.position,
                        Err(StoreError::Unavailable { .. }) => failures += 1,
                        Err(other) => panic!("{other}"),
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                };
                made.insert(name, position);
            }
            (made, failures)
        }
    });
    let careless = Database::Postgres(SecretString::from(server.url("state") + "?options[synchronous_commit]=off"));
    let error = Store::open(&careless, now(), &tasks).await.unwrap_err();
    assert!(error.to_string().contains("synchronous_commit"), "{error}");
    for _ in 0..2 {
        let at = store.head().await.map_or(0, |head| head.position);
        eventually("some more writes", async || store.head().await.is_ok_and(|head| head.position > at + 30)).await;
        server.tell("crash");
    }
    let (made, failures) = writing.join().await.unwrap();
    println!("{failures} writes were refused meanwhile");
    assert_eq!(made.len(), 400);
    is_whole(&other, &made).await;
    server.tell("stop");
    assert!(matches!(store.head().await, Err(StoreError::Unavailable { .. })));
    server.tell("start");
    eventually("the server is back", async || store.head().await.is_ok()).await;
    // A backup of the server's own restores into another database.
    let dump = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(dump.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    server.run("pg_dump", "state", &["-Fc", "-f", dump.path().to_str().unwrap()]);
    server.create_database("restored");
    server.run("pg_restore", "restored", &[dump.path().to_str().unwrap()]);
    let restored = Database::Postgres(SecretString::from(server.url("restored")));
    let restored = Store::open(&restored, now(), &tasks).await.unwrap();
    restored.begin_generation(&writer()).await.unwrap();
    assert_eq!(restored.head().await.unwrap().position, other.head().await.unwrap().position + 1);
    tasks.stop();
}
