//! Connects to PostgreSQL, and refuses a server that would break a guarantee.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row as _};

use super::address::{self, AddressError};
use super::connection::Connection;
use super::fault::{Failure, Fault, LOGIN_REFUSED};
use super::tls;
use crate::store::{StoreError, StoreSettings};

/// Oldest server version that is tested, as `server_version_num` counts.
const OLDEST_VERSION: i64 = 15_00_00;

/// The server ends a transaction after its client has been gone for this long. Its locks then end well before the
/// statements that wait for them time out. Transactions of this service last milliseconds.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(1);

/// Sent first: not every server that speaks the protocol knows the queries that follow.
const PRODUCT: &str = "SELECT version() AS product; ";

/// Keeps the commits of this service durable if the server's `synchronous_commit` is lowered while it runs. Stronger
/// values than `on` stay. It is a `DO` block, because a `SELECT` would return a row.
fn pin_durability(is_local: bool) -> String {
    format!(
        "DO $$ BEGIN PERFORM set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN 'on' ELSE current_setting('synchronous_commit') END, {is_local}); END $$"
    )
}

/// The name of a logical-replication subscription that writes into a table of this service, as an expression.
macro_rules! subscription {
    () => {
        "(SELECT subname::text FROM pg_subscription_rel
            JOIN pg_subscription ON pg_subscription.oid = srsubid
            JOIN pg_class ON pg_class.oid = srrelid
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
                AND relname IN ('changes', 'users', 'clients', 'client_secrets', 'sessions', 'signing_keys', 'installation')
            LIMIT 1)"
    };
}
pub(in crate::store) use subscription;

/// The subscription tables of other replication systems that this database has, as an expression.
macro_rules! other_subscriptions {
    () => {
        "nullif(concat_ws(' ', to_regclass('pglogical.subscription'), to_regclass('spock.subscription'),
            to_regclass('bdr.subscription'), to_regclass('bdr.bdr_connections')), '')"
    };
}
pub(in crate::store) use other_subscriptions;

/// Whether a replication system writes into this database.
const OTHER_SUBSCRIPTIONS: [(&str, &str); 4] = [
    ("pglogical.subscription", "SELECT EXISTS (SELECT 1 FROM pglogical.subscription)"),
    ("spock.subscription", "SELECT EXISTS (SELECT 1 FROM spock.subscription)"),
    ("bdr.subscription", "SELECT EXISTS (SELECT 1 FROM bdr.subscription)"),
    ("bdr.bdr_connections", "SELECT EXISTS (SELECT 1 FROM bdr.bdr_connections)"),
];

