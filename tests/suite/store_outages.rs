//! Deliberate database failures: no partial change, no hanging, and full recovery afterwards.
#![expect(clippy::disallowed_methods, reason = "how long an outage takes to be told is real time")]

use std::time::{Duration, Instant};

use countersign::domain::{RefreshRefusal, UserState};
use countersign::store::{Location, PasswordChange, RotateOutcome, RotateRequest, Store, StoreError, StoreSettings};
use sqlx::{Connection, Executor};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::proxy::Proxy;
use crate::support::store::*;

/// Makes every insertion into `table` for which `condition` holds fail with `code`.
async fn inject(database: &TestDatabase, table: &str, condition: &str, code: &str) {
    let sql = match database.engine {
        Engine::Sqlite => format!(
            "CREATE TRIGGER injected BEFORE INSERT ON {table} WHEN {condition}
             BEGIN SELECT RAISE(ABORT, 'injected'); END"
        ),
        Engine::Postgres => format!(
            "CREATE OR REPLACE FUNCTION injected() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN IF {condition} THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; RETURN NEW; END$$;
             CREATE TRIGGER injected BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION injected()"
        ),
    };
    database.tamper(&sql).await;
}

async fn stop_injecting(database: &TestDatabase, table: &str) {
    let on_table = if database.engine == Engine::Postgres { format!(" ON {table}") } else { String::new() };
    database.tamper(&format!("DROP TRIGGER injected{on_table}")).await;
}

/// Settings with the timeouts of production.
fn impatient(database: &TestDatabase) -> StoreSettings {
    let mut settings = database.settings.clone();
    settings.acquire_timeout = Duration::from_millis(500);
    settings.statement_timeout = Duration::from_millis(500);
    settings.busy_timeout = Duration::from_millis(300);
    settings.max_connections = 1;
    settings
}

fn is_outage<T>(answer: &Result<T, StoreError>) -> bool {
    answer.as_ref().is_err_and(StoreError::is_outage)
}

