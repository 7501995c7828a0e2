//! Records other than tokens, on both engines: failed logins, assertions, administrators' keys, audit.

use std::time::Duration;

use countersign::store::{
    AttemptKey, AttemptLimits, AuditEvent, AuditFilter, AuditStep, Decision, Exemption, NewAdminKey, Round, Settlement,
    StoreError, SweepCursor, SweepStep,
};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

const LIMITS: AttemptLimits = AttemptLimits { free: 5, hard_stop: 10, window: Duration::from_secs(3600) };

fn admin_key(number: u8, name: &str) -> NewAdminKey {
    NewAdminKey { id: [number; 16], name: name.to_owned(), digest: [number; 32], expires_at: Some(at(1000)) }
}

fn event(event: &'static str, subject: &str) -> AuditEvent {
    AuditEvent { event, subject: Some(subject.to_owned()), ..AuditEvent::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_both_engines_decide_a_random_series_of_attempts_alike() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let databases = [TestDatabase::fresh(Engine::Sqlite).await, TestDatabase::fresh(Engine::Postgres).await];
    let stores = [databases[0].open().await, databases[1].open().await];
    let mut dice = Dice::new(2);
    let key = |number: u64| AttemptKey([u8::try_from(number).unwrap(); 32]);
    let mut now = START;
    let (mut allowed, mut blocked) = (0, 0);
    for step in 0..1500 {
        // The clock mostly advances. Sometimes it is stepped back by up to a minute.
        let longest = [10, 1_500, 12_000, 120_000][dice.below(4) as usize];
        let by = Duration::from_millis(dice.below(longest));
        now = if dice.below(20) == 0 { now.minus(by.min(Duration::from_secs(60))) } else { now.plus(by) };
        let limits = AttemptLimits {
            free: dice.below(4) as u32,
            hard_stop: 1 + dice.below(8) as u32,
            window: Duration::from_secs([5, 60, 3600][dice.below(3) as usize]),
        };
        let keys: Vec<_> = (0..1 + dice.below(3)).map(|place| (key(1 + 3 * place + dice.below(3)), limits)).collect();
        let exemption =
            Some(Exemption { from: keys[0].0, known: key(100 + dice.below(2)) }).filter(|_| dice.below(2) == 0);
        let settlements: Vec<_> = (0..dice.below(4))
            .map(|place| match dice.below(6) {
                0 => Settlement::Forget(key(1 + 3 * place)),
                1 => Settlement::Know(key(100 + dice.below(2)), now.plus(Duration::from_secs(3600 * dice.below(60)))),
                _ => Settlement::TakeBack(key(1 + 3 * place + dice.below(3)), now),
            })
            .collect();
        let mut decisions = Vec::new();
        for store in &stores {
            let mut decision = store.attempts().register(keys.clone(), exemption, now).await.unwrap();
            if let Decision::Allowed { counted, .. } = &mut decision {
                counted.sort_unstable();
            }
            decisions.push(decision);
            if step % 3 != 0 {
                store.attempts().settle(settlements.clone()).await.unwrap();
            }
        }
        assert_eq!(decisions[0], decisions[1], "step {step}: {keys:?} {exemption:?}");
        *if decisions[0].is_allowed() { &mut allowed } else { &mut blocked } += 1;
    }
    assert!(allowed > 200 && blocked > 200, "{allowed} {blocked}");
}

on_both_engines! {
    async fn l3_two_hundred_concurrent_attempts_on_three_replicas_pass_only_up_to_the_free_burst(database: TestDatabase) {
        let replicas = [database.open().await, database.open().await, database.open().await];
        let keys = vec![(AttemptKey([1; 32]), LIMITS), (AttemptKey([2; 32]), LIMITS)];
        let guesses: Vec<_> = (0..200)
            .map(|guess| {
                let (store, keys) = (replicas[guess % 3].clone(), keys.clone());
                tokio::spawn(async move { store.attempts().register(keys, None, START).await.unwrap() })
            })
            .collect();
        let mut allowed = 0;
        for guess in guesses {
            allowed += usize::from(guess.await.unwrap().is_allowed());
        }
        // The attempt that causes the first delay is still checked.
        assert_eq!(allowed, 6);
    }

    async fn l4_the_hard_stop_lasts_until_the_window_ends(database: TestDatabase) {
        let store = database.open().await;
        let keys = vec![(AttemptKey([1; 32]), LIMITS)];
        let (mut now, mut allowed) = (START, 0);
        loop {
            match store.attempts().register(keys.clone(), None, now).await.unwrap() {
                Decision::Allowed { is_last, .. } => {
                    allowed += 1;
                    assert_eq!(is_last, allowed == 10, "S4: the lock is seen by the one that brings it");
                },
                Decision::Blocked { retry_after, .. } if retry_after > Duration::from_secs(60) => break,
                Decision::Blocked { retry_after, .. } => now = now.plus(retry_after),
            }
        }
        assert_eq!(allowed, 10);
        let end = START.plus(LIMITS.window);
        assert!(matches!(store.attempts().register(keys.clone(), None, end.minus(Duration::from_millis(1))).await, Ok(Decision::Blocked { .. })));
        assert!(store.attempts().register(keys, None, end).await.unwrap().is_allowed());
    }

    async fn l9_a_clock_that_was_stepped_back_unblocks(database: TestDatabase) {
        let store = database.open().await;
        let keys = vec![(AttemptKey([1; 32]), LIMITS)];
        for _ in 0..6 {
            store.attempts().register(keys.clone(), None, at(86_400)).await.unwrap();
        }
        assert!(matches!(store.attempts().register(keys.clone(), None, at(86_400)).await, Ok(Decision::Blocked { .. })));
        assert!(store.attempts().register(keys, None, START).await.unwrap().is_allowed());
    }

    async fn one_blocked_counter_blocks_the_attempt_and_the_others_are_not_incremented(database: TestDatabase) {
        let store = database.open().await;
        let (account, address) = (AttemptKey([1; 32]), AttemptKey([2; 32]));
        let strict = AttemptLimits { free: 0, ..LIMITS };
        let both = vec![(address, LIMITS), (account, strict)];
        assert!(store.attempts().register(both.clone(), None, START).await.unwrap().is_allowed());
        for _ in 0..20 {
            let blocked = Decision::Blocked { by: account, retry_after: Duration::from_secs(1) };
            assert_eq!(store.attempts().register(both.clone(), None, START).await.unwrap(), blocked);
        }
        assert!(store.attempts().register(vec![(address, LIMITS)], None, START).await.unwrap().is_allowed());
    }

    async fn a_success_clears_the_account_counter_and_decrements_the_address_counter(database: TestDatabase) {
        let store = database.open().await;
        let (account, address) = (AttemptKey([1; 32]), AttemptKey([2; 32]));
        for _ in 0..50 {
            let keys = vec![(account, LIMITS), (address, LIMITS)];
            assert!(store.attempts().register(keys, None, START).await.unwrap().is_allowed());
            store.attempts().settle(vec![Settlement::TakeBack(address, START), Settlement::Forget(account)]).await.unwrap();
        }
    }

    async fn l4_only_a_known_address_is_exempt_from_the_account_limit(database: TestDatabase) {
        let replicas = [database.open().await, database.open().await];
        let (account, pair, known) = (AttemptKey([1; 32]), AttemptKey([2; 32]), AttemptKey([3; 32]));
        replicas[0].attempts().settle(vec![Settlement::Know(known, at(1000))]).await.unwrap();
        let strict = AttemptLimits { free: 0, hard_stop: 1, ..LIMITS };
        assert!(replicas[0].attempts().register(vec![(account, strict)], None, START).await.unwrap().is_allowed());
        for (failures, store) in (0..).zip(&replicas) {
            let keys = vec![(account, strict), (pair, LIMITS)];
            let stranger = Exemption { from: account, known: AttemptKey([4; 32]) };
            let refused = store.attempts().register(keys.clone(), Some(stranger), START).await.unwrap();
            assert_eq!(refused, Decision::Blocked { by: account, retry_after: LIMITS.window });
            let owner = Exemption { from: account, known };
            let allowed = store.attempts().register(keys.clone(), Some(owner), at(999)).await.unwrap();
            assert_eq!(allowed, Decision::Allowed { counted: vec![(pair, failures)], is_last: false });
            assert!(!store.attempts().register(keys, Some(owner), at(1000)).await.unwrap().is_allowed());
        }
    }

    async fn a_withdrawn_attempt_leaves_no_delay(database: TestDatabase) {
        let store = database.open().await;
        let key = AttemptKey([1; 32]);
        let strict = vec![(key, AttemptLimits { free: 1, hard_stop: 2, ..LIMITS })];
        assert!(store.attempts().register(strict.clone(), None, START).await.unwrap().is_allowed());
        for second in 1..20 {
            let decision = store.attempts().register(strict.clone(), None, at(second)).await.unwrap();
            assert_eq!(decision, Decision::Allowed { counted: vec![(key, 1)], is_last: true });
            assert!(!store.attempts().register(strict.clone(), None, at(second)).await.unwrap().is_allowed());
            store.attempts().settle(vec![Settlement::TakeBack(key, at(second))]).await.unwrap();
        }
    }

    async fn an_assertion_jti_is_accepted_once_across_all_replicas(database: TestDatabase) {
        let replicas = [database.open().await, database.open().await];
        for round in 0..10 {
            let uses: Vec<_> = (0..20)
                .map(|index| {
                    let store = replicas[index % 2].clone();
                    tokio::spawn(async move { store.assertions().remember([round; 32], at(60), START).await.unwrap() })
                })
                .collect();
            let mut accepted = 0;
            for used in uses {
                accepted += usize::from(used.await.unwrap());
            }
            assert_eq!(accepted, 1);
        }
        // An expired assertion is refused before it reaches the store. The store only does not keep it for ever.
        assert!(replicas[0].assertions().remember([1; 32], at(200), at(60)).await.unwrap());
    }

    async fn an_admin_key_is_accepted_until_it_expires_or_is_deleted(database: TestDatabase) {
        let store = database.open().await;
        store.admin_keys().create(admin_key(1, "ops"), START, None).await.unwrap();
        store.admin_keys().create(admin_key(2, "ci"), START, None).await.unwrap();
        let taken = store.admin_keys().create(admin_key(3, "ci"), START, None).await.unwrap_err();
        assert_eq!(taken, StoreError::Conflict { what: "name" });
        assert_eq!(store.admin_keys().accept([9; 32], START).await.unwrap(), None);
        assert_eq!(store.admin_keys().accept([1; 32], at(1000)).await.unwrap(), None);
        for second in [100, 130, 160] {
            assert_eq!(store.admin_keys().accept([1; 32], at(second)).await.unwrap().unwrap().name, "ops");
        }
        let listed = store.admin_keys().all().await.unwrap().readable;
        let uses: Vec<_> = listed.iter().map(|key| (key.name.as_str(), key.last_used_at)).collect();
        assert_eq!(uses, [("ci", None), ("ops", Some(at(160)))]);
        assert!(store.admin_keys().delete("ops", START, None).await.unwrap());
        assert!(!store.admin_keys().delete("ops", START, None).await.unwrap());
        assert_eq!(store.admin_keys().accept([1; 32], at(170)).await.unwrap(), None);
    }

    async fn the_audit_trail_is_read_newest_first_in_pages_and_by_filter(database: TestDatabase) {
        let store = database.open().await;
        for second in 0..10 {
            let subject = if second % 2 == 0 { "even" } else { "odd" };
            store.audit().append(vec![event("tested", subject)], at(second)).await.unwrap();
        }
        let full = AuditEvent {
            event: "full",
            actor: Some("admin".to_owned()),
            subject: Some("ada".to_owned()),
            client: Some("app".to_owned()),
            user: Some("ada".to_owned()),
            session: Some("s-1".to_owned()),
            request_id: Some("r-1".to_owned()),
            detail: Some("{\"a\":1}".to_owned()),
        };
        store.audit().append(vec![full.clone()], at(10)).await.unwrap();
        let all = AuditFilter::default();
        let newest = store.audit().step(&all, None, 3).await.unwrap();
        assert_eq!(newest.next, Some(newest.records[2].seq));
        let newest = newest.records;
        let mut times = newest.iter().map(|record| record.at);
        assert!(times.by_ref().eq([at(10), at(9), at(8)]));
        assert_eq!((&newest[0].actor, &newest[0].detail, &newest[0].client), (&full.actor, &full.detail, &full.client));
        assert_eq!((&newest[0].user, &newest[0].session), (&full.user, &full.session));
        let next = store.audit().step(&all, Some(newest[2].seq), 3).await.unwrap().records;
        assert_eq!(next[0].at, at(7));
        let filter = AuditFilter { subject: Some("even".to_owned()), since: Some(at(2)), until: Some(at(8)), ..Default::default() };
        let found = store.audit().step(&filter, None, 100).await.unwrap();
        assert_eq!((found.records.len(), found.next), (3, None));
        assert_eq!(found.records.iter().map(|record| record.at).collect::<Vec<_>>(), [at(6), at(4), at(2)]);
        let of = |text: &str| Some(text.to_owned());
        for filter in [
            AuditFilter { actor: of("admin"), client: of("app"), ..Default::default() },
            AuditFilter { user: of("ada"), ..Default::default() },
            AuditFilter { session: of("s-1"), ..Default::default() },
            AuditFilter { event: of("full"), subject: of("ada"), user: of("ada"), session: of("s-1"), ..Default::default() },
        ] {
            assert_eq!(store.audit().step(&filter, None, 100).await.unwrap().records.len(), 1, "{filter:?}");
        }
        let none = AuditFilter { user: of("ada"), event: of("tested"), ..Default::default() };
        assert_eq!(store.audit().step(&none, None, 100).await.unwrap().records, []);
    }

    async fn one_step_of_a_search_reads_a_bounded_part_of_the_trail(database: TestDatabase) {
        const EVENTS: usize = 20_050;
        let store = database.open().await;
        let of = |text: &str| Some(text.to_owned());
        // Half of the events are failed logins, half are of the client "web", and only the oldest is both.
        store.audit().append(vec![AuditEvent { client: of("web"), ..event("login.failed", "ada") }], START).await.unwrap();
        let mixed = |number: usize| match number % 2 {
            0 => event("login.failed", "ada"),
            _ => AuditEvent { client: of("web"), ..event("login.succeeded", "ada") },
        };
        store.audit().append((0..EVENTS).map(mixed).collect(), at(1)).await.unwrap();
        let both = AuditFilter { event: of("login.failed"), client: of("web"), ..Default::default() };
        let first = store.audit().step(&both, None, 10).await.unwrap();
        assert_eq!(first.records, [], "nothing among the newest");
        let second = store.audit().step(&both, first.next, 10).await.unwrap();
        assert_eq!((second.records.len(), second.next), (1, None));
        // A third criterion that few events meet makes the search find them directly.
        let rare = AuditFilter { subject: of("bob"), ..both };
        assert_eq!(store.audit().step(&rare, None, 10).await.unwrap(), AuditStep { records: Vec::new(), unreadable: Vec::new(), next: None });
    }

    async fn d8_after_a_restore_every_earlier_token_is_inactive(database: TestDatabase) {
        use countersign::domain::{Change, RefreshRefusal, Revocation};
        use countersign::store::RotateOutcome;
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        let cursor = store.feed().load_all().await.unwrap().cursor;
        let before = store.sessions().of_user(user.id, None, 10, at(1)).await.unwrap().readable.len();
        let _ = store.revoke_everything(at(99), START, Some(event("restored", "all"))).await.unwrap();
        assert_eq!(rotate(&store, 1, 0, at(1)).await, RotateOutcome::Refused(RefreshRefusal::Revoked));
        let of_user = store.sessions().of_user(user.id, None, 10, at(1)).await.unwrap().readable;
        let of_client = store.sessions().of_client(&client.id, None, 10, at(1)).await.unwrap().readable;
        assert_eq!((before, of_user.len(), of_client.len()), (1, 0, 0));
        let changes: Vec<_> =
            store.feed().read_since(&cursor).await.unwrap().entries.into_iter().map(|entry| entry.change).collect();
        let epoch = store.installation_epoch().await.unwrap();
        assert_eq!(changes, [Change::Revoked(Revocation::Everything(epoch))]);
        assert_eq!(count_of(&store, "restored").await, 1);
        // A login that began before the revocation opens no session, and the ended session is swept.
        assert_eq!(store.sessions().open(new_session(2, &user, &client, START), START).await.unwrap().value, None);
        let mut cursor = SweepCursor::default();
        assert_eq!(store.sweep_round(Round::Sessions, &mut cursor, at(1)).await.unwrap(), SweepStep::Deleted(1));
    }

    async fn d8_the_installation_epoch_increases_across_a_restore(database: TestDatabase) {
        let store = database.open().await;
        let mut last = 0;
        for seconds in [0, 0, 1, 60] {
            let _ = store.revoke_everything(at(9999), at(seconds), None).await.unwrap();
            let epoch = store.installation_epoch().await.unwrap();
            assert!(epoch > last, "{seconds} s");
            last = epoch;
        }
        // Simulates a backup that is older than all of these epochs.
        database.tamper("UPDATE installation SET epoch = 0").await;
        let _ = store.revoke_everything(at(9999), at(61), None).await.unwrap();
        assert!(store.installation_epoch().await.unwrap() > last);
    }

    async fn rows_are_counted_by_table(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        let counts = store.row_counts().await.unwrap();
        let names: Vec<_> = counts.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "admin_keys", "audit", "changes", "client_assertions", "client_secrets", "clients", "known_addresses",
            "login_attempts", "sessions", "signing_keys", "users",
        ];
        assert_eq!(names, expected);
        if database.engine == Engine::Sqlite {
            assert_eq!(counts[10].1, 1);
        }
    }
}
