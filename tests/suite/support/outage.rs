//! Makes the database fail while the service runs.

use super::database::{Engine, TestDatabase};
use sqlx::{Connection, Executor};

const TABLES: [&str; 12] = [
    "installation",
    "users",
    "clients",
    "client_secrets",
    "sessions",
    "changes",
    "signing_keys",
    "admin_keys",
    "audit",
    "client_assertions",
    "known_addresses",
    "login_attempts",
];

/// From now on every statement fails.
pub async fn take_tables_away(database: &TestDatabase) {
    rename(database, |table| (table.to_owned(), format!("{table}_away"))).await;
}

/// Statements succeed again.
pub async fn bring_tables_back(database: &TestDatabase) {
    rename(database, |table| (format!("{table}_away"), table.to_owned())).await;
}

/// Only reads of the change feed fail: the view ages, everything else works.
pub async fn take_feed_away(database: &TestDatabase) {
    database.tamper("ALTER TABLE changes RENAME TO changes_away").await;
}

/// The feed can be read again.
pub async fn bring_feed_back(database: &TestDatabase) {
    database.tamper("ALTER TABLE changes_away RENAME TO changes").await;
}

async fn rename(database: &TestDatabase, names: impl Fn(&str) -> (String, String)) {
    let sentences =
        TABLES.iter().map(|table| names(table)).map(|(from, to)| format!("ALTER TABLE {from} RENAME TO {to};"));
    database.tamper(&sentences.collect::<String>()).await;
}

/// Blocks writes but not reads while it is held. The service needs `database.statement_timeout` to be short.
pub enum WritesStopped {
    Sqlite(#[expect(dead_code, reason = "holds the lock")] Box<sqlx::SqliteConnection>),
    Postgres(#[expect(dead_code, reason = "holds the lock")] Box<sqlx::PgConnection>),
}

/// Blocks every writer.
pub async fn stop_writes(database: &TestDatabase) -> WritesStopped {
    match (&database.settings.location, database.engine) {
        (countersign::store::Location::Sqlite { path, .. }, Engine::Sqlite) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            connection.execute("BEGIN IMMEDIATE").await.unwrap();
            WritesStopped::Sqlite(Box::new(connection))
        }
        _ => {
            let mut connection = database.connect_postgres().await;
            // The weakest lock mode that blocks writers and not readers.
            connection.execute("BEGIN; LOCK TABLE changes, sessions, audit IN SHARE MODE").await.unwrap();
            WritesStopped::Postgres(Box::new(connection))
        }
    }
}
