//! The accepted PostgreSQL servers, the connection to them, and a replica's behaviour until one answers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::clock::ManualClock;
use countersign::store::{Store, StoreError, StoreSettings};
use reqwest::Method;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::database::{Engine, START, TestDatabase};
use crate::support::process::Home;
use crate::support::proxy::Proxy;
use crate::support::store::*;
use crate::support::tls_front::TlsFront;
use crate::support::{secrets, write_private};

/// A certificate of X.509 version 1 with its key, made by the commands in PostgreSQL's documentation.
const VERSION_1: &str = include_str!("fixtures/x509-version-1.pem");

/// A password that a log must not hold.
const PASSWORD: &str = "a database password of this test";

/// SCRAM authentication is slow in a debug build.
const PATIENT: &str = "[database]\nacquire_timeout = \"10s\"";

async fn refusal(settings: &StoreSettings) -> String {
    let clock = Arc::new(ManualClock::starting_at(START));
    match Store::open(settings, clock, Arc::new(())).await.map(drop).unwrap_err() {
        StoreError::Misconfigured(text) => text,
        error => panic!("{error}"),
    }
}

/// The server's host and port.
fn server_of(database: &TestDatabase) -> String {
    let url = database.url();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

/// Redirects a database's connections to another address.
fn lead_to(database: &mut TestDatabase, address: SocketAddr, query: Option<&str>) {
    let mut url = database.url();
    url.set_ip_host(address.ip()).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.set_query(query);
    database.set_url(&url);
}

/// A role that must log in with a password. It has every right on the tables, and no right to create tables.
async fn role_with_password(database: &TestDatabase, password: &str) -> String {
    let role = format!("{}_role", database.url().path().trim_start_matches('/'));
    database
        .tamper(&format!(
            "DO $$BEGIN CREATE ROLE with_password; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END$$;
             CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE with_password;
             REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ))
        .await;
    role
}

fn log_in_as(database: &mut TestDatabase, role: &str, password: &str) {
    let mut url = database.url();
    url.set_username(role).unwrap();
    url.set_password(Some(password)).unwrap();
    database.set_url(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_server_that_is_not_postgresql_is_refused_by_name() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let name = database.url().path().trim_start_matches('/').to_owned();
    database.tamper(&format!("ALTER DATABASE {name} SET search_path = public, pg_catalog")).await;
    for (version, product) in [
        ("CockroachDB CCL v23.2.4 (x86_64-pc-linux-gnu)", "CockroachDB"),
        ("PostgreSQL 15.2-YB-2.25.0.0-b0 on x86_64-pc-linux-gnu", "YugabyteDB"),
    ] {
        let function =
            format!("CREATE OR REPLACE FUNCTION public.version() RETURNS text LANGUAGE sql AS $$SELECT '{version}'$$");
        database.tamper(&function).await;
        let text = refusal(&database.settings).await;
        assert!(text.contains(product) && text.contains("transaction snapshots"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_logical_replication_subscriber_is_refused_and_a_publisher_is_not() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    database.tamper("CREATE PUBLICATION outgoing FOR ALL TABLES").await;
    database.open().await;
    let subscribe =
        "CREATE SUBSCRIPTION incoming CONNECTION 'dbname=nowhere' PUBLICATION outgoing WITH (connect = false)";
    database.tamper(subscribe).await;
    // The row that a refresh of the subscription writes for each table.
    let table = |name: &str| {
        format!(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
             SELECT oid, '{name}'::regclass, 'r' FROM pg_subscription WHERE subname = 'incoming'"
        )
    };
    database.tamper(&format!("CREATE TABLE of_another_program (id int); {}", table("of_another_program"))).await;
    database.open().await;
    database.tamper(&table("changes")).await;
    let text = refusal(&database.settings).await;
    assert!(text.contains("subscriber") && text.contains("incoming"), "{text}");
    database.tamper("ALTER SUBSCRIPTION incoming SET (slot_name = NONE); DROP SUBSCRIPTION incoming").await;
    database.open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_subscriber_of_pglogical_spock_or_bdr_is_refused_by_name() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    for table in ["pglogical.subscription", "spock.subscription", "bdr.subscription", "bdr.bdr_connections"] {
        let schema = table.split('.').next().unwrap();
        database.tamper(&format!("CREATE SCHEMA {schema}; CREATE TABLE {table} (sub_name name)")).await;
        database.open().await;
        database.tamper(&format!("INSERT INTO {table} VALUES ('incoming')")).await;
        let text = refusal(&database.settings).await;
        assert!(text.contains(table) && text.contains("revocations would be missed"), "{text}");
        database.tamper(&format!("DROP SCHEMA {schema} CASCADE")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_subscription_made_while_a_replica_runs_stops_its_sync_until_all_entries_were_read_again() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let native = "CREATE PUBLICATION outgoing FOR ALL TABLES;
        CREATE SUBSCRIPTION incoming CONNECTION 'dbname=nowhere' PUBLICATION outgoing WITH (connect = false);
        INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
            SELECT oid, 'changes'::regclass, 'r' FROM pg_subscription WHERE subname = 'incoming'";
    let spock = "CREATE SCHEMA spock; CREATE TABLE spock.subscription (sub_name name);
        INSERT INTO spock.subscription VALUES ('incoming')";
    let store = database.open().await;
    let mut cursor = store.feed().load_all().await.unwrap().cursor;
    for (made, removed) in [
        (native, "ALTER SUBSCRIPTION incoming SET (slot_name = NONE); DROP SUBSCRIPTION incoming"),
        (spock, "TRUNCATE spock.subscription"),
    ] {
        for statement in made.split(';') {
            database.tamper(statement).await;
        }
        for _ in 0..2 {
            let error = store.feed().read_since(&cursor).await.unwrap_err();
            assert!(error.to_string().contains("revocations would be missed"), "{error}");
        }
        for statement in removed.split(';') {
            database.tamper(statement).await;
        }
        let reading = store.feed().read_since(&cursor).await.unwrap();
        assert!(reading.is_complete, "the replicated entries are missing in the view");
        cursor = reading.cursor;
        assert!(!store.feed().read_since(&cursor).await.unwrap().is_complete);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_replicas_that_start_at_once_migrate_under_any_default_isolation() {
    if !Engine::Postgres.is_available() {
        return;
    }
    for isolation in ["repeatable read", "serializable"] {
        let database = TestDatabase::bare_with("").await;
        let name = database.url().path().trim_start_matches('/').to_owned();
        database.tamper(&format!("ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")).await;
        let mut starts = Vec::new();
        for _ in 0..4 {
            let store = database.open().await;
            starts.push(tokio::spawn(async move { store.migrate(START).await }));
        }
        for start in starts {
            assert_eq!(start.await.unwrap().unwrap().pending, 0, "{isolation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_role_without_the_right_to_create_serves_a_complete_schema() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::alone().await;
    let role = role_with_password(&database, PASSWORD).await;
    let owner = database.url();
    log_in_as(&mut database, &role, PASSWORD);
    let app = TestApp::start_with(database, PATIENT).await;
    assert!(app.is_active(&app.log_in().await.access_token).await);
    app.stop_and_keep_database().await.tamper_as(&owner, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_role_that_may_not_migrate_gets_an_error_with_a_remedy() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::bare_with("").await;
    let role = role_with_password(&database, PASSWORD).await;
    let owner = database.url();
    log_in_as(&mut database, &role, PASSWORD);
    let error = database.open().await.migrate(START).await.unwrap_err().to_string();
    for part in [role.as_str(), "\"public\"", "countersign migrate"] {
        assert!(error.contains(part), "{error}");
    }
    database.tamper_as(&owner, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_the_password_and_the_parameters_of_the_database_stay_out_of_every_log() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::alone().await;
    let role = role_with_password(&database, PASSWORD).await;
    let owner = database.url();
    log_in_as(&mut database, &role, PASSWORD);
    let app = TestApp::start_with(database, PATIENT).await;
    secrets::used(PASSWORD);
    app.log_in().await;
    // Dropping it searches the events of every crate, at every level.
    assert!(secrets::targets().iter().any(|target| target.starts_with("sqlx")), "events of the driver are seen");
    let database = app.stop_and_keep_database().await;
    database.tamper_as(&owner, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[test]
fn d14_a_parameter_that_is_not_applied_is_an_error_of_every_command() {
    let url = "postgres://cs:hunter2hunter2@127.0.0.1:1/auth?sslmode=require&sslpassword=hunter3hunter3";
    let home =
        Home::empty().with("DATABASE__URL", url).with("MASTER_KEY", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=");
    for command in [&["serve"][..], &["config", "check"], &["users", "list"], &["migrate"], &["keys", "list"]] {
        let ended = home.run(command);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(1), "{command:?}: {said}");
        assert!(said.contains("sslpassword") && !said.contains("hunter"), "{command:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_connections_that_died_in_an_outage_leave_the_pool() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let store = database.open().await;
    let user = add_user(&store, 1, "ada").await;
    let reads: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.users().by_id(user.id).await })
        })
        .collect();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    assert!(store.pool_status().idle > 1);
    database
        .tamper(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    store.users().by_id(user.id).await.unwrap();
    assert_eq!(store.pool_status().idle, 1, "the new one");
}

/// The answer of `/readyz` on the operations listener.
async fn readiness(app: &TestApp) -> (u16, Value) {
    let answer = app.http.get(format!("http://{}/readyz", app.operations)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn until_ready(app: &TestApp) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while readiness(app).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the replica is not ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_replica_that_starts_without_its_database_stays_up_and_starts_when_it_returns() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::bare_with("").await;
    let server = server_of(&database);
    let address = Proxy::to(server.clone()).await.address;
    lead_to(&mut database, address, None);
    let clock = Arc::new(ManualClock::starting_at(START));
    let app = TestApp::replica(Arc::new(database), clock, 1, "").await;
    let (status, answer) = readiness(&app).await;
    assert_eq!(status, 503);
    let problem = answer["problems"][0].as_str().unwrap().to_owned();
    assert!(problem.contains("has not started: the database is unavailable"), "{problem}");
    assert_eq!(app.get("/livez").send().await.unwrap().status(), 200);
    let public: Value = app.get("/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(public.get("problems"), None, "h14");
    for (method, path) in [
        (Method::GET, "/.well-known/jwks.json"),
        (Method::POST, "/v1/login"),
        (Method::POST, "/v1/refresh"),
        (Method::POST, "/oauth2/introspect"),
        (Method::GET, "/v1/me"),
    ] {
        let request = app.request(method, path);
        let request = match path {
            "/v1/login" => request.json(&serde_json::json!({"username": "ada", "password": "x"})),
            "/v1/refresh" => request.json(&serde_json::json!({"refresh_token": "x"})),
            "/oauth2/introspect" => request.basic_auth("x", Some("x")).form(&[("token", "x")]),
            "/v1/me" => request.bearer_auth("x"),
            _ => request,
        };
        assert_eq!(request.send().await.unwrap().status(), 503, "{path}");
    }
    let users = app.http.get(format!("http://{}/admin/v1/users", app.operations)).bearer_auth("cs_admin_x");
    assert_eq!(users.send().await.unwrap().status(), 503);

    let _proxy = Proxy::at(address, server).await;
    until_ready(&app).await;
    assert_eq!(readiness(&app).await.1.get("problems"), None);
    let app = app.with_fixtures().await;
    assert!(app.is_active(&app.log_in().await.access_token).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_replica_whose_password_is_wrong_exits_with_a_hint_and_does_not_repeat_it() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::alone().await;
    let role = role_with_password(&database, PASSWORD).await;
    let mut url = database.url();
    url.set_username(&role).unwrap();
    url.set_password(Some("not-the-password")).unwrap();
    let home = Home::empty()
        .with("DATABASE__URL", url.as_str())
        .with("MASTER_KEY", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=");
    let ended = home.run(&["serve"]);
    assert_eq!(ended.code, Some(1));
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("password authentication failed") && said.contains("percent-escape"), "{said}");
    assert!(!said.contains("not-the-password"), "{said}");
    database.tamper(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_rotated_password_is_read_from_its_file_without_a_restart() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::alone().await;
    let role = role_with_password(&database, PASSWORD).await;
    let owner = database.url();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("database-url");
    log_in_as(&mut database, &role, PASSWORD);
    write_private(&file, database.url().as_str());
    let settings = format!("[database]\nurl_file = {file:?}\nacquire_timeout = \"10s\"\n");
    let clock = Arc::new(ManualClock::starting_at(START));
    let app = TestApp::replica(Arc::new(database), clock, 1, &settings).await.with_fixtures().await;
    app.log_in().await;

    let drop_connections =
        format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{role}'");
    app.database.tamper_as(&owner, &format!("ALTER ROLE {role} PASSWORD 'the next one'")).await;
    app.database.tamper_as(&owner, &drop_connections).await;
    assert!(app.follower.sync().await.is_err(), "the file still holds the old one");
    let mut url = app.database.url();
    url.set_password(Some("the next one")).unwrap();
    write_private(&file, url.as_str());
    app.sync().await;
    // A read is repeated over a new connection, and the dead ones are closed.
    app.administer(Method::GET, "/admin/v1/users", None).await;
    app.log_in().await;
    let database = app.stop_and_keep_database().await;
    database.tamper_as(&owner, &format!("{drop_connections}; DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// A database behind TLS with this certificate. TLS ends when the returned proxy is dropped.
async fn behind_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> (TestDatabase, TlsFront) {
    let database = TestDatabase::alone().await;
    let front = TlsFront::to(server_of(&database), certificate, key).await;
    (database, front)
}

async fn outcome(database: &mut TestDatabase, front: &TlsFront, query: &str) -> Result<(), String> {
    lead_to(database, front.address, Some(query));
    let clock = Arc::new(ManualClock::starting_at(START));
    Store::open(&database.settings, clock, Arc::new(())).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_a_certificate_is_checked_as_strictly_as_sslmode_says_and_a_refusal_says_why() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    // `openssl req -x509` makes every certificate a CA.
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&key).unwrap();
    let root = save(folder.path(), "root.pem", &authority.pem());
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let (mut database, front) = behind_tls(authority.der().clone(), private).await;
    for query in ["sslmode=prefer", "sslmode=require"] {
        assert_eq!(outcome(&mut database, &front, query).await, Ok(()), "{query}");
    }
    for query in ["sslmode=verify-ca", "sslmode=require"] {
        let text = outcome(&mut database, &front, &format!("{query}&sslrootcert={root}")).await.unwrap_err();
        assert!(text.contains("certificate authority, used as the server's own"), "{query}: {text}");
    }

    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &key);
    let leaf = rcgen::CertificateParams::new(["db.test".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let (mut database, front) = behind_tls(leaf.der().clone(), private).await;
    assert_eq!(outcome(&mut database, &front, &format!("sslmode=verify-ca&sslrootcert={root}")).await, Ok(()));
    for (query, part) in [
        (format!("sslmode=verify-full&sslrootcert={root}"), "another host name"),
        ("sslmode=verify-ca".to_owned(), "not issued by a certificate authority in sslrootcert"),
        ("sslmode=verify-ca&sslrootcert=/nowhere/root.pem".to_owned(), "sslrootcert=/nowhere/root.pem"),
    ] {
        let text = outcome(&mut database, &front, &query).await.unwrap_err();
        assert!(text.contains(part), "{query}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_a_version_1_certificate_is_named_where_it_is_refused() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let certificate = CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(VERSION_1.as_bytes()).unwrap();
    let (mut database, front) = behind_tls(certificate, key).await;
    assert_eq!(outcome(&mut database, &front, "sslmode=prefer").await, Ok(()));
    for mode in ["require", "verify-ca", "verify-full"] {
        let text = outcome(&mut database, &front, &format!("sslmode={mode}")).await.unwrap_err();
        assert!(text.contains("X.509 version 1") && text.contains("version 3"), "{mode}: {text}");
    }
}

fn save(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
