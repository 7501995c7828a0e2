//! Undocumented methods, paths and bodies: every route answers them in the format of its API (security.md H1, H7).

use std::collections::BTreeMap;
use std::time::Duration;

use countersign::http::openapi::document;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::app::{PASSWORD, TestApp, USER, error_of};
use crate::support::database::{Engine, TestDatabase};
use crate::support::judging::*;

/// The methods of each path, with its parameters filled in. Forward-auth accepts every method and is left out.
fn routes() -> BTreeMap<String, Vec<String>> {
    let api: Value = serde_json::from_str(document()).unwrap();
    let mut routes = BTreeMap::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/verify") {
            let path = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let methods = item.as_object().unwrap().iter().filter(|(_, operation)| operation["responses"].is_object());
            routes.insert(path, methods.map(|(method, _)| method.to_uppercase()).collect());
        }
    }
    routes
}

fn request(app: &TestApp, method: &str, path: &str) -> RequestBuilder {
    let is_operations = path.starts_with("/admin/") || path == "/metrics";
    let address = if is_operations { app.operations } else { app.public };
    app.http.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("http://{address}{path}"))
}

async fn app() -> TestApp {
    TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await
}

#[tokio::test]
async fn h7_every_other_method_is_405_and_allow_lists_the_supported_ones() {
    let app = app().await;
    for (path, methods) in routes() {
        let mut allowed = methods.clone();
        if methods.contains(&"GET".to_owned()) {
            allowed.push("HEAD".to_owned());
        }
        allowed.sort();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "get"]
        {
            if allowed.iter().any(|known| known == method) {
                continue;
            }
            let answer = request(&app, method, &path).bearer_auth(&app.admin_key).send().await.unwrap();
            let name = format!("{method} {path}");
            assert_eq!(answer.status().as_u16(), 405, "{name}");
            let mut named: Vec<_> =
                header(&answer, "allow").split(',').map(|method| method.trim().to_owned()).collect();
            named.sort();
            assert_eq!(named, allowed, "{name}");
            assert_eq!(header(&answer, "cache-control"), "no-store");
            let media = if path.starts_with("/oauth2/") { "application/json" } else { "application/problem+json" };
            assert_eq!(header(&answer, "content-type"), media, "{name}");
            if method != "HEAD" {
                let expected = if path.starts_with("/oauth2/") { "invalid_request" } else { "method_not_allowed" };
                assert_eq!(error_of(answer).await, (405, expected.into()), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn h7_trace_echoes_nothing() {
    let app = app().await;
    for path in routes().keys().map(String::as_str).chain(["/v1/verify", "/v1/verify/x", "/"]) {
        let answer =
            request(&app, "TRACE", path).header("x-canary", "canary-7").bearer_auth("canary-8").send().await.unwrap();
        assert_ne!(header(&answer, "content-type"), "message/http", "{path}");
        assert!(!answer.status().is_success(), "{path}");
        let headers = format!("{:?}", answer.headers());
        assert!(!headers.contains("canary") && !answer.text().await.unwrap().contains("canary"), "{path}");
    }
}

#[tokio::test]
async fn h7_head_has_the_headers_of_get_and_no_body() {
    let app = app().await;
    let token = app.log_in().await.access_token;
    for (path, methods) in routes() {
        if !methods.contains(&"GET".to_owned()) || path == "/metrics" {
            continue;
        }
        let bearer = if path.starts_with("/admin/") { &app.admin_key } else { &token };
        let get = request(&app, "GET", &path).bearer_auth(bearer).send().await.unwrap();
        let head = request(&app, "HEAD", &path).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        assert_eq!(header_lines(head.headers()), header_lines(get.headers()), "{path}");
        assert_eq!(head.bytes().await.unwrap().len(), 0, "{path}");
    }
}

#[tokio::test]
async fn h11_no_answer_allows_an_unlisted_origin() {
    let app = app().await;
    let open = [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/openapi.json",
    ];
    for (path, methods) in routes() {
        for method in methods.iter().map(String::as_str).chain(["OPTIONS"]) {
            let asked = request(&app, method, &path).header("origin", "https://evil.example");
            let answer = asked.header("access-control-request-method", "POST").send().await.unwrap();
            let allowed = header(&answer, "access-control-allow-origin");
            let expected = if open.contains(&path.as_str()) { "*" } else { "" };
            assert_eq!(allowed, expected, "{method} {path}");
            assert_eq!(header(&answer, "access-control-allow-credentials"), "");
        }
    }
}

#[tokio::test]
async fn h11_an_allowed_origin_may_call_the_endpoints_of_users_and_public_clients() {
    const PAGE: &str = "https://app.example";
    let settings = "[cors]\nallowed_origins = [\"https://app.example\"]";
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, settings).await;
    for (path, is_open) in [
        ("/v1/login", true),
        ("/v1/logout", true),
        ("/oauth2/token", true),
        ("/oauth2/revoke", true),
        ("/oauth2/introspect", false),
        ("/v1/introspect", false),
        ("/v1/verify", false),
        ("/v1/verify/x", false),
    ] {
        for (origin, is_listed) in [(PAGE, true), ("https://evil.example", false)] {
            let expected = if is_open && is_listed { origin } else { "" };
            let preflight = app.request(Method::OPTIONS, path).header("origin", origin);
            let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
            let asked = app.request(Method::POST, path).header("origin", origin).send().await.unwrap();
            for answer in [preflight, asked] {
                assert_eq!(header(&answer, "access-control-allow-origin"), expected, "{path}");
                assert_eq!(
                    header(&answer, "vary").contains("origin"),
                    is_open,
                    "{path}: the caches of gateways are not split"
                );
            }
        }
    }
    // A public client in a browser, from its login to its end.
    let tokens = app.log_in().await;
    let form = |path: &str, form: &[(&str, &str)]| app.post_form(path, form).header("origin", PAGE).send();
    let refresh =
        [("grant_type", "refresh_token"), ("client_id", "countersign"), ("refresh_token", &tokens.refresh_token)];
    let next = form("/oauth2/token", &refresh).await.unwrap();
    assert_eq!((next.status().as_u16(), header(&next, "access-control-allow-origin")), (200, PAGE));
    let next = crate::support::app::tokens(next).await;
    let revoke = [("token", next.refresh_token.as_str()), ("client_id", "countersign")];
    let revoked = form("/oauth2/revoke", &revoke).await.unwrap();
    assert_eq!((revoked.status().as_u16(), header(&revoked, "access-control-allow-origin")), (200, PAGE));
    assert!(!app.is_active(&next.access_token).await);
}

#[tokio::test]
async fn h11_a_preflight_of_the_public_documents_passes_for_every_origin() {
    let app = app().await;
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/openapi.json",
    ] {
        // Clients of the Model Context Protocol add a header to these requests.
        let preflight = app.request(Method::OPTIONS, path).header("origin", "https://any.example");
        let preflight = preflight.header("access-control-request-method", "GET");
        let answer = preflight.header("access-control-request-headers", "mcp-protocol-version").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (204, "*"), "{path}");
        assert_eq!(header(&answer, "access-control-allow-methods"), "GET, HEAD");
        assert!(header(&answer, "access-control-allow-headers").ends_with(", *"));
    }
}

#[tokio::test]
async fn h11_a_preflight_allows_tracing_headers_and_app_origins() {
    let settings = "[cors]\nallowed_origins = [\"capacitor://localhost\", \"tauri://localhost\"]";
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, settings).await;
    for (origin, allowed) in [("capacitor://localhost", "capacitor://localhost"), ("ionic://localhost", "")] {
        let preflight = app.request(Method::OPTIONS, "/v1/login").header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST");
        let answer = preflight.header("access-control-request-headers", "traceparent").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 204);
        assert_eq!(header(&answer, "access-control-allow-origin"), allowed);
        let names: Vec<_> = header(&answer, "access-control-allow-headers").split(", ").collect();
        for name in ["authorization", "content-type", "traceparent", "tracestate", "baggage", "sentry-trace"] {
            assert_eq!(names.contains(&name), !allowed.is_empty(), "{name}");
        }
        assert_eq!(header(&answer, "access-control-allow-credentials"), "", "no cookie is ever read");
    }
}

