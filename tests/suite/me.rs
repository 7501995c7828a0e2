//! `GET /v1/me` and `/v1/me/sessions`.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{ISSUER, PASSWORD, TestApp, Tokens, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::sessions::*;

async fn add_user(app: &TestApp, name: &str) -> Tokens {
    let password = format!("{name} likes long passwords");
    let body = json!({"username": name, "password": password});
    app.administer(Method::POST, "/admin/v1/users", Some(body)).await;
    tokens(app.login(&json!({"username": name, "password": password})).await).await
}

async fn list(app: &TestApp, query: &str, access_token: &str) -> Value {
    let answer = app.as_bearer(Method::GET, &format!("/v1/me/sessions{query}"), access_token).await;
    assert_eq!(answer.status(), 200);
    is_private(&answer);
    answer.json().await.unwrap()
}

fn ids(list: &Value) -> Vec<String> {
    list["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

on_both_engines! {
    async fn me_returns_the_account_of_the_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.log_in().await;
        app.advance(Duration::from_secs(90)).await;
        let mine = app.log_in().await;
        let answer = app.as_bearer(Method::GET, "/v1/me", &mine.access_token).await;
        assert_eq!(answer.status(), 200);
        is_private(&answer);
        let expected = json!({
            "id": app.user_id(USER).await.to_string(), "username": "ada", "roles": ["reader"],
            "created_at": "2027-01-15T08:00:00.000Z", "last_login_at": "2027-01-15T08:01:30.000Z",
        });
        assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    }

    async fn every_me_endpoint_requires_an_active_user_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["api"], "")).await;
        let robot = app.token_of(&robot).await.access_token;
        let gone = app.log_in().await;
        app.set_enabled(USER, false).await;
        app.set_enabled(USER, true).await;
        let mine = app.log_in().await;
        let endpoints = [
            (Method::GET, "/v1/me"),
            (Method::GET, "/v1/me/sessions"),
            (Method::DELETE, "/v1/me/sessions"),
            (Method::DELETE, "/v1/me/sessions/ses_AAAAAAAAAAAAAAAAAAAAAA"),
        ];
        for (method, path) in &endpoints {
            let bare = app.request(method.clone(), path).send().await.unwrap();
            is_private(&bare);
            assert_eq!(error_of(bare).await, (401, "unauthenticated".into()), "{method} {path}");
            for token in [gone.access_token.as_str(), &robot, &mine.refresh_token, "x.y.z"] {
                let refused = app.as_bearer(method.clone(), path, token).await;
                is_private(&refused);
                assert_eq!(error_of(refused).await, (401, "invalid_token".into()), "{method} {path}");
            }
            let twice = app.request(method.clone(), path).bearer_auth(&mine.access_token).bearer_auth(&mine.access_token);
            assert_eq!(error_of(twice.send().await.unwrap()).await, (400, "invalid_request".into()));
        }
        assert!(app.is_active(&mine.access_token).await, "and nothing of this ended a session");
    }

    async fn i16_a_token_for_a_resource_server_cannot_change_the_account(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let audiences = |names: &[&str]| countersign::domain::ClientSettings { audiences: machine(names, "").audiences, ..application("") };
        app.client("orders", audiences(&["https://orders.example"])).await;
        app.client("both", audiences(&["https://orders.example", ISSUER])).await;
        let log_in = async |client: &str| {
            let login = json!({"username": USER, "password": PASSWORD, "client_id": client});
            tokens(app.login(&login).await).await
        };
        let (for_orders, for_both) = (log_in("orders").await, log_in("both").await);
        let change = json!({"current_password": PASSWORD, "new_password": "an even longer pass phrase"});
        for (method, path) in [
            (Method::GET, "/v1/me".to_owned()),
            (Method::GET, "/v1/me/sessions".to_owned()),
            (Method::PUT, "/v1/me/password".to_owned()),
            (Method::DELETE, format!("/v1/me/sessions/{}", for_both.session_id)),
            (Method::DELETE, "/v1/me/sessions".to_owned()),
            (Method::POST, "/v1/logout".to_owned()),
        ] {
            let request = app.request(method.clone(), &path).bearer_auth(&for_orders.access_token);
            let request = if method == Method::PUT { request.json(&change) } else { request };
            let problem: Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&json!(401), &json!("invalid_token")), "{method} {path}");
            assert!(problem["detail"].as_str().unwrap().contains("audience"), "{problem}");
        }
        assert!(app.is_active(&for_orders.access_token).await && app.is_active(&for_both.access_token).await);
        assert_eq!(app.as_bearer(Method::GET, "/v1/me", &for_both.access_token).await.status(), 200);
        // Its own application narrows the tokens that it forwards, and ends the session by its refresh token.
        let narrowed = app.http.post(format!("http://{}/oauth2/token", app.public)).form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &for_both.refresh_token),
            ("client_id", "both"),
            ("resource", "https://orders.example"),
        ]);
        let narrowed = tokens(narrowed.send().await.unwrap()).await;
        assert_eq!(app.as_bearer(Method::GET, "/v1/me", &narrowed.access_token).await.status(), 401);
        let answer = app.post_json("/v1/logout", &json!({"refresh_token": for_orders.refresh_token})).send().await.unwrap();
        assert_eq!(answer.status(), 204);
        assert!(!app.is_active(&for_orders.access_token).await);
    }

    async fn sessions_are_listed_in_pages_and_only_while_they_can_be_refreshed(database: TestDatabase) {
        let app = TestApp::start_with(database, "[sessions]\nidle_ttl = \"1h\"\nabsolute_ttl = \"1d\"\n").await;
        app.client("app", application("read")).await;
        add_user(&app, "bob").await;
        let stale = app.log_in().await;
        app.advance(Duration::from_secs(3600)).await;
        let mut expected = Vec::new();
        for _ in 0..4 {
            expected.push(app.log_in().await.session_id);
        }
        let mine = tokens(app.login(&json!({"username": USER, "password": PASSWORD, "client_id": "app"})).await).await;
        expected.push(mine.session_id.clone());
        expected.sort_unstable();
        assert!(!expected.contains(&stale.session_id));
        let all = list(&app, "", &mine.access_token).await;
        let mut found = ids(&all);
        found.sort_unstable();
        assert_eq!((found, &all["next_cursor"]), (expected.clone(), &Value::Null));
        let own = all["sessions"].as_array().unwrap().iter().find(|session| session["id"] == json!(mine.session_id)).unwrap();
        let expected_own = json!({
            "id": mine.session_id, "client_id": "app", "scope": "read", "authenticated_at": "2027-01-15T09:00:00.000Z",
            "last_refreshed_at": "2027-01-15T09:00:00.000Z", "expires_at": "2027-01-15T10:00:00.000Z", "current": true,
        });
        assert_eq!(own, &expected_own);
        assert_eq!(all["sessions"].as_array().unwrap().iter().filter(|session| session["current"] == true).count(), 1);
        let (mut paged, mut query) = (Vec::new(), "?limit=2".to_owned());
        loop {
            let page = list(&app, &query, &mine.access_token).await;
            paged.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(paged, ids(&all));
        for (query, field) in [("?limit=0", "limit"), ("?limit=201", "limit"), ("?limit=x", "limit"), ("?cursor=x", "cursor"), ("?page=2", "query")] {
            let answer = app.as_bearer(Method::GET, &format!("/v1/me/sessions{query}"), &mine.access_token).await;
            let problem: Value = answer.json().await.unwrap();
            assert_eq!((&problem["code"], &problem["errors"][0]["field"]), (&json!("invalid_request"), &json!(field)), "{query}");
        }
    }

    async fn a_session_can_be_ended_by_its_own_user_only(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let bob = add_user(&app, "bob").await;
        let (mine, other) = (app.log_in().await, app.log_in().await);
        let end = async |session: &str| {
            app.as_bearer(Method::DELETE, &format!("/v1/me/sessions/{session}"), &mine.access_token).await
        };
        for foreign in [bob.session_id.as_str(), "ses_AAAAAAAAAAAAAAAAAAAAAA", "x", "%00", "ses_%ff"] {
            let answer = end(foreign).await;
            assert!(matches!(error_of(answer).await, (404 | 400, code) if code == "not_found" || code == "invalid_request"), "{foreign}");
        }
        assert!(app.is_active(&bob.access_token).await);
        for _ in 0..2 {
            assert_eq!(end(&other.session_id).await.status(), 204);
        }
        assert!(!app.is_active(&other.access_token).await && app.is_active(&mine.access_token).await);
        assert_eq!(error_of(app.refresh(&other.refresh_token).await).await, (401, "invalid_refresh_token".into()));
        assert_eq!(end(&mine.session_id).await.status(), 204, "also the one that asks");
        assert!(!app.is_active(&mine.access_token).await);
        let ended = app.audit("session.ended").await;
        assert_eq!(ended.len(), 2);
        assert!(ended.iter().all(|event| event["actor"].as_str().unwrap().starts_with("usr_")));
    }

    async fn logging_out_everywhere_ends_exactly_the_sessions_of_this_user(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let bob = add_user(&app, "bob").await;
        let mut mine = Vec::new();
        for replica in [&app, &other, &app] {
            mine.push(replica.log_in().await);
        }
        let answer = app.as_bearer(Method::DELETE, "/v1/me/sessions", &mine[0].access_token).await;
        assert_eq!(answer.status(), 204);
        other.sync().await;
        for replica in [&app, &other] {
            for tokens in &mine {
                assert!(!replica.is_active(&tokens.access_token).await);
                assert_eq!(replica.refresh(&tokens.refresh_token).await.status(), 401);
            }
            assert!(replica.is_active(&bob.access_token).await);
        }
        let live = app.administer(Method::GET, "/admin/v1/revocations", None).await;
        assert_eq!(live["revocations"].as_array().unwrap().len(), 1, "I13: one record, whatever the number of sessions");
        assert!(app.is_active(&app.log_in().await.access_token).await, "a login in the same second is not concerned");
    }
}
