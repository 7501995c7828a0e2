//! A cache of the parsed public keys of clients that authenticate with assertions.

use std::sync::Arc;

use crate::crypto::{JwkSetError, PublicKeySet};
use crate::domain::{Client, ClientId};

/// Maximum number of clients. The keys of the least used are parsed again.
const CLIENTS: u64 = 10_000;

/// Parsed keys by client. Parsing checks RSA keys for known weaknesses, which costs more than verifying a signature. A caller
/// without a key must not cause this work with every assertion.
pub struct AssertionKeys(moka::sync::Cache<ClientId, Parsed>);

/// The keys as text, to notice changes, and parsed.
#[derive(Clone)]
struct Parsed {
    jwks: Arc<str>,
    keys: Result<Arc<PublicKeySet>, JwkSetError>,
}

impl Default for AssertionKeys {
    fn default() -> Self {
        Self(moka::sync::Cache::new(CLIENTS))
    }
}

impl AssertionKeys {
    /// The keys of a client; `None` if it has none.
    pub(crate) fn of(&self, client: &Client) -> Option<Result<Arc<PublicKeySet>, JwkSetError>> {
        let jwks = client.settings.jwks.as_deref()?;
        if let Some(known) = self.0.get(&client.id).filter(|known| *known.jwks == *jwks) {
            return Some(known.keys);
        }
        let keys = PublicKeySet::parse(jwks).map(Arc::new);
        self.0.insert(client.id.clone(), Parsed { jwks: jwks.into(), keys: keys.clone() });
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{eddsa_key, es256_key};
    use crate::crypto::{SigningKey, jwks_json};
    use crate::domain::{ClientKind, ClientSettings, Timestamp};

    fn client(jwks: Option<String>) -> Client {
        Client {
            id: ClientId::parse("batch").unwrap(),
            settings: ClientSettings { jwks, ..ClientSettings::new(ClientKind::Confidential) },
            secrets: Vec::new(),
            epoch: 0,
            disabled: false,
            created_at: Timestamp::from_millis(0),
        }
    }

    fn set_of(key: &SigningKey) -> Option<String> {
        Some(jwks_json(&[key.public()]))
    }

    #[test]
    fn keys_are_parsed_once_for_each_change_of_the_client() {
        let keys = AssertionKeys::default();
        let (one, other) = (es256_key(), eddsa_key());
        let first = keys.of(&client(set_of(&one))).unwrap().unwrap();
        let again = keys.of(&client(set_of(&one))).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again), "parsed twice");
        let changed = keys.of(&client(set_of(&other))).unwrap().unwrap();
        assert!(changed.by_kid(other.kid().as_str()).is_some() && changed.by_kid(one.kid().as_str()).is_none());
        assert!(keys.of(&client(None)).is_none());
        assert!(keys.of(&client(Some("{}".to_owned()))).unwrap().is_err());
    }
}