#[tokio::test]
async fn h11_a_refused_origin_is_logged_once_a_minute_with_the_setting() {
    let app = app().await;
    let _events = app.collect_events();
    let preflight = async |origin: &str| {
        let request = app.request(Method::OPTIONS, "/v1/login").header("origin", origin);
        request.header("access-control-request-method", "POST").send().await.unwrap();
    };
    // A form of a page of the same origin carries the header too.
    app.post_form("/oauth2/token", &[]).header("origin", "https://own.example").send().await.unwrap();
    let lines = || app.logged().matches("cors.allowed_origins").count();
    assert_eq!(lines(), 0);
    let long = format!("https://evil.example/\u{1b}{}", "x".repeat(1000));
    let bytes = long.replace('\u{1b}', "\u{e9}");
    preflight(&bytes).await;
    preflight("https://other.example").await;
    assert_eq!(lines(), 1, "{}", app.logged());
    let logged = app.logged();
    let line = logged.lines().find(|line| line.contains("cors.allowed_origins")).unwrap();
    assert!(line.contains("https://evil.example/") && line.len() < 600, "{line}");
    app.clock.advance(Duration::from_secs(60));
    let form = app.post_form("/oauth2/token", &[]).header("origin", "https://other.example");
    form.header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(lines(), 2);
    assert!(app.logged().contains("https://other.example"));
}

