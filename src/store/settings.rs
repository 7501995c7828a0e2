//! The location of the database, and the store's time limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::{ReadAddress, StoreError};

/// All settings for opening a store. Has no `Debug`: the URL may contain a password.
#[derive(Clone)]
pub struct StoreSettings {
    /// The location of the database.
    pub location: Location,
    /// Connections for requests. The change feed has one more, and its listener another.
    pub max_connections: usize,
    /// Longest wait for a free connection, or for a place in SQLite's queue of writes (security.md D9: 1 s at most).
    pub acquire_timeout: Duration,
    /// Longest time that PostgreSQL works on one statement or waits for a lock. The client waits half a second longer
    /// before it treats the connection as lost.
    pub statement_timeout: Duration,
    /// Longest wait for an answer about the feed, below `statement_timeout`. A follower whose connection died silently
    /// must detect this and read the feed over a new one before its view is too old.
    pub feed_timeout: Duration,
    /// Reads the address again from its file after the server refused the login, because the password may have been
    /// rotated. None if the address is not from a file.
    pub read_address: Option<ReadAddress>,
    /// SQLite: the master key beside the database. If the key exists without the database, the database was lost, and
    /// no empty one replaces it.
    pub key_file: Option<PathBuf>,
    /// SQLite: longest wait for another process, such as the command line, to finish its write.
    pub busy_timeout: Duration,
}

/// The location of the database.
#[derive(Clone)]
pub enum Location {
    /// A file used by this machine only.
    Sqlite {
        /// The database file; its `-wal` and `-shm` companions are beside it.
        path: PathBuf,
        /// Create the file (mode 0600) and its folder if they are missing. Otherwise a missing file is an error,
        /// because an empty database would know no revocation (security.md D4).
        create: bool,
    },
    /// A server shared by all replicas.
    Postgres {
        /// `postgres://…`, with the parameters of libpq that the driver knows.
        url: String,
        /// The URL leads to a pooler such as PgBouncer in transaction mode. Then there are no prepared statements, no
        /// session settings and no `LISTEN`, and every statement is in a transaction.
        pooler_transaction_mode: bool,
    },
}

impl StoreSettings {
    /// The defaults for a location.
    pub const fn new(location: Location) -> Self {
        Self {
            location,
            // Argon2 limits logins, and one short transaction is the cost of a refresh. Ten connections keep several
            // cores busy.
            max_connections: 10,
            acquire_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_millis(1500),
            feed_timeout: Duration::from_millis(1500),
            read_address: None,
            key_file: None,
            busy_timeout: Duration::from_secs(1),
        }
    }
}

impl Location {
    /// Reads `sqlite://PATH` (relative to the working folder; `sqlite:///PATH` is absolute), `postgres://…` or
    /// `postgresql://…`. The error does not repeat the URL.
    pub fn parse(url: &str, create: bool, pooler_transaction_mode: bool) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            if path.is_empty() || path == ":memory:" || path.contains(['?', '\0']) {
                let text = "database.url: `sqlite://` is followed by the path of a file, without parameters";
                return Err(StoreError::Misconfigured(text.to_owned()));
            }
            return Ok(Self::Sqlite { path: path.into(), create });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres { url: url.to_owned(), pooler_transaction_mode });
        }
        Err(StoreError::Misconfigured("database.url starts with `sqlite://` or `postgres://`".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_sqlite_url_is_a_path() {
        for (url, expected) in [("sqlite://data/a.db", "data/a.db"), ("sqlite:///var/a.db", "/var/a.db")] {
            match Location::parse(url, false, false) {
                Ok(Location::Sqlite { path, create: false }) => assert_eq!(path, Path::new(expected)),
                _ => panic!("{url}"),
            }
        }
    }

    #[test]
    fn s1_an_unreadable_url_is_refused_without_repeating_it() {
        for bad in ["", "sqlite://", "sqlite://:memory:", "sqlite://a?mode=ro", "mysql://root:hunter2@host/db"] {
            let error = Location::parse(bad, false, false).map(|_| ()).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{bad}");
        }
    }
}
