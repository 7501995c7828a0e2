//! D8: the restore of docs/how-to/backup-and-restore.md, with the programs that it names. Objects that were revoked,
//! rotated, ended or removed after the backup do not come back with it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use countersign::store::Location;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::support::app::{Tokens, error_of, tokens};
use super::support::database::{Engine, TestDatabase};
use super::support::process::{Home, PASSWORD, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_a_restored_sqlite_database_reactivates_no_token() {
    if is_installed("sqlite3") {
        drill(TestDatabase::fresh(Engine::Sqlite).await, TestDatabase::bare(Engine::Sqlite).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_a_restored_postgresql_database_reactivates_no_token() {
    if Engine::Postgres.is_available() && is_installed("pg_dump") && is_installed("psql") {
        drill(TestDatabase::alone().await, TestDatabase::bare_with("").await).await;
    }
}

async fn drill(lost: TestDatabase, restored: TestDatabase) {
    let source = lost.settings.location.clone();
    let home = Home::on(lost);
    home.user("ada");
    home.user("bob");
    home.out(&["users", "set-roles", "ada", "auditor"]);
    home.out(&["users", "set-roles", "bob", "auditor"]);
    let secret = home.gateway();
    let ci = home.out(&["admin-key", "create", "ci"]);
    let leaked = home.out(&["admin-key", "create", "leaked"]);
    let server = home.serve();
    let untouched = server.log_in("ada").await;
    let revoked = server.log_in("ada").await;
    let ended = server.log_in("ada").await;
    let spent = server.log_in("ada").await;
    let of_disabled = server.log_in("bob").await;
    let stolen = kids(&home).remove(0);
    let copy = home.path().join("copy");
    back_up(&source, &copy);

    // Changes after the backup. Epochs advance beyond those of the backup: the restore must also revoke tokens that
    // carry the newer epochs.
    let claims = server.introspect(&secret, &revoked.access_token).await;
    home.out(&["revoke", "--jti", claims["jti"].as_str().unwrap()]);
    let rotated = tokens(refresh(&server, &spent).await).await;
    let logout = server.post("/v1/logout", &json!({"refresh_token": ended.refresh_token}));
    assert_eq!(logout.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for _ in 0..3 {
        home.out(&["revoke", "--user", "ada"]);
        home.out(&["revoke", "--client", "countersign"]);
    }
    let of_later_epochs = server.log_in("ada").await;
    home.out(&["keys", "withdraw", &stolen]);
    let of_later_key = server.log_in("ada").await;
    home.out(&["users", "disable", "bob"]);
    home.out(&["users", "set-roles", "ada", ""]);
    home.out(&["admin-key", "delete", "leaked"]);
    let replacement = new_secret(&home);
    drop(server);

    restore(&copy, &restored.settings.location);
    let home = Home::on(restored);
    home.out(&["revoke", "--everything", "--yes"]);
    let all = [
        ("untouched", &untouched),
        ("revoked", &revoked),
        ("logged out", &ended),
        ("spent", &spent),
        ("rotated", &rotated),
        ("of a user who was disabled", &of_disabled),
        ("of later epochs", &of_later_epochs),
        ("of a later key", &of_later_key),
    ];
    let server = home.serve();
    for (what, tokens) in all {
        assert_eq!(server.introspect(&secret, &tokens.access_token).await, json!({"active": false}), "{what}");
        assert_eq!(error_of(refresh(&server, tokens).await).await, (401, "invalid_refresh_token".to_owned()), "{what}");
    }
    drop(server);

    // Keys and other objects come back with the restore. The commands on the page list them, and remove them again.
    assert_eq!(kids(&home), [stolen.as_str()]);
    home.out(&["keys", "withdraw", &stolen]);
    assert_eq!(column(&home, &["admin-key", "list"], "admin_keys", "name"), [json!("ci"), json!("leaked")]);
    home.out(&["admin-key", "delete", "leaked"]);
    assert_eq!(column(&home, &["users", "list"], "users", "enabled"), [json!(true), json!(true)]);
    assert_eq!(column(&home, &["users", "list"], "users", "roles"), [json!(["auditor"]), json!(["auditor"])]);
    home.out(&["users", "disable", "bob"]);
    home.out(&["users", "set-roles", "ada", ""]);
    let current = new_secret(&home);

    let server = home.serve();
    for secret in [&secret, &replacement] {
        let request = server.http.post(format!("{}/oauth2/introspect", server.public)).form(&[("token", "none")]);
        let answer = request.basic_auth("gateway", Some(secret)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    for (key, status) in [(&ci, StatusCode::OK), (&leaked, StatusCode::UNAUTHORIZED)] {
        let request = server.http.get(format!("{}/admin/v1/status", server.operations)).bearer_auth(key.trim());
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let of_bob = server.post("/v1/login", &json!({"username": "bob", "password": PASSWORD})).send().await.unwrap();
    assert_eq!(error_of(of_bob).await, (401, "invalid_credentials".to_owned()));
    let set = server.http.get(format!("{}/.well-known/jwks.json", server.public)).send().await.unwrap();
    assert!(!set.text().await.unwrap().contains(&stolen));
    for (what, tokens) in all {
        assert_eq!(server.introspect(&current, &tokens.access_token).await, json!({"active": false}), "{what}");
    }

    let anew = server.log_in("ada").await;
    let claims = server.introspect(&current, &anew.access_token).await;
    assert!(claims["active"] == true && !claims.to_string().contains("auditor"), "{claims}");
    let next = tokens(refresh(&server, &anew).await).await;
    assert_eq!(server.introspect(&current, &next.access_token).await["active"], true);
}

async fn refresh(server: &Server, tokens: &Tokens) -> Response {
    server.post("/v1/refresh", &json!({"refresh_token": tokens.refresh_token})).send().await.unwrap()
}

fn new_secret(home: &Home) -> String {
    let made = home.json(&["clients", "new-secret", "gateway", "--grace", "0s"]);
    made["client_secret"].as_str().unwrap().to_owned()
}

fn kids(home: &Home) -> Vec<String> {
    column(home, &["keys", "list"], "keys", "kid").iter().map(|kid| kid.as_str().unwrap().to_owned()).collect()
}

/// One member of each item that a command lists.
fn column(home: &Home, command: &[&str], list: &str, member: &str) -> Vec<Value> {
    home.json(command)[list].as_array().unwrap().iter().map(|item| item[member].clone()).collect()
}

/// Makes a backup while the service runs.
fn back_up(source: &Location, copy: &Path) {
    match source {
        Location::Sqlite { path, .. } => {
            run("sqlite3", [path.as_os_str(), format!(".backup '{}'", copy.display()).as_ref()]);
        }
        Location::Postgres { url, .. } => run("pg_dump", ["--file".as_ref(), copy.as_os_str(), url.as_ref()]),
    }
}

fn restore(copy: &Path, target: &Location) {
    match target {
        Location::Sqlite { path, .. } => {
            std::fs::copy(copy, path).unwrap();
        }
        Location::Postgres { url, .. } => {
            run("psql", ["-qX", "-v", "ON_ERROR_STOP=1", "-f", copy.to_str().unwrap(), url].map(OsStr::new));
        }
    }
}

fn run<const N: usize>(program: &str, arguments: [&OsStr; N]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_installed(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: {program} is not installed");
    }
    is_there
}
