//! The lifecycle of signing keys: rotation that invalidates no valid token, withdrawal, import, and the master key.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::ManualClock;
use countersign::crypto::{Random, SeededRandom, SigningKey};
use countersign::domain::{Algorithm, ClientSettings};
use countersign::service::Requester;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, error_of, machine};
use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::forge::{Forge, pem};
use crate::support::judging::*;
use crate::support::outage;
use crate::support::size::size;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Tokens with the longest possible lifetime.
const LONG_LIVED: &str = "[tokens]\naccess_ttl = \"1h\"";

/// Kid and state of every key that is not removed.
async fn states(app: &TestApp) -> Vec<(String, String)> {
    let list = app.administer(Method::GET, "/admin/v1/keys", None).await;
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    list["keys"].as_array().unwrap().iter().map(|key| (text(key, "kid"), text(key, "state"))).collect()
}

/// The states alone, in the order in which the keys were made.
async fn phases(app: &TestApp) -> Vec<String> {
    states(app).await.into_iter().map(|(_, state)| state).collect()
}

async fn rotate(app: &TestApp) -> String {
    let answer = app.administer(Method::POST, "/admin/v1/keys/rotate", Some(json!({}))).await;
    answer["kid"].as_str().unwrap().to_owned()
}

async fn withdraw(app: &TestApp, kid: &str) {
    app.administer(Method::POST, &format!("/admin/v1/keys/{kid}/withdraw"), None).await;
}

async fn import(app: &TestApp, file: &str, algorithm: Option<&str>) -> Result<String, (u16, String, Value)> {
    let order = json!({"pem": pem(file), "algorithm": algorithm});
    let answer = app.admin(Method::POST, "/admin/v1/keys").json(&order).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    if status == StatusCode::CREATED {
        return Ok(body["kid"].as_str().unwrap().to_owned());
    }
    Err((status.as_u16(), body["code"].as_str().unwrap().to_owned(), body["errors"][0]["field"].clone()))
}

fn kid_of(token: &str) -> String {
    header_of(token)["kid"].as_str().unwrap().to_owned()
}

/// More replicas on the database of `app`, with its admin key and its gateway.
async fn replica_of(app: &TestApp, number: u64, settings: &str) -> TestApp {
    let mut other = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), number, settings).await;
    other.admin_key.clone_from(&app.admin_key);
    other.gateway_secret.clone_from(&app.gateway_secret);
    other
}

