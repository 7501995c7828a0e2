//! A fresh database for each test, on either engine.
//!
//! PostgreSQL is tested if `COUNTERSIGN_TEST_POSTGRES` holds the URL of a server on which databases may be made (see
//! `tests/postgres.sh`). Otherwise the PostgreSQL tests report that they were skipped. A test gets its own schema in a
//! database of the process, because creating and dropping a whole database takes the server seconds of `fsync`. Tests
//! that cut connections or listen get their own database.
//!
//! If `COUNTERSIGN_TEST_PGBOUNCER` holds the URL of a PgBouncer in transaction mode in front of that server, the test
//! of poolers goes through it.

use std::sync::Arc;
use std::time::Duration;

use countersign::clock::ManualClock;
use countersign::domain::Timestamp;
use countersign::store::{Location, Store, StoreSettings};
use sqlx::{ConnectOptions as _, Connection, Executor};
use tokio::sync::OnceCell;

/// The start time of tests.
pub const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// Whether it can be tested here; prints a message if not.
    #[expect(clippy::print_stderr, reason = "a half that was skipped must be seen")]
    pub fn is_available(self) -> bool {
        let available = self == Self::Sqlite || admin_url().is_some();
        if !available {
            eprintln!("skipped on PostgreSQL: COUNTERSIGN_TEST_POSTGRES is not set (see tests/postgres.sh)");
        }
        available
    }
}

/// A database of a test's own, migrated and empty; removed when dropped.
pub struct TestDatabase {
    pub engine: Engine,
    pub settings: StoreSettings,
    pub clock: Arc<ManualClock>,
    remains: Remains,
}

enum Remains {
    Folder(#[expect(dead_code, reason = "removes the folder when dropped")] tempfile::TempDir),
    Schema { name: String },
    Database { name: String },
}

impl TestDatabase {
    /// A migrated, empty database.
    pub async fn fresh(engine: Engine) -> Self {
        Self::bare(engine).await.migrated().await
    }

    /// A migrated, empty PostgreSQL database that shares its connections and notifications with no other test.
    pub async fn alone() -> Self {
        Self::bare_with("").await.migrated().await
    }

    /// A database without tables.
    pub async fn bare(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("countersign.db");
                Self::new(engine, Location::Sqlite { path, create: true }, Remains::Folder(folder))
            }
            Engine::Postgres => {
                let name = format!("test_{}", next_number());
                execute(&url_of(shared().await), &format!("CREATE SCHEMA {name}")).await;
                let mut url = url::Url::parse(&url_of(shared().await)).unwrap();
                url.query_pairs_mut().append_pair("options", &format!("-csearch_path={name}"));
                Self::new(engine, postgres(url.to_string()), Remains::Schema { name })
            }
        }
    }

    /// A PostgreSQL database of its own, without tables, made with further options.
    pub async fn bare_with(options: &str) -> Self {
        let name = format!("cs_{}_{}", std::process::id(), next_number());
        execute(&admin_url().unwrap(), &format!("CREATE DATABASE {name} TEMPLATE template0{options}")).await;
        Self::new(Engine::Postgres, postgres(url_of(&name)), Remains::Database { name })
    }

    fn new(engine: Engine, location: Location, remains: Remains) -> Self {
        let mut settings = StoreSettings::new(location);
        // Tests share a small machine: these timeouts only prevent hangs, unlike the bounds of production.
        settings.acquire_timeout = Duration::from_secs(20);
        settings.statement_timeout = Duration::from_secs(20);
        settings.busy_timeout = Duration::from_secs(20);
        settings.feed_timeout = Duration::from_secs(20);
        settings.max_connections = pool_size().unwrap_or(4);
        Self { engine, settings, clock: Arc::new(ManualClock::starting_at(START)), remains }
    }

    async fn migrated(self) -> Self {
        self.open().await.migrate(START).await.unwrap();
        self
    }

    /// Opens the database, as another replica would.
    pub async fn open(&self) -> Store {
        self.open_with(&self.settings).await
    }

    /// Opens the database with other settings.
    pub async fn open_with(&self, settings: &StoreSettings) -> Store {
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        Store::open(settings, clock, Arc::new(())).await.unwrap()
    }

    /// The address of the PostgreSQL database, to change a part of it.
    pub fn url(&self) -> url::Url {
        match &self.settings.location {
            Location::Postgres { url, .. } => url.parse().unwrap(),
            Location::Sqlite { .. } => panic!("not on SQLite"),
        }
    }

    /// Reaches the PostgreSQL database through another address from now on.
    pub fn set_url(&mut self, url: &url::Url) {
        self.settings.location = postgres(url.to_string());
    }

    /// A connection that bypasses the store, on PostgreSQL.
    pub async fn connect_postgres(&self) -> sqlx::PgConnection {
        match &self.settings.location {
            Location::Postgres { url, .. } => sqlx::PgConnection::connect(url).await.unwrap(),
            Location::Sqlite { .. } => panic!("not on SQLite"),
        }
    }

    /// The file, on SQLite.
    pub fn file(&self) -> Option<&std::path::Path> {
        match &self.settings.location {
            Location::Sqlite { path, .. } => Some(path),
            Location::Postgres { .. } => None,
        }
    }

    /// The database's content on this machine's disk: its files on SQLite, nothing on PostgreSQL.
    pub fn files(&self) -> Vec<Vec<u8>> {
        let Some(path) = self.file() else { return Vec::new() };
        let with = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        ["", "-wal"].into_iter().filter_map(|suffix| std::fs::read(with(suffix)).ok()).collect()
    }

    /// Runs SQL on the PostgreSQL database at another address, such as that of its owner.
    pub async fn tamper_as(&self, url: &url::Url, sql: &str) {
        execute(url.as_str(), sql).await;
    }

    /// Runs SQL that bypasses the store, to damage data on purpose.
    pub async fn tamper(&self, sql: &str) {
        match &self.settings.location {
            Location::Sqlite { path, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
                connection.close().await.unwrap();
            }
            Location::Postgres { url, .. } => execute(url, sql).await,
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, sql) = match &self.remains {
            Remains::Folder(_) => return,
            Remains::Schema { name } => {
                let Location::Postgres { url, .. } = &self.settings.location else { return };
                (url.clone(), format!("SET lock_timeout = '5s'; DROP SCHEMA {name} CASCADE"))
            }
            Remains::Database { name } => (admin_url().unwrap(), format!("DROP DATABASE {name} WITH (FORCE)")),
        };
        // The test's runtime may be shutting down, so this code uses its own. The next run drops what remains.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&url, &sql));
        });
        let _ = dropped.join();
    }
}

