//! Bound values and answered rows, the same for both engines.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Row as _};

use crate::domain::{ClientId, Kid, SessionId, Timestamp, UserId};
use crate::store::StoreError;

/// A bound value. Each variant has its own null, because PostgreSQL requires typed nulls.
#[derive(Clone)]
pub enum Value {
    /// `BIGINT` or `INTEGER`.
    Int(Option<i64>),
    /// `TEXT`.
    Text(Option<String>),
    /// `BYTEA` or `BLOB`.
    Bytes(Option<Vec<u8>>),
    /// PostgreSQL: `BIGINT[]`.
    Ints(Vec<Option<i64>>),
    /// PostgreSQL: `TEXT[]`.
    Texts(Vec<Option<String>>),
    /// PostgreSQL: `BYTEA[]`.
    ByteStrings(Vec<Option<Vec<u8>>>),
}

impl Value {
    /// Combines the values at one position of several lists into one array; none if their types differ.
    pub fn column(values: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut values = values.into_iter();
        let mut column = match values.next()? {
            Self::Int(value) => Self::Ints(vec![value]),
            Self::Text(value) => Self::Texts(vec![value]),
            Self::Bytes(value) => Self::ByteStrings(vec![value]),
            Self::Ints(_) | Self::Texts(_) | Self::ByteStrings(_) => return None,
        };
        for value in values {
            match (&mut column, value) {
                (Self::Ints(column), Self::Int(value)) => column.push(value),
                (Self::Texts(column), Self::Text(value)) => column.push(value),
                (Self::ByteStrings(column), Self::Bytes(value)) => column.push(value),
                _ => return None,
            }
        }
        Some(column)
    }
}

/// Builds the list of bound values from anything that converts into [`Value`].
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Value::from($value)),*] };
}
pub(in crate::store) use values;

macro_rules! value_from {
    ($($from:ty => |$name:ident| $variant:ident($convert:expr)),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                Self::$variant(Some($convert))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map(|$name| $convert))
            }
        })*
    };
}

value_from! {
    i64 => |value| Int(value),
    u32 => |value| Int(i64::from(value)),
    bool => |value| Int(i64::from(value)),
    Timestamp => |value| Int(value.millis()),
    &str => |value| Text(value.to_owned()),
    String => |value| Text(value),
    &String => |value| Text(value.clone()),
    &ClientId => |value| Text(value.as_str().to_owned()),
    &Kid => |value| Text(value.as_str().to_owned()),
    &[u8] => |value| Bytes(value.to_vec()),
    Vec<u8> => |value| Bytes(value),
    &Vec<u8> => |value| Bytes(value.clone()),
    [u8; 16] => |value| Bytes(value.to_vec()),
    [u8; 32] => |value| Bytes(value.to_vec()),
    UserId => |value| Bytes(value.as_bytes().to_vec()),
    SessionId => |value| Bytes(value.as_bytes().to_vec()),
}

/// Rows of values as one array for each column, for PostgreSQL's `unnest`.
pub(super) fn columns(rows: &[impl AsRef<[Value]>], width: usize) -> Result<Vec<Value>, StoreError> {
    let column = |place: usize| {
        let values = rows.iter().map(|row| row.as_ref().get(place).cloned());
        values.collect::<Option<Vec<_>>>().and_then(Value::column)
    };
    let mixed = || StoreError::Internal("the values of one statement differ in type".to_owned());
    (0..width).map(column).collect::<Option<Vec<_>>>().ok_or_else(mixed)
}