on_both_engines! {
    async fn k3_a_key_is_announced_then_signs_then_retires_then_leaves_the_jwks(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let signer = async || kid_of(&app.token_of(&batch).await.access_token);
        let first = signer().await;
        assert_eq!(states(&app).await, [(first.clone(), "signing".to_owned())], "the very first key signs at once");
        app.advance(30 * DAY - HOUR - Duration::from_secs(1)).await;
        app.service.keys.maintain_keys().await.unwrap();
        assert_eq!(phases(&app).await, ["signing"]);
        app.advance(Duration::from_secs(1)).await;
        app.service.keys.maintain_keys().await.unwrap();
        app.service.keys.maintain_keys().await.unwrap();
        assert_eq!(phases(&app).await, ["signing", "announced"], "an hour before it signs, and once");
        let second = states(&app).await[1].0.clone();
        assert_eq!(app.published().await, [first.clone(), second.clone()]);
        app.advance(HOUR - Duration::from_millis(1)).await;
        assert_eq!(signer().await, first);
        app.advance(Duration::from_millis(1)).await;
        assert_eq!(phases(&app).await, ["retiring", "signing"]);
        assert_eq!((signer().await, app.published().await.len()), (second.clone(), 2));
        app.advance(2 * HOUR - Duration::from_millis(1)).await;
        assert_eq!(app.published().await.len(), 2, "an hour after its last token has expired");
        app.advance(Duration::from_millis(1)).await;
        assert_eq!(app.published().await, std::slice::from_ref(&second));
        assert_eq!((phases(&app).await, signer().await), (vec!["signing".to_owned()], second));
    }

    async fn k3_no_valid_token_is_refused_while_keys_rotate(database: TestDatabase) {
        let app = TestApp::start_with(database, LONG_LIVED).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let mut alive: Vec<(Duration, String)> = Vec::new();
        let mut kids = std::collections::BTreeSet::new();
        rotate(&app).await;
        let mut now = Duration::ZERO;
        for step in 0..50_u32 {
            // A verifier that fetched the set at the announcement has every key that signs.
            let token = app.token_of(&batch).await.access_token;
            assert!(verified_claims(&token, &app.jwks().await).is_some());
            kids.insert(kid_of(&token));
            alive.push((now + HOUR, token));
            alive.retain(|(ends, _)| now < *ends);
            for (_, token) in &alive {
                assert!(app.is_active(token).await, "step {step}");
            }
            let by = [5 * MINUTE, 7 * MINUTE, Duration::from_millis(299_999)][step as usize % 3];
            now += by;
            app.advance(by).await;
        }
        assert_eq!((kids.len(), app.published().await.len()), (2, 1), "the rotation was seen from beginning to end");
    }

    async fn k3_k5_random_schedules_on_three_replicas_keep_valid_tokens_and_reject_withdrawn_keys(database: TestDatabase) {
        /// The number of steps of a schedule. Each schedule starts in the final state of the previous one.
        const STEPS: usize = 10;
        let first = TestApp::start_with(database, LONG_LIVED).await;
        let batch = first.confidential("batch", machine(&[], "")).await;
        let replicas = [replica_of(&first, 2, LONG_LIVED).await, replica_of(&first, 3, LONG_LIVED).await];
        let apps = [&first, &replicas[0], &replicas[1]];
        for app in apps {
            app.sync().await;
        }
        let random: &dyn Random = &SeededRandom::new(7);
        let mut now = Duration::ZERO;
        let mut alive: BTreeMap<String, (Duration, String)> = BTreeMap::new();
        let mut withdrawn: HashSet<String> = HashSet::new();
        let mut announced: BTreeMap<String, Duration> = BTreeMap::new();
        // Keys that signed without the usual announcement: the first key, and successors of withdrawn signing keys.
        let mut hurried: HashSet<String> = first.published().await.into_iter().collect();
        let store = first.database.open().await;
        for round in 0..STEPS * size(6, 10_000) {
            if round % STEPS == 0 {
                assert_eq!(store.sweep(None, START.plus(now)).await.failed, []);
            }
            let [action, replica, step, pick] = random.bytes::<4>();
            let app = apps[usize::from(replica) % 3];
            match action % 8 {
                // At most five keys are published: one rotation more is refused and changes nothing.
                0 => drop(app.admin(Method::POST, "/admin/v1/keys/rotate").json(&json!({})).send().await.unwrap()),
                1 => {
                    let keys = states(app).await;
                    let (kid, state) = &keys[usize::from(pick) % keys.len()];
                    withdraw(app, kid).await;
                    if state == "signing" {
                        hurried.insert(kid_of(&app.token_of(&batch).await.access_token));
                    }
                    withdrawn.insert(kid.clone());
                    assert!(!app.published().await.contains(kid), "gone at once where it was withdrawn");
                }
                _ => {
                    let by = Duration::from_secs(60 * u64::from(step % 40));
                    now += by;
                    first.clock.advance(by);
                }
            }
            for app in apps {
                app.sync().await;
                app.service.keys.maintain_keys().await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
            for app in apps {
                app.sync().await;
                for kid in app.published().await {
                    announced.entry(kid).or_insert(now);
                }
                let token = app.token_of(&batch).await.access_token;
                let kid = kid_of(&token);
                assert!(hurried.contains(&kid) || now >= announced[&kid] + HOUR, "round {round}: {kid} signs too early");
                alive.insert(token, (now + HOUR, kid));
            }
            alive.retain(|_, (ends, _)| now < *ends);
            let sets: Vec<_> = [first.published().await, replicas[0].published().await, replicas[1].published().await].to_vec();
            assert!(sets[0] == sets[1] && sets[1] == sets[2] && sets[0].len() <= 5, "round {round}: {sets:?}");
            assert!(sets[0].iter().all(|kid| !withdrawn.contains(kid)));
            for (token, (_, kid)) in &alive {
                let is_honest = !withdrawn.contains(kid);
                for app in apps {
                    let verdict = app.service.judge.judge(token).await.verdict;
                    let is_active = matches!(verdict, countersign::service::Verdict::Active(_));
                    assert_eq!(is_active, is_honest, "round {round}: {kid} {verdict:?}");
                }
            }
        }
        assert!(withdrawn.len() >= 3, "the schedule was a tame one");
    }

    async fn k8_replicas_that_start_together_on_an_empty_database_use_one_key(database: TestDatabase) {
        let (database, clock) = (Arc::new(database), Arc::new(ManualClock::starting_at(START)));
        let start = |number| TestApp::replica(Arc::clone(&database), Arc::clone(&clock), number, "");
        let (one, two, three) = tokio::join!(start(1), start(2), start(3));
        for app in [&one, &two, &three] {
            app.sync().await;
        }
        assert_eq!(one.published().await.len(), 1);
        assert_eq!((one.published().await, one.published().await), (two.published().await, three.published().await));
    }

    async fn k5_a_withdrawal_applies_locally_at_once_and_on_other_replicas_at_the_next_sync(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = replica_of(&app, 2, "").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        other.sync().await;
        let token = app.token_of(&batch).await.access_token;
        let stolen = kid_of(&token);
        assert!(app.is_active(&token).await && other.is_active(&token).await, "it is in both caches");
        withdraw(&app, &stolen).await;
        assert!(!app.is_active(&token).await && !app.published().await.contains(&stolen));
        let next = app.token_of(&batch).await.access_token;
        assert_ne!(kid_of(&next), stolen);
        other.sync().await;
        assert!(!other.is_active(&token).await && !other.published().await.contains(&stolen));
        assert!(app.is_active(&next).await && other.is_active(&next).await);
        withdraw(&app, &stolen).await;
        assert_eq!(app.published().await.len(), 1, "twice is once");
        let unknown = app.admin(Method::POST, "/admin/v1/keys/unknown/withdraw").send().await.unwrap();
        assert_eq!(error_of(unknown).await, (404, "not_found".into()));
        let by_revocation = kid_of(&next);
        app.revoke("key", &by_revocation).await;
        assert!(!app.is_active(&next).await && !app.published().await.contains(&by_revocation));
    }

    async fn when_the_signing_key_is_withdrawn_the_announced_one_signs_at_once(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let announced = rotate(&app).await;
        let signing = kid_of(&app.token_of(&batch).await.access_token);
        assert_ne!(signing, announced);
        withdraw(&app, &signing).await;
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), announced);
        assert_eq!(states(&app).await, [(announced, "signing".to_owned())]);
    }

    async fn k3_when_an_announced_key_is_withdrawn_the_signing_key_keeps_signing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let announced = rotate(&app).await;
        let signing = kid_of(&app.token_of(&batch).await.access_token);
        withdraw(&app, &announced).await;
        assert_eq!(states(&app).await, [(signing.clone(), "signing".to_owned())]);
        app.advance(2 * HOUR).await;
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), signing, "no key signs that nobody has met");
        let next = rotate(&app).await;
        assert_eq!(states(&app).await, [(signing, "signing".to_owned()), (next, "announced".to_owned())]);
    }

    async fn k3_when_a_retiring_key_is_withdrawn_the_announced_one_stays_announced(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let retiring = kid_of(&app.token_of(&batch).await.access_token);
        let signing = rotate(&app).await;
        app.advance(HOUR).await;
        let announced = rotate(&app).await;
        withdraw(&app, &retiring).await;
        assert_eq!(states(&app).await, [(signing.clone(), "signing".to_owned()), (announced.clone(), "announced".to_owned())]);
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), signing);
        app.advance(HOUR).await;
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), announced, "at its own time");
        // Withdrawing a retiring key creates no key, even if none is announced.
        withdraw(&app, &signing).await;
        assert_eq!(states(&app).await, [(announced, "signing".to_owned())]);
    }

    async fn k3_of_several_announced_keys_each_signs_at_its_own_time_whichever_is_withdrawn(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let signer = async || kid_of(&app.token_of(&batch).await.access_token);
        let first = signer().await;
        let second = rotate(&app).await;
        app.advance(30 * MINUTE).await;
        let third = rotate(&app).await;
        withdraw(&app, &second).await;
        assert_eq!(signer().await, first);
        app.advance(HOUR - Duration::from_secs(1)).await;
        assert_eq!(signer().await, first, "for as long as the one that was withdrawn would have");
        app.advance(Duration::from_secs(1)).await;
        assert_eq!(signer().await, third);
        let fourth = rotate(&app).await;
        app.advance(MINUTE).await;
        let fifth = rotate(&app).await;
        withdraw(&app, &third).await;
        assert_eq!(signer().await, fourth, "the one that verifiers have known longest");
        assert_eq!(phases(&app).await, ["retiring", "signing", "announced"]);
        app.advance(HOUR).await;
        assert_eq!(signer().await, fifth);
    }

    async fn k3_keys_that_are_announced_in_one_moment_sign_one_after_the_other(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let mut signing = kid_of(&app.token_of(&batch).await.access_token);
        for next in [rotate(&app).await, rotate(&app).await] {
            withdraw(&app, &signing).await;
            app.service.keys.maintain_keys().await.unwrap();
            signing = kid_of(&app.token_of(&batch).await.access_token);
            assert_eq!(signing, next);
        }
        assert_eq!(states(&app).await, [(signing, "signing".to_owned())], "and no other was made in a hurry");
    }

    async fn a_failed_rotation_leaves_the_current_key_signing(database: TestDatabase) {
        let app = TestApp::start_with(database, "[database]\nstatement_timeout = \"300ms\"\nacquire_timeout = \"300ms\"").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let first = kid_of(&app.token_of(&batch).await.access_token);
        app.advance(30 * DAY).await;
        let stopped = outage::stop_writes(&app.database).await;
        assert!(app.service.keys.maintain_keys().await.is_err());
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), first);
        drop(stopped);
        app.service.keys.maintain_keys().await.unwrap();
        assert_eq!(phases(&app).await, ["signing", "announced"]);
    }

    async fn k8_a_failed_rotation_does_not_stop_a_replica_from_starting(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.advance(30 * DAY - HOUR - MINUTE).await;
        for (file, algorithm) in [("rsa-2048", "RS256"), ("rsa-3072", "PS256"), ("ed25519", "EdDSA")] {
            import(&app, file, Some(algorithm)).await.unwrap();
        }
        app.administer(Method::POST, "/admin/v1/keys/rotate", Some(json!({"algorithm": "EdDSA"}))).await;
        app.advance(MINUTE).await;
        let refused = app.service.keys.maintain_keys().await.unwrap_err().to_string();
        assert!(refused.starts_with("no new key of ES256: five keys are published"), "{refused}");
        let other = replica_of(&app, 2, "").await;
        let batch = other.confidential("batch", machine(&[], "")).await;
        assert!(app.is_active(&other.token_of(&batch).await.access_token).await);
    }

    async fn k8_a_failed_rotation_of_one_algorithm_does_not_stop_another(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let settings = ClientSettings { algorithm: Some(Algorithm::EdDsa), ..machine(&[], "") };
        let batch = app.confidential("batch", settings).await;
        app.advance(30 * DAY).await;
        app.database.tamper(match app.database.engine {
            Engine::Sqlite => "CREATE TRIGGER no_es256 BEFORE INSERT ON signing_keys WHEN NEW.algorithm = 'ES256'
                BEGIN SELECT RAISE(ABORT, 'injected'); END",
            Engine::Postgres => "ALTER TABLE signing_keys ADD CONSTRAINT no_es256 CHECK (algorithm <> 'ES256') NOT VALID",
        }).await;
        let refused = app.service.keys.maintain_keys().await.unwrap_err().to_string();
        assert!(refused.contains("ES256") && !refused.contains("EdDSA"), "{refused}");
        assert_eq!(header_of(&app.token_of(&batch).await.access_token)["alg"], "EdDSA");
    }

    async fn k10_a_token_with_iat_after_its_key_retired_is_refused(database: TestDatabase) {
        let app = TestApp::start_with(database, LONG_LIVED).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let forge = Forge::import(&app, &app.token_of(&batch).await.access_token).await;
        let said = |iat: i64| {
            let mut claims = forge.claims();
            (claims["iat"], claims["nbf"], claims["exp"]) = (json!(iat), json!(iat), json!(iat + 3600));
            forge.saying(&claims)
        };
        let start = START.seconds();
        let order = Some(json!({"algorithm": "EdDSA"}));
        app.administer(Method::POST, "/admin/v1/keys/rotate", order).await;
        app.advance(HOUR).await;
        assert!(app.is_active(&said(start + 3_599)).await, "its last honest token");
        assert!(app.is_active(&said(start + 3_605)).await, "within the skew that replicas may have");
        app.advance(Duration::from_secs(30)).await;
        assert!(app.is_active(&said(start + 3_605)).await);
        for late in [3_606, 3_630] {
            assert!(!app.is_active(&said(start + late)).await, "whoever holds a retired key makes no new tokens: {late}");
        }
    }

    async fn k7_an_rsa_key_is_imported_for_the_requested_algorithm(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let rs256 = import(&app, "rsa-2048", Some("RS256")).await.unwrap();
        let ps256 = import(&app, "rsa-3072", Some("PS256")).await.unwrap();
        let jwks = app.jwks().await;
        for (kid, algorithm) in [(&rs256, "RS256"), (&ps256, "PS256")] {
            let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == **kid).unwrap();
            assert_eq!((&key["kty"], &key["alg"]), (&json!("RSA"), &json!(algorithm)));
        }
        let field = |name: &str| json!(name);
        for (file, algorithm, expected) in [
            ("rsa-2048", Some("RS256"), (409, "conflict", Value::Null)),
            ("rsa-2048-pkcs1", None, (409, "conflict", Value::Null)),
            ("rsa-1024", Some("RS256"), (400, "invalid_request", field("pem"))),
            ("rsa-roca", Some("RS256"), (400, "invalid_request", field("pem"))),
            ("rsa-exponent-3", Some("RS256"), (400, "invalid_request", field("pem"))),
            ("rsa-three-primes", Some("RS256"), (400, "invalid_request", field("pem"))),
            ("p384", None, (400, "invalid_request", field("pem"))),
            ("x25519", None, (400, "invalid_request", field("pem"))),
            ("public", None, (400, "invalid_request", field("pem"))),
            ("encrypted", None, (400, "invalid_request", field("pem"))),
            ("p256", Some("RS256"), (400, "invalid_request", field("pem"))),
            ("rsa-2048", Some("ES256"), (400, "invalid_request", field("pem"))),
            ("p256", Some("HS256"), (400, "invalid_request", field("algorithm"))),
            ("p256", Some("none"), (400, "invalid_request", field("algorithm"))),
        ] {
            let refusal = import(&app, file, algorithm).await.unwrap_err();
            assert_eq!((refusal.0, refusal.1.as_str(), refusal.2), expected, "{file} {algorithm:?}");
        }
        for nothing in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let answer = app.admin(Method::POST, "/admin/v1/keys").json(&json!({"pem": nothing})).send().await.unwrap();
            assert_eq!(error_of(answer).await, (400, "invalid_request".into()));
        }
    }

    async fn each_client_has_its_own_algorithm_and_its_tokens_are_judged_alike(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let mut clients = Vec::new();
        for algorithm in Algorithm::ALL {
            let settings = ClientSettings { algorithm: Some(algorithm), ..machine(&[], "") };
            clients.push((algorithm, app.confidential(&format!("to-{algorithm}"), settings).await));
        }
        // Without a key there is no token.
        for (algorithm, client) in &clients {
            let answer = app.token_request(client, &[]).await;
            if algorithm.is_generated() && *algorithm == Algorithm::Es256 {
                assert_eq!(answer.status(), 200);
            } else {
                assert_eq!(error_of(answer).await, (503, "temporarily_unavailable".into()), "{algorithm}");
            }
        }
        app.service.keys.maintain_keys().await.unwrap();
        import(&app, "rsa-2048", Some("RS256")).await.unwrap();
        import(&app, "rsa-3072", Some("PS256")).await.unwrap();
        let jwks = app.jwks().await;
        for (algorithm, client) in &clients {
            let token = app.token_of(client).await.access_token;
            assert_eq!(header_of(&token)["alg"], algorithm.as_str());
            assert!(verified_claims(&token, &jwks).is_some() && app.is_active(&token).await);
        }
        app.administer(Method::PATCH, "/admin/v1/clients/to-RS256", Some(json!({"algorithm": null}))).await;
        assert_eq!(header_of(&app.token_of(&clients[2].1).await.access_token)["alg"], "ES256", "null: the default again");
    }

    async fn at_most_five_keys_are_published(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for (file, algorithm) in [("rsa-2048", "RS256"), ("rsa-3072", "PS256"), ("ed25519", "EdDSA")] {
            import(&app, file, Some(algorithm)).await.unwrap();
        }
        rotate(&app).await;
        assert_eq!(app.published().await.len(), 5);
        assert_eq!(import(&app, "p256", None).await.unwrap_err().0, 409);
        let rotation = app.admin(Method::POST, "/admin/v1/keys/rotate").json(&json!({})).send().await.unwrap();
        assert_eq!(error_of(rotation).await, (409, "conflict".into()));
        assert_eq!(app.published().await.len(), 5);
        let rsa = app.admin(Method::POST, "/admin/v1/keys/rotate").json(&json!({"algorithm": "RS256"})).send().await.unwrap();
        assert_eq!(error_of(rsa).await, (400, "invalid_request".into()), "RSA keys are not made here");
    }

    async fn an_imported_key_of_the_default_algorithm_is_announced_like_any_other(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let first = kid_of(&app.token_of(&batch).await.access_token);
        let imported = import(&app, "p256", None).await.unwrap();
        assert_eq!(states(&app).await[1], (imported.clone(), "announced".to_owned()));
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), first);
        app.advance(HOUR).await;
        assert_eq!(kid_of(&app.token_of(&batch).await.access_token), imported);
    }

    async fn tokens_have_typ_jwt_if_tokens_type_is_jwt(database: TestDatabase) {
        let engine = database.engine;
        let app = TestApp::start_with(database, "[tokens]\ntype = \"JWT\"").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let token = app.token_of(&batch).await.access_token;
        assert_eq!(header_of(&token)["typ"], "JWT");
        assert!(app.is_active(&token).await);
        assert_eq!(app.verify("", &token).send().await.unwrap().status(), 200);
        // The same setting for one client only.
        let app = TestApp::start(TestDatabase::fresh(engine).await).await;
        let spring = app.confidential("spring", machine(&[], "")).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        app.administer(Method::PATCH, "/admin/v1/clients/spring", Some(json!({"token_type": "JWT"}))).await;
        let (old, new) = (app.token_of(&spring).await.access_token, app.token_of(&batch).await.access_token);
        assert_eq!((&header_of(&old)["typ"], &header_of(&new)["typ"]), (&json!("JWT"), &json!("at+jwt")));
        assert!(app.is_active(&old).await && app.is_active(&new).await);
        let forge = Forge::import(&app, &new).await;
        assert!(!app.is_active(&forge.under(&forge.header_with("typ", json!("JWT")))).await, "t2: not for clients that have none");
        app.administer(Method::PATCH, "/admin/v1/clients/spring", Some(json!({"token_type": null}))).await;
        assert!(!app.is_active(&old).await, "nor for one that has no more");
    }

    async fn k4_thousands_of_unknown_kids_cost_one_query_in_two_seconds(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let forge = Forge::import(&app, &app.log_in().await.access_token).await;
        let queries = async || app.figure("countersign_database_seconds_count{query=\"keys_all\"}").await;
        let unknown = |number: u32| forge.under(&forge.header_with("kid", json!(format!("unknown-{number}"))));
        // Their `iat` is older than any key that is unknown to the replica.
        app.advance(2 * MINUTE).await;
        let before = queries().await;
        let judge = &app.service.judge;
        for number in 0..size(1000, 1_000_000) {
            let verdict = judge.judge(&unknown(number)).await.verdict;
            assert!(matches!(verdict, countersign::service::Verdict::Inactive(_)));
        }
        assert_eq!(queries().await - before, 1.0);
        app.clock.advance(Duration::from_millis(1_999));
        assert!(!app.is_active(&unknown(1)).await);
        assert_eq!(queries().await - before, 1.0);
        app.clock.advance(Duration::from_millis(1));
        let many: Vec<String> = (0..256).map(unknown).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(app.batch(&app.gateway(), &many).await.status(), 200);
        assert_eq!(queries().await - before, 2.0, "and one more for the next two");
    }

    async fn k4_the_first_token_of_a_key_from_another_replica_loads_that_key(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = replica_of(&app, 2, "[revocation]\npoll_interval = \"1s\"").await;
        let settings = ClientSettings { algorithm: Some(Algorithm::Rs256), ..machine(&[], "") };
        let batch = app.confidential("batch", settings).await;
        other.sync().await;
        import(&app, "rsa-2048", Some("RS256")).await.unwrap();
        let token = app.token_of(&batch).await.access_token;
        assert!(other.is_active(&token).await);
        assert!(other.published().await.contains(&kid_of(&token)));
    }

    async fn k4_an_unknown_kid_is_503_while_the_keys_cannot_be_read(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let forge = Forge::import(&app, &app.log_in().await.access_token).await;
        let unknown = forge.under(&forge.header_with("kid", json!("unknown")));
        app.advance(Duration::from_secs(2)).await;
        outage::take_tables_away(&app.database).await;
        assert_eq!(error_of(app.introspection(&unknown).await).await, (503, "temporarily_unavailable".into()));
        assert_eq!(app.verify("", &unknown).send().await.unwrap().status(), 503);
        assert!(app.is_active(&forge.under(&forge.header())).await, "known keys go on");
        outage::bring_tables_back(&app.database).await;
        app.advance(Duration::from_secs(2)).await;
        assert!(!app.is_active(&unknown).await);
    }

    async fn k6_a_master_key_is_rotated_without_downtime_and_the_previous_one_opens_nothing(database: TestDatabase) {
        const OLD: &str = "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=";
        const NEW: &str = "c2Vjb25kLWZpeHR1cmUtbWFzdGVyLWtleS05ODc2NTQ=";
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let session = app.log_in().await;
        let token = app.token_of(&batch).await.access_token;
        let start = async |settings: &str| {
            TestApp::try_replica(Arc::clone(&app.database), Arc::clone(&app.clock), 5, settings).await
        };
        let refusal = start(&format!("master_key = \"{NEW}\"")).await.err().unwrap().to_string();
        assert!(refusal.contains(&kid_of(&token)) && refusal.contains("keys reseal"), "{refusal}");
        let both = start(&format!("master_key = \"{NEW}\"\nmaster_key_previous = \"{OLD}\"")).await.unwrap();
        assert_eq!(both.service.keys.reseal_keys().await.unwrap(), 1);
        assert_eq!(both.service.keys.reseal_keys().await.unwrap(), 0);
        let mut new = start(&format!("master_key = \"{NEW}\"")).await.unwrap();
        new.gateway_secret.clone_from(&app.gateway_secret);
        assert!(new.is_active(&token).await, "the keys are the same ones");
        assert_eq!(both.refresh(&session.refresh_token).await.status(), 200, "sessions go on while both are known");
        let refusal = start(&format!("master_key = \"{OLD}\"")).await.err().unwrap().to_string();
        assert!(refusal.contains("cannot be opened") && !refusal.contains(OLD), "{refusal}");
    }

    async fn k6_a_tampered_key_is_not_loaded_and_is_named(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let kid = app.published().await[0].clone();
        let from = Requester::command_line();
        app.service.keys.import_key(&pem("ed25519"), None, &from).await.unwrap();
        let zeros = match app.database.engine {
            Engine::Sqlite => "zeroblob(length(sealed))",
            Engine::Postgres => "decode(repeat('00', length(sealed)), 'hex')",
        };
        for change in [
            "algorithm = CASE algorithm WHEN 'ES256' THEN 'RS256' ELSE algorithm END".to_owned(),
            format!("sealed = {zeros}"),
            "sealed = (SELECT sealed FROM signing_keys WHERE algorithm = 'EdDSA')".to_owned(),
            "kid = 'another'".to_owned(),
            "public_jwk = (SELECT public_jwk FROM signing_keys WHERE algorithm = 'EdDSA')".to_owned(),
        ] {
            app.database.tamper("DROP TABLE IF EXISTS kept").await;
            app.database.tamper("CREATE TABLE kept AS SELECT * FROM signing_keys").await;
            app.database.tamper(&format!("UPDATE signing_keys SET {change} WHERE kid = '{kid}'")).await;
            let started = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), 9, "").await;
            let problems = started.service.status.problems().join("\n");
            assert!(problems.contains("signing key"), "{change} went unnoticed: {problems}");
            assert!(problems.contains(&kid) || problems.contains("another"), "{problems}");
            assert!(!started.published().await.contains(&kid), "{change}");
            started.stop().await;
            app.database.tamper("BEGIN; DELETE FROM signing_keys; INSERT INTO signing_keys SELECT * FROM kept; COMMIT").await;
        }
        TestApp::try_replica(Arc::clone(&app.database), Arc::clone(&app.clock), 9, "").await.unwrap();
    }

    async fn key_changes_appear_in_metrics_and_audit_trail(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let kid = app.published().await[0].clone();
        let left = app.figure(&format!("countersign_signing_key_expires_seconds{{alg=\"ES256\",kid=\"{kid}\"}}")).await;
        assert_eq!(left, 30.0 * 86_400.0);
        let next = rotate(&app).await;
        withdraw(&app, &next).await;
        let events = app.administer(Method::GET, &format!("/admin/v1/audit?subject={next}"), None).await;
        let names: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(names, ["key.withdrawn", "key.added"]);
        assert_eq!(events["events"][0]["actor"], "admin-key:tests");
    }
}

#[test]
fn k11_es256_signatures_of_one_message_never_repeat_a_nonce() {
    let key = SigningKey::generate(Algorithm::Es256, &SeededRandom::new(11)).unwrap();
    let number = size(500, 1_000_000);
    let commitments: HashSet<_> = (0..number)
        .map(|_| {
            let token = key.sign_jwt("JWT", &()).unwrap();
            let signature = URL_SAFE_NO_PAD.decode(token.rsplit('.').next().unwrap()).unwrap();
            <[u8; 32]>::try_from(&signature[..32]).unwrap()
        })
        .collect();
    assert_eq!(commitments.len(), number);
}
