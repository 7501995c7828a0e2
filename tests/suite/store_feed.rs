//! The change feed, on both engines: no entry is ever missed.

use std::collections::HashMap;
use std::time::Duration;

use countersign::domain::{Change, Jti, Revocation, RevocationKind};
use countersign::store::{FeedEntry, Reading, Store, StoreError};
use sqlx::Executor;

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

fn jti(number: usize) -> Jti {
    Jti::parse(&format!("jti-{number}")).unwrap()
}

async fn revoke(store: &Store, number: usize) {
    done(store.feed().revoke_jti(&jti(number), at(3600), START, None).await);
}

/// The numbers of the revoked tokens among `entries`, in order.
fn numbers(entries: &[FeedEntry]) -> Vec<usize> {
    let numbers = entries.iter().filter_map(|entry| match &entry.change {
        Change::Revoked(Revocation::Jti(jti)) => jti.as_str().strip_prefix("jti-")?.parse().ok(),
        _ => None,
    });
    numbers.collect()
}

async fn news(store: &Store, reading: &mut Reading) -> Vec<usize> {
    *reading = store.feed().read_since(&reading.cursor).await.unwrap();
    numbers(&reading.entries)
}

on_both_engines! {
    async fn every_kind_of_change_round_trips(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let _ = end(&store, 1, countersign::store::Owner::Anyone, at(1)).await;
        done(store.users().revoke(user.id, at(50), at(2), None).await);
        done(store.clients().revoke(&client.id, at(60), at(3), None).await);
        revoke(&store, 1).await;
        let reading = store.feed().load_all().await.unwrap();
        assert!(reading.is_complete);
        let changes: Vec<_> = reading.entries.iter().map(|entry| entry.change.clone()).collect();
        let expected = [
            Change::ClientChanged(client.id.clone()),
            Change::Revoked(Revocation::Session(session_id(1))),
            Change::Revoked(Revocation::User(user.id, 1)),
            Change::ClientChanged(client.id.clone()),
            Change::Revoked(Revocation::Client(client.id, 1)),
            Change::Revoked(Revocation::Jti(jti(1))),
        ];
        assert_eq!(changes, expected);
        let user_entry = &reading.entries[2];
        assert_eq!((user_entry.created_at, user_entry.expires_at), (at(2), at(50)));
    }

    async fn a_follower_reads_each_change_once(database: TestDatabase) {
        let (writer, follower) = (database.open().await, database.open().await);
        let mut reading = follower.feed().load_all().await.unwrap();
        assert_eq!(numbers(&reading.entries), [0; 0]);
        revoke(&writer, 1).await;
        revoke(&writer, 2).await;
        assert_eq!(news(&follower, &mut reading).await, [1, 2]);
        assert_eq!(news(&follower, &mut reading).await, [0; 0]);
        revoke(&writer, 3).await;
        assert_eq!(news(&follower, &mut reading).await, [3]);
        assert!(!reading.is_complete);
        assert_eq!(numbers(&follower.feed().load_all().await.unwrap().entries), [1, 2, 3]);
    }

    async fn c4_no_interleaving_of_writers_hides_a_change(database: TestDatabase) {
        const EACH: usize = 20;
        // On SQLite: a server, and two commands of an administrator.
        let writers_at_once = if database.engine == Engine::Sqlite { 3 } else { 8 };
        let follower = database.open().await;
        let mut reading = follower.feed().load_all().await.unwrap();
        let mut writers = Vec::new();
        for writer in 0..writers_at_once {
            let store = database.open().await;
            writers.push(tokio::spawn(async move {
                for index in 0..EACH {
                    revoke(&store, writer * EACH + index).await;
                }
            }));
        }
        let mut seen: HashMap<usize, usize> = HashMap::new();
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            for number in news(&follower, &mut reading).await {
                *seen.entry(number).or_default() += 1;
            }
        }
        for number in news(&follower, &mut reading).await {
            *seen.entry(number).or_default() += 1;
        }
        assert_eq!(seen.len(), writers_at_once * EACH);
        assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    }

    async fn a_rolled_back_change_never_appears(database: TestDatabase) {
        let store = database.open().await;
        let mut reading = store.feed().load_all().await.unwrap();
        let user = add_user(&store, 1, "ada").await;
        // The job writes the revocation, and then fails because the session to keep does not exist.
        let change = countersign::store::PasswordChange {
            user: user.id,
            expected_epoch: Some(0),
            password_hash: "new".to_owned(),
            kept: Some(countersign::store::KeptSession { session: session_id(9), family_digest: [9; 32], idle_ttl: IDLE }),
            revocation_expires_at: at(60),
            audit: None,
        };
        assert!(store.users().change_password(change, START).await.is_err());
        reading = store.feed().read_since(&reading.cursor).await.unwrap();
        assert_eq!(reading.entries, []);
    }

    #[expect(clippy::disallowed_methods, reason = "the database's clock is compared with the machine's")]
    async fn c3_a_reading_has_the_database_time_of_its_snapshot(database: TestDatabase) {
        let store = database.open().await;
        let machine = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let reading = store.feed().load_all().await.unwrap();
        let distance = reading.database_now.millis() - i64::try_from(machine).unwrap();
        assert!((-1000..10_000).contains(&distance), "{distance}");
        let next = store.feed().read_since(&reading.cursor).await.unwrap();
        assert!(next.database_now >= reading.database_now);
    }

    async fn a_cursor_of_another_database_causes_a_full_load(database: TestDatabase) {
        let other = match database.engine {
            Engine::Sqlite => TestDatabase::fresh(Engine::Sqlite).await,
            Engine::Postgres => TestDatabase::alone().await,
        };
        let store = database.open().await;
        for number in 0..5 {
            revoke(&store, number).await;
        }
        let cursor = store.feed().load_all().await.unwrap().cursor;
        let other = other.open().await;
        revoke(&other, 7).await;
        let reading = other.feed().read_since(&cursor).await.unwrap();
        assert!(reading.is_complete);
        let mut entries = reading.entries;
        other.feed().each(|entry| entries.push(entry)).await.unwrap();
        assert_eq!(numbers(&entries), [7]);
    }

    async fn c9_more_entries_than_one_read_allows_are_read_in_chunks(database: TestDatabase) {
        let store = database.open().await;
        let cursor = store.feed().load_all().await.unwrap().cursor;
        let numbers_up_to = |last: u32| match database.engine {
            Engine::Sqlite => format!(
                "SELECT 'jti', CAST('jti-' || i AS BLOB), 0, 1, 2 FROM
                    (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n)"),
            Engine::Postgres => format!(
                "SELECT 'jti', convert_to('jti-' || i, 'UTF8'), 0, 1, 2 FROM generate_series(1, {last}) AS i"),
        };
        let fill = |last| format!("INSERT INTO changes (kind, subject, epoch, created_at, expires_at) {}", numbers_up_to(last));
        database.tamper(&fill(10_000)).await;
        let reading = store.feed().read_since(&cursor).await.unwrap();
        let (rest, further) = store.feed().read_on(&cursor, &reading.rest.unwrap()).await.unwrap();
        assert!(reading.entries.len() == 10_000 && rest.is_empty() && further.is_none());
        // Ten thousand entries of one transaction, and others. No entry is missed or repeated at any page boundary.
        database.tamper(&fill(10_000).replace("'jti-' || i", "'jti-' || (i + 10000)")).await;
        for number in 20_001..20_005 {
            revoke(&store, number).await;
        }
        let reading = store.feed().read_since(&cursor).await.unwrap();
        let (mut entries, mut rest) = (reading.entries, reading.rest);
        while let Some(place) = rest {
            let (more, further) = store.feed().read_on(&cursor, &place).await.unwrap();
            entries.extend(more);
            rest = further;
        }
        assert_eq!(numbers(&entries), (1..=20_004).collect::<Vec<_>>());
        assert_eq!(store.feed().read_since(&reading.cursor).await.unwrap().entries, []);
    }

    async fn live_revocations_are_paged_and_filtered(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        for number in 0..5 {
            revoke(&store, number).await;
        }
        done(store.users().revoke(user.id, at(10), START, None).await);
        let count = async |kind, now| store.feed().live_revocations(kind, None, 100, now).await.unwrap().readable.len();
        assert_eq!(count(None, at(9)).await, 6);
        assert_eq!(count(None, at(10)).await, 5);
        assert_eq!(count(Some(RevocationKind::User), at(9)).await, 1);
        assert_eq!(count(Some(RevocationKind::Key), at(9)).await, 0);
        let first = store.feed().live_revocations(None, None, 4, at(9)).await.unwrap().readable;
        let second = store.feed().live_revocations(None, Some(first[3].seq), 4, at(9)).await.unwrap().readable;
        assert_eq!((first.len(), second.len()), (4, 2));
    }

    async fn an_unknown_kind_of_change_is_an_error(database: TestDatabase) {
        let store = database.open().await;
        let reading = store.feed().load_all().await.unwrap();
        revoke(&store, 1).await;
        database.tamper("UPDATE changes SET kind = 'galaxy'").await;
        for answer in [store.feed().load_all().await, store.feed().read_since(&reading.cursor).await] {
            assert!(matches!(answer, Err(StoreError::Corrupt { table: "changes", column: "kind", .. })), "{answer:?}");
        }
    }
}

