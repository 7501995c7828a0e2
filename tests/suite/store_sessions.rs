//! Sessions in the store, on both engines: opening, refreshing, ending.

use std::time::Duration;

use countersign::domain::{Audience, Change, EndReason, RefreshRefusal, Revocation, SessionState};
use countersign::store::{EndOutcome, Owner, RotateOutcome, RotateRequest, Settlement, StoreError};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

fn refused(refusal: RefreshRefusal) -> RotateOutcome {
    RotateOutcome::Refused(refusal)
}

fn revoked(number: u8) -> Change {
    Change::Revoked(Revocation::Session(session_id(number)))
}

on_both_engines! {
    async fn a_new_session_round_trips_and_records_the_login(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = (add_user(&store, 1, "ada").await, add_client(&store, "app").await);
        let new = new_session(1, &user, &client, at(5));
        done(store.sessions().open(new.clone(), at(5)).await).unwrap();
        let detail = store.sessions().by_id(session_id(1)).await.unwrap().unwrap();
        let session = &detail.session;
        assert_eq!((session.user, &session.client, session.generation), (user.id, &client.id, 0));
        assert_eq!((session.authenticated_at, session.rotated_at), (at(5), at(5)));
        assert_eq!((session.idle_expires_at, session.absolute_expires_at), (at(5).plus(IDLE), at(5).plus(ABSOLUTE)));
        assert_eq!((&session.scope, &session.audience, session.state), (&new.scope, &new.audience, SessionState::Live));
        assert_eq!((&detail.methods, &detail.username, &detail.roles), (&new.methods, &user.username, &user.roles));
        assert_eq!(store.users().by_id(user.id).await.unwrap().unwrap().last_login_at, Some(at(5)));
        // A repeated id means a broken random generator. Nothing is overwritten.
        assert!(matches!(store.sessions().open(new, at(6)).await, Err(StoreError::Conflict { .. })));
    }

    async fn r11_a_login_that_began_before_a_revocation_creates_no_session(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = (add_user(&store, 1, "ada").await, add_client(&store, "app").await);
        let late = new_session(1, &user, &client, START);
        let revoked = done(store.users().revoke(user.id, at(99), START, None).await);
        assert_eq!(done(store.sessions().open(late, START).await), None);
        let current = new_session(2, &revoked, &client, START);
        done(store.clients().revoke(&client.id, at(99), START, None).await);
        assert_eq!(done(store.sessions().open(current, START).await), None);
        let client = store.clients().by_id(&client.id).await.unwrap().unwrap();
        let current = new_session(3, &revoked, &client, START);
        done(store.users().disable(user.id, at(99), START, None).await);
        assert_eq!(done(store.sessions().open(current, START).await), None);
        // Nothing was recorded either.
        assert_eq!(store.users().by_id(user.id).await.unwrap().unwrap().last_login_at, None);
    }

    async fn r12_the_least_recently_used_session_is_deleted_at_the_limit(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = (add_user(&store, 1, "ada").await, add_client(&store, "app").await);
        for number in 1..=3 {
            done(store.sessions().open(new_session(number, &user, &client, at(number.into())), at(number.into())).await);
        }
        // The first is used again: the second is now the oldest.
        rotate(&store, 1, 0, at(10)).await;
        let mut fourth = new_session(4, &user, &client, at(11));
        fourth.max_per_user = 3;
        let written = store.sessions().open(fourth, at(11)).await.unwrap();
        assert_eq!(written.value.unwrap().displaced, [session_id(2)]);
        assert_eq!(written.changes.iter().map(|entry| entry.change.clone()).collect::<Vec<_>>(), [revoked(2)]);
        let ended = store.sessions().by_id(session_id(2)).await.unwrap().unwrap();
        assert_eq!(ended.session.state, SessionState::Ended(at(11), EndReason::Displaced));
        let live = store.sessions().of_user(user.id, None, 10, at(12)).await.unwrap().readable;
        assert_eq!(live.iter().map(|detail| detail.session.id).collect::<Vec<_>>(), [1, 3, 4].map(session_id));
    }

    async fn r12_concurrent_logins_never_exceed_the_session_limit(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = (add_user(&store, 1, "ada").await, add_client(&store, "app").await);
        let logins = (1..=20).map(|number| {
            let (store, mut new) = (store.clone(), new_session(number, &user, &client, START));
            new.max_per_user = 3;
            tokio::spawn(async move { done(store.sessions().open(new, START).await).unwrap() })
        });
        let mut displaced = 0;
        for login in logins.collect::<Vec<_>>() {
            displaced += login.await.unwrap().displaced.len();
        }
        assert_eq!((displaced, store.sessions().of_user(user.id, None, 100, START).await.unwrap().readable.len()), (17, 3));
    }

    async fn a_success_resets_the_counters_of_failed_logins(database: TestDatabase) {
        use countersign::store::{AttemptKey, AttemptLimits};
        let store = database.open().await;
        let (user, client) = (add_user(&store, 1, "ada").await, add_client(&store, "app").await);
        let limits = AttemptLimits { free: 1, hard_stop: 100, window: Duration::from_secs(3600) };
        let key = AttemptKey([1; 32]);
        assert!(store.attempts().register(vec![(key, limits)], None, START).await.unwrap().is_allowed());
        let mut new = new_session(1, &user, &client, START);
        new.settled = vec![Settlement::Forget(key)];
        done(store.sessions().open(new, START).await);
        for expected in [true, true, false] {
            let decision = store.attempts().register(vec![(key, limits)], None, START).await.unwrap();
            assert_eq!(decision.is_allowed(), expected);
        }
    }

    async fn a_refresh_rotates_and_extends_only_the_idle_expiry(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        let RotateOutcome::Rotated(detail) = rotate(&store, 1, 0, at(60)).await else { panic!("not rotated") };
        assert_eq!((detail.session.generation, detail.session.rotated_at), (1, at(60)));
        assert_eq!(detail.session.idle_expires_at, at(60).plus(IDLE));
        assert_eq!(detail.session.absolute_expires_at, START.plus(ABSOLUTE));
        assert_eq!((detail.username, detail.roles), (user.username, user.roles));
    }

    async fn r4_a_lost_answer_is_repeated_within_the_window(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        let RotateOutcome::Rotated(first) = rotate(&store, 1, 0, at(60)).await else { panic!("not rotated") };
        for second in [60, 65, 70] {
            assert_eq!(rotate(&store, 1, 0, at(second)).await, RotateOutcome::Retried(first.clone()));
        }
        let RotateOutcome::Rotated(second) = rotate(&store, 1, 1, at(70)).await else { panic!("not rotated") };
        assert_eq!(rotate(&store, 1, 0, at(70)).await, RotateOutcome::Retried(second));
        assert_eq!(rotate(&store, 1, 0, at(71)).await, refused(RefreshRefusal::Reused));
    }

    async fn r4_rounding_never_shortens_the_window_and_at_most_doubles_it(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let mut dice = Dice::new(9);
                for number in 2..=40 {
            done(store.sessions().open(new_session(number, &user, &client, START), START).await);
            let window = [1, 10, 60, 3600][dice.below(4) as usize] * 1000;
            let present = async |generation: u32, millis: u64| {
                let mut request = presented(number, generation);
                request.retry_window = Duration::from_millis(window);
                done(store.sessions().rotate(request, START.plus(Duration::from_millis(millis))).await)
            };
            // When each generation was superseded: the history that the row does not have.
            let (mut superseded, mut now) = (Vec::new(), 0);
            for _ in 0..25 {
                now += match dice.below(4) {
                    0 => 0,
                    1 => dice.below(window / 10),
                    2 => dice.below(window),
                    _ => dice.below(3 * window),
                };
                let generation = superseded.len() as u32;
                assert!(matches!(present(generation, now).await, RotateOutcome::Rotated(_)));
                superseded.push(now);
                now += dice.below(window / 5);
                for (generation, at) in superseded.iter().enumerate().filter(|(_, at)| now - **at <= window) {
                    let outcome = present(generation as u32, now).await;
                    let RotateOutcome::Retried(detail) = outcome else { panic!("{number} {generation} {at} {now}: {outcome:?}") };
                    assert_eq!(detail.session.generation as usize, superseded.len());
                }
            }
            assert_eq!(store.sessions().by_id(session_id(number)).await.unwrap().unwrap().session.state, SessionState::Live);
            // Any token that is older than two windows ends the session.
            let old: Vec<_> = superseded.iter().filter(|at| now - **at > 2 * window).collect();
            let generation = old.len().saturating_sub(1 + dice.below(2) as usize) as u32;
            if !old.is_empty() {
                assert_eq!(present(generation, now).await, refused(RefreshRefusal::Reused), "{number} {generation}");
            }
        }
    }

    async fn c10_rotations_by_release_0_1_0_follow_its_own_retry_rule(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        for generation in 0..3 {
            assert!(matches!(rotate(&store, 1, generation, at(100)).await, RotateOutcome::Rotated(_)));
        }
        // The old release writes only these columns.
        let old = "UPDATE sessions SET generation = generation + 1, rotated_at = rotated_at + 1000 * ";
        database.tamper(&format!("{old} 1000")).await;
        database.tamper(&format!("{old} 1")).await;
        // Generation 5 is current. Generation 3 was superseded a second before the latest rotation, which the row cannot say.
        assert!(matches!(rotate(&store, 1, 4, at(1102)).await, RotateOutcome::Retried(_)));
        // The first rotation by this release restarts the marks: it knows when generation 4 was superseded.
        assert!(matches!(rotate(&store, 1, 5, at(1103)).await, RotateOutcome::Rotated(_)));
        assert!(matches!(rotate(&store, 1, 6, at(1104)).await, RotateOutcome::Rotated(_)));
        for generation in [4, 5, 6] {
            assert!(matches!(rotate(&store, 1, generation, at(1111)).await, RotateOutcome::Retried(_)), "{generation}");
        }
        assert_eq!(rotate(&store, 1, 3, at(1104)).await, refused(RefreshRefusal::Reused));
    }

    async fn r4_a_changed_window_applies_to_tokens_superseded_afterwards(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        let present = async |generation: u32, seconds: u64, window: u64| {
            let mut request = presented(1, generation);
            request.retry_window = Duration::from_secs(window);
            done(store.sessions().rotate(request, at(seconds)).await)
        };
        for generation in 0..3 {
            assert!(matches!(present(generation, 10 * u64::from(generation), 10).await, RotateOutcome::Rotated(_)));
        }
        // From 10 s to an hour: four rotations later the oldest of them is still a retry.
        for generation in 3..7 {
            assert!(matches!(present(generation, 1000 + u64::from(generation), 3600).await, RotateOutcome::Rotated(_)));
        }
        assert!(matches!(present(3, 4000, 3600).await, RotateOutcome::Retried(_)));
        // Back to 10 s: one rotation later the old copies are reuse again.
        assert!(matches!(present(7, 4100, 10).await, RotateOutcome::Rotated(_)));
        assert!(matches!(present(7, 4110, 10).await, RotateOutcome::Retried(_)));
        assert!(matches!(present(8, 4200, 10).await, RotateOutcome::Rotated(_)));
        assert_eq!(present(6, 4200, 10).await, refused(RefreshRefusal::Reused));
    }

    async fn r5_a_rotation_that_names_audiences_leaves_a_session_with_others_unchanged(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        let list = |names: &[&str]| names.iter().map(|name| Audience::parse(name).unwrap()).collect::<Vec<_>>();
        let naming = |audiences: &[&[&str]]| {
            let audiences = Some(audiences.iter().map(|names| list(names)).collect());
            RotateRequest { audiences, ..presented(1, 0) }
        };
        let others: [&[&[&str]]; 3] = [
            &[],
            &[&["https://api.example.org"], &["https://api.exampl"], &["//api.example"]],
            &[&["https://api.example", "b"], &["a", "https://api.example"]],
        ];
        for audiences in others {
            let outcome = done(store.sessions().rotate(naming(audiences), at(60)).await);
            let RotateOutcome::Undecided(detail) = outcome else { panic!("{audiences:?}: {outcome:?}") };
            assert_eq!((detail.session.generation, detail.session.rotated_at), (0, START));
        }
        let fitting = naming(&[&["b"], &["https://api.example"], &["c"]]);
        let outcome = done(store.sessions().rotate(fitting.clone(), at(60)).await);
        let RotateOutcome::Rotated(first) = outcome else { panic!("{outcome:?}") };
        // Outcomes other than a rotation are reported as before.
        assert_eq!(done(store.sessions().rotate(fitting.clone(), at(61)).await), RotateOutcome::Retried(first));
        assert_eq!(done(store.sessions().rotate(naming(&[]), at(99)).await), refused(RefreshRefusal::Reused));
    }

    async fn r3_reuse_ends_the_session_with_one_revocation_and_one_event(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        rotate(&store, 1, 0, at(60)).await;
        let written = store.sessions().rotate(presented(1, 0), at(71)).await.unwrap();
        assert_eq!(written.value, refused(RefreshRefusal::Reused));
        assert_eq!(written.changes.len(), 1);
        assert_eq!(written.changes[0].change, revoked(1));
        // The honest token is dead too; the stolen one is still reported as reused, without further events.
        assert_eq!(rotate(&store, 1, 1, at(72)).await, refused(RefreshRefusal::Ended));
        assert_eq!(rotate(&store, 1, 0, at(72)).await, refused(RefreshRefusal::Reused));
        assert_eq!(count_of(&store, "session.reused").await, 1);
        let state = store.sessions().by_id(session_id(1)).await.unwrap().unwrap().session.state;
        assert_eq!(state, SessionState::Ended(at(71), EndReason::Reused));
    }

    async fn r7_another_client_or_family_secret_is_refused_and_changes_nothing(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        rotate(&store, 1, 0, at(60)).await;
        let before = store.sessions().by_id(session_id(1)).await.unwrap();
        for generation in 0..3 {
            let mut foreign = presented(1, generation);
            foreign.client = client_id("other");
            let expected =
                if generation == 2 { RefreshRefusal::Unknown } else { RefreshRefusal::ForeignClient };
            assert_eq!(done(store.sessions().rotate(foreign, at(999)).await), refused(expected));
            let mut forged = presented(1, generation);
            forged.family_digest = [9; 32];
            assert_eq!(done(store.sessions().rotate(forged, at(999)).await), refused(RefreshRefusal::Unknown));
        }
        assert_eq!(rotate(&store, 7, 0, at(999)).await, refused(RefreshRefusal::Unknown));
        assert_eq!(store.sessions().by_id(session_id(1)).await.unwrap(), before);
    }

    async fn r8_idle_and_absolute_expiry_are_exact_to_the_millisecond(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let just_before = Duration::from_millis(1);
        assert_eq!(rotate(&store, 1, 0, START.plus(IDLE)).await, refused(RefreshRefusal::Expired));
        assert!(matches!(rotate(&store, 1, 0, START.plus(IDLE).minus(just_before)).await, RotateOutcome::Rotated(_)));
        let mut short = new_session(2, &user, &client, START);
        short.absolute_expires_at = at(100);
        done(store.sessions().open(short, START).await);
        assert!(matches!(rotate(&store, 2, 0, at(99)).await, RotateOutcome::Rotated(_)));
        assert_eq!(rotate(&store, 2, 1, at(100)).await, refused(RefreshRefusal::Expired));
    }

    async fn p9_a_deleted_client_or_a_raised_epoch_stops_a_retry_too(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        rotate(&store, 1, 0, at(60)).await;
        database.tamper("UPDATE users SET epoch = epoch + 1").await;
        assert_eq!(rotate(&store, 1, 0, at(61)).await, refused(RefreshRefusal::Revoked));
        assert_eq!(rotate(&store, 1, 1, at(61)).await, refused(RefreshRefusal::Revoked));
        assert_eq!(store.sessions().of_user(user.id, None, 10, at(61)).await.unwrap().readable, []);
    }

    async fn ending_a_session_is_idempotent_and_checks_its_owner(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let stranger = countersign::domain::UserId::from_bytes([9; 16]);
        let foreign = [
            Owner::User(stranger),
            Owner::Family([9; 32], Some(client.id.clone())),
            Owner::Family([1; 32], Some(client_id("other"))),
        ];
        for owner in foreign {
            let outcome = end(&store, 1, owner.clone(), at(1)).await;
            assert_eq!((outcome.value, outcome.changes.len()), (EndOutcome::Unknown, 0), "{owner:?}");
        }
        let ended = end(&store, 1, Owner::Family([1; 32], Some(client.id.clone())), at(2)).await;
        assert_eq!((ended.value, &ended.changes[0].change), (EndOutcome::Ended, &revoked(1)));
        for owner in [Owner::Family([1; 32], Some(client.id)), Owner::User(user.id), Owner::Anyone] {
            let again = end(&store, 1, owner, at(3)).await;
            assert_eq!((again.value, again.changes.len()), (EndOutcome::AlreadyEnded, 0));
        }
        assert_eq!(count_of(&store, "session.ended").await, 1);
        assert_eq!(rotate(&store, 1, 0, at(4)).await, refused(RefreshRefusal::Ended));
    }

    async fn sessions_are_listed_in_pages_and_only_while_live(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for number in 2..=7 {
            let mut new = new_session(number, &user, &client, START);
            if number == 3 {
                new.idle_expires_at = at(50);
            }
            done(store.sessions().open(new, START).await);
        }
        let _ = end(&store, 5, Owner::Anyone, at(1)).await;
        let expected = [1, 2, 4, 6, 7].map(session_id);
        for by_user in [true, false] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = if by_user {
                    store.sessions().of_user(user.id, after, 2, at(50)).await.unwrap().readable
                } else {
                    store.sessions().of_client(&client.id, after, 2, at(50)).await.unwrap().readable
                };
                let Some(last) = page.last() else { break };
                after = Some(last.session.id);
                seen.extend(page.into_iter().map(|detail| detail.session.id));
            }
            assert_eq!(seen, expected);
        }
    }
}

#[tokio::test]
async fn on_postgresql_a_refresh_is_a_heap_only_update() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::fresh(Engine::Postgres).await;
    ada_logged_in(&database.open().await).await;
    let mut connection = database.connect_postgres().await;
    let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
    // The columns that a refresh changes: an index on one of them would make every refresh write to every index.
    sqlx::query("UPDATE sessions SET generation = generation + 1, rotated_at = 1, idle_expires_at = 1")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let in_place: i64 = sqlx::query_scalar("SELECT pg_stat_get_xact_tuples_hot_updated('sessions'::regclass)")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(in_place, 1);
}