/// `COUNTERSIGN_TEST_POOL_SIZE`: the maximum number of connections of each replica. Such a run shows that no task
/// requests a second connection while it holds one (security.md D9).
pub fn pool_size() -> Option<usize> {
    std::env::var("COUNTERSIGN_TEST_POOL_SIZE").ok().map(|size| size.parse().unwrap())
}

fn admin_url() -> Option<String> {
    std::env::var("COUNTERSIGN_TEST_POSTGRES").ok().filter(|url| !url.is_empty())
}

fn url_of(name: &str) -> String {
    let mut url = url::Url::parse(&admin_url().unwrap()).unwrap();
    url.set_path(name);
    url.to_string()
}

fn postgres(url: String) -> Location {
    Location::Postgres { url, pooler_transaction_mode: false }
}

fn next_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// The database of this process; databases of ended processes are dropped first.
async fn shared() -> &'static str {
    static SHARED: OnceCell<String> = OnceCell::const_new();
    let made = SHARED.get_or_init(|| async {
        let admin = admin_url().unwrap();
        let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
        let names = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'cs\\_%'");
        let names: Vec<String> = names.fetch_all(&mut connection).await.unwrap();
        for name in names {
            let process = name.split('_').nth(1).unwrap_or_default();
            if !std::path::Path::new("/proc").join(process).exists() {
                execute(&admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            }
        }
        let name = format!("cs_{}", std::process::id());
        execute(&admin, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        name
    });
    made.await
}

/// Does not log the statements: those that set a role's password contain it, and concurrent tests search the log (S1).
async fn execute(url: &str, sql: &str) {
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut connection = options.disable_statement_logging().connect().await.unwrap();
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

/// Turns `async fn sentence(database: TestDatabase)` into two tests: `sentence::on_sqlite` and `sentence::on_postgres`.
macro_rules! on_both_engines {
    ($($(#[$attribute:meta])* async fn $name:ident($database:ident: TestDatabase) $body:block)*) => {
        $($(#[$attribute])* mod $name {
            use super::*;

            async fn run($database: TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                run(TestDatabase::fresh(Engine::Sqlite).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                if Engine::Postgres.is_available() {
                    run(TestDatabase::fresh(Engine::Postgres).await).await;
                }
            }
        })*
    };
}
pub(crate) use on_both_engines;
