//! `POST /oauth2/token`: `client_credentials` and `refresh_token` (RFC 6749).

use std::time::Duration;

use countersign::domain::{Audience, ClientKind, ClientSettings, Grant, Grants, ScopeSet};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, Tokens, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::{Credentials, claims_of, header, verified_claims};
use crate::support::sessions::*;

/// A confidential client that logs users in.
fn portal() -> ClientSettings {
    ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        scopes: ScopeSet::parse("read write").unwrap(),
        ..ClientSettings::new(ClientKind::Confidential)
    }
}

async fn log_in_on(app: &TestApp, client: &Credentials) -> Tokens {
    let login = json!({"username": USER, "password": PASSWORD, "client_id": client.id});
    tokens(app.post_json("/v1/login", &login).basic_auth(&client.id, Some(&client.secret)).send().await.unwrap()).await
}

fn refresh(app: &TestApp, client: &Credentials, token: &str) -> RequestBuilder {
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    app.post_form("/oauth2/token", &form).basic_auth(&client.id, Some(&client.secret))
}

/// `error` of a refusal with the headers that every error of this endpoint carries (RFC 6749 §5.2).
async fn refusal(answer: Response) -> (u16, String) {
    assert_eq!((header(&answer, "cache-control"), header(&answer, "content-type")), ("no-store", "application/json"));
    assert!(!header(&answer, "x-request-id").is_empty());
    assert_eq!(answer.status() == 401, header(&answer, "www-authenticate").starts_with("Basic realm="));
    error_of(answer).await
}

