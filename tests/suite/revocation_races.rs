//! C6: a verdict that was pending or cached when a revocation arrives is never served after it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::clock::{Clock, ClockEvent, ClockFault};
use countersign::crypto::{MasterKey, Sealer};
use countersign::domain::{Audience, Change, ClientId, Jti, Revocation, Timestamp, TokenType};
use countersign::replica::keyring::{Keyring, RotationLead};
use countersign::replica::view::View;
use countersign::service::{Caller, Judge, Verdict};
use countersign::store::{FeedEntry, Written};

use crate::support::app::{ISSUER, TestApp, machine};
use crate::support::database::{Engine, START, TestDatabase};
use crate::support::judging::*;

/// Long after every expiry in this file.
const LATER: Timestamp = Timestamp::from_seconds(START.seconds() + 7200);

type Hook = Box<dyn FnOnce() + Send>;

/// A stopped clock that runs an action once, at the given number of reads. A revocation can so arrive during a
/// verification.
struct TrappedClock {
    looks: AtomicU64,
    trap: Mutex<Option<(u64, Hook)>>,
}

impl TrappedClock {
    fn look(&self) {
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        let mut trap = self.trap.lock().unwrap();
        if trap.as_ref().is_some_and(|(at, _)| *at == look)
            && let Some((_, hook)) = trap.take()
        {
            drop(trap);
            hook();
        }
    }

    fn set(&self, look: u64, hook: Hook) {
        self.looks.store(0, Ordering::SeqCst);
        *self.trap.lock().unwrap() = Some((look, hook));
    }

    fn disarm(&self) {
        *self.trap.lock().unwrap() = None;
    }
}

impl Clock for TrappedClock {
    fn now(&self) -> Timestamp {
        self.look();
        START
    }

    fn elapsed(&self) -> Duration {
        self.look();
        Duration::ZERO
    }

    fn fault(&self, _: Duration) -> Option<ClockFault> {
        None
    }

    fn observe_database(&self, _: Timestamp, _: Duration, _: Duration) -> Option<ClockEvent> {
        None
    }

    fn offset_millis(&self) -> i64 {
        0
    }
}

/// A separate `Judge` over the keys and clients of a running service, on a clock that can be trapped.
struct Court {
    app: TestApp,
    batch: Credentials,
    view: Arc<View>,
    clock: Arc<TrappedClock>,
    judge: Judge,
}

impl Court {
    async fn open() -> Self {
        let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        let clock = Arc::new(TrappedClock { looks: AtomicU64::new(0), trap: Mutex::new(None) });
        let store = app.database.open().await;
        let master = MasterKey::parse("dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=").unwrap();
        let lead = RotationLead { rotate_every: Duration::from_secs(86_400), announce_for: Duration::from_secs(3600) };
        let sealer = Arc::new(Sealer::new(&master, None));
        let keyring =
            Keyring::new(store.clone(), sealer, Arc::<TrappedClock>::clone(&clock), Duration::from_secs(300), lead);
        keyring.load().await.unwrap();
        let view = Arc::new(View::new(Duration::from_secs(3), vec![Audience::parse(ISSUER).unwrap()]));
        view.replace_clients(store.clients().all().await.unwrap().readable, Vec::new());
        view.mark_synced(Duration::ZERO, &*clock);
        let judge = Judge::new(
            Arc::clone(&view),
            Arc::new(keyring),
            Arc::clone(&app.follower),
            Arc::<TrappedClock>::clone(&clock),
            ISSUER.to_owned(),
            TokenType::AtJwt,
            20_000,
        );
        Self { app, batch, view, clock, judge }
    }

    async fn token(&self) -> (String, Revocation) {
        let token = self.app.token_of(&self.batch).await.access_token;
        let jti = Jti::parse(claims_of(&token)["jti"].as_str().unwrap()).unwrap();
        (token, Revocation::Jti(jti))
    }

    async fn is_active(&self, token: &str) -> bool {
        matches!(self.judge.judge(token).await.verdict, Verdict::Active(_))
    }
}

