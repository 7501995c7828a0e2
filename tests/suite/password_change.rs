//! `PUT /v1/me/password`, and which passwords may be set (security.md group P).

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, Tokens, USER, error_of, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::claims_of;
use crate::support::sessions::*;

const NEW: &str = "a new and longer password";

async fn change(app: &TestApp, bearer: &Tokens, current: &str, new: &str) -> Response {
    let body = json!({"current_password": current, "new_password": new});
    crate::support::secrets::used(current);
    crate::support::secrets::used(new);
    app.request(Method::PUT, "/v1/me/password").bearer_auth(&bearer.access_token).json(&body).send().await.unwrap()
}

on_both_engines! {
    async fn p12_every_other_session_ends_and_this_one_gets_new_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = app.beside(2, "").await;
        let (mine, elsewhere) = (app.log_in().await, other.log_in().await);
        let mine = app.refreshed(&mine.refresh_token).await;
        let answer = change(&app, &mine, PASSWORD, NEW).await;
        assert_eq!(answer.status(), 200);
        is_private(&answer);
        let new = tokens(answer).await;
        assert_eq!(new.session_id, mine.session_id);
        other.sync().await;
        for replica in [&app, &other] {
            assert!(replica.is_active(&new.access_token).await);
            for old in [&mine, &elsewhere] {
                assert!(!replica.is_active(&old.access_token).await);
                assert_eq!(error_of(replica.refresh(&old.refresh_token).await).await, (401, "invalid_refresh_token".into()));
            }
        }
        // A thief of the old refresh token can neither use it nor end the session with it.
        let next = app.refreshed(&new.refresh_token).await;
        assert_eq!(other.refreshed(&new.refresh_token).await.refresh_token, next.refresh_token, "R4 holds in the new family");
        assert!(app.is_active(&next.access_token).await);
        let jtis = [&mine, &new, &next].map(|tokens| claims_of(&tokens.access_token)["jti"].clone());
        assert!(jtis[0] != jtis[1] && jtis[1] != jtis[2]);
        assert_eq!(app.login(&json!({"username": USER, "password": PASSWORD})).await.status(), 401);
        assert_eq!(app.login(&json!({"username": USER, "password": NEW})).await.status(), 200);
        let events = app.audit("user.password_changed").await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["actor"], events[0]["subject"]);
    }

    async fn p12_the_current_password_is_required_and_wrong_ones_count_as_failed_logins(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits.pair]\nfree = 2\n").await;
        let mine = app.log_in().await;
        for _ in 0..2 {
            let answer = change(&app, &mine, "a wrong password", NEW).await;
            is_private(&answer);
            assert_eq!(error_of(answer).await, (401, "invalid_credentials".into()));
        }
        assert_eq!(error_of(app.login(&json!({"username": USER, "password": "a wrong password"})).await).await.0, 401);
        let hashed = app.hashed().await;
        let refused = change(&app, &mine, PASSWORD, NEW).await;
        is_private(&refused);
        assert_eq!(error_of(refused).await, (429, "too_many_attempts".into()));
        assert_eq!(app.hashed().await, hashed);
        assert_eq!(app.audit("login.failed").await.len(), 3);
        app.advance(Duration::from_secs(1)).await;
        assert_eq!(change(&app, &mine, PASSWORD, NEW).await.status(), 200);
        for _ in 0..3 {
            let wrong = json!({"username": USER, "password": "a wrong password"});
            assert_eq!(app.login(&wrong).await.status(), 401, "a success forgets the failures");
        }
    }

    async fn p4_a_common_new_password_is_refused_with_the_reason(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mine = app.log_in().await;
        let hashed = app.hashed().await;
        for weak in ["short", "elevenchars", "passwordpassword", "qwertyuiopasdf", "aaaaaaaaaaaaaaaa", "ada ada ada ada", "countersign-countersign"] {
            let answer = change(&app, &mine, PASSWORD, weak).await;
            is_private(&answer);
            let problem: Value = answer.json().await.unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("password_rejected")), "{weak}");
            assert_eq!(problem["errors"][0]["field"], "new_password");
            assert!(weak == "short" || !problem.to_string().contains(weak), "it is not repeated");
        }
        assert_eq!(app.hashed().await, hashed, "refused before anything is hashed");
        for bad in ["x".repeat(257), "long enough \u{202e} but odd".to_owned(), String::new()] {
            let problem: Value = change(&app, &mine, PASSWORD, &bad).await.json().await.unwrap();
            assert_eq!((&problem["code"], &problem["errors"][0]["field"]), (&json!("invalid_request"), &json!("new_password")));
        }
        assert!(app.is_active(&mine.access_token).await);
    }

    async fn p2_p3_the_whole_password_is_compared_in_its_canonical_form(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let varied: String = ('a'..='z').chain('0'..='9').cycle().zip("Zq-7".chars().cycle()).flat_map(|(a, b)| [a, b]).take(256).collect();
        let mut bearer = app.log_in().await;
        let mut present = PASSWORD.to_owned();
        let log_in = async |password: &str| app.login(&json!({"username": USER, "password": password})).await.status().as_u16();
        for length in [71, 72, 73, 256] {
            let new = &varied[..length];
            bearer = tokens(change(&app, &bearer, &present, new).await).await;
            assert_eq!((log_in(new).await, log_in(&new[..length - 1]).await), (200, 401), "{length}");
            present = new.to_owned();
        }
        let decomposed = "u\u{308}ber die Bru\u{308}cke \u{1F600}";
        tokens(change(&app, &bearer, &present, decomposed).await).await;
        for spelling in [decomposed, "über die Brücke \u{1F600}", "über\u{a0}die\u{3000}Brücke \u{1F600}"] {
            assert_eq!(log_in(spelling).await, 200, "{spelling}");
        }
        assert_eq!(log_in("Über die Brücke \u{1F600}").await, 401);
    }

    async fn p1_the_stored_hash_is_argon2id_with_its_own_salt(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sessions = Sessions::of(&app).await;
        let stored = async || sessions.store.users().credentials_by_id(app.user_id(USER).await).await.unwrap().unwrap().password_hash;
        let before = stored().await;
        let mine = app.log_in().await;
        let new = tokens(change(&app, &mine, PASSWORD, NEW).await).await;
        tokens(change(&app, &new, NEW, PASSWORD).await).await;
        let after = stored().await;
        for hash in [&before, &after] {
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        }
        assert_ne!(before, after);
    }

    async fn of_several_concurrent_password_changes_one_succeeds(database: TestDatabase) {
        let app = Arc::new(TestApp::start(database).await);
        let mine = app.log_in().await;
        let changes: Vec<_> = (0..4)
            .map(|number| {
                let (app, mine) = (Arc::clone(&app), mine.clone());
                tokio::spawn(async move { change(&app, &mine, PASSWORD, &format!("{NEW} {number}")).await.status().as_u16() })
            })
            .collect();
        let mut statuses = Vec::new();
        for change in changes {
            statuses.push(change.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401, 401, 401]);
        assert_eq!(app.audit("user.password_changed").await.len(), 1);
    }

    async fn a_password_change_that_cannot_be_written_changes_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mine = app.log_in().await;
        for (what, table) in [("BEFORE UPDATE", "users"), ("BEFORE UPDATE", "sessions"), ("BEFORE INSERT", "changes"), ("BEFORE INSERT", "audit")] {
            let broken = Broken::on(&app.database, what, table).await;
            let answer = change(&app, &mine, PASSWORD, NEW).await;
            assert_eq!(error_of(answer).await, (500, "internal".into()), "{table}");
            broken.mend().await;
            app.sync().await;
            assert!(app.is_active(&mine.access_token).await);
        }
        assert_eq!(app.login(&json!({"username": USER, "password": PASSWORD})).await.status(), 200);
        assert_eq!(app.refresh(&mine.refresh_token).await.status(), 200);
    }

    async fn setting_a_password_as_administrator_ends_every_session(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mine = app.log_in().await;
        let path = format!("/admin/v1/users/{}/password", app.user_id(USER).await);
        app.administer(Method::PUT, &path, Some(json!({"password": NEW}))).await;
        assert!(!app.is_active(&mine.access_token).await);
        assert_eq!(app.refresh(&mine.refresh_token).await.status(), 401);
        assert_eq!(app.login(&json!({"username": USER, "password": NEW})).await.status(), 200);
    }
}
