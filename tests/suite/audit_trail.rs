//! The audit trail of logins and sessions (security.md S4): each event exactly once, with the request that caused it and
//! its address. Names without an account are never recorded.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, USER, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};

const TYPED_INTO_THE_WRONG_FIELD: &str = "My-Real-Password-2027";

/// Everything in the trail that a request of the public listener caused, oldest first: event, request, subject.
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

    async fn s4_every_end_of_a_session_names_user_session_client_reason_address_and_request(database: TestDatabase) {
        let app = TestApp::start_with(database, "[sessions]\nmax_per_user = 4\n").await;
        let user = app.user_id(USER).await.to_string();
        let logged_in = async |number: u32| {
            let body = json!({"username": USER, "password": PASSWORD});
            let request = app.post_json("/v1/login", &body).header("x-request-id", format!("login-{number}"));
            app.clock.advance(Duration::from_millis(1));
            tokens(request.send().await.unwrap()).await
        };
        let mut sessions = Vec::new();
        for number in 0..5 {
            sessions.push(logged_in(number).await);
        }
        let [displaced, logged_out, ended, administered, reused] = &sessions[..] else { unreachable!() };
        let out = app.post_json("/v1/logout", &json!({"refresh_token": logged_out.refresh_token}));
        out.header("x-request-id", "logout").send().await.unwrap().error_for_status().unwrap();
        let path = format!("/v1/me/sessions/{}", ended.session_id);
        let own = app.request(Method::DELETE, &path).bearer_auth(&reused.access_token);
        own.header("x-request-id", "own").send().await.unwrap().error_for_status().unwrap();
        let path = format!("/admin/v1/sessions/{}", administered.session_id);
        let admin = app.admin(Method::DELETE, &path).header("x-request-id", "admin");
        admin.send().await.unwrap().error_for_status().unwrap();
        app.refreshed(&reused.refresh_token).await;
        app.advance(Duration::from_secs(3600)).await;
        let old = app.post_json("/v1/refresh", &json!({"refresh_token": reused.refresh_token}));
        old.header("x-request-id", "reuse").send().await.unwrap();

        let list = app.administer(Method::GET, &format!("/admin/v1/audit?limit=1000&user={user}"), None).await;
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let told: Vec<_> = list["events"].as_array().unwrap().iter().rev().filter(|event| event["session"].is_string()).map(|event| {
            assert_eq!((&event["user"], &event["client"]), (&json!(user), &json!("countersign")), "{event}");
            assert_eq!(event["detail"]["address"], "127.0.0.1", "{event}");
            [&event["event"], &event["session"], &event["detail"]["reason"], &event["request_id"]].map(text)
        }).collect();
        let mut expected: Vec<[String; 4]> = sessions.iter().enumerate().map(|(number, session)| {
            ["login.succeeded", &session.session_id, "-", &format!("login-{number}")].map(str::to_owned)
        }).collect();
        for (event, session, reason, request) in [
            ("session.displaced", displaced, "displaced", "login-4"),
            ("session.ended", logged_out, "logged_out", "logout"),
            ("session.ended", ended, "user_revoked", "own"),
            ("session.ended", administered, "administrator", "admin"),
            ("session.reused", reused, "reused", "reuse"),
        ] {
            expected.push([event, &session.session_id, reason, request].map(str::to_owned));
        }
        assert_eq!(told, expected);
        let one = app.administer(Method::GET, &format!("/admin/v1/audit?session={}", reused.session_id), None).await;
        let names: Vec<_> = one["events"].as_array().unwrap().iter().map(|event| text(&event["event"])).collect();
        assert_eq!(names, ["session.reused", "login.succeeded"], "the life of one session");
    }

    async fn a_refused_refresh_is_logged_with_its_cause_and_verified_ids(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let user = app.user_id(USER).await.to_string();
        let (ended, reused, other, superseded) =
            (app.log_in().await, app.log_in().await, app.log_in().await, app.log_in().await);
        let refused = async |token: &str| assert_eq!(app.refresh(token).await.status(), 401);
        let logged = |session: &str, cause: &str| {
            let lines = app.events(session);
            let found = lines.iter().any(|line| {
                line.contains("refresh refused") && line.contains(&format!("cause={cause:?} ")) && line.contains(&format!("user={user} "))
            });
            assert!(found, "{cause}: {lines:#?}");
        };
        app.post_json("/v1/logout", &json!({"refresh_token": ended.refresh_token})).send().await.unwrap();
        refused(&ended.refresh_token).await;
        logged(&ended.session_id, "ended");
        app.refreshed(&reused.refresh_token).await;
        app.advance(Duration::from_secs(4000)).await;
        refused(&reused.refresh_token).await;
        logged(&reused.session_id, "reused");
        let now = app.refreshed(&superseded.refresh_token).await;
        let body = json!({"current_password": PASSWORD, "new_password": "quite another battery staple 8"});
        let changed = app.request(Method::PUT, "/v1/me/password").bearer_auth(&now.access_token).json(&body).send().await;
        tokens(changed.unwrap()).await;
        refused(&now.refresh_token).await;
        logged(&superseded.session_id, "superseded");
        refused(&other.refresh_token).await;
        logged(&other.session_id, "ended");
        let last = tokens(app.login(&json!({"username": USER, "password": "quite another battery staple 8"})).await).await;
        app.advance(Duration::from_secs(15 * 86_400)).await;
        refused(&last.refresh_token).await;
        logged(&last.session_id, "expired");
    }

    async fn s9_failed_logins_of_one_address_write_a_bounded_number_of_rows(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits]\nenabled = false\n").await;
        let user = app.user_id(USER).await.to_string();
        let fail = async |name: &str| {
            let answer = app.login(&json!({"username": name, "password": "wrong password"})).await;
            assert_eq!(answer.status(), 401);
        };
        for _ in 0..8 {
            fail(USER).await;
        }
        for name in ["nobody", "nobody-else"] {
            fail(name).await;
        }
        assert_eq!(app.audit("login.failed").await.len(), 5, "five are written as they happen");
        app.service.passwords.audit_failed_logins().await.unwrap();
        let events = app.audit("login.failed").await;
        let mut counted: Vec<_> = events[..2].iter().map(|event| (event["subject"].clone(), event["detail"]["attempts"].clone())).collect();
        counted.sort_by_key(|(_, attempts)| attempts.as_u64());
        assert_eq!(counted, [(Value::Null, json!(2)), (json!(user), json!(3))]);
        assert!(events[..2].iter().all(|event| event["detail"]["address"] == "127.0.0.1"));
        assert_eq!(events.len(), 7, "ten attempts");
        app.service.passwords.audit_failed_logins().await.unwrap();
        fail(USER).await;
        assert_eq!(app.audit("login.failed").await.len(), 8, "counting begins again after each write");
    }
}
