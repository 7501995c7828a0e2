//! Users in the store, on both engines.

use countersign::domain::{Role, UserId, UserState, Username};
use countersign::store::{NewUser, StoreError};

use crate::support::database::{Engine, START, TestDatabase, on_both_engines};

fn user(number: u8, name: &str) -> NewUser {
    NewUser {
        id: UserId::from_bytes([number; 16]),
        username: Username::parse(name).unwrap(),
        password_hash: format!("hash-{number}"),
        roles: vec![Role::parse("reader").unwrap()],
        disabled: false,
        created_at: None,
    }
}

on_both_engines! {
    async fn a_user_is_created_once_and_found_by_id_and_name(database: TestDatabase) {
        let store = database.open().await;
        let created = store.users().create(user(1, "ada"), START, None).await.unwrap();
        assert_eq!(store.users().by_id(created.id).await.unwrap().as_ref(), Some(&created));
        assert_eq!(created.state, UserState::Enabled);
        let again = store.users().create(user(2, "ADA"), START, None).await;
        assert_eq!(again, Err(StoreError::Conflict { what: "username" }));
    }
}