async fn on_postgres() -> Option<TestDatabase> {
    if Engine::Postgres.is_available() { Some(TestDatabase::alone().await) } else { None }
}

const INSERT: &str = "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
    VALUES ('jti', convert_to($1, 'UTF8'), 0, 0, 9000000000000)";

#[tokio::test]
async fn c4_an_open_transaction_hides_and_repeats_no_entry() {
    let Some(database) = on_postgres().await else { return };
    let store = database.open().await;
    let mut reading = store.feed().load_all().await.unwrap();
    let mut held = database.connect_postgres().await;
    held.execute("BEGIN").await.unwrap();
    sqlx::query(INSERT).bind("jti-1").execute(&mut held).await.unwrap();
    // Later numbers are committed and read while the first is still open.
    for number in 2..=4 {
        revoke(&store, number).await;
        assert_eq!(news(&store, &mut reading).await, [number]);
    }
    held.execute("COMMIT").await.unwrap();
    assert_eq!(news(&store, &mut reading).await, [1]);
    assert_eq!(news(&store, &mut reading).await, [0; 0]);
}

#[tokio::test]
async fn c4_the_entry_of_a_transaction_that_was_open_before_the_first_load_is_not_missed() {
    let Some(database) = on_postgres().await else { return };
    let mut held = database.connect_postgres().await;
    held.execute("BEGIN").await.unwrap();
    sqlx::query(INSERT).bind("jti-1").execute(&mut held).await.unwrap();
    let store = database.open().await;
    revoke(&store, 2).await;
    let mut reading = store.feed().load_all().await.unwrap();
    assert_eq!(numbers(&reading.entries), [2]);
    held.execute("COMMIT").await.unwrap();
    assert_eq!(news(&store, &mut reading).await, [1]);
}

