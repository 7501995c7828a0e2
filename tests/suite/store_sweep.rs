//! Sweeping, on both engines: live rows are never deleted (security.md D7).

use std::collections::BTreeMap;
use std::time::Duration;

use countersign::domain::{Algorithm, Jti, Kid, SecretDigest};
use countersign::store::{
    AttemptKey, AttemptLimits, AuditEvent, AuditFilter, Decision, NewKey, NewSession, Owner, Round, Settlement, Store,
    SweepCursor, SweepStep,
};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::size::size;
use crate::support::store::*;

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// Sweeps until nothing is left to do, and makes one round through each table that is swept in rounds. Returns the
/// number of deleted rows by table.
async fn sweep_all(store: &Store, now: countersign::domain::Timestamp) -> BTreeMap<&'static str, usize> {
    let mut deleted = BTreeMap::new();
    loop {
        let swept = store.sweep(Some(Duration::from_secs(DAY)), now).await;
        assert_eq!(swept.failed, []);
        for (table, count) in swept.deleted {
            *deleted.entry(table).or_default() += count;
        }
        if !swept.has_more {
            break;
        }
    }
    for (table, round) in [("sessions", Round::Sessions), ("login_attempts", Round::LoginAttempts)] {
        let mut cursor = SweepCursor::default();
        while let SweepStep::Deleted(count) = store.sweep_round(round, &mut cursor, now).await.unwrap() {
            *deleted.entry(table).or_default() += count;
        }
        assert_eq!(cursor, SweepCursor::default(), "the next round begins anew");
    }
    deleted
}

async fn sweep(store: &Store, table: &str, now: countersign::domain::Timestamp) -> usize {
    sweep_all(store, now).await.get(table).copied().unwrap_or_default()
}