/// Rows of values as a JSON array of arrays, for SQLite's `json_each`. Bytes are in hexadecimal, for its `unhex`.
pub(super) fn json_rows<'a>(rows: impl IntoIterator<Item = &'a [Value]>) -> String {
    let cell = |value: &Value| match value {
        Value::Int(value) => serde_json::json!(value),
        Value::Text(value) => serde_json::json!(value),
        Value::Bytes(value) => serde_json::json!(value.as_deref().map(hexadecimal)),
        // Only PostgreSQL has arrays; SQLite gets null instead.
        Value::Ints(_) | Value::Texts(_) | Value::ByteStrings(_) => serde_json::Value::Null,
    };
    let rows = rows.into_iter().map(|row| row.iter().map(cell).collect::<serde_json::Value>());
    rows.collect::<serde_json::Value>().to_string()
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The values in SQLite's form.
pub(super) fn sqlite_arguments(values: &[Value]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value.clone() {
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
            Value::Ints(_) | Value::Texts(_) | Value::ByteStrings(_) => Err("SQLite has no arrays".into()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// The values in PostgreSQL's form.
pub(super) fn postgres_arguments(values: &[Value]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value.as_deref()),
            Value::Bytes(value) => arguments.add(value.as_deref()),
            Value::Ints(column) => arguments.add(column),
            Value::Texts(column) => arguments.add(column),
            Value::ByteStrings(column) => arguments.add(column),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// One row of an answer.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

macro_rules! column {
    ($row:expr, $column:expr, $type:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get::<$type, _>($column),
            Row::Postgres(row) => row.try_get::<$type, _>($column),
        }
    };
}

impl Row {
    /// Reads the row as one of `table`, identified by the column `key`, so that an error can name an unreadable value.
    pub fn of(&self, table: &'static str, key: &'static str) -> Fields<'_> {
        Fields { row: self, table, key }
    }
}

/// Typed access to the columns of a row of a known table.
#[derive(Clone, Copy)]
pub struct Fields<'r> {
    row: &'r Row,
    table: &'static str,
    key: &'static str,
}

impl Fields<'_> {
    /// An integer.
    pub fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        column!(self.row, column, i64).map_err(|_| self.corrupt(column, "is not an integer"))
    }

    /// An integer, or null.
    pub fn opt_int(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        column!(self.row, column, Option<i64>).map_err(|_| self.corrupt(column, "is neither an integer nor null"))
    }

    /// A text.
    pub fn text(&self, column: &'static str) -> Result<String, StoreError> {
        column!(self.row, column, String).map_err(|_| self.corrupt(column, "is not a text"))
    }

    /// A text, or null.
    pub fn opt_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        column!(self.row, column, Option<String>).map_err(|_| self.corrupt(column, "is neither a text nor null"))
    }

    /// Bytes.
    pub fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        column!(self.row, column, Vec<u8>).map_err(|_| self.corrupt(column, "is not a byte string"))
    }

    /// Bytes, or null.
    pub fn opt_bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        column!(self.row, column, Option<Vec<u8>>).map_err(|_| self.corrupt(column, "is neither bytes nor null"))
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&self, column: &'static str) -> Result<[u8; N], StoreError> {
        self.bytes(column)?.try_into().map_err(|_| self.corrupt(column, "has the wrong length"))
    }

    /// Exactly `N` bytes, or null.
    pub fn opt_array<const N: usize>(&self, column: &'static str) -> Result<Option<[u8; N]>, StoreError> {
        let bytes = self.opt_bytes(column)?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| self.corrupt(column, "has the wrong length"))).transpose()
    }

    /// A counter that fits 32 bits.
    pub fn count(&self, column: &'static str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_| self.corrupt(column, "is out of range"))
    }

    /// Unix milliseconds.
    pub fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.int(column).map(Timestamp::from_millis)
    }

    /// Unix milliseconds, or null.
    pub fn opt_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.opt_int(column)?.map(Timestamp::from_millis))
    }

    /// A text that the domain reads with `parse`; a refused text is corrupt.
    pub fn parsed<T, E>(&self, column: &'static str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
        parse(&self.text(column)?).map_err(|_| self.corrupt(column, "is not a value of its kind"))
    }

    /// The error for an invalid value of this row.
    pub fn corrupt(&self, column: &'static str, problem: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table, column, row: self.key(), problem }
    }

    fn key(&self) -> String {
        if let Ok(text) = column!(self.row, self.key, String) {
            return text;
        }
        if let Ok(number) = column!(self.row, self.key, i64) {
            return number.to_string();
        }
        match column!(self.row, self.key, Vec<u8>) {
            Ok(bytes) => hexadecimal(&bytes),
            Err(_) => "(unreadable)".to_owned(),
        }
    }
}
