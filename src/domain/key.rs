//! Signing algorithms, and the life of a signing key as a function of time.

use super::{ParseError, Timestamp};

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). No symmetric one exists here (security.md T1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519, always under its RFC 8037 name: verifiers refuse RFC 9864's.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

impl Algorithm {
    /// Every algorithm, in the order in which they are published.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// Reads a registered name, case-sensitively (RFC 8725bis §3.1).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(ParseError("an algorithm is one of ES256, EdDSA, RS256, PS256"))
    }

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// Whether the service makes keys for this algorithm; the others must be imported, since ring makes no RSA keys.
    pub const fn is_generated(self) -> bool {
        matches!(self, Self::Es256 | Self::EdDsa)
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where in its life a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPhase {
    /// Published, not signing yet, so that every verifier meets it before its first token.
    Announced,
    /// Published and signing.
    Signing,
    /// Published, no longer signing: its last tokens are still alive.
    Retiring,
    /// Neither published nor accepted.
    Gone,
}

impl KeyPhase {
    /// The phase's name in answers and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Gone => "gone",
        }
    }
}

/// The instants at which a key changes phase. `announced_at ≤ signs_from`; the rest is set when a successor is made or
/// the key is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchedule {
    /// Published from here.
    pub announced_at: Timestamp,
    /// Signs from here.
    pub signs_from: Timestamp,
    /// Stops signing here: its successor's `signs_from`. None while it has no successor.
    pub retires_at: Option<Timestamp>,
    /// Leaves the JWKS here: `retires_at` plus the longest token life and an hour.
    pub gone_at: Option<Timestamp>,
    /// Withdrawn as compromised: gone from that moment on, whatever the rest says.
    pub withdrawn_at: Option<Timestamp>,
}

impl KeySchedule {
    /// The phase at `now`. A withdrawn key is gone on every clock: withdrawal is an event, not an appointment.
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

    /// When the phase next changes after `now` by itself; none when nothing is scheduled.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        if self.withdrawn_at.is_some() {
            return None;
        }
        [Some(self.signs_from), self.retires_at, self.gone_at].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// Of the keys of one algorithm the one that signs at `now`: the newest that is signing, or, where none is yet, the first
/// that is announced, because a client of that algorithm has nothing else.
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
    fn a_key_walks_through_its_phases_at_the_exact_instants() {
        let phases =
            [(0, KeyPhase::Announced), (9, KeyPhase::Announced), (10, KeyPhase::Signing), (19, KeyPhase::Signing)];
        let later = [(20, KeyPhase::Retiring), (29, KeyPhase::Retiring), (30, KeyPhase::Gone), (99, KeyPhase::Gone)];
        for (second, phase) in phases.into_iter().chain(later) {
            assert_eq!(schedule().phase(at(second)), phase, "at {second}");
        }
    }

    #[test]
    fn a_withdrawn_key_is_gone_on_every_clock() {
        let withdrawn = KeySchedule { withdrawn_at: Some(at(15)), ..schedule() };
        assert_eq!(withdrawn.phase(at(1)), KeyPhase::Gone);
        assert_eq!(withdrawn.next_change(at(1)), None);
    }

    #[test]
    fn the_next_change_is_the_nearest_appointment_ahead() {
        assert_eq!(schedule().next_change(at(0)), Some(at(10)));
        assert_eq!(schedule().next_change(at(10)), Some(at(20)));
        assert_eq!(schedule().next_change(at(30)), None);
    }
}