/// Queried on every new connection.
const EXAMINE: &str = concat!(
    "SELECT pg_is_in_recovery()::int::bigint AS standby,
        (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS encoding,
        current_setting('server_version_num')::bigint AS version,
        current_setting('fsync') AS fsync,
        pg_backend_pid() AS backend, ",
    subscription!(),
    " AS subscription, ",
    other_subscriptions!(),
    " AS other_subscriptions"
);

/// Servers that speak PostgreSQL's protocol, by a part of their `version()`.
const OTHER_PRODUCTS: [(&str, &str); 7] = [
    ("CockroachDB", "CockroachDB"),
    ("-YB-", "YugabyteDB"),
    ("Redshift", "Amazon Redshift"),
    ("Greenplum", "Greenplum"),
    ("Materialize", "Materialize"),
    ("RisingWave", "RisingWave"),
    ("QuestDB", "QuestDB"),
];

/// The given processes that work on a statement. A process of another role shows no state.
const STILL_WORKING: &str = "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) AND state = 'active'";

/// Reads the address again from its source.
pub type ReadAddress = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The connector to the server.
#[derive(Clone)]
pub(super) struct PostgresConnector {
    options: Arc<ArcSwap<PgConnectOptions>>,
    /// Set if the address comes from a file, which may since hold a new password.
    read_address: Option<ReadAddress>,
    pooled: bool,
    /// Sent once over every new connection, together with the queries, in one round trip.
    greeting: String,
    begin: String,
}

impl PostgresConnector {
    /// Reads the address. The error does not repeat it.
    pub(super) fn new(url: &str, pooled: bool, settings: &StoreSettings) -> Result<Self, AddressError> {
        let options = Arc::new(ArcSwap::from_pointee(options(url, pooled)?));
        let read_address = settings.read_address.clone();
        let limits = session_settings(settings.statement_timeout);
        // Every statement is written for this isolation level. The database or role may have another default.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let (greeting, begin) = if pooled {
            let local: String = limits.iter().map(|(name, value)| format!("; SET LOCAL {name} = {value}")).collect();
            (format!("{PRODUCT}{EXAMINE}"), format!("{begin}{local}; {}", pin_durability(true)))
        } else {
            // Not sent as `options` at the start: PgBouncer refuses them even in session mode.
            let session: String = limits.iter().map(|(name, value)| format!("SET {name} = {value}; ")).collect();
            let isolation = "SET default_transaction_isolation = 'read committed'; ";
            (format!("{PRODUCT}{session}{isolation}{}; {EXAMINE}", pin_durability(false)), begin.to_owned())
        };
        Ok(Self { options, read_address, pooled, greeting, begin })
    }

    /// The statement that opens a transaction.
    pub(super) fn begin(&self) -> &str {
        &self.begin
    }

    /// Whether a pooler in transaction mode is in between.
    pub(super) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The driver's options, for the listener's connection. It runs no statement that needs the server's limits.
    pub(super) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::clone(&self.options.load())
    }

    /// Opens a connection to a server that passes [`examine`].
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let mut raw = self.open().await?;
        let backend = examine(&mut raw, &self.greeting).await?;
        let backend = (!self.pooled).then_some(backend);
        Ok(Connection::Postgres { raw, prepares: !self.pooled, backend, is_silent: false })
    }

    /// The given server processes that work on a statement, queried over a separate connection.
    pub(super) async fn still_working(&self, backends: &[i32]) -> Result<Vec<i32>, Failure> {
        let mut raw = self.open().await?;
        Ok(sqlx::query_scalar(STILL_WORKING).bind(backends).fetch_all(&mut raw).await?)
    }

    /// Opens a connection. When the server refuses the login, the address is read again from its file, because the
    /// password may have been rotated.
    async fn open(&self) -> Result<PgConnection, Failure> {
        let options = self.options();
        let error = match open_as_preferred(&options).await {
            Err(error) if is_login_refused(&error) => error,
            other => return Ok(other?),
        };
        match self.read_options_again() {
            Ok(Some(options)) => Ok(open_as_preferred(&options).await?),
            // The file may hold the new password soon.
            Ok(None) if self.read_address.is_some() => Err(Failure::from(error).into_outage()),
            Ok(None) => Err(error.into()),
            Err(error) => Err(Failure { fault: Fault::Connection, error: StoreError::from(error) }.into_outage()),
        }
    }

    /// The options of the address in its file, if it has changed.
    pub(super) fn read_options_again(&self) -> Result<Option<PgConnectOptions>, AddressError> {
        let Some(url) = self.read_address.as_ref().and_then(|read| read()) else { return Ok(None) };
        let fresh = options(&url, self.pooled)?;
        // The driver's options can be compared only by their text. It holds the password and does not leave this
        // function.
        let is_same = fresh.to_url_lossy() == self.options.load().to_url_lossy();
        if is_same {
            return Ok(None);
        }
        tracing::info!("the database address was read again from database.url_file");
        self.options.store(Arc::new(fresh.clone()));
        Ok(Some(fresh))
    }

    /// Whether a password would travel in clear text: TLS is not required and the server is not on this machine.
    pub(super) fn may_travel_unencrypted(&self) -> bool {
        let options = self.options.load();
        let demands_tls =
            matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let host = options.get_host();
        let is_local = options.get_socket().is_some()
            || host.starts_with('/')
            || matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
        !demands_tls && !is_local
    }
}

fn options(url: &str, pooled: bool) -> Result<PgConnectOptions, AddressError> {
    // Floats are not used, and PgBouncer refuses start-up parameters that it does not know.
    let mut options = address::parse(url)?.extra_float_digits(None).disable_statement_logging();
    if options.get_application_name().is_none() {
        options = options.application_name("countersign");
    }
    Ok(if pooled { options.statement_cache_capacity(0) } else { options })
}

/// Connects. As in libpq, `sslmode=prefer` continues without TLS when the handshake fails.
async fn open_as_preferred(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    match options.connect().await {
        Err(error) if matches!(options.get_ssl_mode(), PgSslMode::Prefer) && tls::failure(&error).is_some() => {
            tracing::debug!("the TLS handshake with the database failed; sslmode=prefer goes on without TLS");
            options.clone().ssl_mode(PgSslMode::Disable).connect().await
        }
        other => other,
    }
}

/// Wrong password, role or database.
fn is_login_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| LOGIN_REFUSED.contains(&&*code))
}

