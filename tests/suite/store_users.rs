//! Users in the store, on both engines.

use countersign::domain::{Change, RefreshRefusal, Revocation, Role, UserId, UserState};
use countersign::store::{AuditEvent, AuditFilter, KeptSession, NewUser, PasswordChange, RotateOutcome, StoreError};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

fn password(user: UserId, expected_epoch: Option<u32>, kept: Option<u8>) -> PasswordChange {
    PasswordChange {
        user,
        expected_epoch,
        password_hash: "new-hash".to_owned(),
        kept: kept.map(|number| KeptSession { session: session_id(number), family_digest: [9; 32], idle_ttl: IDLE }),
        revocation_expires_at: START.plus(REMEMBERED),
        audit: None,
    }
}

on_both_engines! {
    async fn a_user_is_created_once_and_found_by_id_and_name(database: TestDatabase) {
        let store = database.open().await;
        let created = add_user(&store, 1, "josé").await;
        assert_eq!(created.state, UserState::Enabled);
        assert_eq!(store.users().by_id(created.id).await.unwrap().as_ref(), Some(&created));
        assert_eq!(store.users().by_username(&username("JOSÉ")).await.unwrap(), Some(created.clone()));
        assert_eq!(store.users().by_username(&username("jose")).await.unwrap(), None);
        let credentials = store.users().credentials(&username("josé")).await.unwrap().unwrap();
        assert_eq!((credentials.user, credentials.password_hash.as_str()), (created, "hash-1"));
    }

    async fn of_twenty_concurrent_creations_with_one_name_one_succeeds(database: TestDatabase) {
        let store = database.open().await;
        let attempts = (0..20).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.users().create(new_user(number, "ada"), START, None).await })
        });
        let mut created = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                Ok(_) => created += 1,
                Err(error) => assert_eq!(error, StoreError::Conflict { what: "username" }),
            }
        }
        assert_eq!(created, 1);
    }

    async fn s4_an_import_is_audited_with_its_count_and_not_if_it_created_no_user(database: TestDatabase) {
        let store = database.open().await;
        let event = |detail: Option<&str>| {
            Some(AuditEvent { event: "users.imported", detail: detail.map(str::to_owned), ..AuditEvent::default() })
        };
        let users = || vec![new_user(2, "bob"), new_user(3, "eve")];
        store.users().import(users(), START, event(Some(r#"{"address":"::1"}"#))).await.unwrap();
        store.users().import(users(), START, event(None)).await.unwrap();
        store.users().import(vec![new_user(4, "bob"), new_user(5, "zoe")], START, event(None)).await.unwrap();
        let told = store.audit().step(&AuditFilter::default(), None, 10).await.unwrap().records;
        let details: Vec<_> = told.iter().map(|event| event.detail.as_deref().unwrap()).collect();
        assert_eq!(details, [r#"{"created":1}"#, r#"{"address":"::1","created":2}"#]);
    }

    async fn an_import_skips_and_reports_existing_names(database: TestDatabase) {
        let store = database.open().await;
        add_user(&store, 1, "ada").await;
        let users = vec![new_user(2, "bob"), new_user(3, "ada"), new_user(4, "eve"), new_user(5, "bob")];
        let created = store.users().import(users, START, None).await.unwrap();
        assert_eq!(created, [true, false, true, false], "the second bob is not the one that was created");
        assert_eq!(store.users().page(None, None, 10).await.unwrap().readable.len(), 3);
    }

    async fn users_are_paged_in_byte_order_and_searched_by_prefix(database: TestDatabase) {
        let store = database.open().await;
        let names = ["ab", "a-b", "äb", "abc", "b", "日本", "a_b", "_"];
        for (number, name) in (1..).zip(names) {
            add_user(&store, number, name).await;
        }
        let mut expected = names;
        expected.sort_unstable();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.users().page(after.as_deref(), None, 3).await.unwrap().readable;
            let Some(last) = page.last() else { break };
            after = Some(last.username.as_str().to_owned());
            seen.extend(page.into_iter().map(|user| user.username.as_str().to_owned()));
        }
        assert_eq!(seen, expected);
        let found = |prefix: &'static str| {
            let store = store.clone();
            async move {
                let page = store.users().page(None, Some(prefix), 10).await.unwrap().readable;
                page.into_iter().map(|user| user.username.as_str().to_owned()).collect::<Vec<_>>()
            }
        };
        assert_eq!(found("ab").await, ["ab", "abc"]);
        assert_eq!(found("_").await, ["_"]);
        assert_eq!(found("%").await, [""; 0]);
        assert_eq!(found("日").await, ["日本"]);
        assert_eq!(found("a\0").await, [""; 0]);
    }

    async fn roles_are_replaced_and_an_unknown_user_is_not_found(database: TestDatabase) {
        let store = database.open().await;
        let user = add_user(&store, 1, "ada").await;
        let roles: Vec<_> = ["writer", "admin"].map(|role| Role::parse(role).unwrap()).into();
        let changed = store.users().set_roles(user.id, roles.clone(), START, None).await.unwrap();
        assert_eq!(changed.roles, [roles[1].clone(), roles[0].clone()]);
        let nobody = UserId::from_bytes([9; 16]);
        let error = StoreError::NotFound { what: "user" };
        assert_eq!(store.users().set_roles(nobody, Vec::new(), START, None).await, Err(error.clone()));
        assert_eq!(store.users().disable(nobody, START, START, None).await.unwrap_err(), error);
        assert_eq!(store.users().enable(nobody, START, None).await.unwrap_err(), error);
        assert_eq!(store.users().revoke(nobody, START, START, None).await.unwrap_err(), error);
        assert!(!store.users().delete(nobody, START, START, None).await.unwrap().value);
        assert_eq!(store.users().change_password(password(nobody, None, None), START).await.unwrap_err(), error);
    }

    async fn disabling_raises_the_epoch_once_and_ends_sessions_and_enabling_reverses_it(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        let disabled = store.users().disable(user.id, at(REMEMBERED.as_secs()), at(5), None).await.unwrap();
        assert_eq!((disabled.value.state, disabled.value.epoch), (UserState::Disabled(at(5)), 1));
        assert_eq!(disabled.changes.len(), 1);
        assert_eq!(disabled.changes[0].change, Change::Revoked(Revocation::User(user.id, 1)));
        let again = store.users().disable(user.id, at(9), at(9), None).await.unwrap();
        assert_eq!((again.value, again.changes.len()), (disabled.value, 0));
        assert!(matches!(rotate(&store, 1, 0, at(6)).await, RotateOutcome::Refused(RefreshRefusal::Ended)));
        let enabled = store.users().enable(user.id, at(7), None).await.unwrap();
        assert_eq!((enabled.state, enabled.epoch), (UserState::Enabled, 1));
        assert!(matches!(rotate(&store, 1, 0, at(8)).await, RotateOutcome::Refused(RefreshRefusal::Ended)));
    }

    async fn i13_logging_out_everywhere_writes_one_entry_to_the_feed(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        for number in 2..6 {
            done(store.sessions().open(new_session(number, &user, &client, START), START).await);
        }
        let revoked = store.users().revoke(user.id, at(REMEMBERED.as_secs()), at(1), None).await.unwrap();
        assert_eq!(revoked.changes.len(), 1);
        assert_eq!(store.sessions().of_user(user.id, None, 10, at(1)).await.unwrap().readable, []);
        for number in 1..6 {
            assert!(matches!(rotate(&store, number, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Ended)));
        }
    }

    async fn deleting_a_user_deletes_the_sessions_and_writes_a_revocation(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        let deleted = store.users().delete(user.id, at(99), at(1), None).await.unwrap();
        assert!(deleted.value);
        assert_eq!(deleted.changes[0].change, Change::Revoked(Revocation::User(user.id, 1)));
        assert_eq!(store.sessions().by_id(session_id(1)).await.unwrap(), None);
        assert_eq!(rotate(&store, 1, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Unknown));
    }

    async fn p12_a_password_change_ends_every_session_but_its_own(database: TestDatabase) {
        let store = database.open().await;
        let (user, client) = ada_logged_in(&store).await;
        done(store.sessions().open(new_session(2, &user, &client, START), START).await);
        let changed = store.users().change_password(password(user.id, Some(0), Some(1)), at(1)).await.unwrap();
        assert_eq!(changed.changes[0].change, Change::Revoked(Revocation::User(user.id, 1)));
        let kept = changed.value.session.unwrap().session;
        assert_eq!((changed.value.user.epoch, kept.user_epoch, kept.generation), (1, 1, 1));
        let mut next = presented(1, 1);
        next.family_digest = [9; 32];
        let rotated = store.sessions().rotate(next, at(2)).await.unwrap().value;
        assert!(matches!(rotated, RotateOutcome::Rotated(_)), "the new family is the session's");
        assert_eq!(rotate(&store, 2, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Ended));
        let credentials = store.users().credentials_by_id(user.id).await.unwrap().unwrap();
        assert_eq!(credentials.password_hash, "new-hash");
    }

    async fn p12_after_a_password_change_an_older_refresh_token_gets_no_successor(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        done(store.users().change_password(password(user.id, Some(0), Some(1)), at(1)).await);
        assert_eq!(rotate(&store, 1, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Unknown));
        // A thief of the token cannot end the session either.
        assert_eq!(store.sessions().of_user(user.id, None, 10, at(2)).await.unwrap().readable.len(), 1);
    }

    async fn a_password_change_against_an_outdated_hash_changes_nothing(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        let conflict = |change| {
            let store = store.clone();
            async move { store.users().change_password(change, at(3)).await.unwrap_err() }
        };
        // The session to be kept does not exist.
        assert_eq!(conflict(password(user.id, Some(0), Some(9))).await, StoreError::Conflict { what: "session" });
        // The epoch has moved since the current password was checked.
        done(store.users().revoke(user.id, at(99), at(2), None).await);
        assert_eq!(conflict(password(user.id, Some(0), None)).await, StoreError::Conflict { what: "user epoch" });
        let credentials = store.users().credentials_by_id(user.id).await.unwrap().unwrap();
        assert_eq!((credentials.user.epoch, credentials.password_hash.as_str()), (1, "hash-1"));
        // An administrator sets a password without the old one, also for a disabled user.
        done(store.users().disable(user.id, at(99), at(3), None).await);
        assert!(store.users().change_password(password(user.id, None, None), at(4)).await.is_ok());
    }

    async fn p6_each_scheme_of_stored_hashes_is_listed_once(database: TestDatabase) {
        let store = database.open().await;
        let bcrypt = |cost| format!("$2b${cost}$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm");
        let hashes = ["$argon2id$v=19$m=7168,t=5,p=1$c2FsdA$b3V0", &bcrypt("12"), &bcrypt("10"), &bcrypt("12")];
        for (number, hash) in (1..).zip(hashes) {
            let user = NewUser { password_hash: hash.to_owned(), ..new_user(number, &format!("user{number}")) };
            store.users().create(user, START, None).await.unwrap();
        }
        assert_eq!(store.users().password_samples().await.unwrap(), [bcrypt("10"), bcrypt("12"), hashes[0].to_owned()]);
        let upgraded = UserId::from_bytes([3; 16]);
        assert!(store.users().upgrade_hash(upgraded, hashes[2], hashes[0]).await.unwrap());
        done(store.users().change_password(password(UserId::from_bytes([2; 16]), None, None), at(1)).await);
        assert_eq!(store.users().password_samples().await.unwrap().len(), 2);
        done(store.users().change_password(password(UserId::from_bytes([4; 16]), None, None), at(1)).await);
        assert_eq!(store.users().password_samples().await.unwrap(), [hashes[0]]);
    }

    async fn an_upgraded_hash_replaces_only_the_hash_it_was_computed_for(database: TestDatabase) {
        let store = database.open().await;
        let user = add_user(&store, 1, "ada").await;
        assert!(!store.users().upgrade_hash(user.id, "hash-2", "better").await.unwrap());
        assert!(store.users().upgrade_hash(user.id, "hash-1", "better").await.unwrap());
        assert!(!store.users().upgrade_hash(user.id, "hash-1", "worse").await.unwrap());
        assert_eq!(store.users().credentials_by_id(user.id).await.unwrap().unwrap().password_hash, "better");
    }

    async fn p8_an_invalid_row_is_an_error_that_names_it(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        database.tamper("UPDATE users SET username = 'ADA'").await;
        let error = store.users().by_id(user.id).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { table: "users", column: "username", .. }), "{error}");
        assert!(matches!(store.sessions().rotate(presented(1, 0), at(1)).await, Err(StoreError::Corrupt { .. })));
        database.tamper("UPDATE users SET username = 'ada'; UPDATE sessions SET audience = ''").await;
        let error = store.sessions().by_id(session_id(1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { table: "sessions", column: "audience", .. }), "{error}");
    }
}
