//! Hot routes answer as the router does. Below an issuer's path the router serves the same endpoints, so each request
//! is sent to both paths.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};

use crate::support::app::{GATEWAY, TestApp, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::TOO_LONG;

const BASE: &str = "/auth";
const MACHINE: &str = "machine";
const SETTINGS: &str = "issuer = \"https://example.com/auth\"\nforward_auth.allow_preflight = true";

/// Every part of an answer that does not differ from request to request.
async fn essence(answer: Response) -> (u16, Vec<(String, String)>, String) {
    let status = answer.status().as_u16();
    let mut headers: Vec<_> = answer
        .headers()
        .iter()
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let ids = answer.headers().get_all("x-request-id").iter().count();
    assert_eq!(ids, 1, "every answer bears one id");
    // A problem names its request.
    let body = answer.text().await.unwrap();
    let body = match serde_json::from_str::<serde_json::Value>(&body) {
        // No two tokens are alike.
        Ok(mut json) if json.get("request_id").or(json.get("access_token")).is_some() => {
            let members = json.as_object_mut().unwrap();
            members.remove("request_id");
            if let Some(token) = members.get_mut("access_token") {
                *token = token.as_str().unwrap().len().into();
            }
            json.to_string()
        }
        _ => body,
    };
    (status, headers, body)
}

/// The request to each endpoint: a name, a method, a path, and the remaining parts.
fn questions(
    app: &TestApp,
    token: &str,
    machine_secret: &str,
) -> Vec<(&'static str, Method, String, HeaderMap, Option<String>)> {
    use base64::Engine as _;
    let basic = |id, secret: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
        ("authorization", format!("Basic {pair}"))
    };
    let headers = |pairs: &[(&'static str, String)]| -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let (gateway, machine) = (basic(GATEWAY, &app.gateway_secret), basic(MACHINE, machine_secret));
    let bearer = ("authorization", format!("Bearer {token}"));
    let post = |name, pairs: &[_], body: String| {
        (name, Method::POST, "/oauth2/introspect".to_owned(), headers(pairs), Some(body))
    };
    let token_request = |name, pairs: &[_], body: &str| {
        (name, Method::POST, "/oauth2/token".to_owned(), headers(pairs), Some(body.to_owned()))
    };
    let verify =
        |name, method, suffix: &str, pairs: &[_]| (name, method, format!("/v1/verify{suffix}"), headers(pairs), None);
    let get = |name, path: &str, pairs: &[_]| (name, Method::GET, path.to_owned(), headers(pairs), None);
    let head = |name, path: &str| (name, Method::HEAD, path.to_owned(), HeaderMap::new(), None);
    vec![
        post("active", &[form.clone(), gateway.clone()], format!("token={token}")),
        post("active, encoded", &[form.clone(), gateway.clone()], format!("t%6Fken={token}&token_type_hint=a+b")),
        post("inactive", &[form.clone(), gateway.clone()], "token=x".to_owned()),
        post("no token", &[form.clone(), gateway.clone()], "other=x".to_owned()),
        post("repeated", &[form.clone(), gateway.clone()], "token=x&token=y".to_owned()),
        post("malformed", &[form.clone(), gateway.clone()], "token=%zz".to_owned()),
        post("no client", std::slice::from_ref(&form), format!("token={token}")),
        post(
            "wrong secret",
            &[form.clone(), ("authorization", "Basic Z2F0ZXdheTp4".to_owned())],
            format!("token={token}"),
        ),
        post("not a form", &[("content-type", "application/json".to_owned()), gateway.clone()], "{}".to_owned()),
        post("too large", &[form.clone(), gateway.clone()], format!("token={}", "a".repeat(20_000))),
        (("wrong method"), Method::GET, "/oauth2/introspect".to_owned(), HeaderMap::new(), None),
        token_request("issued", &[form.clone(), machine.clone()], "grant_type=client_credentials&scope=read"),
        token_request("wider scope", &[form.clone(), machine.clone()], "grant_type=client_credentials&scope=write"),
        token_request("not its audience", &[form.clone(), machine.clone()], "grant_type=client_credentials&resource=b"),
        token_request("not its grant", &[form.clone(), gateway.clone()], "grant_type=client_credentials"),
        token_request("no such grant", &[form.clone(), machine.clone()], "grant_type=password"),
        token_request("no grant", &[form.clone(), machine.clone()], "scope=read"),
        token_request("bad refresh", &[form.clone(), machine.clone()], "grant_type=refresh_token&refresh_token=x"),
        token_request("nobody", &[form], "grant_type=client_credentials"),
        token_request("not a form, token", &[machine], "grant_type=client_credentials"),
        (("issued by GET"), Method::GET, "/oauth2/token".to_owned(), HeaderMap::new(), None),
        verify("passes", Method::GET, "", std::slice::from_ref(&bearer)),
        verify("passes with a suffix", Method::DELETE, "/a/b?c=d", std::slice::from_ref(&bearer)),
        verify("passes with a slash", Method::POST, "/", std::slice::from_ref(&bearer)),
        verify("passes a head", Method::HEAD, "", std::slice::from_ref(&bearer)),
        verify("lacks a scope", Method::GET, "?scope=nothing", std::slice::from_ref(&bearer)),
        verify("bare", Method::GET, "", &[]),
        verify("bad", Method::PUT, "/x", &[("authorization", "Bearer x".to_owned())]),
        verify(
            "preflight",
            Method::OPTIONS,
            "",
            &[("origin", "https://a".to_owned()), ("access-control-request-method", "PUT".to_owned())],
        ),
        get("keys", "/.well-known/jwks.json", &[]),
        get("keys, held", "/.well-known/jwks.json", &[("if-none-match", "*".to_owned())]),
        head("keys, head", "/.well-known/jwks.json"),
        get("metadata", "/.well-known/oauth-authorization-server", &[]),
        get("metadata, OIDC", "/.well-known/openid-configuration", &[]),
        head("metadata, head", "/.well-known/openid-configuration"),
    ]
}

fn request(app: &TestApp, base: &str, question: &(&str, Method, String, HeaderMap, Option<String>)) -> RequestBuilder {
    let (_, method, path, headers, body) = question;
    let request = app.request(method.clone(), &format!("{base}{path}")).headers(headers.clone());
    body.iter().fold(request, |request, body| request.body(body.clone()))
}

on_both_engines! {
    async fn hot_routes_answer_as_the_router_does(database: TestDatabase) {
        let app = TestApp::start_with(database, SETTINGS).await;
        let token = app.log_in().await.access_token;
        let secret = app.client(MACHINE, machine(&["a"], "read")).await.unwrap();
        app.sync().await;
        for question in questions(&app, &token, &secret) {
            let short = essence(request(&app, "", &question).send().await.unwrap()).await;
            let routed = essence(request(&app, BASE, &question).send().await.unwrap()).await;
            assert_eq!(short, routed, "{}", question.0);
        }
    }

    async fn c2_hot_routes_and_router_answer_503_when_the_view_is_stale(database: TestDatabase) {
        let app = TestApp::start_with(database, SETTINGS).await;
        let token = app.log_in().await.access_token;
        assert!(app.is_active(&token).await, "the gateway's header is remembered from here on");
        app.clock.advance(TOO_LONG);
        for question in questions(&app, &token, "-").iter().filter(|question| ["active", "passes", "keys"].contains(&question.0)) {
            let short = essence(request(&app, "", question).send().await.unwrap()).await;
            let routed = essence(request(&app, BASE, question).send().await.unwrap()).await;
            assert_eq!(short, routed, "{}", question.0);
            assert_eq!(short.0, if question.0 == "keys" { 200 } else { 503 }, "{}", question.0);
        }
    }
}
