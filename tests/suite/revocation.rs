//! `POST /oauth2/revoke` (RFC 7009): a client revokes its own tokens only.

use countersign::domain::{ClientKind, ClientSettings, Grant, Grants};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, Tokens, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::forge::Forge;
use crate::support::judging::*;
use crate::support::outage;

/// Revokes as an authenticated client.
fn revoke(app: &TestApp, client: &Credentials, token: &str) -> RequestBuilder {
    app.post_form("/oauth2/revoke", &[("token", token)]).basic_auth(&client.id, Some(&client.secret))
}

/// A confidential client that logs users in and has its own token.
fn portal() -> ClientSettings {
    ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken, Grant::ClientCredentials]),
        ..ClientSettings::new(ClientKind::Confidential)
    }
}

async fn log_in_on(app: &TestApp, client: &Credentials) -> Tokens {
    let login = json!({"username": "ada", "password": PASSWORD, "client_id": client.id});
    tokens(app.post_json("/v1/login", &login).basic_auth(&client.id, Some(&client.secret)).send().await.unwrap()).await
}

/// All records that a revocation would write.
async fn rows(app: &TestApp) -> (Value, Value) {
    let live = app.administer(Method::GET, "/admin/v1/revocations", None).await;
    (live, app.administer(Method::GET, "/admin/v1/audit", None).await)
}

async fn is_done(request: RequestBuilder) {
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "no-store"));
    assert_eq!(answer.text().await.unwrap(), "");
}

