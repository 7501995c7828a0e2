//! Signing keys in the store, on both engines.

use countersign::domain::{Algorithm, Change, Kid, Revocation};
use countersign::store::{AfterWithdrawal, NewKey, Store, StoreError, StoredKey, UnreadableRow};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

fn kid(name: &str) -> Kid {
    Kid::parse(name).unwrap()
}

fn new_key(name: &str, signs_from: u64) -> NewKey {
    NewKey {
        kid: kid(name),
        algorithm: Algorithm::Es256,
        sealed: name.as_bytes().to_vec(),
        public_jwk: "{}".to_owned(),
        announced_at: START,
        signs_from: at(signs_from),
    }
}

async fn rotate_key(store: &Store, current: &str, new: &str) -> bool {
    let new = new_key(new, 100);
    done(store.keys().rotate(&kid(current), at(100), at(200), new, START, None).await)
}

async fn stored(store: &Store, name: &str) -> StoredKey {
    store.keys().all().await.unwrap().readable.into_iter().find(|key| key.kid == kid(name)).unwrap()
}

on_both_engines! {
    async fn k8_concurrent_starts_on_an_empty_database_store_one_key(database: TestDatabase) {
        let mut starts = Vec::new();
        for replica in 0..10 {
            let store = database.open().await;
            starts.push(tokio::spawn(async move {
                done(store.keys().insert_first(new_key(&format!("key-{replica}"), 0), START, None).await)
            }));
        }
        let mut first = 0;
        for start in starts {
            first += usize::from(start.await.unwrap());
        }
        assert_eq!((first, database.open().await.keys().all().await.unwrap().readable.len()), (1, 1));
    }

    async fn each_algorithm_has_a_first_key(database: TestDatabase) {
        let store = database.open().await;
        assert!(done(store.keys().insert_first(new_key("a", 0), START, None).await));
        assert!(!done(store.keys().insert_first(new_key("b", 0), START, None).await));
        let rsa = NewKey { algorithm: Algorithm::Rs256, ..new_key("c", 0) };
        let written = store.keys().insert_first(rsa, START, None).await.unwrap();
        assert!(written.value);
        assert_eq!(written.changes[0].change, Change::KeysChanged);
    }

    async fn of_ten_concurrent_rotations_one_succeeds(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("key", 0), START, None).await);
        let mut current = "key".to_owned();
        for round in 0..5 {
            let mut rotations = Vec::new();
            for replica in 0..10 {
                let (store, current) = (store.clone(), current.clone());
                let new = format!("key-{round}-{replica}");
                rotations.push(tokio::spawn(async move { rotate_key(&store, &current, &new).await.then_some(new) }));
            }
            let mut winners = Vec::new();
            for rotation in rotations {
                winners.extend(rotation.await.unwrap());
            }
            assert_eq!(winners.len(), 1, "{winners:?}");
            current.clone_from(&winners[0]);
        }
        assert_eq!(store.keys().all().await.unwrap().readable.len(), 6);
        let schedule = stored(&store, "key").await.schedule;
        assert_eq!((schedule.retires_at, schedule.gone_at), (Some(at(100)), Some(at(200))));
    }

    async fn a_rotation_to_an_already_stored_key_changes_nothing(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 0), START, None).await);
        assert!(rotate_key(&store, "a", "b").await);
        let again = store.keys().rotate(&kid("b"), at(300), at(400), new_key("a", 300), START, None).await;
        assert_eq!(again.unwrap_err(), StoreError::Conflict { what: "kid" });
        assert_eq!(stored(&store, "b").await.schedule.retires_at, None);
        // A successor must have the algorithm of the key that it replaces.
        let rsa = NewKey { algorithm: Algorithm::Rs256, ..new_key("c", 300) };
        assert!(!done(store.keys().rotate(&kid("b"), at(300), at(400), rsa, START, None).await));
    }

    async fn k5_a_withdrawn_key_is_revoked_and_replaced_in_one_transaction(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 0), START, None).await);
        let then = AfterWithdrawal::Insert(new_key("b", 1));
        let written = store.keys().withdraw(&kid("a"), then, at(99), at(1), None).await.unwrap();
        assert!(written.value);
        let changes: Vec<_> = written.changes.into_iter().map(|entry| entry.change).collect();
        assert_eq!(changes, [Change::Revoked(Revocation::Key(kid("a"))), Change::KeysChanged]);
        assert_eq!(stored(&store, "a").await.schedule.withdrawn_at, Some(at(1)));
        assert_eq!(stored(&store, "b").await.schedule.signs_from, at(1));
        let again = store.keys().withdraw(&kid("a"), AfterWithdrawal::Nothing, at(99), at(2), None).await.unwrap();
        assert!(!again.value && again.changes.is_empty());
        let unknown = store.keys().withdraw(&kid("x"), AfterWithdrawal::Nothing, at(99), at(2), None).await;
        assert_eq!(unknown.unwrap_err(), StoreError::NotFound { what: "key" });
    }

    async fn an_announced_key_signs_at_once_when_the_signing_key_is_withdrawn(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 0), START, None).await);
        rotate_key(&store, "a", "b").await;
        done(store.keys().withdraw(&kid("a"), AfterWithdrawal::Promote(kid("b")), at(99), at(5), None).await);
        assert_eq!(stored(&store, "b").await.schedule.signs_from, at(5));
    }

    async fn a_withdrawal_whose_replacement_is_impossible_changes_nothing(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 0), START, None).await);
        for then in [AfterWithdrawal::Promote(kid("x")), AfterWithdrawal::Insert(new_key("a", 0))] {
            let error = store.keys().withdraw(&kid("a"), then, at(99), at(5), None).await.unwrap_err();
            assert_eq!(error, StoreError::Conflict { what: "successor" });
        }
        assert_eq!(stored(&store, "a").await.schedule.withdrawn_at, None);
    }

    async fn a_key_is_resealed_only_if_it_did_not_change_since_it_was_read(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 0), START, None).await);
        assert!(!store.keys().reseal(&kid("a"), b"other", b"new").await.unwrap());
        assert!(store.keys().reseal(&kid("a"), b"a", b"new").await.unwrap());
        assert_eq!(stored(&store, "a").await.sealed, b"new");
    }

    async fn d18_a_key_with_an_impossible_schedule_is_named_and_the_other_keys_load(database: TestDatabase) {
        let store = database.open().await;
        done(store.keys().insert_first(new_key("a", 10), START, None).await);
        database.tamper("UPDATE signing_keys SET announced_at = signs_from + 1").await;
        let mut keys = store.keys().all().await.unwrap();
        let UnreadableRow { id, error } = keys.unreadable.pop().unwrap();
        assert_eq!((id, keys.readable.len(), keys.unreadable.len()), (Some(kid("a")), 0, 0));
        assert!(matches!(error, StoreError::Corrupt { table: "signing_keys", column: "signs_from", .. }), "{error}");
    }
}

#[test]
fn s2_a_stored_key_prints_no_key_material() {
    let schedule = countersign::domain::KeySchedule {
        announced_at: START,
        signs_from: START,
        retires_at: None,
        gone_at: None,
        withdrawn_at: None,
    };
    let (sealed, public_jwk) = (b"canary".to_vec(), "canary".to_owned());
    let key = StoredKey { kid: kid("a"), algorithm: Algorithm::Es256, sealed, public_jwk, schedule, created_at: START };
    let printed = format!("{key:?}");
    assert!(!printed.contains("canary") && !printed.contains("99, 97, 110"), "{printed}");
}