#[tokio::test]
async fn h3_a_bearer_token_is_not_client_authentication_at_login_or_refresh() {
    let app = app().await;
    let old = app.log_in().await;
    for header in [format!("Bearer {}", old.access_token), "Bearer".to_owned(), "bearer undefined".to_owned()] {
        let login = app.post_json("/v1/login", &json!({"username": USER, "password": PASSWORD}));
        let tokens = crate::support::app::tokens(login.header("authorization", &header).send().await.unwrap()).await;
        let refresh = app.post_json("/v1/refresh", &json!({"refresh_token": tokens.refresh_token}));
        let tokens = crate::support::app::tokens(refresh.header("authorization", &header).send().await.unwrap()).await;
        let form = [("client_id", "countersign"), ("refresh_token", &tokens.refresh_token)];
        let form = form.into_iter().chain([("grant_type", "refresh_token")]).collect::<Vec<_>>();
        let refresh = app.post_form("/oauth2/token", &form).header("authorization", &header);
        let tokens = crate::support::app::tokens(refresh.send().await.unwrap()).await;
        let form = [("client_id", "countersign"), ("token", &tokens.refresh_token)];
        let revoked = app.post_form("/oauth2/revoke", &form).header("authorization", &header).send().await.unwrap();
        assert_eq!(revoked.status().as_u16(), 200);
        assert!(!app.is_active(&tokens.access_token).await);
        // It does not authenticate either.
        let form = [("token", old.access_token.as_str())];
        let asked = app.post_form("/oauth2/introspect", &form).header("authorization", &header).send().await.unwrap();
        assert_eq!(asked.status().as_u16(), 401);
    }
}

