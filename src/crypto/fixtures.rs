//! Keys, claims and tokens for tests.

use std::collections::HashMap;

use super::{SeededRandom, SigningKey, VerifyingKey, import_private_key};
use crate::domain::{
    AccessClaims, Algorithm, Audience, ClientId, Jti, Kid, LoginClaims, Role, ScopeSet, SessionId, Subject, Timestamp,
    UserId,
};

pub(super) const ISSUER: &str = "https://auth.example.com";
pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

pub(crate) fn eddsa_key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa, &SeededRandom::new(1)).unwrap()
}

pub(crate) fn es256_key() -> SigningKey {
    SigningKey::generate(Algorithm::Es256, &SeededRandom::new(1)).unwrap()
}

/// The PEM file `tests/data/keys/NAME.pem`.
macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../tests/data/keys/", $name, ".pem"))
    };
}
pub(super) use pem;

pub(crate) fn rs256_key() -> SigningKey {
    import_private_key(pem!("rsa-2048"), Some(Algorithm::Rs256)).unwrap()
}

/// One key for each algorithm.
pub(crate) fn all_keys() -> [SigningKey; 4] {
    [eddsa_key(), es256_key(), rs256_key(), import_private_key(pem!("rsa-3072"), Some(Algorithm::Ps256)).unwrap()]
}

pub(crate) fn keys_of(signing: &[&SigningKey]) -> HashMap<Kid, VerifyingKey> {
    signing.iter().map(|key| (key.kid().clone(), key.verifying_key().clone())).collect()
}

/// The claims of a user's token, issued at [`NOW`] for five minutes.
pub(crate) fn user_claims() -> AccessClaims {
    AccessClaims {
        issuer: ISSUER.to_owned(),
        subject: Subject::User(UserId::from_bytes([1; 16])),
        audience: vec![Audience::parse("https://api.example.com").unwrap()],
        expires_at: Timestamp::from_seconds(NOW.seconds() + 300),
        issued_at: NOW,
        not_before: NOW,
        jti: Jti::from_bytes([2; 16]),
        client: ClientId::parse("web").unwrap(),
        scope: ScopeSet::parse("read write").unwrap(),
        login: Some(LoginClaims {
            session: SessionId::from_bytes([3; 16]),
            authenticated_at: NOW,
            methods: vec!["pwd".to_owned()],
            roles: vec![Role::parse("admin").unwrap()],
            username: "alice".to_owned(),
        }),
        user_epoch: 4,
        client_epoch: 0,
        installation_epoch: 0,
    }
}

/// The claims of a client's own token with several audiences and no scope.
pub(crate) fn client_claims() -> AccessClaims {
    let client = ClientId::parse("batch").unwrap();
    AccessClaims {
        subject: Subject::Client(client.clone()),
        audience: ["a", "b"].map(|name| Audience::parse(name).unwrap()).to_vec(),
        client,
        scope: ScopeSet::default(),
        login: None,
        user_epoch: 0,
        client_epoch: 9,
        installation_epoch: 7,
        ..user_claims()
    }
}