on_both_engines! {
    async fn r5_a_failure_at_the_last_statement_rolls_everything_back(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        rotate(&store, 1, 0, at(60)).await;
        inject(&database, "changes", "true", "58000").await;
        // Reuse: the session must not end without its revocation.
        assert!(store.sessions().rotate(presented(1, 0), at(99)).await.is_err());
        assert!(store.users().disable(user.id, at(99), at(99), None).await.is_err());
        assert!(store.users().delete(user.id, at(99), at(99), None).await.is_err());
        assert!(store.clients().disable(&client.id, at(99), at(99), None).await.is_err());
        let change = PasswordChange {
            user: user.id,
            expected_epoch: Some(0),
            password_hash: "new".to_owned(),
            kept: None,
            revocation_expires_at: at(99),
            audit: None,
        };
        assert!(store.users().change_password(change, at(99)).await.is_err());
        let mut displacing = new_session(2, &user, &client, at(99));
        displacing.max_per_user = 1;
        assert!(store.sessions().open(displacing, at(99)).await.is_err());
        stop_injecting(&database, "changes").await;

        let unchanged = store.users().credentials_by_id(user.id).await.unwrap().unwrap();
        assert_eq!((unchanged.user.epoch, unchanged.user.state), (0, UserState::Enabled));
        assert_eq!(unchanged.password_hash, "hash-1");
        assert_eq!(count_of(&store, "session.reused").await, 0);
        assert_eq!(store.sessions().by_id(session_id(2)).await.unwrap(), None);
        assert_eq!(store.feed().load_all().await.unwrap().entries.len(), 1);
        // The refresh that failed consumed nothing, and a retry has the same outcome.
        assert!(matches!(rotate(&store, 1, 1, at(99)).await, RotateOutcome::Rotated(_)));
        assert_eq!(rotate(&store, 1, 0, at(99)).await, RotateOutcome::Refused(RefreshRefusal::Reused));
    }

    async fn a_failed_write_does_not_fail_others_of_its_group(database: TestDatabase) {
        let store = database.open().await;
        inject(&database, "users", "NEW.username LIKE 'bad%'", "58000").await;
        let writes: Vec<_> = (0..60_u8)
            .map(|number| {
                let store = store.clone();
                let name = format!("{}-{number}", if number % 3 == 0 { "bad" } else { "good" });
                tokio::spawn(async move { store.users().create(new_user(number, &name), START, None).await.is_ok() })
            })
            .collect();
        for (number, write) in (0..60_u8).zip(writes) {
            assert_eq!(write.await.unwrap(), number % 3 != 0, "{number}");
        }
        assert_eq!(store.users().page(None, None, 100).await.unwrap().readable.len(), 40);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_transaction_that_conflicts_is_retried_a_bounded_number_of_times() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let store = database.open().await;
    for (round, code) in (1..).zip(["40001", "40P01"]) {
        database.tamper("DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries").await;
        inject(&database, "users", "nextval('tries') < 4", code).await;
        add_user(&store, round, &format!("ada-{round}")).await;
        stop_injecting(&database, "users").await;
    }
    inject(&database, "users", "nextval('tries') > 0", "40001").await;
    let before = sequence(&database).await;
    assert!(is_outage(&store.users().create(new_user(9, "bob"), START, None).await));
    assert_eq!(sequence(&database).await - before, 5);
}

async fn sequence(database: &TestDatabase) -> i64 {
    let mut connection = database.connect_postgres().await;
    sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_with_an_exhausted_pool_requests_fail_within_a_second_and_the_feed_continues() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let mut settings = impatient(&database);
    settings.statement_timeout = Duration::from_secs(20);
    let store = database.open_with(&settings).await;
    let user = add_user(&store, 1, "ada").await;
    let mut locked = database.connect_postgres().await;
    locked.execute("BEGIN; UPDATE users SET epoch = epoch").await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.users().disable(user.id, at(99), START, None).await }
    });
    while store.pool_status().in_use == 0 {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    assert!(is_outage(&store.users().by_id(user.id).await));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(store.feed().load_all().await.is_ok());
    locked.execute("ROLLBACK").await.unwrap();
    assert!(waiting.await.unwrap().is_ok());
    assert!(store.users().by_id(user.id).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_while_another_process_writes_to_sqlite_reads_continue_and_writes_time_out() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    let store = database.open_with(&impatient(&database)).await;
    let user = add_user(&store, 1, "ada").await;
    let Location::Sqlite { path, .. } = &database.settings.location else { panic!("not SQLite") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    assert!(is_outage(&store.users().create(new_user(2, "bob"), START, None).await));
    assert!(store.users().by_id(user.id).await.is_ok());
    assert!(store.feed().load_all().await.is_ok());
    other.execute("ROLLBACK").await.unwrap();
    assert!(store.users().create(new_user(2, "bob"), START, None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_can_write_while_a_server_writes_continuously() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    let (server, administrator) = (database.open().await, database.open().await);
    let (user, _) = ada_logged_in(&server).await;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, is_over) = (server.clone(), std::sync::Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    done(store.users().revoke(user.id, at(99), START, None).await);
                }
            })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        done(administrator.users().revoke(user.id, at(99), START, None).await);
    }
    let took = began.elapsed();
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_the_next_operation_succeeds_after_the_server_drops_every_connection() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let store = database.open().await;
    ada_logged_in(&store).await;
    let drop_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for round in 0..5_u8 {
        database.tamper(drop_all).await;
        assert!(store.feed().load_all().await.is_ok());
        add_user(&store, 10 + round, &format!("user-{round}")).await;
        database.tamper(drop_all).await;
        assert!(store.users().by_username(&username("ada")).await.unwrap().is_some());
    }
    for generation in 0..3 {
        database.tamper(drop_all).await;
        assert!(matches!(rotate(&store, 1, generation, at(1)).await, RotateOutcome::Rotated(_)));
        database.tamper(drop_all).await;
        assert!(store.assertions().remember([generation as u8; 32], at(99), START).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_answer_is_lost_is_neither_repeated_nor_reported_as_not_made() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let (proxy, store) = behind_a_proxy(&database).await;
    ada_logged_in(&store).await;
    let is_unknown = |error: Option<StoreError>| matches!(error, Some(StoreError::OutcomeUnknown(_)));

    proxy.swallow_answer("COMMIT");
    assert!(is_unknown(store.users().create(new_user(2, "bob"), START, None).await.err()));
    assert!(store.users().by_username(&username("bob")).await.unwrap().is_some());

    proxy.swallow_answer("INSERT 0 1");
    assert!(is_unknown(store.assertions().remember([1; 32], at(99), START).await.err()));
    assert!(!store.assertions().remember([1; 32], at(99), START).await.unwrap());

    // Within the retry window, a lost rotation is answered as a retry.
    proxy.swallow_answer("UPDATE 1");
    assert!(matches!(rotate(&store, 1, 0, at(1)).await, RotateOutcome::Retried(_)));
    let without_window = RotateRequest { retry_window: Duration::ZERO, ..presented(1, 1) };
    proxy.swallow_answer("UPDATE 1");
    assert!(is_unknown(store.sessions().rotate(without_window, at(2)).await.err()));
    assert!(matches!(rotate(&store, 1, 2, at(3)).await, RotateOutcome::Rotated(_)), "the session goes on");
}

/// A store that reaches its database through a proxy.
async fn behind_a_proxy(database: &TestDatabase) -> (Proxy, Store) {
    let (proxy, location) = proxied(database, false).await;
    let settings = StoreSettings { location, max_connections: 4, ..impatient(database) };
    let store = database.open_with(&settings).await;
    (proxy, store)
}

/// A proxy in front of the database, and the address through it.
async fn proxied(database: &TestDatabase, pooler_transaction_mode: bool) -> (Proxy, Location) {
    let Location::Postgres { url, .. } = &database.settings.location else { panic!("not PostgreSQL") };
    let mut url = url::Url::parse(url).unwrap();
    let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())).await;
    url.set_ip_host(proxy.address.ip()).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    (proxy, Location::Postgres { url: url.to_string(), pooler_transaction_mode })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_rollback_was_not_confirmed_is_closed() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let (proxy, location) = proxied(&database, true).await;
    let store = database.open_with(&StoreSettings { location, ..impatient(&database) }).await;
    let user = add_user(&store, 1, "ada").await;
    database.tamper("ALTER TABLE users RENAME TO users_away").await;
    proxy.cut_after("does not exist");
    assert!(store.users().by_id(user.id).await.is_err());
    assert_eq!(store.pool_status().idle, 0);
    proxy.mend();
    database.tamper("ALTER TABLE users_away RENAME TO users").await;
    assert!(store.users().by_id(user.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_a_hanging_connect_of_the_feed_uses_the_timeout_of_the_feed() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let (proxy, location) = proxied(&database, false).await;
    let patient = StoreSettings { location, ..database.settings.clone() };
    let store = database.open_with(&StoreSettings { feed_timeout: Duration::from_millis(500), ..patient }).await;
    let reading = store.feed().load_all().await.unwrap();
    proxy.cut();
    let asked = Instant::now();
    assert!(is_outage(&store.feed().read_since(&reading.cursor).await));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    proxy.mend();
    assert!(store.feed().read_since(&reading.cursor).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_partition_is_an_outage_within_two_seconds_and_ends_when_it_heals() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let (proxy, store) = behind_a_proxy(&database).await;
    let (user, _) = ada_logged_in(&store).await;
    // Several connections are open and idle.
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.users().by_id(user.id).await })
        })
        .collect();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    let mut reading = store.feed().load_all().await.unwrap();
    proxy.cut();
    let asked = Instant::now();
    let (read, write, one, feed) = tokio::join!(
        async { store.users().by_id(user.id).await },
        async { store.users().revoke(user.id, at(99), START, None).await },
        async { store.sessions().rotate(presented(1, 0), at(1)).await },
        async { store.feed().read_since(&reading.cursor).await },
    );
    assert!(is_outage(&read) && is_outage(&write) && is_outage(&one) && is_outage(&feed));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    proxy.mend();
    let mended = Instant::now();
    assert!(store.users().by_id(user.id).await.is_ok());
    reading = store.feed().read_since(&reading.cursor).await.unwrap();
    assert!(!reading.is_complete);
    assert!(matches!(rotate(&store, 1, 0, at(1)).await, RotateOutcome::Rotated(_)));
    assert!(mended.elapsed() < Duration::from_secs(1), "{:?}", mended.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replacement_of_a_dead_connection_is_kept() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let store = database.open().await;
    let user = add_user(&store, 1, "ada").await;
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.tamper(&format!("SELECT pg_terminate_backend(pid, 5000) {others}")).await;
    // It was idle for so long that it is tested before use.
    database.clock.advance(Duration::from_secs(11));
    assert!(store.users().by_id(user.id).await.is_ok());
    assert_eq!(store.pool_status().idle, 1, "it was opened after the dead one was found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_an_outage_at_once() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let mut settings = impatient(&database);
    let store = database.open_with(&settings).await;
    ada_logged_in(&store).await;
    settings.location =
        Location::Postgres { url: "postgres://nobody@127.0.0.1:1/none".to_owned(), pooler_transaction_mode: false };
    let asked = Instant::now();
    let clock = std::sync::Arc::new(countersign::clock::ManualClock::starting_at(START));
    assert!(is_outage(&Store::open(&settings, clock, std::sync::Arc::new(())).await.map(|_| ())));
    assert!(asked.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_supported_without_prepared_statements_or_listen() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let url = match (&database.settings.location, std::env::var("COUNTERSIGN_TEST_PGBOUNCER")) {
        (Location::Postgres { url, .. }, Ok(bouncer)) => {
            let mut bouncer = url::Url::parse(&bouncer).unwrap();
            bouncer.set_path(url.rsplit('/').next().unwrap());
            bouncer.to_string()
        }
        (Location::Postgres { url, .. }, Err(_)) => url.clone(),
        _ => panic!("not PostgreSQL"),
    };
    let mut settings = database.settings.clone();
    settings.location = Location::Postgres { url, pooler_transaction_mode: true };
    let store = database.open_with(&settings).await;
    assert_eq!(store.check_schema().await.unwrap().pending, 0);
    assert_eq!(store.migrate(START).await.unwrap().pending, 0);
    assert!(store.feed().listener().await.unwrap().is_none());
    let (user, _) = ada_logged_in(&store).await;
    let mut reading = store.feed().load_all().await.unwrap();
    let refreshes: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { rotate(&store, 1, 0, at(1)).await })
        })
        .collect();
    let mut rotated = 0;
    for refresh in refreshes {
        rotated += usize::from(matches!(refresh.await.unwrap(), RotateOutcome::Rotated(_)));
    }
    assert_eq!(rotated, 1);
    done(store.users().disable(user.id, at(99), at(2), None).await);
    reading = store.feed().read_since(&reading.cursor).await.unwrap();
    assert_eq!(reading.entries.len(), 1);
    assert_eq!(rotate(&store, 1, 1, at(3)).await, RotateOutcome::Refused(RefreshRefusal::Ended));
}
