//! The data of an earlier release remains valid on this one (security.md C10). That release made the files in
//! `fixtures`: a database with sessions, revocations and keys, and the tokens of its users.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use countersign::clock::ManualClock;
use countersign::domain::Timestamp;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, error_of, tokens};
use crate::support::database::{Engine, START, TestDatabase, on_both_engines};

/// Release 0.1.0: schema 1. Ada has a session that was refreshed, one that ended, and one whose access token was revoked;
/// Bob is disabled. Test fixtures, all of them.
const RELEASE_0_1_0: &str = include_str!("fixtures/release-0.1.0.json");

/// The migrations of that release. The fixture holds the checksum that it stored. A file that was edited since is
/// refused here, as every database of that release would refuse it (security.md D1).
const SCHEMA_1: [&str; 2] = [
    include_str!("../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../migrations/postgres/0001_initial.sql"),
];

/// Writes the fixture into an empty database, as the release had it.
async fn restore(database: &TestDatabase, fixture: &Value) {
    let of_engine = usize::from(database.engine == Engine::Postgres);
    let bytes = |hex: &str| if of_engine == 0 { format!("X'{hex}'") } else { format!("'\\x{hex}'") };
    let mut sql = SCHEMA_1[of_engine].to_owned();
    let blob = ["BLOB", "BYTEA"][of_engine];
    write!(
        sql,
        "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum {blob} NOT NULL,
            compatible_with BIGINT NOT NULL, applied_at BIGINT NOT NULL);"
    )
    .unwrap();
    for table in [
        "schema_migrations",
        "installation",
        "users",
        "clients",
        "client_secrets",
        "sessions",
        "changes",
        "signing_keys",
    ] {
        for row in fixture["tables"][table].as_array().unwrap() {
            let row = row.as_object().unwrap();
            let names: Vec<_> = row.keys().map(String::as_str).collect();
            let values = row.values().map(|value| match value {
                Value::Null => "NULL".to_owned(),
                Value::String(text) => format!("'{}'", text.replace('\'', "''")),
                Value::Object(value) => bytes(value["hex"].as_str().unwrap()),
                number => number.to_string(),
            });
            let values = values.collect::<Vec<_>>().join(", ");
            write!(sql, "INSERT INTO {table} ({}) VALUES ({values});", names.join(", ")).unwrap();
        }
    }
    database.tamper(&sql).await;
}

on_both_engines! {
    async fn c10_tokens_revocations_and_keys_of_release_0_1_0_remain_valid(database: TestDatabase) {
        let fixture: Value = serde_json::from_str(RELEASE_0_1_0).unwrap();
        let held = |name: &str| fixture[name].as_str().unwrap();
        let database = TestDatabase::bare(database.engine).await;
        // Creates the file of an embedded database.
        drop(database.open().await);
        restore(&database, &fixture).await;
        let clock = ManualClock::starting_at(Timestamp::from_millis(fixture["at"].as_i64().unwrap()));
        let mut app = TestApp::replica(Arc::new(database), Arc::new(clock), 1, "").await;
        held("gateway_secret").clone_into(&mut app.gateway_secret);
        assert_eq!(app.database.open().await.migrate(START).await.unwrap().pending, 0);
        let refresh = async |token: &str| -> Response {
            let request = app.post_json("/v1/refresh", &json!({"refresh_token": token}));
            request.basic_auth("web", Some(held("web_secret"))).send().await.unwrap()
        };
        assert!(app.is_active(held("access_token")).await);
        for token in ["ended_access_token", "revoked_access_token", "disabled_access_token"] {
            assert!(!app.is_active(held(token)).await, "{token}");
        }
        // A retry of the previous refresh is answered as that release would; the next refresh continues from it.
        let retried = tokens(refresh(held("spent_refresh_token")).await).await;
        assert_eq!(retried.refresh_token, held("refresh_token"));
        let next = tokens(refresh(held("refresh_token")).await).await;
        assert!(app.is_active(&next.access_token).await);
        tokens(refresh(held("refresh_token_beside_it")).await).await;
        for token in ["ended_refresh_token", "disabled_refresh_token"] {
            assert_eq!(error_of(refresh(held(token)).await).await, (401, "invalid_refresh_token".to_owned()), "{token}");
        }
        app.advance(Duration::from_secs(11)).await;
        assert_eq!(error_of(refresh(held("spent_refresh_token")).await).await.1, "refresh_token_reused");
        let login = json!({"username": "ada", "password": PASSWORD, "client_id": "web"});
        let login = app.post_json("/v1/login", &login).basic_auth("web", Some(held("web_secret")));
        assert!(app.is_active(&tokens(login.send().await.unwrap()).await.access_token).await);
    }
}