#[tokio::test]
async fn an_unknown_path_is_404_in_the_error_format_of_its_api() {
    let app = app().await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/login/",
        "/v1/verifyx",
        "/V1/LOGIN",
        "/v1//login",
        "/admin/v1/users",
        "/.git/config",
        "/favicon.ico",
        "/%00",
        "/%ff",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = request(&app, method, "").send().await;
            drop(answer);
            let answer = app.request(method.parse().unwrap(), path).send().await.unwrap();
            assert_eq!(header(&answer, "content-type"), "application/problem+json", "{path}");
            assert_eq!(error_of(answer).await, (404, "not_found".into()), "{method} {path}");
        }
    }
    for path in ["/oauth2/", "/oauth2/tokens", "/oauth2/introspect/", "/oauth2/token/x", "/oauth2/userinfo"] {
        let answer = app.request(Method::POST, path).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), "application/json", "{path}");
        assert_eq!(error_of(answer).await, (404, "invalid_request".into()), "{path}");
    }
}

#[tokio::test]
async fn dot_segments_in_a_path_are_not_resolved() {
    let app = app().await;
    let token = app.log_in().await.access_token;
    let raw = async |target: &str| {
        let mut stream = tokio::net::TcpStream::connect(app.public).await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for judged in [
        "/v1/verify/../../admin/v1/status",
        "/v1/verify/%2e%2e/%2e%2e/x",
        "/v1/verify//",
        "/v1/verify/;x=1",
        "/v1/verify/\u{7f}x",
    ] {
        let status = raw(judged).await;
        assert!(matches!(status, 200 | 401), "{judged} {status}");
    }
    for absent in ["/../v1/me", "/v1/x/../me", "/v1/%6d%65/x", "//v1/me", "/v1/me/..", "/v1/me/sessions/../../me"] {
        let status = raw(absent).await;
        assert!(matches!(status, 404 | 405 | 400), "{absent} {status}");
    }
    assert_eq!(raw("http://anything.example/v1/me").await, 200, "the absolute form (RFC 9112 §3.2.2)");
}

#[tokio::test]
async fn a_body_on_an_endpoint_without_one_changes_nothing() {
    let app = app().await;
    for path in ["/.well-known/jwks.json", "/livez", "/readyz", "/openapi.json"] {
        let plain = app.get(path).send().await.unwrap();
        let with_body = app.get(path).body("x".repeat(1000)).send().await.unwrap();
        assert_eq!(
            (with_body.status(), with_body.bytes().await.unwrap()),
            (plain.status(), plain.bytes().await.unwrap())
        );
    }
}

#[tokio::test]
async fn h13_no_error_reflects_any_part_of_the_request() {
    let app = app().await;
    let canary = "canary<script>7";
    for (path, methods) in routes() {
        for method in methods {
            for body in [format!("{{\"{canary}\":\"{canary}\"}}"), format!("{canary}={canary}")] {
                let media =
                    if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
                let asked = request(&app, &method, &format!("{path}?canary=canary%3Cscript%3E7"));
                let asked =
                    asked.bearer_auth(&app.admin_key).header("content-type", media).header("x-canary", "canary7");
                let answer = asked.body(body).send().await.unwrap();
                let status = answer.status();
                let headers = format!("{:?}", answer.headers());
                let text = answer.text().await.unwrap();
                assert!(!headers.contains("canary") && !text.contains("canary"), "{method} {path} {status} {text}");
                assert_ne!(status.as_u16(), 500, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_well_formed_one_is_kept() {
    let app = app().await;
    for (path, methods) in routes() {
        for method in methods {
            let answer = request(&app, &method, &path).header("x-request-id", "Mine-1.a_b").send().await.unwrap();
            assert_eq!(
                (header(&answer, "x-request-id"), header(&answer, "x-content-type-options")),
                ("Mine-1.a_b", "nosniff"),
                "{path}"
            );
            assert_eq!(header(&answer, "server"), "", "h8: no version banner");
            let answer = request(&app, &method, &path).header("x-request-id", "not well formed").send().await.unwrap();
            let made = header(&answer, "x-request-id").to_owned();
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
            if header(&answer, "content-type") == "application/problem+json" {
                assert_eq!(answer.json::<Value>().await.unwrap()["request_id"], made);
            }
        }
    }
}