on_both_engines! {
    async fn client_credentials_issues_a_token_without_a_session_or_a_statement(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["https://api.example"], "read write")).await;
        let answer = app.token_request(&robot, &[]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "no-store"));
        let body: Value = answer.json().await.unwrap();
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["access_token", "expires_in", "scope", "token_type"], "RFC 6749 §4.4.3: no refresh token");
        let claims = verified_claims(body["access_token"].as_str().unwrap(), &app.jwks().await).unwrap();
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("robot"), &json!("robot")));
        assert_eq!((&claims["scope"], &claims["aud"]), (&json!("read write"), &json!("https://api.example")));
        assert_eq!(claims["sid"], Value::Null);
        let mut seen = std::collections::HashSet::from([claims["jti"].clone()]);
        crate::support::outage::take_tables_away(&app.database).await;
        for _ in 0..20 {
            assert!(seen.insert(claims_of(&app.token_of(&robot).await.access_token)["jti"].clone()), "T18: each its own jti");
        }
        crate::support::outage::bring_tables_back(&app.database).await;
    }

    async fn scope_and_audience_are_limited_to_those_of_the_client(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["a", "b"], "read write")).await;
        let said = async |more: &[(&str, &str)]| {
            let claims = claims_of(&tokens(app.token_request(&robot, more).await).await.access_token);
            (claims["aud"].clone(), claims["scope"].clone())
        };
        assert_eq!(said(&[]).await, (json!(["a", "b"]), json!("read write")));
        assert_eq!(said(&[("audience", "b"), ("scope", "read")]).await, (json!("b"), json!("read")));
        assert_eq!(said(&[("resource", "a")]).await.0, json!("a"), "RFC 8707");
        assert_eq!(said(&[("resource", "a"), ("audience", "a")]).await.0, json!("a"));
        assert_eq!(said(&[("scope", ""), ("audience", "")]).await.1, json!("read write"), "RFC 6749 §3.2: empty is omitted");
        for (more, code) in [
            (vec![("scope", "admin")], "invalid_scope"),
            (vec![("scope", "read  write")], "invalid_scope"),
            (vec![("scope", "read\"")], "invalid_scope"),
            (vec![("audience", "c")], "invalid_target"),
            (vec![("audience", "a b")], "invalid_target"),
            (vec![("audience", "a"), ("resource", "b")], "invalid_target"),
        ] {
            assert_eq!(refusal(app.token_request(&robot, &more).await).await, (400, code.into()), "{more:?}");
        }
        let long = "x".repeat(1025);
        assert_eq!(refusal(app.token_request(&robot, &[("scope", &long)]).await).await.0, 400, "H5");
    }

    async fn only_the_clients_grants_are_accepted_and_there_is_no_password_grant(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["a"], "")).await;
        let portal = app.confidential("portal", portal()).await;
        app.client("app", application("read")).await;
        let as_client = |client: &Credentials, form: &[(&str, &str)]| {
            app.post_form("/oauth2/token", form).basic_auth(&client.id, Some(&client.secret)).send()
        };
        for (grant, code) in [("password", "unsupported_grant_type"), ("authorization_code", "unsupported_grant_type"), ("", "invalid_request"), ("Client_Credentials", "unsupported_grant_type")] {
            let form = [("grant_type", grant), ("username", USER), ("password", PASSWORD)];
            assert_eq!(refusal(as_client(&robot, &form).await.unwrap()).await, (400, code.into()), "RFC 9700 §2.4: {grant}");
        }
        assert_eq!(refusal(as_client(&robot, &[("scope", "a")]).await.unwrap()).await, (400, "invalid_request".into()));
        let form = [("grant_type", "client_credentials")];
        assert_eq!(refusal(as_client(&portal, &form).await.unwrap()).await, (400, "unauthorized_client".into()));
        let public = [("grant_type", "client_credentials"), ("client_id", "app")];
        assert_eq!(refusal(app.post_form("/oauth2/token", &public).send().await.unwrap()).await, (400, "unauthorized_client".into()));
        let form = [("grant_type", "refresh_token"), ("refresh_token", "x")];
        assert_eq!(refusal(as_client(&robot, &form).await.unwrap()).await, (400, "unauthorized_client".into()));
        assert_eq!(refusal(as_client(&portal, &[("grant_type", "refresh_token")]).await.unwrap()).await, (400, "invalid_request".into()));
    }

    async fn the_client_is_authenticated_before_its_parameters_are_checked(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["a"], "")).await;
        let refused = async |request: RequestBuilder| refusal(request.send().await.unwrap()).await;
        let form = [("grant_type", "nonsense")];
        let invalid = (401, "invalid_client".to_owned());
        assert_eq!(refused(app.post_form("/oauth2/token", &form)).await, invalid);
        assert_eq!(refused(app.post_form("/oauth2/token", &form).basic_auth("robot", Some("wrong"))).await, invalid);
        assert_eq!(refused(app.post_form("/oauth2/token", &form).basic_auth("nobody", Some(&robot.secret))).await, invalid);
        assert_eq!(refused(app.post_form("/oauth2/token", &[("grant_type", "client_credentials"), ("client_id", "robot")])).await, invalid);
        let post = [("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", &robot.secret)];
        assert_eq!(app.post_form("/oauth2/token", &post).send().await.unwrap().status(), 200, "client_secret_post");
        let both = app.post_form("/oauth2/token", &post).basic_auth("robot", Some(&robot.secret));
        assert_eq!(both.send().await.unwrap().status(), 200, "two that agree");
        let differ = app.post_form("/oauth2/token", &post).basic_auth("robot", Some("wrong"));
        assert_eq!(refused(differ).await, (400, "invalid_request".into()), "H3");
    }

    async fn r7_a_refresh_token_is_accepted_from_its_own_client_only(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let (portal, thief) = (app.confidential("portal", portal()).await, app.confidential("thief", portal()).await);
        app.client("app", application("read")).await;
        let first = log_in_on(&app, &portal).await;
        let second = tokens(refresh(&app, &portal, &first.refresh_token).send().await.unwrap()).await;
        assert_eq!((&second.session_id, second.scope.as_str()), (&first.session_id, "read write"));
        app.advance(Duration::from_secs(60)).await;
        for token in [&first.refresh_token, &second.refresh_token] {
            let foreign = refusal(refresh(&app, &thief, token).send().await.unwrap()).await;
            assert_eq!(foreign, (400, "invalid_grant".into()));
            let public = [("grant_type", "refresh_token"), ("refresh_token", token.as_str()), ("client_id", "app")];
            assert_eq!(refusal(app.post_form("/oauth2/token", &public).send().await.unwrap()).await, (400, "invalid_grant".into()));
            let unproven = [("grant_type", "refresh_token"), ("refresh_token", token.as_str()), ("client_id", "portal")];
            assert_eq!(refusal(app.post_form("/oauth2/token", &unproven).send().await.unwrap()).await, (401, "invalid_client".into()));
            assert_eq!(error_of(app.refresh_on("portal", token).await).await, (401, "invalid_client".into()), "nor by the other door");
        }
        assert!(app.is_active(&second.access_token).await);
        assert_eq!(tokens(refresh(&app, &portal, &second.refresh_token).send().await.unwrap()).await.session_id, first.session_id);
    }

    async fn r3_r4_both_refresh_endpoints_follow_the_same_rules(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let first = log_in_on(&app, &portal).await;
        let second = tokens(refresh(&app, &portal, &first.refresh_token).send().await.unwrap()).await;
        let body = json!({"refresh_token": first.refresh_token});
        let other_door = app.post_json("/v1/refresh", &body).basic_auth(&portal.id, Some(&portal.secret));
        let retried = tokens(other_door.send().await.unwrap()).await;
        assert_eq!(retried.refresh_token, second.refresh_token);
        assert_eq!(marks(&retried.access_token), marks(&second.access_token));
        app.advance(Duration::from_secs(11)).await;
        let reused = refusal(refresh(&app, &portal, &first.refresh_token).send().await.unwrap()).await;
        assert_eq!(reused, (400, "invalid_grant".into()));
        assert!(!app.is_active(&second.access_token).await);
        assert_eq!(refusal(refresh(&app, &portal, &second.refresh_token).send().await.unwrap()).await, reused);
        let event = &app.audit("session.reused").await;
        assert_eq!((event.len(), &event[0]["client"]), (1, &json!("portal")));
    }

    async fn r9_a_refresh_may_select_one_audience_and_different_tokens_have_different_jtis(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let audiences = ["a", "b"].map(|audience| Audience::parse(audience).unwrap()).to_vec();
        app.client("web", ClientSettings { audiences, ..application("read write") }).await;
        let first = app.log_in_on("web").await;
        let ask = async |more: &[(&str, &str)]| {
            let form = [("grant_type", "refresh_token"), ("refresh_token", first.refresh_token.as_str()), ("client_id", "web")];
            app.post_form("/oauth2/token", &[&form, more].concat()).send().await.unwrap()
        };
        assert_eq!(refusal(ask(&[("resource", "c")]).await).await, (400, "invalid_target".into()));
        assert_eq!(refusal(ask(&[("audience", "a"), ("resource", "b")]).await).await, (400, "invalid_target".into()));
        // No token was consumed (R5), and within the window each of these is a retry of the first (R4).
        let mut seen = Vec::new();
        for more in [&[("audience", "b")][..], &[("resource", "a")], &[], &[("scope", "read")], &[("audience", "b"), ("scope", "read")]] {
            let [once, again] = [tokens(ask(more).await).await, tokens(ask(more).await).await];
            let [once, again] = [claims_of(&once.access_token), claims_of(&again.access_token)];
            assert_eq!(once, again, "the same request, the same token");
            seen.push((once["aud"].clone(), once["scope"].clone(), once["jti"].to_string()));
        }
        let said: Vec<_> = seen.iter().map(|(audience, scope, _)| (audience.clone(), scope.clone())).collect();
        let all = json!(["a", "b"]);
        assert_eq!(said, [
            (json!("b"), json!("read write")), (json!("a"), json!("read write")), (all.clone(), json!("read write")),
            (all, json!("read")), (json!("b"), json!("read")),
        ]);
        let jtis: std::collections::HashSet<_> = seen.into_iter().map(|(_, _, jti)| jti).collect();
        assert_eq!(jtis.len(), 5);
    }

    async fn r9_several_resources_become_the_audiences_of_one_token_and_each_must_be_granted(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let audiences = ["a", "b", "c"];
        let robot = app.confidential("robot", machine(&audiences, "")).await;
        let web = audiences.map(|audience| Audience::parse(audience).unwrap()).to_vec();
        app.client("web", ClientSettings { audiences: web, ..application("") }).await;
        let first = app.log_in_on("web").await;
        let refresh = [("grant_type", "refresh_token"), ("refresh_token", first.refresh_token.as_str()), ("client_id", "web")];
        let resource = |names: &[&'static str]| names.iter().map(|name| ("resource", *name)).collect::<Vec<_>>();
        let by_robot = async |more: &[(&str, &str)]| app.token_request(&robot, more).await;
        let by_web = async |more: &[(&str, &str)]| app.post_form("/oauth2/token", &[&refresh, more].concat()).send().await.unwrap();
        for (asked, said) in [
            (&["b"][..], json!("b")),
            (&["c", "a"], json!(["a", "c"])),
            (&["a", "c", "a"], json!(["a", "c"])),
            (&["a", "b", "c"], json!(["a", "b", "c"])),
            (&[], json!(["a", "b", "c"])),
        ] {
            let asked = resource(asked);
            let of_robot = claims_of(&tokens(by_robot(&asked).await).await.access_token);
            let of_web = claims_of(&tokens(by_web(&asked).await).await.access_token);
            assert_eq!((&of_robot["aud"], &of_web["aud"]), (&said, &said), "{asked:?}");
        }
        let [one, other] = [&["a", "c"][..], &["c", "a"]].map(resource);
        let [one, other] = [tokens(by_web(&one).await).await, tokens(by_web(&other).await).await];
        let said = [&one, &other].map(|tokens| claims_of(&tokens.access_token));
        assert_eq!(said[0], said[1], "the order is no difference");
        let with_audience = [&resource(&["a", "b"])[..], &[("audience", "a")]].concat();
        for asked in [resource(&["a", "d"]), resource(&["d"]), resource(&["a", "b c"]), with_audience] {
            assert_eq!(refusal(by_robot(&asked).await).await, (400, "invalid_target".into()), "{asked:?}");
            assert_eq!(refusal(by_web(&asked).await).await, (400, "invalid_target".into()), "{asked:?}");
        }
        let twice = [("audience", "a"), ("audience", "a")];
        assert_eq!(refusal(by_robot(&twice).await).await, (400, "invalid_request".into()));
    }

    async fn r9_a_refresh_narrows_and_never_widens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let first = log_in_on(&app, &portal).await;
        let ask = |token: &str, scope: &str| {
            let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", scope)];
            app.post_form("/oauth2/token", &form).basic_auth(&portal.id, Some(&portal.secret)).send()
        };
        assert_eq!(refusal(ask(&first.refresh_token, "read admin").await.unwrap()).await, (400, "invalid_scope".into()));
        let second = tokens(ask(&first.refresh_token, "write").await.unwrap()).await;
        assert_eq!(second.scope, "write");
        assert_eq!(tokens(ask(&second.refresh_token, "").await.unwrap()).await.scope, "read write");
    }

    async fn h1_a_malformed_form_is_an_rfc_6749_error(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let robot = app.confidential("robot", machine(&["a"], "")).await;
        let send = |content_type: &str, body: Vec<u8>| {
            let request = app.request(reqwest::Method::POST, "/oauth2/token").header("content-type", content_type);
            request.basic_auth(&robot.id, Some(&robot.secret)).body(body).send()
        };
        const FORM: &str = "application/x-www-form-urlencoded";
        for (content_type, body) in [
            (FORM, "grant_type=client_credentials&grant_type=client_credentials"),
            (FORM, "grant_type=client_credentials&scope=a&%73cope=a"),
            (FORM, "grant_type=client_credentials&x=%zz"),
            (FORM, "grant_type=client_credentials&x=%ff"),
            (FORM, "grant_type=client_credentials&x=%00"),
            ("application/json", "{\"grant_type\":\"client_credentials\"}"),
            ("text/plain", "grant_type=client_credentials"),
        ] {
            let answer = send(content_type, body.into()).await.unwrap();
            assert_eq!(refusal(answer).await, (400, "invalid_request".into()), "{body}");
        }
        let large = format!("grant_type=client_credentials&x={}", "x".repeat(16 * 1024));
        assert_eq!(refusal(send(FORM, large.into()).await.unwrap()).await, (413, "invalid_request".into()));
        let fine = send("Application/X-WWW-Form-Urlencoded;charset=UTF-8", b"grant_type=client_credentials&unknown=1".to_vec());
        assert_eq!(fine.await.unwrap().status(), 200, "unknown parameters are ignored");
        let query = app.post_form("/oauth2/token?grant_type=client_credentials", &[]).basic_auth(&robot.id, Some(&robot.secret));
        assert_eq!(refusal(query.send().await.unwrap()).await.0, 400, "H2: the query string is no place for parameters");
    }

    async fn t9_a_client_that_0_1_0_gave_too_many_scopes_gets_a_token_with_fewer(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sprawl = app.confidential("sprawl", machine(&["api"], "one")).await;
        let audiences: Vec<_> = (0..60).map(|n| format!("{n:064}")).collect();
        app.database.tamper(&format!("UPDATE clients SET audiences = '{}' WHERE id = 'sprawl'", audiences.join(" "))).await;
        let other = app.beside(2, "").await;
        assert_eq!(refusal(other.token_request(&sprawl, &[]).await).await, (500, "server_error".into()));
        assert_eq!(other.token_request(&sprawl, &[("audience", &audiences[0])]).await.status(), 200);
    }
}