on_both_engines! {
    async fn revoking_an_access_token_affects_only_that_token_and_at_once(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let (mine, other) = (log_in_on(&app, &portal).await, app.token_of(&portal).await);
        is_done(revoke(&app, &portal, &mine.access_token)).await;
        assert!(!app.is_active(&mine.access_token).await);
        assert!(app.is_active(&other.access_token).await);
        let refresh = json!({"refresh_token": mine.refresh_token, "client_id": "portal"});
        let refreshed = app.post_json("/v1/refresh", &refresh).basic_auth(&portal.id, Some(&portal.secret));
        let next = tokens(refreshed.send().await.unwrap()).await;
        assert!(app.is_active(&next.access_token).await, "the session goes on");
        let live = rows(&app).await.0;
        assert_eq!(live["revocations"].as_array().unwrap().len(), 1);
        assert_eq!(live["revocations"][0]["kind"], "jti");
        is_done(revoke(&app, &portal, &mine.access_token)).await;
        assert_eq!(rows(&app).await.0, live, "twice is once");
    }

    async fn i9_a_hundred_revocations_of_one_token_at_once_write_one_entry(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let token = app.token_of(&portal).await.access_token;
        let requests = (0..100).map(|_| is_done(revoke(&app, &portal, &token)));
        futures_util::future::join_all(requests).await;
        assert!(!app.is_active(&token).await);
        assert_eq!(rows(&app).await.0["revocations"].as_array().unwrap().len(), 1);
        assert_eq!(app.audit("token.revoked").await.len(), 1);
    }

    async fn l11_revocations_of_access_tokens_are_limited_per_client_and_those_of_sessions_are_not(database: TestDatabase) {
        let settings = "[limits.revocation]\nburst = 3\nper_minute = 60\n";
        let app = TestApp::start_with(database, settings).await;
        let portal = app.confidential("portal", portal()).await;
        let other = app.confidential("other", self::portal()).await;
        for _ in 0..3 {
            is_done(revoke(&app, &portal, &app.token_of(&portal).await.access_token)).await;
        }
        let mine = log_in_on(&app, &portal).await;
        let refused = revoke(&app, &portal, &mine.access_token).send().await.unwrap();
        assert_eq!(header(&refused, "retry-after"), "1");
        assert_eq!(error_of(refused).await, (429, "temporarily_unavailable".into()));
        assert!(app.is_active(&mine.access_token).await, "what is refused was not revoked");
        // Other clients, sessions, administrators, and tokens that are revoked already are not limited.
        is_done(revoke(&app, &other, &app.token_of(&other).await.access_token)).await;
        for _ in 0..5 {
            let session = log_in_on(&app, &portal).await;
            is_done(revoke(&app, &portal, &session.refresh_token)).await;
            is_done(revoke(&app, &portal, &session.access_token)).await;
            assert!(!app.is_active(&session.access_token).await);
        }
        app.revoke("session", &mine.session_id).await;
        app.advance(std::time::Duration::from_secs(1)).await;
        is_done(revoke(&app, &portal, &app.token_of(&portal).await.access_token)).await;
    }

    async fn i11_revoking_a_refresh_token_ends_its_session_and_access_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        for presented_generation in [0, 1] {
            let first = log_in_on(&app, &portal).await;
            let refresh = json!({"refresh_token": first.refresh_token, "client_id": "portal"});
            let refreshed = app.post_json("/v1/refresh", &refresh).basic_auth(&portal.id, Some(&portal.secret));
            let second = tokens(refreshed.send().await.unwrap()).await;
            let presented = [&first, &second][presented_generation];
            is_done(revoke(&app, &portal, &presented.refresh_token)).await;
            for token in [&first, &second] {
                assert!(!app.is_active(&token.access_token).await);
                let refresh = json!({"refresh_token": token.refresh_token, "client_id": "portal"});
                let refreshed = app.post_json("/v1/refresh", &refresh).basic_auth(&portal.id, Some(&portal.secret));
                assert_eq!(error_of(refreshed.send().await.unwrap()).await, (401, "invalid_refresh_token".into()));
            }
            is_done(revoke(&app, &portal, &presented.refresh_token)).await;
        }
    }

    async fn a_public_client_revokes_its_tokens_with_its_client_id(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", application("")).await;
        let mine = app.log_in_on("web").await;
        let form = |token| [("token", token), ("client_id", "web")];
        is_done(app.post_form("/oauth2/revoke", &form(mine.access_token.as_str()))).await;
        assert!(!app.is_active(&mine.access_token).await);
        is_done(app.post_form("/oauth2/revoke", &form(mine.refresh_token.as_str()))).await;
        assert_eq!(app.post_json("/v1/refresh", &json!({"refresh_token": mine.refresh_token, "client_id": "web"})).send().await.unwrap().status(), 401);
    }

    async fn i9_a_token_of_another_client_is_refused_and_stays_active(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        app.client("web", application("")).await;
        let foreign = app.log_in_on("web").await;
        let own = app.token_of(&portal).await.access_token;
        let before = rows(&app).await;
        for client in [&portal, &app.gateway()] {
            for token in [&foreign.access_token, &foreign.refresh_token] {
                assert_eq!(error_of(revoke(&app, client, token).send().await.unwrap()).await, (400, "unauthorized_client".into()));
            }
        }
        let web = app.post_form("/oauth2/revoke", &[("token", &own), ("client_id", "web")]);
        assert_eq!(error_of(web.send().await.unwrap()).await, (400, "unauthorized_client".into()));
        assert!(app.is_active(&foreign.access_token).await && app.is_active(&own).await);
        assert_eq!(rows(&app).await, before, "nothing was changed and nothing written");
    }

    async fn i9_an_unknown_expired_or_malformed_token_is_200_and_writes_no_row(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let victim = app.token_of(&portal).await.access_token;
        let expired = app.token_of(&portal).await.access_token;
        app.advance(std::time::Duration::from_secs(150)).await;
        let fresh = app.token_of(&portal).await.access_token;
        let mine = log_in_on(&app, &portal).await;
        let (signed, _) = victim.rsplit_once('.').unwrap();
        let (_, other_signature) = fresh.rsplit_once('.').unwrap();
        let forge = Forge::import(&app, &fresh).await;
        let mut gone = mine.refresh_token.clone();
        gone.pop();
        let before = rows(&app).await;
        app.advance(std::time::Duration::from_secs(149)).await;
        for garbage in [
            "x",
            "a.b.c",
            &"x".repeat(10_000),
            // A forged token with the victim's jti does not affect the victim.
            &format!("{signed}.{other_signature}"),
            &format!("{signed}."),
            &forge.under(&json!({"alg": "none", "kid": forge.kid, "typ": "at+jwt"})),
            "cs_rt_AAAA",
            &gone,
            &app.admin_key,
            &portal.secret,
        ] {
            is_done(revoke(&app, &portal, garbage)).await;
            assert!(app.is_active(&victim).await);
        }
        app.advance(std::time::Duration::from_secs(1)).await;
        is_done(revoke(&app, &portal, &expired)).await;
        assert_eq!(rows(&app).await, before);
        assert!(app.is_active(&mine.access_token).await, "the session of the truncated token goes on");
    }

    async fn i5_a_wrong_token_type_hint_still_finds_the_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        for hint in ["access_token", "refresh_token", "id_token", "", "ACCESS_TOKEN", "urn:x"] {
            for of in [|tokens: &Tokens| tokens.access_token.clone(), |tokens: &Tokens| tokens.refresh_token.clone()] {
                let mine = log_in_on(&app, &portal).await;
                let form = [("token", of(&mine)), ("token_type_hint", hint.to_owned())];
                let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
                is_done(app.post_form("/oauth2/revoke", &form).basic_auth(&portal.id, Some(&portal.secret))).await;
                assert!(!app.is_active(&mine.access_token).await, "{hint}");
            }
        }
    }

    async fn i1_an_unauthenticated_client_revokes_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let token = app.token_of(&portal).await.access_token;
        let post = |form: &[(&str, &str)]| app.post_form("/oauth2/revoke", form);
        for request in [
            post(&[("token", &token)]),
            post(&[("token", &token), ("client_id", "portal")]),
            post(&[("token", &token), ("client_id", "nobody")]),
            post(&[("token", &token)]).basic_auth("portal", Some("wrong")),
            post(&[("token", &token)]).bearer_auth(&token),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(header(&answer, "www-authenticate"), "Basic realm=\"countersign\", charset=\"UTF-8\"");
            assert_eq!(error_of(answer).await, (401, "invalid_client".into()));
        }
        let answer = post(&[]).basic_auth(&portal.id, Some(&portal.secret)).send().await.unwrap();
        assert_eq!(error_of(answer).await, (400, "invalid_request".into()));
        assert!(app.is_active(&token).await);
    }

    async fn i10_a_revocation_that_could_not_be_stored_is_503_and_the_token_stays_active(database: TestDatabase) {
        let app = TestApp::start_with(database, "[database]\nstatement_timeout = \"300ms\"\nacquire_timeout = \"300ms\"").await;
        let portal = app.confidential("portal", portal()).await;
        let mine = log_in_on(&app, &portal).await;
        let stopped = outage::stop_writes(&app.database).await;
        for token in [&mine.access_token, &mine.refresh_token] {
            let answer = revoke(&app, &portal, token).send().await.unwrap();
            assert_eq!((header(&answer, "retry-after"), header(&answer, "cache-control")), ("1", "no-store"));
            assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()));
            assert!(app.is_active(&mine.access_token).await, "200 is said only after the commit");
        }
        is_done(revoke(&app, &portal, "garbage")).await;
        drop(stopped);
        is_done(revoke(&app, &portal, &mine.access_token)).await;
        assert!(!app.is_active(&mine.access_token).await);
    }

    async fn a_replica_with_a_stale_view_does_not_confirm_a_revocation(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        outage::take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        assert_eq!(error_of(revoke(&app, &batch, &token).send().await.unwrap()).await, (503, "temporarily_unavailable".into()));
    }

    async fn t13_a_rewritten_signature_does_not_escape_the_revocation(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        let twin = crate::support::forge::es256_twin(&token);
        assert_ne!(twin, token);
        assert!(app.is_active(&twin).await, "it is the same token in another spelling");
        is_done(revoke(&app, &batch, &token)).await;
        assert!(!app.is_active(&twin).await && !app.is_active(&token).await);
    }
}
