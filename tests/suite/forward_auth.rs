//! `/v1/verify`: the check that gateways make before they forward a request.

use std::time::Duration;

use countersign::domain::{Audience, ClientKind, ClientSettings, Grant, Grants, ScopeSet};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

use crate::support::app::{TestApp, Tokens, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::*;
use crate::support::outage;

const CHALLENGE: &str = "Bearer realm=\"countersign\"";
const INVALID: &str = "Bearer realm=\"countersign\", error=\"invalid_token\"";

/// Status, challenge, cache header, and whether the body is empty.
async fn verdict(request: RequestBuilder) -> (u16, String, String) {
    let answer = request.send().await.unwrap();
    let seen = (
        answer.status().as_u16(),
        header(&answer, "www-authenticate").to_owned(),
        header(&answer, "cache-control").to_owned(),
    );
    assert_eq!(answer.text().await.unwrap(), "", "no answer of forward-auth has a body");
    seen
}

fn refused(status: u16, challenge: &str, cache: &str) -> (u16, String, String) {
    (status, challenge.to_owned(), cache.to_owned())
}

/// A user's token for two audiences and two scopes.
async fn token(app: &TestApp) -> Tokens {
    let settings = ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        audiences: ["api", "https://api.example/v1?x=1&y"].map(|audience| Audience::parse(audience).unwrap()).to_vec(),
        scopes: ScopeSet::parse("read write:all").unwrap(),
        ..ClientSettings::new(ClientKind::Public)
    };
    app.client("web", settings).await;
    app.log_in_on("web").await
}

/// The headers that name the subject, in order.
fn identity(answer: &Response, prefix: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = answer
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(prefix))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    found.sort();
    found
}