/// The rows of the feed that connections to `database` have read, including ended connections. A connection reports its
/// reads when it ends.
async fn rows_read(database: &TestDatabase) -> i64 {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
            AND application_name = 'countersign'";
    const READ: &str = "SELECT (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
        WHERE relname = 'changes'";
    let mut connection = database.connect_postgres().await;
    let gone = async {
        while sqlx::query_scalar::<_, i64>(OTHERS).fetch_one(&mut connection).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("its connections are closed");
    sqlx::query_scalar(READ).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn c4_an_open_transaction_does_not_make_a_poll_read_earlier_entries_again() {
    const SEEN: i64 = 20_000;
    const LOOKS: i64 = 20;
    let Some(database) = on_postgres().await else { return };
    // A transaction that was left open and is unrelated to the feed.
    let mut forgotten = database.connect_postgres().await;
    forgotten.execute(sqlx::raw_sql("BEGIN; CREATE TABLE elsewhere (id bigint)")).await.unwrap();
    let mut held = database.connect_postgres().await;
    held.execute("BEGIN").await.unwrap();
    sqlx::query(INSERT).bind("jti-1").execute(&mut held).await.unwrap();
    let fill = format!(
        "DO $$ BEGIN FOR i IN 1..{SEEN} LOOP
            INSERT INTO changes (kind, subject, epoch, created_at, expires_at) VALUES ('jti', 'seen', 0, 0, 9000000000000);
            IF i % 10 = 0 THEN COMMIT; END IF;
        END LOOP; END $$"
    );
    let mut filling = database.connect_postgres().await;
    filling.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(fill))).await.unwrap();
    filling.execute("ANALYZE changes").await.unwrap();
    sqlx::Connection::close(filling).await.unwrap();
    let store = database.open().await;
    let mut reading = store.feed().load_all().await.unwrap();
    drop(store);
    let before = rows_read(&database).await;
    let store = database.open().await;
    for number in 2..2 + usize::try_from(LOOKS).unwrap() {
        revoke(&store, number).await;
        assert_eq!(news(&store, &mut reading).await, [number]);
    }
    held.execute("COMMIT").await.unwrap();
    assert_eq!(news(&store, &mut reading).await, [1]);
    assert_eq!(news(&store, &mut reading).await, [0; 0]);
    drop(store);
    let read = rows_read(&database).await - before;
    assert!((LOOKS..3 * LOOKS).contains(&read), "{read} rows were read for {LOOKS} that were new");
}