/// Settings of every session. Limits in milliseconds end the work of a lost client. Notices are off, because the driver
/// would log them.
fn session_settings(statement: Duration) -> [(&'static str, String); 4] {
    [
        ("statement_timeout", statement.as_millis().to_string()),
        ("lock_timeout", statement.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION.as_millis().to_string()),
        ("client_min_messages", "warning".to_owned()),
    ]
}

/// Refuses a server that could lose an acknowledged revocation or read a stale row (security.md D5, D16). Otherwise
/// returns the id of its process.
async fn examine(raw: &mut PgConnection, greeting: &str) -> Result<i32, Failure> {
    let refuse = |text: String| Failure { fault: Fault::Connection, error: StoreError::Misconfigured(text) };
    // Fixed settings and two queries. Another product may answer the first and fail the rest.
    let mut rows = sqlx::raw_sql(AssertSqlSafe(greeting)).fetch(&mut *raw);
    let product: String = rows
        .try_next()
        .await?
        .ok_or_else(|| refuse("the database server did not answer".to_owned()))?
        .try_get("product")?;
    if let Some(name) = other_product(&product) {
        return Err(refuse(format!(
            "the database server is {name}, not PostgreSQL: replicas find revocations by transaction snapshots of one server, \
             which it does not have"
        )));
    }
    let row = rows.try_next().await?.ok_or_else(|| refuse("the database server did not answer".to_owned()))?;
    drop(rows);
    if let Some(tables) = row.try_get::<Option<String>, _>("other_subscriptions")? {
        refuse_other_subscriptions(raw, &tables).await?;
    }
    let number = |column| row.try_get::<i64, _>(column);
    let text = |column| row.try_get::<String, _>(column);
    let refuse = |text: &str| Err(refuse(text.to_owned()));
    if number("version")? < OLDEST_VERSION {
        return refuse("the database server is older than PostgreSQL 15");
    }
    if number("standby")? != 0 {
        return refuse("the database server is a standby: point database.url at the primary");
    }
    if let Some(subscription) = row.try_get::<Option<String>, _>("subscription")? {
        return refuse(&is_subscriber(&subscription));
    }
    if text("encoding")? != "UTF8" {
        return refuse("the database's encoding is not UTF8: create it with ENCODING 'UTF8'");
    }
    if text("synchronous_commit")? == "off" {
        return refuse(
            "the database has synchronous_commit = off: an acknowledged revocation could be lost; set it to on",
        );
    }
    if text("fsync")? == "off" {
        tracing::warn!("the database server runs with fsync = off: a crash of its machine loses data");
    }
    Ok(row.try_get("backend")?)
}

/// Why a database with a logical-replication subscription is refused.
pub(in crate::store) fn is_subscriber(subscription: &str) -> String {
    format!(
        "the database is a logical-replication subscriber (subscription {subscription:?} writes its tables): replicated \
         revocations would be missed; point database.url at the publisher, or drop the subscription"
    )
}

/// Refuses a database into which pglogical, Spock or BDR replicates. `tables` are those of [`other_subscriptions`].
async fn refuse_other_subscriptions(raw: &mut PgConnection, tables: &str) -> Result<(), Failure> {
    let installed = OTHER_SUBSCRIPTIONS.iter().filter(|(table, _)| tables.split(' ').any(|found| found == *table));
    for (table, sql) in installed {
        let text = match sqlx::raw_sql(*sql).fetch_one(&mut *raw).await {
            Ok(row) if !row.try_get::<bool, _>(0)? => continue,
            Ok(_) => format!(
                "the database receives changes by the replication of {table}: replicated revocations would be missed; point \
                 database.url at their source, or remove the subscription"
            ),
            Err(sqlx::Error::Database(error)) => {
                format!("{table} shows whether this database receives changes, and cannot be read: {}", error.message())
            }
            Err(error) => return Err(error.into()),
        };
        return Err(Failure { fault: Fault::Connection, error: StoreError::Misconfigured(text) });
    }
    Ok(())
}

/// The name of a server that only speaks PostgreSQL's protocol.
fn other_product(version: &str) -> Option<&str> {
    let known = OTHER_PRODUCTS.iter().find(|(part, _)| version.contains(part)).map(|(_, name)| *name);
    known.or_else(|| (!version.starts_with("PostgreSQL ")).then(|| version.split(' ').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d16_other_products_are_recognised_by_their_version() {
        for (version, name) in [
            ("CockroachDB CCL v23.2.4 (x86_64-pc-linux-gnu, built 2024/04/08, go1.21.5)", "CockroachDB"),
            ("PostgreSQL 11.2-YB-2.20.1.3-b0 on x86_64-pc-linux-gnu, compiled by clang, 64-bit", "YugabyteDB"),
            ("PostgreSQL 15.2-YB-2.25.0.0-b0 on x86_64-pc-linux-gnu", "YugabyteDB"),
            (
                "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.63",
                "Amazon Redshift",
            ),
            ("CrateDB 5.6.3 (built 41dba0a/2024-04-18T09:04:31Z)", "CrateDB"),
        ] {
            assert_eq!(other_product(version), Some(name));
        }
        for version in [
            "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit",
            "PostgreSQL 16.1 (EnterpriseDB Advanced Server 16.1.0) on x86_64-pc-linux-gnu, 64-bit",
        ] {
            assert_eq!(other_product(version), None);
        }
    }
}
