//! Settings of the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::reader::Hidden;
use super::section::section;
use crate::domain::{SecretText, texts};

/// An embedded database: the service starts without any other software.
const DEFAULT_URL: &str = "sqlite://countersign-data/countersign.db";

/// A replica opens two more connections: one reads the change feed, one listens for notifications. Ten replicas then use 90
/// of the 97 connections that PostgreSQL allows by default. The rest is for commands and administrators.
const MAX_CONNECTIONS: u32 = 7;
/// After this wait, an immediate 503 is better for the caller than more waiting (security.md D9).
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Every statement reads or writes a few rows by an index. One that takes this long is blocked.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

const MINUTE: Duration = Duration::from_secs(60);

section! {
    Database(read) in ["database"] as "Database" {
        /// The URL, with the password.
        url: DatabaseUrl, load read
            .secret(
                "database.url",
                DEFAULT_URL,
                "`sqlite://PATH` for a single replica, `postgres://…` for several. The password is never shown. The whole \
                 URL can be read from a file: set `database.url_file` to its path.",
            )
            .unwrap_or_else(|| DatabaseUrl { engine: Engine::Sqlite, text: SecretText::new(DEFAULT_URL) });
        /// The file that `url` was read from. It is read again when a password was rotated.
        url_file: Option<PathBuf>, load read.secret_file("database.url");
        /// Whether `serve` creates an embedded database that does not exist; `countersign migrate` always does. The
        /// default is false if `database.url` is set, so that a mistyped path does not start an empty service.
        create_if_missing: bool = !read.is_set("database.url");
        /// Connections for the requests of one replica. Two further connections read the change feed and listen for
        /// notifications. Two of this number are reserved for refreshes (one of two; a single one is shared).
        /// Introspection uses none.
        max_connections: u32 = MAX_CONNECTIONS, in 1..=1000;
        /// How long a request waits for a connection before it gets 503. A poll of the change feed waits at most half of
        /// `revocation.max_lag`.
        acquire_timeout: Duration = ACQUIRE_TIMEOUT, in Duration::from_millis(50)..=MINUTE / 2;
        /// Time after which a statement is cancelled.
        statement_timeout: Duration = STATEMENT_TIMEOUT, in Duration::from_millis(100)..=MINUTE;
        /// `transaction` behind a pooler in transaction mode, such as PgBouncer. Replicas then learn of changes only by
        /// polling, and no statement is prepared.
        pooler: Pooler = Pooler::Session;
    }
}

texts! {
    /// How connections reach PostgreSQL.
    Pooler else "a pooler is `session` or `transaction`" {
        /// Directly, or through a pooler in session mode.
        Session = "session",
        /// Through a pooler in transaction mode: `LISTEN`, prepared statements and session settings are not available.
        Transaction = "transaction",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Embedded, for one replica.
    Sqlite,
    /// Shared by any number of replicas.
    Postgres,
}

/// The URL of a database. `Debug` hides it because it may contain a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    engine: Engine,
    text: SecretText,
}

impl DatabaseUrl {
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// The whole URL, including the password.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The path of an embedded database; `None` for PostgreSQL.
    pub fn sqlite_path(&self) -> Option<&Path> {
        sqlite_path(self.expose()).map(Path::new)
    }
}

fn sqlite_path(text: &str) -> Option<&str> {
    text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"))
}

impl Hidden for DatabaseUrl {
    fn read(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let remedy = "write \"sqlite://PATH\" or \"postgres://USER:PASSWORD@HOST/DATABASE\"";
        if let Some(path) = sqlite_path(text) {
            if path.is_empty() || path.starts_with(':') || path.contains(['?', '#', '\0', '%']) {
                return Err(("is not a plain file path without parameters and escapes", remedy));
            }
            return Ok(Self { engine: Engine::Sqlite, text: SecretText::new(text) });
        }
        let url = Url::parse(text).map_err(|_| ("is not a URL", remedy))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(("names an engine that is neither sqlite nor postgres", remedy));
        }
        Ok(Self { engine: Engine::Postgres, text: SecretText::new(text) })
    }

    /// The URL without its password and parameters: `password` and `sslpassword` are secret parameters.
    fn show(&self) -> String {
        let (Engine::Postgres, Ok(mut url)) = (self.engine, Url::parse(self.expose())) else {
            return self.expose().to_owned();
        };
        // An unescaped character in the password moved the rest of the password into another part of the URL.
        let is_split =
            url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|q| q.contains('@'));
        if is_split {
            return "(hidden)".to_owned();
        }
        let is_hidden = url.password().is_none() || url.set_password(Some("hidden")).is_ok();
        if url.query().is_some() {
            url.set_query(Some("hidden"));
        }
        if is_hidden { url.into() } else { "(hidden)".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_the_url_is_shown_without_its_secrets() {
        let url = DatabaseUrl::read("postgres://cs:hunter2@db:5432/auth?sslmode=require&password=hunter2").unwrap();
        assert_eq!(url.engine(), Engine::Postgres);
        assert_eq!(url.show(), "postgres://cs:hidden@db:5432/auth?hidden");
        assert!(url.expose().contains("hunter2") && !format!("{url:?}").contains("hunter2"));
        assert_eq!(
            DatabaseUrl::read("postgres:///auth?host=/run/postgresql").unwrap().show(),
            "postgres:///auth?hidden"
        );
        for split in
            ["postgres://cs:hun@ter2/x@db/auth", "postgres://cs:hun@ter2?x@db/auth", "postgres://cs:hun@ter2#x@db"]
        {
            assert_eq!(DatabaseUrl::read(split).unwrap().show(), "(hidden)");
        }
    }

    #[test]
    fn an_embedded_database_is_the_path_of_a_file() {
        let path = |text| DatabaseUrl::read(text).unwrap().sqlite_path().map(Path::to_owned);
        assert_eq!(path("sqlite:///var/lib/countersign.db"), Some("/var/lib/countersign.db".into()));
        assert_eq!(path("sqlite://data/x.db"), Some("data/x.db".into()));
        assert_eq!(path("postgres://db/x"), None);
        for bad in ["sqlite://", "sqlite::memory:", "sqlite://x.db?mode=rwc", "mysql://db/x", "countersign.db"] {
            assert!(DatabaseUrl::read(bad).is_err(), "{bad}");
        }
    }
}