#[tokio::test]
async fn d8_revoking_everything_after_a_restore_renumbers_the_rows_of_the_dump() {
    let Some(database) = on_postgres().await else { return };
    let store = database.open().await;
    // A server that had counted further than this one, and beyond 32 bits.
    let of_a_dump = "INSERT INTO changes (xid, kind, subject, epoch, created_at, expires_at)
        VALUES (40000000000, 'jti', convert_to('jti-1', 'UTF8'), 0, 0, 9000000000000)";
    database.tamper(of_a_dump).await;
    let mut reading = store.feed().load_all().await.unwrap();
    for _ in 0..2 {
        assert_eq!(news(&store, &mut reading).await, [1], "comes again at each look, rather than never");
    }
    let _ = store.revoke_everything(at(99), START, None).await.unwrap();
    assert_eq!(news(&store, &mut reading).await, [1]);
    assert_eq!(news(&store, &mut reading).await, [0; 0]);
}

#[tokio::test]
async fn c5_a_commit_notifies_a_listener_and_a_rollback_does_not() {
    let Some(database) = on_postgres().await else { return };
    let store = database.open().await;
    let mut listener = store.feed().listener().await.unwrap().unwrap();
    add_user(&store, 1, "ada").await;
    assert!(tokio::time::timeout(Duration::from_millis(200), listener.next()).await.is_err());
    revoke(&store, 1).await;
    tokio::time::timeout(Duration::from_secs(20), listener.next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn c5_a_listener_whose_connection_is_terminated_returns_an_error() {
    let Some(database) = on_postgres().await else { return };
    let store = database.open().await;
    let mut listener = store.feed().listener().await.unwrap().unwrap();
    database
        .tamper("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        .await;
    let end = tokio::time::timeout(Duration::from_secs(20), listener.next()).await.unwrap();
    assert!(matches!(end, Err(StoreError::Unavailable(_))), "{end:?}");
}

#[tokio::test]
async fn sqlite_has_no_notifications() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    assert!(database.open().await.feed().listener().await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_of_sqlite_sees_the_writes_of_another_process() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    let store = database.open().await;
    let mut reading = store.feed().load_all().await.unwrap();
    database
        .tamper("INSERT INTO changes (kind, subject, epoch, created_at, expires_at) VALUES ('jti', CAST('jti-5' AS BLOB), 0, 1, 2)")
        .await;
    assert_eq!(news(&store, &mut reading).await, [5]);
    // Sweeping all entries does not cause numbers to repeat.
    database.tamper("DELETE FROM changes").await;
    revoke(&store, 6).await;
    assert_eq!(news(&store, &mut reading).await, [6]);
}
