//! A fresh database for each test, on either engine.
//!
//! PostgreSQL is tested where `COUNTERSIGN_TEST_POSTGRES` holds the URL of a server on which databases may be made (see
//! `tests/postgres.sh`); elsewhere that half says that it was skipped.

use std::sync::Arc;
use std::time::Duration;

use countersign::clock::ManualClock;
use countersign::domain::Timestamp;
use countersign::store::{Location, Store, StoreSettings};
use sqlx::{Connection, Executor};
use tokio::sync::OnceCell;

/// When tests begin.
pub const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// Whether it can be tested here; says so if not.
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
    Database { name: String },
}

impl TestDatabase {
    /// A migrated, empty database.
    pub async fn fresh(engine: Engine) -> Self {
        let database = match engine {
            Engine::Sqlite => return Self::bare(engine).await.migrated().await,
            Engine::Postgres => Self::bare_from(template().await).await,
        };
        database
    }

    /// A database without tables.
    pub async fn bare(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("countersign.db");
                Self::new(engine, Location::Sqlite { path, create: true }, Remains::Folder(folder))
            }
            Engine::Postgres => Self::bare_from("template0").await,
        }
    }

    /// A PostgreSQL database without tables, made with further options.
    pub async fn bare_with(options: &str) -> Self {
        Self::bare_from(&format!("template0{options}")).await
    }

    async fn bare_from(template: &str) -> Self {
        let name = create(template).await;
        let location = Location::Postgres { url: url_of(&name), pooler_transaction_mode: false };
        Self::new(Engine::Postgres, location, Remains::Database { name })
    }

    fn new(engine: Engine, location: Location, remains: Remains) -> Self {
        let mut settings = StoreSettings::new(location);
        // Tests share a small machine: what is bounded in production is only kept from hanging here.
        settings.acquire_timeout = Duration::from_secs(20);
        settings.statement_timeout = Duration::from_secs(20);
        settings.max_connections = 4;
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

    /// A connection behind the store's back, on PostgreSQL.
    pub async fn connect_postgres(&self) -> sqlx::PgConnection {
        match &self.settings.location {
            Location::Postgres { url, .. } => sqlx::PgConnection::connect(url).await.unwrap(),
            Location::Sqlite { .. } => panic!("not on SQLite"),
        }
    }

    /// Runs SQL behind the store's back, to break things on purpose.
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
        if let Remains::Database { name } = &self.remains {
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            // The test's runtime may be going away: this one is our own.
            let dropped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(execute(&admin_url().unwrap(), &sql));
            });
            let _ = dropped.join();
        }
    }
}

fn admin_url() -> Option<String> {
    std::env::var("COUNTERSIGN_TEST_POSTGRES").ok().filter(|url| !url.is_empty())
}

fn url_of(name: &str) -> String {
    let mut url = url::Url::parse(&admin_url().unwrap()).unwrap();
    url.set_path(name);
    url.to_string()
}

/// Makes a database of a name that no other process uses.
async fn create(template: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("cs_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy");
    execute(&admin_url().unwrap(), &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    execute(&admin_url().unwrap(), &sql).await;
    name
}

/// A migrated database that others are copied from: faster than migrating each.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let made = TEMPLATE.get_or_init(|| async {
        let name = create("template0").await;
        let location = Location::Postgres { url: url_of(&name), pooler_transaction_mode: false };
        let clock = Arc::new(ManualClock::starting_at(START));
        let store = Store::open(&StoreSettings::new(location), clock, Arc::new(())).await.unwrap();
        store.migrate(START).await.unwrap();
        name
    });
    made.await
}

async fn execute(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
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
