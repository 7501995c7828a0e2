//! `POST /v1/introspect`: many tokens in one request, under the same rules as one.

use std::time::Duration;

use countersign::domain::{ClientId, ClientKind, ClientSettings, IntrospectRight};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::app::{GATEWAY, PASSWORD, TestApp, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::forge::Forge;
use crate::support::judging::*;

on_both_engines! {
    async fn results_are_in_the_order_of_the_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&["https://api.example"], "")).await;
        let api = app.confidential("api", resource_server(&["https://api.example"], IntrospectRight::Own)).await;
        let (own, foreign) = (app.token_of(&batch).await.access_token, app.log_in().await.access_token);
        let another = app.token_of(&batch).await.access_token;
        let tokens = [&own, "garbage", &foreign, &another, "", &own];
        let answer = app.batch(&api, &tokens).await;
        assert_eq!((header(&answer, "content-type"), header(&answer, "cache-control")), ("application/json", "no-store"));
        let results: Value = answer.json().await.unwrap();
        let inactive = json!({"active": false});
        assert_eq!(results["results"].as_array().unwrap().len(), 6);
        for (index, token) in tokens.iter().enumerate() {
            let result = &results["results"][index];
            match index {
                0 | 3 | 5 => assert_eq!(result, &app.asked(&api, token, Format::Json).await, "the same words as alone"),
                _ => assert_eq!(result, &inactive, "{index}"),
            }
        }
    }

    async fn a_batch_of_256_tokens_is_judged_and_one_of_257_is_refused(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        let gateway = app.gateway();
        let mut many = vec!["x.y.z"; 255];
        many.push(&token);
        let results: Value = app.batch(&gateway, &many).await.json().await.unwrap();
        let results = results["results"].as_array().unwrap();
        assert_eq!((results.len(), &results[0]["active"], &results[255]["active"]), (256, &json!(false), &json!(true)));
        many.push("one.too.many");
        let answer = app.batch(&gateway, &many).await;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((status, &body["errors"][0]["field"]), (StatusCode::BAD_REQUEST, &json!("tokens")));
        // A batch of 256 tokens of the maximum length is accepted.
        let long = "a".repeat(4096);
        assert_eq!(app.batch(&gateway, &vec![long.as_str(); 256]).await.status(), 200);
        let longer = "a".repeat(5000);
        assert_eq!(error_of(app.batch(&gateway, &vec![longer.as_str(); 256]).await).await, (413, "payload_too_large".into()));
        let none: Value = app.batch(&gateway, &[]).await.json().await.unwrap();
        assert_eq!(none, json!({"results": []}));
    }

    async fn i1_the_caller_is_authenticated_before_the_body_is_read(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("")).await;
        let token = app.log_in().await.access_token;
        let request = |body: &'static str| {
            app.request(Method::POST, "/v1/introspect").header("content-type", "application/json").body(body)
        };
        for request in [
            request("not json"),
            request("{\"tokens\":[]}"),
            request("not json").basic_auth("gateway", Some("wrong")),
            request("not json").basic_auth("app", Some("")),
            request("not json").basic_auth("countersign", Some("")),
            request("not json").bearer_auth(&token),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(header(&answer, "www-authenticate"), "Basic realm=\"countersign\", charset=\"UTF-8\"");
            assert_eq!(error_of(answer).await, (401, "invalid_client".into()));
        }
        let twice = request("{}").basic_auth("gateway", Some("a")).basic_auth("gateway", Some("a"));
        assert_eq!(error_of(twice.send().await.unwrap()).await, (400, "invalid_request".into()), "h3");
    }

    async fn h1_an_invalid_body_is_refused_with_the_field_at_fault(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let gateway = app.gateway();
        for (content_type, body, expected) in [
            ("application/json", "", (400, "malformed_json")),
            ("application/json", "{\"tokens\":[]} x", (400, "malformed_json")),
            ("application/json", "{\"tokens\":[],\"tokens\":[]}", (400, "malformed_json")),
            ("application/json", "[]", (400, "invalid_request")),
            ("application/json", "{}", (400, "invalid_request")),
            ("application/json", "{\"tokens\":\"a\"}", (400, "invalid_request")),
            ("application/json", "{\"tokens\":[1]}", (400, "invalid_request")),
            ("application/json", "{\"tokens\":[null]}", (400, "invalid_request")),
            ("application/json", "{\"tokens\":[],\"caller\":\"api\"}", (400, "invalid_request")),
            ("application/x-www-form-urlencoded", "tokens=a", (415, "unsupported_media_type")),
            ("text/plain", "{\"tokens\":[]}", (415, "unsupported_media_type")),
        ] {
            let request = app.request(Method::POST, "/v1/introspect").header("content-type", content_type).body(body);
            let answer = request.basic_auth(&gateway.id, Some(&gateway.secret)).send().await.unwrap();
            assert_eq!(header(&answer, "content-type"), "application/problem+json");
            assert_eq!(error_of(answer).await, (expected.0, expected.1.into()), "{body}");
        }
    }

    async fn every_token_of_a_batch_is_counted(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        app.batch(&app.gateway(), &[&token, &token, "garbage", &token]).await;
        let count = async |labels: &str| app.figure(&format!("countersign_introspections_total{{{labels}}}")).await;
        assert_eq!(count("cache=\"miss\",result=\"active\"").await, 1.0);
        assert_eq!(count("cache=\"hit\",result=\"active\"").await, 2.0);
        assert_eq!(count("cache=\"none\",result=\"inactive\"").await, 1.0);
        assert_eq!(app.figure("countersign_verified_cache_misses_total").await, 1.0, "garbage has no signature to remember");
        assert_eq!(app.figure("countersign_verified_cache_hits_total").await, 2.0);
        assert_eq!(app.figure("countersign_introspection_seconds_count").await, 4.0);
    }

    async fn i2_for_a_client_that_may_introspect_nothing_no_token_is_verified(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let settings = ClientSettings { introspect: IntrospectRight::None, ..machine(&[], "") };
        let blind = app.confidential("blind", settings).await;
        let own = app.token_of(&blind).await.access_token;
        for format in Format::ALL {
            assert_eq!(app.asked(&blind, &own, format).await, json!({"active": false}));
        }
        assert_eq!(app.figure("countersign_verified_cache_entries").await, 0.0);
        app.service.introspection.audit_denials().await.unwrap();
        let events = app.audit("token.introspection_denied").await;
        assert_eq!((&events[0]["client"], &events[0]["detail"]), (&json!("blind"), &json!({"tokens": 3})));
    }

    async fn l1_forged_tokens_of_a_batch_count_against_its_client_and_valid_ones_do_not(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits.client]\nburst = 5\nper_minute = 60").await;
        let gateway = app.gateway();
        let token = app.log_in().await.access_token;
        let forged: Vec<String> = (0..6).map(|number| format!("{}{number}AAAAAAA", &token[..token.len() - 8])).collect();
        let forged: Vec<&str> = forged.iter().map(String::as_str).collect();
        let (refused, more) = forged.split_first().unwrap();
        assert_eq!(app.batch(&gateway, more).await.status(), 200);
        let answer = app.batch(&gateway, &[&token, refused]).await;
        assert_eq!(header(&answer, "retry-after"), "1");
        assert_eq!(error_of(answer).await, (429, "too_many_attempts".into()));
        // Tokens with another kind of defect cost no signature check.
        for batch in [&[token.as_str()][..], &["made up", &token]] {
            assert_eq!(app.batch(&gateway, batch).await.status(), 200);
        }
        assert_eq!(app.ask(&gateway, refused).send().await.unwrap().status(), 200, "a batch alone is limited");
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(app.batch(&gateway, &[refused]).await.status(), 200);
    }
}