#[tokio::test]
async fn c6_a_revocation_at_any_point_of_a_judgement_is_effective_afterwards() {
    let court = Court::open().await;
    for is_remembered in [false, true] {
        let mut was_trapped = 0;
        for look in 1..=8 {
            let (token, revocation) = court.token().await;
            if is_remembered {
                assert!(court.is_active(&token).await);
            }
            let view = Arc::clone(&court.view);
            let is_revoked = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&is_revoked);
            let hook = move || {
                view.revoke(&revocation, LATER);
                flag.store(true, Ordering::SeqCst);
            };
            court.clock.set(look, Box::new(hook));
            let verdict = court.is_active(&token).await;
            court.clock.disarm();
            if !is_revoked.load(Ordering::SeqCst) {
                assert!(verdict, "nothing had happened yet");
                continue;
            }
            was_trapped += 1;
            assert!(!verdict, "it was revoked before the answer was given: look {look}, remembered {is_remembered}");
            for _ in 0..3 {
                assert!(!court.is_active(&token).await, "look {look}, remembered {is_remembered}");
            }
        }
        assert!(was_trapped >= 2, "the judgement looks at the clock before and after it reads the view");
    }
}

#[tokio::test]
async fn c6_any_change_of_the_view_during_a_judgement_repeats_it() {
    let court = Court::open().await;
    let (token, _) = court.token().await;
    for look in 1..=8 {
        let (view, is_changed) = (Arc::clone(&court.view), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&is_changed);
        let hook = move || {
            view.replace_clients([], Vec::new());
            flag.store(true, Ordering::SeqCst);
        };
        court.clock.set(look, Box::new(hook));
        let is_active = court.is_active(&token).await;
        court.clock.disarm();
        assert_eq!(is_active, !is_changed.load(Ordering::SeqCst), "its client is gone: look {look}");
        view_restored(&court).await;
        assert!(court.is_active(&token).await);
    }
}

async fn view_restored(court: &Court) {
    let clients = court.app.database.open().await.clients().all().await.unwrap().readable;
    court.view.replace_clients(clients, Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_ten_thousand_revocations_race_a_thread_that_judges_continuously() {
    const ROUNDS: u64 = 10_000;
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    app.confidential("batch", machine(&[], "")).await;
    let client = app.service.clients.client(&ClientId::parse("batch").unwrap()).unwrap();
    let caller = Caller { client, authenticated: true };
    let issue = |_| app.service.tokens.client_credentials(&caller, None, &[]).unwrap().access_token.expose().to_owned();
    let tokens: Arc<[String]> = (0..ROUNDS).map(issue).collect();
    // Even: this round's token is not revoked yet. Odd: its revocation was acknowledged.
    let stage = Arc::new(AtomicU64::new(0));
    let (service, seen, texts) = (Arc::clone(&app.service), Arc::clone(&stage), Arc::clone(&tokens));
    let judging = tokio::spawn(async move {
        let (mut outlived, mut judged, mut honest) = (0_u64, 0_u64, 0_u64);
        loop {
            let before = seen.load(Ordering::SeqCst);
            let Some(token) = texts.get(usize::try_from(before / 2).unwrap()) else {
                return (outlived, judged, honest);
            };
            let is_active = matches!(service.judge.judge(token).await.verdict, Verdict::Active(_));
            judged += 1;
            honest += u64::from(is_active);
            outlived += u64::from(is_active && before % 2 == 1);
        }
    });
    for (round, token) in tokens.iter().enumerate() {
        if round % 3 == 0 {
            // In some rounds the token is already cached; in the others, the other thread is verifying it.
            app.service.judge.judge(token).await;
        }
        let jti = Jti::parse(claims_of(token)["jti"].as_str().unwrap()).unwrap();
        let change = Change::Revoked(Revocation::Jti(jti));
        let entry = FeedEntry { change, created_at: START, expires_at: LATER, place: None };
        app.follower.apply_locally(Written { value: (), changes: vec![entry] }).await;
        stage.fetch_add(1, Ordering::SeqCst);
        let is_active = matches!(app.service.judge.judge(token).await.verdict, Verdict::Active(_));
        assert!(!is_active, "round {round}: outlived its revocation where it was taken");
        stage.fetch_add(1, Ordering::SeqCst);
    }
    let (outlived, judged, honest) = judging.await.unwrap();
    assert_eq!(outlived, 0, "of {judged} judgements, {honest} of them good");
    assert!(honest > 100 && judged > ROUNDS, "{judged} judgements, {honest} of them good: there was no race");
}
