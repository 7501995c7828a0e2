//! `envoy.service.auth.v3.Authorization/Check`: the same verification as `/v1/verify`, over gRPC.

use countersign::domain::{Audience, ClientKind, ClientSettings, Grant, Grants, ScopeSet};
use reqwest::{Method, Response};
use tonic::Code;

use crate::support::app::{TestApp, Tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::envoy::{Envoy, Fate, HeaderMap, HeaderValue, question};
use crate::support::judging::*;
use crate::support::outage;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const GRPC: &str = "[grpc]\nlisten = \"127.0.0.1:0\"\n";

async fn start(database: TestDatabase, more: &str) -> (TestApp, Envoy) {
    let app = TestApp::start_with(database, &format!("{GRPC}{more}")).await;
    let envoy = Envoy::connect(app.grpc.unwrap()).await;
    (app, envoy)
}

/// A user's token for one audience and two scopes.
async fn token(app: &TestApp) -> Tokens {
    let settings = ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        audiences: vec![Audience::parse("https://api.example.com").unwrap()],
        scopes: ScopeSet::parse("read write").unwrap(),
        ..ClientSettings::new(ClientKind::Public)
    };
    app.client("web", settings).await;
    app.log_in_on("web").await
}

/// Names and values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The equivalent of forward-auth's answer over HTTP.
fn as_fate(answer: &Response) -> Fate {
    let passes = answer.status() == 200;
    let mut headers: Vec<_> = answer
        .headers()
        .iter()
        .filter(|(name, _)| match name.as_str() {
            "www-authenticate" | "cache-control" | "retry-after" => !passes,
            name => name.starts_with("x-auth-request-"),
        })
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let code = match answer.status().as_u16() {
        200 => Code::Ok,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        503 => Code::Unavailable,
        other => panic!("{other}"),
    };
    Fate { code: code.into(), status: answer.status().as_u16().into(), headers }
}

