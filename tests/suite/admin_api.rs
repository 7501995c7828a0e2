//! `/admin/v1` on the operations listener: authorization, and the effect of each endpoint.

use std::time::Duration;

use countersign::domain::{Audience, ClientKind, ClientSettings, Grant, Grants, ScopeSet};
use countersign::http::openapi::document;
use countersign::service::{ADMIN_SCOPE, Requester};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::app::{ISSUER, PASSWORD, TestApp, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::*;
use crate::support::outage;
use crate::support::sessions::Broken;

const NOBODY: &str = "usr_AAAAAAAAAAAAAAAAAAAAAA";
const NO_SESSION: &str = "ses_AAAAAAAAAAAAAAAAAAAAAA";

/// Every operation of the administration that the API document lists, with ids that do not exist.
fn operations() -> Vec<(Method, String, Option<String>)> {
    let api: Value = serde_json::from_str(document()).unwrap();
    let mut found = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(_, operation)| operation["tags"][0] == "administration")
        {
            let path = path.replace("{id}", NOBODY).replace("{sid}", NO_SESSION);
            let path = path.replace("{client_id}", "nobody").replace("{kid}", "unknown");
            let content = operation["requestBody"]["content"].as_object();
            let media = content.map(|content| content.keys().next().unwrap().clone());
            found.push((method.to_uppercase().parse().unwrap(), path, media));
        }
    }
    assert!(found.len() >= 23, "the operations were not found");
    found
}

/// The request, without credentials. Its body has no meaning: the caller is authenticated first.
fn request(app: &TestApp, (method, path, media): &(Method, String, Option<String>)) -> RequestBuilder {
    let request = app.http.request(method.clone(), format!("http://{}{path}", app.operations));
    match media {
        Some(media) => request.header("content-type", media).body(if media == "application/json" { "{}" } else { "" }),
        None => request,
    }
}

/// A client that logs administrators in.
async fn console(app: &TestApp) {
    app.client("console", application(ADMIN_SCOPE)).await;
}

async fn log_in(app: &TestApp, username: &str, scope: Option<&str>) -> reqwest::Response {
    let login = json!({"username": username, "password": PASSWORD, "client_id": "console", "scope": scope});
    app.post_json("/v1/login", &login).send().await.unwrap()
}

async fn user_id(app: &TestApp, username: &str) -> String {
    let found = app.administer(Method::GET, &format!("/admin/v1/users?username={username}"), None).await;
    found["users"][0]["id"].as_str().unwrap().to_owned()
}

async fn refusal(app: &TestApp, method: Method, path: &str, body: Value) -> (u16, String) {
    error_of(app.admin(method, path).json(&body).send().await.unwrap()).await
}

async fn events(app: &TestApp, filter: &str) -> Vec<(String, String)> {
    let found = app.administer(Method::GET, &format!("/admin/v1/audit?{filter}"), None).await;
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    found["events"].as_array().unwrap().iter().map(|event| (text(event, "event"), text(event, "actor"))).collect()
}

