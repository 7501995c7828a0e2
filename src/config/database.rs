//! Where everything is kept that outlives a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::reader::{Hidden, Reader};
use super::value::choice;
use crate::domain::SecretText;

/// One command starts the service, without anything else installed.
const DEFAULT_URL: &str = "sqlite://countersign-data/countersign.db";

/// Ten replicas, each with two more (one reads the feed, one listens for changes), stay below the 97 connections that
/// PostgreSQL gives out by default, and leave some for commands and for whoever looks after the database.
const MAX_CONNECTIONS: u32 = 7;
/// A request that waits longer for a connection is better told to come back (security.md D9).
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Every statement of ours reads or writes a handful of rows by an index; one that takes so long hangs on something.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

const MINUTE: Duration = Duration::from_secs(60);

/// The database and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Which one.
    pub url: DatabaseUrl,
    /// The file that holds `url`, if it came from one: a rotated password is read from there again.
    pub url_file: Option<PathBuf>,
    /// Whether an embedded database that does not exist may be made. A mistyped path must not start an empty service
    /// (security.md D4).
    pub create_if_missing: bool,
    /// Connections of this replica's requests at most, beside the one that reads the feed and the one that listens.
    pub max_connections: u32,
    /// How long a request waits for a connection before it is refused with 503.
    pub acquire_timeout: Duration,
    /// After which the database gives a statement up.
    pub statement_timeout: Duration,
    /// What stands between the service and PostgreSQL.
    pub pooler: Pooler,
}

/// How connections reach PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Directly, or through a pooler that gives each of our connections one of its own for as long as it lives.
    Session,
    /// Through a pooler in transaction mode: no `LISTEN`, no prepared statements, no session settings.
    Transaction,
}

choice!(Pooler, "write \"session\" or \"transaction\"", "session" => Session, "transaction" => Transaction);

/// The two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Embedded, for one node.
    Sqlite,
    /// Shared by replicas.
    Postgres,
}

/// The address of a database; may hold a password, so it does not print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    engine: Engine,
    text: SecretText,
}

impl Database {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Database");
        let url = read.secret(
            "database.url",
            DEFAULT_URL,
            "`sqlite://PATH` for one node, `postgres://…` for replicas. The password is never shown; the whole address can \
             stand in a file (`database.url_file`).",
        );
        let is_default = !read.is_set("database.url");
        Self {
            url_file: read.secret_file("database.url"),
            url: url.unwrap_or_else(|| DatabaseUrl { engine: Engine::Sqlite, text: SecretText::new(DEFAULT_URL) }),
            create_if_missing: read.setting(
                "database.create_if_missing",
                is_default,
                "Whether `serve` may make an embedded database that does not exist; `countersign migrate` always may. When \
                 `database.url` is set, the default is false: a mistyped path must not start an empty service.",
            ),
            max_connections: read.within(
                "database.max_connections",
                MAX_CONNECTIONS,
                1..=1000,
                "Connections for the requests of one replica, beside the one that reads the feed and the one that listens for \
                 changes. Two of them are kept for refreshes (one of two; a single one is shared), and the rest is for everything \
                 else. Introspection uses none.",
            ),
            acquire_timeout: read.within(
                "database.acquire_timeout",
                ACQUIRE_TIMEOUT,
                Duration::from_millis(50)..=MINUTE / 2,
                "How long a request waits for a connection before it is refused with 503. The feed waits no longer than half of \
                 `revocation.max_lag`.",
            ),
            statement_timeout: read.within(
                "database.statement_timeout",
                STATEMENT_TIMEOUT,
                Duration::from_millis(100)..=MINUTE,
                "After which a statement is given up.",
            ),
            pooler: read.setting(
                "database.pooler",
                Pooler::Session,
                "`transaction` behind a pooler in transaction mode (PgBouncer): changes are then found by polling alone, and \
                 no statement is prepared.",
            ),
        }
    }
}

impl DatabaseUrl {
    /// Which engine speaks there.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// The whole address, password included.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The file of an embedded database.
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
                return Err(("is not the path of a file, without parameters and escapes", remedy));
            }
            return Ok(Self { engine: Engine::Sqlite, text: SecretText::new(text) });
        }
        let url = Url::parse(text).map_err(|_| ("is not an address", remedy))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(("names an engine that is neither sqlite nor postgres", remedy));
        }
        Ok(Self { engine: Engine::Postgres, text: SecretText::new(text) })
    }

    /// The address without what may be secret in it: the password, and every parameter (`password`, `sslpassword`, …).
    fn show(&self) -> String {
        let (Engine::Postgres, Ok(mut url)) = (self.engine, Url::parse(self.expose())) else {
            return self.expose().to_owned();
        };
        // An unescaped character of the password has put the rest of it into another part of the address.
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
    fn s6_the_address_is_shown_without_its_secrets() {
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
