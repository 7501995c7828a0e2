//! `POST /oauth2/introspect` (RFC 7662, RFC 9701): authorization, the answers, and how long they may be cached.

use std::time::Duration;

use countersign::domain::{Audience, ClientKind, ClientSettings, Grant, Grants, IntrospectRight, ScopeSet};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, application, error_of, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::*;
use crate::support::outage;

const MINUTE: Duration = Duration::from_secs(60);

/// Status, body, and every header except those that differ each time: all that could distinguish answers.
async fn appearance(answer: Response) -> (u16, Vec<String>, String) {
    let headers = header_lines(answer.headers());
    (answer.status().as_u16(), headers, answer.text().await.unwrap())
}

/// A public client that logs users in for one audience.
fn web(audience: &str, scopes: &str) -> ClientSettings {
    ClientSettings { audiences: vec![Audience::parse(audience).unwrap()], ..application(scopes) }
}

/// A confidential client that logs users in.
fn portal() -> ClientSettings {
    ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        ..ClientSettings::new(ClientKind::Confidential)
    }
}

on_both_engines! {
    async fn an_active_response_has_every_documented_member(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read write")).await;
        let token = app.log_in_on("web").await.access_token;
        let mut body = app.introspect(&token).await;
        let claims = claims_of(&token);
        for name in ["sub", "jti", "sid"] {
            assert_eq!(body[name], claims[name]);
            body[name] = json!("(varies)");
        }
        insta::allow_duplicates! { insta::assert_json_snapshot!(body, @r#"
        {
          "active": true,
          "amr": [
            "pwd"
          ],
          "aud": "https://api.example",
          "auth_time": 1800000000,
          "client_id": "web",
          "exp": 1800000300,
          "iat": 1800000000,
          "iss": "http://localhost:8080",
          "jti": "(varies)",
          "nbf": 1800000000,
          "roles": [
            "reader"
          ],
          "scope": "read write",
          "sid": "(varies)",
          "sub": "(varies)",
          "token_type": "Bearer",
          "username": "ada"
        }
        "#); }
    }

    async fn a_client_token_has_no_username_and_several_audiences_are_an_array(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&["https://a.example", "https://b.example"], "sync")).await;
        let mut body = app.introspect(&app.token_of(&batch).await.access_token).await;
        body["jti"] = json!("(varies)");
        insta::allow_duplicates! { insta::assert_json_snapshot!(body, @r#"
        {
          "active": true,
          "aud": [
            "https://a.example",
            "https://b.example"
          ],
          "client_id": "batch",
          "exp": 1800000300,
          "iat": 1800000000,
          "iss": "http://localhost:8080",
          "jti": "(varies)",
          "nbf": 1800000000,
          "scope": "sync",
          "sub": "batch",
          "token_type": "Bearer"
        }
        "#); }
    }

    async fn i1_every_failed_client_authentication_is_the_same_401(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        let closed = app.confidential("closed", machine(&[], "")).await;
        app.administer(Method::PATCH, "/admin/v1/clients/closed", Some(json!({"enabled": false}))).await;
        let gone = app.confidential("gone", machine(&[], "")).await;
        app.administer(Method::DELETE, "/admin/v1/clients/gone", None).await;
        let token = app.log_in().await.access_token;
        let post = |form: &[(&str, &str)]| app.post_form("/oauth2/introspect", form);
        let with_token = || post(&[("token", &token)]);
        let mut appearances = Vec::new();
        for request in [
            with_token(),
            with_token().basic_auth("nobody", Some("wrong")),
            with_token().basic_auth("gateway", Some("wrong")),
            with_token().basic_auth("gateway", Some("")),
            with_token().basic_auth(&closed.id, Some(&closed.secret)),
            with_token().basic_auth(&gone.id, Some(&gone.secret)),
            with_token().bearer_auth(&token),
            with_token().header("authorization", "Basic !!!"),
            with_token().basic_auth("app", Some("")),
            post(&[("token", &token), ("client_id", "gateway")]),
            post(&[("token", &token), ("client_id", "app")]),
            post(&[("token", &token), ("client_id", "countersign")]),
            post(&[("token", &token), ("client_id", "gateway"), ("client_secret", "wrong")]),
            // The caller is checked before the token: an unknown client does not learn the token's defect.
            post(&[]).basic_auth("gateway", Some("wrong")),
            post(&[("token", "garbage")]).basic_auth("nobody", Some("wrong")),
        ] {
            appearances.push(appearance(request.send().await.unwrap()).await);
        }
        let (status, headers, body) = &appearances[0];
        assert_eq!((*status, body.as_str()), (401, r#"{"error":"invalid_client","error_description":"client authentication failed"}"#));
        assert!(headers.contains(&"www-authenticate: Basic realm=\"countersign\", charset=\"UTF-8\"".to_owned()));
        assert!(headers.contains(&"cache-control: no-store".to_owned()));
        for other in &appearances[1..] {
            assert_eq!(other, &appearances[0]);
        }
    }

    async fn a_request_without_a_token_is_400_for_an_authenticated_caller(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let gateway = app.gateway();
        for form in [&[][..], &[("token", "")], &[("tokens", "x")]] {
            let request = app.post_form("/oauth2/introspect", form);
            let answer = request.basic_auth(&gateway.id, Some(&gateway.secret)).send().await.unwrap();
            assert_eq!(header(&answer, "cache-control"), "no-store");
            assert_eq!(error_of(answer).await, (400, "invalid_request".into()));
        }
    }

    async fn i15_introspecting_invisible_tokens_is_audited_with_their_number(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let owner = app.confidential("owner", machine(&["https://a"], "")).await;
        let curious = app.confidential("curious", machine(&["https://b"], "")).await;
        app.sync().await;
        let token = app.token_of(&owner).await.access_token;
        for _ in 0..3 {
            assert_eq!(app.ask(&curious, &token).send().await.unwrap().text().await.unwrap(), INACTIVE);
        }
        assert_eq!(app.batch(&curious, &[&token, &token, "made up"]).await.status(), 200);
        assert!(app.audit("token.introspection_denied").await.is_empty(), "I14: nothing is written while judging");
        outage::take_tables_away(&app.database).await;
        assert!(app.service.introspection.audit_denials().await.is_err());
        outage::bring_tables_back(&app.database).await;
        app.service.introspection.audit_denials().await.unwrap();
        app.service.introspection.audit_denials().await.unwrap();
        let events = app.audit("token.introspection_denied").await;
        assert_eq!((events.len(), &events[0]["client"], &events[0]["detail"]), (1, &json!("curious"), &json!({"tokens": 5})));
    }

    async fn i2_a_caller_sees_its_own_tokens_and_those_for_its_resources_and_a_gateway_sees_all(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let batch = app.confidential("batch", machine(&["https://other.example", "https://third.example"], "sync")).await;
        let callers = [
            app.gateway(),
            app.confidential("api", resource_server(&["https://api.example"], IntrospectRight::Own)).await,
            app.confidential("other", resource_server(&["https://other.example"], IntrospectRight::Own)).await,
            app.confidential("both", resource_server(&["https://third.example", "https://api.example"], IntrospectRight::Own)).await,
            app.confidential("near", resource_server(&["https://api.example/"], IntrospectRight::Own)).await,
            app.confidential("blind", resource_server(&["https://api.example"], IntrospectRight::None)).await,
            app.confidential("nobody", resource_server(&[], IntrospectRight::Own)).await,
            batch.clone(),
        ];
        let tokens = [
            app.log_in_on("web").await.access_token,
            app.token_of(&batch).await.access_token,
            app.log_in().await.access_token,
        ];
        //                 for api, for other and third, for the service itself
        let may_see = [
            [true, true, true],    // gateway
            [true, false, false],  // api
            [false, true, false],  // other
            [true, true, false],   // both
            [false, false, false], // near
            [false, false, false], // blind
            [false, false, false], // nobody
            [false, true, false],  // batch: its own
        ];
        for (caller, row) in callers.iter().zip(may_see) {
            for (token, may_see) in tokens.iter().zip(row) {
                for format in Format::ALL {
                    let said = app.asked(caller, token, format).await;
                    if may_see {
                        assert_eq!((&said["active"], &said["jti"]), (&json!(true), &claims_of(token)["jti"]), "{} {format:?}", caller.id);
                    } else {
                        assert_eq!(said, json!({"active": false}), "{} {format:?}", caller.id);
                    }
                }
            }
        }
        let logged = app.logged();
        assert!(logged.contains("denied"), "s4: the operator sees who asked about what is not theirs");
    }

    async fn i3_an_inactive_answer_is_the_same_bytes_for_every_reason(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let api = app.confidential("api", resource_server(&["https://api.example"], IntrospectRight::Own)).await;
        let batch = app.confidential("batch", machine(&["https://api.example"], "")).await;
        let doomed = app.confidential("doomed", machine(&["https://api.example"], "")).await;
        let old = app.log_in_on("web").await;
        let expired = old.access_token.clone();
        app.advance(5 * MINUTE).await;
        let live = app.log_in_on("web").await;
        let (signed, signature) = live.access_token.rsplit_once('.').unwrap();
        let revoked = app.token_of(&batch).await.access_token;
        app.revoke("jti", claims_of(&revoked)["jti"].as_str().unwrap()).await;
        let ended = app.log_in_on("web").await;
        app.revoke("session", &ended.session_id).await;
        let of_doomed = app.token_of(&doomed).await.access_token;
        app.administer(Method::DELETE, "/admin/v1/clients/doomed", None).await;
        let foreign = app.log_in().await;
        let reasons = [
            "x".to_owned(),
            "a.b.c".to_owned(),
            "x".repeat(5000),
            "..".to_owned(),
            "cs_rt_".to_owned(),
            "cs_rt_AAAA".to_owned(),
            "cs_admin_AAAA".to_owned(),
            format!("{signed}."),
            format!("{signed}.{}", signature.to_ascii_uppercase()),
            format!("{} ", live.access_token),
            format!("{}x", live.access_token),
            expired,
            revoked,
            ended.access_token,
            of_doomed,
            foreign.access_token,
            foreign.refresh_token,
            live.refresh_token.clone(),
            ended.refresh_token,
            app.admin_key.clone(),
            app.gateway_secret.clone(),
        ];
        let mut appearances = Vec::new();
        for token in &reasons {
            appearances.push(appearance(app.ask(&api, token).send().await.unwrap()).await);
        }
        assert_eq!((appearances[0].0, appearances[0].2.as_str()), (200, INACTIVE));
        assert!(appearances[0].1.contains(&"cache-control: max-age=1".to_owned()), "{:?}", appearances[0].1);
        for (other, token) in appearances.iter().zip(&reasons) {
            assert_eq!(other, &appearances[0], "{token}");
        }
        assert_eq!(app.asked(&api, &live.access_token, Format::Json).await["active"], true);
    }

    async fn i4_each_level_of_revocation_alone_makes_a_token_inactive_and_the_newest_wins(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let user = app.introspect(&app.log_in_on("web").await.access_token).await["sub"].as_str().unwrap().to_owned();
        for level in ["jti", "session", "user", "client"] {
            let (first, second) = (app.log_in_on("web").await, app.log_in_on("web").await);
            assert!(app.is_active(&first.access_token).await && app.is_active(&second.access_token).await);
            let jti = claims_of(&first.access_token)["jti"].as_str().unwrap().to_owned();
            let id = match level {
                "jti" => jti.as_str(),
                "session" => &first.session_id,
                "user" => &user,
                _ => "web",
            };
            app.revoke(level, id).await;
            assert!(!app.is_active(&first.access_token).await, "{level}");
            let touches_others = matches!(level, "user" | "client");
            assert_eq!(app.is_active(&second.access_token).await, !touches_others, "{level}");
            // I13: a token issued later in the same second is not revoked; a second revocation revokes it as well.
            let later = app.log_in_on("web").await;
            assert!(app.is_active(&later.access_token).await, "{level}");
            if touches_others {
                app.revoke(level, id).await;
                assert!(!app.is_active(&later.access_token).await, "{level}");
            }
        }
        let before = app.log_in_on("web").await;
        let admin = format!("/admin/v1/users/{user}");
        app.administer(Method::PATCH, &admin, Some(json!({"enabled": false}))).await;
        assert!(!app.is_active(&before.access_token).await);
        app.administer(Method::PATCH, &admin, Some(json!({"enabled": true}))).await;
        assert!(!app.is_active(&before.access_token).await, "what a disabled user held does not come back");
        let before = app.log_in_on("web").await;
        app.administer(Method::PATCH, "/admin/v1/clients/web", Some(json!({"enabled": false}))).await;
        assert!(!app.is_active(&before.access_token).await);
        app.administer(Method::PATCH, "/admin/v1/clients/web", Some(json!({"enabled": true}))).await;
        assert!(!app.is_active(&before.access_token).await, "what a disabled client held does not come back");
        let before = app.log_in_on("web").await;
        app.administer(Method::DELETE, &admin, None).await;
        assert!(!app.is_active(&before.access_token).await);
    }

    async fn i12_a_revocation_outlives_every_token_it_affects(database: TestDatabase) {
        let app = TestApp::start_with(database, "[tokens]\naccess_ttl = \"1h\"").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        app.revoke("client", "batch").await;
        for _ in 0..60 {
            assert!(!app.is_active(&token).await);
            app.advance(MINUTE).await;
            app.service.status.sweep_view(app.service.status.time_to_forget().unwrap());
        }
        let live = app.administer(Method::GET, "/admin/v1/revocations", None).await;
        assert_eq!(live["revocations"].as_array().unwrap().len(), 1, "an hour later it is still there");
        app.advance(3 * MINUTE).await;
        app.service.status.sweep_view(app.service.status.time_to_forget().unwrap());
        let live = app.administer(Method::GET, "/admin/v1/revocations", None).await;
        assert_eq!(live["revocations"], json!([]), "and then no longer: nothing grows for ever");
        assert!(!app.is_active(&token).await);
    }

    async fn i5_a_hint_never_changes_the_answer(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let login = json!({"username": "ada", "password": crate::support::app::PASSWORD, "client_id": "portal"});
        let answer = app.post_json("/v1/login", &login).basic_auth(&portal.id, Some(&portal.secret)).send().await.unwrap();
        let tokens = crate::support::app::tokens(answer).await;
        let kinds = [tokens.access_token.as_str(), &tokens.refresh_token, "garbage", "cs_rt_garbage"];
        for hint in ["access_token", "refresh_token", "id_token", "", "ACCESS_TOKEN", "urn:x"] {
            let mut said = Vec::new();
            for token in kinds {
                let request = app.post_form("/oauth2/introspect", &[("token", token), ("token_type_hint", hint)]);
                let answer = request.basic_auth(&portal.id, Some(&portal.secret)).send().await.unwrap();
                said.push(answer.json::<Value>().await.unwrap()["active"].as_bool().unwrap());
            }
            assert_eq!(said, [true, true, false, false], "{hint}");
        }
    }

    async fn i6_a_refresh_token_is_active_only_for_its_own_client_and_while_it_can_be_used(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", ClientSettings { scopes: ScopeSet::parse("read").unwrap(), ..portal() }).await;
        let login = json!({"username": "ada", "password": crate::support::app::PASSWORD, "client_id": "portal"});
        let log_in = async || {
            let request = app.post_json("/v1/login", &login).basic_auth(&portal.id, Some(&portal.secret));
            crate::support::app::tokens(request.send().await.unwrap()).await
        };
        let first = log_in().await;
        let answer = app.ask(&portal, &first.refresh_token).send().await.unwrap();
        assert_eq!(header(&answer, "cache-control"), "no-store");
        let mut body: Value = answer.json().await.unwrap();
        (body["sub"], body["sid"]) = (json!("(varies)"), json!("(varies)"));
        let expected = json!({
            "active": true, "iss": "http://localhost:8080", "sub": "(varies)", "aud": "http://localhost:8080",
            "exp": 1_800_000_000 + 14 * 86_400, "iat": 1_800_000_000, "client_id": "portal", "scope": "read",
            "token_type": "refresh_token", "sid": "(varies)", "auth_time": 1_800_000_000,
        });
        assert_eq!(body, expected);
        // Neither a gateway sees it, nor a client that may not introspect any token.
        assert_eq!(app.asked(&app.gateway(), &first.refresh_token, Format::Json).await, json!({"active": false}));
        let none = Some(json!({"introspect": "none"}));
        app.administer(Method::PATCH, "/admin/v1/clients/portal", none).await;
        assert_eq!(app.asked(&portal, &first.refresh_token, Format::Json).await, json!({"active": false}));
        app.administer(Method::PATCH, "/admin/v1/clients/portal", Some(json!({"introspect": "own"}))).await;
        // The former generation is unusable. The token ends with its session, and when it expires.
        let request = app.post_json("/v1/refresh", &json!({"refresh_token": first.refresh_token, "client_id": "portal"}));
        let second = request.basic_auth(&portal.id, Some(&portal.secret)).send().await.unwrap();
        let second = crate::support::app::tokens(second).await;
        assert_eq!(app.asked(&portal, &first.refresh_token, Format::Json).await, json!({"active": false}));
        assert_eq!(app.asked(&portal, &second.refresh_token, Format::Json).await["active"], true);
        app.revoke("session", &second.session_id).await;
        assert_eq!(app.asked(&portal, &second.refresh_token, Format::Json).await, json!({"active": false}));
        let third = log_in().await;
        app.advance(14 * 24 * 60 * MINUTE).await;
        assert_eq!(app.asked(&portal, &third.refresh_token, Format::Json).await, json!({"active": false}));
    }

    async fn i7_max_age_of_an_active_response_never_exceeds_the_token(database: TestDatabase) {
        let app = TestApp::start_with(database, "[introspection]\nmax_age = \"60s\"").await;
        let token = app.log_in().await.access_token;
        let kept_for = async || header(&app.introspection(&token).await, "cache-control").to_owned();
        assert_eq!(kept_for().await, "max-age=60");
        app.advance(Duration::from_secs(239)).await;
        assert_eq!(kept_for().await, "max-age=60");
        app.advance(Duration::from_millis(2_500)).await;
        assert_eq!(kept_for().await, "max-age=58", "never beyond exp, rounded down");
        app.advance(Duration::from_millis(57_499)).await;
        assert_eq!(kept_for().await, "max-age=1");
        app.advance(Duration::from_millis(2)).await;
        assert_eq!(kept_for().await, "no-store", "less than a second is left");
        app.advance(Duration::from_millis(998)).await;
        assert!(app.is_active(&token).await);
        app.advance(Duration::from_millis(1)).await;
        assert!(!app.is_active(&token).await, "t8: exp is the first instant at which it is dead");
    }

    async fn i7_max_age_defaults_to_five_seconds_and_zero_disables_caching(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        assert_eq!(header(&app.introspection(&token).await, "cache-control"), "max-age=5");
        let database = TestDatabase::fresh(app.database.engine).await;
        let app = TestApp::start_with(database, "[introspection]\nmax_age = \"0s\"").await;
        let token = app.log_in().await.access_token;
        assert_eq!(header(&app.introspection(&token).await, "cache-control"), "no-store");
        assert_eq!(header(&app.introspection("garbage").await, "cache-control"), "max-age=1");
    }

    async fn forwarded_conditional_headers_change_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        let plain = appearance(app.introspection(&token).await).await;
        let gateway = app.gateway();
        for (name, value) in [
            (IF_NONE_MATCH, "*"),
            (IF_MODIFIED_SINCE, "Fri, 01 Jan 2100 00:00:00 GMT"),
            (RANGE, "bytes=0-4"),
            (ACCEPT_ENCODING, "gzip, br, zstd, deflate"),
            (ACCEPT, "text/html"),
            (ACCEPT, "*/*"),
        ] {
            let answer = app.ask(&gateway, &token).header(&name, value).send().await.unwrap();
            assert_eq!(appearance(answer).await, plain, "{name}");
        }
        let names: Vec<_> = plain.1.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names, ["cache-control", "content-length", "content-type", "date", "vary", "x-content-type-options", "x-request-id"]);
    }

    async fn h2_parameters_in_the_query_string_are_refused(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        let gateway = app.gateway();
        let path = format!("/oauth2/introspect?token={token}&client_id={}&client_secret={}", gateway.id, gateway.secret);
        assert_eq!(error_of(app.post_form(&path, &[]).send().await.unwrap()).await, (401, "invalid_client".into()));
        let answer = app.post_form(&path, &[]).basic_auth(&gateway.id, Some(&gateway.secret)).send().await.unwrap();
        assert_eq!(error_of(answer).await, (400, "invalid_request".into()));
        let other = [("token", token.as_str()), ("unknown", "1"), ("scope", "\u{1F600}")];
        let answer = app.post_form("/oauth2/introspect?token=other", &other);
        let answer = answer.basic_auth(&gateway.id, Some(&gateway.secret)).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["active"], true, "unknown parameters are ignored");
    }

    async fn c2_a_stale_view_refuses_instead_of_saying_active_or_inactive(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let tokens = app.log_in_on("web").await;
        let gateway = app.gateway();
        let own = [tokens.access_token.as_str(), &tokens.refresh_token, "garbage", "a.b.c"];
        outage::take_feed_away(&app.database).await;
        app.clock.advance(Duration::from_secs(3));
        assert!(app.is_active(&tokens.access_token).await, "the bound itself is still within it");
        app.clock.advance(Duration::from_millis(1));
        for token in own {
            for format in [Format::Json, Format::Signed] {
                let request = app.ask(&gateway, token);
                let request = if format == Format::Signed { request.header(ACCEPT, SIGNED) } else { request };
                let answer = request.send().await.unwrap();
                assert_eq!((header(&answer, "retry-after"), header(&answer, "cache-control")), ("1", "no-store"));
                assert_eq!(header(&answer, "content-type"), "application/json");
                assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()), "{token}");
            }
            let answer = app.batch(&gateway, &[token]).await;
            assert_eq!((header(&answer, "retry-after"), header(&answer, "cache-control")), ("1", "no-store"));
            assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()));
        }
        let stranger = Credentials { id: "x".into(), secret: "y".into() };
        let answer = app.ask(&stranger, "z").send().await.unwrap();
        assert_eq!(error_of(answer).await.0, 503, "nor can it tell who is asking");
        outage::bring_feed_back(&app.database).await;
        app.sync().await;
        assert!(app.is_active(&tokens.access_token).await && !app.is_active("garbage").await, "and is well again at once");
    }

    async fn c2_a_stepped_wall_clock_makes_the_view_stale_until_the_next_sync(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        outage::take_feed_away(&app.database).await;
        for step in [-3_600_000, 7_200_000] {
            app.clock.step(step);
            assert_eq!(app.introspection(&token).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        app.clock.step(-3_600_000);
        assert!(app.is_active(&token).await, "it stands where it stood");
    }

    async fn promise_1_judging_an_access_token_executes_no_statement(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let token = app.log_in_on("web").await.access_token;
        let unseen = app.log_in_on("web").await.access_token;
        assert!(app.is_active(&token).await);
        outage::take_tables_away(&app.database).await;
        for token in [&token, &unseen] {
            assert!(app.is_active(token).await);
            assert_eq!(app.verify("", token).send().await.unwrap().status(), 200);
            assert_eq!(app.batch(&app.gateway(), &[token]).await.status(), 200);
            assert_eq!(app.asked(&app.gateway(), token, Format::Signed).await["active"], true);
        }
        assert!(!app.is_active("a.b.c").await);
        outage::bring_tables_back(&app.database).await;
    }

    async fn i14_introspection_writes_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let portal = app.confidential("portal", portal()).await;
        let login = json!({"username": "ada", "password": crate::support::app::PASSWORD, "client_id": "portal"});
        let request = app.post_json("/v1/login", &login).basic_auth(&portal.id, Some(&portal.secret));
        let tokens = crate::support::app::tokens(request.send().await.unwrap()).await;
        let user = claims_of(&tokens.access_token)["sub"].as_str().unwrap().to_owned();
        let state = async || {
            let mut seen = Vec::new();
            for path in ["/admin/v1/audit", "/admin/v1/revocations", "/admin/v1/users", &format!("/admin/v1/sessions?user={user}")] {
                seen.push(app.administer(Method::GET, path, None).await);
            }
            seen
        };
        let before = state().await;
        app.advance(MINUTE).await;
        for _ in 0..5 {
            for token in [tokens.access_token.as_str(), &tokens.refresh_token, "garbage"] {
                app.asked(&portal, token, Format::Json).await;
                app.asked(&portal, token, Format::Batch).await;
                app.verify("", token).send().await.unwrap();
            }
        }
        assert_eq!(state().await, before, "no sliding expiry, no mark of use, no row");
    }

    async fn i8_a_signed_response_has_its_caller_as_audience_and_equals_the_plain_one(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let api = app.confidential("api", resource_server(&["https://api.example"], IntrospectRight::Own)).await;
        let token = app.log_in_on("web").await.access_token;
        let jwks = app.jwks().await;
        for subject in [token.as_str(), "garbage"] {
            let answer = app.ask(&api, subject).header(ACCEPT, SIGNED).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, SIGNED));
            assert_eq!(header(&answer, "cache-control"), "no-store");
            let jwt = answer.text().await.unwrap();
            assert_eq!(header_of(&jwt)["typ"], "token-introspection+jwt");
            let plain = app.asked(&api, subject, Format::Json).await;
            let claims = verified_claims(&jwt, &jwks).expect("a good signature");
            let expected = json!({"iss": "http://localhost:8080", "aud": "api", "iat": 1_800_000_000, "token_introspection": plain});
            assert_eq!(claims, expected, "no sub and no exp of its own");
            // T16: no endpoint accepts it.
            assert!(!app.is_active(&jwt).await);
            assert_eq!(app.verify("", &jwt).send().await.unwrap().status(), 401);
            assert_eq!(app.get("/v1/me").bearer_auth(&jwt).send().await.unwrap().status(), 401);
        }
    }

    async fn a_signed_response_is_returned_only_if_accept_names_it(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        let gateway = app.gateway();
        for (accept, is_signed) in [
            (SIGNED, true),
            ("Application/Token-Introspection+JWT", true),
            ("application/json, application/token-introspection+jwt;q=0.5", false),
            ("application/json, application/token-introspection+jwt", true),
            ("application/token-introspection+jwt;q=0.5, */*;q=0.1", true),
            ("application/token-introspection+jwt;q=0.5, */*", false),
            ("application/token-introspection+jwt;q=high", false),
            ("application/token-introspection+jwt;q=0", false),
            ("application/token-introspection+jwt; Q=0.000", false),
            ("*/*", false),
            ("application/*", false),
            ("application/jwt", false),
            ("application/token-introspection+jwtx", false),
            ("application/json", false),
        ] {
            let answer = app.ask(&gateway, &token).header(ACCEPT, accept).send().await.unwrap();
            assert_eq!(header(&answer, "content-type") == SIGNED, is_signed, "{accept}");
        }
        let answer = app.post_form("/oauth2/introspect", &[("token", &token)]).header(ACCEPT, SIGNED).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), "application/json", "errors are never signed");
        assert_eq!(error_of(answer).await.0, 401);
    }

    async fn t7_a_token_for_a_deleted_resource_server_is_inactive(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", web("https://api.example", "read")).await;
        let token = app.log_in_on("web").await.access_token;
        assert!(app.is_active(&token).await);
        app.administer(Method::PATCH, "/admin/v1/clients/web", Some(json!({"audiences": ["https://new.example"]}))).await;
        assert!(!app.is_active(&token).await, "nobody is this audience any more");
        app.client("api", resource_server(&["https://api.example"], IntrospectRight::Own)).await;
        assert!(app.is_active(&token).await);
    }

    async fn clients_without_an_audience_get_the_default_one(database: TestDatabase) {
        let engine = database.engine;
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        assert_eq!(claims_of(&app.token_of(&batch).await.access_token)["aud"], "http://localhost:8080");
        let app = TestApp::start_with(TestDatabase::fresh(engine).await, "[tokens]\ndefault_audience = \"https://apis.example\"").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        assert_eq!(claims_of(&token)["aud"], "https://apis.example");
        let api = app.confidential("api", resource_server(&["https://apis.example"], IntrospectRight::Own)).await;
        assert_eq!(app.asked(&api, &token, Format::Json).await["aud"], "https://apis.example");
    }
}