on_both_engines! {
    async fn authorization_is_checked_before_anything_else(database: TestDatabase) {
        let app = TestApp::start(database).await;
        console(&app).await;
        // It may have the scope because it may log users in. Its own tokens do not carry it.
        let robot = ClientSettings {
            grants: Grants::new([Grant::ClientCredentials, Grant::PasswordLogin]),
            ..machine(&[], ADMIN_SCOPE)
        };
        let robot = app.confidential("robot", robot).await;
        let batch = app.confidential("batch", machine(&[], "read")).await;
        let session = app.log_in().await;
        let revoked = app.log_in().await;
        app.revoke("session", &revoked.session_id).await;
        let without_role = tokens(log_in(&app, USER, None).await).await;
        assert_eq!(error_of(log_in(&app, USER, Some(ADMIN_SCOPE)).await).await, (400, "invalid_scope".into()));
        let from = Requester::command_line();
        let expired = app.service.administration.create_admin_key("short", Some(Duration::from_millis(1)), &from).await.unwrap();
        let deleted = app.service.administration.create_admin_key("gone", None, &from).await.unwrap();
        assert!(app.service.administration.delete_admin_key("gone", &from).await.unwrap());
        app.advance(Duration::from_millis(1)).await;
        let unauthenticated = [None, Some("Basic Z3c6eA=="), Some("Digest a=b")];
        let invalid = [
            "garbage", "a.b.c", "cs_admin_", "cs_admin_AAAA", &app.admin_key[..app.admin_key.len() - 1], expired.expose(), deleted.expose(),
            &revoked.access_token, &session.refresh_token, &app.gateway_secret,
        ];
        let not_allowed = [
            &session.access_token,
            &without_role.access_token,
            &app.token_of(&batch).await.access_token,
            &app.token_of(&robot).await.access_token,
        ];
        for operation in operations() {
            let name = format!("{} {}", operation.0, operation.1);
            for value in unauthenticated {
                let request = request(&app, &operation);
                let request = value.map_or_else(|| request.try_clone().unwrap(), |value| request.try_clone().unwrap().header("authorization", value));
                let answer = request.send().await.unwrap();
                assert_eq!(header(&answer, "www-authenticate"), "Bearer realm=\"countersign\"", "{name}");
                assert_eq!(error_of(answer).await, (401, "unauthenticated".into()), "{name}");
            }
            for token in invalid {
                let answer = request(&app, &operation).bearer_auth(token).send().await.unwrap();
                assert_eq!(header(&answer, "www-authenticate"), "Bearer realm=\"countersign\", error=\"invalid_token\"", "{name}");
                assert_eq!(error_of(answer).await, (401, "invalid_token".into()), "{name} {token}");
            }
            for token in not_allowed {
                let answer = request(&app, &operation).bearer_auth(token).send().await.unwrap();
                let challenge = format!("Bearer realm=\"countersign\", error=\"insufficient_scope\", scope=\"{ADMIN_SCOPE}\"");
                assert_eq!(header(&answer, "www-authenticate"), challenge, "{name}");
                assert_eq!(error_of(answer).await, (403, "insufficient_scope".into()), "{name}");
            }
            let twice = request(&app, &operation).bearer_auth(&app.admin_key).bearer_auth(&app.admin_key);
            assert_eq!(error_of(twice.send().await.unwrap()).await, (400, "invalid_request".into()), "h3 {name}");
        }
    }

    async fn admin_keys_clients_and_users_with_the_role_may_call_every_endpoint(database: TestDatabase) {
        let app = TestApp::start(database).await;
        console(&app).await;
        let ada = user_id(&app, USER).await;
        app.administer(Method::PATCH, &format!("/admin/v1/users/{ada}"), Some(json!({"roles": [ADMIN_SCOPE]}))).await;
        let user = tokens(log_in(&app, USER, Some(ADMIN_SCOPE)).await).await.access_token;
        let default = tokens(log_in(&app, USER, None).await).await;
        assert_eq!(default.scope, ADMIN_SCOPE);
        for token in [&app.admin_key, &user] {
            for operation in operations() {
                let answer = request(&app, &operation).bearer_auth(token).send().await.unwrap();
                let status = answer.status().as_u16();
                // The ids do not exist and the bodies are empty, but the caller is authorized.
                assert!(matches!(status, 200 | 201 | 400 | 404), "{} {} {status}", operation.0, operation.1);
                assert_eq!(header(&answer, "cache-control"), "no-store", "{}", operation.1);
            }
        }
        let make = |token: &str, name: &str| {
            let order = json!({"client_id": name, "type": "public"});
            app.http.post(format!("http://{}/admin/v1/clients", app.operations)).bearer_auth(token).json(&order)
        };
        for (token, name, actor) in [(app.admin_key.as_str(), "one", "admin-key:tests"), (&user, "two", &ada)] {
            let answer = make(token, name).header("x-request-id", format!("made-{name}")).send().await.unwrap();
            assert_eq!(answer.status(), 201);
            let found = app.administer(Method::GET, &format!("/admin/v1/audit?event=client.created&client={name}"), None).await;
            let event = &found["events"][0];
            assert_eq!((&event["actor"], &event["request_id"]), (&json!(actor), &json!(format!("made-{name}"))), "s4");
            assert_eq!(event["detail"]["address"], "127.0.0.1");
        }
        // The role is removed: the next token no longer has the scope.
        app.administer(Method::PATCH, &format!("/admin/v1/users/{ada}"), Some(json!({"roles": []}))).await;
        let refreshed = app.post_json("/v1/refresh", &json!({"refresh_token": default.refresh_token, "client_id": "console"}));
        let refreshed = tokens(refreshed.send().await.unwrap()).await;
        assert_eq!(refreshed.scope, "", "r9");
    }

    async fn i17_a_user_who_lost_the_role_is_refused_on_every_replica(database: TestDatabase) {
        let app = TestApp::start(database).await;
        console(&app).await;
        let other = app.beside(2, "").await;
        let ada = user_id(&app, USER).await;
        let path = format!("/admin/v1/users/{ada}");
        app.administer(Method::PATCH, &path, Some(json!({"roles": [ADMIN_SCOPE]}))).await;
        let token = tokens(log_in(&app, USER, Some(ADMIN_SCOPE)).await).await.access_token;
        let promote = async |replica: &TestApp| {
            let request = replica.http.patch(format!("http://{}{path}", replica.operations)).bearer_auth(&token);
            request.json(&json!({"roles": [ADMIN_SCOPE]})).send().await.unwrap()
        };
        assert_eq!(promote(&other).await.status(), 200);
        app.administer(Method::PATCH, &path, Some(json!({"roles": ["reader"]}))).await;
        for replica in [&app, &other] {
            assert_eq!(error_of(promote(replica).await).await, (403, "insufficient_scope".into()));
        }
        let user = app.administer(Method::GET, &path, None).await;
        assert_eq!(user["roles"], json!(["reader"]), "the role was not given back");
        app.set_enabled(USER, false).await;
        assert_eq!(error_of(promote(&app).await).await, (401, "invalid_token".into()));
    }

    async fn i17_a_client_cannot_have_the_admin_scope(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let order = json!({
            "client_id": "robot", "type": "confidential", "grants": ["client_credentials"], "scopes": ADMIN_SCOPE,
        });
        let answer = app.admin(Method::POST, "/admin/v1/clients").json(&order).send().await.unwrap();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["status"], &problem["errors"][0]["field"]), (&json!(400), &json!("scopes")), "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("countersign admin-key create"), "{problem}");
        // A client that an earlier release created.
        let robot = app.confidential("robot", machine(&[], "read")).await;
        app.database.tamper(&format!("UPDATE clients SET scopes = 'read {ADMIN_SCOPE}' WHERE id = 'robot'")).await;
        let app = app.beside(2, "").await;
        assert_eq!(app.token_of(&robot).await.scope, "read");
        let form = [("grant_type", "client_credentials"), ("scope", ADMIN_SCOPE)];
        let request = app.http.post(format!("http://{}/oauth2/token", app.public)).form(&form);
        let answer = request.basic_auth(&robot.id, Some(&robot.secret)).send().await.unwrap();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["error"], json!("invalid_scope"));
    }

    async fn i16_a_token_for_another_audience_is_refused_by_the_admin_api(database: TestDatabase) {
        let app = TestApp::start_with(database, "[tokens]\ndefault_audience = \"https://apis.example\"").await;
        console(&app).await;
        let orders = ClientSettings { audiences: vec![Audience::parse("https://orders.example").unwrap()], ..application(ADMIN_SCOPE) };
        app.client("orders", orders).await;
        let ada = user_id(&app, USER).await;
        app.administer(Method::PATCH, &format!("/admin/v1/users/{ada}"), Some(json!({"roles": [ADMIN_SCOPE]}))).await;
        let login = json!({"username": USER, "password": PASSWORD, "client_id": "orders"});
        let for_orders = tokens(app.post_json("/v1/login", &login).send().await.unwrap()).await;
        let by_default = tokens(log_in(&app, USER, Some(ADMIN_SCOPE)).await).await;
        let ask = async |token: &str| {
            app.http.get(format!("http://{}/admin/v1/status", app.operations)).bearer_auth(token).send().await.unwrap()
        };
        for token in [&for_orders, &by_default] {
            assert_eq!(token.scope, ADMIN_SCOPE);
            let answer = ask(&token.access_token).await;
            assert_eq!(header(&answer, "www-authenticate"), "Bearer realm=\"countersign\", error=\"invalid_token\"");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], json!("invalid_token"));
            assert!(problem["detail"].as_str().unwrap().contains("audience"), "{problem}");
        }
        let login = json!({"username": USER, "password": PASSWORD, "client_id": "console", "audience": ISSUER});
        let for_us = tokens(app.post_json("/v1/login", &login).send().await.unwrap()).await;
        assert_eq!(ask(&for_us.access_token).await.status(), 200);
    }

    async fn h14_the_public_listener_serves_no_admin_route(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for (method, path, _) in operations() {
            let answer = app.request(method.clone(), &path).bearer_auth(&app.admin_key).send().await.unwrap();
            assert_eq!(error_of(answer).await, (404, "not_found".into()), "{method} {path}");
        }
        assert_eq!(app.get("/metrics").send().await.unwrap().status(), 404);
        for path in ["/v1/login", "/oauth2/token", "/oauth2/introspect", "/v1/verify", "/.well-known/jwks.json"] {
            let answer = app.http.post(format!("http://{}{path}", app.operations)).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{path}");
        }
    }

    async fn while_the_view_is_stale_an_admin_key_works_and_a_token_is_503(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        outage::take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        let status = |token: &str| app.http.get(format!("http://{}/admin/v1/status", app.operations)).bearer_auth(token);
        let answer = status(&token).send().await.unwrap();
        assert_eq!(header(&answer, "retry-after"), "1");
        assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()));
        let answer: Value = status(&app.admin_key).send().await.unwrap().json().await.unwrap();
        assert_eq!((&answer["ready"], answer["view_age_seconds"].as_f64().unwrap() > 3.0), (&json!(false), true));
        outage::bring_feed_back(&app.database).await;
    }

    async fn d2_a_patch_makes_every_change_or_none(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("app", application("read")).await;
        let user = format!("/admin/v1/users/{}", app.user_id(USER).await);
        let client = "/admin/v1/clients/app".to_owned();
        for (path, table, change) in [
            (&user, "users", json!({"roles": ["c"], "enabled": false})),
            (&client, "clients", json!({"display_name": "New", "enabled": false})),
        ] {
            let before = app.administer(Method::GET, path, None).await;
            let broken = Broken::on(&app.database, "BEFORE UPDATE OF disabled_at", table).await;
            assert_eq!(refusal(&app, Method::PATCH, path, change.clone()).await, (500, "internal".into()), "{path}");
            broken.mend().await;
            app.sync().await;
            assert_eq!(app.administer(Method::GET, path, None).await, before, "the first change was undone with the second");
            let after = app.administer(Method::PATCH, path, Some(change)).await;
            assert_eq!((&after["enabled"], after == before), (&json!(false), false));
            assert_eq!(app.administer(Method::GET, path, None).await, after);
        }
    }

    async fn users_are_created_read_listed_changed_and_deleted(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let order = json!({"username": "Grace", "password": "a long enough pass phrase 1", "roles": ["b", "a", "b"]});
        let grace = app.administer(Method::POST, "/admin/v1/users", Some(order.clone())).await;
        let id = grace["id"].as_str().unwrap().to_owned();
        let expected = json!({
            "id": id, "username": "grace", "roles": ["a", "b"], "enabled": true, "epoch": 0,
            "created_at": "2027-01-15T08:00:00.000Z", "last_login_at": null,
        });
        assert_eq!(grace, expected);
        let path = format!("/admin/v1/users/{id}");
        assert_eq!(app.administer(Method::GET, &path, None).await, expected);
        assert_eq!(app.administer(Method::GET, "/admin/v1/users?username=GRACE", None).await, json!({"users": [expected]}));
        assert_eq!(app.administer(Method::GET, "/admin/v1/users?username=nobody", None).await, json!({"users": []}));
        assert_eq!(refusal(&app, Method::POST, "/admin/v1/users", order).await, (409, "conflict".into()));
        for (bad, code) in [
            (json!({"username": "x"}), "invalid_request"),
            (json!({"username": "", "password": "a long enough pass phrase 1"}), "invalid_request"),
            (json!({"username": "henry", "password": "short"}), "password_rejected"),
            (json!({"username": "henry", "password": "a long enough pass phrase 1", "roles": ["a b"]}), "invalid_request"),
            (json!({"username": "henry", "password": "a long enough pass phrase 1", "admin": true}), "invalid_request"),
            (json!({"username": "\"".repeat(51), "password": "a long enough pass phrase 1"}), "invalid_request"),
            (json!({"username": "henry", "password": "a long enough pass phrase 1", "roles": (0..8).map(|n| format!("{n:064}")).collect::<Vec<_>>()}), "invalid_request"),
        ] {
            assert_eq!(refusal(&app, Method::POST, "/admin/v1/users", bad).await, (400, code.into()));
        }
        let changed = app.administer(Method::PATCH, &path, Some(json!({"roles": ["c"], "enabled": false}))).await;
        assert_eq!((&changed["roles"], &changed["enabled"], &changed["epoch"]), (&json!(["c"]), &json!(false), &json!(1)));
        assert_eq!(app.administer(Method::PATCH, &path, Some(json!({}))).await, changed, "what is left out stays");
        app.administer(Method::PATCH, &path, Some(json!({"enabled": true}))).await;
        let login = json!({"username": "grace", "password": "another pass phrase 22"});
        assert_eq!(app.post_json("/v1/login", &login).send().await.unwrap().status(), 401);
        app.administer(Method::PUT, &format!("{path}/password"), Some(json!({"password": "another pass phrase 22"}))).await;
        let session = tokens(app.post_json("/v1/login", &login).send().await.unwrap()).await;
        assert!(app.is_active(&session.access_token).await);
        app.administer(Method::PUT, &format!("{path}/password"), Some(json!({"password": "yet another phrase 33"}))).await;
        assert!(!app.is_active(&session.access_token).await, "p12: a new password ends what the former one opened");
        app.administer(Method::DELETE, &path, None).await;
        for (method, path, body) in [
            (Method::GET, path.clone(), json!(null)),
            (Method::PATCH, path.clone(), json!({"enabled": true})),
            (Method::PATCH, path.clone(), json!({"roles": []})),
            (Method::PATCH, path.clone(), json!({})),
            (Method::PUT, format!("{path}/password"), json!({"password": "yet another phrase 33"})),
            (Method::DELETE, path.clone(), json!(null)),
            (Method::GET, "/admin/v1/users/grace".into(), json!(null)),
        ] {
            assert_eq!(refusal(&app, method.clone(), &path, body).await, (404, "not_found".into()), "{method} {path}");
        }
        let names: Vec<_> = events(&app, &format!("subject={id}")).await.into_iter().map(|(name, _)| name).collect();
        let expected = [
            "user.deleted", "user.password_set", "login.succeeded", "user.password_set", "user.enabled", "user.disabled",
            "user.roles_changed", "user.created",
        ];
        assert_eq!(names.iter().filter(|name| *name != "login.failed").collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }

    async fn users_are_listed_in_pages_by_name(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let line = |name: &str| format!("{{\"username\":\"{name}\",\"password_hash\":\"$2b$04$abcdefghijklmnopqrstuuMfJ3e1C3Ck4wvA0nPQv4kWIp8Qm5wGa\"}}\n");
        let lines: String = ["bob", "carol", "dave", "erin"].map(line).concat();
        let import = app.admin(Method::POST, "/admin/v1/users/import").header("content-type", "application/jsonl").body(lines);
        assert_eq!(import.send().await.unwrap().json::<Value>().await.unwrap()["created"], 4);
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.administer(Method::GET, &format!("/admin/v1/users?limit=2&cursor={cursor}"), None).await;
            let users = page["users"].as_array().unwrap();
            assert!(users.len() <= 2);
            seen.extend(users.iter().map(|user| user["username"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(seen, ["ada", "bob", "carol", "dave", "erin"]);
        for bad in ["limit=0", "limit=501", "limit=x", "limit=1&limit=2", "limit=-1", "unknown=1", "cursor=%00", "limit=%zz"] {
            assert_eq!(refusal(&app, Method::GET, &format!("/admin/v1/users?{bad}"), json!(null)).await, (400, "invalid_request".into()), "{bad}");
        }
    }

    async fn an_import_reports_the_outcome_of_each_line(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let hash = "$2b$04$abcdefghijklmnopqrstuuMfJ3e1C3Ck4wvA0nPQv4kWIp8Qm5wGa";
        let good = |name: &str| format!("{{\"username\":\"{name}\",\"password_hash\":\"{hash}\"}}");
        let lines = [good("bob"), "not json".into(), good(USER), String::new(), good("carol"), "{\"username\":\"x\"}".into()].join("\n");
        let import = |body: String, media: &str| {
            app.admin(Method::POST, "/admin/v1/users/import").header("content-type", media).body(body)
        };
        let report: Value = import(lines.clone(), "application/x-ndjson").send().await.unwrap().json().await.unwrap();
        assert_eq!((&report["created"], &report["skipped"]), (&json!(2), &json!(0)));
        let numbers: Vec<_> = report["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64().unwrap()).collect();
        assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>(), [2, 3, 6].iter().collect());
        assert!(!report.to_string().contains(hash), "s1");
        let again: Value = import(lines, "application/jsonl").send().await.unwrap().json().await.unwrap();
        assert_eq!((&again["created"], &again["skipped"]), (&json!(0), &json!(2)));
        assert_eq!(error_of(import("{}".into(), "application/json").send().await.unwrap()).await, (415, "unsupported_media_type".into()));
        let large = "x".repeat(1024 * 1024 + 1);
        assert_eq!(error_of(import(large, "application/jsonl").send().await.unwrap()).await, (413, "payload_too_large".into()));
    }

    async fn clients_are_created_read_listed_changed_and_deleted(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let order = json!({
            "client_id": "api", "type": "confidential", "display_name": "The API", "grants": ["client_credentials"],
            "audiences": ["https://api.example"], "scopes": "write read", "introspect": "own", "access_ttl": 600,
            "algorithm": "ES256", "token_type": "JWT",
        });
        let mut made = app.administer(Method::POST, "/admin/v1/clients", Some(order.clone())).await;
        let secret = made.as_object_mut().unwrap().remove("client_secret").unwrap();
        let expected = json!({
            "client_id": "api", "type": "confidential", "display_name": "The API", "grants": ["client_credentials"],
            "audiences": ["https://api.example"], "scopes": "read write", "introspect": "own", "access_ttl": 600,
            "feed": "none", "algorithm": "ES256", "token_type": "JWT", "jwks": null, "enabled": true, "epoch": 0, "secrets": 1,
            "created_at": "2027-01-15T08:00:00.000Z",
        });
        assert_eq!(made, expected);
        let read = app.administer(Method::GET, "/admin/v1/clients/api", None).await;
        assert_eq!(read, expected, "the secret is shown once");
        let list = app.administer(Method::GET, "/admin/v1/clients", None).await;
        let ids: Vec<_> = list["clients"].as_array().unwrap().iter().map(|client| client["client_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["api", "countersign", "gateway"]);
        let api = Credentials { id: "api".into(), secret: secret.as_str().unwrap().into() };
        let token = app.token_of(&api).await;
        assert_eq!((token.expires_in, header_of(&token.access_token)["typ"].as_str()), (600, Some("JWT")));
        assert_eq!(refusal(&app, Method::POST, "/admin/v1/clients", order).await, (409, "conflict".into()));
        let cleared = json!({"access_ttl": null, "algorithm": null, "token_type": null, "scopes": "", "display_name": ""});
        let changed = app.administer(Method::PATCH, "/admin/v1/clients/api", Some(cleared)).await;
        for name in ["access_ttl", "algorithm", "token_type"] {
            assert_eq!(changed[name], Value::Null);
        }
        assert_eq!((&changed["scopes"], &changed["audiences"]), (&json!(""), &expected["audiences"]));
        assert_eq!(app.token_of(&api).await.expires_in, 300);
        assert_eq!(app.administer(Method::PATCH, "/admin/v1/clients/api", Some(json!({}))).await, changed);
        let own = json!({"access_ttl": 60, "algorithm": "ES256", "token_type": "JWT"});
        assert_eq!(app.administer(Method::PATCH, "/admin/v1/clients/api", Some(own)).await["access_ttl"], 60);
        let cleared = json!({"access_ttl": "default", "algorithm": "default", "token_type": "default"});
        assert_eq!(app.administer(Method::PATCH, "/admin/v1/clients/api", Some(cleared)).await, changed, "as on the command line");
        app.administer(Method::PATCH, "/admin/v1/clients/api", Some(json!({"enabled": false}))).await;
        assert_eq!(error_of(app.token_request(&api, &[]).await).await, (401, "invalid_client".into()));
        app.administer(Method::PATCH, "/admin/v1/clients/api", Some(json!({"enabled": true}))).await;
        assert_eq!(app.token_request(&api, &[]).await.status(), 200);
        app.administer(Method::DELETE, "/admin/v1/clients/api", None).await;
        assert_eq!(error_of(app.token_request(&api, &[]).await).await, (401, "invalid_client".into()));
        let built_in = "/admin/v1/clients/countersign";
        assert_eq!(refusal(&app, Method::DELETE, built_in, json!(null)).await, (409, "conflict".into()));
        assert_eq!(app.administer(Method::GET, built_in, None).await["enabled"], true);
        for (method, path, body) in [
            (Method::GET, "/admin/v1/clients/api", json!(null)),
            (Method::PATCH, "/admin/v1/clients/api", json!({"scopes": "a"})),
            (Method::DELETE, "/admin/v1/clients/api", json!(null)),
            (Method::GET, "/admin/v1/clients/%20", json!(null)),
        ] {
            assert_eq!(refusal(&app, method, path, body).await, (404, "not_found".into()), "{path}");
        }
    }

    async fn clients_are_listed_in_pages_by_id(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for id in ["web", "app", "batch"] {
            app.client(id, application("")).await;
        }
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.administer(Method::GET, &format!("/admin/v1/clients?limit=2&cursor={cursor}"), None).await;
            let ids = page["clients"].as_array().unwrap().iter().map(|client| client["client_id"].as_str().unwrap().to_owned());
            seen.push(ids.collect::<Vec<_>>());
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(seen, [vec!["app", "batch"], vec!["countersign", "gateway"], vec!["web"]]);
        let whole = app.administer(Method::GET, "/admin/v1/clients?limit=5", None).await;
        assert_eq!((whole["clients"].as_array().unwrap().len(), &whole["next_cursor"]), (5, &Value::Null));
        for bad in ["limit=0", "limit=501", "limit=x", "limit=1&limit=2", "unknown=1", "cursor=usr_x", "cursor=%00", "limit=%zz"] {
            assert_eq!(refusal(&app, Method::GET, &format!("/admin/v1/clients?{bad}"), json!(null)).await, (400, "invalid_request".into()), "{bad}");
        }
    }

    async fn contradictory_client_settings_are_refused_with_the_field(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for (order, field) in [
            (json!({"type": "public"}), None),
            (json!({"client_id": "x"}), None),
            (json!({"client_id": "a b", "type": "public"}), Some("client_id")),
            (json!({"client_id": "usr_x", "type": "public"}), Some("client_id")),
            (json!({"client_id": "x", "type": "secret"}), Some("type")),
            (json!({"client_id": "x", "type": "public", "grants": ["password"]}), Some("grants[0]")),
            (json!({"client_id": "x", "type": "public", "grants": ["client_credentials"]}), Some("grants")),
            (json!({"client_id": "x", "type": "public", "introspect": "any"}), Some("introspect")),
            (json!({"client_id": "x", "type": "public", "introspect": "all"}), Some("introspect")),
            (json!({"client_id": "x", "type": "public", "audiences": ["ok", "a b"]}), Some("audiences[1]")),
            (json!({"client_id": "x", "type": "public", "scopes": "a  b"}), Some("scopes")),
            (json!({"client_id": "x", "type": "public", "scopes": "s".repeat(1008)}), Some("scopes")),
            (json!({"client_id": "x", "type": "public", "audiences": ["a".repeat(256), "b".repeat(256)], "scopes": "s".repeat(512)}), Some("audiences")),
            (json!({"client_id": "x", "type": "public", "access_ttl": 29}), Some("access_ttl")),
            (json!({"client_id": "x", "type": "public", "access_ttl": 3601}), Some("access_ttl")),
            (json!({"client_id": "x", "type": "public", "access_ttl": "5m"}), Some("access_ttl")),
            (json!({"client_id": "x", "access_ttl": -1, "type": "public"}), Some("access_ttl")),
            (json!({"client_id": "x", "access_ttl": 60.5, "type": "public"}), Some("access_ttl")),
            (json!({"client_id": "x", "access_ttl": true, "type": "public"}), Some("access_ttl")),
            (json!({"client_id": "x", "type": "public", "algorithm": "HS256"}), Some("algorithm")),
            (json!({"client_id": "x", "type": "public", "token_type": "at-jwt"}), Some("token_type")),
            (json!({"client_id": "x", "type": "public", "display_name": "x".repeat(257)}), Some("display_name")),
            (json!({"client_id": "x", "type": "public", "jwks": {"keys": []}}), Some("jwks")),
            (json!({"client_id": "x", "type": "public", "secret": "mine"}), Some("secret")),
        ] {
            let answer = app.admin(Method::POST, "/admin/v1/clients").json(&order).send().await.unwrap();
            assert_eq!(answer.status(), 400, "{order}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!((&problem["code"], problem["errors"][0]["field"].as_str()), (&json!("invalid_request"), field), "{order}");
        }
        for fixed in [json!({"client_id": "y"}), json!({"type": "public"})] {
            assert_eq!(refusal(&app, Method::PATCH, "/admin/v1/clients/gateway", fixed).await, (400, "invalid_request".into()));
        }
        let public = json!({"grants": ["client_credentials"]});
        assert_eq!(refusal(&app, Method::PATCH, "/admin/v1/clients/countersign", public).await.0, 400);
    }

    async fn sessions_are_listed_by_user_or_client_and_ended(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", application("")).await;
        let (one, two) = (app.log_in().await, app.log_in_on("web").await);
        let ada = user_id(&app, USER).await;
        let ids = async |filter: &str| {
            let list = app.administer(Method::GET, &format!("/admin/v1/sessions?{filter}"), None).await;
            let ids = list["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned());
            ids.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(ids(&format!("user={ada}")).await, [one.session_id.clone(), two.session_id.clone()].into());
        assert_eq!(ids("client=web").await, [two.session_id.clone()].into());
        assert_eq!(ids(&format!("user={NOBODY}")).await.len(), 0);
        let page = app.administer(Method::GET, &format!("/admin/v1/sessions?user={ada}&limit=1"), None).await;
        let rest = ids(&format!("user={ada}&limit=1&cursor={}", page["next_cursor"].as_str().unwrap())).await;
        assert_eq!(rest.len(), 1);
        for bad in ["", "user=x", &format!("user={ada}&client=web"), "client=a b", &format!("user={ada}&limit=501"), "client=web&cursor=x"] {
            assert_eq!(refusal(&app, Method::GET, &format!("/admin/v1/sessions?{bad}"), json!(null)).await.0, 400, "{bad}");
        }
        for (bad, told) in [("", "`user`"), ("user=ada", "usr_…"), (&format!("user={ada}&client=web"), "not both")] {
            let answer = app.admin(Method::GET, &format!("/admin/v1/sessions?{bad}")).send().await.unwrap();
            let text = answer.text().await.unwrap();
            assert!(text.contains(told), "what to send is said: {text}");
        }
        let path = format!("/admin/v1/sessions/{}", one.session_id);
        app.administer(Method::DELETE, &path, None).await;
        assert!(!app.is_active(&one.access_token).await && app.is_active(&two.access_token).await);
        assert_eq!(app.refresh(&one.refresh_token).await.status(), 401);
        app.administer(Method::DELETE, &path, None).await;
        assert_eq!(ids(&format!("user={ada}")).await, [two.session_id].into());
        for unknown in [NO_SESSION, "x", &ada] {
            assert_eq!(refusal(&app, Method::DELETE, &format!("/admin/v1/sessions/{unknown}"), json!(null)).await, (404, "not_found".into()));
        }
    }

    async fn a_revocation_names_exactly_one_target_and_is_listed_while_live(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", application("")).await;
        let ada = user_id(&app, USER).await;
        let session = app.log_in_on("web").await;
        let jti = claims_of(&session.access_token)["jti"].as_str().unwrap().to_owned();
        let kid = header_of(&session.access_token)["kid"].as_str().unwrap().to_owned();
        let orders = [("jti", jti.as_str()), ("session", &session.session_id), ("user", &ada), ("client", "web"), ("key", &kid)];
        for (kind, id) in orders {
            app.revoke(kind, id).await;
        }
        let list = app.administer(Method::GET, "/admin/v1/revocations", None).await;
        let listed: Vec<_> = list["revocations"].as_array().unwrap().iter().map(|one| (one["kind"].as_str().unwrap(), one["subject"].as_str().unwrap())).collect();
        assert_eq!(listed, orders);
        assert_eq!(list["revocations"][2]["below_epoch"], 1);
        assert_eq!(list["revocations"][0]["created_at"], "2027-01-15T08:00:00.000Z");
        assert_eq!(list["revocations"][0]["expires_at"], "2027-01-15T09:02:00.000Z", "i12");
        let status = app.administer(Method::GET, "/admin/v1/status", None).await;
        assert_eq!(status["revocations"], json!({"jti": 1, "session": 1, "user": 1, "client": 1, "key": 1, "everything": 0}));
        let mut seen = 0;
        let mut cursor = String::new();
        loop {
            let page = app.administer(Method::GET, &format!("/admin/v1/revocations?limit=2&cursor={cursor}"), None).await;
            seen += page["revocations"].as_array().unwrap().len();
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(seen, 5);
        for (order, expected) in [
            (json!({}), 400),
            (json!({"jti": "a", "user": ada}), 400),
            (json!({"token": "x"}), 400),
            (json!({"jti": ""}), 400),
            (json!({"user": "ada"}), 400),
            (json!({"session": "x"}), 400),
            (json!({"client": "a b"}), 400),
            (json!({"key": "a b"}), 400),
            (json!({"user": NOBODY}), 404),
            (json!({"session": NO_SESSION}), 404),
            (json!({"client": "nobody"}), 404),
            (json!({"key": "unknown"}), 404),
            // Nothing is stored per access token, so any jti may be one.
            (json!({"jti": "unknown"}), 204),
        ] {
            let answer = app.admin(Method::POST, "/admin/v1/revocations").json(&order).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), expected, "{order}");
        }
        app.advance(Duration::from_secs(3720)).await;
        let list = app.administer(Method::GET, "/admin/v1/revocations", None).await;
        assert_eq!(list, json!({"revocations": []}));
    }

    async fn the_audit_trail_is_filtered_and_paged(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("web", application("")).await;
        app.log_in_on("web").await;
        for event in ["user.created", "client.created", "login.succeeded"] {
            let found = events(&app, &format!("event={event}")).await;
            assert!(!found.is_empty() && found.iter().all(|(name, _)| name == event), "{found:?}");
        }
        assert_eq!(events(&app, "event=client.created&client=web").await, [("client.created".into(), "cli".into())]);
        assert_eq!(events(&app, "actor=nobody").await, []);
        assert_eq!(events(&app, "event=key.added").await, [("key.added".into(), "background".into())]);
        let all = events(&app, "").await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.administer(Method::GET, &format!("/admin/v1/audit?limit=2&cursor={cursor}"), None).await;
            seen.extend(page["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(seen, all.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        for bad in ["limit=0", "limit=1001", "cursor=x", "event=a&event=b", "since=x"] {
            assert_eq!(refusal(&app, Method::GET, &format!("/admin/v1/audit?{bad}"), json!(null)).await, (400, "invalid_request".into()), "{bad}");
        }
    }

    async fn the_status_endpoint_describes_the_replica(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        assert!(app.is_active(&token).await);
        app.clock.step(250);
        app.sync().await;
        let mut status = app.administer(Method::GET, "/admin/v1/status", None).await;
        let keys = status["keys"].as_array_mut().unwrap();
        keys[0]["kid"] = json!("(varies)");
        status["revocation_lag_seconds"] = json!("(varies)");
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"), "ready": true, "view_age_seconds": 0.0, "revocation_lag_seconds": "(varies)",
            "clock_offset_seconds": 0.25, "revocations": {"jti": 0, "session": 0, "user": 0, "client": 0, "key": 0, "everything": 0},
            "cached_tokens": 1, "clients": 2, "password_queue": 0, "problems": [],
            "keys": [{
                "kid": "(varies)", "algorithm": "ES256", "state": "signing", "announced_at": "2027-01-15T08:00:00.000Z",
                "signs_from": "2027-01-15T08:00:00.000Z", "retires_at": null, "gone_at": null,
            }],
        });
        assert_eq!(status, expected);
    }

    async fn d6_a_database_that_cannot_be_written_is_503_and_no_change_is_partial(database: TestDatabase) {
        let app = TestApp::start_with(database, "[database]\nstatement_timeout = \"300ms\"\nacquire_timeout = \"300ms\"").await;
        let session = app.log_in().await;
        let stopped = outage::stop_writes(&app.database).await;
        for (method, path, body) in [
            (Method::POST, "/admin/v1/revocations", json!({"session": session.session_id})),
            (Method::POST, "/admin/v1/revocations", json!({"client": "gateway"})),
            (Method::POST, "/admin/v1/keys/rotate", json!({})),
            (Method::POST, "/admin/v1/clients", json!({"client_id": "x", "type": "public"})),
        ] {
            let answer = app.admin(method, path).json(&body).send().await.unwrap();
            assert_eq!(header(&answer, "retry-after"), "1");
            assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()), "{path}");
        }
        drop(stopped);
        assert!(app.is_active(&session.access_token).await);
        app.revoke("session", &session.session_id).await;
        assert!(!app.is_active(&session.access_token).await);
    }

    async fn the_clients_scope_and_the_users_role_are_both_required(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.client("console", ClientSettings { scopes: ScopeSet::parse("read").unwrap(), ..application("") }).await;
        let ada = user_id(&app, USER).await;
        app.administer(Method::PATCH, &format!("/admin/v1/users/{ada}"), Some(json!({"roles": [ADMIN_SCOPE]}))).await;
        assert_eq!(tokens(log_in(&app, USER, None).await).await.scope, "read");
        assert_eq!(error_of(log_in(&app, USER, Some(ADMIN_SCOPE)).await).await, (400, "invalid_scope".into()));
    }
}

on_both_engines! {
    async fn a_request_without_required_members_needs_no_body(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.confidential("web", ClientSettings::new(ClientKind::Confidential)).await;
        for path in ["/admin/v1/keys/rotate", "/admin/v1/clients/web/secret"] {
            assert_eq!(app.admin(Method::POST, path).send().await.unwrap().status(), 201, "{path}");
            let announced = app.admin(Method::POST, path).header("content-type", "application/json");
            assert_eq!(announced.send().await.unwrap().status(), 201, "{path}");
            let other = app.admin(Method::POST, path).header("content-type", "text/plain").body("{}");
            assert_eq!(other.send().await.unwrap().status(), 415, "{path}");
        }
    }
}
