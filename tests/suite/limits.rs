//! Limits on guessing (security.md group L).

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use sqlx::Executor;

use crate::support::app::{ISSUER, PASSWORD, TestApp, USER, error_of, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines, pool_size};
use crate::support::judging::{Credentials, header};
use crate::support::sessions::*;
use crate::support::size::size;

/// The tests' own connection counts as a trusted proxy, so that they can use any client address.
const BEHIND_A_PROXY: &str = "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
const OWNER: &str = "192.0.2.1";

async fn log_in_from(app: &TestApp, address: &str, name: &str, password: &str) -> Response {
    let request = app.post_json("/v1/login", &json!({"username": name, "password": password}));
    let answer = request.header("x-forwarded-for", address).header("x-request-id", "the-same").send().await.unwrap();
    is_private(&answer);
    answer
}

/// The status of a login, and its `Retry-After`.
async fn attempt(app: &TestApp, address: &str, name: &str, password: &str) -> (u16, u64) {
    let answer = log_in_from(app, address, name, password).await;
    (answer.status().as_u16(), header(&answer, "retry-after").parse().unwrap_or(0))
}

on_both_engines! {
    async fn l4_delays_grow_apply_to_the_right_password_too_and_expire(database: TestDatabase) {
        let app = TestApp::start_with(database, &format!("{BEHIND_A_PROXY}[limits.account]\nfree = 3\n")).await;
        for address in 1..=4 {
            assert_eq!(attempt(&app, &format!("198.51.100.{address}"), USER, "wrong password").await.0, 401);
        }
        for wait in [1, 1, 3, 3] {
            assert_eq!(attempt(&app, OWNER, USER, PASSWORD).await, (429, wait), "the right one is not looked at");
            app.advance(Duration::from_secs(wait) - Duration::from_millis(1)).await;
            assert_eq!(attempt(&app, OWNER, USER, PASSWORD).await, (429, 1));
            app.advance(Duration::from_millis(1)).await;
            assert_eq!(attempt(&app, "198.51.100.9", USER, "wrong password").await.0, 401);
        }
        app.advance(Duration::from_secs(10)).await;
        assert_eq!(attempt(&app, OWNER, USER, PASSWORD).await.0, 200);
        for _ in 0..4 {
            assert_eq!(attempt(&app, "198.51.100.9", USER, "wrong password").await.0, 401, "a success begins anew");
        }
        assert_eq!(app.figure("countersign_attempts_refused_total{limit=\"account\"}").await, 8.0);
    }

    async fn l2_l3_of_hundreds_of_concurrent_guesses_on_three_replicas_only_the_limit_is_checked(database: TestDatabase) {
        // On a busy machine hundreds of commits take longer than a request waits for a connection in production.
        let settings = "[limits.account]\nfree = 9\n[limits.pair]\nfree = 9\n[limits.address]\nburst = 2000\n\
            [database]\nacquire_timeout = \"20s\"\n";
        let first = TestApp::start_with(database, settings).await;
        let replicas = [first.beside(2, settings).await, first.beside(3, settings).await, first].map(Arc::new);
        let hashed = async || replicas[0].hashed().await + replicas[1].hashed().await + replicas[2].hashed().await;
        let before = hashed().await;
        let guesses: Vec<_> = (0..size(200, 1000))
            .map(|number: usize| {
                let app = Arc::clone(&replicas[number % 3]);
                tokio::spawn(async move {
                    let guess = json!({"username": USER, "password": format!("guess number {number}")});
                    app.login(&guess).await.status().as_u16()
                })
            })
            .collect();
        let mut looked_at = 0;
        for guess in guesses {
            match guess.await.unwrap() {
                401 => looked_at += 1,
                status => assert_eq!(status, 429),
            }
        }
        assert_eq!(looked_at, 10, "the free ones, and the one that brings the first delay");
        assert_eq!(hashed().await - before, 10, "L3: counted before hashing");
        assert_eq!(TestApp::failed_logins(&replicas).await, 10);
    }

    async fn l4_failures_from_other_addresses_lock_out_neither_a_known_address_nor_a_session(database: TestDatabase) {
        let settings = format!("{BEHIND_A_PROXY}[limits]\nhard_stop = 5\nhard_stop_for = \"1h\"\n[limits.account]\nfree = 5\n");
        let app = TestApp::start_with(database, &settings).await;
        let session = tokens(log_in_from(&app, OWNER, USER, PASSWORD).await).await;
        for address in 1..=5 {
            assert_eq!(attempt(&app, &format!("198.51.100.{address}"), USER, "wrong password").await.0, 401);
        }
        let (status, wait) = attempt(&app, "198.51.100.7", USER, PASSWORD).await;
        assert_eq!((status, wait), (429, 3600), "unknown addresses wait, with the right password too");
        assert_eq!(app.audit("login.locked").await.len(), 1);
        let other = app.beside(2, &settings).await;
        assert_eq!(app.refresh(&session.refresh_token).await.status(), 200, "a lock is no logout");
        // The address is known to a replica that never served the owner, and after a restart.
        assert_eq!(attempt(&other, OWNER, USER, "mistyped password").await.0, 401);
        assert_eq!(attempt(&other, "198.51.100.7", USER, PASSWORD).await.0, 429);
        assert_eq!(attempt(&other, OWNER, USER, PASSWORD).await.0, 200);
    }

    async fn l9_a_block_expires_by_itself(database: TestDatabase) {
        let settings = "[limits]\nhard_stop = 3\nhard_stop_for = \"1h\"\n";
        let app = TestApp::start_with(database, settings).await;
        for _ in 0..3 {
            assert_eq!(app.login(&json!({"username": USER, "password": "wrong password"})).await.status(), 401);
        }
        app.advance(Duration::from_secs(3600) - Duration::from_millis(1)).await;
        assert_eq!(app.login(&json!({"username": USER, "password": PASSWORD})).await.status(), 429);
        app.advance(Duration::from_millis(1)).await;
        assert_eq!(app.login(&json!({"username": USER, "password": PASSWORD})).await.status(), 200);
    }

    async fn l5_p6_a_blocked_name_answers_the_same_whether_the_account_exists_or_not(database: TestDatabase) {
        let settings = "[limits]\nhard_stop = 4\n[limits.pair]\nfree = 2\n";
        let app = TestApp::start_with(database, settings).await;
        let mut seen_of = Vec::new();
        for name in [USER, "nobody-of-this-name"] {
            let mut answers = Vec::new();
            for _ in 0..6 {
                answers.push(seen(log_in_from(&app, "ignored", name, "wrong password").await).await);
                app.advance(Duration::from_millis(500)).await;
            }
            seen_of.push(answers);
        }
        assert_eq!(seen_of[0], seen_of[1]);
        let statuses: Vec<_> = seen_of[0].iter().map(|answer| answer.0).collect();
        assert_eq!(statuses, [401, 401, 401, 429, 401, 429], "a delay, and then the lock");
    }

    async fn l1_l7_addresses_are_limited_across_names_and_untrusted_forwarding_headers_are_ignored(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits.address]\nburst = 4\nper_minute = 4\n").await;
        for number in 0..5 {
            // This peer is not a trusted proxy: the addresses that it states are ignored.
            let (status, _) = attempt(&app, &format!("203.0.113.{number}"), &format!("name{number}"), "wrong password").await;
            assert_eq!(status, 401);
        }
        assert_eq!(attempt(&app, "203.0.113.99", "name99", "wrong password").await, (429, 1));
        assert_eq!(app.figure("countersign_attempts_refused_total{limit=\"address\"}").await, 1.0);
        app.advance(Duration::from_secs(60)).await;
        assert_eq!(attempt(&app, "", USER, PASSWORD).await.0, 200);
    }

    async fn l7_an_ipv6_64_network_is_one_address(database: TestDatabase) {
        let app = TestApp::start_with(database, &format!("{BEHIND_A_PROXY}[limits.address]\nburst = 4\nper_minute = 4\n")).await;
        for number in 0..5 {
            let (status, _) = attempt(&app, &format!("2001:db8:1:2::{number:x}"), &format!("name{number}"), "wrong password").await;
            assert_eq!(status, 401);
        }
        assert_eq!(attempt(&app, "2001:db8:1:2:ffff::1", "name9", "wrong password").await.0, 429);
        assert_eq!(attempt(&app, "2001:db8:1:3::1", "name9", "wrong password").await.0, 401);
    }

    async fn successful_logins_do_not_exhaust_the_limit_of_their_address(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits.address]\nburst = 3\nper_minute = 1\n").await;
        for _ in 0..12 {
            app.log_in().await;
        }
    }

    async fn login_limits_can_be_disabled(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits]\nenabled = false\nhard_stop = 2\n[limits.client]\nburst = 1\n").await;
        let stranger = Credentials { id: "nobody".into(), secret: "wrong".into() };
        for _ in 0..5 {
            assert_eq!(app.login(&json!({"username": USER, "password": "wrong password"})).await.status(), 401);
            assert_eq!(app.ask(&stranger, "x").send().await.unwrap().status(), 401);
        }
        app.log_in().await;
    }

    async fn l1_failed_clients_are_limited_by_name_and_address_and_a_right_secret_always_passes(database: TestDatabase) {
        let settings = format!("{BEHIND_A_PROXY}[limits.client]\nburst = 3\nper_minute = 6\n");
        let app = TestApp::start_with(database, &settings).await;
        let gateway = app.gateway();
        let ask = async |id: &str, secret: &str, address: &str| {
            let caller = Credentials { id: id.to_owned(), secret: secret.to_owned() };
            let answer = app.ask(&caller, "x").header("x-forwarded-for", address).header("x-request-id", "the-same");
            answer.send().await.unwrap()
        };
        let mut refused = Vec::new();
        for id in [gateway.id.as_str(), "nobody"] {
            for _ in 0..3 {
                assert_eq!(ask(id, "wrong", OWNER).await.status(), 401);
            }
            refused.push(seen(ask(id, "wrong", OWNER).await).await);
        }
        assert_eq!(refused[0], refused[1], "I1: known or not");
        assert_eq!(refused[0].0, 429);
        assert!(refused[0].1.contains(&("retry-after".to_owned(), "10".to_owned())), "{:?}", refused[0]);
        assert_eq!(ask(&gateway.id, &gateway.secret, OWNER).await.status(), 200, "nobody can lock a client out");
        assert_eq!(ask(&gateway.id, "wrong", "192.0.2.2").await.status(), 401);
        let rest = app.post_json("/v1/login", &json!({"username": USER, "password": PASSWORD, "client_id": "nobody"}));
        let rest = rest.header("x-forwarded-for", OWNER).send().await.unwrap();
        is_private(&rest);
        assert_eq!(error_of(rest).await, (429, "too_many_attempts".into()), "one count for every endpoint");
        app.advance(Duration::from_secs(10)).await;
        assert_eq!(ask("nobody", "wrong", OWNER).await.status(), 401);
        assert_eq!(app.figure("countersign_attempts_refused_total{limit=\"client\"}").await, 3.0);
        assert_eq!(app.audit("login.failed").await, [Value::Null; 0]);
    }

    async fn l10_a_blocked_login_executes_no_statement_until_retry_after(database: TestDatabase) {
        let settings = format!("{BEHIND_A_PROXY}[limits.pair]\nfree = 2\n[limits.address]\nburst = 4\nper_minute = 4\n");
        let app = TestApp::start_with(database, &settings).await;
        let statements = async || {
            let text = app.metrics().await;
            let counts = text.lines().filter_map(|line| line.strip_prefix("countersign_database_seconds_count{query=\"attempts_"));
            counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        let address = "198.51.100.9";
        for _ in 0..3 {
            assert_eq!(attempt(&app, address, USER, "wrong password").await.0, 401);
        }
        assert_eq!(attempt(&app, address, USER, PASSWORD).await, (429, 1), "looked up once");
        let before = statements().await;
        for _ in 0..20 {
            assert_eq!(attempt(&app, address, USER, PASSWORD).await, (429, 1));
        }
        assert_eq!(statements().await, before);
        assert_eq!(attempt(&app, address, "another", "wrong password").await.0, 401, "the pair is refused, and not the address");
        assert_eq!(attempt(&app, OWNER, USER, "wrong password").await.0, 401, "nor the account");
        // One more failure of the address: it is refused whatever the name.
        assert_eq!(attempt(&app, address, "third", "wrong password").await.0, 401);
        assert_eq!(attempt(&app, address, "fourth", "wrong password").await, (429, 1));
        let before = statements().await;
        for number in 0..20 {
            assert_eq!(attempt(&app, address, &format!("name{number}"), "wrong password").await, (429, 1));
        }
        assert_eq!(statements().await, before);
        app.advance(Duration::from_secs(1)).await;
        assert_eq!(attempt(&app, address, USER, PASSWORD).await.0, 200, "it lifts at the time that it told");
        assert_eq!(attempt(&app, address, USER, PASSWORD).await.0, 200);
    }

    async fn l10_a_block_lifted_on_another_replica_does_not_stay_in_memory_for_its_full_duration(database: TestDatabase) {
        let settings = format!("{BEHIND_A_PROXY}[limits]\nhard_stop = 5\nhard_stop_for = \"1h\"\n[limits.account]\nfree = 5\n");
        let app = TestApp::start_with(database, &settings).await;
        assert_eq!(attempt(&app, OWNER, USER, PASSWORD).await.0, 200);
        for address in 1..=5 {
            assert_eq!(attempt(&app, &format!("198.51.100.{address}"), USER, "wrong password").await.0, 401);
        }
        let travelling = "192.0.2.200";
        assert_eq!(attempt(&app, travelling, USER, PASSWORD).await, (429, 3600));
        assert_eq!(attempt(&app, OWNER, USER, PASSWORD).await.0, 200, "from a known address, which ends the lock");
        app.advance(Duration::from_secs(30)).await;
        assert_eq!(attempt(&app, travelling, USER, PASSWORD).await.0, 200);
    }

    async fn l1_invented_client_ids_do_not_escape_the_limit_of_their_address(database: TestDatabase) {
        let settings = format!("{BEHIND_A_PROXY}[limits.client]\nburst = 2\nper_minute = 6\n");
        let app = TestApp::start_with(database, &settings).await;
        let ask = async |number: u32, address: &str| {
            let caller = Credentials { id: format!("made-up-{number}"), secret: "wrong".to_owned() };
            app.ask(&caller, "x").header("x-forwarded-for", address).send().await.unwrap().status().as_u16()
        };
        for number in 0..20 {
            assert_eq!(ask(number, OWNER).await, 401);
        }
        assert_eq!(ask(20, OWNER).await, 429);
        assert_eq!(ask(20, "192.0.2.2").await, 401);
        let gateway = app.gateway();
        let answer = app.ask(&gateway, "x").header("x-forwarded-for", OWNER).send().await.unwrap();
        assert_eq!(answer.status(), 200, "a right secret always passes");
    }

    async fn p8_an_attempt_stays_counted_if_the_request_fails_afterwards(database: TestDatabase) {
        let app = TestApp::start_with(database, "[limits]\nhard_stop = 3\n").await;
        let broken = Broken::on(&app.database, "BEFORE INSERT", "audit").await;
        for _ in 0..3 {
            let answer = app.login(&json!({"username": USER, "password": "wrong password"})).await;
            assert_eq!(error_of(answer).await, (500, "internal".into()));
        }
        broken.mend().await;
        assert_eq!(app.login(&json!({"username": USER, "password": PASSWORD})).await.status(), 429);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_cannot_take_the_connections_reserved_for_refreshes() {
    // With one connection, none can be reserved.
    if !Engine::Postgres.is_available() || pool_size() == Some(1) {
        return;
    }
    let settings = "[limits.address]\nburst = 2000\n[public]\nrequest_timeout = \"60s\"\n[database]\nstatement_timeout = \"30s\"\nacquire_timeout = \"5s\"\n";
    let app = Arc::new(TestApp::start_with(TestDatabase::alone().await, settings).await);
    let mut session = app.log_in().await;
    let mut locked = app.database.connect_postgres().await;
    locked.execute("BEGIN; LOCK TABLE login_attempts IN EXCLUSIVE MODE").await.unwrap();
    let logins: Vec<_> = (0..20)
        .map(|number| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { attempt(&app, "", &format!("name{number}"), "wrong password").await })
        })
        .collect();
    while app.figure("countersign_database_pool_waiting").await < 1.0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let before = session.refresh_token;
        session = tokens(app.refresh(&before).await).await;
        // A retry is checked as well.
        assert_eq!(tokens(app.refresh(&before).await).await.refresh_token, session.refresh_token);
    }
    // So is a retry that requests less.
    let narrowed = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &session.refresh_token),
        ("client_id", "countersign"),
        ("audience", ISSUER),
    ];
    assert_eq!(app.post_form("/oauth2/token", &narrowed).send().await.unwrap().status(), 200);
    assert!(app.figure("countersign_database_pool_waiting").await >= 1.0, "the logins still wait");
    locked.execute("ROLLBACK").await.unwrap();
    for login in logins {
        assert_eq!(login.await.unwrap().0, 401);
    }
}
