//! Several replicas on one database, in one process and on manual clocks. Tests that need real processes are in
//! tests/extra/replicas.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::{Clock, ManualClock};
use countersign::crypto::{MasterKey, Sealer, SeededRandom};
use countersign::domain::{
    Audience, ClientId, ClientKind, ClientSettings, IntrospectRight, Jti, Kid, RevocationKind, Timestamp, TokenType,
};
use countersign::replica::follower::Follower;
use countersign::replica::keyring::{Keyring, RotationLead};
use countersign::replica::view::{Freshness, View};
use countersign::service::{Judge, Requester, Target, Verdict};
use countersign::store::{Location, Store, StoreObserver};
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use tokio_util::sync::CancellationToken;

use crate::support::app::{ISSUER, MASTER_KEY, PASSWORD, TestApp, USER, application, error_of, machine, tokens};
use crate::support::database::{Engine, START, TestDatabase, on_both_engines, pool_size};
use crate::support::forge::Forge;
use crate::support::judging::{Credentials, TOO_LONG, claims_of, header, header_of};
use crate::support::outage::{bring_feed_back, stop_writes, take_feed_away};
use crate::support::sessions::Sessions;
use crate::support::size::size;

/// Another replica, with the credentials of its callers.
async fn beside(first: &TestApp, number: u64, settings: &str) -> TestApp {
    beside_at(first, Arc::clone(&first.clock), number, settings).await
}

/// The same on a machine with its own clock.
async fn beside_at(first: &TestApp, clock: Arc<ManualClock>, number: u64, settings: &str) -> TestApp {
    let mut second = TestApp::replica(Arc::clone(&first.database), clock, number, settings).await;
    second.gateway_secret.clone_from(&first.gateway_secret);
    second.admin_key.clone_from(&first.admin_key);
    second
}

async fn log_out(app: &TestApp, refresh_token: &str) -> Response {
    app.post_json("/v1/logout", &json!({"refresh_token": refresh_token})).send().await.unwrap()
}

/// A client that gets tokens for itself, without a password to be hashed.
async fn a_machine(app: &TestApp) -> Credentials {
    app.confidential("machine", machine(&[], "")).await
}

async fn revoke(app: &TestApp, owner: &Credentials, token: &str) -> Response {
    let request = app.post_form("/oauth2/revoke", &[("token", token)]);
    request.basic_auth(&owner.id, Some(&owner.secret)).send().await.unwrap()
}

/// `readyz`: the status, and whether each check passes.
async fn readiness(app: &TestApp) -> (u16, Value) {
    let answer = app.get("/readyz").send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let checks = body["checks"].as_array().unwrap().iter();
    (status, checks.map(|check| (check["name"].as_str().unwrap().to_owned(), check["ok"].clone())).collect())
}

/// The number of live revocations.
async fn entries_of(app: &TestApp) -> usize {
    let answer = app.admin(Method::GET, "/admin/v1/revocations").send().await.unwrap().json::<Value>().await.unwrap();
    answer["revocations"].as_array().unwrap().len()
}

/// The number of writing statements that a replica has sent.
async fn statements_of(app: &TestApp) -> f64 {
    app.figure("countersign_database_seconds_count{query=\"revoke_everything\"}").await
}

fn is_503_with_retry_after(answer: &Response) -> bool {
    answer.status() == 503 && header(answer, "retry-after").parse::<u32>().is_ok()
}

/// A token under a key that does not exist.
fn garbage(number: usize) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let kid = format!("{number:043}");
    let header = part(json!({"alg": "ES256", "kid": kid, "typ": "at+jwt"}).to_string());
    format!("{header}.{}.{}", part(json!({"iss": "x"}).to_string()), URL_SAFE_NO_PAD.encode([7; 64]))
}

/// A replica without requests that polls the feed only when the test calls for it.
struct Quiet {
    store: Store,
    view: Arc<View>,
    follower: Arc<Follower>,
    judge: Judge,
    /// The values reported to the lag metric.
    lags: Arc<Mutex<Vec<Duration>>>,
}

impl Quiet {
    /// Without notifications.
    async fn of(app: &TestApp, observer: impl StoreObserver) -> Self {
        Self::start(app, observer, true).await
    }

    async fn start(app: &TestApp, observer: impl StoreObserver, is_pooled: bool) -> Self {
        // Longer than any test: the poll delivers nothing.
        const NEVER: Duration = Duration::from_secs(600);
        let clock = || Arc::<ManualClock>::clone(&app.clock);
        let mut settings = app.database.settings.clone();
        if let Location::Postgres { pooler_transaction_mode, .. } = &mut settings.location {
            *pooler_transaction_mode = is_pooled;
        }
        let store = Store::open(&settings, clock(), Arc::new(observer)).await.unwrap();
        let view = Arc::new(View::new(Duration::from_secs(3), vec![Audience::parse(ISSUER).unwrap()]));
        let sealer = Arc::new(Sealer::new(&MasterKey::parse(MASTER_KEY).unwrap(), None));
        let lead = RotationLead { rotate_every: Duration::from_secs(86_400), announce_for: Duration::from_secs(3600) };
        let keyring = Arc::new(Keyring::new(store.clone(), sealer, clock(), Duration::from_secs(300), lead));
        let lags = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&lags);
        let random = Arc::new(SeededRandom::new(1));
        let on_lag = Box::new(move |lag| told.lock().unwrap().push(lag));
        let (known, keys) = (Arc::clone(&view), Arc::clone(&keyring));
        let follower = Arc::new(Follower::new(store.clone(), known, keys, clock(), random, NEVER, on_lag));
        let (known, following) = (Arc::clone(&view), Arc::clone(&follower));
        let judge = Judge::new(known, keyring, following, clock(), ISSUER.to_owned(), TokenType::AtJwt, 1000);
        Self { store, view, follower, judge, lags }
    }
}

/// The clock advances with every chunk that is read.
struct Slow(Arc<ManualClock>);

impl StoreObserver for Slow {
    fn query(&self, name: &'static str, _: Duration, _: bool) {
        if name == "feed_load" {
            self.0.advance(TOO_LONG);
        }
    }
}

