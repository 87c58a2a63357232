//! The schema and its migrations. They run by themselves, one transaction for all of them, and are safe when
//! several replicas start at once.

use jiff::Timestamp;

use crate::{
    engine::{Engine, Transaction, Value},
    error::{OpenError, StoreError},
    writing::uuid,
};

/// Every migration, in order, each named by the version it brings. One that was released is never changed: another one
/// follows it. A database keeps the version, not the name.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001.sql"),
    include_str!("../migrations/0002.sql"),
    include_str!("../migrations/0003.sql"),
    include_str!("../migrations/0004.sql"),
    include_str!("../migrations/0005.sql"),
    include_str!("../migrations/0006.sql"),
    include_str!("../migrations/0007.sql"),
    include_str!("../migrations/0008.sql"),
];

/// A number that only this program locks by, on a server that others may use too.
const LOCK: i64 = 0x636F_756E_7465_7273;

const DOING: &str = "bringing the schema up to date";

/// Brings the database to the schema of this program.
pub(crate) async fn migrate(engine: &Engine, now: Timestamp) -> Result<(), OpenError> {
    let failed = |error: StoreError| {
        let (database, cause) = ("schema".to_owned(), error.to_string());
        match error {
            StoreError::Unavailable { .. } => OpenError::Unreachable { database, cause },
            _ => OpenError::Database { database, cause },
        }
    };
    let mut transaction = engine.begin(DOING).await.map_err(failed)?;
    // SQLite has locked the whole file by now.
    if let Transaction::Postgres(_) = transaction {
        transaction
            .rows(DOING, "SELECT pg_advisory_xact_lock($1)::text", vec![Value::Integer(LOCK)])
            .await
            .map_err(failed)?;
    }
    let found = found(&mut transaction).await.map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or_default()) {
        run(&mut transaction, migration).await.map_err(failed)?;
        let values = vec![Value::Integer(version), now.into()];
        let sql = "INSERT INTO schema_versions (version, at) VALUES ($1, $2)";
        transaction.execute(DOING, sql, values).await.map_err(failed)?;
    }
    begin(&mut transaction, now).await.map_err(failed)?;
    transaction.commit(DOING).await.map_err(failed)
}

/// The schema that the database has; 0 for an empty one.
async fn found(transaction: &mut Transaction) -> Result<i64, StoreError> {
    let table = "CREATE TABLE IF NOT EXISTS schema_versions (version bigint PRIMARY KEY, at text NOT NULL)";
    transaction.execute(DOING, table, Vec::new()).await?;
    let rows = transaction.rows(DOING, "SELECT coalesce(max(version), 0) FROM schema_versions", Vec::new()).await?;
    rows.first().map_or(Ok(0), |row| row.integer(0))
}

async fn run(transaction: &mut Transaction, migration: &str) -> Result<(), StoreError> {
    let text: String =
        migration.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        transaction.execute(DOING, statement, Vec::new()).await?;
    }
    Ok(())
}

/// The rows that every other statement takes for granted.
async fn begin(transaction: &mut Transaction, now: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO head (id, position, generation, began) VALUES (1, 0, $1, $2) ON CONFLICT (id) DO NOTHING";
    transaction.execute(DOING, sql, vec![uuid(now).into(), now.into()]).await?;
    let sql = "INSERT INTO forgotten (id, until) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
    transaction.execute(DOING, sql, vec![Timestamp::MIN.into()]).await?;
    let sql = "INSERT INTO upkeep (id, at) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
    transaction.execute(DOING, sql, vec![Timestamp::MIN.into()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of those that databases have by now: what follows on them is another file.
    const RELEASED: [&str; 5] = [
        "fe7505b76b252b48aea2e6a1be8bdc7baf09bd390bfda62e3d6c8996ecc06d36",
        "ce17e2aa18621de9d413394d4927326608ab9d57805c5ce71ed9b1908cc5d11a",
        "9e613394c6c6ea10539cdb986438d35bc396e7d8f008c19c2b0ee5bb3577d49c",
        "f81fc94acbaadf46381bf269678cdfbd63927ce4b8c22f72e776b633429bbc2e",
        "d9e30f76d2b5c44d6d71f822422f2ffaee61908854f763a2306ce318b1b65921",
    ];

    #[test]
    fn migrations_are_named_by_their_versions_and_those_that_databases_have_are_as_they_were() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected: Vec<String> = (1..=MIGRATIONS.len()).map(|version| format!("{version:04}.sql")).collect();
        assert_eq!(names, expected);
        for (name, migration) in names.iter().zip(MIGRATIONS) {
            assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), **migration, "{name}");
        }
        for (migration, digest) in MIGRATIONS.iter().zip(RELEASED) {
            assert_eq!(crate::digest::hex(migration.as_bytes()), digest);
        }
    }
}
