//! Lists in pages: in the order in which things were made, each page going on where the last one ended.

use crate::{
    engine::{Engine, Row, Value},
    error::StoreError,
};

/// The most that one page holds.
pub const MAX_PAGE: usize = 500;

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Goes on after this, from [`Listed::next`]; 0 for the first page.
    pub after: u64,
    /// At most so many, up to [`MAX_PAGE`].
    pub limit: usize,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// What is on it, the oldest first.
    pub items: Vec<T>,
    /// Where the next page goes on, if there is one.
    pub next: Option<u64>,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: 0, limit: 100 }
    }
}

/// A question for a page, put together from the filters that were asked for.
#[derive(Debug)]
pub(crate) struct Select {
    sql: String,
    values: Vec<Value>,
}

impl Select {
    /// `columns` begins with the number that orders the list.
    pub(crate) fn new(columns: &'static str, table: &'static str, page: Page) -> Self {
        Self {
            sql: format!("SELECT {columns} FROM {table} WHERE created > $1"),
            values: vec![Value::position(page.after)],
        }
    }

    /// Only those where `condition`, in which `$$` stands for the value, holds.
    pub(crate) fn only(mut self, condition: &'static str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.values.push(value.into());
            let placeholder = format!("${}", self.values.len());
            self.sql.push_str(" AND ");
            self.sql.push_str(&condition.replace("$$", &placeholder));
        }
        self
    }

    /// Asks, and reads each row.
    pub(crate) async fn page<T>(
        self,
        engine: &Engine,
        doing: &'static str,
        page: Page,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Listed<T>, StoreError> {
        let limit = page.limit.clamp(1, MAX_PAGE);
        let sql = format!("{} ORDER BY created LIMIT {}", self.sql, limit + 1);
        let rows = engine.rows(doing, sql, self.values).await?;
        let next = match rows.len() > limit {
            true => rows.get(limit - 1).map(|last| last.position(0)).transpose()?,
            false => None,
        };
        Ok(Listed { items: rows.iter().take(limit).map(read).collect::<Result<_, _>>()?, next })
    }
}

/// `columns` as those of `table`, where another table has some of the same name.
pub(crate) fn qualified(table: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
}
