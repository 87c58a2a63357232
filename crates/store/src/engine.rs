//! The two databases behind one small interface: a statement with placeholders `$1`, its values, the rows it gives.
//!
//! Only text and 64-bit integers go in and out, which is all the schema has; what an engine needs of its own
//! (pragmas, TLS, notifications) stays in its file.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Executor, Row as _, Sqlite, SqlitePool};

use self::postgres::{Server, Session};
use crate::error::StoreError;

/// An open database.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    /// A file of ours. One connection writes, so that no write ever meets another in SQLite itself.
    Sqlite { write: SqlitePool, read: SqlitePool },
    /// A server, shared with other replicas.
    Postgres(Server),
}

/// A transaction that writes. Dropped without a commit it leaves nothing behind.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(Session),
}

/// What a placeholder stands for.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(i64),
}

/// One row of an answer.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(sqlx::sqlite::SqliteRow),
    Postgres(sqlx::postgres::PgRow),
}

/// Binds `values` and runs the statement on whichever engine it is.
macro_rules! on {
    ($executor:expr, $sql:expr, $values:expr, $run:ident) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql)).persistent(true);
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Integer(integer) => query.bind(integer),
            };
        }
        $executor.$run(query).await
    }};
}

impl Engine {
    /// The rows that a question outside of any transaction gets: what was committed before it.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let sql = sql.into();
        check(&values)?;
        match self {
            Self::Sqlite { read, .. } => on!(read, sql, values, fetch_all).map(all(Row::Sqlite)),
            Self::Postgres(server) => {
                let asking = async { on!(&server.pool, sql, values, fetch_all) };
                server.silence.bounded(asking).await.map(all(Row::Postgres))
            }
        }
        .map_err(StoreError::of(doing))
    }

    /// The rows that one statement gives which writes, in a transaction of its own: durable, when this returns.
    pub(crate) async fn written(
        &self,
        doing: &'static str,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        check(&values)?;
        match self {
            Self::Sqlite { write, .. } => on!(write, sql, values, fetch_all).map(all(Row::Sqlite)),
            Self::Postgres(server) => {
                let asking = async { on!(&server.pool, sql, values, fetch_all) };
                server.silence.bounded(asking).await.map(all(Row::Postgres))
            }
        }
        .map_err(StoreError::of(doing))
    }

    /// Begins to write. On SQLite the write lock is taken at once; on PostgreSQL by the first statement.
    pub(crate) async fn begin(&self, doing: &'static str) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite { write, .. } => write.begin_with("BEGIN IMMEDIATE").await.map(Transaction::Sqlite),
            Self::Postgres(server) => server.begin().await.map(Transaction::Postgres),
        }
        .map_err(StoreError::of(doing))
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(server) => server.pool.close().await,
        }
    }
}

impl Transaction {
    /// Runs a statement; how many rows it touched.
    pub(crate) async fn execute(
        &mut self,
        doing: &'static str,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<u64, StoreError> {
        let sql = sql.into();
        check(&values)?;
        match self {
            Self::Sqlite(transaction) => {
                on!((&mut **transaction), sql, values, execute).map(|done| done.rows_affected())
            }
            Self::Postgres(Session { transaction, silence }) => {
                let asking = async { on!((&mut **transaction), sql, values, execute) };
                silence.bounded(asking).await.map(|done| done.rows_affected())
            }
        }
        .map_err(StoreError::of(doing))
    }

    /// The rows of a question, what this transaction wrote so far among them.
    pub(crate) async fn rows(
        &mut self,
        doing: &'static str,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let sql = sql.into();
        check(&values)?;
        match self {
            Self::Sqlite(transaction) => on!((&mut **transaction), sql, values, fetch_all).map(all(Row::Sqlite)),
            Self::Postgres(Session { transaction, silence }) => {
                let asking = async { on!((&mut **transaction), sql, values, fetch_all) };
                silence.bounded(asking).await.map(all(Row::Postgres))
            }
        }
        .map_err(StoreError::of(doing))
    }

    /// Makes it durable.
    pub(crate) async fn commit(self, doing: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(Session { transaction, silence }) => silence.bounded(transaction.commit()).await,
        }
        .map_err(StoreError::of(doing))
    }
}

/// Each of some rows as one of ours.
fn all<R>(row: fn(R) -> Row) -> impl FnOnce(Vec<R>) -> Vec<Row> {
    move |rows| rows.into_iter().map(row).collect()
}

/// PostgreSQL keeps no NUL in text; so nobody does.
fn check(values: &[Value]) -> Result<(), StoreError> {
    let nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
    if values.iter().any(nul) {
        return Err(StoreError::Invalid("text with a NUL character cannot be kept".to_owned()));
    }
    Ok(())
}

impl Row {
    /// The text in `column`, from 0.
    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(StoreError::unreadable)
    }

    /// The text in `column`, if there is any.
    pub(crate) fn optional(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(StoreError::unreadable)
    }

    /// The integer in `column`.
    pub(crate) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(StoreError::unreadable)
    }

    /// The position in `column`.
    pub(crate) fn position(&self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.integer(column)?).map_err(StoreError::unreadable)
    }

    /// The moment in `column`.
    pub(crate) fn moment(&self, column: usize) -> Result<Timestamp, StoreError> {
        self.text(column)?.parse().map_err(StoreError::unreadable)
    }

    /// The moment in `column`, if there is one.
    pub(crate) fn optional_moment(&self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        self.optional(column)?.map(|text| text.parse()).transpose().map_err(StoreError::unreadable)
    }

    /// What the JSON or the single word in `column` says.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(StoreError::unreadable)
    }

    /// What the JSON in `column` says, if there is any.
    pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<Option<T>, StoreError> {
        self.optional(column)?.map(|text| serde_json::from_str(&text)).transpose().map_err(StoreError::unreadable)
    }

    /// What the word in `column` means to `T`: a status, a stage.
    pub(crate) fn word<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, StoreError> {
        serde_json::from_value(serde_json::Value::String(self.text(column)?)).map_err(StoreError::unreadable)
    }
}

impl Value {
    /// A value that says what `value` serialises to as one word.
    pub(crate) fn word(value: &impl serde::Serialize) -> Result<Self, StoreError> {
        match serde_json::to_value(value).map_err(StoreError::unwritable)? {
            serde_json::Value::String(word) => Ok(word.into()),
            other => Err(StoreError::unwritable(format!("{other} is no word"))),
        }
    }

    /// A value with the JSON of `value`.
    pub(crate) fn json(value: &impl serde::Serialize) -> Result<Self, StoreError> {
        Ok(serde_json::to_string(value).map_err(StoreError::unwritable)?.into())
    }

    /// A value with the JSON of `value`, or nothing.
    pub(crate) fn optional_json(value: Option<&impl serde::Serialize>) -> Result<Self, StoreError> {
        value.map_or(Ok(Self::Text(None)), Self::json)
    }

    /// A position. Those beyond what an integer holds are after everything.
    pub(crate) fn position(position: u64) -> Self {
        Self::Integer(i64::try_from(position).unwrap_or(i64::MAX))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl<Of> From<&model::Id<Of>> for Value {
    fn from(id: &model::Id<Of>) -> Self {
        id.as_str().into()
    }
}

impl From<Timestamp> for Value {
    /// Nine digits always: the order of the text is that of time.
    fn from(moment: Timestamp) -> Self {
        Self::Text(Some(format!("{moment:.9}")))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(moment: Option<Timestamp>) -> Self {
        moment.map_or(Self::Text(None), Self::from)
    }
}