on_both_engines! {
    async fn an_active_token_passes_and_the_headers_carry_its_identity(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let tokens = token(&app).await;
        let answer = app.verify("", &tokens.access_token).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "max-age=5"));
        assert_eq!(header(&answer, "content-length"), "0");
        let subject = claims_of(&tokens.access_token)["sub"].as_str().unwrap().to_owned();
        let expected = [
            ("x-auth-request-client-id", "web"),
            ("x-auth-request-expires", "1800000300"),
            ("x-auth-request-preferred-username", "ada"),
            ("x-auth-request-roles", "reader"),
            ("x-auth-request-scopes", "read write:all"),
            ("x-auth-request-session", &tokens.session_id),
            ("x-auth-request-user", &subject),
        ];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(identity(&answer, "x-auth-request-"), expected);
    }

    async fn a_client_token_has_no_user_header(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let answer = app.verify("", &app.token_of(&batch).await.access_token).send().await.unwrap();
        let names: Vec<_> = identity(&answer, "x-auth-request-");
        let expected = [
            ("x-auth-request-client-id", "batch"),
            ("x-auth-request-expires", "1800000300"),
            // Empty rather than absent, so that a gateway that copies by name overwrites what its caller sent.
            ("x-auth-request-preferred-username", ""),
            ("x-auth-request-roles", ""),
            ("x-auth-request-scopes", ""),
            ("x-auth-request-session", ""),
            ("x-auth-request-user", "batch"),
        ];
        assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    async fn h17_a_cache_does_not_mix_the_answers_of_two_tokens(database: TestDatabase) {
        let app = TestApp::start_with(database, "[forward_auth]\nallow_preflight = true").await;
        let tokens = token(&app).await;
        let good = &tokens.access_token;
        let gateway = app.gateway();
        let preflight = app.request(Method::OPTIONS, "/v1/verify").header("origin", "https://app.example");
        let answers = [
            (200, app.verify("", good)),
            (401, app.verify("", "a.b.c")),
            (401, app.get("/v1/verify")),
            (403, app.verify("?role=admin", good)),
            (200, preflight.header("access-control-request-method", "PUT")),
        ];
        for (status, request) in answers {
            let answer = request.send().await.unwrap();
            assert_eq!((answer.status().as_u16(), header(&answer, "vary")), (status, "authorization"));
        }
        // The caller determines the visible claims, and `Accept` the format.
        for token in [good, "a.b.c"] {
            let answer = app.ask(&gateway, token).send().await.unwrap();
            assert!(header(&answer, "cache-control").starts_with("max-age="));
            assert_eq!(header(&answer, "vary"), "accept, authorization");
        }
    }

    async fn the_header_prefix_is_configurable(database: TestDatabase) {
        let app = TestApp::start_with(database, "[forward_auth]\nheader_prefix = \"Remote-\"").await;
        let tokens = token(&app).await;
        let answer = app.verify("", &tokens.access_token).send().await.unwrap();
        assert_eq!(identity(&answer, "remote-").len(), 7);
        assert!(identity(&answer, "x-auth-request-").is_empty());
    }

    async fn a_user_name_in_any_script_is_sent_as_utf_8(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let user = json!({"username": "žofie-花子", "password": "a long enough pass phrase 1", "roles": ["a:b", "c/d"]});
        app.administer(Method::POST, "/admin/v1/users", Some(user)).await;
        let login = json!({"username": "žofie-花子", "password": "a long enough pass phrase 1"});
        let tokens = crate::support::app::tokens(app.post_json("/v1/login", &login).send().await.unwrap()).await;
        let answer = app.verify("", &tokens.access_token).send().await.unwrap();
        assert_eq!(answer.headers()["x-auth-request-preferred-username"].as_bytes(), "žofie-花子".as_bytes());
        assert_eq!(header(&answer, "x-auth-request-roles"), "a:b,c/d");
    }

    async fn no_header_of_the_request_is_reflected(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        let names = ["User", "Preferred-Username", "Client-Id", "Scopes", "Roles", "Session", "Expires", "Email", "Groups"];
        for with_token in [true, false] {
            let mut request = app.get("/v1/verify").header("Remote-User", "root");
            for name in names {
                request = request.header(format!("X-Auth-Request-{name}"), "root");
            }
            let request = if with_token { request.bearer_auth(&token) } else { request };
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().is_success(), with_token);
            assert!(answer.headers().values().all(|value| value != "root"), "{:?}", answer.headers());
            assert_eq!(identity(&answer, "x-auth-request-").len(), if with_token { 7 } else { 0 });
        }
    }

    async fn without_a_token_there_is_a_challenge_and_a_malformed_header_is_401_too(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let good = token(&app).await.access_token;
        let with = |value: &str| app.get("/v1/verify").header("authorization", value);
        assert_eq!(verdict(app.get("/v1/verify")).await, refused(401, CHALLENGE, "no-store"));
        for other_scheme in ["Basic Z3c6eA==", "Digest a=b", "Negotiate abc"] {
            assert_eq!(verdict(with(other_scheme)).await, refused(401, CHALLENGE, "no-store"), "{other_scheme}");
        }
        for malformed in ["", "Bearer", "Bearer ", "Bearer    ", &format!("Bearer{good}"), &good, "\u{7f}"] {
            let Ok(value) = reqwest::header::HeaderValue::from_bytes(malformed.as_bytes()) else { continue };
            let seen = verdict(app.get("/v1/verify").header("authorization", value)).await;
            assert_eq!((seen.0, seen.2.as_str()), (401, "no-store"), "{malformed:?}");
        }
        let twice = with(&format!("Bearer {good}")).header("authorization", format!("Bearer {good}"));
        assert_eq!(verdict(twice).await, refused(401, INVALID, "no-store"), "h3: two headers");
        for bad in ["x", "a.b.c", &format!("{good}x"), &format!("{good} {good}"), &"x".repeat(6000), "\"quoted\""] {
            assert_eq!(verdict(with(&format!("Bearer {bad}"))).await, refused(401, INVALID, "max-age=1"), "{bad}");
        }
        for scheme in ["bearer", "BEARER", "Bearer "] {
            assert_eq!(verdict(with(&format!("{scheme} {good}"))).await.0, 200, "{scheme}");
        }
    }

    async fn t16_a_token_of_any_other_type_is_refused(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let tokens = token(&app).await;
        for other in [&tokens.refresh_token, &app.admin_key, &app.gateway_secret] {
            assert_eq!(verdict(app.verify("", other)).await, refused(401, INVALID, "max-age=1"));
        }
        assert_eq!(verdict(app.get(&format!("/v1/verify?access_token={}", tokens.access_token))).await.0, 401, "not in the query");
        let answer = app.post_form("/v1/verify", &[("access_token", &tokens.access_token)]);
        assert_eq!(verdict(answer).await.0, 401, "not in a form");
        let cookie = app.get("/v1/verify").header("cookie", format!("access_token={}", tokens.access_token));
        assert_eq!(verdict(cookie).await.0, 401, "not in a cookie");
    }

    async fn a_revoked_token_is_refused_at_once(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let tokens = token(&app).await;
        assert_eq!(app.verify("", &tokens.access_token).send().await.unwrap().status(), 200);
        app.revoke("session", &tokens.session_id).await;
        assert_eq!(verdict(app.verify("", &tokens.access_token)).await, refused(401, INVALID, "max-age=1"));
    }

    async fn query_parameters_can_only_restrict(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        let status = async |query: &str| app.verify(query, &token).send().await.unwrap().status().as_u16();
        for passes in [
            "?",
            "?aud=api",
            "?aud=https%3A%2F%2Fapi.example%2Fv1%3Fx%3D1%26y",
            "?aud=api&aud=https%3A%2F%2Fapi.example%2Fv1%3Fx%3D1%26y",
            "?scope=read",
            "?scope=read+write:all",
            "?scope=write%3Aall%20read",
            "?scope=read&scope=write:all",
            "?role=reader",
            "?aud=api&scope=read&role=reader",
            "?%61ud=api",
            // Empty parameters count as omitted; parameters that a proxy appended are ignored.
            "?aud=&scope=&role=",
            "?page=2&q=%zz&%&&=&token=x&AUD=other&auds=other",
        ] {
            assert_eq!(status(passes).await, 200, "{passes}");
        }
        for is_refused in [
            "?aud=other",
            "?aud=API",
            "?aud=api%20",
            "?aud=api,https://api.example",
            "?aud=api&aud=other",
            "?aud=other&aud=api",
            "?%61ud=other",
            "?aud=api&%61%75%64=other",
            "?aud=%ff",
            "?aud=%zz",
            "?aud=api%00",
            "?scope=admin",
            "?scope=read+admin",
            "?scope=read&scope=admin",
            "?scope=READ",
            "?scope=%22",
            "?scope=+",
            "?role=admin",
            "?role=Reader",
            "?role=reader&role=admin",
            "?role=reader,admin",
            "?role=%zz",
            "?aud=api&scope=read&role=admin",
            "?role=reader&scope=read&aud=other",
        ] {
            assert_eq!(status(is_refused).await, 403, "{is_refused}");
        }
    }

    async fn a_refusal_names_the_required_scope_and_nothing_else_of_the_request(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        let insufficient = |scope: &str| format!("Bearer realm=\"countersign\", error=\"insufficient_scope\"{scope}");
        for (query, scope) in [
            ("?scope=read+admin", ", scope=\"admin read\""),
            ("?aud=canary", ""),
            ("?role=canary", ""),
            ("?scope=canary%22%0d%0aX:+y", ""),
        ] {
            assert_eq!(verdict(app.verify(query, &token)).await, refused(403, &insufficient(scope), "max-age=1"), "{query}");
        }
    }

    async fn an_unauthenticated_request_is_401_whatever_its_parameters(database: TestDatabase) {
        let app = TestApp::start(database).await;
        assert_eq!(verdict(app.get("/v1/verify?aud=other&role=admin")).await.0, 401);
        assert_eq!(verdict(app.verify("?aud=other", "bad")).await.0, 401);
    }

    async fn method_path_suffix_and_body_do_not_change_the_answer(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for path in ["", "/", "/app", "/app/", "/a/b/c.html", "//", "/%ff", "/a%2Fb", "/v1/login", "/openapi.json"] {
                let request = || app.request(method.clone(), &format!("/v1/verify{path}"));
                let passed = request().bearer_auth(&token).send().await.unwrap();
                assert_eq!((passed.status().as_u16(), header(&passed, "x-auth-request-client-id")), (200, "web"), "{method} {path}");
                assert_eq!(passed.text().await.unwrap(), "");
                assert_eq!(verdict(request()).await.0, 401, "{method} {path}");
            }
        }
        for body in ["", "{\"a\":1}", &"x".repeat(100_000)] {
            let request = app.request(Method::POST, "/v1/verify/upload").bearer_auth(&token).body(body.to_owned());
            assert_eq!(request.send().await.unwrap().status(), 200);
        }
        assert_eq!(app.get("/v1/verifyx").bearer_auth(&token).send().await.unwrap().status(), 404);
    }

    async fn conditional_range_and_encoding_headers_are_ignored(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        let plain = header_lines(app.verify("", &token).send().await.unwrap().headers());
        for (name, value) in [
            ("if-none-match", "*"),
            ("if-match", "\"x\""),
            ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ("if-unmodified-since", "Fri, 01 Jan 1990 00:00:00 GMT"),
            ("range", "bytes=0-0"),
            ("accept-encoding", "gzip, br"),
            ("accept", "text/nothing"),
            ("expect", "200-ok"),
            ("origin", "https://evil.example"),
            ("x-forwarded-method", "OPTIONS"),
            ("x-forwarded-uri", "/?aud=other"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("host", "somewhere.else"),
        ] {
            let answer = app.verify("", &token).header(name, value).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), header_lines(answer.headers())), (200, plain.clone()), "{name}");
        }
    }

    async fn i7_a_refusal_and_an_approval_have_their_max_age(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        let kept_for = async || header(&app.verify("", &token).send().await.unwrap(), "cache-control").to_owned();
        app.advance(Duration::from_secs(297)).await;
        assert_eq!(kept_for().await, "max-age=3");
        app.advance(Duration::from_millis(2_500)).await;
        assert_eq!(kept_for().await, "no-store");
        app.advance(Duration::from_millis(500)).await;
        assert_eq!(verdict(app.verify("", &token)).await, refused(401, INVALID, "max-age=1"));
    }

    async fn c2_a_stale_view_is_503_with_retry_after(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = token(&app).await.access_token;
        outage::take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        for request in [app.verify("", &token), app.verify("/x?aud=other", &token), app.verify("", "garbage")] {
            let answer = request.send().await.unwrap();
            assert_eq!((header(&answer, "retry-after"), header(&answer, "cache-control")), ("1", "no-store"));
            assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (503, String::new()));
        }
        assert_eq!(verdict(app.get("/v1/verify")).await.0, 401, "without a token there is nothing to judge");
        outage::bring_feed_back(&app.database).await;
        app.sync().await;
        assert_eq!(app.verify("", &token).send().await.unwrap().status(), 200);
    }

    async fn a_preflight_passes_without_a_token_only_if_enabled(database: TestDatabase) {
        let engine = database.engine;
        let app = TestApp::start(database).await;
        let preflight = |app: &TestApp, method: Method| {
            app.request(method, "/v1/verify/app")
                .header("origin", "https://app.example")
                .header("access-control-request-method", "GET")
        };
        assert_eq!(verdict(preflight(&app, Method::OPTIONS)).await, refused(401, CHALLENGE, "no-store"));
        let app = TestApp::start_with(TestDatabase::fresh(engine).await, "[forward_auth]\nallow_preflight = true").await;
        let answer = preflight(&app, Method::OPTIONS).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "no-store"));
        let identity = identity(&answer, "x-auth-request-");
        assert_eq!(identity.len(), 7, "so that what the caller claims is overwritten");
        assert!(identity.iter().all(|(_, value)| value.is_empty()), "{identity:?}");
        assert_eq!(verdict(preflight(&app, Method::GET)).await.0, 401, "no other method");
        let claimed = preflight(&app, Method::GET).header("x-forwarded-method", "OPTIONS");
        assert_eq!(verdict(claimed).await.0, 401, "nor one that only says so");
        let plain = app.request(Method::OPTIONS, "/v1/verify");
        assert_eq!(verdict(plain).await.0, 401, "nor an OPTIONS request that is no preflight");
    }
}