on_both_engines! {
    async fn i12_the_feed_keeps_an_entry_for_an_hour_after_it_expires(database: TestDatabase) {
        let store = database.open().await;
        for (number, seconds) in [(1, 10), (2, 20)] {
            let jti = Jti::parse(&format!("jti-{number}")).unwrap();
            done(store.feed().revoke_jti(&jti, at(seconds), START, None).await);
        }
        assert_eq!(sweep(&store, "changes", at(HOUR + 10)).await, 0);
        assert_eq!(sweep(&store, "changes", at(HOUR + 11)).await, 1);
        assert_eq!(store.feed().load_all().await.unwrap().entries.len(), 1);
    }

    async fn the_sweep_deletes_expired_sessions_and_keeps_live_ones(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let mut opened = Vec::new();
        for number in 2..=6 {
            let mut new = new_session(number, &user, &client, START);
            match number {
                3 => new.idle_expires_at = at(100),
                4 => new.absolute_expires_at = at(100),
                _ => {}
            }
            opened.push(new.id);
            done(store.sessions().open(new, START).await);
        }
        let _ = end(&store, 5, Owner::Anyone, at(100)).await;
        assert_eq!(sweep(&store, "sessions", at(100 + HOUR)).await, 0);
        assert_eq!(sweep(&store, "sessions", at(101 + HOUR)).await, 1);
        assert_eq!(sweep(&store, "sessions", at(100 + DAY)).await, 0);
        assert_eq!(sweep(&store, "sessions", at(101 + DAY)).await, 2);
        let left = store.sessions().of_user(user.id, None, 10, at(DAY)).await.unwrap().readable;
        assert_eq!(left.iter().map(|detail| detail.session.id).collect::<Vec<_>>(), [1, 2, 6].map(session_id));
    }

    async fn d7_the_sweep_matches_a_model_while_sessions_are_refreshed(database: TestDatabase) {
        let count: u32 = size(3000, 10_000_000);
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let columns = "(id, user_id, client_id, family_digest, generation, authenticated_at, created_at, rotated_at, idle_expires_at,
            absolute_expires_at, scope, audience, methods, user_epoch, client_epoch, ended_at, end_reason)";
        let number = match database.engine {
            Engine::Sqlite => format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
                INSERT INTO sessions {columns} SELECT CAST(printf('%016d', i) AS BLOB)"),
            Engine::Postgres => format!("WITH n(i) AS (SELECT generate_series(1, {count}))
                INSERT INTO sessions {columns} SELECT convert_to(lpad(i::text, 16, '0'), 'UTF8')"),
        };
        // Every third has been idle for long, every fifth was ended long ago.
        let (now, live) = (at(30 * DAY), at(40 * DAY).millis());
        database
            .tamper(&format!(
                "{number}, user_id, client_id, family_digest, 0, authenticated_at, created_at, rotated_at,
                    CASE WHEN i % 3 = 0 THEN {dead} ELSE {live} END, {live}, scope, audience, methods, 0, 0,
                    CASE WHEN i % 5 = 0 THEN {dead} END, CASE WHEN i % 5 = 0 THEN 'logged_out' END
                 FROM n CROSS JOIN sessions WHERE sessions.user_id = (SELECT id FROM users)",
                dead = at(DAY).millis(),
            ))
            .await;
        let refreshing = tokio::spawn({
            let store = store.clone();
            async move {
                let mut refreshed = 0;
                for number in (1..=count).filter(|number| number % 3 != 0 && number % 5 != 0).step_by(size(40, 400)) {
                    let mut request = presented(1, 0);
                    let id = format!("{number:016}").into_bytes();
                    request.session = countersign::domain::SessionId::from_bytes(id.try_into().unwrap());
                    let outcome = done(store.sessions().rotate(request, now).await);
                    assert!(matches!(outcome, countersign::store::RotateOutcome::Rotated(_)), "{outcome:?}");
                    refreshed += 1;
                }
                refreshed
            }
        });
        // Two replicas sweep at the same time.
        let other = { let store = database.open().await; tokio::spawn(async move { sweep(&store, "sessions", now).await }) };
        let deleted = sweep(&store, "sessions", now).await + other.await.unwrap();
        assert!(refreshing.await.unwrap() > 0);
        let expected = (1..=count).filter(|number| number % 3 == 0 || number % 5 == 0).count();
        // Session 1, from which the others were copied, has expired as well.
        assert_eq!(deleted, expected + 1);
        let mut left = 0;
        let mut after = None;
        loop {
            let page = store.sessions().of_user(user.id, after, 1000, now).await.unwrap().readable;
            let Some(last) = page.last() else { break };
            after = Some(last.session.id);
            left += page.len();
        }
        assert_eq!((left, client.id), (count as usize - expected, client_id("app")));
    }

    async fn d7_the_sweep_matches_a_model_while_attempts_are_counted(database: TestDatabase) {
        let count: u32 = size(3000, 10_000_000);
        let store = database.open().await;
        let (number, key) = match database.engine {
            Engine::Sqlite => (
                format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"),
                "CAST(printf('%032d', i) AS BLOB)",
            ),
            Engine::Postgres => (
                format!("WITH n(i) AS (SELECT generate_series(1, {count}))"),
                "convert_to(lpad(i::text, 32, '0'), 'UTF8')",
            ),
        };
        // Every third count has expired. Each count has one failure.
        let (now, until, over) = (at(30 * DAY), at(40 * DAY), at(DAY).millis());
        let live = until.millis();
        database
            .tamper(&format!(
                "{number} INSERT INTO login_attempts SELECT {key}, 1,
                    CASE WHEN i % 3 = 0 THEN {over} ELSE {now} END, CASE WHEN i % 3 = 0 THEN {over} ELSE {now} END, 0,
                    CASE WHEN i % 3 = 0 THEN {over} ELSE {live} END FROM n;
                 {number} INSERT INTO known_addresses SELECT {key}, CASE WHEN i % 3 = 0 THEN {over} ELSE {live} END FROM n",
                now = now.millis(),
            ))
            .await;
        let key = |number: u32| AttemptKey(format!("{number:032}").into_bytes().try_into().unwrap());
        let limits = AttemptLimits { free: 10, hard_stop: 2, window: Duration::from_secs(10 * DAY) };
        let used = move || (1..=count).step_by(size(40, 400));
        let attempts = tokio::spawn({
            let store = store.clone();
            async move {
                for number in used() {
                    let decision = store.attempts().register(vec![(key(number), limits)], None, now).await.unwrap();
                    // The second failure of a live count is the last one; an expired count starts again.
                    assert!(matches!(decision, Decision::Allowed { is_last, .. } if is_last == (number % 3 != 0)), "{number}");
                    store.attempts().settle(vec![Settlement::Know(key(number), until)]).await.unwrap();
                }
            }
        });
        // Two replicas sweep at the same time.
        let other = { let store = database.open().await; tokio::spawn(async move { sweep_all(&store, now).await }) };
        let swept = [sweep_all(&store, now).await, other.await.unwrap()];
        attempts.await.unwrap();
        let (over, renewed) = (count as usize / 3, used().filter(|number| number % 3 == 0).count());
        assert!(renewed > 0);
        for table in ["login_attempts", "known_addresses"] {
            let deleted: usize = swept.iter().map(|deleted| deleted.get(table).copied().unwrap_or_default()).sum();
            assert!((over - renewed..=over).contains(&deleted), "{table}: {deleted} of {over}");
        }
        for number in used() {
            let decision = store.attempts().register(vec![(key(number), limits)], None, now).await.unwrap();
            match decision {
                Decision::Blocked { .. } => assert_ne!(number % 3, 0),
                Decision::Allowed { is_last, .. } => assert!(is_last && number % 3 == 0, "{number} was forgotten"),
            }
        }
        assert_eq!(sweep_all(&store, now).await.values().sum::<usize>(), 0);
        let left = sweep_all(&store, at(50 * DAY)).await;
        let expected = count as usize - over + renewed;
        assert_eq!((left["login_attempts"], left["known_addresses"]), (expected, expected));
    }

    async fn d7_one_replica_at_a_time_sweeps_and_the_next_continues_where_it_stopped(database: TestDatabase) {
        let (first, second) = (database.open().await, database.open().await);
        let take = async |store: &Store, seconds| store.take_sweep("sessions", at(seconds + 60), at(seconds)).await.unwrap();
        let cursor = take(&first, 0).await.unwrap();
        assert_eq!(cursor, SweepCursor::default());
        assert_eq!(take(&second, 0).await, None);
        assert!(second.take_sweep("login attempts", at(60), at(0)).await.unwrap().is_some(), "each kind has its own");
        let place = SweepCursor::beginning_at([7; 16]);
        first.return_sweep("sessions", &place, at(30)).await.unwrap();
        assert_eq!(take(&second, 29).await, None, "not due yet");
        assert_eq!(take(&second, 30).await, Some(place.clone()));
        // The replica that has it stopped responding.
        assert_eq!(take(&first, 89).await, None);
        assert_eq!(take(&first, 90).await, Some(place.clone()));
        // The sweep was taken before the clocks were stepped back by a day.
        assert_eq!(first.take_sweep("sessions", at(61), START.minus(Duration::from_secs(DAY))).await.unwrap(), Some(place));
    }

    async fn d7_a_table_that_cannot_be_swept_does_not_stop_the_others(database: TestDatabase) {
        let store = database.open().await;
        done(store.feed().revoke_jti(&Jti::parse("jti-1").unwrap(), at(10), START, None).await);
        store.assertions().remember([1; 32], at(10), START).await.unwrap();
        database
            .tamper(match database.engine {
                Engine::Sqlite => "CREATE TRIGGER broken BEFORE DELETE ON changes BEGIN SELECT RAISE(ABORT, 'broken'); END",
                Engine::Postgres => "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
                        $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
                    CREATE TRIGGER broken BEFORE DELETE ON changes FOR EACH ROW EXECUTE FUNCTION broken()",
            })
            .await;
        let swept = store.sweep(None, at(DAY)).await;
        assert_eq!(swept.deleted, [("client_assertions", 1)]);
        assert_eq!(swept.failed.iter().map(|(table, _)| *table).collect::<Vec<_>>(), ["changes"]);
    }

    async fn l6_a_withdrawn_attempt_removes_only_its_own_count(database: TestDatabase) {
        let store = database.open().await;
        let limits = AttemptLimits { free: 0, hard_stop: 10, window: Duration::from_secs(DAY) };
        let keys = [1, 2, 3].map(|number| AttemptKey([number; 32]));
        let register = async |keys: &[AttemptKey], now| {
            store.attempts().register(keys.iter().map(|key| (*key, limits)).collect(), None, now).await.unwrap()
        };
        let take_back = async |keys: &[AttemptKey], counted_at| {
            store.attempts().settle(keys.iter().map(|key| Settlement::TakeBack(*key, counted_at)).collect()).await.unwrap();
        };
        assert!(register(&keys, at(0)).await.is_allowed());
        assert!(register(&keys[..1], at(2)).await.is_allowed());
        take_back(&keys, at(0)).await;
        // The delay of the second attempt on the first key remains.
        assert!(!register(&keys[..1], at(2)).await.is_allowed());
        assert_eq!(sweep(&store, "login_attempts", at(3 * DAY)).await, 1);
        assert!(register(&keys, at(10)).await.is_allowed());
        assert!(register(&keys[..1], at(12)).await.is_allowed());
        for counted_at in [at(10), at(12)] {
            take_back(&keys, counted_at).await;
        }
        assert_eq!(sweep(&store, "login_attempts", at(3 * DAY)).await, 0, "nothing is left to sweep");
    }

    async fn d7_a_round_that_starts_midway_is_followed_by_a_full_round(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for number in 2..=9 {
            done(store.sessions().open(new_session(number, &user, &client, START), START).await);
        }
        let mut cursor = SweepCursor::beginning_at(*session_id(6).as_bytes());
        let now = at(365 * DAY);
        assert_eq!(store.sweep_round(Round::Sessions, &mut cursor, now).await.unwrap(), SweepStep::Deleted(3));
        assert_eq!(store.sweep_round(Round::Sessions, &mut cursor, now).await.unwrap(), SweepStep::RoundOver);
        assert_eq!(store.sweep_round(Round::Sessions, &mut cursor, now).await.unwrap(), SweepStep::Deleted(6));
    }

    async fn s4_an_expired_session_writes_one_audit_event_with_user_and_client(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let absolute = NewSession {
            idle_expires_at: START.plus(ABSOLUTE),
            ..new_session(2, &user, &client, START)
        };
        done(store.sessions().open(absolute, START).await);
        done(store.sessions().open(new_session(3, &user, &client, START), START).await);
        done(Ok(end(&store, 3, Owner::Anyone, at(1)).await));
        let (bob, other) = (add_user(&store, 4, "bob").await, add_client(&store, "other").await);
        done(store.sessions().open(new_session(4, &bob, &other, START), START).await);
        done(store.users().revoke(bob.id, at(99), at(2), None).await);
        let now = START.plus(ABSOLUTE).plus(Duration::from_secs(2 * DAY));
        assert_eq!((sweep(&store, "sessions", now).await, sweep(&store, "sessions", now).await), (4, 0));
        let expired = AuditFilter { event: Some("session.expired".to_owned()), ..AuditFilter::default() };
        let mut events = store.audit().step(&expired, None, 10).await.unwrap().records;
        events.sort_by(|one, other| one.detail.cmp(&other.detail));
        let told: Vec<_> = events
            .iter()
            .map(|event| [&event.subject, &event.session, &event.user, &event.client, &event.actor, &event.detail].map(|text| text.as_deref().unwrap()))
            .collect();
        let user = user.id.to_string();
        let (first, second) = (session_id(1).to_string(), session_id(2).to_string());
        let detail = |reason: &str, after| format!(r#"{{"reason":"{reason}","expired_at":"{}"}}"#, START.plus(after).rfc3339());
        assert_eq!(
            told,
            [
                [&*second, &second, &user, "app", "background", &detail("absolute_ttl", ABSOLUTE)],
                [&*first, &first, &user, "app", "background", &detail("idle_ttl", IDLE)],
            ],
            "ended and revoked sessions have their events already"
        );
        assert!(events.iter().all(|event| event.at == now));
    }

    async fn other_rows_are_deleted_once_nothing_depends_on_them(database: TestDatabase) {
        let store = database.open().await;
        add_client(&store, "app").await;
        done(store.clients().add_secret(&client_id("app"), SecretDigest([2; 32]), at(50), START, None).await);
        assert_eq!(sweep(&store, "client_secrets", at(50)).await, 0);
        assert_eq!(sweep(&store, "client_secrets", at(51)).await, 1);
        assert_eq!(store.clients().by_id(&client_id("app")).await.unwrap().unwrap().secrets.len(), 1);

        store.assertions().remember([1; 32], at(50), START).await.unwrap();
        assert_eq!(sweep(&store, "client_assertions", at(110)).await, 0);
        assert_eq!(sweep(&store, "client_assertions", at(111)).await, 1);

        let limits = AttemptLimits { free: 1, hard_stop: 10, window: Duration::from_secs(50) };
        store.attempts().register(vec![(AttemptKey([1; 32]), limits)], None, START).await.unwrap();
        assert_eq!(sweep(&store, "login_attempts", at(110)).await, 0);
        assert_eq!(sweep(&store, "login_attempts", at(111)).await, 1);

        store.audit().append(vec![AuditEvent { event: "old", ..AuditEvent::default() }], START).await.unwrap();
        assert_eq!(sweep(&store, "audit", at(DAY)).await, 0);
        assert_eq!(sweep(&store, "audit", at(DAY + 1)).await, 1);

        let key = |name: &str, signs_from| NewKey {
            kid: Kid::parse(name).unwrap(),
            algorithm: Algorithm::Es256,
            sealed: vec![1],
            public_jwk: "{}".to_owned(),
            announced_at: START,
            signs_from,
        };
        let old = Kid::parse("old").unwrap();
        done(store.keys().insert_first(key("old", START), START, None).await);
        done(store.keys().rotate(&old, at(10), at(20), key("new", at(10)), START, None).await);
        assert_eq!(sweep(&store, "signing_keys", at(DAY + 20)).await, 0);
        assert_eq!(sweep(&store, "signing_keys", at(DAY + 21)).await, 1);
        assert_eq!(store.keys().all().await.unwrap().readable.len(), 1);
    }
}