#[tokio::test]
async fn a_batch_yields_to_other_requests_between_signature_checks() {
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, "[limits]\nenabled = false").await;
    let token = app.log_in().await.access_token;
    let forged: Vec<String> = (10..74).map(|number| format!("{}{number}AAAAAA", &token[..token.len() - 8])).collect();
    let forged: Vec<&str> = forged.iter().map(String::as_str).collect();
    let gateway = app.service.clients.client(&ClientId::parse(GATEWAY).unwrap()).unwrap();
    // One thread: the other task runs only when the batch yields.
    let turns = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let answers = app
        .service
        .introspection
        .introspect_all(&gateway, &forged, std::net::Ipv4Addr::LOCALHOST.into())
        .await
        .unwrap();
    other.abort();
    assert_eq!(answers.len(), forged.len());
    assert!(turns.load(std::sync::atomic::Ordering::Relaxed) >= forged.len());
}

/// Holds the table `lock` while `meanwhile` runs, so that a batch waits for the database. Returns its active tokens.
async fn active_after_waiting(
    app: &TestApp,
    caller: &Credentials,
    tokens: &[&str],
    lock: &str,
    meanwhile: impl Future<Output = ()>,
) -> Vec<bool> {
    const WAITING: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut holder = app.database.connect_postgres().await;
    holder.execute(AssertSqlSafe(format!("BEGIN; LOCK TABLE {lock} IN ACCESS EXCLUSIVE MODE"))).await.unwrap();
    let mut operator = app.database.connect_postgres().await;
    let revoking = async {
        while sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&mut operator).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        meanwhile.await;
        holder.execute("COMMIT").await.unwrap();
    };
    let (answer, ()) = tokio::join!(app.batch(caller, tokens), revoking);
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    answer["results"].as_array().unwrap().iter().map(|result| result["active"] == true).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_token_revoked_while_its_batch_waits_for_the_database_is_not_active() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let app = TestApp::start(TestDatabase::alone().await).await;
    let portal = ClientSettings { kind: ClientKind::Confidential, introspect: IntrospectRight::Any, ..application("") };
    let portal = app.confidential("portal", portal).await;
    let machine = app.confidential("machine", machine(&[], "")).await;
    let log_in = async || {
        let request = app.post_json("/v1/login", &json!({"username": USER, "password": PASSWORD}));
        tokens(request.basic_auth(&portal.id, Some(&portal.secret)).send().await.unwrap()).await.refresh_token
    };
    let revoke = async |owner: &Credentials, token: &str| {
        let request = app.post_form("/oauth2/revoke", &[("token", token)]);
        let answer = request.basic_auth(&owner.id, Some(&owner.secret)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let (session, ended) = (log_in().await, log_in().await);
    let (token, kept) = (app.token_of(&machine).await.access_token, app.token_of(&machine).await.access_token);
    // Looking up refresh tokens waits for the database.
    let batch = [token.as_str(), &session, &ended, &kept];
    let active = active_after_waiting(&app, &portal, &batch, "sessions", revoke(&machine, &token)).await;
    assert_eq!(active, [false, true, true, true]);
    // Verifying a token of an unknown key waits for the database too.
    let forge = Forge::import(&app, &kept).await;
    let unknown = forge.under(&forge.header_with("kid", json!("unknown")));
    let token = app.token_of(&machine).await.access_token;
    let meanwhile = async {
        revoke(&machine, &token).await;
        revoke(&portal, &ended).await;
    };
    let batch = [token.as_str(), &session, &ended, &unknown, &kept];
    let active = active_after_waiting(&app, &portal, &batch, "signing_keys", meanwhile).await;
    assert_eq!(active, [false, true, false, false, true]);
}
