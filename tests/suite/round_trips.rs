//! The table of round trips in docs/growth.md, compared with what each request costs on PostgreSQL.

use std::collections::BTreeMap;
use std::future::Future;

use countersign::domain::{ClientKind, ClientSettings, Grant, Grants};
use reqwest::Method;
use serde_json::json;

use crate::support::app::{PASSWORD, TestApp, Tokens, USER, machine};
use crate::support::database::{Engine, TestDatabase};
use crate::support::proxy::Proxy;

/// The first uses of a statement on a connection prepare it there.
const RUNS: usize = 8;

const SETTINGS: &str = "[limits.account]\nfree = 50\n[limits.pair]\nfree = 50\n[limits.address]\nburst = 1000\n";

/// `request -> round trips`, from the table.
fn documented() -> BTreeMap<String, u64> {
    let page = include_str!("../../docs/growth.md");
    let (_, section) = page.split_once("## Round trips to the database").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].to_owned(), cells[1].parse().unwrap())
    });
    rows.collect()
}

/// The fewest round trips among several runs; background work may add to some of them.
async fn fewest<F: Future<Output = bool>>(proxy: &Proxy, mut run: impl FnMut() -> F) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..RUNS {
        let before = proxy.round_trips();
        assert!(run().await);
        fewest = fewest.min(proxy.round_trips() - before);
    }
    fewest
}

/// A service that reaches PostgreSQL through a proxy.
async fn behind_a_proxy() -> (TestApp, Proxy) {
    let mut database = TestDatabase::alone().await;
    let mut url = database.url();
    let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())).await;
    url.set_ip_host(proxy.address.ip()).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    url.query_pairs_mut().append_pair("sslmode", "disable");
    database.set_url(&url);
    (TestApp::start_with(database, SETTINGS).await, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_takes_the_documented_round_trips_on_postgresql() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let (app, proxy) = behind_a_proxy().await;
    let grants = Grants::new([Grant::PasswordLogin, Grant::RefreshToken, Grant::ClientCredentials]);
    let portal =
        app.confidential("portal", ClientSettings { grants, ..ClientSettings::new(ClientKind::Confidential) }).await;
    let batch = app.confidential("batch", machine(&[], "")).await;
    let sessions = async || {
        let mut sessions = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            sessions.push(app.log_in_on_confidential(&portal).await);
        }
        sessions
    };
    let revoke = async |token: &str| {
        let request = app.post_form("/oauth2/revoke", &[("token", token)]).basic_auth(&portal.id, Some(&portal.secret));
        request.send().await.unwrap().status() == 200
    };
    let mut measured = BTreeMap::new();
    let mut note = |request: &str, trips: u64| assert_eq!(measured.insert(request.to_owned(), trips), None);

    note("login", fewest(&proxy, || async { app.log_in().await.expires_in > 0 }).await);
    let wrong = json!({"username": USER, "password": "wrong password"});
    note("login, wrong password", fewest(&proxy, || async { app.login(&wrong).await.status() == 401 }).await);

    let mut token = app.log_in().await.refresh_token;
    let mut former = String::new();
    let mut trips = u64::MAX;
    for _ in 0..RUNS {
        let before = proxy.round_trips();
        let next = app.refreshed(&token).await.refresh_token;
        trips = trips.min(proxy.round_trips() - before);
        former = std::mem::replace(&mut token, next);
    }
    note("refresh", trips);
    note("refresh, retry", fewest(&proxy, || async { app.refresh(&former).await.status() == 200 }).await);

    let next = |sessions: &mut Vec<Tokens>| sessions.pop().unwrap();
    let mut open = sessions().await;
    note(
        "logout",
        fewest(&proxy, || {
            let body = json!({"refresh_token": next(&mut open).refresh_token});
            let request = app.post_json("/v1/logout", &body);
            async { request.send().await.unwrap().status() == 204 }
        })
        .await,
    );
    let mut open = sessions().await;
    note(
        "revocation of an access token",
        fewest(&proxy, || {
            let token = next(&mut open).access_token;
            async move { revoke(&token).await }
        })
        .await,
    );
    let mut open = sessions().await;
    note(
        "revocation of a refresh token",
        fewest(&proxy, || {
            let token = next(&mut open).refresh_token;
            async move { revoke(&token).await }
        })
        .await,
    );
    note("`client_credentials`", fewest(&proxy, || async { app.token_of(&batch).await.expires_in > 0 }).await);
    let active = app.log_in().await;
    note("introspection, forward-auth", fewest(&proxy, || app.is_active(&active.access_token)).await);

    let mut bearer = app.log_in().await;
    let mut passwords = [PASSWORD, "another horse battery staple 8"].iter().cycle();
    let mut trips = u64::MAX;
    for _ in 0..RUNS {
        let current = passwords.next().unwrap();
        let new = passwords.clone().next().unwrap();
        let body = json!({"current_password": current, "new_password": new});
        let request = app.request(Method::PUT, "/v1/me/password").bearer_auth(&bearer.access_token).json(&body);
        let before = proxy.round_trips();
        bearer = crate::support::app::tokens(request.send().await.unwrap()).await;
        trips = trips.min(proxy.round_trips() - before);
    }
    note("password change", trips);
    assert_eq!(measured, documented(), "the table in docs/growth.md");
}

