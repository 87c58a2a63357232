//! The schema and its migrations. They run by themselves, one transaction for all of them, and are safe when
//! several replicas start at once.

use jiff::Timestamp;

use crate::{
    engine::{Engine, Transaction, Value},
    error::{OpenError, StoreError},
    writing::uuid,
};

/// Every migration, in order. One that was released is never changed: another one follows it.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001.sql"),
    include_str!("../migrations/0002.sql"),
    include_str!("../migrations/0003.sql"),
    include_str!("../migrations/0005.sql"),
    include_str!("../migrations/0006.sql"),
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
    Ok(())
}
