//! The command line beside a running service, which sees its changes within the bound.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use super::support::app::{Tokens, error_of};
use super::support::database::{Engine, TestDatabase, on_both_engines};
use super::support::process::{Home, PASSWORD, Server};

/// Four poll intervals. The promised bound is 1 s; the rest allows for a machine that is busy with other tests.
const BOUND: Duration = Duration::from_secs(2);

on_both_engines! {
    async fn the_audit_trail_is_exported_as_json_lines_up_to_a_day(database: TestDatabase) {
        let home = Home::on(database);
        home.user("ada");
        let server = home.serve();
        let session = server.log_in("ada").await.session_id;
        let lines = home.out(&["audit", "export", "--before", "2100-01-01"]);
        let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!((names[names.len() - 1], names.contains(&"user.created")), ("login.succeeded", true), "{names:?}");
        assert_eq!(events[events.len() - 1]["session"], session.as_str());
        assert!(events.is_sorted_by(|one, other| one["at"].as_str() <= other["at"].as_str()));
        assert_eq!(home.out(&["audit", "export", "--before", "2020-01-01"]), "");
    }

    async fn a_revocation_by_the_command_line_applies_to_a_running_service(database: TestDatabase) {
        let home = Home::on(database);
        home.user("ada");
        let secret = home.gateway();
        let server = home.serve();
        let is_dead = async |server: &Server, tokens: &Tokens, what: &str| {
            until(what, async || server.introspect(&secret, &tokens.access_token).await["active"] == false).await;
        };
        let is_spent = async |server: &Server, tokens: &Tokens| {
            let answer = server.post("/v1/refresh", &json!({"refresh_token": tokens.refresh_token})).send().await.unwrap();
            assert_eq!(error_of(answer).await, (401, "invalid_refresh_token".to_owned()));
        };

        let by_session = server.log_in("ada").await;
        let witness = server.log_in("ada").await;
        home.out(&["revoke", "--session", &by_session.session_id]);
        is_dead(&server, &by_session, "--session").await;
        is_spent(&server, &by_session).await;

        let by_jti = server.log_in("ada").await;
        let claims = server.introspect(&secret, &by_jti.access_token).await;
        home.out(&["revoke", "--jti", claims["jti"].as_str().unwrap()]);
        is_dead(&server, &by_jti, "--jti").await;

        let by_token = server.log_in("ada").await;
        let revoked = home.run_with(&["revoke", "--token"], &format!("{}\n", by_token.access_token));
        assert!(!revoked.stdout.contains(&by_token.access_token));
        revoked.ok(&["revoke --token"]);
        is_dead(&server, &by_token, "--token with an access token").await;

        let by_file = server.log_in("ada").await;
        std::fs::write(home.path().join("token"), &by_file.refresh_token).unwrap();
        home.out(&["revoke", "--token-file", "token"]);
        is_dead(&server, &by_file, "--token-file with a refresh token").await;
        is_spent(&server, &by_file).await;

        assert_eq!(server.introspect(&secret, &witness.access_token).await["active"], true, "nothing else is hit");
        home.out(&["revoke", "--user", "ada"]);
        is_dead(&server, &witness, "--user").await;
        is_spent(&server, &witness).await;

        // A login right after it is not revoked, whether or not the service has polled the entry.
        let by_client = server.log_in("ada").await;
        home.out(&["revoke", "--client", "countersign"]);
        let of_everything = server.log_in("ada").await;
        is_dead(&server, &by_client, "--client").await;
        assert_eq!(server.introspect(&secret, &of_everything.access_token).await["active"], true);

        let asked = home.run(&["revoke", "--everything"]).refusal(2);
        assert!(asked.contains("sessions and makes every token") && asked.contains("--yes"), "{asked}");
        assert_eq!(server.introspect(&secret, &of_everything.access_token).await["active"], true);
        home.out(&["revoke", "--everything", "--yes"]);
        let after = server.log_in("ada").await;
        is_dead(&server, &of_everything, "--everything").await;
        is_spent(&server, &of_everything).await;
        assert_eq!(server.introspect(&secret, &after.access_token).await["active"], true);

        let forged = home.run_with(&["revoke", "--token"], "eyJhbGciOiJub25lIn0.e30.");
        assert!(forged.refusal(1).contains("not active anyway"));
    }

    async fn a_change_by_the_command_line_applies_to_a_running_service(database: TestDatabase) {
        let home = Home::on(database);
        home.user("ada");
        let server = home.serve();
        let log_in = async |password: &str| {
            let body = json!({"username": "ada", "password": password});
            server.post("/v1/login", &body).send().await.unwrap().status()
        };
        assert_eq!(log_in(PASSWORD).await, StatusCode::OK);
        home.out(&["users", "disable", "ada"]);
        until("a disabled user", async || log_in(PASSWORD).await == StatusCode::UNAUTHORIZED).await;
        home.out(&["users", "enable", "ada"]);
        until("an enabled user", async || log_in(PASSWORD).await == StatusCode::OK).await;
        home.run_with(&["users", "set-password", "ada", "--password-stdin"], "another fine passphrase 31").ok(&[]);
        until("a new password", async || log_in("another fine passphrase 31").await == StatusCode::OK).await;

        let secret = home.gateway();
        let tokens = server.post("/v1/login", &json!({"username": "ada", "password": "another fine passphrase 31"}));
        let tokens: Tokens = tokens.send().await.unwrap().json().await.unwrap();
        let introspection = async |secret: &str| {
            let request = server.http.post(format!("{}/oauth2/introspect", server.public));
            let request = request.form(&[("token", &tokens.access_token)]).basic_auth("gateway", Some(secret));
            request.send().await.unwrap().status()
        };
        until("a new client", async || introspection(&secret).await == StatusCode::OK).await;
        let renewed = home.json(&["clients", "new-secret", "gateway", "--grace", "0s"]);
        let renewed = renewed["client_secret"].as_str().unwrap();
        until("a new secret", async || introspection(renewed).await == StatusCode::OK).await;
        assert_eq!(introspection(&secret).await, StatusCode::UNAUTHORIZED);
        home.out(&["clients", "disable", "gateway"]);
        until("a disabled client", async || introspection(renewed).await == StatusCode::UNAUTHORIZED).await;

        let kid = home.json(&["keys", "rotate"])["kid"].as_str().unwrap().to_owned();
        let published = async || {
            let set = server.http.get(format!("{}/.well-known/jwks.json", server.public)).send().await.unwrap();
            set.text().await.unwrap().contains(&kid)
        };
        until("an announced key", published).await;
        home.out(&["keys", "withdraw", &kid]);
        until("a withdrawn key", async || !published().await).await;

        let key = home.out(&["admin-key", "create", "ci"]);
        let administration = async || {
            let request = server.http.get(format!("{}/admin/v1/status", server.operations));
            request.bearer_auth(key.trim()).send().await.unwrap().status()
        };
        until("a new admin key", async || administration().await == StatusCode::OK).await;
        home.out(&["admin-key", "delete", "ci"]);
        until("a deleted admin key", async || administration().await == StatusCode::UNAUTHORIZED).await;

        let printed = server.printed.lock().unwrap().clone();
        for secret in [PASSWORD, "another fine passphrase 31", &secret, renewed, key.trim(), &tokens.access_token] {
            assert!(!printed.contains(secret), "s1: {printed}");
        }
    }
}

/// Repeats the check until it succeeds, at most for [`BOUND`]. The pause between two checks keeps refused clients below
/// their rate limit.
async fn until(what: &str, is_reached: impl AsyncFn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "the process under test has the machine's clock")]
    let started = Instant::now();
    while !is_reached().await {
        assert!(started.elapsed() < BOUND, "the service does not see it: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_the_audit_trail_names_the_operating_system_user_and_host_of_a_command() {
    let home = Home::empty();
    let server = home.serve();
    home.user("ada");
    let key = home.json(&["admin-key", "create", "tests"])["admin_key"].as_str().unwrap().to_owned();
    let trail = server.http.get(format!("{}/admin/v1/audit?event=user.created", server.operations)).bearer_auth(key);
    let trail: serde_json::Value = trail.send().await.unwrap().json().await.unwrap();
    let actor = trail["events"][0]["actor"].as_str().unwrap();
    let (user, host) = actor.strip_prefix("cli:").unwrap().split_once('@').unwrap();
    assert!(!user.is_empty() && !host.is_empty(), "{actor}");
}
