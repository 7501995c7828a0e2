//! The log line of a request, and the events that are logged during its processing.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::app::{GATEWAY, TestApp, USER};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::process::Home;

/// The line of the request with the id `id`.
fn line(app: &TestApp, id: &str) -> Value {
    let log = app.logged();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "request").find(|line| line["request_id"] == id).unwrap()
}

on_both_engines! {
    async fn the_caller_is_logged_for_every_authenticated_request_even_a_refused_one(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let (gateway, user) = (app.gateway(), app.user_id(USER).await.to_string());
        let session = app.log_in().await;
        let as_gateway = |path: &str, form: &[(&str, &str)]| {
            app.post_form(path, form).basic_auth(&gateway.id, Some(&gateway.secret))
        };
        let as_user = |method: Method, path: &str| app.request(method, path).bearer_auth(&session.access_token);
        let cases: [(&str, RequestBuilder, u16, &str); 10] = [
            ("admin-read", app.admin(Method::GET, "/admin/v1/users"), 200, "admin-key:tests"),
            ("admin-refused", app.admin(Method::DELETE, "/admin/v1/users/usr_none"), 404, "admin-key:tests"),
            ("introspect", as_gateway("/oauth2/introspect", &[("token", &session.access_token)]), 200, GATEWAY),
            ("introspect-again", as_gateway("/oauth2/introspect", &[("token", &session.access_token)]), 200, GATEWAY),
            ("introspect-refused", as_gateway("/oauth2/introspect", &[]), 400, GATEWAY),
            ("revoke", as_gateway("/oauth2/revoke", &[("token", "garbage")]), 200, GATEWAY),
            ("revoke-foreign", as_gateway("/oauth2/revoke", &[("token", &session.access_token)]), 400, GATEWAY),
            ("grant-refused", as_gateway("/oauth2/token", &[("grant_type", "password")]), 400, GATEWAY),
            ("me", as_user(Method::GET, "/v1/me"), 200, &user),
            ("me-refused", as_user(Method::DELETE, "/v1/me/sessions/ses_none"), 404, &user),
        ];
        for (id, request, status, caller) in cases {
            let answer = request.header("x-request-id", id).send().await.unwrap();
            assert_eq!(answer.status(), status, "{id}");
            assert_eq!(line(&app, id)["caller"], caller, "{id}");
        }
        let wrong = app.post_form("/oauth2/revoke", &[("token", "x")]).basic_auth(GATEWAY, Some("wrong"));
        wrong.header("x-request-id", "wrong-secret").send().await.unwrap();
        assert_eq!(line(&app, "wrong-secret")["caller"], Value::Null, "the name alone proves nothing");
    }
}

#[tokio::test]
async fn request_ids_reveal_nothing_about_the_traffic() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let mut ids = BTreeSet::new();
    for _ in 0..40 {
        let answer = app.get("/livez").send().await.unwrap();
        ids.insert(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    let halves = |half: fn(&str) -> &str| ids.iter().map(|id| half(id)).collect::<BTreeSet<_>>().len();
    assert_eq!(
        (halves(|id| &id[..16]), halves(|id| &id[16..30])),
        (40, 40),
        "no part of an id is a constant or a count"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_below_the_edge_carry_the_request_id_and_probes_are_silent() {
    let home = Home::empty();
    let server = home.serve();
    for path in ["/readyz", "/livez", "/metrics"] {
        let probe = server.http.get(format!("{}{path}", server.operations)).header("x-request-id", "a-probe");
        assert_eq!(probe.send().await.unwrap().status(), 200);
    }
    let forged = server.post("/v1/refresh", &json!({"refresh_token": "cs_rt_forged"}));
    assert_eq!(forged.header("x-request-id", "id-of-the-request").send().await.unwrap().status(), 401);
    let event: Value = serde_json::from_str(&server.line_with("refresh refused")).unwrap();
    assert_eq!((&event["request_id"], &event["cause"]), (&json!("id-of-the-request"), &json!("forged")));
    server.line_with("\"message\":\"request\"");
    assert!(!server.printed.lock().unwrap().contains("a-probe"), "a successful probe is logged at DEBUG");
}
