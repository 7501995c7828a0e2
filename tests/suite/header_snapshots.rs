//! H8: every header of one success and one error of each endpoint, so that a change of any is seen in review.

use std::fmt::Write as _;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::app::{PASSWORD, TestApp, USER, machine};
use crate::support::database::{Engine, TestDatabase};
use crate::support::forge::pem;
use crate::support::judging::*;

struct Pages {
    success: String,
    error: String,
}

impl Pages {
    /// Sends both requests and records status and headers.
    async fn note(&mut self, name: &str, success: RequestBuilder, error: RequestBuilder) {
        for (page, request, is_success) in [(&mut self.success, success, true), (&mut self.error, error, false)] {
            let answer = request.send().await.unwrap();
            let status = answer.status();
            assert_eq!(status.is_success(), is_success, "{name} {status}");
            writeln!(page, "{name} -> {}", status.as_u16()).unwrap();
            for line in header_lines(answer.headers()) {
                // A body's length depends on its content, and ids are random.
                let (name, value) = line.split_once(": ").unwrap();
                let value = if value.is_empty() { "(empty)" } else { value };
                let varies =
                    matches!(name, "content-length" | "x-auth-request-session" | "x-auth-request-user") && value != "0";
                writeln!(page, "  {name}: {}", if varies { "(varies)" } else { value }).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn h8_the_headers_of_every_endpoint_are_these() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let gateway = app.gateway();
    let batch = app.confidential("batch", machine(&[], "read")).await;
    let (session, other, third) = (app.log_in().await, app.log_in().await, app.log_in().await);
    let kid = app.published().await[0].clone();
    let user = claims_of(&session.access_token)["sub"].as_str().unwrap().to_owned();
    let mut pages = Pages { success: String::new(), error: String::new() };
    let public = |method: Method, path: &str| app.request(method, path);
    let json = |path: &str, body: serde_json::Value| app.post_json(path, &body);
    let bearer = |method: Method, path: &str| public(method, path).bearer_auth(&session.access_token);
    let form = |path: &str, form: &[(&str, &str)]| app.post_form(path, form);
    let operations = |method: Method, path: &str| app.http.request(method, format!("http://{}{path}", app.operations));
    use Method as M;

    pages
        .note(
            "POST /v1/login",
            json("/v1/login", json!({"username": USER, "password": PASSWORD})),
            json("/v1/login", json!({"username": USER, "password": "wrong"})),
        )
        .await;
    pages
        .note(
            "POST /v1/refresh",
            json("/v1/refresh", json!({"refresh_token": other.refresh_token})),
            json("/v1/refresh", json!({"refresh_token": "x"})),
        )
        .await;
    pages
        .note(
            "POST /v1/logout",
            json("/v1/logout", json!({"refresh_token": other.refresh_token})),
            json("/v1/logout", json!({})),
        )
        .await;
    pages.note("GET /v1/me", bearer(M::GET, "/v1/me"), public(M::GET, "/v1/me")).await;
    let change = |current: &str| json!({"current_password": current, "new_password": "another pass phrase 22"});
    pages
        .note("GET /v1/me/sessions", bearer(M::GET, "/v1/me/sessions"), bearer(M::GET, "/v1/me/sessions?limit=0"))
        .await;
    let path = format!("/v1/me/sessions/{}", third.session_id);
    pages.note("DELETE /v1/me/sessions/{sid}", bearer(M::DELETE, &path), bearer(M::DELETE, "/v1/me/sessions/x")).await;
    pages.note("GET /v1/verify", bearer(M::GET, "/v1/verify"), public(M::GET, "/v1/verify")).await;
    pages
        .note(
            "GET /v1/verify (forbidden)",
            bearer(M::GET, "/v1/verify/app?role=reader"),
            bearer(M::GET, "/v1/verify/app?scope=admin"),
        )
        .await;
    let ask = |path: &str| form(path, &[("token", &session.access_token)]);
    pages
        .note(
            "POST /v1/introspect",
            json("/v1/introspect", json!({"tokens": []})).basic_auth(&gateway.id, Some(&gateway.secret)),
            json("/v1/introspect", json!({"tokens": []})),
        )
        .await;
    pages
        .note(
            "POST /oauth2/introspect (active)",
            ask("/oauth2/introspect").basic_auth(&gateway.id, Some(&gateway.secret)),
            ask("/oauth2/introspect"),
        )
        .await;
    let inactive = form("/oauth2/introspect", &[("token", "x")]).basic_auth(&gateway.id, Some(&gateway.secret));
    pages
        .note(
            "POST /oauth2/introspect (inactive)",
            inactive,
            form("/oauth2/introspect", &[]).basic_auth(&gateway.id, Some(&gateway.secret)),
        )
        .await;
    pages
        .note(
            "POST /oauth2/introspect (signed)",
            app.ask(&gateway, "x").header("accept", SIGNED),
            ask("/oauth2/introspect").header("accept", SIGNED),
        )
        .await;
    let grant =
        |grant: &str| form("/oauth2/token", &[("grant_type", grant)]).basic_auth(&batch.id, Some(&batch.secret));
    pages.note("POST /oauth2/token", grant("client_credentials"), grant("password")).await;
    pages
        .note(
            "POST /oauth2/revoke",
            ask("/oauth2/revoke").form(&[("token", "x")]).basic_auth(&batch.id, Some(&batch.secret)),
            ask("/oauth2/revoke").basic_auth(&batch.id, Some(&batch.secret)),
        )
        .await;
    pages
        .note(
            "GET /.well-known/jwks.json",
            public(M::GET, "/.well-known/jwks.json"),
            public(M::POST, "/.well-known/jwks.json"),
        )
        .await;
    pages
        .note(
            "GET /.well-known/oauth-authorization-server",
            public(M::GET, "/.well-known/oauth-authorization-server"),
            public(M::POST, "/.well-known/oauth-authorization-server"),
        )
        .await;
    pages
        .note(
            "GET /.well-known/openid-configuration",
            public(M::GET, "/.well-known/openid-configuration"),
            public(M::POST, "/.well-known/openid-configuration"),
        )
        .await;
    pages.note("GET /openapi.json", public(M::GET, "/openapi.json"), public(M::POST, "/openapi.json")).await;
    pages.note("GET /docs", public(M::GET, "/docs"), public(M::POST, "/docs")).await;
    // This endpoint has no success: /livez takes its place.
    pages
        .note("GET /oauth2/authorize (or /livez)", public(M::GET, "/livez"), public(M::GET, "/oauth2/authorize"))
        .await;
    pages.note("GET /readyz (or /nothing)", public(M::GET, "/readyz"), public(M::GET, "/nothing")).await;
    pages.note("GET /metrics", operations(M::GET, "/metrics"), operations(M::POST, "/metrics")).await;

    let admin = |method: Method, path: &str| app.admin(method, path);
    let denied = |method: Method, path: &str| operations(method, path).bearer_auth(&session.access_token);
    for path in [
        "/admin/v1/users",
        "/admin/v1/clients",
        &format!("/admin/v1/sessions?user={user}"),
        "/admin/v1/revocations",
        "/admin/v1/keys",
        "/admin/v1/audit",
        "/admin/v1/status",
    ] {
        let name = format!("GET {}", path.split('?').next().unwrap());
        pages.note(&name, admin(M::GET, path), denied(M::GET, path)).await;
    }
    let new = json!({"username": "grace", "password": "a long enough pass phrase 1"});
    pages
        .note(
            "POST /admin/v1/users",
            admin(M::POST, "/admin/v1/users").json(&new),
            admin(M::POST, "/admin/v1/users").json(&json!({})),
        )
        .await;
    let path = format!("/admin/v1/users/{user}");
    pages.note("GET /admin/v1/users/{id}", admin(M::GET, &path), admin(M::GET, "/admin/v1/users/x")).await;
    pages
        .note(
            "PATCH /admin/v1/users/{id}",
            admin(M::PATCH, &path).json(&json!({})),
            admin(M::PATCH, &path).json(&json!({"x": 1})),
        )
        .await;
    let import = |media: &str| admin(M::POST, "/admin/v1/users/import").header("content-type", media).body("");
    pages.note("POST /admin/v1/users/import", import("application/jsonl"), import("text/plain")).await;
    let new = json!({"client_id": "new", "type": "public"});
    pages
        .note(
            "POST /admin/v1/clients",
            admin(M::POST, "/admin/v1/clients").json(&new),
            admin(M::POST, "/admin/v1/clients").json(&new),
        )
        .await;
    pages
        .note(
            "GET /admin/v1/clients/{client_id}",
            admin(M::GET, "/admin/v1/clients/new"),
            admin(M::GET, "/admin/v1/clients/x"),
        )
        .await;
    let change_client = |path: &str| admin(M::PATCH, path).json(&json!({"scopes": "a"}));
    pages
        .note(
            "PATCH /admin/v1/clients/{client_id}",
            change_client("/admin/v1/clients/new"),
            change_client("/admin/v1/clients/x"),
        )
        .await;
    let secret = |id: &str| admin(M::POST, &format!("/admin/v1/clients/{id}/secret")).json(&json!({}));
    pages.note("POST /admin/v1/clients/{client_id}/secret", secret("batch"), secret("new")).await;
    pages
        .note(
            "DELETE /admin/v1/clients/{client_id}",
            admin(M::DELETE, "/admin/v1/clients/new"),
            admin(M::DELETE, "/admin/v1/clients/new"),
        )
        .await;
    let revoke = |order: serde_json::Value| admin(M::POST, "/admin/v1/revocations").json(&order);
    pages.note("POST /admin/v1/revocations", revoke(json!({"jti": "x"})), revoke(json!({}))).await;
    let import = |file: &str| admin(M::POST, "/admin/v1/keys").json(&json!({"pem": pem(file)}));
    pages.note("POST /admin/v1/keys", import("ed25519"), import("p384")).await;
    let rotate = |algorithm: &str| admin(M::POST, "/admin/v1/keys/rotate").json(&json!({"algorithm": algorithm}));
    pages.note("POST /admin/v1/keys/rotate", rotate("EdDSA"), rotate("RS256")).await;
    pages
        .note(
            "PUT /v1/me/password",
            bearer(M::PUT, "/v1/me/password").json(&change(PASSWORD)),
            bearer(M::PUT, "/v1/me/password").json(&change("wrong")),
        )
        .await;
    let set = |password: &str| admin(M::PUT, &format!("{path}/password")).json(&json!({"password": password}));
    let last = tokens_again(&app).await;
    pages
        .note(
            "DELETE /v1/me/sessions",
            public(M::DELETE, "/v1/me/sessions").bearer_auth(&last),
            public(M::DELETE, "/v1/me/sessions").bearer_auth("x"),
        )
        .await;
    pages.note("PUT /admin/v1/users/{id}/password", set("yet another phrase 33"), set("short")).await;
    let end = |sid: &str| admin(M::DELETE, &format!("/admin/v1/sessions/{sid}"));
    pages.note("DELETE /admin/v1/sessions/{sid}", end(&session.session_id), end("x")).await;
    pages.note("DELETE /admin/v1/users/{id}", admin(M::DELETE, &path), admin(M::DELETE, &path)).await;
    let withdraw = |kid: &str| admin(M::POST, &format!("/admin/v1/keys/{kid}/withdraw"));
    pages.note("POST /admin/v1/keys/{kid}/withdraw", withdraw(&kid), withdraw("x")).await;

    insta::assert_snapshot!("headers_of_success", pages.success);
    insta::assert_snapshot!("headers_of_errors", pages.error);
}

/// An access token after the password was changed.
async fn tokens_again(app: &TestApp) -> String {
    let login = json!({"username": USER, "password": "another pass phrase 22"});
    crate::support::app::tokens(app.post_json("/v1/login", &login).send().await.unwrap()).await.access_token
}
