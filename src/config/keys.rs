//! Settings of signing key rotation and of the master key.

use std::time::Duration;

use super::judging::Revocation;
use super::reader::{Hidden, Reader};
use super::section::section;
use crate::crypto::{MasterKey, MasterKeyError};

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

section! {
    Keys(read) in ["keys"] as "Keys" {
        /// How long a key signs before its successor takes over.
        rotate_every: Duration = ROTATE_EVERY, in HOUR..=400 * DAY;
        /// How long a key is published before it signs, so that every verifier has fetched it. Envoy and Istio cache a
        /// JWKS for 10 to 20 minutes and do not fetch it again for an unknown `kid`.
        announce_for: Duration = ANNOUNCE_FOR, in SECOND..=7 * DAY;
        /// `Cache-Control: max-age` of the JWKS.
        jwks_max_age: Duration = JWKS_MAX_AGE, in SECOND..=JWKS_MAX_AGE;
    }
}

impl Keys {
    pub(super) fn check(&self, read: &mut Reader<'_>, revocation: &Revocation) {
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

impl Hidden for MasterKey {
    fn read(text: &str) -> Result<Self, (&'static str, &'static str)> {
        Self::parse(text).map_err(|MasterKeyError(problem)| (problem, "create one with `openssl rand -base64 32`"))
    }

    fn show(&self) -> String {
        "(hidden)".to_owned()
    }
}

/// Reads the master key and the previous one.
pub(super) fn load_master_keys(read: &mut Reader<'_>) -> (Option<MasterKey>, Option<MasterKey>) {
    read.section("Master key");
    let current = read.optional_secret(
        "master_key",
        "a file of mode 0600 beside the embedded database",
        "32 random bytes in base64 (`openssl rand -base64 32`). The key seals the signing keys, and refresh tokens are derived \
         from it. Required with PostgreSQL, with the same value on every replica. Can be set as `master_key_file`.",
    );
    let previous = read.optional_secret(
        "master_key_previous",
        "none",
        "The previous master key, needed until `countersign keys reseal` has run. Can be set as `master_key_previous_file`.",
    );
    read.rule(
        &["master_key_previous", "master_key"],
        previous.is_none() || previous != current,
        "is the same as master_key",
        "remove it, or put the new key into master_key",
    );
    (current, previous)
}
