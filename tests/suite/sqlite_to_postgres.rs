//! `deploy/sqlite-to-postgres` moves an installation from the embedded database to PostgreSQL.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use countersign::store::Location;
use sqlx::{ConnectOptions as _, Row as _};

use crate::support::app::tokens;
use crate::support::database::{Engine, TestDatabase};
use crate::support::process::Home;
use serde_json::json;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sqlite-to-postgres");

#[tokio::test]
async fn every_table_of_the_schema_is_copied() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database.file().unwrap());
    let mut connection = options.connect().await.unwrap();
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    let schema: BTreeSet<String> =
        tables.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get::<String, _>(0)).collect();
    let script = std::fs::read_to_string(SCRIPT).unwrap();
    let list = script.split("TABLES = [").nth(1).unwrap().split(']').next().unwrap();
    let mut moved: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    moved.insert("schema_migrations".to_owned());
    assert_eq!(moved, schema, "the target makes its own schema_migrations");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_and_a_target_without_a_schema_are_refused_with_a_reason() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let target = TestDatabase::bare_with("").await;
    let Location::Postgres { url, .. } = &target.settings.location else { unreachable!() };
    let home = Home::empty().with("ISSUER", "http://localhost:8080");
    home.out(&["migrate"]);
    home.user("ada");
    let server = home.serve();
    let session = server.log_in("ada").await;
    let file = home.path().join("countersign-data/countersign.db");
    let refused = |moved: Output| {
        let text = String::from_utf8(moved.stderr).unwrap();
        assert_eq!((moved.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        text
    };
    assert!(refused(run(&file, url)).contains("stop the service first"));
    server.signal("TERM");
    server.wait();
    let without_schema = refused(run(&file, url));
    assert!(without_schema.contains("countersign migrate"), "{without_schema}");

    let key = std::fs::read_to_string(home.path().join("countersign-data/master.key")).unwrap();
    let replica =
        Home::empty().with("ISSUER", "http://localhost:8080").with("DATABASE__URL", url).with("MASTER_KEY", key.trim());
    replica.out(&["migrate"]);
    let moved = run(&file, url);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let report = String::from_utf8(moved.stdout).unwrap();
    assert!(report.contains("1 known_addresses") && report.contains("1 users"), "{report}");
    let server = replica.serve();
    let refreshed = server.post("/v1/refresh", &json!({"refresh_token": session.refresh_token})).send().await.unwrap();
    tokens(refreshed).await;
}

fn run(file: &Path, url: &str) -> Output {
    let mut command = Command::new("python3");
    command.arg(SCRIPT).arg(file).env("COUNTERSIGN_DATABASE__URL", url).output().unwrap()
}
