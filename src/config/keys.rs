//! Settings of signing key rotation and of the master key.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use zeroize::Zeroizing;

use super::judging::Revocation;
use super::reader::{Hidden, Reader};
use crate::domain::SecretText;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Frequent enough that an emergency rotation is a familiar operation.
const ROTATE_EVERY: Duration = Duration::from_secs(30 * 86_400);
/// Envoy and Istio cache a JWKS for 10 to 20 minutes and do not fetch it again for an unknown `kid`. AWS HTTP APIs cache it
/// for up to two hours, so their operators need a longer time (docs/compatibility.md).
const ANNOUNCE_FOR: Duration = Duration::from_secs(3600);
/// The maximum of security.md K9: every verifier fetches the JWKS again within five minutes.
const JWKS_MAX_AGE: Duration = Duration::from_secs(300);
/// Tolerated clock difference between replicas. A replica beyond it stops answering (security.md C7).
const CLOCK_SKEW: Duration = Duration::from_secs(30);
/// How long a key can stay published after its last signature: the longest token lifetime plus an hour (design.md §4).
const LONGEST_RETIREMENT: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    pub rotate_every: Duration,
    pub announce_for: Duration,
    /// `max-age` of the JWKS.
    pub jwks_max_age: Duration,
}

impl Keys {
    pub(super) fn load(read: &mut Reader<'_>, revocation: &Revocation) -> Self {
        read.section("Keys");
        let keys = Self {
            rotate_every: read.within(
                "keys.rotate_every",
                ROTATE_EVERY,
                HOUR..=400 * DAY,
                "How long a key signs before its successor takes over.",
            ),
            announce_for: read.within(
                "keys.announce_for",
                ANNOUNCE_FOR,
                SECOND..=7 * DAY,
                "How long a key is published before it signs, so that every verifier has fetched it. Envoy and Istio cache a \
                 JWKS for 10 to 20 minutes and do not fetch it again for an unknown `kid`.",
            ),
            jwks_max_age: read.within(
                "keys.jwks_max_age",
                JWKS_MAX_AGE,
                SECOND..=JWKS_MAX_AGE,
                "`Cache-Control: max-age` of the JWKS.",
            ),
        };
        keys.check(read, revocation);
        keys
    }

    fn check(&self, read: &mut Reader<'_>, revocation: &Revocation) {
        // K3: a verifier that fetched the JWKS just before the announcement fetches it again before the first signature.
        read.rule(
            &["keys.announce_for", "keys.jwks_max_age", "revocation.max_lag"],
            self.announce_for >= self.jwks_max_age + revocation.max_lag + CLOCK_SKEW,
            "is too short for every verifier to fetch the key before it signs",
            "set it to at least keys.jwks_max_age + revocation.max_lag + 30s",
        );
        // No key retires while the next one is announced. There are then at most two published keys per algorithm;
        // several verifiers keep only five keys.
        read.rule(
            &["keys.rotate_every", "keys.announce_for"],
            self.rotate_every >= self.announce_for + LONGEST_RETIREMENT,
            "is so short that a rotation would begin before the previous one has ended",
            "set it to at least keys.announce_for + 2h",
        );
    }
}

/// A master key of 32 bytes, normalized to padded standard base64.
pub(super) struct MasterKey(pub SecretText);

impl Hidden for MasterKey {
    fn read(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const REMEDY: &str = "create one with `openssl rand -base64 32`";
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let standard = Zeroizing::new(text.trim().replace('-', "+").replace('_', "/"));
        let decoded = LENIENT.decode(standard.as_bytes()).map_err(|_| ("is not base64", REMEDY))?;
        let bytes = Zeroizing::new(decoded);
        if bytes.len() != 32 {
            return Err(("is not 32 bytes long", REMEDY));
        }
        // A random key has about thirty different bytes. The check only catches `AAAA…` and keyboard patterns.
        let distinct = (0..=u8::MAX).filter(|byte| bytes.contains(byte)).count();
        if distinct < 16 {
            return Err(("is not random", REMEDY));
        }
        Ok(Self(SecretText::new(STANDARD.encode(&*bytes))))
    }

    fn show(&self) -> String {
        "(hidden)".to_owned()
    }
}

/// Reads the master key and the previous one.
pub(super) fn load_master_keys(read: &mut Reader<'_>) -> (Option<SecretText>, Option<SecretText>) {
    read.section("Master key");
    let current = read.optional_secret::<MasterKey>(
        "master_key",
        "a file of mode 0600 beside the embedded database",
        "32 random bytes in base64 (`openssl rand -base64 32`). The key seals the signing keys, and refresh tokens are derived \
         from it. Required with PostgreSQL, with the same value on every replica. Can be set as `master_key_file`.",
    );
    let previous = read.optional_secret::<MasterKey>(
        "master_key_previous",
        "none",
        "The previous master key, needed until `countersign keys reseal` has run. Can be set as `master_key_previous_file`.",
    );
    let differs = previous.is_none() || previous.as_ref().map(|key| &key.0) != current.as_ref().map(|key| &key.0);
    read.rule(
        &["master_key_previous", "master_key"],
        differs,
        "is the same as master_key",
        "remove it, or put the new key into master_key",
    );
    (current.map(|key| key.0), previous.map(|key| key.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_a_master_key_is_32_random_bytes_in_base64() {
        let written = STANDARD.encode((0..32).map(|index: u8| index.wrapping_mul(73) ^ 0xfb).collect::<Vec<_>>());
        let read = |text: &str| MasterKey::read(text).map(|key| key.0.expose().to_owned());
        assert_eq!(read(&written), Ok(written.clone()));
        assert_eq!(read(&format!(" {written}\n")), Ok(written.clone()));
        let url_safe = written.trim_end_matches('=').replace('+', "-").replace('/', "_");
        assert_ne!(url_safe, written);
        assert_eq!(read(&url_safe), Ok(written));
        for bad in [STANDARD.encode([7; 32]), STANDARD.encode([1; 31]), "correct horse battery staple".into()] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