/// Tables that grow with users, sessions and traffic.
const GROWING: [&str; 7] =
    ["users", "sessions", "changes", "audit", "login_attempts", "known_addresses", "client_assertions"];

/// The lines of a plan that read a growing table without an index condition.
fn scans(plan: &[String]) -> Vec<&String> {
    let reads = |line: &str| GROWING.iter().any(|table| line.contains(&format!(" on {table}")));
    let is_scan = |(place, line): &(usize, &String)| {
        let has_condition = plan[place + 1..]
            .iter()
            .take_while(|next| !next.trim_start().starts_with("->"))
            .any(|next| next.contains("Index Cond:") || next.contains("Tid Cond:"));
        let is_node = line.contains("Seq Scan") || line.contains("Index Scan") || line.contains("Index Only Scan");
        // A bitmap's condition belongs to the node below it.
        is_node && !line.contains("Bitmap") && reads(line) && !has_condition
    };
    plan.iter().enumerate().filter(is_scan).map(|(_, line)| line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_scans_a_growing_table_on_postgresql() {
    use sqlx::{AssertSqlSafe, Executor, Row};
    if !Engine::Postgres.is_available() {
        return;
    }
    let (app, proxy) = behind_a_proxy().await;
    let mut session = app.log_in().await;
    app.login(&json!({"username": USER, "password": "wrong password"})).await;
    session = app.refreshed(&session.refresh_token).await;
    let user = app.user_id(USER).await;
    for path in [
        "/admin/v1/users".to_owned(),
        format!("/admin/v1/users?username={USER}"),
        format!("/admin/v1/sessions?user={user}"),
        "/admin/v1/sessions?client=countersign".to_owned(),
        "/admin/v1/revocations".to_owned(),
        "/admin/v1/audit".to_owned(),
        "/admin/v1/audit?event=login.failed&client=countersign".to_owned(),
    ] {
        app.administer(Method::GET, &path, None).await;
    }
    for criterion in ["event", "actor", "subject", "client", "user", "session"] {
        app.administer(Method::GET, &format!("/admin/v1/audit?{criterion}=x"), None).await;
    }
    app.service.administration.export_audit(None, app.service.status.now()).await.unwrap();
    for path in ["/v1/me", "/v1/me/sessions"] {
        assert_eq!(app.get(path).bearer_auth(&session.access_token).send().await.unwrap().status(), 200);
    }
    let new = json!({"current_password": PASSWORD, "new_password": "another horse battery staple 8"});
    let change = app.request(Method::PUT, "/v1/me/password").bearer_auth(&session.access_token).json(&new);
    session = crate::support::app::tokens(change.send().await.unwrap()).await;
    app.administer(Method::POST, "/admin/v1/revocations", Some(json!({"user": user.to_string()}))).await;
    app.post_json("/v1/logout", &json!({"refresh_token": session.refresh_token})).send().await.unwrap();

    let mut connection = app.database.connect_postgres().await;
    // Without these settings, the plan would depend on the few rows of this test.
    connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan").await.unwrap();
    let (mut seen, mut scanned) = (std::collections::BTreeSet::new(), Vec::new());
    for (text, types) in proxy.prepared() {
        if !seen.insert(text.clone())
            || !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE"].iter().any(|word| text.starts_with(word))
        {
            continue;
        }
        let types: Vec<String> = types.iter().map(|oid| format!("'{oid}'::oid::regtype::text")).collect();
        let names = sqlx::raw_sql(AssertSqlSafe(format!("SELECT ARRAY[{}]::text[] AS names", types.join(", "))));
        let names: Vec<String> = names.fetch_one(&mut connection).await.unwrap().get("names");
        let (parameters, nulls) = match names.len() {
            0 => (String::new(), String::new()),
            count => (format!("({})", names.join(", ")), format!("({})", vec!["NULL"; count].join(", "))),
        };
        connection.execute(AssertSqlSafe(format!("PREPARE asked {parameters} AS {text}"))).await.unwrap();
        let explain = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE asked {nulls}")));
        let plan: Vec<String> =
            explain.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get::<String, _>(0)).collect();
        connection.execute("DEALLOCATE asked").await.unwrap();
        let lines = scans(&plan);
        if !lines.is_empty() {
            scanned.push(format!("{text}\n{lines:#?}"));
        }
    }
    assert!(seen.len() > 30, "{}", seen.len());
    assert!(scanned.is_empty(), "{}", scanned.join("\n\n"));
}
