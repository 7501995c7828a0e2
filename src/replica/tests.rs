//! The follower, the key ring and the log on an embedded database, with a clock that is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::follower::Follower;
use super::keyring::{Keyring, Reload, RotationLead};
use super::view::{Freshness, View};
use crate::clock::{Clock, ManualClock};
use crate::crypto::{MasterKey, Sealer, SeededRandom};
use crate::domain::{Jti, Kid, Timestamp};
use crate::store::{Location, PublicCursor, Store, StoreObserver, StoreSettings};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const LATER: Timestamp = Timestamp::from_seconds(1_800_003_600);
const MAX_LAG: Duration = Duration::from_secs(3);
/// Test fixture.
const MASTER_KEY: &str = "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=";
/// A statement that takes longer than the view may be old.
const SLOW: Duration = Duration::from_millis(3_100);

/// The state of a replica whose follower syncs only when a test calls it.
struct State {
    folder: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    view: Arc<View>,
    keyring: Arc<Keyring>,
    follower: Follower,
    statements: Arc<Statements>,
}

/// Counts statements, and advances the clock while the named one runs.
#[derive(Default)]
struct Statements {
    reads_of_keys: AtomicUsize,
    syncs: AtomicUsize,
    slow: std::sync::Mutex<Option<(&'static str, Arc<ManualClock>)>>,
}

impl StoreObserver for Statements {
    fn query(&self, name: &'static str, _: Duration, _: bool) {
        match name {
            "keys_all" => drop(self.reads_of_keys.fetch_add(1, Ordering::SeqCst)),
            "feed_follow" => drop(self.syncs.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
        if let Some((slow, clock)) = &*self.slow.lock().unwrap()
            && *slow == name
        {
            clock.advance(SLOW);
        }
    }
}

impl State {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite { path: folder.path().join("replica.db"), create: true };
        let clock = Arc::new(ManualClock::starting_at(START));
        let time = || Arc::<ManualClock>::clone(&clock);
        let statements = Arc::new(Statements::default());
        let observer = Arc::<Statements>::clone(&statements);
        let store = Store::prepare(&StoreSettings::new(location), time(), observer).await.unwrap();
        store.migrate(START).await.unwrap();
        let view = Arc::new(View::new(MAX_LAG, Vec::new()));
        let sealer = Arc::new(Sealer::new(&MasterKey::parse(MASTER_KEY).unwrap(), None));
        let lead = RotationLead { rotate_every: Duration::from_secs(86_400), announce_for: Duration::from_secs(3600) };
        let keyring = Arc::new(Keyring::new(store.clone(), sealer, time(), Duration::from_secs(300), lead));
        let follower = Follower::new(
            store.clone(),
            Arc::clone(&view),
            Arc::clone(&keyring),
            time(),
            Arc::new(SeededRandom::new(1)),
            Duration::from_secs(600),
            Box::new(drop),
        );
        Self { folder, store, clock, view, keyring, follower, statements }
    }

    async fn revoke(&self, number: usize, expires_at: Timestamp) {
        let jti = Jti::parse(&format!("token-{number}")).unwrap();
        let written = self.store.feed().revoke_jti(&jti, expires_at, self.clock.now(), None).await.unwrap();
        self.follower.apply_locally(written).await;
    }

    fn is_revoked(&self, number: usize) -> bool {
        self.view.has_revoked_token(&Jti::parse(&format!("token-{number}")).unwrap(), self.clock.now())
    }

    fn cursor(&self) -> PublicCursor {
        self.follower.log().state().cursor.clone().unwrap()
    }

    fn logged(&self) -> usize {
        self.follower.log().state().from(0).map(<[_]>::len).sum()
    }

    fn after(&self, since: &PublicCursor) -> usize {
        self.follower.log().state().after(since, 0).unwrap().count()
    }
}

#[tokio::test]
async fn c3_freshness_counts_from_the_request_of_a_sync_and_not_from_its_answer() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    *state.statements.slow.lock().unwrap() = Some(("feed_follow", Arc::clone(&state.clock)));
    state.follower.sync().await.unwrap();
    assert_eq!((state.view.age(&*state.clock), state.view.freshness(&*state.clock)), (SLOW, Freshness::Stale));
    *state.statements.slow.lock().unwrap() = None;
    state.follower.sync().await.unwrap();
    assert_eq!(state.view.freshness(&*state.clock), Freshness::Fresh);
}

#[tokio::test]
async fn c2_a_failed_sync_keeps_the_revocations_and_does_not_renew_the_freshness() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    state.revoke(1, LATER).await;
    std::fs::remove_file(state.folder.path().join("replica.db")).unwrap();
    state.clock.advance(Duration::from_secs(1));
    assert!(state.follower.sync().await.is_err() && state.follower.sync_error().is_some());
    assert_eq!(state.view.age(&*state.clock), Duration::from_secs(1));
    assert!(state.is_revoked(1));
    state.clock.advance(MAX_LAG);
    assert_eq!(state.view.freshness(&*state.clock), Freshness::Stale);
}

