//! `POST /v1/logout`.

use std::time::Duration;

use countersign::domain::ClientKind;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::sessions::*;

async fn log_out(app: &TestApp, refresh_token: &str) -> Response {
    app.post_json("/v1/logout", &json!({"refresh_token": refresh_token})).send().await.unwrap()
}

on_both_engines! {
    async fn logging_out_ends_the_session_locally_at_once_and_on_other_replicas_at_the_next_sync(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let (mine, others) = (app.log_in().await, app.log_in().await);
        let next = app.refreshed(&mine.refresh_token).await;
        let answer = log_out(&app, &next.refresh_token).await;
        assert_eq!(answer.status(), 204);
        is_private(&answer);
        for token in [&mine.access_token, &next.access_token] {
            assert!(!app.is_active(token).await);
            other.sync().await;
            assert!(!other.is_active(token).await);
        }
        for token in [&mine.refresh_token, &next.refresh_token] {
            assert_eq!(error_of(other.refresh(token).await).await, (401, "invalid_refresh_token".into()));
        }
        assert!(app.is_active(&others.access_token).await, "this session alone");
    }

    async fn any_refresh_token_of_the_session_logs_out_and_logout_is_idempotent(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        app.advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            assert_eq!(log_out(&app, &first.refresh_token).await.status(), 204, "also an old one, whose bearer held the family's secret");
        }
        assert!(!app.is_active(&second.access_token).await);
        assert_eq!(app.audit("session.ended").await.len(), 1, "S4: it ended once");
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
    }

    async fn logging_out_with_an_unknown_token_succeeds(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mine = app.log_in().await;
        for text in ["", "garbage", "cs_rt_", &mine.refresh_token[..40], &mine.access_token] {
            assert_eq!(log_out(&app, text).await.status(), 204, "{text}");
        }
        assert!(app.is_active(&mine.access_token).await);
        assert_eq!(app.audit("session.ended").await, [Value::Null; 0], "I9: and no row");
    }

    async fn an_access_token_logs_its_own_session_out(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let (mine, others) = (app.log_in().await, app.log_in().await);
        let answer = app.as_bearer(Method::POST, "/v1/logout", &mine.access_token).await;
        assert_eq!(answer.status(), 204);
        is_private(&answer);
        assert!(!app.is_active(&mine.access_token).await && app.is_active(&others.access_token).await);
        let again = app.as_bearer(Method::POST, "/v1/logout", &mine.access_token).await;
        assert_eq!(again.status(), 204, "also when it has ended already");
        is_private(&again);
        assert_eq!(app.as_bearer(Method::GET, "/v1/me", &mine.access_token).await.status(), 401, "and for nothing else");
        app.advance(Duration::from_secs(301)).await;
        let expired = app.as_bearer(Method::POST, "/v1/logout", &mine.access_token).await;
        assert_eq!(error_of(expired).await, (401, "invalid_token".into()));
        let event = &app.audit("session.ended").await[0];
        assert_eq!(event["subject"], json!(mine.session_id));
        assert_eq!(event["actor"], json!(app.user_id(USER).await.to_string()), "S4: who acted");
        assert_eq!(event["detail"]["address"], "127.0.0.1");
    }

    async fn a_refresh_token_in_the_body_takes_precedence_over_the_header(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["api"], "")).await;
        let robots = app.token_of(&robot).await.access_token;
        let others = app.log_in().await;
        let out = |body: &Value, bearer: &str| app.post_json("/v1/logout", body).bearer_auth(bearer).send();
        for bearer in [others.access_token.as_str(), &robots, "stale"] {
            let mine = app.log_in().await;
            assert_eq!(out(&json!({"refresh_token": mine.refresh_token}), bearer).await.unwrap().status(), 204);
            assert!(!app.is_active(&mine.access_token).await, "the session that was named");
            assert!(app.is_active(&others.access_token).await, "and no other");
        }
        assert_eq!(out(&json!({"refresh_token": "garbage"}), &others.access_token).await.unwrap().status(), 204);
        for unread in ["refresh_token=x", "{\"refresh_token\":"] {
            let request = app.request(Method::POST, "/v1/logout").bearer_auth(&others.access_token).body(unread);
            assert_eq!(request.send().await.unwrap().status(), 415, "a body that is not read may name a session");
        }
        assert!(app.is_active(&others.access_token).await);
        assert_eq!(out(&json!({}), &others.access_token).await.unwrap().status(), 204, "no refresh token is named here");
        assert!(!app.is_active(&others.access_token).await);
    }

    async fn h8_neither_body_nor_header_is_401(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for media in [None, Some("application/json"), Some("text/plain")] {
            let request = app.request(Method::POST, "/v1/logout");
            let request = media.into_iter().fold(request, |request, media| request.header("content-type", media));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"countersign\"");
            assert_eq!(error_of(answer).await, (401, "unauthenticated".into()), "{media:?}");
        }
        let nothing = app.post_json("/v1/logout", &json!({})).send().await.unwrap();
        assert_eq!(error_of(nothing).await, (400, "invalid_request".into()), "the field that is missing is named");
    }

    async fn an_access_token_must_be_active_and_belong_to_a_user(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["api"], "")).await;
        let own = app.token_of(&robot).await;
        let mine = app.log_in().await;
        for token in [own.access_token.as_str(), "garbage", &mine.refresh_token] {
            let answer = app.as_bearer(Method::POST, "/v1/logout", token).await;
            is_private(&answer);
            assert_eq!(error_of(answer).await, (401, "invalid_token".into()));
        }
        let request = app.request(Method::POST, "/v1/logout").header("authorization", "Basic YTpi").send().await.unwrap();
        assert_eq!(error_of(request).await, (401, "unauthenticated".into()));
        assert!(app.is_active(&mine.access_token).await);
    }

    async fn the_client_of_the_session_does_not_matter(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        assert_eq!(application("").kind, ClientKind::Public);
        let mine = tokens(app.login(&json!({"username": USER, "password": PASSWORD, "client_id": "app"})).await).await;
        assert_eq!(log_out(&app, &mine.refresh_token).await.status(), 204);
        assert!(!app.is_active(&mine.access_token).await);
    }

    async fn i10_a_logout_that_could_not_be_recorded_is_an_error(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mine = app.log_in().await;
        for (what, table) in [("BEFORE UPDATE", "sessions"), ("BEFORE INSERT", "changes"), ("BEFORE INSERT", "audit")] {
            let broken = Broken::on(&app.database, what, table).await;
            assert_eq!(error_of(log_out(&app, &mine.refresh_token).await).await, (500, "internal".into()), "{table}");
            broken.mend().await;
            assert!(app.is_active(&mine.access_token).await);
        }
        assert_eq!(log_out(&app, &mine.refresh_token).await.status(), 204);
        assert!(!app.is_active(&mine.access_token).await);
    }
}
