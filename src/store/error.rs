//! Why the store did not do what it was asked to.

/// A failure of the store. Free of values that a caller sent and of anything that grants access, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be asked now: unreachable, starting, full, read-only, or every connection is taken. Nothing is
    /// known to have changed, but a commit whose answer was lost may have happened. Answered with 503 and `Retry-After`.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database cannot store anything more, or may not: its disk is full or fails, or it became read-only. Reading may go
    /// on. Answered as `Unavailable`.
    #[error("the database cannot write: {0}")]
    CannotWrite(String),
    /// A unique name is taken, or the row is no longer in the state that the caller saw.
    #[error("conflict: {what}")]
    Conflict {
        /// What is taken or has moved on, such as `username`.
        what: &'static str,
    },
    /// The row that was to be changed does not exist.
    #[error("no such {what}")]
    NotFound {
        /// What was looked for, such as `client`.
        what: &'static str,
    },
    /// A stored row says something impossible. Refused, never guessed at (design.md, promise 8).
    #[error("table `{table}`, row {row}: column `{column}` {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key, as far as it could be read.
        row: String,
        /// What is wrong with the value, without the value.
        problem: &'static str,
    },
    /// The database was migrated by a newer release that says this one may no longer run on it.
    #[error(
        "the database is at schema {found}, which needs a release that knows at least schema {needed}; this one knows {known}"
    )]
    SchemaNewer {
        /// Newest migration that was applied.
        found: u32,
        /// Oldest release's schema that may still run.
        needed: u32,
        /// Newest migration of this release.
        known: u32,
    },
    /// The database or its settings cannot be used safely; a person must change something.
    #[error("{0}")]
    Misconfigured(String),
    /// A mistake of ours, or an answer of the database that nothing here expects.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same may succeed later without a change of code or configuration.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::CannotWrite(_))
    }
}
