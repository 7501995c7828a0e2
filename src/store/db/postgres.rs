//! Connecting to PostgreSQL, and refusing a server that would break a promise.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row as _};

use super::connection::Connection;
use super::fault::{Failure, Fault};
use crate::store::{StoreError, StoreSettings};

/// Oldest server version that is tested, as `server_version_num` counts.
const OLDEST_VERSION: i64 = 15_00_00;

/// A transaction whose client went away in the middle is ended by the server after this, so that its locks do not
/// outlive it, and so that whoever waits for them does not wait in vain: well before a statement is given up. Our
/// transactions last milliseconds.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(1);

/// What is asked of every new connection.
const EXAMINE: &str = "SELECT pg_is_in_recovery()::int::bigint AS standby,
        current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS encoding,
        current_setting('server_version_num')::bigint AS version,
        current_setting('fsync') AS fsync,
        pg_backend_pid() AS backend";

/// Which of these processes work on a statement. One that works for somebody else shows no state.
const STILL_WORKING: &str = "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) AND state = 'active'";

/// How to reach the server.
#[derive(Clone)]
pub(super) struct PostgresConnector {
    options: PgConnectOptions,
    pooled: bool,
    /// Sent once over every new connection, with what is asked then, in one round trip.
    greeting: String,
    begin: String,
}

impl PostgresConnector {
    /// Reads the URL. The error does not repeat it.
    pub(super) fn new(url: &str, pooled: bool, settings: &StoreSettings) -> Result<Self, StoreError> {
        let unreadable = || StoreError::Misconfigured("database.url is not a PostgreSQL URL".to_owned());
        let mut options: PgConnectOptions = url.parse().map_err(|_| unreadable())?;
        // Floats are not used, and PgBouncer refuses start-up parameters that it does not know.
        options = options.extra_float_digits(None).disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("countersign");
        }
        let limits = limits(settings.statement_timeout);
        let (greeting, begin) = if pooled {
            options = options.statement_cache_capacity(0);
            let local: String = limits.iter().map(|(name, value)| format!("; SET LOCAL {name} = {value}")).collect();
            (EXAMINE.to_owned(), format!("BEGIN{local}"))
        } else {
            // Not as `options` at the start: PgBouncer refuses that also in session mode.
            let session: String = limits.iter().map(|(name, value)| format!("SET {name} = {value}; ")).collect();
            (format!("{session}{EXAMINE}"), "BEGIN".to_owned())
        };
        Ok(Self { options, pooled, greeting, begin })
    }

    /// The statement that opens a transaction.
    pub(super) fn begin(&self) -> &str {
        &self.begin
    }

    /// Whether a pooler in transaction mode stands between.
    pub(super) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The driver's options, for the listener's connection. It runs nothing that would need the server's limits.
    pub(super) const fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Opens a connection to a server that passes [`examine`].
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let mut raw = self.options.connect().await?;
        let backend = examine(&mut raw, &self.greeting).await?;
        let backend = (!self.pooled).then_some(backend);
        Ok(Connection::Postgres { raw, prepares: !self.pooled, backend, is_silent: false })
    }

    /// Which of these server processes work on a statement, asked over a connection of its own.
    pub(super) async fn still_working(&self, backends: &[i32]) -> Result<Vec<i32>, Failure> {
        let mut raw = self.options.connect().await?;
        Ok(sqlx::query_scalar(STILL_WORKING).bind(backends).fetch_all(&mut raw).await?)
    }

    /// Whether a password would travel in clear text: TLS is not demanded and the server is not on this machine.
    pub(super) fn may_travel_unencrypted(&self) -> bool {
        let demands_tls =
            matches!(self.options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let host = self.options.get_host();
        let is_local = self.options.get_socket().is_some()
            || host.starts_with('/')
            || matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
        !demands_tls && !is_local
    }
}

/// Limits that the server keeps, in milliseconds: they end what a lost client left behind.
fn limits(statement: Duration) -> [(&'static str, u128); 3] {
    [
        ("statement_timeout", statement.as_millis()),
        ("lock_timeout", statement.as_millis()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION.as_millis()),
    ]
}

/// Refuses a server on which an acknowledged revocation could be lost or a stale row read (security.md D5); the id of its
/// process otherwise.
async fn examine(raw: &mut PgConnection, greeting: &str) -> Result<i32, Failure> {
    // Settings and a question, both ours.
    let row = sqlx::raw_sql(AssertSqlSafe(greeting)).fetch_one(raw).await?;
    let number = |column| row.try_get::<i64, _>(column);
    let text = |column| row.try_get::<String, _>(column);
    let refuse = |text: &str| Failure { fault: Fault::Connection, error: StoreError::Misconfigured(text.to_owned()) };
    if number("version")? < OLDEST_VERSION {
        return Err(refuse("the database server is older than PostgreSQL 15"));
    }
    if number("standby")? != 0 {
        return Err(refuse("the database server is a standby: point database.url at the primary"));
    }
    if text("encoding")? != "UTF8" {
        return Err(refuse("the database's encoding is not UTF8: create it with ENCODING 'UTF8'"));
    }
    if text("synchronous_commit")? == "off" {
        return Err(refuse(
            "the database has synchronous_commit = off: an acknowledged revocation could be lost; set it to on",
        ));
    }
    if text("fsync")? == "off" {
        tracing::warn!("the database server runs with fsync = off: a crash of its machine loses data");
    }
    Ok(row.try_get("backend")?)
}
