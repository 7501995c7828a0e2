//! Clients in the store, on both engines.

use std::time::Duration;

use countersign::domain::{
    Algorithm, Change, ClientKind, ClientSettings, FeedRight, RefreshRefusal, Revocation, SecretDigest, TokenType,
};
use countersign::store::{ClientChange, NewClient, RotateOutcome, StoreError};

use sqlx::Executor;

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::store::*;

fn revoked_at(epoch: u32) -> Change {
    Change::Revoked(Revocation::Client(client_id("app"), epoch))
}

on_both_engines! {
    async fn a_client_round_trips(database: TestDatabase) {
        let store = database.open().await;
        let settings = ClientSettings {
            kind: ClientKind::Public,
            display_name: "Ünïcode ☂".to_owned(),
            access_ttl: Some(Duration::from_millis(61_500)),
            algorithm: Some(Algorithm::Rs256),
            token_type: Some(TokenType::Jwt),
            jwks: Some("{\"keys\":[]}".to_owned()),
            feed: FeedRight::Edge,
            ..settings()
        };
        let new = NewClient { id: client_id("app"), settings: settings.clone(), secret: None, disabled: false };
        let written = store.clients().create(new.clone(), START, None).await.unwrap();
        assert_eq!(written.changes[0].change, Change::ClientChanged(client_id("app")));
        assert_eq!(written.value.settings, settings);
        assert_eq!(store.clients().by_id(&client_id("app")).await.unwrap(), Some(written.value));
        assert_eq!(store.clients().by_id(&client_id("App")).await.unwrap(), None);
        let again = store.clients().create(new, START, None).await.unwrap_err();
        assert_eq!(again, StoreError::Conflict { what: "client id" });
    }

    async fn each_listed_client_has_its_own_secrets(database: TestDatabase) {
        let store = database.open().await;
        for name in ["b", "a", "c"] {
            add_client(&store, name).await;
        }
        let new = NewClient { id: client_id("d"), settings: settings(), secret: None, disabled: false };
        done(store.clients().create(new, START, None).await);
        done(store.clients().add_secret(&client_id("b"), SecretDigest([2; 32]), at(60), at(1), None).await);
        let clients = store.clients().all().await.unwrap().readable;
        let counts: Vec<_> = clients.iter().map(|client| (client.id.as_str(), client.secrets.len())).collect();
        assert_eq!(counts, [("a", 1), ("b", 2), ("c", 1), ("d", 0)]);
    }

    async fn an_update_replaces_the_settings_and_writes_an_entry_to_the_feed(database: TestDatabase) {
        let store = database.open().await;
        add_client(&store, "app").await;
        let changed = ClientSettings { access_ttl: None, display_name: "New".to_owned(), ..settings() };
        let update = async |name, present, at_second| {
            let change = ClientChange {
                present,
                settings: changed.clone(),
                audit: None,
                enabled: None,
                revocation_expires_at: at(99),
            };
            store.clients().change(&client_id(name), change, at(at_second)).await
        };
        let written = update("app", settings(), 1).await.unwrap();
        assert_eq!(written.value.settings, changed);
        assert_eq!(written.changes[0].change, Change::ClientChanged(client_id("app")));
        let late = update("app", settings(), 2).await.unwrap_err();
        assert_eq!(late, StoreError::Conflict { what: "the client's settings" }, "somebody else was faster");
        let nobody = update("nobody", settings(), 1).await.unwrap_err();
        assert_eq!(nobody, StoreError::NotFound { what: "client" });
    }

    async fn s5_two_secrets_are_stored_during_a_rotation(database: TestDatabase) {
        let store = database.open().await;
        add_client(&store, "app").await;
        let add = async |number: u8, old_until, now| {
            let digest = SecretDigest([number; 32]);
            let written = store.clients().add_secret(&client_id("app"), digest, old_until, now, None).await.unwrap();
            let secrets = written.value.secrets.into_iter();
            secrets.map(|secret| (secret.digest.0[0], secret.expires_at)).collect::<Vec<_>>()
        };
        assert_eq!(add(2, at(100), at(1)).await, [(1, Some(at(100))), (2, None)]);
        assert_eq!(add(3, at(200), at(2)).await, [(2, Some(at(200))), (3, None)]);
        // Replaced at once: the old one is gone.
        assert_eq!(add(4, at(3), at(3)).await, [(4, None)]);
    }

    async fn disabling_a_client_stops_refreshes_and_raises_its_epoch_once(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        let disabled = store.clients().disable(&client_id("app"), at(99), at(1), None).await.unwrap();
        assert!(disabled.value.disabled);
        let changes: Vec<_> = disabled.changes.into_iter().map(|entry| entry.change).collect();
        assert_eq!(changes, [Change::ClientChanged(client_id("app")), revoked_at(1)]);
        let again = store.clients().disable(&client_id("app"), at(99), at(2), None).await.unwrap();
        assert_eq!((again.value.epoch, again.changes.len()), (1, 0));
        assert_eq!(rotate(&store, 1, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Revoked));
        let enabled = store.clients().enable(&client_id("app"), at(3), None).await.unwrap().value;
        assert!(!enabled.disabled && enabled.epoch == 1);
        assert_eq!(rotate(&store, 1, 0, at(4)).await, RotateOutcome::Refused(RefreshRefusal::Revoked));
    }

    async fn revoking_a_client_deletes_its_sessions_and_leaves_it_enabled(database: TestDatabase) {
        let store = database.open().await;
        let (user, _) = ada_logged_in(&store).await;
        let client = store.clients().revoke(&client_id("app"), at(99), at(1), None).await.unwrap().value;
        assert_eq!(store.sessions().of_client(&client.id, None, 10, at(1)).await.unwrap().readable, []);
        assert_eq!(rotate(&store, 1, 0, at(2)).await, RotateOutcome::Refused(RefreshRefusal::Revoked));
        let opened = store.sessions().open(new_session(2, &user, &client, at(3)), at(3)).await.unwrap();
        assert!(opened.value.is_some());
    }

    async fn r12_the_sessions_of_a_client_are_deleted_in_batches(database: TestDatabase) {
        let store = database.open().await;
        let (ada, _) = ada_logged_in(&store).await;
        let other = add_client(&store, "other").await;
        done(store.sessions().open(new_session(2, &ada, &other, START), START).await);
        assert!(!store.clients().has_many_sessions(&client_id("app")).await.unwrap());
        let (random, numbers) = match database.engine {
            Engine::Sqlite => ("randomblob(16)", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"),
            Engine::Postgres => ("uuid_send(gen_random_uuid())", "WITH n(i) AS (SELECT generate_series(1, 1200))"),
        };
        let columns = "user_id, client_id, family_digest, generation, authenticated_at, created_at, rotated_at, idle_expires_at,
            absolute_expires_at, scope, audience, methods, user_epoch, client_epoch";
        database
            .tamper(&format!(
                "{numbers} INSERT INTO sessions (id, {columns}) SELECT {random}, {columns} FROM n,
                    (SELECT * FROM sessions WHERE client_id = 'app') AS one"
            ))
            .await;
        assert!(store.clients().has_many_sessions(&client_id("app")).await.unwrap());
        store.clients().delete_sessions(&client_id("app")).await.unwrap();
        let left = async |client| store.sessions().of_client(&client_id(client), None, 10, at(1)).await.unwrap().readable.len();
        assert_eq!((left("app").await, left("other").await), (0, 1));
        assert!(store.clients().delete(&client_id("app"), at(99), at(2), None).await.unwrap().value);
    }

    async fn a_reused_client_id_starts_above_the_epoch_of_the_deleted_client(database: TestDatabase) {
        let store = database.open().await;
        ada_logged_in(&store).await;
        done(store.clients().revoke(&client_id("app"), at(99), at(1), None).await);
        let deleted = store.clients().delete(&client_id("app"), at(99), at(2), None).await.unwrap();
        assert!(deleted.value);
        assert!(deleted.changes.iter().any(|entry| entry.change == revoked_at(2)));
        assert_eq!(rotate(&store, 1, 0, at(3)).await, RotateOutcome::Refused(RefreshRefusal::Unknown));
        assert_eq!(add_client(&store, "app").await.epoch, 2);
        assert!(!store.clients().delete(&client_id("nobody"), at(99), at(2), None).await.unwrap().value);
    }
}

#[tokio::test]
async fn i4_a_client_created_while_its_predecessor_is_deleted_starts_at_the_epoch_of_the_revocation() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let database = TestDatabase::fresh(Engine::Postgres).await;
    let store = database.open().await;
    add_client(&store, "app").await;
    let mut deleting = database.connect_postgres().await;
    let delete = "BEGIN; DELETE FROM clients WHERE id = 'app';
        INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
        VALUES ('client', convert_to('app', 'UTF8'), 7, 0, 9000000000000)";
    deleting.execute(sqlx::raw_sql(delete)).await.unwrap();
    let new = NewClient { id: client_id("app"), settings: settings(), secret: None, disabled: false };
    let creating = tokio::spawn(async move { store.clients().create(new, START, None).await.unwrap().value });
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    while sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&mut deleting).await.unwrap() == 0 {
        assert!(!creating.is_finished());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    deleting.execute("COMMIT").await.unwrap();
    assert_eq!(creating.await.unwrap().epoch, 7);
}
