//! `POST /v1/login`.

use std::future::Future as _;

use countersign::domain::{Audience, ClientId, ClientKind, ClientSettings, Grant, Grants, Password, Role, Username};
use countersign::service::{BUILT_IN_CLIENT, Caller, Login, Requester};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::app::{PASSWORD, TestApp, USER, application, error_of, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::{claims_of, header, verified_claims};
use crate::support::sessions::*;

/// A public application with audiences and scopes.
fn portal() -> ClientSettings {
    ClientSettings {
        audiences: ["https://api.example", "https://files.example"].map(|text| Audience::parse(text).unwrap()).to_vec(),
        ..application("read write")
    }
}

fn of_ada(more: Value) -> Value {
    let mut body = json!({"username": USER, "password": PASSWORD});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

on_both_engines! {
    async fn a_login_returns_the_tokens_of_a_new_session_with_no_store(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let answer = app.login(&of_ada(json!({}))).await;
        assert_eq!(answer.status(), 200);
        is_private(&answer);
        let body: Value = answer.json().await.unwrap();
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            members,
            ["access_token", "expires_in", "refresh_expires_in", "refresh_token", "session_id", "token_type"],
            "there is no scope"
        );
        let fixed = (&body["token_type"], &body["expires_in"], &body["refresh_expires_in"]);
        assert_eq!(fixed, (&json!("Bearer"), &json!(300), &json!(14 * 86_400)));
        let claims = verified_claims(body["access_token"].as_str().unwrap(), &app.jwks().await).unwrap();
        assert_eq!((&claims["sid"], &claims["amr"]), (&body["session_id"], &json!(["pwd"])));
        assert_eq!(claims["auth_time"], claims["iat"]);
        assert_eq!((&claims["preferred_username"], &claims["roles"]), (&json!("ada"), &json!(["reader"])));
        assert_eq!((&claims["client_id"], &claims["sub"]), (&json!("countersign"), &json!(app.user_id(USER).await.to_string())));
        let other = app.log_in().await;
        assert_ne!(body["session_id"], json!(other.session_id), "each login is a session of its own");
    }

    async fn scope_and_audience_are_the_requested_ones_or_all_of_the_clients(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("portal", portal()).await;
        let all = tokens(app.login(&of_ada(json!({"client_id": "portal"}))).await).await;
        let claims = claims_of(&all.access_token);
        assert_eq!((all.scope.as_str(), &claims["scope"]), ("read write", &json!("read write")));
        assert_eq!(claims["aud"], json!(["https://api.example", "https://files.example"]));
        let less = json!({"client_id": "portal", "scope": "read", "audience": "https://api.example"});
        let less = tokens(app.login(&of_ada(less)).await).await;
        let claims = claims_of(&less.access_token);
        assert_eq!((less.scope.as_str(), &claims["aud"]), ("read", &json!("https://api.example")));
        let next = tokens(app.refresh_on("portal", &less.refresh_token).await).await;
        assert_eq!(claims_of(&next.access_token)["aud"], json!("https://api.example"), "for the whole session");
        for (asked, code) in [
            (json!({"client_id": "portal", "scope": "read admin"}), "invalid_scope"),
            (json!({"client_id": "portal", "scope": "Read"}), "invalid_scope"),
            (json!({"client_id": "portal", "audience": "https://api.example/"}), "invalid_audience"),
            (json!({"audience": "https://api.example"}), "invalid_audience"),
        ] {
            assert_eq!(error_of(app.login(&of_ada(asked.clone())).await).await, (400, code.into()), "{asked}");
        }
    }

    async fn the_admin_scope_requires_the_admin_role(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("console", application("countersign:admin read")).await;
        let all = tokens(app.login(&of_ada(json!({"client_id": "console"}))).await).await;
        assert_eq!(all.scope, "read", "what nobody asked for is left out");
        let asked = of_ada(json!({"client_id": "console", "scope": "countersign:admin"}));
        assert_eq!(error_of(app.login(&asked).await).await, (400, "invalid_scope".into()));
        let role = vec![Role::parse("countersign:admin").unwrap()];
        app.service.users.set_roles(app.user_id(USER).await, role, &Requester::command_line()).await.unwrap();
        assert_eq!(tokens(app.login(&asked).await).await.scope, "countersign:admin");
    }

    async fn the_client_must_exist_have_the_grant_and_authenticate_if_confidential(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let logs_in = ClientSettings {
            grants: Grants::new([Grant::PasswordLogin]),
            ..ClientSettings::new(ClientKind::Confidential)
        };
        let backend = app.confidential("backend", logs_in).await;
        app.client("refresher", ClientSettings { grants: Grants::new([Grant::RefreshToken]), ..application("") }).await;
        let request = |client: &str| app.post_json("/v1/login", &of_ada(json!({"client_id": client})));
        assert_eq!(error_of(request("nobody").send().await.unwrap()).await, (401, "invalid_client".into()));
        assert_eq!(error_of(request("backend").send().await.unwrap()).await, (401, "invalid_client".into()));
        assert_eq!(error_of(request("refresher").send().await.unwrap()).await, (403, "unauthorized_client".into()));
        let wrong = request("backend").basic_auth("backend", Some("wrong"));
        assert_eq!(error_of(wrong.send().await.unwrap()).await, (401, "invalid_client".into()));
        let proven = request("backend").basic_auth(&backend.id, Some(&backend.secret)).send().await.unwrap();
        let proven = tokens(proven).await;
        assert_eq!(claims_of(&proven.access_token)["client_id"], "backend");
        let unnamed = app.post_json("/v1/login", &of_ada(json!({}))).basic_auth(&backend.id, Some(&backend.secret));
        assert_eq!(claims_of(&tokens(unnamed.send().await.unwrap()).await.access_token)["client_id"], "backend");
        let hashed = app.hashed().await;
        let wrong = app.post_json("/v1/login", &of_ada(json!({"client_id": "backend", "password": "wrong"})));
        assert_eq!(error_of(wrong.send().await.unwrap()).await.0, 401);
        assert_eq!(app.hashed().await, hashed, "the client comes before the password");
    }

    async fn p7_every_spelling_of_a_name_is_one_account_and_one_counter(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits.pair]\nfree = 3\n").await;
        for name in ["ada", "Ada", "ADA", "ａｄａ"] {
            let answer = app.login(&json!({"username": name, "password": PASSWORD})).await;
            assert_eq!(answer.status(), 200, "{name}");
        }
        for name in ["ada", "Ada", "ADA", "ａｄａ"] {
            let wrong = json!({"username": name, "password": "wrong password"});
            assert_eq!(error_of(app.login(&wrong).await).await.1, "invalid_credentials", "{name}");
        }
        let more = json!({"username": "aDa", "password": "wrong password"});
        assert_eq!(error_of(app.login(&more).await).await, (429, "too_many_attempts".into()));
    }

    async fn p6_unknown_wrong_disabled_and_unreadable_get_one_answer_after_one_hash(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for name in ["bob", "eve", "mallory"] {
            let body = json!({"username": name, "password": format!("{name} likes long passwords")});
            app.administer(reqwest::Method::POST, "/admin/v1/users", Some(body)).await;
        }
        app.set_enabled("bob", false).await;
        app.database.tamper("UPDATE users SET password_hash = '$argon2id$v=19$m=99,t=1,p=1$c29tZQ$' WHERE username = 'eve'").await;
        app.database.tamper("UPDATE users SET password_hash = 'not a hash' WHERE username = 'mallory'").await;
        let refused = async |name: &str, password: &str| {
            let before = app.hashed().await;
            let request = app.post_json("/v1/login", &json!({"username": name, "password": password}));
            let answer = seen(request.header("x-request-id", "the-same").send().await.unwrap()).await;
            (answer, app.hashed().await - before)
        };
        let (wrong, hashes) = refused(USER, "a wrong password").await;
        assert_eq!((wrong.0, hashes), (401, 1));
        assert!(wrong.2.contains("invalid_credentials"));
        for (name, password) in [
            ("nobody", "a wrong password"),
            ("bob", "bob likes long passwords"),
            ("bob", "a wrong password"),
            ("eve", "eve likes long passwords"),
            ("mallory", "mallory likes long passwords"),
        ] {
            assert_eq!(refused(name, password).await, (wrong.clone(), 1), "{name}");
        }
        app.set_enabled("bob", true).await;
        assert_eq!(app.login(&json!({"username": "bob", "password": "bob likes long passwords"})).await.status(), 200);
    }

    async fn p2_an_impossible_name_or_password_is_refused_before_hashing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let hashed = app.hashed().await;
        for (body, fields) in [
            (json!({"username": USER, "password": "x".repeat(257)}), vec!["password"]),
            (json!({"username": USER, "password": ""}), vec!["password"]),
            (json!({"username": "a b", "password": "x"}), vec!["username"]),
            (json!({"username": "a\u{7f}b", "password": "x\u{202e}"}), vec!["username", "password"]),
            (json!({"username": "", "password": "", "scope": "a  b", "audience": "a b"}), vec!["username", "password", "scope", "audience"]),
        ] {
            let answer = app.login(&body).await;
            is_private(&answer);
            let problem: Value = answer.json().await.unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("invalid_request")));
            let named: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
            assert_eq!(named, fields, "every error at once");
        }
        assert_eq!(app.hashed().await, hashed);
        assert_eq!(app.audit("login.failed").await, [Value::Null; 0]);
    }

    async fn p5_a_full_hashing_queue_answers_503_at_once_and_counts_no_failed_attempt(database: TestDatabase) {
        let settings = "[passwords]\nthreads = 1\nqueue = 1\n[limits]\nhard_stop = 20\n[limits.account]\nfree = 20\n[limits.pair]\nfree = 20\n";
        let app = std::sync::Arc::new(TestApp::start_with(database, settings).await);
        let wrong = json!({"username": USER, "password": "a wrong password"});
        let storm: Vec<_> = (0..60)
            .map(|_| {
                let (app, wrong) = (std::sync::Arc::clone(&app), wrong.clone());
                tokio::spawn(async move {
                    let answer = app.login(&wrong).await;
                    is_private(&answer);
                    (answer.status().as_u16(), header(&answer, "retry-after").to_owned())
                })
            })
            .collect();
        let (mut looked_at, mut busy) = (0, 0);
        for login in storm {
            match login.await.unwrap() {
                (503, wait) => {
                    assert!((1..=30).contains(&wait.parse::<u32>().unwrap()));
                    busy += 1;
                }
                (401, _) => looked_at += 1,
                (status, _) => assert_eq!(status, 429, "while so many are counted at the same time"),
            }
        }
        assert!(busy > 0);
        // A lock may have been reached by attempts that were counted first, and removed from the count when the full
        // queue refused them.
        let of_the_storm = app.audit("login.locked").await.len();
        while app.login(&wrong).await.status() == 401 {
            looked_at += 1;
        }
        assert_eq!(looked_at, 20, "what was not looked at was not counted");
        assert_eq!(TestApp::failed_logins(std::slice::from_ref(&app)).await, 20);
        let locks = app.audit("login.locked").await.len();
        assert!((1..=of_the_storm + 1).contains(&locks), "S4: the lock, once: {of_the_storm}, then {locks}");
    }

    async fn p5_logins_of_disconnected_clients_compute_no_hash(database: TestDatabase) {
        const LOGINS: u64 = 60;
        let app = TestApp::start_with(database, "[passwords]\nthreads = 1\nqueue = 100\n[limits]\nenabled = false").await;
        let hashed = app.hashed().await;
        let body = json!({"username": USER, "password": "a wrong password"}).to_string();
        let request = format!(
            "POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut callers = Vec::new();
        for _ in 0..LOGINS {
            let mut stream = TcpStream::connect(app.public).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            callers.push(stream);
        }
        let waiting = async || app.figure("countersign_password_queue_depth").await;
        while waiting().await < 20.0 {}
        for stream in callers {
            stream.set_zero_linger().unwrap();
        }
        while waiting().await > 0.0 {}
        assert!(app.hashed().await - hashed < LOGINS - 10, "most of those that waited were dropped");
        // The pool continues.
        app.log_in().await;
    }

    async fn t9_a_user_that_0_1_0_gave_too_many_roles_gets_no_session_until_the_roles_are_set_again(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let id = app.user_id(USER).await;
        let roles: Vec<_> = (0..60).map(|n| format!("{n:064}")).collect();
        app.database.tamper(&format!("UPDATE users SET roles = '{}' WHERE username = '{USER}'", roles.join(" "))).await;
        for _ in 0..3 {
            let answer = app.login(&of_ada(json!({}))).await;
            is_private(&answer);
            assert_eq!(error_of(answer).await, (500, "internal".into()));
        }
        assert!(!app.events("set the user's roles").is_empty());
        let disabled = app.admin(reqwest::Method::PATCH, &format!("/admin/v1/users/{id}")).json(&json!({"enabled": false}));
        assert_eq!(disabled.send().await.unwrap().status(), 200, "other changes are possible");
        let fewer = app.admin(reqwest::Method::PATCH, &format!("/admin/v1/users/{id}"));
        let answer = fewer.json(&json!({"enabled": true, "roles": ["writer"]})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        app.log_in().await;
    }

    async fn a_database_failure_during_login_is_a_server_error_and_not_a_wrong_password(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for (what, table) in [("BEFORE INSERT", "sessions"), ("BEFORE UPDATE", "users"), ("BEFORE INSERT", "audit"), ("BEFORE INSERT", "login_attempts")] {
            let broken = Broken::on(&app.database, what, table).await;
            let answer = app.login(&of_ada(json!({}))).await;
            is_private(&answer);
            assert_eq!(error_of(answer).await, (500, "internal".into()), "{table}");
            broken.mend().await;
        }
        assert_eq!(app.audit("login.succeeded").await, [Value::Null; 0], "all or nothing");
        let first = app.log_in().await;
        assert!(app.is_active(&first.access_token).await);
    }

    async fn r13_a_login_cancelled_at_any_point_leaves_no_session(database: TestDatabase) {
        let settings = "[limits.pair]\nfree = 90\n[limits.account]\nfree = 90\n[limits.address]\nburst = 1000\n";
        let app = TestApp::start_with(database, settings).await;
        let client = app.service.clients.client(&ClientId::parse(BUILT_IN_CLIENT).unwrap()).unwrap();
        let caller = Caller { client, authenticated: false };
        let ended = async || app.settled("countersign_database_seconds_count{query=\"session_end\"}").await;
        let (mut polls, mut completed) = (0, 0);
        // The number of polls of a login varies. The loop continues until a login was dropped after its session was
        // opened.
        while completed < 30 && (completed == 0 || ended().await == 0) {
            polls += 1;
            let login = Login {
                username: Username::parse(USER).unwrap(),
                password: Password::parse(PASSWORD).unwrap(),
                scope: None,
                audience: None,
            };
            let from = Requester::command_line();
            let mut login = std::pin::pin!(app.service.sessions.log_in(&caller, login, &from));
            let mut left = polls;
            // The login is dropped at its next wake-up after `polls` polls, before it reads the result that woke it.
            let outcome = std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(None);
                }
                left -= 1;
                login.as_mut().poll(context).map(Some)
            });
            if let Some(outcome) = outcome.await {
                outcome.unwrap();
                (polls, completed) = (0, completed + 1);
            }
        }
        assert!(ended().await > 0, "a login was dropped after its session was opened");
        let live = app.service.sessions.sessions_of_user(app.user_id(USER).await, None, 100).await.unwrap().sessions;
        assert_eq!(live.len(), completed, "those of the logins that were not dropped");
        assert_eq!(app.audit("login.failed").await, [Value::Null; 0]);
    }
}
