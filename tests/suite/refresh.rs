//! `POST /v1/refresh`: rotation, retries, reuse, and the end of a session (security.md group R).

use std::time::Duration;

use countersign::domain::{Audience, ClientId, ClientSettings, Grant, Grants, Role, ScopeSet};
use countersign::service::{ClientError, Requester};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::claims_of;
use crate::support::sessions::*;
use crate::support::store::Dice;

const REUSED: (u16, &str) = (401, "refresh_token_reused");
const INVALID: (u16, &str) = (401, "invalid_refresh_token");
const MILLISECOND: Duration = Duration::from_millis(1);

/// The refusal of a refresh on the built-in client.
async fn refusal(app: &TestApp, token: &str) -> (u16, &'static str) {
    let answer = app.refresh(token).await;
    is_private(&answer);
    match error_of(answer).await {
        (401, code) if code == REUSED.1 => REUSED,
        (401, code) if code == INVALID.1 => INVALID,
        other => panic!("{other:?}"),
    }
}

/// The number of statements of a kind that were sent to the database.
async fn statements(app: &TestApp, name: &str) -> f64 {
    app.figure(&format!("countersign_database_seconds_count{{query=\"{name}\"}}")).await
}

on_both_engines! {
    /// README: "There is no row for an access token and none for a refresh."
    async fn r1_refreshes_tokens_and_introspections_add_no_row(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let worker = app.confidential("worker", machine(&[], "")).await;
        let mut session = app.log_in().await;
        let store = app.database.open().await;
        let before = store.row_counts().await.unwrap();
        for _ in 0..5 {
            session = tokens(app.refresh(&session.refresh_token).await).await;
            let token = app.token_of(&worker).await.access_token;
            assert!(app.is_active(&session.access_token).await && app.is_active(&token).await);
        }
        assert_eq!(store.row_counts().await.unwrap(), before);
    }

    async fn a_refresh_returns_the_next_pair_of_the_same_session(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        app.advance(Duration::from_secs(100)).await;
        let answer = app.refresh(&first.refresh_token).await;
        is_private(&answer);
        let second = tokens(answer).await;
        assert_eq!((&second.session_id, second.expires_in, second.refresh_expires_in), (&first.session_id, 300, 14 * 86_400));
        assert_ne!(second.refresh_token, first.refresh_token);
        let (before, after) = (claims_of(&first.access_token), claims_of(&second.access_token));
        for claim in ["iss", "sub", "aud", "client_id", "sid", "auth_time", "amr", "roles"] {
            assert_eq!(before[claim], after[claim], "{claim}");
        }
        assert_ne!(before["jti"], after["jti"]);
        assert_eq!(after["iat"].as_i64().unwrap() - before["iat"].as_i64().unwrap(), 100);
        assert!(app.is_active(&first.access_token).await, "the access token of before lives on to its end");
        assert_eq!(app.figure("countersign_refreshes_total{result=\"rotated\"}").await, 1.0);
    }

    async fn r5_a_refresh_is_one_statement_and_a_second_only_if_the_token_may_be_too_long(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let audiences = ["a", "b", "c"].map(|name| Audience::parse(name).unwrap()).to_vec();
        app.client("app", ClientSettings { audiences, ..application("read write") }).await;
        let log_in = async |more: Value| {
            let mut login = json!({"username": USER, "password": PASSWORD, "client_id": "app"});
            login.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            tokens(app.login(&login).await).await.refresh_token
        };
        let asked = async || (statements(&app, "session_rotate").await, statements(&app, "session_read").await);
        for (more, audience) in [(json!({}), json!(["a", "b", "c"])), (json!({"audience": "b"}), json!("b"))] {
            let (token, before) = (log_in(more).await, asked().await);
            let answer = tokens(app.refresh_on("app", &token).await).await;
            assert_eq!(claims_of(&answer.access_token)["aud"], audience);
            assert_eq!(asked().await, (before.0 + 1.0, before.1), "{audience}");
        }
        // A session with other audiences than the client is read before it is rotated.
        let token = log_in(json!({})).await;
        let audiences = ["a", "c"].map(|name| Audience::parse(name).unwrap()).to_vec();
        let id = ClientId::parse("app").unwrap();
        let edit = |settings| Ok::<_, ClientError>(ClientSettings { audiences: audiences.clone(), ..settings });
        app.service.clients.change_client(&id, edit, None, &Requester::command_line()).await.unwrap();
        let before = asked().await;
        let answer = tokens(app.refresh_on("app", &token).await).await;
        assert_eq!(claims_of(&answer.access_token)["aud"], json!(["a", "c"]));
        assert_eq!(asked().await, (before.0 + 2.0, before.1 + 1.0));
    }

    async fn a_refreshed_token_has_the_users_current_roles(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        let roles = vec![Role::parse("writer").unwrap()];
        app.service.users.set_roles(app.user_id(USER).await, roles, &Requester::command_line()).await.unwrap();
        assert_eq!(claims_of(&app.refreshed(&first.refresh_token).await.access_token)["roles"], json!(["writer"]));
    }

    async fn r1_an_invalid_refresh_token_is_refused_without_a_statement(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.refresh_token;
        let looks = async || (statements(&app, "session_rotate").await, statements(&app, "session_read").await);
        let before = looks().await;
        let flipped: String = token.chars().map(|char| if char.is_lowercase() { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }).collect();
        let mut near = vec![String::new(), "x".into(), flipped, format!("{token}A"), format!("{token} "), format!(" {token}"), token[6..].to_owned()];
        near.extend((0..token.len()).step_by(7).map(|end| token[..end].to_owned()));
        let mut dice = Dice::new(1);
        for _ in 0..60 {
            let mut bytes = token.clone().into_bytes();
            let place = 6 + dice.below(bytes.len() as u64 - 6) as usize;
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            near.push(String::from_utf8(bytes).unwrap());
        }
        for text in near {
            assert_eq!(refusal(&app, &text).await, INVALID, "{text}");
        }
        assert_eq!(looks().await, before, "the database was not asked");
        assert_eq!(app.refresh(&token).await.status(), 200, "and nothing was consumed");
    }

    async fn the_refusal_hints_at_a_missing_client_id(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        let own = tokens(app.login(&json!({"username": USER, "password": PASSWORD, "client_id": "app"})).await).await;
        let unnamed: Value = app.refresh(&own.refresh_token).await.json().await.unwrap();
        assert!(unnamed["detail"].as_str().unwrap().contains("client_id"), "{unnamed}");
        let garbage: Value = app.refresh("cs_rt_garbage").await.json().await.unwrap();
        assert_eq!(garbage["detail"], unnamed["detail"], "and says the same of every token");
        let named: Value = app.refresh_on("app", "cs_rt_garbage").await.json().await.unwrap();
        assert_eq!(named["detail"], Value::Null);
        assert_eq!(app.refresh_on("app", &own.refresh_token).await.status(), 200, "R7: the error cost nothing");
    }

    async fn r3_a_token_of_any_older_generation_ends_the_session_on_every_replica_with_one_event(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let sessions = Sessions::of(&app).await;
        let mut dice = Dice::new(3);
        for round in 1..=8 {
            let mut chain = vec![sessions.open(&app).await];
            let mut access = Vec::new();
            for _ in 0..5 {
                app.advance(Duration::from_secs(11)).await;
                let next = app.refreshed(chain.last().unwrap()).await;
                chain.push(next.refresh_token);
                access.push(next.access_token);
            }
            other.sync().await;
            assert!(other.is_active(&access[4]).await);
            // The generation before the current one is still within the window. Every older one was superseded too long
            // ago.
            let old = dice.below(4) as usize;
            assert_eq!(refusal(&app, &chain[old]).await, REUSED, "round {round}, generation {old}");
            other.sync().await;
            for replica in [&app, &other] {
                for token in &access {
                    assert!(!replica.is_active(token).await, "round {round}");
                }
                assert_eq!(refusal(replica, &chain[5]).await, INVALID);
                assert_eq!(refusal(replica, &chain[old]).await, REUSED, "and says so again");
            }
            assert_eq!(app.audit("session.reused").await.len(), round, "exactly one event");
        }
        let event = &app.audit("session.reused").await[0];
        let detail = json!({"address": "127.0.0.1", "reason": "reused"});
        assert_eq!((&event["client"], &event["detail"]), (&json!("countersign"), &detail));
        assert!(event["subject"].as_str().unwrap().starts_with("ses_") && event["request_id"].is_string());
    }

    async fn r4_a_retry_gets_the_same_pair_from_any_replica_until_the_window_closes(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let first = app.log_in().await;
        app.advance(Duration::from_millis(1700)).await;
        let second = app.refreshed(&first.refresh_token).await;
        for (wait, replica) in [(0, &other), (4, &app), (5, &other), (1, &app), (0, &other)] {
            app.clock.advance(Duration::from_secs(wait));
            other.sync().await;
            app.sync().await;
            let retried = replica.refreshed(&first.refresh_token).await;
            assert_eq!(retried.refresh_token, second.refresh_token);
            assert_eq!(marks(&retried.access_token), marks(&second.access_token));
            assert!(replica.is_active(&retried.access_token).await);
        }
        // Ten seconds have passed to the millisecond.
        app.advance(MILLISECOND).await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        assert_eq!(refusal(&other, &second.refresh_token).await, INVALID);
    }

    async fn r4_a_retry_reports_the_remaining_lifetime_of_its_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        app.advance(Duration::from_secs(7)).await;
        let retried = app.refreshed(&first.refresh_token).await;
        assert_eq!((second.expires_in, retried.expires_in), (300, 293));
        assert_eq!(second.refresh_expires_in - retried.refresh_expires_in, 7);
    }

    async fn r4_three_tabs_with_copies_of_one_token_all_stay_logged_in(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        let third = other.refreshed(&second.refresh_token).await;
        for wait in [1, 4, 5] {
            app.clock.advance(Duration::from_secs(wait));
            for replica in [&app, &other] {
                replica.sync().await;
                for stale in [&first.refresh_token, &second.refresh_token] {
                    let again = replica.refreshed(stale).await;
                    assert_eq!(again.refresh_token, third.refresh_token);
                    assert_eq!(marks(&again.access_token), marks(&third.access_token));
                }
            }
        }
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
        assert_eq!(Sessions::of(&app).await.state_of(&third.refresh_token).await, (2, true), "copies rotate nothing");
        // The window of the first token has closed, to the millisecond.
        app.advance(MILLISECOND).await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        assert_eq!(refusal(&app, &third.refresh_token).await, INVALID);
    }

    async fn r4_a_busy_session_answers_copies_within_the_window_and_ends_at_a_copy_twice_as_old(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mut chain = vec![app.log_in().await.refresh_token];
        for _ in 0..40 {
            app.advance(Duration::from_secs(1)).await;
            chain.push(app.refreshed(chain.last().unwrap()).await.refresh_token);
            let current = chain.last().unwrap();
            for stale in chain.iter().rev().skip(1).take(11) {
                assert_eq!(&app.refreshed(stale).await.refresh_token, current);
            }
        }
        // Superseded 21 seconds ago.
        assert_eq!(refusal(&app, &chain[chain.len() - 23]).await, REUSED);
        assert_eq!(refusal(&app, chain.last().unwrap()).await, INVALID);
    }

    async fn r4_a_retry_whose_access_token_has_expired_rotates_the_current_token(database: TestDatabase) {
        let settings = "[tokens]\naccess_ttl = \"30s\"\n[refresh]\nretry_window = \"60s\"\n";
        let app = TestApp::start_with(database, settings).await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        app.advance(Duration::from_secs(29)).await;
        let retried = app.refreshed(&first.refresh_token).await;
        assert_eq!((&retried.refresh_token, retried.expires_in), (&second.refresh_token, 1));
        app.advance(Duration::from_secs(1)).await;
        let third = app.refreshed(&first.refresh_token).await;
        assert_eq!(third.expires_in, 30);
        assert!(app.is_active(&third.access_token).await);
        for stale in [&first.refresh_token, &second.refresh_token] {
            assert_eq!(app.refreshed(stale).await.refresh_token, third.refresh_token);
        }
        assert_eq!(Sessions::of(&app).await.state_of(&third.refresh_token).await, (2, true), "once");
    }

    async fn r3_a_refused_token_is_refused_again_from_memory(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let asked = async || statements(&app, "session_rotate").await + statements(&app, "session_read").await;
        let first = app.log_in().await;
        app.advance(Duration::from_secs(20)).await;
        let second = app.refreshed(&first.refresh_token).await;
        app.advance(Duration::from_secs(20)).await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        let before = asked().await;
        for _ in 0..20 {
            assert_eq!(refusal(&app, &first.refresh_token).await, REUSED, "the cause is remembered");
            assert_eq!(refusal(&app, &second.refresh_token).await, INVALID);
            let narrowed = json!({"refresh_token": first.refresh_token, "scope": "read"});
            assert_eq!(error_of(app.post_json("/v1/refresh", &narrowed).send().await.unwrap()).await.1, REUSED.1);
        }
        assert_eq!(asked().await, before);
        // A live session is not affected, and the database is queried again later.
        let other = app.log_in().await;
        app.refreshed(&other.refresh_token).await;
        app.advance(Duration::from_secs(31)).await;
        let before = asked().await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        assert!(asked().await > before);
    }

    async fn r4_a_window_of_zero_makes_every_second_use_reuse(database: TestDatabase) {
        let app = TestApp::start_with(database, "[refresh]\nretry_window = \"0s\"\n").await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        let third = app.refreshed(&second.refresh_token).await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
        assert!(!app.is_active(&third.access_token).await);
    }

    async fn r4_a_window_of_a_minute_is_open_for_a_minute(database: TestDatabase) {
        let app = TestApp::start_with(database, "[refresh]\nretry_window = \"60s\"\n").await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        app.advance(Duration::from_secs(60)).await;
        assert_eq!(app.refreshed(&first.refresh_token).await.refresh_token, second.refresh_token);
        app.advance(MILLISECOND).await;
        assert_eq!(refusal(&app, &first.refresh_token).await, REUSED);
    }

    async fn r4_three_hundred_lost_answers_lose_no_session(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let (mut current, mut dice) = (app.log_in().await.refresh_token, Dice::new(5));
        for _ in 0..300 {
            let mut pick = || if dice.below(2) == 0 { &app } else { &other };
            let (lost, kept) = (pick().refresh(&current).await, pick().refreshed(&current).await);
            assert_eq!(lost.status(), 200);
            current = kept.refresh_token;
        }
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
        let sessions = Sessions::of(&app).await;
        assert_eq!(sessions.state_of(&current).await, (300, true), "one row, rotated once for each");
    }

    async fn r7_another_client_changes_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        app.client("thief", application("read")).await;
        let first = tokens(app.login(&json!({"username": USER, "password": PASSWORD, "client_id": "app"})).await).await;
        let second = tokens(app.refresh_on("app", &first.refresh_token).await).await;
        app.advance(Duration::from_secs(60)).await;
        let gateway = app.gateway();
        for token in [&first.refresh_token, &second.refresh_token] {
            for _ in 0..3 {
                assert_eq!(refusal(&app, token).await, INVALID);
                assert_eq!(error_of(app.refresh_on("thief", token).await).await, (401, INVALID.1.into()));
                let as_gateway = app.post_json("/v1/refresh", &json!({"refresh_token": token}));
                let as_gateway = as_gateway.basic_auth(&gateway.id, Some(&gateway.secret)).send().await.unwrap();
                assert_eq!(error_of(as_gateway).await, (403, "unauthorized_client".into()));
            }
        }
        assert!(app.is_active(&second.access_token).await);
        assert_eq!(tokens(app.refresh_on("app", &second.refresh_token).await).await.session_id, first.session_id);
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
    }

    async fn r8_a_session_expires_when_idle_and_each_refresh_extends_it(database: TestDatabase) {
        let app = TestApp::start_with(database, "[sessions]\nidle_ttl = \"1h\"\nabsolute_ttl = \"10h\"\n").await;
        let mut current = app.log_in().await;
        for _ in 0..2 {
            assert_eq!(current.refresh_expires_in, 3600);
            app.advance(Duration::from_secs(3600) - MILLISECOND).await;
            current = app.refreshed(&current.refresh_token).await;
        }
        app.advance(Duration::from_secs(3600)).await;
        assert_eq!(refusal(&app, &current.refresh_token).await, INVALID);
        assert_eq!(app.figure("countersign_refreshes_total{result=\"expired\"}").await, 1.0);
    }

    async fn r8_a_refresh_never_extends_the_absolute_lifetime(database: TestDatabase) {
        let app = TestApp::start_with(database, "[sessions]\nidle_ttl = \"1h\"\nabsolute_ttl = \"2h\"\n").await;
        let mut current = app.log_in().await;
        for left in [4800, 2400, 0] {
            app.advance(Duration::from_secs(2400)).await;
            if left == 0 {
                break;
            }
            current = app.refreshed(&current.refresh_token).await;
            assert_eq!(current.refresh_expires_in, 3600.min(left));
        }
        assert_eq!(refusal(&app, &current.refresh_token).await, INVALID);
    }

    async fn r9_a_disabled_deleted_or_logged_out_user_cannot_refresh(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let sessions = Sessions::of(&app).await;
        let (first, second) = (sessions.open(&app).await, sessions.open(&app).await);
        app.set_enabled(USER, false).await;
        // The other replica has not polled the entry yet: the database decides.
        assert_eq!(refusal(&other, &first).await, INVALID);
        app.set_enabled(USER, true).await;
        assert_eq!(refusal(&app, &second).await, INVALID, "what ended stays ended");
        let third = sessions.open(&app).await;
        app.revoke("user", &app.user_id(USER).await.to_string()).await;
        assert_eq!(refusal(&other, &third).await, INVALID);
        let fourth = sessions.open(&app).await;
        app.service.users.delete_user(app.user_id(USER).await, &Requester::command_line()).await.unwrap();
        assert_eq!(refusal(&other, &fourth).await, INVALID);
    }

    async fn r9_a_client_that_was_disabled_or_lost_the_grant_cannot_refresh(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        let (login, id) = (json!({"username": USER, "password": PASSWORD, "client_id": "app"}), ClientId::parse("app").unwrap());
        let first = tokens(app.login(&login).await).await;
        app.change_client("app", |settings| settings.grants = Grants::new([Grant::PasswordLogin])).await;
        assert_eq!(error_of(app.refresh_on("app", &first.refresh_token).await).await, (403, "unauthorized_client".into()));
        app.change_client("app", |settings| settings.grants = application("").grants).await;
        let second = tokens(app.refresh_on("app", &first.refresh_token).await).await;
        app.service.clients.set_client_enabled(&id, false, &Requester::command_line()).await.unwrap();
        assert_eq!(error_of(app.refresh_on("app", &second.refresh_token).await).await, (401, "invalid_client".into()));
        app.service.clients.set_client_enabled(&id, true, &Requester::command_line()).await.unwrap();
        assert_eq!(error_of(app.refresh_on("app", &second.refresh_token).await).await, (401, INVALID.1.into()));
    }

    async fn r9_the_next_token_lacks_scopes_and_audiences_that_the_client_lost(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let audiences = |names: &[&str]| names.iter().map(|name| Audience::parse(name).unwrap()).collect::<Vec<_>>();
        let settings = ClientSettings { audiences: audiences(&["a", "b", "c"]), ..application("read write") };
        app.client("app", settings).await;
        let login = json!({"username": USER, "password": PASSWORD, "client_id": "app"});
        let mut current = tokens(app.login(&login).await).await;
        let refresh = async |current: &str| tokens(app.refresh_on("app", current).await).await;
        app.change_client("app", |settings| {
            settings.scopes = ScopeSet::parse("read admin").unwrap();
            settings.audiences = audiences(&["b", "c", "d"]);
        }).await;
        current = refresh(&current.refresh_token).await;
        let claims = claims_of(&current.access_token);
        assert_eq!((current.scope.as_str(), &claims["aud"]), ("read", &json!(["b", "c"])), "narrowing only");
        // None of the session's audiences remains: refused, and no token is consumed.
        app.change_client("app", |settings| settings.audiences = audiences(&["d"])).await;
        for _ in 0..3 {
            assert_eq!(error_of(app.refresh_on("app", &current.refresh_token).await).await, (401, INVALID.1.into()));
            app.advance(Duration::from_secs(60)).await;
        }
        app.change_client("app", |settings| settings.audiences = audiences(&["a", "d"])).await;
        current = refresh(&current.refresh_token).await;
        assert_eq!(claims_of(&current.access_token)["aud"], json!("a"), "what was granted at login is not forgotten");
        // A client without its own audiences may have the default audience only.
        app.change_client("app", |settings| settings.audiences = Vec::new()).await;
        assert_eq!(error_of(app.refresh_on("app", &current.refresh_token).await).await, (401, INVALID.1.into()));
    }

    async fn r9_a_refresh_may_narrow_the_scope_and_never_widen_it(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read write list")).await;
        let login = json!({"username": USER, "password": PASSWORD, "client_id": "app", "scope": "read write"});
        let first = tokens(app.login(&login).await).await;
        let ask = |token: &str, scope: &str| {
            app.post_json("/v1/refresh", &json!({"refresh_token": token, "client_id": "app", "scope": scope}))
        };
        let second = tokens(ask(&first.refresh_token, "read").send().await.unwrap()).await;
        assert_eq!((second.scope.as_str(), &claims_of(&second.access_token)["scope"]), ("read", &json!("read")));
        for wide in ["read list", "Read", "admin"] {
            let refused = ask(&second.refresh_token, wide).send().await.unwrap();
            assert_eq!(error_of(refused).await, (400, "invalid_scope".into()), "{wide}");
        }
        let third = tokens(ask(&second.refresh_token, "").send().await.unwrap()).await;
        assert_eq!(third.scope, "read write", "a token is narrowed, not the session");
        // A retry cannot widen either, and reuse is detected whatever the requested scope.
        assert_eq!(error_of(ask(&second.refresh_token, "read list").send().await.unwrap()).await.0, 400);
        app.advance(Duration::from_secs(11)).await;
        assert_eq!(error_of(ask(&first.refresh_token, "read list").send().await.unwrap()).await, (401, REUSED.1.into()));
        assert_eq!(error_of(ask(&third.refresh_token, "read").send().await.unwrap()).await, (401, INVALID.1.into()));
        assert_eq!(app.audit("session.reused").await.len(), 1);
    }

    async fn r12_the_sessions_of_a_user_are_bounded_and_the_least_recently_used_is_deleted(database: TestDatabase) {
        let app = TestApp::start_with(database, "[sessions]\nmax_per_user = 3\n").await;
        let mut logins = Vec::new();
        for _ in 0..3 {
            logins.push(app.log_in().await);
            app.advance(Duration::from_secs(1)).await;
        }
        logins[0] = app.refreshed(&logins[0].refresh_token).await;
        app.advance(Duration::from_secs(1)).await;
        logins.push(app.log_in().await);
        let mut alive = Vec::new();
        for login in &logins {
            alive.push(app.is_active(&login.access_token).await);
        }
        assert_eq!(alive, [true, false, true, true]);
        assert_eq!(refusal(&app, &logins[1].refresh_token).await, INVALID);
        assert_eq!(app.refresh(&logins[0].refresh_token).await.status(), 200);
    }
}