on_both_engines! {
    async fn every_request_gets_the_same_answer_as_from_http_forward_auth(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let tokens = token(&app).await;
        let good = format!("Bearer {}", tokens.access_token);
        let api = [("aud", "https://api.example.com")];
        let cases: [(Option<&str>, Pairs<'_>); 16] = [
            (Some(&good), &[]),
            (Some(&good), &api),
            (Some(&good), &[("scope", "read write")]),
            (Some(&good), &[("role", "reader")]),
            (Some(&good), &[("aud", "other")]),
            (Some(&good), &[("scope", "read admin")]),
            (Some(&good), &[("role", "admin")]),
            (Some(&good), &[("scope", "\"")]),
            (None, &api),
            (Some("Basic abc"), &api),
            (Some("Bearer"), &api),
            (Some("Bearer a.b.c"), &api),
            (Some(&format!("Bearer {}x", tokens.access_token)), &api),
            (Some(&format!("Bearer {}", tokens.refresh_token)), &api),
            (Some(&format!("{good},{good}")), &api),
            (Some(&format!("bearer {}", tokens.access_token)), &api),
        ];
        let mut statuses = Vec::new();
        for (authorization, context) in cases {
            let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
            let over_grpc = envoy.check(&headers, context).await;
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(context).finish();
            let mut request = app.get(&format!("/v1/verify?{query}"));
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            assert_eq!(over_grpc, as_fate(&request.send().await.unwrap()), "{authorization:?} {context:?}");
            statuses.push(over_grpc.status);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 403, 403, 403, 403, 401, 401, 401, 401, 401, 401, 401, 200]);
    }

    async fn an_allowed_request_carries_the_verified_identity_and_no_header_from_the_caller(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let tokens = token(&app).await;
        let authorization = format!("Bearer {}", tokens.access_token);
        let claimed = [
            ("authorization", authorization.as_str()),
            ("x-auth-request-user", "root"),
            ("x-auth-request-roles", "admin"),
            ("x-auth-request-email", "root@example.com"),
        ];
        let fate = envoy.check(&claimed, &[]).await;
        let subject = claims_of(&tokens.access_token)["sub"].as_str().unwrap().to_owned();
        let expected = [
            ("x-auth-request-client-id", "web"),
            ("x-auth-request-expires", "1800000300"),
            ("x-auth-request-preferred-username", "ada"),
            ("x-auth-request-roles", "reader"),
            ("x-auth-request-scopes", "read write"),
            ("x-auth-request-session", &tokens.session_id),
            ("x-auth-request-user", &subject),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(fate, Fate { code: 0, status: 200, headers: expected });
    }

    async fn an_empty_requirement_is_satisfied_by_no_token(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let token = token(&app).await.access_token;
        for name in ["aud", "scope", "role"] {
            assert_eq!(envoy.check_token(&token, &[(name, "")]).await.status, 403, "{name}");
        }
    }

    async fn a_misspelt_requirement_is_satisfied_by_no_token(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let token = token(&app).await.access_token;
        for name in ["roles", "scopes", "audience", "Role", "", "page"] {
            for context in [&[(name, "reader")][..], &[("role", "reader"), (name, "x")]] {
                assert_eq!(envoy.check_token(&token, context).await.status, 403, "{name:?}");
            }
        }
        assert_eq!(envoy.check_token(&token, &[("role", "reader")]).await.status, 200);
    }

    async fn c1_a_revoked_token_is_refused_at_once(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let tokens = token(&app).await;
        assert_eq!(envoy.check_token(&tokens.access_token, &[]).await.status, 200);
        app.revoke("session", &tokens.session_id).await;
        let fate = envoy.check_token(&tokens.access_token, &[]).await;
        assert_eq!((fate.code, fate.status), (Code::Unauthenticated.into(), 401));
    }

    async fn c6_a_stale_view_is_denied_with_503_whatever_envoys_failure_mode(database: TestDatabase) {
        let (app, envoy) = start(database, "").await;
        let token = token(&app).await.access_token;
        assert_eq!(envoy.check_token(&token, &[]).await.status, 200);
        outage::take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        for token in [&token, "forged"] {
            let fate = envoy.check_token(token, &[]).await;
            assert_eq!((fate.code, fate.status), (Code::Unavailable.into(), 503));
            assert!(fate.headers.contains(&("retry-after".into(), "1".into())), "{fate:?}");
        }
        outage::bring_feed_back(&app.database).await;
        app.sync().await;
        assert_eq!(envoy.check_token(&token, &[]).await.status, 200);
    }
}

#[tokio::test]
async fn the_log_names_a_misspelt_requirement_once_a_minute() {
    let (app, envoy) = start(TestDatabase::fresh(Engine::Sqlite).await, "").await;
    let _events = app.collect_events();
    for name in ["roles", "scopes"] {
        envoy.check_token("forged", &[(name, "reader")]).await;
    }
    let logged = app.logged();
    assert_eq!(logged.matches("may have only the keys aud, scope and role").count(), 1, "{logged}");
    assert!(logged.contains("\"key\":\"roles\""), "{logged}");
}

#[tokio::test]
async fn raw_headers_are_read_and_two_tokens_are_refused() {
    let (app, envoy) = start(TestDatabase::fresh(Engine::Sqlite).await, "").await;
    let token = format!("Bearer {}", token(&app).await.access_token);
    let ask = async |values: &[&[u8]]| {
        let header = |value: &&[u8]| HeaderValue {
            key: "Authorization".into(),
            value: String::new(),
            raw_value: value.to_vec(),
        };
        let mut request = question("GET", &[], &[]);
        let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
        http.header_map = Some(HeaderMap { headers: values.iter().map(header).collect() });
        envoy.ask(CHECK, request).await.unwrap().status
    };
    assert_eq!(ask(&[token.as_bytes()]).await, 200);
    for bad in [&[][..], &[token.as_bytes(), token.as_bytes()], &[token.as_bytes(), b"\n"], &[b"Bearer \xff"], &[b""]] {
        assert_eq!(ask(bad).await, 401, "{bad:?}");
    }
}

#[tokio::test]
async fn a_check_without_a_request_is_answered_like_one_without_a_token() {
    let (_app, envoy) = start(TestDatabase::fresh(Engine::Sqlite).await, "").await;
    let nothing = crate::support::envoy::CheckRequest::default();
    assert_eq!(envoy.ask(CHECK, nothing).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_preflight_passes_only_if_enabled_and_carries_no_identity() {
    let marks = [("origin", "https://app.example.com"), ("access-control-request-method", "PUT")];
    for (setting, status) in [("true", 200), ("false", 401)] {
        let more = format!("[forward_auth]\nallow_preflight = {setting}\n");
        let (app, envoy) = start(TestDatabase::fresh(Engine::Sqlite).await, &more).await;
        let fate = envoy.ask(CHECK, question("OPTIONS", &marks, &[])).await.unwrap();
        let request = marks.iter().fold(app.request(Method::OPTIONS, "/v1/verify"), |request, (name, value)| {
            request.header(*name, *value).header("X-Auth-Request-User", "root")
        });
        assert_eq!(fate, as_fate(&request.send().await.unwrap()));
        assert_eq!(fate.status, status);
        if status == 200 {
            assert_eq!(fate.headers.len(), 7, "each is overwritten");
            assert!(fate.headers.iter().all(|(_, value)| value.is_empty()), "{fate:?}");
        }
        assert_eq!(envoy.ask(CHECK, question("GET", &marks, &[])).await.unwrap().status, 401, "not a preflight");
    }
}

#[tokio::test]
async fn s3_each_check_is_one_log_line_and_is_counted_by_its_inner_status() {
    let (app, envoy) = start(TestDatabase::fresh(Engine::Sqlite).await, "").await;
    let token = token(&app).await.access_token;
    let authorization = format!("Bearer {token}");
    envoy.check(&[("authorization", &authorization), ("x-request-id", "of-envoy-1")], &[]).await;
    envoy.check(&[("authorization", "Bearer forged"), ("x-request-id", "of-envoy-2")], &[]).await;
    envoy.ask("/envoy.service.auth.v3.Authorization/Guess", question("GET", &[], &[])).await.unwrap_err();
    let logged = app.logged();
    let line = |id: &str| logged.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} in {logged}"));
    assert!(line("of-envoy-1").contains("200") && line("of-envoy-1").contains("active"), "{}", line("of-envoy-1"));
    assert!(line("of-envoy-2").contains("401") && line("of-envoy-2").contains("inactive"), "{}", line("of-envoy-2"));
    for (route, status) in [(CHECK, "200"), (CHECK, "401"), ("unmatched", "404")] {
        let figure =
            format!("countersign_http_requests_total{{method=\"POST\",route=\"{route}\",status=\"{status}\"}}");
        assert!(app.figure(&figure).await >= 1.0, "{figure}");
    }
    assert!(app.figure("countersign_introspections_total{cache=\"miss\",result=\"active\"}").await >= 1.0);
}

#[tokio::test]
async fn h10_without_the_setting_there_is_no_grpc_listener() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    assert_eq!(app.grpc, None);
}
