//! What the audit trail says of sessions (security.md S4): each event exactly once, with the request that caused it and
//! where that came from, and never a name that nobody has.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, USER, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};

const TYPED_INTO_THE_WRONG_FIELD: &str = "My-Real-Password-2027";

/// Everything in the trail that a request of the public listener caused, oldest first: event, request, whom about.
async fn trail(app: &TestApp) -> Vec<(String, String, String)> {
    let list = app.administer(Method::GET, "/admin/v1/audit?limit=1000", None).await;
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let events = list["events"].as_array().unwrap().iter().rev().filter(|event| event["request_id"].is_string());
    events.map(|event| (text(&event["event"]), text(&event["request_id"]), text(&event["subject"]))).collect()
}

on_both_engines! {
    async fn s4_events_and_requests_are_one_to_one(database: TestDatabase) {
        let settings = "[limits]\nhard_stop = 3\n";
        let app = TestApp::start_with(database, settings).await;
        let user = app.user_id(USER).await.to_string();
        let numbered = |request: RequestBuilder, number: u32| request.header("x-request-id", format!("request-{number}"));
        let login = |name: &str, password: &str| app.post_json("/v1/login", &json!({"username": name, "password": password}));
        let refresh = |token: &str| app.post_json("/v1/refresh", &json!({"refresh_token": token}));
        let first = tokens(numbered(login(USER, PASSWORD), 1).send().await.unwrap()).await;
        numbered(login(USER, "wrong password"), 2).send().await.unwrap();
        numbered(login(TYPED_INTO_THE_WRONG_FIELD, "x"), 3).send().await.unwrap();
        let second = tokens(numbered(refresh(&first.refresh_token), 4).send().await.unwrap()).await;
        numbered(refresh(&first.refresh_token), 5).send().await.unwrap();
        app.advance(Duration::from_secs(11)).await;
        for number in 6..9 {
            numbered(refresh(&first.refresh_token), number).send().await.unwrap();
        }
        numbered(refresh(&second.refresh_token), 9).send().await.unwrap();
        numbered(refresh("garbage"), 10).send().await.unwrap();
        let third = tokens(numbered(login(USER, PASSWORD), 11).send().await.unwrap()).await;
        for number in 12..14 {
            let out = app.post_json("/v1/logout", &json!({"refresh_token": third.refresh_token}));
            numbered(out, number).send().await.unwrap();
        }
        let fourth = tokens(numbered(login(USER, PASSWORD), 14).send().await.unwrap()).await;
        let everywhere = app.request(Method::DELETE, "/v1/me/sessions").bearer_auth(&fourth.access_token);
        numbered(everywhere, 15).send().await.unwrap();
        for number in 16..20 {
            numbered(login(USER, "wrong password"), number).send().await.unwrap();
        }
        let event = |event: &str, number: u32, subject: &str| (event.to_owned(), format!("request-{number}"), subject.to_owned());
        let expected = [
            event("login.succeeded", 1, &user),
            event("login.failed", 2, &user),
            event("login.failed", 3, "-"),
            event("session.reused", 6, &first.session_id),
            event("login.succeeded", 11, &user),
            event("session.ended", 12, &third.session_id),
            event("login.succeeded", 14, &user),
            event("user.revoked", 15, &user),
            event("login.failed", 16, &user),
            event("login.failed", 17, &user),
            event("login.failed", 18, &user),
            event("login.locked", 18, &user),
        ];
        assert_eq!(trail(&app).await, expected);
        let whole = app.administer(Method::GET, "/admin/v1/audit?limit=1000", None).await;
        for record in whole["events"].as_array().unwrap().iter().filter(|event| event["request_id"].is_string()) {
            assert_eq!(record["detail"]["address"], "127.0.0.1", "{record}");
        }
        let whole = whole.to_string().to_lowercase();
        assert!(!whole.contains(&TYPED_INTO_THE_WRONG_FIELD.to_lowercase()), "a name that no account has is not kept");
        assert!(!app.logged().to_lowercase().contains(&TYPED_INTO_THE_WRONG_FIELD.to_lowercase()));
    }
}
