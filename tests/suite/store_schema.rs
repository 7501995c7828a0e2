//! Migrations, and databases that are refused (security.md D1, D4, D5).

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use countersign::store::{AuditEvent, Location, SchemaStatus, Store, StoreError, StoreSettings};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

/// Every migration of this release is applied.
fn current() -> SchemaStatus {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite")).unwrap().count();
    let latest = u32::try_from(files).unwrap();
    SchemaStatus { current: latest, latest, pending: 0 }
}

/// Rounds of concurrent starts on an empty database.
const STARTS: usize = 4;

async fn refusal(settings: &StoreSettings) -> StoreError {
    let clock = Arc::new(countersign::clock::ManualClock::starting_at(START));
    match Store::open(settings, clock, Arc::new(())).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

async fn start_together(engine: Engine) {
    for _ in 0..STARTS {
        let database = TestDatabase::bare(engine).await;
        let mut starts = Vec::new();
        for _ in 0..5 {
            let store = database.open().await;
            starts.push(tokio::spawn(async move { store.migrate(START).await }));
        }
        for start in starts {
            assert_eq!(start.await.unwrap(), Ok(current()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_replicas_that_start_together_on_an_empty_sqlite_migrate_it_once() {
    start_together(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_replicas_that_start_together_on_an_empty_postgresql_migrate_it_once() {
    if Engine::Postgres.is_available() {
        start_together(Engine::Postgres).await;
    }
}

on_both_engines! {
    async fn d1_an_empty_database_is_reported_as_not_migrated(database: TestDatabase) {
        let bare = TestDatabase::bare(database.engine).await;
        let status = bare.open().await.check_schema().await.unwrap();
        assert_eq!(status, SchemaStatus { current: 0, latest: current().latest, pending: current().latest });
        assert_eq!(database.open().await.check_schema().await, Ok(current()));
    }

    async fn d1_a_changed_checksum_is_refused(database: TestDatabase) {
        let store = database.open().await;
        database.tamper("UPDATE schema_migrations SET checksum = substr(checksum, 2)").await;
        assert!(matches!(store.check_schema().await, Err(StoreError::Misconfigured(_))));
        assert!(matches!(store.migrate(START).await, Err(StoreError::Misconfigured(_))));
    }

    async fn c10_a_newer_schema_is_refused_unless_it_declares_compatibility(database: TestDatabase) {
        let store = database.open().await;
        database
            .tamper("INSERT INTO schema_migrations SELECT version + 1, 'next', checksum, 1, 0 FROM schema_migrations
                ORDER BY version DESC LIMIT 1")
            .await;
        let next = current().latest + 1;
        let tolerated = SchemaStatus { current: next, ..current() };
        assert_eq!(store.check_schema().await, Ok(tolerated));
        assert_eq!(store.migrate(START).await, Ok(tolerated));
        database.tamper(&format!("UPDATE schema_migrations SET compatible_with = {next} WHERE version = {next}")).await;
        let newer = StoreError::SchemaNewer { found: next, needed: next, known: current().latest };
        assert_eq!(store.check_schema().await, Err(newer.clone()));
        assert_eq!(store.migrate(START).await, Err(newer));
    }

    async fn the_whole_store_works_on_a_single_connection(database: TestDatabase) {
        let mut settings = database.settings.clone();
        settings.max_connections = 1;
        let store = database.open_with(&settings).await;
        let (user, _) = ada_logged_in(&store).await;
        let refreshes: Vec<_> = (0..10).map(|_| { let store = store.clone(); tokio::spawn(async move { rotate(&store, 1, 0, at(1)).await }) }).collect();
        for refresh in refreshes {
            refresh.await.unwrap();
        }
        done(store.users().disable(user.id, at(99), at(2), None).await);
        assert_eq!(store.feed().load_all().await.unwrap().entries.len(), 2);
    }
}

#[tokio::test]
async fn d4_a_missing_sqlite_file_is_created_only_on_request_with_mode_600() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/here/countersign.db");
    let location = |create| StoreSettings::new(Location::Sqlite { path: path.clone(), create });
    let error = refusal(&location(false)).await;
    assert!(matches!(&error, StoreError::Misconfigured(text) if text.contains("does not exist")), "{error}");
    assert!(!path.exists());
    let clock = Arc::new(countersign::clock::ManualClock::starting_at(START));
    let store = Store::open(&location(true), clock, Arc::new(())).await.unwrap();
    store.migrate(START).await.unwrap();
    for suffix in ["", "-wal", "-shm", "-turn"] {
        let file = format!("{}{suffix}", path.display());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
}

#[tokio::test]
async fn d4_a_file_that_is_not_a_database_is_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countersign.db");
    let text = "These are my notes, and they are longer than the header of a database would be. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let error = refusal(&StoreSettings::new(Location::Sqlite { path: path.clone(), create: true })).await;
    assert!(matches!(error, StoreError::Misconfigured(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let error = refusal(&StoreSettings::new(Location::Sqlite { path: folder.path().into(), create: true })).await;
    assert!(matches!(error, StoreError::Misconfigured(_)), "{error}");
}

#[tokio::test]
async fn d5_a_server_without_durable_commits_is_refused() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let Location::Postgres { url, .. } = &database.settings.location else { panic!("not PostgreSQL") };
    let name = url.rsplit('/').next().unwrap().to_owned();
    database.tamper(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let error = refusal(&database.settings).await;
    assert!(matches!(&error, StoreError::Misconfigured(text) if text.contains("synchronous_commit")), "{error}");
}

#[tokio::test]
async fn d5_every_connection_commits_durably_whatever_the_servers_default() {
    if !Engine::Postgres.is_available() {
        return;
    }
    for pooler in [false, true] {
        let database = TestDatabase::alone().await;
        let Location::Postgres { url, .. } = &database.settings.location else { panic!("not PostgreSQL") };
        let name = url.rsplit('/').next().unwrap().to_owned();
        database
            .tamper(&format!(
                "CREATE FUNCTION require_durability() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF current_setting('synchronous_commit') <> 'on' THEN RAISE EXCEPTION 'not durable'; END IF;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER durable BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION require_durability();
                ALTER DATABASE {name} SET synchronous_commit = local"
            ))
            .await;
        let mut settings = database.settings.clone();
        if let Location::Postgres { pooler_transaction_mode, .. } = &mut settings.location {
            *pooler_transaction_mode = pooler;
        }
        let clock = Arc::new(countersign::clock::ManualClock::starting_at(START));
        let store = Store::open(&settings, clock, Arc::new(())).await.unwrap();
        let event = AuditEvent { event: "tested", ..AuditEvent::default() };
        store.audit().append(vec![event], START).await.unwrap();
    }
}

#[tokio::test]
async fn d5_a_database_that_is_not_utf8_is_refused() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::bare_with(" ENCODING 'LATIN1' LOCALE 'C'").await;
    let error = refusal(&database.settings).await;
    assert!(matches!(&error, StoreError::Misconfigured(text) if text.contains("UTF8")), "{error}");
}

#[tokio::test]
async fn s1_an_invalid_or_unreachable_url_is_not_repeated_in_the_error() {
    for url in
        ["postgres://ada:hunter2@127.0.0.1:1/x", "postgres://ada:hunter2@[bad/x", "postgres://ada:hunter2@h:99999/x"]
    {
        let location = Location::Postgres { url: url.to_owned(), pooler_transaction_mode: false };
        let error = refusal(&StoreSettings::new(location)).await;
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
