//! `/livez`, `/readyz`, `/metrics`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::support::app::TestApp;
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::*;
use crate::support::outage;

/// The answer of both listeners. It must be the same, except that only the operations listener has `figures` and `problems`.
async fn both(app: &TestApp, path: &str) -> (u16, Value) {
    let mut seen = Vec::new();
    for address in [app.public, app.operations] {
        let answer = app.http.get(format!("http://{address}{path}")).send().await.unwrap();
        assert_eq!(header(&answer, "cache-control"), "no-store");
        let status = answer.status().as_u16();
        assert_eq!(header(&answer, "retry-after"), if status == 503 { "1" } else { "" });
        let mut body = answer.json::<Value>().await.unwrap();
        let figures = body.as_object_mut().unwrap().remove("figures");
        assert_eq!(figures.is_some(), path == "/readyz" && address == app.operations, "h14");
        // A poll may fail between the two requests.
        let problems = body.as_object_mut().unwrap().remove("problems");
        assert!(problems.is_none() || address == app.operations, "h14");
        seen.push((status, body));
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

/// The `figures` of `/readyz` on the operations listener.
async fn figures(app: &TestApp) -> Value {
    let answer = app.http.get(format!("http://{}/readyz", app.operations)).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["figures"].take()
}

fn failing(answer: &Value) -> Vec<&str> {
    let checks = answer["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["ok"] == false).map(|check| check["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn open_connections_are_counted_for_each_listener() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let open = async |listener: &str| app.figure(&format!("countersign_connections{{listener=\"{listener}\"}}")).await;
    let before = open("public").await;
    assert!(open("operations").await >= 1.0, "that of this very question");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(app.public).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        held.push(stream);
    }
    assert_eq!(open("public").await, before + 3.0);
    drop(held);
    while open("public").await > before {}
}

on_both_engines! {
    async fn a_replica_is_ready_while_every_check_passes(database: TestDatabase) {
        let app = TestApp::start(database).await;
        assert_eq!(both(&app, "/livez").await, (200, json!({"live": true})));
        let names = ["view_fresh", "signing_key", "clock", "not_stopping"];
        let checks: Vec<_> = names.iter().map(|name| json!({"name": name, "ok": true})).collect();
        assert_eq!(both(&app, "/readyz").await, (200, json!({"ready": true, "checks": checks})));
    }

    async fn c2_c7_c9_each_check_alone_turns_readiness_red_and_liveness_never(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.clock.step(60_000);
        app.clock.step_database(-60_000);
        app.sync().await;
        let (status, answer) = both(&app, "/readyz").await;
        assert_eq!((status, failing(&answer)), (503, vec!["clock"]));
        app.clock.step_database(60_000);
        app.sync().await;
        assert_eq!(both(&app, "/readyz").await.0, 200);
        outage::take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        let (status, answer) = both(&app, "/readyz").await;
        assert_eq!((status, failing(&answer)), (503, vec!["view_fresh"]));
        assert_eq!(both(&app, "/livez").await.0, 200);
        assert_eq!(app.figure("countersign_ready{check=\"view_fresh\"}").await, 0.0);
        outage::bring_feed_back(&app.database).await;
        app.sync().await;
        assert_eq!(both(&app, "/readyz").await.0, 200);
        app.service.status.begin_stopping();
        let (status, answer) = both(&app, "/readyz").await;
        assert_eq!((status, failing(&answer)), (503, vec!["not_stopping"]));
    }

    async fn h14_operators_see_the_measurements_behind_each_check(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let told = |age: f64, lag: f64, offset: f64| {
            json!({"view_age_seconds": age, "revocation_lag_seconds": lag, "clock_offset_seconds": offset})
        };
        app.clock.step_database(1_250);
        app.sync().await;
        outage::take_feed_away(&app.database).await;
        let before = figures(&app).await["view_age_seconds"].as_f64().unwrap();
        app.clock.advance(TOO_LONG);
        assert_eq!(figures(&app).await, told(before + TOO_LONG.as_secs_f64(), 0.0, -1.25));
        assert_eq!(both(&app, "/readyz").await.0, 503);
        for name in ["view_age_seconds", "revocation_lag_seconds", "clock_offset_seconds"] {
            assert_eq!(figures(&app).await[name], app.figure(&format!("countersign_{name}")).await, "{name}");
        }
        outage::bring_feed_back(&app.database).await;
        app.sync().await;
        assert_eq!(figures(&app).await["view_age_seconds"], 0.0);
    }

    async fn h14_public_health_checks_reveal_no_internals(database: TestDatabase) {
        let app = TestApp::start(database).await;
        outage::take_tables_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        let (_, answer) = both(&app, "/readyz").await;
        let text = answer.to_string().to_lowercase();
        for word in ["sql", "postgres", "no such table", "error", "127.0.0.1", env!("CARGO_PKG_VERSION")] {
            assert!(!text.contains(word), "{word}");
        }
    }

    async fn every_documented_metric_is_exported_from_the_start(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.is_active(&app.log_in().await.access_token).await;
        let text = app.metrics().await;
        let names: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for name in [
            "introspections_total", "introspection_seconds", "verified_cache_hits_total", "verified_cache_misses_total",
            "verified_cache_entries", "logins_total", "password_hash_seconds", "password_queue_depth", "refreshes_total",
            "tokens_issued_total", "revocations_live", "revocation_lag_seconds", "view_age_seconds", "clock_offset_seconds",
            "signing_key_expires_seconds", "database_seconds", "database_pool_in_use", "database_pool_idle", "database_pool_waiting",
            "http_requests_total", "http_request_seconds", "build_info",
        ] {
            assert!(names.contains(format!("countersign_{name}").as_str()), "{name}");
        }
        for labels in [
            "introspections_total{cache=\"miss\",result=\"active\"} 1",
            "logins_total{result=\"success\"} 1",
            "refreshes_total{result=\"reused\"} 0",
            "tokens_issued_total{grant=\"password_login\"} 1",
            "revocations_live{kind=\"jti\"} 0",
            "http_requests_total{method=\"POST\",route=\"/oauth2/introspect\",status=\"200\"} 1",
        ] {
            assert!(text.contains(&format!("countersign_{labels}\n")), "{labels}\n{text}");
        }
        assert!(text.contains("countersign_build_info{version="));
    }

    async fn the_rows_of_each_table_are_counted(database: TestDatabase) {
        let app = TestApp::start(database).await;
        // A background loop counts them right after the start.
        for _ in 0..200 {
            if app.metrics().await.contains("countersign_rows{table=\"sessions\"}") {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("no rows were counted");
    }

    async fn s1_labels_are_bounded_and_contain_no_personal_data(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let tokens = app.log_in().await;
        let subject = claims_of(&tokens.access_token)["sub"].as_str().unwrap().to_owned();
        for number in 0..20 {
            app.get(&format!("/no/such/path/{number}")).send().await.unwrap();
            app.verify(&format!("/{number}/{subject}"), &tokens.access_token).send().await.unwrap();
            app.request(format!("METHOD{number}").parse().unwrap(), "/v1/verify").send().await.unwrap();
        }
        let text = app.metrics().await;
        for secret in [&subject, "\"ada\"", &tokens.session_id, "/no/such", "METHOD1", &tokens.access_token] {
            assert!(!text.contains(secret), "{secret}");
        }
        assert!(text.contains("route=\"unmatched\"") && text.contains("method=\"other\""));
    }

    async fn promtool_accepts_the_metrics_of_a_running_service(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.is_active(&app.log_in().await.access_token).await;
        let text = app.metrics().await;
        let answer = app.http.get(format!("http://{}/metrics", app.operations)).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let command = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut promtool) = command else {
            eprintln!("skipped: promtool is not installed");
            return;
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
}

/// The test runs on one thread: on the async worker, the scrape would block the request that releases it.
#[tokio::test]
async fn a_scrape_does_not_occupy_an_async_worker() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let began = Arc::new(Notify::new());
    let (release, released) = channel::<()>();
    let (beginning, released) = (Arc::clone(&began), Mutex::new(Some(released)));
    app.metrics.at_scrape(move |_| {
        let Some(released) = released.lock().unwrap().take() else { return };
        beginning.notify_one();
        released.recv_timeout(Duration::from_secs(10)).expect("another request is answered");
    });
    let scrape = app.http.get(format!("http://{}/metrics", app.operations)).send();
    let other = async {
        began.notified().await;
        let answer = app.http.get(format!("http://{}/livez", app.operations)).send().await;
        let _ = release.send(());
        answer
    };
    let (scrape, other) = tokio::join!(scrape, other);
    assert_eq!((scrape.unwrap().status().as_u16(), other.unwrap().status().as_u16()), (200, 200));
}

#[tokio::test]
async fn h18_connections_over_the_share_of_an_address_are_counted() {
    let settings = "[public]\nmax_connections_per_address = 1";
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, settings).await;
    let figure = async |name: &str| app.figure(&format!("countersign_connections_{name}{{listener=\"public\"}}")).await;
    assert_eq!((figure("refused_total").await, figure("evicted_total").await), (0.0, 0.0));
    let _held = tokio::net::TcpStream::connect(app.public).await.unwrap();
    for _ in 0..3 {
        let mut refused = tokio::net::TcpStream::connect(app.public).await.unwrap();
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap(), 0, "it is closed at once");
    }
    assert_eq!(figure("refused_total").await, 3.0);
}