#[tokio::test]
async fn concurrent_callers_that_catch_up_share_syncs() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    let begun = state.follower.syncs_begun();
    let caught_up = join_all((0..100).map(|_| state.follower.catch_up())).await;
    assert!(caught_up.iter().all(Result::is_ok));
    assert!((1..=2).contains(&(state.follower.syncs_begun() - begun)), "{begun} -> {}", state.follower.syncs_begun());
}

#[tokio::test]
async fn a_caller_is_not_served_by_a_sync_that_began_before_it() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    let before = state.follower.syncs_begun();
    state.follower.catch_up_since(before - 1).await.unwrap();
    assert_eq!(state.follower.syncs_begun(), before, "the last sync began after the caller arrived");
    state.follower.catch_up_since(before).await.unwrap();
    assert_eq!(state.follower.syncs_begun(), before + 1);
}

#[tokio::test]
async fn c1_a_change_of_this_replica_is_applied_before_any_sync() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    let generation = state.view.generation();
    state.revoke(1, LATER).await;
    assert!(state.is_revoked(1) && state.view.generation() > generation);
    assert_eq!(state.statements.syncs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn f3_the_log_answers_what_a_cursor_does_not_cover() {
    let state = State::new().await;
    state.revoke(1, LATER).await;
    state.follower.sync().await.unwrap();
    let first = state.cursor();
    assert_eq!((state.logged(), state.after(&first)), (1, 0));
    state.revoke(2, LATER).await;
    assert_eq!(state.after(&first), 0, "not before the sync that the next proof covers");
    state.follower.sync().await.unwrap();
    assert_eq!((state.after(&first), state.after(&state.cursor())), (1, 0));
    let text = state.cursor().to_string();
    assert_eq!(PublicCursor::parse(&text), Some(state.cursor()));
    for made_up in ["", "x", "AAAAAAAAAAA", "AAAAAAAAAAAxOjI6Mw==", &text[..text.len() - 4]] {
        let own = state.follower.log().state();
        assert!(PublicCursor::parse(made_up).is_none_or(|cursor| own.after(&cursor, 0).is_none()), "{made_up}");
    }
}

#[tokio::test]
async fn f9_a_reader_of_everything_keeps_its_state_while_the_log_grows_and_is_swept() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    for number in 0..1_100 {
        let expires_at = if number % 2 == 0 { LATER } else { START.plus(Duration::from_secs(60)) };
        state.revoke(number, expires_at).await;
    }
    state.follower.sync().await.unwrap();
    let held = state.follower.log().state();
    state.revoke(1_100, LATER).await;
    state.follower.sync().await.unwrap();
    state.clock.advance(Duration::from_secs(61));
    state.follower.log().sweep(state.clock.now());
    assert_eq!(held.from(0).map(<[_]>::len).sum::<usize>(), 1_100);
    assert_eq!(state.logged(), 551);
    let numbers: Vec<u64> = state.follower.log().state().from(500).flatten().map(|entry| entry.number).collect();
    assert!(numbers.iter().is_sorted() && numbers.first() == Some(&500), "{numbers:?}");
}

#[tokio::test]
async fn k4_an_unknown_key_causes_one_read_of_the_keys_in_two_seconds() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    let reads = state.statements.reads_of_keys.load(Ordering::SeqCst);
    let kid = Kid::parse(&"k".repeat(43)).unwrap();
    let at_arrival = state.keyring.reloads();
    assert_eq!(state.keyring.reload_for(&kid, at_arrival).await, Reload::Absent);
    assert_eq!(state.keyring.reload_for(&kid, at_arrival).await, Reload::Absent, "that read began after the arrival");
    let later_arrival = state.keyring.reloads();
    let all = join_all((0..50).map(|_| state.keyring.reload_for(&kid, later_arrival))).await;
    assert!(all.iter().all(|reload| *reload == Reload::RateLimited));
    assert_eq!(state.statements.reads_of_keys.load(Ordering::SeqCst) - reads, 1);
    state.clock.advance(Duration::from_secs(2));
    assert_eq!(state.keyring.reload_for(&kid, later_arrival).await, Reload::Absent);
    assert_eq!(state.statements.reads_of_keys.load(Ordering::SeqCst) - reads, 2);
}

#[tokio::test]
async fn k4_keys_that_cannot_be_read_are_a_failure_and_not_an_absence() {
    let state = State::new().await;
    state.follower.sync().await.unwrap();
    std::fs::remove_file(state.folder.path().join("replica.db")).unwrap();
    let kid = Kid::parse(&"k".repeat(43)).unwrap();
    assert_eq!(state.keyring.reload_for(&kid, state.keyring.reloads()).await, Reload::Failed);
}

#[test]
fn an_entry_of_the_log_takes_56_bytes() {
    assert_eq!(size_of::<super::log::LogEntry>(), 56);
}