/// Counts successful operations of one name.
#[derive(Clone)]
struct Count(&'static str, Arc<AtomicUsize>);

impl Count {
    fn of(name: &'static str) -> Self {
        Self(name, Arc::default())
    }

    fn so_far(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl StoreObserver for Count {
    fn query(&self, name: &'static str, _: Duration, is_well: bool) {
        if name == self.0 && is_well {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Long enough for every task to finish or to block.
const A_MOMENT: Duration = Duration::from_millis(300);

on_both_engines! {
    async fn c1_a_revocation_applies_on_other_replicas_after_their_next_sync(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let session = a.log_in().await;
        b.sync().await;
        // The second time from the cache of verified tokens.
        assert!(b.is_active(&session.access_token).await && b.is_active(&session.access_token).await);
        assert_eq!(log_out(&a, &session.refresh_token).await.status(), 204);
        assert!(!a.is_active(&session.access_token).await, "at once where it was taken");
        b.sync().await;
        assert!(!b.is_active(&session.access_token).await);
        assert_eq!(error_of(b.refresh(&session.refresh_token).await).await.0, 401);
    }

    async fn c9_a_replica_applies_more_entries_than_fit_one_statement(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let owner = a_machine(&a).await;
        let token = a.token_of(&owner).await.access_token;
        b.sync().await;
        let before = match a.database.engine {
            Engine::Sqlite => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO changes (kind, subject, epoch, created_at, expires_at) SELECT 'jti', CAST('x' || i AS BLOB), 0, 1, 2 FROM n",
            Engine::Postgres => "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
                SELECT 'jti', convert_to('x' || i, 'UTF8'), 0, 1, 2 FROM generate_series(1, 20000) AS i",
        };
        a.database.tamper(before).await;
        assert_eq!(revoke(&a, &owner, &token).await.status(), 200);
        b.sync().await;
        assert!(!b.is_active(&token).await);
    }

    async fn c8_concurrent_edits_on_two_replicas_never_undo_each_other(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        a_machine(&a).await;
        b.sync().await;
        let edit = async |app: &TestApp, change: Value| {
            let answer = app.admin(Method::PATCH, "/admin/v1/clients/machine").json(&change).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        };
        for round in 0..10 {
            // Neither replica has applied the other's edit, of this round or of the previous one.
            let (name, ttl) = (format!("round {round}"), 60 + round);
            tokio::join!(edit(&a, json!({"display_name": name})), edit(&b, json!({"access_ttl": ttl})));
            let answer = a.admin(Method::PATCH, "/admin/v1/clients/machine").json(&json!({})).send().await.unwrap();
            let client: Value = answer.json().await.unwrap();
            assert_eq!((&client["display_name"], &client["access_ttl"]), (&json!(name), &json!(ttl)));
        }
    }

    async fn c8_a_client_that_another_replica_has_just_created_is_authenticated(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let batch = a_machine(&a).await;
        let token = b.token_of(&batch).await.access_token;
        assert!(b.is_active(&token).await);
        let gateway = ClientSettings { introspect: IntrospectRight::Any, ..ClientSettings::new(ClientKind::Confidential) };
        let gateway = a.confidential("edge", gateway).await;
        assert_eq!(b.ask(&gateway, &token).send().await.unwrap().status(), 200);
        a.client("app", application("")).await;
        b.log_in_on("app").await;
        let renewed = a.admin(Method::POST, "/admin/v1/clients/edge/secret").json(&json!({})).send().await.unwrap();
        let renewed: Value = renewed.json().await.unwrap();
        let renewed = Credentials { secret: renewed["client_secret"].as_str().unwrap().to_owned(), ..gateway };
        assert_eq!(b.batch(&renewed, &[&token]).await.status(), 200);
    }

    async fn i1_an_unknown_client_and_a_wrong_secret_get_the_same_answer_and_503_without_the_feed(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let token = app.log_in().await.access_token;
        let ask = async |id: &str, secret: &str| {
            let caller = Credentials { id: id.to_owned(), secret: secret.to_owned() };
            let answer = app.ask(&caller, &token).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (unknown, wrong) = (ask("nobody", "x").await, ask("gateway", "x").await);
        assert_eq!((unknown.0, &unknown), (401, &wrong));
        take_feed_away(&app.database).await;
        let (unknown, wrong) = (ask("nobody", "x").await, ask("gateway", "x").await);
        assert_eq!((unknown.0, &unknown), (503, &wrong));
        assert!(app.is_active(&token).await, "who is known is let in as long as the view is fresh");
        bring_feed_back(&app.database).await;
        assert_eq!(ask("nobody", "x").await.0, 401);
    }

    async fn k4_concurrent_unknown_clients_share_syncs(database: TestDatabase) {
        const READS: &str = "countersign_database_seconds_count{query=\"feed_follow\"}";
        let app = TestApp::start(database).await;
        let before = app.figure(READS).await;
        let crowd = (0..400).map(|number| {
            let caller = Credentials { id: format!("stranger-{number}"), secret: "x".to_owned() };
            let request = app.ask(&caller, "x");
            async move { request.send().await.unwrap().status().as_u16() }
        });
        assert!(join_all(crowd).await.iter().all(|status| *status == 401));
        let looks = app.figure(READS).await - before;
        assert!((1.0..200.0).contains(&looks), "{looks} syncs for 400 unknown clients");
    }

    async fn a_replica_that_confirms_an_earlier_logout_has_applied_it(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "[revocation]\npoll_interval = \"1s\"").await;
        for _ in 0..5 {
            let session = a.log_in().await;
            assert!(b.is_active(&session.access_token).await);
            assert_eq!(log_out(&a, &session.refresh_token).await.status(), 204);
            assert_eq!(log_out(&b, &session.refresh_token).await.status(), 204);
            assert!(!b.is_active(&session.access_token).await);
        }
    }

    async fn r4_a_retry_on_another_replica_gets_the_same_pair_and_reuse_there_ends_the_session_everywhere(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let first = a.log_in().await;
        let second = tokens(a.refresh(&first.refresh_token).await).await;
        let retried = tokens(b.refresh(&first.refresh_token).await).await;
        let jti = |token: &str| claims_of(token)["jti"].clone();
        assert_eq!(retried.refresh_token, second.refresh_token);
        assert_eq!(jti(&retried.access_token), jti(&second.access_token));
        let third = tokens(b.refresh(&second.refresh_token).await).await;
        a.advance(Duration::from_secs(11)).await;
        b.sync().await;
        assert_eq!(error_of(b.refresh(&first.refresh_token).await).await, (401, "refresh_token_reused".into()));
        assert!(!b.is_active(&third.access_token).await);
        a.sync().await;
        assert!(!a.is_active(&third.access_token).await);
        assert_eq!(error_of(a.refresh(&third.refresh_token).await).await.0, 401);
    }

    async fn c6_a_token_revoked_while_it_is_judged_is_not_cached_as_active(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let owner = a_machine(&app).await;
        for _ in 0..40 {
            let token = app.token_of(&owner).await.access_token;
            // The token is not in the cache yet, so verifying, caching and revoking race.
            let judging = async { tokio::join!(app.is_active(&token), app.is_active(&token), app.is_active(&token)) };
            let (_, revoked) = tokio::join!(judging, revoke(&app, &owner, &token));
            assert_eq!(revoked.status(), 200);
            assert!(!app.is_active(&token).await);
        }
    }

    async fn c7_a_replica_whose_clock_is_more_than_30_s_off_at_start_is_not_ready_until_the_clocks_agree(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let owner = a_machine(&a).await;
        let token = a.token_of(&owner).await.access_token;
        for (number, offset, status) in [(2, 30_000, 200), (3, 30_001, 503), (4, -30_001, 503), (5, -30_000, 200)] {
            let clock = Arc::new(ManualClock::starting_at(START));
            clock.step(offset);
            let b = beside_at(&a, Arc::clone(&clock), number, "").await;
            let (found, checks) = readiness(&b).await;
            assert_eq!((found, &checks["clock"]), (status, &json!(status == 200)), "{offset} ms");
            assert_eq!(checks["view_fresh"], json!(true));
            if status == 503 {
                assert!(is_503_with_retry_after(&b.introspection(&token).await));
                let login = json!({"username": USER, "password": PASSWORD});
                assert!(is_503_with_retry_after(&b.post_json("/v1/login", &login).send().await.unwrap()));
                clock.step(-offset);
                b.sync().await;
                assert_eq!(readiness(&b).await.0, 200);
            }
            assert!(b.is_active(&token).await, "{offset} ms");
        }
    }

    async fn c7_a_step_of_the_databases_clock_neither_revives_nor_refuses_a_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let expired = app.log_in().await.access_token;
        app.advance(Duration::from_secs(280)).await;
        let good = app.log_in().await.access_token;
        app.advance(Duration::from_secs(21)).await;
        for step in [-25_000, -60_000, -600_000, 25_000, 60_000, 600_000] {
            app.clock.step_database(step);
            for _ in 0..3 {
                app.sync().await;
                assert!(!app.is_active(&expired).await, "{step} ms");
                assert!(app.is_active(&good).await, "{step} ms");
                assert_eq!(readiness(&app).await.0, 200, "{step} ms");
            }
            let minted = claims_of(&app.log_in().await.access_token)["iat"].as_i64().unwrap();
            assert_eq!(minted, app.clock.now().seconds(), "{step} ms");
            assert_eq!(minted, START.plus(Duration::from_secs(301)).seconds(), "{step} ms");
            app.clock.step_database(-step);
            app.sync().await;
        }
    }

    async fn c7_a_step_of_this_machines_clock_neither_revives_nor_refuses_a_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let expired = app.log_in().await.access_token;
        app.advance(Duration::from_secs(280)).await;
        let good = app.log_in().await.access_token;
        app.advance(Duration::from_secs(21)).await;
        for step in [-25_000, -60_000, 60_000, 3_600_000] {
            app.clock.step(step);
            app.sync().await;
            assert!(!app.is_active(&expired).await, "{step} ms");
            assert!(app.is_active(&good).await, "{step} ms");
            assert_eq!(claims_of(&app.log_in().await.access_token)["iat"], START.plus(Duration::from_secs(301)).seconds());
            app.clock.step(-step);
            app.sync().await;
        }
    }

    async fn c7_clocks_that_are_set_back_together_revive_no_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let expired = app.log_in().await.access_token;
        app.advance(Duration::from_secs(310)).await;
        app.clock.step(-40_000);
        app.clock.step_database(-40_000);
        app.sync().await;
        for _ in 0..39 {
            assert!(is_503_with_retry_after(&app.introspection(&expired).await));
            assert!(is_503_with_retry_after(&app.post_json("/v1/login", &json!({"username": USER, "password": PASSWORD})).send().await.unwrap()));
            app.advance(Duration::from_secs(1)).await;
        }
        app.advance(Duration::from_secs(1)).await;
        assert!(!app.is_active(&expired).await);
        assert!(app.is_active(&app.log_in().await.access_token).await);
    }

    async fn c7_slow_application_of_entries_is_not_mistaken_for_a_clock_difference(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Quiet { follower, .. } = Quiet::of(&app, Slow(Arc::clone(&app.clock))).await;
        follower.sync().await.unwrap();
        assert_eq!((app.clock.offset_millis(), app.clock.now()), (0, START.plus(app.clock.elapsed())));
    }

    async fn c4_a_writer_with_a_skewed_clock_cannot_hide_or_shorten_a_revocation(database: TestDatabase) {
        let a = TestApp::start_with(database, "[tokens]\naccess_ttl = \"1h\"").await;
        let owner = a_machine(&a).await;
        for (number, skew) in [(2, -30_000), (3, 30_000)] {
            let token = a.token_of(&owner).await.access_token;
            let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(START.millis() + skew)));
            let b = beside_at(&a, clock, number, "[tokens]\naccess_ttl = \"1h\"").await;
            let session = json!({"jti": claims_of(&token)["jti"]});
            let answer = b.admin(Method::POST, "/admin/v1/revocations").json(&session).send().await.unwrap();
            assert!(answer.status().is_success());
            a.sync().await;
            assert!(!a.is_active(&token).await, "skew {skew} ms");
        }
        // The revocation is stored until the last token that it affects expires.
        let last = a.token_of(&owner).await.access_token;
        assert_eq!(revoke(&a, &owner, &last).await.status(), 200);
        a.advance(Duration::from_secs(3599)).await;
        a.service.status.sweep_view(a.service.status.time_to_forget().unwrap());
        assert!(!a.is_active(&last).await);
    }

    async fn k4_any_number_of_unknown_kids_causes_one_sync_in_two_seconds(database: TestDatabase) {
        let app = TestApp::start(database).await;
        const READS: &str = "countersign_database_seconds_count{query=\"keys_all\"}";
        let mut before = app.figure(READS).await;
        for round in 0..3 {
            let tokens: Vec<_> = (0..60).map(|number| garbage(round * 100 + number)).collect();
            let asked = tokens.iter().map(|token| app.is_active(token));
            assert!(join_all(asked).await.iter().all(|is_active| !is_active));
            let after = app.figure(READS).await;
            assert_eq!(after - before, 1.0, "round {round}");
            before = after;
            app.advance(Duration::from_secs(2)).await;
        }
    }

    async fn c9_a_cold_replica_knows_every_revocation_before_its_first_answer(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let owner = a_machine(&a).await;
        let token = a.token_of(&owner).await.access_token;
        let number = size(12_000, 500_000);
        let subject = || match a.database.engine {
            Engine::Sqlite => format!("randomblob(16) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) SELECT i FROM n)"),
            Engine::Postgres => format!("decode(md5(i::text), 'hex') FROM generate_series(1, {number}) AS i"),
        };
        // More entries than one read of the feed returns, before and after the relevant one.
        let expires = START.plus(Duration::from_secs(3600)).millis();
        let fill = format!(
            "INSERT INTO changes (kind, epoch, created_at, expires_at, subject) SELECT 'session', 0, {}, {expires}, {}",
            START.millis(), subject());
        a.database.tamper(&fill).await;
        assert_eq!(revoke(&a, &owner, &token).await.status(), 200);
        a.database.tamper(&fill.replace("md5(i::text)", "md5('b' || i)")).await;
        let b = beside(&a, 2, "").await;
        assert!(!b.is_active(&token).await);
        assert_eq!(b.admin(Method::GET, "/admin/v1/status").send().await.unwrap().json::<Value>().await.unwrap()["revocations"]["session"], 2 * number);
    }

    async fn an_active_token_of_a_client_that_another_replica_has_just_changed_is_not_inactive(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let owner = a_machine(&a).await;
        let token = a.token_of(&owner).await.access_token;
        assert!(b.is_active(&token).await, "a client that b has not met");
        let change = async |change: Value| {
            let answer = a.admin(Method::PATCH, "/admin/v1/clients/machine").json(&change).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{change}");
        };
        change(json!({"enabled": false})).await;
        b.sync().await;
        assert!(!b.is_active(&token).await);
        change(json!({"enabled": true})).await;
        let token = a.token_of(&owner).await.access_token;
        assert!(b.is_active(&token).await, "a client that b believes disabled");
        change(json!({"audiences": ["https://new.example"]})).await;
        let token = a.token_of(&owner).await.access_token;
        assert!(b.is_active(&token).await, "an audience that b has not met");
        change(json!({"audiences": []})).await;
        b.sync().await;
        // While the feed cannot be read, no replica can know whether the audience was restored, as long as the token
        // may be newer than the view.
        take_feed_away(&a.database).await;
        assert!(is_503_with_retry_after(&b.introspection(&token).await));
        bring_feed_back(&a.database).await;
        b.advance(Duration::from_secs(3)).await;
        take_feed_away(&a.database).await;
        assert!(!b.is_active(&token).await);
    }

    async fn an_active_token_whose_key_and_client_are_both_new_to_the_replica_is_active(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Quiet { follower, judge, .. } = Quiet::of(&app, Count::of("feed_follow")).await;
        follower.sync().await.unwrap();
        let signing = header_of(&app.log_in().await.access_token)["kid"].as_str().unwrap().to_owned();
        assert!(app.service.keys.withdraw_key(&Kid::parse(&signing).unwrap(), &Requester::command_line()).await.unwrap());
        let token = app.token_of(&a_machine(&app).await).await.access_token;
        assert_ne!(header_of(&token)["kid"], signing);
        let verdict = judge.judge(&token).await.verdict;
        assert!(matches!(verdict, Verdict::Active(_)), "{verdict:?}");
    }

    async fn many_changed_clients_are_read_with_one_statement_and_applied_in_one_step(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reads = Count::of("clients_by_ids");
        let Quiet { view, follower, .. } = Quiet::of(&app, reads.clone()).await;
        follower.sync().await.unwrap();
        for number in 0..50 {
            app.client(&format!("client-{number}"), machine(&[], "")).await;
        }
        app.admin(Method::DELETE, "/admin/v1/clients/client-7").send().await.unwrap().error_for_status().unwrap();
        let (read, generation) = (reads.so_far(), view.generation());
        follower.sync().await.unwrap();
        assert_eq!(reads.so_far() - read, 1);
        // One change for the revocation of the deleted client, and one for all clients together.
        assert_eq!(view.generation() - generation, 2);
        assert!(view.client("client-7").is_none());
        assert!((0..50).filter(|number| *number != 7).all(|number| view.client(&format!("client-{number}")).is_some()));
    }

    async fn d8_everything_is_revoked_on_every_replica_by_one_entry(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2, "").await;
        let owner = a_machine(&a).await;
        for _ in 0..2 {
            let (user, client) = (a.log_in().await, a.token_of(&owner).await.access_token);
            assert!(b.is_active(&user.access_token).await && b.is_active(&client).await);
            let (entries, statements) = (entries_of(&a).await, statements_of(&a).await);
            a.service.revocations.revoke_everything(&Requester::command_line()).await.unwrap();
            assert_eq!(entries_of(&a).await - entries, 1);
            assert!(statements_of(&a).await - statements < 10.0);
            for replica in [&a, &b] {
                replica.sync().await;
                assert!(!replica.is_active(&user.access_token).await && !replica.is_active(&client).await);
                assert_eq!(error_of(replica.refresh(&user.refresh_token).await).await.0, 401);
                let new = replica.log_in().await;
                let machine = replica.token_of(&owner).await.access_token;
                for judge in [&a, &b] {
                    assert!(judge.is_active(&new.access_token).await && judge.is_active(&machine).await);
                }
                let refreshed = tokens(replica.refresh(&new.refresh_token).await).await;
                assert!(replica.is_active(&refreshed.access_token).await);
            }
        }
        // A replica that starts when the entry is gone.
        a.database.tamper("DELETE FROM changes").await;
        let c = beside(&a, 3, "").await;
        let (user, client) = (c.log_in().await, c.token_of(&owner).await.access_token);
        for replica in [&a, &b, &c] {
            assert!(replica.is_active(&user.access_token).await && replica.is_active(&client).await);
        }
    }

    async fn the_verified_token_cache_keeps_no_revoked_or_expired_token(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let owner = a_machine(&app).await;
        let cached = || app.service.judge.cached();
        let token = async || app.token_of(&owner).await.access_token;
        let [revoked, of_client, kept] = [token().await, token().await, token().await];
        assert_eq!(revoke(&app, &owner, &revoked).await.status(), 200);
        assert_eq!(cached(), 0, "its client has revoked it");
        assert!(app.is_active(&of_client).await);
        app.service.revocations.revoke(Target::Client(ClientId::parse("machine").unwrap()), &Requester::command_line()).await.unwrap();
        assert!(!app.is_active(&of_client).await && !app.is_active(&kept).await);
        assert_eq!(cached(), 0, "all of its client are revoked");
        let last = token().await;
        assert!(app.is_active(&last).await);
        assert_eq!(cached(), 1);
        app.advance(Duration::from_secs(301)).await;
        app.service.status.sweep_view(app.service.status.time_to_forget().unwrap());
        assert_eq!(cached(), 0, "it has expired");
    }

    async fn i12_no_entry_is_dropped_by_a_clock_that_is_stepped_or_wrong(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for step in [-86_400_000, -3_600_000, 3_600_000, 86_400_000] {
            app.sync().await;
            assert!(app.service.status.time_to_forget().is_some());
            app.clock.step(step);
            assert_eq!(app.service.status.time_to_forget(), None, "{step} ms");
        }
        app.clock.step_database(-60_000);
        app.sync().await;
        assert_eq!(app.service.status.time_to_forget(), None, "no two clocks agree");
    }

    async fn c9_a_load_that_takes_longer_than_max_lag_is_followed_by_a_sync_and_not_by_another_load(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Quiet { view, follower, .. } = Quiet::of(&app, Slow(Arc::clone(&app.clock))).await;
        follower.sync().await.unwrap();
        assert_eq!(view.freshness(&*app.clock), Freshness::Stale, "what the first chunk did not bring may be long revoked");
        follower.sync().await.unwrap();
        assert_eq!(view.freshness(&*app.clock), Freshness::Fresh);
        // The end of an outage does not cause a full read either.
        app.clock.advance(TOO_LONG);
        assert_eq!(view.freshness(&*app.clock), Freshness::Stale);
        follower.sync().await.unwrap();
        assert_eq!(view.freshness(&*app.clock), Freshness::Fresh);
    }

    async fn c9_a_replica_whose_load_took_longer_than_max_lag_polls_again_at_once(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Quiet { view, follower, .. } = Quiet::of(&app, Slow(Arc::clone(&app.clock))).await;
        let stop = CancellationToken::new();
        let is_fresh = async {
            while view.freshness(&*app.clock) != Freshness::Fresh {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let following = async { tokio::join!(follower.run(&stop), is_fresh) };
        tokio::time::timeout(Duration::from_secs(10), following).await.expect("it pauses, and knows nothing");
    }

    async fn k4_forged_kids_make_no_active_token_inactive(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = a_machine(&app).await;
        let former = app.token_of(&batch).await.access_token;
        let forge = Forge::import(&app, &former).await;
        let reads = Count::of("keys_all");
        let Quiet { follower, judge, .. } = Quiet::of(&app, reads.clone()).await;
        follower.sync().await.unwrap();
        let claiming = |issued_at: i64, issuer: &str| {
            let mut claims = forge.claims_with("iat", json!(issued_at));
            (claims["nbf"], claims["iss"]) = (json!(issued_at), json!(issuer));
            forge.sign(&forge.header_with("kid", json!("unknown")).to_string(), &claims.to_string())
        };
        let now = START.seconds();
        let before = reads.so_far();
        assert!(matches!(judge.judge(&garbage(1)).await.verdict, Verdict::Inactive(_)), "the reload is spent");
        assert_eq!(reads.so_far() - before, 1);
        let signing = header_of(&former)["kid"].as_str().unwrap().to_owned();
        app.administer(Method::POST, &format!("/admin/v1/keys/{signing}/withdraw"), None).await;
        let good = app.token_of(&batch).await.access_token;
        let made_up = claiming(now, ISSUER);
        let mut judging = Box::pin(join_all([&good, &made_up].map(|token| judge.judge(token))));
        assert!(tokio::time::timeout(A_MOMENT, &mut judging).await.is_err(), "nobody knows yet");
        assert_eq!(reads.so_far() - before, 1, "and nobody is asked");
        follower.sync().await.unwrap();
        let verdicts: Vec<_> = judging.await.into_iter().map(|judgement| judgement.verdict).collect();
        assert!(matches!(verdicts[..], [Verdict::Active(_), Verdict::Inactive(_)]), "{verdicts:?}");
        assert_eq!(reads.so_far() - before, 2, "the look has read the keys because they had changed");
        // A token that no key could make valid is refused without waiting.
        for token in [garbage(2), claiming(now - 3, ISSUER), claiming(now, "https://other.example")] {
            let judgement = tokio::time::timeout(A_MOMENT, judge.judge(&token)).await.expect("it need not wait");
            assert!(matches!(judgement.verdict, Verdict::Inactive(_)));
        }
        let mut judging = Box::pin(judge.judge(&made_up));
        assert!(tokio::time::timeout(A_MOMENT, &mut judging).await.is_err());
        take_feed_away(&app.database).await;
        follower.sync().await.unwrap_err();
        assert!(matches!(judging.await.verdict, Verdict::Unavailable(_)));
        bring_feed_back(&app.database).await;
    }

    async fn k4_requests_waiting_for_a_new_key_are_bounded_and_the_rest_are_503(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let forge = Forge::import(&app, &app.token_of(&a_machine(&app).await).await.access_token).await;
        let Quiet { follower, judge, .. } = Quiet::of(&app, ()).await;
        follower.sync().await.unwrap();
        let made_up = forge.under(&forge.header_with("kid", json!("unknown")));
        assert!(matches!(judge.judge(&made_up).await.verdict, Verdict::Inactive(_)), "the reload has not brought it");
        let mut waiting = Box::pin(join_all((0..1024).map(|_| judge.judge(&made_up))));
        // Tokio lets a task take a bounded number of locks in each turn.
        for _ in 0..100 {
            assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err());
            tokio::task::yield_now().await;
        }
        let one_more = tokio::time::timeout(A_MOMENT, judge.judge(&made_up)).await.expect("it need not wait");
        assert!(matches!(one_more.verdict, Verdict::Unavailable(_)));
        follower.sync().await.unwrap();
        assert!(waiting.await.iter().all(|judgement| matches!(judgement.verdict, Verdict::Inactive(_))));
    }

    async fn the_propagation_delay_covers_revocations_by_other_replicas(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Quiet { store, follower, lags, .. } = Quiet::of(&app, ()).await;
        follower.sync().await.unwrap();
        let until = START.plus(MINUTE);
        let revoke = async |jti: &str| store.feed().revoke_jti(&Jti::parse(jti).unwrap(), until, START, None).await.unwrap();
        follower.apply_locally(revoke("own").await).await;
        a_machine(&app).await;
        follower.sync().await.unwrap();
        assert!(lags.lock().unwrap().is_empty(), "neither its own nor what is no revocation");
        drop(revoke("foreign").await);
        app.clock.advance(Duration::from_millis(70));
        follower.sync().await.unwrap();
        assert_eq!(*lags.lock().unwrap(), [Duration::from_millis(70)]);
        assert_eq!(follower.last_lag(), Duration::from_millis(70));
    }

    async fn c2_a_replica_that_cannot_follow_the_feed_answers_503_with_the_reason(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let owner = a_machine(&app).await;
        let token = app.token_of(&owner).await.access_token;
        take_feed_away(&app.database).await;
        app.clock.advance(TOO_LONG);
        assert!(is_503_with_retry_after(&app.introspection(&token).await));
        // The client may have been disabled by now: it gets no tokens from memory.
        assert!(is_503_with_retry_after(&app.token_request(&owner, &[]).await));
        let wrong = Credentials { secret: "perhaps made a moment ago".to_owned(), ..owner.clone() };
        assert!(is_503_with_retry_after(&app.token_request(&wrong, &[]).await), "a secret may be newer than the view");
        assert!(is_503_with_retry_after(&revoke(&app, &owner, &token).await));
        assert_eq!(app.get("/.well-known/jwks.json").send().await.unwrap().status(), 200);
        let (status, checks) = readiness(&app).await;
        assert_eq!((status, &checks["view_fresh"], &checks["clock"]), (503, &json!(false), &json!(true)));
        bring_feed_back(&app.database).await;
        app.sync().await;
        assert!(app.is_active(&token).await);
        assert_eq!(app.token_request(&wrong, &[]).await.status(), 401);
        assert_eq!(readiness(&app).await.0, 200);
    }

    async fn d6_while_the_database_is_read_only_writes_are_503_and_judging_continues(database: TestDatabase) {
        let app = TestApp::start_with(database, "[database]\nstatement_timeout = \"200ms\"\nacquire_timeout = \"200ms\"").await;
        let session = app.log_in().await;
        let stopped = stop_writes(&app.database).await;
        assert!(is_503_with_retry_after(&app.refresh(&session.refresh_token).await));
        assert!(is_503_with_retry_after(&log_out(&app, &session.refresh_token).await));
        app.sync().await;
        assert!(app.is_active(&session.access_token).await);
        assert_eq!(readiness(&app).await.0, 200);
        drop(stopped);
        tokens(app.refresh(&session.refresh_token).await).await;
    }

    async fn a_master_key_rotation_works_while_replicas_are_at_different_steps(database: TestDatabase) {
        const OLD: &str = "b2xkLWZpeHR1cmUtbWFzdGVyLWtleS0wMTIzNDU2Nzg=";
        const NEW: &str = "bmV3LWZpeHR1cmUtbWFzdGVyLWtleS0wMTIzNDU2Nzg=";
        let keys = |current, previous| format!("master_key = \"{current}\"\nmaster_key_previous = \"{previous}\"\n");
        // Every replica has the new master key; the second one already seals with it.
        let a = TestApp::start_with(database, &keys(OLD, NEW)).await;
        let b = beside(&a, 2, &keys(NEW, OLD)).await;
        let first = a.log_in().await;
        assert!(b.is_active(&first.access_token).await);
        let second = tokens(b.refresh(&first.refresh_token).await).await;
        let third = tokens(a.refresh(&second.refresh_token).await).await;
        // The first replica opens keys that the second one sealed: a new key, and the old keys sealed again.
        b.admin(Method::POST, "/admin/v1/keys/rotate").json(&json!({})).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(b.service.keys.reseal_keys().await.unwrap(), 1);
        a.sync().await;
        assert_eq!(a.published().await.len(), 2);
        // Reuse is detected across the two encodings of a token.
        a.advance(Duration::from_secs(11)).await;
        b.sync().await;
        assert_eq!(error_of(a.refresh(&first.refresh_token).await).await, (401, "refresh_token_reused".into()));
        assert!(!a.is_active(&third.access_token).await);
        // The last step: the old key is dropped.
        let c = beside(&a, 3, &format!("master_key = \"{NEW}\"\n")).await;
        assert_eq!(c.published().await.len(), 2);
        let fourth = b.log_in().await;
        tokens(c.refresh(&fourth.refresh_token).await).await;
    }

    async fn c10_a_replica_of_the_previous_release_serves_on_the_next_schema(database: TestDatabase) {
        // An expanding migration of the next release changes the most used tables while this release runs.
        const NEXT: &str = "ALTER TABLE sessions ADD COLUMN device TEXT;
            ALTER TABLE users ADD COLUMN locale TEXT DEFAULT 'en';
            ALTER TABLE clients ADD COLUMN logo TEXT;
            ALTER TABLE signing_keys ADD COLUMN origin TEXT;
            ALTER TABLE admin_keys ADD COLUMN scope TEXT;
            ALTER TABLE login_attempts ADD COLUMN source TEXT;
            CREATE TABLE devices (name TEXT);
            CREATE INDEX users_by_locale ON users (locale);
            INSERT INTO schema_migrations SELECT version + 1, 'next', checksum, 1, 0 FROM schema_migrations
                ORDER BY version DESC LIMIT 1";
        let old = TestApp::start(database).await;
        let mut session = old.log_in().await;
        // Statements have been used, prepared and kept.
        for _ in 0..3 {
            session = tokens(old.refresh(&session.refresh_token).await).await;
            old.admin(Method::GET, "/admin/v1/users").send().await.unwrap().error_for_status().unwrap();
        }
        old.database.tamper(NEXT).await;
        old.admin(Method::GET, "/admin/v1/users").send().await.unwrap().error_for_status().unwrap();
        session = tokens(old.refresh(&session.refresh_token).await).await;
        let wrong = old.post_json("/v1/login", &json!({"username": USER, "password": "not the password of ada"}));
        assert_eq!(error_of(wrong.send().await.unwrap()).await.0, 401);
        let other = old.log_in().await;
        // Another replica of the same release starts, beside a replica of the next one that has migrated.
        let started = beside(&old, 2, "").await;
        session = tokens(started.refresh(&session.refresh_token).await).await;
        assert_eq!(log_out(&started, &other.refresh_token).await.status(), 204);
        old.sync().await;
        assert!(!old.is_active(&other.access_token).await && old.is_active(&session.access_token).await);
        let password = json!({"current_password": PASSWORD, "new_password": "quite another battery staple 8"});
        let change = old.request(Method::PUT, "/v1/me/password").bearer_auth(&session.access_token).json(&password);
        tokens(change.send().await.unwrap()).await;
        let rotated = old.admin(Method::POST, "/admin/v1/keys/rotate").json(&json!({})).send().await.unwrap();
        rotated.error_for_status().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_change_that_commits_after_later_ones_were_read_is_not_missed() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let a = TestApp::start(TestDatabase::alone().await).await;
    let owner = a_machine(&a).await;
    let (held, later) = (a.token_of(&owner).await.access_token, a.token_of(&owner).await.access_token);
    let jti = claims_of(&held)["jti"].as_str().unwrap().to_owned();
    let mut writer = a.database.connect_postgres().await;
    writer.execute("BEGIN").await.unwrap();
    let expires = START.plus(Duration::from_secs(600)).millis();
    let insert = "INSERT INTO changes (kind, subject, epoch, created_at, expires_at) VALUES ('jti', $1, 0, $2, $3)";
    let insert = sqlx::query(insert).bind(jti.as_bytes()).bind(START.millis()).bind(expires);
    insert.execute(&mut writer).await.unwrap();
    for _ in 0..3 {
        assert_eq!(revoke(&a, &owner, &later).await.status(), 200);
        a.sync().await;
        assert!(a.is_active(&held).await, "not committed yet");
    }
    let b = beside(&a, 2, "").await;
    writer.execute("COMMIT").await.unwrap();
    for replica in [&a, &b] {
        replica.sync().await;
        assert!(!replica.is_active(&held).await && !replica.is_active(&later).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_follower_reconnects_by_itself_after_its_connections_are_terminated() {
    if !Engine::Postgres.is_available() {
        return;
    }
    const SOON: Duration = Duration::from_secs(10);
    let a = TestApp::start(TestDatabase::alone().await).await;
    let owner = a_machine(&a).await;
    let looks = Count::of("feed_follow");
    let Quiet { view, follower, .. } = Quiet::start(&a, looks.clone(), false).await;
    let (stop, following) = (CancellationToken::new(), Arc::clone(&follower));
    let until = stop.clone();
    let running = tokio::spawn(async move { following.run(&until).await });
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let end_all = format!("SELECT pg_terminate_backend(pid) {others}");
    // The replica that is asked to revoke has one as well.
    let listeners = format!("SELECT count(*) {others} AND query LIKE 'LISTEN%'");
    let mut operator = a.database.connect_postgres().await;
    let mut looks_before = 0;
    for round in 0..size(3, 1000) {
        let began = Instant::now();
        while looks.so_far() <= looks_before
            || sqlx::query_scalar::<_, i64>(AssertSqlSafe(listeners.as_str())).fetch_one(&mut operator).await.unwrap()
                < 2
        {
            assert!(began.elapsed() < SOON, "nobody listens any more: round {round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let token = a.token_of(&owner).await.access_token;
        assert_eq!(revoke(&a, &owner, &token).await.status(), 200);
        let revoked = Instant::now();
        while view.count(RevocationKind::Jti) <= round {
            assert!(revoked.elapsed() < SOON, "it was not woken: round {round}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        looks_before = looks.so_far();
        operator.execute(AssertSqlSafe(end_all.as_str())).await.unwrap();
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_read_only_or_full_database_is_503_until_it_recovers() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let mut database = TestDatabase::alone().await;
    let name: String = {
        let mut connection = database.connect_postgres().await;
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap()
    };
    // A superuser has every right: the service has its own role.
    let role = format!("{name}_role");
    let rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public";
    let make_role = format!(
        "CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role}; GRANT {rights} TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    database.tamper(&make_role).await;
    if let Location::Postgres { url, .. } = &mut database.settings.location {
        url.push_str(&format!("?options=-c%20role%3D{role}"));
    }
    let app = TestApp::start(database).await;
    let tamper = async |sql: &str| app.database.tamper(&format!("SET ROLE NONE; {sql}")).await;
    let mut session = app.log_in().await;
    let read_only = |value: &str| {
        format!(
            "BEGIN READ WRITE; ALTER DATABASE {name} SET default_transaction_read_only = {value}; COMMIT;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
    };
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; END$$;
         CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION full_disk()";
    let trials = [
        (read_only("on"), read_only("off")),
        (full.to_owned(), "DROP TRIGGER full_disk ON sessions; DROP FUNCTION full_disk".to_owned()),
        (
            format!("REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA public FROM {role}"),
            format!("GRANT {rights} TO {role}"),
        ),
    ];
    for (spoil, mend) in trials {
        tamper(&spoil).await;
        assert!(is_503_with_retry_after(&app.refresh(&session.refresh_token).await), "{spoil}");
        assert!(is_503_with_retry_after(&log_out(&app, &session.refresh_token).await), "{spoil}");
        let status = app.admin(Method::GET, "/admin/v1/status").send().await.unwrap();
        assert_eq!(status.status(), 200, "an administrator can look: {spoil}");
        app.sync().await;
        assert!(app.is_active(&session.access_token).await);
        tamper(&mend).await;
        session = tokens(app.refresh(&session.refresh_token).await).await;
    }
    tamper(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// Returns the result of one query on the test's database.
async fn ask(app: &TestApp, query: &'static str) -> Option<i64> {
    sqlx::query_scalar(query).fetch_one(&mut app.database.connect_postgres().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_d9_hanging_commits_neither_block_the_feed_nor_exceed_the_pool() {
    const STALL: &str = "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
            $$BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END$$;
         CREATE CONSTRAINT TRIGGER stall AFTER UPDATE ON sessions DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION stall()";
    const FEED: &str = "SELECT max(pid)::bigint FROM pg_stat_activity WHERE datname = current_database()
        AND query LIKE '%pg_current_snapshot%' AND pid <> pg_backend_pid()";
    const STALLED: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event = 'advisory'";
    if !Engine::Postgres.is_available() {
        return;
    }
    let settings = "[database]\nstatement_timeout = \"1s\"\nacquire_timeout = \"500ms\"";
    let app = TestApp::start_with(TestDatabase::alone().await, settings).await;
    let owner = a_machine(&app).await;
    let token = app.token_of(&owner).await.access_token;
    let sessions = Sessions::of(&app).await;
    let mut presented = Vec::new();
    for _ in 0..32 {
        presented.push(sessions.open(&app).await);
    }
    app.sync().await;
    let feed = ask(&app, FEED).await;
    assert!(feed.is_some());
    app.database.tamper(STALL).await;
    let mut stalled = app.database.connect_postgres().await;
    stalled.execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let pool = i64::try_from(pool_size().unwrap_or(7)).unwrap();
    for (round, refresh_tokens) in presented.chunks(8).enumerate() {
        let mut answers = join_all(refresh_tokens[1..].iter().map(|refresh_token| log_out(&app, refresh_token))).await;
        answers.push(app.refresh(&refresh_tokens[0]).await);
        assert!(answers.iter().all(is_503_with_retry_after), "{round}");
        app.sync().await;
        assert!(app.is_active(&token).await);
        assert_eq!(ask(&app, FEED).await, feed, "the feed keeps its connection");
        let count = ask(&app, STALLED).await.unwrap();
        assert!((1..=pool).contains(&count), "{round}: {count}");
    }
    stalled.execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    let over = Instant::now();
    while app.refresh(&presented[0]).await.status() != 200 {
        assert!(over.elapsed() < Duration::from_secs(10), "commits end again, and nobody notices");
    }
}

/// Removes a SQLite database as an operator does.
fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

#[tokio::test]
async fn c1_a_replaced_database_file_is_reopened_and_its_revocations_apply() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let old = app.log_in().await;
    assert!(app.is_active(&old.access_token).await);
    let path = app.database.file().unwrap().to_owned();
    let copy = path.with_extension("copy");
    app.database.tamper(&format!("VACUUM INTO '{}'", copy.display())).await;
    remove(&path);
    std::fs::rename(copy, &path).unwrap();
    let store = app.database.open().await;
    let _ = store.revoke_everything(START.plus(Duration::from_secs(3600)), START, None).await.unwrap();
    app.sync().await;
    assert!(!app.is_active(&old.access_token).await);
    let new = app.log_in().await;
    assert!(app.is_active(&new.access_token).await);
    assert_eq!(store.row_counts().await.unwrap()[8], ("sessions".to_owned(), 2), "the new file is written");
}

#[tokio::test]
async fn c2_without_its_database_file_the_service_answers_503_with_the_reason_until_the_file_returns() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let token = app.log_in().await.access_token;
    let path = app.database.file().unwrap().to_owned();
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    assert!(app.follower.sync().await.is_err());
    app.clock.advance(TOO_LONG);
    assert!(is_503_with_retry_after(&app.introspection(&token).await));
    let login = json!({"username": USER, "password": PASSWORD});
    assert!(is_503_with_retry_after(&app.post_json("/v1/login", &login).send().await.unwrap()));
    let ready = app.http.get(format!("http://{}/readyz", app.operations)).send().await.unwrap();
    let ready: Value = ready.json().await.unwrap();
    assert!(ready["problems"].to_string().contains(path.to_str().unwrap()), "{ready}");
    std::fs::rename(&aside, &path).unwrap();
    app.sync().await;
    assert!(app.is_active(&token).await);
    app.log_in().await;
}
