//! Errors of the store.

/// A failure of the store. It contains no values from a caller and no secrets, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database is unavailable: unreachable, starting, or every connection is taken. Nothing was changed. Answered
    /// with 503 and `Retry-After`.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database cannot store anything, or may not: its disk is full or fails, or it became read-only. Reads may
    /// still work. Answered as `Unavailable`.
    #[error("the database cannot write: {0}")]
    CannotWrite(String),
    /// The answer to a commit was lost: the change may have been made. Answered with 503; the caller reads the state
    /// again.
    #[error("the database's answer was lost, and the change may have been made: {0}")]
    OutcomeUnknown(String),
    /// A unique name is taken, or the row has changed since the caller read it.
    #[error("conflict: {what}")]
    Conflict {
        /// The taken name or changed row, such as `username`.
        what: &'static str,
    },
    /// The row that was to be changed does not exist.
    #[error("no such {what}")]
    NotFound {
        /// The missing object, such as `client`.
        what: &'static str,
    },
    /// A stored row contains an invalid value. It is refused, never guessed at (design.md, promise 8).
    #[error("table `{table}`, row {row}: column `{column}` {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key, as far as it is readable.
        row: String,
        /// The problem with the value, without the value.
        problem: &'static str,
    },
    /// A newer release migrated the database and declared this release incompatible.
    #[error(
        "the database is at schema {found}, which needs a release that knows at least schema {needed}; this one knows {known}"
    )]
    SchemaNewer {
        /// Newest migration that was applied.
        found: u32,
        /// Oldest schema whose release may still run.
        needed: u32,
        /// Newest migration of this release.
        known: u32,
    },
    /// The database or its settings cannot be used safely; an operator must change them.
    #[error("{0}")]
    Misconfigured(String),
    /// A bug, or an unexpected answer of the database.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether a retry may succeed without a change of code or configuration.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::CannotWrite(_) | Self::OutcomeUnknown(_))
    }

    /// The error of a change that may have been committed before its connection was lost.
    pub(super) fn after_commit_was_sent(self) -> Self {
        match self {
            Self::Unavailable(text) => Self::OutcomeUnknown(text),
            other => other,
        }
    }
}
