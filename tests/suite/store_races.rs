//! Concurrent tasks, on both engines alike: no test is skipped on SQLite (security.md D12).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::clock::ManualClock;
use countersign::domain::RefreshRefusal;
use countersign::store::{
    EndOutcome, NewSession, Owner, RotateOutcome, RotateRequest, Store, StoreError, StoreObserver,
};
use sqlx::Executor as _;

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

/// The rounds of each race: enough to reach the harmful order, few enough for every run of the suite.
const ROUNDS: u8 = 16;

/// The number of concurrent tasks.
const RUNNERS: usize = 20;

/// Returns the results of `RUNNERS` tasks that are spread over two replicas.
async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    database: &TestDatabase,
    runner: impl Fn(usize, Store) -> F,
) -> Vec<T> {
    let replicas = [database.open().await, database.open().await];
    let tasks: Vec<_> = (0..RUNNERS).map(|index| tokio::spawn(runner(index, replicas[index % 2].clone()))).collect();
    let mut answers = Vec::with_capacity(RUNNERS);
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Counts the statements that rotate a session.
#[derive(Default)]
struct Rotations(AtomicUsize);

impl StoreObserver for Rotations {
    fn query(&self, name: &'static str, _: Duration, _: bool) {
        self.0.fetch_add(usize::from(name == "session_rotate"), Ordering::Relaxed);
    }
}

on_both_engines! {
    async fn r2_requests_with_one_token_share_a_statement(database: TestDatabase) {
        ada_logged_in(&database.open().await).await;
        let (clock, rotations) = (Arc::new(ManualClock::starting_at(START)), Arc::new(Rotations::default()));
        let store = Store::open(&database.settings, clock, rotations.clone()).await.unwrap();
        for window in [WINDOW, Duration::ZERO] {
            let generation = store.sessions().by_id(session_id(1)).await.unwrap().unwrap().session.generation;
            let sessions = store.sessions();
            let requests = (0..200).map(|_| {
                sessions.rotate(RotateRequest { retry_window: window, ..presented(1, generation) }, START)
            });
            let (mut rotated, mut shared) = (0, 0);
            for answer in futures_util::future::join_all(requests).await {
                match answer.unwrap().value {
                    RotateOutcome::Rotated(detail) => rotated += u32::from(detail.session.generation == generation + 1),
                    RotateOutcome::Retried(_) => shared += u32::from(window == WINDOW),
                    RotateOutcome::Refused(RefreshRefusal::Reused) => shared += u32::from(window.is_zero()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((rotated, shared), (1, 199), "{window:?}");
        }
        let statements = rotations.0.load(Ordering::Relaxed);
        assert!(statements <= 40, "{statements} statements for 400 requests");
        assert_eq!(count_of(&store, "session.reused").await, 1);
    }

    async fn r2_of_twenty_concurrent_refreshes_one_rotates_and_the_others_get_the_same_successor(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        for round in 0..ROUNDS {
            let answers = race(&database, move |_, store| async move {
                rotate(&store, 1, round.into(), at(round.into())).await
            })
            .await;
            let winners: Vec<_> = answers
                .iter()
                .filter_map(|answer| match answer {
                    RotateOutcome::Rotated(detail) => Some(detail),
                    _ => None,
                })
                .collect();
            assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
            for answer in &answers {
                match answer {
                    RotateOutcome::Rotated(detail) | RotateOutcome::Retried(detail) => assert_eq!(detail, winners[0]),
                    other => panic!("round {round}: {other:?}"),
                }
            }
        }
        assert_eq!(store.sessions().by_id(session_id(1)).await.unwrap().unwrap().session.generation, u32::from(ROUNDS));
    }

    async fn r2_concurrent_refreshes_of_many_sessions_each_get_their_own_answer(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for number in 2..=200 {
            done(store.sessions().open(NewSession { max_per_user: 1000, ..new_session(number, &user, &client, START) }, START).await);
        }
        let sessions = store.sessions();
        // Every third token is of a family that the session does not have, and every fifth is presented twice.
        let ask = |number: u8| {
            let mut request = presented(number, 0);
            if number.is_multiple_of(3) {
                request.family_digest = [255; 32];
            }
            sessions.rotate(request, at(1))
        };
        let twice = (1..=200).filter(|number| number % 5 == 0);
        let numbers: Vec<u8> = (1..=200).chain(twice).collect();
        let answers = futures_util::future::join_all(numbers.iter().map(|number| ask(*number))).await;
        let mut rotated = 0;
        for (number, answer) in numbers.iter().zip(answers) {
            let id = session_id(*number);
            match answer.unwrap().value {
                RotateOutcome::Refused(RefreshRefusal::Unknown) => assert!(number.is_multiple_of(3), "{number}"),
                RotateOutcome::Rotated(detail) => {
                    assert_eq!((detail.session.id, detail.session.generation), (id, 1));
                    rotated += 1;
                }
                RotateOutcome::Retried(detail) => {
                    assert_eq!((detail.session.id, detail.session.generation, number % 5), (id, 1, 0));
                }
                other => panic!("{number}: {other:?}"),
            }
        }
        assert_eq!(rotated, 200 - 200 / 3);
        for number in 1..=200 {
            let generation = store.sessions().by_id(session_id(number)).await.unwrap().unwrap().session.generation;
            assert_eq!(generation, u32::from(!number.is_multiple_of(3)), "{number}");
        }
    }

    async fn r2_without_a_retry_window_one_refresh_rotates_and_the_rest_are_reuse_with_one_event(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for round in 2..ROUNDS {
            done(store.sessions().open(new_session(round, &user, &client, START), START).await);
            let answers = race(&database, move |_, store| async move {
                let mut request = presented(round, 0);
                request.retry_window = Duration::ZERO;
                done(store.sessions().rotate(request, START).await)
            })
            .await;
            let rotated = answers.iter().filter(|answer| matches!(answer, RotateOutcome::Rotated(_))).count();
            let reused = answers.iter().filter(|answer| **answer == RotateOutcome::Refused(RefreshRefusal::Reused)).count();
            assert_eq!((rotated, reused), (1, RUNNERS - 1), "round {round}");
        }
        assert_eq!(count_of(&store, "session.reused").await, usize::from(ROUNDS - 2));
    }

    async fn r11_after_a_logout_no_refresh_succeeds(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for round in 2..ROUNDS {
            done(store.sessions().open(new_session(round, &user, &client, START), START).await);
            let answers = race(&database, move |index, store| async move {
                if index == 7 {
                    let ended = end(&store, round, Owner::Anyone, START).await.value;
                    assert_eq!(ended, EndOutcome::Ended);
                    // Every request that begins after this answer is refused, whatever the others do concurrently.
                    let generation = store.sessions().by_id(session_id(round)).await.unwrap().unwrap().session.generation;
                    return Some(rotate(&store, round, generation, START).await);
                }
                rotate(&store, round, 0, START).await;
                None
            })
            .await;
            let after: Vec<_> = answers.into_iter().flatten().collect();
            assert_eq!(after, [RotateOutcome::Refused(RefreshRefusal::Ended)], "round {round}");
        }
    }

    async fn r11_a_login_that_races_a_logout_everywhere_leaves_no_session_that_can_refresh(database: TestDatabase) {
        let store = database.open().await;
        let client = add_client(&store, "app").await;
        for round in 1..ROUNDS {
            let user = add_user(&store, round, &format!("user-{round}")).await;
            let answers = race(&database, {
                let (user, client) = (user.clone(), client.clone());
                move |index, store| {
                    let (user, client) = (user.clone(), client.clone());
                    async move {
                        if index == 11 {
                            done(store.users().revoke(user.id, at(99), START, None).await);
                            return None;
                        }
                        let mut new = new_session(0, &user, &client, START);
                        let mut id = [round; 16];
                        id[0] = u8::try_from(index).unwrap();
                        new.id = countersign::domain::SessionId::from_bytes(id);
                        done(store.sessions().open(new.clone(), START).await).map(|_| new)
                    }
                }
            })
            .await;
            for opened in answers.into_iter().flatten() {
                let mut request = presented(0, 0);
                (request.session, request.family_digest) = (opened.id, opened.family_digest);
                let outcome = done(store.sessions().rotate(request, START).await);
                assert!(matches!(outcome, RotateOutcome::Refused(_)), "round {round}: {outcome:?}");
            }
            assert_eq!(store.sessions().of_user(user.id, None, 100, START).await.unwrap().readable, []);
        }
    }

    async fn r10_a_disconnecting_caller_leaves_the_old_or_the_new_state(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let mut dice = Dice::new(10);
        let mut generation = 0;
        for round in 0..100_u8 {
            // Polled a few times, then dropped at any point of its progress.
            let sessions = store.sessions();
            let mut refresh = Box::pin(sessions.rotate(presented(1, generation), at(round.into())));
            let mut login = Box::pin(sessions.open(new_session(round + 100, &user, &client, START), START));
            for _ in 0..dice.below(6) {
                tokio::select! {
                    biased;
                    _ = &mut refresh => break,
                    _ = &mut login => break,
                    () = tokio::task::yield_now() => {}
                }
            }
            drop((refresh, login));
            // A write that had begun completes by itself; a refresh with the old token is then a retry, never reuse.
            match rotate(&store, 1, generation, at(round.into())).await {
                RotateOutcome::Rotated(detail) | RotateOutcome::Retried(detail) => {
                    assert_eq!(detail.session.generation, generation + 1);
                    generation += 1;
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
        let status = store.pool_status();
        assert!(status.idle + status.in_use > 0, "{status:?}");
    }
}

/// Sessions 1 to 60 of Ada, in a store without a tight statement timeout.
async fn sixty_sessions(database: &TestDatabase) -> Store {
    let settings = countersign::store::StoreSettings {
        statement_timeout: Duration::from_secs(60),
        acquire_timeout: Duration::from_secs(60),
        ..database.settings.clone()
    };
    let store = database.open_with(&settings).await;
    let (user, client) = ada_logged_in(&store).await;
    for number in 2..=60 {
        done(store.sessions().open(new_session(number, &user, &client, START), START).await);
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_locked_session_row_delays_only_its_own_callers() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::fresh(Engine::Postgres).await;
    let store = sixty_sessions(&database).await;
    let mut ends = (database.connect_postgres().await, database.connect_postgres().await);
    let lock =
        |number: u8, change: &str| format!("BEGIN; UPDATE sessions SET {change} WHERE get_byte(id, 0) = {number}");
    ends.0.execute(sqlx::AssertSqlSafe(lock(1, "scope = scope"))).await.unwrap();
    ends.1.execute(sqlx::AssertSqlSafe(lock(2, "ended_at = 1, end_reason = 'logged_out'"))).await.unwrap();
    let waiting = |number| {
        let tasks = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { rotate(&store, number, 0, START).await })
        });
        tasks.collect::<Vec<_>>()
    };
    let (of_first, of_second) = (waiting(1), waiting(2));
    for generation in 0..5 {
        let others = (3..=60).map(|number| rotate(&store, number, generation, START));
        let others = tokio::time::timeout(Duration::from_secs(30), futures_util::future::join_all(others)).await;
        for outcome in others.expect("other sessions wait for the lock") {
            assert!(matches!(outcome, RotateOutcome::Rotated(_)), "{outcome:?}");
        }
    }
    assert!(!of_first.iter().chain(&of_second).any(tokio::task::JoinHandle::is_finished));
    ends.0.execute("ROLLBACK").await.unwrap();
    ends.1.execute("COMMIT").await.unwrap();
    let mut rotated = 0;
    for answer in of_first {
        match answer.await.unwrap() {
            RotateOutcome::Rotated(_) => rotated += 1,
            RotateOutcome::Retried(detail) => assert_eq!(detail.session.generation, 1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rotated, 1);
    for answer in of_second {
        assert_eq!(answer.await.unwrap(), RotateOutcome::Refused(RefreshRefusal::Ended));
    }
}

#[tokio::test]
async fn on_postgresql_a_session_row_that_stays_locked_is_an_outage_and_consumes_nothing() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::fresh(Engine::Postgres).await;
    let mut settings = database.settings.clone();
    settings.statement_timeout = Duration::from_millis(100);
    let store = database.open_with(&settings).await;
    ada_logged_in(&store).await;
    let mut locked = database.connect_postgres().await;
    locked.execute("BEGIN; UPDATE sessions SET scope = scope").await.unwrap();
    let refused = store.sessions().rotate(presented(1, 0), START).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    locked.execute("ROLLBACK").await.unwrap();
    assert!(matches!(rotate(&store, 1, 0, START).await, RotateOutcome::Rotated(_)));
}
