//! Signing algorithms, and the phases of a signing key.

use super::Timestamp;

texts! {
    /// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1), in the order of the JWKS. The names are case-sensitive (RFC
    /// 8725bis §3.1). There is no symmetric one (security.md T1).
    Algorithm else "an algorithm is one of ES256, EdDSA, RS256, PS256" {
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// Ed25519, always under its RFC 8037 name, because verifiers reject the name of RFC 9864.
        EdDsa = "EdDSA",
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
        /// RSASSA-PSS with SHA-256.
        Ps256 = "PS256",
    }
}

impl Algorithm {
    /// Whether the service generates keys for this algorithm. ring generates no RSA keys; they are imported.
    pub const fn is_generated(self) -> bool {
        matches!(self, Self::Es256 | Self::EdDsa)
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

texts! {
    /// The phase of a signing key.
    KeyPhase {
        /// In the JWKS, does not sign yet, so that verifiers fetch it before its first token.
        Announced = "announced",
        /// In the JWKS, and signs.
        Signing = "signing",
        /// In the JWKS, signs no more; its last tokens have not expired.
        Retiring = "retiring",
        /// Retired or withdrawn: not in the JWKS, and its tokens are inactive.
        Gone = "gone",
    }
}

/// The instants at which a key changes phase. `announced_at ≤ signs_from`. The other fields are set when a successor
/// is generated or the key is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchedule {
    /// When the key enters the JWKS.
    pub announced_at: Timestamp,
    /// When it starts to sign.
    pub signs_from: Timestamp,
    /// When it stops signing: its successor's `signs_from`. Unset without a successor.
    pub retires_at: Option<Timestamp>,
    /// When it leaves the JWKS: `retires_at` plus the maximum token lifetime and one hour.
    pub gone_at: Option<Timestamp>,
    /// When it was withdrawn as compromised. Overrides the other fields.
    pub withdrawn_at: Option<Timestamp>,
}

impl KeySchedule {
    /// The phase at `now`. A withdrawn key is retired whatever `now` is, so a wrong clock cannot bring it back.
    pub fn phase(&self, now: Timestamp) -> KeyPhase {
        let reached = |instant: Option<Timestamp>| instant.is_some_and(|at| at <= now);
        if self.withdrawn_at.is_some() || reached(self.gone_at) {
            KeyPhase::Gone
        } else if reached(self.retires_at) {
            KeyPhase::Retiring
        } else if self.signs_from <= now {
            KeyPhase::Signing
        } else {
            KeyPhase::Announced
        }
    }

    /// The next scheduled phase change after `now`.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        if self.withdrawn_at.is_some() {
            return None;
        }
        [Some(self.signs_from), self.retires_at, self.gone_at].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// The key of one algorithm that signs at `now`: the newest in phase signing. Without one, the first announced key
/// signs, because a client of that algorithm has no other.
pub fn signer_of<K>(
    keys: impl Iterator<Item = K> + Clone,
    schedule: impl Fn(&K) -> KeySchedule,
    now: Timestamp,
) -> Option<K> {
    let in_phase = |phase| {
        let schedule = &schedule;
        keys.clone().filter(move |key| schedule(key).phase(now) == phase)
    };
    in_phase(KeyPhase::Signing)
        .max_by_key(|key| schedule(key).signs_from)
        .or_else(|| in_phase(KeyPhase::Announced).min_by_key(|key| schedule(key).signs_from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn schedule() -> KeySchedule {
        KeySchedule {
            announced_at: at(0),
            signs_from: at(10),
            retires_at: Some(at(20)),
            gone_at: Some(at(30)),
            withdrawn_at: None,
        }
    }

    #[test]
    fn a_key_changes_phase_at_the_exact_instants() {
        let phases =
            [(0, KeyPhase::Announced), (9, KeyPhase::Announced), (10, KeyPhase::Signing), (19, KeyPhase::Signing)];
        let later = [(20, KeyPhase::Retiring), (29, KeyPhase::Retiring), (30, KeyPhase::Gone), (99, KeyPhase::Gone)];
        for (second, phase) in phases.into_iter().chain(later) {
            assert_eq!(schedule().phase(at(second)), phase, "at {second}");
        }
    }

    #[test]
    fn a_withdrawn_key_is_retired_on_every_clock() {
        let withdrawn = KeySchedule { withdrawn_at: Some(at(15)), ..schedule() };
        assert_eq!(withdrawn.phase(at(1)), KeyPhase::Gone);
        assert_eq!(withdrawn.next_change(at(1)), None);
    }

    #[test]
    fn the_next_change_is_the_earliest_later_instant() {
        assert_eq!(schedule().next_change(at(0)), Some(at(10)));
        assert_eq!(schedule().next_change(at(10)), Some(at(20)));
        assert_eq!(schedule().next_change(at(30)), None);
    }
}
